/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: tool.h - what the commands of `balun` share
 */
#ifndef BALUN_TOOLS_TOOL_H
#define BALUN_TOOLS_TOOL_H

#include "balun/balun.h"

#include <stdio.h>

/* exit codes, documented in --help and balun(1) */
#define EXIT_OK		0
#define EXIT_DIFFERS	1 /* failed, or something differs */
#define EXIT_USAGE	2 /* bad command line or bad input */
#define EXIT_IMPOSSIBLE 3 /* not possible on this machine */

int cmd_doctor(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_trace(int argc, char **argv);

/* "balun CMD: text" on standard error */
void tool_error(const char *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* EXIT_USAGE for getopt's '?' and ':' */
int tool_bad_option(const char *cmd, int argc, char **argv, int got);
/* CLOCK_MONOTONIC */
uint64_t tool_now_ns(void);
/* a JSON string with its quotes */
void tool_json(FILE *f, const char *s);
/* "412.0 KiB" */
struct tool_size {
	char s[24];
};
struct tool_size tool_size(uint64_t bytes);
/* the exit code for what balun_space_create() or balun_device_open() returned */
int tool_exit_code(int err);

#endif
