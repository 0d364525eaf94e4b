/* SPDX-License-Identifier: BSD-2-Clause */
/* Counting bits. */
#ifndef VMEMI_BITS_H
#define VMEMI_BITS_H
#include <stdint.h>

/* Without POPCNT the compiler would call libgcc. */
static inline uint32_t vmemi_bits_set(uint64_t x)
{
#ifdef __POPCNT__
	return (uint32_t)__builtin_popcountll(x);
#else
	x -= x >> 1 & UINT64_C(0x5555555555555555);
	x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));
	x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	return (uint32_t)(x * UINT64_C(0x0101010101010101) >> 56);
#endif
}

#endif
