// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The software page table: pages and the interface
 *
 * A block is found under three levels of nodes by its index (address / 2 MiB). Its 512 pages are 32
 * units of 16. A unit's word is the place that its page 0 has or would have, modulo 2^32, so that
 * page i is at word + i; where the pages do not lie so, the unit is fragmented and its word is the
 * number of a slot with 16 places. Slots come from chunks of 4 KiB that all blocks share.
 *
 * What bounds the memory under churn: a block that is left without away or busy pages is parked in
 * place, in a ring of PARKED; it is freed, with the nodes that this empties, when PARKED others
 * were parked after it. So a block that goes to and fro allocates nothing. A block with reserved
 * slots is parked too while nothing of it is busy, and loses the reservation in the same way. A
 * chunk of slots is freed when it is empty and two more are to spare.
 */
#include "core/softpt_tree.h"

/* ---- the pages of one block: [from, to) ---- */

static uint64_t word_mask(unsigned int w, unsigned int from, unsigned int to)
{
	uint64_t m = ~0ULL;

	if (from > w * 64)
		m &= ~0ULL << (from - w * 64);
	if (to < w * 64 + 64)
		m &= ~0ULL >> (w * 64 + 64 - to);
	return m;
}

static void pages_set(uint64_t *bits, unsigned int from, unsigned int to)
{
	unsigned int w;

	for (w = from / 64; w * 64 < to; w++)
		bits[w] |= word_mask(w, from, to);
}

static void pages_clear(uint64_t *bits, unsigned int from, unsigned int to)
{
	unsigned int w;

	for (w = from / 64; w * 64 < to; w++)
		bits[w] &= ~word_mask(w, from, to);
}

/* bit per away page of a unit */
static unsigned int unit_away(const struct softpt_block *b, unsigned int u)
{
	return b->away[u / 4] >> (u % 4 * UNIT_PAGES) & 0xffff;
}

static bool unit_fragmented(const struct softpt_block *b, unsigned int u)
{
	return b->frag >> u & 1;
}

/* a unit gives its slot back; its word is the caller's to set */
static void unit_drop_slot(struct softpt *pt, struct softpt_block *b, unsigned int u)
{
	b->frag &= ~(1u << u);
	b->nfrag--;
	softpt_slot_put(pt, b->unit[u]);
	if (b->roomy)
		pt->reserved++;
	else
		softpt_slots_trim(pt);
}

/* a unit's pages will not lie in natural order: there is a slot for it */
static void unit_split(struct softpt *pt, struct softpt_block *b, unsigned int u)
{
	uint32_t slot = softpt_slot_get(pt);
	uint32_t *place = softpt_slot(pt, slot);
	unsigned int i;

	for (i = 0; i < UNIT_PAGES; i++)
		place[i] = b->unit[u] + i;
	b->unit[u] = slot;
	b->frag |= 1u << u;
	b->nfrag++;
	if (b->roomy)
		pt->reserved--;
}

/* if the away pages of a fragmented unit lie in natural order now, it needs no slot */
static void unit_join(struct softpt *pt, struct softpt_block *b, unsigned int u, unsigned int away)
{
	const uint32_t *place = softpt_slot(pt, b->unit[u]);
	unsigned int i = __builtin_ctz(away);
	uint32_t base = place[i] - i;

	while (++i < UNIT_PAGES)
		if (away >> i & 1 && place[i] - i != base)
			return;
	unit_drop_slot(pt, b, u);
	b->unit[u] = base;
}

static unsigned int unit_mask(unsigned int from, unsigned int to)
{
	return (0xffffu >> (UNIT_PAGES - (to - from))) << from % UNIT_PAGES;
}

/* before the away bits of [from, to), which is inside the unit, are set */
static void unit_set(struct softpt *pt, struct softpt_block *b, unsigned int from, unsigned int to,
		     uint32_t place)
{
	unsigned int u = from / UNIT_PAGES, at = from % UNIT_PAGES;
	unsigned int mask = unit_mask(from, to), others = unit_away(b, u) & ~mask;
	uint32_t *slot;

	if (!others) {
		if (unit_fragmented(b, u))
			unit_drop_slot(pt, b, u);
		b->unit[u] = place - at;
		return;
	}
	if (!unit_fragmented(b, u)) {
		if (b->unit[u] == place - at)
			return;
		unit_split(pt, b, u);
	}
	slot = softpt_slot(pt, b->unit[u]);
	for (; from < to; from++)
		slot[at++] = place++;
	unit_join(pt, b, u, others | mask);
}

