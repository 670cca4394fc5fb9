/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the driver nbd and its helper process share: memory, and nothing else. A program may close
 * every descriptor that it finds, so the driver keeps none.
 *
 * Who lives is told by two robust mutexes: the kernel lets go of them when their owner dies, by
 * whatever cause, exec included. A thread of the driver owns @program and waits for @helper; a
 * thread of the helper the other way round.
 */
#ifndef BALUN_DRIVERS_NBD_SHARED_H
#define BALUN_DRIVERS_NBD_SHARED_H

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NBD_SLOTS      32u
#define NBD_SLOT_BYTES (128u << 10)
#define NBD_CONNS_MAX  16u
#define NBD_HEADER     8192u /* before the data of slot 0 */
#define NBD_BYTES      (NBD_HEADER + NBD_SLOTS * NBD_SLOT_BYTES)

/* descriptors of the helper: this memory, and where it says that it owns @helper */
#define NBD_FD_SHARED 3
#define NBD_FD_BEGUN  4

enum nbd_type {
	NBD_READ,
	NBD_WRITE,
	NBD_TRIM,
};

/* one request; the driver fills it and makes it QUEUED, the helper makes it TAKEN and DONE */
struct nbd_slot {
	uint32_t state; /* futex */
#define NBD_FREE   0
#define NBD_QUEUED 1
#define NBD_TAKEN  2
#define NBD_DONE   3
	uint32_t waited; /* somebody sleeps on state */
	uint32_t type;
	uint32_t len;
	uint64_t off;
	int32_t err; /* 0 or -errno, when DONE */
} __attribute__((aligned(64)));

struct nbd_shared {
	pthread_mutex_t program, helper;
	/* from the driver */
	uint32_t stop;	 /* futex: 1: end */
	uint32_t queued; /* futex: grows with every request */
	uint32_t conns;	 /* how many connections at most */
	char uri[512];
	/* from the helper */
	uint32_t sleeping; /* how many sleep on @queued */
	uint32_t state;	   /* futex */
#define NBD_STARTING 0
#define NBD_READY    1
#define NBD_FAILED   2
	bool can_trim;
	uint32_t most;	  /* bytes in a request that reads or writes, whole pages */
	uint64_t bytes;	  /* of the export */
	char reason[256]; /* FAILED */
	struct nbd_slot slot[NBD_SLOTS];
};
_Static_assert(sizeof(struct nbd_shared) <= NBD_HEADER, "header");

static inline char *nbd_data(struct nbd_shared *s, unsigned int slot)
{
	return (char *)s + NBD_HEADER + (uint64_t)slot * NBD_SLOT_BYTES;
}

/* until *word is not @seen, woken, or (@timeout not NULL) it has passed; may also return early */
static inline void nbd_sleep(uint32_t *word, uint32_t seen, const struct timespec *timeout)
{
	syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout, NULL, 0);
}

static inline void nbd_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/*
 * A request is done. Sequentially consistent, as are the accesses of who waits: it says so and then
 * looks at the state, so one of the two sees the other.
 */
static inline void nbd_answer(struct nbd_slot *slot, int err)
{
	__atomic_store_n(&slot->err, err, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->state, NBD_DONE, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&slot->waited, __ATOMIC_SEQ_CST))
		nbd_wake(&slot->state);
}

#endif
