/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Ends: of a device and of a space, idle or busy, healthy or broken. Nothing lost, bounded time. */
#include "kit.h"

#define CLOSE_LIMIT_NS 15000000000ULL

static void brings_home(struct kit *k)
{
	uint64_t len = 6 * MIB, va = kit_filled(k, len, 1);

	kit_move(k, va, len, k->dev);
	dev_fill(k->dev, va, len, 2);
	CHECK_OK(kit_close(k, k->dev));
	CHECK_EQ(kit_stats(k).to_system[BALUN_CAUSE_TEARDOWN], len);
	CHECK(kit_query1(k, va).where == BALUN_WHERE_SYSTEM);
	kit_verify(k, va, len, 2);
}

static void empty(struct kit *k)
{
	CHECK_OK(kit_close(k, k->dev));
}

/* pinned pages come home too: there is nowhere else for them */
static void pinned(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 3);

	kit_move(k, va, len, k->dev);
	CHECK_OK(balun_pin(k->space, (void *)va, len));
	CHECK_OK(kit_close(k, k->dev));
	kit_verify(k, va, len, 3);
	CHECK_OK(balun_unpin(k->space, (void *)va, len));
}

struct busy {
	struct kit *k;
	struct balun_device *dev;
	uint64_t va, pages, index, count;
	int closing; /* the device may refuse from now on */
};

/* the device adds to a counter in each page, until it is refused. Its run has begun already, for
 * the device may be closed before this thread comes to anything. */
static void *busy_device(void *arg)
{
	struct busy *b = arg;
	uint64_t i;

	for (i = 0;; i++) {
		uint64_t va = b->va + i % b->pages * PAGE + 64 * b->index, v;
		int rc = dev_read(b->dev, va, &v, sizeof(v));

		if (!rc) {
			v++;
			rc = dev_write(b->dev, va, &v, sizeof(v));
		}
		if (rc) {
			CHECK_RC(rc, -ENODEV);
			CHECK(__atomic_load_n(&b->closing, __ATOMIC_ACQUIRE));
			probe_run_end(b->dev);
			return NULL;
		}
		__atomic_fetch_add(&b->count, 1, __ATOMIC_RELAXED);
	}
}

/* waits until the device has done some work */
static void wait_count(struct busy *b, uint64_t n)
{
	while (__atomic_load_n(&b->count, __ATOMIC_RELAXED) < n)
		sched_yield();
}

/* what the threads counted is what memory says */
static void check_busy(struct kit *k, struct busy *b, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		uint64_t sum = 0, j;

		for (j = 0; j < b[i].pages; j++)
			sum += cpu_read64(k, b[i].va + j * PAGE + 64 * b[i].index);
		CHECK_EQ(sum, b[i].count);
	}
}

static void *closer(void *arg)
{
	struct kit *k = arg;
	uint64_t start = kit_now_ns();

	CHECK_OK(balun_device_close(k->dev));
	CHECK(kit_now_ns() - start < CLOSE_LIMIT_NS);
	return NULL;
}

static void forget_device(struct kit *k)
{
	unsigned int i;

	for (i = 0; i < KIT_MAX_DEVICES; i++)
		if (k->devices[i] == k->dev)
			k->devices[i] = NULL;
	k->dev = NULL;
	if (probe_last_breach())
		kit_fail(__FILE__, __LINE__, "core broke the driver contract: %s",
			 probe_last_breach());
}

struct mover {
	struct kit *k;
	uint64_t va, len, moves;
	int closing;
};

/* asks for migrations until the device is refused */
static void *busy_mover(void *arg)
{
	struct mover *m = arg;
	int rc;

	do {
		rc = balun_migrate(m->k->space, (void *)m->va, m->len, m->k->dev, NULL);
		if (!rc)
			rc = balun_migrate(m->k->space, (void *)m->va, m->len, NULL, NULL);
		__atomic_fetch_add(&m->moves, 1, __ATOMIC_RELAXED);
	} while (!rc && !__atomic_load_n(&m->closing, __ATOMIC_ACQUIRE));
	CHECK(rc == 0 || rc == -ENODEV);
	return NULL;
}

