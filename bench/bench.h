/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: bench.h - what the benches share
 *
 * A bench measures a value and, beside it in the same run, the limit: what the bare machine needs
 * for the same work. The harness takes them in pairs, in turn first, and reports the medians of
 * both and of the ratio of each pair. See METHOD.md.
 */
#ifndef BALUN_BENCH_H
#define BALUN_BENCH_H

#include "balun/balun.h"

#include <pthread.h>

#define BENCH_MAX_DEVICES 2
#define MIB		  (1UL << 20)

struct raw_uffd {
	int fd;
	uint64_t features;
};

/* one run of a bench; each uses the fields that it needs, all start as zero */
struct bench_run {
	const char *engine;
	const void *arg; /* the bench's */
	struct balun_space *space;
	struct balun_device *dev[BENCH_MAX_DEVICES];
	char *mem, *raw_mem, *raw_to; /* Balun's, and the limit's: never the same */
	size_t len;
	unsigned int seed;
	struct raw_uffd raw;
	pthread_t thread;
	bool thread_runs, thread_stop;
	void *priv;
	char detail[200]; /* a line for people; or why it cannot be done */
};

struct bench {
	const char *name, *unit;
	const char *what, *limit_what;
	double target;	      /* on the ratio; 0: none */
	bool target_on_value; /* on the value instead, where 0 is a target */
	bool on_request; /* takes long, or changes the system while it runs: only by its name */
	const void *arg; /* for run->arg */
	unsigned int runs;
	/* 0 or -errno with run->detail; -EOPNOTSUPP: this machine cannot, the bench is skipped */
	int (*setup)(struct bench_run *run);
	int (*value)(struct bench_run *run, double *ret);
	int (*limit)(struct bench_run *run, double *ret);
	void (*teardown)(struct bench_run *run); /* beyond bench_end() */
};

/* `balun bench`: exit code 0 measured, 1 failed, 2 usage, 3 not possible here */
int bench_main(int argc, char **argv);

/* the table, in the order of the report */
extern const struct bench bench_migrate_2m_ram, bench_migrate_4k_ram, bench_migrate_2m_soft,
	bench_home_2m_soft, bench_fault_back_4k, bench_touch_seq_soft, bench_device_stream,
	bench_peer_copy, bench_metadata, bench_scale, bench_idle_cost, bench_kernel_there_4k,
	bench_kernel_home_4k, bench_kernel_there_2m, bench_kernel_home_2m, bench_lz4_store,
	bench_lz4_load, bench_far_idle, bench_far_idle_malloc, bench_far_idle_calls,
	bench_far_idle_mapped;
#define NR_BENCH_FAR 54
extern const struct bench bench_far[NR_BENCH_FAR];

/* ---- mem.c ---- */

double bench_now_ns(void);
/* records what went wrong, for people; returns @err */
int bench_fail(struct bench_run *run, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* space on the engine and devices by spec (NULL: none) */
int bench_begin(struct bench_run *run, const char *spec0, const char *spec1);
void bench_end(struct bench_run *run);
/* aligned to 2 MiB, of huge pages if @huge (and there are any), else of none; filled, never zero */
int bench_map(struct bench_run *run, size_t len, bool huge, char **ret);
/* the same, never touched */
int bench_map_empty(struct bench_run *run, size_t len, char **ret);
void bench_unmap(char *p, size_t len);
/* madvise(MADV_DONTNEED) */
void bench_drop(char *p, size_t len);
/* [p, p + len) to @dev (NULL: home); -EIO unless every page is there after it */
int bench_migrate(struct bench_run *run, char *p, size_t len, struct balun_device *dev);
/* time of memcpy of 2 MiB between warm buffers: raw_mem and raw_to */
double bench_memcpy_ns(struct bench_run *run, unsigned int n);
/* raw_mem and raw_to for it */
int bench_memcpy_setup(struct bench_run *run);
uint32_t bench_random(struct bench_run *run);

/* ---- raw.c: the system calls, for limits ---- */

int raw_open(struct bench_run *run);
void raw_close(struct bench_run *run);
int raw_register(struct bench_run *run, char *p, size_t len);
/* -EOPNOTSUPP: a kernel without it */
int raw_move(struct bench_run *run, char *to, char *from, size_t len);
int raw_copy_page(struct bench_run *run, char *to, const char *from);
/* the smallest handler of faults, a thread: poll, read, UFFDIO_COPY */
int raw_handler_start(struct bench_run *run);
/* stops it by one last fault, at @page, which must be empty */
void raw_handler_stop(struct bench_run *run, volatile char *page);

#endif
