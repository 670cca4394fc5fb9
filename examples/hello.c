// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Hello: a device that follows ordinary pointers. The array comes from malloc(), the arguments are
 * on the stack, nothing is registered and nothing is copied by hand. The lines that matter are
 * numbered.
 *
 * In your own project: cc hello.c $(pkg-config --cflags --libs balun)
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <balun/balun.h>
#include <balun/soft.h>

struct job {
	uint64_t *v, n;
};

/* Runs on every worker of the device. Memory exists here only through soft_load and soft_store;
 * an address that the device has not seen yet is fetched when it is used. */
static void square(struct soft_worker *w, uint64_t arg)
{
	uint64_t v = soft_load_u64(w, arg + offsetof(struct job, v)); /* 1 */
	uint64_t n = soft_load_u64(w, arg + offsetof(struct job, n)); /* 2 */
	uint64_t i, end = n * (w->index + 1) / w->nworkers;	      /* 3 */

	for (i = n * w->index / w->nworkers; i < end; i++) { /* 4 */
		uint64_t x = soft_load_u64(w, v + i * 8);    /* 5 */

		soft_store_u64(w, v + i * 8, x * x); /* 6 */
	}
}

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, balun_reason());
	return 1;
}

int main(int argc, char **argv)
{
	const char *spec = argc > 1 ? argv[1] : "soft:mem=64M";
	struct job job = { .n = 1000000 };
	struct balun_space *space;
	struct balun_device *dev;
	uint64_t i, fence, wrong = 0;

	job.v = malloc(job.n * sizeof(*job.v)); /* 7 */
	if (!job.v)
		return 1;
	for (i = 0; i < job.n; i++)
		job.v[i] = i; /* 8 */

	if (balun_space_create(NULL, &space)) /* 9 */
		return fail("balun_space_create");
	if (balun_device_open(space, spec, &dev)) /* 10 */
		return fail(spec);
	if (balun_soft_launch(dev, square, (uintptr_t)&job, 0, &fence)) /* 11 */
		return fail("balun_soft_launch");
	if (balun_soft_wait(dev, fence, NULL)) /* 12 */
		return fail("square");

	for (i = 0; i < job.n; i++)
		wrong += job.v[i] != i * i; /* 13: pages come home */
	printf("%llu squares, %llu wrong\n", (unsigned long long)job.n, (unsigned long long)wrong);

	if (balun_space_destroy(space)) /* 14 */
		return fail("balun_space_destroy");
	free(job.v); /* 15 */
	return wrong != 0;
}
