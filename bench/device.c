// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The device reads its memory; two devices copy to each other */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "balun/soft.h"
#include "bench/bench.h"

/* 16 bytes, the vector that every x86-64 and arm64 has; one access reads BURST of them */
typedef uint64_t vec __attribute__((vector_size(16), may_alias));

#define BURST 16
#define TRIES 3 /* the quickest counts: not all are interrupted */

/* What is read, and how often per launch: more than caches hold, and what they do hold. */
enum {
	MEMORY,
	CACHED,
	NR_SIZES
};

static const struct {
	uint64_t bytes;
	int passes;
} size[NR_SIZES] = { { 128 * MIB, 1 }, { 8 * MIB, 8 } };

/* What the functions on the device read and write, and where. Static: it stays at home. */
static struct stream_job {
	uint64_t bytes, sum;
	int passes;
	double ns;
} job;

static uint64_t sums[NR_SIZES]; /* 0 before the first time, then what both must find */

/* ns per page, the best so far */
static struct {
	double mmu, plain;
} cached;

/*
 * Both are launched on a worker of the device, so that all but the access is the same: time is
 * taken inside. The job is a register file to them: results go out through a plain pointer.
 */
static void stream_done(double t0, vec sum)
{
	job.ns = bench_now_ns() - t0;
	job.sum = sum[0] + sum[1];
}

static inline vec add(const vec *v)
{
	vec sum = v[0];
	int i;

#pragma GCC unroll 16
	for (i = 1; i < BURST; i++)
		sum += v[i];
	return sum;
}

static void stream_mmu(struct soft_worker *w, uint64_t arg)
{
	double t0 = bench_now_ns();
	uint64_t at, end = arg + job.bytes;
	vec buf[BURST], sum = { 0 };
	int pass, passes = job.passes;

	for (pass = 0; pass < passes; pass++) {
		for (at = arg; at < end; at += sizeof(buf)) {
			soft_read(w, at, buf, sizeof(buf));
			sum += add(buf);
		}
	}
	stream_done(t0, sum);
}

/* adds straight from memory, without a copy in between */
static void stream_plain(struct soft_worker *w, uint64_t arg)
{
	double t0 = bench_now_ns();
	uint64_t at, end = arg + job.bytes;
	vec sum = { 0 };
	int pass, passes = job.passes;

	(void)w;
	for (pass = 0; pass < passes; pass++) {
		for (at = arg; at < end; at += BURST * sizeof(vec))
			sum += add((const vec *)(uintptr_t)at);
		/* each pass reads again */
		__asm__ volatile("" : : : "memory");
	}
	stream_done(t0, sum);
}

static int stream_setup(struct bench_run *run)
{
	int err = bench_begin(run, "soft:mem=192M,workers=1", NULL);

	memset(sums, 0, sizeof(sums));
	memset(&cached, 0, sizeof(cached));
	run->len = size[MEMORY].bytes;
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

static int stream_one(struct bench_run *run, soft_fn fn, const char *mem, int which, double *ret_ns)
{
	uint64_t fence;
	int err;

	job.bytes = size[which].bytes;
	job.passes = size[which].passes;
	err = balun_soft_launch(run->dev[0], fn, (uintptr_t)mem, 1, &fence);
	if (!err)
		err = balun_soft_wait(run->dev[0], fence, NULL);
	if (err)
		return bench_fail(run, err, "launch: %s", balun_reason());
	if (!sums[which])
		sums[which] = job.sum;
	if (job.sum != sums[which])
		return bench_fail(run, -EILSEQ, "the device read something else");
	*ret_ns = job.ns / (size[which].bytes / BALUN_PAGE_SIZE) / size[which].passes;
	return 0;
}

/* what is reported, and the same in the caches for the detail */
static int stream(struct bench_run *run, soft_fn fn, const char *mem, double *best, double *ret)
{
	double ns, memory_ns = 0;
	int i, err = stream_one(run, fn, mem, CACHED, &ns);

	for (i = 0; i < TRIES && !err; i++) {
		err = stream_one(run, fn, mem, MEMORY, &memory_ns);
		if (!i || memory_ns < *ret)
			*ret = memory_ns;
	}
	if (err)
		return err;
	if (!*best || ns < *best)
		*best = ns;
	if (cached.mmu > 0 && cached.plain > 0)
		snprintf(run->detail, sizeof(run->detail),
			 "8 MiB in the caches, best of each: %.1f against %.1f ns/page, ratio %.3f",
			 cached.mmu, cached.plain, cached.mmu / cached.plain);
	return 0;
}

static int stream_mmu_ns(struct bench_run *run, double *ret)
{
	return stream(run, stream_mmu, run->mem, &cached.mmu, ret);
}

static int stream_plain_ns(struct bench_run *run, double *ret)
{
	return stream(run, stream_plain, run->raw_mem, &cached.plain, ret);
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
