/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The runner: all cells of one way of moving in one process, with one space and one device. When a
 * cell fails or hangs, that process ends and another goes on with the next cell.
 *
 * Usage: barrier [PATTERN]   cells whose name, WAY/CALL/POINT/MOVER, matches (fnmatch)
 */
#include "tests/barrier/barrier.h"

#include <fnmatch.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CELLS 2000
#define LIMIT_MS  (30000 * (KIT_TSAN || KIT_ASAN ? 4 : 1))

static const struct {
	const char *name, *driver, *dev, *copy;
	unsigned int bit;
} ways[] = {
	{ "move", "ram", "mem=16M", "0", WAY_MOVE },
	{ "frame", "ram", "mem=16M,host=0", "0", WAY_FRAME },
	{ "coherent", "ram:coherent=1", "mem=16M,coherent=1", "0", WAY_COHERENT },
	{ "copy", "ram", "mem=16M", "1", WAY_COPY },
};

unsigned int way;
const char *way_dev;

static struct cell cells[MAX_CELLS];
static unsigned int ncells, passed, failed, skipped;

/* how far the child has come: shared with it */
static struct progress {
	unsigned int cell;
	bool all, clean; /* the last cell was reached; nothing failed */
} * progress;

struct cell *cell_add(void (*fn)(struct kit *k, const struct cell *c), unsigned int mask,
		      const char *fmt, ...)
{
	struct cell *c = &cells[ncells++];
	va_list ap;

	CHECK(ncells <= MAX_CELLS);
	va_start(ap, fmt);
	vsnprintf(c->name, sizeof(c->name), fmt, ap);
	va_end(ap);
	c->fn = fn;
	c->ways = mask;
	return c;
}

static bool wanted(unsigned int w, const struct cell *c, const char *pattern)
{
	char name[96];

	snprintf(name, sizeof(name), "%s/%s", ways[w].name, c->name);
	return c->ways & ways[w].bit && (!pattern || !fnmatch(pattern, name, 0));
}

static void report(const char *what, unsigned int w, unsigned int i, const char *text)
{
	printf("%s %s/%s%s%s\n", what, ways[w].name, cells[i].name, *text ? ": " : "", text);
	fflush(stdout);
}

static void child_main(unsigned int w, const char *pattern)
{
	struct kit k = {
		.driver = ways[w].driver, .engine = "uffd", .seed = 1, .mem = &mem_process
	};
	bool used = false, alone = false;

	setenv("BALUN_UFFD_COPY", ways[w].copy, 1);
	way = ways[w].bit;
	way_dev = ways[w].dev;
	k.next_va = KIT_TSAN ? 0x4000000000ULL : 0x200000000000ULL;
	CHECK_OK(balun_driver_register(&probe_driver));
	CHECK_OK(kit_open_space(&k));
	k.dev = kit_device(&k, ways[w].dev);
	for (; progress->cell < ncells; progress->cell++) {
		const struct cell *c = &cells[progress->cell];

		if (!wanted(w, c, pattern))
			continue;
		if (used && (c->alone || alone))
			break;
		used = true;
		alone = c->alone;
		c->fn(&k, c);
		CHECK(!probe_breach(k.dev));
		report("ok", w, progress->cell, "");
	}
	CHECK_OK(kit_close(&k, k.dev));
	CHECK_OK(balun_space_destroy(k.space));
	progress->all = progress->cell == ncells;
	progress->clean = true;
}

/* a status, or -1: it stood at one cell for too long and was killed */
static int wait_child(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), status, n;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	unsigned int at;

	do {
		at = __atomic_load_n(&progress->cell, __ATOMIC_RELAXED);
		n = poll(&p, 1, LIMIT_MS);
	} while (n == 0 && __atomic_load_n(&progress->cell, __ATOMIC_RELAXED) != at);
	if (n <= 0)
		kill(pid, SIGKILL);
	close(fd);
	waitpid(pid, &status, 0);
	return n > 0 ? status : -1;
}

/* what ended the child before its last cell */
static void verdict(unsigned int w, unsigned int i, int status)
{
	char text[512] = "";

	if (i == ncells)
		i--;
	if (kit_verdict->set == 2) {
		skipped++;
		report("SKIP", w, i, kit_verdict->text);
		return;
	}
	if (status < 0)
		snprintf(text, sizeof(text), "hangs");
	else if (kit_verdict->set)
		snprintf(text, sizeof(text), "%s", kit_verdict->text);
	else
		snprintf(text, sizeof(text), "ended with status %#x", status);
	failed++;
	report("FAIL", w, i, text);
}

static void run_way(unsigned int w, const char *pattern)
{
	unsigned int i, from;
	int status;
	pid_t pid;

	for (i = 0; i < ncells && !wanted(w, &cells[i], pattern); i++)
		;
	if (i == ncells)
		return;
	for (from = 0; from <= ncells;) {
		progress->cell = from;
		progress->all = progress->clean = false;
		memset(kit_verdict, 0, sizeof(*kit_verdict));
		fflush(stdout);
		pid = fork();
		if (!pid) {
			child_main(w, pattern);
			_exit(0);
		}
		status = wait_child(pid);
		for (i = from; i < progress->cell && i < ncells; i++)
			passed += wanted(w, &cells[i], pattern);
		from = progress->cell;
		if (progress->clean && status == 0) {
			if (progress->all)
				break;
			continue;
		}
		verdict(w, from++, status);
	}
}

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	return p;
}

int main(int argc, char **argv)
{
	const char *pattern = argc > 1 ? argv[1] : NULL;
	struct balun_engine_info info = { .size = sizeof(info) };
	unsigned int w;

	kit_verdict = shared(sizeof(*kit_verdict));
	progress = shared(sizeof(*progress));
	if (balun_engine_info(0, &info) || strcmp(info.name, "uffd") || !info.works) {
		printf("SKIP barrier: %s\n", info.reason);
		return 77;
	}
	matrix_cells();
	reader_cells();
	huge_cells();
	thread_cells();
	evict_cells();
	ahead_cells();
	odd_cells();
	for (w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
		if (ways[w].bit != WAY_COPY && strstr(info.features, "-MOVE")) {
			printf("SKIP %s: this kernel has no UFFDIO_MOVE\n", ways[w].name);
			skipped++;
			continue;
		}
		run_way(w, pattern);
	}
	printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed ? 1 : 0;
}
