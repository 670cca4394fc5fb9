/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft_mmu.c - the MMU of the soft accelerator: page tables, TLBs, flushes
 *
 * A page table has four levels of 4 KiB nodes. A slot of the third level stands for 2 MiB and is
 * empty, one large entry, or a table of 512 small ones with the count of those in use. Nodes are
 * cut from chunks of 64 KiB and recycled; upper nodes live as long as the space.
 *
 * A translation gets into a TLB only in balun_soft_mmu_fill(), on the worker's own thread and under
 * the lock, together with the walk: a flush comes either before the walk (which then finds the
 * hole) or after the tag was written (and clears it).
 */
#include "drivers/soft_mmu.h"

#define NODE_ENTRIES 512
#define CHUNK_NODES  16
#define STREAM_PAGES 64 /* how far a stream of misses fills ahead: the lock is dear, a walk not */

/* an entry: address of a page | perm | kind | VALID; a slot may also be: table | count | TABLE */
#define E_PERM	     0x7ULL
#define E_KIND_SHIFT 3
#define E_KIND	     (3ULL << E_KIND_SHIFT)
#define E_COUNT	     0x3ffULL
#define E_TABLE	     (1ULL << 10)
#define E_VALID	     (1ULL << 11)
#define E_ADDR	     (~(BALUN_PAGE_SIZE - 1))

static uint64_t entry(const struct balun_seg *seg, uint64_t off)
{
	return (seg->addr + off) | (seg->perm & E_PERM) | (uint64_t)seg->kind << E_KIND_SHIFT |
	       E_VALID;
}

static uint64_t *table(uint64_t slot)
{
	return (uint64_t *)(uintptr_t)(slot & E_ADDR);
}

static unsigned int page_index(uint64_t va)
{
	return va >> BALUN_PAGE_SHIFT & (BALUN_BLOCK_PAGES - 1);
}

/* ---- nodes; lock held ---- */

/* unmap() takes the lock too, and may be called to free memory: none is freed for this */
static uint64_t *chunk_alloc(void)
{
	unsigned int flags = env_noreclaim_begin();
	uint64_t *c = balun_mem_alloc(CHUNK_NODES * BALUN_PAGE_SIZE);

	env_noreclaim_end(flags);
	return c;
}

static uint64_t *node_get(struct soft_mmu *m)
{
	uint64_t *n = m->spare;
	unsigned int i;

	if (!n) {
		uint64_t *c = chunk_alloc();

		if (!c)
			return NULL;
		/* the first node of a chunk is its link */
		c[0] = (uintptr_t)m->chunk;
		m->chunk = c;
		for (i = CHUNK_NODES - 1; i > 0; i--) {
			c[i * NODE_ENTRIES] = (uintptr_t)n;
			n = c + i * NODE_ENTRIES;
		}
	}
	m->spare = (uint64_t *)(uintptr_t)n[0];
	memset(n, 0, BALUN_PAGE_SIZE);
	return n;
}

static void node_put(struct soft_mmu *m, uint64_t *n)
{
	n[0] = (uintptr_t)m->spare;
	m->spare = n;
}

/* the node below entry @i of @n, made if asked for */
static uint64_t *node_below(struct soft_mmu *m, uint64_t *n, unsigned int i, bool make)
{
	if (!n[i] && make)
		n[i] = (uintptr_t)node_get(m);
	return (uint64_t *)(uintptr_t)n[i];
}

/* the slot of the block of @va; NULL: none, or no memory to make it */
static uint64_t *slot_of(struct soft_mmu *m, struct soft_pt *pt, uint64_t va, bool make)
{
	uint64_t *n;

	if (va >= SOFT_VA_LIMIT)
		return NULL;
	n = node_below(m, pt->root, va >> 39, make);
	if (n)
		n = node_below(m, n, va >> 30 & (NODE_ENTRIES - 1), make);
	return n ? &n[va >> BALUN_BLOCK_SHIFT & (NODE_ENTRIES - 1)] : NULL;
}

