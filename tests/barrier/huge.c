/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Huge pages: memory calls on parts of one, before the move, on the way, and after it; huge zero
 * pages; read-only holes; and memory that is not to be had, on the way out and home.
 */
#include "tests/barrier/barrier.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define BLOCK BALUN_BLOCK_SIZE

enum state {
	BEFORE,
	GOING,
	AFTER,
	COMING,
	STATES
};
static const char *const state_name[STATES] = { "before", "going", "after", "coming" };

static bool is_huge(struct kit *k, uint64_t va)
{
	return kit_query1(k, va).flags & BALUN_EXTENT_HUGE;
}

static void want_huge(uint64_t va)
{
	if (madvise((void *)va, BLOCK, MADV_HUGEPAGE))
		kit_skip("this kernel has no transparent huge pages");
}

/* a huge page, filled; the call is made on a part in its middle */
static void huge_make(struct kit *k, struct area *a)
{
	a->va = kit_place(k, 3 * BLOCK);
	a->mid = a->va + 100 * PAGE;
	a->after = a->mid + MID_LEN;
	a->end = a->va + BLOCK;
	a->to = a->va + 2 * BLOCK + 13 * PAGE;
	CHECK_OK(k->mem->map(k, a->va, BLOCK, KIT_RW));
	want_huge(a->va);
	kit_fill(k, a->va, BLOCK, SEED);
	if (!is_huge(k, a->va))
		kit_skip("this machine gives no huge page");
}

struct scene {
	struct kit *k;
	const struct cell *c;
	struct area a;
	struct balun_counts n;
	int rc;
};

static void mover_run(void *arg)
{
	struct scene *s = arg;
	struct balun_device *to = s->c->mover == GOING ? s->k->dev : NULL;

	s->rc = balun_migrate(s->k->space, (void *)s->a.va, BLOCK, to, &s->n);
}

static void caller_run(void *arg)
{
	struct scene *s = arg;

	s->c->call->fn(&s->a);
}

static void call_on_the_way(struct scene *s)
{
	struct worker mover, caller;

	worker_start(&mover, mover_run, s);
	worker_start(&caller, caller_run, s);
	stop_arm("move-copied");
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	worker_go(&caller);
	if (s->c->call->flags & CALL_FAULT)
		worker_must_wait(&caller, -1, s->c->call->name, "move-copied");
	else
		worker_must_finish(&caller, s->c->call->name, "move-copied");
	stop_release();
	worker_join(&caller);
	worker_join(&mover);
	CHECK(s->rc == 0 || s->rc == -EFAULT);
}

static void part_run(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c, .a.raw = c->raw };

	call_need(k, c->call);
	huge_make(k, &s.a);
	if (c->mover == AFTER || c->mover == COMING)
		kit_move(k, s.a.va, BLOCK, k->dev);
	if (c->mover == GOING || c->mover == COMING)
		call_on_the_way(&s);
	else
		c->call->fn(&s.a);
	area_check(k, c->call, &s.a, c->mover == BEFORE || c->mover == COMING);
	area_drop(k, c->call, &s.a);
}

/* ---- zeros ---- */

