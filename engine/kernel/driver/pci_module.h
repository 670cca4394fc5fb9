/* SPDX-License-Identifier: GPL-2.0-only */
/* A driver of a PCI device as a module: BALUN_DRIVER_MODULE (glue.h) for a table and a pci_driver.
 */
#ifndef BALUN_KERNEL_PCI_MODULE_H
#define BALUN_KERNEL_PCI_MODULE_H

#include <linux/pci.h>

#include "engine/kernel/glue.h"

#define BALUN_PCI_DRIVER_MODULE(table, pci, description)                                           \
	extern const struct balun_driver table;                                                    \
	extern struct pci_driver pci;                                                              \
                                                                                                   \
	static int __init table##_init(void)                                                       \
	{                                                                                          \
		int err = pci_register_driver(&pci);                                               \
                                                                                                   \
		if (err)                                                                           \
			return err;                                                                \
		err = kdriver_register(&table, THIS_MODULE);                                       \
		if (err)                                                                           \
			pci_unregister_driver(&pci);                                               \
		return err;                                                                        \
	}                                                                                          \
                                                                                                   \
	static void __exit table##_exit(void)                                                      \
	{                                                                                          \
		balun_driver_unregister(&table);                                                   \
		pci_unregister_driver(&pci);                                                       \
	}                                                                                          \
                                                                                                   \
	module_init(table##_init);                                                                 \
	module_exit(table##_exit);                                                                 \
	MODULE_DESCRIPTION(description);                                                           \
	MODULE_VERSION(BALUN_VERSION_STRING);                                                      \
	MODULE_LICENSE("GPL")

#endif
