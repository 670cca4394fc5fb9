/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: softpt_tree.h - internals of the software page table: nodes, blocks and slots
 */
#ifndef BALUN_SOFTPT_TREE_H
#define BALUN_SOFTPT_TREE_H

#include "core/softpt.h"

#define PT_PAGE_SHIFT 12
#define BLOCK_PAGES   (64 * ENV_BITS_WORDS)
#define UNIT_PAGES    16
#define BLOCK_UNITS   (BLOCK_PAGES / UNIT_PAGES)
#define NODE_BITS     9
#define NODE_ENTRIES  (1u << NODE_BITS)
#define TABLE_PAGES   (1ULL << (SOFTPT_VA_BITS - PT_PAGE_SHIFT))
#define PARKED	      16
#define CHUNK_SLOTS   63
#define DEVICE_PAGES  (1u << 28)

struct softpt_block {
	env_bits away, busy;
	uint32_t unit[BLOCK_UNITS];
	uint32_t frag;	/* bit per unit: its word is a slot */
	uint32_t index; /* address / 2 MiB */
	uint8_t nfrag;
	uint8_t parked; /* place in the ring + 1, or 0 */
	bool roomy;	/* a slot is reserved for every unit that is not fragmented */
};

struct softpt_node {
	void *child[NODE_ENTRIES];
};

struct softpt_chunk {
	struct env_list link; /* of pt->chunks while it has a free slot */
	uint64_t free;	      /* bit i: slot[i] is free; bit 63 is never set */
	uint32_t no, pad[7];
	uint32_t slot[CHUNK_SLOTS][UNIT_PAGES];
};

struct softpt {
	struct softpt_node root;
	struct softpt_block *ring[PARKED];
	unsigned int ring_next;
	uint64_t bytes;

	struct softpt_chunk **dir; /* by number; NULL entries are free numbers */
	uint32_t ndir, dir_hint;
	struct env_list chunks;	 /* with free slots; the wholly free ones at the tail */
	uint64_t free, reserved; /* slots; free >= reserved */
};

static inline uint32_t *softpt_slot(const struct softpt *pt, uint32_t slot)
{
	return pt->dir[slot / 64]->slot[slot % 64];
}

static inline bool softpt_any(const uint64_t *b)
{
	return b[0] | b[1] | b[2] | b[3] | b[4] | b[5] | b[6] | b[7];
}

/* slots: ensure() makes @n free beyond the reserved ones, get() asserts that one is free, trim()
 * frees what is free beyond a few chunks */
int softpt_slots_ensure(struct softpt *pt, unsigned int n);
uint32_t softpt_slot_get(struct softpt *pt);
void softpt_slot_put(struct softpt *pt, uint32_t slot);
void softpt_slots_trim(struct softpt *pt);

struct softpt_block *softpt_block_find(const struct softpt *pt, uint64_t index);
/* the first with an index in [index, end), or NULL */
struct softpt_block *softpt_block_next(const struct softpt *pt, uint64_t index, uint64_t end);
/* made if it is not there; not parked until softpt_block_settle() */
struct softpt_block *softpt_block_get(struct softpt *pt, uint32_t index);
/* after every change of a block: park it or take it out of the ring */
void softpt_block_settle(struct softpt *pt, struct softpt_block *b);
void softpt_block_unpark(struct softpt *pt, struct softpt_block *b);
/* a slot for every unit of the block; so many are free */
void softpt_room_reserve(struct softpt *pt, struct softpt_block *b);

#endif
