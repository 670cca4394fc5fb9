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

#define LOOK_NS	    5000000ULL	/* between looks near the limit */
#define LOOK_FAR_NS 20000000ULL /* and far from it, or when nothing more can be taken out */

static uint64_t hand; /* the next block to look at */
static uint64_t own;  /* of the anonymous memory in RAM, Balun's: as of the last count */

uint64_t keep_resident(void)
{
	unsigned int i, n = 0;
	const struct area *a = areas_read(&n);
	uint64_t sum = 0, rss;

	for (i = 0; a && i < n; i++)
		sum += areas_present(a[i].start, a[i].end);
	rss = areas_rss();
	own = rss > sum ? rss - sum : 0;
	return sum + room_bytes(); /* which is in RAM too, as Balun's */
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

uint64_t keep_look(void)
{
	const uint64_t limit = run.shared->resident, slack = limit / 16;
	uint64_t rss = areas_rss(), resident;
	bool stuck;

	if (rss <= limit / 4)
		return LOOK_FAR_NS;
	if (rss <= limit + own)
		return LOOK_NS;
	resident = keep_resident();
	stuck = resident > limit && (run_begin() || !take_out(resident - limit + slack));
	run_note(resident);
	return stuck ? LOOK_FAR_NS : LOOK_NS;
}
