/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The probe as a device at work: loads and stores through the shadow table, and the controls and
 * counters that cases use.
 */
#include "kit.h"
#include "probe_priv.h"

#include <time.h>

#define PAUSE_LIMIT_S 20

struct probe *probe_of(struct balun_device *dev)
{
	struct probe *p = balun_device_priv(dev, &probe_driver);

	CHECK(p != NULL);
	return p;
}

/* ---- accesses ---- */

static bool probe_in_use(const struct probe *p, uint64_t va, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < PROBE_USERS; i++)
		if (p->user[i] && p->user[i] >= va && p->user[i] - va < len)
			return true;
	return false;
}

void probe_wait_unused(struct probe *p, uint64_t va, uint64_t len)
{
	pthread_mutex_lock(&p->lock);
	while (probe_in_use(p, va, len))
		pthread_cond_wait(&p->cond, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

/* Lock held. The page is the caller's alone until probe_use_end(): a store is a read and a write */
static unsigned int probe_use_begin(struct probe *p, uint64_t page)
{
	unsigned int i;

	for (;;) {
		for (i = 0; i < PROBE_USERS && p->user[i]; i++)
			;
		if (i < PROBE_USERS && !probe_in_use(p, page, PAGE))
			break;
		pthread_cond_wait(&p->cond, &p->lock);
	}
	p->user[i] = page;
	return i;
}

/* Lock held. */
static void probe_use_end(struct probe *p, unsigned int i)
{
	p->user[i] = 0;
	pthread_cond_broadcast(&p->cond);
}

static int probe_move(struct probe *p, uint64_t dst, uint32_t dst_kind, uint64_t src,
		      uint32_t src_kind)
{
	struct balun_copy op = {
		.dst = dst, .src = src, .len = PAGE, .dst_kind = dst_kind, .src_kind = src_kind
	};
	uint64_t cookie;
	int rc = p->drv->copy(p->inner, &op, 1, &cookie);

	return rc ? rc : p->drv->copy_wait(p->inner, cookie);
}

/* load or store in one page of device memory, with nothing but the driver's copy */
static int probe_local(struct probe *p, uint64_t off, uint32_t in_page, void *buf, size_t len,
		       bool write)
{
	uint8_t *staging = balun_mem_alloc(PAGE);
	int rc;

	if (!staging)
		return -ENOMEM;
	rc = probe_move(p, (uintptr_t)staging, BALUN_KIND_SYSTEM, off, BALUN_KIND_LOCAL);
	if (!rc && !write)
		memcpy(buf, staging + in_page, len);
	if (!rc && write) {
		memcpy(staging + in_page, buf, len);
		rc = probe_move(p, off, BALUN_KIND_LOCAL, (uintptr_t)staging, BALUN_KIND_SYSTEM);
	}
	balun_mem_free(staging, PAGE);
	return rc;
}

/* one access inside one page: 0; 1: no translation that allows it; -errno of a copy */
static int probe_access(struct probe *p, uint64_t va, void *buf, size_t len, bool write)
{
	struct probe_entry e;
	unsigned int user;
	int rc;

	pthread_mutex_lock(&p->lock);
	e = table_get(&p->table, va);
	if (!e.valid || (write && !(e.perm & BALUN_PERM_WRITE))) {
		pthread_mutex_unlock(&p->lock);
		return 1;
	}
	if (e.kind != BALUN_KIND_LOCAL) {
		pthread_mutex_unlock(&p->lock);
		/* may have to wait for an unmap, so unmap does not wait for it */
		rc = write ? balun_bus_write(p->space, e.addr + va % PAGE, buf, len)
			   : balun_bus_read(p->space, e.addr + va % PAGE, buf, len);
		return rc ? 1 : 0;
	}
	user = probe_use_begin(p, va & ~(PAGE - 1));
	/* it may have waited: look again */
	e = table_get(&p->table, va);
	if (!e.valid || e.kind != BALUN_KIND_LOCAL || (write && !(e.perm & BALUN_PERM_WRITE))) {
		probe_use_end(p, user);
		pthread_mutex_unlock(&p->lock);
		return 1;
	}
	pthread_mutex_unlock(&p->lock);
	rc = probe_local(p, e.addr, va % PAGE, buf, len, write);
	pthread_mutex_lock(&p->lock);
	probe_use_end(p, user);
	pthread_mutex_unlock(&p->lock);
	return rc;
}

static int dev_access(struct balun_device *dev, uint64_t va, void *buf, size_t len, bool write)
{
	struct probe *p = probe_of(dev);

	while (len) {
		size_t part = PAGE - va % PAGE < len ? PAGE - va % PAGE : len;
		int rc = probe_access(p, va, buf, part, write);

		if (rc < 0)
			return rc;
		if (rc) {
			/* a replayed fault: the entry may be gone again before we look */
			rc = balun_fault(dev, balun_device_space(dev), va, part,
					 write ? BALUN_ACCESS_WRITE : BALUN_ACCESS_READ);
			if (rc && rc != -EBUSY)
				return rc;
			continue;
		}
		va += part;
		buf = (char *)buf + part;
		len -= part;
	}
	return 0;
}

int dev_read(struct balun_device *dev, uint64_t va, void *buf, size_t len)
{
	return dev_access(dev, va, buf, len, false);
}

int dev_write(struct balun_device *dev, uint64_t va, const void *buf, size_t len)
{
	return dev_access(dev, va, (void *)(uintptr_t)buf, len, true);
}

uint64_t dev_read64(struct balun_device *dev, uint64_t va)
{
	uint64_t v = 0;

	CHECK_OK(dev_read(dev, va, &v, sizeof(v)));
	return v;
}

void dev_write64(struct balun_device *dev, uint64_t va, uint64_t v)
{
	CHECK_OK(dev_write(dev, va, &v, sizeof(v)));
}

struct probe *probe_run_begin(struct balun_device *dev)
{
	struct probe *p = probe_of(dev);

	pthread_mutex_lock(&p->lock);
	p->running++;
	pthread_mutex_unlock(&p->lock);
	return p;
}

void probe_run_end(struct probe *p)
{
	pthread_mutex_lock(&p->lock);
	p->running--;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

/* ---- looking ---- */

struct probe_entry probe_lookup(struct probe *p, uint64_t va)
{
	struct probe_entry e;

	pthread_mutex_lock(&p->lock);
	e = table_get(&p->table, va);
	pthread_mutex_unlock(&p->lock);
	return e;
}

uint64_t probe_mapped(struct probe *p, uint64_t va, uint64_t len)
{
	uint64_t n;

	pthread_mutex_lock(&p->lock);
	n = table_count(&p->table, va, len);
	pthread_mutex_unlock(&p->lock);
	return n;
}

void probe_get_counts(struct probe *p, struct probe_counts *ret)
{
	pthread_mutex_lock(&p->lock);
	*ret = p->n;
	pthread_mutex_unlock(&p->lock);
}

/* ---- interference ---- */

void probe_fail(struct probe *p, enum probe_op op, uint64_t nth, uint64_t count, int err)
{
	pthread_mutex_lock(&p->lock);
	p->plan[op] = (struct probe_plan){ .nth = nth, .count = count, .err = err };
	pthread_mutex_unlock(&p->lock);
}

bool probe_failed(struct probe *p, enum probe_op op)
{
	bool came;

	pthread_mutex_lock(&p->lock);
	came = p->plan[op].came;
	pthread_mutex_unlock(&p->lock);
	return came;
}

void probe_pause(struct probe *p, uint64_t nth)
{
	pthread_mutex_lock(&p->lock);
	p->pause_nth = nth;
	pthread_mutex_unlock(&p->lock);
}

bool probe_paused(struct probe *p)
{
	struct timespec limit;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += PAUSE_LIMIT_S;
	pthread_mutex_lock(&p->lock);
	while (!p->pausing && !rc)
		rc = pthread_cond_timedwait(&p->cond, &p->lock, &limit);
	pthread_mutex_unlock(&p->lock);
	return !rc;
}

void probe_resume(struct probe *p)
{
	pthread_mutex_lock(&p->lock);
	p->pause_nth = 0;
	p->pausing = false;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
}
