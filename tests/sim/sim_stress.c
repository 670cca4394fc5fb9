// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Explores schedules of core under the simulator; a failing one is made small and printed.
 *
 * Schedules run in a child process, so that a crash is a result like any other. A seed stands for
 * the operations and for the choices; the small schedule has a seed or a list of choices of its own
 * and is printed whole.
 */
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/schedule.h"

#define MAX_CHOICES    200000
#define SIGNALLED(sig) (-1000 - (sig)) /* beside errnos and FAILED */
#define HANG_S	       20	       /* a run that computes for so long hangs */
#define OTHER_SEEDS    12   /* interleavings tried before an operation counts as needed */
#define MAX_TRIES      6000 /* runs spent on making a schedule small */

/* what a child says; shared memory */
static struct report {
	uint64_t seed, points, done;
	int err;
	size_t nchoices;
	uint32_t choice[MAX_CHOICES];
} * report;

/* how a schedule was made to fail */
struct failure {
	struct schedule s;
	int err;
	uint64_t seed; /* of the choices, unless there is a list */
	size_t nchoices;
	uint32_t *choice;
	unsigned int tries;
};

static bool verbose;

static bool is_signal(int err)
{
	return err < SIGNALLED(0) && err > SIGNALLED(1000);
}

/*
 * By the time that the process computes: how long it waits for a processor is others' business. A
 * run never sleeps; so that one that does all the same ends too, ten times that by the clock.
 */
static void hang_limit(long seconds)
{
	const struct itimerval limit = { .it_value.tv_sec = seconds };

	setitimer(ITIMER_PROF, &limit, NULL);
	alarm(10 * seconds);
}

static int run_here(struct schedule *s, uint64_t seed)
{
	const uint32_t *c;
	size_t n;
	int err = env_sim_run(seed, schedule_run, s);

	report->points += env_sim_points();
	c = env_sim_choices(&n);
	report->nchoices = n <= MAX_CHOICES ? n : 0;
	if (err)
		memcpy(report->choice, c, report->nchoices * sizeof(*c));
	return err;
}

/* waits for a child: what its run came to */
static int child_result(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		;
	return WIFSIGNALED(status) ? SIGNALLED(WTERMSIG(status)) : report->err;
}

static pid_t child(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	return pid;
}

static int run_apart(struct schedule *s, uint64_t seed)
{
	pid_t pid;

	report->err = 0;
	report->nchoices = 0;
	pid = child();
	if (!pid) {
		hang_limit(HANG_S);
		if (!freopen("/dev/null", "w", stderr))
			_exit(2);
		report->err = run_here(s, seed);
		_exit(0);
	}
	return child_result(pid);
}

/* ---- making it small ---- */

/* does the smaller schedule fail in the same way, with these choices or others? */
static bool still_fails(struct failure *f, struct schedule *s)
{
	uint64_t seed = f->seed;
	unsigned int i;

	for (i = 0; i <= OTHER_SEEDS && f->tries < MAX_TRIES; i++) {
		f->tries++;
		if (run_apart(s, seed) == f->err) {
			f->seed = seed;
			f->s = *s;
			return true;
		}
		seed = i;
	}
	return false;
}

static bool drop_ops(struct failure *f, unsigned int first, unsigned int n)
{
	struct schedule s = f->s;

	memmove(&s.op[first], &s.op[first + n], (s.nops - first - n) * sizeof(s.op[0]));
	s.nops -= n;
	return still_fails(f, &s);
}

static void shrink_ops(struct failure *f)
{
	unsigned int n, i;

	for (n = f->s.nops / 2; n; n /= 2)
		for (i = 0; i + n <= f->s.nops;)
			if (!drop_ops(f, i, n))
				i += n;
}

static void shrink_profile(struct failure *f)
{
	size_t at;

	for (at = 0; at < offsetof(struct profile, shared); at += sizeof(uint32_t)) {
		struct schedule s = f->s;

		memset((char *)&s.profile + at, 0, sizeof(uint32_t));
		if (memcmp(&s.profile, &f->s.profile, sizeof(s.profile)))
			still_fails(f, &s);
	}
}

