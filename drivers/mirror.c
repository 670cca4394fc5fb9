// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: mirror - the same in several devices, of which one is enough
 *
 * Every copy to the mirror goes to all of its devices, every copy from it comes from the first that
 * is there; its memory is that of the smallest. Nothing is lost while one is left.
 *
 * A device that fails a copy which another did is dropped for good: it lacks those pages, and what
 * is not asked is not asked for them. So is one that is gone. A copy home that fails is made from
 * the next one. Where all fail a copy, or one is full, nothing is dropped: the pages stay where
 * they were, and what the places hold is nobody's.
 */
#include "drivers/wrap_set.h"

/* a batch under way; a cookie is its address */
struct mirror_job {
	struct mirror_job *next; /* free ones */
	struct balun_copy op[WRAP_SET_OPS];
	size_t n;
	bool write;
	uint32_t asked;	     /* a bit each: write: who takes part; else who was tried, */
	unsigned int source; /* and who it is now */
	uint64_t cookie[WRAP_SET_MAX];
	int err[WRAP_SET_MAX];
};

struct mirror {
	struct wrap_set set;
	struct env_mutex lock; /* leaf: the jobs, and who is dropped for a failed write */
	struct mirror_job *jobs;
};

static struct mirror_job *mirror_job_get(struct mirror *m)
{
	struct mirror_job *j;

	env_mutex_lock(&m->lock);
	j = m->jobs;
	if (j)
		m->jobs = j->next;
	env_mutex_unlock(&m->lock);
	return j ? j : balun_mem_alloc(sizeof(*j));
}

static void mirror_job_put(struct mirror *m, struct mirror_job *j)
{
	env_mutex_lock(&m->lock);
	j->next = m->jobs;
	m->jobs = j;
	env_mutex_unlock(&m->lock);
}

static bool mirror_asked(const struct mirror_job *j, unsigned int i)
{
	return j->asked >> i & 1;
}

/* ---- to the mirror ---- */

static void mirror_write(struct mirror *m, struct mirror_job *j)
{
	unsigned int i;

	j->asked = ~env_load(&m->set.gone) & ((1u << m->set.n) - 1);
	for (i = 0; i < m->set.n; i++) {
		const struct wrap *w = &m->set.in[i];

		if (mirror_asked(j, i))
			j->err[i] = w->ops.copy(w->priv, j->op, j->n, &j->cookie[i]);
	}
}

static void mirror_write_wait(struct mirror *m, struct mirror_job *j)
{
	unsigned int i;

	for (i = 0; i < m->set.n; i++) {
		const struct wrap *w = &m->set.in[i];

		if (mirror_asked(j, i) && !j->err[i])
			j->err[i] = w->ops.copy_wait(w->priv, j->cookie[i]);
	}
}

/* the error of a write that some device refuses for all: it is full; 0: none does */
static int mirror_full(const struct mirror *m, const struct mirror_job *j)
{
	unsigned int i;

	for (i = 0; i < m->set.n; i++)
		if (mirror_asked(j, i) && (j->err[i] == -ENOSPC || j->err[i] == -ENOMEM))
			return j->err[i];
	return 0;
}

/*
 * Under the lock, so that of two writes, each of which failed on the device on which the other was
 * done, the second sees that what it was done on is dropped by now, and drops nothing.
 */
static int mirror_settle(struct mirror *m, struct mirror_job *j)
{
	int err = -ENODEV, full = mirror_full(m, j);
	bool done = false;
	unsigned int i;

	env_assert_held(&m->lock);
	for (i = 0; i < m->set.n; i++)
		if (mirror_asked(j, i) && j->err[i] == -ENODEV)
			wrap_set_drop(&m->set, i, "it is gone");
	for (i = 0; i < m->set.n; i++) {
		if (!mirror_asked(j, i) || wrap_set_is_gone(&m->set, i))
			continue;
		done |= !j->err[i];
		err = j->err[i] ? j->err[i] : err;
	}
	if (full)
		return wrap_set_all_gone(&m->set) ? -ENODEV : full;
	if (!done)
		return err; /* -ENODEV: none is left */
	for (i = 0; i < m->set.n; i++)
		if (mirror_asked(j, i) && j->err[i])
			wrap_set_drop(&m->set, i, "it failed a copy");
	return 0;
}

/* ---- from the mirror ---- */

/* the next device that was not tried begins; -errno: none does */
static int mirror_read(struct mirror *m, struct mirror_job *j, int err)
{
	unsigned int i;

	for (i = 0; i < m->set.n; i++) {
		const struct wrap *w = &m->set.in[i];
		int e;

		if (mirror_asked(j, i) || wrap_set_is_gone(&m->set, i))
			continue;
		j->asked |= 1u << i;
		j->source = i;
		e = w->ops.copy(w->priv, j->op, j->n, &j->cookie[i]);
		if (!e)
			return 0;
		if (e == -ENODEV)
			wrap_set_drop(&m->set, i, "it is gone");
		err = e;
	}
	return wrap_set_all_gone(&m->set) ? -ENODEV : err == -ENODEV ? -EIO : err;
}

