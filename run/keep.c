// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Looks now and then how much of the program's memory is in RAM, and takes some of it out when that
 * is more than the limit. A look is three system calls; only when all anonymous memory together
 * comes near the limit it is told apart whose it is.
 *
 * Victims are found by a hand that goes round the address space by blocks of 2 MiB. What it finds
 * goes to the waiting room (room.c), and from there to a device if nobody wants it back.
 */
#include "run/run.h"

#define LOOK_NS	    1000000ULL	/* between looks near the limit */
#define LOOK_FAR_NS 20000000ULL /* and far from it, or when nothing more can be taken out */
#define COUNT_NS    10000000ULL /* between counts, if a little more is mapped */
#define FASTEST	    4		/* bytes a nanosecond, that a program takes of fresh memory */

static uint64_t hand; /* the next block to look at */
static uint64_t seen_ns;
static struct usage seen; /* at the last count; of it Balun's, and what cannot move: */
static struct usage own;

static uint64_t count(const struct area *a, unsigned int n)
{
	uint64_t sum = 0, mapped = 0;
	unsigned int i;

	for (i = 0; i < n; i++) {
		sum += areas_present(a[i].start, a[i].end);
		mapped += a[i].end - a[i].start;
	}
	areas_usage(&seen);
	seen_ns = run_now_ns();
	sum += room_bytes(); /* which is in RAM too, as Balun's */
	own.rss = seen.rss > sum ? seen.rss - sum : 0;
	own.mapped = seen.mapped > mapped ? seen.mapped - mapped : 0;
	return sum;
}

uint64_t keep_resident(void)
{
	unsigned int n = 0;
	const struct area *a = areas_read(&n);

	return count(a, a ? n : 0);
}

uint64_t keep_about(void)
{
	struct usage u;

	areas_usage(&u);
	return u.rss > own.rss ? u.rss - own.rss : 0;
}

/* the next block that has pages in RAM, from the hand on; 0: none */
static uint64_t next_block(const struct area *a, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		uint64_t start = a[i].start > hand ? a[i].start : hand, first;

		if (start >= a[i].end)
			continue;
		first = areas_first(start, a[i].end);
		if (first < a[i].end)
			return first & ~(RUN_BLOCK - 1);
	}
	return 0;
}

/* how many blocks are looked at for one that goes, before the next count */
#define TRIES 64

/* Until @bytes less are in RAM. What goes to the room is in RAM still: it counts when it goes on,
 * to make place for others or because nothing else is left. false: nothing went. */
static bool take_out(uint64_t bytes)
{
	unsigned int n = 0, i, wraps = 0;
	const struct area *a = areas_read(&n);
	int64_t gone = 0, want = bytes;

	for (i = 0; a && i < TRIES && gone < want && wraps < 2; i++) {
		uint64_t block = next_block(a, n), before = room_bytes();

		hand = block ? block + RUN_BLOCK : 0;
		wraps += !block;
		if (block)
			gone += room_push(block) + before - room_bytes();
	}
	if (gone < want)
		gone += room_empty(want - gone);
	return gone > 0;
}

/* until the program can have taken @left bytes more, if it is as fast as can be */
static uint64_t soon(uint64_t left)
{
	uint64_t ns = left / FASTEST;

	return ns < LOOK_NS ? LOOK_NS : ns > LOOK_FAR_NS ? LOOK_FAR_NS : ns;
}

/* has nothing happened since the last count that would make another one worth its time? */
static bool as_before(const struct usage *u, uint64_t slack)
{
	uint64_t more = u->rss > seen.rss ? u->rss - seen.rss : 0;
	uint64_t mapped = u->mapped > seen.mapped ? u->mapped - seen.mapped : 0;

	return more < slack / 4 &&
	       (!mapped || (mapped < slack && run_now_ns() < seen_ns + COUNT_NS));
}

uint64_t keep_look(uint32_t why)
{
	const uint64_t limit = run.shared->resident, slack = RUN_SLACK(limit);
	bool stuck, asked, starved = why & FRESH_STARVED;
	uint64_t mapped, resident;
	const struct area *a;
	int64_t since = 0;
	unsigned int n = 0;
	const void *fresh;
	struct usage u;
	size_t len;

	asked = fresh_asked(&fresh, &len);
	areas_usage(&u);
	mapped = u.mapped - (own.mapped < u.mapped ? own.mapped : u.mapped);
	/* with a rest, so that not every other call of the program's must wait for a look */
	if (mapped + slack / 2 <= limit) {
		press_off();
		fresh_looked(asked, limit - mapped, mapped > limit / 2);
		return soon(limit - mapped);
	}
	if (run_begin()) {
		fresh_looked(asked, INT64_MAX, false);
		return LOOK_FAR_NS;
	}
	if (press_is_on() && asked) {
		balun_watch(run.space, fresh, len);
		fresh_looked(true, 0, true);
		asked = false;
	}
	if (press_is_on() && !starved && as_before(&u, slack))
		return LOOK_NS;
	balun_taken(run.space, &since);
	a = areas_read(&n);
	resident = count(a, n);
	press_note(since, resident, a, n);
	fresh_looked(asked, 0, true);
	stuck = resident > limit - slack && !take_out(resident - limit + 2 * slack);
	press_stuck(stuck, starved, resident);
	/* what was counted may be the zero page: only read, or around what was touched */
	run_note(resident < seen.rss ? resident : seen.rss);
	return stuck ? LOOK_FAR_NS : LOOK_NS;
}
