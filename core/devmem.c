// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The allocator of a device's memory: chunks of 2 MiB, each with a bitmap of its free pages.
 *
 * A chunk is on one of four lists by what it can still give: a whole chunk, a run of 64 KiB, a
 * page, nothing. So every allocation looks at the head of at most three lists and at one bitmap.
 * The bitmap is part of the chunk's bookkeeping, so that freeing a part never needs memory. Chunks
 * that were never used are not on a list and their bookkeeping was never touched.
 */
#include "core/devmem.h"

#define CHUNK_SHIFT 21
#define CHUNK_BYTES (1ULL << CHUNK_SHIFT)
#define PAGE_BYTES  4096u
#define CHUNK_PAGES (64 * ENV_BITS_WORDS)
#define RUN_PAGES   16
#define CHUNK_RUNS  (CHUNK_PAGES / RUN_PAGES)

/* what a chunk can give */
enum kind {
	KIND_NONE,
	KIND_PAGE,
	KIND_RUN,
	KIND_WHOLE,
	NR_KINDS
};

struct chunk {
	struct env_list link;
	env_bits free;
	uint16_t pages; /* free ones */
	uint8_t runs;	/* free ones of RUN_PAGES, aligned */
	uint8_t kind;
};

struct devmem {
	struct env_mutex lock;
	struct env_list list[NR_KINDS];
	uint64_t nchunks, nused; /* used ever: the first nused */
	uint64_t used;		 /* bytes; written under lock, read without */
	struct chunk *chunk;
};

struct devmem *devmem_create(uint64_t bytes)
{
	struct devmem *m;
	unsigned int i;

	env_assert(bytes && bytes % CHUNK_BYTES == 0);
	m = env_alloc(sizeof(*m));
	if (!m)
		return NULL;
	m->nchunks = bytes >> CHUNK_SHIFT;
	m->chunk = env_pages_alloc(m->nchunks * sizeof(*m->chunk));
	if (!m->chunk) {
		env_free(m);
		return NULL;
	}
	for (i = 0; i < NR_KINDS; i++)
		env_list_init(&m->list[i]);
	env_mutex_init(&m->lock);
	return m;
}

void devmem_destroy(struct devmem *m)
{
	if (!m)
		return;
	env_mutex_destroy(&m->lock);
	env_pages_free(m->chunk, m->nchunks * sizeof(*m->chunk));
	env_free(m);
}

static unsigned int run_bits(const struct chunk *c, unsigned int run)
{
	return c->free[run / 4] >> (run % 4 * RUN_PAGES) & 0xffff;
}

static enum kind kind_of(const struct chunk *c)
{
	if (c->pages == CHUNK_PAGES)
		return KIND_WHOLE;
	if (c->runs)
		return KIND_RUN;
	return c->pages ? KIND_PAGE : KIND_NONE;
}

/* after a change: the list that fits. Recently freed ones are used first. */
static void settle(struct devmem *m, struct chunk *c)
{
	enum kind kind = kind_of(c);

	if (kind == c->kind)
		return;
	env_list_del(&c->link);
	env_list_add(&m->list[kind], &c->link);
	c->kind = kind;
}

static struct chunk *first_of(struct devmem *m, enum kind kind)
{
	if (env_list_empty(&m->list[kind]))
		return NULL;
	return env_container_of(m->list[kind].next, struct chunk, link);
}

/* a chunk that was never used, as a whole free one */
static struct chunk *fresh_chunk(struct devmem *m)
{
	struct chunk *c;

	if (m->nused == m->nchunks)
		return NULL;
	c = &m->chunk[m->nused++];
	memset(c->free, 0xff, sizeof(c->free));
	c->pages = CHUNK_PAGES;
	c->runs = CHUNK_RUNS;
	c->kind = KIND_WHOLE;
	env_list_add(&m->list[KIND_WHOLE], &c->link);
	return c;
}

static struct chunk *whole_chunk(struct devmem *m)
{
	struct chunk *c = first_of(m, KIND_WHOLE);

	return c ? c : fresh_chunk(m);
}

/* how many aligned runs of [from, from + n) are wholly free */
static unsigned int count_runs(const struct chunk *c, unsigned int from, unsigned int n)
{
	unsigned int run, k = 0;

	for (run = from / RUN_PAGES; run * RUN_PAGES < from + n; run++)
		k += run_bits(c, run) == 0xffff;
	return k;
}

