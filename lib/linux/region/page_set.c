/* SPDX-License-Identifier: BSD-2-Clause */
/* A sparse set of pages: see page_set.h. */
#include "linux/region/page_set.h"
#include "base/mem.h"

static size_t bytes_of(uint64_t bits)
{
	return (size_t)(bits + 63) / 64 * sizeof(uint64_t);
}

int vmemi_page_set_init(struct vmemi_page_set *s, const struct vmem_allocator *a, uint64_t pages)
{
	s->count = (pages + 63) / 64;
	s->pages = vmemi_zalloc(a, bytes_of(pages), 64);
	s->groups = vmemi_zalloc(a, bytes_of(s->count), 64);
	if (s->pages && s->groups)
		return 0;
	vmemi_page_set_destroy(s, a);
	return -VMEM_ENOMEM;
}

void vmemi_page_set_destroy(struct vmemi_page_set *s, const struct vmem_allocator *a)
{
	vmemi_free(a, s->pages, bytes_of(s->count * 64), 64);
	vmemi_free(a, s->groups, bytes_of(s->count), 64);
	s->pages = s->groups = NULL;
}

void vmemi_page_set_add(struct vmemi_page_set *s, uint64_t page)
{
	uint64_t group = page / 64;

	/* If there are others the group's bit is set, or about to be by who came first. */
	if (!atomic_fetch_or(&s->pages[group], UINT64_C(1) << page % 64))
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
