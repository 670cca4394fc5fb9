// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Collect: pages leave the program's memory, or are marked to come home.
 *
 * Towards a device a page is moved out (UFFDIO_MOVE) into a frame, or straight into a device whose
 * memory is host pages; without MOVE it is write-protected and copied, and dropped at commit. A
 * page in the hand of somebody else (pinned, shared after fork) refuses to move and stays.
 *
 * Lock: u->lock over each look and the ioctl it justifies; it is let go when an event is pending,
 * and then everything is looked at again.
 */
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

#define BLOCK_PAGES BALUN_BLOCK_PAGES

/* ---- pieces ---- */

void uffd_piece_add(struct engine_batch *b, const struct engine_piece *p)
{
	struct engine_piece *last = b->npieces ? &b->piece[b->npieces - 1] : NULL;
	uint64_t end;

	if (last && last->first + last->npages == p->first && last->src_kind == p->src_kind &&
	    last->dst_kind == p->dst_kind && last->src_dev == p->src_dev &&
	    last->moved == p->moved) {
		end = (uint64_t)last->npages << BALUN_PAGE_SHIFT;
		if ((p->src_kind == BALUN_KIND_ZERO || last->src + end == p->src) &&
		    last->dst + end == p->dst) {
			last->npages += p->npages;
			return;
		}
	}
	b->piece[b->npieces++] = *p;
}

static uint64_t place_off(const struct engine_batch *b, unsigned int i)
{
	return (uint64_t)b->place[i] << BALUN_PAGE_SHIFT;
}

/* how many pages from i have consecutive places, at most n; mostly all: sixteen at a look */
static unsigned int place_run(const struct engine_batch *b, unsigned int i, unsigned int n)
{
	const uint32_t *place = b->place + i;
	unsigned int k = 1, j;
	uint32_t differ = 0;

	for (; k + 16 <= n; k += 16) {
		for (j = 0; j < 16; j++)
			differ |= place[k + j] ^ (place[0] + k + j);
		if (differ)
			break;
	}
	while (k < n && place[k] == place[0] + k)
		k++;
	return k;
}

void uffd_mark_taken(struct uffd *u, struct engine_batch *b, unsigned int i, unsigned int n)
{
	/* room was reserved when the batch began: this cannot fail */
	if (softpt_set_busy(u->pt, b->va + i * PAGE, n * PAGE))
		env_die("softpt_set_busy", __FILE__, __LINE__);
	transit_take(b->engine, i, n);
	memset(b->status + i, PAGE_TAKEN, n);
}

/* n pages with consecutive places whose content now is at @src, or zeros */
static void taken_run(struct uffd *u, struct engine_batch *b, unsigned int i, unsigned int n,
		      uint32_t kind, uint64_t src, bool moved)
{
	struct engine_piece p = { .first = i,
				  .npages = n,
				  .src_kind = kind,
				  .src = src,
				  .dst_kind = BALUN_KIND_LOCAL,
				  .dst_dev = b->dst,
				  .dst = place_off(b, i),
				  .moved = moved };

	uffd_mark_taken(u, b, i, n);
	uffd_piece_add(b, &p);
}

/* as taken_run(), whatever their places */
static void taken_out(struct uffd *u, struct engine_batch *b, unsigned int i, unsigned int n,
		      uint32_t kind, uint64_t src)
{
	while (n) {
		unsigned int k = place_run(b, i, n);

		taken_run(u, b, i, k, kind, src, false);
		i += k;
		n -= k;
		src += k * PAGE;
	}
}

/* where the next pages are moved to: a device's own host memory, or the frame slot */
static uint64_t move_target(struct uffd *u, struct transit *t, const struct engine_batch *b,
			    unsigned int i)
{
	if (uffd_is_host(u, b->dst))
		return (uintptr_t)u->device[b->dst].host_base + place_off(b, i);
	return t->slot->base + t->slot->top * PAGE;
}

/*
 * A device's host memory is watched too; while it holds content it must be there, for a device that
 * touches it must never need the reader (who may be waiting for that device). 0; -EAGAIN: an event
 * is pending, look again; other errors: it cannot be.
 */
