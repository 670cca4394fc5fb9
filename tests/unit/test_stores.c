// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Wrappers that change what is stored, or where, over devices whose memory is looked into. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/core.h"
#include "core/spec.h"
#include "drivers/wrap.h"

#define PAGE   4096ULL
#define BYTES  (2 * BALUN_BLOCK_SIZE)
#define STORES 3
#define DEVICE (&device)

static struct balun_device device;

/* the devices inside, in the order in which they were opened */
static struct store {
	char mem[BYTES];
	int copy_err, wait_err; /* what it answers from now on, having done the work or not */
	unsigned int copies, waits, trims, closes, attached;
	uint64_t trim_off, trim_len;
} store[STORES];
static unsigned int stores;

static int store_open(struct balun_device *dev, const struct balun_options *opt,
		      struct balun_desc *ret_desc, void **ret_priv)
{
	uint64_t bytes;
	int err = balun_opt_size(opt, "mem", BYTES, &bytes);

	if (err)
		return err;
	assert_true(bytes <= BYTES && stores < STORES);
	ret_desc->mem_bytes = bytes;
	ret_desc->host_base = (void *)(uintptr_t)BALUN_BLOCK_SIZE;
	ret_desc->caps = BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY;
	*ret_priv = &store[stores++];
	return 0;
}

static void store_close(void *priv)
{
	((struct store *)priv)->closes++;
}

static int store_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return -EIO; /* nobody maps here */
}

static void store_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			enum balun_cause cause)
{
}

static char *operand(struct store *s, uint32_t kind, uint64_t addr, uint64_t len)
{
	if (kind == BALUN_KIND_SYSTEM)
		return balun_bus_ptr(addr, len);
	assert_int_equal(kind, BALUN_KIND_LOCAL);
	assert_true(addr + len <= BYTES);
	return s->mem + addr;
}

static int store_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct store *s = priv;

	s->copies++;
	if (s->copy_err)
		return s->copy_err;
	for (; n--; op++) {
		char *dst = operand(s, op->dst_kind, op->dst, op->len);

		if (op->src_kind == BALUN_KIND_ZERO)
			memset(dst, 0, op->len);
		else
			memcpy(dst, operand(s, op->src_kind, op->src, op->len), op->len);
	}
	*ret_cookie = 0;
	return 0;
}

static int store_copy_wait(void *priv, uint64_t cookie)
{
	struct store *s = priv;

	s->waits++;
	return s->wait_err;
}

static int store_attach(void *priv, struct balun_space *space)
{
	struct store *s = priv;

	if (s->copy_err)
		return s->copy_err;
	s->attached++;
	return 0;
}

static void store_gone(void *priv, struct balun_space *space)
{
	((struct store *)priv)->attached--;
}

static void store_trim(void *priv, uint64_t off, uint64_t len)
{
	struct store *s = priv;

	s->trims++;
	s->trim_off = off;
	s->trim_len = len;
}

/* a page for each copy to or from it */
static uint64_t store_footprint(void *priv)
{
	return ((struct store *)priv)->copies * PAGE;
}

/* with a memory manager of its own */
static int own_open(struct balun_device *dev, const struct balun_options *opt,
		    struct balun_desc *ret_desc, void **ret_priv)
{
	int err = store_open(dev, opt, ret_desc, ret_priv);

	ret_desc->caps |= BALUN_CAP_ALLOC;
	return err;
}

#define STORE                                                                                      \
	.size = sizeof(struct balun_driver), .help = "mem=4M  memory\n", .close = store_close,     \
	.map = store_map, .unmap = store_unmap, .copy = store_copy, .copy_wait = store_copy_wait,  \
	.attach = store_attach, .gone = store_gone, .trim = store_trim,                            \
	.footprint = store_footprint

static const struct balun_driver store_driver = {
	STORE,
	.open = store_open,
	.name = "store",
	.caps = BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY,
};

static int full_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	*ret_off = 0;
	return 0;
}

static void full_free(void *priv, uint64_t off, uint64_t len)
{
}

