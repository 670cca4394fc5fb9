// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Faults: a device's (balun_fault()) and a CPU's (core_cpu_fault()). Both ask the policy what else
 * should come along; only a device's may be answered by "use it where it is".
 */
#include "core/core.h"

/* how often the faulted page alone is tried again after its copy home failed */
#define HOME_TRIES 16
/* from this streak on (the policy's window is the block by then) whole blocks ahead, at most 8 */
#define AHEAD_STREAK 5
#define AHEAD_SHIFT  3u
/* lost races after which a device fault looks and maps under the lock */
#define FAULT_LOST_MAX 2

struct fault {
	struct balun_space *sp;
	struct balun_device *dev;
	uint64_t block, deadline;
	uint64_t seq, look;	    /* of core, of the engine: to see whether memory has changed */
	unsigned int first, npages; /* pages of the block */
	uint32_t access;
	bool moved;	   /* a move was tried: what did not come is used in place */
	unsigned int lost; /* how often memory changed between the look and the map */
	int nruns;
	struct core_work *w;
	uint64_t pause; /* how long the last one was */
};

static bool fault_writes(const struct fault *f)
{
	return f->access == BALUN_ACCESS_WRITE || f->access == BALUN_ACCESS_ATOMIC;
}

/* runs of the whole block */
static void describe_block(struct balun_space *sp, struct core_work *w, uint64_t block,
			   enum engine_detail detail, int *ret_n)
{
	uint64_t va = block, end = block + BALUN_BLOCK_SIZE;
	int n = 0;

	while (va < end && n < (int)BALUN_BLOCK_PAGES) {
		n += sp->engine->describe(sp->e, va, end - va, detail, &w->run[n],
					  BALUN_BLOCK_PAGES - n);
		va = w->run[n - 1].va + w->run[n - 1].len;
	}
	*ret_n = n;
}

static unsigned int run_first(const struct engine_run *r, uint64_t block)
{
	return (r->va - block) >> BALUN_PAGE_SHIFT;
}

static bool overlaps(const struct fault *f, const struct engine_run *r)
{
	unsigned int a = run_first(r, f->block), n = r->len >> BALUN_PAGE_SHIFT;

	return a < f->first + f->npages && f->first < a + n;
}

/* may the device do this at all? As the CPU could: the errors of hmm_range_fault() */
static int check_access(const struct fault *f)
{
	int i;

	for (i = 0; i < f->nruns; i++) {
		const struct engine_run *r = &f->w->run[i];

		if (!overlaps(f, r))
			continue;
		if (!r->mapped || !(r->perm & BALUN_PERM_READ) || r->where == ENGINE_LOST)
			return -EFAULT;
		if (fault_writes(f) && !(r->perm & BALUN_PERM_WRITE))
			return -EPERM;
	}
	return 0;
}

/* what there is to do for a faulted range before it can be mapped */
struct sight {
	bool busy;   /* a page is in transit */
	bool far;    /* not local, and could be */
	bool away;   /* out of reach of this device: must come here or home */
	bool common; /* local, but CPUs reach it, and the access is atomic: home, and back */
	bool shared; /* local, but also another process's, and the access writes */
	bool cow;    /* in system memory, and would be another page once it is written to */
};

static void look(const struct fault *f, struct sight *s)
{
	int i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < f->nruns; i++) {
		const struct engine_run *r = &f->w->run[i];
		bool local = r->where == ENGINE_DEVICE && r->dev == f->dev->id;

		if (!overlaps(f, r))
			continue;
		if (r->where == ENGINE_BUSY)
			s->busy = true;
		else if (local)
			s->common |= r->cpu && f->access == BALUN_ACCESS_ATOMIC,
				s->shared |= r->shared && fault_writes(f);
		else if (r->where == ENGINE_DEVICE)
			s->far = true, s->away |= !r->cpu || f->access == BALUN_ACCESS_ATOMIC;
		else if (r->movable)
			s->far = true;
		if (!local && (r->shared || r->zero))
			s->cow |= fault_writes(f);
	}
}

