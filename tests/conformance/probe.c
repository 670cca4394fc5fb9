/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The probe as a driver: forwards every op to the driver under test and checks on the way.
 *
 * One mutex guards the shadow table and the bookkeeping; it is never held across a call of the
 * inner driver or of Balun. What makes unmap safe against dev_read()/dev_write(): an access
 * registers its page as in use under the mutex, in the same critical section that reads the table;
 * unmap removes the entry under the mutex and then waits until no page of its range is in use.
 */
#include "probe_priv.h"

static char last_breach[PROBE_TEXT];

void probe_breach_note(struct probe *p, const char *fmt, ...)
{
	va_list ap;

	/* the first one counts: later ones are often its consequences. Racy writers both have one
	 */
	if (__atomic_exchange_n(&p->breached, 1, __ATOMIC_RELAXED))
		return;
	va_start(ap, fmt);
	vsnprintf(p->breach, sizeof(p->breach), fmt, ap);
	va_end(ap);
	memcpy(last_breach, p->breach, sizeof(last_breach));
	env_store(&p->breached, 2);
	env_log(0, "core broke the driver contract: %s", p->breach);
}

const char *probe_noted(struct probe *p)
{
	return env_load(&p->breached) == 2 ? p->breach : NULL;
}

void probe_take_last(char *ret_text)
{
	memcpy(ret_text, last_breach, sizeof(last_breach));
	last_breach[0] = 0;
}

/* counts a call; its error if it is to fail. Lock held. */
static int probe_planned(struct probe *p, enum probe_op op)
{
	struct probe_plan *pl = &p->plan[op];

	if (!pl->count)
		return 0;
	if (pl->nth > 1) {
		pl->nth--;
		return 0;
	}
	if (pl->count != PROBE_FOREVER)
		pl->count--;
	pl->came = true;
	p->n.failed++;
	return pl->err;
}

/* ---- life ---- */

static int probe_options(const struct balun_options *opt, struct balun_desc *d)
{
	uint64_t mem;
	int rc;

	rc = balun_opt_size(opt, "mem", d->mem_bytes, &mem);
	if (rc)
		return rc;
	if (mem < d->mem_bytes)
		d->mem_bytes = mem;
	if (!strcmp(balun_opt_str(opt, "host", "1"), "0"))
		d->caps &= ~BALUN_CAP_HOST_MEMORY;
	if (!strcmp(balun_opt_str(opt, "peer", "1"), "0"))
		d->caps &= ~BALUN_CAP_PEER;
	/* what is coherent behaves otherwise: only the cases that are about that see it */
	if (strcmp(balun_opt_str(opt, "coherent", "0"), "1"))
		d->caps &= ~BALUN_CAP_COHERENT;
	if (!(d->caps & BALUN_CAP_HOST_MEMORY))
		d->host_base = NULL;
	/* the probe has page tables whatever is inside, and begins and waits as one */
	d->caps |= BALUN_CAP_MMU | BALUN_CAP_WRAPPER;
	return 0;
}

static int probe_open(struct balun_device *dev, const struct balun_options *opt,
		      struct balun_desc *ret_desc, void **ret_priv)
{
	struct probe *p = balun_mem_alloc(sizeof(*p));
	int rc;

	if (!p)
		return -ENOMEM;
	env_mutex_init(&p->lock);
	env_cond_init(&p->cond);
	p->dev = dev;
	rc = balun_inner_open(dev, opt, &p->drv, &p->desc, &p->inner);
	if (rc)
		goto err_free;
	rc = probe_options(opt, &p->desc);
	if (rc)
		goto err_close;
	rc = table_init(&p->table, p->desc.mem_bytes);
	if (rc)
		goto err_close;
	p->filled = balun_mem_alloc(p->table.npages);
	p->staging = balun_mem_alloc(PROBE_USERS * PAGE);
	if (!p->filled || !p->staging) {
		rc = -ENOMEM;
		goto err_table;
	}
	*ret_desc = p->desc;
	*ret_priv = p;
	return 0;

err_table:
	balun_mem_free(p->staging, PROBE_USERS * PAGE);
	balun_mem_free(p->filled, p->table.npages);
	table_fini(&p->table);
err_close:
	p->drv->close(p->inner);
err_free:
	balun_mem_free(p, sizeof(*p));
	return rc;
}

