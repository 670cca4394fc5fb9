// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The trace of env_sim: a ring of the last events. */
#include "env/env_sim_trace.h"

#define TRACE_EVENTS 512 /* power of two */

static const char *const point_name[] = { "lock", "unlock", "wait", "wake",   "yield", "create",
					  "join", "sleep",  "exit", "choose", "note" };

static struct sim_event event[TRACE_EVENTS];
static uint64_t nr_events;

void sim_trace_begin(void)
{
	nr_events = 0;
}

struct sim_event *sim_trace_add(enum sim_point point, uint64_t now, unsigned int thread)
{
	struct sim_event *ev = &event[nr_events++ % TRACE_EVENTS];

	ev->point = point;
	ev->now = now;
	ev->of = 0;
	ev->thread = ev->next = thread;
	return ev;
}

static void event_print(FILE *out, const struct sim_event *ev)
{
	fprintf(out, "%12llu ns  %-15s ", (unsigned long long)ev->now, sim_thread_name(ev->thread));
	if (ev->point == POINT_NOTE) {
		fprintf(out, "# %s %#llx %#llx\n", ev->what, (unsigned long long)ev->a,
			(unsigned long long)ev->b);
		return;
	}
	fprintf(out, "%-6s", point_name[ev->point]);
	if (ev->point != POINT_CHOOSE)
		fprintf(out, " %#llx", (unsigned long long)ev->a);
	if (ev->of)
		fprintf(out, "  choice %u of %u", ev->choice, ev->of);
	if (ev->next != ev->thread)
		fprintf(out, "  -> %s", sim_thread_name(ev->next));
	fprintf(out, "\n");
}

void sim_trace_print(FILE *out)
{
	uint64_t i = nr_events > TRACE_EVENTS ? nr_events - TRACE_EVENTS : 0;

	for (; i < nr_events; i++)
		event_print(out, &event[i % TRACE_EVENTS]);
}
