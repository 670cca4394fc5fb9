// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * testdev - a device that trusts nobody
 *
 * It has a page table, memory and, by option, an allocator of its own, two-phase unmaps and peer
 * addresses. Every call may fail or dawdle, as the choices say. What it checks in lockstep:
 * - a page of device memory that is copied or freed is in no page table (nobody uses it);
 * - a page of device memory is at one address at a time, and an address is on one device at a time;
 * - nothing is mapped twice over, out of memory, or outside of what the test ever mapped;
 * - the device is empty when it is closed.
 */
#include "tests/sim/testdev.h"

#define REPLAYS 16

struct testdev devs[DEVS];
static bool open_now[DEVS];
static bool dead_once;
unsigned int testdev_closers;

void testdev_reset(void)
{
	memset(open_now, 0, sizeof(open_now));
	dead_once = false;
	testdev_closers = 0;
}

void testdev_kill(unsigned int slot, bool mute, bool said)
{
	struct testdev *t = &devs[slot];

	if (!open_now[slot] || !t->attached || t->closing)
		return;
	t->refs++;
	t->dead = true;
	t->mute = mute;
	t->told = t->told || said;
	dead_once = true;
	if (said)
		balun_device_lost(t->dev);
	env_mutex_lock(&t->lock);
	t->refs--;
	env_cond_wake(&t->quiet);
	env_mutex_unlock(&t->lock);
}

bool testdev_any_dead(void)
{
	return dead_once;
}

bool testdev_any_silent(void)
{
	unsigned int i;

	for (i = 0; i < DEVS; i++)
		if (open_now[i] && devs[i].dead && !devs[i].told)
			return true;
	return false;
}

/* ---- life ---- */

static int testdev_open(struct balun_device *dev, const struct balun_options *opt,
			struct balun_desc *ret_desc, void **ret_priv)
{
	uint64_t slot, room, two, peer, coherent;
	struct testdev *t;
	int err;

	err = balun_opt_size(opt, "slot", 0, &slot);
	if (!err)
		err = balun_opt_size(opt, "room", 0, &room);
	if (!err)
		err = balun_opt_size(opt, "two", 0, &two);
	if (!err)
		err = balun_opt_size(opt, "peer", 0, &peer);
	if (!err)
		err = balun_opt_size(opt, "coherent", 0, &coherent);
	if (err)
		return err;
	if (slot >= DEVS || room > MEM_PAGES)
		return balun_opt_fail(opt, "slot", "no such");
	dawdle();
	if (chance(profile.open))
		return -ENODEV;
	CHECK(!open_now[slot]);
	t = &devs[slot];
	memset(t, 0, offsetof(struct testdev, batch));
	memset(t->zero, 0, sizeof(t->zero));
	for (err = 0; err < COPIES; err++)
		t->batch[err].used = false;
	env_mutex_init(&t->lock);
	env_cond_init(&t->quiet);
	t->dev = dev;
	t->slot = slot;
	t->room = room;
	t->caps = BALUN_CAP_MMU | (room ? BALUN_CAP_ALLOC : 0) | (two ? BALUN_CAP_TWO_PHASE : 0) |
		  (peer ? BALUN_CAP_PEER : 0) |
		  (coherent ? BALUN_CAP_COHERENT | BALUN_CAP_HOST_MEMORY : 0);
	open_now[slot] = true;
	ret_desc->mem_bytes = BALUN_BLOCK_SIZE;
	ret_desc->host_base = coherent ? t->mem : NULL;
	ret_desc->caps = t->caps;
	*ret_priv = t;
	return 0;
}

static void testdev_close(void *priv)
{
	struct testdev *t = priv;
	unsigned int i;

	CHECK(!t->attached && !t->refs && !t->used);
	for (i = 0; i < ENTRIES; i++)
		CHECK(!t->entry[i].valid && !t->entry[i].users);
	for (i = 0; i < COPIES; i++)
		CHECK(!t->batch[i].used);
	open_now[t->slot] = false;
	env_cond_destroy(&t->quiet);
	env_mutex_destroy(&t->lock);
}

