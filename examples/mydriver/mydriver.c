// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: mydriver - a driver outside the tree
 *
 * A device with private memory, a memory manager of its own (BALUN_CAP_ALLOC) and an MMU
 * (BALUN_CAP_MMU). The MMU translates for nobody: it is there to show how map and unmap are kept
 * exact, and it asserts that they are:
 *
 * - an entry names device memory that is allocated, and no two entries name the same page;
 * - memory is freed only after the entry that named it is gone;
 * - nothing on the device is mapped when a space leaves, nothing is allocated at the end.
 *
 * What it cannot do: compute, reach its peers' memory, or be reached by them.
 *
 * All it touches comes from balun_mem_alloc(). malloc() would be wrong here: that memory may be
 * away, on this very device, at the moment an op needs it.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <balun/driver.h>

#define PAGE_NR(bytes) ((bytes) >> BALUN_PAGE_SHIFT)
#define HASH_SIZE      256

/* a page of device memory */
struct my_page {
	uint64_t mapped_at; /* address of the entry that names it, or 0 */
	bool used;
};

struct my_dev {
	struct balun_device *dev;
	pthread_mutex_t lock; /* pages, tables; nothing is waited for under it */
	char *mem;
	uint64_t bytes, used;
	uint64_t low; /* no page below it is free */
	struct my_page *page;
};

/* A page-table entry is a page-aligned address with kind and permissions below it; 0 is none. */
#define PTE_KIND(pte) ((pte) >> 3 & 3)
#define PTE_ADDR(pte) ((pte) & ~(BALUN_PAGE_SIZE - 1))

/* the entries of one block of addresses */
struct my_block {
	struct my_block *next;
	uint64_t va;
	unsigned int present;
	uint64_t pte[BALUN_BLOCK_PAGES];
};

/* the page table of one space */
struct my_table {
	struct my_block *hash[HASH_SIZE];
};

/* ---- the memory manager: first fit over an array of pages ---- */

static bool my_fits(const struct my_dev *my, uint64_t first, uint64_t n)
{
	uint64_t i;

	for (i = first; i < first + n; i++)
		if (my->page[i].used)
			return false;
	return true;
}

static int my_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	struct my_dev *my = priv;
	uint64_t n = PAGE_NR(len), first, i;

	pthread_mutex_lock(&my->lock);
	for (first = my->low / n * n; first + n <= PAGE_NR(my->bytes); first += n)
		if (my_fits(my, first, n))
			break;
	if (first + n > PAGE_NR(my->bytes)) {
		pthread_mutex_unlock(&my->lock);
		return -ENOMEM; /* core evicts something and asks again */
	}
	for (i = first; i < first + n; i++)
		my->page[i].used = true;
	my->used += len;
	while (my->low < PAGE_NR(my->bytes) && my->page[my->low].used)
		my->low++;
	pthread_mutex_unlock(&my->lock);
	*ret_off = first << BALUN_PAGE_SHIFT;
	return 0;
}

/* any part of what was allocated: core gives pages back as they leave */
static void my_free(void *priv, uint64_t off, uint64_t len)
{
	struct my_dev *my = priv;
	uint64_t i;

	pthread_mutex_lock(&my->lock);
	for (i = PAGE_NR(off); i < PAGE_NR(off + len); i++) {
		assert(my->page[i].used);
		assert(!my->page[i].mapped_at);
		my->page[i].used = false;
	}
	my->used -= len;
	if (PAGE_NR(off) < my->low)
		my->low = PAGE_NR(off);
	pthread_mutex_unlock(&my->lock);
}

/* ---- the MMU: a hash of blocks; my->lock held ---- */

static struct my_block **my_bucket(struct my_table *t, uint64_t va)
{
	return &t->hash[(va >> BALUN_BLOCK_SHIFT) % HASH_SIZE];
}

static struct my_block *my_find(struct my_table *t, uint64_t va)
{
	uint64_t start = va & ~(BALUN_BLOCK_SIZE - 1);
	struct my_block *b = *my_bucket(t, va);

	while (b && b->va != start)
		b = b->next;
	return b;
}

static struct my_block *my_find_or_make(struct my_table *t, uint64_t va)
{
	struct my_block *b = my_find(t, va);

