/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * "balun conform": options, the list of cases, one process per case, the report.
 *
 * The runner itself never calls the library, so that every case starts in a process without
 * threads, spaces or state.
 */
#include "conform.h"
#include "kit.h"
#include "tools/tool.h"

#include <fnmatch.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct kit_case *const groups[] = {
	cases_map,    cases_copy,   cases_fail,	  cases_perm, cases_device, cases_close,
	cases_loss,   cases_vm,	    cases_moving, cases_fork, cases_hint,   cases_query,
	cases_thread, cases_memory, cases_api,	  cases_soft, cases_spill,  cases_coherent,
};

struct run {
	const char *driver, *engine, *so, *only;
	bool json, list;
	uint64_t seed, timeout_s;
	unsigned int passed, failed, skipped;
};

static const char usage[] =
	"usage: balun conform --driver SPEC [--engine NAME] [--so PATH] [--case NAME]\n"
	"                     [--seed S] [--timeout SECONDS] [--json] [--list]\n"
	"\n"
	"Runs every conformance case against a driver, each in a process of its own.\n"
	"  --driver SPEC   the driver, with options: ram, soft:mem=64M, trace(soft)\n"
	"  --engine NAME   uffd (default), kernel or sim\n"
	"  --so PATH       load the driver from a shared object first\n"
	"  --case NAME     only this case; may hold * and ?\n"
	"  --seed S        seed of random choices (default 1)\n"
	"  --timeout S     a case that takes longer has failed (default 60)\n"
	"  --json          one JSON object instead of lines; the totals go to stderr\n"
	"  --list          print the names of the cases\n"
	"Exit status: 0 nothing failed, 1 something did, 2 wrong usage or no such driver or "
	"engine.\n";

static int parse(int argc, char **argv, struct run *r)
{
	static const struct option options[] = {
		{ "driver", required_argument, NULL, 'd' },
		{ "engine", required_argument, NULL, 'e' },
		{ "so", required_argument, NULL, 'o' },
		{ "case", required_argument, NULL, 'c' },
		{ "seed", required_argument, NULL, 's' },
		{ "timeout", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },
		{ "list", no_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			r->driver = optarg;
			break;
		case 'e':
			r->engine = optarg;
			break;
		case 'o':
			r->so = optarg;
			break;
		case 'c':
			r->only = optarg;
			break;
		case 's':
			r->seed = strtoull(optarg, NULL, 0);
			break;
		case 't':
			r->timeout_s = strtoull(optarg, NULL, 0);
			break;
		case 'j':
			r->json = true;
			break;
		case 'l':
			r->list = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc || (!r->driver && !r->list) || !r->timeout_s || !r->seed) {
		fputs(usage, stderr);
		return 2;
	}
	return -1;
}

static void run_kit(struct run *r, struct kit *k)
{
	*k = (struct kit){ .driver = r->driver, .engine = r->engine, .so = r->so, .seed = r->seed };
}

/* waits for a child, at most @ms: its status, or -1 and it is killed */
static int wait_child(pid_t pid, uint64_t ms)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int status, n;

	if (fd < 0) {
		perror("balun conform: pidfd_open");
		exit(2);
	}
	do {
		n = poll(&p, 1, (int)ms);
	} while (n < 0 && errno == EINTR);
	close(fd);
	/* the group: what the case forked goes with it */
	if (n <= 0)
		kill(-pid, SIGKILL);
	waitpid(pid, &status, 0);
	kill(-pid, SIGKILL);
	return n > 0 ? status : -1;
}

static pid_t fork_child(void)
{
	pid_t pid;

	fflush(stdout);
	memset(kit_verdict, 0, sizeof(*kit_verdict));
	pid = fork();
	if (pid < 0) {
		perror("balun conform: fork");
		exit(2);
	}
	/* both sides: whichever runs first, the group exists before it is needed */
	setpgid(pid, pid);
	return pid;
}

