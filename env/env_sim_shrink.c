// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Shrinking of a failing schedule: see env_sim.h. */
#include <stdlib.h>

#include "env/env.h"
#include "env/env_sim.h"

/* whether a run of the list still fails alike; counts it */
static bool fails(const uint32_t *list, size_t n, env_sim_fn fn, void *arg, int err,
		  unsigned int *runs)
{
	if (!*runs)
		return false;
	--*runs;
	return env_sim_run_choices(list, n, fn, arg) == err;
}

/* zeroes [from, from + len) if the run still fails; returns whether anything changed */
static bool try_zero(uint32_t *list, size_t n, size_t from, size_t len, uint32_t *save,
		     env_sim_fn fn, void *arg, int err, unsigned int *runs)
{
	size_t i;

	for (i = from; i < from + len && !list[i]; i++)
		;
	if (i == from + len)
		return false;
	memcpy(save, list + from, len * sizeof(*list));
	memset(list + from, 0, len * sizeof(*list));
	if (fails(list, n, fn, arg, err, runs))
		return true;
	memcpy(list + from, save, len * sizeof(*list));
	return false;
}

size_t env_sim_shrink(uint32_t *list, size_t *n, env_sim_fn fn, void *arg, int err,
		      unsigned int max_runs)
{
	uint32_t *save = malloc((*n + 1) * sizeof(*save));
	size_t step, i, left = 0;

	env_assert(save);
	/* halves, quarters, ... single choices; from the end, where most do not matter */
	for (step = *n; step && max_runs; step /= 2) {
		for (i = *n; i > 0 && max_runs;) {
			size_t from = i > step ? i - step : 0;

			try_zero(list, *n, from, i - from, save, fn, arg, err, &max_runs);
			i = from;
		}
	}
	free(save);
	while (*n && !list[*n - 1])
		--*n;
	for (i = 0; i < *n; i++)
		left += list[i] != 0;
	env_sim_run_choices(list, *n, fn, arg);
	return left;
}
