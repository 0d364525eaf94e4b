/* SPDX-License-Identifier: BSD-2-Clause */
/* XXH3-64 (xxHash specification 0.8) in one build for each vector width. All give the same result;
 * an object chooses one by its opts.cpu when it is made. */
#ifndef VMEMI_HASH_H
#define VMEMI_HASH_H
#include <stddef.h>
#include <stdint.h>

/* XXH3_64bits_withSeed(); with @seed 0 that is XXH3_64bits(). */
typedef uint64_t (*vmemi_hash_fn)(const void *data, size_t bytes, uint64_t seed);

/* The fastest that may be used. @cpu: VMEM_CPU_*; 0: general-purpose registers only. */
vmemi_hash_fn vmemi_hash_choose(uint32_t cpu);

/* The builds: one file each. Only the scalar one is in the freestanding library. */
uint64_t vmemi_hash_scalar(const void *data, size_t bytes, uint64_t seed);
uint64_t vmemi_hash_sse2(const void *data, size_t bytes, uint64_t seed);
uint64_t vmemi_hash_avx2(const void *data, size_t bytes, uint64_t seed);
uint64_t vmemi_hash_avx512(const void *data, size_t bytes, uint64_t seed);

#endif
