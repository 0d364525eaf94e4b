/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/ept.h
 *  Second-stage page tables (EPT, nested paging, VT-d second stage), built and changed in memory that the caller gives.
 *  For a hypervisor that owns them; needs neither libc nor an operating system.
 *
 *  All operations are on ranges, go down once for each table, and do all or nothing: what does not fit (address width,
 *  alignment, rights that the processor has not, something else mapped there, no memory for tables) is an
 *  error, with the place and the reason in struct vmem_ept_change, and the tables are as before.
 *
 *  **Invalidation.** Processors remember translations, and parts of them. Each call that changes entries
 *  says in struct vmem_ept_change what must be invalidated before the caller may rely on the change, on all processors:
 *  by INVEPT; on AMD by a new ASID, TLB_CONTROL of the VMCB, or INVLPGB for the ASID (INVLPGA takes addresses of
 *  the guest's own paging, and does not do); for VT-d by the IOTLB. It may be put off over other calls, and done for several
 *  at a time: all of their ranges, then vmem_ept_flushed() with the last of their epochs.
 *
 *  | what changed                                         | owed                                   |
 *  |------------------------------------------------------|----------------------------------------|
 *  | not present to present; payloads                     | nothing (AMD and Intel remember no absence; VT-d with caching mode: the range) |
 *  | rights added                                         | nothing: at worst a violation more, which itself drops the old translation (VT-d: the ranges) |
 *  | rights or pages taken away, address or type changed  | the ranges; nothing where there was nothing to take; VMEM_EPT_REPLACE: all that was present, alike or not |
 *  | split: leaves alike                                  | nothing; accessed and dirty bits may still be set in the old one only until the ranges are invalidated |
 *  | merge; tables left out                               | the ranges, and all that a table translated; it is not freed before vmem_ept_flushed() |
 *  | accessed or dirty bits cleared                       | the ranges, or nothing if staleness is fine (vmem/ept_track.h) |
 *
 *  **Threads.** Serial calls (those that change ranges, vmem_ept_flushed(), vmem_ept_get_stats()) are one at a time.
 *  vmem_ept_install(), vmem_ept_log_write(), vmem_ept_translate(), _many() and vmem_ept_next() may run at the same time as
 *  each other, from any number of threads, without a lock, but not beside a serial call: tables that they read may
 *  go, or wait to, with marks in their entries. Processors may use the tables all the time: each entry changes by one
 *  store, and a table is whole before it is linked. With VMEM_EPT_AD no accessed or dirty bit that a processor sets
 *  meanwhile is lost.
 *
 *  **Entries that are not present** keep what is in them: leaves without rights their host address, payloads bits where
 *  addresses are, empty ones address 0. A processor with L1TF (no RDCL_NO in IA32_ARCH_CAPABILITIES) may let a guest
 *  read, by speculation, lines in its first-level cache of the page that such an entry names. There, vmem_ept_unmap()
 *  what a guest must not read, do not take its rights; keep nothing secret in page 0; and let payloads name no
 *  memory: bit physical_bits - 5 of a payload is the highest bit of the address, and with it set (with
 *  VMEM_EPT_INVERT_PAYLOAD: clear) nothing is named where memory ends below half of what physical_bits reach. Or empty
 *  that cache at each entry to a guest. */
#ifndef VMEM_EPT_H
#define VMEM_EPT_H
#include <vmem/allocator.h>
#include <vmem/ept_format.h>
VMEM_BEGIN_DECLS

typedef struct vmem_ept vmem_ept; /* opaque */

/** Where tables come from: pages of 4 KiB of physical memory. allocate and free are called by serial calls, and by
 *  vmem_ept_install() from any thread. */
struct vmem_ept_memory {
	size_t size; /**< sizeof(*this) as the caller compiled it */
	void *context;
	/** A page, with any contents, at a multiple of 4 KiB below physical_bits: any other is given back, and the call fails (-VMEM_ERANGE,
	 *  VMEM_EPT_HOST_WIDTH). @return 0, or an error (-VMEM_ENOMEM) that is passed on */
	int (*allocate)(void *context, uint64_t *ret_hpa);
	/** No processor knows it any more. */
	void (*free)(void *context, uint64_t hpa);
	/** Where the page at hpa can be written. NULL: at hpa + offset */
	void *(*map)(void *context, uint64_t hpa);
	uint64_t offset; /**< virtual minus physical address, modulo 2^64; without map */
};

/** Accessed and dirty bits are on (bit 6 of the EPTP; AMD: always): ranges are changed so that none is lost. */
#define VMEM_EPT_AD (UINT64_C(1) << 0)
/** What is executable is mapped by 4 KiB leaves only (CVE-2018-12207). */
#define VMEM_EPT_NO_EXEC_LARGE (UINT64_C(1) << 1)
/** Table entries are written back from the cache after each change (a DMA remapping unit that does not snoop). */
#define VMEM_EPT_WRITE_BACK (UINT64_C(1) << 2)
/** VT-d caching mode, or a hypervisor below: absence is remembered, and mapping owes the ranges, too. */
#define VMEM_EPT_CACHES_ABSENT (UINT64_C(1) << 3)
/** Bit 63 (suppress #VE) is set in entries unless a call says VMEM_EPT_LEAF_VE. Intel, with the capability. */
#define VMEM_EPT_SUPPRESS_ALL_VE (UINT64_C(1) << 4)
/** Supervisor shadow-stack accesses need VMEM_EPT_LEAF_SHADOW_STACK (bit 7 of the EPTP). Intel, with the capability.
 *  Without it, that flag of leaves would have no effect, and is -VMEM_ENOTSUP. */
#define VMEM_EPT_SHADOW_STACK (UINT64_C(1) << 5)
/** The bits of payloads that are where addresses are (51:12) are kept inverted, so that small payloads name no memory
 *  to a processor with L1TF. */
#define VMEM_EPT_INVERT_PAYLOAD (UINT64_C(1) << 6)

/** Options. Fields are only ever added at the end. */
struct vmem_ept_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< VMEM_EPT_*; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator
		*allocator; /**< for the object itself. NULL: libc (freestanding: -VMEM_EINVAL) */
	const struct vmem_ept_capabilities *capabilities;
	const struct vmem_ept_memory *memory;
	/** 3..5; 0: 4 if the processor can, else 3, else 5. AMD: those of the host's mode, which capabilities tell; 0 with
	 *  both of 4 and 5 there is -VMEM_EINVAL. */
	uint32_t levels;
	uint32_t guest_bits; /**< guest physical addresses; 0: what the levels reach (39, 48, 57) */
	uint64_t max_tables; /**< quota, the root included; 0: none */
};

