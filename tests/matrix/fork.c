/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Ways to make a process, times what its parent's memory is doing at that moment. The child and the
 * parent check every byte; threads.c has what is about threads and handlers.
 *
 * Memory of a scene:
 *   still    generation 1; nobody writes it. Away, or going to and fro under the touches of threads
 *   priv     generation 3, away; the child checks it and writes generation 4
 *   written  by the device, pass after pass, in order of address: a generation each
 */
#include "scene.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- programs: a long argument that is in away memory tells whether its bytes came along ---- */

#define ARG_LEN (96UL << 10)

static char letter(size_t i)
{
	return 'a' + mx_word(i * 8, 7) % 26;
}

int mx_exec_main(int argc, char **argv)
{
	size_t i;

	if (argc != 1 || strlen(argv[0]) != ARG_LEN)
		return 3;
	for (i = 0; i < ARG_LEN; i++)
		if (argv[0][i] != letter(i))
			return 4;
	return 0;
}

/* an argument vector of this program, strings and all, in memory that is away */
static char **away_argv(struct mx *m)
{
	size_t len = ARG_LEN + 2 * PAGE, i;
	char *mem = mx_map(len), *text = mem + 2 * PAGE - 1, **argv = (char **)mem;

	for (i = 0; i < ARG_LEN; i++)
		text[i] = letter(i);
	argv[0] = strcpy(mem + 256, "matrix");
	argv[1] = strcpy(mem + 512, "--exec");
	argv[2] = text;
	mx_move(m, mem, len, m->dev);
	return argv;
}

/* ---- a child by each way ---- */

/* what a child with memory of its own does */
static void __attribute__((noreturn)) child(struct scene *s, enum way way)
{
	scene_verify_child(s, way);
	mx_fill(s->priv, s->len, 4);
	mx_verify(s->priv, s->len, 4);
	mx_verify(s->still, s->len, 1);
	_exit(0);
}

static void by_fork(struct scene *s)
{
	pid_t pid = scene_fork(s, WAY_FORK);

	if (!pid)
		child(s, WAY_FORK);
	scene_parent(s);
	mx_reap(pid);
	mx_verify(s->priv, s->len, 3);
}

static void by_clone(struct scene *s)
{
	pid_t pid = scene_fork(s, WAY_CLONE);

	if (!pid)
		child(s, WAY_CLONE);
	scene_parent(s);
	scene_stop(s); /* the child waits for the last generation */
	mx_reap(pid);
	mx_verify(s->priv, s->len, 3);
}

/* shares the memory; its parent's thread waits */
static void by_vfork(struct scene *s)
{
	pid_t pid = vfork();

	MX_CHECK(pid >= 0);
	if (!pid) {
		mx_verify(s->still, s->len, 1);
		mx_verify(s->priv, s->len, 3);
		mx_fill(s->priv, s->len, 4);
		_exit(0);
	}
	mx_reap(pid);
	mx_verify(s->priv, s->len, 4);
}

static void by_spawn(struct scene *s)
{
	char **argv = away_argv(s->m);
	pid_t pid;
	int err = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ);

	MX_CHECK_EQ(err, 0);
	mx_reap(pid);
	mx_verify(s->priv, s->len, 3);
}

/* the child is a parent at once, and its child too */
static void by_fork_of_fork(struct scene *s)
{
	pid_t pid = scene_fork(s, WAY_FORK), in;

	if (!pid) {
		in = fork();
		MX_CHECK(in >= 0);
		if (!in)
			child(s, WAY_FORK);
		scene_verify_child(s, WAY_FORK);
		mx_reap(in);
		mx_verify(s->priv, s->len, 3);
		_exit(0);
	}
	scene_parent(s);
	mx_reap(pid);
	mx_verify(s->priv, s->len, 3);
}

static void by_fork_with_threads(struct scene *s)
{
	struct busy b;

	busy_start(&b, s->m);
	by_fork(s);
	busy_stop(&b);
}

