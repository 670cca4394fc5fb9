// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Thrashing: a block that goes to and fro. Three moves between processors, each within the window
 * of the one before, and the block stays where it is for 150 ms; one quiet second resets (NVIDIA
 * UVM's constants). The window is 500 us or four times the mean CPU fault of this machine, so it
 * grows on a slow one and shrinks again. While a block thrashes, a CPU fault is held back for one
 * window after a device has fetched it, so that the device gets to use what it fetched (UVM
 * throttles CPU faults alike). Slots are hashed and racy: they are hints.
 */
#include "core/core.h"

#define THRASH_MOVES	 3
#define THRASH_WINDOW_NS 500000ULL
#define THRASH_STAY_NS	 150000000ULL
#define THRASH_QUIET_NS	 1000000000ULL

static struct core_thrash *slot(struct balun_space *sp, uint64_t block)
{
	return &sp->thrash[core_block_slot(block, CORE_THRASH_SLOTS)];
}

static uint64_t window(struct balun_space *sp)
{
	uint64_t n = env_load_relaxed(&sp->stats.cpu_fault.count);
	uint64_t sum = env_load_relaxed(&sp->stats.cpu_fault.sum_ns);

	return ENV_MAX(THRASH_WINDOW_NS, n ? 4 * (sum / n) : 0);
}

void core_thrash_note(struct balun_space *sp, uint64_t block, bool to_device)
{
	struct core_thrash *t = slot(sp, block);
	uint64_t now = env_now_ns(), gap = now - env_load_relaxed(&t->last_ns);
	uint32_t count = env_load_relaxed(&t->count);

	if (env_load_relaxed(&t->block) != block || gap > THRASH_QUIET_NS)
		count = 0;
	else if (env_load_relaxed(&t->to_device) != to_device && gap <= window(sp))
		count++;
	else if (env_load_relaxed(&t->to_device) != to_device &&
		 now > env_load_relaxed(&t->stay_until_ns))
		count = 0; /* one slow move does not end a stay */
	env_store_relaxed(&t->block, block);
	env_store_relaxed(&t->last_ns, now);
	env_store_relaxed(&t->to_device, to_device);
	env_store_relaxed(&t->count, count);
	if (count >= THRASH_MOVES)
		env_store_relaxed(&t->stay_until_ns, now + THRASH_STAY_NS);
}

unsigned int core_thrash_level(struct balun_space *sp, uint64_t block)
{
	struct core_thrash *t = slot(sp, block);

	if (env_load_relaxed(&t->block) != block ||
	    env_now_ns() > env_load_relaxed(&t->stay_until_ns))
		return 0;
	return env_load_relaxed(&t->count);
}

bool core_thrash_hold(struct balun_space *sp, uint64_t block)
{
	struct core_thrash *t = slot(sp, block);

	return core_thrash_level(sp, block) && env_load_relaxed(&t->to_device) &&
	       env_now_ns() - env_load_relaxed(&t->last_ns) < window(sp);
}
