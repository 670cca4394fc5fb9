// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * May this process use userfaultfd, and what can the kernel's do?
 *
 * The order: /dev/userfaultfd (a permission of a file), the system call (CAP_SYS_PTRACE or
 * vm.unprivileged_userfaultfd=1), the system call for user-mode faults only (anybody; system calls
 * into away memory then fail with EFAULT, which is said).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define FEATURES_NEEDED                                                                            \
	(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

static const struct {
	uint64_t bit;
	const char *name;
} feature_name[] = {
	{ UFFD_FEATURE_MOVE, "MOVE" },
	{ UFFD_FEATURE_POISON, "POISON" },
	{ UFFD_FEATURE_PAGEFAULT_FLAG_WP, "WP" },
	{ UFFD_FEATURE_EVENT_FORK, "EVENT_FORK" },
	{ UFFD_FEATURE_EVENT_REMAP, "EVENT_REMAP" },
	{ UFFD_FEATURE_EVENT_REMOVE, "EVENT_REMOVE" },
	{ UFFD_FEATURE_EVENT_UNMAP, "EVENT_UNMAP" },
};

#define REMEDY "as root: chmod 666 /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1"

static int open_dev(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd, err;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	err = fd < 0 ? -errno : fd;
	close(dev);
	return err;
}

static int open_call(int flags)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : fd;
}

/* a context without an API handshake yet; says how, or why not */
static int open_any(struct uffd_caps *c)
{
	int dev, call, user;

	dev = open_dev();
	if (dev >= 0) {
		snprintf(c->how, sizeof(c->how), "/dev/userfaultfd");
		return dev;
	}
	call = open_call(0);
	if (call >= 0) {
		snprintf(c->how, sizeof(c->how), "system call");
		return call;
	}
	user = open_call(UFFD_USER_MODE_ONLY);
	if (user >= 0) {
		c->user_mode_only = true;
		snprintf(c->how, sizeof(c->how), "user mode only");
		snprintf(c->reason, sizeof(c->reason),
			 "userfaultfd is for user mode only here: system calls into away memory "
			 "fail with EFAULT");
		snprintf(c->remedy, sizeof(c->remedy), REMEDY);
		return user;
	}
	snprintf(c->reason, sizeof(c->reason),
		 "userfaultfd refused: /dev/userfaultfd: %s; system call: %s; user mode only: %s",
		 strerror(-dev), strerror(-call), strerror(-user));
	if (user == -ENOSYS)
		snprintf(c->remedy, sizeof(c->remedy),
			 "use a kernel with CONFIG_USERFAULTFD; in a container allow the system "
			 "call userfaultfd in its seccomp profile");
	else
		snprintf(c->remedy, sizeof(c->remedy),
			 REMEDY "; in a container allow the system call userfaultfd in its seccomp "
				"profile");
	return user == -ENOSYS ? -EOPNOTSUPP : -EPERM;
}

static int handshake(int fd, uint64_t features, uint64_t *ret_features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (ioctl(fd, UFFDIO_API, &api))
		return -errno;
	*ret_features = api.features;
	return 0;
}

/* opens with the wanted features, of those that the kernel has */
static int open_with(struct uffd_caps *c, uint64_t want)
{
	uint64_t got;
	int fd = open_any(c), err;

	if (fd < 0)
		return fd;
	err = handshake(fd, want, &got);
	if (err) {
		close(fd);
		return err;
	}
	c->fd = fd;
	c->features = want;
	return 0;
}

static int features_of_kernel(struct uffd_caps *c, uint64_t *ret)
{
	int fd = open_any(c), err;

	if (fd < 0)
		return fd;
	err = handshake(fd, 0, ret);
	close(fd);
	return err;
}

int uffd_open(struct uffd_caps *c)
{
	uint64_t have = 0, want;
	const char *force = getenv("BALUN_UFFD_COPY");
	int err;

	memset(c, 0, sizeof(*c));
	c->fd = -1;
	err = features_of_kernel(c, &have);
	if (err)
		return err;
	if ((have & FEATURES_NEEDED) != FEATURES_NEEDED ||
	    !(have & (UFFD_FEATURE_MOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP))) {
		snprintf(c->reason, sizeof(c->reason),
			 "the kernel's userfaultfd lacks events or both MOVE and write protection");
		snprintf(c->remedy, sizeof(c->remedy), "use Linux 5.7 or newer");
		return -EOPNOTSUPP;
	}
	want = have &
	       (FEATURES_NEEDED | UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON |
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_THREAD_ID);
	err = open_with(c, want);
	if (err == -EPERM) /* EVENT_FORK wants CAP_SYS_PTRACE; the fork hook does without */
		err = open_with(c, want & ~(uint64_t)UFFD_FEATURE_EVENT_FORK);
	if (err)
		return err;
	if (force && *force == '1') /* as a kernel before 6.6 */
		c->features &= ~(uint64_t)(UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON);
	c->move = c->features & UFFD_FEATURE_MOVE;
	c->poison = c->features & UFFD_FEATURE_POISON;
	c->fork_event = c->features & UFFD_FEATURE_EVENT_FORK;
	if (!c->move)
		strncat(c->how, "; copy fallback", sizeof(c->how) - strlen(c->how) - 1);
	return 0;
}

void uffd_probe(struct balun_engine_info *info)
{
	struct uffd_caps c;
	unsigned int i;
	size_t n = 0;
	int err = uffd_open(&c);

	snprintf(info->name, sizeof(info->name), "uffd");
	info->works = !err;
	snprintf(info->how, sizeof(info->how), "%s", err == -EPERM ? "refused" : c.how);
	snprintf(info->reason, sizeof(info->reason), "%s", c.reason);
	snprintf(info->remedy, sizeof(info->remedy), "%s", c.remedy);
	info->features[0] = 0;
	for (i = 0; !err && i < sizeof(feature_name) / sizeof(feature_name[0]); i++)
		n += snprintf(info->features + n, sizeof(info->features) - n, "%s%s%s",
			      n ? " " : "", c.features & feature_name[i].bit ? "" : "-",
			      feature_name[i].name);
	if (!err)
		close(c.fd);
}
