// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* A CPU touches memory that is on a device: it comes home, with what the policy says */
#include "core/fault.h"

/* from this streak on (the policy's window is the block by then) whole blocks ahead, at most 8 */
#define AHEAD_STREAK 5
#define AHEAD_SHIFT  3u

/* the faulted page alone, after a failure in company; -EIO: it is lost */
static int home_alone(struct balun_space *sp, uint64_t block, unsigned int page)
{
	uint64_t va = block + ((uint64_t)page << BALUN_PAGE_SHIFT);
	unsigned int dev = 0;
	int tries, err;

	for (tries = 0; tries < CORE_HOME_TRIES; tries++) {
		struct core_move mv = {
			.va = block, .cause = BALUN_CAUSE_CPU_FAULT, .force = true, .page = page
		};
		struct balun_counts c = { 0 };

		env_bit_set(mv.want, page);
		err = core_move_block(sp, &mv, &c);
		if (err)
			return err;
		if (mv.page_status == PAGE_BUSY)
			return -EBUSY;
		if (mv.page_status == PAGE_NOMEM)
			return -ENOMEM;
		if (mv.page_status != PAGE_FAILED)
			return 0;
		dev = mv.page_dev;
		if (core_is_lost(sp, dev))
			break;
	}
	return core_lose(sp, dev, va, BALUN_PAGE_SIZE) ? -EIO : -EBUSY;
}

/*
 * A streak that has reached whole blocks goes on beyond the block: twice as far each time. The next
 * fault of the streak is then expected after what was brought ahead.
 */
static void plan_ahead(struct balun_space *sp, uint64_t block, uint32_t streak)
{
	uint32_t blocks =
		streak < AHEAD_STREAK ? 0 : 1u << ENV_MIN(streak - AHEAD_STREAK, AHEAD_SHIFT);

	env_store_relaxed(&sp->ahead_va, block + BALUN_BLOCK_SIZE);
	env_store_relaxed(&sp->ahead_blocks, blocks);
}

/* pages of a block that a CPU cannot reach where they are */
static bool away_bits(struct balun_space *sp, uint64_t block, uint64_t *ret_bits)
{
	struct core_work *w = core_work_get(sp);
	int i, n;

	if (!w)
		return false;
	core_describe_block(sp, w, block, DESCRIBE_WHERE, &n);
	for (i = 0; i < n; i++) {
		const struct engine_run *r = &w->run[i];

		if (r->where == ENGINE_DEVICE && !r->cpu)
			env_bits_set_range(ret_bits, core_run_first(r, block),
					   r->len >> BALUN_PAGE_SHIFT);
	}
	core_work_put(sp, w);
	return env_bits_next(ret_bits, 0, true) < BALUN_BLOCK_PAGES;
}

bool core_cpu_ahead(struct balun_space *sp)
{
	uint32_t left = env_load_relaxed(&sp->ahead_blocks);
	struct core_move mv = { .va = env_load_relaxed(&sp->ahead_va),
				.cause = BALUN_CAUSE_PREFETCH };
	struct balun_counts c = { 0 };

	if (!left || core_thrash_level(sp, mv.va) || !away_bits(sp, mv.va, mv.want)) {
		env_store_relaxed(&sp->ahead_blocks, 0);
		return false;
	}
	ENV_STOP("move-ahead");
	core_move_block(sp, &mv, &c);
	mv.va += BALUN_BLOCK_SIZE;
	env_store_relaxed(&sp->ahead_va, mv.va);
	env_store_relaxed(&sp->ahead_blocks, left - 1);
	env_store_relaxed(&sp->streak_next[0], mv.va);
	return left > 1;
}

/* the touched page is on a lost device: it is lost, and all that is there with it. No: false */
static bool lost_with_device(struct balun_space *sp, const struct core_work *w, int nruns,
			     uint64_t va)
{
	const struct engine_run *r = w->run;

	while (nruns-- && va >= r->va + r->len)
		r++;
	if (r->where != ENGINE_DEVICE || !core_is_lost(sp, r->dev) ||
	    !core_lose(sp, r->dev, va, BALUN_PAGE_SIZE))
		return false;
	core_lose(sp, r->dev, r->va, r->len);
	return true;
}

