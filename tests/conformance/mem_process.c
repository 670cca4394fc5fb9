/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The program's side of memory in a real process: system calls, and plain loads and stores under a
 * guard that turns SIGSEGV and SIGBUS into -EFAULT and -EHWPOISON.
 */
#include "kit.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static __thread sigjmp_buf *volatile guard;

static void guard_signal(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	if (!guard)
		kit_fail(__FILE__, __LINE__, "signal %d at %p outside a guarded access", sig,
			 si->si_addr);
	siglongjmp(*guard, sig == SIGBUS ? -EHWPOISON : -EFAULT);
}

static void guard_install(void)
{
	static bool done;
	struct sigaction sa = { .sa_sigaction = guard_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };

	if (__atomic_exchange_n(&done, true, __ATOMIC_ACQ_REL))
		return;
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

/* SA_NODEFER: the signal mask needs no restoring, which saves a system call an access; TSan runs
 * handlers with everything blocked all the same */
static int guarded_copy(void *dst, const void *src, size_t len)
{
	sigjmp_buf env;
	int rc = sigsetjmp(env, KIT_TSAN);

	if (!rc) {
		guard = &env;
		memcpy(dst, src, len);
	}
	guard = NULL;
	return rc;
}

/* what @rc says of an access to @va */
static int as_lost(struct kit *k, uint64_t va, int rc)
{
	if (rc == -EFAULT && kit_no_poison(k) && kit_query1(k, va).where == BALUN_WHERE_LOST)
		return -EHWPOISON;
	return rc;
}

static int prot_of(unsigned int prot)
{
	return (prot & KIT_READ ? PROT_READ : 0) | (prot & KIT_WRITE ? PROT_WRITE : 0);
}

static int process_map(struct kit *k, uint64_t va, uint64_t len, unsigned int prot)
{
	int flags = MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;

	(void)k;
	guard_install();
	flags |= prot & KIT_SHARED ? MAP_SHARED : MAP_PRIVATE;
	return mmap((void *)va, len, prot_of(prot), flags, -1, 0) == MAP_FAILED ? -errno : 0;
}

static int process_unmap(struct kit *k, uint64_t va, uint64_t len)
{
	(void)k;
	return munmap((void *)va, len) ? -errno : 0;
}

static int process_remap(struct kit *k, uint64_t from, uint64_t to, uint64_t len)
{
	void *p = mremap((void *)from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)to);

	(void)k;
	return p == MAP_FAILED ? -errno : 0;
}

static int process_protect(struct kit *k, uint64_t va, uint64_t len, unsigned int prot)
{
	(void)k;
	return mprotect((void *)va, len, prot_of(prot)) ? -errno : 0;
}

static int process_dontneed(struct kit *k, uint64_t va, uint64_t len)
{
	(void)k;
	return madvise((void *)va, len, MADV_DONTNEED) ? -errno : 0;
}

static int process_load(struct kit *k, uint64_t va, void *buf, size_t len)
{
	guard_install();
	return as_lost(k, va, guarded_copy(buf, (const void *)va, len));
}

static int process_store(struct kit *k, uint64_t va, const void *buf, size_t len)
{
	guard_install();
	return as_lost(k, va, guarded_copy((void *)va, buf, len));
}

/* ---- a forked child that answers questions about its memory ---- */

struct kit_child {
	struct kit *k;
	pid_t pid;
	int ask, answer;
};

struct child_question {
	uint64_t va, len;
};

static bool read_all(int fd, void *buf, size_t len)
{
	while (len) {
		ssize_t n = read(fd, buf, len);

		if (n <= 0)
			return false;
		buf = (char *)buf + n;
		len -= n;
	}
	return true;
}

static bool write_all(int fd, const void *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n <= 0)
			return false;
		buf = (const char *)buf + n;
		len -= n;
	}
	return true;
}

/* ends at a question of no length, or when the parent is gone; a later child of the same parent
 * holds the pipe open too */
static void __attribute__((noreturn)) child_serve(int ask, int answer)
{
	struct child_question q;
	char buf[PAGE];

	while (read_all(ask, &q, sizeof(q)) && q.len) {
		while (q.len) {
			size_t part = q.len < sizeof(buf) ? q.len : sizeof(buf);
			int rc = guarded_copy(buf, (const void *)q.va, part);

			if (!write_all(answer, &rc, sizeof(rc)) || !write_all(answer, buf, part))
				_exit(1);
			q.va += part;
			q.len -= part;
		}
	}
	_exit(0);
}

static int process_fork(struct kit *k, struct kit_child **ret_child)
{
	struct kit_child *c = balun_mem_alloc(sizeof(*c));
	int ask[2], answer[2];

	guard_install();
	if (!c || pipe(ask) || pipe(answer))
		return -ENOMEM;
	c->k = k;
	c->pid = fork();
	if (c->pid < 0)
		return -errno;
	if (!c->pid) {
		close(ask[1]);
		close(answer[0]);
		child_serve(ask[0], answer[1]);
	}
	close(ask[0]);
	close(answer[1]);
	c->ask = ask[1];
	c->answer = answer[0];
	*ret_child = c;
	return 0;
}

static int process_child_load(struct kit_child *c, uint64_t va, void *buf, size_t len)
{
	struct child_question q = { .va = va, .len = len };
	int rc;

	if (!write_all(c->ask, &q, sizeof(q)))
		return -EPIPE;
	while (len) {
		size_t part = len < PAGE ? len : PAGE;

		if (!read_all(c->answer, &rc, sizeof(rc)) || !read_all(c->answer, buf, part))
			return -EPIPE;
		if (rc)
			return as_lost(c->k, va, rc);
		buf = (char *)buf + part;
		len -= part;
	}
	return 0;
}

static void process_child_exit(struct kit_child *c)
{
	struct child_question end = { 0 };
	int status;

	CHECK(write_all(c->ask, &end, sizeof(end)));
	close(c->ask);
	close(c->answer);
	CHECK(waitpid(c->pid, &status, 0) == c->pid);
	CHECK_EQ(status, 0);
	balun_mem_free(c, sizeof(*c));
}

const struct mem_ops mem_process = {
	.map = process_map,
	.unmap = process_unmap,
	.remap = process_remap,
	.protect = process_protect,
	.dontneed = process_dontneed,
	.load = process_load,
	.store = process_store,
	.fork = process_fork,
	.child_load = process_child_load,
	.child_exit = process_child_exit,
};
