// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Flights: the pages of a batch between collect and commit, and where each of them lands.
 */
#include "engine/sim/table.h"

/* what collect would do with a page, before anything is taken */
static enum engine_status page_verdict(struct sim *s, const struct engine_batch *b,
				       struct sim_block *blk, unsigned int i, struct softpt_run *r)
{
	unsigned int flags = blk->flags[i];
	bool here = blk->frame[i];

	softpt_run(s->pt, b->va + i * BALUN_PAGE_SIZE, BALUN_PAGE_SIZE, r);
	if (!(flags & SIM_MAPPED) || flags & (BALUN_SIM_SHARED | SIM_POISON))
		return PAGE_UNMOVABLE;
	if (r->busy)
		return PAGE_BUSY;
	if (b->src && (!r->away || SOFTPT_DEV(r->place) != b->src))
		return PAGE_IDLE;
	if (!b->dst)
		return r->away ? PAGE_TAKEN : here ? PAGE_ALREADY : PAGE_EMPTY;
	if (r->away && SOFTPT_DEV(r->place) == b->dst)
		return PAGE_ALREADY;
	if (!r->away && !(flags & (BALUN_SIM_READ | BALUN_SIM_WRITE)))
		return PAGE_UNMOVABLE;
	if (!r->away && !here && !b->holes)
		return PAGE_EMPTY;
	return b->place[i] == ~0u ? PAGE_NOMEM : PAGE_TAKEN;
}

static void *device_page(struct sim *s, uint32_t place)
{
	return (char *)s->device[SOFTPT_DEV(place)].host_base + sim_offset(place);
}

/* a page that is mapped while on its device: the device's driver finds it in its place again */
static void unmap_coherent(struct sim *s, uint32_t place, const void *frame)
{
	memcpy(device_page(s, place), frame, BALUN_PAGE_SIZE);
}

/* and the reverse; who looks into the place from now on sees that he should not have */
static void map_coherent(struct sim *s, uint32_t place, void *frame)
{
	memcpy(frame, device_page(s, place), BALUN_PAGE_SIZE);
	memset(device_page(s, place), 0xdb, BALUN_PAGE_SIZE);
}

static bool becomes_mapped(struct sim *s, const struct engine_batch *b)
{
	return sim_is_coherent(s, b->dst) && !b->hold;
}

/* take a page: in transit from here on. 0 or -ENOMEM, and then it is where it was */
static int take_page(struct sim *s, struct engine_batch *b, struct sim_flight *f,
		     struct sim_block *blk, unsigned int i, const struct softpt_run *r)
{
	uint64_t va = b->va + i * BALUN_PAGE_SIZE;

	if (!b->dst || becomes_mapped(s, b)) {
		f->dst[i] = env_alloc(BALUN_PAGE_SIZE);
		if (!f->dst[i])
			return -ENOMEM;
	}
	if (softpt_set_busy(s->pt, va, BALUN_PAGE_SIZE)) {
		env_free(f->dst[i]);
		f->dst[i] = NULL;
		return -ENOMEM;
	}
	b->origin[i] = r->away ? r->place : 0;
	f->src[i] = blk->frame[i];
	if (r->away && f->src[i])
		unmap_coherent(s, r->place, f->src[i]);
	blk->frame[i] = NULL;
	f->at[i] = va;
	f->npages++;
	return 0;
}

static void page_piece(const struct engine_batch *b, const struct sim_flight *f, unsigned int i,
		       struct engine_piece *ret)
{
	*ret = (struct engine_piece){ .first = i, .npages = 1, .src_kind = BALUN_KIND_ZERO };
	if (b->origin[i]) {
		ret->src_kind = BALUN_KIND_LOCAL;
		ret->src_dev = SOFTPT_DEV(b->origin[i]);
		ret->src = sim_offset(b->origin[i]);
	} else if (f->src[i]) {
		ret->src_kind = BALUN_KIND_SYSTEM;
		ret->src = (uintptr_t)f->src[i];
	}
	ret->dst_kind = b->dst ? BALUN_KIND_LOCAL : BALUN_KIND_SYSTEM;
	ret->dst_dev = b->dst;
	ret->dst = b->dst ? (uint64_t)b->place[i] << BALUN_PAGE_SHIFT : (uintptr_t)f->dst[i];
}

/* frames are separate allocations: neighbours by chance are not merged, so that a schedule has the
 * same pieces in every run */
static bool piece_extends(const struct engine_piece *a, const struct engine_piece *b)
{
	uint64_t len = a->npages * BALUN_PAGE_SIZE;

	return a->first + a->npages == b->first && a->src_kind == b->src_kind &&
	       a->dst_kind == b->dst_kind && a->src_dev == b->src_dev &&
	       a->src_kind != BALUN_KIND_SYSTEM && a->dst_kind != BALUN_KIND_SYSTEM &&
	       (a->src_kind == BALUN_KIND_ZERO || a->src + len == b->src) && a->dst + len == b->dst;
}

