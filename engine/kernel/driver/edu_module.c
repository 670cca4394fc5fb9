// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/driver/pci_module.h"

BALUN_PCI_DRIVER_MODULE(balun_edu_driver, balun_edu_pci, "Balun driver: QEMU's edu PCI device");
