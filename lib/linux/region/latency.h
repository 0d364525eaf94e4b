/* SPDX-License-Identifier: BSD-2-Clause */
/* A histogram of times, 8 buckets an octave (12.5 % wide), that any thread adds to. */
#ifndef VMEMI_LATENCY_H
#define VMEMI_LATENCY_H
#include <stdatomic.h>
#include <stdint.h>

#define VMEMI_LATENCY_BUCKETS 320 /* up to 2^40 ns */

struct vmemi_latency {
	_Atomic uint32_t bucket[VMEMI_LATENCY_BUCKETS]; /* atomic */
	_Atomic uint64_t max_ns;                        /* atomic */
};

void vmemi_latency_add(struct vmemi_latency *l, uint64_t ns);

/* The smallest bucket bound that @permille of all times do not exceed; 0 without times. */
uint64_t vmemi_latency_quantile(const struct vmemi_latency *l, unsigned permille);

#endif
