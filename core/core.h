/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: core.h - internals of core, and the lock order
 *
 * Lock order, outermost first:
 *   1. balun_space.devices_lock  opening and closing of devices
 *   2. core_stripe.lock          mirror lock of the blocks that hash to it; at most one at a time;
 *                                held across driver map/unmap, never across a copy or a wait on
 *                                the outside
 *   3. the engine's lock         (engine.h)
 *   4. leaves: device memory allocator, LRU, hints, stats; env's own
 * No path takes two stripes at once: work on a range goes stripe by stripe.
 */
#ifndef BALUN_CORE_H
#define BALUN_CORE_H

#include "balun/balun.h"
#include "balun/driver.h"
#include "balun/policy.h"
#include "core/engine.h"
#include "core/devmem.h"
#include "core/hint.h"
#include "core/spec.h"
#include "env/env.h"

#define CORE_STRIPES	  64
#define CORE_FAULT_NS	  1000000000ULL /* a device fault gives up with -EBUSY after this */
#define CORE_DRAIN_NS	  10000000000ULL
#define CORE_HOME_TRIES	  16 /* how often a page that failed is tried alone before it is lost */
#define CORE_DEVICE_SLOTS (BALUN_MAX_DEVICES + 1)

/**
 * struct core_stripe - the sequence/retry protocol for the blocks that hash here
 * @seq: grows with every invalidation; a reader that sees it unchanged under @lock, with @active
 *       zero, may write mirror entries
 * @active: invalidations between begin and end
 * @arrived: device faults that had to wait for @active to become 0, ever
 * @left: those of them that wait no more
 */
struct core_stripe {
	struct env_mutex lock;
	struct env_cond idle; /* active became 0 */
	struct env_cond turn; /* left grew */
	uint64_t seq;
	uint32_t active, arrived, left;
} __attribute__((aligned(64)));

/* a block with pages on a device: a link of the device's list, least recently used first */
struct core_resident {
	struct env_list lru, hash;
	uint64_t va;
	/* how many pages core was told of: a hint for when to forget it. Never less than there are,
	 * for then an eviction would miss them; more until who moved or dropped them says so */
	uint32_t pages;
	uint32_t stale; /* counted, and not found by an eviction: the next to be counted off */
	uint64_t stale_ns;
};
#define CORE_RESIDENT_HASH 256

struct balun_device {
	struct balun_space *space;
	unsigned int id;
	unsigned int fork_gen;
	bool closing;	/* new device faults are refused; under space->devices_lock or atomically */
	uint32_t users; /* balun_fault() and migrations in progress */
	uint32_t calls; /* core_device_enter() in progress; also while it closes */
	bool ended;	/* no more of them: close() comes. Both under move_lock */
	bool kept;	/* core_device_free() is due when it is closed */
	unsigned int spill;	 /* where evicted pages go: 0 home, its own id nowhere; atomic */
	uint64_t lost_pages;	 /* relaxed atomic adds by those who are users, or close it */
	struct balun_driver ops; /* copy of the table, stubs filled in */
	const struct balun_driver *drv;
	/* @drv and what it wraps, got and to be put when the device is closed */
	const struct balun_driver *held[SPEC_DRIVERS];
	unsigned int nheld;
	void *priv;
	void *space_data;
	struct balun_desc desc;
	struct balun_options *opt;
	char name[60];
	struct devmem *mem; /* NULL: the driver has alloc/free */
	uint64_t mem_used;
	struct env_mutex lru_lock; /* leaf */
	struct env_list lru;
	struct env_list resident[CORE_RESIDENT_HASH];
};

struct core_prefetch;

/* recent moves of a block (hash slot; hints only: racy relaxed accesses) */
struct core_thrash {
	uint64_t block, last_ns, stay_until_ns;
	uint32_t count;
	bool to_device;
};
#define CORE_THRASH_SLOTS 64

