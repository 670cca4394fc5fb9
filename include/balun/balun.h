/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: balun.h - Balun for applications
 *
 * A *space* mirrors the address space of the calling process. *Devices* are opened in it by a spec
 * string ("soft:mem=256M"). From then on any pointer of the process is a pointer on the device:
 * pages move to device memory when the device uses them, or by request, and come back when a CPU
 * touches them.
 *
 * Conventions: functions return 0 or a negative errno; outputs go through ret_ pointers, which are
 * set only on success; balun_reason() says in words why the last call of this thread failed.
 * Addresses and lengths are in bytes; migrating calls work on the whole pages that a range touches.
 * Times are in nanoseconds. Every function may sleep and may be called from any thread unless its
 * text says otherwise; none may be called from a signal handler. Since 0.1 unless said otherwise.
 *
 * After fork() the child has every byte in ordinary memory; a handle of the parent is refused there
 * with -ECHILD, and the child may create a space of its own.
 */
#ifndef BALUN_BALUN_H
#define BALUN_BALUN_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define BALUN_API __attribute__((visibility("default")))

#define BALUN_PAGE_SHIFT  12
#define BALUN_PAGE_SIZE	  (1UL << BALUN_PAGE_SHIFT)
#define BALUN_BLOCK_SHIFT 21
#define BALUN_BLOCK_SIZE  (1UL << BALUN_BLOCK_SHIFT) /* unit of locking, bookkeeping, eviction */
#define BALUN_BLOCK_PAGES (BALUN_BLOCK_SIZE >> BALUN_PAGE_SHIFT)
#define BALUN_MAX_DEVICES 15 /* devices in one space */

struct balun_space;
struct balun_device;
struct balun_policy;
struct balun_driver;

/** enum balun_cause - why a page moved or a mapping was removed */
enum balun_cause {
	BALUN_CAUSE_USER,	  /* balun_migrate() */
	BALUN_CAUSE_DEVICE_FAULT, /* the device touched it */
	BALUN_CAUSE_CPU_FAULT,	  /* a CPU touched it */
	BALUN_CAUSE_PREFETCH,	  /* ahead of use: policy or balun_prefetch() */
	BALUN_CAUSE_EVICTION,	  /* device memory was needed, or balun_evict() */
	BALUN_CAUSE_INVALIDATE,	  /* munmap, mremap, mprotect, madvise, fork */
	BALUN_CAUSE_THRASH,	  /* moved to stop it from moving to and fro */
	BALUN_CAUSE_TEARDOWN,	  /* device closed or space destroyed */
	BALUN_NR_CAUSES,
};

/** balun_cause_name() - "user", "device-fault", ...; any context. Return: a constant string. */
BALUN_API const char *balun_cause_name(enum balun_cause cause);

/** balun_version() - version of the library, "0.1.0"; any context. */
BALUN_API const char *balun_version(void);

/**
 * balun_reason() - why the last failed call of this thread failed, in words a person can act on
 *
 * Any context. Return: a string, valid until the next call of this thread into the library; ""
 * before any failure.
 */
BALUN_API const char *balun_reason(void);

/* ---- spaces ---- */

/**
 * struct balun_space_opts - how to create a space
 * @size: sizeof(struct balun_space_opts)
 * @engine: "uffd", "kernel", "sim"; NULL is "uffd", and no other one where that does not work
 * @policy: see policy.h; NULL for the built-in policy "default"; nothing else on "kernel"
 */
struct balun_space_opts {
	size_t size;
	const char *engine;
	const struct balun_policy *policy;
};

/**
 * balun_space_create() - begin to mirror the calling process
 * @opts: options, or NULL for defaults
 * @ret_space: the space; the caller owns it and ends it with balun_space_destroy()
 *
 * Costs nothing for memory that never migrates: a range is watched from its first migration on.
 *
 * The calling thread may have a table of file descriptors of its own (unshare(CLONE_FILES)). Then
 * those of the space and of its devices are in that table and out of the program's reach, and
 * calls about the space are to be made by threads that have it. fork() may be called by all.
 *
 * Return: 0; -EINVAL unknown engine or bad options; -EPERM the engine may not be used here
 * (balun_reason() has the remedy); -EOPNOTSUPP the kernel lacks what the engine needs, or the
 * engine takes no policy; -EBUSY the process has a space of this engine already (on "kernel" it may
 * have several); -ENOMEM.
 */
BALUN_API int balun_space_create(const struct balun_space_opts *opts,
				 struct balun_space **ret_space);

