/* SPDX-License-Identifier: BSD-2-Clause */
/* The features of a page. Of each eighth the block with the least hash is taken: two of them that have the
 * share s of their blocks in common have the same one with probability s, and a block that has moved to
 * another place is the same block still. Blocks of one repeated word, which nearly all pages have, say
 * nothing. Pure functions.
 *
 * The hash is made of whole products of words, as in wyhash: two multiplications for 32 bytes. It only has
 * to spread; a guest that makes blocks collide gets bad candidates for its own pages. */
#include <vmem/similar.h>
#include "base/mem.h"

#define BLOCK_BYTES 32u
#define PART_BYTES (VMEM_PAGE_SIZE / VMEM_SIMILAR_FEATURES)
#define NO_HASH UINT64_MAX

static uint64_t product(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 wide;
	wide p = (wide)a * b;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t word_at(const unsigned char *block, size_t n)
{
	uint64_t word;

	memcpy(&word, block + n * sizeof(word), sizeof(word));
	return word;
}

/* NO_HASH: a block of one word repeated. */
static uint64_t block_hash(const unsigned char *block)
{
	uint64_t a = word_at(block, 0), b = word_at(block, 1), c = word_at(block, 2),
		 d = word_at(block, 3);
	uint64_t hash =
		product(a ^ UINT64_C(0x9e3779b97f4a7c15), b ^ UINT64_C(0xd6e8feb86659fd93)) ^
		product(c ^ UINT64_C(0xa0761d6478bd642f), d ^ UINT64_C(0xe7037ed1a0b428db));

	return (a ^ b) | (a ^ c) | (a ^ d) ? hash : NO_HASH;
}

static uint64_t least_hash(const unsigned char *part)
{
	uint64_t least = NO_HASH;

	for (size_t at = 0; at < PART_BYTES; at += BLOCK_BYTES) {
		uint64_t hash = block_hash(part + at);

		least = hash < least ? hash : least;
	}
	return least;
}

/* The least of many begins with zeros: spreads what is left. */
static uint32_t feature_of(uint64_t hash)
{
	uint32_t feature = (uint32_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> 32);

	return hash == NO_HASH ? 0 : feature ? feature : 1;
}

/* Sorts as far as somebody looks, and without a branch that nobody can foretell. */
void vmem_similar_sketch(const void *page, struct vmem_similar_sketch *ret_sketch)
{
	uint64_t hash[VMEM_SIMILAR_FEATURES], first = NO_HASH, second = NO_HASH;
	uint32_t feature[VMEM_SIMILAR_FEATURES + 2] = { 0 }, used = 2;

	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES; i++) {
		hash[i] = least_hash((const unsigned char *)page + i * PART_BYTES);
		first = hash[i] < first ? hash[i] : first;
	}
	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES; i++)
		second = hash[i] < second && hash[i] != first ? hash[i] : second;
	feature[0] = feature_of(first);
	feature[1] = feature_of(second);
	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES; i++) {
		feature[used] = feature_of(hash[i]);
		used += hash[i] != first && hash[i] != second && hash[i] != NO_HASH;
	}
	for (; used < VMEM_SIMILAR_FEATURES; used++)
		feature[used] = 0;
	memcpy(ret_sketch->feature, feature, sizeof(ret_sketch->feature));
}
