/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A core of one page of C around the soft driver, so that the driver is tested alone: a program of
 * PAGES pages at VA, each of which is nowhere, in system memory (sys[]) or on the device at the
 * offset of its number; one block lock; a fault that maps or moves by the page's rule.
 */
#ifndef BALUN_TESTS_SOFT_FAKE_H
#define BALUN_TESTS_SOFT_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "balun/driver.h"
#include "balun/soft.h"
#include "drivers/soft_dev.h"
#include "env/env.h"

#define VA    0x712340000000ULL
#define PAGES 2048
#define PG    BALUN_PAGE_SIZE
#define MEM   (PAGES * PG) /* 8 MiB: four blocks */

extern const struct balun_driver balun_soft_driver;
#define DRV (&balun_soft_driver)

struct balun_space {
	void *data;
};

struct balun_device {
	struct balun_space *space;
	void *priv;
	char *mem; /* the private memory: a test may look */
};

struct fake_call {
	uint64_t va, len;
	uint32_t access;
};

/* where a fault puts a page */
enum rule {
	TO_DEVICE,
	IN_PLACE,
	IN_PLACE_NO_ATOMIC,
	READ_ONLY,
	NO_ACCESS,
	MAPPED_BY_TEST
};

static struct fake {
	struct env_mutex block; /* the block lock of core */
	struct env_cond gate_cond;
	bool gate; /* faults wait */
	struct balun_space space;
	struct balun_device dev;
	bool local[PAGES];
	enum rule rule[PAGES];
	int bus_error, bus_errors; /* what and how often the bus fails */
	int fault_result;	   /* instead of serving */
	struct fake_call call[512];
	unsigned int ncalls, fences;
	uint64_t mem, workers; /* options of the next open */
	int mem_fail;	       /* the n-th balun_mem_alloc() from now fails */
	bool elsewhere;	       /* the device is reached by commands only */
	unsigned int commands;
} fake;

static char fake_sys[MEM] __attribute__((aligned(4096)));

/* ---- what core does; the block lock is held ---- */

static inline void fake_map(unsigned int page, unsigned int n, uint32_t kind, uint64_t addr,
			    uint32_t perm)
{
	struct balun_seg seg = {
		.va = VA + page * PG, .len = n * PG, .kind = kind, .addr = addr, .perm = perm
	};

	assert_int_equal(DRV->map(fake.dev.priv, &fake.space, &seg, 1), 0);
}

static inline void fake_unmap(unsigned int page, unsigned int n)
{
	DRV->unmap(fake.dev.priv, &fake.space, VA + page * PG, n * PG, BALUN_CAUSE_INVALIDATE);
}

static inline void fake_home(unsigned int page)
{
	fake_unmap(page, 1);
	if (fake.local[page])
		memcpy(fake_sys + page * PG, fake.dev.mem + page * PG, PG);
	fake.local[page] = false;
}

static inline void fake_to_device(unsigned int page)
{
	fake_unmap(page, 1);
	if (!fake.local[page])
		memcpy(fake.dev.mem + page * PG, fake_sys + page * PG, PG);
	fake.local[page] = true;
	fake_map(page, 1, BALUN_KIND_LOCAL, page * PG, BALUN_PERM_READ | BALUN_PERM_WRITE);
}

static inline int fake_serve(unsigned int page, uint32_t access)
{
	uint64_t addr = (uintptr_t)fake_sys + page * PG;

	switch (fake.rule[page]) {
	case TO_DEVICE:
		fake_to_device(page);
		return 0;
	case IN_PLACE_NO_ATOMIC:
		if (access == BALUN_ACCESS_ATOMIC)
			return -EOPNOTSUPP;
		/* fall through */
	case IN_PLACE:
		fake_map(page, 1, BALUN_KIND_SYSTEM, addr, BALUN_PERM_READ | BALUN_PERM_WRITE);
		return 0;
	case READ_ONLY:
		if (access != BALUN_ACCESS_READ)
			return -EPERM;
		fake_map(page, 1, BALUN_KIND_SYSTEM, addr, BALUN_PERM_READ);
		return 0;
	case MAPPED_BY_TEST: /* and by now it is: the test holds the block lock meanwhile */
		return 0;
	default:
		return -EFAULT;
	}
}

/* ---- core, as the driver sees it ---- */

int balun_fault(struct balun_device *dev, struct balun_space *space, uint64_t va, uint64_t len,
		uint32_t access)
{
	uint64_t page, end = va + len;
	int err = 0;

	assert_ptr_equal(dev, &fake.dev);
	assert_ptr_equal(space, &fake.space);
	env_mutex_lock(&fake.block);
	if (fake.ncalls < sizeof(fake.call) / sizeof(fake.call[0]))
		fake.call[fake.ncalls] = (struct fake_call){ va, len, access };
	fake.ncalls++;
	while (fake.gate)
		env_cond_wait(&fake.gate_cond, &fake.block, ENV_FOREVER);
	if (fake.fault_result)
		err = fake.fault_result;
	for (; !err && va < end; va += PG) {
		page = (va - VA) / PG;
		err = va < VA || page >= PAGES ? -EFAULT : fake_serve(page, access);
	}
	env_mutex_unlock(&fake.block);
	return err;
}

