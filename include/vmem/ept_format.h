/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/ept_format.h
 *  What second-stage page tables look like, and which of it a processor can do: Intel EPT (SDM vol. 3C, ch. 29
 *  "VMX support for address translation"), AMD nested paging (APM vol. 2, 15.25), VT-d second-stage translation (VT-d
 *  specification, ch. 3 and 9). vmem/ept.h builds such tables, vmem/ept_walk.h reads them as the processor does. */
#ifndef VMEM_EPT_FORMAT_H
#define VMEM_EPT_FORMAT_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

#define VMEM_EPT_ENTRIES 512u /**< of a table, 8 bytes each */
#define VMEM_EPT_TABLE_BYTES 4096u
#define VMEM_EPT_LEVELS 5u /**< most levels; level 1 has leaves of 4 KiB, 2 of 2 MiB, 3 of 1 GiB */

/** Bytes that one entry of a level translates. */
#define VMEM_EPT_LEVEL_BYTES(level) (UINT64_C(1) << (12 + 9 * ((level)-1)))

enum vmem_ept_format {
	VMEM_EPT_INTEL, /**< EPT, 4 or 5 levels */
	VMEM_EPT_AMD, /**< nested paging, 4 or 5 levels: entries of ordinary long-mode paging with U set */
	VMEM_EPT_VTD, /**< second stage of a DMA remapping unit, 3 to 5 levels */
	VMEM_EPT_FORMATS
};

/** What a processor may do with a page. Without mode-based execute control (MBEC) EXEC holds for all code. */
#define VMEM_EPT_READ 1u
#define VMEM_EPT_WRITE 2u
#define VMEM_EPT_EXEC 4u      /**< with MBEC: by supervisor-mode linear addresses only */
#define VMEM_EPT_EXEC_USER 8u /**< by user-mode linear addresses; MBEC only */

/** Memory types (SDM table 12-2). On AMD they choose an entry of the PAT as it is after reset; WC and WP, which that
 *  has not, are not supported there. VT-d has none: VMEM_EPT_WB. */
enum vmem_ept_type {
	VMEM_EPT_UC = 0,
	VMEM_EPT_WC = 1,
	VMEM_EPT_WT = 4,
	VMEM_EPT_WP = 5,
	VMEM_EPT_WB = 6,
};

/* Bits of an entry of Intel EPT (SDM tables 29-1 to 29-7). */
#define VMEM_EPT_INTEL_READ (UINT64_C(1) << 0)
#define VMEM_EPT_INTEL_WRITE (UINT64_C(1) << 1)
#define VMEM_EPT_INTEL_EXEC (UINT64_C(1) << 2)
#define VMEM_EPT_INTEL_TYPE_SHIFT 3u /**< 3 bits, leaves only */
#define VMEM_EPT_INTEL_IGNORE_PAT (UINT64_C(1) << 6)
#define VMEM_EPT_INTEL_LARGE (UINT64_C(1) << 7) /**< a leaf, at level 2 or 3 */
#define VMEM_EPT_INTEL_ACCESSED (UINT64_C(1) << 8)
#define VMEM_EPT_INTEL_DIRTY (UINT64_C(1) << 9)
#define VMEM_EPT_INTEL_EXEC_USER (UINT64_C(1) << 10)
#define VMEM_EPT_INTEL_VERIFY (UINT64_C(1) << 57)       /**< verify guest paging */
#define VMEM_EPT_INTEL_PAGING_WRITE (UINT64_C(1) << 58) /**< paging-write access */
#define VMEM_EPT_INTEL_SHADOW_STACK (UINT64_C(1) << 60) /**< supervisor shadow stack */
#define VMEM_EPT_INTEL_SUBPAGE (UINT64_C(1) << 61) /**< sub-page write permissions; 4 KiB leaves */
#define VMEM_EPT_INTEL_SUPPRESS_VE \
	(UINT64_C(1) << 63) /**< an EPT violation stays a VM exit; in all entries */

