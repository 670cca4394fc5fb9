// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/balun (balun/uapi.h): a file is a space.
 *
 * What keeps any order of calls by any number of threads from harm:
 * - A call that uses the space is counted. Who ends the space closes the devices first, so that
 *   calls that wait for one of them return; then no more are let in, and it waits for the rest.
 * - A device is reached by a handle that no other device of the file ever has. The struct that core
 *   has of it stays as long as the slot has the handle (core_device_keep()), and who looks it up
 *   does so with the file's lock and enters the device (core_device_enter()) before letting go of
 *   that. A device is closed once, by who marks the slot; core waits for those that have entered,
 *   and refuses others in the end.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "balun/uapi.h"
#include "core/core.h"
#include "engine/kernel/kernel.h"

#define LIST_MAX 128 /* extents of one call */
#define SLOTS	 (BALUN_MAX_DEVICES + 1)

enum state {
	NEW,
	MAKING, /* by one call */
	LIVE,
	ENDING, /* devices are being closed */
	ENDED,
};

/* an open file */
struct knode {
	struct mutex lock;	     /* of what follows; leaf, but for core's move_lock */
	struct wait_queue_head idle; /* calls became 0 */
	enum state state;
	unsigned int calls; /* in progress, that use the space */
	struct balun_space *space;
	struct mm_struct *mm; /* of who made the space, to compare */
	u64 serial;	      /* devices opened so far */
	struct {
		struct balun_device *dev;
		u64 handle; /* 0: none */
		bool closing;
	} slot[SLOTS];
};

/* a call: its struct, and the text why it fails */
struct kcall {
	struct knode *node;
	struct balun_space *space;
	union {
		struct balun_uapi_head head;
		struct balun_uapi_info info;
		struct balun_uapi_driver driver;
		struct balun_uapi_open open;
		struct balun_uapi_device device;
		struct balun_uapi_migrate migrate;
		struct balun_uapi_range range;
		struct balun_uapi_evict evict;
		struct balun_uapi_list list;
		struct balun_uapi_stats stats;
		struct balun_uapi_command command;
	} args;
	struct env_reason_text why;
};

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
static int device_get(struct kcall *c, u64 handle, struct balun_device **ret_dev)
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

static void device_put(struct balun_device *dev)
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
	n->slot[i].handle = 0;
	n->slot[i].closing = false;
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

/* ---- the calls ---- */

static int call_info(struct kcall *c)
{
	struct balun_engine_info *e = kzalloc(sizeof(*e), GFP_KERNEL_ACCOUNT);
	int err;

	if (!e)
		return -ENOMEM;
	e->size = sizeof(*e);
	err = balun_engine_info(0, e);
	if (!err) {
		c->args.info.version = BALUN_UAPI_VERSION;
		c->args.info.works = e->works;
		strscpy_pad(c->args.info.release, balun_version(), sizeof(c->args.info.release));
		strscpy_pad(c->args.info.how, e->how, sizeof(c->args.info.how));
		strscpy_pad(c->args.info.reason, e->reason, sizeof(c->args.info.reason));
		strscpy_pad(c->args.info.remedy, e->remedy, sizeof(c->args.info.remedy));
		strscpy_pad(c->args.info.features, e->features, sizeof(c->args.info.features));
	}
	kfree(e);
	return err;
}

static int call_driver(struct kcall *c)
{
	struct balun_engine_driver *d;
	int err;

	if (c->args.driver.index > U32_MAX)
		return -ENOENT;
	d = kzalloc(sizeof(*d), GFP_KERNEL_ACCOUNT);
	if (!d)
		return -ENOMEM;
	d->size = sizeof(*d);
	err = balun_engine_driver("kernel", c->args.driver.index, d);
	if (!err) {
		strscpy_pad(c->args.driver.name, d->name, sizeof(c->args.driver.name));
		strscpy_pad(c->args.driver.help, d->help, sizeof(c->args.driver.help));
	}
	kfree(d);
	return err;
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
	mutex_unlock(&n->lock);
	return 0;
}

static int call_close(struct kcall *c)
{
	u64 handle = c->args.device.handle;

	return handle ? slot_close(c->node, handle % SLOTS, handle) : no_device();
}

