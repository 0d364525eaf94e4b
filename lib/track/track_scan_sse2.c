/* SPDX-License-Identifier: BSD-2-Clause */
/* The passes in SSE2 registers. On x86-64 only, which has them always. */
#include <emmintrin.h>
#include "track/track_internal.h"

#define VMEMI_SCAN vmemi_track_scan_sse2

struct v64 {
	__m128i part[4];
};

/* For each of the four parts. */
#define V64_EACH(expression)                      \
	do {                                      \
		struct v64 ret;                   \
		for (int i = 0; i < 4; i++)       \
			ret.part[i] = expression; \
		return ret;                       \
	} while (0)

/* A mask from four of 16 bits. */
#define V64_MASK(expression)                                                                 \
	do {                                                                                 \
		uint64_t mask = 0;                                                           \
		for (int i = 0; i < 4; i++)                                                  \
			mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(expression) << i * 16; \
		return mask;                                                                 \
	} while (0)

static inline __m128i all(uint8_t byte)
{
	return _mm_set1_epi8((char)byte);
}

static inline struct v64 load(const uint8_t *at)
{
	V64_EACH(_mm_load_si128((const __m128i *)(const void *)at + i));
}

static inline void store(uint8_t *at, struct v64 v)
{
	for (int i = 0; i < 4; i++)
		_mm_store_si128((__m128i *)(void *)at + i, v.part[i]);
}

/* Bytes of ones for 16 bits: each byte gets the byte with its bit, and looks at it. */
static inline __m128i from_mask(uint64_t mask)
{
	const __m128i bit = _mm_set1_epi64x((long long)UINT64_C(0x8040201008040201));
	__m128i v = _mm_cvtsi32_si128((int)(mask & 0xffff));

	v = _mm_unpacklo_epi8(v, v);
	v = _mm_shufflelo_epi16(v, _MM_SHUFFLE(1, 1, 0, 0));
	v = _mm_shuffle_epi32(v, _MM_SHUFFLE(1, 1, 0, 0));
	return _mm_cmpeq_epi8(_mm_and_si128(v, bit), bit);
}

static inline struct v64 v64_less(struct v64 v, uint8_t byte)
{
	V64_EACH(_mm_sub_epi8(all(byte), v.part[i]));
}

static inline struct v64 v64_min(struct v64 v, uint8_t byte)
{
	V64_EACH(_mm_min_epu8(v.part[i], all(byte)));
}

static inline uint8_t v64_max(struct v64 v)
{
	__m128i x = _mm_max_epu8(_mm_max_epu8(v.part[0], v.part[1]),
				 _mm_max_epu8(v.part[2], v.part[3]));

	x = _mm_max_epu8(x, _mm_srli_si128(x, 8));
	x = _mm_max_epu8(x, _mm_srli_si128(x, 4));
	x = _mm_max_epu8(x, _mm_srli_si128(x, 2));
	x = _mm_max_epu8(x, _mm_srli_si128(x, 1));
	return (uint8_t)_mm_cvtsi128_si32(x);
}

static inline struct v64 v64_where(uint64_t mask, uint8_t byte)
{
	V64_EACH(_mm_and_si128(from_mask(mask >> i * 16), all(byte)));
}

static inline struct v64 v64_select(uint64_t mask, struct v64 a, struct v64 b)
{
	for (int i = 0; i < 4; i++) {
		__m128i m = from_mask(mask >> i * 16);

		a.part[i] =
			_mm_or_si128(_mm_and_si128(m, a.part[i]), _mm_andnot_si128(m, b.part[i]));
	}
	return a;
}

static inline struct v64 v64_or(struct v64 a, struct v64 b)
{
	V64_EACH(_mm_or_si128(a.part[i], b.part[i]));
}

static inline uint64_t v64_equal(struct v64 v, uint8_t byte)
{
	V64_MASK(_mm_cmpeq_epi8(v.part[i], all(byte)));
}

static inline uint64_t not_any(struct v64 v, uint8_t bits)
{
	V64_MASK(_mm_cmpeq_epi8(_mm_and_si128(v.part[i], all(bits)), _mm_setzero_si128()));
}

static inline uint64_t v64_any(struct v64 v, uint8_t bits)
{
	return ~not_any(v, bits);
}

static inline uint64_t v64_at_least(struct v64 v, uint8_t byte)
{
	V64_MASK(_mm_cmpeq_epi8(_mm_max_epu8(v.part[i], all(byte)), v.part[i]));
}

static inline uint64_t equal_parts(struct v64 a, struct v64 b)
{
	V64_MASK(_mm_cmpeq_epi8(a.part[i], b.part[i]));
}

static inline int v64_same(struct v64 a, struct v64 b)
{
	return equal_parts(a, b) == UINT64_MAX;
}

#include "track/track_scan.h"
