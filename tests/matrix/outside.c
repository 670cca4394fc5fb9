/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Away memory reached by others than its threads: io_uring, another process (process_vm_readv,
 * /proc/PID/mem, ptrace), a signal's frame, a core dump.
 */
#include "matrix.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN (2 * MIB)

/* ---- io_uring, by its three system calls ---- */

struct ring {
	int fd;
	struct io_uring_params p;
	char *sq, *cq;
	struct io_uring_sqe *sqe;
};

static void ring_open(struct ring *r)
{
	size_t n;

	memset(r, 0, sizeof(*r));
	r->fd = syscall(SYS_io_uring_setup, 8, &r->p);
	if (r->fd < 0)
		mx_skip("io_uring is not to be had: %s", strerror(errno));
	n = r->p.sq_off.array + r->p.sq_entries * sizeof(uint32_t);
	r->sq = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	n = r->p.cq_off.cqes + r->p.cq_entries * sizeof(struct io_uring_cqe);
	r->cq = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqe = mmap(NULL, 8 * sizeof(*r->sqe), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		      IORING_OFF_SQES);
	MX_CHECK(r->sq != MAP_FAILED && r->cq != MAP_FAILED && (void *)r->sqe != MAP_FAILED);
}

static uint32_t *word_at(char *base, uint32_t off)
{
	return (uint32_t *)(base + off);
}

