/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks a balloon at rest, for tests. */
#include "balloon/balloon_internal.h"
#include "base/bits.h"
#include "base/check.h"

static bool is_ram(const struct vmemi_balloon_ram *ram, uint64_t at)
{
	return ram->base + at - ram->first < ram->pages;
}

/* The bits of a word that are RAM. */
static uint64_t ram_of_word(const struct vmemi_balloon_ram *ram, uint64_t word)
{
	const uint64_t first = ram->first - ram->base, at = word ? word * 64 : first;

	return is_ram(ram, at) ? vmemi_balloon_mask(at % 64, first + ram->pages - at) : 0;
}

static uint64_t owned_in(const struct vmemi_balloon_ram *ram, uint64_t at, uint64_t end)
{
	uint64_t count = 0;

	for (; at < end; at = (at | 63) + 1)
		count +=
			vmemi_bits_set(ram->owned[at / 64] & vmemi_balloon_mask(at % 64, end - at));
	return count;
}

/* Pages in whole blocks; UINT64_MAX: the counts of blocks are wrong. */
static uint64_t released_of(const vmem_balloon *b, const struct vmemi_balloon_ram *ram)
{
	const uint64_t block = UINT64_C(1) << ram->block_shift;
	const uint64_t first = ram->first - ram->base;
	uint64_t released = 0, count;

	if (block == 1)
		return owned_in(ram, first, first + ram->pages);
	for (uint64_t at = first; is_ram(ram, at); at += block) {
		count = owned_in(ram, at, at + block);
		if (ram->in_block && ram->in_block[at / block] != count)
			return UINT64_MAX;
		if (count == block && vmemi_balloon_remembers(b))
			released += block;
	}
	return released;
}

static const char *check_levels(const struct vmemi_balloon_ram *ram)
{
	uint64_t words = ram->words;

	for (uint32_t i = 1; i < VMEMI_BALLOON_LEVELS; i++) {
		for (uint64_t word = 0; word < words; word++) {
			VMEMI_REQUIRE((ram->due[i][word / 64] >> word % 64 & 1) ==
				      (ram->due[i - 1][word] != 0));
		}
		words = (words + 63) / 64;
	}
	for (uint64_t word = 0; word < words; word++)
		VMEMI_REQUIRE(!ram->due[2][word] || (word >= ram->low && word <= ram->high));
	VMEMI_REQUIRE(ram->low == UINT64_MAX || ram->high < words);
	return NULL;
}

static const char *check_list(const struct vmemi_balloon_list *list)
{
	uint64_t pages = 0;

	if (!list->ram)
		return NULL;
	VMEMI_REQUIRE(list->at < list->count && list->count <= VMEMI_BALLOON_LIST);
	for (uint32_t i = list->at; i < list->count; i++) {
		uint64_t first = vmemi_balloon_run_first(list->runs[i]);
		uint64_t end = vmemi_balloon_run_end(list->runs[i]);

		VMEMI_REQUIRE(first < end);
		VMEMI_REQUIRE(!list->sorted || i == list->at ||
			      vmemi_balloon_run_first(list->runs[i - 1]) <= first);
		VMEMI_REQUIRE(is_ram(list->ram, first) && is_ram(list->ram, end - 1));
		pages += end - first;
	}
	VMEMI_REQUIRE(pages <= list->pages && list->pages <= VMEM_BALLOON_WORK_PAGES);
	return NULL;
}

const char *vmemi_balloon_check(const vmem_balloon *b)
{
	uint64_t owned = 0, released = 0, pages = 0, whole;
	const char *wrong;

	for (uint32_t i = 0; i < b->rams; i++) {
		const struct vmemi_balloon_ram *ram = &b->ram[i];

		for (uint64_t word = 0; word < ram->words; word++) {
			uint64_t chunk = word >> (VMEMI_BALLOON_TOUCHED - 6);

			owned += vmemi_bits_set(ram->owned[word]);
			VMEMI_REQUIRE(!ram->owned[word] ||
				      (ram->touched[chunk / 64] >> chunk % 64 & 1));
			VMEMI_REQUIRE(!((ram->owned[word] | ram->due[0][word]) &
					~ram_of_word(ram, word)));
		}
		wrong = check_levels(ram);
		if (wrong)
			return wrong;
		VMEMI_REQUIRE((b->due >> i & 1) == (ram->low <= ram->high || ram == b->list.ram));
		whole = released_of(b, ram);
		VMEMI_REQUIRE(whole != UINT64_MAX);
		released += whole;
		pages += ram->pages;
	}
	wrong = check_list(&b->list);
	if (wrong)
		return wrong;
	VMEMI_REQUIRE(owned == b->owned);
	VMEMI_REQUIRE(released == b->released);
	VMEMI_REQUIRE(pages == b->ram_pages);
	VMEMI_REQUIRE(b->done_count <= VMEM_BALLOON_BATCH);
	VMEMI_REQUIRE(b->told <= b->ram_pages && b->target <= b->ram_pages);
	return NULL;
}
