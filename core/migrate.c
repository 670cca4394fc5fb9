// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Migration: collect, copy, commit for the pages of one block, and ranges of blocks.
 *
 * Where each page is when something fails: before collect nothing has changed; a page whose copy
 * failed is put back by commit where it was; a page the program dropped meanwhile is nobody's, and
 * both its places are freed here. Device memory is got before collect and freed after commit, so
 * a page that is counted as moved has exactly one place.
 */
#include "core/core.h"

struct core_work *core_work_get(struct balun_space *sp)
{
	struct core_work *w;

	env_mutex_lock(&sp->batch_lock);
	w = sp->works;
	if (w)
		sp->works = w->next;
	env_mutex_unlock(&sp->batch_lock);
	if (!w)
		w = env_alloc(sizeof(*w));
	return w;
}

void core_work_put(struct balun_space *sp, struct core_work *w)
{
	env_mutex_lock(&sp->batch_lock);
	w->next = sp->works;
	sp->works = w;
	env_mutex_unlock(&sp->batch_lock);
}

void core_works_free(struct balun_space *sp)
{
	while (sp->works) {
		struct core_work *w = sp->works;

		sp->works = w->next;
		env_free(w);
	}
}

/*
 * A migration to device @to (0: home) begins: 0, and the destination is held; -EBUSY while the
 * space is paused and it would lead away from home; -ENODEV the destination is closing.
 */
static int move_begin(struct balun_space *sp, unsigned int to, unsigned int *ret_epoch,
		      struct balun_device **ret_dst)
{
	struct balun_device *dst = NULL;
	int err = 0;

	env_mutex_lock(&sp->move_lock);
	if (to && sp->paused)
		err = -EBUSY;
	else if (to && !(dst = core_device_hold(sp, to)))
		err = -ENODEV;
	if (!err) {
		*ret_epoch = sp->move_epoch;
		*ret_dst = dst;
		sp->moves[sp->move_epoch]++;
		sp->moves_out += dst != NULL;
	}
	env_mutex_unlock(&sp->move_lock);
	return err;
}

static void move_end(struct balun_space *sp, struct balun_device *dst, unsigned int epoch)
{
	env_mutex_lock(&sp->move_lock);
	if (dst) {
		sp->moves_out--;
		core_device_release(dst);
	}
	if (!--sp->moves[epoch] || !sp->moves_out)
		env_cond_wake(&sp->move_done);
	env_mutex_unlock(&sp->move_lock);
}

void core_moves_synchronize(struct balun_space *sp)
{
	unsigned int old;

	env_mutex_lock(&sp->move_lock);
	/* an earlier caller may still wait for this epoch's predecessor: let it */
	while (sp->moves[!sp->move_epoch])
		env_cond_wait(&sp->move_done, &sp->move_lock, ENV_FOREVER);
	old = sp->move_epoch;
	sp->move_epoch = !old;
	while (sp->moves[old])
		env_cond_wait(&sp->move_done, &sp->move_lock, ENV_FOREVER);
	env_mutex_unlock(&sp->move_lock);
}

/* pages that need a place at the destination: the others get their status now */
static void want_filter(struct balun_space *sp, struct core_work *w, const struct core_move *mv)
{
	struct engine_batch *b = &w->b;
	unsigned int first = env_bits_next(b->want, 0, true), i = first;

	while (i < BALUN_BLOCK_PAGES) {
		uint64_t va = mv->va + ((uint64_t)i << BALUN_PAGE_SHIFT);
		int r, n = sp->engine->describe(sp->e, va, mv->va + BALUN_BLOCK_SIZE - va,
						DESCRIBE_WHERE, w->run, BALUN_BLOCK_PAGES);

		for (r = 0; r < n; r++) {
			const struct engine_run *run = &w->run[r];
			unsigned int end = i + (run->len >> BALUN_PAGE_SHIFT);
			uint8_t status = PAGE_IDLE;

			if (run->where == ENGINE_DEVICE && (run->dev == mv->dst || mv->from_home))
				status = PAGE_ALREADY;
			else if (mv->src && (run->where != ENGINE_DEVICE || run->dev != mv->src))
				status = PAGE_ALREADY;
			else if (run->where == ENGINE_BUSY)
				status = PAGE_BUSY;
			else if (!run->mapped || !run->movable)
				status = PAGE_UNMOVABLE;
			else if (run->where == ENGINE_NONE && !mv->holes)
				status = PAGE_EMPTY;
			for (; status != PAGE_IDLE && i < end; i++) {
				if (!env_bit(b->want, i))
					continue;
				b->status[i] = status;
				env_bit_clear(b->want, i);
			}
			i = end;
		}
	}
}

