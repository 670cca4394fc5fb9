// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: cmd_trace.c - `balun trace`: what moves and why, event by event
 *
 * A process that is traced writes into a ring of memory that we have too; nobody waits for anybody.
 * One that runs is asked for it by its socket. One that we begin finds our socket's name in its
 * environment, and so do those that it begins: each connects when its first space begins, before
 * anything happens in it. A connection that ends is a process, or its last space, that has ended;
 * what it wrote is still in the ring.
 */
#include "trace.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CMD	"trace"
#define RINGS	256
#define POLL_MS 10
#define LOOK_NS 100000000ULL /* how full devices are */

static const char help[] =
	"balun trace - what moves in a process with Balun, and why, event by event\n"
	"\n"
	"Usage: balun trace [-o FILE] [--buffer MIB] [--seconds S] PID\n"
	"       balun trace [-o FILE] [--buffer MIB] [--] PROGRAM [ARG...]\n"
	"       balun trace --plot FILE [-o FILE.svg]\n"
	"\n"
	"Records faults, migrations, evictions and invalidations of a running process, or of a\n"
	"program and all that it begins, as JSON trace events, which ui.perfetto.dev and\n"
	"chrome://tracing open. No root; a process that nobody traces pays a branch an event.\n"
	"\n"
	"  -o FILE         where to (default balun-trace.json, of a plot balun-trace.svg)\n"
	"  --buffer MIB    memory for events that are not written yet, for each process (default "
	"8);\n"
	"                  what does not fit is dropped, and said\n"
	"  --seconds S     end after so long; else with the process, or by an interrupt (^C)\n"
	"  --plot FILE     draw a trace: moves by time and address, as SVG\n"
	"  --help          this\n"
	"\n"
	"Exit codes: of a program, its own; 0 done; 1 failed, or no such process; 2 bad command "
	"line\n"
	"or FILE; 3 another user's process; 126, 127 the program cannot be run, is not there.\n"
	"\n"
	"  balun trace -o t.json -- balun run --resident 64M -- python3 job.py\n"
	"  balun trace --plot t.json -o t.svg\n";

/* a process that writes into a ring of ours */
struct ring {
	int fd; /* the connection; -1: it has ended */
	struct balun_trace_ring *r;
	size_t bytes;
	uint32_t slots;
	uint64_t tail, looked_ns;
	struct trace_process *p;
};

static struct ring ring[RINGS];
static unsigned int nrings;
static struct trace_process *process;
static unsigned int nprocesses, refused;
static struct trace_file file;
static volatile sig_atomic_t interrupted;

/* ---- rings ---- */

static struct trace_process *process_new(pid_t pid, const char *socket)
{
	static struct trace_process one;
	struct trace_process *p = nprocesses < RINGS ? &process[nprocesses++] : &one;
	char path[64];
	FILE *f;

	memset(p, 0, sizeof(*p));
	p->pid = pid;
	snprintf(p->socket, sizeof(p->socket), "%s", socket);
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(p->comm, sizeof(p->comm), f))
		snprintf(p->comm, sizeof(p->comm), "process %d", pid);
	if (f)
		fclose(f);
	p->comm[strcspn(p->comm, "\n")] = 0;
	trace_process(&file, p);
	return p;
}

