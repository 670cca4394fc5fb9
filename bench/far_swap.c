// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Swap and memory cgroups for the far benches.
 *
 * A process of its own, the keeper, sets them up and takes orders. It waits for the end of a pipe
 * that only the bench holds: however that ends (done, SIGINT, SIGKILL), the keeper then kills what
 * still runs in the cgroups, switches the swap off, and removes all that it made. Swap is on only
 * while the kernel's turn is measured, with the highest priority, so nothing of Balun's turn goes
 * there, and little of anybody else's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/far.h"

#define SWAP_PRIORITY 32767
#define PAGE	      BALUN_PAGE_SIZE
#define V1	      "/sys/fs/cgroup/memory"
#define V2	      "/sys/fs/cgroup"

/* what the keeper has made, shared with the bench so that it can say where */
struct far_swap_state {
	char cgroup[2][96]; /* [0] without a limit, [1] with it */
	bool v2;
	char swap[300], zram[64]; /* swapon() takes the first; the second: what of sysfs */
	int zram_id;		  /* -1: none */
	bool on;
	int err;
	char why[160];
	pid_t keeper;
	int orders; /* our end of the socket */
};

static int refuse(struct far_swap_state *s, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
	return err;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

static int write_in(const char *folder, const char *file, const char *fmt, ...)
{
	char path[256], text[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", folder, file);
	return write_text(path, text);
}

/* the @field'th number of a file; 0 if there is none */
static uint64_t read_number(const char *folder, const char *file, unsigned int field)
{
	char path[256], text[256] = "", *at = text;
	uint64_t n = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	do
		n = strtoull(at, &at, 10);
	while (field--);
	return n;
}

const char *far_folder(void)
{
	return getenv("TMPDIR") ?: "/var/tmp";
}

/* ---- cgroups ---- */

static bool is_dir(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

/* 0, or -errno */
static int cgroups_make(struct far_swap_state *s, uint64_t resident)
{
	const char *root = V1;
	struct statfs fs;
	unsigned int i;
	int err = 0;

	if (!is_dir(V1)) {
		root = V2;
		if (statfs(V2, &fs) || fs.f_type != CGROUP2_SUPER_MAGIC)
			return refuse(s, -EOPNOTSUPP, "no memory cgroups are mounted");
		s->v2 = true;
		/* where it is on already, or may not be changed, the next steps tell */
		write_text(V2 "/cgroup.subtree_control", "+memory");
	}
	for (i = 0; i < 2 && !err; i++) {
		snprintf(s->cgroup[i], sizeof(s->cgroup[i]), "%s/balun-far-%d-%u", root, getpid(),
			 i);
		if (mkdir(s->cgroup[i], 0755)) {
			err = refuse(s, -EOPNOTSUPP, "no memory cgroup can be made: %s",
				     strerror(errno));
			s->cgroup[i][0] = 0;
		}
	}
	if (!err && write_in(s->cgroup[1], s->v2 ? "memory.max" : "memory.limit_in_bytes", "%llu",
			     (unsigned long long)resident))
		err = refuse(s, -EOPNOTSUPP, "a memory cgroup takes no limit");
	return err;
}

/* what is still in it ends */
static void cgroup_remove(const char *path)
{
	char name[128];
	unsigned int tries;
	FILE *f;
	int pid;

	for (tries = 0; *path && rmdir(path) && errno == EBUSY && tries < 1000; tries++) {
		snprintf(name, sizeof(name), "%s/cgroup.procs", path);
		f = fopen(name, "re");
		while (f && fscanf(f, "%d", &pid) == 1)
			kill(pid, SIGKILL);
		if (f)
			fclose(f);
		usleep(5000);
	}
}

int far_cgroup_enter(struct bench_run *run, bool limited)
{
	const struct far_swap_state *s = run->priv;

	return write_in(s->cgroup[limited], "cgroup.procs", "0");
}

uint64_t far_cgroup_peak(struct bench_run *run, bool limited)
{
	const struct far_swap_state *s = run->priv;
	const char *file = s->v2 ? "memory.peak" : "memory.max_usage_in_bytes";
	uint64_t peak = read_number(s->cgroup[limited], file, 0);

	write_in(s->cgroup[limited], file, "0");
	return peak;
}

/* memory.stat is summed up when it is read */
void far_cgroup_look(struct bench_run *run, bool limited)
{
	const struct far_swap_state *s = run->priv;

	read_number(s->cgroup[limited], "memory.stat", 0);
}

/* "oom_kill N", a line of it */
uint64_t far_cgroup_oom_kills(struct bench_run *run, bool limited)
{
	const struct far_swap_state *s = run->priv;
	char path[256], text[512] = "", *at;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", s->cgroup[limited],
		 s->v2 ? "memory.events" : "memory.oom_control");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	at = strstr(text, "oom_kill ");
	return at ? strtoull(at + strlen("oom_kill "), NULL, 10) : 0;
}

/* ---- swap ---- */

/* version 1, as mkswap writes it */
static int write_header(const char *path, uint64_t bytes)
{
	struct {
		char boot[1024];
		uint32_t version, last_page, nr_badpages;
		char rest[PAGE - 1024 - 12 - 10], magic[10];
	} header = { .version = 1, .last_page = bytes / PAGE - 1, .magic = "SWAPSPACE2" };
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, &header, sizeof(header)) != sizeof(header) || fsync(fd))
		err = -EIO;
	close(fd);
	return err;
}

