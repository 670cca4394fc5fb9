// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Calls with one thing wrong, and the error that each must get. */
#include "ioctl_fuzz.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE BALUN_PAGE_SIZE

static int failed;
static char why[BALUN_UAPI_REASON];
static char *memory; /* 64 pages; the page after them is not mapped */

#define WANT(call, want) check(__LINE__, #call, call, want)

static void check(int line, const char *call, int got, int want)
{
	if (got == want)
		return;
	printf("FAIL line %d: %s is %d (%s), not %d; reason: %s\n", line, call, got, strerror(-got),
	       want, why);
	failed++;
}

static int raw(int fd, unsigned long nr, void *arg)
{
	return ioctl(fd, nr, arg) < 0 ? -errno : 0;
}

static int call(int fd, unsigned long nr, void *arg, size_t size)
{
	struct balun_uapi_head *h = arg;

	why[0] = 0;
	*h = (struct balun_uapi_head){ .size = size, .reason = (uintptr_t)why };
	return raw(fd, nr, arg);
}

static int head(int fd, unsigned long nr)
{
	struct balun_uapi_head h;

	return call(fd, nr, &h, sizeof(h));
}

static int new_file(void)
{
	int fd = open(BALUN_UAPI_NODE, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		perror(BALUN_UAPI_NODE);
		exit(1);
	}
	return fd;
}

static int new_space(void)
{
	int fd = new_file();

	WANT(head(fd, BALUN_IOC_CREATE), 0);
	return fd;
}

static int open_device(int fd, const char *spec, __u64 *ret_handle)
{
	struct balun_uapi_open o = { .spec = (uintptr_t)spec };
	int err = call(fd, BALUN_IOC_OPEN, &o, sizeof(o));

	*ret_handle = o.handle;
	return err;
}

static int device(int fd, unsigned long nr, __u64 handle)
{
	struct balun_uapi_device d = { .handle = handle };

	return call(fd, nr, &d, sizeof(d));
}

static int range(int fd, unsigned long nr, const void *addr, __u64 len, __u64 handle, __u64 arg)
{
	struct balun_uapi_range r = {
		.addr = (uintptr_t)addr, .len = len, .handle = handle, .arg = arg
	};

	return call(fd, nr, &r, sizeof(r));
}

static int list(int fd, unsigned long nr, __u64 len, void *extents, __u64 n)
{
	struct balun_uapi_list l = {
		.addr = (uintptr_t)memory, .len = len, .extents = (uintptr_t)extents, .n = n
	};

	return call(fd, nr, &l, sizeof(l));
}

static int stats(int fd, void *to, __u64 len)
{
	struct balun_uapi_stats s = { .stats = (uintptr_t)to, .len = len };

	return call(fd, BALUN_IOC_STATS, &s, sizeof(s));
}

static __u32 data_use, unused; /* of the next commands */

static int command(int fd, __u64 handle, const char *driver, void *arg, __u32 arg_len, void *data,
		   __u64 data_len)
{
	struct balun_uapi_command c = {
		.handle = handle,
		.arg = (uintptr_t)arg,
		.arg_len = arg_len,
		.data = (uintptr_t)data,
		.data_len = data_len,
		.data_use = data_use,
		.unused = unused,
	};

	memcpy(c.driver, driver, strnlen(driver, sizeof(c.driver)));
	return call(fd, BALUN_IOC_COMMAND, &c, sizeof(c));
}

/* ---- the struct ---- */

static void numbers(int fd)
{
	struct balun_uapi_info i = { .head.size = sizeof(i) };

	WANT(raw(fd, _IO(BALUN_IOC, 0x7f), &i), -ENOTTY);
	WANT(raw(fd, _IO(BALUN_IOC, 0xff), &i), -ENOTTY);
	WANT(raw(fd, _IO('b', 0), &i), -ENOTTY);
	WANT(raw(fd, _IOR(BALUN_IOC, 0, struct balun_uapi_info), &i), -ENOTTY);
	WANT(raw(fd, BALUN_IOC_INFO, &i), 0);
	WANT(i.version, BALUN_UAPI_VERSION);
}