static void probe_close(void *priv)
{
	struct probe *p = priv;

	if (p->table.entries)
		probe_breach_note(p, "close: %llu entries are still mapped",
				  (unsigned long long)p->table.entries);
	if (p->attached)
		probe_breach_note(p, "close: a space is still attached");
	if (p->cookies)
		probe_breach_note(p, "close: %u copies were never waited for", p->cookies);
	p->drv->close(p->inner);
	balun_mem_free(p->staging, PROBE_USERS * PAGE);
	balun_mem_free(p->filled, p->table.npages);
	table_fini(&p->table);
	env_cond_destroy(&p->cond);
	env_mutex_destroy(&p->lock);
	balun_mem_free(p, sizeof(*p));
}

static int probe_attach(void *priv, struct balun_space *space)
{
	struct probe *p = priv;
	int rc = p->drv->attach ? p->drv->attach(p->inner, space) : 0;

	if (rc)
		return rc;
	if (p->attached++)
		probe_breach_note(p, "attach: twice");
	p->space = space;
	return 0;
}

/* They are refused by now. A command is let in until gone() and active() have returned. */
static void probe_wait_runs(struct probe *p)
{
	uint64_t limit = env_now_ns() + PROBE_RUN_NS, now;

	env_mutex_lock(&p->lock);
	while (p->running && (now = env_now_ns()) < limit)
		env_cond_wait(&p->cond, &p->lock, limit - now);
	env_mutex_unlock(&p->lock);
}

static void probe_gone(void *priv, struct balun_space *space)
{
	struct probe *p = priv;

	if (!p->attached || p->space != space)
		probe_breach_note(p, "gone: of a space that was not attached");
	else
		p->attached--;
	/* what is mapped in place may stay until now; what lay on the device must be home */
	env_mutex_lock(&p->lock);
	table_clear(&p->table, 0, UINT64_MAX);
	env_mutex_unlock(&p->lock);
	probe_wait_runs(p);
	if (p->drv->gone)
		p->drv->gone(p->inner, space);
}

static int probe_active(void *priv, bool on)
{
	struct probe *p = priv;

	if (p->active == on)
		probe_breach_note(p, "active: twice %s", on ? "on" : "off");
	p->active = on;
	return p->drv->active ? p->drv->active(p->inner, on) : 0;
}

static const struct balun_driver *probe_inner(void *priv, void **ret_priv)
{
	struct probe *p = priv;

	*ret_priv = p->inner;
	return p->drv;
}

/* ---- page table ---- */

static const char *probe_check_seg(const struct probe *p, const struct balun_seg *s,
				   const struct balun_seg *prev)
{
	if (!s->len || (s->va | s->len | s->addr) & (PAGE - 1))
		return "a segment is not whole pages";
	if (s->va >> BALUN_BLOCK_SHIFT != (s->va + s->len - 1) >> BALUN_BLOCK_SHIFT)
		return "a segment crosses a block";
	if (prev && (s->va < prev->va + prev->len ||
		     s->va >> BALUN_BLOCK_SHIFT != prev->va >> BALUN_BLOCK_SHIFT))
		return "segments overlap, are out of order, or leave the block";
	if (s->kind > BALUN_KIND_COHERENT || s->kind == BALUN_KIND_ZERO)
		return "a segment has no such kind";
	if (s->kind == BALUN_KIND_COHERENT &&
	    (!(p->desc.caps & BALUN_CAP_COHERENT) || s->perm & BALUN_PERM_ATOMIC))
		return "a segment is coherent that should not be";
	if (s->kind == BALUN_KIND_LOCAL &&
	    (s->addr >= p->desc.mem_bytes || s->len > p->desc.mem_bytes - s->addr))
		return "a segment lies outside device memory";
	if (!(s->perm & BALUN_PERM_READ))
		return "a segment may not even be read";
	return NULL;
}

