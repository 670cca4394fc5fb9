// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Bringing everything home: for a device that is closed, and before a fork. */
#include "core/core.h"

#define WAIT_NS 1000000ULL

/* what is on @dev of the @len bytes from a run's first on, whatever pins say; what became of that
 * page */
static enum engine_status home_run(struct balun_space *sp, unsigned int dev,
				   const struct engine_run *r, uint64_t len, enum balun_cause cause)
{
	struct core_move mv = {
		.va = r->va & ~(BALUN_BLOCK_SIZE - 1), .src = dev, .cause = cause, .force = true
	};
	struct balun_counts c = { 0 };

	mv.page = (r->va - mv.va) >> BALUN_PAGE_SHIFT;
	env_bits_set_range(mv.want, mv.page, len >> BALUN_PAGE_SHIFT);
	if (core_move_block(sp, &mv, &c) == -ENOMEM)
		return PAGE_NOMEM;
	return mv.page_status;
}

/*
 * Everything that is away on device @dev (0: any) comes home; nothing new may get there meanwhile.
 * Returns how many pages were lost: poisoned and counted.
 *
 * Bounded: what fails is taken page by page, so that what can come does; a page is lost when
 * its copy has failed CORE_HOME_TRIES times alone, and at once on a device that is lost. Lack of
 * memory for a frame is waited out, until nothing has come for CORE_DRAIN_NS. The search begins at
 * 0 each time: what is poisoned is not away any more, and mremap() may move pages backwards. A
 * coherent page that somebody else refers to may stay so for ever: where the engine can leave it,
 * the search goes on behind it, and it is left to evict_strays().
 */
uint64_t core_bring_home(struct balun_space *sp, unsigned int dev, enum balun_cause cause)
{
	uint64_t deadline = env_now_ns() + CORE_DRAIN_NS, last = UINT64_MAX, lost = 0, from = 0;
	unsigned int tries = 0;
	struct engine_run r;

	while (sp->engine->next_away(sp->e, dev, from, &r)) {
		/* with what else is away of the block: a search may look at all of a device */
		uint64_t len = BALUN_BLOCK_SIZE - (r.va & (BALUN_BLOCK_SIZE - 1));
		enum engine_status status;

		if (r.where == ENGINE_BUSY) {
			sp->engine->wait_idle(sp->e, r.va, CORE_DRAIN_NS);
			continue;
		}
		if (core_is_lost(sp, r.dev)) {
			lost += core_lose(sp, r.dev, r.va, r.len);
			continue;
		}
		if (r.va != last)
			tries = 0;
		last = r.va;
		status = home_run(sp, dev, &r, tries ? BALUN_PAGE_SIZE : len, cause);
		if (status == PAGE_MOVED) {
			deadline = env_now_ns() + CORE_DRAIN_NS;
			continue;
		}
		if (status == PAGE_BUSY && !(dev && r.cpu && sp->engine->held_stays))
			continue;
		if (status == PAGE_BUSY || status == PAGE_NOMEM)
			env_sleep_ns(WAIT_NS);
		if (status == PAGE_NOMEM && env_now_ns() < deadline)
			continue;
		if (tries++ < CORE_HOME_TRIES && !(status == PAGE_BUSY && env_now_ns() > deadline))
			continue;
		if (status == PAGE_BUSY) {
			from = r.va + BALUN_PAGE_SIZE;
			continue;
		}
		lost += core_lose(sp, r.dev, r.va, BALUN_PAGE_SIZE);
	}
	if (dev)
		sp->engine->evict_strays(sp->e, dev, UINT64_MAX);
	return lost;
}
