/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Loss: a device dies, because its driver says so or because its copies fail for good. It costs
 * exactly the pages that only it had, as SIGBUS and listed by address; everything else goes on.
 */
#include "kit.h"

#include <sched.h>

#define LOSS_EXT   64
#define LOSS_PAGES 1024

/* is the page in the list of what is lost? */
static bool listed(struct kit *k, uint64_t page)
{
	struct balun_extent e[LOSS_EXT];
	const void *from = NULL;
	size_t n, i;

	do {
		CHECK_OK(balun_lost(k->space, from, e, LOSS_EXT, &n));
		for (i = 0; i < n; i++) {
			CHECK(e[i].len && e[i].where == BALUN_WHERE_LOST);
			CHECK(!i || e[i].addr >= e[i - 1].addr + e[i - 1].len);
			if (page >= e[i].addr && page - e[i].addr < e[i].len)
				return true;
		}
		from = n ? (const void *)(e[n - 1].addr + e[n - 1].len) : NULL;
	} while (n == LOSS_EXT);
	return false;
}

/* a touch is SIGBUS at once, and is counted a moment later by the thread that served it */
static void wait_lost(struct kit *k, uint64_t want)
{
	uint64_t end = kit_now_ns() + 5000000000ULL;

	while (kit_stats(k).lost_pages != want && kit_now_ns() < end)
		sched_yield();
	CHECK_EQ(kit_stats(k).lost_pages, want);
}

/* sets lost[i] for each page of the range that is in the list */
static void list_pages(struct kit *k, uint64_t va, uint64_t len, bool *lost)
{
	struct balun_extent e[LOSS_EXT];
	const void *from = (const void *)va;
	size_t n, i;
	uint64_t at;

	do {
		CHECK_OK(balun_lost(k->space, from, e, LOSS_EXT, &n));
		for (i = 0; i < n && e[i].addr < va + len; i++)
			for (at = e[i].addr; at < e[i].addr + e[i].len && at < va + len; at += PAGE)
				lost[(at - va) / PAGE] = true;
		from = n ? (const void *)(e[n - 1].addr + e[n - 1].len) : NULL;
	} while (n == LOSS_EXT && i == n);
}

/*
 * Each page is right, or lost: SIGBUS, in the list, and query() says so. Returns how many are lost.
 * @at: of the first page in the pattern
 */
static uint64_t count_from(struct kit *k, uint64_t va, uint64_t at, uint64_t len, uint64_t seed)
{
	bool lost[LOSS_PAGES] = { false }, listed[LOSS_PAGES] = { false };
	uint64_t i, n = 0;

	CHECK(len / PAGE <= LOSS_PAGES);
	for (i = 0; i < len / PAGE; i++) {
		char got[PAGE], want[PAGE];
		int rc = k->mem->load(k, va + at + i * PAGE, got, PAGE);

		CHECK(rc == 0 || rc == -EHWPOISON);
		kit_pattern(want, at + i * PAGE, PAGE, seed);
		CHECK(rc || !memcmp(got, want, PAGE));
		lost[i] = rc;
		n += lost[i];
	}
	list_pages(k, va + at, len, listed);
	for (i = 0; i < len / PAGE; i++) {
		bool where = kit_query1(k, va + at + i * PAGE).where == BALUN_WHERE_LOST;

		CHECK_EQ(listed[i], lost[i]);
		CHECK_EQ(where, lost[i]);
	}
	return n;
}

static uint64_t count_lost(struct kit *k, uint64_t va, uint64_t len, uint64_t seed)
{
	return count_from(k, va, 0, len, seed);
}

static void check_all_lost(struct kit *k, uint64_t va, uint64_t at, uint64_t len, uint64_t seed)
{
	CHECK_EQ(count_from(k, va, at, len, seed), len / PAGE);
}

