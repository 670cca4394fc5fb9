// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The library that `balun run` puts into a program, before it and in every process that it begins.
 *
 * Until there is something to do it is one thread that looks at a number now and then, and one that
 * sleeps (own.c): the space and its devices come when they are needed first. A forked child has
 * none of it, and begins anew.
 * All data here are static: this library's own data never move.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "run/run.h"

struct run run;
/* 0: no space yet; 1: one is being made, or was: the engine's handlers of fork() may be there;
 * 2: it is there; -errno: there will be none. The worker's, read at the end and in fork() */
static int begun;

uint64_t run_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* ---- the space ---- */

/* of the process: the worker has a name of its own */
static void get_comm(char *ret, size_t len)
{
	int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, len - 1);

	if (fd >= 0)
		close(fd);
	ret[n > 0 ? n : 0] = 0;
	ret[strcspn(ret, "\n")] = 0;
}

static void slot_take(void)
{
	uint32_t i = __atomic_fetch_add(&run.shared->nslots, 1, __ATOMIC_RELAXED);

	if (i >= RUN_SLOTS)
		return;
	run.slot = &run.shared->slot[i];
	get_comm(run.slot->comm, sizeof(run.slot->comm));
	__atomic_store_n(&run.slot->pid, getpid(), __ATOMIC_RELEASE);
}

/* an eighth of the limit, between 4 and 256 MiB */
static uint64_t room_size(void)
{
	uint64_t bytes = run.shared->resident / 8;

	bytes = bytes < 2 * RUN_BLOCK ? 2 * RUN_BLOCK : bytes;
	return (bytes > 256ULL << 20 ? 256ULL << 20 : bytes) & ~(RUN_BLOCK - 1);
}

static void fork_behind(void), forked_behind(void); /* see forked_early() */

static int begin(void)
{
	struct balun_space_opts opts = { .size = sizeof(opts),
					 .engine = "uffd",
					 .policy = &run_policy };
	static bool registered; /* for good, in children too */
	unsigned int i;
	int err;

	slot_take();
	err = balun_space_create(&opts, &run.space);
	if (!registered)
		registered = !pthread_atfork(fork_behind, NULL, forked_behind);
	for (i = 0; !err && i < run.shared->ndevices; i++) {
		err = balun_device_open(run.space, run.shared->device[i], &run.device[i]);
		run.ndevices += !err;
	}
	if (!err)
		err = room_open(run.shared->resident ? room_size() : 0);
	if (err && run.slot)
		snprintf(run.slot->why, sizeof(run.slot->why), "%s", balun_reason());
	if (err) {
		balun_space_destroy(run.space);
		run.space = NULL;
	} else if (run.slot) {
		run.slot->on = 1;
	}
	return err;
}

int run_begin(void)
{
	int err;

	if (!begun) {
		__atomic_store_n(&begun, 1, __ATOMIC_RELEASE);
		err = begin();
		__atomic_store_n(&begun, err ? err : 2, __ATOMIC_RELEASE);
	}
	return begun < 0 ? begun : 0;
}

static uint64_t sum(const uint64_t *by_cause)
{
	uint64_t n = 0;
	int i;

	for (i = 0; i < BALUN_NR_CAUSES; i++)
		n += by_cause[i];
	return n;
}

void run_note(uint64_t resident)
{
	struct balun_device_info info = { .size = sizeof(info) };
	struct balun_stats st = { .size = sizeof(st) };
	struct run_slot *s = run.slot;
	unsigned int i;

	if (!s || !run.space || balun_stats(run.space, &st))
		return;
	s->resident = resident;
	if (resident > s->peak)
		s->peak = resident;
	s->out = sum(st.to_device);
	s->home = sum(st.to_system);
	s->faults = st.cpu_faults;
	s->fault_ns = st.cpu_fault.sum_ns;
	s->lost = st.lost_pages;
	s->away = 0;
	for (i = 0; i < run.ndevices; i++)
		if (!balun_device_info(run.device[i], &info))
			s->away += info.mem_used;
}

/* ---- the worker ---- */

#define LAST_NS 20000000ULL /* between looks whether the program's threads have ended */

static void *worker(void *arg)
{
	const struct run_shared *s = run.shared;
	uint64_t now, keep = 0, chaos = 0, last = 0; /* when each is due */
	uint32_t why = 0;

	(void)arg;
	/* first: with own_files() the program goes on */
	fresh_is_worker();
	prctl(PR_SET_NAME, "balun-run");
	if (own_files()) {
		fresh_forget();
		return NULL;
	}
	for (;;) {
		now = run_now_ns();
		if (s->resident && (now >= keep || why))
			keep = now + keep_look(why);
		if (s->chaos && now >= chaos)
			chaos = now + chaos_look();
		if (now >= last) {
			last = now + LAST_NS;
			own_look();
		}
		if (!s->chaos)
			why = fresh_rest(keep);
		else
			why = fresh_rest(s->resident && keep < chaos ? keep : chaos);
	}
	return NULL;
}

static void worker_start(void)
{
	int err = run.shared->resident || run.shared->chaos ? own_start(worker) : 0;

	if (!err)
		return;
	slot_take();
	if (run.slot)
		snprintf(run.slot->why, sizeof(run.slot->why),
			 "it has no thread with descriptors of its own: %s", strerror(-err));
}

/* The parent's space does not serve the child, which has every byte. */
static void forked(bool start)
{
	struct run_shared *shared = run.shared;

	memset(&run, 0, sizeof(run));
	run.shared = shared;
	begun = 0;
	room_forget();
	if (start && shared->follow)
		worker_start();
}

/*
 * In a child the worker may begin only when the engine's handler has run. Handlers of children run
 * in the order in which they were registered. The engine's comes with the first space, and ours
 * behind it then: a fork() that has it says so before (@behind). One that has not comes before the
 * first space; or the handlers are just being registered, and the child goes on without a worker.
 */
static bool behind;

static void fork_behind(void)
{
	behind = true;
}

static void forked_behind(void)
{
	forked(true);
}

static void forked_early(void)
{
	/* nobody answers here until there is a worker */
	fresh_forget();
	press_forget();
	if (!behind)
		forked(!__atomic_load_n(&begun, __ATOMIC_ACQUIRE));
}

static struct run_shared *shared_map(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct run_shared *s = MAP_FAILED;
	struct stat st;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && st.st_size == sizeof(*s))
		s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (s != MAP_FAILED && s->magic == RUN_MAGIC)
		return s;
	if (s != MAP_FAILED)
		munmap(s, sizeof(*s));
	return NULL;
}

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv(RUN_ENV);

	run.shared = path ? shared_map(path) : NULL;
	if (!run.shared) /* the launcher has ended, or somebody else preloads this */
		return;
	if (!run.shared->follow) {
		unsetenv(RUN_ENV);
		unsetenv("LD_PRELOAD");
	}
	pthread_atfork(NULL, NULL, forked_early);
	worker_start();
	fresh_begin();
}

__attribute__((destructor)) static void stop(void)
{
	if (__atomic_load_n(&begun, __ATOMIC_ACQUIRE) == 2 && run.slot)
		run_note(press_is_full() || press_may() ? keep_about() : run.slot->resident);
}
