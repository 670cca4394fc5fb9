// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Memory of env_user: an arena over mmap()ed chunks, never malloc().
 *
 * Sizes up to SLAB_MAX come from slabs of 64 KiB, aligned to themselves, one size class each; the
 * header at the start of the slab names it, so a free needs no search. Larger ones are mappings of
 * their own, with the same header at the same alignment. Objects of 64 bytes or more are aligned to
 * 64 bytes, smaller ones to 16.
 *
 * Everything that is mapped here stands in a sorted table of regions, for env_owns(). One lock, a
 * leaf, guards all of it; env_owns() reads the table without the lock (a sequence count tells).
 *
 * fork(): the child keeps the parent's memory readable (handles of the parent must still be refused
 * politely there) but allocates from fresh chunks; freeing an inherited object does nothing. The
 * lock is not held across a fork: while libc waits there for malloc()'s locks, who holds one may
 * wait for memory to come home, and that allocates here. So the child may find the lock taken by a
 * thread that it does not have, and everything in the middle of a change; it begins anew with all
 * of it but the table, which is right at any moment. A page that the kernel clears in every child
 * tells one made by a bare clone(), which runs no handler.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "env/env_priv.h"

#if ENV_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)	  ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

#define PAGE	    4096UL
#define HUGE	    (2UL << 20)
#define SLAB	    65536UL
#define CHUNK	    (4UL << 20)
#define HEADER	    64UL
#define SLAB_MAX    21824UL /* three of them in a slab */
#define NR_CLASSES  32
#define IDLE_SLABS  16 /* more idle slabs than this give their pages back */
#define MAX_REGIONS (1UL << 20)

struct free_object {
	struct free_object *next;
};

/* the first HEADER bytes of a slab or of a large object */
struct slab {
	struct env_list list; /* in class_list while it has room; in idle_list */
	struct free_object *free;
	uint32_t size;	 /* of an object; 0: a large object */
	uint32_t fresh;	 /* offset of the first object never handed out, or SLAB */
	uint32_t used;	 /* objects handed out */
	uint32_t gen;	 /* fork generation that mapped it */
	uint64_t mapped; /* large: bytes of the mapping */
	bool dirty;	 /* memory beyond fresh may be other than zero */
};
_Static_assert(sizeof(struct slab) <= HEADER, "slab header");

struct region {
	uint64_t start, end;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned int fork_gen;

static struct env_list class_list[NR_CLASSES];
static struct env_list idle_list;
static unsigned int nr_idle;
static char *chunk_next, *chunk_end; /* slabs never used */
static size_t alloc_bytes;
static uint64_t fail_countdown;

/* the table, and the one that a change makes from it: tables[region_seq % 2] is in force */
static struct region *tables[2]; /* MAX_REGIONS reserved each, never move */
static size_t nr_regions[2];
static uint32_t region_seq;

/* zero in a child that has not begun anew; NULL: the kernel cannot tell */
static uint32_t *known_here;
#define HERE_BUSY 1
#define HERE_YES  2

/*
 * The system calls directly: libc's functions may be hooked by the program (or by Balun) and the
 * hook may need the lock that is held here. Sanitizers must see new memory; memory that goes they
 * need not see.
 */
static void *raw_mmap(size_t len)
{
	int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p;

#if ENV_ASAN || ENV_TSAN
	p = mmap(NULL, len, prot, flags, -1, 0);
#else
	p = (void *)syscall(SYS_mmap, NULL, len, prot, flags, -1, 0);
#endif
	return p == MAP_FAILED ? NULL : p;
}

static void raw_munmap(void *p, size_t len)
{
	if (!len)
		return;
	syscall(SYS_munmap, p, len);
}

static void unmap_guarded(void *p, size_t len)
{
	raw_munmap((char *)p - PAGE, len + 2 * PAGE);
}

/*
 * @align is a power of two, at least a page. A page that nobody may touch on either side: without
 * it the kernel would make one mapping of ours and the program's next to it, and who reads
 * /proc/PID/maps take one for the other.
 */
static void *map_guarded(size_t len, size_t align)
{
	size_t slack = align + PAGE;
	char *p, *a;

	if (len > SIZE_MAX / 2)
		return NULL;
	p = raw_mmap(len + slack);
	if (!p)
		return NULL;
	a = (char *)(((uintptr_t)p + align) & ~(align - 1));
	raw_munmap(p, a - PAGE - p);
	raw_munmap(a + len + PAGE, p + slack - PAGE - a);
	if (syscall(SYS_mprotect, a - PAGE, PAGE, PROT_NONE) ||
	    syscall(SYS_mprotect, a + len, PAGE, PROT_NONE)) {
		unmap_guarded(a, len); /* too many mappings */
		return NULL;
	}
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, a, len, "balun"); /* in /proc/PID/maps */
	return a;
}

