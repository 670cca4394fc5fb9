// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What a process tells of its spaces (include/balun/live.h): one thread, from the first space on to
 * the last, that sleeps until somebody asks.
 *
 * The thread has a table of descriptors of its own, with nothing in it but its socket and the
 * connections: the one that is being answered, and that of a trace as long as somebody records. So
 * the program never sees them: it may close all that it does not know, count what it has open, take
 * any number for its own, fork, and exec, and they are there as long as the process. It follows
 * that nothing may be asked on this thread that needs a descriptor of the program or of an engine.
 * Everything it touches is on its own stack, static, or of the arena: it never waits for a page. It
 * makes its system calls directly, for who replaces libc's functions (a sanitizer, a library that
 * is preloaded) takes the numbers for the program's.
 *
 * How hot blocks are is kept here too: a table that is written without a lock, by whoever moves
 * pages. It is a hint, and all accesses are relaxed.
 */
#include <linux/close_range.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "env/env_live.h"
#include "env/env_priv.h"

#define CLIENT_MS 1000 /* who asks and then does not go on is given up */
#define BACKLOG	  16

struct server {
	struct server *next;
	unsigned int gen; /* fork generation: of another one it has no thread */
	struct env_thread *thread;
	struct env_mutex lock;
	struct env_cond changed;
	bool started, stop;
	int err;
	bool ended;
	struct sockaddr_un name;
	socklen_t name_len;
	struct balun_live answer; /* the thread's, and */
	struct env_trace trace;
};

/* @word: env_word_lock(); of the others */
static uint32_t word;
static struct server *server;
static struct server *asleep; /* those whose thread could not be told to end */
static struct env_live *spaces;

/* ---- heat ---- */

#define HEAT_SETS   64
#define HEAT_WAYS   4
#define HEAT_NS	    1000000000ULL /* after which half of it is left */
#define BLOCK_SHIFT BALUN_BLOCK_SHIFT

static struct heat {
	uint64_t block, bytes, last_ns;
} heat[HEAT_SETS][HEAT_WAYS];

static uint64_t heat_now(const struct heat *h, uint64_t now)
{
	uint64_t last = env_load_relaxed(&h->last_ns),
		 halves = now > last ? (now - last) / HEAT_NS : 0;

	return halves < 64 ? env_load_relaxed(&h->bytes) >> halves : 0;
}

void env_live_moved(uint64_t va, uint64_t bytes, uint64_t now_ns)
{
	uint64_t block = va >> BLOCK_SHIFT;
	struct heat *set = heat[block % HEAT_SETS], *h = set;
	unsigned int i;

	if (!env_load_relaxed(&server))
		return;
	for (i = 0; i < HEAT_WAYS; i++) {
		if (env_load_relaxed(&set[i].block) == block) {
			h = &set[i];
			break;
		}
		if (heat_now(&set[i], now_ns) < heat_now(h, now_ns))
			h = &set[i];
	}
	bytes += i < HEAT_WAYS ? heat_now(h, now_ns) : 0;
	env_store_relaxed(&h->block, block);
	env_store_relaxed(&h->bytes, bytes);
	env_store_relaxed(&h->last_ns, now_ns);
}

/* into the ranges, which are in order, hottest first */
static void range_add(struct balun_live *a, struct balun_live_range r)
{
	unsigned int i = a->nranges;

	if (i == BALUN_LIVE_RANGES && a->range[i - 1].heat >= r.heat)
		return;
	if (i == BALUN_LIVE_RANGES)
		i--;
	else
		a->nranges++;
	for (; i && a->range[i - 1].heat < r.heat; i--)
		a->range[i] = a->range[i - 1];
	a->range[i] = r;
}

static void ranges(struct balun_live *a)
{
	unsigned int i;

	for (i = 0; i < HEAT_SETS * HEAT_WAYS; i++) {
		const struct heat *h = &heat[0][0] + i;
		struct balun_live_range r = { .addr = env_load_relaxed(&h->block) << BLOCK_SHIFT,
					      .len = BALUN_BLOCK_SIZE,
					      .heat = heat_now(h, a->now_ns) };

		if (r.heat)
			range_add(a, r);
	}
}

/* ---- questions ---- */

/* fills @a; returns 0 or -errno */
static int look(struct balun_live *a, unsigned int nth)
{
	struct env_live *l;

	a->now_ns = env_now_ns();
	a->pid = getpid();
	env_word_lock(&word); /* so it does not end while it is asked */
	for (l = spaces; l && a->spaces < nth; l = l->next)
		a->spaces++;
	if (l) {
		a->begun_ns = l->begun_ns;
		l->fill(l->arg, a);
	}
	for (a->spaces = 0, nth = l != NULL, l = spaces; l; l = l->next)
		a->spaces++;
	env_word_unlock(&word);
	if (!nth)
		return -ENOENT;
	ranges(a);
	return 0;
}