/* make *slot a table with the same translations */
static bool slot_split(struct soft_mmu *m, uint64_t *slot)
{
	uint64_t *t, e = *slot;
	unsigned int i;

	if (e & E_TABLE)
		return true;
	t = node_get(m);
	if (!t)
		return false;
	for (i = 0; e && i < NODE_ENTRIES; i++)
		t[i] = e + i * BALUN_PAGE_SIZE;
	*slot = (uintptr_t)t | E_TABLE | (e ? NODE_ENTRIES : 0);
	return true;
}

static void slot_clear(struct soft_mmu *m, uint64_t *slot)
{
	if (*slot & E_TABLE)
		node_put(m, table(*slot));
	*slot = 0;
}

static uint64_t slot_entry(uint64_t slot, uint64_t va)
{
	if (slot & E_TABLE)
		return table(slot)[page_index(va)];
	return slot ? slot + page_index(va) * BALUN_PAGE_SIZE : 0;
}

/* ---- TLBs; lock held ---- */

static bool slot_drop(struct soft_tlb *t, uint64_t none, uint64_t va, uint64_t len)
{
	uint64_t old = env_load_relaxed(&t->tag);

	if (old == none || old - va >= len)
		return false;
	env_store_relaxed(&t->tag, none);
	return true;
}

static bool unit_drop(struct soft_worker *w, uint64_t va, uint64_t len)
{
	uint64_t n = ENV_MIN(len / BALUN_PAGE_SIZE, SOFT_TLB_ENTRIES), i, k;
	bool hit = false;

	for (k = 0; k < n; k++) {
		i = (va / BALUN_PAGE_SIZE + k) % SOFT_TLB_ENTRIES;
		hit |= slot_drop(&w->tlb[0][i], SOFT_TLB_NONE(i), va, len);
		hit |= slot_drop(&w->tlb[1][i], SOFT_TLB_NONE(i), va, len);
	}
	return hit;
}

/*
 * Take the translations of a range from every worker. If none had one, then no worker is inside an
 * access that uses one: a tag goes away only here (counted in begun until the wait was done) or by
 * its own worker after the access. So nobody needs to wait, and this is the common case.
 */
static void tlb_clear(struct soft_mmu *m, uint64_t va, uint64_t len)
{
	struct soft_unit **u;
	bool hit = false;

	for (u = m->unit; *u; u++)
		hit |= unit_drop(&(*u)->w, va, len);
	if (hit)
		m->begun++;
}

static void tlb_set(struct soft_mmu *m, struct soft_tlb *tlb, uint64_t va, uint64_t e)
{
	struct soft_tlb *t = &tlb[va / BALUN_PAGE_SIZE % SOFT_TLB_ENTRIES];
	uint64_t host = e & E_ADDR;

	if ((e & E_KIND) >> E_KIND_SHIFT == BALUN_KIND_LOCAL)
		host += (uintptr_t)m->mem;
	t->delta = host - va;
	env_store_relaxed(&t->tag, va);
}

/* whether a TLB may hold @e for an access that needs @perm */
static bool cacheable(uint64_t e, uint64_t perm)
{
	return e & perm && (e & E_KIND) >> E_KIND_SHIFT != BALUN_KIND_SYSTEM;
}

/* whether a worker that still uses @old while @new is in force does nothing wrong */
static bool entry_covers(uint64_t new, uint64_t old)
{
	return !((new ^ old) & ~E_PERM) && !(old & ~new &E_PERM);
}

/* ---- the interface ---- */

void balun_soft_mmu_init(struct soft_mmu *m, void *mem, struct soft_unit **unit)
{
	memset(m, 0, sizeof(*m));
	env_mutex_init(&m->lock);
	m->mem = mem;
	m->unit = unit;
	for (; *unit; unit++)
		balun_soft_mmu_forget(m, *unit);
}

void balun_soft_mmu_fini(struct soft_mmu *m)
{
	while (m->chunk) {
		uint64_t *c = m->chunk;

		m->chunk = (uint64_t *)(uintptr_t)c[0];
		balun_mem_free(c, CHUNK_NODES * BALUN_PAGE_SIZE);
	}
	env_mutex_destroy(&m->lock);
}

