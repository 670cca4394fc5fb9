// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The device reads its memory; two devices copy to each other */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "balun/soft.h"
#include "bench/bench.h"

#define STREAM_BYTES (8 * MIB)
#define PASSES	     8
#define STEP	     64
#define WORDS	     (STEP / sizeof(uint64_t))

/* What the functions on the device read and write, and where. Static: it stays at home. */
static struct stream_job {
	uint64_t addr, sum;
	double ns;
} job;

static uint64_t add(const uint64_t *w)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < WORDS; i++)
		sum += w[i];
	return sum;
}

/*
 * Both are launched on a worker of the device, so that all but the access is the same: time is
 * taken inside. The job is a register file to them: results go out through a plain pointer.
 */
static void stream_mmu(struct soft_worker *w, uint64_t arg)
{
	double t0 = bench_now_ns();
	uint64_t sum = 0, buf[WORDS], at;
	int pass;

	for (pass = 0; pass < PASSES; pass++) {
		for (at = arg; at < arg + STREAM_BYTES; at += STEP) {
			soft_read(w, at, buf, STEP);
			sum += add(buf);
		}
	}
	job.ns = bench_now_ns() - t0;
	job.sum = sum;
}

static void stream_plain(struct soft_worker *w, uint64_t arg)
{
	double t0 = bench_now_ns();
	uint64_t sum = 0, buf[WORDS], at;
	int pass;

	(void)w;
	for (pass = 0; pass < PASSES; pass++) {
		for (at = arg; at < arg + STREAM_BYTES; at += STEP) {
			memcpy(buf, (const void *)(uintptr_t)at, STEP);
			sum += add(buf);
		}
		/* each pass reads again */
		__asm__ volatile("" : : : "memory");
	}
	job.ns = bench_now_ns() - t0;
	job.sum = sum;
}

static int stream_setup(struct bench_run *run)
{
	int err = bench_begin(run, "soft:mem=64M,workers=1", NULL);

	run->len = STREAM_BYTES;
	if (!err)
		err = bench_map(run, run->len, true, &run->mem);
	if (!err)
		err = bench_map(run, run->len, true, &run->raw_mem);
	return err ? err : bench_migrate(run, run->mem, run->len, run->dev[0]);
}

static void stream_teardown(struct bench_run *run)
{
	bench_unmap(run->mem, run->len);
	bench_unmap(run->raw_mem, run->len);
}

static int stream(struct bench_run *run, soft_fn fn, const char *mem, double *ret)
{
	uint64_t fence;
	int err = balun_soft_launch(run->dev[0], fn, (uintptr_t)mem, 1, &fence);

	if (!err)
		err = balun_soft_wait(run->dev[0], fence, NULL);
	if (err)
		return bench_fail(run, err, "launch: %s", balun_reason());
	if (!run->priv) {
		run->priv = run;
		run->seed = (unsigned int)job.sum;
	}
	if ((unsigned int)job.sum != run->seed)
		return bench_fail(run, -EILSEQ, "the device read something else");
	*ret = job.ns / (STREAM_BYTES / BALUN_PAGE_SIZE) / PASSES;
	return 0;
}

static int stream_mmu_ns(struct bench_run *run, double *ret)
{
	return stream(run, stream_mmu, run->mem, ret);
}

static int stream_plain_ns(struct bench_run *run, double *ret)
{
	return stream(run, stream_plain, run->raw_mem, ret);
}

const struct bench bench_device_stream = {
	.name = "device_stream",
	.unit = "ns/page",
	.what = "the device reads resident memory through its MMU",
	.limit_what = "the same loop on a plain pointer",
	.target = 1.1,
	.runs = 31,
	.setup = stream_setup,
	.value = stream_mmu_ns,
	.limit = stream_plain_ns,
	.teardown = stream_teardown,
};

/* ---- device to device ---- */

static int peer_setup(struct bench_run *run)
{
	int err = bench_begin(run, "soft:mem=64M", "soft:mem=64M");

	run->len = 32 * MIB;
	return err ? err : bench_map(run, run->len, true, &run->mem);
}

static void peer_teardown(struct bench_run *run)
{
	bench_unmap(run->mem, run->len);
}

static uint64_t sum(const uint64_t *by_cause)
{
	uint64_t n = 0;
	int i;

	for (i = 0; i < BALUN_NR_CAUSES; i++)
		n += by_cause[i];
	return n;
}

/* bytes that came through host memory on the way from one device to the other */
static int peer_host_bytes(struct bench_run *run, double *ret)
{
	struct balun_stats a = { .size = sizeof(a) }, b = { .size = sizeof(b) };
	uint64_t direct, between;
	double t0, ns;
	int err = bench_migrate(run, run->mem, run->len, run->dev[0]);

	if (!err)
		err = balun_stats(run->space, &a);
	t0 = bench_now_ns();
	if (!err)
		err = bench_migrate(run, run->mem, run->len, run->dev[1]);
	ns = bench_now_ns() - t0;
	if (!err)
		err = balun_stats(run->space, &b);
	if (err)
		return err;
	direct = b.peer_bytes - a.peer_bytes;
	between = sum(b.device_to_device) - sum(a.device_to_device);
	if (between != run->len)
		return bench_fail(run, -EIO, "%llu of %zu bytes went from device to device",
				  (unsigned long long)between, run->len);
	*ret = (double)(between - direct) + (double)(sum(b.to_system) - sum(a.to_system)) +
	       (double)(sum(b.to_device) - sum(a.to_device));
	snprintf(run->detail, sizeof(run->detail), "%.0f ns per 2 MiB", ns * 2 * MIB / run->len);
	return bench_migrate(run, run->mem, run->len, NULL);
}

static int no_bytes(struct bench_run *run, double *ret)
{
	(void)run;
	*ret = 0;
	return 0;
}

const struct bench bench_peer_copy = {
	.name = "peer_copy",
	.unit = "host bytes",
	.what = "bytes through host memory, device to device",
	.limit_what = "none",
	.target = 0,
	.target_on_value = true,
	.runs = 11,
	.setup = peer_setup,
	.value = peer_host_bytes,
	.limit = no_bytes,
	.teardown = peer_teardown,
};