/* nothing is asked of a device that said it is dead, and its memory is not read */
static void said(struct kit *k)
{
	uint64_t len = 600 * PAGE, half = 300 * PAGE, va = kit_filled(k, len, 1), v;
	struct balun_extent e[2];
	struct probe_counts before, after;
	size_t n;

	CHECK_OK(balun_lost(k->space, NULL, e, 2, &n));
	CHECK_EQ(n, 0);
	kit_move(k, va, half, k->dev);
	probe_get_counts(k->dev, &before);
	probe_lose(k->dev);
	probe_lose(k->dev); /* more than once is once */
	CHECK_EQ(kit_query1(k, va).where, BALUN_WHERE_LOST);
	CHECK_RC(balun_migrate(k->space, (void *)va, len, k->dev, NULL), -ENODEV);
	CHECK_RC(balun_evict(k->dev, UINT64_MAX, NULL), -ENODEV);
	CHECK_RC(dev_read(k->dev, va + half, &v, sizeof(v)), -ENODEV);
	CHECK_RC(k->mem->load(k, va + 5 * PAGE, &v, sizeof(v)), -EHWPOISON);
	CHECK_RC(k->mem->store(k, va + 6 * PAGE, &v, sizeof(v)), -EHWPOISON);
	CHECK_OK(balun_lost(k->space, NULL, e, 2, &n));
	CHECK_EQ(n, 1);
	CHECK_EQ(e[0].addr, va);
	CHECK_EQ(e[0].len, half);
	CHECK_OK(balun_lost(k->space, (void *)(va + 7 * PAGE), e, 2, &n));
	CHECK_EQ(e[0].addr, va + 7 * PAGE);
	CHECK_OK(balun_lost(k->space, (void *)(va + half), e, 2, &n));
	CHECK_EQ(n, 0);
	check_all_lost(k, va, 0, half, 1);
	kit_verify_part(k, va, half, len - half, 1);
	wait_lost(k, half / PAGE);
	/* in the kernel a lost page is what stands for it, until the program lets go of it */
	CHECK_EQ(kit_mem_used(k->dev), k->kernel ? half : 0);
	probe_get_counts(k->dev, &after);
	CHECK_EQ(after.copies, before.copies);
	CHECK_RC(kit_close(k, k->dev), -EIO);
	CHECK_EQ(kit_stats(k).lost_pages, half / PAGE);
	check_all_lost(k, va, 0, half, 1);
}

/* nobody touches anything: closing finds what is lost */
static void said_closed(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len + 4 * PAGE, 2);

	kit_move(k, va, len, k->dev);
	probe_lose(k->dev);
	CHECK_RC(kit_close(k, k->dev), -EIO);
	CHECK_EQ(kit_stats(k).lost_pages, len / PAGE);
	CHECK_EQ(count_lost(k, va, len + 4 * PAGE, 2), len / PAGE);
}

/* a device that holds nothing costs nothing */
static void said_empty(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 3);
	struct balun_device *b;

	kit_move(k, va, len, k->dev);
	kit_move(k, va, len, NULL);
	probe_lose(k->dev);
	CHECK_OK(kit_close(k, k->dev));
	CHECK_EQ(count_lost(k, va, len, 3), 0);
	/* the next one in its slot is not lost */
	b = kit_device(k, NULL);
	kit_move(k, va, len, b);
	dev_verify(b, va, len, 3);
	kit_verify(k, va, len, 3);
}

/* the other device goes on, also with what it takes from the one that is lost: nothing */
static void two_devices(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, 3 * len, 4);
	struct balun_device *b = kit_device(k, NULL);
	struct balun_counts c;

	kit_move(k, va, len, k->dev);
	kit_move(k, va + len, len, b);
	probe_lose(k->dev);
	c = kit_migrate(k, va, 3 * len, b);
	CHECK_EQ(c.moved, len / PAGE);
	CHECK_EQ(c.already, len / PAGE);
	CHECK_EQ(c.failed + c.unmovable, len / PAGE);
	dev_verify_part(b, va, len, 2 * len, 4);
	CHECK_EQ(count_lost(k, va, 3 * len, 4), len / PAGE);
	kit_move(k, va + len, 2 * len, b);
	CHECK_RC(kit_close(k, k->dev), -EIO);
	dev_verify_part(b, va, len, 2 * len, 4);
	CHECK_OK(kit_close(k, b));
	CHECK_EQ(count_lost(k, va, 3 * len, 4), len / PAGE);
}

