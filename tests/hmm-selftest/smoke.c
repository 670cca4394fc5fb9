// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A few tests of the HMM test device in our own words, for machines without the kernel's: run with
 * the shim and libbalun preloaded. Each is run for private and for coherent memory, in a process of
 * its own, as the kernel's harness does.
 */
#undef _FILE_OFFSET_BITS
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "balun/dmirror.h"
#include "tests/hmm-selftest/abi.h"

#define SKIP_EXIT 77 /* of the shim */

#define PAGE   4096UL
#define NPAGES 64UL
#define BYTES  (NPAGES * PAGE)

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("  line %d: %s\n", __LINE__, #cond);                                \
			fflush(stdout);                                                            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

struct fixture {
	int fd, other;
	bool coherent;
	uint32_t *mem, *buf;
	struct hmm_dmirror_cmd cmd;
};

/* 0 or -errno */
static int cmd(struct fixture *f, int fd, unsigned long request)
{
	f->cmd = (struct hmm_dmirror_cmd){ .addr = (uintptr_t)f->mem,
					   .ptr = (uintptr_t)f->buf,
					   .npages = NPAGES };
	return ioctl(fd, request, &f->cmd) ? -errno : 0;
}

static void fill(uint32_t *p, uint32_t seed)
{
	for (size_t i = 0; i < BYTES / 4; i++)
		p[i] = i * 2654435761u + seed;
}

static bool holds(const uint32_t *p, uint32_t seed)
{
	for (size_t i = 0; i < BYTES / 4; i++)
		if (p[i] != (uint32_t)(i * 2654435761u + seed))
			return false;
	return true;
}

static void test_read(struct fixture *f)
{
	CHECK(cmd(f, f->fd, HMM_DMIRROR_READ) == 0);
	CHECK(f->cmd.cpages == NPAGES && f->cmd.faults == 1 && holds(f->buf, 1));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_READ) == 0 && f->cmd.faults == 0);
	CHECK(!mprotect(f->mem, BYTES, PROT_NONE));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_READ) == -EFAULT);
}

static void test_write(struct fixture *f)
{
	fill(f->buf, 2);
	CHECK(cmd(f, f->fd, HMM_DMIRROR_WRITE) == 0);
	CHECK(f->cmd.cpages == NPAGES && f->cmd.faults == 1 && holds(f->mem, 2));
	CHECK(!mprotect(f->mem, BYTES, PROT_READ));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_WRITE) == -EPERM);
	CHECK(!mprotect(f->mem, BYTES, PROT_READ | PROT_WRITE));
	f->buf[0]++;
	CHECK(cmd(f, f->fd, HMM_DMIRROR_WRITE) == 0 && f->mem[0] == f->buf[0]);
}

static void test_migrate(struct fixture *f)
{
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_DEV) == 0);
	CHECK(f->cmd.cpages == NPAGES && holds(f->buf, 1));
	CHECK(cmd(f, f->other, HMM_DMIRROR_MIGRATE_TO_DEV) == -ENOENT);
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_SYS) == 0 && f->cmd.cpages == NPAGES);
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_SYS) == 0 && f->cmd.cpages == 0);
	CHECK(holds(f->mem, 1));
	CHECK(!munmap((char *)f->mem + PAGE, PAGE));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_DEV) == -EINVAL);
}

static void test_touch(struct fixture *f)
{
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_DEV) == 0);
	for (size_t i = 0; i < BYTES / 8; i++)
		f->mem[i]++;
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_DEV) == 0 && f->cmd.cpages == NPAGES);
	for (size_t i = 0; i < BYTES / 8; i++)
		f->mem[i]--;
	CHECK(holds(f->mem, 1));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_RELEASE) == 0 && holds(f->mem, 1));
}