int balun_fence(struct balun_space *space)
{
	(void)space;
	fake.fences++;
	return 0;
}

static inline int fake_bus(uint64_t addr, void *buf, size_t len, bool write)
{
	uint64_t off = addr - (uintptr_t)fake_sys;
	int err = 0;

	assert_true(off + len <= MEM);
	env_mutex_lock(&fake.block);
	if (fake.bus_errors) {
		fake.bus_errors--;
		err = fake.bus_error;
	} else {
		/* the CPU's side of the page: it comes home first */
		if (fake.local[off / PG])
			fake_home(off / PG);
		memcpy(write ? fake_sys + off : buf, write ? buf : fake_sys + off, len);
	}
	env_mutex_unlock(&fake.block);
	return err;
}

int balun_bus_read(struct balun_space *space, uint64_t addr, void *buf, size_t len)
{
	(void)space;
	return fake_bus(addr, buf, len, false);
}

int balun_bus_write(struct balun_space *space, uint64_t addr, const void *buf, size_t len)
{
	(void)space;
	return fake_bus(addr, (void *)(uintptr_t)buf, len, true);
}

void *balun_bus_ptr(uint64_t addr, size_t len)
{
	(void)len;
	return (void *)(uintptr_t)addr;
}

void *balun_mem_alloc(size_t bytes)
{
	if (fake.mem_fail && !--fake.mem_fail)
		return NULL;
	return env_pages_alloc(bytes);
}

void balun_mem_free(void *p, size_t bytes)
{
	env_pages_free(p, bytes);
}

void balun_space_set_data(struct balun_space *space, struct balun_device *dev, void *p)
{
	(void)dev;
	space->data = p;
}

void *balun_space_data(struct balun_space *space, struct balun_device *dev)
{
	(void)dev;
	return space->data;
}

void *balun_device_priv(struct balun_device *dev, const struct balun_driver *drv)
{
	return drv == DRV && !fake.elsewhere ? dev->priv : NULL;
}

int balun_device_command(struct balun_device *dev, const struct balun_command *c)
{
	env_add(&fake.commands, 1); /* who waits asks on a thread of its own */
	if (!dev->priv || strcmp(c->driver, "soft"))
		return -EINVAL;
	return DRV->command(dev->priv, dev->space, c);
}

struct balun_space *balun_device_space(struct balun_device *dev)
{
	return dev->space;
}

int balun_opt_size(const struct balun_options *opt, const char *key, uint64_t dflt, uint64_t *ret_v)
{
	(void)opt, (void)dflt;
	*ret_v = !strcmp(key, "mem") ? fake.mem : fake.workers;
	return 0;
}

int balun_opt_fail(const struct balun_options *opt, const char *key, const char *why)
{
	(void)opt, (void)key, (void)why;
	return -EINVAL;
}

/* ---- set-up ---- */

static inline int fake_open(struct balun_device *dev, struct balun_space *space)
{
	struct balun_desc desc = { 0 };
	uint64_t addr = 0;
	int err = DRV->open(dev, NULL, &desc, &dev->priv);

	if (err)
		return err;
	assert_int_equal(desc.mem_bytes, fake.mem);
	dev->space = space;
	assert_int_equal(DRV->peer_addr(dev->priv, dev, 0, fake.mem, &addr), 0);
	dev->mem = (char *)(uintptr_t)addr;
	return 0;
}

static inline void fake_begin(unsigned int workers)
{
	unsigned int i;

	memset(&fake, 0, sizeof(fake));
	env_mutex_init(&fake.block);
	env_cond_init(&fake.gate_cond);
	fake.mem = MEM;
	fake.workers = workers;
	for (i = 0; i < MEM; i++)
		fake_sys[i] = (char)(i * 2654435761u >> 24);
	assert_int_equal(fake_open(&fake.dev, &fake.space), 0);
	assert_int_equal(DRV->active(fake.dev.priv, true), 0);
	assert_int_equal(DRV->attach(fake.dev.priv, &fake.space), 0);
}

static inline void fake_end(void)
{
	DRV->gone(fake.dev.priv, &fake.space);
	assert_int_equal(DRV->active(fake.dev.priv, false), 0);
	DRV->close(fake.dev.priv);
	env_cond_destroy(&fake.gate_cond);
	env_mutex_destroy(&fake.block);
}

static inline int fake_run(soft_fn fn, uint64_t arg, unsigned int n, uint64_t *ret_va)
{
	uint64_t fence = 0;

	assert_int_equal(balun_soft_launch(&fake.dev, fn, arg, n, &fence), 0);
	return balun_soft_wait(&fake.dev, fence, ret_va);
}

static inline void fake_gate(bool shut)
{
	env_mutex_lock(&fake.block);
	fake.gate = shut;
	env_cond_wake(&fake.gate_cond);
	env_mutex_unlock(&fake.block);
}

static inline uint64_t fake_rand(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

#endif
