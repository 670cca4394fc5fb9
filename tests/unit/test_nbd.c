// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The driver nbd against real servers (nbdkit) on the engine uffd: what is lost when one dies and
 * what a mirror keeps, and that a program does not meet the helper process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "balun/balun.h"
#include "env/env.h"
#include "tests/unit/lost.h"
#include "tests/unit/nbd_server.h"
#include "tests/unit/rand.h"

#define PAGE  4096UL
#define LEN   (4UL << 20)
#define PAGES (LEN / PAGE)

/* ---- a program ---- */

static struct server a, b;
static struct balun_space *space;
static char *mem; /* LEN bytes of the program */

static void fill(void)
{
	unsigned long i;

	for (i = 0; i < LEN; i += 8)
		*(unsigned long *)(mem + i) = i * 0x9e3779b97f4a7c15UL;
}

static sigjmp_buf no_page;

static void on_sigbus(int sig)
{
	siglongjmp(no_page, 1);
}

/* right pages of [first, first + n); the others are a signal, never wrong */
static unsigned int right(unsigned int first, unsigned int n)
{
	struct sigaction bus = { .sa_handler = on_sigbus }, old;
	volatile unsigned int i, good = 0;
	unsigned long at;

	sigaction(lost_signal(), &bus, &old);
	for (i = first; i < first + n; i++) {
		if (sigsetjmp(no_page, 1))
			continue;
		for (at = i * PAGE; at < (i + 1) * PAGE; at += 8)
			assert_true(*(volatile unsigned long *)(mem + at) ==
				    at * 0x9e3779b97f4a7c15UL);
		good++;
	}
	sigaction(lost_signal(), &old, NULL);
	return good;
}

static struct balun_device *open_device(const char *spec)
{
	struct balun_device *dev;
	int err = balun_device_open(space, spec, &dev);

	if (err)
		fail_msg("%s: %s", spec, balun_reason());
	return dev;
}

static void move(struct balun_device *dev, unsigned int first, unsigned int n)
{
	struct balun_counts c;

	assert_int_equal(balun_migrate(space, mem + first * PAGE, n * PAGE, dev, &c), 0);
	assert_int_equal(c.moved, n);
}

static int begin(void **state)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };

	a.pid = b.pid = 0;
	if (system("command -v nbdkit >/dev/null"))
		return 0;
	if (balun_space_create(&opts, &space))
		return 0;
	server_start(&a, "a", "64M", "4095M");
	server_start(&b, "b", "32M", "4095M");
	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fill();
	return mem == MAP_FAILED;
}

static int end(void **state)
{
	server_kill(&a);
	server_kill(&b);
	if (space)
		balun_space_destroy(space);
	if (mem)
		munmap(mem, LEN);
	space = NULL;
	mem = NULL;
	return 0;
}

static void needs(void)
{
	if (mem)
		return;
	print_message("SKIP nbd: nbdkit is not installed, or userfaultfd may not be used\n");
	skip();
}

/* ---- cases ---- */

static void goes_round(void **state)
{
	char spec[200];
	struct balun_device *dev;
	unsigned int i, k;

	needs();
	for (k = 1; k <= 4; k *= 4) {
		snprintf(spec, sizeof(spec), "%s,connections=%u,timeout=18446744073s", a.spec, k);
		dev = open_device(spec);
		move(dev, 0, PAGES);
		assert_int_equal(right(0, PAGES), PAGES);
		for (i = 0; i < PAGES; i += 3)
			move(dev, i, 1);
		assert_int_equal(right(0, PAGES), PAGES);
		assert_int_equal(balun_device_close(dev), 0);
	}
}

