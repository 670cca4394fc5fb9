/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * System calls into away memory: the kernel reads and writes what it is given as if it had never
 * left. "away": every page is on the device when the call is made; "moving": a thread sends them
 * there and brings them home all the time.
 */
#include "matrix.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <spawn.h>
#include <time.h>
#include <unistd.h>

#define LEN	 (4 * MIB)
#define ROUNDS	 6
#define IOVS	 64
#define MAPPINGS 100000

enum {
	AWAY,
	MOVING
};

/* ---- memory on the move ---- */

struct mover {
	struct mx *m;
	char *p;
	size_t len;
	bool stop;
	pthread_t t;
};

static void *mover_main(void *arg)
{
	struct mover *v = arg;
	unsigned int i;

	for (i = 0; !__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE); i++) {
		MX_OK(balun_migrate(v->m->space, v->p, v->len, i % 4 < 3 ? v->m->dev : NULL, NULL));
		sched_yield();
	}
	return NULL;
}

static void mover_start(struct mover *v, struct mx *m, void *p, size_t len)
{
	*v = (struct mover){ .m = m, .p = p, .len = len };
	if (m->cell->b == MOVING)
		v->t = mx_thread(mover_main, v);
	else
		mx_move(m, p, len, m->dev);
}

static void mover_end(struct mover *v)
{
	if (v->m->cell->b != MOVING)
		return;
	__atomic_store_n(&v->stop, true, __ATOMIC_RELEASE);
	mx_join(v->t);
}

/* ---- files ---- */

static int temp_file(int flags)
{
	int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd < 0 && !flags)
		fd = memfd_create("matrix", MFD_CLOEXEC);
	return fd;
}

/* pieces of odd lengths, so that they begin and end inside pages */
static int cut(struct iovec *v, char *p, size_t len)
{
	size_t at = 0, n;
	int i;

	for (i = 0; at < len; i++, at += n) {
		n = i == IOVS - 1 ? len - at : 1 + (i * 7919UL + 4099) * 37 % 70000;
		n = n > len - at ? len - at : n;
		v[i] = (struct iovec){ p + at, n };
	}
	return i;
}

enum io_call {
	IO_READ,
	IO_PREAD,
	IO_READV,
	IO_WRITE,
	IO_PWRITE,
	IO_WRITEV,
};

/* one call on [p + at, p + len); its result */
static ssize_t io_once(enum io_call call, int fd, char *p, size_t at, size_t len)
{
	struct iovec v[IOVS];

	switch (call) {
	case IO_READ:
		return read(fd, p + at, len - at);
	case IO_PREAD:
		return pread(fd, p + at, len - at, at);
	case IO_READV:
		return readv(fd, v, cut(v, p + at, len - at));
	case IO_WRITE:
		return write(fd, p + at, len - at);
	case IO_PWRITE:
		return pwrite(fd, p + at, len - at, at);
	case IO_WRITEV:
		return writev(fd, v, cut(v, p + at, len - at));
	}
	return -1;
}

static void io_all(enum io_call call, int fd, char *p, size_t len)
{
	size_t at = 0;
	ssize_t n;

	MX_CHECK(lseek(fd, 0, SEEK_SET) == 0);
	for (; at < len; at += n) {
		n = io_once(call, fd, p, at, len);
		MX_CHECK(n > 0);
	}
}

/* in: file to away memory; out: away memory to file */
static void io_cell(struct mx *m, int fd, bool in)
{
	char *home = mx_map(LEN), *p = mx_map(LEN);
	enum io_call call = m->cell->a;
	struct mover v;
	uint64_t gen;

	for (gen = 1; gen <= ROUNDS; gen++) {
		mx_fill(in ? home : p, LEN, gen);
		if (in)
			io_all(IO_WRITE, fd, home, LEN);
		mover_start(&v, m, p, LEN);
		io_all(call, fd, p, LEN);
		mover_end(&v);
		if (!in)
			io_all(IO_READ, fd, home, LEN);
		if (in)
			mx_verify_copy(p, home, LEN, gen);
		else
			mx_verify_copy(home, p, LEN, gen);
	}
	close(fd);
}

