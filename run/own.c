// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What Balun has in a process apart from the program: two threads, and a table of descriptors.
 *
 * The worker, and all threads that come from it, have a table of descriptors of their own: the
 * program may close, count and number what it has as it likes, and hits nothing of Balun's.
 *
 * A process ends with its last thread, also where the first one has ended before. libc counts
 * Balun's threads too, so with them there is none that is the last. When the first thread is gone
 * the worker looks now and then whether the others are all Balun's. Then the keeper ends the
 * process, as libc's last thread would: it has kept the program's descriptors, for the handlers of
 * exit(). It does nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "run/run.h"

static char mark[64]; /* what the link of descriptor 0 of Balun's table says, and of no other */
static char keeper_tid[16];
static sem_t let_go, ended;
static int start_err;	/* before @let_go */
static sigset_t before; /* the program's mask when it began */

static void started(int err)
{
	start_err = err;
	sem_post(&let_go);
}

/* ---- the worker's table ---- */

/*
 * With nothing of the program's in it, not even for a moment longer than this takes: a pipe whose
 * end we hold has no end. 0 is the mark, 1 is taken, 2 is for what Balun has to say.
 */
int own_files(void)
{
	char path[64];
	int err = 0, fd;

	if (syscall(SYS_close_range, 0, ~0U, CLOSE_RANGE_UNSHARE)) {
		err = -errno;
		goto out;
	}
	snprintf(mark, sizeof(mark), "balun-%d-%llx", getpid(), (unsigned long long)run_now_ns());
	fd = memfd_create(mark, 0);
	memset(mark, 0, sizeof(mark));
	if (fd || readlink("/proc/thread-self/fd/0", mark, sizeof(mark) - 1) <= 0 ||
	    open("/dev/null", O_RDWR) != 1)
		err = -EBADF;
	snprintf(path, sizeof(path), "/proc/%u/fd/%u", run.shared->launcher, run.shared->log_fd);
	fd = open(path, O_WRONLY | O_APPEND);
	if (!err && fd != 2 && open("/dev/null", O_RDWR) != 2) /* the launcher has ended */
		err = -EBADF;
	if (!err)
		err = areas_open();
out:
	started(err);
	return err;
}

/* ---- the end ---- */

/* the one thread of Balun's with a table of its own again (env/env_live.c); the program has none of
 * this name, for a name is inherited from who begins a thread */
static bool is_live(int dir, const char *tid)
{
	static const char name[] = "balun-live\n";
	char path[64], comm[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/comm", tid);
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, comm, sizeof(comm));
	close(fd);
	return n == sizeof(name) - 1 && !memcmp(comm, name, n);
}

/* a thread that has ended has no descriptors; while it ends it may seem to be the program's */
static bool is_program(int dir, const char *tid)
{
	char path[64], link[sizeof(mark)] = "", stat[512] = "", *s;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/fd/0", tid);
	n = readlinkat(dir, path, link, sizeof(link) - 1);
	if (n > 0)
		return strcmp(link, mark) && !is_live(dir, tid);
	snprintf(path, sizeof(path), "%s/stat", tid);
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, stat, sizeof(stat) - 1);
	close(fd);
	s = strrchr(stat, ')'); /* "tid (name) state ..." */
	return n > 0 && s && s[1] && s[2] != 'Z' && s[2] != 'X';
}

struct dirent64_raw {
	uint64_t ino, off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

/* it has no memory any more */
static bool first_is_gone(void)
{
	char byte = 0;
	struct iovec local = { &byte, 1 }, remote = { mark, 1 };

	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) < 0 && errno == ESRCH;
}

void own_look(void)
{
	char buf[2048] __attribute__((aligned(8)));
	int dir;
	bool program;
	long n = 0, at;

	if (!first_is_gone())
		return;
	dir = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	program = dir < 0;
	while (!program && (n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (at = 0; at < n && !program;) {
			struct dirent64_raw *d = (void *)(buf + at);

			at += d->reclen;
			program = d->name[0] != '.' && strcmp(d->name, keeper_tid) &&
				  is_program(dir, d->name);
		}
	}
	if (dir >= 0)
		close(dir);
	if (!program && !n)
		sem_post(&ended);
}

static void *keeper(void *arg)
{
	pthread_t t;
	int err;

	prctl(PR_SET_NAME, "balun-keep");
	snprintf(keeper_tid, sizeof(keeper_tid), "%d", gettid());
	err = pthread_create(&t, NULL, (void *(*)(void *))arg, NULL);
	if (err) {
		started(-err);
		return NULL;
	}
	pthread_detach(t);
	while (sem_wait(&ended))
		;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	exit(0);
}

/* without signals: the program's handlers run on its own threads */
int own_start(void *(*worker)(void *))
{
	sigset_t all;
	pthread_t t;
	int err;

	sem_init(&let_go, 0, 0);
	sem_init(&ended, 0, 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = -pthread_create(&t, NULL, keeper, worker);
	if (!err) {
		pthread_detach(t);
		while (sem_wait(&let_go))
			; /* interrupted */
		err = start_err;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}
