// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: lz4 - compressed memory of the host
 *
 * Each page is compressed by itself with liblz4 and kept in a pool of host memory. One that is
 * filled with one repeated 64-bit word is kept as the word, one that does not become smaller than
 * three quarters as it is. Device memory is logical: mem= says how much core may give out, what it
 * takes depends on what is in it; limit= bounds that. When there is no more, copy() says -ENOMEM
 * before anything is lost. No page tables, no processor; user space only.
 *
 * **Table**: an entry of 8 bytes for each page of device memory, in memory that the system gives as
 * it is touched: 4 KiB for each 2 MiB of device memory that was ever used. Core uses a place from
 * one thread at a time, so an entry needs no lock.
 *
 * **Pool**: chunks of 16 KiB, each of objects of one size. Empty ones are given back to the system,
 * but for 2 MiB; of larger chunks too few become empty when pages go as it comes. They are never
 * unmapped before close(), so whatever an entry says, reading is safe; and LZ4_decompress_safe()
 * writes nothing beyond the page, whatever it reads.
 *
 * **Locks**: slot (compression; for one copy()) > class (chunks with room) > pool (empty chunks).
 * The last two are held for some instructions, never over a system call: trim() takes them.
 */
#include <lz4.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "balun/driver.h"
#include "env/env.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE	    BALUN_PAGE_SIZE
#define CHUNK_SHIFT 14
#define CHUNK_BYTES (1UL << CHUNK_SHIFT)
#define UNIT_SHIFT  6 /* an object is a multiple of 64 bytes */
#define UNIT	    (1UL << UNIT_SHIFT)
#define CHUNK_UNITS (CHUNK_BYTES / UNIT)
#define PACKED_MAX  (PAGE / 4 * 3)
#define CLASS_PAGE  (PACKED_MAX / UNIT) /* the class of whole pages, after those of packed ones */
#define NR_CLASSES  (CLASS_PAGE + 1)
#define NR_SLOTS    16
#define KEEP_CHUNKS 128 /* empty ones that stay populated */
#define WORD_BYTES  sizeof(uint64_t)

/*
 * An entry: 0, nothing was stored; SAME, and a word in the upper 62 bits, sign-extended; OBJECT,
 * its size in bytes and its place in the pool in units. Size PAGE: the page as it is; WORD_BYTES: a
 * word that does not fit into the entry.
 */
#define ENTRY_KIND	    3ULL
#define ENTRY_SAME	    1ULL
#define ENTRY_OBJECT	    2ULL
#define ENTRY_WORD(e)	    ((uint64_t)((int64_t)(e) >> 2))
#define ENTRY_SIZE(e)	    ((e) >> 2 & 0x1fff)
#define ENTRY_UNIT(e)	    ((e) >> 15)
#define ENTRY_NEW(unit, sz) ((uint64_t)(unit) << 15 | (uint64_t)(sz) << 2 | ENTRY_OBJECT)

struct chunk {
	struct env_list link; /* of its class while it has room, of the pool while it is empty */
	uint32_t class, used;
	uint64_t full[CHUNK_UNITS / 64]; /* a bit for each object */
};

struct class
{
	struct env_mutex lock;
	struct env_list room; /* chunks that have any, the fullest mostly first */
} __attribute__((aligned(64)));

/* what one compression needs */
struct slot {
	struct env_mutex lock;
	char *state;
	char packed[PACKED_MAX];
};

struct lz4 {
	uint64_t bytes, pages;
	uint64_t *table;
	char *base; /* of the pool */
	struct chunk *chunk;
	uint64_t nchunks;
	int level;
	bool stats;
	struct env_mutex pool_lock;
	struct env_list kept, given; /* empty chunks: populated, and given back */
	uint64_t nkept, nfresh;	     /* nfresh: chunks ever used, the first ones */
	uint64_t held, peak, max;    /* populated chunks: now, at most, at most by limit= */
	struct class class[NR_CLASSES];
	struct slot slot[NR_SLOTS];
	char *states;
	/* for people: pages stored ever, by kind; relaxed adds */
	uint64_t stored, same, whole, packed_bytes;
};

static size_t class_bytes(unsigned int class)
{
	return class == CLASS_PAGE ? PAGE : (class + 1) * UNIT;
}

