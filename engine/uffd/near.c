// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The reader close to whom it serves. A touch of memory that is away takes two wakeups: of the
 * reader, and of the thread that touched. Each one on another processor is an interrupt there, and
 * if that sleeps the way out of its sleep: on a virtual machine some 20 us. On one processor it is
 * a switch between threads, and the smallest handler takes 5 us there that takes 45.
 *
 * The kernel wakes a thread where it was last, if it can. So who is on one processor stays there,
 * and who is on two stays there as well. While one thread of the program touches pages that come
 * one by one, the reader looks now and then which processor that thread is on, and if it is another
 * one, binds itself to that for one touch. The thread is left alone, and so is the kernel's choice.
 *
 * Where several threads touch, or many pages come at a time, the program and the reader had better
 * work at the same time.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

#define NEAR_AFTER  8  /* touches of one page by one thread */
#define LOOK_EVERY  32 /* touches; a look takes as long as one */
#define STAT_FIELDS 36 /* of /proc/PID/stat between the state and the processor */

void near_init(struct uffd *u)
{
	struct near *n = &u->near;

	*n = (struct near){ .bound = false };
	n->can = u->caps.features & UFFD_FEATURE_THREAD_ID &&
		 !sched_getaffinity(0, sizeof(n->all), &n->all) && CPU_COUNT(&n->all) > 1;
}

/* the processor that a thread of this process is on, or was last; -1 */
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

static void follow(struct near *n)
{
	int cpu = where(n->tid);
	cpu_set_t one;

	if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == sched_getcpu())
		return;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	n->bound = !sched_setaffinity(0, sizeof(one), &one);
}

void near_loosen(struct uffd *u)
{
	struct near *n = &u->near;

	if (n->bound)
		sched_setaffinity(0, sizeof(n->all), &n->all);
	n->bound = false;
}

bool near_is_on(const struct uffd *u)
{
	return u->near.singles >= NEAR_AFTER;
}

bool near_is_bound(const struct uffd *u)
{
	return u->near.bound;
}

void near_begin(struct uffd *u, uint32_t tid)
{
	struct near *n = &u->near;

	near_loosen(u);
	if (tid != n->tid)
		n->singles = 0;
	n->tid = tid;
	n->pages = 0;
}

void near_count(struct uffd *u, unsigned int pages)
{
	if (uffd_on_reader(u))
		u->near.pages += pages;
}

void near_end(struct uffd *u)
{
	struct near *n = &u->near;

	n->singles = n->pages == 1 && n->can ? n->singles + 1 : 0;
	if (n->singles % LOOK_EVERY == NEAR_AFTER)
		follow(n);
}
