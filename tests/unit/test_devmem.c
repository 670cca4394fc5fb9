// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The allocator of device memory against a byte per page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/devmem.h"
#include "tests/unit/rand.h"

#define CHUNKS 12u
#define PAGES  (CHUNKS * 512)
#define PAGE   4096ULL

static bool used[PAGES];

static unsigned int count_used(void)
{
	unsigned int i, n = 0;

	for (i = 0; i < PAGES; i++)
		n += used[i];
	return n;
}

/* whether a free run of @n pages, aligned, exists */
static bool can_give(unsigned int n)
{
	unsigned int i, k;

	for (i = 0; i < PAGES; i += n) {
		for (k = 0; k < n && !used[i + k];)
			k++;
		if (k == n)
			return true;
	}
	return false;
}

/* whether the chunk of page @i has a used page */
static bool broken(unsigned int i)
{
	unsigned int k;

	for (k = i / 512 * 512; k < i / 512 * 512 + 512; k++)
		if (used[k])
			return true;
	return false;
}

/* whether a run of @n pages could come from a chunk that is broken already */
static bool can_give_broken(unsigned int n)
{
	unsigned int i, k;

	for (i = 0; i < PAGES; i += n) {
		for (k = 0; k < n && !used[i + k];)
			k++;
		if (k == n && broken(i))
			return true;
	}
	return false;
}

static void step_alloc(struct devmem *m)
{
	static const unsigned int sizes[] = { 1, 1, 1, 16, 16, 512 };
	unsigned int n = sizes[rand_below(6)], i;
	bool can = can_give(n), from_broken = can_give_broken(n);
	uint64_t off = 99;

	assert_int_equal(devmem_alloc(m, n * PAGE, &off), can ? 0 : -ENOMEM);
	if (!can) {
		assert_int_equal(off, 99);
		return;
	}
	assert_true(off % (n * PAGE) == 0 && off + n * PAGE <= PAGES * PAGE);
	assert_int_equal(broken(off / PAGE), from_broken);
	for (i = off / PAGE; n--; i++) {
		assert_false(used[i]);
		used[i] = true;
	}
}

static void step_free(struct devmem *m, unsigned int most)
{
	unsigned int from = rand_below(PAGES), n = 0;

	while (from < PAGES && !used[from])
		from++;
	most = 1 + rand_below(most);
	while (n < most && from + n < PAGES && used[from + n])
		used[from + n++] = false;
	if (n)
		devmem_free(m, from * PAGE, n * PAGE);
}

static void test_random(void **state)
{
	struct devmem *m = devmem_create(PAGES * PAGE);
	unsigned int i, round;

	(void)state;
	for (round = 0; round < 20; round++) {
		unsigned int bias = 1 + rand_below(6), most = rand_below(2) ? 20 : 1200;

		for (i = 0; i < 300; i++) {
			if (rand_below(bias + 1))
				step_alloc(m);
			else
				step_free(m, most);
			assert_int_equal(devmem_used(m), count_used() * PAGE);
			if (i % 8 == 0)
				assert_int_equal(devmem_check(m), 0);
		}
	}
	while (count_used())
		step_free(m, PAGES);
	assert_int_equal(devmem_used(m), 0);
	/* all merged back */
	for (i = 0; i < CHUNKS; i++) {
		uint64_t off;

		assert_int_equal(devmem_alloc(m, 512 * PAGE, &off), 0);
	}
	assert_int_equal(devmem_check(m), 0);
	devmem_destroy(m);
	devmem_destroy(NULL);
}

static void test_metadata(void **state)
{
	struct devmem *m = devmem_create(1ULL << 40);
	uint64_t empty = devmem_metadata(m), off;
	unsigned int i;

	(void)state;
	for (i = 0; i < 100; i++) {
		assert_int_equal(devmem_alloc(m, 2 << 20, &off), 0);
		devmem_free(m, off, 2 << 20);
	}
	assert_true(devmem_metadata(m) - empty < 128);
	for (i = 0; i < 512; i++)
		assert_int_equal(devmem_alloc(m, PAGE, &off), 0);
	assert_true(devmem_metadata(m) - empty < 128);
	assert_int_equal(devmem_used(m), 2 << 20);
	devmem_destroy(m);
}

static void test_nomem(void **state)
{
	(void)state;
	env_fail_alloc(1);
	assert_null(devmem_create(2 << 20));
	env_fail_alloc(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_nomem),
	};

	rand_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
