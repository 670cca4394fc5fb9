// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory of a device as pages of the kernel: made when the device is attached, handed out place
 * by place, and told of to core when the kernel lets go of one.
 *
 * A page is free (no reference, bit in used clear), taken (used), or freed: the kernel has dropped
 * its last reference, in whatever context, and core has not been told yet. Only core gives a place
 * out again, so a page is not taken before core was told. Nor is one to which nothing moved, for an
 * eviction may have a reference for a moment (evict_chunk()).
 *
 * The struct lives until the last page has come free and was told of: who has a page of it, as a
 * CPU's fault has, may use it. The engine's table of devices is read with k->devices.
 */
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "engine/kernel/kernel.h"

DEFINE_SRCU(kdevices_srcu);
static struct workqueue_struct *work_queue;

int kdevices_init(void)
{
	work_queue = alloc_workqueue("balun", WQ_UNBOUND, 0);
	return work_queue ? 0 : -ENOMEM;
}

/* the work that gives up the module's last reference ends before the module's text does */
void kdevices_exit(void)
{
	destroy_workqueue(work_queue);
}

/* the kernel has dropped the last reference; any context */
static void page_is_free(compat_freed_t *freed)
{
	unsigned long no, n = compat_freed_pages(freed), flags;
	struct page *page = compat_freed_page(freed);
	struct kdev *d = kpage_device(page);

	no = kpage_no(d, page);
	spin_lock_irqsave(&d->lock, flags);
	WARN_ON_ONCE(!test_bit(no, d->used));
	bitmap_set(d->freed, no, n);
	d->nfreed += n;
	d->freed_from = min(d->freed_from, no);
	/* Who commits tells of it when it is done, and says that it is before it takes the lock
	 * for that. A device that has ended is not on its list; nor is its engine there. */
	if (d->ended || !atomic_read(&d->k->commits))
		queue_work(work_queue, &d->work);
	spin_unlock_irqrestore(&d->lock, flags);
}

static const struct dev_pagemap_ops pagemap_ops = {
	.COMPAT_FREED = page_is_free,
	.migrate_to_ram = kmigrate_to_ram,
};

/* ---- taking and freeing ---- */

/* core has given the places out; @at: the first page's kdev.at */
static void places_take(struct kdev *d, unsigned long no, unsigned int n, u64 at)
{
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&d->lock, flags);
	WARN_ON_ONCE(find_next_bit(d->used, no + n, no) < no + n);
	bitmap_set(d->used, no, n);
	d->nused += n;
	for (i = 0; i < n; i++)
		d->at[no + i] = at + i * PAGE_SIZE;
	spin_unlock_irqrestore(&d->lock, flags);
}

void kpages_take(struct kdev *d, unsigned long no, unsigned int n, u64 va, bool hold,
		 unsigned long *dst)
{
	enum kind kind = kdevice_kind(d, hold);
	unsigned long first = d->first[kind] + no;
	unsigned int i;

	places_take(d, no, n, va | KPAGE_NEW | (kind == COHERENT ? KPAGE_COHERENT : 0));
	for (i = 0; i < n; i++) {
		compat_zone_device_page_init(pfn_to_page(first + i), &d->pagemap[kind], 0);
		dst[i] = migrate_pfn(first + i);
	}
}

struct page *kpage_take_huge(struct kdev *d, unsigned long no, u64 va)
{
	struct page *page = pfn_to_page(d->first[PRIVATE] + no);

	places_take(d, no, BLOCK_PAGES, va | KPAGE_NEW);
	compat_zone_device_page_init(page, &d->pagemap[PRIVATE], PMD_SHIFT - PAGE_SHIFT);
	return page;
}

void kpages_settle(struct kdev *d, unsigned long no, unsigned int n)
{
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	for (; n; n--, no++)
		WRITE_ONCE(d->at[no], d->at[no] & ~KPAGE_NEW);
	spin_unlock_irqrestore(&d->lock, flags);
}

bool kdevice_enter(struct kdev *d, struct page *page)
{
	unsigned long flags;
	bool lost;

	spin_lock_irqsave(&d->lock, flags);
	lost = d->at[kpage_no(d, page)] & KPAGE_LOST;
	d->faults += !lost;
	spin_unlock_irqrestore(&d->lock, flags);
	return !lost;
}

void kdevice_leave(struct kdev *d)
{
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	if (!--d->faults)
		wake_up_all(&d->idle);
	spin_unlock_irqrestore(&d->lock, flags);
}

