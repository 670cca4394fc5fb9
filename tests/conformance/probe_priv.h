/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: probe_priv.h - the probe's own data: probe.c (driver), probe_dev.c (device at work)
 *
 * These two and probe_table.c are a portable driver: of headers they include env.h and driver.h.
 */
#ifndef BALUN_PROBE_PRIV_H
#define BALUN_PROBE_PRIV_H

#include "probe_table.h"

#define PAGE	      BALUN_PAGE_SIZE
#define PROBE_COOKIES 256
#define PROBE_USERS   64
/* so that nothing waits for ever for a process that is gone */
#define PROBE_PAUSE_NS 60000000000ULL
#define PROBE_RUN_NS   30000000000ULL
#define PROBE_KILL_NS  100000000ULL /* who waits in the kernel looks whether it is being killed */

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

	struct env_mutex lock;
	struct env_cond cond; /* an access or a run ended; a pause began or ended */
	struct probe_table table;
	uint8_t *filled;	    /* per page of device memory: something was ever put there */
	uint64_t user[PROBE_USERS]; /* pages that dev_read/dev_write use now; 0: free */
	uint8_t *staging;	    /* a page for each of them */
	struct probe_counts n;
	struct probe_plan plan[PROBE_NR];
	uint64_t pause_nth;
	bool pausing;
	struct probe_cookie cookie[PROBE_COOKIES];
	unsigned int cookies, attached, running;
	bool active;
	int breached;
	char breach[PROBE_TEXT];
};

extern const struct balun_driver probe_driver;

void probe_breach_note(struct probe *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* what was noted, or NULL */
const char *probe_noted(struct probe *p);
/* wait until no access uses a page of the range */
void probe_wait_unused(struct probe *p, uint64_t va, uint64_t len);
int probe_command(void *priv, struct balun_space *space, const struct balun_command *c);

#endif
