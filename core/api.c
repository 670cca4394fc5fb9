// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The entry points: check the arguments, say why when refusing, bracket the call for the engine
 * (enter/leave: the caller's own stack stays where it is), call core.
 */
#include "core/core.h"
#include "core/remote.h"

#define VA_END (1ULL << 47)

struct entry {
	struct balun_space *sp;
	uint64_t cookie[8]; /* the engine's */
};

static int check_space(const struct balun_space *sp)
{
	if (!sp) {
		env_reason("no space given");
		return -EINVAL;
	}
	if (sp->fork_gen != env_fork_gen()) {
		env_reason("this space belongs to the parent process: create one of your own");
		return -ECHILD;
	}
	return 0;
}

static int api_enter(struct balun_space *sp, struct entry *en)
{
	int err = check_space(sp);

	if (err)
		return err;
	en->sp = sp;
	sp->engine->enter(sp->e, en->cookie);
	return 0;
}

static int api_leave(struct entry *en, int err)
{
	en->sp->engine->leave(en->sp->e, en->cookie);
	return err;
}

/* who serves the spaces of this engine instead of core; NULL: core does */
static const struct remote_ops *remote_of(const struct balun_space *sp)
{
	return sp->engine->remote;
}

static int check_range(uint64_t va, uint64_t len)
{
	if (!len || va + len < va || va + len > VA_END) {
		env_reason("range 0x%llx+0x%llx is empty or leaves the address space",
			   (unsigned long long)va, (unsigned long long)len);
		return -EINVAL;
	}
	return 0;
}

static int check_device(const struct balun_space *sp, const struct balun_device *dev)
{
	if (dev && dev->space != sp) {
		env_reason("the device belongs to another space");
		return -EINVAL;
	}
	if (dev && (env_load(&dev->closing) || core_is_lost(sp, dev->id))) {
		env_reason("the device is %s", dev->closing ? "being closed" : "lost");
		return -ENODEV;
	}
	return 0;
}

static unsigned int id_of(const struct balun_device *dev)
{
	return dev ? dev->id : 0;
}

const char *balun_version(void)
{
	return BALUN_VERSION_STRING;
}

const char *balun_reason(void)
{
	return env_reason_get();
}

int balun_space_destroy(struct balun_space *space)
{
	int err = space ? check_space(space) : 0;

	if (!space || err)
		return err;
	if (remote_of(space))
		return remote_of(space)->space_destroy(space);
	return core_space_end(space);
}

const char *balun_space_engine(const struct balun_space *space)
{
	return space->engine->name;
}

int balun_device_open(struct balun_space *space, const char *spec, struct balun_device **ret_dev)
{
	struct entry en;
	int err;

	if (!spec || !ret_dev)
		return -EINVAL;
	err = check_space(space);
	if (!err && remote_of(space))
		return remote_of(space)->device_open(space, spec, ret_dev);
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	return api_leave(&en, core_device_open(space, spec, ret_dev));
}

int balun_device_close(struct balun_device *dev)
{
	struct balun_space *sp;
	struct entry en;
	int err;

	if (!dev)
		return 0;
	sp = dev->space;
	err = check_space(sp);
	if (!err && remote_of(sp))
		return remote_of(sp)->device_close(dev);
	if (!err)
		err = api_enter(sp, &en);
	if (err)
		return err;
	env_mutex_lock(&sp->devices_lock);
	err = core_device_end(dev);
	env_mutex_unlock(&sp->devices_lock);
	return api_leave(&en, err);
}

int balun_device_info(struct balun_device *dev, struct balun_device_info *ret_info)
{
	if (!dev || !ret_info || ret_info->size != sizeof(*ret_info))
		return -EINVAL;
	if (remote_of(dev->space))
		return remote_of(dev->space)->device_info(dev, ret_info);
	ret_info->id = dev->id;
	snprintf(ret_info->name, sizeof(ret_info->name), "%s", dev->name);
	ret_info->mem_total = dev->desc.mem_bytes;
	ret_info->mem_used = env_load_relaxed(&dev->mem_used);
	ret_info->caps = dev->desc.caps;
	return 0;
}

/* 0 if anything in the range is mapped, as the kernel's migrate: holes between are skipped */
static int check_mapped(struct balun_space *sp, uint64_t va, uint64_t len)
{
	if (core_next_mapped(sp, va, va + len) < va + len)
		return 0;
	env_reason("nothing is mapped in the range");
	return -EFAULT;
}

static int migrate(struct balun_space *space, const void *addr, size_t len,
		   struct balun_device *dev, bool from_home, struct balun_counts *ret_counts)
{
	uint64_t va = (uintptr_t)addr;
	struct balun_counts c = { 0 };
	struct entry en;
	int err;

	err = check_range(va, len);
	if (!err)
		err = check_device(space, dev);
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	err = core_migrate_range(space, va, len, id_of(dev), from_home, BALUN_CAUSE_USER, &c);
	if (!err && !(c.moved | c.already | c.empty | c.busy | c.pinned | c.nomem | c.failed))
		err = check_mapped(space, va & ~(BALUN_PAGE_SIZE - 1), len);
	if (!err && ret_counts)
		*ret_counts = c;
	return api_leave(&en, err);
}

int balun_migrate(struct balun_space *space, const void *addr, size_t len, struct balun_device *dev,
		  struct balun_counts *ret_counts)
{
	int err = check_space(space);

	if (err)
		return err;
	if (remote_of(space))
		return remote_of(space)->migrate(space, addr, len, dev, ret_counts);
	return migrate(space, addr, len, dev, false, ret_counts);
}

static int not_remote(const struct balun_space *space)
{
	if (!remote_of(space))
		return 0;
	env_reason("not with the engine %s", space->engine->name);
	return -EOPNOTSUPP;
}

int balun_offload(struct balun_space *space, const void *addr, size_t len, struct balun_device *dev,
		  struct balun_counts *ret_counts)
{
	int err = check_space(space) ?: not_remote(space);

	if (!err && !dev)
		err = -EINVAL;
	return err ? err : migrate(space, addr, len, dev, true, ret_counts);
}

int balun_device_spill(struct balun_device *dev, struct balun_device *to)
{
	int err = dev ? check_space(dev->space) ?: not_remote(dev->space) : -EINVAL;

	if (!err && to && to->space != dev->space)
		err = -EINVAL;
	return err ? err : core_device_spill(dev, to);
}

int balun_prefetch(struct balun_space *space, const void *addr, size_t len,
		   struct balun_device *dev)
{
	uint64_t va = (uintptr_t)addr;
	struct entry en;
	int err;

	err = check_space(space);
	if (!err && remote_of(space))
		return remote_of(space)->prefetch(space, addr, len, dev);
	if (!err)
		err = check_range(va, len);
	if (!err)
		err = check_device(space, dev);
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	return api_leave(&en, core_prefetch_push(space, va, len, id_of(dev)));
}

int balun_sync(struct balun_space *space)
{
	struct entry en;
	int err = check_space(space);

	if (!err && remote_of(space))
		return remote_of(space)->sync(space);
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	return api_leave(&en, core_prefetch_sync(space));
}

int balun_evict(struct balun_device *dev, uint64_t bytes, uint64_t *ret_bytes)
{
	uint64_t freed = 0;
	struct entry en;
	int err;

	if (!dev)
		return -EINVAL;
	if (remote_of(dev->space)) {
		err = check_space(dev->space);
		return err ? err : remote_of(dev->space)->evict(dev, bytes, ret_bytes);
	}
	err = api_enter(dev->space, &en);
	if (err)
		return err;
	/* a user of it, so that the engine has it as long as this goes on */
	if (core_device_get(dev->space, dev->id) != dev) {
		env_reason("the device is being closed or lost");
		return api_leave(&en, -ENODEV);
	}
	err = core_evict_settled(dev, bytes, &freed);
	core_device_put(dev);
	api_leave(&en, 0);
	if (ret_bytes)
		*ret_bytes = freed;
	return err;
}

static int pin_call(struct balun_space *space, const void *addr, size_t len,
		    int (*fn)(struct hint_table *, uint64_t, uint64_t))
{
	uint64_t va = (uintptr_t)addr & ~(BALUN_PAGE_SIZE - 1), end;
	struct entry en;
	int err;

	err = check_range((uintptr_t)addr, len);
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	end = ((uintptr_t)addr + len + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1);
	return api_leave(&en, fn(space->hints, va, end - va));
}

int balun_pin(struct balun_space *space, const void *addr, size_t len)
{
	int err = check_space(space);

	if (err)
		return err;
	if (remote_of(space))
		return remote_of(space)->pin(space, addr, len);
	return pin_call(space, addr, len, hint_pin);
}

int balun_unpin(struct balun_space *space, const void *addr, size_t len)
{
	int err = check_space(space);

	if (err)
		return err;
	if (remote_of(space))
		return remote_of(space)->unpin(space, addr, len);
	return pin_call(space, addr, len, hint_unpin);
}

#define DISCARD_LOOK (512 * BALUN_BLOCK_SIZE)

static int discard(struct balun_space *sp, uint64_t va, uint64_t end)
{
	uint64_t to;

	for (; va < end; va = to) {
		/* not for each block: the question has its price too */
		if (va % DISCARD_LOOK == 0)
			va = core_next_mapped(sp, va, end);
		to = ENV_MIN(end, (va & ~(BALUN_BLOCK_SIZE - 1)) + BALUN_BLOCK_SIZE);
		if (env_killed())
			return -EINTR;
		if (va == end)
			break;
		core_invalidate_begin(sp, va, to - va, BALUN_CAUSE_USER);
		sp->engine->discard(sp->e, va, to - va);
		core_invalidate_end(sp, va, to - va);
	}
	return 0;
}

int balun_advise(struct balun_space *space, const void *addr, size_t len, enum balun_advice advice,
		 struct balun_device *dev)
{
	uint64_t va = (uintptr_t)addr & ~(BALUN_PAGE_SIZE - 1), end;
	struct entry en;
	int err;

	err = check_space(space);
	if (!err && remote_of(space))
		return remote_of(space)->advise(space, addr, len, advice, dev);
	if (!err)
		err = check_range((uintptr_t)addr, len);
	if (!err)
		err = check_device(space, dev);
	if (!err && (unsigned int)advice > BALUN_ADVISE_DISCARD)
		err = -EINVAL;
	if (!err && advice == BALUN_ADVISE_ACCESSED_BY && !dev)
		err = -EINVAL;
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	end = ((uintptr_t)addr + len + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1);
	if (advice == BALUN_ADVISE_DISCARD)
		return api_leave(&en, discard(space, va, end));
	return api_leave(&en, hint_set(space->hints, va, end - va, advice, id_of(dev)));
}

static void extent_of(struct balun_space *sp, const struct engine_run *r, struct balun_extent *x)
{
	*x = (struct balun_extent){ .addr = r->va, .len = r->len };
	if (r->where == ENGINE_LOST || (r->where == ENGINE_DEVICE && core_is_lost(sp, r->dev))) {
		x->where = BALUN_WHERE_LOST;
		x->flags = BALUN_EXTENT_MAPPED;
		return;
	}
	x->where = r->where == ENGINE_DEVICE		   ? BALUN_WHERE_DEVICE
		   : r->where == ENGINE_NONE || !r->mapped ? BALUN_WHERE_NONE
							   : BALUN_WHERE_SYSTEM;
	x->device = r->where == ENGINE_DEVICE ? r->dev : 0;
	if (r->where == ENGINE_BUSY)
		x->flags |= BALUN_EXTENT_MIGRATING;
	if (r->mapped)
		x->flags |= BALUN_EXTENT_MAPPED;
	if (r->movable)
		x->flags |= BALUN_EXTENT_MOVABLE;
	if (r->perm & BALUN_PERM_READ)
		x->flags |= BALUN_EXTENT_READ;
	if (r->perm & BALUN_PERM_WRITE)
		x->flags |= BALUN_EXTENT_WRITE;
	if (r->zero)
		x->flags |= BALUN_EXTENT_ZERO;
	if (r->huge)
		x->flags |= BALUN_EXTENT_HUGE;
	if (r->shared)
		x->flags |= BALUN_EXTENT_SHARED;
	if (r->cpu)
		x->flags |= BALUN_EXTENT_COHERENT;
}

/* cut the extent where its pages begin or cease to be pinned */
static void extent_pins(struct balun_space *sp, struct balun_extent *x)
{
	uint64_t block = x->addr & ~(BALUN_BLOCK_SIZE - 1);
	unsigned int first = (x->addr - block) >> BALUN_PAGE_SHIFT;
	unsigned int end = first + (x->len >> BALUN_PAGE_SHIFT), i = first;
	env_bits pinned;

	if (!hint_pinned(sp->hints, block, pinned))
		return;
	while (i < end && env_bit(pinned, i) == env_bit(pinned, first))
		i++;
	x->len = (uint64_t)(i - first) << BALUN_PAGE_SHIFT;
	if (env_bit(pinned, first))
		x->flags |= BALUN_EXTENT_PINNED;
}

/* where nothing is mapped: all of it, or to the next pin, instead of what is in one block */
static void extent_hole(struct balun_space *sp, struct balun_extent *x, uint64_t end)
{
	uint64_t to = x->addr + x->len;

	if (x->flags & (BALUN_EXTENT_MAPPED | BALUN_EXTENT_PINNED) || to % BALUN_BLOCK_SIZE)
		return;
	end = ENV_MIN(end, hint_next_pin(sp->hints, to));
	if (to < end)
		x->len = core_next_mapped(sp, to, end) - x->addr;
}

static bool extent_joins(const struct balun_extent *a, const struct balun_extent *b)
{
	return a->where == b->where && a->device == b->device && a->flags == b->flags;
}

int balun_query(struct balun_space *space, const void *addr, size_t len,
		struct balun_extent *ret_ext, size_t n, size_t *ret_n)
{
	uint64_t va = (uintptr_t)addr & ~(BALUN_PAGE_SIZE - 1), end;
	struct entry en;
	size_t k = 0;
	int err;

	err = check_space(space);
	if (!err && remote_of(space))
		return remote_of(space)->query(space, addr, len, ret_ext, n, ret_n);
	if (!err)
		err = check_range((uintptr_t)addr, len);
	if (!err && (!ret_ext || !n || !ret_n))
		err = -EINVAL;
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	end = ((uintptr_t)addr + len + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1);
	while (va < end) {
		struct balun_extent x;
		struct engine_run r;

		if (env_killed()) {
			err = -EINTR;
			break;
		}
		space->engine->describe(space->e, va, end - va, DESCRIBE_ALL, &r, 1);
		extent_of(space, &r, &x);
		extent_pins(space, &x);
		extent_hole(space, &x, end);
		va = x.addr + x.len;
		if (k && extent_joins(&ret_ext[k - 1], &x))
			ret_ext[k - 1].len += x.len;
		else if (k < n)
			ret_ext[k++] = x;
		else
			break;
	}
	if (!err)
		*ret_n = k;
	return api_leave(&en, err);
}

int balun_lost(struct balun_space *space, const void *addr, struct balun_extent *ret_ext, size_t n,
	       size_t *ret_n)
{
	struct entry en;
	int err = check_space(space);

	if (!err && remote_of(space))
		return remote_of(space)->lost(space, addr, ret_ext, n, ret_n);
	if (!err && (!ret_ext || !n || !ret_n))
		err = -EINVAL;
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	*ret_n = core_lost_extents(space, (uintptr_t)addr & ~(BALUN_PAGE_SIZE - 1), ret_ext, n);
	return api_leave(&en, 0);
}

int balun_stats(struct balun_space *space, struct balun_stats *ret_stats)
{
	struct entry en;
	size_t i;
	int err = check_space(space);

	if (err)
		return err;
	if (!ret_stats || ret_stats->size != sizeof(*ret_stats)) {
		env_reason("stats have another size than this library's %zu", sizeof(*ret_stats));
		return -EINVAL;
	}
	if (remote_of(space))
		return remote_of(space)->stats(space, ret_stats);
	err = api_enter(space, &en);
	if (err)
		return err;
	core_stats_read(space, ret_stats);
	ret_stats->metadata_bytes = space->engine->metadata(space->e) + hint_bytes(space->hints);
	env_mutex_lock(&space->devices_lock);
	for (i = 1; i < CORE_DEVICE_SLOTS; i++)
		if (space->device[i])
			ret_stats->metadata_bytes += core_device_metadata(space->device[i]);
	env_mutex_unlock(&space->devices_lock);
	return api_leave(&en, 0);
}

int balun_engine_info(unsigned int i, struct balun_engine_info *ret_info)
{
	unsigned int n = 0;

	if (!ret_info || ret_info->size != sizeof(*ret_info))
		return -EINVAL;
	while (engine_list[n])
		n++;
	if (i >= n)
		return -ENOENT;
	memset(ret_info, 0, sizeof(*ret_info));
	ret_info->size = sizeof(*ret_info);
	engine_list[i]->probe(ret_info);
	return 0;
}

/* ---- what drivers call ---- */

int balun_fault(struct balun_device *dev, struct balun_space *space, uint64_t va, uint64_t len,
		uint32_t access)
{
	struct entry en;
	int err;

	err = check_space(space);
	if (!err && remote_of(space))
		return remote_of(space)->fault(dev, space, va, len, access);
	if (!err && (!dev || dev->space != space || access > BALUN_ACCESS_PREFETCH))
		err = -EINVAL;
	if (!err)
		err = check_range(va, len) ? -EFAULT : 0;
	if (err)
		return err;
	err = api_enter(space, &en);
	if (err)
		return err;
	if (core_device_get(space, dev->id) != dev)
		return api_leave(&en, -ENODEV); /* it is closing, and its slot nobody else's */
	err = core_device_fault(dev, va, len, access);
	core_device_put(dev);
	return api_leave(&en, err);
}

int balun_fence(struct balun_space *space)
{
	struct entry en;
	int err = check_space(space);

	if (!err && remote_of(space))
		return remote_of(space)->fence(space);
	if (!err)
		err = api_enter(space, &en);
	if (err)
		return err;
	space->engine->fence(space->e);
	return api_leave(&en, 0);
}
