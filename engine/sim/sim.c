// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The sim engine: the address space is a table, a CPU fault is a function call. Deterministic under
 * env_sim, usable on any machine under env_user. The table and its states: table.h.
 */
#include "engine/sim/table.h"

#define HELD_BACK_NS 100000ULL /* core asked a CPU fault to wait: ask again after this */

/* ---- life ---- */

static void sim_probe(struct balun_engine_info *ret_info)
{
	snprintf(ret_info->name, sizeof(ret_info->name), "sim");
	snprintf(ret_info->how, sizeof(ret_info->how), "a simulated address space (balun/sim.h)");
	snprintf(ret_info->features, sizeof(ret_info->features), "fork mremap poison");
	ret_info->works = true;
}

static int sim_attach(struct balun_space *sp, void **ret_e)
{
	struct sim *s = env_alloc(sizeof(*s));
	unsigned int i;

	if (!s)
		return -ENOMEM;
	s->pt = softpt_create();
	if (!s->pt) {
		env_free(s);
		return -ENOMEM;
	}
	s->space = sp;
	env_mutex_init(&s->lock);
	env_cond_init(&s->idle);
	env_list_init(&s->flights);
	for (i = 0; i < SIM_BUCKETS; i++)
		env_list_init(&s->block[i]);
	*ret_e = s;
	return 0;
}

void sim_block_free(struct sim_block *b)
{
	unsigned int i;

	for (i = 0; i < BALUN_BLOCK_PAGES; i++)
		env_free(b->frame[i]);
	env_list_del(&b->hash);
	env_free(b);
}

static void sim_detach(void *e)
{
	struct sim *s = e;
	struct env_list *l, *next;
	struct softpt_run r;
	unsigned int i;

	env_assert(env_list_empty(&s->flights));
	env_assert(!softpt_next_away(s->pt, 0, 1ULL << SOFTPT_VA_BITS, &r));
	for (i = 0; i < SIM_BUCKETS; i++)
		env_list_for_each_safe (l, next, &s->block[i])
			sim_block_free(env_container_of(l, struct sim_block, hash));
	softpt_destroy(s->pt);
	env_cond_destroy(&s->idle);
	env_mutex_destroy(&s->lock);
	env_free(s);
}

/* for what is coherent; other memory is private to its device */
static int sim_device_attach(void *e, unsigned int dev, struct balun_desc *desc)
{
	struct sim *s = e;

	env_mutex_lock(&s->lock);
	s->device[dev] = *desc;
	env_mutex_unlock(&s->lock);
	return 0;
}

static void sim_device_detach(void *e, unsigned int dev)
{
	struct sim *s = e;

	env_mutex_lock(&s->lock);
	memset(&s->device[dev], 0, sizeof(s->device[dev]));
	env_mutex_unlock(&s->lock);
}

/* the caller's stack is not in the simulated address space */
static void sim_bracket(void *e, void *cookie)
{
	(void)e, (void)cookie;
}

/* ---- the table ---- */

static struct env_list *bucket(struct sim *s, uint64_t va)
{
	return &s->block[(va >> BALUN_BLOCK_SHIFT) % SIM_BUCKETS];
}

struct sim_block *sim_block_find(struct sim *s, uint64_t va)
{
	struct env_list *head = bucket(s, va), *l;

	env_list_for_each (l, head) {
		struct sim_block *b = env_container_of(l, struct sim_block, hash);

		if (b->va == sim_base(va))
			return b;
	}
	return NULL;
}

/* the blocks of a range exist; give back with sim_blocks_put(), which keeps those in use */
int sim_blocks_get(struct sim *s, uint64_t va, uint64_t len)
{
	uint64_t base;

	for (base = sim_base(va); base < va + len; base += BALUN_BLOCK_SIZE) {
		struct sim_block *b = sim_block_find(s, base);

		if (b)
			continue;
		b = env_alloc(sizeof(*b));
		if (!b) {
			sim_blocks_put(s, va, len);
			return -ENOMEM;
		}
		b->va = base;
		env_list_add(bucket(s, base), &b->hash);
	}
	return 0;
}

void sim_blocks_put(struct sim *s, uint64_t va, uint64_t len)
{
	uint64_t base;

	for (base = sim_base(va); base < va + len; base += BALUN_BLOCK_SIZE) {
		struct sim_block *b = sim_block_find(s, base);

		if (b && !b->nmapped)
			sim_block_free(b);
	}
}

