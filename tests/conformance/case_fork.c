/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* fork: the child has every byte, depends on nobody, and cannot use its parent's handles. */
#include "kit.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void away(struct kit *k)
{
	uint64_t len = 4 * MIB, va = kit_filled(k, len, 1);
	struct kit_child *c;

	kit_move(k, va, len, k->dev);
	dev_fill(k->dev, va, MIB, 2);
	CHECK_OK(k->mem->fork(k, &c));
	child_verify(k, c, va, MIB, 2);
	dev_verify(k->dev, va, MIB, 2);
	kit_verify_part(k, va, MIB, len - MIB, 1);
	k->mem->child_exit(c);
	kit_verify(k, va, MIB, 2);
}

/* what the parent does after the fork, the child does not see */
static void parent_goes_on(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 3);
	struct kit_child *c;

	kit_move(k, va, len, k->dev);
	CHECK_OK(k->mem->fork(k, &c));
	kit_fill(k, va, len / 2, 4);
	kit_migrate(k, va, len, k->dev);
	dev_fill(k->dev, va + len / 2, len / 4, 5);
	CHECK_OK(k->mem->unmap(k, va + 3 * len / 4, len / 4));
	child_verify(k, c, va, len, 3);
	k->mem->child_exit(c);
	kit_verify(k, va, len / 2, 4);
	kit_verify(k, va + len / 2, len / 4, 5);
	dev_verify(k->dev, va, len / 2, 4);
}

/* never-touched pages that are away as zeros, and pages that only the device wrote */
static void zeros(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_map(k, len, KIT_RW);
	struct kit_child *c;

	kit_move(k, va, len, k->dev);
	dev_fill(k->dev, va, 8 * PAGE, 6);
	CHECK_OK(k->mem->fork(k, &c));
	child_verify(k, c, va, 8 * PAGE, 6);
	child_verify(k, c, va + 8 * PAGE, len - 8 * PAGE, KIT_ZEROS);
	k->mem->child_exit(c);
}

static void two_devices(struct kit *k)
{
	uint64_t len = 2 * MIB, va = kit_filled(k, len, 7);
	struct balun_device *b = kit_device(k, "host=0");
	struct kit_child *c;

	kit_move(k, va, len / 2, k->dev);
	kit_move(k, va + len / 2, len / 4, b);
	CHECK_OK(k->mem->fork(k, &c));
	child_verify(k, c, va, len, 7);
	k->mem->child_exit(c);
	kit_verify(k, va, len, 7);
}

static void several(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_map(k, len, KIT_RW), i;
	struct kit_child *c[4];

	for (i = 0; i < 4; i++) {
		kit_fill(k, va, len, i);
		kit_migrate(k, va, len, k->dev);
		CHECK_OK(k->mem->fork(k, &c[i]));
	}
	for (i = 0; i < 4; i++) {
		child_verify(k, c[i], va, len, i);
		k->mem->child_exit(c[i]);
	}
	kit_verify(k, va, len, 3);
}

/* after the child is gone everything moves again */
static void moves_again(struct kit *k)
{
	uint64_t len = MIB, va = kit_filled(k, len, 8);
	struct kit_child *c;

	CHECK_OK(k->mem->fork(k, &c));
	k->mem->child_exit(c);
	kit_fill(k, va, len, 9);
	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 9);
	kit_verify(k, va, len, 9);
}

struct adder {
	struct kit *k;
	uint64_t va, adds;
	int stop;
};

