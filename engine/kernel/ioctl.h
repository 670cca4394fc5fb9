/* SPDX-License-Identifier: GPL-2.0-only */
/**
 * DOC: ioctl.h - /dev/balun (balun/uapi.h): a file is a space
 *
 *   ioctl.c   the file, the spaces and devices of it, and how a call comes in and goes out
 *   calls.c   the calls of a space and its devices
 *
 * What keeps any order of calls by any number of threads from harm:
 * - A call that uses the space is counted. Who ends the space closes the devices first, so that
 *   calls that wait for one of them return; then no more are let in, and it waits for the rest.
 * - A device is reached by a handle that no other device of the file ever has. The struct that core
 *   has of it stays as long as the slot has the handle (core_device_keep()), and who looks it up
 *   does so with the file's lock and enters the device (core_device_enter()) before letting go of
 *   that. A device is closed once, by who marks the slot; core waits for those that have entered,
 *   and refuses others in the end.
 */
#ifndef BALUN_KERNEL_IOCTL_H
#define BALUN_KERNEL_IOCTL_H

#include <linux/mutex.h>
#include <linux/wait.h>

#include "balun/uapi.h"
#include "core/core.h"

#define SLOTS (BALUN_MAX_DEVICES + 1)

enum state {
	NEW,
	MAKING, /* by one call */
	LIVE,
	ENDING, /* devices are being closed */
	ENDED,
};

/* an open file */
struct knode {
	struct mutex lock;	     /* of what follows; leaf, but for core's move_lock */
	struct wait_queue_head idle; /* calls became 0 */
	enum state state;
	unsigned int calls; /* in progress, that use the space */
	struct balun_space *space;
	struct mm_struct *mm; /* of who made the space, to compare */
	u64 serial;	      /* devices opened so far */
	struct {
		struct balun_device *dev;
		u64 handle; /* 0: none */
		bool closing;
	} slot[SLOTS];
	void *spare; /* for the data of a command: what is in it was this file's before, or 0 */
	size_t spare_len;
};
#define SPARE_MAX (4UL << 20) /* bytes of it that are kept from call to call */

/* a call: its struct, and the text why it fails */
struct kcall {
	struct knode *node;
	struct balun_space *space;
	union {
		struct balun_uapi_head head;
		struct balun_uapi_info info;
		struct balun_uapi_driver driver;
		struct balun_uapi_open open;
		struct balun_uapi_device device;
		struct balun_uapi_migrate migrate;
		struct balun_uapi_range range;
		struct balun_uapi_evict evict;
		struct balun_uapi_list list;
		struct balun_uapi_stats stats;
		struct balun_uapi_command command;
	} args;
	struct env_reason_text why;
};

/* ioctl.c: the device of a handle, entered; NULL for handle 0. Until kcall_put() */
int kcall_get(struct kcall *c, u64 handle, struct balun_device **ret_dev);
void kcall_put(struct balun_device *dev);

/* calls.c */
int kcall_info(struct kcall *c);
int kcall_driver(struct kcall *c);
int kcall_device(struct kcall *c);
int kcall_migrate(struct kcall *c);
int kcall_prefetch(struct kcall *c);
int kcall_sync(struct kcall *c);
int kcall_evict(struct kcall *c);
int kcall_pin(struct kcall *c);
int kcall_unpin(struct kcall *c);
int kcall_advise(struct kcall *c);
int kcall_fault(struct kcall *c);
int kcall_fence(struct kcall *c);
int kcall_query(struct kcall *c);
int kcall_lost(struct kcall *c);
int kcall_stats(struct kcall *c);
int kcall_command(struct kcall *c);

#endif
