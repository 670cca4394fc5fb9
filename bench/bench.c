// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* `balun bench`: the list, the pairs, the report */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/far.h"
#include "tools/tool.h"

#define WARM_UP	 2
#define MAX_RUNS 201

static const struct bench *const list[] = {
	&bench_migrate_2m_ram,	&bench_migrate_4k_ram,	&bench_migrate_2m_soft,
	&bench_home_2m_soft,	&bench_fault_back_4k,	&bench_touch_seq_soft,
	&bench_device_stream,	&bench_peer_copy,	&bench_metadata,
	&bench_scale,		&bench_idle_cost,	&bench_kernel_there_4k,
	&bench_kernel_home_4k,	&bench_kernel_there_2m, &bench_kernel_home_2m,
	&bench_lz4_store,	&bench_lz4_load,	&bench_far_idle,
	&bench_far_idle_malloc, &bench_far_idle_calls,	&bench_far_idle_mapped,
};
#define NR_LIST	   (sizeof(list) / sizeof(list[0]))
#define NR_BENCHES (NR_LIST + NR_BENCH_FAR)

static const struct bench *bench_at(size_t i)
{
	return i < NR_LIST ? list[i] : &bench_far[i - NR_LIST];
}

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
	unsigned int i, warm_up = b->runs > 3 ? WARM_UP : 0;
	double value, limit;
	int err;

	run->arg = b->arg;
	err = b->setup(run);
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

static void report_missing(const struct bench *b, const char *why, int err, bool json)
{
	const char *word = err == -EOPNOTSUPP ? "skipped" : "failed";

	if (!*why)
		why = strerror(-err);
	if (json) {
		printf("{\"bench\":\"%s\",\"%s\":", b->name, word);
		tool_json(stdout, why);
		printf("}\n");
	} else {
		printf("%-24s %s: %s\n", b->name, word, why);
	}
}

static void report(const struct bench *b, struct result *r, const char *detail, bool json)
{
	double value = median(r->value, r->runs), limit = median(r->limit, r->runs);
	double ratio = median(r->ratio, r->runs), judged = b->target_on_value ? value : ratio;
	bool has_target = b->target > 0 || b->target_on_value, met = judged <= b->target;

	if (json) {
		printf("{\"bench\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"limit\":%.6g,"
		       "\"ratio\":%.4g,\"runs\":%u,",
		       b->name, value, b->unit, limit, ratio, r->runs);
		if (has_target)
			printf("\"target\":%.4g,\"target_of\":\"%s\",\"met\":%s,", b->target,
			       b->target_on_value ? "value" : "ratio", met ? "true" : "false");
		printf("\"detail\":");
		tool_json(stdout, detail);
		printf("}\n");
		return;
	}
	printf("%-24s %10.6g %-10s limit %10.6g  ratio %6.3f", b->name, value, b->unit, limit,
	       ratio);
	if (has_target)
		printf("  %s %.3g%s", met ? "within" : "MISSES", b->target,
		       met ? "" : " (see METHOD.md)");
	putchar('\n');
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

/* is it one of the @n names? They may be patterns, as a shell has them; none: all but some */
static bool is_wanted(const struct bench *b, char **name, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (!fnmatch(name[i], b->name, 0))
			return true;
	return !n && !b->on_request;
}

static bool is_known(char *name)
{
	size_t i;

	for (i = 0; i < NR_BENCHES; i++)
		if (is_wanted(bench_at(i), &name, 1))
			return true;
	return false;
}

static void print_list(void)
{
	size_t i;

	for (i = 0; i < NR_BENCHES; i++)
		printf("%-24s %s; limit: %s\n", bench_at(i)->name, bench_at(i)->what,
		       bench_at(i)->limit_what);
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: balun bench [--engine NAME] [--json] [--runs N] [NAME...]\n"
		"       balun bench --list\n\n"
		"Measures this machine: each figure stands beside its raw limit, taken in the\n"
		"same run. Without NAME all but those far_* that take long and use swap; a NAME\n"
		"may be a pattern: 'far_lz4_*_2x'.\n\n"
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
	int code, failed = 0, skipped = 0, n = 0, i, err;
	size_t j;

	/* the program that the far benches run */
	if (argc == 4 && !strcmp(argv[1], "--far-work"))
		return far_work_main(argv[2], argv[3]);
	code = parse(argc, argv, &args);
	if (code >= 0)
		return code;
	for (i = optind; i < argc; i++) {
		if (is_known(argv[i]))
			continue;
		fprintf(stderr, "balun bench: no bench \"%s\"; --list shows them\n", argv[i]);
		return EXIT_USAGE;
	}
	for (j = 0; j < NR_BENCHES; j++) {
		if (!is_wanted(bench_at(j), argv + optind, argc - optind))
			continue;
		n++;
		err = run_bench(bench_at(j), &args);
		failed += err && err != -EOPNOTSUPP;
		skipped += err == -EOPNOTSUPP;
	}
	if (failed)
		return EXIT_DIFFERS;
	return skipped == n ? EXIT_IMPOSSIBLE : EXIT_OK;
}
