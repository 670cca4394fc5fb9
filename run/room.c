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

#define AGAIN_NS 1000000000ULL

static uint32_t id; /* of the room, for the policy: 0 none */

/* which device the room is emptied into, and when the first is tried again */
static unsigned int to;
static uint64_t again_ns;

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
	id = to = 0;
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

uint64_t room_push(uint64_t va, bool *busy)
{
	struct balun_counts c = { 0 };

	if (balun_offload(run.space, (void *)(uintptr_t)va, RUN_BLOCK, run.room, &c))
		return 0;
	*busy |= c.busy;
	return c.moved * RUN_PAGE;
}

/*
 * A device that has places left may have nothing behind them: a file system that is full, memory
 * that does not compress as far as it had to, a server that is gone. When nothing goes to it the
 * room is emptied into the next one, until the first is tried again.
 */
uint64_t room_empty(uint64_t bytes)
{
	uint64_t now = run_now_ns(), gone = 0;

	if (!run.room)
		return 0;
	if (to && now > again_ns) {
		to = 0;
		balun_device_spill(run.room, run.device[0]);
	}
	for (;;) {
		balun_evict(run.room, bytes, &gone);
		if (gone || to + 1 >= run.ndevices)
			return gone;
		balun_device_spill(run.room, run.device[++to]);
		again_ns = now + AGAIN_NS;
	}
}
