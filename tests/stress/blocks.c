// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Threads that get large blocks of the heap, write all over them, grow and shrink them, read, and
 * give them back. glibc maps, moves and unmaps such blocks with system calls of its own, and what
 * one thread gives back another gets at once. Under `balun run --chaos` their pages leave and come
 * home meanwhile: a page that is discarded too late takes what another thread has just written.
 *
 * Usage: blocks THREADS SECONDS SEED
 */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KIB	    1024UL
#define MAPPED	    (128 * KIB) /* from this size on a block is a mapping */
#define MAX_THREADS 64

struct thread {
	pthread_t t;
	unsigned int id, seed;
	unsigned long rounds;
};

static time_t end;

static uint64_t word(uint64_t tag, size_t at)
{
	return tag ^ at * 0x9e3779b97f4a7c15ULL;
}

static void fill(uint64_t *p, size_t from, size_t len, uint64_t tag)
{
	size_t i;

	for (i = from / 8; i < len / 8; i += 64)
		p[i] = word(tag, i);
}

static void check(const struct thread *t, const uint64_t *p, size_t len, uint64_t tag)
{
	size_t i;

	for (i = 0; i < len / 8; i += 64) {
		if (p[i] == word(tag, i))
			continue;
		fprintf(stderr, "thread %u, round %lu: byte %zu of %zu at %p is %llx, not %llx\n",
			t->id, t->rounds, i * 8, len, (const void *)(p + i),
			(unsigned long long)p[i], (unsigned long long)word(tag, i));
		exit(1);
	}
}

static uint64_t *resize(uint64_t *p, size_t len)
{
	p = realloc(p, len);
	if (!p) {
		fprintf(stderr, "blocks: no memory\n");
		exit(2);
	}
	return p;
}

static size_t draw(struct thread *t)
{
	return MAPPED + (size_t)rand_r(&t->seed) % 400 * KIB;
}

static void *rounds(void *arg)
{
	struct thread *t = arg;
	uint64_t *p, tag;
	size_t len, then;

	for (; time(NULL) < end; t->rounds++) {
		tag = (uint64_t)t->id << 56 | t->rounds << 8;
		len = draw(t);
		p = resize(NULL, len);
		fill(p, 0, len, tag);
		check(t, p, len, tag);
		if (t->rounds % 2) {
			then = draw(t);
			p = resize(p, then);
			check(t, p, len < then ? len : then, tag);
			fill(p, 0, then, ++tag);
			len = then;
		}
		check(t, p, len, tag);
		free(p);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static struct thread thread[MAX_THREADS];
	unsigned int n = argc == 4 ? atoi(argv[1]) : 0, i;
	unsigned long sum = 0;

	if (!n || n > MAX_THREADS) {
		fprintf(stderr, "usage: blocks THREADS SECONDS SEED\n");
		return 2;
	}
	mallopt(M_MMAP_THRESHOLD, MAPPED); /* it would rise with the first one that is given back */
	end = time(NULL) + atoi(argv[2]);
	for (i = 0; i < n; i++) {
		thread[i].id = i + 1;
		thread[i].seed = atoi(argv[3]) + i;
		if (pthread_create(&thread[i].t, NULL, rounds, &thread[i])) {
			fprintf(stderr, "blocks: no thread\n");
			return 2;
		}
	}
	for (i = 0; i < n; i++) {
		pthread_join(thread[i].t, NULL);
		sum += thread[i].rounds;
	}
	printf("%lu blocks\n", sum);
	return !sum;
}
