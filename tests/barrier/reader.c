/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The other side of a memory call stands still: the reader, between the read of the event and the
 * tables, and while devices forget the pages; the caller, in its hook before and after the system
 * call. Meanwhile somebody else wants the pages. And the traps of userfaultfd that have a moment of
 * their own.
 */
#include "tests/barrier/barrier.h"

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct scene {
	struct kit *k;
	const struct cell *c;
	struct area a;
	struct balun_counts n;
	int rc;
	uint64_t value;
};

static void call_run(void *arg)
{
	struct scene *s = arg;

	s->c->call->fn(&s->a);
}

static void out_run(void *arg)
{
	struct scene *s = arg;

	s->rc = balun_migrate(s->k->space, (void *)s->a.mid, MID_LEN, s->k->dev, &s->n);
}

static void touch_run(void *arg)
{
	struct scene *s = arg;

	s->rc = s->k->mem->load(s->k, s->a.va, &s->value, sizeof(s->value));
}

static void device_run(void *arg)
{
	struct scene *s = arg;

	s->rc = dev_read(s->k->dev, s->a.va, &s->value, sizeof(s->value));
}

/* word 0 of the area, which no call changes */
static void check_first(const struct scene *s)
{
	uint64_t want;

	kit_pattern(&want, 0, sizeof(want), SEED);
	CHECK_RC(s->rc, 0);
	CHECK(s->value == want);
}

/* @stops: who stops there; NULL: the reader, who may come by after the caller was let go */
static void stop_call(struct scene *s, struct worker *caller, struct worker *stops)
{
	worker_start(caller, call_run, s);
	stop_arm(s->c->point);
	worker_go(caller);
	if (!stop_hit(stops))
		kit_fail(__FILE__, __LINE__, "nobody comes by %s", s->c->point);
}

/* ---- the reader stands ---- */

/* Pages are away. The caller is let go by the kernel when the event is read. */
static void reader_run(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c, .a.raw = c->raw };
	bool locked = !strcmp(c->point, "reader-read");
	struct worker caller, mover;

	area_make(k, c->call, &s.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	dev_verify(k->dev, s.a.va, s.a.end - s.a.va, SEED);
	worker_start(&mover, out_run, &s);
	stop_call(&s, &caller, NULL);
	/* whoever wants to move the pages sees the tables only after the event */
	worker_go(&mover);
	if (locked)
		worker_must_wait(&mover, -1, "migration", c->point);
	else
		worker_must_finish(&mover, "migration", c->point);
	stop_release();
	worker_join(&caller);
	worker_join(&mover);
	CHECK(s.rc == 0 || s.rc == -EFAULT);
	area_check(k, c->call, &s.a, false);
	area_drop(k, c->call, &s.a);
}

/* ---- the caller stands in its hook ---- */

/* Pages are at home: none of the range may be taken until the call is over. */
static void hook_out(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker caller, mover;

	area_make(k, c->call, &s.a);
	worker_start(&mover, out_run, &s);
	stop_call(&s, &caller, &caller);
	worker_go(&mover);
	worker_must_finish(&mover, "migration", c->point);
	CHECK_EQ(s.n.moved, 0);
	CHECK(s.rc == 0 || s.rc == -EFAULT);
	stop_release();
	worker_join(&caller);
	worker_join(&mover);
	area_check(k, c->call, &s.a, true);
	area_drop(k, c->call, &s.a);
}

