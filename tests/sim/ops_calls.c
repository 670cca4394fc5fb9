// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The calls of an application: moving memory, hints, pins, looking, opening and closing devices. */
#include "tests/sim/ops.h"

static struct balun_device *handle_get(unsigned int i)
{
	struct handle *h = &world.handle[i];

	if (!h->dev || h->closing)
		return NULL;
	h->users++;
	return h->dev;
}

static void handle_put(unsigned int i)
{
	env_mutex_lock(&world.lock);
	world.handle[i].users--;
	env_cond_wake(&world.quiet);
	env_mutex_unlock(&world.lock);
}

/* pins of a page that hold from before a call until after it oblige the call */
static void pins_begin(const struct range *r, unsigned int *change)
{
	unsigned int i;

	for (i = 0; i < r->n; i++)
		change[i] = world.pinned[r->first + i] ? world.pin_change[r->first + i] : ~0u;
}

static unsigned int pins_held(const struct range *r, const unsigned int *change)
{
	unsigned int i, n = 0;

	for (i = 0; i < r->n; i++)
		n += change[i] == world.pin_change[r->first + i];
	return n;
}

static void pins_note(const struct range *r, bool pin)
{
	unsigned int i;

	for (i = r->first; i < r->first + r->n; i++) {
		world.pinned[i] += pin ? 1 : -1;
		if (world.pinned[i] == pin)
			world.pin_change[i]++;
	}
}

/*
 * Migrating to a device that another thread closes meanwhile is refused or done; so this one alone
 * holds no users count, but takes the handle and calls without a scheduling point in between.
 */
void do_migrate(const struct op *op)
{
	struct range r = op->flags % 32 ? range_of(op->page, op->n) : range_all();
	struct handle *h = &world.handle[op->device];
	bool home = op->flags % 3 == 0;
	struct balun_counts c = { 0 };
	uint64_t begin = model_tick();
	unsigned int pins[PAGES];
	int err;

	pins_begin(&r, pins);
	if (!home && (!h->dev || h->closing))
		return;
	err = note(op, balun_migrate(world.space, (void *)r.va, r.len, home ? NULL : h->dev, &c));
	switch (err) {
	case 0:
		CHECK(c.moved + c.already + c.empty + c.busy + c.pinned + c.unmovable + c.nomem +
			      c.failed ==
		      r.len >> BALUN_PAGE_SHIFT);
		CHECK(!c.failed || world.s->profile.copy || testdev_any_dead());
		/* a fork lets nothing out, pinned or not */
		CHECK(c.pinned + c.busy >= pins_held(&r, pins));
		return;
	case -EFAULT:
		CHECK(was_unmapped(&r, begin));
		return;
	case -ENODEV:
		CHECK(!home && (h->closed || testdev_any_dead()));
		return;
	case -ENOMEM:
		CHECK(could_nomem());
		return;
	default:
		unexpected(op, op->page, err);
	}
}

void do_prefetch(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	struct balun_device *dev = op->flags % 3 ? handle_get(op->device) : NULL;
	int err;

	if (op->flags % 3 && !dev)
		return;
	err = note(op, balun_prefetch(world.space, (void *)r.va, r.len, dev));
	if (err && err != -EAGAIN && !(err == -ENOMEM && could_nomem()) &&
	    !(err == -ENODEV && testdev_any_dead()))
		unexpected(op, op->page, err);
	if (dev)
		handle_put(op->device);
}

void do_evict(const struct op *op)
{
	struct balun_device *dev = handle_get(op->device);
	uint64_t bytes = op->flags % 4 ? (1 + op->arg % 20) * BALUN_PAGE_SIZE : UINT64_MAX, freed;
	int err;

	if (!dev)
		return;
	err = note(op, balun_evict(dev, bytes, &freed));
	if (err == -EIO)
		CHECK(world.s->profile.copy || testdev_any_dead());
	else if (err == -ENODEV)
		CHECK(testdev_any_dead());
	else if (err && err != -EBUSY && !(err == -ENOMEM && could_nomem()))
		unexpected(op, op->page, err);
	handle_put(op->device);
}

