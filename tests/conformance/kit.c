/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * One case in its own process: what is made for it before, what is checked after it.
 */
#include "kit.h"

#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct kit_verdict *kit_verdict;

/* the kit's own addresses, far below where the kernel maps things unasked: what a case has
 * unmapped stays unmapped. Sanitizers leave different ranges free. */
#if KIT_TSAN
#define KIT_BASE 0x4000000000ULL
#else
#define KIT_BASE 0x200000000000ULL
#endif

static void verdict_set(int what, const char *fmt, va_list ap)
{
	int none = 0;

	/* any thread, or a forked child: the first one counts */
	if (!__atomic_compare_exchange_n(&kit_verdict->set, &none, what, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return;
	vsnprintf(kit_verdict->text, sizeof(kit_verdict->text), fmt, ap);
}

static const char *base_name(const char *file)
{
	const char *slash = strrchr(file, '/');

	return slash ? slash + 1 : file;
}

static void verdict_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void verdict_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	verdict_set(1, fmt, ap);
	va_end(ap);
}

void kit_fail(const char *file, int line, const char *fmt, ...)
{
	char what[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	verdict_fail("%s:%d %s", base_name(file), line, what);
	_exit(1);
}

void kit_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	verdict_set(2, fmt, ap);
	va_end(ap);
	_exit(0);
}

void kit_needs_kernel_faults(struct kit *k)
{
	struct balun_engine_info info = { .size = sizeof(info) };
	unsigned int i;

	for (i = 0; !balun_engine_info(i, &info); i++)
		if (!strcmp(info.name, k->engine) && strstr(info.how, "user mode only"))
			kit_skip("%s", info.reason);
}

void kit_check_rc(const char *file, int line, const char *call, int rc, int want)
{
	if (rc == want)
		return;
	kit_fail(file, line, "%s is %d (%s), not %d; reason: %s", call, rc,
		 rc < 0 ? strerror(-rc) : "no error", want, balun_reason());
}

/* ---- before and after ---- */

int kit_open_space(struct kit *k)
{
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = k->engine };

	return balun_space_create(&opts, &k->space);
}

static int kit_open_device(struct kit *k, const char *opts, struct balun_device **ret_dev)
{
	char spec[600];

	snprintf(spec, sizeof(spec), "probe(%s)%s%s", k->driver, opts && *opts ? ":" : "",
		 opts ? opts : "");
	return balun_device_open(k->space, spec, ret_dev);
}

struct balun_device *kit_device(struct kit *k, const char *opts)
{
	struct balun_device *dev;
	unsigned int i;

	CHECK_OK(kit_open_device(k, opts, &dev));
	for (i = 0; i < KIT_MAX_DEVICES && k->devices[i]; i++)
		;
	CHECK(i < KIT_MAX_DEVICES);
	k->devices[i] = dev;
	return dev;
}

static void kit_check_breach(const char *what)
{
	if (what)
		kit_fail(__FILE__, __LINE__, "core broke the driver contract: %s", what);
}

int kit_close(struct kit *k, struct balun_device *dev)
{
	unsigned int i;
	int rc;

	for (i = 0; i < KIT_MAX_DEVICES && k->devices[i] != dev; i++)
		;
	CHECK(i < KIT_MAX_DEVICES);
	k->devices[i] = NULL;
	if (dev == k->dev)
		k->dev = NULL;
	kit_check_breach(probe_breach(dev));
	rc = balun_device_close(dev);
	kit_check_breach(probe_last_breach());
	return rc;
}

/* The breaches in the kernel that outlived their device; a device of a new space is asked. */
static const char *kit_last_of_kernel(struct kit *k)
{
	const char *what;

	CHECK_OK(kit_open_space(k));
	k->dev = kit_device(k, "mem=2M");
	what = probe_last_breach_of(k->dev);
	CHECK_OK(kit_close(k, k->dev));
	CHECK_OK(balun_space_destroy(k->space));
	k->space = NULL;
	return what;
}

#define KIT_WARM 8
static unsigned int warm;

static void *warm_main(void *arg)
{
	(void)arg;
	__atomic_add_fetch(&warm, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&warm, __ATOMIC_ACQUIRE) < KIT_WARM)
		sched_yield();
	return NULL;
}

/*
 * While a copy waits in the kernel nobody can change the mappings of the process. What a case does
 * meanwhile must not need one: stacks of threads are taken from those that have ended. And once
 * somebody waits to change one, not even a fault is served: code and data are here before.
 */
static void kit_warm(struct kit *k)
{
	pthread_t t[KIT_WARM];
	int i;

	k->locked = !mlockall(MCL_CURRENT);
	for (i = 0; i < KIT_WARM; i++)
		t[i] = kit_thread(warm_main, NULL);
	for (i = 0; i < KIT_WARM; i++)
		kit_join(t[i]);
	probe_warm();
}

