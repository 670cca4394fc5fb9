/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft_access.c - the soft accelerator's data path: TLB misses, the fault queue, traps
 *
 * An access that misses the TLB asks the MMU; a hole puts an entry into the device's fault queue
 * and the worker sleeps until the batch with it was served, then replays the access. A fault that
 * fails ends the function on that worker: a trap unwinds its stack to where it was called.
 */
#include "drivers/soft_dev.h"

#define BUS_RETRY_NS 1000000000ULL

enum {
	OP_LOAD,
	OP_STORE,
	OP_ADD,
	OP_CAS
};

/* ---- the fault queue ---- */

/* by space and page, the strongest access of a page first */
static bool fault_before(const struct soft_fault *a, const struct soft_fault *b)
{
	if (a->ss != b->ss)
		return a->ss < b->ss;
	if (a->va != b->va)
		return a->va < b->va;
	return a->access > b->access;
}

static void fault_sort(struct soft_fault *f, unsigned int n)
{
	unsigned int i, j;

	for (i = 1; i < n; i++) {
		struct soft_fault t = f[i];

		for (j = i; j && fault_before(&t, &f[j - 1]); j--)
			f[j] = f[j - 1];
		f[j] = t;
	}
}

/*
 * How many entries from @f on are one call: the same page again, or the next one of the block with
 * the same access (a writer must not make its neighbour's page writable).
 */
static unsigned int fault_group(const struct soft_fault *f, unsigned int n, uint64_t *ret_len)
{
	uint64_t last = f->va;
	unsigned int i;

	for (i = 1; i < n && f[i].ss == f->ss; i++) {
		if (f[i].va == last)
			continue;
		if (f[i].va != last + BALUN_PAGE_SIZE || f[i].access != f->access ||
		    !(f[i].va & (BALUN_BLOCK_SIZE - 1)))
			break;
		last = f[i].va;
	}
	*ret_len = last + BALUN_PAGE_SIZE - f->va;
	return i;
}

static int fault_serve_one(struct soft *s, const struct soft_fault *f, uint64_t len)
{
	/* the command lives while its worker waits */
	if (env_load_relaxed(&f->t->cmd->cancelled))
		return -ENODEV;
	return balun_fault(s->dev, f->ss->space, f->va, len, f->access);
}

static void fault_serve(struct soft *s, struct soft_fault *f, unsigned int n)
{
	unsigned int i, group;
	uint64_t len;
	int err;

	fault_sort(f, n);
	for (; n; f += group, n -= group) {
		group = fault_group(f, n, &len);
		err = fault_serve_one(s, f, len);
		for (i = 0; i < group; i++) {
			/* an error need not be everyone's: ask again for each one's own page and
			 * access */
			f[i].err =
				err && group > 1 ? fault_serve_one(s, &f[i], BALUN_PAGE_SIZE) : err;
		}
	}
}

void balun_soft_fault_main(void *arg)
{
	struct soft *s = arg;
	unsigned int i, n;

	env_mutex_lock(&s->lock);
	while (!s->fault_stop) {
		n = s->nqueued;
		if (!n) {
			env_cond_wait(&s->faulted, &s->lock, ENV_FOREVER);
			continue;
		}
		memcpy(s->batch, s->queue, n * sizeof(s->queue[0]));
		s->nqueued = 0;
		env_mutex_unlock(&s->lock);

		fault_serve(s, s->batch, n);

		env_mutex_lock(&s->lock);
		for (i = 0; i < n; i++) {
			s->batch[i].t->fault_err = s->batch[i].err;
			s->batch[i].t->waiting = false;
		}
		env_cond_wake(&s->replay);
	}
	env_mutex_unlock(&s->lock);
}

