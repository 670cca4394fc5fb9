// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The program that the far benches run: one pattern over one mapping of ordinary memory. It knows
 * nothing of Balun. It prints the nanoseconds of the timed part, how many operations that were, a
 * sum over what it read, which must be the same however it is run, and the nanoseconds of CPU time
 * that the timed part took in all threads of the process, Balun's too.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "bench/far.h"

#define PAGE 4096UL
#define LINE 64UL

struct work {
	char *mem;
	size_t bytes, pages;
	uint64_t seed, sum, ops;
};

/* splitmix64 */
static uint64_t draw(struct work *w)
{
	uint64_t x = w->seed += 0x9e3779b97f4a7c15ULL;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint64_t *word(struct work *w, size_t page, size_t line)
{
	return (uint64_t *)(w->mem + page * PAGE + line * LINE);
}

/* half of every 256 bytes is random, so LZ4 leaves about half of a page */
static void fill(struct work *w)
{
	uint64_t *p = (uint64_t *)w->mem;
	size_t i;

	for (i = 0; i < w->bytes / sizeof(*p); i++)
		p[i] = i % 32 < 16 ? draw(w) : 0x2020202020202020ULL;
}

/* ---- passes and touches ---- */

static void seq_read(struct work *w)
{
	size_t p, l;

	for (p = 0; p < w->pages; p++)
		for (l = 0; l < PAGE / LINE; l++)
			w->sum += *word(w, p, l);
	w->ops = w->pages;
}

static void seq_write(struct work *w)
{
	size_t p, l;

	for (p = 0; p < w->pages; p++)
		for (l = 0; l < PAGE / LINE; l++)
			*word(w, p, l) ^= p;
	w->ops = w->pages;
}

static void touch(struct work *w, uint64_t page, bool write)
{
	uint64_t *p = word(w, page, page % (PAGE / LINE));

	if (write)
		*p += 1;
	else
		w->sum += *p;
}

static void rand_read(struct work *w)
{
	for (w->ops = 0; w->ops < w->pages; w->ops++)
		touch(w, draw(w) % w->pages, false);
}

static void rand_write(struct work *w)
{
	for (w->ops = 0; w->ops < w->pages; w->ops++)
		touch(w, draw(w) % w->pages, true);
}

/* nine of ten touches go to one page of ten, which are scattered; every fourth touch writes */
static void hot(struct work *w)
{
	size_t hot_pages = w->pages / 10;

	for (w->ops = 0; w->ops < 10 * w->pages; w->ops++) {
		uint64_t r = draw(w), page = (r >> 8) % w->pages;

		if (r % 10)
			page = (r >> 8) % hot_pages * 7919 % w->pages;
		touch(w, page, w->ops % 4 == 0);
	}
}

/* ---- pointer chase: one node a page, in a random cycle through all of them ---- */

static void chase_prepare(struct work *w)
{
	size_t i, j;

	/* Sattolo: the permutation is one cycle */
	for (i = 0; i < w->pages; i++)
		*word(w, i, 0) = i;
	for (i = w->pages - 1; i; i--) {
		uint64_t t = *word(w, i, 0);

		j = draw(w) % i;
		*word(w, i, 0) = *word(w, j, 0);
		*word(w, j, 0) = t;
	}
}

static void chase(struct work *w)
{
	uint64_t at = 0;

	for (w->ops = 0; w->ops < w->pages; w->ops++) {
		at = *word(w, at, 0);
		w->sum += at * w->ops;
	}
}

/* ---- sort: records of 64 bytes by their first word, in place ---- */

struct record {
	uint64_t word[8];
};

static void swap_records(struct record *a, struct record *b)
{
	struct record t = *a;

	*a = *b;
	*b = t;
}

static void sort_small(struct record *r, int64_t n)
{
	int64_t i, j;

	for (i = 1; i < n; i++)
		for (j = i; j && r[j].word[0] < r[j - 1].word[0]; j--)
			swap_records(&r[j], &r[j - 1]);
}

static void sort_range(struct record *r, int64_t n)
{
	while (n > 16) {
		uint64_t pivot = r[n / 2].word[0];
		int64_t i = 0, j = n - 1;

		while (i <= j) {
			while (r[i].word[0] < pivot)
				i++;
			while (r[j].word[0] > pivot)
				j--;
			if (i <= j)
				swap_records(&r[i++], &r[j--]);
		}
		sort_range(r, j + 1);
		r += i;
		n -= i;
	}
	sort_small(r, n);
}

static void sort(struct work *w)
{
	struct record *r = (struct record *)w->mem;
	size_t i, n = w->bytes / sizeof(*r);

	sort_range(r, n);
	for (i = 0; i + 1 < n; i++)
		w->sum += r[i].word[0] > r[i + 1].word[0];
	w->sum = w->sum ? 0 : r[n / 2].word[0];
	w->ops = n;
}

/* ---- hash join: rows of 512 bytes; half of the memory is a table, half is read through ---- */

#define ROW 512UL

static uint64_t *row(struct work *w, size_t i)
{
	return (uint64_t *)(w->mem + i * ROW);
}

static void join_prepare(struct work *w)
{
	size_t n = w->bytes / ROW / 2, i;

	for (i = 0; i < 2 * n; i++)
		*row(w, i) = draw(w) % n;
}

static void join(struct work *w)
{
	size_t n = w->bytes / ROW / 2, i;

	for (i = 0; i < n; i++) {
		uint64_t key = *row(w, n + i), at = key * 0x9e3779b97f4a7c15ULL % n;

		w->sum += *row(w, at) ^ row(w, at)[ROW / 16];
	}
	w->ops = n;
}

/* ---- breadth-first search: 256 neighbours each, at random ---- */

#define DEGREE 254UL

/* a vertex is 1 KiB: its distance, the queue's entry, its neighbours */
struct vertex {
	uint32_t distance, queue, neighbour[DEGREE];
};

static void bfs_prepare(struct work *w)
{
	struct vertex *v = (struct vertex *)w->mem;
	size_t n = w->bytes / sizeof(*v), i, j;

	/* half of them close by, so that it compresses like the rest */
	for (i = 0; i < n; i++) {
		v[i].distance = 0;
		for (j = 0; j < DEGREE; j++)
			v[i].neighbour[j] = j % 64 < 32 ? draw(w) % n : i;
	}
}

static void bfs(struct work *w)
{
	struct vertex *v = (struct vertex *)w->mem;
	size_t n = w->bytes / sizeof(*v), head, j;
	/* what is asked of every edge is kept apart, as such programs do */
	uint32_t *distance = calloc(n, sizeof(*distance)), *queue = calloc(n, sizeof(*queue));
	size_t tail = 1;

	if (!distance || !queue)
		exit(1);
	distance[0] = 1;
	for (head = 0; head < tail; head++) {
		struct vertex *at = &v[queue[head]];

		for (j = 0; j < DEGREE; j++) {
			uint32_t to = at->neighbour[j];

			if (distance[to])
				continue;
			distance[to] = distance[queue[head]] + 1;
			queue[tail++] = to;
		}
		w->sum += (uint64_t)distance[queue[head]] * head;
	}
	w->ops = tail;
	free(distance);
	free(queue);
}

/* ---- what a program does that never reaches its limit: computes, allocates, frees ---- */

static void idle(struct work *w)
{
	size_t i, j;

	sort(w);
	for (i = 0; i < 4000; i++) {
		/* a mapping of its own each: malloc() begins to keep them when they are freed */
		size_t len = 256UL << 10;
		char *p =
			mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (j = 0; p != MAP_FAILED && j < len; j += PAGE)
			p[j] = i;
		munmap(p, len);
		free(malloc(i * 16));
	}
	rand_write(w);
	w->ops = 1;
}

/* the same at its worst: nothing but what Balun has a hand in */

static void idle_malloc(struct work *w)
{
	size_t i;

	for (i = 0; i < 10000000; i++) {
		char *volatile p = malloc(16 + i % 256);

		if (p)
			*p = i;
		free(p);
	}
	w->ops = i;
}

static void idle_calls(struct work *w)
{
	size_t i, len = 256UL << 10;

	for (i = 0; i < 30000; i++) {
		char *p =
			mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			exit(1);
		p[0] = i;
		mprotect(p, PAGE, PROT_READ);
		mprotect(p, PAGE, PROT_READ | PROT_WRITE);
		madvise(p, PAGE, MADV_DONTNEED);
		munmap(p, len);
	}
	w->ops = i;
}

/* a program that has mapped more than its limit, and uses little of it */
static void map_much(struct work *w)
{
	size_t len = 32 * w->bytes;

	if (mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0) == MAP_FAILED)
		exit(1);
}