void kdevice_split(struct kdev *d, struct mm_struct *mm, u64 va)
{
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	if (!d->splitting) {
		d->splitting = true;
		d->split_waits = true;
		d->split_since = jiffies;
		mmgrab(mm);
		d->split_mm = mm;
		d->split_va = va;
		queue_work(work_queue, &d->split);
	}
	spin_unlock_irqrestore(&d->lock, flags);
}

/*
 * Takes the next run of freed pages that were one after the other: returns how many, 0: none.
 * *ret_at: the address, and KPAGE_NEW where no page has moved to
 */
static unsigned long next_freed(struct kdev *d, unsigned long *ret_no, u64 *ret_at)
{
	const u64 same = KPAGE_ADDR | KPAGE_NEW;
	unsigned long no, end, n = 0;

	spin_lock_irq(&d->lock);
	if (!d->nfreed)
		goto unlock;
	no = find_next_bit(d->freed, d->npages, d->freed_from);
	end = find_next_zero_bit(d->freed, d->npages, no);
	*ret_no = no;
	*ret_at = d->at[no] & same;
	for (; no + n < end && (d->at[no + n] & same) == *ret_at + n * PAGE_SIZE; n++) {
		d->nlost -= d->at[no + n] & KPAGE_LOST ? 1 : 0;
		d->at[no + n] = 0;
	}
	bitmap_clear(d->freed, no, n);
	bitmap_clear(d->used, no, n);
	d->nused -= n;
	d->nfreed -= n;
	d->freed_from = d->nfreed ? no + n : d->npages;
unlock:
	spin_unlock_irq(&d->lock);
	return n;
}

static void tell(struct kdev *d)
{
	unsigned long no, n;
	u64 at;

	while ((n = next_freed(d, &no, &at))) {
		u64 off = (u64)no << PAGE_SHIFT, len = (u64)n << PAGE_SHIFT;

		if (d->ended)
			continue;
		if (at & KPAGE_NEW)
			core_release_place(d->k->space, d->id, off, len);
		else
			core_release(d->k->space, d->id, at, off, len);
	}
}

void kdevice_tell(struct kdev *d)
{
	mutex_lock(&d->told_lock);
	tell(d);
	mutex_unlock(&d->told_lock);
}

void kdevices_tell(struct kengine *k)
{
	unsigned int i;

	down_read(&k->devices);
	for (i = 1; i < MAX_DEVICES; i++)
		if (k->dev[i])
			kdevice_tell(k->dev[i]);
	up_read(&k->devices);
}

/* ---- the end ---- */

DEFINE_MUTEX(kdevices_ended_lock);

static void device_free(struct kdev *d)
{
	int i;

	mutex_lock(&kdevices_ended_lock);
	list_del_rcu(&d->link);
	mutex_unlock(&kdevices_ended_lock);
	synchronize_srcu(&kdevices_srcu); /* a snapshot may have seen a page that is free by now */
	flush_work(&d->split);		  /* its page is gone, it may not be */
	for (i = 0; i < KINDS; i++)
		if (d->pagemap[i].nr_range)
			memunmap_pages(&d->pagemap[i]);
	if (d->res)
		release_mem_region(d->res->start, resource_size(d->res));
	if (d->host)
		kcoherent_put(d->host);
	env_free(d->at);
	env_free(d->freed);
	env_free(d->used);
	kfree(d);
	module_put(THIS_MODULE);
}

static void device_work(struct work_struct *w)
{
	struct kdev *d = container_of(w, struct kdev, work);
	bool gone;

	kdevice_tell(d);
	spin_lock_irq(&d->lock);
	gone = d->ended && !d->nused; /* the last page of a device that is closed was unmapped */
	spin_unlock_irq(&d->lock);
	if (!gone)
		return;
	cancel_work(&d->work); /* of a page that was told of here already */
	device_free(d);
}

/*
 * All that could come home has; what is left is lost, or coherent memory that somebody has pinned,
 * and stays until the program unmaps it: a touch of what is lost must find who says SIGBUS. Where
 * nothing is left the device is gone on return, and what it had is there for the next one.
 */
