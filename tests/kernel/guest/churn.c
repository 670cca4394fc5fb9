// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * In the VM: memory that changes in every way while pages travel, every byte checked.
 *
 *   churn [SECONDS [SEED]]
 *
 * Chunks of a few pages belong to a thread each, which knows what is in them; those of all threads
 * lie side by side, so that what moves by blocks takes everybody's. Owners write, read, discard,
 * protect, remap and unmap their chunks, read and write them by a device, and fork; a child finds
 * what was there, and keeps it while the parent goes on. Others migrate, evict, prefetch, and close
 * devices. Whoever runs it reads the kernel's log after it. Needs the driver dmirror.
 */
#include "balun/dmirror.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	       4096UL
#define WORDS	       (PAGE / 8)
#define PAGES	       4 /* of a chunk */
#define CHUNK	       (PAGES * PAGE)
#define OWNERS	       4
#define MOVERS	       2
#define CHUNKS	       192 /* of an owner */
#define ARENA	       (OWNERS * CHUNKS * CHUNK)
#define DEVICES	       3
#define CHUNK_AT(o, i) (arena + ((size_t)(i)*OWNERS + (o)) * CHUNK)

/* the second is too small for what the movers want of it */
static const char *const specs[DEVICES] = { "dmirror:mem=16M", "dmirror:mem=4M",
					    "dmirror:mem=16M,coherent=1" };
static struct balun_space *space;
static struct balun_device *dev[DEVICES];
static pthread_rwlock_t devices_lock = PTHREAD_RWLOCK_INITIALIZER;
static char *arena;
static atomic_bool over;
static atomic_ulong checked, moved, forks, faults_busy;

struct owner {
	pthread_t thread;
	uint64_t seed;
	unsigned int id;
	uint64_t is[CHUNKS][PAGES]; /* 0: zeros */
	char *spare;		    /* where a chunk goes for a moment */
	char *buf;		    /* the device's */
};
static struct owner owners[OWNERS];

static uint64_t rnd(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("FAIL ", stdout);
	vprintf(fmt, ap);
	printf(" (errno %d; %s)\n", errno, balun_reason());
	fflush(stdout);
	_exit(1);
}

static uint64_t word(uint64_t is, unsigned int i)
{
	return is ? is + i : 0;
}

static void check_page(const struct owner *o, const uint64_t *p, uint64_t is, const char *who)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		if (p[i] != word(is, i))
			fail("%s, owner %u, %p: %#lx, not %#lx", who, o->id, (const void *)&p[i],
			     (unsigned long)p[i], (unsigned long)word(is, i));
	atomic_fetch_add(&checked, 1);
}

static void check(struct owner *o, unsigned int c, const char *at, const char *who)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		check_page(o, (const uint64_t *)(at + i * PAGE), o->is[c][i], who);
}

static void fill(uint64_t *p, uint64_t is)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		p[i] = word(is, i);
}

/* ---- what an owner does with a chunk ---- */

static void do_write(struct owner *o, unsigned int c, char *at)
{
	unsigned int i = rnd(&o->seed) % PAGES;

	o->is[c][i] = rnd(&o->seed) | 1;
	fill((uint64_t *)(at + i * PAGE), o->is[c][i]);
}

static void do_drop(struct owner *o, unsigned int c, char *at)
{
	unsigned int i = rnd(&o->seed) % PAGES, n = 1 + rnd(&o->seed) % (PAGES - i);

	if (madvise(at + i * PAGE, n * PAGE, MADV_DONTNEED))
		fail("madvise");
	memset(&o->is[c][i], 0, n * sizeof(o->is[c][0]));
	check(o, c, at, "after MADV_DONTNEED");
}