static int testdev_attach(void *priv, struct balun_space *space)
{
	struct testdev *t = priv;

	dawdle();
	if (chance(profile.open))
		return -ENOMEM;
	CHECK(!t->attached);
	t->space = space;
	t->attached = true;
	return 0;
}

/* the driver ends what its accesses do; those that come later are refused */
static void testdev_gone(void *priv, struct balun_space *space)
{
	struct testdev *t = priv;

	env_mutex_lock(&t->lock);
	CHECK(t->attached && t->space == space);
	t->closing = true;
	while (t->refs)
		env_cond_wait(&t->quiet, &t->lock, ENV_FOREVER);
	t->attached = false;
	env_mutex_unlock(&t->lock);
}

static int testdev_active(void *priv, bool on)
{
	(void)priv;
	return on && chance(profile.open) ? -EIO : 0;
}

/* ---- page table ---- */

/* the entry loses some of its permissions */
static void entry_revoke(struct entry *e, unsigned int perm)
{
	unsigned int i;

	for (i = 0; i < sizeof(e->until) / sizeof(e->until[0]); i++)
		if (e->perm & perm & 1u << i)
			e->until[i] = model_tick();
}

static void entry_remove(struct testdev *t, struct entry *e)
{
	if (!e->valid)
		return;
	entry_revoke(e, e->perm);
	e->valid = false;
	t->draining += e->users;
	if (e->kind == BALUN_KIND_LOCAL)
		t->nmapped[e->page]--;
}

/* memory that others reach too */
static bool in_place(uint32_t kind)
{
	return kind == BALUN_KIND_SYSTEM || kind == BALUN_KIND_COHERENT;
}

/* one true copy: what another device has at this address must be the same place */
static void check_others(const struct testdev *t, unsigned int i, const struct entry *e)
{
	unsigned int d;

	for (d = 0; d < DEVS; d++) {
		const struct entry *o = &devs[d].entry[i];

		if (&devs[d] == t || !open_now[d] || !o->valid)
			continue;
		if (!in_place(o->kind) || !in_place(e->kind) ||
		    (o->kind == BALUN_KIND_COHERENT && e->kind == BALUN_KIND_COHERENT))
			FAIL("entry %u: kind %u on device %u, kind %u on device %u", i, e->kind,
			     t->slot, o->kind, d);
	}
}

static void map_page(struct testdev *t, const struct balun_seg *s, uint64_t at)
{
	unsigned int i = entry_of(s->va + at);
	struct entry *e = &t->entry[i], new = { .kind = s->kind, .perm = s->perm, .valid = true };

	if (i == ENTRIES)
		FAIL("map: 0x%llx was never mapped", (unsigned long long)(s->va + at));
	CHECK(s->perm & BALUN_PERM_READ);
	new.page = (s->addr + at) >> BALUN_PAGE_SHIFT;
	if (s->kind == BALUN_KIND_LOCAL)
		CHECK(new.page < MEM_PAGES && (!t->room || t->taken[new.page]));
	else
		CHECK(in_place(s->kind) && s->addr == s->va && !(s->perm & BALUN_PERM_ATOMIC));
	if (s->kind == BALUN_KIND_COHERENT)
		CHECK(t->caps & BALUN_CAP_COHERENT);
	check_others(t, i, &new);
	if (e->valid &&
	    (e->kind != new.kind || (new.kind == BALUN_KIND_LOCAL && e->page != new.page)))
		FAIL("entry %u of device %u replaced without an unmap", i, t->slot);
	if (e->valid) {
		entry_revoke(e, ~new.perm);
		e->perm = new.perm;
		return;
	}
	CHECK(!e->users);
	memcpy(new.until, e->until, sizeof(new.until));
	*e = new;
	if (new.kind == BALUN_KIND_LOCAL && t->nmapped[new.page]++)
		FAIL("page %u of device %u is mapped twice", new.page, t->slot);
}

