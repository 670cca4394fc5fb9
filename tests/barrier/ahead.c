/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The reader stands while it brings home what nobody has touched yet. */
#include "tests/barrier/barrier.h"

#include <sys/syscall.h>
#include <unistd.h>

/* long enough for whole blocks ahead; half of it is touched: at the latest behind the last touch
 * there is time to bring them */
#define STREAM (8 * BALUN_BLOCK_SIZE)

struct scene {
	struct kit *k;
	uint64_t stream, page, gone;
	bool enough;
};

static void stream_run(void *arg)
{
	struct scene *s = arg;

	for (uint64_t va = s->stream; va < s->stream + STREAM / 2; va += PAGE) {
		if (__atomic_load_n(&s->enough, __ATOMIC_SEQ_CST))
			break;
		*(volatile char *)va;
	}
}

static void touch_run(void *arg)
{
	struct scene *s = arg;

	*(volatile char *)s->page;
}

static void unmap_run(void *arg)
{
	struct scene *s = arg;

	syscall(SYS_munmap, s->gone, PAGE); /* past the hooks: the kernel alone says so */
}

/* A memory call and a touch come just then. What is installed meets the event, and to get past it
 * the reader reads both: the touch, which is in nobody's way, must be served all the same. */
static void ahead_touch(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k };
	struct worker stream, touch, unmap;

	s.stream = kit_place(k, STREAM);
	s.page = kit_place(k, PAGE);
	s.gone = kit_place(k, PAGE);
	CHECK_OK(k->mem->map(k, s.stream, STREAM, KIT_RW));
	CHECK_OK(k->mem->map(k, s.page, PAGE, KIT_RW));
	CHECK_OK(k->mem->map(k, s.gone, PAGE, KIT_RW));
	kit_fill(k, s.stream, STREAM, SEED);
	kit_fill(k, s.page, PAGE, SEED);
	kit_fill(k, s.gone, PAGE, SEED);
	kit_move(k, s.stream, STREAM, k->dev);
	kit_move(k, s.page, PAGE, k->dev);
	kit_move(k, s.gone, PAGE, k->dev);
	worker_start(&stream, stream_run, &s);
	worker_start(&touch, touch_run, &s);
	worker_start(&unmap, unmap_run, &s);
	stop_arm("move-ahead");
	worker_go(&stream);
	CHECK(stop_hit(NULL));
	/* no touch of its own that would make the reader look */
	__atomic_store_n(&s.enough, true, __ATOMIC_SEQ_CST);
	stop_again(c->point);
	CHECK(stop_hit(NULL));
	worker_go(&touch);
	worker_must_wait(&touch, -1, "a touch", c->point);
	worker_go(&unmap);
	worker_must_wait(&unmap, SYS_munmap, "munmap()", c->point);
	stop_release();
	worker_must_finish(&touch, "a touch", c->point);
	worker_must_finish(&unmap, "munmap()", c->point);
	worker_must_finish(&stream, "the stream", c->point);
	worker_join(&touch);
	worker_join(&unmap);
	worker_join(&stream);
	kit_verify(k, s.stream, STREAM, SEED);
	kit_verify(k, s.page, PAGE, SEED);
	CHECK_OK(k->mem->unmap(k, s.stream, STREAM));
	CHECK_OK(k->mem->unmap(k, s.page, PAGE));
}

void ahead_cells(void)
{
	cell_add(ahead_touch, WAY_MOVE | WAY_FRAME | WAY_COPY, "reader/ahead/touch-and-munmap")
		->point = "commit-located";
}
