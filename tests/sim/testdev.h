/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* testdev.h - the device of the exploration, between testdev.c and testdev_mem.c */
#ifndef BALUN_SIM_TESTDEV_H
#define BALUN_SIM_TESTDEV_H

#include "tests/sim/sim_test.h"

#define MEM_PAGES 512 /* 2 MiB */
#define DEVS	  (DEVICES - 1)
#define COPY_OPS  512
#define COPIES	  8
#define PEER_BASE (1ULL << 40)

struct entry {
	uint32_t page; /* LOCAL: page of device memory */
	uint8_t kind, perm;
	bool valid;
	uint64_t until[3]; /* when it ceased to have BALUN_PERM_READ, WRITE, ATOMIC */
	uint8_t users; /* accesses that use it at the moment; counts also after it was removed */
};

struct copy_batch {
	bool used, fail;
	size_t n;
	struct balun_copy op[COPY_OPS];
};

struct testdev {
	struct balun_device *dev;
	struct balun_space *space; /* between attach and gone */
	unsigned int slot, room, used;
	bool attached, closing;
	bool dead, mute; /* its copies fail for good; its accesses too */
	bool told;	 /* core knows: it begins no copy any more */
	uint64_t caps;
	unsigned int refs;     /* calls of the test that are inside */
	unsigned int draining; /* accesses through entries that are gone already */
	struct env_mutex lock;
	struct env_cond quiet; /* refs or draining went down */
	struct entry entry[ENTRIES];
	bool taken[MEM_PAGES]; /* with an allocator of its own */
	uint8_t nmapped[MEM_PAGES];
	uint8_t failures[MEM_PAGES]; /* copies from it that failed: a page is not lost to bad luck
				      */
	struct copy_batch batch[COPIES];
	bool zero[MEM_PAGES]; /* mem is to be read as zero: spares filling it */
	/* aligned as the memory of a device that CPUs address must be */
	char mem[MEM_PAGES][BALUN_PAGE_SIZE] __attribute__((aligned(1 << 21)));
};

extern struct testdev devs[DEVS];

/* testdev_mem.c */
char *testdev_page(struct testdev *t, unsigned int i); /* content of a page of device memory */
int testdev_alloc(void *priv, uint64_t len, uint64_t *ret_off);
void testdev_free(void *priv, uint64_t off, uint64_t len);
int testdev_peer_addr(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
		      uint64_t *ret_addr);
int testdev_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie);
int testdev_copy_wait(void *priv, uint64_t cookie);

#endif
