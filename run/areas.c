// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The program's memory, as the kernel has it: anonymous private mappings that may be read and
 * written, without Balun's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "run/run.h"

#define AREAS 65536

/* Linux 6.7; Debian 12's headers do not have it */
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct scan_region {
	uint64_t start, end, categories;
};
#define SCAN	     _IOWR('f', 16, struct scan_arg)
#define SCAN_FILE    (1 << 2)
#define SCAN_PRESENT (1 << 3)

static struct area area[AREAS];
static char text[65536];
static bool no_scan; /* a kernel before 6.7 */
static bool named;   /* Balun's memory was seen by its name */

/* "start-end perms offset dev inode  name" */
static bool parse(const char *line, struct area *ret)
{
	char *s, *name;

	ret->start = strtoull(line, &s, 16);
	if (*s != '-')
		return false;
	ret->end = strtoull(s + 1, &s, 16);
	if (strncmp(s, " rw", 3) || s[4] != 'p')
		return false;
	s += 6;
	strtoull(s, &s, 16);	       /* offset */
	s = strchr(s + 1, ' ');	       /* device */
	if (!s || strtoull(s, &s, 10)) /* inode: a file's */
		return false;
	name = s + strspn(s, " ");
	return !*name || !strcmp(name, "[heap]") ||
	       (!strncmp(name, "[anon:", 6) && strncmp(name, "[anon:balun", 11));
}

/* Balun's own memory has a name where the kernel has names for anonymous memory; elsewhere it is
 * asked for */
static bool is_movable(const struct area *a)
{
	struct balun_extent e;
	size_t n = 0;

	return !run.space || named ||
	       (!balun_query(run.space, (void *)(uintptr_t)a->start, RUN_PAGE, &e, 1, &n) && n &&
		e.flags & BALUN_EXTENT_MOVABLE);
}

static unsigned int add(unsigned int n, const char *line)
{
	struct area a = { 0 };

	named |= strstr(line, "[anon:balun") != NULL;
	if (n == AREAS || !parse(line, &a) || !is_movable(&a))
		return n;
	if (n && area[n - 1].end == a.start)
		area[n - 1].end = a.end;
	else
		area[n++] = a;
	return n;
}

struct area *areas_read(unsigned int *ret_n)
{
	int fd = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	unsigned int n = 0;
	size_t have = 0;
	ssize_t got;

	if (fd < 0)
		return NULL;
	while ((got = read(fd, text + have, sizeof(text) - 1 - have)) > 0) {
		char *line = text, *end;

		have += got;
		text[have] = 0;
		while ((end = strchr(line, '\n'))) {
			*end = 0;
			n = add(n, line);
			line = end + 1;
		}
		have = text + have - line;
		memmove(text, line, have);
	}
	close(fd);
	*ret_n = n;
	return area;
}

/* ---- what is in RAM ---- */

static bool is_present(uint64_t entry)
{
	return entry >> 63 && !(entry >> 61 & 1); /* and no file's, nor shared */
}

/* until Linux 6.7: 8 bytes a page. At most @max bytes are found; *ret_first: the first, if any */
static uint64_t read_entries(int pagemap, uint64_t start, uint64_t end, uint64_t max,
			     uint64_t *ret_first)
{
	static uint64_t entry[512];
	uint64_t va = start, sum = 0;

	while (va < end && sum < max) {
		size_t n = (end - va) / RUN_PAGE, i;
		ssize_t got = pread(pagemap, entry, (n < 512 ? n : 512) * 8, va / RUN_PAGE * 8);

		if (got <= 0)
			break;
		for (i = 0; i < (size_t)got / 8; i++, va += RUN_PAGE) {
			if (!is_present(entry[i]))
				continue;
			if (!sum)
				*ret_first = va;
			sum += RUN_PAGE;
		}
	}
	return sum;
}

static uint64_t scan(uint64_t start, uint64_t end, uint64_t max, uint64_t *ret_first)
{
	static struct scan_region region[512];
	struct scan_arg a = {
		.size = sizeof(a),
		.start = start,
		.end = end,
		.vec = (uintptr_t)region,
		.vec_len = 512,
		.max_pages = max == UINT64_MAX ? 0 : max / RUN_PAGE,
		.category_inverted = SCAN_FILE,
		.category_mask = SCAN_PRESENT | SCAN_FILE,
		.return_mask = SCAN_PRESENT,
	};
	/* opened each time: a program may close what it does not know, and open something else */
	int i, n, pagemap = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t sum = 0;

	if (pagemap < 0)
		return 0;
	while (!no_scan && a.start < end && sum < max) {
		n = ioctl(pagemap, SCAN, &a);
		if (n < 0) {
			no_scan = errno == ENOTTY;
			break;
		}
		if (n && !sum)
			*ret_first = region[0].start;
		for (i = 0; i < n; i++)
			sum += region[i].end - region[i].start;
		if (a.walk_end <= a.start)
			break;
		a.start = a.walk_end;
	}
	if (no_scan)
		sum = read_entries(pagemap, start, end, max, ret_first);
	close(pagemap);
	return sum;
}

uint64_t areas_present(uint64_t start, uint64_t end)
{
	uint64_t first;

	return scan(start, end, UINT64_MAX, &first);
}

uint64_t areas_first(uint64_t start, uint64_t end)
{
	uint64_t first;

	return scan(start, end, RUN_PAGE, &first) ? first : end;
}

uint64_t areas_count(struct area *a, unsigned int n)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < n; i++)
		sum += a[i].present = areas_present(a[i].start, a[i].end);
	return sum;
}

/* statm: size resident shared text lib data dt, in pages */
void areas_usage(struct usage *ret)
{
	int fd = open("/proc/thread-self/statm", O_RDONLY | O_CLOEXEC);
	uint64_t n[6] = { 0 };
	char buf[128] = "", *s = buf;
	unsigned int i;

	if (fd >= 0 && read(fd, buf, sizeof(buf) - 1) > 0)
		for (i = 0; i < 6; i++)
			n[i] = strtoull(s, &s, 10);
	if (fd >= 0)
		close(fd);
	ret->rss = (n[1] - n[2]) * RUN_PAGE;
	ret->mapped = n[5] * RUN_PAGE;
}
