// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The file driver by itself: its file, checksums, a full file system, holes, what it does without
 * io_uring; and through core what a byte that changes in the file costs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <dirent.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* what is under way is looked at, and spoiled */
#include "drivers/file.c"
#include "drivers/file_io.c"
#include "lost.h"
#include "store.h"

static char dir[] = "/var/tmp/balun-test-XXXXXX";
static char spec[200];

#define OPEN(d, text) dev_open(d, &balun_file_driver, text)

/* a spec of a file in our own folder */
static const char *in_dir(const char *more)
{
	snprintf(spec, sizeof(spec), "file:path=%s,%s", dir, more);
	return spec;
}

static int make_dir(void **state)
{
	return !mkdtemp(dir);
}

static bool dir_is_empty(void)
{
	DIR *d = opendir(dir);
	bool empty = d != NULL;
	struct dirent *e;

	while (empty && (e = readdir(d)))
		empty = e->d_name[0] == '.';
	closedir(d);
	return empty;
}

static int remove_dir(void **state)
{
	return rmdir(dir);
}

static void takes_options(void **state)
{
	static const char *const bad[] = {
		"file:size=3M", "file:size=2048G",     "file:direct=2",	 "file:check=2",
		"file:uring=2", "file:force=2",	       "file:path=/x/y", "file:path=/etc/passwd",
		"file:size=x",	"file:path=/dev/null",
	};
	struct dev d;
	size_t i;

	assert_int_equal(OPEN(&d, "file"), 0);
	assert_int_equal(d.desc.mem_bytes, 8ULL << 30);
	assert_int_equal(d.desc.caps, 0);
	dev_close(&d);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(OPEN(&d, bad[i]), -EINVAL);
		assert_string_not_equal(balun_reason(), "");
	}
	setenv("TMPDIR", "/nowhere", 1);
	assert_int_equal(OPEN(&d, "file"), -EINVAL);
	setenv("TMPDIR", dir, 1);
	assert_int_equal(OPEN(&d, "file:size=2M"), 0);
	dev_close(&d);
	unsetenv("TMPDIR");
}

/* nobody else can read it, and it has no name */
static void is_private(void **state)
{
	struct stat st;
	struct file *f;
	struct dev d;

	assert_int_equal(OPEN(&d, in_dir("size=16M")), 0);
	f = d.priv;
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_nlink, 0);
	assert_int_equal(st.st_size, 16 << 20);
	assert_int_equal(st.st_blocks, 0);
	assert_true(fcntl(f->fd, F_GETFD) & FD_CLOEXEC);
	assert_true(dir_is_empty());
	dev_close(&d);
}

/* in one run, and page by page from the end; each way of doing it */
static void there_and_back(void **state)
{
	static const char *const how[] = {
		"size=8M",	    "size=8M,uring=0",
		"size=8M,direct=0", "size=8M,direct=0,uring=0",
		"size=8M,check=0",
	};
	struct balun_copy op[NPAGES];
	struct dev d;
	uint64_t i, k;

	for (k = 0; k < sizeof(how) / sizeof(how[0]); k++) {
		assert_int_equal(OPEN(&d, in_dir(how[k])), 0);
		for (i = 0; i < NPAGES; i++)
			page_make(d.sys + i * PAGE, i % NR_PAGE_KINDS, i + 1);
		assert_int_equal(dev_put(&d, 0x200000, d.sys, NPAGES * PAGE), 0);
		memset(d.sys, 0x11, NPAGES * PAGE);
		for (i = 0; i < NPAGES; i++)
			op[i] = (struct balun_copy){ (uintptr_t)d.sys + i * PAGE,
						     0x200000 + i * PAGE, PAGE, BALUN_KIND_SYSTEM,
						     BALUN_KIND_LOCAL };
		assert_int_equal(dev_copy(&d, op, NPAGES), 0);
		for (i = 0; i < NPAGES; i++)
			assert_true(page_is(d.sys + i * PAGE, i % NR_PAGE_KINDS, i + 1));
		for (i = 0; i < NPAGES; i++)
			op[i] = (struct balun_copy){ 0x600000 - i * PAGE,
						     (uintptr_t)d.sys + i * PAGE, PAGE,
						     BALUN_KIND_LOCAL, BALUN_KIND_SYSTEM };
		assert_int_equal(dev_copy(&d, op, NPAGES), 0);
		assert_int_equal(dev_get(&d, 0x600000 - (NPAGES - 1) * PAGE, d.sys, NPAGES * PAGE),
				 0);
		for (i = 0; i < NPAGES; i++)
			assert_true(
				page_is(d.sys + (NPAGES - 1 - i) * PAGE, i % NR_PAGE_KINDS, i + 1));
		dev_close(&d);
	}
}

