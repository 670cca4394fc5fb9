// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Runs a schedule: each operation tells the model what it is about to do, does it, and checks what
 * came out, the errno included: an error must have had a reason at some moment of the operation.
 */
#include "tests/sim/schedule.h"

#define ERRNOS	 134
#define MAX_PINS 64

/* the handle of a device and who uses it: closing waits for them, as an application must */
struct handle {
	struct balun_device *dev;
	unsigned int users;
	bool closing, closed; /* now; ever */
};

static struct {
	const struct schedule *s;
	struct balun_space *space;
	struct handle handle[DEVICES];
	struct env_mutex lock;
	struct env_cond quiet; /* go; a handle's users went down */
	struct range {
		uint64_t va, len;
		unsigned int first, n;
	} pin[MAX_PINS];
	unsigned int npins;
	uint64_t next_value;
	bool nomem; /* an allocation was made to fail */
	bool go;    /* all threads are there */
} w;

static uint64_t seen[OPS][ERRNOS];

static int note(const struct op *op, int err)
{
	CHECK(-err >= 0 && -err < ERRNOS);
	seen[op->kind][-err]++;
	env_sim_note(op_name(op->kind), op->no, -err);
	return err;
}

void ops_report(FILE *out)
{
	unsigned int k, e;

	for (k = 0; k < OPS; k++) {
		fprintf(out, "%-12s", op_name(k));
		for (e = 0; e < ERRNOS; e++)
			if (seen[k][e])
				fprintf(out, " %s %llu", e ? strerrorname_np(e) : "ok",
					(unsigned long long)seen[k][e]);
		fprintf(out, "\n");
	}
}

static void unexpected(const struct op *op, unsigned int page, int err)
{
	FAIL("op %llu %s page %u: %s is not to be expected", (unsigned long long)op->no,
	     op_name(op->kind), page, err ? strerrorname_np(-err) : "success");
}

/* in whole pages of a window, or all of the big block */
static struct range range_of(unsigned int page, unsigned int n)
{
	if (page >= BIG_FIRST)
		return (struct range){ BIG_VA, BALUN_BLOCK_SIZE, BIG_FIRST, BIG_PAGES };
	return (struct range){ page_va(page), n * BALUN_PAGE_SIZE, page, n };
}

static bool shared(unsigned int page)
{
	return w.s->profile.shared && page >= SHARED_FIRST && page < BIG_FIRST;
}

static bool could_nomem(void)
{
	return w.nomem;
}

static uint64_t new_value(void)
{
	return 0x5a00000000000000ULL + ++w.next_value;
}

/* ---- loads and stores ---- */

static bool perm_had(unsigned int page, unsigned int bit, bool had, uint64_t begin)
{
	return model_saw_bits(model_perm(page), bit, had ? bit : 0, begin, model_tick());
}

static void check_value(const struct op *op, unsigned int page, unsigned int word, uint64_t value,
			uint64_t begin)
{
	char text[600];

	if (model_saw(model_word(page, word), value, begin, model_tick()))
		return;
	model_print(model_word(page, word), text, sizeof(text));
	FAIL("op %llu %s page %u word %u: read %llx in [%llu,now], which it was not:%s",
	     (unsigned long long)op->no, op_name(op->kind), page, word, (unsigned long long)value,
	     (unsigned long long)begin, text);
}

static void check_cpu(const struct op *op, unsigned int page, unsigned int need, int err,
		      uint64_t begin)
{
	switch (err) {
	case 0:
	case -EFAULT:
		if (!perm_had(page, need, !err, begin))
			unexpected(op, page, err);
		return;
	case -EHWPOISON:
		CHECK(testdev_any_dead());
		return;
	case -ENOMEM:
		CHECK(could_nomem());
		return;
	default:
		unexpected(op, page, err);
	}
}

static void cpu_load(const struct op *op, unsigned int page, unsigned int word)
{
	uint64_t begin = model_tick(), value;
	int err = note(op, balun_sim_load(w.space, word_va(page, word), &value, 8));

	check_cpu(op, page, BALUN_SIM_READ, err, begin);
	if (!err)
		check_value(op, page, word, value, begin);
}

