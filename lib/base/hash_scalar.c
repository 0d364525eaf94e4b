/* SPDX-License-Identifier: BSD-2-Clause */
/* The hash in general-purpose registers. Compiled with the folder shim/ before the system's headers,
 * in the hosted library too, so that both run the same code. */
#define XXH_VECTOR XXH_SCALAR
#define VMEMI_HASH_NAME vmemi_hash_scalar
#include "base/hash_xxh3.h"
