/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/snapshot_source.h
 *  A region whose pages come from a snapshot when they are touched: the VM starts at once, however large it is, and
 *  within any budget. Linux only.
 *
 *  The snapshot is what vmem_snapshot_save() wrote (<vmem/snapshot.h>), where it can be read at any place: a file.
 *  vmem_snapshot_open() goes over the heads of its frames, once, and keeps 24 bytes of each (up to 16 pages with
 *  contents); contents are read when they are asked for, and each page is checked by its sum then.
 *
 *      vmem_snapshot_open(&snapshot, &opts);       opts.read_at: pread()
 *      vmem_region_alloc(&region, manager, &o);    o.read_source: returns vmem_snapshot_read_page(snapshot, gpa, buffer)
 *      vmem_snapshot_restore(snapshot, region);
 *      ...                                         the guest runs; vmem_region_fetch() brings what is known to be needed
 *      vmem_region_detach(region, how);
 *      vmem_snapshot_close(snapshot);
 *
 *  If the file stays as it is until then, o.flags may have VMEM_REGION_SOURCE_STAYS: pages that are not written take
 *  nothing in the store. */
#ifndef VMEM_SNAPSHOT_SOURCE_H
#define VMEM_SNAPSHOT_SOURCE_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/region.h>
VMEM_BEGIN_DECLS

typedef struct vmem_snapshot vmem_snapshot; /* opaque */

/** Options. Fields are only ever added at the end. */
struct vmem_snapshot_open_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0 */

	/** Give exactly @p count bytes, at most 4096, from @p offset of the snapshot on. No lock is held, and it may
	 *  block; called by any thread that reads pages, by several at a time. It must not touch guest memory.
	 *  @return 1, 0 (the snapshot ends before that), or a negative error */
	int (*read_at)(void *context, uint64_t offset, void *bytes, size_t count);
	void *context;                          /**< for read_at */
	const struct vmem_allocator *allocator; /**< NULL: libc; must outlive the snapshot */
};

/** What a snapshot holds. */
struct vmem_snapshot_info {
	size_t size;         /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t gpa;        /**< of the region */
	uint64_t bytes;      /**< of the region */
	uint64_t pages;      /**< with contents */
	uint64_t pages_same; /**< of one repeated word, not 0 */
	uint64_t pages_lost; /**< whose bytes were gone */
	uint64_t frames;     /**< of which 24 bytes are kept each */
};

/** Open a snapshot. It need not be trusted: whatever it says, an error is all that comes of it (sums find
 *  damage, not malice).
 *  @param[out] ret_snapshot  set only on success
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_EBADMSG (no snapshot, damaged or cut short),
 *          -VMEM_ENOTSUP (of another version), or what read_at returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_snapshot_open(vmem_snapshot **ret_snapshot,
				const struct vmem_snapshot_open_opts *opts) VMEM_NODISCARD;

/** Close it. Regions that read from it must be detached. NULL: nothing. @threads exclusive @since 1.0 */
VMEM_API void vmem_snapshot_close(vmem_snapshot *snapshot);

/** What it holds. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_snapshot_get_info(const vmem_snapshot *snapshot, struct vmem_snapshot_info *info);

/** Read a page, checked; what the snapshot says nothing about is zeros. For vmem_region_opts.read_source: an error
 *  here is a page lost there, poisoned and never zeros.
 *  @param gpa  page-aligned
 *  @param page  one page; its bytes are undefined after an error
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_EIO (its bytes were gone when it was saved), -VMEM_EBADMSG (it is
 *          damaged, or not what was opened), or what read_at returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_snapshot_read_page(const vmem_snapshot *snapshot, uint64_t gpa,
				     void *page) VMEM_NODISCARD;

/** Say that the pages of a region that was just attached, and that is absent as a whole, are in a snapshot of one with the
 *  same guest physical addresses: they are with the region's source from now on (<vmem/source.h>). What is zeros
 *  there stays absent, and what was lost there is poisoned. No page is read.
 *  @return 0, -VMEM_EINVAL (the region has no read_source), -VMEM_ERANGE (another region's),
 *          -VMEM_EEXIST (not all of the region is absent: VMEM_REGION_FROM_SOURCE is not needed)
 *  @threads any, but not in a callback; the guest does not run yet
 *  @since 1.0 */
VMEM_API int vmem_snapshot_restore(const vmem_snapshot *snapshot,
				   vmem_region *region) VMEM_NODISCARD;

VMEM_END_DECLS
#endif
