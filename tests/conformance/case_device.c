/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Several devices, copies between them, devices that are full, eviction. */
#include "kit.h"

static void two(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, 2 * len, 1);
	struct balun_device *b = kit_device(k, NULL);

	CHECK(kit_id(k->dev) != kit_id(b));
	kit_move(k, va, len, k->dev);
	kit_move(k, va + len, len, b);
	CHECK_EQ(kit_resident(k, va, 2 * len, k->dev), len / PAGE);
	CHECK_EQ(kit_resident(k, va, 2 * len, b), len / PAGE);
	dev_verify(k->dev, va, 2 * len, 1);
	dev_verify(b, va, 2 * len, 1);
	kit_mirror(k, k->dev, va, 2 * len);
	kit_mirror(k, b, va, 2 * len);
	kit_verify(k, va, 2 * len, 1);
}

/* two devices and a CPU take turns at the same words */
static void two_take_turns(struct kit *k)
{
	uint64_t va = kit_map(k, 4 * PAGE, KIT_RW), i;
	struct balun_device *b = kit_device(k, NULL);

	for (i = 1; i < 100; i++) {
		dev_write64(k->dev, va + 8, i);
		CHECK_EQ(dev_read64(b, va + 8), i);
		dev_write64(b, va + PAGE, 2 * i);
		CHECK_EQ(cpu_read64(k, va + PAGE), 2 * i);
		CHECK_EQ(dev_read64(k->dev, va + PAGE), 2 * i);
		cpu_write64(k, va + 2 * PAGE, 3 * i);
		CHECK_EQ(dev_read64(b, va + 2 * PAGE), 3 * i);
		CHECK_EQ(dev_read64(k->dev, va + 2 * PAGE), 3 * i);
		kit_mirror(k, k->dev, va, 4 * PAGE);
		kit_mirror(k, b, va, 4 * PAGE);
	}
}

static void device_to_device(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 2);
	struct balun_device *b = kit_device(k, NULL);

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 2);
	kit_move(k, va, len, b);
	CHECK_EQ(kit_resident(k, va, len, b), len / PAGE);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	CHECK_EQ(probe_mapped(k->dev, va, len), 0);
	CHECK_EQ(kit_sum(kit_stats(k).device_to_device), len);
	dev_verify(b, va, len, 2);
	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 2);
	kit_verify(k, va, len, 2);
}

static uint64_t host_bytes(struct balun_device *dev)
{
	struct probe_counts n;

	probe_get_counts(dev, &n);
	return n.bytes[BALUN_KIND_LOCAL][BALUN_KIND_SYSTEM] +
	       n.bytes[BALUN_KIND_SYSTEM][BALUN_KIND_LOCAL];
}

/* direct copies: no byte goes through host memory */
static void direct(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 3), before;
	struct balun_device *b = kit_device(k, "host=0");
	struct balun_stats s;

	kit_move(k, va, len, k->dev);
	before = host_bytes(k->dev) + host_bytes(b);
	kit_move(k, va, len, b);
	s = kit_stats(k);
	CHECK_EQ(s.peer_bytes, len);
	CHECK_EQ(kit_sum(s.device_to_device), len);
	CHECK_EQ(host_bytes(k->dev) + host_bytes(b), before);
	dev_verify(b, va, len, 3);
	kit_verify(k, va, len, 3);
}

/* devices that do not reach each other go through host memory, and are right */
static void staged(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 4);
	struct balun_device *b = kit_device(k, "host=0,peer=0");

	kit_move(k, va, len, k->dev);
	dev_fill(k->dev, va, len, 5);
	kit_move(k, va, len, b);
	CHECK_EQ(kit_stats(k).peer_bytes, 0);
	dev_verify(b, va, len, 5);
	kit_move(k, va, len / 2, k->dev);
	dev_verify(k->dev, va, len, 5);
	dev_verify(b, va, len, 5);
	kit_verify(k, va, len, 5);
}

static void device_to_device_fails(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 6);
	struct balun_device *b = kit_device(k, "host=0");
	struct balun_counts c;

	kit_move(k, va, len, k->dev);
	probe_fail(b, PROBE_WAIT, 1, 1, -EIO);
	c = kit_migrate(k, va, len, b);
	CHECK(probe_failed(b, PROBE_WAIT));
	CHECK(c.failed > 0);
	CHECK_EQ(kit_resident(k, va, len, k->dev), c.failed);
	dev_verify(k->dev, va, len, 6);
	kit_move(k, va, len, b);
	dev_verify(b, va, len, 6);
	kit_verify(k, va, len, 6);
	CHECK_EQ(kit_stats(k).lost_pages, 0);
}

