/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages are in the balloon, and which become due to be given out (balloon_due.c). */
#include "balloon/balloon_internal.h"
#include "base/bits.h"

#define TOUCHED_PAGES (UINT64_C(1) << VMEMI_BALLOON_TOUCHED) /* of a bit of `touched` */

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

static void make_run_due(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at, uint64_t end)
{
	for (; at < end; at = (at | 63) + 1)
		make_due(b, ram, at / 64, vmemi_balloon_mask(at % 64, end - at));
}

void vmemi_balloon_unlist(vmem_balloon *b)
{
	struct vmemi_balloon_list *list = &b->list;

	if (!list->ram)
		return;
	for (uint32_t i = list->at; i < list->count; i++)
		make_run_due(b, list->ram, vmemi_balloon_run_first(list->runs[i]),
			     vmemi_balloon_run_end(list->runs[i]));
	list->ram = NULL;
}

/* The run begins the list, or cannot be in it. */
static void list_other(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at, uint64_t end)
{
	struct vmemi_balloon_list *list = &b->list;

	vmemi_balloon_unlist(b);
	if (ram->low <= ram->high || end - at > VMEM_BALLOON_WORK_PAGES) {
		make_run_due(b, ram, at, end);
		return;
	}
	list->ram = ram;
	list->at = 0;
	list->count = 1;
	list->sorted = true;
	list->differ = 0;
	list->pages = end - at;
	list->runs[0] = vmemi_balloon_run(at, end - at);
	b->due |= UINT32_C(1) << (ram - b->ram);
}

/* Pages at .. end - 1 become due; some of them may be so already. */
static inline void list_due(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at,
			    uint64_t end)
{
	struct vmemi_balloon_list *list = &b->list;
	uint64_t *last, behind;

	if (ram != list->ram || list->pages + (end - at) > VMEM_BALLOON_WORK_PAGES) {
		list_other(b, ram, at, end);
		return;
	}
	last = &list->runs[list->count - 1];
	behind = vmemi_balloon_run_end(*last);
	if (at == behind) {
		*last += end - at;
	} else if (list->count < VMEMI_BALLOON_LIST) {
		list->sorted = list->sorted && at >= vmemi_balloon_run_first(*last);
		list->differ |= at ^ vmemi_balloon_run_first(*last);
		list->runs[list->count++] = vmemi_balloon_run(at, end - at);
	} else {
		list_other(b, ram, at, end);
		return;
	}
	list->pages += end - at;
}

