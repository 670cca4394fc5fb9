/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The program changes its mappings while pages are away and while the device runs. */
#include "kit.h"

static void munmap_away(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 1), v;

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 1);
	CHECK_OK(k->mem->unmap(k, va, len));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), 0);
	CHECK_EQ(probe_mapped(k->dev, va, len), 0);
	CHECK_RC(k->mem->load(k, va, &v, sizeof(v)), -EFAULT);
	CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -EFAULT);
	CHECK_RC(balun_migrate(k->space, (void *)va, len, k->dev, NULL), -EFAULT);
}

/* parts of a block go, one by one; what is left is right and device memory shrinks with it */
static void munmap_parts(struct kit *k)
{
	uint64_t va = kit_filled(k, BALUN_BLOCK_SIZE, 2), i, left = 512;

	kit_move(k, va, BALUN_BLOCK_SIZE, k->dev);
	for (i = 0; i < 512; i += 64) {
		CHECK_OK(k->mem->unmap(k, va + i * PAGE, 32 * PAGE));
		CHECK_OK(balun_fence(k->space));
		left -= 32;
		CHECK_EQ(kit_mem_used(k->dev), left * PAGE);
		dev_verify_part(k->dev, va, (i + 32) * PAGE, 32 * PAGE, 2);
	}
	for (i = 0; i < 512; i += 64)
		kit_verify_part(k, va, (i + 32) * PAGE, 32 * PAGE, 2);
}

/* a new mapping over the old one: zeros, not the bytes that were away */
static void mmap_over(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 3);

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 3);
	CHECK_OK(k->mem->map(k, va + 16 * PAGE, 16 * PAGE, KIT_RW));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), 48 * PAGE);
	dev_verify_part(k->dev, va + 16 * PAGE, 0, 16 * PAGE, KIT_ZEROS);
	kit_verify_zero(k, va + 16 * PAGE, 16 * PAGE);
	dev_verify(k->dev, va, 16 * PAGE, 3);
	kit_verify_part(k, va, 32 * PAGE, 32 * PAGE, 3);
}

static void mremap_away(struct kit *k)
{
	uint64_t len = 3 * MIB, va = kit_filled(k, len, 4), to = kit_map(k, len, KIT_RW), v;

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 4);
	CHECK_OK(k->mem->remap(k, va, to, len));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(probe_mapped(k->dev, va, len), 0);
	CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -EFAULT);
	CHECK_RC(k->mem->load(k, va, &v, sizeof(v)), -EFAULT);
	dev_verify(k->dev, to, len, 4);
	kit_mirror(k, k->dev, to, len);
	kit_verify(k, to, len, 4);
}

/* to an address that stands differently in its block, back and forth */
static void mremap_skewed(struct kit *k)
{
	uint64_t len = 300 * PAGE, a = kit_filled(k, len, 5), b = kit_place(k, 2 * len);
	int i;

	b += 37 * PAGE;
	for (i = 0; i < 6; i++) {
		kit_move(k, a, len / 2, k->dev);
		CHECK_OK(k->mem->remap(k, a, b, len));
		dev_verify(k->dev, b, len, 5);
		kit_move(k, b + 10 * PAGE, len / 3 & ~(PAGE - 1), k->dev);
		CHECK_OK(k->mem->remap(k, b, a, len));
		kit_verify(k, a, len, 5);
	}
}

/* a page moves within its block */
static void mremap_one_page(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 6);

	kit_move(k, va, len, k->dev);
	CHECK_OK(k->mem->remap(k, va + PAGE, va + 9 * PAGE, PAGE));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), 15 * PAGE);
	dev_verify_at(__FILE__, __LINE__, k->dev, va + 9 * PAGE, PAGE, 6, PAGE);
	dev_verify(k->dev, va, PAGE, 6);
	kit_verify_part(k, va, 10 * PAGE, 6 * PAGE, 6);
	kit_verify_at(__FILE__, __LINE__, k, va + 9 * PAGE, PAGE, 6, PAGE);
}

static void dontneed_away(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 7);

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 7);
	CHECK_OK(k->mem->dontneed(k, va + MIB, MIB));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), MIB);
	dev_verify_part(k->dev, va + MIB, 0, MIB, KIT_ZEROS);
	kit_verify_zero(k, va + MIB, MIB);
	dev_verify(k->dev, va, MIB, 7);
	kit_verify(k, va, MIB, 7);
}

/* at home, with the device looking on */
static void dontneed_home(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 8);

	dev_verify(k->dev, va, len, 8);
	kit_move(k, va, len, NULL);
	CHECK_OK(k->mem->dontneed(k, va, len));
	CHECK_OK(balun_fence(k->space));
	dev_verify(k->dev, va, len, KIT_ZEROS);
	kit_verify_zero(k, va, len);
}

static void dontneed_again(struct kit *k)
{
	uint64_t len = 32 * PAGE, va = kit_map(k, len, KIT_RW), i;

	for (i = 0; i < 30; i++) {
		kit_fill(k, va, len, i);
		kit_move(k, va, len, k->dev);
		CHECK_OK(k->mem->dontneed(k, va, len));
		kit_verify_zero(k, va, len);
	}
}

/* ---- while the device runs ---- */

struct running {
	struct kit *k;
	uint64_t va, len, seed;
	uint64_t loops;
	int stop;
};

