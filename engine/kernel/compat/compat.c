// SPDX-License-Identifier: GPL-2.0-only
/* What is too long for compat.h, where the comments are. */
#include <linux/jiffies.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>

#include "engine/kernel/compat/compat.h"

#ifdef BALUN_HAVE_RANGE_FAULT_UNLOCKED

int compat_hmm_range_fault(struct hmm_range *range, unsigned long timeout)
{
	return hmm_range_fault_unlocked_timeout(range, timeout);
}

#else

int compat_hmm_range_fault(struct hmm_range *range, unsigned long timeout)
{
	struct mm_struct *mm = range->notifier->mm;
	unsigned long deadline = jiffies + timeout;
	int err;

	do {
		range->notifier_seq = mmu_interval_read_begin(range->notifier);
		err = mmap_read_lock_killable(mm);
		if (err)
			return err;
		err = hmm_range_fault(range);
		mmap_read_unlock(mm);
	} while (err == -EBUSY && time_before(jiffies, deadline));
	return err;
}

#endif

#ifndef CONFIG_DEVICE_PRIVATE

int compat_make_exclusive(struct mm_struct *mm, unsigned long addr, void *owner,
			  struct page **ret_page)
{
	return -EOPNOTSUPP;
}

#elif defined(BALUN_HAVE_MAKE_DEVICE_EXCLUSIVE)

int compat_make_exclusive(struct mm_struct *mm, unsigned long addr, void *owner,
			  struct page **ret_page)
{
	struct folio *folio;
	struct page *page = make_device_exclusive(mm, addr, owner, &folio);

	if (IS_ERR(page))
		return PTR_ERR(page);
	*ret_page = page;
	return 0;
}

#else

/* Collecting a page splits the huge page that it is in; then it is put back where it was. */
static void split_huge(struct mm_struct *mm, unsigned long addr)
{
	unsigned long src = 0, dst = 0;
	struct migrate_vma args = {
		.vma = vma_lookup(mm, addr),
		.start = addr,
		.end = addr + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};

	if (args.vma && !migrate_vma_setup(&args))
		migrate_vma_finalize(&args);
}

int compat_make_exclusive(struct mm_struct *mm, unsigned long addr, void *owner,
			  struct page **ret_page)
{
	struct page *page;
	bool anon, huge;
	long n;

	addr &= PAGE_MASK;
	n = compat_get_user_page_remote(mm, addr, FOLL_WRITE, &page);
	if (n != 1)
		return n < 0 ? n : -EFAULT;
	anon = PageAnon(page) && !PageHuge(page);
	huge = PageTransCompound(page);
	put_page(page);
	if (!anon)
		return -EOPNOTSUPP;
	/* now: to take it would have it mapped by PTEs first, and those are not collected */
	if (huge)
		split_huge(mm, addr);
	n = make_device_exclusive_range(mm, addr, addr + PAGE_SIZE, &page, owner);
	if (n != 1)
		return n < 0 ? n : -EFAULT;
	if (!page)
		return -EBUSY;
	*ret_page = page;
	return 0;
}

#endif
