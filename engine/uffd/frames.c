// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Frames: host pages that the engine owns and hands round, so that moving a page costs no
 * allocation. A slot is 2 MiB of address space used as a stack of pages: pages that leave the
 * program are pushed, and popped when they carry content home. A slot belongs to one transit at a
 * time. A whole block goes in and out as one move, which keeps a huge page whole; for that a slot
 * must never have held small pages ("virgin": no page table below its huge entry).
 */
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

/* populated free slots are kept up to this part of the machine's memory, the rest goes back */
#define FRAMES_KEEP_PART 64
/* and so many where somebody says how much RAM the program may take (balun_allow()) */
#define FRAMES_KEEP_ALLOWED 4U

void frames_init(struct frames *f)
{
	long pages = sysconf(_SC_PHYS_PAGES);

	env_mutex_init(&f->lock);
	f->keep_full = ENV_MAX(4L, pages / FRAMES_KEEP_PART / (long)BALUN_BLOCK_PAGES);
}

/* a device's host memory or a slot: is all of the mapping the engine's own? */
static bool is_own(const struct uffd *u, const struct vma *v)
{
	unsigned int i;

	for (i = 1; i <= BALUN_MAX_DEVICES; i++) {
		uint64_t base = (uintptr_t)u->device[i].host_base;

		if (base && v->start >= base && v->end <= base + u->device[i].mem_bytes)
			return true;
	}
	return v->end - v->start <= BLOCK && env_owns(v->start, v->end - v->start);
}

/*
 * At the limit of mappings the kernel lets go of a part of one only with the rest of it. Nothing is
 * missed there meanwhile: what holds content is present.
 */
static int unregister_around(struct uffd *u, uint64_t addr, uint64_t end, struct vma *ret)
{
	int err = maps_query(addr, ret);

	if (err)
		return err;
	if (ret->start > addr || ret->end < end || !is_own(u, ret))
		return -ENOMEM;
	return uffd_unregister(u, ret->start, ret->end);
}

/* what is locked: where the kernel can (5.18) */
bool uffd_discard_pages(uint64_t va, uint64_t len)
{
	return !syscall(SYS_madvise, va, len, MADV_DONTNEED_LOCKED) ||
	       (errno == EINVAL && !syscall(SYS_madvise, va, len, MADV_DONTNEED));
}

bool frames_empty(struct uffd *u, uint64_t addr, uint64_t len)
{
	struct vma v = { .start = addr, .end = addr + len };
	bool empty;

	/*
	 * Unregistered, the discard raises no event, so any thread may do it, also the reader.
	 * Still registered it would wait for the reader, who may be this thread, or wait for its
	 * lock.
	 */
	if (uffd_unregister(u, addr, addr + len) && unregister_around(u, addr, addr + len, &v)) {
		env_log(0, "frames at 0x%llx cannot be emptied", (unsigned long long)addr);
		return false;
	}
	empty = uffd_discard_pages(addr, len);
	if (!empty)
		env_log(0, "frames at 0x%llx cannot be emptied: error %d", (unsigned long long)addr,
			errno);
	if (!uffd_register(u, v.start, v.end))
		return empty;
	env_log(0, "frames cannot be registered again: error %d", errno);
	return false;
}

/* as far as the kernel does it at one go, with one flush of TLBs for all (6.16) */
static void discard_runs(const struct frame_runs *r)
{
	ssize_t done = syscall(SYS_process_madvise, PIDFD_SELF_THREAD, r->run, r->n,
			       MADV_DONTNEED_LOCKED, 0);
	unsigned int i = 0;

	while (i < r->n && done >= (ssize_t)r->run[i].iov_len)
		done -= r->run[i++].iov_len;
	for (; i < r->n; i++)
		if (!uffd_discard_pages((uintptr_t)r->run[i].iov_base, r->run[i].iov_len))
			env_log(0, "frames at %p cannot be emptied: error %d", r->run[i].iov_base,
				errno);
}

void frames_empty_runs(struct uffd *u, struct frame_runs *r)
{
	unsigned int i;

	env_assert_held(&u->lock);
	if (r->n > 1 && !uffd_unregister(u, r->start, r->end)) {
		discard_runs(r);
		if (uffd_register(u, r->start, r->end))
			env_log(0, "frames cannot be registered again: error %d", errno);
	} else {
		for (i = 0; i < r->n; i++)
			frames_empty(u, (uintptr_t)r->run[i].iov_base, r->run[i].iov_len);
	}
	r->n = 0;
}

void frames_empty_later(struct uffd *u, struct frame_runs *r, uint64_t addr)
{
	struct iovec *last = r->run + r->n - 1;

	if (r->n && addr == (uintptr_t)last->iov_base + last->iov_len) {
		last->iov_len += PAGE;
	} else {
		if (r->n == FRAME_RUNS)
			frames_empty_runs(u, r);
		r->run[r->n++] = (struct iovec){ (void *)(uintptr_t)addr, PAGE };
	}
	r->start = r->n == 1 ? (uintptr_t)r->run->iov_base : ENV_MIN(r->start, addr);
	r->end = r->n == 1 ? addr + PAGE : ENV_MAX(r->end, addr + PAGE);
}