static void cpu_store(const struct op *op, unsigned int page, unsigned int word)
{
	uint64_t begin = model_tick(), value = new_value();
	struct version *v = model_write(model_word(page, word), value, op->no);
	int err = note(op, balun_sim_store(w.space, word_va(page, word), &value, 8));

	if (err)
		model_cancel(v);
	else
		model_end(v);
	check_cpu(op, page, BALUN_SIM_WRITE, err, begin);
}

/* errors of a device access or fault, over [page, page + n) */
static void check_device(const struct op *op, unsigned int page, unsigned int n, uint32_t access,
			 int err, uint64_t begin)
{
	const struct profile *p = &w.s->profile;
	bool write = access == BALUN_ACCESS_WRITE || access == BALUN_ACCESS_ATOMIC;
	bool maybe = false;

	switch (err) {
	case 0:
		for (; n && access != BALUN_ACCESS_PREFETCH; n--)
			if (!perm_had(page + n - 1, write ? BALUN_SIM_WRITE : BALUN_SIM_READ, true,
				      begin))
				unexpected(op, page, err);
		return;
	case -EFAULT:
		for (; n; n--)
			maybe |= perm_had(page + n - 1, BALUN_SIM_READ, false, begin);
		CHECK(maybe || testdev_any_dead());
		return;
	case -EPERM:
		for (; n; n--)
			maybe |= perm_had(page + n - 1, BALUN_SIM_WRITE, false, begin);
		CHECK(maybe && write);
		return;
	case -ENODEV:
		CHECK(!w.handle[op->device].dev || w.handle[op->device].closed);
		return;
	case -EIO:
		CHECK(p->copy || testdev_any_dead());
		return;
	case -ENOMEM:
		CHECK(p->map || could_nomem());
		return;
	case -EOPNOTSUPP:
		CHECK(access == BALUN_ACCESS_ATOMIC && (shared(page) || shared(page + n - 1)));
		return;
	case -EBUSY:
	case -EAGAIN:
		return; /* memory kept changing */
	default:
		unexpected(op, page, err);
	}
}

static void dev_read(const struct op *op, unsigned int page, unsigned int word)
{
	uint64_t begin = model_tick(), value = 0;
	int err = note(op, testdev_access(op->device, word_va(page, word), TESTDEV_READ, &value));

	check_device(op, page, 1, BALUN_ACCESS_READ, err, begin);
	if (!err)
		check_value(op, page, word, value, begin);
}

static void dev_write(const struct op *op, unsigned int page, unsigned int word, bool swap)
{
	uint64_t begin = model_tick(), value = new_value();
	struct version *v = model_write(model_word(page, word), value, op->no);
	int err = note(op, testdev_access(op->device, word_va(page, word),
					  swap ? TESTDEV_SWAP : TESTDEV_WRITE, &value));

	if (err)
		model_cancel(v);
	else
		model_end(v);
	check_device(op, page, 1, swap ? BALUN_ACCESS_ATOMIC : BALUN_ACCESS_WRITE, err, begin);
	if (!err && swap)
		check_value(op, page, word, value, begin);
}

static void do_fault(const struct op *op)
{
	static const uint32_t access[] = { BALUN_ACCESS_READ, BALUN_ACCESS_WRITE,
					   BALUN_ACCESS_PREFETCH, BALUN_ACCESS_ATOMIC };
	struct range r = range_of(op->page, op->n);
	uint32_t a = access[op->arg % 4];
	uint64_t begin = model_tick();
	int err = note(op, testdev_fault(op->device, r.va, r.len, a));

	check_device(op, r.first, r.n, a, err, begin);
}

/* ---- calls of the application ---- */

static struct balun_device *handle_get(unsigned int i)
{
	struct handle *h = &w.handle[i];

	if (!h->dev || h->closing)
		return NULL;
	h->users++;
	return h->dev;
}

static void handle_put(unsigned int i)
{
	env_mutex_lock(&w.lock);
	w.handle[i].users--;
	env_cond_wake(&w.quiet);
	env_mutex_unlock(&w.lock);
}

/* nothing of the range was mapped at some moment; as close as the model can say */
static bool was_unmapped(const struct range *r, uint64_t begin)
{
	unsigned int i;

	for (i = 0; i < r->n; i++)
		if (!perm_had(r->first + i, PERM_MAPPED, false, begin))
			return false;
	return true;
}

