// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Chaos: moves random runs of the program's pages to a random device and back, so and so many pages
 * a second, whatever the program does. It must not notice.
 */
#include "run/run.h"

#define CHAOS_NS 500000ULL /* between looks, at least */

static uint64_t seed;

/* splitmix64 */
static uint64_t draw(uint64_t below)
{
	uint64_t x = seed += 0x9e3779b97f4a7c15ULL;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return (x ^ (x >> 31)) % below;
}

/* a run of 1 to 512 pages, in an area chosen by its size; returns how many pages moved */
static uint64_t move_some(const struct area *a, unsigned int n)
{
	unsigned int to = draw(run.ndevices + 1), i;
	uint64_t total = 0, at, pages = 1ULL << draw(10);
	struct balun_counts c = { 0 };

	for (i = 0; i < n; i++)
		total += a[i].end - a[i].start;
	if (!total)
		return 0;
	at = draw(total);
	for (i = 0; at >= a[i].end - a[i].start; i++)
		at -= a[i].end - a[i].start;
	at = (a[i].start + at) & ~(RUN_PAGE - 1);
	/* the kernel would cut the mapping in two around what has been away, and the program that
	 * has it whole could not mremap() it */
	balun_watch(run.space, (void *)(uintptr_t)a[i].start, a[i].end - a[i].start);
	if (pages > (a[i].end - at) / RUN_PAGE)
		pages = (a[i].end - at) / RUN_PAGE;
	balun_migrate(run.space, (void *)(uintptr_t)at, pages * RUN_PAGE,
		      to < run.ndevices ? run.device[to] : NULL, &c);
	return c.moved;
}

uint64_t chaos_look(void)
{
	static uint64_t due, rounds; /* when what has moved so far may have moved */
	uint64_t now = run_now_ns(), moved = 0;
	const struct area *a;
	unsigned int n = 0, i;

	if (run_begin())
		return 1000000000;
	if (!seed)
		seed = run.shared->chaos_seed;
	a = areas_read(&n);
	/* most of it is untouched or away already: some tries a round */
	for (i = 0; a && i < 16 && !moved; i++)
		moved += move_some(a, n);
	if (!(rounds++ % 64))
		run_note(keep_resident());
	/* what it is behind by, nobody makes up for */
	due = (due > now ? due : now) + moved * 1000000000ULL / run.shared->chaos;
	return due - now > CHAOS_NS ? due - now : CHAOS_NS;
}
