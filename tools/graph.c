// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: graph.c - the packages of a machine as an ordinary graph
 */
#include "graph.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t graph_hash(const char *s)
{
	uint64_t h = GRAPH_HASH_START;

	while (*s)
		h = graph_hash_step(h, *s++);
	return h;
}

static char *copy_text(struct dpkg_str t)
{
	char *s = malloc(t.len + 1);

	if (!s)
		return NULL;
	if (t.len)
		memcpy(s, t.s, t.len);
	s[t.len] = 0;
	return s;
}

/* appends to its bucket, so that what was added first is found first */
static int add_name(struct graph *g, struct dpkg_str text, struct pkg *p)
{
	struct name *n = calloc(1, sizeof(*n)), **at;

	if (!n)
		return -ENOMEM;
	n->text = copy_text(text);
	if (!n->text) {
		free(n);
		return -ENOMEM;
	}
	n->pkg = p;
	at = &g->bucket[graph_hash(n->text) & (g->nbuckets - 1)];
	while (*at)
		at = &(*at)->next;
	*at = n;
	return 0;
}

static int add_alt(struct dep *d, struct dpkg_str name)
{
	struct alt *a = calloc(1, sizeof(*a)), **at = &d->alts;

	if (!a)
		return -ENOMEM;
	a->name = copy_text(name);
	if (!a->name) {
		free(a);
		return -ENOMEM;
	}
	while (*at)
		at = &(*at)->next;
	*at = a;
	return 0;
}

static struct dep *add_dep(struct pkg *p)
{
	struct dep *d = calloc(1, sizeof(*d)), **at = &p->deps;

	if (!d)
		return NULL;
	while (*at)
		at = &(*at)->next;
	*at = d;
	p->ndeps++;
	return d;
}

static int add_deps(struct pkg *p, const struct dpkg_value *v, struct dpkg_error *ret_err)
{
	struct dpkg_relations r;
	struct dpkg_str name;
	struct dep *d = NULL;
	bool alternative;
	int ret;

	dpkg_relations(&r, v, ret_err);
	while ((ret = dpkg_relation_next(&r, &name, &alternative)) > 0) {
		if (!alternative)
			d = add_dep(p);
		if (!d)
			return -ENOMEM;
		ret = add_alt(d, name);
		if (ret)
			return ret;
	}
	return ret;
}

static int add_provides(struct graph *g, struct pkg *p, const struct dpkg_value *v,
			struct dpkg_error *ret_err)
{
	struct dpkg_relations r;
	struct dpkg_str name;
	bool alternative;
	int ret;

	dpkg_relations(&r, v, ret_err);
	while ((ret = dpkg_relation_next(&r, &name, &alternative)) > 0) {
		if (alternative) {
			ret_err->line = r.line;
			snprintf(ret_err->what, sizeof(ret_err->what),
				 "\"|\" has no meaning in Provides");
			return -EINVAL;
		}
		ret = add_name(g, name, p);
		if (ret)
			return ret;
	}
	return ret;
}

static int add_package(struct graph *g, const struct dpkg_entry *e)
{
	struct pkg *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->magic = PKG_MAGIC;
	p->index = g->npkgs;
	p->name = copy_text(e->package.text);
	p->version = copy_text(e->version.text);
	g->all[g->npkgs++] = p;
	if (!p->name || !p->version)
		return -ENOMEM;
	p->hash = graph_hash(p->name);
	return add_name(g, e->package.text, p);
}