/* ---- regions ---- */

/* index of the first region that ends after @addr, in a table of @n */
static size_t region_find(const struct region *r, uint64_t addr, size_t n)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (env_load(&r[mid].end) > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* Release pairs with the acquire loads of env_owns(): who sees an entry of the change after this
 * one sees region_seq grown when it looks again. */
static void region_set(struct region *r, uint64_t start, uint64_t end)
{
	env_store(&r->start, start);
	env_store(&r->end, end);
}

/*
 * @n regions take the place of @drop ones from i on. The other table is made from the one in force,
 * and then is it: whoever is stopped in here for ever leaves a table that is right.
 */
static void region_replace(size_t i, size_t drop, const struct region *ins, size_t n)
{
	struct region *from = tables[region_seq % 2], *to = tables[(region_seq + 1) % 2];
	size_t have = nr_regions[region_seq % 2], j;

	for (j = 0; j < i; j++)
		region_set(&to[j], from[j].start, from[j].end);
	for (j = 0; j < n; j++)
		region_set(&to[i + j], ins[j].start, ins[j].end);
	for (j = i + drop; j < have; j++)
		region_set(&to[j - drop + n], from[j].start, from[j].end);
	env_store(&nr_regions[(region_seq + 1) % 2], have - drop + n);
	env_store(&region_seq, region_seq + 1);
}

static int region_add(void *p, size_t len)
{
	struct region *r = tables[region_seq % 2];
	struct region new = { (uint64_t)(uintptr_t)p, (uint64_t)(uintptr_t)p + len };
	size_t n = nr_regions[region_seq % 2], i = region_find(r, new.start, n);
	bool left = i > 0 && r[i - 1].end == new.start;
	bool right = i < n && r[i].start == new.end;

	if (n == MAX_REGIONS && !left && !right)
		return -ENOMEM;
	if (left)
		new.start = r[--i].start;
	if (right)
		new.end = r[i + left].end;
	region_replace(i, left + right, &new, 1);
	return 0;
}

static void region_remove(void *p, size_t len)
{
	struct region *r = tables[region_seq % 2], part[2];
	uint64_t start = (uint64_t)(uintptr_t)p, end = start + len;
	size_t have = nr_regions[region_seq % 2], i = region_find(r, start, have), n = 0;

	env_assert(i < have && r[i].start <= start && end <= r[i].end);
	if (r[i].start < start)
		part[n++] = (struct region){ r[i].start, start };
	if (end < r[i].end)
		part[n++] = (struct region){ end, r[i].end };
	/* a hole in the middle needs one more entry: with the table full it stays owned instead */
	if (n == 2 && have == MAX_REGIONS)
		return;
	region_replace(i, 1, part, n);
}

bool env_owns(uint64_t addr, uint64_t len)
{
	uint32_t seq;
	bool owned;

	if (!env_load(&tables[1]))
		return false;
	do {
		const struct region *r;
		size_t n, i;

		/* a table is made anew only after the change that put the other in force */
		seq = env_load(&region_seq);
		r = tables[seq % 2];
		n = env_load(&nr_regions[seq % 2]);
		i = region_find(r, addr, n);
		owned = i < n && env_load(&r[i].start) < addr + len;
	} while (env_load_relaxed(&region_seq) != seq);
	return owned;
}

/* ---- fork ---- */

static void arena_reset(void)
{
	unsigned int i;

	for (i = 0; i < NR_CLASSES; i++)
		env_list_init(&class_list[i]);
	env_list_init(&idle_list);
	nr_idle = 0;
	chunk_next = chunk_end = NULL;
	alloc_bytes = 0;
	fail_countdown = 0;
}

/* The table of regions stays: the memory is still mapped, and still not the program's. */
static void begin_anew(void)
{
	pthread_mutex_init(&lock, NULL);
	env_store_relaxed(&fork_gen, fork_gen + 1);
	arena_reset();
	if (known_here)
		env_store(known_here, HERE_YES);
}

static void arena_init(void);

/* before anything is used; in a child the first to come begins anew */
static void arena_begin(void)
{
	uint32_t zero = 0;

	pthread_once(&once, arena_init);
	if (!known_here || env_load(known_here) == HERE_YES)
		return;
	if (__atomic_compare_exchange_n(known_here, &zero, HERE_BUSY, false, __ATOMIC_ACQUIRE,
					__ATOMIC_RELAXED))
		begin_anew();
	while (env_load(known_here) != HERE_YES)
		sched_yield();
}

static void fork_child(void)
{
	if (known_here)
		arena_begin(); /* a handler of somebody else's may have been here already */
	else
		begin_anew();
}

static void arena_init(void)
{
	size_t len = MAX_REGIONS * sizeof(struct region);
	struct region *r = map_guarded(2 * len, PAGE);
	void *here = map_guarded(PAGE, PAGE);

	arena_reset();
	pthread_atfork(NULL, NULL, fork_child);
	if (here && !syscall(SYS_madvise, here, PAGE, MADV_WIPEONFORK)) {
		known_here = here;
		*known_here = HERE_YES;
	}
	if (!r)
		return;
	tables[0] = r;
	env_store(&tables[1], r + MAX_REGIONS);
	region_add((char *)r - PAGE, 2 * len + 2 * PAGE);
	if (here)
		region_add((char *)here - PAGE, 3 * PAGE);
}

static void arena_lock(void)
{
	arena_begin();
	pthread_mutex_lock(&lock);
}

/* memory is mapped, and stands in the table, under the lock */
void env_owns_begin(void)
{
	arena_lock();
}

void env_owns_end(void)
{
	pthread_mutex_unlock(&lock);
}

unsigned int env_fork_gen(void)
{
	arena_begin();
	return env_load_relaxed(&fork_gen);
}

/* ---- slabs ---- */

/* Four classes for each doubling: at most a fifth is wasted. */
static unsigned int class_of(size_t size, size_t *ret_size)
{
	unsigned int shift;
	size_t step;

	if (size <= 64) {
		*ret_size = size ? (size + 15) & ~15UL : 16;
		return *ret_size / 16 - 1;
	}
	if (size <= 256) {
		*ret_size = (size + 63) & ~63UL;
		return 4 + *ret_size / 64 - 2;
	}
	if (size > 16384) {
		*ret_size = SLAB_MAX;
		return NR_CLASSES - 1;
	}
	shift = 63 - __builtin_clzl(size - 1);
	step = 1UL << (shift - 2);
	*ret_size = (size + step - 1) & ~(step - 1);
	return 7 + (shift - 8) * 4 + (*ret_size - (1UL << shift)) / step - 1;
}

static void *map_owned(size_t len, size_t align)
{
	void *p = map_guarded(len, align);

	if (!p)
		return NULL;
	if (region_add((char *)p - PAGE, len + 2 * PAGE)) { /* the guards are ours, too */
		unmap_guarded(p, len);
		return NULL;
	}
	return p;
}

/* for the arena, not for pages: those hold no pointers to malloc()ed memory of Balun */
static void leak_root(void *p, size_t len, bool on)
{
#if ENV_ASAN
	if (on)
		__lsan_register_root_region(p, len);
	else
		__lsan_unregister_root_region(p, len);
#else
	(void)p;
	(void)len;
	(void)on;
#endif
}

static struct slab *slab_get(void)
{
	struct slab *s;

	if (!env_list_empty(&idle_list)) {
		s = env_container_of(idle_list.next, struct slab, list);
		env_list_del(&s->list);
		nr_idle--;
		return s;
	}
	if (chunk_next == chunk_end) {
		chunk_next = map_owned(CHUNK, SLAB);
		if (!chunk_next) {
			chunk_end = NULL;
			return NULL;
		}
		chunk_end = chunk_next + CHUNK;
		leak_root(chunk_next, CHUNK, true);
	}
	s = (struct slab *)chunk_next;
	chunk_next += SLAB;
	return s;
}

static struct slab *slab_new(unsigned int class, size_t size)
{
	struct slab *s = slab_get();

	if (!s)
		return NULL;
	s->free = NULL;
	s->size = size;
	s->fresh = HEADER;
	s->used = 0;
	s->gen = fork_gen;
	env_list_add(&class_list[class], &s->list);
	ASAN_POISON_MEMORY_REGION((char *)s + HEADER, SLAB - HEADER);
	return s;
}

/* an idle slab is kept; beyond a few, without its pages */
static void slab_put(struct slab *s)
{
	env_list_del(&s->list);
	s->dirty = true;
	ASAN_UNPOISON_MEMORY_REGION((char *)s + HEADER, SLAB - HEADER);
	if (nr_idle >= IDLE_SLABS) {
		syscall(SYS_madvise, (char *)s + PAGE, SLAB - PAGE, MADV_DONTNEED);
		memset((char *)s + HEADER, 0, PAGE - HEADER);
		s->dirty = false;
	}
	env_list_add(&idle_list, &s->list);
	nr_idle++;
}

static void *slab_alloc(size_t size)
{
	size_t class_size;
	unsigned int class = class_of(size, &class_size);
	struct slab *s;
	bool clean;
	void *p;

	if (env_list_empty(&class_list[class]))
		s = slab_new(class, class_size);
	else
		s = env_container_of(class_list[class].next, struct slab, list);
	if (!s)
		return NULL;
	if (s->free) {
		p = s->free;
		ASAN_UNPOISON_MEMORY_REGION(p, class_size);
		s->free = s->free->next;
		clean = false;
	} else {
		p = (char *)s + s->fresh;
		s->fresh += class_size;
		clean = !s->dirty;
	}
	s->used++;
	if (!s->free && s->fresh + class_size > SLAB)
		env_list_del(&s->list);
	alloc_bytes += class_size;
	ASAN_UNPOISON_MEMORY_REGION(p, class_size);
	if (!clean)
		memset(p, 0, class_size);
	if (class_size > size)
		ASAN_POISON_MEMORY_REGION((char *)p + size, class_size - size);
	return p;
}

/* only ASan knows; elsewhere a double free is not seen */
static bool object_is_free(void *p)
{
#if ENV_ASAN
	return __asan_address_is_poisoned(p);
#else
	(void)p;
	return false;
#endif
}

static void slab_free(struct slab *s, void *p)
{
	struct free_object *o = p;
	size_t class_size;
	unsigned int class = class_of(s->size, &class_size);
	bool full = !s->free && s->fresh + s->size > SLAB;

	env_assert(((char *)p - (char *)s - HEADER) % s->size == 0 && s->used);
	env_assert(!object_is_free(p));
	ASAN_UNPOISON_MEMORY_REGION(p, sizeof(*o));
	o->next = s->free;
	s->free = o;
	ASAN_POISON_MEMORY_REGION(p, s->size);
	alloc_bytes -= s->size;
	if (full)
		env_list_add(&class_list[class], &s->list);
	if (!--s->used)
		slab_put(s);
}

static void *large_alloc(size_t size)
{
	size_t len = (size + HEADER + PAGE - 1) & ~(PAGE - 1);
	struct slab *s = map_owned(len, SLAB);

	if (!s)
		return NULL;
	leak_root(s, len, true);
	s->mapped = len;
	s->gen = fork_gen;
	alloc_bytes += len;
	ASAN_POISON_MEMORY_REGION((char *)s + HEADER + size, len - HEADER - size);
	return (char *)s + HEADER;
}

static void large_free(struct slab *s)
{
	size_t len = s->mapped;

	alloc_bytes -= len;
	ASAN_UNPOISON_MEMORY_REGION(s, len);
	leak_root(s, len, false);
	/* not owned any more before the address can be anyone else's */
	region_remove((char *)s - PAGE, len + 2 * PAGE);
	unmap_guarded(s, len);
}

/* ---- the interface ---- */

void env_fail_alloc(uint64_t nth)
{
	arena_lock();
	fail_countdown = nth;
	pthread_mutex_unlock(&lock);
}

void *env_alloc(size_t size)
{
	void *p = NULL;

	arena_begin();
	if (!tables[1] || size > SIZE_MAX / 2)
		return NULL;
	arena_lock();
	if (!fail_countdown || --fail_countdown)
		p = size > SLAB_MAX ? large_alloc(size) : slab_alloc(ENV_MAX(size, 1));
	pthread_mutex_unlock(&lock);
	return p;
}

void env_free(void *p)
{
	struct slab *s = (struct slab *)((uintptr_t)p & ~(SLAB - 1));

	if (!p)
		return;
	arena_lock();
	if (s->gen != fork_gen) {
		/* the parent's: stays as it is */
	} else if (!s->size) {
		large_free(s);
	} else {
		slab_free(s, p);
	}
	pthread_mutex_unlock(&lock);
}

size_t env_alloc_bytes(void)
{
	size_t n;

	arena_lock();
	n = alloc_bytes;
	pthread_mutex_unlock(&lock);
	return n;
}

void *env_pages_alloc(size_t bytes)
{
	size_t len = (bytes + PAGE - 1) & ~(PAGE - 1);
	void *p;

	arena_begin();
	if (!tables[1] || !len || len > 1UL << 47)
		return NULL;
	arena_lock();
	p = map_owned(len, len >= HUGE ? HUGE : PAGE);
	pthread_mutex_unlock(&lock);
	return p;
}

/* as a hint: a kernel without huge pages may refuse */
void env_pages_huge(void *p, size_t bytes)
{
	syscall(SYS_madvise, p, bytes, MADV_HUGEPAGE);
}

/*
 * It is not registered with userfaultfd, and while the lock is held nobody does that (watch.c), for
 * then munmap() would wait for the service thread, which may be this one. The pages go before, for
 * that takes a while (not those that are locked).
 */
void env_pages_free(void *p, size_t bytes)
{
	size_t len = (bytes + PAGE - 1) & ~(PAGE - 1);

	if (!p)
		return;
	ASAN_UNPOISON_MEMORY_REGION(p, len);
	syscall(SYS_madvise, p, len, MADV_DONTNEED);
	arena_lock();
	region_remove((char *)p - PAGE, len + 2 * PAGE);
	unmap_guarded(p, len);
	pthread_mutex_unlock(&lock);
}