int balun_soft_pt_init(struct soft_mmu *m, struct soft_pt *pt)
{
	env_mutex_lock(&m->lock);
	pt->root = node_get(m);
	env_mutex_unlock(&m->lock);
	return pt->root ? 0 : -ENOMEM;
}

static void pt_free(struct soft_mmu *m, uint64_t *n, unsigned int level)
{
	unsigned int i;

	for (i = 0; i < NODE_ENTRIES; i++) {
		if (!level)
			slot_clear(m, &n[i]);
		else if (n[i])
			pt_free(m, (uint64_t *)(uintptr_t)n[i], level - 1);
	}
	node_put(m, n);
}

void balun_soft_pt_fini(struct soft_mmu *m, struct soft_pt *pt)
{
	env_mutex_lock(&m->lock);
	pt_free(m, pt->root, 2);
	env_mutex_unlock(&m->lock);
}

static bool map_large(struct soft_mmu *m, uint64_t *slot, uint64_t new)
{
	uint64_t old = *slot;
	bool stale = old && ((old & E_TABLE) || !entry_covers(new, old));

	slot_clear(m, slot);
	*slot = new;
	return stale;
}

static bool map_small(uint64_t *slot, const struct balun_seg *seg)
{
	uint64_t *e = table(*slot) + page_index(seg->va), off;
	bool stale = false;

	for (off = 0; off < seg->len; off += BALUN_PAGE_SIZE, e++) {
		uint64_t new = entry(seg, off);

		if (*e)
			stale |= !entry_covers(new, *e);
		else
			++*slot; /* the count */
		*e = new;
	}
	return stale;
}

int balun_soft_mmu_map(struct soft_mmu *m, struct soft_pt *pt, const struct balun_seg *seg,
		       size_t n)
{
	bool stale = false;
	int err = 0;
	size_t i;

	env_mutex_lock(&m->lock);
	for (i = 0; i < n; i++) {
		uint64_t *slot = slot_of(m, pt, seg[i].va, true);
		bool old;

		if (!slot) {
			err = -ENOMEM;
			break;
		}
		if (seg[i].len == BALUN_BLOCK_SIZE) {
			old = map_large(m, slot, entry(&seg[i], 0));
		} else if (slot_split(m, slot)) {
			old = map_small(slot, &seg[i]);
		} else {
			err = -ENOMEM;
			break;
		}
		if (old)
			tlb_clear(m, seg[i].va, seg[i].len);
		stale |= old;
	}
	env_mutex_unlock(&m->lock);
	if (stale)
		balun_soft_mmu_sync(m);
	return err;
}

/*
 * Remove the entries of [va, va + len), a part of one block. Returns how much was removed: all of
 * the block where a large entry is cut and there is no memory for a table (its rest faults again).
 */
static uint64_t slot_unmap(struct soft_mmu *m, uint64_t *slot, uint64_t va, uint64_t len)
{
	unsigned int i = page_index(va), end = i + len / BALUN_PAGE_SIZE;
	uint64_t *t;

	if (!*slot)
		return 0;
	if (len == BALUN_BLOCK_SIZE || !slot_split(m, slot)) {
		slot_clear(m, slot);
		return BALUN_BLOCK_SIZE;
	}
	for (t = table(*slot); i < end; i++) {
		if (t[i]) {
			t[i] = 0;
			--*slot;
		}
	}
	if (!(*slot & E_COUNT))
		slot_clear(m, slot);
	return len;
}

/* size of the empty part of the table at @va that needs no visit: a level's span, or a block */
static uint64_t hole_span(struct soft_pt *pt, uint64_t va)
{
	uint64_t e = pt->root[va >> 39];

	if (!e)
		return 1ULL << 39;
	return ((uint64_t *)(uintptr_t)e)[va >> 30 & (NODE_ENTRIES - 1)] ? BALUN_BLOCK_SIZE
									 : 1ULL << 30;
}

