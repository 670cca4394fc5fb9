// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What Balun costs: bookkeeping, size, and being there */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

#define STRUCT_PAGE 64 /* what the kernel keeps for a page, bytes */

/* ---- metadata ---- */

#define MIRRORED (256 * MIB)

static int metadata_setup(struct bench_run *run)
{
	int err = bench_begin(run, "ram:mem=256M", NULL);

	run->len = MIRRORED;
	return err ? err : bench_map(run, run->len, false, &run->mem);
}

static void metadata_teardown(struct bench_run *run)
{
	bench_unmap(run->mem, run->len);
}

static int metadata_now(struct bench_run *run, double *ret)
{
	struct balun_stats st = { .size = sizeof(st) };
	int err = balun_stats(run->space, &st);

	*ret = (double)st.metadata_bytes;
	return err ? bench_fail(run, err, "stats: %s", balun_reason()) : 0;
}

/* what a mirrored page adds; the fixed part of a space and a device is in the detail */
static int metadata_per_page(struct bench_run *run, double *ret)
{
	double before = 0, after = 0;
	int err = metadata_now(run, &before);

	if (!err)
		err = bench_migrate(run, run->mem, run->len, run->dev[0]);
	if (!err)
		err = metadata_now(run, &after);
	if (err)
		return err;
	snprintf(run->detail, sizeof(run->detail), "%.0f KiB fixed, %.0f KiB for 256 MiB",
		 before / 1024, (after - before) / 1024);
	*ret = (after - before) / (MIRRORED / BALUN_PAGE_SIZE);
	return bench_migrate(run, run->mem, run->len, NULL);
}

static int struct_page(struct bench_run *run, double *ret)
{
	(void)run;
	*ret = STRUCT_PAGE;
	return 0;
}

const struct bench bench_metadata = {
	.name = "metadata_bytes_per_page",
	.unit = "bytes",
	.what = "bookkeeping of a mirrored page",
	.limit_what = "struct page",
	.target = 2,
	.target_on_value = true,
	.runs = 1,
	.setup = metadata_setup,
	.value = metadata_per_page,
	.limit = struct_page,
	.teardown = metadata_teardown,
};

/* ---- scale ---- */

#define SMALL	  (64 * MIB)
#define LARGE	  (4096 * MIB)
#define SMALL_REP 8

static int scale_setup(struct bench_run *run)
{
	uint64_t avail = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * BALUN_PAGE_SIZE;
	int err;

	/* twice: Balun's and the limit's */
	if (avail < 2 * LARGE + 512 * MIB)
		return bench_fail(run, -EOPNOTSUPP, "needs 8.5 GiB of free memory");
	run->len = LARGE;
	err = bench_begin(run, "ram:mem=4G", NULL);
	if (!err)
		err = bench_map(run, run->len, false, &run->mem);
	if (!err)
		err = bench_map(run, run->len, false, &run->raw_mem);
	if (!err)
		err = bench_map_empty(run, run->len, &run->raw_to);
	if (!err)
		err = raw_open(run);
	if (!err)
		err = raw_register(run, run->raw_mem, run->len);
	return err ? err : raw_register(run, run->raw_to, run->len);
}

static void scale_teardown(struct bench_run *run)
{
	raw_close(run);
	bench_unmap(run->mem, run->len);
	bench_unmap(run->raw_mem, run->len);
	bench_unmap(run->raw_to, run->len);
}

typedef int (*there_and_back_fn)(struct bench_run *run, size_t len);

static int migrate_there_and_back(struct bench_run *run, size_t len)
{
	int err = bench_migrate(run, run->mem, len, run->dev[0]);

	return err ? err : bench_migrate(run, run->mem, len, NULL);
}

static int move_there_and_back(struct bench_run *run, size_t len)
{
	size_t i;
	int err = 0;

	for (i = 0; i < len && !err; i += 2 * MIB)
		err = raw_move(run, run->raw_to + i, run->raw_mem + i, 2 * MIB);
	for (i = 0; i < len && !err; i += 2 * MIB)
		err = raw_move(run, run->raw_mem + i, run->raw_to + i, 2 * MIB);
	return err;
}

