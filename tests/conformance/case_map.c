/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The device's page table: exactly what was faulted, gone when it must be, never stale. */
#include "kit.h"

/* the device sees exactly what it touched; the entries say where the pages are */
static void map_exact(struct kit *k)
{
	uint64_t len = 2 * BALUN_BLOCK_SIZE, va = kit_filled(k, len, 1);

	kit_move(k, va, len, k->dev);
	CHECK_EQ(probe_mapped(k->dev, va - BALUN_BLOCK_SIZE, len + 2 * BALUN_BLOCK_SIZE),
		 probe_mapped(k->dev, va, len));
	dev_verify(k->dev, va, len, 1);
	CHECK_EQ(probe_mapped(k->dev, va, len), len / PAGE);
	CHECK_EQ(probe_mapped(k->dev, va - BALUN_BLOCK_SIZE, len + 2 * BALUN_BLOCK_SIZE),
		 len / PAGE);
	kit_mirror(k, k->dev, va, len);
}

/* a device that only looks at what is at home maps it and is right, whatever policy decides */
static void map_in_place_or_not(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 2);

	dev_verify(k->dev, va, len, 2);
	kit_mirror(k, k->dev, va, len);
	dev_fill(k->dev, va, len, 3);
	kit_mirror(k, k->dev, va, len);
	kit_verify(k, va, len, 3);
	kit_mirror(k, k->dev, va, len);
}

/* pages that come home lose their entries for device memory */
static void map_home_removes(struct kit *k)
{
	uint64_t len = BALUN_BLOCK_SIZE, va = kit_filled(k, len, 4);

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 4);
	kit_move(k, va, len, NULL);
	kit_mirror(k, k->dev, va, len);
	kit_verify(k, va, len, 4);
	CHECK_EQ(kit_mem_used(k->dev), 0);
}

/* a CPU touch of one page takes at least that page's entry away */
static void map_touch_removes(struct kit *k)
{
	uint64_t len = BALUN_BLOCK_SIZE, va = kit_filled(k, len, 5);

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 5);
	cpu_write64(k, va + 100 * PAGE, 77);
	CHECK(kit_query1(k, va + 100 * PAGE).where == BALUN_WHERE_SYSTEM);
	kit_mirror(k, k->dev, va, len);
	CHECK_EQ(dev_read64(k->dev, va + 100 * PAGE), 77);
	dev_verify_part(k->dev, va, 101 * PAGE, len - 101 * PAGE, 5);
	dev_verify(k->dev, va, 100 * PAGE, 5);
}

static void unmap_exact(struct kit *k)
{
	uint64_t len = BALUN_BLOCK_SIZE, va = kit_filled(k, len, 6);

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 6);
	CHECK_OK(k->mem->unmap(k, va + 5 * PAGE, 3 * PAGE));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(probe_mapped(k->dev, va + 5 * PAGE, 3 * PAGE), 0);
	CHECK_RC(balun_fault(k->dev, k->space, va + 6 * PAGE, 1, BALUN_ACCESS_READ), -EFAULT);
	dev_verify(k->dev, va, 5 * PAGE, 6);
	dev_verify_part(k->dev, va, 8 * PAGE, len - 8 * PAGE, 6);
	kit_mirror(k, k->dev, va, len);
	kit_verify(k, va, 5 * PAGE, 6);
	kit_verify_part(k, va, 8 * PAGE, len - 8 * PAGE, 6);
}

