// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: stripe - the memory of several devices as one
 *
 * Units of 64 KiB go round the devices in order, so that a batch is copied by all of them at once
 * and each has the same share. The memory is as many times that of the smallest.
 *
 * A device that is gone for good is not asked any more: what it held is lost, and no more than
 * that; copies to its share fail, so those pages stay where they are. When none is left the stripe
 * is gone.
 */
#include "drivers/wrap_set.h"

#define STRIPE_UNIT (64ULL << 10)

/* a batch under way, its ops by device; a cookie is its address */
struct stripe_job {
	struct stripe_job *next; /* free ones */
	struct balun_copy op[WRAP_SET_OPS];
	unsigned int first[WRAP_SET_MAX + 1]; /* device i: from first[i] to first[i + 1] */
	uint64_t cookie[WRAP_SET_MAX];
	bool begun[WRAP_SET_MAX];
};

struct stripe {
	struct wrap_set set;
	uint64_t unit, bytes;
	struct env_mutex lock;	 /* leaf: the jobs */
	struct stripe_job *jobs; /* as many as there were batches at once */
};

static struct stripe_job *stripe_job_get(struct stripe *s)
{
	struct stripe_job *j;

	env_mutex_lock(&s->lock);
	j = s->jobs;
	if (j)
		s->jobs = j->next;
	env_mutex_unlock(&s->lock);
	return j ? j : balun_mem_alloc(sizeof(*j));
}

static void stripe_job_put(struct stripe *s, struct stripe_job *j)
{
	env_mutex_lock(&s->lock);
	j->next = s->jobs;
	s->jobs = j;
	env_mutex_unlock(&s->lock);
}

/* where [off, off + len) begins, and how much of it is there. Returns the device */
static unsigned int stripe_place(const struct stripe *s, uint64_t off, uint64_t *ret_off,
				 uint64_t *ret_len)
{
	uint64_t unit = off / s->unit, in = off % s->unit;

	*ret_off = unit / s->set.n * s->unit + in;
	*ret_len = ENV_MIN(*ret_len, s->unit - in);
	return unit % s->set.n;
}

/* the first part of *op: cut off from it. Returns its device */
static unsigned int stripe_cut(const struct stripe *s, struct balun_copy *op,
			       struct balun_copy *ret_part)
{
	bool write = op->dst_kind == BALUN_KIND_LOCAL;
	uint64_t len = op->len, off;
	unsigned int i = stripe_place(s, write ? op->dst : op->src, &off, &len);

	*ret_part = *op;
	ret_part->len = len;
	*(write ? &ret_part->dst : &ret_part->src) = off;
	op->dst += len;
	op->src += len;
	op->len -= len;
	return i;
}

static int stripe_check(const struct stripe *s, const struct balun_copy *op)
{
	bool write = op->dst_kind == BALUN_KIND_LOCAL;
	uint64_t off = write ? op->dst : op->src;

	/* inside of one device, or from another's memory: not by these */
	if (write ? op->src_kind != BALUN_KIND_SYSTEM && op->src_kind != BALUN_KIND_ZERO
		  : op->src_kind != BALUN_KIND_LOCAL)
		return -EOPNOTSUPP;
	return off > s->bytes || op->len > s->bytes - off ? -EINVAL : 0;
}

/* the ops cut up and sorted by device */
static int stripe_sort(const struct stripe *s, struct stripe_job *j, const struct balun_copy *op,
		       size_t n)
{
	unsigned int at[WRAP_SET_MAX + 1] = { 0 }, i, parts = 0;
	struct balun_copy rest, part;
	size_t k;
	int err;

	for (k = 0; k < n; k++) {
		err = stripe_check(s, &op[k]);
		if (err)
			return err;
		for (rest = op[k]; rest.len; parts++)
			at[stripe_cut(s, &rest, &part) + 1]++;
	}
	if (parts > WRAP_SET_OPS)
		return -EINVAL;
	for (i = 0; i < s->set.n; i++)
		at[i + 1] += at[i];
	memcpy(j->first, at, sizeof(at));
	for (k = 0; k < n; k++)
		for (rest = op[k]; rest.len;) {
			i = stripe_cut(s, &rest, &part);
			j->op[at[i]++] = part;
		}
	return 0;
}

/* what an error of one device means for the stripe */
static int stripe_error(struct stripe *s, unsigned int i, int err)
{
	if (err != -ENODEV)
		return err;
	wrap_set_drop(&s->set, i, "it is gone, and what it held is lost");
	return wrap_set_all_gone(&s->set) ? -ENODEV : -EIO;
}

