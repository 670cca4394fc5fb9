// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Hints and pins against an entry per page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/hint.h"
#include "tests/unit/rand.h"

#define PAGES 1536u /* 3 blocks */
#define PAGE  4096ULL

static const uint64_t base = 7ULL << 30;
static struct hint ref[PAGES];
static unsigned int pins[PAGES];

static uint64_t va_of(unsigned int page)
{
	return base + page * PAGE;
}

static void ref_set(struct hint *h, enum balun_advice advice, unsigned int dev)
{
	if (advice == BALUN_ADVISE_NONE) {
		memset(h, 0, sizeof(*h));
	} else if (advice == BALUN_ADVISE_PREFERRED_LOCATION) {
		h->flags |= BALUN_HINT_PREFERRED;
		h->preferred = dev;
	} else if (advice == BALUN_ADVISE_ACCESSED_BY) {
		h->accessed_by |= 1u << dev;
	} else {
		h->flags |= BALUN_HINT_READ_MOSTLY;
	}
}

static void ref_forget(unsigned int dev)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		ref[i].accessed_by &= ~(1u << dev);
		if (ref[i].flags & BALUN_HINT_PREFERRED && ref[i].preferred == dev) {
			ref[i].flags &= ~BALUN_HINT_PREFERRED;
			ref[i].preferred = 0;
		}
	}
}

static void check_hints(struct hint_table *t)
{
	struct hint h;
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		hint_get(t, va_of(i) + rand_below(PAGE), &h);
		assert_int_equal(h.flags, ref[i].flags);
		assert_int_equal(h.preferred, ref[i].preferred);
		assert_int_equal(h.accessed_by, ref[i].accessed_by);
	}
	hint_get(t, base - 1, &h);
	assert_true(!h.flags && !h.accessed_by);
	hint_get(t, va_of(PAGES), &h);
	assert_true(!h.flags && !h.accessed_by);
}

static void test_random(void **state)
{
	struct hint_table *t = hint_create();
	unsigned int step, i;

	(void)state;
	memset(ref, 0, sizeof(ref));
	for (step = 0; step < 3000; step++) {
		unsigned int page = rand_below(PAGES), n = 1 + rand_below(rand_below(2) ? 4 : 700);
		enum balun_advice advice = rand_below(4);
		unsigned int dev = 1 + rand_below(3);

		n = n < PAGES - page ? n : PAGES - page;
		env_fail_alloc(rand_below(2));
		if (!rand_below(20)) {
			hint_forget_device(t, dev);
			ref_forget(dev);
		} else if (!hint_set(t, va_of(page), n * PAGE, advice, dev)) {
			for (i = page; i < page + n; i++)
				ref_set(&ref[i], advice, dev);
		}
		env_fail_alloc(0);
		if (step % 16 == 0)
			check_hints(t);
	}
	check_hints(t);
	hint_destroy(t);
}

static void test_merge(void **state)
{
	struct hint_table *t = hint_create();
	uint64_t bytes = 0;
	unsigned int i;

	(void)state;
	/* page by page, but one range in the end: 10,000 calls cost no more than ten */
	for (i = 0; i < 10000; i++) {
		assert_int_equal(hint_set(t, va_of(i), PAGE, BALUN_ADVISE_READ_MOSTLY, 0), 0);
		bytes = i == 10 ? hint_bytes(t) : bytes;
	}
	assert_int_equal(hint_bytes(t), bytes);
	hint_destroy(t);
}

static void test_read_mostly(void **state)
{
	struct hint_table *t = hint_create();
	struct hint h;
	unsigned int i;

	(void)state;
	assert_false(hint_device_wrote(t, va_of(0)));
	assert_int_equal(hint_set(t, va_of(0), 10 * PAGE, BALUN_ADVISE_READ_MOSTLY, 0), 0);
	assert_int_equal(hint_set(t, va_of(5), 10 * PAGE, BALUN_ADVISE_ACCESSED_BY, 4), 0);
	for (i = 0; i < 100; i++)
		assert_false(hint_device_wrote(t, va_of(10)));
	for (i = 1; i < HINT_READ_MOSTLY_WRITES; i++)
		assert_false(hint_device_wrote(t, va_of(i % 5)));
	assert_true(hint_device_wrote(t, va_of(4)));
	assert_false(hint_device_wrote(t, va_of(4)));
	hint_get(t, va_of(0), &h);
	assert_int_equal(h.flags, 0);
	hint_get(t, va_of(5), &h);
	assert_int_equal(h.flags, BALUN_HINT_READ_MOSTLY);
	assert_int_equal(h.accessed_by, 1u << 4);
	/* asked for again: counts from the start */
	assert_int_equal(hint_set(t, va_of(0), PAGE, BALUN_ADVISE_READ_MOSTLY, 0), 0);
	for (i = 1; i < HINT_READ_MOSTLY_WRITES; i++)
		assert_false(hint_device_wrote(t, va_of(0)));
	assert_true(hint_device_wrote(t, va_of(0)));
	hint_destroy(t);
}

