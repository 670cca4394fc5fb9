// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages whose device does not give them back, and where the pages of a device are, by the hints of
 * where they were put.
 */
#include <linux/sched/mm.h>

#include "engine/kernel/kernel.h"

bool kpage_lost(struct kdev *d, struct page *page)
{
	return READ_ONCE(d->at[kpage_no(d, page)]) & KPAGE_LOST;
}

/* lock held; false: it was lost already */
static bool lose(struct kdev *d, unsigned long no)
{
	if (d->at[no] & KPAGE_LOST)
		return false;
	WRITE_ONCE(d->at[no], d->at[no] | KPAGE_LOST);
	d->nlost++;
	return true;
}

void kpage_lose(struct kdev *d, struct page *page)
{
	unsigned long no = kpage_no(d, page), flags;

	spin_lock_irqsave(&d->lock, flags);
	lose(d, no);
	spin_unlock_irqrestore(&d->lock, flags);
}

/* all that is left but for coherent memory: returns how many pages */
unsigned long kdevice_lose(struct kdev *d)
{
	unsigned long no, n = 0;

	spin_lock_irq(&d->lock);
	for_each_set_bit(no, d->used, d->npages)
	{
		if (!test_bit(no, d->freed) && !(d->at[no] & KPAGE_COHERENT))
			n += lose(d, no);
	}
	spin_unlock_irq(&d->lock);
	return n;
}

/* mmap_lock held: no page in the range is freed or moved by who needs it for writing, but it may be
 * by others: a page that is lost while it leaves has come home */
static uint64_t poison_pages(struct kengine *k, unsigned int dev, const unsigned long *pfns,
			     unsigned int n)
{
	uint64_t lost = 0;
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct kplace p = kpfn_place(k, pfns[i]);
		unsigned long flags;

		if (!p.d || p.d->id != dev)
			continue;
		spin_lock_irqsave(&p.d->lock, flags);
		if (test_bit(p.no, p.d->used) && !test_bit(p.no, p.d->freed))
			lost += lose(p.d, p.no);
		spin_unlock_irqrestore(&p.d->lock, flags);
	}
	return lost;
}

uint64_t kpoison(void *e, unsigned int dev, uint64_t va, uint64_t len)
{
	struct kengine *k = e;
	bool held = kfault_here(k);
	unsigned long *pfns;
	uint64_t lost;
	int idx;

	if (!held && !mmget_not_zero(k->mm))
		return 0;
	if (!held)
		mmap_read_lock(k->mm);
	pfns = mempool_alloc(k->snapshots, GFP_KERNEL);
	idx = srcu_read_lock(&kdevices_srcu);
	ksnapshot(k, va, va + len, pfns);
	lost = poison_pages(k, dev, pfns, len >> PAGE_SHIFT);
	srcu_read_unlock(&kdevices_srcu, idx);
	if (!held) {
		mmap_read_unlock(k->mm);
		mmput(k->mm);
	}
	mempool_free(pfns, k->snapshots);
	return lost;
}

/* ---- all pages of a device, by the hints of where they are ---- */

/* the page with the lowest address from @va on whose lost bit is @lost; false: none */
static bool lowest(struct kdev *d, u64 va, bool lost, u64 *ret_va)
{
	unsigned long no;
	bool found = false;

	spin_lock_irq(&d->lock);
	for_each_set_bit(no, d->used, d->npages)
	{
		u64 at = d->at[no];

		if (test_bit(no, d->freed) || !!(at & KPAGE_LOST) != lost)
			continue;
		at &= KPAGE_ADDR;
		if (at >= va && (!found || at < *ret_va)) {
			*ret_va = at;
			found = true;
		}
	}
	spin_unlock_irq(&d->lock);
	return found;
}

static void lower(struct kdev *d, u64 va, bool lost, bool *found, u64 *ret_va)
{
	u64 at;

	if (!d || !lowest(d, va, lost, &at))
		return;
	if (!*found || at < *ret_va)
		*ret_va = at;
	*found = true;
}

