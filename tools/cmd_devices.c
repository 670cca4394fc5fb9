// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: cmd_devices.c - `balun devices`: which drivers there are, and what a spec gives
 */
#include "tool.h"
#include "balun/driver.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#define CMD "devices"

static const char help[] =
	"balun devices - the drivers, their options, and what a device SPEC would give\n"
	"\n"
	"Usage: balun devices [--engine NAME] [--json] [--so PATH] [SPEC]\n"
	"\n"
	"Without SPEC: every driver, with a line for each option: KEY=DEFAULT and what it does.\n"
	"With SPEC: opens that device in a simulated process (no privileges needed, nothing of "
	"this\n"
	"process moves) and prints what it is.\n"
	"\n"
	"A SPEC is NAME[(SPEC)][:KEY=VALUE[,KEY=VALUE...]], as in \"soft:mem=256M,workers=2\" or\n"
	"\"trace(ram:mem=64M)\". Sizes take K, M, G (powers of 1024), times ns, us, ms, s.\n"
	"\n"
	"  --engine NAME   kernel: the drivers that are loaded as modules, and SPEC in a space of "
	"balun.ko\n"
	"  --json          machine-readable\n"
	"  --so PATH       load a driver from a shared object first (see docs/driver-guide.md)\n"
	"  --help          this\n"
	"\n"
	"Exit codes: 0 done; 1 failed; 2 bad command line, bad SPEC or bad PATH.\n";

static const struct {
	uint64_t bit;
	const char *name, *what;
} caps[] = {
	{ BALUN_CAP_MMU, "mmu", "has page tables" },
	{ BALUN_CAP_HOST_MEMORY, "host-memory", "its memory is host pages: moved, not copied" },
	{ BALUN_CAP_PEER, "peer", "other devices can copy to and from it directly" },
	{ BALUN_CAP_ALLOC, "alloc", "manages its memory itself" },
	{ BALUN_CAP_TWO_PHASE, "two-phase", "flushes overlap with those of other devices" },
	{ BALUN_CAP_WRAPPER, "wrapper", "wraps another driver" },
	{ BALUN_CAP_COHERENT, "coherent", "CPUs address its memory: pages there stay mapped" },
};
#define NR_CAPS (sizeof(caps) / sizeof(caps[0]))

static void print_help_lines(const char *text)
{
	size_t n;

	for (; *text; text += n + (text[n] == '\n')) {
		n = strcspn(text, "\n");
		printf("    %.*s\n", (int)n, text);
	}
}

/* driver number @i of @engine; false: no more, or *ret_code */
static bool driver(const char *engine, unsigned int i, struct balun_engine_driver *ret_drv,
		   int *ret_code)
{
	int ret;

	*ret_drv = (struct balun_engine_driver){ .size = sizeof(*ret_drv) };
	ret = balun_engine_driver(engine, i, ret_drv);
	if (ret && ret != -ENOENT) {
		tool_error(CMD, "%s", balun_reason());
		*ret_code = tool_exit_code(ret);
	}
	return !ret;
}

static int list_text(const char *engine)
{
	struct balun_engine_driver drv;
	int code = EXIT_OK;
	unsigned int i;

	for (i = 0; driver(engine, i, &drv, &code); i++) {
		printf("%s%s\n", i ? "\n" : "", drv.name);
		print_help_lines(drv.help);
	}
	return code;
}

/* one option of a driver's help: "KEY=DEFAULT  what it does" */
static void json_option(const char *line, size_t n)
{
	char key[64] = "", dflt[64] = "", what[256] = "", copy[400];
	size_t k, d;

	snprintf(copy, sizeof(copy), "%.*s", (int)n, line);
	k = strcspn(copy, "= ");
	snprintf(key, sizeof(key), "%.*s", (int)k, copy);
	d = strcspn(copy + k, " ");
	if (d)
		snprintf(dflt, sizeof(dflt), "%.*s", (int)d - 1, copy + k + 1);
	snprintf(what, sizeof(what), "%.255s", copy + k + d + strspn(copy + k + d, " "));
	printf("{\"key\": ");
	tool_json(stdout, key);
	printf(", \"default\": ");
	tool_json(stdout, dflt);
	printf(", \"help\": ");
	tool_json(stdout, what);
	printf("}");
}

static int list_json(const char *engine)
{
	struct balun_engine_driver drv;
	int code = EXIT_OK;
	const char *at;
	unsigned int i;
	size_t n;

	printf("{\"drivers\": [");
	for (i = 0; driver(engine, i, &drv, &code); i++) {
		printf("%s\n  {\"name\": ", i ? "," : "");
		tool_json(stdout, drv.name);
		printf(", \"options\": [");
		for (at = drv.help; *at; at += n + (at[n] == '\n')) {
			n = strcspn(at, "\n");
			printf("%s", at == drv.help ? "" : ", ");
			json_option(at, n);
		}
		printf("]}");
	}
	printf("\n]}\n");
	return code;
}

static void show_text(const char *spec, const struct balun_device_info *info)
{
	unsigned int i;

	printf("%s\n", spec);
	printf("  driver  %s\n", info->name);
	printf("  memory  %s\n", tool_size(info->mem_total).s);
	for (i = 0; i < NR_CAPS; i++)
		if (info->caps & caps[i].bit)
			printf("  %-12s %s\n", caps[i].name, caps[i].what);
}

static void show_json(const char *spec, const struct balun_device_info *info)
{
	const char *sep = "";
	unsigned int i;

	printf("{\"spec\": ");
	tool_json(stdout, spec);
	printf(", \"name\": ");
	tool_json(stdout, info->name);
	printf(", \"mem_total\": %" PRIu64 ", \"caps\": [", info->mem_total);
	for (i = 0; i < NR_CAPS; i++) {
		if (!(info->caps & caps[i].bit))
			continue;
		printf("%s\"%s\"", sep, caps[i].name);
		sep = ", ";
	}
	printf("]}\n");
}

static int show(const char *engine, const char *spec, bool json)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = engine };
	struct balun_device_info info = { .size = sizeof(info) };
	struct balun_space *space;
	struct balun_device *dev;
	int ret;

	ret = balun_space_create(&opts, &space);
	if (ret) {
		tool_error(CMD, "%s", balun_reason());
		return EXIT_DIFFERS;
	}
	ret = balun_device_open(space, spec, &dev);
	if (!ret)
		ret = balun_device_info(dev, &info);
	if (ret)
		tool_error(CMD, "%s: %s", spec, balun_reason());
	else
		(json ? show_json : show_text)(spec, &info);
	balun_space_destroy(space);
	return tool_exit_code(ret);
}

int cmd_devices(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "engine", required_argument, NULL, 'e' },
		{ "json", no_argument, NULL, 'j' },
		{ "so", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *engine = "sim";
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, ":jh", longopts, NULL)) != -1) {
		switch (c) {
		case 'e':
			engine = optarg;
			break;
		case 'j':
			json = true;
			break;
		case 's':
			if (!balun_driver_load(optarg))
				break;
			tool_error(CMD, "%s", balun_reason());
			return EXIT_USAGE;
		case 'h':
			fputs(help, stdout);
			return EXIT_OK;
		default:
			return tool_bad_option(CMD, argc, argv, c);
		}
	}
	if (argc - optind > 1) {
		tool_error(CMD, "one SPEC at most; \"%s\" is a second", argv[optind + 1]);
		return EXIT_USAGE;
	}
	if (optind < argc)
		return show(engine, argv[optind], json);
	return json ? list_json(engine) : list_text(engine);
}
