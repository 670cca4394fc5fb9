/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Acceptance: a program that forks while pages are away, and whose parent exits at once, gives a
 * child with every byte right. usage: fork_rounds [ROUNDS] [SPEC]
 *
 * Each round is a process that makes a space, fills memory, sends it away, forks and ends; its
 * child, orphaned by then, checks every byte and answers through a pipe.
 */
#include "balun/balun.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORDS	   (64 * BALUN_PAGE_SIZE / sizeof(uint64_t))
#define LIMIT_MS   20000
#define ANSWER_LEN 160

static uint64_t word(uint64_t i, uint64_t round)
{
	return (i + 1) * 0x9e3779b97f4a7c15ULL ^ round;
}

static void __attribute__((noreturn)) answer(int fd, const char *text)
{
	char buf[ANSWER_LEN] = "";

	snprintf(buf, sizeof(buf), "%s", text);
	_exit(write(fd, buf, sizeof(buf)) == sizeof(buf) ? 0 : 1);
}

/* the orphan: what it does not find in its own memory it will never find */
static void __attribute__((noreturn)) verify(int fd, const uint64_t *mem, uint64_t round)
{
	char text[ANSWER_LEN];
	size_t i;

	for (i = 0; i < WORDS; i++) {
		if (mem[i] == word(i, round))
			continue;
		snprintf(text, sizeof(text), "word %zu (page %zu) is %#llx, not %#llx", i,
			 i * 8 / BALUN_PAGE_SIZE, (unsigned long long)mem[i],
			 (unsigned long long)word(i, round));
		answer(fd, text);
	}
	answer(fd, "ok");
}

static void __attribute__((noreturn)) fail(int fd, const char *call, int rc)
{
	char text[ANSWER_LEN];

	snprintf(text, sizeof(text), "%s: %s (%s)", call, strerror(-rc), balun_reason());
	answer(fd, text);
}

static void __attribute__((noreturn)) parent(int fd, const char *spec, uint64_t round)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	struct balun_counts c;
	struct balun_space *sp;
	struct balun_device *dev;
	uint64_t *mem;
	size_t i;
	int rc;
	pid_t pid;

	rc = balun_space_create(&opts, &sp);
	if (rc)
		fail(fd, "balun_space_create", rc);
	rc = balun_device_open(sp, spec, &dev);
	if (rc)
		fail(fd, "balun_device_open", rc);
	mem = mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		fail(fd, "mmap", -errno);
	for (i = 0; i < WORDS; i++)
		mem[i] = word(i, round);
	/* odd rounds leave half of it at home */
	rc = balun_migrate(sp, mem, WORDS * 8 / (1 + round % 2), dev, &c);
	if (rc || !c.moved)
		fail(fd, "balun_migrate", rc);
	pid = fork();
	if (pid < 0)
		fail(fd, "fork", -errno);
	if (!pid)
		verify(fd, mem, round);
	_exit(0);
}

/* true: the child of this round answered "ok" */
static bool run_round(const char *spec, uint64_t round)
{
	char text[ANSWER_LEN] = "no answer";
	struct pollfd p;
	int fd[2], status;
	ssize_t n = 0;
	pid_t pid;

	if (pipe(fd)) {
		perror("pipe");
		return false;
	}
	pid = fork();
	if (!pid)
		parent(fd[1], spec, round);
	close(fd[1]);
	p = (struct pollfd){ .fd = fd[0], .events = POLLIN };
	if (poll(&p, 1, LIMIT_MS) > 0)
		n = read(fd[0], text, sizeof(text));
	close(fd[0]);
	if (n != sizeof(text))
		snprintf(text, sizeof(text), "%s",
			 p.revents ? "the child died" : "the child hangs");
	/* we are the reaper of orphans: none is left behind, none is waited for in vain */
	if (n != sizeof(text))
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (n == sizeof(text))
		while (waitpid(-1, &status, 0) > 0)
			;
	if (!strcmp(text, "ok"))
		return true;
	fprintf(stderr, "round %llu: %s\n", (unsigned long long)round, text);
	return false;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* why there is nothing to try here; NULL: there is */
static const char *refused(void)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	struct balun_space *sp;
	int rc = balun_space_create(&opts, &sp);

	if (!rc)
		balun_space_destroy(sp);
	return rc == -EPERM || rc == -EOPNOTSUPP ? balun_reason() : NULL;
}

int main(int argc, char **argv)
{
	uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000, i;
	const char *spec = argc > 2 ? argv[2] : NULL;
	double start = now_s();

	if (refused()) {
		printf("SKIP fork: %s\n", refused());
		return 77;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	for (i = 0; i < rounds; i++) {
		const char *s = spec ? spec : i & 2 ? "soft:mem=4M,workers=1" : "ram:mem=4M";

		if (!run_round(s, i)) {
			printf("%llu passed, 1 failed, 0 skipped\n", (unsigned long long)i);
			return 1;
		}
	}
	printf("%llu rounds, %.2f ms each\n", (unsigned long long)rounds,
	       (now_s() - start) * 1000 / (rounds ? rounds : 1));
	printf("%llu passed, 0 failed, 0 skipped\n", (unsigned long long)rounds);
	return 0;
}