/* frees the places of those asked-for pages that did not move; runs of places go at once */
static void free_places(struct engine_batch *b, const uint64_t *asked, struct balun_device *dev)
{
	unsigned int i, n;

	for (i = env_bits_next(asked, 0, true); i < BALUN_BLOCK_PAGES;
	     i = env_bits_next(asked, i + n, true)) {
		n = 1;
		if (b->place[i] == ~0u || b->status[i] == PAGE_MOVED)
			continue;
		while (i + n < BALUN_BLOCK_PAGES && env_bit(asked, i + n) &&
		       b->status[i + n] != PAGE_MOVED && b->place[i + n] == b->place[i] + n)
			n++;
		core_free_place(dev, b->place[i], n);
	}
}

static void free_origins(struct balun_space *sp, struct engine_batch *b,
			 const struct engine_piece *p)
{
	unsigned int i = p->first, end = p->first + p->npages, n;

	for (; i < end; i += n) {
		struct balun_device *dev;

		n = engine_status_end(b, i, end) - i; /* a piece has one contiguous source */
		if ((b->status[i] != PAGE_MOVED && b->status[i] != PAGE_GONE) || !b->origin[i])
			continue;
		dev = sp->device[b->origin[i] >> 28];
		core_resident_sub(dev, b->va, n);
		core_free_place(dev, b->origin[i] & 0xfffffff, n);
	}
}

static void add_counts(const struct engine_batch *b, const uint64_t *asked, struct balun_counts *c)
{
	uint64_t n[PAGE_GONE + 1] = { 0 };
	unsigned int i = env_bits_next(asked, 0, true), end;

	while (i < BALUN_BLOCK_PAGES) {
		end = engine_status_end(b, i, env_bits_next(asked, i, false));
		n[b->status[i]] += end - i;
		i = env_bits_next(asked, end, true);
	}
	c->moved += n[PAGE_MOVED];
	c->already += n[PAGE_ALREADY];
	c->empty += n[PAGE_EMPTY] + n[PAGE_GONE];
	c->busy += n[PAGE_BUSY];
	c->unmovable += n[PAGE_UNMOVABLE];
	c->nomem += n[PAGE_NOMEM];
	c->failed += n[PAGE_FAILED];
}

/* bytes by cause: what was asked for has the move's cause, the rest came along */
static void piece_stats(struct balun_space *sp, const struct core_move *mv,
			const struct engine_batch *b, const struct engine_piece *p)
{
	unsigned int i = p->first, end = p->first + p->npages, moved = 0, ahead = 0, to;
	uint64_t *by_cause = mv->dst && p->src_kind == BALUN_KIND_LOCAL ? sp->stats.device_to_device
			     : mv->dst					? sp->stats.to_device
									: sp->stats.to_system;

	for (; i < end; i = to) {
		to = engine_status_end(b, i, end);
		if (b->status[i] != PAGE_MOVED)
			continue;
		moved += to - i;
		for (; mv->demand && i < to; i++)
			ahead += !env_bit(mv->demand, i);
	}
	core_count(&by_cause[mv->cause], (uint64_t)(moved - ahead) << BALUN_PAGE_SHIFT);
	if (ahead)
		core_count(&by_cause[BALUN_CAUSE_PREFETCH], (uint64_t)ahead << BALUN_PAGE_SHIFT);
	if (p->src_kind == BALUN_KIND_ZERO)
		core_count(&sp->stats.zero_bytes, (uint64_t)moved << BALUN_PAGE_SHIFT);
	else if (p->moved)
		core_count(&sp->stats.moved_bytes, (uint64_t)moved << BALUN_PAGE_SHIFT);
}

