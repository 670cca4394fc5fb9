/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft.h - programs for the soft accelerator
 *
 * balun_soft_launch() runs a C function on n workers of a "soft" device. Inside it memory exists
 * only through soft_load*() and soft_store*() and the atomics below: every access looks up the
 * worker's TLB, a miss walks the device's page table, a hole goes to the device's fault queue and
 * is replayed. Pointers of the program are ordinary uint64_t addresses there. Locals, arguments
 * passed by value and constants are registers of the worker, as on any accelerator.
 *
 * An access that cannot be made (nothing mapped, no permission, device closing) ends the function
 * on that worker; the fence then reports the first such error and its address.
 *
 * A page that others hold for a moment (-EBUSY of the fault) is none of these: the access is
 * replayed until it succeeds, as an access of a CPU waits for its cache line. There is no bound on
 * the number of replays; closing the device ends them.
 */
#ifndef BALUN_SOFT_H
#define BALUN_SOFT_H

#include "balun/balun.h"
#ifdef __KERNEL__
#include <linux/stddef.h>
#include <linux/string.h>
#else
#include <string.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SOFT_TLB_ENTRIES 256 /* of each TLB of a worker; direct mapped, 4 KiB each */

/**
 * struct soft_tlb - one translation: the hardware's, not for use in functions
 * @tag: address of the page, or SOFT_TLB_NONE()
 * @delta: what to add to an address in the page to reach it in device memory
 */
struct soft_tlb {
	uint64_t tag;
	uintptr_t delta;
} __attribute__((aligned(16)));

/* A tag that no access compares equal to in slot @i: the page it names belongs to another slot. */
#define SOFT_TLB_NONE(i) ((uint64_t)((i) ? 0 : BALUN_PAGE_SIZE))

/**
 * struct soft_worker - one worker, as its functions see it
 * @busy: nonzero during an access: what unmap waits for
 * @index: 0..nworkers-1 of this launch
 * @nworkers: workers of this launch
 * @tlb: the TLBs: [0] of loads, [1] of stores and atomics
 */
struct soft_worker {
	uint32_t busy;
	uint32_t index, nworkers;
	struct soft_tlb tlb[2][SOFT_TLB_ENTRIES] __attribute__((aligned(64)));
};

/** soft_fn - a function for the device; @arg is launch's */
typedef void (*soft_fn)(struct soft_worker *w, uint64_t arg);

/**
 * balun_soft_launch() - queue a function on a soft device
 * @dev: the device (wrapped by trace or inject is fine)
 * @fn: the function; called once per worker
 * @arg: for it; often the address of a struct of the program, to be read with soft_load*()
 * @nworkers: how many; 0: all of the device
 * @ret_fence: number to wait for
 *
 * Commands of one device run in order. Returns at once. Any thread; not from a device function.
 * Return: 0; -EINVAL not a soft device or too many workers; -ENODEV closing; -ENOMEM; -EOPNOTSUPP
 * the device is the kernel's (engine "kernel"), which runs only the functions below that come with
 * it.
 */
BALUN_API int balun_soft_launch(struct balun_device *dev, soft_fn fn, uint64_t arg,
				unsigned int nworkers, uint64_t *ret_fence);

/**
 * balun_soft_wait() - wait until a fence has passed
 * @ret_addr: address of the first access that failed, or NULL
 * Return: 0; what balun_fault() said of the first access that failed (-EFAULT, -EPERM, ...).
 */
BALUN_API int balun_soft_wait(struct balun_device *dev, uint64_t fence, uint64_t *ret_addr);

/** balun_soft_workers() - how many workers the device has, or -EINVAL */
BALUN_API int balun_soft_workers(struct balun_device *dev);

/**
 * balun_soft_access() - the slow path of an access, called by the inline functions below
 * @len: any length, any alignment
 * @op: 0 load, 1 store, 2 atomic add (len 4 or 8; *buf: addend in, old value out), 3 compare and
 *      swap (buf[0] expected in, old value out; buf[1] new)
 *
 * From a device function only; ends the function on error.
 */
BALUN_API void balun_soft_access(struct soft_worker *w, uint64_t va, void *buf, unsigned int len,
				 unsigned int op);

