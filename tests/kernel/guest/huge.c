// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * In the VM: huge pages that are cut, shared and touched while they travel, every byte checked.
 *
 *   huge [ROUNDS [SEED [ACT]]]
 *
 * Each round has a block of its own, a huge page if the kernel has one, and moves it to a device.
 * What happens to it then is one of acts[] in turn (or always ACT), beside a thread that moves it
 * to and fro. It hangs if two of them wait for each other. Needs the driver dmirror, with coherent
 * memory.
 */
#include "balun/dmirror.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096UL
#define BLOCK (2UL << 20)
#define HALF  (BLOCK / 2)
#define PAGES (BLOCK / PAGE)
#define FEW   32

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* of the second no huge page is to be had: what goes there goes in small ones */
static const char *const specs[2] = { "dmirror:mem=16M", "dmirror:mem=16M,coherent=1" };
static struct balun_space *space;
static struct balun_device *dev[2];
static uint64_t seed;
static atomic_bool over, ready;

struct round {
	char *map, *at; /* two blocks, the aligned one of them */
	uint64_t is;	/* of a page: this and its number, in every word */
	bool beside;	/* another thread moves it */
	pthread_t mover;
};

static uint64_t rnd(void)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("FAIL ", stdout);
	vprintf(fmt, ap);
	printf(" (errno %d; %s)\n", errno, balun_reason());
	fflush(stdout);
	_exit(1);
}

/* pages [first, first + n) of the block, which are at @at */
static void check(const struct round *r, const char *at, unsigned int first, unsigned int n,
		  const char *who)
{
	const uint64_t *p = (const uint64_t *)at;
	unsigned int i, j;

	for (i = first; i < first + n; i++)
		for (j = 0; j < PAGE / 8; j++, p++)
			if (*p != r->is + i)
				fail("%s, page %u: %#lx, not %#lx", who, i, (unsigned long)*p,
				     (unsigned long)(r->is + i));
}

static void fill(const struct round *r, char *at, unsigned int first, unsigned int n)
{
	uint64_t *p = (uint64_t *)at;
	unsigned int i, j;

	for (i = first; i < first + n; i++)
		for (j = 0; j < PAGE / 8; j++)
			*p++ = r->is + i;
}

static void move(char *at, size_t len, struct balun_device *to)
{
	int err = balun_migrate(space, at, len, to, NULL);

	if (err && err != -EFAULT)
		fail("balun_migrate: %d", err);
}

static void *mover(void *arg)
{
	struct round *r = arg;
	unsigned int i;

	/* not for as long as the others need: who touches what never rests gets nowhere */
	for (i = 0; i < 16 && !atomic_load(&over); i++)
		move(r->at, BLOCK, i % 4 == 1 ? dev[0] : i % 4 == 3 ? dev[1] : NULL);
	return NULL;
}

static pid_t child_begin(void)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	return pid;
}

static void child_end(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status)
		fail("a child: %#x", status);
}

/* ---- what happens to a block ---- */

/* cut in the middle of the page table: the page stays one, and is mapped page by page */
static void act_protect(struct round *r)
{
	if (mprotect(r->at, HALF, PROT_READ))
		fail("mprotect");
	check(r, r->at + PAGE, 1, 1, "read-only");
	if (mprotect(r->at, HALF, PROT_READ | PROT_WRITE))
		fail("mprotect back");
	check(r, r->at + HALF, PAGES / 2, PAGES / 2, "the half that was not protected");
	check(r, r->at, 0, PAGES / 2, "the half that was protected");
}

static void *toucher(void *arg)
{
	struct round *r = arg;
	unsigned int i = r->is % PAGES;

	atomic_store(&ready, true);
	check(r, r->at + i * PAGE, i, 1, "touched, while it moves");
	return NULL;
}

/* one that is mapped page by page is touched and moved at once */
static void act_touch(struct round *r)
{
	pthread_t t;

	if (mprotect(r->at, HALF, PROT_READ) || mprotect(r->at, HALF, PROT_READ | PROT_WRITE))
		fail("mprotect");
	atomic_store(&ready, false);
	if (pthread_create(&t, NULL, toucher, r))
		fail("pthread_create");
	while (!atomic_load(&ready))
		;
	move(r->at, BLOCK, NULL);
	pthread_join(t, NULL);
	check(r, r->at, 0, PAGES, "after it was touched");
}