static bool part_unmapped(const struct range *r, uint64_t begin)
{
	unsigned int i;

	for (i = 0; i < r->n; i++)
		if (perm_had(r->first + i, PERM_MAPPED, false, begin))
			return true;
	return false;
}

/*
 * Migrating to a device that another thread closes meanwhile is refused or done; so this one alone
 * holds no users count, but takes the handle and calls without a scheduling point in between.
 */
static void do_migrate(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	struct handle *h = &w.handle[op->device];
	bool home = op->flags % 3 == 0;
	struct balun_counts c = { 0 };
	uint64_t begin = model_tick();
	int err;

	if (!home && (!h->dev || h->closing))
		return;
	err = note(op, balun_migrate(w.space, (void *)r.va, r.len, home ? NULL : h->dev, &c));
	switch (err) {
	case 0:
		CHECK(c.moved + c.already + c.empty + c.busy + c.pinned + c.unmovable + c.nomem +
			      c.failed ==
		      r.len >> BALUN_PAGE_SHIFT);
		CHECK(!c.failed || w.s->profile.copy || testdev_any_dead());
		return;
	case -EFAULT:
		CHECK(was_unmapped(&r, begin));
		return;
	case -ENODEV:
		CHECK(!home && h->closed);
		return;
	case -ENOMEM:
		CHECK(could_nomem());
		return;
	default:
		unexpected(op, op->page, err);
	}
}

static void do_prefetch(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	struct balun_device *dev = op->flags % 3 ? handle_get(op->device) : NULL;
	int err;

	if (op->flags % 3 && !dev)
		return;
	err = note(op, balun_prefetch(w.space, (void *)r.va, r.len, dev));
	if (err && err != -EAGAIN && !(err == -ENOMEM && could_nomem()))
		unexpected(op, op->page, err);
	if (dev)
		handle_put(op->device);
}

static void do_evict(const struct op *op)
{
	struct balun_device *dev = handle_get(op->device);
	uint64_t bytes = op->flags % 4 ? (1 + op->arg % 20) * BALUN_PAGE_SIZE : UINT64_MAX, freed;
	int err;

	if (!dev)
		return;
	err = note(op, balun_evict(dev, bytes, &freed));
	if (err == -EIO)
		CHECK(w.s->profile.copy || testdev_any_dead());
	else if (err && err != -EBUSY && !(err == -ENOMEM && could_nomem()))
		unexpected(op, op->page, err);
	handle_put(op->device);
}

static void do_advise(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	enum balun_advice advice = op->arg % (BALUN_ADVISE_DISCARD + 1);
	struct version *v[BIG_PAGES + WINDOW_PAGES][WORDS];
	struct balun_device *dev = handle_get(op->device);
	unsigned int i, j;
	int err;

	if (!dev)
		return;
	for (i = 0; advice == BALUN_ADVISE_DISCARD && i < r.n; i++)
		for (j = 0; j < WORDS; j++)
			v[i][j] = model_write(model_word(r.first + i, j), 0, op->no);
	err = note(op, balun_advise(w.space, (void *)r.va, r.len, advice, dev));
	for (i = 0; advice == BALUN_ADVISE_DISCARD && i < r.n; i++)
		for (j = 0; j < WORDS; j++)
			model_maybe(v[i][j]);
	if (err && !(err == -ENOMEM && could_nomem()))
		unexpected(op, op->page, err);
	handle_put(op->device);
}

static void do_pin(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	int err;

	if (w.npins == MAX_PINS)
		return;
	err = note(op, balun_pin(w.space, (void *)r.va, r.len));
	if (!err)
		w.pin[w.npins++] = r;
	else if (err != -ENOMEM || !could_nomem())
		unexpected(op, op->page, err);
}

static void do_unpin(const struct op *op)
{
	struct range r;

	if (!w.npins)
		return;
	r = w.pin[--w.npins];
	CHECK(!note(op, balun_unpin(w.space, (void *)r.va, r.len)));
}

static void do_query(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	struct balun_extent x[4];
	uint64_t va = r.va;
	size_t n, i;

	while (va < r.va + r.len) {
		CHECK(!note(op, balun_query(w.space, (void *)va, r.va + r.len - va, x, 4, &n)));
		CHECK(n > 0 && n <= 4);
		for (i = 0; i < n; i++) {
			CHECK(x[i].addr == va && x[i].len);
			CHECK((x[i].where == BALUN_WHERE_DEVICE) == (x[i].device != 0));
			va += x[i].len;
		}
	}
	CHECK(va == r.va + r.len);
}

