// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The wrappers trace and inject over a driver that writes down what it is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/core.h"
#include "core/spec.h"
#include "drivers/wrap.h"

extern const struct balun_driver balun_trace_driver, balun_inject_driver;

#define SPACE	  ((struct balun_space *)0x1000)
#define DEVICE	  (&device)
#define HOST_BASE ((void *)(uintptr_t)BALUN_BLOCK_SIZE)

/* of it core uses what notes the drivers that are open */
static struct balun_device device;

/* what the driver inside saw last, and how often */
static struct {
	const char *op;
	unsigned int calls, opens, closes, waits;
	uint64_t a, b, n;
	int ret; /* what it answers */
} fake;

static int fake_saw(const char *op, uint64_t a, uint64_t b, uint64_t n)
{
	fake.op = op;
	fake.calls++;
	fake.a = a;
	fake.b = b;
	fake.n = n;
	return fake.ret;
}

static int fake_open(struct balun_device *dev, const struct balun_options *opt,
		     struct balun_desc *ret_desc, void **ret_priv)
{
	assert_ptr_equal(dev, DEVICE);
	ret_desc->mem_bytes = BALUN_BLOCK_SIZE;
	ret_desc->host_base = HOST_BASE;
	ret_desc->caps = BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY;
	*ret_priv = &fake;
	fake.opens++;
	return 0;
}

static void fake_close(void *priv)
{
	assert_ptr_equal(priv, &fake);
	fake.closes++;
}

static int fake_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	assert_ptr_equal(priv, &fake);
	assert_ptr_equal(space, SPACE);
	return fake_saw("map", seg->va, seg->len, n);
}

static void fake_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		       enum balun_cause cause)
{
	fake_saw("unmap", va, len, cause);
}

static int fake_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	if (!fake.ret)
		*ret_cookie = 77;
	return fake_saw("copy", op->dst, op->src, n);
}

static int fake_copy_wait(void *priv, uint64_t cookie)
{
	fake.waits++;
	return fake_saw("copy_wait", cookie, 0, 0);
}

static int fake_attach(void *priv, struct balun_space *space)
{
	return fake_saw("attach", (uintptr_t)space, 0, 0);
}

static void fake_gone(void *priv, struct balun_space *space)
{
	fake_saw("gone", (uintptr_t)space, 0, 0);
}

static int fake_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	if (!fake.ret)
		*ret_off = 0x10000;
	return fake_saw("alloc", len, 0, 0);
}

static void fake_free(void *priv, uint64_t off, uint64_t len)
{
	fake_saw("free", off, len, 0);
}

static void fake_unmap_begin(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			     enum balun_cause cause)
{
	fake_saw("unmap_begin", va, len, cause);
}

static void fake_unmap_wait(void *priv, struct balun_space *space)
{
	fake_saw("unmap_wait", (uintptr_t)space, 0, 0);
}

static int fake_peer_addr(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
			  uint64_t *ret_addr)
{
	if (!fake.ret)
		*ret_addr = 0x5000;
	return fake_saw("peer_addr", off, len, 0);
}

static void fake_trim(void *priv, uint64_t off, uint64_t len)
{
	fake_saw("trim", off, len, 0);
}

static uint64_t fake_footprint(void *priv)
{
	fake_saw("footprint", 0, 0, 0);
	return 4711;
}

static int fake_active(void *priv, bool on)
{
	return fake_saw("active", on, 0, 0);
}

#define FAKE_REQUIRED                                                                              \
	.size = sizeof(struct balun_driver), .help = "", .open = fake_open, .close = fake_close,   \
	.map = fake_map, .unmap = fake_unmap, .copy = fake_copy, .copy_wait = fake_copy_wait

static const struct balun_driver full_driver = {
	FAKE_REQUIRED,
	.name = "fakefull",
	.caps = WRAP_CAPS & ~BALUN_CAP_WRAPPER,
	.attach = fake_attach,
	.gone = fake_gone,
	.alloc = fake_alloc,
	.free = fake_free,
	.unmap_begin = fake_unmap_begin,
	.unmap_wait = fake_unmap_wait,
	.peer_addr = fake_peer_addr,
	.active = fake_active,
	.trim = fake_trim,
	.footprint = fake_footprint,
};

static const struct balun_driver bare_driver = {
	FAKE_REQUIRED,
	.name = "fakebare",
	.caps = BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY,
};

/* an open wrapper */
struct outer {
	const struct balun_driver *drv;
	struct balun_options *opt;
	struct balun_desc desc;
	void *priv;
};

