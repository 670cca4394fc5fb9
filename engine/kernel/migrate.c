// SPDX-License-Identifier: GPL-2.0-only
/*
 * Collect and commit over migrate_vma_setup(), _pages() and _finalize(). From one to the other
 * mmap_lock is held for reading: what is mapped there stays mapped, and pages that were collected
 * are locked and out of every page table. So a page in transit is never gone; and whatever was not
 * moved, for whatever reason, is put back by the kernel in _finalize().
 */
#include <linux/highmem.h>
#include <linux/mmap_lock.h>
#include <linux/sched/mm.h>

#include "engine/kernel/kernel.h"

/* ---- what to ask for ---- */

/* of a page as it was seen: PAGE_IDLE: to be collected */
static enum engine_status page_status(const struct kengine *k, const struct engine_batch *b,
				      struct vm_area_struct *vma, unsigned long pfn)
{
	struct kplace p = kpfn_place(k, pfn);

	if (!vma || !kvma_movable(vma) || p.lost)
		return PAGE_UNMOVABLE;
	if (!b->dst)
		return p.d && (!b->src || b->src == p.d->id) ? PAGE_IDLE : PAGE_ALREADY;
	if (p.d && p.d->id == b->dst)
		return PAGE_ALREADY;
	if (p.d || pfn & HMM_PFN_VALID)
		return PAGE_IDLE;
	if (!vma_is_anonymous(vma))
		return PAGE_UNMOVABLE; /* a hole that a file fills */
	return b->holes ? PAGE_IDLE : PAGE_EMPTY;
}

/* runs of wanted pages that are to be collected, cut where a mapping ends */
static void find_subs(struct kengine *k, struct ktransit *t, struct engine_batch *b,
		      const unsigned long *pfns)
{
	struct vm_area_struct *vma = NULL;
	unsigned int i;

	for (i = env_bits_next(b->want, 0, true); i < BLOCK_PAGES;
	     i = env_bits_next(b->want, i + 1, true)) {
		struct ksub *s = t->nsubs ? &t->sub[t->nsubs - 1] : NULL;
		struct vm_area_struct *before = vma;
		u64 va = b->va + i * PAGE_SIZE;

		if (!vma || va >= vma->vm_end)
			vma = find_vma(k->mm, va);
		b->status[i] = page_status(k, b, vma && va >= vma->vm_start ? vma : NULL, pfns[i]);
		if (b->status[i] == PAGE_IDLE && t->fault && vma != t->fault->vmf->vma)
			b->status[i] = PAGE_BUSY; /* not with this fault's mmap_lock */
		if (b->status[i] != PAGE_IDLE)
			continue;
		if (s && before == vma && s->first + s->n == i)
			s->n++;
		else
			t->sub[t->nsubs++] = (struct ksub){ .first = i, .n = 1 };
	}
}

static void sub_args(struct kengine *k, struct ktransit *t, const struct engine_batch *b,
		     const struct ksub *s, struct migrate_vma *m)
{
	u64 va = b->va + s->first * PAGE_SIZE;
	struct vm_area_struct *vma = find_vma(k->mm, va);

	*m = (struct migrate_vma){
		.vma = vma,
		.start = va,
		.end = va + s->n * PAGE_SIZE,
		.src = t->src + s->first,
		.dst = t->dst + s->first,
		.npages = s->n,
		.pgmap_owner = k,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_DEVICE_COHERENT |
			 compat_select_compound(vma),
		.fault_page = t->fault ? t->fault->vmf->page : NULL,
	};
	if (b->dst)
		m->flags |= MIGRATE_VMA_SELECT_SYSTEM;
}

/* ---- collected pages ---- */

static void piece_add(struct engine_batch *b, const struct engine_piece *p)
{
	struct engine_piece *last = b->npieces ? &b->piece[b->npieces - 1] : NULL;
	u64 len = last ? (u64)last->npages << PAGE_SHIFT : 0;

	if (last && last->first + last->npages == p->first && last->src_kind == p->src_kind &&
	    last->src_dev == p->src_dev && last->dst + len == p->dst &&
	    (p->src_kind == BALUN_KIND_ZERO || last->src + len == p->src)) {
		last->npages += p->npages;
		return;
	}
	b->piece[b->npieces++] = *p;
}

static u64 page_bus(struct page *page)
{
	return (uintptr_t)page_address(page);
}

/* what was collected for page i; 0: nothing */
static unsigned long collected(const struct ktransit *t, unsigned int i)
{
	unsigned long pfn = t->src[t->whole ? 0 : i];

	if (!(pfn & MIGRATE_PFN_MIGRATE))
		return 0;
	return pfn & MIGRATE_PFN_VALID && t->whole ? pfn + ((unsigned long)i << MIGRATE_PFN_SHIFT)
						   : pfn;
}

