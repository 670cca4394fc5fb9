// SPDX-License-Identifier: GPL-2.0-only
/* /dev/balun: the file, its space and devices, and how a call comes in and goes out. See ioctl.h.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "engine/kernel/ioctl.h"
#include "engine/kernel/kernel.h"

/* ---- spaces and devices of a file ---- */

static int space_begin(struct kcall *c)
{
	struct knode *n = c->node;
	int err = 0;

	mutex_lock(&n->lock);
	if (n->state != LIVE && n->state != ENDING) {
		env_reason("this file has no space%s", n->state == ENDED ? " any more" : " yet");
		err = -EBADF;
	} else if (n->mm != current->mm) {
		env_reason("this space belongs to another process: create one of your own");
		err = -ECHILD;
	} else {
		n->calls++;
		c->space = n->space;
	}
	mutex_unlock(&n->lock);
	return err;
}

static void space_end(struct kcall *c)
{
	mutex_lock(&c->node->lock);
	if (!--c->node->calls)
		wake_up_all(&c->node->idle);
	mutex_unlock(&c->node->lock);
}

static int no_device(void)
{
	env_reason("no device has this handle: it is closed");
	return -ENODEV;
}

/* the device of a handle, entered; NULL for handle 0 */
int kcall_get(struct kcall *c, u64 handle, struct balun_device **ret_dev)
{
	struct knode *n = c->node;
	int err = 0;

	*ret_dev = NULL;
	if (!handle)
		return 0;
	mutex_lock(&n->lock);
	if (n->slot[handle % SLOTS].handle == handle &&
	    core_device_enter(n->slot[handle % SLOTS].dev))
		*ret_dev = n->slot[handle % SLOTS].dev;
	else
		err = no_device();
	mutex_unlock(&n->lock);
	return err;
}

void kcall_put(struct balun_device *dev)
{
	if (dev)
		core_device_leave(dev);
}

/* @handle 0: whatever is there; -ENODEV nothing, or somebody closes it already */
static int slot_close(struct knode *n, unsigned int i, u64 handle)
{
	struct balun_device *dev = NULL;
	int err;

	mutex_lock(&n->lock);
	if (n->slot[i].handle && !n->slot[i].closing && (!handle || n->slot[i].handle == handle)) {
		dev = n->slot[i].dev;
		n->slot[i].closing = true;
	}
	mutex_unlock(&n->lock);
	if (!dev)
		return no_device();
	err = balun_device_close(dev);
	mutex_lock(&n->lock);
	/* core may have given the number to a device that was opened since: the slot is its */
	if (n->slot[i].dev == dev) {
		n->slot[i].handle = 0;
		n->slot[i].closing = false;
	}
	mutex_unlock(&n->lock);
	core_device_free(dev);
	return err;
}

static int slots_close(struct knode *n)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < SLOTS; i++)
		if (slot_close(n, i, 0) == -EIO)
			err = -EIO;
	return err;
}

/* by one only; state is ENDING, or nobody else has the file */
static int node_end(struct knode *n)
{
	int err = slots_close(n), end;

	mutex_lock(&n->lock);
	n->state = ENDED;
	mutex_unlock(&n->lock);
	wait_event_idle(n->idle, !READ_ONCE(n->calls));
	/* who counted down has let go of it */
	mutex_lock(&n->lock);
	mutex_unlock(&n->lock);
	/* and may have opened a device */
	end = slots_close(n);
	err = err ? err : end;
	end = balun_space_destroy(n->space);
	mmdrop(n->mm);
	return err ? err : end;
}

static int call_create(struct kcall *c)
{
	struct knode *n = c->node;
	struct balun_space *space;
	bool mine;
	int err;

	mutex_lock(&n->lock);
	mine = n->state == NEW;
	if (mine)
		n->state = MAKING;
	mutex_unlock(&n->lock);
	if (!mine) {
		env_reason("this file has had its space: open another one");
		return -EBUSY;
	}
	err = balun_space_create(NULL, &space);
	mutex_lock(&n->lock);
	n->state = err ? NEW : LIVE;
	if (!err) {
		n->space = space;
		n->mm = current->mm;
		mmgrab(n->mm);
	}
	mutex_unlock(&n->lock);
	return err;
}

static int call_destroy(struct kcall *c)
{
	struct knode *n = c->node;
	int err = space_begin(c);
	bool mine;

	if (err)
		return err;
	mutex_lock(&n->lock);
	mine = n->state == LIVE;
	if (mine)
		n->state = ENDING;
	mutex_unlock(&n->lock);
	space_end(c);
	return mine ? node_end(n) : -EBADF;
}

static int call_open(struct kcall *c)
{
	char *spec = strndup_user(u64_to_user_ptr(c->args.open.spec), BALUN_UAPI_SPEC);
	struct knode *n = c->node;
	struct balun_device *dev;
	int err;

	if (IS_ERR(spec))
		return PTR_ERR(spec);
	err = balun_device_open(c->space, spec, &dev);
	kfree(spec);
	if (err)
		return err;
	core_device_keep(dev);
	mutex_lock(&n->lock);
	c->args.open.handle = ++n->serial * SLOTS + dev->id;
	n->slot[dev->id].dev = dev;
	n->slot[dev->id].handle = c->args.open.handle;
	n->slot[dev->id].closing = false;
	mutex_unlock(&n->lock);
	return 0;
}

