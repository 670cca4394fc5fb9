// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* balun_allow(): touches that take RAM wait for it, and for nothing else. Engine uffd. */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "balun/balun.h"
#include "env/env.h"
#include "tests/unit/lost.h"

#define PAGE  BALUN_PAGE_SIZE
#define BLOCK BALUN_BLOCK_SIZE
#define ROOM  (4UL << 30)

static struct balun_space *space;
static struct balun_device *soft, *ram;
static uint32_t word;

static int setup(void **state)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };

	(void)state;
	if (balun_space_create(&opts, &space))
		return 0; /* each test skips */
	return balun_allow_word(space, &word) || balun_device_open(space, "soft:mem=64M", &soft) ||
	       balun_device_open(space, "ram:mem=64M", &ram);
}

static int teardown(void **state)
{
	(void)state;
	return balun_space_destroy(space);
}

/* where nothing was before: what was there may be read ahead until it is unmapped, and after */
static char *map(size_t len)
{
	static char *next;
	char *p;

	if (!space)
		skip();
	if (!next)
		next = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			    0);
	p = mmap(next, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	assert_true(next != MAP_FAILED && p != MAP_FAILED);
	next += len;
	return p;
}

static void watch(char *p, size_t len)
{
	int err = balun_watch(space, p, len);

	if (err == -EOPNOTSUPP)
		skip(); /* userfaultfd is for user mode only here */
	assert_int_equal(err, 0);
}

static void allow(int64_t bytes)
{
	int64_t taken;

	assert_int_equal(balun_taken(space, &taken), 0);
	assert_int_equal(balun_allow(space, taken, bytes), 0);
}

static void allow_any(void)
{
	assert_int_equal(balun_allow(space, 0, INT64_MAX), 0);
}

