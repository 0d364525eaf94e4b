/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/ept_walk.h
 *  A page walker in software: answers for given tables and a given access what the processor would. It shares nothing
 *  with the builder (vmem/ept.h) but the bits of vmem/ept_format.h, so that it can judge it; and works on any tables,
 *  also hostile ones. Sources: SDM vol. 3C 29.3 (EPT: translation, misconfigurations 29.3.3.1, violations 29.3.3.2,
 *  sub-page permissions 29.3.4, accessed and dirty 29.3.5), table 28-7 (exit qualification); APM vol. 2 15.25 (nested
 *  paging, 15.25.6 nested page faults) and the guest mode execute trap; VT-d specification 3.7, 9.8. */
#ifndef VMEM_EPT_WALK_H
#define VMEM_EPT_WALK_H
#include <vmem/ept_format.h>
VMEM_BEGIN_DECLS

/** How the walker reaches tables. Physical addresses come from the tables: they may be anything below physical_bits. */
struct vmem_ept_view {
	size_t size; /**< sizeof(*this) as the caller compiled it */
	void *context;
	/** @return 0, or not: there is no memory (VMEM_EPT_WALK_NO_TABLE) */
	int (*read)(void *context, uint64_t hpa, uint64_t *ret_entry);
	/** Set bits of an entry as processors do, in one step: if it is still @p expected, it becomes expected | bits.
	 *  NULL: accessed and dirty bits are not set.
	 *  @return 0, 1 (it has changed: the walk begins again), or less (VMEM_EPT_WALK_NO_TABLE) */
	int (*set)(void *context, uint64_t hpa, uint64_t expected, uint64_t bits);
};

/** The context of an access: controls that are on. Those that the processor has not are refused. */
#define VMEM_EPT_WALK_MBEC (1u << 0)         /**< Intel: mode-based execute control */
#define VMEM_EPT_WALK_VE (1u << 1)           /**< Intel: EPT-violation #VE */
#define VMEM_EPT_WALK_SUBPAGE (1u << 2)      /**< Intel: sub-page write permissions */
#define VMEM_EPT_WALK_PAGING_WRITE (1u << 3) /**< Intel: EPT paging-write control */
#define VMEM_EPT_WALK_VERIFY (1u << 4)       /**< Intel: guest-paging verification */
#define VMEM_EPT_WALK_5_LEVELS (1u << 5)     /**< AMD: CR4.LA57 of the host; nCR3 does not tell */
/** AMD: guest mode execute trap, with VMEM_EPT_CAP_NO_EXEC only. In pages with U set in all entries code runs at
 *  CPL 3 alone, in others at any; data are read and written whatever U is. */
#define VMEM_EPT_WALK_GMET (1u << 6)

enum vmem_ept_access_kind {
	VMEM_EPT_ACCESS_READ,
	VMEM_EPT_ACCESS_WRITE,
	VMEM_EPT_ACCESS_FETCH,
	/** A table of the guest is read by its page walk; with A/D bits on that is a write, too (29.3.3.2). */
	VMEM_EPT_ACCESS_GUEST_TABLE,
	/** Accessed or dirty bits are set there. */
	VMEM_EPT_ACCESS_GUEST_TABLE_WRITE,
	/** To a shadow stack; not VT-d. Those that are not by user mode are to supervisor shadow-stack pages
	 *  only, if bit 7 of the EPTP is set: all entries let read, all but the leaf's let write, and bit 60 of that one is
	 *  set. All others need what other reads and writes need. */
	VMEM_EPT_ACCESS_SHADOW_STACK,
	VMEM_EPT_ACCESS_SHADOW_STACK_WRITE,
};

struct vmem_ept_access {
	size_t size; /**< sizeof(*this) as the caller compiled it */
	uint64_t gpa;
	uint32_t kind;      /**< enum vmem_ept_access_kind */
	uint32_t user;      /**< 1: by a user-mode linear address */
	uint32_t no_linear; /**< 1: there is no linear address (loading PDPTEs) */
	uint32_t context;   /**< VMEM_EPT_WALK_* */
	uint64_t
		pointer; /**< EPTP, nCR3 or the second-stage pointer, as vmem_ept_pointer() gives it */
	/** 1: of the guest's tables that led to this address, one is in a page without VMEM_EPT_INTEL_PAGING_WRITE;
	 *  VMEM_EPT_WALK_VERIFY makes that a violation for leaves that want it. */
	uint32_t unverified;
	/** The sub-page permission table, for VMEM_EPT_WALK_SUBPAGE: SPPTP. 0: it is not known */
	uint64_t subpage_pointer;
};