/* the file that came with a message: what is in it is another process's word */
static int ring_map(struct ring *g, int fd)
{
	struct stat st;

	if (fstat(fd, &st) || st.st_size < BALUN_TRACE_DATA ||
	    st.st_size > ((off_t)BALUN_TRACE_MAX_MIB << 20) + BALUN_TRACE_DATA)
		return -EPROTO;
	g->bytes = st.st_size;
	g->r = mmap(NULL, g->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (g->r == MAP_FAILED)
		return -errno;
	g->slots = g->r->slots;
	if (g->r->version == BALUN_LIVE_VERSION && g->slots && !(g->slots & (g->slots - 1)) &&
	    g->slots <= (g->bytes - BALUN_TRACE_DATA) / sizeof(struct balun_trace_event))
		return 0;
	munmap(g->r, g->bytes);
	return -EPROTO;
}

/* the answer: 0 and a file, or -errno */
static int receive(int from, int *ret_fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct balun_live a = { .err = -EPROTO };
	struct iovec iov = { &a, sizeof(a) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf) };
	ssize_t n = recvmsg(from, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (n < (ssize_t)BALUN_LIVE_ERR_BYTES)
		return n < 0 ? -errno : -ECONNREFUSED;
	if (a.err < 0)
		return a.err;
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return 0;
}

/* @fd: the connection, ours from now on. 0 or -errno */
static int ring_add(int fd, pid_t pid, const char *socket)
{
	struct ring *g = &ring[nrings];
	int mem, err = nrings == RINGS ? -ENOSPC : receive(fd, &mem);

	if (err) {
		close(fd);
		return err;
	}
	memset(g, 0, sizeof(*g));
	err = ring_map(g, mem);
	close(mem);
	if (err) {
		close(fd);
		return err;
	}
	g->fd = fd;
	g->p = process_new(pid, socket);
	nrings++;
	return 0;
}

/* a device that is not known by name: the process is asked, not too often */
static void name_device(struct trace_process *p, unsigned int id)
{
	static struct live_space s;
	uint64_t now = tool_now_ns();
	unsigned int i;

	if (!id || id > BALUN_MAX_DEVICES || p->device[id][0] || !p->socket[0] ||
	    (p->device_asked[id] && now - p->device_asked[id] < LOOK_NS))
		return;
	p->device_asked[id] = now;
	if (live_ask(p->socket, 0, &s))
		return;
	for (i = 0; i < s.look.ndevices; i++)
		if (s.look.device[i].id <= BALUN_MAX_DEVICES)
			memcpy(p->device[s.look.device[i].id], s.look.device[i].name, 64);
}

/* @all: nobody writes any more, and what is not complete never will be */
static void ring_read(struct ring *g, bool all)
{
	const struct balun_trace_event *slot =
		(const void *)((const char *)g->r + BALUN_TRACE_DATA);
	uint64_t head = __atomic_load_n(&g->r->head, __ATOMIC_ACQUIRE);
	struct balun_trace_event e;

	for (; g->tail != head && head - g->tail <= g->slots; g->tail++) {
		const struct balun_trace_event *at = &slot[g->tail & (g->slots - 1)];

		if (__atomic_load_n(&at->seq, __ATOMIC_ACQUIRE) == g->tail + 1) {
			e = *at;
			if (e.what != BALUN_TRACE_INVALIDATE)
				name_device(g->p, e.from);
			if (e.what == BALUN_TRACE_MIGRATE || e.what == BALUN_TRACE_EVICT)
				name_device(g->p, e.to);
			trace_event(&file, g->p, &e);
			g->p->events++;
		} else if (!all) {
			break;
		} else {
			g->p->dropped++;
		}
		__atomic_store_n(&g->r->tail, g->tail + 1, __ATOMIC_RELEASE);
	}
}

static void ring_look(struct ring *g)
{
	static struct live_space s;
	uint64_t now = tool_now_ns();

	if (now - g->looked_ns < LOOK_NS || !g->p->socket[0])
		return;
	g->looked_ns = now;
	if (live_ask(g->p->socket, 0, &s))
		return;
	trace_devices(&file, g->p, &s.look);
	fflush(file.f); /* now and then, for who looks at it meanwhile */
}

static void ring_end(unsigned int i)
{
	struct ring *g = &ring[i];

	close(g->fd);
	ring_read(g, true);
	g->p->dropped += __atomic_load_n(&g->r->dropped, __ATOMIC_RELAXED);
	munmap(g->r, g->bytes);
	*g = ring[--nrings];
}

/* ---- who is traced ---- */

/* the name of the socket that a process answers on, "" if it has none */
static void socket_of(pid_t pid, char *ret)
{
	char(*name)[LIVE_NAME] = calloc(LIVE_MAX, sizeof(*name)), want[32];
	int i, n = name ? live_sockets(0, name, LIVE_MAX) : 0;

	ret[0] = 0;
	snprintf(want, sizeof(want), "-%d-", pid);
	for (i = 0; i < n; i++)
		if (strstr(name[i], want) == strchr(name[i] + strlen(BALUN_LIVE_PREFIX), '-'))
			strcpy(ret, name[i]);
	free(name);
}

static int listen_on(char *ret_name, size_t size)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	snprintf(ret_name, size, "balun.trace-%u-%d-%llu", geteuid(), getpid(),
		 (unsigned long long)st.st_ino);
	strncpy(at.sun_path + 1, ret_name, sizeof(at.sun_path) - 2);
	if (bind(fd, (struct sockaddr *)&at,
		 offsetof(struct sockaddr_un, sun_path) + 1 + strlen(ret_name)) ||
	    listen(fd, RINGS))
		return -errno;
	return fd;
}