/* ---- memory calls ---- */

struct change {
	struct version *perm[WINDOW_PAGES], *word[WINDOW_PAGES][WORDS];
	struct range r;
};

static void change_begin(struct change *c, const struct range *r, bool perm, uint64_t flags,
			 bool zero, uint64_t no)
{
	unsigned int i, j;

	memset(c, 0, sizeof(*c));
	c->r = *r;
	for (i = 0; i < r->n; i++) {
		if (perm)
			c->perm[i] = model_write(model_perm(r->first + i), flags, no);
		for (j = 0; zero && j < WORDS; j++)
			c->word[i][j] = model_write(model_word(r->first + i, j), 0, no);
	}
}

static void change_each(struct change *c, void (*fn)(struct version *))
{
	unsigned int i, j;

	for (i = 0; i < c->r.n; i++) {
		if (c->perm[i])
			fn(c->perm[i]);
		for (j = 0; j < WORDS; j++)
			if (c->word[i][j])
				fn(c->word[i][j]);
	}
}

static void do_munmap(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	struct change c;

	change_begin(&c, &r, true, 0, false, op->no);
	CHECK(!note(op, balun_sim_munmap(w.space, r.va, r.len)));
	change_each(&c, model_end);
}

static void do_mmap(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	unsigned int flags = BALUN_SIM_READ | (op->flags % 4 ? BALUN_SIM_WRITE : 0);
	struct change c;
	int err;

	change_begin(&c, &r, true, flags | PERM_MAPPED, true, op->no);
	err = note(op, balun_sim_mmap(w.space, r.va, r.len,
				      flags | (shared(r.first) ? BALUN_SIM_SHARED : 0)));
	if (err) {
		CHECK(err == -ENOMEM && could_nomem());
		change_each(&c, model_cancel);
		return;
	}
	change_each(&c, model_end);
}

static void do_mprotect(const struct op *op)
{
	static const unsigned int perms[] = { BALUN_SIM_READ | BALUN_SIM_WRITE, BALUN_SIM_READ, 0,
					      BALUN_SIM_READ | BALUN_SIM_WRITE };
	struct range r = range_of(op->page, op->n);
	uint64_t begin = model_tick();
	struct change c;
	int err;

	change_begin(&c, &r, true, perms[op->flags % 4] | PERM_MAPPED, false, op->no);
	err = note(op, balun_sim_mprotect(w.space, r.va, r.len, perms[op->flags % 4]));
	change_each(&c, err ? model_cancel : model_end);
	if (err && !(err == -ENOMEM && part_unmapped(&r, begin)))
		unexpected(op, op->page, err);
}

static void do_dontneed(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	uint64_t begin = model_tick();
	struct change c;
	int err;

	change_begin(&c, &r, false, 0, !shared(r.first), op->no);
	err = note(op, balun_sim_dontneed(w.space, r.va, r.len));
	change_each(&c, err ? model_cancel : model_end);
	if (err && !(err == -ENOMEM && part_unmapped(&r, begin)))
		unexpected(op, op->page, err);
}

static void do_mremap(const struct op *op)
{
	struct range from = range_of(op->page, op->n), to = range_of(op->arg, op->n);
	struct change gone, came, dropped;
	uint64_t begin = model_tick();
	unsigned int i, j;
	int err;

	memset(&came, 0, sizeof(came));
	came.r = to;
	for (i = 0; i < to.n; i++) {
		came.perm[i] =
			model_copy(model_perm(to.first + i), model_perm(from.first + i), op->no);
		for (j = 0; j < WORDS; j++)
			came.word[i][j] = model_copy(model_word(to.first + i, j),
						     model_word(from.first + i, j), op->no);
	}
	change_begin(&gone, &from, true, 0, false, op->no);
	change_begin(&dropped, &to, true, 0, false, op->no);
	err = note(op, balun_sim_mremap(w.space, from.va, to.va, to.len));
	change_each(&came, err ? model_cancel : model_end);
	change_each(&gone, err ? model_cancel : model_end);
	/* without memory the target may be unmapped and that is all */
	change_each(&dropped, err == -ENOMEM ? model_maybe : model_cancel);
	if (err == -EFAULT)
		CHECK(part_unmapped(&from, begin));
	else if (err)
		CHECK(err == -ENOMEM && could_nomem());
}

