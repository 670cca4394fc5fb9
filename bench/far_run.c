// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The far benches: one program, whose memory is a multiple of what may be resident, under
 * `balun run` and with the kernel's swap. far.md says how they measure.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/far.h"

#define RESIDENT (64 * MIB)
/* the cgroup counts the program's text, page tables and stack too; Balun's limit does not */
#define ALLOWANCE  (4 * MIB)
#define IDLE_BYTES (48 * MIB)
#define LOOK_MS	   100
#define NOT_BEGUN  125 /* exit code */

/* what a bench is about, its argument */
struct far {
	const char *pattern;
	unsigned int times; /* the working set, in resident sizes; 0: nothing is evicted */
	enum far_swap kind;
};

/* what one run of the program said, and cost */
struct outcome {
	double ns;
	uint64_t ops, sum;
	double cpu_ns; /* of all threads, in the timed part */
	uint64_t peak;
	bool seen;
};

/* the child: never returns */
static void exec_work(struct bench_run *run, bool balun, bool cgroup, int out, int stats)
{
	const struct far *f = run->arg;
	char self[512] = "", bytes[32], resident[32], device[300], where[64];
	char *argv[24];
	int n = 0;

	if (cgroup && far_cgroup_enter(run, !balun))
		_exit(NOT_BEGUN);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0 || dup2(out, 1) < 0)
		_exit(NOT_BEGUN);
	snprintf(bytes, sizeof(bytes), "%llu",
		 (unsigned long long)(f->times ? f->times * RESIDENT : IDLE_BYTES));
	snprintf(resident, sizeof(resident), "%llu",
		 (unsigned long long)(f->times ? RESIDENT : 16 * IDLE_BYTES));
	snprintf(where, sizeof(where), "/proc/%d/fd/%d", getppid(), stats);
	if (f->kind == FAR_ZRAM)
		snprintf(device, sizeof(device), "lz4:mem=2G");
	else
		snprintf(device, sizeof(device), "file:path=%s,size=2G", far_folder());
	argv[n++] = self;
	if (balun) {
		argv[n++] = "run";
		argv[n++] = "--quiet";
		argv[n++] = "--resident";
		argv[n++] = resident;
		argv[n++] = "--device";
		argv[n++] = device;
		argv[n++] = "--stats";
		argv[n++] = where;
		argv[n++] = "--";
		argv[n++] = self;
	}
	argv[n++] = "bench";
	argv[n++] = "--far-work";
	argv[n++] = (char *)f->pattern;
	argv[n++] = bytes;
	argv[n] = NULL;
	execv(self, argv);
	_exit(NOT_BEGUN);
}

