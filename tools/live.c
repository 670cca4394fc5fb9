// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Finds processes with Balun and asks them. */
#include "live.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_S 2 /* it may be stopped, or swapped out */

/* "Num RefCount Protocol Flags Type St Inode Path": ours listen (a flag), and have abstract names
 */
static const char *socket_of(char *line)
{
	unsigned long flags;
	int at = 0;

	if (sscanf(line, "%*s %*s %*s %lx %*s %*s %*s %n", &flags, &at) < 1 || !at ||
	    !(flags & 0x10000))
		return NULL;
	line[strcspn(line, "\n")] = 0;
	return line[at] == '@' &&
			       !strncmp(line + at + 1, BALUN_LIVE_PREFIX, strlen(BALUN_LIVE_PREFIX))
		       ? line + at + 1
		       : NULL;
}

/* "balun-UID-PID-N" */
static bool parse_name(const char *name, uid_t *ret_uid, pid_t *ret_pid)
{
	unsigned long long n;
	int end = 0;

	return sscanf(name, BALUN_LIVE_PREFIX "%u-%d-%llu%n", ret_uid, ret_pid, &n, &end) == 3 &&
	       !name[end];
}

int live_sockets(uid_t uid, char (*ret_name)[LIVE_NAME], unsigned int max)
{
	FILE *f = fopen("/proc/net/unix", "re");
	unsigned int n = 0;
	char *line = NULL;
	size_t room = 0;
	uid_t owner;
	pid_t pid;

	if (!f)
		return -errno;
	while (n < max && getline(&line, &room, f) > 0) {
		const char *name = socket_of(line);

		if (name && strlen(name) < LIVE_NAME - 1 && parse_name(name, &owner, &pid) &&
		    (!uid || uid == owner))
			strcpy(ret_name[n++], name);
	}
	free(line);
	fclose(f);
	return n;
}

/* text of another process: what a terminal would obey is not shown */
static void clean(char *s, size_t size)
{
	size_t i;

	s[size - 1] = 0;
	for (i = 0; s[i]; i++)
		if (!isprint((unsigned char)s[i]))
			s[i] = '?';
}

static bool is_right(struct balun_live *a, size_t got)
{
	unsigned int i;

	if (a->version != BALUN_LIVE_VERSION || a->size != got || a->ndevices > BALUN_MAX_DEVICES ||
	    a->nranges > BALUN_LIVE_RANGES)
		return false;
	clean(a->engine, sizeof(a->engine));
	clean(a->policy, sizeof(a->policy));
	for (i = 0; i < a->ndevices; i++)
		clean(a->device[i].name, sizeof(a->device[i].name));
	return true;
}

/* Anybody may take any name: who listens must be of the user that the name says. The process id is
 * as this namespace has it; a process that is not in it has none. */
static int check_peer(int fd, const char *name, pid_t *ret_pid)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	uid_t uid;
	pid_t pid;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return -errno;
	if (!parse_name(name, &uid, &pid) || (peer.uid != uid && peer.uid != getuid()))
		return -EPERM;
	*ret_pid = peer.pid ? peer.pid : pid;
	return 0;
}

/* with a limit, what waits on a socket is interrupted also when we are stopped and go on */
static int connect_to(const char *name)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const struct timeval limit = { .tv_sec = ANSWER_S };
	int err, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	strncpy(to.sun_path + 1, name, sizeof(to.sun_path) - 2);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	do {
		err = connect(fd, (struct sockaddr *)&to,
			      offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))
			      ? -errno
			      : 0;
	} while (err == -EINTR);
	if (!err)
		return fd;
	close(fd);
	return err;
}

/* @got: a whole answer, or the beginning that says why there is none */
static int check_answer(struct balun_live *a, ssize_t got)
{
	if (got < (ssize_t)BALUN_LIVE_ERR_BYTES)
		return got < 0 ? -errno : -ECONNREFUSED;
	if (a->err < 0)
		return a->err;
	return is_right(a, got) ? 0 : -EPROTO;
}

int live_connect(const char *socket, pid_t *ret_pid)
{
	int fd = connect_to(socket), err = fd < 0 ? fd : check_peer(fd, socket, ret_pid);

	if (!err)
		return fd;
	if (fd >= 0)
		close(fd);
	return err;
}

int live_send(int fd, uint32_t what, uint32_t nth, uint32_t mib)
{
	const struct balun_live_ask q = {
		.version = BALUN_LIVE_VERSION, .what = what, .space = nth, .mib = mib
	};

	return send(fd, &q, sizeof(q), MSG_NOSIGNAL) == sizeof(q) ? 0 : -errno;
}

