/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft_dev.h - the soft accelerator's own types
 *
 * Locks: soft.lock (queues, fences) and soft_mmu.lock are leaves and not nested; an rmw lock may be
 * held across balun_bus_read() and balun_bus_write(), so no op of the table takes one.
 */
#ifndef BALUN_SOFT_DEV_H
#define BALUN_SOFT_DEV_H

#include "drivers/soft_mmu.h"

#define SOFT_MAX_WORKERS  256
#define SOFT_FAULT_BATCH  256 /* no more can be queued: a worker waits for its one fault */
#define SOFT_MAX_FAILURES 256
#define SOFT_RMW_LOCKS	  16

/* (device, space) */
struct soft_space {
	struct soft_pt pt;
	struct balun_space *space;
};

/* a launch; commands run one after the other */
struct soft_cmd {
	struct env_list link;
	struct soft_space *ss;
	soft_fn fn;
	uint64_t arg, fence, err_va;
	unsigned int nworkers, left;
	bool cancelled; /* read without the lock */
	int err;
};

/* an entry of the fault queue: pages [va, va + 4 KiB) of @ss are needed for @access */
struct soft_fault {
	struct soft_space *ss;
	uint64_t va;
	uint32_t access;
	int err;
	struct soft_thread *t;
};

struct soft_thread {
	struct soft_unit unit; /* first */
	struct soft *s;
	struct env_thread *thread;
	struct soft_cmd *cmd; /* now running here */
	uint64_t last;	      /* fence of the command run last */
	bool waiting;	      /* for a fault to be served */
	int fault_err;
	void *trap[5];	       /* __builtin_setjmp */
	uint32_t bus_accesses; /* in place, by this worker */
};

struct soft_failure {
	uint64_t fence, va;
	int err;
};

struct soft {
	struct soft_mmu mmu;
	struct balun_device *dev;
	void *mem;
	uint64_t mem_bytes;
	unsigned int nworkers, fork_gen;
	struct soft_thread *worker;
	struct soft_unit *unit[SOFT_MAX_WORKERS + 1];
	struct env_mutex rmw[SOFT_RMW_LOCKS]; /* atomics, by address */

	struct env_mutex lock;
	struct env_cond work, done, faulted, replay;
	struct env_list cmds;
	uint64_t fence, done_fence; /* issued; passed */
	struct soft_failure failure[SOFT_MAX_FAILURES];
	unsigned int nfailures, waiters, nstarted;
	bool running, fault_stop;
	struct env_thread *fault_thread;
	unsigned int nqueued;
	struct soft_fault queue[SOFT_FAULT_BATCH];
	struct soft_fault batch[SOFT_FAULT_BATCH]; /* the fault thread's */
};

extern const struct balun_driver balun_soft_driver;

/* what is asked for at a launch; nworkers 0: all */
struct soft_work {
	soft_fn fn;
	uint64_t arg;
	unsigned int nworkers;
};
/* soft.c: balun_soft_launch() and wait() of a device that is here. With a timeout the wait is one
 * moment, of at most so long; -EAGAIN: the fence has not passed */
int balun_soft_queue(struct soft *s, struct balun_space *space, const struct soft_work *work,
		     uint64_t *ret_fence);
int balun_soft_await(struct soft *s, uint64_t fence, uint64_t timeout_ns, uint64_t *ret_addr);

/* soft_access.c: the fault-service thread */
void balun_soft_fault_main(void *arg);

/* soft_call.c */
int balun_soft_command(void *priv, struct balun_space *space, const struct balun_command *c);

#endif