static void check_child(const struct op *op, struct balun_sim_child *child, uint64_t begin)
{
	unsigned int page, word;
	uint64_t value;

	for (page = 0; page < PAGES; page++) {
		for (word = 0; word < WORDS; word++) {
			int err = balun_sim_child_load(child, word_va(page, word), &value, 8);

			check_cpu(op, page, BALUN_SIM_READ, err, begin);
			if (!err)
				check_value(op, page, word, value, begin);
		}
	}
}

static void do_fork(const struct op *op)
{
	struct balun_sim_child *child;
	uint64_t begin = model_tick();
	int err = note(op, balun_sim_fork(w.space, &child));

	if (err) {
		CHECK(err == -ENOMEM && could_nomem());
		return;
	}
	check_child(op, child, begin);
	balun_sim_child_exit(child);
}

/* ---- devices ---- */

static int open_device(unsigned int i)
{
	const struct schedule *s = w.s;
	char spec[80];

	if (i == 2)
		snprintf(spec, sizeof(spec), "%s",
			 s->options & 1 ? "ram:mem=2M" : "inject(ram:mem=2M)");
	else
		snprintf(spec, sizeof(spec), "testdev:slot=%u,room=%u,two=%u,peer=%u", i,
			 i ? 0 : s->room, s->options >> (1 + i) & 1, s->options >> (3 + i) & 1);
	return balun_device_open(w.space, spec, &w.handle[i].dev);
}

static void close_device(const struct op *op, unsigned int i)
{
	struct handle *h = &w.handle[i];
	int err;

	h->closing = h->closed = true;
	env_mutex_lock(&w.lock);
	while (h->users)
		env_cond_wait(&w.quiet, &w.lock, ENV_FOREVER);
	env_mutex_unlock(&w.lock);
	err = balun_device_close(h->dev);
	h->dev = NULL;
	if (op)
		note(op, err);
	if (err)
		CHECK(err == -EIO && testdev_any_dead());
}

static void do_close(const struct op *op)
{
	struct handle *h = &w.handle[op->device];
	int err;

	if (h->closing)
		return;
	h->closing = true;
	if (h->dev)
		close_device(op, op->device);
	err = open_device(op->device);
	h->closing = false;
	if (err)
		CHECK(w.s->profile.open || could_nomem());
}

static void do_op(const struct op *op)
{
	unsigned int word = op->flags >> 4 & 1;

	switch (op->kind) {
	case OP_LOAD:
		return cpu_load(op, op->page, word);
	case OP_STORE:
		return cpu_store(op, op->page, word);
	case OP_DEV_READ:
		return dev_read(op, op->page, word);
	case OP_DEV_WRITE:
		return dev_write(op, op->page, word, false);
	case OP_DEV_SWAP:
		return dev_write(op, op->page, word, true);
	case OP_FAULT:
		return do_fault(op);
	case OP_MIGRATE:
		return do_migrate(op);
	case OP_PREFETCH:
		return do_prefetch(op);
	case OP_SYNC:
		CHECK(!note(op, balun_sync(w.space)));
		return;
	case OP_EVICT:
		return do_evict(op);
	case OP_ADVISE:
		return do_advise(op);
	case OP_PIN:
		return do_pin(op);
	case OP_UNPIN:
		return do_unpin(op);
	case OP_MUNMAP:
		return do_munmap(op);
	case OP_MMAP:
		return do_mmap(op);
	case OP_MREMAP:
		return do_mremap(op);
	case OP_MPROTECT:
		return do_mprotect(op);
	case OP_DONTNEED:
		return do_dontneed(op);
	case OP_FORK:
		return do_fork(op);
	case OP_CLOSE:
		return do_close(op);
	case OP_QUERY:
		return do_query(op);
	case OP_KILL:
		return testdev_kill(op->device, op->flags & 1);
	case OP_NOMEM:
		w.nomem = true;
		return env_fail_alloc(1 + op->arg % 12);
	}
}

/* ---- the run ---- */

struct worker {
	struct env_thread *thread;
	unsigned int no;
};

