/* SPDX-License-Identifier: BSD-2-Clause */
/* Gives due pages out as ranges, sorted and joined. */
#include "balloon/balloon_internal.h"

#define FEW 16u /* runs */

struct taking {
	struct vmem_balloon_range *ranges;
	size_t count, n;
	uint64_t pages,
		end; /* of the last range, and behind it as a bit of the RAM; 0: there is none in this RAM */
	uint32_t operation;
};

/* A run of due pages: goes on with the last range, or is one of its own. false: there is no room for it. */
static inline bool take_run(struct taking *t, const struct vmemi_balloon_ram *ram, uint64_t first,
			    uint64_t pages)
{
	if (t->end == first && first && t->pages < VMEM_BALLOON_WORK_PAGES) {
		t->ranges[t->n - 1].bytes += pages << VMEM_PAGE_SHIFT;
		t->pages += pages;
	} else {
		if (t->n == t->count)
			return false;
		t->ranges[t->n++] = (struct vmem_balloon_range){
			.gpa = (ram->base + first) << VMEM_PAGE_SHIFT,
			.bytes = pages << VMEM_PAGE_SHIFT,
			.operation = t->operation,
		};
		t->pages = pages;
	}
	t->end = first + pages;
	return true;
}

/* The runs of a word. false: some are left. */
static inline bool take_word(struct taking *t, struct vmemi_balloon_ram *ram, uint64_t word)
{
	uint64_t bits = ram->due[0][word], from, ones;

	while (bits) {
		from = (uint64_t)__builtin_ctzll(bits);
		ones = ~(bits >> from) ? (uint64_t)__builtin_ctzll(~(bits >> from)) : 64;
		if (!take_run(t, ram, word * 64 + from, ones))
			break;
		bits &= ~vmemi_balloon_mask(from, ones);
	}
	ram->due[0][word] = bits;
	return !bits;
}

/* All of the list: its runs are no more pages together than a range may have. Those that touch or overlap are joined.
 * false: some are left. */
static bool take_list(struct taking *t, struct vmemi_balloon_list *list)
{
	const uint64_t base = list->ram->base;
	struct vmem_balloon_range *range = t->ranges + t->n, *none = t->ranges + t->count;
	uint64_t first, pages, behind = 0; /* behind the end of the last range */

	for (; list->at < list->count; list->at++) {
		first = vmemi_balloon_run_first(list->runs[list->at]);
		pages = vmemi_balloon_run_pages(list->runs[list->at]);
		if (first < behind) {
			if (first + pages >= behind) {
				range[-1].bytes += (first + pages + 1 - behind) << VMEM_PAGE_SHIFT;
				behind = first + pages + 1;
			}
			continue;
		}
		if (range == none)
			break;
		*range++ = (struct vmem_balloon_range){
			.gpa = (base + first) << VMEM_PAGE_SHIFT,
			.bytes = pages << VMEM_PAGE_SHIFT,
			.operation = t->operation,
		};
		behind = first + pages + 1;
	}
	t->n = (size_t)(range - t->ranges);
	if (list->at < list->count)
		return false;
	list->ram = NULL;
	return true;
}

/* All of a RAM. false: some are left. */
static bool take_ram(struct taking *t, struct vmemi_balloon_ram *ram)
{
	uint64_t upper, lower, at;

	for (; ram->low <= ram->high; ram->low++) {
		for (upper = ram->due[2][ram->low]; upper; upper &= upper - 1) {
			at = ram->low * 64 + (uint64_t)__builtin_ctzll(upper);
			for (lower = ram->due[1][at]; lower; lower &= lower - 1)
				if (!take_word(t, ram,
					       at * 64 + (uint64_t)__builtin_ctzll(lower))) {
					ram->due[1][at] = lower;
					ram->due[2][ram->low] = upper;
					return false;
				}
			ram->due[1][at] = 0;
		}
		ram->due[2][ram->low] = 0;
	}
	ram->low = UINT64_MAX;
	ram->high = 0;
	return true;
}

/* Before it is taken. A few runs are sorted sooner by the bitmaps. */
static void settle_list(vmem_balloon *b)
{
	struct vmemi_balloon_list *list = &b->list;

	if (!list->ram)
		return;
	if (list->ram->low <= list->ram->high || (!list->sorted && list->count - list->at < FEW))
		vmemi_balloon_unlist(b);
	else if (!list->sorted)
		vmemi_balloon_sort(list);
}

size_t vmemi_balloon_pop(vmem_balloon *b, struct vmem_balloon_range *ranges, size_t count)
{
	struct taking t = { .ranges = ranges, .count = count, .operation = b->due_operation };
	struct vmemi_balloon_ram *ram;

	settle_list(b);
	while (b->due) {
		ram = &b->ram[__builtin_ctz(b->due)];
		t.end = 0;
		if (!(ram == b->list.ram ? take_list(&t, &b->list) : take_ram(&t, ram)))
			break;
		b->due &= b->due - 1;
	}
	return t.n;
}
