// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What is there, making and ending a space, opening and closing devices. */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/client/client.h"

int client_call(int fd, unsigned long nr, void *arg, size_t size)
{
	struct balun_uapi_head *h = arg;
	char why[BALUN_UAPI_REASON];
	int err;

	why[0] = 0;
	*h = (struct balun_uapi_head){ .size = size, .reason = (uintptr_t)why };
	if (ioctl(fd, nr, arg) >= 0)
		return 0;
	err = -errno;
	if (why[0])
		env_reason("%s", why);
	return err;
}

/* ---- what is there ---- */

static void text(char *to, size_t size, const char *from, size_t from_size)
{
	snprintf(to, size, "%.*s", (int)from_size, from);
}

static void no_node(struct balun_engine_info *info, int err)
{
	bool forbidden = err == -EACCES || err == -EPERM;

	snprintf(info->reason, sizeof(info->reason), "%s: %s", BALUN_UAPI_NODE,
		 err == -ENOENT			   ? "not there: balun.ko is not loaded"
		 : err == -ENXIO || err == -ENODEV ? "there, but balun.ko is not loaded"
		 : forbidden			   ? "this user may not open it"
						   : strerror(-err));
	if (forbidden)
		snprintf(info->remedy, sizeof(info->remedy),
			 "as root, or with a rule of udev that lets this user: "
			 "KERNEL==\"balun\", GROUP=\"...\", MODE=\"0660\"");
	else
		snprintf(info->remedy, sizeof(info->remedy),
			 "modprobe balun (as root); where there is no such module, \"make module\" "
			 "in its source makes it for this kernel");
	if (forbidden)
		snprintf(info->how, sizeof(info->how), "%s", BALUN_UAPI_NODE);
}

static void client_probe(struct balun_engine_info *info)
{
	struct balun_uapi_info u = { 0 };
	int fd, err;

	*info = (struct balun_engine_info){ .size = sizeof(*info), .name = "kernel" };
	err = client_open_node(&fd);
	if (err) {
		no_node(info, err);
		return;
	}
	err = client_call(fd, BALUN_IOC_INFO, &u, sizeof(u));
	close(fd);
	if (err || u.version != BALUN_UAPI_VERSION) {
		snprintf(info->reason, sizeof(info->reason),
			 "the loaded balun.ko does not fit this library: it has version %u of the "
			 "interface, not %u%s%s",
			 u.version, BALUN_UAPI_VERSION, err ? ": " : "", err ? strerror(-err) : "");
		snprintf(info->remedy, sizeof(info->remedy),
			 "load the module that belongs to version %s", balun_version());
		return;
	}
	info->works = u.works;
	snprintf(info->how, sizeof(info->how), "%s, balun.ko %.*s, %.*s", BALUN_UAPI_NODE,
		 (int)sizeof(u.release), u.release, (int)(sizeof(info->how) - 64), u.how);
	text(info->reason, sizeof(info->reason), u.reason, sizeof(u.reason));
	text(info->remedy, sizeof(info->remedy), u.remedy, sizeof(u.remedy));
	text(info->features, sizeof(info->features), u.features, sizeof(u.features));
}

int client_open_node(int *ret_fd)
{
	struct balun_engine_info info = { .size = sizeof(info) };
	int fd = open(BALUN_UAPI_NODE, O_RDWR | O_CLOEXEC);
	int err = -errno;

	if (fd < 0) {
		no_node(&info, err);
		env_reason("engine kernel: %s; %s", info.reason, info.remedy);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

/* ---- spaces ---- */

static int client_space_create(struct balun_space **ret_space)
{
	struct client_space *c = env_alloc(sizeof(*c));
	struct balun_uapi_head h;
	int err;

	if (!c)
		return -ENOMEM;
	err = client_open_node(&c->fd);
	if (err)
		goto err_free;
	err = client_call(c->fd, BALUN_IOC_CREATE, &h, sizeof(h));
	if (err)
		goto err_close;
	env_mutex_init(&c->lock);
	env_list_init(&c->open);
	env_list_init(&c->closed);
	*ret_space = &c->sp;
	return 0;
err_close:
	close(c->fd);
err_free:
	env_free(c);
	return err;
}

static void devices_free(struct env_list *head)
{
	struct env_list *l, *next;

	env_list_for_each_safe (l, next, head)
		env_free(env_container_of(l, struct client_device, link));
}

static int client_space_destroy(struct balun_space *space)
{
	struct client_space *c = client_space(space);
	struct balun_uapi_head h;
	int err = client_call(c->fd, BALUN_IOC_DESTROY, &h, sizeof(h));

	close(c->fd);
	devices_free(&c->open);
	devices_free(&c->closed);
	env_mutex_destroy(&c->lock);
	env_free(c);
	return err;
}

/* ---- devices ---- */

static int client_device_open(struct balun_space *space, const char *spec,
			      struct balun_device **ret_dev)
{
	struct client_space *c = client_space(space);
	struct client_device *d = env_alloc(sizeof(*d));
	struct balun_uapi_open o = { .spec = (uintptr_t)spec };
	int err;

	if (!d)
		return -ENOMEM;
	err = client_call(c->fd, BALUN_IOC_OPEN, &o, sizeof(o));
	if (err) {
		env_free(d);
		return err;
	}
	d->dev.space = space;
	d->handle = o.handle;
	env_mutex_lock(&c->lock);
	env_list_add_tail(&c->open, &d->link);
	env_mutex_unlock(&c->lock);
	*ret_dev = &d->dev;
	return 0;
}

static int client_device_close(struct balun_device *dev)
{
	struct client_device *d = env_container_of(dev, struct client_device, dev), *old = NULL;
	struct balun_uapi_device u = { .handle = d->handle };
	struct client_space *c = client_space(dev->space);
	int err = client_call(c->fd, BALUN_IOC_CLOSE, &u, sizeof(u));

	env_mutex_lock(&c->lock);
	env_list_del(&d->link);
	env_list_add_tail(&c->closed, &d->link);
	if (c->nclosed++ == CLIENT_CLOSED) {
		c->nclosed--;
		old = env_container_of(c->closed.next, struct client_device, link);
		env_list_del(&old->link);
	}
	env_mutex_unlock(&c->lock);
	env_free(old);
	return err;
}

static const struct remote_ops client_ops = {
	.space_create = client_space_create,
	.space_destroy = client_space_destroy,
	.device_open = client_device_open,
	.device_close = client_device_close,
	.device_info = client_info,
	.migrate = client_migrate,
	.prefetch = client_prefetch,
	.sync = client_sync,
	.evict = client_evict,
	.pin = client_pin,
	.unpin = client_unpin,
	.advise = client_advise,
	.query = client_query,
	.lost = client_lost,
	.stats = client_stats,
	.driver = client_driver,
	.fault = client_fault,
	.fence = client_fence,
	.command = client_command,
};

const struct engine_ops engine_client = {
	.size = sizeof(struct engine_ops),
	.name = "kernel",
	.remote = &client_ops,
	.probe = client_probe,
};
