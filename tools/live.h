/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: live.h - processes with Balun, as they tell of themselves
 *
 * What balun/live.h says, from the side of who asks. What comes from another process is checked
 * here: whose it is, that numbers are in range, that names are text.
 */
#ifndef BALUN_TOOLS_LIVE_H
#define BALUN_TOOLS_LIVE_H

#include "balun/live.h"

#include <stdbool.h>
#include <sys/types.h>

#define LIVE_NAME 108 /* of a socket */
#define LIVE_MAX  1024

/* a space of a process */
struct live_space {
	pid_t pid;
	uint32_t nth;
	char comm[32];
	char socket[LIVE_NAME];
	uint64_t resident; /* anonymous memory of the process in RAM; Balun's own too */
	struct balun_live look;
};

/* the sockets of processes with Balun, of user @uid or, for root, of all: how many; -errno */
int live_sockets(uid_t uid, char (*ret_name)[LIVE_NAME], unsigned int max);
/* the connection, to one question; *ret_pid: of who answers. -errno as live_ask() */
int live_connect(const char *socket, pid_t *ret_pid);
int live_send(int fd, uint32_t what, uint32_t nth, uint32_t mib); /* 0 or -errno */
/*
 * Asks for space @nth. 0; -ENOENT there is none; -EPERM refused, or who answers is not who the name
 * says; -EPROTO another version; -ECONNREFUSED it is gone
 */
int live_ask(const char *socket, uint32_t nth, struct live_space *ret);
/* all spaces of the processes in @pid[@n] (NULL: of all of this user): how many, or -errno with
 * *ret_which the process it is about */
int live_look(const pid_t *pid, unsigned int n, struct live_space *ret, unsigned int max,
	      pid_t *ret_which);
/* what is in device memory */
uint64_t live_away(const struct balun_live *l);
/* the time below which @share of those counted lie, ns; 0: none was counted */
uint64_t live_quantile(const struct balun_hist *h, double share);

#endif
