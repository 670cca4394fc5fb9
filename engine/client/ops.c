// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The calls of a space and its devices, one ioctl each. */
#include <unistd.h>

#include "engine/client/client.h"

static int space_call(struct balun_space *space, unsigned long nr, void *arg, size_t size)
{
	return client_call(client_space(space)->fd, nr, arg, size);
}

/* the number of @dev there; 0: system memory */
static int handle_of(const struct balun_space *space, struct balun_device *dev, __u64 *ret_handle)
{
	if (dev && dev->space != space) {
		env_reason("the device belongs to another space");
		return -EINVAL;
	}
	*ret_handle = dev ? env_container_of(dev, struct client_device, dev)->handle : 0;
	return 0;
}

static int device_call(struct balun_device *dev, unsigned long nr, __u64 *handle, void *arg,
		       size_t size)
{
	int err = handle_of(dev->space, dev, handle);

	return err ? err : space_call(dev->space, nr, arg, size);
}

static int range_call(struct balun_space *space, unsigned long nr, const void *addr, size_t len,
		      struct balun_device *dev, uint64_t arg)
{
	struct balun_uapi_range r = { .addr = (uintptr_t)addr, .len = len, .arg = arg };
	int err = handle_of(space, dev, &r.handle);

	return err ? err : space_call(space, nr, &r, sizeof(r));
}

int client_migrate(struct balun_space *space, const void *addr, size_t len,
		   struct balun_device *dev, struct balun_counts *ret_counts)
{
	struct balun_uapi_migrate m = { .addr = (uintptr_t)addr, .len = len };
	int err = handle_of(space, dev, &m.handle);

	if (!err)
		err = space_call(space, BALUN_IOC_MIGRATE, &m, sizeof(m));
	if (!err && ret_counts)
		*ret_counts = m.counts;
	return err;
}

int client_prefetch(struct balun_space *space, const void *addr, size_t len,
		    struct balun_device *dev)
{
	return range_call(space, BALUN_IOC_PREFETCH, addr, len, dev, 0);
}

int client_pin(struct balun_space *space, const void *addr, size_t len)
{
	return range_call(space, BALUN_IOC_PIN, addr, len, NULL, 0);
}

int client_unpin(struct balun_space *space, const void *addr, size_t len)
{
	return range_call(space, BALUN_IOC_UNPIN, addr, len, NULL, 0);
}

int client_advise(struct balun_space *space, const void *addr, size_t len, enum balun_advice advice,
		  struct balun_device *dev)
{
	return range_call(space, BALUN_IOC_ADVISE, addr, len, dev, (unsigned int)advice);
}

int client_fault(struct balun_device *dev, struct balun_space *space, uint64_t va, uint64_t len,
		 uint32_t access)
{
	return range_call(space, BALUN_IOC_FAULT, (const void *)(uintptr_t)va, len, dev, access);
}

int client_sync(struct balun_space *space)
{
	struct balun_uapi_head h;

	return space_call(space, BALUN_IOC_SYNC, &h, sizeof(h));
}

int client_fence(struct balun_space *space)
{
	struct balun_uapi_head h;

	return space_call(space, BALUN_IOC_FENCE, &h, sizeof(h));
}

int client_evict(struct balun_device *dev, uint64_t bytes, uint64_t *ret_bytes)
{
	struct balun_uapi_evict e = { .bytes = bytes };
	int err = device_call(dev, BALUN_IOC_EVICT, &e.handle, &e, sizeof(e));

	if (ret_bytes)
		*ret_bytes = e.freed;
	return err;
}

int client_info(struct balun_device *dev, struct balun_device_info *ret_info)
{
	struct balun_uapi_device d = { .id = 0 };
	int err = device_call(dev, BALUN_IOC_DEVICE, &d.handle, &d, sizeof(d));

	if (err)
		return err;
	ret_info->id = d.id;
	snprintf(ret_info->name, sizeof(ret_info->name), "%.*s", (int)sizeof(d.name), d.name);
	ret_info->mem_total = d.mem_total;
	ret_info->mem_used = d.mem_used;
	ret_info->caps = d.caps;
	return 0;
}

/* the module answers by a bounded number of extents: up to its end, or until @n are there */
static int list_call(struct balun_space *space, unsigned long nr, struct balun_uapi_list *l,
		     struct balun_extent *ret_ext, size_t n, size_t *ret_n)
{
	uint64_t end = l->addr + l->len, next;
	size_t k = 0;
	int err;

	do {
		l->extents = (uintptr_t)(ret_ext + k);
		l->n = n - k;
		err = space_call(space, nr, l, sizeof(*l));
		if (err)
			return err;
		k += l->n;
		if (!l->n)
			break;
		next = ret_ext[k - 1].addr + ret_ext[k - 1].len;
		l->len = nr == BALUN_IOC_QUERY ? end - next : 0;
		l->addr = next;
	} while (l->more && k < n && (nr != BALUN_IOC_QUERY || next < end));
	*ret_n = k;
	return 0;
}

int client_query(struct balun_space *space, const void *addr, size_t len,
		 struct balun_extent *ret_ext, size_t n, size_t *ret_n)
{
	struct balun_uapi_list l = { .addr = (uintptr_t)addr, .len = len };

	if (!ret_ext || !n || !ret_n)
		return -EINVAL;
	return list_call(space, BALUN_IOC_QUERY, &l, ret_ext, n, ret_n);
}

int client_lost(struct balun_space *space, const void *addr, struct balun_extent *ret_ext, size_t n,
		size_t *ret_n)
{
	struct balun_uapi_list l = { .addr = (uintptr_t)addr };

	if (!ret_ext || !n || !ret_n)
		return -EINVAL;
	return list_call(space, BALUN_IOC_LOST, &l, ret_ext, n, ret_n);
}

int client_stats(struct balun_space *space, struct balun_stats *ret_stats)
{
	struct balun_uapi_stats s = { .stats = (uintptr_t)ret_stats, .len = sizeof(*ret_stats) };

	return space_call(space, BALUN_IOC_STATS, &s, sizeof(s));
}

int client_driver(unsigned int i, struct balun_engine_driver *ret_drv)
{
	struct balun_uapi_driver d = { .index = i };
	int fd, err = client_open_node(&fd);

	if (err)
		return err == -EACCES ? -EPERM : err == -EPERM ? err : -EOPNOTSUPP;
	err = client_call(fd, BALUN_IOC_DRIVER, &d, sizeof(d));
	close(fd);
	if (err)
		return err;
	snprintf(ret_drv->name, sizeof(ret_drv->name), "%.*s", (int)sizeof(d.name), d.name);
	snprintf(ret_drv->help, sizeof(ret_drv->help), "%.*s", (int)sizeof(d.help), d.help);
	return 0;
}

int client_command(struct balun_device *dev, const struct balun_command *c)
{
	struct balun_uapi_command u = {
		.arg = (uintptr_t)c->arg,
		.arg_len = c->arg_len,
		.data = (uintptr_t)c->data,
		.data_len = c->data_len,
		.code = c->code,
		.data_use = c->data_use,
	};

	if (strlen(c->driver) >= sizeof(u.driver))
		return -EINVAL;
	memcpy(u.driver, c->driver, strlen(c->driver));
	return device_call(dev, BALUN_IOC_COMMAND, &u.handle, &u, sizeof(u));
}
