// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * An ordinary program that takes memory as fast as it can, in one of the ways that there are,
 * checks at the end that all of it is what it wrote, and says how much it had in RAM at most.
 * Usage: grow WAY MIB [THREADS]; prints kB, or exits with 1
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE	    4096UL
#define THREADS_MAX 64

struct part {
	struct part *next;
	size_t len;
};

struct grower {
	pthread_t thread;
	size_t bytes;
	struct part *parts;
	int bad;
};

static const struct way {
	const char *name;
	size_t part; /* bytes at a time; 0: all at once */
	int mapped;  /* by mmap(); else by malloc() */
	int huge;
} way[] = {
	{ "mmap", 0, 1, 0 },	 { "huge", 0, 1, 1 },	    { "arenas", 1UL << 20, 1, 0 },
	{ "small", 1000, 0, 0 }, { "large", 200000, 0, 0 }, { "one", 0, 0, 0 },
};
static const struct way *how;

static uint64_t mix(const void *p)
{
	uint64_t x = (uintptr_t)p;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	return x ^ (x >> 31);
}

static struct part *get(size_t len)
{
	struct part *p;

	if (!how->mapped)
		return malloc(len);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (how->huge)
		madvise(p, len, MADV_HUGEPAGE);
	return p;
}

/* a word in each page, and one behind the head */
static int each_word(struct part *p, int write)
{
	char *at = (char *)(p + 1), *end = (char *)p + p->len - 8;
	int bad = 0;

	for (; at <= end; at += PAGE) {
		uint64_t word = mix(at);

		if (write)
			memcpy(at, &word, 8);
		else
			bad |= memcmp(at, &word, 8);
	}
	return bad;
}

static void *grow(void *arg)
{
	struct grower *g = arg;
	size_t len = how->part ? how->part : g->bytes, have;
	struct part *p;

	for (have = 0; have < g->bytes; have += len) {
		p = get(len);
		if (!p)
			abort();
		p->next = g->parts;
		p->len = len;
		g->parts = p;
		each_word(p, 1);
	}
	for (p = g->parts; p; p = p->next)
		g->bad |= each_word(p, 0);
	return NULL;
}

static long peak_kb(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	long kb = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmHWM: %ld", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb;
}

int main(int argc, char **argv)
{
	static struct grower g[THREADS_MAX];
	int n = argc > 3 ? atoi(argv[3]) : 1, i, bad = 0;

	for (how = way; argc > 2 && how < way + sizeof(way) / sizeof(way[0]); how++)
		if (!strcmp(how->name, argv[1]))
			break;
	if (argc < 3 || how == way + sizeof(way) / sizeof(way[0]) || n < 1 || n > THREADS_MAX)
		return 2;
	for (i = 0; i < n; i++) {
		g[i].bytes = (strtoul(argv[2], NULL, 10) << 20) / n;
		if (pthread_create(&g[i].thread, NULL, grow, &g[i]))
			return 1;
	}
	for (i = 0; i < n; i++) {
		pthread_join(g[i].thread, NULL);
		bad |= g[i].bad;
	}
	printf("%ld\n", peak_kb());
	return bad != 0;
}
