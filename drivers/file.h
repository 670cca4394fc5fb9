/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The driver file: what its two halves share. file.c has what a device is and what is done with its
 * holes, file_io.c what goes to and from the file.
 */
#ifndef BALUN_DRIVERS_FILE_H
#define BALUN_DRIVERS_FILE_H

#include <liburing.h>
#include <sys/types.h>

#include "balun/driver.h"
#include "env/env.h"

#define PAGE	 BALUN_PAGE_SIZE
#define NONE	 0ULL /* of a page: nothing was stored; */
#define ZERO	 1ULL /* zeros, which the file need not have; */
#define FAILED	 2ULL /* what a write that failed has left there; else its checksum */
#define NR_RINGS 8

struct ring {
	struct env_mutex lock;
	struct io_uring u;
	bool opened, works;
};

struct file {
	char path[512];
	int fd;
	dev_t st_dev;
	ino_t st_ino;
	uint64_t bytes, pages;
	bool uring, check, direct, block;
	uint64_t *sum;
	uint64_t bad; /* pages that read back wrong, each time; relaxed adds */
	struct ring ring[NR_RINGS];
	struct env_mutex bounce_lock; /* held over I/O; the last that is taken */
	char *bounce;		      /* a page */

	struct env_mutex lock;
	struct env_cond wake, punched;
	struct env_thread *thread;
	uint64_t *dead;		     /* a bit for each page */
	uint64_t ndead;		     /* bits set since the last pass */
	uint64_t punch, punch_pages; /* under way */
	bool no_punch, stop;
};

/* file.c: [page, page + n) is going to be written: from now on nothing punches it */
void file_claim(struct file *f, uint64_t page, uint64_t n);
/* out of the way of numbers that programs choose; the answer takes @fd's place */
int file_fd_high(int fd);

/* file_io.c: the rings, if there are any, else it says so and goes on without */
void file_rings_open(struct file *f);
void file_rings_close(struct file *f);
/* whether the number of the file is the file still */
bool file_fd_is_ours(const struct file *f);
/* one page, directly */
int file_rw_page(struct file *f, uint64_t page, void *mem, bool write);
/* a batch of copies, the ops of driver.h */
int file_run(struct file *f, const struct balun_copy *op, size_t n);

#endif
