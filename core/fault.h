/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: fault.h - what a device's fault (fault.c) and a CPU's (fault_cpu.c) ask: of the engine,
 * where the pages of the block are; of the policy, which of them are to come (question.c)
 */
#ifndef BALUN_CORE_FAULT_H
#define BALUN_CORE_FAULT_H

#include "core/core.h"

/* runs of the whole block, to w->run */
void core_describe_block(struct balun_space *sp, struct core_work *w, uint64_t block,
			 enum engine_detail detail, int *ret_n);
/* The question in w->question, whose @first, @npages, @write and @streak are there, to the policy;
 * w->answer names pages that may come. @dev: the device that faults, or 0. No locks. */
void core_ask(struct balun_space *sp, struct core_work *w, int nruns, uint64_t block,
	      unsigned int dev);
/* the same for a touch by a CPU where the engine can tell without runs: false, it cannot, and
 * nothing was asked */
bool core_ask_away(struct balun_space *sp, struct core_work *w, uint64_t block);
/* how many faults of @dev (0: CPUs) in a row were where the one before said, with this one at @va
 */
uint32_t core_streak(struct balun_space *sp, unsigned int dev, uint64_t va);
/* where the next fault of a streak will be, by w->question and w->answer */
void core_streak_note(struct balun_space *sp, const struct core_work *w, unsigned int dev);

static inline unsigned int core_run_first(const struct engine_run *r, uint64_t block)
{
	return (r->va - block) >> BALUN_PAGE_SHIFT;
}

#endif
