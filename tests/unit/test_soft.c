/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The soft accelerator on a fake core: accesses, the fault queue, traps, fences, atomics, the
 * functions that come with it, copies and every error path. Its MMU: test_soft_mmu.c.
 */
#include "soft_fake.h"

static struct soft *soft(void)
{
	return fake.dev.priv;
}

/* ---- accesses ---- */

static void touch_all(struct soft_worker *w, uint64_t arg)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		soft_store_u64(w, VA + i * PG + arg, soft_load_u64(w, VA + i * PG + arg) + i);
}

static void residency_does_not_matter(void **state)
{
	uint64_t was[4], now;
	unsigned int i;

	(void)state;
	fake_begin(2);
	fake.rule[1] = fake.rule[3] = IN_PLACE;
	for (i = 0; i < 4; i++)
		memcpy(&was[i], fake_sys + i * PG + 40, 8);
	assert_int_equal(fake_run(touch_all, 40, 1, NULL), 0);
	assert_int_equal(fake.fences, 1);
	for (i = 0; i < 4; i++) {
		memcpy(&now, (fake.local[i] ? fake.dev.mem : fake_sys) + i * PG + 40, 8);
		assert_int_equal(now, was[i] + i);
		assert_int_equal(fake.local[i], i % 2 == 0);
	}
	fake_end();
}

/* accesses of every size at every offset around the edges of device, system and read-only pages */
static void edges(struct soft_worker *w, uint64_t arg)
{
	unsigned char in[200], out[200], line[64];
	unsigned int off, len, i;

	for (off = PG - 70; off < PG + 6; off++) {
		for (len = 0; len <= 140; len += 7) {
			for (i = 0; i < len; i++)
				in[i] = (unsigned char)(off * 3 + i);
			soft_write(w, arg + off, in, len);
			memset(out, 0, sizeof(out));
			soft_read(w, arg + off, out, len);
			if (memcmp(in, out, len))
				soft_load_u8(w, 0); /* says so */
		}
		soft_read(w, arg + off, line, 64);
		soft_write(w, arg + 3 * PG + off, line, 64);
	}
}

static void straddling(void **state)
{
	unsigned int page;

	(void)state;
	fake_begin(1);
	for (page = 0; page < 3; page++) {
		fake.rule[page] = page % 2 ? IN_PLACE : TO_DEVICE;
		assert_int_equal(fake_run(edges, VA + page * PG, 1, NULL), 0);
	}
	fake_end();
}

static void whole_pages(struct soft_worker *w, uint64_t arg)
{
	static char buf[3 * 4096];

	soft_read(w, arg, buf, sizeof(buf));
	soft_write(w, arg + 8 * PG, buf, sizeof(buf));
}

static void long_access(void **state)
{
	(void)state;
	fake_begin(1);
	assert_int_equal(fake_run(whole_pages, VA + 100, 1, NULL), 0);
	assert_memory_equal(fake.dev.mem + 8 * PG + 100, fake_sys + 100, 3 * PG);
	fake_end();
}

/* ---- traps ---- */

static uint32_t past_trap;

static void load_at(struct soft_worker *w, uint64_t arg)
{
	volatile char deep[512];

	memset((char *)deep, 1, sizeof(deep));
	soft_load_u64(w, arg);
	env_add(&past_trap, deep[7]);
}

static void store_at(struct soft_worker *w, uint64_t arg)
{
	soft_store_u32(w, arg, 1);
	env_add(&past_trap, 1);
}

static void add_at(struct soft_worker *w, uint64_t arg)
{
	soft_add_u64(w, arg, 1);
	env_add(&past_trap, 1);
}

static void bad_op(struct soft_worker *w, uint64_t arg)
{
	balun_soft_access(w, arg, &arg, 8, 4);
	env_add(&past_trap, 1);
}

