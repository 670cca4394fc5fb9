// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the kernel needs of threads: nearly nothing, for it waits as a thread does.
 *
 * Where userfaultfd is for user mode only it does not. Then a thread is ended when the kernel finds
 * its thread block away (restartable sequences) or the place for a signal's frame, and its calls
 * fail that name what is on its stack. So both stay, of each thread that pthread_create() has made;
 * and while it makes one, which the kernel writes to before it runs, nothing leaves at all.
 *
 * Threads that end. The last thing a thread does is the kernel's: it clears the word that
 * pthread_join() waits for, in the thread block, and looks through the list of robust mutexes that
 * begins there. It does so when the thread takes no faults of userfaultfd any more; if the page is
 * away by then the word stays, and who joins waits for ever. So libbalun defines pthread_create(),
 * and a destructor of thread-specific data enters the pages of the block into a table; they are not
 * taken (uffd_ending_bits()) until the kernel knows no such thread: it clears the word before that.
 * Entered first and touched then (see inside.c), they are at home until then. It does not matter
 * what the thread runs after the destructor, nor which space there is.
 *
 * Each thread has its record from pthread_create() on, so nothing can fail at its end. Records are
 * used again when their thread is gone. All of it is atomic words of this library's own memory: it
 * is used in the middle of malloc(), before a sanitizer knows the new thread, and by collects.
 *
 * Not seen: threads made by a bare clone(), and the first thread of a process, if it ends before
 * the others and is joined.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

/* what is run in a new thread before a sanitizer has seen it */
#define UNSEEN __attribute__((no_sanitize_thread, no_sanitize_address, noinline))

#define CHUNK_RECORDS 256

/* what else of libc's own is close to the words: it is small, and the rest of a page anyway */
#define AROUND 64UL

/*
 * @owner: generation and thread; 0 or of another generation (a parent's thread): free
 * @word, @head: what the kernel touches last, and @word is 0 as long as the thread lives
 * @block, @size: its thread block, and the size of the stack that ends there
 */
struct record {
	uint64_t owner;
	uint64_t word, head, block, size;
	void *(*fn)(void *arg);
	void *arg;
};

static struct chunk {
	struct chunk *next; /* there are only ever more */
	unsigned int high;  /* no record from here on was ever used */
	struct record record[CHUNK_RECORDS];
} first;

#define STARTING	UINT32_MAX
#define OWNER(gen, tid) ((uint64_t)((gen) + 1) << 32 | (uint32_t)(tid))
#define OWNER_TID(o)	((uint32_t)(o))
#define OWNER_GEN(o)	((uint32_t)((o) >> 32) - 1)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;
static uint64_t first_block; /* of the first thread */

