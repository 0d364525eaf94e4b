/* SPDX-License-Identifier: BSD-2-Clause */
/* The hash in SSE2 registers. Part of x86-64; empty on other processors. */
#ifdef __x86_64__
#define XXH_VECTOR XXH_SSE2
#define VMEMI_HASH_NAME vmemi_hash_sse2
#include "base/hash_xxh3.h"
#else
typedef int vmemi_hash_sse2_empty;
#endif
