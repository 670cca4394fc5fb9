/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: policy.h - where should a page live?
 *
 * A policy is a pure function: it sees a question about one 2 MiB block and answers it; it keeps no
 * pointers, takes no locks, calls nothing of Balun. Core does what it says as far as memory allows.
 * Context: any thread, several at once, also the service thread that resolves CPU faults: it must
 * not sleep and must not touch mirrored memory (state of its own lives in static data).
 */
#ifndef BALUN_POLICY_H
#define BALUN_POLICY_H

#include "balun/balun.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BALUN_BITMAP_WORDS (BALUN_BLOCK_PAGES / 64)

#define BALUN_HINT_PREFERRED   (1u << 0) /* preferred is set */
#define BALUN_HINT_ACCESSED_BY (1u << 1) /* for the faulting device */
#define BALUN_HINT_READ_MOSTLY (1u << 2)

/**
 * struct balun_question - a fault
 * @size: sizeof(struct balun_question)
 * @va: start of the block
 * @first: page of the block that faulted (0..511)
 * @npages: how many from there (a CPU fault: 1)
 * @device: id of the faulting device; 0: a CPU
 * @from: id of the device that has the page; 0: none
 * @write: whether it wants to write
 * @hints: BALUN_HINT_* at the first page
 * @preferred: with BALUN_HINT_PREFERRED the id of the device, 0 for system memory
 * @streak: how many faults in a row of this faulter continued where the last answer ended
 * @thrashing: moves of the block to and fro within the thrashing window (design: 3 in 500 us)
 * @local: bitmap of the pages that are already where the faulter is (a CPU: in system memory)
 * @candidate: bitmap of the pages that could come (mapped, movable, not pinned, not there yet)
 */
struct balun_question {
	size_t size;
	uint64_t va;
	uint32_t first, npages, device, from, write, hints, preferred, streak, thrashing;
	uint64_t local[BALUN_BITMAP_WORDS], candidate[BALUN_BITMAP_WORDS];
};

/**
 * struct balun_answer - what to do
 * @stay: true: map it where it is (devices only; a CPU fault always comes home)
 * @fetch: pages to bring to the faulter; core adds the faulted ones and drops non-candidates
 */
struct balun_answer {
	bool stay;
	uint64_t fetch[BALUN_BITMAP_WORDS];
};

/**
 * struct balun_policy - a policy
 * @size: sizeof(struct balun_policy)
 * @name: for reports
 * @decide: answers a question; @ret_a is zeroed before the call
 */
struct balun_policy {
	size_t size;
	const char *name;
	void (*decide)(const struct balun_question *q, struct balun_answer *ret_a);
};

/**
 * balun_policy_default() - the built-in policy, to fall back on from one's own
 *
 * Stays for accessed-by, read-mostly reads, and blocks that thrash; else fetches: every faulted
 * 64 KiB is completed (not for a CPU that jumps about); then the largest power-of-two subtree
 * around the fault with strictly more than 51 % local or faulted (NVIDIA UVM's prefetch tree); a
 * streak doubles the window from 64 KiB to the whole block (CRIU's lazy-pages).
 */
BALUN_API void balun_policy_default(const struct balun_question *q, struct balun_answer *ret_a);

#ifdef __cplusplus
}
#endif
#endif