unsigned int sim_flags(struct sim *s, uint64_t va)
{
	struct sim_block *b = sim_block_find(s, va);

	return b ? b->flags[sim_index(va)] : 0;
}

void **sim_frame(struct sim *s, uint64_t va)
{
	struct sim_block *b = sim_block_find(s, va);

	env_assert(b && b->flags[sim_index(va)] & SIM_MAPPED);
	return &b->frame[sim_index(va)];
}

/*
 * The pages of a range that are on a device let go of it. Not those in transit: both their places
 * belong to the flight, which frees them when it lands.
 */
void sim_release(struct sim *s, uint64_t va, uint64_t len)
{
	uint64_t end = va + len;
	struct softpt_run r;

	for (; softpt_next_away(s->pt, va, end, &r); va = r.va + r.len) {
		if (r.busy)
			continue;
		softpt_clear_away(s->pt, r.va, r.len);
		core_release(s->space, SOFTPT_DEV(r.place), r.va, sim_offset(r.place), r.len);
	}
}

/* ---- looking ---- */

/* @r: a run of the page table that the page lies in */
static void describe_page(const struct sim_block *b, uint64_t va, const struct softpt_run *r,
			  struct engine_run *ret)
{
	unsigned int flags = b ? b->flags[sim_index(va)] : 0;

	*ret = (struct engine_run){ .va = va, .len = BALUN_PAGE_SIZE, .where = ENGINE_NONE };
	if (!(flags & SIM_MAPPED))
		return;
	ret->mapped = 1;
	ret->addr = va;
	if (flags & SIM_POISON) {
		ret->where = ENGINE_LOST;
		return;
	}
	if (flags & BALUN_SIM_READ)
		ret->perm |= BALUN_PERM_READ;
	if (flags & BALUN_SIM_WRITE)
		ret->perm |= BALUN_PERM_WRITE;
	/* a page without access that is away may still come home */
	ret->movable = !(flags & BALUN_SIM_SHARED) && (ret->perm || r->away);
	if (r->busy) {
		ret->where = ENGINE_BUSY;
	} else if (r->away) {
		ret->where = ENGINE_DEVICE;
		ret->dev = SOFTPT_DEV(r->place);
		ret->off = sim_offset(r->place) + (va - r->va);
		ret->cpu = b->frame[sim_index(va)] != NULL;
	} else if (b->frame[sim_index(va)]) {
		ret->where = ENGINE_SYSTEM;
	}
}

static bool run_extends(const struct engine_run *a, const struct engine_run *b)
{
	return a->where == b->where && a->dev == b->dev && a->mapped == b->mapped &&
	       a->movable == b->movable && a->perm == b->perm && a->cpu == b->cpu &&
	       (a->where != ENGINE_DEVICE || a->off + a->len == b->off);
}

static int sim_describe(void *e, uint64_t va, uint64_t len, enum engine_detail detail,
			struct engine_run *run, int n)
{
	struct sim *s = e;
	uint64_t end = ENV_MIN(va + len, sim_base(va) + BALUN_BLOCK_SIZE);
	struct softpt_run at = { .len = 0 };
	struct sim_block *b;
	int i = 0;

	(void)detail; /* costs nothing here */
	env_mutex_lock(&s->lock);
	b = sim_block_find(s, va);
	for (; va < end; va += BALUN_PAGE_SIZE) {
		struct engine_run r;

		if (va - at.va >= at.len)
			softpt_run(s->pt, va, end - va, &at);
		describe_page(b, va, &at, &r);
		if (i && run_extends(&run[i - 1], &r)) {
			run[i - 1].len += r.len;
			continue;
		}
		if (i == n)
			break;
		run[i++] = r;
	}
	env_mutex_unlock(&s->lock);
	return i;
}

static uint64_t sim_next_mapped(void *e, uint64_t va)
{
	uint64_t next = UINT64_MAX;
	struct sim *s = e;
	struct env_list *l;
	unsigned int i, k;

	env_mutex_lock(&s->lock);
	for (i = 0; i < SIM_BUCKETS; i++) {
		env_list_for_each (l, &s->block[i]) {
			const struct sim_block *b = env_container_of(l, struct sim_block, hash);
			uint64_t from = ENV_MAX(va, b->va);

			for (k = sim_index(from); from < b->va + BALUN_BLOCK_SIZE && from < next;
			     k++, from += BALUN_PAGE_SIZE)
				if (b->flags[k] & SIM_MAPPED)
					next = from;
		}
	}
	env_mutex_unlock(&s->lock);
	return next;
}

