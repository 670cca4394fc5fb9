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

/* of a page of a mapping, as it was seen: PAGE_IDLE: to be collected */
static enum engine_status page_status(const struct engine_batch *b, struct vm_area_struct *vma,
				      const struct kplace *p, unsigned long pfn)
{
	if (!kvma_movable(vma) || p->lost)
		return PAGE_UNMOVABLE;
	if (!b->dst)
		return p->d && (!b->src || b->src == p->d->id) ? PAGE_IDLE : PAGE_ALREADY;
	if (p->d && p->d->id == b->dst)
		return PAGE_ALREADY;
	if (p->d || pfn & HMM_PFN_VALID)
		return PAGE_IDLE;
	if (!vma_is_anonymous(vma))
		return PAGE_UNMOVABLE; /* a hole that a file fills */
	return b->holes ? PAGE_IDLE : PAGE_EMPTY;
}

/* pages [i, i + n) are to be collected, as others of the mapping before if @joins */
static void sub_add(struct ktransit *t, unsigned int i, unsigned int n, bool joins)
{
	struct ksub *s = t->nsubs ? &t->sub[t->nsubs - 1] : NULL;

	if (s && joins && s->first + s->n == i)
		s->n += n;
	else
		t->sub[t->nsubs++] = (struct ksub){ .first = i, .n = n };
}