/* take or give back pages of one chunk, all in the other state before */
static void flip(struct devmem *m, struct chunk *c, unsigned int from, unsigned int n, bool free)
{
	unsigned int w, runs = count_runs(c, from, n);
	uint64_t bytes = (uint64_t)n * PAGE_BYTES;
	env_bits mask = { 0 };

	env_bits_set_range(mask, from, n);
	for (w = from / 64; w * 64 < from + n; w++) {
		env_assert((c->free[w] & mask[w]) == (free ? 0 : mask[w]));
		c->free[w] ^= mask[w];
	}
	c->runs += count_runs(c, from, n) - runs;
	c->pages += free ? n : -n;
	env_store_relaxed(&m->used, free ? m->used - bytes : m->used + bytes);
	settle(m, c);
}

/* a free page, from a run that is broken already if there is one */
static unsigned int find_page(const struct chunk *c)
{
	unsigned int i, whole = CHUNK_RUNS;

	for (i = 0; i < CHUNK_RUNS; i++) {
		unsigned int bits = run_bits(c, i);

		if (bits == 0xffff && whole == CHUNK_RUNS)
			whole = i;
		else if (bits && bits != 0xffff)
			return i * RUN_PAGES + __builtin_ctz(bits);
	}
	env_assert(whole < CHUNK_RUNS);
	return whole * RUN_PAGES;
}

static unsigned int find_run(const struct chunk *c)
{
	unsigned int i = 0;

	while (i < CHUNK_RUNS && run_bits(c, i) != 0xffff)
		i++;
	env_assert(i < CHUNK_RUNS);
	return i * RUN_PAGES;
}

static struct chunk *find_chunk(struct devmem *m, unsigned int n)
{
	struct chunk *c = NULL;

	if (n == 1)
		c = first_of(m, KIND_PAGE);
	if (!c && n <= RUN_PAGES)
		c = first_of(m, KIND_RUN);
	return c ? c : whole_chunk(m);
}

int devmem_alloc(struct devmem *m, uint64_t len, uint64_t *ret_off)
{
	unsigned int n = len / PAGE_BYTES, from = 0;
	struct chunk *c;

	env_assert(len == PAGE_BYTES || len == RUN_PAGES * PAGE_BYTES || len == CHUNK_BYTES);
	env_mutex_lock(&m->lock);
	c = find_chunk(m, n);
	if (c) {
		if (n == 1)
			from = find_page(c);
		else if (n == RUN_PAGES)
			from = find_run(c);
		flip(m, c, from, n, false);
		*ret_off = ((uint64_t)(c - m->chunk) << CHUNK_SHIFT) + from * PAGE_BYTES;
	}
	env_mutex_unlock(&m->lock);
	return c ? 0 : -ENOMEM;
}

void devmem_free(struct devmem *m, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	env_assert((off | len) % PAGE_BYTES == 0 && end >= off);
	env_mutex_lock(&m->lock);
	env_assert(end <= m->nused << CHUNK_SHIFT);
	while (off < end) {
		uint64_t in = off % CHUNK_BYTES, n = ENV_MIN(end - off, CHUNK_BYTES - in);

		flip(m, &m->chunk[off >> CHUNK_SHIFT], in / PAGE_BYTES, n / PAGE_BYTES, true);
		off += n;
	}
	env_mutex_unlock(&m->lock);
}

uint64_t devmem_used(struct devmem *m)
{
	return env_load_relaxed(&m->used);
}

uint64_t devmem_metadata(struct devmem *m)
{
	uint64_t n;

	env_mutex_lock(&m->lock);
	n = sizeof(*m) + m->nused * sizeof(*m->chunk);
	env_mutex_unlock(&m->lock);
	return n;
}

/* whether a chunk's counts and list are what its bitmap says */
static bool chunk_ok(const struct chunk *c)
{
	unsigned int i, pages = 0;

	for (i = 0; i < CHUNK_PAGES; i++)
		pages += env_bit(c->free, i);
	return c->pages == pages && c->runs == count_runs(c, 0, CHUNK_PAGES) &&
	       c->kind == kind_of(c);
}

static int check(struct devmem *m)
{
	uint64_t i, listed = 0, pages = 0;
	struct env_list *l;

	for (i = 0; i < m->nused; i++) {
		if (!chunk_ok(&m->chunk[i]))
			return -EINVAL;
		pages += CHUNK_PAGES - m->chunk[i].pages;
	}
	for (i = 0; i < NR_KINDS; i++) {
		env_list_for_each (l, &m->list[i]) {
			if (env_container_of(l, struct chunk, link)->kind != i)
				return -EINVAL;
			listed++;
		}
	}
	return listed == m->nused && m->used == pages * PAGE_BYTES ? 0 : -EINVAL;
}

int devmem_check(struct devmem *m)
{
	int err;

	env_mutex_lock(&m->lock);
	err = check(m);
	env_mutex_unlock(&m->lock);
	return err;
}
