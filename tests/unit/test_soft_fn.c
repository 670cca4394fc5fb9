/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The soft accelerator on a fake core: atomics while pages move, memory of a peer, and the
 * functions that come with it against the CPU's answer.
 */
#include "soft_fake.h"

#define ROUNDS 3000

/* ---- atomics ---- */

static void count(struct soft_worker *w, uint64_t arg)
{
	uint64_t i, old = 0, seen;

	for (i = 0; i < ROUNDS; i++) {
		uint32_t one = 1;

		soft_add_u64(w, arg, 1);
		balun_soft_access(w, arg + 12, &one, 4, 2);
		while ((seen = soft_cas_u64(w, arg + 24, old, old + 2)) != old)
			old = seen;
	}
}

static void check_count(unsigned int page, unsigned int workers)
{
	char *p = (fake.local[page] ? fake.dev.mem : fake_sys) + page * PG;

	assert_int_equal(*(uint64_t *)p, ROUNDS * workers);
	assert_int_equal(*(uint32_t *)(p + 12), ROUNDS * workers);
	assert_int_equal(*(uint64_t *)(p + 24), ROUNDS * workers * 2);
}

static void atomics(void **state)
{
	static const enum rule rule[] = { TO_DEVICE, IN_PLACE, IN_PLACE_NO_ATOMIC };
	unsigned int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		fake_begin(3);
		fake.rule[0] = rule[i];
		memset(fake_sys, 0, PG);
		assert_int_equal(fake_run(count, VA, 0, NULL), 0);
		check_count(0, 3);
		fake_end();
	}
}

static bool fence_passed(uint64_t fence)
{
	struct soft *s = fake.dev.priv;
	uint64_t done;

	env_mutex_lock(&s->lock);
	done = s->done_fence;
	env_mutex_unlock(&s->lock);
	return done >= fence;
}

/* no count is lost while the page goes to the device and comes back */
static void atomics_while_moving(void **state)
{
	uint64_t fence, seed = 1;

	(void)state;
	fake_begin(3);
	memset(fake_sys, 0, PG);
	fake.rule[0] = IN_PLACE;
	assert_int_equal(balun_soft_launch(&fake.dev, count, VA, 0, &fence), 0);
	while (!fence_passed(fence)) {
		env_mutex_lock(&fake.block);
		fake.rule[0] = fake_rand(&seed) % 2 ? IN_PLACE : TO_DEVICE;
		if (fake_rand(&seed) % 2)
			fake_home(0);
		else
			fake_to_device(0);
		env_mutex_unlock(&fake.block);
		env_yield();
	}
	assert_int_equal(balun_soft_wait(&fake.dev, fence, NULL), 0);
	check_count(0, 3);
	fake_end();
}

/* an atomic of 32 bits: old value out, failure leaves the new one out */
static void small_cas(struct soft_worker *w, uint64_t arg)
{
	uint32_t b[2] = { 5, 6 };

	balun_soft_access(w, arg, b, 4, 3);
	soft_store_u32(w, arg + 4, b[0]);
	b[0] = 7, b[1] = 8;
	balun_soft_access(w, arg, b, 4, 3);
	soft_store_u32(w, arg + 8, b[0]);
}

static void compare_and_swap(void **state)
{
	unsigned int page;
	uint32_t *p;

	(void)state;
	fake_begin(1);
	fake.rule[1] = IN_PLACE;
	for (page = 0; page < 2; page++) {
		p = (uint32_t *)(fake_sys + page * PG);
		p[0] = 5;
		p[3] = 99;
		assert_int_equal(fake_run(small_cas, VA + page * PG, 1, NULL), 0);
		p = (uint32_t *)((page ? fake_sys : fake.dev.mem) + page * PG);
		assert_int_equal(p[0], 6);
		assert_int_equal(p[1], 5);
		assert_int_equal(p[2], 6);
		assert_int_equal(p[3], 99);
	}
	fake_end();
}

/* ---- another device's memory ---- */

static void swap_words(struct soft_worker *w, uint64_t arg)
{
	uint64_t a = soft_load_u64(w, arg);

	soft_store_u64(w, arg, soft_load_u64(w, arg + PG));
	soft_store_u64(w, arg + PG, a);
	soft_add_u64(w, arg, 1);
}

