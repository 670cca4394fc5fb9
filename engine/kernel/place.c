// SPDX-License-Identifier: GPL-2.0-only
/*
 * Accesses in place: a software device reads and writes the program's memory where it is.
 *
 * The bus address of a SYSTEM segment is the program's own address: an access goes through its page
 * table as its own would, with the same faults and permissions, and nothing is used after unmap().
 * A driver's own threads borrow the address space; in the program's system call it is there; in
 * another process's one, pages are looked up one by one.
 */
#include <linux/kthread.h>
#include <linux/highmem.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#include "engine/kernel/kernel.h"

static int copy_direct(u64 addr, void *buf, size_t len, bool write)
{
	void __user *p = (void __user *)(uintptr_t)addr;

	return (write ? copy_to_user(p, buf, len) : copy_from_user(buf, p, len)) ? -EFAULT : 0;
}

/* inside one page */
static int copy_page_of(struct mm_struct *mm, u64 addr, void *buf, size_t len, bool write)
{
	struct page *page;
	int got, locked = 1;
	void *p;

	mmap_read_lock(mm);
	got = compat_get_user_page_remote(mm, addr, write ? FOLL_WRITE : 0, &page, &locked);
	if (locked)
		mmap_read_unlock(mm);
	if (got != 1)
		return -EFAULT;
	p = kmap_local_page(page);
	if (write)
		memcpy(p + offset_in_page(addr), buf, len);
	else
		memcpy(buf, p + offset_in_page(addr), len);
	kunmap_local(p);
	if (write)
		set_page_dirty_lock(page);
	put_page(page);
	return 0;
}

static int copy_other(struct mm_struct *mm, u64 addr, void *buf, size_t len, bool write)
{
	int err = 0;

	while (len && !err) {
		size_t n = min_t(size_t, len, PAGE_SIZE - offset_in_page(addr));

		err = copy_page_of(mm, addr, buf, n, write);
		addr += n;
		buf += n;
		len -= n;
	}
	return err;
}

static int in_place(struct kengine *k, u64 addr, void *buf, size_t len, bool write)
{
	int err;

	if (current->mm == k->mm)
		return copy_direct(addr, buf, len, write);
	if (!mmget_not_zero(k->mm))
		return -EFAULT;
	if (current->flags & PF_KTHREAD && !current->mm) {
		kthread_use_mm(k->mm);
		err = copy_direct(addr, buf, len, write);
		kthread_unuse_mm(k->mm);
	} else {
		err = copy_other(k->mm, addr, buf, len, write);
	}
	mmput(k->mm);
	return err;
}

int kbus_read(void *e, uint64_t addr, void *buf, size_t len)
{
	return in_place(e, addr, buf, len, false);
}

int kbus_write(void *e, uint64_t addr, const void *buf, size_t len)
{
	return in_place(e, addr, (void *)buf, len, true);
}

/* as the program's write would: the page comes home, and is copied if it is shared still */
int kunshare(void *e, uint64_t va, uint64_t len)
{
	struct kengine *k = e;
	u64 end = va + len;
	bool unlocked; /* meanwhile, as it may */
	int err = 0;

	if (!mmget_not_zero(k->mm))
		return -EFAULT;
	mmap_read_lock(k->mm);
	for (; va < end && !err; va += PAGE_SIZE)
		err = fixup_user_fault(k->mm, va, FAULT_FLAG_WRITE, &unlocked);
	mmap_read_unlock(k->mm);
	mmput(k->mm);
	return err;
}
