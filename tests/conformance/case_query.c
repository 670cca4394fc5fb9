/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Looking: query, counts, stats. */
#include "kit.h"

/* one extent per run, no gaps, ends exactly */
static void extents(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 1), end;
	struct balun_extent e[64];
	size_t n, i;

	kit_move(k, va + 8 * PAGE, 8 * PAGE, k->dev);
	CHECK_OK(k->mem->protect(k, va + 32 * PAGE, 8 * PAGE, KIT_READ));
	CHECK_OK(k->mem->unmap(k, va + 48 * PAGE, 8 * PAGE));
	CHECK_OK(balun_query(k->space, (void *)va, len, e, 64, &n));
	end = va;
	for (i = 0; i < n; i++) {
		CHECK_EQ(e[i].addr, end);
		CHECK(e[i].len && e[i].len % PAGE == 0);
		end += e[i].len;
	}
	CHECK_EQ(end, va + len);
	for (i = 0; i < 64; i++) {
		struct balun_extent x = kit_query1(k, va + i * PAGE);
		bool mapped = i < 48 || i >= 56;

		CHECK_EQ(!!(x.flags & BALUN_EXTENT_MAPPED), mapped);
		if (!mapped) {
			CHECK_EQ(x.where, BALUN_WHERE_NONE);
			continue;
		}
		CHECK(x.flags & BALUN_EXTENT_READ);
		CHECK_EQ(!!(x.flags & BALUN_EXTENT_WRITE), !(i >= 32 && i < 40));
		CHECK_EQ(x.where, i >= 8 && i < 16 ? BALUN_WHERE_DEVICE : BALUN_WHERE_SYSTEM);
		CHECK_EQ(x.device, i >= 8 && i < 16 ? kit_id(k->dev) : 0);
		CHECK(!(x.flags & (BALUN_EXTENT_PINNED | BALUN_EXTENT_MIGRATING)));
	}
	kit_verify(k, va, 48 * PAGE, 1);
}

/* an array that is too short: go on from where it ends */
static void continued(struct kit *k)
{
	uint64_t len = 3 * BALUN_BLOCK_SIZE, va = kit_filled(k, len, 2), at, i, pages = 0;
	struct balun_extent e[3];
	size_t n, j;

	for (i = 0; i < len / PAGE; i += 64)
		kit_move(k, va + i * PAGE, 16 * PAGE, k->dev);
	for (at = va; at < va + len; at = e[n - 1].addr + e[n - 1].len) {
		CHECK_OK(balun_query(k->space, (void *)at, va + len - at, e, 3, &n));
		CHECK(n > 0 && n <= 3);
		CHECK_EQ(e[0].addr, at);
		for (j = 0; j < n; j++)
			if (e[j].where == BALUN_WHERE_DEVICE)
				pages += e[j].len / PAGE;
	}
	CHECK_EQ(at, va + len);
	CHECK_EQ(pages, len / PAGE / 4);
	kit_verify(k, va, len, 2);
}

/* a query moves nothing and touches nothing */
static void is_harmless(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_map(k, len, KIT_RW);
	struct balun_stats before, after;

	kit_move(k, va, 8 * PAGE, k->dev);
	before = kit_stats(k);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 8);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 8);
	after = kit_stats(k);
	CHECK_EQ(after.cpu_faults, before.cpu_faults);
	CHECK_EQ(kit_sum(after.to_system), kit_sum(before.to_system));
}

/* random requests: the counts add up (kit_migrate checks) and say what query says */
static void counts_add_up(struct kit *k)
{
	uint64_t pages = 1024, va = kit_map(k, pages * PAGE, KIT_RW), r = k->seed, i;

	for (i = 0; i < pages; i += 3)
		kit_fill_at(k, va + i * PAGE, PAGE, 3, i * PAGE);
	CHECK_OK(balun_pin(k->space, (void *)(va + 100 * PAGE), 50 * PAGE));
	CHECK_OK(k->mem->protect(k, va + 700 * PAGE, 20 * PAGE, 0));
	for (i = 0; i < 60; i++) {
		uint64_t from = kit_random(&r) % (pages - 90), n = 1 + kit_random(&r) % 90;
		struct balun_device *to = kit_random(&r) % 2 ? k->dev : NULL;
		uint64_t before = kit_resident(k, va, pages * PAGE, k->dev), after;
		struct balun_counts c = kit_migrate(k, va + from * PAGE, n * PAGE, to);

		after = kit_resident(k, va, pages * PAGE, k->dev);
		CHECK_EQ(after - before, to ? c.moved : -c.moved);
	}
	CHECK_OK(balun_unpin(k->space, (void *)(va + 100 * PAGE), 50 * PAGE));
	CHECK_OK(k->mem->protect(k, va + 700 * PAGE, 20 * PAGE, KIT_RW));
	for (i = 0; i < pages; i++)
		kit_verify_at(__FILE__, __LINE__, k, va + i * PAGE, PAGE, i % 3 ? KIT_ZEROS : 3,
			      i * PAGE);
}

