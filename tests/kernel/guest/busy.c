// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * busy - keep the modules busy for a while: usage: busy SPEC MILLISECONDS [fail]
 *
 * fail: the kernel's allocations for this program are to fail from now on, as /sys/kernel/debug
 * says. Not from before: Linux 6.1 begins a program also when it could not zero the end of its
 * data.
 *
 * A device with less memory than the program works on, three threads: one moves extents there and
 * home, one lets the device compute (it faults), one is the CPU, which writes a word of every page
 * and finds there what it wrote before. Exit status: 0 all is right, 1 a byte was wrong, 3 a call
 * failed, and what the CPU wrote is there.
 */
#include <balun/balun.h>
#include <balun/soft.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE  4096UL
#define BYTES (12UL << 20)
#define PAGES (BYTES / PAGE)

static struct {
	struct balun_space *space;
	struct balun_device *dev;
	char *mem;		   /* word 0 of a page is the CPU's, the rest holds 1 */
	struct soft_args args[64]; /* of the device's thread */
	atomic_uint stop, wrong, failed;
} b;

static void said(const char *what)
{
	if (!atomic_fetch_add(&b.failed, 1))
		fprintf(stderr, "busy: %s: %s\n", what, balun_reason());
}

/* the first one is told */
static void wrong(const char *where, uint64_t at, uint64_t is, uint64_t want)
{
	if (!atomic_exchange(&b.wrong, 1))
		fprintf(stderr, "busy: %s: %#lx at %#lx, not %#lx\n", where, (unsigned long)is,
			(unsigned long)at, (unsigned long)want);
}

static void *mover(void *unused)
{
	unsigned int seed = 1;

	(void)unused;
	while (!b.stop) {
		unsigned long at = rand_r(&seed) % PAGES, n = 1 + rand_r(&seed) % (PAGES - at);

		if (balun_migrate(b.space, b.mem + at * PAGE, n * PAGE,
				  rand_r(&seed) % 3 ? b.dev : NULL, NULL))
			said("migrate");
	}
	return NULL;
}

/* The device adds up bytes that nobody changes. A sum that nobody could wait for may still come:
 * the next one has a place of its own. */
static void *device(void *unused)
{
	struct soft_args *a = b.args, *end = a + sizeof(b.args) / sizeof(*a);
	unsigned int seed = 2;
	uint64_t fence;

	(void)unused;
	while (!b.stop && a < end) {
		a->src = (uintptr_t)b.mem + rand_r(&seed) % PAGES * PAGE + 8;
		a->len = PAGE - 8;
		a->value = 0;
		if (balun_soft_launch(b.dev, balun_soft_reduce, (uintptr_t)a, 1, &fence) ||
		    balun_soft_wait(b.dev, fence, NULL)) {
			said("reduce");
			a++;
		} else if (a->value != PAGE - 8) {
			wrong("the device's sum", a->src, a->value, PAGE - 8);
		}
	}
	return NULL;
}

/* every word is the number of the round in which it was written */
static uint64_t cpu(uint64_t end_ms)
{
	struct timespec t;
	uint64_t round = 0, i;

	do {
		for (i = 0; i < PAGES; i++) {
			uint64_t *w = (uint64_t *)(b.mem + i * PAGE);

			if (*w != round)
				wrong("the CPU", (uintptr_t)w, *w, round);
			*w = round + 1;
		}
		round++;
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while (t.tv_sec * 1000UL + t.tv_nsec / 1000000 < end_ms);
	return round;
}

/* at home or where it is: all that was written is there */
static void check(uint64_t round)
{
	uint64_t i, j;

	for (i = 0; i < PAGES; i++) {
		const uint64_t *w = (const uint64_t *)(b.mem + i * PAGE);

		if (*w != round)
			wrong("in the end", (uintptr_t)w, *w, round);
		for (j = 1; j < PAGE / 8; j++)
			if (w[j] != 0x0101010101010101)
				wrong("in the end", (uintptr_t)&w[j], w[j], 0x0101010101010101);
	}
}

static uint64_t work(uint64_t ms)
{
	pthread_t t[2];
	struct timespec now;
	uint64_t round;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (pthread_create(&t[0], NULL, mover, NULL) || pthread_create(&t[1], NULL, device, NULL))
		abort();
	round = cpu(now.tv_sec * 1000UL + now.tv_nsec / 1000000 + ms);
	b.stop = 1;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	return round;
}

static bool make_it_fail(void)
{
	FILE *f = fopen("/proc/self/make-it-fail", "w");

	return f && fputs("1", f) >= 0 && !fclose(f);
}

int main(int argc, char **argv)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "kernel" };
	uint64_t i, round = 0;

	if (argc != 3 && (argc != 4 || strcmp(argv[3], "fail") || !make_it_fail()))
		return 2;
	b.mem = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b.mem == MAP_FAILED)
		return 3;
	memset(b.mem, 1, BYTES);
	for (i = 0; i < PAGES; i++)
		*(uint64_t *)(b.mem + i * PAGE) = 0;

	if (balun_space_create(&opts, &b.space)) {
		said("space");
	} else {
		if (balun_device_open(b.space, argv[1], &b.dev))
			said("device");
		else
			round = work(strtoul(argv[2], NULL, 10));
		if (balun_space_destroy(b.space))
			said("destroy");
	}
	check(round);
	printf("%lu rounds, %u calls failed%s\n", (unsigned long)round, b.failed,
	       b.wrong ? ", WRONG BYTES" : "");
	return b.wrong ? 1 : b.failed ? 3 : 0;
}