static bool lowest_of(struct kengine *k, unsigned int dev, u64 va, bool lost, u64 *ret_va)
{
	bool found = false;
	struct kdev *d;
	unsigned int i;

	down_read(&k->devices);
	for (i = 1; i < MAX_DEVICES; i++)
		if (!dev || i == dev)
			lower(k->dev[i], va, lost, &found, ret_va);
	up_read(&k->devices);
	mutex_lock(&kdevices_ended_lock);
	list_for_each_entry(d, &k->ended, link) if (lost) lower(d, va, lost, &found, ret_va);
	mutex_unlock(&kdevices_ended_lock);
	return found;
}

/* a page that is not where it was put is a stray: kevict_strays() finds it */
static bool next_where(struct kengine *k, unsigned int dev, u64 va, enum engine_where where,
		       struct engine_run *ret)
{
	while (lowest_of(k, dev, va, where == ENGINE_LOST, &va)) {
		u64 left = BALUN_BLOCK_SIZE - (va & (BALUN_BLOCK_SIZE - 1));

		kdescribe(k, va, left, DESCRIBE_WHERE, ret, 1);
		if (ret->where == where && (!dev || ret->dev == dev))
			return true;
		va += ret->len; /* nor is what else was put in this run */
		cond_resched();
	}
	return false;
}

/* of a snapshot: notes where lost pages are */
static void note_lost(struct kengine *k, u64 va, const unsigned long *pfns, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct kplace p = kpfn_place(k, pfns[i]);
		u64 *at = p.d ? &p.d->at[p.no] : NULL;

		if (!p.d || !p.lost)
			continue;
		spin_lock_irq(&p.d->lock);
		if (*at & KPAGE_LOST) /* it may have come free since */
			WRITE_ONCE(*at, (va + i * PAGE_SIZE) | (*at & ~KPAGE_ADDR));
		spin_unlock_irq(&p.d->lock);
	}
}

/* the next part of a block, from *va on, that may have lost pages; false: there is none */
static bool next_part(struct kengine *k, u64 *va, u64 *ret_end)
{
	struct vm_area_struct *vma;

	mmap_read_lock(k->mm);
	for (vma = find_vma(k->mm, *va); vma && !kvma_movable(vma); vma = find_vma(k->mm, *va))
		*va = vma->vm_end;
	if (vma) {
		*va = max_t(u64, *va, vma->vm_start);
		*ret_end = min_t(u64, vma->vm_end, (*va | (BALUN_BLOCK_SIZE - 1)) + 1);
	}
	mmap_read_unlock(k->mm);
	return vma;
}

/* mremap() tells nobody where to: if there was one, pages that are lost may be anywhere */
static void search_lost(struct kengine *k)
{
	long now = atomic_long_read(&k->unmaps);
	unsigned long *pfns;
	u64 va = 0, end;
	int idx;

	if (now == READ_ONCE(k->searched) || !lowest_of(k, 0, 0, true, &va))
		return;
	WRITE_ONCE(k->searched, now);
	if (!mmget_not_zero(k->mm))
		return;
	for (va = 0; next_part(k, &va, &end); va = end) {
		kregion_get(k, va); /* where they are now mremap() is noticed too */
		mmap_read_lock(k->mm);
		pfns = mempool_alloc(k->snapshots, GFP_KERNEL); /* with the lock: kcollect() */
		idx = srcu_read_lock(&kdevices_srcu);
		ksnapshot(k, va, end, pfns);
		note_lost(k, va, pfns, (end - va) >> PAGE_SHIFT);
		srcu_read_unlock(&kdevices_srcu, idx);
		mmap_read_unlock(k->mm);
		mempool_free(pfns, k->snapshots);
		cond_resched();
	}
	mmput(k->mm);
}

bool knext_lost(void *e, uint64_t va, struct engine_run *ret)
{
	search_lost(e);
	return next_where(e, 0, va, ENGINE_LOST, ret);
}

bool knext_away(void *e, unsigned int dev, uint64_t va, struct engine_run *ret)
{
	return next_where(e, dev, va, ENGINE_DEVICE, ret);
}