/* 2 MiB device entries that lose a page at the start, in the middle, at the end */
static void unmap_splits_2m(struct kit *k)
{
	static const uint64_t hole[] = { 0, 255, 511 };
	uint64_t va[3];
	int i;

	for (i = 0; i < 3; i++) {
		uint64_t at = hole[i] * PAGE, after = at + PAGE;

		va[i] = kit_filled(k, BALUN_BLOCK_SIZE, 7 + i);
		kit_move(k, va[i], BALUN_BLOCK_SIZE, k->dev);
		/* one fault of the whole block: a driver may use one large entry */
		CHECK_OK(
			balun_fault(k->dev, k->space, va[i], BALUN_BLOCK_SIZE, BALUN_ACCESS_WRITE));
		CHECK_OK(k->mem->unmap(k, va[i] + at, PAGE));
		CHECK_OK(balun_fence(k->space));
		CHECK(!probe_lookup(k->dev, va[i] + at).valid);
		dev_verify(k->dev, va[i], at, 7 + i);
		dev_verify_part(k->dev, va[i], after, BALUN_BLOCK_SIZE - after, 7 + i);
		kit_verify(k, va[i], at, 7 + i);
		kit_verify_part(k, va[i], after, BALUN_BLOCK_SIZE - after, 7 + i);
	}
}

/* a range that the device never saw can go, whole or in part */
static void unmap_without_entries(struct kit *k)
{
	uint64_t len = 2 * BALUN_BLOCK_SIZE, va = kit_filled(k, len, 10);

	kit_move(k, va, len, k->dev);
	CHECK_OK(k->mem->unmap(k, va + BALUN_BLOCK_SIZE, BALUN_BLOCK_SIZE));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), BALUN_BLOCK_SIZE);
	kit_verify(k, va, BALUN_BLOCK_SIZE, 10);
}

/* unmapped, then mapped anew at the same place: nobody sees the old bytes */
static void stale_after_remap(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 11);
	int i;

	for (i = 0; i < 20; i++) {
		kit_move(k, va, len, k->dev);
		dev_verify(k->dev, va, len, 11 + i);
		CHECK_OK(k->mem->unmap(k, va, len));
		CHECK_OK(k->mem->map(k, va, len, KIT_RW));
		CHECK_OK(balun_fence(k->space));
		CHECK_EQ(dev_read64(k->dev, va + 8 * PAGE), 0);
		kit_verify_zero(k, va, len);
		kit_fill(k, va, len, 12 + i);
	}
}

struct stale {
	struct kit *k;
	uint64_t va;
	uint64_t floor; /* what the device may read at least: raised after each fence */
	uint64_t reads;
	int stop;
};

/* reads one word for ever: never below what was written before the last fence */
static void *stale_reader(void *arg)
{
	struct stale *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		uint64_t floor = __atomic_load_n(&s->floor, __ATOMIC_ACQUIRE), v = 0;
		int rc = dev_read(s->k->dev, s->va, &v, sizeof(v));

		/* in the moment between munmap and mmap there is nothing */
		if (rc == -EFAULT)
			continue;
		CHECK_RC(rc, 0);
		if (v && v < floor)
			kit_fail(__FILE__, __LINE__, "the device reads %llu after %llu was written",
				 (unsigned long long)v, (unsigned long long)floor);
		__atomic_fetch_add(&s->reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void stale_run(struct kit *k, bool remap)
{
	struct stale s = { .k = k, .va = kit_map(k, 16 * PAGE, KIT_RW), .floor = 1 };
	pthread_t t[2];
	uint64_t i, seen;

	cpu_write64(k, s.va, 1);
	t[0] = kit_thread(stale_reader, &s);
	t[1] = kit_thread(stale_reader, &s);
	for (i = 2; i < 100; i++) {
		if (remap) {
			CHECK_OK(k->mem->unmap(k, s.va, 16 * PAGE));
			CHECK_OK(k->mem->map(k, s.va, 16 * PAGE, KIT_RW));
		} else {
			kit_migrate(k, s.va, 16 * PAGE, i & 1 ? k->dev : NULL);
		}
		cpu_write64(k, s.va, i);
		CHECK_OK(balun_fence(k->space));
		__atomic_store_n(&s.floor, i, __ATOMIC_RELEASE);
		seen = __atomic_load_n(&s.reads, __ATOMIC_RELAXED);
		while (__atomic_load_n(&s.reads, __ATOMIC_RELAXED) < seen + 2)
			sched_yield();
	}
	__atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
	kit_join(t[0]);
	kit_join(t[1]);
	CHECK_EQ(dev_read64(k->dev, s.va), 99);
}

static void stale_never_used(struct kit *k)
{
	stale_run(k, true);
}

static void stale_never_used_after_migrate(struct kit *k)
{
	stale_run(k, false);
}

/* a driver that cannot write its table: the fault fails, nothing else does */
static void map_fails(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 20);
	uint64_t v;

	kit_move(k, va, len, k->dev);
	probe_fail(k->dev, PROBE_MAP, 1, 1, -ENOMEM);
	CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -ENOMEM);
	CHECK(probe_failed(k->dev, PROBE_MAP));
	CHECK_EQ(probe_mapped(k->dev, va, len), 0);
	dev_verify(k->dev, va, len, 20);
	kit_verify(k, va, len, 20);
}