int live_ask(const char *socket, uint32_t nth, struct live_space *ret)
{
	ssize_t got;
	int fd, err;

	memset(ret, 0, sizeof(*ret));
	fd = live_connect(socket, &ret->pid);
	if (fd < 0)
		return fd;
	err = live_send(fd, BALUN_LIVE_LOOK, nth, 0);
	if (!err) {
		do {
			got = recv(fd, &ret->look, sizeof(ret->look), MSG_TRUNC);
		} while (got < 0 && errno == EINTR);
		err = check_answer(&ret->look, got);
	}
	close(fd);
	ret->nth = nth;
	strcpy(ret->socket, socket);
	return err;
}

/* ---- what /proc has of it ---- */

static void proc_read(struct live_space *s)
{
	char path[64], line[256];
	unsigned long long kib;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", s->pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "Name:\t", 6))
			snprintf(s->comm, sizeof(s->comm), "%.*s", (int)strcspn(line + 6, "\n"),
				 line + 6);
		else if (sscanf(line, "RssAnon: %llu", &kib) == 1)
			s->resident = kib << 10;
	}
	if (f)
		fclose(f);
	clean(s->comm, sizeof(s->comm));
}

/* ---- all of them ---- */

static bool is_wanted(const char *name, const pid_t *pid, unsigned int n)
{
	pid_t of;
	uid_t uid;
	unsigned int i;

	if (!pid)
		return true;
	parse_name(name, &uid, &of);
	for (i = 0; i < n; i++)
		if (pid[i] == of)
			return true;
	return false;
}

/* the spaces of one process, at ret[0]...: how many, or -errno */
static int look_at(const char *name, struct live_space *ret, unsigned int max)
{
	unsigned int n = 0;
	int err;

	while (n < max) {
		err = live_ask(name, n, &ret[n]);
		if (err == -ENOENT)
			break;
		if (err)
			return err;
		proc_read(&ret[n++]);
	}
	return n;
}

static bool has_pid(const struct live_space *s, unsigned int n, pid_t pid)
{
	while (n--)
		if (s[n].pid == pid)
			return true;
	return false;
}

static int by_pid(const void *a, const void *b)
{
	const struct live_space *x = a, *y = b;

	return x->pid != y->pid ? (x->pid > y->pid) - (x->pid < y->pid)
				: (x->nth > y->nth) - (x->nth < y->nth);
}

int live_look(const pid_t *pid, unsigned int n, struct live_space *ret, unsigned int max,
	      pid_t *ret_which)
{
	char(*name)[LIVE_NAME] = calloc(LIVE_MAX, sizeof(*name));
	/* who is asked for by its number may be another's, and is to be told apart from none */
	int i, got, found = name ? live_sockets(pid ? 0 : getuid(), name, LIVE_MAX) : -ENOMEM;
	unsigned int have = 0, k;
	uid_t uid;

	for (i = 0; i < found && have < max; i++) {
		if (!is_wanted(name[i], pid, n))
			continue;
		got = look_at(name[i], ret + have, max - have);
		if (got < 0 && pid && got != -ECONNREFUSED) {
			parse_name(name[i], &uid, ret_which);
			found = got;
		}
		have += got > 0 ? got : 0;
	}
	free(name);
	if (found < 0)
		return found;
	for (k = 0; pid && k < n; k++)
		if (!has_pid(ret, have, *ret_which = pid[k]))
			return -ESRCH;
	qsort(ret, have, sizeof(*ret), by_pid);
	return have;
}

/* ---- figures ---- */

uint64_t live_away(const struct balun_live *l)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < l->ndevices; i++)
		sum += l->device[i].mem_used;
	return sum;
}

/* within a bucket times are taken to be spread evenly */
uint64_t live_quantile(const struct balun_hist *h, double share)
{
	double rank, below = 0, total = 0;
	unsigned int i;

	for (i = 0; i < BALUN_HIST_BUCKETS; i++)
		total += h->bucket[i];
	rank = share * total;
	for (i = 0; total > 0 && i < BALUN_HIST_BUCKETS; i++) {
		double n = h->bucket[i], low = i ? (double)(1ULL << i) : 0;

		if (n > 0 && below + n >= rank)
			return low + ((double)(2ULL << i) - low) * (rank - below) / n;
		below += n;
	}
	return 0;
}
