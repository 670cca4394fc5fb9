/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The driver nbd in two files: nbd.c, the device and its requests; nbd_start.c, the beginning and
 * the end of its helper process.
 */
#ifndef BALUN_DRIVERS_NBD_H
#define BALUN_DRIVERS_NBD_H

#include "balun/driver.h"
#include "drivers/nbd_shared.h"
#include "env/env.h"

struct nbd_batch;

struct nbd {
	struct nbd_shared *shared;
	uint64_t bytes, timeout_ns;
	bool gone; /* only ever becomes true, */
	bool used; /* and so does this: something was written; relaxed accesses */
	/* what the server may forget: a bit a page, a word a unit; atomic accesses */
	uint64_t *garbage, ngarbage;
	uint32_t ntrims; /* of trim[], read without the lock */
	struct env_thread *watch;
	struct env_mutex lock; /* leaf: all below */
	struct env_cond changed;
	uint64_t trim[NBD_SLOTS];  /* by slot: 1 + the unit that is being trimmed; 0: none */
	uint64_t trim_next;	   /* unit at which the search goes on */
	uint32_t free;		   /* slots, a bit each */
	struct nbd_batch *batches; /* as many as there were at once */
	enum {
		NBD_WATCH_NOT, /* the thread does not own shared->program yet */
		NBD_WATCH_OWNS,
		NBD_WATCH_GO, /* the helper owns shared->helper */
		NBD_WATCH_STOP,
	} watching;
};

/* the time at which a request that is waited for from now on is late */
uint64_t nbd_deadline(const struct nbd *n);
/* until *word is not @seen, or woken, or earlier. Return: false: it is @end, and that was not so */
bool nbd_sleep_until(uint32_t *word, uint32_t seen, uint64_t end);
/* the helper is there and connected to @uri; -errno and the reason: there is none */
int nbd_start(struct nbd *n, const char *uri, uint64_t conns);
void nbd_stop(struct nbd *n);
/* nobody will answer any more; @why is said, once, if it is not NULL */
void nbd_lose(struct nbd *n, const char *why);
bool nbd_is_gone(struct nbd *n);

#endif
