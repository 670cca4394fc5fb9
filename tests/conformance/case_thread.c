/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Many threads at once. Bounded by counts, not by time: each thread does so many operations. Every
 * word has one writer, so that any value that a reader sees can be checked.
 */
#include "kit.h"

#define WORKERS 4
#define ROUNDS	300

struct worker {
	struct kit *k;
	struct balun_device *dev;
	uint64_t va, pages, index, seed;
	int *stop;
};

/* one word per page and worker; only ever grows */
static uint64_t slot(const struct worker *w, uint64_t page)
{
	return w->va + page * PAGE + 64 * w->index;
}

static void *cpu_worker(void *arg)
{
	struct worker *w = arg;
	uint64_t r = w->seed, i, p;

	for (i = 1; i <= ROUNDS; i++) {
		for (p = kit_random(&r) % 3; p < w->pages; p += 3)
			cpu_write64(w->k, slot(w, p), cpu_read64(w->k, slot(w, p)) + 1);
		if (i % 16)
			continue;
		p = kit_random(&r) % w->pages;
		CHECK(cpu_read64(w->k, slot(w, p)) <= i);
	}
	return NULL;
}

static void *dev_worker(void *arg)
{
	struct worker *w = arg;
	uint64_t r = w->seed, i, p;

	for (i = 1; i <= ROUNDS; i++) {
		p = kit_random(&r) % w->pages;
		dev_write64(w->dev, slot(w, p), dev_read64(w->dev, slot(w, p)) + 1);
	}
	return NULL;
}

/* moves parts of the range about until it is told to stop */
static void *migrate_worker(void *arg)
{
	struct worker *w = arg;
	uint64_t r = w->seed;

	while (!__atomic_load_n(w->stop, __ATOMIC_ACQUIRE)) {
		uint64_t from = kit_random(&r) % w->pages, n = 1 + kit_random(&r) % w->pages;

		if (from + n > w->pages)
			n = w->pages - from;
		kit_migrate(w->k, w->va + from * PAGE, n * PAGE,
			    kit_random(&r) % 2 ? w->dev : NULL);
	}
	return NULL;
}

static uint64_t sum_of(struct kit *k, const struct worker *w)
{
	uint64_t sum = 0, p;

	for (p = 0; p < w->pages; p++)
		sum += cpu_read64(k, slot(w, p));
	return sum;
}

static void devices_add(struct kit *k, uint64_t pages, struct balun_device *b)
{
	struct worker w[WORKERS + 2];
	pthread_t t[WORKERS + 2];
	uint64_t va = kit_map(k, pages * PAGE, KIT_RW), i;
	int stop = 0;

	for (i = 0; i < WORKERS + 2; i++) {
		w[i] = (struct worker){ .k = k,
					.dev = i & 1 ? b : k->dev,
					.va = va,
					.pages = pages,
					.index = i,
					.seed = k->seed + i + 1,
					.stop = &stop };
		t[i] = kit_thread(i < WORKERS ? dev_worker : migrate_worker, &w[i]);
	}
	for (i = 0; i < WORKERS; i++)
		kit_join(t[i]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	kit_join(t[WORKERS]);
	kit_join(t[WORKERS + 1]);
	for (i = 0; i < WORKERS; i++)
		CHECK_EQ(sum_of(k, &w[i]), ROUNDS);
}

static void device_threads(struct kit *k)
{
	devices_add(k, 32, k->dev);
}

static void two_devices(struct kit *k)
{
	devices_add(k, 32, kit_device(k, "host=0"));
}

/* CPUs and a device add to words of the same pages while these move to and fro */
static void touch_while_migrating(struct kit *k)
{
	struct worker w[WORKERS];
	pthread_t t[WORKERS];
	uint64_t pages = 24, va = kit_map(k, pages * PAGE, KIT_RW), i;
	int stop = 0;

	for (i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){ .k = k,
					.dev = k->dev,
					.va = va,
					.pages = pages,
					.index = i,
					.seed = k->seed + i + 1,
					.stop = &stop };
		t[i] = kit_thread(i < 2 ? cpu_worker : i == 2 ? dev_worker : migrate_worker, &w[i]);
	}
	for (i = 0; i < 3; i++)
		kit_join(t[i]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	kit_join(t[3]);
	for (i = 0; i < 2; i++)
		CHECK_EQ(sum_of(k, &w[i]), ROUNDS * pages / 3);
	CHECK_EQ(sum_of(k, &w[2]), ROUNDS);
}

/* several requests for the same pages at the same time; nobody else */
static void *racing_migrate(void *arg)
{
	struct worker *w = arg;
	uint64_t r = w->seed, i;

	for (i = 0; i < 100; i++)
		kit_migrate(w->k, w->va, w->pages * PAGE, kit_random(&r) % 2 ? w->dev : NULL);
	return NULL;
}

static void migrate_against_migrate(struct kit *k)
{
	uint64_t pages = 600, va = kit_filled(k, pages * PAGE, 1), i;
	struct balun_device *b = kit_device(k, NULL);
	struct worker w[WORKERS];
	pthread_t t[WORKERS];

	for (i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){ .k = k,
					.dev = i & 1 ? b : k->dev,
					.va = va,
					.pages = pages,
					.seed = k->seed + i + 1 };
		t[i] = kit_thread(racing_migrate, &w[i]);
	}
	for (i = 0; i < WORKERS; i++)
		kit_join(t[i]);
	kit_verify(k, va, pages * PAGE, 1);
}

