// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The memory calls of the simulated process (balun/sim.h). Each invalidates first, without the
 * lock, then changes the table under it and tells the flights, then lets devices map again.
 */
#include "engine/sim/table.h"

struct balun_sim_child {
	struct env_list block; /* of struct sim_block, linked by hash */
};

static struct sim *sim_of(struct balun_space *sp)
{
	return sp && sp->engine == &engine_sim ? sp->e : NULL;
}

static int check_range(uint64_t va, uint64_t len)
{
	uint64_t end = 1ULL << SOFTPT_VA_BITS;

	if ((va | len) & (BALUN_PAGE_SIZE - 1) || !len || va >= end || len > end - va)
		return -EINVAL;
	return 0;
}

static bool all_mapped(struct sim *s, uint64_t va, uint64_t len)
{
	uint64_t p;

	for (p = va; p < va + len; p += BALUN_PAGE_SIZE)
		if (!(sim_flags(s, p) & SIM_MAPPED))
			return false;
	return true;
}

/* the pages in transit of a range go to @to + offset, or nowhere (SIM_GONE) */
static void tell_flights(struct sim *s, uint64_t va, uint64_t len, uint64_t to)
{
	struct env_list *l;
	unsigned int i;

	env_list_for_each (l, &s->flights) {
		struct sim_flight *f = env_container_of(l, struct sim_flight, link);

		for (i = 0; i < BALUN_BLOCK_PAGES; i++)
			if (f->at[i] != SIM_GONE && f->at[i] >= va && f->at[i] < va + len)
				f->at[i] = to == SIM_GONE ? SIM_GONE : f->at[i] - va + to;
	}
}

/* contents of a range are nobody's any more */
static void drop_contents(struct sim *s, uint64_t va, uint64_t len)
{
	uint64_t p;

	sim_release(s, va, len);
	softpt_clear_away(s->pt, va, len);
	tell_flights(s, va, len, SIM_GONE);
	softpt_clear_busy(s->pt, va, len);
	for (p = va; p < va + len; p += BALUN_PAGE_SIZE) {
		struct sim_block *b = sim_block_find(s, p);

		if (!b)
			continue;
		env_free(b->frame[sim_index(p)]);
		b->frame[sim_index(p)] = NULL;
		b->flags[sim_index(p)] &= ~SIM_POISON;
	}
	/* who waits for a page that is gone looks again */
	env_cond_wake(&s->idle);
}

static void set_flags(struct sim *s, uint64_t va, unsigned int flags)
{
	struct sim_block *b = sim_block_find(s, va);
	unsigned int i = sim_index(va);

	if (!b)
		return;
	b->nmapped += !!(flags & SIM_MAPPED) - !!(b->flags[i] & SIM_MAPPED);
	b->flags[i] = flags;
}

static void set_flags_range(struct sim *s, uint64_t va, uint64_t len, unsigned int flags)
{
	uint64_t p;

	for (p = va; p < va + len; p += BALUN_PAGE_SIZE)
		set_flags(s, p, flags);
}

int balun_sim_mmap(struct balun_space *sp, uint64_t va, uint64_t len, unsigned int flags)
{
	struct sim *s = sim_of(sp);
	int err;

	if (!s || check_range(va, len) ||
	    flags & ~(BALUN_SIM_READ | BALUN_SIM_WRITE | BALUN_SIM_SHARED))
		return -EINVAL;
	core_invalidate_begin(sp, va, len, BALUN_CAUSE_INVALIDATE);
	env_mutex_lock(&s->lock);
	err = sim_blocks_get(s, va, len);
	if (!err) {
		drop_contents(s, va, len);
		set_flags_range(s, va, len, flags | SIM_MAPPED);
	}
	env_mutex_unlock(&s->lock);
	core_invalidate_end(sp, va, len);
	return err;
}

int balun_sim_munmap(struct balun_space *sp, uint64_t va, uint64_t len)
{
	struct sim *s = sim_of(sp);

	if (!s || check_range(va, len))
		return -EINVAL;
	core_invalidate_begin(sp, va, len, BALUN_CAUSE_INVALIDATE);
	env_mutex_lock(&s->lock);
	drop_contents(s, va, len);
	set_flags_range(s, va, len, 0);
	sim_blocks_put(s, va, len);
	env_mutex_unlock(&s->lock);
	core_invalidate_end(sp, va, len);
	return 0;
}

/* @keep: what is left behind stays mapped, and empty */
static void move_table(struct sim *s, uint64_t from, uint64_t to, uint64_t len, bool keep)
{
	uint64_t at;

	for (at = 0; at < len; at += BALUN_PAGE_SIZE) {
		void **old = sim_frame(s, from + at);

		set_flags(s, to + at, sim_flags(s, from + at));
		*sim_frame(s, to + at) = *old;
		*old = NULL;
		set_flags(s, from + at, keep ? sim_flags(s, from + at) & ~SIM_POISON : 0);
	}
}

