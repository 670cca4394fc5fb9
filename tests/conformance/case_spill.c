// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* devices in a row: what one evicts goes to the next; and what is at home alone goes out */
#include "kit.h"

/* or the case does not apply */
static void spill(struct balun_device *dev, struct balun_device *to)
{
	int err = balun_device_spill(dev, to);

	if (err == -EOPNOTSUPP)
		kit_skip("%s", balun_reason());
	CHECK_OK(err);
}

/* twice what the first has: half of it is on the second then, nothing at home */
static void spills(struct kit *k)
{
	uint64_t total = kit_mem_total(k->dev), va = kit_filled(k, 2 * total, 1), at;
	struct balun_device *b = kit_device(k, "mem=4M");

	spill(k->dev, b);
	for (at = 0; at < 2 * total; at += BALUN_BLOCK_SIZE)
		kit_move(k, va + at, BALUN_BLOCK_SIZE, k->dev);
	CHECK_EQ(kit_resident(k, va, 2 * total, k->dev), total / PAGE);
	CHECK_EQ(kit_resident(k, va, total, b), total / PAGE); /* the coldest */
	CHECK_EQ(kit_sum(kit_stats(k).to_system), 0);
	dev_verify(b, va, 2 * total, 1);
	kit_verify(k, va, 2 * total, 1);
}

/* full is full: what has no room stays where it was, and nothing comes home for it */
static void full(struct kit *k)
{
	uint64_t total = kit_mem_total(k->dev), va = kit_filled(k, 4 * total, 2), at;
	struct balun_device *b = kit_device(k, "mem=4M");
	struct balun_counts c = { 0 };

	spill(k->dev, b);
	spill(b, b);
	CHECK_EQ(kit_mem_total(b), total);
	for (at = 0; at < 4 * total; at += BALUN_BLOCK_SIZE) {
		c = kit_migrate(k, va + at, BALUN_BLOCK_SIZE, k->dev);
		CHECK_EQ(c.failed + c.busy + c.unmovable, 0);
	}
	CHECK_EQ(c.nomem, BALUN_BLOCK_PAGES);
	CHECK_EQ(kit_resident(k, va, 4 * total, k->dev), total / PAGE);
	CHECK_EQ(kit_resident(k, va, 4 * total, b), total / PAGE);
	CHECK_EQ(kit_sum(kit_stats(k).to_system), 0);
	/* asked for by name it goes home all the same */
	CHECK_OK(balun_evict(b, UINT64_MAX, NULL));
	CHECK_EQ(kit_mem_used(b), 0);
	kit_verify(k, va, 4 * total, 2);
}

/* a row has no loops; the next one closed, it is home again */
static void rules(struct kit *k)
{
	uint64_t total = kit_mem_total(k->dev), va = kit_filled(k, 2 * total, 3), at;
	struct balun_device *b = kit_device(k, "mem=4M"), *c = kit_device(k, "mem=4M");

	spill(k->dev, b);
	spill(b, c);
	CHECK_RC(balun_device_spill(c, k->dev), -EINVAL);
	CHECK_RC(balun_device_spill(c, b), -EINVAL);
	CHECK_OK(balun_device_spill(c, c));
	CHECK_RC(balun_device_spill(NULL, c), -EINVAL);
	CHECK_OK(kit_close(k, b));
	for (at = 0; at < 2 * total; at += BALUN_BLOCK_SIZE)
		kit_move(k, va + at, BALUN_BLOCK_SIZE, k->dev);
	CHECK_EQ(kit_mem_used(c), 0);
	CHECK_EQ(kit_resident(k, va, 2 * total, k->dev), total / PAGE);
	kit_verify(k, va, 2 * total, 3);
}

/* what others have stays with them; a copy that fails on the way down leaves the page above */
static void fails(struct kit *k)
{
	uint64_t total = kit_mem_total(k->dev), va = kit_filled(k, 2 * total, 4), at;
	struct balun_device *b = kit_device(k, "host=0");

	spill(k->dev, b);
	probe_fail(b, PROBE_WAIT, 1, PROBE_FOREVER, -EIO);
	for (at = 0; at < 2 * total; at += BALUN_BLOCK_SIZE)
		kit_migrate(k, va + at, BALUN_BLOCK_SIZE, k->dev);
	CHECK(probe_failed(b, PROBE_WAIT));
	CHECK_EQ(kit_resident(k, va, 2 * total, b), 0);
	CHECK_EQ(kit_stats(k).lost_pages, 0);
	kit_verify(k, va, 2 * total, 4);
}

static void only_home(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, 2 * len, 5), hole = kit_map(k, len, KIT_RW);
	struct balun_device *b = kit_device(k, "mem=4M");
	struct balun_counts c;
	int err;

	kit_move(k, va, len / 2, k->dev);
	err = balun_offload(k->space, (void *)(uintptr_t)va, 2 * len, b, &c);
	if (err == -EOPNOTSUPP)
		kit_skip("%s", balun_reason());
	CHECK_OK(err);
	CHECK_EQ(c.moved, 2 * len / PAGE - 32);
	CHECK_EQ(c.already, 32);
	CHECK_EQ(kit_resident(k, va, 2 * len, k->dev), 32);
	CHECK_OK(balun_offload(k->space, (void *)(uintptr_t)hole, len, b, &c));
	CHECK_EQ(c.empty, len / PAGE);
	CHECK_RC(balun_offload(k->space, (void *)(uintptr_t)va, len, NULL, &c), -EINVAL);
	dev_verify_part(b, va, len, len, 5);
	kit_verify(k, va, 2 * len, 5);
}

const struct kit_case cases_spill[] = {
	{ "spill", spills, "mem=4M", 0 },
	{ "spill-copied", spills, "mem=4M,host=0", 0 },
	{ "spill-full", full, "mem=4M", 0 },
	{ "spill-rules", rules, "mem=4M", 0 },
	{ "spill-fails", fails, "mem=4M,host=0", 0 },
	{ "offload-only-home", only_home, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