struct balun_space {
	const struct engine_ops *engine;
	void *e;
	unsigned int fork_gen;
	const struct balun_policy *policy;
	struct balun_policy policy_copy;
	struct env_mutex devices_lock;
	struct balun_device *device[CORE_DEVICE_SLOTS]; /* by id; [0] unused */
	/* migrations in flight: under move_lock. Counted by epoch so that one can wait for those
	 * that began before, however many begin after */
	struct env_mutex move_lock; /* leaf */
	struct env_cond move_done;
	unsigned int move_epoch;
	uint32_t moves[2];
	uint32_t moves_out; /* of them towards a device */
	uint32_t paused;    /* core_quiesce: no migration to a device starts */
	/* devices that are lost, a bit each: changes under move_lock, is read anywhere. By id, so
	 * that who knows no more of a device than where a page is can ask */
	uint32_t lost;
	struct core_stripe stripe[CORE_STRIPES];
	struct hint_table *hints;
	struct core_prefetch *prefetch;
	struct env_mutex batch_lock; /* leaf */
	struct core_work *works;     /* free ones */
	struct core_thrash thrash[CORE_THRASH_SLOTS];
	/* fault streaks (policy.h), one per faulter: where the last answer ended. Hints only: racy
	 * relaxed accesses */
	uint64_t streak_next[CORE_DEVICE_SLOTS];
	uint32_t streak[CORE_DEVICE_SLOTS];
	/* read-ahead for a CPU that goes through memory in order: hints, racy
	 * relaxed accesses */
	uint64_t ahead_va;
	uint32_t ahead_blocks;
	struct balun_stats stats; /* relaxed atomic adds */
	struct env_live live;
};

static inline struct core_stripe *core_stripe(struct balun_space *sp, uint64_t va)
{
	return &sp->stripe[(va >> BALUN_BLOCK_SHIFT) % CORE_STRIPES];
}
/* Where to look for a block in a table of @n. Heaps begin at multiples of large powers of two: all
 * bits of its number count (the factor is 2^64 over the golden ratio). */
static inline uint32_t core_block_slot(uint64_t va, uint32_t n)
{
	return (((va >> BALUN_BLOCK_SHIFT) * 0x9e3779b97f4a7c15ULL >> 32) * n) >> 32;
}
static inline void core_count(uint64_t *p, uint64_t v)
{
	env_add(p, v);
}
void core_hist_add(struct balun_hist *h, uint64_t ns);
void core_stats_read(const struct balun_space *sp, struct balun_stats *ret); /* of core's own */
void core_live_fill(void *space, struct balun_live *ret);		     /* env_live_begin() */

/* mirror.c */
int core_read_begin(struct balun_space *sp, uint64_t va, uint64_t deadline, uint64_t *ret_seq);
bool core_read_retry(struct core_stripe *st, uint64_t seq);	   /* lock held */
int core_wait_inactive(struct core_stripe *st, uint64_t deadline); /* lock held */
void core_give_way(struct balun_space *sp, uint64_t va);
void core_unmap_all(struct balun_space *sp, uint64_t va, uint64_t len, enum balun_cause cause);

/* migrate.c: moves the wanted pages of one block; adds to *counts */
struct core_move {
	uint64_t va; /* block */
	env_bits want;
	unsigned int dst; /* device id, 0: system */
	unsigned int src; /* only pages on this device; 0: any */
	bool from_home;	  /* only pages in system memory (as seen before they are collected) */
	enum balun_cause cause;
	bool holes;
	bool force;		/* pins do not hold (CPU fault, teardown, quiesce) */
	bool hold;		/* of coherent memory: the program does not map them (ATOMIC) */
	const uint64_t *demand; /* pages that were asked for; others count as prefetch. NULL: all */
	uint64_t begun_ns;	/* set by core_move_block() */
	unsigned int page;	/* in: a page of interest; */
	uint8_t page_status;	/* out: what became of it (enum engine_status) */
	uint8_t page_dev;	/* out: the device it was on when it was taken, or 0 */
};
int core_device_spill(struct balun_device *dev, struct balun_device *to); /* 0, -EINVAL */
void core_device_unspill(struct balun_space *sp, unsigned int id);
int core_move_block(struct balun_space *sp, struct core_move *mv, struct balun_counts *counts);
/* the first address in [@va, @end) on which something is mapped, or @end */
uint64_t core_next_mapped(struct balun_space *sp, uint64_t va, uint64_t end);
int core_migrate_range(struct balun_space *sp, uint64_t va, uint64_t len, unsigned int dst,
		       bool from_home, enum balun_cause cause, struct balun_counts *counts);
/* work area of one migration or fault: large, recycled, never on a stack */
struct core_work {
	struct engine_batch b;
	struct balun_copy op[BATCH_PIECES];
	uint16_t op_piece[BATCH_PIECES]; /* the piece an op belongs to */
	struct engine_run run[BALUN_BLOCK_PAGES];
	struct balun_seg seg[BALUN_BLOCK_PAGES];
	struct balun_question question;
	struct balun_answer answer;
	struct core_work *next;
};
struct core_work *core_work_get(struct balun_space *sp); /* NULL: no memory */
void core_work_put(struct balun_space *sp, struct core_work *w);
void core_works_free(struct balun_space *sp);
/* every migration in flight when this is called is over when it returns */
void core_moves_synchronize(struct balun_space *sp);

