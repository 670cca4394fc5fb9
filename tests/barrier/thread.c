/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* A thread in its hook while the space ends; a thread that ends while its block is wanted. */
#include "tests/barrier/barrier.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct scene {
	struct kit *k;
	const struct cell *c;
	struct area a;
	pid_t child;
};

/* ---- the space ends, or is another, while a thread stands in a hook ---- */

static void call_run(void *arg)
{
	struct scene *s = arg;

	s->c->call->fn(&s->a);
}

static void space_end(struct kit *k)
{
	CHECK_OK(kit_close(k, k->dev));
	CHECK_OK(balun_space_destroy(k->space));
}

static void space_anew(struct kit *k)
{
	CHECK_OK(kit_open_space(k));
	k->dev = kit_device(k, way_dev);
}

/* The hook has seen a space; before it has entered that, there is none, or (mover) another. */
static void space_ends(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker caller;

	area_make(k, c->call, &s.a);
	worker_start(&caller, call_run, &s);
	stop_arm(c->point);
	worker_go(&caller);
	if (!stop_hit(&caller))
		kit_fail(__FILE__, __LINE__, "the caller does not come by %s", c->point);
	space_end(k);
	if (c->mover) {
		space_anew(k);
		kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	}
	stop_release();
	worker_must_finish(&caller, c->call->name, c->point);
	worker_join(&caller);
	if (!c->mover)
		space_anew(k);
	area_check(k, c->call, &s.a, c->mover);
	area_drop(k, c->call, &s.a);
}

static void anew_run(void *arg)
{
	struct scene *s = arg;

	CHECK_OK(kit_open_space(s->k));
}

/* The hook has seen no space, and the call is about to be made: no space comes to be before. */
static void space_begins(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker caller, maker;

	area_make(k, c->call, &s.a);
	space_end(k);
	worker_start(&caller, call_run, &s);
	worker_start(&maker, anew_run, &s);
	stop_arm(c->point);
	worker_go(&caller);
	if (!stop_hit(&caller))
		kit_fail(__FILE__, __LINE__, "the caller does not come by %s", c->point);
	worker_go(&maker);
	worker_must_wait(&maker, SYS_futex, "who makes a space", c->point);
	stop_release();
	worker_must_finish(&caller, c->call->name, c->point);
	worker_must_finish(&maker, "who makes a space", c->point);
	worker_join(&caller);
	worker_join(&maker);
	k->dev = kit_device(k, way_dev);
	area_check(k, c->call, &s.a, false);
	area_drop(k, c->call, &s.a);
}

/* ---- the end of a thread ---- */

#define STACK (4UL << 20)

/* @word: what the kernel clears at its end, in its thread block, on its stack */
struct ender {
	struct kit *k;
	pthread_t t;
	struct worker seen; /* only that it has begun, and its tid */
	uint64_t stack, word;
	bool exits;	/* by pthread_exit() */
	uint32_t phase; /* LIVES .. */
	uint32_t go;	/* the last phase that it may leave */
	struct balun_counts n;
	int rc;
};
enum phase {
	BEGINS,
	LIVES,
	ENDS,
	GOES
};

