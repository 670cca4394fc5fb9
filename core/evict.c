// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Room in device memory: places for the pages of a block, the list of blocks by last use, eviction.
 *
 * The list is a hint and not a second truth: it says which blocks to look at first; what is there
 * is asked of the engine when a block is evicted. Memory is got before a block's pages are taken,
 * with no lock held, so that an eviction never waits for the migration that needs it.
 */
#include "core/core.h"

static struct env_list *resident_bucket(struct balun_device *dev, uint64_t va)
{
	return &dev->resident[core_block_slot(va, CORE_RESIDENT_HASH)];
}

static struct core_resident *resident_find(struct balun_device *dev, uint64_t va)
{
	struct env_list *head = resident_bucket(dev, va), *l;

	env_assert_held(&dev->lru_lock);
	env_list_for_each (l, head) {
		struct core_resident *r = env_container_of(l, struct core_resident, hash);

		if (r->va == va)
			return r;
	}
	return NULL;
}

static void resident_free(struct core_resident *r)
{
	env_list_del(&r->lru);
	env_list_del(&r->hash);
	env_free(r);
}

/* Without memory for the link the block is merely not evictable until it is touched again. */
void core_resident_add(struct balun_device *dev, uint64_t va, unsigned int pages)
{
	struct core_resident *r;

	va &= ~(BALUN_BLOCK_SIZE - 1);
	env_mutex_lock(&dev->lru_lock);
	r = resident_find(dev, va);
	if (!r) {
		r = env_alloc(sizeof(*r));
		if (!r)
			goto unlock;
		r->va = va;
		env_list_init(&r->lru);
		env_list_add(resident_bucket(dev, va), &r->hash);
	}
	r->pages += pages;
	env_list_del(&r->lru);
	env_list_add_tail(&dev->lru, &r->lru);
unlock:
	env_mutex_unlock(&dev->lru_lock);
}

void core_resident_touch(struct balun_device *dev, uint64_t va)
{
	core_resident_add(dev, va, 0);
}

void core_resident_sub(struct balun_device *dev, uint64_t va, unsigned int pages)
{
	struct core_resident *r;

	env_mutex_lock(&dev->lru_lock);
	r = resident_find(dev, va & ~(BALUN_BLOCK_SIZE - 1));
	if (r) {
		uint32_t stale = ENV_MIN(pages, r->stale);

		r->stale -= stale;
		r->pages -= ENV_MIN(pages - stale, r->pages);
		if (!r->pages && !r->stale)
			resident_free(r);
	}
	env_mutex_unlock(&dev->lru_lock);
}

/*
 * An eviction found nothing where @pages were counted, and none came while it looked. Who dropped
 * them may not have counted them off yet, so the block is forgotten only after a time.
 */
static void resident_prune(struct balun_device *dev, uint64_t va, unsigned int pages)
{
	struct core_resident *r;

	env_mutex_lock(&dev->lru_lock);
	r = resident_find(dev, va);
	if (r && r->pages == pages) {
		if (pages)
			r->stale_ns = env_now_ns();
		r->stale += pages;
		r->pages = 0;
		if (!r->stale || env_now_ns() - r->stale_ns > CORE_DRAIN_NS)
			resident_free(r);
	}
	env_mutex_unlock(&dev->lru_lock);
}

void core_resident_forget(struct balun_device *dev)
{
	env_mutex_lock(&dev->lru_lock);
	while (!env_list_empty(&dev->lru))
		resident_free(env_container_of(dev->lru.next, struct core_resident, lru));
	env_mutex_unlock(&dev->lru_lock);
}

static int mem_alloc(struct balun_device *dev, uint64_t len, uint64_t *ret_off)
{
	int err;

	if (dev->mem)
		err = devmem_alloc(dev->mem, len, ret_off);
	else
		err = dev->ops.alloc(dev->priv, len, ret_off);
	if (!err)
		core_count(&dev->mem_used, len);
	return err;
}

void core_free_place(struct balun_device *dev, uint32_t pgno, uint32_t npages)
{
	uint64_t off = (uint64_t)pgno << BALUN_PAGE_SHIFT;
	uint64_t len = (uint64_t)npages << BALUN_PAGE_SHIFT;

	if (dev->mem) {
		dev->ops.trim(dev->priv, off, len);
		devmem_free(dev->mem, off, len);
	} else {
		dev->ops.free(dev->priv, off, len);
	}
	__atomic_fetch_sub(&dev->mem_used, len, __ATOMIC_RELAXED);
}

