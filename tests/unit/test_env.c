// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* env_user: the arena, the table of regions, fork, locks, threads, reasons */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env/env.h"

#define N 2000

static bool is_zero(const unsigned char *p, size_t n)
{
	while (n--)
		if (p[n])
			return false;
	return true;
}

static bool owned(const void *p, size_t len)
{
	return env_owns((uintptr_t)p, len);
}

static void test_alloc_zeroed_aligned_owned(void **state)
{
	static const size_t size[] = { 0,     1,     16,    17,	   48,	   63,	 64,
				       65,    200,   257,   1000,  4096,   5000, 16384,
				       16385, 21824, 21825, 70000, 3000000 };
	size_t before = env_alloc_bytes(), i;
	int round;

	(void)state;
	for (round = 0; round < 3; round++) {
		for (i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
			unsigned char *p = env_alloc(size[i]);

			assert_non_null(p);
			assert_int_equal((uintptr_t)p % (size[i] >= 64 ? 64 : 16), 0);
			assert_true(is_zero(p, size[i]));
			assert_true(owned(p, size[i] ? size[i] : 1));
			assert_true(env_alloc_bytes() >= before + size[i]);
			memset(p, 0xaa, size[i]);
			env_free(p);
			assert_int_equal(env_alloc_bytes(), before);
		}
	}
	env_free(NULL);
	assert_null(env_alloc(SIZE_MAX));
	assert_null(env_alloc(SIZE_MAX / 2));
}

/* many objects of mixed sizes live at once: none overlaps another, freed memory comes back zeroed
 */
static void test_alloc_many(void **state)
{
	static unsigned char *p[N];
	static size_t size[N];
	size_t before = env_alloc_bytes();
	unsigned int seed = 1;
	int i, round;

	(void)state;
	for (round = 0; round < 20; round++) {
		for (i = 0; i < N; i++) {
			if (p[i] && rand_r(&seed) % 2) {
				assert_int_equal(p[i][0], i % 251);
				assert_int_equal(p[i][size[i] - 1], i % 251);
				env_free(p[i]);
				p[i] = NULL;
			}
			if (p[i])
				continue;
			size[i] = 1 + rand_r(&seed) % (rand_r(&seed) % 16 ? 300 : 30000);
			p[i] = env_alloc(size[i]);
			assert_non_null(p[i]);
			assert_true(is_zero(p[i], size[i]));
			memset(p[i], i % 251, size[i]);
		}
	}
	for (i = 0; i < N; i++) {
		env_free(p[i]);
		p[i] = NULL;
	}
	assert_int_equal(env_alloc_bytes(), before);
}

static void test_fail_alloc(void **state)
{
	void *a, *b, *c;

	(void)state;
	env_fail_alloc(2);
	a = env_alloc(10);
	b = env_alloc(10);
	c = env_alloc(10);
	assert_non_null(a);
	assert_null(b);
	assert_non_null(c);
	env_free(a);
	env_free(c);
	env_fail_alloc(1);
	env_fail_alloc(0);
	a = env_alloc(10);
	assert_non_null(a);
	env_free(a);
}

static void test_pages(void **state)
{
	const size_t len = 5 << 20;
	unsigned char *p = env_pages_alloc(len), *q = env_pages_alloc(100), *libc;

	(void)state;
	assert_non_null(p);
	assert_int_equal((uintptr_t)p % (2 << 20), 0);
	assert_int_equal((uintptr_t)q % 4096, 0);
	assert_true(is_zero(p, 4096) && is_zero(p + len - 4096, 4096));
	assert_true(owned(p, 1) && owned(p + len - 1, 1) && owned(p - 1, 2) && owned(q, 4096));
	env_pages_free(p, len);
	assert_false(owned(p, len));
	env_pages_free(q, 100);
	assert_false(owned(q, 4096));
	env_pages_free(NULL, 100);
	assert_null(env_pages_alloc(0));
	/* the pages that guard it are ours as well: who watches the program leaves them */
	p = env_pages_alloc(8192);
	assert_true(owned(p - 4096, 4096) && owned(p + 8192, 4096));
	env_pages_free(p, 8192);

	libc = malloc(100000);
	assert_false(owned(libc, 100000));
	assert_false(owned(&libc, sizeof(libc)));
	free(libc);
}

