// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Coherent device memory: pages stay mapped in the program while they are on the device. */
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kit.h"

static struct probe_entry entry(struct kit *k, uint64_t va)
{
	return probe_lookup(k->dev, va);
}

/* a CPU's touch moves nothing and faults nothing, and what it writes the device reads */
static void touch_stays(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 1), faults;

	kit_move(k, va, len, k->dev);
	faults = kit_stats(k).cpu_faults;
	kit_verify(k, va, len, 1);
	kit_fill(k, va, len, 2);
	CHECK_EQ(kit_resident(k, va, len, k->dev), len / PAGE);
	CHECK_EQ(kit_stats(k).cpu_faults, faults);
	dev_verify(k->dev, va, len, 2);
	CHECK_EQ(entry(k, va).kind, BALUN_KIND_COHERENT);
	kit_mirror(k, k->dev, va, len);
	dev_fill(k->dev, va, len, 3);
	kit_verify(k, va, len, 3);
	CHECK_EQ(kit_resident(k, va, len, k->dev), len / PAGE);
}

/* never-touched pages are zeros there as anywhere */
static void zeros(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 4);

	kit_move(k, va, len, k->dev);
	CHECK_OK(k->mem->unmap(k, va, len));
	CHECK_OK(k->mem->map(k, va, len, KIT_RW));
	kit_wait_used(k->dev, 0);
	kit_move(k, va, len, k->dev);
	kit_verify_zero(k, va, len);
	cpu_write64(k, va + 5 * PAGE, 5);
	CHECK_EQ(dev_read64(k->dev, va + 5 * PAGE), 5);
	CHECK_EQ(dev_read64(k->dev, va + 6 * PAGE), 0);
	CHECK_EQ(kit_resident(k, va, len, k->dev), len / PAGE);
}

static void round_trips(struct kit *k)
{
	uint64_t len = 2 * MIB + 5 * PAGE, va = kit_filled(k, len, 5), i;

	for (i = 0; i < 20; i++) {
		kit_move(k, va, len, i & 1 ? NULL : k->dev);
		kit_verify(k, va, len, 5 + i);
		kit_fill(k, va, len, 6 + i);
	}
	kit_move(k, va, len, NULL);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	CHECK_EQ(probe_mapped(k->dev, va, len), 0);
}

/* an atomic access takes the page from the CPUs; the first touch ends that */
static void atomic_holds(struct kit *k)
{
	uint64_t len = 4 * PAGE, va = kit_filled(k, len, 7), i;

	kit_needs_private(k, NULL);
	kit_move(k, va, 2 * PAGE, k->dev);
	for (i = 0; i < 10; i++) {
		uint64_t at = va + i % 4 * PAGE;
		struct probe_entry e;

		CHECK_OK(balun_fault(k->dev, k->space, at, PAGE, BALUN_ACCESS_ATOMIC));
		e = entry(k, at);
		CHECK(e.valid && e.perm & BALUN_PERM_ATOMIC);
		CHECK_EQ(e.kind, BALUN_KIND_LOCAL);
		dev_write64(k->dev, at, 100 + i);
		CHECK_EQ(cpu_read64(k, at), 100 + i);
		e = entry(k, at);
		CHECK(!e.valid || !(e.perm & BALUN_PERM_ATOMIC));
		cpu_write64(k, at, 200 + i);
		CHECK_EQ(dev_read64(k->dev, at), 200 + i);
	}
	kit_verify_part(k, va, 8, PAGE - 8, 7);
}

/* a page held for atomics goes home, and is unmapped, like any other */
static void held_goes_home(struct kit *k)
{
	uint64_t len = 8 * PAGE, va = kit_filled(k, len, 8);

	kit_needs_private(k, NULL);
	CHECK_OK(balun_fault(k->dev, k->space, va, len, BALUN_ACCESS_ATOMIC));
	CHECK_EQ(kit_resident(k, va, len, k->dev), 8);
	kit_move(k, va, 4 * PAGE, NULL);
	kit_verify(k, va, 4 * PAGE, 8);
	CHECK_OK(k->mem->unmap(k, va + 4 * PAGE, 2 * PAGE));
	CHECK_OK(kit_close(k, k->dev));
	k->dev = NULL;
	kit_verify_part(k, va, 6 * PAGE, 2 * PAGE, 8);
}