static void report(struct run *r, const char *name, const char *result, const char *text,
		   uint64_t ns)
{
	static bool any;

	if (r->json) {
		printf("%s\n    {\"name\": \"%s\", \"result\": \"%s\", \"ms\": %.1f, \"what\": ",
		       any ? "," : "", name, result, ns / 1e6);
		tool_json(stdout, text);
		printf("}");
		any = true;
		return;
	}
	printf("%s %s%s%s\n", result, name, *text ? ": " : "", text);
	fflush(stdout);
}

static void run_case(struct run *r, const struct kit_case *c)
{
	uint64_t start = kit_now_ns();
	char text[512] = "";
	int status;
	pid_t pid = fork_child();

	if (!pid) {
		struct kit k;

		run_kit(r, &k);
		_exit(kit_run(c, &k));
	}
	status = wait_child(pid, r->timeout_s * 1000);
	if (kit_verdict->set == 1)
		snprintf(text, sizeof(text), "%s", kit_verdict->text);
	else if (status < 0)
		snprintf(text, sizeof(text), "hangs: not done after %llu s",
			 (unsigned long long)r->timeout_s);
	else if (WIFSIGNALED(status))
		snprintf(text, sizeof(text), "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		snprintf(text, sizeof(text), "exit status %d", WEXITSTATUS(status));
	if (*text) {
		r->failed++;
		report(r, c->name, "FAIL", text, kit_now_ns() - start);
	} else if (kit_verdict->set == 2) {
		r->skipped++;
		report(r, c->name, "skip", kit_verdict->text, kit_now_ns() - start);
	} else {
		r->passed++;
		report(r, c->name, "ok", "", kit_now_ns() - start);
	}
}

static void preflight_case(struct kit *k)
{
	(void)k;
}

/* can the driver be opened at all? Says so once instead of in every case */
static bool preflight(struct run *r)
{
	static const struct kit_case c = { "preflight", preflight_case, NULL, 0 };
	pid_t pid = fork_child();
	int status;

	if (!pid) {
		struct kit k;

		run_kit(r, &k);
		_exit(kit_run(&c, &k));
	}
	status = wait_child(pid, r->timeout_s * 1000);
	if (!status && !kit_verdict->set)
		return true;
	fprintf(stderr, "balun conform: cannot open %s on engine %s: %s\n", r->driver, r->engine,
		kit_verdict->set ? kit_verdict->text : "it crashed or hung");
	return false;
}

static bool wanted(const struct run *r, const struct kit_case *c)
{
	return !r->only || !fnmatch(r->only, c->name, 0);
}

static void run_all(struct run *r)
{
	const struct kit_case *c;
	size_t g;

	for (g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
		for (c = groups[g]; c->name; c++) {
			if (!wanted(r, c))
				continue;
			if (r->list)
				puts(c->name);
			else
				run_case(r, c);
		}
	}
}

int conform_main(int argc, char **argv)
{
	struct run r = { .engine = "uffd", .seed = 1, .timeout_s = 60 };
	int rc = parse(argc, argv, &r);

	if (rc >= 0)
		return rc;
	kit_verdict = mmap(NULL, sizeof(*kit_verdict), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (kit_verdict == MAP_FAILED) {
		perror("balun conform: mmap");
		return 2;
	}
	if (r.list) {
		run_all(&r);
		return 0;
	}
	if (!preflight(&r))
		return 2;
	if (r.json) {
		printf("{\n  \"driver\": ");
		tool_json(stdout, r.driver);
		printf(",\n  \"engine\": \"%s\",\n  \"seed\": %llu,\n  \"cases\": [", r.engine,
		       (unsigned long long)r.seed);
	}
	run_all(&r);
	if (r.json)
		printf("\n  ],\n  \"passed\": %u,\n  \"failed\": %u,\n  \"skipped\": %u\n}\n",
		       r.passed, r.failed, r.skipped);
	fflush(stdout);
	fprintf(r.json ? stderr : stdout, "%u passed, %u failed, %u skipped\n", r.passed, r.failed,
		r.skipped);
	if (r.only && !(r.passed + r.failed + r.skipped)) {
		fprintf(stderr, "balun conform: no case is named %s\n", r.only);
		return 2;
	}
	return r.failed ? 1 : 0;
}
