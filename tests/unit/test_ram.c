// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The ram driver by itself: its options, its memory, its copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "balun/driver.h"
#include "core/spec.h"
#include "env/env.h"

extern const struct balun_driver balun_ram_driver;

struct ram_dev {
	struct balun_options *opt;
	struct balun_desc desc;
	void *priv;
};

static int ram_dev_open(struct ram_dev *d, const char *spec)
{
	int err;

	memset(d, 0, sizeof(*d));
	assert_int_equal(spec_parse(spec, &d->opt), 0);
	err = balun_ram_driver.open(NULL, d->opt, &d->desc, &d->priv);
	if (err)
		spec_free(d->opt);
	return err;
}

static void ram_dev_close(struct ram_dev *d)
{
	balun_ram_driver.close(d->priv);
	spec_free(d->opt);
}

static int ram_dev_copy(struct ram_dev *d, const struct balun_copy *op, size_t n)
{
	uint64_t cookie;
	int err = balun_ram_driver.copy(d->priv, op, n, &cookie);

	return err ? err : balun_ram_driver.copy_wait(d->priv, cookie);
}

static void says_where_its_memory_is(void **state)
{
	struct ram_dev d;

	assert_int_equal(ram_dev_open(&d, "ram:mem=4M"), 0);
	assert_int_equal(d.desc.mem_bytes, 4 << 20);
	assert_int_equal(d.desc.caps, BALUN_CAP_HOST_MEMORY);
	assert_int_equal((uintptr_t)d.desc.host_base % BALUN_BLOCK_SIZE, 0);
	((char *)d.desc.host_base)[d.desc.mem_bytes - 1] = 1;
	ram_dev_close(&d);
	assert_int_equal(ram_dev_open(&d, "ram"), 0);
	assert_int_equal(d.desc.mem_bytes, 256 << 20);
	ram_dev_close(&d);
	assert_int_equal(ram_dev_open(&d, "ram:coherent=1"), 0);
	assert_int_equal(d.desc.caps, balun_ram_driver.caps);
	ram_dev_close(&d);
	assert_int_equal(ram_dev_open(&d, "ram:coherent=2"), -EINVAL);
}

static void refuses_odd_sizes(void **state)
{
	struct ram_dev d;

	assert_int_equal(ram_dev_open(&d, "ram:mem=0"), -EINVAL);
	assert_int_equal(ram_dev_open(&d, "ram:mem=3M"), -EINVAL);
	assert_int_equal(ram_dev_open(&d, "ram:mem=17592186044414M"), -ENOMEM);
	assert_int_equal(ram_dev_open(&d, "ram:mem=x"), -EINVAL);
	assert_string_not_equal(balun_reason(), "");
}

static void copies_both_ways_and_zeros(void **state)
{
	char *sys = balun_mem_alloc(2 * BALUN_PAGE_SIZE);
	uint64_t a = (uintptr_t)sys, b = a + BALUN_PAGE_SIZE;
	struct ram_dev d;

	assert_non_null(sys);
	assert_int_equal(ram_dev_open(&d, "ram:mem=2M"), 0);
	memset(sys, 0x5a, BALUN_PAGE_SIZE);
	assert_int_equal(
		ram_dev_copy(&d,
			     (struct balun_copy[]){
				     { 0x3000, a, 4096, BALUN_KIND_LOCAL, BALUN_KIND_SYSTEM },
				     { b, 0, 4096, BALUN_KIND_SYSTEM, BALUN_KIND_ZERO },
			     },
			     2),
		0);
	assert_int_equal(((char *)d.desc.host_base)[0x3000 + 4095], 0x5a);
	assert_int_equal(ram_dev_copy(&d,
				      (struct balun_copy[]){ { b, 0x3000, 4096, BALUN_KIND_SYSTEM,
							       BALUN_KIND_LOCAL } },
				      1),
			 0);
	assert_memory_equal(sys, sys + BALUN_PAGE_SIZE, BALUN_PAGE_SIZE);
	assert_int_equal(ram_dev_copy(&d,
				      (struct balun_copy[]){ { 0x3000, 0, 4096, BALUN_KIND_LOCAL,
							       BALUN_KIND_ZERO } },
				      1),
			 0);
	assert_int_equal(((char *)d.desc.host_base)[0x3000], 0);
	ram_dev_close(&d);
	balun_mem_free(sys, 2 * BALUN_PAGE_SIZE);
}

static void refuses_what_it_cannot_copy(void **state)
{
	const struct balun_copy peer = { 0, 0, 4096, BALUN_KIND_LOCAL, BALUN_KIND_PEER };
	const struct balun_copy to_zero = { 0, 0, 4096, BALUN_KIND_ZERO, BALUN_KIND_LOCAL };
	struct ram_dev d;

	assert_int_equal(ram_dev_open(&d, "ram:mem=2M"), 0);
	assert_int_equal(ram_dev_copy(&d, &peer, 1), -EOPNOTSUPP);
	assert_int_equal(ram_dev_copy(&d, &to_zero, 1), -EOPNOTSUPP);
	ram_dev_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_where_its_memory_is),
		cmocka_unit_test(refuses_odd_sizes),
		cmocka_unit_test(copies_both_ways_and_zeros),
		cmocka_unit_test(refuses_what_it_cannot_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
