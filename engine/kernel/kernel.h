/* SPDX-License-Identifier: GPL-2.0-only */
/**
 * DOC: kernel.h - the engine over the kernel's own HMM
 *
 * The kernel's page tables are the only record of where a page is: a page on a device is a
 * device-private (or coherent) page of the device's dev_pagemap. Beside them this engine keeps, for
 * each such page, where the page was put last (a hint, see struct kdev), and nothing else.
 *
 *   mirror.c   subscriptions to changes of the address space, and looking at it
 *   device.c   the pages of a device: made, freed, ended
 *   lost.c     those that it does not give back; and where its pages are
 *   coherent.c memory that CPUs and devices address: ranges of the machine that no program has
 *   migrate.c  collect and commit over migrate_vma_*()
 *   fault.c    a CPU touches a page of a device
 *   strays.c   pages taken home by what they are, not by where they are mapped
 *   place.c    accesses in place
 *   peer.c     device memory that other devices reach by DMA
 *   ioctl.c    /dev/balun: what programs call; calls.c (ioctl.h)
 *   engine.c   a space's beginning and end, the ops table; module.c: the module's; export.c
 *
 * Lock order, outermost first: mmap_lock > core's mirror locks > what drivers take in unmap().
 * regions_lock is not held with any of them, except that an insertion takes mmap_lock inside.
 */
#ifndef BALUN_ENGINE_KERNEL_H
#define BALUN_ENGINE_KERNEL_H

#include <linux/hmm.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mempool.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "core/engine.h"
#include "engine/kernel/compat/compat.h"

#define REGION_SHIFT  30 /* of the address space that one subscription covers: see mirror.c */
#define BLOCK_PAGES   BALUN_BLOCK_PAGES
#define MAX_DEVICES   (BALUN_MAX_DEVICES + 1)
#define SNAPSHOT_SIZE (BLOCK_PAGES * sizeof(unsigned long))

/**
 * struct region - a subscription to the changes of a part of the address space
 */
struct region {
	struct mmu_interval_notifier sub;
	struct kengine *k;
};

/*
 * The pages of a device, by how a program has them: PRIVATE ones no CPU addresses; COHERENT ones
 * are mapped. A device with coherent memory has both for each place: a page that is held for atomic
 * access is a private one.
 */
enum kind {
	PRIVATE,
	COHERENT,
	KINDS
};

/**
 * struct kdev - a device's memory as pages
 * @pagemap: the pages; owner: the engine, so that all devices of a space can be told from others'.
 *           nr_range is 0 where there are none
 * @first: page frame of offset 0
 * @host: the coherent memory, which is not given back before all its pages are free; or NULL
 * @used: a bit for each page that core has given a place to and that has not come free since
 * @freed: a bit for each page that the kernel has let go of, and core has not been told of yet:
 *         the kernel does so in any context, and core takes locks. @nfreed of them, none before
 *         @freed_from
 * @at: where each used page was put (KPAGE_*): a hint, for mremap() tells nobody
 * @dma: the struct device whose DMA copies, or NULL
 * @bar, @bar_device: where other devices' DMA finds the memory, and of which struct device; NULL:
 *                    nowhere
 * @asked, @reached: devices, a bit each: whether their DMA reaches it, once that was asked
 * @lock: of @at, @used, @freed and the counts together; may be taken in any context
 * @drained: all that could come home has; what is left, and not lost, is memory as any other
 * @ended: the device is closed, and pages of it are left: they stay until they are unmapped
 * @split: a huge page that is to be split, at @split_va of @split_mm; one at a time (@splitting).
 *         @split_waits: it has not got mmap_lock yet, since @split_since (jiffies)
 */
struct kdev {
	struct kengine *k;
	struct list_head link; /* in the engine's @ended, which kdevices_srcu's readers walk */
	unsigned int id;
	bool drained, ended;
	unsigned long npages, first[KINDS];
	struct dev_pagemap pagemap[KINDS];
	struct resource *res;
	void *host;
	struct device *dma, *bar_device;
	void *bar;
	unsigned long asked, reached;
	spinlock_t lock;
	unsigned long *used, *freed;
	u64 *at;
	unsigned long nused, nlost, nfreed, freed_from;
	unsigned int faults;	/* of CPUs in progress, on pages that were not lost */
	wait_queue_head_t idle; /* faults became 0 */
	struct mutex told_lock; /* one at a time tells core */
	struct work_struct work, split;
	struct mm_struct *split_mm;
	u64 split_va;
	unsigned long split_since;
	bool splitting, split_waits;
};

