// SPDX-License-Identifier: GPL-2.0-only
/*
 * Peer to peer: one device's DMA reads and writes another device's memory in its PCI BAR, and no
 * system memory is in between. Whether it can the kernel knows (pci_p2pdma): by way of a bridge
 * that both devices are behind, or of a host bridge or processor known to pass such accesses on,
 * and through an IOMMU then. Where it cannot, the log says why, once for two devices, and core
 * copies through system memory.
 *
 * A BAR has pages of the kernel from the first time that a device with it is attached, until the
 * PCI driver lets go of the struct device: no earlier end is offered. The pool that the kernel
 * makes of them is taken as a whole: core is the one allocator of that memory.
 */
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "engine/kernel/kernel.h"

/* ---- the pages of a BAR ---- */

/* a resource of the struct device; the module of its driver uses this one, which so outlives it */
struct bar {
	unsigned int no;
	void *pages; /* their address; NULL: that failed */
};
static DEFINE_MUTEX(bars_lock);

static void bar_release(struct device *dev, void *p)
{
	struct pci_dev *pdev = to_pci_dev(dev);
	struct bar *b = p;

	if (b->pages)
		pci_free_p2pmem(pdev, b->pages, pci_resource_len(pdev, b->no));
}

static int bar_is(struct device *dev, void *p, void *no)
{
	return ((struct bar *)p)->no == *(unsigned int *)no;
}

/* bars_lock held. The resources end in the order opposite to that in which they are added */
static struct bar *bar_add(struct pci_dev *pdev, unsigned int no)
{
	struct bar *b = devres_alloc(bar_release, sizeof(*b), GFP_KERNEL);
	int err;

	if (!b)
		return NULL;
	b->no = no;
	err = pci_p2pdma_add_resource(pdev, no, 0, 0);
	if (err) {
		devres_free(b);
		return NULL;
	}
	b->pages = pci_alloc_p2pmem(pdev, pci_resource_len(pdev, no));
	devres_add(&pdev->dev, b);
	return b;
}

static void *bar_pages(struct pci_dev *pdev, unsigned int no)
{
	struct bar *b;

	mutex_lock(&bars_lock);
	b = devres_find(&pdev->dev, bar_release, bar_is, &no);
	if (!b)
		b = bar_add(pdev, no);
	mutex_unlock(&bars_lock);
	return b ? b->pages : NULL;
}

static void say(struct device *dev, const char *other, const char *why)
{
	dev_info_ratelimited(dev, "balun: copies between it and %s go through system memory: %s\n",
			     other, why);
}

/* why a BAR has none; NULL: it has */
static const char *bar_attach(struct kdev *d, const struct balun_desc *desc)
{
	struct pci_dev *pdev = to_pci_dev(d->bar_device);
	u64 bytes = pci_resource_len(pdev, desc->bar);

	if (!IS_ENABLED(CONFIG_PCI_P2PDMA))
		return "this kernel was configured without CONFIG_PCI_P2PDMA";
	/* what is not aligned the kernel takes for a mistake, and warns */
	if ((pci_resource_start(pdev, desc->bar) | bytes) & (BALUN_BLOCK_SIZE - 1))
		return "its BAR is not aligned to 2M";
	if (desc->mem_bytes > bytes)
		return "its memory is larger than the BAR";
	d->bar = bar_pages(pdev, desc->bar);
	return d->bar ? NULL : "the kernel has no pages for its BAR";
}

void kpeer_attach(struct kdev *d, const struct balun_desc *desc)
{
	struct kengine *k = d->k;
	const char *why;
	unsigned int i;

	/* a number that another device had */
	down_read(&k->devices);
	for (i = 1; i < MAX_DEVICES; i++)
		if (k->dev[i]) {
			clear_bit(d->id, &k->dev[i]->reached);
			clear_bit(d->id, &k->dev[i]->asked);
		}
	up_read(&k->devices);
	d->dma = desc->dma_device;
	d->bar_device = desc->bar_device;
	why = d->bar_device ? bar_attach(d, desc) : NULL;
	if (why)
		say(d->bar_device, "others", why);
}

/* ---- who reaches it ---- */

static u64 last_address(struct device *dma)
{
	return min_not_zero(dma_get_mask(dma), dma->bus_dma_limit);
}

static bool translated(struct device *dma)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dma);

	return domain && iommu_is_dma_domain(domain);
}

