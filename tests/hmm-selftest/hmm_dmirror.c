// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/hmm_dmirror0 to 3, for the kernel's HMM selftest: shim.c as a kernel module. Devices 0 and 1
 * have private memory, 2 and 3 coherent, if balun.ko was given some.
 *
 * A process gets its space at its first open. An open file is the mirror of who opened it, also in
 * a child that inherits it, as with the kernel's own module. As there, a device's touch moves
 * nothing: that is the policy. The opens of one device by a process share its page table.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "balun/balun.h"
#include "balun/dmirror.h"
#include "balun/driver.h"
#include "balun/policy.h"
#include "tests/hmm-selftest/abi.h"

#define UNITS 4

static char *mem = "64M";
module_param(mem, charp, 0444);
MODULE_PARM_DESC(mem, "memory of a device, a multiple of 2M");

/* the space of a process */
struct mirror {
	struct list_head link;
	struct mm_struct *mm;
	struct balun_space *space;
	unsigned int opens;
	struct {
		struct balun_device *dev;
		unsigned int opens;
	} unit[UNITS];
};

/* an open file */
struct handle {
	struct mirror *mirror;
	unsigned int no;
};

/* held while spaces and devices are made and ended; a command has no need of it, its file is open
 */
static DEFINE_MUTEX(lock);
static LIST_HEAD(mirrors);

/* ---- spaces and devices; lock held ---- */

static void decide(const struct balun_question *q, struct balun_answer *ret_a)
{
	/* and a CPU's touch, the one page */
	ret_a->stay = q->device != 0;
}

static const struct balun_policy policy = {
	.size = sizeof(policy),
	.name = "hmm-selftest",
	.decide = decide,
};

static void mirror_put(struct mirror *m)
{
	if (--m->opens)
		return;
	balun_space_destroy(m->space);
	list_del(&m->link);
	mmdrop(m->mm);
	kfree(m);
}

static struct mirror *mirror_find(void)
{
	struct mirror *m;

	list_for_each_entry(m, &mirrors, link)
	{
		if (m->mm == current->mm)
			return m;
	}
	return NULL;
}

static int mirror_get(struct mirror **ret_m)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .policy = &policy };
	struct mirror *m = mirror_find();
	int err;

	if (m)
		goto found;
	m = kzalloc(sizeof(*m), GFP_KERNEL);
	if (!m)
		return -ENOMEM;
	err = balun_space_create(&opts, &m->space);
	if (err) {
		kfree(m);
		return err;
	}
	m->mm = current->mm;
	mmgrab(m->mm); /* else another may have its address one day */
	list_add(&m->link, &mirrors);
found:
	m->opens++;
	*ret_m = m;
	return 0;
}

static int device_open(struct balun_space *space, bool coherent, struct balun_device **ret_dev)
{
	struct balun_device_info info = { .size = sizeof(info) };
	struct balun_device *dev;
	char spec[64];
	int err;

	snprintf(spec, sizeof(spec), "dmirror:mem=%s,coherent=%d", mem, coherent);
	err = balun_device_open(space, spec, &dev);
	if (err)
		return err;
	err = balun_device_info(dev, &info);
	if (!err && coherent && !(info.caps & BALUN_CAP_COHERENT))
		err = -ENODEV; /* it would be private */
	if (err)
		balun_device_close(dev);
	else
		*ret_dev = dev;
	return err;
}

static int unit_get(struct mirror *m, unsigned int no)
{
	int err = 0;

	if (!m->unit[no].opens)
		err = device_open(m->space, no >= UNITS / 2, &m->unit[no].dev);
	if (!err)
		m->unit[no].opens++;
	return err;
}

static void unit_put(struct mirror *m, unsigned int no)
{
	if (!--m->unit[no].opens)
		balun_device_close(m->unit[no].dev);
}

/* ---- files ---- */

static struct miscdevice node[UNITS];

static int hmm_open(struct inode *inode, struct file *file)
{
	struct handle *h = kzalloc(sizeof(*h), GFP_KERNEL);
	int err;

	if (!h)
		return -ENOMEM;
	/* so far it is the node: misc_open() has put it there */
	h->no = (struct miscdevice *)file->private_data - node;
	mutex_lock(&lock);
	err = mirror_get(&h->mirror);
	if (!err) {
		err = unit_get(h->mirror, h->no);
		if (err)
			mirror_put(h->mirror);
	}
	mutex_unlock(&lock);
	file->private_data = h;
	if (err)
		kfree(h);
	return err;
}