static bool sim_next_away(void *e, unsigned int dev, uint64_t va, struct engine_run *ret_run)
{
	struct sim *s = e;
	struct softpt_run r;
	bool found = false;

	env_mutex_lock(&s->lock);
	while (!found && softpt_next_away(s->pt, va, 1ULL << SOFTPT_VA_BITS, &r)) {
		/* busy with no place: on its way here; it is nowhere yet */
		found = r.away && (!dev || SOFTPT_DEV(r.place) == dev);
		va = r.va + r.len;
	}
	if (found) {
		describe_page(sim_block_find(s, r.va), r.va, &r, ret_run);
		ret_run->len = ENV_MIN(r.len, sim_base(r.va) + BALUN_BLOCK_SIZE - r.va);
		ret_run->dev = SOFTPT_DEV(r.place);
		ret_run->off = sim_offset(r.place);
	}
	env_mutex_unlock(&s->lock);
	return found;
}

static bool sim_wait_idle(void *e, uint64_t va, uint64_t timeout_ns)
{
	struct sim *s = e;
	uint64_t base = sim_base(va), start = env_now_ns(), past = 0;
	struct softpt_run r;
	bool busy;

	env_mutex_lock(&s->lock);
	for (;;) {
		busy = softpt_next_busy(s->pt, base, base + BALUN_BLOCK_SIZE, &r);
		if (!busy || past >= timeout_ns)
			break;
		env_cond_wait(&s->idle, &s->lock,
			      timeout_ns == ENV_FOREVER ? ENV_FOREVER : timeout_ns - past);
		past = timeout_ns == ENV_FOREVER ? 0 : env_now_ns() - start;
	}
	env_mutex_unlock(&s->lock);
	return !busy;
}

/* memory calls of sim.h finish their invalidations before they return */
static void sim_fence(void *e)
{
	(void)e;
}

static uint64_t sim_metadata(void *e)
{
	struct sim *s = e;
	uint64_t n;

	env_mutex_lock(&s->lock);
	n = softpt_bytes(s->pt);
	env_mutex_unlock(&s->lock);
	return n;
}

/* ---- content that is lost ---- */

static uint64_t sim_poison(void *e, unsigned int dev, uint64_t va, uint64_t len)
{
	struct sim *s = e;
	uint64_t end = va + len, lost = 0;

	env_mutex_lock(&s->lock);
	for (; va < end; va += BALUN_PAGE_SIZE) {
		struct softpt_run r;

		softpt_run(s->pt, va, BALUN_PAGE_SIZE, &r);
		if (!r.away || r.busy || SOFTPT_DEV(r.place) != dev)
			continue;
		sim_release(s, va, BALUN_PAGE_SIZE);
		env_free(*sim_frame(s, va));
		*sim_frame(s, va) = NULL;
		sim_block_find(s, va)->flags[sim_index(va)] |= SIM_POISON;
		lost++;
	}
	env_mutex_unlock(&s->lock);
	return lost;
}

/* the first poisoned page of a block at or after @va; UINT64_MAX: none */
static uint64_t block_lost(const struct sim_block *b, uint64_t va)
{
	unsigned int i = va > b->va ? sim_index(va) : 0;

	if (va >= b->va + BALUN_BLOCK_SIZE)
		return UINT64_MAX;
	for (; i < BALUN_BLOCK_PAGES; i++)
		if (b->flags[i] & SIM_POISON)
			return b->va + ((uint64_t)i << BALUN_PAGE_SHIFT);
	return UINT64_MAX;
}

static bool sim_next_lost(void *e, uint64_t va, struct engine_run *ret_run)
{
	struct sim *s = e;
	uint64_t first = UINT64_MAX;
	struct env_list *l;
	struct softpt_run r;
	unsigned int i;

	env_mutex_lock(&s->lock);
	for (i = 0; i < SIM_BUCKETS; i++)
		env_list_for_each (l, &s->block[i])
			first = ENV_MIN(
				first, block_lost(env_container_of(l, struct sim_block, hash), va));
	if (first != UINT64_MAX) {
		softpt_run(s->pt, first, BALUN_PAGE_SIZE, &r);
		describe_page(sim_block_find(s, first), first, &r, ret_run);
	}
	env_mutex_unlock(&s->lock);
	return first != UINT64_MAX;
}

static void sim_discard(void *e, uint64_t va, uint64_t len)
{
	struct sim *s = e;

	env_mutex_lock(&s->lock);
	sim_release(s, va, len);
	env_mutex_unlock(&s->lock);
}

