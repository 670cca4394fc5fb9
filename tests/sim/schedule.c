// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Schedules: what a seed stands for, the address space they work on, printing. */
#include "tests/sim/schedule.h"

#define BASE 0x10000000UL

/* the block boundary in the middle of each window; 65 shares the mirror locks of 1 */
static const unsigned int boundary[WINDOWS] = { 1, 3, 65 };

struct profile profile;

uint64_t page_va(unsigned int page)
{
	static const unsigned int big[BIG_PAGES] = { 0, 1, 255, 511 };
	unsigned int w = page / WINDOW_PAGES;

	if (page >= BIG_FIRST)
		return BIG_VA + big[page - BIG_FIRST] * BALUN_PAGE_SIZE;
	return BASE + boundary[w] * BALUN_BLOCK_SIZE + page % WINDOW_PAGES * BALUN_PAGE_SIZE -
	       WINDOW_PAGES / 2 * BALUN_PAGE_SIZE;
}

uint64_t word_va(unsigned int page, unsigned int word)
{
	return page_va(page) + (word ? BALUN_PAGE_SIZE - 8 : 0);
}

unsigned int entry_of(uint64_t va)
{
	unsigned int w;

	for (w = 0; w < WINDOWS; w++) {
		uint64_t first = page_va(w * WINDOW_PAGES);

		if (va >= first && va < first + WINDOW_PAGES * BALUN_PAGE_SIZE)
			return w * WINDOW_PAGES + ((va - first) >> BALUN_PAGE_SHIFT);
	}
	if (va >= BIG_VA && va < BIG_VA + BALUN_BLOCK_SIZE)
		return BIG_FIRST + ((va - BIG_VA) >> BALUN_PAGE_SHIFT);
	return ENTRIES;
}

bool chance(uint32_t one_in)
{
	return one_in && env_sim_choose(one_in) == one_in - 1;
}

void dawdle(void)
{
	unsigned int n = profile.delay && chance(profile.delay) ? env_sim_choose(4) + 1 : 0;

	while (n--)
		env_yield();
}

/* ---- making ---- */

static const struct {
	const char *name;
	uint8_t weight;
} kinds[OPS] = {
	[OP_LOAD] = { "load", 20 },	    [OP_STORE] = { "store", 20 },
	[OP_DEV_READ] = { "dev-read", 14 }, [OP_DEV_WRITE] = { "dev-write", 16 },
	[OP_DEV_SWAP] = { "dev-swap", 3 },  [OP_FAULT] = { "fault", 6 },
	[OP_MIGRATE] = { "migrate", 14 },   [OP_PREFETCH] = { "prefetch", 4 },
	[OP_SYNC] = { "sync", 1 },	    [OP_EVICT] = { "evict", 4 },
	[OP_ADVISE] = { "advise", 5 },	    [OP_PIN] = { "pin", 2 },
	[OP_UNPIN] = { "unpin", 2 },	    [OP_MUNMAP] = { "munmap", 3 },
	[OP_MMAP] = { "mmap", 4 },	    [OP_MREMAP] = { "mremap", 5 },
	[OP_MPROTECT] = { "mprotect", 4 },  [OP_DONTNEED] = { "dontneed", 4 },
	[OP_FREE] = { "free", 2 },	    [OP_FORK] = { "fork", 1 },
	[OP_CLOSE] = { "close+open", 1 },   [OP_QUERY] = { "query", 2 },
	[OP_KILL] = { "kill-device", 1 },   [OP_NOMEM] = { "fail-alloc", 4 },
};

const char *op_name(unsigned int kind)
{
	return kinds[kind].name;
}

static uint64_t rng_state;

