// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What a fault asks: where the pages of a block are, and which of them are to come */
#include "core/fault.h"

void core_describe_block(struct balun_space *sp, struct core_work *w, uint64_t block,
			 enum engine_detail detail, int *ret_n)
{
	uint64_t va = block, end = block + BALUN_BLOCK_SIZE;
	int n = 0;

	while (va < end && n < (int)BALUN_BLOCK_PAGES) {
		n += sp->engine->describe(sp->e, va, end - va, detail, &w->run[n],
					  BALUN_BLOCK_PAGES - n);
		va = w->run[n - 1].va + w->run[n - 1].len;
	}
	*ret_n = n;
}

/* all but where the pages are */
static void ask_begin(struct balun_space *sp, struct core_work *w, uint64_t block, unsigned int dev)
{
	struct balun_question *q = &w->question;
	struct hint h;

	hint_get(sp->hints, block + ((uint64_t)q->first << BALUN_PAGE_SHIFT), &h);
	q->size = sizeof(*q);
	q->va = block;
	q->device = dev;
	q->hints = h.flags;
	q->preferred = h.preferred;
	if (dev && h.accessed_by >> dev & 1)
		q->hints |= BALUN_HINT_ACCESSED_BY;
	q->thrashing = core_thrash_level(sp, block);
}

static void ask_policy(struct balun_space *sp, struct core_work *w)
{
	struct balun_question *q = &w->question;
	env_bits pinned = { 0 };
	int i;

	hint_pinned(sp->hints, q->va, pinned);
	for (i = 0; i < ENV_BITS_WORDS; i++)
		q->candidate[i] &= ~pinned[i];
	memset(&w->answer, 0, sizeof(w->answer));
	sp->policy->decide(q, &w->answer);
	for (i = 0; i < ENV_BITS_WORDS; i++)
		w->answer.fetch[i] &= q->candidate[i];
}

void core_ask(struct balun_space *sp, struct core_work *w, int nruns, uint64_t block,
	      unsigned int dev)
{
	struct balun_question *q = &w->question;
	int i;

	ask_begin(sp, w, block, dev);
	memset(q->local, 0, sizeof(q->local));
	memset(q->candidate, 0, sizeof(q->candidate));
	q->from = 0;
	for (i = 0; i < nruns; i++) {
		const struct engine_run *r = &w->run[i];
		unsigned int a = core_run_first(r, block), n = r->len >> BALUN_PAGE_SHIFT;
		bool away = r->where == ENGINE_DEVICE && (dev || !r->cpu);
		bool local = dev ? away && r->dev == dev : r->mapped && !away;

		if (r->where == ENGINE_DEVICE && a <= q->first && q->first < a + n)
			q->from = r->dev;
		if (local)
			env_bits_set_range(q->local, a, n);
		else if (dev ? r->mapped && r->movable && r->where != ENGINE_BUSY : away)
			env_bits_set_range(q->candidate, a, n);
	}
	ask_policy(sp, w);
}

bool core_ask_away(struct balun_space *sp, struct core_work *w, uint64_t block)
{
	struct balun_question *q = &w->question;
	int i;

	if (!sp->engine->away || !sp->engine->away(sp->e, block, q->first, q->candidate, &q->from))
		return false;
	ask_begin(sp, w, block, 0);
	for (i = 0; i < ENV_BITS_WORDS; i++)
		q->local[i] = ~q->candidate[i];
	ask_policy(sp, w);
	return true;
}

/* the first page after the fault that is not here */
void core_streak_note(struct balun_space *sp, const struct core_work *w, unsigned int dev)
{
	const struct balun_question *q = &w->question;
	unsigned int i = q->first;

	while (i < BALUN_BLOCK_PAGES && (env_bit(w->answer.fetch, i) || env_bit(q->local, i)))
		i++;
	env_store_relaxed(&sp->streak_next[dev], q->va + ((uint64_t)i << BALUN_PAGE_SHIFT));
}

uint32_t core_streak(struct balun_space *sp, unsigned int dev, uint64_t va)
{
	uint32_t n = env_load_relaxed(&sp->streak[dev]);

	n = env_load_relaxed(&sp->streak_next[dev]) == va ? n + 1 : 0;
	env_store_relaxed(&sp->streak[dev], n);
	return n;
}