static const struct balun_driver own_driver = {
	STORE,
	.open = own_open,
	.name = "own",
	.caps = BALUN_CAP_MMU | BALUN_CAP_HOST_MEMORY | BALUN_CAP_ALLOC,
	.alloc = full_alloc,
	.free = full_free,
};

/* ---- an open device ---- */

static struct {
	const struct balun_driver *drv;
	struct balun_options *opt;
	struct balun_desc desc;
	void *priv;
} dev;

static char *host; /* system memory */

static void drivers_put(void)
{
	while (device.nheld)
		core_driver_put(device.held[--device.nheld]);
}

static int dev_open(const char *spec)
{
	int err;

	memset(store, 0, sizeof(store));
	memset(&dev, 0, sizeof(dev));
	memset(host, 0, 2 * BYTES);
	stores = 0;
	assert_int_equal(spec_parse(spec, &dev.opt), 0);
	dev.drv = core_driver_get(spec_name(dev.opt));
	assert_non_null(dev.drv);
	core_driver_put(dev.drv);
	err = dev.drv->open(DEVICE, dev.opt, &dev.desc, &dev.priv);
	if (err) {
		drivers_put();
		spec_free(dev.opt);
	}
	return err;
}

static void dev_close(void)
{
	unsigned int i;

	dev.drv->close(dev.priv);
	drivers_put();
	for (i = 0; i < stores; i++)
		assert_int_equal(store[i].closes, 1);
	spec_free(dev.opt);
}

static int run(const struct balun_copy *op, size_t n)
{
	uint64_t cookie;
	int err = dev.drv->copy(dev.priv, op, n, &cookie);

	return err ? err : dev.drv->copy_wait(dev.priv, cookie);
}

static struct balun_copy op_out(uint64_t off, uint64_t at, uint64_t pages)
{
	return (struct balun_copy){ .dst = off,
				    .dst_kind = BALUN_KIND_LOCAL,
				    .src = (uintptr_t)host + at,
				    .src_kind = BALUN_KIND_SYSTEM,
				    .len = pages * PAGE };
}

static struct balun_copy op_home(uint64_t at, uint64_t off, uint64_t pages)
{
	return (struct balun_copy){ .dst = (uintptr_t)host + at,
				    .dst_kind = BALUN_KIND_SYSTEM,
				    .src = off,
				    .src_kind = BALUN_KIND_LOCAL,
				    .len = pages * PAGE };
}

/* from or to host at the same offset */
static int out(uint64_t off, uint64_t pages)
{
	struct balun_copy op = op_out(off, off, pages);

	return run(&op, 1);
}

static int home(uint64_t off, uint64_t pages)
{
	struct balun_copy op = op_home(off, off, pages);

	return run(&op, 1);
}

static void fill(uint64_t off, uint64_t pages, unsigned int seed)
{
	uint64_t i;

	for (i = off; i < off + pages * PAGE; i++)
		host[i] = (char)(i * 7 + i / PAGE * 13 + seed);
}

static void check(uint64_t off, uint64_t pages, unsigned int seed)
{
	uint64_t i;

	for (i = off; i < off + pages * PAGE; i++)
		if (host[i] != (char)(i * 7 + i / PAGE * 13 + seed))
			fail_msg("byte 0x%llx", (unsigned long long)i);
}

/* ---- crypt ---- */
#ifdef BALUN_HAVE_CRYPT

static const char *const ciphers[] = { "crypt(store)", "crypt(store):cipher=xchacha20" };

