/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Every kind of memory that a real process has, and system calls into memory that is away. */
#include "kit.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* blocks of the program's heap, small and large, with malloc and free in between */
static void heap(struct kit *k)
{
	enum {
		N = 400
	};
	char **p = malloc(N * sizeof(*p));
	size_t i;

	CHECK(p != NULL);
	for (i = 0; i < N; i++) {
		p[i] = malloc(100 + i * 37);
		CHECK(p[i] != NULL);
		memset(p[i], (int)i, 100 + i * 37);
	}
	for (i = 0; i < N; i++) {
		char v;

		/* the whole pages around it, whoever else lives there */
		kit_migrate(k, (uintptr_t)p[i], 100 + i * 37, k->dev);
		CHECK_OK(dev_read(k->dev, (uintptr_t)p[i] + 50, &v, 1));
		CHECK_EQ(v, (char)i);
		if (i % 5 == 0) {
			free(p[i]);
			p[i] = malloc(100 + i * 37);
			CHECK(p[i] != NULL);
			memset(p[i], (int)i, 100 + i * 37);
		}
	}
	for (i = 0; i < N; i++) {
		size_t j;

		for (j = 0; j < 100 + i * 37; j++)
			CHECK_EQ(p[i][j], (char)i);
		kit_migrate(k, (uintptr_t)p[i], 100 + i * 37, NULL);
		free(p[i]);
	}
	kit_migrate(k, (uintptr_t)p, N * sizeof(*p), NULL);
	free(p);
}

/* one large block, as malloc maps it by itself */
static void heap_large(struct kit *k)
{
	uint64_t len = 8 * MIB;
	char *p = malloc(len);

	CHECK(p != NULL);
	kit_fill(k, (uintptr_t)p, len, 1);
	kit_migrate(k, (uintptr_t)p, len, k->dev);
	CHECK(kit_resident(k, (uintptr_t)p, len, k->dev) >= len / PAGE);
	dev_verify(k->dev, (uintptr_t)p, len, 1);
	kit_verify(k, (uintptr_t)p, len, 1);
	kit_migrate(k, (uintptr_t)p, len, k->dev);
	/* ASan keeps what was freed mapped for a while */
	if (KIT_ASAN)
		kit_migrate(k, (uintptr_t)p, len, NULL);
	free(p);
	CHECK_OK(balun_fence(k->space));
	/* neighbours in its first and last block may have come along; nothing else is left */
	CHECK_OK(balun_evict(k->dev, UINT64_MAX, NULL));
	CHECK_EQ(kit_mem_used(k->dev), 0);
}

struct stacked {
	uint64_t va;
	long tid;
	sem_t ready, go;
};

static void *stack_main(void *arg)
{
	struct stacked *s = arg;
	uint64_t local[2048], i;

	kit_pattern(local, 0, sizeof(local), 2);
	s->va = (uintptr_t)local;
	s->tid = syscall(SYS_gettid);
	sem_post(&s->ready);
	while (sem_wait(&s->go))
		;
	for (i = 0; i < 2048; i++) {
		uint64_t want;

		kit_pattern(&want, i * 8, sizeof(want), 2);
		CHECK_EQ(__atomic_load_n(&local[i], __ATOMIC_RELAXED), want);
	}
	return NULL;
}

/* the stack of another thread, asleep meanwhile */
static void stack(struct kit *k)
{
	/* shared between threads: not on a stack that moves */
	struct stacked *s = balun_mem_alloc(sizeof(*s));
	uint64_t bytes = 2048 * sizeof(uint64_t);
	pthread_t t;

	kit_needs_kernel_faults(k); /* or stacks stay */
	CHECK(s != NULL);
	sem_init(&s->ready, 0, 0);
	sem_init(&s->go, 0, 0);
	t = kit_thread(stack_main, s);
	while (sem_wait(&s->ready))
		;
	kit_wait_asleep(s->tid); /* it touches its stack no more */
	kit_migrate(k, s->va, bytes, k->dev);
	CHECK(kit_resident(k, s->va, bytes, k->dev) > 0);
	dev_verify(k->dev, s->va, bytes, 2);
	sem_post(&s->go);
	kit_join(t);
	/* pthread keeps the stack for the next thread: bring home what is still away */
	balun_migrate(k->space, (void *)s->va, bytes, NULL, NULL);
	balun_mem_free(s, sizeof(*s));
}

