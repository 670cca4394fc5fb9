// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: nbd - memory of another process or machine, by the NBD protocol
 *
 * Any NBD server's export is device memory (nbdkit, qemu-nbd, nbd-server). The protocol is spoken
 * by a helper process, balun-nbd, for libnbd allocates memory in every call: the driver puts
 * requests and data into memory that both share, and sleeps on futexes. It has no descriptor that
 * the program could close, and the helper is no child of the program: its parent has gone, so
 * wait() and SIGCHLD know nothing of it. It ends when the program does.
 *
 * When the server or the helper is gone, or does not answer for timeout=, the device is gone for
 * good (-ENODEV): there is no second connection to a server that may have begun anew.
 */
#include "drivers/nbd.h"

#define NBD_MOST  (1ULL << 40) /* more is no device's */
#define NBD_BATCH (2ULL << 20) /* bytes of a batch; it has at most so many parts: */
#define NBD_PARTS 512
/* Units of 64 pages are trimmed, when that much is garbage; so many with a batch, of so many that
 * are looked at */
#define NBD_UNIT	(64 * BALUN_PAGE_SIZE)
#define NBD_TRIM_FROM	256
#define NBD_TRIMS	4
#define NBD_TRIM_SEARCH 1024
#define NBD_TRIM_MOST	(1ULL << 30) /* in one request */

/* bytes of a batch: in a slot from @at on */
struct nbd_part {
	char *host;
	uint32_t at, len;
};

/* a request of a batch, with the parts from first_part to that of the next */
struct nbd_request {
	uint16_t slot, first_part;
};

/* a batch under way; a cookie is its address */
struct nbd_batch {
	struct nbd_batch *next; /* free ones */
	struct nbd_part part[NBD_PARTS];
	struct nbd_request request[NBD_PARTS + NBD_TRIMS];
	unsigned int nparts, nrequests, answered; /* the first @answered requests are over */
	bool open;				  /* the last request is not queued yet */
	int err;
};

/* ---- requests ---- */

/*
 * Nobody will answer any more. Who queues a request looks at @gone after he has; so either he sees
 * it, or the request is seen here.
 */
void nbd_lose(struct nbd *n, const char *why)
{
	unsigned int i;

	if (!__atomic_exchange_n(&n->gone, true, __ATOMIC_SEQ_CST) && why)
		env_log(0, "nbd: %s: %s", n->shared->uri, why);
	for (i = 0; i < NBD_SLOTS; i++) {
		uint32_t state = __atomic_load_n(&n->shared->slot[i].state, __ATOMIC_SEQ_CST);

		if (state == NBD_QUEUED || state == NBD_TAKEN)
			nbd_answer(&n->shared->slot[i], -ENODEV);
	}
}

bool nbd_is_gone(struct nbd *n)
{
	return __atomic_load_n(&n->gone, __ATOMIC_SEQ_CST);
}

static void nbd_queue(struct nbd *n, unsigned int i)
{
	struct nbd_shared *s = n->shared;

	__atomic_store_n(&s->slot[i].state, NBD_QUEUED, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&s->queued, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&s->sleeping, __ATOMIC_SEQ_CST))
		nbd_wake(&s->queued);
	if (nbd_is_gone(n))
		nbd_answer(&s->slot[i], -ENODEV);
}

uint64_t nbd_deadline(const struct nbd *n)
{
	uint64_t now = env_now_ns();

	return now + ENV_MIN(n->timeout_ns, UINT64_MAX - now);
}

bool nbd_sleep_until(uint32_t *word, uint32_t seen, uint64_t end)
{
	uint64_t now = env_now_ns();
	struct timespec left;

	if (now >= end)
		return false;
	left.tv_sec = (end - now) / 1000000000;
	left.tv_nsec = (end - now) % 1000000000;
	nbd_sleep(word, seen, &left);
	return true;
}

