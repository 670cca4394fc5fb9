// SPDX-License-Identifier: GPL-2.0-only
/*
 * A CPU touches a page that is on a device.
 *
 * The task that touches serves its own fault: it holds mmap_lock for reading, and says so
 * (kfault_here()), for core will look and move on its behalf. Nothing that core does then may take
 * mmap_lock, or wait for who does: it never takes devices_lock, or waits for other migrations.
 *
 * A huge page comes home whole. Where it cannot (no huge page of system memory is free, a page of
 * it is pinned or not read) it has to be split, and that cannot be done here: who faults has the
 * folio's lock and a reference, and only what nobody else refers to is split. So a worker does it,
 * and the page is touched again; until then a touch returns at once, for the worker needs the lock,
 * and mmap_lock: touch_again().
 *
 * A folio that is large still and mapped as small pages (a part of it was unmapped, or protected)
 * is split here, before anything else is collected. See split_here().
 */
#include <linux/sched.h>
#include <linux/sched/mm.h>

#include "engine/kernel/kernel.h"

struct kfault *kfault_here(struct kengine *k)
{
	struct kfault *f, *found = NULL;

	spin_lock(&k->faults_lock);
	list_for_each_entry(f, &k->faults, link)
	{
		if (f->task == current) {
			found = f;
			break;
		}
	}
	spin_unlock(&k->faults_lock);
	return found;
}

/* The page is of a device of another address space: since a fork, this one has it too. Only the
 * page is moved, for both. */
static vm_fault_t fault_foreign(struct kdev *d, struct vm_fault *vmf)
{
	unsigned long src = 0, dst = 0;
	struct migrate_vma m = {
		.vma = vmf->vma,
		.start = vmf->address & PAGE_MASK,
		.end = (vmf->address & PAGE_MASK) + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.pgmap_owner = d->k,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};
	unsigned int failed;

	if (compat_fault_is_huge(vmf)) {
		kdevice_split(d, m.vma->vm_mm, m.start);
		return 0;
	}
	if (migrate_vma_setup(&m))
		return VM_FAULT_SIGBUS;
	failed = kcopy_home(d, &src, &dst, m.cpages ? 1 : 0);
	migrate_vma_pages(&m);
	migrate_vma_finalize(&m);
	kdevice_tell(d);
	return failed ? VM_FAULT_SIGBUS : 0; /* 0: if it did not come, it is touched again */
}

/* collecting a part of it splits it, and leaves it where it is */
static void split_at(struct kengine *k, struct vm_area_struct *vma, u64 va, struct page *fault_page)
{
	unsigned long src = 0, dst = 0;
	struct migrate_vma m = {
		.vma = vma,
		.start = va,
		.end = va + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.pgmap_owner = k,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = fault_page,
	};

	if (!migrate_vma_setup(&m))
		migrate_vma_finalize(&m);
}

/* Best effort: who touches the page again and finds it whole asks again. */
void ksplit(struct work_struct *w)
{
	struct kdev *d = container_of(w, struct kdev, split);
	struct mm_struct *mm = d->split_mm;
	struct vm_area_struct *vma;
	unsigned long flags;

	if (mmget_not_zero(mm)) {
		mmap_read_lock(mm);
		WRITE_ONCE(d->split_waits, false);
		vma = vma_lookup(mm, d->split_va);
		if (vma)
			split_at(d->k, vma, d->split_va, NULL);
		mmap_read_unlock(mm);
		mmput(mm);
	}
	mmdrop(mm);
	spin_lock_irqsave(&d->lock, flags);
	d->splitting = false;
	spin_unlock_irqrestore(&d->lock, flags);
}

/*
 * The touched page is a part of a large folio that is mapped as small pages. migrate_vma_setup()
 * splits such a folio in the middle of collecting, and goes on to take the locked folio of the
 * fault for the one that it was before: it would collect the folio's first page without its lock,
 * and unlock it in the end, which locks it for good (folio_unlock() flips the bit). So it is split
 * by collecting the touched page alone: the first page is not there then, or is what is locked.
 * false: it could not be split now.
 */
static bool split_here(struct kdev *d, struct vm_fault *vmf)
{
	split_at(d->k, vmf->vma, vmf->address & PAGE_MASK, vmf->page);
	return !compat_fault_is_part(vmf);
}

/*
 * Who has to wait does so without mmap_lock, which the process's other calls may need, if the
 * caller lets it: RETRY. NOWAIT is not to wait, and keeps the lock. 0: it cannot be let go of. The
 * caller has the page still.
 */
static vm_fault_t let_go(struct vm_fault *vmf)
{
	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY))
		return 0;
	if (!(vmf->flags & FAULT_FLAG_RETRY_NOWAIT))
		mmap_read_unlock(vmf->vma->vm_mm);
	return VM_FAULT_RETRY;
}

/* the block thrashes, and the device has just fetched it */
static vm_fault_t hold_back(struct vm_fault *vmf)
{
	bool wait = !(vmf->flags & FAULT_FLAG_RETRY_NOWAIT);
	vm_fault_t ret = let_go(vmf);

	if (wait)
		env_sleep_ns(50000);
	return ret;
}