/* the CPU adds to a counter of its own in the same pages until the device is closed */
static void *busy_cpu(void *arg)
{
	struct busy *b = arg;
	uint64_t i;

	for (i = 0; !__atomic_load_n(&b->closing, __ATOMIC_ACQUIRE); i++) {
		uint64_t va = b->va + i % b->pages * PAGE + 64 * b->index;

		cpu_write64(b->k, va, cpu_read64(b->k, va) + 1);
		b->count++;
	}
	return NULL;
}

/* evicted, then closed, while the device and a CPU work: bounded, and every add is there */
static void while_busy(struct kit *k)
{
	uint64_t pages = 64, va = kit_map(k, pages * PAGE, KIT_RW), i, start;
	struct busy b[3];
	pthread_t t[3];

	for (i = 0; i < 3; i++) {
		b[i] = (struct busy){ .k = k, .dev = k->dev, .va = va, .pages = pages, .index = i };
		if (i < 2)
			probe_run_begin(k->dev);
		t[i] = kit_thread(i < 2 ? busy_device : busy_cpu, &b[i]);
	}
	for (i = 0; i < 20; i++) {
		int rc;

		wait_count(&b[0], 50 * i);
		rc = balun_evict(k->dev, UINT64_MAX, NULL);
		CHECK(rc == 0 || rc == -EBUSY);
	}
	for (i = 0; i < 2; i++)
		__atomic_store_n(&b[i].closing, 1, __ATOMIC_RELEASE);
	start = kit_now_ns();
	CHECK_OK(kit_close(k, k->dev));
	CHECK(kit_now_ns() - start < CLOSE_LIMIT_NS);
	__atomic_store_n(&b[2].closing, 1, __ATOMIC_RELEASE);
	for (i = 0; i < 3; i++)
		kit_join(t[i]);
	check_busy(k, b, 3);
}

/* a migration is in flight when the device is closed: the copy goes on after the close has begun */
static void while_copying(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 6);
	struct kit_mover m;
	pthread_t t;

	probe_pause(k->dev, 1);
	kit_mover_start(&m, k, va, len, k->dev);
	CHECK(probe_paused(k->dev));
	t = kit_thread(closer, k);
	while (balun_advise(k->space, (void *)va, len, BALUN_ADVISE_NONE, k->dev) != -ENODEV)
		sched_yield();
	probe_resume(k->dev);
	kit_mover_end(&m);
	kit_join(t);
	forget_device(k);
	kit_verify(k, va, len, 6);
}

/* migrations without end, and the device is closed under them */
static void while_moving(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, 2 * len, 7);
	struct mover m[2];
	pthread_t t[2];
	int i;

	for (i = 0; i < 2; i++) {
		m[i] = (struct mover){ .k = k, .va = va + i * len, .len = len };
		t[i] = kit_thread(busy_mover, &m[i]);
	}
	while (__atomic_load_n(&m[0].moves, __ATOMIC_RELAXED) < 5)
		sched_yield();
	for (i = 0; i < 2; i++)
		__atomic_store_n(&m[i].closing, 1, __ATOMIC_RELEASE);
	kit_join(t[0]);
	kit_join(t[1]);
	kit_move(k, va, 2 * len, k->dev);
	CHECK_OK(kit_close(k, k->dev));
	kit_verify(k, va, 2 * len, 7);
}

static void one_of_two(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, 2 * len, 8);
	struct balun_device *b = kit_device(k, NULL);

	kit_move(k, va, len, k->dev);
	kit_move(k, va + len, len, b);
	dev_verify(b, va, 2 * len, 8);
	CHECK_OK(kit_close(k, k->dev));
	CHECK_EQ(kit_resident(k, va + len, len, b), len / PAGE);
	dev_verify(b, va, 2 * len, 8);
	kit_mirror(k, b, va, 2 * len);
	kit_verify(k, va, 2 * len, 8);
}

