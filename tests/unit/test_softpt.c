// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The software page table against an array of (place, busy) per page, under random calls and
 * failing allocations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/softpt.h"
#include "tests/unit/rand.h"

#define PAGES 16384u /* 32 blocks: more than stay in place when they are empty */
#define PAGE  4096ULL

static uint32_t ref_place[PAGES];
static bool ref_busy[PAGES];
/* ends in the last leaf of its middle node, so that the window spans nodes of two levels */
static const uint64_t base = (1ULL << 39) - 16 * (2ULL << 20);

static uint64_t va_of(unsigned int page)
{
	return base + page * PAGE;
}

static unsigned int ref_run(unsigned int page, unsigned int max)
{
	unsigned int n = 1;

	while (n < max && ref_busy[page + n] == ref_busy[page] &&
	       ref_place[page + n] == (ref_place[page] ? ref_place[page] + n : 0))
		n++;
	return n;
}

static void check_run(const struct softpt_run *r, unsigned int page, unsigned int max)
{
	assert_int_equal(r->va, va_of(page));
	assert_int_equal(r->away, !!ref_place[page]);
	assert_int_equal(r->busy, ref_busy[page]);
	assert_int_equal(r->place, ref_place[page]);
	assert_int_equal(r->len, ref_run(page, max) * PAGE);
}

static void check_next(struct softpt *pt, unsigned int page, unsigned int end)
{
	struct softpt_run r;
	unsigned int i;

	for (i = page; i < end && !ref_place[i];)
		i++;
	assert_int_equal(softpt_next_away(pt, va_of(page), va_of(end), &r), i < end);
	if (i < end)
		check_run(&r, i, end - i);
	for (i = page; i < end && !ref_busy[i];)
		i++;
	assert_int_equal(softpt_next_busy(pt, va_of(page), va_of(end), &r), i < end);
	if (i < end)
		check_run(&r, i, end - i);
}

static void check_all(struct softpt *pt)
{
	struct softpt_run r;
	unsigned int page = 0;

	while (page < PAGES) {
		softpt_run(pt, va_of(page), (PAGES - page) * PAGE, &r);
		check_run(&r, page, PAGES - page);
		page += r.len / PAGE;
	}
	assert_int_equal(page, PAGES);
	for (page = 0; page + 512 <= PAGES; page += 512) {
		env_bits bits;
		unsigned int i;

		softpt_away_bits(pt, va_of(page), bits);
		for (i = 0; i < 512; i++)
			assert_int_equal(env_bit(bits, i),
					 ref_place[page + i] && !ref_busy[page + i]);
	}
}

static unsigned int rand_len(unsigned int max)
{
	static const unsigned int lens[] = { 1, 2, 16, 17, 64, 512, 513, 2000 };
	unsigned int n = lens[rand_below(8)];

	if (rand_below(2))
		n = 1 + rand_below(n);
	return n < max ? n : max;
}

static void do_set_away(struct softpt *pt, unsigned int page, unsigned int n)
{
	/* few distinct places, in step with the address, so that natural order comes about */
	uint32_t place = SOFTPT_PLACE(1 + rand_below(15), rand_below(3) * 8 + page);
	unsigned int i;

	if (!rand_below(8))
		place = SOFTPT_PLACE(15, 0xfffffffu - PAGES + rand_below(64));
	if (softpt_set_away(pt, va_of(page), n * PAGE, place))
		return;
	for (i = 0; i < n; i++)
		ref_place[page + i] = place + i;
}

static void do_remap(struct softpt *pt, unsigned int from, unsigned int n)
{
	unsigned int to = rand_below(PAGES - n), i;

	if (from + n > to && to + n > from)
		return;
	if (softpt_remap(pt, va_of(from), va_of(to), n * PAGE))
		return;
	for (i = 0; i < n; i++) {
		ref_place[to + i] = ref_place[from + i];
		ref_busy[to + i] = ref_busy[from + i];
		ref_place[from + i] = 0;
		ref_busy[from + i] = false;
	}
}

static void random_step(struct softpt *pt)
{
	unsigned int page = rand_below(PAGES), n = rand_len(PAGES - page), i;

	switch (rand_below(7)) {
	case 0:
	case 1:
		do_set_away(pt, page, n);
		break;
	case 2:
		softpt_clear_away(pt, va_of(page), n * PAGE);
		for (i = page; i < page + n; i++)
			ref_place[i] = 0;
		break;
	case 3:
		if (!softpt_set_busy(pt, va_of(page), n * PAGE))
			for (i = page; i < page + n; i++)
				ref_busy[i] = true;
		break;
	case 4:
		softpt_clear_busy(pt, va_of(page), n * PAGE);
		for (i = page; i < page + n; i++)
			ref_busy[i] = false;
		break;
	case 5:
		do_remap(pt, page, n);
		break;
	default:
		softpt_reserve(pt, va_of(page), rand_below(2));
	}
	check_next(pt, page, page + n);
}

