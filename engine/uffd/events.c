// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The reader: one thread that reads the context and serves what it says.
 *
 * The lock is taken before read(): the kernel lets the caller of munmap go on at the read, and what
 * it does next must find the tables changed. Events are handled before the faults that came with
 * them; a fault whose ioctl meets a pending event waits in u->pending while that is read.
 *
 * Dropping pages takes two steps, because a device may still use their memory: under the lock they
 * become "dying" (nobody else touches them); then, without it, the devices are made to forget them;
 * then their memory is released.
 */
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

/* an empty page of a watched range brings so much around it along */
#define ZERO_AROUND (64UL << 10)

/* what a core's way out of its sleep costs on a virtual machine, about */
#define SPIN_NS	      50000ULL
#define SPIN_PATIENCE 4

#define PENDING 64 /* faults that wait have room at first */
#define TRIES	16 /* at one of them, before the next is looked at */

/* faults that are held back are looked at again so often: those of a block that thrashes, and those
 * that wait until more RAM is allowed, which more_fd tells */
static const struct timespec held_period = { .tv_nsec = 50000 };
static const struct timespec starved_period = { .tv_nsec = 20000000 };

bool uffd_on_reader(const struct uffd *u)
{
	return u->reader_tp == __builtin_thread_pointer();
}

/* ---- events ---- */

/* away pages of a range become dying */
static void mark_dying(struct uffd *u, uint64_t start, uint64_t end)
{
	struct softpt_run r;

	while (softpt_next_away(u->pt, start, end, &r)) {
		if (softpt_set_busy(u->pt, r.va, r.len))
			env_die("softpt_set_busy", __FILE__, __LINE__);
		start = r.va + r.len;
	}
}

/* what is in transit there is nobody's any more: commit finds that in the log */
static void clear_transit(struct uffd *u, uint64_t start, uint64_t end)
{
	struct softpt_run r;

	while (softpt_next_busy(u->pt, start, end, &r)) {
		if (!r.away)
			softpt_clear_busy(u->pt, r.va, r.len);
		start = r.va + r.len;
	}
}

static void release_dying(struct uffd *u, uint64_t start, uint64_t end)
{
	uint64_t va = start;
	struct softpt_run r;

	while (softpt_next_away(u->pt, va, end, &r)) {
		unsigned int dev = SOFTPT_DEV(r.place);
		uint64_t off = (uint64_t)SOFTPT_PGNO(r.place) << BALUN_PAGE_SHIFT;

		va = r.va + r.len;
		if (!r.busy)
			continue; /* came after the event */
		if (u->move && u->device[dev].host_base)
			frames_empty(u, (uintptr_t)u->device[dev].host_base + off, r.len);
		softpt_clear_away(u->pt, r.va, r.len);
		softpt_clear_busy(u->pt, r.va, r.len);
		core_release(u->space, dev, r.va, off, r.len);
	}
	uffd_wake(u, start, end - start);
}

/* lock held on entry and exit, let go of in between; u->handling keeps fences waiting */
static void drop_range(struct uffd *u, uint64_t start, uint64_t end)
{
	while (watch_remove(&u->lost, start, end))
		sched_yield(); /* no memory to cut a range in two */
	mark_dying(u, start, end);
	transit_log(u, start, end, 0, false);
	clear_transit(u, start, end);
	u->handling++;
	env_mutex_unlock(&u->lock);
	ENV_STOP("reader-dying");
	core_invalidate_begin(u->space, start, end - start, BALUN_CAUSE_INVALIDATE);
	env_mutex_lock(&u->lock);
	release_dying(u, start, end);
	env_mutex_unlock(&u->lock);
	core_invalidate_end(u->space, start, end - start);
	env_mutex_lock(&u->lock);
	u->handling--;
	env_cond_wake(&u->idle);
}

/*
 * Is page @va named by an own discard? The first event that names it is taken for ours. If the
 * program discards the page in the same moment a second one comes, and the page is dropped: whose
 * event was whose makes no difference.
 */
