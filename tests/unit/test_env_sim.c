// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* env_sim: determinism, detection of deadlocks, virtual time, replay, shrinking */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "env/env.h"
#include "env/env_sim.h"

#define SCHEDULES 2000

struct world {
	struct env_mutex a, b;
	struct env_cond c;
	struct env_thread *t[3];
	int counter, ready;
	uint64_t hash;
};

static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	env_mutex_init(&w->a);
	env_mutex_init(&w->b);
	env_cond_init(&w->c);
}

/* ---- a run is its seed ---- */

static void hasher(void *arg)
{
	struct world *w = arg;
	int i;

	for (i = 0; i < 20; i++) {
		env_mutex_lock(&w->a);
		w->hash = w->hash * 31 + i + (uint64_t)(w->counter++ % 7);
		w->hash ^= env_sim_choose(5);
		env_mutex_unlock(&w->a);
		env_yield();
	}
}

static void hash_main(void *arg)
{
	struct world *w = arg;
	int i;

	world_init(w);
	for (i = 0; i < 3; i++)
		env_assert(!env_thread_create(&w->t[i], "hasher", hasher, w));
	for (i = 0; i < 3; i++)
		env_thread_join(w->t[i]);
}

static void test_deterministic(void **state)
{
	struct world w;
	uint64_t seed, h, points, distinct = 0, last = 0;

	(void)state;
	for (seed = 0; seed < 50; seed++) {
		const uint32_t *made;
		uint32_t *list;
		size_t n;

		assert_int_equal(env_sim_run(seed, hash_main, &w), 0);
		h = w.hash;
		points = env_sim_points();
		assert_int_equal(env_sim_run(seed, hash_main, &w), 0);
		assert_int_equal(w.hash, h);
		assert_int_equal(env_sim_points(), points);
		made = env_sim_choices(&n);
		list = malloc(n * sizeof(*list));
		memcpy(list, made, n * sizeof(*list));
		assert_int_equal(env_sim_run_choices(list, n, hash_main, &w), 0);
		assert_int_equal(w.hash, h);
		assert_int_equal(env_sim_points(), points);
		free(list);
		distinct += h != last;
		last = h;
	}
	assert_true(distinct > 40);
	assert_false(env_sim_running());
}

/* ---- a lost update and a deadlock are found, and shrink ---- */

static void racer(void *arg)
{
	struct world *w = arg;
	int v, i;

	for (i = 0; i < 10; i++)
		env_yield();
	env_mutex_lock(&w->a);
	v = w->counter;
	env_mutex_unlock(&w->a);
	/* the bug: the lock was let go between reading and writing */
	env_mutex_lock(&w->a);
	w->counter = v + 1;
	env_mutex_unlock(&w->a);
}

static void race_main(void *arg)
{
	struct world *w = arg;
	int i;

	world_init(w);
	env_assert(env_alloc(100)); /* not freed: gone with a failed run */
	for (i = 0; i < 3; i++)
		env_assert(!env_thread_create(&w->t[i], "racer", racer, w));
	for (i = 0; i < 3; i++)
		env_thread_join(w->t[i]);
	if (w->counter != 3)
		env_sim_stop(-EILSEQ, "counter is %d", w->counter);
}

static void test_finds_and_shrinks(void **state)
{
	size_t before = env_alloc_bytes(), n, left;
	const uint32_t *made;
	struct world w;
	uint64_t seed;
	uint32_t *list;
	char *text;
	FILE *out;

	(void)state;
	for (seed = 0; seed < SCHEDULES; seed++)
		if (env_sim_run(seed, race_main, &w))
			break;
	assert_true(seed < 100);
	/* every run that did not fail left its 100 bytes, failed ones nothing */
	assert_int_equal(env_alloc_bytes() - before, 100 * seed);
	assert_int_equal(env_sim_run(seed, race_main, &w), -EILSEQ);
	made = env_sim_choices(&n);
	list = malloc(n * sizeof(*list));
	memcpy(list, made, n * sizeof(*list));
	left = env_sim_shrink(list, &n, race_main, &w, -EILSEQ, 2000);
	/* one switch in the gap is enough */
	assert_true(left >= 1 && left <= 3);
	assert_int_equal(env_sim_run_choices(list, n, race_main, &w), -EILSEQ);
	free(list);

	out = open_memstream(&text, &n);
	env_sim_trace(out);
	fclose(out);
	assert_non_null(strstr(text, "counter is "));
	assert_non_null(strstr(text, "racer"));
	free(text);
}

