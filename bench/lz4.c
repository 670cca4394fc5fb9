// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Pages to a device that compresses them and back, beside the library alone */
#include <errno.h>
#include <string.h>
#ifdef BALUN_HAVE_LZ4
#include <lz4.h>
#endif

#include "bench/bench.h"

#ifdef BALUN_HAVE_LZ4

#define LEN (16 * MIB)
#define NR  (LEN / BALUN_PAGE_SIZE)

static char packed[NR][LZ4_COMPRESSBOUND(BALUN_PAGE_SIZE)];
static int packed_len[NR];
static union {
	char bytes[1 << 15];
	uint64_t align;
} state;

/* every page half random, in runs of 256 bytes: what is left is half of it */
static void fill(struct bench_run *run, char *mem)
{
	uint32_t *p = (uint32_t *)mem;
	size_t i;

	for (i = 0; i < LEN / sizeof(*p); i++)
		p[i] = i % 128 < 64 ? bench_random(run) : 0x20202020;
}

static int lz4_setup(struct bench_run *run)
{
	int err = bench_begin(run, "lz4:mem=64M", NULL);

	run->len = LEN;
	if (LZ4_sizeofState() > (int)sizeof(state))
		return bench_fail(run, -EOPNOTSUPP, "a liblz4 with a larger state");
	if (!err)
		err = bench_map(run, LEN, false, &run->mem);
	if (!err)
		err = bench_map(run, LEN, false, &run->raw_mem);
	if (err)
		return err;
	fill(run, run->mem);
	memcpy(run->raw_mem, run->mem, LEN);
	return 0;
}

static void lz4_teardown(struct bench_run *run)
{
	bench_unmap(run->mem, run->len);
	bench_unmap(run->raw_mem, run->len);
}

static int there(struct bench_run *run, struct balun_device *dev, double *ret)
{
	double t0 = bench_now_ns();
	int err = bench_migrate(run, run->mem, run->len, dev);

	*ret = (bench_now_ns() - t0) / NR;
	return err;
}

static int store_ns(struct bench_run *run, double *ret)
{
	double home;
	int err = there(run, run->dev[0], ret);

	return err ? err : there(run, NULL, &home);
}

static int load_ns(struct bench_run *run, double *ret)
{
	double away;
	int err = there(run, run->dev[0], &away);

	return err ? err : there(run, NULL, ret);
}

static void pack(struct bench_run *run, double *ret)
{
	double t0 = bench_now_ns();
	size_t i;

	for (i = 0; i < NR; i++)
		packed_len[i] = LZ4_compress_fast_extState(
			state.bytes, run->raw_mem + i * BALUN_PAGE_SIZE, packed[i], BALUN_PAGE_SIZE,
			sizeof(packed[i]), 1);
	*ret = (bench_now_ns() - t0) / NR;
}

static void unpack(struct bench_run *run, double *ret)
{
	double t0 = bench_now_ns();
	size_t i;

	for (i = 0; i < NR; i++)
		LZ4_decompress_safe(packed[i], run->raw_mem + i * BALUN_PAGE_SIZE, packed_len[i],
				    BALUN_PAGE_SIZE);
	*ret = (bench_now_ns() - t0) / NR;
}

static int pack_ns(struct bench_run *run, double *ret)
{
	pack(run, ret);
	return 0;
}

static int unpack_ns(struct bench_run *run, double *ret)
{
	double ns;

	pack(run, &ns);
	unpack(run, ret);
	return 0;
}

#else

static int lz4_setup(struct bench_run *run)
{
	return bench_fail(run, -EOPNOTSUPP, "built without liblz4");
}

#define lz4_teardown NULL
#define store_ns     NULL
#define load_ns	     NULL
#define pack_ns	     NULL
#define unpack_ns    NULL

#endif

const struct bench bench_lz4_store = {
	.name = "lz4_store",
	.unit = "ns/page",
	.what = "half-compressible pages to an lz4 device",
	.limit_what = "LZ4_compress_fast_extState() of each",
	.target = 1.25,
	.runs = 31,
	.setup = lz4_setup,
	.value = store_ns,
	.limit = pack_ns,
	.teardown = lz4_teardown,
};

const struct bench bench_lz4_load = {
	.name = "lz4_load",
	.unit = "ns/page",
	.what = "and home",
	.limit_what = "LZ4_decompress_safe() of each",
	.target = 1.5,
	.runs = 31,
	.setup = lz4_setup,
	.value = load_ns,
	.limit = unpack_ns,
	.teardown = lz4_teardown,
};
