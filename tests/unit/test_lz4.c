// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The lz4 driver by itself: each kind of page, its limit, what it gives back, a store gone bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/spec.h"
/* the pool is looked at, and spoiled */
#include "drivers/lz4.c"

#define NPAGES 512UL

struct dev {
	struct balun_options *opt;
	struct balun_desc desc;
	void *priv;
	char *sys; /* NPAGES of system memory */
};

static int dev_open(struct dev *d, const char *spec)
{
	int err;

	memset(d, 0, sizeof(*d));
	assert_int_equal(spec_parse(spec, &d->opt), 0);
	err = balun_lz4_driver.open(NULL, d->opt, &d->desc, &d->priv);
	if (err) {
		spec_free(d->opt);
		return err;
	}
	d->sys = balun_mem_alloc(NPAGES * PAGE);
	assert_non_null(d->sys);
	return 0;
}

static void dev_close(struct dev *d)
{
	balun_lz4_driver.close(d->priv);
	spec_free(d->opt);
	balun_mem_free(d->sys, NPAGES * PAGE);
}

static int dev_copy(struct dev *d, struct balun_copy op)
{
	uint64_t cookie;
	int err = balun_lz4_driver.copy(d->priv, &op, 1, &cookie);

	return err ? err : balun_lz4_driver.copy_wait(d->priv, cookie);
}

static int dev_put(struct dev *d, uint64_t off, const void *src, uint64_t len)
{
	return dev_copy(d, (struct balun_copy){ off, (uintptr_t)src, len, BALUN_KIND_LOCAL,
						BALUN_KIND_SYSTEM });
}

static int dev_get(struct dev *d, uint64_t off, void *dst, uint64_t len)
{
	return dev_copy(d, (struct balun_copy){ (uintptr_t)dst, off, len, BALUN_KIND_SYSTEM,
						BALUN_KIND_LOCAL });
}

static uint64_t next(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* the content of a page, by its kind (0 to 5) and a seed that is not 0 */
static void page_make(uint64_t *p, unsigned int kind, uint64_t seed)
{
	uint64_t s = seed * 0x9e3779b97f4a7c15ULL | 1, word = next(&s);
	unsigned int i;

	for (i = 0; i < PAGE / 8; i++) {
		switch (kind) {
		case 0: /* zero */
			p[i] = 0;
			break;
		case 1: /* a word that fits into an entry */
			p[i] = (int64_t)word >> 3;
			break;
		case 2: /* one that does not */
			p[i] = (word | 1ULL << 62) & ~(1ULL << 63);
			break;
		case 3: /* half of it compresses */
			p[i] = i % 64 < 32 ? next(&s) : word;
			break;
		case 4: /* so well that nothing is smaller */
			p[i] = i == seed % 500 + 2;
			break;
		default: /* not at all */
			p[i] = next(&s);
		}
	}
}

static bool page_is(const uint64_t *p, unsigned int kind, uint64_t seed)
{
	uint64_t want[PAGE / 8];

	page_make(want, kind, seed);
	return !memcmp(p, want, PAGE);
}

static void takes_options(void **state)
{
	static const char *const bad[] = {
		"lz4:mem=0",	   "lz4:mem=3M",  "lz4:mem=2048G", "lz4:limit=64K", "lz4:level=0",
		"lz4:level=65538", "lz4:stats=2", "lz4:mem=x",	   "lz4:limit=1Mx", "lz4:level=-1",
	};
	struct dev d;
	size_t i;

	assert_int_equal(dev_open(&d, "lz4"), 0);
	assert_int_equal(d.desc.mem_bytes, 4ULL << 30);
	assert_int_equal(d.desc.caps, 0);
	dev_close(&d);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(dev_open(&d, bad[i]), -EINVAL);
		assert_string_not_equal(balun_reason(), "");
	}
}