static void drivers_put(void)
{
	while (device.nheld)
		core_driver_put(device.held[--device.nheld]);
}

static int outer_open(struct outer *o, const char *spec)
{
	int err;

	memset(o, 0, sizeof(*o));
	memset(&fake, 0, sizeof(fake));
	assert_int_equal(spec_parse(spec, &o->opt), 0);
	o->drv = !strcmp(spec_name(o->opt), "trace") ? &balun_trace_driver : &balun_inject_driver;
	err = o->drv->open(DEVICE, o->opt, &o->desc, &o->priv);
	if (err) {
		drivers_put();
		spec_free(o->opt);
	}
	return err;
}

static void outer_close(struct outer *o)
{
	o->drv->close(o->priv);
	drivers_put();
	assert_int_equal(fake.closes, fake.opens);
	spec_free(o->opt);
}

static int do_map(struct outer *o, size_t n)
{
	const struct balun_seg seg[4] = {
		{ 0x200000, 0x1000, 0, BALUN_KIND_LOCAL, BALUN_PERM_READ | BALUN_PERM_WRITE },
		{ 0x201000, 0x2000, 0x7000, BALUN_KIND_SYSTEM, BALUN_PERM_READ },
	};

	return o->drv->map(o->priv, SPACE, seg, n);
}

static int do_copy(struct outer *o, size_t n)
{
	const struct balun_copy op[4] = {
		{ 0x3000, 0x4000, 0x1000, BALUN_KIND_LOCAL, BALUN_KIND_SYSTEM },
		{ 0x5000, 0, 0x1000, BALUN_KIND_LOCAL, BALUN_KIND_ZERO },
	};
	uint64_t cookie = 1;
	int err = o->drv->copy(o->priv, op, n, &cookie);

	assert_int_equal(cookie, err ? 1 : 77);
	return err;
}

static void assert_saw(const char *op, uint64_t a, uint64_t b, uint64_t n)
{
	assert_string_equal(fake.op, op);
	assert_int_equal(fake.a, a);
	assert_int_equal(fake.b, b);
	assert_int_equal(fake.n, n);
}

/* every op reaches the inner driver with its arguments, and its answer comes back */
static void all_ops(struct outer *o, int ret)
{
	const struct balun_driver *d = o->drv;
	uint64_t v = 1;
	void *priv;

	fake.ret = ret;
	assert_int_equal(do_map(o, 2), ret);
	assert_saw("map", 0x200000, 0x1000, 2);
	d->unmap(o->priv, SPACE, 0x1000, 0x2000, BALUN_CAUSE_EVICTION);
	assert_saw("unmap", 0x1000, 0x2000, BALUN_CAUSE_EVICTION);
	assert_int_equal(do_copy(o, 2), ret);
	assert_saw("copy", 0x3000, 0x4000, 2);
	assert_int_equal(d->copy_wait(o->priv, 77), ret);
	assert_saw("copy_wait", 77, 0, 0);
	assert_int_equal(d->attach(o->priv, SPACE), ret);
	assert_saw("attach", (uintptr_t)SPACE, 0, 0);
	d->gone(o->priv, SPACE);
	assert_saw("gone", (uintptr_t)SPACE, 0, 0);
	assert_int_equal(d->alloc(o->priv, 0x10000, &v), ret);
	assert_saw("alloc", 0x10000, 0, 0);
	assert_int_equal(v, ret ? 1 : 0x10000);
	d->free(o->priv, 0x10000, 0x3000);
	assert_saw("free", 0x10000, 0x3000, 0);
	d->unmap_begin(o->priv, SPACE, 0x5000, 0x1000, BALUN_CAUSE_USER);
	assert_saw("unmap_begin", 0x5000, 0x1000, BALUN_CAUSE_USER);
	d->unmap_wait(o->priv, SPACE);
	assert_saw("unmap_wait", (uintptr_t)SPACE, 0, 0);
	v = 1;
	assert_int_equal(d->peer_addr(o->priv, DEVICE, 0x6000, 0x1000, &v), ret);
	assert_saw("peer_addr", 0x6000, 0x1000, 0);
	assert_int_equal(v, ret ? 1 : 0x5000);
	assert_int_equal(d->active(o->priv, true), ret);
	assert_saw("active", 1, 0, 0);
	d->trim(o->priv, 0x20000, 0x4000);
	assert_saw("trim", 0x20000, 0x4000, 0);
	assert_int_equal(d->footprint(o->priv), 4711);
	assert_saw("footprint", 0, 0, 0);
	assert_int_equal(fake.calls, 14);
	assert_ptr_equal(d->inner(o->priv, &priv), &full_driver);
	assert_ptr_equal(priv, &fake);
}

