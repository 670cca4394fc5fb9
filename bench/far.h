/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The far benches: programs with most of their memory elsewhere.
 *
 *   far_run.c    the benches: the same program under `balun run` and in a memory cgroup with swap
 *   far_work.c   that program
 *   far_swap.c   swap and cgroups: set up, and taken away again whatever happens
 */
#ifndef BALUN_BENCH_FAR_H
#define BALUN_BENCH_FAR_H

#include "bench/bench.h"

enum far_swap {
	FAR_ZRAM,
	FAR_FILE,
};

struct far_swap_state;

/* ---- far_swap.c ---- */

/*
 * A process that sets up swap of @bytes and two memory cgroups, and takes all of it away when
 * far_swap_end() is called or this process ends, however it ends. 0, or -errno and the reason is in
 * run->detail; -EOPNOTSUPP: not allowed or not there.
 */
int far_swap_begin(struct bench_run *run, enum far_swap kind, uint64_t bytes, uint64_t resident);
void far_swap_end(struct bench_run *run);
/* the swap is used from now on, or is not */
int far_swap_on(struct bench_run *run, bool on);
/* in a child: into the cgroup with the limit, or into the one without */
int far_cgroup_enter(struct bench_run *run, bool limited);
/* the most memory that was charged to it since this was asked last */
uint64_t far_cgroup_peak(struct bench_run *run, bool limited);
/* Brings the kernel's counters of it up to date. far.md says what for. */
void far_cgroup_look(struct bench_run *run, bool limited);
/* how many processes in it the OOM killer has ended so far */
uint64_t far_cgroup_oom_kills(struct bench_run *run, bool limited);
/* host memory that zram took, at most, since this was asked last */
uint64_t far_zram_peak(struct bench_run *run);
/* where files go: $TMPDIR or /var/tmp */
const char *far_folder(void);

/* ---- far_work.c ---- */

/* `balun bench --far-work PATTERN BYTES`: exit code */
int far_work_main(const char *name, const char *bytes);

#endif