/* Bits of an entry of AMD nested paging (APM vol. 2, 5.3 and 15.25.5). */
#define VMEM_EPT_AMD_PRESENT (UINT64_C(1) << 0)
#define VMEM_EPT_AMD_WRITE (UINT64_C(1) << 1)
#define VMEM_EPT_AMD_USER \
	(UINT64_C(1) << 2) /**< must be set: all accesses of the guest are user accesses here */
#define VMEM_EPT_AMD_PWT (UINT64_C(1) << 3)
#define VMEM_EPT_AMD_PCD (UINT64_C(1) << 4)
#define VMEM_EPT_AMD_ACCESSED (UINT64_C(1) << 5)
#define VMEM_EPT_AMD_DIRTY (UINT64_C(1) << 6)
#define VMEM_EPT_AMD_LARGE (UINT64_C(1) << 7) /**< at level 1 this bit is the PAT bit */
#define VMEM_EPT_AMD_LARGE_PAT (UINT64_C(1) << 12)
#define VMEM_EPT_AMD_NO_EXEC (UINT64_C(1) << 63)

/* Bits of an entry of VT-d second stage (VT-d 9.8). */
#define VMEM_EPT_VTD_READ (UINT64_C(1) << 0)
#define VMEM_EPT_VTD_WRITE (UINT64_C(1) << 1)
#define VMEM_EPT_VTD_LARGE (UINT64_C(1) << 7)
#define VMEM_EPT_VTD_ACCESSED (UINT64_C(1) << 8)
#define VMEM_EPT_VTD_DIRTY (UINT64_C(1) << 9)
#define VMEM_EPT_VTD_SNOOP (UINT64_C(1) << 11) /**< leaves only */

/* Pointers besides the address of the root. EPTP: 2:0 memory type, 5:3 levels - 1, 6 accessed and dirty, 7 supervisor
 * shadow stack. nCR3: 3 and 4 PWT and PCD. VT-d: 2:0 levels - 2, as AW of a context entry, and 9 as SSADE of a PASID
 * entry. */
#define VMEM_EPT_INTEL_POINTER_LEVELS_SHIFT 3u
#define VMEM_EPT_INTEL_POINTER_AD (UINT64_C(1) << 6)
#define VMEM_EPT_INTEL_POINTER_SHADOW_STACK (UINT64_C(1) << 7)
#define VMEM_EPT_VTD_POINTER_AD (UINT64_C(1) << 9)

/** Where the address of an entry is; bits from the processor's physical-address width on are reserved. */
#define VMEM_EPT_ADDRESS UINT64_C(0x000ffffffffff000)

/* What a processor can do. */
#define VMEM_EPT_CAP_EXEC_ONLY (UINT64_C(1) << 0) /**< executable and not readable */
#define VMEM_EPT_CAP_2M (UINT64_C(1) << 1)        /**< leaves of 2 MiB */
/** Leaves of 1 GiB. Tables are built without them where there are none of 2 MiB, into which parts of them are split. */
#define VMEM_EPT_CAP_1G (UINT64_C(1) << 2)
#define VMEM_EPT_CAP_3_LEVELS (UINT64_C(1) << 3) /**< VT-d only */
#define VMEM_EPT_CAP_4_LEVELS \
	(UINT64_C(1) << 4) /**< AMD: this or the next, as the host's mode is */
#define VMEM_EPT_CAP_5_LEVELS (UINT64_C(1) << 5)
#define VMEM_EPT_CAP_AD (UINT64_C(1) << 6)        /**< accessed and dirty bits; AMD: always */
#define VMEM_EPT_CAP_MBEC (UINT64_C(1) << 7)      /**< mode-based execute control */
#define VMEM_EPT_CAP_TABLES_UC (UINT64_C(1) << 8) /**< Intel: tables may be uncached */
#define VMEM_EPT_CAP_TABLES_WB (UINT64_C(1) << 9) /**< Intel: or write-back */
#define VMEM_EPT_CAP_NO_EXEC \
	(UINT64_C(1) << 10) /**< AMD: EFER.NXE is set in the host; Intel: always */