static void crypt_round(const char *spec)
{
	const struct balun_copy mixed[] = {
		op_out(0, 3 * PAGE, 1),
		{ .dst = PAGE,
		  .dst_kind = BALUN_KIND_LOCAL,
		  .src_kind = BALUN_KIND_ZERO,
		  .len = PAGE },
		op_out(5 * PAGE, 0, 3),
	};
	const struct balun_copy back[] = {
		op_home(BYTES + 3 * PAGE, 0, 2),
		op_home(BYTES, 5 * PAGE, 3),
	};

	assert_int_equal(dev_open(spec), 0);
	fill(0, 4, 1);
	memset(host + BYTES, 1, 8 * PAGE);
	assert_int_equal(run(mixed, 3), 0);
	assert_int_equal(store[0].copies, 1);
	assert_memory_not_equal(store[0].mem, host + 3 * PAGE, 64);
	assert_int_equal(run(back, 2), 0);
	assert_memory_equal(host, host + BYTES, 4 * PAGE);
	for (uint64_t i = 0; i < PAGE; i++)
		assert_int_equal(host[BYTES + 4 * PAGE + i], 0);
	/* a whole block */
	fill(0, 512, 2);
	assert_int_equal(out(BALUN_BLOCK_SIZE, 512), 0);
	dev_close();
}

static void crypt_goes_round(void **state)
{
	crypt_round(ciphers[0]);
	crypt_round(ciphers[1]);
}

/* the same page stored twice, and in two places, is other ciphertext each time */
static void crypt_never_repeats(void **state)
{
	char text[3 * PAGE];

	assert_int_equal(dev_open("crypt(store)"), 0);
	assert_int_equal(out(0, 2), 0); /* zeros in memory: equal pages */
	memcpy(text, store[0].mem, 2 * PAGE);
	assert_int_equal(out(0, 1), 0);
	memcpy(text + 2 * PAGE, store[0].mem, PAGE);
	assert_memory_not_equal(text, text + PAGE, 32);
	assert_memory_not_equal(text, text + 2 * PAGE, 32);
	assert_memory_not_equal(text + PAGE, text + 2 * PAGE, 32);
	dev_close();
	/* and with another key */
	assert_int_equal(dev_open("crypt(store)"), 0);
	assert_int_equal(out(0, 1), 0);
	assert_memory_not_equal(text, store[0].mem, 32);
	dev_close();
}

/* what the device did to a page costs that page, and no other */
static void crypt_refuses_on(const char *spec)
{
	char old[PAGE], other[PAGE];

	assert_int_equal(dev_open(spec), 0);
	fill(0, 4, 1);
	assert_int_equal(out(0, 4), 0);
	memcpy(old, store[0].mem, PAGE);
	memcpy(other, store[0].mem + PAGE, PAGE);
	store[0].mem[2 * PAGE + 77] ^= 4; /* changed */
	assert_int_equal(home(2 * PAGE, 1), -EIO);
	assert_int_equal(home(0, 4), -EIO);
	assert_int_equal(home(0, 2), 0);
	assert_int_equal(home(3 * PAGE, 1), 0);
	check(3 * PAGE, 1, 1);
	memcpy(store[0].mem, other, PAGE); /* of another place */
	memcpy(store[0].mem + PAGE, old, PAGE);
	assert_int_equal(home(0, 1), -EIO);
	assert_int_equal(home(PAGE, 1), -EIO);
	memcpy(store[0].mem + PAGE, other, PAGE);
	assert_int_equal(home(PAGE, 1), 0);
	fill(0, 1, 2);
	assert_int_equal(out(0, 1), 0);
	memcpy(store[0].mem, old, PAGE); /* an older one */
	assert_int_equal(home(0, 1), -EIO);
	/* what was never stored does not come */
	assert_int_equal(home(100 * PAGE, 1), -EIO);
	dev_close();
}

static void crypt_refuses_what_was_not_stored(void **state)
{
	crypt_refuses_on(ciphers[0]);
	crypt_refuses_on(ciphers[1]);
}