/* memory without access is counted and stays */
static void counts_unmovable(struct kit *k)
{
	uint64_t len = 32 * PAGE, va = kit_filled(k, len, 4);
	struct balun_counts c;

	CHECK_OK(k->mem->protect(k, va + 8 * PAGE, 8 * PAGE, 0));
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.unmovable, 8);
	CHECK_EQ(c.moved, 24);
	CHECK_OK(k->mem->protect(k, va + 8 * PAGE, 8 * PAGE, KIT_RW));
	kit_verify(k, va, len, 4);
}

/* every byte that moves has its cause */
static void causes(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 5);
	struct balun_stats s;

	kit_move(k, va, len, k->dev);
	s = kit_stats(k);
	CHECK_EQ(s.to_device[BALUN_CAUSE_USER], len);
	CHECK_EQ(kit_sum(s.to_device), len);
	kit_move(k, va, len / 2, NULL);
	s = kit_stats(k);
	CHECK_EQ(s.to_system[BALUN_CAUSE_USER], len / 2);
	kit_verify(k, va, len, 5);
	kit_wait_used(k->dev, 0);
	s = kit_stats(k);
	CHECK_EQ(kit_sum(s.to_system), len);
	CHECK(s.to_system[BALUN_CAUSE_CPU_FAULT] > 0);
	CHECK_EQ(s.to_system[BALUN_CAUSE_CPU_FAULT] + s.to_system[BALUN_CAUSE_PREFETCH], len / 2);
	CHECK(s.cpu_faults > 0);
	CHECK_EQ(s.cpu_fault.count, s.cpu_faults);
	CHECK_EQ(s.migrate.count > 0, 1);
	CHECK_EQ(kit_sum(s.device_to_device), 0);
	CHECK_EQ(s.lost_pages, 0);
	CHECK_EQ(s.copy_errors, 0);
}

static void device_fault_stats(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 6), i, sum = 0;
	struct balun_stats s;

	CHECK_OK(balun_advise(k->space, (void *)va, len, BALUN_ADVISE_PREFERRED_LOCATION, k->dev));
	dev_verify(k->dev, va, len, 6);
	s = kit_stats(k);
	CHECK(s.device_faults > 0);
	CHECK_EQ(s.device_fault.count, s.device_faults);
	for (i = 0; i < BALUN_HIST_BUCKETS; i++)
		sum += s.device_fault.bucket[i];
	CHECK_EQ(sum, s.device_fault.count);
	CHECK_EQ(s.to_device[BALUN_CAUSE_DEVICE_FAULT] + s.to_device[BALUN_CAUSE_PREFETCH], len);
}

static void eviction_stats(struct kit *k)
{
	uint64_t len = 8 * MIB, va = kit_filled(k, len, 7);
	struct balun_stats s;

	kit_migrate(k, va, len, k->dev);
	s = kit_stats(k);
	CHECK(s.evictions > 0);
	CHECK_EQ(kit_sum(s.to_device) - kit_sum(s.to_system), kit_mem_used(k->dev));
	kit_verify(k, va, len, 7);
	kit_wait_used(k->dev, 0);
	s = kit_stats(k);
	CHECK_EQ(kit_sum(s.to_device), kit_sum(s.to_system));
}

/* what the program does to mirrored memory is counted */
static void invalidation_stats(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 8);
	uint64_t before;

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 8);
	before = kit_stats(k).invalidations;
	CHECK_OK(k->mem->unmap(k, va, len / 2));
	CHECK_OK(balun_fence(k->space));
	CHECK(kit_stats(k).invalidations > before);
}