static uint64_t rng(void)
{
	uint64_t z = (rng_state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static unsigned int below(unsigned int n)
{
	return rng() % n;
}

static void make_profile(struct profile *p)
{
	*p = (struct profile){ .shared = !below(3) };
	if (below(2))
		p->delay = 2 + below(6);
	if (!below(3))
		p->policy = 2 + below(6);
	if (!below(3))
		return; /* nothing fails */
	if (below(2))
		p->copy = 3 + below(10);
	if (below(2))
		p->map = 4 + below(20);
	if (below(2))
		p->alloc = 3 + below(20);
	if (!below(3))
		p->open = 2 + below(4);
	if (below(2))
		p->peer = 2 + below(4);
	p->memory = !below(3);
	p->loss = !below(6);
}

static unsigned int make_kind(const struct profile *p)
{
	unsigned int total = 0, k, x;

	for (k = 0; k < OPS; k++)
		total += kinds[k].weight;
	do {
		x = below(total);
		for (k = 0; x >= kinds[k].weight; k++)
			x -= kinds[k].weight;
	} while ((k == OP_KILL && !p->loss) || (k == OP_NOMEM && !p->memory));
	return k;
}

static unsigned int make_page(unsigned int hot)
{
	unsigned int x = below(20);

	if (x < 12)
		return hot * WINDOW_PAGES + below(WINDOW_PAGES);
	if (x < 18)
		return below(BIG_FIRST);
	return BIG_FIRST + below(BIG_PAGES);
}

/* both places private memory, disjoint, also if it grows by a page; arg: the target */
static void make_mremap(struct op *op)
{
	unsigned int n = 1 + below(4), a = below(BIG_FIRST - WINDOW_PAGES), b;

	a -= a % WINDOW_PAGES + n > WINDOW_PAGES ? a % WINDOW_PAGES + n - WINDOW_PAGES : 0;
	do {
		b = below(BIG_FIRST - WINDOW_PAGES);
	} while (b % WINDOW_PAGES + n > WINDOW_PAGES || (a < b + n && b < a + n));
	if (!below(8)) { /* a part of a block that moves as one */
		a = BIG_FIRST + below(BIG_PAGES);
		n = 1;
	}
	op->page = a;
	op->n = n;
	op->arg = b;
}

static void make_op(struct op *op, const struct schedule *s, unsigned int hot)
{
	unsigned int room;

	op->thread = below(s->nthreads);
	op->kind = make_kind(&s->profile);
	op->page = make_page(hot);
	room = op->page < BIG_FIRST ? WINDOW_PAGES - op->page % WINDOW_PAGES : BIG_PAGES;
	op->n = 1 + below(ENV_MIN(room, 5u));
	op->device = below(DEVICES);
	op->flags = below(256);
	op->arg = rng();
	if (op->kind == OP_MREMAP)
		make_mremap(op);
	if (op->kind == OP_DEV_READ || op->kind == OP_DEV_WRITE || op->kind == OP_DEV_SWAP ||
	    op->kind == OP_FAULT || op->kind == OP_KILL)
		op->device %= DEVICES - 1;
}

void schedule_make(struct schedule *s, uint64_t seed)
{
	unsigned int i, hot;

	memset(s, 0, sizeof(*s));
	rng_state = seed * 0x2545f4914f6cdd1dULL + 1;
	make_profile(&s->profile);
	s->nthreads = 2 + below(4);
	s->nops = 10 + below(50);
	s->room = below(3) ? 3 + below(20) : 0;
	s->options = below(2048);
	hot = below(WINDOWS);
	for (i = 0; i < s->nops; i++) {
		make_op(&s->op[i], s, hot);
		s->op[i].no = i + 1;
	}
	if (s->profile.loss) { /* early enough for what comes after to matter */
		struct op *op = &s->op[below(s->nops / 2)];

		op->kind = OP_KILL;
		op->device %= DEVICES - 1;
	}
}

void schedule_print(const struct schedule *s, FILE *out)
{
	const struct profile *p = &s->profile;
	unsigned int i;

	fprintf(out,
		"one in so many fails: copy %u map %u alloc %u open %u peer %u; delay %u; odd "
		"policy %u%s%s%s\n",
		p->copy, p->map, p->alloc, p->open, p->peer, p->delay, p->policy,
		p->shared ? "; pages 16-23 are shared memory" : "",
		p->memory ? "; memory runs out" : "", p->loss ? "; devices die" : "");
	fprintf(out, "device 0 hands out %u pages; options 0x%x\n", s->room, s->options);
	for (i = 0; i < s->nops; i++) {
		const struct op *op = &s->op[i];

		fprintf(out,
			"  op %2llu thread %u: %-11s page %2u n %u device %u flags %02x arg %llx\n",
			(unsigned long long)op->no, op->thread, op_name(op->kind), op->page, op->n,
			op->device, op->flags,
			(unsigned long long)(op->kind == OP_MREMAP ? op->arg : op->arg & 0xffff));
	}
}