static void sizes(int fd)
{
	struct balun_uapi_info *i = (void *)memory;
	size_t size = sizeof(*i);

	memset(memory, 0, PAGE + 64);
	i->head.size = size - 1;
	WANT(raw(fd, BALUN_IOC_INFO, i), -EINVAL);
	i->head.size = 0;
	WANT(raw(fd, BALUN_IOC_INFO, i), -EINVAL);
	i->head.size = size + 64;
	WANT(raw(fd, BALUN_IOC_INFO, i), 0);
	WANT((int)i->head.size, (int)size + 64);
	memory[size + 63] = 1;
	WANT(raw(fd, BALUN_IOC_INFO, i), -E2BIG);
	memory[size + 63] = 0;
	i->head.size = PAGE;
	WANT(raw(fd, BALUN_IOC_INFO, i), 0);
	i->head.size = PAGE + 1;
	WANT(raw(fd, BALUN_IOC_INFO, i), -E2BIG);
	i->head.size = ~0u;
	WANT(raw(fd, BALUN_IOC_INFO, i), -E2BIG);
	i->head.size = size;
	i->head.flags = 1;
	WANT(raw(fd, BALUN_IOC_INFO, i), -EINVAL);
	i->head.flags = 1u << 31;
	WANT(raw(fd, BALUN_IOC_INFO, i), -EINVAL);
}

static void pointers(int fd)
{
	struct balun_uapi_info *end = (void *)(memory + 64 * PAGE - sizeof(*end));
	struct balun_uapi_head *last = (void *)(memory + 64 * PAGE - 4);
	struct balun_uapi_driver d = { 0 };
	char *constant;

	WANT(raw(fd, BALUN_IOC_INFO, NULL), -EFAULT);
	WANT(raw(fd, BALUN_IOC_INFO, (void *)0xffff888000000000UL), -EFAULT);
	WANT(raw(fd, BALUN_IOC_INFO, (void *)~0UL), -EFAULT);
	last->size = sizeof(struct balun_uapi_info);
	WANT(raw(fd, BALUN_IOC_INFO, last), -EFAULT);
	WANT(raw(fd, BALUN_IOC_INFO, memory + 64 * PAGE), -EFAULT);
	memset(end, 0, sizeof(*end));
	WANT(call(fd, BALUN_IOC_INFO, end, sizeof(*end)), 0);
	WANT(call(fd, BALUN_IOC_INFO, end, sizeof(*end) + 8), -EFAULT);

	constant = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	((struct balun_uapi_head *)constant)->size = sizeof(struct balun_uapi_info);
	mprotect(constant, PAGE, PROT_READ);
	WANT(raw(fd, BALUN_IOC_INFO, constant), -EFAULT);
	munmap(constant, PAGE);

	/* the error of a call stays what it is when its reason has no room */
	d.index = 1000;
	WANT(call(fd, BALUN_IOC_DRIVER, &d, sizeof(d)), -ENOENT);
	d.head.reason = 0xffff888000000000UL;
	WANT(raw(fd, BALUN_IOC_DRIVER, &d), -ENOENT);
	d.index = ~0ULL;
	WANT(raw(fd, BALUN_IOC_DRIVER, &d), -ENOENT);
}

/* ---- spaces ---- */

static void no_space(int fd)
{
	__u64 handle;

	WANT(open_device(fd, "ram", &handle), -EBADF);
	WANT(device(fd, BALUN_IOC_CLOSE, 1), -EBADF);
	WANT(device(fd, BALUN_IOC_DEVICE, 1), -EBADF);
	WANT(range(fd, BALUN_IOC_PIN, memory, PAGE, 0, 0), -EBADF);
	WANT(range(fd, BALUN_IOC_FAULT, memory, PAGE, 1, 0), -EBADF);
	WANT(list(fd, BALUN_IOC_QUERY, PAGE, memory, 1), -EBADF);
	WANT(stats(fd, memory, sizeof(struct balun_stats)), -EBADF);
	WANT(command(fd, 1, "ram", NULL, 0, NULL, 0), -EBADF);
	WANT(head(fd, BALUN_IOC_SYNC), -EBADF);
	WANT(head(fd, BALUN_IOC_FENCE), -EBADF);
	WANT(head(fd, BALUN_IOC_DESTROY), -EBADF);
}

