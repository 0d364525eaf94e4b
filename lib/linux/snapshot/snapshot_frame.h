/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of a snapshot's stream, as <vmem/snapshot.h> describes it, from and to bytes. Pure, but for
 * what says otherwise. */
#ifndef VMEMI_SNAPSHOT_FRAME_H
#define VMEMI_SNAPSHOT_FRAME_H
#include "base/hash.h"
#include <stdbool.h>
#include <vmem/region.h>

#define VMEMI_SNAPSHOT_PAGES 16 /* most of a frame with contents */
#define VMEMI_SNAPSHOT_HEADER 64
#define VMEMI_SNAPSHOT_HEAD 40 /* of a frame, without the sums of its pages */

enum vmemi_snapshot_kind {
	VMEMI_SNAPSHOT_BYTES = 'P', /* pages with their contents */
	VMEMI_SNAPSHOT_WORD = 'W',  /* pages of one word */
	VMEMI_SNAPSHOT_LOST = 'L',  /* pages whose bytes are gone */
	VMEMI_SNAPSHOT_END = 'E'
};

struct vmemi_snapshot_frame {
	uint32_t kind; /* enum vmemi_snapshot_kind */
	uint32_t
		state; /* enum vmem_page_state: resident, staged or stored; lost: poisoned; end: 0 */
	uint64_t first; /* page; end: pages of the region */
	uint64_t pages; /* end: of all frames */
	uint64_t word;  /* that the pages consist of; end: how many frames there were; else 0 */
};

/* A header, or a head with the sums of its pages, and what its sum follows. */
struct vmemi_snapshot_head {
	_Alignas(8) unsigned char bytes[VMEMI_SNAPSHOT_HEAD + VMEMI_SNAPSHOT_PAGES * 8];
	uint64_t sum; /* of the part before */
	vmemi_hash_fn hash;
};

/* A working buffer: a frame with its pages. */
struct vmemi_snapshot_buffer {
	_Alignas(64) unsigned char pages[VMEMI_SNAPSHOT_PAGES][VMEM_PAGE_SIZE];
	struct vmemi_snapshot_head head;
};

/* The header, into h->bytes; and back: 0, -VMEM_EBADMSG, -VMEM_ENOTSUP (another version or page size). */
void vmemi_snapshot_put_header(struct vmemi_snapshot_head *h, uint64_t gpa, uint64_t bytes);
int vmemi_snapshot_get_header(struct vmemi_snapshot_head *h, uint64_t *ret_gpa,
			      uint64_t *ret_bytes);

/* Sums a page that is page @page of the region. */
uint64_t vmemi_snapshot_page_sum(const struct vmemi_snapshot_head *h, const void *bytes,
				 uint64_t page);

/* A head with the sums of b->pages if it has any, into b->head.bytes. Returns its bytes. */
size_t vmemi_snapshot_put_head(struct vmemi_snapshot_buffer *b,
			       const struct vmemi_snapshot_frame *f);
/* Takes h->bytes apart. @next: where the frame before has ended; @pages: of the region. False if it cannot
 * be. */
bool vmemi_snapshot_get_head(const struct vmemi_snapshot_head *h, uint64_t next, uint64_t pages,
			     struct vmemi_snapshot_frame *ret_frame);
/* Bytes of sums that follow the head. */
size_t vmemi_snapshot_sum_bytes(const struct vmemi_snapshot_frame *f);
/* Whether head and sums of pages are as they were written, after the part before. */
bool vmemi_snapshot_check_head(struct vmemi_snapshot_head *h, const struct vmemi_snapshot_frame *f);
/* Whether the bytes of the @i-th page of the frame are as its head says. */
bool vmemi_snapshot_check_page(const struct vmemi_snapshot_head *h,
			       const struct vmemi_snapshot_frame *f, uint64_t i, const void *bytes);
/* Whether b->pages are. */
bool vmemi_snapshot_check_pages(const struct vmemi_snapshot_buffer *b,
				const struct vmemi_snapshot_frame *f);

/* A page of one word. */
void vmemi_snapshot_fill(void *page, uint64_t word);

/* Pages of an absent region are lost (snapshot_load.c). 0, -VMEM_EEXIST. */
int vmemi_snapshot_put_lost(struct vmem_region *r, uint64_t first, uint64_t pages);

#endif