/* what was lost is fresh memory once the program has let go of it, wherever it has moved it to */
static void given_back(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, 4 * len, 5), to = kit_place(k, len), v = 0;

	if (kit_no_poison(k))
		kit_skip("before Linux 6.6 what is lost stays so until it is unmapped");
	kit_move(k, va, 4 * len, k->dev);
	probe_lose(k->dev);
	CHECK_RC(k->mem->load(k, va, &v, sizeof(v)), -EHWPOISON);
	CHECK_OK(k->mem->dontneed(k, va, len));
	kit_verify_zero(k, va, len);
	CHECK(!listed(k, va));
	CHECK_OK(k->mem->map(k, va + len, len, KIT_RW));
	kit_verify_zero(k, va + len, len);
	CHECK(!listed(k, va + len));
	CHECK_OK(k->mem->remap(k, va + 2 * len, to, len));
	CHECK_RC(k->mem->load(k, va + 2 * len, &v, sizeof(v)), -EFAULT);
	CHECK_RC(k->mem->load(k, to + 3 * PAGE, &v, sizeof(v)), -EHWPOISON);
	CHECK(listed(k, to + 3 * PAGE) && !listed(k, va + 2 * len + 3 * PAGE));
	CHECK_EQ(kit_query1(k, to).where, BALUN_WHERE_LOST);
	CHECK_OK(k->mem->unmap(k, to, 8 * PAGE));
	CHECK(!listed(k, to) && listed(k, to + 8 * PAGE));
	CHECK_OK(k->mem->unmap(k, to + 8 * PAGE, 8 * PAGE));
	CHECK_OK(k->mem->unmap(k, va + 3 * len, len));
	CHECK_OK(k->mem->map(k, va + 2 * len, 2 * len, KIT_RW));
	CHECK(!listed(k, va + 3 * len));
	kit_verify_zero(k, va, 4 * len);
	kit_fill(k, va, 4 * len, 6);
	kit_verify(k, va, 4 * len, 6);
	CHECK_RC(kit_close(k, k->dev), kit_stats(k).lost_pages ? -EIO : 0);
	kit_verify(k, va, 4 * len, 6);
}

/* another device finds lost memory as a CPU does, and nothing moves it */
static void other_device(struct kit *k)
{
	uint64_t len = 8 * PAGE, va = kit_filled(k, 2 * len, 7), v;
	struct balun_device *b = kit_device(k, NULL);

	kit_move(k, va, len, k->dev);
	probe_lose(k->dev);
	check_all_lost(k, va, 0, len, 7);
	CHECK_RC(dev_read(b, va, &v, sizeof(v)), -EFAULT);
	CHECK_RC(dev_write(b, va + PAGE, &v, sizeof(v)), -EFAULT);
	CHECK_EQ(kit_migrate(k, va, 2 * len, b).unmovable, len / PAGE);
	dev_verify_part(b, va, len, len, 7);
	check_all_lost(k, va, 0, len, 7);
	CHECK_RC(kit_close(k, k->dev), -EIO);
}

/* it dies while pages are on their way to it: they stay where they were */
static void towards(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 8);
	struct kit_mover m;

	probe_pause(k->dev, 1);
	kit_mover_start(&m, k, va, len, k->dev);
	CHECK(probe_paused(k->dev));
	probe_lose(k->dev);
	probe_resume(k->dev);
	kit_mover_end(&m);
	CHECK_EQ(m.counts.failed, len / PAGE);
	CHECK_EQ(count_lost(k, va, len, 8), 0);
	CHECK_OK(kit_close(k, k->dev));
}

/* a copy home that was under way is believed */
static void homewards(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, 2 * len, 9);
	struct kit_mover m;

	kit_move(k, va, 2 * len, k->dev);
	probe_pause(k->dev, 1);
	kit_mover_start(&m, k, va, len, NULL);
	CHECK(probe_paused(k->dev));
	probe_lose(k->dev);
	probe_resume(k->dev);
	kit_mover_end(&m);
	CHECK_EQ(m.counts.moved, len / PAGE);
	kit_verify(k, va, len, 9);
	check_all_lost(k, va, len, len, 9);
	CHECK_RC(kit_close(k, k->dev), -EIO);
}

/* the child has what the parent has, and lost is what the parent lost */
static void forked(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 10), vb = kit_filled(k, len, 10), v;
	struct kit_child *c;

	kit_move(k, va, len, k->dev);
	probe_lose(k->dev);
	CHECK_OK(k->mem->fork(k, &c));
	CHECK_RC(k->mem->child_load(c, va, &v, sizeof(v)), -EHWPOISON);
	CHECK_RC(k->mem->child_load(c, va + len - 8, &v, sizeof(v)), -EHWPOISON);
	child_verify(k, c, vb, len, 10);
	k->mem->child_exit(c);
	CHECK_EQ(count_lost(k, va, len, 10), len / PAGE);
	kit_verify(k, vb, len, 10);
	CHECK_RC(kit_close(k, k->dev), -EIO);
}

struct worker {
	struct kit *k;
	struct balun_device *dev;
	uint64_t va;
	bool stop;
};

/* reads what it can, moves what it may */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t r = w->va, v;

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		uint64_t at = kit_random(&r) % 512 * PAGE;
		int rc = w->k->mem->load(w->k, w->va + at, &v, sizeof(v));

		CHECK(rc == 0 || rc == -EHWPOISON);
		rc = balun_migrate(w->k->space, (void *)(w->va + at), PAGE, w->dev, NULL);
		CHECK(rc == 0 || rc == -ENODEV);
	}
	return NULL;
}

