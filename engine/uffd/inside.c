// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Threads inside Balun. A thread of the program that runs core holds locks which the reader needs
 * to serve a fault; so it must not fault itself. On entry it publishes where its stack and its
 * thread block are; pages there are not taken (uffd_inside_bits()), and those that are away or were
 * never touched are made present before any lock is held. Its signals wait: a handler could touch
 * anything.
 *
 * Publishing and taking are ordered by u->lock: a collect that took it before saw no slot, and what
 * it took is brought home by the touch; one that takes it after sees the slot.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

#define STACK_BELOW                                                                                \
	(64UL << 10) /* what core may use of the caller's stack; checked: none of its              \
		      * functions has a frame over 4 KiB */
#define STACK_ABOVE (4UL << 10)
#define TLS_BELOW   (8UL << 10)
#define TLS_ABOVE   (4UL << 10)

struct cookie {
	uint64_t mask;
	int slot; /* -1: a thread of Balun, nothing to do */
};

static void block_signals(uint64_t *ret_old)
{
	uint64_t all = ~0ULL;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, ret_old, sizeof(all));
}

static int slot_take(struct uffd *u, uint64_t sp, uint64_t tp)
{
	unsigned int i, high;

	for (;;) {
		for (i = 0; i < INSIDE_SLOTS; i++) {
			uint64_t none = 0;

			if (env_load_relaxed(&u->inside[i].sp))
				continue;
			if (!__atomic_compare_exchange_n(&u->inside[i].sp, &none, sp, false,
							 __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				continue;
			__atomic_store_n(&u->inside[i].tp, tp, __ATOMIC_SEQ_CST);
			high = env_load(&u->inside_high);
			while (high <= i &&
			       !__atomic_compare_exchange_n(&u->inside_high, &high, i + 1, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				;
			return i;
		}
		env_yield(); /* more threads inside than slots: one leaves soon */
	}
}

/*
 * Pages of [start, end) that are watched are made present: a read fault serves each. Above all that
 * is watched there is nothing to do: the slot was published before this load, and who watches more
 * raises the mark before it looks at the slots; both are sequentially consistent.
 */
static void touch(struct uffd *u, uint64_t start, uint64_t end)
{
	uint64_t until;

	start &= ~(PAGE - 1);
	if (start >= __atomic_load_n(&u->watch_high, __ATOMIC_SEQ_CST))
		return;
	while (start < end) {
		bool watched;

		env_mutex_lock(&u->lock);
		watched = watch_covers(&u->watch, start, &until);
		env_mutex_unlock(&u->lock);
		until = ENV_MIN(until, end);
		for (; watched && start < until; start += PAGE)
			(void)*(volatile char *)(uintptr_t)start;
		start = until;
	}
}

void uffd_enter(void *e, void *cookie)
{
	struct cookie *c = cookie;
	struct uffd *u = e;
	uint64_t sp = (uintptr_t)__builtin_frame_address(0);
	uint64_t tp = (uintptr_t)__builtin_thread_pointer();

	if (env_owns(sp, 1)) {
		c->slot = -1;
		return;
	}
	block_signals(&c->mask);
	c->slot = slot_take(u, sp, tp);
	touch(u, sp - STACK_BELOW, sp + STACK_ABOVE);
	touch(u, tp - TLS_BELOW, tp + TLS_ABOVE);
}

void uffd_leave(void *e, void *cookie)
{
	struct cookie *c = cookie;
	struct uffd *u = e;

	if (c->slot < 0)
		return;
	env_store(&u->inside[c->slot].sp, 0);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &c->mask, NULL, sizeof(c->mask));
}

static void add_bits(uint64_t block, uint64_t start, uint64_t end, uint64_t *bits)
{
	start = ENV_MAX(start & ~(PAGE - 1), block);
	end = ENV_MIN((end + PAGE - 1) & ~(PAGE - 1), block + BLOCK);
	if (start < end)
		env_bits_set_range(bits, (start - block) >> BALUN_PAGE_SHIFT,
				   (end - start) >> BALUN_PAGE_SHIFT);
}

void uffd_inside_bits(struct uffd *u, uint64_t block, uint64_t *ret_bits)
{
	unsigned int i, n = env_load(&u->inside_high);

	env_assert_held(&u->lock);
	for (i = 0; i < n; i++) {
		uint64_t sp = env_load(&u->inside[i].sp), tp = env_load(&u->inside[i].tp);

		if (!sp)
			continue;
		add_bits(block, sp - STACK_BELOW, sp + STACK_ABOVE, ret_bits);
		add_bits(block, tp - TLS_BELOW, tp + TLS_ABOVE, ret_bits);
	}
}
