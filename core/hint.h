/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: hint.h - the hints and pins of a space, by range
 *
 * A sorted array of disjoint ranges with equal hints (neighbours merged), and a list of pins.
 * Addresses in whole pages. Has its own leaf lock.
 */
#ifndef BALUN_HINT_H
#define BALUN_HINT_H

#include "balun/balun.h"
#include "balun/policy.h"
#include "env/env.h"

struct hint_table;

struct hint {
	uint32_t flags;	      /* BALUN_HINT_* except ACCESSED_BY */
	uint32_t preferred;   /* device id or 0, with BALUN_HINT_PREFERRED */
	uint32_t accessed_by; /* bit per device id */
	uint32_t writes;      /* device writes seen in a read-mostly range */
};

/* after so many device writes read-mostly is switched off */
#define HINT_READ_MOSTLY_WRITES 16

struct hint_table *hint_create(void);
void hint_destroy(struct hint_table *t);
/* @advice as balun_advise(), not DISCARD; 0, -ENOMEM nothing changed, -EINVAL */
int hint_set(struct hint_table *t, uint64_t va, uint64_t len, enum balun_advice advice,
	     unsigned int dev);
void hint_get(struct hint_table *t, uint64_t va, struct hint *ret);
/* a device wrote at @va; true: the read-mostly hint of that range was switched off now */
bool hint_device_wrote(struct hint_table *t, uint64_t va);
/* a device is gone: forget hints that name it */
void hint_forget_device(struct hint_table *t, unsigned int dev);

int hint_pin(struct hint_table *t, uint64_t va, uint64_t len);	 /* 0 or -ENOMEM */
int hint_unpin(struct hint_table *t, uint64_t va, uint64_t len); /* 0 or -ENOENT */
/* bits of the block's pages that are pinned; returns whether any */
bool hint_pinned(struct hint_table *t, uint64_t block_va, uint64_t *ret_bits);
/* where the first pin at or after @va begins, UINT64_MAX: there is none */
uint64_t hint_next_pin(struct hint_table *t, uint64_t va);
uint64_t hint_bytes(struct hint_table *t);

#endif
