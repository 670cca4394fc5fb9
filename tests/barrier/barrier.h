/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: barrier.h - races stopped at their deciding moment
 *
 * The library's sources, compiled with BALUN_STOP_POINTS, call env_stop() at named places. A cell
 * arms one place, lets a thread (the mover) run into it, makes a memory call from another thread
 * (the caller), sees whether the call must wait for the stopped one, lets go, and checks every
 * byte, who may be touched, and device memory. Nothing is ordered by time: clocks only turn a hang
 * into a failure.
 */
#ifndef BALUN_BARRIER_H
#define BALUN_BARRIER_H

#include "tests/conformance/kit.h"

#include <signal.h>
#include <sys/types.h>

/* ---- stop.c: places to stop at, and threads that one can watch ---- */

struct worker {
	pthread_t t;
	void (*fn)(void *arg);
	void *arg;
	pid_t tid;
	bool go, begun, done;
};
void worker_start(struct worker *w, void (*fn)(void *arg), void *arg); /* waits for worker_go() */
void worker_go(struct worker *w);
void worker_join(struct worker *w);
/* returns when it is done */
void worker_must_finish(struct worker *w, const char *who, const char *point);
/* returns when it sleeps in the kernel (in system call @nr; -1: in any, or in a fault); it must not
 * come to its end */
void worker_must_wait(struct worker *w, long nr, const char *who, const char *point);
bool worker_done(struct worker *w);

/* one place at a time; the next thread that comes there stops */
void stop_arm(const char *point);
/* waits for it; false: @w (NULL: whoever it is, it will come) came to its end and nobody stopped */
bool stop_hit(struct worker *w);
void stop_release(void);
/* lets go and arms another place in one */
void stop_again(const char *point);

/* ---- calls.c: memory calls ---- */

#define PREFIX	8
#define MID	16
#define SUFFIX	8
#define MID_LEN (MID * PAGE)

/* of a block of glibc's heap: bytes before it, and the bit that says that it is a mapping */
#define BLOCK_HEAD   (2 * sizeof(size_t))
#define BLOCK_MAPPED ((size_t)2)

/* [va, mid) stays, [mid, mid + MID_LEN) is what the call is made on, [after, end) stays */
struct area {
	uint64_t va, mid, after, end, to;
	bool raw; /* past the hooks */
	bool brk;
	uint64_t old_brk;
};

enum effect {
	KEEP,	/* as it was */
	ZERO,	/* reads as zeros */
	GONE,	/* not mapped */
	FRESH,	/* new memory: half of it written since by the caller, half zeros */
	MOVED,	/* is at a->to now */
	LEFT,	/* the same, and what it left behind reads as zeros */
	GROWN,	/* at a->to, and twice as long: zeros */
	HERE,	/* where it was, and zeros behind it */
	SHRUNK, /* half of it */
	LAZY,	/* each page as it was, or zeros */
	READONLY,
	NOACCESS,
	LOCKED,
	GUARDED, /* not to be touched, and zeros when that is over */
	SHARED,	 /* shared memory, the rest as FRESH */
};

#define CALL_EVENT  1u /* the kernel tells the reader, and the call waits for that */
#define CALL_FAULT  2u /* waits for pages that are away or in transit */
#define CALL_HOOK   4u /* libbalun sees it before it happens */
#define CALL_DIRECT 8u /* ... but this kind goes past the hooks */
#define CALL_BRK    16u
#define CALL_LAST   32u /* made on the end of the mapping */
#define CALL_QUIET  64u /* raw, or without a hook, nobody is told: found when pages come home */

struct call {
	const char *name;
	unsigned int flags;
	enum effect effect;
	void (*fn)(struct area *a);
};
extern const struct call calls[];
/* is this one that devices are not told of? */
bool call_is_quiet(const struct call *c, bool raw);
/* skips where the kernel has no such call */
void call_need(struct kit *k, const struct call *c);

#define SEED	   77
#define FRESH_SEED 78

void area_make(struct kit *k, const struct call *c, struct area *a);
void area_check(struct kit *k, const struct call *c, struct area *a, bool device_first);
void area_drop(struct kit *k, const struct call *c, struct area *a);

/* ---- cells ---- */

/* ways for pages to move: MOVE into the device's own host memory, MOVE through frames, copies, and
 * onto a coherent device, where they stay mapped */
#define WAY_MOVE     1u
#define WAY_FRAME    2u
#define WAY_COPY     4u
#define WAY_COHERENT 8u
#define WAY_ALL	     15u

struct cell {
	char name[72];
	void (*fn)(struct kit *k, const struct cell *c);
	unsigned int ways;
	const struct call *call;
	const char *point;
	unsigned int mover;
	bool raw;
	bool alone; /* in a process in which nothing has moved before */
};
/* a new cell of the list */
struct cell *cell_add(void (*fn)(struct kit *k, const struct cell *c), unsigned int ways,
		      const char *fmt, ...) __attribute__((format(printf, 3, 4)));

extern unsigned int way;    /* of this process */
extern const char *way_dev; /* and its device */

void matrix_cells(void);
void reader_cells(void);
void huge_cells(void);
void thread_cells(void);
void evict_cells(void);
void ahead_cells(void);
void odd_cells(void);

#endif
