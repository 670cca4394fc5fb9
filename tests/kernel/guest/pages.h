/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the tests of PCI devices share: a space, pages whose bytes are known, moves of one page.
 */
#ifndef BALUN_TESTS_GUEST_PAGES_H
#define BALUN_TESTS_GUEST_PAGES_H

#include <balun/balun.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  BALUN_PAGE_SIZE
#define PAGES 3

static struct balun_space *space;
static unsigned char *mem; /* PAGES, each in a block of its own */
static unsigned int failed, passed;

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("FAIL %s:%d: %s (reason: %s)\n", __func__, __LINE__, #cond,         \
			       balun_reason());                                                    \
			failed++;                                                                  \
			return;                                                                    \
		}                                                                                  \
	} while (0)

static inline unsigned char *page(unsigned int i)
{
	return mem + i * BALUN_BLOCK_SIZE;
}

/* every byte depends on its place and on @seed, the last ones too */
static inline unsigned char content(unsigned int seed, unsigned int i)
{
	return (seed * 2654435761u + i * 40503u) >> 13;
}

static inline void fill(unsigned char *p, unsigned int seed)
{
	unsigned int i;

	for (i = 0; i < PAGE; i++)
		p[i] = content(seed, i);
}

static inline bool holds(const unsigned char *p, unsigned int seed)
{
	unsigned int i;

	for (i = 0; i < PAGE; i++) {
		if (p[i] != content(seed, i)) {
			printf("byte %u is 0x%02x, not 0x%02x\n", i, p[i], content(seed, i));
			return false;
		}
	}
	return true;
}

static inline struct balun_device *begin_with(const char *s)
{
	struct balun_device *dev;

	if (!balun_device_open(space, s, &dev))
		return dev;
	printf("%s: %s\n", s, balun_reason());
	return NULL;
}

/* whether the page moved; one that somebody holds for a moment is asked for again */
static inline bool move(const unsigned char *p, struct balun_device *dev)
{
	struct balun_counts c;
	int err;

	do {
		err = balun_migrate(space, p, PAGE, dev, &c);
	} while (!err && c.busy);
	if (err || c.moved + c.failed != 1)
		printf("%d %s: empty %lu unmovable %lu nomem %lu\n", err, balun_reason(),
		       (unsigned long)c.empty, (unsigned long)c.unmovable, (unsigned long)c.nomem);
	return !err && c.moved == 1;
}

static inline bool away(const unsigned char *p)
{
	struct balun_extent e;
	size_t n;

	return !balun_query(space, p, PAGE, &e, 1, &n) && n == 1 && e.where == BALUN_WHERE_DEVICE;
}

/* write @word to a file of sysfs, in a process of its own: it may have to wait */
static inline pid_t sysfs(const char *path, const char *word)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		int fd = open(path, O_WRONLY);

		_exit(fd < 0 || write(fd, word, strlen(word)) < 0);
	}
	return pid;
}

/* whether the process has ended well; waits for that */
static inline bool ended(pid_t pid)
{
	int status = -1;

	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

static inline void run(const char *name, void (*fn)(void))
{
	unsigned int before = failed;

	fn();
	if (failed == before) {
		passed++;
		printf("ok %s\n", name);
	}
	fflush(stdout);
}

static inline bool begin(void)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "kernel" };

	if (balun_space_create(&opts, &space)) {
		printf("FAIL no space: %s\n", balun_reason());
		return false;
	}
	mem = mmap(NULL, PAGES * BALUN_BLOCK_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return mem != MAP_FAILED;
}

/* the exit status */
static inline int end(void)
{
	if (balun_space_destroy(space)) {
		printf("FAIL the end of the space\n");
		failed++;
	}
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
	return failed != 0;
}

#endif
