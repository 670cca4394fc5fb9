// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: file - device memory is a file without a name, or a block device
 *
 * A place in device memory is the same place in the file. The file is sparse: what was never
 * written takes nothing, and what is trimmed is punched out again. It has no name (O_TMPFILE), so
 * nothing is left of it however the process ends; a block device keeps what was written to it. I/O
 * goes by io_uring, or by pread and pwrite where there is none, and past the page cache (O_DIRECT)
 * where that works. No page tables, no processor; user space only.
 *
 * **Table**: 8 bytes a page, in memory that never migrates: NONE, ZERO (zeros, which the file need
 * not have), FAILED (nothing, but the file may have something), or a checksum over content and
 * place. A page that does not read back as it was written is -EIO: core asks again some times and
 * then loses that page, and no other.
 *
 * **Trim** may not wait for a file system, so it only notes the places (bits in @dead), and a
 * thread punches runs of them. A place may be given out again meanwhile. Its new content is safe:
 * who writes first takes the bits away, under @lock, and waits while a punch that overlaps is under
 * way; the thread takes bits away and says what it is going to punch in one hold of @lock. So a
 * punch and a write of one place never overlap, and a punch that begins after the write does not
 * have its bits.
 *
 * **Locks**: ring (for one copy()) > bounce_lock. @lock is a leaf: held for some instructions,
 * never over I/O.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "drivers/file.h"

#define RUN_PAGES   16	 /* shorter holes are not worth an extent each */
#define BATCH_PAGES 4096 /* so many are punched at once, fewer after a second */
#define BATCH_NS    1000000000ULL
#define SIGN_BYTES  (1 << 20)
#define FD_MIN	    700
#define MAX_BYTES   (1ULL << 40) /* more is no device's */

/* ---- holes ---- */

/* lock held, which is let go meanwhile */
static void punch(struct file *f, uint64_t page, uint64_t n)
{
	uint64_t i;
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	for (i = page; i < page + n; i++)
		env_bit_clear(f->dead, i);
	f->punch = page;
	f->punch_pages = n;
	env_mutex_unlock(&f->lock);
	if (syscall(SYS_fallocate, f->fd, mode, page * PAGE, n * PAGE) &&
	    (errno == EOPNOTSUPP || errno == ENOSYS))
		env_store_relaxed(&f->no_punch, true);
	env_mutex_lock(&f->lock);
	f->punch_pages = 0;
	env_cond_wake(&f->punched);
}

/* the runs of one block, 512 pages from @page on; lock held */
static void punch_block(struct file *f, uint64_t page)
{
	const uint64_t *bits = f->dead + page / 64;
	unsigned int from = 0, to;

	for (;;) {
		from = env_bits_next(bits, from, true);
		if (from >= BALUN_BLOCK_PAGES || f->stop || f->no_punch)
			return;
		to = env_bits_next(bits, from, false);
		if (to - from >= RUN_PAGES)
			punch(f, page + from, to - from);
		from = to;
	}
}

static void punch_thread(void *arg)
{
	struct file *f = arg;
	uint64_t page;

	env_mutex_lock(&f->lock);
	while (!f->stop) {
		if (!f->ndead) {
			env_cond_wait(&f->wake, &f->lock, ENV_FOREVER);
			continue;
		}
		if (f->ndead < BATCH_PAGES)
			env_cond_wait(&f->wake, &f->lock, BATCH_NS);
		f->ndead = 0;
		for (page = 0; page < f->pages; page += BALUN_BLOCK_PAGES) {
			punch_block(f, page);
			/* others want it too */
			env_mutex_unlock(&f->lock);
			env_mutex_lock(&f->lock);
		}
	}
	env_mutex_unlock(&f->lock);
}

static void file_trim(void *priv, uint64_t off, uint64_t len)
{
	struct file *f = priv;
	uint64_t page, had, n = 0;

	env_mutex_lock(&f->lock);
	for (page = off / PAGE; page < (off + len) / PAGE; page++) {
		if (f->sum[page] > ZERO && !f->no_punch) {
			env_bit_set(f->dead, page);
			n++;
		}
		if (f->sum[page] != NONE)
			f->sum[page] = NONE;
	}
	had = f->ndead;
	f->ndead += n;
	if (n && (!had || (had < BATCH_PAGES && f->ndead >= BATCH_PAGES)))
		env_cond_wake(&f->wake);
	env_mutex_unlock(&f->lock);
}

void file_claim(struct file *f, uint64_t page, uint64_t n)
{
	uint64_t i;

	env_mutex_lock(&f->lock);
	while (f->punch_pages && f->punch < page + n && page < f->punch + f->punch_pages)
		env_cond_wait(&f->punched, &f->lock, ENV_FOREVER);
	for (i = page; i < page + n; i++)
		env_bit_clear(f->dead, i);
	env_mutex_unlock(&f->lock);
}

/* ---- open and close ---- */

static int refuse(const struct file *f, const char *what, int err)
{
	env_reason("file: %s: %s: %s", f->path, what, strerror(err));
	return -ENODEV;
}

