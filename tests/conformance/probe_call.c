/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The functions of probe.h: commands to a device, wherever it is served. */
#include "kit.h"

#define PAUSE_LIMIT_NS 20000000000ULL

/* nothing but an access may fail */
static void ask(struct balun_device *dev, enum probe_code code, struct probe_cmd *cmd)
{
	struct balun_command c = {
		.driver = PROBE_NAME, .code = code, .arg = cmd, .arg_len = sizeof(*cmd)
	};

	CHECK_OK(balun_device_command(dev, &c));
}

/* ---- accesses ---- */

static int access_page(struct balun_device *dev, uint64_t va, void *data, size_t len, bool write)
{
	struct probe_cmd cmd = { .va = va };
	struct balun_command c = { .driver = PROBE_NAME,
				   .code = write ? PROBE_CMD_WRITE : PROBE_CMD_READ,
				   .arg = &cmd,
				   .arg_len = sizeof(cmd),
				   .data = data,
				   .data_len = len };
	int rc;

	do {
		rc = balun_device_command(dev, &c);
	} while (rc == -EAGAIN);
	return rc;
}

/*
 * Pages for the data of accesses. Not from memory that migrates, for the driver fills them; and not
 * new ones each time, for a copy that waits in the kernel keeps the process from mapping anything.
 */
static char *pages[16];

static char *page_get(void)
{
	size_t i;

	for (i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		char *p = __atomic_exchange_n(&pages[i], NULL, __ATOMIC_ACQ_REL);

		if (p)
			return p;
	}
	return balun_mem_alloc(PAGE);
}

static void page_put(char *p)
{
	size_t i;

	for (i = 0; p && i < sizeof(pages) / sizeof(pages[0]); i++) {
		char *none = NULL;

		if (__atomic_compare_exchange_n(&pages[i], &none, p, false, __ATOMIC_ACQ_REL,
						__ATOMIC_RELAXED))
			return;
	}
	balun_mem_free(p, PAGE);
}

void probe_warm(void)
{
	size_t i;

	for (i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		page_put(balun_mem_alloc(PAGE));
}

static int dev_access(struct balun_device *dev, uint64_t va, char *buf, size_t len, bool write)
{
	char *data = page_get();
	int rc = data ? 0 : -ENOMEM;

	while (!rc && len) {
		size_t part = PAGE - va % PAGE < len ? PAGE - va % PAGE : len;

		if (write)
			memcpy(data, buf, part);
		rc = access_page(dev, va, data, part, write);
		if (!rc && !write)
			memcpy(buf, data, part);
		va += part;
		buf += part;
		len -= part;
	}
	page_put(data);
	return rc;
}

int dev_read(struct balun_device *dev, uint64_t va, void *buf, size_t len)
{
	return dev_access(dev, va, buf, len, false);
}

int dev_write(struct balun_device *dev, uint64_t va, const void *buf, size_t len)
{
	return dev_access(dev, va, (void *)(uintptr_t)buf, len, true);
}

uint64_t dev_read64(struct balun_device *dev, uint64_t va)
{
	uint64_t v = 0;

	CHECK_OK(dev_read(dev, va, &v, sizeof(v)));
	return v;
}

void dev_write64(struct balun_device *dev, uint64_t va, uint64_t v)
{
	CHECK_OK(dev_write(dev, va, &v, sizeof(v)));
}

void probe_run_begin(struct balun_device *dev)
{
	struct probe_cmd cmd = { 0 };

	ask(dev, PROBE_CMD_RUN_BEGIN, &cmd);
}

void probe_run_end(struct balun_device *dev)
{
	struct probe_cmd cmd = { 0 };

	ask(dev, PROBE_CMD_RUN_END, &cmd);
}

/* ---- looking ---- */

struct probe_entry probe_lookup(struct balun_device *dev, uint64_t va)
{
	struct probe_cmd cmd = { .va = va };

	ask(dev, PROBE_CMD_LOOKUP, &cmd);
	return cmd.entry;
}

uint64_t probe_mapped(struct balun_device *dev, uint64_t va, uint64_t len)
{
	struct probe_cmd cmd = { .va = va, .len = len };

	ask(dev, PROBE_CMD_MAPPED, &cmd);
	return cmd.n;
}

void probe_get_counts(struct balun_device *dev, struct probe_counts *ret)
{
	struct probe_cmd cmd = { 0 };

	ask(dev, PROBE_CMD_COUNTS, &cmd);
	*ret = cmd.counts;
}

/* ---- interference ---- */

void probe_fail(struct balun_device *dev, enum probe_op op, uint64_t nth, uint64_t count, int err)
{
	struct probe_cmd cmd = { .op = op, .nth = nth, .count = count, .err = err };

	ask(dev, PROBE_CMD_FAIL, &cmd);
}

bool probe_failed(struct balun_device *dev, enum probe_op op)
{
	struct probe_cmd cmd = { .op = op };

	ask(dev, PROBE_CMD_FAILED, &cmd);
	return cmd.n;
}

void probe_pause(struct balun_device *dev, uint64_t nth)
{
	struct probe_cmd cmd = { .nth = nth };

	ask(dev, PROBE_CMD_PAUSE, &cmd);
}

bool probe_paused(struct balun_device *dev)
{
	uint64_t limit = kit_now_ns() + PAUSE_LIMIT_NS;
	struct probe_cmd cmd = { 0 };

	do {
		ask(dev, PROBE_CMD_PAUSED, &cmd);
	} while (!cmd.n && kit_now_ns() < limit);
	return cmd.n;
}

void probe_resume(struct balun_device *dev)
{
	struct probe_cmd cmd = { 0 };

	ask(dev, PROBE_CMD_RESUME, &cmd);
}

void probe_lose(struct balun_device *dev)
{
	struct probe_cmd cmd = { 0 };

	ask(dev, PROBE_CMD_LOST, &cmd);
}

/* ---- what core did wrong ---- */

/* the text of the last answer; a case that gets one is over */
static char text[PROBE_TEXT];

static const char *ask_text(struct balun_device *dev, enum probe_code code)
{
	struct probe_cmd cmd = { 0 };

	ask(dev, code, &cmd);
	memcpy(text, cmd.text, sizeof(text));
	return *text ? text : NULL;
}

const char *probe_breach(struct balun_device *dev)
{
	return ask_text(dev, PROBE_CMD_BREACH);
}

const char *probe_last_breach_of(struct balun_device *dev)
{
	return ask_text(dev, PROBE_CMD_LAST_BREACH);
}

const char *probe_last_breach(void)
{
	probe_take_last(text);
	return *text ? text : NULL;
}
