/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Threads, handlers and memory calls where a fork, or the end of a stack, comes in between. */
#include "scene.h"

#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* sanitizers want room for themselves */
#define STACK (MX_TSAN || MX_ASAN ? 4 * MIB : MIB / 4)

/* ---- stacks ---- */

struct sleeper {
	int go[2], ready[2];
	char *stack;
};

/* sleeps in a system call while its stack is sent away, then ends on it */
static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	uint64_t local[64];
	char c;

	mx_fill(local, sizeof(local), 5);
	MX_CHECK_EQ(write(s->ready[1], "r", 1), 1);
	MX_CHECK_EQ(read(s->go[0], &c, 1), 1);
	mx_verify(local, sizeof(local), 5);
	return arg;
}

static pthread_t thread_on(void *stack, void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	MX_CHECK_EQ(pthread_attr_setstack(&a, stack, STACK), 0);
	MX_CHECK_EQ(pthread_create(&t, &a, fn, arg), 0);
	pthread_attr_destroy(&a);
	return t;
}

/* The stack is away when the thread wakes, and comes home as far as the thread needs it to end. */
static void stack_away_at_exit(struct mx *m)
{
	struct sleeper s = { .stack = mx_map(STACK) };
	pthread_t t;
	int i;
	char c;

	MX_CHECK_EQ(pipe(s.go), 0);
	MX_CHECK_EQ(pipe(s.ready), 0);
	for (i = 0; i < 20; i++) {
		t = thread_on(s.stack, sleeper_main, &s);
		MX_CHECK_EQ(read(s.ready[0], &c, 1), 1);
		do {
			MX_OK(balun_migrate(m->space, s.stack, STACK, m->dev, NULL));
		} while (mx_pages_away(m, s.stack, STACK) < STACK / PAGE);
		MX_CHECK_EQ(write(s.go[1], "g", 1), 1);
		mx_join(t);
	}
}

struct sender {
	struct mx *m;
	char *stack;
	bool stop;
	uint64_t rounds, moved;
};