/* bookkeeping of at most 2 bytes a page, and the little that a space has anyway */
static void metadata(struct kit *k)
{
	uint64_t before = kit_stats(k).metadata_bytes, len = 32 * MIB, va, after;

	va = kit_map(k, len, KIT_RW);
	kit_migrate(k, va, len, k->dev);
	after = kit_stats(k).metadata_bytes;
	CHECK(after >= before);
	/* 32 KiB: the upper levels of a table, once */
	CHECK(after - before <= 2 * (len / PAGE) + 32768);
	CHECK_OK(k->mem->unmap(k, va, len));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), 0);
}

/* ---- nothing grows with what has been ---- */

#define BOUNDED_LEN	(4 * MIB)
#define BOUNDED_WINDOWS 4
#define BOUNDED_ROUNDS	10 /* each */
/* 1.6 bytes a page and round, 20 bytes a call */
#define BOUNDED_SLACK (16UL << 10)

/* anonymous memory of this process in RAM: the program's and Balun's own, counted or not */
static uint64_t anonymous_bytes(void)
{
	unsigned long pages = 0, shared = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	CHECK(f);
	CHECK_EQ(fscanf(f, "%*u %lu %lu", &pages, &shared), 2);
	fclose(f);
	return (pages - shared) * PAGE;
}

/* the same pages, away and home; all are home after it */
static void round_trip(struct kit *k, uint64_t va, bool touched)
{
	uint64_t i;

	kit_move(k, va, BOUNDED_LEN, k->dev);
	for (i = 0; touched && i < 16; i++) /* scattered: what is around may come along */
		cpu_write64(k, va + i * 61 * PAGE, i);
	kit_move(k, va, BOUNDED_LEN, NULL);
	for (i = 0; i < 64; i++) /* page by page: runs do not become one again by themselves */
		kit_move(k, va + 2 * i * PAGE, PAGE, k->dev);
	kit_move(k, va, BOUNDED_LEN / 2, NULL);
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_resident(k, va, BOUNDED_LEN, k->dev), 0);
}

/* the least that there was at the end of a round: threads of Balun's take memory and give it back
 */
static uint64_t least_of_window(struct kit *k, uint64_t va)
{
	uint64_t least = UINT64_MAX, n, i;

	for (i = 0; i < BOUNDED_ROUNDS; i++) {
		round_trip(k, va, false);
		n = anonymous_bytes();
		least = n < least ? n : least;
	}
	return least;
}

/*
 * What Balun keeps is for pages that are there, not for moves that were: the same pages, away and
 * home again and again, add nothing to it; by what it says of itself, and by the memory of the
 * process, which counts what it does not say. A pool that fills up makes that grow too, but not in
 * each window. (Of touches only what it says is looked at: a page that a touch brings home by a
 * copy leaves its frame to the uffd engine's pool, whose bound is a part of the machine.)
 */
static void bounded(struct kit *k)
{
	uint64_t va = kit_filled(k, BOUNDED_LEN, 9), said, before, now;
	unsigned int i, grown = 0;

	round_trip(k, va, true);
	before = least_of_window(k, va);
	said = kit_stats(k).metadata_bytes;
	for (i = 0; i < BOUNDED_WINDOWS; i++) {
		now = least_of_window(k, va);
		grown += now > before + BOUNDED_SLACK;
		before = now;
	}
	for (i = 0; i < BOUNDED_ROUNDS; i++)
		round_trip(k, va, true);
	/* an extent of free memory or a watched range more or less */
	CHECK(kit_stats(k).metadata_bytes <= said + 512);
	/* a sanitizer keeps memory of its own, and finds what is lost by itself */
	if (!KIT_ASAN && !KIT_TSAN)
		CHECK(grown < BOUNDED_WINDOWS);
}

const struct kit_case cases_query[] = {
	{ "query-extents", extents, NULL, 0 },
	{ "query-continued", continued, NULL, 0 },
	{ "query-is-harmless", is_harmless, NULL, 0 },
	{ "counts-add-up", counts_add_up, NULL, 0 },
	{ "counts-unmovable", counts_unmovable, NULL, 0 },
	{ "stats-causes", causes, NULL, 0 },
	{ "stats-device-faults", device_fault_stats, NULL, 0 },
	{ "stats-evictions", eviction_stats, "mem=4M", 0 },
	{ "stats-invalidations", invalidation_stats, NULL, 0 },
	{ "stats-metadata", metadata, NULL, 0 },
	{ "stats-bounded", bounded, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
