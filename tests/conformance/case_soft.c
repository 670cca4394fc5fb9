/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Functions launched on the soft accelerator, against the same computed by the CPU. */
#include "kit.h"

/* memory for struct soft_args, where the engine can reach it */
static uint64_t args_put(struct kit *k, const struct soft_args *a)
{
	uint64_t va = kit_map(k, PAGE, KIT_RW);

	CHECK_OK(k->mem->store(k, va, a, sizeof(*a)));
	return va;
}

static struct soft_args args_get(struct kit *k, uint64_t va)
{
	struct soft_args a;

	CHECK_OK(k->mem->load(k, va, &a, sizeof(a)));
	return a;
}

static void launch(struct kit *k, soft_fn fn, uint64_t arg, unsigned int workers)
{
	uint64_t fence;

	CHECK_OK(balun_soft_launch(k->dev, fn, arg, workers, &fence));
	CHECK_OK(balun_soft_wait(k->dev, fence, NULL));
}

static void fill(struct kit *k)
{
	uint64_t len = 2 * MIB + 12345, va = kit_map(k, 3 * MIB, KIT_RW), i;
	uint64_t a = args_put(k, &(struct soft_args){ .dst = va + 77, .len = len, .value = 0xa5 });
	unsigned char buf[PAGE];

	launch(k, balun_soft_fill, a, 0);
	for (i = 0; i < len; i += PAGE) {
		size_t n = len - i < PAGE ? len - i : PAGE, j;

		CHECK_OK(k->mem->load(k, va + 77 + i, buf, n));
		for (j = 0; j < n; j++)
			CHECK_EQ(buf[j], 0xa5);
	}
	CHECK_OK(k->mem->load(k, va, buf, 77));
	for (i = 0; i < 77; i++)
		CHECK_EQ(buf[i], 0);
	CHECK_OK(k->mem->load(k, va + 77 + len, buf, 8));
	for (i = 0; i < 8; i++)
		CHECK_EQ(buf[i], 0);
}

static void copy(struct kit *k)
{
	uint64_t len = 3 * MIB, src = kit_filled(k, len, 1), dst = kit_map(k, len, KIT_RW);
	uint64_t a = args_put(k, &(struct soft_args){ .src = src, .dst = dst, .len = len });

	kit_move(k, src, len / 2, k->dev);
	launch(k, balun_soft_copy, a, 0);
	kit_verify(k, dst, len, 1);
	kit_verify(k, src, len, 1);
}

static void reduce(struct kit *k)
{
	uint64_t len = 2 * MIB, src = kit_filled(k, len, 2), sum = 1000, i, j;
	uint64_t a =
		args_put(k, &(struct soft_args){ .src = src + 3, .len = len - 7, .value = 1000 });
	unsigned char buf[PAGE];

	launch(k, balun_soft_reduce, a, 0);
	for (i = 0; i < len; i += PAGE) {
		kit_pattern(buf, i, PAGE, 2);
		for (j = 0; j < PAGE; j++)
			if (i + j >= 3 && i + j < len - 4)
				sum += buf[j];
	}
	CHECK_EQ(args_get(k, a).value, sum);
}

static void histogram(struct kit *k)
{
	uint64_t len = MIB, src = kit_filled(k, len, 3), want[256] = { 0 }, i, j;
	uint64_t a = args_put(k, &(struct soft_args){ .src = src, .len = len });
	struct soft_args got;
	unsigned char buf[PAGE];

	launch(k, balun_soft_histogram, a, 0);
	for (i = 0; i < len; i += PAGE) {
		kit_pattern(buf, i, PAGE, 3);
		for (j = 0; j < PAGE; j++)
			want[buf[j]]++;
	}
	got = args_get(k, a);
	for (i = 0; i < 256; i++)
		CHECK_EQ(got.hist[i], want[i]);
}