static int host_zero(struct uffd *u, const struct engine_batch *b, unsigned int i, unsigned int n)
{
	const struct balun_desc *d = &u->device[b->dst];
	uint64_t addr = (uintptr_t)d->host_base + place_off(b, i), len = n * PAGE;

	while (len) {
		struct uffdio_zeropage z = { .range = { .start = addr, .len = len } };

		if (!ioctl(u->caps.fd, UFFDIO_ZEROPAGE, &z))
			break;
		if (z.zeropage > 0) {
			addr += z.zeropage;
			len -= z.zeropage;
		} else if (errno != EEXIST) {
			return -errno;
		} else if (!frames_empty(u, addr, PAGE)) {
			return -EBUSY;
		}
	}
	return 0;
}

/* as host_zero(); else: how many pages are dealt with, for they stay, or 0: look again */
static unsigned int not_zeroed(struct engine_batch *b, unsigned int i, unsigned int n, int err)
{
	if (err == -EAGAIN)
		return 0;
	memset(b->status + i, PAGE_BUSY, n);
	return n;
}

/* returns how many of n were dealt with; 0: look again */
static unsigned int take_holes(struct uffd *u, struct engine_batch *b, unsigned int i,
			       unsigned int n)
{
	int err;

	if (!b->holes) {
		memset(b->status + i, PAGE_EMPTY, n);
		return n;
	}
	if (u->device[b->dst].host_base) {
		n = place_run(b, i, n);
		err = host_zero(u, b, i, n);
		if (err)
			return not_zeroed(b, i, n, err);
	} else if (uffd_event_pending(u->caps.fd)) {
		return 0; /* perhaps mremap() has just taken away what was there */
	}
	if (uffd_is_host(u, b->dst))
		taken_run(u, b, i, n, BALUN_KIND_ZERO, 0, true);
	else
		taken_out(u, b, i, n, BALUN_KIND_ZERO, 0);
	return n;
}

/* MOVE says there is nothing at page i: as many as there are up to n */
static unsigned int hole_run(const struct engine_batch *b, unsigned int i, unsigned int n)
{
	env_bits present;
	unsigned int k;

	if (maps_present(b->va + i * PAGE, n, present))
		return 1;
	k = env_bits_next(present, 0, true);
	return ENV_MAX(1U, ENV_MIN(k, n));
}

/*
 * Pages [i, i + n) are watched, here and not in transit. Takes as many as one MOVE gives; returns
 * how many pages were dealt with; 0: an event is pending, let it pass and look again.
 */
static unsigned int move_out(struct uffd *u, struct transit *t, struct engine_batch *b,
			     unsigned int i, unsigned int n)
{
	bool host = uffd_is_host(u, b->dst);
	uint64_t va = b->va + i * PAGE, dst, done;
	unsigned int k;
	int err;

	if (host || uffd_is_coherent(u, b->dst))
		n = place_run(b, i, n);
	err = uffd_is_coherent(u, b->dst) ? host_zero(u, b, i, n) : 0;
	if (err)
		return not_zeroed(b, i, n, err);
	dst = move_target(u, t, b, i);
	ENV_STOP("collect-looked");
	err = uffd_move(u, dst, va, n * PAGE, &done);
	k = done >> BALUN_PAGE_SHIFT;
	if (k && host) {
		taken_run(u, b, i, k, BALUN_KIND_SYSTEM, dst, true);
		return k;
	}
	if (k) {
		taken_out(u, b, i, k, BALUN_KIND_SYSTEM, dst);
		t->slot->top += k;
		return k;
	}
	switch (err) {
	case -EAGAIN:
		return 0;
	case -ENOENT:
		return take_holes(u, b, i, hole_run(b, i, n));
	case -EEXIST: /* let go of while populated: empty it, then again */
		if (host && frames_empty(u, dst, PAGE))
			return 0;
		if (!host)
			t->slot->spoiled = true;
		/* fall through */
	case -EBUSY:
		b->status[i] = PAGE_BUSY;
		return 1;
	case -EINVAL: /* a mapping that does not match: read-only, mlocked */
		n = (maps_end(va, va + n * PAGE) - va) >> BALUN_PAGE_SHIFT;
		memset(b->status + i, PAGE_UNMOVABLE, n);
		return n;
	default:
		b->status[i] = PAGE_UNMOVABLE;
		return 1;
	}
}

