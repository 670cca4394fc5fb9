/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The memory calls, each on the middle of an area: how it is made, what it may do to the bytes. The
 * raw kind goes to the kernel past the hooks, as libc's own calls and other libraries' do.
 */
#include "tests/barrier/barrier.h"

#include <malloc.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static void *ptr(uint64_t va)
{
	return (void *)va;
}

static void must(long rc, const char *what)
{
	if (rc == -1)
		kit_fail(__FILE__, __LINE__, "%s: %s", what, strerror(errno));
}

static void do_munmap(struct area *a)
{
	must(a->raw ? syscall(SYS_munmap, a->mid, MID_LEN) : munmap(ptr(a->mid), MID_LEN),
	     "munmap");
}

static void map_fresh(struct area *a)
{
	void *p = mmap(ptr(a->mid), MID_LEN, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	CHECK(p == ptr(a->mid));
}

/*
 * What the program writes to the new memory must be there in the end. A mover may touch it in the
 * same moment, on purpose: that is nothing for a sanitizer to find.
 */
__attribute__((no_sanitize("thread"))) static void write_fresh(struct area *a)
{
	uint64_t word[PAGE / sizeof(uint64_t)], at;
	unsigned int i;

	for (at = 0; at < MID_LEN / 2; at += PAGE) {
		volatile uint64_t *to = ptr(a->mid + at);

		kit_pattern(word, at, PAGE, FRESH_SEED);
		for (i = 0; i < PAGE / sizeof(*word); i++)
			to[i] = word[i];
	}
}

static void do_munmap_mmap(struct area *a)
{
	do_munmap(a);
	map_fresh(a);
	write_fresh(a);
}

#if !KIT_ASAN && !KIT_TSAN

void __libc_free(void *p);

/*
 * A large block of the heap, as glibc has it: a mapping of its own. Its head says so, where the
 * mapping begins and how long it is; here it lies elsewhere, so that nobody waits in a fault on it
 * instead of in the call. __libc_free() is what libc itself calls.
 */
static void do_free_block(struct area *a)
{
	static size_t head[BLOCK_HEAD / sizeof(size_t) + 1] __attribute__((aligned(PAGE)));
	void *volatile p = head + BLOCK_HEAD / sizeof(size_t);

	head[0] = (uintptr_t)head - a->mid;
	head[1] = (MID_LEN - head[0]) | BLOCK_MAPPED;
	if (a->raw)
		__libc_free(p);
	else
		free(p);
}

static void do_free_block_mmap(struct area *a)
{
	do_free_block(a);
	map_fresh(a);
	write_fresh(a);
}

#endif

static void do_mmap_over(struct area *a)
{
	map_fresh(a);
	write_fresh(a);
}

static void remap(struct area *a, uint64_t len, uint64_t new_len, int flags)
{
	uint64_t got = a->raw ? (uint64_t)syscall(SYS_mremap, a->mid, len, new_len, flags, a->to)
			      : (uint64_t)mremap(ptr(a->mid), len, new_len, flags, ptr(a->to));

	must(got, "mremap");
	CHECK(got == (flags & MREMAP_FIXED ? a->to : a->mid));
}

static void do_move(struct area *a)
{
	remap(a, MID_LEN, MID_LEN, MREMAP_MAYMOVE | MREMAP_FIXED);
}

static void do_dontunmap(struct area *a)
{
	remap(a, MID_LEN, MID_LEN, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP);
}

static void do_grow(struct area *a)
{
	remap(a, MID_LEN, 2 * MID_LEN, MREMAP_MAYMOVE | MREMAP_FIXED);
}

static void do_grow_here(struct area *a)
{
	remap(a, MID_LEN, 2 * MID_LEN, 0);
}

static void do_shrink(struct area *a)
{
	remap(a, MID_LEN, MID_LEN / 2, 0);
}

static void protect(struct area *a, int prot)
{
	must(a->raw ? syscall(SYS_mprotect, a->mid, MID_LEN, prot)
		    : mprotect(ptr(a->mid), MID_LEN, prot),
	     "mprotect");
}

static void do_readonly(struct area *a)
{
	protect(a, PROT_READ);
}

static void do_noaccess(struct area *a)
{
	protect(a, PROT_NONE);
}

static int advise(struct area *a, int advice)
{
	return a->raw ? (int)syscall(SYS_madvise, a->mid, MID_LEN, advice)
		      : madvise(ptr(a->mid), MID_LEN, advice);
}

static void do_dontneed(struct area *a)
{
	must(advise(a, MADV_DONTNEED), "madvise(DONTNEED)");
}

static void do_free(struct area *a)
{
	must(advise(a, MADV_FREE), "madvise(FREE)");
}

/* for shared memory only, which does not move: here it is refused and does nothing */
static void do_remove(struct area *a)
{
	CHECK(advise(a, MADV_REMOVE) == -1 && errno == EINVAL);
}

/* a request: whatever the kernel makes of it, the bytes stay */
static void do_collapse(struct area *a)
{
	(void)!madvise(ptr(a->va & ~(BALUN_BLOCK_SIZE - 1)), BALUN_BLOCK_SIZE, MADV_COLLAPSE);
}

static void do_hugepage(struct area *a)
{
	if (advise(a, MADV_HUGEPAGE) && errno != EINVAL)
		must(-1, "madvise(HUGEPAGE)");
}

static void set_brk(uint64_t to)
{
	CHECK((uint64_t)syscall(SYS_brk, to) == to);
}

static void do_brk_down(struct area *a)
{
	set_brk(a->mid);
}

static void do_brk_down_up(struct area *a)
{
	set_brk(a->mid);
	set_brk(a->end);
	write_fresh(a);
}

/* the system call: sanitizers make the function do nothing */
static void do_mlock(struct area *a)
{
	must(syscall(SYS_mlock, a->mid, MID_LEN), "mlock");
}

static void do_guard(struct area *a)
{
	must(advise(a, MADV_GUARD_INSTALL), "madvise(GUARD_INSTALL)");
}

static void do_shmat(struct area *a)
{
	int id = shmget(IPC_PRIVATE, MID_LEN, IPC_CREAT | 0600);

	must(id, "shmget");
	CHECK(shmat(id, ptr(a->mid), SHM_REMAP) == ptr(a->mid));
	must(shmctl(id, IPC_RMID, NULL), "shmctl");
	write_fresh(a);
}

bool call_is_quiet(const struct call *c, bool raw)
{
	return c->flags & CALL_QUIET && (raw || !(c->flags & CALL_HOOK));
}

/* bit 58 of /proc/self/pagemap says where guards are, from Linux 6.15 on */
static bool has_guards(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(fd >= 0 && p != MAP_FAILED);
	if (syscall(SYS_madvise, p, PAGE, MADV_GUARD_INSTALL) ||
	    pread(fd, &entry, sizeof(entry), (uintptr_t)p / PAGE * sizeof(entry)) < 0)
		entry = 0;
	munmap(p, PAGE);
	close(fd);
	return entry >> 58 & 1;
}

void call_need(struct kit *k, const struct call *c)
{
	static int guards;

	if (c->effect == LOCKED) /* brings pages home */
		kit_needs_kernel_faults(k);
	if (c->effect != GUARDED)
		return;
	if (!guards)
		guards = has_guards() ? 1 : -1;
	if (guards < 0)
		kit_skip("this kernel has no guard pages, or does not say where they are");
}

const struct call calls[] = {
	{ "munmap", CALL_EVENT | CALL_HOOK, GONE, do_munmap },
	{ "munmap+mmap", CALL_EVENT | CALL_HOOK, FRESH, do_munmap_mmap },
#if !KIT_ASAN && !KIT_TSAN /* free() is the sanitizer's */
	{ "free", CALL_EVENT | CALL_HOOK, GONE, do_free_block },
	{ "free+mmap", CALL_EVENT | CALL_HOOK, FRESH, do_free_block_mmap },
#endif
	{ "mmap-over", CALL_EVENT, FRESH, do_mmap_over },
	{ "mremap-move", CALL_EVENT | CALL_HOOK, MOVED, do_move },
	{ "mremap-dontunmap", CALL_EVENT | CALL_HOOK, LEFT, do_dontunmap },
	{ "mremap-grow", CALL_EVENT | CALL_HOOK, GROWN, do_grow },
	{ "mremap-grow-here", CALL_HOOK | CALL_LAST, HERE, do_grow_here },
	{ "mremap-shrink", CALL_EVENT | CALL_HOOK, SHRUNK, do_shrink },
	{ "mprotect-read", CALL_HOOK, READONLY, do_readonly },
	{ "mprotect-none", CALL_HOOK, NOACCESS, do_noaccess },
	{ "madvise-dontneed", CALL_EVENT | CALL_HOOK, ZERO, do_dontneed },
	{ "madvise-free", CALL_EVENT | CALL_HOOK, LAZY, do_free },
	{ "madvise-remove", CALL_HOOK, KEEP, do_remove },
	{ "madvise-collapse", 0, KEEP, do_collapse },
	{ "madvise-hugepage", 0, KEEP, do_hugepage },
	{ "brk-down", CALL_EVENT | CALL_BRK | CALL_LAST, GONE, do_brk_down },
	{ "brk-down-up", CALL_EVENT | CALL_BRK | CALL_LAST, FRESH, do_brk_down_up },
	{ "mlock", CALL_FAULT, LOCKED, do_mlock },
	{ "guard-install", CALL_EVENT | CALL_HOOK | CALL_QUIET, GUARDED, do_guard },
	{ "shmat-over", CALL_QUIET, SHARED, do_shmat },
	{ NULL, 0, KEEP, NULL },
};

/* ---- areas ---- */

/*
 * At the end of the heap, each time in another block, for a block that is used again and again
 * thrashes. malloc() must not move the end meanwhile, so it is given room enough below.
 */
static uint64_t heap_end(struct area *a, uint64_t len)
{
	static uint64_t nblocks = 2;
	uint64_t va;

	mallopt(M_TOP_PAD, 1 << 20);
	free(malloc(100000));
	a->old_brk = syscall(SYS_brk, 0);
	va = (a->old_brk + nblocks++ * BALUN_BLOCK_SIZE) & ~(BALUN_BLOCK_SIZE - 1);
	set_brk(va + len);
	return va;
}

void area_make(struct kit *k, const struct call *c, struct area *a)
{
	uint64_t len = (PREFIX + MID + (c->flags & CALL_LAST ? 0 : SUFFIX)) * PAGE, place;

	call_need(k, c);
	place = kit_place(k, 3 * BALUN_BLOCK_SIZE);
	a->brk = c->flags & CALL_BRK;
	a->va = a->brk ? heap_end(a, len) : place + 40 * PAGE;
	a->mid = a->va + PREFIX * PAGE;
	a->after = a->mid + MID_LEN;
	a->end = a->va + len;
	a->to = place + BALUN_BLOCK_SIZE + 13 * PAGE;
	if (!a->brk)
		CHECK_OK(k->mem->map(k, a->va, len, KIT_RW));
	kit_fill(k, a->va, len, SEED);
}

static void is(struct kit *k, bool device, uint64_t va, uint64_t len, uint64_t seed, uint64_t at)
{
	if (device)
		dev_verify_at(__FILE__, __LINE__, k->dev, va, len, seed, at);
	else
		kit_verify_at(__FILE__, __LINE__, k, va, len, seed, at);
}

static void is_gone(struct kit *k, uint64_t va, uint64_t len)
{
	uint64_t v;

	for (; len; va += PAGE, len -= PAGE) {
		CHECK_RC(k->mem->load(k, va, &v, sizeof(v)), -EFAULT);
		CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -EFAULT);
		CHECK(!probe_lookup(k->dev, va).valid);
	}
}

