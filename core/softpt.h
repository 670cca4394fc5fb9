/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: softpt.h - the software page table that engines without one of their own share
 *
 * Remembers which pages are away (device, offset) and which are in transit. Blocks of 2 MiB under
 * three levels of 4 KiB nodes; per block two bitmaps and 32 unit words: a 64 KiB unit whose away
 * pages lie in natural order in one device's memory costs 4 bytes, a fragmented one 64 more. A
 * dense range costs about 0.7 bytes per page. Addresses below 2^47.
 *
 * The caller locks; env_alloc() is the only thing called. Everything that may allocate says so.
 */
#ifndef BALUN_SOFTPT_H
#define BALUN_SOFTPT_H

#include "env/env.h"

#define SOFTPT_VA_BITS 47

struct softpt;

/* a place on a device: index 1..15 and page number below 2^28 */
#define SOFTPT_PLACE(dev, pgno) ((uint32_t)(dev) << 28 | (uint32_t)(pgno))
#define SOFTPT_DEV(place)	((place) >> 28)
#define SOFTPT_PGNO(place)	((place)&0xfffffffu)

struct softpt *softpt_create(void); /* NULL: no memory */
void softpt_destroy(struct softpt *pt);
uint64_t softpt_bytes(const struct softpt *pt); /* memory it uses */

struct softpt_run {
	uint64_t va, len;
	uint32_t place; /* of the first page; nonzero only if away */
	bool away, busy;
};
/*
 * The run that starts at @va: pages with equal (away, busy) and contiguous place, at most @len.
 * May cross blocks. Never allocates.
 */
void softpt_run(const struct softpt *pt, uint64_t va, uint64_t len, struct softpt_run *ret);
/* the pages of a block that are away and not busy */
void softpt_away_bits(const struct softpt *pt, uint64_t block, uint64_t *ret_bits);
/* next run at or after @va and below @end with away (or busy) pages; false: none */
bool softpt_next_away(const struct softpt *pt, uint64_t va, uint64_t end, struct softpt_run *ret);
bool softpt_next_busy(const struct softpt *pt, uint64_t va, uint64_t end, struct softpt_run *ret);

/*
 * make room so that softpt_set_away of any pages of the block of @va cannot fail: allocates.
 * Without @fragmented only for pages none of whose 64 KiB unit is away elsewhere. Holds while a
 * page of the block is busy, and before and after that until 16 other blocks were reserved or
 * became empty; softpt_remap takes it along with busy pages.
 */
int softpt_reserve(struct softpt *pt, uint64_t va, bool fragmented);
/* pages become away, at consecutive places from @place. 0 or -ENOMEM (nothing changed) */
int softpt_set_away(struct softpt *pt, uint64_t va, uint64_t len, uint32_t place);
/* pages are not away any more */
void softpt_clear_away(struct softpt *pt, uint64_t va, uint64_t len);
int softpt_set_busy(struct softpt *pt, uint64_t va, uint64_t len); /* 0 or -ENOMEM */
void softpt_clear_busy(struct softpt *pt, uint64_t va, uint64_t len);
/* move all state of [from, from + len) to [to, ...): 0; -ENOMEM nothing changed. No overlap. */
int softpt_remap(struct softpt *pt, uint64_t from, uint64_t to, uint64_t len);

/* engine ops for who has this table: all changes are told to core, no page is anywhere else */
uint64_t softpt_look_begin(void *e, uint64_t va);
bool softpt_look_changed(void *e, uint64_t va, uint64_t seq);
int softpt_unshare(void *e, uint64_t va, uint64_t len);
uint64_t softpt_evict_strays(void *e, unsigned int dev, uint64_t n);

#endif
