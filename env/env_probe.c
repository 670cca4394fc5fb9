// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Probes that somebody listens to: USDT, whose nop is in these functions, and the ring that another
 * process reads (include/balun/live.h).
 *
 * Who writes to the ring claims the next place and fills it, with no lock; the place's number comes
 * last, so that the reader sees a whole event. What the reader writes is not trusted: a wrong
 * @tail costs events and nothing else.
 *
 * Nobody is in the ring when it ends: a writer counts itself in (@inside) and then looks whether
 * there is one; who ends it takes it away and then waits until none is in. A forked child has
 * neither the ring nor the writers.
 */
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "env/env_live.h"
#include "env/env_priv.h"

#ifdef BALUN_HAVE_SDT
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
#define SEMAPHORE __attribute__((section(".probes")))
#else
#define DTRACE_PROBE3(...) ((void)0)
#define DTRACE_PROBE5(...) ((void)0)
#define DTRACE_PROBE6(...) ((void)0)
#define SEMAPHORE
#endif

struct env_probe balun_fault_semaphore SEMAPHORE, balun_migrate_semaphore SEMAPHORE,
	balun_evict_semaphore SEMAPHORE, balun_invalidate_semaphore SEMAPHORE;

_Static_assert(sizeof(struct balun_trace_event) == 64, "an event is a cache line");
_Static_assert(offsetof(struct balun_trace_ring, head) == 64, "who writes");
_Static_assert(offsetof(struct balun_trace_ring, tail) == 128, "who reads");

static struct env_trace *trace; /* who has set it takes it away */
static unsigned int trace_gen;	/* fork generation of all this */
static uint32_t inside;

static void listen_set(uint16_t on)
{
	env_store_relaxed(&balun_fault_semaphore.ring, on);
	env_store_relaxed(&balun_migrate_semaphore.ring, on);
	env_store_relaxed(&balun_evict_semaphore.ring, on);
	env_store_relaxed(&balun_invalidate_semaphore.ring, on);
}

bool env_probe_ring_set(struct env_trace *t)
{
	struct env_trace *none = NULL;

	if (!__atomic_compare_exchange_n(&trace, &none, t, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return false;
	listen_set(1);
	return true;
}

void env_probe_ring_clear(void)
{
	listen_set(0); /* first: then the place is free for another one, which listens */
	__atomic_store_n(&trace, NULL, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&inside, __ATOMIC_SEQ_CST)) /* some instructions */
		env_yield();
}

void env_probe_ring_forget(void)
{
	if (env_load_relaxed(&trace_gen) == env_fork_gen())
		return;
	listen_set(0);
	env_store_relaxed(&trace_gen, env_fork_gen());
	__atomic_store_n(&trace, NULL, __ATOMIC_SEQ_CST);
	__atomic_store_n(&inside, 0, __ATOMIC_SEQ_CST); /* of the parent's threads */
}

static bool claim(const struct env_trace *t, struct balun_trace_ring *r, uint64_t *ret_n)
{
	uint64_t n = env_load_relaxed(&r->head);

	do {
		if (n - env_load(&r->tail) >= t->slots) {
			env_add(&r->dropped, 1);
			return false;
		}
	} while (!__atomic_compare_exchange_n(&r->head, &n, n + 1, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	*ret_n = n;
	return true;
}

static void put(const struct env_trace *t, const struct balun_trace_event *ev)
{
	struct balun_trace_ring *r = t->ring;
	struct balun_trace_event *e;
	uint64_t n;

	if (!claim(t, r, &n))
		return;
	e = (struct balun_trace_event *)((char *)r + BALUN_TRACE_DATA) + (n & (t->slots - 1));
	e->begun_ns = ev->begun_ns;
	e->ended_ns = env_now_ns();
	e->va = ev->va;
	e->len = ev->len;
	e->tid = syscall(SYS_gettid);
	e->err = ev->err;
	e->what = ev->what;
	e->cause = ev->cause;
	e->from = ev->from;
	e->to = ev->to;
	env_store(&e->seq, n + 1);
}

static void record(const struct balun_trace_event *ev)
{
	struct env_trace *t;

	if (!__atomic_load_n(&trace, __ATOMIC_SEQ_CST) ||
	    env_load_relaxed(&trace_gen) != env_fork_gen())
		return;
	__atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);
	t = __atomic_load_n(&trace, __ATOMIC_SEQ_CST);
	if (t)
		put(t, ev);
	__atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
}

void env_probe_fault(uint64_t va, uint64_t len, unsigned int by, unsigned int access, int err,
		     uint64_t begun_ns)
{
	const struct balun_trace_event e = {
		.begun_ns = begun_ns,
		.va = va,
		.len = len,
		.err = err,
		.what = BALUN_TRACE_FAULT,
		.cause = by ? BALUN_CAUSE_DEVICE_FAULT : BALUN_CAUSE_CPU_FAULT,
		.from = by,
		.to = access,
	};

	DTRACE_PROBE6(balun, fault, va, len, by, access, err, begun_ns);
	record(&e);
}

void env_probe_migrate(uint64_t va, uint64_t len, unsigned int cause, unsigned int from,
		       unsigned int to, uint64_t begun_ns)
{
	const struct balun_trace_event e = {
		.begun_ns = begun_ns,
		.va = va,
		.len = len,
		.what = BALUN_TRACE_MIGRATE,
		.cause = cause,
		.from = from,
		.to = to,
	};

	DTRACE_PROBE6(balun, migrate, va, len, cause, from, to, begun_ns);
	record(&e);
}

void env_probe_evict(uint64_t va, uint64_t len, unsigned int from, unsigned int to,
		     uint64_t begun_ns)
{
	const struct balun_trace_event e = {
		.begun_ns = begun_ns,
		.va = va,
		.len = len,
		.what = BALUN_TRACE_EVICT,
		.cause = BALUN_CAUSE_EVICTION,
		.from = from,
		.to = to,
	};

	DTRACE_PROBE5(balun, evict, va, len, from, to, begun_ns);
	record(&e);
}

void env_probe_invalidate(uint64_t va, uint64_t len, unsigned int cause)
{
	const struct balun_trace_event e = {
		.begun_ns = env_now_ns(),
		.va = va,
		.len = len,
		.what = BALUN_TRACE_INVALIDATE,
		.cause = cause,
	};

	DTRACE_PROBE3(balun, invalidate, va, len, cause);
	record(&e);
}
