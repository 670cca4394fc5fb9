// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: demo_hammer.c - CPU threads that use the graph all the time
 *
 * Each goes through every package again and again: follows its pointers, checks that name, links
 * and results can be right, and counts in pkg.touched, which belongs to thread (index modulo n):
 * the owner knows its exact value, the others that it never goes back. A page that comes home with
 * old or foreign bytes cannot stay unseen for long.
 */
#include "demo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hammer_thread {
	struct demo_hammer *h;
	pthread_t id;
	unsigned int index;
	uint64_t *last; /* pkg.touched as this thread last saw it */
	uint64_t passes, reads, wrong;
	char what[160]; /* the first that was wrong */
};

struct demo_hammer {
	struct demo_mem *m;
	struct graph *g;
	uint64_t npkgs; /* of its own: read without the lock */
	unsigned int n;
	bool stop;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned int ready; /* threads that have been through once */
	struct hammer_thread t[];
};

/* the constant part of a package, and of a dependency */
#define PKG_CONSTANT offsetof(struct pkg, linked)
#define DEP_CONSTANT offsetof(struct dep, to)

static void wrong(struct hammer_thread *t, uint64_t i, const char *what, uint64_t found)
{
	if (!t->wrong++)
		snprintf(t->what, sizeof(t->what), "package %lu: %s (found 0x%lx)",
			 (unsigned long)i, what, (unsigned long)found);
}

static int hash_text(struct hammer_thread *t, const char *s, uint64_t *ret_hash)
{
	uint64_t h = GRAPH_HASH_START;
	unsigned char c;
	int ret;

	while (!(ret = demo_mem_read(t->h->m, s++, &c, 1)) && c)
		h = graph_hash_step(h, c);
	*ret_hash = h;
	return ret;
}

static int check_deps(struct hammer_thread *t, uint64_t i, const struct pkg *p)
{
	struct dep *at, d = { 0 };
	uint64_t to, magic, n = 0;
	int ret;

	for (at = p->deps; at && n <= p->ndeps; at = d.next, n++) {
		ret = demo_mem_read(t->h->m, at, &d, DEP_CONSTANT);
		if (ret)
			return ret;
		/* the device writes it meanwhile: nothing yet, or a package */
		ret = demo_mem_load(t->h->m, (const uint64_t *)&at->to, &to);
		if (ret)
			return ret;
		t->reads += 2;
		if (!to)
			continue;
		ret = demo_mem_load(t->h->m, &((const struct pkg *)(uintptr_t)to)->magic, &magic);
		if (ret)
			return ret;
		if (magic != PKG_MAGIC)
			wrong(t, i, "a dependency does not lead to a package", to);
	}
	if (at || n != p->ndeps)
		wrong(t, i, "the number of its dependencies", n);
	return 0;
}

static int check_touched(struct hammer_thread *t, uint64_t i, struct pkg *at)
{
	uint64_t v;
	int ret;

	ret = demo_mem_load(t->h->m, &at->touched, &v);
	if (ret)
		return ret;
	t->reads++;
	if (i % t->h->n != t->index) {
		if (v < t->last[i])
			wrong(t, i, "a counter went back", v);
		t->last[i] = v;
		return 0;
	}
	if (v != t->last[i])
		wrong(t, i, "a counter that nobody else writes", v);
	return demo_mem_store(t->h->m, &at->touched, t->last[i] = v + 1);
}

static int check_package(struct hammer_thread *t, uint64_t i)
{
	struct demo_mem *m = t->h->m;
	struct pkg *at, p;
	uint64_t hash, reach;
	int ret;

	ret = demo_mem_load(m, (const uint64_t *)&t->h->g->all[i], (uint64_t *)&at);
	if (!ret)
		ret = demo_mem_read(m, at, &p, PKG_CONSTANT);
	if (ret)
		return ret;
	if (p.magic != PKG_MAGIC || p.index != i) {
		wrong(t, i, "it is not a package", p.magic);
		return 0; /* its pointers lead nowhere */
	}
	ret = hash_text(t, p.name, &hash);
	if (ret)
		return ret;
	if (hash != p.hash)
		wrong(t, i, "its name", hash);
	ret = demo_mem_load(m, &at->reach, &reach);
	if (ret)
		return ret;
	if (reach >= t->h->npkgs)
		wrong(t, i, "it needs more packages than there are", reach);
	t->reads += 4;
	ret = check_deps(t, i, &p);
	return ret ? ret : check_touched(t, i, at);
}