/* As with /proc/PID/maps, which also has addresses: a process that is not to be looked into is
 * root's alone */
static bool may_look(uid_t uid)
{
	return !uid || (uid == geteuid() && prctl(PR_GET_DUMPABLE) == 1);
}

static int answer_to(struct server *s, int fd, const struct balun_live_ask *q, ssize_t len,
		     int *ret_ring)
{
	struct ucred peer = { .uid = -1 };
	socklen_t n = sizeof(peer);

	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) || !may_look(peer.uid))
		return -EPERM;
	if (len < (ssize_t)sizeof(*q) || q->version != BALUN_LIVE_VERSION ||
	    (q->what != BALUN_LIVE_LOOK && q->what != BALUN_LIVE_TRACE))
		return -EPROTO;
	*ret_ring = q->what == BALUN_LIVE_TRACE ? env_trace_begin(&s->trace, q->mib) : -1;
	if (q->what == BALUN_LIVE_TRACE)
		return ENV_MIN(*ret_ring, 0);
	return look(&s->answer, q->space);
}

/* one question; true: the connection stays, for it asked for a trace */
static bool serve_one(struct server *s, int fd)
{
	const struct timeval limit = { .tv_sec = CLIENT_MS / 1000 };
	struct balun_live *a = &s->answer;
	struct balun_live_ask q;
	int ring = -1;
	bool sent;
	ssize_t len;

	syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	len = syscall(SYS_recvfrom, fd, &q, sizeof(q), 0, NULL, NULL);
	memset(a, 0, sizeof(*a));
	a->version = BALUN_LIVE_VERSION;
	a->err = answer_to(s, fd, &q, len, &ring);
	a->size = a->err || ring >= 0 ? BALUN_LIVE_ERR_BYTES : sizeof(*a);
	if (ring < 0) {
		/* who is gone does not want it */
		syscall(SYS_sendto, fd, a, a->size, MSG_NOSIGNAL, NULL, 0);
		return false;
	}
	sent = !env_trace_send(fd, a, ring);
	syscall(SYS_close, ring);
	if (!sent)
		env_trace_end(&s->trace);
	return sent;
}

/* ---- the thread ---- */

static int name_set(struct server *s, int fd)
{
	struct stat st;
	int n;

	if (syscall(SYS_fstat, fd, &st))
		return -errno;
	s->name.sun_family = AF_UNIX; /* abstract: the first byte of the path is 0 */
	n = snprintf(s->name.sun_path + 1, sizeof(s->name.sun_path) - 1,
		     BALUN_LIVE_PREFIX "%u-%d-%llu", geteuid(), getpid(),
		     (unsigned long long)st.st_ino);
	s->name_len = offsetof(struct sockaddr_un, sun_path) + 1 + n;
	return 0;
}

/* the socket, or -errno */
static int server_listen(struct server *s)
{
	int fd, err;

	/* a table of our own, and empty: nothing of the program's was in it at any moment. Before
	 * Linux 5.9 there is no such call, and nobody to ask. */
	if (syscall(SYS_close_range, 0, ~0U, CLOSE_RANGE_UNSHARE))
		return -errno;
	fd = syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = name_set(s, fd);
	if (!err &&
	    (syscall(SYS_bind, fd, &s->name, s->name_len) || syscall(SYS_listen, fd, BACKLOG)))
		err = -errno;
	if (!err)
		return fd;
	syscall(SYS_close, fd);
	return err;
}

/* until somebody connects or the tracer goes; false: it is over */
static bool server_wait(struct pollfd *p)
{
	while (syscall(SYS_ppoll, p, 2, NULL, NULL, 0) < 0) {
		if (errno == EINVAL) { /* RLIMIT_NOFILE is less than 2: it sleeps in accept4() */
			p[0].revents = POLLIN;
			p[1].revents = 0;
			return true;
		}
		if (errno != EINTR)
			return false;
	}
	return !(p[0].revents & (POLLERR | POLLNVAL));
}