static void forget_reference(void)
{
	memset(ref_place, 0, sizeof(ref_place));
	memset(ref_busy, 0, sizeof(ref_busy));
}

static void test_random(void **state)
{
	struct softpt *pt = softpt_create();
	unsigned int i;

	(void)state;
	forget_reference();
	for (i = 0; i < 20000; i++) {
		env_fail_alloc(rand_below(4) ? 0 : 1 + rand_below(4));
		random_step(pt);
		env_fail_alloc(0);
		if (i % 200 == 0)
			check_all(pt);
	}
	check_all(pt);
	softpt_destroy(pt);
}

/* once reserved, the worst order of the block's pages does not need memory */
static void test_reserve(void **state)
{
	struct softpt *pt = softpt_create();
	unsigned int i, round;

	(void)state;
	forget_reference();
	for (round = 0; round < 100; round++) {
		unsigned int block = rand_below(PAGES / 512) * 512;

		assert_int_equal(softpt_reserve(pt, va_of(block), true), 0);
		assert_int_equal(softpt_set_busy(pt, va_of(block), 512 * PAGE), 0);
		/* others come and go meanwhile; what they free is not taken from the reserve */
		for (i = 0; i < 20; i++) {
			unsigned int page = rand_below(PAGES - 512);

			if (page + 512 > block && page < block + 512)
				continue;
			softpt_clear_away(pt, va_of(page), 512 * PAGE);
			assert_int_equal(
				softpt_set_away(pt, va_of(page + 3), PAGE, SOFTPT_PLACE(2, i)), 0);
			memset(ref_place + page, 0, 512 * sizeof(*ref_place));
			ref_place[page + 3] = SOFTPT_PLACE(2, i);
		}
		env_fail_alloc(1);
		for (i = 0; i < 512; i++) {
			unsigned int page = block + (i * 37) % 512;
			uint32_t place = SOFTPT_PLACE(1, rand_below(100000));

			assert_int_equal(softpt_set_away(pt, va_of(page), PAGE, place), 0);
			ref_place[page] = place;
		}
		env_fail_alloc(0);
		softpt_clear_busy(pt, va_of(block), 512 * PAGE);
		check_all(pt);
	}
	softpt_destroy(pt);
}

/* the state that test_nomem wants to see again after a failure */
static void nomem_setup(struct softpt *pt)
{
	unsigned int i;

	forget_reference();
	for (i = 0; i < 63 * 16; i += 16) {
		assert_int_equal(softpt_set_away(pt, va_of(i), 2 * PAGE, SOFTPT_PLACE(1, i)), 0);
		assert_int_equal(softpt_set_away(pt, va_of(i + 1), PAGE, SOFTPT_PLACE(1, 9)), 0);
		ref_place[i] = SOFTPT_PLACE(1, i);
		ref_place[i + 1] = SOFTPT_PLACE(1, 9);
	}
	assert_int_equal(softpt_set_away(pt, va_of(i), 2 * PAGE, SOFTPT_PLACE(1, i)), 0);
	assert_int_equal(softpt_set_busy(pt, va_of(i), PAGE), 0);
	ref_place[i] = SOFTPT_PLACE(1, i);
	ref_place[i + 1] = SOFTPT_PLACE(1, i + 1);
	ref_busy[i] = true;
}

/* calls that need memory; page 1008 on has nothing but two pages in natural order */
static int nomem_call(struct softpt *pt, unsigned int op)
{
	switch (op) {
	case 0:
		return softpt_set_away(pt, va_of(1008 + 1), 3000 * PAGE, SOFTPT_PLACE(2, 0));
	case 1:
		return softpt_set_busy(pt, va_of(1000), 3000 * PAGE);
	case 2:
		return softpt_remap(pt, va_of(0), va_of(2048 + 5), 1000 * PAGE);
	case 3:
		return softpt_reserve(pt, va_of(2048), true);
	default:
		return softpt_set_away(pt, 1ULL << 46, PAGE, SOFTPT_PLACE(2, 0));
	}
}

/* every call that fails for memory leaves everything as it was, whichever allocation fails */
static void test_nomem(void **state)
{
	unsigned int op, nth, failed = 0;
	struct softpt *pt;
	int err;

	(void)state;
	env_fail_alloc(1);
	assert_null(softpt_create());
	for (op = 0; op < 5; op++) {
		for (nth = 1, err = -1; err; nth++) {
			pt = softpt_create();
			nomem_setup(pt);
			env_fail_alloc(nth);
			err = nomem_call(pt, op);
			env_fail_alloc(0);
			failed += err != 0;
			if (err) {
				assert_int_equal(err, -ENOMEM);
				check_all(pt);
			}
			assert_int_equal(nomem_call(pt, op), 0);
			softpt_destroy(pt);
		}
	}
	assert_true(failed > 12);
}

