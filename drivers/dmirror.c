// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: dmirror - the device that the kernel tests its HMM with
 *
 * It has memory, page tables, and no processor: what it is told to do (dmirror.h), it does on the
 * caller's thread. Its memory is host memory; with coherent=1 CPUs address it too. Accesses go
 * through its page table by page: to its own memory under its lock, so that unmap() waits for them;
 * to what is used in place through the bus, without.
 */
#include "balun/dmirror.h"
#include "balun/driver.h"
#include "env/env.h"

#define PAGE	   BALUN_PAGE_SIZE
#define BUCKETS	   4096
#define EXTENTS	   64	      /* of one query */
#define PERM_TAKEN (1u << 31) /* by the command EXCLUSIVE */

/* an entry of the page table */
struct entry {
	struct env_list link;
	uint64_t va, addr;
	uint32_t kind, perm;
};

struct dmirror {
	struct balun_device *dev;
	uint64_t bytes;
	char *base;
	struct env_mutex lock; /* leaf: the page table */
	struct env_list table[BUCKETS];
};

/* a command, and what it needs to know all the time */
struct run {
	struct balun_dmirror_cmd *cmd;
	char *buf;
	struct dmirror *d;
	struct balun_space *space;
	uint32_t id;
};

extern const struct balun_driver balun_dmirror_driver;

/* ---- the page table; lock held ---- */

static struct env_list *bucket(struct dmirror *d, uint64_t va)
{
	return &d->table[(va >> BALUN_PAGE_SHIFT) % BUCKETS];
}

static struct entry *lookup(struct dmirror *d, uint64_t va)
{
	struct env_list *l;

	env_list_for_each (l, bucket(d, va)) {
		struct entry *e = env_container_of(l, struct entry, link);

		if (e->va == va)
			return e;
	}
	return NULL;
}

/* what is mapped again as it was stays taken */
static int set_entry(struct dmirror *d, uint64_t va, const struct balun_seg *seg)
{
	struct entry *e = lookup(d, va);
	uint64_t addr = seg->addr + (va - seg->va);
	uint32_t taken = 0;

	if (!e) {
		e = env_alloc(sizeof(*e));
		if (!e)
			return -ENOMEM;
		e->va = va;
		env_list_add(bucket(d, va), &e->link);
	} else if (e->addr == addr && e->kind == seg->kind && seg->perm & BALUN_PERM_ATOMIC) {
		taken = e->perm & PERM_TAKEN;
	}
	e->addr = addr;
	e->kind = seg->kind;
	e->perm = seg->perm | taken;
	return 0;
}

/* ---- reading and writing ---- */

/* one page. Return: 0; -ENOENT the page table has no entry for it; -EFAULT of the bus */
static int access_page(struct run *r, uint64_t off, bool write)
{
	uint32_t perm = write ? BALUN_PERM_WRITE : BALUN_PERM_READ;
	char *buf = r->buf + off;
	struct entry *found, e = { 0 };

	env_mutex_lock(&r->d->lock);
	found = lookup(r->d, r->cmd->addr + off);
	if (found)
		e = *found;
	if (e.perm & perm && e.kind == BALUN_KIND_LOCAL)
		env_pages_copy(write ? r->d->base + e.addr : buf, write ? buf : r->d->base + e.addr,
			       PAGE);
	env_mutex_unlock(&r->d->lock);
	if (!(e.perm & perm))
		return -ENOENT;
	if (e.kind == BALUN_KIND_LOCAL)
		return 0;
	return write ? balun_bus_write(r->space, e.addr, buf, PAGE)
		     : balun_bus_read(r->space, e.addr, buf, PAGE);
}

/*
 * Without @fault, what the page table does not have is -ENOENT. An error of the bus is one of the
 * moment: the fault finds out what has changed since the entry was made.
 */
static int access_range(struct run *r, bool write, bool fault)
{
	struct balun_dmirror_cmd *c = r->cmd;
	uint32_t access = write ? BALUN_ACCESS_WRITE : BALUN_ACCESS_READ;
	int err = 0;

	while (!err && c->bytes < c->len) {
		if (!access_page(r, c->bytes, write)) {
			c->bytes += PAGE;
			continue;
		}
		c->faults += fault;
		err = !fault ? -ENOENT
			     : balun_fault(r->d->dev, r->space, c->addr + c->bytes,
					   c->len - c->bytes, access);
	}
	return err;
}

/* ---- moving and looking, by extents of the space ---- */

/* calls @fn for each extent of the range until it fails */
static int each_extent(struct run *r, int (*fn)(struct run *r, const struct balun_extent *x))
{
	struct balun_extent *x = env_alloc(EXTENTS * sizeof(*x));
	uint64_t at = r->cmd->addr, end = at + r->cmd->len;
	size_t i, n = 0;
	int err = x ? 0 : -ENOMEM;

	while (!err && at < end) {
		err = balun_query(r->space, (void *)(uintptr_t)at, end - at, x, EXTENTS, &n);
		for (i = 0; !err && i < n; i++) {
			at = x[i].addr + x[i].len;
			err = fn(r, &x[i]);
		}
	}
	env_free(x);
	return err;
}

