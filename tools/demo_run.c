// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: demo_run.c - the device runs over the graph, the CPU checks, changes it, and again
 */
#include "demo.h"
#include "tool.h"

#include <string.h>
#include <unistd.h>

#define CHUNK	    256		  /* packages per launch */
#define PATIENCE_NS 2000000000ULL /* before progress is shown */
#define DIFFS_SHOWN 3

static void set_quiet(struct demo *d, bool on)
{
	if (on == d->quiet)
		return;
	if (on)
		pthread_rwlock_wrlock(&d->mem.lock);
	else
		pthread_rwlock_unlock(&d->mem.lock);
	d->quiet = on;
}

static void show_progress(struct demo *d, const char *what, uint64_t done, uint64_t all)
{
	if (tool_now_ns() - d->started < PATIENCE_NS || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r\033[K%s %lu of %lu", what, (unsigned long)done, (unsigned long)all);
	d->progress = true;
}

static void end_progress(struct demo *d)
{
	if (d->progress)
		fprintf(stderr, "\r\033[K");
	d->progress = false;
}

/* one function over packages [from, to), to its end */
static int launch(struct demo *d, soft_fn fn, uint64_t from, uint64_t to, uint64_t iteration)
{
	struct job *job = d->o.job;
	uint64_t fence, addr;
	int ret;

	ret = demo_mem_store(&d->mem, &job->from, from);
	if (!ret)
		ret = demo_mem_store(&d->mem, &job->to, to);
	if (!ret)
		ret = demo_mem_store(&d->mem, &job->iteration, iteration);
	if (!ret)
		ret = balun_soft_launch(d->dev, fn, (uintptr_t)job, 0, &fence);
	if (ret) {
		tool_error(DEMO_CMD, "launch: %s: %s", strerror(-ret), balun_reason());
		return ret;
	}
	ret = balun_soft_wait(d->dev, fence, &addr);
	if (ret)
		tool_error(DEMO_CMD, "the device failed at 0x%lx: %s", (unsigned long)addr,
			   strerror(-ret));
	return ret;
}

static int launch_chunks(struct demo *d, soft_fn fn, const char *what)
{
	uint64_t n = d->o.g->npkgs, at;
	int ret = 0;

	for (at = 0; at < n && !ret; at += CHUNK) {
		show_progress(d, what, at, n);
		ret = launch(d, fn, at, at + CHUNK < n ? at + CHUNK : n, 0);
	}
	return ret;
}

static int launch_all(struct demo *d)
{
	uint64_t n = d->o.g->npkgs, i;
	int ret;

	ret = launch_chunks(d, demo_soft_link, "links: package");
	if (!ret)
		ret = launch_chunks(d, demo_soft_reach, "dependencies: package");
	if (!ret)
		ret = launch(d, demo_soft_rank_init, 0, n, 0);
	for (i = 0; i < RANK_ITERATIONS && !ret; i++) {
		show_progress(d, "rank: iteration", i, RANK_ITERATIONS);
		ret = launch(d, demo_soft_rank_push, 0, n, i);
		if (!ret)
			ret = launch(d, demo_soft_rank_pull, 0, n, i);
	}
	end_progress(d);
	return ret;
}

static void diff(uint64_t *n, const struct pkg *p, const char *what, uint64_t dev, uint64_t cpu)
{
	if ((*n)++ < DIFFS_SHOWN)
		printf("  DIFFERS: %.40s: %s: device 0x%lx, CPU 0x%lx\n", p->name, what,
		       (unsigned long)dev, (unsigned long)cpu);
}

/* how many results differ */
static uint64_t compare(const struct graph *g, const struct graph_answer *a)
{
	struct pkg *const *to = a->to;
	const struct pkg *p;
	const struct dep *dep;
	uint64_t i, n = 0;

	for (i = 0; i < g->npkgs; i++) {
		p = g->all[i];
		for (dep = p->deps; dep; dep = dep->next, to++)
			if (dep->to != *to)
				diff(&n, p, "link", (uintptr_t)dep->to, (uintptr_t)*to);
		if (p->reach != a->reach[i])
			diff(&n, p, "needs", p->reach, a->reach[i]);
		if (p->rank != a->rank[i])
			diff(&n, p, "rank", p->rank, a->rank[i]);
	}
	return n;
}

static uint64_t count_unmet(const struct graph *g)
{
	const struct dep *dep;
	uint64_t i, n = 0;

	for (i = 0; i < g->npkgs; i++)
		for (dep = g->all[i]->deps; dep; dep = dep->next)
			n += !dep->to;
	return n;
}

/* what the device must find before a run; the lock is held exclusively */
static int prepare(struct demo *d)
{
	struct job *job = d->o.job;
	unsigned int i;

	for (i = 0; i < d->o.nworkers; i++)
		memset(job->scratch[i].seen, 0, job->npkgs * sizeof(uint32_t));
	job->leak[0] = job->leak[1] = 0;
	return demo_mem_to_sim(&d->mem, &d->o);
}

/* the device computes, the CPU reads and compares: 0, number of differences in *ret_diffs */
static int run_once(struct demo *d, unsigned int number, uint64_t *ret_diffs)
{
	struct graph_answer a;
	uint64_t t0, t1, t2;
	int ret;

	t0 = tool_now_ns();
	ret = graph_solve(d->o.g, &a);
	if (ret)
		return ret;
	t1 = tool_now_ns();
	set_quiet(d, false);
	ret = launch_all(d);
	t2 = tool_now_ns();
	if (!ret && d->mem.sim) {
		/* hammers write in the simulated process: between reading it back and filling it
		 * again they must rest */
		set_quiet(d, true);
		ret = demo_mem_from_sim(&d->mem, &d->o);
	}
	if (!ret) {
		*ret_diffs = compare(d->o.g, &a);
		printf("run %u: device %.1f ms, CPU alone %.1f ms; %lu links (%lu lead nowhere), "
		       "%lu packages: %s\n",
		       number, (t2 - t1) / 1e6, (t1 - t0) / 1e6, (unsigned long)graph_ndeps(d->o.g),
		       (unsigned long)count_unmet(d->o.g), (unsigned long)d->o.g->npkgs,
		       *ret_diffs ? "DIFFERENT" : "all equal");
	}
	graph_answer_free(&a);
	return ret;
}

static int change(struct demo *d)
{
	struct graph_changes c;
	int ret;

	set_quiet(d, true);
	ret = graph_change(d->o.g, &c);
	if (!ret)
		ret = prepare(d);
	if (!ret)
		printf("the CPU changes the graph: %u packages freed and allocated anew, %u "
		       "dependencies removed, %u added\n",
		       c.moved, c.removed, c.added);
	return ret;
}

int demo_run_both(struct demo *d, unsigned int hammers)
{
	uint64_t diffs[2] = { 0 }, wrong = 0;
	int ret;

	set_quiet(d, true);
	ret = prepare(d);
	set_quiet(d, false);
	if (!ret && hammers)
		ret = demo_hammer_start(&d->mem, d->o.g, hammers, &d->hammer);
	if (!ret)
		ret = run_once(d, 1, &diffs[0]);
	if (!ret) {
		demo_report_top(d->o.g);
		ret = change(d);
	}
	if (!ret)
		ret = run_once(d, 2, &diffs[1]);
	set_quiet(d, false);
	if (d->hammer)
		wrong = demo_hammer_stop(d->hammer);
	if (ret)
		tool_error(DEMO_CMD, "%s", strerror(-ret));
	return ret ? ret : diffs[0] || diffs[1] || wrong;
}
