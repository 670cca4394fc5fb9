/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The program's side of memory on the simulator: a process that is a table. */
#include "kit.h"

static int sim_map(struct kit *k, uint64_t va, uint64_t len, unsigned int prot)
{
	return balun_sim_mmap(k->space, va, len, prot);
}

static int sim_unmap(struct kit *k, uint64_t va, uint64_t len)
{
	return balun_sim_munmap(k->space, va, len);
}

static int sim_remap(struct kit *k, uint64_t from, uint64_t to, uint64_t len)
{
	return balun_sim_mremap(k->space, from, len, to, len, 0);
}

static int sim_protect(struct kit *k, uint64_t va, uint64_t len, unsigned int prot)
{
	return balun_sim_mprotect(k->space, va, len, prot);
}

static int sim_dontneed(struct kit *k, uint64_t va, uint64_t len)
{
	return balun_sim_dontneed(k->space, va, len);
}

static int sim_load(struct kit *k, uint64_t va, void *buf, size_t len)
{
	return balun_sim_load(k->space, va, buf, len);
}

static int sim_store(struct kit *k, uint64_t va, const void *buf, size_t len)
{
	return balun_sim_store(k->space, va, buf, len);
}

/* a kit_child of this engine is a balun_sim_child */
static int sim_fork(struct kit *k, struct kit_child **ret_child)
{
	return balun_sim_fork(k->space, (struct balun_sim_child **)ret_child);
}

static int sim_child_load(struct kit_child *c, uint64_t va, void *buf, size_t len)
{
	return balun_sim_child_load((struct balun_sim_child *)c, va, buf, len);
}

static void sim_child_exit(struct kit_child *c)
{
	balun_sim_child_exit((struct balun_sim_child *)c);
}

const struct mem_ops mem_sim = {
	.map = sim_map,
	.unmap = sim_unmap,
	.remap = sim_remap,
	.protect = sim_protect,
	.dontneed = sim_dontneed,
	.load = sim_load,
	.store = sim_store,
	.fork = sim_fork,
	.child_load = sim_child_load,
	.child_exit = sim_child_exit,
};