/* what env_log() writes while a test runs */
static int log_saved = -1;
static FILE *log_file;

static int log_begin(void **state)
{
	log_file = tmpfile();
	if (!log_file)
		return -1;
	fflush(stderr);
	log_saved = dup(STDERR_FILENO);
	return dup2(fileno(log_file), STDERR_FILENO) < 0 ? -1 : 0;
}

static int log_end(void **state)
{
	fflush(stderr);
	dup2(log_saved, STDERR_FILENO);
	close(log_saved);
	fclose(log_file);
	return 0;
}

/* how many lines contain @what */
static unsigned int log_lines(const char *what)
{
	char line[512];
	unsigned int n = 0;

	fflush(stderr);
	rewind(log_file);
	while (fgets(line, sizeof(line), log_file))
		n += !!strstr(line, what);
	return n;
}

static void trace_passes_all_ops(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "trace(fakefull)"), 0);
	assert_int_equal(o.desc.caps, BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY | BALUN_CAP_WRAPPER);
	assert_int_equal(o.desc.mem_bytes, BALUN_BLOCK_SIZE);
	assert_ptr_equal(o.desc.host_base, HOST_BASE);
	all_ops(&o, 0);
	outer_close(&o);
	assert_int_equal(outer_open(&o, "trace(fakefull):quiet=1"), 0);
	all_ops(&o, -EIO);
	outer_close(&o);
}

static void trace_writes_a_line_a_call(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "trace(fakefull)"), 0);
	all_ops(&o, -EIO);
	assert_int_equal(log_lines("trace(fakefull): "), 1 + 13);
	assert_int_equal(log_lines("map space"), 2);
	assert_int_equal(log_lines("0x200000+0x1000 local@0x0 rw-, 0x201000+0x2000 system@0x7000 "
				   "r-- = -5, "),
			 1);
	assert_int_equal(log_lines("copy 2: local@0x3000<-system@0x4000 0x1000, "
				   "local@0x5000<-zero@0x0 0x1000 = -5, "),
			 1);
	assert_int_equal(log_lines("0x1000+0x2000, eviction = 0, "), 1);
	outer_close(&o);
	assert_int_equal(log_lines("total map 1 calls, 1 failed, "), 1);
	assert_int_equal(log_lines("total unmap 1 calls, 0 failed, "), 1);
}

static void trace_cuts_long_lines(void **state)
{
	struct balun_seg seg[64];
	struct outer o;
	size_t i;

	for (i = 0; i < 64; i++)
		seg[i] = (struct balun_seg){
			.va = i << 13, .len = 0x1000, .addr = i << 20, .kind = i % 5, .perm = 7
		};
	assert_int_equal(outer_open(&o, "trace(fakefull)"), 0);
	assert_int_equal(o.drv->map(o.priv, SPACE, seg, 64), 0);
	assert_int_equal(log_lines("map space"), 1);
	assert_int_equal(log_lines(" = 0, "), 2); /* open's and its end is not cut off */
	outer_close(&o);
}

static void trace_quiet_counts(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "trace(fakefull):quiet=1"), 0);
	all_ops(&o, 0);
	assert_int_equal(log_lines("trace"), 0);
	outer_close(&o);
	assert_int_equal(log_lines("total"), 1 + 13 + 1);
	assert_int_equal(log_lines("total copy_wait 1 calls, 0 failed, "), 1);
}

static void trace_refuses(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "trace"), -EINVAL);
	assert_int_equal(outer_open(&o, "trace(fakefull):quiet=2"), -EINVAL);
	assert_int_equal(outer_open(&o, "trace(fakefull):quiet=x"), -EINVAL);
	assert_int_equal(fake.opens, 0);
}

static void bare_driver_gets_stubs(void **state)
{
	static const char *const specs[] = { "trace(fakebare)", "inject(fakebare)" };
	struct outer o;
	size_t i;

	for (i = 0; i < 2; i++) {
		assert_int_equal(outer_open(&o, specs[i]), 0);
		assert_int_equal(o.drv->attach(o.priv, SPACE), 0);
		assert_int_equal(o.drv->active(o.priv, true), 0);
		assert_int_equal(do_copy(&o, 2), 0);
		o.drv->gone(o.priv, SPACE);
		outer_close(&o);
	}
}

