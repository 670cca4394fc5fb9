// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Memory that the program gets. The worker looks at its size now and then; what is mapped between
 * two looks passes by here when it is got by mmap(), or by malloc() and its like, of which the C
 * library makes the system calls itself. (Not seen: raw system calls, and allocators inside the
 * program that make them; what mprotect() or sbrk() make of reserved memory.)
 *
 * While the program cannot reach the limit this counts, from the first allocation on: a look may
 * come late where all processors are busy. When it can from now on, the caller waits for the
 * worker, who watches what is not used, or all (press.c); after all what is new is watched at once.
 */
#undef _FILE_OFFSET_BITS /* mmap() and mmap64() are both here */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "run/run.h"

#define EXPORT __attribute__((visibility("default")))

/* from this size on malloc() may map memory for one allocation alone */
#define LARGE (128UL << 10)
/* of a thread malloc()'s memory is in heaps of this size, and at such an address */
#define HEAP (64UL << 20)
#define PART (256UL << 10)
/* what an allocation takes more than was asked for, at most: malloc(1) takes 32 bytes */
#define CHUNK 32
/* the worker looks within that, or it is held up by something that the caller has */
#define ANSWER_S 5

extern char *__curbrk __attribute__((weak));

static int64_t left;   /* bytes that may be mapped before the worker must look */
static int64_t before; /* when the look began that is under way */
static bool works;     /* there is a worker, in this process: */
static int pid;
static __thread bool inside; /* calls of our own */
static char *seen_brk;

/* what the worker sleeps on: FRESH_* */
uint32_t fresh_word;
/* a thread asks at a time, for what it has got; it sleeps on @posted until the worker has looked */
static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
static const void *new_at;
static size_t new_len;
static uint32_t posted;

static long futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts)
{
	return syscall(SYS_futex, word, op, val, ts, NULL, FUTEX_BITSET_MATCH_ANY);
}

void fresh_forget(void)
{
	works = false;
	posted = fresh_word = 0;
	seen_brk = NULL;
	asking = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

void fresh_is_worker(void)
{
	inside = true;
	pid = getpid();
	__atomic_store_n(&works, run.shared->resident != 0, __ATOMIC_RELEASE);
}

uint32_t fresh_rest(uint64_t until)
{
	const struct timespec ts = { until / 1000000000, until % 1000000000 };

	if (!__atomic_load_n(&fresh_word, __ATOMIC_SEQ_CST))
		futex(&fresh_word, FUTEX_WAIT_BITSET_PRIVATE, 0, &ts);
	return __atomic_exchange_n(&fresh_word, 0, __ATOMIC_SEQ_CST);
}

bool fresh_asked(const void **ret_p, size_t *ret_len)
{
	before = __atomic_load_n(&left, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&posted, __ATOMIC_SEQ_CST))
		return false;
	*ret_p = new_at;
	*ret_len = new_len;
	return true;
}

void fresh_looked(bool asked, int64_t may)
{
	/* what was mapped while it looked it may have missed */
	__atomic_fetch_add(&left, may - before, __ATOMIC_SEQ_CST);
	before = may;
	/* who had waited too long for this one has given up */
	__atomic_store_n(&works, run.shared->resident != 0, __ATOMIC_RELEASE);
	if (!asked)
		return;
	__atomic_store_n(&posted, 0, __ATOMIC_SEQ_CST);
	futex(&posted, FUTEX_WAKE_PRIVATE, 1, NULL);
}

/*
 * Not in the child of vfork() or a bare clone(): nobody looks after that. Without signals: a
 * handler that does not come back would leave the lock taken, and one that does may ask itself.
 */
