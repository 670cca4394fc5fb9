// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Commit, the way home: content is installed where the program has the page now, or the page stays
 * away. Lock: u->lock, as in commit.c.
 */
#include <sys/ioctl.h>

#include "engine/uffd/uffd.h"

static int zeropage(struct uffd *u, uint64_t va, uint64_t len)
{
	struct uffdio_zeropage z = { .range = { .start = va, .len = len } };

	return ioctl(u->caps.fd, UFFDIO_ZEROPAGE, &z) ? -errno : 0;
}

/* install n pages at @va from host memory @src: *ret_done bytes; 0 or -errno at that page */
static int install(struct uffd *u, bool frames, uint64_t va, uint64_t src, uint64_t len,
		   uint64_t *ret_done)
{
	int err;

	if (!frames) {
		err = uffd_copy(u, va, (void *)(uintptr_t)src, len, ret_done);
		if (err != -ENOENT || *ret_done || len == PAGE)
			return err;
		/* not all in one mapping: mprotect() has no event */
		return uffd_copy(u, va, (void *)(uintptr_t)src, PAGE, ret_done);
	}
	err = uffd_move(u, va, src, len, ret_done);
	if (!err || *ret_done || err == -EAGAIN || err == -EEXIST)
		return err;
	if (err == -ENOENT && zeropage(u, va, PAGE) == 0) {
		*ret_done = PAGE; /* a page of zeros that was never written */
		return 0;
	}
	return uffd_copy_frame(u, va, src, ret_done);
}

/* stays away after all */
static void restore_home(struct uffd *u, struct transit *t, struct engine_batch *b, unsigned int i)
{
	uint64_t va;

	uffd_map_back(u, t, b, i);
	if (!transit_locate(t, i, &va)) {
		b->status[i] = PAGE_GONE;
		return;
	}
	softpt_clear_busy(u->pt, va, PAGE);
	if (softpt_set_away(u->pt, va, PAGE, b->origin[i]))
		env_die("softpt_set_away", __FILE__, __LINE__);
	b->origin[i] = 0;
	if (b->status[i] == PAGE_TAKEN)
		b->status[i] = PAGE_BUSY;
}

/* @n pages of a piece from page i were installed at @va */
static void installed(struct uffd *u, struct engine_batch *b, const struct engine_piece *p,
		      unsigned int i, unsigned int n, uint64_t va)
{
	softpt_clear_busy(u->pt, va, n * PAGE);
	memset(b->status + i, PAGE_MOVED, n);
	allow_home(u, p, n);
}

/*
 * Page i of a piece stays away. Lack of memory ends; a page that is refused for another reason
 * counts as failed, for who brings everything home tries that so often and not for ever.
 */
static void not_installed(struct uffd *u, struct transit *t, struct engine_batch *b,
			  const struct engine_piece *p, unsigned int i, uint64_t va, int err)
{
	if (err == -ENOENT) { /* the program has given it up */
		softpt_clear_busy(u->pt, va, PAGE);
		b->status[i] = PAGE_GONE;
		uffd_drop_content(u, p, i, 1);
		uffd_wake(u, va, PAGE);
		return;
	}
	env_log(1, "page 0x%llx cannot be installed: error %d", (unsigned long long)va, -err);
	if (err != -ENOMEM)
		b->status[i] = PAGE_FAILED;
	restore_home(u, t, b, i);
}

static void commit_home_run(struct uffd *u, struct transit *t, struct engine_batch *b,
			    const struct engine_piece *p, unsigned int i, unsigned int n)
{
	uint64_t from = p->moved ? (uintptr_t)u->device[p->src_dev].host_base + p->src : p->dst;
	bool frames = p->moved || t->slot, gone;
	uint64_t va, done;
	int err;

	while (n) {
		unsigned int k = uffd_locate_run(t, b, i, n, &va, &gone);

		done = 0;
		err = 0;
		ENV_STOP("commit-located");
		if (gone) {
			memset(b->status + i, PAGE_GONE, k);
			uffd_drop_content(u, p, i, k);
		} else if (p->moved && uffd_is_coherent(u, p->src_dev)) {
			installed(u, b, p, i, k, va); /* in place */
		} else {
			err = install(u, frames, va, from + (i - p->first) * PAGE, k * PAGE, &done);
			k = done >> BALUN_PAGE_SHIFT;
			if (k)
				installed(u, b, p, i, k, va);
		}
		i += k;
		n -= k;
		if (err && !done)
			err = uffd_refused(u, va, err);
		if (err == -EAGAIN) {
			uffd_yield_to_events(u);
		} else if (err && !done) {
			not_installed(u, t, b, p, i++, va, err);
			n--;
		}
	}
}

void uffd_commit_home(struct uffd *u, struct transit *t, struct engine_batch *b)
{
	unsigned int j, i, n;

	for (j = 0; j < b->npieces; j++) {
		const struct engine_piece *p = &b->piece[j];
		unsigned int end = p->first + p->npages;

		for (i = p->first; i < end; i += n) {
			n = 1;
			if (b->status[i] != PAGE_TAKEN) {
				restore_home(u, t, b, i);
				continue;
			}
			n = engine_status_end(b, i, end) - i;
			commit_home_run(u, t, b, p, i, n);
		}
	}
}