static void life(void)
{
	int fd = new_file(), status;
	__u64 handle;
	pid_t pid;

	no_space(fd);
	WANT(head(fd, BALUN_IOC_CREATE), 0);
	WANT(head(fd, BALUN_IOC_CREATE), -EBUSY);
	WANT(open_device(fd, "ram:mem=2M", &handle), 0);
	pid = fork();
	if (!pid) {
		failed = 0;
		WANT(head(fd, BALUN_IOC_SYNC), -ECHILD);
		WANT(open_device(fd, "ram:mem=2M", &handle), -ECHILD);
		WANT(device(fd, BALUN_IOC_CLOSE, handle), -ECHILD);
		WANT(head(fd, BALUN_IOC_DESTROY), -ECHILD);
		numbers(fd);
		_exit(failed);
	}
	waitpid(pid, &status, 0);
	WANT(status, 0);
	WANT(device(fd, BALUN_IOC_DEVICE, handle), 0);
	WANT(head(fd, BALUN_IOC_DESTROY), 0);
	no_space(fd);
	WANT(head(fd, BALUN_IOC_CREATE), -EBUSY);
	close(fd);
}

/* ---- devices ---- */

static void specs(int fd)
{
	char *long_spec = memory;
	__u64 handle;

	memset(long_spec, 'a', 4 * PAGE);
	WANT(open_device(fd, long_spec, &handle), -EINVAL);
	WANT(open_device(fd, NULL, &handle), -EFAULT);
	WANT(open_device(fd, (char *)0xffff888000000000UL, &handle), -EFAULT);
	WANT(open_device(fd, "", &handle), -EINVAL);
	WANT(open_device(fd, "ram:", &handle), -EINVAL);
	WANT(open_device(fd, "nobody", &handle), -ENODEV);
	WANT(open_device(fd, "trace", &handle), -EINVAL);
	WANT(open_device(fd, "ram:mem=4096", &handle), -EINVAL);
	WANT(!why[0], 0);
	WANT(open_device(fd, "ram:mem=1000G", &handle), -ENOMEM);
	WANT(open_device(fd, "dmirror:mem=1000G", &handle), -ENOMEM);
}

static void handles(int fd)
{
	__u64 many[BALUN_MAX_DEVICES], handle, other_handle;
	int other = new_space(), i;

	for (i = 0; i < BALUN_MAX_DEVICES; i++)
		WANT(open_device(fd, "ram:mem=2M", &many[i]), 0);
	WANT(open_device(fd, "ram:mem=2M", &handle), -ENOSPC);
	for (i = 0; i < BALUN_MAX_DEVICES; i++) {
		WANT(device(fd, BALUN_IOC_DEVICE, many[i] + 16), -ENODEV);
		WANT(device(fd, BALUN_IOC_CLOSE, many[i]), 0);
		WANT(device(fd, BALUN_IOC_CLOSE, many[i]), -ENODEV);
		WANT(device(fd, BALUN_IOC_DEVICE, many[i]), -ENODEV);
	}
	WANT(open_device(fd, "ram:mem=2M", &handle), 0);
	WANT(device(fd, BALUN_IOC_DEVICE, many[0]), -ENODEV);
	WANT(open_device(other, "ram:mem=2M", &other_handle), 0);
	WANT(open_device(other, "ram:mem=2M", &other_handle), 0);
	WANT(device(fd, BALUN_IOC_DEVICE, other_handle), -ENODEV);
	WANT(device(fd, BALUN_IOC_CLOSE, 0), -ENODEV);
	WANT(device(fd, BALUN_IOC_DEVICE, 0), -EINVAL);
	WANT(device(fd, BALUN_IOC_DEVICE, ~0ULL), -ENODEV);
	WANT(range(fd, BALUN_IOC_PREFETCH, memory, PAGE, ~0ULL, 0), -ENODEV);
	WANT(range(fd, BALUN_IOC_FAULT, memory, PAGE, 0, 0), -EINVAL);
	WANT(command(fd, 0, "ram", NULL, 0, NULL, 0), -EINVAL);
	WANT(device(fd, BALUN_IOC_CLOSE, handle), 0);
	close(other);
}

/* ---- ranges, lists, commands ---- */