static int hmm_release(struct inode *inode, struct file *file)
{
	struct handle *h = file->private_data;

	mutex_lock(&lock);
	unit_put(h->mirror, h->no);
	mirror_put(h->mirror);
	mutex_unlock(&lock);
	kfree(h);
	return 0;
}

static int command(struct balun_device *dev, int op, struct hmm_dmirror_cmd *cmd)
{
	struct balun_dmirror_cmd c = { .size = sizeof(c), .op = op, .addr = cmd->addr };
	void __user *ptr = u64_to_user_ptr(cmd->ptr);
	size_t bytes;
	int err = 0;

	if (op < 0 || cmd->npages > U64_MAX >> PAGE_SHIFT)
		return -EINVAL;
	c.len = cmd->npages << PAGE_SHIFT;
	if (cmd->addr & ~PAGE_MASK || cmd->addr >= cmd->addr + c.len)
		return -EINVAL;
	bytes = balun_dmirror_buf(&c);
	c.buf = bytes ? balun_mem_alloc(bytes) : NULL;
	if (bytes && !c.buf)
		return -ENOMEM;
	if (op == BALUN_DMIRROR_WRITE && copy_from_user(c.buf, ptr, bytes))
		err = -EFAULT;
	if (!err)
		err = balun_dmirror(dev, &c);
	if (!err && hmm_filled(&c) && copy_to_user(ptr, c.buf, bytes))
		err = -EFAULT;
	balun_mem_free(c.buf, bytes);
	cmd->cpages = c.bytes >> PAGE_SHIFT;
	cmd->faults = c.faults;
	return err;
}

static long hmm_ioctl(struct file *file, unsigned int request, unsigned long arg)
{
	struct hmm_dmirror_cmd cmd, __user *ucmd = (void __user *)arg;
	struct handle *h = file->private_data;
	int err = 0;

	if (copy_from_user(&cmd, ucmd, sizeof(cmd)))
		return -EFAULT;
	/* an allocation of a huge page shall fail, and small ones be used: they are all small */
	if (request == HMM_DMIRROR_FLAGS)
		cmd.cpages = cmd.faults = 0;
	else
		err = command(h->mirror->unit[h->no].dev, hmm_op(request), &cmd);
	if (!err && copy_to_user(ucmd, &cmd, sizeof(cmd)))
		err = -EFAULT;
	return err;
}

/* the device puts its pages in at once */
static int hmm_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long addr;
	int err = 0;

	for (addr = vma->vm_start; !err && addr < vma->vm_end; addr += PAGE_SIZE) {
		struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);

		if (!page)
			return -ENOMEM;
		err = vm_insert_page(vma, addr, page);
		put_page(page);
	}
	return err;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = hmm_open,
	.release = hmm_release,
	.unlocked_ioctl = hmm_ioctl,
	.mmap = hmm_mmap,
};

#define NODE(n)                                                                                    \
	{                                                                                          \
		.minor = MISC_DYNAMIC_MINOR, .name = n, .fops = &fops                              \
	}
static struct miscdevice node[UNITS] = {
	NODE("hmm_dmirror0"),
	NODE("hmm_dmirror1"),
	NODE("hmm_dmirror2"),
	NODE("hmm_dmirror3"),
};

static int __init hmm_dmirror_init(void)
{
	int i, err = 0;

	for (i = 0; i < UNITS; i++) {
		err = misc_register(&node[i]);
		if (err)
			break;
	}
	while (err && i--)
		misc_deregister(&node[i]);
	return err;
}

static void __exit hmm_dmirror_exit(void)
{
	int i;

	for (i = 0; i < UNITS; i++)
		misc_deregister(&node[i]);
}

module_init(hmm_dmirror_init);
module_exit(hmm_dmirror_exit);
MODULE_SOFTDEP("pre: balun-dmirror");
MODULE_DESCRIPTION("The kernel's HMM selftest on Balun");
MODULE_LICENSE("GPL");