static int remap_locked(struct sim *s, uint64_t from, uint64_t to, uint64_t len, bool keep)
{
	struct softpt_run r;
	uint64_t va;
	int err;

	if (!all_mapped(s, from, len))
		return -EFAULT;
	err = sim_blocks_get(s, to, len);
	if (err)
		return err;
	drop_contents(s, to, len);
	err = softpt_remap(s->pt, from, to, len);
	if (err) {
		/* as mmap(MAP_FIXED) on Linux: what was at the target is unmapped already */
		set_flags_range(s, to, len, 0);
	} else {
		move_table(s, from, to, len, keep);
		tell_flights(s, from, len, to);
		for (va = to; softpt_next_away(s->pt, va, to + len, &r); va = r.va + r.len)
			core_moved(s->space, SOFTPT_DEV(r.place), r.va, r.len);
	}
	sim_blocks_put(s, from, len);
	sim_blocks_put(s, to, len);
	return err;
}

/*
 * As the kernel does it: first the end that is too much goes, then the target is emptied, then the
 * pages move; behind them comes what the mapping grows by.
 */
static int resize_locked(struct sim *s, uint64_t from, uint64_t len, uint64_t to, uint64_t new_len,
			 bool keep)
{
	uint64_t n = ENV_MIN(len, new_len);
	unsigned int flags = sim_flags(s, from + n - BALUN_PAGE_SIZE) & ~SIM_POISON;
	int err;

	if (!all_mapped(s, from, len))
		return -EFAULT;
	err = sim_blocks_get(s, to, new_len);
	if (err)
		return err;
	if (n < len) {
		drop_contents(s, from + n, len - n);
		set_flags_range(s, from + n, len - n, 0);
	}
	if (n < new_len) {
		drop_contents(s, to + n, new_len - n);
		set_flags_range(s, to + n, new_len - n, flags);
	}
	err = remap_locked(s, from, to, n, keep);
	if (err && n < new_len)
		set_flags_range(s, to + n, new_len - n, 0);
	sim_blocks_put(s, from, len);
	sim_blocks_put(s, to, new_len);
	return err;
}

int balun_sim_mremap(struct balun_space *sp, uint64_t from, uint64_t len, uint64_t to,
		     uint64_t new_len, unsigned int flags)
{
	struct sim *s = sim_of(sp);
	int err;

	if (!s || check_range(from, len) || check_range(to, new_len) ||
	    (from < to + new_len && to < from + len) || flags & ~BALUN_SIM_DONTUNMAP ||
	    (flags && len != new_len))
		return -EINVAL;
	core_invalidate_begin(sp, from, len, BALUN_CAUSE_INVALIDATE);
	core_invalidate_begin(sp, to, new_len, BALUN_CAUSE_INVALIDATE);
	env_mutex_lock(&s->lock);
	err = resize_locked(s, from, len, to, new_len, flags & BALUN_SIM_DONTUNMAP);
	env_cond_wake(&s->idle);
	env_mutex_unlock(&s->lock);
	core_invalidate_end(sp, to, new_len);
	core_invalidate_end(sp, from, len);
	return err;
}

int balun_sim_mprotect(struct balun_space *sp, uint64_t va, uint64_t len, unsigned int flags)
{
	struct sim *s = sim_of(sp);
	unsigned int keep = SIM_MAPPED | SIM_POISON | BALUN_SIM_SHARED;
	uint64_t p;
	int err = 0;

	if (!s || check_range(va, len) || flags & ~(BALUN_SIM_READ | BALUN_SIM_WRITE))
		return -EINVAL;
	core_invalidate_begin(sp, va, len, BALUN_CAUSE_INVALIDATE);
	env_mutex_lock(&s->lock);
	if (!all_mapped(s, va, len))
		err = -ENOMEM;
	for (p = va; !err && p < va + len; p += BALUN_PAGE_SIZE)
		set_flags(s, p, (sim_flags(s, p) & keep) | flags);
	env_mutex_unlock(&s->lock);
	core_invalidate_end(sp, va, len);
	return err;
}

/* the contents of shared memory belong to its file: they stay */
int balun_sim_dontneed(struct balun_space *sp, uint64_t va, uint64_t len)
{
	struct sim *s = sim_of(sp);
	uint64_t p;
	int err = 0;

	if (!s || check_range(va, len))
		return -EINVAL;
	core_invalidate_begin(sp, va, len, BALUN_CAUSE_INVALIDATE);
	env_mutex_lock(&s->lock);
	if (!all_mapped(s, va, len))
		err = -ENOMEM;
	for (p = va; !err && p < va + len; p += BALUN_PAGE_SIZE)
		if (!(sim_flags(s, p) & BALUN_SIM_SHARED))
			drop_contents(s, p, BALUN_PAGE_SIZE);
	env_mutex_unlock(&s->lock);
	core_invalidate_end(sp, va, len);
	return err;
}