/* on a device: source is there; another device's pages are only marked. 0: look again */
static unsigned int take_away(struct uffd *u, struct engine_batch *b, unsigned int i,
			      unsigned int n, uint32_t place)
{
	unsigned int dev = SOFTPT_DEV(place), j;
	struct engine_piece p = { .src_kind = BALUN_KIND_LOCAL,
				  .src_dev = dev,
				  .dst_kind = BALUN_KIND_LOCAL,
				  .dst_dev = b->dst };
	uint64_t done;
	int err;

	p.moved = uffd_is_host(u, dev) && uffd_is_host(u, b->dst);
	n = place_run(b, i, n);
	err = u->device[b->dst].host_base && !p.moved ? host_zero(u, b, i, n) : 0;
	if (err)
		return not_zeroed(b, i, n, err);
	if (uffd_is_coherent(u, dev)) {
		err = uffd_unmap_coherent(u, b->va + i * PAGE, place, n * PAGE, &done);
		if (err == -EAGAIN)
			return 0;
		if (err) {
			b->status[i] = err == -EBUSY ? PAGE_BUSY : PAGE_UNMOVABLE;
			return 1;
		}
		n = done >> BALUN_PAGE_SHIFT;
	}
	for (j = 0; j < n; j++)
		b->origin[i + j] = place + j;
	softpt_clear_away(u->pt, b->va + i * PAGE, n * PAGE);
	p.first = i;
	p.npages = n;
	p.src = (uint64_t)SOFTPT_PGNO(place) << BALUN_PAGE_SHIFT;
	p.dst = place_off(b, i);
	uffd_mark_taken(u, b, i, n);
	uffd_piece_add(b, &p);
	return n;
}

/* end of the run of wanted pages that begins at i */
static unsigned int want_end(const struct engine_batch *b, unsigned int i)
{
	return env_bits_next(b->want, i, false);
}

static unsigned int present_run(struct uffd *u, struct transit *t, struct engine_batch *b,
				unsigned int i, unsigned int n);

/* pages from i: deals with some of them, returns how many; 0: look again. Lock held */
static unsigned int collect_some(struct uffd *u, struct transit *t, struct engine_batch *b,
				 unsigned int i)
{
	uint64_t va = b->va + i * PAGE, until;
	unsigned int n = want_end(b, i) - i;
	struct softpt_run r;

	softpt_run(u->pt, va, n * PAGE, &r);
	n = r.len >> BALUN_PAGE_SHIFT;
	if (r.busy) {
		memset(b->status + i, PAGE_BUSY, n);
		return n;
	}
	if (r.away) {
		if (SOFTPT_DEV(r.place) == b->dst || (b->src && SOFTPT_DEV(r.place) != b->src))
			memset(b->status + i, PAGE_ALREADY, n);
		else
			return take_away(u, b, i, n, r.place);
		return n;
	}
	if (b->src) {
		memset(b->status + i, PAGE_ALREADY, n);
		return n;
	}
	if (!watch_covers(&u->watch, va, &until)) {
		n = ENV_MIN((uint64_t)n, (until - va) >> BALUN_PAGE_SHIFT);
		memset(b->status + i, PAGE_UNMOVABLE, n);
		return n;
	}
	n = ENV_MIN((uint64_t)n, (until - va) >> BALUN_PAGE_SHIFT);
	return present_run(u, t, b, i, n);
}

static unsigned int present_run(struct uffd *u, struct transit *t, struct engine_batch *b,
				unsigned int i, unsigned int n)
{
	env_bits inside;
	unsigned int k;

	if (uffd_is_changing(u, b->va + i * PAGE, b->va + (i + n) * PAGE)) {
		memset(b->status + i, PAGE_BUSY, n);
		return n;
	}
	memset(inside, 0, sizeof(inside));
	uffd_look_begin(u);
	uffd_inside_bits(u, b->va, inside);
	if (env_bit(inside, i)) {
		b->status[i] = PAGE_BUSY;
		n = 1;
	} else {
		k = env_bits_next(inside, i, true);
		n = move_out(u, t, b, i, ENV_MIN(n, k - i));
	}
	uffd_look_end(u);
	return n;
}

