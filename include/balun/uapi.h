/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: uapi.h - the calls of /dev/balun, by which the library reaches balun.ko (engine "kernel")
 *
 * An open file is one space, of the process that makes it with BALUN_IOC_CREATE. A call of another
 * process on it (a forked child has the file too) is -ECHILD. The space ends with BALUN_IOC_DESTROY
 * or when nobody has the file any more; then the file is used up. INFO and DRIVER need no space.
 * Threads may call at the same time.
 *
 * Every call takes a struct that begins with struct balun_uapi_head. It may be larger than the one
 * that the module knows if all beyond that is 0 (else -E2BIG); a smaller one is -EINVAL, and so is
 * a flag that the module does not know. Members are appended and calls are added as time goes by;
 * BALUN_UAPI_VERSION changes when a library that was built before cannot use the module any more.
 * Addresses and lengths of the program are 64 bits wide, as are handles of devices; handle 0 is no
 * device: system memory.
 *
 * Each call returns what the function of balun.h or driver.h that is named with it does, and
 * beside: -ENOTTY no such call; -EFAULT a struct or an array is not the caller's memory; -EBADF the
 * file has no space, or none any more; -ENODEV no device has the handle (or it is closed already);
 * -EINTR the process is being killed.
 */
#ifndef BALUN_UAPI_H
#define BALUN_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#include "balun/balun.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BALUN_UAPI_VERSION 1
#define BALUN_UAPI_NODE	   "/dev/balun"
#define BALUN_UAPI_REASON  512		/* bytes of a text of why a call failed */
#define BALUN_UAPI_SPEC	   513		/* bytes of a spec at most, with its 0 */
#define BALUN_UAPI_DATA	   (64UL << 20) /* bytes of a command's data at most */

/**
 * struct balun_uapi_head - what every struct begins with
 * @size: of the whole struct
 * @flags: 0
 * @reason: address of BALUN_UAPI_REASON bytes for the text why the call failed (balun_reason()), or
 *          0; written only when it did
 */
struct balun_uapi_head {
	__u32 size, flags;
	__u64 reason;
};

/**
 * struct balun_uapi_info - INFO: what the module is (balun_engine_info())
 * @version: out: BALUN_UAPI_VERSION of the module
 * @works: out: 1 if a space can be made
 * @release: out: version of the module, "0.1.0"
 *
 * The first call of a library. Does not change with the version.
 */
struct balun_uapi_info {
	struct balun_uapi_head head;
	__u32 version, works;
	char release[32];
	char how[96], reason[160], remedy[240], features[480];
};

/** struct balun_uapi_driver - DRIVER: driver number @index (balun_engine_driver()) */
struct balun_uapi_driver {
	struct balun_uapi_head head;
	__u64 index;
	char name[64], help[1024]; /* out */
};

/**
 * struct balun_uapi_open - OPEN: balun_device_open()
 * @spec: address of the text, which ends with a 0
 * @handle: out: never that of another device of this file
 */
struct balun_uapi_open {
	struct balun_uapi_head head;
	__u64 spec, handle;
};

/** struct balun_uapi_device - CLOSE: balun_device_close(); DEVICE: balun_device_info() */
struct balun_uapi_device {
	struct balun_uapi_head head;
	__u64 handle;
	__u64 mem_total, mem_used, caps; /* out, as all below; DEVICE only */
	__u32 id;
	char name[60];
};

/** struct balun_uapi_migrate - MIGRATE: balun_migrate(); @counts: out */
struct balun_uapi_migrate {
	struct balun_uapi_head head;
	__u64 addr, len, handle;
	struct balun_counts counts;
};

/**
 * struct balun_uapi_range - PREFETCH, PIN, UNPIN, ADVISE: as of balun.h; FAULT: balun_fault()
 * @handle: 0 for PIN and UNPIN
 * @arg: ADVISE: enum balun_advice; FAULT: BALUN_ACCESS_*; else 0
 */
struct balun_uapi_range {
	struct balun_uapi_head head;
	__u64 addr, len, handle, arg;
};

/** struct balun_uapi_evict - EVICT: balun_evict(); @freed: out, also after an error */
struct balun_uapi_evict {
	struct balun_uapi_head head;
	__u64 handle, bytes, freed;
};

