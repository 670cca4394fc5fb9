/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: conform.h - the conformance kit, as the command line tool calls it
 */
#ifndef BALUN_CONFORM_H
#define BALUN_CONFORM_H

/** conform_main() - "balun conform"; @argv[0] is its name. Return: exit status 0, 1 or 2 (usage) */
int conform_main(int argc, char **argv);

#endif
