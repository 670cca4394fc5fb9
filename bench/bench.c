// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* `balun bench`: the list, the pairs, the report */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define WARM_UP	 2
#define MAX_RUNS 201

#define EXIT_IMPOSSIBLE 3 /* as tools/tool.h documents */
#define EXIT_USAGE	2

static const struct bench *const list[] = {
	&bench_migrate_2m_ram, &bench_migrate_4k_ram,  &bench_migrate_2m_soft,
	&bench_home_2m_soft,   &bench_fault_back_4k,   &bench_touch_seq_soft,
	&bench_device_stream,  &bench_peer_copy,       &bench_metadata,
	&bench_scale,	       &bench_idle_cost,       &bench_kernel_there_4k,
	&bench_kernel_home_4k, &bench_kernel_there_2m, &bench_kernel_home_2m,
	&bench_lz4_store,      &bench_lz4_load,
};
#define NR_BENCHES (sizeof(list) / sizeof(list[0]))

struct result {
	double value[MAX_RUNS], limit[MAX_RUNS], ratio[MAX_RUNS];
	unsigned int runs;
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned int n)
{
	qsort(v, n, sizeof(*v), compare);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* which of the two comes first changes, so that neither always finds the other's caches */
static int measure_pair(const struct bench *b, struct bench_run *run, unsigned int i, double *value,
			double *limit)
{
	int err;

	if (i % 2) {
		err = b->limit(run, limit);
		return err ? err : b->value(run, value);
	}
	err = b->value(run, value);
	return err ? err : b->limit(run, limit);
}

static int measure(const struct bench *b, struct bench_run *run, unsigned int runs,
		   struct result *r)
{
	unsigned int i, warm_up = b->runs > 1 ? WARM_UP : 0;
	double value, limit;
	int err = b->setup(run);

	r->runs = 0;
	for (i = 0; i < runs + warm_up && !err; i++) {
		err = measure_pair(b, run, i, &value, &limit);
		if (err || i < warm_up)
			continue;
		r->value[r->runs] = value;
		r->limit[r->runs] = limit;
		r->ratio[r->runs++] = limit > 0 ? value / limit : value;
	}
	/* the space first: it gives the memory back that teardown unmaps */
	bench_end(run);
	if (b->teardown)
		b->teardown(run);
	return err;
}

static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putchar('\\');
		if ((unsigned char)*s >= ' ')
			putchar(*s);
	}
	putchar('"');
}

static void report_missing(const struct bench *b, const char *why, int err, bool json)
{
	const char *word = err == -EOPNOTSUPP ? "skipped" : "failed";

	if (!*why)
		why = strerror(-err);
	if (json) {
		printf("{\"bench\":\"%s\",\"%s\":", b->name, word);
		json_string(why);
		printf("}\n");
	} else {
		printf("%-24s %s: %s\n", b->name, word, why);
	}
}

static void report(const struct bench *b, struct result *r, const char *detail, bool json)
{
	double value = median(r->value, r->runs), limit = median(r->limit, r->runs);
	double ratio = median(r->ratio, r->runs), judged = b->target_on_value ? value : ratio;
	bool met = judged <= b->target;

	if (json) {
		printf("{\"bench\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"limit\":%.6g,"
		       "\"ratio\":%.4g,\"runs\":%u,\"target\":%g,\"target_of\":\"%s\",\"met\":%s,"
		       "\"detail\":",
		       b->name, value, b->unit, limit, ratio, r->runs, b->target,
		       b->target_on_value ? "value" : "ratio", met ? "true" : "false");
		json_string(detail);
		printf("}\n");
		return;
	}
	printf("%-24s %10.6g %-10s limit %10.6g  ratio %6.3f  %s %g%s\n", b->name, value, b->unit,
	       limit, ratio, met ? "within" : "MISSES", b->target, met ? "" : " (see METHOD.md)");
	if (*detail)
		printf("%-24s (%s)\n", "", detail);
}

struct bench_args {
	const char *engine;
	bool json;
	unsigned int runs;
};

static int run_bench(const struct bench *b, const struct bench_args *args)
{
	static struct result r;
	struct bench_run run = { .engine = args->engine, .seed = 1 };
	int err = measure(b, &run, args->runs ? args->runs : b->runs, &r);

	if (err)
		report_missing(b, run.detail, err, args->json);
	else
		report(b, &r, run.detail, args->json);
	fflush(stdout);
	return err;
}

static const struct bench *find(const char *name)
{
	size_t i;

	for (i = 0; i < NR_BENCHES; i++)
		if (!strcmp(list[i]->name, name))
			return list[i];
	return NULL;
}

static void print_list(void)
{
	size_t i;

	for (i = 0; i < NR_BENCHES; i++)
		printf("%-24s %s; limit: %s\n", list[i]->name, list[i]->what, list[i]->limit_what);
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: balun bench [--engine NAME] [--json] [--runs N] [NAME...]\n"
		"       balun bench --list\n\n"
		"Measures this machine: each figure stands beside its raw limit, taken in the\n"
		"same run. Without NAME all of them.\n\n"
		"  --engine NAME  uffd (default) or kernel\n"
		"  --json         one JSON object per line\n"
		"  --runs N       pairs to measure, 1 to %d (default: by bench)\n"
		"  --list         names and what they measure\n"
		"  --help         this text\n",
		MAX_RUNS);
}

/* -1: go on; else the exit code */
static int parse(int argc, char **argv, struct bench_args *ret)
{
	static const struct option option[] = {
		{ "engine", required_argument, NULL, 'e' }, { "json", no_argument, NULL, 'j' },
		{ "runs", required_argument, NULL, 'r' },   { "list", no_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },	    { 0 },
	};
	unsigned long n;
	char *end;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", option, NULL)) != -1) {
		switch (c) {
		case 'e':
			ret->engine = optarg;
			break;
		case 'j':
			ret->json = true;
			break;
		case 'r':
			n = strtoul(optarg, &end, 10);
			if (*end || !n || n > MAX_RUNS) {
				fprintf(stderr, "balun bench: --runs takes 1 to %d, not \"%s\"\n",
					MAX_RUNS, optarg);
				return EXIT_USAGE;
			}
			ret->runs = n;
			break;
		case 'l':
			print_list();
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	return -1;
}

int bench_main(int argc, char **argv)
{
	struct bench_args args = { .engine = "uffd" };
	int code = parse(argc, argv, &args), i, err, failed = 0, skipped = 0, n = 0;

	if (code >= 0)
		return code;
	for (i = optind; i < argc; i++) {
		if (find(argv[i]))
			continue;
		fprintf(stderr, "balun bench: no bench \"%s\"; --list shows them\n", argv[i]);
		return EXIT_USAGE;
	}
	n = optind < argc ? argc - optind : (int)NR_BENCHES;
	for (i = 0; i < n; i++) {
		err = run_bench(optind < argc ? find(argv[optind + i]) : list[i], &args);
		failed += err && err != -EOPNOTSUPP;
		skipped += err == -EOPNOTSUPP;
	}
	if (failed)
		return 1;
	return skipped == n ? EXIT_IMPOSSIBLE : 0;
}