static int temp_file(uint64_t len)
{
	int fd = memfd_create("balun-conform", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, len), 0);
	return fd;
}

static uint64_t map_file(struct kit *k, int fd, uint64_t len, int prot, int flags)
{
	uint64_t va = kit_place(k, len);
	void *p = mmap((void *)va, len, prot, flags | MAP_FIXED, fd, 0);

	CHECK(p != MAP_FAILED);
	return va;
}

/* a shared file mapping is used in place by CPU and device */
static void file_shared(struct kit *k)
{
	uint64_t len = 32 * PAGE, va, want, v;
	int fd = temp_file(len);

	va = map_file(k, fd, len, PROT_READ | PROT_WRITE, MAP_SHARED);
	kit_fill(k, va, len, 3);
	CHECK_EQ(kit_migrate(k, va, len, k->dev).unmovable, 32);
	dev_verify(k->dev, va, len, 3);
	dev_fill(k->dev, va, len, 4);
	kit_verify(k, va, len, 4);
	CHECK_EQ(pread(fd, &v, sizeof(v), 5 * PAGE), sizeof(v));
	kit_pattern(&want, 5 * PAGE, sizeof(want), 4);
	CHECK_EQ(v, want);
	CHECK_EQ(munmap((void *)va, len), 0);
	CHECK_OK(balun_fence(k->space));
	CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -EFAULT);
	close(fd);
}

/* a private file mapping: pages of the file and pages of its own */
static void file_private(struct kit *k)
{
	uint64_t len = 32 * PAGE, va;
	int fd = temp_file(len);
	char buf[PAGE];
	int i;

	for (i = 0; i < 32; i++) {
		kit_pattern(buf, i * PAGE, PAGE, 5);
		CHECK_EQ(pwrite(fd, buf, PAGE, i * PAGE), PAGE);
	}
	va = map_file(k, fd, len, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	dev_verify(k->dev, va, len, 5);
	kit_fill(k, va, 8 * PAGE, 6);
	kit_migrate(k, va, len, k->dev);
	dev_verify(k->dev, va, 8 * PAGE, 6);
	dev_verify_part(k->dev, va, 8 * PAGE, 24 * PAGE, 5);
	kit_verify(k, va, 8 * PAGE, 6);
	kit_verify_part(k, va, 8 * PAGE, 24 * PAGE, 5);
	kit_migrate(k, va, len, NULL);
	CHECK_EQ(munmap((void *)va, len), 0);
	close(fd);
}

static void file_read_only(struct kit *k)
{
	uint64_t len = 4 * PAGE, va, v = 1;
	int fd = temp_file(len);

	va = map_file(k, fd, len, PROT_READ, MAP_SHARED);
	CHECK_OK(dev_read(k->dev, va, &v, sizeof(v)));
	CHECK_EQ(v, 0);
	CHECK_RC(dev_write(k->dev, va, &v, sizeof(v)), -EPERM);
	CHECK_EQ(munmap((void *)va, len), 0);
	close(fd);
}

/* behind the end of a file there is a mapping and no memory */
static void file_truncated(struct kit *k)
{
	uint64_t len = 4 * PAGE, va, v = 1;
	int fd = temp_file(PAGE);

	va = map_file(k, fd, len, PROT_READ | PROT_WRITE, MAP_SHARED);
	CHECK_OK(dev_read(k->dev, va, &v, sizeof(v)));
	CHECK_RC(k->mem->load(k, va + 2 * PAGE, &v, sizeof(v)), -EHWPOISON);
	CHECK_EQ(munmap((void *)va, len), 0);
	close(fd);
}

static void hugetlb(struct kit *k)
{
	uint64_t len = BALUN_BLOCK_SIZE, va;
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB,
		       -1, 0);

	if (p == MAP_FAILED)
		kit_skip("this machine has no hugetlb pages (vm.nr_hugepages)");
	va = (uintptr_t)p;
	kit_fill(k, va, len, 7);
	CHECK_EQ(kit_migrate(k, va, len, k->dev).unmovable, 512);
	dev_verify(k->dev, va, len, 7);
	dev_fill(k->dev, va, 4 * PAGE, 8);
	kit_verify(k, va, 4 * PAGE, 8);
	CHECK_EQ(munmap(p, len), 0);
}