static void ask(struct balun_space *sp, struct core_work *w, int nruns, uint64_t block,
		unsigned int dev)
{
	struct balun_question *q = &w->question;
	env_bits pinned = { 0 };
	struct hint h;
	int i;

	hint_get(sp->hints, block + ((uint64_t)q->first << BALUN_PAGE_SHIFT), &h);
	q->size = sizeof(*q);
	q->va = block;
	q->device = dev;
	q->hints = h.flags;
	q->preferred = h.preferred;
	if (dev && h.accessed_by >> dev & 1)
		q->hints |= BALUN_HINT_ACCESSED_BY;
	q->thrashing = core_thrash_level(sp, block);
	memset(q->local, 0, sizeof(q->local));
	memset(q->candidate, 0, sizeof(q->candidate));
	for (i = 0; i < nruns; i++) {
		const struct engine_run *r = &w->run[i];
		unsigned int a = run_first(r, block), n = r->len >> BALUN_PAGE_SHIFT;
		bool away = r->where == ENGINE_DEVICE && (dev || !r->cpu);
		bool local = dev ? away && r->dev == dev : r->mapped && !away;

		if (local)
			env_bits_set_range(q->local, a, n);
		else if (dev ? r->mapped && r->movable && r->where != ENGINE_BUSY : away)
			env_bits_set_range(q->candidate, a, n);
	}
	hint_pinned(sp->hints, block, pinned);
	for (i = 0; i < ENV_BITS_WORDS; i++)
		q->candidate[i] &= ~pinned[i];
	memset(&w->answer, 0, sizeof(w->answer));
	sp->policy->decide(q, &w->answer);
	for (i = 0; i < ENV_BITS_WORDS; i++)
		w->answer.fetch[i] &= q->candidate[i];
}

/* where the next fault of a streak will be: the first page after the fault that is not here */
static void streak_note(struct balun_space *sp, const struct core_work *w, unsigned int dev)
{
	const struct balun_question *q = &w->question;
	unsigned int i = q->first;

	while (i < BALUN_BLOCK_PAGES && (env_bit(w->answer.fetch, i) || env_bit(q->local, i)))
		i++;
	env_store_relaxed(&sp->streak_next[dev], q->va + ((uint64_t)i << BALUN_PAGE_SHIFT));
}

static uint32_t streak_of(struct balun_space *sp, unsigned int dev, uint64_t va)
{
	uint32_t n = env_load_relaxed(&sp->streak[dev]);

	n = env_load_relaxed(&sp->streak_next[dev]) == va ? n + 1 : 0;
	env_store_relaxed(&sp->streak[dev], n);
	return n;
}

/* move what policy wants of the block to the faulting device */
static int fetch(struct fault *f)
{
	struct balun_question *q = &f->w->question;
	struct core_move mv = {
		.va = f->block, .dst = f->dev->id, .cause = BALUN_CAUSE_DEVICE_FAULT, .holes = true
	};
	struct balun_counts c = { 0 };
	env_bits demand = { 0 };
	unsigned int i;
	uint64_t va = f->block + ((uint64_t)f->first << BALUN_PAGE_SHIFT);

	q->first = f->first;
	q->npages = f->npages;
	q->write = fault_writes(f);
	q->streak = streak_of(f->sp, f->dev->id, va);
	ask(f->sp, f->w, f->nruns, f->block, f->dev->id);
	f->moved = true;
	if (f->access != BALUN_ACCESS_ATOMIC && f->w->answer.stay)
		return 0;
	env_bits_set_range(demand, f->first, f->npages);
	for (i = 0; i < ENV_BITS_WORDS; i++) {
		demand[i] &= q->candidate[i];
		f->w->answer.fetch[i] |= demand[i];
	}
	/* pages held for atomics leave the CPU's reach: only what was asked for */
	mv.hold = f->access == BALUN_ACCESS_ATOMIC && f->dev->desc.caps & BALUN_CAP_COHERENT;
	/* where a block has no room, what comes along would take the place of what was asked for */
	memcpy(mv.want,
	       mv.hold || f->dev->desc.mem_bytes < BALUN_BLOCK_SIZE ? demand : f->w->answer.fetch,
	       sizeof(mv.want));
	mv.demand = demand;
	streak_note(f->sp, f->w, f->dev->id);
	if (!env_bits_count(mv.want))
		return 0;
	core_thrash_note(f->sp, f->block, true);
	return core_move_block(f->sp, &mv, &c);
}

