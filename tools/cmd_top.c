// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: cmd_top.c - `balun top`: processes with Balun, and where their memory is
 */
#include "top.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CMD "top"

static const char help[] =
	"balun top - processes with Balun, and where their memory is\n"
	"\n"
	"Usage: balun top [-d SECONDS] [--once] [--json] [PID...]\n"
	"\n"
	"Shows all processes of this user (of root: all) that have a space, or those given: what\n"
	"they have in RAM and on each device, how much moves each second and why, how long a CPU\n"
	"waited for memory that was away, and which ranges move most. The processes say it\n"
	"themselves, to their own user and to root alone; it costs them nothing until they are "
	"asked.\n"
	"\n"
	"  -d SECONDS   between two looks (default 1; 0.1 and more)\n"
	"  --once       look once and end; figures per second are of the time since the space "
	"began,\n"
	"               with -d of SECONDS from now\n"
	"  --json       the same for machines, on one line for each look\n"
	"  --help       this\n"
	"\n"
	"On a terminal: up and down choose a process, q ends. Elsewhere lines are written at each\n"
	"look.\n"
	"\n"
	"RESIDENT is all anonymous memory of the process in RAM, Balun's own too. OUT and HOME "
	"are\n"
	"bytes a second to devices and back. P50, P99 and P99.9 are of the CPU's waits for memory "
	"that\n"
	"was away, since the last look.\n"
	"\n"
	"Exit codes: 0 done; 1 there is no such process, or it has no Balun; 2 bad command line;\n"
	"3 another user's process, or another version of Balun in it.\n";

/* ---- looking ---- */

int top_failed(const struct top *t, int err)
{
	const pid_t pid = t->failed;

	switch (err) {
	case -ESRCH:
		tool_error(CMD, "process %d: no Balun in it, or there is no such process", pid);
		return EXIT_DIFFERS;
	case -EPERM:
		tool_error(CMD, "process %d is another user's, or may not be looked into", pid);
		return EXIT_IMPOSSIBLE;
	case -EPROTO:
		tool_error(CMD, "process %d runs another version of Balun", pid);
		return EXIT_IMPOSSIBLE;
	case -EAGAIN:
		tool_error(CMD, "process %d does not answer: is it stopped?", pid);
		return EXIT_DIFFERS;
	default:
		tool_error(CMD, "%s", strerror(-err));
		return EXIT_DIFFERS;
	}
}

int top_look(struct top *t)
{
	struct live_space *was = t->before;
	int n;

	t->before = t->now;
	t->nbefore = t->n;
	t->now = was;
	n = live_look(t->pid, t->npids, t->now, TOP_MAX, &t->failed);
	t->n = n > 0 ? n : 0;
	return n < 0 ? n : 0;
}

const struct live_space *top_before(const struct top *t, const struct live_space *s)
{
	unsigned int i;

	for (i = 0; i < t->nbefore; i++)
		if (t->before[i].pid == s->pid && t->before[i].nth == s->nth &&
		    t->before[i].look.begun_ns == s->look.begun_ns)
			return &t->before[i];
	return NULL;
}

double top_seconds(const struct live_space *s, const struct live_space *before)
{
	uint64_t from = before ? before->look.now_ns : s->look.begun_ns;
	double ns = s->look.now_ns > from ? s->look.now_ns - from : 0;

	return ns < 1e6 ? 1e-3 : ns / 1e9;
}

/* ---- figures ---- */

const char *const top_way_name[TOP_NR_WAYS] = {
	[TOP_OUT] = "to_device",
	[TOP_HOME] = "to_system",
	[TOP_BETWEEN] = "device_to_device",
};

static const uint64_t *by_cause(const struct balun_stats *st, enum top_way way)
{
	return way == TOP_OUT	 ? st->to_device
	       : way == TOP_HOME ? st->to_system
				 : st->device_to_device;
}

uint64_t top_moved(const struct live_space *s, const struct live_space *before, enum top_way way,
		   unsigned int cause)
{
	return by_cause(&s->look.stats, way)[cause] -
	       (before ? by_cause(&before->look.stats, way)[cause] : 0);
}

uint64_t top_moved_all(const struct live_space *s, const struct live_space *before,
		       enum top_way way)
{
	unsigned int i;
	uint64_t sum = 0;

	for (i = 0; i < BALUN_NR_CAUSES; i++)
		sum += top_moved(s, before, way, i);
	return sum;
}