static void block_set_away(struct softpt *pt, struct softpt_block *b, unsigned int from,
			   unsigned int to, uint32_t place)
{
	unsigned int lo, hi;

	for (lo = from; lo < to; lo = hi) {
		hi = ENV_MIN(to, (lo / UNIT_PAGES + 1) * UNIT_PAGES);
		unit_set(pt, b, lo, hi, place + (lo - from));
	}
	pages_set(b->away, from, to);
}

static void block_clear_away(struct softpt *pt, struct softpt_block *b, unsigned int from,
			     unsigned int to)
{
	unsigned int first = from / UNIT_PAGES, last = (to - 1) / UNIT_PAGES;
	uint32_t frag = b->frag & (~0u << first) & (~0u >> (BLOCK_UNITS - 1 - last));

	pages_clear(b->away, from, to);
	for (; frag; frag &= frag - 1) {
		unsigned int u = __builtin_ctz(frag);

		if (!unit_away(b, u))
			unit_drop_slot(pt, b, u);
	}
}

/* whether block_set_away() of [from, to) takes a slot for the unit of @page, an end of the range */
static bool needs_slot(const struct softpt_block *b, unsigned int page, unsigned int from,
		       unsigned int to, uint32_t place)
{
	unsigned int u = page / UNIT_PAGES, start = u * UNIT_PAGES;
	unsigned int lo = ENV_MAX(from, start), hi = ENV_MIN(to, start + UNIT_PAGES);

	return !unit_fragmented(b, u) && unit_away(b, u) & ~unit_mask(lo, hi) &&
	       b->unit[u] != place + (start - from);
}

static uint32_t place_of(const struct softpt *pt, const struct softpt_block *b, unsigned int i)
{
	unsigned int u = i / UNIT_PAGES;

	if (unit_fragmented(b, u))
		return softpt_slot(pt, b->unit[u])[i % UNIT_PAGES];
	return b->unit[u] + i % UNIT_PAGES;
}

/* first page >= @i that is not just so, or BLOCK_PAGES */
static unsigned int state_end(const struct softpt_block *b, unsigned int i, bool away, bool busy)
{
	uint64_t flip_away = away ? ~0ULL : 0, flip_busy = busy ? ~0ULL : 0;
	uint64_t mask = ~0ULL << i % 64;
	unsigned int w;

	for (w = i / 64; w < ENV_BITS_WORDS; w++, mask = ~0ULL) {
		uint64_t d = ((b->away[w] ^ flip_away) | (b->busy[w] ^ flip_busy)) & mask;

		if (d)
			return w * 64 + __builtin_ctzll(d);
	}
	return BLOCK_PAGES;
}

/* first page in [i, end), all away, that does not go on at consecutive places from @place */
static unsigned int place_end(const struct softpt *pt, const struct softpt_block *b, unsigned int i,
			      unsigned int end, uint32_t place)
{
	while (i < end) {
		unsigned int u = i / UNIT_PAGES, stop = ENV_MIN(end, (u + 1) * UNIT_PAGES);

		if (!unit_fragmented(b, u)) {
			if (b->unit[u] + i % UNIT_PAGES != place)
				return i;
			place += stop - i;
			i = stop;
			continue;
		}
		for (; i < stop; i++, place++)
			if (softpt_slot(pt, b->unit[u])[i % UNIT_PAGES] != place)
				return i;
	}
	return end;
}

/* ---- the interface ---- */

struct softpt *softpt_create(void)
{
	struct softpt *pt = env_alloc(sizeof(*pt));

	if (!pt)
		return NULL;
	pt->bytes = sizeof(*pt);
	env_list_init(&pt->chunks);
	return pt;
}

static void node_destroy(struct softpt_node *n, unsigned int level)
{
	unsigned int i;

	for (i = 0; i < NODE_ENTRIES; i++) {
		if (n->child[i] && level)
			node_destroy(n->child[i], level - 1);
		env_free(n->child[i]);
	}
}

void softpt_destroy(struct softpt *pt)
{
	uint32_t i;

	if (!pt)
		return;
	node_destroy(&pt->root, 2);
	for (i = 0; i < pt->ndir; i++)
		env_free(pt->dir[i]);
	env_free(pt->dir);
	env_free(pt);
}