/* Programs use small numbers as they like, and dup2() asks nobody. */
int file_fd_high(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);

	if (high < 0)
		return fd;
	close(fd);
	return high;
}

/* a file system without O_TMPFILE: for a moment it has a name */
static int open_named(struct file *f)
{
	char name[sizeof(f->path) + 16];
	int fd;

	snprintf(name, sizeof(name), "%s/balun-XXXXXX", f->path);
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return -1;
	unlink(name);
	env_log(1, "file: %s: the file system has no O_TMPFILE, %s is unlinked", f->path, name);
	return fd;
}

static int open_folder(struct file *f, const struct balun_options *opt, uint64_t size)
{
	struct rlimit lim;

	f->bytes = size ? size : 8ULL << 30;
	/* beyond it there would be a signal */
	if (!getrlimit(RLIMIT_FSIZE, &lim) && lim.rlim_cur < f->bytes)
		return balun_opt_fail(opt, "size",
				      "is more than this process may write (ulimit -f)");
	f->fd = open(f->path, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
	if (f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT))
		f->fd = open_named(f);
	return f->fd < 0 ? refuse(f, "no file can be made there", errno) : 0;
}

/* something at the beginning or the end: a file system, partitions, a header of any kind */
static bool block_is_used(struct file *f, uint64_t size)
{
	char *buf = balun_mem_alloc(SIGN_BYTES);
	uint64_t at[] = { 0, size - SIGN_BYTES };
	bool used = !buf;
	unsigned int i;

	for (i = 0; i < 2 && !used; i++)
		used = pread(f->fd, buf, SIGN_BYTES, at[i]) != SIGN_BYTES || *buf ||
		       memcmp(buf, buf + 1, SIGN_BYTES - 1);
	balun_mem_free(buf, SIGN_BYTES);
	return used;
}

static int open_block(struct file *f, const struct balun_options *opt, uint64_t size, bool force)
{
	uint64_t have;

	/* O_EXCL: nobody has it mounted, swaps to it or builds on it */
	f->fd = open(f->path, O_RDWR | O_EXCL | O_CLOEXEC);
	if (f->fd < 0 && errno == EBUSY)
		return balun_opt_fail(opt, "path",
				      "the block device is in use (mounted, swap, ...)");
	if (f->fd < 0 || ioctl(f->fd, BLKGETSIZE64, &have))
		return refuse(f, "the block device cannot be opened", errno);
	f->bytes = size ? size : ENV_MIN(have, MAX_BYTES) & ~(BALUN_BLOCK_SIZE - 1);
	if (!f->bytes || f->bytes > have)
		return balun_opt_fail(opt, "size", "is more than the block device has");
	if (!force && block_is_used(f, have))
		return balun_opt_fail(opt, "path",
				      "the block device has something at its beginning or end; "
				      "force=1 overwrites it");
	return 0;
}

/* a page there and back; then zeros, as on a block device that nobody has used. 0 or -errno */
static int try_page(struct file *f)
{
	char *p = balun_mem_alloc(2 * PAGE);
	int err = -ENOMEM;

	if (p) {
		memset(p, 0x5a, PAGE);
		err = file_rw_page(f, 0, p, true);
		if (!err)
			err = file_rw_page(f, 0, p + PAGE, false);
		if (!err && memcmp(p, p + PAGE, PAGE))
			err = -EIO;
		memset(p, 0, PAGE);
		if (!err)
			err = file_rw_page(f, 0, p, true);
	}
	balun_mem_free(p, 2 * PAGE);
	return err;
}

/* past the page cache if that works, or must */
static int probe(struct file *f, const char *direct)
{
	int flags = fcntl(f->fd, F_GETFL), err = 0;
	bool on = *direct != '0';

	if (on)
		err = fcntl(f->fd, F_SETFL, flags | O_DIRECT) ? -errno : try_page(f);
	if (on && err && *direct == '1')
		return refuse(f, "O_DIRECT does not work", -err);
	if (on && err) {
		on = false;
		fcntl(f->fd, F_SETFL, flags);
	}
	if (!on)
		err = try_page(f);
	if (err)
		return refuse(f, "a page cannot be written", -err);
	f->direct = on;
	env_log(2, "file: %s: %s the page cache", f->path, on ? "past" : "through");
	return 0;
}

static int open_path(struct file *f, const struct balun_options *opt, const char *direct)
{
	uint64_t size, force;
	struct stat st;
	int err = balun_opt_size(opt, "size", 0, &size);

	if (!err)
		err = balun_opt_size(opt, "force", 0, &force);
	if (err)
		return err;
	if (size % BALUN_BLOCK_SIZE || size > MAX_BYTES)
		return balun_opt_fail(opt, "size", "must be a multiple of 2M, at most 1024G");
	if (force > 1)
		return balun_opt_fail(opt, "force", "must be 0 or 1");
	if (stat(f->path, &st))
		return balun_opt_fail(opt, "path", strerror(errno));
	if (S_ISDIR(st.st_mode))
		err = open_folder(f, opt, size);
	else if (S_ISBLK(st.st_mode))
		err = open_block(f, opt, size, force);
	else
		err = balun_opt_fail(opt, "path", "must be a folder or a block device");
	if (f->fd < 0)
		return err;
	f->fd = file_fd_high(f->fd);
	fstat(f->fd, &st);
	f->st_dev = st.st_dev;
	f->st_ino = st.st_ino;
	f->block = S_ISBLK(st.st_mode);
	if (!err)
		err = probe(f, direct);
	if (!err && S_ISREG(st.st_mode) && (ftruncate(f->fd, 0) || ftruncate(f->fd, f->bytes)))
		err = refuse(f, "a file of that size", errno);
	return err;
}

