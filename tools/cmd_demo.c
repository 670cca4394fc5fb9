// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: cmd_demo.c - `balun demo`: the main job on real input
 *
 * The package database becomes a malloc'ed graph. Functions on the soft accelerator follow its
 * pointers and write results into its structs; the CPU reads them, changes the graph, and the
 * device runs again. Everything is compared with what a CPU alone computes.
 */
#include "demo.h"
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define CMD	     DEMO_CMD
#define DEFAULT_FILE "/var/lib/dpkg/status"
#define DEFAULT_SPEC "soft:mem=256M"
#define FILE_MAX     (1UL << 30)

struct options {
	const char *file, *spec, *engine;
	unsigned int hammers;
};

static const char help[] =
	"balun demo - a device follows the pointers of this process\n"
	"\n"
	"Usage: balun demo [OPTION...] [FILE]\n"
	"\n"
	"Reads FILE, Debian's package database (default " DEFAULT_FILE "; a Packages file of\n"
	"an archive will do), into an ordinary malloc'ed graph of structs, strings and pointers.\n"
	"Functions on the soft accelerator, which has its own page tables and private memory, "
	"follow\n"
	"the same pointers: they find the package of every dependency by name, count what each\n"
	"package needs directly or not, compute a PageRank, and write all that into the same\n"
	"structs. The CPU reads it, changes the graph (frees and reallocates packages, adds and\n"
	"removes dependencies), and the device runs again. The result is compared with that of a\n"
	"CPU alone.\n"
	"\n"
	"Counted are packages of which more than configuration files is installed. A dependency\n"
	"leads to the first of its alternatives that is there, as a package or as a name that a\n"
	"package provides; versions and architectures are not compared.\n"
	"\n"
	"  --device SPEC   a soft device (default " DEFAULT_SPEC ")\n"
	"  --engine NAME   uffd or sim (default: the first that works here)\n"
	"  --hammer N      N CPU threads read and write the graph all the time and check what "
	"they\n"
	"                  read (at most 64)\n"
	"  --help          this\n"
	"\n"
	"Exit codes: 0 everything agrees; 1 something differs or failed; 2 bad command line or "
	"bad\n"
	"FILE; 3 not possible on this machine.\n";

/* ---- input ---- */

static int read_all(FILE *f, char **ret_buf, size_t *ret_len)
{
	size_t len = 0, room = 1 << 16;
	char *buf = malloc(room), *p;

	while (buf && len < FILE_MAX) {
		len += fread(buf + len, 1, room - len, f);
		if (len < room)
			break;
		p = realloc(buf, room *= 2);
		if (!p)
			free(buf);
		buf = p;
	}
	if (!buf)
		return -ENOMEM;
	if (ferror(f) || len >= FILE_MAX) {
		free(buf);
		return ferror(f) ? -errno : -EFBIG;
	}
	*ret_buf = buf;
	*ret_len = len;
	return 0;
}

/* exit code */
static int load_file(const struct options *o, struct graph **ret_g)
{
	const char *name = o->file ? o->file : DEFAULT_FILE;
	struct dpkg_error err;
	char *buf = NULL;
	size_t len = 0;
	FILE *f;
	int ret;

	f = fopen(name, "re");
	if (!f && !o->file && errno == ENOENT) {
		tool_error(CMD, "%s: there is none here: not a Debian system? Name a FILE", name);
		return EXIT_IMPOSSIBLE;
	}
	ret = f ? read_all(f, &buf, &len) : -errno;
	if (f)
		fclose(f);
	if (ret) {
		tool_error(CMD, "%s: %s", name, strerror(-ret));
		return ret == -ENOMEM ? EXIT_DIFFERS : EXIT_USAGE;
	}
	ret = graph_load(buf, len, ret_g, &err);
	free(buf);
	if (ret == -EINVAL)
		fprintf(stderr, "%s:%lu: %s\n", name, err.line, err.what);
	else if (ret)
		tool_error(CMD, "%s: %s", name, strerror(-ret));
	return !ret ? EXIT_OK : ret == -EINVAL ? EXIT_USAGE : EXIT_DIFFERS;
}

/* ---- set-up ---- */

/* The first of uffd and sim that works; if that is sim, says why. What else works here runs no
 * functions of ours: it must neither be taken nor keep sim from being so. */
static const char *pick_engine(void)
{
	struct balun_engine_info info = { .size = sizeof(info) };
	unsigned int i;

	for (i = 0; !balun_engine_info(i, &info); i++) {
		if (strcmp(info.name, "uffd"))
			continue;
		if (info.works)
			return "uffd";
		printf("note: the engine \"uffd\" cannot be used here: %s\n", info.reason);
		if (*info.remedy)
			printf("      what to do: %s\n", info.remedy);
	}
	printf("      This is the demo on the simulator instead: the same device and functions; "
	       "the\n"
	       "      program's objects are mirrored at their addresses in a simulated "
	       "process.\n\n");
	return "sim";
}

static void each_count(void *ctx, void *obj, size_t size)
{
	uint64_t *count = ctx;

	(void)obj;
	count[0]++;
	count[1] += size;
}