static void ring_start(struct ring *r, int op, int fd, void *p, size_t len, uint64_t off)
{
	uint32_t tail = *word_at(r->sq, r->p.sq_off.tail), i;

	i = tail & *word_at(r->sq, r->p.sq_off.ring_mask);
	memset(&r->sqe[i], 0, sizeof(r->sqe[i]));
	r->sqe[i].opcode = op;
	r->sqe[i].fd = fd;
	r->sqe[i].addr = (uintptr_t)p;
	r->sqe[i].len = len;
	r->sqe[i].off = off;
	word_at(r->sq, r->p.sq_off.array)[i] = i;
	__atomic_store_n(word_at(r->sq, r->p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	MX_CHECK(syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0) == 1);
}

static int ring_wait(struct ring *r)
{
	uint32_t head = *word_at(r->cq, r->p.cq_off.head);
	struct io_uring_cqe *e = (void *)(r->cq + r->p.cq_off.cqes);

	while (__atomic_load_n(word_at(r->cq, r->p.cq_off.tail), __ATOMIC_ACQUIRE) == head)
		MX_CHECK(syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL,
				 0) == 0);
	e += head & *word_at(r->cq, r->p.cq_off.ring_mask);
	__atomic_store_n(word_at(r->cq, r->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
	return e->res;
}

static void ring_all(struct ring *r, int op, int fd, char *p, size_t len)
{
	size_t at = 0;
	int n;

	for (; at < len; at += n) {
		ring_start(r, op, fd, p + at, len - at, at);
		n = ring_wait(r);
		if (n < 0)
			errno = -n;
		MX_CHECK(n > 0);
	}
}

static void cell_uring(struct mx *m)
{
	char *home = mx_map(LEN), *p = mx_map(LEN);
	int fd = memfd_create("matrix", MFD_CLOEXEC);
	struct ring r;
	uint64_t gen;

	ring_open(&r);
	for (gen = 1; gen <= 6; gen++) {
		mx_fill(p, LEN, gen);
		mx_move(m, p, LEN, m->dev);
		ring_all(&r, IORING_OP_WRITE, fd, p, LEN);
		mx_move(m, p, LEN, m->dev);
		MX_CHECK(pread(fd, home, LEN, 0) == (ssize_t)LEN);
		mx_verify_copy(home, p, LEN, gen);
		mx_fill(home, LEN, gen + 10);
		MX_CHECK(pwrite(fd, home, LEN, 0) == (ssize_t)LEN);
		ring_all(&r, IORING_OP_READ, fd, p, LEN);
		mx_verify_copy(p, home, LEN, gen + 10);
	}
	close(fd);
	close(r.fd);
}

/* a read that waits for its data, into a page that is sent away meanwhile */
static void cell_uring_waiting(struct mx *m)
{
	char *p = mx_map(PAGE);
	struct ring r;
	uint64_t gen;
	int fd[2];

	ring_open(&r);
	MX_CHECK(!pipe(fd));
	for (gen = 1; gen <= 20; gen++) {
		uint64_t w = mx_word((uintptr_t)p, gen);

		mx_fill(p, PAGE, gen + 100);
		ring_start(&r, IORING_OP_READ, fd[0], p, sizeof(w), 0);
		MX_OK(balun_migrate(m->space, p, PAGE, m->dev, NULL));
		MX_CHECK(write(fd[1], &w, sizeof(w)) == sizeof(w));
		MX_CHECK_EQ(ring_wait(&r), sizeof(w));
		MX_CHECK_EQ(*(volatile uint64_t *)p, w);
		mx_verify(p + 8, PAGE - 8, gen + 100);
	}
	close(r.fd);
}

/* the kernel holds the pages of a registered buffer: they stay until it is given back */
static void cell_uring_registered(struct mx *m)
{
	char *home = mx_map(LEN), *p = mx_map(LEN);
	int fd = memfd_create("matrix", MFD_CLOEXEC);
	struct iovec iov = { p, LEN };
	struct balun_counts c;
	struct ring r;
	uint64_t gen;

	if (m->copying)
		mx_skip("without UFFDIO_MOVE a page that the kernel holds is not told apart: "
			"docs/coherence.md");
	ring_open(&r);
	mx_fill(p, LEN, 1);
	mx_move(m, p, LEN, m->dev);
	/* brings it home */
	MX_CHECK(!syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &iov, 1));
	mx_verify(p, LEN, 1);
	for (gen = 2; gen < 6; gen++) {
		MX_OK(balun_migrate(m->space, p, LEN, m->dev, &c));
		MX_CHECK_EQ(c.busy, LEN / PAGE);
		MX_CHECK_EQ(mx_pages_away(m, p, LEN), 0);
		mx_fill(home, LEN, gen);
		MX_CHECK(pwrite(fd, home, LEN, 0) == (ssize_t)LEN);
		ring_all(&r, IORING_OP_READ_FIXED, fd, p, LEN);
		mx_verify_copy(p, home, LEN, gen);
		mx_fill(p, LEN, gen);
		ring_all(&r, IORING_OP_WRITE_FIXED, fd, p, LEN);
		MX_CHECK(pread(fd, home, LEN, 0) == (ssize_t)LEN);
		mx_verify_copy(home, p, LEN, gen);
	}
	MX_CHECK(!syscall(SYS_io_uring_register, r.fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
	mx_move(m, p, LEN, m->dev);
	mx_verify(p, LEN, gen - 1);
	close(r.fd);
}

/* ---- another process ---- */

enum outside {
	OUT_VM_READ,
	OUT_VM_WRITE,
	OUT_MEM_READ,
	OUT_MEM_WRITE,
	OUT_PEEK,
	OUT_POKE,
};
#define PEEKS 16 /* words, each in a page of its own */

static void outside_vm(pid_t pid, char *p, char *buf, bool write)
{
	struct iovec local = { buf, LEN }, remote = { p, LEN };
	ssize_t n = write ? process_vm_writev(pid, &local, 1, &remote, 1, 0)
			  : process_vm_readv(pid, &local, 1, &remote, 1, 0);

	if (n < 0 && errno == EPERM)
		mx_skip("a process may not look into its parent here (yama, seccomp)");
	MX_CHECK_EQ(n, LEN);
}

/* false: EIO, and nothing was read or written */
static bool outside_mem(pid_t pid, char *p, char *buf, bool write)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		mx_skip("%s: %s", path, strerror(errno));
	n = write ? pwrite(fd, buf, LEN, (uintptr_t)p) : pread(fd, buf, LEN, (uintptr_t)p);
	MX_CHECK(n == LEN || (n < 0 && errno == EIO));
	close(fd);
	return n > 0;
}

/* one word: false: EIO, and nothing was read or written */
static bool outside_word(pid_t tid, char *p, char *buf, bool write)
{
	long v;

	memcpy(&v, buf, sizeof(v));
	errno = 0;
	if (write)
		ptrace(PTRACE_POKEDATA, tid, p, v);
	else
		v = ptrace(PTRACE_PEEKDATA, tid, p, NULL);
	MX_CHECK(!errno || errno == EIO);
	memcpy(buf, &v, sizeof(v));
	return !errno;
}

/* stops one thread, which leaves the one that serves faults running */
static bool outside_ptrace(pid_t tid, char *p, char *buf, bool write)
{
	size_t i, done = 0;

	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL)) {
		if (errno == EPERM)
			mx_skip("a process may not trace its parent here (yama)");
		MX_CHECK(0);
	}
	MX_CHECK(!ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
	MX_CHECK(waitpid(tid, NULL, __WALL) == tid);
	for (i = 0; i < PEEKS; i++)
		done += outside_word(tid, p + i * PAGE, buf + i * PAGE, write);
	MX_CHECK(!ptrace(PTRACE_DETACH, tid, NULL, NULL));
	MX_CHECK(done == 0 || done == PEEKS);
	return done;
}

struct outsider {
	pid_t parent;
	char *p;
	int say[2], hear[2]; /* to the outsider; from it */
};

static bool outside_once(struct mx *m, struct outsider *o, char *buf)
{
	enum outside what = m->cell->a;
	bool write = what == OUT_VM_WRITE || what == OUT_MEM_WRITE || what == OUT_POKE;
	size_t i;
	char c;

	MX_CHECK(read(o->say[0], &c, 1) == 1);
	for (i = 0; write && i < LEN / 8; i++)
		((uint64_t *)buf)[i] = mx_word((uintptr_t)o->p + 8 * i, 2);
	if (what == OUT_PEEK || what == OUT_POKE)
		return outside_ptrace(o->parent, o->p, buf, write);
	if (what == OUT_MEM_READ || what == OUT_MEM_WRITE)
		return outside_mem(o->parent, o->p, buf, write);
	outside_vm(o->parent, o->p, buf, write);
	return true;
}

/*
 * The other process: made before the space, so that it shares no page with us that migrates. Where
 * the kernel cannot wait for a page that is away it says EIO, never anything wrong; then we are
 * asked to bring it home, after which it must succeed.
 */
static void outsider_main(struct mx *m, struct outsider *o)
{
	static char buf[LEN];
	size_t i;

	if (!outside_once(m, o, buf)) {
		MX_CHECK(write(o->hear[1], "h", 1) == 1);
		MX_CHECK(outside_once(m, o, buf));
	}
	for (i = 0; m->cell->a == OUT_PEEK && i < PEEKS; i++)
		mx_verify_copy(buf + i * PAGE, o->p + i * PAGE, 8, 1);
	if (m->cell->a == OUT_VM_READ || m->cell->a == OUT_MEM_READ)
		mx_verify_copy(buf, o->p, LEN, 1);
	MX_CHECK(write(o->hear[1], "d", 1) == 1);
	_exit(0);
}

static void outside_verify(char *p, enum outside what)
{
	bool all = what == OUT_VM_WRITE || what == OUT_MEM_WRITE;
	size_t i;

	for (i = 0; i < LEN; i += PAGE) {
		mx_verify(p + i, 8, all || (what == OUT_POKE && i < PEEKS * PAGE) ? 2 : 1);
		mx_verify(p + i + 8, PAGE - 8, all ? 2 : 1);
	}
}

static void cell_outside(struct mx *m)
{
	struct outsider o = { .parent = getpid(), .p = mx_map(LEN) };
	ssize_t n;
	pid_t pid;
	char c;

	MX_CHECK(!pipe(o.say) && !pipe(o.hear));
	pid = fork();
	MX_CHECK(pid >= 0);
	if (!pid)
		outsider_main(m, &o);
	close(o.hear[1]);
	prctl(PR_SET_PTRACER, pid);
	mx_open(m);
	mx_fill(o.p, LEN, 1);
	mx_move(m, o.p, LEN, m->dev);
	MX_CHECK(write(o.say[1], "", 1) == 1);
	n = read(o.hear[0], &c, 1);
	if (n == 1 && c == 'h') {
		MX_CHECK_EQ(mx_pages_away(m, o.p, LEN), LEN / PAGE);
		mx_move(m, o.p, LEN, NULL);
		MX_CHECK(write(o.say[1], "", 1) == 1);
	}
	mx_reap(pid);
	outside_verify(o.p, m->cell->a);
	mx_close(m);
}

/* ---- signals ---- */

static int handled;
static char *stack_seen;

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	char here[3 * PAGE]; /* more of the stack is away */

	memset(here, sig, sizeof(here));
	__asm__ volatile("" : : "r"(here) : "memory");
	__atomic_store_n(&stack_seen, here, __ATOMIC_RELAXED);
	MX_CHECK(si->si_signo == sig && ctx);
	__atomic_fetch_add(&handled, 1, __ATOMIC_RELEASE);
}

