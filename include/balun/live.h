/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: live.h - what a running process tells of its spaces
 *
 * A process that has a space which is served in it (every engine but "kernel") answers on a Unix
 * socket of type SOCK_SEQPACKET with an abstract name, "balun-UID-PID-N": its effective user then,
 * its process id, and a number that makes the name its own. The names stand in /proc/net/unix; they
 * belong to a network namespace, and are gone with the last space or with the process, however it
 * ends. Who asks must be the same user (and the process one that this user may look into, as with
 * /proc/PID/maps), or root; and should check by SO_PEERCRED that who answers is. One packet is a
 * question, one is the answer, then the connection is closed; that of a trace stays as long as the
 * trace does. `balun top` and `balun trace` ask.
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
#define BALUN_LIVE_LOOK	 1 /* struct balun_live of space number @space */
#define BALUN_LIVE_TRACE 2 /* what happens from now on, until the connection ends: see below */

/**
 * struct balun_live_ask - a question
 * @version: BALUN_LIVE_VERSION
 * @what: BALUN_LIVE_*
 * @space: which space of the process, from 0
 * @mib: of BALUN_LIVE_TRACE: how large the ring shall be, MiB, 1 to BALUN_TRACE_MAX_MIB; else 0
 */
struct balun_live_ask {
	uint32_t version, what, space, mib;
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

/* ---- traces ---- */

/**
 * DOC: traces
 *
 * The answer to BALUN_LIVE_TRACE is the part of struct balun_live up to @err and, if that is 0, a
 * file of memory with a struct balun_trace_ring at its beginning (SCM_RIGHTS). One can trace a
 * process at a time, the next is told -EBUSY. What does not fit because nobody reads is dropped and
 * counted; the process never waits.
 *
 * A process that finds BALUN_TRACE_ENV in the environment that it was begun with, "NAME:MIB",
 * offers its ring itself when its first space begins: it connects to the abstract socket NAME, of
 * the same user or root, and sends this answer, with itself as who is asked.
 */
#define BALUN_TRACE_ENV	    "BALUN_TRACE"
#define BALUN_TRACE_MAX_MIB 1024
#define BALUN_TRACE_DATA    4096 /* where events begin in the file */

enum balun_trace_what {
	BALUN_TRACE_FAULT,   /* @from: who touched it, a device or 0, a CPU; @to: BALUN_ACCESS_* */
	BALUN_TRACE_MIGRATE, /* @from, @to: devices; 0 is system memory */
	BALUN_TRACE_EVICT,   /* @len: bytes of the block at @va that went */
	BALUN_TRACE_INVALIDATE, /* devices forget the range */
	BALUN_TRACE_NR,
};

/**
 * struct balun_trace_event - something happened
 * @seq: its number, from 1; what is not the one that is due is not complete yet
 * @begun_ns: CLOCK_MONOTONIC
 * @ended_ns: when it was written down
 * @va: address
 * @len: bytes
 * @tid: the thread that did it
 * @err: 0 or -errno, of BALUN_TRACE_FAULT
 * @what: enum balun_trace_what
 * @cause: enum balun_cause
 * @from: see enum balun_trace_what
 * @to: see enum balun_trace_what
 */
struct balun_trace_event {
	uint64_t seq, begun_ns, ended_ns, va, len;
	uint32_t tid;
	int32_t err;
	uint8_t what, cause, from, to;
	uint32_t pad[3];
};

/**
 * struct balun_trace_ring - where the process writes and another reads
 * @version: BALUN_LIVE_VERSION
 * @slots: events that there is room for, a power of two; number n is at n % slots
 * @pid: of the process, as it knows it
 * @head: events ever begun; the process's
 * @dropped: events that there was no room for; the process's
 * @tail: events ever read; the reader's
 */
struct balun_trace_ring {
	uint32_t version, slots, pid, pad;
	uint64_t pad_head[6];
	uint64_t head, dropped, pad_tail[6];
	uint64_t tail;
};

#ifdef __cplusplus
}
#endif
#endif
