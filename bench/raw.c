// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The system calls themselves, for limits: a userfaultfd context of the bench's own, on memory of
 * its own, which Balun never sees.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/bench.h"

/* newer than Debian 12's headers */
#ifndef UFFDIO_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
struct uffdio_move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

static int open_fd(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
		if (fd >= 0)
			return fd;
	}
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	return fd;
}

static int handshake(int fd, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	return ioctl(fd, UFFDIO_API, &api) ? -errno : 0;
}

int raw_open(struct bench_run *run)
{
	int err;

	run->raw.features = UFFD_FEATURE_MOVE;
	run->raw.fd = open_fd();
	if (run->raw.fd < 0)
		return bench_fail(run, -EOPNOTSUPP, "userfaultfd: %s", strerror(errno));
	if (!handshake(run->raw.fd, UFFD_FEATURE_MOVE))
		return 0;
	/* a context whose handshake was refused is of no more use */
	close(run->raw.fd);
	run->raw.features = 0;
	run->raw.fd = open_fd();
	err = run->raw.fd < 0 ? -errno : handshake(run->raw.fd, 0);
	return err ? bench_fail(run, err, "userfaultfd: %s", strerror(-err)) : 0;
}

void raw_close(struct bench_run *run)
{
	if (run->raw.fd > 0)
		close(run->raw.fd);
	run->raw.fd = 0;
}

int raw_register(struct bench_run *run, char *p, size_t len)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)p, len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(run->raw.fd, UFFDIO_REGISTER, &reg))
		return bench_fail(run, -errno, "UFFDIO_REGISTER: %s", strerror(errno));
	return 0;
}

int raw_move(struct bench_run *run, char *to, char *from, size_t len)
{
	struct uffdio_move mv = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = len };

	if (!(run->raw.features & UFFD_FEATURE_MOVE))
		return bench_fail(run, -EOPNOTSUPP,
				  "this kernel has no UFFDIO_MOVE (6.8): no limit");
	while (ioctl(run->raw.fd, UFFDIO_MOVE, &mv)) {
		/* part of it was moved: go on from there */
		if (errno != EAGAIN)
			return bench_fail(run, -errno, "UFFDIO_MOVE: %s", strerror(errno));
		if (mv.move > 0) {
			mv.dst += mv.move;
			mv.src += mv.move;
			mv.len -= mv.move;
		}
	}
	return 0;
}

int raw_copy_page(struct bench_run *run, char *to, const char *from)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)from,
		.len = BALUN_PAGE_SIZE,
	};

	return ioctl(run->raw.fd, UFFDIO_COPY, &copy) ? -errno : 0;
}

static char page[BALUN_PAGE_SIZE] __attribute__((aligned(4096))) = { 1 };

static void *handler(void *arg)
{
	struct bench_run *run = arg;
	struct pollfd pfd = { .fd = run->raw.fd, .events = POLLIN };
	struct uffd_msg msg;
	bool stop;

	do {
		poll(&pfd, 1, -1);
		if (read(run->raw.fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		/* asked before the copy: after it the bench may be gone */
		stop = __atomic_load_n(&run->thread_stop, __ATOMIC_ACQUIRE);
		raw_copy_page(run, (char *)(msg.arg.pagefault.address & ~(BALUN_PAGE_SIZE - 1)),
			      page);
	} while (!stop);
	return NULL;
}

int raw_handler_start(struct bench_run *run)
{
	int err;

	run->thread_stop = false;
	err = pthread_create(&run->thread, NULL, handler, run);
	if (err)
		return bench_fail(run, -err, "thread: %s", strerror(err));
	run->thread_runs = true;
	return 0;
}

void raw_handler_stop(struct bench_run *run, volatile char *last)
{
	if (!run->thread_runs)
		return;
	__atomic_store_n(&run->thread_stop, true, __ATOMIC_RELEASE);
	(void)*last;
	pthread_join(run->thread, NULL);
	run->thread_runs = false;
}
