// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What comes home with a touched page. RAM is short here: whatever comes makes something else go,
 * and be compressed or written. So a page that is touched at random comes alone, and neighbours
 * only with those who read or write in order, more of them each time. Of these there may be several
 * at a time, up or down, between touches at random: each is a stream that is remembered until
 * others have taken its place.
 *
 * What is in the waiting room costs no copy, and was in use not long ago: when a fourth of 64 KiB
 * has been touched there the rest comes too, and larger parts of a block when half of them have
 * come.
 */
#include <string.h>

#include "balun/policy.h"
#include "run/run.h"

#define STREAMS	     8
#define UNIT	     16u /* pages: 64 KiB */
#define WINDOW_SHIFT 5u	 /* UNIT << 5 is the block */

/* Only the thread that serves touches asks, so it is the only one who uses them. */
static struct stream {
	uint64_t up, down; /* the page that is touched next, if it goes on so; 0: it does not */
	uint32_t length;   /* how often it went on */
	uint32_t last;	   /* when, by @clock */
} stream[STREAMS];
static uint32_t clock;

static bool bit(const uint64_t *bits, unsigned int i)
{
	return bits[i / 64] >> i % 64 & 1;
}

static void set(uint64_t *bits, unsigned int i)
{
	bits[i / 64] |= 1ULL << i % 64;
}

static unsigned int count(const uint64_t *bits, unsigned int from, unsigned int n)
{
	unsigned int i, k = 0;

	for (i = from; i < from + n; i++)
		k += bit(bits, i);
	return k;
}

/* are all pages of [from, to) here? */
static bool here(const struct balun_question *q, unsigned int from, unsigned int to)
{
	while (from < to && bit(q->local, from))
		from++;
	return from >= to;
}

/* what is here is passed without a touch that anybody sees */
static bool goes_up(const struct balun_question *q, const struct stream *s)
{
	return s->up >= q->va && s->up <= q->va + q->first * RUN_PAGE &&
	       here(q, (s->up - q->va) / RUN_PAGE, q->first);
}

static bool goes_down(const struct balun_question *q, const struct stream *s)
{
	return s->down < q->va + RUN_BLOCK && s->down >= q->va + q->first * RUN_PAGE &&
	       here(q, q->first + 1, (s->down - q->va) / RUN_PAGE + 1);
}

/* the stream that this touch belongs to: one that goes on, or another in the oldest's place */
static struct stream *find(const struct balun_question *q)
{
	struct stream *s, *oldest = stream;

	clock++;
	for (s = stream; s < stream + STREAMS; s++) {
		if (goes_up(q, s)) {
			s->down = 0;
			break;
		}
		if (goes_down(q, s)) {
			s->up = 0;
			break;
		}
		if (clock - s->last > clock - oldest->last)
			oldest = s;
	}
	if (s < stream + STREAMS) {
		s->length++;
	} else {
		s = oldest;
		/* core brings whole blocks ahead of who goes up, and knows that it goes on behind
		 * them */
		s->length = q->streak;
		s->up = q->va;
		s->down = q->streak ? 0 : q->va; /* both: who knows yet */
	}
	s->last = clock;
	return s;
}

/* it takes what is ahead of it; where that ends, or what is here already does, it is expected */
static void follow(const struct balun_question *q, struct stream *s, uint64_t *ret_fetch)
{
	unsigned int window = UNIT << (s->length < WINDOW_SHIFT ? s->length : WINDOW_SHIFT);
	unsigned int up = q->first + 1, down = q->first, left;

	for (left = s->length && s->up ? window - 1 : 0; up < BALUN_BLOCK_PAGES; up++) {
		if (!left && !bit(q->local, up))
			break;
		if (left) {
			set(ret_fetch, up);
			left--;
		}
	}
	for (left = s->length && s->down ? window - 1 : 0; down > 0; down--) {
		if (!left && !bit(q->local, down - 1))
			break;
		if (left) {
			set(ret_fetch, down - 1);
			left--;
		}
	}
	s->up = s->up ? q->va + up * RUN_PAGE : 0;
	s->down = s->down ? q->va + (uint64_t)down * RUN_PAGE - RUN_PAGE : 0;
}

/* the largest part around the touch of which enough is here */
static void fetch_dense(const struct balun_question *q, uint64_t *ret_fetch)
{
	unsigned int n, from, i;

	for (n = BALUN_BLOCK_PAGES; n >= UNIT; n /= 2) {
		from = q->first & ~(n - 1);
		if ((count(q->local, from, n) + 1) * (n == UNIT ? 4 : 2) <= n)
			continue;
		for (i = from; i < from + n; i++)
			set(ret_fetch, i);
		return;
	}
}

static void decide(const struct balun_question *q, struct balun_answer *ret_a)
{
	if (q->device) {
		balun_policy_default(q, ret_a);
		return;
	}
	follow(q, find(q), ret_a->fetch);
	if (room_is(q->from))
		fetch_dense(q, ret_a->fetch);
}

const struct balun_policy run_policy = {
	.size = sizeof(run_policy),
	.name = "run",
	.decide = decide,
};
