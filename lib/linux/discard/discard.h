/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving frames back to the kernel, and dropping the contents of guest pages wherever they are. */
#ifndef VMEMI_DISCARD_H
#define VMEMI_DISCARD_H
#include "linux/region/table.h"
#include <sys/uio.h>

/* Discards ranges of private memory of this process, by one call for almost 2 GiB where the kernel can (@vector).
 * Returns the bytes discarded, from the first range on; less than all if the kernel refused one. */
size_t vmemi_discard_ranges(const struct vmemi_kernel *k, bool vector, const struct iovec *ranges,
			    size_t count);

#define VMEMI_DISCARD_BATCH 64

/* Pages of a region on their way out: claimed, until the batch is full or ends. */
struct vmemi_discard_batch {
	struct vmem_region *r;
	enum vmemi_page_event event; /* DISCARD, or GIVE to the source */
	bool hinted;                 /* only what was not written since the guard watches */
	unsigned count;
	uint64_t page[VMEMI_DISCARD_BATCH];
	enum vmem_page_state was[VMEMI_DISCARD_BATCH];
	bool mapped[VMEMI_DISCARD_BATCH]; /* it has a frame, or an error in its place */
	bool frame[VMEMI_DISCARD_BATCH];  /* in place, in staging or in its file */
	bool stuck[VMEMI_DISCARD_BATCH];  /* the error could not be taken away */
	unsigned frames;                  /* of them in place */
	bool staged;                      /* copies in staging were left behind */
	uint64_t released;                /* bytes, as the budget counts them */
	uint64_t pinned, failed, written; /* pages that stayed */
};

/* Adds the pages [first, first + count), which are of the region. */
void vmemi_discard_pages(struct vmemi_discard_batch *b, uint64_t first, uint64_t count);
/* All of them are away then. */
void vmemi_discard_batch_end(struct vmemi_discard_batch *b);

#endif