static void add_piece(struct engine_batch *b, const struct sim_flight *f, unsigned int i)
{
	struct engine_piece p;

	page_piece(b, f, i, &p);
	if (b->npieces && piece_extends(&b->piece[b->npieces - 1], &p))
		b->piece[b->npieces - 1].npages++;
	else
		b->piece[b->npieces++] = p;
}

static bool any_mapped(const struct sim_block *blk, const uint64_t *want)
{
	unsigned int i;

	for (i = env_bits_next(want, 0, true); i < BALUN_BLOCK_PAGES;
	     i = env_bits_next(want, i + 1, true))
		if (blk->flags[i] & SIM_MAPPED)
			return true;
	return false;
}

static void collect_pages(struct sim *s, struct engine_batch *b, struct sim_flight *f,
			  struct sim_block *blk)
{
	unsigned int i;

	b->npieces = 0;
	for (i = 0; i < BALUN_BLOCK_PAGES; i++) {
		struct softpt_run r;

		if (!env_bit(b->want, i))
			continue;
		b->origin[i] = 0;
		b->status[i] = page_verdict(s, b, blk, i, &r);
		if (b->status[i] != PAGE_TAKEN)
			continue;
		if (take_page(s, b, f, blk, i, &r)) {
			b->status[i] = PAGE_NOMEM;
			continue;
		}
		add_piece(b, f, i);
	}
}

int sim_collect(void *e, struct engine_batch *b)
{
	struct sim *s = e;
	struct sim_flight *f = env_alloc(sizeof(*f));
	struct sim_block *blk;
	int err;

	if (!f)
		return -ENOMEM;
	memset(f->at, 0xff, sizeof(f->at));
	env_mutex_lock(&s->lock);
	err = -EFAULT;
	blk = sim_block_find(s, b->va);
	if (!blk || !any_mapped(blk, b->want))
		goto err_free;
	/* so that commit, which cannot ask for memory, needs none */
	err = b->dst ? softpt_reserve(s->pt, b->va, true) : 0;
	if (err)
		goto err_free;
	collect_pages(s, b, f, blk);
	env_list_add_tail(&s->flights, &f->link);
	b->engine = f;
	env_mutex_unlock(&s->lock);
	return 0;

err_free:
	env_mutex_unlock(&s->lock);
	env_free(f);
	return err;
}

/*
 * A page lands wherever it is now. That may be a block that nothing was reserved for: without
 * memory to remember the new place the page stays at the old one, as if its copy had failed.
 */
static enum engine_status land_page(struct sim *s, struct engine_batch *b, struct sim_flight *f,
				    unsigned int i)
{
	enum engine_status status = b->status[i] == PAGE_TAKEN ? PAGE_MOVED : PAGE_FAILED;
	void *src = f->src[i], *dst = f->dst[i];
	uint64_t at = f->at[i];

	if (at == SIM_GONE) {
		env_free(src);
		env_free(dst);
		return PAGE_GONE;
	}
	env_assert(!(sim_flags(s, at) & SIM_POISON));
	if (status == PAGE_MOVED && b->dst &&
	    softpt_set_away(s->pt, at, BALUN_PAGE_SIZE, SOFTPT_PLACE(b->dst, b->place[i])))
		status = PAGE_BUSY;
	if (status == PAGE_MOVED) {
		if (b->dst && dst)
			map_coherent(s, SOFTPT_PLACE(b->dst, b->place[i]), dst);
		if (!b->dst)
			softpt_clear_away(s->pt, at, BALUN_PAGE_SIZE);
		/* core thinks that it is in the block where it was taken */
		if (b->dst && sim_base(at) != b->va)
			core_moved(s->space, b->dst, at, BALUN_PAGE_SIZE);
		*sim_frame(s, at) = dst;
		env_free(src);
	} else {
		/* a page that was away still is, at its old place */
		*sim_frame(s, at) = src;
		env_free(dst);
	}
	softpt_clear_busy(s->pt, at, BALUN_PAGE_SIZE);
	return status;
}

void sim_commit(void *e, struct engine_batch *b)
{
	struct sim *s = e;
	struct sim_flight *f = b->engine;
	unsigned int i;

	env_mutex_lock(&s->lock);
	for (i = 0; i < BALUN_BLOCK_PAGES; i++)
		if (b->status[i] == PAGE_TAKEN || b->status[i] == PAGE_FAILED)
			b->status[i] = land_page(s, b, f, i);
	env_list_del(&f->link);
	env_cond_wake(&s->idle);
	env_mutex_unlock(&s->lock);
	env_free(f);
	b->engine = NULL;
}
