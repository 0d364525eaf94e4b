/* SPDX-License-Identifier: BSD-2-Clause */
/* Accessed and dirty bits of a range: 64 entries of a table are a word of each bitmap. A first pass over them only tells
 * whether none or all of the bits are set, which is nearly always so; then there is nothing to put together.
 *
 * Processors set these bits while we clear them. An entry with both set is of no interest to them: it is cleared by a
 * store. All others are cleared by an atomic operation, and what counts is what that found. Upper entries are cleared
 * before what is below them is looked at: a processor that comes later sets them anew. Guard: serial calls. */
#include "ept/ept_cursor.h"
#include <vmem/ept_track.h>
#include "base/bits.h"
#include "base/opts.h"

#define LEAST VMEMI_BYTES_TO(struct vmem_ept_harvest, dirty_pages)
#define KNOWN_FLAGS \
	(VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_CLEAR_DIRTY | VMEM_EPT_STALE_FINE | VMEM_EPT_PRUNE)
#define WORD 64u

struct harvest {
	struct vmemi_ept_call call;
	struct vmemi_ept_cursor cursor;
	struct vmem_ept_harvest *out;
	uint64_t gpa;
	uint64_t accessed, dirty; /* bits of an entry that are looked at */
	uint64_t clear;           /* those of them that are cleared */
	uint32_t flags;
};

/* Of up to 64 leaves in a row. */
struct words {
	uint64_t accessed, dirty;
};

static uint64_t first_ones(uint32_t count)
{
	return count < WORD ? (UINT64_C(1) << count) - 1 : UINT64_MAX;
}

static uint32_t first_set(uint64_t word)
{
	return (uint32_t)__builtin_ctzll(word);
}

static uint32_t last_set(uint64_t word)
{
	return 63 - (uint32_t)__builtin_clzll(word);
}

/* --- Reading --- */

static void read_each(const uint64_t *slots, uint32_t count, uint64_t accessed, uint64_t dirty,
		      struct words *ret)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t entry = vmemi_ept_load(&slots[i]);
		uint64_t leaf = vmemi_ept_is_leaf(entry);

		ret->accessed |= (leaf & ((entry & accessed) != 0)) << i;
		ret->dirty |= (leaf & ((entry & dirty) != 0)) << i;
	}
}

/* What is set in all entries, and what in any. */
static void sum_up(const uint64_t *slots, uint32_t count, uint64_t *ret_all, uint64_t *ret_any)
{
	const uint64_t *end = slots + count;
	uint64_t all = UINT64_MAX, any = 0, all2 = UINT64_MAX, any2 = 0;

	for (; end - slots >= 4; slots += 4) {
		uint64_t a = vmemi_ept_load(slots), b = vmemi_ept_load(slots + 1);
		uint64_t c = vmemi_ept_load(slots + 2), d = vmemi_ept_load(slots + 3);

		all &= a & b;
		any |= a | b;
		all2 &= c & d;
		any2 |= c | d;
	}
	for (; slots < end; slots++) {
		uint64_t entry = vmemi_ept_load(slots);

		all &= entry;
		any |= entry;
	}
	*ret_all = all & all2;
	*ret_any = any | any2;
}

static void read_words(const struct harvest *h, const uint64_t *slots, uint32_t count,
		       struct words *ret)
{
	uint64_t all, any, ones = first_ones(count);

	*ret = (struct words){ 0, 0 };
	sum_up(slots, count, &all, &any);
	if (!(any & (h->accessed | h->dirty)))
		return;
	if (!(all & VMEMI_EPT_LEAF) || (any & VMEMI_EPT_MARK) ||
	    ((all ^ any) & (h->accessed | h->dirty))) {
		read_each(slots, count, h->accessed, h->dirty, ret);
		return;
	}
	ret->accessed = all & h->accessed ? ones : 0;
	ret->dirty = all & h->dirty ? ones : 0;
}

/* --- Clearing --- */

/* Returns what the entry was. */
static uint64_t clear_entry(const struct harvest *h, uint64_t *slot)
{
	uint64_t both = h->call.ept->accessed | h->call.ept->dirty, entry = vmemi_ept_load(slot);

	if ((entry & both) != both)
		return __atomic_fetch_and(slot, ~h->clear, __ATOMIC_SEQ_CST);
	vmemi_ept_store(slot, entry & ~h->clear);
	return entry;
}

static void clear_all(uint64_t *slots, uint32_t count, uint64_t clear)
{
	for (uint32_t i = 0; i < count; i++)
		vmemi_ept_store(&slots[i], vmemi_ept_load(&slots[i]) & ~clear);
}

/* @words are what was read, and become what was found. @return the entries that were written, as bits */
static uint64_t clear_words(const struct harvest *h, uint64_t *slots, uint32_t count,
			    struct words *words)
{
	uint64_t written = (h->clear & h->accessed ? words->accessed : 0) |
			   (h->clear & h->dirty ? words->dirty : 0);
	uint64_t ones = first_ones(count);

