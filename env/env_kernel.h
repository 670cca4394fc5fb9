/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * env.h over kernel primitives; included by env.h, where the contract is. What is more than a line
 * is in env_kernel.c.
 */
#ifndef BALUN_ENV_KERNEL_H
#define BALUN_ENV_KERNEL_H

#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/errno.h>
#include <linux/kasan-checks.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/objtool.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <asm/page.h>

/* names of the C library that shared code uses */
#ifndef UINT64_MAX
#define UINT64_MAX U64_MAX
#endif
#ifndef UINT32_MAX
#define UINT32_MAX U32_MAX
#endif
/* the compiler would call libgcc */
#define __builtin_popcountll(x) hweight64(x)

/* memory: kvmalloc(), aligned to 64 bytes; pages: vmalloc(). May sleep. */
void *env_alloc(size_t size);
void env_free(void *p);
void *env_pages_alloc(size_t bytes);
void env_pages_free(void *p, size_t bytes);
/* engine/kernel/coherent.c: of the ranges that the module was given */
void *env_coherent_alloc(size_t bytes);
void env_coherent_free(void *p, size_t bytes);
/* vmalloc() decides itself */
static inline void env_pages_huge(void *p, size_t bytes)
{
}
/* Page by page, as the kernel copies what it moves: its memcpy() goes by the word, in a loop, where
 * the processor has no fast one. Not instrumented, so KASAN is told. */
static inline void env_pages_copy(void *dst, const void *src, size_t bytes)
{
	size_t i;

	kasan_check_read(src, bytes);
	kasan_check_write(dst, bytes);
	for (i = 0; i < bytes; i += PAGE_SIZE)
		copy_page(dst + i, (void *)src + i);
}
static inline void env_pages_zero(void *p, size_t bytes)
{
	size_t i;

	kasan_check_write(p, bytes);
	for (i = 0; i < bytes; i += PAGE_SIZE)
		clear_page(p + i);
}
size_t env_alloc_bytes(void);
void env_fail_alloc(uint64_t nth);
/* kernel memory is in no program's address space */
static inline bool env_owns(uint64_t addr, uint64_t len)
{
	return false;
}

int env_dma_map(void *dma_device, void *p, size_t len, bool to_device, uint64_t *ret_addr);
void env_dma_unmap(void *dma_device, uint64_t addr, size_t len, bool to_device);
size_t env_dma_max(void *dma_device);

static inline unsigned int env_noreclaim_begin(void)
{
	return memalloc_noreclaim_save();
}
static inline void env_noreclaim_end(unsigned int flags)
{
	memalloc_noreclaim_restore(flags);
}

struct env_mutex {
	struct mutex m;
};
/* a macro: lockdep tells classes of locks by the place of their initialization */
#define env_mutex_init(lock) mutex_init(&(lock)->m)
static inline void env_mutex_destroy(struct env_mutex *m)
{
	mutex_destroy(&m->m);
}
static inline void env_mutex_lock(struct env_mutex *m)
{
	mutex_lock(&m->m);
}
static inline bool env_mutex_trylock(struct env_mutex *m)
{
	return mutex_trylock(&m->m);
}
static inline void env_mutex_unlock(struct env_mutex *m)
{
	mutex_unlock(&m->m);
}
static inline void env_assert_held(struct env_mutex *m)
{
	lockdep_assert_held(&m->m);
}

#define ENV_FOREVER U64_MAX
struct env_cond {
	struct wait_queue_head wq;
};
#define env_cond_init(c) init_waitqueue_head(&(c)->wq)
static inline void env_cond_destroy(struct env_cond *c)
{
}
bool env_cond_wait(struct env_cond *c, struct env_mutex *m, uint64_t timeout_ns);
static inline void env_cond_wake(struct env_cond *c)
{
	wake_up_all(&c->wq);
}

struct env_thread;
int env_thread_create(struct env_thread **ret_t, const char *name, void (*fn)(void *), void *arg);
void env_thread_join(struct env_thread *t);
static inline void env_yield(void)
{
	cond_resched();
}