static struct frame_slot *slot_new(struct uffd *u)
{
	struct frame_slot *s = env_alloc(sizeof(*s));
	void *p;

	if (!s)
		return NULL;
	p = env_pages_alloc(BLOCK);
	if (!p)
		goto err_free;
	s->base = (uintptr_t)p;
	s->virgin = true;
	if (s->base % BLOCK || uffd_register(u, s->base, s->base + BLOCK))
		goto err_pages;
	u->frames.bytes += BLOCK;
	return s;
err_pages:
	env_pages_free(p, BLOCK);
err_free:
	env_free(s);
	return NULL;
}

static void slot_free(struct uffd *u, struct frame_slot *s)
{
	uffd_unregister(u, s->base, s->base + BLOCK);
	env_pages_free((void *)(uintptr_t)s->base, BLOCK);
	env_free(s);
}

void frames_fini(struct uffd *u)
{
	struct frame_slot **list[] = { &u->frames.empty, &u->frames.partial, &u->frames.full };

	for (unsigned int i = 0; i < 3; i++) {
		while (*list[i]) {
			struct frame_slot *s = *list[i];

			*list[i] = s->next;
			slot_free(u, s);
		}
	}
	env_mutex_destroy(&u->frames.lock);
}

static struct frame_slot *take(struct frame_slot **list,
			       bool (*fits)(const struct frame_slot *, unsigned int, bool),
			       unsigned int n, bool flag)
{
	for (; *list; list = &(*list)->next) {
		struct frame_slot *s = *list;

		if (fits(s, n, flag)) {
			*list = s->next;
			return s;
		}
	}
	return NULL;
}

static bool fits_room(const struct frame_slot *s, unsigned int n, bool huge)
{
	return s->top + n <= BALUN_BLOCK_PAGES && s->virgin == huge;
}

static bool fits_any(const struct frame_slot *s, unsigned int n, bool huge)
{
	(void)huge;
	return s->top + n <= BALUN_BLOCK_PAGES;
}

static bool fits_full(const struct frame_slot *s, unsigned int n, bool flag)
{
	(void)flag;
	return s->top >= n;
}

struct frame_slot *frames_get_room(struct uffd *u, unsigned int n, bool huge)
{
	struct frames *f = &u->frames;
	struct frame_slot *s = NULL;

	env_mutex_lock(&f->lock);
	if (n < BALUN_BLOCK_PAGES)
		s = take(&f->partial, fits_any, n, false);
	if (!s)
		s = take(&f->empty, fits_room, n, huge);
	env_mutex_unlock(&f->lock);
	if (!s)
		s = slot_new(u);
	if (!s && huge) /* no room for a whole one: in small pages, then */
		return frames_get_room(u, n, false);
	if (s && !huge)
		s->virgin = false;
	return s;
}

struct frame_slot *frames_get_full(struct uffd *u, unsigned int n)
{
	struct frames *f = &u->frames;
	struct frame_slot *s = NULL;

	env_mutex_lock(&f->lock);
	if (n < BALUN_BLOCK_PAGES)
		s = take(&f->partial, fits_full, n, false);
	if (!s) {
		s = take(&f->full, fits_full, n, false);
		env_store_relaxed(&f->nfull, f->nfull - (s != NULL));
	}
	if (s && n < BALUN_BLOCK_PAGES)
		s->virgin = false;
	env_mutex_unlock(&f->lock);
	return s;
}

static unsigned int keep_full(const struct uffd *u)
{
	return allow_is_any(u) ? u->frames.keep_full : FRAMES_KEEP_ALLOWED;
}

void frames_put(struct uffd *u, struct frame_slot *s)
{
	struct frames *f = &u->frames;
	struct frame_slot **list;

	if (s->spoiled ||
	    (s->top == BALUN_BLOCK_PAGES && env_load_relaxed(&f->nfull) >= keep_full(u))) {
		frames_empty(u, s->base, BLOCK);
		s->top = 0;
		s->spoiled = false;
	}
	env_mutex_lock(&f->lock);
	list = !s->top ? &f->empty : s->top == BALUN_BLOCK_PAGES ? &f->full : &f->partial;
	env_store_relaxed(&f->nfull, f->nfull + (list == &f->full));
	s->next = *list;
	*list = s;
	env_mutex_unlock(&f->lock);
}

/*
 * Before a fork, when nothing is in transit: a frame that the child shares would refuse to move
 * until one side is gone, so there are none.
 */
void frames_shrink(struct uffd *u)
{
	struct frame_slot **list[] = { &u->frames.partial, &u->frames.full };
	struct frames *f = &u->frames;

	env_mutex_lock(&f->lock);
	for (unsigned int i = 0; i < 2; i++) {
		while (*list[i]) {
			struct frame_slot *s = *list[i];

			*list[i] = s->next;
			frames_empty(u, s->base, BLOCK);
			s->top = 0;
			s->next = f->empty;
			f->empty = s;
		}
	}
	env_store_relaxed(&f->nfull, 0);
	env_mutex_unlock(&f->lock);
}
