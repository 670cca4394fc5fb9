/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A parent's memory in a state, kept so by threads of its own until scene_stop(): touched and sent
 * away again, or written by the device; and what the child of that moment must find. Busy threads,
 * which map and move memory of their own and begin threads, are here too.
 *
 * No order is made by time: counters that only grow say that a thread was at work, before the
 * process is made and after it.
 */
#include "scene.h"

#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SCENE_LEN MIB
#define BURST	  128

static bool stopped(bool *stop)
{
	return __atomic_load_n(stop, __ATOMIC_ACQUIRE);
}

static uint64_t load(uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void store(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static void wait_for(uint64_t *p, uint64_t least)
{
	while (load(p) < least)
		sched_yield();
}

/* ---- threads of a scene ---- */

/* touches pages in an order that no read-ahead follows; what it reads must be right */
static void *toucher(void *arg)
{
	struct scene *s = arg;
	size_t pages = s->len / PAGE, i;

	for (i = 0; !stopped(&s->stop); i++) {
		mx_verify(s->still + i * 97 % pages * PAGE, PAGE, 1);
		store(&s->touched, load(&s->touched) + 1);
	}
	return NULL;
}

static void *sender(void *arg)
{
	struct scene *s = arg;
	size_t at;

	for (at = 0; !stopped(&s->stop); at = (at + 64 * PAGE) % s->len) {
		MX_OK(balun_migrate(s->m->space, s->still + at, 64 * PAGE, s->m->dev, NULL));
		store(&s->sent, load(&s->sent) + 1);
	}
	return NULL;
}

struct pass {
	uint64_t va, len, gen;
};

/* one worker, in order of address: at any moment a first part has the new generation */
static void pass_fn(struct soft_worker *w, uint64_t arg)
{
	uint64_t buf[BURST / 8], va, i;
	struct pass p;

	soft_read(w, arg, &p, sizeof(p));
	for (va = p.va; va < p.va + p.len; va += BURST) {
		for (i = 0; i < BURST / 8; i++)
			buf[i] = mx_word(va + i * 8, p.gen);
		soft_write(w, va, buf, sizeof(buf));
	}
}

static void *writer(void *arg)
{
	struct scene *s = arg;
	struct pass p = { (uintptr_t)s->written, s->len, 1 };
	uint64_t fence;

	while (!stopped(&s->stop)) {
		p.gen++;
		store(&s->begun, p.gen);
		MX_OK(balun_soft_launch(s->m->dev, pass_fn, (uintptr_t)&p, 1, &fence));
		MX_OK(balun_soft_wait(s->m->dev, fence, NULL));
		store(&s->done, p.gen);
	}
	return NULL;
}

/* ---- a scene ---- */

void scene_begin(struct scene *s, struct mx *m, enum state state)
{
	*s = (struct scene){ .m = m, .state = state, .len = SCENE_LEN, .begun = 1, .done = 1 };
	if (state == DEVICE_WRITING && !mx_has_functions(m))
		mx_skip("the device runs no functions");
	MX_CHECK_EQ(pipe(s->last), 0);
	s->still = mx_away(m, s->len, 1);
	s->priv = mx_away(m, s->len, 3);
	s->written = mx_away(m, s->len, 1);
	if (state == COMING_HOME) {
		s->thread[s->nthreads++] = mx_thread(sender, s);
		s->thread[s->nthreads++] = mx_thread(toucher, s);
		wait_for(&s->touched, 3);
		wait_for(&s->sent, 3);
	} else if (state == DEVICE_WRITING) {
		s->thread[s->nthreads++] = mx_thread(writer, s);
		wait_for(&s->done, 2);
		wait_for(&s->begun, load(&s->done) + 1);
	}
}

pid_t bare_clone(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

pid_t scene_fork(struct scene *s, enum way way)
{
	pid_t pid;

	s->begun_before = load(&s->begun);
	s->done_before = load(&s->done);
	pid = way == WAY_FORK ? fork() : bare_clone();
	MX_CHECK(pid >= 0);
	return pid;
}

void scene_parent(struct scene *s)
{
	if (s->state == AWAY) {
		mx_verify(s->still, s->len / 2, 1);
		/* what a child shares cannot move yet: that is no error */
		MX_OK(balun_migrate(s->m->space, s->still, s->len, s->m->dev, NULL));
	} else if (s->state == COMING_HOME) {
		wait_for(&s->touched, load(&s->touched) + 10);
		wait_for(&s->sent, load(&s->sent) + 3);
	} else {
		wait_for(&s->done, load(&s->done) + 2);
	}
}

void scene_stop(struct scene *s)
{
	uint64_t done;

	if (stopped(&s->stop))
		return;
	__atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
	while (s->nthreads)
		mx_join(s->thread[--s->nthreads]);
	done = load(&s->done);
	MX_CHECK_EQ(write(s->last[1], &done, sizeof(done)), sizeof(done));
}

void scene_verify(struct scene *s)
{
	mx_verify(s->still, s->len, 1);
	mx_verify(s->written, s->len, s->done);
}

/* all of it as of one moment: a first part of generation g, the rest of g - 1 */
static void verify_moment(struct scene *s)
{
	const uint64_t *w = (const uint64_t *)s->written;
	uint64_t g = s->done_before;
	size_t n = s->len / sizeof(*w), i;

	while (g <= s->done_before + 100000 && w[0] != mx_word((uintptr_t)w, g))
		g++;
	if (w[0] != mx_word((uintptr_t)w, g))
		mx_fail(__FILE__, __LINE__, "word 0 is of no generation from %llu on",
			(unsigned long long)s->done_before);
	for (i = 0; i < n && w[i] == mx_word((uintptr_t)&w[i], g); i++)
		;
	if (i * sizeof(*w) % BURST)
		mx_fail(__FILE__, __LINE__, "a burst was torn at word %zu", i);
	if (i < n)
		mx_verify(s->written + i * sizeof(*w), s->len - i * sizeof(*w), g - 1);
}

/*
 * After a bare clone() the device goes on writing while the child is being filled: every word is
 * one that was there at the clone or later.
 */
static void verify_later(struct scene *s)
{
	const uint64_t *w = (const uint64_t *)s->written;
	uint64_t last, g;
	size_t i;

	close(s->last[1]);
	MX_CHECK_EQ(read(s->last[0], &last, sizeof(last)), sizeof(last));
	for (i = 0; i < s->len / sizeof(*w); i++) {
		for (g = s->done_before; g <= last && w[i] != mx_word((uintptr_t)&w[i], g); g++)
			;
		if (g > last)
			mx_fail(__FILE__, __LINE__, "word %zu is of no generation %llu to %llu", i,
				(unsigned long long)s->done_before, (unsigned long long)last);
	}
}

void scene_verify_child(struct scene *s, enum way way)
{
	mx_verify(s->still, s->len, 1);
	mx_verify(s->priv, s->len, 3);
	if (s->state != DEVICE_WRITING)
		mx_verify(s->written, s->len, 1);
	else if (way == WAY_FORK)
		verify_moment(s);
	else
		verify_later(s);
}

/* ---- busy threads ---- */

static void *busy_moves(void *arg)
{
	struct busy *b = arg;
	const size_t len = 64 * PAGE;
	char *p = mx_map(len);
	uint64_t gen;

	for (gen = 1; !stopped(&b->stop); gen++) {
		mx_fill(p, len, gen);
		MX_OK(balun_migrate(b->m->space, p, len, b->m->dev, NULL));
		mx_verify(p, len / 2, gen);
		MX_OK(balun_migrate(b->m->space, p, len, NULL, NULL));
		mx_verify(p, len, gen);
		store(&b->rounds[0], gen);
	}
	return NULL;
}

static void *busy_maps(void *arg)
{
	struct busy *b = arg;
	uint64_t gen;

	for (gen = 1; !stopped(&b->stop); gen++) {
		size_t len = (16 + gen % 64) * PAGE;
		char *p = mx_map(len), *q = malloc(len);

		MX_CHECK(q);
		memset(q, gen, len);
		mx_fill(p, len, gen);
		MX_OK(balun_migrate(b->m->space, p, len, b->m->dev, NULL));
		MX_OK(balun_migrate(b->m->space, q, len, b->m->dev, NULL));
		MX_CHECK(!memcmp(q, q + 1, len - 1) && q[0] == (char)gen);
		mx_verify(p, len / 2 & -PAGE, gen);
		free(q);
		MX_CHECK_EQ(munmap(p, len), 0);
		store(&b->rounds[1], gen);
	}
	return NULL;
}

static void *short_lived(void *arg)
{
	return arg;
}

static void *busy_threads(void *arg)
{
	struct busy *b = arg;

	while (!stopped(&b->stop)) {
		mx_join(mx_thread(short_lived, NULL));
		store(&b->rounds[2], b->rounds[2] + 1);
	}
	return NULL;
}

void busy_start(struct busy *b, struct mx *m)
{
	static void *(*const fn[])(void *) = { busy_moves, busy_maps, busy_threads };
	unsigned int i;

	*b = (struct busy){ .m = m };
	for (i = 0; i < 3; i++)
		b->thread[i] = mx_thread(fn[i], b);
	for (i = 0; i < 3; i++)
		wait_for(&b->rounds[i], 1);
}

void busy_stop(struct busy *b)
{
	unsigned int i;

	for (i = 0; i < 3; i++)
		wait_for(&b->rounds[i], load(&b->rounds[i]) + 1);
	__atomic_store_n(&b->stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < 3; i++)
		mx_join(b->thread[i]);
}

void drop_ptrace(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	MX_CHECK_EQ(syscall(SYS_capget, &h, d), 0);
	d[0].effective &= ~(1u << CAP_SYS_PTRACE);
	d[0].permitted &= ~(1u << CAP_SYS_PTRACE);
	MX_CHECK_EQ(syscall(SYS_capset, &h, d), 0);
}
