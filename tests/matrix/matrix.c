/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The runner: options, the list of cells, one process per cell, the report. It never calls the
 * library itself, so that every cell starts in a process without threads, spaces or state.
 */
#include "matrix.h"

#include <fnmatch.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct mx_cell *const tables[] = { cells_fork, cells_threads, cells_syscalls,
						cells_outside, cells_loss };

/* turns a hang into a failure; generous, for a machine that does other things as well */
#if MX_TSAN || MX_ASAN
#define LIMIT_S (30 * 8)
#else
#define LIMIT_S 30
#endif

/* shared with every process of a cell; being shared, it never migrates */
static struct verdict {
	int set; /* 1 fail, 2 skip */
	char text[480];
} * verdict;

static const char usage[] =
	"usage: matrix [--driver SPEC] [--label NAME] [--case PATTERN] [--list]\n"
	"\n"
	"  --driver SPEC    the device (default soft)\n"
	"  --label NAME     what it is called in the names of cells (default: its spec)\n"
	"  --case PATTERN   only the cells whose name matches; may hold * and ?\n"
	"  --list           print the names of the cells\n"
	"Exit status: 0 nothing failed, 1 something did, 2 wrong usage, 77 no userfaultfd here.\n";

struct run {
	const char *driver, *label, *only;
	bool list;
	unsigned int passed, failed, skipped;
};

/* ---- verdicts ---- */

static void verdict_set(int what, const char *text)
{
	int none = 0;

	if (__atomic_compare_exchange_n(&verdict->set, &none, what, false, __ATOMIC_ACQ_REL,
					__ATOMIC_RELAXED))
		snprintf(verdict->text, sizeof(verdict->text), "%s", text);
}

void mx_fail(const char *file, int line, const char *fmt, ...)
{
	const char *slash = strrchr(file, '/');
	char what[400], text[480];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "%s at %.60s:%d", what, slash ? slash + 1 : file, line);
	verdict_set(1, text);
	_exit(1);
}

void mx_skip(const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	verdict_set(2, text);
	_exit(0);
}

/* ---- a cell's process ---- */

static struct balun_engine_info uffd(void)
{
	struct balun_engine_info info = { .size = sizeof(info) };
	unsigned int i;

	for (i = 0; !balun_engine_info(i, &info); i++)
		if (!strcmp(info.name, "uffd"))
			break;
	return info;
}

/* whether this process may have the event of a fork (CAP_SYS_PTRACE) */
static bool fork_event(void)
{
	struct balun_engine_info info = uffd();

	return info.works && strstr(info.features, "EVENT_FORK") &&
	       !strstr(info.features, "-EVENT_FORK");
}

static bool user_mode_only(void)
{
	return strstr(uffd().how, "user mode only");
}

bool mx_no_poison(void)
{
	return strstr(uffd().features, "-POISON");
}

static void needs(struct mx *m)
{
	unsigned int flags = m->cell->flags;

	if (flags & MX_USER && !getuid())
		MX_CHECK(!setresuid(65534, 65534, 65534) && !prctl(PR_SET_DUMPABLE, 1));
	if (flags & MX_USER && !user_mode_only())
		mx_skip("this user gets userfaultfd by %s here", uffd().how);
	if (flags & MX_KERNEL && user_mode_only())
		mx_skip("%s", uffd().reason);
	if (flags & MX_FORK_EVENT && !fork_event())
		mx_skip("without CAP_SYS_PTRACE a bare clone() is not seen");
	if (flags & MX_POISON && mx_no_poison())
		mx_skip("this kernel has no UFFDIO_POISON (Linux 6.6)");
	if (MX_TSAN && flags & MX_FORK)
		mx_skip("forks a process with threads, which TSan cannot follow");
}

static void __attribute__((noreturn)) cell_main(struct mx *m)
{
	needs(m);
	if (!(m->cell->flags & MX_NO_SPACE))
		mx_open(m);
	if (m->cell->flags & MX_SOFT && !mx_has_functions(m))
		mx_skip("the device runs no functions");
	m->cell->fn(m);
	if (m->space)
		mx_close(m);
	_exit(0);
}

static void preflight_fn(struct mx *m)
{
	(void)m;
}

/* ---- the report ---- */