void do_advise(const struct op *op)
{
	struct range r = op->flags % 8 ? range_of(op->page, op->n) : range_all();
	enum balun_advice advice = op->arg % (BALUN_ADVISE_DISCARD + 1);
	struct version *v[PAGES][WORDS];
	struct balun_device *dev = handle_get(op->device);
	unsigned int i, j;
	int err;

	if (!dev)
		return;
	for (i = 0; advice == BALUN_ADVISE_DISCARD && i < r.n; i++)
		for (j = 0; j < WORDS; j++)
			v[i][j] = model_write(model_word(r.first + i, j), 0, op->no);
	err = note(op, balun_advise(world.space, (void *)r.va, r.len, advice, dev));
	for (i = 0; advice == BALUN_ADVISE_DISCARD && i < r.n; i++)
		for (j = 0; j < WORDS; j++)
			model_maybe(v[i][j]);
	if (err && !(err == -ENOMEM && could_nomem()) && !(err == -ENODEV && testdev_any_dead()))
		unexpected(op, op->page, err);
	handle_put(op->device);
}

void do_pin(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	int err;

	if (world.npins == MAX_PINS)
		return;
	err = note(op, balun_pin(world.space, (void *)r.va, r.len));
	if (!err) {
		world.pin[world.npins++] = r;
		pins_note(&r, true);
	} else if (err != -ENOMEM || !could_nomem())
		unexpected(op, op->page, err);
}

void do_unpin(const struct op *op)
{
	struct range r;

	if (!world.npins)
		return;
	r = world.pin[--world.npins];
	pins_note(&r, false);
	CHECK(!note(op, balun_unpin(world.space, (void *)r.va, r.len)));
}

void do_query(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	struct balun_stats stats = { .size = sizeof(stats) };
	struct balun_extent x[4];
	uint64_t va = r.va;
	size_t n, i;

	CHECK(!balun_stats(world.space, &stats));
	CHECK(testdev_any_dead() || !stats.lost_pages);
	while (va < r.va + r.len) {
		CHECK(!note(op, balun_query(world.space, (void *)va, r.va + r.len - va, x, 4, &n)));
		CHECK(n > 0 && n <= 4);
		for (i = 0; i < n; i++) {
			CHECK(x[i].addr == va && x[i].len);
			CHECK((x[i].where == BALUN_WHERE_DEVICE) == (x[i].device != 0));
			va += x[i].len;
		}
	}
	CHECK(va == r.va + r.len);
}

/* ---- devices ---- */

int open_device(unsigned int i)
{
	const struct schedule *s = world.s;
	char spec[80];

	if (i == 2)
		snprintf(spec, sizeof(spec), s->options & 1 ? "%s" : "inject(%s)",
			 s->options & 0x200 ? "ram:mem=2M,coherent=1" : "ram:mem=2M");
	else
		snprintf(spec, sizeof(spec), "testdev:slot=%u,room=%u,two=%u,peer=%u,coherent=%u",
			 i, i ? 0 : s->room, s->options >> (1 + i) & 1, s->options >> (3 + i) & 1,
			 !i && s->options & 0x100);
	return balun_device_open(world.space, spec, &world.handle[i].dev);
}

void close_device(const struct op *op, unsigned int i)
{
	struct handle *h = &world.handle[i];
	int err;

	h->closing = h->closed = true;
	env_mutex_lock(&world.lock);
	while (h->users)
		env_cond_wait(&world.quiet, &world.lock, ENV_FOREVER);
	env_mutex_unlock(&world.lock);
	testdev_closers++;
	err = balun_device_close(h->dev);
	testdev_closers--;
	h->dev = NULL;
	if (op)
		note(op, err);
	if (err)
		CHECK(err == -EIO && testdev_any_dead());
}

void do_close(const struct op *op)
{
	struct handle *h = &world.handle[op->device];
	int err;

	if (h->closing)
		return;
	h->closing = true;
	if (h->dev)
		close_device(op, op->device);
	err = open_device(op->device);
	h->closing = false;
	if (err)
		CHECK(world.s->profile.open || could_nomem());
}
