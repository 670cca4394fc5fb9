// SPDX-License-Identifier: GPL-2.0-only
/**
 * DOC: edu - QEMU's "edu" PCI device ("qemu -device edu"), in the kernel only
 *
 * To a kernel it is hardware: registers behind a BAR, a DMA engine that takes its time, an
 * interrupt. A buffer of 4 KiB that nothing but the DMA engine reaches is the device memory, one
 * page; the DMA engine is the copy engine. There is no MMU. QEMU's docs/specs/edu describes the
 * registers.
 *
 * It has an erratum: of a transfer that touches the buffer's last byte an older QEMU (as 7.2) says
 * "out of bounds", and ends the machine. No driver can find out whether it is there. So a page's
 * last byte lives in the liveness register, which keeps what is written to it, and goes there
 * through the buffer: a copy is several transfers, one after the other.
 *
 * The device's DMA reaches addresses of 28 bits (dma_bits=28). Core maps system memory for it
 * (balun_desc.dma_device), which takes an IOMMU or bounce buffers where memory is elsewhere; or
 * QEMU is asked for a better device ("-device edu,dma_mask=0xffffffffffffffff") and so is this
 * driver (dma_bits=64).
 *
 * One program at a time has a device (pci_set.h).
 */
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/pci.h>

#include "balun/driver.h"
#include "drivers/pci_set.h"
#include "env/env.h"

/* registers; those below 0x80 are 32 bits wide, the others 64 */
#define EDU_ID	       0x00 /* 0xRRrr00ed: version RR.rr */
#define EDU_LIVE       0x04 /* reads as the complement of what was written */
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK    0x64
#define EDU_DMA_SRC    0x80
#define EDU_DMA_DST    0x88
#define EDU_DMA_COUNT  0x90
#define EDU_DMA_CMD    0x98
#define EDU_REGS_LEN   0xa0

#define EDU_ID_MASK  0xff00ffff
#define EDU_ID_V1    0x010000ed
#define EDU_IRQ_DMA  0x100 /* in IRQ_STATUS: a transfer has ended */
#define EDU_CMD_RUN  1	   /* write: start; read: a transfer is under way */
#define EDU_CMD_HOME 2	   /* from the buffer to memory */
#define EDU_CMD_IRQ  4	   /* interrupt at the end */

/*
 * The buffer, to the DMA engine. Its byte EDU_PASS holds no content that matters: what is not in
 * the buffer passes through it. The page's bytes EDU_PASS and EDU_PASS + 1 are in EDU_LIVE.
 */
#define EDU_BUFFER 0x40000
#define EDU_BYTES  4096
#define EDU_PASS   (EDU_BYTES - 2)
#define EDU_STEPS  4

/* a transfer takes a tenth of a second of the virtual machine's time, a copy up to four */
#define EDU_TIMEOUT (5 * HZ)

/* bits of edu.flags */
#define EDU_BUSY  0 /* somebody is between copy() and copy_wait() */
#define EDU_TAKEN 1 /* core has been given the device memory */

/* a transfer */
struct edu_step {
	u64 src, dst;
	u32 bytes, cmd;
};

/* a device of the machine */
struct edu {
	struct pci_one one;
	/* while it is used: */
	struct balun_device *dev;
	void __iomem *regs;
	/* memory of the driver's that the device reaches: zeros, and the two bytes after them */
	u8 *own;
	dma_addr_t own_addr;
	unsigned long flags;
	spinlock_t lock; /* of the copy: */
	struct edu_step step[EDU_STEPS];
	unsigned int now, end;	     /* the step under way; now == end: none is */
	bool in;		     /* into the buffer */
	struct wait_queue_head wait; /* for EDU_BUSY, and for the end of a copy */
};

static PCI_SET(edus, "edu", "edu");

/* ---- the copy engine ---- */

static bool edu_runs(const struct edu *edu)
{
	return readl(edu->regs + EDU_DMA_CMD) & EDU_CMD_RUN;
}

/* lock held */
static void edu_transfer(struct edu *edu)
{
	const struct edu_step *s = &edu->step[edu->now];

	writeq(s->src, edu->regs + EDU_DMA_SRC);
	writeq(s->dst, edu->regs + EDU_DMA_DST);
	writeq(s->bytes, edu->regs + EDU_DMA_COUNT);
	writeq(s->cmd | EDU_CMD_IRQ | EDU_CMD_RUN, edu->regs + EDU_DMA_CMD);
}

/* a transfer has ended; lock held */
static void edu_next(struct edu *edu)
{
	const u8 *last = edu->own + EDU_BYTES;

	if (++edu->now < edu->end) {
		edu_transfer(edu);
		return;
	}
	if (edu->in)
		writel(~(last[0] | (u32)last[1] << 8), edu->regs + EDU_LIVE);
	wake_up_all(&edu->wait);
}