typedef int create_fn(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
/* a sanitizer that is linked into the same object; otherwise it comes before or behind by itself */
extern create_fn __interceptor_pthread_create __attribute__((weak, visibility("hidden")));

static uint64_t load(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void store(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}

static bool swap(uint64_t *p, uint64_t was, uint64_t v)
{
	return __atomic_compare_exchange_n(p, &was, v, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static UNSEEN unsigned int load_high(const struct chunk *c)
{
	return __atomic_load_n(&c->high, __ATOMIC_SEQ_CST);
}

static void raise_high(struct chunk *c, unsigned int high)
{
	unsigned int was = load_high(c);

	while (was < high && !__atomic_compare_exchange_n(&c->high, &was, high, false,
							  __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

/* The kernel has forgotten the thread: after it has cleared the word. */
static bool is_gone(uint64_t owner)
{
	return OWNER_TID(owner) != STARTING &&
	       syscall(SYS_tgkill, syscall(SYS_getpid), OWNER_TID(owner), 0) && errno == ESRCH;
}

/* ---- a thread begins ---- */

static bool is_free(const struct record *r, uint64_t owner, unsigned int gen, bool look_hard)
{
	if (!owner || OWNER_GEN(owner) != gen)
		return true;
	return (load(&r->word) || look_hard) && is_gone(owner);
}

static struct record *record_find(unsigned int gen, bool look_hard)
{
	struct chunk *c;
	unsigned int i;

	for (c = &first; c; c = env_load(&c->next))
		for (i = 0; i < CHUNK_RECORDS; i++) {
			struct record *r = &c->record[i];
			uint64_t was = load(&r->owner);

			if (!is_free(r, was, gen, look_hard) ||
			    !swap(&r->owner, was, OWNER(gen, STARTING)))
				continue;
			store(&r->word, 0);
			store(&r->block, 0);
			raise_high(c, i + 1);
			return r;
		}
	return NULL;
}

/* inside, or the arena's lock would be held on a stack that may be away */
static bool records_more(void)
{
	uint64_t cookie[8];
	struct uffd *u = uffd_enter_here(cookie);
	struct chunk *c = env_pages_alloc(sizeof(*c));

	if (u)
		uffd_leave(u, cookie);
	if (!c)
		return false;
	c->next = env_load(&first.next);
	while (!__atomic_compare_exchange_n(&first.next, &c->next, c, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST))
		;
	return true;
}

static struct record *record_get(unsigned int gen)
{
	struct record *r;

	for (;;) {
		r = record_find(gen, false);
		if (!r)
			r = record_find(gen, true); /* some end without their destructors */
		if (r || !records_more())
			return r;
	}
}

/* The kernel gives a number again: who has it now is not the thread that had it. */
static UNSEEN void forget(uint64_t owner)
{
	struct chunk *c;
	unsigned int i;

	for (c = &first; c; c = __atomic_load_n(&c->next, __ATOMIC_ACQUIRE))
		for (i = 0; i < load_high(c); i++) {
			uint64_t was = owner;

			if (__atomic_load_n(&c->record[i].owner, __ATOMIC_RELAXED) == owner)
				__atomic_compare_exchange_n(&c->record[i].owner, &was, 0, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
		}
}

static UNSEEN void *thread_main(void *p)
{
	struct record *r = p;
	void *(*fn)(void *arg) = r->fn;
	void *arg = r->arg;
	uint64_t owner = __atomic_load_n(&r->owner, __ATOMIC_SEQ_CST) & ~(uint64_t)STARTING;

	owner |= (uint32_t)syscall(SYS_gettid);
	forget(owner);
	__atomic_store_n(&r->block, (uintptr_t)__builtin_thread_pointer(), __ATOMIC_SEQ_CST);
	__atomic_store_n(&r->owner, owner, __ATOMIC_SEQ_CST);
	pthread_setspecific(key, r);
	return fn(arg);
}

/* ---- and ends ---- */

/* what the kernel touches: the word that it clears, the head of the list of robust mutexes */
static void last_words(uint64_t *ret_word, uint64_t *ret_head)
{
	size_t len;

	/* without CHECKPOINT_RESTORE: somewhere in the block */
	if (prctl(PR_GET_TID_ADDRESS, ret_word, 0, 0, 0) || !*ret_word)
		*ret_word = (uintptr_t)pthread_self();
	if (syscall(SYS_get_robust_list, 0, ret_head, &len) || !*ret_head)
		*ret_head = *ret_word;
}

static void thread_ends(void *p)
{
	uint64_t word, head, cookie[8];
	struct record *r = p;
	struct uffd *u;

	/* the first thread of a forked child has its parent's */
	if (load(&r->owner) != OWNER(env_fork_gen(), syscall(SYS_gettid)))
		return;
	if (env_owns((uintptr_t)__builtin_frame_address(0), 1)) {
		store(&r->owner, 0);
		return;
	}
	last_words(&word, &head);
	store(&r->head, head);
	store(&r->word, word);
	u = uffd_enter_here(cookie);
	if (!u)
		return; /* whatever space comes later sees the record */
	/* as the kernel will: write, and read */
	__atomic_fetch_or((char *)(uintptr_t)word, 0, __ATOMIC_RELAXED);
	(void)*(volatile char *)(uintptr_t)head;
	uffd_leave(u, cookie);
}

static void ending_bits(struct record *r, uint64_t owner, uint64_t block, uint64_t *ret_bits)
{
	uint64_t word = load(&r->word), head = load(&r->head);

	if (!word || (BLOCK_OF(word + AROUND) != block && BLOCK_OF(word - AROUND) != block &&
		      BLOCK_OF(head + AROUND) != block))
		return;
	if (is_gone(owner)) {
		swap(&r->owner, owner, 0);
		return;
	}
	uffd_add_bits(block, word - AROUND, word + AROUND, ret_bits);
	uffd_add_bits(block, head, head + AROUND, ret_bits);
}

/* a stack and the thread block above it */
static void living_bits(struct record *r, uint64_t owner, uint64_t block, uint64_t *ret_bits)
{
	uint64_t end = load(&r->block) + PAGE, start = end - load(&r->size);

	if (end == PAGE || end <= block || start >= block + BLOCK)
		return;
	if (is_gone(owner))
		swap(&r->owner, owner, 0);
	else
		uffd_add_bits(block, start, end, ret_bits);
}

static void record_bits(struct uffd *u, struct record *r, uint64_t block, uint64_t *ret_bits)
{
	uint64_t owner = load(&r->owner);

	if (!owner || OWNER_GEN(owner) != u->fork_gen)
		return;
	ending_bits(r, owner, block, ret_bits);
	if (!u->caps.user_mode_only)
		return;
	if (OWNER_TID(owner) == STARTING) /* @block is not known yet */
		uffd_add_bits(block, block, block + BLOCK, ret_bits);
	else
		living_bits(r, owner, block, ret_bits);
}

void uffd_ending_bits(struct uffd *u, uint64_t block, uint64_t *ret_bits)
{
	struct chunk *c;
	unsigned int i;

	for (c = &first; c; c = env_load(&c->next))
		for (i = 0; i < load_high(c); i++)
			record_bits(u, &c->record[i], block, ret_bits);
	if (u->caps.user_mode_only)
		uffd_add_bits(block, first_block, first_block + PAGE, ret_bits);
}

__attribute__((constructor)) void uffd_first_thread(void)
{
	first_block = (uintptr_t)__builtin_thread_pointer();
}

/* ---- the call ---- */

static void make_key(void)
{
	have_key = !pthread_key_create(&key, thread_ends);
	if (!have_key)
		env_log(1, "no key of thread-specific data is left: see pthread_join() in "
			   "libbalun(7)");
}

/* the record is seen: a collect that has looked before it was is over */
static void wait_seen(void)
{
	uint64_t cookie[8];
	struct uffd *u = uffd_enter_here(cookie);

	if (u)
		uffd_leave(u, cookie);
}

static create_fn *next_create(void)
{
	static create_fn *next;
	create_fn *f = env_load(&next);

	if (!f && &__interceptor_pthread_create)
		f = __interceptor_pthread_create;
	if (!f)
		f = (create_fn *)dlsym(RTLD_NEXT, "pthread_create");
	env_store(&next, f);
	return f;
}

__attribute__((visibility("default"))) int pthread_create(pthread_t *t, const pthread_attr_t *attr,
							  void *(*fn)(void *), void *arg)
{
	create_fn *create = next_create();
	int err, saved = errno;
	pthread_attr_t usual;
	struct record *r;
	size_t size = 0;

	pthread_once(&once, make_key);
	if (!have_key)
		return create(t, attr, fn, arg);
	r = record_get(env_fork_gen());
	if (!r) {
		errno = saved;
		return EAGAIN;
	}
	env_store_relaxed(&r->fn, fn);
	env_store_relaxed(&r->arg, arg);
	pthread_attr_init(&usual);
	pthread_attr_getstacksize(attr ? attr : &usual, &size);
	pthread_attr_destroy(&usual);
	store(&r->size, size);
	if (env_load(&uffd_user_mode_only))
		wait_seen();
	errno = saved;
	err = create(t, attr, thread_main, r);
	if (err)
		store(&r->owner, 0);
	return err;
}
