/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft_mmu.h - the MMU of the soft accelerator: page tables, TLBs, flushes
 *
 * One struct soft_mmu per device, one struct soft_pt per space. The lock is a leaf: under it only
 * table memory is allocated. Nothing here waits for a worker except balun_soft_mmu_sync(), and that
 * only while an access is under way, which never sleeps.
 */
#ifndef BALUN_SOFT_MMU_H
#define BALUN_SOFT_MMU_H

#include "balun/driver.h"
#include "balun/soft.h"
#include "env/env.h"

/* addresses that a page table has room for */
#define SOFT_VA_LIMIT (1ULL << 48)

/**
 * struct soft_unit - a worker as the MMU sees it
 * @w: what its functions see; first
 * @stream: last page translated for reading / writing: a miss right after it is a stream
 */
struct soft_unit {
	struct soft_worker w;
	uint64_t stream[2];
};

/**
 * struct soft_mmu - translation for one device
 * @lock: page tables, and every change of a tag
 * @mem: the device's private memory
 * @unit: the worker with index i; NULL ends the list
 * @spare: unused table nodes; @chunk: what they were cut from
 * @begun: flushes that took a tag from a worker; @done: of those, how many are known to be over
 */
struct soft_mmu {
	struct env_mutex lock;
	char *mem;
	struct soft_unit **unit;
	uint64_t *spare, *chunk;
	uint64_t begun, done;
};

/* page table of a space: four levels of 512 entries */
struct soft_pt {
	uint64_t *root;
};

void balun_soft_mmu_init(struct soft_mmu *m, void *mem, struct soft_unit **unit);
void balun_soft_mmu_fini(struct soft_mmu *m);

int balun_soft_pt_init(struct soft_mmu *m, struct soft_pt *pt); /* 0; -ENOMEM */
void balun_soft_pt_fini(struct soft_mmu *m, struct soft_pt *pt);

/* write entries; flushes what it replaces. 0; -ENOMEM: some may be written */
int balun_soft_mmu_map(struct soft_mmu *m, struct soft_pt *pt, const struct balun_seg *seg,
		       size_t n);
/* remove entries and tags of a range: from here on no worker begins an access through them */
void balun_soft_mmu_clear(struct soft_mmu *m, struct soft_pt *pt, uint64_t va, uint64_t len);
/* wait until the accesses that had begun before any earlier clear are over */
void balun_soft_mmu_sync(struct soft_mmu *m);

enum soft_fill {
	SOFT_HOLE,   /* no entry that allows it */
	SOFT_CACHED, /* the TLB has it now, or had: try again */
	SOFT_BUS,    /* system memory: *ret_addr */
};
/* a TLB miss of worker @u, on its own thread */
enum soft_fill balun_soft_mmu_fill(struct soft_mmu *m, struct soft_pt *pt, struct soft_unit *u,
				   uint64_t va, bool write, uint64_t *ret_addr);
/* worker @u, on its own thread and outside an access, forgets its translations */
void balun_soft_mmu_forget(struct soft_mmu *m, struct soft_unit *u);

#endif
