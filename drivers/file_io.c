// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The driver file (file.c): extents to and from the file, by io_uring or by system calls, and the
 * checksums over them. All runs on any thread, also while memory of the program is away: nothing
 * here allocates.
 */
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "drivers/file.h"

#define RING_DEPTH   64
#define RING_LOST_NS 10000000000ULL

/* ---- one extent of a file ---- */

struct extent {
	uint64_t page, npages;
	char *mem;
	bool write;
};

/* the program has not closed the file and got another one of the same number */
bool file_fd_is_ours(const struct file *f)
{
	struct stat st;

	return !fstat(f->fd, &st) && st.st_dev == f->st_dev && st.st_ino == f->st_ino;
}

/* The system call itself: libc's functions are points where a thread may be cancelled. */
static int rw_straight(struct file *f, const struct extent *x, uint64_t done)
{
	uint64_t len = x->npages * PAGE, off = x->page * PAGE;
	long n;

	while (done < len) {
		n = syscall(x->write ? SYS_pwrite64 : SYS_pread64, f->fd, x->mem + done, len - done,
			    off + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EFBIG || errno == EDQUOT ? -ENOSPC : -errno;
		if (!n)
			return -EIO; /* somebody has cut the file */
		done += n;
	}
	return 0;
}

/* O_DIRECT wants aligned memory. The frames of the engine sim are not; all others are pages. */
static bool rw_can(const struct file *f, const struct extent *x)
{
	return !f->direct || (uintptr_t)x->mem % PAGE == 0;
}

static int rw_bounced(struct file *f, const struct extent *x)
{
	uint64_t i;
	int err = 0;

	env_mutex_lock(&f->bounce_lock);
	for (i = 0; i < x->npages && !err; i++) {
		struct extent one = { x->page + i, 1, f->bounce, x->write };

		if (x->write)
			memcpy(f->bounce, x->mem + i * PAGE, PAGE);
		err = rw_straight(f, &one, 0);
		if (!x->write)
			memcpy(x->mem + i * PAGE, f->bounce, PAGE);
	}
	env_mutex_unlock(&f->bounce_lock);
	return err;
}

/* what is left of an extent of which the first @done bytes are done */
static int rw(struct file *f, const struct extent *x, uint64_t done)
{
	if (!x->npages)
		return 0;
	if (!file_fd_is_ours(f))
		return -ENODEV;
	return rw_can(f, x) ? rw_straight(f, x, done) : rw_bounced(f, x);
}

int file_rw_page(struct file *f, uint64_t page, void *mem, bool write)
{
	struct extent x = { .page = page, .npages = 1, .mem = mem, .write = write };

	return rw(f, &x, 0);
}

/* never NONE, ZERO or FAILED; with check=0 it only says that there is something */
static uint64_t checksum(const struct file *f, uint64_t page, const void *mem)
{
	uint64_t sum = f->check ? XXH3_64bits_withSeed(mem, PAGE, page) : 0;

	return sum <= FAILED ? FAILED + 1 : sum;
}

static void extent_sum(struct file *f, const struct extent *x)
{
	uint64_t i;

	for (i = 0; i < x->npages; i++)
		f->sum[x->page + i] = checksum(f, x->page + i, x->mem + i * PAGE);
}

static int extent_verify(struct file *f, const struct extent *x)
{
	uint64_t i, sum;

	for (i = 0; i < x->npages; i++) {
		char *mem = x->mem + i * PAGE;

		sum = f->sum[x->page + i];
		if (sum == ZERO)
			memset(mem, 0, PAGE);
		else if (sum == NONE || sum == FAILED)
			return -EIO;
		else if (f->check && checksum(f, x->page + i, mem) != sum)
			goto bad;
	}
	return 0;
bad:
	if (!env_add(&f->bad, 1))
		env_log(0,
			"file: %s: a page at offset %llu reads back otherwise than it was written",
			f->path, (unsigned long long)((x->page + i) * PAGE));
	return -EIO;
}

/* the I/O is over, for an extent that is written or read; @err: its */
static int extent_end(struct file *f, const struct extent *x, int err)
{
	uint64_t i;

	if (!x->write)
		return err ? err : extent_verify(f, x);
	for (i = 0; err && i < x->npages; i++)
		f->sum[x->page + i] = FAILED;
	return err;
}

static bool all_zero(const struct file *f, const struct extent *x)
{
	uint64_t i = 0;

	while (i < x->npages && f->sum[x->page + i] == ZERO)
		i++;
	return i == x->npages;
}

/* what an op asks of the file: *x has no pages if that is nothing. 0, or it cannot be done */
static int extent_of(struct file *f, const struct balun_copy *op, struct extent *x)
{
	bool write = op->dst_kind == BALUN_KIND_LOCAL;
	uint64_t page = (write ? op->dst : op->src) / PAGE, n = op->len / PAGE;

	*x = (struct extent){ .page = page, .write = write };
	if (write && op->src_kind == BALUN_KIND_ZERO) {
		for (; n; n--)
			f->sum[page++] = ZERO;
		return 0;
	}
	if (op->dst_kind + op->src_kind != BALUN_KIND_LOCAL + BALUN_KIND_SYSTEM)
		return -EOPNOTSUPP;
	x->mem = balun_bus_ptr(write ? op->src : op->dst, op->len);
	x->npages = n;
	if (write) {
		file_claim(f, page, n);
		extent_sum(f, x);
	} else if (all_zero(f, x)) {
		memset(x->mem, 0, op->len);
		x->npages = 0;
	}
	return 0;
}

/* ---- io_uring ---- */

static void ring_queue(struct ring *r, struct extent *x)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);

	/* by its index in the ring, so that the number may come to mean another file */
	if (x->write)
		io_uring_prep_write(sqe, 0, x->mem, x->npages * PAGE, x->page * PAGE);
	else
		io_uring_prep_read(sqe, 0, x->mem, x->npages * PAGE, x->page * PAGE);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, x);
}

