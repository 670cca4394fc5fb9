/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: rand.h - random input for unit tests, the same for the same SEED=
 */
#ifndef BALUN_TEST_RAND_H
#define BALUN_TEST_RAND_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t rand_state;

/* SEED= of the environment, or a fresh one, which is printed */
static inline void rand_start(void)
{
	const char *s = getenv("SEED");
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	rand_state = s ? strtoull(s, NULL, 0) : (uint64_t)ts.tv_nsec ^ (uint64_t)ts.tv_sec << 20;
	printf("# SEED=%" PRIu64 "\n", rand_state);
	fflush(stdout);
}

static inline uint64_t rand_u64(void)
{
	uint64_t z = rand_state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

/* 0..n-1 */
static inline uint64_t rand_below(uint64_t n)
{
	return rand_u64() % n;
}

#endif
