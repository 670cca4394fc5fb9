/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: probe_cmd.h - the probe's commands
 *
 * How the functions of probe.h reach a device, wherever it is served: in this process or, on the
 * engine "kernel", by a module that is made of the same files.
 */
#ifndef BALUN_PROBE_CMD_H
#define BALUN_PROBE_CMD_H

#include "balun/driver.h"

#define PROBE_NAME "probe"
#define PROBE_TEXT 200

struct probe_entry {
	bool valid;
	uint32_t kind, perm;
	uint64_t addr;
};

struct probe_counts {
	uint64_t maps, unmaps, copies; /* calls */
	uint64_t segs;
	uint64_t bytes[4][4]; /* copied, by BALUN_KIND_* of source and destination */
	uint64_t unmap_cause[BALUN_NR_CAUSES];
	uint64_t failed; /* calls failed on request */
};

/* what can be made to fail; PROBE_WAIT: copy_wait() */
enum probe_op {
	PROBE_MAP,
	PROBE_COPY,
	PROBE_WAIT,
	PROBE_NR
};
#define PROBE_FOREVER UINT64_MAX

enum probe_code {
	PROBE_CMD_READ, /* what is inside one page, to data; -EAGAIN: look again */
	PROBE_CMD_WRITE,
	PROBE_CMD_RUN_BEGIN,
	PROBE_CMD_RUN_END,
	PROBE_CMD_LOOKUP,
	PROBE_CMD_MAPPED,
	PROBE_CMD_COUNTS,
	PROBE_CMD_FAIL,
	PROBE_CMD_FAILED,
	PROBE_CMD_PAUSE,
	PROBE_CMD_PAUSED, /* waits a moment for it */
	PROBE_CMD_RESUME,
	PROBE_CMD_LOST, /* balun_device_lost() */
	PROBE_CMD_BREACH,
	PROBE_CMD_LAST_BREACH, /* and forgets it */
};

/**
 * struct probe_cmd - a command, its arguments and its answer
 * @va, @len: of READ, WRITE, LOOKUP, MAPPED
 * @nth, @count, @op, @err: of FAIL; @nth of PAUSE, @op of FAILED
 * @n: answer of MAPPED (entries), FAILED and PAUSED (whether)
 */
struct probe_cmd {
	uint64_t va, len, nth, count, n;
	uint32_t op;
	int32_t err;
	struct probe_entry entry;
	struct probe_counts counts;
	char text[PROBE_TEXT];
};

/* the last breach of this process (in the kernel: of all), PROBE_TEXT bytes, or ""; forgets it */
void probe_take_last(char *ret_text);

#endif