/* where page i goes; NULL: nowhere */
static struct page *new_page_of(const struct ktransit *t, unsigned int i)
{
	struct page *page = migrate_pfn_to_page(t->dst[i]);

	if (t->whole && t->dst[0] & COMPAT_PFN_COMPOUND)
		page = migrate_pfn_to_page(t->dst[0]) + i;
	return page;
}

static bool is_huge_place(const struct kdev *d, const struct engine_batch *b)
{
	unsigned int i;

	if (b->place[0] % BLOCK_PAGES || kdevice_kind(d, b->hold) != PRIVATE)
		return false;
	for (i = 1; i < BLOCK_PAGES && b->place[i] == b->place[0] + i; i++)
		;
	return i == BLOCK_PAGES;
}

/* one page, or a huge one for all of the block; locked, or NULL */
static struct page *new_page(struct kengine *k, const struct engine_batch *b, unsigned int i,
			     unsigned int order)
{
	struct folio *folio;

	if (b->dst && order && !is_huge_place(k->dev[b->dst], b))
		return NULL;
	if (b->dst)
		return kpage_take(k->dev[b->dst], b->place[i], order, b->va + i * PAGE_SIZE,
				  b->hold);
	folio = folio_alloc(order ? GFP_TRANSHUGE_LIGHT : GFP_HIGHUSER_MOVABLE, order);
	if (!folio)
		return NULL;
	folio_lock(folio);
	/* the device may have written to it, and nothing else says so */
	folio_set_dirty(folio);
	return &folio->page;
}

/* page i as it was collected, to be taken: where its content is; false: it is not to be */
static bool source(struct kengine *k, const struct ktransit *t, struct engine_batch *b,
		   unsigned int i, struct engine_piece *p)
{
	struct page *page = migrate_pfn_to_page(collected(t, i));
	struct kdev *from = page ? kpage_ours(k, page) : NULL;

	*p = (struct engine_piece){ .first = i, .npages = 1, .src_kind = BALUN_KIND_ZERO };
	if (!collected(t, i))
		return false;
	if (!from) {
		/* Dropped since it was looked at, by who has mmap_lock for reading too (madvise):
		 * holes are collected whatever was asked for. Nobody would fill a page for it. */
		if (!b->dst)
			return false;
		if (page) {
			p->src_kind = BALUN_KIND_SYSTEM;
			p->src = page_bus(page);
		}
		return true;
	}
	p->src_kind = BALUN_KIND_LOCAL;
	p->src_dev = from->id;
	p->src = (u64)kpage_no(from, page) << PAGE_SHIFT;
	/* not if it has changed since it was looked at */
	return !READ_ONCE(from->ended) && from->id != b->dst && (!b->src || from->id == b->src);
}

static void take_page(struct kengine *k, struct ktransit *t, struct engine_batch *b, unsigned int i)
{
	struct engine_piece p;
	struct page *to;

	b->origin[i] = 0; /* its end is told by kdevice_tell() */
	if (!source(k, t, b, i, &p)) {
		b->status[i] = PAGE_BUSY;
		return;
	}
	to = new_page_of(t, i);
	if (!to) {
		to = new_page(k, b, i, 0);
		t->dst[i] = to ? migrate_pfn(page_to_pfn(to)) : 0;
	}
	if (!to) {
		b->status[i] = PAGE_NOMEM;
		return;
	}
	if (p.src_kind == BALUN_KIND_LOCAL)
		b->origin[i] = p.src_dev << 28 | (u32)(p.src >> PAGE_SHIFT);
	p.dst_kind = b->dst ? BALUN_KIND_LOCAL : BALUN_KIND_SYSTEM;
	p.dst_dev = b->dst;
	p.dst = b->dst ? (u64)b->place[i] << PAGE_SHIFT : page_bus(to);
	b->status[i] = PAGE_TAKEN;
	piece_add(b, &p);
}

/* The block is here as one. false: there is no huge page for it to go to */
static bool take_whole(struct kengine *k, struct ktransit *t, struct engine_batch *b)
{
	struct engine_piece p;
	struct page *to;

	if (!source(k, t, b, 0, &p))
		return true; /* it is not to be taken, and stays one */
	to = new_page(k, b, 0, PMD_SHIFT - PAGE_SHIFT);
	if (to)
		t->dst[0] = migrate_pfn(page_to_pfn(to)) | COMPAT_PFN_COMPOUND;
	return to;
}

/*
 * Without a huge page for it it is put back, and comes in halves: what is collected in part is
 * split first, where it is mapped. Nothing that was collected whole is committed in small pages:
 * migrate_vma_pages() would split it, but only in this address space. A child that has it too since
 * a fork keeps an entry for a huge page in transit, and gets the first small page for all of it.
 */
