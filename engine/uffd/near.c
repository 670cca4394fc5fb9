// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The reader close to whom it serves. A touch of memory that is away takes two wakeups: of the
 * reader, and of the thread that touched. Each one on another processor is an interrupt there, and
 * if that sleeps the way out of its sleep: on a virtual machine some 20 us. On one processor it is
 * a switch between threads, and a touch took 5 us there that took 45.
 *
 * So while one thread of the program touches pages that come one by one, the reader is bound to the
 * processor that the thread was on. The kernel would now wake the thread on another one, for its
 * own is busy with the reader; one that has nothing but threads of class SCHED_IDLE counts as free,
 * though. So it is woken by a thread of that class, the waker, bound to the same processor, as soon
 * as the reader sleeps. Where others are on that processor the waker may have to wait long: after
 * WAKER_NS the reader wakes the thread itself, and goes on so for a while.
 *
 * Where several threads touch, or many pages come at a time so that the program and the reader had
 * better work at the same time, the reader is bound to none.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

#define BIND_AFTER  8	/* touches of one page by one thread */
#define LOOK_EVERY  32	/* touches: is it where it was? */
#define ALONE	    256 /* touches, after the waker was late */
#define WAKER_NS    100000
#define STUCK_NS    20000000
#define STAT_FIELDS 36 /* of /proc/PID/stat between the state and the processor */

#ifndef SCHED_IDLE
#define SCHED_IDLE 5
#endif

static void futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void waker_main(void *arg)
{
	const struct sched_param none = { 0 };
	struct uffd *u = arg;
	struct near *n = &u->near;
	bool idle = false;
	uint32_t seen = 0;

	env_store(&n->waker_tid, (uint32_t)syscall(SYS_gettid));
	for (;;) {
		while (env_load(&n->asked) == seen)
			syscall(SYS_futex, &n->asked, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
		seen = env_load(&n->asked);
		if (env_load(&n->stop))
			break;
		if (!idle) /* not before it is needed: who waits for its end would wait long */
			sched_setscheduler(0, SCHED_IDLE, &none);
		idle = true;
		/* before: whom it wakes takes the processor from it */
		env_store(&n->begun, seen);
		uffd_wake(u, env_load(&n->va), BLOCK);
	}
}

int near_start(struct uffd *u)
{
	struct near *n = &u->near;

	n->cpu = -1;
	if (!(u->caps.features & UFFD_FEATURE_THREAD_ID) ||
	    sched_getaffinity(0, sizeof(n->all), &n->all) || CPU_COUNT(&n->all) < 2)
		return 0;
	return env_thread_create(&n->waker, "balun-wake", waker_main, u);
}

void near_stop(struct uffd *u)
{
	const struct sched_param none = { 0 };
	struct near *n = &u->near;
	uint32_t tid;

	if (!n->waker)
		return;
	env_store(&n->stop, true);
	/* if it may: then its end does not wait for a processor without work; 0 would be ourselves
	 */
	tid = env_load(&n->waker_tid);
	if (tid)
		sched_setscheduler(tid, SCHED_OTHER, &none);
	env_store(&n->asked, n->asked + 1);
	futex_wake(&n->asked);
	env_thread_join(n->waker);
	n->waker = NULL;
}

/* the processor that a thread is on, or was last; -1 */
static int where(uint32_t tid)
{
	char text[512], *s;
	ssize_t got;
	int fd, i;

	snprintf(text, sizeof(text), "/proc/self/task/%u/stat", tid);
	fd = open(text, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[got > 0 ? got : 0] = 0;
	s = strrchr(text, ')'); /* a name may have spaces */
	for (i = 0; s && i < STAT_FIELDS + 1; i++)
		s = strchr(s + 1, ' ');
	return s ? atoi(s + 1) : -1;
}

static void loosen(struct near *n)
{
	n->cpu = -1;
	sched_setaffinity(0, sizeof(n->all), &n->all);
}

static void bind(struct near *n)
{
	uint32_t waker = env_load(&n->waker_tid);
	int cpu = where(n->tid);
	cpu_set_t one;

	if (!waker || cpu == n->cpu || cpu < 0 || cpu >= CPU_SETSIZE)
		return;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (!sched_setaffinity(0, sizeof(one), &one) &&
	    !sched_setaffinity(waker, sizeof(one), &one))
		n->cpu = cpu;
	else
		loosen(n);
}

bool near_touch(struct uffd *u, uint32_t tid)
{
	struct near *n = &u->near;

	if (!n->waker)
		return false;
	/* who touches again was woken */
	if (n->waits && tid != n->tid)
		uffd_wake(u, n->va, BLOCK);
	n->waits = 0;
	if (tid != n->tid) {
		n->tid = tid;
		n->singles = 0;
		if (n->cpu >= 0)
			loosen(n);
	}
	if (n->singles >= BIND_AFTER && n->singles % LOOK_EVERY == BIND_AFTER)
		bind(n);
	n->pages = 0;
	return n->cpu >= 0 && (!n->alone || !n->alone--);
}

void near_touched(struct uffd *u, uint64_t va, bool quiet, int err)
{
	struct near *n = &u->near;

	if (n->pages > 1) {
		n->singles = 0;
		if (n->cpu >= 0)
			loosen(n);
	} else {
		n->singles += n->pages;
	}
	if (!quiet || !n->pages)
		return;
	if (err || n->pages != 1) {
		uffd_wake(u, BLOCK_OF(va), BLOCK);
		return;
	}
	env_store(&n->va, BLOCK_OF(va));
	n->waits = 1;
	env_store(&n->asked, n->asked + 1);
	futex_wake(&n->asked);
}

bool near_is_bound(const struct uffd *u)
{
	return u->near.cpu >= 0;
}

const struct timespec *near_timeout(const struct uffd *u)
{
	static const struct timespec wait[] = { { 0, 0 }, { 0, WAKER_NS }, { 0, STUCK_NS } };

	return u->near.waits ? &wait[u->near.waits] : NULL;
}

/*
 * The time is over. The waker has not begun: it gets no processor. Or it has, and was perhaps
 * stopped at that very moment: after a longer time the thread is woken once more, to be sure.
 */
void near_late(struct uffd *u)
{
	struct near *n = &u->near;

	if (n->waits == 1 && env_load(&n->begun) == n->asked) {
		n->waits = 2;
		return;
	}
	if (n->waits == 1)
		n->alone = ALONE;
	if (n->waits)
		uffd_wake(u, n->va, BLOCK);
	n->waits = 0;
}
