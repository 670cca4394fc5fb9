// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A program with a space, for those who look at it from outside: does what the lines of its
 * standard input say, and answers each on its standard output.
 *
 * Usage: target SPEC [MIB]
 *   out N   moves N MiB to the device       "ok"
 *   in N    touches the first N MiB         "ok", or "wrong" if they are not as they were
 *   stats   its own counters, as JSON
 *   close   closes every descriptor but its standard ones   "ok"
 *   fork    becomes a child of itself, with a space of its own  "ok PID"
 *   end     ends the space                  "ok"
 */
#include "balun/balun.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct balun_space *space;
static struct balun_device *device;
static const char *spec;
static unsigned char *mem;
static size_t bytes;

static void fail(const char *what)
{
	printf("%s: %s\n", what, balun_reason());
	exit(1);
}

/* compressible, and different in each page */
static unsigned char byte_of(size_t at)
{
	return at % 4096 < 1024 ? at / 4096 + at : 7;
}

static void begin(void)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };

	if (balun_space_create(&opts, &space) || balun_device_open(space, spec, &device))
		fail(spec);
}

static const char *touch(size_t len)
{
	size_t i;

	for (i = 0; i < len; i += 97)
		if (mem[i] != byte_of(i))
			return "wrong";
	return "ok";
}

static void causes(const char *name, const uint64_t *by_cause)
{
	unsigned int i;

	printf("\"%s\":{", name);
	for (i = 0; i < BALUN_NR_CAUSES; i++)
		printf("%s\"%s\":%" PRIu64, i ? "," : "", balun_cause_name(i), by_cause[i]);
	printf("},");
}

static void print_stats(void)
{
	struct balun_device_info info = { .size = sizeof(info) };
	struct balun_stats st = { .size = sizeof(st) };

	if (balun_stats(space, &st) || balun_device_info(device, &info))
		fail("stats");
	printf("{");
	causes("to_device", st.to_device);
	causes("to_system", st.to_system);
	causes("device_to_device", st.device_to_device);
	printf("\"cpu_faults\":%" PRIu64 ",\"evictions\":%" PRIu64 ",\"invalidations\":%" PRIu64
	       ",\"served\":%" PRIu64 ",\"device_faults\":%" PRIu64 ",\"used\":%" PRIu64
	       ",\"total\":%" PRIu64 "}\n",
	       st.cpu_faults, st.evictions, st.invalidations, st.cpu_fault.count, st.device_faults,
	       info.mem_used, info.mem_total);
}

static void become_child(void)
{
	if (fork())
		_exit(0); /* the child goes on with what is to be read */
	begin();
	printf("ok %d\n", getpid());
}

int main(int argc, char **argv)
{
	struct balun_counts c;
	char line[64];
	size_t i, n;
	int fd;

	spec = argc > 1 ? argv[1] : "ram";
	bytes = (argc > 2 ? strtoul(argv[2], NULL, 10) : 16) << 20;
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return 1;
	for (i = 0; i < bytes; i++)
		mem[i] = byte_of(i);
	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0); /* a child goes on reading where its parent was */
	begin();
	printf("up %d\n", getpid());
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "out %zu", &n) == 1) {
			if (balun_migrate(space, mem, n << 20, device, &c))
				fail("out");
			puts("ok");
		} else if (sscanf(line, "in %zu", &n) == 1) {
			puts(touch(n << 20));
		} else if (!strncmp(line, "stats", 5)) {
			print_stats();
		} else if (!strncmp(line, "close", 5)) {
			for (fd = 3; fd < 256; fd++)
				close(fd);
			puts("ok");
		} else if (!strncmp(line, "fork", 4)) {
			become_child();
		} else if (!strncmp(line, "end", 3)) {
			balun_space_destroy(space);
			puts("ok");
		} else {
			puts("what?");
		}
	}
	return 0;
}