static void act_unmap(struct round *r)
{
	check(r, r->at + HALF - PAGE, PAGES / 2 - 1, 2, "before munmap");
	if (munmap(r->at + HALF, HALF))
		fail("munmap");
	check(r, r->at, 0, PAGES / 2, "after munmap of the other half");
}

static void act_drop(struct round *r)
{
	const uint64_t *p = (const uint64_t *)r->at;
	unsigned int i;

	if (madvise(r->at, HALF, MADV_DONTNEED))
		fail("madvise");
	check(r, r->at + HALF, PAGES / 2, PAGES / 2, "after MADV_DONTNEED of the other half");
	for (i = 0; i < HALF / 8; i++)
		if (p[i])
			fail("dropped, page %u: %#lx", i / 512, (unsigned long)p[i]);
}

static void act_remap(struct round *r)
{
	char *to = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (to == MAP_FAILED || mremap(r->at + HALF, HALF, HALF, MREMAP_MAYMOVE | MREMAP_FIXED,
				       to + PAGE) == MAP_FAILED)
		fail("mremap");
	check(r, to + PAGE, PAGES / 2, PAGES / 2, "after mremap");
	check(r, r->at, 0, PAGES / 2, "after mremap of the other half");
	munmap(to, BLOCK);
}

/* a child has it too, unmaps a half of it, writes to the other */
static void act_fork(struct round *r)
{
	pid_t pid = child_begin();

	if (!pid) {
		check(r, r->at, 0, 1, "in a child");
		if (munmap(r->at + HALF, HALF))
			fail("munmap in a child");
		check(r, r->at, 0, PAGES / 2, "in a child, after munmap");
		r->is++;
		fill(r, r->at, 0, PAGES / 2);
		check(r, r->at, 0, PAGES / 2, "in a child, written");
		_exit(0);
	}
	check(r, r->at, 0, PAGES, "while a child has it");
	child_end(pid);
}

/* a child has it, and looks only when the parent has moved it once more */
static void act_share(struct round *r)
{
	int go[2];
	pid_t pid;
	char c = 0;

	if (pipe(go))
		fail("pipe");
	pid = child_begin();
	if (!pid) {
		if (read(go[0], &c, 1) != 1)
			fail("read");
		check(r, r->at, 0, PAGES, "in a child, moved by the parent");
		_exit(0);
	}
	move(r->at, BLOCK, dev[rnd() % 2]);
	if (write(go[1], &c, 1) != 1)
		fail("write");
	check(r, r->at, 0, PAGES, "moved, while a child has it");
	child_end(pid);
	close(go[0]);
	close(go[1]);
}

static atomic_uint mapping; /* threads that do */

static void *mapper(void *arg)
{
	bool first = true;

	(void)arg;
	while (!atomic_load(&over)) {
		munmap(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), PAGE);
		if (first)
			atomic_fetch_add(&mapping, 1);
		first = false;
	}
	return NULL;
}

/* a child has it too, and reads it by get_user_pages() while its threads change its mappings */
static void act_peek(struct round *r)
{
	static char buf[PAGE];
	unsigned int no = r->is % PAGES;
	struct iovec to = { buf, PAGE }, from = { r->at + no * PAGE, PAGE };
	pid_t pid = child_begin();
	pthread_t t[2];

	if (!pid) {
		if (pthread_create(&t[0], NULL, mapper, NULL) ||
		    pthread_create(&t[1], NULL, mapper, NULL))
			fail("pthread_create");
		while (atomic_load(&mapping) < 2)
			sched_yield();
		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)PAGE)
			fail("process_vm_readv");
		check(r, buf, no, 1, "read by get_user_pages()");
		_exit(0);
	}
	child_end(pid);
	check(r, r->at, 0, PAGES, "after a child has read it");
}

