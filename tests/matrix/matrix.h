/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: matrix.h - named cells: what a program does, times the state its memory is in
 *
 * A cell runs in a process of its own and sees Balun as any application does: include/balun/ and
 * libbalun. The runner makes a space and one device for it (unless MX_NO_SPACE), runs fn, and
 * prints one line with its name. What the memory must hold is a function of its address and of a
 * generation, so that any process can check every byte without having been told.
 *
 * MX_CHECK* and mx_skip() end the process. The first verdict of any process or thread of the cell
 * counts; a process that the cell makes must be waited for (mx_reap()), so that its crash counts
 * too.
 */
#ifndef BALUN_MATRIX_H
#define BALUN_MATRIX_H

#include "balun/balun.h"
#include "balun/driver.h"
#include "balun/soft.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#if defined(__SANITIZE_THREAD__)
#define MX_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define MX_ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MX_TSAN 1
#elif __has_feature(address_sanitizer)
#define MX_ASAN 1
#endif
#endif
#ifndef MX_TSAN
#define MX_TSAN 0
#endif
#ifndef MX_ASAN
#define MX_ASAN 0
#endif

#define PAGE BALUN_PAGE_SIZE
#define MIB  (1UL << 20)

struct mx_cell;

/**
 * struct mx - a running cell
 * @driver: spec of the device
 * @copying: pages are copied out, not moved (a kernel before 6.8, or BALUN_UFFD_COPY)
 * @space, @dev: NULL with MX_NO_SPACE
 */
struct mx {
	const struct mx_cell *cell;
	const char *driver;
	bool copying;
	struct balun_space *space;
	struct balun_device *dev;
};

/* a kernel before 6.6: what is lost is SIGSEGV on touch, until it is unmapped */
bool mx_no_poison(void);

#define MX_NO_SPACE   (1u << 0) /* makes its own */
#define MX_FORK	      (1u << 1) /* forks a process with threads: not under TSan */
#define MX_SOFT	      (1u << 2) /* launches functions: the device must be soft */
#define MX_FORK_EVENT (1u << 3) /* a bare clone(): needs the event of a fork */
#define MX_KERNEL     (1u << 4) /* the kernel itself reaches for away memory */
#define MX_USER	      (1u << 5) /* as a user to whom userfaultfd is for user mode only */
#define MX_POISON     (1u << 6) /* needs UFFDIO_POISON */

/**
 * struct mx_cell - a cell
 * @name: GROUP/WHAT[/STATE]; the driver is added when it is printed
 * @fn: returns if all is well
 * @a, @b: for fn
 * @flags: MX_*
 */
struct mx_cell {
	const char *name;
	void (*fn)(struct mx *m);
	int a, b;
	unsigned int flags;
};

/* one table per file, ended by a cell without a name; the list of them: matrix.c */
extern const struct mx_cell cells_fork[], cells_threads[], cells_syscalls[], cells_outside[],
	cells_loss[];

void mx_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
void mx_skip(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#define MX_CHECK(cond)                                                                             \
	do {                                                                                       \
		if (!(cond))                                                                       \
			mx_fail(__FILE__, __LINE__, "%s (errno: %s)", #cond, strerror(errno));     \
	} while (0)
#define MX_CHECK_EQ(a, b)                                                                          \
	do {                                                                                       \
		long long a_ = (long long)(a), b_ = (long long)(b);                                \
		if (a_ != b_)                                                                      \
			mx_fail(__FILE__, __LINE__, "%s is %lld, not %s (%lld)", #a, a_, #b, b_);  \
	} while (0)
/* of a call into Balun: 0, or the reason is reported */
#define MX_OK(call)                                                                                \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		if (rc_)                                                                           \
			mx_fail(__FILE__, __LINE__, "%s is %d (%s): %s", #call, rc_,               \
				strerror(rc_ < 0 ? -rc_ : rc_), balun_reason());                   \
	} while (0)

/* ---- space and device ---- */

/* what the runner does before fn; a forked child calls it to mirror itself */
void mx_open(struct mx *m);
/* what it does after fn: everything must come home without a loss */
void mx_close(struct mx *m);
bool mx_has_functions(const struct mx *m); /* the device runs balun_soft_launch() */

/* ---- memory ---- */

/* anonymous, private, read-write, zero, begins at a block; mapped until the process ends */
void *mx_map(size_t len);
/* the word at @va in generation @gen; MX_ZEROS: 0 */
#define MX_ZEROS UINT64_MAX
uint64_t mx_word(uint64_t va, uint64_t gen);
void mx_fill(void *p, size_t len, uint64_t gen);
/* every byte of [p, p + len) */
#define mx_verify(p, len, gen) mx_verify_at(__FILE__, __LINE__, p, p, len, gen)
/* bytes that were copied from @origin to @p (read from a file, another process) */
#define mx_verify_copy(p, origin, len, gen) mx_verify_at(__FILE__, __LINE__, p, origin, len, gen)
void mx_verify_at(const char *file, int line, const void *p, const void *origin, size_t len,
		  uint64_t gen);
/* as mx_fill(), but by the device */
void mx_device_fill(struct mx *m, void *p, size_t len, uint64_t gen);
/* balun_migrate() until every page is there (dev NULL: home); busy ones are tried again */
#define mx_move(m, p, len, dev) mx_move_at(__FILE__, __LINE__, m, p, len, dev)
void mx_move_at(const char *file, int line, struct mx *m, const void *p, size_t len,
		struct balun_device *dev);
/* mx_map() + mx_fill() + mx_move() to the device */
void *mx_away(struct mx *m, size_t len, uint64_t gen);
/* pages of the range on a device */
size_t mx_pages_away(struct mx *m, const void *p, size_t len);

/* ---- processes and threads ---- */

/* waits for a child, which must exit with 0 */
#define mx_reap(pid) mx_reap_at(__FILE__, __LINE__, pid)
void mx_reap_at(const char *file, int line, pid_t pid);
pthread_t mx_thread(void *(*fn)(void *), void *arg);
void mx_join(pthread_t t);

/* run in a program that a cell executes: `matrix --exec ARG...`; returns its exit status */
int mx_exec_main(int argc, char **argv);

#endif
