// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The reader of package databases: what it takes, what it refuses and where; the graph made of it
 * and what a CPU makes of that.
 */
#include "tools/dpkg.c"
#include "tools/graph.c"
#include "tools/graph_solve.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static struct dpkg_error load_error(const char *text)
{
	struct dpkg_error err = { 0 };
	struct graph *g;

	assert_int_equal(graph_load(text, strlen(text), &g, &err), -EINVAL);
	return err;
}

static struct graph *load(const char *text)
{
	struct dpkg_error err = { 0 };
	struct graph *g = NULL;

	if (graph_load(text, strlen(text), &g, &err))
		fail_msg("line %lu: %s", err.line, err.what);
	return g;
}

static void assert_str(struct dpkg_str s, const char *text)
{
	assert_int_equal(s.len, strlen(text));
	assert_memory_equal(s.s, text, s.len);
}

static void test_entry(void **state)
{
	static const char text[] = "\n\n"
				   "Package: a\n"
				   "Status: install ok half-configured\n"
				   "Description: short\n long\n .\n more\n"
				   "version:  1:2-3 \n"
				   "Depends: b,\n c\n"
				   "\n"
				   "Package: b\nStatus: deinstall ok config-files\n\n\n";
	struct dpkg_parser d;
	struct dpkg_entry e;

	(void)state;
	dpkg_begin(&d, text, strlen(text));
	assert_int_equal(dpkg_next(&d, &e), 1);
	assert_int_equal(e.line, 3);
	assert_true(e.installed);
	assert_str(e.package.text, "a");
	assert_str(e.version.text, "1:2-3");
	assert_str(e.depends.text, "b,\n c");
	assert_int_equal(e.depends.line, 10);
	assert_null(e.provides.text.s);
	assert_int_equal(dpkg_next(&d, &e), 1);
	assert_false(e.installed);
	assert_int_equal(dpkg_next(&d, &e), 0);
	assert_int_equal(dpkg_next(&d, &e), 0);
}

static void test_relations(void **state)
{
	static const struct {
		const char *name;
		bool alternative;
	} want[] = { { "a", false },   { "b-1.0+x", false }, { "c", true },
		     { "d_e", false }, { "f", false },	     { "g", true } };
	static const char text[] =
		"a, b-1.0+x (>= 1:2~3) | c:any ( << 2 ) [amd64 !i386],\n\td_e <!x> "
		"<y>,f|g";
	struct dpkg_value v = { .text = { text, strlen(text) }, .line = 7 };
	struct dpkg_error err;
	struct dpkg_relations r;
	struct dpkg_str name;
	bool alternative;
	size_t i;

	(void)state;
	dpkg_relations(&r, &v, &err);
	for (i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		assert_int_equal(dpkg_relation_next(&r, &name, &alternative), 1);
		assert_str(name, want[i].name);
		assert_int_equal(alternative, want[i].alternative);
	}
	assert_int_equal(r.line, 8);
	assert_int_equal(dpkg_relation_next(&r, &name, &alternative), 0);
	assert_int_equal(dpkg_relation_next(&r, &name, &alternative), 0);
}

