/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What programs do rarely, to memory that is Balun's too: nothing may spin, and no byte may be
 * lost. */
#include "tests/barrier/barrier.h"

#include "env/env.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LEN    (2 * BALUN_BLOCK_SIZE)
#define ROUNDS 3

static void lock_all(int flags)
{
	/* the system call: sanitizers make the function do nothing, for their shadow is large */
	if (KIT_ASAN || KIT_TSAN)
		kit_skip("a sanitizer's shadow cannot be locked");
	if (syscall(SYS_mlockall, flags))
		kit_skip("mlockall(): %s", strerror(errno));
}

/* there and back again: pages that are locked may stay */
static void go_round(struct kit *k, uint64_t va, struct balun_device *dev)
{
	struct balun_counts c;

	CHECK_OK(balun_migrate(k->space, (void *)va, LEN, dev, &c));
	CHECK_EQ(c.failed, 0);
	dev_verify(k->dev, va, LEN, SEED);
	CHECK_OK(balun_migrate(k->space, (void *)va, LEN, NULL, &c));
	CHECK_EQ(c.failed, 0);
	kit_verify(k, va, LEN, SEED);
}

struct scene {
	struct kit *k;
	struct area a;
};

static void move_out(void *arg)
{
	struct scene *s = arg;
	struct balun_counts n;

	(void)balun_migrate(s->k->space, (void *)s->a.va, s->a.end - s->a.va, s->k->dev, &n);
}

/*
 * Memory that is about to be watched for the first time raises no event yet when its middle is
 * unmapped. What is mapped there later is not watched.
 */
static void watched_in_part(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k };
	struct worker mover;

	area_make(k, c->call, &s.a);
	worker_start(&mover, move_out, &s);
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	CHECK(!syscall(SYS_munmap, s.a.mid, MID_LEN));
	stop_release();
	worker_join(&mover);
	c->call->fn(&s.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	area_check(k, c->call, &s.a, true);
	area_drop(k, c->call, &s.a);
}

/* does the mapping at @va raise faults? */
static bool is_registered(uint64_t va)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	uint64_t start = 0, end = 0, a, b;
	char line[512];
	bool found = false, is = false;

	CHECK(f);
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &a, &b) == 2)
			start = a, end = b;
		found = va >= start && va < end && !strncmp(line, "VmFlags:", 8);
		is = found && (strstr(line, " um") || strstr(line, " uw"));
	}
	fclose(f);
	CHECK(found);
	return is;
}

#define OURS_LEN (64 * PAGE)
#define OURS_MAX 4096

/*
 * What is mapped where the program's memory was, when that is about to be watched, can be Balun's:
 * it is not watched. The service thread would wait for itself.
 */