/* the worker sleeps until its fault is served. Return: what balun_fault() said */
static int fault_wait(struct soft_thread *t, uint64_t va, uint32_t access)
{
	struct soft *s = t->s;
	int err;

	env_mutex_lock(&s->lock);
	s->queue[s->nqueued++] = (struct soft_fault){
		.ss = t->cmd->ss,
		.va = va & ~(BALUN_PAGE_SIZE - 1),
		.access = access,
		.t = t,
	};
	t->waiting = true;
	env_cond_wake(&s->faulted);
	while (t->waiting)
		env_cond_wait(&s->replay, &s->lock, ENV_FOREVER);
	err = t->fault_err;
	env_mutex_unlock(&s->lock);
	return err;
}

/* ---- an access ---- */

static uint64_t rmw_apply(uint64_t old, const uint64_t *buf, unsigned int op)
{
	if (op == OP_ADD)
		return old + buf[0];
	return old == buf[0] ? buf[1] : old;
}

static uint64_t operand(const void *buf, unsigned int i, unsigned int len)
{
	return len == 4 ? ((const uint32_t *)buf)[i] : ((const uint64_t *)buf)[i];
}

static void rmw_host(void *p, void *buf, unsigned int len, unsigned int op)
{
	uint64_t *b8 = buf;
	uint32_t *b4 = buf;

	if (len == 8 && op == OP_ADD)
		*b8 = __atomic_fetch_add((uint64_t *)p, *b8, __ATOMIC_SEQ_CST);
	else if (len == 8)
		__atomic_compare_exchange_n((uint64_t *)p, b8, b8[1], false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
	else if (op == OP_ADD)
		*b4 = __atomic_fetch_add((uint32_t *)p, *b4, __ATOMIC_SEQ_CST);
	else
		__atomic_compare_exchange_n((uint32_t *)p, b4, b4[1], false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
}

/* through the TLB, inside one page. Return: whether it was done */
static bool access_cached(struct soft_worker *w, uint64_t va, void *buf, unsigned int len,
			  unsigned int op)
{
	struct soft_tlb *t = soft_begin_(w, va, op != OP_LOAD);
	bool hit = soft_match_(&t->tag, va, len);
	void *p = (void *)(t->delta + (uintptr_t)va);

	if (hit && op == OP_LOAD)
		soft_get_(buf, p, len);
	else if (hit && op == OP_STORE)
		soft_put_(p, buf, len);
	else if (hit)
		rmw_host(p, buf, len, op);
	soft_end_(w);
	return hit;
}

/* system memory. Atomics: the caller holds the rmw lock */
static int access_bus(struct balun_space *space, uint64_t addr, void *buf, unsigned int len,
		      unsigned int op)
{
	uint64_t arg[2], old = 0, new;
	int err;

	if (op == OP_LOAD)
		return balun_bus_read(space, addr, buf, len);
	if (op == OP_STORE)
		return balun_bus_write(space, addr, buf, len);
	err = balun_bus_read(space, addr, &old, len);
	if (err)
		return err;
	arg[0] = operand(buf, 0, len);
	arg[1] = op == OP_CAS ? operand(buf, 1, len) : 0;
	old = operand(&old, 0, len);
	new = rmw_apply(old, arg, op);
	err = balun_bus_write(space, addr, &new, len);
	if (!err)
		memcpy(buf, &old, len);
	return err;
}

#define ACCESS_HOLE 1

/*
 * After so many accesses in place the fault is taken again: whoever decided that the page stays may
 * have other reasons by now (NVIDIA UVM's access counters have the same threshold).
 */
#define BUS_ACCESSES 256

/* Return: 0; ACCESS_HOLE: a fault must be served first; -errno of the bus */
static int access_try(struct soft_thread *t, uint64_t va, void *buf, unsigned int len,
		      unsigned int op)
{
	struct soft_space *ss = t->cmd->ss;
	uint64_t addr;

	/* a flush between fill and access costs another round, and only then */
	while (!access_cached(&t->unit.w, va, buf, len, op)) {
		switch (balun_soft_mmu_fill(&t->s->mmu, &ss->pt, &t->unit, va, op != OP_LOAD,
					    &addr)) {
		case SOFT_CACHED:
			break;
		case SOFT_BUS:
			if (++t->bus_accesses % BUS_ACCESSES == 0)
				return ACCESS_HOLE;
			return access_bus(ss->space, addr, buf, len, op);
		case SOFT_HOLE:
			return ACCESS_HOLE;
		}
	}
	return 0;
}

/*
 * Atomics take a lock by address, cached or not: the page may become device memory between the read
 * and the write of another worker's atomic on the bus. Never held across a fault or a trap.
 */
static int access_try_rmw(struct soft_thread *t, uint64_t va, void *buf, unsigned int len,
			  unsigned int op)
{
	struct env_mutex *lock = &t->s->rmw[va / 8 % SOFT_RMW_LOCKS];
	int err;

	env_mutex_lock(lock);
	err = access_try(t, va, buf, len, op);
	env_mutex_unlock(lock);
	return err;
}

/* end the function on this worker; the first error of a command is the fence's */
static void __attribute__((noreturn, __noinline__))
trap(struct soft_thread *t, uint64_t va, int err)
{
	struct soft_cmd *cmd = t->cmd;

	env_mutex_lock(&t->s->lock);
	if (!cmd->err) {
		cmd->err = err;
		cmd->err_va = va;
	}
	env_mutex_unlock(&t->s->lock);
	env_jump(t->trap);
}
ENV_JUMPS(trap);

/*
 * An access inside one page. A fault that says -EBUSY is replayed without a bound, on purpose: a
 * page that others move at this moment is like a cache line that other CPUs fight for, and the
 * function has no other way to go on. Each replay is a whole round of the fault queue, not a spin;
 * closing the device cancels the command and so ends it.
 */
static void __attribute__((__noinline__))
access_page(struct soft_thread *t, uint64_t va, void *buf, unsigned int len, unsigned int op)
{
	uint32_t access = op == OP_LOAD	   ? BALUN_ACCESS_READ
			  : op == OP_STORE ? BALUN_ACCESS_WRITE
					   : BALUN_ACCESS_ATOMIC;
	uint64_t deadline = 0;
	int err;

	if (va >= SOFT_VA_LIMIT)
		trap(t, va, -EFAULT); /* no map() could help */
	for (;;) {
		if (env_load_relaxed(&t->cmd->cancelled))
			trap(t, va, -ENODEV);
		err = op < OP_ADD ? access_try(t, va, buf, len, op)
				  : access_try_rmw(t, va, buf, len, op);
		if (!err)
			return;
		if (err < 0) {
			/* The entry was right when read: the program has changed the mapping since,
			 * and the fault says how. If it finds nothing wrong for long, the bus is.
			 */
			if (!deadline)
				deadline = env_now_ns() + BUS_RETRY_NS;
			else if (env_now_ns() > deadline)
				trap(t, va, err);
		}
		err = fault_wait(t, va, access);
		if (err == -EOPNOTSUPP && access == BALUN_ACCESS_ATOMIC)
			access = BALUN_ACCESS_WRITE; /* cannot migrate: atomic on the bus */
		else if (err && err != -EBUSY)
			trap(t, va, err);
	}
}
ENV_JUMPS(access_page);

void balun_soft_access(struct soft_worker *w, uint64_t va, void *buf, unsigned int len,
		       unsigned int op)
{
	struct soft_thread *t = env_container_of(w, struct soft_thread, unit.w);
	unsigned int n;

	if (op > OP_CAS || (op >= OP_ADD && ((len != 4 && len != 8) || va % len)))
		trap(t, va, -EINVAL);
	for (; len; len -= n, va += n, buf = (char *)buf + n) {
		n = ENV_MIN(len, BALUN_PAGE_SIZE - (va & (BALUN_PAGE_SIZE - 1)));
		access_page(t, va, buf, n, op);
	}
}
ENV_JUMPS(balun_soft_access);