static void inject_passes_all_ops(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "inject(fakefull)"), 0);
	assert_int_equal(o.desc.caps, BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY | BALUN_CAP_WRAPPER);
	assert_ptr_equal(o.desc.host_base, HOST_BASE);
	all_ops(&o, 0);
	outer_close(&o);
	assert_int_equal(outer_open(&o, "inject(fakefull)"), 0);
	all_ops(&o, -ENOMEM);
	outer_close(&o);
}

static void inject_fails_the_nth(void **state)
{
	struct outer o;
	int i;

	assert_int_equal(outer_open(&o, "inject(fakefull):op=copy,nth=3"), 0);
	for (i = 1; i <= 6; i++) {
		assert_int_equal(do_map(&o, 1), 0); /* not counted */
		assert_int_equal(do_copy(&o, 1), i == 3 ? -EIO : 0);
	}
	outer_close(&o);
}

static void inject_does_half_before_it_fails(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "inject(fakefull):op=copy,every=1"), 0);
	assert_int_equal(do_copy(&o, 4), -EIO);
	assert_int_equal(fake.calls, 2);
	assert_int_equal(fake.waits, 1); /* and is done with it */
	assert_int_equal(do_copy(&o, 1), -EIO);
	assert_int_equal(fake.calls, 2);
	fake.ret = -ENOMEM; /* nothing to wait for when the half fails by itself */
	assert_int_equal(do_copy(&o, 2), -EIO);
	assert_int_equal(fake.waits, 1);
	outer_close(&o);

	assert_int_equal(outer_open(&o, "inject(fakefull):op=map,error=EBUSY"), 0);
	assert_int_equal(do_map(&o, 4), -EBUSY);
	assert_saw("map", 0x200000, 0x1000, 2);
	outer_close(&o);
}

static void inject_waits_before_it_denies(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "inject(fakefull):op=copy_wait,nth=1"), 0);
	assert_int_equal(o.drv->copy_wait(o.priv, 5), -EIO);
	assert_int_equal(fake.waits, 1);
	fake.ret = -ETIMEDOUT;
	assert_int_equal(o.drv->copy_wait(o.priv, 6), -ETIMEDOUT);
	outer_close(&o);
}

static void inject_every(void **state)
{
	struct outer o;
	int i;

	assert_int_equal(outer_open(&o, "inject(fakefull):op=attach,every=4"), 0);
	for (i = 1; i <= 12; i++)
		assert_int_equal(o.drv->attach(o.priv, SPACE), i % 4 ? 0 : -ENOMEM);
	outer_close(&o);
	/* all: one count over every op that can fail; open is the first */
	assert_int_equal(outer_open(&o, "inject(fakefull):every=2"), 0);
	assert_int_equal(do_map(&o, 1), -ENOMEM);
	assert_int_equal(do_copy(&o, 1), 0);
	assert_int_equal(o.drv->active(o.priv, false), -EIO);
	outer_close(&o);
}

/* which of 64 calls a spec chooses */
static uint64_t chosen(const char *spec)
{
	uint64_t bits = 0, v;
	struct outer o;
	int i;

	assert_int_equal(outer_open(&o, spec), 0);
	for (i = 0; i < 64; i++)
		bits |= (uint64_t)(o.drv->alloc(o.priv, 0x1000, &v) != 0) << i;
	outer_close(&o);
	return bits;
}

static void inject_rate_is_deterministic(void **state)
{
	uint64_t a = chosen("inject(fakefull):op=alloc,rate=4,seed=1");

	assert_true(a && a != UINT64_MAX);
	assert_int_equal(a, chosen("inject(fakefull):op=alloc,rate=4"));
	assert_int_not_equal(a, chosen("inject(fakefull):op=alloc,rate=4,seed=2"));
	assert_int_equal(chosen("inject(fakefull):op=alloc,rate=1"), UINT64_MAX);
}

static void inject_delays(void **state)
{
	uint64_t start;
	struct outer o;

	/* late and right; without a choice every call */
	assert_int_equal(outer_open(&o, "inject(fakefull):op=unmap,delay=2ms"), 0);
	start = env_now_ns();
	o.drv->unmap(o.priv, SPACE, 0, 0x1000, BALUN_CAUSE_USER);
	o.drv->unmap_begin(o.priv, SPACE, 0, 0x1000, BALUN_CAUSE_USER);
	assert_true(env_now_ns() - start >= 4000000);
	assert_int_equal(fake.calls, 2);
	outer_close(&o);
	/* late and wrong */
	assert_int_equal(outer_open(&o, "inject(fakefull):op=map,delay=1ms,error=EIO,nth=2"), 0);
	assert_int_equal(do_map(&o, 1), 0);
	start = env_now_ns();
	assert_int_equal(do_map(&o, 1), -EIO);
	assert_true(env_now_ns() - start >= 1000000);
	outer_close(&o);
}

