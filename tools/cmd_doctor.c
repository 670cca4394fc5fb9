// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: cmd_doctor.c - `balun doctor`: what works on this machine, what does not, why, what to do
 *
 * The engines say for themselves whether they work; the rest are the facts of the machine that
 * decide it, so that a person can see where to turn.
 */
#include "tool.h"
#include "balun/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CMD	  "doctor"
#define MAX_ROWS  48
#define WRAP	  96
#define TEST_SIZE (64 * BALUN_PAGE_SIZE)

enum state {
	STATE_OK,
	STATE_NOTE, /* works, but could be better */
	STATE_BAD,
};

/* one finding; @todo: what to do about it, or "" */
struct row {
	enum state state;
	char what[40], found[480], todo[256];
};

struct report {
	struct row row[MAX_ROWS];
	unsigned int n;
	bool real; /* an engine that serves this process works */
};

static const char help[] =
	"balun doctor - what works on this machine, what does not, why, and what to do about it\n"
	"\n"
	"Usage: balun doctor [--json]\n"
	"\n"
	"Probes every engine (and, where one works, moves 64 pages to a device and back), and "
	"shows\n"
	"the facts that decide it: kernel release, huge pages, the right to use userfaultfd,\n"
	"capabilities, seccomp. Changes nothing.\n"
	"\n"
	"  --json   machine-readable\n"
	"  --help   this\n"
	"\n"
	"Exit codes: 0 memory of real processes can be on devices; 1 an engine says that it works\n"
	"and does not; 2 bad command line; 3 only the simulator works here.\n";

static struct row *add(struct report *r, enum state state, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static struct row *add(struct report *r, enum state state, const char *what, const char *fmt, ...)
{
	struct row *row = &r->row[r->n < MAX_ROWS - 1 ? r->n++ : MAX_ROWS - 1];
	va_list ap;

	row->state = state;
	snprintf(row->what, sizeof(row->what), "%s", what);
	va_start(ap, fmt);
	vsnprintf(row->found, sizeof(row->found), fmt, ap);
	va_end(ap);
	return row;
}

static void todo(struct row *row, const char *text)
{
	snprintf(row->todo, sizeof(row->todo), "%s", text);
}

/* first line of a file; false: there is none */
static bool first_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(buf, size, f);

	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = 0;
	return ok;
}

/* the value of "Name:\tvalue" in /proc/self/status */
static bool self_status(const char *name, char *buf, size_t size)
{
	FILE *f = fopen("/proc/self/status", "re");
	size_t n = strlen(name);
	char line[256];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, n) || line[n] != ':')
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(buf, size, "%s", line + n + 1 + strspn(line + n + 1, " \t"));
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

/* ---- engines ---- */

static int round_trip(struct balun_space *space, bool sim, unsigned char *mem)
{
	struct balun_device *dev;
	struct balun_counts counts;
	unsigned char buf[BALUN_PAGE_SIZE];
	size_t i;
	int ret;

	ret = balun_device_open(space, "ram:mem=2M", &dev);
	if (!ret && sim)
		ret = balun_sim_mmap(space, (uintptr_t)mem, TEST_SIZE,
				     BALUN_SIM_READ | BALUN_SIM_WRITE);
	if (!ret && sim)
		ret = balun_sim_store(space, (uintptr_t)mem, mem, TEST_SIZE);
	if (!ret)
		ret = balun_migrate(space, mem, TEST_SIZE, dev, &counts);
	if (!ret && !counts.moved)
		return -EBUSY;
	for (i = 0; i < TEST_SIZE && !ret; i += sizeof(buf)) {
		if (sim)
			ret = balun_sim_load(space, (uintptr_t)mem + i, buf, sizeof(buf));
		else
			memcpy(buf, mem + i, sizeof(buf));
		if (!ret && (buf[0] != (unsigned char)(i >> BALUN_PAGE_SHIFT) || buf[1] != 0x5a))
			return -EILSEQ;
	}
	return ret;
}

/* 64 pages to a device and back: 0 or -errno */
static int self_test(const char *engine)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = engine };
	struct balun_space *space;
	unsigned char *mem;
	size_t i;
	int ret, end;

	ret = balun_space_create(&opts, &space);
	if (ret)
		return ret;
	mem = aligned_alloc(BALUN_PAGE_SIZE, TEST_SIZE);
	if (mem) {
		for (i = 0; i < TEST_SIZE; i++)
			mem[i] = i % BALUN_PAGE_SIZE ? 0x5a : i >> BALUN_PAGE_SHIFT;
		ret = round_trip(space, !strcmp(engine, "sim"), mem);
	} else {
		ret = -ENOMEM;
	}
	end = balun_space_destroy(space);
	free(mem);
	return ret ? ret : end;
}