/* prints how the smallest run went; in a child, for the choices are made small in process */
static void shrink_choices(struct failure *f)
{
	pid_t pid = child();

	if (!pid) {
		size_t n, left;

		hang_limit(10 * HANG_S);
		run_here(&f->s, f->seed);
		n = report->nchoices;
		left = env_sim_shrink(report->choice, &n, schedule_run, &f->s, f->err, 2000);
		printf("%zu choices, %zu of them not 0; how it went:\n", n, left);
		env_sim_trace(stdout);
		fflush(stdout);
		_exit(0);
	}
	child_result(pid);
}

static void explain(uint64_t seed, int err, bool shrink)
{
	struct failure f = { .seed = seed, .err = err };

	schedule_make(&f.s, seed);
	printf("FAIL seed %llu: ", (unsigned long long)seed);
	if (err == SIGNALLED(SIGPROF))
		printf("hangs: has computed for %d s\n", HANG_S);
	else if (err == SIGNALLED(SIGALRM))
		printf("hangs: has not ended in %d s\n", 10 * HANG_S);
	else if (is_signal(err))
		printf("signal %d\n", -1000 - err);
	else
		printf("%s\n", err > -1000 ? strerrorname_np(-err) : "not as the model says");
	if (shrink && err != SIGNALLED(SIGALRM)) { /* each try would take as long */
		shrink_ops(&f);
		shrink_profile(&f);
		shrink_ops(&f);
		printf("made small with %u runs; choices of seed %llu:\n", f.tries,
		       (unsigned long long)f.seed);
	}
	schedule_print(&f.s, stdout);
	if (!is_signal(err))
		shrink_choices(&f);
	printf("again: sim_stress --seed %llu\n", (unsigned long long)seed);
}

/* ---- exploring ---- */

static int explore(uint64_t seed, uint64_t count)
{
	pid_t pid;

	memset(report, 0, offsetof(struct report, choice));
	report->seed = seed;
	pid = child();
	if (!pid) {
		/* core reports pages that dying devices lose: thousands of them */
		if (!verbose && !freopen("/dev/null", "w", stderr))
			_exit(2);
		/* schedules free what they allocate: it is kept for the next one */
		mallopt(M_TRIM_THRESHOLD, 1 << 30);
		mallopt(M_MMAP_THRESHOLD, 1 << 26);
		for (; !report->err && report->done < count; report->done++) {
			struct schedule s;

			report->seed = seed + report->done;
			schedule_make(&s, report->seed);
			hang_limit(HANG_S);
			report->err = run_here(&s, report->seed);
		}
		if (verbose)
			ops_report(stdout);
		fflush(stdout);
		_exit(0);
	}
	return child_result(pid);
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: sim_stress [--seed S] [-n|--count N] [--verbose] [--no-shrink]\n"
		     "Runs schedules S, S+1, ... S+N-1 (default: 1, 1000) of core under the\n"
		     "simulator. Without --count, --seed runs that schedule only.\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "count", required_argument, NULL, 'n' },
		{ "verbose", no_argument, NULL, 'v' },	  { "no-shrink", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },	  { NULL, 0, NULL, 0 },
	};
	uint64_t seed = 1, count = 0;
	bool shrink = true, given = false;
	int c, err;

	while ((c = getopt_long(argc, argv, "s:n:vqh", options, NULL)) != -1) {
		switch (c) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			given = true;
			break;
		case 'n':
			count = strtoull(optarg, NULL, 0);
			break;
		case 'v':
			verbose = true;
			break;
		case 'q':
			shrink = false;
			break;
		default:
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (!count)
		count = given ? 1 : 1000;
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (report == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	err = explore(seed, count);
	if (err) {
		explain(report->seed, err, shrink);
		return 1;
	}
	printf("%llu schedules from seed %llu, %llu scheduling points: all as the model says\n",
	       (unsigned long long)count, (unsigned long long)seed,
	       (unsigned long long)report->points);
	return 0;
}
