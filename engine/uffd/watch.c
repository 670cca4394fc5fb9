// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Which ranges are watched: a sorted array, changed only together with the kernel's registration.
 * A range is watched from its first migration on; memory that never migrates is not registered.
 */
#include <sys/ioctl.h>

#include "engine/uffd/uffd.h"

/* index of the first range that ends above @va */
static unsigned int watch_find(const struct watch *w, uint64_t va)
{
	unsigned int lo = 0, hi = w->n;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (w->r[mid].end > va)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* *ret_until: where the answer may change */
bool watch_covers(const struct watch *w, uint64_t va, uint64_t *ret_until)
{
	unsigned int i = watch_find(w, va);

	if (i == w->n) {
		*ret_until = UINT64_MAX;
		return false;
	}
	if (w->r[i].start > va) {
		*ret_until = w->r[i].start;
		return false;
	}
	*ret_until = w->r[i].end;
	return true;
}

static int watch_room(struct watch *w)
{
	unsigned int room = w->room ? w->room * 2 : 64;
	struct watch_range *r;

	if (w->n < w->room)
		return 0;
	r = env_alloc(room * sizeof(*r));
	if (!r)
		return -ENOMEM;
	if (w->n)
		memcpy(r, w->r, w->n * sizeof(*r));
	env_free(w->r);
	w->r = r;
	w->room = room;
	return 0;
}

int watch_add(struct watch *w, uint64_t start, uint64_t end)
{
	unsigned int i = watch_find(w, start), j;
	int err;

	if (i && w->r[i - 1].end == start)
		i--;
	for (j = i; j < w->n && w->r[j].start <= end; j++) {
		start = ENV_MIN(start, w->r[j].start);
		end = ENV_MAX(end, w->r[j].end);
	}
	if (j == i) {
		err = watch_room(w);
		if (err)
			return err;
		memmove(&w->r[i + 1], &w->r[i], (w->n - i) * sizeof(*w->r));
		w->n++;
	} else {
		memmove(&w->r[i + 1], &w->r[j], (w->n - j) * sizeof(*w->r));
		w->n -= j - i - 1;
	}
	w->r[i] = (struct watch_range){ start, end };
	return 0;
}

/* -ENOMEM: the range would have to be cut in two and there is no memory: nothing changed */
int watch_remove(struct watch *w, uint64_t start, uint64_t end)
{
	unsigned int i = watch_find(w, start), j;
	int err;

	if (i < w->n && w->r[i].start < start && w->r[i].end > end) {
		err = watch_room(w);
		if (err)
			return err;
		memmove(&w->r[i + 1], &w->r[i], (w->n - i) * sizeof(*w->r));
		w->n++;
		w->r[i].end = start;
		w->r[i + 1].start = end;
		return 0;
	}
	if (i < w->n && w->r[i].start < start)
		w->r[i++].end = start;
	for (j = i; j < w->n && w->r[j].end <= end; j++)
		;
	if (j > i) /* an empty table has no memory */
		memmove(&w->r[i], &w->r[j], (w->n - j) * sizeof(*w->r));
	w->n -= j - i;
	if (i < w->n && w->r[i].start < end)
		w->r[i].start = end;
	return 0;
}

int watch_move(struct watch *w, uint64_t from, uint64_t to, uint64_t len)
{
	unsigned int i;

	while ((i = watch_find(w, from)) < w->n && w->r[i].start < from + len) {
		uint64_t start = ENV_MAX(w->r[i].start, from);
		uint64_t end = ENV_MIN(w->r[i].end, from + len);
		int err = watch_add(w, start - from + to, end - from + to);

		if (!err)
			err = watch_remove(w, start, end);
		if (err)
			return err; /* done so far; a piece that is in both is moved again */
	}
	return 0;
}

static int register_mode(struct uffd *u, uint64_t start, uint64_t end, uint64_t mode)
{
	struct uffdio_register r = { .range = { .start = start, .len = end - start },
				     .mode = mode };

	return ioctl(u->caps.fd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

static uint64_t usual_mode(const struct uffd *u)
{
	return UFFDIO_REGISTER_MODE_MISSING | (u->move ? 0 : UFFDIO_REGISTER_MODE_WP);
}

int uffd_register(struct uffd *u, uint64_t start, uint64_t end)
{
	return register_mode(u, start, end, usual_mode(u));
}

/*
 * What was the program's when we looked can be Balun's by now: a fault on the service thread's own
 * memory would wait for the service thread. Whose it is stays as it is from the look to the end.
 */
static int register_program(struct uffd *u, uint64_t start, uint64_t end, uint64_t mode)
{
	int err = -EBUSY;

	env_owns_begin();
	if (!env_owns(start, end - start)) {
		ENV_STOP("watch-sure");
		err = register_mode(u, start, end, mode);
	}
	env_owns_end();
	return err;
}

int uffd_register_protect(struct uffd *u, uint64_t start, uint64_t end)
{
	return register_program(u, start, end,
				UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
}

int uffd_unregister(struct uffd *u, uint64_t start, uint64_t end)
{
	struct uffdio_range r = { .start = start, .len = end - start };
	int err = ioctl(u->caps.fd, UFFDIO_UNREGISTER, &r) ? -errno : 0;

	if (err)
		env_log(2, "unregister 0x%llx: error %d", (unsigned long long)start, -err);
	return err;
}

/* before anything below @end can be taken: see touch() in inside.c for the other half */
void watch_raise(struct uffd *u, uint64_t end)
{
	if (end > u->watch_high)
		__atomic_store_n(&u->watch_high, end, __ATOMIC_SEQ_CST);
}

/*
 * Lock held. What is not registered yet raises no events: parts of the mapping can be unmapped
 * after we asked for it, and the kernel registers what is left. A mapping that is there after that
 * is registered as a whole, or lies where an event says so that is still unread.
 */
static void watch_one(struct uffd *u, uint64_t start, uint64_t end)
{
	struct vma v;

	if (maps_query(start, &v) || v.start > start || v.shared || v.file || v.special)
		return;
	end = ENV_MIN(end, v.end);
	watch_raise(u, end);
	ENV_STOP("watch-queried");
	if (register_program(u, start, end, usual_mode(u)))
		return; /* Balun's, another context has it, or memory that cannot be watched */
	if (maps_query(start, &v) || v.start > start)
		return;
	end = ENV_MIN(end, v.end);
	if (watch_add(&u->watch, start, end))
		uffd_unregister(u, start, end);
}

/*
 * The mapping around an address, rounded out to blocks, so that neighbouring migrations register
 * once; cut to the mapping, to what belongs to no loaded object and not to Balun.
 */
void uffd_watch_range(struct uffd *u, uint64_t va, uint64_t len)
{
	uint64_t end = va + len, until;
	bool all, object;
	struct vma v;

	env_mutex_lock(&u->lock);
	all = watch_covers(&u->watch, va, &until) && until >= end;
	env_mutex_unlock(&u->lock);
	if (all)
		return;
	maps_refresh_objects();
	va = BLOCK_OF(va);
	end = BLOCK_OF(end + BLOCK - 1);
	while (va < end && !maps_query(va, &v) && v.start < end) {
		va = ENV_MAX(va, v.start);
		object = maps_is_object(va, ENV_MIN(end, v.end), &until);
		if (!object && !v.shared && !v.file && !v.special && !env_owns(va, until - va)) {
			env_mutex_lock(&u->lock);
			watch_one(u, va, until);
			env_mutex_unlock(&u->lock);
		}
		va = until;
	}
}
