/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* schedule.h - the operations of a schedule, between schedule.c, ops.c and sim_stress.c */
#ifndef BALUN_SIM_SCHEDULE_H
#define BALUN_SIM_SCHEDULE_H

#include "tests/sim/sim_test.h"

enum op_kind {
	OP_LOAD,
	OP_STORE,
	OP_DEV_READ,
	OP_DEV_WRITE,
	OP_DEV_SWAP,
	OP_FAULT,
	OP_MIGRATE,
	OP_PREFETCH,
	OP_SYNC,
	OP_EVICT,
	OP_ADVISE,
	OP_PIN,
	OP_UNPIN,
	OP_MUNMAP,
	OP_MMAP,
	OP_MREMAP,
	OP_MPROTECT,
	OP_DONTNEED,
	OP_FREE,
	OP_FORK,
	OP_CLOSE,
	OP_QUERY,
	OP_KILL,
	OP_NOMEM,
	OPS,
};

struct op {
	uint8_t thread, kind, page, n, device, flags;
	uint64_t arg; /* random bits, whose meaning is the kind's */
	uint64_t no;  /* number in the schedule, from 1; stays when others are removed */
};

#define MAX_OPS 64

struct schedule {
	struct profile profile;
	unsigned int nthreads, nops;
	unsigned int room;    /* of device 0, pages; 0: core manages its memory */
	unsigned int options; /* see open_device() and finish() */
	struct op op[MAX_OPS];
};

void schedule_make(struct schedule *s, uint64_t seed);
void schedule_print(const struct schedule *s, FILE *out);
const char *op_name(unsigned int kind);

/* run.c: runs a struct schedule; an env_sim_fn */
void schedule_run(void *schedule);
/* ops.c: how often each kind of operation ended with which errno, over all runs of this process */
void ops_report(FILE *out);

#endif
