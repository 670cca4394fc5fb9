/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The reader serves a thread on one processor with it (engine/uffd/near.c). */
#include "tests/barrier/barrier.h"

#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCKS	7UL
#define TOUCHES 400UL
#define TURN	48UL /* touches on one processor: the reader looks once within them */

struct scene {
	struct kit *k;
	uint64_t va;
	cpu_set_t all, now;
};

/* the next processor of @all, and no other */
static void turn(struct scene *s)
{
	int cpu = 0;

	while (!CPU_ISSET(cpu, &s->all) || CPU_ISSET(cpu, &s->now))
		cpu++;
	CPU_ZERO(&s->now);
	CPU_SET(cpu, &s->now);
	CHECK_OK(sched_setaffinity(0, sizeof(s->now), &s->now));
}

/* single pages, in an order that is no stride, now on one processor and now on another */
static void touch_about(void *arg)
{
	struct scene *s = arg;
	cpu_set_t set;
	uint64_t i, at;

	for (i = 0; i < TOUCHES; i++) {
		if (i % TURN == 0)
			turn(s);
		at = i * 5 % BLOCKS * BALUN_BLOCK_SIZE + i * 37 % 512 * PAGE;
		kit_verify_part(s->k, s->va, at, PAGE, SEED);
		CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
		CHECK(CPU_EQUAL(&set, &s->now));
	}
}

/* threads that may use one processor only */
static unsigned int count_bound(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned int n = 0;
	struct dirent *d;
	cpu_set_t set;

	CHECK(dir);
	while ((d = readdir(dir)))
		n += d->d_name[0] != '.' &&
		     !sched_getaffinity(atoi(d->d_name), sizeof(set), &set) && CPU_COUNT(&set) == 1;
	closedir(dir);
	return n;
}

/* Whoever touches keeps the processors that it may use, and the reader is bound to none when it is
 * over, a little later. */
static void near_affinity(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .va = kit_place(k, BLOCKS * BALUN_BLOCK_SIZE) };
	struct worker toucher;

	(void)c;
	CHECK_OK(sched_getaffinity(0, sizeof(s.all), &s.all));
	if (CPU_COUNT(&s.all) < 2)
		kit_skip("one processor");
	CHECK_OK(k->mem->map(k, s.va, BLOCKS * BALUN_BLOCK_SIZE, KIT_RW));
	kit_fill(k, s.va, BLOCKS * BALUN_BLOCK_SIZE, SEED);
	kit_move(k, s.va, BLOCKS * BALUN_BLOCK_SIZE, k->dev);
	worker_start(&toucher, touch_about, &s);
	worker_go(&toucher);
	worker_join(&toucher);
	while (count_bound()) /* the cell has a limit */
		sched_yield();
	kit_verify(k, s.va, BLOCKS * BALUN_BLOCK_SIZE, SEED);
	CHECK_OK(k->mem->unmap(k, s.va, BLOCKS * BALUN_BLOCK_SIZE));
}

void near_cells(void)
{
	/* others bind the threads of their process */
	cell_add(near_affinity, WAY_MOVE | WAY_FRAME | WAY_COPY, "reader/near/affinity")->alone =
		true;
}