static void halve(struct ktransit *t, struct migrate_vma *m)
{
	memset(t->dst, 0, sizeof(t->dst));
	migrate_vma_finalize(m);
	t->whole = false;
	t->sub[0].n = BLOCK_PAGES / 2;
	t->sub[1] = (struct ksub){ .first = BLOCK_PAGES / 2, .n = BLOCK_PAGES / 2 };
	t->nsubs = 2;
}

static bool collect_vma(struct kengine *k, struct ktransit *t, const struct engine_batch *b,
			const struct ksub *s, struct migrate_vma *m)
{
	bool ok;

	sub_args(k, t, b, s, m);
	ok = !migrate_vma_setup(m);
	if (!ok)
		memset(t->src + s->first, 0, s->n * sizeof(*t->src));
	memset(t->dst + s->first, 0, s->n * sizeof(*t->dst));
	return ok;
}

static void collect_sub(struct kengine *k, struct ktransit *t, struct engine_batch *b,
			const struct ksub *s)
{
	struct migrate_vma m;
	bool ok = collect_vma(k, t, b, s, &m);
	unsigned int i;

	t->whole = ok && s->n == BLOCK_PAGES && t->src[0] & COMPAT_PFN_COMPOUND;
	if (t->whole && !take_whole(k, t, b)) {
		halve(t, &m);
		ok = collect_vma(k, t, b, s, &m);
	}
	if (!ok) {
		memset(b->status + s->first, PAGE_UNMOVABLE, s->n);
		return;
	}
	for (i = s->first; i < s->first + s->n; i++)
		take_page(k, t, b, i);
}

/* ---- the two ops ---- */

static bool mm_enter(struct kengine *k, struct kfault **ret_fault)
{
	*ret_fault = kfault_here(k);
	if (*ret_fault)
		return true;
	if (!mmget_not_zero(k->mm))
		return false;
	mmap_read_lock(k->mm);
	return true;
}

static void mm_leave(struct kengine *k, struct ktransit *t)
{
	if (t->fault)
		return;
	mmap_read_unlock(k->mm);
	mmput(k->mm);
}

/*
 * The page that the CPU waits for is there, also where a look finds nothing: in a mapping that may
 * be written and not read. Without it the CPU would come back for ever.
 */
static void see_fault(const struct ktransit *t, const struct engine_batch *b, unsigned long *pfns)
{
	unsigned int i = (t->fault->vmf->address - b->va) >> PAGE_SHIFT;

	if (t->fault->vmf->address >= b->va && i < BLOCK_PAGES && env_bit(b->want, i))
		pfns[i] = page_to_pfn(compat_fault_page(t->fault->vmf)) | HMM_PFN_VALID;
}

static void transit_begin(struct kengine *k, struct ktransit *t, const struct engine_batch *b)
{
	unsigned int i;

	t->va = b->va;
	memset(t->pages, 0, sizeof(t->pages));
	for (i = 0; i < BLOCK_PAGES; i++)
		if (b->status[i] == PAGE_TAKEN)
			env_bit_set(t->pages, i);
	spin_lock(&k->transit_lock);
	list_add(&t->link, &k->transits_now);
	spin_unlock(&k->transit_lock);
}

static void transit_end(struct kengine *k, struct ktransit *t)
{
	spin_lock(&k->transit_lock);
	list_del(&t->link);
	spin_unlock(&k->transit_lock);
}

void ktransit_pages(struct kengine *k, u64 va, u64 *pages)
{
	struct ktransit *t;
	unsigned int i;

	spin_lock(&k->transit_lock);
	list_for_each_entry(t, &k->transits_now, link)
	{
		for (i = 0; t->va == va && i < ENV_BITS_WORDS; i++)
			pages[i] |= t->pages[i];
	}
	spin_unlock(&k->transit_lock);
}