#define VMEM_EPT_CAP_SUPPRESS_VE (UINT64_C(1) << 11)    /**< "EPT-violation #VE" is on */
#define VMEM_EPT_CAP_PML (UINT64_C(1) << 12)            /**< page-modification logging */
#define VMEM_EPT_CAP_SUBPAGE (UINT64_C(1) << 13)        /**< sub-page write permissions */
#define VMEM_EPT_CAP_SHADOW_STACK (UINT64_C(1) << 14)   /**< supervisor shadow-stack control */
#define VMEM_EPT_CAP_PAGING_WRITE (UINT64_C(1) << 15)   /**< "EPT paging-write control" */
#define VMEM_EPT_CAP_VERIFY (UINT64_C(1) << 16)         /**< "guest-paging verification" */
#define VMEM_EPT_CAP_SNOOP (UINT64_C(1) << 17)          /**< VT-d: snoop control */
#define VMEM_EPT_CAP_INVALIDATE_ONE (UINT64_C(1) << 18) /**< INVEPT, single-context */
#define VMEM_EPT_CAP_INVALIDATE_ALL (UINT64_C(1) << 19) /**< INVEPT, all contexts */
/** AMD: guest mode execute trap. Where it is on, no code runs at CPL 0 to 2 in pages with U set, as vmem/ept.h makes
 *  them all. */
#define VMEM_EPT_CAP_GMET (UINT64_C(1) << 20)

/** A processor, or DMA remapping unit. Fields are only ever added at the end. */
struct vmem_ept_capabilities {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before a call that fills it */
	uint32_t format; /**< enum vmem_ept_format */
	uint32_t
		physical_bits; /**< MAXPHYADDR: CPUID 8000_0008h EAX 7:0; VT-d: the host's; 32..52 */
	uint64_t caps;         /**< VMEM_EPT_CAP_* */
};

/** From Intel's registers.
 *  @param ept_vpid_cap   IA32_VMX_EPT_VPID_CAP, MSR 48Ch
 *  @param procbased2     secondary controls that are allowed to be 1, and that the caller turns on: high half of MSR
 *                        48Bh, masked: bit 17 PML, 18 #VE, 22 MBEC, 23 SPP count
 *  @param procbased3     tertiary controls, likewise (MSR 492h): bit 2 paging-write, 3 guest-paging verification
 *  @return 0, -VMEM_EINVAL (capabilities->size; physical_bits), -VMEM_ENOTSUP (it can do neither 4 nor 5 levels)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_ept_capabilities_intel(struct vmem_ept_capabilities *capabilities,
					 uint64_t ept_vpid_cap, uint32_t procbased2,
					 uint64_t procbased3, uint32_t physical_bits);

/** From AMD's.
 *  @param edx_1    CPUID 8000_0001h EDX: bit 26 1-GiB pages, bit 20 NX
 *  @param edx_a    CPUID 8000_000Ah EDX: bit 0 nested paging, without which it is -VMEM_ENOTSUP; bit 17 GMET
 *  @param efer     of the host: bit 11 NXE
 *  @param cr4      of the host, as it is at VMRUN: with bit 12 (LA57) nested tables have five levels, without it four
 *                  (APM vol. 2, 15.25). VMEM_EPT_CAP_4_LEVELS or _5_LEVELS tells; never both
 *  @return 0, -VMEM_EINVAL, -VMEM_ENOTSUP @threads any @since 1.0 */
VMEM_API int vmem_ept_capabilities_amd(struct vmem_ept_capabilities *capabilities, uint32_t edx_1,
				       uint32_t edx_a, uint64_t efer, uint64_t cr4,
				       uint32_t physical_bits);

/** From a DMA remapping unit's.
 *  @param cap   its capability register: 12:8 levels (SAGAW), 37:34 large pages (SLLPS)
 *  @param ecap  its extended one: bit 7 snoop control, 45 second-stage accessed and dirty
 *  @return 0, -VMEM_EINVAL, -VMEM_ENOTSUP @threads any @since 1.0 */
VMEM_API int vmem_ept_capabilities_vtd(struct vmem_ept_capabilities *capabilities, uint64_t cap,
				       uint64_t ecap, uint32_t physical_bits);

VMEM_END_DECLS
#endif
