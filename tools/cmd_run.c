// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * `balun run`: begins a program with two libraries before it, says what it may have of RAM, and
 * reports. What these libraries do is in run/.
 */
#include "tool.h"
#include "run/run.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char help[] =
	"usage: balun run [OPTION...] [--] PROGRAM [ARG...]\n"
	"\n"
	"Runs an unmodified program with a part of its memory on devices. What it has not used "
	"for\n"
	"a while goes to them, and comes back when it is touched. No root, no swap, no module.\n"
	"\n"
	"  --resident SIZE     keep at most so much of its memory in RAM (8M, 2G, ...)\n"
	"  --device SPEC       where the rest goes; again for more, in order of preference\n"
	"                      (default: the first of lz4, file and ram that can be opened)\n"
	"  --chaos RATE[,SEED] move RATE random pages a second to the devices and back: tests\n"
	"  --follow            programs that it begins run with Balun too (the default)\n"
	"  --no-follow         they run without it\n"
	"  --stats FILE        write what happened as JSON, at the end\n"
	"  --or-plain          where Balun cannot work, run the program without it\n"
	"  --quiet             no line at the end\n"
	"  --help              this text\n"
	"\n"
	"The limit is for each process by itself. Exit code and signals are the program's; 2 bad\n"
	"options, 3 Balun cannot work here, 127 there is no such program, 126 it cannot be run.\n"
	"\n"
	"  balun run --resident 64M -- python3 job.py\n"
	"  balun run --resident 1G --device lz4 --device file:path=/var/tmp -- ./simulate\n";

struct options {
	uint64_t resident, chaos, seed;
	const char *device[RUN_DEVICES], *stats;
	unsigned int ndevices;
	bool no_follow, or_plain, quiet;
};

static int bad(const char *what, const char *value)
{
	tool_error("run", "%s: \"%s\"; see balun run --help", what, value);
	return EXIT_USAGE;
}

/* "64M"; 0 is no size */
static bool parse_size(const char *s, uint64_t *ret)
{
	static const char unit[] = "KMGT";
	const char *u;
	char *end;

	errno = 0;
	*ret = strtoull(s, &end, 10);
	if (end == s || errno || *s == '-')
		return false;
	if (*end && (u = strchr(unit, *end))) {
		unsigned int shift = 10 * (u - unit + 1);

		if (*ret >> (63 - shift))
			return false;
		*ret <<= shift;
		end++;
	}
	return !*end && *ret;
}

static bool parse_chaos(const char *s, struct options *o)
{
	char *end;

	o->seed = 1;
	o->chaos = strtoull(s, &end, 10);
	if (*end == ',' && end[1])
		o->seed = strtoull(end + 1, &end, 0);
	return !*end && o->chaos && *s != '-';
}

/* -1: go on; else the exit code */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option option[] = {
		{ "resident", required_argument, NULL, 'r' },
		{ "device", required_argument, NULL, 'd' },
		{ "chaos", required_argument, NULL, 'c' },
		{ "stats", required_argument, NULL, 's' },
		{ "no-follow", no_argument, NULL, 'n' },
		{ "follow", no_argument, NULL, 'f' },
		{ "or-plain", no_argument, NULL, 'p' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+:", option, NULL)) != -1) {
		switch (c) {
		case 'r':
			if (!parse_size(optarg, &o->resident) || o->resident < 8UL << 20)
				return bad("--resident takes a size of 8M or more", optarg);
			break;
		case 'd':
			if (o->ndevices == RUN_DEVICES || strlen(optarg) >= RUN_SPEC)
				return bad("too many devices, or too long", optarg);
			o->device[o->ndevices++] = optarg;
			break;
		case 'c':
			if (!parse_chaos(optarg, o))
				return bad("--chaos takes pages a second, and a seed", optarg);
			break;
		case 's':
			o->stats = optarg;
			break;
		case 'n':
		case 'f':
			o->no_follow = c == 'n';
			break;
		case 'p':
			o->or_plain = true;
			break;
		case 'q':
			o->quiet = true;
			break;
		case 'h':
			fputs(help, stdout);
			return EXIT_OK;
		default:
			return tool_bad_option("run", argc, argv, c);
		}
	}
	if (optind == argc) {
		tool_error("run", "which program? See balun run --help");
		return EXIT_USAGE;
	}
	if (!o->resident && !o->chaos) {
		tool_error("run", "how much of it in RAM? Give --resident SIZE (or --chaos RATE)");
		return EXIT_USAGE;
	}
	return -1;
}

/* ---- can it be done? ---- */

