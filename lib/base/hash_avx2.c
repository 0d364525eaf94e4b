/* SPDX-License-Identifier: BSD-2-Clause */
/* The hash in AVX2 registers. Compiled with -mavx2, on x86-64 only. */
#define XXH_VECTOR XXH_AVX2
#define VMEMI_HASH_NAME vmemi_hash_avx2
#include "base/hash_xxh3.h"