/* what is away or in transit is dropped, what is here stays: both may be found by who reads */
int balun_sim_free(struct balun_space *sp, uint64_t va, uint64_t len)
{
	struct sim *s = sim_of(sp);
	struct softpt_run r;
	uint64_t p;
	int err = 0;

	if (!s || check_range(va, len))
		return -EINVAL;
	core_invalidate_begin(sp, va, len, BALUN_CAUSE_INVALIDATE);
	env_mutex_lock(&s->lock);
	if (!all_mapped(s, va, len))
		err = -ENOMEM;
	for (p = va; !err && p < va + len; p += r.len) {
		softpt_run(s->pt, p, va + len - p, &r);
		if ((r.away || r.busy) && !(sim_flags(s, p) & BALUN_SIM_SHARED))
			drop_contents(s, p, r.len);
	}
	env_mutex_unlock(&s->lock);
	core_invalidate_end(sp, va, len);
	return err;
}

static int cpu_access(struct balun_space *sp, uint64_t va, void *buf, size_t len, bool write)
{
	struct sim *s = sim_of(sp);

	if (!s || va + len < va)
		return -EINVAL;
	while (len) {
		size_t n = ENV_MIN(len, BALUN_PAGE_SIZE - (va & (BALUN_PAGE_SIZE - 1)));
		int err = sim_access(s, va, buf, n, write, false);

		if (err)
			return err;
		va += n;
		buf = (char *)buf + n;
		len -= n;
	}
	return 0;
}

int balun_sim_load(struct balun_space *sp, uint64_t va, void *buf, size_t len)
{
	return cpu_access(sp, va, buf, len, false);
}

int balun_sim_store(struct balun_space *sp, uint64_t va, const void *buf, size_t len)
{
	return cpu_access(sp, va, (void *)(uintptr_t)buf, len, true);
}

/* ---- fork ---- */

static int child_copy_block(struct balun_sim_child *child, const struct sim_block *from)
{
	struct sim_block *b = env_alloc(sizeof(*b));
	unsigned int i;

	if (!b)
		return -ENOMEM;
	b->va = from->va;
	memcpy(b->flags, from->flags, sizeof(b->flags));
	env_list_add(&child->block, &b->hash);
	for (i = 0; i < BALUN_BLOCK_PAGES; i++) {
		if (!from->frame[i])
			continue;
		b->frame[i] = env_alloc(BALUN_PAGE_SIZE);
		if (!b->frame[i])
			return -ENOMEM;
		memcpy(b->frame[i], from->frame[i], BALUN_PAGE_SIZE);
	}
	return 0;
}

static int child_copy(struct sim *s, struct balun_sim_child *child)
{
	struct softpt_run r;
	struct env_list *l;
	unsigned int i;
	int err;

	/* core_quiesce() promised: everything is home and stays */
	env_assert(!softpt_next_away(s->pt, 0, 1ULL << SOFTPT_VA_BITS, &r));
	for (i = 0; i < SIM_BUCKETS; i++) {
		env_list_for_each (l, &s->block[i]) {
			err = child_copy_block(child, env_container_of(l, struct sim_block, hash));
			if (err)
				return err;
		}
	}
	return 0;
}

int balun_sim_fork(struct balun_space *sp, struct balun_sim_child **ret_child)
{
	struct sim *s = sim_of(sp);
	struct balun_sim_child *child;
	int err;

	if (!s)
		return -EINVAL;
	child = env_alloc(sizeof(*child));
	if (!child)
		return -ENOMEM;
	env_list_init(&child->block);
	/* pages that a device would not give back are poisoned by now, as they will be in the child
	 */
	core_quiesce(sp);
	env_mutex_lock(&s->lock);
	err = child_copy(s, child);
	env_mutex_unlock(&s->lock);
	core_resume(sp);
	if (err) {
		balun_sim_child_exit(child);
		return err;
	}
	*ret_child = child;
	return 0;
}

static const struct sim_block *child_block(const struct balun_sim_child *child, uint64_t va)
{
	const struct env_list *l;

	env_list_for_each (l, &child->block) {
		const struct sim_block *b = env_container_of(l, struct sim_block, hash);

		if (b->va == sim_base(va))
			return b;
	}
	return NULL;
}

int balun_sim_child_load(struct balun_sim_child *child, uint64_t va, void *buf, size_t len)
{
	while (len) {
		size_t n = ENV_MIN(len, BALUN_PAGE_SIZE - (va & (BALUN_PAGE_SIZE - 1)));
		const struct sim_block *b = child_block(child, va);
		unsigned int flags = b ? b->flags[sim_index(va)] : 0;
		const char *frame = b ? b->frame[sim_index(va)] : NULL;

		if (!(flags & BALUN_SIM_READ))
			return -EFAULT;
		if (flags & SIM_POISON)
			return -EHWPOISON;
		if (frame)
			memcpy(buf, frame + (va & (BALUN_PAGE_SIZE - 1)), n);
		else
			memset(buf, 0, n);
		va += n;
		buf = (char *)buf + n;
		len -= n;
	}
	return 0;
}

void balun_sim_child_exit(struct balun_sim_child *child)
{
	struct env_list *l, *next;

	if (!child)
		return;
	env_list_for_each_safe (l, next, &child->block)
		sim_block_free(env_container_of(l, struct sim_block, hash));
	env_free(child);
}
