// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the kernel says of a mapping: PROCMAP_QUERY where it is (6.11), the text of /proc/self/maps
 * otherwise. No malloc: the program's heap may be away. Also which memory belongs to loaded objects
 * (their data must never leave: libc's and the loader's are used while faults are served).
 */
#include <fcntl.h>
#include <link.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

/* open for the life of the context; they belong to this address space, a child closes them */
static int maps_fd = -1, pagemap_fd = -1;
static struct env_mutex refresh_lock, segments_lock;

int maps_open(void)
{
	/* the only space of the process: nobody holds it, unless a fork left it behind locked */
	env_mutex_init(&refresh_lock);
	env_mutex_init(&segments_lock);
	maps_fd = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	pagemap_fd = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
	return maps_fd < 0 || pagemap_fd < 0 ? -errno : 0;
}

void maps_close(void)
{
	close(maps_fd);
	close(pagemap_fd);
	maps_fd = pagemap_fd = -1;
}

bool maps_parse_line(const char *s, struct vma *v)
{
	unsigned long long a, b, off, inode;
	unsigned int maj, min;
	char perm[5];
	int n = 0;

	if (sscanf(s, "%llx-%llx %4s %llx %x:%x %llu %n", &a, &b, perm, &off, &maj, &min, &inode,
		   &n) < 7)
		return false;
	*v = (struct vma){ .start = a,
			   .end = b,
			   .read = perm[0] == 'r',
			   .write = perm[1] == 'w',
			   .shared = strlen(perm) == 4 && perm[3] == 's',
			   .file = inode != 0 || maj || min };
	v->special = s[n] == '[' && strncmp(s + n, "[heap]", 6) && strncmp(s + n, "[anon", 5);
	return true;
}

/* a name of a file can be longer than the buffer: what matters stands at the line's beginning */
int maps_find_text(ssize_t (*more)(void *arg, void *buf, size_t len), void *arg, uint64_t va,
		   struct vma *ret)
{
	bool rest = false; /* of a line that was looked at already */
	char buf[MAPS_TEXT_BUF];
	size_t have = 0;
	struct vma v;
	ssize_t got;

	while ((got = more(arg, buf + have, sizeof(buf) - 1 - have)) > 0) {
		char *line = buf, *nl;

		have += got;
		buf[have] = 0;
		while ((nl = memchr(line, '\n', buf + have - line)) || have == sizeof(buf) - 1) {
			if (nl)
				*nl = 0;
			else if (line > buf)
				break; /* make room for the rest of the line first */
			if (!rest && maps_parse_line(line, &v) && v.end > va) {
				*ret = v;
				return 0;
			}
			rest = !nl;
			line = nl ? nl + 1 : buf + have;
			if (!nl)
				break;
		}
		have -= line - buf;
		memmove(buf, line, have);
	}
	return -ENOENT;
}

static ssize_t more_of_file(void *arg, void *buf, size_t len)
{
	return read(*(int *)arg, buf, len);
}

static int query_text(uint64_t va, struct vma *ret)
{
	int fd = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC), err;

	if (fd < 0)
		return -ENOENT;
	err = maps_find_text(more_of_file, &fd, va, ret);
	close(fd);
	return err;
}

/* -ENOTTY: this kernel has no PROCMAP_QUERY */
static int query_ioctl(uint64_t va, struct vma *ret)
{
	char name[64] = "";
	struct procmap_query q = {
		.size = sizeof(q),
		.query_addr = va,
		.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
		.vma_name_addr = (uintptr_t)name,
		.vma_name_size = sizeof(name),
	};
	int err = 0;

	if (ioctl(maps_fd, PROCMAP_QUERY, &q)) {
		err = -errno;
		if (err == -ENAMETOOLONG) { /* only a file's name is that long */
			q.vma_name_size = 0;
			q.vma_name_addr = 0;
			err = ioctl(maps_fd, PROCMAP_QUERY, &q) ? -errno : 0;
			name[0] = 0;
		}
	}
	if (err)
		return err;
	*ret = (struct vma){ .start = q.vma_start,
			     .end = q.vma_end,
			     .read = q.vma_flags & PROCMAP_QUERY_VMA_READABLE,
			     .write = q.vma_flags & PROCMAP_QUERY_VMA_WRITABLE,
			     .shared = q.vma_flags & PROCMAP_QUERY_VMA_SHARED,
			     .file = q.inode != 0 || q.dev_major || q.dev_minor };
	ret->special = name[0] == '[' && strncmp(name, "[heap]", 6) && strncmp(name, "[anon", 5);
	return 0;
}