static int file_parse(struct file *f, const struct balun_options *opt, const char **ret_direct)
{
	const char *tmp = getenv("TMPDIR");
	const char *path = balun_opt_str(opt, "path", tmp && *tmp ? tmp : "/var/tmp");
	uint64_t check, uring;
	int err = balun_opt_size(opt, "check", 1, &check);

	if (!err)
		err = balun_opt_size(opt, "uring", 1, &uring);
	if (err)
		return err;
	if (check > 1)
		return balun_opt_fail(opt, "check", "must be 0 or 1");
	if (uring > 1)
		return balun_opt_fail(opt, "uring", "must be 0 or 1");
	f->check = check;
	f->uring = uring;
	*ret_direct = balun_opt_str(opt, "direct", "auto");
	if (strcmp(*ret_direct, "auto") && strcmp(*ret_direct, "0") && strcmp(*ret_direct, "1"))
		return balun_opt_fail(opt, "direct", "must be auto, 0 or 1");
	if (snprintf(f->path, sizeof(f->path), "%s", path) >= (int)sizeof(f->path))
		return balun_opt_fail(opt, "path", "is too long");
	return 0;
}

static void file_free(struct file *f)
{
	file_rings_close(f);
	if (f->fd >= 0 && file_fd_is_ours(f)) {
		/* children that the program has made have it open too */
		if (!f->block && ftruncate(f->fd, 0))
			env_log(2, "file: %s: not cut: %s", f->path, strerror(errno));
		close(f->fd);
	}
	balun_mem_free(f->sum, f->pages * sizeof(*f->sum));
	balun_mem_free(f->dead, f->pages / 8);
	balun_mem_free(f->bounce, PAGE);
	balun_mem_free(f, sizeof(*f));
}

static int file_start(struct file *f)
{
	f->pages = f->bytes / PAGE;
	f->sum = balun_mem_alloc(f->pages * sizeof(*f->sum));
	f->dead = balun_mem_alloc(f->pages / 8);
	f->bounce = balun_mem_alloc(PAGE);
	if (!f->sum || !f->dead || !f->bounce)
		return -ENOMEM;
	env_mutex_init(&f->bounce_lock);
	file_rings_open(f);
	env_mutex_init(&f->lock);
	env_cond_init(&f->wake);
	env_cond_init(&f->punched);
	return env_thread_create(&f->thread, "file-punch", punch_thread, f);
}

static int file_open(struct balun_device *dev, const struct balun_options *opt,
		     struct balun_desc *ret_desc, void **ret_priv)
{
	struct file *f = balun_mem_alloc(sizeof(*f));
	const char *direct = NULL;
	int err;

	if (!f)
		return -ENOMEM;
	f->fd = -1;
	err = file_parse(f, opt, &direct);
	if (!err)
		err = open_path(f, opt, direct);
	if (!err)
		err = file_start(f);
	if (err) {
		file_free(f);
		return err;
	}
	ret_desc->mem_bytes = f->bytes;
	*ret_priv = f;
	return 0;
}

static void file_close(void *priv)
{
	struct file *f = priv;

	env_mutex_lock(&f->lock);
	f->stop = true;
	env_cond_wake(&f->wake);
	env_mutex_unlock(&f->lock);
	env_thread_join(f->thread);
	file_free(f);
}

static int file_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void file_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		       enum balun_cause cause)
{
}

/* Done when this returns: there is nothing to wait for. */
static int file_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	int err = file_run(priv, op, n);

	if (!err)
		*ret_cookie = 0;
	return err;
}

static int file_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

extern const struct balun_driver balun_file_driver;
const struct balun_driver balun_file_driver = {
	.size = sizeof(struct balun_driver),
	.name = "file",
	.help = "path=/var/tmp  a folder, for a file without a name ($TMPDIR before the default), "
		"or"
		" a block device\n"
		"size=8G  device memory, a multiple of 2M; of a block device all of it, up to "
		"1024G\n"
		"direct=auto  past the page cache: 0, 1, or auto: where that works\n"
		"check=1  0: no checksums\n"
		"uring=1  0: pread and pwrite\n"
		"force=0  1: a block device whatever is on it\n",
	.open = file_open,
	.close = file_close,
	.map = file_map,
	.unmap = file_unmap,
	.copy = file_copy,
	.copy_wait = file_copy_wait,
	.trim = file_trim,
};
