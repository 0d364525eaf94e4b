/* SPDX-License-Identifier: BSD-2-Clause */
/* The passes in AVX-512 registers, with VPCOMPRESSB. Compiled with -mavx512f -mavx512bw -mavx512vbmi2, on
 * x86-64 only. */
#include "track/track_vector512.h"

#define VMEMI_SCAN vmemi_track_scan_vbmi2
#define VMEMI_SCAN_GATHERS

static inline void gather(uint8_t *to, const uint8_t *from, struct v64 v, uint64_t mask)
{
	(void)from;
	_mm512_storeu_si512(to, _mm512_maskz_compress_epi8(mask, v.all));
}

#include "track/track_scan.h"