/* the answer to a request: 0 or -errno */
static int nbd_answer_of(struct nbd *n, struct nbd_slot *slot)
{
	uint64_t end = nbd_deadline(n);
	uint32_t state;

	__atomic_store_n(&slot->waited, 1, __ATOMIC_SEQ_CST);
	while ((state = __atomic_load_n(&slot->state, __ATOMIC_SEQ_CST)) != NBD_DONE)
		if (!nbd_sleep_until(&slot->state, state, end))
			nbd_lose(n, "no answer in time");
	__atomic_store_n(&slot->waited, 0, __ATOMIC_SEQ_CST);
	return nbd_is_gone(n) ? -ENODEV : env_load_relaxed(&slot->err);
}

static void nbd_slot_put(struct nbd *n, unsigned int i)
{
	__atomic_store_n(&n->shared->slot[i].state, NBD_FREE, __ATOMIC_RELAXED);
	env_mutex_lock(&n->lock);
	if (n->trim[i])
		__atomic_fetch_sub(&n->ntrims, 1, __ATOMIC_SEQ_CST);
	n->trim[i] = 0;
	n->free |= 1u << i;
	env_cond_wake(&n->changed);
	env_mutex_unlock(&n->lock);
}

/* -1: none is free */
static int nbd_slot_try(struct nbd *n, bool wait)
{
	int i = -1;

	env_mutex_lock(&n->lock);
	while (!n->free && wait)
		env_cond_wait(&n->changed, &n->lock, ENV_FOREVER);
	if (n->free) {
		i = __builtin_ctz(n->free);
		n->free &= ~(1u << i);
	}
	env_mutex_unlock(&n->lock);
	return i;
}

/* ---- batches ---- */

/* the oldest request without an answer: wait for it; what was read goes where it belongs */
static void nbd_batch_answer(struct nbd *n, struct nbd_batch *b)
{
	const struct nbd_request *r = &b->request[b->answered++];
	unsigned int end = b->answered < b->nrequests ? r[1].first_part : b->nparts, i;
	struct nbd_slot *slot = &n->shared->slot[r->slot];
	const char *data = nbd_data(n->shared, r->slot);
	int err = nbd_answer_of(n, slot);

	if (err && (slot->type != NBD_TRIM || err == -ENODEV))
		b->err = b->err ? b->err : err;
	else if (slot->type == NBD_READ)
		for (i = r->first_part; i < end; i++)
			memcpy(b->part[i].host, data + b->part[i].at, b->part[i].len);
	nbd_slot_put(n, r->slot);
}

static void nbd_batch_queue(struct nbd *n, struct nbd_batch *b)
{
	if (b->open)
		nbd_queue(n, b->request[b->nrequests - 1].slot);
	b->open = false;
}

/* Who has slots waits for his own requests, not for a slot of another who may wait for him. */
static unsigned int nbd_batch_slot(struct nbd *n, struct nbd_batch *b)
{
	int i = nbd_slot_try(n, b->answered == b->nrequests);

	while (i < 0) {
		nbd_batch_answer(n, b);
		i = nbd_slot_try(n, b->answered == b->nrequests);
	}
	return i;
}

/* the slot for what comes next at @off: that of the last request, if it goes on there */
static struct nbd_slot *nbd_batch_open(struct nbd *n, struct nbd_batch *b, enum nbd_type type,
				       uint64_t off)
{
	struct nbd_slot *slot;
	unsigned int i;

	if (b->open) {
		slot = &n->shared->slot[b->request[b->nrequests - 1].slot];
		if (slot->type == type && slot->off + slot->len == off &&
		    slot->len < n->shared->most)
			return slot;
		nbd_batch_queue(n, b);
	}
	i = nbd_batch_slot(n, b);
	slot = &n->shared->slot[i];
	slot->type = type;
	slot->off = off;
	slot->len = 0;
	b->request[b->nrequests++] = (struct nbd_request){ .slot = i, .first_part = b->nparts };
	b->open = true;
	return slot;
}