/* transparent huge pages, whole and in parts */
static void huge(struct kit *k)
{
	uint64_t len = 4 * BALUN_BLOCK_SIZE, va = kit_map(k, len, KIT_RW);

	if (madvise((void *)va, len, MADV_HUGEPAGE))
		kit_skip("this kernel has no transparent huge pages");
	kit_fill(k, va, len, 9);
	kit_move(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 9);
	kit_move(k, va, len, NULL);
	kit_verify(k, va, len, 9);
	kit_move(k, va + 100 * PAGE, 3 * BALUN_BLOCK_SIZE, k->dev);
	dev_verify(k->dev, va, len, 9);
	kit_verify(k, va, len, 9);
}

/* huge pages that are mapped by parts since they have left: one part after the other comes home */
static void huge_parts(struct kit *k)
{
	uint64_t len = 2 * BALUN_BLOCK_SIZE, va = kit_map(k, len, KIT_RW), i;

	if (madvise((void *)va, len, MADV_HUGEPAGE))
		kit_skip("this kernel has no transparent huge pages");
	for (i = 0; i < 3; i++) {
		kit_fill(k, va, len, i);
		kit_move(k, va, len, k->dev);
		CHECK_OK(k->mem->protect(k, va + 300 * PAGE, 100 * PAGE, KIT_READ));
		CHECK_OK(k->mem->protect(k, va + 300 * PAGE, 100 * PAGE, KIT_RW));
		kit_verify_part(k, va, PAGE, PAGE, i);
		kit_verify_part(k, va, len - PAGE, PAGE, i);
		kit_move(k, va, len, k->dev);
		dev_verify(k->dev, va, len, i);
		kit_verify(k, va, len, i);
	}
}

/* code and constants of the program are read in place */
static void program_text(struct kit *k)
{
	static const char constant[] = "read me in place";
	char got[sizeof(constant)];
	uint64_t v = 0;

	CHECK_OK(dev_read(k->dev, (uintptr_t)constant, got, sizeof(got)));
	CHECK(!memcmp(got, constant, sizeof(got)));
	CHECK_RC(dev_write(k->dev, (uintptr_t)constant, &v, 1), -EPERM);
}

/* variables of the program work on both sides, wherever they live */
static void program_data(struct kit *k)
{
	static uint64_t variable = 41;

	CHECK_EQ(dev_read64(k->dev, (uintptr_t)&variable), 41);
	dev_write64(k->dev, (uintptr_t)&variable, 42);
	CHECK_EQ(cpu_read64(k, (uintptr_t)&variable), 42);
	/* where an engine moves such memory, some of it stays away as long as the program runs */
	CHECK_OK(balun_evict(k->dev, UINT64_MAX, NULL));
}