static void *evict_worker(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(w->stop, __ATOMIC_ACQUIRE)) {
		int rc = balun_evict(w->dev, 4 * MIB, NULL);

		CHECK(rc == 0 || rc == -EBUSY);
	}
	return NULL;
}

/* a device too small for what its threads use, and evictions besides */
static void evict_while_used(struct kit *k)
{
	uint64_t pages = 4 * BALUN_BLOCK_PAGES, va = kit_map(k, pages * PAGE, KIT_RW), i;
	struct worker w[3];
	pthread_t t[3];
	int stop = 0;

	for (i = 0; i < 3; i++) {
		w[i] = (struct worker){ .k = k,
					.dev = k->dev,
					.va = va,
					.pages = pages,
					.index = i,
					.seed = k->seed + i + 1,
					.stop = &stop };
		t[i] = kit_thread(i < 2 ? dev_worker : evict_worker, &w[i]);
	}
	kit_join(t[0]);
	kit_join(t[1]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	kit_join(t[2]);
	CHECK_EQ(sum_of(k, &w[0]), ROUNDS);
	CHECK_EQ(sum_of(k, &w[1]), ROUNDS);
	CHECK(kit_mem_used(k->dev) <= kit_mem_total(k->dev));
}

static void *prefetch_worker(void *arg)
{
	struct worker *w = arg;
	uint64_t r = w->seed;

	while (!__atomic_load_n(w->stop, __ATOMIC_ACQUIRE)) {
		uint64_t from = kit_random(&r) % w->pages;
		int rc = balun_prefetch(w->k->space, (void *)(w->va + from * PAGE), PAGE,
					kit_random(&r) % 2 ? w->dev : NULL);

		CHECK(rc == 0 || rc == -EAGAIN);
		if (rc)
			CHECK_OK(balun_sync(w->k->space));
	}
	return NULL;
}

static void prefetch_while_used(struct kit *k)
{
	uint64_t pages = 64, va = kit_map(k, pages * PAGE, KIT_RW), i;
	struct worker w[3];
	pthread_t t[3];
	int stop = 0;

	for (i = 0; i < 3; i++) {
		w[i] = (struct worker){ .k = k,
					.dev = k->dev,
					.va = va,
					.pages = pages,
					.index = i,
					.seed = k->seed + i + 1,
					.stop = &stop };
		t[i] = kit_thread(i < 2 ? dev_worker : prefetch_worker, &w[i]);
	}
	kit_join(t[0]);
	kit_join(t[1]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	kit_join(t[2]);
	CHECK_EQ(sum_of(k, &w[0]), ROUNDS);
	CHECK_EQ(sum_of(k, &w[1]), ROUNDS);
}

/* devices come and go beside one that works */
static void *open_worker(void *arg)
{
	struct worker *w = arg;
	uint64_t len = 16 * PAGE, i;

	for (i = 0; i < 20; i++) {
		char spec[600];
		struct balun_device *d;

		snprintf(spec, sizeof(spec), "probe(%s):mem=2M", w->k->driver);
		CHECK_OK(balun_device_open(w->k->space, spec, &d));
		kit_migrate(w->k, w->va, len, d);
		CHECK_OK(balun_device_close(d));
	}
	return NULL;
}

static void open_while_used(struct kit *k)
{
	uint64_t pages = 32, va = kit_map(k, pages * PAGE, KIT_RW), i;
	struct worker w[3];
	pthread_t t[3];

	for (i = 0; i < 3; i++) {
		w[i] = (struct worker){ .k = k,
					.dev = k->dev,
					.va = va,
					.pages = pages,
					.index = i,
					.seed = k->seed + i + 1 };
		t[i] = kit_thread(i < 2 ? dev_worker : open_worker, &w[i]);
	}
	for (i = 0; i < 3; i++)
		kit_join(t[i]);
	CHECK_EQ(sum_of(k, &w[0]), ROUNDS);
	CHECK_EQ(sum_of(k, &w[1]), ROUNDS);
}

const struct kit_case cases_thread[] = {
	{ "threads-devices", device_threads, NULL, 0 },
	{ "threads-devices-copied", device_threads, "host=0", 0 },
	{ "threads-two-devices", two_devices, NULL, 0 },
	{ "threads-touch-while-migrating", touch_while_migrating, NULL, 0 },
	{ "threads-touch-while-migrating-copied", touch_while_migrating, "host=0", 0 },
	{ "threads-migrate-against-migrate", migrate_against_migrate, NULL, 0 },
	{ "threads-evict-while-used", evict_while_used, "mem=4M", 0 },
	{ "threads-prefetch-while-used", prefetch_while_used, NULL, 0 },
	{ "threads-open-while-used", open_while_used, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