uint64_t softpt_bytes(const struct softpt *pt)
{
	return pt->bytes;
}

/* a part of a range that lies in one block */
struct part {
	uint32_t index;	       /* of the block */
	unsigned int from, to; /* pages of it */
};

/* the part at the start of [*page, end), which is not empty and loses it */
static struct part part_take(uint64_t *page, uint64_t end)
{
	struct part p;

	p.index = *page / BLOCK_PAGES;
	p.from = *page % BLOCK_PAGES;
	p.to = ENV_MIN(end - *page, BLOCK_PAGES - p.from) + p.from;
	*page += p.to - p.from;
	return p;
}

/* the first part of [*page, end) whose block there is; NULL: there is none */
static struct softpt_block *part_take_block(const struct softpt *pt, uint64_t *page, uint64_t end,
					    struct part *ret)
{
	uint64_t stop = (end + BLOCK_PAGES - 1) / BLOCK_PAGES;
	struct softpt_block *b;

	b = *page < end ? softpt_block_next(pt, *page / BLOCK_PAGES, stop) : NULL;
	if (b)
		*page = ENV_MAX(*page, (uint64_t)b->index * BLOCK_PAGES);
	*ret = part_take(page, end);
	return b;
}

/* pages of a range, what is beyond the table cut off; whole pages only */
static uint64_t range_pages(uint64_t va, uint64_t len, uint64_t *ret_end)
{
	uint64_t page = va >> PT_PAGE_SHIFT;

	env_assert(!((va | len) & ((1u << PT_PAGE_SHIFT) - 1)));
	*ret_end = page >= TABLE_PAGES ? page
				       : page + ENV_MIN(len >> PT_PAGE_SHIFT, TABLE_PAGES - page);
	return page;
}

/* how many of at most @max pages from @page are as @r says */
static uint64_t run_pages(const struct softpt *pt, uint64_t page, uint64_t max,
			  const struct softpt_run *r)
{
	uint64_t end = ENV_MIN(max, TABLE_PAGES - ENV_MIN(page, TABLE_PAGES)) + page, n = 0;

	while (page + n < end) {
		const struct softpt_block *b = softpt_block_find(pt, (page + n) / BLOCK_PAGES);
		unsigned int i = (page + n) % BLOCK_PAGES, stop;

		if (!b) {
			if (r->away || r->busy)
				return n;
			b = softpt_block_next(pt, (page + n) / BLOCK_PAGES,
					      (end + BLOCK_PAGES - 1) / BLOCK_PAGES);
			n = b ? (uint64_t)b->index * BLOCK_PAGES - page : max;
			continue;
		}
		stop = state_end(b, i, r->away, r->busy);
		if (r->away)
			stop = place_end(pt, b, i, stop, r->place + (uint32_t)n);
		n += stop - i;
		if (stop < BLOCK_PAGES)
			return ENV_MIN(n, max);
	}
	return r->away || r->busy ? ENV_MIN(n, max) : max;
}

void softpt_run(const struct softpt *pt, uint64_t va, uint64_t len, struct softpt_run *ret)
{
	uint64_t page = va >> PT_PAGE_SHIFT, max = len >> PT_PAGE_SHIFT;
	unsigned int i = page % BLOCK_PAGES;
	const struct softpt_block *b =
		page < TABLE_PAGES ? softpt_block_find(pt, page / BLOCK_PAGES) : NULL;

	ret->va = va;
	ret->away = b && env_bit(b->away, i);
	ret->busy = b && env_bit(b->busy, i);
	ret->place = 0;
	if (ret->away) {
		ret->place = place_of(pt, b, i);
		max = ENV_MIN(max, DEVICE_PAGES - SOFTPT_PGNO(ret->place));
	}
	ret->len = run_pages(pt, page, max, ret) << PT_PAGE_SHIFT;
}

static bool next_run(const struct softpt *pt, uint64_t va, uint64_t end, bool busy,
		     struct softpt_run *ret)
{
	uint64_t page = va >> PT_PAGE_SHIFT, stop = ENV_MIN(end >> PT_PAGE_SHIFT, TABLE_PAGES);
	const struct softpt_block *b;
	struct part p;

