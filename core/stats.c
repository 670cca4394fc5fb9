// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Counters and latency histograms: names of causes, adding a time, what others see of them. */
#include "balun/live.h"
#include "core/core.h"

static const char *const cause_name[BALUN_NR_CAUSES] = {
	[BALUN_CAUSE_USER] = "user",	       [BALUN_CAUSE_DEVICE_FAULT] = "device-fault",
	[BALUN_CAUSE_CPU_FAULT] = "cpu-fault", [BALUN_CAUSE_PREFETCH] = "prefetch",
	[BALUN_CAUSE_EVICTION] = "eviction",   [BALUN_CAUSE_INVALIDATE] = "invalidate",
	[BALUN_CAUSE_THRASH] = "thrash",       [BALUN_CAUSE_TEARDOWN] = "teardown",
};

const char *balun_cause_name(enum balun_cause cause)
{
	return (unsigned int)cause < BALUN_NR_CAUSES ? cause_name[cause] : "unknown";
}

void core_hist_add(struct balun_hist *h, uint64_t ns)
{
	unsigned int i = ns > 1 ? 63 - __builtin_clzll(ns) : 0;

	core_count(&h->bucket[ENV_MIN(i, BALUN_HIST_BUCKETS - 1U)], 1);
	core_count(&h->sum_ns, ns);
	core_count(&h->count, 1);
}

/* all members are 8 bytes: each is read whole, the lot is not one moment's */
void core_stats_read(const struct balun_space *sp, struct balun_stats *ret)
{
	size_t i;

	for (i = 1; i < sizeof(*ret) / 8; i++)
		((uint64_t *)ret)[i] = env_load_relaxed((uint64_t *)&sp->stats + i);
}

static void live_device(const struct balun_device *dev, struct balun_live_device *ret)
{
	ret->id = dev->id;
	ret->flags = core_is_lost(dev->space, dev->id) ? BALUN_LIVE_LOST : 0;
	snprintf(ret->name, sizeof(ret->name), "%s", dev->name);
	ret->mem_total = dev->desc.mem_bytes;
	ret->mem_used = env_load_relaxed(&dev->mem_used);
	ret->footprint = dev->ops.footprint(dev->priv);
}

/* Takes leaf locks alone, for who looks must not wait for what a device does. One that is being
 * closed waits for who looks. */
void core_live_fill(void *space, struct balun_live *ret)
{
	struct balun_space *sp = space;
	unsigned int id;

	snprintf(ret->engine, sizeof(ret->engine), "%s", sp->engine->name);
	snprintf(ret->policy, sizeof(ret->policy), "%s", sp->policy->name);
	ret->stats.size = sizeof(ret->stats);
	core_stats_read(sp, &ret->stats);
	for (id = 1; id < CORE_DEVICE_SLOTS; id++) {
		struct balun_device *dev = core_device_find(sp, id);

		if (!dev)
			continue;
		live_device(dev, &ret->device[ret->ndevices++]);
		core_device_put(dev);
	}
}
