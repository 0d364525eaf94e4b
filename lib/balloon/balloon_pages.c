/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages are in the balloon, and which become due to be given out (balloon_due.c). */
#include "balloon/balloon_internal.h"
#include "base/bits.h"
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

/* Blocks of less than 64 pages are seen whole in a word. */
static bool counts_blocks(const struct vmemi_balloon_ram *ram)
{
	return ram->block_shift >= 6;
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
	if (counts_blocks(ram)) {
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

/* The RAM of a page, or NULL and the first page behind it that is RAM (or 2^64 - 1). */
static inline struct vmemi_balloon_ram *find(vmem_balloon *b, uint64_t gfn, uint64_t *ret_next)
{
	struct vmemi_balloon_ram *ram = &b->ram[b->last];

	if (b->last < b->rams && gfn - ram->first < ram->pages)
		return ram;
	*ret_next = UINT64_MAX;
	for (uint32_t i = 0; i < b->rams; i++) {
		ram = &b->ram[i];
		if (gfn - ram->first < ram->pages) {
			b->last = i;
			return ram;
		}
		if (gfn < ram->first) {
			*ret_next = ram->first;
			break;
		}
	}
	return NULL;
}

/* A word of due[2] is no longer 0. */
static void widen(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at)
{
	if (ram->low == UINT64_MAX)
		ram->high = at;
	ram->low = at < ram->low ? at : ram->low;
	ram->high = at > ram->high ? at : ram->high;
	b->due |= UINT32_C(1) << (ram - b->ram);
}

/* A word of due[0] is no longer 0. */
static inline void raise(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word)
{
	uint64_t at = word / 64, before = ram->due[1][at];

	ram->due[1][at] = before | UINT64_C(1) << word % 64;
	if (before)
		return;
	before = ram->due[2][at / 64];
	ram->due[2][at / 64] = before | UINT64_C(1) << at % 64;
	if (!before)
		widen(b, ram, at / 64);
}

/* Pages of a word become due; some of them may be so already. */
static inline void make_due(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word,
			    uint64_t bits)
{
	uint64_t before = ram->due[0][word];

	ram->due[0][word] = before | bits;
	if (!before)
		raise(b, ram, word);
}

/* A block's pages become due. Blocks of less than 64 pages are due as bits of a word. */
static void make_block_due(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t block)
{
	uint64_t words = UINT64_C(1) << (ram->block_shift - 6);

	for (uint64_t i = 0; i < words; i++)
		make_due(b, ram, block * words + i, ~UINT64_C(0));
	b->block_pages += words * 64;
}

/* The whole blocks of a word all of whose pages are set in it: each as all of its bits. */
static uint64_t whole_blocks(const struct vmemi_balloon_ram *ram, uint64_t bits)
{
	uint32_t pages = 1u << ram->block_shift;
	uint64_t block = vmemi_balloon_mask(0, pages), whole = 0;

	for (uint32_t at = 0; at < 64; at += pages)
		if ((bits >> at & block) == block)
			whole |= block << at;
	return whole;
}

/* --- The four operations on the bits @mask of a word --- */

static inline void touch(struct vmemi_balloon_ram *ram, uint64_t word)
{
	uint64_t chunk = word >> (VMEMI_BALLOON_TOUCHED - 6);

	ram->touched[chunk / 64] |= UINT64_C(1) << chunk % 64;
}

/* Pages of a word are new in the balloon: those of blocks that have become whole by them. */
static uint64_t became_whole(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word,
			     uint64_t before, uint64_t new)
{
	uint64_t block;

	if (!counts_blocks(ram))
		return vmemi_balloon_remembers(b)
			       ? whole_blocks(ram, before | new) & ~whole_blocks(ram, before)
			       : 0;
	block = word >> (ram->block_shift - 6);
	ram->in_block[block] += vmemi_bits_set(new);
	if (ram->in_block[block] == 1u << ram->block_shift && vmemi_balloon_remembers(b)) {
		b->released += UINT64_C(1) << ram->block_shift;
		make_block_due(b, ram, block);
	}
	return 0;
}

static inline void inflate_word(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word,
				uint64_t mask)
{
	uint64_t before = ram->owned[word], new = mask & ~before;
	uint32_t count = vmemi_bits_set(new);

	if (mask & before)
		b->counters.inflated_twice += vmemi_bits_set(mask & before);
	if (!new)
		return;
	ram->owned[word] = before | new;
	touch(ram, word);
	b->owned += count;
	b->counters.inflated += count;
	if (ram->block_shift) {
		new = became_whole(b, ram, word, before, new);
		count = vmemi_bits_set(new);
	}
	b->released += count;
	if (new)
		make_due(b, ram, word, new);
}

/* As many whole words from @word on as have no page in the balloon, where a block is a page. Behind the last. */
static uint64_t inflate_words(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word,
			      uint64_t end)
{
	uint64_t first = word, count;

	for (; word < end && !ram->owned[word]; word++) {
		ram->owned[word] = ram->due[0][word] = ~UINT64_C(0);
		if (word == first || word % 64 == 0) {
			touch(ram, word);
			raise(b, ram, word);
		}
		ram->due[1][word / 64] |= UINT64_C(1) << word % 64;
	}
	count = (word - first) * 64;
	b->owned += count;
	b->released += count;
	b->counters.inflated += count;
	return word;
}

static inline void inflate_bits(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at,
				uint64_t end)
{
	while (at < end) {
		if (at % 64 == 0 && end - at >= 64 && !ram->block_shift && !ram->owned[at / 64]) {
			at = inflate_words(b, ram, at / 64, end / 64) * 64;
			continue;
		}
		inflate_word(b, ram, at / 64, vmemi_balloon_mask(at % 64, end - at));
		at = (at | 63) + 1;
	}
}

/* A page alone, where a block is a page. */
static inline void inflate_one(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at)
{
	uint64_t word = at / 64, bit = UINT64_C(1) << at % 64, before = ram->owned[word];

	if (before & bit) {
		b->counters.inflated_twice++;
		return;
	}
	ram->owned[word] = before | bit;
	touch(ram, word);
	b->owned++;
	b->released++;
	b->counters.inflated++;
	make_due(b, ram, word, bit);
}

static inline void deflate_word(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word,
				uint64_t mask)
{
	uint64_t before = ram->owned[word], gone = mask & before;
	uint32_t count = vmemi_bits_set(gone);

	b->counters.not_inflated += vmemi_bits_set(mask & ~before);
	if (!gone)
		return;
	ram->owned[word] = before & ~gone;
	b->owned -= count;
	b->counters.deflated += count;
	make_due(b, ram, word, gone);
	if (counts_blocks(ram)) {
		uint64_t block = word >> (ram->block_shift - 6);

		if (ram->in_block[block] == 1u << ram->block_shift && vmemi_balloon_remembers(b))
			b->released -= UINT64_C(1) << ram->block_shift;
		ram->in_block[block] -= count;
	} else if (ram->block_shift && !vmemi_balloon_remembers(b)) {
		return;
	} else if (ram->block_shift) {
		b->released -= vmemi_bits_set(whole_blocks(ram, before) &
					      ~whole_blocks(ram, before & ~gone));
	} else {
		b->released -= count;
	}
}

/* Of the free pages @mask of a word, those that may be discarded. */
static uint64_t free_of_word(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint32_t operation,
			     uint64_t word, uint64_t mask)
{
	uint64_t free = mask & ~ram->owned[word], unwritten;

	b->counters.free_inflated += vmemi_bits_set(mask & ram->owned[word]);
	if (operation == VMEM_BALLOON_DISCARD_HINTED && free) {
		unwritten = b->guard.unwritten(b->guard.context, ram->base + word * 64);
		b->counters.hints_written += vmemi_bits_set(free & ~unwritten);
		free &= unwritten;
	}
	return free;
}

static void free_due(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint32_t operation,
		     uint64_t word, uint64_t bits)
{
	uint64_t *counter = operation == VMEM_BALLOON_DISCARD_HINTED ? &b->counters.hinted
								     : &b->counters.reported;

	*counter += vmemi_bits_set(bits);
	if (bits)
		make_due(b, ram, word, bits);
}

/* A large block is discarded as a whole or not at all. @at, @count: bits of the RAM, whole blocks. */
static void free_large(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint32_t operation,
		       uint64_t at, uint64_t count)
{
	uint64_t words = UINT64_C(1) << (ram->block_shift - 6), good;

	for (uint64_t word = at / 64; word < (at + count) / 64; word += words) {
		good = 0;
		for (uint64_t i = 0; i < words; i++)
			good += free_of_word(b, ram, operation, word + i, ~UINT64_C(0)) ==
				~UINT64_C(0);
		for (uint64_t i = 0; good == words && i < words; i++)
			free_due(b, ram, operation, word + i, ~UINT64_C(0));
	}
}

/* Free pages at .. of the RAM's bits, reported or hinted. */
static void free_bits(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint32_t operation,
		      uint64_t at, uint64_t count)
{
	uint64_t block = UINT64_C(1) << ram->block_shift, end = at + count;
	uint64_t first = (at + block - 1) & ~(block - 1), last = end & ~(block - 1);

	if (first >= last) {
		b->counters.unaligned += count;
		return;
	}
	b->counters.unaligned += first - at + (end - last);
	if (counts_blocks(ram)) {
		free_large(b, ram, operation, first, last - first);
		return;
	}
	for (; first < last; first = (first | 63) + 1) {
		uint64_t bits = free_of_word(b, ram, operation, first / 64,
					     vmemi_balloon_mask(first % 64, last - first));

		free_due(b, ram, operation, first / 64,
			 ram->block_shift ? whole_blocks(ram, bits) : bits);
	}
}

/* The pages at .. of the RAM's bits. */
static inline void mark_bits(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint32_t operation,
			     uint64_t at, uint64_t count)
{
	uint64_t end = at + count;

	if (operation == VMEM_BALLOON_DISCARD)
		inflate_bits(b, ram, at, end);
	else if (operation == VMEM_BALLOON_RETURN)
		for (; at < end; at = (at | 63) + 1)
			deflate_word(b, ram, at / 64, vmemi_balloon_mask(at % 64, end - at));
	else
		free_bits(b, ram, operation, at, count);
}

/* As many of the pages as the budget is for. Free ones end with a block, so that none is seen in two parts;
 * 0: a block is more than what is left. */
static uint64_t within(const struct vmemi_balloon_ram *ram, uint32_t operation, uint64_t gfn,
		       uint64_t count, uint64_t budget)
{
	uint64_t end = (gfn + budget) >> ram->block_shift << ram->block_shift;

	if (count <= budget)
		return count;
	if (operation == VMEM_BALLOON_DISCARD || operation == VMEM_BALLOON_RETURN)
		return budget;
	return end > gfn ? end - gfn : 0;
}

uint64_t vmemi_balloon_mark(vmem_balloon *b, uint32_t operation, uint64_t gfn, uint64_t pages,
			    uint64_t *budget)
{
	struct vmemi_balloon_ram *ram;
	uint64_t done = 0, count, next = UINT64_MAX;

	while (done < pages && *budget) {
		ram = find(b, gfn + done, &next);
		count = pages - done;
		if (!ram) {
			if (count > next - (gfn + done))
				count = next - (gfn + done);
			b->counters.outside += count;
			done += count;
			continue;
		}
		if (count > ram->first + ram->pages - (gfn + done))
			count = ram->first + ram->pages - (gfn + done);
		count = within(ram, operation, gfn + done, count, *budget);
		if (!count) {
			*budget = 0;
			break;
		}
		mark_bits(b, ram, operation, gfn + done - ram->base, count);
		done += count;
		*budget -= count;
	}
	return done;
}

/* How many of the numbers follow each other, up (1) or down (-1). */
static inline size_t run_of(const uint32_t *gfns, size_t count, int64_t step)
{
	size_t n = 1;

	while (n < count && gfns[n] == gfns[n - 1] + step)
		n++;
	return n;
}

size_t vmemi_balloon_mark_list(vmem_balloon *b, uint32_t operation, const uint32_t *gfns,
			       size_t count)
{
	uint64_t budget = VMEM_BALLOON_WORK_PAGES; /* enough for any list of a call */
	struct vmemi_balloon_ram *ram;
	uint64_t first, next;
	size_t n, i;

	for (i = 0; i < count && b->block_pages < VMEM_BALLOON_WORK_PAGES; i += n) {
		first = gfns[i];
		n = run_of(gfns + i, count - i, 1);
		if (n == 1) {
			n = run_of(gfns + i, count - i, -1);
			first -= n - 1;
		}
		ram = find(b, first, &next);
		if (ram && n == 1 && operation == VMEM_BALLOON_DISCARD && !ram->block_shift)
			inflate_one(b, ram, first - ram->base);
		else if (ram && first + n <= ram->first + ram->pages)
			mark_bits(b, ram, operation, first - ram->base, n);
		else
			(void)vmemi_balloon_mark(b, operation, first, n, &budget);
	}
	return i;
}

/* --- All of them --- */

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
		if (counts_blocks(ram)) { /* no block is larger than a chunk */
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
