// SPDX-License-Identifier: GPL-2.0-only
/*
 * A CPU touches a page that is on a device.
 *
 * The task that touches serves its own fault: it holds mmap_lock for reading, and says so
 * (kfault_here()), for core will look and move on its behalf. Nothing that core does then may take
 * mmap_lock, or wait for who does: it never takes devices_lock, or waits for other migrations.
 */
#include <linux/sched.h>

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

	if (migrate_vma_setup(&m))
		return VM_FAULT_SIGBUS;
	failed = kcopy_home(d, &src, &dst, m.cpages ? 1 : 0);
	migrate_vma_pages(&m);
	migrate_vma_finalize(&m);
	kdevice_tell(d);
	return failed ? VM_FAULT_SIGBUS : 0; /* 0: if it did not come, it is touched again */
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
	if (err == -EAGAIN) /* it has to wait: the block thrashes */
		env_sleep_ns(50000);
	return 0;
}

vm_fault_t kmigrate_to_ram(struct vm_fault *vmf)
{
	struct kdev *d = kpage_device(vmf->page);
	vm_fault_t ret;

	if (!kdevice_enter(d, vmf->page))
		return VM_FAULT_SIGBUS;
	ret = vmf->vma->vm_mm == d->k->mm ? fault_own(d->k, vmf) : fault_foreign(d, vmf);
	kdevice_leave(d); /* the caller has the page still, and the page keeps the struct */
	return ret;
}
