// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Log, reasons and the last words: shared by env_user and env_sim. Nothing here allocates: printf
 * into buffers on the stack, one write().
 */
#include <stdlib.h>
#include <unistd.h>

#include "env/env_priv.h"

static int log_level = -1;

/* Racy on purpose: every thread that comes first computes the same value. */
static int log_level_get(void)
{
	int level = env_load_relaxed(&log_level);

	if (env_unlikely(level < 0)) {
		const char *s = getenv("BALUN_LOG");

		level = s && *s >= '0' && *s <= '9' ? *s - '0' : 0;
		env_store_relaxed(&log_level, level);
	}
	return level;
}

void env_log_write(const char *buf, size_t len)
{
	/* nothing sensible can be done when standard error is gone */
	ssize_t n = write(STDERR_FILENO, buf, len);

	(void)n;
}

void env_log(int level, const char *fmt, ...)
{
	static const char *const name[] = { "error", "warning", "info", "debug" };
	char buf[512];
	va_list ap;
	int n, m;

	if (level > log_level_get())
		return;
	if (level < 0)
		n = snprintf(buf, sizeof(buf), "balun: ");
	else
		n = snprintf(buf, sizeof(buf), "balun: %s: ", name[ENV_MIN(level, 3)]);
	va_start(ap, fmt);
	m = vsnprintf(buf + n, sizeof(buf) - n, fmt, ap);
	va_end(ap);
	n = ENV_MIN(n + ENV_MAX(m, 0), (int)sizeof(buf) - 2);
	if (buf[n - 1] != '\n')
		buf[n++] = '\n';
	env_log_write(buf, n);
}

void env_reason(const char *fmt, ...)
{
	char buf[ENV_REASON_BYTES]; /* an argument may be the old reason */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	memcpy(env_reason_buf(), buf, strnlen(buf, sizeof(buf) - 1) + 1);
}

const char *env_reason_get(void)
{
	return env_reason_buf();
}

void env_die(const char *what, const char *file, int line)
{
	char buf[512];

	snprintf(buf, sizeof(buf), "balun: %s:%d: assertion failed: %s\n", file, line, what);
	env_died(buf);
}