void balun_soft_mmu_clear(struct soft_mmu *m, struct soft_pt *pt, uint64_t va, uint64_t len)
{
	uint64_t end, next, lo = UINT64_MAX, hi = 0;

	if (va >= SOFT_VA_LIMIT)
		return;
	end = ENV_MIN(len, SOFT_VA_LIMIT - va) + va;
	env_mutex_lock(&m->lock);
	for (; va < end; va = next) {
		uint64_t *slot = slot_of(m, pt, va, false);
		uint64_t span = hole_span(pt, va), part;

		next = ENV_MIN((va & ~(span - 1)) + span, end);
		part = slot ? slot_unmap(m, slot, va, next - va) : 0;
		if (!part)
			continue;
		if (part == BALUN_BLOCK_SIZE)
			va &= ~(BALUN_BLOCK_SIZE - 1);
		lo = ENV_MIN(lo, va);
		hi = va + part;
	}
	if (lo < hi)
		tlb_clear(m, lo, hi - lo);
	env_mutex_unlock(&m->lock);
}

void balun_soft_mmu_sync(struct soft_mmu *m)
{
	struct soft_unit **u;
	uint64_t goal;

	env_mutex_lock(&m->lock);
	goal = m->begun;
	if (m->done == goal)
		goal = 0;
	env_mutex_unlock(&m->lock);
	if (!goal)
		return;

	env_membarrier();
	/* A worker that is busy may have read a tag before it was cleared. One that was idle once
	 * since the barrier has not: see soft.h. */
	for (u = m->unit; *u; u++) {
		while (env_load(&(*u)->w.busy))
			env_yield();
	}

	env_mutex_lock(&m->lock);
	m->done = ENV_MAX(m->done, goal);
	env_mutex_unlock(&m->lock);
}

/* fill the TLB from the page of @va on while entries of the block last, at most @n */
static void fill_run(struct soft_mmu *m, struct soft_unit *u, uint64_t slot, uint64_t page,
		     uint64_t n, bool write)
{
	uint64_t perm = write ? BALUN_PERM_WRITE : BALUN_PERM_READ, e;

	for (n = ENV_MIN(n, BALUN_BLOCK_PAGES - page_index(page)); n; n--) {
		e = slot_entry(slot, page);
		if (!cacheable(e, perm))
			break;
		tlb_set(m, u->w.tlb[write], page, e);
		u->stream[write] = page;
		page += BALUN_PAGE_SIZE;
	}
}

enum soft_fill balun_soft_mmu_fill(struct soft_mmu *m, struct soft_pt *pt, struct soft_unit *u,
				   uint64_t va, bool write, uint64_t *ret_addr)
{
	uint64_t perm = write ? BALUN_PERM_WRITE : BALUN_PERM_READ;
	uint64_t page = va & E_ADDR, e, *slot;
	enum soft_fill r = SOFT_HOLE;

	env_mutex_lock(&m->lock);
	slot = slot_of(m, pt, va, false);
	e = slot ? slot_entry(*slot, va) : 0;
	if (cacheable(e, perm)) {
		fill_run(m, u, *slot, page,
			 page == u->stream[write] + BALUN_PAGE_SIZE ? STREAM_PAGES : 1, write);
		r = SOFT_CACHED;
	} else if (e & perm) {
		*ret_addr = (e & E_ADDR) + (va - page);
		r = SOFT_BUS;
	}
	env_mutex_unlock(&m->lock);
	return r;
}

void balun_soft_mmu_forget(struct soft_mmu *m, struct soft_unit *u)
{
	unsigned int i;

	env_mutex_lock(&m->lock);
	for (i = 0; i < SOFT_TLB_ENTRIES; i++) {
		env_store_relaxed(&u->w.tlb[0][i].tag, SOFT_TLB_NONE(i));
		env_store_relaxed(&u->w.tlb[1][i].tag, SOFT_TLB_NONE(i));
	}
	u->stream[0] = u->stream[1] = 0;
	env_mutex_unlock(&m->lock);
}