static void test_errors(void **state)
{
	static const struct {
		const char *text;
		unsigned long line;
		const char *what;
	} bad[] = {
		{ "", 1, "no entries" },
		{ "\n\n", 3, "no entries" },
		{ "Package: a", 1, "middle of a line" },
		{ "Package: a\nVersion: 1\n", 3,
		  "ends inside the entry of \"a\" (begun in line 1)" },
		{ "a:b\n", 1, "without a Package" },
		{ "Version: 1\n\n", 1, "without a Package" },
		{ "\nPackage: a\n\n", 2, "no Version" },
		{ "Package:\nVersion: 1\n\n", 1, "not a package name" },
		{ "Package: a b\nVersion: 1\n\n", 1, "not a package name" },
		{ "Package: a\n b\nVersion: 1\n\n", 1, "not a package name" },
		{ "Package: a\nVersion:\n\n", 2, "Version takes one line" },
		{ "Package: a\nVersion: 1\n 2\n\n", 2, "Version takes one line" },
		{ "Package: a\nStatus: install ok\nVersion: 1\n\n", 2, "not a package status" },
		{ "Package: a\nStatus: install ok installed x\nVersion: 1\n\n", 2, "status" },
		{ "Package: a\nStatus: install ok o\nVersion: 1\n\n", 2, "status" },
		{ "Package: a\nVersion: 1\nVersion: 2\n\n", 3, "second Version" },
		{ " x\n", 1, "continuation" },
		{ "Package: a\n\n x\n", 1, "no Version" },
		{ "Package: a\nVersion: 1\n\n x\n", 4, "continuation" },
		{ "Package: a\n \nVersion: 1\n\n", 2, "line of blanks" },
		{ "Package: a\n:x\n\n", 2, "expected \"Field: value\"" },
		{ "Package: a\nfoo bar: x\n\n", 2, "found \"foo bar: x\"" },
		{ "{\"a\": 1}\n", 1, "expected \"Field: value\"" },
		{ "Package: a\nX: \001\n\n", 2, "byte 0x01 in column 4" },
		{ "Package: a\nX: \x7f\n\n", 2, "byte 0x7f" },
		{ "Package: a\nVersion: 1\nDepends: ,b\n\n", 3, "expected a package name" },
		{ "Package: a\nVersion: 1\nDepends: b,\n\n", 3, "after \",\"" },
		{ "Package: a\nVersion: 1\nDepends: b |\n\n", 3, "after \"|\"" },
		{ "Package: a\nVersion: 1\nDepends: b,\n c,\n d (>> \n\n", 5, "a version" },
		{ "Package: a\nVersion: 1\nDepends: b (1)\n\n", 3, "expected <<" },
		{ "Package: a\nVersion: 1\nDepends: b (\n\n", 3, "expected <<" },
		{ "Package: a\nVersion: 1\nDepends: b (= 1 2)\n\n", 3, "\")\"" },
		{ "Package: a\nVersion: 1\nDepends: b [x\n\n", 3, "\"]\" is missing" },
		{ "Package: a\nVersion: 1\nDepends: b c\n\n", 3, "\",\" or \"|\"" },
		{ "Package: a\nVersion: 1\nDepends: -b\n\n", 3, "found \"-b\"" },
		{ "Package: a\nVersion: 1\nProvides: b | c\n\n", 3, "Provides" },
		{ "Package: a\nStatus: purge ok not-installed\n\n", 4, "no entry is an installed" },
	};
	struct dpkg_error err;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err = load_error(bad[i].text);
		if (err.line != bad[i].line || !strstr(err.what, bad[i].what))
			fail_msg("case %zu: got line %lu: %s", i, err.line, err.what);
	}
}

/* an error quotes what it found, without what a terminal would obey, and cut */
static void test_quoting(void **state)
{
	char text[400] = "Package: a\n";
	struct dpkg_error err;

	(void)state;
	memset(text + strlen(text), '\xff', 300);
	strcat(text, "\n\n");
	err = load_error(text);
	assert_int_equal(err.line, 2);
	assert_non_null(strstr(err.what, "????..."));
	assert_true(strlen(err.what) < 100);
}

/* every prefix of a good file that is not whole entries is refused at a line of its own */
static void test_truncation(void **state)
{
	static const char text[] = "Package: a\nVersion: 1\nDepends: b (>= 1),\n b | c\n\n"
				   "Package: b\nVersion: 1\n\n";
	struct dpkg_error err;
	struct graph *g;
	size_t n, whole = strstr(text, "\n\n") + 2 - text;
	int ret;

	(void)state;
	for (n = 1; n <= strlen(text); n++) {
		char *copy = malloc(n);

		memcpy(copy, text, n);
		ret = graph_load(copy, n, &g, &err);
		free(copy);
		if (n == whole || n == strlen(text)) {
			assert_int_equal(ret, 0);
			graph_free(g);
		} else {
			assert_int_equal(ret, -EINVAL);
			assert_in_range(err.line, 1, 9);
		}
	}
}

