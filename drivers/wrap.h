/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the wrappers share: the driver inside, callable without a test for NULL.
 *
 * The table of trace and inject has every op and every cap; the caps of a device of it are those of
 * the device inside, so core calls the grouped ops (alloc, unmap_begin, peer_addr) only where the
 * inner driver has them. The ops that stand alone (attach, gone, active, trim, footprint) get stubs
 * here.
 */
#ifndef BALUN_DRIVERS_WRAP_H
#define BALUN_DRIVERS_WRAP_H

#include "balun/driver.h"
#include "env/env.h"

#define WRAP_CAPS                                                                                  \
	(BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY | BALUN_CAP_PEER | BALUN_CAP_ALLOC |                \
	 BALUN_CAP_TWO_PHASE | BALUN_CAP_WRAPPER)

struct wrap {
	struct balun_driver ops; /* copy of the inner table, stubs filled in */
	const struct balun_driver *drv;
	void *priv;
};

static inline int wrap_no_attach(void *priv, struct balun_space *space)
{
	return 0;
}

static inline void wrap_no_gone(void *priv, struct balun_space *space)
{
}

static inline int wrap_no_active(void *priv, bool on)
{
	return 0;
}

static inline void wrap_no_trim(void *priv, uint64_t off, uint64_t len)
{
}

static inline uint64_t wrap_no_footprint(void *priv)
{
	return 0;
}

static inline void wrap_fill(struct wrap *w)
{
	w->ops = *w->drv;
	if (!w->ops.attach)
		w->ops.attach = wrap_no_attach;
	if (!w->ops.gone)
		w->ops.gone = wrap_no_gone;
	if (!w->ops.active)
		w->ops.active = wrap_no_active;
	if (!w->ops.trim)
		w->ops.trim = wrap_no_trim;
	if (!w->ops.footprint)
		w->ops.footprint = wrap_no_footprint;
}

static inline int wrap_open(struct wrap *w, struct balun_device *dev,
			    const struct balun_options *opt, struct balun_desc *ret_desc)
{
	int err = balun_inner_open(dev, opt, &w->drv, ret_desc, &w->priv);

	if (err)
		return err;
	wrap_fill(w);
	ret_desc->caps |= BALUN_CAP_WRAPPER;
	return 0;
}

/*
 * For a wrapper that changes what is stored, or where: to core the device is memory and nothing
 * more, and only the wrapper's own copies reach it. @caps: what core may see of it nevertheless
 */
static inline int wrap_as_memory(const struct wrap *w, const char *name, uint64_t caps,
				 struct balun_desc *desc)
{
	const char *why = NULL;

	if (desc->dma_device)
		why = "copies by DMA, and only core maps memory for that";
	else if (desc->caps & BALUN_CAP_ALLOC & ~caps)
		why = "chooses the places in its memory itself";
	if (why) {
		env_reason("%s: %s %s", name, w->drv->name, why);
		return -EINVAL;
	}
	desc->caps = (desc->caps & caps) | BALUN_CAP_WRAPPER;
	desc->host_base = NULL;
	desc->bar_device = NULL;
	return 0;
}

#endif