/* locked and read-only parts keep nothing of the rest from migrating, and nothing is lost */
static void parts_locked(struct kit *k)
{
	uint64_t len = 256 * PAGE, va = kit_filled(k, len, 21), i;

	if (mlock((void *)(va + 128 * PAGE), 32 * PAGE))
		kit_skip("mlock: %s", strerror(errno));
	for (i = 0; i < 3; i++) {
		kit_migrate(k, va, len, k->dev);
		CHECK_EQ(kit_resident(k, va, 128 * PAGE, k->dev), 128);
		CHECK_EQ(kit_resident(k, va + 160 * PAGE, 96 * PAGE, k->dev), 96);
		dev_verify(k->dev, va, len, 21 + i);
		dev_fill(k->dev, va, len, 22 + i);
		kit_verify(k, va, len, 22 + i);
	}
	CHECK_OK(k->mem->protect(k, va + 200 * PAGE, 16 * PAGE, KIT_READ));
	kit_migrate(k, va, len, k->dev);
	CHECK_EQ(kit_resident(k, va + 160 * PAGE, 96 * PAGE, k->dev), 96);
	CHECK_OK(kit_close(k, k->dev));
	k->dev = NULL;
	kit_verify(k, va, len, 24);
	CHECK_OK(k->mem->protect(k, va + 200 * PAGE, 16 * PAGE, KIT_RW));
}

struct mapper {
	struct kit *k;
	bool stop;
};

/* the address space changes all the time, elsewhere */
static void *mapper_main(void *arg)
{
	struct mapper *m = arg;
	void *p;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(p != MAP_FAILED);
		CHECK_EQ(munmap(p, PAGE), 0);
	}
	return NULL;
}

/* the kernel wants a page of a huge one that cannot come home as a whole, while others map memory
 */
