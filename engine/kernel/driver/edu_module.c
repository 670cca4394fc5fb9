// SPDX-License-Identifier: GPL-2.0-only
#include <linux/pci.h>

#include "engine/kernel/glue.h"

extern struct pci_driver balun_edu_pci;
extern const struct balun_driver balun_edu_driver;

static int __init edu_init(void)
{
	int err = pci_register_driver(&balun_edu_pci);

	if (err)
		return err;
	err = kdriver_register(&balun_edu_driver, THIS_MODULE);
	if (err)
		pci_unregister_driver(&balun_edu_pci);
	return err;
}

static void __exit edu_exit(void)
{
	balun_driver_unregister(&balun_edu_driver);
	pci_unregister_driver(&balun_edu_pci);
}

module_init(edu_init);
module_exit(edu_exit);
MODULE_DESCRIPTION("Balun driver: QEMU's edu PCI device");
MODULE_VERSION(BALUN_VERSION_STRING);
MODULE_LICENSE("GPL");
