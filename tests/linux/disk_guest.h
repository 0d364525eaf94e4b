/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest with a disk, whose VMM maps what the guest reads, or reads it into its memory and says so. What it is made of
 * has short names: it is all that such a test is about.
 *
 * A block of the disk is a page; what is in it is text by its number and its version. */
#ifndef VMEMT_DISK_GUEST_H
#define VMEMT_DISK_GUEST_H
#include "linux/guest.h"
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(9) << 30)
#define PAGES_MAX 4096
#define BLOCKS 8192
#define AT_ONCE 16               /* pages that are touched at once, at most */
#define DISK (UINT64_C(1) << 20) /* numbers of blocks, which are those of no page */

extern struct vmemt_cpu cpu;
extern vmem_manager *manager;
extern vmem_region *region;
extern unsigned char *base;
extern _Atomic uint64_t source_reads; /* atomic; blocks that the source was asked for */
extern uint64_t
	unsaid; /* pages that were not in place any more when they were said to be the same */

struct vmemt_disk {
	uint64_t budget, pages;
	uint64_t flags; /* besides SOURCE_STAYS */
	uint32_t around;
	struct vmem_device *device; /* where stored pages go; NULL: nowhere */
};

void vmemt_disk_make(struct vmemt_disk how);
void vmemt_disk_end(void);

/* The guest reads @count blocks into its pages from @page on: by mapping them; or in truth, as read(2) does it, and the
 * VMM says that they are the same. */
void vmemt_disk_map(uint64_t page, uint64_t block, uint64_t count);
void vmemt_disk_read(uint64_t page, uint64_t block, uint64_t count);
/* As read(2) does it, of which nothing is said. */
void vmemt_disk_copy(uint64_t page, uint64_t block, uint64_t count);
/* It writes a page, which the disk has from then on as @block. */
void vmemt_disk_write(uint64_t page, uint64_t block);
/* The guest writes pages of its own; version 0: zeros. */
void vmemt_own(uint64_t page, uint64_t count, uint64_t version);
/* Whether the guest finds there what must be there. */
bool vmemt_right(uint64_t page, uint64_t count);
/* Takes everything out that can go, to where it goes. */
void vmemt_all_out(void);

/* Bytes of pages that are stored, or on their way there, though a block of the disk has them. */
uint64_t vmemt_silent_bytes(void);
/* Pages of [first, first + count) in state @state. */
uint64_t vmemt_pages_in(uint64_t first, uint64_t count, enum vmem_page_state state);

#endif
