// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * An ordinary program that survives the loss of pages: fills memory, waits, and tells what it finds
 * then. Page i begins with i and a number made from it.
 * Usage: lossy MIB. Prints "ready K", with K a page that is not in RAM, and waits for a line; then
 * takes as much memory again and prints "lost N bad M fresh-bad F" (pages). "ready -1": all are in
 * RAM.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

static sigjmp_buf lost_page;

static void on_bus(int sig)
{
	siglongjmp(lost_page, sig);
}

static uint64_t mix(uint64_t x)
{
	x = (x + 1) * 0x9e3779b97f4a7c15ULL;
	return x ^ (x >> 31);
}

static char *take(size_t pages, uint64_t salt)
{
	char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	uint64_t i, k;

	if (p == MAP_FAILED)
		exit(1);
	for (i = 0; i < pages; i++) {
		uint64_t *word = (uint64_t *)(p + i * PAGE);

		word[0] = i ^ salt;
		for (k = 1; k < PAGE / 8; k++)
			word[k] = mix((i ^ salt) * PAGE + k);
	}
	return p;
}

static int is_bad(const char *p, uint64_t i, uint64_t salt)
{
	const uint64_t *word = (const uint64_t *)(p + i * PAGE);
	uint64_t k;

	if (word[0] != (i ^ salt))
		return 1;
	for (k = 1; k < PAGE / 8; k++)
		if (word[k] != mix((i ^ salt) * PAGE + k))
			return 1;
	return 0;
}

/* a page in the middle that has no page in RAM */
static long away(const char *p, size_t pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;
	size_t i;
	long found = -1;

	for (i = pages / 4; fd >= 0 && i < pages && found < 0; i++)
		if (pread(fd, &entry, 8, ((uintptr_t)p / PAGE + i) * 8) == 8 && !(entry >> 63))
			found = i;
	if (fd >= 0)
		close(fd);
	return found;
}

int main(int argc, char **argv)
{
	size_t pages = argc == 2 ? strtoul(argv[1], NULL, 10) * 256 : 0;
	volatile size_t i, lost = 0, bad = 0, fresh = 0;
	char *p, *q;

	if (!pages)
		return 2;
	signal(getenv("LOSSY_SEGV") ? SIGSEGV : SIGBUS, on_bus); /* before Linux 6.6 */
	p = take(pages, 0);
	printf("ready %ld\n", away(p, pages));
	fflush(stdout);
	getchar();
	q = take(pages, 1UL << 40);
	for (i = 0; i < pages; i++) {
		if (sigsetjmp(lost_page, 1))
			lost++;
		else
			bad += is_bad(p, i, 0);
	}
	for (i = 0; i < pages; i++) {
		if (sigsetjmp(lost_page, 1))
			fresh++;
		else
			fresh += is_bad(q, i, 1UL << 40);
	}
	printf("lost %zu bad %zu fresh-bad %zu\n", lost, bad, fresh);
	return 0;
}