static void futex_wait(uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void set(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_until(uint32_t *word, uint32_t value)
{
	uint32_t now;

	while ((now = __atomic_load_n(word, __ATOMIC_SEQ_CST)) < value)
		futex_wait(word, now);
}

static void ender_stands(struct ender *e, enum phase phase)
{
	set(&e->phase, phase);
	wait_until(&e->go, phase);
}

static pthread_key_t late_key;

/* after the library's: its key is older */
static void late(void *arg)
{
	ender_stands(arg, ENDS);
}

static void ender_begins(struct ender *e)
{
	e->seen = (struct worker){ .tid = syscall(SYS_gettid), .begun = true };
	CHECK(!prctl(PR_GET_TID_ADDRESS, &e->word, 0, 0, 0));
	CHECK(e->word - e->stack < STACK);
}

/* pthread_exit() needs some stack; once it is watched a hole in it waits for the engine's lock */
static __attribute__((noinline)) void use_stack(void)
{
	char room[STACK / 16];

	memset(room, 1, sizeof(room));
	__asm__ volatile("" : : "r"(room) : "memory");
}

static void *ender_main(void *arg)
{
	struct ender *e = arg;

	ender_begins(e);
	use_stack();
	CHECK(!pthread_setspecific(late_key, e));
	ender_stands(e, LIVES);
	if (e->exits)
		pthread_exit(NULL);
	return NULL;
}

static void ender_start(struct ender *e, struct kit *k, void *(*fn)(void *arg))
{
	pthread_attr_t a;

	if (prctl(PR_GET_TID_ADDRESS, &e->word, 0, 0, 0))
		kit_skip("this kernel does not say which word it clears "
			 "(CONFIG_CHECKPOINT_RESTORE)");
	e->k = k;
	e->stack = kit_place(k, STACK);
	CHECK_OK(k->mem->map(k, e->stack, STACK, KIT_RW));
	CHECK(!pthread_attr_init(&a));
	CHECK(!pthread_attr_setstack(&a, (void *)e->stack, STACK));
	CHECK(!pthread_create(&e->t, &a, fn, e));
	pthread_attr_destroy(&a);
	wait_until(&e->phase, LIVES);
}

/* the kernel knows it no more: the word is cleared some time before */
static void ender_gone(struct ender *e)
{
	while (!syscall(SYS_tgkill, getpid(), e->seen.tid, 0))
		sched_yield();
}

static void ender_fini(struct ender *e)
{
	CHECK_OK(e->k->mem->unmap(e->k, e->stack, STACK));
	CHECK_OK(balun_fence(e->k->space));
	kit_wait_used(e->k->dev, 0);
}

static void block_out(struct ender *e)
{
	CHECK_OK(balun_migrate(e->k->space, (void *)(e->word & ~(PAGE - 1)), PAGE, e->k->dev,
			       &e->n));
}

static void block_out_run(void *arg)
{
	block_out(arg);
}

/* The thread stands in a destructor after the library's, and nothing of it needs to be touched any
 * more until the kernel does. The page of its block stays, and goes as soon as the thread is gone.
 */
static void end_busy(struct kit *k, const struct cell *c)
{
	struct ender e = { .exits = c->mover };

	CHECK(!pthread_key_create(&late_key, late));
	ender_start(&e, k, ender_main);
	set(&e.go, LIVES);
	wait_until(&e.phase, ENDS);
	block_out(&e);
	CHECK_EQ(e.n.busy, 1);
	CHECK_EQ(e.n.moved, 0);
	set(&e.go, ENDS);
	CHECK(!pthread_join(e.t, NULL));
	ender_gone(&e);
	block_out(&e);
	CHECK_EQ(e.n.moved, 1);
	CHECK(!pthread_key_delete(late_key));
	ender_fini(&e);
}

/* A collect has looked, before the thread came to its end, and takes the page after that: the
 * thread waits for it and has the page brought home. */
static void end_looked(struct kit *k, const struct cell *c)
{
	struct ender e = { .exits = c->mover };
	struct worker mover;

	kit_needs_kernel_faults(k); /* or the page stays as long as the thread */
	CHECK(!pthread_key_create(&late_key, late));
	ender_start(&e, k, ender_main);
	worker_start(&mover, block_out_run, &e);
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	set(&e.go, ENDS);
	worker_must_wait(&e.seen, SYS_futex, "the end of a thread", c->point);
	CHECK_EQ(__atomic_load_n(&e.phase, __ATOMIC_SEQ_CST), LIVES);
	stop_release();
	worker_join(&mover);
	CHECK(!pthread_join(e.t, NULL));
	CHECK_EQ(e.n.moved, 1);
	CHECK(!pthread_key_delete(late_key));
	ender_fini(&e);
}

/* ---- why: the kernel brings no page home for a thread that exits ---- */

#if defined(__x86_64__) && defined(__GLIBC__) && !KIT_TSAN && !KIT_ASAN
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));
#define RSEQ_SIGNATURE 0x53053053

/* the kernel writes to the thread block whenever the thread was switched: not any more */
static bool rseq_off(void)
{
	if (!&__rseq_size || !__rseq_size)
		return true;
	return !syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1,
			RSEQ_SIGNATURE);
}

/* touches nothing but *go from its first instruction on */
static void __attribute__((noreturn)) wait_and_exit(uint32_t *go)
{
	register long timeout __asm__("r10") = 0;

	__asm__ volatile("1: mov %[futex], %%eax\n"
			 "syscall\n"
			 "cmpl $0, (%%rdi)\n"
			 "je 1b\n"
			 "xor %%edi, %%edi\n"
			 "mov %[exit], %%eax\n"
			 "syscall"
			 :
			 : "D"(go), "S"(FUTEX_WAIT_PRIVATE), "d"(0),
			   "r"(timeout), [futex] "i"(SYS_futex), [exit] "i"(SYS_exit)
			 : "rax", "rcx", "r11", "memory");
	__builtin_unreachable();
}

static void *raw_main(void *arg)
{
	struct ender *e = arg;

	ender_begins(e);
	CHECK(rseq_off());
	set(&e->phase, LIVES);
	wait_and_exit(&e->go);
}