/**
 * balun_space_destroy() - bring every page home, close every device of the space, end it
 * @space: from balun_space_create(), or NULL
 *
 * Waits for device work in flight. A page that a failed device will not give back is poisoned: a
 * touch of it is SIGBUS (SIGSEGV before Linux 6.6). Return: 0; -EIO when pages were lost (the space
 * is gone all the same); -ECHILD the space belongs to the parent process.
 */
BALUN_API int balun_space_destroy(struct balun_space *space);

/** balun_space_engine() - name of the engine that serves @space; any context. */
BALUN_API const char *balun_space_engine(const struct balun_space *space);

/* ---- devices ---- */

/**
 * balun_device_open() - open a device in a space
 * @space: the space
 * @spec: NAME[(SPEC)][:KEY=VALUE[,KEY=VALUE...]], such as "soft:mem=256M,workers=2" or
 *        "trace(ram:mem=64M)"; sizes take K, M, G (powers of 1024), times ns, us, ms, s
 * @ret_dev: the device; closed by balun_device_close() or with the space
 *
 * Return: 0; -EINVAL bad spec or unknown key (the reason points at the place); -ENODEV no driver of
 * that name, or it refused; -EBUSY what the device stands for is in use, by another space perhaps;
 * -ENOSPC the space has BALUN_MAX_DEVICES devices; -ENOMEM; -ECHILD.
 */
BALUN_API int balun_device_open(struct balun_space *space, const char *spec,
				struct balun_device **ret_dev);

/**
 * balun_device_close() - bring home everything the device holds, then end it
 * @dev: the device
 *
 * Nothing is lost and the time is bounded: device faults that arrive after the call are refused.
 * Return: 0; -EIO pages were lost, now or before, because the device failed to give them back
 * (balun_lost() says which; the device is closed all the same); -ECHILD.
 */
BALUN_API int balun_device_close(struct balun_device *dev);

/**
 * struct balun_device_info - what a device is and holds now
 * @size: set by the caller to sizeof(struct balun_device_info)
 * @id: 1..BALUN_MAX_DEVICES, its number in the space
 * @name: name of the driver, outermost wrapper first
 * @mem_total: device memory, bytes
 * @mem_used: of it in use, bytes
 * @caps: BALUN_CAP_* of driver.h
 */
struct balun_device_info {
	size_t size;
	uint32_t id;
	char name[60];
	uint64_t mem_total;
	uint64_t mem_used;
	uint64_t caps;
};

/** balun_device_info() - Return: 0; -EINVAL @ret_info->size is not known. */
BALUN_API int balun_device_info(struct balun_device *dev, struct balun_device_info *ret_info);

/* ---- moving memory ---- */

/**
 * struct balun_counts - what became of the pages of a request, in pages
 * @moved: now where they were asked to be, and were not before
 * @already: were there before
 * @empty: never touched, and left so
 * @busy: could not be isolated now (another migration, shared after fork, I/O in flight): retry
 * @pinned: balun_pin() holds them
 * @unmovable: file, shared, hugetlb, no access, or Balun's own memory: used in place
 * @nomem: no room at the destination
 * @failed: the copy failed; the page is unharmed where it was
 *
 * The sum of all is the number of pages that the request touched.
 */
struct balun_counts {
	uint64_t moved, already, empty, busy, pinned, unmovable, nomem, failed;
};

/**
 * balun_migrate() - move pages to a device, or home
 * @space: the space
 * @addr: any address
 * @len: bytes; the pages touched by [addr, addr + len) move
 * @dev: destination, or NULL for system memory
 * @ret_counts: per-page outcome, or NULL
 *
 * Never-touched pages of a mapped range migrate as zeros to a device without a copy.
 * Return: 0 also when pages stayed (see the counts); -EFAULT nothing at all is mapped in the range
 * (holes are skipped); -EINVAL length zero or wrap-around; -ENODEV the device is being
 * closed or lost; -ECHILD.
 */
BALUN_API int balun_migrate(struct balun_space *space, const void *addr, size_t len,
			    struct balun_device *dev, struct balun_counts *ret_counts);

/**
 * balun_prefetch() - as balun_migrate() with cause prefetch, done later by a service thread
 *
 * A hint: returns at once; pages that cannot move stay. balun_sync() waits for it.
 * Return: 0; -EINVAL; -ENODEV; -EAGAIN the queue is full (retry, or let it be); -ECHILD.
 */