static void print_head(const struct options *o, struct demo *d)
{
	struct graph *g = d->o.g;
	uint64_t count[2] = { 0 };

	graph_each(g, each_count, count);
	printf("%s: %lu packages, %lu dependencies; %lu entries are not installed\n",
	       o->file ? o->file : DEFAULT_FILE, (unsigned long)g->npkgs,
	       (unsigned long)graph_ndeps(g), (unsigned long)g->nskipped);
	printf("graph: %lu objects of malloc(), %s\n", (unsigned long)count[0],
	       tool_size(count[1]).s);
	printf("device: %s, %u workers; engine: %s\n\n", o->spec, d->o.nworkers,
	       balun_space_engine(d->space));
}

static void objects_free(struct demo_objects *o)
{
	unsigned int i;

	for (i = 0; o->job && o->job->scratch && i < o->nworkers; i++) {
		free(o->job->scratch[i].seen);
		free(o->job->scratch[i].queue);
	}
	if (o->job)
		free(o->job->scratch);
	free(o->job);
}

static int objects_create(struct demo_objects *o)
{
	struct job *job = o->job = calloc(1, sizeof(*job));
	unsigned int i;

	if (!job)
		return -ENOMEM;
	job->all = o->g->all;
	job->bucket = o->g->bucket;
	job->npkgs = o->g->npkgs;
	job->nbuckets = o->g->nbuckets;
	job->scratch = calloc(o->nworkers, sizeof(*job->scratch));
	for (i = 0; job->scratch && i < o->nworkers; i++) {
		job->scratch[i].seen = calloc(job->npkgs, sizeof(uint32_t));
		job->scratch[i].queue = calloc(job->npkgs, sizeof(struct pkg *));
		if (!job->scratch[i].seen || !job->scratch[i].queue)
			return -ENOMEM;
	}
	return job->scratch ? 0 : -ENOMEM;
}

/* exit code */
static int open_device(struct demo *d, const struct options *o)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = o->engine };
	int ret;

	if (!opts.engine)
		opts.engine = pick_engine();
	ret = balun_space_create(&opts, &d->space);
	if (ret) {
		tool_error(CMD, "%s", balun_reason());
		return tool_exit_code(ret);
	}
	ret = balun_device_open(d->space, o->spec, &d->dev);
	if (ret) {
		tool_error(CMD, "device %s: %s", o->spec, balun_reason());
		return tool_exit_code(ret);
	}
	ret = balun_soft_workers(d->dev);
	if (ret <= 0) {
		tool_error(CMD, "device %s: not a soft device; only those run functions (%s)",
			   o->spec, DEFAULT_SPEC);
		return EXIT_USAGE;
	}
	d->o.nworkers = ret;
	return EXIT_OK;
}

/* exit code */
static int run_demo(struct demo *d, const struct options *o)
{
	struct balun_stats st = { .size = sizeof(st) };
	int ret;

	ret = objects_create(&d->o);
	if (!ret)
		ret = demo_mem_init(&d->mem,
				    !strcmp(balun_space_engine(d->space), "sim") ? d->space : NULL);
	if (ret) {
		tool_error(CMD, "%s", strerror(-ret));
		goto out_objects;
	}
	print_head(o, d);
	ret = demo_run_both(d, o->hammers);
	if (ret >= 0 && !balun_stats(d->space, &st))
		demo_report_stats(&st);
	demo_mem_destroy(&d->mem);
out_objects:
	objects_free(&d->o);
	return ret ? EXIT_DIFFERS : EXIT_OK;
}

static int demo(const struct options *o)
{
	struct demo d = { .started = tool_now_ns() };
	int code, ret;

	code = load_file(o, &d.o.g);
	if (code)
		return code;
	code = open_device(&d, o);
	if (code) {
		balun_space_destroy(d.space);
		graph_free(d.o.g);
		return code;
	}
	code = run_demo(&d, o);
	ret = balun_space_destroy(d.space);
	graph_free(d.o.g);
	if (ret) {
		tool_error(CMD, "end of the space: %s", strerror(-ret));
		code = EXIT_DIFFERS;
	}
	printf("\n%s\n", code ? "FAILED" : "device and CPU agree in everything");
	return code;
}

static int parse_number(const char *s, unsigned int *ret_n)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	if (*s < '0' || *s > '9' || *end || n > DEMO_HAMMERS_MAX)
		return -EINVAL;
	*ret_n = n;
	return 0;
}

int cmd_demo(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "engine", required_argument, NULL, 'e' },
		{ "hammer", required_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct options o = { .spec = DEFAULT_SPEC };
	int c;

	while ((c = getopt_long(argc, argv, ":d:e:n:h", longopts, NULL)) != -1) {
		switch (c) {
		case 'd':
			o.spec = optarg;
			break;
		case 'e':
			o.engine = optarg;
			break;
		case 'n':
			if (!parse_number(optarg, &o.hammers))
				break;
			tool_error(CMD, "--hammer takes a number from 0 to %d, not \"%s\"",
				   DEMO_HAMMERS_MAX, optarg);
			return EXIT_USAGE;
		case 'h':
			fputs(help, stdout);
			return EXIT_OK;
		default:
			return tool_bad_option(CMD, argc, argv, c);
		}
	}
	if (argc - optind > 1) {
		tool_error(CMD, "one FILE at most; \"%s\" is a second", argv[optind + 1]);
		return EXIT_USAGE;
	}
	if (o.engine && !strcmp(o.engine, "kernel")) {
		tool_error(CMD,
			   "the engine \"kernel\" runs no functions of this program, only those "
			   "of its module; take uffd or sim");
		return EXIT_IMPOSSIBLE;
	}
	if (optind < argc)
		o.file = argv[optind];
	return demo(&o);
}