static void cell_ways(struct mx *m)
{
	static void (*const by[])(struct scene * s) = {
		by_fork, by_vfork, by_spawn, by_clone, by_fork_with_threads, by_fork_of_fork,
	};
	struct scene s;

	scene_begin(&s, m, m->cell->b);
	by[m->cell->a](&s);
	scene_stop(&s);
	scene_verify(&s);
}

/* ---- exec, from the thread that set the scene; the others end in it ---- */

static void cell_exec(struct mx *m)
{
	pid_t pid = fork();
	struct scene s;

	MX_CHECK(pid >= 0);
	if (!pid) {
		mx_open(m);
		scene_begin(&s, m, m->cell->b);
		execv("/proc/self/exe", away_argv(m));
		MX_CHECK(!"execv");
	}
	mx_reap(pid);
}

/* ---- the parent dies first ---- */

/* waits for the end of every process that holds the other end of the pipe */
static void wait_for_eof(const int fd[2])
{
	char c;

	close(fd[1]);
	MX_CHECK_EQ(read(fd[0], &c, 1), 0);
}

static void __attribute__((noreturn)) dying_parent(struct mx *m, const int fd[2])
{
	struct scene s;
	pid_t pid;

	mx_open(m);
	scene_begin(&s, m, m->cell->b);
	pid = scene_fork(&s, m->cell->a);
	if (!pid) {
		wait_for_eof(fd);
		if (m->cell->a == WAY_FORK)
			scene_verify_child(&s, WAY_FORK);
		mx_verify(s.still, s.len, 1);
		mx_verify(s.priv, s.len, 3);
		_exit(0);
	}
	/* no handlers ran: what the child has to get it has when a fence has passed */
	if (m->cell->a == WAY_CLONE)
		MX_OK(balun_fence(m->space));
	kill(getpid(), SIGKILL);
	_exit(1);
}

static void cell_parent_dies(struct mx *m)
{
	int fd[2], status;
	pid_t pid;

	MX_CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	MX_CHECK_EQ(pipe2(fd, O_CLOEXEC), 0);
	pid = fork();
	MX_CHECK(pid >= 0);
	if (!pid)
		dying_parent(m, fd);
	close(fd[0]);
	close(fd[1]);
	MX_CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		_exit(0); /* it skipped */
	MX_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	mx_reap(-1);
}

/* ---- the child mirrors itself ---- */

/* a space and a device of this process's own, and back */
static void mirror(struct mx *parent, struct scene *s, uint64_t gen)
{
	struct mx m = { .cell = parent->cell, .driver = parent->driver };

	mx_open(&m);
	mx_verify(s->priv, s->len, gen);
	/* what it shares with the parent cannot move: writing makes it its own */
	mx_fill(s->priv, s->len, ++gen);
	mx_move(&m, s->priv, s->len, m.dev);
	mx_verify(s->priv, s->len, gen);
	mx_fill(s->priv, s->len, gen + 1);
	mx_move(&m, s->priv, s->len, m.dev);
	if (mx_has_functions(&m))
		mx_device_fill(&m, s->priv, s->len, ++gen + 1);
	mx_verify(s->priv, s->len / 2, gen + 1);
	mx_close(&m);
	mx_verify(s->priv, s->len, gen + 1);
}

static void cell_mirrors(struct mx *m)
{
	struct scene s;
	int fd[2];
	pid_t pid;
	char c;

	MX_CHECK_EQ(pipe(fd), 0);
	scene_begin(&s, m, m->cell->b);
	pid = scene_fork(&s, m->cell->a);
	if (!pid) {
		/* after a bare clone() the parent has to let go of the child's memory first */
		if (m->cell->a == WAY_CLONE)
			MX_CHECK_EQ(read(fd[0], &c, 1), 1);
		mirror(m, &s, 3);
		mx_verify(s.still, s.len, 1);
		_exit(0);
	}
	MX_OK(balun_fence(m->space));
	MX_CHECK_EQ(write(fd[1], "g", 1), 1);
	scene_parent(&s);
	scene_stop(&s);
	mx_reap(pid);
	mx_verify(s.priv, s.len, 3);
	scene_verify(&s);
}

