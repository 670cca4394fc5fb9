/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What the user-space parts of env share among themselves; nobody else includes it. */
#ifndef BALUN_ENV_PRIV_H
#define BALUN_ENV_PRIV_H

#include "env/env.h"

/* the text of balun_reason() of the running (virtual) thread */
#define ENV_REASON_BYTES 512
char *env_reason_buf(void);
/* what follows after an assertion has failed */
void env_died(const char *text) __attribute__((noreturn));
void env_log_write(const char *buf, size_t len);

#endif