static void end_raw(struct kit *k, const struct cell *c)
{
	struct ender e = { 0 };
	uint32_t last;

	(void)c;
	kit_needs_kernel_faults(k);
	ender_start(&e, k, raw_main);
	worker_must_wait(&e.seen, SYS_futex, "a thread", "its end");
	block_out(&e);
	CHECK_EQ(e.n.moved, 1);
	set(&e.go, 1);
	ender_gone(&e);
	last = __atomic_load_n((uint32_t *)e.word, __ATOMIC_SEQ_CST);
	/* for libc's books, which are in the thread's stack: it may be joined */
	__atomic_store_n((uint32_t *)e.word, 0, __ATOMIC_SEQ_CST);
	CHECK(!pthread_join(e.t, NULL));
	ender_fini(&e);
	if (!last)
		kit_skip("this kernel brings the page home");
	CHECK_EQ(last, e.seen.tid);
}
#else
static void end_raw(struct kit *k, const struct cell *c)
{
	(void)k;
	(void)c;
	kit_skip("written for x86-64 and glibc without sanitizers");
}
#endif

/* ---- a child that wants its memory before the parent has let go of it ---- */

/* in the child: 0, or what went wrong */
static int child_moves(struct scene *s)
{
	struct kit k = *s->k;
	struct balun_counts n = { 0 };
	char *p = (char *)s->a.mid;
	unsigned int i;

	if (kit_open_space(&k) || balun_device_open(k.space, "ram:mem=16M", &k.dev))
		return 2;
	for (i = 0; i < MID; i++) /* what is shared since the fork stays */
		p[i * PAGE] = (char)i;
	if (balun_migrate(k.space, p, MID_LEN, k.dev, &n) || n.moved != MID)
		return 3;
	for (i = 0; i < MID; i++)
		if (p[i * PAGE] != (char)i)
			return 4;
	return 0;
}

static void fork_run(void *arg)
{
	struct scene *s = arg;
	int status;

	s->child = fork();
	if (!s->child)
		_exit(child_moves(s));
	CHECK(waitpid(s->child, &status, 0) == s->child);
	CHECK_EQ(status, 0);
}

/*
 * The reader has a context of the child, by the event, and stands before it closes it. Until then
 * the child could not watch its memory, and nothing of it could move.
 */
static void fork_watched(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct balun_engine_info info = { .size = sizeof(info) };
	struct worker forker;

	CHECK_OK(balun_engine_info(0, &info));
	if (strstr(info.features, "-EVENT_FORK"))
		kit_skip("without CAP_SYS_PTRACE there is no event of a fork");
	area_make(k, &calls[0], &s.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	worker_start(&forker, fork_run, &s);
	stop_arm(c->point);
	worker_go(&forker);
	CHECK(stop_hit(NULL));
	/* the parent waits for the reader's lock, and the child for the parent */
	worker_must_wait(&forker, SYS_futex, "the parent", c->point);
	stop_release();
	worker_must_finish(&forker, "the child", c->point);
	worker_join(&forker);
	kit_verify(k, s.a.va, s.a.end - s.a.va, SEED);
	CHECK_OK(k->mem->unmap(k, s.a.va, s.a.end - s.a.va));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

/* ---- the list ---- */

void thread_cells(void)
{
	static const char *const how[] = { "return", "pthread_exit" };
	const struct call *call;
	unsigned int anew, i;
	struct cell *c;

	for (call = calls; call->name; call++)
		for (anew = 0; anew < 2 && call->flags & CALL_HOOK; anew++) {
			c = cell_add(space_ends, WAY_ALL, "%s/enter-looked/%s", call->name,
				     anew ? "space-anew" : "space-ends");
			c->call = call;
			c->point = "enter-looked";
			c->mover = anew;
		}
	for (call = calls; call->name; call++) {
		if (!(call->flags & CALL_HOOK))
			continue;
		c = cell_add(space_begins, WAY_ALL, "%s/hook-unseen/space-begins", call->name);
		c->call = call;
		c->point = "hook-unseen";
	}
	for (i = 0; i < 2; i++) {
		c = cell_add(end_busy, WAY_ALL, "thread-end/destructors/%s", how[i]);
		c->mover = i;
		c = cell_add(end_looked, WAY_ALL, "thread-end/collect-looked/%s", how[i]);
		c->point = "collect-looked";
		c->mover = i;
	}
	if (!KIT_TSAN) { /* which cannot follow a process with threads into a fork */
		c = cell_add(fork_watched, WAY_ALL, "fork/child-filled/child-moves");
		c->point = "child-filled";
	}
	/* coherent memory is not away for the kernel */
	cell_add(end_raw, WAY_ALL & ~WAY_COHERENT, "thread-end/raw-exit/word-stays");
}
