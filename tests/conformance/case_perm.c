/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Permissions: the device may do exactly what the CPU may, and the errors say what it may not. */
#include "kit.h"

static void read_only(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 1), v = 1;

	CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
	dev_verify(k->dev, va, len, 1);
	CHECK_RC(dev_write(k->dev, va + PAGE, &v, sizeof(v)), -EPERM);
	kit_mirror(k, k->dev, va, len);
	kit_migrate(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 1);
	CHECK_RC(dev_write(k->dev, va + PAGE, &v, sizeof(v)), -EPERM);
	kit_mirror(k, k->dev, va, len);
	kit_verify(k, va, len, 1);
	CHECK_RC(k->mem->store(k, va, &v, sizeof(v)), -EFAULT);
}

static void read_only_while_away(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 2), v = 1;

	kit_move(k, va, len, k->dev);
	dev_fill(k->dev, va, len, 3);
	CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
	CHECK_OK(balun_fence(k->space));
	kit_mirror(k, k->dev, va, len);
	CHECK_RC(dev_write(k->dev, va + PAGE, &v, sizeof(v)), -EPERM);
	dev_verify(k->dev, va, len, 3);
	kit_verify(k, va, len, 3);
	CHECK_RC(k->mem->store(k, va, &v, sizeof(v)), -EFAULT);
	CHECK_OK(k->mem->protect(k, va, len, KIT_RW));
	CHECK_OK(dev_write(k->dev, va, &v, sizeof(v)));
	CHECK_EQ(cpu_read64(k, va), 1);
}

/* writable entries do not outlive the permission */
static void revoked(struct kit *k)
{
	uint64_t len = BALUN_BLOCK_SIZE, va = kit_filled(k, len, 4), i;

	kit_move(k, va, len, k->dev);
	dev_fill(k->dev, va, len, 5);
	CHECK(probe_lookup(k->dev, va).perm & BALUN_PERM_WRITE);
	CHECK_OK(k->mem->protect(k, va + 8 * PAGE, 8 * PAGE, KIT_READ));
	CHECK_OK(balun_fence(k->space));
	for (i = 8; i < 16; i++)
		CHECK(!(probe_lookup(k->dev, va + i * PAGE).perm & BALUN_PERM_WRITE));
	dev_write64(k->dev, va + 7 * PAGE, 1);
	dev_write64(k->dev, va + 16 * PAGE, 1);
	dev_verify_part(k->dev, va, 8 * PAGE, 8 * PAGE, 5);
	kit_mirror(k, k->dev, va, len);
}

static void no_access_while_away(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 6), v;

	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 6);
	CHECK_OK(k->mem->protect(k, va, len, 0));
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(probe_mapped(k->dev, va, len), 0);
	CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -EFAULT);
	CHECK_RC(dev_write(k->dev, va, &v, sizeof(v)), -EFAULT);
	CHECK_RC(k->mem->load(k, va, &v, sizeof(v)), -EFAULT);
	CHECK_OK(k->mem->protect(k, va, len, KIT_RW));
	dev_verify(k->dev, va, len, 6);
	kit_verify(k, va, len, 6);
}

static void no_access_at_home(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 7), v;

	CHECK_OK(k->mem->protect(k, va, len, 0));
	CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -EFAULT);
	CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
	dev_verify(k->dev, va, len, 7);
	kit_verify(k, va, len, 7);
}

/* what becomes writable, the device can write */
static void granted(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 8);

	CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
	dev_verify(k->dev, va, len, 8);
	CHECK_OK(k->mem->protect(k, va, len, KIT_RW));
	dev_fill(k->dev, va, len, 9);
	kit_verify(k, va, len, 9);
}

static void toggled(struct kit *k)
{
	uint64_t len = 4 * PAGE, va = kit_filled(k, len, 10), i, v;

	for (i = 0; i < 50; i++) {
		kit_migrate(k, va, len, k->dev);
		CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
		CHECK_OK(balun_fence(k->space));
		v = i;
		CHECK_RC(dev_write(k->dev, va, &v, sizeof(v)), -EPERM);
		CHECK_OK(k->mem->protect(k, va, len, KIT_RW));
		dev_write64(k->dev, va + PAGE, i);
		CHECK_EQ(cpu_read64(k, va + PAGE), i);
	}
}

static void errors(struct kit *k)
{
	uint64_t len = 4 * PAGE, va = kit_map(k, len, KIT_RW), hole = kit_place(k, len);

	CHECK_RC(balun_fault(k->dev, k->space, hole, PAGE, BALUN_ACCESS_READ), -EFAULT);
	CHECK_RC(balun_fault(k->dev, k->space, hole, PAGE, BALUN_ACCESS_WRITE), -EFAULT);
	CHECK_RC(balun_fault(k->dev, k->space, va, len + PAGE, BALUN_ACCESS_READ), -EFAULT);
	CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
	CHECK_RC(balun_fault(k->dev, k->space, va, len, BALUN_ACCESS_WRITE), -EPERM);
	CHECK_OK(balun_fault(k->dev, k->space, va, len, BALUN_ACCESS_READ));
	CHECK_OK(k->mem->protect(k, va, len, 0));
	CHECK_RC(balun_fault(k->dev, k->space, va, len, BALUN_ACCESS_READ), -EFAULT);
}

