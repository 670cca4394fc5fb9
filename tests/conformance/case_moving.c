/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The program changes or touches pages in the very moment they move: the probe holds a copy until
 * the case lets it go.
 */
#include "kit.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOVING_LEN (64 * PAGE)

struct moving {
	uint64_t va, to;
	struct balun_device *dev;
	struct kit_mover m;
	struct kit *k;
	void (*change)(struct kit *k, struct moving *mv);
	long tid; /* of the thread that changes, once it runs; 0: there is none */
	pthread_t changer;
};

/* the pages are on their way (home or to the device) and the copy waits */
static void moving_start(struct kit *k, struct moving *mv, bool home, uint64_t seed)
{
	if (k->kernel && !k->locked)
		kit_skip("mlockall() is refused: a fault while a memory call waits would wait too");
	mv->va = kit_filled(k, MOVING_LEN, seed);
	mv->k = k;
	mv->dev = k->dev;
	mv->tid = 0;
	if (home) {
		kit_move(k, mv->va, MOVING_LEN, k->dev);
		dev_verify(k->dev, mv->va, MOVING_LEN, seed);
	}
	probe_pause(mv->dev, 1);
	kit_mover_start(&mv->m, k, mv->va, MOVING_LEN, home ? NULL : k->dev);
	CHECK(probe_paused(mv->dev));
}

static void *change_main(void *arg)
{
	struct moving *mv = arg;

	__atomic_store_n(&mv->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	mv->change(mv->k, mv);
	return NULL;
}

/*
 * What the program does while the copy waits. In the kernel memory calls wait for the copy: another
 * thread makes them, and is in the first of them when this returns. They are over after
 * moving_end(), one way or the other.
 */
static void moving_change(struct moving *mv, void (*change)(struct kit *k, struct moving *mv))
{
	if (!mv->k->kernel) {
		change(mv->k, mv);
		return;
	}
	mv->change = change;
	mv->changer = kit_thread(change_main, mv);
	while (!__atomic_load_n(&mv->tid, __ATOMIC_ACQUIRE))
		sched_yield();
	kit_wait_asleep(mv->tid);
}

static void moving_end(struct moving *mv)
{
	probe_resume(mv->dev);
	kit_mover_end(&mv->m);
	if (mv->tid)
		kit_join(mv->changer);
}

static void unmap_all(struct kit *k, struct moving *mv)
{
	CHECK_OK(k->mem->unmap(k, mv->va, MOVING_LEN));
}

static void munmap_one_way(struct kit *k, bool home)
{
	struct moving mv;
	uint64_t v;

	moving_start(k, &mv, home, 1);
	moving_change(&mv, unmap_all);
	moving_end(&mv);
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), 0);
	CHECK_RC(k->mem->load(k, mv.va, &v, sizeof(v)), -EFAULT);
	CHECK_RC(dev_read(k->dev, mv.va, &v, sizeof(v)), -EFAULT);
}

static void munmap_to_device(struct kit *k)
{
	munmap_one_way(k, false);
}

static void munmap_home(struct kit *k)
{
	munmap_one_way(k, true);
}

static void map_anew(struct kit *k, struct moving *mv)
{
	CHECK_OK(k->mem->unmap(k, mv->va, MOVING_LEN));
	CHECK_OK(k->mem->map(k, mv->va, MOVING_LEN, KIT_RW));
	kit_fill(k, mv->va, MOVING_LEN / 2, 3);
}

/* unmapped and mapped anew while the old pages are in flight: they must not land in the new */
static void remap_one_way(struct kit *k, bool home)
{
	struct moving mv;

	moving_start(k, &mv, home, 2);
	moving_change(&mv, map_anew);
	moving_end(&mv);
	kit_verify(k, mv.va, MOVING_LEN / 2, 3);
	kit_verify_zero(k, mv.va + MOVING_LEN / 2, MOVING_LEN / 2);
	dev_verify(k->dev, mv.va, MOVING_LEN / 2, 3);
	dev_verify(k->dev, mv.va + MOVING_LEN / 2, MOVING_LEN / 2, KIT_ZEROS);
}

static void new_mapping_to_device(struct kit *k)
{
	remap_one_way(k, false);
}

static void new_mapping_home(struct kit *k)
{
	remap_one_way(k, true);
}

static void remap_all(struct kit *k, struct moving *mv)
{
	CHECK_OK(k->mem->remap(k, mv->va, mv->to, MOVING_LEN));
}

