// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/glue.h"

BALUN_DRIVER_MODULE(balun_ram_driver, "Balun driver: a device that is memory and nothing else");