/* "key":N of the first process in the statistics; 0 */
static uint64_t stat_number(int stats, const char *key)
{
	char text[4096] = "", name[32], *at;

	if (pread(stats, text, sizeof(text) - 1, 0) < 0)
		return 0;
	snprintf(name, sizeof(name), "\"%s\":", key);
	at = strstr(text, name);
	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static int read_outcome(int out, struct outcome *ret)
{
	char text[128] = "";
	unsigned long long ops, sum;

	if (pread(out, text, sizeof(text) - 1, 0) < 0 ||
	    sscanf(text, "%lf %llu %llu %lf", &ret->ns, &ops, &sum, &ret->cpu_ns) != 4 || !ops)
		return -EIO;
	ret->ops = ops;
	ret->sum = sum;
	return 0;
}

/*
 * Until it has ended. In a cgroup with a limit that is looked at meanwhile: a kernel whose reclaim
 * goes by counters that are only added up every 2 to 4 seconds (6.18 does) finds nothing to reclaim
 * when swap is so fast that it turned over everything in less, and calls the OOM killer.
 */
static int wait_work(struct bench_run *run, pid_t pid, bool limited, int *ret_status)
{
	struct pollfd p = { .fd = pidfd_open(pid, 0), .events = POLLIN };

	while (limited && p.fd >= 0 && !poll(&p, 1, LOOK_MS))
		far_cgroup_look(run, true);
	if (p.fd >= 0)
		close(p.fd);
	return waitpid(pid, ret_status, 0) == pid ? 0 : -errno;
}

/* the program did not end as it should: whose side it was, and by what. Only if the kernel has
 * killed its own side this is no failure: then there is nothing to compare with. */
static int say_end(struct bench_run *run, bool balun, bool oom, int status)
{
	const char *side = balun ? "the program under balun run" : "the program without Balun";

	if (oom && !balun)
		return bench_fail(run, -EOPNOTSUPP,
				  "the kernel's side cannot be compared: its OOM killer ended the "
				  "program at the limit of the memory cgroup");
	if (WIFSIGNALED(status))
		return bench_fail(run, -EIO, "%s was ended by signal %d (%s)%s", side,
				  WTERMSIG(status), strsignal(WTERMSIG(status)),
				  oom ? ", by the kernel's OOM killer" : "");
	if (WEXITSTATUS(status) == NOT_BEGUN)
		return bench_fail(run, -EIO, "%s could not be begun", side);
	if (WEXITSTATUS(status))
		return bench_fail(run, -EIO, "%s ended with exit code %d", side,
				  WEXITSTATUS(status));
	return bench_fail(run, -EIO, "%s has not said what it did", side);
}

static int run_work(struct bench_run *run, bool balun, bool cgroup, struct outcome *ret)
{
	int out = memfd_create("balun-far", MFD_CLOEXEC), status = 0, err = 0;
	int stats = memfd_create("balun-far-stats", MFD_CLOEXEC);
	uint64_t kills = cgroup ? far_cgroup_oom_kills(run, !balun) : 0;
	pid_t pid;

	if (out < 0 || stats < 0)
		return bench_fail(run, -ENOMEM, "no memory");
	fflush(NULL);
	pid = fork();
	if (!pid)
		exec_work(run, balun, cgroup, out, stats);
	if (pid < 0 || wait_work(run, pid, cgroup && !balun, &status))
		err = bench_fail(run, -ECHILD, "no process: %s", strerror(errno));
	else if (!WIFEXITED(status) || WEXITSTATUS(status) || read_outcome(out, ret))
		err = say_end(run, balun, cgroup && far_cgroup_oom_kills(run, !balun) > kills,
			      status);
	if (!err)
		ret->peak = stat_number(stats, "peak");
	close(out);
	close(stats);
	return err;
}

/* ---- against the kernel's swap ---- */

/* kept from one pair to the next, for the detail */
static struct outcome ours, theirs;
static uint64_t our_host, their_host;

static void say(struct bench_run *run)
{
	snprintf(run->detail, sizeof(run->detail),
		 "peak resident %.0f MiB of %.0f; host memory in all %.0f MiB, the kernel's %.0f; "
		 "CPU %.0f ns/op, %.0f",
		 ours.peak / (double)MIB, RESIDENT / (double)MIB, our_host / (double)MIB,
		 their_host / (double)MIB, ours.ops ? ours.cpu_ns / ours.ops : 0,
		 theirs.ops ? theirs.cpu_ns / theirs.ops : 0);
}

/* the two must have computed the same */
static int check(struct bench_run *run)
{
	if (ours.seen && theirs.seen && ours.sum != theirs.sum)
		return bench_fail(run, -EIO, "the program computed something else");
	say(run);
	return 0;
}

static int far_setup(struct bench_run *run)
{
	const struct far *f = run->arg;

	ours.seen = theirs.seen = false;
	return far_swap_begin(run, f->kind, (f->times + 1) * RESIDENT, RESIDENT + ALLOWANCE);
}

static void far_teardown(struct bench_run *run)
{
	far_swap_end(run);
}

static int far_value(struct bench_run *run, double *ret)
{
	int err;

	far_cgroup_peak(run, false);
	err = run_work(run, true, true, &ours);
	our_host = far_cgroup_peak(run, false);
	if (err)
		return err;
	ours.seen = true;
	*ret = ours.ns / ours.ops;
	return check(run);
}

static int far_limit(struct bench_run *run, double *ret)
{
	int err = far_swap_on(run, true), off;

	if (err)
		return err;
	far_zram_peak(run);
	far_cgroup_peak(run, true);
	err = run_work(run, false, true, &theirs);
	their_host = far_cgroup_peak(run, true) + far_zram_peak(run);
	off = far_swap_on(run, false);
	if (err || off)
		return err ? err : off;
	theirs.seen = true;
	*ret = theirs.ns / theirs.ops;
	return check(run);
}

#define FAR(dev, pat, n, swap, goal)                                                               \
	{                                                                                          \
		.name = "far_" dev "_" pat "_" #n "x", .unit = "ns/op",                            \
		.what = pat ", " #n " times the resident size, balun run with " dev,               \
		.limit_what = swap == FAR_ZRAM ? "the kernel's swap on zram"                       \
					       : "the kernel's swap on a file",                    \
		.target = goal, .runs = 3, .on_request = true, .setup = far_setup,                 \
		.value = far_value, .limit = far_limit, .teardown = far_teardown,                  \
		.arg = &(const struct far)                                                         \
		{                                                                                  \
			pat, n, swap                                                               \
		}                                                                                  \
	}

/* against zram there are targets at twice the resident size only */
#define FAR_ALL(pat, goal)                                                                         \
	FAR("lz4", pat, 2, FAR_ZRAM, goal), FAR("lz4", pat, 4, FAR_ZRAM, 0),                       \
		FAR("lz4", pat, 8, FAR_ZRAM, 0), FAR("file", pat, 2, FAR_FILE, 1),                 \
		FAR("file", pat, 4, FAR_FILE, 1), FAR("file", pat, 8, FAR_FILE, 1)

const struct bench bench_far[] = {
	FAR_ALL("seq_read", 1 / 1.5),
	FAR_ALL("seq_write", 1 / 1.5),
	FAR_ALL("rand_read", 1.3),
	FAR_ALL("rand_write", 1.3),
	FAR_ALL("hot", 1),
	FAR_ALL("chase", 1.3),
	FAR_ALL("sort", 0),
	FAR_ALL("join", 0),
	FAR_ALL("bfs", 0),
};
_Static_assert(sizeof(bench_far) / sizeof(bench_far[0]) == NR_BENCH_FAR, "bench.h says how many");

/* ---- nothing is evicted ---- */

static int idle_setup(struct bench_run *run)
{
	return 0;
}

/* on a busy machine it says more than the clock */
static int idle_say(struct bench_run *run)
{
	snprintf(run->detail, sizeof(run->detail),
		 "CPU time in all threads, at the end: %.0f ms, %.0f", ours.cpu_ns / 1e6,
		 theirs.cpu_ns / 1e6);
	return 0;
}

static int idle_value(struct bench_run *run, double *ret)
{
	int err = run_work(run, true, false, &ours);

	*ret = ours.ns / 1e6;
	return err ? err : idle_say(run);
}

static int idle_limit(struct bench_run *run, double *ret)
{
	int err = run_work(run, false, false, &theirs);

	*ret = theirs.ns / 1e6;
	return err ? err : idle_say(run);
}

#define IDLE(pat, text)                                                                            \
	{                                                                                          \
		.name = "far_" pat, .unit = "ms", .what = text " under balun run",                 \
		.limit_what = "the same without Balun", .target = 1.03, .runs = 21,                \
		.setup = idle_setup, .value = idle_value, .limit = idle_limit,                     \
		.arg = &(const struct far)                                                         \
		{                                                                                  \
			pat, 0, FAR_ZRAM                                                           \
		}                                                                                  \
	}

const struct bench bench_far_idle = IDLE("idle", "a program that stays below its limit");
const struct bench bench_far_idle_malloc = IDLE("idle_malloc", "only malloc() and free(), small");
const struct bench bench_far_idle_calls =
	IDLE("idle_calls", "only mmap(), mprotect() and the like");
const struct bench bench_far_idle_mapped =
	IDLE("idle_mapped", "far_idle, but more than its limit is mapped");
