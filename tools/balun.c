// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: balun.c - the command line: dispatch and what the commands share
 */
#include "tool.h"
#include "bench/bench.h"
#include "tests/conformance/conform.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

static const struct command {
	const char *name;
	int (*main)(int argc, char **argv);
} commands[] = {
	{ "doctor", cmd_doctor }, { "devices", cmd_devices },  { "demo", cmd_demo },
	{ "run", cmd_run },	  { "top", cmd_top },	       { "trace", cmd_trace },
	{ "bench", bench_main },  { "conform", conform_main },
};

static const char help[] =
	"balun - memory of a process on devices that have memory of their own\n"
	"\n"
	"Any valid pointer of a process is a valid pointer on a Balun device. Pages move to the\n"
	"device's memory when the device uses them and come back when a CPU touches them.\n"
	"\n"
	"Usage: balun COMMAND [OPTION...] [ARGUMENT...]\n"
	"       balun COMMAND --help | balun --help | balun --version\n"
	"\n"
	"Commands, in the order in which a newcomer wants them:\n"
	"  doctor    what works on this machine, what does not, why, and what to do about it\n"
	"  demo      the package database of this machine, computed on by a device with its own\n"
	"            MMU and private memory that follows the program's own pointers\n"
	"  run       an unmodified program with a part of its memory on devices\n"
	"  top       running processes with Balun, and where their memory is\n"
	"  trace     what moves in one of them and why, event by event\n"
	"  devices   the drivers, their options, and what a device SPEC would give\n"
	"  bench     how fast it is, each figure beside the raw limit of this machine\n"
	"  conform   the test kit that every driver must pass, ours or yours\n"
	"\n"
	"Begin with:\n"
	"  balun doctor\n"
	"  balun demo\n"
	"  balun run --resident 64M -- PROGRAM\n"
	"  balun demo --hammer 4                  four CPU threads use the same graph meanwhile\n"
	"  balun conform --driver soft:mem=64M    needs no privileges with --engine sim\n"
	"\n"
	"A device SPEC is NAME[(SPEC)][:KEY=VALUE,...], as in \"soft:mem=256M,workers=2\" or\n"
	"\"trace(ram:mem=64M)\"; `balun devices` lists names and keys.\n"
	"\n"
	"Exit codes: 0 done; 1 failed, or something differs; 2 bad command line or bad input;\n"
	"3 not possible on this machine.\n"
	"\n"
	"The environment: BALUN_LOG=0..3 (errors .. debug) writes what the library does to\n"
	"standard error. More: man balun, libbalun(7).\n";

void tool_error(const char *cmd, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "balun%s%s: ", *cmd ? " " : "", cmd);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int tool_bad_option(const char *cmd, int argc, char **argv, int got)
{
	const char *word = optind > 0 && optind <= argc ? argv[optind - 1] : "";

	if (got == ':')
		tool_error(cmd, "option %s needs a value; see balun %s --help", word, cmd);
	else
		tool_error(cmd, "unknown option %s; see balun %s --help", word, cmd);
	return EXIT_USAGE;
}

uint64_t tool_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

void tool_json(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		unsigned char c = *s;

		if (c == '"' || c == '\\')
			fprintf(f, "\\%c", c);
		else if (c < 0x20)
			fprintf(f, "\\u%04x", c);
		else
			fputc(c, f);
	}
	fputc('"', f);
}

struct tool_size tool_size(uint64_t bytes)
{
	static const char unit[][4] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	struct tool_size t;
	double v = bytes;
	unsigned int u = 0;

	for (; v >= 1024; v /= 1024)
		u++;
	snprintf(t.s, sizeof(t.s), u && v != (uint64_t)v ? "%.1f %s" : "%.0f %s", v, unit[u]);
	return t;
}

int tool_exit_code(int err)
{
	switch (err) {
	case 0:
		return EXIT_OK;
	case -EINVAL:
	case -ENODEV:
		return EXIT_USAGE;
	case -EPERM:
	case -EACCES:
	case -EOPNOTSUPP:
	case -ENOSYS:
		return EXIT_IMPOSSIBLE;
	default:
		return EXIT_DIFFERS;
	}
}

static int run(int argc, char **argv)
{
	char *help_argv[] = { argv[0], "--help", NULL };
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(argv[0], commands[i].name))
			return commands[i].main(argc, argv);
		if (argc == 2 && !strcmp(argv[0], "help") && !strcmp(argv[1], commands[i].name)) {
			help_argv[0] = argv[1];
			return commands[i].main(2, help_argv);
		}
	}
	tool_error("",
		   "no command \"%s\"; there are doctor, demo, run, top, trace, devices, bench and "
		   "conform "
		   "(balun --help)",
		   argv[0]);
	return EXIT_USAGE;
}

/* output that did not reach its file is a failure like any other */
static int finish(int code)
{
	if (fflush(stdout) || ferror(stdout)) {
		tool_error("", "standard output: %s", strerror(errno));
		return code ? code : EXIT_DIFFERS;
	}
	return code;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fputs(help, stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    (argc == 2 && !strcmp(argv[1], "help"))) {
		fputs(help, stdout);
		return finish(EXIT_OK);
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("balun %s\n", balun_version());
		return finish(EXIT_OK);
	}
	return finish(run(argc - 1, argv + 1));
}
