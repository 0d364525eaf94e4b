/* SPDX-License-Identifier: BSD-2-Clause */
/* Gives due pages out as ranges, sorted and joined. */
#include "balloon/balloon_internal.h"

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

size_t vmemi_balloon_pop(vmem_balloon *b, struct vmem_balloon_range *ranges, size_t count)
{
	struct taking t = { .ranges = ranges, .count = count, .operation = b->due_operation };

	while (b->due) {
		t.end = 0;
		if (!take_ram(&t, &b->ram[__builtin_ctz(b->due)]))
			break;
		b->due &= b->due - 1;
	}
	return t.n;
}
