// SPDX-License-Identifier: GPL-2.0-only
/* A file that says no more than any other compiles: if not, the probes would mean nothing. */
#include <linux/mm.h>
#include <linux/module.h>

int probe(void);
int probe(void)
{
	return PAGE_SIZE;
}
