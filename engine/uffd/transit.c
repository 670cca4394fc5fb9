// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The calls of userfaultfd with their partial results, and transits: the pages between collect and
 * commit, with the log of what the program did to them meanwhile.
 */
#include <sched.h>
#include <sys/ioctl.h>

#include "engine/uffd/uffd.h"

/* MOVE wants all of a range in one mapping on either side: how much of it is. Mappings are cut
 * where protection changes, also by calls without an event */
static uint64_t one_mapping(const struct uffdio_move *m)
{
	uint64_t src = maps_end(m->src, m->src + m->len) - m->src;
	uint64_t dst = maps_end(m->dst, m->dst + m->len) - m->dst;

	return ENV_MIN(src, dst);
}

/*
 * MOVE of Linux 6.18 and others (not of 7.3) forgets what it has moved when it had to wait before:
 * a page that the kernel was just migrating makes it try again, and what moves then is not counted
 * (the error stays set, so move_pages() goes round once more) but found at the destination, with
 * EEXIST. Taken for something else that lies there it would be lost. The source is empty then, and
 * the destination, which was empty, is not: both belong to the caller and nobody fills them.
 * Returns how many bytes more have moved.
 */
static uint64_t moved_unsaid(uint64_t dst, uint64_t src, uint64_t len)
{
	unsigned int n = ENV_MIN(len / PAGE, (uint64_t)BALUN_BLOCK_PAGES), k = 0;
	env_bits there, left;

	if (!n || maps_present(dst, n, there) || maps_present(src, n, left))
		return 0;
	while (k < n && env_bit(there, k) && !env_bit(left, k))
		k++;
	return k * PAGE;
}