static void server_loop(struct server *s, int fd, int tracer)
{
	/* of the tracer nothing is expected but its end; below 0 there is none */
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = tracer, .events = POLLIN } };
	int client;

	while (server_wait(p)) {
		if (p[1].fd >= 0 && p[1].revents) {
			env_trace_end(&s->trace);
			syscall(SYS_close, p[1].fd);
			p[1].fd = -1;
		}
		if (!p[0].revents)
			continue;
		client = syscall(SYS_accept4, fd, NULL, NULL, SOCK_CLOEXEC);
		if (env_load(&s->stop))
			break;
		if (client >= 0 && serve_one(s, client))
			p[1].fd = client;
		else if (client >= 0)
			syscall(SYS_close, client);
		else if (errno != EINTR && errno != ECONNABORTED)
			break; /* the program has limited what may be opened, perhaps */
	}
	env_trace_end(&s->trace);
	if (p[1].fd >= 0)
		syscall(SYS_close, p[1].fd);
}

static void server_main(void *arg)
{
	struct server *s = arg;
	int fd = server_listen(s), tracer = -1;

	if (fd >= 0)
		tracer = env_trace_offer(&s->trace); /* before the space does anything */
	env_mutex_lock(&s->lock);
	s->started = true;
	s->err = fd < 0 ? fd : 0;
	env_cond_wake(&s->changed);
	env_mutex_unlock(&s->lock);
	if (fd >= 0) {
		server_loop(s, fd, tracer);
		syscall(SYS_close, fd); /* the name is gone when the thread is joined */
	}
	env_store(&s->ended, true);
	/* the table goes with the thread, and what is in it */
}

/* ---- spaces ---- */

static void server_free(struct server *s)
{
	env_thread_join(s->thread);
	env_cond_destroy(&s->changed);
	env_mutex_destroy(&s->lock);
	env_free(s);
}

/* those that somebody has woken meanwhile */
static void free_ended(void)
{
	struct server **p = &asleep, *s;

	while ((s = *p)) {
		if (s->gen != env_fork_gen()) {
			*p = NULL; /* a parent's, all of them */
		} else if (env_load(&s->ended)) {
			*p = s->next;
			server_free(s);
		} else {
			p = &s->next;
		}
	}
}

static struct server *server_start(void)
{
	struct server *s = env_alloc(sizeof(*s));
	int err;

	free_ended();
	if (!s)
		return NULL;
	s->gen = env_fork_gen();
	env_mutex_init(&s->lock);
	env_cond_init(&s->changed);
	err = env_thread_create(&s->thread, "balun-live", server_main, s);
	if (!err) {
		env_mutex_lock(&s->lock);
		while (!s->started)
			env_cond_wait(&s->changed, &s->lock, ENV_FOREVER);
		err = s->err;
		env_mutex_unlock(&s->lock);
	}
	if (!err)
		return s;
	env_log(2, "nobody can look at this process with balun top: %s", strerror(-err));
	server_free(s);
	return NULL;
}

/*
 * It sleeps until somebody asks, so we do. Whoever comes wakes it as well, so a full queue is as
 * good. If it cannot be reached (no descriptor is left, the program has gone to another network) it
 * sleeps on: the next who asks ends it.
 */
static void server_stop(struct server *s)
{
	int fd = syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool woken;

	env_store(&s->stop, true);
	woken = fd >= 0 && (!syscall(SYS_connect, fd, &s->name, s->name_len) || errno == EAGAIN);
	if (woken || env_load(&s->ended)) {
		server_free(s);
	} else {
		env_word_lock(&word);
		s->next = asleep;
		asleep = s;
		env_word_unlock(&word);
	}
	if (fd >= 0)
		syscall(SYS_close, fd);
}

void env_live_begin(struct env_live *l, void (*fill)(void *arg, struct balun_live *ret), void *arg)
{
	l->fill = fill;
	l->arg = arg;
	l->begun_ns = env_now_ns();
	env_word_lock(&word);
	if (!server || server->gen != env_fork_gen()) {
		/* a parent's, with its spaces */
		spaces = NULL;
		memset(heat, 0, sizeof(heat));
		env_probe_ring_forget();
		env_store_relaxed(&server, server_start());
	}
	if (server) {
		l->next = spaces;
		spaces = l;
		l->shown = true;
	}
	env_word_unlock(&word);
}

void env_live_end(struct env_live *l)
{
	struct server *last = NULL;
	struct env_live **p;

	if (!l->shown)
		return;
	env_word_lock(&word);
	for (p = &spaces; *p != l; p = &(*p)->next)
		;
	*p = l->next;
	if (!spaces) {
		last = server;
		env_store_relaxed(&server, NULL);
	}
	env_word_unlock(&word);
	l->shown = false;
	if (last)
		server_stop(last);
}