/* what piece_stats() counts, for who traces: a run for each cause */
static void piece_probe(const struct core_move *mv, const struct engine_batch *b,
			const struct engine_piece *p)
{
	unsigned int i = p->first, end = p->first + p->npages, to;
	unsigned int from = p->src_kind == BALUN_KIND_LOCAL ? p->src_dev : 0;

	for (; i < end; i = to) {
		bool ahead = mv->demand && !env_bit(mv->demand, i);

		to = engine_status_end(b, i, end);
		if (mv->demand)
			to = ENV_MIN(to, env_bits_next(mv->demand, i, ahead));
		if (b->status[i] != PAGE_MOVED)
			continue;
		env_probe_migrate(b->va + ((uint64_t)i << BALUN_PAGE_SHIFT),
				  (uint64_t)(to - i) << BALUN_PAGE_SHIFT,
				  ahead ? BALUN_CAUSE_PREFETCH : mv->cause, from, mv->dst,
				  mv->begun_ns);
	}
}

/* collect, copy, commit; places are there */
static void move_pages(struct balun_space *sp, struct core_work *w, struct core_move *mv)
{
	struct engine_batch *b = &w->b;
	unsigned int first = env_bits_next(b->want, 0, true), last = BALUN_BLOCK_PAGES, i;
	uint64_t va, len;
	int err;

	while (!env_bit(b->want, last - 1))
		last--;
	va = mv->va + ((uint64_t)first << BALUN_PAGE_SHIFT);
	len = (uint64_t)(last - first) << BALUN_PAGE_SHIFT;

	core_invalidate_begin(sp, va, len, mv->cause);
	err = sp->engine->collect(sp->e, b);
	if (!err) {
		mv->page_dev = b->origin[mv->page] >> 28; /* commit forgets it when it puts back */
		ENV_STOP("move-collected");
		if (b->npieces)
			core_copy_batch(sp, w);
		ENV_STOP("move-copied");
		sp->engine->commit(sp->e, b);
		ENV_STOP("move-committed");
	} else {
		for (i = first; i < last; i++)
			if (env_bit(b->want, i))
				b->status[i] = err == -ENOMEM	? PAGE_NOMEM
					       : err == -EFAULT ? PAGE_UNMOVABLE
								: PAGE_BUSY;
	}
	core_invalidate_end(sp, va, len);
}

static void batch_init(struct engine_batch *b, struct balun_space *sp, const struct core_move *mv)
{
	b->space = sp;
	b->va = mv->va;
	memcpy(b->want, mv->want, sizeof(b->want));
	b->dst = mv->dst;
	b->src = mv->src;
	b->cause = mv->cause;
	b->holes = mv->holes;
	b->hold = mv->hold;
	b->npieces = 0;
	b->engine = NULL;
	memset(b->status, PAGE_IDLE, sizeof(b->status));
	b->origin[mv->page] = 0;
}

static unsigned int drop_pinned(struct balun_space *sp, const struct core_move *mv,
				struct engine_batch *b)
{
	unsigned int before, i;
	env_bits pinned;

	if (mv->force || !hint_pinned(sp->hints, mv->va, pinned))
		return 0;
	before = env_bits_count(b->want);
	for (i = 0; i < ENV_BITS_WORDS; i++)
		b->want[i] &= ~pinned[i];
	return before - env_bits_count(b->want);
}

/* pages without a place do not take part */
static void drop_placeless(struct engine_batch *b)
{
	unsigned int i;

	for (i = 0; i < BALUN_BLOCK_PAGES; i++) {
		if (env_bit(b->want, i) && b->place[i] == ~0u) {
			b->status[i] = PAGE_NOMEM;
			env_bit_clear(b->want, i);
		}
	}
}

/*
 * After commit: memory that nothing uses any more goes back, and what happened is counted. @placed:
 * pages that @dst gave a place. Returns how many pages moved.
 */
static unsigned int settle(struct balun_space *sp, struct core_work *w, const struct core_move *mv,
			   const uint64_t *asked, const uint64_t *placed, struct balun_device *dst,
			   struct balun_counts *counts)
{
	uint64_t before = counts->moved;
	unsigned int i, moved;

	add_counts(&w->b, asked, counts);
	moved = counts->moved - before;
	if (dst && moved < env_bits_count(placed))
		free_places(&w->b, placed, dst);
	for (i = 0; i < w->b.npieces; i++) {
		if (w->b.piece[i].src_kind == BALUN_KIND_LOCAL)
			free_origins(sp, &w->b, &w->b.piece[i]);
		/* first: what is counted is in the trace */
		if (ENV_PROBE_ON(migrate))
			piece_probe(mv, &w->b, &w->b.piece[i]);
		piece_stats(sp, mv, &w->b, &w->b.piece[i]);
	}
	if (dst && moved)
		core_resident_add(dst, mv->va, moved);
	return moved;
}