void top_faults(const struct live_space *s, const struct live_space *before, struct balun_hist *ret)
{
	unsigned int i;

	*ret = s->look.stats.cpu_fault;
	if (!before)
		return;
	ret->count -= before->look.stats.cpu_fault.count;
	ret->sum_ns -= before->look.stats.cpu_fault.sum_ns;
	for (i = 0; i < BALUN_HIST_BUCKETS; i++)
		ret->bucket[i] -= before->look.stats.cpu_fault.bucket[i];
}

struct top_time top_time(uint64_t ns)
{
	struct top_time t = { "-" };

	if (ns >= 1000000000)
		snprintf(t.s, sizeof(t.s), "%.1f s", ns / 1e9);
	else if (ns >= 1000000)
		snprintf(t.s, sizeof(t.s), "%.1f ms", ns / 1e6);
	else if (ns >= 10000)
		snprintf(t.s, sizeof(t.s), "%.0f us", ns / 1e3);
	else if (ns)
		snprintf(t.s, sizeof(t.s), "%.1f us", ns / 1e3);
	return t;
}

struct top_size top_size(double bytes)
{
	static const char unit[] = "BKMGTPE";
	struct top_size t;
	unsigned int u = 0;

	for (; bytes >= 1000 && u < 6; u++)
		bytes /= 1024;
	snprintf(t.s, sizeof(t.s), u && bytes < 100 ? "%.1f%c" : "%.0f%c", bytes, unit[u]);
	return t;
}

/* ---- lines ---- */

void top_head(char *line)
{
	snprintf(line, TOP_LINE, "%8s %-15s %8s %8s %8s %8s %8s %8s %8s %8s", "PID", "NAME",
		 "RESIDENT", "AWAY", "OUT/s", "HOME/s", "FAULTS/s", "P50", "P99", "P99.9");
}

void top_row(const struct top *t, const struct live_space *s, char *line)
{
	const struct live_space *b = top_before(t, s);
	double seconds = top_seconds(s, b);
	struct balun_hist h;

	top_faults(s, b, &h);
	snprintf(line, TOP_LINE, "%8d %-15.15s %8s %8s %8s %8s %8.0f %8s %8s %8s", s->pid, s->comm,
		 top_size(s->resident).s, top_size(live_away(&s->look)).s,
		 top_size(top_moved_all(s, b, TOP_OUT) / seconds).s,
		 top_size(top_moved_all(s, b, TOP_HOME) / seconds).s, h.count / seconds,
		 top_time(live_quantile(&h, 0.5)).s, top_time(live_quantile(&h, 0.99)).s,
		 top_time(live_quantile(&h, 0.999)).s);
}

static void device_line(const struct balun_live_device *d, char *line)
{
	int n = snprintf(line, TOP_LINE, "  %-40.40s %9s of %9s", d->name, tool_size(d->mem_used).s,
			 tool_size(d->mem_total).s);

	if (d->footprint)
		n += snprintf(line + n, TOP_LINE - n, ", takes %s", tool_size(d->footprint).s);
	if (d->flags & BALUN_LIVE_LOST)
		snprintf(line + n, TOP_LINE - n, ", LOST");
}

/* "  out     eviction 12.0M/s, user 1.0M/s" */
static void causes_line(const struct live_space *s, const struct live_space *before,
			enum top_way way, char *line)
{
	static const char *const word[] = { "out", "home", "between devices" };
	int n = snprintf(line, TOP_LINE, "  %-16s", word[way]), from = n;
	double seconds = top_seconds(s, before);
	unsigned int i;

	for (i = 0; i < BALUN_NR_CAUSES; i++) {
		double rate = top_moved(s, before, way, i) / seconds;

		if (rate > 0)
			n += snprintf(line + n, TOP_LINE - n, "%s%s %s/s", n > from ? ", " : "",
				      balun_cause_name(i), top_size(rate).s);
	}
	if (n == from)
		snprintf(line + n, TOP_LINE - n, "nothing");
}

/* neighbours as one: their heat is added up. false: there is no such */
static bool range_nth(const struct balun_live *l, unsigned int n, struct balun_live_range *ret)
{
	bool used[BALUN_LIVE_RANGES] = { false };
	unsigned int i;
	bool more;

	for (i = 0; i < l->nranges; i++) {
		unsigned int j;

		if (used[i])
			continue;
		*ret = l->range[i];
		do {
			more = false;
			for (j = i + 1; j < l->nranges; j++) {
				const struct balun_live_range *r = &l->range[j];

				if (used[j] || (r->addr + r->len != ret->addr &&
						ret->addr + ret->len != r->addr))
					continue;
				ret->addr = r->addr < ret->addr ? r->addr : ret->addr;
				ret->len += r->len;
				ret->heat += r->heat;
				used[j] = more = true;
			}
		} while (more);
		if (!n--)
			return true;
	}
	return false;
}

