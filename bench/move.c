// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Migrations by request: to a device whose memory is host pages, and to one with its own */
#include <errno.h>
#include <string.h>

#include "bench/bench.h"

#define BLOCK  (2 * MIB)
#define BLOCKS 16 /* timed in one run */

/* ---- ram: pages move; the limit is the raw move ---- */

static int ram_setup(struct bench_run *run, bool huge)
{
	int err = bench_begin(run, "ram:mem=64M", NULL);

	run->len = BLOCKS * BLOCK;
	if (!err)
		err = bench_map(run, run->len, huge, &run->mem);
	if (!err)
		err = bench_map(run, run->len, huge, &run->raw_mem);
	if (!err)
		err = bench_map(run, run->len, huge, &run->raw_to);
	if (!err)
		err = raw_open(run);
	if (!err)
		err = raw_register(run, run->raw_mem, run->len);
	if (!err)
		err = raw_register(run, run->raw_to, run->len);
	return err;
}

static int ram_setup_huge(struct bench_run *run)
{
	return ram_setup(run, true);
}

static int ram_setup_small(struct bench_run *run)
{
	return ram_setup(run, false);
}

static int migrate_blocks(struct bench_run *run, struct balun_device *dev, double *ret)
{
	double t0 = bench_now_ns();
	size_t i;
	int err;

	for (i = 0; i < run->len; i += BLOCK) {
		err = bench_migrate(run, run->mem + i, BLOCK, dev);
		if (err)
			return err;
	}
	*ret = (bench_now_ns() - t0) * BLOCK / run->len;
	return 0;
}

static int to_device_ns(struct bench_run *run, double *ret)
{
	double home;
	int err = migrate_blocks(run, run->dev[0], ret);

	return err ? err : migrate_blocks(run, NULL, &home);
}

static int to_home_ns(struct bench_run *run, double *ret)
{
	double away;
	int err = migrate_blocks(run, run->dev[0], &away);

	return err ? err : migrate_blocks(run, NULL, ret);
}

static int move_blocks(struct bench_run *run, char *to, char *from)
{
	size_t i;
	int err = 0;

	for (i = 0; i < run->len && !err; i += BLOCK)
		err = raw_move(run, to + i, from + i, BLOCK);
	return err;
}

/* there (timed) and back; the first time the destination is emptied to get a place */
static int raw_move_ns(struct bench_run *run, double *ret)
{
	double t0;
	int err;

	if (!run->priv) {
		bench_drop(run->raw_to, run->len);
		run->priv = run;
	}
	t0 = bench_now_ns();
	err = move_blocks(run, run->raw_to, run->raw_mem);
	*ret = (bench_now_ns() - t0) * BLOCK / run->len;
	return err ? err : move_blocks(run, run->raw_mem, run->raw_to);
}

static void ram_teardown(struct bench_run *run)
{
	raw_close(run);
	bench_unmap(run->mem, run->len);
	bench_unmap(run->raw_mem, run->len);
	bench_unmap(run->raw_to, run->len);
}

const struct bench bench_migrate_2m_ram = {
	.name = "migrate_2m_ram",
	.unit = "ns",
	.what = "one huge page to a ram device",
	.limit_what = "UFFDIO_MOVE of a huge page",
	.target = 2,
	.runs = 31,
	.setup = ram_setup_huge,
	.value = to_device_ns,
	.limit = raw_move_ns,
	.teardown = ram_teardown,
};

const struct bench bench_migrate_4k_ram = {
	.name = "migrate_4k_ram",
	.unit = "ns",
	.what = "512 small pages to a ram device",
	.limit_what = "UFFDIO_MOVE of 512 pages",
	.target = 1.5,
	.runs = 31,
	.setup = ram_setup_small,
	.value = to_device_ns,
	.limit = raw_move_ns,
	.teardown = ram_teardown,
};

/* ---- soft: content is copied; the limit is memcpy ---- */

static int soft_setup(struct bench_run *run)
{
	int err = bench_begin(run, "soft:mem=64M", NULL);

	/* one block, again and again: warm, as the limit's buffers are */
	run->len = BLOCK;
	if (!err)
		err = bench_map(run, run->len, true, &run->mem);
	return err ? err : bench_memcpy_setup(run);
}

static int memcpy_ns(struct bench_run *run, double *ret)
{
	*ret = bench_memcpy_ns(run, BLOCKS);
	return 0;
}

static int average(struct bench_run *run, int (*once)(struct bench_run *, double *), double *ret)
{
	double sum = 0, ns;
	int err, i;

	for (i = 0; i < BLOCKS; i++) {
		err = once(run, &ns);
		if (err)
			return err;
		sum += ns;
	}
	*ret = sum / BLOCKS;
	return 0;
}

static int soft_to_device_ns(struct bench_run *run, double *ret)
{
	return average(run, to_device_ns, ret);
}

static int soft_to_home_ns(struct bench_run *run, double *ret)
{
	return average(run, to_home_ns, ret);
}

static void soft_teardown(struct bench_run *run)
{
	bench_unmap(run->mem, run->len);
	bench_unmap(run->raw_mem, BLOCK);
	bench_unmap(run->raw_to, BLOCK);
}

const struct bench bench_migrate_2m_soft = {
	.name = "migrate_2m_soft",
	.unit = "ns",
	.what = "2 MiB to a soft device",
	.limit_what = "memcpy of 2 MiB, warm",
	.target = 1.25,
	.runs = 31,
	.setup = soft_setup,
	.value = soft_to_device_ns,
	.limit = memcpy_ns,
	.teardown = soft_teardown,
};

const struct bench bench_home_2m_soft = {
	.name = "home_2m_soft",
	.unit = "ns",
	.what = "2 MiB home from a soft device",
	.limit_what = "memcpy of 2 MiB, warm",
	.target = 1.25,
	.runs = 31,
	.setup = soft_setup,
	.value = soft_to_home_ns,
	.limit = memcpy_ns,
	.teardown = soft_teardown,
};