/*
 * Why an access is safe against unmap without a lock: the worker stores busy, then reads the tag;
 * unmap clears the tag, makes every thread pass a barrier (env_membarrier), then waits while busy.
 * Either the worker saw the cleared tag, or unmap sees busy and waits for the access to end.
 * SOFT_ORDER is a compiler barrier only; the expensive half is on unmap's side. (TSan sees the
 * release of busy and unmap's acquire, which is all that orders the data.)
 */
#define SOFT_ORDER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static inline struct soft_tlb *soft_begin_(struct soft_worker *w, uint64_t va, int store)
{
	__atomic_store_n(&w->busy, 1, __ATOMIC_RELAXED);
	SOFT_ORDER();
	/* &w->tlb[store][page % SOFT_TLB_ENTRIES] in one shift and one mask; 4: log2 of a slot */
	return (struct soft_tlb *)((char *)w->tlb[store] +
				   (va >> (BALUN_PAGE_SHIFT - 4) & (SOFT_TLB_ENTRIES - 1) << 4));
}

static inline void soft_end_(struct soft_worker *w)
{
	__atomic_store_n(&w->busy, 0, __ATOMIC_RELEASE);
}

/* whether an access is to the page that @tag names and stays in it: one comparison for both */
static inline int soft_match_(const uint64_t *tag, uint64_t va, unsigned int len)
{
	return __builtin_expect(len <= BALUN_PAGE_SIZE &&
					va - __atomic_load_n(tag, __ATOMIC_RELAXED) <=
						BALUN_PAGE_SIZE - len,
				1);
}

#define SOFT_SMALL_ 256

typedef uint64_t soft_u64_ __attribute__((may_alias));
typedef uint32_t soft_u32_ __attribute__((may_alias));
/* 16 bytes that alias anything, at any alignment */
typedef uint64_t soft_vec_ __attribute__((vector_size(16), aligned(1), may_alias));

/* memcpy that leaves a burst in vector registers where the compiler's own goes through the stack */
static inline __attribute__((always_inline)) void soft_move_(void *dst, const void *src,
							     unsigned int len)
{
	const soft_vec_ *s = (const soft_vec_ *)src;
	soft_vec_ *d = (soft_vec_ *)dst;
	unsigned int i;

	if (!__builtin_constant_p(len) || len > SOFT_SMALL_ || len % sizeof(*d)) {
		memcpy(dst, src, len);
		return;
	}
#pragma GCC unroll 16
	for (i = 0; i < len / sizeof(*d); i++)
		d[i] = s[i];
}

/*
 * What hardware promises and C alone does not: an aligned word is read and written in one piece,
 * also while another worker stores to it or updates it atomically. @mem is device memory.
 */
static inline __attribute__((always_inline)) void soft_get_(void *buf, const void *mem,
							    unsigned int len)
{
	uint64_t v8;
	uint32_t v4;

	if (len == 8 && !((uintptr_t)mem & 7)) {
		v8 = __atomic_load_n((const soft_u64_ *)mem, __ATOMIC_RELAXED);
		memcpy(buf, &v8, 8);
	} else if (len == 4 && !((uintptr_t)mem & 3)) {
		v4 = __atomic_load_n((const soft_u32_ *)mem, __ATOMIC_RELAXED);
		memcpy(buf, &v4, 4);
	} else {
		soft_move_(buf, mem, len);
	}
}

static inline __attribute__((always_inline)) void soft_put_(void *mem, const void *buf,
							    unsigned int len)
{
	uint64_t v8;
	uint32_t v4;

	if (len == 8 && !((uintptr_t)mem & 7)) {
		memcpy(&v8, buf, 8);
		__atomic_store_n((soft_u64_ *)mem, v8, __ATOMIC_RELAXED);
	} else if (len == 4 && !((uintptr_t)mem & 3)) {
		memcpy(&v4, buf, 4);
		__atomic_store_n((soft_u32_ *)mem, v4, __ATOMIC_RELAXED);
	} else {
		soft_move_(mem, buf, len);
	}
}

/**
 * soft_read() - load @len bytes into a local buffer
 *
 * One look into the TLB serves all @len bytes inside a page: read in bursts. Fastest is a constant
 * multiple of 16 up to 256: into an array of 16-byte vectors, 128 bytes (with gcc 256) stay in
 * registers.
 */