static void is_lazy(struct kit *k, bool device, uint64_t va, uint64_t len, uint64_t at)
{
	uint64_t v, want, end = va + len;

	for (; va < end; va += PAGE, at += PAGE) {
		kit_pattern(&want, at, sizeof(want), SEED);
		v = device ? dev_read64(k->dev, va) : cpu_read64(k, va);
		if (v && v != want)
			kit_fail(__FILE__, __LINE__, "neither old nor zero at %#llx",
				 (unsigned long long)va);
		is(k, device, va, PAGE, v ? SEED : KIT_ZEROS, at);
	}
}

static void check_middle(struct kit *k, enum effect effect, struct area *a, bool device)
{
	uint64_t at = a->mid - a->va, half = MID_LEN / 2;

	switch (effect) {
	case LOCKED:
	case READONLY:
	case NOACCESS:
	case KEEP:
		is(k, device, a->mid, MID_LEN, SEED, at);
		break;
	case ZERO:
		is(k, device, a->mid, MID_LEN, KIT_ZEROS, 0);
		break;
	case GONE:
		is_gone(k, a->mid, MID_LEN);
		break;
	case GUARDED: /* by now not any more */
		is(k, device, a->mid, MID_LEN, KIT_ZEROS, 0);
		break;
	case SHARED:
	case FRESH:
		is(k, device, a->mid, half, FRESH_SEED, 0);
		is(k, device, a->mid + half, half, KIT_ZEROS, 0);
		break;
	case GROWN:
		is(k, device, a->to + MID_LEN, MID_LEN, KIT_ZEROS, 0);
		/* fall through */
	case MOVED:
		is(k, device, a->to, MID_LEN, SEED, at);
		is_gone(k, a->mid, MID_LEN);
		break;
	case LEFT:
		is(k, device, a->to, MID_LEN, SEED, at);
		is(k, device, a->mid, MID_LEN, KIT_ZEROS, 0);
		break;
	case HERE:
		is(k, device, a->mid, MID_LEN, SEED, at);
		is(k, device, a->end, MID_LEN, KIT_ZEROS, 0);
		break;
	case SHRUNK:
		is(k, device, a->mid, half, SEED, at);
		is_gone(k, a->mid + half, half);
		break;
	case LAZY:
		is_lazy(k, device, a->mid, MID_LEN, at);
		break;
	}
}