/* pages on a third device come home, so that they can be used in place */
static int fetch_home(struct fault *f)
{
	struct core_move mv = {
		.va = f->block, .cause = BALUN_CAUSE_DEVICE_FAULT, .force = true, .page = f->first
	};
	struct balun_counts c = { 0 };
	int err;

	env_bits_set_range(mv.want, f->first, f->npages);
	err = core_move_block(f->sp, &mv, &c);
	if (!err && c.failed)
		err = -EIO;
	return err;
}

static int make_private(struct fault *f)
{
	uint64_t va = f->block + ((uint64_t)f->first << BALUN_PAGE_SHIFT);
	int err = f->sp->engine->unshare(f->sp->e, va, (uint64_t)f->npages << BALUN_PAGE_SHIFT);

	f->moved = false; /* the new pages may come */
	return err == -EAGAIN ? 0 : err;
}

/*
 * Segments: every run of the block that lives on the device, so that one fault maps all of it,
 * and what is used in place only as far as it was asked for.
 */
static int make_segs(struct fault *f)
{
	uint64_t from = f->block + ((uint64_t)f->first << BALUN_PAGE_SHIFT);
	uint64_t to = from + ((uint64_t)f->npages << BALUN_PAGE_SHIFT);
	int i, n = 0;

	for (i = 0; i < f->nruns; i++) {
		const struct engine_run *r = &f->w->run[i];
		struct balun_seg *s = &f->w->seg[n];

		if (!(r->perm & BALUN_PERM_READ))
			continue;
		*s = (struct balun_seg){ .va = r->va, .len = r->len, .perm = r->perm };
		if (r->where == ENGINE_DEVICE && r->dev == f->dev->id) {
			s->kind = r->cpu ? BALUN_KIND_COHERENT : BALUN_KIND_LOCAL;
			s->addr = r->cpu ? r->addr : r->off;
			if (r->shared)
				s->perm &= ~BALUN_PERM_WRITE;
			if (!r->cpu && s->perm & BALUN_PERM_WRITE)
				s->perm |= BALUN_PERM_ATOMIC;
			n++;
		} else if (overlaps(f, r) && r->where != ENGINE_BUSY &&
			   (r->where != ENGINE_DEVICE || r->cpu)) {
			uint64_t a = ENV_MAX(r->va, from), b = ENV_MIN(r->va + r->len, to);

			s->kind = BALUN_KIND_SYSTEM;
			s->va = a;
			s->len = b - a;
			s->addr = r->addr + (a - r->va);
			n++;
		}
	}
	return n;
}

/* stripe lock held, nothing has changed since the look */
static int map_locked(struct fault *f)
{
	int n = make_segs(f), err;
	unsigned int flags;

	if (!n)
		return 0;
	flags = env_noreclaim_begin();
	err = f->dev->ops.map(f->dev->priv, f->sp, f->w->seg, n);
	env_noreclaim_end(flags);
	if (err) /* a part may be there: none is better than some */
		f->dev->ops.unmap(f->dev->priv, f->sp, f->block, BALUN_BLOCK_SIZE,
				  BALUN_CAUSE_DEVICE_FAULT);
	return err;
}

/* 1: memory changed meanwhile, look again */
static int map_runs(struct fault *f)
{
	struct core_stripe *st = core_stripe(f->sp, f->block);
	int err = 1;

	ENV_STOP("fault-looked");
	env_mutex_lock(&st->lock);
	if (core_read_retry(st, f->seq) ||
	    f->sp->engine->look_changed(f->sp->e, f->block, f->look)) {
		core_count(&f->sp->stats.retries, 1);
		f->lost++;
	} else {
		err = map_locked(f);
	}
	env_mutex_unlock(&st->lock);
	return err;
}