static void cell_file(struct mx *m)
{
	int fd = temp_file(0);

	MX_CHECK(fd >= 0);
	io_cell(m, fd, m->cell->a < IO_WRITE);
}

/* the device of the file system reads and writes the pages themselves, which are pinned meanwhile
 */
static void cell_direct(struct mx *m)
{
	int fd = temp_file(O_DIRECT);

	if (m->copying && m->cell->b == MOVING)
		mx_skip("without UFFDIO_MOVE a page that is pinned for a moment is not told apart");
	if (fd < 0)
		mx_skip("/var/tmp has no O_DIRECT or O_TMPFILE: %s", strerror(errno));
	io_cell(m, fd, m->cell->a < IO_WRITE);
}

/* ---- sockets and pipes ---- */

struct sender {
	int fd;
	char *p;
};

static void *sender_main(void *arg)
{
	struct sender *s = arg;
	size_t at = 0;
	ssize_t n;

	for (; at < LEN; at += n) {
		struct iovec v[IOVS];
		struct msghdr h = { .msg_iov = v };

		h.msg_iovlen = cut(v, s->p + at, LEN - at);
		n = sendmsg(s->fd, &h, 0);
		MX_CHECK(n > 0);
	}
	return NULL;
}

static void cell_socket(struct mx *m)
{
	char *from = mx_map(LEN), *to = mx_map(LEN);
	struct mover v, w;
	uint64_t gen;
	int fd[2];

	MX_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	for (gen = 1; gen <= ROUNDS; gen++) {
		struct sender s = { fd[0], from };
		size_t at = 0;
		pthread_t t;
		ssize_t n;

		mx_fill(from, LEN, gen);
		mover_start(&v, m, from, LEN);
		mover_start(&w, m, to, LEN);
		t = mx_thread(sender_main, &s);
		for (; at < LEN; at += n) {
			struct iovec iov[IOVS];
			struct msghdr h = { .msg_iov = iov };

			h.msg_iovlen = cut(iov, to + at, LEN - at);
			n = recvmsg(fd[1], &h, 0);
			MX_CHECK(n > 0);
		}
		mx_join(t);
		mover_end(&v);
		mover_end(&w);
		mx_verify_copy(to, from, LEN, gen);
	}
	close(fd[0]);
	close(fd[1]);
}

/* the pipe holds the pages themselves; tee gives them to a second one */
static void cell_vmsplice(struct mx *m)
{
	size_t len = 16 * PAGE, at;
	char *p = mx_map(len), *got = mx_map(len);
	int a[2], b[2];
	struct mover v;
	uint64_t gen;

	MX_CHECK(!pipe(a) && !pipe(b));
	for (gen = 1; gen <= ROUNDS; gen++) {
		struct iovec iov = { p, len };

		mx_fill(p, len, gen);
		mover_start(&v, m, p, len);
		MX_CHECK(vmsplice(a[1], &iov, 1, 0) == (ssize_t)len);
		/* in the hand of the pipe: it stays, or what the pipe has is its own all the same
		 */
		MX_OK(balun_migrate(m->space, p, len, m->dev, NULL));
		MX_CHECK(tee(a[0], b[1], len, 0) == (ssize_t)len);
		for (at = 0; at < len; at += PAGE)
			MX_CHECK(read(a[0], got + at, PAGE) == (ssize_t)PAGE);
		mx_verify_copy(got, p, len, gen);
		memset(got, 0, len);
		for (at = 0; at < len; at += PAGE)
			MX_CHECK(read(b[0], got + at, PAGE) == (ssize_t)PAGE);
		mx_verify_copy(got, p, len, gen);
		mover_end(&v);
		mx_verify(p, len, gen);
	}
}

/* ---- futexes ---- */

