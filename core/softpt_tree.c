// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The software page table: nodes, blocks and slots
 */
#include "core/softpt_tree.h"

static void *pt_alloc(struct softpt *pt, size_t size)
{
	void *p = env_alloc(size);

	if (p)
		pt->bytes += size;
	return p;
}

static void pt_free(struct softpt *pt, void *p, size_t size)
{
	if (p)
		pt->bytes -= size;
	env_free(p);
}

/* ---- slots ---- */

static int dir_grow(struct softpt *pt)
{
	uint32_t n = pt->ndir ? pt->ndir * 2 : 64;
	struct softpt_chunk **dir = pt_alloc(pt, n * sizeof(*dir));

	if (!dir)
		return -ENOMEM;
	if (pt->ndir)
		memcpy(dir, pt->dir, pt->ndir * sizeof(*dir));
	pt_free(pt, pt->dir, pt->ndir * sizeof(*dir));
	pt->dir = dir;
	pt->ndir = n;
	return 0;
}

static int chunk_add(struct softpt *pt)
{
	struct softpt_chunk *c;

	while (pt->dir_hint < pt->ndir && pt->dir[pt->dir_hint])
		pt->dir_hint++;
	if (pt->dir_hint == pt->ndir && dir_grow(pt))
		return -ENOMEM;
	c = pt_alloc(pt, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->no = pt->dir_hint;
	c->free = ~0ULL >> 1;
	pt->dir[c->no] = c;
	env_list_add_tail(&pt->chunks, &c->link);
	pt->free += CHUNK_SLOTS;
	return 0;
}

static void chunk_del(struct softpt *pt, struct softpt_chunk *c)
{
	env_list_del(&c->link);
	pt->dir[c->no] = NULL;
	pt->dir_hint = ENV_MIN(pt->dir_hint, c->no);
	pt->free -= CHUNK_SLOTS;
	pt_free(pt, c, sizeof(*c));
}

void softpt_slots_trim(struct softpt *pt)
{
	while (pt->free >= pt->reserved + 3 * CHUNK_SLOTS) {
		struct softpt_chunk *c =
			env_container_of(pt->chunks.prev, struct softpt_chunk, link);

		if (c->free != ~0ULL >> 1)
			return;
		chunk_del(pt, c);
	}
}

int softpt_slots_ensure(struct softpt *pt, unsigned int n)
{
	while (pt->free < pt->reserved + n)
		if (chunk_add(pt))
			return -ENOMEM;
	return 0;
}

uint32_t softpt_slot_get(struct softpt *pt)
{
	struct softpt_chunk *c = env_container_of(pt->chunks.next, struct softpt_chunk, link);
	unsigned int i;

	env_assert(pt->free);
	i = __builtin_ctzll(c->free);
	c->free &= c->free - 1;
	if (!c->free)
		env_list_del(&c->link);
	pt->free--;
	return c->no * 64 + i;
}

void softpt_slot_put(struct softpt *pt, uint32_t slot)
{
	struct softpt_chunk *c = pt->dir[slot / 64];
	bool was_full = !c->free;

	c->free |= 1ULL << (slot % 64);
	pt->free++;
	if (was_full) {
		env_list_add(&pt->chunks, &c->link);
	} else if (c->free == ~0ULL >> 1) {
		env_list_del(&c->link);
		env_list_add_tail(&pt->chunks, &c->link);
	}
}

/* ---- nodes and blocks ---- */

/* the leaf entry of a block, or NULL if there is no leaf node */
static void **leaf_entry(const struct softpt *pt, uint64_t index)
{
	struct softpt_node *n;

	n = pt->root.child[index >> 2 * NODE_BITS];
	n = n ? n->child[index >> NODE_BITS & (NODE_ENTRIES - 1)] : NULL;
	return n ? &n->child[index & (NODE_ENTRIES - 1)] : NULL;
}

struct softpt_block *softpt_block_find(const struct softpt *pt, uint64_t index)
{
	void **entry = leaf_entry(pt, index);

	return entry ? *entry : NULL;
}

/* first child in [i, end), or @end */
static unsigned int node_next(const struct softpt_node *n, unsigned int i, unsigned int end)
{
	while (i < end && !n->child[i])
		i++;
	return i;
}

struct softpt_block *softpt_block_next(const struct softpt *pt, uint64_t index, uint64_t end)
{
	while (index < end) {
		unsigned int shift = 2 * NODE_BITS;
		const struct softpt_node *n = &pt->root;

		for (;; shift -= NODE_BITS) {
			unsigned int at = index >> shift & (NODE_ENTRIES - 1);
			uint64_t left = ((end - 1) >> shift) - (index >> shift) + 1;
			unsigned int stop = ENV_MIN(NODE_ENTRIES, at + left);
			unsigned int i = node_next(n, at, stop);

			if (i != at)
				index = ((index >> shift) + (i - at)) << shift;
			if (i == stop)
				break; /* over, or on in the next node, from the root */
			if (!shift)
				return n->child[i];
			n = n->child[i];
		}
	}
	return NULL;
}

/* free the nodes on the way to @index that are empty */
static void nodes_prune(struct softpt *pt, uint32_t index)
{
	void **top = &pt->root.child[index >> 2 * NODE_BITS], **mid;
	struct softpt_node *n = *top;

	if (!n)
		return;
	mid = &n->child[index >> NODE_BITS & (NODE_ENTRIES - 1)];
	if (*mid) {
		if (node_next(*mid, 0, NODE_ENTRIES) != NODE_ENTRIES)
			return;
		pt_free(pt, *mid, sizeof(struct softpt_node));
		*mid = NULL;
	}
	if (node_next(n, 0, NODE_ENTRIES) != NODE_ENTRIES)
		return;
	pt_free(pt, n, sizeof(*n));
	*top = NULL;
}

void softpt_block_unpark(struct softpt *pt, struct softpt_block *b)
{
	if (!b->parked)
		return;
	pt->ring[b->parked - 1] = NULL;
	b->parked = 0;
}

void softpt_room_reserve(struct softpt *pt, struct softpt_block *b)
{
	if (b->roomy)
		return;
	b->roomy = true;
	pt->reserved += BLOCK_UNITS - b->nfrag;
}

static void room_release(struct softpt *pt, struct softpt_block *b)
{
	if (!b->roomy)
		return;
	b->roomy = false;
	pt->reserved -= BLOCK_UNITS - b->nfrag;
	softpt_slots_trim(pt);
}

/* a block leaves the ring at the back: nobody counts on its reservation any more */
static void block_expire(struct softpt *pt, struct softpt_block *b)
{
	softpt_block_unpark(pt, b);
	if (softpt_any(b->busy))
		return; /* in use again, and not settled yet */
	room_release(pt, b);
	if (softpt_any(b->away))
		return;
	*leaf_entry(pt, b->index) = NULL;
	nodes_prune(pt, b->index);
	pt_free(pt, b, sizeof(*b));
}

void softpt_block_settle(struct softpt *pt, struct softpt_block *b)
{
	bool park = !softpt_any(b->busy) && (b->roomy || !softpt_any(b->away));

	if (park == !!b->parked)
		return;
	if (!park) {
		softpt_block_unpark(pt, b);
		return;
	}
	if (pt->ring[pt->ring_next])
		block_expire(pt, pt->ring[pt->ring_next]);
	pt->ring[pt->ring_next] = b;
	pt->ring_next = (pt->ring_next + 1) % PARKED;
	b->parked = pt->ring_next ? pt->ring_next : PARKED;
}

/* the child of @n at @i, made if it is not there */
static void *child_get(struct softpt *pt, struct softpt_node *n, unsigned int i, size_t size)
{
	if (!n->child[i])
		n->child[i] = pt_alloc(pt, size);
	return n->child[i];
}

struct softpt_block *softpt_block_get(struct softpt *pt, uint32_t index)
{
	struct softpt_block *b = softpt_block_find(pt, index);
	struct softpt_node *n;

	if (b)
		return b;
	n = child_get(pt, &pt->root, index >> 2 * NODE_BITS, sizeof(*n));
	if (n)
		n = child_get(pt, n, index >> NODE_BITS & (NODE_ENTRIES - 1), sizeof(*n));
	if (n)
		b = child_get(pt, n, index & (NODE_ENTRIES - 1), sizeof(*b));
	if (!b) {
		nodes_prune(pt, index);
		return NULL;
	}
	b->index = index;
	return b;
}

void softpt_away_bits(const struct softpt *pt, uint64_t block, uint64_t *ret_bits)
{
	const struct softpt_block *b =
		softpt_block_find(pt, (block >> PT_PAGE_SHIFT) / BLOCK_PAGES);
	unsigned int i;

	for (i = 0; i < ENV_BITS_WORDS; i++)
		ret_bits[i] = b ? b->away[i] & ~b->busy[i] : 0;
}

/* ---- engine ops ---- */

uint64_t softpt_look_begin(void *e, uint64_t va)
{
	(void)e, (void)va;
	return 0;
}

bool softpt_look_changed(void *e, uint64_t va, uint64_t seq)
{
	(void)e, (void)va, (void)seq;
	return false;
}

int softpt_unshare(void *e, uint64_t va, uint64_t len)
{
	(void)e, (void)va, (void)len;
	return -EFAULT;
}

uint64_t softpt_evict_strays(void *e, unsigned int dev, uint64_t n)
{
	(void)e, (void)dev, (void)n;
	return 0;
}
