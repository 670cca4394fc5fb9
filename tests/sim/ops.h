/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* ops.h - the operations of a schedule while it runs, between ops.c, ops_memory.c and run.c */
#ifndef BALUN_SIM_OPS_H
#define BALUN_SIM_OPS_H

#include "tests/sim/schedule.h"

#define MAX_PINS 64

struct range {
	uint64_t va, len;
	unsigned int first, n; /* pages of the model */
};

/* the handle of a device and who uses it: closing waits for them, as an application must */
struct handle {
	struct balun_device *dev;
	unsigned int users;
	bool closing, closed; /* now; ever */
};

struct world {
	const struct schedule *s;
	struct balun_space *space;
	struct handle handle[DEVICES];
	struct env_mutex lock;
	struct env_cond quiet; /* go; a handle's users went down */
	struct range pin[MAX_PINS];
	unsigned int npins;
	unsigned int pinned[PAGES],
		pin_change[PAGES]; /* pins of a page; times it was, or was not */
	uint64_t next_value;
	bool alone;  /* the threads are done: nobody is in the way */
	bool poison; /* a CPU found a page that is lost */
	bool nomem;  /* an allocation was made to fail */
	bool go;     /* all threads are there */
};
extern struct world world;

/* ops.c: what all need */
int note(const struct op *op, int err);
void unexpected(const struct op *op, unsigned int page, int err) __attribute__((noreturn));
struct range range_all(void);
struct range range_of(unsigned int page, unsigned int n);
bool shared(unsigned int page);
bool could_nomem(void);
/* could the page have had the permission bit, or not, at some moment since @begin? */
bool perm_had(unsigned int page, unsigned int bit, bool had, uint64_t begin);
bool was_unmapped(const struct range *r, uint64_t begin);
bool part_unmapped(const struct range *r, uint64_t begin);
void check_value(const struct op *op, unsigned int page, unsigned int word, uint64_t value,
		 uint64_t begin);
void check_cpu(const struct op *op, unsigned int page, unsigned int need, int err, uint64_t begin);

/* ops.c: accesses */
void cpu_load(const struct op *op, unsigned int page, unsigned int word);
void cpu_store(const struct op *op, unsigned int page, unsigned int word);
void dev_read(const struct op *op, unsigned int page, unsigned int word);
void dev_write(const struct op *op, unsigned int page, unsigned int word, bool swap);
void do_fault(const struct op *op);

/* ops_calls.c */
void do_migrate(const struct op *op);
void do_prefetch(const struct op *op);
void do_evict(const struct op *op);
void do_advise(const struct op *op);
void do_pin(const struct op *op);
void do_unpin(const struct op *op);
void do_query(const struct op *op);
void do_close(const struct op *op);
int open_device(unsigned int i);
void close_device(const struct op *op, unsigned int i);

/* quiet.c: promises that only one who is alone can check */
void check_quiet(const struct op *op);
void check_agreement(void); /* between CPU and device page tables */

/* ops_memory.c */
void do_munmap(const struct op *op);
void do_mmap(const struct op *op);
void do_mprotect(const struct op *op);
void do_dontneed(const struct op *op);
void do_free(const struct op *op);
void do_mremap(const struct op *op);
void do_fork(const struct op *op);

#endif