static const struct pattern {
	const char *name;
	void (*prepare)(struct work *w);
	void (*run)(struct work *w);
	bool warm; /* once before, untimed: what is away is then what the pattern leaves away */
} pattern[] = {
	{ "seq_read", NULL, seq_read, true },
	{ "seq_write", NULL, seq_write, true },
	{ "rand_read", NULL, rand_read, true },
	{ "rand_write", NULL, rand_write, true },
	{ "hot", NULL, hot, true },
	{ "chase", chase_prepare, chase, false },
	{ "sort", NULL, sort, false },
	{ "join", join_prepare, join, false },
	{ "bfs", bfs_prepare, bfs, false },
	{ "idle", NULL, idle, false },
	{ "idle_malloc", NULL, idle_malloc, false },
	{ "idle_calls", NULL, idle_calls, false },
	{ "idle_mapped", map_much, idle, false },
};

static double cpu_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e9 +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e3;
}

int far_work_main(const char *name, const char *bytes)
{
	struct work w = { .bytes = strtoull(bytes, NULL, 0), .seed = 1 };
	const struct pattern *p = pattern;
	double ns, cpu;

	while (p < pattern + sizeof(pattern) / sizeof(pattern[0]) && strcmp(p->name, name))
		p++;
	w.pages = w.bytes / PAGE;
	w.mem = mmap(NULL, w.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == pattern + sizeof(pattern) / sizeof(pattern[0]) || w.mem == MAP_FAILED || !w.pages)
		return 1;
	fill(&w);
	if (p->prepare)
		p->prepare(&w);
	if (p->warm)
		p->run(&w);
	cpu = cpu_ns();
	ns = bench_now_ns();
	p->run(&w);
	ns = bench_now_ns() - ns;
	cpu = cpu_ns() - cpu;
	printf("%.0f %llu %llu %.0f\n", ns, (unsigned long long)w.ops, (unsigned long long)w.sum,
	       cpu);
	return 0;
}
