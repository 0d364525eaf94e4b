/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory by its bytes, without faults: see content.c. For any thread that may wait. */
#ifndef VMEMI_CONTENT_H
#define VMEMI_CONTENT_H
#include "linux/region/table.h"

/* Copies a page as it is at one moment into a buffer of the library's, and tells where it was; it stays
 * there. Waits while somebody is at it. 0, -VMEM_EIO (its bytes are gone). */
int vmemi_content_read(struct vmem_region *r, uint64_t page, void *buffer,
		       enum vmem_page_state *ret_was);

/* Puts up to @count pages that are away (but for staged ones) in place, over what they were, in order, while
 * that leaves @floor bytes free. Returns how many; 0 with *@ret_error 0: not now. -VMEM_EIO. */
unsigned vmemi_content_fill(struct vmem_region *r, uint64_t page, uint64_t count, const void *data,
			    uint64_t floor, int *ret_error);

/* Puts an absent page into the store. @data aligned to 8. 0, -VMEM_EAGAIN (somebody is at it), -VMEM_EEXIST
 * (it is not absent), or as vmem_store_save(). */
int vmemi_content_store(struct vmem_region *r, uint64_t page, const void *data);

#endif
