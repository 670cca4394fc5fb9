/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* A thread in its hook while the space ends. */
#include "tests/barrier/barrier.h"

struct scene {
	struct kit *k;
	const struct cell *c;
	struct area a;
};

/* ---- the space ends, or is another, while a thread stands in a hook ---- */

static void call_run(void *arg)
{
	struct scene *s = arg;

	s->c->call->fn(&s->a);
}

static void space_end(struct kit *k)
{
	CHECK_OK(kit_close(k, k->dev));
	CHECK_OK(balun_space_destroy(k->space));
}

static void space_anew(struct kit *k)
{
	CHECK_OK(kit_open_space(k));
	k->dev = kit_device(k, way_dev);
}

/* The hook has seen a space; before it has entered that, there is none, or (mover) another. */
static void space_ends(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker caller;

	area_make(k, c->call, &s.a);
	worker_start(&caller, call_run, &s);
	stop_arm(c->point);
	worker_go(&caller);
	if (!stop_hit(&caller))
		kit_fail(__FILE__, __LINE__, "the caller does not come by %s", c->point);
	space_end(k);
	if (c->mover) {
		space_anew(k);
		kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	}
	stop_release();
	worker_must_finish(&caller, c->call->name, c->point);
	worker_join(&caller);
	if (!c->mover)
		space_anew(k);
	area_check(k, c->call, &s.a, c->mover);
	area_drop(k, c->call, &s.a);
}

/* ---- the list ---- */

void thread_cells(void)
{
	const struct call *call;
	unsigned int anew;

	for (call = calls; call->name; call++)
		for (anew = 0; anew < 2 && call->flags & CALL_HOOK; anew++) {
			struct cell *c = cell_add(space_ends, WAY_ALL, "%s/enter-looked/%s",
						  call->name, anew ? "space-anew" : "space-ends");

			c->call = call;
			c->point = "enter-looked";
			c->mover = anew;
		}
}
