// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Threads inside Balun. A thread of the program that runs core holds locks which the reader needs
 * to serve a fault; so it must not fault itself. On entry it publishes where its stack and its
 * thread block are; pages there are not taken (uffd_inside_bits()), and those that are away or were
 * never touched are made present before any lock is held. Its signals wait: a handler could touch
 * anything. So does its cancellation, which would end it where it sleeps or waits, locks held.
 *
 * A collect looks at the slots and takes pages on the strength of that; in between u->looks is odd.
 * Who has published waits until a look that had begun before is over, so what that one took is
 * brought home by the touch, and later ones see the slot. Not by waiting for u->lock: the stack may
 * be on its way just then, and who gets the lock would fault on it with the lock held.
 *
 * The slots are not a space's. A hook finds the space that there is, publishes its slot and looks
 * once more: either it sees that the space has ended, or the end sees the slot and waits.
 */
#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

#define STACK_BELOW                                                                                \
	(64UL << 10) /* what core may use of the caller's stack; checked: none of its              \
		      * functions has a frame over 4 KiB */
#define STACK_ABOVE (4UL << 10)
#define TLS_BELOW   (8UL << 10)
#define TLS_ABOVE   (4UL << 10)

#define INSIDE_SLOTS 128

/*
 * @who: the page of the stack pointer and the fork generation; 0, or of another generation (threads
 * that the child of a fork does not have): the slot is free
 * @ask: a page that the reader is asked for, until it has looked
 */
static struct inside {
	uint64_t who, tp, ask;
	uint32_t answers; /* how often it has */
} inside[INSIDE_SLOTS];
static unsigned int inside_high;

#define WHO_GEN(gen)	 ((uint64_t)(gen)&0xffff)
#define WHO(sp, gen)	 ((sp) / PAGE << 16 | WHO_GEN(gen))
#define WHO_SP(who)	 (((who) >> 16) * PAGE)
#define WHO_IS(who, gen) ((who) && ((who)&0xffff) == WHO_GEN(gen))

struct cookie {
	uint64_t mask, who;
	int slot; /* -1: a thread of Balun, nothing to do */
	int cancel;
};

/*
 * Where the kernel brings nothing home (user mode only) this thread does, touching it. There the
 * mask is asked for first: the kernel blocks them, and then fails to say what was blocked before.
 */
static void block_signals(uint64_t *ret_old)
{
	volatile uint64_t all = ~0ULL, *old = ret_old;

	if (!env_load(&uffd_user_mode_only)) {
		syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, ret_old, sizeof(all));
		return;
	}
	while (syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, ret_old, sizeof(all)))
		*old = 0;
	while (syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof(all)))
		all = ~0ULL;
}

static void restore_signals(const uint64_t *old)
{
	while (syscall(SYS_rt_sigprocmask, SIG_SETMASK, old, NULL, sizeof(*old)))
		(void)*(const volatile uint64_t *)old;
}

