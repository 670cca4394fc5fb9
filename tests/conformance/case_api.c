/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The interface itself: every bad argument is refused, with a reason, and harms nothing. */
#include "kit.h"

#include <stdlib.h>

static void bad_ranges(struct kit *k)
{
	uint64_t len = 4 * PAGE, va = kit_filled(k, len, 1);
	void *a = (void *)va, *high = (void *)(UINT64_MAX - PAGE + 1);
	struct balun_extent e;
	size_t n = 7;

	CHECK_RC(balun_migrate(k->space, a, 0, k->dev, NULL), -EINVAL);
	CHECK_RC(balun_migrate(k->space, high, 2 * PAGE, k->dev, NULL), -EINVAL);
	CHECK_RC(balun_migrate(k->space, a, UINT64_MAX, k->dev, NULL), -EINVAL);
	CHECK_RC(balun_prefetch(k->space, a, 0, k->dev), -EINVAL);
	CHECK_RC(balun_prefetch(k->space, high, 2 * PAGE, NULL), -EINVAL);
	CHECK_RC(balun_pin(k->space, a, 0), -EINVAL);
	CHECK_RC(balun_pin(k->space, high, 2 * PAGE), -EINVAL);
	CHECK_RC(balun_unpin(k->space, a, 0), -EINVAL);
	CHECK_RC(balun_unpin(k->space, a, PAGE), -ENOENT);
	CHECK_RC(balun_advise(k->space, a, 0, BALUN_ADVISE_READ_MOSTLY, NULL), -EINVAL);
	CHECK_RC(balun_query(k->space, a, 0, &e, 1, &n), -EINVAL);
	CHECK_RC(balun_query(k->space, high, 2 * PAGE, &e, 1, &n), -EINVAL);
	CHECK_EQ(n, 7);
	CHECK(balun_fault(k->dev, k->space, UINT64_MAX - PAGE + 1, 2 * PAGE, BALUN_ACCESS_READ) <
	      0);
	kit_verify(k, va, len, 1);
	CHECK_EQ(kit_mem_used(k->dev), 0);
}

static void bad_pointers(struct kit *k)
{
	uint64_t va = kit_map(k, PAGE, KIT_RW);
	void *a = (void *)va;
	struct balun_extent e;
	struct balun_device *d;
	size_t n;

	CHECK_RC(balun_space_create(NULL, NULL), -EINVAL);
	CHECK_RC(balun_device_open(k->space, "ram", NULL), -EINVAL);
	CHECK_RC(balun_device_open(k->space, NULL, &d), -EINVAL);
	CHECK_RC(balun_device_open(NULL, k->driver, &d), -EINVAL);
	CHECK_RC(balun_migrate(NULL, a, PAGE, NULL, NULL), -EINVAL);
	CHECK_RC(balun_prefetch(NULL, a, PAGE, NULL), -EINVAL);
	CHECK_RC(balun_sync(NULL), -EINVAL);
	CHECK_RC(balun_evict(NULL, 1, NULL), -EINVAL);
	CHECK_RC(balun_pin(NULL, a, PAGE), -EINVAL);
	CHECK_RC(balun_unpin(NULL, a, PAGE), -EINVAL);
	CHECK_RC(balun_advise(NULL, a, PAGE, BALUN_ADVISE_NONE, NULL), -EINVAL);
	CHECK_RC(balun_query(NULL, a, PAGE, &e, 1, &n), -EINVAL);
	CHECK_RC(balun_query(k->space, a, PAGE, NULL, 1, &n), -EINVAL);
	CHECK_RC(balun_query(k->space, a, PAGE, &e, 0, &n), -EINVAL);
	CHECK_RC(balun_query(k->space, a, PAGE, &e, 1, NULL), -EINVAL);
	CHECK_RC(balun_stats(k->space, NULL), -EINVAL);
	CHECK_RC(balun_stats(NULL, NULL), -EINVAL);
	CHECK_RC(balun_fence(NULL), -EINVAL);
	CHECK_RC(balun_device_info(k->dev, NULL), -EINVAL);
	CHECK_RC(balun_engine_info(0, NULL), -EINVAL);
	CHECK_OK(balun_space_destroy(NULL));
}

