/* SPDX-License-Identifier: BSD-2-Clause */
/* The ages of a region's pages: its tracker, and what goes on meanwhile, which waits in sets of pages that
 * faults and savers add to without a lock, and which reclaim gives in to the tracker.
 *
 * Private memory has no sample of accesses but the fault on a page that was taken out. So each page in
 * place is of one of two classes: proven, if it came back from staging, which it would not have done
 * unless it was in use; new, if it came from elsewhere, or was taken and not missed. Of each class it is
 * counted how many of the pages taken came back from staging. Victims are the oldest of the class of which
 * fewer do; a few always come from the other, to see whether that changed. So what is in use is kept from a
 * scan, and gives way when the guest turns to something else: then it is the proven ones that are not
 * missed. (Equal return at the margin, as in ARC: Megiddo and Modha, FAST 2003; but measured at both.) */
#ifndef VMEMI_AGES_H
#define VMEMI_AGES_H
#include "linux/region/active.h"
#include "linux/region/page_set.h"
#include <vmem/env.h>
#include <vmem/threshold.h>
#include <vmem/track.h>

struct vmem_region;

/* Our bits in the tracker's states. A page in place or staged is NEW or PROVEN. */
#define VMEMI_AGES_NEW 0x10u
#define VMEMI_AGES_PROVEN 0x20u
#define VMEMI_AGES_STORED 0x40u  /* away, and no longer in staging */
#define VMEMI_AGES_SAMPLED 0x80u /* taken as a sample (active.h), or about to be; not back yet */

enum vmemi_ages_class { VMEMI_CLASS_NEW, VMEMI_CLASS_PROVEN, VMEMI_CLASSES };

/* Pages that the guest has touched of late, by their lowest bits: who has waited for one gets to use it, however fast periods
 * go by, before it is a victim again. */
#define VMEMI_AGES_FRESH 64
#define VMEMI_AGES_FRESH_NS 10000000

/* What became of pages of a class that were taken, of late. */
struct vmemi_ages_return {
	uint32_t ended; /* came back from staging, or went on into the store */
	uint32_t came_back;
};

/* Pages to be taken. */
struct vmemi_wanted {
	unsigned of; /* enum vmemi_ages_class, or VMEMI_CLASSES: any */
	uint64_t pages;
	uint32_t min_age;
	bool emergency; /* younger ones too */
};

struct vmemi_ages {
	/* Any thread adds, signal handlers too; reclaim empties. */
	struct vmemi_page_set accessed; /* by the guest; added before its state changes for that */
	struct vmemi_page_set moved;    /* the state or the pins changed */
	struct vmemi_page_set
		stuck; /* not to be taken for a while; added after the state changed */

	/* Guard of all below: the lock of reclaim. */
	vmem_track *track;
	struct vmemi_ages_fresh {
		uint64_t page, ns; /* when that was seen; 0: none */
	} fresh[VMEMI_AGES_FRESH];
	uint64_t harvest_ns;   /* when the sets above were emptied last */
	uint64_t arrivals;     /* pages accessed, or come back, since the period began */
	uint64_t period_ns;    /* when it did */
	_Atomic uint64_t seen; /* atomic; pages that a feed found used, ever */
	uint64_t release;      /* which slice of the stuck pages is tried again next */
	uint64_t release_ns;   /* when one was, last */
	struct vmem_track_cursor cursor[VMEMI_CLASSES + 1]; /* by class; the last: of both */
	struct vmemi_ages_return returns[VMEMI_CLASSES];
	struct vmemi_active active; /* with guards of its own */
	vmem_threshold *threshold;
	uint64_t pace;         /* see ahead.c */
	uint64_t ahead_period; /* in which pages were taken ahead last */

	_Atomic uint64_t working_set, cold_age, cold_pages; /* atomic; gauges as the period began */
};

/* 0, -VMEM_ENOMEM. Destroying is fine whatever came of it. */
int vmemi_ages_init(struct vmemi_ages *ages, const struct vmem_allocator *a,
		    struct vmemi_arrays *arrays, uint64_t pages, uint64_t now_ns);
void vmemi_ages_destroy(struct vmemi_ages *ages, const struct vmem_allocator *a,
			struct vmemi_arrays *arrays);

/* --- The caller holds the lock of reclaim --- */

/* So many pages from now on. 0, -VMEM_ENOMEM: nothing has changed. */
int vmemi_ages_grow(struct vmemi_ages *ages, uint64_t pages);

/* Gives the tracker what has happened since. */
void vmemi_ages_harvest(struct vmem_region *r);
/* The same, and ends the period if it is over by time or by accesses; a feed is asked before. */
void vmemi_ages_tick(struct vmem_region *r, uint64_t now_ns);
/* Ends the period: no page was old enough. */
void vmemi_ages_hurry(struct vmem_region *r, uint64_t now_ns);

/* Pages of [first, first + count) were used where they are, by a bit each; @first a multiple of 64. Bits of
 * those that are not in place do not count, and are cleared. */
void vmemi_ages_saw(struct vmem_region *r, uint64_t first, uint64_t count, uint64_t *bits);

/* A page in place is about to be taken as a sample; or it was not. False: it has been accessed since. */
void vmemi_ages_sample(struct vmem_region *r, uint64_t page);
bool vmemi_ages_unsample(struct vmem_region *r, uint64_t page);

/* Of a class, how many of those taken came back from staging. */
unsigned vmemi_ages_return_percent(const struct vmemi_ages *ages, enum vmemi_ages_class of);
/* The class to take from. */
enum vmemi_ages_class vmemi_ages_choose(const struct vmemi_ages *ages);
/* Names pages to take, the oldest first. As vmem_track_victims(): more than 0 if there may be more. */
int vmemi_ages_victims(struct vmem_region *r, const struct vmemi_wanted *wanted,
		       struct vmem_track_run *runs, size_t max_runs, size_t *ret_runs);
/* The first page of [first, end) that the guest has only just got; @end: none. */
uint64_t vmemi_ages_next_fresh(const struct vmemi_ages *ages, uint64_t first, uint64_t end);
/* The least age of a page that no feed and no fault has shown to be in use of late. */
uint32_t vmemi_ages_least(const struct vmem_region *r);
/* The periods since a page was used, as far as is known. */
uint32_t vmemi_ages_age(const struct vmemi_ages *ages, uint64_t page);
/* It is not to be taken, or may be again. */
void vmemi_ages_keep(struct vmemi_ages *ages, uint64_t page, bool on);
/* Whether the guest is likely to use a page soon. */
bool vmemi_ages_is_hot(const struct vmemi_ages *ages, uint64_t page);

/* Walks all pages: the tracker and the words agree. No call on the region may run. Returns the number of
 * pages that are wrong. For tests. */
uint64_t vmemi_ages_check(struct vmem_region *r);

#endif
