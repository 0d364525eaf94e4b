/* SPDX-License-Identifier: BSD-2-Clause */
/* The sample of a region, and what became of its pages: see active.h. */
#include "linux/region/active.h"
#include "base/alloc.h"
#include <stdlib.h>

int vmemi_active_init(struct vmemi_active *a, const struct vmem_allocator *allocator,
		      struct vmemi_arrays *arrays, uint64_t pages, uint32_t most,
		      uint64_t period_ns)
{
	if (!most)
		return 0;
	a->most = most;
	a->period_ns = period_ns;
	a->pages = vmemi_zalloc(allocator, most * sizeof(*a->pages), 64);
	return a->pages ? vmemi_page_set_init(&a->out, arrays, pages) : -VMEM_ENOMEM;
}

void vmemi_active_destroy(struct vmemi_active *a, const struct vmem_allocator *allocator,
			  struct vmemi_arrays *arrays)
{
	if (!a->pages)
		return;
	vmemi_page_set_destroy(&a->out, arrays);
	vmemi_free(allocator, a->pages, a->most * sizeof(*a->pages), 64);
	a->pages = NULL;
}

void vmemi_active_grow(struct vmemi_active *a, uint64_t pages)
{
	if (a->pages)
		vmemi_page_set_grow(&a->out, pages);
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

void vmemi_active_saw(struct vmemi_active *a, vmem_track *track, uint64_t page, bool accessed)
{
	if (!a->count || !bsearch(&page, a->pages, a->count, sizeof(page), by_number))
		return;
	if (accessed)
		a->accessed++;
	else
		vmem_track_sample_spoiled(track, 1);
}

void vmemi_active_tell(struct vmemi_active *a, vmem_track *track)
{
	struct vmem_track_estimate e = { .size = sizeof(e) };

	vmem_track_sample_accessed(track, a->accessed);
	if (vmem_track_get_estimate(track, &e))
		return;
	atomic_store(&a->active, e.active);
	atomic_store(&a->now, e.working_set);
	atomic_store(&a->low, e.low);
	atomic_store(&a->high, e.high);
	atomic_store(&a->samples, e.samples);
}

void vmemi_active_choose(struct vmemi_active *a, vmem_track *track, uint64_t count, uint64_t now_ns)
{
	uint32_t chosen, kept = 0;

	for (uint32_t i = 0; i < a->count; i++)
		vmemi_page_set_take_group(&a->out, a->pages[i] / 64);
	vmemi_active_tell(a, track);
	a->accessed = 0;
	chosen = (uint32_t)vmem_track_sample(track, a->pages, count < a->most ? count : a->most);
	vmemi_active_tell(a, track);
	qsort(a->pages, chosen, sizeof(*a->pages), by_number);
	for (uint32_t i = 0; i < chosen; i++)
		if (!kept || a->pages[kept - 1] != a->pages[i])
			a->pages[kept++] = a->pages[i];
	vmem_track_sample_spoiled(track, chosen - kept); /* named twice */
	a->count = kept;
	a->begun_ns = now_ns;
	for (uint32_t i = 0; i < kept; i++)
		vmemi_page_set_add(&a->out, a->pages[i]);
}