static inline void soft_read(struct soft_worker *w, uint64_t va, void *buf, unsigned int len)
{
	struct soft_tlb *t = soft_begin_(w, va, 0);

	if (soft_match_(&t->tag, va, len)) {
		soft_get_(buf, (const void *)(t->delta + (uintptr_t)va), len);
		soft_end_(w);
		return;
	}
	soft_end_(w);
	if (__builtin_constant_p(len) && len <= SOFT_SMALL_) {
		/* a buffer of its own, so that the caller's need not have an address */
		unsigned char tmp[SOFT_SMALL_];

		balun_soft_access(w, va, tmp, len, 0);
		soft_move_(buf, tmp, len);
	} else {
		balun_soft_access(w, va, buf, len, 0);
	}
}

/** soft_write() - store @len bytes from a local buffer */
static inline void soft_write(struct soft_worker *w, uint64_t va, const void *buf, unsigned int len)
{
	struct soft_tlb *t = soft_begin_(w, va, 1);

	if (soft_match_(&t->tag, va, len)) {
		soft_put_((void *)(t->delta + (uintptr_t)va), buf, len);
		soft_end_(w);
		return;
	}
	soft_end_(w);
	if (__builtin_constant_p(len) && len <= SOFT_SMALL_) {
		unsigned char tmp[SOFT_SMALL_];

		soft_move_(tmp, buf, len);
		balun_soft_access(w, va, tmp, len, 1);
	} else {
		balun_soft_access(w, va, (void *)(uintptr_t)buf, len, 1);
	}
}

#define SOFT_DEFINE_(name, type)                                                                   \
	/** soft_load_/soft_store_ - one value; aligned ones of 4 and 8 bytes are indivisible */   \
	static inline type soft_load_##name(struct soft_worker *w, uint64_t va)                    \
	{                                                                                          \
		type v;                                                                            \
		soft_read(w, va, &v, sizeof(v));                                                   \
		return v;                                                                          \
	}                                                                                          \
	static inline void soft_store_##name(struct soft_worker *w, uint64_t va, type v)           \
	{                                                                                          \
		soft_write(w, va, &v, sizeof(v));                                                  \
	}
SOFT_DEFINE_(u8, uint8_t)
SOFT_DEFINE_(u16, uint16_t)
SOFT_DEFINE_(u32, uint32_t)
SOFT_DEFINE_(u64, uint64_t)
#ifndef __KERNEL__
SOFT_DEFINE_(f64, double)
#endif

/** soft_add_u64() - atomic add among workers; Return: the old value */
static inline uint64_t soft_add_u64(struct soft_worker *w, uint64_t va, uint64_t v)
{
	balun_soft_access(w, va, &v, sizeof(v), 2);
	return v;
}

/** soft_cas_u64() - atomic compare and swap among workers; Return: the old value */
static inline uint64_t soft_cas_u64(struct soft_worker *w, uint64_t va, uint64_t old, uint64_t v)
{
	uint64_t b[2] = { old, v };

	balun_soft_access(w, va, b, sizeof(v), 3);
	return b[0];
}

/* ---- functions that come with it, written with the above ---- */

/** struct soft_args - arguments of the built-in functions; lives in the program's memory
 * @src: first byte read
 * @dst: first byte written, or the needle of a search
 * @len: bytes
 * @value: in: byte to fill with, or length of the needle; out: sum, or number of matches
 * @hist: out: counts of balun_soft_histogram(), or hist[0] matches of balun_soft_search()
 */
struct soft_args {
	uint64_t src, dst, len, value, hist[256];
};

/*
 * Built-in functions for balun_soft_launch(); @arg is the address of a struct soft_args. Work is
 * split evenly among the workers.
 */
/** balun_soft_fill() - dst[0..len) = value */
BALUN_API void balun_soft_fill(struct soft_worker *w, uint64_t arg);
/** balun_soft_copy() - dst[0..len) = src[0..len) */
BALUN_API void balun_soft_copy(struct soft_worker *w, uint64_t arg);
/** balun_soft_reduce() - value += sum of the bytes of src */
BALUN_API void balun_soft_reduce(struct soft_worker *w, uint64_t arg);
/** balun_soft_histogram() - hist[b] += count of byte b in src */
BALUN_API void balun_soft_histogram(struct soft_worker *w, uint64_t arg);
/** balun_soft_search() - hist[0] += number of places in src where the needle at dst stands; value
 * is the needle's length, at most 256 */
BALUN_API void balun_soft_search(struct soft_worker *w, uint64_t arg);

#ifdef __cplusplus
}
#endif
#endif
