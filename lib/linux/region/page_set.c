/* SPDX-License-Identifier: BSD-2-Clause */
/* A sparse set of pages: see page_set.h. */
#include "linux/region/page_set.h"

#define GROUP_PAGES_PER_WORD 4096 /* 64 groups of 64 pages */

int vmemi_page_set_init(struct vmemi_page_set *s, struct vmemi_arrays *a, uint64_t pages)
{
	atomic_store(&s->count, (pages + 63) / 64);
	s->pages = vmemi_bitmap_new(a);
	s->groups = vmemi_array_new(a, GROUP_PAGES_PER_WORD, sizeof(uint64_t));
	if (s->pages && s->groups)
		return 0;
	vmemi_page_set_destroy(s, a);
	return -VMEM_ENOMEM;
}

void vmemi_page_set_destroy(struct vmemi_page_set *s, struct vmemi_arrays *a)
{
	vmemi_bitmap_free(a, s->pages);
	vmemi_array_free(a, s->groups, GROUP_PAGES_PER_WORD, sizeof(uint64_t));
	s->pages = s->groups = NULL;
}

void vmemi_page_set_grow(struct vmemi_page_set *s, uint64_t pages)
{
	atomic_store(&s->count, (pages + 63) / 64);
}

void vmemi_page_set_add(struct vmemi_page_set *s, uint64_t page)
{
	vmemi_page_set_add_group(s, page / 64, UINT64_C(1) << page % 64);
}

void vmemi_page_set_add_group(struct vmemi_page_set *s, uint64_t group, uint64_t bits)
{
	/* If there are others the group's bit is set, or about to be by who came first. */
	if (!atomic_fetch_or(&s->pages[group], bits))
		atomic_fetch_or(&s->groups[group / 64], UINT64_C(1) << group % 64);
}

uint64_t vmemi_page_set_next(const struct vmemi_page_set *s, uint64_t group, uint64_t end)
{
	uint64_t some;

	while (group < end) {
		some = atomic_load_explicit(&s->groups[group / 64], memory_order_relaxed) >>
		       group % 64;
		if (some) {
			group += (unsigned)__builtin_ctzll(some);
			return group < end ? group : end;
		}
		group = (group | 63) + 1;
	}
	return end;
}

uint64_t vmemi_page_set_take(struct vmemi_page_set *s, uint64_t *group, uint64_t end)
{
	uint64_t g = *group, bits;

	while ((g = vmemi_page_set_next(s, g, end)) < end) {
		atomic_fetch_and(&s->groups[g / 64], ~(UINT64_C(1) << g % 64));
		bits = atomic_exchange(&s->pages[g], 0);
		if (bits) {
			*group = g;
			return bits;
		}
		g++;
	}
	return 0;
}

bool vmemi_page_set_has(const struct vmemi_page_set *s, uint64_t page)
{
	uint64_t group = page / 64;

	return (atomic_load(&s->pages[group]) >> page % 64 & 1) &&
	       (atomic_load(&s->groups[group / 64]) >> group % 64 & 1);
}
