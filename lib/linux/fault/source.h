/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages whose bytes are with the caller: asking for them, and installing what comes.
 *
 *   fault -> wanted -> the caller's read_source(), on a thread of its own -> installed
 *                               \-> in progress -> vmem_region_source_done() -> installed
 *
 * A fault on such a page only notes that it is wanted, and is over: who waits for it is woken when it is
 * installed. So no fault stands behind a source that takes its time, and any number of them may wait.
 * A page is ARRIVING from before its source is asked until its bytes are in place; it is asked for once, but
 * for foreign memory: see vmemi_source_call(). */
#ifndef VMEMI_SOURCE_H
#define VMEMI_SOURCE_H
#include "linux/region/table.h"

#define VMEMI_SOURCE_LOADS 128 /* of a region, under way at a time */

struct vmemi_source; /* of a region that has one */

/* 0, -VMEM_ENOMEM. */
int vmemi_source_new(struct vmem_region *r);
void vmemi_source_free(struct vmem_region *r); /* NULL source: nothing */
/* So many pages from now on. */
void vmemi_source_grow(struct vmem_region *r, uint64_t pages);
/* Ends what is under way for a region that nobody finds any more. Waits for calls of read_source() that
 * have not returned. */
void vmemi_source_end(struct vmem_region *r);

/* Asks for a page. Any thread, signal handlers too. */
void vmemi_source_want(struct vmem_region *r, uint64_t page, bool write);
/* Whether an ARRIVING page comes from its source, and who waits for it now is going to be woken. */
bool vmemi_source_joins(struct vmem_region *r, uint64_t page, bool write);
/* Its bytes without making it resident; the caller has claimed it, and this ends the claim. Waits. 0, -VMEM_EIO,
 * -VMEM_EAGAIN: too many loads at the time. */
int vmemi_source_peek(struct vmem_region *r, uint64_t page, void *data);

#define VMEMI_SOURCE_PACE_NS 1000000

enum vmemi_source_turn {
	VMEMI_SOURCE_IDLE, /* nothing is wanted */
	VMEMI_SOURCE_REFUSED, /* the kernel does not take what is wanted just now: look again in VMEMI_SOURCE_PACE_NS */
	VMEMI_SOURCE_TURNED, /* one page was asked for */
	VMEMI_SOURCE_STARVED /* there is no frame, or no room, for what is wanted */
};

/* Looks for a wanted page of any region and asks for it. May take as long as read_source() does. */
enum vmemi_source_turn vmemi_source_turn(struct vmemi_host *host);
/* Gives up what took too long: loads, and pages that wait to be asked for while the source's threads hang. */
void vmemi_source_give_up(struct vmemi_host *host);
/* Both, until nothing more can be done; for who has no thread for it. */
void vmemi_source_step(struct vmemi_host *host);
/* A page that is with its source, which will not give it: it is lost, if that can be now. */
void vmemi_source_give_up_page(struct vmem_region *r, uint64_t page);

#endif
