/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: engine.h - what core asks of an engine, and what an engine tells core
 *
 * The engine owns the CPU page tables and is the only one who knows where a page is. Core drives a
 * migration of pages of ONE block through collect, (the driver's copy), commit.
 *
 * Lock order (outermost first): a mirror lock (struct core_stripe) > the engine's lock > env's own.
 * - Core calls the engine without a mirror lock, except look_changed() and, with @look_locked,
 *   describe().
 * - The engine calls core_invalidate_*() and core_cpu_fault() without its own lock;
 *   core_release() and core_moved() with it (they take only locks of the device, leaves).
 * - No lock at all is held while a driver copies, but for core_read_device().
 */
#ifndef BALUN_CORE_ENGINE_H
#define BALUN_CORE_ENGINE_H

#include "balun/balun.h"
#include "balun/driver.h"
#include "env/env.h"

/* where a page's content is, in the engine's answer */
enum engine_where {
	ENGINE_NONE,   /* a hole of a mapped range: reads as zero */
	ENGINE_SYSTEM, /* system memory; may also be a hole when the engine cannot tell cheaply */
	ENGINE_DEVICE, /* @dev, @off */
	ENGINE_BUSY,   /* in transit */
	ENGINE_LOST,   /* poisoned: neither readable nor movable */
};

/* a run of equal pages, inside one block */
struct engine_run {
	uint64_t va, len;
	uint64_t off;	    /* ENGINE_DEVICE: offset in the device's memory; contiguous */
	uint64_t addr;	    /* ENGINE_SYSTEM/NONE: bus address for map(), contiguous */
	uint8_t where, dev; /* engine_where; device index 1..15 */
	uint8_t mapped;	    /* inside a mapping */
	uint8_t movable;    /* anonymous private memory of the program */
	uint8_t perm;	    /* BALUN_PERM_READ|WRITE of the mapping */
	uint8_t cpu; /* ENGINE_DEVICE: coherent memory that the program has mapped, at @addr */
	/* with DESCRIBE_ALL only, for BALUN_EXTENT_*; false where the engine cannot tell. shared
	 * and zero may be there with DESCRIBE_PERM too: only to be read then, see unshare() */
	uint8_t zero, huge, shared;
};

/* how much describe() has to find out: more costs system calls */
enum engine_detail {
	DESCRIBE_WHERE, /* perm may be left 0, ENGINE_SYSTEM may be a hole */
	DESCRIBE_PERM,
	DESCRIBE_ALL, /* zero, huge, shared too, and of memory that cannot move as well */
};

/* what became of one page of a batch; index by page of the block */
enum engine_status {
	PAGE_IDLE,	/* not asked for */
	PAGE_TAKEN,	/* collected: in transit */
	PAGE_ALREADY,	/* is at the destination */
	PAGE_EMPTY,	/* a hole, and left so (destination system) */
	PAGE_BUSY,	/* could not be isolated: retry */
	PAGE_UNMOVABLE, /* not anonymous private, or the engine's own */
	PAGE_NOMEM,	/* no frame or no device memory */
	PAGE_FAILED,	/* the copy failed (set by core before commit) */
	PAGE_MOVED,	/* committed */
	PAGE_GONE,	/* unmapped or dropped by the program while in transit */
};

/* a run of taken pages with contiguous source and contiguous destination */
struct engine_piece {
	uint16_t first, npages; /* pages of the block */
	uint8_t src_kind;	/* BALUN_KIND_SYSTEM (frame), LOCAL (device src_dev), ZERO */
	uint8_t dst_kind;	/* BALUN_KIND_SYSTEM (frame) or LOCAL (device dst_dev) */
	uint8_t src_dev, dst_dev;
	uint8_t moved;	   /* the page itself already is (or will be at commit) in its new
			    * place: no copy needed */
	uint64_t src, dst; /* bus address or device offset */
};

#define BATCH_PIECES 512

/**
 * struct engine_batch - one migration inside one block
 *
 * Core fills the first part and, for dst != 0, @place: where page i goes in device memory
 * (place_dev == 0: no memory was got, status PAGE_NOMEM). collect() sets @status of every wanted
 * page and @piece for those PAGE_TAKEN. Core copies, sets PAGE_FAILED where that failed, commit()
 * turns PAGE_TAKEN into PAGE_MOVED or PAGE_GONE or PAGE_BUSY (restored) and puts PAGE_FAILED back.
 * After commit core frees: the source memory of MOVED and GONE device pages; the destination memory
 * of all but MOVED, except where the engine has set @place to ~0: it tells by core_release_place()
 * when that is free.
 *
 * Large: lives in env memory, never on a stack.
 */
struct engine_batch {
	struct balun_space *space;
	uint64_t va;   /* start of the block */
	env_bits want; /* pages asked for */
	uint8_t dst;   /* device index, 0: system */
	uint8_t src;   /* nonzero: take only pages that are on this device (eviction) */
	uint8_t cause; /* enum balun_cause */
	uint8_t holes; /* take never-touched pages too (as ZERO); only for dst != 0 */
	uint8_t hold;  /* dst is coherent: keep the program from mapping the pages */
	uint32_t place[BALUN_BLOCK_PAGES]; /* of the wanted pages: page number in device memory */

	uint8_t status[BALUN_BLOCK_PAGES];
	uint32_t npieces;
	struct engine_piece piece[BATCH_PIECES];
	/* of the pages of pieces with source LOCAL: dev << 28 | page; 0 once it was put back, or if
	 * the engine tells by core_release() when the memory is free */
	uint32_t origin[BALUN_BLOCK_PAGES];

	void *engine; /* the engine's own, between collect and commit */
};

/* end of the run of pages from i, below @end, that have the same status; by words where it can */
static inline unsigned int engine_status_end(const struct engine_batch *b, unsigned int i,
					     unsigned int end)
{
	uint64_t same = b->status[i] * 0x0101010101010101ULL, w;
	uint8_t status = b->status[i];

	for (; i + 8 <= end; i += 8) {
		memcpy(&w, b->status + i, 8);
		if (w != same)
			break;
	}
	while (i < end && b->status[i] == status)
		i++;
	return i;
}

/* memory of a device as the DMA of another one reaches it, from peer_map() to peer_unmap() */
struct engine_peer {
	uint64_t addr; /* DMA address */
	uint64_t len;  /* of what was asked for, from its beginning on: a multiple of 4 KiB */
	void *map;     /* the engine's own */
};

struct remote_ops;

/* size first; const; every op required, but for away and the last six; or, of an engine that
 * serves elsewhere, probe and remote */
struct engine_ops {
	size_t size;
	const char *name;
	/* remote.h; NULL: spaces of this engine are served here */
	const struct remote_ops *remote;
	/* fill *ret_info (works, how, reason, remedy, features). May be called without a space */
	void (*probe)(struct balun_engine_info *ret_info);
	/* begin/end to serve @sp. detach: every page is home or poisoned by now. */
	int (*attach)(struct balun_space *sp, void **ret_e);
	void (*detach)(void *e);
	/*
	 * A device is attached to or is leaving the space. The engine keeps its own copy of *desc
	 * and clears the caps that it cannot serve (COHERENT).
	 */
	int (*device_attach)(void *e, unsigned int dev, struct balun_desc *desc);
	void (*device_detach)(void *e, unsigned int dev);
	/*
	 * Brackets a call of the application into core on its own thread, so that the engine can
	 * keep the thread's own stack where it is (and hold back its signals). Not nested.
	 */
	void (*enter)(void *e, void *cookie /* 64 bytes on the caller's stack */);
	void (*leave)(void *e, void *cookie);
	/*
	 * Runs from @va, at most to the end of its block and @len; at most @n runs.
	 * Returns how many, > 0. An unmapped part is a run with mapped = 0.
	 */
	int (*describe)(void *e, uint64_t va, uint64_t len, enum engine_detail detail,
			struct engine_run *run, int n);
	/* the first address from @va on at which something is mapped; UINT64_MAX: nothing is. For
	 * who goes through much of an address space: a hint by the time it is used */
	uint64_t (*next_mapped)(void *e, uint64_t va);
	/*
	 * The engine's part of the sequence/retry protocol, for page tables that change without a
	 * core_invalidate_begin() and _end(): look_begin() waits until none of those changes is
	 * under way around @va, without a lock; look_changed(): has one begun since? With the
	 * block's mirror lock. Where all changes are told that way there is nothing to do.
	 */
	uint64_t (*look_begin)(void *e, uint64_t va);
	bool (*look_changed)(void *e, uint64_t va, uint64_t seq);
	/* describe() may be called with a mirror lock held */
	bool look_locked;
	/* no page can be taken out of CPUs' reach: no device gets atomic access */
	bool no_atomic;
	/* a coherent page that somebody refers to for long may stay when its device ends */
	bool held_stays;
	/* 0, or -errno and then nothing is taken: -ENOMEM, -EFAULT nothing mapped */
	int (*collect)(void *e, struct engine_batch *b);
	/* cannot fail; after it nothing of the batch is in transit, and waiters are awake */
	void (*commit)(void *e, struct engine_batch *b);
	/*
	 * Pages of a range inside one block that describe() calls shared (with another process,
	 * since a fork) or zero: the program gets pages of its own, in system memory, as if it had
	 * written to them. 0; -EAGAIN look again; -EFAULT, -ENOMEM
	 */
	int (*unshare)(void *e, uint64_t va, uint64_t len);
	/* wait until no page of the block is in transit, or the time is over: false */
	bool (*wait_idle)(void *e, uint64_t va, uint64_t timeout_ns);
	/*
	 * Device @dev lost the pages of a range inside one block for good: a touch is SIGBUS from
	 * now on, until the program maps something else there or drops them. Only those that are
	 * on that device and not in transit; returns how many. No device has one mapped.
	 */
	uint64_t (*poison)(void *e, unsigned int dev, uint64_t va, uint64_t len);
	/* all that is poisoned: next run at or after @va; false: no more */
	bool (*next_lost)(void *e, uint64_t va, struct engine_run *ret_run);
	/* all that is away on device @dev (0: any), also if the program has it mapped: next run at
	 * or after @va; false: no more */
	bool (*next_away)(void *e, unsigned int dev, uint64_t va, struct engine_run *ret_run);
	/*
	 * Brings home up to @n pages of @dev that no address of the space leads to (another
	 * process has them since a fork, or they are not where core believes). Returns how many
	 * pages of device memory it has freed; 0 where there is no such thing. With @n UINT64_MAX
	 * all, until there are none; else pins hold (core_is_pinned()).
	 */
	uint64_t (*evict_strays)(void *e, unsigned int dev, uint64_t n);
	/* memory calls made before are seen: their invalidations are done (balun_fence) */
	void (*fence)(void *e);
	/* in place access by software devices; 0 or -EFAULT */
	int (*bus_read)(void *e, uint64_t addr, void *buf, size_t len);
	int (*bus_write)(void *e, uint64_t addr, const void *buf, size_t len);
	/* bookkeeping in bytes */
	uint64_t (*metadata)(void *e);
	/* drop contents of pages on a device, inside one block (hint "discard"): they read as zero
	 */
	void (*discard)(void *e, uint64_t va, uint64_t len);
	/*
	 * What a CPU's touch asks of a block, at once, for describe() may have hundreds of runs to
	 * say: the pages that are on devices, out of the CPU's reach and not in transit; of page
	 * @page the device, or 0. false: this is no block all of which is mapped and may move, and
	 * none of which is lost; describe() tells. May be NULL: always so.
	 */
	bool (*away)(void *e, uint64_t block, unsigned int page, uint64_t *ret_bits,
		     unsigned int *ret_dev);
	/* balun_taken(), balun_allow(), balun_allow_word(), balun_watch(); NULL where touches of
	 * memory that is not away are not seen */
	int64_t (*taken)(void *e);
	void (*allow)(void *e, int64_t since, int64_t bytes);
	void (*allow_word)(void *e, uint32_t *word);
	int (*watch)(void *e, uint64_t va, uint64_t len);
	/*
	 * Peer to peer: the memory of @dev (balun_desc.bar_device) at @off, for the DMA of @client
	 * (dma_device), which writes it or reads it. May sleep. 0; -errno: it is out of reach, now
	 * or always. NULL where devices have no such memory
	 */
	int (*peer_map)(void *e, unsigned int dev, uint64_t off, uint64_t len, unsigned int client,
			bool write, struct engine_peer *ret_peer);
	void (*peer_unmap)(void *e, struct engine_peer *peer);
};

/* the list: engines.c; the first is the default, whether it works or not */
extern const struct engine_ops *const engine_list[];

/* ---- engine to core ---- */

/* The CPU side of a range is about to change / has changed. Between the two no device gets a
 * mapping in it; after begin returns no device has one. Nestable. Never waits for a migration. */
void core_invalidate_begin(struct balun_space *sp, uint64_t va, uint64_t len,
			   enum balun_cause cause);
void core_invalidate_end(struct balun_space *sp, uint64_t va, uint64_t len);
/* For an engine whose look_begin() holds others back: the CPU side of a range changes from now on.
 * After it returns no device has a mapping in the range, and who looked before looks again. */
void core_invalidate_now(struct balun_space *sp, uint64_t va, uint64_t len);
/* device memory is let go of: the pages at @va, not in transit, were unmapped or dropped */
void core_release(struct balun_space *sp, unsigned int dev, uint64_t va, uint64_t off,
		  uint64_t len);
/* the same of memory that was given for pages which have not moved there: place was set to ~0 */
void core_release_place(struct balun_space *sp, unsigned int dev, uint64_t off, uint64_t len);
/* pages on a device have changed their address (mremap): they are at @to now. With the engine's
 * lock, so that nobody releases them before core has heard of them */
void core_moved(struct balun_space *sp, unsigned int dev, uint64_t to, uint64_t len);
/* A CPU touched away memory: bring it home (and its neighbours, by policy).
 * 0: done or no longer away; -EBUSY in transit elsewhere (its commit wakes); -EAGAIN (held back for
 * a moment: the block thrashes), -ENOMEM, -ENODEV try again; -EIO lost: it has been poisoned */
int core_cpu_fault(struct balun_space *sp, uint64_t va, bool write);
/* Called by the thread that serves CPU faults when none is waiting: brings home the next block of a
 * program that goes through memory in order. false: there is nothing more to do ahead. */
bool core_cpu_ahead(struct balun_space *sp);
/* read what a device holds of pages that stay there (for a child after a bare clone()). The engine
 * may hold its lock. 0 or -errno */
int core_read_device(struct balun_space *sp, unsigned int dev, uint64_t off, void *host,
		     uint64_t len);
/* pages that evict_strays() or a CPU's fault of another process did not get: the engine has
 * poisoned them */
void core_strays_lost(struct balun_space *sp, unsigned int dev, uint64_t pages);
/* the program wants the page to stay where it is (pages that the engine evicts by itself) */
bool core_is_pinned(struct balun_space *sp, uint64_t va);
/* the driver said so: what the device's memory holds is not to be read, host memory neither */
bool core_device_is_lost(const struct balun_space *sp, unsigned int dev);
/* everything home, no migrations until core_resume (fork hook). Bounded by the devices' speed.
 * -EIO: pages were lost, and are poisoned; core_resume() is due all the same */
int core_quiesce(struct balun_space *sp);
void core_resume(struct balun_space *sp);

#endif
