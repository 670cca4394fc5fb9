// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The driver nbd: how its helper process begins, so that the program never meets it, and how each
 * of the two notices that the other has ended.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "drivers/nbd.h"

#define NBD_STACK (64UL << 10)

/*
 * A thread of its own, because a robust mutex belongs to a thread: when this one ends the helper
 * does, and the other way round.
 */
static void nbd_watch(void *arg)
{
	struct nbd *n = arg;
	bool go, ready;

	pthread_mutex_lock(&n->shared->program);
	env_mutex_lock(&n->lock);
	n->watching = NBD_WATCH_OWNS;
	env_cond_wake(&n->changed);
	while (n->watching == NBD_WATCH_OWNS)
		env_cond_wait(&n->changed, &n->lock, ENV_FOREVER);
	go = n->watching == NBD_WATCH_GO;
	env_mutex_unlock(&n->lock);
	if (go) {
		pthread_mutex_lock(&n->shared->helper); /* it has died; else it never lets go */
		ready = env_load(&n->shared->state) == NBD_READY && !env_load(&n->shared->stop);
		nbd_lose(n, ready ? "the server or the helper is gone" : NULL);
		nbd_wake(&n->shared->state);
		pthread_mutex_unlock(&n->shared->helper);
	}
	pthread_mutex_unlock(&n->shared->program);
}

static void nbd_watch_set(struct nbd *n, int watching)
{
	env_mutex_lock(&n->lock);
	n->watching = watching;
	env_cond_wake(&n->changed);
	env_mutex_unlock(&n->lock);
}

static int nbd_watch_begin(struct nbd *n)
{
	int err = env_thread_create(&n->watch, "balun-nbd", nbd_watch, n);

	if (err)
		return err;
	env_mutex_lock(&n->lock);
	while (n->watching == NBD_WATCH_NOT)
		env_cond_wait(&n->changed, &n->lock, ENV_FOREVER);
	env_mutex_unlock(&n->lock);
	return 0;
}

/* what the two processes on the way to the helper know; they share the program's memory */
struct nbd_start {
	char path[PATH_MAX];
	char *argv[2], *env[2];
	char *stack; /* of the first; the second's is above */
	int shared, begun[2];
	int err;
};

/* the second: becomes the helper */
static int nbd_start_helper(void *arg)
{
	struct nbd_start *st = arg;
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;
	int i, shared, begun;

	/* no handler of the program's runs here: all signals are blocked until there is none */
	for (i = 1; i < NSIG; i++)
		sigaction(i, &dfl, NULL);
	setsid();
	/* above the ones that they shall be */
	shared = fcntl(st->shared, F_DUPFD, NBD_FD_BEGUN + 1);
	begun = fcntl(st->begun[1], F_DUPFD, NBD_FD_BEGUN + 1);
	dup2(shared, NBD_FD_SHARED);
	dup2(begun, NBD_FD_BEGUN);
	i = open("/dev/null", O_RDWR);
	dup2(i, 0);
	dup2(i, 1);
	dup2(i, 2);
	if (syscall(SYS_close_range, NBD_FD_BEGUN + 1, ~0U, 0))
		for (i = NBD_FD_BEGUN + 1; i < sysconf(_SC_OPEN_MAX); i++)
			close(i);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(st->path, st->argv, st->env);
	st->err = -errno;
	_exit(127);
}

/*
 * The first: makes the second and ends, so that the helper is a child of nobody that is left. It
 * waits until the helper says that it owns its mutex; if it dies before, the pipe ends.
 */
static int nbd_start_between(void *arg)
{
	const int flags = CLONE_VM | CLONE_VFORK;
	struct nbd_start *st = arg;
	char byte;

	if (pipe2(st->begun, O_CLOEXEC)) {
		st->err = -errno;
		_exit(1);
	}
	if (clone(nbd_start_helper, st->stack + 2 * NBD_STACK, flags, st) < 0)
		st->err = -errno;
	close(st->begun[1]);
	if (!st->err && read(st->begun[0], &byte, 1) != 1)
		st->err = -ECHILD;
	_exit(0);
}

/*
 * Neither is a fork: they have the program's memory, as after vfork(), whatever is away comes when
 * they touch it, and no fork handler runs. They end without a signal, and wait() sees only children
 * that end with SIGCHLD, unless it is asked for the others. (The helper itself would be one that
 * does, for it has called exec.) Their descriptors are their own.
 */
static int nbd_fork(struct nbd_start *st)
{
	sigset_t all, old;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = clone(nbd_start_between, st->stack + NBD_STACK, CLONE_VM | CLONE_VFORK, st);
	if (pid < 0)
		st->err = -errno;
	else
		while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return st->err;
}