static void lock_ab(void *arg)
{
	struct world *w = arg;

	env_mutex_lock(&w->a);
	env_mutex_lock(&w->b);
	env_mutex_unlock(&w->b);
	env_mutex_unlock(&w->a);
}

static void deadlock_main(void *arg)
{
	struct world *w = arg;

	world_init(w);
	env_assert(!env_thread_create(&w->t[0], "ab", lock_ab, w));
	env_mutex_lock(&w->b);
	env_mutex_lock(&w->a);
	env_mutex_unlock(&w->a);
	env_mutex_unlock(&w->b);
	env_thread_join(w->t[0]);
}

static void test_deadlock(void **state)
{
	int n_dead = 0, n_good = 0, err;
	struct world w;
	uint64_t seed;

	(void)state;
	for (seed = 0; seed < 200; seed++) {
		err = env_sim_run(seed, deadlock_main, &w);
		assert_true(!err || err == -EDEADLK);
		n_dead += err != 0;
		n_good += err == 0;
	}
	assert_true(n_dead > 5 && n_good > 5);
	/* locks that an abandoned run held are free again, also outside a run */
	env_mutex_lock(&w.a);
	env_mutex_unlock(&w.a);
}

/* ---- time ---- */

static void sleeper(void *arg)
{
	struct world *w = arg;

	env_sleep_ns(5000000000ULL);
	env_mutex_lock(&w->a);
	w->ready = 1;
	env_cond_wake(&w->c);
	env_mutex_unlock(&w->a);
}

static void time_main(void *arg)
{
	struct world *w = arg;
	uint64_t t0 = env_now_ns();

	world_init(w);
	env_assert(!env_thread_create(&w->t[0], "sleeper", sleeper, w));
	env_mutex_lock(&w->a);
	env_assert(!env_cond_wait(&w->c, &w->a, 1000000000ULL));
	env_assert(env_now_ns() - t0 >= 1000000000ULL && env_now_ns() - t0 < 1100000000ULL);
	while (!w->ready)
		env_assert(env_cond_wait(&w->c, &w->a, 10000000000ULL));
	env_mutex_unlock(&w->a);
	env_assert(env_now_ns() - t0 >= 5000000000ULL && env_now_ns() - t0 < 5100000000ULL);
	env_thread_join(w->t[0]);
	env_cond_destroy(&w->c);
}

static void test_time(void **state)
{
	struct world w;
	uint64_t seed;

	(void)state;
	for (seed = 0; seed < 200; seed++)
		assert_int_equal(env_sim_run(seed, time_main, &w), 0);
}

/* ---- bad ends ---- */

static void not_joined_main(void *arg)
{
	struct world *w = arg;

	world_init(w);
	env_assert(!env_thread_create(&w->t[0], "left", sleeper, w));
}

static void spin_main(void *arg)
{
	(void)arg;
	for (;;)
		env_yield();
}

static void assert_main(void *arg)
{
	struct world *w = arg;

	world_init(w);
	env_mutex_lock(&w->a);
	env_mutex_lock(&w->a);
}

static void fail_main(void *arg)
{
	struct world *w = arg;
	void *p;

	env_fail_alloc(2);
	p = env_alloc(1);
	env_assert(p && !env_alloc(1));
	env_free(p);
	env_fail_alloc(1);
	env_assert(env_thread_create(&w->t[0], "none", sleeper, w) == -ENOMEM);
	p = env_pages_alloc(5 << 20);
	env_assert(p && !((char *)p)[4096]);
	env_pages_free(p, 5 << 20);
	env_reason("mine");
	env_assert(!strcmp(env_reason_get(), "mine"));
}

static void test_ends(void **state)
{
	struct world w;

	(void)state;
	assert_int_equal(env_sim_run(1, not_joined_main, &w), -EBUSY);
	assert_int_equal(env_sim_run(1, spin_main, &w), -ETIMEDOUT);
	assert_int_equal(env_sim_run(1, assert_main, &w), -ENOTRECOVERABLE);
	assert_int_equal(env_sim_run(1, fail_main, &w), 0);
	assert_int_equal(env_sim_choose(1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deterministic), cmocka_unit_test(test_finds_and_shrinks),
		cmocka_unit_test(test_deadlock),      cmocka_unit_test(test_time),
		cmocka_unit_test(test_ends),
	};

	return cmocka_run_group_tests_name("env_sim", tests, NULL, NULL);
}
