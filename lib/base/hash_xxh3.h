/* SPDX-License-Identifier: BSD-2-Clause */
/* The body of each build of the hash. The includer defines XXH_VECTOR and VMEMI_HASH_NAME; the
 * build defines VMEMI_XXHASH_H, where xxhash.h is.
 *
 * The rest counts as a system header: the warnings that we ask for are not about xxHash. */
#pragma GCC system_header
#define XXH_INLINE_ALL
#ifdef VMEMI_XXHASH_H
#include VMEMI_XXHASH_H
#else
#include <xxhash.h>
#endif
#include "base/hash.h"

uint64_t VMEMI_HASH_NAME(const void *data, size_t bytes, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, bytes, seed);
}