/* what a copy that failed has left in device memory is nobody's: memory that was never touched gets
 * the same places, and is zeros */
static void fails_then_zeros(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 7), hole = kit_map(k, len, KIT_RW), i;
	struct balun_device *b = kit_device(k, "mem=2M");
	struct balun_counts c;

	kit_move(k, va, len, k->dev);
	probe_fail(b, PROBE_WAIT, 1, PROBE_FOREVER, -EIO);
	c = kit_migrate(k, va, len, b);
	CHECK_EQ(c.failed, len / PAGE);
	probe_fail(b, PROBE_WAIT, 1, 0, 0);
	/* a page table is there, and holes in it */
	for (i = 0; i < len; i += 2 * PAGE)
		kit_fill(k, hole + i, PAGE, 8);
	kit_move(k, hole, len, b);
	for (i = 0; i < len; i += 2 * PAGE) {
		kit_verify(k, hole + i, PAGE, 8);
		kit_verify_zero(k, hole + i + PAGE, PAGE);
	}
	kit_verify(k, va, len, 7);
}

static void many(struct kit *k)
{
	struct balun_device *d[4] = { k->dev };
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 7);
	int i;

	for (i = 1; i < 4; i++)
		d[i] = kit_device(k, "mem=2M");
	for (i = 0; i < 12; i++) {
		kit_move(k, va, len, d[i % 4]);
		dev_verify(d[i % 4], va, len, 7);
		CHECK_EQ(kit_resident(k, va, len, d[i % 4]), 64);
	}
	kit_verify(k, va, len, 7);
}

/* ---- full ---- */

/* more than fits in one request: what does not fit is told or makes room, nothing is lost */
static void full(struct kit *k)
{
	uint64_t total = kit_mem_total(k->dev), len = total + total / 2, va = kit_filled(k, len, 8);
	struct balun_counts c;

	CHECK_EQ(total, 8 * MIB);
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.failed + c.busy + c.pinned + c.unmovable, 0);
	CHECK(c.moved >= total / PAGE);
	CHECK(kit_mem_used(k->dev) <= total);
	CHECK(kit_mem_used(k->dev) >= total / 2);
	dev_verify(k->dev, va, len, 8);
	kit_verify(k, va, len, 8);
}

/* a working set of three times the device, read and written twice */
static void small(struct kit *k)
{
	uint64_t len = 3 * kit_mem_total(k->dev), va = kit_filled(k, len, 9);

	CHECK_EQ(len, 12 * MIB);
	dev_verify(k->dev, va, len, 9);
	kit_migrate(k, va, len, k->dev);
	dev_fill(k->dev, va, len, 10);
	CHECK(kit_mem_used(k->dev) <= kit_mem_total(k->dev));
	dev_verify(k->dev, va, len, 10);
	kit_verify(k, va, len, 10);
	CHECK(kit_stats(k).evictions > 0);
	CHECK(kit_stats(k).to_system[BALUN_CAUSE_EVICTION] > 0);
	CHECK_EQ(kit_stats(k).lost_pages, 0);
}

/* device memory full of single pages from everywhere still takes a whole block */
static void fragmented(struct kit *k)
{
	uint64_t blocks = 24, len = blocks * BALUN_BLOCK_SIZE, va = kit_filled(k, len, 11), i, j;

	for (i = 0; i < blocks; i++)
		for (j = 0; j < 512; j += 16)
			kit_migrate(k, va + i * BALUN_BLOCK_SIZE + j * PAGE, PAGE, k->dev);
	kit_migrate(k, va + 5 * BALUN_BLOCK_SIZE, BALUN_BLOCK_SIZE, k->dev);
	CHECK_EQ(kit_resident(k, va + 5 * BALUN_BLOCK_SIZE, BALUN_BLOCK_SIZE, k->dev), 512);
	dev_verify_part(k->dev, va, 5 * BALUN_BLOCK_SIZE, BALUN_BLOCK_SIZE, 11);
	kit_verify(k, va, len, 11);
}

static void evict_all(struct kit *k)
{
	uint64_t len = 6 * MIB, va = kit_filled(k, len, 12), freed = 0;

	kit_move(k, va, len, k->dev);
	CHECK_OK(balun_evict(k->dev, UINT64_MAX, &freed));
	CHECK_EQ(freed, len);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	CHECK_EQ(probe_mapped(k->dev, va, len), 0);
	CHECK_EQ(kit_stats(k).to_system[BALUN_CAUSE_EVICTION], len);
	kit_verify(k, va, len, 12);
}