enum vmem_ept_outcome {
	VMEM_EPT_WALK_OK,
	VMEM_EPT_WALK_VIOLATION, /**< Intel: EPT violation; AMD: nested page fault; VT-d: fault */
	VMEM_EPT_WALK_MISCONFIG, /**< Intel: EPT misconfiguration; AMD: nested page fault with RSV; VT-d: reserved field */
	VMEM_EPT_WALK_BAD_POINTER, /**< VM entry would fail */
	VMEM_EPT_WALK_NO_TABLE,    /**< view->read or view->set failed, or set said 1 too often */
	/** A write that the sub-page permission table decides (SDM 29.3.4), of which access->subpage_pointer says nothing,
	 *  or at an address beyond the 48 bits of its four levels */
	VMEM_EPT_WALK_SUBPAGE_TABLE,
	VMEM_EPT_WALK_SUBPAGE_MISS, /**< SPP-related event, exit reason 66: an entry is not valid */
	VMEM_EPT_WALK_SUBPAGE_MISCONFIG, /**< likewise: bits are set in an entry that must not be */
};

/** Why it is misconfigured, or the pointer bad. */
enum vmem_ept_misconfig {
	VMEM_EPT_WELL,
	VMEM_EPT_WRITE_ONLY, /**< 010b */
	VMEM_EPT_WRITE_EXEC, /**< 110b */
	VMEM_EPT_EXEC_ONLY,  /**< 100b, where that is not supported */
	VMEM_EPT_RESERVED_BITS, /**< in the entry's bits: a table's 7:3, a leaf's address below its size, or such */
	VMEM_EPT_ADDRESS_WIDTH,     /**< an address beyond physical_bits */
	VMEM_EPT_RESERVED_TYPE,     /**< memory type 2, 3 or 7 */
	VMEM_EPT_LARGE_UNSUPPORTED, /**< a leaf of a size that is not supported */
	VMEM_EPT_POINTER_TYPE,
	VMEM_EPT_POINTER_LEVELS,
	VMEM_EPT_POINTER_AD,
	VMEM_EPT_POINTER_RESERVED, /**< or of the SPPTP */
};

/* Bits of an exit qualification for EPT violations (SDM table 28-7). Bits 9 to 12 and 16, which tell of the guest (its
 * own paging, an IRET, accesses beside its instructions), are 0 here. */
#define VMEM_EPT_QUAL_READ (UINT64_C(1) << 0)
#define VMEM_EPT_QUAL_WRITE (UINT64_C(1) << 1)
#define VMEM_EPT_QUAL_FETCH (UINT64_C(1) << 2)
#define VMEM_EPT_QUAL_READABLE (UINT64_C(1) << 3) /**< the AND of bit 0 of all entries used */
#define VMEM_EPT_QUAL_WRITABLE (UINT64_C(1) << 4)
#define VMEM_EPT_QUAL_EXECUTABLE (UINT64_C(1) << 5)
#define VMEM_EPT_QUAL_EXECUTABLE_USER (UINT64_C(1) << 6) /**< with MBEC, else 0 here (undefined) */
#define VMEM_EPT_QUAL_LINEAR_VALID (UINT64_C(1) << 7)
#define VMEM_EPT_QUAL_TRANSLATED \
	(UINT64_C(1) << 8) /**< the access itself, not a table of the guest */
#define VMEM_EPT_QUAL_SHADOW_STACK (UINT64_C(1) << 13) /**< the access is to a shadow stack */
/** Bit 60 of the leaf, if bit 7 of the EPTP is set and there is a leaf; else 0 here (undefined). */
#define VMEM_EPT_QUAL_SHADOW_STACK_PAGE (UINT64_C(1) << 14)
#define VMEM_EPT_QUAL_VERIFY (UINT64_C(1) << 15) /**< by guest-paging verification */
/** Of an SPP-related event: a miss; 0: a misconfiguration. */
#define VMEM_EPT_QUAL_SUBPAGE_MISS (UINT64_C(1) << 11)

/* Bits of EXITINFO1 of a nested page fault (APM vol. 2, 15.25.6). */
#define VMEM_EPT_NPF_PRESENT \
	(UINT64_C(1) << 0) /**< processors may leave it out for tables of the guest */
#define VMEM_EPT_NPF_WRITE (UINT64_C(1) << 1)
#define VMEM_EPT_NPF_USER \
	(UINT64_C(1) << 2) /**< all accesses but, with GMET, the guest's own at CPL 0 to 2 */
#define VMEM_EPT_NPF_RESERVED (UINT64_C(1) << 3)
#define VMEM_EPT_NPF_FETCH (UINT64_C(1) << 4)
#define VMEM_EPT_NPF_SHADOW_STACK (UINT64_C(1) << 6)
#define VMEM_EPT_NPF_FINAL (UINT64_C(1) << 32)
#define VMEM_EPT_NPF_GUEST_TABLE (UINT64_C(1) << 33)