	if (b)
		return b;
	b = balun_mem_alloc(sizeof(*b));
	if (!b)
		return NULL;
	b->va = va & ~(BALUN_BLOCK_SIZE - 1);
	b->next = *my_bucket(t, va);
	*my_bucket(t, va) = b;
	return b;
}

static void my_drop(struct my_table *t, struct my_block *b)
{
	struct my_block **p = my_bucket(t, b->va);

	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	balun_mem_free(b, sizeof(*b));
}

/* replace one entry, and keep what is known of the device page it names */
static void my_set(struct my_dev *my, struct my_block *b, uint64_t va, uint64_t pte)
{
	uint64_t *slot = &b->pte[PAGE_NR(va - b->va)];
	struct my_page *page;

	if (*slot && PTE_KIND(*slot) == BALUN_KIND_LOCAL) {
		page = &my->page[PAGE_NR(PTE_ADDR(*slot))];
		assert(page->mapped_at == va);
		page->mapped_at = 0;
	}
	if (pte && PTE_KIND(pte) == BALUN_KIND_LOCAL) {
		page = &my->page[PAGE_NR(PTE_ADDR(pte))];
		assert(PTE_ADDR(pte) < my->bytes && page->used);
		assert(!page->mapped_at);
		page->mapped_at = va;
	}
	b->present += !!pte - !!*slot;
	*slot = pte;
}

static int my_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	struct my_dev *my = priv;
	struct my_table *t = balun_space_data(space, my->dev);
	struct my_block *b;
	uint64_t off;
	size_t i;

	pthread_mutex_lock(&my->lock);
	b = my_find_or_make(t, seg[0].va); /* all segments are in one block */
	if (!b) {
		pthread_mutex_unlock(&my->lock);
		return -ENOMEM;
	}
	for (i = 0; i < n; i++) {
		assert(seg[i].va >= b->va && seg[i].va + seg[i].len <= b->va + BALUN_BLOCK_SIZE);
		assert(seg[i].perm & BALUN_PERM_READ && seg[i].perm < 8);
		/* a page may move from one of the segments to another: first all old ones go */
		for (off = 0; off < seg[i].len; off += BALUN_PAGE_SIZE)
			my_set(my, b, seg[i].va + off, 0);
	}
	for (i = 0; i < n; i++)
		for (off = 0; off < seg[i].len; off += BALUN_PAGE_SIZE)
			my_set(my, b, seg[i].va + off,
			       (seg[i].addr + off) | seg[i].kind << 3 | seg[i].perm);
	pthread_mutex_unlock(&my->lock);
	return 0;
}

static void my_unmap_block(struct my_dev *my, struct my_table *t, struct my_block *b, uint64_t va,
			   uint64_t end)
{
	if (va < b->va)
		va = b->va;
	if (end > b->va + BALUN_BLOCK_SIZE)
		end = b->va + BALUN_BLOCK_SIZE;
	for (; va < end; va += BALUN_PAGE_SIZE)
		my_set(my, b, va, 0);
	if (!b->present)
		my_drop(t, b);
}

/*
 * The range may cut the outer blocks, and be as large as the address space: then the blocks that
 * there are get looked at, not the range.
 */
static void my_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		     enum balun_cause cause)
{
	struct my_dev *my = priv;
	struct my_table *t = balun_space_data(space, my->dev);
	uint64_t nblocks = (len >> BALUN_BLOCK_SHIFT) + 2, n;
	struct my_block *b, *next;

	pthread_mutex_lock(&my->lock);
	/* so many buckets from the range's first on: every block of the range is in one of them */
	for (n = 0; n < nblocks && n < HASH_SIZE; n++) {
		for (b = *my_bucket(t, va + (n << BALUN_BLOCK_SHIFT)); b; b = next) {
			next = b->next;
			if (b->va < va + len && va < b->va + BALUN_BLOCK_SIZE)
				my_unmap_block(my, t, b, va, va + len);
		}
	}
	/* Real hardware: flush the TLB here and wait for accesses under way, before we return. */
	pthread_mutex_unlock(&my->lock);
}

static int my_attach(void *priv, struct balun_space *space)
{
	struct my_dev *my = priv;
	struct my_table *t = balun_mem_alloc(sizeof(*t));

	if (!t)
		return -ENOMEM;
	balun_space_set_data(space, my->dev, t);
	return 0;
}

