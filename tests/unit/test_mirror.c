// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Who waits for whom at a stripe: device faults for invalidations, requests for device faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/core.h"

#define VA 0x40000000ULL
#define MS 1000000ULL

struct scene {
	struct balun_space *sp;
	struct core_stripe *st;
	uint64_t deadline, seq;
	int err; /* of the fault */
	uint32_t asked;
};

static int scene_make(void **state)
{
	struct scene *s = env_alloc(sizeof(*s));

	s->sp = env_alloc(sizeof(*s->sp));
	s->st = core_stripe(s->sp, VA);
	env_mutex_init(&s->st->lock);
	env_cond_init(&s->st->idle);
	env_cond_init(&s->st->turn);
	s->deadline = UINT64_MAX;
	*state = s;
	return 0;
}

static int scene_end(void **state)
{
	struct scene *s = *state;

	env_cond_destroy(&s->st->turn);
	env_cond_destroy(&s->st->idle);
	env_mutex_destroy(&s->st->lock);
	env_free(s->sp);
	env_free(s);
	return 0;
}

static uint32_t read_u32(struct scene *s, const uint32_t *p)
{
	uint32_t v;

	env_mutex_lock(&s->st->lock);
	v = *p;
	env_mutex_unlock(&s->st->lock);
	return v;
}

static void fault_main(void *arg)
{
	struct scene *s = arg;

	s->err = core_read_begin(s->sp, VA, s->deadline, &s->seq);
}

/* a fault that waits for the invalidation which is under way */
static struct env_thread *fault_waits(struct scene *s)
{
	struct env_thread *t;

	assert_int_equal(env_thread_create(&t, "fault", fault_main, s), 0);
	while (!read_u32(s, &s->st->arrived))
		env_yield();
	return t;
}

/* the invalidation ends once the request is there */
static void end_main(void *arg)
{
	struct scene *s = arg;

	while (!env_load(&s->asked))
		env_yield();
	core_invalidate_end(s->sp, VA, BALUN_PAGE_SIZE);
}

static void test_fault_first(void **state)
{
	struct scene *s = *state;
	struct env_thread *fault, *end;

	core_invalidate_begin(s->sp, VA, BALUN_PAGE_SIZE, BALUN_CAUSE_USER);
	fault = fault_waits(s);
	assert_int_equal(env_thread_create(&end, "end", end_main, s), 0);
	env_store(&s->asked, 1);
	core_give_way(s->sp, VA);
	assert_int_equal(read_u32(s, &s->st->left), 1);
	env_thread_join(fault);
	env_thread_join(end);
	assert_int_equal(s->err, 0);
	assert_int_equal(s->seq, s->st->seq);
}

/* what lasts holds a request up no longer than the fault */
static void test_fault_gives_up(void **state)
{
	struct scene *s = *state;
	struct env_thread *fault;

	core_invalidate_begin(s->sp, VA, BALUN_PAGE_SIZE, BALUN_CAUSE_USER);
	s->deadline = env_now_ns() + 20 * MS;
	fault = fault_waits(s);
	core_give_way(s->sp, VA);
	assert_true(env_now_ns() >= s->deadline);
	env_thread_join(fault);
	assert_int_equal(s->err, -EBUSY);
	assert_int_equal(s->st->active, 1);
	core_invalidate_end(s->sp, VA, BALUN_PAGE_SIZE);
}

/* invalidations alone hold nobody up; nor does a fault that found none */
static void test_nobody_waits(void **state)
{
	struct scene *s = *state;

	fault_main(s);
	core_give_way(s->sp, VA);
	core_invalidate_begin(s->sp, VA, BALUN_PAGE_SIZE, BALUN_CAUSE_USER);
	core_give_way(s->sp, VA);
	core_invalidate_end(s->sp, VA, BALUN_PAGE_SIZE);
	assert_int_equal(s->err, 0);
	assert_int_equal(s->st->arrived, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fault_first, scene_make, scene_end),
		cmocka_unit_test_setup_teardown(test_fault_gives_up, scene_make, scene_end),
		cmocka_unit_test_setup_teardown(test_nobody_waits, scene_make, scene_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