/** Make tables that map nothing: one page, the root.
 *  @param[out] ret_ept  set only on success
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOTSUP (the processor cannot do what is asked), -VMEM_ENOMEM,
 *          -VMEM_ERANGE (the root is where it cannot be)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_ept_new(vmem_ept **ret_ept, const struct vmem_ept_opts *opts) VMEM_NODISCARD;

/** Free it and all tables: no processor may use them any more. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_ept_free(vmem_ept *ept);

/** What to load: the EPTP (write-back tables if the processor can, levels, A/D, shadow stacks), nCR3, or the
 *  second-stage table pointer with the address width in the low bits as a context entry has it (AW), and with
 *  VMEM_EPT_AD bit 9, as a PASID entry has it (SSADE). nCR3 says nothing of levels: run guests on it with CR4.LA57 of
 *  the host as it was when the capabilities were taken, or a guest's own memory is walked as a table.
 *  @threads any @since 1.0 */
VMEM_API uint64_t vmem_ept_pointer(const vmem_ept *ept);

/** What the caller owes after a call, and why a call failed. */
#define VMEM_EPT_RANGES 4u
enum vmem_ept_flush {
	VMEM_EPT_FLUSH_NONE,
	VMEM_EPT_FLUSH_RANGES, /**< those in ranges; INVEPT of the context does it, too */
	VMEM_EPT_FLUSH_ALL, /**< the whole context: no call says so; for what callers collect of several */
};
enum vmem_ept_reason {
	VMEM_EPT_FINE,
	VMEM_EPT_UNALIGNED, /**< gpa, hpa or bytes are no multiple of 4 KiB, or of more where the call asks for it; bytes is 0 */
	VMEM_EPT_GUEST_WIDTH,   /**< beyond guest_bits, or around the end of 2^64 */
	VMEM_EPT_HOST_WIDTH,    /**< beyond physical_bits */
	VMEM_EPT_BAD_RIGHTS,    /**< no processor can: write without read */
	VMEM_EPT_NO_RIGHTS,     /**< this one cannot: execute-only, user-execute, not executable */
	VMEM_EPT_BAD_TYPE,      /**< of memory */
	VMEM_EPT_NO_CAPABILITY, /**< a bit or size of leaves that this format or processor has not */
	VMEM_EPT_MAPPED,        /**< something is mapped there */
	VMEM_EPT_ABSENT,        /**< nothing is */
	VMEM_EPT_NO_MEMORY,     /**< for tables */
	VMEM_EPT_QUOTA,         /**< max_tables */
	VMEM_EPT_UNLIKE, /**< merge, which succeeds: entries are not alike, or not in a row; at: of the first table that stays so */
	VMEM_EPT_BAD_CALL, /**< a flag, level or payload that the call has not, no pointer where it needs one, a structure too new */
};
struct vmem_ept_range {
	uint64_t gpa;
	uint64_t bytes;
};
/** Fields are only ever added at the end. */
struct vmem_ept_change {
	size_t size;          /**< sizeof(*this) as the caller compiled it; set before the call */
	uint32_t flush;       /**< enum vmem_ept_flush */
	uint32_t range_count; /**< for VMEM_EPT_FLUSH_RANGES; rising, disjoint */
	struct vmem_ept_range ranges[VMEM_EPT_RANGES];
	uint64_t
		epoch; /**< not 0: tables wait; when the flush is done everywhere, vmem_ept_flushed(ept, epoch) */
	uint64_t
		leaves; /**< entries that were written, also as they were; what is in tables that go whole is not counted */
	uint32_t reason; /**< enum vmem_ept_reason */
	uint64_t at;     /**< gpa: where */
};

