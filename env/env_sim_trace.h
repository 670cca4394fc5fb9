/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Inside env_sim: the last scheduling decisions of a run, to be printed when it fails. */
#ifndef BALUN_ENV_SIM_TRACE_H
#define BALUN_ENV_SIM_TRACE_H

#include <stdint.h>
#include <stdio.h>

enum sim_point {
	POINT_LOCK,
	POINT_UNLOCK,
	POINT_WAIT,
	POINT_WAKE,
	POINT_YIELD,
	POINT_CREATE,
	POINT_JOIN,
	POINT_SLEEP,
	POINT_EXIT,
	POINT_CHOOSE,
	POINT_NOTE,
};

struct sim_event {
	enum sim_point point;
	uint32_t choice, of; /* of: 0 where there was no choice */
	const char *what;    /* of a note */
	uint64_t now, a, b;  /* of a note; else a: the object */
	uint16_t thread, next;
};

void sim_trace_begin(void);
/* the new event; the caller fills in what it is about */
struct sim_event *sim_trace_add(enum sim_point point, uint64_t now, unsigned int thread);
void sim_trace_print(FILE *out);

/* env_sim.c */
const char *sim_thread_name(unsigned int thread);

#endif