static int testdev_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	struct testdev *t = priv;
	uint64_t at, last = 0;
	size_t i;

	CHECK(t->attached && t->space == space && env_sim_locks() == 1);
	dawdle();
	for (i = 0; i < n; i++) {
		const struct balun_seg *s = &seg[i];

		if (chance(profile.map))
			return -ENOMEM;
		CHECK(s->len && !((s->va | s->len | s->addr) & (BALUN_PAGE_SIZE - 1)));
		CHECK(s->va >= last &&
		      s->va >> BALUN_BLOCK_SHIFT == (s->va + s->len - 1) >> BALUN_BLOCK_SHIFT);
		last = s->va + s->len;
		env_mutex_lock(&t->lock);
		for (at = 0; at < s->len; at += BALUN_PAGE_SIZE)
			map_page(t, s, at);
		env_mutex_unlock(&t->lock);
	}
	return 0;
}

static void remove_range(struct testdev *t, uint64_t va, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < ENTRIES; i++) {
		uint64_t at =
			i < BIG_FIRST ? page_va(i) : BIG_VA + (i - BIG_FIRST) * BALUN_PAGE_SIZE;

		if (at >= va && at - va < len)
			entry_remove(t, &t->entry[i]);
	}
}

static void testdev_unmap_begin(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
				enum balun_cause cause)
{
	struct testdev *t = priv;

	CHECK(t->attached && t->space == space && cause < BALUN_NR_CAUSES);
	env_mutex_lock(&t->lock);
	remove_range(t, va, len);
	env_mutex_unlock(&t->lock);
}

/* nobody uses what was removed: an access does not wait for anything but its own dawdling */
static void testdev_unmap_wait(void *priv, struct balun_space *space)
{
	struct testdev *t = priv;

	CHECK(t->attached && t->space == space);
	env_mutex_lock(&t->lock);
	while (t->draining)
		env_cond_wait(&t->quiet, &t->lock, ENV_FOREVER);
	env_mutex_unlock(&t->lock);
}

static void testdev_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			  enum balun_cause cause)
{
	testdev_unmap_begin(priv, space, va, len, cause);
	dawdle();
	testdev_unmap_wait(priv, space);
}

/* ---- what the device does ---- */

static struct testdev *dev_enter(unsigned int slot)
{
	struct testdev *t = &devs[slot];

	if (slot >= DEVS || !open_now[slot] || !t->attached || t->closing)
		return NULL;
	t->refs++;
	return t;
}

static int dev_leave(struct testdev *t, int err)
{
	env_mutex_lock(&t->lock);
	t->refs--;
	env_cond_wake(&t->quiet);
	env_mutex_unlock(&t->lock);
	return err;
}

static bool entry_allows(const struct entry *e, enum testdev_access access)
{
	unsigned int need = access == TESTDEV_READ    ? BALUN_PERM_READ
			    : access == TESTDEV_WRITE ? BALUN_PERM_WRITE
						      : BALUN_PERM_ATOMIC;

	return e->valid && (e->perm & need) == need;
}

/* lock held on entry, not on return: 0, or 1 to fault and replay */
static int access_local(struct testdev *t, struct entry *e, uint64_t va, enum testdev_access access,
			uint64_t *value)
{
	uint64_t *word, old;
	bool gone;

	e->users++;
	env_mutex_unlock(&t->lock);
	dawdle();
	/* the entry may be removed by now; unmap waits for this access all the same */
	word = (uint64_t *)(testdev_page(t, e->page) + (va & (BALUN_PAGE_SIZE - 1)));
	old = *word;
	if (access != TESTDEV_READ)
		*word = *value;
	if (access != TESTDEV_WRITE)
		*value = old;
	dawdle();
	env_mutex_lock(&t->lock);
	e->users--;
	gone = !e->valid;
	if (gone) {
		t->draining--;
		env_cond_wake(&t->quiet);
	}
	env_mutex_unlock(&t->lock);
	return 0;
}

