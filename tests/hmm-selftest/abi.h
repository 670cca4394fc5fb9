/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What /dev/hmm_dmirrorN takes: from the kernel's own header where a source tree is at hand
 * (HMM_UAPI names it), else in our words, for the tests that need no download.
 */
#ifndef HMM_SELFTEST_ABI_H
#define HMM_SELFTEST_ABI_H

#ifdef HMM_UAPI
#include HMM_UAPI
#else
#include <stdint.h>
#include <sys/ioctl.h>

struct hmm_dmirror_cmd {
	uint64_t addr;	 /* in: first byte of the pages */
	uint64_t ptr;	 /* in: the program's buffer */
	uint64_t npages; /* in */
	uint64_t cpages; /* out: pages done */
	uint64_t faults; /* out: faults of the device */
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

#endif