/* every kind there and back, over each other, in one run; and how each is kept */
static void keeps_each_kind(void **state)
{
	static const uint64_t how[] = { 0, 0, WORD_BYTES, 0, 0, PAGE };
	struct dev d;
	struct lz4 *z;
	uint64_t i, round;

	assert_int_equal(dev_open(&d, "lz4:mem=4M,level=3"), 0);
	z = d.priv;
	for (round = 1; round <= 3; round++) {
		for (i = 0; i < NPAGES; i++)
			page_make((uint64_t *)(d.sys + i * PAGE), (i + round) % 6, i + round);
		assert_int_equal(dev_put(&d, 0x100000, d.sys, NPAGES * PAGE), 0);
		memset(d.sys, 0x11, NPAGES * PAGE);
		assert_int_equal(dev_get(&d, 0x100000, d.sys, NPAGES * PAGE), 0);
		for (i = 0; i < NPAGES; i++) {
			uint64_t e = z->table[0x100 + i], kind = (i + round) % 6;

			assert_true(page_is((uint64_t *)(d.sys + i * PAGE), kind, i + round));
			assert_int_equal(e & ENTRY_KIND, kind < 2 ? ENTRY_SAME : ENTRY_OBJECT);
			if (how[kind])
				assert_int_equal(ENTRY_SIZE(e), how[kind]);
			else if (kind == 3)
				assert_in_range(ENTRY_SIZE(e), PAGE / 2, PACKED_MAX);
			else if (kind == 4)
				assert_in_range(ENTRY_SIZE(e), WORD_BYTES + 1, 64);
		}
	}
	assert_int_equal(z->stored, 3 * NPAGES);
	assert_int_equal(z->whole, 3 * NPAGES / 6 - 1);
	dev_close(&d);
}

static void zeros_and_what_was_never_stored(void **state)
{
	const struct balun_copy zero = { 0x4000, 0, 0x3000, BALUN_KIND_LOCAL, BALUN_KIND_ZERO };
	const struct balun_copy peer = { 0, 0, 4096, BALUN_KIND_LOCAL, BALUN_KIND_PEER };
	struct dev d;

	assert_int_equal(dev_open(&d, "lz4:mem=2M"), 0);
	memset(d.sys, 1, 0x3000);
	assert_int_equal(dev_put(&d, 0x4000, d.sys, 0x1000), 0);
	assert_int_equal(dev_copy(&d, zero), 0);
	assert_int_equal(dev_get(&d, 0x4000, d.sys, 0x3000), 0);
	assert_true(page_is((uint64_t *)(d.sys + 0x2000), 0, 1));
	assert_int_equal(dev_get(&d, 0x7000, d.sys, 0x1000), -EIO);
	balun_lz4_driver.trim(d.priv, 0x5000, 0x1000);
	assert_int_equal(dev_get(&d, 0x5000, d.sys, 0x1000), -EIO);
	assert_int_equal(dev_get(&d, 0x6000, d.sys, 0x1000), 0);
	assert_int_equal(dev_copy(&d, peer), -EOPNOTSUPP);
	dev_close(&d);
}

/* full is an error before anything is lost; what is trimmed makes room */
static void keeps_to_its_limit(void **state)
{
	struct dev d;
	struct lz4 *z;
	uint64_t i, n;

	assert_int_equal(dev_open(&d, "lz4:mem=16M,limit=4M"), 0);
	z = d.priv;
	for (n = 0;; n++) {
		page_make((uint64_t *)d.sys, 5, n + 1);
		if (dev_put(&d, n * PAGE, d.sys, PAGE))
			break;
	}
	assert_int_equal(n, (4 << 20) / PAGE);
	assert_int_equal(dev_put(&d, n * PAGE, d.sys, PAGE), -ENOMEM);
	assert_int_equal(z->held << CHUNK_SHIFT, 4 << 20);
	for (i = 0; i < n; i++) {
		assert_int_equal(dev_get(&d, i * PAGE, d.sys, PAGE), 0);
		assert_true(page_is((uint64_t *)d.sys, 5, i + 1));
	}
	/* a word needs no room */
	page_make((uint64_t *)d.sys, 1, 7);
	assert_int_equal(dev_put(&d, n * PAGE, d.sys, PAGE), 0);
	balun_lz4_driver.trim(d.priv, 0, 16 * PAGE);
	page_make((uint64_t *)d.sys, 5, 99);
	for (i = 0; i < 16; i++)
		assert_int_equal(dev_put(&d, i * PAGE, d.sys, PAGE), 0);
	assert_int_equal(dev_put(&d, (n + 1) * PAGE, d.sys, PAGE), -ENOMEM);
	dev_close(&d);
}

/* pages of [p, p + len) that have memory */
static uint64_t resident(void *p, uint64_t len)
{
	static unsigned char vec[1 << 16];
	uint64_t i, n = 0;

	assert_true(len / PAGE <= sizeof(vec));
	assert_int_equal(mincore(p, len, vec), 0);
	for (i = 0; i < len / PAGE; i++)
		n += vec[i] & 1;
	return n;
}

