/* SPDX-License-Identifier: BSD-2-Clause */
/* splitmix64 (Steele, Lea, Flood 2014): a state of one word, any value of which is a seed. */
#ifndef SPLIT_RANDOM_H
#define SPLIT_RANDOM_H
#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* 0 .. below-1, below at most 2^32. */
static inline uint64_t random_below(uint64_t *state, uint64_t below)
{
	return (random_next(state) >> 32) * below >> 32;
}

#endif
