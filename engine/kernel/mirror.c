// SPDX-License-Identifier: GPL-2.0-only
/*
 * Seeing the address space: subscriptions to its changes, and looking at it.
 *
 * One subscription for all of it would make every munmap() of a busy program spoil every look; one
 * for each block would be a million of them. So there is one for each GiB that a device has asked
 * for, made at the first look and kept to the end.
 *
 * A look is right if no change was under way when it began (mmu_interval_read_begin() waits for
 * that) and none has begun since: core asks (klook_changed()) with the block's mirror lock, under
 * which the callback below takes the device's entries away. mmu_interval_set_seq() comes before
 * that lock: who checks with the lock before us maps what we then unmap; who checks after us has
 * the new number, by the lock's order.
 */
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "engine/kernel/kernel.h"

static bool region_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range, unsigned long seq)
{
	struct region *r = container_of(sub, struct region, sub);
	u64 start = max_t(u64, range->start, sub->interval_tree.start);
	u64 end = min_t(u64, range->end, sub->interval_tree.last + 1);

	/* What core moves it has taken from the devices itself, and keeps from them: no more to do.
	 * A device waits for its workers, and the stripes are mutexes: who may not sleep has to
	 * come back. */
	if (range->event == MMU_NOTIFY_MIGRATE && range->owner == r->k)
		return true;
	if (!mmu_notifier_range_blockable(range))
		return false;
	mmu_interval_set_seq(sub, seq);
	if (range->event == MMU_NOTIFY_UNMAP)
		atomic_long_inc(&r->k->unmaps);
	core_invalidate_now(r->k->space, start, end - start);
	return true;
}

static const struct mmu_interval_notifier_ops region_ops = { .invalidate = region_invalidate };

static struct region *region_make(struct kengine *k, unsigned long no)
{
	struct region *r = kzalloc(sizeof(*r), GFP_KERNEL_ACCOUNT);
	int err;

	if (!r)
		return NULL;
	r->k = k;
	err = mmu_interval_notifier_insert(&r->sub, k->mm, (u64)no << REGION_SHIFT,
					   1UL << REGION_SHIFT, &region_ops);
	if (err)
		goto err_free;
	err = xa_err(xa_store(&k->regions, no, r, GFP_KERNEL));
	if (err)
		goto err_remove;
	return r;
err_remove:
	mmu_interval_notifier_remove(&r->sub);
err_free:
	kfree(r);
	return NULL;
}

/*
 * Who serves a CPU's fault holds mmap_lock, which an insertion may want for itself. Of an address
 * space that is gone (a prefetch may come to it late) nothing can be watched.
 */
struct region *kregion_get(struct kengine *k, u64 va)
{
	struct region *r = xa_load(&k->regions, va >> REGION_SHIFT);

	if (r || kfault_here(k) || !mmget_not_zero(k->mm))
		return r;
	mutex_lock(&k->regions_lock);
	r = xa_load(&k->regions, va >> REGION_SHIFT);
	if (!r)
		r = region_make(k, va >> REGION_SHIFT);
	mutex_unlock(&k->regions_lock);
	mmput(k->mm);
	return r;
}

void kregions_end(struct kengine *k)
{
	struct region *r;
	unsigned long no;

	xa_for_each(&k->regions, no, r)
	{
		mmu_interval_notifier_remove(&r->sub);
		kfree(r);
	}
	xa_destroy(&k->regions);
}

/* Without memory for a subscription nothing is mapped: klook_changed(). */
u64 klook_begin(void *e, uint64_t va)
{
	struct region *r = kregion_get(e, va);

	return r ? mmu_interval_read_begin(&r->sub) : 0;
}

bool klook_changed(void *e, uint64_t va, uint64_t seq)
{
	struct kengine *k = e;
	struct region *r = xa_load(&k->regions, va >> REGION_SHIFT);

	return !r || mmu_interval_read_retry(&r->sub, seq);
}

/* ---- looking ---- */

/*
 * What there is, entry by entry, each as it was at some moment of the look. Whether it still holds
 * is asked where it counts: before a device maps it by klook_changed(), for a migration by what has
 * then been collected.
 *
 * It must not wait for changes to end, as mmu_interval_read_begin() does, which is for who holds
 * nothing. Who serves a CPU's fault has, from 6.15 on, the lock of the page's folio; and from 6.19
 * on a migration waits for the lock of a large folio that is mapped page by page, between the two
 * calls that bracket its change (migrate_vma_split_folio()): each would wait for the other. So
 * hmm_range_fault() gets a notifier that is not inserted anywhere. It knows of it whose memory is
 * meant and a number, and as nobody changes that the look is never begun again, and is bounded.
 */
void ksnapshot(struct kengine *k, u64 va, u64 end, unsigned long *pfns)
{
	struct hmm_range range = { .start = va,
				   .end = end,
				   .hmm_pfns = pfns,
				   .notifier = &k->looks,
				   .dev_private_owner = k };

	/* not mmap_assert_locked(): with CONFIG_DEBUG_VM that of 6.1 calls what is not exported */
	lockdep_assert_held(&k->mm->mmap_lock);
	memset(pfns, 0, (end - va) >> PAGE_SHIFT << 3);
	if (hmm_range_fault(&range))
		memset(pfns, 0, (end - va) >> PAGE_SHIFT << 3);
}