/* another device uses it where it is */
static void two_devices(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 9);
	struct balun_device *b = kit_device(k, "coherent=1");

	kit_move(k, va, len, k->dev);
	dev_verify(b, va, len, 9);
	dev_fill(b, va, len, 10);
	dev_verify(k->dev, va, len, 10);
	kit_verify(k, va, len, 10);
	kit_move(k, va, len, b);
	dev_verify(k->dev, va, len, 10);
	kit_move(k, va, len / 2, k->dev);
	kit_mirror(k, k->dev, va, len);
	kit_mirror(k, b, va, len);
	kit_verify(k, va, len, 10);
}

static void to_private(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 11);
	struct balun_device *b = kit_device(k, NULL);
	int i;

	for (i = 0; i < 4; i++) {
		kit_move(k, va, len, i & 1 ? k->dev : b);
		dev_verify(i & 1 ? k->dev : b, va, len, 11 + i);
		dev_fill(i & 1 ? k->dev : b, va, len, 12 + i);
	}
	kit_verify(k, va, len, 15);
}

/* munmap, remap, protection and discard of mapped device pages */
static void memory_calls(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 12), to = kit_place(k, MIB);
	uint64_t buf = 0;

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 12);
	CHECK_OK(k->mem->unmap(k, va + MIB, MIB));
	CHECK_RC(dev_read(k->dev, va + MIB, &buf, sizeof(buf)), -EFAULT);
	CHECK_OK(k->mem->dontneed(k, va + 2 * MIB, MIB));
	kit_verify_zero(k, va + 2 * MIB, MIB);
	CHECK_OK(k->mem->remap(k, va + 3 * MIB, to, MIB));
	CHECK_EQ(kit_resident(k, to, MIB, k->dev), MIB / PAGE);
	kit_verify_at(__FILE__, __LINE__, k, to, MIB, 12, 3 * MIB);
	dev_verify_at(__FILE__, __LINE__, k->dev, to, MIB, 12, 3 * MIB);
	CHECK_OK(k->mem->protect(k, va, MIB, KIT_READ));
	CHECK_OK(balun_fence(k->space));
	CHECK_RC(dev_write(k->dev, va, &buf, sizeof(buf)), -EPERM);
	kit_verify(k, va, MIB, 12);
	CHECK_OK(k->mem->protect(k, va, MIB, KIT_RW));
	kit_move(k, va, MIB, NULL);
	kit_verify(k, va, MIB, 12);
	CHECK_OK(k->mem->unmap(k, to, MIB));
}

/* a copy that fails leaves the page mapped where it is, with its content */
static void failing(struct kit *k)
{
	uint64_t len = 32 * PAGE, va = kit_filled(k, len, 13), n;
	struct balun_counts c;
	int home;

	for (home = 0; home < 2; home++) {
		for (n = 1; n < 200; n++) {
			kit_move(k, va, len, home ? k->dev : NULL);
			probe_fail(k->dev, PROBE_WAIT, n, 1, -EIO);
			c = kit_migrate(k, va, len, home ? NULL : k->dev);
			if (!probe_failed(k->dev, PROBE_WAIT))
				break;
			CHECK(c.failed > 0);
			CHECK_EQ(kit_resident(k, va, len, k->dev), home ? c.failed : c.moved);
			kit_verify(k, va, len, 13);
			CHECK_EQ(kit_resident(k, va, len, k->dev), home ? c.failed : c.moved);
			dev_verify(k->dev, va, len, 13);
		}
		probe_fail(k->dev, PROBE_WAIT, 0, 0, 0);
		CHECK(n > 1 && n < 200);
	}
	CHECK_EQ(kit_stats(k).lost_pages, 0);
}

/* more than fits: what has to leave goes home, and all is right */
static void full(struct kit *k)
{
	uint64_t len = 8 * MIB, va = kit_filled(k, len, 14), at;

	for (at = 0; at < len; at += MIB)
		kit_migrate(k, va + at, MIB, k->dev);
	CHECK(kit_mem_used(k->dev) <= 4 * MIB);
	CHECK(kit_resident(k, va, len, k->dev) > 0);
	kit_verify(k, va, len, 14);
	dev_verify(k->dev, va, len, 14);
}

