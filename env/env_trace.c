// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A trace of this process: the memory that events go to, and who gets it. All of it is done by the
 * thread of env_live.c, in its table of descriptors, by direct system calls.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "balun/live.h"
#include "env/env_live.h"
#include "env/env_priv.h"

/* Full before it is used, so that no write finds the machine out of memory; and never smaller, so
 * that the reader cannot take it away. */
static int ring_file(size_t bytes)
{
	int fd = syscall(SYS_memfd_create, "balun-trace", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;

	if (fd < 0)
		return -errno;
	if (!syscall(SYS_fallocate, fd, 0, (off_t)0, (off_t)bytes) &&
	    !syscall(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return fd;
	err = -errno;
	syscall(SYS_close, fd);
	return err;
}

static int ring_map(struct env_trace *t, int fd, size_t bytes)
{
	void *p = (void *)syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	syscall(SYS_madvise, p, bytes, MADV_DONTFORK);
	t->ring = p;
	t->bytes = bytes;
	return 0;
}

static void ring_unmap(struct env_trace *t)
{
	syscall(SYS_munmap, t->ring, t->bytes);
	t->ring = NULL;
}

int env_trace_begin(struct env_trace *t, uint32_t mib)
{
	const size_t room = (size_t)mib << 20;
	uint32_t slots = room / sizeof(struct balun_trace_event);
	int fd, err;

	if (!mib || mib > BALUN_TRACE_MAX_MIB)
		return -EINVAL;
	if (t->ring)
		return -EBUSY;
	fd = ring_file(room + BALUN_TRACE_DATA);
	if (fd < 0)
		return fd;
	err = ring_map(t, fd, room + BALUN_TRACE_DATA);
	if (err) {
		syscall(SYS_close, fd);
		return err;
	}
	while (slots & (slots - 1))
		slots &= slots - 1; /* the largest power of two in it */
	t->ring->version = BALUN_LIVE_VERSION;
	t->ring->slots = slots;
	t->ring->pid = getpid();
	t->slots = slots;
	if (env_probe_ring_set(t))
		return fd;
	ring_unmap(t); /* one that answered before has not ended yet */
	syscall(SYS_close, fd);
	return -EBUSY;
}

void env_trace_end(struct env_trace *t)
{
	if (!t->ring)
		return;
	env_probe_ring_clear();
	ring_unmap(t);
}

int env_trace_send(int to, const struct balun_live *a, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)a, BALUN_LIVE_ERR_BYTES };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (fd >= 0) {
		m.msg_control = control.buf;
		m.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	return syscall(SYS_sendmsg, to, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ---- a tracer that the environment names ---- */

/*
 * From the kernel: nobody else may read the environment while the program changes it. What a
 * program has written over it for its title is not found.
 */
static bool environment(const char *key, char *ret, size_t size)
{
	int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC);
	size_t at = 0, len = strlen(key), i; /* at: of the variable; SIZE_MAX: another one */
	bool found = false;
	char buf[1024];
	ssize_t n;

	while (fd >= 0 && !found && (n = syscall(SYS_read, fd, buf, sizeof(buf))) > 0) {
		for (i = 0; i < (size_t)n && !found; i++) {
			char c = buf[i];

			if (at != SIZE_MAX && at > len && at - len <= size) {
				ret[at - len - 1] = c;
				found = !c;
			}
			if (!c)
				at = 0;
			else if (at < len ? c != key[at] : at == len && c != '=')
				at = SIZE_MAX;
			else if (at != SIZE_MAX)
				at++;
		}
	}
	if (fd >= 0)
		syscall(SYS_close, fd);
	return found;
}

/* "NAME:MIB" */
static int connect_named(char *where, uint32_t *ret_mib)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	char *colon = strchr(where, ':');
	size_t len;
	int fd, err;

	if (!colon || colon == where || colon - where > (ptrdiff_t)sizeof(to.sun_path) - 2)
		return -EINVAL;
	*ret_mib = 0;
	for (len = 1; colon[len] >= '0' && colon[len] <= '9' && len < 6; len++)
		*ret_mib = *ret_mib * 10 + colon[len] - '0';
	len = colon - where;
	memcpy(to.sun_path + 1, where, len);
	fd = syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!syscall(SYS_connect, fd, &to, offsetof(struct sockaddr_un, sun_path) + 1 + len))
		return fd;
	err = -errno;
	syscall(SYS_close, fd);
	return err;
}

int env_trace_offer(struct env_trace *t)
{
	struct balun_live a = { .size = BALUN_LIVE_ERR_BYTES, .version = BALUN_LIVE_VERSION };
	struct ucred peer = { .uid = -1 };
	socklen_t n = sizeof(peer);
	char where[128];
	uint32_t mib;
	int to, fd;

	if (!environment(BALUN_TRACE_ENV, where, sizeof(where)))
		return -ENOENT;
	to = connect_named(where, &mib);
	if (to < 0)
		return to;
	if (syscall(SYS_getsockopt, to, SOL_SOCKET, SO_PEERCRED, &peer, &n) ||
	    (peer.uid && peer.uid != geteuid())) {
		syscall(SYS_close, to);
		return -EPERM;
	}
	fd = env_trace_begin(t, mib);
	a.err = fd < 0 ? fd : 0;
	if (env_trace_send(to, &a, fd) || fd < 0) {
		env_trace_end(t);
		syscall(SYS_close, to);
		to = -ECONNREFUSED;
	}
	if (fd >= 0)
		syscall(SYS_close, fd);
	return to;
}
