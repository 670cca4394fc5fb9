// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Migrations in the kernel, by the side of the kernel's own HMM test driver (lib/test_hmm.c, module
 * test_hmm, /dev/hmm_dmirror0) doing the same ones: a program's request, the pages to the device,
 * and the device reads them all back to the program; then home.
 *
 * That driver is another process's: its notifier covers the whole address space, and would be
 * called for what Balun moves.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "balun/dmirror.h"
#include "bench/bench.h"

#define LEN   (4 * MIB)
#define PAGES (LEN / BALUN_PAGE_SIZE)

/* what test_hmm takes; its header is in no package */
struct test_hmm_cmd {
	uint64_t addr, ptr, npages, cpages, faults;
};
#define TEST_HMM_TO_DEVICE _IOWR('H', 2, struct test_hmm_cmd)
#define TEST_HMM_TO_SYSTEM _IOWR('H', 3, struct test_hmm_cmd)

/* what is measured: ns, there and home */
struct times {
	double there, home;
	int err;
};

struct peer {
	pid_t pid;
	int fd; /* a byte asks for a round, struct times is the answer */
	void *buf;
};

/* ---- the kernel's driver ---- */

static int test_hmm(int fd, unsigned long request, char *mem, char *buf, double *ret)
{
	struct test_hmm_cmd c = { .addr = (uintptr_t)mem, .ptr = (uintptr_t)buf, .npages = PAGES };
	double t0 = bench_now_ns();

	if (ioctl(fd, request, &c))
		return -errno;
	*ret = bench_now_ns() - t0;
	return c.cpages ? 0 : -EIO; /* it counts a huge page as one */
}

/* what came back is what the program has */
static int check(const char *mem, const char *buf)
{
	return memcmp(mem, buf, LEN) ? -EIO : 0;
}

/* pages that have never moved, huge ones where the mapping has them, with what was not there before
 */
static void renew(char *mem)
{
	static int round;
	size_t i;

	bench_drop(mem, LEN);
	round++;
	for (i = 0; i < LEN; i += BALUN_PAGE_SIZE)
		memset(mem + i, 1 + (int)(round + i / BALUN_PAGE_SIZE) % 255, 64);
}

static void test_hmm_round(int fd, char *mem, char *buf, struct times *ret)
{
	renew(mem);
	ret->err = test_hmm(fd, TEST_HMM_TO_DEVICE, mem, buf, &ret->there);
	if (!ret->err)
		ret->err = test_hmm(fd, TEST_HMM_TO_SYSTEM, mem, buf, &ret->home);
	if (!ret->err)
		ret->err = check(mem, buf);
}

/* the other process; ends when the bench closes the socket */
static void peer_main(int sock, bool huge)
{
	struct bench_run run = { 0 };
	struct times t = { 0 };
	char *mem = NULL, *buf = NULL, c;
	int fd = open("/dev/hmm_dmirror0", O_RDWR);

	t.err = fd < 0 ? -errno : bench_map(&run, LEN, huge, &mem);
	if (!t.err)
		t.err = bench_map(&run, LEN, false, &buf);
	while (read(sock, &c, 1) == 1) {
		if (!t.err)
			test_hmm_round(fd, mem, buf, &t);
		if (write(sock, &t, sizeof(t)) != sizeof(t))
			break;
	}
	_exit(0);
}

static int peer_start(struct bench_run *run, struct peer *p, bool huge)
{
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		return bench_fail(run, -errno, "no socket");
	p->fd = sock[0];
	p->pid = fork();
	if (p->pid == 0) {
		close(sock[0]);
		peer_main(sock[1], huge);
	}
	close(sock[1]);
	return p->pid < 0 ? bench_fail(run, -errno, "no process") : 0;
}

static int peer_times(struct bench_run *run, struct times *ret)
{
	struct peer *p = run->priv;

	if (write(p->fd, "", 1) != 1 || read(p->fd, ret, sizeof(*ret)) != sizeof(*ret))
		return bench_fail(run, -EIO, "the process of test_hmm has ended");
	if (ret->err)
		return bench_fail(run, ret->err, "/dev/hmm_dmirror0: %s", strerror(-ret->err));
	return 0;
}

/* ---- Balun ---- */

