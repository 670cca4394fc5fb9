// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Collect, the way home: pages that are away are marked, and get the host memory that their content
 * goes through. Lock: u->lock, as in collect.c.
 */
#include "engine/uffd/uffd.h"

#define BLOCK_PAGES BALUN_BLOCK_PAGES

/* end of the run of wanted pages that begins at i */
static unsigned int want_end(const struct engine_batch *b, unsigned int i)
{
	return env_bits_next(b->want, i, false);
}

/* where the content of n pages that come home is put; frames if they are worth it */
static uint64_t home_buffer(struct uffd *u, struct transit *t, unsigned int want)
{
	if (u->move && want >= u->move_min) {
		t->slot = frames_get_full(u, want);
		if (t->slot) {
			t->base = t->slot->top - want;
			return t->slot->base + t->base * PAGE;
		}
	}
	return (uintptr_t)t->bounce;
}

/*
 * A mapped page of coherent memory that the kernel will not let go of (pinned, locked, shared after
 * a bare clone()) comes home in place: it is ordinary memory of the program already, and only its
 * place is given up. Returns how many pages have left the program, or *ret_in_place have; 0: look
 * again.
 */
static unsigned int home_coherent(struct uffd *u, const struct softpt_run *r, bool *ret_in_place)
{
	uint64_t done;
	int err = uffd_unmap_coherent(u, r->va, r->place, r->len, &done);

	*ret_in_place = err && err != -EAGAIN;
	if (err)
		return *ret_in_place;
	return done >> BALUN_PAGE_SHIFT;
}

/* host memory that pages on their way home go through */
struct home_room {
	uint64_t at;
	unsigned int pages;
};

/* returns how many were dealt with; 0: an event is pending, look again */
static unsigned int home_some(struct uffd *u, struct engine_batch *b, unsigned int i,
			      struct home_room *room)
{
	unsigned int n = want_end(b, i) - i, j;
	struct engine_piece p = { .first = i,
				  .src_kind = BALUN_KIND_LOCAL,
				  .dst_kind = BALUN_KIND_SYSTEM };
	struct softpt_run r;
	bool in_place;

	softpt_run(u->pt, b->va + i * PAGE, n * PAGE, &r);
	n = r.len >> BALUN_PAGE_SHIFT;
	if (r.busy || !r.away || (b->src && SOFTPT_DEV(r.place) != b->src)) {
		memset(b->status + i, r.busy ? PAGE_BUSY : PAGE_ALREADY, n);
		return n;
	}
	p.src_dev = SOFTPT_DEV(r.place);
	p.src = (uint64_t)SOFTPT_PGNO(r.place) << BALUN_PAGE_SHIFT;
	p.moved = uffd_is_host(u, p.src_dev);
	if (!p.moved && !room->pages) { /* moved here by mremap() since they were counted */
		memset(b->status + i, PAGE_BUSY, n);
		return n;
	}
	if (!p.moved)
		r.len = ENV_MIN(r.len, room->pages * PAGE);
	if (uffd_is_coherent(u, p.src_dev)) {
		r.len = home_coherent(u, &r, &in_place) * PAGE;
		if (!r.len)
			return 0;
		p.moved = in_place;
	}
	n = r.len >> BALUN_PAGE_SHIFT;
	p.npages = n;
	p.dst = room->at;
	if (!p.moved) {
		room->at += r.len;
		room->pages -= n;
	}
	for (j = 0; j < n; j++)
		b->origin[i + j] = r.place + j;
	softpt_clear_away(u->pt, r.va, r.len);
	uffd_mark_taken(u, b, i, n);
	uffd_piece_add(b, &p);
	return n;
}

/* how many wanted pages are away and need host memory on the way */
static unsigned int home_count(struct uffd *u, const struct engine_batch *b)
{
	unsigned int i = env_bits_next(b->want, 0, true), n = 0;

	while (i < BLOCK_PAGES) {
		struct softpt_run r;

		softpt_run(u->pt, b->va + i * PAGE, (want_end(b, i) - i) * PAGE, &r);
		if (r.away && !r.busy && !uffd_is_host(u, SOFTPT_DEV(r.place)))
			n += r.len >> BALUN_PAGE_SHIFT;
		i = env_bits_next(b->want, i + (r.len >> BALUN_PAGE_SHIFT), true);
	}
	return n;
}

int uffd_collect_home(struct uffd *u, struct transit *t, struct engine_batch *b)
{
	unsigned int i, n = home_count(u, b);
	struct home_room room = { .pages = n };

	if (n && !t->bounce) {
		t->bounce = env_pages_alloc(BLOCK);
		if (!t->bounce)
			return -ENOMEM;
	}
	if (n)
		room.at = home_buffer(u, t, n);
	for (i = env_bits_next(b->want, 0, true); i < BLOCK_PAGES;) {
		n = home_some(u, b, i, &room);
		if (!n)
			uffd_yield_to_events(u);
		i = env_bits_next(b->want, i + n, true);
	}
	if (t->slot && room.pages) /* fewer than were counted: frames are left above the rest */
		t->slot->spoiled = true;
	return 0;
}