/* places that came free are given back, and what is in use is not */
static void trims(void **state)
{
	struct balun_device *dev;
	unsigned int i, first, n;
	struct balun_counts c;

	needs();
	dev = open_device(a.spec);
	move(dev, 0, PAGES);
	assert_int_equal(logged(" Trim id="), 0);
	assert_int_equal(right(0, PAGES), PAGES);
	move(dev, 7, 1);
	assert_int_equal(logged(" Trim id="), 4);
	for (i = 0; i < 300; i++) {
		first = rand_below(PAGES);
		n = 1 + rand_below(PAGES - first);
		assert_int_equal(balun_migrate(space, mem + first * PAGE, n * PAGE, dev, &c), 0);
		first = rand_below(PAGES);
		n = 1 + rand_below(PAGES - first);
		assert_int_equal(right(first, n), n);
	}
	assert_int_equal(right(0, PAGES), PAGES);
	i = logged(" Trim id=");
	assert_true(i > 8);
	assert_int_equal(balun_device_close(dev), 0);
	assert_int_equal(logged(" Trim id="), i + 1); /* all of it */
}

/* what was only there is lost, the rest is not; nothing goes there any more */
static void killed_server(void **state)
{
	struct balun_device *dev;
	struct balun_extent e;
	size_t n;

	needs();
	dev = open_device(a.spec);
	move(dev, 100, 300);
	server_kill(&a);
	assert_int_equal(right(0, 100), 100);
	assert_int_equal(right(100, 1), 0);
	assert_int_equal(balun_migrate(space, mem, PAGE, dev, NULL), -ENODEV);
	assert_int_equal(right(0, PAGES), PAGES - 300);
	assert_int_equal(balun_lost(space, NULL, &e, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(e.addr, (unsigned long)mem + 100 * PAGE);
	assert_int_equal(e.len, 300 * PAGE);
	assert_int_equal(balun_device_close(dev), -EIO);
}

/* what is on its way when the server dies stays at home */
static void killed_before_a_copy(void **state)
{
	struct balun_device *dev;
	struct balun_counts c;

	needs();
	dev = open_device(a.spec);
	server_kill(&a);
	assert_int_equal(balun_migrate(space, mem, 100 * PAGE, dev, &c), 0);
	assert_int_equal(c.failed, 100);
	assert_int_equal(right(0, PAGES), PAGES);
	assert_int_equal(balun_device_close(dev), 0);
}

static void mirror_loses_nothing(void **state)
{
	struct balun_device *dev;
	char spec[400];

	needs();
	snprintf(spec, sizeof(spec), "mirror(%s,%s)", a.spec, b.spec);
	dev = open_device(spec);
	move(dev, 0, 600);
	server_kill(&a);
	assert_int_equal(right(0, 200), 200);
	move(dev, 600, 200);
	move(dev, 100, 50);
	assert_int_equal(right(0, PAGES), PAGES);
	assert_int_equal(balun_device_close(dev), 0);
}

static void mirror_loses_the_second(void **state)
{
	struct balun_device *dev;
	char spec[400];

	needs();
	snprintf(spec, sizeof(spec), "mirror(%s,crypt(%s))", a.spec, b.spec);
	dev = open_device(spec);
	move(dev, 0, 600);
	server_kill(&b);
	move(dev, 600, 200);
	assert_int_equal(right(0, PAGES), PAGES);
	assert_int_equal(balun_device_close(dev), 0);
}

/* a server that does not answer is gone after timeout= */
static void silent_server(void **state)
{
	struct balun_device *dev;
	char spec[200];
	uint64_t t0;

	needs();
	/* it answers first, and on a busy machine that takes a while, too */
	snprintf(spec, sizeof(spec), "%s,timeout=3s", a.spec);
	dev = open_device(spec);
	move(dev, 0, 1);
	server_stop(&a);
	t0 = env_now_ns();
	assert_int_equal(right(0, 1), 0);
	assert_true(env_now_ns() - t0 >= 3000000000ULL);
	assert_int_equal(balun_device_close(dev), -EIO);
}

/* one that does not even say who it is: so is the open */
static void silent_from_the_beginning(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct balun_device *dev;
	char spec[200];
	uint64_t t0;

	needs();
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/silent", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 4), 0);
	snprintf(spec, sizeof(spec), "nbd:uri=nbd+unix:///?socket=%s,timeout=200ms", addr.sun_path);
	t0 = env_now_ns();
	assert_int_equal(balun_device_open(space, spec, &dev), -ENODEV);
	assert_non_null(strstr(balun_reason(), "no answer"));
	assert_true(env_now_ns() - t0 >= 200000000);
	close(fd);
	unlink(addr.sun_path);
}

/* what is on an export that nothing was written to stays there */
static void open_that_fails_trims_nothing(void **state)
{
	struct balun_device *dev;
	char spec[400];

	needs();
	snprintf(spec, sizeof(spec), "%s,no-such=1", a.spec);
	assert_int_equal(balun_device_open(space, spec, &dev), -EINVAL);
	snprintf(spec, sizeof(spec), "mirror(%s,nbd:uri=nbd+unix:///?socket=/nowhere)", a.spec);
	assert_int_equal(balun_device_open(space, spec, &dev), -ENODEV);
	dev = open_device(a.spec);
	assert_int_equal(balun_device_close(dev), 0);
	assert_int_equal(logged(" Trim id="), 0);
}

static void large_export(void **state)
{
	struct balun_device_info info = { .size = sizeof(info) };
	struct balun_device *dev;
	struct server c;

	needs();
	server_start(&c, "c", "3T", "4095M");
	fill(); /* what was shared with a child does not move */
	dev = open_device(c.spec);
	assert_int_equal(balun_device_info(dev, &info), 0);
	assert_int_equal(info.mem_total, 1ULL << 40);
	move(dev, 0, PAGES);
	assert_int_equal(right(0, PAGES), PAGES);
	assert_int_equal(balun_device_close(dev), 0);
	server_kill(&c);
}

/* one that takes less at once than there is in a request */
static void small_requests(void **state)
{
	struct balun_device *dev;
	struct server c;

	needs();
	server_start(&c, "d", "32M", "64K");
	fill(); /* what was shared with a child does not move */
	dev = open_device(c.spec);
	move(dev, 0, PAGES);
	assert_int_equal(right(0, PAGES), PAGES);
	assert_int_equal(balun_device_close(dev), 0);
	server_kill(&c);
}

static void refuses(void **state)
{
	static const char *const more[] = { "connections=0", "connections=17", "mem=3M",
					    "mem=128M",	     "timeout=3",      "timeout=0" };
	struct balun_device *dev;
	struct server c;
	char spec[200];
	unsigned int i;

	needs();
	for (i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
		snprintf(spec, sizeof(spec), "%s,%s", a.spec, more[i]);
		assert_int_equal(balun_device_open(space, spec, &dev), -EINVAL);
	}
	assert_int_equal(balun_device_open(space, "nbd", &dev), -EINVAL);
	assert_int_equal(balun_device_open(space, "nbd:uri=nbd+unix:///?socket=/nowhere", &dev),
			 -ENODEV);
	assert_non_null(strstr(balun_reason(), "cannot connect"));
	server_start(&c, "e", "1M", "4095M");
	assert_int_equal(balun_device_open(space, c.spec, &dev), -EINVAL);
	server_kill(&c);
	setenv("BALUN_NBD_HELPER", "/bin/false", 1);
	assert_int_equal(balun_device_open(space, a.spec, &dev), -ECHILD);
	setenv("BALUN_NBD_HELPER", "/nowhere", 1);
	assert_int_equal(balun_device_open(space, a.spec, &dev), -ENOENT);
	setenv("BALUN_NBD_HELPER", NBD_HELPER, 1);
}

static volatile int children;

static void on_sigchld(int sig)
{
	children++;
}

static unsigned int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* no child, no signal, no descriptor; and none that it closes is missed */
static void program_does_not_meet_it(void **state)
{
	struct sigaction chld = { .sa_handler = on_sigchld }, old;
	struct balun_device *dev;
	unsigned int fds;
	int status;
	pid_t pid;

	needs();
	sigaction(SIGCHLD, &chld, &old);
	fds = descriptors();
	dev = open_device(a.spec);
	assert_int_equal(descriptors(), fds);
	move(dev, 0, 600);
	assert_int_equal(waitpid(-1, &status, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	pid = fork();
	if (!pid)
		execlp("true", "true", NULL);
	assert_int_equal(wait(&status), pid);
	assert_int_equal(status, 0);
	assert_int_equal(right(0, 300), 300);
	assert_int_equal(balun_device_close(dev), 0);
	assert_int_equal(wait(&status), -1);
	assert_int_equal(errno, ECHILD);
	assert_true(children <= 1); /* TSan hands it over late */
	sigaction(SIGCHLD, &old, NULL);
	assert_int_equal(right(0, PAGES), PAGES);
}

/* pids of helpers whose program is (was) this session's: named by their executable */
static unsigned int helpers(pid_t *ret_pid, unsigned int max)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned int n = 0;

	while ((e = readdir(d)) && n < max) {
		char path[300], exe[PATH_MAX];
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/%s/exe", e->d_name);
		len = readlink(path, exe, sizeof(exe) - 1);
		if (len < 0)
			continue;
		exe[len] = 0;
		if (!strcmp(exe, NBD_HELPER))
			ret_pid[n++] = atoi(e->d_name);
	}
	closedir(d);
	return n;
}

/* the helper that is there now and was not before */
static int new_helper(const pid_t *before, unsigned int n)
{
	pid_t now[64];
	unsigned int i, k, m = helpers(now, 64);

	for (i = 0; i < m; i++) {
		for (k = 0; k < n && before[k] != now[i]; k++)
			;
		if (k == n)
			return syscall(SYS_pidfd_open, now[i], 0);
	}
	return -1;
}

/* a program with a device that says so by @fd, and then waits or becomes another */
static void other_program(int fd, bool exec)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	struct balun_device *dev;
	struct balun_counts c;

	fill(); /* what is shared with the parent does not move */
	if (balun_space_create(&opts, &space) || balun_device_open(space, a.spec, &dev) ||
	    balun_migrate(space, mem, 100 * PAGE, dev, &c) || c.moved != 100)
		_exit(1);
	if (write(fd, "", 1) != 1)
		_exit(1);
	if (!exec)
		pause();
	if (read(fd, &opts, 1) == 1)
		execlp("sleep", "sleep", "1000", NULL);
	_exit(1);
}

/* @exec: it becomes another program; else it is killed. Its helper ends either way */
static void ends_with_its_program(bool exec)
{
	struct pollfd p = { .events = POLLIN };
	unsigned int n;
	pid_t before[64], pid;
	int pair[2], status;
	char byte;

	n = helpers(before, 64);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid = fork();
	if (!pid)
		other_program(pair[1], exec);
	close(pair[1]);
	assert_int_equal(read(pair[0], &byte, 1), 1);
	p.fd = new_helper(before, n);
	assert_true(p.fd >= 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	if (exec)
		assert_int_equal(write(pair[0], "", 1), 1);
	else
		kill(pid, SIGKILL);
	assert_int_equal(poll(&p, 1, 20000), 1);
	if (exec)
		kill(pid, SIGKILL); /* the other program is there still */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(p.fd);
	close(pair[0]);
}

static void helper_ends_with_its_program(void **state)
{
	needs();
#ifdef __SANITIZE_THREAD__
	print_message("SKIP helper_ends_with_its_program: forks a process with threads, which TSan "
		      "cannot follow\n");
	skip();
#endif
	ends_with_its_program(false);
	ends_with_its_program(true);
}

static int rig(void **state)
{
	setenv("BALUN_NBD_HELPER", NBD_HELPER, 1);
	return !mkdtemp(dir);
}

static int unrig(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/log", dir);
	unlink(path);
	return rmdir(dir);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(goes_round),
		CASE(trims),
		CASE(killed_server),
		CASE(killed_before_a_copy),
		CASE(mirror_loses_nothing),
		CASE(mirror_loses_the_second),
		CASE(silent_server),
		CASE(silent_from_the_beginning),
		CASE(open_that_fails_trims_nothing),
		CASE(large_export),
		CASE(small_requests),
		CASE(refuses),
		CASE(program_does_not_meet_it),
		CASE(helper_ends_with_its_program),
	};

	rand_start();
	return cmocka_run_group_tests(tests, rig, unrig);
}
