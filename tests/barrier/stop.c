/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Stop points and the threads that meet them. One mutex for all of it: service threads wait in it
 * too, which is fine, for nothing here is ever away (it is data of a loaded object).
 */
#include "tests/barrier/barrier.h"

#include "env/env.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIMIT_NS (15000000000ULL * (KIT_TSAN || KIT_ASAN ? 4 : 1))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static enum {
	IDLE,
	ARMED,
	HIT
} state;
static const char *armed;

/* called by the code under test */
void env_stop(const char *point)
{
	if (__atomic_load_n(&state, __ATOMIC_ACQUIRE) != ARMED)
		return;
	pthread_mutex_lock(&lock);
	if (state == ARMED && !strcmp(point, armed)) {
		__atomic_store_n(&state, HIT, __ATOMIC_RELEASE);
		pthread_cond_broadcast(&changed);
		while (state == HIT)
			pthread_cond_wait(&changed, &lock);
	}
	pthread_mutex_unlock(&lock);
}

void stop_arm(const char *point)
{
	pthread_mutex_lock(&lock);
	CHECK(state == IDLE);
	armed = point;
	__atomic_store_n(&state, ARMED, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
}

bool stop_hit(struct worker *w)
{
	bool hit;

	pthread_mutex_lock(&lock);
	while (state == ARMED && !(w && w->done))
		pthread_cond_wait(&changed, &lock);
	hit = state == HIT;
	if (!hit)
		__atomic_store_n(&state, IDLE, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	return hit;
}

void stop_release(void)
{
	pthread_mutex_lock(&lock);
	__atomic_store_n(&state, IDLE, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void stop_again(const char *point)
{
	pthread_mutex_lock(&lock);
	armed = point;
	__atomic_store_n(&state, ARMED, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* ---- workers ---- */

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	pthread_mutex_lock(&lock);
	w->tid = syscall(SYS_gettid);
	pthread_cond_broadcast(&changed);
	while (!w->go)
		pthread_cond_wait(&changed, &lock);
	w->begun = true;
	pthread_mutex_unlock(&lock);
	w->fn(w->arg);
	pthread_mutex_lock(&lock);
	w->done = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

void worker_start(struct worker *w, void (*fn)(void *arg), void *arg)
{
	*w = (struct worker){ .fn = fn, .arg = arg };
	w->t = kit_thread(worker_main, w);
	pthread_mutex_lock(&lock);
	while (!w->tid)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

void worker_go(struct worker *w)
{
	pthread_mutex_lock(&lock);
	w->go = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void worker_join(struct worker *w)
{
	kit_join(w->t);
}

bool worker_done(struct worker *w)
{
	bool done;

	pthread_mutex_lock(&lock);
	done = w->done;
	pthread_mutex_unlock(&lock);
	return done;
}

/* the system call that the thread sleeps in, -1: it sleeps in none (a fault); -2: it runs, or has
 * yet to leave worker_main(): to sleep there is not to wait for what is tested */
static long sleeps_in(struct worker *w)
{
	char path[64], buf[16] = "";
	bool begun;
	int fd;

	pthread_mutex_lock(&lock);
	begun = w->begun;
	pthread_mutex_unlock(&lock);
	if (!begun)
		return -2;
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", w->tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -2;
	if (read(fd, buf, sizeof(buf) - 1) <= 0)
		buf[0] = 0;
	close(fd);
	if (buf[0] != '-' && (buf[0] < '0' || buf[0] > '9'))
		return -2;
	return strtol(buf, NULL, 10);
}

void worker_must_finish(struct worker *w, const char *who, const char *point)
{
	uint64_t limit = kit_now_ns() + LIMIT_NS;

	while (!worker_done(w)) {
		if (kit_now_ns() > limit)
			kit_fail(__FILE__, __LINE__, "%s hangs while a thread stands at %s", who,
				 point);
		sched_yield();
	}
}

void worker_must_wait(struct worker *w, long nr, const char *who, const char *point)
{
	uint64_t limit = kit_now_ns() + LIMIT_NS;
	long in;

	do {
		in = sleeps_in(w);
		if (worker_done(w))
			kit_fail(__FILE__, __LINE__, "%s does not wait for the thread at %s", who,
				 point);
		if (kit_now_ns() > limit)
			kit_fail(__FILE__, __LINE__, "%s runs for ever while a thread stands at %s",
				 who, point);
		sched_yield();
	} while (in == -2 || (nr >= 0 && in != nr));
}
