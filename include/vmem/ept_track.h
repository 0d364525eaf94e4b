/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/ept_track.h
 *  Which pages a guest uses and writes, by its second-stage tables (vmem/ept.h): accessed and dirty bits, write
 *  protection, page-modification logging (PML). Their bitmaps are what vmem/track.h takes as a feed. */
#ifndef VMEM_EPT_TRACK_H
#define VMEM_EPT_TRACK_H
#include <vmem/ept.h>
VMEM_BEGIN_DECLS

/* Flags of vmem_ept_harvest(). */
#define VMEM_EPT_CLEAR_ACCESSED 1u
#define VMEM_EPT_CLEAR_DIRTY 2u
/** What processors remember stays: pages that are used go on without their bits being set again until they drop out of
 *  the TLB by themselves, and look unused so long. Nothing is owed. Not with CLEAR_DIRTY: a write would be missed for
 *  good. */
#define VMEM_EPT_STALE_FINE 4u
/** Look only below upper-level entries that are accessed; with CLEAR_ACCESSED those that lie in the range are
 *  cleared, too. What was used after the call looked there and before the invalidation was done, is found when
 *  something else below the same upper-level entry is used again. For accessed bits only: not with dirty or
 *  CLEAR_DIRTY, where nothing may be missed. */
#define VMEM_EPT_PRUNE 8u

/** Bitmaps of a range, bit i: page i of 4 KiB of it; a large leaf sets all of its bits. They are or-ed into; either
 *  may be NULL. A leaf that sticks out of the range is reported, and not cleared: what it says of its other pages
 *  would be lost. */
struct vmem_ept_harvest {
	size_t size; /**< sizeof(*this) as the caller compiled it */
	uint64_t *accessed;
	uint64_t *dirty;
	/** or, with both NULL, called for each leaf with one of the bits that are asked for (those that are cleared; with no CLEAR_*, both), whole:
	 *  @p bits VMEM_EPT_CLEAR_*. Not 0: it ends there. It may not call back. NULL, too: pages are counted */
	int (*leaf)(void *context, uint64_t gpa, uint64_t bytes, uint32_t bits);
	void *context;
	uint64_t accessed_pages; /**< out: of 4 KiB */
	uint64_t dirty_pages;    /**< out */
};

/** Read, and with CLEAR_* clear, accessed and dirty bits of a range. Each bit that a processor sets is seen by this call
 *  or a later one; of a table that vmem_ept_merge() left out, by one after vmem_ept_flushed(), which may tell again
 *  what was told since the merge. An entry of which both
 *  bits are set is cleared by a plain store: no processor writes to it. All others need an atomic operation each.
 *  change->leaves: entries that were cleared.
 *  @param gpa,bytes  multiples of 4 KiB; gpa of 64 pages with bitmaps
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG (harvest is newer than the library, and uses what is new), -VMEM_ERANGE,
 *          -VMEM_ENOTSUP (no such bits), or what leaf returned (change->at: for which leaf; change says what is owed
 *          by then)
 *  @threads serial @since 1.0 */
VMEM_API int vmem_ept_harvest(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t flags,
			      struct vmem_ept_harvest *harvest, struct vmem_ept_change *change);

/** Begin to log writes to a range by taking the right to write: leaves that may be written are remembered as such in
 *  the entry, large ones are split to @p level (1 or 2: then the range is one of 2 MiB pages) first. Those that are
 *  logged already stay as they are. What is mapped later is not logged; and what vmem_ept_protect() takes the right to
 *  read or write from, or gives that to write, is not any more, with what was known of it: collect before. Leaves that
 *  may be written without that right (VMEM_EPT_LEAF_PAGING_WRITE, _SHADOW_STACK, _SUBPAGE) cannot be logged.
 *  @return as vmem_ept_split(), and -VMEM_ENOTSUP (VMEM_EPT_NO_CAPABILITY: at is such a leaf; nothing was changed)
 *          @threads serial @since 1.0 */
VMEM_API int vmem_ept_log_start(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t level,
				struct vmem_ept_change *change) VMEM_NODISCARD;

/** A violation by a write: give the right back if it was taken for the log. Lock-free. Nothing is owed, but for VT-d
 *  the range of the leaf.
 *  @return 0 (the guest may go on; the page counts as written), -VMEM_ENOENT (it is not logged: the violation is
 *          another matter), -VMEM_ERANGE
 *  @threads any, but not beside a serial call @since 1.0 */
VMEM_API int vmem_ept_log_write(vmem_ept *ept, uint64_t gpa);

/** Which pages of a range were written since log_start or the last collect, or-ed into @p bitmap; they are protected
 *  again. A leaf that sticks out of the range is reported, and stays as written.
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE @threads serial @since 1.0 */
VMEM_API int vmem_ept_log_collect(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint64_t *bitmap,
				  struct vmem_ept_change *change);

/** Give the right back to all that it was taken from; a leaf that sticks out of the range stays in the log. For VT-d the
 *  ranges are owed.
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE @threads serial @since 1.0 */
VMEM_API int vmem_ept_log_stop(vmem_ept *ept, uint64_t gpa, uint64_t bytes,
			       struct vmem_ept_change *change);

#define VMEM_EPT_PML_ENTRIES 512u
/** Empty a PML buffer (SDM 29.3.6) into a bitmap of [gpa, gpa + bytes). The processor fills it downwards: entries
 *  index + 1 .. 511 are valid, of 511 none, and with an index beyond that (it is 16 bits and has run below 0) all.
 *  Write 511 to the VMCS afterwards. For the log to go on, dirty bits must be cleared (vmem_ept_harvest()).
 *  @param index  the guest PML index of the VMCS
 *  @param bitmap  or-ed into; pages outside the range are counted in @p ret_outside, which may be NULL
 *  @return how many entries were valid @threads any @since 1.0 */
VMEM_API uint32_t vmem_ept_pml_drain(const uint64_t *buffer, uint16_t index, uint64_t gpa,
				     uint64_t bytes, uint64_t *bitmap, uint32_t *ret_outside);

VMEM_END_DECLS
#endif
