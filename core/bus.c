// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What drivers call to reach memory: the program's by bus address, their own from balun_mem_alloc()
 */
#include "core/core.h"
#include "core/remote.h"

int balun_bus_read(struct balun_space *space, uint64_t addr, void *buf, size_t len)
{
	if (space->engine->remote)
		return -EOPNOTSUPP; /* its devices are elsewhere */
	return space->engine->bus_read(space->e, addr, buf, len);
}

int balun_bus_write(struct balun_space *space, uint64_t addr, const void *buf, size_t len)
{
	if (space->engine->remote)
		return -EOPNOTSUPP; /* its devices are elsewhere */
	return space->engine->bus_write(space->e, addr, buf, len);
}

void *balun_bus_ptr(uint64_t addr, size_t len)
{
	(void)len;
	return (void *)(uintptr_t)addr;
}

uint64_t balun_bus_addr(const void *p)
{
	return (uintptr_t)p;
}

void *balun_mem_alloc(size_t bytes)
{
	return env_pages_alloc((bytes + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1));
}

void balun_mem_free(void *p, size_t bytes)
{
	if (p)
		env_pages_free(p, (bytes + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1));
}