static void test_args(void **state)
{
	struct hint_table *t = hint_create();

	(void)state;
	assert_int_equal(hint_set(t, base, 0, BALUN_ADVISE_READ_MOSTLY, 0), -EINVAL);
	assert_int_equal(hint_set(t, PAGE, 0 - PAGE / 2, BALUN_ADVISE_READ_MOSTLY, 0), -EINVAL);
	assert_int_equal(hint_set(t, base, PAGE, BALUN_ADVISE_DISCARD, 0), -EINVAL);
	assert_int_equal(hint_set(t, base, PAGE, (enum balun_advice) - 1, 0), -EINVAL);
	assert_int_equal(hint_set(t, base, PAGE, BALUN_ADVISE_ACCESSED_BY, 0), -EINVAL);
	assert_int_equal(hint_set(t, base, PAGE, BALUN_ADVISE_ACCESSED_BY, 16), -EINVAL);
	assert_int_equal(hint_set(t, base, PAGE, BALUN_ADVISE_PREFERRED_LOCATION, 0), 0);
	env_fail_alloc(1);
	assert_int_equal(hint_pin(t, base, PAGE), -ENOMEM);
	env_fail_alloc(1);
	assert_null(hint_create());
	env_fail_alloc(0);
	assert_int_equal(hint_unpin(t, base, PAGE), -ENOENT);
	hint_destroy(t);
	hint_destroy(NULL);
}

static void check_pins(struct hint_table *t)
{
	unsigned int block, i;
	bool any;

	for (block = 0; block < PAGES; block += 512) {
		env_bits bits;
		bool want = false;

		any = hint_pinned(t, va_of(block), bits);
		for (i = 0; i < 512; i++) {
			assert_int_equal(env_bit(bits, i), !!pins[block + i]);
			want |= !!pins[block + i];
		}
		assert_int_equal(any, want);
	}
}

static void test_pins(void **state)
{
	struct hint_table *t = hint_create();
	unsigned int from[64], len[64], n = 0, step, i, k;

	(void)state;
	memset(pins, 0, sizeof(pins));
	for (step = 0; step < 3000; step++) {
		if (n < 64 && rand_below(2)) {
			from[n] = rand_below(PAGES);
			len[n] = 1 + rand_below(rand_below(2) ? 3 : PAGES - from[n]);
			len[n] = len[n] < PAGES - from[n] ? len[n] : PAGES - from[n];
			assert_int_equal(hint_pin(t, va_of(from[n]), len[n] * PAGE), 0);
			for (i = 0; i < len[n]; i++)
				pins[from[n] + i]++;
			n++;
		} else if (n) {
			k = rand_below(n--);
			assert_int_equal(hint_unpin(t, va_of(from[k]), len[k] * PAGE), 0);
			for (i = 0; i < len[k]; i++)
				pins[from[k] + i]--;
			from[k] = from[n];
			len[k] = len[n];
		}
		if (step % 4 == 0)
			check_pins(t);
	}
	assert_int_equal(hint_unpin(t, va_of(PAGES), PAGE), -ENOENT);
	while (n--)
		assert_int_equal(hint_unpin(t, va_of(from[n]), len[n] * PAGE), 0);
	memset(pins, 0, sizeof(pins));
	check_pins(t);
	hint_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),	    cmocka_unit_test(test_merge),
		cmocka_unit_test(test_read_mostly), cmocka_unit_test(test_args),
		cmocka_unit_test(test_pins),
	};

	rand_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
