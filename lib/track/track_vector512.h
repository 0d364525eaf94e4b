/* SPDX-License-Identifier: BSD-2-Clause */
/* A vector of 64 bytes as one AVX-512 register, for track_scan.h, which says what each of these does. */
#ifndef VMEMI_TRACK_VECTOR512_H
#define VMEMI_TRACK_VECTOR512_H
#include <immintrin.h>
#include "track/track_internal.h"

struct v64 {
	__m512i all;
};

static inline __m512i all(uint8_t byte)
{
	return _mm512_set1_epi8((char)byte);
}

static inline struct v64 load(const uint8_t *at)
{
	return (struct v64){ _mm512_load_si512(at) };
}

static inline void store(uint8_t *at, struct v64 v)
{
	_mm512_store_si512(at, v.all);
}

static inline struct v64 v64_less(struct v64 v, uint8_t byte)
{
	return (struct v64){ _mm512_sub_epi8(all(byte), v.all) };
}

static inline struct v64 v64_min(struct v64 v, uint8_t byte)
{
	return (struct v64){ _mm512_min_epu8(v.all, all(byte)) };
}

static inline uint8_t v64_max(struct v64 v)
{
	__m256i both =
		_mm256_max_epu8(_mm512_castsi512_si256(v.all), _mm512_extracti64x4_epi64(v.all, 1));
	__m128i x = _mm_max_epu8(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));

	/* The least of eight pairs is one instruction: of the complements, by pairs. */
	x = _mm_xor_si128(x, _mm_set1_epi8(-1));
	x = _mm_minpos_epu16(_mm_min_epu8(x, _mm_srli_epi16(x, 8)));
	return (uint8_t)~_mm_cvtsi128_si32(x);
}

static inline struct v64 v64_where(uint64_t mask, uint8_t byte)
{
	return (struct v64){ _mm512_maskz_mov_epi8(mask, all(byte)) };
}

static inline struct v64 v64_select(uint64_t mask, struct v64 a, struct v64 b)
{
	return (struct v64){ _mm512_mask_mov_epi8(b.all, mask, a.all) };
}

static inline struct v64 v64_or(struct v64 a, struct v64 b)
{
	return (struct v64){ _mm512_or_si512(a.all, b.all) };
}

static inline uint64_t v64_equal(struct v64 v, uint8_t byte)
{
	return _mm512_cmpeq_epi8_mask(v.all, all(byte));
}

static inline uint64_t v64_any(struct v64 v, uint8_t bits)
{
	return _mm512_test_epi8_mask(v.all, all(bits));
}

static inline uint64_t v64_at_least(struct v64 v, uint8_t byte)
{
	return _mm512_cmpge_epu8_mask(v.all, all(byte));
}

static inline int v64_same(struct v64 a, struct v64 b)
{
	return !_mm512_cmpneq_epi8_mask(a.all, b.all);
}

#endif
