/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What programs do rarely, to memory that is Balun's too: nothing may spin, and no byte may be
 * lost. */
#include "tests/barrier/barrier.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LEN    (2 * BALUN_BLOCK_SIZE)
#define ROUNDS 3

static void lock_all(int flags)
{
	/* the system call: sanitizers make the function do nothing, for their shadow is large */
	if (KIT_ASAN || KIT_TSAN)
		kit_skip("a sanitizer's shadow cannot be locked");
	if (syscall(SYS_mlockall, flags))
		kit_skip("mlockall(): %s", strerror(errno));
}

/* there and back again: pages that are locked may stay */
static void go_round(struct kit *k, uint64_t va, struct balun_device *dev)
{
	struct balun_counts c;

	CHECK_OK(balun_migrate(k->space, (void *)va, LEN, dev, &c));
	CHECK_EQ(c.failed, 0);
	dev_verify(k->dev, va, LEN, SEED);
	CHECK_OK(balun_migrate(k->space, (void *)va, LEN, NULL, &c));
	CHECK_EQ(c.failed, 0);
	kit_verify(k, va, LEN, SEED);
}

struct scene {
	struct kit *k;
	struct area a;
};

static void move_out(void *arg)
{
	struct scene *s = arg;
	struct balun_counts n;

	(void)balun_migrate(s->k->space, (void *)s->a.va, s->a.end - s->a.va, s->k->dev, &n);
}

/*
 * Memory that is about to be watched for the first time raises no event yet when its middle is
 * unmapped. What is mapped there later is not watched.
 */
static void watched_in_part(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k };
	struct worker mover;

	area_make(k, c->call, &s.a);
	worker_start(&mover, move_out, &s);
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	CHECK(!syscall(SYS_munmap, s.a.mid, MID_LEN));
	stop_release();
	worker_join(&mover);
	c->call->fn(&s.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	area_check(k, c->call, &s.a, true);
	area_drop(k, c->call, &s.a);
}

/* All memory of the process is locked, the engine's too, before pages go, or while they are away */
static void locked(struct kit *k, const struct cell *c)
{
	uint64_t va = kit_filled(k, LEN, SEED);
	unsigned int i;

	if (c->raw)
		kit_move(k, va, LEN, k->dev);
	lock_all(c->mover);
	for (i = 0; i < ROUNDS; i++)
		go_round(k, va, k->dev);
	CHECK_OK(k->mem->unmap(k, va, LEN));
	va = kit_filled(k, LEN, SEED);
	for (i = 0; i < ROUNDS; i++)
		go_round(k, va, k->dev);
	CHECK_OK(k->mem->unmap(k, va, LEN));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

/* Between a device whose memory is locked and one whose memory is not. (Pages that are away when
 * all is locked have come home by that: it touches them.) */
static void locked_between(struct kit *k, const struct cell *c)
{
	uint64_t va = kit_filled(k, LEN, SEED);
	struct balun_device *other;
	struct balun_counts n;

	(void)c;
	lock_all(MCL_CURRENT);
	other = kit_device(k, way_dev);
	kit_migrate(k, va, LEN, k->dev);
	n = kit_migrate(k, va, LEN, other);
	CHECK(n.moved || way != WAY_MOVE);
	CHECK_EQ(n.failed, 0);
	dev_verify(other, va, LEN, SEED);
	n = kit_migrate(k, va, LEN, k->dev);
	CHECK(n.moved || way != WAY_MOVE);
	CHECK_EQ(n.failed, 0);
	kit_verify(k, va, LEN, SEED);
	CHECK_OK(kit_close(k, other));
	CHECK_OK(k->mem->unmap(k, va, LEN));
}

void odd_cells(void)
{
	static const char *const when[] = { "before", "away" };
	const struct call *call;
	struct cell *c;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		c = cell_add(locked, WAY_ALL, "mlockall/%s/%s", i & 1 ? "future" : "now",
			     when[i >> 1]);
		c->mover = MCL_CURRENT | (i & 1 ? MCL_FUTURE : 0);
		c->raw = i >> 1;
		c->alone = true;
	}
	for (call = calls; strcmp(call->name, "mmap-over"); call++)
		;
	c = cell_add(watched_in_part, WAY_ALL, "%s/watch-queried/munmap", call->name);
	c->call = call;
	c->point = "watch-queried";
	cell_add(locked_between, WAY_ALL, "mlockall/two-devices")->alone = true;
}
