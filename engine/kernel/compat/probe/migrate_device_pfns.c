// SPDX-License-Identifier: GPL-2.0-only
#include <linux/migrate.h>

int probe(unsigned long *pfns);
int probe(unsigned long *pfns)
{
	return migrate_device_pfns(pfns, 1);
}
