/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What core has mapped on the probe, by address, and the address that each page of device
 * memory is mapped at: so a page that is mapped twice is seen when it happens.
 */
#include "probe_table.h"

#define ENTRY_VALID 8u

int table_init(struct probe_table *t, uint64_t mem_bytes)
{
	t->npages = mem_bytes / BALUN_PAGE_SIZE;
	t->owner = balun_mem_alloc(t->npages * sizeof(*t->owner));
	return t->owner ? 0 : -ENOMEM;
}

void table_fini(struct probe_table *t)
{
	unsigned int i;

	for (i = 0; i < TABLE_HASH; i++) {
		struct table_block *b = t->hash[i], *next;

		for (; b; b = next) {
			next = b->next;
			balun_mem_free(b, sizeof(*b));
		}
	}
	balun_mem_free(t->owner, t->npages * sizeof(*t->owner));
}

static struct table_block *table_find(const struct probe_table *t, uint64_t va)
{
	struct table_block *b = t->hash[(va >> BALUN_BLOCK_SHIFT) % TABLE_HASH];

	va &= ~(BALUN_BLOCK_SIZE - 1);
	while (b && b->va != va)
		b = b->next;
	return b;
}

static unsigned int table_index(uint64_t va)
{
	return va >> BALUN_PAGE_SHIFT & (BALUN_BLOCK_PAGES - 1);
}

static struct probe_entry table_decode(uint64_t w)
{
	struct probe_entry e = { 0 };

	if (!(w & ENTRY_VALID))
		return e;
	e.valid = true;
	e.perm = w & 7;
	e.kind = w >> 4 & 7;
	e.addr = w & ~(BALUN_PAGE_SIZE - 1);
	return e;
}

struct probe_entry table_get(const struct probe_table *t, uint64_t va)
{
	const struct table_block *b = table_find(t, va);

	return table_decode(b ? b->entry[table_index(va)] : 0);
}

static void table_drop(struct probe_table *t, struct table_block *b, unsigned int i)
{
	struct probe_entry e = table_decode(b->entry[i]);

	if (!e.valid)
		return;
	if (e.kind == BALUN_KIND_LOCAL)
		t->owner[e.addr >> BALUN_PAGE_SHIFT] = 0;
	b->entry[i] = 0;
	b->used--;
	t->entries--;
}

const char *table_set(struct probe_table *t, uint64_t va, const struct probe_entry *e)
{
	struct table_block *b = table_find(t, va);
	unsigned int i = table_index(va);

	if (!b) {
		struct table_block **head = &t->hash[(va >> BALUN_BLOCK_SHIFT) % TABLE_HASH];

		b = balun_mem_alloc(sizeof(*b));
		if (!b)
			return "the kit has no memory for its table";
		b->va = va & ~(BALUN_BLOCK_SIZE - 1);
		b->next = *head;
		*head = b;
	}
	table_drop(t, b, i);
	if (e->kind == BALUN_KIND_LOCAL) {
		uint64_t *owner = &t->owner[e->addr >> BALUN_PAGE_SHIFT];

		if (*owner)
			return "map: a page of device memory is mapped at two addresses";
		*owner = va;
	}
	b->entry[i] = e->addr | e->kind << 4 | ENTRY_VALID | e->perm;
	b->used++;
	t->entries++;
	return NULL;
}

/* calls @fn for each block that has entries in [va, va + len), which may be the whole space */
static void table_walk(const struct probe_table *t, uint64_t va, uint64_t len,
		       void (*fn)(struct probe_table *t, struct table_block *b, unsigned int from,
				  unsigned int to, void *arg),
		       void *arg)
{
	unsigned int h;

	for (h = 0; h < TABLE_HASH; h++) {
		struct table_block *b = t->hash[h];

		for (; b; b = b->next) {
			uint64_t from = va > b->va ? va : b->va;
			uint64_t end = b->va + BALUN_BLOCK_SIZE;

			if (va + len < end)
				end = va + len;
			if (from < end && b->used)
				fn((struct probe_table *)t, b, (from - b->va) >> BALUN_PAGE_SHIFT,
				   (end - b->va + BALUN_PAGE_SIZE - 1) >> BALUN_PAGE_SHIFT, arg);
		}
	}
}

static void clear_block(struct probe_table *t, struct table_block *b, unsigned int from,
			unsigned int to, void *arg)
{
	for (; from < to; from++)
		table_drop(t, b, from);
}

void table_clear(struct probe_table *t, uint64_t va, uint64_t len)
{
	table_walk(t, va, len, clear_block, NULL);
}

static void count_block(struct probe_table *t, struct table_block *b, unsigned int from,
			unsigned int to, void *arg)
{
	uint64_t *n = arg;

	for (; from < to; from++)
		*n += !!(b->entry[from] & ENTRY_VALID);
}

uint64_t table_count(const struct probe_table *t, uint64_t va, uint64_t len)
{
	uint64_t n = 0;

	table_walk(t, va, len, count_block, &n);
	return n;
}