/* ---- access ---- */

static int access_allowed(unsigned int flags, bool write, bool device)
{
	unsigned int need = write ? BALUN_SIM_WRITE : BALUN_SIM_READ;

	if (!(flags & SIM_MAPPED) || !(flags & need))
		return -EFAULT;
	if (flags & SIM_POISON)
		return device ? -EFAULT : -EHWPOISON;
	return 0;
}

/* the page is here or empty */
static int access_here(struct sim *s, uint64_t va, void *buf, size_t len, bool write)
{
	void **frame = sim_frame(s, va);
	uint64_t at = va & (BALUN_PAGE_SIZE - 1);

	if (!write) {
		if (*frame)
			memcpy(buf, (char *)*frame + at, len);
		else
			memset(buf, 0, len);
		return 0;
	}
	if (!*frame)
		*frame = env_alloc(BALUN_PAGE_SIZE);
	if (!*frame)
		return -ENOMEM;
	memcpy((char *)*frame + at, buf, len);
	return 0;
}

/*
 * A CPU waits as long as it takes, as on a real machine; a device gives up after a time and faults
 * again. Nothing that was seen before the lock was let go of is used after it was taken again.
 */
int sim_access(struct sim *s, uint64_t va, void *buf, size_t len, bool write, bool device)
{
	uint64_t deadline = device ? env_now_ns() + CORE_FAULT_NS : 0;
	struct softpt_run r;
	int err;

	env_mutex_lock(&s->lock);
	for (;;) {
		uint64_t now = device ? env_now_ns() : 0;

		err = access_allowed(sim_flags(s, va), write, device);
		if (err)
			break;
		softpt_run(s->pt, va, BALUN_PAGE_SIZE, &r);
		if (!r.busy && (!r.away || *sim_frame(s, va))) {
			err = access_here(s, va, buf, len, write);
			break;
		}
		err = -EFAULT;
		if (device && now >= deadline)
			break;
		if (r.busy) {
			env_cond_wait(&s->idle, &s->lock, device ? deadline - now : ENV_FOREVER);
			continue;
		}
		env_mutex_unlock(&s->lock);
		err = core_cpu_fault(s->space, va, write);
		if (err == -EAGAIN)
			env_sleep_ns(HELD_BACK_NS);
		env_mutex_lock(&s->lock);
		/* the copy failed: SIGBUS this time; the page stays where its content is */
		if (err == -EIO)
			err = device ? -EFAULT : -EHWPOISON;
		else if (err == -EBUSY || err == -EAGAIN)
			err = 0;
		if (err)
			break;
	}
	env_mutex_unlock(&s->lock);
	return err;
}

static int bus_access(struct sim *s, uint64_t va, void *buf, size_t len, bool write)
{
	while (len) {
		size_t n = ENV_MIN(len, BALUN_PAGE_SIZE - (va & (BALUN_PAGE_SIZE - 1)));

		if (sim_access(s, va, buf, n, write, true))
			return -EFAULT;
		va += n;
		buf = (char *)buf + n;
		len -= n;
	}
	return 0;
}

static int sim_bus_read(void *e, uint64_t addr, void *buf, size_t len)
{
	return bus_access(e, addr, buf, len, false);
}

static int sim_bus_write(void *e, uint64_t addr, const void *buf, size_t len)
{
	return bus_access(e, addr, (void *)(uintptr_t)buf, len, true);
}

const struct engine_ops engine_sim = {
	.size = sizeof(struct engine_ops),
	.name = "sim",
	.probe = sim_probe,
	.attach = sim_attach,
	.detach = sim_detach,
	.device_attach = sim_device_attach,
	.device_detach = sim_device_detach,
	.enter = sim_bracket,
	.leave = sim_bracket,
	.describe = sim_describe,
	.next_mapped = sim_next_mapped,
	.look_begin = softpt_look_begin,
	.look_changed = softpt_look_changed,
	.look_locked = true,
	.collect = sim_collect,
	.commit = sim_commit,
	.unshare = softpt_unshare,
	.wait_idle = sim_wait_idle,
	.poison = sim_poison,
	.next_lost = sim_next_lost,
	.next_away = sim_next_away,
	.evict_strays = softpt_evict_strays,
	.fence = sim_fence,
	.bus_read = sim_bus_read,
	.bus_write = sim_bus_write,
	.metadata = sim_metadata,
	.discard = sim_discard,
};