static void watched_is_ours(struct kit *k, const struct cell *c)
{
	/* where the kernel maps Balun's as well; a block of it */
	char *map = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct scene s = { .k = k };
	void *ours[OURS_MAX];
	unsigned int n = 0;
	struct worker mover;
	uint64_t at;

	CHECK(map != MAP_FAILED);
	s.a.va = ((uintptr_t)map + BALUN_BLOCK_SIZE - 1) & ~(BALUN_BLOCK_SIZE - 1);
	s.a.end = s.a.va + BALUN_BLOCK_SIZE;
	worker_start(&mover, move_out, &s);
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	CHECK(!syscall(SYS_munmap, s.a.va, BALUN_BLOCK_SIZE));
	do { /* until one is there: other holes are filled first */
		CHECK(n < OURS_MAX);
		ours[n] = env_pages_alloc(OURS_LEN);
		CHECK(ours[n]);
		at = (uintptr_t)ours[n++];
	} while (at < s.a.va || at + OURS_LEN > s.a.end);
	stop_release();
	worker_must_finish(&mover, "the mover", c->point);
	worker_join(&mover);
	CHECK(!is_registered(at));
	while (n--)
		env_pages_free(ours[n], OURS_LEN);
	CHECK(!munmap(map, LEN)); /* what is left of it */
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

static void map_ours(void *arg)
{
	void **ret = arg;

	*ret = env_pages_alloc(OURS_LEN);
}

/* nor does any come there between the look at whose it is and that it is watched */
static void watched_becomes_ours(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k };
	struct worker mover, caller;
	void *ours = NULL;

	s.a.va = kit_filled(k, LEN, SEED);
	s.a.end = s.a.va + LEN;
	worker_start(&mover, move_out, &s);
	worker_start(&caller, map_ours, &ours);
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	worker_go(&caller);
	worker_must_wait(&caller, SYS_futex, "env_pages_alloc", c->point);
	stop_release();
	worker_must_finish(&caller, "env_pages_alloc", c->point);
	worker_must_finish(&mover, "the mover", c->point);
	worker_join(&caller);
	worker_join(&mover);
	CHECK(ours && !is_registered((uintptr_t)ours) && is_registered(s.a.va));
	env_pages_free(ours, OURS_LEN);
	kit_verify(k, s.a.va, LEN, SEED);
	CHECK_OK(k->mem->unmap(k, s.a.va, LEN));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

static void realloc_run(void *arg)
{
	struct scene *s = arg;
	char *block = (char *)s->a.mid + BLOCK_HEAD, *volatile p = block;

	p = realloc(p, MID_LEN - PAGE - 2 * BLOCK_HEAD);
	CHECK(p == block);
}

/*
 * realloc() writes to the head of the block, inside its hook: it must not wait there for a page
 * whose move waits for the hook. The middle of the area is the block; it loses its last page.
 */
static void realloc_written(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k };
	struct worker mover, caller;
	volatile size_t *head;
	uint64_t word;

	if (KIT_ASAN || KIT_TSAN)
		kit_skip("realloc() is the sanitizer's");
	area_make(k, c->call, &s.a);
	head = (void *)s.a.mid;
	head[0] = 0;
	head[1] = MID_LEN | BLOCK_MAPPED;
	worker_start(&mover, move_out, &s);
	worker_start(&caller, realloc_run, &s);
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	worker_go(&caller);
	worker_must_wait(&caller, -1, "realloc", c->point);
	stop_release();
	worker_must_finish(&caller, "realloc", c->point);
	worker_must_finish(&mover, "the mover", c->point);
	worker_join(&caller);
	worker_join(&mover);
	CHECK_RC(k->mem->load(k, s.a.after - PAGE, &word, sizeof(word)), -EFAULT);
	kit_verify(k, s.a.va, s.a.mid - s.a.va, SEED);
	kit_verify_part(k, s.a.va, s.a.mid + PAGE - s.a.va, MID_LEN - 2 * PAGE, SEED);
	CHECK_OK(k->mem->unmap(k, s.a.va, s.a.end - s.a.va));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

/* All memory of the process is locked, the engine's too, before pages go, or while they are away */
static void locked(struct kit *k, const struct cell *c)
{
	uint64_t va = kit_filled(k, LEN, SEED);
	unsigned int i;

	if (c->raw)
		kit_move(k, va, LEN, k->dev);
	lock_all(c->mover);
	for (i = 0; i < ROUNDS; i++)
		go_round(k, va, k->dev);
	CHECK_OK(k->mem->unmap(k, va, LEN));
	va = kit_filled(k, LEN, SEED);
	for (i = 0; i < ROUNDS; i++)
		go_round(k, va, k->dev);
	CHECK_OK(k->mem->unmap(k, va, LEN));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

/* Between a device whose memory is locked and one whose memory is not. (Pages that are away when
 * all is locked have come home by that: it touches them.) */
static void locked_between(struct kit *k, const struct cell *c)
{
	uint64_t va = kit_filled(k, LEN, SEED);
	struct balun_device *other;
	struct balun_counts n;

	(void)c;
	lock_all(MCL_CURRENT);
	other = kit_device(k, way_dev);
	kit_migrate(k, va, LEN, k->dev);
	n = kit_migrate(k, va, LEN, other);
	CHECK(n.moved || way != WAY_MOVE);
	CHECK_EQ(n.failed, 0);
	dev_verify(other, va, LEN, SEED);
	n = kit_migrate(k, va, LEN, k->dev);
	CHECK(n.moved || way != WAY_MOVE);
	CHECK_EQ(n.failed, 0);
	kit_verify(k, va, LEN, SEED);
	CHECK_OK(kit_close(k, other));
	CHECK_OK(k->mem->unmap(k, va, LEN));
}

void odd_cells(void)
{
	static const char *const when[] = { "before", "away" };
	static const char *const inside[] = { "copy-protected", "copy-read", "move-collected",
					      "move-copied" };
	const struct call *call;
	struct cell *c;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		c = cell_add(locked, WAY_ALL, "mlockall/%s/%s", i & 1 ? "future" : "now",
			     when[i >> 1]);
		c->mover = MCL_CURRENT | (i & 1 ? MCL_FUTURE : 0);
		c->raw = i >> 1;
		c->alone = true;
	}
	for (call = calls; strcmp(call->name, "mmap-over"); call++)
		;
	c = cell_add(watched_in_part, WAY_ALL, "%s/watch-queried/munmap", call->name);
	c->call = call;
	c->point = "watch-queried";
	c = cell_add(watched_is_ours, WAY_ALL, "balun's/watch-queried/there");
	c->point = "watch-queried";
	c = cell_add(watched_becomes_ours, WAY_ALL, "balun's/watch-sure/waits");
	c->point = "watch-sure";
	for (i = 0; i < sizeof(inside) / sizeof(inside[0]); i++) {
		c = cell_add(realloc_written, strncmp(inside[i], "copy", 4) ? WAY_ALL : WAY_COPY,
			     "realloc/%s/out", inside[i]);
		c->call = call;
		c->point = inside[i];
	}
	cell_add(locked_between, WAY_ALL, "mlockall/two-devices")->alone = true;
}