static void zeros_and_what_was_never_stored(void **state)
{
	const struct balun_copy zero = { 0x4000, 0, 0x3000, BALUN_KIND_LOCAL, BALUN_KIND_ZERO };
	const struct balun_copy peer = { 0, 0, 4096, BALUN_KIND_LOCAL, BALUN_KIND_PEER };
	struct dev d;

	assert_int_equal(OPEN(&d, in_dir("size=2M")), 0);
	memset(d.sys, 1, 0x5000);
	assert_int_equal(dev_put(&d, 0x3000, d.sys, 0x5000), 0);
	assert_int_equal(dev_copy(&d, &zero, 1), 0);
	/* zeros between pages that are not */
	assert_int_equal(dev_get(&d, 0x3000, d.sys, 0x5000), 0);
	assert_int_equal(d.sys[0xfff], 1);
	assert_int_equal(d.sys[0x4000], 1);
	assert_true(page_is(d.sys + 0x1000, PAGE_ZERO, 1));
	assert_int_equal(dev_get(&d, 0x4000, d.sys + 0x4000, 0x1000), 0);
	assert_true(page_is(d.sys + 0x4000, PAGE_ZERO, 1));
	assert_int_equal(dev_get(&d, 0x8000, d.sys, 0x1000), -EIO);
	dev_trim(&d, 0x7000, 0x1000);
	assert_int_equal(dev_get(&d, 0x7000, d.sys, 0x1000), -EIO);
	assert_int_equal(dev_copy(&d, &peer, 1), -EOPNOTSUPP);
	dev_close(&d);
}

static void spoil(struct file *f, uint64_t off, const char *with, size_t len)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, with, len, off), len);
	close(fd);
}

/* a byte changes, or a page is found in the place of another */
static void notices_what_changed(void **state)
{
	char page[PAGE] __attribute__((aligned(8)));
	struct dev d;
	uint64_t i;

	assert_int_equal(OPEN(&d, in_dir("size=2M")), 0);
	for (i = 0; i < 16; i++)
		page_make(d.sys + i * PAGE, PAGE_RANDOM, i + 1);
	assert_int_equal(dev_put(&d, 0, d.sys, 16 * PAGE), 0);
	page_make(page, PAGE_RANDOM, 6);
	page[77] ^= 1;
	spoil(d.priv, 5 * PAGE + 77, page + 77, 1);
	page_make(page, PAGE_RANDOM, 3);
	spoil(d.priv, 9 * PAGE, page, PAGE);
	for (i = 0; i < 16; i++) {
		assert_int_equal(dev_get(&d, i * PAGE, d.sys, PAGE), i == 5 || i == 9 ? -EIO : 0);
		assert_true(i == 5 || i == 9 || page_is(d.sys, PAGE_RANDOM, i + 1));
	}
	assert_int_equal(dev_get(&d, 0, d.sys, 16 * PAGE), -EIO);
	/* what is written anew is right again */
	page_make(d.sys, PAGE_RANDOM, 99);
	assert_int_equal(dev_put(&d, 5 * PAGE, d.sys, PAGE), 0);
	assert_int_equal(dev_get(&d, 5 * PAGE, d.sys, PAGE), 0);
	dev_close(&d);

	assert_int_equal(OPEN(&d, in_dir("size=2M,check=0")), 0);
	assert_int_equal(dev_put(&d, 0, d.sys, PAGE), 0);
	spoil(d.priv, 77, "x", 1);
	assert_int_equal(dev_get(&d, 0, d.sys, PAGE), 0);
	assert_int_equal(d.sys[77], 'x');
	dev_close(&d);
}