static void do_remap(struct owner *o, unsigned int c, char *at)
{
	if (mremap(at, CHUNK, CHUNK, MREMAP_MAYMOVE | MREMAP_FIXED, o->spare) == MAP_FAILED)
		fail("mremap");
	if (rnd(&o->seed) % 2)
		check(o, c, o->spare, "after mremap");
	if (mremap(o->spare, CHUNK, CHUNK, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED)
		fail("mremap back");
	if (mmap(o->spare, CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	    MAP_FAILED)
		fail("mmap");
}

static void do_unmap(struct owner *o, unsigned int c, char *at)
{
	if (munmap(at, CHUNK))
		fail("munmap");
	if (mmap(at, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		fail("mmap");
	memset(o->is[c], 0, sizeof(o->is[c]));
}

static void do_protect(struct owner *o, unsigned int c, char *at)
{
	if (mprotect(at, CHUNK, PROT_READ))
		fail("mprotect");
	check(o, c, at, "read-only");
	if (mprotect(at, CHUNK, PROT_READ | PROT_WRITE))
		fail("mprotect back");
}

static void do_device(struct owner *o, unsigned int c, char *at)
{
	bool write = rnd(&o->seed) % 2;
	struct balun_dmirror_cmd cmd = { .size = sizeof(cmd),
					 .op = write ? BALUN_DMIRROR_WRITE : BALUN_DMIRROR_READ,
					 .addr = (uintptr_t)at,
					 .len = CHUNK,
					 .buf = o->buf };
	unsigned int i, d = rnd(&o->seed) % DEVICES;
	uint64_t is[PAGES];
	int err;

	for (i = 0; write && i < PAGES; i++) {
		is[i] = rnd(&o->seed) | 1;
		fill((uint64_t *)(o->buf + i * PAGE), is[i]);
	}
	pthread_rwlock_rdlock(&devices_lock);
	do {
		err = balun_dmirror(dev[d], &cmd);
		atomic_fetch_add(&faults_busy, err == -EBUSY);
	} while (err == -EBUSY);
	pthread_rwlock_unlock(&devices_lock);
	if (err)
		fail("a device's %s: %d", write ? "write" : "read", err);
	if (write)
		memcpy(o->is[c], is, sizeof(is));
	else
		check(o, c, o->buf, "by a device");
}

/* the child's memory is what it was, while the parent writes on */
static void do_fork(struct owner *o, unsigned int c, char *at)
{
	unsigned int k = (c + 1) % CHUNKS;
	int status;
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (!pid) {
		check(o, c, at, "in a child");
		do_write(o, c, at);
		check(o, c, at, "in a child, written");
		check(o, k, CHUNK_AT(o->id, k), "in a child, beside");
		_exit(0);
	}
	do_write(o, c, at);
	do_write(o, k, CHUNK_AT(o->id, k));
	check(o, c, at, "while a child has it");
	if (waitpid(pid, &status, 0) != pid || status)
		fail("a child: %#x", status);
	atomic_fetch_add(&forks, 1);
}

static void *own(void *arg)
{
	static void (*const act[])(struct owner *, unsigned int, char *) = {
		do_write, do_write,   do_write,	 do_drop,   do_remap,
		do_unmap, do_protect, do_device, do_device, do_device,
	};
	struct owner *o = arg;

	while (!atomic_load(&over)) {
		unsigned int c = rnd(&o->seed) % CHUNKS, r = rnd(&o->seed) % 256;
		char *at = CHUNK_AT(o->id, c);

		check(o, c, at, "by its owner");
		if (!r)
			do_fork(o, c, at);
		else
			act[r % (sizeof(act) / sizeof(act[0]))](o, c, at);
	}
	return NULL;
}

/* ---- those who move pages ---- */

static void device_reopen(unsigned int d)
{
	int err;

	pthread_rwlock_wrlock(&devices_lock);
	err = balun_device_close(dev[d]);
	if (err)
		fail("balun_device_close: %d", err);
	err = balun_device_open(space, specs[d], &dev[d]);
	if (err)
		fail("balun_device_open: %d", err);
	pthread_rwlock_unlock(&devices_lock);
}

static void *move(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	while (!atomic_load(&over)) {
		unsigned int r = rnd(&seed) % 64, d = rnd(&seed) % (DEVICES + 1);
		size_t from = rnd(&seed) % (ARENA / PAGE) * PAGE;
		size_t len = (1 + rnd(&seed) % 512) * PAGE;
		struct balun_counts n = { 0 };
		uint64_t freed;
		int err = 0;

		if (len > ARENA - from)
			len = ARENA - from;
		if (!r) {
			device_reopen(d % DEVICES);
			continue;
		}
		pthread_rwlock_rdlock(&devices_lock);
		if (r < 4)
			balun_evict(dev[d % DEVICES], len, &freed);
		else if (r < 6)
			balun_prefetch(space, arena + from, len, dev[d % DEVICES]);
		else
			err = balun_migrate(space, arena + from, len, d < DEVICES ? dev[d] : NULL,
					    &n);
		pthread_rwlock_unlock(&devices_lock);
		if (err && err != -EFAULT)
			fail("balun_migrate: %d", err);
		atomic_fetch_add(&moved, n.moved);
	}
	return NULL;
}

static void begin(uint64_t seed)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "kernel" };
	unsigned int i;
	int err;

	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena == MAP_FAILED)
		fail("mmap");
	err = balun_space_create(&opts, &space);
	for (i = 0; !err && i < DEVICES; i++)
		err = balun_device_open(space, specs[i], &dev[i]);
	if (err)
		fail("beginning: %d", err);
	for (i = 0; i < OWNERS; i++) {
		owners[i].id = i;
		owners[i].seed = seed * 1000 + i;
		owners[i].buf = balun_mem_alloc(CHUNK);
		owners[i].spare = mmap(NULL, CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (!owners[i].buf || owners[i].spare == MAP_FAILED)
			fail("memory");
	}
}

int main(int argc, char **argv)
{
	unsigned int seconds = argc > 1 ? strtoul(argv[1], NULL, 0) : 30, i, c;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	pthread_t mover[MOVERS];

	begin(seed);
	for (i = 0; i < OWNERS; i++)
		pthread_create(&owners[i].thread, NULL, own, &owners[i]);
	for (i = 0; i < MOVERS; i++)
		pthread_create(&mover[i], NULL, move, (void *)(uintptr_t)(seed * 1000 + 100 + i));
	sleep(seconds);
	atomic_store(&over, true);
	for (i = 0; i < MOVERS; i++)
		pthread_join(mover[i], NULL);
	for (i = 0; i < OWNERS; i++)
		pthread_join(owners[i].thread, NULL);
	if (balun_space_destroy(space))
		fail("balun_space_destroy");
	for (i = 0; i < OWNERS; i++)
		for (c = 0; c < CHUNKS; c++)
			check(&owners[i], c, CHUNK_AT(i, c), "at the end");
	printf("%lu pages checked, %lu moved, %lu forks, %lu faults busy\n", atomic_load(&checked),
	       atomic_load(&moved), atomic_load(&forks), atomic_load(&faults_busy));
	return 0;
}
