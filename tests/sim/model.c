// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The reference: what every load may return.
 *
 * Each word and each page's permission is a register that keeps all its versions. A write takes
 * effect at one moment between its begin and its end, which nobody knows; so a read over [b, e] may
 * return version w if w began before e and no other version certainly lies between w and the read:
 * began after w ended and ended before b. A read that could only have seen w proves that w took
 * effect by then, which is how a value that comes back from the dead is found out.
 *
 * mremap() makes a version that is "what the other register held at some moment of the operation".
 */
#include "tests/sim/sim_test.h"

#define MAX_VERSIONS 16384
#define MAX_DEPTH    6

struct version {
	struct version *older;
	struct reg *from; /* a copy of another register, read during [begin, end]; or NULL */
	uint64_t value, begin, end, op;
	uint64_t from_begin, from_end;
	bool dead, maybe;
};

struct reg {
	struct version *newest;
};

static struct reg perms[PAGES], words[PAGES][WORDS];
static struct version pool[MAX_VERSIONS];
static unsigned int nversions;
static uint64_t tick;

struct query {
	uint64_t value, mask, begin, end, op;
};

void model_reset(void)
{
	unsigned int i, j;

	nversions = 0;
	tick = 0;
	memset(perms, 0, sizeof(perms));
	memset(words, 0, sizeof(words));
	for (i = 0; i < PAGES; i++) {
		model_end(model_write(&perms[i], 0, 0));
		for (j = 0; j < WORDS; j++)
			model_end(model_write(&words[i][j], 0, 0));
	}
}

struct reg *model_perm(unsigned int page)
{
	return &perms[page];
}

struct reg *model_word(unsigned int page, unsigned int word)
{
	return &words[page][word];
}

uint64_t model_tick(void)
{
	return ++tick;
}

struct version *model_write(struct reg *r, uint64_t value, uint64_t op)
{
	struct version *v = &pool[nversions];

	CHECK(nversions < MAX_VERSIONS);
	nversions++;
	*v = (struct version){ .older = r->newest, .value = value, .op = op };
	v->begin = model_tick();
	v->end = TICK_NEVER;
	r->newest = v;
	return v;
}

struct version *model_copy(struct reg *r, struct reg *from, uint64_t op)
{
	struct version *v = model_write(r, 0, op);

	v->from = from;
	v->from_begin = v->begin;
	v->from_end = TICK_NEVER;
	return v;
}

void model_end(struct version *v)
{
	uint64_t now = model_tick();

	v->end = ENV_MIN(v->end, now);
	v->from_end = now;
}

void model_cancel(struct version *v)
{
	v->dead = true;
}

void model_maybe(struct version *v)
{
	v->maybe = true;
	model_end(v);
}

/* is there a version that certainly came after @v and before the read? */
static bool superseded(const struct reg *r, const struct version *v, const struct query *q)
{
	const struct version *w;

	for (w = r->newest; w; w = w->older)
		if (w != v && !w->dead && !w->maybe && w->op != q->op && v->end < w->begin &&
		    w->end < q->begin)
			return true;
	return false;
}

static struct version *find(struct reg *r, struct version *from, const struct query *q,
			    unsigned int depth);

static bool matches(struct version *v, const struct query *q, unsigned int depth)
{
	struct query inner = { .value = q->value, .mask = q->mask, .op = v->op };

	if (!v->from)
		return (v->value & q->mask) == q->value;
	if (depth == MAX_DEPTH)
		return true; /* copies of copies, all at the same time: let it be */
	inner.begin = v->from_begin;
	inner.end = v->from_end;
	return find(v->from, v->from->newest, &inner, depth + 1);
}

/* the next version from @v on that the read may have seen */
static struct version *find(struct reg *r, struct version *v, const struct query *q,
			    unsigned int depth)
{
	for (; v; v = v->older)
		if (!v->dead && v->op != q->op && v->begin <= q->end && !superseded(r, v, q) &&
		    matches(v, q, depth))
			return v;
	return NULL;
}

bool model_saw(struct reg *r, uint64_t value, uint64_t begin, uint64_t end)
{
	struct query q = { .value = value, .mask = ~0ULL, .begin = begin, .end = end, .op = ~0ULL };
	struct version *v = find(r, r->newest, &q, 0);

	if (!v)
		return false;
	if (!find(r, v->older, &q, 0)) {
		v->maybe = false;
		v->end = ENV_MIN(v->end, end);
	}
	return true;
}

bool model_saw_bits(struct reg *r, uint64_t mask, uint64_t want, uint64_t begin, uint64_t end)
{
	struct query q = { .value = want, .mask = mask, .begin = begin, .end = end, .op = ~0ULL };

	return find(r, r->newest, &q, 0);
}

void model_print(struct reg *r, char *buf, size_t len)
{
	const struct version *v;
	size_t n = 0;

	buf[0] = 0;
	for (v = r->newest; v && n < len; v = v->older)
		if (!v->dead)
			n += snprintf(buf + n, len - n, " %s%llx%s@[%lld,%lld]op%lld",
				      v->from ? "copy of " : "",
				      (unsigned long long)(v->from ? v->from - &words[0][0]
								   : (long)v->value),
				      v->maybe ? "?" : "", (long long)v->begin, (long long)v->end,
				      (long long)v->op);
}