static void huge_wanted(struct kit *k)
{
	uint64_t len = BALUN_BLOCK_SIZE, va = kit_map(k, len, KIT_RW), i, v;
	struct iovec to = { &v, sizeof(v) }, from = { (void *)(va + PAGE), sizeof(v) };
	struct mapper m = { .k = k };
	pthread_t t;

	kit_needs_kernel_faults(k);
	madvise((void *)va, len, MADV_HUGEPAGE);
	t = kit_thread(mapper_main, &m);
	for (i = 0; i < 30; i++) {
		kit_fill(k, va, len, i);
		kit_move(k, va, len, k->dev);
		CHECK_OK(balun_pin(k->space, (void *)(va + len / 2), len / 2));
		CHECK_EQ(process_vm_readv(getpid(), &to, 1, &from, 1, 0), sizeof(v));
		CHECK_OK(balun_unpin(k->space, (void *)(va + len / 2), len / 2));
		CHECK_EQ(v, *(uint64_t *)(va + PAGE));
		kit_move(k, va, len, NULL);
		kit_verify(k, va, len, i);
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
	kit_join(t);
}

/* read(2) and write(2) from and to pages that are away */
static void syscalls(struct kit *k)
{
	uint64_t len = 64 * PAGE, a = kit_filled(k, len, 10), b = kit_map(k, len, KIT_RW), at;
	int fd = temp_file(len);

	kit_needs_kernel_faults(k);
	kit_move(k, a, len, k->dev);
	kit_move(k, b, len, k->dev);
	for (at = 0; at < len; at += 16 * PAGE)
		CHECK_EQ(pwrite(fd, (void *)(a + at), 16 * PAGE, at), (ssize_t)(16 * PAGE));
	for (at = 0; at < len; at += 16 * PAGE)
		CHECK_EQ(pread(fd, (void *)(b + at), 16 * PAGE, at), (ssize_t)(16 * PAGE));
	kit_verify(k, b, len, 10);
	kit_move(k, b, len, k->dev);
	dev_verify(k->dev, b, len, 10);
	close(fd);
}

static void *futex_main(void *arg)
{
	uint32_t *word = arg;

	while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	return NULL;
}

/* a futex whose word moves while someone waits on it */
static void futex(struct kit *k)
{
	uint64_t va = kit_map(k, PAGE, KIT_RW), i;

	for (i = 0; i < 20; i++) {
		uint32_t *word = (uint32_t *)va;
		pthread_t t;

		__atomic_store_n(word, 0, __ATOMIC_RELEASE);
		t = kit_thread(futex_main, word);
		kit_migrate(k, va, PAGE, k->dev);
		__atomic_store_n(word, 1, __ATOMIC_RELEASE);
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		kit_join(t);
	}
}

/* memory that the program locked or asked not to be forked is still its memory */
static void advised(struct kit *k)
{
	uint64_t len = 16 * PAGE, va = kit_filled(k, len, 11);

	CHECK_EQ(madvise((void *)va, len, MADV_DONTFORK), 0);
	kit_migrate(k, va, len, k->dev);
	dev_verify(k->dev, va, len, 11);
	CHECK_EQ(madvise((void *)va, len, MADV_DOFORK), 0);
	kit_verify(k, va, len, 11);
}

/* growth and shrinking in place, with pages away on both sides of the change */
static void mremap_resize(struct kit *k)
{
	uint64_t len = 32 * PAGE, va = kit_filled(k, len, 12);
	void *p = (void *)va;

	kit_move(k, va, len, k->dev);
	CHECK(mremap(p, len, len / 2, 0) == p);
	CHECK_OK(balun_fence(k->space));
	CHECK_EQ(kit_mem_used(k->dev), len / 2);
	CHECK(mremap(p, len / 2, len, 0) == p);
	dev_verify(k->dev, va, len / 2, 12);
	kit_verify_zero(k, va + len / 2, len / 2);
	dev_verify(k->dev, va + len / 2, len / 2, KIT_ZEROS);
	kit_verify(k, va, len / 2, 12);
}

/* memory of Balun itself never moves */
static void own_memory(struct kit *k)
{
	char *p = balun_mem_alloc(4 * PAGE);

	CHECK(p != NULL);
	memset(p, 7, 4 * PAGE);
	CHECK_EQ(kit_migrate(k, (uintptr_t)p, 4 * PAGE, k->dev).unmovable, 4);
	CHECK_EQ(p[PAGE], 7);
	balun_mem_free(p, 4 * PAGE);
}

const struct kit_case cases_memory[] = {
	{ "memory-heap", heap, NULL, KIT_PROCESS },
	{ "memory-heap-copied", heap, "host=0", KIT_PROCESS },
	{ "memory-heap-large", heap_large, NULL, KIT_PROCESS },
	{ "memory-stack", stack, NULL, KIT_PROCESS },
	{ "memory-file-shared", file_shared, NULL, KIT_PROCESS },
	{ "memory-file-private", file_private, NULL, KIT_PROCESS },
	{ "memory-file-read-only", file_read_only, NULL, KIT_PROCESS },
	{ "memory-file-truncated", file_truncated, NULL, KIT_PROCESS },
	{ "memory-hugetlb", hugetlb, NULL, KIT_PROCESS },
	{ "memory-huge-pages", huge, NULL, KIT_PROCESS },
	{ "memory-huge-parts", huge_parts, NULL, KIT_PROCESS },
	{ "memory-huge-wanted", huge_wanted, NULL, KIT_PROCESS },
	{ "memory-program-text", program_text, NULL, KIT_PROCESS },
	{ "memory-program-data", program_data, NULL, KIT_PROCESS },
	{ "memory-parts-locked", parts_locked, NULL, KIT_PROCESS },
	{ "memory-syscalls", syscalls, NULL, KIT_PROCESS },
	{ "memory-futex", futex, NULL, KIT_PROCESS },
	{ "memory-advised", advised, NULL, KIT_PROCESS },
	{ "memory-mremap-resize", mremap_resize, NULL, KIT_PROCESS },
	{ "memory-own", own_memory, NULL, KIT_PROCESS | KIT_HERE },
	{ NULL, NULL, NULL, 0 },
};