/* pages in transit that are moved to another block need no memory there either */
static void test_reserve_remap(void **state)
{
	struct softpt *pt = softpt_create();
	unsigned int i;

	(void)state;
	forget_reference();
	assert_int_equal(softpt_reserve(pt, va_of(0), true), 0);
	assert_int_equal(softpt_set_busy(pt, va_of(0), 512 * PAGE), 0);
	assert_int_equal(softpt_remap(pt, va_of(0), va_of(5000), 512 * PAGE), 0);
	env_fail_alloc(1);
	for (i = 0; i < 512; i++) {
		unsigned int page = 5000 + (i * 37) % 512;

		softpt_clear_busy(pt, va_of(page), PAGE);
		ref_place[page] = SOFTPT_PLACE(1, rand_below(100000));
		assert_int_equal(softpt_set_away(pt, va_of(page), PAGE, ref_place[page]), 0);
	}
	env_fail_alloc(0);
	check_all(pt);
	softpt_destroy(pt);
}

static void test_size(void **state)
{
	struct softpt *pt = softpt_create();
	uint64_t empty = softpt_bytes(pt), pages = 1 << 18;
	unsigned int i;

	(void)state;
	assert_int_equal(softpt_set_away(pt, 1ULL << 40, pages * PAGE, SOFTPT_PLACE(3, 7)), 0);
	assert_true((softpt_bytes(pt) - empty) * 10 < pages * 7);
	softpt_clear_away(pt, 1ULL << 40, pages * PAGE);
	/* all fragmented: 4 bytes more per page; and all of it is given back */
	for (i = 0; i < 1 << 17; i++)
		assert_int_equal(softpt_set_away(pt, (1ULL << 41) + i * PAGE, PAGE,
						 SOFTPT_PLACE(1, (i * 7919) % 100000)),
				 0);
	assert_true(softpt_bytes(pt) - empty < (1 << 17) * 5 + 65536);
	softpt_clear_away(pt, 0, 1ULL << 47);
	assert_true(softpt_bytes(pt) - empty < 65536);
	softpt_destroy(pt);
}

/* new addresses all the time do not cost memory */
static void test_churn(void **state)
{
	struct softpt *pt = softpt_create();
	uint64_t i, va, most = 0;

	(void)state;
	for (i = 0; i < 20000; i++) {
		va = rand_below(1ULL << 26) << 21;
		assert_int_equal(softpt_reserve(pt, va, i % 2), 0);
		if (i % 3)
			assert_int_equal(softpt_set_busy(pt, va, PAGE), 0);
		if (i % 5)
			assert_int_equal(softpt_set_away(pt, va, 2 * PAGE, SOFTPT_PLACE(1, 5)), 0);
		softpt_clear_busy(pt, va, 16 * PAGE);
		softpt_clear_away(pt, va, 16 * PAGE);
		most = ENV_MAX(most, softpt_bytes(pt));
	}
	/* the ring's 16 blocks, each with two nodes of its own and 32 slots reserved */
	assert_true(most < 16 * (512 + 2 * 4096 + 2048) + 6 * 4096);
	softpt_destroy(pt);
}

static void test_edges(void **state)
{
	uint64_t top = 1ULL << SOFTPT_VA_BITS;
	struct softpt *pt = softpt_create();
	struct softpt_run r;

	(void)state;
	assert_int_equal(softpt_set_away(pt, top - 2 * PAGE, 2 * PAGE, SOFTPT_PLACE(15, 9)), 0);
	softpt_run(pt, top - 2 * PAGE, 9 * PAGE, &r);
	assert_true(r.away && r.len == 2 * PAGE && SOFTPT_PGNO(r.place) == 9);
	softpt_run(pt, top, 0 - top, &r);
	assert_true(!r.away && !r.busy && r.len == 0 - top);
	softpt_run(pt, 0, top, &r);
	assert_true(!r.away && r.len == top - 2 * PAGE);
	assert_true(softpt_next_away(pt, 0, UINT64_MAX, &r) && r.va == top - 2 * PAGE);
	assert_false(softpt_next_busy(pt, 0, UINT64_MAX, &r));
	softpt_clear_away(pt, top - PAGE, 100 * PAGE);
	softpt_clear_busy(pt, top, 100 * PAGE);
	softpt_run(pt, top - 2 * PAGE, 9 * PAGE, &r);
	assert_int_equal(r.len, PAGE);
	/* two devices whose places are neighbours as numbers are two runs */
	assert_int_equal(softpt_set_away(pt, 0, PAGE, SOFTPT_PLACE(1, 0xfffffff)), 0);
	assert_int_equal(softpt_set_away(pt, PAGE, PAGE, SOFTPT_PLACE(2, 0)), 0);
	softpt_run(pt, 0, 2 * PAGE, &r);
	assert_int_equal(r.len, PAGE);
	softpt_destroy(pt);
	softpt_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),	      cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_size),	      cmocka_unit_test(test_churn),
		cmocka_unit_test(test_edges),	      cmocka_unit_test(test_nomem),
		cmocka_unit_test(test_reserve_remap),
	};

	rand_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
