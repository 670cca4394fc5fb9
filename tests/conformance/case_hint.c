/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Pins, hints, prefetch. */
#include "kit.h"

static void pin_stays(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 1);
	struct balun_counts c;

	CHECK_OK(balun_pin(k->space, (void *)(va + 8 * PAGE), 8 * PAGE));
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.pinned, 8);
	CHECK_EQ(c.moved, 56);
	CHECK(kit_query1(k, va + 8 * PAGE).flags & BALUN_EXTENT_PINNED);
	CHECK(!(kit_query1(k, va + 16 * PAGE).flags & BALUN_EXTENT_PINNED));
	dev_verify(k->dev, va, len, 1);
	CHECK_EQ(kit_resident(k, va + 8 * PAGE, 8 * PAGE, k->dev), 0);
	CHECK_OK(balun_unpin(k->space, (void *)(va + 8 * PAGE), 8 * PAGE));
	kit_move(k, va, len, k->dev);
	kit_verify(k, va, len, 1);
}

static void pin_on_device(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 2);
	struct balun_counts c;

	kit_move(k, va, len, k->dev);
	CHECK_OK(balun_pin(k->space, (void *)va, len));
	c = kit_migrate(k, va, len, NULL);
	CHECK_EQ(c.pinned, 16);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 16);
	/* a touch brings its page home all the same, where it then stays */
	kit_verify(k, va, len, 2);
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.pinned, 16);
	CHECK_OK(balun_unpin(k->space, (void *)va, len));
	kit_move(k, va, len, k->dev);
	kit_verify(k, va, len, 2);
}

static void pin_nested(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 3);
	void *a = (void *)va, *b = (void *)(va + 4 * PAGE);

	CHECK_OK(balun_pin(k->space, a, 8 * PAGE));
	CHECK_OK(balun_pin(k->space, b, 8 * PAGE));
	CHECK_OK(balun_pin(k->space, a, 8 * PAGE));
	CHECK_EQ(kit_migrate(k, va, len, k->dev).pinned, 12);
	CHECK_OK(balun_unpin(k->space, a, 8 * PAGE));
	CHECK_EQ(kit_migrate(k, va, len, k->dev).pinned, 12);
	CHECK_OK(balun_unpin(k->space, a, 8 * PAGE));
	CHECK_EQ(kit_migrate(k, va, len, k->dev).pinned, 8);
	CHECK_RC(balun_unpin(k->space, a, 8 * PAGE), -ENOENT);
	CHECK_RC(balun_unpin(k->space, b, 4 * PAGE), -ENOENT);
	CHECK_OK(balun_unpin(k->space, b, 8 * PAGE));
	kit_move(k, va, len, k->dev);
	kit_verify(k, va, len, 3);
}

/* memory whose preferred place is home is used by the device in place */
static void preferred_home(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 4);

	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_PREFERRED_LOCATION, NULL));
	dev_verify(k->dev, va, len, 4);
	dev_fill(k->dev, va, len, 5);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 0);
	CHECK_EQ(probe_lookup(k->dev, va).kind, BALUN_KIND_SYSTEM);
	kit_verify(k, va, len, 5);
	/* an explicit request is still one */
	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 5);
}

static void preferred_device(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 6);

	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_PREFERRED_LOCATION, k->dev));
	dev_verify(k->dev, va, len, 6);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 64);
	kit_verify(k, va, len, 6);
}

static void accessed_by(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 7);

	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_ACCESSED_BY, k->dev));
	dev_verify(k->dev, va, len, 7);
	dev_fill(k->dev, va, len, 8);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 0);
	kit_verify(k, va, len, 8);
	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_NONE, NULL));
	dev_fill(k->dev, va, len, 9);
	kit_verify(k, va, len, 9);
}

/* reads are served in place; writes switch the hint off, and the stats say so */
static void read_mostly(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 10), i;

	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_READ_MOSTLY, NULL));
	dev_verify(k->dev, va, len, 10);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 0);
	CHECK_EQ(kit_stats(k).hints_off, 0);
	for (i = 0; i < 100 && !kit_stats(k).hints_off; i++) {
		dev_write64(k->dev, va + i % 64 * PAGE, i);
		/* the CPU looks, so that the next write is a fault again */
		CHECK_EQ(cpu_read64(k, va + i % 64 * PAGE), i);
		kit_move(k, va, len, NULL);
	}
	CHECK_EQ(kit_stats(k).hints_off, 1);
}