static void traps(void **state)
{
	static const struct {
		soft_fn fn;
		uint64_t va;
		int err;
	} t[] = {
		{ load_at, 0, -EFAULT },
		{ load_at, 4088, -EFAULT },
		{ load_at, 0x8000000000000000ULL, -EFAULT },
		{ load_at, UINT64_MAX - 7, -EFAULT },
		{ load_at, VA + PAGES * PG, -EFAULT },
		{ load_at, VA + 6 * PG, -EFAULT },
		{ store_at, VA + 5 * PG + 16, -EPERM },
		{ store_at, VA - 4, -EFAULT },
		{ add_at, VA + 4, -EINVAL },
		{ add_at, VA + 5 * PG, -EPERM },
		{ bad_op, VA, -EINVAL },
	};
	unsigned int i, round;
	uint64_t va;

	(void)state;
	fake_begin(2);
	fake.rule[5] = READ_ONLY;
	fake.rule[6] = NO_ACCESS;
	past_trap = 0;
	for (round = 0; round < 20; round++) {
		for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
			va = 1;
			assert_int_equal(fake_run(t[i].fn, t[i].va, 0, &va), t[i].err);
			assert_int_equal(va, t[i].va);
		}
	}
	assert_int_equal(past_trap, 0);
	/* the workers are none the worse */
	assert_int_equal(fake_run(store_at, VA, 1, NULL), 0);
	assert_int_equal(fake_run(load_at, VA + 5 * PG, 0, NULL), 0);
	assert_int_equal(past_trap, 3);
	fake_end();
}

static void bus_errors(void **state)
{
	uint64_t va = 0, start;

	(void)state;
	fake_begin(1);
	fake.rule[0] = IN_PLACE;
	fake.bus_error = -EFAULT;
	fake.bus_errors = 3; /* for a while: replayed */
	assert_int_equal(fake_run(load_at, VA + 8, 0, &va), 0);
	assert_int_equal(fake.ncalls, 4);
	fake.bus_errors = 1; /* and the fault says that the page is gone */
	fake.rule[0] = NO_ACCESS;
	assert_int_equal(fake_run(load_at, VA + 8, 0, &va), -EFAULT);
	fake.rule[0] = IN_PLACE; /* for ever, with nothing wrong otherwise: a second */
	fake.bus_errors = INT32_MAX;
	start = env_now_ns();
	assert_int_equal(fake_run(load_at, VA + 8, 0, &va), -EFAULT);
	assert_int_equal(va, VA + 8);
	assert_in_range(env_now_ns() - start, 900000000, 30000000000);
	fake_end();
}

/* ---- the fault queue ---- */

/* the access of each worker */
static struct {
	unsigned int page;
	bool store;
} plan[8];
static uint32_t passed; /* workers whose access was made: bit by index */

static unsigned int calls(void)
{
	unsigned int n;

	env_mutex_lock(&fake.block);
	n = fake.ncalls;
	env_mutex_unlock(&fake.block);
	return n;
}

/* worker 0's fault comes first and holds the service thread */
static void follow_plan(struct soft_worker *w, uint64_t arg)
{
	uint64_t va = VA + plan[w->index].page * PG + w->index; /* nobody else's byte */

	(void)arg;
	while (w->index && !calls())
		env_yield();
	if (plan[w->index].store)
		soft_store_u8(w, va, 1);
	else
		soft_load_u8(w, va);
	__atomic_fetch_or(&passed, 1u << w->index, __ATOMIC_RELAXED);
}

static unsigned int queued(void)
{
	unsigned int n;

	env_mutex_lock(&soft()->lock);
	n = soft()->nqueued;
	env_mutex_unlock(&soft()->lock);
	return n;
}