/* Pages are away: a CPU's touch beside the range is served all the same. */
static void hook_touch(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker caller, mover;

	area_make(k, c->call, &s.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	worker_start(&mover, touch_run, &s);
	stop_call(&s, &caller, &caller);
	worker_go(&mover);
	worker_must_finish(&mover, "a touch", c->point);
	stop_release();
	worker_join(&caller);
	worker_join(&mover);
	check_first(&s);
	area_check(k, c->call, &s.a, true);
	area_drop(k, c->call, &s.a);
}

/* Pages are away and mapped: until the call is over no device gets a translation in the range; the
 * device waits, and reads what is right then. */
static void hook_device(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker caller, mover;

	area_make(k, c->call, &s.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	dev_verify(k->dev, s.a.va, s.a.end - s.a.va, SEED);
	worker_start(&mover, device_run, &s);
	stop_call(&s, &caller, &caller);
	CHECK_EQ(probe_mapped(k->dev, s.a.mid, MID_LEN), 0);
	worker_go(&mover);
	/* its neighbours may be mapped still, or must wait for the block */
	if (!probe_lookup(k->dev, s.a.va).valid)
		worker_must_wait(&mover, -1, "the device", c->point);
	CHECK_EQ(probe_mapped(k->dev, s.a.mid, MID_LEN), 0);
	stop_release();
	worker_join(&caller);
	worker_join(&mover);
	check_first(&s);
	area_check(k, c->call, &s.a, true);
	area_drop(k, c->call, &s.a);
}

/* ---- trap 1: the ioctl of a fault meets a pending event ---- */

static void other_run(void *arg)
{
	struct area *a = arg;

	CHECK(!syscall(SYS_munmap, a->mid, MID_LEN));
}

static void trap_pending(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker toucher, other;
	struct area b = { 0 };

	area_make(k, &calls[0], &s.a);
	area_make(k, &calls[0], &b);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	kit_move(k, b.va, b.end - b.va, k->dev);
	/* a hole of a watched range, or a page that is away */
	if (!strcmp(c->point, "fault-hole")) {
		CHECK_OK(k->mem->dontneed(k, s.a.va, s.a.end - s.a.va));
		CHECK_OK(balun_fence(k->space));
	}
	worker_start(&toucher, touch_run, &s);
	worker_start(&other, other_run, &b);
	stop_arm(c->point);
	worker_go(&toucher);
	CHECK(stop_hit(&toucher));
	worker_go(&other);
	worker_must_wait(&other, -1, "munmap", c->point);
	stop_release();
	worker_join(&other);
	worker_join(&toucher);
	if (!strcmp(c->point, "fault-hole")) {
		CHECK_RC(s.rc, 0);
		CHECK_EQ(s.value, 0);
		kit_verify_zero(k, s.a.va, s.a.end - s.a.va);
	} else {
		check_first(&s);
		kit_verify(k, s.a.va, s.a.end - s.a.va, SEED);
	}
	area_check(k, &calls[0], &b, true);
	area_drop(k, &calls[0], &b);
	CHECK_OK(k->mem->unmap(k, s.a.va, s.a.end - s.a.va));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

/* ---- a device after a munmap whose event is not read yet ---- */

static void fence_read_run(void *arg)
{
	struct scene *s = arg;

	CHECK_OK(balun_fence(s->k->space));
	s->rc = dev_read(s->k->dev, s->a.mid, &s->value, sizeof(s->value));
}

/*
 * The reader stands elsewhere; munmap has freed the addresses and waits for it; they are mapped
 * anew and written. Device work that is launched then must not see what was there before.
 */
static void fence_pending(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c }, b = { .k = k };
	struct worker toucher, other, device;
	uint64_t value = 4711;

	area_make(k, &calls[0], &s.a);
	area_make(k, &calls[0], &b.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	kit_move(k, b.a.va, b.a.end - b.a.va, k->dev);
	dev_verify(k->dev, s.a.va, s.a.end - s.a.va, SEED);
	worker_start(&toucher, touch_run, &b);
	worker_start(&other, other_run, &s.a);
	worker_start(&device, fence_read_run, &s);
	stop_arm(c->point);
	worker_go(&toucher);
	CHECK(stop_hit(&toucher));
	worker_go(&other);
	worker_must_wait(&other, SYS_munmap, "munmap", c->point);
	CHECK(mmap((void *)s.a.mid, MID_LEN, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)s.a.mid);
	CHECK_OK(k->mem->store(k, s.a.mid, &value, sizeof(value)));
	worker_go(&device);
	worker_must_wait(&device, SYS_futex, "device work", c->point);
	stop_release();
	worker_join(&other);
	worker_join(&toucher);
	worker_join(&device);
	CHECK_RC(s.rc, 0);
	CHECK_EQ(s.value, 4711);
	check_first(&b);
	CHECK_OK(k->mem->unmap(k, s.a.va, s.a.end - s.a.va));
	CHECK_OK(k->mem->unmap(k, b.a.va, b.a.end - b.a.va));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

/* ---- trap 5: the event of a discard comes before the kernel discards ---- */

struct hog {
	int cpu, stop, runs;
};

static bool pin(pid_t tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(tid, sizeof(set), &set);
}

/* keeps everybody else off its core */
static void hog_run(void *arg)
{
	struct sched_param p = { .sched_priority = 1 };
	struct hog *h = arg;
	bool may = pin(0, h->cpu) && !sched_setscheduler(0, SCHED_FIFO, &p);

	__atomic_store_n(&h->runs, may ? 1 : -1, __ATOMIC_RELEASE);
	while (may && !__atomic_load_n(&h->stop, __ATOMIC_ACQUIRE))
		;
}

static pid_t reader_tid(void)
{
	char path[64], name[32];
	struct dirent *e;
	pid_t tid = 0;
	DIR *d = opendir("/proc/self/task");

	while (d && !tid && (e = readdir(d))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%.16s/comm", e->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fgets(name, sizeof(name), f) && !strcmp(name, "balun-uffd\n"))
			tid = atoi(e->d_name);
		fclose(f);
	}
	if (d)
		closedir(d);
	CHECK(tid);
	return tid;
}

static void discard_run(void *arg)
{
	struct area *a = arg;

	CHECK(!syscall(SYS_madvise, a->mid, MID_LEN, MADV_DONTNEED));
}

/* the first and the last core that this process may use */
static void two_cores(int *ret_first, int *ret_last)
{
	cpu_set_t set;
	int i;

	*ret_first = *ret_last = -1;
	CHECK(!sched_getaffinity(0, sizeof(set), &set));
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set)) {
			*ret_first = *ret_first < 0 ? i : *ret_first;
			*ret_last = i;
		}
	if (*ret_first == *ret_last)
		kit_skip("needs two processors");
}

/*
 * The caller waits for its event; then a thread of higher priority takes its core: the reader has
 * the event, and the caller may go on but cannot. A page that was taken now would outlive the
 * discard and come back as stale data.
 */
static void trap_discard(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c };
	struct worker caller, mover, hogger;
	struct hog hog = { 0 };
	int first;
	bool over;

	two_cores(&first, &hog.cpu);
	area_make(k, c->call, &s.a);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	kit_move(k, s.a.va, s.a.end - s.a.va, NULL);
	CHECK(pin(0, first) && pin(reader_tid(), first));
	worker_start(&mover, out_run, &s);
	worker_start(&caller, discard_run, &s.a);
	worker_start(&hogger, hog_run, &hog);
	CHECK(pin(caller.tid, hog.cpu));
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	worker_go(&caller);
	worker_must_wait(&caller, SYS_madvise, "madvise", c->point);
	worker_go(&hogger);
	while (!__atomic_load_n(&hog.runs, __ATOMIC_ACQUIRE))
		sched_yield();
	stop_release();
	worker_join(&mover);
	over = worker_done(&caller);
	__atomic_store_n(&hog.stop, 1, __ATOMIC_RELEASE);
	worker_join(&hogger);
	worker_join(&caller);
	CHECK_RC(s.rc, 0);
	if (!over)
		CHECK_EQ(s.n.moved, 0);
	area_check(k, c->call, &s.a, true);
	area_drop(k, c->call, &s.a);
	if (over)
		kit_skip(hog.runs < 0 ? "may not use SCHED_FIFO" : "the caller ran all the same");
}

/* ---- a discard of the program inside one of our own ---- */

static void out_from_middle(void *arg)
{
	struct scene *s = arg;

	s->rc = balun_migrate(s->k->space, (void *)s->a.mid, s->a.end - s->a.mid, s->k->dev, &s->n);
}

/*
 * The copying way. The program's event comes first and is taken for ours; ours then names the
 * program's pages a second time, and the reader drops those, without the lock for a moment. The
 * rest of the event must still be known as ours after that: so who discards waits for it.
 */
static void discard_split(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c, .a.raw = true };
	struct worker caller, mover;

	area_make(k, c->call, &s.a);
	worker_start(&mover, out_from_middle, &s);
	worker_start(&caller, call_run, &s);
	stop_arm("discard-begun");
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	worker_go(&caller);
	worker_must_finish(&caller, c->call->name, "discard-begun");
	stop_again(c->point);
	CHECK(stop_hit(NULL));
	worker_must_wait(&mover, SYS_futex, "migration", c->point);
	stop_release();
	worker_join(&caller);
	worker_join(&mover);
	CHECK_RC(s.rc, 0);
	area_check(k, c->call, &s.a, true);
	area_drop(k, c->call, &s.a);
}

