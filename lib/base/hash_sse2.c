/* SPDX-License-Identifier: BSD-2-Clause */
/* The hash in SSE2 registers. On x86-64 only, which has them always. */
#define XXH_VECTOR XXH_SSE2
#define VMEMI_HASH_NAME vmemi_hash_sse2
#include "base/hash_xxh3.h"
