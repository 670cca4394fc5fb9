/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A device dies: it costs exactly the pages that only it had, as SIGBUS on touch and in the list of
 * balun_lost(); the program, its other memory and its other devices go on.
 */
#include "matrix.h"

#include "balun/driver.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN (2 * MIB)

static sigjmp_buf back;
static void *volatile bus_addr;

static void on_bus(int sig, siginfo_t *si, void *ctx)
{
	(void)sig, (void)ctx;
	bus_addr = si->si_addr;
	siglongjmp(back, 1);
}

static bool is_bus(const char *p)
{
	if (sigsetjmp(back, 1)) {
		MX_CHECK(((uintptr_t)bus_addr & ~(PAGE - 1)) == ((uintptr_t)p & ~(PAGE - 1)));
		return true;
	}
	(void)*(volatile const char *)p;
	return false;
}

static void begin(struct mx *m)
{
	struct sigaction sa = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };

	MX_CHECK(!sigaction(mx_no_poison() ? SIGSEGV : SIGBUS, &sa, NULL));
	mx_open(m);
}

/* the lost memory is [p, p + len) and nothing else */
static void check_list(struct mx *m, const char *p, size_t len)
{
	struct balun_extent e[4];
	size_t n;

	MX_OK(balun_lost(m->space, NULL, e, 4, &n));
	MX_CHECK_EQ(n, len ? 1 : 0);
	MX_CHECK(!len || (e[0].addr == (uintptr_t)p && e[0].len == len));
}

static void check_lost(struct mx *m, char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += PAGE)
		MX_CHECK(is_bus(p + i));
	check_list(m, p, len);
}

static void end(struct mx *m, bool lost)
{
	MX_CHECK_EQ(balun_space_destroy(m->space), lost ? -EIO : 0);
	m->space = NULL;
	m->dev = NULL;
}

/* half of the memory is there when it dies */
static void cell_half(struct mx *m)
{
	char *p = mx_away(m, 2 * LEN, 1);

	mx_move(m, p + LEN, LEN, NULL);
	balun_device_lost(m->dev);
	mx_verify(p + LEN, LEN, 1);
	check_lost(m, p, LEN);
	mx_verify(p + LEN, LEN, 1);
	MX_CHECK_EQ(balun_migrate(m->space, p + LEN, LEN, m->dev, NULL), -ENODEV);
	MX_CHECK_EQ(balun_device_close(m->dev), -EIO);
	check_lost(m, p, LEN);
}

static void cell_nothing(struct mx *m)
{
	char *p = mx_away(m, LEN, 1);

	mx_verify(p, LEN, 1);
	balun_device_lost(m->dev);
	check_list(m, NULL, 0);
	mx_verify(p, LEN, 1);
}

static void cell_two(struct mx *m)
{
	char *p = mx_away(m, 2 * LEN, 1), *home = mx_map(LEN);
	struct balun_device *other;

	mx_fill(home, LEN, 2);
	MX_OK(balun_device_open(m->space, m->driver, &other));
	mx_move(m, p + LEN, LEN, other);
	balun_device_lost(m->dev);
	mx_move(m, home, LEN, other);
	check_lost(m, p, LEN);
	mx_verify(p + LEN, LEN, 1);
	mx_verify(home, LEN, 2);
	mx_move(m, p + LEN, LEN, other);
	MX_CHECK_EQ(balun_device_close(m->dev), -EIO);
	MX_OK(balun_device_close(other));
	mx_verify(p + LEN, LEN, 1);
	check_lost(m, p, LEN);
}

/* the kernel is refused what the program is: an error, no zeros into the file */
static void cell_calls(struct mx *m)
{
	char *p = mx_away(m, LEN, 1);
	int fd = memfd_create("matrix", MFD_CLOEXEC);

	balun_device_lost(m->dev);
	errno = 0;
	MX_CHECK(write(fd, p, PAGE) < 0 && (errno == EFAULT || errno == EHWPOISON));
	MX_CHECK(lseek(fd, 0, SEEK_END) == 0 && !ftruncate(fd, PAGE));
	errno = 0;
	MX_CHECK(pread(fd, p + PAGE, PAGE, 0) < 0 && (errno == EFAULT || errno == EHWPOISON));
	MX_CHECK(is_bus(p + PAGE));
	check_lost(m, p, LEN);
	close(fd);
}

