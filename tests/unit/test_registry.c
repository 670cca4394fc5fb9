// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Drivers come and go: not while a device of theirs is open, be it inside a wrapper. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/core.h"

static int guest_opens = -1; /* how many open() calls succeed before one fails; -1: all */
static int guest_seen;	     /* what core_driver_get() gave while the device was opened */

static int guest_open(struct balun_device *dev, const struct balun_options *opt,
		      struct balun_desc *ret_desc, void **ret_priv);

static void guest_close(void *priv)
{
	guest_seen = 0;
}

static int guest_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void guest_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			enum balun_cause cause)
{
}

static int guest_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	return -EIO;
}

static int guest_copy_wait(void *priv, uint64_t cookie)
{
	return 0;
}

#define GUEST(n)                                                                                   \
	{                                                                                          \
		.size = sizeof(struct balun_driver), .caps = BALUN_CAP_MMU, .name = n, .help = "", \
		.open = guest_open, .close = guest_close, .map = guest_map, .unmap = guest_unmap,  \
		.copy = guest_copy, .copy_wait = guest_copy_wait,                                  \
	}
static const struct balun_driver guest = GUEST("guest"), other = GUEST("other"),
				 again = GUEST("guest");

static int guest_open(struct balun_device *dev, const struct balun_options *opt,
		      struct balun_desc *ret_desc, void **ret_priv)
{
	guest_seen = balun_driver_unregister(&guest);
	if (!guest_opens)
		return -ENODEV;
	guest_opens -= guest_opens > 0;
	*ret_desc = (struct balun_desc){ .mem_bytes = BALUN_BLOCK_SIZE, .caps = BALUN_CAP_MMU };
	*ret_priv = &guest_seen;
	return 0;
}

static struct balun_space *space;

static int begin(void **state)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .engine = "sim" };

	return balun_space_create(&opts, &space);
}

static int end(void **state)
{
	return balun_space_destroy(space);
}

static int listed(const char *name)
{
	const char *n, *help;
	int i, found = 0;

	for (i = 0; !balun_driver_info(i, &n, &help); i++)
		found += !strcmp(n, name);
	return found;
}

static void what_is_not_there(void **state)
{
	assert_int_equal(balun_driver_unregister(NULL), -ENOENT);
	assert_int_equal(balun_driver_unregister(&guest), -ENOENT);
	assert_int_equal(balun_driver_register(&guest), 0);
	/* another driver of that name is not it */
	assert_int_equal(balun_driver_register(&again), -EEXIST);
	assert_int_equal(balun_driver_unregister(&again), -ENOENT);
	assert_int_equal(balun_driver_unregister(&guest), 0);
	assert_int_equal(balun_driver_unregister(&guest), -ENOENT);
}

static void the_list_closes_up(void **state)
{
	struct balun_device *dev;

	assert_int_equal(balun_driver_register(&guest), 0);
	assert_int_equal(balun_driver_register(&other), 0);
	assert_int_equal(balun_driver_unregister(&guest), 0);
	assert_int_equal(listed("guest"), 0);
	assert_int_equal(listed("other"), 1);
	assert_int_equal(balun_device_open(space, "guest", &dev), -ENODEV);
	assert_int_equal(balun_device_open(space, "other", &dev), 0);
	assert_int_equal(balun_device_close(dev), 0);
	assert_int_equal(balun_driver_unregister(&other), 0);
	assert_int_equal(listed("ram"), 1);
}

/* a device of @spec keeps the driver from when it is opened until it is closed */
static void kept_by(const char *spec)
{
	struct balun_device *dev, *second;

	assert_int_equal(balun_driver_register(&guest), 0);
	assert_int_equal(balun_device_open(space, spec, &dev), 0);
	assert_int_equal(guest_seen, -EBUSY);
	assert_int_equal(balun_driver_unregister(&guest), -EBUSY);
	assert_int_equal(balun_device_open(space, spec, &second), 0);
	assert_int_equal(balun_device_close(dev), 0);
	assert_int_equal(balun_driver_unregister(&guest), -EBUSY);
	assert_int_equal(balun_device_close(second), 0);
	assert_int_equal(balun_driver_unregister(&guest), 0);
}

static void open_devices_keep_it(void **state)
{
	kept_by("guest");
}

static void wrappers_keep_it(void **state)
{
	kept_by("inject(guest)");
	kept_by("inject(trace(inject(guest)):quiet=1)");
}

static void what_fails_does_not(void **state)
{
	static const char *const bad[] = {
		"guest:unknown=1",		/* closed again by core */
		"inject(guest):op=x",		/* by nobody: it was not opened */
		"inject(guest:unknown=1)",	/* inside, by core */
		"inject(guest):unknown=1",	/* outside, and inside by the wrapper */
		"inject(guest):op=attach,nth=1" /* it was open, and then did not start */
	};
	struct balun_device *dev;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(balun_driver_register(&guest), 0);
		assert_int_not_equal(balun_device_open(space, bad[i], &dev), 0);
		assert_int_equal(balun_driver_unregister(&guest), 0);
	}
	assert_int_equal(balun_driver_register(&guest), 0);
	guest_opens = 0;
	assert_int_equal(balun_device_open(space, "trace(guest):quiet=1", &dev), -ENODEV);
	guest_opens = -1;
	assert_int_equal(balun_driver_unregister(&guest), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_there),	cmocka_unit_test(the_list_closes_up),
		cmocka_unit_test(open_devices_keep_it), cmocka_unit_test(wrappers_keep_it),
		cmocka_unit_test(what_fails_does_not),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
