/* SPDX-License-Identifier: BSD-2-Clause */
/* Which build of the hash an object uses: see hash.h. */
#include <vmem/common.h>
#include "base/hash.h"

vmemi_hash_fn vmemi_hash_choose(uint32_t cpu)
{
#if defined(__x86_64__) && !defined(VMEMI_CORE)
	if (cpu & VMEM_CPU_AVX512)
		return vmemi_hash_avx512;
	if (cpu & VMEM_CPU_AVX2)
		return vmemi_hash_avx2;
	if (cpu & VMEM_CPU_SSE2)
		return vmemi_hash_sse2;
#endif
	(void)cpu;
	return vmemi_hash_scalar;
}
