// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Back-pressure. As long as all that the program has mapped is less than the limit it cannot get
 * above it, and nothing is watched. From then on all of it is, so that touches of memory that it
 * never had are seen, and touches together may take no more than is left up to the limit. Then they
 * wait, as in the kernel's direct reclaim, until pages have left. So the limit holds however slowly
 * the worker gets to run.
 *
 * Many a program maps more than the limit and uses little of it: stacks of threads, a heap that may
 * grow. A first touch that is seen costs several times one that is not; so as long as half of the
 * limit is not in use (a quarter, once that is so), only the areas with the most that is not in RAM
 * are watched, as many as it takes. What is in RAM of those, and all of the others, is less than
 * the limit; what is left up to that is halved, between touches of what is watched and memory that
 * is mapped anew.
 *
 * When nothing can be moved out any more (the devices are full) touches go through, and how long
 * that was so is written down.
 */
#include "run/run.h"

bool press_on;		 /* all is watched; any thread */
static uint64_t may;	 /* not all is: so much may be mapped, and as much be touched of what is */
static uint64_t full_ns; /* when the devices were found full; 0: they are not */

void press_forget(void)
{
	press_on = false;
	may = full_ns = 0;
}

static void set(bool now)
{
	__atomic_store_n(&press_on, now, __ATOMIC_RELAXED);
}

/* they are since @now, or still; 0: they are not */
static void full(uint64_t now)
{
	if (full_ns && run.slot)
		run.slot->full_ns += run_now_ns() - full_ns;
	full_ns = now;
}

void press_note(int64_t since, uint64_t resident, const struct area *a, unsigned int n)
{
	/* a touch brings as much as a block home */
	const uint64_t most = run.shared->resident - RUN_SLACK(run.shared->resident) / 2;
	unsigned int i;

	if (!press_is_on() && !may)
		balun_allow_word(run.space, &fresh_word);
	set(true);
	may = 0;
	for (i = 0; i < n; i++)
		balun_watch(run.space, (void *)(uintptr_t)a[i].start, a[i].end - a[i].start);
	if (!full_ns)
		balun_allow(run.space, since, most - resident);
}

void press_off(void)
{
	if (!press_is_on() && !may)
		return;
	set(false);
	may = 0;
	full(0);
	balun_allow(run.space, 0, INT64_MAX);
}

/* of this area, bytes */
static uint64_t absent(const struct area *a)
{
	uint64_t size = a->end - a->start;

	return a->present < size ? size - a->present : 0;
}

/* Areas with as much absent or more (bytes, a power of two) are to be watched: of what they have
 * in RAM, all others, and @could together are @enough then, if that can be. */
static uint64_t watch_from(const struct area *a, unsigned int n, uint64_t could, uint64_t enough)
{
	uint64_t sum[48] = { 0 };
	unsigned int i, c = 48;

	for (i = 0; i < n; i++) {
		could += a[i].end - a[i].start;
		if (absent(&a[i]))
			sum[63 - __builtin_clzll(absent(&a[i]))] += absent(&a[i]);
	}
	while (c && could > enough)
		could -= sum[--c];
	return 1ULL << c;
}

uint64_t press_partly(struct area *a, unsigned int n)
{
	const uint64_t limit = run.shared->resident, most = limit - RUN_SLACK(limit) / 2;
	const uint64_t stay = limit / 4 * 3;
	uint64_t used = room_bytes(), could = used, from;
	int64_t since = 0;
	unsigned int i;

	from = watch_from(a, n, used, limit / 8 * 5);
	for (i = 0; i < n; i++)
		used += a[i].present;
	if (!n || full_ns || used > (may ? stay : limit / 2))
		return 0;
	for (i = 0; i < n; i++) {
		a[i].watched = absent(&a[i]) >= from;
		if (a[i].watched)
			balun_watch(run.space, (void *)(uintptr_t)a[i].start,
				    a[i].end - a[i].start);
	}
	/* again, now that no touch of them passes unseen */
	balun_taken(run.space, &since);
	for (i = 0; i < n; i++)
		could += a[i].watched ? areas_present(a[i].start, a[i].end) : a[i].end - a[i].start;
	if (could > stay)
		return 0;
	if (!press_is_on() && !may)
		balun_allow_word(run.space, &fresh_word);
	set(false);
	may = (most - could) / 2;
	balun_allow(run.space, since, may);
	return may;
}

uint64_t press_may(void)
{
	return may;
}

/* It ends when the limit holds again or there is plenty of place, not with the first that comes
 * free: what then goes out makes room for a touch that brings as much home. */
bool press_stuck(bool stuck, bool well, bool starved, uint64_t resident)
{
	bool was = full_ns;

	if (full_ns)
		full(!well && resident > run.shared->resident ? run_now_ns() : 0);
	else if (stuck && (starved || resident > run.shared->resident))
		full(run_now_ns());
	if (full_ns)
		balun_allow(run.space, 0, INT64_MAX);
	return was && !full_ns;
}

bool press_is_full(void)
{
	return full_ns;
}
