// SPDX-License-Identifier: GPL-2.0-only
/*
 * The calls of /dev/balun: each is the function of its name, whose checks are all there are, but
 * for lengths of what is copied. A call has its struct in c->args, in and out.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "engine/kernel/ioctl.h"

#define LIST_MAX 128 /* extents of one call */

int kcall_info(struct kcall *c)
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

int kcall_driver(struct kcall *c)
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

int kcall_device(struct kcall *c)
{
	struct balun_device_info i = { .size = sizeof(i) };
	struct balun_device *dev;
	int err = kcall_get(c, c->args.device.handle, &dev);

	if (!err)
		err = balun_device_info(dev, &i);
	kcall_put(dev);
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

int kcall_migrate(struct kcall *c)
{
	struct balun_uapi_migrate *m = &c->args.migrate;
	struct balun_device *dev;
	int err = kcall_get(c, m->handle, &dev);

	if (!err)
		err = balun_migrate(c->space, va_of(m->addr), m->len, dev, &m->counts);
	kcall_put(dev);
	return err;
}

int kcall_prefetch(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;
	struct balun_device *dev;
	int err = kcall_get(c, r->handle, &dev);

	if (!err)
		err = r->arg ? -EINVAL : balun_prefetch(c->space, va_of(r->addr), r->len, dev);
	kcall_put(dev);
	return err;
}

int kcall_sync(struct kcall *c)
{
	return balun_sync(c->space);
}

int kcall_evict(struct kcall *c)
{
	struct balun_device *dev;
	int err = kcall_get(c, c->args.evict.handle, &dev);

	c->args.evict.freed = 0;
	if (!err)
		err = balun_evict(dev, c->args.evict.bytes, &c->args.evict.freed);
	kcall_put(dev);
	return err;
}

int kcall_pin(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;

	return r->handle || r->arg ? -EINVAL : balun_pin(c->space, va_of(r->addr), r->len);
}

int kcall_unpin(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;

	return r->handle || r->arg ? -EINVAL : balun_unpin(c->space, va_of(r->addr), r->len);
}

int kcall_advise(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;
	struct balun_device *dev;
	int err = kcall_get(c, r->handle, &dev);

	if (!err)
		err = r->arg > U32_MAX
			      ? -EINVAL
			      : balun_advise(c->space, va_of(r->addr), r->len, r->arg, dev);
	kcall_put(dev);
	return err;
}

int kcall_fault(struct kcall *c)
{
	struct balun_uapi_range *r = &c->args.range;
	struct balun_device *dev;
	int err = kcall_get(c, r->handle, &dev);

	if (!err)
		err = r->arg > U32_MAX ? -EINVAL
				       : balun_fault(dev, c->space, r->addr, r->len, r->arg);
	kcall_put(dev);
	return err;
}

int kcall_fence(struct kcall *c)
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

int kcall_query(struct kcall *c)
{
	return call_list(c, false);
}

int kcall_lost(struct kcall *c)
{
	return call_list(c, true);
}

int kcall_stats(struct kcall *c)
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

/* @*len bytes or more, *len how many. No other file's data, nor anything of the kernel's: a driver
 * may say that it has written more than it did. */
static void *data_get(struct knode *n, size_t *len)
{
	void *p = NULL;

	mutex_lock(&n->lock);
	if (n->spare && n->spare_len >= *len) {
		p = n->spare;
		*len = n->spare_len;
		n->spare = NULL;
	}
	mutex_unlock(&n->lock);
	return p ? p : __vmalloc(*len, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
}

static void data_put(struct knode *n, void *p, size_t len)
{
	mutex_lock(&n->lock);
	if (len <= SPARE_MAX && (!n->spare || n->spare_len < len)) {
		swap(n->spare, p);
		n->spare_len = len;
	}
	mutex_unlock(&n->lock);
	vfree(p);
}

/* what the driver may touch under its locks: copies, not the program's memory */
static int command_run(struct balun_device *dev, const struct balun_uapi_command *u,
		       struct balun_command *k)
{
	void __user *arg = u64_to_user_ptr(u->arg), *data = u64_to_user_ptr(u->data);
	int err;

	if (copy_from_user(k->arg, arg, k->arg_len))
		return -EFAULT;
	if (k->data_use != BALUN_DATA_OUT && copy_from_user(k->data, data, k->data_len))
		return -EFAULT;
	err = balun_device_command(dev, k);
	if (copy_to_user(arg, k->arg, k->arg_len))
		err = err ? err : -EFAULT;
	if (k->data_use != BALUN_DATA_IN && !(k->data_use == BALUN_DATA_OUT && err) &&
	    copy_to_user(data, k->data, k->data_len))
		err = err ? err : -EFAULT;
	return err;
}

int kcall_command(struct kcall *c)
{
	const struct balun_uapi_command *u = &c->args.command;
	struct balun_command k = {
		.driver = u->driver,
		.code = u->code,
		.arg_len = u->arg_len,
		.data_len = u->data_len,
		.data_use = u->data_use,
	};
	struct balun_device *dev;
	size_t room = u->data_len;
	int err;

	if (strnlen(u->driver, sizeof(u->driver)) == sizeof(u->driver) ||
	    u->arg_len > BALUN_COMMAND_ARG || u->data_len > BALUN_UAPI_DATA) {
		env_reason("a command has at most %d bytes of argument and %lu of data",
			   BALUN_COMMAND_ARG, BALUN_UAPI_DATA);
		return -EINVAL;
	}
	if (u->unused || u->data_use > BALUN_DATA_OUT) {
		env_reason("balun.ko knows no such use of a command's data");
		return -EINVAL;
	}
	err = kcall_get(c, u->handle, &dev);
	if (err || !dev)
		return err ? err : -EINVAL;
	err = -ENOMEM;
	if (k.arg_len)
		k.arg = kzalloc(k.arg_len, GFP_KERNEL_ACCOUNT);
	if (k.data_len)
		k.data = data_get(c->node, &room);
	if ((k.arg || !k.arg_len) && (k.data || !k.data_len))
		err = command_run(dev, u, &k);
	kcall_put(dev);
	if (k.data)
		data_put(c->node, k.data, room);
	kfree(k.arg);
	return err;
}
