/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: demo.h - the parts of `balun demo`
 *
 * cmd_demo.c    options, input, set-up
 * demo_run.c    the two runs, the check, the change
 * demo_soft.c   what runs on the device
 * demo_mem.c    how the CPU reaches the graph: directly, or in the process that "sim" simulates
 * demo_hammer.c CPU threads that use the graph all the time
 * demo_report.c tables
 */
#ifndef BALUN_TOOLS_DEMO_H
#define BALUN_TOOLS_DEMO_H

#include "balun/balun.h"
#include "balun/soft.h"
#include "graph.h"

#include <pthread.h>

#define DEMO_CMD	 "demo"
#define DEMO_HAMMERS_MAX 64

/* what a worker needs to walk the graph: which packages it saw, and those still to look at */
struct scratch {
	uint32_t *seen;
	struct pkg **queue;
};

/**
 * struct job - arguments of one launch; in the program's memory, as is all that it points to
 * @from: first package of this launch
 * @to: one past the last
 * @leak: where ranks of packages without dependencies gather, for even and odd iterations
 * @iteration: of PageRank
 */
struct job {
	struct pkg **all;
	struct name **bucket;
	struct scratch *scratch;
	uint64_t npkgs, nbuckets, from, to, iteration;
	uint64_t leak[2];
};

/* functions for balun_soft_launch(); the argument is the address of a struct job */
void demo_soft_link(struct soft_worker *w, uint64_t arg);
void demo_soft_reach(struct soft_worker *w, uint64_t arg);
void demo_soft_rank_init(struct soft_worker *w, uint64_t arg);
void demo_soft_rank_push(struct soft_worker *w, uint64_t arg);
void demo_soft_rank_pull(struct soft_worker *w, uint64_t arg);

/**
 * struct demo_mem - how CPU threads reach the graph
 * @sim: the space whose process is simulated, or NULL: the graph's memory is the mirrored memory
 * @page: pages mapped in the simulated process, sorted
 * @lock: shared: the graph may be read and fields of one's own written; exclusive: it changes
 */
struct demo_mem {
	struct balun_space *sim;
	uint64_t *page;
	size_t npages;
	pthread_rwlock_t lock;
};

int demo_mem_init(struct demo_mem *m, struct balun_space *sim);
void demo_mem_destroy(struct demo_mem *m);
/* constant memory of the graph; 0 or -errno */
int demo_mem_read(struct demo_mem *m, const void *p, void *buf, size_t len);
/* a word that others may write meanwhile */
int demo_mem_load(struct demo_mem *m, const uint64_t *p, uint64_t *ret_v);
int demo_mem_store(struct demo_mem *m, uint64_t *p, uint64_t v);

/* everything the device may reach */
struct demo_objects {
	struct graph *g;
	struct job *job;
	unsigned int nworkers;
};
/* sim only, no-ops else: copy all objects of the program to the simulated process, and back.
 * The caller holds the lock exclusively. */
int demo_mem_to_sim(struct demo_mem *m, struct demo_objects *o);
int demo_mem_from_sim(struct demo_mem *m, struct demo_objects *o);

struct demo_hammer;
/* @n threads begin; returns when each has been through the graph once */
int demo_hammer_start(struct demo_mem *m, struct graph *g, unsigned int n,
		      struct demo_hammer **ret_h);
/* they end; returns how many reads were wrong, and prints */
uint64_t demo_hammer_stop(struct demo_hammer *h);

struct demo {
	struct balun_space *space;
	struct balun_device *dev;
	struct demo_mem mem;
	struct demo_objects o;
	struct demo_hammer *hammer;
	bool quiet; /* mem.lock is held exclusively */
	uint64_t started;
	bool progress; /* a line of it stands on the terminal */
};

/* 0 all equal; 1 something differs; -errno. Says which. */
int demo_run_both(struct demo *d, unsigned int hammers);

void demo_report_top(const struct graph *g);
void demo_report_stats(const struct balun_stats *st);

#endif
