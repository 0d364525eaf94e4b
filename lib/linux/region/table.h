/* SPDX-License-Identifier: BSD-2-Clause */
/* A region as the library sees it: one state word, an age and one pin count a page, in flat arrays,
 * and a staging range of the same size, in which page i of the region has place i. Staging
 * takes address space, and frames only where pages are.
 *
 * Who may change what:
 *   words        anybody, by vmemi_region_step() alone
 *   mapping      who made the page ARRIVING or LEAVING
 *   staging      the lock of reclaim, for taking pages and freeing copies; READING keeps a copy for
 *                its reader */
#ifndef VMEMI_TABLE_H
#define VMEMI_TABLE_H
#include "base/lock.h"
#include "linux/feed/feed.h"
#include "linux/huge/huge.h"
#include "linux/region/ages.h"
#include "linux/region/arrays.h"
#include "linux/region/neighbours.h"
#include "linux/region/host.h"
#include "linux/region/latency.h"
#include "linux/region/page.h"
#include "linux/region/page_set.h"
#include "linux/region/pressure.h"
#include "linux/region/touches.h"

struct vmemi_region_counters { /* atomic, since attach */
	_Atomic uint64_t faults_zero, faults_staged, faults_stored, faults_write, faults_redundant;
	_Atomic uint64_t prefetched, stalls, stall_ns, lost;
	_Atomic uint64_t taken_run, taken_scattered, taken_clean, taken_undone, unmovable,
		taken_ahead;
	_Atomic uint64_t saved, rejected, discarded;
	_Atomic uint64_t faults_source;
	_Atomic uint64_t faults_mapped, taken_unmapped, faults_peer, peer_errors_left;
};

/* What is counted by page, in stripes, so that threads at different pages seldom share a cache line. */
struct vmemi_region_counts {
	_Alignas(64) _Atomic int64_t state[VMEM_PAGE_STATES]; /* atomic; pages by state */
	_Atomic int64_t copies;                               /* atomic; OCCUPIED pages */
	_Atomic int64_t pinned;                               /* atomic; PINNED pages */
};

/* A mapping of a region's memory, and the userfaultfd by which it is served. */
struct vmemi_at {
	const struct vmemi_uffd *uffd;
	uintptr_t base; /* where page 0 is, or would be; perhaps in another process */
};

/* Of a region in a file: which. */
struct vmemi_file {
	int fd; /* ours; -1: none */
	uint64_t device, inode;
	uint64_t offset; /* of page 0 */
};

struct vmemi_backing;

/* Who wants to know which pages are written: see dirty.h. */
enum vmemi_watch_of { VMEMI_WATCH_DIRTY, VMEMI_WATCH_GUARD, VMEMI_WATCHES };

struct vmemi_watch {
	_Atomic uint64_t *bits; /* bitmap, made when it is first needed; atomic */
	_Atomic uint32_t on;    /* atomic */
};

struct vmem_region {
	struct vmemi_host *host;
	struct vmem_region_opts opts;
	unsigned char *base;           /* of guest memory */
	unsigned char *staging;        /* its mirror; NULL in a file, which needs none */
	const struct vmemi_uffd *uffd; /* of guest memory */
	const struct vmemi_backing *backing;
	struct vmemi_at own; /* uffd and base */
	struct vmemi_file file;
	_Atomic uint32_t peers;       /* atomic; others that map it, see backing/peers.h */
	struct vmem_foreign *foreign; /* base is an address in another process; NULL: in this one */
	/* bitmap, atomic; of foreign memory: pages that its process removed */
	_Atomic uint64_t *removed;
	struct vmemi_page_set unheeded; /* of them those whose states do not show it yet */
	_Atomic uint64_t pages;         /* atomic; only grows: see manager/grow.c */
	struct vmemi_arrays arrays;
	uint32_t vm;                 /* the store's */
	uint32_t slot;               /* in host->regions */
	bool allocated;              /* the mapping is ours */
	uint64_t front, behind;      /* bytes of it that are not of the region: see huge/huge.h */
	bool was_kept_from_children; /* by the VMM, before it was attached */
	bool can_write_protect;      /* a write to a protected page asks us */
	bool async_wp;               /* it does not, and is told of later: feed_written.c */
	bool can_move;               /* UFFDIO_MOVE is there */
	bool can_scatter;            /* pages may be taken by write-protect, copy and discard */

	_Atomic uint64_t
		*words; /* [pages]; there is room for arrays.most here, and in all others */
	uint16_t *pins; /* [pages] pin_lock */
	struct vmemi_ages ages;
	struct vmemi_feed feed;
	struct vmemi_huge huge;
	/* pages with something that nobody needs: a copy in staging, a stale ref */
	struct vmemi_page_set waste;
	_Atomic uint64_t *wanted;    /* bitmap: pages that the handler shall load; atomic */
	_Atomic uint32_t any_wanted; /* atomic */
	struct vmemi_source *source; /* pages whose bytes are with the caller; NULL: none are */
	/* atomic; detach brings everything back, whatever the budget says */
	_Atomic uint32_t restoring;
	struct vmemi_watch watch[VMEMI_WATCHES];
	struct vmemi_lock pin_lock; /* pins */
	/* atomic; not 0: nobody changes states but by faults and on request, see snapshot/quiesce.c */
	_Atomic uint32_t quiet;
	_Atomic uint32_t bringing; /* atomic; who brings neighbours or saves a range now */

