// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Devices: opening from a spec, checking what the driver says, draining and closing. */
#include "core/core.h"
#include "core/remote.h"

/* a reference for the time of a fault or migration; NULL: no such device, or closing, or lost */
struct balun_device *core_device_hold(struct balun_space *sp, unsigned int id)
{
	struct balun_device *dev = id && id < CORE_DEVICE_SLOTS ? sp->device[id] : NULL;

	env_assert_held(&sp->move_lock);
	if (!dev || dev->closing || core_is_lost(sp, id))
		return NULL;
	dev->users++;
	return dev;
}

void core_device_release(struct balun_device *dev)
{
	env_assert_held(&dev->space->move_lock);
	if (--dev->users == 0 && dev->closing)
		env_cond_wake(&dev->space->move_done);
}

struct balun_device *core_device_get(struct balun_space *sp, unsigned int id)
{
	struct balun_device *dev;

	env_mutex_lock(&sp->move_lock);
	dev = core_device_hold(sp, id);
	env_mutex_unlock(&sp->move_lock);
	return dev;
}

void core_device_put(struct balun_device *dev)
{
	struct balun_space *sp = dev->space;

	env_mutex_lock(&sp->move_lock);
	core_device_release(dev);
	env_mutex_unlock(&sp->move_lock);
}

static int op_peer_addr_none(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
			     uint64_t *ret_addr)
{
	(void)priv, (void)client, (void)off, (void)len, (void)ret_addr;
	return -EOPNOTSUPP;
}

static int op_attach_none(void *priv, struct balun_space *space)
{
	(void)priv, (void)space;
	return 0;
}

static void op_gone_none(void *priv, struct balun_space *space)
{
	(void)priv, (void)space;
}

static int op_active_none(void *priv, bool on)
{
	(void)priv, (void)on;
	return 0;
}

static void op_trim_none(void *priv, uint64_t off, uint64_t len)
{
	(void)priv, (void)off, (void)len;
}

static uint64_t op_footprint_none(void *priv)
{
	(void)priv;
	return 0;
}

/* after this no path tests an op for NULL; groups are used by desc.caps only */
static void fill_stubs(struct balun_driver *ops)
{
	if (!ops->peer_addr)
		ops->peer_addr = op_peer_addr_none;
	if (!ops->attach) {
		ops->attach = op_attach_none;
		ops->gone = op_gone_none;
	}
	if (!ops->active)
		ops->active = op_active_none;
	if (!ops->trim)
		ops->trim = op_trim_none;
	if (!ops->footprint)
		ops->footprint = op_footprint_none;
}

static int check_desc(const struct balun_driver *drv, const struct balun_desc *d)
{
	bool own = d->caps & BALUN_CAP_ALLOC && !(d->caps & BALUN_CAP_HOST_MEMORY);
	const char *why = NULL;

	if (!d->mem_bytes || d->mem_bytes % BALUN_PAGE_SIZE)
		why = "device memory must be a multiple of 4K, at least 4K";
	else if (!own && d->mem_bytes % BALUN_BLOCK_SIZE)
		why = "device memory must be a multiple of 2M, at least 2M (4K if its driver "
		      "manages it: ALLOC, not HOST_MEMORY)";
	else if (d->mem_bytes >> BALUN_PAGE_SHIFT > 1ULL << 28)
		why = "device memory must be at most 1024G";
	else if (d->caps & ~drv->caps && !(drv->caps & BALUN_CAP_WRAPPER))
		why = "the device has capabilities that its driver does not declare";
	else if (d->caps & BALUN_CAP_HOST_MEMORY &&
		 (!d->host_base || (uintptr_t)d->host_base % BALUN_BLOCK_SIZE))
		why = "host memory must be aligned to 2M";
	else if (d->caps & BALUN_CAP_COHERENT && !(d->caps & BALUN_CAP_HOST_MEMORY))
		why = "coherent memory must say where it is (HOST_MEMORY)";
	if (why)
		env_reason("%s: %s", drv->name, why);
	return why ? -EINVAL : 0;
}

static struct balun_device *device_alloc(struct balun_space *sp)
{
	struct balun_device *dev = env_alloc(sizeof(*dev));
	unsigned int i;

	if (!dev)
		return NULL;
	dev->space = sp;
	dev->fork_gen = sp->fork_gen;
	env_mutex_init(&dev->lru_lock);
	env_list_init(&dev->lru);
	for (i = 0; i < CORE_RESIDENT_HASH; i++)
		env_list_init(&dev->resident[i]);
	return dev;
}