static void crypt_hides_the_device(void **state)
{
	void *priv;

	assert_int_equal(dev_open("crypt(store)"), 0);
	assert_int_equal(dev.desc.caps, BALUN_CAP_WRAPPER);
	assert_null(dev.desc.host_base);
	assert_int_equal(dev.desc.mem_bytes, BYTES);
	assert_int_equal(dev.drv->map(dev.priv, NULL, NULL, 0), 0);
	assert_null(dev.drv->inner(dev.priv, &priv));
	dev.drv->trim(dev.priv, PAGE, 2 * PAGE);
	assert_int_equal(store[0].trim_off, PAGE);
	store[0].copies = 3;
	assert_int_equal(dev.drv->footprint(dev.priv), 3 * PAGE);
	dev_close();
	assert_int_equal(dev_open("crypt(own)"), 0);
	assert_int_equal(dev.desc.caps, BALUN_CAP_WRAPPER | BALUN_CAP_ALLOC);
	dev_close();
	assert_int_equal(dev_open("crypt(store):cipher=rot13"), -EINVAL);
	assert_int_equal(dev_open("crypt"), -EINVAL);
	assert_int_equal(dev_open("crypt(store,store)"), -EINVAL);
}

/* errors of the device come through, and a batch in error gives its memory back */
static void crypt_passes_errors(void **state)
{
	static const int err[] = { -EIO, -ENODEV, -ENOSPC };
	unsigned int i, k;

	assert_int_equal(dev_open("crypt(store)"), 0);
	fill(0, 1, 1);
	assert_int_equal(out(0, 1), 0);
	for (k = 0; k < 10; k++)
		for (i = 0; i < 3; i++) {
			store[0].copy_err = err[i];
			assert_int_equal(out(PAGE, 1), err[i]);
			store[0].copy_err = 0;
			store[0].wait_err = err[i];
			assert_int_equal(home(0, 1), err[i]);
			store[0].wait_err = 0;
		}
	assert_int_equal(home(0, 1), 0);
	check(0, 1, 1);
	/* outside of the memory, or more than a block */
	assert_int_equal(out(BYTES, 1), -EINVAL);
	assert_int_equal(out(0, 513), -EINVAL);
	dev_close();
}
#endif

/* ---- stripe ---- */

static void stripe_goes_round(void **state)
{
	assert_int_equal(dev_open("stripe(store,store:mem=2M,store):unit=8K"), 0);
	assert_int_equal(dev.desc.mem_bytes, 3 * BALUN_BLOCK_SIZE);
	assert_int_equal(dev.desc.caps, BALUN_CAP_WRAPPER);
	assert_null(dev.desc.host_base);
	fill(0, 1024, 1);
	/* from the middle of a unit: 1 + 2 + 2 + 2 + 1 pages */
	assert_int_equal(out(PAGE, 8), 0);
	assert_int_equal(store[0].copies + store[1].copies + store[2].copies, 3);
	assert_memory_equal(store[0].mem + PAGE, host + PAGE, PAGE);
	assert_memory_equal(store[1].mem, host + 2 * PAGE, 2 * PAGE);
	assert_memory_equal(store[2].mem, host + 4 * PAGE, 2 * PAGE);
	assert_memory_equal(store[0].mem + 2 * PAGE, host + 6 * PAGE, 2 * PAGE);
	assert_memory_equal(store[1].mem + 2 * PAGE, host + 8 * PAGE, PAGE);
	memset(host, 0, 9 * PAGE);
	assert_int_equal(home(PAGE, 8), 0);
	check(PAGE, 8, 1);
	/* the last block of it, and nothing beyond */
	fill(0, 1024, 2);
	assert_int_equal(out(BALUN_BLOCK_SIZE, 512), 0);
	memset(host + BALUN_BLOCK_SIZE, 0, BALUN_BLOCK_SIZE);
	assert_int_equal(home(BALUN_BLOCK_SIZE, 512), 0);
	check(BALUN_BLOCK_SIZE, 512, 2);
	assert_int_equal(out(3 * BALUN_BLOCK_SIZE - PAGE, 2), -EINVAL);
	dev.drv->trim(dev.priv, 2 * PAGE, 6 * PAGE);
	assert_int_equal(store[0].trims + store[1].trims + store[2].trims, 3);
	assert_int_equal(store[0].trim_off, 2 * PAGE);
	assert_int_equal(store[0].trim_len, 2 * PAGE);
	dev_close();
}

