/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Ways to make a process, times the state its parent's memory is in. */
#include "matrix.h"

#include <unistd.h>

#define LEN (3 * MIB)

static void verify_child(void *p)
{
	mx_verify(p, LEN, 1);
	mx_fill(p, LEN, 2);
	mx_verify(p, LEN, 2);
}

static void fork_away(struct mx *m)
{
	void *p = mx_away(m, LEN, 1);
	pid_t pid = fork();

	MX_CHECK(pid >= 0);
	if (!pid) {
		verify_child(p);
		_exit(0);
	}
	mx_verify(p, LEN, 1);
	mx_reap(pid);
	mx_verify(p, LEN, 1);
}

const struct mx_cell cells_fork[] = {
	{ "fork/fork/pages-away", fork_away, 0, 0, MX_FORK },
	{ NULL, NULL, 0, 0, 0 },
};
