// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What libraries and modules of different versions share must not change: sizes, places, numbers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sys/ioctl.h>

#include "balun/uapi.h"

#define AT(type, member, at) assert_int_equal(offsetof(struct balun_uapi_##type, member), at)
#define SIZE(type, size)     assert_int_equal(sizeof(struct balun_uapi_##type), size)

static void structs_are_as_they_were(void **state)
{
	(void)state;
	SIZE(head, 16);
	AT(head, reason, 8);
	SIZE(info, 16 + 8 + 32 + 96 + 160 + 240 + 480);
	AT(info, version, 16);
	AT(info, release, 24);
	SIZE(driver, 16 + 8 + 64 + 1024);
	AT(driver, name, 24);
	SIZE(open, 32);
	AT(open, handle, 24);
	SIZE(device, 112);
	AT(device, id, 48);
	AT(device, name, 52);
	SIZE(migrate, 16 + 24 + 64);
	AT(migrate, counts, 40);
	SIZE(range, 48);
	AT(range, arg, 40);
	SIZE(evict, 40);
	AT(evict, freed, 32);
	SIZE(list, 56);
	AT(list, more, 48);
	SIZE(stats, 32);
	SIZE(command, 16 + 32 + 16 + 32);
	AT(command, arg_len, 48);
	AT(command, data_use, 56);
	AT(command, driver, 64);
	/* of balun.h, inside or pointed to */
	assert_int_equal(sizeof(struct balun_counts), 64);
	assert_int_equal(sizeof(struct balun_extent), 32);
	assert_int_equal(offsetof(struct balun_stats, peer_bytes), 8 + 3 * 8 * 8);
	assert_int_equal(offsetof(struct balun_stats, cpu_fault), 8 + 3 * 8 * 8 + 15 * 8);
}

static void numbers_are_as_they_were(void **state)
{
	(void)state;
	assert_int_equal(BALUN_UAPI_VERSION, 1);
	assert_int_equal(BALUN_IOC_INFO, 0xba00);
	assert_int_equal(BALUN_IOC_CREATE, 0xba02);
	assert_int_equal(BALUN_IOC_MIGRATE, 0xba07);
	assert_int_equal(BALUN_IOC_COMMAND, 0xba13);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(structs_are_as_they_were),
		cmocka_unit_test(numbers_are_as_they_were),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
