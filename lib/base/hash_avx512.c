/* SPDX-License-Identifier: BSD-2-Clause */
/* The hash in AVX512 registers. Compiled with -mavx512f, on x86-64 only. */
#define XXH_VECTOR XXH_AVX512
#define VMEMI_HASH_NAME vmemi_hash_avx512
#include "base/hash_xxh3.h"