static void ranges(int fd, __u64 handle)
{
	struct balun_uapi_migrate m = { .addr = (uintptr_t)memory, .handle = handle };
	struct balun_uapi_evict e = { .bytes = 1 };

	WANT(call(fd, BALUN_IOC_MIGRATE, &m, sizeof(m)), -EINVAL);
	m.len = ~0ULL;
	WANT(call(fd, BALUN_IOC_MIGRATE, &m, sizeof(m)), -EINVAL);
	m.addr = 0xffff888000000000UL;
	m.len = PAGE;
	WANT(call(fd, BALUN_IOC_MIGRATE, &m, sizeof(m)), -EINVAL);
	m.addr = (uintptr_t)memory + 64 * PAGE;
	WANT(call(fd, BALUN_IOC_MIGRATE, &m, sizeof(m)), -EFAULT);
	WANT(call(fd, BALUN_IOC_EVICT, &e, sizeof(e)), -EINVAL);
	WANT(range(fd, BALUN_IOC_PIN, memory, 0, 0, 0), -EINVAL);
	WANT(range(fd, BALUN_IOC_PIN, memory, PAGE, handle, 0), -EINVAL);
	WANT(range(fd, BALUN_IOC_PIN, memory, PAGE, 0, 1), -EINVAL);
	WANT(range(fd, BALUN_IOC_UNPIN, memory, PAGE, 0, 0), -ENOENT);
	WANT(range(fd, BALUN_IOC_PREFETCH, memory, PAGE, handle, 1), -EINVAL);
	WANT(range(fd, BALUN_IOC_ADVISE, memory, PAGE, handle, 99), -EINVAL);
	WANT(range(fd, BALUN_IOC_ADVISE, memory, PAGE, handle, 1ULL << 32), -EINVAL);
	WANT(range(fd, BALUN_IOC_FAULT, memory, PAGE, handle, 4), -EINVAL);
	WANT(range(fd, BALUN_IOC_FAULT, memory, PAGE, handle, 1ULL << 32), -EINVAL);
	WANT(range(fd, BALUN_IOC_FAULT, NULL, PAGE, handle, 0), -EFAULT);
	WANT(range(fd, BALUN_IOC_FAULT, memory + 64 * PAGE, PAGE, handle, 0), -EFAULT);
	WANT(range(fd, BALUN_IOC_FAULT, (void *)0xffff888000000000UL, PAGE, handle, 0), -EFAULT);
}

static void lists(int fd)
{
	char *after = memory + 64 * PAGE;

	WANT(list(fd, BALUN_IOC_QUERY, PAGE, memory, 0), -EINVAL);
	WANT(list(fd, BALUN_IOC_QUERY, 0, memory, 1), -EINVAL);
	WANT(list(fd, BALUN_IOC_QUERY, ~0ULL, memory, 1), -EINVAL);
	WANT(list(fd, BALUN_IOC_QUERY, PAGE, NULL, 1), -EFAULT);
	WANT(list(fd, BALUN_IOC_QUERY, PAGE, after, 1), -EFAULT);
	WANT(list(fd, BALUN_IOC_QUERY, PAGE, after - 16, ~0ULL), -EFAULT);
	WANT(list(fd, BALUN_IOC_QUERY, PAGE, after - sizeof(struct balun_extent), ~0ULL), 0);
	WANT(list(fd, BALUN_IOC_LOST, PAGE, memory, 1), -EINVAL);
	WANT(list(fd, BALUN_IOC_LOST, 0, memory, 0), -EINVAL);
	WANT(list(fd, BALUN_IOC_LOST, 0, NULL, 1), 0); /* nothing is */
	WANT(stats(fd, memory, 0), -EINVAL);
	WANT(stats(fd, memory, 7), -EINVAL);
	WANT(stats(fd, memory, 8), 0);
	WANT(stats(fd, memory, PAGE), 0);
	WANT(*(__u64 *)memory == PAGE && !memory[PAGE - 1], 1);
	WANT(stats(fd, memory, PAGE + 1), -EINVAL);
	WANT(stats(fd, after - 8, 16), -EFAULT);
	WANT(stats(fd, (void *)0xffff888000000000UL, 16), -EFAULT);
}

