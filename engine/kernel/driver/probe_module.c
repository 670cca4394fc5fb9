// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/glue.h"

BALUN_DRIVER_MODULE(probe_driver,
		    "Balun driver: asks core difficult questions, for the conformance kit");
