/* SPDX-License-Identifier: BSD-2-Clause */
/* A kernel with idle bits (CONFIG_IDLE_PAGE_TRACKING): the bitmap is played as the kernel's documentation says
 * (admin-guide/mm/idle_page_tracking.rst), over real memory, whose frames are told by the test: so that they can be
 * chosen, exchanged, be huge, or be away from the LRU lists. Time is told, too. One region at a time. */
#ifndef VMEMT_IDLE_KERNEL_H
#define VMEMT_IDLE_KERNEL_H
#include <stdbool.h>
#include "linux/kernel/kernel.h"

#define VMEMT_FRAMES UINT64_C(65600)
#define VMEMT_FRAME_PAGES UINT64_C(10000)

struct vmemt_frame {
	bool idle;   /* the kernel's flag */
	bool young;  /* accessed bit of who maps it */
	bool no_lru; /* or of the middle of a huge page */
	bool marked; /* by a write, ever */
};

struct vmemt_idle_kernel {
	struct vmemt_frame frame[VMEMT_FRAMES];
	unsigned char *base; /* of the region; NULL: none yet */
	uint64_t pages;      /* of the region */
	uint64_t frame_of[VMEMT_FRAME_PAGES];
	uint64_t end_of_bitmap; /* frames */
	uint64_t huge_at;       /* page where a huge page begins; UINT64_MAX: nowhere */
	uint64_t now, step;     /* each look at the clock takes so long */
	struct {
		bool absent, forbidden, hidden;
		int read_error, write_error, pagemap_error; /* 0: none */
		unsigned read_fails_after;                  /* calls */
	} is;
	unsigned reads, writes, pagemap_reads;  /* calls */
	unsigned bad_calls;                     /* that no kernel would take */
	bool is_bitmap[1024], is_pagemap[1024]; /* by descriptor */
};

extern struct vmemt_idle_kernel vmemt_idle_kernel;

/* The table, with all as at the beginning but for what is wrong. */
const struct vmemi_kernel *vmemt_idle_kernel_new(void);
/* How many of its files are open. */
unsigned vmemt_idle_kernel_files(void);

#endif
