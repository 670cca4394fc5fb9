// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: trace - log every call of a driver
 *
 * "trace(ram:mem=64M)" is a ram device that writes a line for each op: arguments, result, time.
 * Calls, failures and time per op follow at close; with quiet=1 nothing but those. The lines go to
 * the log at the level that is always written.
 */
#include "drivers/wrap.h"

#define TRACE_LOG (-1)

enum trace_op {
	TRACE_OPEN,
	TRACE_CLOSE,
	TRACE_MAP,
	TRACE_UNMAP,
	TRACE_COPY,
	TRACE_COPY_WAIT,
	TRACE_ATTACH,
	TRACE_GONE,
	TRACE_ALLOC,
	TRACE_FREE,
	TRACE_TRIM,
	TRACE_UNMAP_BEGIN,
	TRACE_UNMAP_WAIT,
	TRACE_PEER_ADDR,
	TRACE_ACTIVE,
	TRACE_NR,
};

static const char *const trace_names[TRACE_NR] = {
	[TRACE_OPEN] = "open",
	[TRACE_CLOSE] = "close",
	[TRACE_MAP] = "map",
	[TRACE_UNMAP] = "unmap",
	[TRACE_COPY] = "copy",
	[TRACE_COPY_WAIT] = "copy_wait",
	[TRACE_ATTACH] = "attach",
	[TRACE_GONE] = "gone",
	[TRACE_ALLOC] = "alloc",
	[TRACE_FREE] = "free",
	[TRACE_TRIM] = "trim",
	[TRACE_UNMAP_BEGIN] = "unmap_begin",
	[TRACE_UNMAP_WAIT] = "unmap_wait",
	[TRACE_PEER_ADDR] = "peer_addr",
	[TRACE_ACTIVE] = "active",
};

static const char *const trace_kinds[] = {
	"system", "local", "peer", "zero", "coherent", /* by BALUN_KIND_* */
};

/* relaxed adds: ops run on any thread, and a count that lags is no harm in a log */
struct trace_count {
	uint64_t calls, errors, ns;
};

struct trace {
	struct wrap in;
	bool quiet;
	struct trace_count count[TRACE_NR];
};

/* a line under construction; what does not fit is cut off */
struct trace_line {
	char text[240];
	size_t len;
};

typedef unsigned long long
	ull; /* uint64_t is another type in the kernel: one that prints in both */

static __attribute__((format(printf, 2, 3))) void trace_add(struct trace_line *l, const char *fmt,
							    ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->text + l->len, sizeof(l->text) - l->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->len = ENV_MIN(l->len + (size_t)n, sizeof(l->text) - 1);
}

static const char *trace_kind(uint32_t kind)
{
	return kind < sizeof(trace_kinds) / sizeof(trace_kinds[0]) ? trace_kinds[kind] : "?";
}

static void trace_add_segs(struct trace_line *l, const struct balun_seg *seg, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		trace_add(l, "%s0x%llx+0x%llx %s@0x%llx %s%s%s", i ? ", " : " ", (ull)seg[i].va,
			  (ull)seg[i].len, trace_kind(seg[i].kind), (ull)seg[i].addr,
			  seg[i].perm & BALUN_PERM_READ ? "r" : "-",
			  seg[i].perm & BALUN_PERM_WRITE ? "w" : "-",
			  seg[i].perm & BALUN_PERM_ATOMIC ? "a" : "-");
}

static void trace_add_copies(struct trace_line *l, const struct balun_copy *op, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		trace_add(l, "%s%s@0x%llx<-%s@0x%llx 0x%llx", i ? ", " : " ",
			  trace_kind(op[i].dst_kind), (ull)op[i].dst, trace_kind(op[i].src_kind),
			  (ull)op[i].src, (ull)op[i].len);
}

/* an op has returned: count it. Return: whether to write a line */
static bool trace_count(struct trace *t, enum trace_op op, uint64_t ns, int err)
{
	env_add(&t->count[op].calls, 1);
	env_add(&t->count[op].ns, ns);
	if (err)
		env_add(&t->count[op].errors, 1);
	return !t->quiet;
}