/* regions join and split: whatever order they come and go in, the answer is right */
static void test_owns_table(void **state)
{
	static unsigned char *p[N];
	static bool have[N];
	unsigned int seed = 7;
	int i, round;

	(void)state;
	for (round = 0; round < 6; round++) {
		for (i = 0; i < N; i++) {
			if (rand_r(&seed) % 2)
				continue;
			if (have[i])
				env_pages_free(p[i], 8192);
			else
				p[i] = env_pages_alloc(8192);
			have[i] = !have[i];
		}
		for (i = 0; i < N; i++)
			if (have[i])
				assert_true(owned(p[i], 1) && owned(p[i] + 8191, 1));
	}
	for (i = 0; i < N; i++)
		if (have[i])
			env_pages_free(p[i], 8192);
	for (i = 0; i < N; i++)
		assert_false(p[i] && owned(p[i], 8192));
}

static void test_fork(void **state)
{
	unsigned int gen = env_fork_gen();
	char *p = env_alloc(100), *large = env_alloc(100000), *q;
	size_t before = env_alloc_bytes();
	int status;
	pid_t pid;

	(void)state;
	memcpy(p, "parent", 7);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		bool ok = env_fork_gen() == gen + 1 && !strcmp(p, "parent") && owned(p, 100) &&
			  owned(large, 100000) && !env_alloc_bytes();

		q = env_alloc(100);
		ok = ok && q && q != p && is_zero((void *)q, 100);
		/* inherited objects may be freed, without effect */
		env_free(p);
		env_free(large);
		ok = ok && !strcmp(p, "parent") && owned(large, 1);
		env_free(q);
		ok = ok && !env_alloc_bytes();
		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(env_fork_gen(), gen);
	assert_int_equal(env_alloc_bytes(), before);
	env_free(p);
	env_free(large);
}

struct shared {
	struct env_mutex m;
	struct env_cond c;
	int turn;
	uint64_t sum;
	bool on_env_stack, blocked;
};

static void ping(void *arg)
{
	struct shared *s = arg;
	sigset_t set;
	int i;

	sigemptyset(&set);
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	s->blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGUSR1);
	s->on_env_stack = owned(__builtin_frame_address(0), 1);
	for (i = 0; i < 1000; i++) {
		env_mutex_lock(&s->m);
		while (s->turn != 1)
			env_cond_wait(&s->c, &s->m, ENV_FOREVER);
		s->turn = 0;
		s->sum++;
		env_cond_wake(&s->c);
		env_mutex_unlock(&s->m);
	}
}

static void test_threads(void **state)
{
	struct shared s = { .turn = 0 };
	struct env_thread *t;
	int i;

	(void)state;
	env_mutex_init(&s.m);
	env_cond_init(&s.c);
	assert_int_equal(env_thread_create(&t, "ping with a long name", ping, &s), 0);
	for (i = 0; i < 1000; i++) {
		env_mutex_lock(&s.m);
		s.turn = 1;
		env_cond_wake(&s.c);
		while (s.turn)
			env_cond_wait(&s.c, &s.m, ENV_FOREVER);
		env_mutex_unlock(&s.m);
	}
	env_mutex_lock(&s.m);
	assert_true(s.blocked);
	assert_true(s.on_env_stack);
	env_mutex_unlock(&s.m);
	env_thread_join(t);
	assert_int_equal(s.sum, 1000);
	env_thread_join(NULL);

	assert_true(env_mutex_trylock(&s.m));
	env_assert_held(&s.m);
	env_mutex_unlock(&s.m);
	env_cond_destroy(&s.c);
	env_mutex_destroy(&s.m);
}