static int check_readable(struct run *r, const struct balun_extent *x)
{
	return x->flags & BALUN_EXTENT_MAPPED && x->flags & BALUN_EXTENT_READ ? 0 : -EINVAL;
}

static int move_extent(struct run *r, const struct balun_extent *x)
{
	bool out = r->cmd->op == BALUN_DMIRROR_TO_DEVICE;
	struct balun_counts c = { 0 };
	int err;

	if (x->device != (out ? 0 : r->id))
		return 0;
	err = balun_migrate(r->space, (void *)(uintptr_t)x->addr, x->len, out ? r->d->dev : NULL,
			    &c);
	r->cmd->bytes += c.moved << BALUN_PAGE_SHIFT;
	return err;
}

static int map_own(struct run *r, const struct balun_extent *x)
{
	if (x->device != r->id)
		return -ENOENT;
	return balun_fault(r->d->dev, r->space, x->addr, x->len, BALUN_ACCESS_READ);
}

static int move_range(struct run *r)
{
	int err = each_extent(r, check_readable);

	if (!err)
		err = each_extent(r, move_extent);
	if (err || r->cmd->op == BALUN_DMIRROR_TO_SYSTEM)
		return err;
	err = each_extent(r, map_own);
	r->cmd->bytes = 0;
	return err ? err : access_range(r, false, false);
}

static int note_prot(struct run *r, const struct balun_extent *x)
{
	uint8_t *at = (uint8_t *)r->buf + (r->cmd->bytes >> BALUN_PAGE_SHIFT);
	bool cow = x->flags & (BALUN_EXTENT_ZERO | BALUN_EXTENT_SHARED), own = x->device == r->id;
	uint8_t prot = x->flags & BALUN_EXTENT_WRITE && !cow ? BALUN_DMIRROR_PROT_WRITE
							     : BALUN_DMIRROR_PROT_READ;

	prot |= x->flags & BALUN_EXTENT_ZERO ? BALUN_DMIRROR_PROT_ZERO : 0;
	prot |= x->flags & BALUN_EXTENT_HUGE ? BALUN_DMIRROR_PROT_PMD : 0;
	if (check_readable(r, x))
		prot = BALUN_DMIRROR_PROT_ERROR;
	else if (x->device && x->flags & BALUN_EXTENT_COHERENT)
		prot |= own ? BALUN_DMIRROR_PROT_COHERENT : BALUN_DMIRROR_PROT_COHERENT_REMOTE;
	else if (x->where == BALUN_WHERE_NONE || (x->device && !own))
		prot = BALUN_DMIRROR_PROT_NONE;
	else if (own)
		prot |= BALUN_DMIRROR_PROT_LOCAL;
	memset(at, prot, x->len >> BALUN_PAGE_SHIFT);
	r->cmd->bytes += x->len;
	return 0;
}

/* takes what is mapped for atomic access, or asks whether something is. Return: pages that are */
static uint64_t taken(struct run *r, bool take)
{
	struct entry *e;
	uint64_t off, n = 0;

	env_mutex_lock(&r->d->lock);
	for (off = 0; off < r->cmd->len; off += PAGE) {
		e = lookup(r->d, r->cmd->addr + off);
		if (e && take && e->perm & BALUN_PERM_ATOMIC)
			e->perm |= PERM_TAKEN;
		n += e && e->perm & PERM_TAKEN;
	}
	env_mutex_unlock(&r->d->lock);
	return n;
}

static int exclusive(struct run *r)
{
	struct balun_dmirror_cmd *c = r->cmd;
	int err = balun_fault(r->d->dev, r->space, c->addr, c->len, BALUN_ACCESS_ATOMIC);

	if (err == -EOPNOTSUPP || (!err && taken(r, true) < c->len / PAGE))
		return -EBUSY;
	return err ? err : access_range(r, false, false);
}