static void trace_write(struct trace *t, enum trace_op op, const char *args, uint64_t ns, int err)
{
	env_log(TRACE_LOG, "trace(%s): %s%s = %d, %llu ns", t->in.drv->name, trace_names[op], args,
		err, (ull)ns);
}

static __attribute__((format(printf, 5, 6))) int
trace_end(struct trace *t, enum trace_op op, uint64_t start, int err, const char *fmt, ...)
{
	uint64_t ns = env_now_ns() - start;
	char args[160];
	va_list ap;

	if (!trace_count(t, op, ns, err))
		return err;
	va_start(ap, fmt);
	vsnprintf(args, sizeof(args), fmt, ap);
	va_end(ap);
	trace_write(t, op, args, ns, err);
	return err;
}

static void trace_summary(const struct trace *t)
{
	int i;

	for (i = 0; i < TRACE_NR; i++) {
		const struct trace_count *c = &t->count[i];

		if (c->calls)
			env_log(TRACE_LOG, "trace(%s): total %s %llu calls, %llu failed, %llu ns",
				t->in.drv->name, trace_names[i], (ull)c->calls, (ull)c->errors,
				(ull)c->ns);
	}
}

static int trace_open(struct balun_device *dev, const struct balun_options *opt,
		      struct balun_desc *ret_desc, void **ret_priv)
{
	uint64_t quiet, start;
	struct trace *t;
	int err;

	err = balun_opt_size(opt, "quiet", 0, &quiet);
	if (err)
		return err;
	if (quiet > 1)
		return balun_opt_fail(opt, "quiet", "must be 0 or 1");
	t = balun_mem_alloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->quiet = quiet;
	start = env_now_ns();
	err = wrap_open(&t->in, dev, opt, ret_desc);
	if (err) {
		/* there is no inner driver whose name trace_end() could print */
		env_log(TRACE_LOG, "trace: open = %d, %llu ns", err, (ull)(env_now_ns() - start));
		balun_mem_free(t, sizeof(*t));
		return err;
	}
	trace_end(t, TRACE_OPEN, start, 0, " mem 0x%llx, caps 0x%llx", (ull)ret_desc->mem_bytes,
		  (ull)ret_desc->caps);
	*ret_priv = t;
	return 0;
}

static void trace_close(void *priv)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();

	t->in.ops.close(t->in.priv);
	trace_end(t, TRACE_CLOSE, start, 0, "%s", "");
	trace_summary(t);
	balun_mem_free(t, sizeof(*t));
}

static int trace_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();
	int err = t->in.ops.map(t->in.priv, space, seg, n);
	uint64_t ns = env_now_ns() - start;
	struct trace_line l = { .len = 0 };

	if (!trace_count(t, TRACE_MAP, ns, err))
		return err;
	trace_add(&l, " space %p, %zu:", (void *)space, n);
	trace_add_segs(&l, seg, n);
	trace_write(t, TRACE_MAP, l.text, ns, err);
	return err;
}

static void trace_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			enum balun_cause cause)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();

	t->in.ops.unmap(t->in.priv, space, va, len, cause);
	trace_end(t, TRACE_UNMAP, start, 0, " space %p, 0x%llx+0x%llx, %s", (void *)space, (ull)va,
		  (ull)len, balun_cause_name(cause));
}

static int trace_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();
	int err = t->in.ops.copy(t->in.priv, op, n, ret_cookie);
	uint64_t ns = env_now_ns() - start;
	struct trace_line l = { .len = 0 };

	if (!trace_count(t, TRACE_COPY, ns, err))
		return err;
	if (err)
		trace_add(&l, " %zu:", n);
	else
		trace_add(&l, " cookie %llu, %zu:", (ull)*ret_cookie, n);
	trace_add_copies(&l, op, n);
	trace_write(t, TRACE_COPY, l.text, ns, err);
	return err;
}