int maps_query(uint64_t va, struct vma *ret)
{
	int err = query_ioctl(va, ret);

	return err == -ENOTTY || err == -EINVAL ? query_text(va, ret) : err;
}

uint64_t maps_end(uint64_t va, uint64_t end)
{
	struct vma v;

	return maps_query(va, &v) || v.start > va ? end : ENV_MIN(end, v.end);
}

/* ---- loaded objects ---- */

#define OBJECT_SEGMENTS 1024

struct segment {
	uint64_t start, end;
};
/* what is known, under segments_lock; what is being read, under refresh_lock */
static struct segment segment[OBJECT_SEGMENTS], fresh[OBJECT_SEGMENTS];
static unsigned int nsegments;
static unsigned long long objects_seen; /* under refresh_lock */

static int add_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	unsigned int i, *n = arg;

	(void)size;
	for (i = 0; i < info->dlpi_phnum && *n < OBJECT_SEGMENTS; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_W))
			continue;
		fresh[*n].start = (info->dlpi_addr + p->p_vaddr) & ~(PAGE - 1);
		fresh[*n].end =
			(info->dlpi_addr + p->p_vaddr + p->p_memsz + PAGE - 1) & ~(PAGE - 1);
		++*n;
	}
	return 0;
}

static int count_objects(struct dl_phdr_info *info, size_t size, void *arg)
{
	if (size >= offsetof(struct dl_phdr_info, dlpi_subs))
		*(unsigned long long *)arg = info->dlpi_adds;
	return 1;
}

/*
 * A segment of an object that was unloaded stays in the list until the next load: its address is
 * then used in place, which is always right. Lock order: refresh_lock, then the loader's; nobody
 * takes refresh_lock inside the loader. The loader's own tables are in the program's heap and may
 * be away: never call this on the reader, or holding a lock that the reader takes, as segments_lock
 * is.
 */
void maps_refresh_objects(void)
{
	unsigned long long adds = 0;
	unsigned int n = 0;

	env_mutex_lock(&refresh_lock);
	dl_iterate_phdr(count_objects, &adds);
	if (!objects_seen || adds != objects_seen) {
		dl_iterate_phdr(add_object, &n);
		env_mutex_lock(&segments_lock);
		memcpy(segment, fresh, n * sizeof(*segment));
		nsegments = n;
		env_mutex_unlock(&segments_lock);
		objects_seen = adds;
	}
	env_mutex_unlock(&refresh_lock);
}

/* of [start, end): is its first page an object's, and up to where is the answer the same? */
bool maps_is_object(uint64_t start, uint64_t end, uint64_t *ret_until)
{
	bool object = false;
	unsigned int i;

	*ret_until = end;
	env_mutex_lock(&segments_lock);
	for (i = 0; i < nsegments && !object; i++) {
		if (segment[i].start <= start && start < segment[i].end) {
			object = true;
			*ret_until = ENV_MIN(end, segment[i].end);
		} else if (segment[i].start > start && segment[i].start < *ret_until) {
			*ret_until = segment[i].start;
		}
	}
	env_mutex_unlock(&segments_lock);
	return object;
}

/* ---- pages ---- */

#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)

#define PAGEMAP_GUARD (1ULL << 58) /* 6.15 */

int maps_holes(uint64_t va, unsigned int n, uint64_t *ret_bits, uint64_t *ret_guards)
{
	uint64_t entry[128];
	unsigned int i, k;

	memset(ret_bits, 0, sizeof(env_bits));
	memset(ret_guards, 0, sizeof(env_bits));
	for (i = 0; i < n; i += k) {
		ssize_t got;

		k = ENV_MIN(n - i, 128U);
		got = pread(pagemap_fd, entry, k * 8, ((va >> BALUN_PAGE_SHIFT) + i) * 8);
		if (got != (ssize_t)(k * 8))
			return -EFAULT;
		for (unsigned int j = 0; j < k; j++) {
			if (entry[j] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED))
				env_bit_set(ret_bits, i + j);
			if (entry[j] & PAGEMAP_GUARD)
				env_bit_set(ret_guards, i + j);
		}
	}
	return 0;
}

