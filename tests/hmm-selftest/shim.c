// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Preloaded into a program that knows /dev/hmm_dmirrorN, the device of the kernel's HMM selftest:
 * open, ioctl, mmap and close of it become calls of the dmirror driver. Devices 0 and 1 have
 * private memory, 2 and 3 coherent. The descriptor is a real one, of an empty memfd, which is what
 * a mapping of the device maps.
 *
 * A process gets its space at its first open; a forked child, whose space is not its parent's, gets
 * its own the same way. A descriptor that a child has inherited is its parent's mirror, and of no
 * use to it (ECHILD). As in the kernel a device's touch moves nothing: that is the policy.
 *
 * What no user of userfaultfd can do (private pages of a file on disk do not migrate) ends the test
 * as skipped, the way the harness does it, with the reason: SKIP_EXIT is its exit code.
 *
 * The hooks call the system directly, for libbalun itself calls them. libbalun must be preloaded
 * too, after this, so that its own hooks of memory calls come before libc.
 */
#undef _FILE_OFFSET_BITS /* it renames what is hooked here */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "balun/balun.h"
#include "balun/dmirror.h"
#include "balun/driver.h"
#include "balun/policy.h"
#include "tests/hmm-selftest/abi.h"

#ifndef SKIP_EXIT
#define SKIP_EXIT 77
#endif

#define HOOK __attribute__((visibility("default")))

#define UNITS	4
#define FDS	1024
#define FOREIGN 0xff /* in unit_of: a parent's */

/* who changes these holds lock for writing; a command, for reading; hooks look at unit_of only */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static uint8_t unit_of[FDS]; /* 0: not a device, else unit + 1 */
static struct balun_space *space;
static struct {
	struct balun_device *dev;
	unsigned int opens;
} unit[UNITS];

/* ---- spaces and devices; lock held for writing ---- */

static void decide(const struct balun_question *q, struct balun_answer *ret_a)
{
	/* and a CPU's touch, the one page */
	ret_a->stay = q->device != 0;
}

static const struct balun_policy policy = {
	.size = sizeof(policy),
	.name = "hmm-selftest",
	.decide = decide,
};

static void in_child(void)
{
	unsigned int i;

	for (i = 0; i < FDS; i++)
		if (unit_of[i])
			unit_of[i] = FOREIGN;
	memset(unit, 0, sizeof(unit));
	space = NULL;
	pthread_rwlock_init(&lock, NULL);
}

static int space_get(void)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .policy = &policy };
	static bool registered;

	if (space)
		return 0;
	if (!registered)
		pthread_atfork(NULL, NULL, in_child);
	registered = true;
	return balun_space_create(&opts, &space);
}

static int unit_get(unsigned int n)
{
	static const char *const spec[] = { "dmirror:mem=64M", "dmirror:mem=64M,coherent=1" };
	int err = unit[n].opens ? 0 : space_get();

	if (!err && !unit[n].opens)
		err = balun_device_open(space, spec[n / 2], &unit[n].dev);
	if (err)
		fprintf(stderr, "hmm shim: %s\n", balun_reason());
	else
		unit[n].opens++;
	return err;
}

static int unit_put(unsigned int n)
{
	return --unit[n].opens ? 0 : balun_device_close(unit[n].dev);
}

/* ---- open and close ---- */

static int fail(int err)
{
	errno = -err;
	return -1;
}