/* a huge page of a device comes as it is: a part would split it */
static void add_huge_page(struct core_work *w, int nruns, unsigned int page)
{
	const struct engine_run *r = w->run;
	unsigned int i, end;

	while (nruns-- && page >= core_run_first(r, w->question.va) + (r->len >> BALUN_PAGE_SHIFT))
		r++;
	if (!r->huge || r->where != ENGINE_DEVICE)
		return;
	i = core_run_first(r, w->question.va);
	for (end = i + (r->len >> BALUN_PAGE_SHIFT); i < end; i++)
		if (env_bit(w->question.candidate, i))
			env_bit_set(w->answer.fetch, i);
}

/* 0; -EIO: the page is lost */
static int ask_by_runs(struct balun_space *sp, struct core_work *w, uint64_t block,
		       unsigned int page)
{
	int n;

	core_describe_block(sp, w, block, DESCRIBE_WHERE, &n);
	if (env_load(&sp->lost) &&
	    lost_with_device(sp, w, n, block + ((uint64_t)page << BALUN_PAGE_SHIFT)))
		return -EIO;
	core_ask(sp, w, n, block, 0);
	add_huge_page(w, n, page);
	return 0;
}

static int cpu_fault(struct balun_space *sp, uint64_t va, bool write)
{
	uint64_t block = va & ~(BALUN_BLOCK_SIZE - 1);
	unsigned int page = (va - block) >> BALUN_PAGE_SHIFT;
	struct core_move mv = {
		.va = block, .cause = BALUN_CAUSE_CPU_FAULT, .force = true, .page = page
	};
	struct balun_counts c = { 0 };
	env_bits demand = { 0 };
	struct core_work *w;
	bool company;
	int err;

	core_count(&sp->stats.cpu_faults, 1);
	w = core_work_get(sp);
	if (!w)
		return -ENOMEM;
	w->question.first = page;
	w->question.npages = 1;
	w->question.write = write;
	w->question.streak = core_streak(sp, 0, va & ~(BALUN_PAGE_SIZE - 1));
	if (env_load(&sp->lost) || !core_ask_away(sp, w, block)) {
		err = ask_by_runs(sp, w, block, page);
		if (err) {
			core_work_put(sp, w);
			return err;
		}
	}
	company = env_bits_count(w->answer.fetch) > 1;
	env_bit_set(demand, page);
	env_bit_set(w->answer.fetch, page);
	memcpy(mv.want, w->answer.fetch, sizeof(mv.want));
	mv.demand = demand;
	core_streak_note(sp, w, 0);
	/* a policy that brings home nothing but what is touched wants nothing ahead either */
	plan_ahead(sp, block, company ? w->question.streak : 0);
	core_work_put(sp, w);

	core_thrash_note(sp, block, false);
	err = core_move_block(sp, &mv, &c);
	if (!err && (mv.page_status == PAGE_FAILED || mv.page_status == PAGE_NOMEM))
		err = home_alone(sp, block, page);
	else if (!err && mv.page_status == PAGE_BUSY)
		err = -EBUSY;
	return err;
}

int core_cpu_fault(struct balun_space *sp, uint64_t va, bool write)
{
	uint64_t t0 = env_now_ns();
	int err;

	if (core_thrash_hold(sp, va & ~(BALUN_BLOCK_SIZE - 1)))
		return -EAGAIN;
	err = cpu_fault(sp, va, write);
	if (ENV_PROBE_ON(fault))
		env_probe_fault(va & ~(BALUN_PAGE_SIZE - 1), BALUN_PAGE_SIZE, 0, write, err, t0);
	/* last: what is counted as served is in the trace */
	core_hist_add(&sp->stats.cpu_fault, env_now_ns() - t0);
	return err;
}
