// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * env.h over libc and pthreads: locks, threads, time, the barrier. Memory is env_arena.c, text is
 * env_text.c.
 *
 * The barrier of env_membarrier(): membarrier(PRIVATE_EXPEDITED), an interrupt to the processors
 * that run threads of this process; without it membarrier(GLOBAL), which waits for every processor
 * of the machine to schedule; without the system call at all the caller visits every processor,
 * which makes each of them switch away from what it ran. (Not the trick with mprotect(): processors
 * that broadcast TLB flushes do not interrupt the others for it.)
 */
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "env/env_priv.h"

#define NS_PER_S    1000000000ULL
#define NAME_BYTES  16 /* the kernel's limit */
#define MAX_CPUS    1024
#define STACK_BYTES ((ENV_ASAN || ENV_TSAN ? 1024UL : 256UL) << 10)

/* initial-exec: no call, no allocation, and the service threads' copies are in their own stacks */
static __thread char reason[ENV_REASON_BYTES] __attribute__((tls_model("initial-exec")));

char *env_reason_buf(void)
{
	return reason;
}

void env_died(const char *text)
{
	env_log_write(text, strlen(text));
	abort();
}

/* ---- mutexes and conditions ---- */

/* something that differs between the threads that live now */
static void *thread_token(void)
{
	return reason;
}

/* The owner is written by the holder alone; others may look any time, and see someone else. */
static void set_owner(struct env_mutex *m, void *owner)
{
#ifndef NDEBUG
	env_store_relaxed(&m->owner, owner);
#else
	(void)m;
	(void)owner;
#endif
}

void env_mutex_init(struct env_mutex *m)
{
	pthread_mutex_init(&m->m, NULL);
	m->owner = NULL;
}

void env_mutex_destroy(struct env_mutex *m)
{
	env_assert(!pthread_mutex_destroy(&m->m));
}

void env_mutex_lock(struct env_mutex *m)
{
#ifndef NDEBUG
	env_assert(env_load_relaxed(&m->owner) != thread_token());
#endif
	pthread_mutex_lock(&m->m);
	set_owner(m, thread_token());
}

bool env_mutex_trylock(struct env_mutex *m)
{
	if (pthread_mutex_trylock(&m->m))
		return false;
	set_owner(m, thread_token());
	return true;
}

void env_mutex_unlock(struct env_mutex *m)
{
	env_assert_held(m);
	set_owner(m, NULL);
	pthread_mutex_unlock(&m->m);
}

void env_assert_held(struct env_mutex *m)
{
#ifndef NDEBUG
	env_assert(env_load_relaxed(&m->owner) == thread_token());
#else
	(void)m;
#endif
}

void env_cond_init(struct env_cond *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->c, &attr);
	pthread_condattr_destroy(&attr);
}

void env_cond_destroy(struct env_cond *c)
{
	pthread_cond_destroy(&c->c);
}

static struct timespec deadline(uint64_t timeout_ns)
{
	uint64_t now = env_now_ns(), end = now + ENV_MIN(timeout_ns, INT64_MAX - now);

	return (struct timespec){ .tv_sec = end / NS_PER_S, .tv_nsec = end % NS_PER_S };
}

bool env_cond_wait(struct env_cond *c, struct env_mutex *m, uint64_t timeout_ns)
{
	int err;

	env_assert_held(m);
	set_owner(m, NULL);
	if (timeout_ns == ENV_FOREVER) {
		err = pthread_cond_wait(&c->c, &m->m);
	} else {
		struct timespec ts = deadline(timeout_ns);

		err = pthread_cond_timedwait(&c->c, &m->m, &ts);
	}
	set_owner(m, thread_token());
	return err != ETIMEDOUT;
}

void env_cond_wake(struct env_cond *c)
{
	pthread_cond_broadcast(&c->c);
}

/* ---- threads ---- */

struct env_thread {
	pthread_t thread;
	void *stack;
	void (*fn)(void *);
	void *arg;
	char name[NAME_BYTES];
	sem_t begun;
};

static void *thread_main(void *p)
{
	struct env_thread *t = p;

	sem_post(&t->begun);
	pthread_setname_np(pthread_self(), t->name);
	t->fn(t->arg);
	return NULL;
}

/*
 * The new thread inherits a full mask: it never runs a handler of the program. What libc or a
 * sanitizer does when a thread begins is over on return: a fork that came meanwhile would leave the
 * child with a lock of theirs that nobody gives back.
 */
static int thread_start(struct env_thread *t)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int err;

	err = pthread_attr_init(&attr);
	if (err)
		return -err;
	err = pthread_attr_setstack(&attr, t->stack, STACK_BYTES);
	if (!err) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		err = pthread_create(&t->thread, &attr, thread_main, t);
		while (!err && sem_wait(&t->begun))
			; /* interrupted */
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	pthread_attr_destroy(&attr);
	return -err;
}

int env_thread_create(struct env_thread **ret_t, const char *name, void (*fn)(void *), void *arg)
{
	struct env_thread *t = env_alloc(sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	sem_init(&t->begun, 0, 0);
	t->stack = env_pages_alloc(STACK_BYTES);
	if (!t->stack) {
		err = -ENOMEM;
		goto err_free_thread;
	}
	err = thread_start(t);
	if (err)
		goto err_free_stack;
	*ret_t = t;
	return 0;

err_free_stack:
	env_pages_free(t->stack, STACK_BYTES);
err_free_thread:
	env_free(t);
	return err;
}

void env_thread_join(struct env_thread *t)
{
	if (!t)
		return;
	env_assert(!pthread_join(t->thread, NULL));
	env_pages_free(t->stack, STACK_BYTES);
	env_free(t);
}

void env_yield(void)
{
	sched_yield();
}

/* ---- time ---- */

uint64_t env_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

void env_sleep_ns(uint64_t ns)
{
	struct timespec ts = deadline(ns);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

/* ---- the barrier ---- */

static int membarrier_call(int cmd)
{
	return syscall(SYS_membarrier, cmd, 0, 0) ? -errno : 0;
}

/*
 * To come to run on a processor, the caller has to take it from the thread that runs there, and a
 * switch of threads is a full barrier. A thread that moves meanwhile is switched too.
 */
static void visit_every_cpu(void)
{
	cpu_set_t old, one;
	int cpu, err = sched_getaffinity(0, sizeof(old), &old);

	for (cpu = 0; cpu < MAX_CPUS; cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		/* refused where there is no such processor, or none for this process */
		sched_setaffinity(0, sizeof(one), &one);
	}
	if (!err)
		sched_setaffinity(0, sizeof(old), &old);
}

void env_membarrier(void)
{
	/* racy on purpose: to register twice does no harm */
	static int cmd = MEMBARRIER_CMD_PRIVATE_EXPEDITED;
	int c = env_load_relaxed(&cmd);

	env_barrier();
	if (c == MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
		if (!membarrier_call(c))
			return;
		/* -EPERM: this process has not registered yet */
		if (!membarrier_call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) &&
		    !membarrier_call(c))
			return;
		c = MEMBARRIER_CMD_GLOBAL;
		env_store_relaxed(&cmd, c);
	}
	if (membarrier_call(c))
		visit_every_cpu();
	env_barrier();
}