/* the one that is done; what it left over is done here and now, which also tells its error */
static int ring_reap(struct file *f, struct io_uring_cqe *cqe, struct extent **ret_x)
{
	struct extent *x = io_uring_cqe_get_data(cqe);
	uint64_t done = ENV_MAX(cqe->res, 0);

	*ret_x = x;
	return extent_end(f, x, done == x->npages * PAGE ? 0 : rw(f, x, done));
}

/*
 * The ring does not take orders any more (somebody has closed its file). What the kernel has begun
 * must be over before the memory is used otherwise; then all that is left is done without the ring.
 */
static int ring_lost(struct file *f, struct ring *r, struct extent *x, unsigned int queued)
{
	unsigned int begun = queued - io_uring_sq_ready(&r->u), i;
	uint64_t end = env_now_ns() + RING_LOST_NS;
	struct io_uring_cqe *cqe;
	int err = 0, one;

	r->works = false;
	env_log(1, "file: %s: io_uring has ended, going on with pread and pwrite", f->path);
	while (begun) {
		if (!io_uring_peek_cqe(&r->u, &cqe)) {
			io_uring_cqe_seen(&r->u, cqe);
			begun--;
		} else if (env_now_ns() > end) {
			return -ENODEV;
		} else {
			env_yield();
		}
	}
	for (i = 0; i < RING_DEPTH; i++) {
		one = x[i].npages ? extent_end(f, &x[i], rw(f, &x[i], 0)) : 0;
		err = err ? err : one;
	}
	return err;
}

/* an extent of @x is in use while it has pages */
static struct extent *extent_get(struct extent *x)
{
	while (x->npages)
		x++;
	return x;
}