int core_device_spill(struct balun_device *dev, struct balun_device *to)
{
	struct balun_space *sp = dev->space;
	unsigned int id = to ? to->id : 0, at;

	env_mutex_lock(&sp->devices_lock);
	/* along the row to its end, which is home or a device that spills to itself: @dev is not on
	 * it, or an eviction would never end. Who is in a row is open: core_device_unspill() */
	for (at = id; to != dev && at && at != dev->id; at = sp->device[at]->spill)
		if (sp->device[at]->spill == at)
			break;
	if (to == dev || at != dev->id)
		env_store_relaxed(&dev->spill, id);
	env_mutex_unlock(&sp->devices_lock);
	return to == dev || at != dev->id ? 0 : -EINVAL;
}

/* devices_lock held: @id is closed */
void core_device_unspill(struct balun_space *sp, unsigned int id)
{
	unsigned int i;

	for (i = 1; i < CORE_DEVICE_SLOTS; i++)
		if (sp->device[i] && sp->device[i]->spill == id)
			env_store_relaxed(&sp->device[i]->spill, 0);
}

/*
 * Evict blocks, coldest first, until @bytes are freed. Each block is looked at once a call: a
 * block that cannot go (pinned, busy) goes to the warm end, and the call ends when it has been
 * round, so it is bounded. @keep_va: the block that needs the memory; not evicted for itself. They
 * go home, or to the device that this one spills to, which may evict in turn: that chain has no
 * loops.
 */
int core_evict(struct balun_device *dev, uint64_t bytes, uint64_t keep_va, uint64_t *ret_bytes)
{
	unsigned int spill = env_load_relaxed(&dev->spill);
	struct balun_space *sp = dev->space;
	uint64_t freed = 0;
	unsigned int left = 0;
	struct env_list *l;
	bool failed = false;

	env_mutex_lock(&dev->lru_lock);
	env_list_for_each (l, &dev->lru)
		left++;
	env_mutex_unlock(&dev->lru_lock);

	while (freed < bytes && left-- > 0) {
		struct core_move mv = { .src = dev->id,
					.dst = spill == dev->id ? 0 : spill,
					.cause = BALUN_CAUSE_EVICTION };
		struct balun_counts c = { 0 };
		struct core_resident *r;
		unsigned int pages;

		env_mutex_lock(&dev->lru_lock);
		if (env_list_empty(&dev->lru)) {
			env_mutex_unlock(&dev->lru_lock);
			break;
		}
		r = env_container_of(dev->lru.next, struct core_resident, lru);
		mv.va = r->va;
		pages = r->pages;
		env_list_del(&r->lru);
		env_list_add_tail(&dev->lru, &r->lru);
		env_mutex_unlock(&dev->lru_lock);
		if (mv.va == keep_va)
			continue;

		env_bits_set_range(mv.want, 0, BALUN_BLOCK_PAGES);
		if (core_move_block(sp, &mv, &c) == -ENODEV)
			break; /* the device that it spills to is closing, or lost */
		failed |= c.failed > 0;
		if (c.moved) {
			freed += c.moved << BALUN_PAGE_SHIFT;
			if (ENV_PROBE_ON(evict))
				env_probe_evict(mv.va, c.moved << BALUN_PAGE_SHIFT, dev->id, mv.dst,
						mv.begun_ns);
			core_count(&sp->stats.evictions, 1);
		} else if (mv.dst && c.nomem) {
			break; /* full as well */
		} else if (!c.busy && !c.pinned && !c.failed && !c.nomem) {
			resident_prune(dev, mv.va, pages);
		}
	}
	if (freed < bytes)
		freed += sp->engine->evict_strays(sp->e, dev->id,
						  (bytes - freed - 1) / BALUN_PAGE_SIZE + 1)
			 << BALUN_PAGE_SHIFT;
	*ret_bytes = freed;
	if (freed >= bytes)
		return 0;
	return failed ? -EIO : -EBUSY;
}

/*
 * What was in transit may have been on its way home: it is busy, and its device memory is free only
 * some time after a CPU got the page. So who misses something waits for the migrations that are
 * under way, and looks once more; what is busy after that is busy for another reason.
 */
int core_evict_settled(struct balun_device *dev, uint64_t bytes, uint64_t *ret_freed)
{
	uint64_t more = 0;
	int err;

	err = core_evict(dev, bytes, UINT64_MAX, ret_freed);
	if (err != -EBUSY)
		return err;
	core_moves_synchronize(dev->space);
	err = core_evict(dev, bytes - *ret_freed, UINT64_MAX, &more);
	*ret_freed += more;
	if (err == -EBUSY && !env_load_relaxed(&dev->mem_used))
		err = 0; /* all of it is free: there was no more to evict */
	return err;
}