/*
 * Who lost the race a few times looks and maps under the lock: an invalidation has to wait for
 * that, so it succeeds, at the price of system calls under the lock. 1: there is more to do than to
 * map.
 */
static int map_stubborn(struct fault *f)
{
	struct core_stripe *st = core_stripe(f->sp, f->block);
	struct sight s;
	int err;

	env_mutex_lock(&st->lock);
	err = core_wait_inactive(st, f->deadline);
	if (err)
		goto unlock;
	describe_block(f->sp, f->w, f->block, DESCRIBE_PERM, &f->nruns);
	err = check_access(f);
	if (err)
		goto unlock;
	look(f, &s);
	if (s.busy || s.away || s.common || s.shared || (s.far && f->access == BALUN_ACCESS_ATOMIC))
		err = 1;
	else
		err = map_locked(f);
unlock:
	env_mutex_unlock(&st->lock);
	return err;
}

/* before asking again for what may not change soon (a pin): longer each time */
static void pause_a_little(struct fault *f)
{
	f->pause = f->pause ? ENV_MIN(2 * f->pause, 16000000ULL) : 20000;
	env_sleep_ns(f->pause);
}

/* one look: 0 mapped, 1 look again, or -errno */
static int fault_once(struct fault *f)
{
	uint64_t now = env_now_ns();
	struct sight s;
	int err;

	if (env_load(&f->dev->closing) || core_is_lost(f->sp, f->dev->id))
		return -ENODEV;
	if (f->lost >= FAULT_LOST_MAX && f->sp->engine->look_locked) {
		err = map_stubborn(f);
		if (err != 1)
			return err;
	}
	err = core_read_begin(f->sp, f->block, f->deadline, &f->seq);
	if (err)
		return err;
	f->look = f->sp->engine->look_begin(f->sp->e, f->block);
	describe_block(f->sp, f->w, f->block, DESCRIBE_PERM, &f->nruns);
	err = check_access(f);
	if (err)
		return err;
	look(f, &s);
	if (s.busy) {
		if (now >= f->deadline ||
		    !f->sp->engine->wait_idle(f->sp->e, f->block, f->deadline - now))
			return -EBUSY;
		return 1;
	}
	if (s.shared) {
		err = make_private(f);
		return err ? err : now >= f->deadline ? -EBUSY : 1;
	}
	if (s.common || (s.away && f->moved)) {
		err = fetch_home(f);
		return err ? err : now >= f->deadline ? -EBUSY : 1;
	}
	if (s.far && !f->moved) {
		err = fetch(f);
		return err ? err : 1;
	}
	if (s.far && f->access == BALUN_ACCESS_ATOMIC) {
		if (now >= f->deadline)
			return -EBUSY;
		pause_a_little(f); /* it could come, but did not, or left again */
		f->moved = false;
		return 1;
	}
	if (s.cow) { /* else the first write would take away what is mapped now */
		err = make_private(f);
		f->moved = true;
		return err ? err : now >= f->deadline ? -EBUSY : 1;
	}
	err = map_runs(f);
	return err == 1 && now >= f->deadline ? -EBUSY : err;
}

static int atomic_possible(const struct fault *f)
{
	int i;

	for (i = 0; i < f->nruns; i++)
		if (overlaps(f, &f->w->run[i]) && f->w->run[i].mapped && !f->w->run[i].movable &&
		    f->w->run[i].where != ENGINE_DEVICE)
			return -EOPNOTSUPP;
	return 0;
}

static int fault_block(struct fault *f)
{
	int err;

	f->moved = false;
	f->lost = 0;
	do {
		err = fault_once(f);
	} while (err == 1);
	if (!err && f->access == BALUN_ACCESS_ATOMIC)
		err = atomic_possible(f);
	if (!err)
		core_resident_touch(f->dev, f->block);
	if (!err && fault_writes(f) &&
	    hint_device_wrote(f->sp->hints, f->block + ((uint64_t)f->first << BALUN_PAGE_SHIFT)))
		core_count(&f->sp->stats.hints_off, 1);
	return f->access == BALUN_ACCESS_PREFETCH && err != -ENODEV ? 0 : err;
}