void kdevice_detach(void *e, unsigned int dev)
{
	struct kengine *k = e;
	struct kdev *d = k->dev[dev];
	bool last;

	/* a page that is left is found in either of them */
	mutex_lock(&kdevices_ended_lock);
	list_add_tail_rcu(&d->link, &k->ended);
	mutex_unlock(&kdevices_ended_lock);
	down_write(&k->devices);
	WRITE_ONCE(k->dev[dev], NULL);
	up_write(&k->devices);
	mutex_lock(&d->told_lock);
	tell(d);
	spin_lock_irq(&d->lock);
	last = !d->nused; /* and nobody takes one any more */
	if (!last) {
		d->nused++; /* ours, so that the work does not free it yet */
		d->ended = true;
	}
	spin_unlock_irq(&d->lock);
	mutex_unlock(&d->told_lock);
	if (last) {
		/* for a page that was told of here; it has not seen ended */
		cancel_work_sync(&d->work);
		device_free(d);
		return;
	}
	spin_lock_irq(&d->lock);
	d->nused--;
	queue_work(work_queue, &d->work);
	spin_unlock_irq(&d->lock);
}

void kdevices_forget(struct kengine *k)
{
	struct kdev *d, *next;

	mutex_lock(&kdevices_ended_lock);
	list_for_each_entry_safe(d, next, &k->ended, link) list_del_init(&d->link);
	mutex_unlock(&kdevices_ended_lock);
}

/* ---- the beginning ---- */

static int make_pages(struct kdev *d, enum kind kind, u64 start, u64 bytes)
{
	struct dev_pagemap *m = &d->pagemap[kind];
	void *p;

	m->type = kind == COHERENT ? MEMORY_DEVICE_COHERENT : MEMORY_DEVICE_PRIVATE;
	m->range.start = start;
	m->range.end = start + bytes - 1;
	m->nr_range = 1;
	m->ops = &pagemap_ops;
	m->owner = d->k;
	p = memremap_pages(m, numa_node_id());
	if (IS_ERR(p)) {
		m->nr_range = 0;
		return PTR_ERR(p);
	}
	d->first[kind] = PHYS_PFN(start);
	return 0;
}

/* Addresses that no memory has stand for the pages. The kernel makes them by the 2 MiB: those
 * beyond the device's memory nobody takes */
static int make_private(struct kdev *d, u64 bytes)
{
	if (!COMPAT_DEVICE_PRIVATE)
		return 0;
	bytes = ALIGN(bytes, BALUN_BLOCK_SIZE);
	d->res = compat_request_free_mem_region(bytes, "balun");
	if (IS_ERR(d->res)) {
		d->res = NULL;
		return -ENOMEM;
	}
	return make_pages(d, PRIVATE, d->res->start, bytes);
}

static int make_coherent(struct kdev *d, struct balun_desc *desc)
{
	u64 phys;

	if (!(desc->caps & BALUN_CAP_COHERENT) || !kcoherent_get(desc->host_base, &phys)) {
		desc->caps &= ~BALUN_CAP_COHERENT;
		return 0;
	}
	d->host = desc->host_base;
	return make_pages(d, COHERENT, phys, desc->mem_bytes);
}

/*
 * What is moved is copied by the driver: that its memory is the host's helps nobody here. Without
 * CONFIG_DEVICE_PRIVATE there are no private pages, and a device that has no coherent memory uses
 * everything in place.
 */
int kdevice_attach(void *e, unsigned int dev, struct balun_desc *desc)
{
	unsigned long npages = desc->mem_bytes >> PAGE_SHIFT;
	struct kdev *d = kzalloc(sizeof(*d), GFP_KERNEL);
	struct kengine *k = e;
	int err = -ENOMEM;

	if (!d)
		return -ENOMEM;
	__module_get(THIS_MODULE);
	d->k = k;
	INIT_LIST_HEAD(&d->link);
	d->id = dev;
	d->npages = d->freed_from = npages;
	spin_lock_init(&d->lock);
	mutex_init(&d->told_lock);
	init_waitqueue_head(&d->idle);
	INIT_WORK(&d->work, device_work);
	INIT_WORK(&d->split, ksplit);
	/* the size comes from the program, as that of the device's memory */
	d->used = env_alloc(BITS_TO_LONGS(npages) * sizeof(long));
	d->freed = env_alloc(BITS_TO_LONGS(npages) * sizeof(long));
	d->at = env_alloc(npages * sizeof(*d->at));
	if (d->used && d->freed && d->at)
		err = make_private(d, desc->mem_bytes);
	if (!err)
		err = make_coherent(d, desc);
	if (err) {
		env_reason("no memory, or no addresses, for %lu pages of a device", npages);
		device_free(d);
		return err;
	}
	if (!d->host)
		desc->caps &= ~BALUN_CAP_HOST_MEMORY;
	kpeer_attach(d, desc);
	down_write(&k->devices);
	smp_store_release(&k->dev[dev], d); /* kpfn_place() */
	up_write(&k->devices);
	return 0;
}
