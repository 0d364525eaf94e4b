/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/page_state.h
 *  Where a page of a region is: the states of <vmem/region.h>. */
#ifndef VMEM_PAGE_STATE_H
#define VMEM_PAGE_STATE_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

/** Where a page is. */
enum vmem_page_state {
	VMEM_PAGE_ABSENT = 0,   /**< never touched or discarded: reads as zero */
	VMEM_PAGE_SOURCE = 1,   /**< not loaded yet: its bytes are with the caller */
	VMEM_PAGE_RESIDENT = 2, /**< mapped and private to the guest */
	VMEM_PAGE_CLEAN =
		3, /**< resident, not written since it came back; its ref is still valid */
	VMEM_PAGE_SHARED = 4,   /**< mapped copy-on-write to a frame shared with other pages */
	VMEM_PAGE_STAGED = 5,   /**< taken out whole, not compressed */
	VMEM_PAGE_STORING = 6,  /**< staged, and being saved */
	VMEM_PAGE_STORED = 7,   /**< in the store */
	VMEM_PAGE_ARRIVING = 8, /**< being brought back */
	VMEM_PAGE_POISONED = 9, /**< its bytes are gone: an access is an error, never zeros */
	VMEM_PAGE_STATES = 10
};

VMEM_END_DECLS
#endif