/* whether anything was ever put in a page of device memory; a moved page goes unseen */
static bool probe_filled(const struct probe *p, uint64_t pgno)
{
	return p->filled[pgno] || p->desc.caps & BALUN_CAP_HOST_MEMORY;
}

/* Lock held. */
static void probe_note_map(struct probe *p, const struct balun_seg *s)
{
	uint64_t off;

	for (off = 0; off < s->len; off += PAGE) {
		struct probe_entry e = {
			.valid = true,
			.kind = s->kind,
			.perm = s->perm,
			.addr = s->addr + off,
		};
		const char *what = table_set(&p->table, s->va + off, &e);

		if (what)
			probe_breach_note(p, "%s (%#llx)", what, (unsigned long long)s->va + off);
		if (s->kind == BALUN_KIND_LOCAL && !probe_filled(p, e.addr >> BALUN_PAGE_SHIFT))
			probe_breach_note(p, "map: of device memory that nothing was copied to");
	}
}

static int probe_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	struct probe *p = priv;
	size_t i;
	int rc;

	env_mutex_lock(&p->lock);
	p->n.maps++;
	p->n.segs += n;
	if (!n)
		probe_breach_note(p, "map: of nothing");
	if (space != p->space)
		probe_breach_note(p, "map: for a space that is not attached");
	for (i = 0; i < n; i++) {
		const char *what = probe_check_seg(p, &seg[i], i ? &seg[i - 1] : NULL);

		if (what) {
			probe_breach_note(p, "map: %s", what);
			env_mutex_unlock(&p->lock);
			return -ENOMEM;
		}
	}
	rc = probe_planned(p, PROBE_MAP);
	env_mutex_unlock(&p->lock);
	if (!rc)
		rc = p->drv->map(p->inner, space, seg, n);
	if (rc)
		return rc;
	/* the block lock of core keeps an unmap of the same range out until we return */
	env_mutex_lock(&p->lock);
	for (i = 0; i < n; i++)
		table_clear(&p->table, seg[i].va, seg[i].len);
	for (i = 0; i < n; i++)
		probe_note_map(p, &seg[i]);
	env_mutex_unlock(&p->lock);
	return 0;
}

static void probe_unmap_note(struct probe *p, struct balun_space *space, uint64_t va, uint64_t len,
			     enum balun_cause cause)
{
	env_mutex_lock(&p->lock);
	p->n.unmaps++;
	if (!len || (va | len) & (PAGE - 1))
		probe_breach_note(p, "unmap: not whole pages");
	if (space != p->space)
		probe_breach_note(p, "unmap: for a space that is not attached");
	if ((unsigned int)cause >= BALUN_NR_CAUSES)
		probe_breach_note(p, "unmap: no such cause");
	else
		p->n.unmap_cause[cause]++;
	table_clear(&p->table, va, len);
	env_mutex_unlock(&p->lock);
}

static void probe_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			enum balun_cause cause)
{
	struct probe *p = priv;

	probe_unmap_note(p, space, va, len, cause);
	p->drv->unmap(p->inner, space, va, len, cause);
	probe_wait_unused(p, va, len);
}

static void probe_unmap_begin(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			      enum balun_cause cause)
{
	struct probe *p = priv;

	probe_unmap_note(p, space, va, len, cause);
	if (p->drv->unmap_begin)
		p->drv->unmap_begin(p->inner, space, va, len, cause);
	else
		p->drv->unmap(p->inner, space, va, len, cause);
}

