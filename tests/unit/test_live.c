// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* env_live.c: who may ask, what is answered, and that nothing of it is in the program's way */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "balun/live.h"
#include "env/env.h"

#define MB	(1ULL << 20)
#define LIMIT_S 30

/* ---- what a test waits for ---- */

static const char *waits_for = "";

static void hangs(int sig)
{
	char text[200];
	int n = snprintf(text, sizeof(text), "FAIL after %d s nothing has come of it: %s\n",
			 LIMIT_S, waits_for);

	(void)sig;
	if (write(STDOUT_FILENO, text, n) == n)
		_exit(1);
	_exit(2);
}

/* What follows, up to the next call, ends within LIMIT_S or the test fails: where a call sleeps,
 * too */
static void wait_for(const char *what)
{
	waits_for = what;
	alarm(LIMIT_S);
}

static int each(void **state)
{
	(void)state;
	wait_for("a test");
	return 0;
}

/* it goes with us, also where a wait has failed */
static pid_t child_begin(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static int child_end(pid_t pid)
{
	int status;

	wait_for("the end of a child");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* ---- the other side ---- */

/* the name that process @pid has, or "" */
static char not_this[108]; /* one that is there still */

static void name_of(pid_t pid, char *ret, size_t size)
{
	FILE *f = fopen("/proc/net/unix", "r");
	char line[512], want[64], *at;

	assert_non_null(f);
	snprintf(want, sizeof(want), "@" BALUN_LIVE_PREFIX "%u-%d-", geteuid(), pid);
	ret[0] = 0;
	while (fgets(line, sizeof(line), f)) {
		unsigned long flags;

		at = strstr(line, want);
		if (!at || sscanf(line, "%*s %*s %*s %lx", &flags) != 1 || !(flags & 0x10000))
			continue;
		at[strcspn(at, "\n")] = 0;
		if (!strcmp(at + 1, not_this))
			continue;
		snprintf(ret, size, "%s", at + 1);
	}
	fclose(f);
}

static int connect_fd(int fd, const char *name)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	memcpy(to.sun_path + 1, name, strnlen(name, sizeof(to.sun_path) - 1));
	return connect(fd, (struct sockaddr *)&to,
		       offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static int connect_to(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	if (connect_fd(fd, name)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* bytes of the answer; -1: nobody is there */
static ssize_t ask(const char *name, const void *q, size_t len, struct balun_live *ret)
{
	int fd = connect_to(name);
	ssize_t n;

	memset(ret, 0, sizeof(*ret));
	if (fd < 0)
		return -1;
	wait_for("an answer");
	n = send(fd, q, len, MSG_NOSIGNAL); /* who is just ending may have taken us on */
	if (n >= 0)
		n = recv(fd, ret, sizeof(*ret), 0);
	close(fd);
	return n;
}

static ssize_t look(const char *name, uint32_t space, struct balun_live *ret)
{
	const struct balun_live_ask q = { BALUN_LIVE_VERSION, BALUN_LIVE_LOOK, space, 0 };

	return ask(name, &q, sizeof(q), ret);
}

/* ---- this side ---- */

static void fill(void *arg, struct balun_live *ret)
{
	snprintf(ret->engine, sizeof(ret->engine), "%s", (const char *)arg);
	ret->stats.size = sizeof(ret->stats);
	ret->stats.cpu_faults = 7;
}

static char name[108];
static struct balun_live a;

static void begin(struct env_live *l, const char *what)
{
	env_live_begin(l, fill, (void *)what);
	name_of(getpid(), name, sizeof(name));
	assert_string_not_equal(name, "");
}

static void answers(void **state)
{
	struct env_live one = { 0 }, two = { 0 };

	begin(&one, "one");
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_int_equal(a.size, sizeof(a));
	assert_int_equal(a.version, BALUN_LIVE_VERSION);
	assert_int_equal(a.err, 0);
	assert_int_equal(a.pid, getpid());
	assert_int_equal(a.spaces, 1);
	assert_int_equal(a.stats.cpu_faults, 7);
	assert_string_equal(a.engine, "one");
	assert_true(a.begun_ns <= a.now_ns && a.now_ns <= env_now_ns());

	assert_int_equal(look(name, 1, &a), BALUN_LIVE_ERR_BYTES);
	assert_int_equal(a.err, -ENOENT);
	env_live_begin(&two, fill, (void *)"two");
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_string_equal(a.engine, "two");
	assert_int_equal(a.spaces, 2);
	assert_int_equal(look(name, 1, &a), sizeof(a));
	assert_string_equal(a.engine, "one");
	env_live_end(&two);
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_string_equal(a.engine, "one");
	env_live_end(&one);
	assert_int_equal(look(name, 0, &a), -1);
}

static void refuses(void **state)
{
	struct balun_live_ask q = { BALUN_LIVE_VERSION + 1, BALUN_LIVE_LOOK, 0, 0 };
	struct env_live l = { 0 };
	int silent;

	begin(&l, "x");
	assert_int_equal(ask(name, &q, sizeof(q), &a), BALUN_LIVE_ERR_BYTES);
	assert_int_equal(a.err, -EPROTO);
	q.version = BALUN_LIVE_VERSION;
	q.what = 99;
	assert_int_equal(ask(name, &q, sizeof(q), &a), BALUN_LIVE_ERR_BYTES);
	assert_int_equal(a.err, -EPROTO);
	assert_int_equal(ask(name, "x", 1, &a), BALUN_LIVE_ERR_BYTES);
	assert_int_equal(a.err, -EPROTO);
	/* who connects and says nothing holds up the next for a second, who goes away not at all */
	silent = connect_to(name);
	assert_int_equal(look(name, 0, &a), sizeof(a));
	close(silent);
	close(connect_to(name));
	assert_int_equal(look(name, 0, &a), sizeof(a));
	env_live_end(&l);
}

/* in a child with another user id: the answer to what it asks the parent */
static int asked_as(uid_t uid)
{
	pid_t pid = child_begin();

	if (!pid) {
		if (setresuid(uid, uid, uid))
			_exit(255);
		look(name, 0, &a);
		_exit(-a.err);
	}
	return WEXITSTATUS(child_end(pid));
}

static void users(void **state)
{
	struct env_live l = { 0 };

	begin(&l, "x");
	assert_int_equal(asked_as(geteuid()), 0);
	/* not to be looked into: but root may */
	prctl(PR_SET_DUMPABLE, 0);
	assert_int_equal(asked_as(geteuid()), geteuid() ? EPERM : 0);
	prctl(PR_SET_DUMPABLE, 1);
	if (!geteuid())
		assert_int_equal(asked_as(12345), EPERM);
	else
		print_message("SKIP another user: only root can be one\n");
	env_live_end(&l);
}

/* ---- the program's descriptors ---- */

static unsigned int count_in(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* threads that answer, in state @state, or in any (0) */
static unsigned int answering(char state)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	unsigned int n = 0;

	assert_non_null(d);
	while ((e = readdir(d))) {
		char path[300], text[100] = "", is = 0;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/stat", e->d_name);
		f = fopen(path, "r");
		if (f && fgets(text, sizeof(text), f))
			sscanf(text, "%*d (balun-live) %c", &is);
		if (f)
			fclose(f);
		n += is && (!state || is == state);
	}
	closedir(d);
	return n;
}

/* a thread that is joined is in the kernel's list a bit longer */
static void none_answers(void)
{
	wait_for("the end of the thread that answers");
	while (answering(0))
		env_yield();
}

static void not_in_the_way(void **state)
{
	unsigned int fds, threads;
	struct env_live l = { 0 };
	pid_t pid;
	int fd;

	none_answers();
	fds = count_in("/proc/self/fd");
	threads = count_in("/proc/self/task");
	begin(&l, "x");
	assert_int_equal(count_in("/proc/self/fd"), fds);
	assert_int_equal(count_in("/proc/self/task"), threads + 1);
	env_live_end(&l);
	none_answers();

	/* what daemons do: in a child, for cmocka's sake */
	pid = child_begin();
	if (!pid) {
		int pipes[2];

		if (pipe(pipes))
			_exit(1);
		env_live_begin(&l, fill, "x");
		for (fd = 0; fd < 256; fd++)
			if (fd != pipes[1])
				close(fd);
		/* the pipe ends when the program closes it: nobody else has it */
		if (write(pipes[1], "x", 1) != -1 || errno != EPIPE)
			_exit(2);
		name_of(getpid(), name, sizeof(name));
		if (!*name || look(name, 0, &a) != sizeof(a) || a.err)
			_exit(3);
		env_live_end(&l);
		_exit(0);
	}
	assert_int_equal(child_end(pid), 0);
}

/* who cannot open anything any more can still end, and begin again later */
static void no_descriptors(void **state)
{
	struct rlimit was, none;
	struct env_live l = { 0 };

	none_answers();
	begin(&l, "x");
	wait_for("the thread that answers to sleep"); /* before that it would end itself */
	while (!answering('S'))
		env_yield();
	getrlimit(RLIMIT_NOFILE, &was);
	none = (struct rlimit){ 0, was.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	env_live_end(&l);
	env_live_begin(&l, fill, "y");
	env_live_end(&l);
	setrlimit(RLIMIT_NOFILE, &was);
	/* the one that could not be told ends when somebody asks */
	assert_int_equal(close(connect_to(name)), 0);
	assert_int_equal(look(name, 0, &a), -1);
	begin(&l, "z");
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_string_equal(a.engine, "z");
	env_live_end(&l);
}

/* the id of the one thread that answers */
static pid_t answering_tid(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	pid_t tid = 0;

	assert_non_null(d);
	while ((e = readdir(d))) {
		char path[300], text[100] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		f = fopen(path, "r");
		if (f && fgets(text, sizeof(text), f) && !strcmp(text, "balun-live\n"))
			tid = atoi(e->d_name);
		if (f)
			fclose(f);
	}
	closedir(d);
	return tid;
}

/*
 * It ends by itself where it gets no descriptor for who asks: the space can end all the same, while
 * there is none (@limited) and later, and the next one is seen.
 */
static void ends_itself(bool limited)
{
	struct env_live l = { 0 }, more = { 0 };
	struct rlimit was, none;
	pid_t tid;
	int fd;

	none_answers();
	begin(&l, "x");
	tid = answering_tid();
	assert_int_not_equal(tid, 0);
	fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	getrlimit(RLIMIT_NOFILE, &was);
	none = (struct rlimit){ 0, was.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	/* wherever it is, accept() is next, and fails; if it has been there nobody listens */
	connect_fd(fd, name);
	wait_for("a thread that gets no descriptor to end");
	while (!syscall(SYS_tgkill, getpid(), tid, 0))
		env_yield();
	if (!limited)
		setrlimit(RLIMIT_NOFILE, &was);
	env_live_begin(&more, fill, "more"); /* nobody sees it */
	env_live_end(&more);
	env_live_end(&l);
	env_live_begin(&l, fill, "y");
	setrlimit(RLIMIT_NOFILE, &was);
	close(fd);
	if (!limited) {
		name_of(getpid(), name, sizeof(name));
		assert_int_equal(look(name, 0, &a), sizeof(a));
		assert_string_equal(a.engine, "y");
	}
	env_live_end(&l);
	none_answers();
	begin(&l, "z");
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_string_equal(a.engine, "z");
	assert_int_equal(a.spaces, 1);
	env_live_end(&l);
}

static void ends_by_itself(void **state)
{
	ends_itself(true);
	ends_itself(false);
}

/* ---- fork ---- */

static void forks(void **state)
{
	char mine[108], child[108];
	struct env_live l = { 0 }, own = { 0 };
	int up[2], down[2];
	char byte;
	pid_t pid;

	begin(&l, "parent");
	strcpy(mine, name);
	assert_int_equal(pipe(up) | pipe(down), 0);
	pid = child_begin();
	if (!pid) {
		name_of(getpid(), name, sizeof(name));
		byte = *name ? 'b' : 'a'; /* not before it has a space */
		if (write(up[1], &byte, 1) != 1 || read(down[0], &byte, 1) != 1)
			_exit(1);
		env_live_begin(&own, fill, "child");
		if (write(up[1], &byte, 1) != 1)
			_exit(1);
		pause();
	}
	wait_for("what a child says");
	assert_int_equal(read(up[0], &byte, 1), 1);
	assert_int_equal(byte, 'a');
	assert_int_equal(write(down[1], "x", 1), 1);
	assert_int_equal(read(up[0], &byte, 1), 1);
	name_of(pid, child, sizeof(child));
	assert_int_equal(look(child, 0, &a), sizeof(a));
	assert_string_equal(a.engine, "child");
	assert_int_equal(a.pid, pid);
	assert_int_equal(a.spaces, 1);
	assert_int_equal(look(mine, 0, &a), sizeof(a));
	assert_string_equal(a.engine, "parent");
	/* the parent's goes with it, though the child lives */
	env_live_end(&l);
	assert_int_equal(look(mine, 0, &a), -1);
	assert_int_equal(look(child, 0, &a), sizeof(a));
	kill(pid, SIGKILL);
	child_end(pid);
	assert_int_equal(look(child, 0, &a), -1);
	close(up[0]), close(up[1]), close(down[0]), close(down[1]);
}

/* ---- heat ---- */

static void hottest(void **state)
{
	uint64_t now = env_now_ns(), sum = 0;
	struct env_live l = { 0 };
	unsigned int i;

	env_live_moved(0x10000000, MB, now); /* nobody can look: not counted */
	begin(&l, "x");
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_int_equal(a.nranges, 0);
	/* more than there is room for, in one set: what is cold makes way */
	for (i = 1; i <= 8; i++)
		env_live_moved(i * 64 * BALUN_BLOCK_SIZE + 4096, i * MB, now);
	env_live_moved(3 * BALUN_BLOCK_SIZE, 100 * MB, now);
	env_live_moved(3 * BALUN_BLOCK_SIZE + 8192, 100 * MB, now);
	/* half of it a second, and nothing that is long ago */
	env_live_moved(4 * BALUN_BLOCK_SIZE, 4096 * MB, now - 3 * 1000000000ULL);
	env_live_moved(5 * BALUN_BLOCK_SIZE, 4096 * MB, now - 70 * 1000000000ULL);
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_int_equal(a.nranges, 6);
	for (i = 0; i + 1 < a.nranges; i++)
		assert_true(a.range[i].heat >= a.range[i + 1].heat);
	assert_int_equal(a.range[0].addr, 4 * BALUN_BLOCK_SIZE);
	assert_in_range(a.range[0].heat, 1, 512 * MB);
	assert_int_equal(a.range[1].addr, 3 * BALUN_BLOCK_SIZE);
	assert_int_equal(a.range[1].len, BALUN_BLOCK_SIZE);
	assert_in_range(a.range[1].heat, 50 * MB, 200 * MB);
	assert_int_equal(a.range[2].addr, 8 * 64 * BALUN_BLOCK_SIZE);
	for (i = 0; i < 20; i++)
		env_live_moved((1000 + i) * BALUN_BLOCK_SIZE, i * 1000 * MB, env_now_ns());
	assert_int_equal(look(name, 0, &a), sizeof(a));
	assert_int_equal(a.nranges, BALUN_LIVE_RANGES);
	for (i = 0; i < a.nranges; i++)
		sum += a.range[i].addr >> BALUN_BLOCK_SHIFT;
	assert_true(a.range[0].addr == 1019 * BALUN_BLOCK_SIZE);
	assert_true(sum > 15 * 1000);
	env_live_end(&l);
}

/* ---- traces ---- */

/* the connection, and the ring in *ret; or the error of the answer */
static int trace(uint32_t mib, struct balun_trace_ring **ret)
{
	const struct balun_live_ask q = { BALUN_LIVE_VERSION, BALUN_LIVE_TRACE, 0, mib };
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { &a, sizeof(a) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf) };
	int fd = connect_to(name), mem;

	assert_true(fd >= 0);
	wait_for("an answer to who wants a trace");
	assert_int_equal(send(fd, &q, sizeof(q), MSG_NOSIGNAL), sizeof(q));
	assert_int_equal(recvmsg(fd, &m, 0), BALUN_LIVE_ERR_BYTES);
	if (a.err) {
		close(fd);
		return a.err;
	}
	memcpy(&mem, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(mem));
	*ret = mmap(NULL, (mib << 20) + BALUN_TRACE_DATA, PROT_READ | PROT_WRITE, MAP_SHARED, mem,
		    0);
	assert_true(*ret != MAP_FAILED);
	assert_int_equal(ftruncate(mem, 0), -1); /* nobody can take it away */
	close(mem);
	return fd;
}

static void fire(unsigned int n)
{
	while (n--)
		if (ENV_PROBE_ON(migrate))
			env_probe_migrate(0x1000, 0x2000, BALUN_CAUSE_USER, 0, 3, 17);
}

static void none_traces(void)
{
	wait_for("the end of a trace");
	while (ENV_PROBE_ON(migrate))
		env_yield();
}

static void traces(void **state)
{
	const struct balun_trace_event *e;
	struct balun_trace_ring *r, *second;
	struct env_live l = { 0 };
	uint64_t end;
	pid_t pid;
	int fd;

	begin(&l, "x");
	fire(1); /* nobody listens */
	assert_int_equal(trace(0, &r), -EINVAL);
	assert_int_equal(trace(BALUN_TRACE_MAX_MIB + 1, &r), -EINVAL);
	fd = trace(1, &r);
	assert_true(fd >= 0);
	assert_int_equal(r->slots, MB / sizeof(*e));
	assert_int_equal(r->pid, getpid());
	assert_int_equal(trace(1, &second), -EBUSY);
	assert_int_equal(look(name, 0, &a), sizeof(a)); /* meanwhile */
	fire(2);
	assert_int_equal(r->head, 2);
	e = (void *)((char *)r + BALUN_TRACE_DATA);
	assert_int_equal(e[1].seq, 2);
	assert_int_equal(e[1].va, 0x1000);
	assert_int_equal(e[1].len, 0x2000);
	assert_int_equal(e[1].begun_ns, 17);
	assert_int_equal(e[1].what, BALUN_TRACE_MIGRATE);
	assert_int_equal(e[1].cause, BALUN_CAUSE_USER);
	assert_int_equal(e[1].to, 3);
	/* a child has another's memory */
	pid = child_begin();
	if (!pid) {
		fire(1);
		_exit(0);
	}
	assert_int_equal(child_end(pid), 0);
	assert_int_equal(r->head, 2);
	/* full: dropped and counted; read: room again */
	fire(r->slots);
	assert_int_equal(r->head, r->slots);
	assert_int_equal(r->dropped, 2);
	r->tail = 1;
	fire(1);
	assert_int_equal(r->head, r->slots + 1);
	assert_int_equal(e[0].seq, r->slots + 1);
	/* what the reader writes costs it events, and nothing else */
	r->tail = UINT64_MAX / 2;
	r->slots = 1 << 30;
	fire(3);
	/* the end, which is seen: the next can have it */
	close(fd);
	none_traces();
	munmap(r, MB + BALUN_TRACE_DATA);
	for (end = env_now_ns() + LIMIT_S * 1000000000ULL; (fd = trace(1, &r)) == -EBUSY;)
		assert_true(env_now_ns() < end); /* it is not busy for so long */
	fire(1);
	assert_int_equal(r->head, 1);
	env_live_end(&l); /* and so does the space's */
	assert_false(ENV_PROBE_ON(migrate));
	munmap(r, MB + BALUN_TRACE_DATA);
	close(fd);
}

/* one that could not be told to end has a trace of its own, or waits for it; it ends no other's */
static void traces_of_two(void **state)
{
	struct balun_trace_ring *r, *second;
	struct env_live l = { 0 };
	struct rlimit was, none;
	int fd, next;

	begin(&l, "x");
	strcpy(not_this, name);
	fd = trace(1, &r);
	assert_true(fd >= 0);
	getrlimit(RLIMIT_NOFILE, &was);
	none = (struct rlimit){ 0, was.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	env_live_end(&l);
	setrlimit(RLIMIT_NOFILE, &was);
	begin(&l, "y");
	assert_int_equal(trace(1, &second), -EBUSY);
	fire(1);
	assert_int_equal(r->head, 1); /* as before */
	next = connect_to(not_this);  /* it wakes, and ends */
	none_traces();
	close(next);
	close(fd);
	next = trace(1, &second);
	assert_true(next >= 0);
	fire(1);
	assert_int_equal(second->head, 1);
	env_live_end(&l);
	munmap(r, MB + BALUN_TRACE_DATA);
	munmap(second, MB + BALUN_TRACE_DATA);
	close(next);
	wait_for("the end of a thread that has been woken");
	while ((next = connect_to(not_this)) >= 0)
		close(next);
	not_this[0] = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(answers, each),
		cmocka_unit_test_setup(refuses, each),
		cmocka_unit_test_setup(users, each),
		cmocka_unit_test_setup(not_in_the_way, each),
		cmocka_unit_test_setup(no_descriptors, each),
		cmocka_unit_test_setup(ends_by_itself, each),
		cmocka_unit_test_setup(traces_of_two, each),
		cmocka_unit_test_setup(forks, each),
		cmocka_unit_test_setup(hottest, each),
		cmocka_unit_test_setup(traces, each),
	};

	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, hangs);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
