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
#include <sys/un.h>
#include <sys/wait.h>

#include "balun/live.h"
#include "env/env.h"

#define MB (1ULL << 20)

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

static int connect_to(const char *name)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	snprintf(to.sun_path + 1, sizeof(to.sun_path) - 1, "%s", name);
	if (connect(fd, (struct sockaddr *)&to,
		    offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))) {
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
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (setresuid(uid, uid, uid))
			_exit(255);
		look(name, 0, &a);
		_exit(-a.err);
	}
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
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
	while (answering(0))
		env_yield();
}

static void not_in_the_way(void **state)
{
	unsigned int fds, threads;
	struct env_live l = { 0 };
	int fd, status;
	pid_t pid;

	none_answers();
	fds = count_in("/proc/self/fd");
	threads = count_in("/proc/self/task");
	begin(&l, "x");
	assert_int_equal(count_in("/proc/self/fd"), fds);
	assert_int_equal(count_in("/proc/self/task"), threads + 1);
	env_live_end(&l);
	none_answers();

	/* what daemons do: in a child, for cmocka's sake */
	pid = fork();
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
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

/* who cannot open anything any more can still end, and begin again later */
static void no_descriptors(void **state)
{
	struct rlimit was, none;
	struct env_live l = { 0 };

	none_answers();
	begin(&l, "x");
	while (!answering('S')) /* in accept(): before that it would end itself */
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
	pid = fork();
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
	waitpid(pid, NULL, 0);
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

static void traces(void **state)
{
	const struct balun_trace_event *e;
	struct balun_trace_ring *r, *second;
	struct env_live l = { 0 };
	int fd, status;
	pid_t pid;

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
	pid = fork();
	if (!pid) {
		fire(1);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
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
	while (ENV_PROBE_ON(migrate))
		env_yield();
	munmap(r, MB + BALUN_TRACE_DATA);
	while ((fd = trace(1, &r)) == -EBUSY)
		;
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
	while (ENV_PROBE_ON(migrate))
		env_yield();
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
	while ((next = connect_to(not_this)) >= 0)
		close(next);
	not_this[0] = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers),	  cmocka_unit_test(refuses),
		cmocka_unit_test(users),	  cmocka_unit_test(not_in_the_way),
		cmocka_unit_test(no_descriptors), cmocka_unit_test(traces_of_two),
		cmocka_unit_test(forks),	  cmocka_unit_test(hottest),
		cmocka_unit_test(traces),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