static unsigned int class_of(size_t size)
{
	return size > PACKED_MAX ? CLASS_PAGE : (size - 1) / UNIT;
}

/* directly: libc's function may be hooked, and pages of the pool are nobody's business */
static int advise(void *p, size_t len, int advice)
{
	return syscall(SYS_madvise, p, len, advice) ? -errno : 0;
}

/* ---- the pool: chunks ---- */

static char *chunk_mem(struct lz4 *z, const struct chunk *c)
{
	return z->base + ((uint64_t)(c - z->chunk) << CHUNK_SHIFT);
}

static struct chunk *first_chunk(struct env_list *l)
{
	struct chunk *c;

	if (env_list_empty(l))
		return NULL;
	c = env_container_of(l->next, struct chunk, link);
	env_list_del(&c->link);
	return c;
}

/* an empty chunk, or NULL; *ret_populated: it has its memory */
static struct chunk *pool_take(struct lz4 *z, bool *ret_populated)
{
	struct chunk *c;

	env_mutex_lock(&z->pool_lock);
	c = first_chunk(&z->kept);
	*ret_populated = c;
	if (c) {
		z->nkept--;
	} else if (z->held < z->max) {
		c = first_chunk(&z->given);
		if (!c && z->nfresh < z->nchunks)
			c = &z->chunk[z->nfresh++];
		env_store_relaxed(&z->held, z->held + !!c);
		z->peak = ENV_MAX(z->peak, z->held);
	}
	env_mutex_unlock(&z->pool_lock);
	return c;
}

static void pool_put_given(struct lz4 *z, struct chunk *c)
{
	env_mutex_lock(&z->pool_lock);
	env_list_add(&z->given, &c->link);
	env_store_relaxed(&z->held, z->held - 1);
	env_mutex_unlock(&z->pool_lock);
}

static void pool_put(struct lz4 *z, struct chunk *c)
{
	bool keep;

	env_mutex_lock(&z->pool_lock);
	keep = z->nkept < KEEP_CHUNKS;
	if (keep) {
		env_list_add(&z->kept, &c->link);
		z->nkept++;
	}
	env_mutex_unlock(&z->pool_lock);
	if (keep)
		return;
	/* still counted, and on no list: nobody else has it */
	advise(chunk_mem(z, c), CHUNK_BYTES, MADV_DONTNEED);
	pool_put_given(z, c);
}

/* an empty chunk with its memory, at once: a fault for each page of it costs more */
static struct chunk *pool_get(struct lz4 *z)
{
	bool populated;
	struct chunk *c = pool_take(z, &populated);
	int err;

	if (!c || populated)
		return c;
	err = advise(chunk_mem(z, c), CHUNK_BYTES, MADV_POPULATE_WRITE);
	if (!err || err == -EINVAL) /* a kernel before 5.14 */
		return c;
	advise(chunk_mem(z, c), CHUNK_BYTES, MADV_DONTNEED);
	pool_put_given(z, c);
	return NULL;
}

/* ---- objects ---- */

/* class lock held; the chunk has room */
static uint64_t object_take(struct lz4 *z, struct class *cl, struct chunk *c)
{
	size_t size = class_bytes(c->class);
	unsigned int i, w = 0;

	while (!~c->full[w])
		w++;
	i = w * 64 + __builtin_ctzll(~c->full[w]);
	c->full[w] |= 1ULL << i % 64;
	if (++c->used == CHUNK_BYTES / size)
		env_list_del(&c->link);
	return (uint64_t)(c - z->chunk) * CHUNK_UNITS + i * (size / UNIT);
}

/* a place for @size bytes, in units. 0, -ENOMEM */
static int object_alloc(struct lz4 *z, size_t size, uint64_t *ret_unit)
{
	unsigned int class = class_of(size);
	struct class *cl = &z->class[class];
	struct chunk *c = NULL;

	env_mutex_lock(&cl->lock);
	if (env_list_empty(&cl->room)) {
		/* another may do the same meanwhile: then there are two with room */
		env_mutex_unlock(&cl->lock);
		c = pool_get(z);
		if (!c)
			return -ENOMEM;
		c->class = class;
		c->used = 0;
		memset(c->full, 0, sizeof(c->full));
		env_mutex_lock(&cl->lock);
		env_list_add(&cl->room, &c->link);
	}
	c = env_container_of(cl->room.next, struct chunk, link);
	*ret_unit = object_take(z, cl, c);
	env_mutex_unlock(&cl->lock);
	return 0;
}

