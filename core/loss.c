// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Loss: a page that a device will not give back, and a device that is dead.
 *
 * A driver says that a device is dead from anywhere, also under locks and from a thread that serves
 * CPU faults; so that only sets a bit, which refuses what is new. Pages are taken out of the
 * program by who comes by: a CPU that touches one, balun_lost(), a fork, the device's end. To the
 * program that is the same as if all had gone at once.
 */
#include "core/core.h"

/* how often all of a dead device's memory is searched: mremap() may move pages behind the search,
 * and those in transit come back to it. What is left is lost when it is touched */
#define LOSE_ROUNDS 16

bool core_device_is_lost(const struct balun_space *sp, unsigned int dev)
{
	return core_is_lost(sp, dev);
}

struct balun_device *core_device_find(struct balun_space *sp, unsigned int id)
{
	struct balun_device *dev;

	env_mutex_lock(&sp->move_lock);
	dev = id < CORE_DEVICE_SLOTS ? sp->device[id] : NULL;
	if (dev)
		dev->users++;
	env_mutex_unlock(&sp->move_lock);
	return dev;
}

static void count_lost(struct balun_device *dev, uint64_t pages)
{
	core_count(&dev->space->stats.lost_pages, pages);
	core_count(&dev->lost_pages, pages);
}

void core_strays_lost(struct balun_space *sp, unsigned int id, uint64_t pages)
{
	struct balun_device *dev = core_device_find(sp, id);

	if (!dev)
		return;
	count_lost(dev, pages);
	env_log(0, "%llu KiB are lost: %s does not give them back",
		(unsigned long long)pages << (BALUN_PAGE_SHIFT - 10), dev->name);
	core_device_put(dev);
}

/*
 * Device @id will not give back pages of [va, va + len), inside one block. They may have changed
 * since that was found out (unmapped, home, on their way): those are not lost. A device may have
 * mapped them again: the memory is freed, so no entry may remain. Returns how many are lost.
 */
uint64_t core_lose(struct balun_space *sp, unsigned int id, uint64_t va, uint64_t len)
{
	struct balun_device *dev = core_device_find(sp, id);
	uint64_t lost;

	if (!dev)
		return 0;
	core_invalidate_begin(sp, va, len, BALUN_CAUSE_TEARDOWN);
	lost = sp->engine->poison(sp->e, id, va, len);
	core_invalidate_end(sp, va, len);
	if (lost) {
		count_lost(dev, lost);
		env_log(0, "%llu KiB at 0x%llx are lost: %s does not give them back",
			(unsigned long long)lost << (BALUN_PAGE_SHIFT - 10), (unsigned long long)va,
			dev->name);
	}
	core_device_put(dev);
	return lost;
}

/* one search; whether it found anything that may be on the device */
static bool lose_round(struct balun_space *sp, unsigned int id)
{
	struct engine_run r;
	bool found = false;
	uint64_t va = 0;

	for (; sp->engine->next_away(sp->e, id, va, &r); va = r.va + r.len) {
		if (r.where != ENGINE_BUSY)
			core_lose(sp, id, r.va, r.len);
		found = true;
	}
	return found;
}

/* The pages of lost devices are lost: those that are there now, and those in transit by then. */
void core_lose_devices(struct balun_space *sp)
{
	unsigned int id, round;

	for (id = 1; id < CORE_DEVICE_SLOTS; id++) {
		if (!core_is_lost(sp, id))
			continue;
		for (round = 0; round < LOSE_ROUNDS; round++) {
			core_moves_synchronize(sp);
			if (!lose_round(sp, id))
				break;
		}
	}
}

/* what is lost from @va on, at most @n extents; returns how many. Blocks of one run are joined */
size_t core_lost_extents(struct balun_space *sp, uint64_t va, struct balun_extent *ret_ext,
			 size_t n)
{
	struct engine_run r;
	size_t k = 0;

	core_lose_devices(sp);
	for (; sp->engine->next_lost(sp->e, va, &r); va = r.va + r.len) {
		if (k && ret_ext[k - 1].addr + ret_ext[k - 1].len == r.va)
			ret_ext[k - 1].len += r.len;
		else if (k == n)
			break;
		else
			ret_ext[k++] = (struct balun_extent){ .addr = r.va,
							      .len = r.len,
							      .where = BALUN_WHERE_LOST,
							      .flags = BALUN_EXTENT_MAPPED };
	}
	return k;
}

void balun_device_lost(struct balun_device *dev)
{
	struct balun_space *sp = dev->space;
	uint32_t bit = 1u << dev->id;
	uint64_t cookie[8];
	bool first;

	if (sp->engine->remote)
		return; /* whose driver is elsewhere: that one says so */
	sp->engine->enter(sp->e, cookie);
	env_mutex_lock(&sp->move_lock);
	first = !(sp->lost & bit);
	env_store(&sp->lost, sp->lost | bit);
	env_mutex_unlock(&sp->move_lock);
	sp->engine->leave(sp->e, cookie);
	if (first)
		env_log(0, "device %u (%s) is lost", dev->id, dev->name);
}