bool top_detail(const struct top *t, const struct live_space *s, unsigned int n, char *line)
{
	const struct live_space *b = top_before(t, s);
	const struct balun_live *l = &s->look;
	struct balun_live_range r;

	if (!n) {
		snprintf(line, TOP_LINE, "%d %s: engine %s, policy %s, for %.0f s%s", s->pid,
			 s->comm, l->engine, l->policy, top_seconds(s, NULL),
			 l->stats.lost_pages ? ", PAGES LOST" : "");
		return true;
	}
	if (--n < l->ndevices) {
		device_line(&l->device[n], line);
		return true;
	}
	n -= l->ndevices;
	if (n < TOP_NR_WAYS) {
		causes_line(s, b, n, line);
		return true;
	}
	n -= TOP_NR_WAYS;
	if (!range_nth(l, n, &r))
		return false;
	snprintf(line, TOP_LINE, "  %-16s%012" PRIx64 "  %9s, %s moved lately", n ? "" : "hottest",
		 r.addr, tool_size(r.len).s, tool_size(r.heat).s);
	return true;
}

static void print_text(const struct top *t)
{
	char line[TOP_LINE];
	unsigned int i, n;

	if (!t->n) {
		puts("no process of this user has Balun");
		return;
	}
	top_head(line);
	puts(line);
	for (i = 0; i < t->n; i++) {
		top_row(t, &t->now[i], line);
		puts(line);
	}
	for (i = 0; i < t->n; i++) {
		putchar('\n');
		for (n = 0; top_detail(t, &t->now[i], n, line); n++)
			puts(line);
	}
}

/* ---- JSON ---- */

static void json_hist(const char *name, const struct balun_hist *h)
{
	printf(",\"%s\":{\"count\":%" PRIu64 ",\"sum_ns\":%" PRIu64 ",\"p50_ns\":%" PRIu64
	       ",\"p99_ns\":%" PRIu64 ",\"p99_9_ns\":%" PRIu64 "}",
	       name, h->count, h->sum_ns, live_quantile(h, 0.5), live_quantile(h, 0.99),
	       live_quantile(h, 0.999));
}

static void json_moved(const struct live_space *s, const struct live_space *b, bool rate)
{
	double seconds = top_seconds(s, b);
	unsigned int way, i;

	for (way = 0; way < TOP_NR_WAYS; way++) {
		printf("%s\"%s\":{", way ? "," : "", top_way_name[way]);
		for (i = 0; i < BALUN_NR_CAUSES; i++) {
			printf("%s\"%s\":", i ? "," : "", balun_cause_name(i));
			if (rate)
				printf("%.0f", top_moved(s, b, way, i) / seconds);
			else
				printf("%" PRIu64, top_moved(s, NULL, way, i));
		}
		putchar('}');
	}
}

static void json_devices(const struct balun_live *l)
{
	unsigned int i;

	printf(",\"devices\":[");
	for (i = 0; i < l->ndevices; i++) {
		const struct balun_live_device *d = &l->device[i];

		printf("%s{\"id\":%u,\"name\":", i ? "," : "", d->id);
		tool_json(stdout, d->name);
		printf(",\"total\":%" PRIu64 ",\"used\":%" PRIu64 ",\"footprint\":", d->mem_total,
		       d->mem_used);
		if (d->footprint)
			printf("%" PRIu64, d->footprint);
		else
			printf("null");
		printf(",\"lost\":%s}", d->flags & BALUN_LIVE_LOST ? "true" : "false");
	}
	putchar(']');
}

static void json_hottest(const struct balun_live *l)
{
	struct balun_live_range r;
	unsigned int i;

	printf(",\"hottest\":[");
	for (i = 0; range_nth(l, i, &r); i++)
		printf("%s{\"addr\":%" PRIu64 ",\"len\":%" PRIu64 ",\"heat\":%" PRIu64 "}",
		       i ? "," : "", r.addr, r.len, r.heat);
	putchar(']');
}