/* CPUs, migrations and the device are all busy when it dies */
static void while_busy(struct kit *k)
{
	uint64_t va = kit_filled(k, 2 * MIB, 11), r = k->seed, v, lost;
	struct worker w[2] = { { .k = k, .dev = k->dev, .va = va },
			       { .k = k, .dev = k->dev, .va = va } };
	pthread_t t[2] = { kit_thread(work, &w[0]), kit_thread(work, &w[1]) };
	int i, rc = 0;

	for (i = 0; i < 2000; i++) {
		rc = dev_read(k->dev, va + kit_random(&r) % 512 * PAGE, &v, sizeof(v));
		if (i < 300)
			CHECK(rc == 0 || rc == -EBUSY);
		if (i == 300)
			probe_lose(k->dev);
	}
	for (i = 0; i < 2; i++) {
		__atomic_store_n(&w[i].stop, true, __ATOMIC_RELEASE);
		kit_join(t[i]);
	}
	lost = count_lost(k, va, 2 * MIB, 11);
	wait_lost(k, lost);
	CHECK_RC(kit_close(k, k->dev), lost ? -EIO : 0);
	CHECK_EQ(count_lost(k, va, 2 * MIB, 11), lost);
}

/* copies fail for good but nobody says why: what is touched is lost, and no more than that */
static void silent(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 12), v;

	kit_move(k, va, len, k->dev);
	probe_fail(k->dev, PROBE_WAIT, 1, PROBE_FOREVER, -EIO);
	CHECK_RC(k->mem->load(k, va + 7 * PAGE, &v, sizeof(v)), -EHWPOISON);
	CHECK_RC(k->mem->load(k, va + 9 * PAGE, &v, sizeof(v)), -EHWPOISON);
	probe_fail(k->dev, PROBE_WAIT, 0, 0, 0);
	CHECK_EQ(count_lost(k, va, len, 12), 2);
	CHECK(listed(k, va + 7 * PAGE) && listed(k, va + 9 * PAGE));
	wait_lost(k, 2);
	CHECK_RC(kit_close(k, k->dev), -EIO);
}

/* the driver says so from inside an op, on the thread that serves a CPU's fault */
static void in_op(struct kit *k)
{
	static const char *const spec[] = {
		"inject(ram:mem=16M):nomove=1,op=copy,nth=2,lost=1",
		"inject(ram:mem=16M):nomove=1,op=copy_wait,nth=2,lost=1",
		"inject(ram:mem=16M):nomove=1,op=unmap,nth=2,lost=1",
		"inject(soft:mem=16M):nomove=1,op=map,nth=1,lost=1",
	};
	uint64_t len = 64 * PAGE, va = kit_filled(k, 2 * len, 13), lost, v;
	unsigned int i;

	for (i = 0; i < sizeof(spec) / sizeof(spec[0]); i++) {
		struct balun_device *d;
		uint64_t before = kit_stats(k).lost_pages;

		CHECK_OK(balun_fence(k->space)); /* no unmap is due from before */
		CHECK_OK(balun_device_open(k->space, spec[i], &d));
		kit_fill(k, va, 2 * len, 13);
		kit_move(k, va, len, d);
		if (i == 3)
			CHECK_RC(balun_fault(d, k->space, va, PAGE, BALUN_ACCESS_READ), -EIO);
		CHECK_RC(k->mem->load(k, va, &v, sizeof(v)), -EHWPOISON);
		lost = count_lost(k, va, 2 * len, 13);
		CHECK_EQ(lost, len / PAGE);
		wait_lost(k, before + lost);
		CHECK_RC(balun_device_close(d), -EIO);
		CHECK_OK(k->mem->map(k, va, len, KIT_RW));
	}
}

const struct kit_case cases_loss[] = {
	{ "loss-said", said, NULL, 0 },
	{ "loss-said-copied", said, "host=0", 0 },
	{ "loss-said-closed", said_closed, NULL, 0 },
	{ "loss-said-empty", said_empty, NULL, 0 },
	{ "loss-two-devices", two_devices, NULL, 0 },
	{ "loss-two-devices-copied", two_devices, "host=0", 0 },
	{ "loss-given-back", given_back, NULL, 0 },
	{ "loss-given-back-copied", given_back, "host=0", 0 },
	{ "loss-other-device", other_device, NULL, 0 },
	{ "loss-towards", towards, "host=0", 0 },
	{ "loss-homewards", homewards, "host=0", 0 },
	{ "loss-forked", forked, NULL, KIT_FORK },
	{ "loss-while-busy", while_busy, NULL, 0 },
	{ "loss-while-busy-copied", while_busy, "host=0", 0 },
	{ "loss-silent", silent, "host=0", 0 },
	{ "loss-in-op", in_op, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
