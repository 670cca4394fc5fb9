/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: env.h - what core/ and portable drivers may call
 *
 * Need: memory that is never mirrored, mutexes, conditions, threads, a clock, a log, lists,
 * atomics, a barrier on every thread. Three implementations: env_user.c (libc, pthreads), env_sim.c
 * (the deterministic scheduler of tests/sim), env_kernel.h. The same objects of core and engines
 * link with env_user.o or env_sim.o.
 *
 * env_alloc() memory comes from an arena of its own, never from malloc(): the program's heap may be
 * away while a lock is held here. After fork() the child starts a fresh arena (env_fork_gen()).
 */
#ifndef BALUN_ENV_H
#define BALUN_ENV_H

#ifdef __KERNEL__
#include "env_kernel.h"
#else

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <pthread.h>

/* is this built with a sanitizer? malloc() is then its own */
#if defined(__SANITIZE_ADDRESS__)
#define ENV_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ENV_ASAN 1
#endif
#endif
#ifndef ENV_ASAN
#define ENV_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define ENV_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ENV_TSAN 1
#endif
#endif
#ifndef ENV_TSAN
#define ENV_TSAN 0
#endif

/* memory: zeroed; NULL when there is none. env_free(NULL) is fine. May lock briefly. */
void *env_alloc(size_t size);
void env_free(void *p);
/* page-aligned, from 2 MiB up aligned to that; zero-filled on first touch, not populated;
 * env_pages_free needs the same size. The page on either side of it faults in user space */
void *env_pages_alloc(size_t bytes);
void env_pages_free(void *p, size_t bytes);
/* the same, of memory that devices address too (BALUN_CAP_COHERENT) where there is any left; an
 * engine finds out. env_coherent_free() takes env_pages_alloc()'s as well */
static inline void *env_coherent_alloc(size_t bytes)
{
	return env_pages_alloc(bytes);
}
static inline void env_coherent_free(void *p, size_t bytes)
{
	env_pages_free(p, bytes);
}
/* a hint: these pages will be read and written densely, and never move to another address */
void env_pages_huge(void *p, size_t bytes);
/* copies or empties whole pages: at page boundaries, @bytes a multiple of 4 KiB */
static inline void env_pages_copy(void *dst, const void *src, size_t bytes)
{
	memcpy(dst, src, bytes);
}
static inline void env_pages_zero(void *p, size_t bytes)
{
	memset(p, 0, bytes);
}
/* whether [addr, addr + len) touches memory of the arena, pages or thread stacks of env */
bool env_owns(uint64_t addr, uint64_t len);
/*
 * Between the two nothing becomes env's, so what env_owns() denies stays denied (not in the kernel,
 * which has no use for it). A leaf lock: neither allocate nor free there, nor wait.
 */
void env_owns_begin(void);
void env_owns_end(void);
/* bytes that env_alloc hands out now (for metadata_bytes) */
size_t env_alloc_bytes(void);
/* test hook of env_user and env_sim: the n-th env_alloc from now fails (0: never) */
void env_fail_alloc(uint64_t nth);

/*
 * System memory for a device of the host that reaches memory by DMA (balun_desc.dma_device; NULL:
 * it does not, and there is nothing to do). From map to unmap [p, p + len) is the device's: it
 * reads it at *ret_addr (@to_device), or writes it, and what it wrote is there after unmap. At most
 * env_dma_max() bytes at once, of env_pages_alloc() memory at most a page. May be called where
 * memory is being moved. Return: 0; -ENOMEM
 */
static inline int env_dma_map(void *dma_device, void *p, size_t len, bool to_device,
			      uint64_t *ret_addr)
{
	(void)dma_device, (void)len, (void)to_device;
	*ret_addr = (uintptr_t)p;
	return 0;
}
static inline void env_dma_unmap(void *dma_device, uint64_t addr, size_t len, bool to_device)
{
	(void)dma_device, (void)addr, (void)len, (void)to_device;
}
/* a multiple of 4 KiB */
static inline size_t env_dma_max(void *dma_device)
{
	(void)dma_device;
	return SIZE_MAX & ~(size_t)4095;
}

/*
 * Between the two, memory that this thread allocates is not got by taking it from others: they may
 * need a lock that is held. begin's answer is for end.
 */
static inline unsigned int env_noreclaim_begin(void)
{
	return 0;
}
static inline void env_noreclaim_end(unsigned int flags)
{
	(void)flags;
}

/* mutex: not recursive; sleeps. Owner checked in debug builds. */
struct env_mutex {
	union {
		pthread_mutex_t m;
		void *sim[2];
	};
	void *owner;
};
void env_mutex_init(struct env_mutex *m);
void env_mutex_destroy(struct env_mutex *m);
void env_mutex_lock(struct env_mutex *m);
bool env_mutex_trylock(struct env_mutex *m);
void env_mutex_unlock(struct env_mutex *m);
void env_assert_held(struct env_mutex *m);

