// SPDX-License-Identifier: GPL-2.0-only
/* balun.ko: which engines and drivers it has, and its beginning and end. */
#include <linux/module.h>

#include "core/core.h"

extern const struct engine_ops engine_kernel;
const struct engine_ops *const engine_list[] = { &engine_kernel, NULL };

/* each driver is a module of its own (glue.h) */
const struct balun_driver *const driver_list[] = { NULL };

static int __init balun_init(void)
{
	return 0;
}

static void __exit balun_exit(void)
{
}

module_init(balun_init);
module_exit(balun_exit);
MODULE_DESCRIPTION("Heterogeneous memory management: memory that moves between CPUs and devices");
MODULE_VERSION(BALUN_VERSION_STRING);
MODULE_LICENSE("GPL");