static int open_unit(unsigned int n, int flags)
{
	char name[16];
	int fd, err;

	snprintf(name, sizeof(name), "hmm_dmirror%u", n);
	fd = memfd_create(name, flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
	if (fd < 0)
		return -1;
	pthread_rwlock_wrlock(&lock);
	err = fd < FDS ? unit_get(n) : -EMFILE;
	if (!err)
		__atomic_store_n(&unit_of[fd], n + 1, __ATOMIC_RELEASE);
	pthread_rwlock_unlock(&lock);
	if (!err)
		return fd;
	syscall(SYS_close, fd);
	return fail(err);
}

static int open_any(int dir, const char *path, int flags, va_list ap)
{
	static const char prefix[] = "/dev/hmm_dmirror";
	const size_t len = sizeof(prefix) - 1;

	if (!strncmp(path, prefix, len) && path[len] >= '0' && path[len] < '0' + UNITS &&
	    !path[len + 1])
		return open_unit(path[len] - '0', flags);
	return syscall(SYS_openat, dir, path, flags,
		       flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0);
}

#define OPEN(name, dir, ...)                                                                       \
	HOOK int name(__VA_ARGS__, int flags, ...)                                                 \
	{                                                                                          \
		va_list ap;                                                                        \
		int fd;                                                                            \
                                                                                                   \
		va_start(ap, flags);                                                               \
		fd = open_any(dir, path, flags, ap);                                               \
		va_end(ap);                                                                        \
		return fd;                                                                         \
	}
OPEN(open, AT_FDCWD, const char *path)
OPEN(open64, AT_FDCWD, const char *path)
OPEN(openat, at, int at, const char *path)
OPEN(openat64, at, int at, const char *path)

/* 0: not a device */
static unsigned int fd_unit(int fd)
{
	return fd >= 0 && fd < FDS ? __atomic_load_n(&unit_of[fd], __ATOMIC_ACQUIRE) : 0;
}

HOOK int close(int fd)
{
	int err = 0;

	if (!fd_unit(fd))
		return syscall(SYS_close, fd);
	pthread_rwlock_wrlock(&lock);
	if (unit_of[fd] && unit_of[fd] != FOREIGN)
		err = unit_put(unit_of[fd] - 1);
	unit_of[fd] = 0;
	pthread_rwlock_unlock(&lock);
	syscall(SYS_close, fd);
	return err ? fail(err) : 0;
}

/* ---- commands ---- */

/* the program's memory, which need not be there: as copy_from_user() and copy_to_user() */
static int user_read(void *to, uint64_t from, size_t len)
{
	struct iovec l = { to, len }, r = { (void *)(uintptr_t)from, len };

	return process_vm_readv(getpid(), &l, 1, &r, 1, 0) == (ssize_t)len ? 0 : -EFAULT;
}

static int user_write(uint64_t to, const void *from, size_t len)
{
	struct iovec l = { (void *)(uintptr_t)from, len }, r = { (void *)(uintptr_t)to, len };

	return process_vm_writev(getpid(), &l, 1, &r, 1, 0) == (ssize_t)len ? 0 : -EFAULT;
}

static bool covers_privately(const char *line, uint64_t addr)
{
	unsigned long long start, end, inode;
	char perm[5];

	return sscanf(line, "%llx-%llx %4s %*x %*x:%*x %llu", &start, &end, perm, &inode) == 4 &&
	       addr >= start && addr < end && perm[3] == 'p' && inode;
}

/*
 * A private mapping of a file, by /proc/self/maps. Without malloc(): the test's snapshot lets the
 * device write a page into 7 bytes of its heap, as it does with the kernel's.
 */
static bool is_private_file(uint64_t addr)
{
	int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char line[512];
	size_t n = 0;
	bool found = false;

	while (fd >= 0 && !found && read(fd, line + n, 1) == 1) {
		if (line[n] != '\n') {
			n += n < sizeof(line) - 2;
			continue;
		}
		line[n] = 0;
		n = 0;
		found = covers_privately(line, addr);
	}
	if (fd >= 0)
		syscall(SYS_close, fd);
	return found;
}

static void cannot(const char *why)
{
	fprintf(stderr, "# cannot be done here: %s\n", why);
	_exit(SKIP_EXIT);
}

static void check_file(const struct balun_dmirror_cmd *c)
{
	if (c->op == BALUN_DMIRROR_TO_DEVICE && is_private_file(c->addr))
		cannot("userfaultfd does not watch private mappings of files");
}

/* where the kernel lacks UFFDIO_MOVE a coherent device is private, and a snapshot would say so */
static void check_coherent(unsigned int no, const struct balun_dmirror_cmd *c)
{
	const unsigned char *seen = c->buf;
	uint64_t i;

	if (c->op != BALUN_DMIRROR_SNAPSHOT || no < UNITS / 2)
		return;
	for (i = 0; i < c->len / BALUN_PAGE_SIZE; i++)
		if ((seen[i] & 0xf0) == BALUN_DMIRROR_PROT_LOCAL)
			cannot("coherent memory needs UFFDIO_MOVE");
}

/* lock held for reading */
static int command(unsigned int no, int op, struct hmm_dmirror_cmd *cmd)
{
	struct balun_dmirror_cmd c = {
		.size = sizeof(c), .op = op, .addr = cmd->addr, .len = cmd->npages * BALUN_PAGE_SIZE
	};
	int err = 0;

	if (op < 0 || cmd->addr % BALUN_PAGE_SIZE || cmd->addr >= cmd->addr + c.len)
		return -EINVAL;
	check_file(&c);
	c.buf = balun_mem_alloc(c.len);
	if (!c.buf)
		return -ENOMEM;
	if (op == BALUN_DMIRROR_WRITE)
		err = user_read(c.buf, cmd->ptr, c.len);
	if (!err)
		err = balun_dmirror(unit[no].dev, &c);
	if (!err)
		check_coherent(no, &c);
	if (!err && hmm_filled(&c))
		err = user_write(cmd->ptr, c.buf, hmm_filled(&c));
	balun_mem_free(c.buf, c.len);
	cmd->cpages = c.bytes / BALUN_PAGE_SIZE;
	cmd->faults = c.faults;
	return err;
}

HOOK int ioctl(int fd, unsigned long request, ...)
{
	struct hmm_dmirror_cmd cmd;
	unsigned long arg;
	va_list ap;
	int err;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	if (!fd_unit(fd))
		return syscall(SYS_ioctl, fd, request, arg);
	pthread_rwlock_rdlock(&lock);
	if (!unit_of[fd])
		err = -EBADF;
	else if (unit_of[fd] == FOREIGN)
		err = -ECHILD;
	else
		err = user_read(&cmd, arg, sizeof(cmd));
	if (!err)
		err = command(unit_of[fd] - 1, hmm_op(request), &cmd);
	if (!err)
		err = user_write(arg, &cmd, sizeof(cmd));
	pthread_rwlock_unlock(&lock);
	return err ? fail(err) : 0;
}

/* the device puts its pages in at once: zeros, and only to be read until somebody writes */
HOOK void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	bool device = fd_unit(fd) && !(flags & MAP_ANONYMOUS);
	struct stat st;
	size_t i;
	char *p;

	if (device && !fstat(fd, &st) && st.st_size < (off_t)(off + len) &&
	    ftruncate(fd, off + len))
		return MAP_FAILED;
	p = (char *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
	for (i = 0; device && p != MAP_FAILED && prot & PROT_READ && i < len; i += BALUN_PAGE_SIZE)
		(void)*(volatile char *)(p + i);
	return p;
}

HOOK void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off)
	__attribute__((alias("mmap")));