static void json_space(const struct top *t, const struct live_space *s)
{
	const struct live_space *b = top_before(t, s);
	const struct balun_stats *st = &s->look.stats;
	struct balun_hist recent;

	printf("{\"pid\":%d,\"space\":%u,\"name\":", s->pid, s->nth);
	tool_json(stdout, s->comm);
	printf(",\"engine\":");
	tool_json(stdout, s->look.engine);
	printf(",\"policy\":");
	tool_json(stdout, s->look.policy);
	printf(",\"age_ns\":%" PRIu64 ",\"resident\":%" PRIu64 ",\"away\":%" PRIu64,
	       s->look.now_ns - s->look.begun_ns, s->resident, live_away(&s->look));
	json_devices(&s->look);
	printf(",\"moved\":{");
	json_moved(s, NULL, false);
	printf("},\"per_second\":{\"over_s\":%.3f,", top_seconds(s, b));
	json_moved(s, b, true);
	top_faults(s, b, &recent);
	printf(",\"cpu_faults\":%.0f", recent.count / top_seconds(s, b));
	json_hist("cpu_fault", &recent);
	printf("},\"cpu_faults\":%" PRIu64 ",\"device_faults\":%" PRIu64 ",\"evictions\":%" PRIu64
	       ",\"invalidations\":%" PRIu64 ",\"lost_pages\":%" PRIu64 ",\"copy_ns\":%" PRIu64,
	       st->cpu_faults, st->device_faults, st->evictions, st->invalidations, st->lost_pages,
	       st->copy_ns);
	json_hist("cpu_fault", &st->cpu_fault);
	json_hist("device_fault", &st->device_fault);
	json_hist("migrate", &st->migrate);
	json_hottest(&s->look);
	putchar('}');
}

static void print_json(const struct top *t)
{
	unsigned int i;

	printf("{\"version\":%d,\"spaces\":[", BALUN_LIVE_VERSION);
	for (i = 0; i < t->n; i++) {
		if (i)
			putchar(',');
		json_space(t, &t->now[i]);
	}
	puts("]}");
}

/* ---- the command ---- */

static void wait_ms(uint64_t ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	fflush(stdout);
	nanosleep(&ts, NULL);
}

static int lines(struct top *t, bool once, bool twice, bool json)
{
	int err = top_look(t);

	if (!err && once && twice) {
		wait_ms(t->interval_ms);
		err = top_look(t);
	}
	for (; !err; err = top_look(t)) {
		if (json)
			print_json(t);
		else
			print_text(t);
		if (once || ferror(stdout))
			break;
		if (!json)
			putchar('\n');
		wait_ms(t->interval_ms);
	}
	return err ? top_failed(t, err) : EXIT_OK;
}

static bool parse_seconds(const char *s, uint64_t *ret_ms)
{
	char *end;
	double v = strtod(s, &end);

	if (end == s || *end || !(v >= 0.1 && v <= 86400))
		return false;
	*ret_ms = v * 1000;
	return true;
}

static int parse_pids(int argc, char **argv, pid_t *pid)
{
	char *end;
	int i;

	for (i = 0; i < argc; i++) {
		long v = strtol(argv[i], &end, 10);

		if (end == argv[i] || *end || v <= 0 || v > INT32_MAX) {
			tool_error(CMD, "\"%s\" is no process id; see balun top --help", argv[i]);
			return EXIT_USAGE;
		}
		pid[i] = v;
	}
	return EXIT_OK;
}

int cmd_top(int argc, char **argv)
{
	static const struct option option[] = {
		{ "once", no_argument, NULL, 'o' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct top t = { .interval_ms = 1000 };
	bool once = false, json = false, twice = false;
	pid_t pid[64];
	int c, code;

	optind = 0;
	while ((c = getopt_long(argc, argv, ":d:", option, NULL)) != -1) {
		switch (c) {
		case 'd':
			if (!parse_seconds(optarg, &t.interval_ms)) {
				tool_error(CMD, "-d takes seconds, 0.1 to 86400: \"%s\"", optarg);
				return EXIT_USAGE;
			}
			twice = true;
			break;
		case 'o':
			once = true;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(help, stdout);
			return EXIT_OK;
		default:
			return tool_bad_option(CMD, argc, argv, c);
		}
	}
	if (argc - optind > (int)(sizeof(pid) / sizeof(pid[0]))) {
		tool_error(CMD, "too many processes");
		return EXIT_USAGE;
	}
	code = parse_pids(argc - optind, argv + optind, pid);
	if (code)
		return code;
	if (optind < argc) {
		t.pid = pid;
		t.npids = argc - optind;
	}
	t.now = calloc(2 * TOP_MAX, sizeof(*t.now));
	if (!t.now) {
		tool_error(CMD, "%s", strerror(ENOMEM));
		return EXIT_DIFFERS;
	}
	t.before = t.now + TOP_MAX;
	if (!once && !json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && top_has_screen())
		code = top_screen(&t);
	else
		code = lines(&t, once, twice, json);
	free(t.now < t.before ? t.now : t.before);
	return code;
}
