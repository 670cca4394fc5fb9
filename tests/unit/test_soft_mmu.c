/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The MMU of the soft accelerator against an array of pages; flushes against running workers.
 */
#include "soft_fake.h"

/* what the array says of a page: 0 nothing, else kind, perm and address, as a segment has them */
struct want {
	uint32_t kind, perm;
	uint64_t addr;
};

static struct soft *soft(void)
{
	return fake.dev.priv;
}

static struct soft_pt *pt(void)
{
	return &((struct soft_space *)fake.space.data)->pt;
}

/* what the device would do with an access of page @page, asked of an idle worker's MMU */
static void check_page(const struct want *want, unsigned int page, bool write)
{
	struct soft_unit *u = soft()->unit[0];
	uint64_t va = VA + page * PG + 8, addr = 0;
	struct soft_tlb *t = &u->w.tlb[write][va / PG % SOFT_TLB_ENTRIES];
	enum soft_fill r = balun_soft_mmu_fill(&soft()->mmu, pt(), u, va, write, &addr);

	if (!(want->perm & (write ? BALUN_PERM_WRITE : BALUN_PERM_READ))) {
		assert_int_equal(r, SOFT_HOLE);
	} else if (want->kind == BALUN_KIND_SYSTEM) {
		assert_int_equal(r, SOFT_BUS);
		assert_int_equal(addr, want->addr + 8);
	} else {
		assert_int_equal(r, SOFT_CACHED);
		assert_int_equal(t->tag, va - 8);
		addr = want->kind == BALUN_KIND_LOCAL ? (uintptr_t)fake.dev.mem : 0;
		assert_int_equal(t->delta + va, addr + want->addr + 8);
	}
}

/* no TLB entry says what the array does not */
static void check_tlb(const struct want *want)
{
	struct soft_unit *u = soft()->unit[0];
	unsigned int i, k;

	for (k = 0; k < 2; k++) {
		for (i = 0; i < SOFT_TLB_ENTRIES; i++) {
			uint64_t tag = u->w.tlb[k][i].tag;
			const struct want *w = &want[(tag - VA) / PG];

			if (tag == SOFT_TLB_NONE(i))
				continue;
			assert_true(tag >= VA && tag < VA + MEM);
			assert_true(w->perm & (k ? BALUN_PERM_WRITE : BALUN_PERM_READ));
			assert_int_not_equal(w->kind, BALUN_KIND_SYSTEM);
		}
	}
}

static void want_map(struct want *want, unsigned int page, unsigned int n, uint64_t *seed)
{
	uint32_t kind = fake_rand(seed) % 3, perm = 1 + fake_rand(seed) % 3;
	uint64_t addr = fake_rand(seed) % 1024 * PG;
	unsigned int i;

	fake_map(page, n, kind, addr, perm);
	for (i = 0; i < n; i++)
		want[page + i] = (struct want){ kind, perm, addr + i * PG };
}

static void random_map_unmap(void **state)
{
	static struct want want[PAGES];
	uint64_t seed = 0x9e3779b97f4a7c15ULL;
	unsigned int step, page, n, i;

	(void)state;
	fake_begin(1);
	for (step = 0; step < 4000; step++) {
		uint64_t what = fake_rand(&seed) % 8;

		page = fake_rand(&seed) % PAGES;
		n = 1 + fake_rand(&seed) % 40;
		if (what < 3) {
			page &= ~511u;
			want_map(want, page, 512, &seed);
		} else if (what < 6) {
			n = ENV_MIN(n, 512 - page % 512);
			want_map(want, page, n, &seed);
		} else {
			n = what == 6 ? n : n * 40; /* also across blocks */
			n = ENV_MIN(n, PAGES - page);
			fake_unmap(page, n);
			memset(&want[page], 0, n * sizeof(want[0]));
		}
		check_tlb(want);
		for (i = 0; i < 50; i++) {
			page = fake_rand(&seed) % PAGES;
			check_page(&want[page], page, i % 2);
		}
	}
	for (page = 0; page < PAGES; page++)
		check_page(&want[page], page, false);
	fake_unmap(0, PAGES);
	memset(want, 0, sizeof(want));
	check_tlb(want);
	fake_end();
}

/* a large entry that is cut where there is no memory for a table goes away whole */
static void split_without_memory(void **state)
{
	struct want want = { BALUN_KIND_LOCAL, 3, 0 }, none = { 0 };
	unsigned int i;

	(void)state;
	fake_begin(1);
	/* use up the spare nodes */
	for (i = 0; soft()->mmu.spare; i++)
		fake_map(i * 512, 1, BALUN_KIND_LOCAL, 0, 3);
	fake_map(512 * 100, 512, BALUN_KIND_LOCAL, 0, 3);
	check_page(&want, 512 * 100, true);
	fake.mem_fail = 1;
	fake_unmap(512 * 100 + 7, 1);
	assert_int_equal(fake.mem_fail, 0);
	check_page(&none, 512 * 100, true);
	assert_int_equal(soft()->unit[0]->w.tlb[1][512 * 100 % SOFT_TLB_ENTRIES].tag ==
				 VA + 512 * 100 * PG,
			 0);
	check_page(&none, 512 * 100 + 500, false);
	/* and a map reports it */
	fake.mem_fail = 1;
	struct balun_seg seg = { VA + 512 * 101 * PG, PG, 0, BALUN_KIND_LOCAL, 3 };
	assert_int_equal(DRV->map(fake.dev.priv, &fake.space, &seg, 1), -ENOMEM);
	fake_end();
}

