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

#define LOOK_NS	    1000000ULL	 /* between looks near the limit */
#define LOOK_FAR_NS 20000000ULL	 /* and far from it, or when nothing more can be taken out */
#define COUNT_NS    10000000ULL	 /* between counts, if a little more is mapped */
#define COUNT_PART  16		 /* and at least so many times what one takes */
#define BUSY_NS	    100000000ULL /* what does not go for so long will not soon */
#define OVER_NS	    100000000ULL /* and then it is tried again, if nothing else is new */
#define FASTEST	    4		 /* bytes a nanosecond, that a program takes of fresh memory */

static uint64_t hand;		   /* the next block to look at */
static uint64_t seen_ns, count_ns; /* when the last count ended; how long it took */
static struct usage seen;	   /* then */
static struct usage own; /* of it: in RAM what is not the program's areas, mapped what is Balun's */
static struct area *area;
static unsigned int nareas;
static uint64_t counted;
static uint64_t over_ns; /* when what should have gone had not; 0: it had */
static int64_t taken;	 /* by touches, then */

static uint64_t grown(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

static uint64_t count(void)
{
	uint64_t sum, t0 = run_now_ns();
	unsigned int n = 0;

	taken = 0;
	balun_taken(run.space, &taken);
	areas_usage(&seen); /* first: what is mapped meanwhile is not Balun's */
	area = areas_read(&n);
	nareas = area ? n : 0;
	sum = areas_count(area, nareas);
	seen_ns = run_now_ns();
	count_ns = seen_ns - t0;
	sum += room_bytes(); /* which is in RAM too, as Balun's */
	own.rss = grown(seen.rss, sum);
	own.mapped = area ? areas_balun() : 0;
	counted = sum;
	return sum;
}

uint64_t keep_resident(void)
{
	struct area *a;
	unsigned int n;

	a = areas_read(&n);
	return a ? areas_count(a, n) + room_bytes() : 0;
}

/*
 * A count takes the longer the more is mapped, and touches wait for it. Between two of them it is
 * known what touches have taken since, and what has left, as long as all is watched. What the
 * program gives back meanwhile is not: the next count tells.
 */
static bool is_known(const struct usage *u, int64_t now_taken, uint64_t *ret_resident)
{
	uint64_t until = seen_ns + COUNT_NS;
	int64_t resident = counted + now_taken - taken;

	if (until < seen_ns + COUNT_PART * count_ns)
		until = seen_ns + COUNT_PART * count_ns;
	if (!press_is_on() || !seen_ns || u->mapped != seen.mapped || run_now_ns() > until)
		return false;
	*ret_resident = resident > 0 ? resident : 0;
	return true;
}

uint64_t keep_about(void)
{
	return grown(areas_rss(), own.rss);
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

/* a thread of the program waits for what it has got to be watched; all is */
static bool serve(void)
{
	const void *fresh;
	size_t len;

	if (!fresh_asked(&fresh, &len))
		return false;
	balun_watch(run.space, fresh, len);
	fresh_looked(true, 0);
	return true;
}

/* how many blocks are looked at for one that goes, before the next count; and how many may refuse
 * as a whole, page by page */
#define TRIES	64
#define REFUSED 4

/*
 * What a child has too, since a fork, does not move. What it had does when it was written to
 * (areas_own()). Where one block was refused the others are asked first.
 */
static uint64_t push(uint64_t block, unsigned int *refused)
{
	bool busy = false;
	uint64_t went;

	if (*refused && !areas_own(block))
		return 0;
	went = room_push(block, &busy);
	if (went || !busy)
		return went;
	++*refused;
	return areas_own(block) ? room_push(block, &busy) : 0;
}

/* Until @bytes less are in RAM. What goes to the room is in RAM still: it counts when it goes on,
 * to make place for others or because nothing else is left. Returns how much went. */
static uint64_t take_out(uint64_t bytes, bool *ret_busy)
{
	unsigned int i, wraps = 0, refused = 0;
	int64_t gone = 0, want = bytes;

	for (i = 0; i < TRIES && gone < want && wraps < 2 && refused < REFUSED; i++) {
		uint64_t block = next_block(area, nareas), before = room_bytes();

		hand = block ? block + RUN_BLOCK : 0;
		wraps += !block;
		if (!block)
			continue;
		gone += push(block, &refused) + before - room_bytes();
		serve(); /* it takes long where a device is slow */
	}
	*ret_busy = refused;
	if (gone < want)
		gone += room_empty(want - gone);
	return gone > 0 ? gone : 0;
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
	uint64_t more = grown(u->rss, seen.rss), mapped = grown(u->mapped, seen.mapped);

	if (!seen_ns || (over_ns && run_now_ns() > over_ns + OVER_NS))
		return false;
	return more < slack / 4 &&
	       (!mapped || (mapped < slack && run_now_ns() < seen_ns + COUNT_NS));
}

/* Is it enough to watch a part (press.c)? What there is was counted. ns until the next look; 0: no
 */
static uint64_t look_partly(bool asked)
{
	uint64_t may = press_partly(area, nareas);

	if (!may)
		return 0;
	fresh_looked(asked, may);
	run_note(counted < seen.rss ? counted : seen.rss);
	return soon(may / 2);
}

/* What is busy may not be for long: a fork() is under way, and brings all home. If it is, a child
 * has it too, or a device. */
static bool is_for_long(bool stuck, bool busy)
{
	static uint64_t since; /* 0: it is not */
	uint64_t now = run_now_ns();

	if (!stuck || !since)
		since = stuck ? now : 0;
	return stuck && (!busy || now - since > BUSY_NS);
}

uint64_t keep_look(uint32_t why)
{
	const uint64_t limit = run.shared->resident, slack = RUN_SLACK(limit);
	bool stuck, asked, known, busy = false, starved = why & FRESH_STARVED;
	uint64_t mapped, resident, ns, want, gone = 0;
	int64_t since = 0;
	const void *fresh;
	struct usage u;
	size_t len;

	asked = fresh_asked(&fresh, &len);
	areas_usage(&u);
	mapped = grown(u.mapped, own.mapped);
	/* with a rest, so that not every other call of the program's must wait for a look */
	if (mapped + slack / 2 <= limit) {
		press_off();
		fresh_looked(asked, limit - mapped);
		return soon(limit - mapped);
	}
	if (run_begin()) {
		fresh_looked(asked, FRESH_ANY);
		return LOOK_FAR_NS;
	}
	if (press_may() && !asked && !starved &&
	    grown(u.mapped, seen.mapped) + grown(u.rss, seen.rss) < press_may() / 2) {
		run_note(grown(u.rss, own.rss));
		return soon(press_may() / 2);
	}
	if (press_is_on() && asked)
		asked = !serve();
	balun_taken(run.space, &since);
	known = is_known(&u, since, &resident);
	if (press_is_on() && !starved && !known && as_before(&u, slack))
		return LOOK_NS;
	if (!known) {
		resident = count();
		since = taken;
		u = seen;
		ns = look_partly(asked);
		if (ns)
			return ns;
	}
	press_note(since, resident, area, known ? 0 : nareas);
	fresh_looked(asked, 0);
	want = resident > limit - slack ? resident - limit + 2 * slack : 0;
	if (want)
		gone = take_out(want, &busy);
	stuck = want && !gone;
	if (stuck && known) { /* is it so? */
		seen_ns = 0;
		return 0;
	}
	over_ns = gone < want ? run_now_ns() : 0;
	stuck = is_for_long(stuck, busy);
	if (press_stuck(stuck, gone >= want || gone >= TRIES / 2 * RUN_BLOCK, starved, resident))
		seen_ns = 0; /* there is a limit again: so much as is counted next */
	/* what was counted may be the zero page: only read, or around what was touched */
	run_note(resident < u.rss ? resident : u.rss);
	return stuck ? LOOK_FAR_NS : LOOK_NS;
}