	while ((b = part_take_block(pt, &page, stop, &p))) {
		unsigned int i = env_bits_next(busy ? b->busy : b->away, p.from, true);

		if (i >= p.to)
			continue;
		va = ((uint64_t)b->index * BLOCK_PAGES + i) << PT_PAGE_SHIFT;
		softpt_run(pt, va, (stop << PT_PAGE_SHIFT) - va, ret);
		return true;
	}
	return false;
}

bool softpt_next_away(const struct softpt *pt, uint64_t va, uint64_t end, struct softpt_run *ret)
{
	return next_run(pt, va, end, false, ret);
}

bool softpt_next_busy(const struct softpt *pt, uint64_t va, uint64_t end, struct softpt_run *ret)
{
	return next_run(pt, va, end, true, ret);
}

int softpt_reserve(struct softpt *pt, uint64_t va, bool fragmented)
{
	struct softpt_block *b;

	env_assert(va >> SOFTPT_VA_BITS == 0);
	b = softpt_block_get(pt, (va >> PT_PAGE_SHIFT) / BLOCK_PAGES);
	if (!b)
		return -ENOMEM;
	if (fragmented && !b->roomy) {
		if (softpt_slots_ensure(pt, BLOCK_UNITS - b->nfrag)) {
			softpt_block_settle(pt, b);
			return -ENOMEM;
		}
		softpt_room_reserve(pt, b);
	}
	softpt_block_unpark(pt, b); /* to the front of the ring */
	softpt_block_settle(pt, b);
	return 0;
}

/* park the blocks of a range that are empty */
static void settle_range(struct softpt *pt, uint64_t page, uint64_t end)
{
	struct softpt_block *b;
	struct part p;

	while ((b = part_take_block(pt, &page, end, &p)))
		softpt_block_settle(pt, b);
}

/* all blocks of a range are there; they are not settled */
static int get_blocks(struct softpt *pt, uint64_t page, uint64_t end)
{
	uint64_t at = page;

	while (at < end) {
		if (!softpt_block_get(pt, part_take(&at, end).index)) {
			settle_range(pt, page, at);
			return -ENOMEM;
		}
	}
	return 0;
}

/* slots that setting [page, end) away at @place takes */
static unsigned int count_slots(const struct softpt *pt, uint64_t page, uint64_t end,
				uint32_t place)
{
	unsigned int n = 0;

	while (page < end) {
		struct part p = part_take(&page, end);
		const struct softpt_block *b = softpt_block_find(pt, p.index);

		if (!b->roomy) {
			n += needs_slot(b, p.from, p.from, p.to, place);
			if ((p.to - 1) / UNIT_PAGES != p.from / UNIT_PAGES)
				n += needs_slot(b, p.to - 1, p.from, p.to, place);
		}
		place += p.to - p.from;
	}
	return n;
}

static void set_away(struct softpt *pt, uint64_t page, uint64_t end, uint32_t place)
{
	while (page < end) {
		struct part p = part_take(&page, end);

		block_set_away(pt, softpt_block_find(pt, p.index), p.from, p.to, place);
		place += p.to - p.from;
	}
}

int softpt_set_away(struct softpt *pt, uint64_t va, uint64_t len, uint32_t place)
{
	uint64_t end, page = range_pages(va, len, &end);

	env_assert(end - page == len >> PT_PAGE_SHIFT && SOFTPT_DEV(place));
	if (get_blocks(pt, page, end))
		return -ENOMEM;
	if (softpt_slots_ensure(pt, count_slots(pt, page, end, place))) {
		settle_range(pt, page, end);
		return -ENOMEM;
	}
	set_away(pt, page, end, place);
	settle_range(pt, page, end);
	return 0;
}

void softpt_clear_away(struct softpt *pt, uint64_t va, uint64_t len)
{
	uint64_t end, page = range_pages(va, len, &end);
	struct softpt_block *b;
	struct part p;

	while ((b = part_take_block(pt, &page, end, &p))) {
		block_clear_away(pt, b, p.from, p.to);
		softpt_block_settle(pt, b);
	}
}

int softpt_set_busy(struct softpt *pt, uint64_t va, uint64_t len)
{
	uint64_t end, page = range_pages(va, len, &end);

	env_assert(end - page == len >> PT_PAGE_SHIFT);
	if (get_blocks(pt, page, end))
		return -ENOMEM;
	while (page < end) {
		struct part p = part_take(&page, end);
		struct softpt_block *b = softpt_block_find(pt, p.index);

		pages_set(b->busy, p.from, p.to);
		softpt_block_settle(pt, b);
	}
	return 0;
}

