/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Helpers of cases: moving, asking where things are, threads.
 */
#include "kit.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

uint64_t kit_counts_sum(const struct balun_counts *c)
{
	return c->moved + c->already + c->empty + c->busy + c->pinned + c->unmovable + c->nomem +
	       c->failed;
}

static uint64_t range_pages(uint64_t va, uint64_t len)
{
	return ((va + len + PAGE - 1) & ~(PAGE - 1)) / PAGE - va / PAGE;
}

struct balun_counts kit_migrate_at(const char *file, int line, struct kit *k, uint64_t va,
				   uint64_t len, struct balun_device *dev)
{
	struct balun_counts c = { 0 };

	kit_check_rc(file, line, "balun_migrate()",
		     balun_migrate(k->space, (void *)va, len, dev, &c), 0);
	if (kit_counts_sum(&c) != range_pages(va, len))
		kit_fail(file, line, "the counts add up to %llu pages, not %llu",
			 (unsigned long long)kit_counts_sum(&c),
			 (unsigned long long)range_pages(va, len));
	return c;
}

void kit_move_at(const char *file, int line, struct kit *k, uint64_t va, uint64_t len,
		 struct balun_device *dev)
{
	struct balun_counts c = kit_migrate_at(file, line, k, va, len, dev);

	if (c.moved + c.already + (dev ? 0 : c.empty) == range_pages(va, len))
		return;
	if (c.unmovable == range_pages(va, len))
		kit_needs_private(k, dev);
	kit_fail(file, line,
		 "not all pages moved: moved %llu already %llu empty %llu busy %llu pinned %llu "
		 "unmovable %llu nomem %llu failed %llu",
		 (unsigned long long)c.moved, (unsigned long long)c.already,
		 (unsigned long long)c.empty, (unsigned long long)c.busy,
		 (unsigned long long)c.pinned, (unsigned long long)c.unmovable,
		 (unsigned long long)c.nomem, (unsigned long long)c.failed);
}

static struct balun_device_info kit_info(struct balun_device *dev)
{
	struct balun_device_info info = { .size = sizeof(info) };

	CHECK_OK(balun_device_info(dev, &info));
	return info;
}

unsigned int kit_id(struct balun_device *dev)
{
	return dev ? kit_info(dev).id : 0;
}

uint64_t kit_mem_used(struct balun_device *dev)
{
	return kit_info(dev).mem_used;
}

void kit_wait_used_at(const char *file, int line, struct balun_device *dev, uint64_t want)
{
	uint64_t limit = kit_now_ns() + 5000000000ULL;

	while (kit_mem_used(dev) != want) {
		if (kit_now_ns() > limit)
			kit_fail(file, line, "%llu bytes of device memory are in use, not %llu",
				 (unsigned long long)kit_mem_used(dev), (unsigned long long)want);
		sched_yield();
	}
}

uint64_t kit_mem_total(struct balun_device *dev)
{
	return kit_info(dev).mem_total;
}

struct balun_extent kit_query1(struct kit *k, uint64_t va)
{
	struct balun_extent e;
	size_t n;

	CHECK_OK(balun_query(k->space, (void *)va, PAGE, &e, 1, &n));
	CHECK_EQ(n, 1);
	return e;
}

uint64_t kit_resident(struct kit *k, uint64_t va, uint64_t len, struct balun_device *dev)
{
	uint64_t end = va + len, bytes = 0;
	unsigned int id = kit_id(dev);
	struct balun_extent e[16];
	size_t i, n;

	while (va < end) {
		CHECK_OK(balun_query(k->space, (void *)va, end - va, e, 16, &n));
		CHECK(n > 0);
		for (i = 0; i < n; i++)
			if (e[i].where == BALUN_WHERE_DEVICE && e[i].device == id)
				bytes += e[i].len;
		va = e[n - 1].addr + e[n - 1].len;
	}
	return bytes / PAGE;
}

struct balun_stats kit_stats(struct kit *k)
{
	struct balun_stats s = { .size = sizeof(s) };

	CHECK_OK(balun_stats(k->space, &s));
	return s;
}

uint64_t kit_sum(const uint64_t *by_cause)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < BALUN_NR_CAUSES; i++)
		sum += by_cause[i];
	return sum;
}

void kit_mirror_at(const char *file, int line, struct kit *k, struct balun_device *dev, uint64_t va,
		   uint64_t len)
{
	unsigned int id = kit_id(dev);
	uint64_t end = va + len;

	for (; va < end; va += PAGE) {
		struct probe_entry e = probe_lookup(dev, va);
		struct balun_extent x;
		bool here;

		if (!e.valid)
			continue;
		x = kit_query1(k, va);
		here = x.where == BALUN_WHERE_DEVICE && x.device == id;
		if (here != (e.kind == BALUN_KIND_LOCAL || e.kind == BALUN_KIND_COHERENT))
			kit_fail(file, line, "page %#llx is %s the device and mapped as if not so",
				 (unsigned long long)va, here ? "on" : "not on");
		if (e.perm & BALUN_PERM_WRITE && !(x.flags & BALUN_EXTENT_WRITE))
			kit_fail(file, line, "page %#llx is mapped writable and is not",
				 (unsigned long long)va);
	}
}

uint64_t kit_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* xorshift64* */
uint64_t kit_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

void kit_wait_asleep(long tid)
{
	char path[64], buf[256], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/stat", tid);
	for (;; sched_yield()) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			return;
		CHECK(fd >= 0);
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
		if (n < 0 && errno == ESRCH)
			return;
		CHECK(n > 0);
		buf[n] = 0;
		p = strrchr(buf, ')');
		if (p && p[1] == ' ' && p[2] != 'R')
			return;
	}
}

pthread_t kit_thread(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	CHECK_EQ(pthread_create(&t, NULL, fn, arg), 0);
	return t;
}

void kit_join(pthread_t t)
{
	CHECK_EQ(pthread_join(t, NULL), 0);
}

static void *mover_main(void *arg)
{
	struct kit_mover *m = arg;

	m->rc = balun_migrate(m->k->space, (void *)m->va, m->len, m->dev, &m->counts);
	return NULL;
}

void kit_mover_start(struct kit_mover *m, struct kit *k, uint64_t va, uint64_t len,
		     struct balun_device *dev)
{
	*m = (struct kit_mover){ .k = k, .va = va, .len = len, .dev = dev };
	m->t = kit_thread(mover_main, m);
}

void kit_mover_end(struct kit_mover *m)
{
	kit_join(m->t);
	CHECK(m->rc == 0 || m->rc == -EFAULT);
}