/* four threads allocate and free at once; what is theirs is owned whatever the others do */
static void churn(void *arg)
{
	unsigned int *errors = arg, seed = (unsigned int)(uintptr_t)&seed, i;
	unsigned char *p, *q;
	size_t size;

	for (i = 0; i < 3000; i++) {
		size = 1 + rand_r(&seed) % (i % 64 ? 500 : 50000);
		p = env_alloc(size);
		q = i % 16 ? NULL : env_pages_alloc(8192);
		if (!p || !is_zero(p, size) || !owned(p, size) || (q && !owned(q, 8192)))
			env_add(errors, 1);
		memset(p, 0x55, size);
		env_free(p);
		env_pages_free(q, 8192);
		if (owned(&errors, 1) != owned(&seed, 1))
			env_add(errors, 1);
	}
}

static void test_concurrent(void **state)
{
	struct env_thread *t[4];
	size_t before = env_alloc_bytes();
	unsigned int errors = 0;
	int i;

	(void)state;
	for (i = 0; i < 4; i++)
		assert_int_equal(env_thread_create(&t[i], "churn", churn, &errors), 0);
	for (i = 0; i < 4; i++)
		env_thread_join(t[i]);
	assert_int_equal(errors, 0);
	assert_int_equal(env_alloc_bytes(), before);
}

static void test_thread_fails(void **state)
{
	struct env_thread *t = (void *)1;
	size_t before = env_alloc_bytes();

	(void)state;
	env_fail_alloc(1);
	assert_int_equal(env_thread_create(&t, "never", ping, NULL), -ENOMEM);
	assert_ptr_equal(t, (void *)1);
	assert_int_equal(env_alloc_bytes(), before);
}

static void test_time(void **state)
{
	uint64_t t0 = env_now_ns();
	struct env_mutex m;
	struct env_cond c;

	(void)state;
	env_sleep_ns(1000000);
	assert_true(env_now_ns() - t0 >= 1000000);
	env_mutex_init(&m);
	env_cond_init(&c);
	env_mutex_lock(&m);
	t0 = env_now_ns();
	assert_false(env_cond_wait(&c, &m, 1000000));
	assert_true(env_now_ns() - t0 >= 1000000);
	env_assert_held(&m);
	env_mutex_unlock(&m);
	env_cond_destroy(&c);
	env_mutex_destroy(&m);
	env_membarrier();
	env_membarrier();
	env_yield();
}

static void other_reason(void *arg)
{
	(void)arg;
	env_reason("other");
}

static void test_reason(void **state)
{
	struct env_thread *t;
	char big[2000];

	(void)state;
	env_reason("first %d", 1);
	assert_int_equal(env_thread_create(&t, "reason", other_reason, NULL), 0);
	env_thread_join(t);
	assert_string_equal(env_reason_get(), "first 1");
	env_reason("again: %s", env_reason_get());
	assert_string_equal(env_reason_get(), "again: first 1");
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	env_reason("%s", big);
	assert_int_equal(strlen(env_reason_get()), 511);
}

#ifndef NDEBUG
/* a debug build dies at the lock mistakes that it can see */
static void test_owner_checked(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		struct env_mutex m;

		fclose(stderr);
		close(2);
		signal(SIGABRT, SIG_DFL);
		env_mutex_init(&m);
		env_mutex_unlock(&m);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}
#endif

/* one that other threads change must not be read twice: balun_query() went past its range */
static void test_min_max(void **state)
{
	int calls = 0;

	(void)state;
	assert_int_equal(ENV_MIN(10, calls++), 0);
	assert_int_equal(calls, 1);
	assert_int_equal(ENV_MAX(calls++, -1), 1);
	assert_int_equal(calls, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_min_max),
		cmocka_unit_test(test_alloc_zeroed_aligned_owned),
		cmocka_unit_test(test_alloc_many),
		cmocka_unit_test(test_fail_alloc),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_owns_table),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_concurrent),
		cmocka_unit_test(test_thread_fails),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_reason),
#ifndef NDEBUG
		cmocka_unit_test(test_owner_checked),
#endif
	};

	return cmocka_run_group_tests_name("env", tests, NULL, NULL);
}
