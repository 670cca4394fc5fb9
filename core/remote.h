/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: remote.h - an engine whose spaces are served elsewhere: whole calls of the API
 *
 * For such an engine (struct engine_ops.remote) the entry points in api.c hand the call over, once
 * they know that the space belongs to this process. What stands here as struct balun_space and
 * struct balun_device is thin: the engine makes and frees both, as first members of its own
 * structs, and of them core uses @engine, @fork_gen, and @space.
 *
 * Each op does all that the function of its name does, checks of its arguments and the reason of a
 * refusal included. Every op required.
 */
#ifndef BALUN_CORE_REMOTE_H
#define BALUN_CORE_REMOTE_H

#include "balun/balun.h"
#include "balun/driver.h"

struct remote_ops {
	/* core sets engine and fork_gen of the answer */
	int (*space_create)(struct balun_space **ret_space);
	int (*space_destroy)(struct balun_space *space);
	int (*device_open)(struct balun_space *space, const char *spec,
			   struct balun_device **ret_dev);
	int (*device_close)(struct balun_device *dev);
	int (*device_info)(struct balun_device *dev, struct balun_device_info *ret_info);
	int (*migrate)(struct balun_space *space, const void *addr, size_t len,
		       struct balun_device *dev, struct balun_counts *ret_counts);
	int (*prefetch)(struct balun_space *space, const void *addr, size_t len,
			struct balun_device *dev);
	int (*sync)(struct balun_space *space);
	int (*evict)(struct balun_device *dev, uint64_t bytes, uint64_t *ret_bytes);
	int (*pin)(struct balun_space *space, const void *addr, size_t len);
	int (*unpin)(struct balun_space *space, const void *addr, size_t len);
	int (*advise)(struct balun_space *space, const void *addr, size_t len,
		      enum balun_advice advice, struct balun_device *dev);
	int (*query)(struct balun_space *space, const void *addr, size_t len,
		     struct balun_extent *ret_ext, size_t n, size_t *ret_n);
	int (*lost)(struct balun_space *space, const void *addr, struct balun_extent *ret_ext,
		    size_t n, size_t *ret_n);
	int (*stats)(struct balun_space *space, struct balun_stats *ret_stats);
	int (*driver)(unsigned int i, struct balun_engine_driver *ret_drv);
	int (*fault)(struct balun_device *dev, struct balun_space *space, uint64_t va, uint64_t len,
		     uint32_t access);
	int (*fence)(struct balun_space *space);
	int (*command)(struct balun_device *dev, const struct balun_command *c);
};

#endif