static int zram_make(struct far_swap_state *s, uint64_t bytes)
{
	int err;

	if (access("/sys/class/zram-control/hot_add", F_OK))
		return refuse(s, -EOPNOTSUPP, "this kernel has no zram, or it is not loaded");
	if (access("/sys/class/zram-control/hot_add", R_OK))
		return refuse(s, -EOPNOTSUPP, "a zram device can be added by root only");
	/* reading it adds one */
	s->zram_id = read_number("/sys/class/zram-control", "hot_add", 0);
	if (!s->zram_id)
		return refuse(s, -EOPNOTSUPP, "no zram device can be added");
	snprintf(s->zram, sizeof(s->zram), "/sys/block/zram%d", s->zram_id);
	snprintf(s->swap, sizeof(s->swap), "/dev/zram%d", s->zram_id);
	if (write_in(s->zram, "comp_algorithm", "lz4"))
		return refuse(s, -EOPNOTSUPP, "this kernel's zram has no lz4");
	err = write_in(s->zram, "disksize", "%llu", (unsigned long long)bytes);
	if (!err)
		err = write_header(s->swap, bytes);
	return err ? refuse(s, err, "%s: %s", s->swap, strerror(-err)) : 0;
}

static int file_make(struct far_swap_state *s, uint64_t bytes)
{
	char *zeros = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t done;
	int fd, err = 0;

	snprintf(s->swap, sizeof(s->swap), "%s/balun-far-XXXXXX", far_folder());
	fd = mkostemp(s->swap, O_CLOEXEC);
	if (fd < 0) {
		err = refuse(s, -errno, "%s: %s", s->swap, strerror(errno));
		s->swap[0] = 0;
		return err;
	}
	/* written, for swap wants no holes */
	for (done = 0; done < bytes && !err; done += 1 << 20)
		if (write(fd, zeros, 1 << 20) != 1 << 20)
			err = refuse(s, -ENOSPC, "%s: cannot be written", s->swap);
	if (!err && fsync(fd))
		err = refuse(s, -errno, "%s: %s", s->swap, strerror(errno));
	close(fd);
	munmap(zeros, 1 << 20);
	return err ? err : write_header(s->swap, bytes);
}

static int set_swap(struct far_swap_state *s, bool on)
{
	const int flags = SWAP_FLAG_PREFER | SWAP_PRIORITY;

	if (on == s->on)
		return 0;
	if (on ? swapon(s->swap, flags) : swapoff(s->swap))
		return refuse(s, errno == EPERM ? -EOPNOTSUPP : -errno, "%s: %s: %s",
			      on ? "swapon" : "swapoff", s->swap, strerror(errno));
	s->on = on;
	return 0;
}

/* ---- the keeper ---- */

static void take_away(struct far_swap_state *s)
{
	cgroup_remove(s->cgroup[1]);
	cgroup_remove(s->cgroup[0]);
	set_swap(s, false);
	if (s->zram_id > 0) {
		write_in(s->zram, "reset", "1");
		write_in("/sys/class/zram-control", "hot_remove", "%d", s->zram_id);
	} else if (s->swap[0]) {
		unlink(s->swap);
	}
}

static void keep(struct far_swap_state *s, int orders, enum far_swap kind, uint64_t bytes,
		 uint64_t resident)
{
	char c;

	s->err = cgroups_make(s, resident);
	if (!s->err)
		s->err = kind == FAR_ZRAM ? zram_make(s, bytes) : file_make(s, bytes);
	if (!s->err) /* may we at all? */
		s->err = set_swap(s, true);
	if (!s->err)
		s->err = set_swap(s, false);
	do {
		if (write(orders, "", 1) != 1 || read(orders, &c, 1) != 1)
			break;
		s->err = set_swap(s, c == '1');
	} while (true);
	take_away(s);
}

/* the answer to the last order, which is in s->err; false: the keeper is dead */
static bool wait_answer(struct far_swap_state *s)
{
	char c;

	return read(s->orders, &c, 1) == 1;
}

int far_swap_begin(struct bench_run *run, enum far_swap kind, uint64_t bytes, uint64_t resident)
{
	struct far_swap_state *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int pair[2];

	if (s == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return bench_fail(run, -ENOMEM, "no memory");
	fflush(NULL);
	s->orders = pair[0];
	s->keeper = fork();
	if (!s->keeper) {
		sigset_t all;

		/* it ends by the end of the socket, not by the terminal's signals */
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		setsid();
		close(pair[0]);
		keep(s, pair[1], kind, bytes, resident);
		_exit(0);
	}
	close(pair[1]);
	run->priv = s;
	if (s->keeper < 0 || !wait_answer(s))
		s->err = refuse(s, -ECHILD, "the process that sets up swap has ended");
	return s->err ? bench_fail(run, s->err, "%s", s->why) : 0;
}

void far_swap_end(struct bench_run *run)
{
	struct far_swap_state *s = run->priv;

	if (!s)
		return;
	close(s->orders);
	if (s->keeper > 0)
		waitpid(s->keeper, NULL, 0);
	munmap(s, sizeof(*s));
	run->priv = NULL;
}

int far_swap_on(struct bench_run *run, bool on)
{
	struct far_swap_state *s = run->priv;

	if (write(s->orders, on ? "1" : "0", 1) != 1 || !wait_answer(s))
		return bench_fail(run, -ECHILD, "the process that sets up swap has ended");
	return s->err ? bench_fail(run, s->err, "%s", s->why) : 0;
}

uint64_t far_zram_peak(struct bench_run *run)
{
	const struct far_swap_state *s = run->priv;
	uint64_t peak = s->zram_id > 0 ? read_number(s->zram, "mm_stat", 4) : 0;

	if (s->zram_id > 0)
		write_in(s->zram, "mem_used_max", "0");
	return peak;
}