/* structs whose size says that they are of another version */
static void bad_sizes(struct kit *k)
{
	struct balun_stats s = { .size = sizeof(s) - 8, .cpu_faults = 99 };
	struct balun_device_info di = { .size = 3 };
	struct balun_engine_info ei = { .size = 3 };
	struct balun_space_opts o = { .size = 3 };
	struct balun_space *sp = NULL;

	CHECK_RC(balun_stats(k->space, &s), -EINVAL);
	CHECK_EQ(s.cpu_faults, 99);
	CHECK_RC(balun_device_info(k->dev, &di), -EINVAL);
	CHECK_RC(balun_engine_info(0, &ei), -EINVAL);
	CHECK_RC(balun_space_create(&o, &sp), -EINVAL);
	CHECK(!sp);
}

static void bad_values(struct kit *k)
{
	uint64_t va = kit_map(k, PAGE, KIT_RW);

	CHECK_RC(balun_advise(k->space, (void *)va, PAGE, (enum balun_advice)99, NULL), -EINVAL);
	CHECK_RC(balun_advise(k->space, (void *)va, PAGE, BALUN_ADVISE_ACCESSED_BY, NULL), -EINVAL);
	CHECK_RC(balun_fault(k->dev, k->space, va, PAGE, 99), -EINVAL);
	CHECK(balun_cause_name((enum balun_cause)99) != NULL);
}

static void bad_specs(struct kit *k)
{
	static const char *const bad[] = {
		"",
		"(",
		")",
		"ram:",
		"ram(",
		"ram:mem",
		"ram:mem=",
		"ram:mem=1X",
		"ram:mem=64M,",
		"ram:nosuch=1",
		"ram:mem=-1",
		"RAM",
		"1ram",
		"ram ",
		" ram",
		"ram:mem=3",
		"ram:mem=0",
		"trace",
		"trace()",
		"trace(ram",
		"trace(ram))",
		"trace(trace(trace(trace(trace(ram)))))",
		"ram:mem=99999999999999999999G",
		"ram(ram)",
		"ram:mem=1M,mem=2M:x=1",
	};
	char longest[2000];
	struct balun_device *d = NULL;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int rc = balun_device_open(k->space, bad[i], &d);

		if (rc != -EINVAL && rc != -ENODEV)
			kit_fail(__FILE__, __LINE__, "spec \"%s\" gives %d", bad[i], rc);
		if (!*balun_reason())
			kit_fail(__FILE__, __LINE__, "spec \"%s\" has no reason", bad[i]);
	}
	CHECK_RC(balun_device_open(k->space, "nosuchdriver", &d), -ENODEV);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	CHECK(balun_device_open(k->space, longest, &d) < 0);
	CHECK(!d);
	d = kit_device(k, "mem=2M");
	CHECK_EQ(kit_mem_total(d), 2 * MIB);
}

/* one space per process and engine */
static void second_space(struct kit *k)
{
	struct balun_space_opts o = { .size = sizeof(o), .engine = k->engine };
	struct balun_space *sp = NULL;
	uint64_t va = kit_filled(k, MIB, 2);

	kit_move(k, va, MIB, k->dev);
	if (!strcmp(k->engine, "sim") || k->kernel) {
		/* each space of the simulator is a process of its own; each that the kernel serves
		 * is as good as another */
		CHECK_OK(balun_space_create(&o, &sp));
		CHECK_OK(balun_space_destroy(sp));
		sp = NULL;
	} else {
		CHECK_RC(balun_space_create(&o, &sp), -EBUSY);
		CHECK(!sp && *balun_reason());
	}
	o.engine = "nosuchengine";
	CHECK_RC(balun_space_create(&o, &sp), -EINVAL);
	CHECK(!sp && strstr(balun_reason(), "nosuchengine"));
	kit_verify(k, va, MIB, 2);
}

static void too_many_devices(struct kit *k)
{
	struct balun_device *d[BALUN_MAX_DEVICES] = { k->dev }, *more = NULL;
	uint64_t va = kit_filled(k, BALUN_MAX_DEVICES * PAGE, 3), i;
	char spec[600];

	for (i = 1; i < BALUN_MAX_DEVICES; i++)
		d[i] = kit_device(k, "mem=2M");
	snprintf(spec, sizeof(spec), "probe(%s):mem=2M", k->driver);
	CHECK_RC(balun_device_open(k->space, spec, &more), -ENOSPC);
	CHECK(!more && *balun_reason());
	for (i = 0; i < BALUN_MAX_DEVICES; i++)
		kit_move(k, va + i * PAGE, PAGE, d[i]);
	CHECK_OK(kit_close(k, d[5]));
	d[5] = kit_device(k, "mem=2M");
	dev_verify(d[5], va, BALUN_MAX_DEVICES * PAGE, 3);
	kit_verify(k, va, BALUN_MAX_DEVICES * PAGE, 3);
}

