// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * How much RAM the program may still take by touching memory that is watched: what comes home from
 * devices, and pages that it never had. When that is used up a touch waits, as one does in the
 * kernel's direct reclaim, until pages have left or more is allowed (balun_allow()).
 *
 * Nobody waits here for a thread that has stopped: whoever gives allowance may need a lock that the
 * waiting thread has (the loader's, which it wants to know of loaded objects). If neither a page
 * left nor anything was allowed for HOLD_NS, touches are let through.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

#define ALLOW_ANY INT64_MAX
#define HOLD_NS	  2000000000ULL

void allow_init(struct uffd *u)
{
	u->allowed = ALLOW_ANY;
}

bool allow_is_any(const struct uffd *u)
{
	return env_load_relaxed(&u->allowed) == ALLOW_ANY;
}

/* lock held: the reader looks again who must wait */
static void look_again(struct uffd *u)
{
	u->more_ns = env_now_ns();
	if (!u->starved)
		return;
	u->starved = false;
	uffd_look_again(u);
}

void allow_took(struct uffd *u, uint64_t bytes)
{
	env_assert_held(&u->lock);
	env_store_relaxed(&u->taken, u->taken + bytes);
}

/* content that has a place in RAM that is not the program's: a device is made of it */
static bool is_ram(const struct uffd *u, unsigned int kind, unsigned int dev)
{
	return kind == BALUN_KIND_SYSTEM || (kind == BALUN_KIND_LOCAL && uffd_is_host(u, dev));
}

void allow_home(struct uffd *u, const struct engine_piece *p, unsigned int n)
{
	if (!p->moved && !is_ram(u, p->src_kind, p->src_dev))
		allow_took(u, n * PAGE);
}

void allow_out(struct uffd *u, const struct engine_piece *p, unsigned int n)
{
	env_assert_held(&u->lock);
	if (!is_ram(u, p->src_kind, p->src_dev) || is_ram(u, p->dst_kind, p->dst_dev))
		return;
	env_store_relaxed(&u->taken, u->taken - n * PAGE);
	u->more_ns = env_now_ns();
	if (!allow_is_out(u))
		look_again(u);
}

bool allow_is_out(const struct uffd *u)
{
	return env_load_relaxed(&u->taken) >= env_load_relaxed(&u->allowed);
}

/* lock held */
static void tell(struct uffd *u)
{
	if (!u->starving)
		return;
	__atomic_fetch_or(u->starving, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, u->starving, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

bool allow_must_wait(struct uffd *u, uint32_t tid)
{
	uint64_t now;

	env_assert_held(&u->lock);
	if (!allow_is_out(u) || u->opened || tid == u->allower)
		return false;
	now = env_now_ns();
	if (!u->starved) {
		u->starved = true;
		u->starved_ns = now;
		tell(u);
	}
	return now - ENV_MAX(u->starved_ns, u->more_ns) < HOLD_NS;
}

/* the lock: who was served may run before its page is counted */
int64_t uffd_taken(void *e)
{
	struct uffd *u = e;
	int64_t taken;

	env_mutex_lock(&u->lock);
	taken = u->taken;
	env_mutex_unlock(&u->lock);
	return taken;
}

void uffd_allow(void *e, int64_t since, int64_t bytes)
{
	struct uffd *u = e;

	env_mutex_lock(&u->lock);
	u->allower = syscall(SYS_gettid);
	env_store_relaxed(&u->allowed, bytes == ALLOW_ANY ? bytes : since + bytes);
	look_again(u);
	env_mutex_unlock(&u->lock);
}

void uffd_allow_word(void *e, uint32_t *word)
{
	struct uffd *u = e;

	env_mutex_lock(&u->lock);
	u->starving = word;
	env_mutex_unlock(&u->lock);
}

/* nobody waits while the loader's lock is waited for, which the waiting thread may have */
static void set_opened(struct uffd *u, bool opened)
{
	env_mutex_lock(&u->lock);
	u->opened = opened;
	if (opened)
		look_again(u);
	env_mutex_unlock(&u->lock);
}

/* what is not watched of the range by now; only who allows does this */
int uffd_watch(void *e, uint64_t va, uint64_t len)
{
	uint64_t end = va + len, until;
	struct uffd *u = e;

	if (u->caps.user_mode_only) {
		env_reason("%s; %s", u->caps.reason, u->caps.remedy);
		return -EOPNOTSUPP;
	}
	for (; va < end; va = until) {
		bool watched;

		env_mutex_lock(&u->lock);
		watched = watch_covers(&u->watch, va, &until);
		env_mutex_unlock(&u->lock);
		until = ENV_MIN(until, end);
		if (watched)
			continue;
		set_opened(u, true);
		uffd_watch_range(u, va, until - va);
		set_opened(u, false);
	}
	return 0;
}
