/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: probe.h - a driver that wraps the driver under test and watches
 *
 * It keeps an exact shadow of the device's page table, checks each call of core against the driver
 * contract (driver.h), fails or pauses the n-th call on request, and is a software device itself:
 * dev_read() and dev_write() translate through the shadow table, reach device memory with nothing
 * but the inner driver's copy, and fault where there is no translation. All functions are commands
 * to the device (probe_cmd.h): it may be served in the kernel.
 *
 * Options: mem=BYTES device memory at most; host=0 hide BALUN_CAP_HOST_MEMORY, so that pages are
 * copied; peer=0 hide BALUN_CAP_PEER; coherent=1 do not hide BALUN_CAP_COHERENT.
 */
#ifndef BALUN_PROBE_H
#define BALUN_PROBE_H

#include "balun/balun.h"
#include "balun/driver.h"
#include "probe_cmd.h"

#include <errno.h>

extern const struct balun_driver probe_driver;

/* ---- the device at work; any thread ---- */

/* memory for the data of accesses, so that those that come need no new mapping */
void probe_warm(void);

/* 0, or what balun_fault() says of the first page that fails */
int dev_read(struct balun_device *dev, uint64_t va, void *buf, size_t len);
int dev_write(struct balun_device *dev, uint64_t va, const void *buf, size_t len);
/* values that must be reachable; failure ends the case */
uint64_t dev_read64(struct balun_device *dev, uint64_t va);
void dev_write64(struct balun_device *dev, uint64_t va, uint64_t v);

/*
 * A thread that works as the device brackets its life with these: closing the device waits for it,
 * as any driver's close() waits for its own threads. After an access was refused with -ENODEV it
 * must end without another one.
 */
void probe_run_begin(struct balun_device *dev);
void probe_run_end(struct balun_device *dev);

/* ---- the shadow table ---- */

struct probe_entry probe_lookup(struct balun_device *dev, uint64_t va);
/* entries in a range */
uint64_t probe_mapped(struct balun_device *dev, uint64_t va, uint64_t len);

/* ---- what core did ---- */

void probe_get_counts(struct balun_device *dev, struct probe_counts *ret);

/* ---- interference ---- */

/* fail @count calls of @op with @err from the @nth from now on (1: the next); 0: none */
void probe_fail(struct balun_device *dev, enum probe_op op, uint64_t nth, uint64_t count, int err);
/* whether the failure asked for last has come to pass */
bool probe_failed(struct balun_device *dev, enum probe_op op);
/* the @nth copy from now waits until probe_resume(), at most a minute; one at a time */
void probe_pause(struct balun_device *dev, uint64_t nth);
/* wait until a copy waits; false: none came within 20 s */
bool probe_paused(struct balun_device *dev);
void probe_resume(struct balun_device *dev);
/* the driver says that the device is lost */
void probe_lose(struct balun_device *dev);

/* the first breach of the contract that core committed, or NULL */
const char *probe_breach(struct balun_device *dev);
/*
 * What was noted last outlives the device: breaches of close() and gone(), which come last. NULL:
 * none, since it was asked for. In this process; with @dev, where that is served.
 */
const char *probe_last_breach(void);
const char *probe_last_breach_of(struct balun_device *dev);

#endif