static bool nbd_path(struct nbd_start *st, const char *dir, const char *below)
{
	int len = snprintf(st->path, sizeof(st->path), "%s%sbalun-nbd", dir, below);

	return len < (int)sizeof(st->path) && !access(st->path, X_OK);
}

/* beside the library: where it was built, where it is installed; or where the user says */
static int nbd_find(struct nbd_start *st)
{
	const char *said = secure_getenv("BALUN_NBD_HELPER");
	char dir[PATH_MAX];
	Dl_info info;
	char *slash;

	if (said) {
		snprintf(st->path, sizeof(st->path), "%s", said);
		return 0;
	}
	if (dladdr(&nbd_is_gone, &info) && info.dli_fname) {
		snprintf(dir, sizeof(dir), "%s", info.dli_fname);
		slash = strrchr(dir, '/');
		slash = slash ? slash + 1 : dir;
		*slash = 0;
		if (nbd_path(st, dir, "") || nbd_path(st, dir, "../libexec/balun/") ||
		    nbd_path(st, dir, "../../libexec/balun/"))
			return 0;
	}
	env_reason("nbd: there is no balun-nbd beside libbalun, nor in ../libexec/balun from there "
		   "(BALUN_NBD_HELPER=PATH says where it is)");
	return -ENOENT;
}

/* balun-nbd runs and owns its mutex, or never will */
static int nbd_launch(struct nbd_start *st)
{
	static char name[] = "balun-nbd";
	int err = nbd_find(st);

	if (err)
		return err;
	st->argv[0] = name;
	st->stack = balun_mem_alloc(2 * NBD_STACK);
	if (!st->stack)
		return -ENOMEM;
	err = nbd_fork(st);
	if (err)
		env_reason("nbd: %s does not start%s%s", st->path, err == -ECHILD ? "" : ": ",
			   err == -ECHILD ? "" : strerror(-err));
	balun_mem_free(st->stack, 2 * NBD_STACK);
	return err;
}

/* it is connected, or says why not, or is dead, or the server says nothing */
static int nbd_ready(struct nbd *n)
{
	struct nbd_shared *s = n->shared;
	uint64_t end = nbd_deadline(n);
	uint32_t state;
	bool late = false;

	while ((state = env_load(&s->state)) == NBD_STARTING && !nbd_is_gone(n) && !late)
		late = !nbd_sleep_until(&s->state, state, end);
	if (state == NBD_READY)
		return 0;
	env_reason("nbd: %s", state == NBD_FAILED ? s->reason
			      : late		  ? "no answer in time"
						  : "the helper died");
	return -ENODEV;
}

static int nbd_robust(pthread_mutex_t *m)
{
	pthread_mutexattr_t attr;
	int err;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	err = -pthread_mutex_init(m, &attr);
	pthread_mutexattr_destroy(&attr);
	return err;
}

static int nbd_share(struct nbd *n, int *ret_fd)
{
	int fd = memfd_create("balun-nbd", MFD_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, NBD_BYTES))
		err = -errno;
	else
		n->shared = mmap(NULL, NBD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!err && n->shared == MAP_FAILED)
		err = -errno;
	if (!err)
		err = nbd_robust(&n->shared->program);
	if (!err)
		err = nbd_robust(&n->shared->helper);
	if (err) {
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

/* the helper ends by itself; the watching thread sees it */
void nbd_stop(struct nbd *n)
{
	if (n->watch) {
		if (n->watching == NBD_WATCH_OWNS)
			nbd_watch_set(n, NBD_WATCH_STOP);
		env_store(&n->shared->stop, 1);
		nbd_wake(&n->shared->stop);
		env_thread_join(n->watch);
	}
	if (n->shared && n->shared != MAP_FAILED)
		munmap(n->shared, NBD_BYTES);
}

int nbd_start(struct nbd *n, const char *uri, uint64_t conns)
{
	struct nbd_start *st = balun_mem_alloc(sizeof(*st));
	int err;

	if (!st)
		return -ENOMEM;
	err = nbd_share(n, &st->shared);
	if (err)
		goto err_stop;
	snprintf(n->shared->uri, sizeof(n->shared->uri), "%s", uri);
	n->shared->conns = conns;
	err = nbd_watch_begin(n);
	if (!err)
		err = nbd_launch(st);
	close(st->shared);
	if (!err) {
		nbd_watch_set(n, NBD_WATCH_GO);
		err = nbd_ready(n);
	}
err_stop:
	if (err)
		nbd_stop(n);
	balun_mem_free(st, sizeof(*st));
	return err;
}
