// SPDX-License-Identifier: GPL-2.0-only
/**
 * DOC: ivshmem - QEMU's "ivshmem-plain" PCI device, in the kernel only
 *
 * Memory behind a BAR, and nothing else: no processor, no MMU, no copy engine. CPUs copy; and
 * devices that have a copy engine and reach the BAR do so directly (balun_desc.bar_device). QEMU's
 * docs/specs/ivshmem-spec.txt describes it. Machines that share the memory cannot both use it so.
 *
 * One program at a time has a device (pci_set.h).
 */
#include <linux/io.h>
#include <linux/pci.h>

#include "balun/driver.h"
#include "drivers/pci_set.h"
#include "env/env.h"

#define IVSHMEM_BAR 2

struct ivshmem {
	struct pci_one one;
	void __iomem *mem; /* while it is used */
};

static PCI_SET(ivshmems, "ivshmem", "ivshmem-plain");

/* ---- CPUs copy ---- */

static void ivshmem_copy_one(struct ivshmem *s, const struct balun_copy *op)
{
	if (op->src_kind == BALUN_KIND_ZERO)
		memset_io(s->mem + op->dst, 0, op->len);
	else if (op->src_kind == BALUN_KIND_SYSTEM)
		memcpy_toio(s->mem + op->dst, balun_bus_ptr(op->src, op->len), op->len);
	else
		memcpy_fromio(balun_bus_ptr(op->dst, op->len), s->mem + op->src, op->len);
}

static int ivshmem_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (op[i].src_kind == BALUN_KIND_PEER)
			return -EOPNOTSUPP;
		ivshmem_copy_one(priv, &op[i]);
	}
	*ret_cookie = 0;
	return 0;
}

static int ivshmem_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

/* ---- no page tables ---- */

static int ivshmem_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void ivshmem_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			  enum balun_cause cause)
{
}

/* ---- a space begins and ends to use it ---- */

static int ivshmem_start(struct ivshmem *s)
{
	struct pci_dev *pdev = s->one.pdev;
	int err = pci_enable_device(pdev);

	if (err)
		return err;
	err = pci_request_region(pdev, IVSHMEM_BAR, "balun-ivshmem");
	if (err)
		goto err_disable;
	s->mem = pci_iomap(pdev, IVSHMEM_BAR, 0);
	if (s->mem)
		return 0;
	err = -ENOMEM;
	pci_release_region(pdev, IVSHMEM_BAR);
err_disable:
	pci_disable_device(pdev);
	return err;
}

static int ivshmem_open(struct balun_device *dev, const struct balun_options *opt,
			struct balun_desc *ret_desc, void **ret_priv)
{
	struct pci_one *one;
	struct ivshmem *s;
	int err = pci_set_claim(&ivshmems, &one);

	if (err)
		return err;
	s = container_of(one, struct ivshmem, one);
	err = ivshmem_start(s);
	if (err) {
		pci_set_unclaim(&ivshmems, one);
		return err;
	}
	ret_desc->mem_bytes = pci_resource_len(one->pdev, IVSHMEM_BAR);
	ret_desc->bar_device = &one->pdev->dev;
	ret_desc->bar = IVSHMEM_BAR;
	*ret_priv = s;
	return 0;
}

static void ivshmem_close(void *priv)
{
	struct ivshmem *s = priv;

	pci_iounmap(s->one.pdev, s->mem);
	pci_release_region(s->one.pdev, IVSHMEM_BAR);
	pci_disable_device(s->one.pdev);
	pci_set_unclaim(&ivshmems, &s->one);
}

/* ---- the machine's devices ---- */

static int ivshmem_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct ivshmem *s = env_alloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	pci_set_add(&ivshmems, &s->one, pdev);
	return 0;
}

static void ivshmem_remove(struct pci_dev *pdev)
{
	struct ivshmem *s = pci_get_drvdata(pdev);

	pci_set_remove(&ivshmems, &s->one);
	env_free(s);
}

static const struct pci_device_id ivshmem_ids[] = { { PCI_DEVICE(0x1af4, 0x1110) }, {} };
MODULE_DEVICE_TABLE(pci, ivshmem_ids);

/* registered by the module (engine/kernel/driver) */
extern struct pci_driver balun_ivshmem_pci;
struct pci_driver balun_ivshmem_pci = {
	.name = "balun-ivshmem",
	.id_table = ivshmem_ids,
	.probe = ivshmem_probe,
	.remove = ivshmem_remove,
};

extern const struct balun_driver balun_ivshmem_driver;
const struct balun_driver balun_ivshmem_driver = {
	.size = sizeof(struct balun_driver),
	.name = "ivshmem",
	.help = "",
	.open = ivshmem_open,
	.close = ivshmem_close,
	.map = ivshmem_map,
	.unmap = ivshmem_unmap,
	.copy = ivshmem_copy,
	.copy_wait = ivshmem_copy_wait,
};
