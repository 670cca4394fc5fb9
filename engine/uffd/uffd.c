// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The userfaultfd engine: attach, detach, waiting, loss, in place access; the ops table. */
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

bool uffd_user_mode_only;
struct uffd *uffd_current;
uint32_t uffd_life;

/* ---- life ---- */

/* a hook that is inside now is waited for; who comes later finds no space */
static void unpublish(void)
{
	__atomic_store_n(&uffd_current, NULL, __ATOMIC_SEQ_CST);
	uffd_inside_wait();
}

static int attach(struct balun_space *sp, void **ret_e)
{
	struct uffd *u, *none = uffd_here() ? NULL : env_load(&uffd_current);
	int err;

	u = env_alloc(sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->space = sp;
	u->fork_gen = env_fork_gen();
	env_mutex_init(&u->lock);
	env_cond_init(&u->idle);
	env_list_init(&u->transits);
	env_list_init(&u->changing);
	frames_init(&u->frames);
	allow_init(u);
	err = uffd_open(&u->caps);
	if (err) {
		env_reason("%s; %s", u->caps.reason, u->caps.remedy);
		goto err_free;
	}
	u->move = u->caps.move;
	if (u->caps.user_mode_only) {
		env_log(1, "%s", u->caps.reason);
		env_store(&uffd_user_mode_only, true);
	}
	u->pt = softpt_create();
	err = -ENOMEM;
	if (!u->pt)
		goto err_close;
	uffd_fork_register();
	if (!__atomic_compare_exchange_n(&uffd_current, &none, u, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST)) {
		env_reason("this process has a space already; end it first");
		err = -EBUSY;
		goto err_pt;
	}
	uffd_unseen_wait();
	err = maps_open();
	if (err) {
		env_reason("/proc/self/pagemap: %s", strerror(-err));
		goto err_maps;
	}
	maps_refresh_objects();
	err = uffd_reader_start(u);
	if (err)
		goto err_maps;
	err = uffd_files_start(u);
	if (err)
		goto err_reader;
	if (u->move)
		uffd_calibrate(u);
	*ret_e = u;
	return 0;
err_reader:
	uffd_reader_stop(u);
err_maps:
	maps_close();
	unpublish();
err_pt:
	softpt_destroy(u->pt);
err_close:
	close(u->caps.fd);
err_free:
	env_cond_destroy(&u->idle);
	env_mutex_destroy(&u->lock);
	env_free(u);
	return err;
}

static int uffd_attach(struct balun_space *sp, void **ret_e)
{
	int err;

	env_word_lock(&uffd_life);
	err = attach(sp, ret_e);
	env_word_unlock(&uffd_life);
	return err;
}

static void free_lists(struct uffd *u)
{
	struct env_list *l, *next;

	while (u->free_transits) {
		struct transit *t = u->free_transits;

		u->free_transits = t->next;
		if (t->bounce)
			env_pages_free(t->bounce, BLOCK);
		env_free(t);
	}
	env_list_for_each_safe (l, next, &u->changing)
		env_free(env_container_of(l, struct changing, link));
	env_free(u->watch.r);
	env_free(u->lost.r);
}

/*
 * Everything is home. What is registered is let go of first, so that no fault and no fork needs the
 * reader when it stops.
 */
static void uffd_detach(void *e)
{
	struct uffd *u = e;
	unsigned int i;

	env_word_lock(&uffd_life);
	unpublish();
	env_mutex_lock(&u->lock);
	for (i = 0; i < u->watch.n; i++)
		uffd_unregister(u, u->watch.r[i].start, u->watch.r[i].end);
	env_mutex_unlock(&u->lock);
	frames_fini(u);
	uffd_files_stop(u);
	uffd_reader_stop(u);
	maps_close();
	close(u->caps.fd);
	softpt_destroy(u->pt);
	free_lists(u);
	env_cond_destroy(&u->idle);
	env_mutex_destroy(&u->lock);
	env_free(u);
	env_word_unlock(&uffd_life);
}

static int uffd_device_attach(void *e, unsigned int dev, struct balun_desc *desc)
{
	struct uffd *u = e;
	uint64_t base = (uintptr_t)desc->host_base;
	int err = 0;

	if (desc->caps & BALUN_CAP_COHERENT && !u->move) {
		env_log(1, "coherent device memory needs UFFDIO_MOVE: it is used as private");
		desc->caps &= ~BALUN_CAP_COHERENT;
	}
	env_mutex_lock(&u->lock);
	u->device[dev] = *desc;
	if (!(desc->caps & BALUN_CAP_HOST_MEMORY) || !u->move) {
		u->device[dev].host_base = NULL;
	} else {
		err = uffd_register(u, base, base + desc->mem_bytes);
		if (err)
			env_reason("device memory cannot be watched: %s", strerror(-err));
	}
	env_mutex_unlock(&u->lock);
	return err;
}

static void uffd_device_detach(void *e, unsigned int dev)
{
	struct uffd *u = e;
	struct balun_desc *d = &u->device[dev];

	env_mutex_lock(&u->lock);
	if (d->host_base)
		uffd_unregister(u, (uintptr_t)d->host_base, (uintptr_t)d->host_base + d->mem_bytes);
	memset(d, 0, sizeof(*d));
	env_mutex_unlock(&u->lock);
}

/* ---- waiting ---- */

static bool uffd_wait_idle(void *e, uint64_t va, uint64_t timeout_ns)
{
	uint64_t deadline = env_now_ns() + timeout_ns, now;
	struct uffd *u = e;
	struct softpt_run r;
	bool idle;

	va = BLOCK_OF(va);
	env_mutex_lock(&u->lock);
	for (;;) {
		idle = !softpt_next_busy(u->pt, va, va + BLOCK, &r);
		now = env_now_ns();
		if (idle || now >= deadline)
			break;
		env_cond_wait(&u->idle, &u->lock, deadline - now);
	}
	env_mutex_unlock(&u->lock);
	return idle;
}

static bool uffd_next_away(void *e, unsigned int dev, uint64_t va, struct engine_run *ret)
{
	uint64_t end = 1ULL << SOFTPT_VA_BITS, at;
	struct softpt_run a, b;
	struct uffd *u = e;
	bool away, busy;

	env_mutex_lock(&u->lock);
	for (at = va;; at = a.va + a.len) {
		away = at < end && softpt_next_away(u->pt, at, end, &a);
		if (!away || !dev || SOFTPT_DEV(a.place) == dev)
			break;
	}
	busy = va < end && softpt_next_busy(u->pt, va, end, &b);
	env_mutex_unlock(&u->lock);
	if (!away && !busy)
		return false;
	memset(ret, 0, sizeof(*ret));
	if (busy && (!away || b.va <= a.va)) {
		ret->va = b.va;
		ret->len = b.len;
		ret->where = ENGINE_BUSY;
		return true;
	}
	ret->va = a.va;
	ret->len = ENV_MIN(a.len, BLOCK_OF(a.va) + BLOCK - a.va);
	ret->where = ENGINE_DEVICE;
	ret->dev = SOFTPT_DEV(a.place);
	ret->off = (uint64_t)SOFTPT_PGNO(a.place) << BALUN_PAGE_SHIFT;
	return true;
}

#define FENCE_NS 1000000000ULL

/* has a memory call begun whose event is not read? The kernel looks at that before the argument */
static bool event_pending(struct uffd *u)
{
	struct uffdio_copy nothing = { 0 };

	return ioctl(u->caps.fd, UFFDIO_COPY, &nothing) && errno == EAGAIN;
}

/*
 * Also of calls that have not returned: another thread may have mapped anew what a munmap has freed
 * that still waits for its event to be read. Bounded, for who comes later may come without end.
 */
static void uffd_fence(void *e)
{
	uint64_t deadline = env_now_ns() + FENCE_NS, now;
	struct uffd *u = e;

	env_mutex_lock(&u->lock);
	for (;;) {
		if (u->handling)
			env_cond_wait(&u->idle, &u->lock, ENV_FOREVER);
		else if (event_pending(u) && (now = env_now_ns()) < deadline)
			env_cond_wait(&u->idle, &u->lock, deadline - now);
		else
			break;
	}
	env_mutex_unlock(&u->lock);
}

/* ---- the ends of pages ---- */

/* lock held: device pages of the range are let go of */
static void release_range(struct uffd *u, uint64_t va, uint64_t len)
{
	uint64_t end = va + len;
	struct softpt_run r;

	while (softpt_next_away(u->pt, va, end, &r)) {
		unsigned int dev = SOFTPT_DEV(r.place);
		uint64_t off = (uint64_t)SOFTPT_PGNO(r.place) << BALUN_PAGE_SHIFT;

		va = r.va + r.len;
		if (r.busy)
			continue;
		if (u->device[dev].host_base)
			frames_empty(u, (uintptr_t)u->device[dev].host_base + off, r.len);
		softpt_clear_away(u->pt, r.va, r.len);
		core_release(u->space, dev, r.va, off, r.len);
	}
}

/* core has made the devices forget the range */
static void uffd_discard(void *e, uint64_t va, uint64_t len)
{
	struct uffd *u = e;

	env_mutex_lock(&u->lock);
	release_range(u, va, len);
	uffd_wake(u, va, len);
	env_mutex_unlock(&u->lock);
}

/* the first pages of [va, va + *len): 0, and *len says how many bytes; errors: of the first page */
static int poison(struct uffd *u, uint64_t va, uint64_t *len)
{
	struct uffdio_poison p = { .range = { .start = va, .len = *len } };

	if (!ioctl(u->caps.fd, UFFDIO_POISON, &p))
		return 0;
	if (p.updated > 0) {
		*len = p.updated;
		return 0;
	}
	if (errno == EAGAIN)
		return -EAGAIN;
	if (*len == PAGE)
		return uffd_refused(u, va, -errno);
	*len = PAGE; /* perhaps the range is not all in one mapping */
	return poison(u, va, len);
}

/*
 * One run, as it was looked at: lock held, and not let go of between the look and the ioctl, or a
 * touch in between would be served as a hole, with zeros. 0, and r->len says how far; -EAGAIN;
 * -ENOENT: the program has given up the first page, r->len.
 */
static int poison_run(struct uffd *u, struct softpt_run *r)
{
	uint64_t done;
	int err;

	/* what of a coherent device the program has mapped goes from its memory first */
	if (uffd_is_coherent(u, SOFTPT_DEV(r->place))) {
		if (uffd_unmap_coherent(u, r->va, r->place, r->len, &done) == -EAGAIN)
			return -EAGAIN;
		r->len = ENV_MAX(done, PAGE);
	}
	err = u->caps.poison ? poison(u, r->va, &r->len) : -EOPNOTSUPP;
	if (!err || err == -EAGAIN || err == -ENOENT)
		return err;
	/* The next best thing to SIGBUS, never silent zeros. It has no event, so nobody waits for
	 * the lock. Limit, kernels without POISON (before 6.6) only: memory that another thread
	 * unmaps and maps anew in this very moment is not told apart from the old. */
	r->len = BALUN_PAGE_SIZE;
	syscall(SYS_mprotect, r->va, BALUN_PAGE_SIZE, PROT_NONE);
	return 0;
}

static uint64_t uffd_poison(void *e, unsigned int dev, uint64_t va, uint64_t len)
{
	uint64_t end = va + len, lost = 0;
	struct uffd *u = e;
	int err;

	env_mutex_lock(&u->lock);
	while (va < end) {
		struct softpt_run r;

		softpt_run(u->pt, va, end - va, &r);
		if (!r.away || r.busy || SOFTPT_DEV(r.place) != dev) {
			va += r.len;
			continue;
		}
		err = poison_run(u, &r);
		if (err == -EAGAIN) {
			uffd_yield_to_events(u);
			continue;
		}
		if (err == -ENOENT) {
			release_range(u, va, r.len);
			va += r.len;
			continue;
		}
		if (watch_add(&u->lost, va, va + r.len))
			env_log(0, "no memory to list lost pages at 0x%llx",
				(unsigned long long)va);
		release_range(u, va, r.len);
		uffd_wake(u, va, r.len); /* who has touched it; POISON does so itself */
		lost += r.len >> BALUN_PAGE_SHIFT;
		va += r.len;
	}
	env_mutex_unlock(&u->lock);
	return lost;
}

static bool uffd_next_lost(void *e, uint64_t va, struct engine_run *ret)
{
	struct uffd *u = e;
	uint64_t until;
	bool lost;

	*ret = (struct engine_run){ .where = ENGINE_LOST, .mapped = 1 };
	env_mutex_lock(&u->lock);
	lost = watch_covers(&u->lost, va, &until);
	if (!lost && until != UINT64_MAX) {
		va = until;
		lost = watch_covers(&u->lost, va, &until);
	}
	env_mutex_unlock(&u->lock);
	ret->va = va;
	ret->len = until - va;
	return lost;
}

/* ---- in place ---- */

static int in_place(uint64_t addr, void *buf, size_t len, bool write)
{
	struct iovec local = { .iov_base = buf, .iov_len = len };
	struct iovec remote = { .iov_base = (void *)(uintptr_t)addr, .iov_len = len };
	ssize_t n = write ? process_vm_writev(gettid(), &local, 1, &remote, 1, 0)
			  : process_vm_readv(gettid(), &local, 1, &remote, 1, 0);

	return n == (ssize_t)len ? 0 : -EFAULT;
}

static int uffd_bus_read(void *e, uint64_t addr, void *buf, size_t len)
{
	(void)e;
	return in_place(addr, buf, len, false);
}

static int uffd_bus_write(void *e, uint64_t addr, const void *buf, size_t len)
{
	(void)e;
	return in_place(addr, (void *)(uintptr_t)buf, len, true);
}

static uint64_t uffd_metadata(void *e)
{
	struct uffd *u = e;
	uint64_t n;

	env_mutex_lock(&u->lock);
	n = softpt_bytes(u->pt) + u->watch.room * sizeof(*u->watch.r) + sizeof(*u);
	env_mutex_unlock(&u->lock);
	return n;
}

const struct engine_ops engine_uffd = {
	.size = sizeof(struct engine_ops),
	.name = "uffd",
	.probe = uffd_probe,
	.attach = uffd_attach,
	.detach = uffd_detach,
	.device_attach = uffd_device_attach,
	.device_detach = uffd_device_detach,
	.enter = uffd_enter,
	.leave = uffd_leave,
	.describe = uffd_describe,
	.next_mapped = uffd_next_mapped,
	.look_begin = softpt_look_begin,
	.look_changed = softpt_look_changed,
	.look_locked = true,
	.collect = uffd_collect,
	.commit = uffd_commit,
	.unshare = softpt_unshare,
	.wait_idle = uffd_wait_idle,
	.poison = uffd_poison,
	.next_lost = uffd_next_lost,
	.next_away = uffd_next_away,
	.evict_strays = softpt_evict_strays,
	.fence = uffd_fence,
	.bus_read = uffd_bus_read,
	.bus_write = uffd_bus_write,
	.metadata = uffd_metadata,
	.discard = uffd_discard,
	.away = uffd_away,
	.taken = uffd_taken,
	.allow = uffd_allow,
	.allow_word = uffd_allow_word,
	.watch = uffd_watch,
};
