// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: demo_soft.c - what runs on the device
 *
 * Memory exists here only through soft_*(): the pointers are those that malloc() gave the program,
 * and every access goes through the device's own page table. Each launch is split evenly among the
 * workers; only demo_soft_rank_push() writes where another worker may write too, and adds
 * atomically.
 */
#include "demo.h"

#define AT(va, type, member)	 ((va) + offsetof(struct type, member))
#define LOAD(w, va, type, m)	 soft_load_u64(w, AT(va, type, m))
#define STORE(w, va, type, m, v) soft_store_u64(w, AT(va, type, m), v)

static uint64_t package(struct soft_worker *w, const struct job *job, uint64_t i)
{
	return soft_load_u64(w, (uint64_t)(uintptr_t)job->all + i * sizeof(struct pkg *));
}

/* reads the job, and this worker's share of its packages */
static void begin(struct soft_worker *w, uint64_t arg, struct job *ret_job)
{
	uint64_t n;

	soft_read(w, arg, ret_job, sizeof(*ret_job));
	n = ret_job->to - ret_job->from;
	ret_job->to = ret_job->from + n * (w->index + 1) / w->nworkers;
	ret_job->from += n * w->index / w->nworkers;
}

static uint64_t hash_text(struct soft_worker *w, uint64_t s)
{
	uint64_t h = GRAPH_HASH_START;
	uint8_t c;

	while ((c = soft_load_u8(w, s++)))
		h = graph_hash_step(h, c);
	return h;
}

static bool same_text(struct soft_worker *w, uint64_t a, uint64_t b)
{
	uint8_t c;

	do {
		c = soft_load_u8(w, a++);
		if (c != soft_load_u8(w, b++))
			return false;
	} while (c);
	return true;
}

/* the package of a name, or 0 */
static uint64_t find_name(struct soft_worker *w, const struct job *job, uint64_t text)
{
	uint64_t slot = hash_text(w, text) & (job->nbuckets - 1);
	uint64_t n = soft_load_u64(w, (uint64_t)(uintptr_t)job->bucket + slot * 8);

	while (n && !same_text(w, LOAD(w, n, name, text), text))
		n = LOAD(w, n, name, next);
	return n ? LOAD(w, n, name, pkg) : 0;
}

static uint64_t link_dep(struct soft_worker *w, const struct job *job, uint64_t dep)
{
	uint64_t a = LOAD(w, dep, dep, alts), p = 0;

	for (; a && !p; a = LOAD(w, a, alt, next))
		p = find_name(w, job, LOAD(w, a, alt, name));
	STORE(w, dep, dep, to, p);
	return p;
}

/* names become pointers: every dependency finds its package */
void demo_soft_link(struct soft_worker *w, uint64_t arg)
{
	uint64_t i, p, d, linked;
	struct job job;

	begin(w, arg, &job);
	for (i = job.from; i < job.to; i++) {
		p = package(w, &job, i);
		linked = 0;
		for (d = LOAD(w, p, pkg, deps); d; d = LOAD(w, d, dep, next))
			linked += link_dep(w, &job, d) != 0;
		STORE(w, p, pkg, linked, linked);
	}
}

/* marks what @p leads to directly; returns the new end of the queue */
static uint64_t visit(struct soft_worker *w, const struct scratch *s, uint64_t p, uint32_t mark,
		      uint64_t tail)
{
	uint64_t d, to, seen;

	for (d = LOAD(w, p, pkg, deps); d; d = LOAD(w, d, dep, next)) {
		to = LOAD(w, d, dep, to);
		if (!to)
			continue;
		seen = (uint64_t)(uintptr_t)s->seen + 4ULL * soft_load_u32(w, AT(to, pkg, index));
		if (soft_load_u32(w, seen) == mark)
			continue;
		soft_store_u32(w, seen, mark);
		soft_store_u64(w, (uint64_t)(uintptr_t)s->queue + 8 * tail++, to);
	}
	return tail;
}

/* how many packages each needs, directly or not: breadth first along the pointers */
void demo_soft_reach(struct soft_worker *w, uint64_t arg)
{
	uint64_t i, p, head, tail;
	struct scratch s;
	struct job job;

	begin(w, arg, &job);
	soft_read(w, (uint64_t)(uintptr_t)(job.scratch + w->index), &s, sizeof(s));
	for (i = job.from; i < job.to; i++) {
		p = package(w, &job, i);
		soft_store_u32(w, (uint64_t)(uintptr_t)s.seen + 4 * i, i + 1);
		tail = visit(w, &s, p, i + 1, 0);
		for (head = 0; head < tail; head++)
			tail = visit(w, &s,
				     soft_load_u64(w, (uint64_t)(uintptr_t)s.queue + 8 * head),
				     i + 1, tail);
		STORE(w, p, pkg, reach, tail);
	}
}

void demo_soft_rank_init(struct soft_worker *w, uint64_t arg)
{
	struct job job;
	uint64_t i, p;

	begin(w, arg, &job);
	for (i = job.from; i < job.to; i++) {
		p = package(w, &job, i);
		STORE(w, p, pkg, rank, RANK_ONE / job.npkgs);
		STORE(w, p, pkg, incoming, 0);
	}
}

/* every package gives its rank, less the damping, to what it needs */
void demo_soft_rank_push(struct soft_worker *w, uint64_t arg)
{
	uint64_t i, p, d, to, out, rank;
	struct job job;

	begin(w, arg, &job);
	for (i = job.from; i < job.to; i++) {
		p = package(w, &job, i);
		rank = RANK_DAMPING(LOAD(w, p, pkg, rank));
		out = LOAD(w, p, pkg, linked);
		if (!out)
			soft_add_u64(w, AT(arg, job, leak[job.iteration & 1]), rank);
		for (d = LOAD(w, p, pkg, deps); d && out; d = LOAD(w, d, dep, next)) {
			to = LOAD(w, d, dep, to);
			if (to)
				soft_add_u64(w, AT(to, pkg, incoming), rank / out);
		}
	}
}

void demo_soft_rank_pull(struct soft_worker *w, uint64_t arg)
{
	uint64_t i, p, base;
	struct job job;

	begin(w, arg, &job);
	base = (RANK_ONE - RANK_DAMPING(RANK_ONE)) / job.npkgs +
	       job.leak[job.iteration & 1] / job.npkgs;
	/* the other one is nobody's in this launch: ready for the next push */
	if (!w->index)
		STORE(w, arg, job, leak[~job.iteration & 1], 0);
	for (i = job.from; i < job.to; i++) {
		p = package(w, &job, i);
		STORE(w, p, pkg, rank, base + LOAD(w, p, pkg, incoming));
		STORE(w, p, pkg, incoming, 0);
	}
}