/* the program wants no huge pages any more: none goes, whatever came home */
static void act_small(struct round *r)
{
	struct balun_extent x[PAGES];
	size_t n, i;

	if (madvise(r->at, BLOCK, MADV_NOHUGEPAGE))
		fail("madvise");
	check(r, r->at, 0, PAGES, "after MADV_NOHUGEPAGE");
	move(r->at, BLOCK, dev[0]);
	if (balun_query(space, r->at, BLOCK, x, PAGES, &n))
		fail("balun_query");
	for (i = 0; i < n; i++)
		if (x[i].where == BALUN_WHERE_DEVICE && x[i].flags & BALUN_EXTENT_HUGE)
			fail("a huge page on the device, after MADV_NOHUGEPAGE");
	check(r, r->at, 0, PAGES, "moved after MADV_NOHUGEPAGE");
}

/* moves a few pages of the block here and there */
static void *picker(void *arg)
{
	struct round *r = arg;
	uint64_t s = r->is;
	unsigned int i;

	for (i = 0; !atomic_load(&over); i++) {
		s = s * 6364136223846793005ULL + 1442695040888963407ULL;
		move(r->at + (s >> 33) % (PAGES / FEW) * FEW * PAGE, FEW * PAGE,
		     i % 3 ? dev[i % 3 - 1] : NULL);
	}
	return NULL;
}

/* the kernel makes a huge page of it, as khugepaged does: what of it is on a device comes home */
static void act_collapse(struct round *r)
{
	unsigned int i;
	pthread_t t;

	if (pthread_create(&t, NULL, picker, r))
		fail("pthread_create");
	for (i = 0; i < 8; i++) {
		madvise(r->at, BLOCK, MADV_COLLAPSE); /* or not: pages are moving */
		check(r, r->at, 0, PAGES, "after MADV_COLLAPSE");
	}
	atomic_store(&over, true);
	pthread_join(t, NULL);
	if (r->beside)
		return;
	move(r->at, BLOCK, NULL);
	move(r->at + BLOCK / 4, FEW * PAGE, dev[0]);
	/* "again", says madvise(2), where a page is on some processor's list, or memory is short */
	for (i = 0; madvise(r->at, BLOCK, MADV_COLLAPSE); i++)
		if ((errno != EAGAIN && errno != ENOMEM) || i == 1000)
			fail("MADV_COLLAPSE");
	check(r, r->at, 0, PAGES, "after MADV_COLLAPSE alone");
}

/* @alone: not while another thread moves the block. 7.3 takes the entry for a huge page of a device
 * away for a moment when it is collected (docs/kernel.md, "Limits"): who zaps it just then, as
 * madvise() or a child that unmaps it or exits, zaps nothing */
static const struct {
	void (*act)(struct round *r);
	bool alone;
} acts[] = {
	{ act_protect, false }, { act_touch, false },	 { act_unmap, false }, { act_remap, false },
	{ act_drop, true },	{ act_fork, true },	 { act_share, true },  { act_peek, true },
	{ act_small, false },	{ act_collapse, false },
};
#define ACTS (sizeof(acts) / sizeof(acts[0]))

static void one_round(unsigned int no, unsigned int act)
{
	struct round r = { .is = rnd(), .beside = no / ACTS % 2 && !acts[act % ACTS].alone };

	r.map = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r.map == MAP_FAILED)
		fail("mmap");
	r.at = (char *)(((uintptr_t)r.map + BLOCK - 1) & ~(BLOCK - 1));
	madvise(r.at, BLOCK, MADV_HUGEPAGE);
	fill(&r, r.at, 0, PAGES);
	/* one that is in system memory too, and one that is shared before it goes */
	if (no / ACTS % 4 < 3)
		move(r.at, BLOCK, dev[0]);
	atomic_store(&over, false);
	if (r.beside && pthread_create(&r.mover, NULL, mover, &r))
		fail("pthread_create");
	acts[act % ACTS].act(&r);
	atomic_store(&over, true);
	if (r.beside)
		pthread_join(r.mover, NULL);
	munmap(r.map, 2 * BLOCK);
}

int main(int argc, char **argv)
{
	unsigned int rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 500, i;
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "kernel" };
	int err;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	err = balun_space_create(&opts, &space);
	for (i = 0; !err && i < 2; i++)
		err = balun_device_open(space, specs[i], &dev[i]);
	if (err)
		fail("beginning: %d", err);
	for (i = 0; i < rounds; i++)
		one_round(i, argc > 3 ? strtoul(argv[3], NULL, 0) : i);
	if (balun_space_destroy(space))
		fail("balun_space_destroy");
	printf("%u rounds\n", rounds);
	return 0;
}