/* what was taken from the program is refused to CPU and device, and given back */
static void check_permission(struct kit *k, enum effect effect, struct area *a)
{
	uint64_t v = 0;

	CHECK_RC(k->mem->store(k, a->mid, &v, sizeof(v)), -EFAULT);
	if (a->raw) {
		/* no event tells of a raw mprotect(): a device may go on with what it has */
	} else if (effect == READONLY) {
		is(k, false, a->mid, MID_LEN, SEED, a->mid - a->va);
		is(k, true, a->mid, MID_LEN, SEED, a->mid - a->va);
		CHECK_RC(dev_write(k->dev, a->mid, &v, sizeof(v)), -EPERM);
	} else {
		CHECK_RC(k->mem->load(k, a->mid, &v, sizeof(v)), -EFAULT);
		CHECK_RC(dev_read(k->dev, a->mid, &v, sizeof(v)), -EFAULT);
	}
	CHECK_OK(k->mem->protect(k, a->mid, MID_LEN, KIT_RW));
}

/* what is guarded is refused to CPU and device; then the guards go */
static void check_guards(struct kit *k, struct area *a)
{
	uint64_t va, v;

	for (va = a->mid; va < a->after; va += PAGE) {
		CHECK_RC(k->mem->load(k, va, &v, sizeof(v)), -EFAULT);
		CHECK_RC(dev_read(k->dev, va, &v, sizeof(v)), -EFAULT);
	}
	must(madvise(ptr(a->mid), MID_LEN, MADV_GUARD_REMOVE), "madvise(GUARD_REMOVE)");
}