static void peer_memory(void **state)
{
	struct balun_device peer = { 0 };
	struct balun_space space = { 0 };
	uint64_t addr;

	(void)state;
	fake_begin(1);
	assert_int_equal(fake_open(&peer, &space), 0);
	assert_int_equal(DRV->peer_addr(peer.priv, &fake.dev, 0, MEM, &addr), 0);
	*(uint64_t *)(peer.mem + 3 * PG) = 11;
	*(uint64_t *)(fake.dev.mem + 4 * PG) = 22;
	fake_map(3, 1, BALUN_KIND_PEER, addr + 3 * PG, 3);
	fake_map(4, 1, BALUN_KIND_LOCAL, 4 * PG, 3);
	assert_int_equal(fake_run(swap_words, VA + 3 * PG, 1, NULL), 0);
	assert_int_equal(*(uint64_t *)(peer.mem + 3 * PG), 23);
	assert_int_equal(*(uint64_t *)(fake.dev.mem + 4 * PG), 11);
	assert_int_equal(fake.ncalls, 0);
	DRV->close(peer.priv);
	fake_end();
}

/* ---- functions that come with it ---- */

/* the arguments lie in the last pages of the program */
#define ARGS (VA + (PAGES - 2) * PG)

static struct soft_args *args(void)
{
	return (struct soft_args *)(fake_sys + (ARGS - VA));
}

static void run_args(soft_fn fn, struct soft_args in, unsigned int workers)
{
	unsigned int page;

	*args() = in;
	assert_int_equal(fake_run(fn, ARGS, workers, NULL), 0);
	for (page = 0; page < PAGES; page++)
		fake_home(page);
}

struct fn_case {
	uint64_t src, dst, len;
};

static const struct fn_case cases[] = {
	{ 0, 400 * PG, 0 },
	{ 5, 400 * PG + 9, 1 },
	{ 100, 400 * PG + 4000, 255 },
	{ 4000, 400 * PG, 256 },
	{ 77, 400 * PG + 1, 10000 },
	{ 0, 400 * PG, 64 * PG },
	{ PG - 1, 400 * PG + 3, 99 * PG + 7 },
};

static char shadow[MEM];

static void one_case(const struct fn_case *c, unsigned int workers)
{
	struct soft_args in = { .src = VA + c->src, .dst = VA + c->dst, .len = c->len };
	uint64_t i, sum = 3, hist[256] = { 0 };

	for (i = 0; i < c->len; i++) {
		sum += (unsigned char)fake_sys[c->src + i];
		hist[(unsigned char)fake_sys[c->src + i]]++;
	}
	in.value = 3;
	run_args(balun_soft_reduce, in, workers);
	assert_int_equal(args()->value, sum);
	run_args(balun_soft_histogram, in, workers);
	assert_memory_equal(args()->hist, hist, sizeof(hist));

	memcpy(shadow, fake_sys, ARGS - VA);
	memcpy(shadow + c->dst, shadow + c->src, c->len);
	run_args(balun_soft_copy, in, workers);
	assert_memory_equal(shadow, fake_sys, ARGS - VA);
	memset(shadow + c->dst, 0xa5, c->len);
	in.value = 0xa5;
	run_args(balun_soft_fill, in, workers);
	assert_memory_equal(shadow, fake_sys, ARGS - VA);
}

static void functions(void **state)
{
	unsigned int i, workers;

	(void)state;
	fake_begin(3);
	for (i = 0; i < PAGES; i += 3)
		fake.rule[i] = IN_PLACE;
	for (workers = 1; workers <= 3; workers++) {
		for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
			one_case(&cases[i], workers);
	}
	fake_end();
}

/* text in which the needle overlaps itself and the workers' borders */
static void search(void **state)
{
	static const char text[] = "abaababaabaab";
	uint64_t len = 20 * PG, n, i, found, at = 300;
	unsigned int workers;

	(void)state;
	fake_begin(3);
	for (i = 0; i < len; i++)
		fake_sys[at + i] = text[i * 7 / 3 % (sizeof(text) - 1)];
	for (workers = 1; workers <= 3; workers++) {
		for (n = 0; n <= 257; n += n < 8 ? 1 : 83) {
			struct soft_args in = {
				.src = VA + at, .len = len, .dst = VA + at + 1000, .value = n
			};

			for (i = 0, found = 0; n && n < 257 && i + n <= len; i++)
				found += !memcmp(fake_sys + at + i, fake_sys + at + 1000, n);
			run_args(balun_soft_search, in, workers);
			assert_int_equal(args()->hist[0], found);
			in.len = n ? n - 1 : 0; /* longer than the text */
			run_args(balun_soft_search, in, workers);
			assert_int_equal(args()->hist[0], 0);
		}
	}
	fake_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(atomics),	    cmocka_unit_test(atomics_while_moving),
		cmocka_unit_test(compare_and_swap), cmocka_unit_test(peer_memory),
		cmocka_unit_test(functions),	    cmocka_unit_test(search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
