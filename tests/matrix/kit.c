/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What cells are written with: space, patterned memory, children, threads. */
#include "matrix.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- space and device ---- */

void mx_open(struct mx *m)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	int rc = balun_space_create(&opts, &m->space);

	if (rc == -EPERM || rc == -EOPNOTSUPP)
		mx_skip("userfaultfd may not be used here (balun doctor has the remedy)");
	MX_OK(rc);
	MX_OK(balun_device_open(m->space, m->driver, &m->dev));
}

void mx_close(struct mx *m)
{
	MX_OK(balun_space_destroy(m->space));
	m->space = NULL;
	m->dev = NULL;
}

bool mx_has_functions(const struct mx *m)
{
	return balun_soft_workers(m->dev) > 0;
}

/* ---- memory ---- */

void *mx_map(size_t len)
{
	char *p = mmap(NULL, len + BALUN_BLOCK_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t skip = -(uintptr_t)p & (BALUN_BLOCK_SIZE - 1);

	MX_CHECK(p != MAP_FAILED);
	if (skip)
		munmap(p, skip);
	munmap(p + skip + len, BALUN_BLOCK_SIZE - skip);
	return p + skip;
}

uint64_t mx_word(uint64_t va, uint64_t gen)
{
	uint64_t x = (va >> 3) + gen * 0x9e3779b97f4a7c15ULL;

	if (gen == MX_ZEROS)
		return 0;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

void mx_fill(void *p, size_t len, uint64_t gen)
{
	uint64_t *w = p;
	size_t i;

	for (i = 0; i < len / sizeof(*w); i++)
		w[i] = mx_word((uintptr_t)&w[i], gen);
}

void mx_verify_at(const char *file, int line, const void *p, const void *origin, size_t len,
		  uint64_t gen)
{
	const volatile uint64_t *w = p;
	size_t i;

	for (i = 0; i < len / sizeof(*w); i++) {
		uint64_t got = w[i], want = mx_word((uintptr_t)origin + i * sizeof(*w), gen);

		if (got == want)
			continue;
		mx_fail(file, line,
			"byte %#zx of %#zx (page %zu) at %p is %#llx, not %#llx (generation %lld)",
			i * sizeof(*w), len, i * sizeof(*w) / PAGE, (void *)&w[i],
			(unsigned long long)got, (unsigned long long)want, (long long)gen);
	}
}

struct fill {
	uint64_t va, len, gen;
};

/* on the device: pages are dealt to the workers, written in bursts */
static void fill_fn(struct soft_worker *w, uint64_t arg)
{
	uint64_t buf[16], page, va, i;
	struct fill f;

	soft_read(w, arg, &f, sizeof(f));
	for (page = w->index * PAGE; page < f.len; page += w->nworkers * PAGE) {
		for (va = f.va + page; va < f.va + page + PAGE; va += sizeof(buf)) {
			for (i = 0; i < 16; i++)
				buf[i] = mx_word(va + i * 8, f.gen);
			soft_write(w, va, buf, sizeof(buf));
		}
	}
}

void mx_device_fill(struct mx *m, void *p, size_t len, uint64_t gen)
{
	struct fill f = { (uintptr_t)p, len, gen };
	uint64_t fence;

	MX_OK(balun_soft_launch(m->dev, fill_fn, (uintptr_t)&f, 0, &fence));
	MX_OK(balun_soft_wait(m->dev, fence, NULL));
}

void mx_move_at(const char *file, int line, struct mx *m, const void *p, size_t len,
		struct balun_device *dev)
{
	struct balun_counts c;
	int rc;

	do {
		rc = balun_migrate(m->space, p, len, dev, &c);
		if (rc)
			mx_fail(file, line, "balun_migrate() is %d: %s", rc, balun_reason());
		sched_yield();
	} while (c.busy);
	if ((c.moved + c.already + (dev ? 0 : c.empty)) * PAGE < len)
		mx_fail(file, line,
			"of %zu pages %llu moved, %llu were there, %llu empty, %llu unmovable, "
			"%llu without room, %llu failed",
			len / PAGE, (unsigned long long)c.moved, (unsigned long long)c.already,
			(unsigned long long)c.empty, (unsigned long long)c.unmovable,
			(unsigned long long)c.nomem, (unsigned long long)c.failed);
}

void *mx_away(struct mx *m, size_t len, uint64_t gen)
{
	void *p = mx_map(len);

	mx_fill(p, len, gen);
	mx_move(m, p, len, m->dev);
	return p;
}

size_t mx_pages_away(struct mx *m, const void *p, size_t len)
{
	const char *at = p, *end = at + len;
	struct balun_extent e[32];
	size_t n, i, pages = 0;

	while (at < end) {
		MX_OK(balun_query(m->space, at, end - at, e, 32, &n));
		MX_CHECK(n > 0);
		for (i = 0; i < n; i++)
			if (e[i].where == BALUN_WHERE_DEVICE)
				pages += e[i].len / PAGE;
		at = (const char *)(uintptr_t)(e[n - 1].addr + e[n - 1].len);
	}
	return pages;
}

/* ---- processes and threads ---- */

void mx_reap_at(const char *file, int line, pid_t pid)
{
	int status;
	pid_t got;

	do {
		got = waitpid(pid, &status, 0);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		mx_fail(file, line, "waitpid: %s", strerror(errno));
	if (WIFSIGNALED(status))
		mx_fail(file, line, "the child was killed by signal %d (%s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	/* a check that failed in the child has left its verdict already */
	if (status)
		mx_fail(file, line, "the child's exit status is %d", WEXITSTATUS(status));
}

pthread_t mx_thread(void *(*fn)(void *), void *arg)
{
	pthread_t t;
	int err = pthread_create(&t, NULL, fn, arg);

	if (err)
		mx_fail(__FILE__, __LINE__, "pthread_create: %s", strerror(err));
	return t;
}

void mx_join(pthread_t t)
{
	int err = pthread_join(t, NULL);

	if (err)
		mx_fail(__FILE__, __LINE__, "pthread_join: %s", strerror(err));
}
