// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A policy of one's own. The program has the device fill a big table and then uses all of it, in an
 * order that nobody can foresee. The built-in policy brings home the 64 KiB around a touch, and
 * more only when it sees a pattern; this one knows the program, brings home the whole 2 MiB block
 * at its first touch, and leaves every other question to the built-in policy. The same work under
 * both shows what that changes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <balun/balun.h>
#include <balun/policy.h>
#include <balun/soft.h>

#define TABLE_BYTES (32UL << 20)
#define UNIT	    (64UL << 10)
#define UNITS	    (TABLE_BYTES / UNIT)

/* A pure function: state, where one needs it, is static. Faults of several threads come at once. */
static unsigned int widened;

static void whole_decide(const struct balun_question *q, struct balun_answer *ret_a)
{
	balun_policy_default(q, ret_a);
	if (q->device)
		return;
	memcpy(ret_a->fetch, q->candidate, sizeof(ret_a->fetch));
	__atomic_fetch_add(&widened, 1, __ATOMIC_RELAXED);
}

static const struct balun_policy whole_policy = {
	.size = sizeof(struct balun_policy),
	.name = "whole",
	.decide = whole_decide,
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

/* fill the table on the device, then use every 64 KiB of it, in no order */
static int work(struct balun_space *space, struct balun_device *dev, struct result *ret)
{
	struct balun_stats stats = { .size = sizeof(stats) };
	struct soft_args *args = calloc(1, sizeof(*args));
	unsigned char *table = malloc(TABLE_BYTES);
	uint64_t fence, i;
	int err = -1;

	if (!args || !table)
		goto out;
	args->dst = (uintptr_t)table;
	args->len = TABLE_BYTES;
	args->value = 7;
	err = balun_soft_launch(dev, balun_soft_fill, (uintptr_t)args, 0, &fence);
	if (!err)
		err = balun_soft_wait(dev, fence, NULL);
	for (i = 0; !err && i < UNITS; i++)
		if (table[i * 389 % UNITS * UNIT] != 7) /* odd, so every unit comes once */
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
	struct result usual, whole;

	if (run(NULL, "default", &usual) || run(&whole_policy, "whole", &whole))
		return 1;
	printf("%u answers were widened to the block\n", widened);
	return !(widened && whole.cpu_faults < usual.cpu_faults);
}
