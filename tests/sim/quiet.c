// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What must be true when nobody is in the way: nothing is busy, pins hold, a device can be emptied
 * and its books balance. And the policy of the exploration, which asks for more than it may.
 */
#include "tests/sim/ops.h"
#include "tests/sim/testdev.h"

/* ---- the policy ---- */

static void decide(const struct balun_question *q, struct balun_answer *ret_a)
{
	unsigned int i;

	CHECK(!env_sim_locks());
	CHECK(q->npages && q->first + q->npages <= BALUN_BLOCK_PAGES);
	for (i = 0; i < BALUN_BITMAP_WORDS; i++)
		CHECK(!(q->local[i] & q->candidate[i]));
	balun_policy_default(q, ret_a);
	if (!chance(profile.policy))
		return;
	ret_a->stay = q->device && env_sim_choose(2);
	memset(ret_a->fetch, 0, sizeof(ret_a->fetch));
	if (env_sim_choose(2)) /* the windows lie at the ends of blocks */
		ret_a->fetch[0] = ret_a->fetch[BALUN_BITMAP_WORDS - 1] = ~0ULL;
}

const struct balun_policy policy_sim = {
	.size = sizeof(struct balun_policy),
	.name = "sim",
	.decide = decide,
};

/* ---- promises ---- */

static struct balun_extent look(unsigned int page)
{
	struct balun_extent x;
	size_t n;

	CHECK(!balun_query(world.space, (void *)page_va(page), BALUN_PAGE_SIZE, &x, 1, &n));
	return x;
}

static unsigned int where(unsigned int page)
{
	return look(page).device;
}

static uint64_t mem_used(const struct handle *h)
{
	struct balun_device_info info = { .size = sizeof(info) };

	CHECK(!balun_device_info(h->dev, &info));
	return info.mem_used;
}

static unsigned int id_of(const struct handle *h)
{
	struct balun_device_info info = { .size = sizeof(info) };

	CHECK(!balun_device_info(h->dev, &info));
	return info.id;
}

static bool is_coherent(unsigned int id)
{
	struct balun_device_info info = { .size = sizeof(info) };
	unsigned int i;

	for (i = 0; i < DEVICES; i++)
		if (world.handle[i].dev && !balun_device_info(world.handle[i].dev, &info) &&
		    info.id == id)
			return info.caps & BALUN_CAP_COHERENT;
	return false;
}

static void check_entry(const struct entry *e, unsigned int page, unsigned int id)
{
	struct balun_extent x = look(page);

	/* a device that is lost keeps its entries until somebody touches the page */
	if (x.where == BALUN_WHERE_LOST) {
		CHECK(testdev_any_dead());
		return;
	}
	/* coherent memory is system memory to everybody else */
	if (e->kind != BALUN_KIND_SYSTEM)
		CHECK(x.device == id);
	else if (x.device)
		CHECK(is_coherent(x.device));
	CHECK(x.flags & BALUN_EXTENT_READ);
	CHECK(!(e->perm & BALUN_PERM_WRITE) || x.flags & BALUN_EXTENT_WRITE);
}

void check_agreement(void)
{
	unsigned int d, i;

	for (d = 0; d < DEVS; d++)
		for (i = 0; world.handle[d].dev && i < PAGES; i++) {
			const struct entry *e = &devs[d].entry[entry_of(page_va(i))];

			if (e->valid)
				check_entry(e, i, id_of(&world.handle[d]));
		}
}

/* all that can go there goes */
static void check_migrate(const struct handle *h, bool small)
{
	uint64_t begin = model_tick();
	unsigned int w;

	for (w = 0; w < WINDOWS; w++) {
		struct range r = range_of(w * WINDOW_PAGES, WINDOW_PAGES);
		struct balun_counts c = { 0 };
		int err = balun_migrate(world.space, (void *)r.va, r.len, h->dev, &c);

		if (err == -EFAULT) {
			CHECK(was_unmapped(&r, begin));
			continue;
		}
		CHECK(!err && !c.busy && !c.failed && !c.pinned);
		CHECK(!c.nomem || small);
	}
}

/* all but @page (PAGES: all) is home again */
static void check_evict(const struct handle *h, unsigned int page)
{
	uint64_t freed, left = page < PAGES ? BALUN_PAGE_SIZE : 0;
	unsigned int id = id_of(h), i;
	int err = balun_evict(h->dev, UINT64_MAX, &freed);

	if (err == (left ? -EBUSY : 0) && mem_used(h) == left && (!left || where(page) == id))
		return;
	for (i = 0; i < PAGES && (i == page || where(i) != id); i++)
		;
	FAIL("evict: %d, freed 0x%llx; device %u holds 0x%llx bytes, page %u among them", err,
	     (unsigned long long)freed, id, (unsigned long long)mem_used(h), i);
}

/* a page on the device that is pinned stays there, whatever happens to its neighbours */
static void check_pin(const struct op *op, const struct handle *h)
{
	unsigned int id = id_of(h), page = 0, i;

	while (page < BIG_FIRST && where(page) != id)
		page++;
	if (page == BIG_FIRST)
		return;
	CHECK(!balun_pin(world.space, (void *)page_va(page), BALUN_PAGE_SIZE));
	profile.policy = 1; /* brings all it can */
	for (i = page + 1;
	     i < BIG_FIRST && page_va(i) == page_va(page) + (i - page) * BALUN_PAGE_SIZE; i++)
		cpu_load(op, i, 0);
	profile.policy = 0;
	CHECK(where(page) == id);
	check_evict(h, page);
	CHECK(!balun_unpin(world.space, (void *)page_va(page), BALUN_PAGE_SIZE));
}

void check_quiet(const struct op *op)
{
	unsigned int i;

	/* who failed to remember a block for want of memory may not find it; the dead give nothing
	 */
	if (testdev_any_dead() || world.nomem)
		return;
	for (i = 0; i < DEVICES; i++) {
		const struct handle *h = &world.handle[i];

		if (!h->dev)
			continue;
		check_migrate(h, i == 0 && world.s->room);
		check_pin(op, h);
		check_evict(h, PAGES);
	}
}
