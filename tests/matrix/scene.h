/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What a parent's memory is doing while it makes a process (fork.c, threads.c). */
#ifndef BALUN_MATRIX_SCENE_H
#define BALUN_MATRIX_SCENE_H

#include "matrix.h"

enum state {
	AWAY,
	COMING_HOME,
	DEVICE_WRITING
};
enum way {
	WAY_FORK,
	WAY_CLONE
};

/**
 * struct scene - memory in a state
 * @still, @priv, @written: @len bytes each (fork.c)
 * @stop: its threads end
 * @touched, @sent: how often threads touched a page of @still, and sent it away
 * @begun, @done: the last generation of @written that the device began, and finished
 * @begun_before, @done_before: the same when scene_fork() began: the child's copy stays
 * @last: a pipe that tells the child of a bare clone() the last generation there is
 */
struct scene {
	struct mx *m;
	enum state state;
	size_t len;
	char *still, *priv, *written;
	pthread_t thread[3];
	unsigned int nthreads;
	bool stop;
	uint64_t touched, sent, begun, done, begun_before, done_before;
	int last[2];
};

void scene_begin(struct scene *s, struct mx *m, enum state state);
/* fork() or a bare clone() in the middle of it; 0 in the child */
pid_t scene_fork(struct scene *s, enum way way);
/* the parent goes on: it checks, and moves things */
void scene_parent(struct scene *s);
/* the threads end; tells the child */
void scene_stop(struct scene *s);
/* every byte, in the parent, after scene_stop() */
void scene_verify(struct scene *s);
/* every byte, in a child with memory of its own */
void scene_verify_child(struct scene *s, enum way way);

/* threads that touch, migrate, map, allocate and make threads */
struct busy {
	struct mx *m;
	bool stop;
	uint64_t rounds[3];
	pthread_t thread[3];
};
void busy_start(struct busy *b, struct mx *m);
void busy_stop(struct busy *b);

pid_t bare_clone(void); /* the system call alone: no handler of anybody runs */
void drop_ptrace(void); /* this process loses CAP_SYS_PTRACE */

#endif