/* puts what was got since there were @n */
static void put_drivers(struct balun_device *dev, unsigned int n)
{
	while (dev->nheld > n)
		core_driver_put(dev->held[--dev->nheld]);
}

void core_device_free(struct balun_device *dev)
{
	put_drivers(dev, 0);
	if (dev->mem)
		devmem_destroy(dev->mem);
	spec_free(dev->opt);
	env_mutex_destroy(&dev->lru_lock);
	env_free(dev);
}

/* the spec without options at dev->name + n; what does not fit is cut off. Returns the new end */
static size_t name_level(struct balun_device *dev, size_t n, const struct balun_options *o)
{
	const size_t max = sizeof(dev->name) - 1;
	const char *sep = "(";

	n = ENV_MIN(n + snprintf(dev->name + n, max + 1 - n, "%s", spec_name(o)), max);
	for (o = spec_inner(o); o; o = spec_next(o)) {
		n = ENV_MIN(n + snprintf(dev->name + n, max + 1 - n, "%s", sep), max);
		n = name_level(dev, n, o);
		sep = ",";
	}
	if (*sep == ',')
		n = ENV_MIN(n + snprintf(dev->name + n, max + 1 - n, ")"), max);
	return n;
}

static void reason_no_driver(const char *name)
{
	unsigned int i = 0;

	while (driver_absent_list[i][0] && strcmp(driver_absent_list[i][0], name))
		i++;
	if (driver_absent_list[i][0])
		env_reason("driver %s is not in this build: install the package %s and build again",
			   name, driver_absent_list[i][1]);
	else
		env_reason("no driver \"%s\" (balun devices lists them)", name);
}

static int hold_driver(struct balun_device *dev, const char *name,
		       const struct balun_driver **ret_drv)
{
	const struct balun_driver *drv;

	if (dev->nheld == SPEC_DRIVERS) {
		env_reason("a wrapper opens more than it wraps");
		return -EINVAL;
	}
	drv = core_driver_get(name);
	if (!drv) {
		reason_no_driver(name);
		return -ENODEV;
	}
	dev->held[dev->nheld++] = drv;
	*ret_drv = drv;
	return 0;
}

static int driver_open(struct balun_device *dev, const struct balun_options *opt,
		       const struct balun_driver **ret_drv, struct balun_desc *ret_desc,
		       void **ret_priv)
{
	unsigned int held = dev->nheld;
	const struct balun_driver *drv;
	int err = hold_driver(dev, spec_name(opt), &drv);

	if (err)
		return err;
	if (spec_inner(opt) && !(drv->caps & BALUN_CAP_WRAPPER)) {
		env_reason("%s wraps no other driver", drv->name);
		err = -EINVAL;
		goto err_put;
	}
	err = drv->open(dev, opt, ret_desc, ret_priv);
	if (err)
		goto err_put;
	err = spec_check_used(opt, drv->help);
	if (!err)
		err = check_desc(drv, ret_desc);
	if (err)
		goto err_close;
	*ret_drv = drv;
	return 0;

err_close:
	drv->close(*ret_priv);
err_put:
	put_drivers(dev, held); /* with those inside, which a wrapper has closed */
	return err;
}

unsigned int balun_inner_count(const struct balun_options *opt)
{
	unsigned int n = 0;

	for (opt = spec_inner(opt); opt; opt = spec_next(opt))
		n++;
	return n;
}

int balun_inner_open_nth(struct balun_device *dev, const struct balun_options *opt, unsigned int n,
			 const struct balun_driver **ret_drv, struct balun_desc *ret_desc,
			 void **ret_priv)
{
	const struct balun_options *inner = spec_inner(opt);

	while (inner && n--)
		inner = spec_next(inner);
	if (!inner) {
		env_reason("%s wraps another driver: write %s(NAME:...)", spec_name(opt),
			   spec_name(opt));
		return -EINVAL;
	}
	return driver_open(dev, inner, ret_drv, ret_desc, ret_priv);
}

int balun_inner_open(struct balun_device *dev, const struct balun_options *opt,
		     const struct balun_driver **ret_drv, struct balun_desc *ret_desc,
		     void **ret_priv)
{
	if (balun_inner_count(opt) > 1) {
		env_reason("%s wraps one driver, not several", spec_name(opt));
		return -EINVAL;
	}
	return balun_inner_open_nth(dev, opt, 0, ret_drv, ret_desc, ret_priv);
}

