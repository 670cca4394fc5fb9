// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The reader of package databases on any bytes: it ends, stays inside the buffer, and what it takes
 * makes a graph that a CPU can solve, change and free. An error names a line of the input.
 */
#include "tools/graph.h"

#include <errno.h>
#include <stdlib.h>

#define SIZE_MAX_FUZZ (1 << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long count_lines(const uint8_t *data, size_t size)
{
	unsigned long n = 1;

	while (size--)
		n += *data++ == '\n';
	return n;
}

static void solve(struct graph *g)
{
	struct graph_answer a;

	if (graph_solve(g, &a))
		return;
	for (uint64_t i = 0; i < g->npkgs; i++)
		if (a.reach[i] >= g->npkgs || g->all[i]->index != i)
			abort();
	graph_answer_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dpkg_error err = { 0 };
	struct graph_changes c;
	struct graph *g;
	int ret;

	if (size > SIZE_MAX_FUZZ)
		return 0;
	ret = graph_load((const char *)data, size, &g, &err);
	if (ret == -EINVAL && (!err.line || err.line > count_lines(data, size) || !*err.what))
		abort();
	if (ret)
		return 0;
	solve(g);
	if (!graph_change(g, &c))
		solve(g);
	graph_free(g);
	return 0;
}