static int stripe_begin(struct stripe *s, struct stripe_job *j, unsigned int i)
{
	const struct wrap *w = &s->set.in[i];
	unsigned int n = j->first[i + 1] - j->first[i];
	int err;

	if (!n)
		return 0;
	if (wrap_set_is_gone(&s->set, i))
		return stripe_error(s, i, -ENODEV);
	err = w->ops.copy(w->priv, j->op + j->first[i], n, &j->cookie[i]);
	j->begun[i] = !err;
	return stripe_error(s, i, err);
}

/* all that have begun, whatever the first says */
static int stripe_wait(struct stripe *s, struct stripe_job *j)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < s->set.n; i++) {
		const struct wrap *w = &s->set.in[i];
		int e = 0;

		if (j->begun[i])
			e = stripe_error(s, i, w->ops.copy_wait(w->priv, j->cookie[i]));
		err = err ? err : e;
	}
	return err;
}

static int stripe_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct stripe *s = priv;
	struct stripe_job *j = stripe_job_get(s);
	unsigned int i;
	int err;

	if (!j)
		return -ENOMEM;
	memset(j->begun, 0, sizeof(j->begun));
	err = stripe_sort(s, j, op, n);
	for (i = 0; !err && i < s->set.n; i++)
		err = stripe_begin(s, j, i);
	if (!err) {
		*ret_cookie = (uintptr_t)j;
		return 0;
	}
	stripe_wait(s, j);
	stripe_job_put(s, j);
	return err;
}

static int stripe_copy_wait(void *priv, uint64_t cookie)
{
	struct stripe_job *j = (struct stripe_job *)(uintptr_t)cookie;
	struct stripe *s = priv;
	int err = stripe_wait(s, j);

	stripe_job_put(s, j);
	return err;
}

static int stripe_unit(struct stripe *s, const struct balun_options *opt)
{
	int err = balun_opt_size(opt, "unit", STRIPE_UNIT, &s->unit);

	if (!err &&
	    (s->unit < BALUN_PAGE_SIZE || s->unit > BALUN_BLOCK_SIZE || s->unit & (s->unit - 1)))
		err = balun_opt_fail(opt, "unit", "must be a power of two from 4K to 2M");
	return err;
}

static int stripe_open(struct balun_device *dev, const struct balun_options *opt,
		       struct balun_desc *ret_desc, void **ret_priv)
{
	struct stripe *s = balun_mem_alloc(sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	err = stripe_unit(s, opt);
	if (!err)
		err = wrap_set_open(&s->set, "stripe", dev, opt, ret_desc);
	if (err) {
		balun_mem_free(s, sizeof(*s));
		return err;
	}
	ret_desc->mem_bytes *= s->set.n;
	s->bytes = ret_desc->mem_bytes;
	env_mutex_init(&s->lock);
	*ret_priv = s;
	return 0;
}

static void stripe_close(void *priv)
{
	struct stripe *s = priv;
	struct stripe_job *j;

	wrap_set_close(&s->set);
	while ((j = s->jobs)) {
		s->jobs = j->next;
		balun_mem_free(j, sizeof(*j));
	}
	env_mutex_destroy(&s->lock);
	balun_mem_free(s, sizeof(*s));
}

static int stripe_attach(void *priv, struct balun_space *space)
{
	return wrap_set_attach(&((struct stripe *)priv)->set, space);
}

static void stripe_gone(void *priv, struct balun_space *space)
{
	wrap_set_gone(&((struct stripe *)priv)->set, space);
}

static int stripe_active(void *priv, bool on)
{
	return wrap_set_active(&((struct stripe *)priv)->set, on);
}

static void stripe_trim(void *priv, uint64_t off, uint64_t len)
{
	struct stripe *s = priv;

	while (len) {
		uint64_t at, part = len;
		unsigned int i = stripe_place(s, off, &at, &part);

		if (!wrap_set_is_gone(&s->set, i))
			s->set.in[i].ops.trim(s->set.in[i].priv, at, part);
		off += part;
		len -= part;
	}
}

static uint64_t stripe_footprint(void *priv)
{
	return wrap_set_footprint(&((struct stripe *)priv)->set);
}

extern const struct balun_driver balun_stripe_driver;
const struct balun_driver balun_stripe_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_WRAPPER,
	.name = "stripe",
	.help = "unit=64K  how much goes to a device before the next one's turn, a power of two\n",
	.open = stripe_open,
	.close = stripe_close,
	.map = wrap_set_map,
	.unmap = wrap_set_unmap,
	.copy = stripe_copy,
	.copy_wait = stripe_copy_wait,
	.attach = stripe_attach,
	.gone = stripe_gone,
	.active = stripe_active,
	.inner = wrap_set_inner,
	.trim = stripe_trim,
	.footprint = stripe_footprint,
};