static void probe_unmap_wait(void *priv, struct balun_space *space)
{
	struct probe *p = priv;

	if (p->drv->unmap_wait)
		p->drv->unmap_wait(p->inner, space);
	/* more than was begun by this thread: an access is short, it does not wait for us */
	probe_wait_unused(p, 0, UINT64_MAX);
}

/* ---- copies ---- */

/* Lock held. */
static void probe_check_local(struct probe *p, uint64_t off, uint64_t len, bool dst)
{
	if (off & (PAGE - 1) || off >= p->desc.mem_bytes || len > p->desc.mem_bytes - off) {
		probe_breach_note(p, "copy: outside device memory");
		return;
	}
	for (; len; off += PAGE, len -= PAGE) {
		uint64_t i = off >> BALUN_PAGE_SHIFT;
		uint64_t va = p->table.owner[i];

		if (dst && va)
			probe_breach_note(p, "copy: into device memory that is mapped at %#llx",
					  (unsigned long long)va);
		if (!dst && va && table_get(&p->table, va).perm & BALUN_PERM_WRITE)
			probe_breach_note(p, "copy: from device memory that is mapped writable");
		if (!dst && !probe_filled(p, i))
			probe_breach_note(p, "copy: from device memory that nothing was copied to");
		if (dst)
			p->filled[i] = 1;
	}
}

/* Lock held. */
static void probe_check_copy(struct probe *p, const struct balun_copy *op)
{
	if (!op->len || op->len & (PAGE - 1)) {
		probe_breach_note(p, "copy: not whole pages");
		return;
	}
	if (op->dst_kind != BALUN_KIND_LOCAL && op->dst_kind != BALUN_KIND_SYSTEM) {
		probe_breach_note(p, "copy: no such destination");
		return;
	}
	if (op->src_kind > BALUN_KIND_ZERO) {
		probe_breach_note(p, "copy: no such source");
		return;
	}
	if (op->dst_kind == BALUN_KIND_LOCAL)
		probe_check_local(p, op->dst, op->len, true);
	if (op->src_kind == BALUN_KIND_LOCAL)
		probe_check_local(p, op->src, op->len, false);
	p->n.bytes[op->src_kind][op->dst_kind] += op->len;
}

/* Lock held: given up while a copy that was asked to pause waits. */
static void probe_pause_here(struct probe *p)
{
	uint64_t limit, now;

	if (!p->pause_nth || --p->pause_nth)
		return;
	limit = env_now_ns() + PROBE_PAUSE_NS;
	p->pausing = true;
	env_cond_wake(&p->cond);
	while (p->pausing && (now = env_now_ns()) < limit && !env_killed())
		env_cond_wait(&p->cond, &p->lock, ENV_MIN(limit - now, PROBE_KILL_NS));
	p->pausing = false;
}

static int probe_slot(struct probe *p)
{
	int i;

	for (i = 0; i < PROBE_COOKIES; i++)
		if (!p->cookie[i].busy)
			return i;
	return -1;
}

static int probe_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct probe *p = priv;
	int rc, i, slot;

	env_mutex_lock(&p->lock);
	p->n.copies++;
	if (!n)
		probe_breach_note(p, "copy: of nothing");
	for (i = 0; (size_t)i < n; i++)
		probe_check_copy(p, &op[i]);
	probe_pause_here(p);
	rc = probe_planned(p, PROBE_COPY);
	slot = probe_slot(p);
	if (!rc && slot < 0)
		rc = -ENOMEM;
	if (rc) {
		env_mutex_unlock(&p->lock);
		return rc;
	}
	p->cookie[slot].busy = true;
	p->cookies++;
	p->cookie[slot].err = probe_planned(p, PROBE_WAIT);
	env_mutex_unlock(&p->lock);
	rc = p->drv->copy(p->inner, op, n, &p->cookie[slot].inner);
	if (rc) {
		env_mutex_lock(&p->lock);
		p->cookie[slot].busy = false;
		p->cookies--;
		env_mutex_unlock(&p->lock);
		return rc;
	}
	*ret_cookie = slot + 1;
	return 0;
}

