/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: trace.h - what the parts of `balun trace` share
 *
 *   cmd_trace.c   options; the program, the processes, the loop
 *   trace_write.c events as JSON trace events
 *   trace_plot.c  a file of them as SVG
 */
#ifndef BALUN_TOOLS_TRACE_H
#define BALUN_TOOLS_TRACE_H

#include "live.h"
#include "tool.h"

#include <stdio.h>

/* the file that is written: one event a line, so that whoever reads it can go by lines */
struct trace_file {
	FILE *f;
	uint64_t events, first_ns; /* times are written from the first on */
};

/* a process */
struct trace_process {
	pid_t pid;
	char comm[32];
	char socket[LIVE_NAME];			      /* "": not known */
	char device[BALUN_MAX_DEVICES + 1][64];	      /* names, as they are found out */
	uint64_t device_asked[BALUN_MAX_DEVICES + 1]; /* when last, ns */
	uint64_t events, dropped;
};

void trace_begin(struct trace_file *t);
void trace_process(struct trace_file *t, const struct trace_process *p);
void trace_event(struct trace_file *t, const struct trace_process *p,
		 const struct balun_trace_event *e);
/* how full the devices are */
void trace_devices(struct trace_file *t, const struct trace_process *p, const struct balun_live *l);
/* 0 or -errno */
int trace_end(struct trace_file *t, const struct trace_process *p, unsigned int n);

int trace_plot(const char *in, const char *out); /* an exit code */

#endif
