// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: inject - fail or delay calls of a driver
 *
 * "inject(soft):op=copy,nth=3" is a soft device whose third copy() fails. The same options choose
 * the same calls on every run: they are numbered as they arrive, and rate= draws from the number
 * and the seed, not from a clock.
 *
 * A call that is made to fail does what a bad device would: map() and copy() do the first half of
 * their work before they fail, copy_wait() waits for the batch and then denies it. With a delay but
 * no error the chosen calls are late and then right. Without options nothing is chosen.
 *
 * With lost=1 the device dies in the first chosen call: a copy says so by its error (-ENODEV), any
 * other op to core (balun_device_lost()) from inside, and from then on every call that can fail
 * does.
 */
#include "drivers/wrap.h"

enum inject_op {
	INJECT_OPEN,
	INJECT_ATTACH,
	INJECT_MAP,
	INJECT_COPY,
	INJECT_COPY_WAIT,
	INJECT_ALLOC,
	INJECT_PEER_ADDR,
	INJECT_ACTIVE,
	INJECT_CAN_FAIL, /* how many of the ops can fail; the ones below can only be late */
	INJECT_UNMAP = INJECT_CAN_FAIL,
	INJECT_NR,
};

/* the op's word in op=, and the error that its contract gives for "no" */
static const struct {
	const char *name;
	int err;
} inject_ops[INJECT_NR] = {
	[INJECT_OPEN] = { "open", -ENODEV },
	[INJECT_ATTACH] = { "attach", -ENOMEM },
	[INJECT_MAP] = { "map", -ENOMEM },
	[INJECT_COPY] = { "copy", -EIO },
	[INJECT_COPY_WAIT] = { "copy_wait", -EIO },
	[INJECT_ALLOC] = { "alloc", -ENOMEM },
	[INJECT_PEER_ADDR] = { "peer_addr", -EOPNOTSUPP },
	[INJECT_ACTIVE] = { "active", -EIO },
	[INJECT_UNMAP] = { "unmap", 0 },
};

static const struct {
	const char *name;
	int err;
} inject_errors[] = {
	{ "EIO", -EIO },       { "ENOMEM", -ENOMEM },	      { "ENODEV", -ENODEV },
	{ "EINVAL", -EINVAL }, { "EOPNOTSUPP", -EOPNOTSUPP }, { "ETIMEDOUT", -ETIMEDOUT },
	{ "EAGAIN", -EAGAIN }, { "EBUSY", -EBUSY },
};

struct inject {
	struct wrap in;
	uint32_t ops; /* bit per inject_op: the ones that are numbered */
	uint64_t nth, every, rate, seed;
	bool fail; /* else only late */
	bool lose; /* a chosen call is the device's end */
	bool dead; /* it was; relaxed accesses: who is late by a call is a call that was before */
	struct balun_device *dev;
	int err;	/* 0: the op's own */
	uint64_t delay; /* ns */
	uint64_t calls; /* numbered so far */
};

/* splitmix64: a good bit mixer in three lines */
static uint64_t inject_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static bool inject_chosen(const struct inject *in, uint64_t n)
{
	return n == in->nth || (in->every && n % in->every == 0) ||
	       (in->rate && inject_mix(in->seed ^ inject_mix(n)) % in->rate == 0);
}

/* what a call of a dead device answers */
static int inject_dead(enum inject_op op)
{
	if (op == INJECT_COPY || op == INJECT_COPY_WAIT)
		return -ENODEV;
	return op < INJECT_CAN_FAIL ? -EIO : 0;
}

/* Number a call, delay it if it is chosen. Return: the error that it shall fail with, or 0. */
static int inject(struct inject *in, enum inject_op op)
{
	if (env_load_relaxed(&in->dead))
		return inject_dead(op);
	if (!(in->ops & 1U << op))
		return 0;
	/* an atomic add gives every call a number of its own, whichever thread makes it */
	if (!inject_chosen(in, env_add(&in->calls, 1) + 1))
		return 0;
	if (in->delay)
		env_sleep_ns(in->delay);
	if (in->lose) {
		env_store_relaxed(&in->dead, true);
		if (inject_dead(op) != -ENODEV)
			balun_device_lost(in->dev);
		return inject_dead(op);
	}
	if (!in->fail)
		return 0;
	return in->err ? in->err : inject_ops[op].err;
}

