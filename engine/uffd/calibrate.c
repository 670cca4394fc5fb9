// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Calibration: from how many pages on a MOVE from a frame beats a COPY that allocates. Machines of
 * one kind differ by factors in either, so it is measured when a space is made.
 */
#include <sched.h>

#include "engine/uffd/uffd.h"

#define CALIBRATE_PAGES	 64
#define CALIBRATE_ROUNDS 15

/* a thread that keeps a core busy in this process; runs: 0 not yet, 1 it does, 2 stop */
static void spin_main(void *arg)
{
	uint32_t *runs = arg;

	env_store(runs, 1);
	while (env_load(runs) == 1)
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* n pages installed at @dst by COPY from @buf, or by MOVE from populated @src, in ns */
static uint64_t time_install(struct uffd *u, uint64_t dst, void *buf, uint64_t src, unsigned int n,
			     bool move)
{
	uint64_t t0 = env_now_ns(), done;
	int err = move ? uffd_move(u, dst, src, n * PAGE, &done)
		       : uffd_copy(u, dst, buf, n * PAGE, &done);

	t0 = env_now_ns() - t0;
	if (err)
		return UINT64_MAX;
	if (move)
		uffd_move(u, src, dst, n * PAGE, &done);
	else
		frames_empty(u, dst, n * PAGE);
	return t0;
}

/* does a MOVE of n pages take less time than a COPY, more often than not? Measured in turns */
static bool move_wins(struct uffd *u, uint64_t dst, void *buf, uint64_t src, unsigned int n)
{
	unsigned int i, wins = 0;

	for (i = 0; i < CALIBRATE_ROUNDS; i++)
		wins += time_install(u, dst, buf, src, n, true) <
			time_install(u, dst, buf, src, n, false);
	return wins > CALIBRATE_ROUNDS / 2;
}

/*
 * With another thread of the process running, as in life: a MOVE must interrupt its core, and that
 * is what a single page's MOVE costs.
 */
void uffd_calibrate(struct uffd *u)
{
	uint64_t len = CALIBRATE_PAGES * PAGE, dst, src, done;
	char *area = env_pages_alloc(BLOCK), *buf = env_pages_alloc(len);
	struct env_thread *t = NULL;
	uint32_t runs = 0;

	u->move_min = 16;
	if (!area || !buf || uffd_register(u, (uintptr_t)area, (uintptr_t)area + BLOCK))
		goto free;
	dst = (uintptr_t)area;
	src = dst + len;
	memset(buf, 1, len);
	if (!env_thread_create(&t, "balun-spin", spin_main, &runs)) {
		while (!env_load(&runs))
			sched_yield();
		u->move_min = 1;
		if (!uffd_copy(u, src, buf, len, &done))
			while (u->move_min < CALIBRATE_PAGES &&
			       !move_wins(u, dst, buf, src, u->move_min))
				u->move_min *= 2;
		env_store(&runs, 2);
		env_thread_join(t);
	}
	uffd_unregister(u, (uintptr_t)area, (uintptr_t)area + BLOCK);
free:
	if (area)
		env_pages_free(area, BLOCK);
	if (buf)
		env_pages_free(buf, len);
}
