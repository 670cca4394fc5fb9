// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Device specs (spec.h has the grammar), and the options in them as drivers read them.
 *
 * One copy of the text, cut up in place by zero bytes: the parser reads the original, so a
 * separator may be overwritten as soon as the word before it has ended.
 */
#include "core/spec.h"
#include "env/env.h"

#define SPEC_BYTES 512

struct option {
	struct option *next;
	const char *key, *value;
	unsigned int column; /* of the value, from 1 */
	bool used;
};

struct balun_options {
	const char *name;
	struct balun_options *inner, *next; /* the first in the parentheses; the one beside it */
	struct option *first;
	unsigned int column; /* of the name */
	char *text;	     /* of the outermost level, which frees it */
};

struct parser {
	const char *text, *p;
	char *copy;
	unsigned int drivers; /* names so far */
};

static unsigned int column(const struct parser *ps)
{
	return (unsigned int)(ps->p - ps->text) + 1;
}

static int fail(const struct parser *ps, const char *why)
{
	env_reason("device spec, column %u: %s", column(ps), why);
	return -EINVAL;
}

static int fail_nomem(void)
{
	env_reason("out of memory for a device spec");
	return -ENOMEM;
}

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_value(char c)
{
	return (unsigned char)c >= ' ' && c != 0x7f && c != ',' && c != '(' && c != ')';
}

/* [a-z][a-z0-9_-]* */
static int parse_word(struct parser *ps, const char *what, const char **ret_word)
{
	const char *start = ps->p;

	if (!is_lower(*ps->p))
		return fail(ps, what);
	while (is_lower(*ps->p) || is_digit(*ps->p) || *ps->p == '_' || *ps->p == '-')
		ps->p++;
	ps->copy[ps->p - ps->text] = 0;
	*ret_word = ps->copy + (start - ps->text);
	return 0;
}

static struct option *find_option(const struct balun_options *opt, const char *key)
{
	struct option *o;

	for (o = opt->first; o && strcmp(o->key, key);)
		o = o->next;
	return o;
}

/* key "=" value, appended at @ret_o */
static int parse_option(struct parser *ps, const struct balun_options *opt, struct option **ret_o)
{
	const char *key = NULL;
	struct option *o;
	int err = parse_word(ps, "the name of an option must begin with a-z", &key);

	if (err)
		return err;
	if (*ps->p != '=')
		return fail(ps, "'=' and a value must follow the name of an option");
	if (find_option(opt, key))
		return fail(ps, "this option is there already");
	ps->p++;
	o = env_alloc(sizeof(*o));
	if (!o)
		return fail_nomem();
	o->key = key;
	o->value = ps->copy + (ps->p - ps->text);
	o->column = column(ps);
	while (is_value(*ps->p))
		ps->p++;
	/* the caller looks at the separator in the original */
	ps->copy[ps->p - ps->text] = 0;
	*ret_o = o;
	return 0;
}

/* what comes after a ',' inside parentheses: another option, or the next spec */
static bool option_follows(const char *p)
{
	while (is_lower(*p) || is_digit(*p) || *p == '_' || *p == '-')
		p++;
	return *p == '=';
}

static int parse_options(struct parser *ps, unsigned int depth, struct balun_options *opt)
{
	struct option **tail = &opt->first;
	int err = 0;

	if (*ps->p != ':')
		return 0;
	do {
		ps->p++;
		err = parse_option(ps, opt, tail);
		if (!err)
			tail = &(*tail)->next;
	} while (!err && *ps->p == ',' && (!depth || option_follows(ps->p + 1)));
	return err;
}

static int parse_level(struct parser *ps, unsigned int depth, struct balun_options **ret_opt);

/* "(" spec { "," spec } ")" */
static int parse_inner(struct parser *ps, unsigned int depth, struct balun_options *opt)
{
	struct balun_options **tail = &opt->inner;
	int err;

	do {
		ps->p++;
		err = parse_level(ps, depth, tail);
		if (err)
			return err;
		tail = &(*tail)->next;
	} while (*ps->p == ',');
	if (*ps->p == '=')
		return fail(ps, "':' must stand before the first option");
	if (*ps->p != ')')
		return fail(ps, *ps->p ? "unexpected character" : "')' is missing");
	ps->p++;
	return 0;
}

/* one level; recursion ends at SPEC_DEPTH. On failure what there is hangs on *ret_opt. */
static int parse_level(struct parser *ps, unsigned int depth, struct balun_options **ret_opt)
{
	struct balun_options *opt = env_alloc(sizeof(*opt));
	int err;

	*ret_opt = opt;
	if (!opt)
		return fail_nomem();
	opt->column = column(ps);
	if (ps->drivers++ == SPEC_DRIVERS)
		return fail(ps, "too many drivers");
	err = parse_word(ps, "the name of a driver must begin with a-z", &opt->name);
	if (!err && *ps->p == '(')
		err = depth == SPEC_DEPTH ? fail(ps, "nested too deeply")
					  : parse_inner(ps, depth + 1, opt);
	return err ? err : parse_options(ps, depth, opt);
}