/* let workers 1..7 fault while 0's is served; compare the calls for them */
static int run_plan(const struct fake_call *want, unsigned int n, uint64_t *ret_va)
{
	uint64_t fence;
	unsigned int i;
	int err;

	passed = 0;
	fake.ncalls = 0;
	fake_gate(true);
	assert_int_equal(balun_soft_launch(&fake.dev, follow_plan, 0, 8, &fence), 0);
	while (queued() < 7)
		env_yield();
	fake_gate(false);
	err = balun_soft_wait(&fake.dev, fence, ret_va);
	assert_int_equal(fake.ncalls, n + 1);
	for (i = 0; i < n; i++) {
		assert_int_equal(fake.call[i + 1].va, want[i].va);
		assert_int_equal(fake.call[i + 1].len, want[i].len);
		assert_int_equal(fake.call[i + 1].access, want[i].access);
	}
	return err;
}

static void set_plan(const unsigned int *page, unsigned int stores)
{
	unsigned int i;

	for (i = 0; i < 8; i++) {
		plan[i].page = page[i];
		plan[i].store = stores >> i & 1;
	}
}

#define R(page, n)                                                                                 \
	{                                                                                          \
		VA + (page)*PG, (n)*PG, BALUN_ACCESS_READ                                          \
	}
#define W(page, n)                                                                                 \
	{                                                                                          \
		VA + (page)*PG, (n)*PG, BALUN_ACCESS_WRITE                                         \
	}

static void batch_sorted_and_merged(void **state)
{
	static const unsigned int page[8] = { 100, 12, 10, 11, 11, 512, 511, 30 };
	static const struct fake_call want[] = {
		R(10, 3), /* neighbours, one of them twice */
		R(30, 1),
		R(511, 1), /* not across blocks */
		R(512, 1),
	};

	(void)state;
	fake_begin(8);
	set_plan(page, 0);
	assert_int_equal(run_plan(want, 4, NULL), 0);
	assert_int_equal(passed, 0xff);
	fake_end();
}

static void batch_of_mixed_accesses(void **state)
{
	static const unsigned int page[8] = { 100, 20, 20, 21, 22, 23, 23, 24 };
	static const struct fake_call want[] = {
		W(20, 1), /* reader and writer of one page: the writer's */
		R(21, 1), /* its neighbour is only read */
		W(22, 2),
		R(24, 1),
	};

	(void)state;
	fake_begin(8);
	set_plan(page, 1 << 2 | 1 << 4 | 1 << 5);
	assert_int_equal(run_plan(want, 4, NULL), 0);
	assert_int_equal(passed, 0xff);
	fake_end();
}

/* an error of a merged call is told only to those whom it concerns */
static void batch_with_errors(void **state)
{
	static const unsigned int page[8] = { 100, 40, 41, 42, 50, 50, 60, 61 };
	static const struct fake_call want[] = {
		R(40, 3), R(40, 1), R(41, 1), R(42, 1), /* 41 is bad */
		W(50, 1), W(50, 1), R(50, 1),		/* 50 is read-only */
		R(60, 2),
	};
	uint64_t va = 0;

	(void)state;
	fake_begin(8);
	fake.rule[41] = NO_ACCESS;
	fake.rule[50] = READ_ONLY;
	set_plan(page, 1 << 5);
	assert_int_not_equal(run_plan(want, 8, &va), 0);
	assert_true(va == VA + 41 * PG + 2 || va == VA + 50 * PG + 5);
	assert_int_equal(passed, 0xff & ~(1 << 2 | 1 << 5));
	fake_end();
}

/* ---- fences ---- */

static uint64_t order[64];
static uint32_t nordered;

static void note(struct soft_worker *w, uint64_t arg)
{
	(void)w;
	order[env_add(&nordered, 1)] = arg;
}

static void fences_in_order(void **state)
{
	uint64_t fence[20], i;

	(void)state;
	fake_begin(3);
	nordered = 0;
	for (i = 0; i < 20; i++) {
		assert_int_equal(balun_soft_launch(&fake.dev, note, i, i % 4, &fence[i]), 0);
		assert_true(!i || fence[i] > fence[i - 1]);
	}
	for (i = 20; i-- > 0;)
		assert_int_equal(balun_soft_wait(&fake.dev, fence[i], NULL), 0);
	assert_int_equal(nordered, 5 * (3 + 1 + 2 + 3));
	for (i = 1; i < nordered; i++)
		assert_true(order[i] >= order[i - 1]);
	fake_end();
}