static const char small[] = "Package: a\nVersion: 1\nDepends: b, virtual, nothing | c\n\n"
			    "Package: v\nVersion: 1\nProvides: virtual, c\n\n"
			    "Package: b\r\nVersion: 1\r\nPre-Depends: c\r\n\r\n"
			    "Package: c\nVersion: 1\nDepends: b\n\n"
			    "Package: d\nStatus: purge ok config-files\nVersion: 1\n\n"
			    "Package: e\nVersion: 1\nDepends: d\n\n";

static void test_solve(void **state)
{
	struct graph *g = load(small);
	struct graph_answer a;
	uint64_t sum = 0, i;

	(void)state;
	assert_int_equal(g->npkgs, 5);
	assert_int_equal(g->nskipped, 1);
	assert_int_equal(graph_ndeps(g), 6);
	assert_int_equal(graph_solve(g, &a), 0);
	/* a: b, virtual (v), nothing | c (the package c, not v that provides it) */
	assert_ptr_equal(a.to[0], g->all[2]);
	assert_ptr_equal(a.to[1], g->all[1]);
	assert_ptr_equal(a.to[2], g->all[3]);
	assert_ptr_equal(a.to[3], g->all[3]); /* b: c */
	assert_ptr_equal(a.to[4], g->all[2]); /* c: b, a cycle */
	assert_null(a.to[5]);		      /* e: d is not installed */
	assert_int_equal(a.reach[0], 3);
	assert_int_equal(a.reach[1], 0);
	assert_int_equal(a.reach[2], 1);
	assert_int_equal(a.reach[3], 1);
	assert_int_equal(a.reach[4], 0);
	assert_true(a.rank[3] > a.rank[0]);
	for (i = 0; i < g->npkgs; i++)
		sum += a.rank[i];
	assert_in_range(sum, RANK_ONE - RANK_ONE / 1000000, RANK_ONE);
	graph_answer_free(&a);
	graph_free(g);
}

static void count_objects(void *ctx, void *obj, size_t size)
{
	uint64_t *n = ctx;

	assert_non_null(obj);
	assert_true(size > 0);
	(*n)++;
}

static void test_change(void **state)
{
	struct graph *g = load(small);
	struct pkg *before = g->all[0];
	struct graph_changes c;
	struct graph_answer a;
	uint64_t n = 0, i;

	(void)state;
	graph_each(g, count_objects, &n);
	/* graph, two arrays, 5 x (pkg, name, version), 6 deps, 7 alts with a name, 7 names with
	 * text */
	assert_int_equal(n, 3 + 15 + 6 + 14 + 14);
	assert_int_equal(graph_change(g, &c), 0);
	assert_int_equal(c.moved, 1);
	assert_int_equal(c.removed, 0); /* package 1 has none */
	assert_int_equal(c.added, 1);
	assert_ptr_not_equal(g->all[0], before);
	for (i = 0; i < g->npkgs; i++) {
		assert_int_equal(g->all[i]->magic, PKG_MAGIC);
		assert_int_equal(g->all[i]->index, i);
	}
	assert_int_equal(g->all[2]->ndeps, 2);
	assert_int_equal(graph_solve(g, &a), 0);
	assert_ptr_equal(a.to[0], g->all[2]);
	graph_answer_free(&a);
	graph_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entry),	   cmocka_unit_test(test_relations),
		cmocka_unit_test(test_errors),	   cmocka_unit_test(test_quoting),
		cmocka_unit_test(test_truncation), cmocka_unit_test(test_solve),
		cmocka_unit_test(test_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
