// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The built-in policy: policy.h says what it does. A pure function of the question. */
#include "balun/policy.h"
#include "env/env.h"

#define UNIT_PAGES	 16 /* 64 KiB */
#define THRASHING	 3
#define TREE_PERCENT	 51
#define STREAK_MAX_SHIFT 5 /* 64 KiB << 5 is the block */

/* bits set in [from, from + n); both multiples of UNIT_PAGES, n a power of two */
static unsigned int count(const uint64_t *bits, unsigned int from, unsigned int n)
{
	unsigned int i, k = 0;

	if (n < 64)
		return __builtin_popcountll(bits[from / 64] >> from % 64 & ((1ULL << n) - 1));
	for (i = 0; i < n / 64; i++)
		k += __builtin_popcountll(bits[from / 64 + i]);
	return k;
}

/* the largest subtree around a page of which more than TREE_PERCENT are there or were faulted */
static void fetch_tree(const uint64_t *there, unsigned int page, uint64_t *fetch)
{
	unsigned int n;

	for (n = BALUN_BLOCK_PAGES; n > UNIT_PAGES; n /= 2) {
		unsigned int from = page & ~(n - 1);

		if (count(there, from, n) * 100 > n * TREE_PERCENT) {
			env_bits_set_range(fetch, from, n);
			return;
		}
	}
}

static void fetch(const struct balun_question *q, uint64_t *ret_fetch)
{
	unsigned int first = q->first & ~(UNIT_PAGES - 1);
	unsigned int end = (q->first + q->npages + UNIT_PAGES - 1) & ~(UNIT_PAGES - 1);
	unsigned int window = UNIT_PAGES << ENV_MIN(q->streak, STREAK_MAX_SHIFT);
	unsigned int i, page;
	env_bits there;

	end = ENV_MIN(end, BALUN_BLOCK_PAGES);
	if (q->device || q->streak) /* a CPU that jumps about wants one page, and soon */
		env_bits_set_range(ret_fetch, first, end - first);
	else
		env_bits_set_range(ret_fetch, q->first, q->npages);
	for (i = 0; i < BALUN_BITMAP_WORDS; i++)
		there[i] = q->local[i] | ret_fetch[i];
	for (page = first; page < end; page += UNIT_PAGES)
		fetch_tree(there, page, ret_fetch);
	/* one who comes along in order gets more each time, ahead of where it is */
	if (q->streak) {
		end = ENV_MIN(ENV_MAX(end, first + window), BALUN_BLOCK_PAGES);
		env_bits_set_range(ret_fetch, first, end - first);
	}
}

/* a device may use it where it is */
static bool stay(const struct balun_question *q)
{
	if (q->hints & BALUN_HINT_PREFERRED && q->preferred == q->device)
		return false;
	if (q->hints & (BALUN_HINT_PREFERRED | BALUN_HINT_ACCESSED_BY))
		return true;
	return (q->hints & BALUN_HINT_READ_MOSTLY && !q->write) || q->thrashing >= THRASHING;
}

void balun_policy_default(const struct balun_question *q, struct balun_answer *ret_a)
{
	unsigned int i;

	if (q->device && stay(q)) {
		ret_a->stay = true;
		return;
	}
	/* what goes to and fro takes no neighbours along */
	if (q->thrashing >= THRASHING)
		return;
	fetch(q, ret_a->fetch);
	for (i = 0; i < BALUN_BITMAP_WORDS; i++)
		ret_a->fetch[i] &= q->candidate[i];
}
