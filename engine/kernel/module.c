// SPDX-License-Identifier: GPL-2.0-only
/* balun.ko: which engines and drivers it has, and its beginning and end. */
#include <linux/module.h>
#include <linux/slab.h>

#include "core/core.h"
#include "engine/kernel/glue.h"
#include "engine/kernel/kernel.h"

extern const struct engine_ops engine_kernel;
const struct engine_ops *const engine_list[] = { &engine_kernel, NULL };

/* each driver is a module of its own (glue.h) */
const struct balun_driver *const driver_list[] = { NULL };
const char *const driver_absent_list[][2] = { { NULL, NULL } };

int kdriver_register(const struct balun_driver *drv, struct module *owner)
{
	struct env_reason_text *why = kmalloc(sizeof(*why), GFP_KERNEL);
	int err;

	if (!why)
		return -ENOMEM;
	env_reason_begin(why);
	err = core_driver_register(drv, owner);
	if (err)
		env_log(0, "a driver's module is refused: %s", env_reason_get());
	env_reason_end(why);
	kfree(why);
	return err;
}

static int __init balun_init(void)
{
	int err = kdevices_init();

	if (err)
		return err;
	err = knode_init();
	if (err)
		kdevices_exit();
	return err;
}

static void __exit balun_exit(void)
{
	knode_exit();
	kdevices_exit();
}

module_init(balun_init);
module_exit(balun_exit);
MODULE_DESCRIPTION("Heterogeneous memory management: memory that moves between CPUs and devices");
MODULE_VERSION(BALUN_VERSION_STRING);
MODULE_LICENSE("GPL");