int spec_parse(const char *text, struct balun_options **ret_opt)
{
	struct parser ps = { .text = text, .p = text };
	struct balun_options *opt;
	size_t len;
	int err;

	len = text ? strnlen(text, SPEC_BYTES + 1) : 0;
	if (!len || len > SPEC_BYTES) {
		env_reason(len ? "a device spec has at most 512 bytes"
			       : "the device spec is empty");
		return -EINVAL;
	}
	ps.copy = env_alloc(len + 1);
	if (!ps.copy)
		return fail_nomem();
	memcpy(ps.copy, text, len);
	err = parse_level(&ps, 0, &opt);
	if (!err && *ps.p)
		err = fail(&ps, *ps.p == ')' ? "')' without '('" : "unexpected character");
	if (err)
		goto err_free;
	opt->text = ps.copy;
	*ret_opt = opt;
	return 0;

err_free:
	spec_free(opt);
	env_free(ps.copy);
	return err;
}

void spec_free(struct balun_options *opt)
{
	while (opt) {
		struct balun_options *next = opt->next;

		spec_free(opt->inner);
		while (opt->first) {
			struct option *o = opt->first;

			opt->first = o->next;
			env_free(o);
		}
		env_free(opt->text);
		env_free(opt);
		opt = next;
	}
}

const char *spec_name(const struct balun_options *opt)
{
	return opt->name;
}

const struct balun_options *spec_inner(const struct balun_options *opt)
{
	return opt->inner;
}

const struct balun_options *spec_next(const struct balun_options *opt)
{
	return opt->next;
}

/* the keys of a help text, "KEY=DEFAULT  what it does\n" each, as "a, b, c" */
static void list_keys(const char *help, char *buf, size_t size)
{
	size_t n = 0;

	while (help && *help) {
		size_t len = 0;

		while (help[len] && help[len] != '=' && help[len] != '\n' && help[len] != ' ')
			len++;
		if (len && n + len + 3 < size) {
			if (n) {
				buf[n++] = ',';
				buf[n++] = ' ';
			}
			memcpy(buf + n, help, len);
			n += len;
		}
		while (*help && *help++ != '\n')
			;
	}
	buf[n] = 0;
}

int spec_check_used(const struct balun_options *opt, const char *help)
{
	const struct option *o;
	char known[200];

	for (o = opt->first; o && o->used;)
		o = o->next;
	if (!o)
		return 0;
	list_keys(help, known, sizeof(known));
	env_reason("device spec, column %u: %s has no option \"%s\"; it has: %s",
		   o->column - (unsigned int)strlen(o->key) - 1, opt->name, o->key,
		   known[0] ? known : "none");
	return -EINVAL;
}

/* ---- what drivers call ---- */

static struct option *use_option(const struct balun_options *opt, const char *key)
{
	struct option *o = find_option(opt, key);

	if (o)
		o->used = true;
	return o;
}

int balun_opt_fail(const struct balun_options *opt, const char *key, const char *why)
{
	const struct option *o = find_option(opt, key);

	if (o)
		env_reason("device spec, column %u: %s: %s=%s: %s", o->column, opt->name, key,
			   o->value, why);
	else
		env_reason("device spec, column %u: %s: %s: %s", opt->column, opt->name, key, why);
	return -EINVAL;
}

struct suffix {
	const char *text;
	uint64_t factor;
};

/* a decimal number and one of the suffixes, the last of which has no text */
static bool parse_number(const char *s, const struct suffix *suffix, uint64_t *ret_v)
{
	uint64_t v = 0;

	if (!is_digit(*s))
		return false;
	for (; is_digit(*s); s++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s - '0', &v))
			return false;
	while (suffix->text && strcmp(s, suffix->text))
		suffix++;
	if (!suffix->text || __builtin_mul_overflow(v, suffix->factor, &v))
		return false;
	*ret_v = v;
	return true;
}

int balun_opt_size(const struct balun_options *opt, const char *key, uint64_t dflt, uint64_t *ret_v)
{
	static const struct suffix suffix[] = {
		{ "", 1 }, { "K", 1ULL << 10 }, { "M", 1ULL << 20 }, { "G", 1ULL << 30 }, { 0 }
	};
	const struct option *o = use_option(opt, key);
	uint64_t v = dflt;

	if (o && !parse_number(o->value, suffix, &v))
		return balun_opt_fail(opt, key,
				      "not a number below 2^64, such as 3, 64K, 256M, 2G");
	*ret_v = v;
	return 0;
}

int balun_opt_time(const struct balun_options *opt, const char *key, uint64_t dflt, uint64_t *ret_v)
{
	static const struct suffix suffix[] = {
		{ "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 }, { 0 }
	};
	const struct option *o = use_option(opt, key);
	uint64_t v = dflt;

	/* only zero needs no unit */
	if (o && strcmp(o->value, "0") && !parse_number(o->value, suffix, &v))
		return balun_opt_fail(opt, key, "not a time such as 500ns, 20us, 2ms, 1s");
	*ret_v = o && !strcmp(o->value, "0") ? 0 : v;
	return 0;
}

const char *balun_opt_str(const struct balun_options *opt, const char *key, const char *dflt)
{
	const struct option *o = use_option(opt, key);

	return o ? o->value : dflt;
}
