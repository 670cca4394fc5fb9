// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The lz4 driver by itself: each kind of page, its limit, what it gives back, a store gone bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* the pool is looked at, and spoiled */
#include "drivers/lz4.c"
#include "store.h"

#define OPEN(d, spec) dev_open(d, &balun_lz4_driver, spec)

static void takes_options(void **state)
{
	static const char *const bad[] = {
		"lz4:mem=0",	   "lz4:mem=3M",  "lz4:mem=2048G", "lz4:limit=64K", "lz4:level=0",
		"lz4:level=65538", "lz4:stats=2", "lz4:mem=x",	   "lz4:limit=1Mx", "lz4:level=-1",
	};
	struct dev d;
	size_t i;

	assert_int_equal(OPEN(&d, "lz4"), 0);
	assert_int_equal(d.desc.mem_bytes, 4ULL << 30);
	assert_int_equal(d.desc.caps, 0);
	dev_close(&d);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(OPEN(&d, bad[i]), -EINVAL);
		assert_string_not_equal(balun_reason(), "");
	}
}

static void check_entry(uint64_t e, enum page_kind kind)
{
	assert_int_equal(e & ENTRY_KIND, kind <= PAGE_SMALL_WORD ? ENTRY_SAME : ENTRY_OBJECT);
	if (kind == PAGE_WORD)
		assert_int_equal(ENTRY_SIZE(e), WORD_BYTES);
	else if (kind == PAGE_HALF)
		assert_in_range(ENTRY_SIZE(e), PAGE / 2, PACKED_MAX);
	else if (kind == PAGE_SPARSE)
		assert_in_range(ENTRY_SIZE(e), WORD_BYTES + 1, 64);
	else if (kind == PAGE_RANDOM)
		assert_int_equal(ENTRY_SIZE(e), PAGE);
}

/* every kind there and back, over each other, in one run; and how each is kept */
static void keeps_each_kind(void **state)
{
	uint64_t i, round, kind;
	struct dev d;
	struct lz4 *z;

	assert_int_equal(OPEN(&d, "lz4:mem=4M,level=3"), 0);
	z = d.priv;
	for (round = 1; round <= 3; round++) {
		for (i = 0; i < NPAGES; i++)
			page_make(d.sys + i * PAGE, (i + round) % NR_PAGE_KINDS, i + round);
		assert_int_equal(dev_put(&d, 0x100000, d.sys, NPAGES * PAGE), 0);
		memset(d.sys, 0x11, NPAGES * PAGE);
		assert_int_equal(dev_get(&d, 0x100000, d.sys, NPAGES * PAGE), 0);
		for (i = 0; i < NPAGES; i++) {
			kind = (i + round) % NR_PAGE_KINDS;
			assert_true(page_is(d.sys + i * PAGE, kind, i + round));
			check_entry(z->table[0x100 + i], kind);
		}
	}
	assert_int_equal(z->stored, 3 * NPAGES);
	assert_int_equal(z->whole, 3 * NPAGES / NR_PAGE_KINDS - 1);
	dev_close(&d);
}

static void zeros_and_what_was_never_stored(void **state)
{
	const struct balun_copy zero = { 0x4000, 0, 0x3000, BALUN_KIND_LOCAL, BALUN_KIND_ZERO };
	const struct balun_copy peer = { 0, 0, 4096, BALUN_KIND_LOCAL, BALUN_KIND_PEER };
	struct dev d;

	assert_int_equal(OPEN(&d, "lz4:mem=2M"), 0);
	memset(d.sys, 1, 0x3000);
	assert_int_equal(dev_put(&d, 0x4000, d.sys, 0x1000), 0);
	assert_int_equal(dev_copy(&d, &zero, 1), 0);
	assert_int_equal(dev_get(&d, 0x4000, d.sys, 0x3000), 0);
	assert_true(page_is(d.sys + 0x2000, PAGE_ZERO, 1));
	assert_int_equal(dev_get(&d, 0x7000, d.sys, 0x1000), -EIO);
	dev_trim(&d, 0x5000, 0x1000);
	assert_int_equal(dev_get(&d, 0x5000, d.sys, 0x1000), -EIO);
	assert_int_equal(dev_get(&d, 0x6000, d.sys, 0x1000), 0);
	assert_int_equal(dev_copy(&d, &peer, 1), -EOPNOTSUPP);
	dev_close(&d);
}

