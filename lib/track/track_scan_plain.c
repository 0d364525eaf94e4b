/* SPDX-License-Identifier: BSD-2-Clause */
/* The passes in general-purpose registers, eight bytes at a time. Little-endian, as all hosts of ours.
 * Bytes are kept from borrowing of each other as in Warren, "Hacker's Delight", 2-18. */
#include "track/track_internal.h"
#include "base/mem.h"

#define VMEMI_SCAN vmemi_track_scan_plain
#define LOW UINT64_C(0x0101010101010101)
#define HIGH UINT64_C(0x8080808080808080)

struct v64 {
	uint64_t word[8];
};

static inline struct v64 load(const uint8_t *at)
{
	struct v64 v;

	memcpy(&v, at, sizeof(v));
	return v;
}

static inline void store(uint8_t *at, struct v64 v)
{
	memcpy(at, &v, sizeof(v));
}

/* The high bits of the bytes. */
static inline uint64_t to_mask(uint64_t high)
{
	return (high >> 7) * UINT64_C(0x0102040810204080) >> 56;
}

static inline uint64_t at_least(uint64_t x, uint64_t y)
{
	return ((x & ~y) | (~(x ^ y) & ((x | HIGH) - (y & ~HIGH)))) & HIGH;
}

static inline uint64_t not_zero(uint64_t x)
{
	return (((x & ~HIGH) + ~HIGH) | x) & HIGH;
}

/* 0xff for each of eight bits. */
static inline uint64_t from_mask(uint64_t mask)
{
	return (not_zero((mask & 0xff) * LOW & UINT64_C(0x8040201008040201)) >> 7) * 0xff;
}

static inline struct v64 v64_less(struct v64 v, uint8_t byte)
{
	uint64_t x = byte * LOW;

	for (int i = 0; i < 8; i++)
		v.word[i] = ((x | HIGH) - (v.word[i] & ~HIGH)) ^ ((x ^ ~v.word[i]) & HIGH);
	return v;
}

static inline struct v64 v64_min(struct v64 v, uint8_t byte)
{
	for (int i = 0; i < 8; i++) {
		uint64_t more = (at_least(v.word[i], byte * LOW) >> 7) * 0xff;

		v.word[i] = (v.word[i] & ~more) | (byte * LOW & more);
	}
	return v;
}

static inline uint64_t larger(uint64_t x, uint64_t y)
{
	uint64_t more = (at_least(x, y) >> 7) * 0xff;

	return (x & more) | (y & ~more);
}

static inline uint8_t v64_max(struct v64 v)
{
	uint64_t x = v.word[0];

	for (int i = 1; i < 8; i++)
		x = larger(x, v.word[i]);
	for (int by = 32; by >= 8; by /= 2)
		x = larger(x, x >> by);
	return (uint8_t)x;
}

static inline struct v64 v64_where(uint64_t mask, uint8_t byte)
{
	struct v64 v;

	for (int i = 0; i < 8; i++)
		v.word[i] = from_mask(mask >> i * 8) & byte * LOW;
	return v;
}

static inline struct v64 v64_select(uint64_t mask, struct v64 a, struct v64 b)
{
	for (int i = 0; i < 8; i++) {
		uint64_t m = from_mask(mask >> i * 8);

		a.word[i] = (a.word[i] & m) | (b.word[i] & ~m);
	}
	return a;
}

static inline struct v64 v64_or(struct v64 a, struct v64 b)
{
	for (int i = 0; i < 8; i++)
		a.word[i] |= b.word[i];
	return a;
}

static inline uint64_t v64_any(struct v64 v, uint8_t bits)
{
	uint64_t mask = 0;

	for (int i = 0; i < 8; i++)
		mask |= to_mask(not_zero(v.word[i] & bits * LOW)) << i * 8;
	return mask;
}

static inline uint64_t v64_equal(struct v64 v, uint8_t byte)
{
	for (int i = 0; i < 8; i++)
		v.word[i] ^= byte * LOW;
	return ~v64_any(v, UINT8_MAX);
}

static inline uint64_t v64_at_least(struct v64 v, uint8_t byte)
{
	uint64_t mask = 0;

	for (int i = 0; i < 8; i++)
		mask |= to_mask(at_least(v.word[i], byte * LOW)) << i * 8;
	return mask;
}

static inline int v64_same(struct v64 a, struct v64 b)
{
	return !memcmp(&a, &b, sizeof(a));
}

#include "track/track_scan.h"