/* condition: env_cond_wait returns false when @timeout_ns passed (ENV_FOREVER: never) */
#define ENV_FOREVER	   UINT64_MAX
struct env_cond {
	union {
		pthread_cond_t c;
		void *sim[2];
	};
};
void env_cond_init(struct env_cond *c);
void env_cond_destroy(struct env_cond *c);
bool env_cond_wait(struct env_cond *c, struct env_mutex *m, uint64_t timeout_ns);
void env_cond_wake(struct env_cond *c); /* wakes all */

/* threads: all signals blocked, stack from env (never mirrored) */
struct env_thread;
int env_thread_create(struct env_thread **ret_t, const char *name, void (*fn)(void *), void *arg);
void env_thread_join(struct env_thread *t); /* and free */
/* scheduling point; in env_sim a branch of the schedule */
void env_yield(void);

/*
 * Asked between two steps of a call that may be long: is the caller being killed, so that what is
 * left may be left? (In the kernel; in user space a thread does not come back.)
 */
static inline bool env_killed(void)
{
	return false;
}
/* a wait for what may take long looks so often */
#define ENV_KILLED_NS	   ENV_FOREVER

uint64_t env_now_ns(void);
void env_sleep_ns(uint64_t ns); /* for injected delays and throttling only */

/* every running thread of the process passes a full memory barrier before this returns */
void env_membarrier(void);

/* log: levels -1 what the user asked for, always, 0 error, 1 warning, 2 info, 3 debug;
 * BALUN_LOG=level in user space (default 0) */
void env_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * The module that a driver's code is in: between the two it stays. get: false, it is on its way
 * out. In user space code stays, and NULL stands for it.
 */
static inline bool env_module_get(void *owner)
{
	(void)owner;
	return true;
}
static inline void env_module_put(void *owner)
{
	(void)owner;
}

/* number of forks between the program's start and this process: handles of another one are dead */
unsigned int env_fork_gen(void);

/* text kept per thread for balun_reason(); a printf format. In the kernel for the time of a call
 * that a program makes */
