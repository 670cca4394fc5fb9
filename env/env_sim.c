// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * env.h as a deterministic scheduler: see env_sim.h. One real thread; nothing here needs atomics.
 *
 * A mutex keeps its holder in sim[0] and the number of the run in sim[1]: a lock that an abandoned
 * run held is free in the next one.
 */
#include <stdlib.h>

#include "env/env_sim.h"
#include "env/env_sim_ctx.h"
#include "env/env_sim_trace.h"

#define NOW_NS		100 /* what reading the clock costs: a loop on it ends */
#define REPORT_BYTES	4096
#define PREEMPT_CHOICES 5

enum state {
	FREE,
	RUNNABLE,
	WAIT_MUTEX,
	WAIT_COND,
	WAIT_JOIN,
	WAIT_TIME,
	DONE,
};

struct env_thread {
	struct sim_ctx ctx;
	enum state state;
	void *waits_for;
	uint64_t deadline; /* or ENV_FOREVER */
	bool timed_out;
	unsigned int locks; /* mutexes it holds */
	void (*fn)(void *);
	void *arg;
	char name[16];
	char reason[ENV_REASON_BYTES];
};

static struct {
	struct env_thread thread[ENV_SIM_MAX_THREADS];
	unsigned int nr; /* slots in use lie below */
	struct env_thread *current;
	struct sim_ctx real;
	uintptr_t run; /* number of this run */
	bool running;
	int err;
	uint64_t now, points;

	/* choices */
	uint64_t rng;
	uint32_t preempt_mask; /* one of so many points + 1 may switch from a runnable thread */
	const uint32_t *replay;
	size_t replay_n;
	uint32_t *made;
	size_t made_n, made_room;

	char report[REPORT_BYTES];
	char reason[ENV_REASON_BYTES]; /* outside runs */
} sim;

/* ---- choices and trace ---- */

