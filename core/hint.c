// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Hints and pins of a space. Both are sorted arrays: they are looked at on every fault and change
 * rarely. Where there are none, the count alone is read, without the lock.
 */
#include "core/hint.h"

#define NO_HINT ((struct hint){ 0 })

struct hint_range {
	uint64_t va, end;
	struct hint h;
};

struct pin {
	uint64_t va, len;
};

/* a growing array: room is made before anything changes, so that a change cannot fail half way */
struct array {
	void *p;
	size_t n, room; /* n is also read without the lock */
};

struct hint_table {
	struct env_mutex lock;
	struct array ranges; /* struct hint_range: disjoint, in order, none without a hint */
	struct array pins;   /* struct pin: in order of va, then len */
	uint64_t longest;    /* no pin is longer */
};

static int array_reserve(struct array *a, size_t n, size_t size)
{
	size_t room = a->room ? a->room * 2 : 16;
	void *p;

	if (a->n + n <= a->room)
		return 0;
	room = ENV_MAX(room, a->n + n);
	p = env_alloc(room * size);
	if (!p)
		return -ENOMEM;
	if (a->n)
		memcpy(p, a->p, a->n * size);
	env_free(a->p);
	a->p = p;
	a->room = room;
	return 0;
}

static void array_insert(struct array *a, size_t i, const void *e, size_t size)
{
	char *p = (char *)a->p + i * size;

	memmove(p + size, p, (a->n - i) * size);
	memcpy(p, e, size);
	env_store_relaxed(&a->n, a->n + 1);
}

static void array_remove(struct array *a, size_t i, size_t n, size_t size)
{
	char *p = (char *)a->p + i * size;

	memmove(p, p + n * size, (a->n - i - n) * size);
	env_store_relaxed(&a->n, a->n - n);
}

struct hint_table *hint_create(void)
{
	struct hint_table *t = env_alloc(sizeof(*t));

	if (t)
		env_mutex_init(&t->lock);
	return t;
}

void hint_destroy(struct hint_table *t)
{
	if (!t)
		return;
	env_mutex_destroy(&t->lock);
	env_free(t->ranges.p);
	env_free(t->pins.p);
	env_free(t);
}

/* ---- hints ---- */

static struct hint_range *range_at(const struct hint_table *t, size_t i)
{
	return (struct hint_range *)t->ranges.p + i;
}

