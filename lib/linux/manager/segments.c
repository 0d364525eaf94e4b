/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for the pool's segments: mapped one by one, so that a free segment is free for the host; kept
 * out of huge pages, core dumps and forked children; counted, and refused above the budget.
 *
 * Of the floor, two are for those that the pool keeps spare. Once it has them they are in use, and counted twice: that is slack
 * where memory is plenty, but where all is stored and nothing more can be had, guests would wait for good beside them. Then
 * the floor is less by them, until the whole of it is free again.
 *
 * A budget that was lowered below what is in use is come down to by saving, which needs segments first: then they are
 * made up to a floor above the least that has been in use since. */
#include "linux/manager/manager.h"
#include "store/store_internal.h"
#include <sys/mman.h>
#include <vmem/pool.h>

#define SPARE_MOST (2 * (uint64_t)VMEM_POOL_SEGMENT_BYTES) /* in the floor */

#ifndef MADV_POPULATE_WRITE /* 5.14; older kernels refuse it */
#define MADV_POPULATE_WRITE 23
#endif

static void *segment_alloc(void *context, size_t bytes, size_t align)
{
	struct vmemi_host *host = context;
	struct vmemi_frames *f = &host->frames;
	void *memory;

	if (align > VMEM_PAGE_SIZE)
		return NULL;
	atomic_fetch_add(&f->segment_bytes, bytes);
	if (vmemi_frames_used(f) > atomic_load(&f->segments_most) ||
	    host->k->mmap(&memory, bytes, PROT_READ | PROT_WRITE, 0)) {
		atomic_fetch_sub(&f->segment_bytes, bytes);
		return NULL;
	}
	/* Advice: what the kernel does not know is no loss. */
	host->k->madvise(memory, bytes, MADV_NOHUGEPAGE);
	host->k->madvise(memory, bytes, MADV_DONTDUMP);
	host->k->madvise(memory, bytes, MADV_DONTFORK);
	/* All of it will be written, and is counted from now on: one call instead of a fault a page. */
	host->k->madvise(memory, bytes, MADV_POPULATE_WRITE);
	return memory;
}

static void segment_free(void *context, void *memory, size_t bytes, size_t align)
{
	struct vmemi_host *host = context;

	(void)align;
	host->k->munmap(memory, bytes);
	atomic_fetch_sub(&host->frames.segment_bytes, bytes);
}

void vmemi_segments_come_down(struct vmemi_frames *f, uint64_t room)
{
	uint64_t budget = atomic_load(&f->budget_bytes), most = atomic_load(&f->segments_most);
	uint64_t now = vmemi_frames_used(f) + room;

	if (now < most)
		most = now;
	atomic_store(&f->segments_most, most > budget ? most : budget);
}

void vmemi_segments_lend(struct vmem_manager *m, bool lend)
{
	uint64_t spare = lend ? vmemi_pool_spare_bytes(m->host.store->pool) : 0;

	if (spare > SPARE_MOST)
		spare = SPARE_MOST;
	if (spare > m->floor_bytes)
		spare = m->floor_bytes;
	atomic_store(&m->host.frames.floor_bytes, m->floor_bytes - spare);
}

void vmemi_segments_init(struct vmem_allocator *a, struct vmemi_host *host)
{
	*a = (struct vmem_allocator){
		.size = sizeof(*a),
		.context = host,
		.alloc = segment_alloc,
		.free = segment_free,
	};
}