/* ---- the copying way, for kernels without MOVE ---- */

/*
 * Pages stay mapped and readable; write-protected and marked busy, they cannot change: a writer's
 * fault waits for the commit, which drops them or takes the protection off. Returns pages dealt
 * with; 0: an event is pending, look again. The content is read without the lock: if the program
 * unmaps or discards it meanwhile the read fails or gives zeros, the event is logged, and commit
 * finds the page gone.
 */
static unsigned int copy_out(struct uffd *u, struct transit *t, struct engine_batch *b,
			     unsigned int i, unsigned int n)
{
	uint64_t va = b->va + i * PAGE, until;
	struct uffdio_writeprotect p = { .range = { .start = va, .len = n * PAGE },
					 .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	unsigned int k, end, nevents;
	env_bits present;
	int err;

	ENV_STOP("collect-looked");
	/* as with MOVE, this is what refuses while an event is pending: only then is the look right
	 */
	while ((err = ioctl(u->caps.fd, UFFDIO_WRITEPROTECT, &p) ? errno : 0) == ENOENT) {
		until = maps_end(va, va + n * PAGE);
		if (until == va + n * PAGE)
			break;
		n = (until - va) >> BALUN_PAGE_SHIFT; /* Linux 6.1: only of one mapping */
		p.range.len = n * PAGE;
	}
	uffd_look_end(u);
	if (err) {
		if (err == EAGAIN)
			return 0;
		memset(b->status + i, PAGE_UNMOVABLE, n);
		return n;
	}
	t->copied = true;
	uffd_mark_taken(u, b, i, n);
	nevents = t->nevents;
	env_mutex_unlock(&u->lock);
	ENV_STOP("copy-protected");
	if (maps_present(va, n, present))
		env_bits_set_range(memset(present, 0, sizeof(present)), 0, n);
	for (k = 0; k < n; k = end) {
		bool here = env_bit(present, k);
		struct iovec local, remote;
		ssize_t got = -1;

		end = ENV_MIN(n, env_bits_next(present, k, !here));
		local.iov_base = (char *)t->bounce + (i + k) * PAGE;
		remote.iov_base = (void *)(uintptr_t)(va + k * PAGE);
		local.iov_len = remote.iov_len = (end - k) * PAGE;
		if (here) {
			got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
			if (got != (ssize_t)local.iov_len)
				memset(b->status + i + k, PAGE_FAILED, end - k);
		} else if (!b->holes) {
			memset(b->status + i + k, PAGE_FAILED, end - k);
		}
	}
	ENV_STOP("copy-read");
	env_mutex_lock(&u->lock);
	/* Protecting once more fails while a memory call has begun and its event is not handled,
	 * and where another mapping was put without an event. When it succeeds and no event was
	 * logged, what was read is what was there. */
	if (!uffd_protect(u, va, n * PAGE) || t->nevents != nevents)
		memset(b->status + i, PAGE_FAILED, n);
	for (k = 0; k < n; k++) {
		bool here = env_bit(present, k);

		if (b->status[i + k] == PAGE_FAILED) {
			b->status[i + k] = PAGE_TAKEN; /* put back by commit, as busy */
			continue;
		}
		taken_run(u, b, i + k, 1, here ? BALUN_KIND_SYSTEM : BALUN_KIND_ZERO,
			  here ? (uintptr_t)t->bounce + (i + k) * PAGE : 0, false);
	}
	return n;
}

static unsigned int copy_out_some(struct uffd *u, struct transit *t, struct engine_batch *b,
				  unsigned int i)
{
	uint64_t va = b->va + i * PAGE, until;
	unsigned int n = want_end(b, i) - i, k;
	struct softpt_run r;
	env_bits inside;
	int err;

	softpt_run(u->pt, va, n * PAGE, &r);
	if (r.busy || r.away || b->src || !watch_covers(&u->watch, va, &until))
		return collect_some(u, t, b, i);
	n = ENV_MIN(r.len, until - va) >> BALUN_PAGE_SHIFT;
	if (uffd_is_changing(u, va, va + n * PAGE)) {
		b->status[i] = PAGE_BUSY;
		return 1;
	}
	memset(inside, 0, sizeof(inside));
	uffd_look_begin(u); /* copy_out() ends it */
	uffd_inside_bits(u, b->va, inside);
	if (env_bit(inside, i)) {
		uffd_look_end(u);
		b->status[i] = PAGE_BUSY;
		return 1;
	}
	k = env_bits_next(inside, i, true);
	n = ENV_MIN(n, k - i);
	if (u->device[b->dst]
		    .host_base) { /* watched: the device's copy must find its place there */
		n = place_run(b, i, n);
		err = host_zero(u, b, i, n);
		if (err) {
			uffd_look_end(u);
			return not_zeroed(b, i, n, err);
		}
	}
	return copy_out(u, t, b, i, n);
}

/*
 * MOVE refuses read-only mappings, so a batch that has a page of one goes the copying way, all of
 * it. What is watched of it can then be write-protected too: the program may make it writable while
 * the copy is made. false: no such page, or it cannot be.
 */
static bool needs_copy(struct uffd *u, uint64_t va, uint64_t end)
{
	uint64_t at = va, until;
	bool read_only = false;
	struct vma v;

	for (; at < end && !maps_query(at, &v) && v.start < end; at = v.end)
		read_only |= v.read && !v.write && !v.shared && !v.file;
	for (at = va; read_only && at < end; at = until) {
		bool watched = watch_covers(&u->watch, at, &until);

		until = ENV_MIN(until, end);
		if (watched && uffd_register_protect(u, at, until))
			return false;
	}
	return read_only;
}

static int collect_out(struct uffd *u, struct transit *t, struct engine_batch *b)
{
	unsigned int i, n = env_bits_count(b->want), first = env_bits_next(b->want, 0, true);
	unsigned int last = BLOCK_PAGES;
	bool huge, copy = !u->move;

	while (!env_bit(b->want, last - 1))
		last--;
	copy |= u->move && !b->src && needs_copy(u, b->va + first * PAGE, b->va + last * PAGE);
	if (copy && !t->bounce) {
		t->bounce = env_pages_alloc(BLOCK);
		if (!t->bounce)
			return -ENOMEM;
	}
	if (!copy && !uffd_is_host(u, b->dst)) {
		huge = n == BLOCK_PAGES && maps_is_huge(b->va);
		t->slot = frames_get_room(u, n, huge);
		if (!t->slot)
			return -ENOMEM;
		t->base = t->slot->top;
	}
	for (i = env_bits_next(b->want, 0, true); i < BLOCK_PAGES;) {
		n = copy ? copy_out_some(u, t, b, i) : collect_some(u, t, b, i);
		if (!n) {
			uffd_yield_to_events(u);
			continue;
		}
		i = env_bits_next(b->want, i + n, true);
	}
	return 0;
}

int uffd_collect(void *e, struct engine_batch *b)
{
	struct uffd *u = e;
	struct transit *t;
	int err;

	if (b->dst) {
		unsigned int first = env_bits_next(b->want, 0, true), last = BLOCK_PAGES;

		while (!env_bit(b->want, last - 1))
			last--;
		uffd_watch_range(u, b->va + first * PAGE, (last - first) * PAGE);
	}
	env_mutex_lock(&u->lock);
	err = softpt_reserve(u->pt, b->va, true);
	if (err)
		goto unlock;
	t = transit_begin(u, b);
	if (!t) {
		err = -ENOMEM;
		goto unlock;
	}
	err = b->dst ? collect_out(u, t, b) : uffd_collect_home(u, t, b);
	if (err) {
		env_list_del(&t->link);
		t->next = u->free_transits;
		u->free_transits = t;
	}
unlock:
	env_mutex_unlock(&u->lock);
	return err;
}
