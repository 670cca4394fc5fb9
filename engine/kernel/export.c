// SPDX-License-Identifier: GPL-2.0-only
/*
 * What drivers and other modules may call: driver.h, what they need of balun.h, and env.h. The
 * shared sources know nothing of it.
 */
#include <linux/export.h>

#include "core/core.h"
#include "engine/kernel/glue.h"

/* driver.h */
EXPORT_SYMBOL_GPL(balun_driver_register);
EXPORT_SYMBOL_GPL(balun_driver_unregister);
EXPORT_SYMBOL_GPL(balun_fault);
EXPORT_SYMBOL_GPL(balun_device_lost);
EXPORT_SYMBOL_GPL(balun_fence);
EXPORT_SYMBOL_GPL(balun_bus_read);
EXPORT_SYMBOL_GPL(balun_bus_write);
EXPORT_SYMBOL_GPL(balun_bus_ptr);
EXPORT_SYMBOL_GPL(balun_bus_addr);
EXPORT_SYMBOL_GPL(balun_mem_alloc);
EXPORT_SYMBOL_GPL(balun_mem_free);
EXPORT_SYMBOL_GPL(balun_space_set_data);
EXPORT_SYMBOL_GPL(balun_space_data);
EXPORT_SYMBOL_GPL(balun_device_priv);
EXPORT_SYMBOL_GPL(balun_device_command);
EXPORT_SYMBOL_GPL(balun_device_space);
EXPORT_SYMBOL_GPL(balun_opt_size);
EXPORT_SYMBOL_GPL(balun_opt_time);
EXPORT_SYMBOL_GPL(balun_opt_str);
EXPORT_SYMBOL_GPL(balun_opt_fail);
EXPORT_SYMBOL_GPL(balun_inner_open);
EXPORT_SYMBOL_GPL(balun_inner_open_nth);
EXPORT_SYMBOL_GPL(balun_inner_count);
/* by which a module registers its driver (glue.h) */
EXPORT_SYMBOL_GPL(kdriver_register);

/* balun.h: what a driver does with its own space, and who has spaces in the kernel */
EXPORT_SYMBOL_GPL(balun_cause_name);
EXPORT_SYMBOL_GPL(balun_space_create);
EXPORT_SYMBOL_GPL(balun_space_destroy);
EXPORT_SYMBOL_GPL(balun_device_open);
EXPORT_SYMBOL_GPL(balun_device_close);
EXPORT_SYMBOL_GPL(balun_device_info);
EXPORT_SYMBOL_GPL(balun_migrate);
EXPORT_SYMBOL_GPL(balun_evict);
EXPORT_SYMBOL_GPL(balun_query);

/* env.h */
EXPORT_SYMBOL_GPL(env_alloc);
EXPORT_SYMBOL_GPL(env_free);
EXPORT_SYMBOL_GPL(env_pages_alloc);
EXPORT_SYMBOL_GPL(env_pages_free);
EXPORT_SYMBOL_GPL(env_coherent_alloc);
EXPORT_SYMBOL_GPL(env_coherent_free);
EXPORT_SYMBOL_GPL(env_cond_wait);
EXPORT_SYMBOL_GPL(env_thread_create);
EXPORT_SYMBOL_GPL(env_thread_join);
EXPORT_SYMBOL_GPL(env_sleep_ns);
EXPORT_SYMBOL_GPL(env_log);
EXPORT_SYMBOL_GPL(env_reason);