/* What a leaf says besides its address. */
#define VMEM_EPT_LEAF_IGNORE_PAT (1u << 0)
#define VMEM_EPT_LEAF_ACCESSED (1u << 1) /**< set beforehand, which saves the processor a write */
#define VMEM_EPT_LEAF_DIRTY (1u << 2)
#define VMEM_EPT_LEAF_VE \
	(1u << 3) /**< bit 63 clear: violations may become #VE; see VMEM_EPT_SUPPRESS_ALL_VE */
#define VMEM_EPT_LEAF_VERIFY (1u << 4)
/* These three let a page be written in part, or by some accesses, without VMEM_EPT_WRITE. They stay when rights are taken. */
#define VMEM_EPT_LEAF_PAGING_WRITE (1u << 5)
#define VMEM_EPT_LEAF_SHADOW_STACK (1u << 6)
#define VMEM_EPT_LEAF_SUBPAGE (1u << 7)
#define VMEM_EPT_LEAF_SNOOP (1u << 8)
/** A value, and part of others: it does not grow. What more there is to say of leaves will have calls of its own. */
struct vmem_ept_leaf {
	uint64_t hpa;
	uint32_t rights; /**< VMEM_EPT_READ ..., not 0 */
	uint32_t type;   /**< enum vmem_ept_type */
	uint32_t flags;  /**< VMEM_EPT_LEAF_* */
	uint32_t
		level; /**< out: 1..3. In, for map: the largest leaves wanted; 0: as large as fits */
};

/** Flags of vmem_ept_map(). */
#define VMEM_EPT_REPLACE 1u /**< what is mapped there is replaced */

