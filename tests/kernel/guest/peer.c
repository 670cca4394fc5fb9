// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Peer to peer: edu's DMA and the memory of ivshmem, QEMU's devices both.
 *
 * Usage: peer_test SPEC reached|refused: with "reached" all copies between the two, of a device
 * "edu" with this spec, are edu's DMA; with "refused" none is, and all bytes are right
 * nevertheless.
 */
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pages.h"

static const char *spec;
static bool reached;

static uint64_t peer_bytes(void)
{
	struct balun_stats s = { .size = sizeof(s) };

	return balun_stats(space, &s) ? UINT64_MAX : s.peer_bytes;
}

/* how many of the pages in the BAR, as a CPU sees it, hold the bytes of @seed */
static unsigned int in_bar(unsigned int seed)
{
	unsigned char want[PAGE], *bar;
	unsigned int n = 0;
	struct stat st; /* lseek() to the end of such a file goes nowhere on 6.1 */
	size_t at;
	glob_t g;
	int fd;

	fill(want, seed);
	if (glob("/sys/bus/pci/drivers/balun-ivshmem/*:*/resource2", 0, NULL, &g))
		return 0;
	fd = open(g.gl_pathv[0], O_RDONLY);
	globfree(&g);
	if (fd < 0 || fstat(fd, &st))
		return 0;
	bar = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (bar == MAP_FAILED) {
		printf("the BAR: %s\n", strerror(errno));
		return 0;
	}
	for (at = 0; at < (size_t)st.st_size; at += PAGE)
		n += !memcmp(bar + at, want, PAGE);
	munmap(bar, st.st_size);
	return n;
}

/* the page moves there, by that way, and nothing else does */
static bool goes(const unsigned char *p, struct balun_device *dev, bool by_dma)
{
	uint64_t before = peer_bytes();

	return move(p, dev) && away(p) && peer_bytes() - before == (by_dma ? PAGE : 0);
}

static void edu_reads_the_other_ones_memory(void)
{
	struct balun_device *edu = begin_with(spec), *mem = begin_with("ivshmem");

	CHECK(edu && mem);
	fill(page(0), 1);
	CHECK(goes(page(0), mem, false));
	CHECK(in_bar(1) == 1);
	CHECK(goes(page(0), edu, reached));
	CHECK(holds(page(0), 1));
	CHECK(!balun_device_close(mem));
	CHECK(!balun_device_close(edu));
}

static void edu_writes_it(void)
{
	struct balun_device *edu = begin_with(spec), *mem = begin_with("ivshmem");

	CHECK(edu && mem);
	fill(page(0), 2);
	CHECK(goes(page(0), edu, false));
	CHECK(in_bar(2) == 0);
	CHECK(goes(page(0), mem, reached));
	CHECK(in_bar(2) == 1);
	CHECK(holds(page(0), 2));
	CHECK(!balun_device_close(edu));
	CHECK(!balun_device_close(mem));
}

/* each page has its place: one after the other goes through edu's only one */
static void many_pages_keep_their_places(void)
{
	struct balun_device *edu = begin_with(spec), *mem = begin_with("ivshmem");
	unsigned int i;

	CHECK(edu && mem);
	for (i = 0; i < PAGES; i++) {
		fill(page(i), 10 + i);
		CHECK(goes(page(i), edu, false));
		CHECK(goes(page(i), mem, reached));
	}
	for (i = 0; i < PAGES; i++)
		CHECK(in_bar(10 + i) == 1);
	for (i = 0; i < PAGES; i++) {
		CHECK(goes(page(i), edu, reached));
		CHECK(holds(page(i), 10 + i));
	}
	CHECK(!balun_device_close(edu));
	CHECK(!balun_device_close(mem));
}

/*
 * No copy that ivshmem's driver is asked for works. So what a page holds after it was there has
 * come and gone by edu's DMA; without that the page stays where it is.
 */
static void no_cpu_is_needed(void)
{
	struct balun_device *edu = begin_with(spec),
			    *mem = begin_with("inject(ivshmem):op=copy,every=1");

	CHECK(edu && mem);
	fill(page(0), 20);
	CHECK(!move(page(0), mem));
	CHECK(holds(page(0), 20));
	CHECK(goes(page(0), edu, false));
	if (reached) {
		CHECK(goes(page(0), mem, true));
		CHECK(in_bar(20) == 1);
		CHECK(goes(page(0), edu, true));
	} else {
		CHECK(!move(page(0), mem));
		CHECK(away(page(0)));
	}
	CHECK(holds(page(0), 20));
	CHECK(!balun_device_close(mem));
	CHECK(!balun_device_close(edu));
}

/* every second one of edu's copies fails, and the page stays where it is, and comes later */
static void failing_copies_lose_nothing(void)
{
	struct balun_device *edu, *mem = begin_with("ivshmem");
	unsigned int i, stayed = 0;
	char s[128];

	snprintf(s, sizeof(s), "inject(%s):op=copy_wait,every=2", spec);
	edu = begin_with(s);
	CHECK(edu && mem);
	for (i = 0; i < 4; i++) {
		fill(page(0), 30 + i);
		CHECK(move(page(0), mem));
		while (!move(page(0), edu))
			stayed++;
		while (!move(page(0), mem))
			stayed++;
		CHECK(holds(page(0), 30 + i));
	}
	printf("%s: stayed %u times\n", s, stayed);
	CHECK(stayed);
	CHECK(!balun_device_close(edu));
	CHECK(!balun_device_close(mem));
}

/* the BAR's pages end with the PCI driver's hold of the device, and begin anew */
static void bound_anew(void)
{
	const char driver[] = "/sys/bus/pci/drivers/balun-ivshmem";
	struct balun_device *dev = begin_with("ivshmem");
	char name[64], path[128];
	glob_t g;

	CHECK(dev && !balun_device_close(dev)); /* or unbinding it would wait for ever */
	snprintf(path, sizeof(path), "%s/*:*", driver);
	CHECK(!glob(path, 0, NULL, &g));
	snprintf(name, sizeof(name), "%s", strrchr(g.gl_pathv[0], '/') + 1);
	globfree(&g);
	snprintf(path, sizeof(path), "%s/unbind", driver);
	CHECK(ended(sysfs(path, name)));
	CHECK(!begin_with("ivshmem"));
	snprintf(path, sizeof(path), "%s/bind", driver);
	CHECK(ended(sysfs(path, name)));
	edu_reads_the_other_ones_memory();
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	spec = argv[1];
	reached = !strcmp(argv[2], "reached");
	if (!begin())
		return 1;
#define RUN(fn) run(#fn, fn)
	RUN(edu_reads_the_other_ones_memory);
	RUN(edu_writes_it);
	RUN(many_pages_keep_their_places);
	RUN(no_cpu_is_needed);
	RUN(failing_copies_lose_nothing);
	RUN(bound_anew);
	return end();
}