static void mremap_one_way(struct kit *k, bool home)
{
	struct moving mv;
	uint64_t v;

	mv.to = kit_map(k, MOVING_LEN, KIT_RW);
	moving_start(k, &mv, home, 4);
	moving_change(&mv, remap_all);
	moving_end(&mv);
	CHECK_OK(balun_fence(k->space));
	kit_verify(k, mv.to, MOVING_LEN, 4);
	dev_verify(k->dev, mv.to, MOVING_LEN, 4);
	CHECK_RC(k->mem->load(k, mv.va, &v, sizeof(v)), -EFAULT);
}

static void mremap_to_device(struct kit *k)
{
	mremap_one_way(k, false);
}

static void mremap_home(struct kit *k)
{
	mremap_one_way(k, true);
}

/* what landed in another block than it was taken from can be evicted there */
static void mremap_evict(struct kit *k)
{
	struct moving mv;
	uint64_t freed;

	mv.to = kit_map(k, MOVING_LEN, KIT_RW);
	moving_start(k, &mv, false, 4);
	moving_change(&mv, remap_all);
	moving_end(&mv);
	CHECK_EQ(kit_resident(k, mv.to, MOVING_LEN, k->dev), MOVING_LEN / PAGE);
	CHECK_OK(balun_evict(k->dev, MOVING_LEN, &freed));
	CHECK_EQ(kit_mem_used(k->dev), 0);
	kit_verify(k, mv.to, MOVING_LEN, 4);
}

static void drop_half(struct kit *k, struct moving *mv)
{
	CHECK_OK(k->mem->dontneed(k, mv->va, MOVING_LEN / 2));
}

static void dontneed_one_way(struct kit *k, bool home)
{
	struct moving mv;

	moving_start(k, &mv, home, 5);
	moving_change(&mv, drop_half);
	moving_end(&mv);
	kit_verify_zero(k, mv.va, MOVING_LEN / 2);
	kit_verify_part(k, mv.va, MOVING_LEN / 2, MOVING_LEN / 2, 5);
	dev_verify(k->dev, mv.va, MOVING_LEN / 2, KIT_ZEROS);
}

static void dontneed_to_device(struct kit *k)
{
	dontneed_one_way(k, false);
}

static void dontneed_home(struct kit *k)
{
	dontneed_one_way(k, true);
}

static void make_read_only(struct kit *k, struct moving *mv)
{
	CHECK_OK(k->mem->protect(k, mv->va, MOVING_LEN, KIT_READ));
}

static void mprotect_one_way(struct kit *k, bool home)
{
	struct moving mv;
	uint64_t v = 1;

	moving_start(k, &mv, home, 6);
	moving_change(&mv, make_read_only);
	moving_end(&mv);
	CHECK_RC(dev_write(k->dev, mv.va, &v, sizeof(v)), -EPERM);
	dev_verify(k->dev, mv.va, MOVING_LEN, 6);
	kit_verify(k, mv.va, MOVING_LEN, 6);
	CHECK_RC(k->mem->store(k, mv.va, &v, sizeof(v)), -EFAULT);
	CHECK_OK(k->mem->protect(k, mv.va, MOVING_LEN, KIT_RW));
	kit_fill(k, mv.va, MOVING_LEN, 7);
	dev_verify(k->dev, mv.va, MOVING_LEN, 7);
}

static void mprotect_to_device(struct kit *k)
{
	mprotect_one_way(k, false);
}

static void mprotect_home(struct kit *k)
{
	mprotect_one_way(k, true);
}

struct toucher {
	struct kit *k;
	uint64_t va;
	int done;
};