/**
 * struct balun_uapi_list - QUERY: balun_query(); LOST: balun_lost(), without @len
 * @extents: address of @n of struct balun_extent
 * @n: in: how many there is room for; out: how many were written
 * @more: out: 1 if they fill the room, the caller's or the module's: ask again from their end
 */
struct balun_uapi_list {
	struct balun_uapi_head head;
	__u64 addr, len, extents, n, more;
};

/**
 * struct balun_uapi_stats - STATS: balun_stats()
 * @stats: address of a struct balun_stats
 * @len: its size: so much of it is written, with 0 where the module has none
 */
struct balun_uapi_stats {
	struct balun_uapi_head head;
	__u64 stats, len;
};

/**
 * struct balun_uapi_command - COMMAND: balun_device_command()
 * @arg: address of the argument, or 0; it is copied in before and out after, also after an error
 *       of the driver's
 * @data: address of the data, or 0
 * @data_len: at most BALUN_UAPI_DATA
 * @arg_len: at most BALUN_COMMAND_ARG of driver.h
 * @data_use: BALUN_DATA_* of driver.h: data that are in and out (0) are copied as the argument is,
 * OUT only out and not after an error
 * @unused: 0
 * @driver: name of the driver, ends with a 0
 */
struct balun_uapi_command {
	struct balun_uapi_head head;
	__u64 handle, arg, data, data_len;
	__u32 arg_len, code, data_use, unused;
	char driver[32];
};

/* the size is in the struct, not in the number: a number is for ever */
#define BALUN_IOC	   0xBA
#define BALUN_IOC_INFO	   _IO(BALUN_IOC, 0x00) /* struct balun_uapi_info */
#define BALUN_IOC_DRIVER   _IO(BALUN_IOC, 0x01) /* struct balun_uapi_driver */
#define BALUN_IOC_CREATE   _IO(BALUN_IOC, 0x02) /* head alone: balun_space_create() */
#define BALUN_IOC_DESTROY  _IO(BALUN_IOC, 0x03) /* head alone: balun_space_destroy() */
#define BALUN_IOC_OPEN	   _IO(BALUN_IOC, 0x04) /* struct balun_uapi_open */
#define BALUN_IOC_CLOSE	   _IO(BALUN_IOC, 0x05) /* struct balun_uapi_device */
#define BALUN_IOC_DEVICE   _IO(BALUN_IOC, 0x06) /* struct balun_uapi_device */
#define BALUN_IOC_MIGRATE  _IO(BALUN_IOC, 0x07) /* struct balun_uapi_migrate */
#define BALUN_IOC_PREFETCH _IO(BALUN_IOC, 0x08) /* struct balun_uapi_range */
#define BALUN_IOC_SYNC	   _IO(BALUN_IOC, 0x09) /* head alone: balun_sync() */
#define BALUN_IOC_EVICT	   _IO(BALUN_IOC, 0x0a) /* struct balun_uapi_evict */
#define BALUN_IOC_PIN	   _IO(BALUN_IOC, 0x0b) /* struct balun_uapi_range */
#define BALUN_IOC_UNPIN	   _IO(BALUN_IOC, 0x0c) /* struct balun_uapi_range */
#define BALUN_IOC_ADVISE   _IO(BALUN_IOC, 0x0d) /* struct balun_uapi_range */
#define BALUN_IOC_QUERY	   _IO(BALUN_IOC, 0x0e) /* struct balun_uapi_list */
#define BALUN_IOC_LOST	   _IO(BALUN_IOC, 0x0f) /* struct balun_uapi_list */
#define BALUN_IOC_STATS	   _IO(BALUN_IOC, 0x10) /* struct balun_uapi_stats */
#define BALUN_IOC_FAULT	   _IO(BALUN_IOC, 0x11) /* struct balun_uapi_range */
#define BALUN_IOC_FENCE	   _IO(BALUN_IOC, 0x12) /* head alone: balun_fence() */
#define BALUN_IOC_COMMAND  _IO(BALUN_IOC, 0x13) /* struct balun_uapi_command */

#ifdef __cplusplus
}
#endif
#endif