bool core_is_pinned(struct balun_space *sp, uint64_t va)
{
	uint64_t block = va & ~(BALUN_BLOCK_SIZE - 1);
	env_bits pinned;

	return hint_pinned(sp->hints, block, pinned) &&
	       env_bit(pinned, (va - block) >> BALUN_PAGE_SHIFT);
}

/* A whole chunk may need many evictions when memory is in small pieces: after so many rounds
 * smaller runs are used instead. */
#define PLACE_ROUNDS 4

/* one run, evicting as long as that frees something */
static int place_run(struct balun_device *dev, uint64_t len, bool evict, uint64_t keep_va,
		     uint64_t *ret_off)
{
	uint64_t freed = 0;
	unsigned int round;
	int err;

	for (round = 0;; round++) {
		err = mem_alloc(dev, len, ret_off);
		if (err != -ENOMEM || !evict || (len > BALUN_PAGE_SIZE && round == PLACE_ROUNDS) ||
		    env_load_relaxed(&dev->spill) == dev->id)
			return err;
		core_evict(dev, len, keep_va, &freed);
		if (!freed) /* an eviction does not find what has come free by itself since */
			return mem_alloc(dev, len, ret_off);
	}
}

static void place_set(uint32_t *place, unsigned int first, unsigned int n, uint64_t off)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		place[first + i] = (off >> BALUN_PAGE_SHIFT) + i;
}

/*
 * Places for the wanted pages of a block: one 2 MiB run for a whole block, 64 KiB runs for whole
 * units, single pages otherwise; smaller runs when no larger one is free even after eviction.
 * Pages without a place get ~0. Returns how many got one.
 */
int core_alloc_places(struct balun_device *dev, const uint64_t *want, uint64_t keep_va,
		      uint32_t *place)
{
	bool evict = true;
	unsigned int i, j;
	uint64_t off;
	int got = 0;

	if (env_bits_count(want) == BALUN_BLOCK_PAGES &&
	    !place_run(dev, BALUN_BLOCK_SIZE, true, keep_va, &off)) {
		place_set(place, 0, BALUN_BLOCK_PAGES, off);
		return BALUN_BLOCK_PAGES;
	}
	for (i = 0; i < BALUN_BLOCK_PAGES; i += 16) {
		uint16_t unit = want[i / 64] >> (i % 64);

		if (!unit)
			continue;
		if (unit == 0xffff && !place_run(dev, 16 * BALUN_PAGE_SIZE, evict, keep_va, &off)) {
			place_set(place, i, 16, off);
			got += 16;
			continue;
		}
		for (j = 0; j < 16; j++) {
			if (!(unit >> j & 1))
				continue;
			if (place_run(dev, BALUN_PAGE_SIZE, evict, keep_va, &off)) {
				evict = false; /* it is full, and nothing can go */
				place[i + j] = ~0u;
				continue;
			}
			place_set(place, i + j, 1, off);
			got++;
		}
	}
	return got;
}

void core_release(struct balun_space *sp, unsigned int dev_id, uint64_t va, uint64_t off,
		  uint64_t len)
{
	struct balun_device *dev = env_load(&sp->device[dev_id]);

	if (!dev) /* closed: what another process has had of it since a fork ends later */
		return;
	core_free_place(dev, off >> BALUN_PAGE_SHIFT, len >> BALUN_PAGE_SHIFT);
	while (len) { /* a run may go on in the next block */
		uint64_t n = ENV_MIN(len, BALUN_BLOCK_SIZE - va % BALUN_BLOCK_SIZE);

		core_resident_sub(dev, va, n >> BALUN_PAGE_SHIFT);
		va += n;
		len -= n;
	}
}

void core_release_place(struct balun_space *sp, unsigned int dev_id, uint64_t off, uint64_t len)
{
	struct balun_device *dev = env_load(&sp->device[dev_id]);

	if (dev)
		core_free_place(dev, off >> BALUN_PAGE_SHIFT, len >> BALUN_PAGE_SHIFT);
}

void core_moved(struct balun_space *sp, unsigned int dev_id, uint64_t to, uint64_t len)
{
	struct balun_device *dev = env_load(&sp->device[dev_id]);

	env_assert(dev);
	while (len) {
		uint64_t n = ENV_MIN(len, BALUN_BLOCK_SIZE - to % BALUN_BLOCK_SIZE);

		core_resident_add(dev, to, n >> BALUN_PAGE_SHIFT);
		to += n;
		len -= n;
	}
}

uint64_t core_device_metadata(struct balun_device *dev)
{
	uint64_t n = dev->mem ? devmem_metadata(dev->mem) : 0;
	struct env_list *l;

	env_mutex_lock(&dev->lru_lock);
	env_list_for_each (l, &dev->lru)
		n += sizeof(struct core_resident);
	env_mutex_unlock(&dev->lru_lock);
	return n;
}