/* time per byte of the large size over that of the small one */
static int scale(struct bench_run *run, there_and_back_fn fn, double *ret)
{
	double t0, small, large;
	int err = fn(run, SMALL), i;

	t0 = bench_now_ns();
	for (i = 0; i < SMALL_REP && !err; i++)
		err = fn(run, SMALL);
	small = (bench_now_ns() - t0) / SMALL_REP / SMALL;
	t0 = bench_now_ns();
	if (!err)
		err = fn(run, LARGE);
	large = (bench_now_ns() - t0) / LARGE;
	*ret = large / small;
	snprintf(run->detail, sizeof(run->detail), "%.1f and %.1f ns/page there and back",
		 small * BALUN_PAGE_SIZE, large * BALUN_PAGE_SIZE);
	return err;
}

static int scale_balun(struct bench_run *run, double *ret)
{
	return scale(run, migrate_there_and_back, ret);
}

static int scale_raw(struct bench_run *run, double *ret)
{
	char detail[sizeof(run->detail)];
	int err;

	memcpy(detail, run->detail, sizeof(detail));
	err = scale(run, move_there_and_back, ret);
	if (!err)
		memcpy(run->detail, detail, sizeof(detail));
	return err;
}

const struct bench bench_scale = {
	.name = "scale",
	.unit = "x",
	.what = "cost per page at 4 GiB over cost at 64 MiB",
	.limit_what = "the same of UFFDIO_MOVE",
	.target = 1.2,
	.target_on_value = true,
	.runs = 7,
	.setup = scale_setup,
	.value = scale_balun,
	.limit = scale_raw,
	.teardown = scale_teardown,
};

/* ---- idle ---- */

#define IDLE_BYTES (32 * MIB)
#define HOPS	   80000U
#define PARTS	   6

/* a cycle through all cache lines in random order: each hop waits for memory */
static int idle_setup(struct bench_run *run)
{
	size_t n = IDLE_BYTES / 64, i, j;
	uint32_t *order, tmp;
	int err;

	run->len = IDLE_BYTES;
	err = bench_map(run, run->len, false, &run->raw_mem);
	if (err)
		return err;
	order = malloc(n * sizeof(*order));
	if (!order)
		return bench_fail(run, -ENOMEM, "no memory");
	for (i = 0; i < n; i++)
		order[i] = i;
	for (i = n - 1; i > 0; i--) {
		j = bench_random(run) % (i + 1);
		tmp = order[i];
		order[i] = order[j];
		order[j] = tmp;
	}
	for (i = 0; i < n; i++)
		*(uint32_t *)(run->raw_mem + order[i] * 64UL) = order[(i + 1) % n];
	free(order);
	return 0;
}

static void idle_teardown(struct bench_run *run)
{
	bench_unmap(run->raw_mem, run->len);
}

static double hop_ns(struct bench_run *run, unsigned int hops)
{
	double t0 = bench_now_ns();
	uint32_t at = run->seed % (IDLE_BYTES / 64), i;

	for (i = 0; i < hops; i++)
		at = *(volatile uint32_t *)(run->raw_mem + at * 64UL);
	run->seed = at;
	return (bench_now_ns() - t0) / hops;
}

/*
 * The quickest part of a pass: the others were interrupted. First once round the whole cycle, since
 * what was done before has put other things into the caches.
 */
static double quickest_hop_ns(struct bench_run *run)
{
	double best, ns;
	int i;

	hop_ns(run, IDLE_BYTES / 64);
	best = hop_ns(run, HOPS);
	for (i = 1; i < PARTS; i++) {
		ns = hop_ns(run, HOPS);
		if (ns < best)
			best = ns;
	}
	return best;
}

/* Balun is open, a device holds memory, and this loop is about none of it */
static int idle_with(struct bench_run *run, double *ret)
{
	int err = bench_begin(run, "soft:mem=64M", NULL);

	if (!err)
		err = bench_map(run, 16 * MIB, true, &run->mem);
	if (!err)
		err = bench_migrate(run, run->mem, 16 * MIB, run->dev[0]);
	if (!err)
		*ret = quickest_hop_ns(run);
	bench_end(run);
	bench_unmap(run->mem, 16 * MIB);
	run->mem = NULL;
	return err;
}

static int idle_without(struct bench_run *run, double *ret)
{
	*ret = quickest_hop_ns(run);
	return 0;
}

const struct bench bench_idle_cost = {
	.name = "idle_cost",
	.unit = "ns/hop",
	.what = "memory-bound loop beside an open space",
	.limit_what = "without Balun",
	.target = 1.02,
	.runs = 15,
	.setup = idle_setup,
	.value = idle_with,
	.limit = idle_without,
	.teardown = idle_teardown,
};
