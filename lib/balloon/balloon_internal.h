/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon's device. Guard of everything: the caller, one call at a time.
 *
 *   balloon.c          the object, RAM, counters
 *   balloon_config.c   status, features, queue numbers, configuration space
 *   balloon_buffer.c   buffers in, ranges and completions out
 *   balloon_ram.c      the bitmaps of a RAM
 *   balloon_pages.c    which pages are in the balloon, and which become due to be given out
 *   balloon_due.c      those, as ranges
 *   balloon_sort.c     runs in order
 *   balloon_hint.c     commands of free page hints
 *   balloon_stats.c    the guest's statistics
 *   balloon_target.c   target, progress, stall, events
 *   balloon_save.c     the state as bytes
 * (balloon_driver.c is the other side, an object of its own.)
 *
 * A page number (gfn) stands in bit gfn - base of its RAM's bitmaps, base being the RAM's first page rounded down to
 * 64. Pages to be given out are set in due[0]; due[1] and due[2] have a bit for each word below that is not 0, and
 * `low` and `high` are the words of due[2] between which all is. So runs are found without looking at what is not
 * due, and come out sorted and joined, in whichever order they came in.
 *
 * The first runs that become due are kept as a short list instead, which costs nothing a page, and are sorted before
 * they are taken. The list is of one RAM, and begins while that RAM's due[] is empty; what has no room in it is set in
 * due[], and then the list is put there too before anything is taken. */
#ifndef VMEMI_BALLOON_INTERNAL_H
#define VMEMI_BALLOON_INTERNAL_H
#ifndef VMEM_EXPERIMENTAL
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_F_RANGES */
#endif
#include <stdbool.h>
#include <vmem/balloon_host.h>
#include "base/alloc.h"

#define VMEMI_BALLOON_LEVELS 3u
#define VMEMI_BALLOON_TOUCHED 18u /* pages, log2, of a bit of `touched` */
#define VMEMI_VIRTIO_DRIVER 2u    /* status: the guest has a driver */
#define VMEMI_BALLOON_NO_FIRST UINT64_MAX
#define VMEMI_BALLOON_LIST 256u /* runs: as many as Linux sends page numbers in a buffer */

struct vmemi_balloon_ram {
	uint64_t first, pages; /* page numbers */
	uint64_t base;         /* of bit 0 of the bitmaps */
	uint64_t words;        /* of `owned` and due[0] */
	uint64_t *owned;       /* in the balloon */
	uint64_t *touched;     /* bit i: of pages i << 18 .. some may be owned; else none is */
	uint64_t *due[VMEMI_BALLOON_LEVELS];
	uint64_t low, high;   /* high < low: nothing is due */
	uint32_t block_shift; /* pages of a block, log2 */
	uint32_t *in_block;   /* blocks of 64 pages and more: how many of each are owned */
};

/* Runs that are due: at .. count - 1. */
struct vmemi_balloon_list {
	struct vmemi_balloon_ram *ram; /* NULL: there are none */
	uint32_t at, count;
	bool sorted;     /* by where they begin */
	uint64_t differ; /* bits that are not the same in all these, and in those that were taken */
	uint64_t pages;  /* VMEM_BALLOON_WORK_PAGES at most, with those that were taken */
	uint64_t runs[VMEMI_BALLOON_LIST];  /* vmemi_balloon_run() */
	uint64_t spare[VMEMI_BALLOON_LIST]; /* of balloon_sort.c */
};

struct vmemi_balloon_part { /* the buffer that is being worked off */
	bool busy;
	uint32_t queue;
	uint64_t token;
	uint64_t at;    /* bytes, or pieces, that are done */
	uint64_t pages; /* done of the entry or piece there */
	uint64_t count; /* as it was given first */
	size_t piece_count;
};

struct vmem_balloon {
	struct vmem_allocator allocator;
	struct vmem_balloon_guard guard;
	uint64_t offered, flags, stall_ns, swap_bytes_per_s;
	uint32_t map, given[VMEM_BALLOON_QUEUES];

	struct vmemi_balloon_ram ram[VMEM_BALLOON_RAMS]; /* by page number */
	uint32_t rams, last;                             /* last: where the last page was found */
	uint64_t ram_pages;

	/* What the driver said. */
	uint64_t features; /* as written */
	bool written;      /* they were */
	bool negotiated;   /* they hold until the next reset */
	bool refused;      /* others were written after that, last */
	uint32_t status;
	uint32_t numbers[VMEM_BALLOON_QUEUES];
	uint8_t actual_bytes[4]; /* as written; they count with the last one */
	uint32_t actual, poison;

	/* Pages. */
	uint64_t owned;    /* in the balloon */
	uint64_t released; /* of them, those in whole blocks */
	uint32_t due;      /* bit i: of RAM i some are to be given out */
	uint32_t due_operation;
	uint64_t block_pages; /* that became due as large blocks, in this call */
	struct vmemi_balloon_list list;

	/* Buffers. */
	struct vmemi_balloon_part part;
	struct vmem_balloon_done done[VMEM_BALLOON_BATCH]; /* a ring */
	uint32_t done_first, done_count;

	/* Hints. */
	uint32_t hint_id;   /* as the driver reads it */
	uint32_t hint_last; /* the last that was a command */
	bool hint_running;  /* the guard watches */
	bool hint_open;     /* the driver has begun to tell, for the current command */
	bool hint_ended;    /* the driver has told all */

	/* Statistics. */
	struct vmem_balloon_guest guest;
	uint64_t stats_token;
	bool stats_told; /* `guest` is what it told */
	bool stats_held; /* the driver's buffer is here */
	bool stats_seen; /* the first of a driver came */