/* keeps two words of a page equal, as the device; the second is written first */
static void *adder_main(void *arg)
{
	struct adder *a = arg;

	while (!__atomic_load_n(&a->stop, __ATOMIC_ACQUIRE)) {
		dev_write64(a->k->dev, a->va + 8, a->adds + 1);
		dev_write64(a->k->dev, a->va, a->adds + 1);
		__atomic_store_n(&a->adds, a->adds + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static uint64_t child_read64(struct kit *k, struct kit_child *c, uint64_t va)
{
	uint64_t v = 0;

	CHECK_OK(k->mem->child_load(c, va, &v, sizeof(v)));
	return v;
}

/* the child's memory is that of one moment, although the device went on writing */
static void device_runs(struct kit *k)
{
	struct adder a = { .k = k, .va = kit_map(k, 4 * PAGE, KIT_RW) };
	uint64_t other = kit_filled(k, MIB, 10), i;
	pthread_t t;

	kit_move(k, other, MIB, k->dev);
	t = kit_thread(adder_main, &a);
	for (i = 0; i < 8; i++) {
		uint64_t before, first, second;
		struct kit_child *c;

		while (__atomic_load_n(&a.adds, __ATOMIC_ACQUIRE) < 10 * (i + 1))
			sched_yield();
		before = __atomic_load_n(&a.adds, __ATOMIC_ACQUIRE);
		CHECK_OK(k->mem->fork(k, &c));
		second = child_read64(k, c, a.va + 8);
		first = child_read64(k, c, a.va);
		CHECK(first >= before);
		CHECK(second == first || second == first + 1);
		child_verify(k, c, other, MIB, 10);
		CHECK_EQ(child_read64(k, c, a.va), first);
		k->mem->child_exit(c);
		kit_migrate(k, other, MIB, k->dev);
	}
	__atomic_store_n(&a.stop, 1, __ATOMIC_RELEASE);
	kit_join(t);
	CHECK_EQ(cpu_read64(k, a.va), a.adds);
	kit_verify(k, other, MIB, 10);
}

struct forker {
	struct kit *k;
	struct kit_child *c;
};

static void *forker_main(void *arg)
{
	struct forker *f = arg;

	CHECK_OK(f->k->mem->fork(f->k, &f->c));
	return NULL;
}

static void moving(struct kit *k, bool home)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 11);
	struct forker f = { .k = k };
	struct kit_mover m;
	pthread_t t;

	if (k->kernel && !k->locked)
		kit_skip("mlockall() is refused: a fault while fork() waits would wait too");
	if (home)
		kit_move(k, va, len, k->dev);
	probe_pause(k->dev, 1);
	kit_mover_start(&m, k, va, len, home ? NULL : k->dev);
	CHECK(probe_paused(k->dev));
	/* fork may wait for the copy; it must not miss it */
	t = kit_thread(forker_main, &f);
	probe_resume(k->dev);
	kit_join(t);
	kit_mover_end(&m);
	child_verify(k, f.c, va, len, 11);
	k->mem->child_exit(f.c);
	kit_verify(k, va, len, 11);
}

static void moving_to_device(struct kit *k)
{
	moving(k, false);
}

static void moving_home(struct kit *k)
{
	moving(k, true);
}

/* ---- a real child ---- */

/* runs in the child; the parent fails if it does not return 0 */
static void in_child(struct kit *k, void (*fn)(struct kit *k, uint64_t va, uint64_t len),
		     uint64_t va, uint64_t len)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		fn(k, va, len);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	/* a CHECK that fails in the child has left its verdict already */
	CHECK_EQ(status, 0);
}

static void child_handles(struct kit *k, uint64_t va, uint64_t len)
{
	struct balun_stats s = { .size = sizeof(s) };
	struct balun_device *d;
	struct balun_extent e;
	void *a = (void *)va;
	size_t n;

	CHECK_RC(balun_migrate(k->space, a, len, k->dev, NULL), -ECHILD);
	CHECK_RC(balun_migrate(k->space, a, len, NULL, NULL), -ECHILD);
	CHECK_RC(balun_prefetch(k->space, a, len, k->dev), -ECHILD);
	CHECK_RC(balun_sync(k->space), -ECHILD);
	CHECK_RC(balun_evict(k->dev, 1, NULL), -ECHILD);
	CHECK_RC(balun_pin(k->space, a, len), -ECHILD);
	CHECK_RC(balun_unpin(k->space, a, len), -ECHILD);
	CHECK_RC(balun_advise(k->space, a, len, BALUN_ADVISE_NONE, NULL), -ECHILD);
	CHECK_RC(balun_query(k->space, a, len, &e, 1, &n), -ECHILD);
	CHECK_RC(balun_stats(k->space, &s), -ECHILD);
	CHECK_RC(balun_fence(k->space), -ECHILD);
	CHECK_RC(balun_device_open(k->space, k->driver, &d), -ECHILD);
	CHECK_RC(balun_device_close(k->dev), -ECHILD);
	CHECK_RC(balun_space_destroy(k->space), -ECHILD);
}

static void handles(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 12);

	kit_move(k, va, len, k->dev);
	in_child(k, child_handles, va, len);
	dev_verify(k->dev, va, len, 12);
	kit_verify(k, va, len, 12);
}