static bool own_remove(struct uffd *u, uint64_t va)
{
	unsigned int i, page;

	for (i = 0; i < sizeof(u->own_remove) / sizeof(u->own_remove[0]); i++) {
		if (va < u->own_remove[i].start || va >= u->own_remove[i].end)
			continue;
		page = (va - u->own_remove[i].start) >> BALUN_PAGE_SHIFT;
		if (env_bit(u->own_remove[i].seen, page))
			continue;
		env_bit_set(u->own_remove[i].seen, page);
		return true;
	}
	return false;
}

/* the program's part of a REMOVE event, run by run */
static void on_remove(struct uffd *u, uint64_t start, uint64_t end)
{
	uint64_t va = start, from;

	if (!uffd_discarding(u, start, end)) {
		uffd_quarantine(u, start, end);
		drop_range(u, start, end);
		return;
	}
	while (va < end) {
		for (from = va; va < end && !own_remove(u, va); va += PAGE)
			;
		if (va > from) {
			uffd_quarantine(u, from, va);
			drop_range(u, from, va);
		}
		va += va < end ? PAGE : 0;
	}
}

static void on_unmap(struct uffd *u, uint64_t start, uint64_t end)
{
	while (watch_remove(&u->watch, start, end))
		sched_yield(); /* no memory to cut a range in two: it must be cut */
	drop_range(u, start, end);
}

static void on_remap(struct uffd *u, uint64_t from, uint64_t to, uint64_t len)
{
	struct softpt_run r;
	uint64_t va;

	while (watch_remove(&u->watch, from, from + len) || watch_add(&u->watch, to, to + len))
		sched_yield();
	watch_raise(u, to + len);
	while (softpt_remap(u->pt, from, to, len))
		sched_yield();
	while (watch_move(&u->lost, from, to, len))
		sched_yield();
	transit_log(u, from, from + len, to, true);
	for (va = to; softpt_next_away(u->pt, va, to + len, &r); va = r.va + r.len)
		core_moved(u->space, SOFTPT_DEV(r.place), r.va, r.len);
	u->handling++;
	env_mutex_unlock(&u->lock);
	ENV_STOP("reader-remapped");
	core_invalidate_begin(u->space, from, len, BALUN_CAUSE_INVALIDATE);
	core_invalidate_end(u->space, from, len);
	env_mutex_lock(&u->lock);
	u->handling--;
	uffd_wake(u, from, len);
	env_cond_wake(&u->idle);
}

static void on_event(struct uffd *u, const struct uffd_msg *m)
{
	switch (m->event) {
	case UFFD_EVENT_UNMAP:
		on_unmap(u, m->arg.remove.start, m->arg.remove.end);
		break;
	case UFFD_EVENT_REMOVE:
		on_remove(u, m->arg.remove.start, m->arg.remove.end);
		break;
	case UFFD_EVENT_REMAP:
		on_remap(u, m->arg.remap.from, m->arg.remap.to, m->arg.remap.len);
		break;
	case UFFD_EVENT_FORK:
		uffd_fill_child(u, m->arg.fork.ufd);
		break;
	}
}

static uint64_t page_of(const struct uffd_msg *m)
{
	return m->arg.pagefault.address & ~(PAGE - 1);
}

static void wake_fault(struct uffd *u, const struct uffd_msg *m)
{
	uffd_wake(u, page_of(m), PAGE);
}

static void drop_pending(struct uffd *u, unsigned int i)
{
	memmove(u->pending + i, u->pending + i + 1, (--u->npending - i) * sizeof(*u->pending));
	if (i < u->nheld)
		u->nheld--;
}

/*
 * Room for one more fault that waits. The kernel gives events out only behind all faults, and while
 * there is an event every ioctl fails: as many faults as there are threads must find room. Without
 * memory the oldest is let go: its thread touches again.
 */
static void make_room(struct uffd *u)
{
	unsigned int room = 2 * u->pending_room;
	struct uffd_msg *more;

	if (u->npending < u->pending_room)
		return;
	more = env_alloc(room * sizeof(*more));
	if (more) {
		memcpy(more, u->pending, u->npending * sizeof(*more));
		env_free(u->pending);
		u->pending = more;
		u->pending_room = room;
	} else {
		wake_fault(u, &u->pending[0]);
		drop_pending(u, 0);
	}
}

