/* SPDX-License-Identifier: BSD-2-Clause */
/* A snapshot's stream in memory, whose n-th call fails; the sums of a stream made right; and
 * what to save. */
#ifndef VMEMT_SNAPSHOT_TAPE_H
#define VMEMT_SNAPSHOT_TAPE_H
#include <stdbool.h>
#include <vmem/snapshot.h>
#include <vmem/snapshot_source.h>
#include "support/pages.h"

struct vmemt_tape {
	unsigned char *bytes;
	size_t size, capacity, at;
	long calls;      /* so far */
	long fail_after; /* this many calls work, the next returns @error; -1: all */
	int error;
	/* called in each call; may be NULL */
	void (*each)(void *context);
	void *context;
};

void vmemt_tape_init(struct vmemt_tape *t);
void vmemt_tape_free(struct vmemt_tape *t);
int vmemt_tape_write(void *tape, const void *bytes, size_t count);
int vmemt_tape_read(void *tape, void *bytes, size_t count);
int vmemt_tape_read_at(void *tape, uint64_t offset, void *bytes, size_t count);

/* From or to a tape, from its beginning on. */
int vmemt_tape_save(struct vmemt_tape *t, vmem_region *r, uint64_t flags,
		    struct vmem_snapshot_stats *stats);
int vmemt_tape_load(struct vmemt_tape *t, vmem_region *r, struct vmem_snapshot_stats *stats);

/* vmem_snapshot_open(). */
int vmemt_tape_open(struct vmemt_tape *t, vmem_snapshot **ret_snapshot);

/* Sets all sums of what looks like a stream, as far as it does: so that a reader gets to see the rest. */
void vmemt_tape_mend(unsigned char *bytes, size_t size);

/* --- A region with some of everything, from page 0 on --- */

enum vmemt_page_kind vmemt_some_kind(uint64_t page);
void vmemt_some_make(struct vmemt_page *p, uint64_t page, uint64_t seed);
void vmemt_some_fill(vmem_region *r, uint64_t pages, uint64_t seed);
/* As vmem_region_read() sees it. */
void vmemt_some_compare(vmem_region *r, uint64_t pages, uint64_t seed);

#endif