static bool stack_inside(const char *p, size_t len)
{
	const char *seen = __atomic_load_n(&stack_seen, __ATOMIC_RELAXED);

	return seen > p && seen < p + len;
}

/* the kernel writes the frame into a stack that is on the device */
static void cell_sigaltstack(struct mx *m)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	char *p = mx_map(16 * PAGE);
	stack_t ss = { .ss_sp = p, .ss_size = 16 * PAGE };
	int i;

	if (MX_TSAN)
		mx_skip("TSan runs a handler later, and on another stack");
	mx_fill(p, 16 * PAGE, 1);
	MX_CHECK(!sigaltstack(&ss, NULL) && !sigaction(SIGUSR1, &sa, NULL));
	for (i = 1; i <= 20; i++) {
		mx_move(m, p, 16 * PAGE, m->dev);
		MX_CHECK(!syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
		MX_CHECK_EQ(__atomic_load_n(&handled, __ATOMIC_ACQUIRE), i);
		MX_CHECK(stack_inside(p, 16 * PAGE));
	}
	ss.ss_flags = SS_DISABLE;
	MX_CHECK(!sigaltstack(&ss, NULL));
	mx_verify(p, 4 * PAGE, 1); /* below what the handler used */
}

struct sleeper {
	int ready, go;
	sigset_t none;
};

