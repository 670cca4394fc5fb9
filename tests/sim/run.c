// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* One run of a schedule: a space and devices, the threads, and what must be true at the end. */
#include "tests/sim/ops.h"

static void do_op(const struct op *op)
{
	unsigned int word = op->flags >> 4 & 1;

	switch (op->kind) {
	case OP_LOAD:
		return cpu_load(op, op->page, word);
	case OP_STORE:
		return cpu_store(op, op->page, word);
	case OP_DEV_READ:
		return dev_read(op, op->page, word);
	case OP_DEV_WRITE:
		return dev_write(op, op->page, word, false);
	case OP_DEV_SWAP:
		return dev_write(op, op->page, word, true);
	case OP_FAULT:
		return do_fault(op);
	case OP_MIGRATE:
		return do_migrate(op);
	case OP_PREFETCH:
		return do_prefetch(op);
	case OP_SYNC:
		CHECK(!note(op, balun_sync(world.space)));
		return;
	case OP_EVICT:
		return do_evict(op);
	case OP_ADVISE:
		return do_advise(op);
	case OP_PIN:
		return do_pin(op);
	case OP_UNPIN:
		return do_unpin(op);
	case OP_MUNMAP:
		return do_munmap(op);
	case OP_MMAP:
		return do_mmap(op);
	case OP_MREMAP:
		return do_mremap(op);
	case OP_MPROTECT:
		return do_mprotect(op);
	case OP_FREE:
		return do_free(op);
	case OP_DONTNEED:
		return do_dontneed(op);
	case OP_FORK:
		return do_fork(op);
	case OP_CLOSE:
		return do_close(op);
	case OP_QUERY:
		return do_query(op);
	case OP_KILL:
		return testdev_kill(op->device, op->flags & 1, op->flags & 2);
	case OP_NOMEM:
		world.nomem = true;
		return env_fail_alloc(1 + op->arg % 12);
	}
}

struct worker {
	struct env_thread *thread;
	unsigned int no;
};

static void worker_main(void *arg)
{
	struct worker *me = arg;
	unsigned int i;

	env_mutex_lock(&world.lock);
	while (!world.go)
		env_cond_wait(&world.quiet, &world.lock, ENV_FOREVER);
	env_mutex_unlock(&world.lock);
	for (i = 0; i < world.s->nops; i++)
		if (world.s->op[i].thread == me->no)
			do_op(&world.s->op[i]);
}

static int create_space(unsigned int arg)
{
	struct balun_space_opts opts = { .size = sizeof(opts),
					 .engine = "sim",
					 .policy = &policy_sim };

	(void)arg;
	return balun_space_create(&opts, &world.space);
}

/* with every one of its allocations failing, in turn, before it succeeds */
static void make(int (*fn)(unsigned int), unsigned int arg)
{
	unsigned int nth = world.s->profile.memory ? 1 : 0;
	int err;

	do {
		env_fail_alloc(nth++);
		err = fn(arg);
		CHECK(!err || err == -ENOMEM);
	} while (err && nth > 1);
	env_fail_alloc(0);
	CHECK(!err);
}

static void start(void)
{
	static const struct op setup = { .kind = OP_MMAP };
	unsigned int i, page;

	make(create_space, 0);
	for (i = 0; i <= WINDOWS; i++) {
		struct op op = setup;

		op.page = page = i * WINDOW_PAGES;
		op.n = page < BIG_FIRST ? WINDOW_PAGES : BIG_PAGES;
		op.flags = 1;
		do_mmap(&op);
	}
	for (i = 0; i < DEVICES; i++)
		if (i < 2 || world.s->options & 0x20)
			make(open_device, i);
}

static void check_all(const struct op *op, bool devices)
{
	struct op final = *op;
	unsigned int page, word, d;

	for (page = 0; page < PAGES; page++) {
		for (word = 0; word < WORDS; word++) {
			for (d = 0; devices && d < DEVICES - 1; d++) {
				final.device = d;
				final.kind = OP_DEV_READ;
				if (world.handle[d].dev)
					dev_read(&final, page, word);
			}
			final.kind = OP_LOAD;
			cpu_load(&final, page, word);
		}
	}
}

