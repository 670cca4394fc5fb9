/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What ioctl_fuzz.c and ioctl_bad.c share. */
#ifndef IOCTL_FUZZ_H
#define IOCTL_FUZZ_H

#include "balun/driver.h"
#include "balun/uapi.h"

#include <fcntl.h>
#include <sys/ioctl.h>

uint64_t fuzz_rand(uint64_t *state);
/* checks of single wrong inputs; how many failed */
int bad_calls(void);

#endif
