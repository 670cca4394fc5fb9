/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Copies that succeed: every byte, no byte too many, zeros for nothing. */
#include "kit.h"

#include <sys/mman.h>

static void round_trip(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 1);

	kit_move(k, va, len, k->dev);
	CHECK_EQ(kit_resident(k, va, len, k->dev), len / PAGE);
	CHECK_EQ(kit_mem_used(k->dev), len);
	kit_move(k, va, len, NULL);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 0);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	kit_verify(k, va, len, 1);
}

static void round_trip_by_touch(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 2);

	kit_move(k, va, len, k->dev);
	kit_verify(k, va, len, 2);
	kit_wait_used(k->dev, 0);
}

static void device_writes_come_home(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 3);

	kit_move(k, va, len, k->dev);
	dev_fill(k->dev, va, len, 4);
	kit_verify(k, va, len, 4);
}

/* every part of a block moves alone and leaves its neighbours */
static void partial(struct kit *k)
{
	static const uint16_t part[][2] = { { 0, 1 }, { 1, 3 }, { 15, 2 }, { 16, 16 }, { 511, 1 } };
	uint64_t len = BALUN_BLOCK_SIZE, va = kit_filled(k, len, 5);
	size_t i;

	for (i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
		uint64_t from = va + part[i][0] * PAGE, n = part[i][1];

		kit_move(k, from, n * PAGE, k->dev);
		CHECK_EQ(kit_resident(k, va, len, k->dev), n);
		CHECK_EQ(kit_resident(k, from, n * PAGE, k->dev), n);
		dev_verify_part(k->dev, va, part[i][0] * PAGE, n * PAGE, 5);
		kit_move(k, va, len, NULL);
	}
	kit_verify(k, va, len, 5);
}

/* what is there already is not copied again */
static void again(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 6);
	struct balun_counts c;
	struct probe_counts before, after;

	kit_move(k, va, 32 * PAGE, k->dev);
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.moved, 32);
	CHECK_EQ(c.already, 32);
	probe_get_counts(k->dev, &before);
	c = kit_migrate(k, va, len, k->dev);
	probe_get_counts(k->dev, &after);
	CHECK_EQ(c.already, 64);
	CHECK_EQ(after.copies, before.copies);
	kit_verify(k, va, len, 6);
	c = kit_migrate(k, va, len, NULL);
	CHECK_EQ(c.already, 64);
}

/* the bytes that a driver copies are the bytes that moved, and no more */
static void bytes_exact(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 7);
	struct probe_counts a, b;

	probe_get_counts(k->dev, &a);
	kit_move(k, va, len, k->dev);
	probe_get_counts(k->dev, &b);
	CHECK_EQ(b.bytes[BALUN_KIND_SYSTEM][BALUN_KIND_LOCAL] -
			 a.bytes[BALUN_KIND_SYSTEM][BALUN_KIND_LOCAL],
		 len);
	kit_move(k, va, len, NULL);
	probe_get_counts(k->dev, &a);
	CHECK_EQ(a.bytes[BALUN_KIND_LOCAL][BALUN_KIND_SYSTEM] -
			 b.bytes[BALUN_KIND_LOCAL][BALUN_KIND_SYSTEM],
		 len);
	kit_verify(k, va, len, 7);
}

/* host memory that can be moved is not copied */
static void moved_not_copied(struct kit *k)
{
	struct balun_device_info info = { .size = sizeof(info) };
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 8);
	struct balun_stats s;

	CHECK_OK(balun_device_info(k->dev, &info));
	if (!(info.caps & BALUN_CAP_HOST_MEMORY))
		kit_skip("the driver does not declare BALUN_CAP_HOST_MEMORY");
	kit_move(k, va, len, k->dev);
	s = kit_stats(k);
	if (!s.moved_bytes)
		kit_skip("the engine copies even where pages could be moved");
	CHECK_EQ(s.moved_bytes, len);
	dev_verify(k->dev, va, len, 8);
	kit_move(k, va, len, NULL);
	kit_verify(k, va, len, 8);
}

