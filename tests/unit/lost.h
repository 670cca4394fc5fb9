/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What a kernel does not have, for tests that take what it has instead. */
#ifndef LOST_H
#define LOST_H

#include <balun/balun.h>
#include <signal.h>
#include <string.h>

/* of userfaultfd, as "MOVE" */
static inline bool lacks(const char *feature)
{
	struct balun_engine_info info = { .size = sizeof(info) };
	const char *at;
	unsigned int i;

	for (i = 0; !balun_engine_info(i, &info); i++)
		if (!strcmp(info.name, "uffd"))
			break;
	at = strstr(info.features, feature);
	return !at || (at > info.features && at[-1] == '-');
}

/* a touch of what is lost */
static inline int lost_signal(void)
{
	return lacks("POISON") ? SIGSEGV : SIGBUS;
}

#endif