int core_device_fault(struct balun_device *dev, uint64_t va, uint64_t len, uint32_t access)
{
	struct balun_space *sp = dev->space;
	uint64_t t0 = env_now_ns();
	uint64_t end = (va + len + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1);
	struct fault f = { .sp = sp, .dev = dev, .access = access, .deadline = t0 + CORE_FAULT_NS };
	int err = 0;

	core_count(&sp->stats.device_faults, 1);
	f.w = core_work_get(sp);
	if (!f.w)
		return -ENOMEM;
	va &= ~(BALUN_PAGE_SIZE - 1);
	while (!err && va < end) {
		uint64_t to;

		f.block = va & ~(BALUN_BLOCK_SIZE - 1);
		to = ENV_MIN(end, f.block + BALUN_BLOCK_SIZE);
		f.first = (va - f.block) >> BALUN_PAGE_SHIFT;
		f.npages = (to - va) >> BALUN_PAGE_SHIFT;
		err = env_killed() ? -EINTR : fault_block(&f);
		va = to;
	}
	core_work_put(sp, f.w);
	core_hist_add(&sp->stats.device_fault, env_now_ns() - t0);
	return err;
}

/* the faulted page alone, after a failure in company; -EIO: it is lost */
static int home_alone(struct balun_space *sp, uint64_t block, unsigned int page)
{
	uint64_t va = block + ((uint64_t)page << BALUN_PAGE_SHIFT);
	unsigned int dev = 0;
	int tries, err;

	for (tries = 0; tries < HOME_TRIES; tries++) {
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
	describe_block(sp, w, block, DESCRIBE_WHERE, &n);
	for (i = 0; i < n; i++) {
		const struct engine_run *r = &w->run[i];

		if (r->where == ENGINE_DEVICE && !r->cpu)
			env_bits_set_range(ret_bits, run_first(r, block),
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

int core_cpu_fault(struct balun_space *sp, uint64_t va, bool write)
{
	uint64_t t0 = env_now_ns(), block = va & ~(BALUN_BLOCK_SIZE - 1);
	unsigned int page = (va - block) >> BALUN_PAGE_SHIFT;
	struct core_move mv = {
		.va = block, .cause = BALUN_CAUSE_CPU_FAULT, .force = true, .page = page
	};
	struct balun_counts c = { 0 };
	env_bits demand = { 0 };
	struct core_work *w;
	bool company;
	int n, err;

	if (core_thrash_hold(sp, block))
		return -EAGAIN;
	core_count(&sp->stats.cpu_faults, 1);
	w = core_work_get(sp);
	if (!w)
		return -ENOMEM;
	describe_block(sp, w, block, DESCRIBE_WHERE, &n);
	if (env_load(&sp->lost) && lost_with_device(sp, w, n, va & ~(BALUN_PAGE_SIZE - 1))) {
		core_work_put(sp, w);
		return -EIO;
	}
	w->question.first = page;
	w->question.npages = 1;
	w->question.write = write;
	w->question.streak = streak_of(sp, 0, va & ~(BALUN_PAGE_SIZE - 1));
	ask(sp, w, n, block, 0);
	company = env_bits_count(w->answer.fetch) > 1;
	env_bit_set(demand, page);
	env_bit_set(w->answer.fetch, page);
	memcpy(mv.want, w->answer.fetch, sizeof(mv.want));
	mv.demand = demand;
	streak_note(sp, w, 0);
	/* a policy that brings home nothing but what is touched wants nothing ahead either */
	plan_ahead(sp, block, company ? w->question.streak : 0);
	core_work_put(sp, w);

	core_thrash_note(sp, block, false);
	err = core_move_block(sp, &mv, &c);
	if (!err && (mv.page_status == PAGE_FAILED || mv.page_status == PAGE_NOMEM))
		err = home_alone(sp, block, page);
	else if (!err && mv.page_status == PAGE_BUSY)
		err = -EBUSY;
	core_hist_add(&sp->stats.cpu_fault, env_now_ns() - t0);
	return err;
}
