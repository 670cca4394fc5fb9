// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A device's fault, balun_fault(). The policy says what comes along, or that the device uses it
 * where it is.
 */
#include "core/core.h"
#include "core/fault.h"

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

static bool overlaps(const struct fault *f, const struct engine_run *r)
{
	unsigned int a = core_run_first(r, f->block), n = r->len >> BALUN_PAGE_SHIFT;

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
	q->streak = core_streak(f->sp, f->dev->id, va);
	core_ask(f->sp, f->w, f->nruns, f->block, f->dev->id);
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
	core_streak_note(f->sp, f->w, f->dev->id);
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
	core_describe_block(f->sp, f->w, f->block, DESCRIBE_PERM, &f->nruns);
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
	core_describe_block(f->sp, f->w, f->block, DESCRIBE_PERM, &f->nruns);
	err = check_access(f);
	if (err)
		return err;
	if (f->access == BALUN_ACCESS_ATOMIC && f->sp->engine->no_atomic)
		return -EOPNOTSUPP;
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

static int device_fault(struct balun_device *dev, uint64_t va, uint64_t len, uint32_t access,
			uint64_t t0)
{
	struct balun_space *sp = dev->space;
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

int core_device_fault(struct balun_device *dev, uint64_t va, uint64_t len, uint32_t access)
{
	uint64_t t0 = env_now_ns();
	int err = device_fault(dev, va, len, access, t0);

	if (ENV_PROBE_ON(fault))
		env_probe_fault(va, len, dev->id, access, err, t0);
	return err;
}