	struct vmemi_region_counts counts[VMEMI_STRIPES];
	/* atomic; a wide range is write-protected: what arrives now must not be clean */
	_Atomic uint32_t batching;
	struct vmemi_neighbours neighbours; /* what to bring beside a fault */
	struct vmemi_touches touches;       /* record of a working set */
	_Atomic uint64_t redundant_page;    /* atomic; see serve_in_place.c */
	_Atomic uint32_t redundant_streak;  /* atomic */
	_Atomic int32_t clean_written;  /* atomic; how often clean pages are written, see table.c */
	_Atomic uint32_t sigbus_faults; /* atomic */
	_Atomic uint32_t arrivals;      /* atomic */
	uint64_t settle_hand;           /* the lock of reclaim */

	struct vmemi_region_counters counters;
	struct vmemi_latency latency;
	struct vmemi_pressure pressure;
};

/* Changes the state of @page by @event, with all that is counted by state. @argument as for
 * vmemi_page_step(). True, and the old word, if it was allowed. */
bool vmemi_region_step(struct vmem_region *r, uint64_t page, enum vmemi_page_event event,
		       uint64_t argument, uint64_t *ret_old);

/* The same of the pages from @first on, by an event without an argument, as long as it is allowed. They change
 * one by one, but are counted together, a moment later. Returns how many; their old words are in @ret_old, if it
 * is not NULL. */
unsigned vmemi_region_step_run(struct vmem_region *r, uint64_t first, unsigned count,
			       enum vmemi_page_event event, uint64_t *ret_old);

/* The same where the table must allow it: the caller holds the claim that the event ends. */
void vmemi_region_end(struct vmem_region *r, uint64_t page, enum vmemi_page_event event,
		      uint64_t argument);
void vmemi_region_end_run(struct vmem_region *r, uint64_t first, unsigned count,
			  enum vmemi_page_event event);

static inline uint64_t vmemi_region_word(const struct vmem_region *r, uint64_t page)
{
	return atomic_load(&r->words[page]);
}

/* Whether the region is to be left alone: nothing is taken, saved or brought ahead of need. Foreign memory always:
 * nothing can be taken from it. */
static inline bool vmemi_region_is_quiet(const struct vmem_region *r)
{
	return atomic_load(&r->quiet) != 0 || r->foreign;
}

/* Of guest memory now; opts.bytes was at the beginning. */
static inline uint64_t vmemi_region_bytes(const struct vmem_region *r)
{
	return atomic_load(&r->pages) * VMEM_PAGE_SIZE;
}

/* What that may become. */
static inline uint64_t vmemi_region_most_bytes(const struct vmem_region *r)
{
	return r->arrays.most * VMEM_PAGE_SIZE;
}

static inline unsigned char *vmemi_region_page(const struct vmem_region *r, uint64_t page)
{
	return r->base + page * VMEM_PAGE_SIZE;
}

static inline void *vmemi_address(const struct vmemi_at *at, uint64_t page)
{
	return (void *)(at->base + (uintptr_t)page * VMEM_PAGE_SIZE);
}

static inline unsigned char *vmemi_region_place(const struct vmem_region *r, uint64_t page)
{
	return r->staging + page * VMEM_PAGE_SIZE;
}

static inline uint64_t vmemi_region_gpa(const struct vmem_region *r, uint64_t page)
{
	return r->opts.gpa + page * VMEM_PAGE_SIZE;
}

/* The key by which the store knows a page. */
static inline uint64_t vmemi_region_key(const struct vmem_region *r, uint64_t page)
{
	return (uint64_t)r->slot << 40 | page;
}

/* Drops the ref that a step gave (0: none). Takes locks of the store: not on a path that serves a fault. */
void vmemi_region_drop_ref(struct vmem_region *r, uint64_t word);
/* Whether what it names in the store can be loaded, as far as is known. True without a ref. */
bool vmemi_region_can_load(struct vmem_region *r, uint64_t word);
/* Drops all refs. No call on the region may run, and it is not used again. */
void vmemi_region_drop_all(struct vmem_region *r);

/* Sums over the stripes; a moment old, and never negative. */
uint64_t vmemi_region_count(const struct vmem_region *r, enum vmem_page_state state);
uint64_t vmemi_region_copies(const struct vmem_region *r);
uint64_t vmemi_region_pinned(const struct vmem_region *r);

/* Cuts [gpa, gpa + bytes) to whole pages, outwards or inwards. 0, -VMEM_ERANGE. */
int vmemi_region_span(const struct vmem_region *r, uint64_t gpa, uint64_t bytes, bool outwards,
		      uint64_t *ret_first, uint64_t *ret_count);

/* Whether a page that is read back should stay clean: see table.c. */
bool vmemi_region_prefers_clean(struct vmem_region *r);
/* Notes that clean pages were written, or dropped unwritten. */
void vmemi_region_note_clean(struct vmem_region *r, int32_t written, int32_t dropped);

static inline void vmemi_tally(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Walks all pages: every word valid, the counters equal to what the words say. No call on the region
 * may run. 0, or the number of pages that are wrong. For tests. */
uint64_t vmemi_region_check(struct vmem_region *r);

#endif