static uint64_t rng_next(void)
{
	uint64_t x = sim.rng += 0x9e3779b97f4a7c15ULL; /* splitmix64 */

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static void record(uint32_t choice)
{
	if (sim.made_n == sim.made_room) {
		sim.made_room = sim.made_room ? 2 * sim.made_room : 1024;
		sim.made = realloc(sim.made, sim.made_room * sizeof(*sim.made));
		env_assert(sim.made);
	}
	sim.made[sim.made_n++] = choice;
}

static uint32_t choose(uint32_t n, bool may_preempt)
{
	uint32_t c;

	if (n <= 1)
		return 0;
	if (sim.replay)
		c = sim.made_n < sim.replay_n ? sim.replay[sim.made_n] % n : 0;
	else if (!may_preempt && rng_next() & sim.preempt_mask)
		c = 0;
	else
		c = (uint32_t)(rng_next() >> 32) % n;
	record(c);
	return c;
}

static struct sim_event *event_add(enum sim_point point)
{
	return sim_trace_add(point, sim.now, sim.current ? sim.current - sim.thread : 0);
}

uint32_t env_sim_choose(uint32_t n)
{
	uint32_t c = choose(n, true);
	struct sim_event *ev;

	if (n > 1) {
		ev = event_add(POINT_CHOOSE);
		ev->choice = c;
		ev->of = n;
	}
	return c;
}

void env_sim_note(const char *what, uint64_t a, uint64_t b)
{
	struct sim_event *ev = event_add(POINT_NOTE);

	ev->what = what;
	ev->a = a;
	ev->b = b;
}

const char *sim_thread_name(unsigned int thread)
{
	return sim.thread[thread].name;
}

void env_sim_trace(FILE *out)
{
	sim_trace_print(out);
	fprintf(out, "after %llu points and %zu choices: %s", (unsigned long long)sim.points,
		sim.made_n, *sim.report ? sim.report : "no error\n");
}

/* ---- the end of a run ---- */

static void report_threads(size_t at)
{
	static const char *const name[] = {
		"free",	  "runnable", "waits for mutex", "waits for condition", "joins",
		"sleeps", "done"
	};
	unsigned int i;

	for (i = 0; i < sim.nr && at < sizeof(sim.report); i++) {
		struct env_thread *t = &sim.thread[i];

		if (t->state == FREE)
			continue;
		at += snprintf(sim.report + at, sizeof(sim.report) - at, "  %-15s %s %p\n", t->name,
			       t == sim.current ? "runs" : name[t->state], t->waits_for);
	}
}

static void stop(int err) __attribute__((noreturn));
static void stop(int err)
{
	struct env_thread *t = sim.current;

	sim.err = err;
	report_threads(strlen(sim.report));
	sim.current = NULL;
	sim_ctx_switch(&t->ctx, &sim.real, true);
	abort();
}

void env_sim_stop(int err, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(sim.report, sizeof(sim.report) - 1, fmt, ap);
	va_end(ap);
	n = ENV_MIN(ENV_MAX(n, 0), (int)sizeof(sim.report) - 2);
	if (n && sim.report[n - 1] != '\n')
		strcpy(sim.report + n, "\n");
	if (!sim.current) {
		env_log_write(sim.report, strlen(sim.report));
		abort();
	}
	stop(err);
}

void env_died(const char *text)
{
	env_sim_stop(-ENOTRECOVERABLE, "%s", text);
}

/* ---- scheduling ---- */

/* threads whose time has come are runnable; returns the first deadline that has not come */
static uint64_t expire(void)
{
	uint64_t first = ENV_FOREVER;
	unsigned int i;

	for (i = 0; i < sim.nr; i++) {
		struct env_thread *t = &sim.thread[i];

		if (t->state <= RUNNABLE || t->deadline == ENV_FOREVER)
			continue;
		if (t->deadline > sim.now) {
			first = ENV_MIN(first, t->deadline);
			continue;
		}
		t->deadline = ENV_FOREVER;
		t->timed_out = true;
		t->state = RUNNABLE;
	}
	return first;
}

/* runnable threads, the running one first (or last, if it yields), then round in order */
static unsigned int runnable(struct env_thread **list, bool yields)
{
	unsigned int self = sim.current - sim.thread, n = 0, i;

	if (!yields && sim.current->state == RUNNABLE)
		list[n++] = sim.current;
	for (i = 1; i < sim.nr; i++) {
		struct env_thread *t = &sim.thread[(self + i) % sim.nr];

		if (t->state == RUNNABLE)
			list[n++] = t;
	}
	if (yields && sim.current->state == RUNNABLE)
		list[n++] = sim.current;
	return n;
}

static void schedule(enum sim_point point, void *object)
{
	struct env_thread *list[ENV_SIM_MAX_THREADS], *self = sim.current, *next;
	bool yields = point == POINT_YIELD;
	struct sim_event *ev;
	uint64_t first;
	unsigned int n;

	sim.now += ENV_SIM_TICK_NS;
	if (++sim.points > ENV_SIM_MAX_POINTS)
		env_sim_stop(-ETIMEDOUT, "the run does not end\n");
	first = expire();
	n = runnable(list, yields);
	if (!n) {
		if (first == ENV_FOREVER)
			env_sim_stop(-EDEADLK, "deadlock: every thread waits\n");
		sim.now = first;
		expire();
		n = runnable(list, yields);
	}
	ev = event_add(point);
	ev->a = (uintptr_t)object;
	ev->of = n > 1 ? n : 0;
	ev->choice = choose(n, yields || self->state != RUNNABLE);
	next = list[ev->choice];
	ev->next = next - sim.thread;
	if (next == self)
		return;
	sim.current = next;
	sim_ctx_switch(&self->ctx, &next->ctx, self->state == DONE);
}

static void block(enum sim_point point, enum state state, void *object, uint64_t timeout_ns)
{
	struct env_thread *self = sim.current;

	self->state = state;
	self->waits_for = object;
	self->timed_out = false;
	self->deadline = timeout_ns < ENV_FOREVER - sim.now ? sim.now + timeout_ns : ENV_FOREVER;
	schedule(point, object);
	self->waits_for = NULL;
	self->deadline = ENV_FOREVER;
}

static void unblock(enum state state, void *object)
{
	unsigned int i;

	for (i = 0; i < sim.nr; i++)
		if (sim.thread[i].state == state && sim.thread[i].waits_for == object)
			sim.thread[i].state = RUNNABLE;
}

void env_yield(void)
{
	if (sim.current)
		schedule(POINT_YIELD, NULL);
}

/* ---- mutexes and conditions ---- */

/* who can hold a mutex outside runs */
#define OUTSIDE ((void *)&sim)

static void *self(void)
{
	return sim.current ? sim.current : OUTSIDE;
}

static void *holder(const struct env_mutex *m)
{
	return m->sim[1] == (void *)sim.run ? m->sim[0] : NULL;
}

static void set_holder(struct env_mutex *m, void *who)
{
	if (sim.current)
		sim.current->locks += who ? 1 : -1;
	m->sim[0] = who;
	m->sim[1] = (void *)sim.run;
	m->owner = who;
}

void env_mutex_init(struct env_mutex *m)
{
	m->sim[0] = m->sim[1] = NULL;
	m->owner = NULL;
}

void env_mutex_destroy(struct env_mutex *m)
{
	env_assert(!holder(m));
}

void env_mutex_lock(struct env_mutex *m)
{
	env_assert(holder(m) != self());
	if (sim.current)
		schedule(POINT_LOCK, m);
	while (holder(m)) {
		env_assert(sim.current);
		block(POINT_LOCK, WAIT_MUTEX, m, ENV_FOREVER);
	}
	set_holder(m, self());
}

bool env_mutex_trylock(struct env_mutex *m)
{
	if (sim.current)
		schedule(POINT_LOCK, m);
	if (holder(m))
		return false;
	set_holder(m, self());
	return true;
}

void env_mutex_unlock(struct env_mutex *m)
{
	env_assert_held(m);
	set_holder(m, NULL);
	if (!sim.current)
		return;
	unblock(WAIT_MUTEX, m);
	schedule(POINT_UNLOCK, m);
}

unsigned int env_sim_locks(void)
{
	return sim.current ? sim.current->locks : 0;
}

void env_assert_held(struct env_mutex *m)
{
	env_assert(holder(m) == self());
}

void env_cond_init(struct env_cond *c)
{
	c->sim[0] = c->sim[1] = NULL;
}

void env_cond_destroy(struct env_cond *c)
{
	unsigned int i;

	for (i = 0; i < sim.nr; i++)
		env_assert(sim.thread[i].state != WAIT_COND || sim.thread[i].waits_for != c);
}

bool env_cond_wait(struct env_cond *c, struct env_mutex *m, uint64_t timeout_ns)
{
	bool timed_out;

	env_assert_held(m);
	/* outside a run nobody can wake it: only the time can pass */
	if (!sim.current) {
		env_assert(timeout_ns != ENV_FOREVER);
		sim.now += timeout_ns;
		return false;
	}
	set_holder(m, NULL);
	unblock(WAIT_MUTEX, m);
	block(POINT_WAIT, WAIT_COND, c, timeout_ns);
	timed_out = sim.current->timed_out;
	while (holder(m))
		block(POINT_LOCK, WAIT_MUTEX, m, ENV_FOREVER);
	set_holder(m, self());
	return !timed_out;
}

void env_cond_wake(struct env_cond *c)
{
	if (!sim.current)
		return;
	unblock(WAIT_COND, c);
	schedule(POINT_WAKE, c);
}

/* ---- threads ---- */

static void thread_entry(void)
{
	struct env_thread *t = sim.current;

	sim_ctx_entered(&t->ctx, t == sim.thread ? &sim.real : NULL);
	t->fn(t->arg);
	if (t == sim.thread) {
		/* the first thread's end is the run's */
		unsigned int i;

		for (i = 1; i < sim.nr; i++)
			if (sim.thread[i].state != FREE)
				env_sim_stop(-EBUSY, "%s was not joined\n", sim.thread[i].name);
		sim.current = NULL;
		sim_ctx_switch(&t->ctx, &sim.real, true);
	}
	t->state = DONE;
	unblock(WAIT_JOIN, t);
	schedule(POINT_EXIT, t);
	abort();
}

static struct env_thread *thread_new(const char *name, void (*fn)(void *), void *arg)
{
	struct env_thread *t = NULL;
	unsigned int i;

	for (i = 0; i < ENV_SIM_MAX_THREADS && !t; i++)
		if (sim.thread[i].state == FREE)
			t = &sim.thread[i];
	if (!t || sim_ctx_prepare(&t->ctx, thread_entry))
		return NULL;
	t->state = RUNNABLE;
	t->waits_for = NULL;
	t->deadline = ENV_FOREVER;
	t->fn = fn;
	t->arg = arg;
	t->locks = 0;
	t->reason[0] = 0;
	snprintf(t->name, sizeof(t->name), "%s", name);
	sim.nr = ENV_MAX(sim.nr, (unsigned int)(t - sim.thread) + 1);
	return t;
}

int env_thread_create(struct env_thread **ret_t, const char *name, void (*fn)(void *), void *arg)
{
	struct env_thread *t;
	void *cookie;

	env_assert(sim.current);
	/* fails when env_alloc() of the real one would */
	cookie = env_alloc(1);
	if (!cookie)
		return -ENOMEM;
	env_free(cookie);
	t = thread_new(name, fn, arg);
	if (!t)
		return -EAGAIN;
	*ret_t = t;
	schedule(POINT_CREATE, t);
	return 0;
}

void env_thread_join(struct env_thread *t)
{
	if (!t)
		return;
	env_assert(sim.current && t != sim.current && t->state != FREE);
	schedule(POINT_JOIN, t);
	while (t->state != DONE)
		block(POINT_JOIN, WAIT_JOIN, t, ENV_FOREVER);
	t->state = FREE;
}

/* ---- time and the rest ---- */

uint64_t env_now_ns(void)
{
	sim.now += NOW_NS;
	return sim.now;
}

void env_sleep_ns(uint64_t ns)
{
	if (sim.current)
		block(POINT_SLEEP, WAIT_TIME, NULL, ns);
	else
		sim.now += ns;
}

void env_membarrier(void)
{
	env_yield();
}

unsigned int env_fork_gen(void)
{
	return 0;
}

char *env_reason_buf(void)
{
	return sim.current ? sim.current->reason : sim.reason;
}

uint64_t env_sim_points(void)
{
	return sim.points;
}

int env_sim_running(void)
{
	return sim.running;
}

/* ---- runs ---- */

static int run(env_sim_fn fn, void *arg)
{
	unsigned int i;

	env_assert(!sim.running);
	for (i = 0; i < sim.nr; i++)
		sim.thread[i].state = FREE;
	sim.nr = 0;
	sim.run++;
	sim.err = 0;
	sim.now = sim.points = 0;
	sim.made_n = 0;
	sim_trace_begin();
	sim.report[0] = 0;
	sim.current = thread_new("main", fn, arg);
	if (!sim.current)
		return -ENOMEM;
	env_sim_mem_begin();
	sim.running = true;
	sim_ctx_switch(&sim.real, &sim.current->ctx, false);
	sim.running = false;
	env_sim_mem_end(sim.err != 0);
	return sim.err;
}

int env_sim_run(uint64_t seed, env_sim_fn fn, void *arg)
{
	sim.rng = seed;
	sim.replay = NULL;
	/* some seeds switch at every point that they can, others seldom: bugs need either */
	sim.preempt_mask = (1u << rng_next() % PREEMPT_CHOICES) - 1;
	return run(fn, arg);
}

int env_sim_run_choices(const uint32_t *list, size_t n, env_sim_fn fn, void *arg)
{
	sim.replay = list;
	sim.replay_n = n;
	return run(fn, arg);
}

const uint32_t *env_sim_choices(size_t *ret_n)
{
	*ret_n = sim.made_n;
	return sim.made;
}

/* ---- nobody looks ---- */

void env_live_begin(struct env_live *l, void (*fill)(void *arg, struct balun_live *ret), void *arg)
{
	(void)l, (void)fill, (void)arg;
}

void env_live_end(struct env_live *l)
{
	(void)l;
}

void env_live_moved(uint64_t va, uint64_t bytes, uint64_t now_ns)
{
	(void)va, (void)bytes, (void)now_ns;
}
