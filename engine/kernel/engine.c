// SPDX-License-Identifier: GPL-2.0-only
/* The engine: a space's beginning and end, and the table. See kernel.h for who does what. */
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "engine/kernel/kernel.h"

static void kprobe_info(struct balun_engine_info *info)
{
	strscpy(info->name, "kernel", sizeof(info->name));
	info->works = true;
	strscpy(info->how, "HMM of this kernel", sizeof(info->how));
	snprintf(info->features, sizeof(info->features), "MIRROR %sPRIVATE %sPEER",
		 COMPAT_DEVICE_PRIVATE ? "" : "-", IS_ENABLED(CONFIG_PCI_P2PDMA) ? "" : "-");
	if (!COMPAT_DEVICE_PRIVATE) {
		strscpy(info->reason,
			"no page can leave system memory: this kernel has no "
			"device-private memory",
			sizeof(info->reason));
		strscpy(info->remedy, "a kernel with CONFIG_DEVICE_PRIVATE=y",
			sizeof(info->remedy));
	}
}

static void engine_free(struct kengine *k)
{
	kregions_end(k);
	kdevices_forget(k);
	mempool_destroy(k->transits);
	mempool_destroy(k->snapshots);
	mmdrop(k->mm);
	kfree(k);
}

/* a space of the process that asks */
static int kattach(struct balun_space *sp, void **ret_e)
{
	struct kengine *k;

	if (!current->mm)
		return -EINVAL;
	k = kzalloc(sizeof(*k), GFP_KERNEL);
	if (!k)
		return -ENOMEM;
	k->space = sp;
	k->mm = current->mm;
	mmgrab(k->mm);
	mutex_init(&k->regions_lock);
	xa_init(&k->regions);
	k->looks.mm = k->mm;
	spin_lock_init(&k->faults_lock);
	INIT_LIST_HEAD(&k->faults);
	spin_lock_init(&k->transit_lock);
	INIT_LIST_HEAD(&k->transits_now);
	INIT_LIST_HEAD(&k->ended);
	init_rwsem(&k->devices);
	k->snapshots = mempool_create_kmalloc_pool(2, SNAPSHOT_SIZE);
	k->transits = mempool_create_kmalloc_pool(2, sizeof(struct ktransit));
	if (!k->snapshots || !k->transits) {
		engine_free(k);
		return -ENOMEM;
	}
	*ret_e = k;
	return 0;
}

static void kdetach(void *e)
{
	engine_free(e);
}

/* the program's own stack may leave: the kernel waits for it as for any other page */
static void kenter(void *e, void *cookie)
{
}

static void kleave(void *e, void *cookie)
{
}

/* a page in transit is waited for where it is touched */
static bool kwait_idle(void *e, uint64_t va, uint64_t timeout_ns)
{
	return true;
}

/* the kernel tells before it changes: nothing is on its way; but what has come free is told late */
static void kfence(void *e)
{
	ksplit_cut(e);
	kdevices_tell(e);
}

static uint64_t kmetadata(void *e)
{
	struct kengine *k = e;
	struct region *r;
	unsigned long no;
	uint64_t n = sizeof(*k);
	unsigned int i;

	xa_for_each(&k->regions, no, r) n += sizeof(*r);
	down_read(&k->devices);
	for (i = 1; i < MAX_DEVICES; i++)
		if (k->dev[i])
			n += sizeof(*k->dev[i]) +
			     ALIGN(k->dev[i]->npages, BLOCK_PAGES) * sizeof(struct page);
	up_read(&k->devices);
	return n;
}

const struct engine_ops engine_kernel = {
	.size = sizeof(struct engine_ops),
	.name = "kernel",
	.probe = kprobe_info,
	.attach = kattach,
	.detach = kdetach,
	.device_attach = kdevice_attach,
	.device_detach = kdevice_detach,
	.enter = kenter,
	.leave = kleave,
	.describe = kdescribe,
	.next_mapped = knext_mapped,
	.no_atomic = !COMPAT_DEVICE_PRIVATE,
	.held_stays = true,
	.look_begin = klook_begin,
	.look_changed = klook_changed,
	.collect = kcollect,
	.commit = kcommit,
	.unshare = kunshare,
	.wait_idle = kwait_idle,
	.poison = kpoison,
	.next_lost = knext_lost,
	.next_away = knext_away,
	.evict_strays = kevict_strays,
	.fence = kfence,
	.bus_read = kbus_read,
	.bus_write = kbus_write,
	.metadata = kmetadata,
	.discard = kdiscard,
	.peer_map = kpeer_map,
	.peer_unmap = kpeer_unmap,
};