BALUN_API int balun_prefetch(struct balun_space *space, const void *addr, size_t len,
			     struct balun_device *dev);

/** balun_sync() - wait until every prefetch queued before is done. Return: 0; -ECHILD. */
BALUN_API int balun_sync(struct balun_space *space);

/**
 * balun_evict() - make room: move least recently used blocks of a device home
 * @dev: the device
 * @bytes: at least so many, or UINT64_MAX for all
 * @ret_bytes: bytes freed, or NULL
 *
 * Pages that were on their way home when it was called are waited for.
 * Return: 0; -EBUSY what is left is pinned or busy; -EIO a copy failed; -ENODEV the device is being
 * closed or lost; -ECHILD.
 */
BALUN_API int balun_evict(struct balun_device *dev, uint64_t bytes, uint64_t *ret_bytes);

/**
 * balun_offload() - as balun_migrate() to a device, but only what is in system memory now
 *
 * What this or another device has stays there (already), and what was never touched stays so.
 * Not on the engine "kernel". Return: as balun_migrate(); -EINVAL no device; -EOPNOTSUPP.
 */
BALUN_API int balun_offload(struct balun_space *space, const void *addr, size_t len,
			    struct balun_device *dev, struct balun_counts *ret_counts);

/**
 * balun_device_spill() - where the pages go that a device evicts for room
 * @dev: the device
 * @to: another device of the space: there, and what that evicts in turn where it spills to; NULL:
 *      home, as it is in the beginning; @dev itself: it evicts nothing for room, full is full
 *
 * So devices stand in a row, as caches do. When @to is closed it is home again. Only a call of
 * balun_evict() for a device that spills to itself brings its pages home. Not on the engine
 * "kernel". Return: 0; -EINVAL it would spill to itself over others, or @to is of another space;
 * -EOPNOTSUPP; -ECHILD.
 */
BALUN_API int balun_device_spill(struct balun_device *dev, struct balun_device *to);

/**
 * balun_taken() - how much RAM touches have taken, net: what left it is taken off; may be negative
 *
 * Counted are pages that came home from devices whose memory is not RAM or left for such, and pages
 * of watched memory (balun_watch()) that the program never had.
 * Return: 0; -EOPNOTSUPP the engine is not "uffd"; -EINVAL; -ECHILD.
 */
BALUN_API int balun_taken(struct balun_space *space, int64_t *ret_bytes);

/**
 * balun_allow() - how much RAM touches may take
 * @space: the space
 * @since: what balun_taken() said when it was found out how much there is left
 * @bytes: so much more than then, net; may be negative. INT64_MAX: any, as in the beginning
 *
 * For who keeps the program below a limit. When there is nothing left a touch waits. It does not
 * wait for a thread that has stopped: when for two seconds nothing left and nothing was allowed,
 * touches are let through. Those of the thread that called this last never wait.
 * Return: as balun_taken().
 */
BALUN_API int balun_allow(struct balun_space *space, int64_t since, int64_t bytes);

/**
 * balun_allow_word() - how to hear of it when a touch has to wait for balun_allow()
 * @word: bit 0 is set then, and who sleeps on it is woken (FUTEX_WAKE_PRIVATE); it is there as long
 *        as the space is. NULL: none, as in the beginning
 *
 * Who sees the bit clears it and allows more, or makes pages leave; it is set again when a touch
 * waits after that. Return: as balun_taken().
 */
BALUN_API int balun_allow_word(struct balun_space *space, uint32_t *word);

/**
 * balun_watch() - touches of pages that the program never had count for balun_allow() from now on
 *
 * What of the range can migrate is watched by its first migration at the latest; a first touch of
 * it costs more then.
 * Return: 0, whatever cannot migrate; -EOPNOTSUPP as balun_allow(), and where system calls cannot
 * wait for a page; -EINVAL; -ECHILD.
 */
BALUN_API int balun_watch(struct balun_space *space, const void *addr, size_t len);

/**
 * balun_pin() - pages of the range stay where they are now until balun_unpin()
 *
 * Requests, policy and eviction leave them; a CPU touch of one on a device still brings it home
 * (where it then stays). Ranges may overlap and nest: each pin needs its own unpin of the same
 * range. Return: 0; -EINVAL; -ENOMEM; -ECHILD.
 */
BALUN_API int balun_pin(struct balun_space *space, const void *addr, size_t len);
/** balun_unpin() - Return: 0; -ENOENT no pin of exactly this range; -EINVAL; -ECHILD. */
BALUN_API int balun_unpin(struct balun_space *space, const void *addr, size_t len);

