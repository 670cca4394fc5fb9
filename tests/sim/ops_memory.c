// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The memory calls of the simulated process, and fork: what they do to the model. */
#include "tests/sim/ops.h"

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

void do_munmap(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	struct change c;

	change_begin(&c, &r, true, 0, false, op->no);
	CHECK(!note(op, balun_sim_munmap(world.space, r.va, r.len)));
	change_each(&c, model_end);
}

void do_mmap(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	unsigned int flags = BALUN_SIM_READ | (op->flags % 4 ? BALUN_SIM_WRITE : 0);
	struct change c;
	int err;

	change_begin(&c, &r, true, flags | PERM_MAPPED, true, op->no);
	err = note(op, balun_sim_mmap(world.space, r.va, r.len,
				      flags | (shared(r.first) ? BALUN_SIM_SHARED : 0)));
	if (err) {
		CHECK(err == -ENOMEM && could_nomem());
		change_each(&c, model_cancel);
		return;
	}
	change_each(&c, model_end);
}

void do_mprotect(const struct op *op)
{
	static const unsigned int perms[] = { BALUN_SIM_READ | BALUN_SIM_WRITE, BALUN_SIM_READ, 0,
					      BALUN_SIM_READ | BALUN_SIM_WRITE };
	struct range r = range_of(op->page, op->n);
	uint64_t begin = model_tick();
	struct change c;
	int err;

	change_begin(&c, &r, true, perms[op->flags % 4] | PERM_MAPPED, false, op->no);
	err = note(op, balun_sim_mprotect(world.space, r.va, r.len, perms[op->flags % 4]));
	change_each(&c, err ? model_cancel : model_end);
	if (err && !(err == -ENOMEM && part_unmapped(&r, begin)))
		unexpected(op, op->page, err);
}

void do_dontneed(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	uint64_t begin = model_tick();
	struct change c;
	int err;

	change_begin(&c, &r, false, 0, !shared(r.first), op->no);
	err = note(op, balun_sim_dontneed(world.space, r.va, r.len));
	change_each(&c, err ? model_cancel : model_end);
	if (err && !(err == -ENOMEM && part_unmapped(&r, begin)))
		unexpected(op, op->page, err);
}

void do_mremap(const struct op *op)
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
	err = note(op, balun_sim_mremap(world.space, from.va, to.va, to.len));
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

void do_fork(const struct op *op)
{
	struct balun_sim_child *child;
	uint64_t begin = model_tick();
	int err = note(op, balun_sim_fork(world.space, &child));

	if (err) {
		CHECK(err == -ENOMEM && could_nomem());
		return;
	}
	check_child(op, child, begin);
	balun_sim_child_exit(child);
}
