// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The drivers that are known: the visible list of drivers/drivers.c, and those registered later. */
#include "core/core.h"
#include "core/remote.h"

#define REGISTRY_MAX 64
#define CAPS_KNOWN                                                                                 \
	(BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY | BALUN_CAP_PEER | BALUN_CAP_ALLOC |                \
	 BALUN_CAP_TWO_PHASE | BALUN_CAP_WRAPPER | BALUN_CAP_COHERENT)

/* a driver, the module that it is in (NULL: none), and how many devices of it are open */
struct entry {
	const struct balun_driver *drv;
	void *owner;
	unsigned int open;
};

static struct entry registry[REGISTRY_MAX];
static unsigned int registry_n;
static bool registry_ready; /* the built-in ones are in */
static uint32_t registry_busy;

static void registry_lock(void)
{
	env_word_lock(&registry_busy);
}

static void registry_unlock(void)
{
	env_word_unlock(&registry_busy);
}

static bool name_ok(const char *s)
{
	if (!s || *s < 'a' || *s > 'z')
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == '_'))
			return false;
	return true;
}

struct op_rule {
	const char *name;
	uint64_t cap; /* 0: required */
	bool present;
};

static int check_ops(const struct balun_driver *d)
{
	const struct op_rule rule[] = {
		{ "open", 0, d->open },
		{ "close", 0, d->close },
		{ "map", 0, d->map },
		{ "unmap", 0, d->unmap },
		{ "copy", 0, d->copy },
		{ "copy_wait", 0, d->copy_wait },
		{ "alloc", BALUN_CAP_ALLOC, d->alloc },
		{ "free", BALUN_CAP_ALLOC, d->free },
		{ "unmap_begin", BALUN_CAP_TWO_PHASE, d->unmap_begin },
		{ "unmap_wait", BALUN_CAP_TWO_PHASE, d->unmap_wait },
		{ "peer_addr", BALUN_CAP_PEER, d->peer_addr },
		{ "inner", BALUN_CAP_WRAPPER, d->inner },
	};
	unsigned int i;

	for (i = 0; i < sizeof(rule) / sizeof(rule[0]); i++) {
		bool want = !rule[i].cap || d->caps & rule[i].cap;

		if (want == rule[i].present)
			continue;
		env_reason("driver %s: op %s is %s", d->name, rule[i].name,
			   rule[i].present ? "there, but its capability is not declared"
			   : rule[i].cap   ? "missing, but its capability is declared"
					   : "required and missing");
		return -EINVAL;
	}
	if (d->caps & ~CAPS_KNOWN) {
		env_reason("driver %s: declares capabilities that this library does not know",
			   d->name);
		return -EINVAL;
	}
	if (!d->attach != !d->gone) {
		env_reason("driver %s: attach and gone come together or not at all", d->name);
		return -EINVAL;
	}
	return 0;
}

static int check_driver(const struct balun_driver *d)
{
	if (!d || d->size != sizeof(*d)) {
		env_reason("driver table has size %zu, this library knows %zu: rebuild the driver",
			   d ? d->size : (size_t)0, sizeof(*d));
		return -EINVAL;
	}
	if (!name_ok(d->name) || !d->help) {
		env_reason("driver has no name of the form [a-z][a-z0-9_]*, or no help");
		return -EINVAL;
	}
	return check_ops(d);
}

/* registry_lock held */
static struct entry *find(const char *name)
{
	unsigned int i;

	for (i = 0; i < registry_n; i++)
		if (!strcmp(registry[i].drv->name, name))
			return &registry[i];
	return NULL;
}

/* registry_lock held */
static int add(const struct balun_driver *drv, void *owner)
{
	int err = check_driver(drv);

	if (err)
		return err;
	if (find(drv->name)) {
		env_reason("there is a driver %s already", drv->name);
		return -EEXIST;
	}
	if (registry_n == REGISTRY_MAX)
		return -ENOMEM;
	registry[registry_n++] = (struct entry){ .drv = drv, .owner = owner };
	return 0;
}

/* The built-in list goes first. Idempotent; any entry point that needs drivers calls it. */
void core_registry_init(void)
{
	unsigned int i;

	if (env_load(&registry_ready))
		return;
	registry_lock();
	for (i = 0; !registry_ready && driver_list[i]; i++)
		if (!find(driver_list[i]->name) && add(driver_list[i], NULL))
			env_log(0, "built-in driver refused: %s", env_reason_get());
	env_store(&registry_ready, true);
	registry_unlock();
}

int core_driver_register(const struct balun_driver *drv, void *owner)
{
	int err;

	core_registry_init();
	registry_lock();
	err = add(drv, owner);
	registry_unlock();
	return err;
}

int balun_driver_register(const struct balun_driver *drv)
{
	return core_driver_register(drv, NULL);
}

int balun_driver_unregister(const struct balun_driver *drv)
{
	struct entry *e;
	int err = 0;

	core_registry_init();
	registry_lock();
	e = drv && drv->name ? find(drv->name) : NULL;
	if (!e || e->drv != drv)
		err = -ENOENT;
	else if (e->open)
		err = -EBUSY;
	else /* the others keep their order: it is the one of balun_driver_info() */
		memmove(e, e + 1, (char *)&registry[registry_n--] - (char *)(e + 1));
	registry_unlock();
	if (err == -EBUSY)
		env_reason("devices of driver %s are open", drv->name);
	return err;
}

/*
 * Who unregisters a driver while its module is on its way out finds no device: the module's count
 * is taken before the device is counted, and cannot be taken any more by then.
 */
const struct balun_driver *core_driver_get(const char *name)
{
	const struct balun_driver *drv = NULL;
	struct entry *e;

	core_registry_init();
	registry_lock();
	e = find(name);
	if (e && env_module_get(e->owner)) {
		e->open++;
		drv = e->drv;
	}
	registry_unlock();
	return drv;
}

void core_driver_put(const struct balun_driver *drv)
{
	struct entry *e;
	void *owner;

	registry_lock();
	e = find(drv->name); /* it is there: unregister() refuses while a device is open */
	e->open--;
	owner = e->owner;
	registry_unlock();
	env_module_put(owner);
}

/* a copy, for the driver may be of a module that goes */
static int driver_text(unsigned int i, struct balun_engine_driver *ret_drv)
{
	int err = -ENOENT;

	core_registry_init();
	registry_lock();
	if (i < registry_n) {
		snprintf(ret_drv->name, sizeof(ret_drv->name), "%s", registry[i].drv->name);
		snprintf(ret_drv->help, sizeof(ret_drv->help), "%s", registry[i].drv->help);
		err = 0;
	}
	registry_unlock();
	return err;
}

int balun_driver_info(unsigned int i, const char **ret_name, const char **ret_help)
{
	int err = -ENOENT;

	core_registry_init();
	registry_lock();
	if (i < registry_n) {
		*ret_name = registry[i].drv->name;
		*ret_help = registry[i].drv->help;
		err = 0;
	}
	registry_unlock();
	return err;
}

int balun_engine_driver(const char *engine, unsigned int i, struct balun_engine_driver *ret_drv)
{
	const struct engine_ops *const *eng = engine_list;

	if (!engine || !ret_drv || ret_drv->size != sizeof(*ret_drv))
		return -EINVAL;
	while (*eng && strcmp((*eng)->name, engine))
		eng++;
	if (!*eng) {
		env_reason("no engine \"%s\" (balun doctor lists them)", engine);
		return -EINVAL;
	}
	if ((*eng)->remote)
		return (*eng)->remote->driver(i, ret_drv);
	return driver_text(i, ret_drv);
}