/* unregistering evicts everything */
static void close_evicts(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 15);

	kit_move(k, va, len, k->dev);
	kit_fill(k, va, len / 2, 16);
	CHECK_OK(kit_close(k, k->dev));
	k->dev = NULL;
	kit_verify(k, va, len / 2, 16);
	kit_verify_part(k, va, len / 2, len / 2, 15);
	CHECK_EQ(kit_query1(k, va).where, BALUN_WHERE_SYSTEM);
}

/* somebody else has a page for as long as they like: it stays, or comes home when they let go. The
 * end of its device waits for them for a while, and then ends */
static void close_held(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 21), page[PAGE / 8];
	struct iovec iov = { .iov_base = (void *)(va + 3 * PAGE), .iov_len = PAGE };
	int pipes[2];

	kit_move(k, va, len, k->dev);
	CHECK(!pipe(pipes));
	CHECK_EQ(vmsplice(pipes[1], &iov, 1, 0), PAGE);
	CHECK_OK(kit_close(k, k->dev));
	k->dev = NULL;
	kit_verify(k, va, len, 21);
	cpu_write64(k, va + 3 * PAGE, 22);
	CHECK_EQ(read(pipes[0], page, PAGE), PAGE);
	close(pipes[0]);
	close(pipes[1]);
	CHECK_EQ(cpu_read64(k, va + 3 * PAGE), 22);
}

static void forked(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 17);
	struct kit_child *c;

	kit_needs_private(k, NULL);
	kit_move(k, va, len, k->dev);
	CHECK_OK(balun_fault(k->dev, k->space, va, PAGE, BALUN_ACCESS_ATOMIC));
	CHECK_OK(k->mem->fork(k, &c));
	kit_fill(k, va, len, 18);
	child_verify(k, c, va, len, 17);
	k->mem->child_exit(c);
	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 18);
	kit_verify(k, va, len, 18);
}

static void *toucher(void *arg)
{
	struct kit *k = arg;
	uint64_t va = k->region[0].va, i;

	for (i = 1; i <= 20000; i++)
		cpu_write64(k, va + i % 64 * PAGE + 8, i);
	return NULL;
}

/* a CPU writes all the time while the pages go to and fro */
static void touched_while_moving(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 19), i;
	pthread_t t = kit_thread(toucher, k);

	for (i = 0; i < 100; i++)
		kit_migrate(k, va, len, i & 1 ? NULL : k->dev);
	kit_join(t);
	for (i = 20000 - 63; i <= 20000; i++)
		CHECK_EQ(cpu_read64(k, va + i % 64 * PAGE + 8), i);
	kit_move(k, va, len, k->dev);
	for (i = 20000 - 63; i <= 20000; i++)
		CHECK_EQ(dev_read64(k->dev, va + i % 64 * PAGE + 8), i);
}

const struct kit_case cases_coherent[] = {
	{ "coherent-touch-stays", touch_stays, "coherent=1", KIT_COHERENT },
	{ "coherent-zeros", zeros, "coherent=1", KIT_COHERENT },
	{ "coherent-round-trips", round_trips, "coherent=1", KIT_COHERENT },
	{ "coherent-atomic-holds", atomic_holds, "coherent=1", KIT_COHERENT },
	{ "coherent-held-goes-home", held_goes_home, "coherent=1", KIT_COHERENT },
	{ "coherent-two-devices", two_devices, "coherent=1", KIT_COHERENT },
	{ "coherent-to-private", to_private, "coherent=1", KIT_COHERENT },
	{ "coherent-memory-calls", memory_calls, "coherent=1", KIT_COHERENT },
	{ "coherent-failing-copies", failing, "coherent=1", KIT_COHERENT },
	{ "coherent-full", full, "coherent=1,mem=4M", KIT_COHERENT },
	{ "coherent-close-evicts", close_evicts, "coherent=1", KIT_COHERENT },
	{ "coherent-close-held", close_held, "coherent=1", KIT_COHERENT | KIT_PROCESS },
	{ "coherent-fork", forked, "coherent=1", KIT_COHERENT | KIT_FORK },
	{ "coherent-touched-while-moving", touched_while_moving, "coherent=1", KIT_COHERENT },
	{ NULL, NULL, NULL, 0 },
};
