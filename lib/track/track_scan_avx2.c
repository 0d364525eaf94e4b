/* SPDX-License-Identifier: BSD-2-Clause */
/* The passes in AVX2 registers. Compiled with -mavx2, on x86-64 only. */
#include <immintrin.h>
#include "track/track_internal.h"

#define VMEMI_SCAN vmemi_track_scan_avx2

struct v64 {
	__m256i low, high;
};

#define V64_BOTH(function, a, b) \
	((struct v64){ .low = function(a.low, b), .high = function(a.high, b) })

static inline __m256i all(uint8_t byte)
{
	return _mm256_set1_epi8((char)byte);
}

static inline uint64_t mask_of(struct v64 v)
{
	return (uint64_t)(uint32_t)_mm256_movemask_epi8(v.high) << 32 |
	       (uint32_t)_mm256_movemask_epi8(v.low);
}

static inline struct v64 load(const uint8_t *at)
{
	const __m256i *parts = (const __m256i *)(const void *)at;

	return (struct v64){ .low = _mm256_load_si256(parts),
			     .high = _mm256_load_si256(parts + 1) };
}

static inline void store(uint8_t *at, struct v64 v)
{
	__m256i *parts = (__m256i *)(void *)at;

	_mm256_store_si256(parts, v.low);
	_mm256_store_si256(parts + 1, v.high);
}

/* Bytes of ones for 32 bits: each byte gets the byte with its bit, and looks at it. */
static inline __m256i from_mask(uint32_t mask)
{
	const __m256i from =
		_mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
	const __m256i bit = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
	__m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)mask), from);

	return _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
}

static inline struct v64 v64_less(struct v64 v, uint8_t byte)
{
	return (struct v64){ .low = _mm256_sub_epi8(all(byte), v.low),
			     .high = _mm256_sub_epi8(all(byte), v.high) };
}

static inline struct v64 v64_min(struct v64 v, uint8_t byte)
{
	return V64_BOTH(_mm256_min_epu8, v, all(byte));
}

static inline uint8_t v64_max(struct v64 v)
{
	__m256i both = _mm256_max_epu8(v.low, v.high);
	__m128i x = _mm_max_epu8(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));

	/* The least of eight pairs is one instruction: of the complements, by pairs. */
	x = _mm_xor_si128(x, _mm_set1_epi8(-1));
	x = _mm_minpos_epu16(_mm_min_epu8(x, _mm_srli_epi16(x, 8)));
	return (uint8_t)~_mm_cvtsi128_si32(x);
}

static inline struct v64 v64_where(uint64_t mask, uint8_t byte)
{
	struct v64 v = { .low = from_mask((uint32_t)mask),
			 .high = from_mask((uint32_t)(mask >> 32)) };

	return V64_BOTH(_mm256_and_si256, v, all(byte));
}

static inline struct v64 v64_select(uint64_t mask, struct v64 a, struct v64 b)
{
	a.low = _mm256_blendv_epi8(b.low, a.low, from_mask((uint32_t)mask));
	a.high = _mm256_blendv_epi8(b.high, a.high, from_mask((uint32_t)(mask >> 32)));
	return a;
}

static inline struct v64 v64_or(struct v64 a, struct v64 b)
{
	return (struct v64){ .low = _mm256_or_si256(a.low, b.low),
			     .high = _mm256_or_si256(a.high, b.high) };
}

static inline uint64_t v64_equal(struct v64 v, uint8_t byte)
{
	return mask_of(V64_BOTH(_mm256_cmpeq_epi8, v, all(byte)));
}

static inline uint64_t v64_any(struct v64 v, uint8_t bits)
{
	return ~v64_equal(V64_BOTH(_mm256_and_si256, v, all(bits)), 0);
}

static inline uint64_t v64_at_least(struct v64 v, uint8_t byte)
{
	struct v64 more = V64_BOTH(_mm256_max_epu8, v, all(byte));

	more.low = _mm256_cmpeq_epi8(more.low, v.low);
	more.high = _mm256_cmpeq_epi8(more.high, v.high);
	return mask_of(more);
}

static inline int v64_same(struct v64 a, struct v64 b)
{
	a.low = _mm256_cmpeq_epi8(a.low, b.low);
	a.high = _mm256_cmpeq_epi8(a.high, b.high);
	return mask_of(a) == UINT64_MAX;
}

#include "track/track_scan.h"
