/* SPDX-License-Identifier: GPL-2.0-only */
/**
 * DOC: glue.h - a driver as a kernel module
 *
 * A portable driver includes nothing of the kernel. What makes a module of it is one line in a file
 * beside it: BALUN_DRIVER_MODULE(balun_ram_driver, "what it is"). While a device of the driver is
 * open, core holds the module.
 */
#ifndef BALUN_KERNEL_GLUE_H
#define BALUN_KERNEL_GLUE_H

#include <linux/module.h>

#include "core/core.h"

/* core_driver_register(), and the log says why not (module.c) */
int kdriver_register(const struct balun_driver *drv, struct module *owner);

/* the one symbol @table is a struct balun_driver, in another file of the module */
#define BALUN_DRIVER_MODULE(table, description)                                                    \
	extern const struct balun_driver table;                                                    \
                                                                                                   \
	static int __init table##_init(void)                                                       \
	{                                                                                          \
		return kdriver_register(&table, THIS_MODULE);                                      \
	}                                                                                          \
                                                                                                   \
	/* cannot be refused: a device that is open would hold the module */                       \
	static void __exit table##_exit(void)                                                      \
	{                                                                                          \
		balun_driver_unregister(&table);                                                   \
	}                                                                                          \
                                                                                                   \
	module_init(table##_init);                                                                 \
	module_exit(table##_exit);                                                                 \
	MODULE_DESCRIPTION(description);                                                           \
	MODULE_VERSION(BALUN_VERSION_STRING);                                                      \
	MODULE_LICENSE("GPL")

#endif