/* the child mirrors itself */
static void child_space(struct kit *k, uint64_t va, uint64_t len)
{
	struct balun_device *d;

	CHECK_OK(kit_open_space(k));
	CHECK_OK(balun_device_open(k->space, k->driver, &d));
	if (k->mem == &mem_process) {
		kit_verify(k, va, len, 13);
		kit_fill(k, va, len, 14);
		kit_move(k, va, len, d);
		kit_verify(k, va, len, 14);
		kit_move(k, va, len, d);
	}
	CHECK_OK(balun_device_close(d));
	CHECK_OK(balun_space_destroy(k->space));
	if (k->mem == &mem_process)
		kit_verify(k, va, len, 14);
}

static void new_space(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 13);

	kit_move(k, va, len, k->dev);
	in_child(k, child_space, va, len);
	kit_verify(k, va, len, 13);
}

/* a child that forks, and its child */
static void grandchild(struct kit *k, uint64_t va, uint64_t len)
{
	kit_verify(k, va, len, 15);
	in_child(k, child_handles, va, len);
}

static void generations(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 15);

	kit_move(k, va, len, k->dev);
	in_child(k, grandchild, va, len);
	kit_verify(k, va, len, 15);
}

static void child_writes_fn(struct kit *k, uint64_t va, uint64_t len)
{
	kit_verify(k, va, len, 16);
	kit_fill(k, va, len, 17);
	kit_verify(k, va, len, 17);
	CHECK_OK(k->mem->dontneed(k, va, len / 2));
	kit_verify_zero(k, va, len / 2);
	CHECK_OK(k->mem->unmap(k, va, len));
}

static void child_writes(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 16);

	kit_move(k, va, len, k->dev);
	in_child(k, child_writes_fn, va, len);
	dev_verify(k->dev, va, len, 16);
	kit_verify(k, va, len, 16);
}

/* vfork and exec from a process whose pages are away */
static void execs(struct kit *k)
{
	uint64_t len = 64 * PAGE, va = kit_filled(k, len, 18);

	kit_move(k, va, len, k->dev);
	CHECK_EQ(system("exit 7"), 7 << 8);
	CHECK_EQ(kit_resident(k, va, len, k->dev), 64);
	kit_verify(k, va, len, 18);
}

/* the process in between ends at once; its child must not need it */
static void parent_exits(struct kit *k)
{
	uint64_t len = 2 * MIB;
	int fd[2], status;
	char ok = 0;
	pid_t pid;

	CHECK_EQ(pipe(fd), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		uint64_t va;

		CHECK_OK(kit_open_space(k));
		k->dev = kit_device(k, NULL);
		va = kit_filled(k, len, 19);
		kit_move(k, va, len, k->dev);
		pid = fork();
		CHECK(pid >= 0);
		if (pid)
			_exit(0);
		kit_verify(k, va, len, 19);
		CHECK_EQ(write(fd[1], "y", 1), 1);
		_exit(0);
	}
	close(fd[1]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(read(fd[0], &ok, 1), 1);
	CHECK_EQ(ok, 'y');
}

const struct kit_case cases_fork[] = {
	{ "fork-while-away", away, NULL, KIT_FORK },
	{ "fork-while-away-copied", away, "host=0", KIT_FORK },
	{ "fork-parent-goes-on", parent_goes_on, NULL, KIT_FORK },
	{ "fork-zeros", zeros, NULL, KIT_FORK },
	{ "fork-two-devices", two_devices, NULL, KIT_FORK },
	{ "fork-several", several, NULL, KIT_FORK },
	{ "fork-moves-again", moves_again, NULL, KIT_FORK },
	{ "fork-while-device-runs", device_runs, NULL, KIT_FORK },
	{ "fork-while-moving-to-device", moving_to_device, "host=0", KIT_FORK },
	{ "fork-while-moving-home", moving_home, "host=0", KIT_FORK },
	{ "fork-child-handles", handles, NULL, KIT_CHILD },
	{ "fork-child-new-space", new_space, NULL, KIT_CHILD },
	{ "fork-child-generations", generations, NULL, KIT_CHILD | KIT_PROCESS },
	{ "fork-child-writes", child_writes, NULL, KIT_CHILD | KIT_PROCESS },
	{ "fork-exec", execs, NULL, KIT_CHILD | KIT_PROCESS },
	{ "fork-parent-exits", parent_exits, NULL, KIT_CHILD | KIT_PROCESS | KIT_NO_SPACE },
	{ NULL, NULL, NULL, 0 },
};