static void object_free(struct lz4 *z, uint64_t unit)
{
	struct chunk *c = &z->chunk[unit / CHUNK_UNITS];
	struct class *cl = &z->class[c->class]; /* stays as it is while the chunk has an object */
	unsigned int n = CHUNK_BYTES / class_bytes(c->class);
	unsigned int i = unit % CHUNK_UNITS / (class_bytes(c->class) / UNIT);
	bool empty;

	env_mutex_lock(&cl->lock);
	env_assert(c->full[i / 64] >> i % 64 & 1);
	c->full[i / 64] &= ~(1ULL << i % 64);
	/* first, for it is the fullest: the others get the time to become empty */
	if (c->used-- == n)
		env_list_add(&cl->room, &c->link);
	empty = !c->used;
	if (empty)
		env_list_del(&c->link);
	env_mutex_unlock(&cl->lock);
	if (empty)
		pool_put(z, c);
}

/* ---- pages ---- */

static void page_drop(struct lz4 *z, uint64_t page)
{
	uint64_t e = z->table[page];

	/* reading alone does not make the system give memory for the table */
	if (!e)
		return;
	z->table[page] = 0;
	if ((e & ENTRY_KIND) == ENTRY_OBJECT)
		object_free(z, ENTRY_UNIT(e));
}

static bool same_filled(const uint64_t *p)
{
	return p[0] == p[1] && p[0] == p[PAGE / WORD_BYTES - 1] &&
	       !memcmp(p, p + 1, PAGE - WORD_BYTES);
}

static int page_keep(struct lz4 *z, uint64_t page, const void *data, size_t size)
{
	uint64_t unit;
	int err = object_alloc(z, size, &unit);

	if (err)
		return err;
	memcpy(z->base + (unit << UNIT_SHIFT), data, size);
	z->table[page] = ENTRY_NEW(unit, size);
	return 0;
}

static int page_keep_word(struct lz4 *z, uint64_t page, uint64_t word)
{
	uint64_t e = word << 2 | ENTRY_SAME;

	env_add(&z->same, 1);
	if (ENTRY_WORD(e) != word)
		return page_keep(z, page, &word, WORD_BYTES);
	z->table[page] = e;
	return 0;
}

static int page_store(struct lz4 *z, struct slot *s, uint64_t page, const void *src)
{
	int n;

	page_drop(z, page);
	env_add(&z->stored, 1);
	if (same_filled(src))
		return page_keep_word(z, page, *(const uint64_t *)src);
	n = LZ4_compress_fast_extState(s->state, src, s->packed, PAGE, PACKED_MAX, z->level);
	if (n <= 0) {
		env_add(&z->whole, 1);
		return page_keep(z, page, src, PAGE);
	}
	env_add(&z->packed_bytes, n);
	return page_keep(z, page, s->packed, n);
}

static void fill(uint64_t *p, uint64_t word)
{
	unsigned int i;

	for (i = 0; i < PAGE / WORD_BYTES; i++)
		p[i] = word;
}

/* -EIO: nothing is stored there, or it cannot be what was stored */
static int page_load(struct lz4 *z, uint64_t page, void *dst)
{
	uint64_t e = z->table[page];
	const char *data = z->base + (ENTRY_UNIT(e) << UNIT_SHIFT);

	if ((e & ENTRY_KIND) == ENTRY_SAME) {
		fill(dst, ENTRY_WORD(e));
		return 0;
	}
	if ((e & ENTRY_KIND) != ENTRY_OBJECT)
		return -EIO;
	if (ENTRY_SIZE(e) == PAGE)
		memcpy(dst, data, PAGE);
	else if (ENTRY_SIZE(e) == WORD_BYTES)
		fill(dst, *(const uint64_t *)data);
	else if (LZ4_decompress_safe(data, dst, ENTRY_SIZE(e), PAGE) != (int)PAGE)
		return -EIO;
	return 0;
}

/* ---- the ops ---- */