static void done(struct kit *k, uint64_t va, uint64_t len)
{
	CHECK_OK(k->mem->unmap(k, va, len));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

static void round_trip(struct kit *k, uint64_t va)
{
	kit_fill(k, va + 7 * PAGE, PAGE, SEED);
	kit_move(k, va, BLOCK, k->dev);
	dev_verify(k->dev, va + 7 * PAGE, PAGE, SEED);
	dev_fill(k->dev, va + 9 * PAGE, PAGE, SEED);
	kit_move(k, va, BLOCK, NULL);
	kit_verify_zero(k, va, 7 * PAGE);
	kit_verify(k, va + 7 * PAGE, PAGE, SEED);
	kit_verify_zero(k, va + 8 * PAGE, PAGE);
	kit_verify(k, va + 9 * PAGE, PAGE, SEED);
	kit_verify_zero(k, va + 10 * PAGE, BLOCK - 10 * PAGE);
}

/* read, and never written: the kernel maps one huge page of zeros for everybody */
static void zero_run(struct kit *k, const struct cell *c)
{
	uint64_t va = kit_place(k, BLOCK);

	(void)c;
	CHECK_OK(k->mem->map(k, va, BLOCK, KIT_RW));
	want_huge(va);
	CHECK_EQ(cpu_read64(k, va + 5 * PAGE), 0);
	if (!(kit_query1(k, va).flags & BALUN_EXTENT_ZERO) || !is_huge(k, va))
		kit_skip("this machine gives no huge zero page");
	kit_move(k, va, BLOCK, k->dev);
	dev_verify(k->dev, va, BLOCK, KIT_ZEROS);
	kit_verify_zero(k, va, BLOCK);
	round_trip(k, va);
	done(k, va, BLOCK);
}

/* a hole that may only be read; later it may be written */
static void readonly_run(struct kit *k, const struct cell *c)
{
	uint64_t va = kit_place(k, BLOCK), v = 1;

	CHECK_OK(k->mem->map(k, va, BLOCK, KIT_READ));
	want_huge(va);
	if (c->mover) /* the kernel's zeros are there, or nothing is */
		CHECK_EQ(cpu_read64(k, va), 0);
	kit_migrate(k, va, BLOCK, k->dev);
	dev_verify(k->dev, va, BLOCK, KIT_ZEROS);
	CHECK_RC(dev_write(k->dev, va, &v, sizeof(v)), -EPERM);
	CHECK_RC(k->mem->store(k, va, &v, sizeof(v)), -EFAULT);
	kit_verify_zero(k, va, BLOCK);
	CHECK_OK(k->mem->protect(k, va, BLOCK, KIT_RW));
	kit_move(k, va, BLOCK, k->dev);
	dev_verify(k->dev, va, BLOCK, KIT_ZEROS);
	round_trip(k, va);
	done(k, va, BLOCK);
}

/* ---- no memory ---- */

/* Device memory has room for the block, but in single pages: it goes piece by piece. */
static void fragments_run(struct kit *k, const struct cell *c)
{
	uint64_t total = kit_mem_total(k->dev), va, i;
	struct area a;

	(void)c;
	huge_make(k, &a);
	va = kit_place(k, total);
	CHECK_OK(k->mem->map(k, va, total, KIT_RW));
	kit_fill(k, va, total, SEED + 1);
	kit_move(k, va, total, k->dev);
	CHECK_EQ(kit_mem_used(k->dev), total);
	for (i = 0; i < 1024; i += 2)
		kit_move(k, va + i * PAGE, PAGE, NULL);
	CHECK_EQ(kit_mem_used(k->dev), total - BLOCK);
	/* nobody may be evicted to make one piece of it */
	CHECK_OK(balun_pin(k->space, (void *)va, total));
	kit_move(k, a.va, BLOCK, k->dev);
	CHECK_EQ(kit_mem_used(k->dev), total);
	dev_verify(k->dev, a.va, BLOCK, SEED);
	kit_move(k, a.va, BLOCK, NULL);
	kit_verify(k, a.va, BLOCK, SEED);
	kit_verify(k, va, total, SEED + 1);
	CHECK_OK(balun_unpin(k->space, (void *)va, total));
	CHECK_OK(k->mem->unmap(k, va, total));
	done(k, a.va, BLOCK);
}

/* no more address space: host memory that is needed on the way is not to be had */
static void limit_memory(bool on)
{
	struct rlimit r;
	unsigned long pages = 0;
	FILE *f = on ? fopen("/proc/self/statm", "r") : NULL;

	CHECK_EQ(getrlimit(RLIMIT_AS, &r), 0);
	if (f) {
		CHECK(fscanf(f, "%lu", &pages) == 1);
		fclose(f);
	}
	r.rlim_cur = on ? pages * PAGE : r.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_AS, &r), 0);
}

/*
 * A huge page wants frames that never held small ones, and there is no room for such. Those that
 * did, left from a small migration, do: it goes in small pages.
 */