/* what one device fails fails; what it held when it is gone is lost, the rest is not */
static void stripe_loses_a_share(void **state)
{
	assert_int_equal(dev_open("stripe(store,store)"), 0);
	fill(0, 64, 1);
	assert_int_equal(out(0, 64), 0);
	store[1].wait_err = -EIO;
	assert_int_equal(home(0, 64), -EIO);
	assert_int_equal(home(0, 16), 0);
	assert_int_equal(store[0].waits, store[0].copies);
	store[1].wait_err = -ENODEV;
	assert_int_equal(home(0, 64), -EIO);
	assert_int_equal(store[0].waits, store[0].copies);
	store[1].wait_err = 0; /* for good */
	memset(host, 0, 64 * PAGE);
	assert_int_equal(home(16 * PAGE, 1), -EIO);
	assert_int_equal(home(0, 16), 0);
	assert_int_equal(home(32 * PAGE, 16), 0);
	check(0, 16, 1);
	check(32 * PAGE, 16, 1);
	assert_int_equal(out(16 * PAGE, 1), -EIO);
	store[0].copy_err = -ENOSPC;
	assert_int_equal(out(0, 1), -ENOSPC);
	store[0].copy_err = -ENODEV;
	assert_int_equal(home(0, 1), -ENODEV);
	assert_int_equal(home(0, 1), -ENODEV);
	dev_close();
}

/* ---- mirror ---- */

#define MIRROR "mirror(store,store:mem=2M,store)"

static void mirror_keeps_the_same(void **state)
{
	unsigned int i;

	assert_int_equal(dev_open(MIRROR), 0);
	assert_int_equal(dev.desc.mem_bytes, BALUN_BLOCK_SIZE);
	assert_int_equal(dev.desc.caps, BALUN_CAP_WRAPPER);
	fill(0, 8, 1);
	assert_int_equal(out(0, 8), 0);
	for (i = 0; i < 3; i++)
		assert_memory_equal(store[i].mem, host, 8 * PAGE);
	memset(host, 0, 8 * PAGE);
	assert_int_equal(home(0, 8), 0);
	check(0, 8, 1);
	assert_int_equal(store[0].copies, 2);
	assert_int_equal(store[1].copies, 1);
	assert_int_equal(dev.drv->footprint(dev.priv), 4 * PAGE);
	store[2].copies = 0; /* one does not say: nor does the mirror */
	assert_int_equal(dev.drv->footprint(dev.priv), 0);
	dev.drv->trim(dev.priv, PAGE, PAGE);
	assert_int_equal(store[2].trim_off, PAGE);
	dev_close();
}

/* who failed a write that others did is never asked again */
static void mirror_drops_who_fails(void **state)
{
	assert_int_equal(dev_open(MIRROR), 0);
	store[0].copy_err = -EIO;
	fill(0, 8, 1);
	assert_int_equal(out(0, 8), 0);
	store[0].copy_err = 0;
	assert_int_equal(home(0, 8), 0);
	check(0, 8, 1);
	assert_int_equal(store[0].copies, 1);
	store[2].wait_err = -ENODEV;
	assert_int_equal(out(0, 8), 0);
	store[2].wait_err = 0;
	assert_int_equal(out(0, 8), 0);
	assert_int_equal(store[0].copies + store[2].copies, 3);
	/* the last one is never dropped for an error */
	store[1].copy_err = -EIO;
	assert_int_equal(out(0, 1), -EIO);
	assert_int_equal(home(0, 1), -EIO);
	store[1].copy_err = 0;
	assert_int_equal(home(0, 8), 0);
	check(0, 8, 1);
	store[1].wait_err = -ENODEV;
	assert_int_equal(home(0, 1), -ENODEV);
	assert_int_equal(out(0, 1), -ENODEV);
	dev_close();
}