static int mirror_read_wait(struct mirror *m, struct mirror_job *j)
{
	int err;

	do {
		const struct wrap *w = &m->set.in[j->source];

		err = w->ops.copy_wait(w->priv, j->cookie[j->source]);
		if (!err)
			return 0;
		if (err == -ENODEV)
			wrap_set_drop(&m->set, j->source, "it is gone");
		err = mirror_read(m, j, err);
	} while (!err);
	return err;
}

/* ---- the device ---- */

static int mirror_fill(struct mirror_job *j, const struct balun_copy *op, size_t n)
{
	size_t i;

	if (!n || n > WRAP_SET_OPS)
		return -EINVAL;
	j->asked = 0;
	j->n = n;
	j->write = op->dst_kind == BALUN_KIND_LOCAL;
	for (i = 0; i < n; i++)
		if ((op[i].dst_kind == BALUN_KIND_LOCAL) != j->write ||
		    op[i].src_kind == BALUN_KIND_PEER)
			return -EOPNOTSUPP;
	memcpy(j->op, op, n * sizeof(*op));
	return 0;
}

static int mirror_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct mirror *m = priv;
	struct mirror_job *j = mirror_job_get(m);
	int err;

	if (!j)
		return -ENOMEM;
	err = mirror_fill(j, op, n);
	if (!err && j->write)
		mirror_write(m, j); /* what it says counts when all have said it */
	else if (!err)
		err = mirror_read(m, j, -ENODEV);
	if (!err)
		*ret_cookie = (uintptr_t)j;
	else
		mirror_job_put(m, j);
	return err;
}

static int mirror_copy_wait(void *priv, uint64_t cookie)
{
	struct mirror_job *j = (struct mirror_job *)(uintptr_t)cookie;
	struct mirror *m = priv;
	int err;

	if (j->write) {
		mirror_write_wait(m, j);
		env_mutex_lock(&m->lock);
		err = mirror_settle(m, j);
		env_mutex_unlock(&m->lock);
	} else {
		err = mirror_read_wait(m, j);
	}
	mirror_job_put(m, j);
	return err;
}

static int mirror_open(struct balun_device *dev, const struct balun_options *opt,
		       struct balun_desc *ret_desc, void **ret_priv)
{
	struct mirror *m = balun_mem_alloc(sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	err = wrap_set_open(&m->set, "mirror", dev, opt, ret_desc);
	if (err) {
		balun_mem_free(m, sizeof(*m));
		return err;
	}
	env_mutex_init(&m->lock);
	*ret_priv = m;
	return 0;
}

static void mirror_close(void *priv)
{
	struct mirror *m = priv;
	struct mirror_job *j;

	wrap_set_close(&m->set);
	while ((j = m->jobs)) {
		m->jobs = j->next;
		balun_mem_free(j, sizeof(*j));
	}
	env_mutex_destroy(&m->lock);
	balun_mem_free(m, sizeof(*m));
}

static int mirror_attach(void *priv, struct balun_space *space)
{
	return wrap_set_attach(&((struct mirror *)priv)->set, space);
}

static void mirror_gone(void *priv, struct balun_space *space)
{
	wrap_set_gone(&((struct mirror *)priv)->set, space);
}

static int mirror_active(void *priv, bool on)
{
	return wrap_set_active(&((struct mirror *)priv)->set, on);
}

static void mirror_trim(void *priv, uint64_t off, uint64_t len)
{
	struct mirror *m = priv;
	unsigned int i;

	for (i = 0; i < m->set.n; i++)
		if (!wrap_set_is_gone(&m->set, i))
			m->set.in[i].ops.trim(m->set.in[i].priv, off, len);
}

static uint64_t mirror_footprint(void *priv)
{
	return wrap_set_footprint(&((struct mirror *)priv)->set);
}

extern const struct balun_driver balun_mirror_driver;
const struct balun_driver balun_mirror_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_WRAPPER,
	.name = "mirror",
	.help = "",
	.open = mirror_open,
	.close = mirror_close,
	.map = wrap_set_map,
	.unmap = wrap_set_unmap,
	.copy = mirror_copy,
	.copy_wait = mirror_copy_wait,
	.attach = mirror_attach,
	.gone = mirror_gone,
	.active = mirror_active,
	.inner = wrap_set_inner,
	.trim = mirror_trim,
	.footprint = mirror_footprint,
};
