/* SPDX-License-Identifier: BSD-2-Clause */
/* The VMM's log of pages written, as KVM_GET_DIRTY_LOG gives it, or collected from a dirty ring. */
#include "base/mem.h"
#include "linux/region/table.h"
#include <vmem/feed.h>

static size_t bytes_of(const struct vmem_region *r)
{
	return (size_t)((r->pages + 63) / 64 * sizeof(uint64_t));
}

static int has_log(const struct vmem_region *r)
{
	return r->opts.dirty_log ? 0 : -VMEM_ENOTSUP;
}

static int open_log(struct vmem_region *r)
{
	r->feed.bitmap = vmemi_bitmap_new(&r->arrays);
	return r->feed.bitmap ? 0 : -VMEM_ENOMEM;
}

static void close_log(struct vmem_region *r)
{
	vmemi_bitmap_free(&r->arrays, r->feed.bitmap);
	r->feed.bitmap = NULL;
}

static int ask_log(struct vmem_region *r)
{
	int error;

	memset(r->feed.bitmap, 0, bytes_of(r));
	error = r->opts.dirty_log(r->opts.context, r->opts.gpa, vmemi_region_bytes(r),
				  r->feed.bitmap);
	if (!error)
		vmemi_ages_saw(r, 0, r->pages, r->feed.bitmap);
	return error;
}

const struct vmemi_feed_kind vmemi_feed_dirty_log = { .name = "dirty log",
						      .number = VMEM_FEED_DIRTY_LOG,
						      .sees = VMEM_FEED_SEES_WRITES |
							      VMEM_FEED_SEES_IN_PLACE,
						      .can = has_log,
						      .open = open_log,
						      .close = close_log,
						      .ask = ask_log };