/* ---- full ---- */

/* fills the device: how many pages went in before it said that it is full; those are right */
static uint64_t fill_up(struct dev *d)
{
	uint64_t n = 0, i;
	int err;

	for (;; n++) {
		page_make(d->sys, PAGE_RANDOM, n + 1);
		err = dev_put(d, n * PAGE, d->sys, PAGE);
		if (err)
			break;
	}
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(dev_get(d, n * PAGE, d->sys, PAGE), -EIO);
	for (i = 0; i < n; i++) {
		assert_int_equal(dev_get(d, i * PAGE, d->sys, PAGE), 0);
		assert_true(page_is(d->sys, PAGE_RANDOM, i + 1));
	}
	return n;
}

static void beyond_the_file_limit(void **state)
{
	struct rlimit lim, small;
	struct dev d;
	int uring;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &lim), 0);
	small = lim;
	small.rlim_cur = 4 << 20;
	for (uring = 0; uring < 2; uring++) {
		assert_int_equal(OPEN(&d, in_dir(uring ? "size=16M" : "size=16M,uring=0")), 0);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		assert_int_equal(fill_up(&d), (4 << 20) / PAGE);
		assert_int_equal(OPEN(&(struct dev){ 0 }, in_dir("size=16M")), -EINVAL);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
		dev_close(&d);
	}
}

static uint64_t blocks_of(struct dev *d)
{
	struct stat st;

	assert_int_equal(fstat(((struct file *)d->priv)->fd, &st), 0);
	return st.st_blocks;
}

/* the thread has punched, or 20 s have passed */
static void wait_blocks(struct dev *d, uint64_t most)
{
	uint64_t end = env_now_ns() + 20000000000ULL;

	while (blocks_of(d) > most && env_now_ns() < end)
		sched_yield();
	assert_true(blocks_of(d) <= most);
}

/* a file system of 8 MiB: full, and what is trimmed makes room in it */
static void full_file_system(void **state)
{
	struct dev d;
	uint64_t n;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", dir, "tmpfs", 0, "size=8M")) {
		print_message("no file system may be mounted here\n");
		skip();
	}
	assert_int_equal(OPEN(&d, in_dir("size=64M")), 0);
	n = fill_up(&d);
	assert_in_range(n, (7 << 20) / PAGE, (8 << 20) / PAGE);
	dev_trim(&d, 0, 1024 * PAGE);
	wait_blocks(&d, (n - 1024) * PAGE / 512);
	page_make(d.sys, PAGE_RANDOM, 5);
	assert_int_equal(dev_put(&d, (n + 100) * PAGE, d.sys, PAGE), 0);
	/* also what a write has left that did not fit */
	for (n = 0; !dev_put(&d, n * PAGE, d.sys, NPAGES * PAGE); n += NPAGES)
		;
	assert_true(blocks_of(&d) > (n + 1 + RUN_PAGES) * PAGE / 512);
	dev_trim(&d, 0, 64 << 20);
	wait_blocks(&d, PAGE / 512);
	dev_close(&d);
	assert_int_equal(umount(dir), 0);
}

/* ---- holes ---- */

static void punches_what_is_trimmed(void **state)
{
	const uint64_t len = 32 << 20;
	struct dev d;
	uint64_t off;

	assert_int_equal(OPEN(&d, in_dir("size=64M")), 0);
	for (off = 0; off < NPAGES; off++)
		page_make(d.sys + off * PAGE, PAGE_RANDOM, off + 1);
	for (off = 0; off < len; off += NPAGES * PAGE)
		assert_int_equal(dev_put(&d, off, d.sys, NPAGES * PAGE), 0);
	assert_true(blocks_of(&d) >= len / 512);
	/* single pages are not worth it, their neighbours make them so */
	for (off = 0; off < len; off += 2 * PAGE)
		dev_trim(&d, off, PAGE);
	for (off = PAGE; off < len - (1 << 20); off += 2 * PAGE)
		dev_trim(&d, off, PAGE);
	wait_blocks(&d, (1 << 20) / 512 + 64);
	assert_int_equal(dev_get(&d, len - PAGE, d.sys, PAGE), 0);
	assert_true(page_is(d.sys, PAGE_RANDOM, NPAGES));
	dev_close(&d);
}