static void check_engine(struct report *r, const struct balun_engine_info *info, bool *ret_broken)
{
	char what[40];
	int ret;

	snprintf(what, sizeof(what), "engine %s", info->name);
	if (!info->works) {
		todo(add(r, r->real ? STATE_NOTE : STATE_BAD, what, "%s", info->reason),
		     info->remedy);
		return;
	}
	ret = self_test(info->name);
	if (ret == -EBUSY && *info->reason) {
		/* devices reach memory where it is, and it says why no more */
		todo(add(r, STATE_NOTE, what, "works in part: %s; %s", info->how, info->reason),
		     info->remedy);
		return;
	}
	if (ret) {
		add(r, STATE_BAD, what, "should work, but 64 pages to a device and back: %s (%s)",
		    strerror(-ret), balun_reason());
		*ret_broken = true;
		return;
	}
	todo(add(r, *info->remedy ? STATE_NOTE : STATE_OK, what,
		 "works: %s; 64 pages went to a device and back%s%s", info->how,
		 *info->reason ? "; but " : "", info->reason),
	     info->remedy);
	if (strcmp(info->name, "sim"))
		r->real = true;
}

static bool check_engines(struct report *r)
{
	struct balun_engine_info info = { .size = sizeof(info) };
	bool broken = false;
	char what[40];
	unsigned int i;

	for (i = 0; !balun_engine_info(i, &info); i++) {
		check_engine(r, &info, &broken);
		snprintf(what, sizeof(what), "  %s features", info.name);
		if (*info.features)
			add(r, STATE_OK, what, "%s", info.features);
	}
	return broken;
}

/* ---- facts ---- */

static void check_kernel(struct report *r)
{
	struct utsname u;
	unsigned int major = 0, minor = 0;
	struct row *row;

	if (uname(&u))
		return;
	sscanf(u.release, "%u.%u", &major, &minor);
	row = add(r, STATE_OK, "kernel", "%s %s %s", u.sysname, u.release, u.machine);
	if (major < 6 || (major == 6 && minor < 8)) {
		row->state = STATE_NOTE;
		todo(row, "Linux 6.8 and later move pages (UFFDIO_MOVE); here they are copied");
	}
}

static void check_thp(struct report *r)
{
	char on[128], defrag[128] = "?";
	struct row *row;

	if (!first_line("/sys/kernel/mm/transparent_hugepage/enabled", on, sizeof(on))) {
		add(r, STATE_NOTE, "huge pages", "this kernel has none: 2 MiB move as 512 pages");
		return;
	}
	first_line("/sys/kernel/mm/transparent_hugepage/defrag", defrag, sizeof(defrag));
	row = add(r, STATE_OK, "huge pages", "enabled: %s; defrag: %s", on, defrag);
	if (strstr(on, "[never]")) {
		row->state = STATE_NOTE;
		todo(row, "whole 2 MiB pages move fastest: echo madvise > "
			  "/sys/kernel/mm/transparent_hugepage/enabled (as root)");
	}
}

static void check_sysctl(struct report *r)
{
	char v[32];

	if (!first_line("/proc/sys/vm/unprivileged_userfaultfd", v, sizeof(v)))
		add(r, STATE_NOTE, "vm.unprivileged_userfaultfd", "not there");
	else
		add(r, STATE_OK, "vm.unprivileged_userfaultfd", "%s: %s", v,
		    *v == '1' ? "anyone may use the system call"
			      : "the system call needs CAP_SYS_PTRACE");
}