/* ---- pages that are put back while an event is pending ---- */

/*
 * The copying way. The copy fails, and the program may write to the pages again only after an event
 * that is not read yet. Until then nobody else takes them: who did would have copied them, and what
 * the program writes after the first has let go would be lost.
 */
static void restore_pending(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c }, b = { .k = k }, again = { .k = k };
	struct worker mover, toucher, other, second;
	struct area q = { 0 };
	uint64_t value = 4711;

	area_make(k, &calls[0], &s.a);
	area_make(k, &calls[0], &b.a);
	area_make(k, &calls[0], &q);
	kit_move(k, b.a.va, b.a.end - b.a.va, k->dev);
	kit_move(k, q.va, q.end - q.va, k->dev);
	again.a = s.a;
	worker_start(&mover, out_run, &s);
	worker_start(&toucher, touch_run, &b);
	worker_start(&other, other_run, &q);
	worker_start(&second, out_run, &again);
	probe_fail(k->dev, PROBE_COPY, 1, 1, -EIO);
	stop_arm("move-copied");
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	probe_pause(k->dev, 1); /* the reader, serving a touch */
	worker_go(&toucher);
	CHECK(probe_paused(k->dev));
	worker_go(&other);
	worker_must_wait(&other, SYS_munmap, "munmap", c->point);
	stop_again(c->point);
	CHECK(stop_hit(&mover));
	probe_resume(k->dev);
	worker_join(&other);
	worker_join(&toucher);
	check_first(&b);
	probe_pause(k->dev, 1);
	worker_go(&second);
	worker_must_finish(&second, "migration", c->point);
	CHECK_RC(again.rc, 0);
	CHECK_EQ(again.n.busy, MID);
	stop_release();
	worker_join(&mover);
	worker_join(&second);
	CHECK_OK(k->mem->store(k, s.a.mid, &value, sizeof(value)));
	probe_pause(k->dev, 0);
	kit_move(k, s.a.va, s.a.end - s.a.va, k->dev);
	CHECK_OK(k->mem->load(k, s.a.mid, &value, sizeof(value)));
	CHECK_EQ(value, 4711);
	kit_verify(k, s.a.va, s.a.mid - s.a.va, SEED);
	CHECK_OK(k->mem->unmap(k, s.a.va, s.a.end - s.a.va));
	CHECK_OK(k->mem->unmap(k, b.a.va, b.a.end - b.a.va));
	CHECK_OK(k->mem->unmap(k, q.va, q.end - q.va));
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}