	if (!written)
		return 0;
	if (words->accessed == ones && words->dirty == ones) {
		clear_all(slots, count, h->clear);
	} else {
		for (uint64_t left = written; left; left &= left - 1) {
			uint32_t i = first_set(left);
			uint64_t entry = clear_entry(h, &slots[i]);

			words->accessed |= (uint64_t)((entry & h->accessed) != 0) << i;
			words->dirty |= (uint64_t)((entry & h->dirty) != 0) << i;
		}
	}
	vmemi_ept_written(h->call.ept, slots, count);
	return written;
}

/* Something in it was cleared. */
static void owe(struct harvest *h, uint64_t gpa, uint64_t bytes)
{
	if (!(h->flags & VMEM_EPT_STALE_FINE))
		vmemi_ept_owe(&h->call, gpa, bytes);
}

/* --- To bitmaps --- */

static void set_pages(uint64_t *bitmap, uint64_t first, uint64_t count)
{
	if (!bitmap)
		return;
	for (; count; count--, first++) {
		if (first % WORD == 0 && count >= WORD) {
			bitmap[first / WORD] = UINT64_MAX;
			first += WORD - 1;
			count -= WORD - 1;
		} else {
			bitmap[first / WORD] |= UINT64_C(1) << first % WORD;
		}
	}
}

static void table_to_bitmaps(struct harvest *h)
{
	uint64_t *slots = vmemi_ept_cursor_slot(&h->cursor), gpa = h->cursor.at;
	uint64_t word = (gpa - h->gpa) >> VMEM_PAGE_SHIFT >> 6;
	uint32_t entries = vmemi_ept_cursor_entries(&h->cursor), low = VMEM_EPT_ENTRIES, high = 0;
	struct words words;

	for (uint32_t i = 0; i < entries; i += WORD, word++) {
		uint32_t count = entries - i < WORD ? entries - i : WORD;
		uint64_t written;

		read_words(h, slots + i, count, &words);
		written = clear_words(h, slots + i, count, &words);
		if (h->out->accessed && words.accessed)
			h->out->accessed[word] |= words.accessed;
		if (h->out->dirty && words.dirty)
			h->out->dirty[word] |= words.dirty;
		h->out->accessed_pages += vmemi_bits_set(words.accessed);
		h->out->dirty_pages += vmemi_bits_set(words.dirty);
		if (written) {
			low = high ? low : i + first_set(written);
			high = i + last_set(written) + 1;
			h->call.change->leaves += vmemi_bits_set(written);
		}
	}
	if (high)
		owe(h, gpa + (uint64_t)low * VMEM_PAGE_SIZE,
		    (uint64_t)(high - low) * VMEM_PAGE_SIZE);
	vmemi_ept_cursor_pass(&h->cursor, entries);
}

/* --- One leaf: large ones, and all for a callback --- */

/* Hands on what is in the range of a leaf of which @found is set. */
static int report(struct harvest *h, uint64_t found)
{
	uint64_t bytes = vmemi_ept_bytes(h->cursor.level), start = h->cursor.at & ~(bytes - 1);
	uint64_t end = bytes < h->cursor.end - start ? start + bytes : h->cursor.end;
	uint64_t first = (h->cursor.at - h->gpa) >> VMEM_PAGE_SHIFT;
	uint64_t pages = (end - h->cursor.at) >> VMEM_PAGE_SHIFT;
	uint32_t bits = (found & h->accessed ? VMEM_EPT_CLEAR_ACCESSED : 0) |
			(found & h->dirty ? VMEM_EPT_CLEAR_DIRTY : 0);

	if (bits & VMEM_EPT_CLEAR_ACCESSED) {
		h->out->accessed_pages += pages;
		set_pages(h->out->accessed, first, pages);
	}
	if (bits & VMEM_EPT_CLEAR_DIRTY) {
		h->out->dirty_pages += pages;
		set_pages(h->out->dirty, first, pages);
	}
	if (!bits || h->out->accessed || h->out->dirty || !h->out->leaf)
		return 0;
	return h->out->leaf(h->out->context, start, bytes, bits);
}

static int one_leaf(struct harvest *h, uint64_t *slot, uint64_t entry)
{
	uint64_t bytes = vmemi_ept_bytes(h->cursor.level), start = h->cursor.at & ~(bytes - 1);
	int err;

	if (vmemi_ept_is_leaf(entry) && (entry & (h->accessed | h->dirty))) {
		if ((entry & h->clear) && vmemi_ept_cursor_whole(&h->cursor, h->gpa)) {
			entry = clear_entry(h, slot);
			vmemi_ept_written(h->call.ept, slot, 1);
			h->call.change->leaves++;
			owe(h, start, bytes);
		}
		err = report(h, entry);
		if (err)
			return vmemi_ept_fail(&h->call, err, VMEM_EPT_FINE, start);
	}
	vmemi_ept_cursor_pass(&h->cursor, 1);
	return 0;
}