struct claimer {
	struct file *f;
	bool over; /* the punch; under f->lock */
	bool early;
};

static void claim_thread(void *arg)
{
	struct claimer *c = arg;

	file_claim(c->f, 20, 4);
	env_mutex_lock(&c->f->lock);
	c->early = !c->over;
	env_mutex_unlock(&c->f->lock);
}

/* who writes takes the bits away, and waits for a punch of the place that is under way */
static void a_write_waits_for_the_punch(void **state)
{
	struct claimer c = { 0 };
	struct env_thread *t;
	struct dev d;

	assert_int_equal(OPEN(&d, in_dir("size=2M")), 0);
	c.f = d.priv;
	env_mutex_lock(&c.f->lock);
	env_bits_set_range(c.f->dead, 8, 64);
	c.f->punch = 10;
	c.f->punch_pages = 11;
	env_mutex_unlock(&c.f->lock);
	file_claim(c.f, 8, 2); /* the one beside it is not waited for */
	file_claim(c.f, 21, 2);
	assert_int_equal(env_thread_create(&t, "claim", claim_thread, &c), 0);
	env_yield();
	env_mutex_lock(&c.f->lock);
	c.over = true;
	c.f->punch_pages = 0;
	env_cond_wake(&c.f->punched);
	env_mutex_unlock(&c.f->lock);
	env_thread_join(t);
	assert_false(c.early);
	assert_int_equal(env_bits_count(c.f->dead), 64 - 2 - 4);
	assert_false(env_bit(c.f->dead, 8) || env_bit(c.f->dead, 20) || env_bit(c.f->dead, 23));
	memset(c.f->dead, 0, sizeof(env_bits));
	dev_close(&d);
}

static bool urge_stop;

/* the driver's thread believes that there is enough to do, again and again */
static void urge_thread(void *arg)
{
	struct file *f = arg;

	while (!env_load(&urge_stop)) {
		env_mutex_lock(&f->lock);
		f->ndead += BATCH_PAGES;
		env_cond_wake(&f->wake);
		env_mutex_unlock(&f->lock);
		env_yield();
	}
}

/* places are trimmed and given out again while the thread punches without a pause */
static void threads_together(void **state)
{
	static const char *const how[] = { "size=8M", "size=8M,direct=0,uring=0" };
	struct env_thread *t;
	struct dev d;
	int i;

	for (i = 0; i < 2; i++) {
		assert_int_equal(OPEN(&d, in_dir(how[i])), 0);
		env_store(&urge_stop, false);
		assert_int_equal(env_thread_create(&t, "urge", urge_thread, d.priv), 0);
		dev_hammer(&d, 60);
		env_store(&urge_stop, true);
		env_thread_join(t);
		assert_int_equal(((struct file *)d.priv)->bad, 0);
		dev_close(&d);
	}
}

/* ---- without io_uring; files that are closed ---- */

