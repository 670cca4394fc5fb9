/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: driver.h - Balun for driver authors
 *
 * A driver is one const table of operations. It speaks of bytes and extents; it never sees a page
 * structure, a mapping, a lock of the memory manager or a retry loop.
 *
 * **Life**: open() makes a device, close() ends it. Between them a device may serve several spaces;
 * attach() and gone() bracket each. Core drains the device before it calls close().
 *
 * **Context of the ops** ("R" required, "O" optional): map, unmap* are called with the block lock
 * of the space held: they must not call balun_fault(), must not wait for anything that needs a
 * fault served, and must not touch mirrored memory. The same goes for free, trim and footprint,
 * which come from any context, also with the engine's lock held, by which CPU faults are served.
 * copy, copy_wait, alloc, peer_addr, active are called without locks and may sleep, but must make
 * progress even while every worker of the device waits in balun_fault().
 *
 * **Allocating**: in the kernel unmap* may be called by who reclaims memory. So they allocate
 * nothing; and while a lock is held that unmap* take, nothing may be allocated that waits for
 * reclaim, for that may wait for this lock: allocate before the lock is taken, or between
 * env_noreclaim_begin() and env_noreclaim_end() (env/env.h), as core calls map(); an allocation may
 * fail there. The same goes for what waits for who allocates under such a lock.
 *
 * **Memory of a driver**: what the ops touch (also stacks of the driver's own threads that copy)
 * must not be mirrored memory of the program: take it from balun_mem_alloc(), not from malloc().
 *
 * **Reading system memory**: the address of a SYSTEM operand of copy() is given to balun_bus_ptr(),
 * or is a DMA address, for a device that asks for those (struct balun_desc, dma_device); the
 * address of a SYSTEM segment of map() only to balun_bus_read()/balun_bus_write(), which never
 * crash whatever the program does to its mappings.
 */
#ifndef BALUN_DRIVER_H
#define BALUN_DRIVER_H

#include "balun/balun.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BALUN_KIND_SYSTEM 0 /* addr: bus address of system memory */
#define BALUN_KIND_LOCAL  1 /* addr: offset in this device's memory */
/*
 * addr: what the other device's peer_addr() gave for this device; of a device with a dma_device the
 * DMA address of memory of the other one (struct balun_desc, bar_device)
 */
#define BALUN_KIND_PEER 2
#define BALUN_KIND_ZERO 3 /* source of a copy only: zeros, no address */
/*
 * A segment of map() only: in this device's memory, and mapped by the CPU too. addr: bus address,
 * as of SYSTEM memory; which offset that is the device sees, for coherent memory has a place in the
 * system's addresses.
 */
#define BALUN_KIND_COHERENT 4

#define BALUN_PERM_READ	  (1u << 0)
#define BALUN_PERM_WRITE  (1u << 1)
#define BALUN_PERM_ATOMIC (1u << 2) /* no CPU can reach it meanwhile */

/**
 * struct balun_seg - one run of device page-table entries to write
 * @va: first address, multiple of 4 KiB
 * @len: bytes, multiple of 4 KiB; never crosses a 2 MiB block
 * @addr: see @kind; contiguous over the segment
 * @kind: BALUN_KIND_SYSTEM, LOCAL, PEER or COHERENT
 * @perm: BALUN_PERM_*
 */
struct balun_seg {
	uint64_t va, len, addr;
	uint32_t kind, perm;
};

/**
 * struct balun_copy - one copy of a batch
 * @dst: destination (LOCAL or SYSTEM; of a device with a dma_device also PEER)
 * @src: source (LOCAL, SYSTEM, PEER or ZERO)
 * @len: bytes, multiple of 4 KiB
 */
struct balun_copy {
	uint64_t dst, src, len;
	uint32_t dst_kind, src_kind;
};

#define BALUN_ACCESS_READ     0
#define BALUN_ACCESS_WRITE    1
#define BALUN_ACCESS_ATOMIC   2 /* write, and no CPU may reach the page meanwhile */
#define BALUN_ACCESS_PREFETCH 3 /* read, best effort: a page that cannot come is no error */

/*
 * Capabilities. MMU: has page tables, map and unmap do real work. HOST_MEMORY: device memory is
 * host memory at desc.host_base, from balun_mem_alloc(); an engine may move pages into it and out
 * of it instead of calling copy. PEER: peer_addr is there. ALLOC: alloc and free are there, an own
 * memory manager. TWO_PHASE: unmap_begin and unmap_wait are there. WRAPPER: inner is there, wraps
 * another driver. COHERENT (with HOST_MEMORY): CPUs address the device's memory as they do their
 * own; a page there stays mapped in the program, and a CPU's touch moves nothing. Its segments are
 * of kind COHERENT; LOCAL ones are pages held for ATOMIC access, whose content is at host_base +
 * addr. An engine that cannot do it clears the cap (open() is not told) and treats the memory as
 * private; balun_device_info() says.
 */
#define BALUN_CAP_MMU	      (1ULL << 0)
#define BALUN_CAP_HOST_MEMORY (1ULL << 1)
#define BALUN_CAP_PEER	      (1ULL << 2)
#define BALUN_CAP_ALLOC	      (1ULL << 3)
#define BALUN_CAP_TWO_PHASE   (1ULL << 4)
#define BALUN_CAP_WRAPPER     (1ULL << 5)
#define BALUN_CAP_COHERENT    (1ULL << 6)

/**
 * struct balun_desc - filled by open()
 * @mem_bytes: device memory, multiple of 2 MiB, at least 2 MiB; with BALUN_CAP_ALLOC and without
 *             BALUN_CAP_HOST_MEMORY of 4 KiB, at least 4 KiB
 * @host_base: with BALUN_CAP_HOST_MEMORY, where it is in the host; never touched before a copy to
 *             it or a move into it
 * @caps: BALUN_CAP_* of this device: a subset of the driver's
 * @dma_device: in the kernel, the struct device on whose behalf system memory is mapped for DMA, or
 *              NULL. Core maps the SYSTEM operands of each copy() before it, for the direction of
 *              the copy, and unmaps them after copy_wait(): until that returns, and never longer,
 *              the device may use them. Their addresses are then DMA addresses (dma_addr_t), each
 *              operand contiguous; balun_bus_ptr() is not for them
 * @bar_device: in the kernel, the struct device of the PCI device whose BAR @bar begins with the
 *              device memory, or NULL. A device with a dma_device is given that memory as PEER
 *              operands of copy(), which are mapped as SYSTEM ones are, if the kernel says that
 *              one reaches the other (docs/kernel.md)
 * @bar: number of that BAR
 */
struct balun_desc {
	uint64_t mem_bytes;
	void *host_base;
	uint64_t caps;
	void *dma_device;
	void *bar_device;
	uint32_t bar;
};

struct balun_options;

/**
 * struct balun_command - a call to the driver of a device, past core
 * @driver: name of the driver that is meant; looked for through wrappers
 * @code: the driver's own number of it
 * @arg: in and out: a struct of the driver's; no pointers in it, for it may be a copy
 * @arg_len: its size, at most BALUN_COMMAND_ARG
 * @data: in and out: memory that never migrates (balun_mem_alloc()), or NULL
 * @data_len: bytes of it
 * @data_use: BALUN_DATA_IN: only read; BALUN_DATA_OUT: only written, all of them if it returns 0,
 *            else undefined; 0: in and out. A copy that is not needed is not made
 */
struct balun_command {
	const char *driver;
	uint32_t code;
	void *arg;
	size_t arg_len;
	void *data;
	size_t data_len;
	uint32_t data_use;
};
#define BALUN_COMMAND_ARG 4096
#define BALUN_DATA_IN	  1
#define BALUN_DATA_OUT	  2

/**
 * struct balun_driver - the ops table; const, append only, checked once by balun_driver_register()
 *
 * @priv below is what open() returned. Errors are negative errnos.
 */
struct balun_driver {
	/** @size: R sizeof(struct balun_driver) */
	size_t size;
	/** @caps: R all BALUN_CAP_* that a device of this driver may have; equals the ops present
	 */
	uint64_t caps;
	/** @name: R the word in a spec: [a-z][a-z0-9_]* */
	const char *name;
	/** @help: R one line per option, "KEY=DEFAULT  what it does\n" */
	const char *help;

	/**
	 * @open: R make a device. @dev is its handle for calls into core (not before open has
	 * returned); options are read with balun_opt_*(). May sleep; opens and closes no device of
	 * the space, for a lock of that is held.
	 * Return: 0; -EINVAL bad option; -ENOMEM; -ENODEV; -EBUSY what it stands for is in use, by
	 * another space perhaps
	 */
	int (*open)(struct balun_device *dev, const struct balun_options *opt,
		    struct balun_desc *ret_desc, void **ret_priv);
	/** @close: R end it; holds no pages and no mappings by now. May sleep. */
	void (*close)(void *priv);

	/**
	 * @map: R write page-table entries, replacing what was there; a driver without an MMU
	 * returns 0. Block lock held. @n segments in order of va, all inside one block.
	 * Return: 0; -ENOMEM (core unmaps the range and reports the fault as failed)
	 */
	int (*map)(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n);
	/**
	 * @unmap: R remove the entries of a range and flush; when it returns the device uses none
	 * of them any more. Cannot fail. Block lock held; see *Allocating* above. The range may
	 * have no entries; it may cut a large entry, whose rest must stay right (or be removed too:
	 * it faults again).
	 */
	void (*unmap)(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		      enum balun_cause cause);
	/**
	 * @copy: R start a batch; ops do not overlap. @op is the caller's and may go away when
	 * copy() returns. All of a batch together is at most 2 MiB. Return: 0 and a cookie; -errno
	 * nothing of the batch counts as done, and what the places hold is undefined; -ENODEV the
	 * device is gone for good: core does what balun_device_lost() does, a wrapper may know
	 * better. -ENOSPC, -ENOMEM: it is full, or there is no memory for the copy.
	 */
	int (*copy)(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie);
	/**
	 * @copy_wait: R wait for a batch; once per cookie. When it returns the device does not use
	 * the batch's memory any more. Return: 0 all done; -EIO none counts; -ENODEV as of @copy
	 */
	int (*copy_wait)(void *priv, uint64_t cookie);

	/** @attach: O a space begins to use the device. May sleep. Return: 0 or -errno */
	int (*attach)(void *priv, struct balun_space *space);
	/** @gone: O the space does not use the device any more; forget it. Pair of @attach. */
	void (*gone)(void *priv, struct balun_space *space);

	/**
	 * @alloc: O own memory manager: one run of exactly @len bytes (4 KiB, 64 KiB or 2 MiB),
	 * aligned to its length. Return: 0; -ENOMEM full (core evicts and asks again)
	 */
	int (*alloc)(void *priv, uint64_t len, uint64_t *ret_off);
	/** @free: O give back any page-aligned part of what alloc gave. Any context, as @trim. */
	void (*free)(void *priv, uint64_t off, uint64_t len);

	/** @unmap_begin: O start an unmap; several devices' flushes overlap. Block lock held. */
	void (*unmap_begin)(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			    enum balun_cause cause);
	/** @unmap_wait: O wait for all begun by this thread: the promise of unmap holds now. */
	void (*unmap_wait)(void *priv, struct balun_space *space);

	/**
	 * @peer_addr: O an address by which the copy engine of @client reaches this device's
	 * memory at [off, off + len). Return: 0; -EOPNOTSUPP it does not (host frames are used)
	 */
	int (*peer_addr)(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
			 uint64_t *ret_addr);
	/** @active: O power: true before the first attach, false after the last gone. */
	int (*active)(void *priv, bool on);
	/**
	 * @inner: O (wrappers) the driver and priv inside. NULL: there are several, or what is
	 * inside is for the wrapper alone; balun_device_priv() looks no further then.
	 */
	const struct balun_driver *(*inner)(void *priv, void **ret_priv);
	/**
	 * @command: O what the device does beyond memory, by the driver's own public functions
	 * (balun_device_command()). No locks; may sleep. Also while the device is being closed,
	 * until active(false) has returned; close() comes when none is under way any more.
	 */
	int (*command)(void *priv, struct balun_space *space, const struct balun_command *c);
	/**
	 * @trim: O what is in device memory at [off, off + len) is not needed any more: the place
	 * is free, holds nothing of anybody until it is written to, and is given out again only
	 * after trim has returned. Not with @free, which says the same. Any context: may not sleep
	 * for long, nor take a lock that copy() holds while it waits.
	 */
	void (*trim)(void *priv, uint64_t off, uint64_t len);
	/**
	 * @footprint: O what the device takes of the host now (memory, a disk) for what it stores,
	 * bytes; for people who look. Any context: no system call, takes leaf locks at most.
	 * Return: bytes; 0 it does not say
	 */
	uint64_t (*footprint)(void *priv);
};

/* ---- driver to core ---- */

/**
 * balun_driver_register() - check a table and add it to the list
 * @drv: static; stays referenced
 * Return: 0; -EINVAL (the reason names the op or cap at fault); -EEXIST name taken.
 */
BALUN_API int balun_driver_register(const struct balun_driver *drv);

/**
 * balun_driver_unregister() - take a table off the list
 * @drv: as it was registered
 *
 * From the return on nothing refers to it. In the kernel a module does so when it is unloaded, and
 * its use count is what keeps it while devices of it are open.
 * Return: 0; -ENOENT it is not on the list; -EBUSY a device of it, or one that wraps it, is open.
 */
BALUN_API int balun_driver_unregister(const struct balun_driver *drv);

/** BALUN_DRIVER_ENTRY - the one symbol of a driver in a shared object: returns its table */
#define BALUN_DRIVER_ENTRY "balun_driver_entry"
typedef const struct balun_driver *(*balun_driver_entry_fn)(void);

/**
 * balun_fault() - the device needs these pages: make them usable and write its page table
 * @dev: from open()
 * @space: from attach()
 * @va: any address
 * @len: bytes; rounded out to pages
 * @access: BALUN_ACCESS_*
 *
 * May sleep; no lock of the driver that map/unmap/copy take may be held. On return 0 map() has been
 * called for every page of the range (a later invalidate may already have removed entries again:
 * replay the access). Where pages end up is policy's decision.
 *
 * Return: 0; -EFAULT nothing there that the CPU could read; -EPERM it could read but not write;
 * -EOPNOTSUPP ATOMIC on memory that cannot migrate; -EBUSY memory kept changing for 1 s: retry;
 * -ENOMEM; -ENODEV the device is being closed or lost; -EIO a copy failed.
 */
BALUN_API int balun_fault(struct balun_device *dev, struct balun_space *space, uint64_t va,
			  uint64_t len, uint32_t access);

/**
 * balun_device_lost() - the device is dead: it will never give back what it holds
 * @dev: from open(), until close() returns
 *
 * Any thread, any context: also inside an op, with locks held, more than once. From the return on
 * faults and migrations towards the device are refused with -ENODEV, no copy() to or from it is
 * begun, and its memory is not read, host memory neither; a copy() that is under way is believed if
 * it succeeds. The pages that were on the device are lost (balun_lost()), exactly those; a CPU
 * notices at its touch, or, where it has coherent memory mapped, once that was taken from it, by
 * balun_lost() or balun_device_close(). The driver ends the device's work with an error and makes
 * the device use no entry any more. Other ops are called as before, for what they clean up, until
 * close().
 */
BALUN_API void balun_device_lost(struct balun_device *dev);

/**
 * balun_fence() - order memory calls before against device work after
 *
 * A driver calls it when it accepts work: what the program unmapped or remapped before is then out
 * of the device's page table. May sleep. Return: 0; -ECHILD the process forked since.
 */
BALUN_API int balun_fence(struct balun_space *space);

/**
 * balun_bus_read() - a software device reads system memory through a SYSTEM segment
 * @addr: in the segment's addr range. Return: 0; -EFAULT the program took it away or forbade it.
 * May sleep (the page may have to come home first); no lock that unmap() takes may be held.
 */
BALUN_API int balun_bus_read(struct balun_space *space, uint64_t addr, void *buf, size_t len);
/** balun_bus_write() - as balun_bus_read(), the other way */
BALUN_API int balun_bus_write(struct balun_space *space, uint64_t addr, const void *buf,
			      size_t len);

/**
 * balun_bus_ptr() - host pointer of a SYSTEM operand of copy(); valid until copy_wait() returns
 * Any context. Never for a SYSTEM segment of map(), or for a device with a dma_device.
 */
BALUN_API void *balun_bus_ptr(uint64_t addr, size_t len);

/**
 * balun_bus_addr() - what balun_bus_ptr() makes @p of: names a driver's own memory as a SYSTEM
 * operand of copy() of the driver that it wraps
 * @p: from balun_mem_alloc(); stays until copy_wait() of the wrapped driver has returned. Any
 * context. Not for a wrapped device with a dma_device.
 */
BALUN_API uint64_t balun_bus_addr(const void *p);

/**
 * balun_mem_alloc() - zeroed memory that never migrates; aligned to 4 KiB, from 2 MiB up to that
 * @bytes: any size; large ones are not populated before use
 * May sleep. Return: memory, or NULL. Freed by balun_mem_free() with the same size.
 */
BALUN_API void *balun_mem_alloc(size_t bytes);
/** balun_mem_free() - give back what balun_mem_alloc() of the same size gave; may sleep */
BALUN_API void balun_mem_free(void *p, size_t bytes);

/** balun_space_set_data() - a driver's own pointer for (device, space); set in attach() */
BALUN_API void balun_space_set_data(struct balun_space *space, struct balun_device *dev, void *p);
/** balun_space_data() - what was set, or NULL; any context between attach and gone */
BALUN_API void *balun_space_data(struct balun_space *space, struct balun_device *dev);

/**
 * balun_device_priv() - priv of @dev if @drv runs it here, looking through wrappers; else NULL
 * For a driver's own public functions (soft.h). Any context.
 */
BALUN_API void *balun_device_priv(struct balun_device *dev, const struct balun_driver *drv);
/**
 * balun_device_command() - a driver's public function reaches its device, wherever that is served
 *
 * For a device of the engine "kernel" the command is done by the driver's module. May sleep.
 * Return: 0; -EINVAL no such driver runs the device, or @arg is too large; -ECHILD the process
 * forked since; -ENODEV the device is closed; what the op says.
 */
BALUN_API int balun_device_command(struct balun_device *dev, const struct balun_command *c);
/** balun_device_space() - the space that @dev was opened in; any context */
BALUN_API struct balun_space *balun_device_space(struct balun_device *dev);

/* ---- options of a spec ---- */

/**
 * balun_opt_size() - a size option ("mem=256M"), bytes; sets *ret_v to @dflt if absent
 * Return: 0; -EINVAL not a size (the reason says where). The other two alike.
 */
BALUN_API int balun_opt_size(const struct balun_options *opt, const char *key, uint64_t dflt,
			     uint64_t *ret_v);
/** balun_opt_time() - a time option ("delay=2ms"), nanoseconds */
BALUN_API int balun_opt_time(const struct balun_options *opt, const char *key, uint64_t dflt,
			     uint64_t *ret_v);
/** balun_opt_str() - a word; the string lives as long as @opt. Return: value or @dflt */
BALUN_API const char *balun_opt_str(const struct balun_options *opt, const char *key,
				    const char *dflt);
/** balun_opt_fail() - an option is wrong: sets the reason. Return: -EINVAL */
BALUN_API int balun_opt_fail(const struct balun_options *opt, const char *key, const char *why);

/** balun_inner_count() - how many specs stand in the parentheses of a wrapper's; in open() */
BALUN_API unsigned int balun_inner_count(const struct balun_options *opt);
/**
 * balun_inner_open_nth() - a wrapper over several opens one of them
 * @n: which one, from 0. In open() only; each is opened once. The device inside has @dev as its
 * handle: balun_device_lost() of it is the end of @dev, its -ENODEV is the wrapper's to take.
 * Return: 0; -EINVAL there are not so many, or what open() of the inner driver says
 */
BALUN_API int balun_inner_open_nth(struct balun_device *dev, const struct balun_options *opt,
				   unsigned int n, const struct balun_driver **ret_drv,
				   struct balun_desc *ret_desc, void **ret_priv);
/**
 * balun_inner_open() - a wrapper opens what stands in the parentheses of its spec
 * Return: 0; -EINVAL there is none, or there are several, or what open() of the inner driver says
 */
BALUN_API int balun_inner_open(struct balun_device *dev, const struct balun_options *opt,
			       const struct balun_driver **ret_drv, struct balun_desc *ret_desc,
			       void **ret_priv);

#ifdef __cplusplus
}
#endif
#endif
