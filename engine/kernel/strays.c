// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages taken home by what they are, wherever they are mapped: by another process since a fork, at
 * an address that they were moved to. migrate_device_pfns() needs neither an address space nor a
 * lock of one; devices that have such a page mapped lose their entries by the notifier.
 */
#include <linux/delay.h>
#include <linux/mm.h>

#include "core/core.h"
#include "engine/kernel/kernel.h"

#define CHUNK 16 /* three arrays of it on the stack, with what KASAN puts around them */
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

/* returns how many of them the device did not give back: those are lost */
unsigned int kcopy_home(struct kdev *d, unsigned long *src, unsigned long *dst, unsigned int n)
{
	unsigned int i, failed = 0;

	for (i = 0; i < n; i++) {
		struct page *page = migrate_pfn_to_page(src[i]), *to;

		dst[i] = 0;
		if (!page || !(src[i] & MIGRATE_PFN_MIGRATE) || kpage_lost(d, page))
			continue;
		to = alloc_page(GFP_HIGHUSER_MOVABLE);
		if (!to)
			continue;
		if (!copy_one(d, page, to)) {
			kpage_lose(d, page);
			failed++;
			__free_page(to);
			continue;
		}
		lock_page(to);
		SetPageDirty(to); /* as in new_page() */
		dst[i] = migrate_pfn(page_to_pfn(to));
	}
	if (failed)
		core_strays_lost(d->k->space, d->id, failed);
	return failed;
}

/* of used places, those whose page is not pinned where it was put; returns how many */
static unsigned int drop_pinned(struct kdev *d, unsigned long *src, const u64 *at, unsigned int n)
{
	unsigned int i, left = 0;

	for (i = 0; i < n; i++)
		if (!core_is_pinned(d->k->space, at[i] & KPAGE_ADDR))
			src[left++] = src[i];
	return left;
}

/* used places of [no, no + CHUNK) */
static void evict_chunk(struct kdev *d, unsigned long no, bool pinned)
{
	unsigned long src[CHUNK], dst[CHUNK] = { 0 }, end = min(no + CHUNK, d->npages);
	unsigned int n = 0;
	u64 at[CHUNK];

	spin_lock_irq(&d->lock);
	for_each_set_bit_from(no, d->used, end)
	{
		if (d->at[no] & (KPAGE_LOST | KPAGE_NEW))
			continue;
		at[n] = d->at[no];
		src[n++] = page_to_pfn(kplace_page(d, no));
	}
	spin_unlock_irq(&d->lock);
	if (!pinned)
		n = drop_pinned(d, src, at, n);
	if (!n)
		return;
	compat_migrate_device_pfns(src, n);
	kcopy_home(d, src, dst, n);
	migrate_device_pages(src, dst, n);
	migrate_device_finalize(src, dst, n);
	kdevice_tell(d);
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

static void round_of(struct kdev *d, unsigned long want)
{
	unsigned long no, before = left(d);

	for (no = 0; no < d->npages && before - left(d) < want; no += CHUNK)
		evict_chunk(d, no, want == UINT64_MAX);
}

/* nothing can be read from the device any more: what is left is lost, and no fault is in progress
 * that does not know */
static void drain_end(struct kdev *d)
{
	unsigned long lost = kdevice_lose(d);

	if (lost)
		core_strays_lost(d->k->space, d->id, lost);
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
