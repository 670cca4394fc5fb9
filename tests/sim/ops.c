// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Loads, stores and device accesses: each tells the model what it is about to do, does it, and
 * checks what came out, the errno included: an error must have had a reason at some moment of the
 * operation.
 */
#include "tests/sim/ops.h"

#define ERRNOS 134

struct world world;

static uint64_t seen[OPS][ERRNOS];

int note(const struct op *op, int err)
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

void unexpected(const struct op *op, unsigned int page, int err)
{
	FAIL("op %llu %s page %u: %s is not to be expected", (unsigned long long)op->no,
	     op_name(op->kind), page, err ? strerrorname_np(-err) : "success");
}

/* everything that the test ever maps, and much that it does not */
struct range range_all(void)
{
	uint64_t va = page_va(0);

	return (struct range){ va, page_va(BIG_FIRST - 1) + BALUN_PAGE_SIZE - va, 0, PAGES };
}

/* in whole pages of a window; of the big block all, or from one of its pages up to before another
 */
struct range range_of(unsigned int page, unsigned int n)
{
	if (page >= BIG_FIRST && n != 1 && n != BIG_PAGES) {
		unsigned int to = page + n;
		uint64_t end = to < PAGES ? page_va(to) : BIG_VA + BALUN_BLOCK_SIZE;

		to = ENV_MIN(to, PAGES);
		return (struct range){ page_va(page), end - page_va(page), page, to - page };
	}
	if (page >= BIG_FIRST)
		return (struct range){ BIG_VA, BALUN_BLOCK_SIZE, BIG_FIRST, BIG_PAGES };
	return (struct range){ page_va(page), n * BALUN_PAGE_SIZE, page, n };
}

bool shared(unsigned int page)
{
	return world.s->profile.shared && page >= SHARED_FIRST && page < BIG_FIRST;
}

bool could_nomem(void)
{
	return world.nomem;
}

static uint64_t new_value(void)
{
	return 0x5a00000000000000ULL + ++world.next_value;
}

/* ---- loads and stores ---- */

bool perm_had(unsigned int page, unsigned int bit, bool had, uint64_t begin)
{
	return model_saw_bits(model_perm(page), bit, had ? bit : 0, begin, model_tick());
}

void check_value(const struct op *op, unsigned int page, unsigned int word, uint64_t value,
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

void check_cpu(const struct op *op, unsigned int page, unsigned int need, int err, uint64_t begin)
{
	switch (err) {
	case 0:
	case -EFAULT:
		if (!perm_had(page, need, !err, begin))
			unexpected(op, page, err);
		return;
	case -EHWPOISON:
		CHECK(testdev_any_dead());
		world.poison = true;
		return;
	case -ENOMEM:
		CHECK(could_nomem());
		return;
	default:
		unexpected(op, page, err);
	}
}

void cpu_load(const struct op *op, unsigned int page, unsigned int word)
{
	uint64_t begin = model_tick(), value;
	int err = note(op, balun_sim_load(world.space, word_va(page, word), &value, 8));

	check_cpu(op, page, BALUN_SIM_READ, err, begin);
	if (!err)
		check_value(op, page, word, value, begin);
}

void cpu_store(const struct op *op, unsigned int page, unsigned int word)
{
	uint64_t begin = model_tick(), value = new_value();
	struct version *v = model_write(model_word(page, word), value, op->no);
	int err = note(op, balun_sim_store(world.space, word_va(page, word), &value, 8));

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
	const struct profile *p = &world.s->profile;
	bool write = access == BALUN_ACCESS_WRITE || access == BALUN_ACCESS_ATOMIC;
	bool maybe = false;

	switch (err) {
	case 0:
		for (; n && access != BALUN_ACCESS_PREFETCH; n--)
			if (!perm_had(page + n - 1, write ? BALUN_SIM_WRITE : BALUN_SIM_READ, true,
				      begin) ||
			    (access == BALUN_ACCESS_ATOMIC && shared(page + n - 1)))
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
		CHECK(!world.handle[op->device].dev || world.handle[op->device].closed ||
		      testdev_any_dead());
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
		CHECK(!world.alone); /* memory kept changing */
		return;
	default:
		unexpected(op, page, err);
	}
}

void dev_read(const struct op *op, unsigned int page, unsigned int word)
{
	uint64_t begin = model_tick(), value = 0;
	int err = note(op, testdev_access(op->device, word_va(page, word), TESTDEV_READ, &value));

	check_device(op, page, 1, BALUN_ACCESS_READ, err, begin);
	if (!err)
		check_value(op, page, word, value, begin);
}

void dev_write(const struct op *op, unsigned int page, unsigned int word, bool swap)
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

void do_fault(const struct op *op)
{
	static const uint32_t access[] = { BALUN_ACCESS_READ, BALUN_ACCESS_WRITE,
					   BALUN_ACCESS_PREFETCH, BALUN_ACCESS_ATOMIC };
	struct range r = range_of(op->page, op->n);
	uint32_t a = access[op->arg % 4];
	uint64_t begin = model_tick();
	int err = note(op, testdev_fault(op->device, r.va, r.len, a));

	check_device(op, r.first, r.n, a, err, begin);
}

/* nothing of the range was mapped at some moment; as close as the model can say */
bool was_unmapped(const struct range *r, uint64_t begin)
{
	unsigned int i;

	for (i = 0; i < r->n; i++)
		if (!perm_had(r->first + i, PERM_MAPPED, false, begin))
			return false;
	return true;
}

bool part_unmapped(const struct range *r, uint64_t begin)
{
	unsigned int i;

	for (i = 0; i < r->n; i++)
		if (perm_had(r->first + i, PERM_MAPPED, false, begin))
			return true;
	return false;
}
