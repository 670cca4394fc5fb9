/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: probe_priv.h - the probe's own data: probe.c (driver), probe_dev.c (device at work)
 */
#ifndef BALUN_PROBE_PRIV_H
#define BALUN_PROBE_PRIV_H

#include "probe_table.h"

#include <pthread.h>

#define PROBE_COOKIES 256
#define PROBE_USERS   64

struct probe_plan {
	uint64_t nth, count;
	int err;
	bool came;
};

struct probe_cookie {
	bool busy;
	int err;
	uint64_t inner;
};

/* lives in balun_mem_alloc() memory: core's service threads run through it */
struct probe {
	struct balun_device *dev;
	struct balun_space *space;
	const struct balun_driver *drv;
	void *inner;
	struct balun_desc desc;

	pthread_mutex_t lock;
	pthread_cond_t cond; /* an access ended; a pause began or ended */
	struct probe_table table;
	uint8_t *filled;	    /* per page of device memory: something was ever put there */
	uint64_t user[PROBE_USERS]; /* pages that dev_read/dev_write use now; 0: free */
	struct probe_counts n;
	struct probe_plan plan[PROBE_NR];
	uint64_t pause_nth;
	bool pausing;
	struct probe_cookie cookie[PROBE_COOKIES];
	unsigned int cookies, attached, running;
	bool active;
	int breached;
	char breach[200];
};

void probe_breach_note(struct probe *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* wait until no access uses a page of the range */
void probe_wait_unused(struct probe *p, uint64_t va, uint64_t len);

#endif
