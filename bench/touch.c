// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* A CPU touches memory that is away */
#include <errno.h>

#include "bench/bench.h"

#define BLOCK  (2 * MIB)
#define BLOCKS 64UL
#define PAGES  (BLOCK / BALUN_PAGE_SIZE)

/* ---- one page at random: one touch in each block, a block being the most that comes along ---- */

static int back_setup(struct bench_run *run)
{
	int err = bench_begin(run, "soft:mem=160M", NULL);

	run->len = BLOCKS * BLOCK;
	if (!err)
		err = bench_map(run, run->len, false, &run->mem);
	if (!err)
		err = bench_map(run, run->len, false, &run->raw_mem);
	if (!err)
		err = raw_open(run);
	if (!err)
		err = raw_register(run, run->raw_mem, run->len);
	return err ? err : raw_handler_start(run);
}

static void back_teardown(struct bench_run *run)
{
	bench_drop(run->raw_mem, run->len);
	raw_handler_stop(run, run->raw_mem);
	raw_close(run);
	bench_unmap(run->mem, run->len);
	bench_unmap(run->raw_mem, run->len);
}

/* a random page of each block, in an order that is no stride; ns per touch */
static double touch_random(struct bench_run *run, char *mem)
{
	uint32_t start = bench_random(run), i;
	double t0, sum = 0;

	for (i = 0; i < BLOCKS; i++) {
		/* 29 is odd: every block once */
		size_t block = (start + i * 29) % BLOCKS;
		size_t at = block * BLOCK + bench_random(run) % PAGES * BALUN_PAGE_SIZE;

		t0 = bench_now_ns();
		(void)*(volatile char *)(mem + at);
		sum += bench_now_ns() - t0;
	}
	return sum / BLOCKS;
}

static int back_ns(struct bench_run *run, double *ret)
{
	int err = bench_migrate(run, run->mem, run->len, run->dev[0]);

	if (!err)
		*ret = touch_random(run, run->mem);
	return err;
}

static int raw_back_ns(struct bench_run *run, double *ret)
{
	bench_drop(run->raw_mem, run->len);
	*ret = touch_random(run, run->raw_mem);
	return 0;
}

const struct bench bench_fault_back_4k = {
	.name = "fault_back_4k",
	.unit = "ns",
	.what = "CPU touch of an away page at random",
	.limit_what = "the smallest poll+read+UFFDIO_COPY handler",
	.target = 1.3,
	.runs = 21,
	.setup = back_setup,
	.value = back_ns,
	.limit = raw_back_ns,
	.teardown = back_teardown,
};

/* ---- in order ---- */

static int seq_setup(struct bench_run *run)
{
	int err = bench_begin(run, "soft:mem=64M", NULL);

	run->len = 16 * BLOCK;
	if (!err)
		err = bench_map(run, run->len, true, &run->mem);
	return err ? err : bench_memcpy_setup(run);
}

static void seq_teardown(struct bench_run *run)
{
	bench_unmap(run->mem, run->len);
	bench_unmap(run->raw_mem, BLOCK);
	bench_unmap(run->raw_to, BLOCK);
}

static int seq_ns(struct bench_run *run, double *ret)
{
	int err = bench_migrate(run, run->mem, run->len, run->dev[0]);
	double t0 = bench_now_ns();
	size_t i;

	if (err)
		return err;
	for (i = 0; i < run->len; i += BALUN_PAGE_SIZE)
		(void)*(volatile char *)(run->mem + i);
	*ret = (bench_now_ns() - t0) * BALUN_PAGE_SIZE / run->len;
	return 0;
}

static int memcpy_page_ns(struct bench_run *run, double *ret)
{
	*ret = bench_memcpy_ns(run, 16) / PAGES;
	return 0;
}

const struct bench bench_touch_seq_soft = {
	.name = "touch_seq_soft",
	.unit = "ns/page",
	.what = "sequential CPU touch of away memory",
	.limit_what = "memcpy, per page",
	.target = 2,
	.runs = 31,
	.setup = seq_setup,
	.value = seq_ns,
	.limit = memcpy_page_ns,
	.teardown = seq_teardown,
};
