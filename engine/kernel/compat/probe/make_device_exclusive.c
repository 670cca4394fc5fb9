// SPDX-License-Identifier: GPL-2.0-only
#include <linux/rmap.h>

struct page *probe(struct mm_struct *mm, void *owner, struct folio **ret_folio);
struct page *probe(struct mm_struct *mm, void *owner, struct folio **ret_folio)
{
	return make_device_exclusive(mm, 0, owner, ret_folio);
}