static void kit_begin(const struct kit_case *c, struct kit *k)
{
	CHECK_OK(balun_driver_register(&probe_driver));
	if (k->so)
		CHECK_OK(balun_driver_load(k->so));
	k->next_va = KIT_BASE;
	if (k->kernel)
		kit_warm(k);
	if (c->flags & KIT_NO_SPACE)
		return;
	CHECK_OK(kit_open_space(k));
	if (!(c->flags & KIT_NO_DEVICE))
		k->dev = kit_device(k, c->dev);
}

static uint64_t kit_caps(struct balun_device *dev)
{
	struct balun_device_info info = { .size = sizeof(info) };

	CHECK_OK(balun_device_info(dev, &info));
	return info.caps;
}

static bool lacks(const struct kit *k, const char *feature)
{
	struct balun_engine_info e = { .size = sizeof(e) };
	unsigned int i;

	for (i = 0; !balun_engine_info(i, &e); i++)
		if (!strcmp(e.name, k->engine))
			return strstr(e.features, feature);
	return false;
}

bool kit_no_private(const struct kit *k)
{
	return k->kernel && lacks(k, "-PRIVATE");
}

bool kit_no_poison(const struct kit *k)
{
	static int says; /* asked at each page that is lost */

	if (!says)
		says = !strcmp(k->engine, "uffd") && lacks(k, "-POISON") ? 1 : -1;
	return says > 0;
}

void kit_needs_private(struct kit *k, struct balun_device *dev)
{
	if (kit_no_private(k) && (!dev || !(kit_caps(dev) & BALUN_CAP_COHERENT)))
		kit_skip("this kernel has no device-private memory (CONFIG_DEVICE_PRIVATE)");
}

static void kit_needs(const struct kit_case *c, struct kit *k)
{
	if (c->flags & KIT_PROCESS && !strcmp(k->engine, "sim"))
		kit_skip("needs a real process, and the engine is sim");
	if (c->flags & KIT_HERE && k->kernel)
		kit_skip("looks at drivers and memory in its own process, and these are in the "
			 "kernel");
	if (c->flags & KIT_OWN_FN && k->kernel)
		kit_skip("launches a function of the program, and the device is the kernel's");
	if (KIT_TSAN && (c->flags & KIT_CHILD || (c->flags & KIT_FORK && k->mem == &mem_process)))
		kit_skip("forks a process with threads, which TSan cannot follow");
	if (c->flags & KIT_SOFT && (!k->dev || balun_soft_workers(k->dev) < 0))
		kit_skip("the driver is not soft: it runs no functions");
	if (c->flags & KIT_PEER && !(kit_caps(k->dev) & BALUN_CAP_PEER))
		kit_skip("the driver does not declare BALUN_CAP_PEER");
	if (c->flags & KIT_COHERENT && !(kit_caps(k->dev) & BALUN_CAP_COHERENT))
		kit_skip(
			"no coherent memory: the device has none, or the engine does not offer it");
}

static void kit_end(struct kit *k)
{
	unsigned int i;

	if (!k->space)
		return;
	CHECK_OK(balun_sync(k->space));
	for (i = 0; i < k->nregions; i++)
		CHECK_OK(k->mem->unmap(k, k->region[i].va, k->region[i].len));
	CHECK_OK(balun_fence(k->space));
	for (i = 0; i < KIT_MAX_DEVICES; i++) {
		if (!k->devices[i])
			continue;
		kit_wait_used(k->devices[i], 0);
		CHECK_OK(kit_close(k, k->devices[i]));
	}
	CHECK_OK(balun_space_destroy(k->space));
	kit_check_breach(k->kernel ? kit_last_of_kernel(k) : probe_last_breach());
}

#define KIT_EARLY (KIT_PROCESS | KIT_FORK | KIT_CHILD | KIT_HERE | KIT_OWN_FN)

int kit_run(const struct kit_case *c, struct kit *k)
{
	k->mem = strcmp(k->engine, "sim") ? &mem_process : &mem_sim;
	k->kernel = !strcmp(k->engine, "kernel");
	/* before anything is opened, if it can be told by then */
	if (c->flags & KIT_EARLY) {
		struct kit_case early = *c;

		early.flags &= KIT_EARLY;
		kit_needs(&early, k);
	}
	kit_begin(c, k);
	kit_needs(c, k);
	c->fn(k);
	kit_end(k);
	return 0;
}

/* ---- memory ---- */

uint64_t kit_place(struct kit *k, uint64_t len)
{
	uint64_t va = k->next_va;

	k->next_va += (len + 2 * BALUN_BLOCK_SIZE - 1) & ~(BALUN_BLOCK_SIZE - 1);
	return va;
}