static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	char c;

	MX_CHECK(write(s->ready, "", 1) == 1);
	while (read(s->go, &c, 1) != 1)
		MX_CHECK(errno == EINTR); /* once a signal */
	return NULL;
}

/* the ordinary stack of a thread that sleeps in a system call is away when the signal comes */
static void cell_thread_stack(struct mx *m)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	size_t len = (MX_TSAN ? 1024 : 64) * PAGE; /* TSan wants room for its thread block */
	char *p = mx_map(len), c;
	struct sleeper s;
	pthread_attr_t attr;
	int ready[2], go[2], i;
	pthread_t t;

	MX_CHECK(!pipe(ready) && !pipe(go) && !sigaction(SIGUSR1, &sa, NULL));
	s.ready = ready[1];
	s.go = go[0];
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, p, len);
	MX_CHECK(!pthread_create(&t, &attr, sleeper_main, &s));
	MX_CHECK(read(ready[0], &c, 1) == 1);
	for (i = 1; i <= 20; i++) {
		MX_OK(balun_migrate(m->space, p, len, m->dev, NULL));
		MX_CHECK(!pthread_kill(t, SIGUSR1));
		while (__atomic_load_n(&handled, __ATOMIC_ACQUIRE) < i)
			sched_yield();
		MX_CHECK(stack_inside(p, len));
	}
	MX_CHECK(write(go[1], "", 1) == 1);
	mx_join(t);
}

/* ---- core dumps ---- */

#define CORE_LEN (64 * PAGE)

/* the bytes of [va, va + len) in a core file: 0; -ENOENT not in it */
static int core_read(int fd, uint64_t va, void *buf, size_t len)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	int i;

	MX_CHECK(pread(fd, &eh, sizeof(eh), 0) == sizeof(eh) &&
		 !memcmp(eh.e_ident, ELFMAG, SELFMAG));
	for (i = 0; i < eh.e_phnum; i++) {
		MX_CHECK(pread(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)) == sizeof(ph));
		if (ph.p_type != PT_LOAD || va < ph.p_vaddr || va + len > ph.p_vaddr + ph.p_filesz)
			continue;
		MX_CHECK(pread(fd, buf, len, ph.p_offset + va - ph.p_vaddr) == (ssize_t)len);
		return 0;
	}
	return -ENOENT;
}

static char *dump_p;

/* what a program can do that wants it all in its cores: no more than touch it, before it dies */
static void before_core(int sig)
{
	MX_CHECK(!madvise(dump_p, CORE_LEN, MADV_POPULATE_READ));
	signal(sig, SIG_DFL);
	raise(sig);
}

