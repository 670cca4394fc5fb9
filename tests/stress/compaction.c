/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Pages go to a device and home again and again while the kernel migrates them for itself: every
 * byte is right. usage: compaction [SECONDS] [SPEC]
 *
 * UFFDIO_MOVE meets pages that are just being migrated then, and waits for them; Linux 6.18 has a
 * mistake there (engine/uffd/transit.c). Compaction is asked for by /proc/sys/vm/compact_memory,
 * so the test needs root and is skipped (77) without.
 */
#include "balun/balun.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LEN   (32UL << 20)
#define WORDS (LEN / sizeof(uint64_t))

static int compact_fd;
static bool over;

static uint64_t word(uint64_t i, uint64_t round)
{
	return (i + 1) * 0x9e3779b97f4a7c15ULL ^ round;
}

static void *compact(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED) && write(compact_fd, "1", 1) == 1)
		;
	return NULL;
}

static int failed(const char *what, const char *why)
{
	printf("FAIL %s: %s\n", what, why);
	return 1;
}

/* to the device and home, as a whole and by a touch, and something new is written */
static int one_round(struct balun_space *sp, struct balun_device *dev, uint64_t *mem,
		     uint64_t round)
{
	char text[120];
	size_t i;

	if (balun_migrate(sp, mem, LEN, dev, NULL))
		return failed("migrate", balun_reason());
	if (round % 2 && balun_migrate(sp, mem, LEN, NULL, NULL))
		return failed("migrate home", balun_reason());
	for (i = 0; i < WORDS; i++) {
		if (mem[i] == word(i, round)) {
			mem[i] = word(i, round + 1);
			continue;
		}
		snprintf(text, sizeof(text), "round %llu: page %zu: %#llx, not %#llx",
			 (unsigned long long)round, i * 8 / BALUN_PAGE_SIZE,
			 (unsigned long long)mem[i], (unsigned long long)word(i, round));
		return failed("content", text);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
	const char *spec = argc > 2 ? argv[2] : "ram:mem=64M";
	struct balun_space *sp;
	struct balun_device *dev;
	uint64_t *mem, round = 0;
	pthread_t thread;
	size_t i;
	int err = 0;

	compact_fd = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
	if (compact_fd < 0) {
		printf("SKIP compaction: /proc/sys/vm/compact_memory: %s\n", strerror(errno));
		return 77;
	}
	if (balun_space_create(&opts, &sp) || balun_device_open(sp, spec, &dev)) {
		printf("SKIP compaction: %s\n", balun_reason());
		return 77;
	}
	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return failed("mmap", strerror(errno));
	madvise(mem, LEN, MADV_NOHUGEPAGE);
	for (i = 0; i < WORDS; i++)
		mem[i] = word(i, 0);
	if (pthread_create(&thread, NULL, compact, NULL))
		return failed("thread", "cannot be made");
	for (; !err && time(NULL) < end; round++)
		err = one_round(sp, dev, mem, round);
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	if (!err && balun_space_destroy(sp))
		err = failed("the end", "pages were lost");
	if (!err)
		printf("ok %llu rounds\n1 passed, 0 failed, 0 skipped\n",
		       (unsigned long long)round);
	return err;
}
