/* SPDX-License-Identifier: BSD-2-Clause */
/* The budget in physical bytes: see frames.h. */
#include "linux/region/frames.h"
#include <limits.h>

uint64_t vmemi_frames_used(const struct vmemi_frames *f)
{
	int64_t pages = atomic_load(&f->resident_pages) + atomic_load(&f->staging_pages);

	return (uint64_t)pages * VMEM_PAGE_SIZE + atomic_load(&f->segment_bytes) +
	       atomic_load(&f->other_bytes) + atomic_load(&f->metadata->bytes);
}

uint64_t vmemi_frames_free(const struct vmemi_frames *f)
{
	uint64_t used = vmemi_frames_used(f), budget = atomic_load(&f->budget_bytes);

	return used < budget ? budget - used : 0;
}

bool vmemi_frames_take(struct vmemi_frames *f, unsigned pages, uint64_t floor)
{
	atomic_fetch_add(&f->resident_pages, pages);
	if (atomic_load(&f->budget_bytes) == UINT64_MAX || vmemi_frames_free(f) >= floor)
		return true;
	atomic_fetch_sub(&f->resident_pages, pages);
	return false;
}

void vmemi_frames_force(struct vmemi_frames *f, unsigned pages)
{
	atomic_fetch_add(&f->resident_pages, pages);
}

void vmemi_frames_untake(struct vmemi_frames *f, unsigned pages)
{
	atomic_fetch_sub(&f->resident_pages, pages);
}

void vmemi_frames_wake(struct vmemi_frames *f)
{
	/* Before looking for waiters: who is about to wait sees that the sequence has moved. */
	atomic_fetch_add(&f->sequence, 1);
	if (atomic_load(&f->waiters))
		f->k->futex_wake(&f->sequence, INT_MAX);
}

void vmemi_frames_wait(struct vmemi_frames *f, uint32_t sequence, uint64_t timeout_ns)
{
	atomic_fetch_add(&f->waiters, 1);
	f->k->futex_wait(&f->sequence, sequence, timeout_ns);
	atomic_fetch_sub(&f->waiters, 1);
}