int kcollect(void *e, struct engine_batch *b)
{
	unsigned int first = env_bits_next(b->want, 0, true), last = BLOCK_PAGES, i;
	struct kengine *k = e;
	struct kfault *fault;
	struct ktransit *t;
	unsigned long *pfns;
	int idx;

	if (b->dst && !kdevice_has_pages(k->dev[b->dst], b->hold))
		return -EFAULT; /* CONFIG_DEVICE_PRIVATE */
	while (!env_bit(b->want, last - 1))
		last--;
	kregion_get(k, b->va); /* from now on mremap() is noticed: search_lost() */
	if (!mm_enter(k, &fault))
		return -EFAULT; /* the process has ended */
	/* with mmap_lock: who has the last one of a pool must not wait for who waits for it */
	t = mempool_alloc(k->transits, GFP_KERNEL);
	t->fault = fault;
	t->nsubs = 0;
	t->whole = false;
	pfns = mempool_alloc(k->snapshots, GFP_KERNEL);
	idx = srcu_read_lock(&kdevices_srcu);
	ksnapshot(k, b->va + first * PAGE_SIZE, b->va + last * PAGE_SIZE, pfns + first);
	if (t->fault)
		see_fault(t, b, pfns);
	find_subs(k, t, b, pfns);
	srcu_read_unlock(&kdevices_srcu, idx);
	mempool_free(pfns, k->snapshots);
	for (i = 0; i < t->nsubs; i++)
		collect_sub(k, t, b, &t->sub[i]);
	transit_begin(k, t, b);
	b->engine = t;
	return 0;
}

/* a page whose copy failed stays where it was: its new page is given up */
static void give_up(struct ktransit *t, struct engine_batch *b, unsigned int i)
{
	struct page *page = migrate_pfn_to_page(t->dst[i]);

	t->dst[i] = 0;
	if (!page)
		return;
	unlock_page(page);
	put_page(page);
}

/* pages that were taken and do not go; their places are free when the new pages are */
static void stay(struct engine_batch *b, unsigned int i)
{
	b->status[i] = PAGE_BUSY;
	if (b->dst)
		b->place[i] = ~0u;
}

/* Those whose copy failed are given up. A huge page goes as a whole or not at all: who comes again
 * for a single page of it has it split. */
static void give_up_failed(struct ktransit *t, struct engine_batch *b, const struct ksub *s)
{
	bool huge = t->whole && t->dst[0] & COMPAT_PFN_COMPOUND;
	unsigned int i, failed = 0;

	for (i = s->first; i < s->first + s->n; i++) {
		if (b->status[i] == PAGE_TAKEN)
			continue;
		if (b->dst && new_page_of(t, i))
			b->place[i] = ~0u;
		if (!huge)
			give_up(t, b, i);
		failed++;
	}
	if (!huge || !failed)
		return;
	give_up(t, b, 0);
	for (i = 0; i < BLOCK_PAGES; i++)
		if (b->status[i] == PAGE_TAKEN)
			stay(b, i);
}

static void commit_sub(struct kengine *k, struct ktransit *t, struct engine_batch *b,
		       const struct ksub *s)
{
	bool huge;
	struct migrate_vma m;
	unsigned int i;

	give_up_failed(t, b, s);
	huge = t->whole && t->dst[0] & COMPAT_PFN_COMPOUND;
	sub_args(k, t, b, s, &m);
	migrate_vma_pages(&m);
	for (i = s->first; i < s->first + s->n; i++) {
		b->origin[i] = 0;
		if (b->status[i] != PAGE_TAKEN)
			continue;
		if (!(t->src[huge ? 0 : i] & MIGRATE_PFN_MIGRATE)) {
			stay(b, i);
			continue;
		}
		b->status[i] = PAGE_MOVED;
		if (b->dst)
			kpage_settle(k->dev[b->dst], new_page_of(t, i));
	}
	migrate_vma_finalize(&m);
}

void kcommit(void *e, struct engine_batch *b)
{
	struct ktransit *t = b->engine;
	struct kengine *k = e;
	unsigned int i;

	atomic_inc(&k->commits);
	for (i = 0; i < t->nsubs; i++)
		commit_sub(k, t, b, &t->sub[i]);
	transit_end(k, t);
	mm_leave(k, t);
	mempool_free(t, k->transits);
	b->engine = NULL;
	/* what came home has left its place: core may be waiting for it. And nobody else tells of
	 * what came free since the beginning, whoever dropped it: page_is_free() */
	atomic_dec(&k->commits);
	kdevices_tell(k);
}

/* home with zeros: as a discard in the program's own memory, whose pages are there still */
void kdiscard(void *e, uint64_t va, uint64_t len)
{
	struct kengine *k = e;
	struct engine_batch *b = kvzalloc(sizeof(*b), GFP_KERNEL);
	unsigned int i, j;

	if (!b) /* a hint */
		return;
	b->space = k->space;
	b->va = va & ~(BALUN_BLOCK_SIZE - 1);
	env_bits_set_range(b->want, (va - b->va) >> PAGE_SHIFT, len >> PAGE_SHIFT);
	if (kcollect(k, b))
		goto free;
	for (i = 0; i < b->npieces; i++)
		for (j = 0; j < b->piece[i].npages; j++)
			clear_highpage(
				virt_to_page((void *)(uintptr_t)(b->piece[i].dst + j * PAGE_SIZE)));
	kcommit(k, b);
free:
	kvfree(b);
}
