/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: dpkg.h - reader of Debian's package database (/var/lib/dpkg/status, or a Packages file)
 *
 * A pull parser over a buffer: no allocation, results are slices of the buffer. Strict where it
 * tells a truncated or foreign file from a good one: every entry ends with an empty line, every
 * line is a field or the continuation of one, no control characters, relations parse.
 */
#ifndef BALUN_TOOLS_DPKG_H
#define BALUN_TOOLS_DPKG_H

#include <stdbool.h>
#include <stddef.h>

/* a slice of the buffer; not terminated; s == NULL: absent */
struct dpkg_str {
	const char *s;
	size_t len;
};

/* a value that may be folded over several lines, and the line that it begins on */
struct dpkg_value {
	struct dpkg_str text;
	unsigned long line;
};

struct dpkg_error {
	unsigned long line;
	char what[224];
};

/**
 * struct dpkg_entry - one package
 * @line: its first line
 * @installed: there is more of it on the machine than configuration files. Without a Status field
 *             (Packages files have none) true.
 */
struct dpkg_entry {
	unsigned long line;
	struct dpkg_value package, version, architecture, status;
	struct dpkg_value depends, pre_depends, provides;
	bool installed;
};

struct dpkg_parser {
	const char *p, *end;
	unsigned long line; /* of *p */
	struct dpkg_error err;
};

void dpkg_begin(struct dpkg_parser *d, const char *buf, size_t len);
/* next entry: 1; 0 at the end; -EINVAL: d->err says where and what */
int dpkg_next(struct dpkg_parser *d, struct dpkg_entry *ret_e);

/* the relations of a Depends, Pre-Depends or Provides value, one name after the other */
struct dpkg_relations {
	const char *p, *end;
	unsigned long line;
	char sep; /* what stood before *p: 0 at the start, ',' or '|' */
	struct dpkg_error *err;
};

void dpkg_relations(struct dpkg_relations *r, const struct dpkg_value *v, struct dpkg_error *err);
/* next name: 1, and whether it is an alternative to the one before; 0 at the end; -EINVAL: r->err
 */
int dpkg_relation_next(struct dpkg_relations *r, struct dpkg_str *ret_name, bool *ret_alternative);

#endif
