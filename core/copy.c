// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The copies of one collected batch. Towards a device its own driver copies (from frames, zeros,
 * another device's memory directly, or one's that is host memory), or the source's driver does if
 * it reaches the device; towards system memory the source's driver does. Where two devices cannot
 * reach each other the pages go through host memory.
 * No lock is held.
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

/* the operand of an op that is system memory; NULL: none is */
static uint64_t *system_operand(struct balun_copy *op)
{
	if (op->src_kind == BALUN_KIND_SYSTEM)
		return &op->src;
	return op->dst_kind == BALUN_KIND_SYSTEM ? &op->dst : NULL;
}

static bool to_device(const struct balun_copy *op)
{
	return op->dst_kind == BALUN_KIND_LOCAL;
}

/* for a device that reaches memory by DMA: returns how many ops, from the first on, are mapped */
static unsigned int ops_map(const struct balun_device *dev, struct balun_copy *op, unsigned int n)
{
	unsigned int i;

	if (!dev->desc.dma_device)
		return n;
	for (i = 0; i < n; i++) {
		uint64_t *addr = system_operand(&op[i]);

		if (addr && env_dma_map(dev->desc.dma_device, (void *)(uintptr_t)*addr, op[i].len,
					to_device(&op[i]), addr))
			break;
	}
	return i;
}

static void ops_unmap(const struct balun_device *dev, struct balun_copy *op, unsigned int n)
{
	unsigned int i;

	for (i = 0; dev->desc.dma_device && i < n; i++) {
		const uint64_t *addr = system_operand(&op[i]);

		if (addr)
			env_dma_unmap(dev->desc.dma_device, *addr, op[i].len, to_device(&op[i]));
	}
}

/*
 * One batch of a driver's. Without room to map all of them it is the first ones, and others come
 * when these are unmapped; *ret_n: how many the answer is about.
 */
static int ops_run(struct balun_device *dev, struct balun_copy *op, unsigned int n,
		   unsigned int *ret_n)
{
	unsigned int mapped;
	uint64_t cookie;
	int err;

	*ret_n = n;
	if (core_is_lost(dev->space, dev->id))
		return -ENODEV;
	mapped = ops_map(dev, op, n);
	*ret_n = ENV_MAX(mapped, 1u);
	if (!mapped)
		return -ENOMEM;
	err = dev->ops.copy(dev->priv, op, mapped, &cookie);
	if (!err)
		err = dev->ops.copy_wait(dev->priv, cookie);
	ops_unmap(dev, op, mapped);
	if (err == -ENODEV)
		balun_device_lost(dev);
	return err;
}

/* one driver, its ops; on error every page of a batch is failed: none of it counts */
static int run_ops(struct balun_space *sp, struct core_work *w, struct balun_device *dev,
		   unsigned int n)
{
	uint64_t t0 = env_now_ns();
	unsigned int i, end, done;
	int err, ret = 0;

	for (i = 0; i < n; i = end) {
		err = ops_run(dev, w->op + i, n - i, &done);
		end = i + done;
		if (!err)
			continue;
		ret = err;
		core_count(&sp->stats.copy_errors, 1);
		for (; i < end; i++)
			fail_piece(&w->b, &w->b.piece[w->op_piece[i]]);
	}
	core_count(&sp->stats.copy_ns, env_now_ns() - t0);
	return ret;
}

/*
 * The copy of a piece by a device, after the @n ops that there are; system memory in parts of at
 * most @max bytes. A part has a page or more, so there is room. Returns how many ops there are now.
 */
static unsigned int op_add(struct core_work *w, unsigned int n, unsigned int piece,
			   struct balun_copy op, uint64_t max)
{
	uint64_t left = (uint64_t)w->b.piece[piece].npages << BALUN_PAGE_SHIFT;

	for (; left; left -= op.len, op.dst += op.len, op.src += op.len) {
		op.len = system_operand(&op) ? ENV_MIN(left, max) : left;
		w->op[n] = op;
		w->op_piece[n++] = piece;
	}
	return n;
}

static uint64_t op_max(const struct balun_device *dev)
{
	return env_dma_max(dev->desc.dma_device);
}

/* the half of a staged copy that @dev does: to or from @host, which is mapped by the page */
static int stage(struct balun_space *sp, struct core_work *w, unsigned int i,
		 struct balun_device *dev, const struct balun_copy *op)
{
	uint64_t max = dev->desc.dma_device ? BALUN_PAGE_SIZE : UINT64_MAX;

	return run_ops(sp, w, dev, op_add(w, 0, i, *op, max));
}

/* device to device through host memory, a piece at a time */
static void copy_staged(struct balun_space *sp, struct core_work *w, unsigned int i)
{
	const struct engine_piece *p = &w->b.piece[i];
	uint64_t len = (uint64_t)p->npages << BALUN_PAGE_SHIFT;
	void *host = env_pages_alloc(len);
	const struct balun_copy out = { .dst = (uintptr_t)host,
					.dst_kind = BALUN_KIND_SYSTEM,
					.src = p->src,
					.src_kind = BALUN_KIND_LOCAL };
	const struct balun_copy in = { .dst = p->dst,
				       .dst_kind = BALUN_KIND_LOCAL,
				       .src = (uintptr_t)host,
				       .src_kind = BALUN_KIND_SYSTEM };

	if (!host) {
		fail_piece(&w->b, p);
		return;
	}
	if (!stage(sp, w, i, sp->device[p->src_dev], &out))
		stage(sp, w, i, sp->device[p->dst_dev], &in);
	env_pages_free(host, len);
}

