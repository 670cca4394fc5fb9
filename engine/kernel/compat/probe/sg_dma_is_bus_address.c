// SPDX-License-Identifier: GPL-2.0-only
#include <linux/scatterlist.h>

bool probe(struct scatterlist *sg);
bool probe(struct scatterlist *sg)
{
	return sg_dma_is_bus_address(sg);
}