bool kvma_movable(struct vm_area_struct *vma)
{
	return !(vma->vm_flags & (VM_SHARED | VM_SPECIAL | VM_HUGETLB));
}

/* What a closed device has left is lost, or coherent memory that somebody had pinned: from then on
 * that is memory as any other, and its place no place of a device that has the number now. */
struct kdev *kpage_ours(const struct kengine *k, struct page *page)
{
	struct kdev *d;

	if (!is_device_private_page(page) && !is_device_coherent_page(page))
		return NULL;
	if (compat_page_pgmap(page)->owner != k)
		return NULL;
	d = kpage_device(page);
	return !READ_ONCE(d->drained) || kpage_lost(d, page) ? d : NULL;
}

static bool has_place(struct kdev *d, unsigned long pfn, struct kplace *ret)
{
	enum kind kind;

	for (kind = 0; kind < KINDS; kind++) {
		unsigned long no = pfn - d->first[kind];

		if (!d->pagemap[kind].nr_range || no >= d->npages)
			continue;
		*ret = (struct kplace){ .d = d, .no = no, .kind = kind };
		ret->lost = READ_ONCE(d->at[no]) & KPAGE_LOST;
		if (READ_ONCE(d->drained) && !ret->lost)
			ret->d = NULL;
		return true;
	}
	return false;
}

/*
 * By its number: what a snapshot names is neither locked nor referred to. It may have come free
 * since, and its device may end, for which its readers are waited for; and of a large folio that is
 * being split right now a struct page does not even say which pagemap it is of.
 */
struct kplace kpfn_place(const struct kengine *k, unsigned long pfn)
{
	struct page *page = pfn & HMM_PFN_VALID ? hmm_pfn_to_page(pfn) : NULL;
	struct kplace p = { 0 };
	struct kdev *d;
	unsigned int i;

	if (!page || !is_zone_device_page(page))
		return p;
	for (i = 1; i < MAX_DEVICES; i++) {
		d = READ_ONCE(k->dev[i]);
		if (d && has_place(d, page_to_pfn(page), &p))
			return p;
	}
	list_for_each_entry_srcu(d, &k->ended, link, srcu_read_lock_held(&kdevices_srcu))
	{
		if (has_place(d, page_to_pfn(page), &p))
			break;
	}
	return p;
}

/* neither a device's nor the zero page: by the frame, nothing more to be said of it */
static bool is_plain(unsigned long pfn)
{
	struct page *page = hmm_pfn_to_page(pfn);

	return !is_zone_device_page(page) && !is_zero_pfn(page_to_pfn(page));
}

/* Pages of one mapping, and of one block: what is mapped by a huge page is one folio */
unsigned int kpfns_alike(const struct kplace *p, bool anon, const unsigned long *pfns,
			 unsigned int n)
{
	unsigned int i = 1;

	if (!(pfns[0] & HMM_PFN_VALID)) {
		while (i < n && !(pfns[i] & HMM_PFN_VALID))
			i++;
	} else if (p->d) {
		n = min_t(unsigned long, n, p->d->npages - p->no);
		while (i < n && pfns[i] == pfns[0] + i &&
		       !!(READ_ONCE(p->d->at[p->no + i]) & KPAGE_LOST) == p->lost)
			i++;
	} else if (is_plain(pfns[0]) && hmm_pfn_to_map_order(pfns[0]) >= PMD_SHIFT - PAGE_SHIFT) {
		while (i < n && pfns[i] == pfns[0] + i)
			i++;
	} else if (is_plain(pfns[0]) && anon) {
		while (i < n && !((pfns[i] ^ pfns[0]) & HMM_PFN_FLAGS) && is_plain(pfns[i]))
			i++;
	}
	return i;
}

/* @n pages of a mapping or less, the first ones that are alike, as a run */
static void run_of(struct kengine *k, struct vm_area_struct *vma, u64 va, const unsigned long *pfns,
		   unsigned int n, struct engine_run *r)
{
	unsigned long pfn = pfns[0];
	struct kplace p = kpfn_place(k, pfn);

	n = kpfns_alike(&p, vma_is_anonymous(vma), pfns, n);
	*r = (struct engine_run){ .va = va, .len = (u64)n << PAGE_SHIFT, .addr = va, .mapped = 1 };
	r->perm = (vma->vm_flags & VM_READ ? BALUN_PERM_READ : 0) |
		  (vma->vm_flags & VM_WRITE ? BALUN_PERM_WRITE : 0);
	/* what the program cannot reach stays where it is */
	r->movable = kvma_movable(vma) && vma->vm_flags & VM_READ && (vma_is_anonymous(vma) || p.d);
	if (!(pfn & HMM_PFN_VALID)) {
		r->where = vma_is_anonymous(vma) ? ENGINE_NONE : ENGINE_SYSTEM;
		return;
	}
	r->where = ENGINE_SYSTEM;
	r->zero = is_zero_pfn(page_to_pfn(hmm_pfn_to_page(pfn)));
	r->huge = hmm_pfn_to_map_order(pfn) >= PMD_SHIFT - PAGE_SHIFT;
	/* written to, it becomes another page: shared since a fork, or a file's */
	r->shared = vma->vm_flags & VM_WRITE && !(vma->vm_flags & VM_SHARED) &&
		    !(pfn & HMM_PFN_WRITE) && !r->zero;
	if (!vma_is_anonymous(vma) && kvma_movable(vma))
		r->movable |= PageAnon(hmm_pfn_to_page(pfn));
	if (!p.d)
		return;
	r->where = p.lost ? ENGINE_LOST : ENGINE_DEVICE;
	r->dev = p.d->id;
	r->off = (u64)p.no << PAGE_SHIFT;
	r->cpu = p.kind == COHERENT;
}