static irqreturn_t edu_irq(int irq, void *arg)
{
	struct edu *edu = arg;
	u32 status = readl(edu->regs + EDU_IRQ_STATUS);
	unsigned long flags;

	if (!status) /* another device's, on the same line */
		return IRQ_NONE;
	writel(status, edu->regs + EDU_IRQ_ACK);
	spin_lock_irqsave(&edu->lock, flags);
	/* one that runs still has not ended: the interrupt is a late one, of a copy given up */
	if (status & EDU_IRQ_DMA && edu->now < edu->end && !edu_runs(edu))
		edu_next(edu);
	spin_unlock_irqrestore(&edu->lock, flags);
	return IRQ_HANDLED;
}

static void edu_step(struct edu *edu, u64 src, u64 dst, u32 bytes, u32 cmd)
{
	edu->step[edu->end++] =
		(struct edu_step){ .src = src, .dst = dst, .bytes = bytes, .cmd = cmd };
}

/* from memory: its end first, through the buffer's beginning, for EDU_LIVE */
static void edu_steps_in(struct edu *edu, u64 mem)
{
	u64 last = edu->own_addr + EDU_BYTES;

	edu_step(edu, mem + EDU_PASS, EDU_BUFFER, 2, 0);
	edu_step(edu, EDU_BUFFER, last, 2, EDU_CMD_HOME);
	edu_step(edu, mem, EDU_BUFFER, EDU_BYTES - 1, 0);
}

/* to memory: the device still holds the whole page after it, and after a part of it */
static void edu_steps_home(struct edu *edu, u64 mem)
{
	u64 last = edu->own_addr + EDU_BYTES, pass = EDU_BUFFER + EDU_PASS;
	u32 live = readl(edu->regs + EDU_LIVE);

	edu->own[EDU_BYTES] = live;
	edu->own[EDU_BYTES + 1] = live >> 8;
	edu_step(edu, last, pass, 1, 0);
	edu_step(edu, EDU_BUFFER, mem, EDU_BYTES - 1, EDU_CMD_HOME);
	edu_step(edu, last + 1, pass, 1, 0);
	edu_step(edu, pass, mem + EDU_BYTES - 1, 1, EDU_CMD_HOME);
}

/*
 * Operations of a batch do not overlap, and there is one page: it is one operation. Memory of
 * another device (PEER) is as good as the system's.
 */
static int edu_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct edu *edu = priv;

	if (n != 1 || op->len != EDU_BYTES)
		return -EOPNOTSUPP;
	if (!wait_event_timeout(edu->wait, !test_and_set_bit_lock(EDU_BUSY, &edu->flags),
				2 * EDU_TIMEOUT))
		return -EIO;
	spin_lock_irq(&edu->lock);
	edu->now = edu->end = 0;
	edu->in = op->dst_kind == BALUN_KIND_LOCAL;
	if (edu->in)
		edu_steps_in(edu, op->src_kind == BALUN_KIND_ZERO ? edu->own_addr : op->src);
	else
		edu_steps_home(edu, op->dst);
	edu_transfer(edu);
	spin_unlock_irq(&edu->lock);
	*ret_cookie = 0;
	return 0;
}

/*
 * What a copy uses is used otherwise when this returns, so a transfer that does not end is kept
 * from memory, for good.
 */
static int edu_copy_wait(void *priv, uint64_t cookie)
{
	struct edu *edu = priv;
	bool ended, stuck = false;

	wait_event_timeout(edu->wait, READ_ONCE(edu->now) == READ_ONCE(edu->end), EDU_TIMEOUT);
	spin_lock_irq(&edu->lock);
	ended = edu->now == edu->end;
	if (!ended) {
		edu->now = edu->end; /* not a step more */
		stuck = edu_runs(edu);
	}
	spin_unlock_irq(&edu->lock);
	if (stuck) {
		pci_clear_master(edu->one.pdev);
		balun_device_lost(edu->dev);
	}
	clear_bit_unlock(EDU_BUSY, &edu->flags);
	wake_up_all(&edu->wait);
	return ended ? 0 : -EIO;
}

/* ---- its memory, and no page tables ---- */

static int edu_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	struct edu *edu = priv;

	if (len != EDU_BYTES || test_and_set_bit(EDU_TAKEN, &edu->flags))
		return -ENOMEM;
	*ret_off = 0;
	return 0;
}

static void edu_free(void *priv, uint64_t off, uint64_t len)
{
	struct edu *edu = priv;

	clear_bit(EDU_TAKEN, &edu->flags);
}

static int edu_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void edu_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		      enum balun_cause cause)
{
}

/* ---- a space begins and ends to use it ---- */

static int edu_check(struct edu *edu)
{
	u32 id = readl(edu->regs + EDU_ID), word = 0x5a0ff0a5, answer;

	writel(word, edu->regs + EDU_LIVE);
	answer = readl(edu->regs + EDU_LIVE);
	if ((id & EDU_ID_MASK) == EDU_ID_V1 && answer == ~word)
		return 0;
	env_reason("edu: %s is no edu device of version 1, or is dead: it says 0x%x, and 0x%x to "
		   "0x%x",
		   pci_name(edu->one.pdev), id, answer, word);
	return -ENODEV;
}

