/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing ranges of pages back before they are touched: see fetch.c. */
#ifndef VMEMI_FETCH_H
#define VMEMI_FETCH_H
#include "linux/region/table.h"

#define VMEMI_FETCH_NOTHING UINT64_MAX
#define VMEMI_FETCH_RUN 64 /* pages of one copy: who touches one meanwhile waits that long */

/* The caller's, of one thread. */
struct vmemi_fetch {
	struct vmem_region *r;
	unsigned char *buffer; /* of a run */
	uint64_t fetched;      /* pages, so far */
	uint64_t end, next;    /* of the range; page after that */
	bool slow;             /* the last run ended at a page whose load is */
	uint64_t old[VMEMI_FETCH_RUN];
};

/* 0, -VMEM_ENOMEM. */
int vmemi_fetch_begin(struct vmemi_fetch *f, struct vmem_region *r);
/* @next: a page that will be asked for after these, or VMEMI_FETCH_NOTHING. 0, -VMEM_ENOSPC: not all fit. */
int vmemi_fetch_range(struct vmemi_fetch *f, uint64_t first, uint64_t count, uint64_t next);
void vmemi_fetch_end(struct vmemi_fetch *f);

#endif