/** Map [gpa, gpa + bytes) to [leaf->hpa, ...), by the largest leaves that alignment, the processor and leaf->level
 *  allow. Payloads of not-present entries are overwritten; what is present is refused unless VMEM_EPT_REPLACE.
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE (widths), -VMEM_ENOTSUP, -VMEM_EEXIST, -VMEM_ENOSPC (quota), -VMEM_ENOMEM:
 *          change->reason says more
 *  @threads serial @since 1.0 */
VMEM_API int vmem_ept_map(vmem_ept *ept, uint64_t gpa, uint64_t bytes,
			  const struct vmem_ept_leaf *leaf, uint32_t flags,
			  struct vmem_ept_change *change) VMEM_NODISCARD;

/** Take the mapping of a range away; holes are fine. Leaves that stick out are split first, which may need tables.
 *  Tables that become empty wait in the epoch. Payloads in the range go, too.
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_ENOSPC, -VMEM_ENOMEM @threads serial @since 1.0 */
VMEM_API int vmem_ept_unmap(vmem_ept *ept, uint64_t gpa, uint64_t bytes,
			    struct vmem_ept_change *change) VMEM_NODISCARD;

/** Take rights @p clear from, then give rights @p set to what is mapped in a range; holes and payloads stay. What has
 *  no rights left stays mapped, as an entry that remembers its address and has a payload's bits in no case: it is not
 *  present to the processor and vmem_ept_translate() gives it with rights 0. What else lets write
 *  (VMEM_EPT_LEAF_PAGING_WRITE, _SHADOW_STACK, _SUBPAGE) stays: without VMEM_EPT_WRITE it is what holds. With
 *  VMEM_EPT_NO_EXEC_LARGE large leaves that become executable are split.
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_ENOTSUP (of the resulting rights some are not possible),
 *          -VMEM_ENOSPC, -VMEM_ENOMEM
 *  @threads serial @since 1.0 */
VMEM_API int vmem_ept_protect(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t clear,
			      uint32_t set, struct vmem_ept_change *change) VMEM_NODISCARD;

/** Change memory type and IGNORE_PAT (of @p flags) of what is mapped in a range. @return as vmem_ept_protect()
 *  @threads serial @since 1.0 */
VMEM_API int vmem_ept_set_type(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t type,
			       uint32_t flags, struct vmem_ept_change *change) VMEM_NODISCARD;

/** Split what is mapped in a range into leaves of @p level (1 or 2) and below, all bits kept; smaller ones stay.
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_ENOSPC, -VMEM_ENOMEM @threads serial @since 1.0 */
VMEM_API int vmem_ept_split(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t level,
			    struct vmem_ept_change *change) VMEM_NODISCARD;

/** Merge tables of which all 512 entries are leaves in a row and alike (but for accessed and dirty, which are joined
 *  by or) into leaves of up to @p level (2 or 3), where they are; those that are not stay. change->leaves tells how
 *  many were made.
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_ENOTSUP (such leaves) @threads serial @since 1.0 */
VMEM_API int vmem_ept_merge(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t level,
			    struct vmem_ept_change *change) VMEM_NODISCARD;

#define VMEM_EPT_PAYLOAD_BITS 58u
/** Leave a note in the not-present entries of a range (a reference into a store, a balloon's mark): one for each 4 KiB,
 *  @p payload + i * @p step for page i. What is mapped there is refused unless VMEM_EPT_REPLACE. With step 0 large
 *  ranges take one entry of an upper level, which is divided when a part of it changes.
 *  @return as vmem_ept_map(); -VMEM_EINVAL (more than 58 bits, also of the last) @threads serial @since 1.0 */
VMEM_API int vmem_ept_set_payload(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint64_t payload,
				  uint64_t step, uint32_t flags,
				  struct vmem_ept_change *change) VMEM_NODISCARD;

/** Map one page, or one 2M or 1G leaf (leaf->level; 0 is 1), where nothing is present: what a violation asks for.
 *  Lock-free, also against itself: of two that install at the same place one wins. Nothing is owed, but with
 *  VMEM_EPT_CACHES_ABSENT the range of the leaf. A call that fails has changed nothing.
 *  @param expected  NULL: nothing or any payload may be there; else exactly this payload (UINT64_MAX: nothing at all)
 *  @return 0, -VMEM_EEXIST (somebody was first, or a table is there), -VMEM_EAGAIN (another payload than expected),
 *          -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_ENOTSUP, -VMEM_ENOSPC (of the quota: while another installs, this may
 *          pass), -VMEM_ENOMEM
 *  @threads any, but not beside a serial call @since 1.0 */