/*
 * Moves pages of one block. 0, also when pages stayed; -ENODEV the destination is closing; -ENOMEM.
 * Called without locks; may sleep.
 */
int core_move_block(struct balun_space *sp, struct core_move *mv, struct balun_counts *counts)
{
	struct balun_device *dst;
	struct core_work *w;
	env_bits asked, placed;
	unsigned int epoch, n;
	int err;

	mv->begun_ns = env_now_ns();
	mv->page_status = PAGE_BUSY;
	mv->page_dev = 0;
	err = move_begin(sp, mv->dst, &epoch, &dst);
	if (err == -EBUSY) {
		counts->busy += env_bits_count(mv->want);
		return 0;
	}
	if (err)
		return err;
	w = core_work_get(sp);
	if (!w) {
		err = -ENOMEM;
		goto err_end;
	}
	batch_init(&w->b, sp, mv);
	counts->pinned += drop_pinned(sp, mv, &w->b);
	memcpy(asked, w->b.want, sizeof(asked));
	if (dst) {
		want_filter(sp, w, mv);
		memcpy(placed, w->b.want, sizeof(placed));
		n = env_bits_count(w->b.want);
		if (core_alloc_places(dst, w->b.want, mv->va, w->b.place) < (int)n)
			drop_placeless(&w->b);
	}
	if (env_bits_next(w->b.want, 0, true) < BALUN_BLOCK_PAGES)
		move_pages(sp, w, mv);
	n = settle(sp, w, mv, asked, dst ? placed : NULL, dst, counts);
	mv->page_status = w->b.status[mv->page];
	if (n) {
		uint64_t now = env_now_ns();

		core_hist_add(&sp->stats.migrate, now - mv->begun_ns);
		core_count(&sp->stats.migrate_ns, now - mv->begun_ns);
		env_live_moved(mv->va, (uint64_t)n << BALUN_PAGE_SHIFT, now);
	}
	core_work_put(sp, w);
err_end:
	move_end(sp, dst, epoch);
	return err;
}

uint64_t core_next_mapped(struct balun_space *sp, uint64_t va, uint64_t end)
{
	uint64_t next = sp->engine->next_mapped(sp->e, va) & ~(BALUN_PAGE_SIZE - 1);

	return ENV_MIN(end, ENV_MAX(next, va));
}

/* After a block none of which could move: to where something is mapped, or pinned all the same.
 * What is passed over counts as it would, had each block been looked at. */
static uint64_t skip_unmapped(struct balun_space *sp, uint64_t va, uint64_t end,
			      struct balun_counts *counts)
{
	uint64_t pin = hint_next_pin(sp->hints, va);
	uint64_t next = core_next_mapped(sp, va, ENV_MIN(end, pin));

	counts->unmovable += (next - va) >> BALUN_PAGE_SHIFT;
	return next;
}

int core_migrate_range(struct balun_space *sp, uint64_t va, uint64_t len, unsigned int dst,
		       bool from_home, enum balun_cause cause, struct balun_counts *counts)
{
	uint64_t end = (va + len + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1);

	va &= ~(BALUN_PAGE_SIZE - 1);
	while (va < end) {
		uint64_t block = va & ~(BALUN_BLOCK_SIZE - 1);
		uint64_t to = ENV_MIN(end, block + BALUN_BLOCK_SIZE);
		struct core_move mv = { .va = block,
					.dst = dst,
					.from_home = from_home,
					.cause = cause,
					.holes = dst && !from_home };
		uint64_t busy = counts->busy, unmovable = counts->unmovable;
		int err;

		env_bits_set_range(mv.want, (va - block) >> BALUN_PAGE_SHIFT,
				   (to - va) >> BALUN_PAGE_SHIFT);
		core_give_way(sp, block);
		err = core_move_block(sp, &mv, counts);
		if (!err && env_killed())
			err = -EINTR;
		if (err)
			return err;
		if (counts->busy > busy)
			core_count(&sp->stats.busy, counts->busy - busy);
		if (counts->unmovable - unmovable == (to - va) >> BALUN_PAGE_SHIFT)
			to = skip_unmapped(sp, to, end, counts);
		va = to;
	}
	return 0;
}