static void no_memory_out(struct kit *k, const struct cell *c)
{
	uint64_t small = kit_place(k, BLOCK);
	struct area a;

	(void)c;
	huge_make(k, &a);
	CHECK_OK(k->mem->map(k, small, BLOCK, KIT_RW));
	kit_fill(k, small, 64 * PAGE, SEED);
	kit_move(k, small, 64 * PAGE, k->dev);
	kit_move(k, small, 64 * PAGE, NULL);
	limit_memory(true);
	kit_move(k, a.va, BLOCK, k->dev);
	limit_memory(false);
	dev_verify(k->dev, a.va, BLOCK, SEED);
	kit_verify(k, a.va, BLOCK, SEED);
	kit_verify(k, small, 64 * PAGE, SEED);
	CHECK_OK(k->mem->unmap(k, small, BLOCK));
	done(k, a.va, BLOCK);
}

struct touch {
	struct kit *k;
	uint64_t va, value;
	int rc;
};

static void touch_run(void *arg)
{
	struct touch *t = arg;

	t->rc = t->k->mem->load(t->k, t->va, &t->value, sizeof(t->value));
}

/* The device writes it all, so that nothing was ever at home and no frame is there from the way
 * out. A request says so; a touch waits for memory, and gets every byte. */
static void no_memory_home(struct kit *k, const struct cell *c)
{
	struct touch t = { .k = k, .va = kit_place(k, BLOCK) };
	struct balun_counts n = { 0 };
	struct worker w;
	uint64_t want;

	CHECK_OK(k->mem->map(k, t.va, BLOCK, KIT_RW));
	kit_move(k, t.va, BLOCK, k->dev);
	dev_fill(k->dev, t.va, BLOCK, SEED);
	worker_start(&w, touch_run, &t);
	limit_memory(true);
	if (c->mover) {
		worker_go(&w);
		worker_must_wait(&w, -1, "a touch", "no memory");
	} else {
		n = kit_migrate(k, t.va, BLOCK, NULL);
		CHECK_EQ(n.moved, 0);
	}
	limit_memory(false);
	worker_go(&w);
	worker_join(&w);
	kit_pattern(&want, 0, sizeof(want), SEED);
	CHECK_RC(t.rc, 0);
	CHECK(t.value == want);
	kit_verify(k, t.va, BLOCK, SEED);
	done(k, t.va, BLOCK);
}

/* ---- the list ---- */

static struct cell *add_alone(void (*fn)(struct kit *k, const struct cell *c), unsigned int ways,
			      const char *name)
{
	struct cell *c;

	if (KIT_ASAN || KIT_TSAN) /* they need address space themselves */
		return NULL;
	c = cell_add(fn, ways, "%s", name);
	c->alone = true;
	return c;
}

static bool worth_it(const struct call *call)
{
	return !(call->flags & (CALL_BRK | CALL_LAST)) && call->effect != HERE &&
	       strcmp(call->name, "madvise-remove") && strcmp(call->name, "madvise-hugepage") &&
	       strcmp(call->name, "mprotect-read") && strcmp(call->name, "mmap-over");
}

void huge_cells(void)
{
	const struct call *call;
	struct cell *c;
	unsigned int i;

	for (call = calls; call->name; call++)
		for (i = 0; worth_it(call) && i < STATES; i++) {
			c = cell_add(part_run, WAY_ALL, "%s/part-of-huge-page/%s", call->name,
				     state_name[i]);
			c->call = call;
			c->mover = i;
			c->raw = i == GOING || i == COMING;
		}
	cell_add(zero_run, WAY_ALL, "huge-zero-page/out-and-home");
	cell_add(readonly_run, WAY_ALL, "read-only-huge-hole/untouched");
	cell_add(readonly_run, WAY_ALL, "read-only-huge-hole/touched")->mover = 1;
	cell_add(fragments_run, WAY_ALL, "no-memory/device-in-pieces");
	add_alone(no_memory_out, WAY_FRAME | WAY_COHERENT, "no-memory/huge-out-in-small-pages");
	add_alone(no_memory_home, WAY_FRAME, "no-memory/home");
	c = add_alone(no_memory_home, WAY_FRAME, "no-memory/touch");
	if (c)
		c->mover = 1;
}