static void gives_back(void **state)
{
	const uint64_t mem = 64 << 20;
	struct dev d;
	struct lz4 *z;
	uint64_t off, pool;

	assert_int_equal(dev_open(&d, "lz4:mem=64M"), 0);
	z = d.priv;
	pool = z->nchunks << CHUNK_SHIFT;
	assert_int_equal(resident(z->base, pool), 0);
	for (off = 0; off < NPAGES; off++)
		page_make((uint64_t *)(d.sys + off * PAGE), off % 3 + 3, off + 1);
	for (off = 0; off < mem; off += NPAGES * PAGE)
		assert_int_equal(dev_put(&d, off, d.sys, NPAGES * PAGE), 0);
	assert_true(resident(z->base, pool) > mem / PAGE / 3);
	/* a hole in every chunk gives nothing back, but is used again */
	for (off = 0; off < mem; off += 64 * PAGE)
		balun_lz4_driver.trim(d.priv, off, 3 * PAGE);
	for (off = 0; off < mem; off += 64 * PAGE)
		assert_int_equal(dev_put(&d, off, d.sys, 3 * PAGE), 0);
	balun_lz4_driver.trim(d.priv, 0, mem);
	assert_true(resident(z->base, pool) <= KEEP_CHUNKS * (CHUNK_BYTES / PAGE));
	assert_int_equal(z->held, z->nkept);
	dev_close(&d);
}

/* whatever the pool holds: a page is read or it is -EIO, and nothing beside it is written */
static void survives_a_spoiled_pool(void **state)
{
	struct dev d;
	struct lz4 *z;
	uint64_t seed = 12345, i, round;
	unsigned int failed = 0;
	char *dst;

	assert_int_equal(dev_open(&d, "lz4:mem=2M"), 0);
	z = d.priv;
	dst = d.sys + 3 * PAGE;
	for (i = 0; i < 64; i++) {
		page_make((uint64_t *)d.sys, i % 2 + 3, i + 1);
		assert_int_equal(dev_put(&d, i * PAGE, d.sys, PAGE), 0);
	}
	for (round = 0; round < 200; round++) {
		for (i = 0; i < 500; i++)
			z->base[next(&seed) % (z->nfresh << CHUNK_SHIFT)] = next(&seed);
		memset(d.sys, 0x77, 8 * PAGE);
		for (i = 0; i < 64; i++)
			failed += dev_get(&d, i * PAGE, dst, PAGE) != 0;
		for (i = 0; i < 8 * PAGE; i++)
			assert_true(d.sys[i] == 0x77 || (i >= 3 * PAGE && i < 4 * PAGE));
	}
	assert_true(failed > 1000);
	dev_close(&d);
}

/* ---- many threads ---- */

#define THREADS	     20 /* more than slots */
#define THREAD_PAGES 64UL

struct worker {
	struct dev *d;
	unsigned int id;
	struct env_thread *t;
};

static void check_held(struct dev *d, char *buf, uint64_t off, uint64_t held)
{
	assert_int_equal(dev_get(d, off, buf, PAGE), held ? 0 : -EIO);
	assert_true(!held || page_is((uint64_t *)buf, held % 6, held));
}

static void work(void *arg)
{
	struct worker *w = arg;
	uint64_t held[THREAD_PAGES] = { 0 }, s = w->id + 1, i;
	char *buf = balun_mem_alloc(PAGE);

	for (i = 0; i < 4000; i++) {
		uint64_t p = next(&s) % THREAD_PAGES, off = (w->id * THREAD_PAGES + p) * PAGE;

		switch (next(&s) % 4) {
		case 0:
			balun_lz4_driver.trim(w->d->priv, off, PAGE);
			held[p] = 0;
			break;
		case 1:
			check_held(w->d, buf, off, held[p]);
			break;
		default:
			held[p] = next(&s) % 100000 + 1;
			page_make((uint64_t *)buf, held[p] % 6, held[p]);
			assert_int_equal(dev_put(w->d, off, buf, PAGE), 0);
		}
	}
	for (i = 0; i < THREAD_PAGES; i++)
		check_held(w->d, buf, (w->id * THREAD_PAGES + i) * PAGE, held[i]);
	balun_mem_free(buf, PAGE);
}

static void threads_together(void **state)
{
	struct worker w[THREADS];
	struct dev d;
	struct lz4 *z;
	int i;

	assert_int_equal(dev_open(&d, "lz4:mem=8M,stats=1"), 0);
	z = d.priv;
	for (i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .d = &d, .id = i };
		assert_int_equal(env_thread_create(&w[i].t, "test", work, &w[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		env_thread_join(w[i].t);
	balun_lz4_driver.trim(d.priv, 0, d.desc.mem_bytes);
	assert_int_equal(z->held, z->nkept);
	dev_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_options),
		cmocka_unit_test(keeps_each_kind),
		cmocka_unit_test(zeros_and_what_was_never_stored),
		cmocka_unit_test(keeps_to_its_limit),
		cmocka_unit_test(gives_back),
		cmocka_unit_test(survives_a_spoiled_pool),
		cmocka_unit_test(threads_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