static int dmirror_command(void *priv, struct balun_space *space, const struct balun_command *c)
{
	struct balun_device_info info = { .size = sizeof(info) };
	struct balun_dmirror_cmd *cmd = c->arg;
	struct run r = { .cmd = cmd, .buf = c->data, .d = priv, .space = space };
	int err;

	if (c->arg_len != sizeof(*cmd) || !cmd->len || cmd->addr % PAGE || cmd->len % PAGE ||
	    cmd->addr + cmd->len < cmd->addr || c->data_len != balun_dmirror_buf(cmd))
		return -EINVAL;
	/* else an munmap() before could still take entries of what is mapped there now */
	err = balun_fence(space);
	if (!err)
		err = balun_device_info(r.d->dev, &info);
	if (err)
		return err;
	r.id = info.id;
	cmd->bytes = cmd->faults = 0;
	switch (cmd->op) {
	case BALUN_DMIRROR_READ:
	case BALUN_DMIRROR_WRITE:
		return access_range(&r, cmd->op == BALUN_DMIRROR_WRITE, true);
	case BALUN_DMIRROR_TO_DEVICE:
	case BALUN_DMIRROR_TO_SYSTEM:
		return move_range(&r);
	case BALUN_DMIRROR_SNAPSHOT:
		return each_extent(&r, note_prot);
	case BALUN_DMIRROR_EXCLUSIVE:
		return exclusive(&r);
	case BALUN_DMIRROR_CHECK_EXCLUSIVE:
		return taken(&r, false) ? -EPERM : 0;
	case BALUN_DMIRROR_RELEASE:
		return balun_evict(r.d->dev, UINT64_MAX, NULL);
	default:
		return -EINVAL;
	}
}

/* ---- ops ---- */

static int dmirror_open(struct balun_device *dev, const struct balun_options *opt,
			struct balun_desc *ret_desc, void **ret_priv)
{
	uint64_t bytes, coherent;
	struct dmirror *d;
	int i, err = balun_opt_size(opt, "mem", 256ULL << 20, &bytes);

	if (!err)
		err = balun_opt_size(opt, "coherent", 0, &coherent);
	if (err)
		return err;
	if (!bytes || bytes % BALUN_BLOCK_SIZE)
		return balun_opt_fail(opt, "mem", "must be a multiple of 2M");
	if (coherent > 1)
		return balun_opt_fail(opt, "coherent", "must be 0 or 1");
	d = balun_mem_alloc(sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->base = coherent ? env_coherent_alloc(bytes) : env_pages_alloc(bytes);
	if (!d->base) {
		balun_mem_free(d, sizeof(*d));
		return -ENOMEM;
	}
	d->dev = dev;
	d->bytes = bytes;
	env_mutex_init(&d->lock);
	for (i = 0; i < BUCKETS; i++)
		env_list_init(&d->table[i]);
	*ret_desc = (struct balun_desc){ .mem_bytes = bytes, .host_base = d->base };
	ret_desc->caps = balun_dmirror_driver.caps & ~(coherent ? 0 : BALUN_CAP_COHERENT);
	*ret_priv = d;
	return 0;
}

static int dmirror_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	struct dmirror *d = priv;
	uint64_t off;
	int err = 0;

	env_mutex_lock(&d->lock);
	for (; n && !err; n--, seg++)
		for (off = 0; !err && off < seg->len; off += PAGE)
			err = set_entry(d, seg->va + off, seg);
	env_mutex_unlock(&d->lock);
	return err;
}

/* pages that follow each other are in buckets that do */
static void dmirror_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			  enum balun_cause cause)
{
	uint64_t i, n = ENV_MIN(len / PAGE, BUCKETS);
	struct env_list *l, *next;
	struct dmirror *d = priv;

	env_mutex_lock(&d->lock);
	for (i = 0; i < n; i++) {
		env_list_for_each_safe (l, next, bucket(d, va + i * PAGE)) {
			struct entry *e = env_container_of(l, struct entry, link);

			if (e->va - va >= len)
				continue;
			env_list_del(&e->link);
			env_free(e);
		}
	}
	env_mutex_unlock(&d->lock);
}

static void dmirror_close(void *priv)
{
	struct dmirror *d = priv;

	dmirror_unmap(d, NULL, 0, UINT64_MAX, BALUN_CAUSE_TEARDOWN);
	env_mutex_destroy(&d->lock);
	env_coherent_free(d->base, d->bytes);
	balun_mem_free(d, sizeof(*d));
}

static int dmirror_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct dmirror *d = priv;

	for (; n; n--, op++) {
		void *dst = op->dst_kind == BALUN_KIND_LOCAL ? d->base + op->dst
							     : balun_bus_ptr(op->dst, op->len);
		void *src = op->src_kind == BALUN_KIND_LOCAL ? d->base + op->src
							     : balun_bus_ptr(op->src, op->len);

		if (op->src_kind == BALUN_KIND_ZERO)
			env_pages_zero(dst, op->len);
		else
			env_pages_copy(dst, src, op->len);
	}
	*ret_cookie = 0;
	return 0;
}

static int dmirror_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

const struct balun_driver balun_dmirror_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY | BALUN_CAP_COHERENT,
	.name = "dmirror",
	.help = "mem=256M    device memory, a multiple of 2M\n"
		"coherent=0  1: CPUs address it too, pages there stay mapped\n",
	.open = dmirror_open,
	.close = dmirror_close,
	.map = dmirror_map,
	.unmap = dmirror_unmap,
	.copy = dmirror_copy,
	.copy_wait = dmirror_copy_wait,
	.command = dmirror_command,
};