static void ask(const void *p, size_t len)
{
	const struct timespec ts = { ANSWER_S, 0 };
	uint64_t all = ~0ULL, old;

	if (getpid() != pid)
		return;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &old, sizeof(all));
	pthread_mutex_lock(&asking);
	new_at = p;
	new_len = len;
	__atomic_store_n(&posted, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&fresh_word, FRESH_ASKED, __ATOMIC_SEQ_CST);
	futex(&fresh_word, FUTEX_WAKE_PRIVATE, 1, NULL);
	/* too late: without, until there is a worker that looks */
	if (__atomic_load_n(&posted, __ATOMIC_SEQ_CST) &&
	    futex(&posted, FUTEX_WAIT_PRIVATE, 1, &ts) && errno == ETIMEDOUT)
		__atomic_store_n(&works, false, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&asking);
	inside = false;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
}

/* What is mapped already may be more than the limit: the program begins when that was looked at. It
 * would ask with the first memory that it gets, but may have all it needs (an arena of its own). */
void fresh_begin(void)
{
	if (!__atomic_load_n(&works, __ATOMIC_ACQUIRE))
		return;
	inside = true;
	ask(NULL, 0);
	inside = false;
}

/* @len more are mapped, at @p */
static void fresh(const void *p, size_t len)
{
	int err = errno;

	if (!__atomic_load_n(&works, __ATOMIC_ACQUIRE) || inside)
		return;
	inside = true;
	if (__atomic_fetch_sub(&left, len, __ATOMIC_SEQ_CST) < (int64_t)len)
		ask(p, len);
	inside = false;
	errno = err;
}

/*
 * Far from the limit a thread looks only once in PART bytes at what they were made of: to allocate
 * takes no longer than a look. Near it (press.c) each time, for all that is new must be watched.
 *
 * This is all that an allocation costs where nothing is near the limit, so it is two comparisons
 * and no call. It does not ask whether there is a worker: what a thread has left of PART when that
 * begins is not counted, as what it has left at any time is not.
 */
static __thread size_t rest; /* of PART */

static inline bool passes(size_t len)
{
	len += CHUNK;
	if (__builtin_expect(len > rest || press_is_on(), 0))
		return false;
	rest -= len;
	return true;
}

/* A thread's heap grows where it is, and nobody is told: what is allocated from such is counted. */
static void from_heap(const void *p, size_t sum)
{
	static __thread uint64_t heap;

	if (!press_is_on()) {
		heap = 0;
		fresh(p, sum);
	} else if ((uint64_t)p / HEAP != heap) {
		heap = (uint64_t)p / HEAP;
		fresh((void *)(heap * HEAP), HEAP);
	}
}

/* malloc() has given @p, which does not pass: is there anything new behind it? */
static __attribute__((noinline)) void *got(void *p, size_t len)
{
	char *brk = &__curbrk ? __curbrk : NULL, *seen;
	size_t sum = PART - rest + len;

	if (!p)
		return p;
	if (!press_is_on())
		rest = PART;
	if (!__atomic_load_n(&works, __ATOMIC_RELAXED))
		return p;
	if (len >= LARGE) {
		fresh(p, press_is_on() ? len : sum);
	} else if ((char *)p > brk) {
		from_heap(p, sum);
	} else if (brk != (seen = __atomic_load_n(&seen_brk, __ATOMIC_RELAXED))) {
		__atomic_store_n(&seen_brk, brk, __ATOMIC_RELAXED);
		if (seen && brk > seen)
			fresh(seen, brk - seen);
	}
	return p;
}

/* ---- the program's calls ---- */

/* dlsym() does not allocate when it finds it; if it does all the same, that fails */
static bool find(void *ret_next, const char *name)
{
	static __thread bool finding;
	void *next;

	if (finding)
		return false;
	finding = true;
	next = dlsym(RTLD_NEXT, name);
	finding = false;
	if (next)
		__atomic_store((void **)ret_next, &next, __ATOMIC_RELAXED);
	return next;
}

