/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What the user-space parts of env share among themselves; nobody else includes it. */
#ifndef BALUN_ENV_PRIV_H
#define BALUN_ENV_PRIV_H

#include "env/env.h"

#if defined(__SANITIZE_ADDRESS__)
#define ENV_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ENV_ASAN 1
#endif
#endif
#ifndef ENV_ASAN
#define ENV_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define ENV_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ENV_TSAN 1
#endif
#endif
#ifndef ENV_TSAN
#define ENV_TSAN 0
#endif

/* the text of balun_reason() of the running (virtual) thread */
#define ENV_REASON_BYTES 512
char *env_reason_buf(void);
/* what follows after an assertion has failed */
void env_died(const char *text) __attribute__((noreturn));
void env_log_write(const char *buf, size_t len);

#endif
