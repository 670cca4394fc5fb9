/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: sim.h - the process that the "sim" engine simulates
 *
 * With engine "sim" the address space is a table: the CPU's loads, stores and memory calls are the
 * functions below (each is what the system call or instruction of that name would be), devices
 * reach it as they reach a real one. For tests of drivers and policies, on any machine, without
 * privileges. All return 0 or -errno; -EFAULT is what would be SIGSEGV, -EHWPOISON SIGBUS.
 * Any thread; every call may sleep.
 */
#ifndef BALUN_SIM_H
#define BALUN_SIM_H

#include "balun/balun.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BALUN_SIM_READ	 1u
#define BALUN_SIM_WRITE	 2u
#define BALUN_SIM_SHARED 4u /* shared or file memory: cannot migrate */

#define BALUN_SIM_DONTUNMAP 1u /* of balun_sim_mremap() */

/** balun_sim_mmap() - map [addr, addr + len) with BALUN_SIM_* flags; replaces what is there */
BALUN_API int balun_sim_mmap(struct balun_space *space, uint64_t addr, uint64_t len,
			     unsigned int flags);
/** balun_sim_munmap() - remove the mappings of [addr, addr + len) */
BALUN_API int balun_sim_munmap(struct balun_space *space, uint64_t addr, uint64_t len);
/**
 * balun_sim_mremap() - move pages; [to, to + new_len) is replaced, [from, from + len) unmapped
 * @flags: 0, or with equal lengths BALUN_SIM_DONTUNMAP: what is left behind stays mapped, as zeros
 *
 * A shorter @new_len drops the end; a longer one adds zeros with the last page's permissions.
 */
BALUN_API int balun_sim_mremap(struct balun_space *space, uint64_t from, uint64_t len, uint64_t to,
			       uint64_t new_len, unsigned int flags);
/** balun_sim_mprotect() - set the BALUN_SIM_READ and WRITE of mapped pages */
BALUN_API int balun_sim_mprotect(struct balun_space *space, uint64_t addr, uint64_t len,
				 unsigned int flags);
/** balun_sim_dontneed() - madvise(MADV_DONTNEED): reads as zeros */
BALUN_API int balun_sim_dontneed(struct balun_space *space, uint64_t addr, uint64_t len);
/** balun_sim_free() - madvise(MADV_FREE): what was there, or zeros, until it is written */
BALUN_API int balun_sim_free(struct balun_space *space, uint64_t addr, uint64_t len);
/** balun_sim_load() - a CPU reads; brings home what is away */
BALUN_API int balun_sim_load(struct balun_space *space, uint64_t addr, void *buf, size_t len);
/** balun_sim_store() - a CPU writes; brings home what is away */
BALUN_API int balun_sim_store(struct balun_space *space, uint64_t addr, const void *buf,
			      size_t len);

struct balun_sim_child;
/**
 * balun_sim_fork() - a copy of the whole address space, as a child would see it
 * @ret_child: for balun_sim_child_load(); ended by balun_sim_child_exit()
 */
BALUN_API int balun_sim_fork(struct balun_space *space, struct balun_sim_child **ret_child);
/** balun_sim_child_load() - the child reads: what was there at the fork */
BALUN_API int balun_sim_child_load(struct balun_sim_child *child, uint64_t addr, void *buf,
				   size_t len);
/** balun_sim_child_exit() - end the child; does not depend on the space */
BALUN_API void balun_sim_child_exit(struct balun_sim_child *child);

#ifdef __cplusplus
}
#endif
#endif
