// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The copies of one collected batch. Towards a device its own driver copies (from frames, zeros or
 * another device's memory directly); towards system memory the source's driver does. Where two
 * devices cannot reach each other the pages go through host memory. No lock is held.
 */
#include "core/core.h"

static void fail_piece(struct engine_batch *b, const struct engine_piece *p)
{
	memset(b->status + p->first, PAGE_FAILED, p->npages);
}

/*
 * What is on a lost device, or would go there, fails without a copy: also pages that the engine
 * moves by itself, because what a dead device's memory holds is nobody's word for anything.
 */
static void fail_lost(struct balun_space *sp, struct engine_batch *b)
{
	unsigned int i;

	for (i = 0; i < b->npieces; i++) {
		const struct engine_piece *p = &b->piece[i];

		if ((b->dst && core_is_lost(sp, b->dst)) ||
		    (p->src_kind == BALUN_KIND_LOCAL && core_is_lost(sp, p->src_dev)))
			fail_piece(b, p);
	}
}

static bool wants_copy(const struct engine_batch *b, const struct engine_piece *p)
{
	return !p->moved && b->status[p->first] != PAGE_FAILED;
}

/* one driver, one batch; on error every page of it is failed: none of a batch counts */
static int run_ops(struct balun_space *sp, struct core_work *w, struct balun_device *dev,
		   unsigned int n)
{
	uint64_t cookie, t0 = env_now_ns();
	unsigned int i;
	int err;

	err = core_is_lost(sp, dev->id) ? -ENODEV : dev->ops.copy(dev->priv, w->op, n, &cookie);
	if (!err)
		err = dev->ops.copy_wait(dev->priv, cookie);
	core_count(&sp->stats.copy_ns, env_now_ns() - t0);
	if (err) {
		core_count(&sp->stats.copy_errors, 1);
		for (i = 0; i < n; i++)
			fail_piece(&w->b, &w->b.piece[w->op_piece[i]]);
	}
	return err;
}

static void op_set(struct core_work *w, unsigned int i, unsigned int piece, uint64_t dst,
		   uint32_t dst_kind, uint64_t src, uint32_t src_kind)
{
	w->op[i] = (struct balun_copy){
		.dst = dst,
		.dst_kind = dst_kind,
		.src = src,
		.src_kind = src_kind,
		.len = (uint64_t)w->b.piece[piece].npages << BALUN_PAGE_SHIFT,
	};
	w->op_piece[i] = piece;
}

/* device to device through host memory, a piece at a time */
static void copy_staged(struct balun_space *sp, struct core_work *w, unsigned int i)
{
	const struct engine_piece *p = &w->b.piece[i];
	uint64_t len = (uint64_t)p->npages << BALUN_PAGE_SHIFT;
	void *host = env_pages_alloc(len);

	if (!host) {
		fail_piece(&w->b, p);
		return;
	}
	op_set(w, 0, i, (uintptr_t)host, BALUN_KIND_SYSTEM, p->src, BALUN_KIND_LOCAL);
	if (!run_ops(sp, w, sp->device[p->src_dev], 1)) {
		op_set(w, 0, i, p->dst, BALUN_KIND_LOCAL, (uintptr_t)host, BALUN_KIND_SYSTEM);
		run_ops(sp, w, sp->device[p->dst_dev], 1);
	}
	env_pages_free(host, len);
}

/* the address at which the destination's copy engine reaches the source device's memory */
static bool peer_addr(struct balun_space *sp, const struct engine_piece *p, uint64_t *ret_addr)
{
	struct balun_device *src = sp->device[p->src_dev], *dst = sp->device[p->dst_dev];

	return src->desc.caps & BALUN_CAP_PEER &&
	       !src->ops.peer_addr(src->priv, dst, p->src, (uint64_t)p->npages << BALUN_PAGE_SHIFT,
				   ret_addr);
}

static void copy_to_device(struct balun_space *sp, struct core_work *w)
{
	struct engine_batch *b = &w->b;
	env_bits staged = { 0 };
	unsigned int i, n = 0;

	for (i = 0; i < b->npieces; i++) {
		const struct engine_piece *p = &b->piece[i];
		uint32_t kind = p->src_kind;
		uint64_t src = p->src;

		if (!wants_copy(b, p))
			continue;
		if (kind == BALUN_KIND_LOCAL) {
			/* asked once: a driver may say yes now and no later */
			if (!peer_addr(sp, p, &src)) {
				env_bit_set(staged, i);
				continue;
			}
			kind = BALUN_KIND_PEER;
			core_count(&sp->stats.peer_bytes, (uint64_t)p->npages << BALUN_PAGE_SHIFT);
		}
		op_set(w, n++, i, p->dst, BALUN_KIND_LOCAL, src, kind);
	}
	if (n)
		run_ops(sp, w, sp->device[b->dst], n);
	for (i = env_bits_next(staged, 0, true); i < BATCH_PIECES;
	     i = env_bits_next(staged, i + 1, true))
		copy_staged(sp, w, i);
}

static void copy_to_system(struct balun_space *sp, struct core_work *w)
{
	struct engine_batch *b = &w->b;
	unsigned int dev, i, n;

	for (dev = 1; dev < CORE_DEVICE_SLOTS; dev++) {
		for (i = 0, n = 0; i < b->npieces; i++) {
			const struct engine_piece *p = &b->piece[i];

			if (wants_copy(b, p) && p->src_kind == BALUN_KIND_LOCAL &&
			    p->src_dev == dev)
				op_set(w, n++, i, p->dst, BALUN_KIND_SYSTEM, p->src,
				       BALUN_KIND_LOCAL);
		}
		if (n)
			run_ops(sp, w, sp->device[dev], n);
	}
}

void core_copy_batch(struct balun_space *sp, struct core_work *w)
{
	if (env_load(&sp->lost))
		fail_lost(sp, &w->b);
	if (w->b.dst)
		copy_to_device(sp, w);
	else
		copy_to_system(sp, w);
	if (w->b.dst && core_is_lost(sp, w->b.dst))
		fail_lost(sp, &w->b); /* they still are where they were */
}

int core_read_device(struct balun_space *sp, unsigned int dev_id, uint64_t off, void *host,
		     uint64_t len)
{
	struct balun_device *dev = core_device_find(sp, dev_id);
	const struct balun_copy op = { .dst = (uintptr_t)host,
				       .dst_kind = BALUN_KIND_SYSTEM,
				       .src = off,
				       .src_kind = BALUN_KIND_LOCAL,
				       .len = len };
	uint64_t cookie;
	int err;

	if (!dev)
		return -ENODEV;
	err = core_is_lost(sp, dev_id) ? -ENODEV : dev->ops.copy(dev->priv, &op, 1, &cookie);
	if (!err)
		err = dev->ops.copy_wait(dev->priv, cookie);
	core_device_put(dev);
	return err;
}
