// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What goes to and fro, with a clock of the test's own: core/thrash.c is compiled into it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "core/core.h"

#define MS    1000000ULL
#define BLOCK (1ULL << 40)

static struct balun_space space;
static uint64_t now = 1000 * MS;

uint64_t env_now_ns(void)
{
	return now;
}

static int setup(void **state)
{
	(void)state;
	memset(&space, 0, sizeof(space));
	now += 10000 * MS;
	return 0;
}

/* @n times to a device and home, @gap after one another; of every block of a row */
static void to_and_fro(const uint64_t *block, unsigned int nblocks, unsigned int n, uint64_t gap)
{
	unsigned int i, k;

	for (i = 0; i < 2 * n; i++, now += gap)
		for (k = 0; k < nblocks; k++)
			core_thrash_note(&space, block[k], i % 2 == 0);
}

static void test_level(void **state)
{
	uint64_t block = BLOCK;

	(void)state;
	to_and_fro(&block, 1, 1, MS / 10);
	assert_int_equal(core_thrash_level(&space, block), 0);
	to_and_fro(&block, 1, 2, MS / 10);
	assert_in_range(core_thrash_level(&space, block), 3, 6);
	assert_int_equal(core_thrash_level(&space, block + BALUN_BLOCK_SIZE), 0);
	now += 150 * MS + 1;
	assert_int_equal(core_thrash_level(&space, block), 0);
}

static void test_slow(void **state)
{
	uint64_t block = BLOCK;

	(void)state;
	to_and_fro(&block, 1, 20, MS);
	assert_int_equal(core_thrash_level(&space, block), 0);
	/* a mean fault of 1 ms makes it 4 ms */
	space.stats.cpu_fault.count = 10;
	space.stats.cpu_fault.sum_ns = 10 * MS;
	to_and_fro(&block, 1, 20, MS);
	assert_int_not_equal(core_thrash_level(&space, block), 0);
}

/* one slow move does not end the stay */
static void test_stays(void **state)
{
	uint64_t block = BLOCK;

	(void)state;
	to_and_fro(&block, 1, 3, MS / 10);
	now += 10 * MS;
	core_thrash_note(&space, block, true);
	assert_int_not_equal(core_thrash_level(&space, block), 0);
	now += 150 * MS + 1;
	core_thrash_note(&space, block, false);
	assert_int_equal(core_thrash_level(&space, block), 0);
}

/* Heaps begin at large powers of two: a block of each thrashes, and all are seen to. Some of
 * the 16 may share a slot. */
static void test_aligned_heaps(void **state)
{
	static const unsigned int shift[] = { 26, 30, 36, 40 };
	unsigned int i, k, seen;
	uint64_t block[16];

	(void)state;
	for (i = 0; i < sizeof(shift) / sizeof(shift[0]); i++) {
		setup(NULL);
		for (k = 0; k < 16; k++)
			block[k] = BLOCK + ((uint64_t)k << shift[i]);
		to_and_fro(block, 16, 4, MS / 10);
		for (k = seen = 0; k < 16; k++)
			seen += core_thrash_level(&space, block[k]) != 0;
		assert_in_range(seen, 8, 16);
	}
}

static void test_hold(void **state)
{
	uint64_t block = BLOCK;

	(void)state;
	to_and_fro(&block, 1, 3, MS / 10);
	assert_false(core_thrash_hold(&space, block));
	core_thrash_note(&space, block, true);
	assert_true(core_thrash_hold(&space, block));
	now += MS / 2;
	assert_false(core_thrash_hold(&space, block));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_level, setup),
		cmocka_unit_test_setup(test_slow, setup),
		cmocka_unit_test_setup(test_stays, setup),
		cmocka_unit_test_setup(test_aligned_heaps, setup),
		cmocka_unit_test_setup(test_hold, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