/* --- The range --- */

static void enter(struct harvest *h, uint64_t *slot, uint64_t entry)
{
	uint64_t bytes = vmemi_ept_bytes(h->cursor.level);

	if ((h->flags & VMEM_EPT_PRUNE) && !(entry & h->accessed)) {
		vmemi_ept_cursor_pass(&h->cursor, 1);
		return;
	}
	if ((h->flags & VMEM_EPT_PRUNE) && (h->flags & VMEM_EPT_CLEAR_ACCESSED) &&
	    vmemi_ept_cursor_whole(&h->cursor, h->gpa)) {
		__atomic_fetch_and(slot, ~h->accessed, __ATOMIC_SEQ_CST);
		vmemi_ept_written(h->call.ept, slot, 1);
		owe(h, h->cursor.at & ~(bytes - 1), bytes);
	}
	vmemi_ept_cursor_down(&h->cursor, h->call.ept, entry);
}

/* It ended early: what was not looked at must not be pruned the next time. */
static void mark_way(struct harvest *h)
{
	for (uint32_t level = h->cursor.level + 1; level <= h->cursor.levels; level++) {
		uint64_t *slot = h->cursor.table[level] + vmemi_ept_index(h->cursor.at, level);

		__atomic_fetch_or(slot, h->accessed, __ATOMIC_SEQ_CST);
		vmemi_ept_written(h->call.ept, slot, 1);
	}
}

static int over_range(struct harvest *h)
{
	bool words = h->out->accessed || h->out->dirty || !h->out->leaf;

	while (h->cursor.at < h->cursor.end) {
		uint64_t *slot = vmemi_ept_cursor_slot(&h->cursor);
		uint64_t entry;
		int err;

		if (h->cursor.level == 1 && words) {
			table_to_bitmaps(h);
			continue;
		}
		entry = vmemi_ept_load(slot);
		if (h->cursor.level > 1 && vmemi_ept_is_table(entry)) {
			enter(h, slot, entry);
			continue;
		}
		err = one_leaf(h, slot, entry);
		if (err) {
			if (h->flags & VMEM_EPT_PRUNE)
				mark_way(h);
			return err;
		}
	}
	return 0;
}

static bool flags_fit(const struct vmem_ept_harvest *out, uint32_t flags)
{
	if (flags & ~KNOWN_FLAGS)
		return false;
	if ((flags & VMEM_EPT_STALE_FINE) && (flags & VMEM_EPT_CLEAR_DIRTY))
		return false;
	return !(flags & VMEM_EPT_PRUNE) || !(out->dirty || (flags & VMEM_EPT_CLEAR_DIRTY));
}

static int check(struct harvest *h)
{
	struct vmem_ept_harvest known;
	int err = vmemi_callbacks_take(&known, sizeof(known), LEAST, h->out);

	if (err)
		return vmemi_ept_fail(&h->call, err, VMEM_EPT_BAD_CALL, h->gpa);
	if (!flags_fit(&known, h->flags))
		return vmemi_ept_fail(&h->call, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, h->gpa);
	if ((known.accessed || known.dirty) && (h->gpa & (WORD * VMEM_PAGE_SIZE - 1)))
		return vmemi_ept_fail(&h->call, -VMEM_EINVAL, VMEM_EPT_UNALIGNED, h->gpa);
	if (!h->call.ept->accessed)
		return vmemi_ept_fail(&h->call, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY, h->gpa);
	return 0;
}

/* Which bits are looked at, and which are cleared. */
static void choose(struct harvest *h)
{
	const vmem_ept *ept = h->call.ept;
	bool callback = !h->out->accessed && !h->out->dirty && h->out->leaf;
	uint32_t clear = h->flags & (VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_CLEAR_DIRTY);

	h->accessed = ept->accessed;
	h->dirty = h->flags & VMEM_EPT_PRUNE ? 0 : ept->dirty;
	h->clear = (clear & VMEM_EPT_CLEAR_ACCESSED ? ept->accessed : 0) |
		   (clear & VMEM_EPT_CLEAR_DIRTY ? ept->dirty : 0);
	if (callback && clear) {
		h->accessed &= h->clear;
		h->dirty &= h->clear;
	}
}

int vmem_ept_harvest(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t flags,
		     struct vmem_ept_harvest *harvest, struct vmem_ept_change *change)
{
	struct harvest h = { .out = harvest, .gpa = gpa, .flags = flags };
	int err = vmemi_ept_begin(&h.call, ept, gpa, bytes, change);

	if (!err)
		err = check(&h);
	if (!err) {
		harvest->accessed_pages = 0;
		harvest->dirty_pages = 0;
		choose(&h);
		vmemi_ept_cursor_begin(&h.cursor, ept, gpa, bytes);
		err = over_range(&h);
	}
	return vmemi_ept_end(&h.call, err);
}
