/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: nbd_server.h - NBD servers (nbdkit) with fresh memory, their sockets and log in a folder
 */
#ifndef BALUN_TEST_NBD_SERVER_H
#define BALUN_TEST_NBD_SERVER_H

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env/env.h"

static char dir[] = "/tmp/balun-nbd-XXXXXX";

struct server {
	char sock[64], spec[160];
	pid_t pid;
};

static inline void run(char *const *argv)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		execvp(argv[0], argv);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* from a file that the server writes, with a newline, when it is ready */
static inline pid_t wait_pid(const char *path)
{
	uint64_t end = env_now_ns() + 20000000000ULL;
	char text[16] = "";

	while (!strchr(text, '\n')) {
		int fd = open(path, O_RDONLY);

		assert_true(env_now_ns() < end);
		if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
			fail();
		if (fd >= 0)
			close(fd);
		sched_yield();
	}
	unlink(path);
	return atoi(text);
}

/* @most: bytes of a request that it takes, "4095M" if there is no such limit */
static inline void server_start(struct server *s, const char *name, char *size, const char *most)
{
	char pid[80], log[80], max[40];

	snprintf(max, sizeof(max), "blocksize-maximum=%s", most);
	snprintf(s->sock, sizeof(s->sock), "%s/%s", dir, name);
	snprintf(pid, sizeof(pid), "%s.pid", s->sock);
	snprintf(log, sizeof(log), "logfile=%s/log", dir);
	run((char *[]){ "nbdkit", "-U", s->sock, "-P", pid, "--filter=log",
			"--filter=blocksize-policy", "memory", size, log, "blocksize-minimum=1",
			"blocksize-preferred=4K", "blocksize-error-policy=error", max, NULL });
	s->pid = wait_pid(pid);
	snprintf(s->spec, sizeof(s->spec), "nbd:uri=nbd+unix:///?socket=%s", s->sock);
}

/* whether a thread of it is not stopped */
static inline bool runs(const struct server *s)
{
	char path[300], line[100];
	struct dirent *e;
	bool any = false;
	FILE *stat;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", s->pid);
	tasks = opendir(path);
	assert_non_null(tasks);
	while (!any && (e = readdir(tasks))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", s->pid, e->d_name);
		stat = fopen(path, "r");
		if (!stat) /* it has ended */
			continue;
		any = fgets(line, sizeof(line), stat) && !strstr(line, ") T ");
		fclose(stat);
	}
	closedir(tasks);
	return any;
}

/* it answers nothing more when this returns: the signal stops each thread when that next runs */
static inline void server_stop(const struct server *s)
{
	uint64_t end = env_now_ns() + 20000000000ULL;

	kill(s->pid, SIGSTOP);
	while (runs(s)) {
		assert_true(env_now_ns() < end);
		sched_yield();
	}
}

/* it is dead when this returns */
static inline void server_kill(struct server *s)
{
	struct pollfd p = { .events = POLLIN };

	if (!s->pid)
		return;
	p.fd = syscall(SYS_pidfd_open, s->pid, 0);
	kill(s->pid, SIGKILL);
	if (p.fd >= 0) {
		poll(&p, 1, -1);
		close(p.fd);
	}
	s->pid = 0;
	unlink(s->sock);
}

/* how many requests of a kind the servers have logged */
static inline unsigned int logged(const char *what)
{
	char path[64], line[256];
	unsigned int n = 0;
	FILE *log;

	snprintf(path, sizeof(path), "%s/log", dir);
	log = fopen(path, "r");
	assert_non_null(log);
	while (fgets(line, sizeof(line), log))
		n += !!strstr(line, what);
	fclose(log);
	return n;
}

#endif