/* fresh memory, by each of the ways to let go of the old */
static void cell_given_back(struct mx *m)
{
	char *p = mx_away(m, LEN, 1), *q;

	balun_device_lost(m->dev);
	check_lost(m, p, LEN);
	switch (m->cell->a) {
	case 0:
		MX_CHECK(!madvise(p, LEN, MADV_DONTNEED));
		break;
	case 1:
		MX_CHECK(mmap(p, LEN, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
		break;
	case 2:
		MX_CHECK(!munmap(p, LEN));
		MX_CHECK(mmap(p, LEN, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == p);
		break;
	case 3: /* moved, it is lost where it is then */
		q = mx_map(LEN);
		MX_CHECK(mremap(p, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
		check_lost(m, q, LEN);
		MX_CHECK(!munmap(q, LEN));
		p = mx_map(LEN);
		break;
	case 4: /* by a call that no hook sees */
		MX_CHECK(!syscall(SYS_madvise, p, LEN, MADV_DONTNEED));
		break;
	}
	check_list(m, NULL, 0);
	mx_verify(p, LEN, MX_ZEROS);
	mx_fill(p, LEN, 2);
	mx_verify(p, LEN, 2);
}

/* a child inherits what is lost, and what is not */
static void cell_fork(struct mx *m)
{
	char *p = mx_away(m, 2 * LEN, 1);
	size_t i;
	pid_t pid;

	mx_move(m, p + LEN, LEN, NULL);
	balun_device_lost(m->dev);
	pid = m->cell->a ? syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
	MX_CHECK(pid >= 0);
	if (!pid) {
		for (i = 0; i < LEN; i += PAGE)
			MX_CHECK(is_bus(p + i));
		mx_verify(p + LEN, LEN, 1);
		_exit(0);
	}
	mx_reap(pid);
	check_lost(m, p, LEN);
	mx_verify(p + LEN, LEN, 1);
}

static int running; /* workers of spin_fn() that are at work */

static void spin_fn(struct soft_worker *w, uint64_t arg)
{
	uint64_t v, at;

	for (;;) {
		for (at = 0; at < LEN; at += PAGE)
			soft_read(w, arg + at, &v, sizeof(v));
		__atomic_store_n(&running, 1, __ATOMIC_RELEASE);
	}
}

/* work that runs for ever ends with an error when its device has no memory any more */
static void cell_running(struct mx *m)
{
	char *p = mx_away(m, LEN, 1);
	uint64_t fence;

	MX_OK(balun_soft_launch(m->dev, spin_fn, (uintptr_t)p, 0, &fence));
	while (!__atomic_load_n(&running, __ATOMIC_ACQUIRE))
		sched_yield();
	balun_device_lost(m->dev);
	check_list(m, p, LEN);
	MX_CHECK(balun_soft_wait(m->dev, fence, NULL) < 0);
	check_lost(m, p, LEN);
}

static void cell(struct mx *m)
{
	static void (*const fn[])(struct mx *) = {
		cell_half, cell_nothing, cell_two,	  cell_calls,
		cell_fork, cell_running, cell_given_back,
	};

	begin(m);
	if (m->cell->b == 5 && !mx_has_functions(m))
		mx_skip("the device runs no functions");
	fn[m->cell->b](m);
	/* the space's end tells of a loss unless the device was closed before, and told */
	end(m, m->cell->b != 1 && m->cell->b != 0 && m->cell->b != 2);
}

const struct mx_cell cells_loss[] = {
	{ "loss/driver-says/half-there", cell, 0, 0, MX_NO_SPACE },
	{ "loss/driver-says/nothing-there", cell, 0, 1, MX_NO_SPACE },
	{ "loss/driver-says/two-devices", cell, 0, 2, MX_NO_SPACE },
	{ "loss/driver-says/system-calls", cell, 0, 3, MX_NO_SPACE },
	{ "loss/driver-says/fork", cell, 0, 4, MX_NO_SPACE | MX_FORK },
	{ "loss/driver-says/clone", cell, 1, 4, MX_NO_SPACE | MX_FORK | MX_FORK_EVENT | MX_POISON },
	{ "loss/driver-says/function-runs", cell, 0, 5, MX_NO_SPACE },
	{ "loss/given-back/dontneed", cell, 0, 6, MX_NO_SPACE | MX_POISON },
	{ "loss/given-back/map-fixed", cell, 1, 6, MX_NO_SPACE },
	{ "loss/given-back/munmap", cell, 2, 6, MX_NO_SPACE },
	{ "loss/given-back/mremap", cell, 3, 6, MX_NO_SPACE },
	{ "loss/given-back/raw-dontneed", cell, 4, 6, MX_NO_SPACE | MX_POISON },
	{ NULL, NULL, 0, 0, 0 },
};