static void info(struct kit *k)
{
	struct balun_device_info i = { .size = sizeof(i) };
	struct balun_engine_info e = { .size = sizeof(e) };
	struct balun_engine_driver d = { .size = sizeof(d) };
	const char *name, *help;
	unsigned int n;
	bool found = false;

	CHECK_OK(balun_device_info(k->dev, &i));
	CHECK(!strncmp(i.name, "probe", 5));
	CHECK(i.id >= 1 && i.id <= BALUN_MAX_DEVICES);
	CHECK(i.mem_total >= BALUN_BLOCK_SIZE && i.mem_total % BALUN_BLOCK_SIZE == 0);
	CHECK_EQ(i.mem_used, 0);
	CHECK(i.caps & BALUN_CAP_WRAPPER);
	CHECK(!strcmp(balun_space_engine(k->space), k->engine));
	for (n = 0; !balun_engine_info(n, &e); n++)
		found |= !strcmp(e.name, k->engine) && e.works;
	CHECK(found);
	CHECK_RC(balun_engine_info(n, &e), -ENOENT);
	for (n = 0; !balun_driver_info(n, &name, &help); n++)
		CHECK(name && *name && help);
	CHECK(n > 0);
	CHECK_RC(balun_driver_info(n, &name, &help), -ENOENT);
	for (n = 0; !balun_engine_driver(k->engine, n, &d); n++)
		CHECK(*d.name);
	CHECK(n > 0);
	CHECK_RC(balun_engine_driver(k->engine, n, &d), -ENOENT);
	CHECK_RC(balun_engine_driver("nonsense", 0, &d), -EINVAL);
	CHECK(strchr(balun_version(), '.') != NULL);
	CHECK(balun_device_space(k->dev) == k->space);
}

static void cause_names(struct kit *k)
{
	static const char *const want[BALUN_NR_CAUSES] = {
		"user",	    "device-fault", "cpu-fault", "prefetch",
		"eviction", "invalidate",   "thrash",	 "teardown",
	};
	int i;

	(void)k;
	for (i = 0; i < BALUN_NR_CAUSES; i++)
		CHECK(!strcmp(balun_cause_name(i), want[i]));
}

static void *no_reason(void *arg)
{
	(void)arg;
	CHECK(!*balun_reason());
	return NULL;
}

/* reasons belong to their thread */
static void reasons(struct kit *k)
{
	struct balun_device *d;

	kit_join(kit_thread(no_reason, NULL));
	CHECK_RC(balun_device_open(k->space, "nosuchdriver", &d), -ENODEV);
	CHECK(strstr(balun_reason(), "nosuchdriver"));
	kit_join(kit_thread(no_reason, NULL));
}

/* tables that must be refused; static, as registered tables are */
static struct balun_driver table[12];

static void driver_tables(struct kit *k)
{
	size_t i;

	(void)k;
	for (i = 0; i < 12; i++) {
		table[i] = probe_driver;
		table[i].name = "refused";
	}
	table[0].size = 8;
	table[1].name = NULL;
	table[2].name = "Not A Name";
	table[3].open = NULL;
	table[4].map = NULL;
	table[5].copy_wait = NULL;
	table[6].free = NULL;
	table[7].caps &= ~BALUN_CAP_PEER;
	table[8].unmap_wait = NULL;
	table[9].inner = NULL;
	table[10].gone = NULL;
	table[11].caps |= 1ULL << 60;
	for (i = 0; i < 12; i++) {
		int rc = balun_driver_register(&table[i]);

		if (rc != -EINVAL)
			kit_fail(__FILE__, __LINE__, "bad table %zu gives %d", i, rc);
		CHECK(*balun_reason());
	}
	CHECK_RC(balun_driver_register(NULL), -EINVAL);
	CHECK_RC(balun_driver_register(&probe_driver), -EEXIST);
}

static void driver_files(struct kit *k)
{
	(void)k;
	CHECK_RC(balun_driver_load("/nonexistent/driver.so"), -ENOENT);
	CHECK(balun_driver_load("/dev/null") < 0);
	CHECK(strstr(balun_reason(), "/dev/null"));
	CHECK_RC(balun_driver_load(NULL), -EINVAL);
}

/* a device of one driver is not another's */
static void priv(struct kit *k)
{
	static const struct balun_driver other = { .name = "other" };
	struct balun_device *d[2] = { k->dev, kit_device(k, NULL) };

	CHECK(balun_device_priv(k->dev, &other) == NULL);
	CHECK(balun_device_priv(d[0], &probe_driver) != balun_device_priv(d[1], &probe_driver));
	CHECK(balun_space_data(k->space, d[0]) == NULL ||
	      balun_space_data(k->space, d[0]) != balun_space_data(k->space, d[1]));
}