/* *ret_n: how many ops the answer is about; fewer than @n only if the ring has ended */
static int ring_run(struct file *f, struct ring *r, const struct balun_copy *op, size_t n,
		    size_t *ret_n)
{
	struct extent x[RING_DEPTH] = { 0 }, *e;
	struct io_uring_cqe *cqe;
	unsigned int queued = 0;
	int err = 0, one;
	size_t i = 0;

	while (((i < n && !err) || queued) && r->works) {
		while (i < n && !err && queued < RING_DEPTH) {
			e = extent_get(x);
			err = extent_of(f, &op[i++], e);
			if (e->npages && rw_can(f, e)) {
				ring_queue(r, e);
				queued++;
			} else {
				err = err ? err : extent_end(f, e, rw(f, e, 0));
				e->npages = 0;
			}
		}
		one = queued ? io_uring_submit_and_wait(&r->u, 1) : 0;
		if (one < 0 && one != -EINTR) {
			one = ring_lost(f, r, x, queued);
			err = err && one != -ENODEV ? err : one;
		}
		while (r->works && queued && !io_uring_peek_cqe(&r->u, &cqe)) {
			one = ring_reap(f, cqe, &e);
			err = err ? err : one;
			e->npages = 0;
			io_uring_cqe_seen(&r->u, cqe);
			queued--;
		}
	}
	*ret_n = i;
	return err;
}

static struct ring *ring_get(struct file *f)
{
	/* where the caller's stack is tells callers apart well enough */
	uintptr_t first = (uintptr_t)__builtin_frame_address(0) >> 13;
	struct ring *r = &f->ring[first % NR_RINGS];
	unsigned int i;

	for (i = 0; i < NR_RINGS; i++) {
		if (env_mutex_trylock(&f->ring[(first + i) % NR_RINGS].lock))
			return &f->ring[(first + i) % NR_RINGS];
	}
	env_mutex_lock(&r->lock);
	return r;
}

/* Beyond the limit that the program has set itself by now a write would be its end (SIGXFSZ). */
static bool beyond_limit(const struct balun_copy *op, size_t n)
{
	struct rlimit lim;
	size_t i;

	if (getrlimit(RLIMIT_FSIZE, &lim) || lim.rlim_cur == RLIM_INFINITY)
		return false;
	for (i = 0; i < n; i++)
		if (op[i].dst_kind == BALUN_KIND_LOCAL && op[i].dst + op[i].len > lim.rlim_cur)
			return true;
	return false;
}

int file_run(struct file *f, const struct balun_copy *op, size_t n)
{
	struct ring *r;
	struct extent x;
	size_t i = 0;
	int err = 0;

	if (!f->block && beyond_limit(op, n))
		return -ENOSPC;
	/* one alone has nothing to overlap with, and the system call is shorter: a touched page */
	r = f->uring && n > 1 ? ring_get(f) : NULL;
	if (r && r->works)
		err = ring_run(f, r, op, n, &i);
	if (r)
		env_mutex_unlock(&r->lock);
	for (; i < n && !err; i++) {
		err = extent_of(f, &op[i], &x);
		err = err ? err : extent_end(f, &x, rw(f, &x, 0));
	}
	return err;
}

/* ---- open and close ---- */

static int ring_open(struct file *f, struct ring *r)
{
	int err = io_uring_queue_init(RING_DEPTH, &r->u, IORING_SETUP_COOP_TASKRUN);

	if (err == -EINVAL) /* before 5.19 */
		err = io_uring_queue_init(RING_DEPTH, &r->u, 0);
	if (err)
		return err;
	io_uring_ring_dontfork(&r->u);
	err = io_uring_register_files(&r->u, &f->fd, 1);
	if (err) {
		io_uring_queue_exit(&r->u);
		return err;
	}
	r->u.ring_fd = r->u.enter_ring_fd = file_fd_high(r->u.ring_fd);
	r->opened = r->works = true;
	return 0;
}

void file_rings_open(struct file *f)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < NR_RINGS; i++) {
		env_mutex_init(&f->ring[i].lock);
		if (f->uring && !err)
			err = ring_open(f, &f->ring[i]);
	}
	if (!err)
		return;
	env_log(1, "file: %s: no io_uring (%s), pread and pwrite instead", f->path, strerror(-err));
	if (!f->ring[0].works)
		f->uring = false;
}

void file_rings_close(struct file *f)
{
	unsigned int i;

	for (i = 0; i < NR_RINGS; i++) {
		if (!f->ring[i].opened)
			continue;
		/*
		 * A ring ends some time after its exit, and would hold the file open till then.
		 * Where that fails the number is another file's by now, and not ours to close.
		 */
		if (io_uring_unregister_files(&f->ring[i].u))
			f->ring[i].u.ring_fd = -1;
		io_uring_queue_exit(&f->ring[i].u);
	}
}