static void fences_remember(void **state)
{
	uint64_t bad, va = 0;

	(void)state;
	fake_begin(2);
	assert_int_equal(balun_soft_launch(&fake.dev, load_at, 4096, 0, &bad), 0);
	assert_int_equal(fake_run(note, 0, 1, NULL), 0);
	assert_int_equal(balun_soft_wait(&fake.dev, bad, &va), -EFAULT);
	assert_int_equal(va, 4096);
	assert_int_equal(balun_soft_wait(&fake.dev, bad, NULL), -EFAULT); /* again */
	fake_end();
}

static void bad_calls(void **state)
{
	struct balun_device other = { .space = &fake.space };
	uint64_t fence = 77;
	int status;
	pid_t pid;

	(void)state;
	fake_begin(2);
	assert_int_equal(balun_soft_workers(&fake.dev), 2);
	assert_int_equal(balun_soft_workers(&other), -EINVAL);
	assert_int_equal(balun_soft_launch(&other, note, 0, 0, &fence), -EINVAL);
	assert_int_equal(balun_soft_launch(&fake.dev, NULL, 0, 0, &fence), -EINVAL);
	assert_int_equal(balun_soft_launch(&fake.dev, note, 0, 3, &fence), -EINVAL);
	env_fail_alloc(1);
	assert_int_equal(balun_soft_launch(&fake.dev, note, 0, 0, &fence), -ENOMEM);
	env_fail_alloc(0);
	assert_int_equal(fence, 77);
	assert_int_equal(balun_soft_wait(&other, 1, NULL), -EINVAL);
	assert_int_equal(balun_soft_wait(&fake.dev, 0, NULL), -EINVAL);
	assert_int_equal(balun_soft_wait(&fake.dev, 1, NULL), -EINVAL);
	pid = fork();
	if (!pid)
		_exit(balun_soft_wait(&fake.dev, 1, NULL) == -ECHILD ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	fake_end();
}

/* ---- a device that is served elsewhere ---- */

static void waiter(void *arg)
{
	int64_t *fence = arg;

	*fence = balun_soft_wait(&fake.dev, (uint64_t)*fence, NULL);
}

static void served_elsewhere(void **state)
{
	struct soft_args *args = (struct soft_args *)fake_sys;
	uint64_t fence = 0, addr = 0;

	(void)state;
	fake_begin(3);
	fake.elsewhere = true;
	assert_int_equal(balun_soft_workers(&fake.dev), 3);
	*args = (struct soft_args){ .dst = VA + 4 * PG, .len = PG, .value = 7 };
	assert_int_equal(fake_run(balun_soft_fill, VA, 2, NULL), 0);
	fake_home(4);
	assert_int_equal(fake_sys[4 * PG], 7);
	assert_int_equal(fake_sys[5 * PG - 1], 7);
	/* what it says of an access that failed comes back */
	fake_home(0);
	args->dst = VA + MEM + 8;
	assert_int_equal(fake_run(balun_soft_fill, VA, 1, &addr), -EFAULT);
	assert_int_equal(addr, VA + MEM + 8);
	/* a number goes there, a function does not */
	assert_int_equal(balun_soft_launch(&fake.dev, note, 0, 0, &fence), -EOPNOTSUPP);
	assert_non_null(strstr(env_reason_get(), "functions of the program"));
	assert_int_equal(balun_soft_launch(&fake.dev, balun_soft_fill, VA, 4, &fence), -EINVAL);
	assert_int_equal(balun_soft_launch(&fake.dev, NULL, VA, 0, &fence), -EINVAL);
	assert_int_equal(balun_soft_wait(&fake.dev, 99, NULL), -EINVAL);
	fake_end();
}

/* who waits asks again and again, so that whoever serves the device is free meanwhile */
static void waits_elsewhere_in_pieces(void **state)
{
	struct soft_args *args = (struct soft_args *)fake_sys;
	struct env_thread *thread;
	uint64_t fence = 0;
	int64_t result;

	(void)state;
	fake_begin(1);
	fake.elsewhere = true;
	*args = (struct soft_args){ .dst = VA + 4 * PG, .len = PG, .value = 7 };
	fake_gate(true);
	assert_int_equal(balun_soft_launch(&fake.dev, balun_soft_fill, VA, 1, &fence), 0);
	result = (int64_t)fence;
	assert_int_equal(env_thread_create(&thread, "waiter", waiter, &result), 0);
	while (env_load_relaxed(&fake.commands) < 5)
		env_yield();
	fake_gate(false);
	env_thread_join(thread);
	assert_int_equal(result, 0);
	fake_end();
}

/* ---- the end, with work in flight ---- */

static void for_ever(struct soft_worker *w, uint64_t arg)
{
	uint64_t i;

	for (i = 0;; i++)
		soft_load_u8(w, arg + i % PAGES * PG);
}

static void close_while_busy(void **state)
{
	struct env_thread *thread[3];
	uint64_t fence;
	int64_t result[3];
	unsigned int i, n;

	(void)state;
	fake_begin(2);
	past_trap = 0;
	for (i = 0; i < 3; i++) {
		assert_int_equal(
			balun_soft_launch(&fake.dev, i == 1 ? store_at : for_ever, VA, 0, &fence),
			0);
		result[i] = (int64_t)fence;
		assert_int_equal(env_thread_create(&thread[i], "waiter", waiter, &result[i]), 0);
	}
	do {
		env_mutex_lock(&soft()->lock);
		n = soft()->waiters;
		env_mutex_unlock(&soft()->lock);
		env_yield();
	} while (n < 3 || calls() < 10);
	/* core refuses faults from here on, and unmaps */
	env_mutex_lock(&fake.block);
	fake.fault_result = -ENODEV;
	fake_unmap(0, PAGES);
	env_mutex_unlock(&fake.block);
	DRV->gone(fake.dev.priv, &fake.space);
	assert_int_equal(balun_soft_launch(&fake.dev, note, 0, 0, &fence), -ENODEV);
	assert_int_equal(DRV->active(fake.dev.priv, false), 0);
	DRV->close(fake.dev.priv);
	for (i = 0; i < 3; i++) {
		env_thread_join(thread[i]);
		assert_int_equal(result[i], -ENODEV);
	}
	assert_int_equal(past_trap, 0);
	env_cond_destroy(&fake.gate_cond);
	env_mutex_destroy(&fake.block);
}

/* power off and on again; the device is as before */
static void off_and_on(void **state)
{
	unsigned int i;

	(void)state;
	fake_begin(2);
	for (i = 0; i < 3; i++) {
		assert_int_equal(fake_run(store_at, VA, 1, NULL), 0);
		fake_unmap(0, PAGES);
		DRV->gone(fake.dev.priv, &fake.space);
		assert_int_equal(DRV->active(fake.dev.priv, false), 0);
		assert_int_equal(DRV->active(fake.dev.priv, true), 0);
		assert_int_equal(DRV->attach(fake.dev.priv, &fake.space), 0);
	}
	fake_end();
}

/* ---- opening ---- */

static void open_errors(void **state)
{
	static const struct {
		uint64_t mem, workers;
	} bad[] = { { 0, 1 }, { PG, 1 }, { 3 << 20, 1 }, { MEM, 0 }, { MEM, 257 } };
	struct balun_space space = { 0 };
	struct balun_device dev = { 0 };
	unsigned int i;
	int n;

	(void)state;
	memset(&fake, 0, sizeof(fake));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fake.mem = bad[i].mem;
		fake.workers = bad[i].workers;
		assert_int_equal(fake_open(&dev, &space), -EINVAL);
	}
	fake.mem = MEM;
	fake.workers = 1;
	for (n = 1; fake.mem_fail = n, fake_open(&dev, &space) == -ENOMEM; n++)
		;
	assert_int_equal(n, 2);
	fake.mem_fail = 1;
	assert_int_equal(DRV->attach(dev.priv, &space), -ENOMEM);
	fake.mem_fail = 0;
	env_fail_alloc(1);
	assert_int_equal(DRV->attach(dev.priv, &space), -ENOMEM);
	env_fail_alloc(0);
	assert_null(space.data);
	DRV->close(dev.priv);
}

