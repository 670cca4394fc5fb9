// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The built-in policy against its description, written out page by page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "balun/policy.h"
#include "env/env.h"
#include "tests/unit/rand.h"

static struct balun_question question(unsigned int first, unsigned int npages, unsigned int dev)
{
	struct balun_question q = { .size = sizeof(q), .va = 1ULL << 40 };

	q.first = first;
	q.npages = npages;
	q.device = dev;
	memset(q.candidate, 0xff, sizeof(q.candidate));
	return q;
}

static struct balun_answer ask(const struct balun_question *q)
{
	struct balun_answer a;

	memset(&a, 0, sizeof(a));
	balun_policy_default(q, &a);
	return a;
}

static void fetches(const struct balun_question *q, unsigned int from, unsigned int n)
{
	struct balun_answer a = ask(q);
	unsigned int i;

	assert_false(a.stay);
	for (i = 0; i < 512; i++)
		if (env_bit(a.fetch, i) != (i >= from && i < from + n))
			fail_msg("page %u", i);
}

static void test_stay(void **state)
{
	struct balun_question q = question(5, 1, 3);

	(void)state;
	assert_false(ask(&q).stay);
	q.hints = BALUN_HINT_ACCESSED_BY;
	assert_true(ask(&q).stay);
	q.hints |= BALUN_HINT_PREFERRED;
	q.preferred = 3;
	assert_false(ask(&q).stay);
	q.preferred = 0;
	assert_true(ask(&q).stay);
	q.hints = BALUN_HINT_READ_MOSTLY;
	assert_true(ask(&q).stay);
	q.write = 1;
	assert_false(ask(&q).stay);
	q.hints = 0;
	q.thrashing = 2;
	assert_false(ask(&q).stay);
	q.thrashing = 3;
	assert_true(ask(&q).stay);
	/* a CPU always gets it, but without the neighbours */
	q.device = 0;
	q.hints = BALUN_HINT_ACCESSED_BY | BALUN_HINT_PREFERRED;
	fetches(&q, 0, 0);
	q.thrashing = 0;
	fetches(&q, 5, 1);
	q.streak = 1;
	fetches(&q, 0, 32);
}

static void test_window(void **state)
{
	struct balun_question q = question(37, 1, 1);

	(void)state;
	fetches(&q, 32, 16);
	q.npages = 12; /* 37..48 */
	fetches(&q, 32, 32);
	q = question(511, 1, 0);
	fetches(&q, 511, 1);
	q.device = 1;
	fetches(&q, 496, 16);
	q = question(0, 512, 1);
	fetches(&q, 0, 512);
	q = question(34, 1, 1);
	q.streak = 1;
	fetches(&q, 32, 32);
	q.streak = 3;
	fetches(&q, 32, 128);
	q.streak = UINT32_MAX;
	fetches(&q, 32, 480);
	q.candidate[1] = 0;
	q.streak = 2;
	fetches(&q, 32, 32);
}

/* 51 % are not enough, more are: of 32 pages 17 (53 %), of 64 pages 33 */
static void test_threshold(void **state)
{
	struct balun_question q = question(0, 1, 1);

	(void)state;
	q.local[0] = 1ULL << 16;
	fetches(&q, 0, 32);
	q.local[0] = 0;
	fetches(&q, 0, 16);
	q.local[0] = 0x0001ffff00000000ULL; /* 17 and 16 faulted: 33 of 64 */
	fetches(&q, 0, 64);
	q.local[0] = 0x0000ffff00000000ULL; /* half */
	fetches(&q, 0, 16);
}

static bool ref_tree(const bool *there, unsigned int page, unsigned int *ret_from,
		     unsigned int *ret_n)
{
	unsigned int n, i, k;

	for (n = 512; n > 16; n /= 2) {
		for (i = page / n * n, k = 0; i < page / n * n + n; i++)
			k += there[i];
		if (k > n * 0.51) {
			*ret_from = page / n * n;
			*ret_n = n;
			return true;
		}
	}
	return false;
}

static void ref_fetch(const struct balun_question *q, bool *fetch)
{
	bool there[512], unit[32] = { 0 };
	unsigned int i, from, n;

	for (i = q->first; i < q->first + q->npages && i < 512; i++)
		unit[i / 16] = true;
	for (i = 0; i < 512; i++) {
		/* a CPU that jumps about gets what it touched */
		fetch[i] = q->device || q->streak ? unit[i / 16]
						  : i >= q->first && i < q->first + q->npages;
		there[i] = fetch[i] || env_bit(q->local, i);
	}
	for (i = 0; i < 32; i++)
		if (unit[i] && ref_tree(there, i * 16, &from, &n))
			memset(fetch + from, true, n);
	n = q->streak ? 16u << (q->streak > 5 ? 5 : q->streak) : 0;
	for (i = q->first / 16 * 16; n-- && i < 512; i++)
		fetch[i] = true;
	for (i = 0; i < 512; i++)
		fetch[i] = fetch[i] && env_bit(q->candidate, i);
}

static void test_random(void **state)
{
	unsigned int round, i;
	bool want[512];

	(void)state;
	for (round = 0; round < 5000; round++) {
		struct balun_question q = question(rand_below(512), 1, rand_below(4));
		struct balun_answer a;

		if (rand_below(2))
			q.npages += rand_below(512 - q.first);
		q.streak = rand_below(2) ? 0 : rand_below(9);
		for (i = 0; i < BALUN_BITMAP_WORDS; i++) {
			q.local[i] = rand_below(3) ? rand_u64() : 0 - rand_below(2);
			q.candidate[i] = rand_below(3) ? ~q.local[i] : rand_u64() & ~q.local[i];
		}
		a = ask(&q);
		ref_fetch(&q, want);
		for (i = 0; i < 512; i++)
			assert_int_equal(env_bit(a.fetch, i), want[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stay),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_threshold),
		cmocka_unit_test(test_random),
	};

	rand_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