static int edu_dma_start(struct edu *edu, unsigned int bits)
{
	struct device *d = &edu->one.pdev->dev;

	if (dma_set_mask_and_coherent(d, DMA_BIT_MASK(bits))) {
		env_reason("edu: no memory of this machine has addresses of %u bits: with an IOMMU "
			   "it would, or with \"-device edu,dma_mask=...\" of qemu and dma_bits= "
			   "here",
			   bits);
		return -ENODEV;
	}
	edu->own = dma_alloc_coherent(d, EDU_BYTES + 2, &edu->own_addr, GFP_KERNEL);
	if (!edu->own)
		return -ENOMEM;
	pci_set_master(edu->one.pdev);
	return 0;
}

static void edu_dma_stop(struct edu *edu)
{
	pci_clear_master(edu->one.pdev);
	dma_free_coherent(&edu->one.pdev->dev, EDU_BYTES + 2, edu->own, edu->own_addr);
}

static int edu_irq_start(struct edu *edu)
{
	int err = pci_alloc_irq_vectors(edu->one.pdev, 1, 1, PCI_IRQ_ALL_TYPES);

	if (err < 0)
		goto err_none;
	err = request_irq(pci_irq_vector(edu->one.pdev, 0), edu_irq, IRQF_SHARED, "balun-edu", edu);
	if (!err)
		return 0;
	pci_free_irq_vectors(edu->one.pdev);
err_none:
	env_reason("edu: no interrupt for %s: error %d", pci_name(edu->one.pdev), err);
	return err;
}

static void edu_irq_stop(struct edu *edu)
{
	free_irq(pci_irq_vector(edu->one.pdev, 0), edu);
	pci_free_irq_vectors(edu->one.pdev);
}

static int edu_start(struct edu *edu, unsigned int bits)
{
	int err = pci_enable_device(edu->one.pdev);

	if (err)
		return err;
	err = pci_request_region(edu->one.pdev, 0, "balun-edu");
	if (err)
		goto err_disable;
	err = -ENOMEM;
	edu->regs = pci_iomap(edu->one.pdev, 0, EDU_REGS_LEN);
	if (!edu->regs)
		goto err_region;
	err = edu_check(edu);
	if (!err)
		err = edu_dma_start(edu, bits);
	if (err)
		goto err_regs;
	err = edu_irq_start(edu);
	if (!err)
		return 0;

	edu_dma_stop(edu);
err_regs:
	pci_iounmap(edu->one.pdev, edu->regs);
err_region:
	pci_release_region(edu->one.pdev, 0);
err_disable:
	pci_disable_device(edu->one.pdev);
	return err;
}

static void edu_stop(struct edu *edu)
{
	edu_irq_stop(edu);
	edu_dma_stop(edu);
	pci_iounmap(edu->one.pdev, edu->regs);
	pci_release_region(edu->one.pdev, 0);
	pci_disable_device(edu->one.pdev);
}

static int edu_open(struct balun_device *dev, const struct balun_options *opt,
		    struct balun_desc *ret_desc, void **ret_priv)
{
	struct pci_one *one;
	struct edu *edu;
	uint64_t bits;
	int err = balun_opt_size(opt, "dma_bits", 28, &bits);

	if (err)
		return err;
	if (bits < 28 || bits > 64)
		return balun_opt_fail(opt, "dma_bits", "must be from 28 to 64");
	err = pci_set_claim(&edus, &one);
	if (err)
		return err;
	edu = container_of(one, struct edu, one);
	edu->dev = dev;
	edu->flags = 0;
	err = edu_start(edu, bits);
	if (err) {
		pci_set_unclaim(&edus, &edu->one);
		return err;
	}
	ret_desc->mem_bytes = EDU_BYTES;
	ret_desc->caps = BALUN_CAP_ALLOC;
	ret_desc->dma_device = &edu->one.pdev->dev;
	*ret_priv = edu;
	return 0;
}

static void edu_close(void *priv)
{
	struct edu *edu = priv;

	edu_stop(edu);
	pci_set_unclaim(&edus, &edu->one);
}

/* ---- the machine's devices ---- */

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu *edu = env_alloc(sizeof(*edu));

	if (!edu)
		return -ENOMEM;
	spin_lock_init(&edu->lock);
	init_waitqueue_head(&edu->wait);
	pci_set_add(&edus, &edu->one, pdev);
	return 0;
}

static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	pci_set_remove(&edus, &edu->one);
	env_free(edu);
}

static const struct pci_device_id edu_ids[] = { { PCI_DEVICE(0x1234, 0x11e8) }, {} };
MODULE_DEVICE_TABLE(pci, edu_ids);

/* registered by the module (engine/kernel/driver) */
extern struct pci_driver balun_edu_pci;
struct pci_driver balun_edu_pci = {
	.name = "balun-edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};

extern const struct balun_driver balun_edu_driver;
const struct balun_driver balun_edu_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_ALLOC,
	.name = "edu",
	.help = "dma_bits=28  width of the addresses that it reaches: as qemu's dma_mask=\n",
	.open = edu_open,
	.close = edu_close,
	.map = edu_map,
	.unmap = edu_unmap,
	.copy = edu_copy,
	.copy_wait = edu_copy_wait,
	.alloc = edu_alloc,
	.free = edu_free,
};