static bool run_joins(const struct engine_run *a, const struct engine_run *b)
{
	return a->va + a->len == b->va && a->where == b->where && a->dev == b->dev &&
	       a->mapped == b->mapped && a->movable == b->movable && a->perm == b->perm &&
	       a->cpu == b->cpu && a->zero == b->zero && a->huge == b->huge &&
	       a->shared == b->shared && (a->where != ENGINE_DEVICE || a->off + a->len == b->off);
}

/* appends @r to the runs; false: there is no room */
static bool run_add(struct engine_run *run, int *n, int max, const struct engine_run *r)
{
	if (*n && run_joins(&run[*n - 1], r)) {
		run[*n - 1].len += r->len;
		return true;
	}
	if (*n == max)
		return false;
	run[(*n)++] = *r;
	return true;
}

/* mmap_lock held */
static int describe_locked(struct kengine *k, u64 va, u64 end, const unsigned long *pfns,
			   enum engine_detail detail, struct engine_run *run, int max)
{
	u64 block = va & ~(BALUN_BLOCK_SIZE - 1);
	struct vm_area_struct *vma = NULL;
	env_bits transit = { 0 };
	struct engine_run r;
	int n = 0;

	/* a device's fault takes it for a hole, and the page is waited for where it is touched */
	if (detail == DESCRIBE_ALL)
		ktransit_pages(k, block, transit);
	for (; va < end; va += r.len, pfns += r.len >> PAGE_SHIFT) {
		unsigned int i = (va - block) >> PAGE_SHIFT;
		bool busy = env_bit(transit, i);
		u64 to = min_t(u64, end, block + env_bits_next(transit, i, !busy) * PAGE_SIZE);

		if (!vma || va >= vma->vm_end)
			vma = find_vma(k->mm, va);
		if (vma && va >= vma->vm_start)
			run_of(k, vma, va, pfns, (min_t(u64, to, vma->vm_end) - va) >> PAGE_SHIFT,
			       &r);
		else
			r = (struct engine_run){
				.va = va, .len = (vma ? min_t(u64, to, vma->vm_start) : to) - va
			};
		if (busy)
			r.where = ENGINE_BUSY;
		if (!run_add(run, &n, max, &r))
			break;
	}
	return n;
}

/* of a block at the very end of the address space nothing is mapped that it does not hold */
int kdescribe(void *e, uint64_t va, uint64_t len, enum engine_detail detail, struct engine_run *run,
	      int n)
{
	u64 end = min_t(u64, va + len, (va & ~(BALUN_BLOCK_SIZE - 1)) + BALUN_BLOCK_SIZE);
	struct kengine *k = e;
	bool held = kfault_here(k), alive = held || mmget_not_zero(k->mm);
	unsigned long *pfns;
	int idx;

	if (!alive) { /* the process has ended */
		run[0] = (struct engine_run){ .va = va, .len = end - va };
		return 1;
	}
	if (!held)
		mmap_read_lock(k->mm);
	pfns = mempool_alloc(k->snapshots, GFP_KERNEL);
	idx = srcu_read_lock(&kdevices_srcu);
	ksnapshot(k, va, end, pfns);
	n = describe_locked(k, va, end, pfns, detail, run, n);
	srcu_read_unlock(&kdevices_srcu, idx);
	if (!held) {
		mmap_read_unlock(k->mm);
		mmput(k->mm);
	}
	mempool_free(pfns, k->snapshots);
	return n;
}

uint64_t knext_mapped(void *e, uint64_t va)
{
	struct kengine *k = e;
	bool held = kfault_here(k);
	struct vm_area_struct *vma;
	uint64_t next;

	if (!held && !mmget_not_zero(k->mm))
		return UINT64_MAX; /* the process has ended */
	if (!held)
		mmap_read_lock(k->mm);
	vma = find_vma(k->mm, va);
	next = vma ? max_t(u64, va, vma->vm_start) : UINT64_MAX;
	if (!held) {
		mmap_read_unlock(k->mm);
		mmput(k->mm);
	}
	return next;
}
