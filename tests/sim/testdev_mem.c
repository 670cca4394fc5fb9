// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The memory of the test device: its allocator, peer addresses and copies. */
#include "tests/sim/testdev.h"

int testdev_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	struct testdev *t = priv;
	unsigned int n = len >> BALUN_PAGE_SHIFT, i, j;

	CHECK(n == 1 || n == 16 || n == 512);
	dawdle();
	if (chance(profile.alloc) || t->used + n > t->room)
		return -ENOMEM;
	for (i = 0; i < MEM_PAGES; i += n) {
		for (j = 0; j < n && !t->taken[i + j]; j++)
			;
		if (j < n)
			continue;
		for (j = 0; j < n; j++) {
			t->taken[i + j] = true;
			t->failures[i + j] = 0;
		}
		t->used += n;
		*ret_off = (uint64_t)i << BALUN_PAGE_SHIFT;
		return 0;
	}
	return -ENOMEM;
}

void testdev_free(void *priv, uint64_t off, uint64_t len)
{
	struct testdev *t = priv;
	unsigned int i = off >> BALUN_PAGE_SHIFT, end = i + (len >> BALUN_PAGE_SHIFT);

	CHECK(len && end <= MEM_PAGES);
	for (; i < end; i++) {
		if (!t->taken[i] || t->nmapped[i])
			FAIL("free of page %u of device %u: %s", i, t->slot,
			     t->taken[i] ? "still mapped" : "is free");
		t->taken[i] = false;
		t->used--;
		t->zero[i] = false;
		memset(t->mem[i], 0xdf, 8);
		memset(t->mem[i] + BALUN_PAGE_SIZE - 8, 0xdf, 8);
	}
}

int testdev_peer_addr(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
		      uint64_t *ret_addr)
{
	struct testdev *t = priv;

	CHECK(off + len <= sizeof(t->mem));
	if (!balun_device_priv(client, &driver_testdev) || chance(profile.peer))
		return -EOPNOTSUPP;
	*ret_addr = PEER_BASE * (t->slot + 1) + off;
	return 0;
}

char *testdev_page(struct testdev *t, unsigned int i)
{
	if (t->zero[i]) {
		memset(t->mem[i], 0, BALUN_PAGE_SIZE);
		t->zero[i] = false;
	}
	return t->mem[i];
}

/* ---- copies ---- */

/* a page that is copied is in transit: in no page table, and not free */
static void check_in_transit(const struct testdev *t, unsigned int i)
{
	CHECK(i < MEM_PAGES);
	if (t->nmapped[i] || (t->room && !t->taken[i]))
		FAIL("copy of page %u of device %u, which is %s", i, t->slot,
		     t->nmapped[i] ? "mapped" : "free");
}

static char *copy_operand(struct testdev *t, uint32_t kind, uint64_t addr)
{
	struct testdev *peer;

	switch (kind) {
	case BALUN_KIND_LOCAL:
		check_in_transit(t, addr >> BALUN_PAGE_SHIFT);
		return testdev_page(t, addr >> BALUN_PAGE_SHIFT);
	case BALUN_KIND_PEER:
		CHECK(addr >= PEER_BASE && addr / PEER_BASE <= DEVS);
		peer = &devs[addr / PEER_BASE - 1];
		CHECK(peer != t && peer->attached);
		check_in_transit(peer, addr % PEER_BASE >> BALUN_PAGE_SHIFT);
		return testdev_page(peer, addr % PEER_BASE >> BALUN_PAGE_SHIFT);
	default:
		CHECK(kind == BALUN_KIND_SYSTEM);
		return balun_bus_ptr(addr, BALUN_PAGE_SIZE);
	}
}

static void copy_page(struct testdev *t, const struct balun_copy *op, uint64_t at)
{
	unsigned int i = (op->dst + at) >> BALUN_PAGE_SHIFT;

	if (op->dst_kind == BALUN_KIND_LOCAL && op->src_kind == BALUN_KIND_ZERO) {
		check_in_transit(t, i);
		t->zero[i] = true;
		if (t->caps & BALUN_CAP_COHERENT)
			testdev_page(t, i); /* others look at it too */
		return;
	}
	CHECK(op->dst_kind == BALUN_KIND_LOCAL || op->src_kind == BALUN_KIND_LOCAL);
	memcpy(copy_operand(t, op->dst_kind, op->dst + at),
	       copy_operand(t, op->src_kind, op->src + at), BALUN_PAGE_SIZE);
}

/* a failed copy leaves rubbish at the destination */
static void copy_spoil(struct testdev *t, const struct balun_copy *op)
{
	uint64_t at;

	for (at = 0; at < op->len; at += BALUN_PAGE_SIZE) {
		char *dst = copy_operand(t, op->dst_kind, op->dst + at);

		memset(dst, 0xbd, 8);
		memset(dst + BALUN_PAGE_SIZE - 8, 0xbd, 8);
	}
}

/* may this batch fail? Pages of ours that failed twice may not, unless devices may die */
static bool may_fail(struct testdev *t, const struct balun_copy *op, size_t n)
{
	size_t i;
	uint64_t p;

	for (i = 0; i < n; i++)
		for (p = 0; op[i].src_kind == BALUN_KIND_LOCAL && p < op[i].len;
		     p += BALUN_PAGE_SIZE)
			if (t->failures[(op[i].src + p) >> BALUN_PAGE_SHIFT] >= 2)
				return false;
	return true;
}

static void count_failure(struct testdev *t, const struct balun_copy *op, size_t n)
{
	size_t i;
	uint64_t p;

	for (i = 0; i < n; i++)
		for (p = 0; op[i].src_kind == BALUN_KIND_LOCAL && p < op[i].len;
		     p += BALUN_PAGE_SIZE)
			t->failures[(op[i].src + p) >> BALUN_PAGE_SHIFT]++;
}

int testdev_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct testdev *t = priv;
	unsigned int i;
	bool fail;

	CHECK(t->attached && n && n <= COPY_OPS);
	CHECK(env_sim_locks() <= !!testdev_closers);
	for (i = 0; i < n; i++)
		CHECK(op[i].len && !(op[i].len & (BALUN_PAGE_SIZE - 1)));
	dawdle();
	fail = t->dead || (may_fail(t, op, n) && chance(profile.copy));
	if (fail)
		count_failure(t, op, n);
	if (fail && env_sim_choose(2) == 0)
		return -EIO;
	for (i = 0; i < COPIES && t->batch[i].used; i++)
		;
	CHECK(i < COPIES);
	t->batch[i].used = true;
	t->batch[i].fail = fail;
	t->batch[i].n = n;
	memcpy(t->batch[i].op, op, n * sizeof(*op));
	*ret_cookie = i;
	return 0;
}

int testdev_copy_wait(void *priv, uint64_t cookie)
{
	struct testdev *t = priv;
	struct copy_batch *b = &t->batch[cookie];
	uint64_t at;
	size_t i;

	CHECK(cookie < COPIES && b->used);
	CHECK(env_sim_locks() <= !!testdev_closers);
	for (i = 0; i < b->n; i++) {
		const struct balun_copy *op = &b->op[i];
		unsigned int dst = op->dst >> BALUN_PAGE_SHIFT;

		dawdle();
		if (b->fail) {
			copy_spoil(t, op);
			continue;
		}
		for (at = 0; at < op->len; at += BALUN_PAGE_SIZE) {
			copy_page(t, op, at);
			if (op->dst_kind == BALUN_KIND_LOCAL)
				t->failures[dst + (at >> BALUN_PAGE_SHIFT)] = 0;
		}
	}
	b->used = false;
	return b->fail ? -EIO : 0;
}