static int slot_find(struct balun_space *sp)
{
	unsigned int i;

	for (i = 1; i < CORE_DEVICE_SLOTS; i++)
		if (!sp->device[i])
			return i;
	env_reason("a space has at most %d devices", BALUN_MAX_DEVICES);
	return -ENOSPC;
}

/* Readers hold move_lock (core_device_get()), a stripe's lock, or a migration that uses the device.
 */
static void device_publish(struct balun_space *sp, unsigned int id, struct balun_device *dev)
{
	env_mutex_lock(&sp->move_lock);
	env_store(&sp->device[id], dev);
	env_mutex_unlock(&sp->move_lock);
}

/* memory, power, the space, the engine; then the device is there for everybody */
static int device_start(struct balun_space *sp, struct balun_device *dev)
{
	int err;

	if (!(dev->desc.caps & BALUN_CAP_ALLOC)) {
		dev->mem = devmem_create(dev->desc.mem_bytes);
		if (!dev->mem)
			return -ENOMEM;
	}
	err = dev->ops.active(dev->priv, true);
	if (err)
		return err;
	err = dev->ops.attach(dev->priv, sp);
	if (err)
		goto err_active;
	err = sp->engine->device_attach(sp->e, dev->id, &dev->desc);
	if (err)
		goto err_attach;
	device_publish(sp, dev->id, dev);
	return 0;
err_attach:
	dev->ops.gone(dev->priv, sp);
err_active:
	dev->ops.active(dev->priv, false);
	return err;
}

int core_device_open(struct balun_space *sp, const char *spec, struct balun_device **ret_dev)
{
	struct balun_device *dev = device_alloc(sp);
	int err;

	if (!dev)
		return -ENOMEM;
	err = spec_parse(spec, &dev->opt);
	if (err)
		goto err_free;
	name_level(dev, 0, dev->opt); /* "trace(ram)" for reports */
	env_mutex_lock(&sp->devices_lock);
	err = slot_find(sp);
	if (err < 0)
		goto err_unlock;
	dev->id = err;
	env_mutex_lock(&sp->move_lock);
	env_store(&sp->lost, sp->lost & ~(1u << dev->id)); /* of who had the slot before */
	env_mutex_unlock(&sp->move_lock);
	err = driver_open(dev, dev->opt, &dev->drv, &dev->desc, &dev->priv);
	if (err)
		goto err_unlock;
	dev->ops = *dev->drv;
	fill_stubs(&dev->ops);
	err = device_start(sp, dev);
	if (err)
		goto err_close;
	env_mutex_unlock(&sp->devices_lock);
	*ret_dev = dev;
	return 0;
err_close:
	dev->ops.close(dev->priv);
err_unlock:
	env_mutex_unlock(&sp->devices_lock);
err_free:
	core_device_free(dev);
	return err;
}

static void device_unused(struct balun_device *dev)
{
	struct balun_space *sp = dev->space;

	env_mutex_lock(&sp->move_lock);
	while (dev->users)
		env_cond_wait(&sp->move_done, &sp->move_lock, ENV_FOREVER);
	env_mutex_unlock(&sp->move_lock);
}

/*
 * After device[id] is gone under every stripe's lock no invalidation looks at it. Migrations are
 * waited for twice: those under way may still have pages of it in their hands, and look for it to
 * copy and free them; and one that has begun meanwhile, and has none, may have found it.
 */
static void device_unpublish(struct balun_space *sp, struct balun_device *dev)
{
	unsigned int i;

	for (i = 0; i < CORE_STRIPES; i++) {
		env_mutex_lock(&sp->stripe[i].lock);
		if (!i)
			dev->ops.unmap(dev->priv, sp, 0, 1ULL << 47, BALUN_CAUSE_TEARDOWN);
		env_mutex_unlock(&sp->stripe[i].lock);
	}
	core_moves_synchronize(sp);
	device_publish(sp, dev->id, NULL);
	core_moves_synchronize(sp);
	device_unused(dev); /* core_lose() may have found it before */
	for (i = 0; i < CORE_STRIPES; i++) {
		env_mutex_lock(&sp->stripe[i].lock);
		env_mutex_unlock(&sp->stripe[i].lock);
	}
}

/* Counted apart from users, who are refused from the beginning of the close on. */
bool core_device_enter(struct balun_device *dev)
{
	struct balun_space *sp = dev->space;
	bool ended;

	env_mutex_lock(&sp->move_lock);
	ended = dev->ended;
	dev->calls += !ended;
	env_mutex_unlock(&sp->move_lock);
	return !ended;
}