/* runs of wanted pages that are to be collected, cut where a mapping ends */
static void find_subs(struct kengine *k, struct ktransit *t, struct engine_batch *b,
		      const unsigned long *pfns)
{
	struct vm_area_struct *vma = NULL, *before = NULL;
	enum engine_status status;
	unsigned int i, n;

	for (i = env_bits_next(b->want, 0, true); i < BLOCK_PAGES;
	     i = env_bits_next(b->want, i + n, true)) {
		u64 va = b->va + i * PAGE_SIZE;
		struct kplace p;

		if (!vma || va >= vma->vm_end)
			vma = find_vma(k->mm, va);
		n = env_bits_next(b->want, i, false) - i;
		if (vma && va >= vma->vm_start) {
			p = kpfn_place(k, pfns[i]);
			n = min_t(u64, n, (vma->vm_end - va) >> PAGE_SHIFT);
			n = kpfns_alike(&p, vma_is_anonymous(vma), pfns + i, n);
			status = page_status(b, vma, &p, pfns[i]);
		} else {
			n = vma ? min_t(u64, n, (vma->vm_start - va) >> PAGE_SHIFT) : n;
			status = PAGE_UNMOVABLE;
		}
		if (status == PAGE_IDLE && t->fault && vma != t->fault->vmf->vma)
			status = PAGE_BUSY; /* not with this fault's mmap_lock */
		memset(b->status + i, status, n);
		if (status == PAGE_IDLE)
			sub_add(t, i, n, before == vma);
		before = vma;
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

/* how many pages from i on, below @end, have places that follow each other */
static unsigned int run_of_places(const struct engine_batch *b, unsigned int i, unsigned int end)
{
	unsigned int n = 1;

	while (i + n < end && b->place[i + n] == b->place[i] + n)
		n++;
	return n;
}

static bool is_huge_place(const struct kdev *d, const struct engine_batch *b)
{
	return b->place[0] % BLOCK_PAGES == 0 && kdevice_kind(d, b->hold) == PRIVATE &&
	       run_of_places(b, 0, BLOCK_PAGES) == BLOCK_PAGES;
}

/* of system memory; locked, or NULL */
static struct page *new_page(unsigned int order)
{
	struct folio *folio =
		folio_alloc(order ? GFP_TRANSHUGE_LIGHT : GFP_HIGHUSER_MOVABLE, order);

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
	struct page *page = migrate_pfn_to_page(t->src[i]);
	struct kdev *from;

	*p = (struct engine_piece){ .first = i, .npages = 1, .src_kind = BALUN_KIND_ZERO };
	if (!(t->src[i] & MIGRATE_PFN_MIGRATE))
		return false;
	from = page ? kpage_ours(k, page) : NULL;
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
	return !READ_ONCE(from->drained) && from->id != b->dst && (!b->src || from->id == b->src);
}

/* what @p has goes: to @to, or for a device to its place */
static void take(struct engine_batch *b, struct engine_piece *p, struct page *to)
{
	unsigned int i;

	p->dst_kind = b->dst ? BALUN_KIND_LOCAL : BALUN_KIND_SYSTEM;
	p->dst_dev = b->dst;
	p->dst = b->dst ? (u64)b->place[p->first] << PAGE_SHIFT : page_bus(to);
	memset(b->status + p->first, PAGE_TAKEN, p->npages);
	/* until commit, for its end is told by kdevice_tell() */
	for (i = 0; p->src_kind == BALUN_KIND_LOCAL && i < p->npages; i++)
		b->origin[p->first + i] = p->src_dev << 28 | ((u32)(p->src >> PAGE_SHIFT) + i);
	piece_add(b, p);
}

static void take_page(struct kengine *k, struct ktransit *t, struct engine_batch *b, unsigned int i)
{
	struct page *to = NULL;
	struct engine_piece p;

	if (!source(k, t, b, i, &p)) {
		b->status[i] = PAGE_BUSY;
		return;
	}
	if (!b->dst) {
		to = new_page(0);
		if (!to) {
			b->status[i] = PAGE_NOMEM;
			return;
		}
		t->dst[i] = migrate_pfn(page_to_pfn(to));
	}
	take(b, &p, to);
}

/* the pages of a device for those of [i, end) that were taken */
static void take_places(struct kengine *k, struct ktransit *t, const struct engine_batch *b,
			unsigned int i, unsigned int end)
{
	unsigned int n;

	for (; i < end; i += n) {
		n = engine_status_end(b, i, end) - i;
		if (b->status[i] != PAGE_TAKEN)
			continue;
		n = run_of_places(b, i, i + n);
		kpages_take(k->dev[b->dst], b->place[i], n, b->va + i * PAGE_SIZE, b->hold,
			    t->dst + i);
	}
}

/* The block is here as one. false: there is no huge page for it to go to */
static bool take_whole(struct kengine *k, struct ktransit *t, struct engine_batch *b)
{
	struct page *to = NULL;
	struct engine_piece p;

	if (!source(k, t, b, 0, &p)) { /* it is not to be taken, and stays one */
		memset(b->status, PAGE_BUSY, BLOCK_PAGES);
		return true;
	}
	if (b->dst && !is_huge_place(k->dev[b->dst], b))
		return false;
	if (b->dst)
		to = kpage_take_huge(k->dev[b->dst], b->place[0], b->va);
	else
		to = new_page(PMD_SHIFT - PAGE_SHIFT);
	if (!to)
		return false;
	t->dst[0] = migrate_pfn(page_to_pfn(to)) | COMPAT_PFN_COMPOUND;
	p.npages = BLOCK_PAGES;
	take(b, &p, to);
	return true;
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

	memset(b->origin + s->first, 0, s->n * sizeof(*b->origin));
	t->whole = ok && s->n == BLOCK_PAGES && t->src[0] & COMPAT_PFN_COMPOUND;
	if (t->whole) {
		if (take_whole(k, t, b))
			return;
		halve(t, &m);
		ok = collect_vma(k, t, b, s, &m);
	}
	if (!ok) {
		memset(b->status + s->first, PAGE_UNMOVABLE, s->n);
		return;
	}
	for (i = s->first; i < s->first + s->n; i++)
		take_page(k, t, b, i);
	if (b->dst)
		take_places(k, t, b, s->first, s->first + s->n);
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
	unsigned int i, end;

	t->va = b->va;
	memset(t->pages, 0, sizeof(t->pages));
	for (i = 0; i < BLOCK_PAGES; i = end) {
		end = engine_status_end(b, i, BLOCK_PAGES);
		if (b->status[i] == PAGE_TAKEN)
			env_bits_set_range(t->pages, i, end - i);
	}
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

/* does all of the block go to one huge page? */
static bool is_huge(const struct ktransit *t)
{
	return t->whole && t->dst[0] & COMPAT_PFN_COMPOUND;
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
	bool huge = is_huge(t);
	unsigned int i, n, end = s->first + s->n, failed = 0;

	for (i = s->first; i < end; i += n) {
		if (b->status[i] == PAGE_TAKEN) {
			n = engine_status_end(b, i, end) - i;
			continue;
		}
		n = 1;
		if (b->dst && t->dst[huge ? 0 : i])
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

/* of [i, end), which were taken: those whose pages have moved */
static void settle_pages(const struct ktransit *t, struct engine_batch *b, unsigned int i,
			 unsigned int end)
{
	if (is_huge(t) && t->src[0] & MIGRATE_PFN_MIGRATE) {
		memset(b->status, PAGE_MOVED, BLOCK_PAGES);
		return;
	}
	for (; i < end; i++) {
		if (!is_huge(t) && t->src[i] & MIGRATE_PFN_MIGRATE)
			b->status[i] = PAGE_MOVED;
		else
			stay(b, i);
	}
}

static void commit_sub(struct kengine *k, struct ktransit *t, struct engine_batch *b,
		       const struct ksub *s)
{
	unsigned int i, n, end = s->first + s->n;
	struct migrate_vma m;

	give_up_failed(t, b, s);
	sub_args(k, t, b, s, &m);
	migrate_vma_pages(&m);
	memset(b->origin + s->first, 0, s->n * sizeof(*b->origin));
	for (i = s->first; i < end; i += n) {
		n = engine_status_end(b, i, end) - i;
		if (b->status[i] == PAGE_TAKEN)
			settle_pages(t, b, i, i + n);
	}
	for (i = s->first; b->dst && i < end; i += n) {
		n = engine_status_end(b, i, end) - i;
		if (b->status[i] != PAGE_MOVED)
			continue;
		n = run_of_places(b, i, i + n);
		kpages_settle(k->dev[b->dst], b->place[i], n);
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