/* As make_due(), in the list where they are one run. */
static inline void make_bits_due(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word,
				 uint64_t bits)
{
	uint64_t from = (uint64_t)__builtin_ctzll(bits), run = bits >> from;

	if (run & (run + 1))
		make_due(b, ram, word, bits);
	else
		list_due(b, ram, word * 64 + from, word * 64 + from + vmemi_bits_set(bits));
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

static inline void touch(const struct vmemi_balloon_ram *ram, uint64_t word)
{
	uint64_t chunk = word >> (VMEMI_BALLOON_TOUCHED - 6);

	ram->touched[chunk / 64] |= UINT64_C(1) << chunk % 64;
}

/* Pages of a word are new in the balloon: those of blocks that have become whole by them. */
static uint64_t became_whole(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t word,
			     uint64_t before, uint64_t new)
{
	uint64_t block;

	if (!vmemi_balloon_counts(ram))
		return vmemi_balloon_remembers(b)
			       ? whole_blocks(ram, before | new) & ~whole_blocks(ram, before)
			       : 0;
	block = word >> (ram->block_shift - 6);
	ram->in_block[block] += vmemi_bits_set(new);
	if (ram->in_block[block] == 1u << ram->block_shift && vmemi_balloon_remembers(b)) {
		b->released += UINT64_C(1) << ram->block_shift;
		b->block_pages += UINT64_C(1) << ram->block_shift;
		list_due(b, ram, block << ram->block_shift, (block + 1) << ram->block_shift);
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
		make_bits_due(b, ram, word, new);
}

/* How many words, of @count, are @from; they become @to. */
static uint64_t flip_words(uint64_t *words, uint64_t count, uint64_t from, uint64_t to)
{
	uint64_t n = 0, *w;

	for (; count - n >= 8; n += 8) {
		w = words + n;
		if ((w[0] ^ from) | (w[1] ^ from) | (w[2] ^ from) | (w[3] ^ from) | (w[4] ^ from) |
		    (w[5] ^ from) | (w[6] ^ from) | (w[7] ^ from))
			break;
		w[0] = w[1] = w[2] = w[3] = w[4] = w[5] = w[6] = w[7] = to;
	}
	for (; n < count && words[n] == from; n++)
		words[n] = to;
	return n;
}

/* Of whole words or blocks at .., as far as end, those that are all @from (0: not in the balloon; else all of it):
 * become the contrary, and due. How many pages. */
static inline uint64_t flip(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at,
			    uint64_t end, uint64_t from)
{
	uint64_t block = UINT64_C(1) << ram->block_shift, was = from ? block : 0, pages = 0;

	if (!ram->block_shift) {
		pages = flip_words(ram->owned + at / 64, (end - at) / 64, from, ~from) * 64;
	} else if (vmemi_balloon_counts(ram) && at % block == 0 && vmemi_balloon_remembers(b)) {
		for (; end - at >= pages + block; pages += block) {
			uint32_t *in_block = &ram->in_block[(at + pages) >> ram->block_shift];

			if (*in_block != was)
				break;
			*in_block = (uint32_t)(block - was);
			(void)flip_words(ram->owned + (at + pages) / 64, block / 64, from, ~from);
		}
	}
	if (!pages)
		return 0;
	if (from) {
		b->owned -= pages;
		b->released -= pages;
		b->counters.deflated += pages;
	} else {
		b->owned += pages;
		b->released += pages;
		b->counters.inflated += pages;
		for (uint64_t i = at; i < at + pages; i = (i | (TOUCHED_PAGES - 1)) + 1)
			touch(ram, i / 64);
		b->block_pages += ram->block_shift ? pages : 0;
	}
	list_due(b, ram, at, at + pages);
	return pages;
}

static inline void inflate_bits(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at,
				uint64_t end)
{
	uint64_t pages;

	while (at < end) {
		if (at % 64 == 0 && end - at >= 64 && !ram->owned[at / 64] &&
		    (pages = flip(b, ram, at, end, 0)) != 0) {
			at += pages;
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
	list_due(b, ram, at, at + 1);
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
	make_bits_due(b, ram, word, gone);
	if (vmemi_balloon_counts(ram)) {
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

static inline void deflate_bits(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint64_t at,
				uint64_t end)
{
	uint64_t pages;

	while (at < end) {
		if (at % 64 == 0 && end - at >= 64 && !~ram->owned[at / 64] &&
		    (pages = flip(b, ram, at, end, ~UINT64_C(0))) != 0) {
			at += pages;
			continue;
		}
		deflate_word(b, ram, at / 64, vmemi_balloon_mask(at % 64, end - at));
		at = (at | 63) + 1;
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
		make_bits_due(b, ram, word, bits);
}

/* A large block is discarded as a whole or not at all. @at, @count: bits of the RAM, whole blocks. */
static void free_large(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint32_t operation,
		       uint64_t at, uint64_t count)
{
	uint64_t words = UINT64_C(1) << (ram->block_shift - 6), good;

	for (uint64_t word = at / 64; word < (at + count) / 64; word += words) {
		good = 0;
		for (uint64_t i = 0; i < words; i++)
			good += vmemi_bits_set(
				free_of_word(b, ram, operation, word + i, ~UINT64_C(0)));
		if (good < words * 64) {
			b->counters.unaligned += good;
			continue;
		}
		for (uint64_t i = 0; i < words; i++)
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
	if (vmemi_balloon_counts(ram)) {
		free_large(b, ram, operation, first, last - first);
		return;
	}
	for (; first < last; first = (first | 63) + 1) {
		uint64_t bits = free_of_word(b, ram, operation, first / 64,
					     vmemi_balloon_mask(first % 64, last - first));
		uint64_t whole = ram->block_shift ? whole_blocks(ram, bits) : bits;

		b->counters.unaligned += vmemi_bits_set(bits & ~whole);
		free_due(b, ram, operation, first / 64, whole);
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
		deflate_bits(b, ram, at, end);
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
static inline size_t run_of(const uint32_t *gfns, size_t count, int32_t step)
{
	uint64_t most = 1 + (uint64_t)(step > 0 ? UINT32_MAX - gfns[0] : gfns[0]);
	uint32_t next = gfns[0];
	size_t n = 1;

	most = most < count ? most : count;
	while (n < most && gfns[n] == (next += (uint32_t)step))
		n++;
	return n;
}

/* Pages alone in the numbers, new in the balloon (@was 0) or all in it (2^64 - 1), where a block is a page: straight into
 * the list, which is the RAM's. As many as there are of these; not the last, whose neighbour is not known. Most of the
 * time of page numbers in no order is spent here. */
static __attribute__((noinline)) size_t mark_lone(struct vmemi_balloon_list *list,
						  const uint32_t *gfns, size_t count, uint64_t was)
{
	const struct vmemi_balloon_ram *ram = list->ram;
	const uint64_t base = ram->base, first = ram->first - base, pages = ram->pages;
	uint64_t *owned = ram->owned, *run = &list->runs[list->count];
	uint64_t at, last = vmemi_balloon_run_first(run[-1]), bits, differ = 0, falls = 0;
	const uint32_t *gfn = gfns, *end = gfns + count - 1;

	if (count > VMEMI_BALLOON_LIST - list->count)
		end = gfns + VMEMI_BALLOON_LIST - list->count;
	if ((uint64_t)(end - gfns) > VMEM_BALLOON_WORK_PAGES - list->pages)
		end = gfns + (VMEM_BALLOON_WORK_PAGES - list->pages);
	for (; gfn < end; gfn++) {
		at = *gfn - base;
		if (at - first >= pages || gfn[1] - gfn[0] + 1 <= 2)
			break;
		bits = owned[at / 64];
		if ((bits ^ was) >> at % 64 & 1)
			break;
		owned[at / 64] = bits ^ UINT64_C(1) << at % 64;
		if (!bits)
			touch(ram, at / 64);
		differ |= at ^ last;
		falls |= at - last;
		last = at;
		*run++ = vmemi_balloon_run(at, 1);
	}
	list->sorted = list->sorted && !(falls >> 63);
	list->differ |= differ;
	list->count += (uint32_t)(gfn - gfns);
	list->pages += (uint64_t)(gfn - gfns);
	return (size_t)(gfn - gfns);
}

/* A page alone, and those after it that are alone, too. */
static size_t mark_ones(vmem_balloon *b, struct vmemi_balloon_ram *ram, uint32_t operation,
			const uint32_t *gfns, size_t count)
{
	bool in = operation == VMEM_BALLOON_DISCARD;
	uint64_t n = 0; /* as wide as what it is taken from */

	if (in)
		inflate_one(b, ram, gfns[0] - ram->base);
	else
		deflate_word(b, ram, (gfns[0] - ram->base) / 64,
			     UINT64_C(1) << (gfns[0] - ram->base) % 64);
	if (b->list.ram == ram && count > 1)
		n = mark_lone(&b->list, gfns + 1, count - 1, in ? 0 : ~UINT64_C(0));
	b->owned += in ? n : -n;
	b->released += in ? n : -n;
	*(in ? &b->counters.inflated : &b->counters.deflated) += n;
	return (size_t)n + 1;
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
		if (ram && n == 1 && !ram->block_shift)
			n = mark_ones(b, ram, operation, gfns + i, count - i);
		else if (ram && first + n <= ram->first + ram->pages)
			mark_bits(b, ram, operation, first - ram->base, n);
		else
			(void)vmemi_balloon_mark(b, operation, first, n, &budget);
	}
	return i;
}