static int ours(struct bench_run *run, uint64_t op, double *ret)
{
	struct peer *p = run->priv;
	struct balun_dmirror_cmd c = {
		.size = sizeof(c), .op = op, .addr = (uintptr_t)run->mem, .len = LEN, .buf = p->buf
	};
	double t0 = bench_now_ns();
	int err = balun_dmirror(run->dev[0], &c);

	if (err)
		return bench_fail(run, err, "%s", balun_reason());
	*ret = bench_now_ns() - t0;
	return c.bytes == LEN ? 0 : bench_fail(run, -EIO, "not all pages moved");
}

static int our_times(struct bench_run *run, struct times *ret)
{
	struct peer *p = run->priv;
	int err;

	renew(run->mem);
	err = ours(run, BALUN_DMIRROR_TO_DEVICE, &ret->there);
	if (!err)
		err = ours(run, BALUN_DMIRROR_TO_SYSTEM, &ret->home);
	if (!err && check(run->mem, p->buf))
		err = bench_fail(run, -EIO, "the device read something else");
	return err;
}

/* ---- the benches ---- */

static int setup(struct bench_run *run, bool huge)
{
	static struct peer peer;
	int err;

	peer = (struct peer){ .fd = -1, .pid = -1 };
	run->priv = &peer;
	if (strcmp(run->engine, "kernel") != 0)
		return bench_fail(run, -EOPNOTSUPP, "only with --engine kernel");
	if (access("/sys/module/test_hmm", F_OK))
		return bench_fail(run, -EOPNOTSUPP,
				  "no module test_hmm to compare with (CONFIG_TEST_HMM)");
	err = peer_start(run, &peer, huge);
	if (!err)
		err = bench_begin(run, "dmirror:mem=32M", NULL);
	if (!err)
		err = bench_map(run, LEN, huge, &run->mem);
	if (err)
		return err;
	peer.buf = balun_mem_alloc(LEN);
	return peer.buf ? 0 : -ENOMEM;
}

static int setup_small(struct bench_run *run)
{
	return setup(run, false);
}

static int setup_huge(struct bench_run *run)
{
	return setup(run, true);
}

static void teardown(struct bench_run *run)
{
	struct peer *p = run->priv;

	if (p->fd >= 0)
		close(p->fd);
	if (p->pid > 0)
		waitpid(p->pid, NULL, 0);
	if (p->buf)
		balun_mem_free(p->buf, LEN);
	bench_unmap(run->mem, LEN);
}

static int our_there(struct bench_run *run, double *ret)
{
	struct times t = { 0 };
	int err = our_times(run, &t);

	*ret = t.there;
	return err;
}

static int our_home(struct bench_run *run, double *ret)
{
	struct times t = { 0 };
	int err = our_times(run, &t);

	*ret = t.home;
	return err;
}

static int peer_there(struct bench_run *run, double *ret)
{
	struct times t = { 0 };
	int err = peer_times(run, &t);

	*ret = t.there;
	return err;
}

static int peer_home(struct bench_run *run, double *ret)
{
	struct times t = { 0 };
	int err = peer_times(run, &t);

	*ret = t.home;
	return err;
}

const struct bench bench_kernel_there_4k = {
	.name = "kernel_there_4k",
	.unit = "ns",
	.what = "1024 small pages to a dmirror device in the kernel, read back by it",
	.limit_what = "the kernel's module test_hmm, the same",
	.target = 1.1,
	.runs = 31,
	.setup = setup_small,
	.value = our_there,
	.limit = peer_there,
	.teardown = teardown,
};

const struct bench bench_kernel_home_4k = {
	.name = "kernel_home_4k",
	.unit = "ns",
	.what = "1024 small pages home from a dmirror device in the kernel",
	.limit_what = "the kernel's module test_hmm, the same",
	.target = 1.1,
	.runs = 31,
	.setup = setup_small,
	.value = our_home,
	.limit = peer_home,
	.teardown = teardown,
};

const struct bench bench_kernel_there_2m = {
	.name = "kernel_there_2m",
	.unit = "ns",
	.what = "2 huge pages to a dmirror device in the kernel, read back by it",
	.limit_what = "the kernel's module test_hmm, the same",
	.target = 1.1,
	.runs = 31,
	.setup = setup_huge,
	.value = our_there,
	.limit = peer_there,
	.teardown = teardown,
};

const struct bench bench_kernel_home_2m = {
	.name = "kernel_home_2m",
	.unit = "ns",
	.what = "2 huge pages home from a dmirror device in the kernel",
	.limit_what = "the kernel's module test_hmm, the same",
	.target = 1.1,
	.runs = 31,
	.setup = setup_huge,
	.value = our_home,
	.limit = peer_home,
	.teardown = teardown,
};