static void dumper(struct mx *m, char *away, char *home, const char *dir)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	if (setrlimit(RLIMIT_CORE, &unlimited))
		mx_skip("RLIMIT_CORE: %s", strerror(errno));
	MX_CHECK(!chdir(dir));
	prctl(PR_SET_DUMPABLE, 1);
	mx_open(m);
	mx_fill(away, CORE_LEN, 1);
	mx_fill(home, CORE_LEN, 2);
	mx_move(m, away, CORE_LEN, m->dev);
	dump_p = away;
	signal(SIGABRT, m->cell->a ? before_core : SIG_DFL);
	abort();
}

static void core_pattern(char *buf, size_t size)
{
	int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (n <= 0)
		mx_skip("no /proc/sys/kernel/core_pattern");
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	close(fd);
	if (buf[0] == '|' || buf[0] == '@' || strchr(buf, '/') || strchr(buf, '%'))
		mx_skip("core_pattern \"%s\" leads elsewhere", buf);
}

/*
 * Truth, not wish: the kernel writes a core without faults, and the thread that would serve them is
 * dead by then, so what was on a device is a hole of the core: zeros. What was home is there.
 */
static void cell_core(struct mx *m)
{
	char *away = mx_map(CORE_LEN), *home = mx_map(CORE_LEN), *got = mx_map(CORE_LEN);
	char dir[] = "/var/tmp/matrix-XXXXXX", pattern[128], name[256], with_pid[300];
	int status, fd;
	pid_t pid;

	core_pattern(pattern, sizeof(pattern));
	MX_CHECK(mkdtemp(dir));
	pid = fork();
	MX_CHECK(pid >= 0);
	if (!pid)
		dumper(m, away, home, dir);
	MX_CHECK(waitpid(pid, &status, 0) == pid);
	snprintf(name, sizeof(name), "%s/%s", dir, pattern);
	snprintf(with_pid, sizeof(with_pid), "%s.%d", name, pid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open(with_pid, O_RDONLY | O_CLOEXEC);
	unlink(name);
	unlink(with_pid);
	rmdir(dir);
	MX_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	if (fd < 0 || !WCOREDUMP(status))
		mx_skip("no core was written");
	MX_CHECK(!core_read(fd, (uintptr_t)home, got, CORE_LEN));
	mx_verify_copy(got, home, CORE_LEN, 2);
	if (m->cell->a) {
		MX_CHECK(!core_read(fd, (uintptr_t)away, got, CORE_LEN));
		mx_verify_copy(got, away, CORE_LEN, 1);
	} else if (!core_read(fd, (uintptr_t)away, got, CORE_LEN)) {
		mx_verify(got, CORE_LEN, MX_ZEROS);
	}
	close(fd);
}

const struct mx_cell cells_outside[] = {
	{ "syscall/io_uring/away", cell_uring, 0, 0, MX_KERNEL },
	{ "syscall/io_uring-waiting/moving", cell_uring_waiting, 0, 0, MX_KERNEL },
	{ "syscall/io_uring-registered/stays", cell_uring_registered, 0, 0, MX_KERNEL },
	{ "outside/process_vm_readv/away", cell_outside, OUT_VM_READ, 0,
	  MX_FORK | MX_NO_SPACE | MX_KERNEL },
	{ "outside/process_vm_writev/away", cell_outside, OUT_VM_WRITE, 0,
	  MX_FORK | MX_NO_SPACE | MX_KERNEL },
	{ "outside/proc-mem-read/away", cell_outside, OUT_MEM_READ, 0, MX_FORK | MX_NO_SPACE },
	{ "outside/proc-mem-write/away", cell_outside, OUT_MEM_WRITE, 0, MX_FORK | MX_NO_SPACE },
	{ "outside/ptrace-peek/away", cell_outside, OUT_PEEK, 0, MX_FORK | MX_NO_SPACE },
	{ "outside/ptrace-poke/away", cell_outside, OUT_POKE, 0, MX_FORK | MX_NO_SPACE },
	{ "signal/sigaltstack/away", cell_sigaltstack, 0, 0, MX_KERNEL },
	{ "signal/thread-stack/away", cell_thread_stack, 0, 0, MX_KERNEL },
	{ "outside/core-dump/away", cell_core, 0, 0, MX_FORK | MX_NO_SPACE },
	{ "outside/core-dump/touched-first", cell_core, 1, 0, MX_FORK | MX_NO_SPACE | MX_KERNEL },
	{ NULL, NULL, 0, 0, 0 },
};