/* @host NULL: zeros */
static void nbd_batch_add(struct nbd *n, struct nbd_batch *b, enum nbd_type type, uint64_t off,
			  char *host, uint64_t len)
{
	while (len) {
		struct nbd_slot *slot = nbd_batch_open(n, b, type, off);
		char *data = nbd_data(n->shared, slot - n->shared->slot) + slot->len;
		uint64_t part = ENV_MIN(len, n->shared->most - slot->len);

		if (type == NBD_READ)
			b->part[b->nparts++] =
				(struct nbd_part){ .host = host, .at = slot->len, .len = part };
		else if (host)
			memcpy(data, host, part);
		else
			memset(data, 0, part);
		slot->len += part;
		off += part;
		len -= part;
		host = host ? host + part : NULL;
	}
}

/* ---- garbage ---- */

/*
 * The server may do requests in any order, so a place must not be written while it is trimmed; and
 * trim() may not wait. So it only notes what is garbage, and units that are garbage as a whole are
 * trimmed by the batches to come. Who trims says so first and takes the unit's bits then, all or
 * none; who writes clears his bits first and looks who trims then: one of them sees the other.
 */

/* bits [page, page + n) of one word */
static uint64_t nbd_mask(uint64_t page, uint64_t n)
{
	return (n == 64 ? UINT64_MAX : (1ULL << n) - 1) << page % 64;
}

/* all of [off, off + len) is garbage from now on, or none of it is */
static void nbd_garbage(struct nbd *n, uint64_t off, uint64_t len, bool is)
{
	uint64_t page = off / BALUN_PAGE_SIZE, end = (off + len) / BALUN_PAGE_SIZE, k;

	for (; page < end; page += k) {
		uint64_t *word = &n->garbage[page / 64], mask, old;

		k = ENV_MIN(end - page, 64 - page % 64);
		mask = nbd_mask(page, k);
		if (is)
			old = ~__atomic_fetch_or(word, mask, __ATOMIC_SEQ_CST);
		else
			old = __atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST);
		env_add(&n->ngarbage, __builtin_popcountll(old & mask) * (is ? 1ULL : -1ULL));
	}
}

static bool nbd_is_trimmed(const struct nbd *n, uint64_t off, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < NBD_SLOTS; i++)
		if (n->trim[i] && (n->trim[i] - 1) * NBD_UNIT < off + len &&
		    n->trim[i] * NBD_UNIT > off)
			return true;
	return false;
}

/* [off, off + len) is about to be written */
static void nbd_use(struct nbd *n, uint64_t off, uint64_t len)
{
	env_store_relaxed(&n->used, true);
	nbd_garbage(n, off, len, false);
	if (!__atomic_load_n(&n->ntrims, __ATOMIC_SEQ_CST))
		return;
	env_mutex_lock(&n->lock);
	while (nbd_is_trimmed(n, off, len))
		env_cond_wait(&n->changed, &n->lock, ENV_FOREVER);
	env_mutex_unlock(&n->lock);
}