static long futex(uint32_t *word, int op, uint32_t v)
{
	return syscall(SYS_futex, word, op, v, NULL, NULL, 0);
}

struct waiter {
	uint32_t *word, *turn;
	int op;
};

/* the word goes to 1 when a turn is asked for, back to 0 when it is done; both sides sleep */
static void *waiter_main(void *arg)
{
	struct waiter *w = arg;
	unsigned int i;

	for (i = 0; i < 200; i++) {
		while (__atomic_load_n(w->word, __ATOMIC_ACQUIRE) != 1)
			futex(w->word, w->op, 0);
		__atomic_store_n(w->word, 0, __ATOMIC_RELEASE);
		__atomic_add_fetch(w->turn, 1, __ATOMIC_RELEASE);
		futex(w->turn, w->op | FUTEX_WAKE, 1);
	}
	return NULL;
}

static void cell_futex(struct mx *m)
{
	char *p = mx_map(2 * PAGE);
	struct waiter w = { (uint32_t *)p, (uint32_t *)(p + PAGE),
			    m->cell->a ? FUTEX_PRIVATE_FLAG : 0 };
	struct mover v;
	uint32_t i;
	pthread_t t;

	mx_fill(p, 2 * PAGE, 1);
	*w.word = *w.turn = 0;
	mover_start(&v, m, p, 2 * PAGE);
	t = mx_thread(waiter_main, &w);
	for (i = 0; i < 200; i++) {
		if (m->cell->b == AWAY)
			MX_OK(balun_migrate(m->space, p, 2 * PAGE, m->dev, NULL));
		__atomic_store_n(w.word, 1, __ATOMIC_RELEASE);
		futex(w.word, w.op | FUTEX_WAKE, 1);
		while (__atomic_load_n(w.turn, __ATOMIC_ACQUIRE) == i)
			futex(w.turn, w.op, i);
	}
	mx_join(t);
	mover_end(&v);
}

struct shared {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t count, turn;
};

static void *locker_main(void *arg)
{
	struct shared *s = arg;
	uint64_t me, i;

	pthread_mutex_lock(&s->lock);
	me = s->count++;
	for (i = 0; i < 100; i++) {
		while (s->turn % 3 != me)
			pthread_cond_wait(&s->moved, &s->lock);
		s->turn++;
		pthread_cond_broadcast(&s->moved);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* three threads take turns, by a mutex and a condition in away memory */
static void cell_mutex(struct mx *m)
{
	struct shared *s = mx_map(PAGE);
	struct mover v;
	pthread_t t[3];
	int i;

	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->moved, NULL);
	mover_start(&v, m, s, PAGE);
	for (i = 0; i < 3; i++)
		t[i] = mx_thread(locker_main, s);
	for (i = 0; i < 3; i++)
		mx_join(t[i]);
	mover_end(&v);
	MX_CHECK_EQ(s->turn, 300);
}

/* ---- small results ---- */

struct results {
	struct timespec now, zero;
	struct stat st;
	struct utsname name;
	struct pollfd poll;
	struct epoll_event event;
	char cwd[512], random[64];
	char path[64];
	siginfo_t info;
	sigset_t set;
};

/* structures that calls read and write, each of them alone in away memory */
static void cell_results(struct mx *m)
{
	struct results *r = mx_map(LEN), here;
	int ep = epoll_create1(EPOLL_CLOEXEC), fd[2], i;

	MX_CHECK(ep >= 0 && !pipe(fd) && write(fd[1], "x", 1) == 1);
	for (i = 0; i < 20; i++) {
		size_t len = sizeof(*r);

		memset(r, 0, sizeof(*r));
		strcpy(r->path, "/proc/self/status");
		r->poll = (struct pollfd){ .fd = fd[0], .events = POLLIN };
		r->event = (struct epoll_event){ .events = EPOLLIN, .data.u64 = 7 };
		sigemptyset(&r->set);
#define AGAIN() mx_move(m, r, len, m->dev)
		AGAIN();
		MX_CHECK(!syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &r->now));
		AGAIN();
		MX_CHECK(!clock_gettime(CLOCK_MONOTONIC, &r->now)); /* the vdso writes */
		AGAIN();
		MX_CHECK(!stat(r->path, &r->st));
		AGAIN();
		MX_CHECK(!uname(&r->name));
		AGAIN();
		MX_CHECK(poll(&r->poll, 1, 0) == 1);
		AGAIN();
		MX_CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, fd[0], &r->event));
		AGAIN();
		MX_CHECK(syscall(SYS_epoll_wait, ep, &r->event, 1, 0) ==
			 1); /* gcc takes the packed struct for its first word */
		AGAIN();
		MX_CHECK(syscall(SYS_getcwd, r->cwd, sizeof(r->cwd)) > 0);
		AGAIN();
		MX_CHECK(getrandom(r->random, sizeof(r->random), 0) == sizeof(r->random));
		AGAIN();
		MX_CHECK(!nanosleep(&r->zero, NULL));
		AGAIN();
		errno = 0;
		MX_CHECK(sigtimedwait(&r->set, &r->info, &r->zero) < 0 && errno == EAGAIN);
		AGAIN();
