/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: client.h - the engine "kernel" as a program sees it: balun.ko serves its spaces
 *
 *   client.c   what is there, making and ending a space, opening and closing devices
 *   ops.c      all other calls, one ioctl each
 *
 * A call is checked by the module's own entry points, which also say why they refuse; here only
 * what a number cannot say is checked: that a device is one of this space.
 */
#ifndef BALUN_ENGINE_CLIENT_H
#define BALUN_ENGINE_CLIENT_H

#include "balun/uapi.h"
#include "core/core.h"
#include "core/remote.h"

/**
 * struct client_device - a device of balun.ko
 * @handle: its number there
 * @link: in the space's list of open or closed ones
 */
struct client_device {
	struct balun_device dev;
	uint64_t handle;
	struct env_list link;
};

/**
 * struct client_space - a space of balun.ko: an open /dev/balun
 * @lock: of the lists; leaf
 * @open: devices
 * @closed: devices that were: a thread that works as one may still ask, and is told -ENODEV. The
 *          last CLIENT_CLOSED of them, oldest first
 */
struct client_space {
	struct balun_space sp;
	int fd;
	struct env_mutex lock;
	struct env_list open, closed;
	unsigned int nclosed;
};
#define CLIENT_CLOSED 64

static inline struct client_space *client_space(struct balun_space *sp)
{
	return env_container_of(sp, struct client_space, sp);
}

/* client.c: an ioctl; sets the head of @arg, and the reason where the module says one */
int client_call(int fd, unsigned long nr, void *arg, size_t size);
int client_open_node(int *ret_fd);

/* ops.c */
int client_migrate(struct balun_space *space, const void *addr, size_t len,
		   struct balun_device *dev, struct balun_counts *ret_counts);
int client_prefetch(struct balun_space *space, const void *addr, size_t len,
		    struct balun_device *dev);
int client_sync(struct balun_space *space);
int client_evict(struct balun_device *dev, uint64_t bytes, uint64_t *ret_bytes);
int client_pin(struct balun_space *space, const void *addr, size_t len);
int client_unpin(struct balun_space *space, const void *addr, size_t len);
int client_advise(struct balun_space *space, const void *addr, size_t len, enum balun_advice advice,
		  struct balun_device *dev);
int client_query(struct balun_space *space, const void *addr, size_t len,
		 struct balun_extent *ret_ext, size_t n, size_t *ret_n);
int client_lost(struct balun_space *space, const void *addr, struct balun_extent *ret_ext, size_t n,
		size_t *ret_n);
int client_stats(struct balun_space *space, struct balun_stats *ret_stats);
int client_driver(unsigned int i, struct balun_engine_driver *ret_drv);
int client_info(struct balun_device *dev, struct balun_device_info *ret_info);
int client_fault(struct balun_device *dev, struct balun_space *space, uint64_t va, uint64_t len,
		 uint32_t access);
int client_fence(struct balun_space *space);
int client_command(struct balun_device *dev, const struct balun_command *c);

#endif
