// SPDX-License-Identifier: GPL-2.0-only
/*
 * Coherent memory: ranges of physical addresses that the kernel does not use as memory (memmap= of
 * the kernel's command line keeps them from it; a CXL or HBM device has its own), given to the
 * module by its parameter. Handed out to drivers, first fit, as memory that CPUs and devices
 * address; the pages of programs that move there are made by device.c.
 */
#include <linux/io.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "engine/kernel/kernel.h"

#define RANGES 8

static char *coherent;
module_param(coherent, charp, 0444);
MODULE_PARM_DESC(coherent,
		 "coherent memory: SIZE@ADDRESS[,...], multiples of 2M, as memmap= writes it");

static struct {
	u64 start, end;
} ranges[RANGES];
static unsigned int nranges;
static bool parsed;

/* what is handed out, in the order of addresses */
struct chunk {
	struct list_head link;
	u64 start, end;
	void *p;
	unsigned int refs; /* the driver's, the device's */
};
static LIST_HEAD(chunks);
static DEFINE_MUTEX(lock);

static bool parse_one(char **at)
{
	u64 size = memparse(*at, at), start;

	if (**at != '@')
		return false;
	start = memparse(*at + 1, at);
	if (!size || size % SZ_2M || start % SZ_2M || start + size < start || nranges == RANGES)
		return false;
	if (region_intersects(start, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) !=
	    REGION_DISJOINT) {
		pr_err("balun: coherent=: %llx is memory of the system: keep it with memmap=\n",
		       start);
		return false;
	}
	ranges[nranges].start = start;
	ranges[nranges++].end = start + size;
	return true;
}

static void parse(void)
{
	char *at = coherent;

	parsed = true;
	while (at && *at) {
		if (!parse_one(&at) || (*at && *at++ != ',')) {
			pr_err("balun: coherent=: at \"%s\": SIZE@ADDRESS, multiples of 2M\n", at);
			return;
		}
	}
}

/* the lowest place for @len bytes in a range, and what it comes before; false: there is none */
static bool place(u64 start, u64 end, u64 len, u64 *ret_start, struct list_head **ret_before)
{
	struct chunk *c;

	list_for_each_entry(c, &chunks, link)
	{
		if (c->end <= start)
			continue;
		if (c->start >= end || c->start - start >= len)
			break;
		start = c->end;
	}
	*ret_start = start;
	*ret_before = &c->link;
	return start < end && end - start >= len;
}

static struct chunk *chunk_make(u64 len)
{
	struct chunk *c = kzalloc(sizeof(*c), GFP_KERNEL);
	struct list_head *before;
	unsigned int i;

	for (i = 0; c && i < nranges; i++) {
		if (!place(ranges[i].start, ranges[i].end, len, &c->start, &before))
			continue;
		c->end = c->start + len;
		c->p = memremap(c->start, len, MEMREMAP_WB);
		if (!c->p)
			break;
		c->refs = 1;
		list_add_tail(&c->link, before);
		return c;
	}
	kfree(c);
	return NULL;
}

static struct chunk *chunk_find(const void *p)
{
	struct chunk *c;

	list_for_each_entry(c, &chunks, link) if (c->p == p) return c;
	return NULL;
}

void *env_coherent_alloc(size_t bytes)
{
	struct chunk *c;
	size_t done;

	mutex_lock(&lock);
	if (!parsed)
		parse();
	c = chunk_make(round_up(bytes, SZ_2M));
	mutex_unlock(&lock);
	if (!c)
		return env_pages_alloc(bytes);
	/* a device may have hundreds of MiB: piece by piece */
	for (done = 0; done < bytes; done += min_t(size_t, SZ_2M, bytes - done)) {
		memset(c->p + done, 0, min_t(size_t, SZ_2M, bytes - done));
		cond_resched();
	}
	return c->p;
}

void env_coherent_free(void *p, size_t bytes)
{
	bool found;

	mutex_lock(&lock);
	found = chunk_find(p);
	mutex_unlock(&lock);
	if (found)
		kcoherent_put(p);
	else
		env_pages_free(p, bytes);
}

bool kcoherent_get(void *p, u64 *ret_phys)
{
	struct chunk *c;

	mutex_lock(&lock);
	c = chunk_find(p);
	if (c) {
		c->refs++;
		*ret_phys = c->start;
	}
	mutex_unlock(&lock);
	return c;
}

void kcoherent_put(void *p)
{
	struct chunk *c;

	mutex_lock(&lock);
	c = chunk_find(p);
	if (!--c->refs) {
		list_del(&c->link);
		memunmap(c->p);
		kfree(c);
	}
	mutex_unlock(&lock);
}