/* two passes: packages, then what they need and provide, so that names of packages come first */
static int fill(struct graph *g, const char *buf, size_t len, struct dpkg_error *ret_err)
{
	struct dpkg_parser d;
	struct dpkg_entry e;
	uint64_t i = 0;
	int ret;

	dpkg_begin(&d, buf, len);
	while ((ret = dpkg_next(&d, &e)) > 0) {
		ret = e.installed ? add_package(g, &e) : 0;
		g->nskipped += !e.installed;
		if (ret)
			return ret;
	}
	dpkg_begin(&d, buf, len);
	while ((ret = dpkg_next(&d, &e)) > 0) {
		if (!e.installed)
			continue;
		ret = add_deps(g->all[i], &e.pre_depends, ret_err);
		if (!ret)
			ret = add_deps(g->all[i], &e.depends, ret_err);
		if (!ret)
			ret = add_provides(g, g->all[i], &e.provides, ret_err);
		if (ret)
			return ret;
		i++;
	}
	return 0;
}

/* how many entries there are, and whether each is well formed */
static int count_entries(const char *buf, size_t len, uint64_t *ret_n, struct dpkg_error *ret_err)
{
	struct dpkg_parser d;
	struct dpkg_entry e;
	uint64_t n = 0, installed = 0;
	int ret;

	dpkg_begin(&d, buf, len);
	while ((ret = dpkg_next(&d, &e)) > 0) {
		n++;
		installed += e.installed;
	}
	if (ret) {
		*ret_err = d.err;
		return ret;
	}
	if (!installed || n > UINT32_MAX) {
		ret_err->line = d.line;
		snprintf(ret_err->what, sizeof(ret_err->what),
			 n > UINT32_MAX ? "too many packages"
			 : n		? "no entry is an installed package"
					: "the file has no entries: not a package database");
		return -EINVAL;
	}
	*ret_n = installed;
	return 0;
}

int graph_load(const char *buf, size_t len, struct graph **ret_g, struct dpkg_error *ret_err)
{
	struct graph *g;
	uint64_t n;
	int ret;

	ret = count_entries(buf, len, &n, ret_err);
	if (ret)
		return ret;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	for (g->nbuckets = 16; g->nbuckets < n; g->nbuckets *= 2)
		;
	ret = -ENOMEM;
	g->all = calloc(n, sizeof(*g->all));
	g->bucket = calloc(g->nbuckets, sizeof(*g->bucket));
	if (!g->all || !g->bucket)
		goto err_free;
	ret = fill(g, buf, len, ret_err);
	if (ret)
		goto err_free;
	*ret_g = g;
	return 0;

err_free:
	graph_free(g);
	return ret;
}

static void each_text(char *s, void (*fn)(void *ctx, void *obj, size_t size), void *ctx)
{
	if (s)
		fn(ctx, s, strlen(s) + 1);
}

static void each_of_deps(struct dep *d, void (*fn)(void *ctx, void *obj, size_t size), void *ctx)
{
	struct dep *next_dep;
	struct alt *a, *next;

	for (; d; d = next_dep) {
		next_dep = d->next;
		for (a = d->alts; a; a = next) {
			next = a->next;
			each_text(a->name, fn, ctx);
			fn(ctx, a, sizeof(*a));
		}
		fn(ctx, d, sizeof(*d));
	}
}

static void each_of_pkg(struct pkg *p, void (*fn)(void *ctx, void *obj, size_t size), void *ctx)
{
	each_of_deps(p->deps, fn, ctx);
	each_text(p->name, fn, ctx);
	each_text(p->version, fn, ctx);
	fn(ctx, p, sizeof(*p));
}

void graph_each(struct graph *g, void (*fn)(void *ctx, void *obj, size_t size), void *ctx)
{
	struct name *n, *next;
	uint64_t i;

	for (i = 0; g->all && i < g->npkgs; i++)
		each_of_pkg(g->all[i], fn, ctx);
	for (i = 0; g->bucket && i < g->nbuckets; i++) {
		for (n = g->bucket[i]; n; n = next) {
			next = n->next;
			each_text(n->text, fn, ctx);
			fn(ctx, n, sizeof(*n));
		}
	}
	if (g->all)
		fn(ctx, g->all, g->npkgs * sizeof(*g->all));
	if (g->bucket)
		fn(ctx, g->bucket, g->nbuckets * sizeof(*g->bucket));
	fn(ctx, g, sizeof(*g));
}

