// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: graph_solve.c - what a CPU alone makes of the graph
 *
 * The reference that the device is checked against: names are found by binary search instead of
 * hashing, dependencies by depth first search instead of breadth first, ranks are pulled over an
 * array instead of pushed along pointers. All integers, so the answers are equal to the bit.
 */
#include "graph.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* a name of the index: sorted by text, then in order of precedence */
struct entry {
	const char *text;
	uint64_t order;
	struct pkg *pkg;
};

struct edges {
	uint64_t *first; /* npkgs + 1 */
	uint32_t *to;
};

static int entry_cmp(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int c = strcmp(x->text, y->text);

	return c ? c : (x->order > y->order) - (x->order < y->order);
}

static struct entry *make_index(const struct graph *g, uint64_t *ret_n)
{
	const struct name *n;
	struct entry *e;
	uint64_t i, count = 0;

	for (i = 0; i < g->nbuckets; i++)
		for (n = g->bucket[i]; n; n = n->next)
			count++;
	e = calloc(count + 1, sizeof(*e));
	if (!e)
		return NULL;
	count = 0;
	for (i = 0; i < g->nbuckets; i++)
		for (n = g->bucket[i]; n; n = n->next, count++)
			e[count] = (struct entry){ n->text, count, n->pkg };
	qsort(e, count, sizeof(*e), entry_cmp);
	*ret_n = count;
	return e;
}

static struct pkg *find(const struct entry *e, uint64_t n, const char *text)
{
	uint64_t lo = 0, hi = n, mid;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (strcmp(e[mid].text, text) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && !strcmp(e[lo].text, text) ? e[lo].pkg : NULL;
}

static int solve_links(const struct graph *g, struct pkg **to)
{
	const struct dep *d;
	const struct alt *a;
	struct entry *e;
	uint64_t n, i;

	e = make_index(g, &n);
	if (!e)
		return -ENOMEM;
	for (i = 0; i < g->npkgs; i++) {
		for (d = g->all[i]->deps; d; d = d->next, to++) {
			*to = NULL;
			for (a = d->alts; a && !*to; a = a->next)
				*to = find(e, n, a->name);
		}
	}
	free(e);
	return 0;
}

static void make_edges(const struct graph *g, struct pkg *const *to, struct edges *e)
{
	uint64_t i, k, n = 0;

	for (i = 0; i < g->npkgs; i++) {
		e->first[i] = n;
		for (k = 0; k < g->all[i]->ndeps; k++, to++)
			if (*to)
				e->to[n++] = (*to)->index;
	}
	e->first[i] = n;
}

/* depth first, a stack of the packages still to look at */
static uint64_t reach_of(const struct edges *e, uint32_t from, uint32_t *mark, uint32_t *stack)
{
	uint64_t count = 0, top = 0, k;
	uint32_t at;

	mark[from] = from + 1;
	stack[top++] = from;
	while (top) {
		at = stack[--top];
		for (k = e->first[at]; k < e->first[at + 1]; k++) {
			if (mark[e->to[k]] == from + 1)
				continue;
			mark[e->to[k]] = from + 1;
			stack[top++] = e->to[k];
			count++;
		}
	}
	return count;
}

static int solve_reach(const struct graph *g, const struct edges *e, uint64_t *reach)
{
	uint32_t *mark = calloc(g->npkgs, sizeof(*mark));
	uint32_t *stack = calloc(g->npkgs, sizeof(*stack));
	uint64_t i;

	if (mark && stack)
		for (i = 0; i < g->npkgs; i++)
			reach[i] = reach_of(e, i, mark, stack);
	free(mark);
	free(stack);
	return mark && stack ? 0 : -ENOMEM;
}

static int solve_rank(const struct graph *g, const struct edges *e, uint64_t *rank)
{
	uint64_t n = g->npkgs, i, k, out, dangling, *next;
	unsigned int it;

	next = calloc(n, sizeof(*next));
	if (!next)
		return -ENOMEM;
	for (i = 0; i < n; i++)
		rank[i] = RANK_ONE / n;
	for (it = 0; it < RANK_ITERATIONS; it++) {
		dangling = 0;
		memset(next, 0, n * sizeof(*next));
		for (i = 0; i < n; i++) {
			out = e->first[i + 1] - e->first[i];
			if (!out)
				dangling += RANK_DAMPING(rank[i]);
			for (k = e->first[i]; k < e->first[i + 1]; k++)
				next[e->to[k]] += RANK_DAMPING(rank[i]) / out;
		}
		for (i = 0; i < n; i++)
			rank[i] = (RANK_ONE - RANK_DAMPING(RANK_ONE)) / n + dangling / n + next[i];
	}
	free(next);
	return 0;
}

int graph_solve(const struct graph *g, struct graph_answer *ret_a)
{
	uint64_t ndeps = graph_ndeps(g);
	struct graph_answer a = {
		.to = calloc(ndeps + 1, sizeof(*a.to)),
		.reach = calloc(g->npkgs, sizeof(*a.reach)),
		.rank = calloc(g->npkgs, sizeof(*a.rank)),
	};
	struct edges e = {
		.first = calloc(g->npkgs + 1, sizeof(*e.first)),
		.to = calloc(ndeps + 1, sizeof(*e.to)),
	};
	int ret = -ENOMEM;

	if (a.to && a.reach && a.rank && e.first && e.to)
		ret = solve_links(g, a.to);
	if (!ret) {
		make_edges(g, a.to, &e);
		ret = solve_reach(g, &e, a.reach);
	}
	if (!ret)
		ret = solve_rank(g, &e, a.rank);
	free(e.first);
	free(e.to);
	if (ret)
		graph_answer_free(&a);
	else
		*ret_a = a;
	return ret;
}

void graph_answer_free(struct graph_answer *a)
{
	free(a->to);
	free(a->reach);
	free(a->rank);
	memset(a, 0, sizeof(*a));
}
