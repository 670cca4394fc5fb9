// SPDX-License-Identifier: GPL-2.0-only
#include <linux/memremap.h>

extern void freed(struct folio *folio);
extern const struct dev_pagemap_ops probe;
const struct dev_pagemap_ops probe = { .folio_free = freed };
