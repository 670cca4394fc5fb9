// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * In the VM: the calls of /dev/balun (balun/uapi.h) with what no library would send.
 *
 *   ioctl_fuzz [SEED [CALLS [ROUNDS]]]
 *
 * First checks of single wrong inputs (ioctl_bad.c), each with the error it must get. Then CALLS
 * random calls by threads that share files, while memory changes under them. Then ROUNDS of a
 * process that is killed in the middle of that, with a child that has its file longer. Whoever runs
 * it reads the kernel's log after it. Needs the drivers ram, dmirror, trace and inject.
 */
#include "ioctl_fuzz.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES	 3
#define HANDLES	 64
#define THREADS	 4
#define ARENA_AT ((void *)0x200000000000) /* where nobody else is put, so holes stay holes */
#define ARENA	 (32UL << 20)
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* what the threads of a process share; racy on purpose */
static struct {
	int fd[FILES];
	__u64 handle[HANDLES];
	char *arena;
	int zero;
	long calls_left;
} all;

static const char *const specs[] = {
	"ram:mem=4M",
	"ram:mem=2M,coherent=1",
	"dmirror:mem=4M",
	"dmirror:mem=4M,coherent=1",
	"trace(ram:mem=2M):quiet=1",
	"inject(ram:mem=4M):op=copy,rate=3",
	"inject(dmirror:mem=4M):op=map,every=5",
	"inject(ram:mem=4M):nomove=1",
	"ram:mem=1",
	"ram:mem=1024G",
	"ram:mem=18446744073709551615",
	"dmirror:mem=900G",
	"ram:nonsense=1",
	"nobody",
	"trace(trace(ram:mem=2M):quiet=1):quiet=1",
	"((((",
	"",
};