static void *send_stack(void *arg)
{
	struct sender *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		struct balun_counts n;

		MX_OK(balun_migrate(s->m->space, s->stack, STACK, s->m->dev, &n));
		s->moved += n.moved;
		__atomic_store_n(&s->rounds, s->rounds + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *short_life(void *arg)
{
	uint64_t local[64];

	mx_fill(local, sizeof(local), 5);
	if (arg)
		pthread_exit(NULL);
	mx_verify(local, sizeof(local), 5);
	return arg;
}

/*
 * The stack is sent away over and over while threads begin, run and end on it. The kernel serves no
 * fault for the last word that it writes for a thread, and pthread_join() waits for that word.
 */
static void stack_leaving_at_exit(struct mx *m)
{
	struct sender s = { .m = m, .stack = mx_map(STACK) };
	pthread_t t;
	int i;

	if (MX_TSAN)
		mx_skip("TSan has its own state on the stack, and uses it with its locks held");
	t = mx_thread(send_stack, &s);
	for (i = 0; i < 300; i++)
		mx_join(thread_on(s.stack, short_life, i % 2 ? &s : NULL));
	while (__atomic_load_n(&s.rounds, __ATOMIC_ACQUIRE) < 10)
		sched_yield();
	__atomic_store_n(&s.stop, true, __ATOMIC_RELEASE);
	mx_join(t);
	MX_CHECK(s.moved > 0);
}

static void *echo(void *arg)
{
	uint64_t local[512];

	mx_fill(local, sizeof(local), 6);
	mx_verify(local, sizeof(local), 6);
	return arg;
}

/* a new thread's stack, and its thread block at the top, are in away memory */
static void stack_away_at_start(struct mx *m)
{
	char *stack = mx_map(STACK);
	int i;

	for (i = 0; i < 10; i++) {
		void *ret;

		mx_fill(stack, STACK, i);
		mx_move(m, stack, STACK, m->dev);
		MX_CHECK_EQ(pthread_join(thread_on(stack, echo, &ret), &ret), 0);
		MX_CHECK(ret == &ret);
		/* as far down as no thread gets */
		mx_verify(stack, STACK / 2, i);
	}
}

/* threads come and go, with stacks of libc's, while memory is going to and fro */
static void threads_while_moving(struct mx *m)
{
	struct scene s;
	int i;

	scene_begin(&s, m, COMING_HOME);
	for (i = 0; i < 50; i++)
		mx_join(mx_thread(echo, NULL));
	scene_stop(&s);
	scene_verify(&s);
}

static struct {
	struct mx *m;
	char *p;
} inner;

/* enters the space, with a guard close above its stack pointer and one close below */
static void *inner_main(void *arg)
{
	mx_fill(inner.p, MIB, 9);
	mx_move(inner.m, inner.p, MIB, inner.m->dev);
	mx_verify(inner.p, MIB, 9);
	return arg;
}

/*
 * Small stacks, whose guards are watched as they are, for they were memory like any other before.
 * The lower pages of each were never touched since.
 */
static void between_guards(struct mx *m)
{
	size_t size = STACK / 8, len = 4 * STACK, i;
	char *all = mx_map(len), *stack;

	if (MX_TSAN)
		mx_skip("TSan's own state needs more stack than is between the guards");
	inner.m = m;
	inner.p = mx_map(MIB);
	mx_fill(all, len, 1);
	mx_move(m, all, len, m->dev);
	mx_move(m, all, len, NULL);
	for (i = 0; i < 10; i++) {
		pthread_attr_t a;
		pthread_t t;

		stack = all + PAGE + i * (size + PAGE);
		MX_CHECK(!madvise(stack, size, MADV_DONTNEED));
		MX_CHECK(!mprotect(stack - PAGE, PAGE, PROT_NONE));
		MX_CHECK(!mprotect(stack + size, PAGE, PROT_NONE));
		pthread_attr_init(&a);
		MX_CHECK_EQ(pthread_attr_setstack(&a, stack, size), 0);
		MX_CHECK_EQ(pthread_create(&t, &a, inner_main, NULL), 0);
		pthread_attr_destroy(&a);
		mx_join(t);
	}
	MX_CHECK(!mprotect(all, len, PROT_READ | PROT_WRITE));
	mx_verify(all + len / 2, len / 2, 1);
}

/* ---- handlers of the program around fork() ---- */

static struct {
	struct mx *m;
	char *p;
	int calls;
} at;
#define AT_LEN (64 * PAGE)

static void at_touch(void)
{
	if (at.m)
		mx_verify(at.p, AT_LEN, 8);
}

/* before and after the space made its own handlers: the program's run on either side of them */
static void at_parent(void)
{
	char *q;

	if (!at.m)
		return;
	at_touch();
	/* stays, or goes: it must come back from it */
	MX_OK(balun_migrate(at.m->space, at.p, AT_LEN, at.m->dev, NULL));
	q = mx_map(AT_LEN);
	mx_fill(q, AT_LEN, 9);
	MX_OK(balun_migrate(at.m->space, q, AT_LEN, at.m->dev, NULL));
	mx_verify(q, AT_LEN, 9);
	MX_CHECK_EQ(munmap(q, AT_LEN), 0);
	at.calls++;
}

static void at_child(void)
{
	char *q;

	if (!at.m)
		return;
	at_touch();
	q = mx_map(AT_LEN);
	mx_fill(q, AT_LEN, 9);
	MX_CHECK_EQ(mprotect(q, AT_LEN, PROT_READ), 0);
	mx_verify(q, AT_LEN, 9);
	MX_CHECK_EQ(munmap(q, AT_LEN), 0);
	at.calls++;
}

static void atfork_handlers(struct mx *m)
{
	struct busy b;
	pid_t pid;
	int i;

	MX_CHECK_EQ(pthread_atfork(at_parent, at_parent, at_child), 0);
	mx_open(m);
	MX_CHECK_EQ(pthread_atfork(at_parent, at_parent, at_child), 0);
	at.p = mx_away(m, AT_LEN, 8);
	at.m = m;
	busy_start(&b, m);
	for (i = 0; i < 5; i++) {
		at.calls = 0;
		pid = fork();
		MX_CHECK(pid >= 0);
		MX_CHECK_EQ(at.calls, 4);
		if (!pid) {
			at_touch();
			_exit(0);
		}
		mx_reap(pid);
		MX_OK(balun_migrate(m->space, at.p, AT_LEN, m->dev, NULL));
	}
	busy_stop(&b);
	at_touch();
	at.m = NULL;
}

/* ---- fork in a signal's handler ---- */

static struct {
	struct scene *s;
	pid_t pid;
	pthread_t target;
} sig;

static void on_signal(int nr)
{
	pid_t pid;

	(void)nr;
	/* _Fork() is what may be called here; fork() works too, as far as libc lets it */
	pid = sig.s->m->cell->a ? _Fork() : fork();
	MX_CHECK(pid >= 0);
	if (!pid) {
		mx_verify(sig.s->still, sig.s->len, 1);
		mx_verify(sig.s->priv, sig.s->len, 3);
		_exit(0);
	}
	__atomic_store_n(&sig.pid, pid, __ATOMIC_RELEASE);
}

static void *sender_of_signal(void *arg)
{
	(void)arg;
	MX_CHECK_EQ(pthread_kill(sig.target, SIGUSR1), 0);
	return NULL;
}

static void fork_in_handler(struct mx *m)
{
	struct scene s;
	pthread_t t;
	int i;

	scene_begin(&s, m, m->cell->b);
	sig.s = &s;
	sig.target = pthread_self();
	signal(SIGUSR1, on_signal);
	for (i = 0; i < 5; i++) {
		size_t page = 0;

		MX_OK(balun_migrate(m->space, s.still, s.len, m->dev, NULL));
		sig.pid = 0;
		t = mx_thread(sender_of_signal, NULL);
		/* in the middle of touches of away pages, and of calls into Balun */
		while (!__atomic_load_n(&sig.pid, __ATOMIC_ACQUIRE)) {
			mx_verify(s.still + page, PAGE, 1);
			MX_OK(balun_migrate(m->space, s.still + page, PAGE, m->dev, NULL));
			page = (page + PAGE) % s.len;
		}
		mx_join(t);
		mx_reap(sig.pid);
	}
	signal(SIGUSR1, SIG_DFL);
	scene_stop(&s);
	scene_verify(&s);
}

/* ---- a space comes and goes while another thread forks ---- */

static void *spaces(void *arg)
{
	struct busy *b = arg;
	struct mx m = *b->m;

	while (!__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE)) {
		char *p;

		mx_open(&m);
		p = mx_map(AT_LEN);
		mx_fill(p, AT_LEN, 2);
		/* what a fork came upon since it was written stays */
		MX_OK(balun_migrate(m.space, p, AT_LEN, m.dev, NULL));
		mx_close(&m);
		mx_verify(p, AT_LEN, 2);
		MX_CHECK_EQ(munmap(p, AT_LEN), 0);
		__atomic_store_n(&b->rounds[0], b->rounds[0] + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void space_comes_and_goes(struct mx *m)
{
	struct busy b = { .m = m };
	char *p = mx_map(AT_LEN);
	pthread_t t;
	pid_t pid;

	mx_fill(p, AT_LEN, 8);
	t = mx_thread(spaces, &b);
	while (__atomic_load_n(&b.rounds[0], __ATOMIC_ACQUIRE) < 5) {
		pid = fork();
		MX_CHECK(pid >= 0);
		if (!pid) {
			mx_verify(p, AT_LEN, 8);
			MX_CHECK_EQ(munmap(p, AT_LEN), 0);
			_exit(0);
		}
		mx_reap(pid);
	}
	__atomic_store_n(&b.stop, true, __ATOMIC_RELEASE);
	mx_join(t);
}

/* ---- the child of a bare clone() goes on at once, while it is still being filled ---- */

static void __attribute__((noreturn)) calling_child(struct scene *s)
{
	size_t q = s->len / 4;
	char *to = mx_map(q);
	pid_t in;

	/* given up, dropped, moved: each part of its own memory that its parent has on a device */
	MX_CHECK_EQ(munmap(s->still, q), 0);
	MX_CHECK_EQ(syscall(SYS_madvise, s->still + q, q, MADV_DONTNEED), 0);
	MX_CHECK(mremap(s->priv, q, q, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	MX_CHECK_EQ(mprotect(s->priv + q, q, PROT_READ), 0);
	in = bare_clone();
	MX_CHECK(in >= 0);
	mx_verify(s->still + q, q, MX_ZEROS);
	mx_verify(s->still + 2 * q, 2 * q, 1);
	mx_verify_copy(to, s->priv, q, 3);
	mx_verify(s->priv + q, 3 * q, 3);
	mx_verify(s->written, s->len, 1);
	if (in)
		mx_reap(in);
	_exit(0);
}

static void clone_calls(struct mx *m)
{
	struct scene s;
	pid_t pid;
	int i;

	scene_begin(&s, m, m->cell->b);
	for (i = 0; i < 5; i++) {
		pid = bare_clone();
		MX_CHECK(pid >= 0);
		if (!pid)
			calling_child(&s);
		mx_verify(s.priv, s.len, 3);
		mx_reap(pid);
		MX_OK(balun_migrate(m->space, s.priv, s.len, m->dev, NULL));
	}
	scene_stop(&s);
	mx_verify(s.priv, s.len, 3);
	scene_verify(&s);
}

/* ---- a mapping is cut in two by a call that nobody sees (as libc cuts a thread's heap) ---- */

static void cut_unseen(struct mx *m)
{
	char *p = mx_map(64 * PAGE), *q = mx_map(64 * PAGE);

	/* pages that come home, and pages that never were, on both sides of a cut */
	mx_fill(p, 64 * PAGE, 1);
	mx_move(m, p, 64 * PAGE, m->dev);
	MX_CHECK_EQ(syscall(SYS_mprotect, p + 25 * PAGE, 20 * PAGE, PROT_READ), 0);
	mx_verify(p, 64 * PAGE, 1);
	mx_fill(q, PAGE, 1);
	MX_OK(balun_migrate(m->space, q, 64 * PAGE, m->dev, NULL));
	MX_OK(balun_migrate(m->space, q, 64 * PAGE, NULL, NULL));
	MX_CHECK_EQ(syscall(SYS_madvise, q, 64 * PAGE, MADV_DONTNEED), 0);
	MX_CHECK_EQ(syscall(SYS_mprotect, q + 25 * PAGE, 20 * PAGE, PROT_NONE), 0);
	mx_verify(q, 25 * PAGE, MX_ZEROS);
	mx_verify(q + 45 * PAGE, 19 * PAGE, MX_ZEROS);
}

#define PAGE_OF(p) ((char *)((uintptr_t)(p) & ~(PAGE - 1)))

struct cancelled {
	struct mx *m;
	struct balun_device *dev;
	char *p;
	bool moved;
};

static void *cancelled_main(void *arg)
{
	struct cancelled *c = arg;

	MX_CHECK_EQ(pthread_cancel(pthread_self()), 0);
	mx_move(c->m, c->p, MIB, c->dev);
	MX_CHECK_EQ(munmap(c->p, MIB), 0);
	c->moved = true;
	pthread_testcancel();
	return NULL;
}

/*
 * A thread is to end, where it next waits; but not inside Balun, whose locks it holds: memory calls
 * are no place for that. The device's sleep would be one.
 */
static void cancelled_inside(struct mx *m)
{
	struct cancelled c = { .m = m, .p = mx_map(MIB) };
	pthread_t t;
	void *ret;

	MX_OK(balun_device_open(m->space, "inject(ram:mem=16M):op=copy,delay=1ms,nomove=1",
				&c.dev));
	mx_fill(c.p, MIB, 1);
	MX_CHECK_EQ(pthread_create(&t, NULL, cancelled_main, &c), 0);
	MX_CHECK_EQ(pthread_join(t, &ret), 0);
	MX_CHECK(c.moved && ret == PTHREAD_CANCELED);
	MX_OK(balun_device_close(c.dev));
}

/*
 * Whether memory belongs to a loaded object is asked of the loader, whose own tables are in the
 * program's heap: they are away when they are read for a mapping that is new, and what else there
 * is in their block must be told apart while they come home.
 */
static void loader_away(struct mx *m)
{
	char *fresh = mx_map(MIB), *near = malloc(64), *entry;

	MX_CHECK(near);
	MX_OK(balun_migrate(m->space, PAGE_OF(near), PAGE, m->dev, NULL));
	entry = dlopen("libanl.so.1", RTLD_NOW);
	if (!entry)
		mx_skip("no object to load: %s", dlerror());
	MX_CHECK(sbrk(16 * PAGE) != (void *)-1);
	mx_fill(fresh, MIB, 1);
	mx_move(m, PAGE_OF(entry), PAGE, m->dev);
	mx_move(m, fresh, MIB, m->dev);
	mx_verify(fresh, MIB, 1);
	MX_CHECK_EQ(dlclose(entry), 0);
}

const struct mx_cell cells_threads[] = {
	{ "threads/loader-away", loader_away, 0, 0, 0 },
	{ "threads/cancelled-inside", cancelled_inside, 0, 0, 0 },
	{ "threads/stack-away-at-exit", stack_away_at_exit, 0, 0, MX_KERNEL },
	{ "threads/stack-leaving-at-exit", stack_leaving_at_exit, 0, 0, MX_KERNEL },
	{ "threads/stack-away-at-start", stack_away_at_start, 0, 0, MX_KERNEL },
	{ "threads/come-and-go/pages-coming-home", threads_while_moving, 0, 0, 0 },
	{ "threads/come-and-go/ordinary-user", threads_while_moving, 0, 0, MX_USER },
	{ "threads/between-guards", between_guards, 0, 0, 0 },
	{ "threads/between-guards/ordinary-user", between_guards, 0, 0, MX_USER },
	{ "threads/mapping-cut-unseen", cut_unseen, 0, 0, 0 },
	{ "threads/atfork-handlers", atfork_handlers, 0, 0, MX_FORK | MX_NO_SPACE },
	{ "threads/fork-in-handler/pages-away", fork_in_handler, 0, AWAY, MX_FORK },
	{ "threads/fork-in-handler/pages-coming-home", fork_in_handler, 0, COMING_HOME, MX_FORK },
	{ "threads/_Fork-in-handler/pages-away", fork_in_handler, 1, AWAY,
	  MX_FORK | MX_FORK_EVENT },
	{ "threads/_Fork-in-handler/pages-coming-home", fork_in_handler, 1, COMING_HOME,
	  MX_FORK | MX_FORK_EVENT },
	{ "threads/fork-while-space-comes-and-goes", space_comes_and_goes, 0, 0,
	  MX_FORK | MX_NO_SPACE },
	{ "threads/clone-child-calls/pages-away", clone_calls, 0, AWAY, MX_FORK | MX_FORK_EVENT },
	{ "threads/clone-child-calls/pages-coming-home", clone_calls, 0, COMING_HOME,
	  MX_FORK | MX_FORK_EVENT },
	{ NULL, NULL, 0, 0, 0 },
};
