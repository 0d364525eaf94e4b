/* SPDX-License-Identifier: BSD-2-Clause */
/* A histogram of times: see latency.h. */
#include "linux/region/latency.h"

static unsigned bucket_of(uint64_t ns)
{
	unsigned octave, bucket;

	if (ns < 8)
		return (unsigned)ns;
	octave = 63u - (unsigned)__builtin_clzll(ns);
	bucket = (octave - 2) * 8 + (unsigned)(ns >> (octave - 3) & 7);
	return bucket < VMEMI_LATENCY_BUCKETS ? bucket : VMEMI_LATENCY_BUCKETS - 1;
}

static uint64_t upper_bound(unsigned bucket)
{
	unsigned octave = bucket / 8 + 2;

	if (bucket < 8)
		return bucket;
	return ((UINT64_C(8) + bucket % 8 + 1) << (octave - 3)) - 1;
}

void vmemi_latency_add(struct vmemi_latency *l, uint64_t ns)
{
	uint64_t max = atomic_load_explicit(&l->max_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&l->bucket[bucket_of(ns)], 1, memory_order_relaxed);
	while (ns > max &&
	       !atomic_compare_exchange_weak_explicit(&l->max_ns, &max, ns, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

uint64_t vmemi_latency_quantile(const struct vmemi_latency *l, unsigned permille)
{
	uint64_t total = 0, seen = 0, max = atomic_load_explicit(&l->max_ns, memory_order_relaxed);

	for (unsigned i = 0; i < VMEMI_LATENCY_BUCKETS; i++)
		total += atomic_load_explicit(&l->bucket[i], memory_order_relaxed);
	for (unsigned i = 0; i < VMEMI_LATENCY_BUCKETS; i++) {
		seen += atomic_load_explicit(&l->bucket[i], memory_order_relaxed);
		if (seen && seen * 1000 >= total * permille)
			return upper_bound(i) < max ? upper_bound(i) : max;
	}
	return 0;
}