/**
 * struct kplace - a page of a snapshot, as a place of a device
 * @d: the device, inside of kdevices_srcu; NULL: it is none of ours
 */
struct kplace {
	struct kdev *d;
	unsigned long no;
	enum kind kind;
	bool lost;
};

/* in kdev.at: the page's address, and in its low bits: */
#define KPAGE_LOST     1UL /* its content is lost: a touch is SIGBUS */
#define KPAGE_COHERENT 2UL /* it is the coherent one of its place */
#define KPAGE_NEW      4UL /* taken, and nothing has moved to it yet */
#define KPAGE_ADDR     (~(u64)(PAGE_SIZE - 1))

/**
 * struct kfault - a CPU's fault that this task serves: mmap_lock is held already, and only pages of
 * the faulting mapping can be moved
 */
struct kfault {
	struct list_head link;
	struct task_struct *task;
	struct vm_fault *vmf;
};

struct kengine {
	struct balun_space *space;
	struct mm_struct *mm; /* mmgrab: the structure lives, the address space may be gone */
	struct mutex regions_lock;
	struct xarray regions;
	struct mmu_interval_notifier looks; /* never inserted: ksnapshot() */
	spinlock_t faults_lock;
	struct list_head faults;
	mempool_t *snapshots; /* SNAPSHOT_SIZE each: a look must not fail */
	mempool_t *transits;
	struct rw_semaphore devices; /* dev[], where core does not keep the device */
	spinlock_t transit_lock;     /* of the list; leaf */
	struct list_head transits_now;
	atomic_t commits; /* in progress: each tells core in the end of what has come free */
	struct kdev *dev[MAX_DEVICES];
	atomic_long_t unmaps;	/* of what is watched: mremap() says no more than that */
	long searched;		/* unmaps when lost pages were searched for last */
	struct list_head ended; /* closed, and pages are left: kdevices_ended_lock */
};

/* pages [first, first + n) of the block, all in one mapping: one migrate_vma */
struct ksub {
	u16 first, n;
};

/**
 * struct ktransit - a batch between collect and commit: mmap_lock is held for reading meanwhile
 * @whole: the block was collected as one: src[0] stands for all of it, a huge page or a hole, and
 *         dst[0] too, with COMPAT_PFN_COMPOUND, or nothing of it goes
 */
struct ktransit {
	struct list_head link; /* in the engine's @transits_now */
	u64 va;
	env_bits pages;	      /* of the block at @va, in transit */
	struct kfault *fault; /* whose mmap_lock it is; NULL: our own */
	bool whole;
	unsigned int nsubs;
	struct ksub sub[BLOCK_PAGES];
	unsigned long src[BLOCK_PAGES], dst[BLOCK_PAGES];
};

/* mirror.c */
struct region *kregion_get(struct kengine *k, u64 va); /* makes it; NULL: no memory */
u64 klook_begin(void *e, uint64_t va);
bool klook_changed(void *e, uint64_t va, uint64_t seq);
void kregions_end(struct kengine *k);
int kdescribe(void *e, uint64_t va, uint64_t len, enum engine_detail detail, struct engine_run *run,
	      int n);
uint64_t knext_mapped(void *e, uint64_t va);
/* @pfns: what the page table has for [va, end); mmap_lock held. Waits for nobody */
void ksnapshot(struct kengine *k, u64 va, u64 end, unsigned long *pfns);
/* private memory of the program: what may move, if it is there */
bool kvma_movable(struct vm_area_struct *vma);
/* whose page it is, if it is ours: of one that is locked */
struct kdev *kpage_ours(const struct kengine *k, struct page *page);
/* of a snapshot; inside of kdevices_srcu */
struct kplace kpfn_place(const struct kengine *k, unsigned long pfn);
/* how many of @n entries of a snapshot are as the first, whose place is @p: of a device the next
 * pages, or all nothing, or all system memory. @anon: the mapping is anonymous; kdevices_srcu */
unsigned int kpfns_alike(const struct kplace *p, bool anon, const unsigned long *pfns,
			 unsigned int n);

/* device.c */
extern struct srcu_struct kdevices_srcu; /* no device is freed, nor its pages, in its read side */
/* of all engines' lists of ended devices: these may outlive the engine */
extern struct mutex kdevices_ended_lock;
int kdevices_init(void);
void kdevices_exit(void);
int kdevice_attach(void *e, unsigned int dev, struct balun_desc *desc);
void kdevice_detach(void *e, unsigned int dev);
void kdevices_forget(struct kengine *k); /* the engine ends before the pages of lost devices do */
/* @n pages for [@va, ...), from @no on, for migrate_vma.dst: locked, one reference; @hold: the
 * private ones also of a coherent device */