static void free_object(void *ctx, void *obj, size_t size)
{
	(void)ctx;
	(void)size;
	free(obj);
}

void graph_free(struct graph *g)
{
	if (g)
		graph_each(g, free_object, NULL);
}

uint64_t graph_ndeps(const struct graph *g)
{
	uint64_t i, n = 0;

	for (i = 0; i < g->npkgs; i++)
		n += g->all[i]->ndeps;
	return n;
}

static int add_dep_on(struct pkg *p, const char *name)
{
	struct dpkg_str text = { name, strlen(name) };
	struct dep *d = add_dep(p);

	return d ? add_alt(d, text) : -ENOMEM;
}

static void remove_first_dep(struct pkg *p)
{
	struct dep *d = p->deps;

	p->deps = d->next;
	p->ndeps--;
	d->next = NULL;
	each_of_deps(d, free_object, NULL);
}

static int copy_deps(struct pkg *to, const struct pkg *from)
{
	const struct dep *d;
	const struct alt *a;
	struct dep *n;
	int ret = 0;

	for (d = from->deps; d && !ret; d = d->next) {
		n = add_dep(to);
		if (!n)
			return -ENOMEM;
		for (a = d->alts; a && !ret; a = a->next)
			ret = add_alt(n, (struct dpkg_str){ a->name, strlen(a->name) });
	}
	return ret;
}

/* a copy of a package and of all that hangs on it, in fresh memory; NULL: none */
static struct pkg *copy_pkg(const struct pkg *old)
{
	struct pkg *p = malloc(sizeof(*p));

	if (!p)
		return NULL;
	*p = *old;
	p->deps = NULL;
	p->ndeps = 0;
	p->name = copy_text((struct dpkg_str){ old->name, strlen(old->name) });
	p->version = copy_text((struct dpkg_str){ old->version, strlen(old->version) });
	if (!p->name || !p->version || copy_deps(p, old)) {
		each_of_pkg(p, free_object, NULL);
		return NULL;
	}
	return p;
}

/* every seventh package moves; what it was in is freed */
static int move_some(struct graph *g, unsigned int *ret_moved)
{
	struct pkg **old = calloc(g->npkgs, sizeof(*old)), *p;
	struct name *n;
	unsigned int moved = 0;
	uint64_t i;
	int ret = 0;

	if (!old)
		return -ENOMEM;
	for (i = 0; i < g->npkgs && !ret; i += 7) {
		p = copy_pkg(g->all[i]);
		if (p) {
			old[moved++] = g->all[i];
			g->all[i] = p;
		} else {
			ret = -ENOMEM;
		}
	}
	for (i = 0; i < g->nbuckets; i++)
		for (n = g->bucket[i]; n; n = n->next)
			n->pkg = g->all[n->pkg->index];
	for (i = 0; i < moved; i++) {
		old[i]->magic = 0; /* a pointer that still leads here is seen to be stale */
		each_of_pkg(old[i], free_object, NULL);
	}
	free(old);
	if (!ret)
		*ret_moved = moved;
	return ret;
}

int graph_change(struct graph *g, struct graph_changes *ret_c)
{
	struct graph_changes c = { 0 };
	struct dep *d;
	uint64_t i;
	int ret = 0;

	for (i = 0; i < g->npkgs; i++)
		for (d = g->all[i]->deps; d; d = d->next)
			d->to = NULL;
	for (i = 0; i < g->npkgs && !ret; i++) {
		if (i % 5 == 1 && g->all[i]->deps) {
			remove_first_dep(g->all[i]);
			c.removed++;
		}
		if (i % 3 == 2) {
			ret = add_dep_on(g->all[i], g->all[(i * 31 + 7) % g->npkgs]->name);
			c.added += !ret;
		}
	}
	if (!ret)
		ret = move_some(g, &c.moved);
	if (!ret)
		*ret_c = c;
	return ret;
}