#undef AGAIN
		memset(&here, 0, sizeof(here));
		MX_CHECK(!uname(&here.name) && getcwd(here.cwd, sizeof(here.cwd)));
		MX_CHECK(!strcmp(here.cwd, r->cwd) && !strcmp(here.name.release, r->name.release));
		MX_CHECK(r->now.tv_sec && S_ISREG(r->st.st_mode) && r->poll.revents == POLLIN);
		MX_CHECK(r->event.data.u64 == 7);
		MX_CHECK(!epoll_ctl(ep, EPOLL_CTL_DEL, fd[0], NULL));
	}
}

/* a look that is none: the kernel says what is there and brings nothing home */
static void cell_mincore(struct mx *m)
{
	char *p = mx_away(m, LEN, 1);
	static unsigned char vec[LEN / PAGE];
	size_t i;

	MX_CHECK(!mincore(p, LEN, vec));
	for (i = 0; i < LEN / PAGE; i++)
		MX_CHECK(!(vec[i] & 1));
	MX_CHECK_EQ(mx_pages_away(m, p, LEN), LEN / PAGE);
	mx_verify(p, LEN, 1);
	MX_CHECK(!mincore(p, LEN, vec));
	for (i = 0; i < LEN / PAGE; i++)
		MX_CHECK(vec[i] & 1);
}

/* the new program's arguments are read from the caller's away memory */
static void cell_exec(struct mx *m)
{
	char *p = mx_map(LEN), **argv = (char **)p, *text = p + MIB, got[256] = "";
	char *env[] = { NULL };
	posix_spawn_file_actions_t fa;
	int fd[2], i;
	ssize_t n;

	for (i = 0; i < 8; i++) {
		pid_t pid;

		strcpy(text, "/bin/sh");
		strcpy(text + MIB, "-c");
		snprintf(text + 2 * MIB, 64, "echo away %d", i);
		argv[0] = text;
		argv[1] = text + MIB;
		argv[2] = text + 2 * MIB;
		argv[3] = NULL;
		MX_CHECK(!pipe(fd));
		posix_spawn_file_actions_init(&fa);
		posix_spawn_file_actions_adddup2(&fa, fd[1], 1);
		mx_move(m, p, LEN, m->dev);
		MX_CHECK_EQ(posix_spawn(&pid, "/bin/sh", &fa, NULL, argv, env), 0);
		posix_spawn_file_actions_destroy(&fa);
		close(fd[1]);
		n = read(fd[0], got, sizeof(got) - 1);
		MX_CHECK(n > 0);
		got[n] = 0;
		MX_CHECK(!strncmp(got, "away ", 5) && atoi(got + 5) == i);
		close(fd[0]);
		mx_reap(pid);
	}
}

