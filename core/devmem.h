/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: devmem.h - allocator of a device's memory
 *
 * Chunks of 2 MiB, split to 64 KiB and 4 KiB on demand and merged back when free (NVIDIA UVM's root
 * chunks). Has its own leaf lock. Metadata: 88 bytes per 2 MiB that was ever used.
 */
#ifndef BALUN_DEVMEM_H
#define BALUN_DEVMEM_H

#include "env/env.h"

struct devmem;

struct devmem *devmem_create(uint64_t bytes); /* multiple of 2 MiB; NULL: no memory */
void devmem_destroy(struct devmem *m);
/* @len 4 KiB, 64 KiB or 2 MiB, aligned to itself. 0; -ENOMEM no such run is free.
 * Small ones come from chunks that are split already, so that whole ones stay whole. */
int devmem_alloc(struct devmem *m, uint64_t len, uint64_t *ret_off);
/* any page-aligned part of what was allocated; asserts that it was */
void devmem_free(struct devmem *m, uint64_t off, uint64_t len);
uint64_t devmem_used(struct devmem *m);	    /* bytes */
uint64_t devmem_metadata(struct devmem *m); /* bytes of bookkeeping */
/* internal consistency (tests): 0, or -EINVAL */
int devmem_check(struct devmem *m);

#endif
