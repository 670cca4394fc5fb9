// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The memory calls of the simulated process, and fork: what they do to the model. */
#include "tests/sim/ops.h"

struct change {
	struct version *perm[PAGES], *word[PAGES][WORDS];
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

/* now and then all at once, which is more blocks than core has mirror locks */
void do_munmap(const struct op *op)
{
	struct range r = op->flags % 32 ? range_of(op->page, op->n) : range_all();
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

/* content and permission of a's pages, as copies of b's; what a has more is zeros like b's last */
static void copy_begin(struct change *c, const struct range *a, const struct range *b, uint64_t no)
{
	unsigned int i, j;

	memset(c, 0, sizeof(*c));
	c->r = *a;
	for (i = 0; i < a->n; i++) {
		unsigned int from = b->first + ENV_MIN(i, b->n - 1);

		c->perm[i] = model_copy(model_perm(a->first + i), model_perm(from), no);
		for (j = 0; j < WORDS; j++)
			c->word[i][j] = i < b->n ? model_copy(model_word(a->first + i, j),
							      model_word(from, j), no)
						 : model_write(model_word(a->first + i, j), 0, no);
	}
}

/* of the big block single pages only */
static struct range pages_of(unsigned int page, unsigned int n)
{
	return (struct range){ page_va(page), n * BALUN_PAGE_SIZE, page, n };
}

/*
 * Moves, and may leave the mapping behind, grow or shrink. A shrinking one drops the end even if it
 * fails after that; then it may or may not have happened.
 */
void do_mremap(const struct op *op)
{
	unsigned int kind = op->flags % 8, n = op->n, m = n;
	struct range from = pages_of(op->page, n), to;
	struct change gone, came, dropped;
	uint64_t begin = model_tick();
	int err;

	if (kind == 1 && op->arg % WINDOW_PAGES + n < WINDOW_PAGES &&
	    (op->page < op->arg || op->page > op->arg + n))
		m = n + 1;
	else if (kind == 2 && n > 1)
		m = n - 1;
	to = pages_of(op->arg, m);
	copy_begin(&came, &to, &from, op->no);
	if (kind == 3)
		change_begin(&gone, &from, false, 0, true, op->no);
	else
		change_begin(&gone, &from, true, 0, false, op->no);
	change_begin(&dropped, &to, true, 0, false, op->no);
	err = note(op, balun_sim_mremap(world.space, from.va, from.len, to.va, to.len,
					kind == 3 ? BALUN_SIM_DONTUNMAP : 0));
	change_each(&came, err ? model_cancel : model_end);
	change_each(&gone, !err ? model_end : err == -ENOMEM && m < n ? model_maybe : model_cancel);
	/* without memory the target may be unmapped and that is all */
	change_each(&dropped, err == -ENOMEM ? model_maybe : model_cancel);
	if (err == -EFAULT)
		CHECK(part_unmapped(&from, begin));
	else if (err)
		CHECK(err == -ENOMEM && could_nomem());
}

void do_free(const struct op *op)
{
	struct range r = range_of(op->page, op->n);
	uint64_t begin = model_tick();
	struct change c;
	int err;

	change_begin(&c, &r, false, 0, !shared(r.first), op->no);
	err = note(op, balun_sim_free(world.space, r.va, r.len));
	change_each(&c, err ? model_cancel : model_maybe);
	if (err && !(err == -ENOMEM && part_unmapped(&r, begin)))
		unexpected(op, op->page, err);
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
