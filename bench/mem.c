// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Memory, time and Balun calls that the benches share */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "bench/bench.h"

double bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

int bench_fail(struct bench_run *run, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(run->detail, sizeof(run->detail), fmt, ap);
	va_end(ap);
	return err;
}

int bench_begin(struct bench_run *run, const char *spec0, const char *spec1)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .engine = run->engine };
	const char *spec[BENCH_MAX_DEVICES] = { spec0, spec1 };
	int err, i;

	err = balun_space_create(&opts, &run->space);
	if (err)
		return bench_fail(run, err == -EPERM ? -EOPNOTSUPP : err, "%s", balun_reason());
	for (i = 0; i < BENCH_MAX_DEVICES && spec[i]; i++) {
		err = balun_device_open(run->space, spec[i], &run->dev[i]);
		if (err)
			return bench_fail(run, err, "%s", balun_reason());
	}
	return 0;
}

void bench_end(struct bench_run *run)
{
	balun_space_destroy(run->space);
	run->space = NULL;
	memset(run->dev, 0, sizeof(run->dev));
}

static int map(struct bench_run *run, size_t len, int advice, char **ret)
{
	char *p = mmap(NULL, len + 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);
	char *a;

	if (p == MAP_FAILED)
		return bench_fail(run, -ENOMEM, "no memory for %zu MiB", len / MIB);
	/* exactly [a, a + len): what is left over goes back */
	a = (char *)(((uintptr_t)p + 2 * MIB - 1) & ~(2 * MIB - 1));
	if (a > p)
		munmap(p, a - p);
	munmap(a + len, p + 2 * MIB - a);
	if (mprotect(a, len, PROT_READ | PROT_WRITE)) {
		munmap(a, len);
		return bench_fail(run, -ENOMEM, "no memory for %zu MiB", len / MIB);
	}
	madvise(a, len, advice);
	*ret = a;
	return 0;
}

int bench_map_empty(struct bench_run *run, size_t len, char **ret)
{
	return map(run, len, MADV_NOHUGEPAGE, ret);
}

int bench_map(struct bench_run *run, size_t len, bool huge, char **ret)
{
	int err = map(run, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE, ret);
	size_t i;

	if (err)
		return err;
	for (i = 0; i < len; i += BALUN_PAGE_SIZE)
		memset(*ret + i, 1 + (int)(i / BALUN_PAGE_SIZE % 255), 64);
	return 0;
}

void bench_drop(char *p, size_t len)
{
	if (p)
		madvise(p, len, MADV_DONTNEED);
}

void bench_unmap(char *p, size_t len)
{
	if (p)
		munmap(p, len);
}

int bench_migrate(struct bench_run *run, char *p, size_t len, struct balun_device *dev)
{
	struct balun_counts c;
	int err = balun_migrate(run->space, p, len, dev, &c);

	if (err)
		return bench_fail(run, err, "migrate: %s", balun_reason());
	if ((c.moved + c.already) * BALUN_PAGE_SIZE != len)
		return bench_fail(run, -EIO,
				  "%llu of %zu pages moved (busy %llu, unmovable %llu, no memory "
				  "%llu, failed %llu)",
				  (unsigned long long)(c.moved + c.already), len / BALUN_PAGE_SIZE,
				  (unsigned long long)c.busy, (unsigned long long)c.unmovable,
				  (unsigned long long)c.nomem, (unsigned long long)c.failed);
	return 0;
}

int bench_memcpy_setup(struct bench_run *run)
{
	int err = bench_map(run, 2 * MIB, true, &run->raw_mem);

	return err ? err : bench_map(run, 2 * MIB, true, &run->raw_to);
}

double bench_memcpy_ns(struct bench_run *run, unsigned int n)
{
	double t0;
	unsigned int i;

	memcpy(run->raw_to, run->raw_mem, 2 * MIB);
	t0 = bench_now_ns();
	for (i = 0; i < n; i++) {
		memcpy(run->raw_to, run->raw_mem, 2 * MIB);
		/* each copy counts: the compiler must not see that they are the same */
		__asm__ volatile("" : : "r"(run->raw_to) : "memory");
	}
	return (bench_now_ns() - t0) / n;
}

/* xorshift: the same places in every run of the program */
uint32_t bench_random(struct bench_run *run)
{
	uint32_t x = run->seed ? run->seed : 2463534242u;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return run->seed = x;
}