/* processes that have begun a space */
static void take_in(int listener)
{
	const struct timeval limit = { .tv_sec = 2 };
	char name[LIVE_NAME];
	struct ucred peer;
	socklen_t len;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		len = sizeof(peer);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) ||
		    (peer.uid != geteuid() && geteuid())) {
			close(fd);
			continue;
		}
		socket_of(peer.pid, name);
		refused += ring_add(fd, peer.pid, name) != 0;
	}
}

/* ---- the loop ---- */

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/*
 * Until @child has ended (0: none), all that is traced has ended if there is nobody to wait for, or
 * @until. *ret_status: of the child. What the child has begun and left running is not waited for.
 */
static void record(int listener, pid_t child, uint64_t until, int *ret_status)
{
	struct pollfd p[RINGS + 1];
	bool running = true;
	unsigned int i;

	while (running) {
		running = child ? waitpid(child, ret_status, WNOHANG) == 0 : nrings > 0;
		if (tool_now_ns() >= until || (interrupted && !child))
			running = false;
		for (i = 0; i < nrings; i++)
			p[i] = (struct pollfd){ .fd = ring[i].fd, .events = POLLIN };
		p[nrings] = (struct pollfd){ .fd = listener, .events = POLLIN };
		if (poll(p, nrings + 1, running ? POLL_MS : 0) < 0)
			continue;
		/* downwards: who ends has the last one's place */
		for (i = nrings; i--;) {
			ring_read(&ring[i], false);
			if (p[i].revents)
				ring_end(i);
			else
				ring_look(&ring[i]);
		}
		if (listener >= 0)
			take_in(listener);
	}
	while (nrings)
		ring_end(nrings - 1);
}

static int finish(const char *path)
{
	uint64_t events = 0, dropped = 0;
	unsigned int i;
	int err = trace_end(&file, process, nprocesses);

	for (i = 0; i < nprocesses; i++) {
		events += process[i].events;
		dropped += process[i].dropped;
	}
	if (fclose(file.f) || err) {
		tool_error(CMD, "%s: %s", path, strerror(errno));
		return EXIT_DIFFERS;
	}
	fprintf(stderr, "balun trace: %llu events of %u processes in %s\n",
		(unsigned long long)events, nprocesses, path);
	if (dropped)
		fprintf(stderr, "balun trace: %llu events DROPPED: give --buffer more\n",
			(unsigned long long)dropped);
	if (refused)
		fprintf(stderr, "balun trace: %u processes could not be traced\n", refused);
	return EXIT_OK;
}

static int trace_pid(pid_t pid, uint32_t mib, uint64_t until, const char *path)
{
	char name[LIVE_NAME];
	int fd, status, err;

	socket_of(pid, name);
	fd = name[0] ? live_connect(name, &pid) : -ESRCH;
	err = fd < 0 ? fd : live_send(fd, BALUN_LIVE_TRACE, 0, mib);
	if (!err)
		err = ring_add(fd, pid, name);
	if (err) {
		fclose(file.f);
		unlink(path);
		tool_error(CMD, "process %d: %s", pid,
			   err == -ESRCH   ? "no Balun in it, or there is no such process"
			   : err == -EPERM ? "another user's, or may not be looked into"
			   : err == -EBUSY ? "is traced already"
					   : strerror(-err));
		return err == -EPERM || err == -EPROTO ? EXIT_IMPOSSIBLE : EXIT_DIFFERS;
	}
	record(-1, 0, until, &status);
	return finish(path);
}

