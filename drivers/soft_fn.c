/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft_fn.c - functions that come with the soft accelerator
 *
 * Written with soft.h only, as a user's would be. Worker i takes the i-th of equal parts of the
 * work, cut at multiples of CHUNK; memory goes through a register file of CHUNK bytes, whose
 * constant size lets the compiler inline the accesses.
 */
#include "balun/soft.h"

#define CHUNK	   256
#define NEEDLE_MAX 256

#define ARG(w, arg, field) soft_load_u64(w, (arg) + offsetof(struct soft_args, field))

/* this worker's part [*ret_from, *ret_to) of @len bytes */
static void share(const struct soft_worker *w, uint64_t len, uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t part = len / w->nworkers / CHUNK * CHUNK;

	*ret_from = part * w->index;
	*ret_to = w->index + 1 == w->nworkers ? len : *ret_from + part;
}

void balun_soft_fill(struct soft_worker *w, uint64_t arg)
{
	uint64_t dst = ARG(w, arg, dst), at, end;
	unsigned char v[CHUNK];

	memset(v, (int)ARG(w, arg, value), sizeof(v));
	share(w, ARG(w, arg, len), &at, &end);
	for (; end - at >= CHUNK; at += CHUNK)
		soft_write(w, dst + at, v, CHUNK);
	soft_write(w, dst + at, v, (unsigned int)(end - at));
}

void balun_soft_copy(struct soft_worker *w, uint64_t arg)
{
	uint64_t src = ARG(w, arg, src), dst = ARG(w, arg, dst), at, end;
	unsigned char v[CHUNK];

	share(w, ARG(w, arg, len), &at, &end);
	for (; end - at >= CHUNK; at += CHUNK) {
		soft_read(w, src + at, v, CHUNK);
		soft_write(w, dst + at, v, CHUNK);
	}
	soft_read(w, src + at, v, (unsigned int)(end - at));
	soft_write(w, dst + at, v, (unsigned int)(end - at));
}

/* The bytes of a chunk, four lanes at a time: each of 16 bits gets at most 2 * 32 * 255. */
static uint64_t bytes_sum(const uint64_t *v)
{
	const uint64_t bytes = 0x00ff00ff00ff00ffULL, pairs = 0x0000ffff0000ffffULL;
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < CHUNK / sizeof(*v); i++)
		sum += (v[i] & bytes) + (v[i] >> 8 & bytes);
	sum = (sum & pairs) + (sum >> 16 & pairs);
	return (uint32_t)sum + (sum >> 32);
}

void balun_soft_reduce(struct soft_worker *w, uint64_t arg)
{
	uint64_t src = ARG(w, arg, src), at, end, sum = 0, v[CHUNK / sizeof(uint64_t)];

	share(w, ARG(w, arg, len), &at, &end);
	for (; end - at >= CHUNK; at += CHUNK) {
		soft_read(w, src + at, v, CHUNK);
		sum += bytes_sum(v);
	}
	memset(v, 0, sizeof(v));
	soft_read(w, src + at, v, (unsigned int)(end - at));
	sum += bytes_sum(v);
	soft_add_u64(w, arg + offsetof(struct soft_args, value), sum);
}

void balun_soft_histogram(struct soft_worker *w, uint64_t arg)
{
	uint64_t src = ARG(w, arg, src), at, end, hist[256] = { 0 };
	unsigned char v[CHUNK];
	unsigned int i, n;

	share(w, ARG(w, arg, len), &at, &end);
	for (; at < end; at += n) {
		n = end - at >= CHUNK ? CHUNK : (unsigned int)(end - at);
		soft_read(w, src + at, v, n);
		for (i = 0; i < n; i++)
			hist[v[i]]++;
	}
	for (i = 0; i < 256; i++) {
		if (hist[i])
			soft_add_u64(w,
				     arg + offsetof(struct soft_args, hist) + i * sizeof(hist[0]),
				     hist[i]);
	}
}

void balun_soft_search(struct soft_worker *w, uint64_t arg)
{
	uint64_t src = ARG(w, arg, src), len = ARG(w, arg, len), n = ARG(w, arg, value);
	unsigned char needle[NEEDLE_MAX], v[CHUNK + NEEDLE_MAX];
	uint64_t at, end, found = 0;
	unsigned int i, places;

	if (!n || n > NEEDLE_MAX || n > len)
		return;
	soft_read(w, ARG(w, arg, dst), needle, (unsigned int)n);
	/* the work is the places where a match may begin; each looks n - 1 bytes further */
	share(w, len - n + 1, &at, &end);
	for (; at < end; at += places) {
		places = end - at >= CHUNK ? CHUNK : (unsigned int)(end - at);
		soft_read(w, src + at, v, places + (unsigned int)n - 1);
		for (i = 0; i < places; i++)
			found += v[i] == needle[0] && !memcmp(v + i, needle, n);
	}
	if (found)
		soft_add_u64(w, arg + offsetof(struct soft_args, hist), found);
}