/* needles at the start, at the end, over page and share borders */
static void search(struct kit *k)
{
	static const char needle[] = "the needle that is sought";
	static const uint64_t at[] = { 0, 100, 4090, 8192, 131070, 524277, MIB - 25 };
	uint64_t len = MIB, src = kit_filled(k, len, KIT_ZEROS), dst = kit_map(k, PAGE, KIT_RW);
	uint64_t a = args_put(
		k, &(struct soft_args){
			   .src = src, .dst = dst, .len = len, .value = sizeof(needle) - 1 });
	size_t i;

	CHECK_OK(k->mem->store(k, dst, needle, sizeof(needle)));
	for (i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		CHECK_OK(k->mem->store(k, src + at[i], needle, sizeof(needle) - 1));
	launch(k, balun_soft_search, a, 0);
	CHECK_EQ(args_get(k, a).hist[0], sizeof(at) / sizeof(at[0]));
}

/* one worker or many give the same */
static void workers(struct kit *k)
{
	int n = balun_soft_workers(k->dev), i;
	uint64_t len = MIB, src = kit_filled(k, len, 4), fence;
	uint64_t first = 0;

	CHECK(n >= 1);
	for (i = 1; i <= n; i++) {
		uint64_t a = args_put(k, &(struct soft_args){ .src = src, .len = len });

		launch(k, balun_soft_reduce, a, i);
		if (i == 1)
			first = args_get(k, a).value;
		CHECK_EQ(args_get(k, a).value, first);
	}
	CHECK_RC(balun_soft_launch(k->dev, balun_soft_reduce, src, n + 1, &fence), -EINVAL);
}

/* a list whose elements lie all over the place */
struct element {
	uint64_t next, value;
};

static void chase_fn(struct soft_worker *w, uint64_t arg)
{
	uint64_t at = soft_load_u64(w, arg), n = 0;

	if (w->index)
		return;
	while (at) {
		uint64_t v = soft_load_u64(w, at + offsetof(struct element, value));

		soft_store_u64(w, at + offsetof(struct element, value), 2 * v);
		n += v;
		at = soft_load_u64(w, at + offsetof(struct element, next));
	}
	soft_store_u64(w, arg + 8, n);
}

static void chase(struct kit *k)
{
	uint64_t pages = 300, va = kit_map(k, pages * PAGE, KIT_RW), i, at, next = 0, sum = 0;
	uint64_t head = kit_map(k, PAGE, KIT_RW);

	for (i = 0; i < 1000; i++) {
		struct element e = { .next = next, .value = i };

		at = va + i * 7919 % 1000 * (pages * PAGE / 1000 & ~15UL);
		CHECK_OK(k->mem->store(k, at, &e, sizeof(e)));
		next = at;
		sum += i;
	}
	cpu_write64(k, head, next);
	kit_move(k, va, 100 * PAGE, k->dev);
	launch(k, chase_fn, head, 0);
	CHECK_EQ(cpu_read64(k, head + 8), sum);
	for (at = cpu_read64(k, head), i = 999; at; i--) {
		CHECK_EQ(cpu_read64(k, at + offsetof(struct element, value)), 2 * i);
		at = cpu_read64(k, at + offsetof(struct element, next));
	}
}

/* values of every size, across page borders too */
static void sizes_fn(struct soft_worker *w, uint64_t arg)
{
	uint64_t at;

	if (w->index)
		return;
	for (at = arg + PAGE - 16; at < arg + PAGE + 8; at++) {
		uint64_t v = soft_load_u64(w, at);

		soft_store_u64(w, at, v);
		soft_store_u32(w, at, soft_load_u32(w, at));
		soft_store_u16(w, at, soft_load_u16(w, at));
		soft_store_u8(w, at, soft_load_u8(w, at));
		soft_store_f64(w, at + 4096, 0.5);
		if (soft_load_f64(w, at + 4096) != 0.5)
			soft_store_u64(w, arg, 1);
		if (soft_load_u64(w, at) != v)
			soft_store_u64(w, arg, 2);
	}
	soft_store_u64(w, arg + 8, 77);
}

static void sizes(struct kit *k)
{
	uint64_t va = kit_filled(k, 3 * PAGE, 5), keep;

	cpu_write64(k, va, 0);
	keep = cpu_read64(k, va + PAGE);
	launch(k, sizes_fn, va, 0);
	CHECK_EQ(cpu_read64(k, va), 0);
	CHECK_EQ(cpu_read64(k, va + 8), 77);
	CHECK_EQ(cpu_read64(k, va + PAGE), keep);
}

#define ADDS 500

static void atomics_fn(struct soft_worker *w, uint64_t arg)
{
	int i;

	for (i = 0; i < ADDS; i++) {
		uint64_t old;

		soft_add_u64(w, arg, 3);
		do {
			old = soft_load_u64(w, arg + 8);
		} while (soft_cas_u64(w, arg + 8, old, old + 1) != old);
	}
}

/* nothing is lost between the workers, even while the page moves */
static void atomics(struct kit *k)
{
	uint64_t va = kit_map(k, PAGE, KIT_RW), fence, i;
	int n = balun_soft_workers(k->dev);

	CHECK_OK(balun_soft_launch(k->dev, atomics_fn, va, 0, &fence));
	for (i = 0; i < 20; i++)
		kit_migrate(k, va, PAGE, i & 1 ? k->dev : NULL);
	CHECK_OK(balun_soft_wait(k->dev, fence, NULL));
	CHECK_EQ(cpu_read64(k, va), 3ULL * ADDS * n);
	CHECK_EQ(cpu_read64(k, va + 8), 1ULL * ADDS * n);
}

static uint64_t fill_args(struct kit *k, uint64_t dst, uint64_t len, uint64_t value)
{
	return args_put(k, &(struct soft_args){ .dst = dst, .len = len, .value = value });
}

/* an access that cannot be made ends the function and is told with its address */
static void errors(struct kit *k)
{
	uint64_t hole = kit_place(k, PAGE), va = kit_filled(k, PAGE, 6), fence, addr = 0;
	uint64_t in_hole = fill_args(k, hole + 24, 8, 1), in_page = fill_args(k, va + 8, 8, 1);

	CHECK_OK(balun_soft_launch(k->dev, balun_soft_fill, in_hole, 1, &fence));
	CHECK_RC(balun_soft_wait(k->dev, fence, &addr), -EFAULT);
	CHECK_EQ(addr, hole + 24);
	CHECK_OK(balun_soft_launch(k->dev, balun_soft_fill, hole, 1, &fence));
	CHECK_RC(balun_soft_wait(k->dev, fence, &addr), -EFAULT);
	CHECK(addr >= hole && addr < hole + sizeof(struct soft_args));
	CHECK_OK(k->mem->protect(k, va, PAGE, KIT_READ));
	CHECK_OK(balun_soft_launch(k->dev, balun_soft_fill, in_page, 1, &fence));
	CHECK_RC(balun_soft_wait(k->dev, fence, &addr), -EPERM);
	CHECK_EQ(addr, va + 8);
	CHECK_OK(k->mem->protect(k, va, PAGE, KIT_RW));
	launch(k, balun_soft_fill, in_page, 1);
	CHECK_EQ(cpu_read64(k, va + 8), 0x0101010101010101ULL);
}

/* commands run in order: each copy has what the fill before it wrote, not what the next one does */
static void order(struct kit *k)
{
	uint64_t src = kit_map(k, PAGE, KIT_RW), dst = kit_map(k, 30 * PAGE, KIT_RW), fence,
		 last = 0;
	uint64_t i, fill_at, copy_at;

	for (i = 0; i < 30; i++) {
		fill_at = fill_args(k, src, PAGE, i + 1);
		copy_at = args_put(
			k, &(struct soft_args){ .src = src, .dst = dst + i * PAGE, .len = PAGE });
		CHECK_OK(balun_soft_launch(k->dev, balun_soft_fill, fill_at, 0, &fence));
		CHECK(fence > last);
		CHECK_OK(balun_soft_launch(k->dev, balun_soft_copy, copy_at, 0, &last));
		CHECK(last > fence);
	}
	CHECK_OK(balun_soft_wait(k->dev, last, NULL));
	for (i = 0; i < 30; i++)
		CHECK_EQ(cpu_read64(k, dst + i * PAGE + 8), (i + 1) * 0x0101010101010101ULL);
}

/* beside a CPU that touches, moves, and changes the mapping */
static void while_moving(struct kit *k)
{
	uint64_t len = 64 * PAGE, src = kit_map(k, len, KIT_RW), dst = kit_map(k, len, KIT_RW), i;
	uint64_t a = args_put(k, &(struct soft_args){ .src = src, .dst = dst, .len = len }), fence;

	for (i = 0; i < 40; i++) {
		kit_fill(k, src, len, i);
		CHECK_OK(balun_soft_launch(k->dev, balun_soft_copy, a, 0, &fence));
		kit_migrate(k, i & 2 ? src : dst, len, i & 1 ? k->dev : NULL);
		kit_verify_part(k, src, i * PAGE, PAGE, i);
		CHECK_OK(k->mem->protect(k, dst + 5 * PAGE, PAGE, KIT_RW));
		CHECK_OK(balun_soft_wait(k->dev, fence, NULL));
		kit_verify(k, dst, len, i);
	}
}

/* the device sums up a range many times */
static uint64_t launch_sums(struct kit *k, uint64_t va, uint64_t len, unsigned int n)
{
	uint64_t a = args_put(k, &(struct soft_args){ .src = va, .len = len }), fence = 0;

	while (n--)
		CHECK_OK(balun_soft_launch(k->dev, balun_soft_reduce, a, 0, &fence));
	return fence;
}

/* what it works on is unmapped: the functions end with -EFAULT, the device lives */
static void munmap_running(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 7), other = kit_map(k, PAGE, KIT_RW),
		 addr;
	uint64_t fence = launch_sums(k, va, len, 100);
	int rc;

	CHECK_OK(k->mem->unmap(k, va, len));
	rc = balun_soft_wait(k->dev, fence, &addr);
	CHECK(rc == 0 || rc == -EFAULT);
	if (rc)
		CHECK(addr >= va && addr < va + len);
	launch(k, balun_soft_fill, fill_args(k, other, PAGE, 1), 1);
	CHECK_EQ(cpu_read64(k, other), 0x0101010101010101ULL);
}