static uint64_t pool_bytes(uint64_t mem, uint64_t limit)
{
	/* all of it incompressible, in chunks that are not quite full */
	uint64_t most = mem + mem / 8 + NR_CLASSES * CHUNK_BYTES;

	return (limit ? ENV_MIN(limit, most) : most) & ~(CHUNK_BYTES - 1);
}

static int lz4_parse(struct lz4 *z, const struct balun_options *opt)
{
	uint64_t limit, level, stats;
	int err;

	err = balun_opt_size(opt, "mem", 4ULL << 30, &z->bytes);
	err = err ?: balun_opt_size(opt, "limit", 0, &limit);
	err = err ?: balun_opt_size(opt, "level", 1, &level);
	err = err ?: balun_opt_size(opt, "stats", 0, &stats);
	if (err)
		return err;
	if (!z->bytes || z->bytes % BALUN_BLOCK_SIZE || z->bytes > 1ULL << 40)
		return balun_opt_fail(opt, "mem", "must be a multiple of 2M, at most 1024G");
	if (limit && limit < 1 << 20)
		return balun_opt_fail(opt, "limit", "must be 0 or at least 1M");
	if (!level || level > 65537)
		return balun_opt_fail(opt, "level", "must be 1 (smallest) to 65537 (fastest)");
	if (stats > 1)
		return balun_opt_fail(opt, "stats", "must be 0 or 1");
	z->pages = z->bytes / PAGE;
	z->nchunks = pool_bytes(z->bytes, limit) >> CHUNK_SHIFT;
	z->max = z->nchunks;
	z->level = level;
	z->stats = stats;
	return 0;
}

static void lz4_free(struct lz4 *z)
{
	balun_mem_free(z->states, NR_SLOTS * (size_t)LZ4_sizeofState());
	balun_mem_free(z->chunk, z->nchunks * sizeof(*z->chunk));
	balun_mem_free(z->base, z->nchunks << CHUNK_SHIFT);
	balun_mem_free(z->table, z->pages * sizeof(*z->table));
	balun_mem_free(z, sizeof(*z));
}

/* sparse: a huge page would give it memory that nobody asked for */
static void *sparse_alloc(size_t bytes)
{
	void *p = balun_mem_alloc(bytes);

	if (p)
		advise(p, (bytes + PAGE - 1) & ~(PAGE - 1), MADV_NOHUGEPAGE);
	return p;
}

static int lz4_alloc(struct lz4 *z)
{
	size_t state = LZ4_sizeofState();
	unsigned int i;

	z->table = sparse_alloc(z->pages * sizeof(*z->table));
	z->base = sparse_alloc(z->nchunks << CHUNK_SHIFT);
	z->chunk = sparse_alloc(z->nchunks * sizeof(*z->chunk));
	z->states = balun_mem_alloc(NR_SLOTS * state);
	if (!z->table || !z->base || !z->chunk || !z->states) {
		env_reason("lz4: no address space for mem=%lluM: try less",
			   (unsigned long long)(z->bytes >> 20));
		return -ENOMEM;
	}
	for (i = 0; i < NR_SLOTS; i++) {
		env_mutex_init(&z->slot[i].lock);
		z->slot[i].state = z->states + i * state;
	}
	for (i = 0; i < NR_CLASSES; i++) {
		env_mutex_init(&z->class[i].lock);
		env_list_init(&z->class[i].room);
	}
	env_mutex_init(&z->pool_lock);
	env_list_init(&z->kept);
	env_list_init(&z->given);
	return 0;
}

static int lz4_open(struct balun_device *dev, const struct balun_options *opt,
		    struct balun_desc *ret_desc, void **ret_priv)
{
	struct lz4 *z = balun_mem_alloc(sizeof(*z));
	int err;

	if (!z)
		return -ENOMEM;
	err = lz4_parse(z, opt);
	if (!err)
		err = lz4_alloc(z);
	if (err) {
		lz4_free(z);
		return err;
	}
	ret_desc->mem_bytes = z->bytes;
	*ret_priv = z;
	return 0;
}

static void lz4_say(const struct lz4 *z)
{
	uint64_t packed = z->stored - z->same - z->whole;

	env_log(-1,
		"lz4: %llu pages stored: %llu of one repeated word, %llu incompressible, the "
		"others at %llu %%; at most %llu MiB of host memory",
		(unsigned long long)z->stored, (unsigned long long)z->same,
		(unsigned long long)z->whole,
		(unsigned long long)(packed ? z->packed_bytes * 100 / (packed * PAGE) : 0),
		(unsigned long long)(z->peak << CHUNK_SHIFT >> 20));
}

