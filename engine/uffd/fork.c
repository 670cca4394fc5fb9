// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fork: the child gets every byte and depends on nobody.
 *
 * fork() runs handlers: before it everything comes home and no page leaves until it is over, so the
 * child's memory is complete the moment it exists, even if the parent dies in that moment. A bare
 * clone() runs none (nor does _Fork()); its event hands us the child's context, and what is away or
 * in transit is copied into the child before that is let go. The parent goes on at the read of the
 * event, so here alone the child depends on it for that long: until a balun_fence() of the parent
 * has passed. Without CAP_SYS_PTRACE there is no such event, and the child finds zeros in place of
 * what is away.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

/* between the handlers of one fork, all on one thread */
static __thread struct uffd *prepared;
static __thread uint64_t prepare_cookie[8];

/*
 * Where the kernel gives the parent's reader a context of the child, the child's memory is watched
 * by that until the reader has closed it, and the child could not watch it itself. So it waits for
 * its number in @told, a word that both have. Changes under uffd_life.
 */
static uint32_t *told, forks;
static pid_t forker; /* the parent */

/* how long a child looks away from a parent that may have died, and how often */
static const struct timespec told_period = { .tv_nsec = 10000000 };
#define TOLD_PERIODS 100

static uint32_t *shared_word(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* the reader held the lock from before it read the event, which fork() waited for, to the end */
static void tell_child(struct uffd *u)
{
	env_mutex_lock(&u->lock);
	env_mutex_unlock(&u->lock);
	if (!told)
		return;
	__atomic_store_n(told, forks, __ATOMIC_RELEASE);
	syscall(SYS_futex, told, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* A parent that is dead has closed everything: then another is the parent. One outside this
 * namespace cannot be told from it, and is waited for for a second. */
static void wait_for_parent(void)
{
	unsigned int n;
	uint32_t seen;

	for (n = 0; n < TOLD_PERIODS && (getppid() == forker || !getppid()); n++) {
		seen = __atomic_load_n(told, __ATOMIC_ACQUIRE);
		if ((int32_t)(seen - forks) >= 0)
			break;
		syscall(SYS_futex, told, FUTEX_WAIT, seen, &told_period, NULL, 0);
	}
}

static void fork_prepare(void)
{
	struct uffd *u;

	env_word_lock(&uffd_life);
	u = prepared = uffd_here();
	if (!u)
		return;
	uffd_enter(u, prepare_cookie);
	if (uffd_files_quiesce(u))
		env_log(0, "fork: pages of a failed device are lost to the child too");
	forks++;
	forker = getpid();
}

static void fork_parent(void)
{
	struct uffd *u = prepared;

	if (u) {
		tell_child(u);
		core_resume(u->space);
		uffd_leave(u, prepare_cookie);
	}
	env_word_unlock(&uffd_life);
}

static void renew_told(void)
{
	if (told)
		syscall(SYS_munmap, told, PAGE); /* the parent's */
	told = shared_word();
}

/* The parent's engine is a copy nobody runs: its memory stays as it is, its context is closed
 * if the child has it. */
static void fork_child(void)
{
	struct uffd *u = prepared;

	if (!u) { /* the lock's holder is of another generation: it is free */
		renew_told();
		return;
	}
	if (!u->files) {
		close(u->caps.fd);
		close(u->stop_fd);
		close(u->more_fd);
		maps_close();
	}
	env_store(&uffd_current, NULL);
	uffd_first_thread();
	if (told && u->caps.fork_event)
		wait_for_parent();
	renew_told();
	uffd_leave(u, prepare_cookie);
}

static void register_once(void)
{
	told = shared_word();
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void uffd_fork_register(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, register_once);
}

/* ---- a bare clone() ---- */

/* pages read from a device at a time; of this library's own memory, so there is always room */
#define GIVE_PAGES 16
static char give_buf[GIVE_PAGES * PAGE] __attribute__((aligned(4096)));

/* a child that is being filled; what it does to its memory meanwhile is in the log of @t */
struct child {
	struct child *next;
	int fd;
	struct transit t;
};

static struct child *child_new(int fd, const struct child *parent)
{
	struct child *c = env_alloc(sizeof(*c));
	unsigned int i;

	if (!c) {
		env_log(0, "clone: no memory to give a child its pages");
		close(fd);
		return NULL;
	}
	c->fd = fd;
	transit_log_init(&c->t);
	for (i = 0; parent && i < parent->t.nevents; i++)
		transit_log_one(&c->t, &parent->t.event[i]);
	return c;
}

/*
 * The child makes a memory call, and gets no page until its event is read. A child of the child has
 * the pages that it had then, and is filled after it.
 */
static void child_events(struct child *c)
{
	struct uffd_msg m;
	struct transit_event e = { 0 };

	while (read(c->fd, &m, sizeof(m)) == sizeof(m)) {
		if (m.event == UFFD_EVENT_FORK) {
			struct child *in = child_new(m.arg.fork.ufd, c);

			if (in) {
				in->next = c->next;
				c->next = in;
			}
		} else if (m.event == UFFD_EVENT_REMAP) {
			e = (struct transit_event){ .start = m.arg.remap.from,
						    .end = m.arg.remap.from + m.arg.remap.len,
						    .to = m.arg.remap.to,
						    .remap = true };
			transit_log_one(&c->t, &e);
		} else if (m.event == UFFD_EVENT_UNMAP || m.event == UFFD_EVENT_REMOVE) {
			e = (struct transit_event){ .start = m.arg.remove.start,
						    .end = m.arg.remove.end };
			transit_log_one(&c->t, &e);
		}
		/* a fault needs no answer: who waits goes on when the page comes, or at the end */
	}
	sched_yield(); /* the kernel refuses until the caller has run */
}

/* one call for [va, va + len): bytes given; 0 with errno */
static uint64_t child_call(const struct child *c, uint64_t va, const char *src, uint64_t len)
{
	struct uffdio_copy copy = { .dst = va, .src = (uintptr_t)src, .len = len };
	struct uffdio_poison poison = { .range = { .start = va, .len = len } };

	if (!ioctl(c->fd, src ? UFFDIO_COPY : UFFDIO_POISON, src ? (void *)&copy : (void *)&poison))
		return len;
	return ENV_MAX(src ? copy.copy : poison.updated, (int64_t)0);
}

/* Gives the child what is at @src for [va, va + len) as of the clone; NULL: the device lost it.
 * What is there already the child has from its parent. */
static void child_give(struct child *c, uint64_t va, const char *src, uint64_t len)
{
	uint64_t off = 0, step = len, to, n, got;
	int err;

	while (off < len) {
		to = va + off;
		n = c->t.nevents ? PAGE : ENV_MIN(step, len - off);
		if (!transit_follow(&c->t, 0, &to)) {
			off += n;
			continue;
		}
		got = child_call(c, to, src ? src + off : NULL, n);
		off += got;
		if (got)
			continue;
		err = errno;
		if (err == EAGAIN || (err == ENOENT && uffd_event_pending(c->fd))) {
			child_events(c);
			continue;
		}
		if (n > PAGE) { /* perhaps the range is not all in one mapping */
			step = PAGE;
			continue;
		}
		if (err == ESRCH)
			return; /* it has ended */
		if (err != EEXIST && err != ENOENT)
			env_log(0, "clone: page 0x%llx is missing in the child: error %d",
				(unsigned long long)to, err);
		off += PAGE;
	}
}

/* the device lost it */
static void child_lose(struct uffd *u, struct child *c, uint64_t va, uint64_t len)
{
	if (u->caps.poison)
		child_give(c, va, NULL, len);
	else /* the limit in docs/coherence.md */
		env_log(0, "clone: %llu KiB at 0x%llx are lost, and zeros in the child",
			(unsigned long long)len >> 10, (unsigned long long)va);
}

/* from host memory that is watched: what is not there was never written, and must not be touched */
static void give_host(struct child *c, uint64_t va, const char *src, unsigned int n,
		      const char *other)
{
	unsigned int i, end;
	env_bits present;

	if (maps_present((uintptr_t)src, n, present))
		env_bits_set_range(memset(present, 0, sizeof(present)), 0, n);
	for (i = 0; i < n; i = end) {
		bool here = env_bit(present, i);

		end = ENV_MIN(n, env_bits_next(present, i, !here));
		if (here)
			child_give(c, va + i * PAGE, src + i * PAGE, (end - i) * PAGE);
		else if (other)
			give_host(c, va + i * PAGE, other + i * PAGE, end - i, NULL);
	}
}

/* n pages at @va that device @dev has at @off; @moving: and that may have been moved there */
static void give_place(struct uffd *u, struct child *c, uint64_t va, unsigned int dev, uint64_t off,
		       unsigned int n, const char *moving)
{
	const char *host = u->device[dev].host_base;
	unsigned int k;

	if (core_device_is_lost(u->space, dev)) {
		child_lose(u, c, va, n * PAGE);
		return;
	}
	for (; n; va += k * PAGE, off += k * PAGE, n -= k) {
		k = ENV_MIN(n, host ? BALUN_BLOCK_PAGES : GIVE_PAGES);
		if (host) {
			give_host(c, va, host + off, k, moving);
			moving += moving ? k * PAGE : 0;
		} else if (core_read_device(u->space, dev, off, give_buf, k * PAGE)) {
			env_log(0, "clone: a device does not give the child its pages");
			child_lose(u, c, va, k * PAGE);
		} else {
			child_give(c, va, give_buf, k * PAGE);
		}
	}
}

/* page i of a piece is on its way: where its content is now */
static void give_piece_page(struct uffd *u, struct child *c, const struct engine_batch *b,
			    const struct engine_piece *p, unsigned int i, uint64_t va)
{
	uint64_t at = (i - p->first) * PAGE;
	const char *moving = NULL;

	if (p->src_kind == BALUN_KIND_SYSTEM) {
		child_give(c, va, (const char *)(uintptr_t)p->src + at, PAGE);
	} else if (p->src_kind == BALUN_KIND_LOCAL && b->origin[i]) {
		if (p->moved && p->dst_kind == BALUN_KIND_LOCAL)
			moving = (char *)u->device[p->dst_dev].host_base + p->dst + at;
		give_place(u, c, va, p->src_dev, p->src + at, 1, moving);
	}
}

/*
 * Pages in transit. Until its commit has dealt with it, under our lock, a page that was taken is
 * where its piece says: in the frame or buffer it was put in, or still on the device it leaves (or,
 * between two devices that are host memory, already on the other). Nobody changes it there. Zeros
 * the child has by itself, and pages in no piece never left.
 */
static void give_transit(struct uffd *u, struct child *c, const struct transit *t)
{
	const struct engine_batch *b = t->b;
	unsigned int j, i;
	struct softpt_run r;
	uint64_t va;

	for (j = 0; j < b->npieces; j++) {
		const struct engine_piece *p = &b->piece[j];

		for (i = p->first; i < p->first + p->npages; i++) {
			if (!transit_locate(t, i, &va))
				continue;
			softpt_run(u->pt, va, PAGE, &r);
			if (r.busy && !r.away)
				give_piece_page(u, c, b, p, i, va);
		}
	}
}

static void give_away(struct uffd *u, struct child *c)
{
	struct softpt_run r;
	uint64_t va = 0;

	/* mapped coherent memory the child has already, as any other; its slot is empty */
	for (; softpt_next_away(u->pt, va, 1ULL << SOFTPT_VA_BITS, &r); va = r.va + r.len)
		give_place(u, c, r.va, SOFTPT_DEV(r.place),
			   (uint64_t)SOFTPT_PGNO(r.place) << BALUN_PAGE_SHIFT,
			   r.len >> BALUN_PAGE_SHIFT, NULL);
}

/*
 * On the reader, lock held since before the event was read: since the kernel copied the address
 * space no page has been moved or installed, for that it refuses until the event is read. A device
 * may go on writing to what it has: there the child gets a value as of the clone or later.
 */
void uffd_fill_child(struct uffd *u, int child_fd)
{
	struct child *c = child_new(child_fd, NULL), *next;
	struct env_list *l;

	for (; c; c = next) {
		give_away(u, c);
		env_list_for_each (l, &u->transits)
			give_transit(u, c, env_container_of(l, struct transit, link));
		ENV_STOP("child-filled");
		close(c->fd); /* its ranges are not watched any more; who waits there goes on */
		transit_log_fini(&c->t);
		next = c->next;
		env_free(c);
	}
}
