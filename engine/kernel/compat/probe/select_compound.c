// SPDX-License-Identifier: GPL-2.0-only
#include <linux/migrate.h>

unsigned long probe(struct migrate_vma *m);
unsigned long probe(struct migrate_vma *m)
{
	m->flags |= MIGRATE_VMA_SELECT_COMPOUND;
	return m->src[0] & MIGRATE_PFN_COMPOUND;
}