/* a prefetch of pages that cannot come is no error */
static void prefetch_never_fails(struct kit *k)
{
	uint64_t len = 8 * PAGE, va = kit_filled(k, len, 11);

	CHECK_OK(k->mem->unmap(k, va + 2 * PAGE, PAGE));
	CHECK_OK(k->mem->protect(k, va + 4 * PAGE, PAGE, 0));
	CHECK_OK(balun_fault(k->dev, k->space, va, len, BALUN_ACCESS_PREFETCH));
	CHECK_EQ(probe_mapped(k->dev, va + 2 * PAGE, PAGE), 0);
	CHECK_EQ(probe_mapped(k->dev, va + 4 * PAGE, PAGE), 0);
	dev_verify(k->dev, va, 2 * PAGE, 11);
	CHECK_OK(k->mem->protect(k, va + 4 * PAGE, PAGE, KIT_RW));
	dev_verify_part(k->dev, va, 3 * PAGE, 5 * PAGE, 11);
}

/* an atomic access has the page for itself: on the device */
static void atomic(struct kit *k)
{
	uint64_t len = 4 * PAGE, va = kit_filled(k, len, 12);
	struct probe_entry e;

	if (kit_no_private(k)) {
		CHECK_RC(balun_fault(k->dev, k->space, va, PAGE, BALUN_ACCESS_ATOMIC), -EOPNOTSUPP);
		return;
	}
	CHECK_OK(balun_fault(k->dev, k->space, va, PAGE, BALUN_ACCESS_ATOMIC));
	e = probe_lookup(k->dev, va);
	CHECK(e.valid && e.perm & BALUN_PERM_ATOMIC && e.perm & BALUN_PERM_WRITE);
	CHECK_EQ(e.kind, BALUN_KIND_LOCAL);
	CHECK(kit_query1(k, va).where == BALUN_WHERE_DEVICE);
	kit_verify(k, va, len, 12);
	CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
	CHECK_RC(balun_fault(k->dev, k->space, va, PAGE, BALUN_ACCESS_ATOMIC), -EPERM);
}

static void atomic_in_place(struct kit *k)
{
	uint64_t va = kit_map(k, 4 * PAGE, KIT_RW | KIT_SHARED);

	CHECK_RC(balun_fault(k->dev, k->space, va, PAGE, BALUN_ACCESS_ATOMIC), -EOPNOTSUPP);
	CHECK_OK(balun_fault(k->dev, k->space, va, PAGE, BALUN_ACCESS_WRITE));
}

/* shared memory stays where it is and is used there, by the same rules */
static void shared_in_place(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_map(k, len, KIT_RW | KIT_SHARED), v = 1;
	struct balun_counts c;

	kit_fill(k, va, len, 13);
	c = kit_migrate(k, va, len, k->dev);
	CHECK_EQ(c.unmovable, 16);
	dev_verify(k->dev, va, len, 13);
	CHECK_EQ(probe_lookup(k->dev, va).kind, BALUN_KIND_SYSTEM);
	dev_fill(k->dev, va, len, 14);
	kit_verify(k, va, len, 14);
	CHECK_OK(k->mem->protect(k, va, len, KIT_READ));
	CHECK_OK(balun_fence(k->space));
	CHECK_RC(dev_write(k->dev, va, &v, sizeof(v)), -EPERM);
	dev_verify(k->dev, va, len, 14);
}

const struct kit_case cases_perm[] = {
	{ "perm-read-only", read_only, NULL, 0 },
	{ "perm-read-only-copied", read_only, "host=0", 0 },
	{ "perm-read-only-while-away", read_only_while_away, NULL, 0 },
	{ "perm-revoked", revoked, NULL, 0 },
	{ "perm-no-access-while-away", no_access_while_away, NULL, 0 },
	{ "perm-no-access-at-home", no_access_at_home, NULL, 0 },
	{ "perm-granted", granted, NULL, 0 },
	{ "perm-toggled", toggled, NULL, 0 },
	{ "perm-fault-errors", errors, NULL, 0 },
	{ "perm-prefetch-never-fails", prefetch_never_fails, NULL, 0 },
	{ "perm-atomic", atomic, NULL, 0 },
	{ "perm-atomic-in-place", atomic_in_place, NULL, 0 },
	{ "perm-shared-in-place", shared_in_place, NULL, 0 },
	{ NULL, NULL, NULL, 0 },
};
