// SPDX-License-Identifier: GPL-2.0-only
#include <linux/mm.h>

long probe(struct mm_struct *mm, struct page **ret_page, struct vm_area_struct **ret_vma);
long probe(struct mm_struct *mm, struct page **ret_page, struct vm_area_struct **ret_vma)
{
	return get_user_pages_remote(mm, 0, 1, 0, ret_page, ret_vma, NULL);
}
