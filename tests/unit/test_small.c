// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Device memory of one page, which its driver manages: a block does not fit, a page does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "balun/sim.h"
#include "core/core.h"

#define VA 0x10000000ULL

static char memory[BALUN_PAGE_SIZE];
static bool taken, late; /* late: what was given back is free for the second who asks */
static uint64_t bytes = sizeof(memory), caps = BALUN_CAP_ALLOC; /* of the next open() */

static int small_open(struct balun_device *dev, const struct balun_options *opt,
		      struct balun_desc *ret_desc, void **ret_priv)
{
	ret_desc->mem_bytes = bytes;
	ret_desc->caps = caps;
	if (caps & BALUN_CAP_HOST_MEMORY)
		ret_desc->host_base = (void *)BALUN_BLOCK_SIZE;
	*ret_priv = memory;
	return 0;
}

static void small_close(void *priv)
{
	assert_false(taken);
}

static int small_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void small_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			enum balun_cause cause)
{
}

static void *ptr(uint32_t kind, uint64_t addr)
{
	return kind == BALUN_KIND_LOCAL ? memory + addr : balun_bus_ptr(addr, BALUN_PAGE_SIZE);
}

static int small_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	assert_int_equal(n, 1);
	assert_int_equal(op->len, BALUN_PAGE_SIZE);
	if (op->src_kind == BALUN_KIND_ZERO)
		memset(ptr(op->dst_kind, op->dst), 0, op->len);
	else
		memcpy(ptr(op->dst_kind, op->dst), ptr(op->src_kind, op->src), op->len);
	*ret_cookie = 0;
	return 0;
}

static int small_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

static int small_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	if (taken || late || len > sizeof(memory)) {
		late = false;
		return -ENOMEM;
	}
	taken = true;
	*ret_off = 0;
	return 0;
}

static void small_free(void *priv, uint64_t off, uint64_t len)
{
	assert_true(taken && !off && len == sizeof(memory));
	taken = false;
}

static const struct balun_driver small = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_ALLOC | BALUN_CAP_HOST_MEMORY,
	.name = "small",
	.help = "",
	.open = small_open,
	.close = small_close,
	.map = small_map,
	.unmap = small_unmap,
	.copy = small_copy,
	.copy_wait = small_copy_wait,
	.alloc = small_alloc,
	.free = small_free,
};

static struct balun_space *space;

static int begin(void **state)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .engine = "sim" };

	return balun_driver_register(&small) ?: balun_space_create(&opts, &space);
}

static int end(void **state)
{
	return balun_space_destroy(space) ?: balun_driver_unregister(&small);
}

static void fill(uint64_t va, char c)
{
	char page[BALUN_PAGE_SIZE];

	memset(page, c, sizeof(page));
	assert_int_equal(balun_sim_store(space, va, page, sizeof(page)), 0);
}

static void holds(uint64_t va, char c)
{
	char page[BALUN_PAGE_SIZE];
	unsigned int i;

	assert_int_equal(balun_sim_load(space, va, page, sizeof(page)), 0);
	for (i = 0; i < sizeof(page); i++)
		assert_int_equal(page[i], c);
}

