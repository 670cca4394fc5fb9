/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: spec.h - device specs
 *
 * spec := name [ "(" spec ")" ] [ ":" key "=" value { "," key "=" value } ]
 * name := [a-z][a-z0-9_-]*   key := the same   value := any but "," "(" ")" and control characters
 * Nesting at most 4, text at most 512 bytes. Parsing sets env_reason() with the column.
 */
#ifndef BALUN_SPEC_H
#define BALUN_SPEC_H

#include "balun/driver.h"

#define SPEC_DEPTH 4

struct balun_options; /* one level: name, inner, keys; marks which keys were read */

int spec_parse(const char *text, struct balun_options **ret_opt); /* 0, -EINVAL, -ENOMEM */
void spec_free(struct balun_options *opt);
const char *spec_name(const struct balun_options *opt);
const struct balun_options *spec_inner(const struct balun_options *opt); /* or NULL */
/* after open(): a key that nobody read is an error: -EINVAL with reason, lists the known ones */
int spec_check_used(const struct balun_options *opt, const char *help);

#endif