uint64_t kit_map(struct kit *k, uint64_t len, unsigned int prot)
{
	uint64_t va = kit_place(k, len);

	CHECK_OK(k->mem->map(k, va, len, prot));
	CHECK(k->nregions < KIT_MAX_REGIONS);
	k->region[k->nregions].va = va;
	k->region[k->nregions++].len = len;
	return va;
}

uint64_t kit_filled(struct kit *k, uint64_t len, uint64_t seed)
{
	uint64_t va = kit_map(k, len, KIT_RW);

	kit_fill(k, va, len, seed);
	return va;
}

static uint64_t pattern_word(uint64_t i, uint64_t seed)
{
	uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ULL ^ (seed + 1) * 0xbf58476d1ce4e5b9ULL;

	return seed == KIT_ZEROS ? 0 : x ^ x >> 29;
}

void kit_pattern(void *buf, uint64_t at, size_t len, uint64_t seed)
{
	size_t off;

	for (off = 0; off < len; off += sizeof(uint64_t)) {
		uint64_t w = pattern_word((at + off) / sizeof(w), seed);

		memcpy((char *)buf + off, &w, sizeof(w));
	}
}

void kit_fill_at(struct kit *k, uint64_t va, uint64_t len, uint64_t seed, uint64_t at)
{
	char buf[PAGE];
	uint64_t off;

	for (off = 0; off < len; off += sizeof(buf)) {
		size_t part = len - off < sizeof(buf) ? len - off : sizeof(buf);

		kit_pattern(buf, at + off, part, seed);
		CHECK_OK(k->mem->store(k, va + off, buf, part));
	}
}

void kit_fill(struct kit *k, uint64_t va, uint64_t len, uint64_t seed)
{
	kit_fill_at(k, va, len, seed, 0);
}

void dev_fill(struct balun_device *dev, uint64_t va, uint64_t len, uint64_t seed)
{
	char buf[PAGE];
	uint64_t off;

	for (off = 0; off < len; off += sizeof(buf)) {
		size_t part = len - off < sizeof(buf) ? len - off : sizeof(buf);

		kit_pattern(buf, off, part, seed);
		CHECK_OK(dev_write(dev, va + off, buf, part));
	}
}

/* what was read must be the pattern */
static void compare(const char *file, int line, const char *who, const char *got, uint64_t va,
		    size_t len, uint64_t seed, uint64_t at)
{
	char want[PAGE];
	size_t i;

	kit_pattern(want, at, len, seed);
	if (!memcmp(got, want, len))
		return;
	for (i = 0; got[i] == want[i]; i++)
		;
	kit_fail(file, line, "%s reads wrong data at %#llx (offset %#llx): %02x, not %02x", who,
		 (unsigned long long)(va + i), (unsigned long long)(at + i), got[i] & 0xff,
		 want[i] & 0xff);
}

void kit_verify_at(const char *file, int line, struct kit *k, uint64_t va, uint64_t len,
		   uint64_t seed, uint64_t at)
{
	char got[PAGE];
	uint64_t off;

	for (off = 0; off < len; off += sizeof(got)) {
		size_t part = len - off < sizeof(got) ? len - off : sizeof(got);
		int rc = k->mem->load(k, va + off, got, part);

		if (rc)
			kit_fail(file, line, "a load of %#llx (offset %#llx) fails: %s",
				 (unsigned long long)(va + off), (unsigned long long)(at + off),
				 strerror(-rc));
		compare(file, line, "the CPU", got, va + off, part, seed, at + off);
	}
}

void dev_verify_at(const char *file, int line, struct balun_device *dev, uint64_t va, uint64_t len,
		   uint64_t seed, uint64_t at)
{
	char got[PAGE];
	uint64_t off;

	for (off = 0; off < len; off += sizeof(got)) {
		size_t part = len - off < sizeof(got) ? len - off : sizeof(got);

		kit_check_rc(file, line, "dev_read()", dev_read(dev, va + off, got, part), 0);
		compare(file, line, "the device", got, va + off, part, seed, at + off);
	}
}

void child_verify_at(const char *file, int line, struct kit *k, struct kit_child *c, uint64_t va,
		     uint64_t len, uint64_t seed)
{
	char got[PAGE];
	uint64_t off;

	for (off = 0; off < len; off += sizeof(got)) {
		size_t part = len - off < sizeof(got) ? len - off : sizeof(got);

		kit_check_rc(file, line, "load in the child",
			     k->mem->child_load(c, va + off, got, part), 0);
		compare(file, line, "the child", got, va + off, part, seed, off);
	}
}

uint64_t cpu_read64(struct kit *k, uint64_t va)
{
	uint64_t v = 0;

	CHECK_OK(k->mem->load(k, va, &v, sizeof(v)));
	return v;
}

void cpu_write64(struct kit *k, uint64_t va, uint64_t v)
{
	CHECK_OK(k->mem->store(k, va, &v, sizeof(v)));
}