static int probe_copy_wait(void *priv, uint64_t cookie)
{
	struct probe *p = priv;
	struct probe_cookie *c = &p->cookie[cookie - 1];
	int rc, err;

	if (cookie - 1 >= PROBE_COOKIES || !c->busy) {
		probe_breach_note(p, "copy_wait: for no copy, or twice");
		return -EIO;
	}
	rc = p->drv->copy_wait(p->inner, c->inner);
	env_mutex_lock(&p->lock);
	err = c->err;
	c->busy = false;
	p->cookies--;
	env_mutex_unlock(&p->lock);
	return rc ? rc : err;
}

/* ---- memory ---- */

static int probe_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	struct probe *p = priv;
	uint64_t off;
	int rc = p->drv->alloc(p->inner, len, &off);

	if (rc)
		return rc;
	/* the limit of option mem holds for a driver with a memory manager too */
	if (off >= p->desc.mem_bytes || len > p->desc.mem_bytes - off) {
		p->drv->free(p->inner, off, len);
		return -ENOMEM;
	}
	if (off & (len - 1))
		probe_breach_note(p, "alloc: the driver gave memory that is not aligned");
	*ret_off = off;
	return 0;
}

static void probe_free(void *priv, uint64_t off, uint64_t len)
{
	struct probe *p = priv;

	if (!len || (off | len) & (PAGE - 1) || off >= p->desc.mem_bytes ||
	    len > p->desc.mem_bytes - off)
		probe_breach_note(p, "free: of what alloc never gave");
	p->drv->free(p->inner, off, len);
}

/* from now on nothing is there: to map it or copy from it is a breach */
static void probe_trim(void *priv, uint64_t off, uint64_t len)
{
	struct probe *p = priv;

	if (!len || (off | len) & (PAGE - 1) || off >= p->desc.mem_bytes ||
	    len > p->desc.mem_bytes - off)
		probe_breach_note(p, "trim: outside device memory");
	else
		memset(p->filled + (off >> BALUN_PAGE_SHIFT), 0, len >> BALUN_PAGE_SHIFT);
	if (p->drv->trim)
		p->drv->trim(p->inner, off, len);
}

static uint64_t probe_footprint(void *priv)
{
	struct probe *p = priv;

	return p->drv->footprint ? p->drv->footprint(p->inner) : 0;
}

static int probe_peer_addr(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
			   uint64_t *ret_addr)
{
	struct probe *p = priv;

	if (!p->drv->peer_addr || !(p->desc.caps & BALUN_CAP_PEER))
		return -EOPNOTSUPP;
	if (off >= p->desc.mem_bytes || len > p->desc.mem_bytes - off)
		probe_breach_note(p, "peer_addr: outside device memory");
	return p->drv->peer_addr(p->inner, client, off, len, ret_addr);
}

const struct balun_driver probe_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY | BALUN_CAP_PEER | BALUN_CAP_ALLOC |
		BALUN_CAP_TWO_PHASE | BALUN_CAP_WRAPPER | BALUN_CAP_COHERENT,
	.name = PROBE_NAME,
	.help = "mem=ALL  device memory at most\n"
		"host=1  0: hide that device memory is host memory\n"
		"peer=1  0: no direct copies\n"
		"coherent=0  1: do not hide that device memory is coherent\n",
	.open = probe_open,
	.close = probe_close,
	.map = probe_map,
	.unmap = probe_unmap,
	.copy = probe_copy,
	.copy_wait = probe_copy_wait,
	.attach = probe_attach,
	.gone = probe_gone,
	.alloc = probe_alloc,
	.free = probe_free,
	.unmap_begin = probe_unmap_begin,
	.unmap_wait = probe_unmap_wait,
	.peer_addr = probe_peer_addr,
	.active = probe_active,
	.inner = probe_inner,
	.command = probe_command,
	.trim = probe_trim,
	.footprint = probe_footprint,
};