/* full is an error before anything is lost; what is trimmed makes room */
static void keeps_to_its_limit(void **state)
{
	struct dev d;
	uint64_t i, n;

	assert_int_equal(OPEN(&d, "lz4:mem=16M,limit=4M"), 0);
	for (n = 0;; n++) {
		page_make(d.sys, PAGE_RANDOM, n + 1);
		if (dev_put(&d, n * PAGE, d.sys, PAGE))
			break;
	}
	assert_int_equal(n, (4 << 20) / PAGE);
	assert_int_equal(dev_put(&d, n * PAGE, d.sys, PAGE), -ENOMEM);
	assert_int_equal(d.drv->footprint(d.priv), 4 << 20);
	for (i = 0; i < n; i++) {
		assert_int_equal(dev_get(&d, i * PAGE, d.sys, PAGE), 0);
		assert_true(page_is(d.sys, PAGE_RANDOM, i + 1));
	}
	/* a word needs no room */
	page_make(d.sys, PAGE_SMALL_WORD, 7);
	assert_int_equal(dev_put(&d, n * PAGE, d.sys, PAGE), 0);
	dev_trim(&d, 0, 16 * PAGE);
	page_make(d.sys, PAGE_RANDOM, 99);
	for (i = 0; i < 16; i++)
		assert_int_equal(dev_put(&d, i * PAGE, d.sys, PAGE), 0);
	assert_int_equal(dev_put(&d, (n + 1) * PAGE, d.sys, PAGE), -ENOMEM);
	dev_close(&d);
}

/* pages of [p, p + len) that have memory */
static uint64_t resident(void *p, uint64_t len)
{
	static unsigned char vec[1 << 16];
	uint64_t i, n = 0;

	assert_true(len / PAGE <= sizeof(vec));
	assert_int_equal(mincore(p, len, vec), 0);
	for (i = 0; i < len / PAGE; i++)
		n += vec[i] & 1;
	return n;
}

static void gives_back(void **state)
{
	const uint64_t mem = 64 << 20;
	struct dev d;
	struct lz4 *z;
	uint64_t off, pool;

	assert_int_equal(OPEN(&d, "lz4:mem=64M"), 0);
	z = d.priv;
	pool = z->nchunks << CHUNK_SHIFT;
	assert_int_equal(resident(z->base, pool), 0);
	for (off = 0; off < NPAGES; off++)
		page_make(d.sys + off * PAGE, off % 3 + PAGE_HALF, off + 1);
	for (off = 0; off < mem; off += NPAGES * PAGE)
		assert_int_equal(dev_put(&d, off, d.sys, NPAGES * PAGE), 0);
	assert_true(resident(z->base, pool) > mem / PAGE / 3);
	/* a hole in every chunk gives nothing back, but is used again */
	for (off = 0; off < mem; off += 64 * PAGE)
		dev_trim(&d, off, 3 * PAGE);
	for (off = 0; off < mem; off += 64 * PAGE)
		assert_int_equal(dev_put(&d, off, d.sys, 3 * PAGE), 0);
	dev_trim(&d, 0, mem);
	assert_true(resident(z->base, pool) <= KEEP_CHUNKS * (CHUNK_BYTES / PAGE));
	assert_int_equal(z->held, z->nkept);
	dev_close(&d);
}

/* whatever the pool holds: a page is read or it is -EIO, and nothing beside it is written */
static void survives_a_spoiled_pool(void **state)
{
	struct dev d;
	struct lz4 *z;
	uint64_t seed = 12345, i, round;
	unsigned int failed = 0;
	char *dst;

	assert_int_equal(OPEN(&d, "lz4:mem=2M"), 0);
	z = d.priv;
	dst = d.sys + 3 * PAGE;
	for (i = 0; i < 64; i++) {
		page_make(d.sys, i % 2 + PAGE_HALF, i + 1);
		assert_int_equal(dev_put(&d, i * PAGE, d.sys, PAGE), 0);
	}
	for (round = 0; round < 200; round++) {
		for (i = 0; i < 500; i++)
			z->base[next(&seed) % (z->nfresh << CHUNK_SHIFT)] = next(&seed);
		memset(d.sys, 0x77, 8 * PAGE);
		for (i = 0; i < 64; i++)
			failed += dev_get(&d, i * PAGE, dst, PAGE) != 0;
		for (i = 0; i < 8 * PAGE; i++)
			assert_true(d.sys[i] == 0x77 || (i >= 3 * PAGE && i < 4 * PAGE));
	}
	assert_true(failed > 1000);
	dev_close(&d);
}

/* more threads than slots */
static void threads_together(void **state)
{
	struct dev d;
	struct lz4 *z;

	assert_true(THREADS > NR_SLOTS);
	assert_int_equal(OPEN(&d, "lz4:mem=8M,stats=1"), 0);
	z = d.priv;
	dev_hammer(&d, 400);
	dev_trim(&d, 0, d.desc.mem_bytes);
	assert_int_equal(z->held, z->nkept);
	dev_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_options),
		cmocka_unit_test(keeps_each_kind),
		cmocka_unit_test(zeros_and_what_was_never_stored),
		cmocka_unit_test(keeps_to_its_limit),
		cmocka_unit_test(gives_back),
		cmocka_unit_test(survives_a_spoiled_pool),
		cmocka_unit_test(threads_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
