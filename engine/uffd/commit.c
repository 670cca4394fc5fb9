// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Commit: the new residency becomes true, page by page; what failed is put back. The way home is in
 * commit_home.c.
 *
 * The program may have moved or dropped pages while they were in transit: each is looked up where
 * it is now (transit_locate()) under the lock, together with the ioctl that installs it. Nothing
 * here can fail for good: a page towards home that cannot be installed stays away; a page that is
 * to be put back is installed by MOVE or COPY, tried until the pending event is over.
 */
#include "engine/uffd/uffd.h"

#define BLOCK_PAGES BALUN_BLOCK_PAGES

unsigned int uffd_locate_run(const struct transit *t, const struct engine_batch *b, unsigned int i,
			     unsigned int n, uint64_t *va, bool *gone)
{
	unsigned int k;

	*gone = !transit_locate(t, i, va);
	if (!t->nevents)
		return n;
	for (k = 1; k < n; k++) {
		uint64_t next;
		bool g = !transit_locate(t, i + k, &next);

		if (g != *gone || (!g && next != *va + k * PAGE))
			break;
	}
	return k;
}

/* ---- towards a device ---- */

void uffd_drop_content(struct uffd *u, const struct engine_piece *p, unsigned int i, unsigned int n)
{
	const struct balun_desc *d;
	uint64_t off;

	if (p->dst_kind == BALUN_KIND_LOCAL && u->device[p->dst_dev].host_base && u->move) {
		d = &u->device[p->dst_dev];
		off = p->dst + (i - p->first) * PAGE;
		frames_empty(u, (uintptr_t)d->host_base + off, n * PAGE);
	}
	if (p->src_kind == BALUN_KIND_LOCAL && u->device[p->src_dev].host_base && u->move) {
		d = &u->device[p->src_dev];
		off = p->src + (i - p->first) * PAGE;
		frames_empty(u, (uintptr_t)d->host_base + off, n * PAGE);
	}
}

uint64_t uffd_discard_next(const struct uffd *u, uint64_t start, uint64_t end)
{
	unsigned int i;

	for (i = 0; i < sizeof(u->own_remove) / sizeof(u->own_remove[0]); i++)
		if (u->own_remove[i].start < end && start < u->own_remove[i].end)
			end = ENV_MAX(start, u->own_remove[i].start);
	return end;
}

bool uffd_discarding(const struct uffd *u, uint64_t start, uint64_t end)
{
	return uffd_discard_next(u, start, end) < end;
}

/* a slot to announce an own discard in, or -1 */
static int own_remove_slot(const struct uffd *u)
{
	int i;

	for (i = 0; i < (int)(sizeof(u->own_remove) / sizeof(u->own_remove[0])); i++)
		if (!u->own_remove[i].end)
			return i;
	return -1;
}

/* lock held, let go of meanwhile: the call waits for the reader, who is told what to expect.
 * false: some pages may be left */
static bool zap(struct uffd *u, int slot, uint64_t va, uint64_t len)
{
	bool done;

	u->own_remove[slot].start = va;
	u->own_remove[slot].end = va + len;
	memset(u->own_remove[slot].seen, 0, sizeof(u->own_remove[slot].seen));
	env_mutex_unlock(&u->lock);
	ENV_STOP("discard-begun");
	done = uffd_discard_pages(va, len);
	ENV_STOP("discard-done");
	env_mutex_lock(&u->lock);
	/* The reader lets go of the lock in the middle of an event that is partly ours: it must not
	 * take the rest for the program's. */
	while (u->handling)
		env_cond_wait(&u->idle, &u->lock, ENV_FOREVER);
	u->own_remove[slot].end = 0;
	env_cond_wake(&u->idle);
	return done;
}

/*
 * The kernel would not discard all of it (locked into memory, and an older kernel): what is still
 * in the program's memory has not left, and is put back by commit. It is write-protected, so what
 * was copied of it is what it holds.
 */
static void keep_left(struct engine_batch *b, unsigned int i, unsigned int n, uint64_t va)
{
	env_bits present;
	unsigned int k;

	if (maps_present(va, n, present))
		return;
	for (k = 0; k < n; k++)
		if (env_bit(present, k))
			b->status[i + k] = PAGE_BUSY;
}

/*
 * The copying way drops at most n pages from page i on from the program's memory; returns how many.
 * Calls that are hooked and own discards of the same range wait for each other. A call that is not
 * hooked can move the pages away meanwhile: then they are dropped where they went.
 * Limit, kernels without MOVE only: memory that another thread unmaps by a call that is not hooked
 * and maps anew in this very moment is not told apart from the old.
 */
