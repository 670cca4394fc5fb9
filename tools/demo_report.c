// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: demo_report.c - tables of the demo
 */
#include "demo.h"
#include "tool.h"

#include <stdlib.h>

#define TOP 10

static int rank_cmp(const void *a, const void *b)
{
	const struct pkg *x = *(struct pkg *const *)a, *y = *(struct pkg *const *)b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? 1 : -1;
	return (x->index > y->index) - (x->index < y->index);
}

void demo_report_top(const struct graph *g)
{
	struct pkg **p = calloc(g->npkgs, sizeof(*p));
	uint64_t i;

	if (!p)
		return;
	for (i = 0; i < g->npkgs; i++)
		p[i] = g->all[i];
	qsort(p, g->npkgs, sizeof(*p), rank_cmp);
	printf("\n  #  rank %%  needs  package\n");
	for (i = 0; i < g->npkgs && i < TOP; i++)
		printf("%3lu  %6.3f  %5lu  %.40s %.32s\n", (unsigned long)i + 1,
		       100.0 * p[i]->rank / RANK_ONE, (unsigned long)p[i]->reach, p[i]->name,
		       p[i]->version);
	putchar('\n');
	free(p);
}

/* upper end of the bucket that holds the @pct-th percentile, in microseconds */
static double percentile_us(const struct balun_hist *h, unsigned int pct)
{
	uint64_t seen = 0;
	unsigned int i;

	for (i = 0; i < BALUN_HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen && seen * 100 >= h->count * pct)
			return (double)(2ULL << i) / 1000;
	}
	return 0;
}

static void report_faults(const char *who, uint64_t n, const struct balun_hist *h)
{
	printf("  %-7s %9lu", who, (unsigned long)n);
	if (h->count)
		printf("  half within %.1f us, 99 %% within %.1f us, %.2f ms together",
		       percentile_us(h, 50), percentile_us(h, 99), h->sum_ns / 1e6);
	putchar('\n');
}

static void report_cause(const struct balun_stats *st, enum balun_cause c)
{
	if (!st->to_device[c] && !st->to_system[c] && !st->device_to_device[c])
		return;
	printf("  %-14s %12s  %12s\n", balun_cause_name(c), tool_size(st->to_device[c]).s,
	       tool_size(st->to_system[c]).s);
}

void demo_report_stats(const struct balun_stats *st)
{
	unsigned int c;

	printf("\nwhere pages went    to device          home\n");
	for (c = 0; c < BALUN_NR_CAUSES; c++)
		report_cause(st, c);
	printf("  %s moved without a copy, %s as zeros, %s kept in bookkeeping\n",
	       tool_size(st->moved_bytes).s, tool_size(st->zero_bytes).s,
	       tool_size(st->metadata_bytes).s);
	printf("faults\n");
	report_faults("CPU", st->cpu_faults, &st->cpu_fault);
	report_faults("device", st->device_faults, &st->device_fault);
	printf("  %lu looked again because memory changed, %lu pages busy, %lu blocks evicted\n",
	       (unsigned long)st->retries, (unsigned long)st->busy, (unsigned long)st->evictions);
	printf("time in migrations: %.2f ms, of which copying %.2f ms (%.0f %%)\n",
	       st->migrate_ns / 1e6, st->copy_ns / 1e6,
	       st->migrate_ns ? 100.0 * st->copy_ns / st->migrate_ns : 0);
}