static void commands(int fd)
{
	char name[33] = "dmirrordmirrordmirrordmirrordmir";
	__u64 arg[7] = { sizeof(arg), 0, (uintptr_t)memory, PAGE };
	__u64 handle;

	WANT(open_device(fd, "trace(dmirror:mem=2M):quiet=1", &handle), 0);
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory + PAGE, PAGE), 0);
	WANT(command(fd, handle, name, arg, sizeof(arg), NULL, 0), -EINVAL);
	WANT(command(fd, handle, "", arg, sizeof(arg), NULL, 0), -EINVAL);
	WANT(command(fd, handle, "ram", arg, sizeof(arg), NULL, 0), -EINVAL);
	WANT(command(fd, handle, "dmirror", arg, BALUN_COMMAND_ARG + 1, NULL, 0), -EINVAL);
	WANT(command(fd, handle, "dmirror", arg, ~0u, NULL, 0), -EINVAL);
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, BALUN_UAPI_DATA + 1),
	     -EINVAL);
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, ~0ULL), -EINVAL);
	WANT(command(fd, handle, "dmirror", NULL, sizeof(arg), NULL, 0), -EFAULT);
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), NULL, PAGE), -EFAULT);
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, BALUN_UAPI_DATA), -EFAULT);
	WANT(command(fd, handle, "dmirror", NULL, 0, NULL, 0), -EINVAL);
	WANT(command(fd, handle, "dmirror", arg, 8, NULL, 0), -EINVAL);
	/* less data than the command is about */
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), NULL, 0), -EINVAL);
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, PAGE - 1), -EINVAL);
	data_use = BALUN_DATA_OUT + 1;
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, PAGE), -EINVAL);
	data_use = 0;
	unused = 1;
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, PAGE), -EINVAL);
	unused = 0;
	arg[1] = 1000;
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, PAGE), -EINVAL);
	WANT(device(fd, BALUN_IOC_CLOSE, handle), 0);
	WANT(command(fd, handle, "dmirror", arg, sizeof(arg), memory, PAGE), -ENODEV);
}

/* ---- much memory ---- */

static const unsigned long on_ranges[] = { BALUN_IOC_MIGRATE, BALUN_IOC_QUERY, BALUN_IOC_ADVISE,
					   BALUN_IOC_SYNC };

/* one of those calls in a space of its own; of sync what it waits for is the prefetch of the range.
 * A byte into @started when it is to begin */
static int range_call(unsigned long nr, __u64 addr, __u64 len, int started)
{
	struct balun_uapi_migrate m = { .addr = addr, .len = len };
	struct balun_extent ext;
	struct balun_uapi_list l = { .addr = addr, .len = len, .extents = (uintptr_t)&ext, .n = 1 };
	int fd = new_space();
	__u64 handle;

	if (nr == BALUN_IOC_SYNC) {
		WANT(open_device(fd, "ram:mem=2M", &handle), 0);
		WANT(range(fd, BALUN_IOC_PREFETCH, (void *)(uintptr_t)addr, len, handle, 0), 0);
	}
	if (started >= 0 && write(started, "", 1) != 1)
		return 1;
	if (nr == BALUN_IOC_MIGRATE)
		return call(fd, nr, &m, sizeof(m));
	if (nr == BALUN_IOC_SYNC)
		return head(fd, nr);
	if (nr == BALUN_IOC_ADVISE)
		return range(fd, nr, (void *)(uintptr_t)addr, len, 0, BALUN_ADVISE_DISCARD);
	return call(fd, nr, &l, sizeof(l));
}

/* a call on all of the address space does not look at each block of it */
static void everywhere(void)
{
	int status;
	size_t i;
	pid_t pid;

	for (i = 0; i < sizeof(on_ranges) / sizeof(on_ranges[0]); i++) {
		pid = fork();
		if (!pid) {
			failed = 0;
			WANT(range_call(on_ranges[i], 0, 1ULL << 47, -1), 0);
			_exit(failed);
		}
		waitpid(pid, &status, 0);
		WANT(status, 0);
	}
}

/* a call on much memory takes long, and is left when its process is killed */
static void long_calls(void)
{
	const size_t len = 1UL << 45;
	int started[2], status;
	size_t i;
	pid_t pid;

	for (i = 0; i < sizeof(on_ranges) / sizeof(on_ranges[0]); i++) {
		if (pipe(started))
			return;
		pid = fork();
		if (!pid) {
			void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

			if (p == MAP_FAILED)
				_exit(1);
			_exit(!!range_call(on_ranges[i], (uintptr_t)p, len, started[1]));
		}
		close(started[1]);
		WANT((int)read(started[0], why, 1), 1);
		close(started[0]);
		kill(pid, SIGKILL);
		WANT(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), 1);
	}
	why[0] = 0;
}

int bad_calls(void)
{
	__u64 handle;
	int fd;

	memory = mmap(NULL, 65 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(memory + 64 * PAGE, PAGE);
	fd = new_file();
	numbers(fd);
	sizes(fd);
	pointers(fd);
	close(fd);
	life();
	fd = new_space();
	specs(fd);
	handles(fd);
	WANT(open_device(fd, "ram:mem=2M", &handle), 0);
	ranges(fd, handle);
	lists(fd);
	commands(fd);
	close(fd);
	everywhere();
	long_calls();
	munmap(memory, 64 * PAGE);
	return failed;
}