static unsigned int zap_run(struct uffd *u, const struct transit *t, struct engine_batch *b,
			    unsigned int i, unsigned int n)
{
	uint64_t va, now;
	unsigned int k;
	bool gone;
	int slot;

	for (;;) {
		k = uffd_locate_run(t, b, i, n, &va, &gone);
		if (gone)
			return k;
		slot = own_remove_slot(u);
		if (slot < 0 || uffd_is_hooked(u, va, va + k * PAGE)) {
			env_cond_wait(&u->idle, &u->lock, ENV_FOREVER);
			continue;
		}
		if (!zap(u, slot, va, k * PAGE))
			keep_left(b, i, k, va);
		n = uffd_locate_run(t, b, i, k, &now, &gone);
		if (gone || now == va)
			return ENV_MIN(n, k);
	}
}

/*
 * What was copied well leaves the program's memory: run by run, not piece by piece, for each call
 * is an event, and costs two threads' turns.
 */
static void zap_copied(struct uffd *u, struct transit *t, struct engine_batch *b)
{
	env_bits copied = { 0 };
	unsigned int j, i, n;

	for (j = 0; j < b->npieces; j++) {
		const struct engine_piece *p = &b->piece[j];

		for (i = p->first; i < p->first + p->npages; i++)
			if (p->src_kind == BALUN_KIND_SYSTEM && b->status[i] == PAGE_TAKEN)
				env_bit_set(copied, i);
	}
	for (i = env_bits_next(copied, 0, true); i < BLOCK_PAGES;
	     i = env_bits_next(copied, i + n, true))
		n = zap_run(u, t, b, i, env_bits_next(copied, i, false) - i);
}

int uffd_copy_frame(struct uffd *u, uint64_t va, uint64_t src, uint64_t *ret_done)
{
	int err = uffd_copy(u, va, (void *)(uintptr_t)src, PAGE, ret_done);

	if (!err)
		frames_empty(u, src, PAGE);
	return err;
}

/* the page was moved to @src: back into the program's memory. Lock held, let go of while an event
 * is pending; the page may be dropped or moved by it. */
static void put_back(struct uffd *u, struct transit *t, struct engine_batch *b, unsigned int i,
		     uint64_t src)
{
	uint64_t va, done;
	int err;

	for (;;) {
		if (!transit_locate(t, i, &va))
			return;
		err = uffd_move(u, va, src, PAGE, &done);
		if (err == -EINVAL || err == -EBUSY) /* other protection by now: a copy does */
			err = uffd_copy_frame(u, va, src, &done);
		if (err != -EAGAIN && !(err == -ENOENT && uffd_event_pending(u->caps.fd)))
			break;
		uffd_yield_to_events(u);
	}
	if (err)
		env_log(0, "page 0x%llx could not be put back: error %d", (unsigned long long)va,
			-err);
	if (t->slot)
		t->slot->spoiled = true;
}

void uffd_map_back(struct uffd *u, const struct transit *t, const struct engine_batch *b,
		   unsigned int i)
{
	uint64_t va, done;

	if (!uffd_is_coherent(u, SOFTPT_DEV(b->origin[i])))
		return;
	do {
		if (!transit_locate(t, i, &va) ||
		    uffd_map_coherent(u, va, b->origin[i], PAGE, &done) != -EAGAIN)
			return; /* if it could not be: it is held */
		uffd_yield_to_events(u);
	} while (true);
}

/*
 * Page i of the batch never left, and is as it was before: where it is now, or false: it is gone.
 * It stays in transit until the program may write to it: whoever took it before that would copy
 * what is written meanwhile, or not.
 */
static bool let_go(struct uffd *u, const struct transit *t, unsigned int i, uint64_t *ret_va)
{
	while (transit_locate(t, i, ret_va)) {
		if (!t->copied || uffd_unprotect(u, *ret_va)) {
			softpt_clear_busy(u->pt, *ret_va, PAGE);
			return true;
		}
		uffd_yield_to_events(u);
	}
	return false;
}