static void test_snapshot(struct fixture *f)
{
	uint8_t *prot = (uint8_t *)f->buf;
	unsigned int local = f->coherent ? BALUN_DMIRROR_PROT_COHERENT : BALUN_DMIRROR_PROT_LOCAL;

	CHECK(cmd(f, f->fd, HMM_DMIRROR_SNAPSHOT) == 0 && f->cmd.cpages == NPAGES);
	CHECK(prot[0] == BALUN_DMIRROR_PROT_WRITE && prot[NPAGES - 1] == prot[0]);
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_DEV) == 0);
	CHECK(cmd(f, f->fd, HMM_DMIRROR_SNAPSHOT) == 0);
	CHECK(prot[0] == (local | BALUN_DMIRROR_PROT_WRITE));
	CHECK(!munmap(f->mem, PAGE) && !mprotect(f->mem + PAGE / 4, PAGE, PROT_NONE));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_SNAPSHOT) == 0);
	CHECK(prot[0] == BALUN_DMIRROR_PROT_ERROR && prot[1] == BALUN_DMIRROR_PROT_ERROR);
}

static void test_exclusive(struct fixture *f)
{
	CHECK(cmd(f, f->fd, HMM_DMIRROR_EXCLUSIVE) == 0);
	CHECK(f->cmd.cpages == NPAGES && holds(f->buf, 1));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_CHECK_EXCLUSIVE) == -EPERM);
	for (size_t i = 0; i < BYTES / 4; i++)
		f->mem[i] += 0;
	CHECK(holds(f->mem, 1));
	CHECK(cmd(f, f->fd, HMM_DMIRROR_CHECK_EXCLUSIVE) == 0);
}

static void test_fork(struct fixture *f)
{
	int status, fd;
	pid_t pid;

	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_DEV) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		CHECK(holds(f->mem, 1));
		CHECK(cmd(f, f->fd, HMM_DMIRROR_READ) == -ECHILD);
		fd = open(f->coherent ? "/dev/hmm_dmirror2" : "/dev/hmm_dmirror0", O_RDWR);
		CHECK(fd >= 0);
		fill(f->buf, 3);
		CHECK(cmd(f, fd, HMM_DMIRROR_WRITE) == 0 && holds(f->mem, 3));
		CHECK(close(fd) == 0);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(holds(f->mem, 1));
	fill(f->mem, 4); /* until then UFFDIO_MOVE takes its pages for the child's too */
	CHECK(cmd(f, f->fd, HMM_DMIRROR_MIGRATE_TO_DEV) == 0 && holds(f->buf, 4));
}

static const struct {
	const char *name;
	void (*fn)(struct fixture *f);
} tests[] = {
	{ "read", test_read },	 { "write", test_write },	{ "migrate", test_migrate },
	{ "touch", test_touch }, { "snapshot", test_snapshot }, { "exclusive", test_exclusive },
	{ "fork", test_fork },
};

static void run(size_t i, bool coherent)
{
	struct fixture f = { .coherent = coherent };

	f.fd = open(coherent ? "/dev/hmm_dmirror2" : "/dev/hmm_dmirror0", O_RDWR);
	f.other = open(coherent ? "/dev/hmm_dmirror3" : "/dev/hmm_dmirror1", O_RDWR);
	CHECK(f.fd >= 0 && f.other >= 0);
	f.mem = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	f.buf = malloc(BYTES);
	CHECK(f.mem != MAP_FAILED && f.buf);
	fill(f.mem, 1);
	tests[i].fn(&f);
	CHECK(close(f.other) == 0 && close(f.fd) == 0);
	_exit(0);
}

int main(void)
{
	unsigned int passed = 0, failed = 0, skipped = 0;
	int status;
	pid_t pid;

	for (size_t i = 0; i < 2 * sizeof(tests) / sizeof(tests[0]); i++) {
		fflush(stdout);
		pid = fork();
		if (!pid)
			run(i / 2, i % 2);
		if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
		    WEXITSTATUS(status) == SKIP_EXIT) { /* the shim has said why */
			printf("SKIP %s: needs UFFDIO_MOVE\n", tests[i / 2].name);
			skipped++;
		} else if (pid < 0 || status) {
			printf("FAIL %s, %s memory\n", tests[i / 2].name,
			       i % 2 ? "coherent" : "private");
			failed++;
		} else {
			passed++;
		}
	}
	printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed != 0;
}
