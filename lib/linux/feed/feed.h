/* SPDX-License-Identifier: BSD-2-Clause */
/* Feeds: what says which pages were used. Faults say it of pages that were taken out. Of pages in place a region
 * has at most one feed besides, chosen when it is attached. It is asked at the end of a period, and so seldom
 * that it costs a twentieth of the time at most. A feed that fails says nothing that time. */
#ifndef VMEMI_FEED_H
#define VMEMI_FEED_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct vmem_region;

/* A kind of feed. */
struct vmemi_feed_kind {
	const char *name;
	int number;    /* enum vmem_feed */
	uint32_t sees; /* VMEM_FEED_SEES_* */
	/* What a page that it finds costs the guest, about, besides the time that it takes. */
	uint32_t guest_ns;
	/* Whether the region can have it: 0, -VMEM_ENOTSUP. */
	int (*can)(const struct vmem_region *r);
	/* 0, -VMEM_ENOMEM. NULL, with the next two: it comes by itself. */
	int (*open)(struct vmem_region *r);
	void (*close)(struct vmem_region *r);
	/* Tells vmemi_ages_saw() what was used since the last time. 0, or a negative error number. */
	int (*ask)(struct vmem_region *r);
	/* Accesses that it told of. NULL: those that vmemi_ages_saw() counted. */
	uint64_t (*told)(const struct vmem_region *r);
};

struct vmemi_idle; /* feed_idle.c */

struct vmemi_feed {
	const struct vmemi_feed_kind *kind;
	/* Guard: the lock of reclaim. */
	uint64_t *bitmap;
	uint64_t next_ns; /* not asked before */
	uint64_t hand;    /* page that is asked for next */
	/* Idle bits, likewise. */
	int pagemap, idle_bits; /* descriptors, while they are the feed */
	bool can_idle;          /* since attach */
	uint16_t *
		marked_in; /* [pages]: the trace of the frame in which it was marked; 0: it was not */
	struct vmemi_idle *idle;
	/* Written by who holds the lock. */
	_Atomic uint64_t asked, failed, ns; /* atomic; counters */
};

/* Chooses the cheapest that works. The backing is known. 0, -VMEM_ENOMEM. */
int vmemi_feed_open(struct vmem_region *r);
void vmemi_feed_close(struct vmem_region *r);
/* Asks, if it is time again. The caller holds the lock of reclaim. */
void vmemi_feed_ask(struct vmem_region *r);

/* Looks whether there are idle bits, with descriptors that open() keeps, or who does not call it leaves. */
void vmemi_feed_find_idle(struct vmem_region *r);
void vmemi_feed_leave_idle(struct vmem_region *r);

extern const struct vmemi_feed_kind vmemi_feed_faults;
extern const struct vmemi_feed_kind vmemi_feed_minor_faults;
extern const struct vmemi_feed_kind vmemi_feed_dirty_log;
extern const struct vmemi_feed_kind vmemi_feed_written;
extern const struct vmemi_feed_kind vmemi_feed_idle;

#endif