static void one_page_at_a_time(void **state)
{
	uint64_t len = 3 * BALUN_BLOCK_SIZE, i;
	struct balun_counts c;
	struct balun_device *dev;

	assert_int_equal(balun_sim_mmap(space, VA, len, BALUN_SIM_READ | BALUN_SIM_WRITE), 0);
	assert_int_equal(balun_device_open(space, "small", &dev), 0);
	for (i = 0; i < 3; i++)
		fill(VA + i * BALUN_BLOCK_SIZE, 'a' + i);
	/* a page of another block evicts the one that is there */
	for (i = 0; i < 3; i++) {
		uint64_t va = VA + i * BALUN_BLOCK_SIZE;

		assert_int_equal(balun_migrate(space, (void *)va, BALUN_PAGE_SIZE, dev, &c), 0);
		assert_int_equal(c.moved, 1);
		assert_int_equal(memory[7], 'a' + i);
	}
	for (i = 0; i < 3; i++)
		holds(VA + i * BALUN_BLOCK_SIZE, 'a' + i);
	/* of a whole block one page fits; of more than a block, one as well */
	assert_int_equal(balun_migrate(space, (void *)VA, BALUN_BLOCK_SIZE, dev, &c), 0);
	assert_int_equal(c.moved, 1);
	assert_int_equal(c.nomem, BALUN_BLOCK_PAGES - 1);
	assert_int_equal(balun_migrate(space, (void *)VA, len, dev, &c), 0);
	assert_int_equal(balun_device_close(dev), 0);
	for (i = 0; i < 3; i++)
		holds(VA + i * BALUN_BLOCK_SIZE, 'a' + i);
	assert_int_equal(balun_sim_munmap(space, VA, len), 0);
}

/* an engine may tell late what is free, from another thread: between an alloc and an eviction that
 * then finds nothing */
static void memory_comes_free_by_itself(void **state)
{
	struct balun_device *dev;
	struct balun_counts c;

	assert_int_equal(
		balun_sim_mmap(space, VA, BALUN_BLOCK_SIZE, BALUN_SIM_READ | BALUN_SIM_WRITE), 0);
	assert_int_equal(balun_device_open(space, "small", &dev), 0);
	fill(VA, 'y');
	late = true;
	assert_int_equal(balun_migrate(space, (void *)VA, BALUN_PAGE_SIZE, dev, &c), 0);
	assert_int_equal(c.moved, 1);
	assert_int_equal(balun_device_close(dev), 0);
	holds(VA, 'y');
	assert_int_equal(balun_sim_munmap(space, VA, BALUN_BLOCK_SIZE), 0);
}

/* a device's fault has to bring the page that it is about, whatever the policy adds */
static void a_fault_brings_its_page(void **state)
{
	uint64_t va = VA + 5 * BALUN_PAGE_SIZE;
	struct balun_device *dev;
	struct balun_extent ext;
	unsigned int i;
	size_t n;

	assert_int_equal(
		balun_sim_mmap(space, VA, BALUN_BLOCK_SIZE, BALUN_SIM_READ | BALUN_SIM_WRITE), 0);
	assert_int_equal(balun_device_open(space, "small", &dev), 0);
	for (i = 0; i < 16; i++)
		fill(VA + i * BALUN_PAGE_SIZE, 'x');
	assert_int_equal(balun_fault(dev, space, va, 1, BALUN_ACCESS_WRITE), 0);
	assert_int_equal(balun_query(space, (void *)va, BALUN_PAGE_SIZE, &ext, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(ext.device, dev->id);
	assert_int_equal(balun_device_close(dev), 0);
	holds(va, 'x');
	assert_int_equal(balun_sim_munmap(space, VA, BALUN_BLOCK_SIZE), 0);
}

static void refused(uint64_t b, uint64_t of, const char *word)
{
	struct balun_device *dev;

	bytes = b;
	caps = of;
	assert_int_equal(balun_device_open(space, "small", &dev), -EINVAL);
	assert_non_null(strstr(balun_reason(), word));
}

static void sizes(void **state)
{
	refused(0, BALUN_CAP_ALLOC, "4K");
	refused(100, BALUN_CAP_ALLOC, "4K");
	/* core's own allocator, and engines that move pages into host memory, think in blocks */
	refused(BALUN_PAGE_SIZE, 0, "2M");
	refused(BALUN_BLOCK_SIZE + BALUN_PAGE_SIZE, BALUN_CAP_ALLOC | BALUN_CAP_HOST_MEMORY, "2M");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_page_at_a_time),
		cmocka_unit_test(memory_comes_free_by_itself),
		cmocka_unit_test(a_fault_brings_its_page),
		cmocka_unit_test(sizes),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
