// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Events as JSON trace events, which Perfetto and Chrome's viewer open: what took time is a slice
 * of the thread that did it, an eviction or invalidation an instant, how full a device is a
 * counter. One event a line.
 */
#include "trace.h"

#include <errno.h>
#include <inttypes.h>

void trace_begin(struct trace_file *t)
{
	fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[", t->f);
}

/* us since the first event, as the format wants it, to the ns */
static void put_us(FILE *f, const char *key, uint64_t ns)
{
	fprintf(f, "\"%s\":%" PRIu64 ".%03u", key, ns / 1000, (unsigned int)(ns % 1000));
}

static uint64_t since(struct trace_file *t, uint64_t ns)
{
	if (!t->first_ns)
		t->first_ns = ns;
	/* one that began before the first that was written down */
	return ns > t->first_ns ? ns - t->first_ns : 0;
}

static void head(struct trace_file *t, const char *cat, const char *phase, pid_t pid)
{
	fprintf(t->f, "%s\n{\"cat\":\"%s\",\"ph\":\"%s\",\"pid\":%d,", t->events++ ? "," : "", cat,
		phase, pid);
}

void trace_process(struct trace_file *t, const struct trace_process *p)
{
	head(t, "__metadata", "M", p->pid);
	fputs("\"tid\":0,\"name\":\"process_name\",\"args\":{\"name\":", t->f);
	tool_json(t->f, p->comm);
	fputs("}}", t->f);
}

static void put_place(struct trace_file *t, const struct trace_process *p, const char *key,
		      unsigned int id)
{
	char unknown[24];

	snprintf(unknown, sizeof(unknown), "device %u", id);
	fprintf(t->f, ",\"%s\":", key);
	tool_json(t->f, !id					      ? "system"
			: id <= BALUN_MAX_DEVICES && p->device[id][0] ? p->device[id]
								      : unknown);
}

static const char *access_name(unsigned int access)
{
	static const char *const name[] = { "read", "write", "atomic", "prefetch" };

	return access < sizeof(name) / sizeof(name[0]) ? name[access] : "?";
}

void trace_event(struct trace_file *t, const struct trace_process *p,
		 const struct balun_trace_event *e)
{
	static const char *const cat[] = {
		[BALUN_TRACE_FAULT] = "fault",
		[BALUN_TRACE_MIGRATE] = "migrate",
		[BALUN_TRACE_EVICT] = "evict",
		[BALUN_TRACE_INVALIDATE] = "invalidate",
	};
	bool slice = e->what == BALUN_TRACE_FAULT || e->what == BALUN_TRACE_MIGRATE;
	const char *cause = balun_cause_name(e->cause);

	if (e->what >= BALUN_TRACE_NR)
		return;
	head(t, cat[e->what], slice ? "X" : "i", p->pid);
	put_us(t->f, "ts", since(t, slice ? e->begun_ns : e->ended_ns));
	if (slice) {
		fputc(',', t->f);
		put_us(t->f, "dur", e->ended_ns > e->begun_ns ? e->ended_ns - e->begun_ns : 0);
	}
	fprintf(t->f,
		",\"tid\":%u,%s\"name\":\"%s%s\",\"args\":{\"addr\":\"0x%" PRIx64
		"\",\"bytes\":%" PRIu64 ",\"cause\":\"%s\"",
		e->tid, slice ? "" : "\"s\":\"t\",", cat[e->what],
		e->what != BALUN_TRACE_MIGRATE ? ""
		: !e->from		       ? " out"
		: !e->to		       ? " home"
					       : " on",
		e->va, e->len, cause);
	if (e->what == BALUN_TRACE_FAULT) {
		if (e->from)
			put_place(t, p, "by", e->from);
		else
			fputs(",\"by\":\"cpu\"", t->f);
		fprintf(t->f, ",\"access\":\"%s\",\"err\":%d", access_name(e->to), e->err);
	} else if (e->what != BALUN_TRACE_INVALIDATE) {
		put_place(t, p, "from", e->from);
		put_place(t, p, "to", e->to);
	}
	fputs("}}", t->f);
}

void trace_devices(struct trace_file *t, const struct trace_process *p, const struct balun_live *l)
{
	unsigned int i;

	for (i = 0; i < l->ndevices; i++) {
		const struct balun_live_device *d = &l->device[i];

		head(t, "device", "C", p->pid);
		put_us(t->f, "ts", since(t, l->now_ns));
		fputs(",\"tid\":0,\"name\":", t->f);
		tool_json(t->f, d->name);
		fprintf(t->f, ",\"id\":%u,\"args\":{\"used\":%" PRIu64, d->id, d->mem_used);
		if (d->footprint)
			fprintf(t->f, ",\"footprint\":%" PRIu64, d->footprint);
		fputs("}}", t->f);
	}
}

int trace_end(struct trace_file *t, const struct trace_process *p, unsigned int n)
{
	uint64_t dropped = 0;
	unsigned int i;

	for (i = 0; i < n; i++)
		dropped += p[i].dropped;
	fprintf(t->f,
		"\n],\"otherData\":{\"balun\":\"%s\",\"clock_ns\":\"%" PRIu64
		"\",\"dropped\":\"%" PRIu64 "\"}}\n",
		balun_version(), t->first_ns, dropped);
	return fflush(t->f) || ferror(t->f) ? -EIO : 0;
}
