// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/glue.h"

BALUN_DRIVER_MODULE(balun_inject_driver,
		    "Balun driver: fails or delays calls of the driver inside");