/* without privileges the kernel serves faults of user mode only: a call fails, and says so */
static void cell_user_mode_only(struct mx *m)
{
	int fd = temp_file(0), zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	char *p;

	p = mx_away(m, LEN, 1);
	errno = 0;
	MX_CHECK(read(zero, p, PAGE) < 0 && errno == EFAULT);
	errno = 0;
	MX_CHECK(write(fd, p, PAGE) < 0 && errno == EFAULT);
	mx_verify(p, LEN, 1); /* a touch of its own brings it home, and then the call works */
	MX_CHECK(write(fd, p, PAGE) == (ssize_t)PAGE);
	mx_move(m, p, LEN, m->dev);
	mx_close(m);
	mx_verify(p, LEN, 1);
}

/*
 * As many mappings as the kernel allows: what the program discards is emptied on the device, though
 * the kernel cannot cut the device's memory in two.
 */
static void cell_mappings(struct mx *m)
{
	char *p = mx_away(m, LEN, 1), text[32] = "", *many;
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY);
	size_t max, i;

	if (MX_TSAN)
		mx_skip("the sanitizer maps memory as it goes, and ends where it cannot");
	MX_CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	max = strtoul(text, NULL, 10);
	if (max > MAPPINGS)
		mx_skip("%zu mappings are allowed here", max);
	many = mmap(NULL, 2 * max * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	MX_CHECK(many != MAP_FAILED);
	for (i = 1; i < 2 * max; i += 2)
		if (syscall(SYS_mprotect, many + i * PAGE, PAGE, PROT_READ))
			break;
	MX_CHECK(i < 2 * max);
	/* perhaps one is left: to cut out a page in the middle takes two */
	mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MX_CHECK(!madvise(p + 64 * PAGE, PAGE, MADV_DONTNEED));
	MX_CHECK(!munmap(many, 2 * max * PAGE));
	mx_verify(p, 64 * PAGE, 1);
	mx_verify(p + 64 * PAGE, PAGE, MX_ZEROS);
	mx_verify(p + 65 * PAGE, LEN - 65 * PAGE, 1);
}

#define BOTH(name, fn, a)                                                                          \
	{ name "/away", fn, a, AWAY, MX_KERNEL },                                                  \
	{                                                                                          \
		name "/moving", fn, a, MOVING, MX_KERNEL                                           \
	}

const struct mx_cell cells_syscalls[] = {
	BOTH("syscall/read", cell_file, IO_READ),
	BOTH("syscall/pread", cell_file, IO_PREAD),
	BOTH("syscall/readv", cell_file, IO_READV),
	BOTH("syscall/write", cell_file, IO_WRITE),
	BOTH("syscall/pwrite", cell_file, IO_PWRITE),
	BOTH("syscall/writev", cell_file, IO_WRITEV),
	BOTH("syscall/direct-read", cell_direct, IO_READ),
	BOTH("syscall/direct-write", cell_direct, IO_WRITE),
	BOTH("syscall/sendmsg-recvmsg", cell_socket, 0),
	{ "syscall/vmsplice-tee/away", cell_vmsplice, 0, AWAY, MX_KERNEL },
	BOTH("syscall/futex-shared", cell_futex, 0),
	BOTH("syscall/futex-private", cell_futex, 1),
	BOTH("syscall/mutex-condition", cell_mutex, 0),
	{ "syscall/results/away", cell_results, 0, AWAY, MX_KERNEL },
	{ "syscall/mincore/away", cell_mincore, 0, AWAY, 0 },
	{ "syscall/exec-arguments/away", cell_exec, 0, AWAY, MX_KERNEL },
	{ "syscall/madvise-all-mappings/away", cell_mappings, 0, AWAY, 0 },
	{ "syscall/user-mode-only/away", cell_user_mode_only, 0, AWAY, MX_USER },
	{ NULL, NULL, 0, 0, 0 },
};
