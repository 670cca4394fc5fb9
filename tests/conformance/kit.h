/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: kit.h - what a conformance case is written with
 *
 * Each case runs in a process of its own, with a space and one device, probe(SPEC), made for it.
 * It reaches memory as a CPU through k->mem (real system calls and plain loads, or the simulated
 * process on "sim") and as a device through probe.h. When it returns, the kit unmaps all
 * its memory, checks that no device memory is in use, closes everything and asks the probe whether
 * core ever broke the driver contract.
 */
#ifndef BALUN_KIT_H
#define BALUN_KIT_H

#include "balun/balun.h"
#include "balun/driver.h"
#include "balun/policy.h"
#include "balun/sim.h"
#include "balun/soft.h"
#include "probe.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
#define KIT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KIT_TSAN 1
#endif
#endif
#ifndef KIT_TSAN
#define KIT_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__)
#define KIT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KIT_ASAN 1
#endif
#endif
#ifndef KIT_ASAN
#define KIT_ASAN 0
#endif

#define KIT_READ   BALUN_SIM_READ
#define KIT_WRITE  BALUN_SIM_WRITE
#define KIT_SHARED BALUN_SIM_SHARED
#define KIT_RW	   (KIT_READ | KIT_WRITE)

#define PAGE BALUN_PAGE_SIZE
#define MIB  (1UL << 20)

struct kit;
struct kit_child;

/* the program's side of memory; all return 0 or -errno, accesses -EFAULT/-EHWPOISON */
struct mem_ops {
	int (*map)(struct kit *k, uint64_t va, uint64_t len, unsigned int prot);
	int (*unmap)(struct kit *k, uint64_t va, uint64_t len);
	int (*remap)(struct kit *k, uint64_t from, uint64_t to, uint64_t len);
	int (*protect)(struct kit *k, uint64_t va, uint64_t len, unsigned int prot);
	int (*dontneed)(struct kit *k, uint64_t va, uint64_t len);
	int (*load)(struct kit *k, uint64_t va, void *buf, size_t len);
	int (*store)(struct kit *k, uint64_t va, const void *buf, size_t len);
	int (*fork)(struct kit *k, struct kit_child **ret_child);
	int (*child_load)(struct kit_child *c, uint64_t va, void *buf, size_t len);
	void (*child_exit)(struct kit_child *c);
};
extern const struct mem_ops mem_process, mem_sim;

#define KIT_MAX_REGIONS 64
#define KIT_MAX_DEVICES BALUN_MAX_DEVICES

/**
 * struct kit - one running case
 * @driver: spec under test
 * @engine: name of the engine that serves @space
 * @seed: for random choices
 * @mem: the program's side of memory
 * @kernel: the engine is "kernel": space and devices are balun.ko's
 * @locked: the program's code and data are in memory, and stay (with @kernel)
 * @space: NULL with KIT_NO_SPACE
 * @dev: first device; NULL with KIT_NO_DEVICE
 */
struct kit {
	const char *driver, *engine, *so;
	uint64_t seed;
	const struct mem_ops *mem;
	bool kernel, locked;
	struct balun_space *space;
	struct balun_device *dev;
	struct balun_device *devices[KIT_MAX_DEVICES];
	uint64_t next_va;
	struct {
		uint64_t va, len;
	} region[KIT_MAX_REGIONS];
	unsigned int nregions;
};

#define KIT_NO_SPACE  (1u << 0) /* makes its own */
#define KIT_NO_DEVICE (1u << 1)
#define KIT_PROCESS   (1u << 2) /* needs a real process */
#define KIT_FORK      (1u << 3) /* forks, by k->mem: on uffd not under TSan */
#define KIT_SOFT      (1u << 4) /* launches functions: the driver is soft */
#define KIT_OWN_FN    (1u << 9) /* these are functions of this program */
#define KIT_PEER      (1u << 5) /* needs BALUN_CAP_PEER */
#define KIT_CHILD     (1u << 6) /* forks this very process, on any engine: not under TSan */
#define KIT_HERE      (1u << 8) /* looks at what is in this process: not on engine "kernel" */
#define KIT_COHERENT  (1u << 7) /* needs BALUN_CAP_COHERENT, of driver and engine */