/* pages that were touched and hold zeros */
static void zeros_touched(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, KIT_ZEROS);

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, KIT_ZEROS);
	kit_verify_zero(k, va, len);
}

/* pages that nobody touched go as zeros, without a copy */
static void zeros_never_touched(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_map(k, len, KIT_RW);
	struct balun_counts c = kit_migrate(k, va, len, k->dev);
	struct probe_counts n;

	CHECK_EQ(c.moved, len / PAGE);
	CHECK_EQ(kit_stats(k).zero_bytes, len);
	probe_get_counts(k->dev, &n);
	CHECK_EQ(n.bytes[BALUN_KIND_SYSTEM][BALUN_KIND_LOCAL], 0);
	dev_verify(k->dev, va, len, KIT_ZEROS);
	kit_verify_zero(k, va, len);
}

/* device memory that held something else before shows zeros all the same */
static void zeros_over_used(struct kit *k)
{
	uint64_t len = 4 * MIB, a = kit_filled(k, len, 9), b = kit_map(k, len, KIT_RW);

	kit_move(k, a, len, k->dev);
	kit_move(k, a, len, NULL);
	kit_move(k, b, len, k->dev);
	dev_verify(k->dev, b, len, KIT_ZEROS);
	kit_verify_zero(k, b, len);
	kit_verify(k, a, len, 9);
}

static void zeros_stay_empty(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_map(k, len, KIT_RW);
	struct balun_counts c = kit_migrate(k, va, len, NULL);

	CHECK_EQ(c.moved, 0);
	CHECK_EQ(c.empty + c.already, 64);
	kit_verify_zero(k, va, len);
}

/* every other page touched */
static void zeros_mixed(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_map(k, len, KIT_RW), i;

	for (i = 0; i < len / PAGE; i += 2)
		kit_fill_at(k, va + i * PAGE, PAGE, 10, i * PAGE);
	kit_move(k, va, len, k->dev);
	for (i = 0; i < len / PAGE; i++)
		dev_verify_at(__FILE__, __LINE__, k->dev, va + i * PAGE, PAGE,
			      i & 1 ? KIT_ZEROS : 10, i * PAGE);
	for (i = 0; i < len / PAGE; i++)
		kit_verify_at(__FILE__, __LINE__, k, va + i * PAGE, PAGE, i & 1 ? KIT_ZEROS : 10,
			      i * PAGE);
}

/* the device writes where nobody was before */
static void zeros_device_first(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_map(k, len, KIT_RW), i;

	for (i = 0; i < 64; i++)
		dev_write64(k->dev, va + i * PAGE + 8, i + 1);
	for (i = 0; i < 64; i++) {
		CHECK_EQ(cpu_read64(k, va + i * PAGE), 0);
		CHECK_EQ(cpu_read64(k, va + i * PAGE + 8), i + 1);
	}
}

/* a byte range moves the pages that it touches */
static void unaligned(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 11);
	struct balun_counts c;

	c = kit_migrate(k, va + 3 * PAGE + 1, 1, k->dev);
	CHECK_EQ(c.moved, 1);
	c = kit_migrate(k, va + 5 * PAGE - 1, 2, k->dev);
	CHECK_EQ(c.moved, 2);
	c = kit_migrate(k, va + 7 * PAGE + 100, 2 * PAGE, k->dev);
	CHECK_EQ(c.moved, 3);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 6);
	dev_verify(k->dev, va, len, 11);
	kit_verify(k, va, len, 11);
}

static void several_blocks(struct kit *k)
{
	uint64_t len = 5 * BALUN_BLOCK_SIZE, va = kit_filled(k, len, 12);
	uint64_t from = 511 * PAGE, n = 3 * BALUN_BLOCK_SIZE + 2 * PAGE;

	kit_move(k, va + from, n, k->dev);
	CHECK_EQ(kit_resident(k, va, len, k->dev), n / PAGE);
	dev_verify_part(k->dev, va, from, n, 12);
	kit_verify(k, va, len, 12);
}

