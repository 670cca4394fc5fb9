// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/glue.h"

BALUN_DRIVER_MODULE(balun_dmirror_driver, "Balun driver: the device that HMM is tested with");
