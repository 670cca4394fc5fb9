/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The matrix: every memory call, through the hooks and past them, while a page stands still at each
 * point on its way out, home by request, home by a CPU's touch, and out by a device's touch.
 */
#include "tests/barrier/barrier.h"

enum mover {
	OUT,
	HOME,
	TOUCH,
	DEVICE,
	MOVERS
};
static const char *const mover_name[MOVERS] = { "out", "home", "touch", "device" };

#define LOCK   1u /* the engine's lock is held there */
#define INSIDE 2u /* pages are in transit there */

static const struct point {
	const char *name;
	unsigned int flags, ways, movers;
} points[] = {
	{ "collect-looked", LOCK, WAY_ALL, 1u << OUT },
	{ "copy-protected", INSIDE, WAY_COPY, 1u << OUT },
	{ "copy-read", INSIDE, WAY_COPY, 1u << OUT },
	{ "move-collected", INSIDE, WAY_ALL, 0xf },
	{ "move-copied", INSIDE, WAY_ALL, 0xf },
	{ "discard-begun", INSIDE, WAY_COPY, 1u << OUT },
	{ "discard-done", INSIDE, WAY_COPY, 1u << OUT },
	{ "commit-located", LOCK | INSIDE, WAY_ALL, 0x7 },
	{ "fault-away", 0, WAY_ALL, 1u << TOUCH },
	{ "fault-looked", 0, WAY_ALL, 1u << DEVICE },
};

struct race {
	struct kit *k;
	struct area a;
	const struct cell *c;
	int rc;
	uint64_t value;
};

/* the copying way takes the pages out of the program's memory there, by madvise() */
static bool is_discard(const struct cell *c)
{
	return !strncmp(c->point, "discard", 7);
}

static void mover_run(void *arg)
{
	struct race *r = arg;
	struct area *a = &r->a;
	struct balun_device *to = r->c->mover == OUT ? r->k->dev : NULL;
	/* whatever comes first is discarded first, and the cell is about the middle */
	uint64_t from = is_discard(r->c) ? a->mid : a->va;
	struct balun_counts n;

	if (r->c->mover == TOUCH)
		r->rc = r->k->mem->load(r->k, a->mid + PAGE, &r->value, sizeof(r->value));
	else if (r->c->mover == DEVICE)
		r->rc = dev_read(r->k->dev, a->mid + PAGE, &r->value, sizeof(r->value));
	else
		r->rc = balun_migrate(r->k->space, (void *)from, a->end - from, to, &n);
}

static void caller_run(void *arg)
{
	struct race *r = arg;

	r->c->call->fn(&r->a);
}

static const struct point *point_of(const struct cell *c)
{
	const struct point *p = points;

	while (strcmp(p->name, c->point))
		p++;
	return p;
}

/* must the call wait until the stopped thread goes on? */
static bool must_wait(const struct cell *c)
{
	const struct point *p = point_of(c);
	unsigned int flags = c->call->flags;
	bool hooked = flags & CALL_HOOK && !c->raw, reader = c->mover == TOUCH;

	if (call_is_quiet(c->call, c->raw))
		return false;
	/* own discards and hooked calls of the same range wait for each other */
	if (is_discard(c) && hooked)
		return true;
	/* pages that are on their way, or away when the lock that serves a fault is held */
	if (flags & CALL_FAULT)
		return p->flags & INSIDE || reader;
	if (p->flags & LOCK && (hooked || flags & CALL_EVENT))
		return true;
	return reader && flags & CALL_EVENT;
}

/* what an access that ends after the call may have found */
static void check_value(const struct race *r)
{
	uint64_t old, fresh;

	if (r->c->mover != TOUCH && r->c->mover != DEVICE)
		return;
	if (r->rc == -EFAULT && r->c->call->effect != KEEP && r->c->call->effect != LOCKED)
		return;
	if (call_is_quiet(r->c->call, r->c->raw)) /* a device may go on with what it has */
		return;
	CHECK_RC(r->rc, 0);
	kit_pattern(&old, r->a.mid + PAGE - r->a.va, sizeof(old), SEED);
	kit_pattern(&fresh, PAGE, sizeof(fresh), FRESH_SEED);
	switch (r->c->call->effect) {
	case GONE:
	case MOVED:
	case GROWN:
		kit_fail(__FILE__, __LINE__, "reads what is not mapped");
	case ZERO:
	case LEFT:
		CHECK_EQ(r->value, 0);
		break;
	case FRESH:
		CHECK(r->value == 0 || r->value == fresh);
		break;
	case GUARDED:
	case LAZY:
		CHECK(r->value == 0 || r->value == old);
		break;
	default:
		CHECK_EQ(r->value, old);
	}
}

static void race_run(struct kit *k, const struct cell *c)
{
	struct race r = { .k = k, .c = c, .a.raw = c->raw };
	struct worker mover, caller;
	bool waits = must_wait(c);

	if (!strcmp(c->point, "discard-begun") && c->call->effect == FRESH &&
	    (c->raw || !(c->call->flags & CALL_HOOK)))
		kit_skip("a limit of kernels without UFFDIO_MOVE: memory that is exchanged past "
			 "the hooks just then is not told apart (commit.c)");
	area_make(k, c->call, &r.a);
	if (c->mover == HOME || c->mover == TOUCH) {
		kit_move(k, r.a.va, r.a.end - r.a.va, k->dev);
		dev_verify(k->dev, r.a.va, r.a.end - r.a.va, SEED);
	}
	worker_start(&mover, mover_run, &r);
	worker_start(&caller, caller_run, &r);
	stop_arm(c->point);
	worker_go(&mover);
	if (!stop_hit(&mover))
		kit_fail(__FILE__, __LINE__, "the mover does not come by %s", c->point);
	worker_go(&caller);
	if (waits)
		worker_must_wait(&caller, -1, c->call->name, c->point);
	else
		worker_must_finish(&caller, c->call->name, c->point);
	/* a call that the hooks do not see is in force for devices after a fence */
	if (!waits && !(point_of(c)->flags & LOCK))
		CHECK_OK(balun_fence(k->space));
	stop_release();
	worker_join(&caller);
	worker_join(&mover);
	if (c->mover == OUT || c->mover == HOME)
		CHECK(r.rc == 0 || r.rc == -EFAULT);
	else if (!waits)
		check_value(&r);
	area_check(k, c->call, &r.a, c->raw);
	area_drop(k, c->call, &r.a);
}

void matrix_cells(void)
{
	const struct point *p;
	const struct call *call;
	unsigned int m, raw;

	for (p = points; p < points + sizeof(points) / sizeof(points[0]); p++)
		for (m = 0; m < MOVERS; m++)
			for (call = calls; call->name; call++)
				for (raw = 0; raw < (call->flags & CALL_HOOK ? 2 : 1); raw++) {
					struct cell *c;

					if (!(p->movers >> m & 1))
						continue;
					/* coherent memory is touched where it is */
					c = cell_add(race_run,
						     m == TOUCH ? p->ways & ~WAY_COHERENT : p->ways,
						     "%s/%s/%s%s", call->name, p->name,
						     mover_name[m], raw ? "/raw" : "");
					c->call = call;
					c->point = p->name;
					c->mover = m;
					c->raw = raw;
				}
}