/* the first range that ends after @va, or the number of ranges */
static size_t range_find(const struct hint_table *t, uint64_t va)
{
	size_t lo = 0, hi = t->ranges.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (range_at(t, mid)->end > va)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* the range that has @va, or NULL */
static struct hint_range *range_of(const struct hint_table *t, uint64_t va)
{
	size_t i = range_find(t, va);

	return i < t->ranges.n && range_at(t, i)->va <= va ? range_at(t, i) : NULL;
}

/* no range has @va inside: there is room for one more */
static void range_split(struct hint_table *t, uint64_t va)
{
	size_t i = range_find(t, va);
	struct hint_range left;

	if (i == t->ranges.n || range_at(t, i)->va >= va)
		return;
	left = *range_at(t, i);
	left.end = va;
	range_at(t, i)->va = va;
	array_insert(&t->ranges, i, &left, sizeof(left));
}

/* give the parts of [va, end) that have no range an empty one: there is room */
static void range_fill(struct hint_table *t, uint64_t va, uint64_t end)
{
	size_t i = range_find(t, va);

	while (va < end) {
		struct hint_range r = { .va = va, .end = end };

		if (i < t->ranges.n)
			r.end = ENV_MIN(end, range_at(t, i)->va);
		if (r.va < r.end)
			array_insert(&t->ranges, i, &r, sizeof(r));
		va = range_at(t, i++)->end;
	}
}

static bool hint_none(const struct hint *h)
{
	return !h->flags && !h->accessed_by;
}

static bool hint_equal(const struct hint *a, const struct hint *b)
{
	return a->flags == b->flags && a->preferred == b->preferred &&
	       a->accessed_by == b->accessed_by;
}

/* drop ranges without a hint, join neighbours with equal ones; never needs room */
static void ranges_tidy(struct hint_table *t)
{
	size_t i, n = 0;

	for (i = 0; i < t->ranges.n; i++) {
		struct hint_range *r = range_at(t, i), *last = n ? range_at(t, n - 1) : NULL;

		if (hint_none(&r->h))
			continue;
		if (last && last->end == r->va && hint_equal(&last->h, &r->h)) {
			last->end = r->end;
			last->h.writes = ENV_MAX(last->h.writes, r->h.writes);
			continue;
		}
		*range_at(t, n++) = *r;
	}
	env_store_relaxed(&t->ranges.n, n);
}

static void apply(struct hint *h, enum balun_advice advice, unsigned int dev)
{
	switch (advice) {
	case BALUN_ADVISE_PREFERRED_LOCATION:
		h->flags |= BALUN_HINT_PREFERRED;
		h->preferred = dev;
		break;
	case BALUN_ADVISE_ACCESSED_BY:
		h->accessed_by |= 1u << dev;
		break;
	case BALUN_ADVISE_READ_MOSTLY:
		h->flags |= BALUN_HINT_READ_MOSTLY;
		h->writes = 0;
		break;
	default:
		*h = NO_HINT;
	}
}

/* how many ranges touch [va, end) */
static size_t ranges_in(const struct hint_table *t, uint64_t va, uint64_t end)
{
	size_t first = range_find(t, va), i = first;

	while (i < t->ranges.n && range_at(t, i)->va < end)
		i++;
	return i - first;
}

static int set(struct hint_table *t, uint64_t va, uint64_t end, enum balun_advice advice,
	       unsigned int dev)
{
	size_t i;

	/* two splits, and an empty range before, between and after those that are there */
	if (array_reserve(&t->ranges, ranges_in(t, va, end) + 3, sizeof(struct hint_range)))
		return -ENOMEM;
	range_split(t, va);
	range_split(t, end);
	range_fill(t, va, end);
	for (i = range_find(t, va); i < t->ranges.n && range_at(t, i)->va < end; i++)
		apply(&range_at(t, i)->h, advice, dev);
	ranges_tidy(t);
	return 0;
}

int hint_set(struct hint_table *t, uint64_t va, uint64_t len, enum balun_advice advice,
	     unsigned int dev)
{
	bool by = advice == BALUN_ADVISE_ACCESSED_BY;
	int err;

	if (!len || va + len < va || dev > BALUN_MAX_DEVICES || (by && !dev) ||
	    (unsigned int)advice > BALUN_ADVISE_READ_MOSTLY)
		return -EINVAL;
	env_mutex_lock(&t->lock);
	err = set(t, va, va + len, advice, dev);
	env_mutex_unlock(&t->lock);
	return err;
}

void hint_get(struct hint_table *t, uint64_t va, struct hint *ret)
{
	const struct hint_range *r;

	*ret = NO_HINT;
	/* a hint that is being given at this moment may be missed: it is one */
	if (env_likely(!env_load_relaxed(&t->ranges.n)))
		return;
	env_mutex_lock(&t->lock);
	r = range_of(t, va);
	if (r)
		*ret = r->h;
	env_mutex_unlock(&t->lock);
}

bool hint_device_wrote(struct hint_table *t, uint64_t va)
{
	bool off = false;
	struct hint_range *r;

	if (env_likely(!env_load_relaxed(&t->ranges.n)))
		return false;
	env_mutex_lock(&t->lock);
	r = range_of(t, va);
	if (r && r->h.flags & BALUN_HINT_READ_MOSTLY && ++r->h.writes >= HINT_READ_MOSTLY_WRITES) {
		r->h.flags &= ~BALUN_HINT_READ_MOSTLY;
		r->h.writes = 0;
		ranges_tidy(t);
		off = true;
	}
	env_mutex_unlock(&t->lock);
	return off;
}

void hint_forget_device(struct hint_table *t, unsigned int dev)
{
	size_t i;

	env_mutex_lock(&t->lock);
	for (i = 0; i < t->ranges.n; i++) {
		struct hint *h = &range_at(t, i)->h;

		h->accessed_by &= ~(1u << dev);
		if (h->flags & BALUN_HINT_PREFERRED && h->preferred == dev) {
			h->flags &= ~BALUN_HINT_PREFERRED;
			h->preferred = 0;
		}
	}
	ranges_tidy(t);
	env_mutex_unlock(&t->lock);
}

/* ---- pins ---- */

static struct pin *pin_at(const struct hint_table *t, size_t i)
{
	return (struct pin *)t->pins.p + i;
}

/* the first pin that is not before (va, len) */
static size_t pin_find(const struct hint_table *t, uint64_t va, uint64_t len)
{
	size_t lo = 0, hi = t->pins.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct pin *p = pin_at(t, mid);

		if (p->va < va || (p->va == va && p->len < len))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int hint_pin(struct hint_table *t, uint64_t va, uint64_t len)
{
	const struct pin pin = { va, len };
	int err;

	env_mutex_lock(&t->lock);
	err = array_reserve(&t->pins, 1, sizeof(pin));
	if (!err) {
		array_insert(&t->pins, pin_find(t, va, len), &pin, sizeof(pin));
		t->longest = ENV_MAX(t->longest, len);
	}
	env_mutex_unlock(&t->lock);
	return err;
}

int hint_unpin(struct hint_table *t, uint64_t va, uint64_t len)
{
	int err = -ENOENT;
	size_t i;

	env_mutex_lock(&t->lock);
	i = pin_find(t, va, len);
	if (i < t->pins.n && pin_at(t, i)->va == va && pin_at(t, i)->len == len) {
		array_remove(&t->pins, i, 1, sizeof(struct pin));
		if (!t->pins.n)
			t->longest = 0;
		err = 0;
	}
	env_mutex_unlock(&t->lock);
	return err;
}

bool hint_pinned(struct hint_table *t, uint64_t block_va, uint64_t *ret_bits)
{
	uint64_t end = block_va + BALUN_BLOCK_SIZE;
	bool any = false;
	size_t i;

	memset(ret_bits, 0, sizeof(env_bits));
	/* a pin that is being made at this moment is not promised yet */
	if (env_likely(!env_load_relaxed(&t->pins.n)))
		return false;
	env_mutex_lock(&t->lock);
	/* a pin that begins longest or more before the block does not reach it */
	i = pin_find(t, block_va > t->longest ? block_va - t->longest : 0, 0);
	for (; i < t->pins.n && pin_at(t, i)->va < end; i++) {
		uint64_t from = ENV_MAX(pin_at(t, i)->va, block_va);
		uint64_t to = ENV_MIN(pin_at(t, i)->va + pin_at(t, i)->len, end);

		if (from >= to)
			continue;
		from = (from - block_va) >> BALUN_PAGE_SHIFT;
		to = (to - block_va + BALUN_PAGE_SIZE - 1) >> BALUN_PAGE_SHIFT;
		env_bits_set_range(ret_bits, from, to - from);
		any = true;
	}
	env_mutex_unlock(&t->lock);
	return any;
}

uint64_t hint_next_pin(struct hint_table *t, uint64_t va)
{
	uint64_t next = UINT64_MAX;
	size_t i;

	if (env_likely(!env_load_relaxed(&t->pins.n)))
		return next;
	env_mutex_lock(&t->lock);
	i = pin_find(t, va, 0);
	if (i < t->pins.n)
		next = pin_at(t, i)->va;
	env_mutex_unlock(&t->lock);
	return next;
}

uint64_t hint_bytes(struct hint_table *t)
{
	uint64_t n;

	env_mutex_lock(&t->lock);
	n = sizeof(*t) + t->ranges.room * sizeof(struct hint_range) +
	    t->pins.room * sizeof(struct pin);
	env_mutex_unlock(&t->lock);
	return n;
}