/* a page that one does not give back comes from the next, and the first is asked again later */
static void mirror_reads_from_the_next(void **state)
{
	assert_int_equal(dev_open(MIRROR), 0);
	fill(0, 8, 1);
	assert_int_equal(out(0, 8), 0);
	memset(host, 0, 8 * PAGE);
	store[0].copy_err = -EIO;
	store[1].wait_err = -EIO;
	assert_int_equal(home(0, 8), 0);
	check(0, 8, 1);
	assert_int_equal(store[2].waits, 2);
	store[2].wait_err = -ENODEV; /* that is not the end of the mirror */
	assert_int_equal(home(0, 8), -EIO);
	store[0].copy_err = 0;
	assert_int_equal(home(0, 8), 0);
	dev_close();
}

/* full is no error of a device: none is dropped, and the pages stay at home */
static void mirror_is_full(void **state)
{
	assert_int_equal(dev_open(MIRROR), 0);
	fill(0, 8, 1);
	assert_int_equal(out(0, 8), 0);
	store[1].copy_err = -ENOSPC;
	assert_int_equal(out(8 * PAGE, 8), -ENOSPC);
	store[0].wait_err = -EIO; /* all that is not full fails */
	store[2].wait_err = -EIO;
	assert_int_equal(out(8 * PAGE, 8), -ENOSPC);
	store[1].copy_err = store[0].wait_err = store[2].wait_err = 0;
	assert_int_equal(out(16 * PAGE, 8), 0);
	assert_int_equal(store[0].copies, 4);
	assert_int_equal(store[1].copies, 4);
	store[0].copy_err = store[1].copy_err = store[2].copy_err = -EIO;
	assert_int_equal(out(8 * PAGE, 8), -EIO);
	store[0].copy_err = store[1].copy_err = store[2].copy_err = 0;
	assert_int_equal(home(0, 8), 0);
	assert_int_equal(store[0].copies, 6);
	dev_close();
}

static void sets_refuse(void **state)
{
	static const char *const bad[] = {
		"stripe",
		"stripe(store)",
		"mirror(store)",
		"mirror(store,own)",
		"stripe(own,store)",
		"stripe(store,store):unit=3K",
		"stripe(store,store):unit=4M",
		"stripe(store,store):unit=96K",
		"mirror(store,store:mem=x)",
	};
	unsigned int i, k;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(dev_open(bad[i]), -EINVAL);
		for (k = 0; k < stores; k++)
			assert_int_equal(store[k].closes, 1);
	}
	assert_int_equal(dev_open(MIRROR), 0);
	store[2].copy_err = -ENOMEM;
	assert_int_equal(dev.drv->attach(dev.priv, NULL), -ENOMEM);
	assert_int_equal(store[0].attached + store[1].attached, 0);
	store[2].copy_err = 0;
	assert_int_equal(dev.drv->attach(dev.priv, NULL), 0);
	assert_int_equal(store[0].attached + store[1].attached + store[2].attached, 3);
	dev.drv->gone(dev.priv, NULL);
	assert_int_equal(store[0].attached + store[1].attached + store[2].attached, 0);
	assert_int_equal(dev.drv->active(dev.priv, true), 0);
	dev_close();
}

static int begin(void **state)
{
	host = balun_mem_alloc(2 * BYTES);
	return !host || balun_driver_register(&store_driver) || balun_driver_register(&own_driver);
}

static int end(void **state)
{
	balun_mem_free(host, 2 * BYTES);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef BALUN_HAVE_CRYPT
		cmocka_unit_test(crypt_goes_round),
		cmocka_unit_test(crypt_never_repeats),
		cmocka_unit_test(crypt_refuses_what_was_not_stored),
		cmocka_unit_test(crypt_hides_the_device),
		cmocka_unit_test(crypt_passes_errors),
#endif
		cmocka_unit_test(stripe_goes_round),
		cmocka_unit_test(stripe_loses_a_share),
		cmocka_unit_test(mirror_keeps_the_same),
		cmocka_unit_test(mirror_drops_who_fails),
		cmocka_unit_test(mirror_reads_from_the_next),
		cmocka_unit_test(mirror_is_full),
		cmocka_unit_test(sets_refuse),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