/*
 * Device to device by the DMA of one of them: the destination reads, or with @push the source
 * writes. false: it does not reach the other's memory, or not all of it now.
 */
static bool copy_peer(struct balun_space *sp, struct core_work *w, unsigned int i, bool push)
{
	const struct engine_piece *p = &w->b.piece[i];
	unsigned int of = push ? p->dst_dev : p->src_dev, by = push ? p->src_dev : p->dst_dev;
	uint64_t len = (uint64_t)p->npages << BALUN_PAGE_SHIFT, done;
	struct engine_peer peer;

	if (!sp->engine->peer_map || !sp->device[of]->desc.bar_device ||
	    !sp->device[by]->desc.dma_device)
		return false;
	for (done = 0; done < len; done += peer.len) {
		uint64_t src = p->src + done, dst = p->dst + done;
		int err;

		if (sp->engine->peer_map(sp->e, of, push ? dst : src, len - done, by, push, &peer))
			return false;
		w->op[0] =
			(struct balun_copy){ .dst = push ? peer.addr : dst,
					     .dst_kind = push ? BALUN_KIND_PEER : BALUN_KIND_LOCAL,
					     .src = push ? src : peer.addr,
					     .src_kind = push ? BALUN_KIND_LOCAL : BALUN_KIND_PEER,
					     .len = peer.len };
		w->op_piece[0] = i;
		err = run_ops(sp, w, sp->device[by], 1);
		sp->engine->peer_unmap(sp->e, &peer);
		if (err)
			return true; /* and the piece has failed */
	}
	core_count(&sp->stats.peer_bytes, len);
	return true;
}

/* the address at which the destination's copy engine reaches the source device's memory */
static bool peer_addr(struct balun_space *sp, const struct engine_piece *p, uint64_t *ret_addr)
{
	struct balun_device *src = sp->device[p->src_dev], *dst = sp->device[p->dst_dev];

	return src->desc.caps & BALUN_CAP_PEER &&
	       !src->ops.peer_addr(src->priv, dst, p->src, (uint64_t)p->npages << BALUN_PAGE_SHIFT,
				   ret_addr);
}

/* a place of a device whose memory is the host's, as system memory; by DMA it goes through a
 * buffer, for not all of such memory can be mapped for it */
static bool host_addr(struct balun_space *sp, const struct engine_piece *p, uint64_t *ret_addr)
{
	const struct balun_device *src = sp->device[p->src_dev];

	if (!(src->desc.caps & BALUN_CAP_HOST_MEMORY) || sp->device[p->dst_dev]->desc.dma_device)
		return false;
	*ret_addr = (uintptr_t)src->desc.host_base + p->src;
	return true;
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
			if (peer_addr(sp, p, &src)) {
				kind = BALUN_KIND_PEER;
				core_count(&sp->stats.peer_bytes,
					   (uint64_t)p->npages << BALUN_PAGE_SHIFT);
			} else if (host_addr(sp, p, &src)) {
				kind = BALUN_KIND_SYSTEM;
			} else {
				env_bit_set(staged, i);
				continue;
			}
		}
		n = op_add(w, n, i,
			   (struct balun_copy){ .dst = p->dst,
						.dst_kind = BALUN_KIND_LOCAL,
						.src = src,
						.src_kind = kind },
			   op_max(sp->device[b->dst]));
	}
	if (n)
		run_ops(sp, w, sp->device[b->dst], n);
	for (i = env_bits_next(staged, 0, true); i < BATCH_PIECES;
	     i = env_bits_next(staged, i + 1, true))
		if (!copy_peer(sp, w, i, false) && !copy_peer(sp, w, i, true))
			copy_staged(sp, w, i);
}

/* what of the batch comes from one device */
static void copy_home(struct balun_space *sp, struct core_work *w, struct balun_device *dev)
{
	struct engine_batch *b = &w->b;
	unsigned int i, n = 0;

	for (i = 0; i < b->npieces; i++) {
		const struct engine_piece *p = &b->piece[i];

		if (wants_copy(b, p) && p->src_kind == BALUN_KIND_LOCAL && p->src_dev == dev->id)
			n = op_add(w, n, i,
				   (struct balun_copy){ .dst = p->dst,
							.dst_kind = BALUN_KIND_SYSTEM,
							.src = p->src,
							.src_kind = BALUN_KIND_LOCAL },
				   op_max(dev));
	}
	if (n)
		run_ops(sp, w, dev, n);
}

static void copy_to_system(struct balun_space *sp, struct core_work *w)
{
	struct balun_device *dev;
	unsigned int id;

	for (id = 1; id < CORE_DEVICE_SLOTS; id++) {
		dev = env_load(&sp->device[id]); /* one that ends may go just now */
		if (dev)
			copy_home(sp, w, dev);
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
	struct balun_copy op = { .dst = (uintptr_t)host,
				 .dst_kind = BALUN_KIND_SYSTEM,
				 .src = off,
				 .src_kind = BALUN_KIND_LOCAL,
				 .len = len };
	unsigned int n;
	int err;

	if (!dev)
		return -ENODEV;
	err = ops_run(dev, &op, 1, &n);
	core_device_put(dev);
	return err;
}
