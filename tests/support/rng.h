/* SPDX-License-Identifier: BSD-2-Clause */
/* Random numbers for tests, the same again for the same seed.
 * The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
#ifndef VMEMT_RNG_H
#define VMEMT_RNG_H
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A seed for @test: VMEM_TEST_SEED if that is set, else one of the clock. Prints it, so that a
 * failure can be repeated. */
static inline uint64_t vmemt_seed(const char *test)
{
	const char *given = getenv("VMEM_TEST_SEED");
	struct timespec now;
	uint64_t seed;

	if (given && *given) {
		seed = strtoull(given, NULL, 0);
	} else {
		timespec_get(&now, TIME_UTC);
		seed = (uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec;
	}
	fprintf(stderr, "%s: VMEM_TEST_SEED=%" PRIu64 "\n", test, seed);
	return seed;
}

static inline uint64_t vmemt_rand(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

#endif