	/* Target. */
	uint64_t target, rate; /* pages, pages a second */
	uint64_t told;
	uint64_t tick_ns;             /* the last tick */
	uint64_t told_rest;           /* of pages * 1e9 that the rate allows */
	uint64_t seen_pages, seen_ns; /* for the speed */
	int64_t speed;                /* pages a second: in, or out if negative */
	int way;                      /* that pages had to go at the last tick: balloon_target.c */
	uint64_t furthest;    /* pages in the balloon when they had come furthest that way */
	uint64_t progress_ns; /* when that was */
	uint64_t most;        /* pages that it held, of those wanted */
	uint64_t rest_pages, rest_ns; /* so many are in it since then */
	bool reached, stalled;
	bool claim_told; /* there was an event for `actual` as it is */

	uint32_t events; /* bit i: enum vmem_balloon_event i */
	struct vmem_balloon_counters counters;
};

/* balloon_config.c */
bool vmemi_balloon_has(const vmem_balloon *b, uint64_t feature);
/* Pages of a block that is not whole may be remembered. */
bool vmemi_balloon_remembers(const vmem_balloon *b);
/* Whether the driver may use the queue now. */
bool vmemi_balloon_ready(vmem_balloon *b, uint32_t queue);
bool vmemi_balloon_big_endian(const vmem_balloon *b);
/* The driver wants the contents of free pages kept. */
bool vmemi_balloon_poisons(const vmem_balloon *b);

/* The bits [from, from + count) of a word, as far as they are in it. */
static inline uint64_t vmemi_balloon_mask(uint64_t from, uint64_t count)
{
	uint64_t mask = ~UINT64_C(0) << from;

	return count < 64 - from ? mask & ~(~UINT64_C(0) << (from + count)) : mask;
}

/* A run of a RAM's bits as a number: smaller ones begin sooner. A RAM has at most 2^32 of them. */
static inline uint64_t vmemi_balloon_run(uint64_t first, uint64_t pages)
{
	return first << 32 | pages;
}

static inline uint64_t vmemi_balloon_run_first(uint64_t run)
{
	return run >> 32;
}

static inline uint64_t vmemi_balloon_run_pages(uint64_t run)
{
	return (uint32_t)run;
}

static inline uint64_t vmemi_balloon_run_end(uint64_t run)
{
	return (run >> 32) + (uint32_t)run;
}

/* Blocks of less than 64 pages are seen whole in a word. */
static inline bool vmemi_balloon_counts(const struct vmemi_balloon_ram *ram)
{
	return ram->block_shift >= 6;
}

/* balloon_ram.c */
int vmemi_balloon_ram_init(vmem_balloon *b, struct vmemi_balloon_ram *ram);
void vmemi_balloon_ram_free(vmem_balloon *b, struct vmemi_balloon_ram *ram);
/* The first owned page from bit @at of the RAM's on, and how many follow it; VMEMI_BALLOON_NO_FIRST: none. */
uint64_t vmemi_balloon_owned_from(const struct vmemi_balloon_ram *ram, uint64_t at,
				  uint64_t *ret_count);
void vmemi_balloon_empty(vmem_balloon *b); /* nothing owned, nothing due */

/* balloon_pages.c */
/* Does the operation for pages gfn ..; counts what is wrong. At most *budget pages of RAM, which it is lowered by; holes
 * cost nothing. How many of @pages are done. */
uint64_t vmemi_balloon_mark(vmem_balloon *b, uint32_t operation, uint64_t gfn, uint64_t pages,
			    uint64_t *budget);
/* As vmemi_balloon_mark(), for page numbers: how many are done. Fewer when large blocks have become due. */
size_t vmemi_balloon_mark_list(vmem_balloon *b, uint32_t operation, const uint32_t *gfns,
			       size_t count);
/* The list's runs are due in the bitmaps instead. */
void vmemi_balloon_unlist(vmem_balloon *b);

/* balloon_due.c */
/* The first runs of due pages, of VMEM_BALLOON_WORK_PAGES and 63 at most; they are due no more. How many: 0: none is. */
size_t vmemi_balloon_pop(vmem_balloon *b, struct vmem_balloon_range *ranges, size_t count);

/* balloon_sort.c */
void vmemi_balloon_sort(struct vmemi_balloon_list *list);

/* balloon_buffer.c: there is room */
void vmemi_balloon_done(vmem_balloon *b, uint32_t queue, uint64_t token);

/* balloon_hint.c */
void vmemi_balloon_hint_command(vmem_balloon *b, const struct vmem_balloon_buffer *buffer);
void vmemi_balloon_hint_settle(vmem_balloon *b); /* nothing is due */
void vmemi_balloon_hint_reset(vmem_balloon *b);

/* balloon_stats.c */
void vmemi_balloon_take_stats(vmem_balloon *b, const struct vmem_balloon_buffer *buffer);

/* balloon_target.c */
void vmemi_balloon_event(vmem_balloon *b, enum vmem_balloon_event event);
void vmemi_balloon_target_reset(vmem_balloon *b);
/* The driver has written `actual`. */
void vmemi_balloon_claim(vmem_balloon *b);
/* Pages came in or went out; @before: how many there were. Those that the target asks for may not go, but while the
 * balloon fills a driver may give a page for another that it then takes back, as Linux does to move pages. */
void vmemi_balloon_taken_back(vmem_balloon *b, uint64_t before);

/* balloon_check.c: for tests. NULL, or what is wrong. */
const char *vmemi_balloon_check(const vmem_balloon *b);

#endif