static void check_all(struct kit *k, enum effect effect, struct area *a, bool device)
{
	is(k, device, a->va, a->mid - a->va, SEED, 0);
	check_middle(k, effect, a, device);
	is(k, device, a->after, a->end - a->after, SEED, a->after - a->va);
}

void area_check(struct kit *k, const struct call *c, struct area *a, bool device_first)
{
	CHECK_OK(balun_fence(k->space));
	if (call_is_quiet(c, a->raw))
		CHECK_OK(balun_migrate(k->space, ptr(a->va), a->end - a->va, NULL, NULL));
	if (c->effect == GUARDED)
		check_guards(k, a);
	if (c->effect == READONLY || c->effect == NOACCESS)
		check_permission(k, c->effect, a);
	check_all(k, c->effect, a, device_first);
	check_all(k, c->effect, a, !device_first);
	if (c->effect == LOCKED)
		CHECK_EQ(syscall(SYS_munlock, a->mid, MID_LEN), 0);
	kit_mirror(k, k->dev, a->va, a->end - a->va);
}

void area_drop(struct kit *k, const struct call *c, struct area *a)
{
	if (a->brk) {
		set_brk(a->old_brk);
	} else {
		CHECK_OK(k->mem->unmap(k, a->va, a->end - a->va + MID_LEN));
		CHECK_OK(k->mem->unmap(k, a->to, 2 * MID_LEN));
	}
	CHECK_OK(balun_fence(k->space));
	kit_wait_used(k->dev, 0);
}