/* the index of the fault that the thread waits for; u->npending: none is known */
static unsigned int find_pending(const struct uffd *u, const struct uffd_msg *m)
{
	uint32_t tid = m->arg.pagefault.feat.ptid; /* 0: the kernel does not say */
	unsigned int i = tid ? 0 : u->npending;

	while (i < u->npending && u->pending[i].arg.pagefault.feat.ptid != tid)
		i++;
	return i;
}

/* A thread waits for one page: from the one before it was woken. Or it is two, of the same number
 * in two namespaces: then the one that makes way touches again. Not where both are for one page:
 * who serves that wakes both, and to wake the thread that has just come would make it come for
 * ever. */
static void queue_fault(struct uffd *u, const struct uffd_msg *m)
{
	unsigned int i = find_pending(u, m);

	if (i < u->npending) {
		if (page_of(&u->pending[i]) != page_of(m))
			wake_fault(u, &u->pending[i]);
		drop_pending(u, i);
	}
	u->pending[u->npending++] = *m;
}

/* the fault that was just looked at waits on, unless its thread has come with another one */
static void hold_fault(struct uffd *u, const struct uffd_msg *m)
{
	unsigned int i = find_pending(u, m);

	if (i < u->npending) {
		if (page_of(&u->pending[i]) != page_of(m))
			wake_fault(u, m);
		return;
	}
	make_room(u);
	memmove(u->pending + u->nheld + 1, u->pending + u->nheld,
		(u->npending++ - u->nheld) * sizeof(*m));
	u->pending[u->nheld++] = *m;
}

/*
 * The event of a fork is read with a descriptor, and the program may have taken all that it may
 * have. It waits in fork() with the locks of its C library: so that one is beyond its limit.
 */
static ssize_t read_beyond(int fd, struct uffd_msg *ret)
{
	struct rlimit was, more;
	ssize_t n;
	int err;

	if (getrlimit(RLIMIT_NOFILE, &was) || was.rlim_cur == RLIM_INFINITY)
		return -1;
	more.rlim_cur = was.rlim_cur + 1;
	more.rlim_max = ENV_MAX(was.rlim_max, more.rlim_cur);
	if (setrlimit(RLIMIT_NOFILE, &more))
		return -1; /* at the hard limit, and without the right to raise it */
	n = read(fd, ret, sizeof(*ret));
	err = errno;
	setrlimit(RLIMIT_NOFILE, &was);
	errno = err;
	return n;
}

/* reads once: events are handled, faults queued. Lock held. Returns whether anything came. */
static bool read_some(struct uffd *u)
{
	struct uffd_msg msg;
	ssize_t n;

	make_room(u);
	/* one at a time: an event must be handled before the next caller is let go */
	n = read(u->caps.fd, &msg, sizeof(msg));
	if (n < 0 && errno == EMFILE)
		n = read_beyond(u->caps.fd, &msg);
	if (n != sizeof(msg))
		return false;
	if (msg.event == UFFD_EVENT_PAGEFAULT) {
		queue_fault(u, &msg);
	} else {
		ENV_STOP("reader-read");
		on_event(u, &msg);
		env_cond_wake(&u->idle); /* fences wait for this */
	}
	return true;
}

void uffd_drain_events(struct uffd *u)
{
	env_mutex_lock(&u->lock);
	while (read_some(u))
		;
	env_mutex_unlock(&u->lock);
}

/* ---- faults ---- */

/* the fault met a page in transit: its commit wakes. Lock held. */
static void note_waiter(struct uffd *u)
{
	struct env_list *l;

	env_list_for_each (l, &u->transits)
		env_container_of(l, struct transit, link)->waiters = true;
}