static void slot_take(struct cookie *c, uint64_t sp, uint64_t tp)
{
	unsigned int i, high, gen = env_fork_gen();

	c->who = WHO(sp, gen);
	for (;;) {
		for (i = 0; i < INSIDE_SLOTS; i++) {
			uint64_t was = env_load_relaxed(&inside[i].who);

			if (WHO_IS(was, gen) ||
			    !__atomic_compare_exchange_n(&inside[i].who, &was, c->who, false,
							 __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				continue;
			__atomic_store_n(&inside[i].tp, tp, __ATOMIC_SEQ_CST);
			high = env_load(&inside_high);
			while (high <= i &&
			       !__atomic_compare_exchange_n(&inside_high, &high, i + 1, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				;
			c->slot = i;
			return;
		}
		env_yield(); /* more threads inside than slots: one leaves soon */
	}
}

static void slot_free(struct cookie *c)
{
	uint64_t was = c->who;

	/* in the child of a fork somebody else may have it by now */
	__atomic_compare_exchange_n(&inside[c->slot].who, &was, 0, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_RELAXED);
}

void uffd_inside_wait(void)
{
	unsigned int i, gen = env_fork_gen();

	for (i = 0; i < INSIDE_SLOTS; i++)
		while (WHO_IS(__atomic_load_n(&inside[i].who, __ATOMIC_SEQ_CST), gen))
			env_yield();
}

/* ---- looks ---- */

void uffd_look_begin(struct uffd *u)
{
	env_assert_held(&u->lock);
	__atomic_fetch_add(&u->looks, 1, __ATOMIC_SEQ_CST);
}

void uffd_look_end(struct uffd *u)
{
	__atomic_fetch_add(&u->looks, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&u->look_waiters, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &u->looks, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void wait_for_look(struct uffd *u)
{
	uint32_t seen = __atomic_load_n(&u->looks, __ATOMIC_SEQ_CST);

	if (!(seen & 1))
		return;
	__atomic_fetch_add(&u->look_waiters, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&u->looks, __ATOMIC_SEQ_CST) == seen)
		syscall(SYS_futex, &u->looks, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
	__atomic_fetch_sub(&u->look_waiters, 1, __ATOMIC_SEQ_CST);
}

/* ---- touches ---- */

/*
 * What it takes to get a lock: this frame, what it calls, and libc's part of the thread block.
 * Written to: on the copying way a page that is about to leave can be read.
 */
static __attribute__((noinline)) void touch_self(void)
{
	char *block = (char *)pthread_self();
	char below[PAGE * 3 / 4];

	below[0] = 0;
	__asm__ volatile("" : : "r"(below) : "memory");
	__atomic_fetch_or(block, 0, __ATOMIC_RELAXED);
#ifdef __GLIBC__
	__atomic_fetch_or(block + 1024, 0, __ATOMIC_RELAXED);
#endif
}

/*
 * What the kernel may not touch for us the reader brings, as if it had been touched. This thread
 * does not touch it itself: it would die where nothing is. No lock held; of the stack only what
 * touch_self() has touched is used.
 */
static void ask(struct uffd *u, struct inside *me, uint64_t va)
{
	uint32_t seen = __atomic_load_n(&me->answers, __ATOMIC_SEQ_CST);

	__atomic_store_n(&me->ask, va, __ATOMIC_SEQ_CST);
	uffd_look_again(u);
	while (__atomic_load_n(&me->answers, __ATOMIC_SEQ_CST) == seen)
		syscall(SYS_futex, &me->answers, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

/*
 * On the reader, with no lock held. In the child of a fork a slot can have the question of a thread
 * of the parent; whoever has the slot now may just ask another one, and that is not answered.
 */
bool uffd_serve_asked(struct uffd *u)
{
	unsigned int i, n = env_load(&inside_high), gen = env_fork_gen();
	bool all = true;

	for (i = 0; i < n; i++) {
		uint64_t va = __atomic_load_n(&inside[i].ask, __ATOMIC_SEQ_CST);

		if (!va || !WHO_IS(__atomic_load_n(&inside[i].who, __ATOMIC_SEQ_CST), gen))
			continue;
		if (uffd_serve(u, va)) {
			all = false;
			continue;
		}
		if (!__atomic_compare_exchange_n(&inside[i].ask, &va, 0, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_RELAXED))
			continue;
		__atomic_fetch_add(&inside[i].answers, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &inside[i].answers, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	return all;
}

static bool is_here(uint64_t va)
{
	unsigned char vec;

	return mincore((void *)(uintptr_t)va, PAGE, &vec) || vec & 1; /* or nothing ever is */
}

#define TOUCH_PAGES ((STACK_BELOW + STACK_ABOVE + PAGE) / PAGE)

/*
 * Not all of it needs to be this thread's: close to either end of a stack it is a guard page, or
 * memory that another thread unmaps in this moment. The kernel reads, and is refused there. Return:
 * whether the reader was asked, for want of that.
 */
static bool touch_pages(struct uffd *u, struct inside *me, uint64_t start, uint64_t end)
{
	struct iovec remote[TOUCH_PAGES], local;
	unsigned int n = 0, k;
	char bytes[TOUCH_PAGES];
	bool asked = false;
	ssize_t got;

	for (; start < end; start += PAGE)
		remote[n++] = (struct iovec){ .iov_base = (void *)(uintptr_t)start, .iov_len = 1 };
	for (k = 0; k < n; k += got + 1) {
		void *page = remote[k].iov_base;

		got = 0;
		if (u->caps.user_mode_only) {
			if (!is_here((uintptr_t)page)) {
				ask(u, me, (uintptr_t)page);
				asked = true;
			}
			continue;
		}
		local = (struct iovec){ .iov_base = bytes, .iov_len = n - k };
		got = process_vm_readv(gettid(), &local, 1, remote + k, n - k, 0);
		if (got < 0 && errno != EFAULT) /* a filter refuses it: one by one */
			syscall(SYS_madvise, page, PAGE, MADV_POPULATE_READ);
		got = ENV_MAX(got, 0);
	}
	return asked;
}

/* lock held */
static bool is_elsewhere(struct uffd *u, uint64_t start, uint64_t end)
{
	struct softpt_run r;

	return softpt_next_busy(u->pt, start, end, &r) || softpt_next_away(u->pt, start, end, &r);
}

/*
 * Pages of [start, end) that are watched are made present: a read fault serves each. Above all that
 * is watched there is nothing to do: the slot was published before this load, and who watches more
 * raises the mark before it looks at the slots; both are sequentially consistent.
 */
static void touch(struct uffd *u, struct inside *me, uint64_t start, uint64_t end)
{
	bool watched, asked = false;
	struct softpt_run busy;
	uint64_t until;

	start &= ~(PAGE - 1);
	if (start >= __atomic_load_n(&u->watch_high, __ATOMIC_SEQ_CST))
		return;
	while (start < end) {
		env_mutex_lock(&u->lock);
		watched = watch_covers(&u->watch, start, &until);
		until = ENV_MIN(until, end);
		/* on the copying way a read would not wait, and then the page leaves */
		while (watched && softpt_next_busy(u->pt, start, until, &busy))
			env_cond_wait(&u->idle, &u->lock, ENV_FOREVER);
		watched = watched && (!asked || is_elsewhere(u, start, until));
		env_mutex_unlock(&u->lock);
		/* the reader does not wait for a page that is on its way: look again */
		asked = watched && touch_pages(u, me, start, until);
		if (!asked)
			start = until;
	}
}

/* false: a thread of Balun */
static bool publish(struct cookie *c, uint64_t sp)
{
	c->slot = -1;
	if (env_owns(sp, 1))
		return false;
	block_signals(&c->mask);
	slot_take(c, sp, (uintptr_t)__builtin_thread_pointer());
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &c->cancel);
	return true;
}

static void make_present(struct uffd *u, const struct cookie *c, uint64_t sp)
{
	struct inside *me = &inside[c->slot];
	uint64_t tp = (uintptr_t)__builtin_thread_pointer();

	wait_for_look(u);
	touch_self();
	touch(u, me, sp - STACK_BELOW, sp + STACK_ABOVE);
	touch(u, me, tp - TLS_BELOW, tp + TLS_ABOVE);
}

void uffd_enter(void *e, void *cookie)
{
	uint64_t sp = (uintptr_t)__builtin_frame_address(0);

	if (publish(cookie, sp))
		make_present(e, cookie, sp);
}

struct uffd *uffd_enter_here(void *cookie)
{
	uint64_t sp = (uintptr_t)__builtin_frame_address(0);
	struct uffd *u;

	/* most threads of most programs come by when there is no space, or from inside Balun */
	if (!uffd_here() || env_owns(sp, 1))
		return NULL;
	ENV_STOP("enter-looked");
	publish(cookie, sp);
	u = uffd_here();
	if (!u) {
		uffd_leave(NULL, cookie);
		return NULL;
	}
	make_present(u, cookie, sp);
	return u;
}

void uffd_leave(void *e, void *cookie)
{
	struct cookie *c = cookie;

	(void)e;
	if (c->slot < 0)
		return;
	slot_free(c);
	restore_signals(&c->mask);
	pthread_setcancelstate(c->cancel, NULL);
}

void uffd_add_bits(uint64_t block, uint64_t start, uint64_t end, uint64_t *bits)
{
	start = ENV_MAX(start & ~(PAGE - 1), block);
	end = ENV_MIN((end + PAGE - 1) & ~(PAGE - 1), block + BLOCK);
	if (start < end)
		env_bits_set_range(bits, (start - block) >> BALUN_PAGE_SHIFT,
				   (end - start) >> BALUN_PAGE_SHIFT);
}

void uffd_inside_bits(struct uffd *u, uint64_t block, uint64_t *ret_bits)
{
	unsigned int i, gen = env_fork_gen();
	unsigned int n = __atomic_load_n(&inside_high, __ATOMIC_SEQ_CST);

	env_assert_held(&u->lock);
	for (i = 0; i < n; i++) {
		uint64_t who = __atomic_load_n(&inside[i].who, __ATOMIC_SEQ_CST), tp;

		if (!WHO_IS(who, gen))
			continue;
		tp = __atomic_load_n(&inside[i].tp, __ATOMIC_SEQ_CST);
		uffd_add_bits(block, WHO_SP(who) - STACK_BELOW, WHO_SP(who) + PAGE + STACK_ABOVE,
			      ret_bits);
		uffd_add_bits(block, tp - TLS_BELOW, tp + TLS_ABOVE, ret_bits);
	}
	uffd_ending_bits(u, block, ret_bits);
}
