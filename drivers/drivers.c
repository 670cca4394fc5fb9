// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The list of drivers, in order of preference. A new driver is a file and a line here.
 */
#include "balun/driver.h"

extern const struct balun_driver driver_ram, driver_soft, driver_trace, driver_inject;

extern const struct balun_driver *const driver_list[];
const struct balun_driver *const driver_list[] = {
	&driver_ram, &driver_soft, &driver_trace, &driver_inject, NULL,
};