/*
 * It is touched again when the worker has split it. The worker gets mmap_lock after those who want
 * it for writing and came before, and they wait for whoever has it. Who touches again without
 * letting go of it (a debugger's get_user_pages()) would wait for them, and they for him: better an
 * error for him, after a second. Others who cannot retry let go before they come again, as a
 * futex's fixup_user_fault() does for the program: the worker has had its turn by then.
 */
static vm_fault_t touch_again(struct kdev *d, struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	vm_fault_t ret = let_go(vmf);

	if (!ret && READ_ONCE(d->split_waits) && READ_ONCE(d->split_mm) == mm &&
	    time_after(jiffies, READ_ONCE(d->split_since) + HZ) && mmap_lock_is_contended(mm))
		ret = VM_FAULT_SIGBUS;
	return ret;
}

static vm_fault_t fault_own(struct kengine *k, struct vm_fault *vmf)
{
	struct kfault f = { .task = current, .vmf = vmf };
	int err;

	spin_lock(&k->faults_lock);
	list_add(&f.link, &k->faults);
	spin_unlock(&k->faults_lock);
	err = core_cpu_fault(k->space, vmf->address, vmf->flags & FAULT_FLAG_WRITE);
	spin_lock(&k->faults_lock);
	list_del(&f.link);
	spin_unlock(&k->faults_lock);
	if (err == -EIO)
		return VM_FAULT_SIGBUS;
	if (err == -EAGAIN)
		return hold_back(vmf);
	if (err && compat_fault_is_huge(vmf))
		kdevice_split(kpage_device(vmf->page), k->mm, vmf->address & PAGE_MASK);
	return 0;
}

vm_fault_t kmigrate_to_ram(struct vm_fault *vmf)
{
	struct kdev *d = kpage_device(vmf->page);
	vm_fault_t ret = 0;

	if (!kdevice_enter(d, compat_fault_page(vmf)))
		return VM_FAULT_SIGBUS;
	if ((!compat_fault_is_part(vmf) || split_here(d, vmf)) &&
	    (!compat_fault_is_huge(vmf) || !READ_ONCE(d->splitting)))
		ret = vmf->vma->vm_mm == d->k->mm ? fault_own(d->k, vmf) : fault_foreign(d, vmf);
	kdevice_leave(d); /* the caller has the page still, and the page keeps the struct */
	if (!ret && compat_fault_is_huge(vmf) && READ_ONCE(d->splitting))
		ret = touch_again(d, vmf);
	return ret;
}

/* ---- parts that are unmapped ---- */

/* the next huge page, from place *no on, of which the program has unmapped a part: where it was put
 */
static bool next_cut(struct kdev *d, unsigned long *no, u64 *ret_va)
{
	const u64 not = KPAGE_LOST | KPAGE_NEW | KPAGE_COHERENT;
	bool found = false;

	spin_lock_irq(&d->lock);
	for (; !found && *no + BLOCK_PAGES <= d->npages; *no += BLOCK_PAGES) {
		if (!test_bit(*no, d->used) || test_bit(*no, d->freed) || d->at[*no] & not )
			continue;
		found = compat_page_is_cut(kplace_page(d, *no));
		*ret_va = d->at[*no] & KPAGE_ADDR;
	}
	spin_unlock_irq(&d->lock);
	return found;
}

/* the first page of a snapshot that is a part of a large folio of a device; @n: none */
static unsigned int first_part(struct kengine *k, const unsigned long *pfns, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (kpfn_place(k, pfns[i]).d && compat_page_is_part(hmm_pfn_to_page(pfns[i])))
			break;
	return i;
}

static void split_block(struct kengine *k, u64 va)
{
	unsigned long *pfns;
	unsigned int i;
	int idx;

	mmap_read_lock(k->mm);
	pfns = mempool_alloc(k->snapshots, GFP_KERNEL); /* with the lock: kcollect() */
	idx = srcu_read_lock(&kdevices_srcu);
	ksnapshot(k, va, va + BALUN_BLOCK_SIZE, pfns);
	i = first_part(k, pfns, BLOCK_PAGES);
	srcu_read_unlock(&kdevices_srcu, idx);
	va += i * PAGE_SIZE;
	if (i < BLOCK_PAGES)
		split_at(k, vma_lookup(k->mm, va), va, NULL);
	mmap_read_unlock(k->mm);
	mempool_free(pfns, k->snapshots);
}

/*
 * What a program unmaps of a huge page comes free when the rest is split, and with device memory
 * the kernel leaves that to others. Who needs room evicts the rest anyway; who wants to know what
 * is used has it split.
 */
void ksplit_cut(struct kengine *k)
{
	unsigned long no;
	unsigned int i;
	bool found;
	u64 va;

	if (!mmget_not_zero(k->mm))
		return;
	for (i = 1; i < MAX_DEVICES; i++)
		for (no = 0;;) {
			/* not together with mmap_lock, under which a CPU's fault takes it */
			down_read(&k->devices);
			found = k->dev[i] && next_cut(k->dev[i], &no, &va);
			up_read(&k->devices);
			if (!found)
				break;
			split_block(k, va & ~(BALUN_BLOCK_SIZE - 1));
		}
	mmput(k->mm);
}