/* also a place to let others run, where the kernel does not preempt */
static inline bool env_killed(void)
{
	cond_resched();
	return fatal_signal_pending(current);
}
#define ENV_KILLED_NS 100000000ULL

static inline uint64_t env_now_ns(void)
{
	return ktime_get_ns();
}
void env_sleep_ns(uint64_t ns);

/* an interrupt to every processor */
static inline void env_membarrier(void)
{
	kick_all_cpus_sync();
}

__printf(2, 3) void env_log(int level, const char *fmt, ...);

static inline bool env_module_get(void *owner)
{
	return try_module_get(owner);
}
static inline void env_module_put(void *owner)
{
	module_put(owner);
}

/* a space of the kernel engine belongs to one mm, which a fork does not change */
static inline unsigned int env_fork_gen(void)
{
	return 0;
}

/*
 * The text of a task, while a call that a program made runs on it: between begin and end, which
 * brackets it on the same task, not nested. Without one a text goes nowhere.
 */
#define ENV_REASON_BYTES 512
struct env_reason_text {
	struct hlist_node link;
	struct task_struct *task;
	unsigned int now; /* which text it is: an argument of the next may be in it */
	char text[2][ENV_REASON_BYTES];
};
void env_reason_begin(struct env_reason_text *r);
void env_reason_end(struct env_reason_text *r);
__printf(1, 2) void env_reason(const char *fmt, ...);
const char *env_reason_get(void);

/* nobody looks: counters are asked for by the ioctl */
struct balun_live;
struct env_live {
};
static inline void env_live_begin(struct env_live *l,
				  void (*fill)(void *arg, struct balun_live *ret), void *arg)
{
}
static inline void env_live_end(struct env_live *l)
{
}
static inline void env_live_moved(u64 va, u64 bytes, u64 now_ns)
{
}

/* no probes: ftrace has the functions */
#define ENV_PROBE_ON(name) false
static inline void env_probe_fault(u64 va, u64 len, unsigned int by, unsigned int access, int err,
				   u64 begun_ns)
{
}
static inline void env_probe_migrate(u64 va, u64 len, unsigned int cause, unsigned int from,
				     unsigned int to, u64 begun_ns)
{
}
static inline void env_probe_evict(u64 va, u64 len, unsigned int from, unsigned int to,
				   u64 begun_ns)
{
}
static inline void env_probe_invalidate(u64 va, u64 len, unsigned int cause)
{
}

#define env_assert(cond)                                                                           \
	do {                                                                                       \
		if (unlikely(!(cond)))                                                             \
			env_die(#cond, __FILE__, __LINE__);                                        \
	} while (0)
/* a macro: objtool knows that BUG() does not return, and would have to be told of a function */
#define env_die(what, file, line)                                                                  \
	do {                                                                                       \
		pr_crit("balun: %s:%d: assertion failed: %s\n", file, line, what);                 \
		BUG();                                                                             \
	} while (0)

/* A frame that is left by a jump does not take back what KASAN has been told of it: who has that
 * stack later, an interrupt for example, would be reported. Word 2 is the stack pointer to come. */
#if defined(CONFIG_KASAN_GENERIC) && defined(CONFIG_KASAN_STACK)
void __asan_allocas_unpoison(void *stack_top, ssize_t stack_bottom);
#define env_jump(buf)                                                                              \
	do {                                                                                       \
		__asan_allocas_unpoison((void *)current_stack_pointer, (ssize_t)(buf)[2]);         \
		__builtin_longjmp(buf, 1);                                                         \
	} while (0)
#else
#define env_jump(buf) __builtin_longjmp(buf, 1)
#endif
/* objtool does not know such jumps */
#define ENV_JUMPS(fn) STACK_FRAME_NON_STANDARD(fn)

#define env_container_of(p, type, member) container_of(p, type, member)

#endif
