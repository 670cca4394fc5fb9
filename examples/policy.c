// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A policy of one's own. The program hands a big table to the device and then looks at one entry
 * here and there. The built-in policy brings ever more neighbours of a touch home, which is right
 * for a program that reads on; this one brings home only the 64 KiB around it, and leaves every
 * other question to the built-in policy. The same work under both shows what that changes.
 */
#include <stdio.h>
#include <stdlib.h>

#include <balun/balun.h>
#include <balun/policy.h>
#include <balun/soft.h>

#define TABLE_BYTES (32UL << 20)
#define STEP	    (1UL << 20)
#define WINDOW	    16 /* pages: 64 KiB */

/* A pure function: state, where one needs it, is static. Faults of several threads come at once. */
static unsigned int narrowed;

static void sparse_decide(const struct balun_question *q, struct balun_answer *ret_a)
{
	unsigned int i, first = q->first / WINDOW * WINDOW;

	balun_policy_default(q, ret_a);
	if (q->device)
		return;
	for (i = 0; i < BALUN_BLOCK_PAGES; i++)
		if (i < first || i >= first + WINDOW)
			ret_a->fetch[i / 64] &= ~(1ULL << (i % 64));
	__atomic_fetch_add(&narrowed, 1, __ATOMIC_RELAXED);
}

static const struct balun_policy sparse_policy = {
	.size = sizeof(struct balun_policy),
	.name = "sparse",
	.decide = sparse_decide,
};

struct result {
	uint64_t cpu_faults, home;
};

static uint64_t sum(const uint64_t by_cause[BALUN_NR_CAUSES])
{
	uint64_t n = 0;
	int i;

	for (i = 0; i < BALUN_NR_CAUSES; i++)
		n += by_cause[i];
	return n;
}

/* fill the table on the device, then touch one byte of every MiB */
static int work(struct balun_space *space, struct balun_device *dev, struct result *ret)
{
	struct balun_stats stats = { .size = sizeof(stats) };
	struct soft_args *args = calloc(1, sizeof(*args));
	unsigned char *table = malloc(TABLE_BYTES);
	uint64_t fence, off;
	int err = -1;

	if (!args || !table)
		goto out;
	args->dst = (uintptr_t)table;
	args->len = TABLE_BYTES;
	args->value = 7;
	err = balun_soft_launch(dev, balun_soft_fill, (uintptr_t)args, 0, &fence);
	if (!err)
		err = balun_soft_wait(dev, fence, NULL);
	for (off = 0; !err && off < TABLE_BYTES; off += STEP)
		if (table[off] != 7)
			err = -1;
	if (!err)
		err = balun_stats(space, &stats);
	if (!err)
		*ret = (struct result){ stats.cpu_faults, sum(stats.to_system) };
out:
	free(table);
	free(args);
	return err;
}

static int run(const struct balun_policy *policy, const char *name, struct result *ret)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .policy = policy };
	struct balun_space *space;
	struct balun_device *dev;
	int err;

	err = balun_space_create(&opts, &space);
	if (err)
		goto out;
	err = balun_device_open(space, "soft:mem=64M", &dev);
	if (!err)
		err = work(space, dev, ret);
	if (balun_space_destroy(space) && !err)
		err = -1;
out:
	if (err)
		fprintf(stderr, "policy %s: %s\n", name, balun_reason());
	else
		printf("%-8s %6llu CPU faults, %6llu KiB came home\n", name,
		       (unsigned long long)ret->cpu_faults, (unsigned long long)ret->home >> 10);
	return err;
}

int main(void)
{
	struct result usual, sparse;

	if (run(NULL, "default", &usual) || run(&sparse_policy, "sparse", &sparse))
		return 1;
	printf("%u answers were narrowed to %u KiB\n", narrowed, WINDOW * 4);
	return !(narrowed && sparse.home <= usual.home);
}
