/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The three tables (software page table, hints, device memory) against flat arrays that say the
 * same thing obviously. The input is a list of operations of 4 bytes.
 */
#include "core/devmem.h"
#include "core/hint.h"
#include "core/softpt.h"

#define PAGES	 4096 /* eight blocks */
#define BASE	 (0x7f0000000000ULL + 5 * BALUN_BLOCK_SIZE)
#define CHUNKS	 8
#define AT(page) (BASE + ((uint64_t)(page) << BALUN_PAGE_SHIFT))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct model {
	uint32_t place[PAGES];
	uint8_t busy[PAGES];
	uint8_t pins[PAGES];
	struct pin {
		uint32_t first, n;
	} pin[64];
	unsigned int npins;
	struct held {
		uint64_t off, len;
	} held[256];
	unsigned int nheld;
	uint64_t used;
};

static struct model m;
static struct softpt *pt;
static struct hint_table *hints;
static struct devmem *mem;

static void check_page(unsigned int i)
{
	struct softpt_run run;
	uint64_t bits[ENV_BITS_WORDS];
	unsigned int j;

	softpt_run(pt, AT(i), (uint64_t)(PAGES - i) << BALUN_PAGE_SHIFT, &run);
	env_assert(run.va == AT(i) && run.len);
	for (j = 0; j < run.len >> BALUN_PAGE_SHIFT; j++) {
		env_assert(run.away == (m.place[i + j] != 0));
		env_assert(!run.away || run.place + j == m.place[i + j]);
		env_assert(run.busy == m.busy[i + j]);
	}
	memset(bits, 0, sizeof(bits));
	hint_pinned(hints, AT(i / BALUN_BLOCK_PAGES * BALUN_BLOCK_PAGES), bits);
	env_assert(env_bit(bits, i % BALUN_BLOCK_PAGES) == (m.pins[i] != 0));
}

static void set_away(unsigned int i, unsigned int n, unsigned int v)
{
	uint32_t place = SOFTPT_PLACE(1 + v % 3, v * 64 + i % 16);
	unsigned int j;

	if (softpt_reserve(pt, AT(i), false) ||
	    softpt_set_away(pt, AT(i), (uint64_t)n << BALUN_PAGE_SHIFT, place))
		return;
	for (j = 0; j < n; j++)
		m.place[i + j] = place + j;
}

static void remap(unsigned int from, unsigned int to, unsigned int n)
{
	uint64_t len = (uint64_t)n << BALUN_PAGE_SHIFT;

	if (from + n > to && to + n > from)
		return;
	softpt_clear_away(pt, AT(to), len);
	softpt_clear_busy(pt, AT(to), len);
	memset(&m.place[to], 0, n * sizeof(m.place[0]));
	memset(&m.busy[to], 0, n);
	if (softpt_remap(pt, AT(from), AT(to), len))
		return;
	memcpy(&m.place[to], &m.place[from], n * sizeof(m.place[0]));
	memcpy(&m.busy[to], &m.busy[from], n);
	memset(&m.place[from], 0, n * sizeof(m.place[0]));
	memset(&m.busy[from], 0, n);
}

static void pin(unsigned int i, unsigned int n)
{
	unsigned int j;

	if (m.npins == 64 || hint_pin(hints, AT(i), (uint64_t)n << BALUN_PAGE_SHIFT))
		return;
	m.pin[m.npins++] = (struct pin){ i, n };
	for (j = 0; j < n; j++)
		m.pins[i + j]++;
}

static void unpin(unsigned int v)
{
	struct pin p;
	unsigned int j;

	if (!m.npins)
		return;
	p = m.pin[v % m.npins];
	m.npins--;
	m.pin[v % (m.npins + 1)] = m.pin[m.npins];
	env_assert(hint_unpin(hints, AT(p.first), (uint64_t)p.n << BALUN_PAGE_SHIFT) == 0);
	for (j = 0; j < p.n; j++)
		m.pins[p.first + j]--;
}

static void take(unsigned int v)
{
	static const uint64_t size[] = { BALUN_PAGE_SIZE, 16 * BALUN_PAGE_SIZE, BALUN_BLOCK_SIZE };
	uint64_t len = size[v % 3], off;
	unsigned int i;

	if (m.nheld == 256 || devmem_alloc(mem, len, &off))
		return;
	env_assert(off % len == 0 && off + len <= CHUNKS * BALUN_BLOCK_SIZE);
	for (i = 0; i < m.nheld; i++)
		env_assert(off + len <= m.held[i].off || m.held[i].off + m.held[i].len <= off);
	m.held[m.nheld++] = (struct held){ off, len };
	m.used += len;
}

/* give back the first part of an allocation, or all of it */
static void give(unsigned int v, unsigned int part)
{
	struct held *h;
	uint64_t len;

	if (!m.nheld)
		return;
	h = &m.held[v % m.nheld];
	len = h->len;
	if (part < len >> BALUN_PAGE_SHIFT && part)
		len = (uint64_t)part << BALUN_PAGE_SHIFT;
	devmem_free(mem, h->off, len);
	m.used -= len;
	h->off += len;
	h->len -= len;
	if (!h->len)
		*h = m.held[--m.nheld];
}

static void step(const uint8_t *d)
{
	unsigned int i = (d[1] * 16 + (d[0] >> 4)) % PAGES, n = 1 + d[2], v = d[3];
	uint64_t len;
	unsigned int j;

	/* as the engines do: one call stays inside one block */
	n = ENV_MIN(n, BALUN_BLOCK_PAGES - i % BALUN_BLOCK_PAGES);
	len = (uint64_t)n << BALUN_PAGE_SHIFT;
	switch (d[0] & 15) {
	case 0:
	case 1:
		set_away(i, n, v);
		break;
	case 2:
		softpt_clear_away(pt, AT(i), len);
		memset(&m.place[i], 0, n * sizeof(m.place[0]));
		break;
	case 3:
		if (softpt_set_busy(pt, AT(i), len) == 0)
			memset(&m.busy[i], 1, n);
		break;
	case 4:
		softpt_clear_busy(pt, AT(i), len);
		memset(&m.busy[i], 0, n);
		break;
	case 5:
		j = v * 16 % PAGES;
		remap(i, j, ENV_MIN(n, PAGES - j));
		break;
	case 6:
		pin(i, n);
		break;
	case 7:
		unpin(v);
		break;
	case 8:
	case 9:
		take(v);
		break;
	case 10:
		give(v, d[2]);
		break;
	case 11:
		hint_set(hints, AT(i), len, v % 2 ? BALUN_ADVISE_READ_MOSTLY : BALUN_ADVISE_NONE,
			 0);
		break;
	default:
		check_page(i);
		break;
	}
	check_page(i);
	env_assert(devmem_used(mem) == m.used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int i;

	memset(&m, 0, sizeof(m));
	pt = softpt_create();
	hints = hint_create();
	mem = devmem_create(CHUNKS * BALUN_BLOCK_SIZE);
	env_assert(pt && hints && mem);
	for (; size >= 4 && size <= 4096; data += 4, size -= 4)
		step(data);
	for (i = 0; i < PAGES; i += 61)
		check_page(i);
	env_assert(devmem_check(mem) == 0);
	devmem_destroy(mem);
	hint_destroy(hints);
	softpt_destroy(pt);
	return 0;
}