/* each generation sets the scene anew, in a space of its own, and forks in it */
static void descend(struct mx *parent, int depth)
{
	struct mx m = { .cell = parent->cell, .driver = parent->driver };
	struct scene s;
	pid_t pid;

	if (!depth)
		return;
	mx_open(&m);
	scene_begin(&s, &m, m.cell->b);
	pid = scene_fork(&s, WAY_FORK);
	if (!pid) {
		scene_verify_child(&s, WAY_FORK);
		descend(&m, depth - 1);
		mx_verify(s.priv, s.len, 3);
		mx_verify(s.still, s.len, 1);
		_exit(0);
	}
	scene_parent(&s);
	mx_reap(pid);
	scene_stop(&s);
	mx_verify(s.priv, s.len, 3);
	scene_verify(&s);
	mx_close(&m);
}

static void cell_generations(struct mx *m)
{
	descend(m, 2);
}

/* ---- without CAP_SYS_PTRACE there is no event of a fork ---- */

static void cell_no_event(struct mx *m)
{
	struct scene s;

	drop_ptrace();
	mx_open(m);
	scene_begin(&s, m, m->cell->b);
	by_fork(&s);
	scene_stop(&s);
	scene_verify(&s);
}

#define STATES(name, fn, a, flags)                                                                 \
	{ name "/pages-away", fn, a, AWAY, flags },                                                \
		{ name "/pages-coming-home", fn, a, COMING_HOME, flags },                          \
	{                                                                                          \
		name "/device-writing", fn, a, DEVICE_WRITING, (flags) | MX_SOFT                   \
	}
/* the space is made later: scene_begin() says whether the device can */
#define STATES_LATE(name, fn, a, flags)                                                            \
	{ name "/pages-away", fn, a, AWAY, flags },                                                \
		{ name "/pages-coming-home", fn, a, COMING_HOME, flags },                          \
	{                                                                                          \
		name "/device-writing", fn, a, DEVICE_WRITING, flags                               \
	}

const struct mx_cell cells_fork[] = {
	STATES("fork/fork", cell_ways, 0, MX_FORK),
	STATES("fork/vfork", cell_ways, 1, MX_FORK),
	STATES("fork/posix_spawn", cell_ways, 2, MX_FORK | MX_KERNEL),
	STATES("fork/clone", cell_ways, 3, MX_FORK | MX_FORK_EVENT),
	STATES("fork/fork-with-threads", cell_ways, 4, MX_FORK),
	STATES("fork/ordinary-user", cell_ways, 4, MX_FORK | MX_USER),
	STATES("fork/fork-of-fork", cell_ways, 5, MX_FORK),
	STATES_LATE("fork/exec", cell_exec, 0, MX_FORK | MX_NO_SPACE | MX_KERNEL),
	STATES_LATE("fork/parent-dies", cell_parent_dies, WAY_FORK, MX_FORK | MX_NO_SPACE),
	STATES_LATE("fork/parent-dies-after-clone", cell_parent_dies, WAY_CLONE,
		    MX_FORK | MX_NO_SPACE | MX_FORK_EVENT),
	STATES("fork/child-mirrors", cell_mirrors, WAY_FORK, MX_FORK),
	STATES("fork/child-of-clone-mirrors", cell_mirrors, WAY_CLONE, MX_FORK | MX_FORK_EVENT),
	STATES_LATE("fork/grandchildren", cell_generations, 0, MX_FORK | MX_NO_SPACE),
	STATES_LATE("fork/no-event-of-fork", cell_no_event, 0, MX_FORK | MX_NO_SPACE),
	{ NULL, NULL, 0, 0, 0 },
};