static void *touch_main(void *arg)
{
	struct toucher *t = arg;

	cpu_write64(t->k, t->va, cpu_read64(t->k, t->va) + 1);
	__atomic_store_n(&t->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* a CPU touch of a page in flight waits for it; its write is not lost under the copy */
static void touch_one_way(struct kit *k, bool home)
{
	struct moving mv;
	struct toucher t;
	uint64_t want;
	pthread_t th;

	moving_start(k, &mv, home, 8);
	t = (struct toucher){ .k = k, .va = mv.va + 5 * PAGE };
	th = kit_thread(touch_main, &t);
	moving_end(&mv);
	kit_join(th);
	kit_pattern(&want, 5 * PAGE, sizeof(want), 8);
	CHECK_EQ(cpu_read64(k, mv.va + 5 * PAGE), want + 1);
	cpu_write64(k, mv.va + 5 * PAGE, want);
	kit_verify(k, mv.va, MOVING_LEN, 8);
}

static void touch_to_device(struct kit *k)
{
	touch_one_way(k, false);
}

static void touch_home(struct kit *k)
{
	touch_one_way(k, true);
}

static void *device_touch_main(void *arg)
{
	struct toucher *t = arg;

	dev_write64(t->k->dev, t->va, dev_read64(t->k->dev, t->va) + 1);
	return NULL;
}

static void device_touch(struct kit *k)
{
	struct moving mv;
	struct toucher t;
	uint64_t want;
	pthread_t th;

	moving_start(k, &mv, true, 9);
	t = (struct toucher){ .k = k, .va = mv.va + 7 * PAGE };
	th = kit_thread(device_touch_main, &t);
	moving_end(&mv);
	kit_join(th);
	kit_pattern(&want, 7 * PAGE, sizeof(want), 9);
	CHECK_EQ(cpu_read64(k, mv.va + 7 * PAGE), want + 1);
	kit_verify(k, mv.va, 7 * PAGE, 9);
	kit_verify_part(k, mv.va, 8 * PAGE, MOVING_LEN - 8 * PAGE, 9);
}

/* other pages of the block and other blocks are not held up by a copy that waits */
static void others_go_on(struct kit *k)
{
	uint64_t other = kit_filled(k, MOVING_LEN, 10);
	struct moving mv;

	moving_start(k, &mv, false, 11);
	kit_verify(k, other, MOVING_LEN, 10);
	kit_move(k, other, MOVING_LEN, k->dev);
	dev_verify(k->dev, other, MOVING_LEN, 10);
	kit_verify(k, other, MOVING_LEN, 10);
	CHECK(kit_query1(k, mv.va).flags & BALUN_EXTENT_MIGRATING);
	moving_end(&mv);
	CHECK(!(kit_query1(k, mv.va).flags & BALUN_EXTENT_MIGRATING));
	kit_verify(k, mv.va, MOVING_LEN, 11);
}

/* two requests for the same pages: one wins, the counts say so, nothing is lost */
static void two_requests(struct kit *k)
{
	struct moving mv;
	struct kit_mover second;

	moving_start(k, &mv, false, 12);
	kit_mover_start(&second, k, mv.va, MOVING_LEN, NULL);
	moving_end(&mv);
	kit_mover_end(&second);
	CHECK_EQ(second.rc, 0);
	CHECK_EQ(kit_counts_sum(&second.counts), 64);
	CHECK_EQ(kit_counts_sum(&mv.m.counts), 64);
	kit_verify(k, mv.va, MOVING_LEN, 12);
}

static void unmap_half(struct kit *k, struct moving *mv)
{
	CHECK_OK(k->mem->unmap(k, mv->va, MOVING_LEN / 2));
}

/* the copy that is held up fails in the end */
static void fails_after_munmap(struct kit *k)
{
	struct moving mv;
	struct balun_counts *c = &mv.m.counts;

	moving_start(k, &mv, false, 13);
	moving_change(&mv, unmap_half);
	probe_fail(mv.dev, PROBE_WAIT, 1, 1, -EIO);
	moving_end(&mv);
	CHECK_OK(balun_fence(k->space));
	if (!mv.m.rc)
		CHECK(c->moved == 0);
	CHECK_EQ(kit_mem_used(k->dev), 0);
	kit_verify_part(k, mv.va, MOVING_LEN / 2, MOVING_LEN / 2, 13);
}

const struct kit_case cases_moving[] = {
	{ "moving-munmap-to-device", munmap_to_device, "host=0", 0 },
	{ "moving-munmap-home", munmap_home, "host=0", 0 },
	{ "moving-new-mapping-to-device", new_mapping_to_device, "host=0", 0 },
	{ "moving-new-mapping-home", new_mapping_home, "host=0", 0 },
	{ "moving-mremap-to-device", mremap_to_device, "host=0", 0 },
	{ "moving-mremap-home", mremap_home, "host=0", 0 },
	{ "moving-mremap-evict", mremap_evict, "host=0", 0 },
	{ "moving-dontneed-to-device", dontneed_to_device, "host=0", 0 },
	{ "moving-dontneed-home", dontneed_home, "host=0", 0 },
	{ "moving-mprotect-to-device", mprotect_to_device, "host=0", 0 },
	{ "moving-mprotect-home", mprotect_home, "host=0", 0 },
	{ "moving-cpu-touch-to-device", touch_to_device, "host=0", 0 },
	{ "moving-cpu-touch-home", touch_home, "host=0", 0 },
	{ "moving-device-touch", device_touch, "host=0", 0 },
	{ "moving-others-go-on", others_go_on, "host=0", 0 },
	{ "moving-two-requests", two_requests, "host=0", 0 },
	{ "moving-fails-after-munmap", fails_after_munmap, "host=0", 0 },
	{ NULL, NULL, NULL, 0 },
};
