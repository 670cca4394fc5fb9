/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: graph.h - the packages of a machine as an ordinary graph
 *
 * Structs, strings and pointers from malloc(), as any program would have them; nothing in here
 * knows of devices. What the demo computes is written into the same structs.
 */
#ifndef BALUN_TOOLS_GRAPH_H
#define BALUN_TOOLS_GRAPH_H

#include "dpkg.h"

#include <stdint.h>

#define PKG_MAGIC	0x62616c756e706b67ULL
#define RANK_ONE	(1ULL << 48) /* ranks of all packages add up to about this */
#define RANK_ITERATIONS 20
#define RANK_DAMPING(r) ((r) / 100 * 85)

struct pkg;

/* one of the names that satisfy a dependency ("a | b") */
struct alt {
	char *name;
	struct alt *next;
};

/* a dependency; @to: what it leads to here, or NULL; the first alternative that is there */
struct dep {
	struct alt *alts;
	struct dep *next;
	struct pkg *to;
};

/* a package, or a name that packages provide: a link of its bucket. A bucket has the packages
 * themselves before those that provide a name. */
struct name {
	char *text;
	struct pkg *pkg;
	struct name *next;
};

/**
 * struct pkg - a package
 * @magic: PKG_MAGIC while it is alive
 * @hash: graph_hash() of the name
 * @linked: dependencies whose @to is set
 * @reach: packages that it needs, directly or not, itself not counted
 * @rank: PageRank, parts of RANK_ONE
 * @incoming: rank that flows in, during an iteration
 * @touched: written by hammer threads only
 *
 * First what is constant while somebody computes, then what the device writes, then @touched.
 */
struct pkg {
	uint64_t magic;
	char *name, *version;
	struct dep *deps;
	uint64_t hash;
	uint32_t index, ndeps;

	uint64_t linked, reach, rank, incoming;

	uint64_t touched;
};

struct graph {
	struct pkg **all;
	struct name **bucket;
	uint64_t npkgs, nbuckets; /* nbuckets: a power of two */
	uint64_t nskipped;	  /* entries that are not installed */
};

uint64_t graph_hash(const char *s);
static inline uint64_t graph_hash_step(uint64_t h, unsigned char c)
{
	return (h ^ c) * 0x100000001b3ULL;
}
#define GRAPH_HASH_START 0xcbf29ce484222325ULL

/* build it from the text of a package database: 0; -EINVAL: *ret_err; -ENOMEM */
int graph_load(const char *buf, size_t len, struct graph **ret_g, struct dpkg_error *ret_err);
void graph_free(struct graph *g);
/* every allocation of the graph, once; @fn may free it */
void graph_each(struct graph *g, void (*fn)(void *ctx, void *obj, size_t size), void *ctx);
uint64_t graph_ndeps(const struct graph *g);

struct graph_changes {
	unsigned int moved, removed, added;
};
/*
 * Change it: some packages and their dependencies are freed and allocated anew elsewhere, some lose
 * a dependency, some gain one. Every @to becomes NULL. 0; -ENOMEM: part of it was done, the
 * graph is whole.
 */
int graph_change(struct graph *g, struct graph_changes *ret_c);

/* what a CPU alone makes of it, by other algorithms and in memory of its own */
struct graph_answer {
	struct pkg **to;	/* of every dependency, in order */
	uint64_t *reach, *rank; /* by index */
};
int graph_solve(const struct graph *g, struct graph_answer *ret_a);
void graph_answer_free(struct graph_answer *a);

#endif
