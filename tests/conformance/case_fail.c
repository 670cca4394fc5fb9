/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Copies that fail, at submission or later, at every n: nothing is lost, and it is told. */
#include "kit.h"

#define FAIL_PAGES 256

/* touched in an order that leaves it in many pieces, so that there are many copies to fail */
static uint64_t scattered(struct kit *k, uint64_t seed)
{
	uint64_t va = kit_map(k, 2 * BALUN_BLOCK_SIZE + FAIL_PAGES * PAGE, KIT_RW);

	kit_fill(k, va, 2 * BALUN_BLOCK_SIZE + FAIL_PAGES * PAGE, seed);
	return va;
}

static const uint64_t fail_len = 2 * BALUN_BLOCK_SIZE + FAIL_PAGES * PAGE;

/* the pages that failed are where they were, the others where they should be */
static void check_counts(struct kit *k, uint64_t va, const struct balun_counts *c,
			 struct balun_device *dev)
{
	uint64_t here = kit_resident(k, va, fail_len, k->dev);

	CHECK(c->failed > 0);
	CHECK_EQ(c->failed + c->moved + c->already + c->empty, fail_len / PAGE);
	if (dev)
		CHECK_EQ(here, c->moved + c->already);
	else
		CHECK_EQ(here, c->failed);
}

/* fails the n-th copy of a migration for n = 1, 2, ... until one has fewer copies than n */
static void fail_every_n(struct kit *k, enum probe_op op, bool home)
{
	uint64_t va = scattered(k, 1), n;
	struct balun_counts c;

	for (n = 1; n < 2000; n++) {
		uint64_t errors = kit_stats(k).copy_errors;

		kit_move(k, va, fail_len, home ? k->dev : NULL);
		probe_fail(k->dev, op, n, 1, -EIO);
		c = kit_migrate(k, va, fail_len, home ? NULL : k->dev);
		if (!probe_failed(k->dev, op))
			break;
		check_counts(k, va, &c, home ? NULL : k->dev);
		CHECK_EQ(kit_stats(k).copy_errors, errors + 1);
		if (home)
			dev_verify(k->dev, va, fail_len, 1);
	}
	probe_fail(k->dev, op, 0, 0, 0);
	CHECK(n > 1 && n < 2000);
	CHECK_EQ(c.failed, 0);
	kit_verify(k, va, fail_len, 1);
	CHECK_EQ(kit_stats(k).lost_pages, 0);
}

static void to_device_submit(struct kit *k)
{
	fail_every_n(k, PROBE_COPY, false);
}

static void to_device_wait(struct kit *k)
{
	fail_every_n(k, PROBE_WAIT, false);
}

static void home_submit(struct kit *k)
{
	fail_every_n(k, PROBE_COPY, true);
}

static void home_wait(struct kit *k)
{
	fail_every_n(k, PROBE_WAIT, true);
}

/* a device that never copies: everything stays home and works */
static void to_device_always(struct kit *k)
{
	uint64_t va = scattered(k, 2);
	struct balun_counts c;

	probe_fail(k->dev, PROBE_COPY, 1, PROBE_FOREVER, -EIO);
	c = kit_migrate(k, va, fail_len, k->dev);
	CHECK_EQ(c.failed, fail_len / PAGE);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	kit_verify(k, va, fail_len, 2);
	probe_fail(k->dev, PROBE_COPY, 0, 0, 0);
	kit_move(k, va, fail_len, k->dev);
	dev_verify(k->dev, va, fail_len, 2);
}

/* never-touched pages are zeros even if the device cannot be told so */
static void zeros(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_map(k, len, KIT_RW);
	struct balun_counts c;

	probe_fail(k->dev, PROBE_COPY, 1, 1, -EIO);
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.failed, 64);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	kit_verify_zero(k, va, len);
	kit_fill(k, va, len, 3);
	kit_verify(k, va, len, 3);
}