/* reads a range that keeps changing: what it reads is the pattern, zeros, or nothing there */
static void *running_reader(void *arg)
{
	struct running *r = arg;
	uint64_t state = r->seed + 1;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		uint64_t at = kit_random(&state) % (r->len / PAGE) * PAGE, v, want;
		int rc = dev_read(r->k->dev, r->va + at, &v, sizeof(v));

		__atomic_fetch_add(&r->loops, 1, __ATOMIC_RELAXED);
		if (rc == -EFAULT)
			continue;
		CHECK_RC(rc, 0);
		kit_pattern(&want, at, sizeof(want), r->seed);
		if (v && v != want)
			kit_fail(__FILE__, __LINE__, "the device reads %#llx at %#llx",
				 (unsigned long long)v, (unsigned long long)(r->va + at));
	}
	return NULL;
}

/* runs @change @n times beside two device threads that read [va, va + len) */
static void beside_device(struct kit *k, uint64_t va, uint64_t len, uint64_t seed,
			  void (*change)(struct kit *k, uint64_t va, uint64_t len, uint64_t seed),
			  int n)
{
	struct running r = { .k = k, .va = va, .len = len, .seed = seed };
	pthread_t t[2];
	int i;

	t[0] = kit_thread(running_reader, &r);
	t[1] = kit_thread(running_reader, &r);
	for (i = 0; i < n; i++) {
		uint64_t before = __atomic_load_n(&r.loops, __ATOMIC_RELAXED);

		change(k, va, len, seed);
		/* some accesses between two changes, so that there is something to invalidate */
		while (__atomic_load_n(&r.loops, __ATOMIC_RELAXED) < before + 4)
			sched_yield();
	}
	__atomic_store_n(&r.stop, 1, __ATOMIC_RELEASE);
	kit_join(t[0]);
	kit_join(t[1]);
}

static void change_munmap(struct kit *k, uint64_t va, uint64_t len, uint64_t seed)
{
	CHECK_OK(k->mem->unmap(k, va + len / 4, len / 2));
	CHECK_OK(k->mem->map(k, va + len / 4, len / 2, KIT_RW));
	kit_fill_at(k, va + len / 4, len / 2, seed, len / 4);
	kit_migrate(k, va, len, k->dev);
}

static void munmap_running(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 10);

	beside_device(k, va, len, 10, change_munmap, 60);
	dev_verify(k->dev, va, len, 10);
	kit_verify(k, va, len, 10);
}

static void change_mremap(struct kit *k, uint64_t va, uint64_t len, uint64_t seed)
{
	uint64_t to = va + 4 * MIB;

	(void)seed;
	kit_migrate(k, va, len, k->dev);
	CHECK_OK(k->mem->remap(k, va, to, len));
	CHECK_OK(k->mem->remap(k, to, va, len));
}

static void mremap_running(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 11);

	kit_place(k, 4 * MIB);
	beside_device(k, va, len, 11, change_mremap, 60);
	dev_verify(k->dev, va, len, 11);
	kit_verify(k, va, len, 11);
}

static void change_mprotect(struct kit *k, uint64_t va, uint64_t len, uint64_t seed)
{
	(void)seed;
	kit_migrate(k, va, len, k->dev);
	CHECK_OK(k->mem->protect(k, va, len / 2, KIT_READ));
	CHECK_OK(k->mem->protect(k, va + len / 2, len / 2, 0));
	CHECK_OK(k->mem->protect(k, va, len, KIT_RW));
}

static void mprotect_running(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 12);

	beside_device(k, va, len, 12, change_mprotect, 60);
	dev_verify(k->dev, va, len, 12);
	kit_verify(k, va, len, 12);
}

static void change_dontneed(struct kit *k, uint64_t va, uint64_t len, uint64_t seed)
{
	kit_migrate(k, va, len, k->dev);
	CHECK_OK(k->mem->dontneed(k, va, len / 2));
	CHECK_EQ(cpu_read64(k, va), 0);
	kit_fill(k, va, len / 2, seed);
}

static void dontneed_running(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 13);

	beside_device(k, va, len, 13, change_dontneed, 60);
	dev_verify(k->dev, va, len, 13);
	kit_verify(k, va, len, 13);
}

const struct kit_case cases_vm[] = {
	{ "munmap-away", munmap_away, NULL, 0 },
	{ "munmap-away-copied", munmap_away, "host=0", 0 },
	{ "munmap-parts", munmap_parts, NULL, 0 },
	{ "munmap-while-device-runs", munmap_running, NULL, 0 },
	{ "mmap-over-away", mmap_over, NULL, 0 },
	{ "mremap-away", mremap_away, NULL, 0 },
	{ "mremap-away-copied", mremap_away, "host=0", 0 },
	{ "mremap-skewed", mremap_skewed, NULL, 0 },
	{ "mremap-one-page", mremap_one_page, NULL, 0 },
	{ "mremap-while-device-runs", mremap_running, NULL, 0 },
	{ "mprotect-while-device-runs", mprotect_running, NULL, 0 },
	{ "dontneed-away", dontneed_away, NULL, 0 },
	{ "dontneed-at-home", dontneed_home, NULL, 0 },
	{ "dontneed-again-and-again", dontneed_again, NULL, 0 },
	{ "dontneed-while-device-runs", dontneed_running, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