/* the file that exec would run, in @ret (PATH_MAX); false: there is none */
static bool find_program(const char *name, char *ret)
{
	const char *path = getenv("PATH") ?: "/usr/local/bin:/usr/bin:/bin", *end;

	if (strchr(name, '/'))
		return snprintf(ret, PATH_MAX, "%s", name) < PATH_MAX && !access(ret, F_OK);
	for (;; path = end + 1) {
		end = strchrnul(path, ':');
		if (snprintf(ret, PATH_MAX, "%.*s/%s", end == path ? 1 : (int)(end - path),
			     end == path ? "." : path, name) < PATH_MAX &&
		    !access(ret, X_OK))
			return true;
		if (!*end)
			return false;
	}
}

/* of an ELF file: does the dynamic linker load it? It is who preloads. */
static const char *elf_reason(int fd, const Elf64_Ehdr *e)
{
	Elf64_Phdr p;
	int i;

	if (e->e_ident[EI_CLASS] != ELFCLASS64)
		return "it is a program of 32 bits";
	for (i = 0; i < e->e_phnum; i++) {
		if (pread(fd, &p, sizeof(p), e->e_phoff + i * sizeof(p)) != sizeof(p))
			break;
		if (p.p_type == PT_INTERP)
			return NULL;
	}
	return "it is statically linked, so nothing can be loaded with it";
}

/* why Balun cannot work in this program, or NULL */
static const char *program_reason(const char *file, int depth)
{
	char head[256] = "", cap[64], *s;
	const char *why = NULL;
	struct stat st;
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	Elf64_Ehdr e = { 0 };

	if (fd < 0) /* unreadable: the dynamic linker treats it as secure only if it is setuid */
		return NULL;
	if (fstat(fd, &st) || pread(fd, head, sizeof(head) - 1, 0) < 4)
		head[0] = 0;
	if ((st.st_mode & S_ISUID && st.st_uid != geteuid()) ||
	    (st.st_mode & S_ISGID && st.st_gid != getegid()))
		why = "it is setuid or setgid, and such programs take no preloaded library";
	else if (geteuid() && fgetxattr(fd, "security.capability", cap, sizeof(cap)) > 0)
		why = "it has file capabilities, and such programs take no preloaded library";
	else if (!memcmp(head, ELFMAG, SELFMAG) && pread(fd, &e, sizeof(e), 0) == sizeof(e))
		why = elf_reason(fd, &e);
	close(fd);
	if (why || memcmp(head, "#!", 2) || depth == 4)
		return why;
	s = head + 2 + strspn(head + 2, " \t");
	s[strcspn(s, " \t\n")] = 0;
	return program_reason(s, depth + 1);
}

/* does the engine do all that a program needs which knows nothing of Balun? */
static bool engine_suits(void)
{
	struct balun_engine_info info = { .size = sizeof(info) };
	unsigned int i;

	for (i = 0; !balun_engine_info(i, &info); i++) {
		if (strcmp(info.name, "uffd") || !info.works || !*info.reason)
			continue;
		tool_error("run", "%s; %s", info.reason, info.remedy);
		return false;
	}
	return true;
}

/* opens what the program will open: an error is one of the command line, not of the program */
static int try_devices(struct options *o)
{
	const struct balun_space_opts opts = { .size = sizeof(opts), .engine = "uffd" };
	static const char *const usual[] = { "lz4", "file", "ram" };
	struct balun_space *space;
	struct balun_device *dev;
	unsigned int i;
	int err;

	if (!engine_suits())
		return EXIT_IMPOSSIBLE;
	err = balun_space_create(&opts, &space);
	if (err) {
		tool_error("run", "%s", balun_reason());
		return EXIT_IMPOSSIBLE;
	}
	for (i = 0; !o->ndevices && i < sizeof(usual) / sizeof(usual[0]); i++)
		if (!balun_device_open(space, usual[i], &dev))
			o->device[o->ndevices++] = usual[i];
	for (i = 0; i < o->ndevices && !err; i++)
		err = balun_device_open(space, o->device[i], &dev);
	if (err)
		tool_error("run", "%s: %s", o->device[i - 1], balun_reason());
	balun_space_destroy(space);
	return err ? tool_exit_code(err) : 0;
}

/* ---- the libraries ---- */

static bool is_path(const char *fmt, const char *dir, const char *file, char *ret)
{
	return snprintf(ret, PATH_MAX, fmt, dir, file) < PATH_MAX && !access(ret, R_OK);
}