/* a fault of many pages over several blocks maps every one of them */
static void map_fault_many_blocks(struct kit *k)
{
	uint64_t len = 3 * BALUN_BLOCK_SIZE, va = kit_filled(k, len, 21);
	uint64_t from = va + BALUN_BLOCK_SIZE - 3 * PAGE, n = BALUN_BLOCK_SIZE + 6 * PAGE;

	CHECK_OK(balun_fault(k->dev, k->space, from + 7, n - 14, BALUN_ACCESS_WRITE));
	CHECK_EQ(probe_mapped(k->dev, from, n), n / PAGE);
	kit_mirror(k, k->dev, va, len);
	dev_verify(k->dev, va, len, 21);
}

/* scattered device memory: entries of single pages, each right */
static void map_fragmented(struct kit *k)
{
	uint64_t len = BALUN_BLOCK_SIZE, va = kit_filled(k, len, 22), i;

	for (i = 0; i < len / PAGE; i += 2)
		kit_move(k, va + i * PAGE, PAGE, k->dev);
	for (i = 511; i < 512; i -= 2)
		kit_move(k, va + i * PAGE, PAGE, k->dev);
	CHECK_EQ(kit_resident(k, va, len, k->dev), len / PAGE);
	dev_verify(k->dev, va, len, 22);
	kit_mirror(k, k->dev, va, len);
	dev_fill(k->dev, va, len, 23);
	kit_verify(k, va, len, 23);
}

/* the device writes through its own table and the CPU reads, page by page, to and fro */
static void map_ping_pong(struct kit *k)
{
	uint64_t va = kit_map(k, 4 * PAGE, KIT_RW), i;

	for (i = 1; i < 200; i++) {
		dev_write64(k->dev, va + 8 * (i % 64), i);
		CHECK_EQ(cpu_read64(k, va + 8 * (i % 64)), i);
		cpu_write64(k, va + PAGE + 8, i * 3);
		CHECK_EQ(dev_read64(k->dev, va + PAGE + 8), i * 3);
	}
}

const struct kit_case cases_map[] = {
	{ "map-exact", map_exact, NULL, 0 },
	{ "map-exact-copied", map_exact, "host=0", 0 },
	{ "map-reads-and-writes", map_in_place_or_not, NULL, 0 },
	{ "map-home-removes-entries", map_home_removes, NULL, 0 },
	{ "map-touch-removes-entries", map_touch_removes, NULL, 0 },
	{ "map-fails", map_fails, NULL, 0 },
	{ "map-fault-many-blocks", map_fault_many_blocks, NULL, 0 },
	{ "map-fragmented", map_fragmented, NULL, 0 },
	{ "map-ping-pong", map_ping_pong, NULL, 0 },
	{ "unmap-exact", unmap_exact, NULL, 0 },
	{ "unmap-splits-2m", unmap_splits_2m, NULL, 0 },
	{ "unmap-splits-2m-copied", unmap_splits_2m, "host=0", 0 },
	{ "unmap-without-entries", unmap_without_entries, NULL, 0 },
	{ "stale-after-remap", stale_after_remap, NULL, 0 },
	{ "stale-never-used", stale_never_used, NULL, 0 },
	{ "stale-never-used-after-migrate", stale_never_used_after_migrate, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