VMEM_API int vmem_ept_install(vmem_ept *ept, uint64_t gpa, const struct vmem_ept_leaf *leaf,
			      const uint64_t *expected) VMEM_NODISCARD;

/** All invalidations owed by changes up to @p epoch are done, everywhere: tables that waited for them are freed.
 *  @threads serial @since 1.0 */
VMEM_API void vmem_ept_flushed(vmem_ept *ept, uint64_t epoch);

/** What is at a place. Writes to no table.
 *  @param[out] ret_leaf  hpa is that of @p gpa itself, not of the leaf
 *  @param[out] ret_payload  on -VMEM_ENOENT: the payload, or UINT64_MAX: none; may be NULL
 *  @return 0, -VMEM_ENOENT (nothing is mapped), -VMEM_ERANGE
 *  @threads any, but not beside a serial call @since 1.0 */
VMEM_API int vmem_ept_translate(const vmem_ept *ept, uint64_t gpa, struct vmem_ept_leaf *ret_leaf,
				uint64_t *ret_payload);

/** What is at each of @p count places, in any order: faster than one by one, because the entries come from memory side
 *  by side.
 *  @param[out] ret_leaves  as many; all 0 (level too) where nothing is mapped, or which is beyond the guest's width
 *  @return how many of them are mapped
 *  @threads any, but not beside a serial call @since 1.0 */
VMEM_API size_t vmem_ept_translate_many(const vmem_ept *ept, const uint64_t *gpas, size_t count,
					struct vmem_ept_leaf *ret_leaves);

/** A run of leaves in a row with the same properties and level, or of payloads in steps of 1 or 0. */
struct vmem_ept_run {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t gpa;
	uint64_t bytes;
	struct vmem_ept_leaf leaf; /**< of its first byte; rights 0 and level 0: a payload */
	uint64_t payload;          /**< UINT64_MAX: it is mapped */
	uint64_t step;             /**< of payloads, for each 4 KiB */
};
/** The first run at or after @p gpa, cut there. Holes are passed over by tables.
 *  @return 0, -VMEM_ENOENT (no more), -VMEM_ERANGE, -VMEM_EINVAL @threads any, but not beside a serial call @since 1.0 */
VMEM_API int vmem_ept_next(const vmem_ept *ept, uint64_t gpa, struct vmem_ept_run *ret_run);

/** Most tables that mapping a range of @p bytes anywhere may need, whatever is there, the root left out: by leaves
 *  like @p leaf, as vmem_ept_map() would make them of its rights, flags and level, with gpa and hpa that differ by a
 *  multiple of their size. NULL: by leaves of 4 KiB, or payloads; as many do for what is mapped and split later, also
 *  because vmem_ept_protect() makes it executable with VMEM_EPT_NO_EXEC_LARGE.
 *  @threads any @since 1.0 */
VMEM_API uint64_t vmem_ept_worst_case(const vmem_ept *ept, uint64_t bytes,
				      const struct vmem_ept_leaf *leaf);

struct vmem_ept_stats {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t tables[VMEM_EPT_LEVELS]; /**< [0] those of level 1 */
	uint64_t leaves[VMEM_EPT_LEVELS]; /**< present, by level */
	uint64_t payloads;                /**< in pages of 4 KiB */
	uint64_t waiting;                 /**< tables that wait for vmem_ept_flushed() */
	uint64_t installs_lost;           /**< vmem_ept_install() that met another */
};
/** Counted as changes are made. @return 0, -VMEM_EINVAL (stats->size) @threads serial @since 1.0 */
VMEM_API int vmem_ept_get_stats(const vmem_ept *ept, struct vmem_ept_stats *stats);

VMEM_END_DECLS
#endif
