/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What env_live.c, env_trace.c and env_probe.c know of each other; nobody else includes it. */
#ifndef BALUN_ENV_LIVE_H
#define BALUN_ENV_LIVE_H

#include "balun/live.h"

/* ---- env_probe.c ---- */
/* a trace: of one that answers; two can be there, when one could not be told to end */
struct env_trace {
	struct balun_trace_ring *ring; /* NULL: none */
	size_t bytes;
	uint32_t slots; /* as it was made: what is in the ring others can change */
};
/* events go there from now on; false: they go to another one */
bool env_probe_ring_set(struct env_trace *t);
/* not any more, of who has set it, and nobody is in it when this returns */
void env_probe_ring_clear(void);
void env_probe_ring_forget(void); /* in a child, before anything else: a parent's */

/* ---- env_trace.c; all on the thread that answers ---- */
/* a trace begins: the file for who asked, -EBUSY there is one, -errno */
int env_trace_begin(struct env_trace *t, uint32_t mib);
void env_trace_end(struct env_trace *t); /* also if there is none */
/* an answer, with the file @fd if that is none less than 0 */
int env_trace_send(int to, const struct balun_live *a, int fd);
/* to a tracer that the environment names: the connection, whose end is that of the trace, or
 * -errno */
int env_trace_offer(struct env_trace *t);

#endif