/* one try; 1: there is no such entry */
static int access_once(struct testdev *t, uint64_t va, enum testdev_access access, uint64_t *value)
{
	struct entry *e = &t->entry[entry_of(va)];
	int err;

	env_mutex_lock(&t->lock);
	if (!entry_allows(e, access)) {
		env_mutex_unlock(&t->lock);
		return 1;
	}
	if (e->kind == BALUN_KIND_LOCAL)
		return access_local(t, e, va, access, value);
	CHECK(access != TESTDEV_SWAP);
	env_mutex_unlock(&t->lock);
	dawdle();
	if (access == TESTDEV_READ)
		err = balun_bus_read(t->space, va, value, sizeof(*value));
	else
		err = balun_bus_write(t->space, va, value, sizeof(*value));
	return err ? 1 : 0;
}

int testdev_access(unsigned int slot, uint64_t va, enum testdev_access access, uint64_t *value)
{
	static const uint32_t fault[] = { BALUN_ACCESS_READ, BALUN_ACCESS_WRITE,
					  BALUN_ACCESS_ATOMIC };
	struct testdev *t = dev_enter(slot);
	unsigned int i;
	int err;

	if (!t)
		return -ENODEV;
	CHECK(!balun_fence(t->space));
	for (i = 0; i < REPLAYS; i++) {
		if (t->mute)
			return dev_leave(t, -EIO);
		err = access_once(t, va, access, value);
		if (err == 1)
			err = balun_fault(t->dev, t->space, va, sizeof(*value), fault[access]);
		else
			return dev_leave(t, err);
		if (err)
			return dev_leave(t, err);
	}
	return dev_leave(t, -EAGAIN);
}

/* who asked for entries had them, if only for a moment */
static void check_mapped(const struct testdev *t, uint64_t va, uint64_t len, uint32_t access,
			 uint64_t begin)
{
	unsigned int bit = access == BALUN_ACCESS_READ ? 0 : access == BALUN_ACCESS_WRITE ? 1 : 2;
	uint64_t end = va + len;

	for (; va < end; va += BALUN_PAGE_SIZE) {
		const struct entry *e = &t->entry[entry_of(va)];

		if (!(e->valid && e->perm >> bit & 1) && e->until[bit] < begin)
			FAIL("device %u asked for access %u to 0x%llx and did not get it", t->slot,
			     access, (unsigned long long)va);
	}
}

int testdev_fault(unsigned int slot, uint64_t va, uint64_t len, uint32_t access)
{
	struct testdev *t = dev_enter(slot);
	uint64_t begin = model_tick();
	int err;

	if (!t)
		return -ENODEV;
	err = balun_fault(t->dev, t->space, va, len, access);
	if (!err && access != BALUN_ACCESS_PREFETCH)
		check_mapped(t, va, len, access, begin);
	return dev_leave(t, err);
}

const struct balun_driver driver_testdev = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_MMU | BALUN_CAP_PEER | BALUN_CAP_ALLOC | BALUN_CAP_TWO_PHASE |
		BALUN_CAP_HOST_MEMORY | BALUN_CAP_COHERENT,
	.name = "testdev",
	.help = "slot=0  which\nroom=0  pages it hands out itself\ntwo=0  two-phase unmaps\n"
		"peer=0  peer addresses\ncoherent=0  CPUs address its memory\n",
	.open = testdev_open,
	.close = testdev_close,
	.map = testdev_map,
	.unmap = testdev_unmap,
	.copy = testdev_copy,
	.copy_wait = testdev_copy_wait,
	.attach = testdev_attach,
	.gone = testdev_gone,
	.alloc = testdev_alloc,
	.free = testdev_free,
	.unmap_begin = testdev_unmap_begin,
	.unmap_wait = testdev_unmap_wait,
	.peer_addr = testdev_peer_addr,
	.active = testdev_active,
};