/*
 * An IOMMU gives the memory addresses that @by has. Without one it has its own, and the kernel
 * warns where they are out of @by's reach.
 */
static bool has_addresses(const struct kdev *of, const struct kdev *by)
{
	u64 last = page_to_phys(virt_to_page(of->bar)) + ((u64)of->npages << PAGE_SHIFT) - 1;

	return translated(by->dma) || last <= last_address(by->dma);
}

static const char *out_of_reach(const struct kdev *of, const struct kdev *by)
{
	if (!dma_pci_p2pdma_supported(by->dma))
		return "what maps memory for its DMA knows only system memory";
	if (pci_p2pdma_distance(to_pci_dev(of->bar_device), by->dma, false) < 0)
		return "no bridge between them is known to pass accesses on";
	if (!has_addresses(of, by))
		return "its addresses are too short";
	return NULL;
}

static void refuse(struct kdev *of, const struct kdev *by, const char *why)
{
	clear_bit(by->id, &of->reached);
	say(by->dma, dev_name(of->bar_device), why);
}

/* Asked once: the kernel may warn each time. Who comes while the answer is found out may take it
 * for a no. */
static bool reaches(struct kdev *of, const struct kdev *by)
{
	const char *why;

	if (!of->bar || !by->dma)
		return false;
	if (test_and_set_bit(by->id, &of->asked))
		return test_bit(by->id, &of->reached);
	why = out_of_reach(of, by);
	if (why)
		refuse(of, by, why);
	else
		set_bit(by->id, &of->reached);
	return !why;
}

/* ---- a copy ---- */

struct peer_map {
	struct device *dma;
	enum dma_data_direction dir;
	struct sg_table table;
	struct scatterlist sg;
};

/*
 * An address on a bus that both devices are on: nobody has checked whether @by has such addresses.
 * And where @by's other accesses are translated, a machine that translates this one too, as those
 * of qemu do, leads it elsewhere: the bytes would be lost, and no error says so.
 */
static const char *bad_address(const struct kdev *by, struct scatterlist *sg)
{
	if (compat_sg_is_bus_address(sg) && translated(by->dma))
		return "a bridge would lead it past its IOMMU, which not all do (iommu=pt)";
	if (sg_dma_address(sg) + sg_dma_len(sg) - 1 > last_address(by->dma))
		return "its addresses are too short";
	return NULL;
}

static void map_end(struct peer_map *m)
{
	dma_unmap_sgtable(m->dma, &m->table, m->dir, COMPAT_DMA_MMIO);
	kfree(m);
}

/* core keeps both devices */
int kpeer_map(void *e, unsigned int dev, uint64_t off, uint64_t len, unsigned int client,
	      bool write, struct engine_peer *ret_peer)
{
	struct kengine *k = e;
	struct kdev *of = k->dev[dev], *by = k->dev[client];
	struct peer_map *m;
	const char *why;
	int err;

	if (!reaches(of, by))
		return -EOPNOTSUPP;
	len = min3(len, (u64)dma_get_max_seg_size(by->dma), (u64)dma_max_mapping_size(by->dma));
	len &= PAGE_MASK;
	if (!len) { /* core goes on by what is mapped */
		refuse(of, by, "not even a page can be mapped for its DMA");
		return -EOPNOTSUPP;
	}
	m = kzalloc(sizeof(*m), GFP_KERNEL);
	if (!m)
		return -ENOMEM;
	m->dma = by->dma;
	m->dir = write ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
	m->table = (struct sg_table){ .sgl = &m->sg, .nents = 1, .orig_nents = 1 };
	sg_init_table(&m->sg, 1);
	sg_set_page(&m->sg, virt_to_page(of->bar + off), len, 0);
	err = dma_map_sgtable(by->dma, &m->table, m->dir, COMPAT_DMA_MMIO);
	if (err) {
		kfree(m);
		if (err != -ENOMEM) /* no addresses are free now */
			refuse(of, by, "it cannot be mapped for its DMA");
		return err;
	}
	why = bad_address(by, &m->sg);
	if (why) {
		map_end(m);
		refuse(of, by, why);
		return -EOPNOTSUPP;
	}
	ret_peer->addr = sg_dma_address(&m->sg);
	ret_peer->len = len;
	ret_peer->map = m;
	return 0;
}

void kpeer_unmap(void *e, struct engine_peer *peer)
{
	map_end(peer->map);
}