/* a number of a closed device serves again; nothing of the old one shows through */
static void reopen(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 9);
	int i;

	for (i = 0; i < 40; i++) {
		struct balun_device *d = kit_device(k, "mem=2M");

		kit_move(k, va, len, d);
		dev_verify(d, va, len, 9);
		CHECK(kit_id(d) >= 1 && kit_id(d) <= BALUN_MAX_DEVICES);
		CHECK_OK(kit_close(k, d));
	}
	kit_verify(k, va, len, 9);
}

/* a device that gives nothing back: exactly what was only there is lost, as SIGBUS, and told */
static void broken(struct kit *k)
{
	uint64_t len = 32 * PAGE, va = kit_filled(k, 2 * len, 10), i, v;

	kit_move(k, va, len, k->dev);
	probe_fail(k->dev, PROBE_WAIT, 1, PROBE_FOREVER, -EIO);
	CHECK_RC(kit_close(k, k->dev), -EIO);
	CHECK_EQ(kit_stats(k).lost_pages, len / PAGE);
	for (i = 0; i < len / PAGE; i++)
		CHECK_RC(k->mem->load(k, va + i * PAGE, &v, sizeof(v)), -EHWPOISON);
	kit_verify_part(k, va, len, len, 10);
	/* what was lost can be replaced */
	CHECK_OK(k->mem->map(k, va, len, KIT_RW));
	kit_verify_zero(k, va, len);
	kit_fill(k, va, len, 11);
	kit_verify(k, va, len, 11);
}

/* one copy home fails and the next try does not: nothing is lost */
static void broken_once(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 12);
	uint64_t lost;
	int rc;

	kit_move(k, va, len, k->dev);
	probe_fail(k->dev, PROBE_WAIT, 1, 1, -EIO);
	rc = kit_close(k, k->dev);
	lost = kit_stats(k).lost_pages;
	CHECK_RC(rc, lost ? -EIO : 0);
	CHECK_EQ(lost, 0);
	kit_verify(k, va, len, 12);
}

static void space_with_devices(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, 2 * len, 13);
	struct balun_device *b = kit_device(k, NULL);

	if (!strcmp(k->engine, "sim"))
		kit_skip("memory of the sim engine ends with the space");
	kit_move(k, va, len, k->dev);
	kit_move(k, va + len, len, b);
	CHECK_OK(balun_space_destroy(k->space));
	k->space = NULL;
	kit_verify(k, va, 2 * len, 13);
	CHECK(!probe_last_breach());
}

/* a space can be made again after the end of one */
static void space_again(struct kit *k)
{
	uint64_t va;
	int i;

	for (i = 0; i < 10; i++) {
		CHECK_OK(kit_open_space(k));
		k->dev = kit_device(k, "mem=4M");
		va = kit_filled(k, MIB, i);
		kit_move(k, va, MIB, k->dev);
		dev_verify(k->dev, va, MIB, i);
		kit_verify(k, va, MIB, i);
		kit_move(k, va, MIB, k->dev);
		CHECK_OK(k->mem->unmap(k, va, MIB));
		k->nregions--;
		CHECK_OK(kit_close(k, k->dev));
		CHECK_OK(balun_space_destroy(k->space));
		k->space = NULL;
	}
}

const struct kit_case cases_close[] = {
	{ "close-brings-home", brings_home, NULL, 0 },
	{ "close-brings-home-copied", brings_home, "host=0", 0 },
	{ "close-empty", empty, NULL, 0 },
	{ "close-pinned", pinned, NULL, 0 },
	{ "close-while-busy", while_busy, NULL, 0 },
	{ "close-while-busy-copied", while_busy, "host=0", 0 },
	{ "close-while-copying", while_copying, "host=0", 0 },
	{ "close-while-moving", while_moving, NULL, 0 },
	{ "close-one-of-two", one_of_two, NULL, 0 },
	{ "close-reopen", reopen, NULL, 0 },
	{ "close-broken", broken, "host=0", 0 },
	{ "close-broken-once", broken_once, "host=0", 0 },
	{ "close-space-with-devices", space_with_devices, NULL, 0 },
	{ "close-space-again", space_again, NULL, KIT_NO_SPACE },
	{ NULL, NULL, NULL, 0 },
};