static void memory(struct kit *k)
{
	static const size_t sizes[] = { 1, 100, 4095, 4096, 4097, 65536, 3 * MIB };
	size_t i, j;

	(void)k;
	balun_mem_free(NULL, 0);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned char *p = balun_mem_alloc(sizes[i]);

		CHECK(p != NULL);
		if (sizes[i] >= PAGE)
			CHECK_EQ((uintptr_t)p % PAGE, 0);
		for (j = 0; j < sizes[i]; j += 97)
			CHECK_EQ(p[j], 0);
		memset(p, 0xee, sizes[i]);
		balun_mem_free(p, sizes[i]);
	}
	CHECK(balun_mem_alloc(1ULL << 62) == NULL);
}

/* a policy of one's own is asked, and followed */
static unsigned int asked;

static void stay_home(const struct balun_question *q, struct balun_answer *ret_a)
{
	__atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED);
	ret_a->stay = q->device != 0;
	if (!q->device)
		balun_policy_default(q, ret_a);
}

static void policy(struct kit *k)
{
	static const struct balun_policy p = { .size = sizeof(p),
					       .name = "stay-home",
					       .decide = stay_home };
	struct balun_policy wrong = { .size = 1, .name = "wrong", .decide = stay_home };
	struct balun_space_opts o = { .size = sizeof(o), .engine = k->engine, .policy = &wrong };
	uint64_t va;

	if (k->kernel) {
		/* a function of this process cannot be asked there */
		o.policy = &p;
		CHECK_RC(balun_space_create(&o, &k->space), -EOPNOTSUPP);
		CHECK(!k->space && *balun_reason());
		return;
	}
	CHECK_RC(balun_space_create(&o, &k->space), -EINVAL);
	o.policy = &p;
	CHECK_OK(balun_space_create(&o, &k->space));
	k->dev = kit_device(k, NULL);
	va = kit_filled(k, MIB, 4);
	dev_verify(k->dev, va, MIB, 4);
	dev_fill(k->dev, va, MIB, 5);
	CHECK(__atomic_load_n(&asked, __ATOMIC_RELAXED) > 0);
	CHECK_EQ(kit_resident(k, va, MIB, k->dev), 0);
	kit_verify(k, va, MIB, 5);
}

/* to a driver that does not run the device, or takes none */
static void commands(struct kit *k)
{
	uint64_t arg[BALUN_COMMAND_ARG / sizeof(uint64_t) + 1] = { 4711 };
	struct balun_command c = { .driver = "nosuch", .arg = arg, .arg_len = sizeof(arg[0]) };

	CHECK_RC(balun_device_command(k->dev, &c), -EINVAL);
	c.driver = PROBE_NAME;
	CHECK_RC(balun_device_command(k->dev, &c), -EINVAL);
	c.driver = NULL;
	CHECK_RC(balun_device_command(k->dev, &c), -EINVAL);
	c.driver = "dmirror"; /* with a command that it does not know, or not at all */
	CHECK_RC(balun_device_command(k->dev, &c), -EINVAL);
	c.arg_len = sizeof(arg);
	CHECK_RC(balun_device_command(k->dev, &c), -EINVAL);
	CHECK_RC(balun_device_command(NULL, &c), -EINVAL);
	CHECK_EQ(arg[0], 4711);
}

const struct kit_case cases_api[] = {
	{ "api-bad-ranges", bad_ranges, NULL, 0 },
	{ "api-bad-pointers", bad_pointers, NULL, 0 },
	{ "api-bad-sizes", bad_sizes, NULL, 0 },
	{ "api-bad-values", bad_values, NULL, 0 },
	{ "api-bad-specs", bad_specs, NULL, 0 },
	{ "api-second-space", second_space, NULL, 0 },
	{ "api-too-many-devices", too_many_devices, "mem=2M", 0 },
	{ "api-info", info, NULL, 0 },
	{ "api-cause-names", cause_names, NULL, 0 },
	{ "api-reasons", reasons, NULL, 0 },
	{ "api-driver-tables", driver_tables, NULL, 0 },
	{ "api-driver-files", driver_files, NULL, 0 },
	{ "api-driver-priv", priv, NULL, KIT_HERE },
	{ "api-commands", commands, NULL, 0 },
	{ "api-memory", memory, NULL, 0 },
	{ "api-policy", policy, NULL, KIT_NO_SPACE },
	{ NULL, NULL, NULL, 0 },
};