/* ---- zeros around a fault, and a discard of our own ---- */

/* of the middle: holes that a touch of the first brings zeros to, then pages that are discarded */
#define HOLES 4

static void out_behind_holes(void *arg)
{
	struct scene *s = arg;
	uint64_t from = s->a.mid + HOLES * PAGE;

	s->rc = balun_migrate(s->k->space, (void *)from, s->a.after - from, s->k->dev, &s->n);
}

static void touch_middle_run(void *arg)
{
	struct scene *s = arg;

	s->rc = s->k->mem->load(s->k, s->a.mid, &s->value, sizeof(s->value));
}

/*
 * The copying way. The program discards pages by itself while our own discard of them is still to
 * come. A touch of a hole before them brings zeros around it, but not there: what the program wrote
 * to such a page would be discarded by us.
 */
static void zeros_beside_discard(struct kit *k, const struct cell *c)
{
	struct scene s = { .k = k, .c = c, .a.raw = true };
	unsigned char present[MID] = { 0 };
	struct worker mover, toucher;

	area_make(k, c->call, &s.a);
	kit_move(k, s.a.va, HOLES * PAGE + s.a.mid - s.a.va, k->dev);
	CHECK_OK(k->mem->dontneed(k, s.a.mid, HOLES * PAGE));
	worker_start(&mover, out_behind_holes, &s);
	worker_start(&toucher, touch_middle_run, &s);
	stop_arm(c->point);
	worker_go(&mover);
	CHECK(stop_hit(&mover));
	/* one event of each page is taken for ours, the second is the program's */
	discard_run(&s.a);
	discard_run(&s.a);
	worker_go(&toucher);
	worker_must_finish(&toucher, "a touch", c->point);
	CHECK_RC(s.rc, 0);
	CHECK_EQ(s.value, 0);
	CHECK(!mincore((void *)s.a.mid, MID_LEN, present));
	CHECK(present[0]);
	CHECK(!memchr(present + HOLES, 1, MID - HOLES));
	stop_release();
	worker_join(&mover);
	worker_join(&toucher);
	area_check(k, c->call, &s.a, false);
	area_drop(k, c->call, &s.a);
}

