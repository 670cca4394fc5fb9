/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: spec.h - device specs
 *
 * spec := name [ "(" spec { "," spec } ")" ] [ ":" key "=" value { "," key "=" value } ]
 * name := [a-z][a-z0-9_-]*   key := the same   value := any but "," "(" ")" and control characters
 * Inside parentheses a "," before a key and "=" goes on with the options of the spec before it, any
 * other begins the next spec: a(b:k=1,l=2,c) has b with two options, and c.
 * Nesting at most 4, drivers at most 16, text at most 512 bytes. Parsing sets env_reason() with the
 * column.
 */
#ifndef BALUN_SPEC_H
#define BALUN_SPEC_H

#include "balun/driver.h"

#define SPEC_DEPTH   4
#define SPEC_DRIVERS 16

struct balun_options; /* one level: name, inner, keys; marks which keys were read */

int spec_parse(const char *text, struct balun_options **ret_opt); /* 0, -EINVAL, -ENOMEM */
void spec_free(struct balun_options *opt);
const char *spec_name(const struct balun_options *opt);
/* the first spec in the parentheses, and the one after a spec in the same parentheses; or NULL */
const struct balun_options *spec_inner(const struct balun_options *opt);
const struct balun_options *spec_next(const struct balun_options *opt);
/* after open(): a key that nobody read is an error: -EINVAL with reason, lists the known ones */
int spec_check_used(const struct balun_options *opt, const char *help);

#endif
