// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: dpkg.c - reader of Debian's package database
 *
 * Input is hostile until proven: every read is bounded by the end of the buffer, and text that is
 * quoted in an error is cut and stripped of what a terminal would obey.
 */
#include "dpkg.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define FIELD_NAME_MAX 64
#define QUOTE_MAX      32

static int refuse(struct dpkg_error *err, unsigned long line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int refuse(struct dpkg_error *err, unsigned long line, const char *fmt, ...)
{
	va_list ap;

	err->line = line;
	va_start(ap, fmt);
	vsnprintf(err->what, sizeof(err->what), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

struct quote {
	char s[QUOTE_MAX + 4];
};

/* a printable beginning of @text for a message */
static struct quote quote(struct dpkg_str text)
{
	struct quote q;
	size_t i;

	for (i = 0; i < text.len && i < QUOTE_MAX; i++) {
		unsigned char c = text.s[i];

		q.s[i] = c >= 0x20 && c < 0x7f ? c : '?';
	}
	strcpy(q.s + i, i < text.len ? "..." : "");
	return q;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_name_char(char c)
{
	return is_alnum(c) || c == '+' || c == '-' || c == '.' || c == '_';
}

static struct dpkg_str trim(struct dpkg_str t)
{
	while (t.len && (is_blank(t.s[0]) || t.s[0] == '\n' || t.s[0] == '\r')) {
		t.s++;
		t.len--;
	}
	while (t.len &&
	       (is_blank(t.s[t.len - 1]) || t.s[t.len - 1] == '\n' || t.s[t.len - 1] == '\r'))
		t.len--;
	return t;
}

void dpkg_begin(struct dpkg_parser *d, const char *buf, size_t len)
{
	memset(d, 0, sizeof(*d));
	d->p = buf;
	d->end = buf + len;
	d->line = 1;
}

/* 1 and the line without its end; 0 at the end of the buffer; -EINVAL */
static int next_line(struct dpkg_parser *d, struct dpkg_str *ret_line)
{
	const char *nl;
	struct dpkg_str l = { .s = d->p };
	size_t i;

	if (d->p == d->end)
		return 0;
	nl = memchr(d->p, '\n', d->end - d->p);
	l.len = (nl ? nl : d->end) - d->p;
	if (l.len && l.s[l.len - 1] == '\r')
		l.len--;
	for (i = 0; i < l.len; i++) {
		unsigned char c = l.s[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return refuse(&d->err, d->line,
				      "byte 0x%02x in column %zu: not a text file of packages", c,
				      i + 1);
	}
	if (!nl)
		return refuse(&d->err, d->line,
			      "the file ends in the middle of a line: it is truncated");
	d->p = nl + 1;
	d->line++;
	*ret_line = l;
	return 1;
}

static struct dpkg_value *known_field(struct dpkg_entry *e, struct dpkg_str name)
{
	const struct {
		const char *name;
		struct dpkg_value *v;
	} known[] = {
		{ "Package", &e->package },   { "Status", &e->status },
		{ "Version", &e->version },   { "Architecture", &e->architecture },
		{ "Depends", &e->depends },   { "Pre-Depends", &e->pre_depends },
		{ "Provides", &e->provides },
	};
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strlen(known[i].name) == name.len &&
		    !strncasecmp(known[i].name, name.s, name.len))
			return known[i].v;
	return NULL;
}

/* "NAME: value": the name, or -EINVAL */
static int field_name(struct dpkg_parser *d, unsigned long line, struct dpkg_str l,
		      struct dpkg_str *ret_name)
{
	size_t i;

	for (i = 0; i < l.len && i <= FIELD_NAME_MAX && l.s[i] != ':'; i++) {
		char c = l.s[i];

		if (c <= ' ' || c > '~' || (!i && !is_alnum(c)))
			break;
	}
	if (!i || i > FIELD_NAME_MAX || i == l.len || l.s[i] != ':')
		return refuse(&d->err, line, "expected \"Field: value\", found \"%s\"", quote(l).s);
	*ret_name = (struct dpkg_str){ l.s, i };
	return 0;
}

/* a new field; *ret_v is where its value goes, NULL if nobody asks for it */
static int begin_field(struct dpkg_parser *d, struct dpkg_entry *e, unsigned long line,
		       struct dpkg_str l, struct dpkg_value **ret_v)
{
	struct dpkg_str name;
	struct dpkg_value *v;
	int ret;

	ret = field_name(d, line, l, &name);
	if (ret)
		return ret;
	v = known_field(e, name);
	if (v && v->text.s)
		return refuse(&d->err, line, "second %s field in one entry (first in line %lu)",
			      quote(name).s, v->line);
	if (v) {
		v->line = line;
		v->text.s = l.s + name.len + 1;
		v->text.len = l.len - name.len - 1;
	}
	*ret_v = v;
	return 0;
}

static bool all_blank(struct dpkg_str l)
{
	return !trim(l).len;
}

static int check_package(struct dpkg_parser *d, struct dpkg_entry *e)
{
	struct dpkg_str n;
	size_t i;

	if (!e->package.text.s)
		return refuse(&d->err, e->line, "entry without a Package field");
	n = e->package.text;
	if (!n.len || !is_alnum(n.s[0]))
		return refuse(&d->err, e->package.line, "\"%s\" is not a package name", quote(n).s);
	for (i = 0; i < n.len; i++)
		if (!is_name_char(n.s[i]))
			return refuse(&d->err, e->package.line, "\"%s\" is not a package name",
				      quote(n).s);
	return 0;
}

static bool next_word(struct dpkg_str *t, struct dpkg_str *ret_word)
{
	*t = trim(*t);
	ret_word->s = t->s;
	while (t->len && !is_blank(t->s[0])) {
		t->s++;
		t->len--;
	}
	ret_word->len = t->s - ret_word->s;
	return ret_word->len;
}

/* @words: separated by spaces, with one before and after each */
static bool one_of(struct dpkg_str w, const char *words)
{
	const char *p;

	for (p = words; (p = strchr(p, ' ')) && p[1]; p++)
		if (!strncmp(p + 1, w.s, w.len) && p[1 + w.len] == ' ')
			return true;
	return false;
}

/* "install ok installed": what is wanted, error flag, state */
static int check_status(struct dpkg_parser *d, struct dpkg_entry *e)
{
	struct dpkg_str t = e->status.text, want, flag, state, more;

	e->installed = true;
	if (!t.s)
		return 0;
	if (!next_word(&t, &want) || !next_word(&t, &flag) || !next_word(&t, &state) ||
	    next_word(&t, &more) || !one_of(want, " unknown install hold deinstall purge ") ||
	    !one_of(flag, " ok reinstreq ") ||
	    !one_of(state, " not-installed config-files half-installed unpacked half-configured "
			   "triggers-awaited triggers-pending installed "))
		return refuse(&d->err, e->status.line, "\"%s\" is not a package status",
			      quote(e->status.text).s);
	e->installed = !one_of(state, " not-installed config-files ");
	return 0;
}

static int check_one_line(struct dpkg_parser *d, const struct dpkg_value *v, const char *name)
{
	if (v->text.s && (memchr(v->text.s, '\n', v->text.len) || !v->text.len))
		return refuse(&d->err, v->line, "%s takes one line, and text in it", name);
	return 0;
}

static int finish(struct dpkg_parser *d, struct dpkg_entry *e)
{
	struct dpkg_value *all[] = { &e->package, &e->version,	   &e->architecture, &e->status,
				     &e->depends, &e->pre_depends, &e->provides };
	size_t i;
	int ret;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i]->text.s)
			all[i]->text = trim(all[i]->text);
	ret = check_package(d, e);
	if (!ret)
		ret = check_one_line(d, &e->package, "Package");
	if (!ret)
		ret = check_one_line(d, &e->version, "Version");
	if (!ret)
		ret = check_one_line(d, &e->architecture, "Architecture");
	if (!ret)
		ret = check_one_line(d, &e->status, "Status");
	if (!ret)
		ret = check_status(d, e);
	if (!ret && e->installed && !e->version.text.s)
		ret = refuse(&d->err, e->line, "package \"%s\" has no Version field",
			     quote(e->package.text).s);
	return ret ? ret : 1;
}

static int cut_off(struct dpkg_parser *d, const struct dpkg_entry *e)
{
	struct dpkg_str name = e->package.text;

	if (!name.s)
		return refuse(&d->err, e->line, "entry without a Package field, up to the end");
	return refuse(&d->err, d->line,
		      "the file ends inside the entry of \"%s\" (begun in line %lu): it is "
		      "truncated; each entry ends with an empty line",
		      quote(trim(name)).s, e->line);
}

int dpkg_next(struct dpkg_parser *d, struct dpkg_entry *ret_e)
{
	struct dpkg_entry e = { 0 };
	struct dpkg_value *v = NULL;
	struct dpkg_str l;
	unsigned long line;
	int ret;

	for (;;) {
		line = d->line;
		ret = next_line(d, &l);
		if (ret < 0)
			return ret;
		if (!ret)
			return e.line ? cut_off(d, &e) : 0;
		if (!l.len && !e.line)
			continue;
		if (!l.len)
			break;
		if (!is_blank(l.s[0])) {
			if (!e.line)
				e.line = line;
			ret = begin_field(d, &e, line, l, &v);
			if (ret)
				return ret;
			continue;
		}
		if (!e.line)
			return refuse(&d->err, line, "continuation line without a field before it");
		if (all_blank(l))
			return refuse(&d->err, line, "line of blanks inside an entry");
		if (v)
			v->text.len = l.s + l.len - v->text.s;
	}
	ret = finish(d, &e);
	if (ret > 0)
		*ret_e = e;
	return ret;
}

void dpkg_relations(struct dpkg_relations *r, const struct dpkg_value *v, struct dpkg_error *err)
{
	memset(r, 0, sizeof(*r));
	r->p = v->text.s;
	r->end = v->text.s ? v->text.s + v->text.len : NULL;
	r->line = v->line;
	r->err = err;
}

static char peek(struct dpkg_relations *r)
{
	while (r->p < r->end && (is_blank(*r->p) || *r->p == '\n' || *r->p == '\r')) {
		if (*r->p == '\n')
			r->line++;
		r->p++;
	}
	return r->p < r->end ? *r->p : 0;
}

static struct dpkg_str rest(const struct dpkg_relations *r)
{
	return (struct dpkg_str){ r->p, r->end - r->p };
}

/* "(>= 1.2)": checked for its shape only */
static int skip_version(struct dpkg_relations *r)
{
	const char *from;

	r->p++;
	if (!strchr("<=>", peek(r)) || r->p == r->end)
		return refuse(r->err, r->line, "expected <<, <=, =, >= or >>, found \"%s\"",
			      quote(rest(r)).s);
	while (r->p < r->end && strchr("<=>", *r->p))
		r->p++;
	peek(r);
	from = r->p;
	while (r->p < r->end && *r->p != ')' && (unsigned char)*r->p > ' ')
		r->p++;
	if (r->p == from || peek(r) != ')')
		return refuse(r->err, r->line, "expected a version and \")\", found \"%s\"",
			      quote((struct dpkg_str){ from, r->end - from }).s);
	r->p++;
	return 0;
}

/* "[amd64 i386]" or "<!nocheck>" */
static int skip_bracket(struct dpkg_relations *r, char close)
{
	const char *from = r->p;

	while (r->p < r->end && *r->p != close && *r->p != '\n')
		r->p++;
	if (r->p == r->end || *r->p != close)
		return refuse(r->err, r->line, "\"%c\" is missing after \"%s\"", close,
			      quote((struct dpkg_str){ from, r->end - from }).s);
	r->p++;
	return 0;
}

static int skip_qualifiers(struct dpkg_relations *r)
{
	int ret = 0;
	char c;

	if (r->p < r->end && *r->p == ':')
		for (r->p++; r->p < r->end && (is_alnum(*r->p) || *r->p == '-'); r->p++)
			;
	while (!ret && ((c = peek(r)) == '(' || c == '[' || c == '<'))
		ret = c == '(' ? skip_version(r) : skip_bracket(r, c == '[' ? ']' : '>');
	return ret;
}

int dpkg_relation_next(struct dpkg_relations *r, struct dpkg_str *ret_name, bool *ret_alternative)
{
	struct dpkg_str name;
	bool alternative = r->sep == '|';
	char c = peek(r);
	int ret;

	if (!c && !r->sep)
		return 0;
	name.s = r->p;
	while (r->p < r->end && is_name_char(*r->p))
		r->p++;
	name.len = r->p - name.s;
	if (!name.len || !is_alnum(name.s[0])) {
		if (name.len || c)
			return refuse(r->err, r->line, "expected a package name, found \"%s\"",
				      quote((struct dpkg_str){ name.s, r->end - name.s }).s);
		return refuse(r->err, r->line, "expected a package name after \"%c\"", r->sep);
	}
	ret = skip_qualifiers(r);
	if (ret)
		return ret;
	c = peek(r);
	if (c && c != ',' && c != '|')
		return refuse(r->err, r->line, "expected \",\" or \"|\", found \"%s\"",
			      quote(rest(r)).s);
	r->sep = c;
	if (c)
		r->p++;
	*ret_name = name;
	*ret_alternative = alternative;
	return 1;
}