static void lz4_close(void *priv)
{
	struct lz4 *z = priv;
	unsigned int i;

	if (z->stats)
		lz4_say(z);
	for (i = 0; i < NR_SLOTS; i++)
		env_mutex_destroy(&z->slot[i].lock);
	for (i = 0; i < NR_CLASSES; i++)
		env_mutex_destroy(&z->class[i].lock);
	env_mutex_destroy(&z->pool_lock);
	lz4_free(z);
}

static int lz4_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void lz4_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		      enum balun_cause cause)
{
}

/* One that is free; more threads than slots wait. Where its stack is tells a caller from another */
static struct slot *slot_get(struct lz4 *z)
{
	uintptr_t first = (uintptr_t)__builtin_frame_address(0) >> 13;
	unsigned int i;

	for (i = 0; i < NR_SLOTS; i++) {
		struct slot *s = &z->slot[(first + i) % NR_SLOTS];

		if (env_mutex_trylock(&s->lock))
			return s;
	}
	env_mutex_lock(&z->slot[first % NR_SLOTS].lock);
	return &z->slot[first % NR_SLOTS];
}

static int store(struct lz4 *z, uint64_t page, const char *src, uint64_t npages)
{
	struct slot *s = slot_get(z);
	uint64_t i;
	int err = 0;

	for (i = 0; i < npages && !err; i++)
		err = page_store(z, s, page + i, src + i * PAGE);
	env_mutex_unlock(&s->lock);
	return err;
}

static int load(struct lz4 *z, uint64_t page, char *dst, uint64_t npages)
{
	uint64_t i;
	int err = 0;

	for (i = 0; i < npages && !err; i++)
		err = page_load(z, page + i, dst + i * PAGE);
	return err;
}

static int zero(struct lz4 *z, uint64_t page, uint64_t npages)
{
	for (; npages; npages--, page++) {
		page_drop(z, page);
		page_keep_word(z, page, 0);
	}
	return 0;
}

static int copy_one(struct lz4 *z, const struct balun_copy *op)
{
	uint64_t n = op->len / PAGE;

	if (op->dst_kind == BALUN_KIND_LOCAL && op->src_kind == BALUN_KIND_SYSTEM)
		return store(z, op->dst / PAGE, balun_bus_ptr(op->src, op->len), n);
	if (op->dst_kind == BALUN_KIND_LOCAL && op->src_kind == BALUN_KIND_ZERO)
		return zero(z, op->dst / PAGE, n);
	if (op->dst_kind == BALUN_KIND_SYSTEM && op->src_kind == BALUN_KIND_LOCAL)
		return load(z, op->src / PAGE, balun_bus_ptr(op->dst, op->len), n);
	return -EOPNOTSUPP;
}

/* Done when this returns: there is nothing to wait for. */
static int lz4_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	size_t i;
	int err = 0;

	for (i = 0; i < n && !err; i++)
		err = copy_one(priv, &op[i]);
	if (!err)
		*ret_cookie = 0;
	return err;
}

static int lz4_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

static void lz4_trim(void *priv, uint64_t off, uint64_t len)
{
	uint64_t page;

	for (page = off / PAGE; page < (off + len) / PAGE; page++)
		page_drop(priv, page);
}

static uint64_t lz4_footprint(void *priv)
{
	return env_load_relaxed(&((struct lz4 *)priv)->held) << CHUNK_SHIFT;
}

extern const struct balun_driver balun_lz4_driver;
const struct balun_driver balun_lz4_driver = {
	.size = sizeof(struct balun_driver),
	.name = "lz4",
	.help = "mem=4G   device memory, a multiple of 2M: what is in it before compression\n"
		"limit=0  host memory that it may take, 0: no limit\n"
		"level=1  1: smallest, larger: faster\n"
		"stats=0  1: say at close how well pages were compressed\n",
	.open = lz4_open,
	.close = lz4_close,
	.map = lz4_map,
	.unmap = lz4_unmap,
	.copy = lz4_copy,
	.copy_wait = lz4_copy_wait,
	.trim = lz4_trim,
	.footprint = lz4_footprint,
};
