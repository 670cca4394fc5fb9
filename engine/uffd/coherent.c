// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Coherent device memory: its pages are mapped in the program while they are on the device.
 *
 * Such a page is away in softpt like any other; the kernel's page table says which of two states it
 * is in. *Mapped*: the device's page is in the program's memory, its slot in the device's range is
 * empty. *Held*: the page is in its slot, the program's range is empty (for ATOMIC access; or it
 * could not be mapped). UFFDIO_MOVE takes it from one to the other, so there is one true copy at
 * any moment, and both happen under the lock that guards softpt.
 *
 * Content is copied into the device's own page and out of it, never exchanged for a page of system
 * memory: where the driver's range is bound to memory of its own (a NUMA node), pages on the device
 * are there.
 */
#include <sys/ioctl.h>

#include "engine/uffd/uffd.h"

static uint64_t slot_of(const struct uffd *u, uint32_t place)
{
	return (uintptr_t)u->device[SOFTPT_DEV(place)].host_base +
	       ((uint64_t)SOFTPT_PGNO(place) << BALUN_PAGE_SHIFT);
}

/* The program's range says it: mlockall() fills slots that shall be empty. */
static bool is_held(const struct uffd *u, uint64_t va, uint32_t place)
{
	env_bits slot, here, guards;

	return !maps_present(slot_of(u, place), 1, slot) && env_bit(slot, 0) &&
	       !maps_holes(va, 1, here, guards) && (!env_bit(here, 0) || env_bit(guards, 0));
}

/*
 * A held page is where it shall be, whatever MOVE says of the range: of a read-only or locked one
 * it says EINVAL before it looks. A page that is in neither place was dropped by the kernel
 * (MADV_FREE): zeros from now on. (EEXIST: it is held, or what mlockall() has put in the slot of a
 * mapped page is in the way.)
 */
int uffd_unmap_coherent(struct uffd *u, uint64_t va, uint32_t place, uint64_t len,
			uint64_t *ret_done)
{
	uint64_t slot = slot_of(u, place);
	struct uffdio_zeropage z = { .range = { .start = slot, .len = PAGE } };
	int err = uffd_move(u, slot, va, len, ret_done);
	bool held;

	if (!err || *ret_done)
		return 0;
	if (err == -EAGAIN)
		return err;
	held = is_held(u, va, place);
	if (err == -EEXIST && !held) {
		if (!frames_empty(u, slot, PAGE))
			return -EBUSY;
		err = uffd_move(u, slot, va, PAGE, ret_done);
		if (err != -ENOENT)
			return err;
	}
	if (!held) {
		if (err != -ENOENT && err != -EEXIST)
			return err;
		if (ioctl(u->caps.fd, UFFDIO_ZEROPAGE, &z) && errno != EEXIST)
			return -errno;
	}
	*ret_done = PAGE;
	return 0;
}

int uffd_map_coherent(struct uffd *u, uint64_t va, uint32_t place, uint64_t len, uint64_t *ret_done)
{
	int err = uffd_move(u, va, slot_of(u, place), len, ret_done);

	return *ret_done ? 0 : err;
}