/* flushes that take nothing from a worker wait for nobody */
static void idle_flush_is_free(void **state)
{
	struct want want = { BALUN_KIND_LOCAL, 3, 0 };

	(void)state;
	fake_begin(1);
	fake_unmap(0, PAGES); /* nothing is mapped */
	fake_map(0, 512, BALUN_KIND_LOCAL, 0, 3);
	fake_unmap(0, 1); /* mapped, never used */
	assert_int_equal(soft()->mmu.begun, 0);
	fake_map(0, 1, BALUN_KIND_LOCAL, 0, BALUN_PERM_READ);
	check_page(&(struct want){ BALUN_KIND_LOCAL, 1, 0 }, 0, false);
	fake_map(0, 1, BALUN_KIND_LOCAL, 0, 3); /* more permission: nothing stale */
	assert_int_equal(soft()->mmu.begun, 0);
	check_page(&want, 0, true);
	fake_map(0, 1, BALUN_KIND_LOCAL, 0, BALUN_PERM_READ); /* less */
	assert_int_equal(soft()->mmu.begun, 1);
	assert_int_equal(soft()->mmu.done, 1);
	fake_unmap(1, PAGES - 1);
	assert_int_equal(soft()->mmu.begun, 1);
	fake_end();
}

/* addresses that no table has, at both ends */
static void wild_addresses(void **state)
{
	static const uint64_t va[] = { 0, 4088, 4096, 1ULL << 48, 1ULL << 63, UINT64_MAX - 4095 };
	uint64_t addr;
	unsigned int i;

	(void)state;
	fake_begin(1);
	for (i = 0; i < sizeof(va) / sizeof(va[0]); i++) {
		struct soft_worker *w = &soft()->unit[0]->w;

		assert_int_equal(balun_soft_mmu_fill(&soft()->mmu, pt(), soft()->unit[0], va[i],
						     true, &addr),
				 SOFT_HOLE);
		assert_false(soft_match_(&soft_begin_(w, va[i], 0)->tag, va[i], 8));
		soft_end_(w);
		DRV->unmap(fake.dev.priv, &fake.space, va[i] & ~(PG - 1), PG, 0);
	}
	DRV->unmap(fake.dev.priv, &fake.space, 0, UINT64_MAX & ~(PG - 1), 0);
	fake_end();
}

/* ---- flushes while workers run ---- */

#define FRAMES 4
#define DEAD   0xdeaddeaddeaddeadULL

static bool stop;
static uint64_t running, stale, reads;

/* page 0 is read and page 1 written all the time; what is read must never be DEAD */
static void hammer(struct soft_worker *w, uint64_t arg)
{
	uint64_t n = 0, i;

	(void)arg;
	env_add(&running, 1);
	do {
		for (i = 0; i < PG; i += 512) {
			if (soft_load_u64(w, VA + i) == DEAD)
				env_add(&stale, 1);
			soft_store_u64(w, VA + PG + i + w->index * 8, n++);
		}
	} while (!env_load(&stop));
	env_add(&reads, n);
}

/* as core moves a page: out of the old frame, which somebody else then gets */
static void flip(unsigned int page, unsigned int from, unsigned int to, bool two_phase)
{
	uint64_t *old = (uint64_t *)(fake.dev.mem + from * PG);
	uint64_t *new = (uint64_t *)(fake.dev.mem + to * PG);
	unsigned int i;

	if (two_phase) {
		DRV->unmap_begin(fake.dev.priv, &fake.space, VA + page * PG, PG, 0);
		DRV->unmap_wait(fake.dev.priv, &fake.space);
	} else {
		fake_unmap(page, 1);
	}
	for (i = 0; i < PG / 8; i++) {
		new[i] = 0;
		old[i] = DEAD;
	}
	fake_map(page, 1, BALUN_KIND_LOCAL, to * PG, 3);
	/* nobody writes to the old frame any more */
	for (i = 0; i < PG / 8; i++)
		assert_int_equal(old[i], DEAD);
}

static void flush_while_running(void **state)
{
	unsigned int i, at[2] = { 8, 16 };
	uint64_t fence;

	(void)state;
	fake_begin(2);
	stop = false;
	running = stale = reads = 0;
	fake_map(0, 1, BALUN_KIND_LOCAL, at[0] * PG, 3);
	fake_map(1, 1, BALUN_KIND_LOCAL, at[1] * PG, 3);
	fake.rule[0] = fake.rule[1] = MAPPED_BY_TEST;
	assert_int_equal(balun_soft_launch(&fake.dev, hammer, 0, 0, &fence), 0);
	while (env_load(&running) < 2)
		env_yield();
	for (i = 0; i < 4000; i++) {
		unsigned int page = i % 2, to = 8 + 8 * page + i / 2 % FRAMES;

		env_mutex_lock(&fake.block);
		if (to != at[page]) {
			flip(page, at[page], to, i / 2 % 2);
			at[page] = to;
		}
		env_mutex_unlock(&fake.block);
		env_yield();
	}
	env_store(&stop, true);
	assert_int_equal(balun_soft_wait(&fake.dev, fence, NULL), 0);
	assert_int_equal(stale, 0);
	assert_true(reads > 0);
	fake_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_map_unmap),    cmocka_unit_test(split_without_memory),
		cmocka_unit_test(idle_flush_is_free),  cmocka_unit_test(wild_addresses),
		cmocka_unit_test(flush_while_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
