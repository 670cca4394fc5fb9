// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: demo_mem.c - how the CPU threads of the demo reach the graph
 *
 * With an engine that serves this process the graph's memory is what the device sees, and there is
 * nothing to do. The engine "sim" has a process of its own: there the pages of the program's
 * objects are mapped at the same addresses and filled before the device starts, and read back
 * after.
 */
#include "demo.h"
#include "balun/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* pages of objects seen so far, and the first error */
struct collect {
	struct demo_mem *m;
	uint64_t *page;
	size_t n, room;
	int ret;
};

int demo_mem_init(struct demo_mem *m, struct balun_space *sim)
{
	pthread_rwlockattr_t attr;
	int ret;

	memset(m, 0, sizeof(*m));
	m->sim = sim;
	ret = pthread_rwlockattr_init(&attr);
	if (ret)
		return -ret;
	/* hammers never stop reading: the change must not wait for a moment when none does */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	ret = pthread_rwlock_init(&m->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return -ret;
}

void demo_mem_destroy(struct demo_mem *m)
{
	pthread_rwlock_destroy(&m->lock);
	free(m->page);
}

int demo_mem_read(struct demo_mem *m, const void *p, void *buf, size_t len)
{
	if (m->sim)
		return balun_sim_load(m->sim, (uintptr_t)p, buf, len);
	memcpy(buf, p, len);
	return 0;
}

int demo_mem_load(struct demo_mem *m, const uint64_t *p, uint64_t *ret_v)
{
	if (m->sim)
		return balun_sim_load(m->sim, (uintptr_t)p, ret_v, sizeof(*ret_v));
	*ret_v = __atomic_load_n(p, __ATOMIC_RELAXED);
	return 0;
}

int demo_mem_store(struct demo_mem *m, uint64_t *p, uint64_t v)
{
	if (m->sim)
		return balun_sim_store(m->sim, (uintptr_t)p, &v, sizeof(v));
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
	return 0;
}

static void each_object(struct demo_objects *o, void (*fn)(void *ctx, void *obj, size_t size),
			void *ctx)
{
	size_t n = o->g->npkgs;
	unsigned int i;

	for (i = 0; i < o->nworkers; i++) {
		fn(ctx, o->job->scratch[i].seen, n * sizeof(*o->job->scratch[i].seen));
		fn(ctx, o->job->scratch[i].queue, n * sizeof(*o->job->scratch[i].queue));
	}
	fn(ctx, o->job->scratch, o->nworkers * sizeof(*o->job->scratch));
	fn(ctx, o->job, sizeof(*o->job));
	graph_each(o->g, fn, ctx);
}

static void add_pages(void *ctx, void *obj, size_t size)
{
	struct collect *c = ctx;
	uint64_t page = (uintptr_t)obj / BALUN_PAGE_SIZE, *p;
	uint64_t last = ((uintptr_t)obj + size - 1) / BALUN_PAGE_SIZE;

	for (; page <= last && !c->ret; page++) {
		if (c->n && c->page[c->n - 1] == page)
			continue;
		if (c->n == c->room) {
			c->room = c->room ? 2 * c->room : 1024;
			p = realloc(c->page, c->room * sizeof(*p));
			if (!p) {
				c->ret = -ENOMEM;
				return;
			}
			c->page = p;
		}
		c->page[c->n++] = page;
	}
}

static int page_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static size_t unique(uint64_t *page, size_t n)
{
	size_t i, k = 0;

	for (i = 0; i < n; i++)
		if (!k || page[k - 1] != page[i])
			page[k++] = page[i];
	return k;
}

static bool is_mapped(const struct demo_mem *m, uint64_t page)
{
	return m->npages && bsearch(&page, m->page, m->npages, sizeof(page), page_cmp);
}

/* maps, run by run, the pages that are not mapped yet; what is stays, and with it where it lives */
static int map_new_pages(struct demo_mem *m, const uint64_t *page, size_t n)
{
	size_t i, k;
	int ret;

	for (i = 0; i < n; i += k) {
		k = 1;
		if (is_mapped(m, page[i]))
			continue;
		while (i + k < n && page[i + k] == page[i] + k && !is_mapped(m, page[i + k]))
			k++;
		ret = balun_sim_mmap(m->sim, page[i] * BALUN_PAGE_SIZE, k * BALUN_PAGE_SIZE,
				     BALUN_SIM_READ | BALUN_SIM_WRITE);
		if (ret)
			return ret;
	}
	return 0;
}

static int map_objects(struct demo_mem *m, struct demo_objects *o)
{
	struct collect c = { 0 };
	size_t i;

	/* pages stay mapped when the object in them is freed, as a heap's pages do */
	for (i = 0; i < m->npages && !c.ret; i++)
		add_pages(&c, (void *)(uintptr_t)(m->page[i] * BALUN_PAGE_SIZE), 1);
	each_object(o, add_pages, &c);
	if (c.ret) {
		free(c.page);
		return c.ret;
	}
	qsort(c.page, c.n, sizeof(*c.page), page_cmp);
	c.n = unique(c.page, c.n);
	c.ret = map_new_pages(m, c.page, c.n);
	free(m->page);
	m->page = c.page;
	m->npages = c.n;
	return c.ret;
}

static void store_object(void *ctx, void *obj, size_t size)
{
	struct collect *c = ctx;

	if (!c->ret)
		c->ret = balun_sim_store(c->m->sim, (uintptr_t)obj, obj, size);
}

int demo_mem_to_sim(struct demo_mem *m, struct demo_objects *o)
{
	struct collect c = { .m = m };

	if (!m->sim)
		return 0;
	c.ret = map_objects(m, o);
	each_object(o, store_object, &c);
	return c.ret;
}

static void load_object(void *ctx, void *obj, size_t size)
{
	struct collect *c = ctx;

	if (!c->ret)
		c->ret = balun_sim_load(c->m->sim, (uintptr_t)obj, obj, size);
}

int demo_mem_from_sim(struct demo_mem *m, struct demo_objects *o)
{
	struct collect c = { .m = m };

	if (m->sim)
		each_object(o, load_object, &c);
	return c.ret;
}