static int inject_parse_op(struct inject *in, const struct balun_options *opt)
{
	const char *word = balun_opt_str(opt, "op", "all");
	unsigned int i;

	if (!strcmp(word, "all")) {
		in->ops = (1U << INJECT_CAN_FAIL) - 1;
		return 0;
	}
	for (i = 0; i < INJECT_NR; i++)
		if (!strcmp(word, inject_ops[i].name)) {
			in->ops = 1U << i;
			return 0;
		}
	return balun_opt_fail(opt, "op",
			      "must be open, attach, map, copy, copy_wait, alloc, peer_addr, "
			      "active, unmap or all");
}

static int inject_parse_error(struct inject *in, const struct balun_options *opt)
{
	const char *word = balun_opt_str(opt, "error", NULL);
	size_t i;

	if (!word)
		return 0;
	for (i = 0; i < sizeof(inject_errors) / sizeof(inject_errors[0]); i++)
		if (!strcmp(word, inject_errors[i].name)) {
			in->err = inject_errors[i].err;
			return 0;
		}
	return balun_opt_fail(opt, "error",
			      "must be EIO, ENOMEM, ENODEV, EINVAL, EOPNOTSUPP, ETIMEDOUT, EAGAIN "
			      "or EBUSY");
}

/* an option that is 0 or 1 */
static int inject_parse_switch(const struct balun_options *opt, const char *key, bool *ret_on)
{
	uint64_t v;
	int err = balun_opt_size(opt, key, 0, &v);

	if (!err && v > 1)
		err = balun_opt_fail(opt, key, "must be 0 or 1");
	*ret_on = v == 1;
	return err;
}

static int inject_parse_numbers(struct inject *in, const struct balun_options *opt)
{
	int err;

	err = balun_opt_size(opt, "nth", 0, &in->nth);
	if (!err)
		err = balun_opt_size(opt, "every", 0, &in->every);
	if (!err)
		err = balun_opt_size(opt, "rate", 0, &in->rate);
	if (!err)
		err = balun_opt_size(opt, "seed", 1, &in->seed);
	if (!err)
		err = balun_opt_time(opt, "delay", 0, &in->delay);
	if (!err)
		err = inject_parse_switch(opt, "lost", &in->lose);
	return err;
}

static int inject_parse(struct inject *in, const struct balun_options *opt)
{
	int err;

	err = inject_parse_op(in, opt);
	if (!err)
		err = inject_parse_error(in, opt);
	if (!err)
		err = inject_parse_numbers(in, opt);
	if (err)
		return err;

	/* what to do, but not to which calls: to every one */
	if ((in->err || in->delay || in->lose) && !in->nth && !in->every && !in->rate)
		in->every = 1;
	/* which calls, but not what to do: fail */
	in->fail = in->err || !in->delay;
	if (in->lose)
		in->ops &= ~(1U << INJECT_OPEN); /* there is no device yet that could be lost */
	if (in->ops == 1U << INJECT_UNMAP && in->fail && !in->lose &&
	    (in->nth || in->every || in->rate))
		return balun_opt_fail(opt, "op", "unmap cannot fail: give a delay and no error");
	return 0;
}

static int inject_open(struct balun_device *dev, const struct balun_options *opt,
		       struct balun_desc *ret_desc, void **ret_priv)
{
	struct inject *in = balun_mem_alloc(sizeof(*in));
	bool nomove;
	int err;

	if (!in)
		return -ENOMEM;
	err = inject_parse(in, opt);
	if (!err)
		err = inject_parse_switch(opt, "nomove", &nomove);
	in->dev = dev;
	if (!err)
		err = inject(in, INJECT_OPEN);
	if (!err)
		err = wrap_open(&in->in, dev, opt, ret_desc);
	if (err) {
		balun_mem_free(in, sizeof(*in));
		return err;
	}
	if (nomove) {
		ret_desc->caps &= ~(BALUN_CAP_HOST_MEMORY | BALUN_CAP_COHERENT);
		ret_desc->host_base = NULL;
	}
	*ret_priv = in;
	return 0;
}

static void inject_close(void *priv)
{
	struct inject *in = priv;

	in->in.ops.close(in->in.priv);
	balun_mem_free(in, sizeof(*in));
}

static int inject_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	struct inject *in = priv;
	int err = inject(in, INJECT_MAP);

	if (!err)
		return in->in.ops.map(in->in.priv, space, seg, n);
	if (n > 1)
		(void)in->in.ops.map(in->in.priv, space, seg, n / 2);
	return err;
}

static void inject_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			 enum balun_cause cause)
{
	struct inject *in = priv;

	(void)inject(in, INJECT_UNMAP);
	in->in.ops.unmap(in->in.priv, space, va, len, cause);
}

