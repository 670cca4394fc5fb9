/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: store.h - a driver that stores pages, by its ops alone; pages that tell which they are
 */
#ifndef BALUN_TEST_STORE_H
#define BALUN_TEST_STORE_H

#include "core/spec.h"
#include "env/env.h"

#define NPAGES 512UL

struct dev {
	const struct balun_driver *drv;
	struct balun_options *opt;
	struct balun_desc desc;
	void *priv;
	char *sys; /* NPAGES of system memory */
};

static inline int dev_open(struct dev *d, const struct balun_driver *drv, const char *spec)
{
	int err;

	memset(d, 0, sizeof(*d));
	d->drv = drv;
	assert_int_equal(spec_parse(spec, &d->opt), 0);
	err = drv->open(NULL, d->opt, &d->desc, &d->priv);
	if (err) {
		spec_free(d->opt);
		return err;
	}
	d->sys = balun_mem_alloc(NPAGES * BALUN_PAGE_SIZE);
	assert_non_null(d->sys);
	return 0;
}

static inline void dev_close(struct dev *d)
{
	d->drv->close(d->priv);
	spec_free(d->opt);
	balun_mem_free(d->sys, NPAGES * BALUN_PAGE_SIZE);
}

static inline int dev_copy(struct dev *d, const struct balun_copy *op, size_t n)
{
	uint64_t cookie;
	int err = d->drv->copy(d->priv, op, n, &cookie);

	return err ? err : d->drv->copy_wait(d->priv, cookie);
}

static inline int dev_put(struct dev *d, uint64_t off, const void *src, uint64_t len)
{
	const struct balun_copy op = { off, (uintptr_t)src, len, BALUN_KIND_LOCAL,
				       BALUN_KIND_SYSTEM };

	return dev_copy(d, &op, 1);
}

static inline int dev_get(struct dev *d, uint64_t off, void *dst, uint64_t len)
{
	const struct balun_copy op = { (uintptr_t)dst, off, len, BALUN_KIND_SYSTEM,
				       BALUN_KIND_LOCAL };

	return dev_copy(d, &op, 1);
}

static inline void dev_trim(struct dev *d, uint64_t off, uint64_t len)
{
	d->drv->trim(d->priv, off, len);
}

static inline uint64_t next(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

enum page_kind {
	PAGE_ZERO,
	PAGE_SMALL_WORD, /* one word all over, not far from 0 */
	PAGE_WORD,	 /* one that needs its 64 bits */
	PAGE_HALF,	 /* half of it compresses */
	PAGE_SPARSE,	 /* all but a word is zero */
	PAGE_RANDOM,
	NR_PAGE_KINDS
};

static inline void page_make(void *page, enum page_kind kind, uint64_t seed)
{
	uint64_t s = seed * 0x9e3779b97f4a7c15ULL | 1, word = next(&s), *p = page;
	unsigned int i;

	for (i = 0; i < BALUN_PAGE_SIZE / 8; i++) {
		if (kind == PAGE_ZERO)
			p[i] = 0;
		else if (kind == PAGE_SMALL_WORD)
			p[i] = (int64_t)word >> 3;
		else if (kind == PAGE_WORD)
			p[i] = (word | 1ULL << 62) & ~(1ULL << 63);
		else if (kind == PAGE_HALF)
			p[i] = i % 64 < 32 ? next(&s) : word;
		else if (kind == PAGE_SPARSE)
			p[i] = i == seed % 500 + 2;
		else
			p[i] = next(&s);
	}
}

static inline bool page_is(const void *p, enum page_kind kind, uint64_t seed)
{
	char want[BALUN_PAGE_SIZE] __attribute__((aligned(8)));

	page_make(want, kind, seed);
	return !memcmp(p, want, BALUN_PAGE_SIZE);
}

/* ---- many threads, each with places of its own ---- */

#define THREADS	     20
#define THREAD_PAGES 64UL

struct worker {
	struct dev *d;
	unsigned int id, rounds;
	struct env_thread *t;
	uint64_t held[THREAD_PAGES]; /* seeds; 0: nothing */
};

static inline void worker_check(struct worker *w, char *buf, uint64_t off, uint64_t held)
{
	assert_int_equal(dev_get(w->d, off, buf, BALUN_PAGE_SIZE), held ? 0 : -EIO);
	assert_true(!held || page_is(buf, held % NR_PAGE_KINDS, held));
}

/* stores, reads and trims runs of pages as it comes; all must be as it was stored */
static inline void worker_run(void *arg)
{
	struct worker *w = arg;
	char *buf = balun_mem_alloc(THREAD_PAGES * BALUN_PAGE_SIZE);
	uint64_t s = w->id + 1, base = w->id * THREAD_PAGES * BALUN_PAGE_SIZE, p, n, i, round;

	for (round = 0; round < w->rounds; round++) {
		p = next(&s) % THREAD_PAGES;
		n = 1 + next(&s) % (THREAD_PAGES - p);
		switch (next(&s) % 4) {
		case 0:
			dev_trim(w->d, base + p * BALUN_PAGE_SIZE, n * BALUN_PAGE_SIZE);
			memset(w->held + p, 0, n * sizeof(*w->held));
			break;
		case 1:
			for (i = p; i < p + n; i++)
				worker_check(w, buf, base + i * BALUN_PAGE_SIZE, w->held[i]);
			break;
		default:
			for (i = p; i < p + n; i++) {
				w->held[i] = next(&s) % 100000 + 1;
				page_make(buf + (i - p) * BALUN_PAGE_SIZE,
					  w->held[i] % NR_PAGE_KINDS, w->held[i]);
			}
			assert_int_equal(
				dev_put(w->d, base + p * BALUN_PAGE_SIZE, buf, n * BALUN_PAGE_SIZE),
				0);
		}
	}
	for (i = 0; i < THREAD_PAGES; i++)
		worker_check(w, buf, base + i * BALUN_PAGE_SIZE, w->held[i]);
	balun_mem_free(buf, THREAD_PAGES * BALUN_PAGE_SIZE);
}

/* the device has at least THREADS * THREAD_PAGES pages */
static inline void dev_hammer(struct dev *d, unsigned int rounds)
{
	static struct worker w[THREADS];
	int i;

	for (i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .d = d, .id = i, .rounds = rounds };
		assert_int_equal(env_thread_create(&w[i].t, "test", worker_run, &w[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		env_thread_join(w[i].t);
}

#endif
