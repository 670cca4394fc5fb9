/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The PCI devices of a driver in the kernel. One program at a time has one; while it does, taking
 * the device out of the machine waits: its memory is mapped, and pages are there.
 */
#ifndef BALUN_DRIVERS_PCI_SET_H
#define BALUN_DRIVERS_PCI_SET_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/wait.h>

#include "env/env.h"

/* of a driver */
struct pci_set {
	const char *name; /* of the driver, and of qemu's device: for who is refused */
	const char *device;
	struct mutex lock;
	struct list_head list;
	struct wait_queue_head unused;
};

#define PCI_SET(var, name_, device_)                                                               \
	struct pci_set var = { .name = name_,                                                      \
			       .device = device_,                                                  \
			       .lock = __MUTEX_INITIALIZER(var.lock),                              \
			       .list = LIST_HEAD_INIT(var.list),                                   \
			       .unused = __WAIT_QUEUE_HEAD_INITIALIZER(var.unused) }

/* a device of the machine; the driver's own struct begins with it, zeroed */
struct pci_one {
	struct list_head link;
	struct pci_dev *pdev;
	bool used; /* a space has it; this and the next under the set's lock */
	bool gone; /* it is being taken away, which waits for used to end */
};

static inline void pci_set_add(struct pci_set *set, struct pci_one *one, struct pci_dev *pdev)
{
	one->pdev = pdev;
	pci_set_drvdata(pdev, one);
	mutex_lock(&set->lock);
	list_add_tail(&one->link, &set->list);
	mutex_unlock(&set->lock);
}

/* who has it closes it first: until then core has memory mapped for it. It may be freed then */
static inline void pci_set_remove(struct pci_set *set, struct pci_one *one)
{
	mutex_lock(&set->lock);
	one->gone = true;
	mutex_unlock(&set->lock);
	wait_event_idle(set->unused, !READ_ONCE(one->used));
	/* who said so has left the lock when we have it */
	mutex_lock(&set->lock);
	list_del(&one->link);
	mutex_unlock(&set->lock);
}

/* 0; -EBUSY all are in use; -ENODEV there is none */
static inline int pci_set_claim(struct pci_set *set, struct pci_one **ret_one)
{
	struct pci_one *one;
	int err = -ENODEV;

	mutex_lock(&set->lock);
	list_for_each_entry(one, &set->list, link)
	{
		err = one->used || one->gone ? -EBUSY : 0;
		if (err)
			continue;
		one->used = true;
		*ret_one = one;
		break;
	}
	mutex_unlock(&set->lock);
	if (err == -EBUSY)
		env_reason("%s: the device is in use: one program at a time has it", set->name);
	else if (err)
		env_reason("%s: this machine has no such device (qemu has one: -device %s)",
			   set->name, set->device);
	return err;
}

static inline void pci_set_unclaim(struct pci_set *set, struct pci_one *one)
{
	mutex_lock(&set->lock);
	one->used = false;
	wake_up_all(&set->unused);
	mutex_unlock(&set->lock);
}

#endif