static void discard(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 11), i, want, v;

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 11);
	CHECK_OK(balun_advise(k->space, (void *)va, len / 2, BALUN_ADVISE_DISCARD, NULL));
	CHECK_EQ(kit_mem_used(k->dev), len / 2);
	for (i = 0; i < len / 2 / PAGE; i++) {
		v = cpu_read64(k, va + i * PAGE);
		kit_pattern(&want, i * PAGE, sizeof(want), 11);
		CHECK(v == 0 || v == want);
	}
	kit_fill(k, va, len / 2, 12);
	kit_verify(k, va, len / 2, 12);
	kit_verify_part(k, va, len / 2, len / 2, 11);
}

static void discard_at_home(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 13);

	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_DISCARD, NULL));
	kit_fill(k, va, len, 14);
	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 14);
}

/* hints of a closed device are forgotten, not given to its successor */
static void hint_of_closed(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 15);
	struct balun_device *b = kit_device(k, NULL);

	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_PREFERRED_LOCATION, b));
	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_ACCESSED_BY, b));
	CHECK_OK(kit_close(k, b));
	dev_verify(k->dev, va, len, 15);
	kit_move(k, va, len, k->dev);
	kit_verify(k, va, len, 15);
}

static void prefetch(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 16);

	CHECK_OK(balun_prefetch(k->space, (void *)va, len, k->dev));
	CHECK_OK(balun_sync(k->space));
	CHECK_EQ(kit_resident(k, va, len, k->dev), len / PAGE);
	CHECK_EQ(kit_stats(k).to_device[BALUN_CAUSE_PREFETCH], len);
	dev_verify(k->dev, va, len, 16);
	CHECK_OK(balun_prefetch(k->space, (void *)va, len, NULL));
	CHECK_OK(balun_sync(k->space));
	CHECK_EQ(kit_resident(k, va, len, k->dev), 0);
	CHECK_EQ(kit_stats(k).to_system[BALUN_CAUSE_PREFETCH], len);
	kit_verify(k, va, len, 16);
}

/* more than the queue holds: told, never lost, and sync ends */
static void prefetch_many(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 17), i, again = 0;

	for (i = 0; i < 5000; i++) {
		int rc = balun_prefetch(k->space, (void *)(va + i % 512 * PAGE), PAGE,
					i / 512 % 2 ? NULL : k->dev);

		CHECK(rc == 0 || rc == -EAGAIN);
		if (rc) {
			again++;
			CHECK_OK(balun_sync(k->space));
		}
	}
	CHECK_OK(balun_sync(k->space));
	kit_verify(k, va, len, 17);
}

/* a prefetch of what is gone by then is nothing */
static void prefetch_then_munmap(struct kit *k)
{
	uint64_t len = MIB, va = kit_filled(k, len, 18);

	CHECK_OK(balun_prefetch(k->space, (void *)va, len, k->dev));
	CHECK_OK(k->mem->unmap(k, va, len));
	CHECK_OK(balun_sync(k->space));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), 0);
}

/* the device is closed with prefetches queued */
static void prefetch_then_close(struct kit *k)
{
	uint64_t len = 8 * MIB, va = kit_filled(k, len, 19), i;

	for (i = 0; i < 8; i++)
		CHECK_OK(balun_prefetch(k->space, (void *)(va + i * MIB), MIB, k->dev));
	CHECK_OK(kit_close(k, k->dev));
	CHECK_OK(balun_sync(k->space));
	kit_verify(k, va, len, 19);
}

const struct kit_case cases_hint[] = {
	{ "pin-stays", pin_stays, NULL, 0 },
	{ "pin-on-device", pin_on_device, NULL, 0 },
	{ "pin-nested", pin_nested, NULL, 0 },
	{ "hint-preferred-home", preferred_home, NULL, 0 },
	{ "hint-preferred-device", preferred_device, NULL, 0 },
	{ "hint-accessed-by", accessed_by, NULL, 0 },
	{ "hint-read-mostly", read_mostly, NULL, 0 },
	{ "hint-discard", discard, NULL, 0 },
	{ "hint-discard-at-home", discard_at_home, NULL, 0 },
	{ "hint-of-closed-device", hint_of_closed, NULL, 0 },
	{ "prefetch-sync", prefetch, NULL, 0 },
	{ "prefetch-many", prefetch_many, NULL, 0 },
	{ "prefetch-then-munmap", prefetch_then_munmap, NULL, 0 },
	{ "prefetch-then-close", prefetch_then_close, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
