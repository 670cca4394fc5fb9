/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Everything is wanted home while the last of it is just coming, or already there. */
#include "tests/barrier/barrier.h"

struct scene {
	struct kit *k;
	uint64_t va;
	int rc;
};

static void touch_run(void *arg)
{
	struct scene *s = arg;

	*(volatile char *)s->va;
}

static void evict_run(void *arg)
{
	struct scene *s = arg;

	s->rc = balun_evict(s->k->dev, UINT64_MAX, NULL);
}

/* A CPU has touched the only page of a device; whoever serves that stands at a point. The eviction
 * has nothing to take, waits for it, and then the device is empty. */
static void evict_last(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .va = kit_place(k, PAGE) };
	struct worker toucher, evicter;

	CHECK_OK(k->mem->map(k, s.va, PAGE, KIT_RW));
	kit_fill(k, s.va, PAGE, SEED);
	kit_move(k, s.va, PAGE, k->dev);
	worker_start(&toucher, touch_run, &s);
	worker_start(&evicter, evict_run, &s);
	stop_arm(c->point);
	worker_go(&toucher);
	CHECK(stop_hit(NULL));
	worker_go(&evicter);
	worker_must_wait(&evicter, -1, "balun_evict()", c->point);
	stop_release();
	worker_must_finish(&evicter, "balun_evict()", c->point);
	worker_join(&evicter);
	worker_join(&toucher);
	CHECK_OK(s.rc);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	kit_verify(k, s.va, PAGE, SEED);
	CHECK_OK(k->mem->unmap(k, s.va, PAGE));
}

void evict_cells(void)
{
	static const char *const points[] = { "move-collected", "move-copied", "commit-located",
					      "move-committed" };

	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
		cell_add(evict_last, WAY_MOVE | WAY_FRAME | WAY_COPY, "evict/%s/last-page-home",
			 points[i])
			->point = points[i];
}