static int call_close(struct kcall *c)
{
	u64 handle = c->args.device.handle;

	return handle ? slot_close(c->node, handle % SLOTS, handle) : no_device();
}

/* ---- the file ---- */

static const struct kcall_op {
	size_t size;
	int (*fn)(struct kcall *c);
	bool space; /* of the caller's is needed, and stays while it runs */
} ops[] = {
#define OP(nr, type, fn, space) [_IOC_NR(BALUN_IOC_##nr)] = { sizeof(struct type), fn, space }
	OP(INFO, balun_uapi_info, kcall_info, false),
	OP(DRIVER, balun_uapi_driver, kcall_driver, false),
	OP(CREATE, balun_uapi_head, call_create, false),
	OP(DESTROY, balun_uapi_head, call_destroy, false),
	OP(OPEN, balun_uapi_open, call_open, true),
	OP(CLOSE, balun_uapi_device, call_close, true),
	OP(DEVICE, balun_uapi_device, kcall_device, true),
	OP(MIGRATE, balun_uapi_migrate, kcall_migrate, true),
	OP(PREFETCH, balun_uapi_range, kcall_prefetch, true),
	OP(SYNC, balun_uapi_head, kcall_sync, true),
	OP(EVICT, balun_uapi_evict, kcall_evict, true),
	OP(PIN, balun_uapi_range, kcall_pin, true),
	OP(UNPIN, balun_uapi_range, kcall_unpin, true),
	OP(ADVISE, balun_uapi_range, kcall_advise, true),
	OP(QUERY, balun_uapi_list, kcall_query, true),
	OP(LOST, balun_uapi_list, kcall_lost, true),
	OP(STATS, balun_uapi_stats, kcall_stats, true),
	OP(FAULT, balun_uapi_range, kcall_fault, true),
	OP(FENCE, balun_uapi_head, kcall_fence, true),
	OP(COMMAND, balun_uapi_command, kcall_command, true),
#undef OP
};

static int call_run(struct kcall *c, const struct kcall_op *op)
{
	int err;

	if (c->args.head.flags) {
		env_reason("balun.ko knows no flags of this call");
		return -EINVAL;
	}
	if (!op->space)
		return op->fn(c);
	err = space_begin(c);
	if (err)
		return err;
	err = op->fn(c);
	space_end(c);
	return err;
}

/* the text that belongs to an error; that it cannot be written is no other error */
static void call_reason(struct kcall *c)
{
	const char *why = env_reason_get();
	size_t n = min_t(size_t, strlen(why) + 1, BALUN_UAPI_REASON);

	BUILD_BUG_ON(BALUN_UAPI_REASON < ENV_REASON_BYTES);
	if (c->args.head.reason)
		n = copy_to_user(u64_to_user_ptr(c->args.head.reason), why, n);
}

static long node_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	const struct kcall_op *op;
	struct kcall *c;
	u32 size;
	int err;

	if (_IOC_TYPE(cmd) != BALUN_IOC || _IOC_NR(cmd) >= ARRAY_SIZE(ops) ||
	    cmd != _IO(BALUN_IOC, _IOC_NR(cmd)))
		return -ENOTTY;
	op = &ops[_IOC_NR(cmd)];
	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < op->size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	c = kmalloc(sizeof(*c), GFP_KERNEL_ACCOUNT);
	if (!c)
		return -ENOMEM;
	err = copy_struct_from_user(&c->args, op->size, user, size);
	if (err)
		goto err_free_call;
	c->node = file->private_data;
	c->space = NULL;
	env_reason_begin(&c->why);
	err = call_run(c, op);
	if (err)
		call_reason(c);
	env_reason_end(&c->why);
	/* an error's outputs too (EVICT); the size is what was read, whatever it is there by now */
	if (copy_to_user(user, &c->args, op->size) && !err)
		err = -EFAULT;
err_free_call:
	kfree(c);
	return err;
}

static int node_open(struct inode *inode, struct file *file)
{
	struct knode *n = kzalloc(sizeof(*n), GFP_KERNEL_ACCOUNT);

	if (!n)
		return -ENOMEM;
	mutex_init(&n->lock);
	init_waitqueue_head(&n->idle);
	file->private_data = n;
	return 0;
}

/* in whatever task has the file last, long after the process perhaps: no call is in progress */
static int node_release(struct inode *inode, struct file *file)
{
	struct knode *n = file->private_data;

	if (n->state == LIVE)
		node_end(n);
	vfree(n->spare);
	kfree(n);
	return 0;
}

static const struct file_operations node_fops = {
	.owner = THIS_MODULE,
	.open = node_open,
	.release = node_release,
	.unlocked_ioctl = node_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice node = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "balun",
	.fops = &node_fops,
};

int knode_init(void)
{
	return misc_register(&node);
}

void knode_exit(void)
{
	misc_deregister(&node);
}
