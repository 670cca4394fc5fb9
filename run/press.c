// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Back-pressure. As long as all that the program has mapped is less than the limit it cannot get
 * above it, and nothing is watched. From then on all of it is, so that touches of memory that it
 * never had are seen, and touches together may take no more than is left up to the limit. Then they
 * wait, as in the kernel's direct reclaim, until pages have left. So the limit holds however slowly
 * the worker gets to run.
 *
 * When nothing can be moved out any more (the devices are full) touches go through, and how long
 * that was so is written down.
 */
#include "run/run.h"

bool press_on;		 /* any thread */
static uint64_t full_ns; /* when the devices were found full; 0: they are not */

void press_forget(void)
{
	press_on = false;
	full_ns = 0;
}

static void set(bool now)
{
	__atomic_store_n(&press_on, now, __ATOMIC_RELAXED);
}

void press_note(int64_t since, uint64_t resident, const struct area *a, unsigned int n)
{
	/* a touch brings as much as a block home */
	const uint64_t most = run.shared->resident - RUN_SLACK(run.shared->resident) / 2;
	unsigned int i;

	if (!press_is_on())
		balun_allow_word(run.space, &fresh_word);
	set(true);
	for (i = 0; i < n; i++)
		balun_watch(run.space, (void *)(uintptr_t)a[i].start, a[i].end - a[i].start);
	if (!full_ns)
		balun_allow(run.space, since, most - resident);
}

void press_off(void)
{
	if (!press_is_on())
		return;
	set(false);
	balun_allow(run.space, 0, INT64_MAX);
}

/* It ends when the limit holds again, not with the first place that comes free: what then goes out
 * makes room for a touch that brings as much home. */
void press_stuck(bool stuck, bool starved, uint64_t resident)
{
	uint64_t now = run_now_ns();

	if (full_ns && run.slot)
		run.slot->full_ns += now - full_ns;
	if (full_ns)
		full_ns = resident > run.shared->resident ? now : 0;
	else if (stuck && (starved || resident > run.shared->resident))
		full_ns = now;
	if (full_ns)
		balun_allow(run.space, 0, INT64_MAX);
}

bool press_is_full(void)
{
	return full_ns;
}
