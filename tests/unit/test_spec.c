// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Device specs: what is taken, what is refused and at which column, options as drivers read them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/spec.h"
#include "env/env.h"
#include "tests/unit/rand.h"

static struct balun_options *parse(const char *text)
{
	struct balun_options *opt = NULL;

	assert_int_equal(spec_parse(text, &opt), 0);
	assert_non_null(opt);
	return opt;
}

static void test_good(void **state)
{
	struct balun_options *o = parse("inject(trace(soft-2:mem=3M):file=/a b:c=d):op=copy,nth=3");
	const struct balun_options *in = spec_inner(o);

	(void)state;
	assert_string_equal(spec_name(o), "inject");
	assert_string_equal(balun_opt_str(o, "op", "x"), "copy");
	assert_string_equal(balun_opt_str(o, "nth", "x"), "3");
	assert_string_equal(balun_opt_str(o, "file", "x"), "x");
	assert_string_equal(spec_name(in), "trace");
	assert_string_equal(balun_opt_str(in, "file", NULL), "/a b:c=d");
	in = spec_inner(in);
	assert_string_equal(spec_name(in), "soft-2");
	assert_string_equal(balun_opt_str(in, "mem", NULL), "3M");
	assert_null(spec_inner(in));
	spec_free(o);
	o = parse("a(b(c(d(e))))");
	spec_free(o);
	o = parse("a:k=");
	assert_string_equal(balun_opt_str(o, "k", "x"), "");
	spec_free(o);
	spec_free(NULL);
}

/* several in the same parentheses: a key and '=' after a ',' belongs to the one before */
static void test_several(void **state)
{
	struct balun_options *o = parse("a(b:k=1,l=2,c,d(e,f:k=3,g-2):m=4,h:k=):n=5,o=6");
	const struct balun_options *in = spec_inner(o), *e;

	(void)state;
	assert_null(spec_next(o));
	assert_string_equal(balun_opt_str(o, "n", NULL), "5");
	assert_string_equal(balun_opt_str(o, "o", NULL), "6");
	assert_string_equal(spec_name(in), "b");
	assert_string_equal(balun_opt_str(in, "k", NULL), "1");
	assert_string_equal(balun_opt_str(in, "l", NULL), "2");
	in = spec_next(in);
	assert_string_equal(spec_name(in), "c");
	assert_null(spec_inner(in));
	in = spec_next(in);
	assert_string_equal(spec_name(in), "d");
	assert_string_equal(balun_opt_str(in, "m", NULL), "4");
	e = spec_inner(in);
	assert_string_equal(spec_name(e), "e");
	e = spec_next(e);
	assert_string_equal(balun_opt_str(e, "k", NULL), "3");
	e = spec_next(e);
	assert_string_equal(spec_name(e), "g-2");
	assert_null(spec_next(e));
	in = spec_next(in);
	assert_string_equal(spec_name(in), "h");
	assert_string_equal(balun_opt_str(in, "k", "x"), "");
	assert_null(spec_next(in));
	assert_int_equal(balun_inner_count(o), 4);
	assert_int_equal(balun_inner_count(in), 0);
	spec_free(o);
	spec_free(parse("a(a,a,a,a,a,a,a,a,a,a,a,a,a,a,a)"));
}

static void test_bad(void **state)
{
	static const struct {
		const char *text;
		unsigned int column;
	} bad[] = {
		{ "Ram", 1 },
		{ "2ram", 1 },
		{ ":", 1 },
		{ "ram:", 5 },
		{ "ram x", 4 },
		{ "ram:mem", 8 },
		{ "ram:mem=1,", 11 },
		{ "ram:=1", 5 },
		{ "ram:mem=1,mem=2", 14 },
		{ "ram:mem=(", 9 },
		{ "ram:mem=a\tb", 10 },
		{ "a(b", 4 },
		{ "a(", 3 },
		{ "a()", 3 },
		{ "a)", 2 },
		{ "a(b)c", 5 },
		{ "a(b(c(d(e(f)))))", 10 },
		{ "a(b:k=v", 8 },
		{ "a(b c)", 4 },
		{ "a(b),c", 5 },
		{ "a(b,c", 6 },
		{ "a(b,", 5 },
		{ "a(b,)", 5 },
		{ "a(,b)", 3 },
		{ "a(b,c=d)", 6 },
		{ "a(b:k=1,)", 9 },
		{ "a(b:k=1,c:k)", 12 },
		{ "a(b:k=1,k=2)", 10 },
		{ "a(b,c):k=1,d", 13 },
		{ "a(a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a)", 33 },
		{ "a:k=v)", 6 },
		{ "a:k=\x7f", 5 },
	};
	struct balun_options *opt = NULL;
	char want[32], text[600];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(want, sizeof(want), "column %u:", bad[i].column);
		assert_int_equal(spec_parse(bad[i].text, &opt), -EINVAL);
		if (!strstr(env_reason_get(), want))
			fail_msg("\"%s\": %s", bad[i].text, env_reason_get());
	}
	assert_int_equal(spec_parse("", &opt), -EINVAL);
	assert_int_equal(spec_parse(NULL, &opt), -EINVAL);
	memset(text, 'a', sizeof(text));
	text[513] = 0;
	assert_int_equal(spec_parse(text, &opt), -EINVAL);
	assert_null(opt);
	text[512] = 0;
	spec_free(parse(text));
}