static int call_device(struct kcall *c)
{
	struct balun_device_info i = { .size = sizeof(i) };
	struct balun_device *dev;
	int err = device_get(c, c->args.device.handle, &dev);

	if (!err)
		err = balun_device_info(dev, &i);
	device_put(dev);
	if (err)
		return err;
	c->args.device.id = i.id;
	strscpy_pad(c->args.device.name, i.name, sizeof(c->args.device.name));
	c->args.device.mem_total = i.mem_total;
	c->args.device.mem_used = i.mem_used;
	c->args.device.caps = i.caps;
	return 0;
}

/* an address of the program's: for calls that never follow it but by the program's own mappings */
static const void *va_of(u64 addr)
{
	return (const void *)(uintptr_t)addr;
}

static int call_migrate(struct kcall *c)
{
	struct balun_uapi_migrate *m = &c->args.migrate;
	struct balun_device *dev;
	int err = device_get(c, m->handle, &dev);

	if (!err)
		err = balun_migrate(c->space, va_of(m->addr), m->len, dev, &m->counts);
	device_put(dev);
	return err;
}

static int call_prefetch(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;
	struct balun_device *dev;
	int err = device_get(c, r->handle, &dev);

	if (!err)
		err = r->arg ? -EINVAL : balun_prefetch(c->space, va_of(r->addr), r->len, dev);
	device_put(dev);
	return err;
}

static int call_sync(struct kcall *c)
{
	return balun_sync(c->space);
}

static int call_evict(struct kcall *c)
{
	struct balun_device *dev;
	int err = device_get(c, c->args.evict.handle, &dev);

	c->args.evict.freed = 0;
	if (!err)
		err = balun_evict(dev, c->args.evict.bytes, &c->args.evict.freed);
	device_put(dev);
	return err;
}

static int call_pin(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;

	return r->handle || r->arg ? -EINVAL : balun_pin(c->space, va_of(r->addr), r->len);
}

static int call_unpin(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;

	return r->handle || r->arg ? -EINVAL : balun_unpin(c->space, va_of(r->addr), r->len);
}

static int call_advise(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;
	struct balun_device *dev;
	int err = device_get(c, r->handle, &dev);

	if (!err)
		err = r->arg > U32_MAX
			      ? -EINVAL
			      : balun_advise(c->space, va_of(r->addr), r->len, r->arg, dev);
	device_put(dev);
	return err;
}

static int call_fault(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;
	struct balun_device *dev;
	int err = device_get(c, r->handle, &dev);

	if (!err)
		err = r->arg > U32_MAX ? -EINVAL
				       : balun_fault(dev, c->space, r->addr, r->len, r->arg);
	device_put(dev);
	return err;
}

static int call_fence(struct kcall *c)
{
	return balun_fence(c->space);
}

static int call_list(struct kcall *c, bool lost)
{
	struct balun_uapi_list *l = &c->args.list;
	size_t room = min_t(u64, l->n, LIST_MAX), n = 0;
	struct balun_extent *ext = kcalloc(LIST_MAX, sizeof(*ext), GFP_KERNEL_ACCOUNT);
	int err;

	if (!ext)
		return -ENOMEM;
	if (lost)
		err = l->len ? -EINVAL : balun_lost(c->space, va_of(l->addr), ext, room, &n);
	else
		err = balun_query(c->space, va_of(l->addr), l->len, ext, room, &n);
	if (!err && copy_to_user(u64_to_user_ptr(l->extents), ext, n * sizeof(*ext)))
		err = -EFAULT;
	kfree(ext);
	l->n = n;
	l->more = n == room;
	return err;
}

static int call_query(struct kcall *c)
{
	return call_list(c, false);
}

static int call_lost(struct kcall *c)
{
	return call_list(c, true);
}

