// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The mirror: the sequence/retry protocol that keeps device page tables from outliving the CPU's.
 *
 * Invariant: between core_invalidate_begin() and core_invalidate_end() no device has, or gets, an
 * entry in the range. A mapper reads the sequence, asks the engine, takes the stripe's lock and
 * maps only if no invalidation is active and none has begun since (core_read_retry()). Both sides
 * change or check under the same lock, so one of them always sees the other.
 *
 * A stripe serves many blocks: an invalidation elsewhere may cost a retry, never correctness.
 */
#include "core/core.h"

/* lock held, let go of while waiting. 0, or -EBUSY after @deadline */
int core_wait_inactive(struct core_stripe *st, uint64_t deadline)
{
	uint64_t now;

	env_assert_held(&st->lock);
	if (!st->active)
		return 0;
	env_store_relaxed(&st->arrived, st->arrived + 1);
	while (st->active && (now = env_now_ns()) < deadline)
		env_cond_wait(&st->idle, &st->lock, deadline - now);
	env_store_relaxed(&st->left, st->left + 1);
	env_cond_wake(&st->turn);
	return st->active ? -EBUSY : 0;
}

/*
 * Before a migration that nobody's fault asked for: as many device faults as wait now for the end
 * of invalidations go first. Without that, migrations that follow one another closely (two of them
 * are enough) keep @active above 0 for as long as they like, and a fault that wakes up finds the
 * next one under way.
 *
 * No lock is held, and nothing is in transit. Faults wait for what is active, and that must not
 * wait for the caller: so the thread that serves CPU faults, on whom it may wait, never comes here.
 * Bounded: each fault leaves at its deadline, and who comes later is not waited for.
 */
void core_give_way(struct balun_space *sp, uint64_t va)
{
	struct core_stripe *st = core_stripe(sp, va);
	uint32_t upto;

	/* who begins to wait at this moment need not be seen: it may as well come later */
	if (env_likely(env_load_relaxed(&st->left) == env_load_relaxed(&st->arrived)))
		return;
	env_mutex_lock(&st->lock);
	upto = st->arrived;
	while ((int32_t)(upto - st->left) > 0)
		env_cond_wait(&st->turn, &st->lock, ENV_FOREVER);
	env_mutex_unlock(&st->lock);
}

int core_read_begin(struct balun_space *sp, uint64_t va, uint64_t deadline, uint64_t *ret_seq)
{
	struct core_stripe *st = core_stripe(sp, va);
	int err;

	env_mutex_lock(&st->lock);
	err = core_wait_inactive(st, deadline);
	if (!err)
		*ret_seq = st->seq;
	env_mutex_unlock(&st->lock);
	return err;
}

bool core_read_retry(struct core_stripe *st, uint64_t seq)
{
	env_assert_held(&st->lock);
	return st->active || st->seq != seq;
}

/* stripe lock held: removes the entries of every device, the flushes overlapping where they can */
void core_unmap_all(struct balun_space *sp, uint64_t va, uint64_t len, enum balun_cause cause)
{
	struct balun_device *begun[CORE_DEVICE_SLOTS];
	unsigned int i, n = 0;

	for (i = 1; i < CORE_DEVICE_SLOTS; i++) {
		struct balun_device *dev = env_load(&sp->device[i]);

		if (!dev)
			continue;
		if (dev->desc.caps & BALUN_CAP_TWO_PHASE) {
			dev->ops.unmap_begin(dev->priv, sp, va, len, cause);
			begun[n++] = dev;
		} else {
			dev->ops.unmap(dev->priv, sp, va, len, cause);
		}
	}
	while (n--)
		begun[n]->ops.unmap_wait(begun[n]->priv, sp);
}

static void stripe_begin(struct core_stripe *st)
{
	env_mutex_lock(&st->lock);
	st->active++;
	st->seq++;
}

static void stripe_end(struct core_stripe *st)
{
	env_mutex_lock(&st->lock);
	env_assert(st->active > 0);
	if (--st->active == 0)
		env_cond_wake(&st->idle);
	env_mutex_unlock(&st->lock);
}

static uint64_t blocks_of(uint64_t va, uint64_t len)
{
	return ((va + len - 1) >> BALUN_BLOCK_SHIFT) - (va >> BALUN_BLOCK_SHIFT) + 1;
}

/*
 * Work on a range goes stripe by stripe; each stripe gets one begin and one end however many of
 * its blocks are in the range, so that begin and end pair up. With more blocks than stripes all of
 * them begin first: then nobody can map in the range, and it is unmapped in one go. The last lock
 * is held for that, so that a device that is being closed stays (device_unpublish()).
 */
void core_invalidate_begin(struct balun_space *sp, uint64_t va, uint64_t len,
			   enum balun_cause cause)
{
	uint64_t n = blocks_of(va, len), i;

	if (ENV_PROBE_ON(invalidate))
		env_probe_invalidate(va, len, cause);
	if (cause == BALUN_CAUSE_INVALIDATE)
		core_count(&sp->stats.invalidations, 1);
	if (n >= CORE_STRIPES) {
		for (i = 0; i < CORE_STRIPES; i++) {
			stripe_begin(&sp->stripe[i]);
			if (i == CORE_STRIPES - 1)
				core_unmap_all(sp, va, len, cause);
			env_mutex_unlock(&sp->stripe[i].lock);
		}
		return;
	}
	for (i = 0; i < n; i++) {
		uint64_t base = (va & ~(BALUN_BLOCK_SIZE - 1)) + (i << BALUN_BLOCK_SHIFT);
		uint64_t from = ENV_MAX(va, base);
		uint64_t to = ENV_MIN(va + len, base + BALUN_BLOCK_SIZE);

		stripe_begin(core_stripe(sp, base));
		core_unmap_all(sp, from, to - from, cause);
		env_mutex_unlock(&core_stripe(sp, base)->lock);
	}
}

void core_invalidate_end(struct balun_space *sp, uint64_t va, uint64_t len)
{
	uint64_t n = blocks_of(va, len), i;

	if (n >= CORE_STRIPES) {
		for (i = 0; i < CORE_STRIPES; i++)
			stripe_end(&sp->stripe[i]);
		return;
	}
	for (i = 0; i < n; i++)
		stripe_end(core_stripe(sp, va + (i << BALUN_BLOCK_SHIFT)));
}

/*
 * There is no end to be told of: who looks while the change is under way is the engine's to hold
 * back. Stripe by stripe, as core_invalidate_begin(); with more blocks than stripes each stripe
 * unmaps the whole range, for what was mapped before under one that is taken only now.
 */
void core_invalidate_now(struct balun_space *sp, uint64_t va, uint64_t len)
{
	uint64_t n = ENV_MIN(blocks_of(va, len), (uint64_t)CORE_STRIPES), i;

	if (ENV_PROBE_ON(invalidate))
		env_probe_invalidate(va, len, BALUN_CAUSE_INVALIDATE);
	core_count(&sp->stats.invalidations, 1);
	for (i = 0; i < n; i++) {
		uint64_t base = (va & ~(BALUN_BLOCK_SIZE - 1)) + (i << BALUN_BLOCK_SHIFT);
		uint64_t from = n == CORE_STRIPES ? va : ENV_MAX(va, base);
		uint64_t to =
			n == CORE_STRIPES ? va + len : ENV_MIN(va + len, base + BALUN_BLOCK_SIZE);
		struct core_stripe *st = core_stripe(sp, base);

		env_mutex_lock(&st->lock);
		st->seq++;
		core_unmap_all(sp, from, to - from, BALUN_CAUSE_INVALIDATE);
		env_mutex_unlock(&st->lock);
	}
}