/* a unit that is garbage as a whole, said in trim[@slot] and taken. Return: whether there is one */
static bool nbd_trim_take(struct nbd *n, unsigned int slot, uint64_t *ret_off)
{
	uint64_t units = n->bytes / NBD_UNIT, i;
	bool taken = false;

	env_mutex_lock(&n->lock);
	__atomic_fetch_add(&n->ntrims, 1, __ATOMIC_SEQ_CST);
	for (i = 0; !taken && i < ENV_MIN(units, NBD_TRIM_SEARCH); i++) {
		uint64_t full = UINT64_MAX, unit = n->trim_next;

		n->trim_next = (unit + 1) % units;
		n->trim[slot] = unit + 1;
		*ret_off = unit * NBD_UNIT;
		taken = __atomic_compare_exchange_n(&n->garbage[unit], &full, 0, false,
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	env_mutex_unlock(&n->lock);
	if (taken)
		__atomic_fetch_sub(&n->ngarbage, 64, __ATOMIC_RELAXED);
	return taken; /* else nbd_slot_put() takes back what was said */
}

/* with a batch to the device go the trims that are due, as long as there are slots for them */
static void nbd_batch_trim(struct nbd *n, struct nbd_batch *b)
{
	unsigned int k;
	uint64_t off;

	if (!n->shared->can_trim)
		return;
	for (k = 0; k < NBD_TRIMS && env_load_relaxed(&n->ngarbage) >= NBD_TRIM_FROM; k++) {
		int i = nbd_slot_try(n, false);

		if (i < 0)
			return;
		if (!nbd_trim_take(n, i, &off)) {
			nbd_slot_put(n, i);
			return;
		}
		n->shared->slot[i].type = NBD_TRIM;
		n->shared->slot[i].off = off;
		n->shared->slot[i].len = NBD_UNIT;
		b->request[b->nrequests++] =
			(struct nbd_request){ .slot = i, .first_part = b->nparts };
		nbd_queue(n, i);
	}
}

/* ---- copies ---- */

static int nbd_batch_op(struct nbd *n, struct nbd_batch *b, const struct balun_copy *op)
{
	bool write = op->dst_kind == BALUN_KIND_LOCAL;
	uint64_t off = write ? op->dst : op->src;

	if (write ? op->src_kind != BALUN_KIND_SYSTEM && op->src_kind != BALUN_KIND_ZERO
		  : op->src_kind != BALUN_KIND_LOCAL)
		return -EOPNOTSUPP;
	if (off > n->bytes || op->len > n->bytes - off)
		return -EINVAL;
	if (write)
		nbd_use(n, off, op->len);
	if (!write)
		nbd_batch_add(n, b, NBD_READ, off, balun_bus_ptr(op->dst, op->len), op->len);
	else if (op->src_kind == BALUN_KIND_ZERO)
		nbd_batch_add(n, b, NBD_WRITE, off, NULL, op->len);
	else
		nbd_batch_add(n, b, NBD_WRITE, off, balun_bus_ptr(op->src, op->len), op->len);
	return 0;
}

static struct nbd_batch *nbd_batch_get(struct nbd *n)
{
	struct nbd_batch *b;

	env_mutex_lock(&n->lock);
	b = n->batches;
	if (b)
		n->batches = b->next;
	env_mutex_unlock(&n->lock);
	if (!b)
		b = balun_mem_alloc(sizeof(*b));
	if (b)
		b->nparts = b->nrequests = b->answered = b->err = 0;
	return b;
}

/* its answers; the batch goes back */
static int nbd_batch_end(struct nbd *n, struct nbd_batch *b)
{
	int err;

	while (b->answered < b->nrequests)
		nbd_batch_answer(n, b);
	err = b->err;
	env_mutex_lock(&n->lock);
	b->next = n->batches;
	n->batches = b;
	env_mutex_unlock(&n->lock);
	return err;
}

static int nbd_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct nbd *nbd = priv;
	struct nbd_batch *b;
	uint64_t bytes = 0;
	int err = 0;
	size_t i;

	for (i = 0; i < n; i++)
		bytes += op[i].len;
	if (bytes > NBD_BATCH)
		return -EINVAL;
	if (nbd_is_gone(nbd))
		return -ENODEV;
	b = nbd_batch_get(nbd);
	if (!b)
		return -ENOMEM;
	for (i = 0; !err && i < n; i++)
		err = nbd_batch_op(nbd, b, &op[i]);
	nbd_batch_queue(nbd, b);
	if (!err && n && op->dst_kind == BALUN_KIND_LOCAL)
		nbd_batch_trim(nbd, b);
	if (err) {
		nbd_batch_end(nbd, b);
		return err;
	}
	*ret_cookie = (uintptr_t)b;
	return 0;
}

static int nbd_copy_wait(void *priv, uint64_t cookie)
{
	return nbd_batch_end(priv, (struct nbd_batch *)(uintptr_t)cookie);
}

/* ---- the device ---- */

static void nbd_free(struct nbd *n)
{
	struct nbd_batch *b;

	while ((b = n->batches)) {
		n->batches = b->next;
		balun_mem_free(b, sizeof(*b));
	}
	balun_mem_free(n->garbage, n->bytes / BALUN_PAGE_SIZE / 8);
	env_cond_destroy(&n->changed);
	env_mutex_destroy(&n->lock);
	balun_mem_free(n, sizeof(*n));
}

static int nbd_bytes(struct nbd *n, const struct balun_options *opt, uint64_t mem)
{
	uint64_t have = ENV_MIN(n->shared->bytes, NBD_MOST) & ~(BALUN_BLOCK_SIZE - 1);

	if (mem % BALUN_BLOCK_SIZE)
		return balun_opt_fail(opt, "mem", "must be a multiple of 2M");
	if (!have || mem > have)
		return balun_opt_fail(opt, have ? "mem" : "uri",
				      have ? "the export is smaller"
					   : "the export has less than 2M");
	n->bytes = mem ? mem : have;
	return 0;
}

static int nbd_open(struct balun_device *dev, const struct balun_options *opt,
		    struct balun_desc *ret_desc, void **ret_priv)
{
	const char *uri = balun_opt_str(opt, "uri", NULL);
	uint64_t conns, mem, timeout;
	struct nbd *n;
	int err;

	err = balun_opt_size(opt, "connections", 2, &conns);
	if (!err)
		err = balun_opt_size(opt, "mem", 0, &mem);
	if (!err)
		err = balun_opt_time(opt, "timeout", 30000000000ULL, &timeout);
	if (err)
		return err;
	if (!uri)
		return balun_opt_fail(opt, "uri", "must be given, such as nbd://host/export");
	if (!timeout)
		return balun_opt_fail(opt, "timeout", "must be more than 0");
	if (!conns || conns > NBD_CONNS_MAX)
		return balun_opt_fail(opt, "connections", "must be 1 to 16");
	n = balun_mem_alloc(sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->timeout_ns = timeout;
	n->free = ~0U;
	env_mutex_init(&n->lock);
	env_cond_init(&n->changed);
	err = nbd_start(n, uri, conns);
	if (err)
		goto err_free;
	err = nbd_bytes(n, opt, mem);
	if (!err) {
		n->garbage = balun_mem_alloc(n->bytes / BALUN_PAGE_SIZE / 8);
		err = n->garbage ? 0 : -ENOMEM;
	}
	if (err)
		goto err_stop;
	ret_desc->mem_bytes = n->bytes;
	*ret_priv = n;
	return 0;

err_stop:
	nbd_stop(n);
err_free:
	nbd_free(n);
	return err;
}

/* what is there is of no use to anybody from now on; where nothing was written that is not ours */
static void nbd_trim_all(struct nbd *n)
{
	struct nbd_slot *slot = &n->shared->slot[0]; /* nobody uses any */
	uint64_t off;

	for (off = 0; off < n->bytes && !nbd_is_gone(n); off += slot->len) {
		slot->type = NBD_TRIM;
		slot->off = off;
		slot->len = ENV_MIN(n->bytes - off, NBD_TRIM_MOST);
		nbd_queue(n, 0);
		nbd_answer_of(n, slot);
	}
}

static void nbd_close(void *priv)
{
	struct nbd *n = priv;

	if (n->shared->can_trim && n->used)
		nbd_trim_all(n);
	nbd_stop(priv);
	nbd_free(priv);
}

static int nbd_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void nbd_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		      enum balun_cause cause)
{
}

static void nbd_trim(void *priv, uint64_t off, uint64_t len)
{
	nbd_garbage(priv, off, len, true);
}

extern const struct balun_driver balun_nbd_driver;
const struct balun_driver balun_nbd_driver = {
	.size = sizeof(struct balun_driver),
	.name = "nbd",
	.help = "uri=URI        nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH, ...\n"
		"connections=2  how many at once, 1 to 16, if the server allows for more than one\n"
		"mem=0          device memory, a multiple of 2M; 0: all of the export, up to "
		"1024G\n"
		"timeout=30s    a server that does not answer for so long is gone\n",
	.open = nbd_open,
	.close = nbd_close,
	.map = nbd_map,
	.unmap = nbd_unmap,
	.copy = nbd_copy,
	.copy_wait = nbd_copy_wait,
	.trim = nbd_trim,
};