static int call_stats(struct kcall *c)
{
	void __user *to = u64_to_user_ptr(c->args.stats.stats);
	struct balun_stats *s;
	size_t n;
	int err;

	if (c->args.stats.len < sizeof(s->size) || c->args.stats.len > PAGE_SIZE)
		return -EINVAL;
	n = min_t(size_t, c->args.stats.len, sizeof(*s));
	s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	if (!s)
		return -ENOMEM;
	s->size = sizeof(*s);
	err = balun_stats(c->space, s);
	s->size = c->args.stats.len;
	if (!err && (copy_to_user(to, s, n) || clear_user(to + n, c->args.stats.len - n)))
		err = -EFAULT;
	kfree(s);
	return err;
}

/* what the driver may touch under its locks: copies, not the program's memory */
static int command_run(struct balun_device *dev, const struct balun_uapi_command *u,
		       struct balun_command *k)
{
	void __user *arg = u64_to_user_ptr(u->arg), *data = u64_to_user_ptr(u->data);
	int err;

	if (copy_from_user(k->arg, arg, k->arg_len) || copy_from_user(k->data, data, k->data_len))
		return -EFAULT;
	err = balun_device_command(dev, k);
	if (copy_to_user(arg, k->arg, k->arg_len) || copy_to_user(data, k->data, k->data_len))
		err = err ? err : -EFAULT;
	return err;
}

static int call_command(struct kcall *c)
{
	const struct balun_uapi_command *u = &c->args.command;
	struct balun_command k = {
		.driver = u->driver, .code = u->code, .arg_len = u->arg_len, .data_len = u->data_len
	};
	struct balun_device *dev;
	int err;

	if (strnlen(u->driver, sizeof(u->driver)) == sizeof(u->driver) ||
	    u->arg_len > BALUN_COMMAND_ARG || u->data_len > BALUN_UAPI_DATA) {
		env_reason("a command has at most %d bytes of argument and %lu of data",
			   BALUN_COMMAND_ARG, BALUN_UAPI_DATA);
		return -EINVAL;
	}
	err = device_get(c, u->handle, &dev);
	if (err || !dev)
		return err ? err : -EINVAL;
	err = -ENOMEM;
	if (k.arg_len)
		k.arg = kzalloc(k.arg_len, GFP_KERNEL_ACCOUNT);
	if (k.data_len)
		k.data = balun_mem_alloc(k.data_len);
	if ((k.arg || !k.arg_len) && (k.data || !k.data_len))
		err = command_run(dev, u, &k);
	device_put(dev);
	balun_mem_free(k.data, k.data_len);
	kfree(k.arg);
	return err;
}

/* ---- the file ---- */

static const struct kcall_op {
	size_t size;
	int (*fn)(struct kcall *c);
	bool space; /* of the caller's is needed, and stays while it runs */
} ops[] = {
#define OP(nr, type, fn, space) [_IOC_NR(BALUN_IOC_##nr)] = { sizeof(struct type), fn, space }
	OP(INFO, balun_uapi_info, call_info, false),
	OP(DRIVER, balun_uapi_driver, call_driver, false),
	OP(CREATE, balun_uapi_head, call_create, false),
	OP(DESTROY, balun_uapi_head, call_destroy, false),
	OP(OPEN, balun_uapi_open, call_open, true),
	OP(CLOSE, balun_uapi_device, call_close, true),
	OP(DEVICE, balun_uapi_device, call_device, true),
	OP(MIGRATE, balun_uapi_migrate, call_migrate, true),
	OP(PREFETCH, balun_uapi_range, call_prefetch, true),
	OP(SYNC, balun_uapi_head, call_sync, true),
	OP(EVICT, balun_uapi_evict, call_evict, true),
	OP(PIN, balun_uapi_range, call_pin, true),
	OP(UNPIN, balun_uapi_range, call_unpin, true),
	OP(ADVISE, balun_uapi_range, call_advise, true),
	OP(QUERY, balun_uapi_list, call_query, true),
	OP(LOST, balun_uapi_list, call_lost, true),
	OP(STATS, balun_uapi_stats, call_stats, true),
	OP(FAULT, balun_uapi_range, call_fault, true),
	OP(FENCE, balun_uapi_head, call_fence, true),
	OP(COMMAND, balun_uapi_command, call_command, true),
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
	if (c->args.head.reason && copy_to_user(u64_to_user_ptr(c->args.head.reason), why, n))
		env_log(3, "a reason has no room");
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
