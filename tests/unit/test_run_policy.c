// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The policy of `balun run`: touches at random bring one page, streams more and more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "run/policy.c"

#define BASE  (1ULL << 40)
#define ROOM  7
#define PAGES (8 * BALUN_BLOCK_PAGES)

bool room_is(uint32_t device)
{
	return device == ROOM;
}

/* eight blocks of which the program touches pages; those that are not here come home */
static bool present[PAGES];

static void reset(void)
{
	memset(present, 0, sizeof(present));
	memset(stream, 0, sizeof(stream));
	clock = 0;
}

/* touches a page; returns how many came, 0 if it was here */
static unsigned int touch(unsigned int page, uint32_t from)
{
	unsigned int block = page / BALUN_BLOCK_PAGES * BALUN_BLOCK_PAGES, i, n = 0;
	struct balun_question q = { .size = sizeof(q), .va = BASE + block * RUN_PAGE };
	struct balun_answer a = { 0 };

	if (present[page])
		return 0;
	q.first = page - block;
	q.npages = 1;
	q.from = from;
	for (i = 0; i < BALUN_BLOCK_PAGES; i++)
		set(present[block + i] ? q.local : q.candidate, i);
	run_policy.decide(&q, &a);
	assert_false(a.stay);
	set(a.fetch, q.first);
	for (i = 0; i < BALUN_BLOCK_PAGES; i++) {
		if (!bit(a.fetch, i) || present[block + i])
			continue;
		present[block + i] = true;
		n++;
	}
	return n;
}

static unsigned int pass(int from, int to)
{
	unsigned int n = 0;
	int at;

	for (at = from; at != to; at += to > from ? 1 : -1)
		n += touch(at, 1) > 0;
	return n;
}

static void test_up(void **state)
{
	unsigned int i;

	/* 1, 32, 64, 128, 256, what is left of the block; then a block at a time */
	reset();
	assert_int_equal(touch(0, 1), 1);
	assert_int_equal(touch(1, 1), 32);
	assert_int_equal(touch(33, 1), 64);
	assert_int_equal(touch(97, 1), 128);
	assert_int_equal(touch(225, 1), 256);
	assert_int_equal(touch(481, 1), 31);
	assert_int_equal(touch(512, 1), 512);
	assert_int_equal(pass(1024, PAGES), 6);
	/* also over what is here already */
	reset();
	for (i = 0; i < PAGES; i += 2)
		present[i] = true;
	assert_int_equal(pass(0, PAGES), 6 + 7);
}

static void test_down(void **state)
{
	reset();
	assert_int_equal(touch(1023, 1), 1);
	assert_int_equal(touch(1022, 1), 32);
	assert_int_equal(touch(990, 1), 64);
	assert_int_equal(pass(926, -1), 3 + 1);
	/* it has a direction by now */
	assert_int_equal(touch(1024, 1), 1);
}

static void test_several(void **state)
{
	unsigned int i, n = 0;

	/* two streams, one up and one down, with touches at random between them */
	reset();
	for (i = 0; i < 1024; i++) {
		n += touch(i, 1) > 0;
		n += touch(2 * 1024 - 1 - i, 1) > 0;
		if (i % 200 == 100)
			assert_int_equal(touch(2048 + i * 7 % 2000, 1), 1);
	}
	assert_int_equal(n, 2 * 7);
}

static void test_random(void **state)
{
	unsigned int i;

	/* half of it here: no page but the touched one comes */
	reset();
	for (i = 0; i < PAGES; i++)
		present[i] = i * 7919 % 1000 < 500;
	for (i = 0; i < 1000; i++)
		assert_in_range(touch(i * 1009 % PAGES, 1), 0, 1);
}

static void test_room(void **state)
{
	unsigned int i, n = 0;

	/* one page of ten: alone */
	reset();
	for (i = 0; i < BALUN_BLOCK_PAGES; i += 10)
		assert_int_equal(touch(i, ROOM), 1);
	/* all of it, at random: the block is here after some */
	reset();
	for (i = 0; i < BALUN_BLOCK_PAGES; i++)
		n += touch(i * 211 % BALUN_BLOCK_PAGES, ROOM) > 0;
	assert_in_range(n, 5, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_up),	cmocka_unit_test(test_down),
		cmocka_unit_test(test_several), cmocka_unit_test(test_random),
		cmocka_unit_test(test_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