/* page i of a piece towards a device failed: as it was before */
static void restore_out(struct uffd *u, struct transit *t, struct engine_batch *b,
			const struct engine_piece *p, unsigned int i)
{
	uint64_t va;

	if (p->src_kind == BALUN_KIND_SYSTEM && !t->copied)
		put_back(u, t, b, i, p->src + (i - p->first) * PAGE);
	if (p->src_kind == BALUN_KIND_LOCAL)
		uffd_map_back(u, t, b, i);
	if (!let_go(u, t, i, &va)) {
		b->status[i] = PAGE_GONE;
		return;
	}
	if (p->src_kind == BALUN_KIND_LOCAL) {
		if (softpt_set_away(u->pt, va, PAGE, b->origin[i]))
			env_die("softpt_set_away", __FILE__, __LINE__);
		b->origin[i] = 0;
	}
}

/* Only one of two devices' memory may be locked (mlockall()): then a page is copied. One that is
 * not there is one of zeros that was never written. */
static int copy_between(struct uffd *u, uint64_t dst, uint64_t src)
{
	env_bits present;
	uint64_t done;
	int err = maps_present(src, 1, present);

	return err || !env_bit(present, 0) ? err : uffd_copy_frame(u, dst, src, &done);
}

/* device to device, both in host memory: the page itself goes. Lock held. */
static int move_between(struct uffd *u, const struct engine_piece *p, unsigned int i,
			unsigned int n)
{
	uint64_t src = (uintptr_t)u->device[p->src_dev].host_base + p->src;
	uint64_t dst = (uintptr_t)u->device[p->dst_dev].host_base + p->dst, done;
	unsigned int k;
	int err;

	for (k = 0; k < n;) {
		uint64_t off = (i + k - p->first) * PAGE;

		err = uffd_move(u, dst + off, src + off, (n - k) * PAGE, &done);
		k += done >> BALUN_PAGE_SHIFT;
		if (k == n)
			break;
		if (err == -EAGAIN)
			uffd_yield_to_events(u);
		else if (err == -ENOENT) /* a page of zeros that was never written */
			k++;
		else if (err == -EINVAL && !copy_between(u, dst + off + done, src + off + done))
			k++;
		else if (err != -EEXIST || !frames_empty(u, dst + off + done, PAGE))
			return err;
	}
	return 0;
}

/* the first of k pages that are at @va now become mapped, if that is what the device's memory is
 * for; returns how many are done; 0: look again */
static unsigned int map_new(struct uffd *u, const struct engine_batch *b, unsigned int i,
			    unsigned int k, uint64_t va)
{
	uint64_t done;
	int err;

	if (!uffd_is_coherent(u, b->dst) || b->hold)
		return k;
	err = uffd_map_coherent(u, va, SOFTPT_PLACE(b->dst, b->place[i]), k * PAGE, &done);
	if (err == -EAGAIN)
		uffd_yield_to_events(u);
	return err == -EAGAIN ? 0 : err ? 1 : done >> BALUN_PAGE_SHIFT;
}

static void commit_out_run(struct uffd *u, struct transit *t, struct engine_batch *b,
			   const struct engine_piece *p, unsigned int i, unsigned int n)
{
	uint64_t va;
	bool gone;

	if (p->moved && p->src_kind == BALUN_KIND_LOCAL && move_between(u, p, i, n))
		env_die("host pages of a device do not move", __FILE__, __LINE__);
	while (n) {
		unsigned int k = uffd_locate_run(t, b, i, n, &va, &gone);

		ENV_STOP("commit-located");
		if (gone) {
			memset(b->status + i, PAGE_GONE, k);
			uffd_drop_content(u, p, i, k);
		} else {
			k = map_new(u, b, i, k, va);
			if (!k)
				continue;
			if (softpt_set_away(u->pt, va, k * PAGE, SOFTPT_PLACE(b->dst, b->place[i])))
				env_die("softpt_set_away", __FILE__, __LINE__);
			softpt_clear_busy(u->pt, va, k * PAGE);
			memset(b->status + i, PAGE_MOVED, k);
			allow_out(u, p, k);
			if (BLOCK_OF(va) != b->va) /* by mremap; core counts for the old block */
				core_moved(u->space, b->dst, va, k * PAGE);
		}
		i += k;
		n -= k;
	}
}

/* runs of pages with the same status, piece by piece */
static void commit_out(struct uffd *u, struct transit *t, struct engine_batch *b)
{
	unsigned int j, i, n;

	if (t->copied)
		zap_copied(u, t, b);
	for (j = 0; j < b->npieces; j++) {
		const struct engine_piece *p = &b->piece[j];
		unsigned int end = p->first + p->npages;

		for (i = p->first; i < end; i += n) {
			n = 1;
			if (b->status[i] != PAGE_TAKEN) {
				restore_out(u, t, b, p, i);
				continue;
			}
			n = engine_status_end(b, i, end) - i;
			commit_out_run(u, t, b, p, i, n);
		}
	}
}

