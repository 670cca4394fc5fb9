// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/driver/pci_module.h"

BALUN_PCI_DRIVER_MODULE(balun_ivshmem_driver, balun_ivshmem_pci,
			"Balun driver: QEMU's ivshmem-plain PCI device");