/* ---- the list ---- */

static void add(void (*fn)(struct kit *k, const struct cell *c), unsigned int ways,
		const struct call *call, const char *point, const char *who, bool raw)
{
	struct cell *c =
		cell_add(fn, ways, "%s/%s/%s%s", call->name, point, who, raw ? "/raw" : "");

	c->call = call;
	c->point = point;
	c->raw = raw;
}

static void add_call(const struct call *call)
{
	static const char *const hook[] = { "hook-begun", "hook-called" };
	bool remap = call->effect == MOVED || call->effect == LEFT || call->effect == GROWN;
	unsigned int i;

	if (call->flags & CALL_EVENT) {
		bool raw = call->flags & CALL_HOOK && !(call->flags & CALL_QUIET);

		add(reader_run, WAY_ALL, call, "reader-read", "out", raw);
		add(reader_run, WAY_ALL, call, remap ? "reader-remapped" : "reader-dying", "out",
		    raw);
	}
	for (i = 0; call->flags & CALL_HOOK && i < 2; i++) {
		add(hook_out, WAY_ALL, call, hook[i], "out", false);
		add(hook_touch, WAY_ALL, call, hook[i], "touch", false);
		add(hook_device, WAY_ALL, call, hook[i], "device", false);
	}
}

void reader_cells(void)
{
	const struct call *call, *dontneed = calls;

	for (call = calls; call->name; call++)
		add_call(call);
	while (strcmp(dontneed->name, "madvise-dontneed"))
		dontneed++;
	/* coherent pages are not away for a CPU */
	add(trap_pending, WAY_ALL, &calls[0], "fault-hole", "touch", true);
	add(trap_pending, WAY_ALL & ~WAY_COHERENT, &calls[0], "fault-away", "touch-elsewhere",
	    true);
	add(fence_pending, WAY_ALL & ~WAY_COHERENT, &calls[0], "fault-away", "device-after-map",
	    true);
	add(trap_discard, WAY_ALL, dontneed, "collect-looked", "out-before-zap", true);
	add(restore_pending, WAY_COPY, &calls[0], "events-yielded", "out-after-failed-copy", true);
	add(zeros_beside_discard, WAY_COPY, dontneed, "discard-begun", "touch-beside", true);
	add(discard_split, WAY_COPY, dontneed, "reader-dying", "out-in-own-discard", true);
}
