// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Drivers from shared objects: user space only. */
#include <dlfcn.h>

#include "core/core.h"

int balun_driver_load(const char *path)
{
	balun_driver_entry_fn entry;
	void *so;
	int err;

	if (!path)
		return -EINVAL;
	so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!so) {
		env_reason("%s", dlerror());
		return -ENOENT;
	}
	entry = (balun_driver_entry_fn)dlsym(so, BALUN_DRIVER_ENTRY);
	if (!entry) {
		env_reason("%s: exports no %s()", path, BALUN_DRIVER_ENTRY);
		dlclose(so);
		return -EINVAL;
	}
	err = balun_driver_register(entry());
	if (err)
		dlclose(so);
	return err;
}