void softpt_clear_busy(struct softpt *pt, uint64_t va, uint64_t len)
{
	uint64_t end, page = range_pages(va, len, &end);
	struct softpt_block *b;
	struct part p;

	while ((b = part_take_block(pt, &page, end, &p))) {
		pages_clear(b->busy, p.from, p.to);
		softpt_block_settle(pt, b);
	}
}

/* next run at or after *page with any state; *page becomes its end */
static bool next_state(const struct softpt *pt, uint64_t *page, uint64_t end,
		       struct softpt_run *ret)
{
	while (*page < end) {
		softpt_run(pt, *page << PT_PAGE_SHIFT, (end - *page) << PT_PAGE_SHIFT, ret);
		*page += ret->len >> PT_PAGE_SHIFT;
		if (ret->away || ret->busy)
			return true;
	}
	return false;
}

/*
 * Blocks and slots that [page, end) needs at @shift pages further on, where nothing is away by
 * then. Only a unit where a run begins or ends can become fragmented, and each counts once. A block
 * that gets busy pages gets the reservation that they had where they were.
 * The slots are reserved: the caller takes *ret_slots off again.
 */
static int remap_prepare(struct softpt *pt, uint64_t page, uint64_t end, uint64_t shift,
			 unsigned int *ret_slots)
{
	uint64_t last_unit = ~0ULL, next_block = 0;
	unsigned int n = 0;
	struct softpt_run r;

	while (next_state(pt, &page, end, &r)) {
		uint64_t to = (r.va >> PT_PAGE_SHIFT) + shift, len = r.len >> PT_PAGE_SHIFT;
		uint64_t first = to / UNIT_PAGES, last = (to + len - 1) / UNIT_PAGES;

		if (get_blocks(pt, to, to + len))
			return -ENOMEM;
		n += (first != last_unit) + (last != first);
		last_unit = last;
		first = ENV_MAX(first / BLOCK_UNITS, next_block);
		if (r.busy && first <= last / BLOCK_UNITS) {
			next_block = last / BLOCK_UNITS + 1;
			n += (next_block - first) * BLOCK_UNITS;
		}
	}
	if (softpt_slots_ensure(pt, n))
		return -ENOMEM;
	pt->reserved += n;
	*ret_slots = n;
	return 0;
}

/* copy the state of [page, end) to @shift pages further on, where there is none */
static void remap_copy(struct softpt *pt, uint64_t page, uint64_t end, uint64_t shift)
{
	struct softpt_run r;

	while (next_state(pt, &page, end, &r)) {
		uint64_t to = (r.va >> PT_PAGE_SHIFT) + shift;
		uint64_t to_end = to + (r.len >> PT_PAGE_SHIFT);

		if (r.away)
			set_away(pt, to, to_end, r.place);
		while (r.busy && to < to_end) {
			struct part p = part_take(&to, to_end);
			struct softpt_block *b = softpt_block_find(pt, p.index);

			pages_set(b->busy, p.from, p.to);
			softpt_room_reserve(pt, b);
		}
	}
}

int softpt_remap(struct softpt *pt, uint64_t from, uint64_t to, uint64_t len)
{
	uint64_t to_end, to_page = range_pages(to, len, &to_end), at = to_page;
	uint64_t end, page = range_pages(from, len, &end);
	uint64_t shift = to_page - page; /* modulo 2^64 */
	unsigned int slots;
	struct softpt_block *b;
	struct part p;

	env_assert(to_end - to_page == len >> PT_PAGE_SHIFT && end - page == to_end - to_page);
	env_assert(from + len <= to || to + len <= from);
	if (remap_prepare(pt, page, end, shift, &slots)) {
		settle_range(pt, to_page, to_end);
		return -ENOMEM;
	}
	/* no settling before the end: the blocks that were got must stay */
	while ((b = part_take_block(pt, &at, to_end, &p))) {
		block_clear_away(pt, b, p.from, p.to);
		pages_clear(b->busy, p.from, p.to);
	}
	remap_copy(pt, page, end, shift);
	pt->reserved -= slots;
	softpt_clear_away(pt, from, len);
	softpt_clear_busy(pt, from, len);
	settle_range(pt, to_page, to_end);
	softpt_slots_trim(pt);
	return 0;
}