/* splitmix64 */
uint64_t fuzz_rand(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static uint64_t below(uint64_t *r, uint64_t n)
{
	return fuzz_rand(r) % n;
}

/* ---- values ---- */

static __u64 any_address(uint64_t *r)
{
	switch (below(r, 16)) {
	case 0:
		return 0;
	case 1:
		return fuzz_rand(r);
	case 2:
		return 0xffff888000000000ULL + below(r, 1UL << 30);
	case 3:
		return (1ULL << 47) - below(r, 3) * 4096;
	default:
		return (uintptr_t)all.arena + below(r, ARENA);
	}
}

static __u64 any_length(uint64_t *r)
{
	/* all of an address space would be the program's own stacks too: ioctl_bad.c has it */
	static const __u64 odd[] = { 0, 1, 4095, 4096, 1ULL << 21, 1ULL << 28, 1ULL << 63, ~0ULL };

	return below(r, 8) ? below(r, 1UL << below(r, 24)) : odd[below(r, COUNT(odd))];
}

static __u64 any_handle(uint64_t *r)
{
	return below(r, 16) ? all.handle[below(r, HANDLES)] : below(r, 8) ? 0 : fuzz_rand(r);
}

/* a struct to be filled, a part of it perhaps with anything */
union any {
	struct balun_uapi_head head;
	struct balun_uapi_info info;
	struct balun_uapi_driver driver;
	struct balun_uapi_open open;
	struct balun_uapi_device device;
	struct balun_uapi_migrate migrate;
	struct balun_uapi_range range;
	struct balun_uapi_evict evict;
	struct balun_uapi_list list;
	struct balun_uapi_stats stats;
	struct balun_uapi_command command;
	unsigned char bytes[4096];
};

static void fill_command(struct balun_uapi_command *c, uint64_t *r, char *buf)
{
	static const char *const names[] = {
		"dmirror", "ram", "trace", "inject", "soft", "nobody"
	};
	/* struct balun_dmirror_cmd, near enough */
	__u64 arg[7] = { 56, below(r, 10), any_address(r) & ~4095ULL, 4096 * below(r, 64) };

	memcpy(buf, arg, sizeof(arg));
	c->handle = any_handle(r);
	strcpy(c->driver, names[below(r, COUNT(names))]);
	c->arg = below(r, 16) ? (uintptr_t)buf : any_address(r);
	c->arg_len = below(r, 8) ? sizeof(arg) : below(r, 5000);
	c->data = any_address(r);
	c->data_len = below(r, 8) ? arg[3] : any_length(r);
	c->code = below(r, 8) ? 0 : fuzz_rand(r);
	c->data_use = below(r, 4);
	c->unused = !below(r, 32);
}

static size_t fill(union any *a, unsigned int nr, uint64_t *r, char *buf)
{
	switch (nr) {
	case _IOC_NR(BALUN_IOC_INFO):
		return sizeof(a->info);
	case _IOC_NR(BALUN_IOC_DRIVER):
		a->driver.index = below(r, 10);
		return sizeof(a->driver);
	case _IOC_NR(BALUN_IOC_OPEN):
		a->open.spec = (uintptr_t)specs[below(r, below(r, 4) ? 8 : COUNT(specs))];
		return sizeof(a->open);
	case _IOC_NR(BALUN_IOC_CLOSE):
	case _IOC_NR(BALUN_IOC_DEVICE):
		a->device.handle = any_handle(r);
		return sizeof(a->device);
	case _IOC_NR(BALUN_IOC_MIGRATE):
		a->migrate.addr = any_address(r);
		a->migrate.len = any_length(r);
		a->migrate.handle = any_handle(r);
		return sizeof(a->migrate);
	case _IOC_NR(BALUN_IOC_PIN):
	case _IOC_NR(BALUN_IOC_UNPIN):
	case _IOC_NR(BALUN_IOC_PREFETCH):
	case _IOC_NR(BALUN_IOC_ADVISE):
	case _IOC_NR(BALUN_IOC_FAULT):
		a->range.addr = any_address(r);
		a->range.len = any_length(r);
		a->range.handle = nr == _IOC_NR(BALUN_IOC_PIN) || nr == _IOC_NR(BALUN_IOC_UNPIN)
					  ? 0
					  : any_handle(r);
		if (nr == _IOC_NR(BALUN_IOC_ADVISE) || nr == _IOC_NR(BALUN_IOC_FAULT))
			a->range.arg = below(r, 6);
		return sizeof(a->range);
	case _IOC_NR(BALUN_IOC_EVICT):
		a->evict.handle = any_handle(r);
		a->evict.bytes = any_length(r);
		return sizeof(a->evict);
	case _IOC_NR(BALUN_IOC_QUERY):
	case _IOC_NR(BALUN_IOC_LOST):
		a->list.addr = any_address(r);
		a->list.len = nr == _IOC_NR(BALUN_IOC_QUERY) ? any_length(r) : 0;
		a->list.extents = below(r, 8) ? (uintptr_t)buf : any_address(r);
		a->list.n = below(r, 8) ? below(r, 128) : any_length(r);
		if (a->list.extents == (uintptr_t)buf && a->list.n > 128)
			a->list.n = 128;
		return sizeof(a->list);
	case _IOC_NR(BALUN_IOC_STATS):
		a->stats.stats = (uintptr_t)buf;
		a->stats.len = below(r, 4096);
		return sizeof(a->stats);
	case _IOC_NR(BALUN_IOC_COMMAND):
		fill_command(&a->command, r, buf);
		return sizeof(a->command);
	default:
		return sizeof(a->head);
	}
}

/* ---- calls ---- */

static void one_call(uint64_t *r, char *buf)
{
	/* the end of a space is rare, so that something goes on in it */
	unsigned int nr = below(r, 22);
	unsigned long cmd = below(r, 200) ? _IO(BALUN_IOC, nr) : fuzz_rand(r) & 0xffffffff;
	union any a;
	void *arg = &a;
	size_t size, i;

	if (nr == _IOC_NR(BALUN_IOC_DESTROY) && below(r, 200))
		return;
	/* slow under emulation: the kernel makes and unmakes pages for device memory */
	if ((nr == _IOC_NR(BALUN_IOC_OPEN) || nr == _IOC_NR(BALUN_IOC_CLOSE)) && below(r, 8))
		return;
	memset(&a, 0, sizeof(a));
	size = fill(&a, nr, r, buf);
	if (!below(r, 16))
		for (i = below(r, 8); i; i--)
			a.bytes[below(r, size)] = fuzz_rand(r);
	a.head.size = below(r, 32) ? size : below(r, 5000);
	a.head.flags = below(r, 64) ? 0 : fuzz_rand(r);
	a.head.reason = below(r, 2) ? (uintptr_t)buf + 8192 : any_address(r);
	if (!below(r, 64))
		arg = (void *)(uintptr_t)any_address(r);
	if (!ioctl(all.fd[below(r, FILES)], cmd, arg) && cmd == BALUN_IOC_OPEN && arg == &a)
		all.handle[below(r, HANDLES)] = a.open.handle;
}

/* the program changes its memory, and its files */
static void one_change(uint64_t *r)
{
	char *at = all.arena + (below(r, ARENA) & ~4095UL), *to;
	size_t len = 4096 * (1 + below(r, 600));
	int fd;

	if (at + len > all.arena + ARENA)
		len = all.arena + ARENA - at;
	switch (below(r, 8)) {
	case 0:
		munmap(at, len);
		break;
	case 1:
		mprotect(at, len, below(r, 4));
		break;
	case 2:
		madvise(at, len, MADV_DONTNEED);
		break;
	case 3:
		to = all.arena + (below(r, ARENA - len) & ~4095UL);
		mremap(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		break;
	case 4:
		fd = open(BALUN_UAPI_NODE, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			break;
		/* closes the file that had the number, perhaps in the middle of calls */
		dup3(fd, all.fd[below(r, FILES)], O_CLOEXEC);
		close(fd);
		break;
	default:
		mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0);
		/* a CPU's touch, by a system call: what others do to it meanwhile is no crash */
		if (read(all.zero, at, len) < 0 && errno != EFAULT)
			perror("read");
	}
}

static void *thread_main(void *seed)
{
	uint64_t r = (uintptr_t)seed;
	char *buf = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buf == MAP_FAILED)
		return NULL;
	while (__atomic_fetch_sub(&all.calls_left, 1, __ATOMIC_RELAXED) > 0) {
		if (below(&r, 16))
			one_call(&r, buf);
		else
			one_change(&r);
	}
	return NULL;
}

static int start_files(void)
{
	struct balun_uapi_head h = { .size = sizeof(h) };
	int i;

	for (i = 0; i < FILES; i++) {
		all.fd[i] = open(BALUN_UAPI_NODE, O_RDWR | O_CLOEXEC);
		if (all.fd[i] < 0 || ioctl(all.fd[i], BALUN_IOC_CREATE, &h)) {
			perror(BALUN_UAPI_NODE);
			return -1;
		}
	}
	all.zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	all.arena = mmap(ARENA_AT, ARENA, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	return all.arena == MAP_FAILED ? -1 : 0;
}

static int random_calls(uint64_t seed, long calls)
{
	pthread_t t[THREADS];
	uint64_t r = seed;
	int i, n = 0;

	if (start_files())
		return 1;
	all.calls_left = calls;
	for (i = 0; i < THREADS; i++)
		n += !pthread_create(&t[n], NULL, thread_main, (void *)(uintptr_t)fuzz_rand(&r));
	for (i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < FILES; i++)
		close(all.fd[i]);
	return n == THREADS ? 0 : 1;
}

/*
 * A process makes random calls until it is killed. Its child has the files too, and outlives it:
 * the spaces end in that child, or, in every other round, with the process itself.
 */
static int killed_round(uint64_t *r)
{
	int hold[2], status;
	char byte;
	pid_t pid;

	if (pipe(hold))
		return 1;
	pid = fork();
	if (!pid) {
		close(hold[1]);
		if (start_files())
			_exit(1);
		if (below(r, 2) && !fork()) {
			/* until the test closes its end */
			_exit(read(hold[0], &byte, 1) < 0);
		}
		close(hold[0]);
		all.calls_left = 1L << 40;
		for (status = 0; status < THREADS - 1; status++) {
			pthread_t t;

			pthread_create(&t, NULL, thread_main, (void *)(uintptr_t)fuzz_rand(r));
		}
		thread_main((void *)(uintptr_t)fuzz_rand(r));
		_exit(1);
	}
	close(hold[0]);
	/* any moment will do: there is something to wait for in none of them */
	usleep(below(r, 300000));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	close(hold[1]);
	/* its child is ours now; when it has ended, its files have too */
	while (waitpid(-1, NULL, 0) > 0)
		;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return 0;
	printf("FAIL the process to be killed ended by itself, status %#x\n", status);
	return 1;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, r = seed;
	long calls = argc > 2 ? strtol(argv[2], NULL, 0) : 200000;
	long rounds = argc > 3 ? strtol(argv[3], NULL, 0) : 20;
	int status = 0, failed;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	printf("seed %llu, %ld calls, %ld rounds\n", (unsigned long long)seed, calls, rounds);
	failed = bad_calls();
	/* in a process of its own, whose end is a part of it */
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(random_calls(seed, calls));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		printf("FAIL random calls: status %#x\n", status);
		failed++;
	}
	while (rounds-- > 0)
		failed += killed_round(&r);
	printf("%s\n", failed ? "failed" : "ok");
	return !!failed;
}
