/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: probe_table.h - the probe's shadow of a device page table; the caller locks
 */
#ifndef BALUN_PROBE_TABLE_H
#define BALUN_PROBE_TABLE_H

#include "env/env.h"
#include "probe_cmd.h"

#define TABLE_HASH 1024

/* 2 MiB of addresses. An entry: address | kind << 4 | valid << 3 | perm */
struct table_block {
	struct table_block *next;
	uint64_t va;
	uint64_t entry[BALUN_BLOCK_PAGES];
	uint32_t used;
};

struct probe_table {
	struct table_block *hash[TABLE_HASH];
	uint64_t entries;
	/* per page of device memory: the address that it is mapped at, or 0 */
	uint64_t *owner;
	uint64_t npages;
};

int table_init(struct probe_table *t, uint64_t mem_bytes);
void table_fini(struct probe_table *t);
struct probe_entry table_get(const struct probe_table *t, uint64_t va);
/* NULL, or what is wrong with the entry */
const char *table_set(struct probe_table *t, uint64_t va, const struct probe_entry *e);
void table_clear(struct probe_table *t, uint64_t va, uint64_t len);
uint64_t table_count(const struct probe_table *t, uint64_t va, uint64_t len);

#endif