static void pass(struct hammer_thread *t)
{
	uint64_t i;
	int ret;

	for (i = 0; i < t->h->npkgs && !__atomic_load_n(&t->h->stop, __ATOMIC_RELAXED); i++) {
		/* shared: the main thread changes the graph only with the lock to itself */
		pthread_rwlock_rdlock(&t->h->m->lock);
		ret = check_package(t, i);
		pthread_rwlock_unlock(&t->h->m->lock);
		if (ret)
			wrong(t, i, "memory access failed", -ret);
	}
	t->passes++;
}

static void *hammer_main(void *arg)
{
	struct hammer_thread *t = arg;
	struct demo_hammer *h = t->h;

	pass(t);
	pthread_mutex_lock(&h->lock);
	h->ready++;
	pthread_cond_signal(&h->cond);
	pthread_mutex_unlock(&h->lock);
	while (!__atomic_load_n(&h->stop, __ATOMIC_RELAXED))
		pass(t);
	return NULL;
}

static void join_all(struct demo_hammer *h, unsigned int n)
{
	unsigned int i;

	__atomic_store_n(&h->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < n; i++)
		pthread_join(h->t[i].id, NULL);
}

static void hammer_free(struct demo_hammer *h)
{
	unsigned int i;

	for (i = 0; i < h->n; i++)
		free(h->t[i].last);
	pthread_cond_destroy(&h->cond);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

int demo_hammer_start(struct demo_mem *m, struct graph *g, unsigned int n,
		      struct demo_hammer **ret_h)
{
	struct demo_hammer *h = calloc(1, sizeof(*h) + n * sizeof(h->t[0]));
	unsigned int i;
	int ret = 0;

	if (!h)
		return -ENOMEM;
	h->m = m;
	h->g = g;
	h->npkgs = g->npkgs;
	h->n = n;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->cond, NULL);
	for (i = 0; i < n && !ret; i++) {
		h->t[i].h = h;
		h->t[i].index = i;
		h->t[i].last = calloc(g->npkgs, sizeof(uint64_t));
		if (!h->t[i].last)
			ret = -ENOMEM;
	}
	for (i = 0; i < n && !ret; i++)
		ret = -pthread_create(&h->t[i].id, NULL, hammer_main, &h->t[i]);
	if (ret) {
		join_all(h, i ? i - 1 : 0);
		goto err_free;
	}
	pthread_mutex_lock(&h->lock);
	while (h->ready < n)
		pthread_cond_wait(&h->cond, &h->lock);
	pthread_mutex_unlock(&h->lock);
	*ret_h = h;
	return 0;

err_free:
	hammer_free(h);
	return ret;
}

uint64_t demo_hammer_stop(struct demo_hammer *h)
{
	uint64_t passes = 0, reads = 0, bad = 0;
	unsigned int i;

	join_all(h, h->n);
	for (i = 0; i < h->n; i++) {
		passes += h->t[i].passes;
		reads += h->t[i].reads;
		bad += h->t[i].wrong;
	}
	printf("hammer: %u threads went through the graph %lu times meanwhile: %lu reads checked, "
	       "%lu wrong\n",
	       h->n, (unsigned long)passes, (unsigned long)reads, (unsigned long)bad);
	for (i = 0; i < h->n; i++)
		if (h->t[i].wrong)
			printf("  thread %u: %lu wrong, first %s\n", i,
			       (unsigned long)h->t[i].wrong, h->t[i].what);
	hammer_free(h);
	return bad;
}