/* ---- copies ---- */

static int copy_one(struct balun_device *dev, struct balun_copy op)
{
	uint64_t cookie;
	int err = DRV->copy(dev->priv, &op, 1, &cookie);

	return err ? err : DRV->copy_wait(dev->priv, cookie);
}

static void copies(void **state)
{
	const uint32_t S = BALUN_KIND_SYSTEM, L = BALUN_KIND_LOCAL;
	uint64_t sys = (uintptr_t)fake_sys, peer;
	struct balun_device dev = { 0 }, stranger = { 0 };
	struct balun_space space = { 0 };
	static const char zero[4096];

	(void)state;
	fake_begin(1);
	assert_int_equal(fake_open(&dev, &space), 0);
	assert_int_equal(copy_one(&fake.dev, (struct balun_copy){ 8 * PG, sys, 2 * PG, L, S }), 0);
	assert_memory_equal(fake.dev.mem + 8 * PG, fake_sys, 2 * PG);
	assert_int_equal(DRV->peer_addr(fake.dev.priv, &dev, 9 * PG, PG, &peer), 0);
	assert_int_equal(
		copy_one(&dev, (struct balun_copy){ MEM - PG, peer, PG, L, BALUN_KIND_PEER }), 0);
	assert_memory_equal(dev.mem + MEM - PG, fake_sys + PG, PG);
	assert_int_equal(copy_one(&dev, (struct balun_copy){ sys, MEM - PG, PG, S, L }), 0);
	assert_memory_equal(fake_sys, fake_sys + PG, PG);
	assert_int_equal(copy_one(&dev, (struct balun_copy){ MEM - PG, 0, PG, L, BALUN_KIND_ZERO }),
			 0);
	assert_memory_equal(dev.mem + MEM - PG, zero, PG);

	assert_int_equal(copy_one(&dev, (struct balun_copy){ MEM, sys, PG, L, S }), -EINVAL);
	assert_int_equal(copy_one(&dev, (struct balun_copy){ sys, MEM - PG, 2 * PG, S, L }),
			 -EINVAL);
	assert_int_equal(DRV->peer_addr(dev.priv, &stranger, 0, PG, &peer), -EOPNOTSUPP);
	assert_int_equal(DRV->peer_addr(dev.priv, &fake.dev, MEM, PG, &peer), -EINVAL);
	DRV->close(dev.priv);
	fake_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(residency_does_not_matter),
		cmocka_unit_test(straddling),
		cmocka_unit_test(long_access),
		cmocka_unit_test(traps),
		cmocka_unit_test(bus_errors),
		cmocka_unit_test(batch_sorted_and_merged),
		cmocka_unit_test(batch_of_mixed_accesses),
		cmocka_unit_test(batch_with_errors),
		cmocka_unit_test(fences_in_order),
		cmocka_unit_test(fences_remember),
		cmocka_unit_test(bad_calls),
		cmocka_unit_test(served_elsewhere),
		cmocka_unit_test(waits_elsewhere_in_pieces),
		cmocka_unit_test(close_while_busy),
		cmocka_unit_test(off_and_on),
		cmocka_unit_test(open_errors),
		cmocka_unit_test(copies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
