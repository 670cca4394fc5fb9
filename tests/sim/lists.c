// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What core finds instead of engines.c and drivers.c: only what runs under the simulator, so that
 * nothing that reaches the machine is linked.
 */
#include "core/core.h"
#include "tests/sim/sim_test.h"

extern const struct engine_ops engine_sim;
extern const struct balun_driver balun_ram_driver, balun_inject_driver;

const struct engine_ops *const engine_list[] = { &engine_sim, NULL };
const struct balun_driver *const driver_list[] = {
	&driver_testdev,
	&balun_ram_driver,
	&balun_inject_driver,
	NULL,
};
const char *const driver_absent_list[][2] = { { NULL, NULL } };
