// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Where pages are and what the program may do with them: asked of the tables and of the kernel. */
#include "engine/uffd/uffd.h"

static void run_of_vma(const struct vma *v, struct engine_run *r)
{
	r->mapped = 1;
	r->perm = (v->read ? BALUN_PERM_READ : 0) | (v->write ? BALUN_PERM_WRITE : 0);
	if (!v->read)
		r->perm = 0;
}

/* guards: to touch them is a fault for a device too */
static void run_of_guards(struct engine_run *r)
{
	r->where = ENGINE_NONE;
	r->mapped = r->movable = r->perm = 0;
}

/* cut a run of system memory where pages begin or cease to be there, or to be guards */
static void split_holes(struct engine_run *r)
{
	env_bits present, guards;
	unsigned int n = r->len >> BALUN_PAGE_SHIFT;
	bool here, guard;

	if (maps_holes(r->va, n, present, guards))
		return;
	here = env_bit(present, 0);
	guard = env_bit(guards, 0);
	n = ENV_MIN(n, env_bits_next(present, 0, !here));
	n = ENV_MIN(n, env_bits_next(guards, 0, !guard));
	r->len = n * PAGE;
	if (guard) {
		run_of_guards(r);
		return;
	}
	r->where = here ? ENGINE_SYSTEM : ENGINE_NONE;
}

/* all that the kernel says of its pages; cut where the answer changes */
static void describe_pages(struct engine_run *r, bool shared_mapping)
{
	unsigned int n = r->len >> BALUN_PAGE_SHIFT, k = 1;
	uint8_t page[BALUN_BLOCK_PAGES];

	if (maps_look(r->va, n, page))
		return;
	while (k < n && page[k] == page[0])
		k++;
	r->len = k * PAGE;
	if (page[0] & MAPS_GUARD) {
		run_of_guards(r);
		return;
	}
	r->where = page[0] & MAPS_HERE ? ENGINE_SYSTEM : ENGINE_NONE;
	r->zero = !!(page[0] & MAPS_ZERO);
	r->huge = !!(page[0] & MAPS_HUGE);
	/* a private mapping of a file shows the file's own page until it is written */
	r->shared = page[0] & MAPS_SHARED || (page[0] & MAPS_CACHE && !shared_mapping);
}

/*
 * Coherent memory: cut where pages cease to be mapped, or to be held. If that changes before the
 * answer is used, a migration has changed it, and the retry protocol notices.
 */
static void describe_coherent(struct engine_run *r)
{
	unsigned int n = r->len >> BALUN_PAGE_SHIFT, i;
	env_bits present, guards;

	if (maps_holes(r->va, n, present, guards))
		return;
	for (i = 0; i < ENV_BITS_WORDS; i++)
		present[i] &= ~guards[i];
	r->cpu = env_bit(present, 0);
	r->len = ENV_MIN(n, env_bits_next(present, 0, !r->cpu)) * PAGE;
}

static void describe_memory(struct engine_run *r, bool watched, enum engine_detail detail)
{
	struct vma v;

	if (watched && detail == DESCRIBE_WHERE) {
		r->mapped = r->movable = 1;
		return;
	}
	if (maps_query(r->va, &v)) {
		r->where = ENGINE_NONE;
		return;
	}
	if (v.start > r->va) {
		r->len = ENV_MIN(r->len, v.start - r->va);
		r->where = ENGINE_NONE;
		return;
	}
	r->len = ENV_MIN(r->len, v.end - r->va);
	run_of_vma(&v, r);
	if (!watched) {
		uint64_t until;
		bool object = maps_is_object(r->va, r->va + r->len, &until);

		r->len = until - r->va;
		r->movable = !object && !v.shared && !v.file && !v.special && v.read &&
			     !env_owns(r->va, r->len);
	} else {
		r->movable = 1;
	}
	if (r->where == ENGINE_SYSTEM && detail == DESCRIBE_ALL)
		describe_pages(r, v.shared);
	else if (r->where == ENGINE_SYSTEM && r->movable && detail == DESCRIBE_PERM)
		split_holes(r);
}

int uffd_describe(void *e, uint64_t va, uint64_t len, enum engine_detail detail,
		  struct engine_run *run, int n)
{
	struct uffd *u = e;
	uint64_t end = ENV_MIN(va + len, BLOCK_OF(va) + BLOCK);
	int k = 0;

	while (va < end && k < n) {
		struct engine_run *r = &run[k++];
		uint64_t until, lost_until;
		struct softpt_run s;
		bool watched, lost;

		env_mutex_lock(&u->lock);
		softpt_run(u->pt, va, end - va, &s);
		watched = watch_covers(&u->watch, va, &until);
		lost = watch_covers(&u->lost, va, &lost_until);
		until = ENV_MIN(until, lost_until);
		env_mutex_unlock(&u->lock);
		*r = (struct engine_run){ .va = va,
					  .len = ENV_MIN(s.len, until - va),
					  .addr = va,
					  .where = ENGINE_SYSTEM };
		if (s.busy) {
			r->where = ENGINE_BUSY;
		} else if (s.away) {
			r->where = ENGINE_DEVICE;
			r->dev = SOFTPT_DEV(s.place);
			r->off = (uint64_t)SOFTPT_PGNO(s.place) << BALUN_PAGE_SHIFT;
			if (uffd_is_coherent(u, r->dev))
				describe_coherent(r);
		}
		if (lost)
			*r = (struct engine_run){
				.va = va, .len = r->len, .where = ENGINE_LOST, .mapped = 1
			};
		else
			describe_memory(r, watched, detail);
		va += r->len;
	}
	return k;
}

bool uffd_away(void *e, uint64_t block, unsigned int page, uint64_t *ret_bits,
	       unsigned int *ret_dev)
{
	struct uffd *u = e;
	struct softpt_run r;
	unsigned int dev;
	uint64_t until;
	bool all;

	env_mutex_lock(&u->lock);
	all = watch_covers(&u->watch, block, &until) && until - block >= BLOCK &&
	      !watch_covers(&u->lost, block, &until) && until - block >= BLOCK;
	for (dev = 1; all && dev <= BALUN_MAX_DEVICES; dev++)
		all = !uffd_is_coherent(u, dev);
	if (all) {
		softpt_away_bits(u->pt, block, ret_bits);
		softpt_run(u->pt, block + page * PAGE, PAGE, &r);
		*ret_dev = r.away && !r.busy ? SOFTPT_DEV(r.place) : 0;
	}
	env_mutex_unlock(&u->lock);
	return all;
}

uint64_t uffd_next_mapped(void *e, uint64_t va)
{
	struct vma v;

	(void)e;
	return maps_query(va, &v) ? UINT64_MAX : ENV_MAX(va, v.start);
}
