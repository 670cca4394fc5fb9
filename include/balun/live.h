/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: live.h - what a running process tells of its spaces
 *
 * A process that has a space which is served in it (every engine but "kernel") answers on a Unix
 * socket of type SOCK_SEQPACKET with an abstract name, "balun-UID-PID-N": its effective user then,
 * its process id, and a number that makes the name its own. The names stand in /proc/net/unix; they
 * belong to a network namespace, and are gone with the last space or with the process, however it
 * ends. Who asks must be the same user (and the process one that this user may look into, as with
 * /proc/PID/maps), or root; and should check by SO_PEERCRED that who answers
 * is. One packet is a question, one is the answer, then the connection is closed. `balun top` asks.
 *
 * All of it is in the byte order and with the alignment of the machine. What is added later stands
 * at the end: who knows less of it takes the part that it knows, who knows more finds the size.
 */
#ifndef BALUN_LIVE_H
#define BALUN_LIVE_H

#include "balun/balun.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BALUN_LIVE_VERSION 1
#define BALUN_LIVE_PREFIX  "balun-"
#define BALUN_LIVE_RANGES  16 /* at most */

/* what is asked for */
#define BALUN_LIVE_LOOK 1 /* struct balun_live of space number @space */

/**
 * struct balun_live_ask - a question
 * @version: BALUN_LIVE_VERSION
 * @what: BALUN_LIVE_*
 * @space: which space of the process, from 0
 * @pad: 0
 */
struct balun_live_ask {
	uint32_t version, what, space, pad;
};

#define BALUN_LIVE_LOST (1u << 0)

/**
 * struct balun_live_device - a device of the space
 * @id: 1..BALUN_MAX_DEVICES
 * @flags: BALUN_LIVE_LOST: it is dead
 * @name: as in struct balun_device_info
 * @mem_total: device memory, bytes
 * @mem_used: of it given out
 * @footprint: what the device really takes of the host for what it stores; 0: it does not say
 */
struct balun_live_device {
	uint32_t id, flags;
	char name[64];
	uint64_t mem_total, mem_used, footprint;
};

/**
 * struct balun_live_range - a block between whose places pages move most
 * @addr: first byte
 * @len: bytes
 * @heat: bytes moved lately: what was counted is halved each second
 */
struct balun_live_range {
	uint64_t addr, len, heat;
};

/**
 * struct balun_live - the answer
 * @size: bytes of it
 * @version: BALUN_LIVE_VERSION
 * @err: 0; or -errno, and no more than this and the fields before it is there: -EPERM who asks
 *       may not, -ENOENT there is no such space, -EPROTO another version, or no question
 * @pid: of the process, as it knows it
 * @spaces: how many it has
 * @ndevices: devices below
 * @nranges: ranges below, hottest first; they are the process's, whichever space is asked for
 * @now_ns: CLOCK_MONOTONIC
 * @begun_ns: when the space began
 * @engine: that serves the space
 * @policy: that it has
 * @stats: as from balun_stats(), but metadata_bytes is 0: to find out costs locks
 */
struct balun_live {
	uint32_t size, version;
	int32_t err;
	uint32_t pid, spaces, ndevices, nranges, pad;
	uint64_t now_ns, begun_ns;
	char engine[16], policy[32];
	struct balun_live_device device[BALUN_MAX_DEVICES];
	struct balun_live_range range[BALUN_LIVE_RANGES];
	struct balun_stats stats;
};
#define BALUN_LIVE_ERR_BYTES offsetof(struct balun_live, pid)

#ifdef __cplusplus
}
#endif
#endif