static int trace_program(char **argv, uint32_t mib, const char *path)
{
	char name[LIVE_NAME - 16], where[LIVE_NAME];
	int listener = listen_on(name, sizeof(name)), status = 0, code;
	pid_t child;

	if (listener < 0) {
		tool_error(CMD, "%s", strerror(-listener));
		return EXIT_DIFFERS;
	}
	snprintf(where, sizeof(where), "%s:%u", name, mib);
	fflush(NULL);
	child = fork();
	if (!child) {
		setenv(BALUN_TRACE_ENV, where, 1);
		signal(SIGINT, SIG_DFL);
		execvp(argv[0], argv);
		code = errno;
		tool_error(CMD, "%s: %s", argv[0], strerror(code));
		_exit(code == ENOENT ? 127 : 126);
	}
	if (child < 0) {
		tool_error(CMD, "%s", strerror(errno));
		return EXIT_DIFFERS;
	}
	record(listener, child, UINT64_MAX, &status);
	close(listener);
	code = finish(path);
	if (code)
		return code;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- the command ---- */

static bool parse_number(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	char *end;

	*ret = strtoull(s, &end, 10);
	return end != s && !*end && *s != '-' && *ret >= min && *ret <= max;
}

static int begin(char **argv, int argc, bool is_program, uint32_t mib, uint64_t seconds,
		 const char *path)
{
	struct sigaction sa = { .sa_handler = on_interrupt };
	uint64_t pid;

	is_program |= argc > 1 || !parse_number(argv[0], 1, INT32_MAX, &pid);
	if (is_program && seconds) {
		tool_error(CMD, "--seconds is for a process that runs");
		return EXIT_USAGE;
	}
	process = calloc(RINGS, sizeof(*process));
	file.f = process ? fopen(path, "we") : NULL;
	if (!file.f) {
		tool_error(CMD, "%s: %s", path, strerror(errno));
		return EXIT_USAGE;
	}
	sigaction(SIGINT, &sa, NULL);
	if (!is_program)
		sigaction(SIGTERM, &sa, NULL);
	trace_begin(&file);
	if (is_program)
		return trace_program(argv, mib, path);
	return trace_pid(pid, mib, seconds ? tool_now_ns() + seconds * 1000000000 : UINT64_MAX,
			 path);
}

int cmd_trace(int argc, char **argv)
{
	static const struct option option[] = {
		{ "buffer", required_argument, NULL, 'b' },
		{ "seconds", required_argument, NULL, 's' },
		{ "plot", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *out = NULL, *plot = NULL;
	uint64_t mib = 8, seconds = 0;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+:o:", option, NULL)) != -1) {
		switch (c) {
		case 'o':
			out = optarg;
			break;
		case 'b':
			if (!parse_number(optarg, 1, BALUN_TRACE_MAX_MIB, &mib)) {
				tool_error(CMD, "--buffer takes MiB, 1 to %d: \"%s\"",
					   BALUN_TRACE_MAX_MIB, optarg);
				return EXIT_USAGE;
			}
			break;
		case 's':
			if (!parse_number(optarg, 1, 86400, &seconds)) {
				tool_error(CMD, "--seconds takes 1 to 86400: \"%s\"", optarg);
				return EXIT_USAGE;
			}
			break;
		case 'p':
			plot = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return EXIT_OK;
		default:
			return tool_bad_option(CMD, argc, argv, c);
		}
	}
	if (plot && optind == argc)
		return trace_plot(plot, out ? out : "balun-trace.svg");
	if (plot || optind == argc) {
		tool_error(CMD, plot ? "--plot takes no process"
				     : "which process, or program? See balun trace --help");
		return EXIT_USAGE;
	}
	return begin(argv + optind, argc - optind, !strcmp(argv[optind - 1], "--"), mib, seconds,
		     out ? out : "balun-trace.json");
}