/* the device is closed while functions run: bounded, and memory is whole */
static void close_running(struct kit *k)
{
	uint64_t va = kit_filled(k, 64 * PAGE, 8);

	launch_sums(k, va, 64 * PAGE, 100);
	CHECK_OK(kit_close(k, k->dev));
	kit_verify(k, va, 64 * PAGE, 8);
}

/* device memory smaller than what the function works on */
static void small_device(struct kit *k)
{
	uint64_t len = 12 * MIB, src = kit_filled(k, len, 9), dst = kit_map(k, len, KIT_RW);
	uint64_t a = args_put(k, &(struct soft_args){ .src = src, .dst = dst, .len = len });

	launch(k, balun_soft_copy, a, 0);
	kit_verify(k, dst, len, 9);
	kit_verify(k, src, len, 9);
	CHECK(kit_mem_used(k->dev) <= kit_mem_total(k->dev));
}

const struct kit_case cases_soft[] = {
	{ "soft-fill", fill, NULL, KIT_SOFT },
	{ "soft-copy", copy, NULL, KIT_SOFT },
	{ "soft-reduce", reduce, NULL, KIT_SOFT },
	{ "soft-histogram", histogram, NULL, KIT_SOFT },
	{ "soft-search", search, NULL, KIT_SOFT },
	{ "soft-workers", workers, NULL, KIT_SOFT },
	{ "soft-chase-pointers", chase, NULL, KIT_SOFT | KIT_OWN_FN },
	{ "soft-sizes", sizes, NULL, KIT_SOFT | KIT_OWN_FN },
	{ "soft-atomics", atomics, NULL, KIT_SOFT | KIT_OWN_FN },
	{ "soft-errors", errors, NULL, KIT_SOFT },
	{ "soft-order", order, NULL, KIT_SOFT },
	{ "soft-while-moving", while_moving, NULL, KIT_SOFT },
	{ "soft-munmap-while-running", munmap_running, NULL, KIT_SOFT },
	{ "soft-close-while-running", close_running, NULL, KIT_SOFT },
	{ "soft-small-device", small_device, "mem=4M", KIT_SOFT },
	{ NULL, NULL, NULL, 0 },
};