/* a list of all would have a length that nobody knows before: a block can be in many pieces */
static bool is_listed(uint64_t va)
{
	struct balun_extent x;
	size_t n;

	CHECK(!balun_lost(world.space, (void *)va, &x, 1, &n));
	return n && va >= x.addr && va - x.addr < x.len;
}

/* nobody else runs: a page is SIGBUS exactly if it is listed as lost, and query says the same */
static void check_lost(void)
{
	struct balun_extent one;
	unsigned int page;
	uint64_t value;
	size_t k;
	int err;

	for (page = 0; page < PAGES; page++) {
		bool lost = is_listed(page_va(page));

		CHECK(!balun_query(world.space, (void *)page_va(page), BALUN_PAGE_SIZE, &one, 1,
				   &k));
		CHECK((one.where == BALUN_WHERE_LOST) == lost);
		err = balun_sim_load(world.space, page_va(page), &value, 8);
		/* who has no permission is told that first; without a device's word a page may
		 * be lost by this very load */
		CHECK(err != -EHWPOISON || lost || testdev_any_silent());
		CHECK(!lost || err == -EHWPOISON || err == -EFAULT);
	}
}

/* either nothing is mapped any more, and then the devices hold nothing; or closing brings it home
 */
static void finish(void)
{
	const struct op op = { .no = 999 };
	struct balun_device_info info = { .size = sizeof(info) };
	struct balun_stats stats = { .size = sizeof(stats) };
	bool unmap = world.s->options & 0x80;
	unsigned int i;
	int err;

	world.alone = true;
	CHECK(!balun_sync(world.space));
	check_agreement();
	while (world.npins)
		do_unpin(&op);
	CHECK(balun_unpin(world.space, (void *)page_va(0), BALUN_PAGE_SIZE) == -ENOENT);
	check_lost();
	check_all(&op, world.s->options & 0x40);
	if (world.s->options & 0x400)
		check_quiet(&op);
	for (i = 0; unmap && i < WINDOWS; i++)
		balun_sim_munmap(world.space, page_va(i * WINDOW_PAGES),
				 WINDOW_PAGES * BALUN_PAGE_SIZE);
	if (unmap)
		balun_sim_munmap(world.space, BIG_VA, BALUN_BLOCK_SIZE);
	for (i = 0; i < DEVICES; i++) {
		if (!world.handle[i].dev)
			continue;
		CHECK(!balun_device_info(world.handle[i].dev, &info));
		if (unmap && info.mem_used)
			FAIL("device %u holds %llu bytes of nobody", i,
			     (unsigned long long)info.mem_used);
		if (i || unmap)
			close_device(NULL, i);
	}
	if (!unmap)
		check_all(&op, false);
	CHECK(!balun_stats(world.space, &stats));
	CHECK(stats.lost_pages || !world.poison);
	testdev_closers++;
	err = balun_space_destroy(world.space);
	CHECK(!err || (err == -EIO && testdev_any_dead()));
}

void schedule_run(void *schedule)
{
	struct worker worker[8];
	const struct schedule *s = schedule;
	size_t before = env_alloc_bytes();
	unsigned int i;

	memset(&world, 0, sizeof(world));
	memset(&profile, 0, sizeof(profile));
	world.s = s;
	env_mutex_init(&world.lock);
	env_cond_init(&world.quiet);
	model_reset();
	testdev_reset();
	start();
	profile = s->profile;
	for (i = 0; i < s->nthreads; i++) {
		worker[i].no = i;
		CHECK(!env_thread_create(&worker[i].thread, "worker", worker_main, &worker[i]));
	}
	env_mutex_lock(&world.lock);
	world.go = true;
	env_cond_wake(&world.quiet);
	env_mutex_unlock(&world.lock);
	for (i = 0; i < s->nthreads; i++)
		env_thread_join(worker[i].thread);
	/* from here on nothing fails and nobody is in the way */
	memset(&profile, 0, sizeof(profile));
	env_fail_alloc(0);
	finish();
	env_cond_destroy(&world.quiet);
	env_mutex_destroy(&world.lock);
	if (env_alloc_bytes() != before)
		FAIL("%zu bytes were not freed", env_alloc_bytes() - before);
}
