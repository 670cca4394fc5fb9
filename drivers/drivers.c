// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The list of drivers, in order of preference. A new driver is a file and a line here.
 */
#include "balun/driver.h"

extern const struct balun_driver balun_ram_driver, balun_soft_driver, balun_dmirror_driver,
	balun_trace_driver, balun_inject_driver;

extern const struct balun_driver *const driver_list[];
const struct balun_driver *const driver_list[] = {
	&balun_ram_driver,   &balun_soft_driver,   &balun_dmirror_driver,
	&balun_trace_driver, &balun_inject_driver, NULL,
};
