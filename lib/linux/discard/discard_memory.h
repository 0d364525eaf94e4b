/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory of a VM as <vmem/discard.h> has it: pieces, sorted by guest address. Ranges are cut to pieces, to
 * blocks and around what is pinned; what is left waits in `runs`, neighbours joined, until there are many or
 * the piece changes. Guard of all: the caller, who is serial. */
#ifndef VMEMI_DISCARD_MEMORY_H
#define VMEMI_DISCARD_MEMORY_H
#include "base/alloc.h"
#include "linux/discard/discard.h"
#include <vmem/discard.h>

#define VMEMI_DISCARD_RUNS 128

struct vmemi_piece {
	uint64_t gpa, bytes; /* of a region: the most that it may become */
	uint64_t block_bytes;
	enum vmem_discard_kind kind;
	vmem_region *region;
	unsigned char *hva; /* NULL: not mapped here */
	int fd;             /* ours; -1: none */
	bool counts_blocks; /* the file system tells data from holes by the number of blocks alone */
	uint64_t offset;
	uint64_t *replaced;      /* IMAGE: bitmap of pages that are no longer the file's */
	uint64_t replaced_words; /* of it */
	bool kept_from_children, kept_from_dumps; /* as other memory in its place is, too */
};

struct vmem_discard {
	struct vmem_allocator allocator;
	const struct vmemi_kernel *k;
	uint64_t (*pinned)(void *context, uint64_t gpa);
	void *context;
	bool vector; /* the kernel discards many ranges by one call */
	bool scan;   /* and has PAGEMAP_SCAN */
	int pagemap; /* /proc/self/pagemap; -1: none */
	uint32_t pieces;
	struct vmemi_piece piece[VMEM_DISCARD_PIECES];
	struct vmem_discard_metrics metrics;
	uint64_t replaced_runs; /* of all IMAGE pieces */
	struct vmem_balloon_guard
		guard; /* of pieces that are no regions; begin is NULL: there is none */
	bool guards;   /* all pieces are watched */
	/* Guest addresses between which something inflated was left; and since the pass over them began that is
	 * under way, which has come to `hand`. */
	struct vmemi_left {
		uint64_t low, high; /* low == high: none */
	} left, left_again;
	uint64_t hand;
	bool passes;

	/* What is under way. */
	struct vmemi_piece *at; /* whose the runs are; NULL: there are none */
	struct vmem_discard_counts *counts;
	bool hinted;
	struct iovec runs[VMEMI_DISCARD_RUNS]; /* base: bytes from the begin of the piece */
	size_t run_count;
	uint64_t present[VMEMI_DISCARD_RUNS]; /* bytes in each */
};

/* As vmem_discard_new(), with a kernel of the caller's. */
int vmemi_discard_new(vmem_discard **ret_discard, const struct vmem_discard_opts *opts,
		      const struct vmemi_kernel *k);

/* Discards all runs of d->at, which has one, and counts what came of each. */
void vmemi_discard_plain(vmem_discard *d);
void vmemi_discard_region(vmem_discard *d);

/* Fills in what must be found out of a piece that is not a region. 0, -VMEM_EINVAL, -VMEM_ENOTSUP, -VMEM_ENOMEM,
 * -VMEM_EIO; on error nothing is to be undone. */
int vmemi_piece_open(vmem_discard *d, struct vmemi_piece *p, const struct vmem_discard_piece *from);
void vmemi_piece_close(vmem_discard *d, struct vmemi_piece *p);

/* Copies the caller's guard; NULL: there is none. 0, -VMEM_EINVAL, -VMEM_E2BIG. */
int vmemi_discard_guard_take(struct vmem_balloon_guard *guard,
			     const struct vmem_balloon_guard *from);

/* Whether bytes of a piece that is no region were not written since the guard began. */
bool vmemi_discard_is_unwritten(const vmem_discard *d, const struct vmemi_piece *p, uint64_t at,
				uint64_t bytes);

/* The guard watches no more, if it does. */
void vmemi_discard_guard_end(vmem_discard *d);

#endif