static int refuse_call(int nr, int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static int without_io_uring_child(void)
{
	struct dev d;
	bool ok;

	if (refuse_call(__NR_io_uring_setup, EPERM))
		return 77;
	if (OPEN(&d, in_dir("size=2M")))
		return 1;
	page_make(d.sys, PAGE_RANDOM, 1);
	ok = !((struct file *)d.priv)->uring && !dev_put(&d, 0, d.sys, PAGE) &&
	     !dev_get(&d, 0, d.sys + PAGE, PAGE) && !memcmp(d.sys, d.sys + PAGE, PAGE);
	dev_close(&d);
	return ok ? 0 : 2;
}

/* rings that take no orders any more: nothing is lost, and they end with the device */
static int io_uring_ends_child(void)
{
	int fd[NR_RINGS], i;
	struct file *f;
	struct dev d;

	if (OPEN(&d, in_dir("size=2M")))
		return 1;
	f = d.priv;
	for (i = 0; i < NR_RINGS; i++)
		fd[i] = f->ring[i].u.ring_fd;
	if (!f->uring || refuse_call(__NR_io_uring_enter, EAGAIN))
		return 77;
	page_make(d.sys, PAGE_RANDOM, 1);
	if (dev_put(&d, 0, d.sys, PAGE) || dev_get(&d, 0, d.sys + PAGE, PAGE) ||
	    memcmp(d.sys, d.sys + PAGE, PAGE))
		return 2;
	dev_close(&d);
	for (i = 0; i < NR_RINGS; i++)
		if (fcntl(fd[i], F_GETFD) != -1)
			return 3;
	return 0;
}

static void in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static void without_io_uring(void **state)
{
	in_child(without_io_uring_child);
}

static void io_uring_ends(void **state)
{
	in_child(io_uring_ends_child);
}

/* programs close what they have not opened, and get its number for a file of their own */
static void survives_closed_files(void **state)
{
	struct file *f;
	struct dev d;
	int i, fd, other = open(dir, O_TMPFILE | O_RDWR, 0600);

	assert_true(other >= 0);
	assert_int_equal(OPEN(&d, in_dir("size=2M")), 0);
	f = d.priv;
	page_make(d.sys, PAGE_RANDOM, 1);
	assert_int_equal(dev_put(&d, 0, d.sys, PAGE), 0);
	for (i = 0; f->uring && i < NR_RINGS; i++)
		assert_int_equal(dup2(other, f->ring[i].u.ring_fd), f->ring[i].u.ring_fd);
	assert_int_equal(dev_put(&d, PAGE, d.sys, PAGE), 0);
	assert_int_equal(dev_get(&d, 0, d.sys + PAGE, PAGE), 0);
	assert_memory_equal(d.sys, d.sys + PAGE, PAGE);
	fd = dup(f->fd);
	assert_int_equal(dup2(other, f->fd), f->fd);
	assert_int_equal(dev_put(&d, 2 * PAGE, d.sys, PAGE), -ENODEV);
	assert_int_equal(dev_get(&d, 0, d.sys, PAGE), -ENODEV);
	assert_int_equal(lseek(other, 0, SEEK_END), 0);
	dup2(fd, f->fd);
	assert_int_equal(dev_get(&d, 0, d.sys, PAGE), 0);
	dev_close(&d);
	close(fd);
	close(other);
}

/* at close the numbers of rings are the program's: what it has there stays open */
static void closes_no_file_of_the_program(void **state)
{
	int i, n = 0, fd[NR_RINGS + 1], other = open(dir, O_TMPFILE | O_RDWR, 0600);
	struct file *f;
	struct dev d;

	assert_true(other >= 0);
	assert_int_equal(OPEN(&d, in_dir("size=2M")), 0);
	f = d.priv;
	for (i = 0; f->uring && i < NR_RINGS; i++)
		fd[n++] = f->ring[i].u.ring_fd;
	fd[n++] = f->fd;
	for (i = 0; i < n; i++)
		assert_int_equal(dup2(other, fd[i]), fd[i]);
	dev_close(&d);
	for (i = 0; i < n; i++)
		assert_int_equal(close(fd[i]), 0);
	close(other);
}

/* a child has the file open too, as long as it lives */
static void gives_all_back_at_close(void **state)
{
	struct stat st;
	struct dev d;
	int childs;

	assert_int_equal(OPEN(&d, in_dir("size=16M")), 0);
	assert_int_equal(dev_put(&d, 0, d.sys, NPAGES * PAGE), 0);
	childs = dup(((struct file *)d.priv)->fd);
	dev_close(&d);
	assert_int_equal(fstat(childs, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	close(childs);
}

static void nothing_is_left_after_kill(void **state)
{
	int status, p[2];
	struct dev d;
	char c;
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (!pid) {
		if (OPEN(&d, in_dir("size=64M")) || dev_put(&d, 0, d.sys, NPAGES * PAGE))
			_exit(1);
		for (;;)
			if (write(p[1], "x", 1) != 1)
				pause();
	}
	assert_int_equal(read(p[0], &c, 1), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_true(dir_is_empty());
	close(p[0]);
	close(p[1]);
}

/* ---- a block device ---- */

static int loop_open(char *path, size_t size, off_t bytes, int *ret_backing)
{
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd, nr;

	nr = ctl < 0 ? -1 : ioctl(ctl, LOOP_CTL_GET_FREE);
	if (ctl >= 0)
		close(ctl);
	if (nr < 0)
		return -1;
	snprintf(path, size, "/dev/loop%d", nr);
	*ret_backing = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(*ret_backing, bytes), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && !ioctl(fd, LOOP_SET_FD, *ret_backing))
		return fd;
	close(fd);
	close(*ret_backing);
	return -1;
}

static void block_device(void **state)
{
	char path[64], text[128];
	int backing = -1, loop = loop_open(path, sizeof(path), (16 << 20) + 4096, &backing), excl;
	size_t at;
	struct dev d;

	if (loop < 0) {
		print_message("no loop device may be made here\n");
		skip();
	}
	snprintf(text, sizeof(text), "file:path=%s", path);
	assert_int_equal(OPEN(&d, text), 0);
	dev_close(&d); /* as after an option that core does not know */
	assert_int_equal(OPEN(&d, text), 0);
	assert_int_equal(d.desc.mem_bytes, 16 << 20);
	/* where open() has tried a page, and far from there */
	for (at = 0; at <= 15 << 20; at += 15 << 20) {
		page_make(d.sys, PAGE_RANDOM, 1 + at);
		assert_int_equal(dev_put(&d, at, d.sys, PAGE), 0);
		assert_int_equal(dev_get(&d, at, d.sys + PAGE, PAGE), 0);
		assert_memory_equal(d.sys, d.sys + PAGE, PAGE);
	}
	/* nobody mounts it meanwhile */
	assert_int_equal(open(path, O_RDWR | O_EXCL), -1);
	dev_close(&d);
	/* it is not empty any more */
	assert_int_equal(OPEN(&d, text), -EINVAL);
	assert_non_null(strstr(balun_reason(), "force=1"));
	snprintf(text, sizeof(text), "file:path=%s,force=1,size=18M", path);
	assert_int_equal(OPEN(&d, text), -EINVAL);
	snprintf(text, sizeof(text), "file:path=%s,force=1,size=2M", path);
	assert_int_equal(OPEN(&d, text), 0);
	dev_close(&d);
	excl = open(path, O_RDWR | O_EXCL); /* as a mount has it */
	assert_int_equal(OPEN(&d, text), -EINVAL);
	assert_non_null(strstr(balun_reason(), "in use"));
	close(excl);
	ioctl(loop, LOOP_CLR_FD);
	close(loop);
	close(backing);
}

/* of a larger one than a device may be, so much is used */
static void large_block_device(void **state)
{
	int backing = -1, loop;
	char path[64], text[128];
	struct dev d;

	loop = loop_open(path, sizeof(path), 3LL << 40, &backing);
	if (loop < 0) {
		print_message("no loop device may be made here\n");
		skip();
	}
	snprintf(text, sizeof(text), "file:path=%s", path);
	assert_int_equal(OPEN(&d, text), 0);
	assert_int_equal(d.desc.mem_bytes, 1ULL << 40);
	dev_close(&d);
	ioctl(loop, LOOP_CLR_FD);
	close(loop);
	close(backing);
}

/* ---- through core ---- */

static sigjmp_buf jump;

static void on_bus(int sig)
{
	siglongjmp(jump, 1);
}

static bool is_bus(const char *p)
{
	if (sigsetjmp(jump, 1))
		return true;
	(void)*(volatile const char *)p;
	return false;
}

/* a byte of the file changes: SIGBUS at a touch of its page, and of no other */
static void costs_exactly_the_page(void **state)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	struct balun_extent lost[2];
	struct balun_space *space;
	struct balun_device *dev;
	struct balun_counts c = { 0 };
	uint64_t i, bad;
	struct file *f;
	size_t n;
	char *mem;

	if (balun_space_create(&opts, &space)) {
		print_message("%s\n", balun_reason());
		skip();
	}
	assert_int_equal(balun_device_open(space, in_dir("size=16M"), &dev), 0);
	f = balun_device_priv(dev, &balun_file_driver);
	mem = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < 64; i++)
		page_make(mem + i * PAGE, PAGE_RANDOM, i + 1);
	assert_int_equal(balun_migrate(space, mem, 64 * PAGE, dev, &c), 0);
	assert_int_equal(c.moved, 64);
	bad = lseek(f->fd, 0, SEEK_DATA) + 20 * PAGE;
	spoil(f, bad + 1234, "????????", 8);
	signal(lost_signal(), on_bus);
	for (i = n = 0; i < 64; i++) {
		if (is_bus(mem + i * PAGE)) {
			bad = (uintptr_t)mem + i * PAGE;
			n++;
		} else {
			assert_true(page_is(mem + i * PAGE, PAGE_RANDOM, i + 1));
		}
	}
	assert_int_equal(n, 1);
	assert_int_equal(balun_lost(space, NULL, lost, 2, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(lost[0].addr, bad);
	assert_int_equal(lost[0].len, PAGE);
	signal(lost_signal(), SIG_DFL);
	balun_device_close(dev);
	balun_space_destroy(space);
	munmap(mem, 64 * PAGE);
}

/* the next one's in the row, some of whose copies fail; what does is still where it was */
static void from_device_to_device(void **state)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	struct balun_space *space;
	struct balun_device *dev[2];
	uint64_t i, round;
	char *mem;

	if (balun_space_create(&opts, &space)) {
		print_message("%s\n", balun_reason());
		skip();
	}
	if (balun_device_open(space, "inject(lz4:mem=16M):op=copy,every=5", &dev[0])) {
		print_message("%s\n", balun_reason());
		balun_space_destroy(space);
		skip();
	}
	snprintf(spec, sizeof(spec), "inject(file:path=%s,size=16M):op=copy_wait,every=7", dir);
	assert_int_equal(balun_device_open(space, spec, &dev[1]), 0);
	mem = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < NPAGES; i++)
		page_make(mem + i * PAGE, i % NR_PAGE_KINDS, i + 1);
	for (round = 0; round < 20; round++)
		for (i = 0; i < NPAGES; i += 32)
			balun_migrate(space, mem + i * PAGE, 32 * PAGE, dev[(round + i / 32) % 2],
				      NULL);
	for (i = 0; i < NPAGES; i++)
		assert_true(page_is(mem + i * PAGE, i % NR_PAGE_KINDS, i + 1));
	assert_int_equal(balun_device_close(dev[0]), 0);
	assert_int_equal(balun_device_close(dev[1]), 0);
	balun_space_destroy(space);
	munmap(mem, NPAGES * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_options),
		cmocka_unit_test(is_private),
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(zeros_and_what_was_never_stored),
		cmocka_unit_test(notices_what_changed),
		cmocka_unit_test(beyond_the_file_limit),
		cmocka_unit_test(punches_what_is_trimmed),
		cmocka_unit_test(a_write_waits_for_the_punch),
		cmocka_unit_test(threads_together),
		cmocka_unit_test(without_io_uring),
		cmocka_unit_test(io_uring_ends),
		cmocka_unit_test(survives_closed_files),
		cmocka_unit_test(closes_no_file_of_the_program),
		cmocka_unit_test(gives_all_back_at_close),
		cmocka_unit_test(nothing_is_left_after_kill),
		cmocka_unit_test(block_device),
		cmocka_unit_test(large_block_device),
		cmocka_unit_test(costs_exactly_the_page),
		cmocka_unit_test(from_device_to_device),
		cmocka_unit_test(full_file_system),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