/* what is to be there at once comes after it was counted */
EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	const int own = MAP_ANONYMOUS | MAP_PRIVATE;
	bool counts = (flags & own) == own && __atomic_load_n(&works, __ATOMIC_ACQUIRE);
	bool fills = counts && flags & MAP_POPULATE;
	int err = errno;
	void *p = (void *)syscall(SYS_mmap, addr, len, prot, fills ? flags & ~MAP_POPULATE : flags,
				  fd, off);

	if (p == MAP_FAILED || !counts)
		return p;
	fresh(p, len);
	if (fills)
		madvise(p, len, prot & PROT_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	errno = err;
	return p;
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t off)
	__attribute__((alias("mmap")));

EXPORT void *mremap(void *addr, size_t len, size_t new_len, int flags, ...)
{
	static void *(*next)(void *, size_t, size_t, int, void *);
	void *p, *to = NULL;
	va_list ap;

	va_start(ap, flags);
	if (flags & ~MREMAP_MAYMOVE) /* MREMAP_FIXED, MREMAP_DONTUNMAP */
		to = va_arg(ap, void *);
	va_end(ap);
	if (!__atomic_load_n(&next, __ATOMIC_RELAXED) && !find(&next, "mremap"))
		return (void *)syscall(SYS_mremap, addr, len, new_len, flags, to);
	p = next(addr, len, new_len, flags, to);
	if (p != MAP_FAILED && new_len > len)
		fresh((char *)p + len, new_len - len);
	return p;
}

/*
 * Before the first call of each the one that would have been called without us is looked for.
 */
static void *first_malloc(size_t), *first_calloc(size_t, size_t), *first_realloc(void *, size_t);
static void *first_aligned(size_t, size_t);
static int first_posix(void **, size_t, size_t);
static void *(*next_malloc)(size_t) = first_malloc;
static void *(*next_calloc)(size_t, size_t) = first_calloc;
static void *(*next_realloc)(void *, size_t) = first_realloc;
static void *(*next_aligned)(size_t, size_t) = first_aligned;
static int (*next_posix)(void **, size_t, size_t) = first_posix;

static void *first_malloc(size_t size)
{
	return find(&next_malloc, "malloc") ? next_malloc(size) : NULL;
}

static void *first_calloc(size_t n, size_t size)
{
	return find(&next_calloc, "calloc") ? next_calloc(n, size) : NULL;
}

static void *first_realloc(void *p, size_t size)
{
	return find(&next_realloc, "realloc") ? next_realloc(p, size) : NULL;
}

static void *first_aligned(size_t align, size_t size)
{
	return find(&next_aligned, "aligned_alloc") ? next_aligned(align, size) : NULL;
}

static int first_posix(void **ret, size_t align, size_t size)
{
	return find(&next_posix, "posix_memalign") ? next_posix(ret, align, size) : ENOMEM;
}

/* calls of their own, so that those that pass need no stack */
static __attribute__((noinline)) void *slow_malloc(size_t size)
{
	return got(next_malloc(size), size);
}

static __attribute__((noinline)) void *slow_calloc(size_t n, size_t size)
{
	return got(next_calloc(n, size), n * size);
}

static __attribute__((noinline)) void *slow_realloc(void *p, size_t size)
{
	return got(next_realloc(p, size), size);
}

static __attribute__((noinline)) void *slow_aligned(size_t align, size_t size)
{
	return got(next_aligned(align, size), size);
}

EXPORT void *malloc(size_t size)
{
	return passes(size) ? next_malloc(size) : slow_malloc(size);
}

EXPORT void *calloc(size_t n, size_t size)
{
	return passes(n * size) ? next_calloc(n, size) : slow_calloc(n, size);
}

EXPORT void *realloc(void *p, size_t size)
{
	return passes(size) ? next_realloc(p, size) : slow_realloc(p, size);
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	return passes(size) ? next_aligned(align, size) : slow_aligned(align, size);
}

EXPORT int posix_memalign(void **ret, size_t align, size_t size)
{
	bool pass = passes(size);
	int err = next_posix(ret, align, size);

	if (!err && !pass)
		got(*ret, size);
	return err;
}
