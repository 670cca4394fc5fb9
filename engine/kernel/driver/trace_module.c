// SPDX-License-Identifier: GPL-2.0-only
#include "engine/kernel/glue.h"

BALUN_DRIVER_MODULE(balun_trace_driver,
		    "Balun driver: writes down what the driver inside is asked");
