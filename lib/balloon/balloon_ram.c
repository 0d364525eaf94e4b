/* SPDX-License-Identifier: BSD-2-Clause */
/* The bitmaps of a RAM: made, emptied, walked. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"

static uint64_t words_of(uint64_t bits)
{
	return (bits + 63) / 64;
}

static uint64_t *zalloc_words(vmem_balloon *b, uint64_t words)
{
	return vmemi_zalloc(&b->allocator, words * sizeof(uint64_t), _Alignof(uint64_t));
}

static uint64_t touched_words(const struct vmemi_balloon_ram *ram)
{
	return words_of((ram->words * 64 >> VMEMI_BALLOON_TOUCHED) + 1);
}

static uint64_t blocks_of(const struct vmemi_balloon_ram *ram)
{
	return ram->pages >> ram->block_shift;
}

int vmemi_balloon_ram_init(vmem_balloon *b, struct vmemi_balloon_ram *ram)
{
	uint64_t words;

	ram->base = ram->first & ~UINT64_C(63);
	ram->words = words_of(ram->first - ram->base + ram->pages);
	if (!(ram->owned = zalloc_words(b, ram->words)) ||
	    !(ram->touched = zalloc_words(b, touched_words(ram))))
		goto fail;
	words = ram->words;
	for (uint32_t i = 0; i < VMEMI_BALLOON_LEVELS; i++, words = words_of(words))
		if (!(ram->due[i] = zalloc_words(b, words)))
			goto fail;
	ram->low = UINT64_MAX;
	if (vmemi_balloon_counts(ram)) {
		ram->in_block = vmemi_zalloc(&b->allocator, blocks_of(ram) * sizeof(uint32_t),
					     _Alignof(uint32_t));
		if (!ram->in_block)
			goto fail;
	}
	return 0;
fail:
	vmemi_balloon_ram_free(b, ram);
	return -VMEM_ENOMEM;
}

void vmemi_balloon_ram_free(vmem_balloon *b, struct vmemi_balloon_ram *ram)
{
	const size_t align = _Alignof(uint64_t), bytes = sizeof(uint64_t);
	uint64_t words = ram->words;

	vmemi_free(&b->allocator, ram->owned, words * bytes, align);
	vmemi_free(&b->allocator, ram->touched, touched_words(ram) * bytes, align);
	for (uint32_t i = 0; i < VMEMI_BALLOON_LEVELS; i++, words = words_of(words))
		vmemi_free(&b->allocator, ram->due[i], words * bytes, align);
	vmemi_free(&b->allocator, ram->in_block, blocks_of(ram) * sizeof(uint32_t),
		   _Alignof(uint32_t));
}

static void empty_ram(struct vmemi_balloon_ram *ram)
{
	const uint64_t chunk = UINT64_C(1) << (VMEMI_BALLOON_TOUCHED - 6); /* words */
	uint64_t first, count, blocks;

	for (uint64_t i = 0; i < touched_words(ram) * 64; i++) {
		if (!(ram->touched[i / 64] >> i % 64 & 1))
			continue;
		first = i * chunk;
		count = ram->words - first < chunk ? ram->words - first : chunk;
		memset(ram->owned + first, 0, count * sizeof(*ram->owned));
		if (vmemi_balloon_counts(ram)) { /* no block is larger than a chunk */
			first = first * 64 >> ram->block_shift;
			blocks = count * 64 >> ram->block_shift;
			memset(ram->in_block + first, 0, blocks * sizeof(*ram->in_block));
		}
	}
	memset(ram->touched, 0, touched_words(ram) * sizeof(*ram->touched));
}

void vmemi_balloon_empty(vmem_balloon *b)
{
	struct vmem_balloon_range range;

	while (vmemi_balloon_pop(b, &range, 1))
		;
	for (uint32_t i = 0; b->owned && i < b->rams; i++)
		empty_ram(&b->ram[i]);
	b->owned = b->released = 0;
}

uint64_t vmemi_balloon_owned_from(const struct vmemi_balloon_ram *ram, uint64_t at,
				  uint64_t *ret_count)
{
	const uint64_t bits_of_chunk = UINT64_C(1) << VMEMI_BALLOON_TOUCHED;
	uint64_t end = ram->words * 64, first, rest;

	while (at < end) {
		uint64_t chunk = at >> VMEMI_BALLOON_TOUCHED;

		if (!(ram->touched[chunk / 64] >> chunk % 64 & 1))
			at = (at | (bits_of_chunk - 1)) + 1;
		else if (!(ram->owned[at / 64] >> at % 64))
			at = (at | 63) + 1;
		else
			break;
	}
	if (at >= end)
		return VMEMI_BALLOON_NO_FIRST;
	first = at += (uint64_t)__builtin_ctzll(ram->owned[at / 64] >> at % 64);
	do {
		rest = ~(ram->owned[at / 64] >> at % 64);
		rest = rest ? (uint64_t)__builtin_ctzll(rest) : 64;
		if (rest > 64 - at % 64)
			rest = 64 - at % 64;
		at += rest;
	} while (at % 64 == 0 && at < end && (ram->owned[at / 64] & 1));
	*ret_count = at - first;
	return first;
}