int uffd_move(struct uffd *u, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
{
	uint64_t limit = len, cut, unsaid;
	int err;

	*ret_done = 0;
	while (*ret_done < len) {
		struct uffdio_move m = { .dst = dst + *ret_done,
					 .src = src + *ret_done,
					 .len = ENV_MIN(len - *ret_done, limit) };

		if (!ioctl(u->caps.fd, UFFDIO_MOVE, &m)) {
			*ret_done += m.len;
			limit = len;
			continue;
		}
		err = -errno;
		if (m.move > 0)
			*ret_done += m.move;
		unsaid = m.move > 0 || err == -EEXIST
				 ? moved_unsaid(dst + *ret_done, src + *ret_done, len - *ret_done)
				 : 0;
		if (unsaid) /* it wakes only for what it says */
			uffd_wake(u, dst + *ret_done, unsaid);
		*ret_done += unsaid;
		if (m.move > 0 || unsaid)
			continue;
		if (err == -EINVAL && (cut = one_mapping(&m)) < m.len)
			limit = cut;
		else
			return err;
	}
	return 0;
}

/* COPY, unlike the others, puts a page in place of a guard (MADV_GUARD_INSTALL) */
int uffd_copy(struct uffd *u, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	uint64_t end = maps_guard(dst, len / PAGE) * PAGE;

	*ret_done = 0;
	while (*ret_done < end) {
		struct uffdio_copy c = { .dst = dst + *ret_done,
					 .src = (uintptr_t)src + *ret_done,
					 .len = end - *ret_done };

		if (!ioctl(u->caps.fd, UFFDIO_COPY, &c)) {
			*ret_done = end;
			break;
		}
		if (c.copy <= 0)
			return -errno;
		*ret_done += c.copy;
	}
	return end < len ? -EEXIST : 0;
}

/*
 * A call on a range that a memory call of the program is just taking away can fail with ENOENT
 * before the kernel looks whether an event is under way; every call looks first thing, too. Its
 * event cannot be over between the two, for whoever asks is the one who reads, or keeps the lock.
 */
bool uffd_event_pending(int fd)
{
	struct uffdio_zeropage nothing = { .mode = 0 };

	return ioctl(fd, UFFDIO_ZEROPAGE, &nothing) && errno == EAGAIN;
}

/*
 * Some calls take pages away and raise no event: MADV_GUARD_INSTALL, and shmat(SHM_REMAP), which
 * puts another mapping there. What is away then has no place to come home to. Nothing else says
 * ENOENT of a page (there is no mapping, or it is not watched) when all events are handled: the
 * lock was held since the page's address was looked up, so none was handled in between, and one
 * that had begun before the kernel refused is pending now.
 */
int uffd_refused(struct uffd *u, uint64_t va, int err)
{
	struct vma v;

	env_assert_held(&u->lock);
	if (err != -ENOENT && !(err == -EEXIST && maps_guard(va, 1) == 0))
		return err;
	if (uffd_event_pending(u->caps.fd))
		return -EAGAIN;
	if (err == -EEXIST)
		return -ENOENT;
	if (!maps_query(va, &v) && v.start <= va && !v.shared && !v.file)
		env_log(0, "0x%llx is other memory than was watched: what was away is dropped",
			(unsigned long long)va);
	/* without memory to cut the range: what is there does not move, so it is only slower */
	(void)watch_remove(&u->watch, va, va + PAGE);
	return -ENOENT;
}

void uffd_wake(struct uffd *u, uint64_t va, uint64_t len)
{
	struct uffdio_range r = { .start = va, .len = len };

	ioctl(u->caps.fd, UFFDIO_WAKE, &r); /* fails where nothing is registered: nobody waits */
}

/*
 * Parts of the range may be gone or never have been registered: then the whole call fails, and it
 * is done page by page. The pages are in the caller's transit: the lock is let go of while an event
 * is pending.
 */
bool uffd_protect(struct uffd *u, uint64_t va, uint64_t len)
{
	struct uffdio_writeprotect p = {
		.range = { .start = va, .len = len },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	bool all = true;
	uint64_t a;

	while (ioctl(u->caps.fd, UFFDIO_WRITEPROTECT, &p)) {
		if (errno == EAGAIN) {
			uffd_yield_to_events(u);
			continue;
		}
		for (a = va; len > PAGE && a < va + len; a += PAGE)
			all &= uffd_protect(u, a, PAGE);
		return len > PAGE && all;
	}
	return true;
}

/*
 * The program may write to the page again; wakes who waits to. Never lets go of the lock: that the
 * page is in nobody's transit, by which the caller decided, must hold when the program writes.
 */
bool uffd_unprotect(struct uffd *u, uint64_t va)
{
	struct uffdio_writeprotect p = { .range = { .start = va, .len = PAGE } };

	env_assert_held(&u->lock);
	return !ioctl(u->caps.fd, UFFDIO_WRITEPROTECT, &p) || errno != EAGAIN;
}

/*
 * The kernel refuses with EAGAIN from the moment a memory call has begun until its thread has run
 * again after the event was read. The reader drains itself; others let it and that thread run.
 * While a discard of our own is under way they sleep until it is over: its thread needs the reader
 * just as they do, and says when it has run.
 */
void uffd_yield_to_events(struct uffd *u)
{
	env_assert_held(&u->lock);
	if (!uffd_on_reader(u) && uffd_discarding(u, 0, UINT64_MAX)) {
		env_cond_wait(&u->idle, &u->lock, ENV_FOREVER);
		return;
	}
	env_mutex_unlock(&u->lock);
	if (uffd_on_reader(u))
		uffd_drain_events(u);
	sched_yield();
	ENV_STOP("events-yielded");
	env_mutex_lock(&u->lock);
}

/* ---- transits ---- */

struct transit *transit_begin(struct uffd *u, struct engine_batch *b)
{
	struct transit *t = u->free_transits;

	env_assert_held(&u->lock);
	if (t)
		u->free_transits = t->next;
	else
		t = env_alloc(sizeof(*t));
	if (!t)
		return NULL;
	t->b = b;
	t->slot = NULL;
	t->base = 0;
	t->waiters = t->copied = false;
	transit_log_init(t);
	env_list_init(&t->link);
	env_list_add_tail(&u->transits, &t->link);
	b->engine = t;
	return t;
}

void transit_take(struct transit *t, unsigned int i, unsigned int n)
{
	while (n--)
		t->since[i++] = t->nevents;
}

bool transit_follow(const struct transit *t, unsigned int from, uint64_t *va)
{
	unsigned int j;

	for (j = from; j < t->nevents; j++) {
		const struct transit_event *e = &t->event[j];

		if (*va < e->start || *va >= e->end)
			continue;
		if (!e->remap)
			return false;
		*va = e->to + (*va - e->start);
	}
	return true;
}

/*
 * Where a page of the block is, by what happened since it was taken. What happened before was to
 * another page at the same address: a collect that lets an event pass goes on with what is there
 * then.
 */
bool transit_locate(const struct transit *t, unsigned int i, uint64_t *ret_va)
{
	*ret_va = t->b->va + i * PAGE;
	return transit_follow(t, t->since[i], ret_va);
}

void transit_log_init(struct transit *t)
{
	t->nevents = 0;
	t->event = t->first;
	t->room = sizeof(t->first) / sizeof(t->first[0]);
}

void transit_log_fini(struct transit *t)
{
	if (t->event != t->first)
		env_free(t->event);
}

void transit_log_one(struct transit *t, const struct transit_event *e)
{
	if (t->nevents == t->room) {
		struct transit_event *n = env_alloc(2 * t->room * sizeof(*n));

		env_assert(n); /* forgetting an event would bring back dropped data */
		memcpy(n, t->event, t->nevents * sizeof(*n));
		if (t->event != t->first)
			env_free(t->event);
		t->event = n;
		t->room *= 2;
	}
	t->event[t->nevents++] = *e;
}

void transit_log(struct uffd *u, uint64_t start, uint64_t end, uint64_t to, bool remap)
{
	struct transit_event e = { start, end, to, remap };
	struct env_list *l;

	env_assert_held(&u->lock);
	env_list_for_each (l, &u->transits)
		transit_log_one(env_container_of(l, struct transit, link), &e);
}
