// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The waiting room. No kernel tells a program which of its pages are used. So what is to leave goes
 * first to a device whose memory is RAM: the pages move there and nothing is copied. Whoever
 * touches one gets its block back at once, and so says that it is in use; what has not been touched
 * when the room is full goes on to the devices behind it, the oldest first. That is what Balun does
 * with devices in a row (balun_device_spill()).
 */
#include <stdio.h>

#include "run/run.h"

static uint32_t id; /* of the room, for the policy: 0 none */

/* the room, then the devices in order; the last is full when it is full */
static int chain(void)
{
	struct balun_device *from = run.room;
	unsigned int i;
	int err = 0;

	for (i = 0; i < run.ndevices && !err; i++) {
		if (from)
			err = balun_device_spill(from, run.device[i]);
		from = run.device[i];
	}
	return err ? err : balun_device_spill(from, from);
}

int room_open(uint64_t bytes)
{
	struct balun_device_info info = { .size = sizeof(info) };
	char spec[48];
	int err;

	snprintf(spec, sizeof(spec), "ram:mem=%llu", (unsigned long long)bytes);
	err = bytes ? balun_device_open(run.space, spec, &run.room) : 0;
	if (!err)
		err = chain();
	if (!err && run.room && !balun_device_info(run.room, &info))
		__atomic_store_n(&id, info.id, __ATOMIC_RELAXED);
	return err;
}

void room_forget(void)
{
	run.room = NULL;
	id = 0;
}

uint64_t room_bytes(void)
{
	struct balun_device_info info = { .size = sizeof(info) };

	return run.room && !balun_device_info(run.room, &info) ? info.mem_used : 0;
}

bool room_is(uint32_t device)
{
	return device && device == __atomic_load_n(&id, __ATOMIC_RELAXED);
}

uint64_t room_push(uint64_t va)
{
	struct balun_counts c = { 0 };

	if (balun_offload(run.space, (void *)(uintptr_t)va, RUN_BLOCK, run.room, &c))
		return 0;
	return c.moved * RUN_PAGE;
}

uint64_t room_empty(uint64_t bytes)
{
	uint64_t gone = 0;

	balun_evict(run.room, bytes, &gone);
	return gone;
}