void core_device_leave(struct balun_device *dev)
{
	struct balun_space *sp = dev->space;

	env_mutex_lock(&sp->move_lock);
	if (!--dev->calls)
		env_cond_wake(&sp->move_done);
	env_mutex_unlock(&sp->move_lock);
}

/*
 * Calls are let in until gone() and active() have ended what a device does, for one may be what
 * ends it, and one that waits for the device's work returns then. After this none is in the driver.
 */
static void device_end_calls(struct balun_device *dev)
{
	struct balun_space *sp = dev->space;

	env_mutex_lock(&sp->move_lock);
	dev->ended = true;
	while (dev->calls)
		env_cond_wait(&sp->move_done, &sp->move_lock, ENV_FOREVER);
	env_mutex_unlock(&sp->move_lock);
}

void core_device_keep(struct balun_device *dev)
{
	dev->kept = true;
}

int core_device_end(struct balun_device *dev)
{
	struct balun_space *sp = dev->space;
	uint64_t lost;

	env_assert_held(&sp->devices_lock);
	env_mutex_lock(&sp->move_lock);
	env_store(&dev->closing, true);
	env_mutex_unlock(&sp->move_lock);
	device_unused(dev);

	core_bring_home(sp, dev->id, BALUN_CAUSE_TEARDOWN);
	device_unpublish(sp, dev);
	core_device_unspill(sp, dev->id);
	lost = env_load_relaxed(&dev->lost_pages);
	if (lost)
		env_log(0, "%s did not give back %llu KiB: lost", dev->name,
			(unsigned long long)lost << (BALUN_PAGE_SHIFT - 10));
	sp->engine->device_detach(sp->e, dev->id);
	hint_forget_device(sp->hints, dev->id);
	core_resident_forget(dev);
	dev->ops.gone(dev->priv, sp);
	dev->ops.active(dev->priv, false);
	device_end_calls(dev);
	dev->ops.close(dev->priv);
	if (!dev->kept)
		core_device_free(dev);
	return lost ? -EIO : 0;
}

void balun_space_set_data(struct balun_space *space, struct balun_device *dev, void *p)
{
	(void)space; /* a device of this version serves one space */
	dev->space_data = p;
}

void *balun_space_data(struct balun_space *space, struct balun_device *dev)
{
	(void)space;
	return dev->space_data;
}

void *balun_device_priv(struct balun_device *dev, const struct balun_driver *drv)
{
	const struct balun_driver *d = dev->drv; /* NULL: it is served elsewhere */
	void *priv = dev->priv;

	while (d != drv) {
		if (!d || !(d->caps & BALUN_CAP_WRAPPER))
			return NULL;
		d = d->inner(priv, &priv);
	}
	return priv;
}

static int command_of(const struct balun_driver *d, void *priv, struct balun_space *sp,
		      const struct balun_command *c)
{
	while (strcmp(d->name, c->driver)) {
		if (!(d->caps & BALUN_CAP_WRAPPER))
			return -EINVAL;
		d = d->inner(priv, &priv);
		if (!d)
			return -EINVAL;
	}
	return d->command ? d->command(priv, sp, c) : -EINVAL;
}

/* the driver's part may take long, and calls us again: only ours is bracketed */
static int device_command(struct balun_device *dev, const struct balun_command *c)
{
	struct balun_space *sp = dev->space;
	uint64_t cookie[8];
	bool entered;
	int err;

	sp->engine->enter(sp->e, cookie);
	entered = core_device_enter(dev);
	sp->engine->leave(sp->e, cookie);
	if (!entered)
		return -ENODEV;
	err = command_of(dev->drv, dev->priv, sp, c);
	sp->engine->enter(sp->e, cookie);
	core_device_leave(dev);
	sp->engine->leave(sp->e, cookie);
	return err;
}

int balun_device_command(struct balun_device *dev, const struct balun_command *c)
{
	if (!dev || !c->driver || c->arg_len > BALUN_COMMAND_ARG)
		return -EINVAL;
	/* in a child a lock may be held by a thread that it does not have */
	if (dev->space->fork_gen != env_fork_gen())
		return -ECHILD;
	if (dev->space->engine->remote)
		return dev->space->engine->remote->command(dev, c);
	return device_command(dev, c);
}

struct balun_space *balun_device_space(struct balun_device *dev)
{
	return dev->space;
}