/**
 * struct kit_case - a case
 * @name: GROUP-WHAT, as printed
 * @fn: returns if all is well; CHECK* and kit_skip() do not return
 * @dev: options of the probe, or NULL (probe.h)
 * @flags: KIT_* above
 */
struct kit_case {
	const char *name;
	void (*fn)(struct kit *k);
	const char *dev;
	unsigned int flags;
};

/* the visible list of groups: conform.c */
extern const struct kit_case cases_map[], cases_copy[], cases_fail[], cases_perm[], cases_device[],
	cases_close[], cases_loss[], cases_vm[], cases_moving[], cases_fork[], cases_hint[],
	cases_query[], cases_thread[], cases_memory[], cases_api[], cases_soft[], cases_spill[],
	cases_coherent[];

void kit_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
/* skips where the engine serves no faults of the kernel itself (vm.unprivileged_userfaultfd) */
void kit_needs_kernel_faults(struct kit *k);
void kit_skip(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* a kernel before 6.6: what is lost is SIGSEGV on touch, until it is unmapped */
bool kit_no_poison(const struct kit *k);
/* a kernel without CONFIG_DEVICE_PRIVATE: pages leave system memory for coherent devices only */
bool kit_no_private(const struct kit *k);
/* skips where there is no private memory for @dev; NULL: for pages that are held */
void kit_needs_private(struct kit *k, struct balun_device *dev);

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			kit_fail(__FILE__, __LINE__, "%s", #cond);                                 \
	} while (0)
#define CHECK_EQ(a, b)                                                                             \
	do {                                                                                       \
		long long a_ = (long long)(a), b_ = (long long)(b);                                \
		if (a_ != b_)                                                                      \
			kit_fail(__FILE__, __LINE__, "%s is %lld, not %s (%lld)", #a, a_, #b, b_); \
	} while (0)
#define CHECK_RC(call, want) kit_check_rc(__FILE__, __LINE__, #call, call, want)
#define CHECK_OK(call)	     CHECK_RC(call, 0)
void kit_check_rc(const char *file, int line, const char *call, int rc, int want);

/* ---- the case's process (kit.c) ---- */

/* where a case's child process leaves its verdict, in memory shared with the runner */
struct kit_verdict {
	int set; /* 1 fail, 2 skip: the first one counts */
	char text[480];
};
extern struct kit_verdict *kit_verdict;

int kit_run(const struct kit_case *c, struct kit *k); /* exit status of the child */
int kit_open_space(struct kit *k);
/* another device, probe(SPEC):@opts; closed by the kit if the case does not */
struct balun_device *kit_device(struct kit *k, const char *opts);
int kit_close(struct kit *k, struct balun_device *dev); /* and checks of its probe */

uint64_t kit_place(struct kit *k, uint64_t len); /* free addresses, 2 MiB aligned */
uint64_t kit_map(struct kit *k, uint64_t len, unsigned int prot);
uint64_t kit_filled(struct kit *k, uint64_t len, uint64_t seed); /* kit_map() + kit_fill() */

/* a pattern: word i of a range is a function of i and the seed. @at: offset of @va in it */
void kit_pattern(void *buf, uint64_t at, size_t len, uint64_t seed);
void kit_fill(struct kit *k, uint64_t va, uint64_t len, uint64_t seed);
void kit_fill_at(struct kit *k, uint64_t va, uint64_t len, uint64_t seed, uint64_t at);
#define kit_verify(k, va, len, seed) kit_verify_at(__FILE__, __LINE__, k, va, len, seed, 0)
#define kit_verify_part(k, va, at, len, seed)                                                      \
	kit_verify_at(__FILE__, __LINE__, k, (va) + (at), len, seed, at)
#define kit_verify_zero(k, va, len) kit_verify_at(__FILE__, __LINE__, k, va, len, KIT_ZEROS, 0)
#define KIT_ZEROS		    UINT64_MAX /* the seed of a pattern of zeros */
void kit_verify_at(const char *file, int line, struct kit *k, uint64_t va, uint64_t len,
		   uint64_t seed, uint64_t at);
/* the same through a device */
#define dev_verify(dev, va, len, seed) dev_verify_at(__FILE__, __LINE__, dev, va, len, seed, 0)
#define dev_verify_part(dev, va, at, len, seed)                                                    \
	dev_verify_at(__FILE__, __LINE__, dev, (va) + (at), len, seed, at)
void dev_verify_at(const char *file, int line, struct balun_device *dev, uint64_t va, uint64_t len,
		   uint64_t seed, uint64_t at);
void dev_fill(struct balun_device *dev, uint64_t va, uint64_t len, uint64_t seed);
/* and through a forked child */
#define child_verify(k, c, va, len, seed) child_verify_at(__FILE__, __LINE__, k, c, va, len, seed)
void child_verify_at(const char *file, int line, struct kit *k, struct kit_child *c, uint64_t va,
		     uint64_t len, uint64_t seed);

uint64_t cpu_read64(struct kit *k, uint64_t va);
void cpu_write64(struct kit *k, uint64_t va, uint64_t v);

/* balun_migrate() that must succeed; checks that the counts add up to the pages of the range */
#define kit_migrate(k, va, len, dev) kit_migrate_at(__FILE__, __LINE__, k, va, len, dev)
struct balun_counts kit_migrate_at(const char *file, int line, struct kit *k, uint64_t va,
				   uint64_t len, struct balun_device *dev);
/* the same, and every page must be there after it */
#define kit_move(k, va, len, dev) kit_move_at(__FILE__, __LINE__, k, va, len, dev)
void kit_move_at(const char *file, int line, struct kit *k, uint64_t va, uint64_t len,
		 struct balun_device *dev);
uint64_t kit_counts_sum(const struct balun_counts *c);

unsigned int kit_id(struct balun_device *dev); /* 0 for NULL */
uint64_t kit_mem_used(struct balun_device *dev);
/*
 * Waits until so much device memory is in use, at most 5 s. For cases in which a CPU touch brought
 * pages home: the touch goes on as soon as its page is there, the memory is freed and the stats are
 * counted a moment later by the thread that served it.
 */
#define kit_wait_used(dev, want) kit_wait_used_at(__FILE__, __LINE__, dev, want)
void kit_wait_used_at(const char *file, int line, struct balun_device *dev, uint64_t want);
uint64_t kit_mem_total(struct balun_device *dev);
struct balun_extent kit_query1(struct kit *k, uint64_t va);
/* pages of a range on a device */
uint64_t kit_resident(struct kit *k, uint64_t va, uint64_t len, struct balun_device *dev);
struct balun_stats kit_stats(struct kit *k);
uint64_t kit_sum(const uint64_t *by_cause);
/* every entry of the device's shadow table agrees with where the pages are (nothing else runs) */
#define kit_mirror(k, dev, va, len) kit_mirror_at(__FILE__, __LINE__, k, dev, va, len)
void kit_mirror_at(const char *file, int line, struct kit *k, struct balun_device *dev, uint64_t va,
		   uint64_t len);

uint64_t kit_now_ns(void);
uint64_t kit_random(uint64_t *state);
/* until the kernel says that thread @tid sleeps, or it has ended */
void kit_wait_asleep(long tid);
pthread_t kit_thread(void *(*fn)(void *), void *arg);
void kit_join(pthread_t t);

/* balun_migrate() in a thread of its own, for cases that look while it is in flight */
struct kit_mover {
	struct kit *k;
	uint64_t va, len;
	struct balun_device *dev;
	struct balun_counts counts;
	int rc;
	pthread_t t;
};
void kit_mover_start(struct kit_mover *m, struct kit *k, uint64_t va, uint64_t len,
		     struct balun_device *dev);
void kit_mover_end(struct kit_mover *m); /* the return value must be 0 or -EFAULT */

#endif