int maps_present(uint64_t va, unsigned int n, uint64_t *ret_bits)
{
	env_bits guards;

	return maps_holes(va, n, ret_bits, guards);
}

unsigned int maps_guard(uint64_t va, unsigned int n)
{
	env_bits present, guards;
	unsigned int i, k;

	for (i = 0; i < n; i += BALUN_BLOCK_PAGES) {
		k = ENV_MIN(n - i, (unsigned int)BALUN_BLOCK_PAGES);
		if (maps_holes(va + i * PAGE, k, present, guards))
			break;
		k = env_bits_next(guards, 0, true);
		if (k < BALUN_BLOCK_PAGES)
			return i + k;
	}
	return n;
}

#define PAGEMAP_FILE	  (1ULL << 61)
#define PAGEMAP_EXCLUSIVE (1ULL << 56)

static void look_entries(const uint64_t *entry, unsigned int n, uint8_t *ret_page)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		uint64_t e = entry[i];

		ret_page[i] = e & PAGEMAP_GUARD				? MAPS_GUARD
			      : e & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED) ? MAPS_HERE
									: 0;
		if (e & PAGEMAP_PRESENT && !(e & (PAGEMAP_FILE | PAGEMAP_EXCLUSIVE)))
			ret_page[i] |= MAPS_SHARED;
		if (e & PAGEMAP_FILE)
			ret_page[i] |= MAPS_CACHE;
	}
}

static void look_region(uint64_t va, unsigned int n, const struct page_region *r, uint8_t *ret_page)
{
	uint64_t end = ENV_MIN(r->end, va + n * PAGE), p;

	for (p = ENV_MAX(r->start, va); p < end; p += PAGE) {
		uint8_t *page = &ret_page[(p - va) >> BALUN_PAGE_SHIFT];

		if (r->categories & PAGE_IS_HUGE)
			*page |= MAPS_HUGE;
		if (r->categories & PAGE_IS_PFNZERO)
			*page = (*page & ~MAPS_SHARED) | MAPS_ZERO;
	}
}

int maps_look(uint64_t va, unsigned int n, uint8_t *ret_page)
{
	struct page_region region[16];
	uint64_t entry[128], end = va + n * PAGE;
	struct pm_scan_arg a = { .size = sizeof(a),
				 .start = va,
				 .end = end,
				 .vec = (uintptr_t)region,
				 .vec_len = 16,
				 .category_anyof_mask = PAGE_IS_HUGE | PAGE_IS_PFNZERO,
				 .return_mask = PAGE_IS_HUGE | PAGE_IS_PFNZERO };
	unsigned int i, k;
	int got;

	for (i = 0; i < n; i += k) {
		k = ENV_MIN(n - i, 128U);
		if (pread(pagemap_fd, entry, k * 8, ((va >> BALUN_PAGE_SHIFT) + i) * 8) !=
		    (ssize_t)(k * 8))
			return -EFAULT;
		look_entries(entry, k, ret_page + i);
	}
	for (; a.start < end; a.start = a.walk_end) {
		got = ioctl(pagemap_fd, PAGEMAP_SCAN, &a);
		if (got < 0)
			break; /* an older kernel */
		for (int j = 0; j < got; j++)
			look_region(va, n, &region[j], ret_page);
	}
	return 0;
}

bool maps_is_huge(uint64_t va)
{
	struct page_region r = { 0 };
	struct pm_scan_arg a = { .size = sizeof(a),
				 .start = va,
				 .end = va + PAGE,
				 .vec = (uintptr_t)&r,
				 .vec_len = 1,
				 .category_mask = PAGE_IS_HUGE,
				 .return_mask = PAGE_IS_HUGE };

	return ioctl(pagemap_fd, PAGEMAP_SCAN, &a) == 1;
}