/* nothing is there: zeros, up to the next page that has something. Lock held. 0 or -errno */
static int serve_hole(struct uffd *u, uint64_t va)
{
	uint64_t end = (va + ZERO_AROUND) & ~(ZERO_AROUND - 1), until;
	struct uffdio_zeropage z = { .range = { .start = va } };
	struct softpt_run r;

	softpt_run(u->pt, va, end - va, &r);
	end = r.va + r.len;
	if (watch_covers(&u->watch, va, &until))
		end = ENV_MIN(end, until);
	else if (!env_owns(va, PAGE))
		end = va + PAGE;
	end = uffd_discard_next(u, va, end); /* as for the page itself, serve_fault() */
	for (;;) {
		z.range.len = end - va;
		ENV_STOP("fault-hole");
		if (!ioctl(u->caps.fd, UFFDIO_ZEROPAGE, &z) || z.zeropage > 0) {
			allow_took(u, z.zeropage);
			return 0;
		}
		if (errno == EAGAIN)
			return -EAGAIN;
		if (end == va + PAGE)
			break;
		end = va + PAGE; /* not all in one mapping: mprotect() has no event */
	}
	uffd_wake(u, va, PAGE); /* somebody else was faster, or the mapping is gone: try again */
	return 0;
}

/*
 * Does serving the fault take RAM that is not allowed? What is in a device that is made of RAM
 * takes none, and Balun's own memory does not wait.
 */
static bool starves(struct uffd *u, uint64_t va, const struct softpt_run *r, uint32_t tid)
{
	if (r->away ? uffd_is_host(u, SOFTPT_DEV(r->place)) : env_owns(va, PAGE))
		return false;
	return allow_must_wait(u, tid);
}

/* 0: done; -EAGAIN: once more, an event was in the way or the page has changed its state; -EBUSY:
 * later, it is held back; -ENOSPC: when more RAM is allowed */
static int serve_fault(struct uffd *u, uint64_t va, const struct uffd_msg *m)
{
	bool write = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
	bool protect = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
	struct softpt_run r;
	int err;

	env_mutex_lock(&u->lock);
	softpt_run(u->pt, va, PAGE, &r);
	if (r.busy) {
		note_waiter(u);
		env_mutex_unlock(&u->lock);
		return 0;
	}
	if (protect) { /* left over from a transit that is over */
		err = uffd_unprotect(u, va) ? 0 : -EAGAIN;
		env_mutex_unlock(&u->lock);
		return err;
	}
	/*
	 * The program discarded the page itself, and an own discard of it is still under way (the
	 * copying way): what is put there now would be discarded too. Its commit wakes.
	 */
	if (!r.away && uffd_discarding(u, va, va + PAGE)) {
		note_waiter(u);
		env_mutex_unlock(&u->lock);
		return 0;
	}
	if (starves(u, va, &r, m->arg.pagefault.feat.ptid)) {
		env_mutex_unlock(&u->lock);
		return -ENOSPC;
	}
	if (!r.away) {
		err = serve_hole(u, va);
		env_mutex_unlock(&u->lock);
		return err;
	}
	u->installed_va = 0;
	env_mutex_unlock(&u->lock);
	ENV_STOP("fault-away");
	err = core_cpu_fault(u->space, va, write);
	if (err == -EAGAIN)
		return -EBUSY;
	if (err == -EBUSY || err == -ENOMEM || err == -ENODEV) {
		sched_yield();
		return -EAGAIN;
	}
	if (err || va - u->installed_va >= u->installed_len)
		uffd_wake(u, va, PAGE); /* came home by another way, or is poisoned */
	return 0;
}

/* tried so often that the next one need not wait for long; 0 or as serve_fault() */
static int serve_some(struct uffd *u, uint64_t va, const struct uffd_msg *m)
{
	unsigned int tries = TRIES;
	int err;

	do {
		err = serve_fault(u, va, m);
		if (err == -EAGAIN)
			uffd_drain_events(u);
	} while (err == -EAGAIN && --tries);
	return err;
}

int uffd_serve(struct uffd *u, uint64_t va)
{
	static const struct uffd_msg read = { .event = UFFD_EVENT_PAGEFAULT };

	return serve_some(u, va, &read);
}

/* each pending fault once; what is held back stays. Return: when to look at it again; NULL: nothing
 * does */