/* has a touch to wait, within so many ms? */
static int waits(unsigned int ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	if (ms && !__atomic_load_n(&word, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0);
	return __atomic_exchange_n(&word, 0, __ATOMIC_SEQ_CST);
}

struct toucher {
	pthread_t thread;
	char *at;
	bool done;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	(*(volatile char *)t->at)++;
	__atomic_store_n(&t->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void begin(struct toucher *t, char *at)
{
	t->at = at;
	t->done = false;
	assert_int_equal(pthread_create(&t->thread, NULL, touch, t), 0);
}

static void end(struct toucher *t)
{
	assert_int_equal(pthread_join(t->thread, NULL), 0);
	assert_true(t->done);
}

static bool done(const struct toucher *t)
{
	return __atomic_load_n(&t->done, __ATOMIC_SEQ_CST);
}

/* a page that is away waits until more is allowed */
static void test_home(void **state)
{
	char *p = map(BLOCK);
	struct toucher t;

	memset(p, 7, BLOCK);
	assert_int_equal(balun_migrate(space, p, PAGE, soft, NULL), 0);
	allow(0);
	begin(&t, p);
	assert_int_equal(waits(10000), 1);
	assert_false(done(&t));
	allow_any();
	end(&t);
	assert_int_equal(*p, 8);
	assert_int_equal(waits(0), 0);
	munmap(p, BLOCK);
}

/* so does one that the program never had, of watched memory; it counts */
static void test_fresh(void **state)
{
	char *p = map(BLOCK);
	int64_t before, after;
	struct toucher t;

	watch(p, BLOCK);
	assert_int_equal(balun_taken(space, &before), 0);
	allow(0);
	begin(&t, p + 5 * PAGE);
	assert_int_equal(waits(10000), 1);
	assert_false(done(&t));
	allow(BLOCK);
	end(&t);
	assert_int_equal(balun_taken(space, &after), 0);
	assert_true(after >= before + (int64_t)PAGE && after <= before + (int64_t)BLOCK);
	allow_any();
	munmap(p, BLOCK);
}

/* what leaves makes room; also where more was taken than is allowed */
static void test_left(void **state)
{
	char *p = map(2 * BLOCK);
	struct toucher t;

	memset(p, 1, 2 * BLOCK);
	assert_int_equal(balun_migrate(space, p, PAGE, soft, NULL), 0);
	allow(-(int64_t)BLOCK / 2);
	begin(&t, p);
	assert_int_equal(waits(10000), 1);
	assert_int_equal(balun_migrate(space, p + BLOCK, BLOCK / 4, soft, NULL), 0);
	assert_false(done(&t));
	assert_int_equal(balun_migrate(space, p + BLOCK, BLOCK, soft, NULL), 0);
	end(&t);
	allow_any();
	munmap(p, 2 * BLOCK);
}

/* a device that is made of RAM: nothing is taken, and nothing becomes free */
static void test_host(void **state)
{
	int64_t before, after;
	char *p = map(BLOCK);

	if (lacks("MOVE"))
		skip(); /* what is copied is nobody's RAM */
	memset(p, 1, BLOCK);
	assert_int_equal(balun_taken(space, &before), 0);
	assert_int_equal(balun_migrate(space, p, BLOCK, ram, NULL), 0);
	assert_int_equal(balun_taken(space, &after), 0);
	assert_int_equal(before, after);
	allow(0);
	{
		struct toucher t;

		begin(&t, p);
		end(&t);
	}
	allow_any();
	munmap(p, BLOCK);
}

/* who allows does not wait for itself; and nobody for a thread that does nothing */
static void test_bounded(void **state)
{
	char *p = map(BLOCK);
	struct timespec a, b;
	struct toucher t;

	memset(p, 1, BLOCK);
	assert_int_equal(balun_migrate(space, p, BLOCK, soft, NULL), 0);
	allow(0);
	(*(volatile char *)p)++;
	clock_gettime(CLOCK_MONOTONIC, &a);
	begin(&t, p + BLOCK - PAGE);
	end(&t);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 >= 1900);
	allow_any();
	munmap(p, BLOCK);
}

/* more threads wait than the reader has places for at first: memory calls go on, and pages leave */
#define MANY 200
static void test_many(void **state)
{
	static struct toucher t[MANY];
	char *p = map(MANY * BLOCK), *q = map(BLOCK);
	unsigned int i, waiting = 0;

	watch(p, MANY * BLOCK);
	watch(q, BLOCK);
	allow(0);
	for (i = 0; i < MANY; i++)
		begin(&t[i], p + i * BLOCK);
	assert_int_equal(waits(10000), 1);
	assert_int_equal(munmap(q, BLOCK), 0);
	for (i = 0; i < MANY; i++)
		waiting += !done(&t[i]);
	assert_true(waiting > 0);
	allow_any();
	for (i = 0; i < MANY; i++)
		end(&t[i]);
	munmap(p, MANY * BLOCK);
}

/* bytes that have come home, however; nothing else of the space moves meanwhile */
static uint64_t home(void)
{
	struct balun_stats stats = { .size = sizeof(stats) };
	uint64_t sum = 0;
	unsigned int i;

	assert_int_equal(balun_stats(space, &stats), 0);
	for (i = 0; i < BALUN_NR_CAUSES; i++)
		sum += stats.to_system[i];
	return sum;
}

/*
 * Reads in order until the reader is ahead: pages that nobody has touched come home. It is so from
 * the end of the first block on, by one block; who gets there has it ahead by two or more.
 */
static void read_ahead(const char *p, char is)
{
	uint64_t before = home();
	struct timespec begun, now;
	size_t at;

	for (at = 0; at < 3 * BLOCK; at += PAGE)
		assert_int_equal(*(const volatile char *)(p + at), is);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	while (home() - before <= 3 * BLOCK) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		assert_true(now.tv_sec - begun.tv_sec < 30);
		sched_yield();
	}
}

/*
 * An address that is unmapped while it is read ahead, and mapped again: nothing of what was there
 * comes into it, and its touches wait as others.
 *
 * What is read ahead need not end with the mapping: the reader may go on at the address, and may
 * bring home what is away there by then, as long as it has looked before nothing more is allowed.
 * Before a page is sent away that must wait, a touch elsewhere is served: it is in no order, so the
 * reader, which serves it, expects nothing ahead any more.
 */
#define AGAIN_LEN (16 * BLOCK)
static void again(bool some_away)
{
	char *q = map(BLOCK), *p = map(AGAIN_LEN); /* @q is below: never ahead */
	struct balun_counts c;
	struct toucher t;
	size_t at;

	memset(q, 1, BLOCK);
	memset(p, 1, AGAIN_LEN);
	assert_int_equal(balun_migrate(space, p, AGAIN_LEN, soft, NULL), 0);
	assert_int_equal(balun_migrate(space, q, PAGE, soft, NULL), 0);
	read_ahead(p, 1);
	assert_int_equal(munmap(p, AGAIN_LEN), 0);
	assert_ptr_equal(mmap(p, AGAIN_LEN, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
			 p);
	for (at = 0; at < AGAIN_LEN; at += PAGE)
		assert_int_equal(p[at], 0);
	memset(p, 2, AGAIN_LEN);
	if (some_away) /* may be read ahead */
		assert_int_equal(balun_migrate(space, p + AGAIN_LEN / 2, AGAIN_LEN / 2, soft, NULL),
				 0);
	(*(volatile char *)q)++;
	assert_int_equal(balun_migrate(space, p + 5 * BLOCK, PAGE, soft, &c), 0);
	assert_int_equal(c.moved, 1);
	allow(0);
	begin(&t, p + 5 * BLOCK);
	assert_int_equal(waits(10000), 1);
	assert_false(done(&t));
	allow_any();
	end(&t);
	waits(0);
	assert_int_equal(p[5 * BLOCK]--, 3);
	assert_int_equal(p[0], 2);
	assert_memory_equal(p, p + 1, AGAIN_LEN - 1);
	munmap(p, AGAIN_LEN);
	munmap(q, BLOCK);
}

/* new addresses each time, for what goes to and fro is not read ahead */
static void test_again(void **state)
{
	unsigned int i;

	for (i = 0; i < 20; i++)
		again(i % 2);
}

/* where touches are not seen */
static void test_refused(void **state)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "sim" };
	struct balun_space *sim;
	int64_t taken;

	(void)state;
	assert_int_equal(balun_space_create(&opts, &sim), 0);
	assert_int_equal(balun_allow(sim, 0, 0), -EOPNOTSUPP);
	assert_int_equal(balun_allow_word(sim, &word), -EOPNOTSUPP);
	assert_int_equal(balun_taken(sim, &taken), -EOPNOTSUPP);
	assert_int_equal(balun_watch(sim, &taken, 1), -EOPNOTSUPP);
	assert_int_equal(balun_space_destroy(sim), 0);
	assert_int_equal(balun_allow(NULL, 0, 0), -EINVAL);
}

/* bytes of RAM that the process has */
static int64_t rss(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*s %ld", &pages), 1);
	fclose(f);
	return pages * PAGE;
}

/* What left is not kept in RAM beside what the device has of it: memory for pages that come home
 * is, but little of it where RAM is counted */
static void test_kept(void **state)
{
	const size_t len = 48UL << 20;
	struct balun_counts c;
	char *p = map(len);
	int64_t before;

	(void)state;
	if (ENV_ASAN || ENV_TSAN)
		skip(); /* which have memory of their own for each byte */
	allow(len);
	memset(p, 1, len);
	before = rss();
	assert_int_equal(balun_migrate(space, p, len, soft, &c), 0);
	assert_int_equal(c.moved, len / PAGE);
	/* the device's memory is this process's too */
	assert_in_range(rss(), 0, before + (int64_t)len / 2);
	allow_any();
	assert_int_equal(munmap(p, len), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_home),	cmocka_unit_test(test_fresh),
		cmocka_unit_test(test_left),	cmocka_unit_test(test_host),
		cmocka_unit_test(test_bounded), cmocka_unit_test(test_many),
		cmocka_unit_test(test_kept),	cmocka_unit_test(test_again),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
