// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Memory calls of the program, seen before they happen. libbalun defines munmap, mremap, mprotect
 * and madvise; a program that is linked with it calls these. While the call runs no page of its
 * range is taken, and no device has an entry there: as in the kernel, invalidation comes first.
 * mprotect has no event, so this is the only way to see it.
 *
 * So are free(), realloc() and reallocarray(), for glibc's own unmap and move large blocks past the
 * definitions above: see "blocks of the heap".
 *
 * Other calls from inside libc and raw system calls are not seen here. Their events are; and
 * because a REMOVE event comes before the kernel discards, its range is quarantined until no thread
 * can still be inside the call (/proc/self/task/N/syscall says).
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

/* ranges in quarantine that are kept apart; with more of them they are joined */
#define QUARANTINES 32

enum hook_call {
	HOOK_CHANGE, /* the range stays mapped */
	HOOK_UNMAP,
	HOOK_REMAP,
};

struct hook {
	struct uffd *u;
	enum hook_call call;
	struct changing c;
	uint64_t cookie[8];
};

/*
 * The kernel raises the events of munmap and mremap after it has let go of its lock, so the event
 * of a munmap can be read after that of an mremap which came later, to the same addresses; then the
 * pages that had moved there would be dropped. So an mremap waits until no munmap or mremap is
 * under way, and they for it. (Calls that are not hooked: a limit.) The reader, on whom all of them
 * wait, never waits here.
 */
static bool must_wait(const struct uffd *u, enum hook_call call)
{
	return (call != HOOK_CHANGE && u->remapping) || (call == HOOK_REMAP && u->unmapping);
}

/* ---- calls that see no space ---- */

/*
 * How many are under way, and in the generation of which fork: threads that the child of a fork
 * does not have are none. Whoever makes a space waits for them, or the call of a thread that had
 * just looked would go to the kernel while pages move, and nothing would keep them apart. The call
 * counts itself, then looks for a space; the space is published, then the number is read. Both are
 * sequentially consistent, so one of them sees the other.
 */
static uint32_t unseen, unseen_waiters;

#define UNSEEN_GEN(word) ((word) & ~0xffffu)