/* at least what was asked for, least recently used first */
static void evict_some(struct kit *k)
{
	uint64_t len = 8 * MIB, va = kit_filled(k, len, 13), freed = 0, i;

	for (i = 0; i < 4; i++)
		kit_move(k, va + i * BALUN_BLOCK_SIZE, BALUN_BLOCK_SIZE, k->dev);
	/* the first block is used again: it is not the oldest any more */
	CHECK_OK(balun_fault(k->dev, k->space, va, PAGE, BALUN_ACCESS_READ));
	CHECK_OK(balun_evict(k->dev, PAGE, &freed));
	CHECK(freed >= PAGE && freed <= BALUN_BLOCK_SIZE);
	CHECK_EQ(kit_mem_used(k->dev), len - freed);
	CHECK_EQ(kit_resident(k, va, BALUN_BLOCK_SIZE, k->dev), 512);
	dev_verify(k->dev, va, len, 13);
	kit_verify(k, va, len, 13);
}

static void evict_nothing(struct kit *k)
{
	uint64_t freed = 99;

	CHECK_OK(balun_evict(k->dev, UINT64_MAX, &freed));
	CHECK_EQ(freed, 0);
	CHECK_OK(balun_evict(k->dev, 0, NULL));
}

static void evict_pinned(struct kit *k)
{
	uint64_t len = 2 * BALUN_BLOCK_SIZE, va = kit_filled(k, len, 14), freed = 0;

	kit_move(k, va, len, k->dev);
	CHECK_OK(balun_pin(k->space, (void *)va, BALUN_BLOCK_SIZE));
	CHECK_RC(balun_evict(k->dev, UINT64_MAX, &freed), -EBUSY);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 512);
	CHECK_OK(balun_unpin(k->space, (void *)va, BALUN_BLOCK_SIZE));
	CHECK_OK(balun_evict(k->dev, UINT64_MAX, NULL));
	CHECK_EQ(kit_mem_used(k->dev), 0);
	kit_verify(k, va, len, 14);
}

/* a device full of pinned pages: no room, said so, and the device still works in place */
static void full_of_pinned(struct kit *k)
{
	uint64_t total = kit_mem_total(k->dev), va = kit_filled(k, 2 * total, 15);
	struct balun_counts c;

	kit_move(k, va, total, k->dev);
	CHECK_OK(balun_pin(k->space, (void *)va, total));
	c = kit_migrate(k, va + total, total, k->dev);
	CHECK_EQ(c.nomem, total / PAGE);
	dev_verify(k->dev, va, 2 * total, 15);
	CHECK_OK(balun_unpin(k->space, (void *)va, total));
	kit_verify(k, va, 2 * total, 15);
}

/* the pages that move out of one full device make room for those that move in */
static void full_two(struct kit *k)
{
	uint64_t total = kit_mem_total(k->dev), va = kit_filled(k, 2 * total, 16), i;
	struct balun_device *b = kit_device(k, "mem=4M");

	for (i = 0; i < 3; i++) {
		kit_migrate(k, va, total, k->dev);
		kit_migrate(k, va + total, total, b);
		kit_migrate(k, va, total, b);
		kit_migrate(k, va + total, total, k->dev);
		CHECK(kit_mem_used(k->dev) <= total && kit_mem_used(b) <= total);
	}
	dev_verify(k->dev, va, 2 * total, 16);
	dev_verify(b, va, 2 * total, 16);
	kit_verify(k, va, 2 * total, 16);
}

const struct kit_case cases_device[] = {
	{ "device-two", two, NULL, 0 },
	{ "device-two-take-turns", two_take_turns, NULL, 0 },
	{ "device-to-device", device_to_device, NULL, 0 },
	{ "device-to-device-copied", device_to_device, "host=0", 0 },
	{ "device-to-device-direct", direct, "host=0", KIT_PEER },
	{ "device-to-device-staged", staged, "host=0,peer=0", 0 },
	{ "device-to-device-fails", device_to_device_fails, "host=0", 0 },
	{ "device-to-device-fails-then-zeros", fails_then_zeros, "host=0", 0 },
	{ "device-many", many, NULL, 0 },
	{ "full-device", full, "mem=8M", 0 },
	{ "full-device-copied", full, "mem=8M,host=0", 0 },
	{ "full-working-set-larger", small, "mem=4M", 0 },
	{ "full-working-set-larger-copied", small, "mem=4M,host=0", 0 },
	{ "full-fragmented", fragmented, "mem=4M", 0 },
	{ "full-of-pinned", full_of_pinned, "mem=4M", 0 },
	{ "full-two-devices", full_two, "mem=4M", 0 },
	{ "evict-all", evict_all, NULL, 0 },
	{ "evict-some-lru", evict_some, NULL, 0 },
	{ "evict-nothing", evict_nothing, NULL, 0 },
	{ "evict-pinned", evict_pinned, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
