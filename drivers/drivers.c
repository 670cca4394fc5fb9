// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The list of drivers, in order of preference, and what of it this build lacks. A new driver is a
 * file and a line here.
 */
#include "balun/driver.h"

extern const struct balun_driver balun_ram_driver, balun_soft_driver, balun_dmirror_driver,
	balun_lz4_driver, balun_file_driver, balun_crypt_driver, balun_nbd_driver,
	balun_stripe_driver, balun_mirror_driver, balun_trace_driver, balun_inject_driver;

extern const struct balun_driver *const driver_list[];
const struct balun_driver *const driver_list[] = {
	&balun_ram_driver,
	&balun_soft_driver,
	&balun_dmirror_driver,
#ifdef BALUN_HAVE_LZ4
	&balun_lz4_driver,
#endif
#ifdef BALUN_HAVE_FILE
	&balun_file_driver,
#endif
#ifdef BALUN_HAVE_NBD
	&balun_nbd_driver,
#endif
#ifdef BALUN_HAVE_CRYPT
	&balun_crypt_driver,
#endif
	&balun_stripe_driver,
	&balun_mirror_driver,
	&balun_trace_driver,
	&balun_inject_driver,
	NULL,
};

/* the package without which each was left out */
extern const char *const driver_absent_list[][2];
const char *const driver_absent_list[][2] = {
#ifndef BALUN_HAVE_LZ4
	{ "lz4", "liblz4-dev" },
#endif
#ifndef BALUN_HAVE_FILE
	{ "file", "liburing-dev libxxhash-dev" },
#endif
#ifndef BALUN_HAVE_CRYPT
	{ "crypt", "libsodium-dev" },
#endif
#ifndef BALUN_HAVE_NBD
	{ "nbd", "libnbd-dev" },
#endif
	{ NULL, NULL },
};