/* copy.c: do the copies of a collected batch; marks pages PAGE_FAILED where one failed */
void core_copy_batch(struct balun_space *sp, struct core_work *w);

/* thrash.c: moves to and fro of a block */
void core_thrash_note(struct balun_space *sp, uint64_t block, bool to_device);
unsigned int core_thrash_level(struct balun_space *sp, uint64_t block);
/* a CPU fault has to wait: the block thrashes and a device has just fetched it */
bool core_thrash_hold(struct balun_space *sp, uint64_t block);

/* fault.c */
int core_device_fault(struct balun_device *dev, uint64_t va, uint64_t len, uint32_t access);

/* evict.c */
int core_alloc_places(struct balun_device *dev, const uint64_t *want, uint64_t keep_va,
		      uint32_t *place);
void core_free_place(struct balun_device *dev, uint32_t pgno, uint32_t npages);
void core_resident_add(struct balun_device *dev, uint64_t va, unsigned int pages);
void core_resident_sub(struct balun_device *dev, uint64_t va, unsigned int pages);
void core_resident_touch(struct balun_device *dev, uint64_t va);
int core_evict(struct balun_device *dev, uint64_t bytes, uint64_t keep_va, uint64_t *ret_bytes);
int core_evict_settled(struct balun_device *dev, uint64_t bytes,
		       uint64_t *ret_bytes); /* no lock held */
void core_resident_forget(struct balun_device *dev);

/* device.c */
/* NULL: no such device, or it is closing or lost */
struct balun_device *core_device_get(struct balun_space *sp, unsigned int id);
void core_device_put(struct balun_device *dev);
/* as get, but of a device that may be closing or lost (loss.c) */
struct balun_device *core_device_find(struct balun_space *sp, unsigned int id);
/* the same with move_lock held */
struct balun_device *core_device_hold(struct balun_space *sp, unsigned int id);
void core_device_release(struct balun_device *dev);
/* a call of who does not own the device: close() waits for it; also of a device that is closing.
 * false: too late */
bool core_device_enter(struct balun_device *dev);
void core_device_leave(struct balun_device *dev);
int core_device_open(struct balun_space *sp, const char *spec, struct balun_device **ret_dev);
int core_device_end(struct balun_device *dev); /* devices_lock held */
/* The struct outlives the device until core_device_free(), for who finds it by a number: calls that
 * come too late are then refused. By who has opened it, before anybody else knows of it */
void core_device_keep(struct balun_device *dev);
void core_device_free(struct balun_device *dev);

uint64_t core_device_metadata(struct balun_device *dev); /* bytes of bookkeeping */

/* space.c */
int core_space_end(struct balun_space *sp);

/* loss.c */
static inline bool core_is_lost(const struct balun_space *sp, unsigned int dev)
{
	return env_load(&sp->lost) >> dev & 1;
}
uint64_t core_lose(struct balun_space *sp, unsigned int dev, uint64_t va, uint64_t len);
void core_lose_devices(struct balun_space *sp);
size_t core_lost_extents(struct balun_space *sp, uint64_t va, struct balun_extent *ret_ext,
			 size_t n);

/* drain.c */
uint64_t core_bring_home(struct balun_space *sp, unsigned int dev, enum balun_cause cause);

/* registry.c */
int core_driver_register(const struct balun_driver *drv, void *owner /* module, or NULL */);
/* a device of the driver is about to be opened; NULL: there is no such driver. put: it is closed */
const struct balun_driver *core_driver_get(const char *name);
void core_driver_put(const struct balun_driver *drv);
void core_registry_init(void);

/* prefetch.c */
int core_prefetch_create(struct balun_space *sp);
void core_prefetch_destroy(struct balun_space *sp);
int core_prefetch_sync(struct balun_space *sp); /* -EINTR: the caller is being killed */
int core_prefetch_push(struct balun_space *sp, uint64_t va, uint64_t len, unsigned int dst);

/* the visible list of drivers: drivers/drivers.c, NULL-terminated */
extern const struct balun_driver *const driver_list[];
/* and what was left out of it, for want of a package: name, package; ends with NULL */
extern const char *const driver_absent_list[][2];

#endif