static void worker_main(void *arg)
{
	struct worker *me = arg;
	unsigned int i;

	env_mutex_lock(&w.lock);
	while (!w.go)
		env_cond_wait(&w.quiet, &w.lock, ENV_FOREVER);
	env_mutex_unlock(&w.lock);
	for (i = 0; i < w.s->nops; i++)
		if (w.s->op[i].thread == me->no)
			do_op(&w.s->op[i]);
}

static void start(void)
{
	static const struct op setup = { .kind = OP_MMAP };
	struct balun_space_opts opts = { .size = sizeof(opts), .engine = "sim" };
	unsigned int i, page;

	CHECK(!balun_space_create(&opts, &w.space));
	for (i = 0; i <= WINDOWS; i++) {
		struct op op = setup;

		op.page = page = i * WINDOW_PAGES;
		op.n = page < BIG_FIRST ? WINDOW_PAGES : BIG_PAGES;
		op.flags = 1;
		do_mmap(&op);
	}
	for (i = 0; i < DEVICES; i++)
		if (i < 2 || w.s->options & 0x20)
			CHECK(!open_device(i));
}

static void check_all(const struct op *op, bool devices)
{
	struct op final = *op;
	unsigned int page, word, d;

	for (page = 0; page < PAGES; page++) {
		for (word = 0; word < WORDS; word++) {
			for (d = 0; devices && d < DEVICES - 1; d++) {
				final.device = d;
				final.kind = OP_DEV_READ;
				if (w.handle[d].dev)
					dev_read(&final, page, word);
			}
			final.kind = OP_LOAD;
			cpu_load(&final, page, word);
		}
	}
}

/* either nothing is mapped any more, and then the devices hold nothing; or closing brings it home
 */
static void finish(void)
{
	const struct op op = { .no = 999 };
	struct balun_device_info info = { .size = sizeof(info) };
	bool unmap = w.s->options & 0x80;
	unsigned int i;
	int err;

	CHECK(!balun_sync(w.space));
	while (w.npins)
		do_unpin(&op);
	CHECK(balun_unpin(w.space, (void *)page_va(0), BALUN_PAGE_SIZE) == -ENOENT);
	check_all(&op, w.s->options & 0x40);
	for (i = 0; unmap && i < WINDOWS; i++)
		balun_sim_munmap(w.space, page_va(i * WINDOW_PAGES),
				 WINDOW_PAGES * BALUN_PAGE_SIZE);
	if (unmap)
		balun_sim_munmap(w.space, BIG_VA, BALUN_BLOCK_SIZE);
	for (i = 0; i < DEVICES; i++) {
		if (!w.handle[i].dev)
			continue;
		CHECK(!balun_device_info(w.handle[i].dev, &info));
		if (unmap && info.mem_used)
			FAIL("device %u holds %llu bytes of nobody", i,
			     (unsigned long long)info.mem_used);
		if (i || unmap)
			close_device(NULL, i);
	}
	if (!unmap)
		check_all(&op, false);
	err = balun_space_destroy(w.space);
	CHECK(!err || (err == -EIO && testdev_any_dead()));
}

void schedule_run(void *schedule)
{
	struct worker worker[8];
	const struct schedule *s = schedule;
	size_t before = env_alloc_bytes();
	unsigned int i;

	memset(&w, 0, sizeof(w));
	memset(&profile, 0, sizeof(profile));
	w.s = s;
	env_mutex_init(&w.lock);
	env_cond_init(&w.quiet);
	model_reset();
	testdev_reset();
	start();
	profile = s->profile;
	for (i = 0; i < s->nthreads; i++) {
		worker[i].no = i;
		CHECK(!env_thread_create(&worker[i].thread, "worker", worker_main, &worker[i]));
	}
	env_mutex_lock(&w.lock);
	w.go = true;
	env_cond_wake(&w.quiet);
	env_mutex_unlock(&w.lock);
	for (i = 0; i < s->nthreads; i++)
		env_thread_join(worker[i].thread);
	/* from here on nothing fails and nobody is in the way */
	memset(&profile, 0, sizeof(profile));
	env_fail_alloc(0);
	finish();
	env_cond_destroy(&w.quiet);
	env_mutex_destroy(&w.lock);
	if (env_alloc_bytes() != before)
		FAIL("%zu bytes were not freed", env_alloc_bytes() - before);
}
