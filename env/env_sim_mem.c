// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Memory of env_sim: malloc(), so that ASan sees each object by itself. A list of all lets a run
 * that was given up in the middle be cleaned up, as if its process had ended.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "env/env_sim_ctx.h"

#define ALIGN 64UL
#define PAGE  4096UL

struct object {
	struct env_list list;
	size_t size;
	void *pages; /* a mapping: @size bytes there */
} __attribute__((aligned(ALIGN)));

static struct env_list outside = { &outside, &outside };
static struct env_list inside = { &inside, &inside };
static struct env_list *objects = &outside; /* where new ones go */
static size_t alloc_bytes;
static uint64_t fail_countdown;

void env_sim_mem_begin(void)
{
	env_list_init(&inside);
	objects = &inside;
	fail_countdown = 0;
}

static void object_free(struct object *o)
{
	env_list_del(&o->list);
	if (o->pages)
		munmap(o->pages, o->size);
	else
		alloc_bytes -= o->size;
	free(o);
}

/* what a good run leaves is the test's business (env_alloc_bytes() tells); a failed one is wiped */
void env_sim_mem_end(bool wipe)
{
	while (!env_list_empty(&inside)) {
		struct object *o = env_container_of(inside.next, struct object, list);

		if (wipe) {
			object_free(o);
		} else {
			env_list_del(&o->list);
			env_list_add(&outside, &o->list);
		}
	}
	objects = &outside;
	fail_countdown = 0;
}

static struct object *object_new(size_t size)
{
	struct object *o;

	if (size > SIZE_MAX / 2 || posix_memalign((void **)&o, ALIGN, sizeof(*o) + size))
		return NULL;
	memset(o, 0, sizeof(*o) + size);
	env_list_add(objects, &o->list);
	return o;
}

void env_fail_alloc(uint64_t nth)
{
	fail_countdown = nth;
}

void *env_alloc(size_t size)
{
	struct object *o;

	if (fail_countdown && !--fail_countdown)
		return NULL;
	o = object_new(size);
	if (!o)
		return NULL;
	o->size = size;
	alloc_bytes += size;
	return o + 1;
}

void env_free(void *p)
{
	if (p)
		object_free((struct object *)p - 1);
}

size_t env_alloc_bytes(void)
{
	return alloc_bytes;
}

/* mappings: large, mostly never touched, and page-aligned */
void *env_pages_alloc(size_t bytes)
{
	size_t len = (bytes + PAGE - 1) & ~(PAGE - 1);
	struct object *o;
	void *p;

	if (!len)
		return NULL;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	if (p == MAP_FAILED)
		return NULL;
	o = object_new(0);
	if (!o) {
		munmap(p, len);
		return NULL;
	}
	o->pages = p;
	o->size = len;
	return p;
}

void env_pages_huge(void *p, size_t bytes)
{
	(void)p;
	(void)bytes;
}

void env_pages_free(void *p, size_t bytes)
{
	struct env_list *head[] = { &inside, &outside }, *pos;
	unsigned int i;

	(void)bytes;
	if (!p)
		return;
	for (i = 0; i < 2; i++) {
		env_list_for_each (pos, head[i]) {
			struct object *o = env_container_of(pos, struct object, list);

			if (o->pages == p) {
				object_free(o);
				return;
			}
		}
	}
	env_die("env_pages_free() of what env_pages_alloc() did not give", __FILE__, __LINE__);
}

bool env_owns(uint64_t addr, uint64_t len)
{
	(void)addr;
	(void)len;
	return false;
}

/* one fiber at a time, and none gives way in there */
void env_owns_begin(void)
{
}

void env_owns_end(void)
{
}