static void inject_fails_open(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "inject(fakefull):op=open,nth=1"), -ENODEV);
	assert_int_equal(outer_open(&o, "inject(fakefull):nth=1,error=ENOMEM"), -ENOMEM);
	assert_int_equal(fake.opens, 0);
}

/* a copy says so by its error; what other ops tell core is a case of the conformance kit */
static void inject_lost_in_a_copy(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "inject(fakefull):op=copy_wait,nth=2,lost=1"), 0);
	assert_int_equal(do_copy(&o, 1), 0);
	assert_int_equal(o.drv->copy_wait(o.priv, 5), 0);
	assert_int_equal(do_copy(&o, 1), 0);
	assert_int_equal(o.drv->copy_wait(o.priv, 6), -ENODEV);
	assert_int_equal(fake.waits, 2);
	assert_int_equal(do_copy(&o, 1), -ENODEV);
	assert_int_equal(do_map(&o, 1), -EIO);
	outer_close(&o);
}

static void inject_lost_needs_a_call(void **state)
{
	struct outer o;

	/* there is nothing to lose yet: open is not chosen */
	assert_int_equal(outer_open(&o, "inject(fakefull):op=open,nth=1,lost=1"), 0);
	assert_int_equal(do_copy(&o, 1), 0);
	outer_close(&o);
	assert_int_equal(outer_open(&o, "inject(fakefull):op=unmap,nth=5,lost=1"), 0);
	assert_int_equal(do_copy(&o, 1), 0);
	outer_close(&o);
}

static void inject_hides_host_memory(void **state)
{
	struct outer o;

	assert_int_equal(outer_open(&o, "inject(fakefull):nomove=1"), 0);
	assert_int_equal(o.desc.caps, BALUN_CAP_MMU | BALUN_CAP_WRAPPER);
	assert_null(o.desc.host_base);
	outer_close(&o);
}

static void inject_refuses(void **state)
{
	static const char *const bad[] = {
		"inject",
		"inject(fakefull):op=close",
		"inject(fakefull):error=EPERM",
		"inject(fakefull):nth=x",
		"inject(fakefull):delay=3",
		"inject(fakefull):delay=3x",
		"inject(fakefull):op=unmap,nth=1",
		"inject(fakefull):op=unmap,error=EIO",
		"inject(fakefull):nomove=2",
		"inject(fakefull):lost=2",
	};
	struct outer o;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(outer_open(&o, bad[i]), -EINVAL);
	assert_int_equal(fake.opens, 0);
}

static void wrappers_nest(void **state)
{
	const struct balun_driver *drv;
	struct outer o;
	void *priv;

	assert_int_equal(outer_open(&o, "inject(trace(fakefull):quiet=1):op=copy,nth=1"), 0);
	assert_int_equal(do_copy(&o, 1), -EIO);
	assert_int_equal(do_copy(&o, 1), 0);
	assert_saw("copy", 0x3000, 0x4000, 1);
	drv = o.drv->inner(o.priv, &priv);
	assert_ptr_equal(drv, &balun_trace_driver);
	assert_ptr_equal(drv->inner(priv, &priv), &full_driver);
	outer_close(&o);
}

static int register_fakes(void **state)
{
	return balun_driver_register(&full_driver) || balun_driver_register(&bare_driver);
}

#define LOGGED(fn) cmocka_unit_test_setup_teardown(fn, log_begin, log_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOGGED(trace_passes_all_ops),
		LOGGED(trace_writes_a_line_a_call),
		LOGGED(trace_cuts_long_lines),
		LOGGED(trace_quiet_counts),
		LOGGED(trace_refuses),
		LOGGED(bare_driver_gets_stubs),
		cmocka_unit_test(inject_passes_all_ops),
		cmocka_unit_test(inject_fails_the_nth),
		cmocka_unit_test(inject_does_half_before_it_fails),
		cmocka_unit_test(inject_waits_before_it_denies),
		cmocka_unit_test(inject_every),
		cmocka_unit_test(inject_rate_is_deterministic),
		cmocka_unit_test(inject_delays),
		cmocka_unit_test(inject_fails_open),
		cmocka_unit_test(inject_lost_in_a_copy),
		cmocka_unit_test(inject_lost_needs_a_call),
		cmocka_unit_test(inject_hides_host_memory),
		cmocka_unit_test(inject_refuses),
		LOGGED(wrappers_nest),
	};

	return cmocka_run_group_tests(tests, register_fakes, NULL);
}