/* in the build folder, or as installed; both beside each other in LD_PRELOAD */
static int preload(void)
{
	static const char file[] = "libbalun-run.so";
	char lib[PATH_MAX], ours[PATH_MAX], *end;
	const char *before = getenv("LD_PRELOAD");
	char all[3 * PATH_MAX];
	Dl_info info;

	if (!dladdr((void *)balun_version, &info) || !realpath(info.dli_fname, lib)) {
		tool_error("run", "libbalun.so is not to be found");
		return EXIT_IMPOSSIBLE;
	}
	snprintf(all, sizeof(all), "%s", lib);
	end = strrchr(all, '/');
	*end = 0;
	if (!is_path("%s/run/%s", all, file, ours) && !is_path("%s/balun/%s", all, file, ours)) {
		tool_error("run", "there is no %s beside %s: is all of Balun installed?", file,
			   lib);
		return EXIT_IMPOSSIBLE;
	}
	if (strpbrk(ours, " :") || strpbrk(lib, " :")) {
		tool_error("run", "%s: a path with a space or a colon cannot be preloaded", lib);
		return EXIT_IMPOSSIBLE;
	}
	snprintf(all, sizeof(all), "%s:%s%s%s", ours, lib, before && *before ? ":" : "",
		 before && *before ? before : "");
	return setenv("LD_PRELOAD", all, 1) ? EXIT_IMPOSSIBLE : 0;
}

static struct run_shared *shared_make(const struct options *o)
{
	int fd = memfd_create("balun-run", MFD_CLOEXEC);
	int log = memfd_create("balun-run-log", MFD_CLOEXEC);
	struct run_shared *s = MAP_FAILED;
	char path[64];
	unsigned int i;

	if (fd >= 0 && log >= 0 && !ftruncate(fd, sizeof(*s)))
		s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED) {
		tool_error("run", "no shared memory: %s", strerror(errno));
		return NULL;
	}
	s->resident = o->resident;
	s->chaos = o->chaos;
	s->chaos_seed = o->seed;
	s->follow = !o->no_follow;
	s->ndevices = o->ndevices;
	for (i = 0; i < o->ndevices; i++)
		snprintf(s->device[i], RUN_SPEC, "%s", o->device[i]);
	s->launcher = getpid();
	s->log_fd = log;
	s->magic = RUN_MAGIC;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	setenv(RUN_ENV, path, 1);
	return s;
}

/* ---- the program ---- */

static volatile pid_t child;

/* what was sent to us is for it; what comes from the terminal it gets by itself */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_code <= 0 && child > 0)
		kill(child, sig);
}

static const int passed[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH
};
#define NR_PASSED (sizeof(passed) / sizeof(passed[0]))

/* begins it and waits for its end: the status, or -1 and *ret_err why it did not begin */
static int run_program(const char *file, char **argv, int *ret_err)
{
	struct sigaction sa = { .sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_RESTART },
			 was[NR_PASSED];
	int pipe_fd[2], status = 0;
	pid_t parent = getpid();
	unsigned int i;

	*ret_err = 0;
	if (pipe2(pipe_fd, O_CLOEXEC)) {
		*ret_err = errno;
		return -1;
	}
	for (i = 0; i < NR_PASSED; i++) {
		sigaction(passed[i], NULL, &was[i]);
		if (was[i].sa_handler != SIG_IGN)
			sigaction(passed[i], &sa, NULL);
	}
	fflush(NULL);
	child = fork();
	if (!child) {
		for (i = 0; i < NR_PASSED; i++)
			sigaction(passed[i], &was[i], NULL);
		/* who kills us means the program */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			execv(file, argv);
		i = errno;
		if (write(pipe_fd[1], &i, sizeof(i)) < 0)
			_exit(126);
		_exit(127);
	}
	close(pipe_fd[1]);
	if (child < 0)
		*ret_err = errno;
	else if (read(pipe_fd[0], ret_err, sizeof(*ret_err)) <= 0)
		*ret_err = 0;
	close(pipe_fd[0]);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	child = 0;
	return *ret_err ? -1 : status;
}

/* ---- what happened ---- */

static struct run_slot add_up(const struct run_shared *s, unsigned int *ret_n)
{
	struct run_slot all = { 0 };
	unsigned int i;

	*ret_n = 0;
	for (i = 0; i < s->nslots && i < RUN_SLOTS; i++) {
		const struct run_slot *p = &s->slot[i];

		*ret_n += p->on;
		if (p->peak > all.peak)
			all.peak = p->peak;
		all.out += p->out;
		all.home += p->home;
		all.faults += p->faults;
		all.fault_ns += p->fault_ns;
		all.lost += p->lost;
		all.full_ns += p->full_ns;
		if (!p->on && p->why[0] && !all.why[0])
			memcpy(all.why, p->why, sizeof(all.why));
	}
	return all;
}

/* what Balun said in the processes: errors, and what BALUN_LOG asks for */
static void say_log(int fd)
{
	char buf[4096];
	off_t at = 0;
	ssize_t n;

	for (; (n = pread(fd, buf, sizeof(buf), at)) > 0; at += n)
		fwrite(buf, 1, n, stderr);
}

