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
#include <sys/mman.h>
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

/* In Balun's table (own.c), where the program does not close them; and what it sets later for its
 * own (RLIMIT_NOFILE, another user) takes them away no more. */
static int maps = -1, pagemap = -1, statm = -1;

int areas_open(void)
{
	maps = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	pagemap = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
	statm = open("/proc/thread-self/statm", O_RDONLY | O_CLOEXEC);
	return maps < 0 || pagemap < 0 || statm < 0 ? -errno : 0;
}

static uint64_t balun; /* bytes of Balun's that were passed by */

/* "start-end perms offset dev inode  name"; false: no anonymous private memory that may be read
 * and written */
static bool parse(const char *line, struct area *ret, const char **ret_name)
{
	char *s;

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
	*ret_name = s + strspn(s, " ");
	return true;
}

/* Balun's own memory has a name where the kernel has names for anonymous memory; elsewhere it is
 * asked for */
static bool is_balun(const struct area *a, const char *name)
{
	struct balun_extent e;
	size_t n = 0;

	if (!strncmp(name, "[anon:balun", 11))
		return named = true;
	if (!run.space || named)
		return false;
	return balun_query(run.space, (void *)(uintptr_t)a->start, RUN_PAGE, &e, 1, &n) || !n ||
	       !(e.flags & BALUN_EXTENT_MOVABLE);
}

static unsigned int add(unsigned int n, const char *line)
{
	struct area a = { 0 };
	const char *name;

	if (n == AREAS || !parse(line, &a, &name))
		return n;
	if (is_balun(&a, name)) {
		balun += a.end - a.start;
		return n;
	}
	if (*name && strcmp(name, "[heap]") && strncmp(name, "[anon:", 6))
		return n;
	if (n && area[n - 1].end == a.start)
		area[n - 1].end = a.end;
	else
		area[n++] = a;
	return n;
}

struct area *areas_read(unsigned int *ret_n)
{
	unsigned int n = 0;
	size_t have = 0;
	ssize_t got;

	if (lseek(maps, 0, SEEK_SET))
		return NULL;
	balun = 0;
	while ((got = read(maps, text + have, sizeof(text) - 1 - have)) > 0) {
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
	*ret_n = n;
	return area;
}

/* ---- what is in RAM ---- */

static bool is_present(uint64_t entry)
{
	return entry >> 63 && !(entry >> 61 & 1); /* and no file's, nor shared */
}

/* until Linux 6.7: 8 bytes a page. At most @max bytes are found; *ret_first: the first, if any */
static uint64_t read_entries(uint64_t start, uint64_t end, uint64_t max, uint64_t *ret_first)
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

/* present, not a file's, and mapped by nobody else (since Linux 4.2) */
static bool is_own(uint64_t entry)
{
	return is_present(entry) && entry >> 56 & 1;
}

bool areas_own(uint64_t block)
{
	static uint64_t entry[RUN_BLOCK / RUN_PAGE];
	ssize_t got = pread(pagemap, entry, sizeof(entry), block / RUN_PAGE * 8);
	size_t i, k, n = got > 0 ? got / 8 : 0;
	bool any = false;

	for (i = 0; i < n; i = k + 1) {
		for (k = i; k < n && is_own(entry[k]); k++)
			;
		if (k > i)
			madvise((void *)(uintptr_t)(block + i * RUN_PAGE), (k - i) * RUN_PAGE,
				MADV_POPULATE_WRITE);
		any |= k > i;
	}
	return any;
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
	uint64_t sum = 0;
	int i, n;

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
		sum = read_entries(start, end, max, ret_first);
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

uint64_t areas_balun(void)
{
	return balun;
}

uint64_t areas_count(struct area *a, unsigned int n)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < n; i++)
		sum += a[i].present = areas_present(a[i].start, a[i].end);
	return sum;
}

/* statm: size resident shared text lib data dt, in pages. What cannot be read is as it was */
static void read_usage(int fd, struct usage *ret)
{
	char buf[128] = "", *s = buf;
	uint64_t n[6] = { 0 };
	unsigned int i;

	if (pread(fd, buf, sizeof(buf) - 1, 0) <= 0)
		return;
	for (i = 0; i < 6; i++)
		n[i] = strtoull(s, &s, 10);
	ret->rss = (n[1] - n[2]) * RUN_PAGE;
	ret->mapped = n[5] * RUN_PAGE;
}

void areas_usage(struct usage *ret)
{
	static struct usage last;

	read_usage(statm, &last);
	*ret = last;
}

uint64_t areas_rss(void)
{
	int fd = open("/proc/thread-self/statm", O_RDONLY | O_CLOEXEC);
	struct usage u = { 0 };

	if (fd >= 0) {
		read_usage(fd, &u);
		close(fd);
	}
	return u.rss;
}
