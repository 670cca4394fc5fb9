/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: sim_test.h - exploring core under the simulator
 *
 * A schedule is a list of operations for a few virtual threads, made from a seed (schedule.c), and
 * a list of choices (env_sim.h): who runs next, which driver call fails or dawdles. The model
 * (model.c) knows what every load may return. testdev.c is a device that checks what core tells it.
 *
 * The address space: three windows of 8 pages that straddle block boundaries, in blocks of which
 * some share a mirror lock, and a whole block of which four pages are looked at.
 */
#ifndef BALUN_SIM_TEST_H
#define BALUN_SIM_TEST_H

#include "balun/balun.h"
#include "balun/driver.h"
#include "balun/policy.h"
#include "balun/sim.h"
#include "env/env.h"
#include "env/env_sim.h"

#define WINDOWS	     3
#define WINDOW_PAGES 8
#define SHARED_FIRST (2 * WINDOW_PAGES) /* the last window: shared memory in some schedules */
#define BIG_FIRST    (WINDOWS * WINDOW_PAGES)
#define BIG_PAGES    4
#define PAGES	     (BIG_FIRST + BIG_PAGES)
#define WORDS	     2 /* of each page: the first and the last 8 bytes */
#define DEVICES	     3 /* the third has no MMU */

#define BIG_VA (0x10000000UL + 10 * BALUN_BLOCK_SIZE)

uint64_t page_va(unsigned int page);
uint64_t word_va(unsigned int page, unsigned int word);
/* number of an entry in a device's page table: windows, then all of the big block; or ENTRIES */
#define ENTRIES (BIG_FIRST + BALUN_BLOCK_PAGES)
unsigned int entry_of(uint64_t va);

/* ends the run as failed; the error says where, so that shrinking does not slip to another one */
#define FAILED	  (-2000 - __LINE__)
#define FAIL(...) env_sim_stop(FAILED, __VA_ARGS__)
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			FAIL("%s:%d: %s", __FILE__, __LINE__, #cond);                              \
	} while (0)

/* what may go wrong in this schedule: 1 in so many calls, 0 never */
struct profile {
	uint32_t copy, map, alloc, open, peer, delay, policy;
	bool shared, memory, loss; /* loss: a device may die */
};
extern struct profile profile;
bool chance(uint32_t one_in);
void dawdle(void);

/* quiet.c: answers as the default policy does, and in some schedules anything else it may */
extern const struct balun_policy policy_sim;

/* ---- model.c ---- */

#define PERM_MAPPED 8u /* beside BALUN_SIM_READ and WRITE */
#define TICK_NEVER  UINT64_MAX

struct reg; /* something that is written atomically and read, with all its versions */
struct version;

void model_reset(void);
struct reg *model_perm(unsigned int page);
struct reg *model_word(unsigned int page, unsigned int word);
uint64_t model_tick(void);
/* a write begins; ends or never was */
struct version *model_write(struct reg *r, uint64_t value, uint64_t op);
/* the same with what @from holds at some moment of the operation */
struct version *model_copy(struct reg *r, struct reg *from, uint64_t op);
void model_end(struct version *v);
void model_cancel(struct version *v);
void model_maybe(struct version *v); /* ended, and may have happened or not */
/* could a read in [begin, end] have seen the value / a value with bits (v & mask) == want? */
bool model_saw(struct reg *r, uint64_t value, uint64_t begin, uint64_t end);
bool model_saw_bits(struct reg *r, uint64_t mask, uint64_t want, uint64_t begin, uint64_t end);
void model_print(struct reg *r, char *buf, size_t len);

/* ---- testdev.c ---- */

extern const struct balun_driver driver_testdev;
enum testdev_access {
	TESTDEV_READ,
	TESTDEV_WRITE,
	TESTDEV_SWAP
};
void testdev_reset(void);
/* one access of 8 bytes by device @slot; SWAP: *value goes in and the old one comes out */
int testdev_access(unsigned int slot, uint64_t va, enum testdev_access access, uint64_t *value);
int testdev_fault(unsigned int slot, uint64_t va, uint64_t len, uint32_t access);
/* it gives nothing back any more; mute: and does nothing else either; said: and tells core so */
void testdev_kill(unsigned int slot, bool mute, bool said);
bool testdev_any_dead(void);
bool testdev_any_silent(void); /* of those that are open: dead, and core was not told */
/* how many are closing a device, with devices_lock held: nobody else copies under a lock */
extern unsigned int testdev_closers;

#endif