/* mappings of different permissions side by side in one request */
static void several_mappings(struct kit *k)
{
	uint64_t len = 3 * MIB, va = kit_map(k, len, KIT_RW);

	/* Linux 6.1 and 6.12 move no part of a huge page that is mapped by parts */
	if (k->kernel)
		CHECK_OK(madvise((void *)va, len, MADV_NOHUGEPAGE) ? -errno : 0);
	kit_fill(k, va, len, 13);
	CHECK_OK(k->mem->protect(k, va + MIB, MIB, KIT_READ));
	kit_migrate(k, va, len, k->dev);
	CHECK_EQ(kit_resident(k, va, MIB, k->dev), MIB / PAGE);
	CHECK_EQ(kit_resident(k, va + 2 * MIB, MIB, k->dev), MIB / PAGE);
	dev_verify(k->dev, va, len, 13);
	kit_verify(k, va, len, 13);
}

/* a hole in the range stays one, and what is around it moves; only a hole is an error */
static void hole_in_range(struct kit *k)
{
	uint64_t len = 12 * PAGE, va = kit_filled(k, len, 14);
	struct balun_counts c;

	CHECK_OK(k->mem->unmap(k, va + 4 * PAGE, 4 * PAGE));
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.moved, 8);
	CHECK_EQ(c.unmovable, 4);
	CHECK_EQ(kit_mem_used(k->dev), 8 * PAGE);
	CHECK_RC(balun_migrate(k->space, (void *)(va + 5 * PAGE), PAGE, k->dev, NULL), -EFAULT);
	dev_verify(k->dev, va, 4 * PAGE, 14);
	dev_verify_part(k->dev, va, 8 * PAGE, 4 * PAGE, 14);
	kit_verify(k, va, 4 * PAGE, 14);
	kit_verify_part(k, va, 8 * PAGE, 4 * PAGE, 14);
}

/* random parts of a range go to and fro; the bytes do not care */
static void random_parts(struct kit *k)
{
	uint64_t pages = 1024, va = kit_filled(k, pages * PAGE, 15), r = k->seed;
	int i;

	for (i = 0; i < 150; i++) {
		uint64_t from = kit_random(&r) % pages, n = 1 + kit_random(&r) % 90;

		if (from + n > pages)
			n = pages - from;
		kit_move(k, va + from * PAGE, n * PAGE, kit_random(&r) % 3 ? k->dev : NULL);
	}
	dev_verify(k->dev, va, pages * PAGE, 15);
	kit_verify(k, va, pages * PAGE, 15);
}

const struct kit_case cases_copy[] = {
	{ "copy-round-trip", round_trip, NULL, 0 },
	{ "copy-round-trip-copied", round_trip, "host=0", 0 },
	{ "copy-round-trip-by-touch", round_trip_by_touch, NULL, 0 },
	{ "copy-round-trip-by-touch-copied", round_trip_by_touch, "host=0", 0 },
	{ "copy-device-writes-come-home", device_writes_come_home, NULL, 0 },
	{ "copy-partial", partial, NULL, 0 },
	{ "copy-partial-copied", partial, "host=0", 0 },
	{ "copy-again-is-nothing", again, "host=0", 0 },
	{ "copy-bytes-exact", bytes_exact, "host=0", 0 },
	{ "copy-moved-not-copied", moved_not_copied, NULL, 0 },
	{ "copy-unaligned", unaligned, NULL, 0 },
	{ "copy-several-blocks", several_blocks, NULL, 0 },
	{ "copy-several-mappings", several_mappings, NULL, 0 },
	{ "copy-hole-in-range", hole_in_range, NULL, 0 },
	{ "copy-random-parts", random_parts, NULL, 0 },
	{ "copy-random-parts-copied", random_parts, "host=0", 0 },
	{ "zero-touched", zeros_touched, NULL, 0 },
	{ "zero-never-touched", zeros_never_touched, NULL, 0 },
	{ "zero-over-used-memory", zeros_over_used, NULL, 0 },
	{ "zero-over-used-memory-copied", zeros_over_used, "host=0", 0 },
	{ "zero-stays-empty", zeros_stay_empty, NULL, 0 },
	{ "zero-mixed", zeros_mixed, NULL, 0 },
	{ "zero-device-first", zeros_device_first, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
