// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: ram - device memory is host memory
 *
 * The smallest complete driver, and the one to copy when you write your own. It has memory and
 * nothing else: no page tables, so map and unmap have nothing to do, and no processor, so it never
 * calls balun_fault(). It says where its memory is (BALUN_CAP_HOST_MEMORY), so an engine moves
 * pages into it instead of copying them; copy() is for what cannot be moved.
 */
#include "balun/driver.h"
#include "env/env.h"

struct ram {
	char *base; /* offset 0 of device memory */
	uint64_t bytes;
};

static int ram_open(struct balun_device *dev, const struct balun_options *opt,
		    struct balun_desc *ret_desc, void **ret_priv)
{
	uint64_t bytes, coherent;
	struct ram *ram;
	int err;

	err = balun_opt_size(opt, "mem", 256ULL << 20, &bytes);
	if (!err)
		err = balun_opt_size(opt, "coherent", 0, &coherent);
	if (err)
		return err;
	if (coherent > 1)
		return balun_opt_fail(opt, "coherent", "must be 0 or 1");
	if (!bytes || bytes % BALUN_BLOCK_SIZE)
		return balun_opt_fail(opt, "mem", "must be a multiple of 2M");

	ram = balun_mem_alloc(sizeof(*ram));
	if (!ram)
		return -ENOMEM;
	ram->bytes = bytes;
	/* not populated before use */
	ram->base = coherent ? env_coherent_alloc(bytes) : env_pages_alloc(bytes);
	if (!ram->base) {
		err = -ENOMEM;
		goto err_free;
	}

	ret_desc->mem_bytes = bytes;
	ret_desc->host_base = ram->base;
	ret_desc->caps = BALUN_CAP_HOST_MEMORY | (coherent ? BALUN_CAP_COHERENT : 0);
	*ret_priv = ram;
	return 0;

err_free:
	balun_mem_free(ram, sizeof(*ram));
	return err;
}

static void ram_close(void *priv)
{
	struct ram *ram = priv;

	env_coherent_free(ram->base, ram->bytes);
	balun_mem_free(ram, sizeof(*ram));
}

static int ram_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void ram_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		      enum balun_cause cause)
{
}

/* where an operand is: device memory is ours, system memory is core's to translate */
static void *ram_ptr(struct ram *ram, uint32_t kind, uint64_t addr, uint64_t len)
{
	switch (kind) {
	case BALUN_KIND_LOCAL:
		return ram->base + addr;
	case BALUN_KIND_SYSTEM:
		return balun_bus_ptr(addr, len);
	default:
		return NULL;
	}
}

/* The copies are done when this returns: there is nothing for copy_wait() to wait for. */
static int ram_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct ram *ram = priv;
	size_t i;

	for (i = 0; i < n; i++) {
		void *dst = ram_ptr(ram, op[i].dst_kind, op[i].dst, op[i].len);
		void *src = ram_ptr(ram, op[i].src_kind, op[i].src, op[i].len);

		if (!dst || (!src && op[i].src_kind != BALUN_KIND_ZERO))
			return -EOPNOTSUPP;
		if (src)
			env_pages_copy(dst, src, op[i].len);
		else
			env_pages_zero(dst, op[i].len);
	}
	*ret_cookie = 0;
	return 0;
}

static int ram_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

extern const struct balun_driver balun_ram_driver;
const struct balun_driver balun_ram_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_HOST_MEMORY | BALUN_CAP_COHERENT,
	.name = "ram",
	.help = "mem=256M    device memory, a multiple of 2M\n"
		"coherent=0  1: CPUs address it too, pages there stay mapped\n",
	.open = ram_open,
	.close = ram_close,
	.map = ram_map,
	.unmap = ram_unmap,
	.copy = ram_copy,
	.copy_wait = ram_copy_wait,
};