static int trace_copy_wait(void *priv, uint64_t cookie)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();
	int err = t->in.ops.copy_wait(t->in.priv, cookie);

	return trace_end(t, TRACE_COPY_WAIT, start, err, " cookie %llu", (ull)cookie);
}

static int trace_attach(void *priv, struct balun_space *space)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();
	int err = t->in.ops.attach(t->in.priv, space);

	return trace_end(t, TRACE_ATTACH, start, err, " space %p", (void *)space);
}

static void trace_gone(void *priv, struct balun_space *space)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();

	t->in.ops.gone(t->in.priv, space);
	trace_end(t, TRACE_GONE, start, 0, " space %p", (void *)space);
}

static int trace_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();
	int err = t->in.ops.alloc(t->in.priv, len, ret_off);

	if (err)
		return trace_end(t, TRACE_ALLOC, start, err, " 0x%llx", (ull)len);
	return trace_end(t, TRACE_ALLOC, start, 0, " 0x%llx at 0x%llx", (ull)len, (ull)*ret_off);
}

static void trace_free(void *priv, uint64_t off, uint64_t len)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();

	t->in.ops.free(t->in.priv, off, len);
	trace_end(t, TRACE_FREE, start, 0, " 0x%llx+0x%llx", (ull)off, (ull)len);
}

static void trace_trim(void *priv, uint64_t off, uint64_t len)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();

	t->in.ops.trim(t->in.priv, off, len);
	trace_end(t, TRACE_TRIM, start, 0, " 0x%llx+0x%llx", (ull)off, (ull)len);
}

/* a look, which is no call that matters: not in the log, and it may come at any moment */
static uint64_t trace_footprint(void *priv)
{
	struct trace *t = priv;

	return t->in.ops.footprint(t->in.priv);
}

static void trace_unmap_begin(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			      enum balun_cause cause)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();

	t->in.ops.unmap_begin(t->in.priv, space, va, len, cause);
	trace_end(t, TRACE_UNMAP_BEGIN, start, 0, " space %p, 0x%llx+0x%llx, %s", (void *)space,
		  (ull)va, (ull)len, balun_cause_name(cause));
}

static void trace_unmap_wait(void *priv, struct balun_space *space)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();

	t->in.ops.unmap_wait(t->in.priv, space);
	trace_end(t, TRACE_UNMAP_WAIT, start, 0, " space %p", (void *)space);
}

static int trace_peer_addr(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
			   uint64_t *ret_addr)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();
	int err = t->in.ops.peer_addr(t->in.priv, client, off, len, ret_addr);

	return trace_end(t, TRACE_PEER_ADDR, start, err, " client %p, 0x%llx+0x%llx",
			 (void *)client, (ull)off, (ull)len);
}

static int trace_active(void *priv, bool on)
{
	struct trace *t = priv;
	uint64_t start = env_now_ns();
	int err = t->in.ops.active(t->in.priv, on);

	return trace_end(t, TRACE_ACTIVE, start, err, " %s", on ? "on" : "off");
}

static const struct balun_driver *trace_inner(void *priv, void **ret_priv)
{
	struct trace *t = priv;

	*ret_priv = t->in.priv;
	return t->in.drv;
}

extern const struct balun_driver balun_trace_driver;
const struct balun_driver balun_trace_driver = {
	.size = sizeof(struct balun_driver),
	.caps = WRAP_CAPS,
	.name = "trace",
	.help = "quiet=0  1: only the totals at close, no line per call\n",
	.open = trace_open,
	.close = trace_close,
	.map = trace_map,
	.unmap = trace_unmap,
	.copy = trace_copy,
	.copy_wait = trace_copy_wait,
	.attach = trace_attach,
	.gone = trace_gone,
	.alloc = trace_alloc,
	.free = trace_free,
	.unmap_begin = trace_unmap_begin,
	.unmap_wait = trace_unmap_wait,
	.peer_addr = trace_peer_addr,
	.active = trace_active,
	.inner = trace_inner,
	.trim = trace_trim,
	.footprint = trace_footprint,
};