static void size_is(const char *value, bool ok, uint64_t want)
{
	struct balun_options *o;
	uint64_t v = 77;
	char text[80];

	snprintf(text, sizeof(text), "a:k=%s", value);
	o = parse(text);
	assert_int_equal(balun_opt_size(o, "k", 5, &v), ok ? 0 : -EINVAL);
	assert_int_equal(v, ok ? want : 77);
	assert_int_equal(spec_check_used(o, NULL), 0);
	spec_free(o);
}

static void time_is(const char *value, bool ok, uint64_t want)
{
	struct balun_options *o;
	uint64_t v = 77;
	char text[80];

	snprintf(text, sizeof(text), "a:k=%s", value);
	o = parse(text);
	assert_int_equal(balun_opt_time(o, "k", 5, &v), ok ? 0 : -EINVAL);
	assert_int_equal(v, ok ? want : 77);
	spec_free(o);
}

static void test_numbers(void **state)
{
	static const char *const no[] = { "",
					  "x",
					  "-1",
					  "1k",
					  "1KB",
					  "1 K",
					  "0x10",
					  "K",
					  "1.5G",
					  "18446744073709551616",
					  "17179869184G" };
	struct balun_options *o;
	uint64_t v;
	size_t i;

	(void)state;
	size_is("0", true, 0);
	size_is("007", true, 7);
	size_is("64K", true, 65536);
	size_is("256M", true, 256ULL << 20);
	size_is("17179869183G", true, 17179869183ULL << 30);
	size_is("18446744073709551615", true, UINT64_MAX);
	for (i = 0; i < sizeof(no) / sizeof(no[0]); i++)
		size_is(no[i], false, 0);
	time_is("0", true, 0);
	time_is("3ns", true, 3);
	time_is("20us", true, 20000);
	time_is("2ms", true, 2000000);
	time_is("18446744073s", true, 18446744073000000000ULL);
	time_is("18446744074s", false, 0);
	time_is("5", false, 0);
	time_is("5m", false, 0);
	time_is("", false, 0);
	o = parse("a");
	assert_int_equal(balun_opt_size(o, "k", 5, &v), 0);
	assert_int_equal(v, 5);
	assert_int_equal(balun_opt_time(o, "k", 6, &v), 0);
	assert_int_equal(v, 6);
	spec_free(o);
}

static void test_reasons(void **state)
{
	struct balun_options *o = parse("soft:mem=7,wrokers=2");
	uint64_t v;

	(void)state;
	assert_int_equal(balun_opt_fail(o, "mem", "must be even"), -EINVAL);
	assert_string_equal(env_reason_get(), "device spec, column 10: soft: mem=7: must be even");
	assert_int_equal(balun_opt_fail(o, "path", "must be given"), -EINVAL);
	assert_string_equal(env_reason_get(), "device spec, column 1: soft: path: must be given");
	balun_opt_size(o, "mem", 0, &v);
	assert_int_equal(spec_check_used(o, "mem=1M  memory\nworkers=2  threads\n"), -EINVAL);
	assert_string_equal(
		env_reason_get(),
		"device spec, column 12: soft has no option \"wrokers\"; it has: mem, workers");
	assert_int_equal(spec_check_used(o, ""), -EINVAL);
	balun_opt_str(o, "wrokers", NULL);
	assert_int_equal(spec_check_used(o, ""), 0);
	spec_free(o);
}

/* text made from what is known must come out again; with a byte changed it must not crash */
static void test_random(void **state)
{
	static const char alphabet[] = "az09_-:=,()AZ \x01\x7f\xc3";
	struct balun_options *opt;
	unsigned int i, k, n;
	char text[64];

	(void)state;
	for (i = 0; i < 20000; i++) {
		n = rand_below(sizeof(text));
		for (k = 0; k < n; k++)
			text[k] = alphabet[rand_below(sizeof(alphabet) - 1)];
		text[n] = 0;
		env_fail_alloc(rand_below(4) ? 0 : 1 + rand_below(3));
		if (spec_parse(text, &opt) == 0)
			spec_free(opt);
		env_fail_alloc(0);
	}
}

static void test_nomem(void **state)
{
	struct balun_options *opt = NULL;
	unsigned int nth;

	(void)state;
	for (nth = 1; nth <= 5; nth++) {
		env_fail_alloc(nth);
		assert_int_equal(spec_parse("a(b:k=v):l=w", &opt), -ENOMEM);
	}
	env_fail_alloc(6);
	assert_int_equal(spec_parse("a(b:k=v):l=w", &opt), 0);
	env_fail_alloc(0);
	spec_free(opt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),	cmocka_unit_test(test_several),
		cmocka_unit_test(test_bad),	cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_reasons), cmocka_unit_test(test_random),
		cmocka_unit_test(test_nomem),
	};

	rand_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
