/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What stripe and mirror share: the devices inside, opened and ended as one. To core the device is
 * memory and nothing more (wrap_as_memory()).
 */
#ifndef BALUN_DRIVERS_WRAP_SET_H
#define BALUN_DRIVERS_WRAP_SET_H

#include "drivers/wrap.h"

#define WRAP_SET_MAX 15 /* a spec has at most 16 drivers */
/* of a batch: at most 2 MiB, in parts of a page or more */
#define WRAP_SET_OPS 512

struct wrap_set {
	const char *name; /* the wrapper's */
	unsigned int n;
	struct wrap in[WRAP_SET_MAX];
	uint32_t gone; /* a bit each: is not asked any more; only grows */
};

static inline void wrap_set_close(struct wrap_set *s)
{
	while (s->n)
		s->in[s->n - 1].ops.close(s->in[s->n - 1].priv), s->n--;
}

static inline int wrap_set_open_one(struct wrap_set *s, struct balun_device *dev,
				    const struct balun_options *opt, struct balun_desc *desc)
{
	struct wrap *w = &s->in[s->n];
	int err = balun_inner_open_nth(dev, opt, s->n, &w->drv, desc, &w->priv);

	if (err)
		return err;
	wrap_fill(w);
	s->n++; /* wrap_set_close() closes it */
	return wrap_as_memory(w, s->name, 0, desc);
}

/* two or more. *ret_desc: of the smallest */
static inline int wrap_set_open(struct wrap_set *s, const char *name, struct balun_device *dev,
				const struct balun_options *opt, struct balun_desc *ret_desc)
{
	unsigned int i, n = balun_inner_count(opt);
	uint64_t smallest = UINT64_MAX;
	int err = 0;

	s->name = name;
	if (n < 2 || n > WRAP_SET_MAX) {
		env_reason("%s stands over 2 to %d devices: write %s(NAME:...,NAME:...)", name,
			   WRAP_SET_MAX, name);
		return -EINVAL;
	}
	for (i = 0; !err && i < n; i++) {
		memset(ret_desc, 0, sizeof(*ret_desc));
		err = wrap_set_open_one(s, dev, opt, ret_desc);
		smallest = ENV_MIN(smallest, ret_desc->mem_bytes);
	}
	ret_desc->mem_bytes = smallest;
	if (err)
		wrap_set_close(s);
	return err;
}

static inline bool wrap_set_is_gone(const struct wrap_set *s, unsigned int i)
{
	return env_load(&s->gone) >> i & 1;
}

/* from now on; said once */
static inline void wrap_set_drop(struct wrap_set *s, unsigned int i, const char *why)
{
	uint32_t bit = 1u << i, before = __atomic_fetch_or(&s->gone, bit, __ATOMIC_ACQ_REL);

	if (!(before & bit))
		env_log(0, "%s: device %u of %u (%s) is not used any more: %s", s->name, i + 1,
			s->n, s->in[i].drv->name, why);
}

/* whether none is left */
static inline bool wrap_set_all_gone(const struct wrap_set *s)
{
	return env_load(&s->gone) == (1u << s->n) - 1;
}

static inline int wrap_set_attach(struct wrap_set *s, struct balun_space *space)
{
	unsigned int i;
	int err = 0;

	for (i = 0; !err && i < s->n; i++)
		err = s->in[i].ops.attach(s->in[i].priv, space);
	if (err)
		for (i--; i--;)
			s->in[i].ops.gone(s->in[i].priv, space);
	return err;
}

static inline void wrap_set_gone(struct wrap_set *s, struct balun_space *space)
{
	unsigned int i;

	for (i = 0; i < s->n; i++)
		s->in[i].ops.gone(s->in[i].priv, space);
}

static inline int wrap_set_active(struct wrap_set *s, bool on)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < s->n; i++) {
		int e = s->in[i].ops.active(s->in[i].priv, on);

		err = err ? err : e;
		if (err && on) {
			while (i--)
				s->in[i].ops.active(s->in[i].priv, false);
			return err;
		}
	}
	return err;
}

/* of all; 0 if one of them does not say */
static inline uint64_t wrap_set_footprint(const struct wrap_set *s)
{
	uint64_t sum = 0, one;
	unsigned int i;

	for (i = 0; i < s->n; i++) {
		one = s->in[i].ops.footprint(s->in[i].priv);
		if (!one)
			return 0;
		sum += one;
	}
	return sum;
}

/* for what the table wants and a device without page tables has nothing to do in */
static inline int wrap_set_map(void *priv, struct balun_space *space, const struct balun_seg *seg,
			       size_t n)
{
	return 0;
}

static inline void wrap_set_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
				  enum balun_cause cause)
{
}

static inline const struct balun_driver *wrap_set_inner(void *priv, void **ret_priv)
{
	return NULL; /* there are several */
}

#endif