/* a failing copy in a device fault: an error or a mapping in place, then all is well */
static void device_fault(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 4), v = 0;
	int rc;

	probe_fail(k->dev, PROBE_WAIT, 1, 1, -EIO);
	rc = dev_read(k->dev, va, &v, sizeof(v));
	CHECK(rc == 0 || rc == -EIO);
	probe_fail(k->dev, PROBE_WAIT, 0, 0, 0);
	dev_verify(k->dev, va, len, 4);
	kit_mirror(k, k->dev, va, len);
	kit_verify(k, va, len, 4);
}

/*
 * A CPU touch needs a page and the device fails once. The touch may be served after all or be
 * SIGBUS; what is lost is told exactly, and what is not lost is right.
 */
static void cpu_touch(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 5), lost = 0, i;
	char got[PAGE], want[PAGE];

	kit_move(k, va, len, k->dev);
	probe_fail(k->dev, PROBE_WAIT, 1, 1, -EIO);
	for (i = 0; i < 64; i++) {
		int rc = k->mem->load(k, va + i * PAGE, got, PAGE);

		if (rc) {
			CHECK_RC(rc, -EHWPOISON);
			lost++;
			continue;
		}
		kit_pattern(want, i * PAGE, PAGE, 5);
		CHECK(!memcmp(got, want, PAGE));
	}
	CHECK(probe_failed(k->dev, PROBE_WAIT));
	CHECK_EQ(kit_stats(k).lost_pages, lost);
	CHECK_EQ(kit_stats(k).copy_errors, 1);
}

static void evict(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 6), freed = 0;
	int rc;

	kit_move(k, va, len, k->dev);
	probe_fail(k->dev, PROBE_WAIT, 1, 1, -EIO);
	rc = balun_evict(k->dev, UINT64_MAX, &freed);
	CHECK(rc == 0 || rc == -EIO);
	CHECK(probe_failed(k->dev, PROBE_WAIT));
	dev_verify(k->dev, va, len, 6);
	kit_verify(k, va, len, 6);
	CHECK_EQ(kit_stats(k).lost_pages, 0);
}

/* errors while the device runs and a CPU touches: random ones, for as long as it takes */
static void random_errors(struct kit *k)
{
	uint64_t pages = 512, va = kit_filled(k, pages * PAGE, 7), r = k->seed;
	struct balun_stats s;
	int i;

	for (i = 0; i < 60; i++) {
		uint64_t from = kit_random(&r) % (pages - 64), n = 1 + kit_random(&r) % 64;

		probe_fail(k->dev, i & 1 ? PROBE_WAIT : PROBE_COPY, 1 + kit_random(&r) % 3, 1,
			   -EIO);
		kit_migrate(k, va + from * PAGE, n * PAGE, kit_random(&r) % 2 ? k->dev : NULL);
	}
	probe_fail(k->dev, PROBE_WAIT, 0, 0, 0);
	probe_fail(k->dev, PROBE_COPY, 0, 0, 0);
	kit_verify(k, va, pages * PAGE, 7);
	s = kit_stats(k);
	CHECK(s.copy_errors > 0);
	CHECK_EQ(s.lost_pages, 0);
}

const struct kit_case cases_fail[] = {
	{ "fail-to-device-every-n-submit", to_device_submit, "host=0", 0 },
	{ "fail-to-device-every-n-wait", to_device_wait, "host=0", 0 },
	{ "fail-home-every-n-submit", home_submit, "host=0", 0 },
	{ "fail-home-every-n-wait", home_wait, "host=0", 0 },
	{ "fail-to-device-always", to_device_always, "host=0", 0 },
	{ "fail-zeros", zeros, "host=0", 0 },
	{ "fail-device-fault", device_fault, "host=0", 0 },
	{ "fail-cpu-touch", cpu_touch, "host=0", 0 },
	{ "fail-evict", evict, "host=0", 0 },
	{ "fail-random", random_errors, "host=0", 0 },
	{ NULL, NULL, NULL, 0 },
};