/* waits for a child, at most LIMIT_S: its status, or -1 and it is killed */
static int wait_child(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int status, n;

	if (fd < 0) {
		perror("matrix: pidfd_open");
		exit(2);
	}
	do {
		n = poll(&p, 1, LIMIT_S * 1000);
	} while (n < 0 && errno == EINTR);
	close(fd);
	if (n <= 0)
		kill(-pid, SIGKILL);
	waitpid(pid, &status, 0);
	/* the group: what the cell forked goes with it */
	kill(-pid, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return n > 0 ? status : -1;
}

static bool copying(void)
{
	const char *s = getenv("BALUN_UFFD_COPY");

	return s && *s == '1';
}

/* runs the cell; what it says is in verdict, which stays clear if all is well */
static void run_process(const struct run *r, const struct mx_cell *c)
{
	struct mx m = { .cell = c, .driver = r->driver };
	int status;
	pid_t pid;

	m.copying = strstr(uffd().features, "-MOVE");
	fflush(stdout);
	memset(verdict, 0, sizeof(*verdict));
	pid = fork();
	if (pid < 0) {
		perror("matrix: fork");
		exit(2);
	}
	/* both sides: whichever runs first, the group exists before it is needed */
	setpgid(pid, pid);
	if (!pid)
		cell_main(&m);
	status = wait_child(pid);
	if (status < 0 && verdict->set != 1) {
		verdict->set = 1;
		snprintf(verdict->text, sizeof(verdict->text), "hangs: not done after %d s",
			 LIMIT_S);
	} else if (WIFSIGNALED(status) && verdict->set != 1) {
		verdict->set = 1;
		snprintf(verdict->text, sizeof(verdict->text), "killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	} else if (status && !verdict->set) {
		verdict->set = 1;
		snprintf(verdict->text, sizeof(verdict->text), "exit status %d",
			 WEXITSTATUS(status));
	}
}

static void run_cell(struct run *r, const struct mx_cell *c, const char *name)
{
	run_process(r, c);
	if (!verdict->set)
		printf("ok %s\n", name);
	else
		printf("%s %s: %s\n", verdict->set == 1 ? "FAIL" : "SKIP", name, verdict->text);
	fflush(stdout);
	r->passed += !verdict->set;
	r->failed += verdict->set == 1;
	r->skipped += verdict->set == 2;
}

static void run_all(struct run *r)
{
	const char *copy = copying() ? "-copy" : "";
	char name[160];
	size_t t, i;

	for (t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (i = 0; tables[t][i].name; i++) {
			snprintf(name, sizeof(name), "%s/%s%s", tables[t][i].name, r->label, copy);
			if (r->only && fnmatch(r->only, name, 0) &&
			    fnmatch(r->only, tables[t][i].name, 0))
				continue;
			if (r->list)
				puts(name);
			else
				run_cell(r, &tables[t][i], name);
		}
	}
}

static int parse(int argc, char **argv, struct run *r)
{
	static const struct option options[] = {
		{ "driver", required_argument, NULL, 'd' },
		{ "label", required_argument, NULL, 'n' },
		{ "case", required_argument, NULL, 'c' },
		{ "list", no_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd') {
			r->driver = optarg;
		} else if (c == 'n') {
			r->label = optarg;
		} else if (c == 'c') {
			r->only = optarg;
		} else if (c == 'l') {
			r->list = true;
		} else {
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (!r->label)
		r->label = r->driver;
	if (optind == argc)
		return -1;
	fputs(usage, stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct mx_cell preflight = { "preflight", preflight_fn, 0, 0, 0 };
	struct run r = { .driver = "soft" };
	int rc;

	if (argc > 1 && !strcmp(argv[1], "--exec"))
		return mx_exec_main(argc - 2, argv + 2);
	rc = parse(argc, argv, &r);
	if (rc >= 0)
		return rc;
	verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (verdict == MAP_FAILED) {
		perror("matrix: mmap");
		return 2;
	}
	if (!r.list) {
		/* orphans of a cell come to the runner, which ends them */
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		run_process(&r, &preflight);
		if (verdict->set) {
			printf("%s %s: %s\n", verdict->set == 1 ? "FAIL" : "SKIP", r.driver,
			       verdict->text);
			return verdict->set == 1 ? 1 : 77;
		}
	}
	run_all(&r);
	if (r.list)
		return 0;
	printf("%u passed, %u failed, %u skipped\n", r.passed, r.failed, r.skipped);
	if (!(r.passed + r.failed + r.skipped)) {
		fprintf(stderr, "matrix: no cell is named %s\n", r.only);
		return 2;
	}
	return r.failed ? 1 : 0;
}
