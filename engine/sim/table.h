/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: table.h - the simulated process: a table of pages
 *
 * One lock for all. A page is in exactly one state:
 * - unmapped: no SIM_MAPPED; nothing else is set
 * - empty: mapped, no frame, not away, not busy
 * - here: mapped, with a frame
 * - away: in softpt, no frame; or, in coherent memory, with a frame: mapped while on the device,
 *   and then its place in device memory holds rubbish
 * - in transit: busy in softpt; its frame, if it had one, belongs to the flight; if it was away it
 *   still is, at the old place, which now belongs to the flight
 * - lost: SIM_POISON; no frame, not away
 *
 * A flight is a batch between collect and commit. The memory calls below tell it at once when one
 * of its pages moves or goes (flight.at), so that commit finds each page wherever it is then.
 */
#ifndef BALUN_SIM_TABLE_H
#define BALUN_SIM_TABLE_H

#include "core/core.h"
#include "core/softpt.h"
#include "balun/sim.h"

#define SIM_MAPPED 8u /* beside BALUN_SIM_READ, WRITE, SHARED */
#define SIM_POISON 16u

#define SIM_BUCKETS 1024

struct sim_block {
	struct env_list hash;
	uint64_t va;
	unsigned int nmapped;
	uint8_t flags[BALUN_BLOCK_PAGES];
	void *frame[BALUN_BLOCK_PAGES];
};

struct sim_flight {
	struct env_list link;
	unsigned int npages;
	uint64_t at[BALUN_BLOCK_PAGES]; /* where the page is now; SIM_GONE: nowhere */
	void *src[BALUN_BLOCK_PAGES];	/* its frame, if it came from system memory */
	void *dst[BALUN_BLOCK_PAGES];	/* the frame it is copied to */
};
#define SIM_GONE UINT64_MAX

struct sim {
	struct balun_space *space;
	struct balun_desc device[BALUN_MAX_DEVICES + 1];
	struct env_mutex lock;
	struct env_cond idle; /* a flight has landed */
	struct softpt *pt;
	struct env_list flights;
	struct env_list block[SIM_BUCKETS];
};

/* all of these with the lock held */
struct sim_block *sim_block_find(struct sim *s, uint64_t va);
int sim_blocks_get(struct sim *s, uint64_t va, uint64_t len);
void sim_blocks_put(struct sim *s, uint64_t va, uint64_t len);
unsigned int sim_flags(struct sim *s, uint64_t va);
void sim_block_free(struct sim_block *b);
void **sim_frame(struct sim *s, uint64_t va); /* the page is mapped */

void sim_release(struct sim *s, uint64_t va, uint64_t len);
/* these without */
int sim_collect(void *e, struct engine_batch *b);
void sim_commit(void *e, struct engine_batch *b);
extern const struct engine_ops engine_sim;

/* an access of a CPU (device: false) or a software device; inside one page */
int sim_access(struct sim *s, uint64_t va, void *buf, size_t len, bool write, bool device);

static inline uint64_t sim_base(uint64_t va)
{
	return va & ~(BALUN_BLOCK_SIZE - 1);
}
static inline unsigned int sim_index(uint64_t va)
{
	return va >> BALUN_PAGE_SHIFT & (BALUN_BLOCK_PAGES - 1);
}
static inline uint64_t sim_offset(uint32_t place)
{
	return (uint64_t)SOFTPT_PGNO(place) << BALUN_PAGE_SHIFT;
}
static inline bool sim_is_coherent(const struct sim *s, unsigned int dev)
{
	return s->device[dev].caps & BALUN_CAP_COHERENT;
}

#endif