void env_reason(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *env_reason_get(void);

/*
 * Who looks at the process from outside (include/balun/live.h): from begin to the return of end,
 * @fill may be called, on a thread of env's that may touch no descriptor; it may take leaf locks.
 * Nobody can look where that thread does not come about, and nobody does in the simulator and in
 * the kernel. moved: pages of a block moved.
 */
struct balun_live;
struct env_live {
	struct env_live *next;
	void (*fill)(void *arg, struct balun_live *ret);
	void *arg;
	uint64_t begun_ns;
	bool shown;
};
void env_live_begin(struct env_live *l, void (*fill)(void *arg, struct balun_live *ret), void *arg);
void env_live_end(struct env_live *l);
void env_live_moved(uint64_t va, uint64_t bytes, uint64_t now_ns);

/*
 * Probes: what happens and why, for who traces the process: USDT (provider balun, where sys/sdt.h
 * was there), and a ring that is asked for (include/balun/live.h). In the kernel there are none.
 * One that nobody listens to is a load and a branch: if (ENV_PROBE_ON(NAME)) env_probe_NAME(...);
 * @from, @to: device ids, 0 is system memory, or a CPU; @begun_ns: env_now_ns() when it began.
 */
struct env_probe {
	union {
		uint32_t any;
		struct {
			uint16_t usdt, ring; /* usdt: others count there, for the kernel does */
		};
	};
};
extern struct env_probe balun_fault_semaphore, balun_migrate_semaphore, balun_evict_semaphore,
	balun_invalidate_semaphore;
#define ENV_PROBE_ON(name) env_unlikely(env_load_relaxed(&balun_##name##_semaphore.any))
/* device @by (0: a CPU) touched memory that was away, and that was dealt with: 0 or -errno */
void env_probe_fault(uint64_t va, uint64_t len, unsigned int by, unsigned int access, int err,
		     uint64_t begun_ns);
/* pages have moved */
void env_probe_migrate(uint64_t va, uint64_t len, unsigned int cause, unsigned int from,
		       unsigned int to, uint64_t begun_ns);
/* pages of a block, @len bytes of them, went because device @from needs room or was asked to */
void env_probe_evict(uint64_t va, uint64_t len, unsigned int from, unsigned int to,
		     uint64_t begun_ns);
/* devices forget a range */
void env_probe_invalidate(uint64_t va, uint64_t len, unsigned int cause);

#define env_assert(cond)                                                                           \
	do {                                                                                       \
		if (__builtin_expect(!(cond), 0))                                                  \
			env_die(#cond, __FILE__, __LINE__);                                        \
	} while (0)
void env_die(const char *what, const char *file, int line) __attribute__((noreturn));

#define env_container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

/* __builtin_longjmp() to where __builtin_setjmp() filled @buf; the user's ASan sees it coming */
#define env_jump(buf)			  __builtin_longjmp(buf, 1)

/* after a function that leaves or is entered by env_jump(), or never returns because a
 * function that it calls does: for who checks the code that the compiler has made */
#define ENV_JUMPS(fn)			  _Static_assert(sizeof(&(fn)), "")

#endif /* !__KERNEL__ */

/*
 * Where a race is decided. tests/barrier compiles these sources with BALUN_STOP_POINTS and stops a
 * thread there; for everybody else it is nothing.
 */
#ifdef BALUN_STOP_POINTS
void env_stop(const char *point);
#define ENV_STOP(point) env_stop(point)
#else
#define ENV_STOP(point) ((void)0)
#endif

#define env_load(p)		__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define env_load_relaxed(p)	__atomic_load_n(p, __ATOMIC_RELAXED)
#define env_store(p, v)		__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define env_store_relaxed(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define env_add(p, v)		__atomic_fetch_add(p, v, __ATOMIC_RELAXED)
#define env_barrier()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define env_likely(x)		__builtin_expect(!!(x), 1)
#define env_unlikely(x)		__builtin_expect(!!(x), 0)
/* each argument is evaluated once */
#define ENV_MIN(a, b)                                                                              \
	({                                                                                         \
		__typeof__((a) < (b) ? (a) : (b)) min_a_ = (a), min_b_ = (b);                      \
		min_a_ < min_b_ ? min_a_ : min_b_;                                                 \
	})
#define ENV_MAX(a, b)                                                                              \
	({                                                                                         \
		__typeof__((a) > (b) ? (a) : (b)) max_a_ = (a), max_b_ = (b);                      \
		max_a_ > max_b_ ? max_a_ : max_b_;                                                 \
	})

/*
 * A lock in one word, for rare changes of what the whole process shares: 0, or 1 + the fork
 * generation of who holds it. The child of a fork may find it held by a thread that it does not
 * have, and takes it over.
 */
static inline void env_word_lock(uint32_t *w)
{
	uint32_t me = env_fork_gen() + 1, seen;

	for (;; env_yield()) {
		seen = env_load_relaxed(w);
		if (seen != me && __atomic_compare_exchange_n(w, &seen, me, false, __ATOMIC_ACQUIRE,
							      __ATOMIC_RELAXED))
			return;
	}
}
static inline void env_word_unlock(uint32_t *w)
{
	env_store(w, 0);
}

/* a doubly linked list with a head */
struct env_list {
	struct env_list *next, *prev;
};
static inline void env_list_init(struct env_list *l)
{
	l->next = l->prev = l;
}
static inline bool env_list_empty(const struct env_list *l)
{
	return l->next == l;
}
static inline void env_list_add_tail(struct env_list *l, struct env_list *e)
{
	e->next = l;
	e->prev = l->prev;
	l->prev->next = e;
	l->prev = e;
}
static inline void env_list_add(struct env_list *l, struct env_list *e)
{
	env_list_add_tail(l->next, e);
}
static inline void env_list_del(struct env_list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	e->next = e->prev = e;
}
#define env_list_for_each(pos, head) for (pos = (head)->next; pos != (head); pos = pos->next)
#define env_list_for_each_safe(pos, n, head)                                                       \
	for (pos = (head)->next, n = pos->next; pos != (head); pos = n, n = pos->next)

/* bitmaps of one block (512 pages) */
#define ENV_BITS_WORDS 8
typedef uint64_t env_bits[ENV_BITS_WORDS];

static inline bool env_bit(const uint64_t *b, unsigned int i)
{
	return b[i / 64] >> (i % 64) & 1;
}
static inline void env_bit_set(uint64_t *b, unsigned int i)
{
	b[i / 64] |= 1ULL << (i % 64);
}
static inline void env_bit_clear(uint64_t *b, unsigned int i)
{
	b[i / 64] &= ~(1ULL << (i % 64));
}
static inline unsigned int env_bits_count(const uint64_t *b)
{
	unsigned int i, n = 0;

	for (i = 0; i < ENV_BITS_WORDS; i++)
		n += __builtin_popcountll(b[i]);
	return n;
}
static inline void env_bits_set_range(uint64_t *b, unsigned int from, unsigned int n)
{
	while (n && from % 64) {
		env_bit_set(b, from++);
		n--;
	}
	for (; n >= 64; n -= 64, from += 64)
		b[from / 64] = ~0ULL;
	while (n--)
		env_bit_set(b, from++);
}
/* first index >= from whose bit equals @v, or 512 */
static inline unsigned int env_bits_next(const uint64_t *b, unsigned int from, bool v)
{
	while (from < 64 * ENV_BITS_WORDS) {
		uint64_t w = (v ? b[from / 64] : ~b[from / 64]) >> (from % 64);

		if (w)
			return from + __builtin_ctzll(w);
		from = (from / 64 + 1) * 64;
	}
	return 64 * ENV_BITS_WORDS;
}

#endif