static void say(const struct run_shared *s)
{
	unsigned int n;
	struct run_slot a = add_up(s, &n);

	if (a.why[0])
		tool_error("run", "a process ran without Balun: %s", a.why);
	if (!a.out) {
		fprintf(stderr, "balun run: never above the limit: nothing was moved\n");
		return;
	}
	fprintf(stderr,
		"balun run: peak %s resident, %s moved out, %s came home, %llu touches waited %.2f "
		"s",
		tool_size(a.peak).s, tool_size(a.out).s, tool_size(a.home).s,
		(unsigned long long)a.faults, a.fault_ns / 1e9);
	if (n > 1)
		fprintf(stderr, "; %u processes", n);
	if (a.full_ns)
		fprintf(stderr, "; above the limit for %.1f s: no more could be moved out",
			a.full_ns / 1e9);
	if (a.lost)
		fprintf(stderr, "; %llu PAGES LOST", (unsigned long long)a.lost);
	fputc('\n', stderr);
}

static void json_slot(FILE *f, const struct run_slot *p)
{
	fprintf(f, "{\"pid\":%u,\"comm\":", p->pid);
	tool_json(f, p->comm);
	fprintf(f,
		",\"on\":%s,\"peak\":%llu,\"resident\":%llu,\"away\":%llu,\"out\":%llu,\"home\":%"
		"llu,"
		"\"faults\":%llu,\"fault_ns\":%llu,\"full_ns\":%llu,\"lost\":%llu}",
		p->on ? "true" : "false", (unsigned long long)p->peak,
		(unsigned long long)p->resident, (unsigned long long)p->away,
		(unsigned long long)p->out, (unsigned long long)p->home,
		(unsigned long long)p->faults, (unsigned long long)p->fault_ns,
		(unsigned long long)p->full_ns, (unsigned long long)p->lost);
}

/* @f: opened before the program began, so that a bad name is told then; what fails now is only
 * said: the exit code is the program's */
static void write_stats(FILE *f, const struct run_shared *s, int status, uint64_t ns)
{
	unsigned int i;
	int err;

	fprintf(f, "{\"status\":%d,\"ns\":%llu,\"resident_limit\":%llu,\"processes\":[", status,
		(unsigned long long)ns, (unsigned long long)s->resident);
	for (i = 0; i < s->nslots && i < RUN_SLOTS; i++) {
		fputs(i ? ",\n" : "\n", f);
		json_slot(f, &s->slot[i]);
	}
	fputs("]}\n", f);
	err = ferror(f);
	if (fclose(f) || err)
		tool_error("run", "--stats: what happened is not written: %s", strerror(errno));
}

/* ends as the program did */
static int end_as(int status)
{
	const struct rlimit none = { 0, 0 };

	if (!WIFSIGNALED(status))
		return WEXITSTATUS(status);
	setrlimit(RLIMIT_CORE, &none); /* its core is written */
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	return 128 + WTERMSIG(status);
}

static int not_begun(const char *name, int err)
{
	tool_error("run", "%s: %s", name, strerror(err));
	return err == ENOENT ? 127 : 126;
}

int cmd_run(int argc, char **argv)
{
	struct options o = { 0 };
	struct run_shared *shared = NULL;
	FILE *stats = NULL;
	char file[PATH_MAX];
	const char *why;
	uint64_t t0, ns;
	int code = parse(argc, argv, &o), status, err;

	if (code >= 0)
		return code;
	argv += optind;
	if (!find_program(argv[0], file))
		return not_begun(argv[0], ENOENT);
	why = program_reason(file, 0);
	if (why)
		tool_error("run", "%s cannot be run with Balun: %s", argv[0], why);
	code = why ? EXIT_IMPOSSIBLE : try_devices(&o);
	if (!code)
		code = preload();
	if (code == EXIT_USAGE || (code && !o.or_plain))
		return code;
	if (!code && !(shared = shared_make(&o)))
		return EXIT_IMPOSSIBLE;
	if (shared && o.stats && !(stats = fopen(o.stats, "we"))) {
		tool_error("run", "--stats %s: %s", o.stats, strerror(errno));
		return EXIT_USAGE;
	}
	t0 = tool_now_ns();
	status = run_program(file, argv, &err);
	ns = tool_now_ns() - t0;
	if (status < 0)
		return not_begun(argv[0], err);
	if (shared)
		say_log(shared->log_fd);
	if (shared && !o.quiet)
		say(shared);
	if (stats)
		write_stats(stats, shared, status, ns);
	return end_as(status);
}