struct vmem_ept_walked {
	size_t size;        /**< sizeof(*this) as the caller compiled it; set before the call */
	uint32_t outcome;   /**< enum vmem_ept_outcome */
	uint32_t misconfig; /**< enum vmem_ept_misconfig */
	uint32_t level;     /**< where the walk ended: of the leaf, or of the entry at fault */
	/** VMEM_EPT_READ ...: the AND of all entries used. AMD with GMET: VMEM_EPT_EXEC is at CPL 0 to 2, _EXEC_USER at 3 */
	uint32_t rights;
	uint32_t
		type; /**< enum vmem_ept_type, of the leaf: what the guest's PAT makes of it comes on top */
	uint32_t ignore_pat;
	uint64_t hpa;           /**< of the access: WALK_OK */
	uint64_t bytes;         /**< of the leaf */
	uint64_t qualification; /**< VMEM_EPT_QUAL_*, or EXITINFO1 */
	/** 1: the violation is convertible (SDM 26.5.7.1): if the guest is ready for #VE, that is delivered instead of a
	 *  VM exit */
	uint32_t virtualization_exception;
	uint32_t
		logged; /**< 1: it set a dirty bit that was clear (PML logs it), or would, without view->set */
	uint64_t entries[VMEM_EPT_LEVELS]; /**< [level - 1]: as read, before bits were set */
	uint64_t entry_hpa[VMEM_EPT_LEVELS];
	uint64_t subpage_entry; /**< of the sub-page permission table: where that walk ended */
	uint32_t subpage_level; /**< 4..1; 0: it was not looked at */
};

/** Walk for one access. Rights are judged when the leaf is reached, so that what is not present or misconfigured
 *  comes first, from the top (SDM 29.3.3.3). Accessed bits are set top-down and the dirty bit last, all only
 *  if the access is allowed; processors may also set accessed bits of upper entries when it is not.
 *  An address beyond what the levels reach is a violation, without an entry. An access is at one address: one that
 *  lies in two pages, or writes to two sub-pages (128 bytes each), is a walk for each. Not modelled, and taken as off:
 *  AMD's supervisor shadow-stack check and its read-only guest page tables (bits 4 and 6 at 090h of the VMCB).
 *  @return 0 (walked says what came of it), -VMEM_EINVAL (sizes; kinds that are unknown, or that the format has not; a
 *          context that the processor has not),
 *          -VMEM_E2BIG (a structure is newer than the library, and uses what is new)
 *  @threads any @since 1.0 */
VMEM_API int vmem_ept_walk(const struct vmem_ept_capabilities *capabilities,
			   const struct vmem_ept_view *view, const struct vmem_ept_access *access,
			   struct vmem_ept_walked *ret_walked);

/** What vmem_ept_check() finds wrong. */
enum vmem_ept_defect {
	VMEM_EPT_SOUND,
	VMEM_EPT_DEFECT_POINTER,
	VMEM_EPT_DEFECT_MISCONFIGURED, /**< an entry that is present and would be a misconfiguration */
	VMEM_EPT_DEFECT_NO_TABLE,      /**< a table outside memory */
	VMEM_EPT_DEFECT_SHARED_TABLE, /**< linked from two places, or from itself */
	VMEM_EPT_DEFECT_EMPTY_TABLE, /**< a table in which nothing is present and nothing noted; with VMEM_EPT_CHECK_TIGHT */
	VMEM_EPT_DEFECT_DIRTY_ONLY, /**< a leaf that is dirty and not accessed; with VMEM_EPT_CHECK_DIRTY */
	VMEM_EPT_DEFECT_VE, /**< not present or a leaf, without bit 63; with VMEM_EPT_CHECK_VE */
};
#define VMEM_EPT_CHECK_TIGHT 1u
#define VMEM_EPT_CHECK_VE 2u       /**< Intel */
#define VMEM_EPT_CHECK_DIRTY 4u    /**< with accessed and dirty bits on */
#define VMEM_EPT_CHECK_5_LEVELS 8u /**< AMD: as VMEM_EPT_WALK_5_LEVELS */

struct vmem_ept_checked {
	size_t size;        /**< sizeof(*this) as the caller compiled it; set before the call */
	uint32_t defect;    /**< enum vmem_ept_defect: the first */
	uint32_t misconfig; /**< enum vmem_ept_misconfig */
	uint32_t level; /**< of the entry; of a table that is missing, shared or empty, its own */
	uint64_t gpa;   /**< the first that the entry, or table, translates */
	uint64_t entry; /**< or what refers to the table; 0: the pointer does */
	uint64_t tables[VMEM_EPT_LEVELS]; /**< counted up to there */
	uint64_t leaves[VMEM_EPT_LEVELS];
	uint64_t noted; /**< entries that are not present and not 0 (bit 63 left out) */
};

/** Look at whole trees of tables, each entry once, without recursion, in rising order of addresses. What
 *  the processor has (MBEC) counts as on.
 *  @param seen  one call a table, before it is looked into, with the context of the view, to find those that are
 *               linked twice: returns 1 if it was called with that address before. NULL: only tables that are linked
 *               from below themselves are found, and a hostile tree may take 512^4 tables' time
 *  @return 0 (checked says what it is), -VMEM_EINVAL, -VMEM_E2BIG
 *  @threads any @since 1.0 */
VMEM_API int vmem_ept_check(const struct vmem_ept_capabilities *capabilities,
			    const struct vmem_ept_view *view, uint64_t pointer, uint32_t flags,
			    int (*seen)(void *context, uint64_t hpa),
			    struct vmem_ept_checked *ret_checked);

VMEM_END_DECLS
#endif