/** enum balun_advice - hints, by the names users know from CUDA */
enum balun_advice {
	BALUN_ADVISE_NONE,		 /* forget the hints of the range */
	BALUN_ADVISE_PREFERRED_LOCATION, /* @dev, or NULL for system memory: live here if you can */
	BALUN_ADVISE_ACCESSED_BY,	 /* @dev maps it in place; its touch alone moves nothing */
	BALUN_ADVISE_READ_MOSTLY,	 /* device reads are served in place; switched off and
					  * reported in the stats when the device keeps writing */
	BALUN_ADVISE_DISCARD,		 /* contents not needed any more: dropped from the device
					  * without a copy; reads zeros or the old bytes until
					  * written (since the hint makes no promise) */
};

/**
 * balun_advise() - give a hint for a range; the last hint of a kind wins
 * Return: 0; -EINVAL; -ENOMEM; -ECHILD.
 */
BALUN_API int balun_advise(struct balun_space *space, const void *addr, size_t len,
			   enum balun_advice advice, struct balun_device *dev);

/* ---- looking ---- */

/* enum: where the one true copy of a page is */
#define BALUN_WHERE_NONE   0 /* nothing there yet: a hole, or not mapped */
#define BALUN_WHERE_SYSTEM 1
#define BALUN_WHERE_DEVICE 2
#define BALUN_WHERE_LOST   3 /* only a device had it, and that is dead: a touch is SIGBUS */

#define BALUN_EXTENT_READ      (1u << 0) /* the program may read */
#define BALUN_EXTENT_WRITE     (1u << 1) /* the program may write */
#define BALUN_EXTENT_MAPPED    (1u << 2) /* inside a mapping of the process */
#define BALUN_EXTENT_MOVABLE   (1u << 3) /* anonymous private memory */
#define BALUN_EXTENT_PINNED    (1u << 4) /* balun_pin() */
#define BALUN_EXTENT_MIGRATING (1u << 5) /* in transit at the moment */
#define BALUN_EXTENT_ZERO      (1u << 6) /* the zero page: read, and never written */
#define BALUN_EXTENT_HUGE      (1u << 7) /* mapped by a 2 MiB page (or a larger one) */
#define BALUN_EXTENT_SHARED    (1u << 8) /* others (a forked child, a file) may map it too */
#define BALUN_EXTENT_COHERENT  (1u << 9) /* on a device, and mapped by the CPU too */

/**
 * struct balun_extent - a run of pages with the same answer
 * @addr: first byte
 * @len: bytes
 * @where: BALUN_WHERE_*
 * @device: id of the device if where is BALUN_WHERE_DEVICE, else 0
 * @flags: BALUN_EXTENT_*; of lost memory only MAPPED
 */
struct balun_extent {
	uint64_t addr, len;
	uint32_t where, device, flags, pad;
};

/**
 * balun_query() - where the pages of a range live
 * @ret_ext: array for the extents, in order of address, without gaps
 * @n: its size
 * @ret_n: extents written; if they end before addr + len, call again from there
 *
 * A snapshot: it may be out of date on return if others run. Never faults a page.
 * Return: 0; -EINVAL; -ECHILD.
 */
BALUN_API int balun_query(struct balun_space *space, const void *addr, size_t len,
			  struct balun_extent *ret_ext, size_t n, size_t *ret_n);

/**
 * balun_lost() - which memory is lost
 * @addr: where to begin; NULL for all
 * @ret_ext: array for the extents, in order of address; between them nothing is lost
 * @n: its size
 * @ret_n: extents written; if that is @n, call again from the end of the last one
 *
 * Lost is what only a device had that died (balun_device_lost() of driver.h) or would not give it
 * back. A touch is SIGBUS, a system call fails, a device's fault is -EFAULT, and a forked child
 * inherits that: until the program unmaps it, maps something else there, or drops it with
 * madvise(), after which it is fresh memory. What a device that is lost still has is looked up
 * first, so the list is complete for every device that was lost before the call.
 *
 * Return: 0; -EINVAL; -ECHILD.
 */
BALUN_API int balun_lost(struct balun_space *space, const void *addr, struct balun_extent *ret_ext,
			 size_t n, size_t *ret_n);

#define BALUN_HIST_BUCKETS 40 /* bucket i counts times in [2^i, 2^(i+1)) ns; 0 also holds 0 */

