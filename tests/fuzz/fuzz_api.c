/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Calls of the public interface on the simulated process, in any order with any arguments, against
 * a flat copy of its memory. The input is a list of calls of 5 bytes. One thread: what threads add
 * is tests/sim's business.
 */
#include "balun/sim.h"
#include "balun/driver.h"
#include "env/env.h"

#define PAGES	  1536 /* three blocks */
#define BASE	  0x10000000ULL
#define DEVICES	  2
#define AT(page)  (BASE + ((uint64_t)(page) << BALUN_PAGE_SHIFT))
#define PTR(page) ((const void *)(uintptr_t)AT(page))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t word[PAGES]; /* the first 8 bytes of each page */
static uint8_t perm[PAGES];  /* BALUN_SIM_*, 0: not mapped */

static void check(struct balun_space *space, unsigned int i)
{
	uint64_t v = 0;
	int rc = balun_sim_load(space, AT(i), &v, sizeof(v));

	env_assert(rc == (perm[i] & BALUN_SIM_READ ? 0 : -EFAULT));
	env_assert(rc || v == word[i]);
}

static void store(struct balun_space *space, unsigned int i, uint64_t v)
{
	int rc = balun_sim_store(space, AT(i), &v, sizeof(v));

	env_assert(rc == (perm[i] & BALUN_SIM_WRITE ? 0 : -EFAULT));
	if (!rc)
		word[i] = v;
}

/* the calls that change mappings, and what they do to the copy */
static void change(struct balun_space *space, const uint8_t *d, unsigned int i, unsigned int n)
{
	static const uint8_t kinds[] = { BALUN_SIM_READ, BALUN_SIM_READ | BALUN_SIM_WRITE,
					 BALUN_SIM_READ | BALUN_SIM_WRITE | BALUN_SIM_SHARED };
	uint64_t len = (uint64_t)n << BALUN_PAGE_SHIFT;
	unsigned int j, flags = kinds[d[4] % 3];

	switch (d[0] % 4) {
	case 0:
		if (balun_sim_mmap(space, AT(i), len, flags))
			return;
		memset(&word[i], 0, n * sizeof(word[0]));
		memset(&perm[i], flags, n);
		return;
	case 1:
		if (balun_sim_munmap(space, AT(i), len))
			return;
		memset(&word[i], 0, n * sizeof(word[0]));
		memset(&perm[i], 0, n);
		return;
	case 2:
		flags &= ~BALUN_SIM_SHARED;
		for (j = i; j < i + n; j++)
			if (!perm[j] || perm[j] & BALUN_SIM_SHARED)
				return;
		if (balun_sim_mprotect(space, AT(i), len, flags) == 0)
			memset(&perm[i], flags, n);
		return;
	default:
		for (j = i; j < i + n; j++)
			if (!perm[j] || perm[j] & BALUN_SIM_SHARED)
				return;
		if (balun_sim_dontneed(space, AT(i), len) == 0)
			memset(&word[i], 0, n * sizeof(word[0]));
	}
}

static void request(struct balun_space *space, struct balun_device **dev, const uint8_t *d,
		    unsigned int i, unsigned int n)
{
	size_t len = (size_t)n << BALUN_PAGE_SHIFT, next;
	struct balun_device *to = d[4] % 3 ? dev[d[4] % 3 - 1] : NULL;
	struct balun_counts c;
	struct balun_extent ext[8];
	uint64_t at;

	switch (d[0] % 8) {
	case 0:
	case 1:
		if (balun_migrate(space, PTR(i), len, to, &c) == 0)
			env_assert(c.moved + c.already + c.empty + c.busy + c.pinned + c.unmovable +
					   c.nomem + c.failed ==
				   n);
		return;
	case 2:
		balun_fault(dev[d[4] & 1], space, AT(i), len, d[4] >> 1 & 1);
		return;
	case 3:
		balun_evict(dev[d[4] & 1], len, NULL);
		return;
	case 4:
		/* discard makes no promise about contents, so it has no place here */
		balun_advise(space, PTR(i), len, d[4] % BALUN_ADVISE_DISCARD, to);
		return;
	case 5:
		balun_prefetch(space, PTR(i), len, to);
		balun_sync(space);
		return;
	case 6:
		if (balun_pin(space, PTR(i), len) == 0)
			env_assert(balun_unpin(space, PTR(i), len) == 0);
		return;
	default:
		env_assert(balun_query(space, PTR(i), len, ext, 8, &next) == 0 && next);
		for (at = AT(i); next--; at += ext[0].len, memmove(ext, ext + 1, 7 * sizeof(*ext)))
			env_assert(ext[0].addr == at && ext[0].len);
		env_assert(at <= AT(i) + len);
	}
}

static void step(struct balun_space *space, struct balun_device **dev, const uint8_t *d)
{
	unsigned int i = (d[1] | d[2] << 8) % PAGES, n = 1 + d[3] * 2;

	n = ENV_MIN(n, PAGES - i);
	switch (d[0] >> 4 & 3) {
	case 0:
		change(space, d, i, n);
		break;
	case 1:
		store(space, i, d[3] << 8 | d[4]);
		break;
	default:
		request(space, dev, d, i, n);
		break;
	}
	check(space, i);
	check(space, i + n - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "sim" };
	struct balun_device *dev[DEVICES];
	struct balun_space *space;
	unsigned int i;

	memset(word, 0, sizeof(word));
	memset(perm, 0, sizeof(perm));
	env_assert(balun_space_create(&opts, &space) == 0);
	env_assert(balun_device_open(space, "ram:mem=2M", &dev[0]) == 0);
	env_assert(balun_device_open(space, "soft:mem=4M,workers=1", &dev[1]) == 0);
	for (; size >= 5 && size <= 2000; data += 5, size -= 5)
		step(space, dev, data);
	for (i = 0; i < PAGES; i++)
		check(space, i);
	env_assert(balun_device_close(dev[1]) == 0);
	for (i = 0; i < PAGES; i += 7)
		check(space, i);
	env_assert(balun_space_destroy(space) == 0);
	return 0;
}