static void unseen_add(int n)
{
	uint32_t gen = env_fork_gen() << 16, was = env_load_relaxed(&unseen), now;

	do {
		if (UNSEEN_GEN(was) != gen && n < 0)
			return; /* forked meanwhile */
		now = UNSEEN_GEN(was) == gen ? was + n : gen | 1;
	} while (!__atomic_compare_exchange_n(&unseen, &was, now, false, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	if (now == gen && __atomic_load_n(&unseen_waiters, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &unseen, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void uffd_unseen_wait(void)
{
	uint32_t gen = env_fork_gen() << 16, now;

	__atomic_fetch_add(&unseen_waiters, 1, __ATOMIC_SEQ_CST);
	while ((now = __atomic_load_n(&unseen, __ATOMIC_SEQ_CST)) != gen && UNSEEN_GEN(now) == gen)
		syscall(SYS_futex, &unseen, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
	__atomic_fetch_sub(&unseen_waiters, 1, __ATOMIC_SEQ_CST);
}

/* true: there is no space, and none comes to be before unseen_add(-1) */
static bool unseen_begin(void)
{
	if (uffd_here())
		return false;
	unseen_add(1);
	if (!uffd_here()) {
		ENV_STOP("hook-unseen");
		return true;
	}
	unseen_add(-1);
	return false;
}

/* ---- hooks ---- */

/*
 * @touches: the call itself reads and writes there. A page that left before the call began is not
 * discarded before the call ends, so it must not wait for such a page: it begins when there is
 * none. False: a call of Balun itself, just do it.
 */
static bool hook_begin(struct hook *h, enum hook_call call, uint64_t addr, uint64_t len,
		       bool touches)
{
	struct softpt_run busy;
	struct uffd *u;

	h->u = NULL;
	if (!len || addr % PAGE || addr + len < addr || addr + len > 1ULL << SOFTPT_VA_BITS ||
	    env_owns(addr, len))
		return false;
	do {
		if (unseen_begin())
			return true;
		u = uffd_enter_here(h->cookie);
	} while (!u && !env_owns((uintptr_t)__builtin_frame_address(0), 1));
	if (!u)
		return false;
	len = (len + PAGE - 1) & ~(PAGE - 1);
	h->u = u;
	h->call = call;
	h->c.start = addr;
	h->c.end = addr + len;
	h->c.hooked = true;
	env_list_init(&h->c.link);
	env_mutex_lock(&u->lock);
	while (must_wait(u, call) || uffd_discarding(u, addr, addr + len) ||
	       (touches && softpt_next_busy(u->pt, addr, addr + len, &busy)))
		env_cond_wait(&u->idle, &u->lock, ENV_FOREVER);
	u->unmapping += call == HOOK_UNMAP;
	u->remapping |= call == HOOK_REMAP;
	env_list_add_tail(&u->changing, &h->c.link);
	env_mutex_unlock(&u->lock);
	core_invalidate_begin(u->space, addr, len, BALUN_CAUSE_INVALIDATE);
	ENV_STOP("hook-begun");
	return true;
}

static void hook_end(struct hook *h)
{
	struct uffd *u = h->u;

	if (!u) {
		unseen_add(-1);
		return;
	}
	ENV_STOP("hook-called");
	core_invalidate_end(u->space, h->c.start, h->c.end - h->c.start);
	env_mutex_lock(&u->lock);
	env_list_del(&h->c.link);
	u->unmapping -= h->call == HOOK_UNMAP;
	if (h->call == HOOK_REMAP)
		u->remapping = false;
	env_cond_wake(&u->idle);
	env_mutex_unlock(&u->lock);
	uffd_leave(u, h->cookie);
}

__attribute__((visibility("default"))) int munmap(void *addr, size_t len)
{
	struct hook h;
	bool hooked = hook_begin(&h, HOOK_UNMAP, (uintptr_t)addr, len, false);
	int ret = syscall(SYS_munmap, addr, len), err = errno;

	if (hooked)
		hook_end(&h);
	errno = err;
	return ret;
}

__attribute__((visibility("default"))) int mprotect(void *addr, size_t len, int prot)
{
	struct hook h;
	bool hooked = hook_begin(&h, HOOK_CHANGE, (uintptr_t)addr, len, false);
	int ret = syscall(SYS_mprotect, addr, len, prot), err = errno;

	if (hooked)
		hook_end(&h);
	errno = err;
	return ret;
}

/*
 * Guard pages, for which there is no event: a discard makes one, so that what is away or in transit
 * is dropped. What came home between the two may have taken a guard's place, so they are installed
 * once more; after the discard nothing comes home there.
 */
static int guard_install(void *addr, size_t len)
{
	int ret = syscall(SYS_madvise, addr, len, MADV_GUARD_INSTALL);

	if (ret)
		return ret;
	syscall(SYS_madvise, addr, len, MADV_DONTNEED);
	return syscall(SYS_madvise, addr, len, MADV_GUARD_INSTALL);
}

__attribute__((visibility("default"))) int madvise(void *addr, size_t len, int advice)
{
	struct hook h;
	bool guards = advice == MADV_GUARD_INSTALL;
	bool drops = advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE;
	bool hooked = (drops || guards) && hook_begin(&h, HOOK_CHANGE, (uintptr_t)addr, len, false);
	int ret = hooked && h.u && guards ? guard_install(addr, len)
					  : (int)syscall(SYS_madvise, addr, len, advice);
	int err = errno;

	if (hooked)
		hook_end(&h);
	errno = err;
	return ret;
}

__attribute__((visibility("default"))) void *mremap(void *addr, size_t old_len, size_t new_len,
						    int flags, ...)
{
	struct hook h;
	bool hooked = hook_begin(&h, HOOK_REMAP, (uintptr_t)addr, old_len, false);
	void *to = NULL, *ret;
	va_list ap;
	int err;

	if (flags & MREMAP_FIXED) {
		va_start(ap, flags);
		to = va_arg(ap, void *);
		va_end(ap);
	}
	ret = (void *)syscall(SYS_mremap, addr, old_len, new_len, flags, to);
	err = errno;
	if (hooked)
		hook_end(&h);
	errno = err;
	return ret;
}

/* ---- blocks of the heap ---- */

#if defined(__GLIBC__) && !ENV_ASAN && !ENV_TSAN

#define BLOCK_HEAD   (2 * sizeof(size_t))
#define BLOCK_FLAGS  ((size_t)7)
#define BLOCK_MAPPED ((size_t)2)

static struct {
	void (*free)(void *p);
	void *(*realloc)(void *p, size_t size);
	bool glibc; /* they are glibc's own, and blocks look as its do */
} heap;

__attribute__((constructor(101))) static void heap_find(void)
{
	/* not a call that allocates, unless it fails */
	heap.realloc = dlsym(RTLD_NEXT, "realloc");
	heap.free = dlsym(RTLD_NEXT, "free");
	heap.glibc = heap.free && (void *)heap.free == dlsym(RTLD_NEXT, "__libc_free");
}

/*
 * Large blocks are mappings of their own, which glibc unmaps and moves with system calls that no
 * hook sees: the head of such a block, before its first byte, says that it is one, how far before
 * it the mapping begins, and how long it is. (That has been so since glibc 2.0, and malloc_usable_
 * size() and core dumps' readers depend on it. Another malloc calls munmap() and mremap(), as all
 * libraries do.) The head can be away: reading it brings it home.
 */
static inline const size_t *head_of(const void *p)
{
	return (const size_t *)((uintptr_t)p - BLOCK_HEAD);
}

static bool heap_begin(struct hook *h, enum hook_call call, const void *p)
{
	const size_t *head = head_of(p);

	if (!p || !heap.glibc || !(head[1] & BLOCK_MAPPED))
		return false;
	return hook_begin(h, call, (uintptr_t)head - head[0], head[0] + (head[1] & ~BLOCK_FLAGS),
			  call == HOOK_REMAP); /* realloc() writes to the head, or copies */
}

/* glibc's, and no mapping of its own: nearly all. They are asked that and pass on, without a stack.
 */
static inline bool is_small(const void *p)
{
	return __builtin_expect(heap.glibc && (!p || !(head_of(p)[1] & BLOCK_MAPPED)), 1);
}

static __attribute__((noinline)) void free_any(void *p)
{
	struct hook h;
	bool hooked = heap_begin(&h, HOOK_UNMAP, p);

	if (!heap.free)
		heap_find();
	heap.free(p);
	if (hooked) {
		int err = errno;

		hook_end(&h);
		errno = err;
	}
}

__attribute__((visibility("default"))) void free(void *p)
{
	if (is_small(p))
		heap.free(p);
	else
		free_any(p);
}

/* may unmap, too: an mremap is alone, so it waits for both */
static __attribute__((noinline)) void *realloc_any(void *p, size_t size)
{
	struct hook h;
	bool hooked = heap_begin(&h, HOOK_REMAP, p);
	void *ret;
	int err;

	if (!heap.realloc)
		heap_find();
	ret = heap.realloc(p, size);
	err = errno;
	if (hooked)
		hook_end(&h);
	errno = err;
	return ret;
}

__attribute__((visibility("default"))) void *realloc(void *p, size_t size)
{
	return is_small(p) ? heap.realloc(p, size) : realloc_any(p, size);
}

/* glibc's would call glibc's */
__attribute__((visibility("default"))) void *reallocarray(void *p, size_t n, size_t size)
{
	size_t len;

	if (__builtin_mul_overflow(n, size, &len)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, len);
}

#endif

/* ---- calls that were not seen coming ---- */

static bool overlap(const struct changing *c, uint64_t start, uint64_t end)
{
	return c->start < end && start < c->end;
}

bool uffd_is_hooked(const struct uffd *u, uint64_t start, uint64_t end)
{
	struct env_list *l;

	env_list_for_each (l, &u->changing) {
		const struct changing *c = env_container_of(l, struct changing, link);

		if (c->hooked && overlap(c, start, end))
			return true;
	}
	return false;
}

/* lock held: a REMOVE event was read. A hook that covers it knows when the call is over. */
void uffd_quarantine(struct uffd *u, uint64_t start, uint64_t end)
{
	struct changing *c, *last = NULL;
	unsigned int n = 0;
	struct env_list *l;

	env_list_for_each (l, &u->changing) {
		c = env_container_of(l, struct changing, link);
		if (c->hooked && c->start <= start && end <= c->end)
			return;
		if (c->hooked)
			continue;
		last = c;
		if (++n == QUARANTINES || (c->start <= start && end <= c->end))
			break;
		last = NULL;
	}
	c = last ? NULL : env_alloc(sizeof(*c));
	if (c) {
		c->start = start;
		c->end = end;
		env_list_init(&c->link);
		env_list_add_tail(&u->changing, &c->link);
		return;
	}
	/* once more for all of it: a wider range than needed is only slower. Without any a page
	 * could be taken that is about to be discarded. */
	env_assert(last);
	last->start = ENV_MIN(last->start, start);
	last->end = ENV_MAX(last->end, end);
	last->ncleared = 0;
}

static bool is_cleared(const struct changing *c, int tid)
{
	for (int i = 0; i < c->ncleared; i++)
		if (c->cleared[i] == tid)
			return true;
	return false;
}

/* may thread @tid be inside madvise? "running" may; one blocked elsewhere is out of it */
static bool may_discard(int tid)
{
	char path[64], buf[32] = "";
	int fd, nr;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno != ENOENT && errno != ESRCH;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = 0;
	close(fd);
	if (buf[0] < '0' || buf[0] > '9')
		return buf[0] != '-'; /* "-1 ...": blocked outside a system call */
	nr = strtol(buf, NULL, 10);
	return nr == SYS_madvise || nr == 440 /* process_madvise */;
}

struct dirent64_raw {
	uint64_t ino, off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

/* every thread has been seen outside the call since the event: it is over */
static bool is_over(struct changing *c)
{
	char buf[2048] __attribute__((aligned(8)));
	int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool over = true;
	long n, at;

	if (fd < 0)
		return false;
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (at = 0; at < n;) {
			struct dirent64_raw *d = (void *)(buf + at);
			int tid = strtol(d->name, NULL, 10);

			at += d->reclen;
			if (tid <= 0 || tid == syscall(SYS_gettid) || is_cleared(c, tid))
				continue;
			if (may_discard(tid))
				over = false;
			else if (c->ncleared < (int)(sizeof(c->cleared) / sizeof(c->cleared[0])))
				c->cleared[c->ncleared++] = tid;
		}
	}
	close(fd);
	return over && n == 0;
}

bool uffd_is_changing(struct uffd *u, uint64_t start, uint64_t end)
{
	struct env_list *l, *next;
	bool yes = false;

	env_assert_held(&u->lock);
	env_list_for_each_safe (l, next, &u->changing) {
		struct changing *c = env_container_of(l, struct changing, link);

		if (!overlap(c, start, end))
			continue;
		if (!c->hooked && is_over(c)) {
			env_list_del(&c->link);
			env_free(c);
			continue;
		}
		yes = true;
	}
	return yes;
}