/** struct balun_hist - latency histogram, powers of two, nanoseconds */
struct balun_hist {
	uint64_t count, sum_ns, bucket[BALUN_HIST_BUCKETS];
};

/**
 * struct balun_stats - counters since the space was created
 * @size: set by the caller to sizeof(struct balun_stats)
 * @to_device: bytes moved to devices, by cause
 * @to_system: bytes moved home, by cause
 * @device_to_device: bytes moved between devices, by cause
 * @peer_bytes: of those, copied directly
 * @zero_bytes: bytes that moved as zeros, without a copy
 * @moved_bytes: bytes whose page was moved, not copied
 * @cpu_faults: touches of away memory
 * @device_faults: calls of balun_fault() by drivers
 * @retries: device faults that had to look again because memory changed meanwhile
 * @busy: pages that could not be isolated
 * @copy_errors: batches that a driver failed to copy
 * @evictions: blocks evicted for room
 * @invalidations: ranges that the program changed
 * @lost_pages: pages that a device failed to give back, or that were on one when it was lost; those
 *              count when one is touched, and by balun_lost() and balun_device_close()
 * @hints_off: hints switched off because they made things worse
 * @copy_ns: time spent in drivers' copies
 * @migrate_ns: time spent in migrations, copies included
 * @metadata_bytes: bookkeeping now held for the space
 * @cpu_fault: latency of CPU faults as served (from seen to resolved)
 * @device_fault: latency of balun_fault()
 * @migrate: latency of one block's migration
 */
struct balun_stats {
	size_t size;
	uint64_t to_device[BALUN_NR_CAUSES], to_system[BALUN_NR_CAUSES];
	uint64_t device_to_device[BALUN_NR_CAUSES];
	uint64_t peer_bytes, zero_bytes, moved_bytes;
	uint64_t cpu_faults, device_faults, retries, busy, copy_errors, evictions, invalidations;
	uint64_t lost_pages, hints_off, copy_ns, migrate_ns, metadata_bytes;
	struct balun_hist cpu_fault, device_fault, migrate;
};

/** balun_stats() - Return: 0; -EINVAL @ret_stats->size is not known; -ECHILD. */
BALUN_API int balun_stats(struct balun_space *space, struct balun_stats *ret_stats);

/* ---- what works on this machine ---- */

/**
 * struct balun_engine_info - an engine, probed
 * @size: set by the caller
 * @name: "uffd", "kernel", "sim"
 * @works: whether a space can be created with it now
 * @how: how it was opened or what it uses ("/dev/userfaultfd", "copy fallback", ...)
 * @reason: if not, why not; or what of it does not work, "" if all does
 * @remedy: what to do about it; "" if nothing
 * @features: features found, separated by spaces; a leading '-' marks one that is missing
 */
struct balun_engine_info {
	size_t size;
	char name[16];
	bool works;
	char how[96], reason[160], remedy[240], features[480];
};

/** balun_engine_info() - probe engine number @i, from 0. Return: 0; -ENOENT no such; -EINVAL. */
BALUN_API int balun_engine_info(unsigned int i, struct balun_engine_info *ret_info);

/**
 * balun_driver_info() - driver number @i, from 0: its name and a line of help for each option
 *
 * The strings are the driver's, and there while it is registered.
 * Return: 0; -ENOENT no such.
 */
BALUN_API int balun_driver_info(unsigned int i, const char **ret_name, const char **ret_help);

/**
 * struct balun_engine_driver - a driver, of an engine
 * @size: set by the caller to sizeof(struct balun_engine_driver)
 * @name: the word in a spec
 * @help: a line for each option
 */
struct balun_engine_driver {
	size_t size;
	char name[64], help[1024];
};

/**
 * balun_engine_driver() - driver number @i, from 0, that a space of an engine can open
 * @engine: name of the engine; the drivers of "kernel" are modules, all others have those of
 *          balun_driver_info()
 *
 * Return: 0; -ENOENT no such driver; -EINVAL no such engine, or the size is not known; -EPERM,
 * -EOPNOTSUPP as balun_space_create().
 */
BALUN_API int balun_engine_driver(const char *engine, unsigned int i,
				  struct balun_engine_driver *ret_drv);

/**
 * balun_driver_load() - load a driver from a shared object
 * @path: file; exports balun_driver_entry() (driver.h); stays loaded
 * Return: 0; -ENOENT, -EINVAL not such a file or its table is refused (see the reason); -EEXIST.
 */
BALUN_API int balun_driver_load(const char *path);

#ifdef __cplusplus
}
#endif
#endif