void kpages_take(struct kdev *d, unsigned long no, unsigned int n, u64 va, bool hold,
		 unsigned long *dst);
struct page *kpage_take_huge(struct kdev *d, unsigned long no, u64 va); /* its first page */
void kpages_settle(struct kdev *d, unsigned long no,
		   unsigned int n); /* something has moved there */
void kdevice_tell(struct kdev *d);  /* core of what has come free */
void kdevices_tell(struct kengine *k);
/* a CPU's fault on a page that is not lost; false: it is. Until leave the device does not end */
bool kdevice_enter(struct kdev *d, struct page *page);
void kdevice_leave(struct kdev *d);
void kdevice_split(struct kdev *d, struct mm_struct *mm, u64 va); /* a huge page, soon */
static inline enum kind kpage_kind(struct page *page)
{
	return is_device_coherent_page(page) ? COHERENT : PRIVATE;
}
static inline struct kdev *kpage_device(struct page *page)
{
	return container_of(compat_page_pgmap(page), struct kdev, pagemap[kpage_kind(page)]);
}
static inline unsigned long kpage_no(const struct kdev *d, struct page *page)
{
	return page_to_pfn(page) - d->first[kpage_kind(page)];
}
/* of the place @no, if it is used: its page */
static inline struct page *kplace_page(const struct kdev *d, unsigned long no)
{
	return pfn_to_page(d->first[d->at[no] & KPAGE_COHERENT ? COHERENT : PRIVATE] + no);
}
/* of the pages that are taken */
static inline enum kind kdevice_kind(const struct kdev *d, bool hold)
{
	return !hold && d->pagemap[COHERENT].nr_range ? COHERENT : PRIVATE;
}
static inline bool kdevice_has_pages(const struct kdev *d, bool hold)
{
	return d->pagemap[kdevice_kind(d, hold)].nr_range;
}

/* lost.c */
unsigned long kdevice_lose(struct kdev *d); /* what it has not given back; how many pages */
bool kpage_lost(struct kdev *d, struct page *page);
void kpage_lose(struct kdev *d, struct page *page);
uint64_t kpoison(void *e, unsigned int dev, uint64_t va, uint64_t len);
bool knext_lost(void *e, uint64_t va, struct engine_run *ret);
bool knext_away(void *e, unsigned int dev, uint64_t va, struct engine_run *ret);

/* coherent.c */
/* the physical address of what env_coherent_alloc() gave; it stays reserved until it is put */
bool kcoherent_get(void *p, u64 *ret_phys);
void kcoherent_put(void *p);

/* migrate.c */
int kcollect(void *e, struct engine_batch *b);
void kcommit(void *e, struct engine_batch *b);
/* adds the pages of the block at @va that are in transit: for who wants to know, not to wait */
void ktransit_pages(struct kengine *k, u64 va, u64 *pages);
void kdiscard(void *e, uint64_t va, uint64_t len);

/* fault.c */
struct kfault *kfault_here(struct kengine *k); /* NULL: this task serves none */
vm_fault_t kmigrate_to_ram(struct vm_fault *vmf);
void ksplit(struct work_struct *w); /* of kdev.split */
void ksplit_cut(struct kengine *k); /* huge pages of which parts are unmapped; no lock held */

/* strays.c */
uint64_t kevict_strays(void *e, unsigned int dev, uint64_t n);
/* @n collected pages of @d, from @src to new ones; mmap_lock need not be held */
unsigned int kcopy_home(struct kdev *d, unsigned long *src, unsigned long *dst, unsigned int n);

/* place.c */
int kbus_read(void *e, uint64_t addr, void *buf, size_t len);
int kbus_write(void *e, uint64_t addr, const void *buf, size_t len);
int kunshare(void *e, uint64_t va, uint64_t len);

/* peer.c */
void kpeer_attach(struct kdev *d, const struct balun_desc *desc); /* before core knows of it */
int kpeer_map(void *e, unsigned int dev, uint64_t off, uint64_t len, unsigned int client,
	      bool write, struct engine_peer *ret_peer);
void kpeer_unmap(void *e, struct engine_peer *peer);

/* ioctl.c: when core can be called, until nobody has the node open (the module's count) */
int knode_init(void);
void knode_exit(void);

#endif