static void my_gone(void *priv, struct balun_space *space)
{
	struct my_dev *my = priv;
	struct my_table *t = balun_space_data(space, my->dev);
	unsigned int i, page;

	for (i = 0; i < HASH_SIZE; i++)
		while (t->hash[i]) {
			/* what is left may name system memory only: the device was drained */
			for (page = 0; page < BALUN_BLOCK_PAGES; page++)
				assert(PTE_KIND(t->hash[i]->pte[page]) != BALUN_KIND_LOCAL);
			my_drop(t, t->hash[i]);
		}
	balun_space_set_data(space, my->dev, NULL);
	balun_mem_free(t, sizeof(*t));
}

/* ---- the copy engine: done when copy() returns ---- */

static void *my_ptr(struct my_dev *my, uint32_t kind, uint64_t addr, uint64_t len)
{
	if (kind == BALUN_KIND_SYSTEM)
		return balun_bus_ptr(addr, len);
	if (kind != BALUN_KIND_LOCAL)
		return NULL;
	assert(addr + len <= my->bytes);
	return my->mem + addr;
}

static int my_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct my_dev *my = priv;
	size_t i;

	for (i = 0; i < n; i++) {
		void *dst = my_ptr(my, op[i].dst_kind, op[i].dst, op[i].len);
		void *src = my_ptr(my, op[i].src_kind, op[i].src, op[i].len);

		if (!dst || (!src && op[i].src_kind != BALUN_KIND_ZERO))
			return -EOPNOTSUPP;
		if (src)
			memcpy(dst, src, op[i].len);
		else
			memset(dst, 0, op[i].len);
	}
	*ret_cookie = 0;
	return 0;
}

static int my_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

/* ---- life ---- */

static int my_open(struct balun_device *dev, const struct balun_options *opt,
		   struct balun_desc *ret_desc, void **ret_priv)
{
	struct my_dev *my;
	uint64_t bytes;
	int err;

	err = balun_opt_size(opt, "mem", 64 << 20, &bytes);
	if (err)
		return err;
	if (!bytes || bytes % BALUN_BLOCK_SIZE || bytes > 1ULL << 40)
		return balun_opt_fail(opt, "mem", "must be a multiple of 2M, at most 1024G");

	my = balun_mem_alloc(sizeof(*my));
	if (!my)
		return -ENOMEM;
	err = -ENOMEM;
	my->dev = dev;
	my->bytes = bytes;
	my->mem = balun_mem_alloc(bytes);
	if (!my->mem)
		goto err_free_dev;
	my->page = balun_mem_alloc(PAGE_NR(bytes) * sizeof(*my->page));
	if (!my->page)
		goto err_free_mem;
	pthread_mutex_init(&my->lock, NULL);

	ret_desc->mem_bytes = bytes;
	ret_desc->caps = BALUN_CAP_MMU | BALUN_CAP_ALLOC;
	*ret_priv = my;
	return 0;

err_free_mem:
	balun_mem_free(my->mem, bytes);
err_free_dev:
	balun_mem_free(my, sizeof(*my));
	return err;
}

static void my_close(void *priv)
{
	struct my_dev *my = priv;

	assert(!my->used);
	pthread_mutex_destroy(&my->lock);
	balun_mem_free(my->page, PAGE_NR(my->bytes) * sizeof(*my->page));
	balun_mem_free(my->mem, my->bytes);
	balun_mem_free(my, sizeof(*my));
}

static const struct balun_driver my_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_MMU | BALUN_CAP_ALLOC,
	.name = "mydriver",
	.help = "mem=64M  device memory, a multiple of 2M\n",
	.open = my_open,
	.close = my_close,
	.map = my_map,
	.unmap = my_unmap,
	.copy = my_copy,
	.copy_wait = my_copy_wait,
	.attach = my_attach,
	.gone = my_gone,
	.alloc = my_alloc,
	.free = my_free,
};

/* the one symbol that balun_driver_load() looks up (BALUN_DRIVER_ENTRY) */
BALUN_API const struct balun_driver *balun_driver_entry(void);

const struct balun_driver *balun_driver_entry(void)
{
	return &my_driver;
}