static const struct timespec *serve_pending(struct uffd *u)
{
	const struct timespec *again = NULL;

	u->nheld = 0;
	while (u->nheld < u->npending) {
		struct uffd_msg m = u->pending[u->nheld];
		uint64_t va = page_of(&m);
		int err;

		drop_pending(u, u->nheld); /* serving it reads on */
		err = serve_some(u, va, &m);
		if (err) {
			if (err != -ENOSPC || !again)
				again = err == -ENOSPC ? &starved_period : &held_period;
			hold_fault(u, &m);
		}
	}
	return uffd_serve_asked(u) ? again : &held_period;
}

void uffd_look_again(struct uffd *u)
{
	const uint64_t one = 1;

	if (write(u->more_fd, &one, sizeof(one)) != sizeof(one))
		env_die("eventfd", __FILE__, __LINE__);
}

static bool message_waits(const struct uffd *u)
{
	struct pollfd p = { .fd = u->caps.fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/*
 * Waking this thread can cost more than serving the fault (another core must leave its sleep), so
 * it looks for the next fault for a while before it sleeps. Where that is in vain several times
 * running, it does so only after every eighth fault.
 */
static bool spin(struct uffd *u)
{
	uint64_t end = env_now_ns() + SPIN_NS;

	u->spins++;
	if (u->spins_in_vain >= SPIN_PATIENCE && u->spins % 8)
		return false;
	do {
		if (message_waits(u)) {
			u->spins_in_vain = 0;
			return true;
		}
	} while (env_now_ns() < end);
	u->spins_in_vain++;
	return false;
}

static void reader_main(void *arg)
{
	struct uffd *u = arg;
	struct pollfd p[] = { { .fd = u->caps.fd, .events = POLLIN },
			      { .fd = u->stop_fd, .events = POLLIN },
			      { .fd = u->more_fd, .events = POLLIN } };
	const struct timespec *held = NULL;
	uint64_t more;

	env_mutex_lock(&u->lock);
	u->reader_tp = __builtin_thread_pointer();
	env_cond_wake(&u->idle);
	env_mutex_unlock(&u->lock);
	for (;;) {
		int n = ppoll(p, 3, held, NULL);

		if (n < 0 && errno != EINTR)
			env_die("poll", __FILE__, __LINE__);
		if (n > 0 && p[2].revents && read(u->more_fd, &more, sizeof(more)) < 0)
			env_die("eventfd", __FILE__, __LINE__);
		if (p[1].revents && !p[0].revents && !held)
			break;
		do {
			uffd_drain_events(u);
			held = serve_pending(u);
			/* what this reads, for an event was in its way, waits to be served */
			while (!held && !u->npending && !message_waits(u) && !allow_is_out(u) &&
			       core_cpu_ahead(u->space))
				;
		} while (!held && (u->npending || spin(u)));
	}
}

int uffd_reader_start(struct uffd *u)
{
	int err;

	u->stop_fd = eventfd(0, EFD_CLOEXEC);
	u->more_fd = eventfd(0, EFD_CLOEXEC);
	err = u->stop_fd < 0 || u->more_fd < 0 ? -errno : 0;
	u->pending_room = PENDING;
	u->pending = env_alloc(PENDING * sizeof(*u->pending));
	if (!err && !u->pending)
		err = -ENOMEM;
	if (!err)
		err = env_thread_create(&u->reader, "balun-uffd", reader_main, u);
	if (err) {
		env_free(u->pending);
		close(u->stop_fd);
		close(u->more_fd);
		return err;
	}
	env_mutex_lock(&u->lock);
	while (!u->reader_tp)
		env_cond_wait(&u->idle, &u->lock, ENV_FOREVER);
	env_mutex_unlock(&u->lock);
	return 0;
}

void uffd_reader_stop(struct uffd *u)
{
	uint64_t one = 1;

	if (write(u->stop_fd, &one, sizeof(one)) != sizeof(one))
		env_die("eventfd", __FILE__, __LINE__);
	env_thread_join(u->reader);
	env_free(u->pending);
	close(u->stop_fd);
	close(u->more_fd);
}