/* taken, but in no piece: could not be read. It never left. */
static void commit_unread(struct uffd *u, struct transit *t, struct engine_batch *b)
{
	unsigned int i;

	for (i = 0; t->copied && i < BLOCK_PAGES; i++) {
		uint64_t va;

		if (b->status[i] != PAGE_TAKEN)
			continue;
		if (!let_go(u, t, i, &va))
			b->status[i] = PAGE_GONE;
		else
			b->status[i] = b->holes ? PAGE_BUSY : PAGE_EMPTY;
	}
}

/*
 * Places that did not become anybody's are free from now on, and a free place of a device's host
 * memory is empty: what a failed copy has left there would be taken for what MOVE has put there and
 * not counted (moved_unsaid()), by the next page that is a hole.
 */
static void empty_unused(struct uffd *u, const struct engine_batch *b)
{
	uint64_t base = (uintptr_t)u->device[b->dst].host_base;
	unsigned int i, n;

	for (i = env_bits_next(b->want, 0, true); base && u->move && i < BLOCK_PAGES;
	     i = env_bits_next(b->want, i + n, true)) {
		n = 1;
		if (b->status[i] == PAGE_MOVED)
			continue;
		while (i + n < BLOCK_PAGES && env_bit(b->want, i + n) &&
		       b->status[i + n] != PAGE_MOVED && b->place[i + n] == b->place[i] + n)
			n++;
		frames_empty(u, base + b->place[i] * PAGE, n * PAGE);
	}
}

/* What was copied from devices' host memory is still there, in places that core takes back when
 * this is over. Lock held. */
static void empty_origins(struct uffd *u, const struct engine_batch *b)
{
	struct frame_runs runs = { 0 };
	unsigned int j, i;

	for (j = 0; u->move && j < b->npieces; j++) {
		const struct engine_piece *p = &b->piece[j];
		uint64_t base = (uintptr_t)u->device[p->src_dev].host_base;

		if (p->src_kind != BALUN_KIND_LOCAL || p->moved || !base)
			continue;
		for (i = 0; i < p->npages; i++)
			if (b->status[p->first + i] == PAGE_MOVED)
				frames_empty_later(u, &runs, base + p->src + i * PAGE);
	}
	frames_empty_runs(u, &runs);
}

/* ---- both ---- */

/* After a way home the pages of the slot that were handed on are gone from its top; if some were
 * not, the stack has holes. */
static void settle_slot(struct transit *t, const struct engine_batch *b)
{
	unsigned int i, n = 0, used = 0;

	if (b->dst)
		return;
	for (i = 0; i < b->npieces; i++)
		if (!b->piece[i].moved)
			used += b->piece[i].npages;
	for (i = 0; i < b->npieces; i++)
		for (unsigned int j = 0; !b->piece[i].moved && j < b->piece[i].npages; j++)
			n += b->status[b->piece[i].first + j] == PAGE_MOVED;
	t->slot->top = t->base;
	if (n != used)
		t->slot->spoiled = true;
}

void uffd_commit(void *e, struct engine_batch *b)
{
	struct transit *t = b->engine;
	struct frame_slot *slot = t->slot;
	struct uffd *u = e;

	env_mutex_lock(&u->lock);
	if (b->dst)
		commit_out(u, t, b);
	else
		uffd_commit_home(u, t, b);
	commit_unread(u, t, b);
	if (b->dst)
		empty_unused(u, b);
	empty_origins(u, b);
	if (slot)
		settle_slot(t, b);
	env_list_del(&t->link);
	/* A fault that met a page in transit waits: for each place where one can be now. It was
	 * queued before the handler saw the page busy, so this wake finds it. */
	if (t->waiters || t->nevents) {
		uffd_wake(u, b->va, BLOCK);
		for (unsigned int i = 0; i < t->nevents; i++)
			if (t->event[i].remap)
				uffd_wake(u, t->event[i].to, t->event[i].end - t->event[i].start);
	}
	if (uffd_on_reader(u)) {
		u->installed_va = b->dst || t->nevents ? 0 : b->va;
		u->installed_len = BLOCK;
	}
	transit_log_fini(t);
	t->next = u->free_transits;
	u->free_transits = t;
	env_cond_wake(&u->idle);
	env_mutex_unlock(&u->lock);
	if (slot)
		frames_put(u, slot);
	b->engine = NULL;
}
