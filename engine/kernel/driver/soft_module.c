// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/glue.h"

BALUN_DRIVER_MODULE(balun_soft_driver,
		    "Balun driver: a software accelerator with an MMU, a fault queue and workers");