/* opening it has no effect: the ioctl that makes a context is what counts, and engines do it */
static void check_node(struct report *r)
{
	static const char path[] = "/dev/userfaultfd";
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		add(r, STATE_OK, path, "may be opened");
	else
		add(r, STATE_NOTE, path, "%s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void check_caps(struct report *r)
{
	static const struct {
		unsigned int bit;
		const char *name;
	} caps[] = { { 19, "CAP_SYS_PTRACE" }, { 21, "CAP_SYS_ADMIN" }, { 14, "CAP_IPC_LOCK" } };
	char hex[32], text[128] = "";
	uint64_t have;
	size_t i;

	if (!self_status("CapEff", hex, sizeof(hex)))
		return;
	have = strtoull(hex, NULL, 16);
	for (i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s%s", i ? ", " : "",
			 have >> caps[i].bit & 1 ? "" : "no ", caps[i].name);
	add(r, have >> 19 & 1 ? STATE_OK : STATE_NOTE, "capabilities", "%s (user %u)", text,
	    geteuid());
}

static void check_seccomp(struct report *r)
{
	char mode[16];
	struct row *row;

	if (!self_status("Seccomp", mode, sizeof(mode)))
		return;
	if (*mode == '0') {
		add(r, STATE_OK, "seccomp", "no filter");
		return;
	}
	row = add(r, STATE_NOTE, "seccomp", "mode %s: a filter decides which system calls work",
		  mode);
	if (!r->real)
		todo(row, "a container's default filter refuses userfaultfd: allow it there "
			  "(docker run --security-opt seccomp=PROFILE, podman likewise)");
}

static void check_memory(struct report *r)
{
	long pages = sysconf(_SC_PHYS_PAGES), free_pages = sysconf(_SC_AVPHYS_PAGES);
	long page = sysconf(_SC_PAGESIZE);

	add(r, STATE_OK, "processors", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	add(r, STATE_OK, "memory", "%s, %s of it free", tool_size((uint64_t)pages * page).s,
	    tool_size((uint64_t)free_pages * page).s);
	if (page != (long)BALUN_PAGE_SIZE)
		add(r, STATE_BAD, "page size", "%ld bytes; Balun needs %lu", page, BALUN_PAGE_SIZE);
}

/* ---- output ---- */

static const char *state_name(enum state s)
{
	return s == STATE_OK ? "ok" : s == STATE_NOTE ? "note" : "NO";
}

/* words of @text in lines of WRAP columns, the first after @first, the others after @indent */
static void print_wrapped(const char *first, size_t indent, const char *text)
{
	size_t col = (size_t)printf("%s", first), n;

	for (; *(text += strspn(text, " ")); text += n) {
		n = strcspn(text, " ");
		if (col + 1 + n > WRAP && col > indent) {
			printf("\n%*s", (int)indent, "");
			col = indent;
		}
		col += printf("%s%.*s", col > indent ? " " : "", (int)n, text);
	}
	putchar('\n');
}

static void print_text(const struct report *r)
{
	char head[64];
	unsigned int i;

	for (i = 0; i < r->n; i++) {
		const struct row *row = &r->row[i];

		snprintf(head, sizeof(head), "%-5s %-28s ", state_name(row->state), row->what);
		print_wrapped(head, strlen(head), row->found);
		if (*row->todo)
			print_wrapped("      do: ", 10, row->todo);
	}
	if (r->real)
		printf("\nMemory of real processes can be on devices here. Try: balun demo\n");
	else
		printf("\nOnly the simulator works here. balun demo shows it; see \"do:\" for "
		       "more.\n");
}

static void print_json(const struct report *r)
{
	unsigned int i;

	printf("{\"version\": ");
	tool_json(stdout, balun_version());
	printf(", \"works\": %s, \"checks\": [", r->real ? "true" : "false");
	for (i = 0; i < r->n; i++) {
		printf("%s\n  {\"state\": \"%s\", \"what\": ", i ? "," : "",
		       r->row[i].state == STATE_BAD ? "no" : state_name(r->row[i].state));
		tool_json(stdout, r->row[i].what + strspn(r->row[i].what, " "));
		printf(", \"found\": ");
		tool_json(stdout, r->row[i].found);
		printf(", \"do\": ");
		tool_json(stdout, r->row[i].todo);
		printf("}");
	}
	printf("\n]}\n");
}

static int doctor(bool json)
{
	struct report *r = calloc(1, sizeof(*r));
	bool broken;
	int code;

	if (!r) {
		tool_error(CMD, "%s", strerror(ENOMEM));
		return EXIT_DIFFERS;
	}
	broken = check_engines(r);
	check_kernel(r);
	check_memory(r);
	check_thp(r);
	check_sysctl(r);
	check_node(r);
	check_caps(r);
	check_seccomp(r);
	(json ? print_json : print_text)(r);
	code = broken ? EXIT_DIFFERS : r->real ? EXIT_OK : EXIT_IMPOSSIBLE;
	free(r);
	return code;
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, ":jh", longopts, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(help, stdout);
			return EXIT_OK;
		default:
			return tool_bad_option(CMD, argc, argv, c);
		}
	}
	if (optind < argc) {
		tool_error(CMD, "takes no argument, but there is \"%s\"", argv[optind]);
		return EXIT_USAGE;
	}
	return doctor(json);
}
