// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages taken home by what they are, wherever they are mapped: by another process since a fork, at
 * an address that they were moved to. migrate_device_range() needs neither an address space nor a
 * lock of one; devices that have such a page mapped lose their entries by the notifier.
 */
#include <linux/delay.h>
#include <linux/mm.h>

#include "core/core.h"
#include "engine/kernel/kernel.h"

#define TRIES 16 /* of a page whose copy fails, before it is lost */

static bool copy_one(struct kdev *d, struct page *from, struct page *to)
{
	u64 off = (u64)kpage_no(d, from) << PAGE_SHIFT;
	unsigned int i;

	for (i = 0; i < TRIES && !core_device_is_lost(d->k->space, d->id); i++)
		if (!core_read_device(d->k->space, d->id, off, page_address(to), PAGE_SIZE))
			return true;
	return false;
}

/*
 * A huge page, to a new one. Without one it stays: it is split only where it is mapped, by who
 * comes for a part of it. The same if a page of it cannot be read.
 */
static unsigned long copy_huge(struct kdev *d, struct page *page)
{
	unsigned int i, order = PMD_SHIFT - PAGE_SHIFT;
	struct folio *to = folio_alloc(GFP_TRANSHUGE | __GFP_RETRY_MAYFAIL, order);

	if (!to)
		return 0;
	for (i = 0; i < BLOCK_PAGES; i++) {
		if (!copy_one(d, page + i, folio_page(to, i))) {
			folio_put(to);
			return 0;
		}
		cond_resched();
	}
	folio_lock(to);
	folio_set_dirty(to); /* as in new_page() */
	return migrate_pfn(folio_pfn(to)) | COMPAT_PFN_COMPOUND;
}

/* 0: it stays; lost if *failed */
static unsigned long copy_page_home(struct kdev *d, struct page *page, bool *failed)
{
	struct page *to = alloc_page(GFP_HIGHUSER_MOVABLE);

	*failed = false;
	if (!to)
		return 0;
	if (!copy_one(d, page, to)) {
		*failed = true;
		kpage_lose(d, page);
		__free_page(to);
		return 0;
	}
	lock_page(to);
	SetPageDirty(to); /* as in new_page() */
	return migrate_pfn(page_to_pfn(to));
}

/* returns how many of them the device did not give back: those are lost */
unsigned int kcopy_home(struct kdev *d, unsigned long *src, unsigned long *dst, unsigned int n)
{
	unsigned int i, lost = 0;

	for (i = 0; i < n; i++) {
		struct page *page = migrate_pfn_to_page(src[i]);
		bool failed = false;

		dst[i] = 0;
		if (!page || !(src[i] & MIGRATE_PFN_MIGRATE) || kpage_lost(d, page))
			continue;
		if (src[i] & COMPAT_PFN_COMPOUND)
			dst[i] = copy_huge(d, page);
		else
			dst[i] = copy_page_home(d, page, &failed);
		lost += failed;
	}
	if (lost)
		core_strays_lost(d->k->space, d->id, lost);
	return lost;
}

/* from *no on, up to @end: the next places with pages of one kind that may be taken home; 0: none
 */
static unsigned int next_run(struct kdev *d, unsigned long *no, unsigned long end, enum kind *ret)
{
	const u64 not = KPAGE_LOST | KPAGE_NEW, kind = KPAGE_COHERENT;
	unsigned long i;

	spin_lock_irq(&d->lock);
	for (i = *no; i < end && (!test_bit(i, d->used) || d->at[i] & not ); i++)
		;
	*no = i;
	if (i < end)
		*ret = d->at[i] & kind ? COHERENT : PRIVATE;
	for (; i < end && test_bit(i, d->used) && !(d->at[i] & not ) &&
	       (d->at[i] & kind) == (d->at[*no] & kind);
	     i++)
		;
	spin_unlock_irq(&d->lock);
	return i - *no;
}

/* how many of @n places before the first whose page is pinned where it was put */
static unsigned int before_pinned(struct kdev *d, unsigned long no, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (core_is_pinned(d->k->space, READ_ONCE(d->at[no + i]) & KPAGE_ADDR))
			break;
	return i;
}

/* used places of [no, no + BLOCK_PAGES): no huge page reaches beyond */
static void evict_chunk(struct kdev *d, unsigned long no, bool pinned, struct ktransit *t)
{
	unsigned long end = min(no + BLOCK_PAGES, d->npages);
	unsigned int run, n;
	enum kind kind;

	for (; (run = next_run(d, &no, end, &kind)); no += max(n, 1u)) {
		n = pinned ? run : before_pinned(d, no, run);
		if (!n)
			continue;
		migrate_device_range(t->src, d->first[kind] + no, n);
		kcopy_home(d, t->src, t->dst, n);
		migrate_device_pages(t->src, t->dst, n);
		migrate_device_finalize(t->src, t->dst, n);
		kdevice_tell(d);
	}
}

/* pages in use that are not lost */
static unsigned long left(struct kdev *d)
{
	unsigned long n;

	spin_lock_irq(&d->lock);
	n = d->nused - d->nlost;
	spin_unlock_irq(&d->lock);
	return n;
}

/* The arrays are those of a transit. Whoever has the last one of the pool ends without us: nothing
 * waits here for mmap_lock. */
static void round_of(struct kdev *d, unsigned long want)
{
	struct ktransit *t = mempool_alloc(d->k->transits, GFP_KERNEL);
	unsigned long no, before = left(d);

	for (no = 0; no < d->npages && before - left(d) < want; no += BLOCK_PAGES)
		evict_chunk(d, no, want == UINT64_MAX, t);
	mempool_free(t, d->k->transits);
}

/* nothing can be read from the device any more: what is left is lost, and no fault is in progress
 * that does not know */
static void drain_end(struct kdev *d)
{
	unsigned long lost = kdevice_lose(d);

	if (lost)
		core_strays_lost(d->k->space, d->id, lost);
	/* whoever has taken a page of it before that core waits for, while the device is there */
	WRITE_ONCE(d->drained, true);
	wait_event_idle(d->idle, !READ_ONCE(d->faults));
}

/*
 * With @n UINT64_MAX the device is drained: pages that are locked or referred to for a moment are
 * come back to. A coherent page that somebody has pinned stays what it is, and the device's memory
 * with it, until that is over (kdevice_detach()); nothing is lost by that. Of the others none stays
 * as long as core waits for a device to drain, unless there is no memory for them.
 */
uint64_t kevict_strays(void *e, unsigned int dev, uint64_t n)
{
	struct kengine *k = e;
	struct kdev *d = k->dev[dev];
	u64 deadline = env_now_ns() + CORE_DRAIN_NS;
	unsigned long before, now;

	before = left(d);
	kdevice_tell(d); /* what is free already is enough, if it is @n */
	for (now = left(d); now && before - min(before, now) < n && env_now_ns() < deadline;
	     now = left(d)) {
		round_of(d, n);
		if (n != UINT64_MAX)
			break;
		if (left(d) == now)
			msleep(1);
		else
			deadline = env_now_ns() + CORE_DRAIN_NS;
	}
	now = left(d);
	if (n == UINT64_MAX)
		drain_end(d);
	return before - min(before, now);
}
