/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What /dev/hmm_dmirrorN takes, and what it is to a dmirror device: from the kernel's own header
 * where a source tree is at hand (HMM_UAPI names it), else in our words. For the shim, and for the
 * module that is its twin in the kernel.
 */
#ifndef HMM_SELFTEST_ABI_H
#define HMM_SELFTEST_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#include "balun/dmirror.h"

#ifdef HMM_UAPI
#include HMM_UAPI
#else
struct hmm_dmirror_cmd {
	__u64 addr;   /* in: first byte of the pages */
	__u64 ptr;    /* in: the program's buffer */
	__u64 npages; /* in */
	__u64 cpages; /* out: pages done */
	__u64 faults; /* out: faults of the device */
};

#define HMM_CMD_(nr)		    _IOWR('H', nr, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_READ	    HMM_CMD_(0)
#define HMM_DMIRROR_WRITE	    HMM_CMD_(1)
#define HMM_DMIRROR_MIGRATE_TO_DEV  HMM_CMD_(2)
#define HMM_DMIRROR_MIGRATE_TO_SYS  HMM_CMD_(3)
#define HMM_DMIRROR_SNAPSHOT	    HMM_CMD_(4)
#define HMM_DMIRROR_EXCLUSIVE	    HMM_CMD_(5)
#define HMM_DMIRROR_CHECK_EXCLUSIVE HMM_CMD_(6)
#define HMM_DMIRROR_RELEASE	    HMM_CMD_(7)
#endif

/* 7.x only: npages are flags for the next allocation; READ of memory that userfaultfd watches */
#ifndef HMM_DMIRROR_FLAGS
#define HMM_DMIRROR_FLAGS	  _IOWR('H', 8, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_READ_UNLOCKED _IOWR('H', 9, struct hmm_dmirror_cmd)
#endif

/* the op of a request, or -EINVAL */
static inline int hmm_op(unsigned long request)
{
	switch (request) {
	case HMM_DMIRROR_READ:
	case HMM_DMIRROR_READ_UNLOCKED:
		return BALUN_DMIRROR_READ;
	case HMM_DMIRROR_WRITE:
		return BALUN_DMIRROR_WRITE;
	case HMM_DMIRROR_MIGRATE_TO_DEV:
		return BALUN_DMIRROR_TO_DEVICE;
	case HMM_DMIRROR_MIGRATE_TO_SYS:
		return BALUN_DMIRROR_TO_SYSTEM;
	case HMM_DMIRROR_SNAPSHOT:
		return BALUN_DMIRROR_SNAPSHOT;
	case HMM_DMIRROR_EXCLUSIVE:
		return BALUN_DMIRROR_EXCLUSIVE;
	case HMM_DMIRROR_CHECK_EXCLUSIVE:
		return BALUN_DMIRROR_CHECK_EXCLUSIVE;
	case HMM_DMIRROR_RELEASE:
		return BALUN_DMIRROR_RELEASE;
	default:
		return -EINVAL;
	}
}

/* bytes of the program's buffer that a command fills */
static inline __u64 hmm_filled(const struct balun_dmirror_cmd *c)
{
	return c->op == BALUN_DMIRROR_WRITE ? 0 : balun_dmirror_buf(c);
}

#endif
