/* SPDX-License-Identifier: BSD-2-Clause */
/* The features of a page: least hashes (Broder, SEQUENCES 1997) of its windows of 64 bytes.
 *
 * Windows begin at words that are anchors: a sixteenth of all words are, chosen by what they are, not by where
 * they stand. So what has moved by a number of words has the same windows still. Hashes fall into 8 classes by
 * their low bits, and of each class the least is taken: two pages that have the share s of their windows in
 * common have the same one with probability s. Windows of one repeated word, which nearly all pages have, say
 * nothing. Pure functions.
 *
 * The hash is made of whole products of words, as in wyhash: four multiplications for 64 bytes. It only has
 * to spread; a guest that makes windows collide gets bad candidates for its own pages. */
#include <vmem/similar.h>
#include <stdbool.h>
#include "base/mem.h"

#define WORDS (VMEM_PAGE_SIZE / sizeof(uint64_t))
#define WINDOW_WORDS 8u
#define WINDOWS (WORDS - WINDOW_WORDS + 1)
#define ANCHOR_BITS 4u
#define NO_HASH UINT64_MAX

static uint64_t product(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 wide;
	wide p = (wide)a * b;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t word_at(const unsigned char *page, size_t n)
{
	uint64_t word;

	memcpy(&word, page + n * sizeof(word), sizeof(word));
	return word;
}

/* Zeros and ones, of which there are many in a row, are none. */
static bool is_anchor(uint64_t word)
{
	return (word ^ UINT64_C(0x589965cc75374cc3)) * UINT64_C(0x9e3779b97f4a7c15) >>
		       (64 - ANCHOR_BITS) ==
	       0;
}

/* NO_HASH: a window of one word repeated. */
static uint64_t window_hash(const unsigned char *page, size_t first)
{
	uint64_t w[WINDOW_WORDS], differ = 0;

	for (size_t i = 0; i < WINDOW_WORDS; i++) {
		w[i] = word_at(page, first + i);
		differ |= w[i] ^ w[0];
	}
	if (!differ)
		return NO_HASH;
	return product(w[0] ^ UINT64_C(0x9e3779b97f4a7c15), w[1] ^ UINT64_C(0xd6e8feb86659fd93)) ^
	       product(w[2] ^ UINT64_C(0xa0761d6478bd642f), w[3] ^ UINT64_C(0xe7037ed1a0b428db)) ^
	       product(w[4] ^ UINT64_C(0x8ebc6af09c88c6e3), w[5] ^ UINT64_C(0x589965cc75374cc3)) ^
	       product(w[6] ^ UINT64_C(0x1d8e4e27c47d124f), w[7] ^ UINT64_C(0xeb44accab455d165));
}

/* The least hash of each class. */
static void least_hashes(const unsigned char *page, uint64_t least[VMEM_SIMILAR_FEATURES])
{
	uint16_t anchor[WINDOWS];
	uint32_t anchors = 0;

	for (uint32_t i = 0; i < WINDOWS; i++) { /* without a branch that nobody can foretell */
		anchor[anchors] = (uint16_t)i;
		anchors += is_anchor(word_at(page, i));
	}
	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES; i++)
		least[i] = NO_HASH;
	for (uint32_t i = 0; i < anchors; i++) {
		uint64_t hash = window_hash(page, anchor[i]);
		uint64_t *of_class = &least[hash % VMEM_SIMILAR_FEATURES];

		*of_class = hash < *of_class ? hash : *of_class;
	}
}

static void sort(uint64_t hash[VMEM_SIMILAR_FEATURES])
{
	for (uint32_t end = VMEM_SIMILAR_FEATURES - 1; end; end--)
		for (uint32_t i = 0; i < end; i++) {
			uint64_t a = hash[i], b = hash[i + 1];

			hash[i] = a < b ? a : b;
			hash[i + 1] = a < b ? b : a;
		}
}

/* The least of many begins with zeros: spreads what is left. */
static uint32_t feature_of(uint64_t hash)
{
	uint32_t feature = (uint32_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> 32);

	return hash == NO_HASH ? 0 : feature ? feature : 1;
}

void vmem_similar_sketch(const void *page, struct vmem_similar_sketch *ret_sketch)
{
	uint64_t least[VMEM_SIMILAR_FEATURES];

	least_hashes(page, least);
	sort(least);
	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES; i++)
		ret_sketch->feature[i] = feature_of(least[i]);
}