static int inject_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct inject *in = priv;
	int err = inject(in, INJECT_COPY);
	uint64_t cookie;

	if (!err)
		return in->in.ops.copy(in->in.priv, op, n, ret_cookie);
	/* the half that is done must be over when we say no: its memory is used otherwise then */
	if (n > 1 && !in->in.ops.copy(in->in.priv, op, n / 2, &cookie))
		(void)in->in.ops.copy_wait(in->in.priv, cookie);
	return err;
}

static int inject_copy_wait(void *priv, uint64_t cookie)
{
	struct inject *in = priv;
	int err = inject(in, INJECT_COPY_WAIT);
	int inner = in->in.ops.copy_wait(in->in.priv, cookie);

	return err ? err : inner;
}

static int inject_attach(void *priv, struct balun_space *space)
{
	struct inject *in = priv;
	int err = inject(in, INJECT_ATTACH);

	return err ? err : in->in.ops.attach(in->in.priv, space);
}

static void inject_gone(void *priv, struct balun_space *space)
{
	struct inject *in = priv;

	in->in.ops.gone(in->in.priv, space);
}

static int inject_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	struct inject *in = priv;
	int err = inject(in, INJECT_ALLOC);

	return err ? err : in->in.ops.alloc(in->in.priv, len, ret_off);
}

static void inject_free(void *priv, uint64_t off, uint64_t len)
{
	struct inject *in = priv;

	in->in.ops.free(in->in.priv, off, len);
}

static void inject_trim(void *priv, uint64_t off, uint64_t len)
{
	struct inject *in = priv;

	in->in.ops.trim(in->in.priv, off, len);
}

static uint64_t inject_footprint(void *priv)
{
	struct inject *in = priv;

	return in->in.ops.footprint(in->in.priv);
}

static void inject_unmap_begin(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			       enum balun_cause cause)
{
	struct inject *in = priv;

	(void)inject(in, INJECT_UNMAP);
	in->in.ops.unmap_begin(in->in.priv, space, va, len, cause);
}

static void inject_unmap_wait(void *priv, struct balun_space *space)
{
	struct inject *in = priv;

	in->in.ops.unmap_wait(in->in.priv, space);
}

static int inject_peer_addr(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
			    uint64_t *ret_addr)
{
	struct inject *in = priv;
	int err = inject(in, INJECT_PEER_ADDR);

	return err ? err : in->in.ops.peer_addr(in->in.priv, client, off, len, ret_addr);
}

static int inject_active(void *priv, bool on)
{
	struct inject *in = priv;
	int err = inject(in, INJECT_ACTIVE);

	/* core does not ask again for the way down: what fails there is the answer, not the work */
	if (err && on)
		return err;
	return in->in.ops.active(in->in.priv, on) ?: err;
}

static const struct balun_driver *inject_inner(void *priv, void **ret_priv)
{
	struct inject *in = priv;

	*ret_priv = in->in.priv;
	return in->in.drv;
}

extern const struct balun_driver balun_inject_driver;
const struct balun_driver balun_inject_driver = {
	.size = sizeof(struct balun_driver),
	.caps = WRAP_CAPS,
	.name = "inject",
	.help = "op=all  which calls count: open, attach, map, copy, copy_wait, alloc, peer_addr,"
		" active, unmap\n"
		"nth=0  choose the n-th call\n"
		"every=0  choose each n-th call\n"
		"rate=0  choose one call in n, at random\n"
		"seed=1  for rate\n"
		"error=ERRNO  fail with EIO, ENOMEM, ENODEV, EINVAL, EOPNOTSUPP, ETIMEDOUT, EAGAIN,"
		" EBUSY (the op's own error if neither error nor delay is given)\n"
		"delay=0  delay by this time\n"
		"lost=0  1: the device is lost in the first chosen call, and fails from then on\n"
		"nomove=0  1: hide that device memory is host memory, so that core must copy\n",
	.open = inject_open,
	.close = inject_close,
	.map = inject_map,
	.unmap = inject_unmap,
	.copy = inject_copy,
	.copy_wait = inject_copy_wait,
	.attach = inject_attach,
	.gone = inject_gone,
	.alloc = inject_alloc,
	.free = inject_free,
	.unmap_begin = inject_unmap_begin,
	.unmap_wait = inject_unmap_wait,
	.peer_addr = inject_peer_addr,
	.active = inject_active,
	.inner = inject_inner,
	.trim = inject_trim,
	.footprint = inject_footprint,
};
