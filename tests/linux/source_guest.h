/* SPDX-License-Identifier: BSD-2-Clause */
/* A region whose pages are with a caller who does with them what a test wants. What it is made of has short names:
 * it is all that such a test is about. */
#ifndef VMEMT_SOURCE_GUEST_H
#define VMEMT_SOURCE_GUEST_H
#include "linux/guest.h"
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(3) << 30)
#define MANY 200 /* more than loads that are under way at a time */
#define PAGES_MAX 2048

extern struct vmemt_cpu cpu[MANY];
extern vmem_manager *manager;
extern vmem_region *region;
extern unsigned char *base;

/* What the source does with the pages that it is asked for. */
extern _Atomic int answer;            /* atomic; 0: gives the bytes; else returned */
extern _Atomic uint32_t hold;         /* atomic; calls do not return while it is set */
extern _Atomic uint32_t let_go;       /* atomic; but so many */
extern _Atomic uint32_t hold_one;     /* atomic; nor those of a thread that is held alone */
extern _Thread_local bool held_alone; /* its own thread's */
extern _Atomic uint32_t held;         /* atomic; calls that do not return */
extern _Atomic uint32_t asked[PAGES_MAX];
extern _Atomic uint32_t lost; /* atomic; times that on_lost was called */
extern _Atomic int lost_error;

/* Of a region. */
struct vmemt_source {
	uint64_t budget, pages;
	uint64_t flags; /* besides FROM_SOURCE */
	uint64_t deadline_ms;
	uint32_t way, source_threads;
	bool threads;
};

/* The processors; skips the test where it cannot run. */
void vmemt_source_begin(void);
void vmemt_source_over(void);

void vmemt_source_make(struct vmemt_source how);
void vmemt_source_end(void);

/* The region's read_source. */
int vmemt_source_read(void *context, uint64_t gpa, void *buffer);
/* Processor @c reads a page; and has read what the source has. */
void vmemt_source_touch(unsigned c, uint64_t page, struct vmemt_page *into);
void vmemt_source_expect(unsigned c, uint64_t page, const struct vmemt_page *got);
/* vmem_region_source_done() with the page. */
int vmemt_source_done(uint64_t page, int error);

#endif
