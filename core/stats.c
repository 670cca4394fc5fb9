// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Counters and latency histograms: names of causes, adding a time. */
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
