/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads of pages whose bytes are with the caller, for source.c, source_ask.c and source_late.c alone.
 *
 * A load has an entry in its region's table from before the page is claimed until that claim is ended. Who
 * turns an entry from LOADING to ENDING ends the load: the thread whose call of read_source() has returned,
 * vmem_region_source_done(), or whoever finds that its time is up; the others find it gone. An entry is
 * used again only when the call has returned, too. Guard: host->source_lock, never held while the caller's
 * functions run or bytes are copied. */
#ifndef VMEMI_SOURCE_LOAD_H
#define VMEMI_SOURCE_LOAD_H
#include "linux/fault/source.h"

#define VMEMI_SOURCE_REFUSED_NS \
	5000000 /* for which a process's sources are not asked, when the kernel refuses its pages */

enum vmemi_load_state {
	VMEMI_LOAD_IDLE,
	VMEMI_LOAD_CLAIMING, /* its page is not ours yet */
	VMEMI_LOAD_LOADING,  /* the caller has been asked */
	VMEMI_LOAD_ENDING,   /* somebody is at it */
	VMEMI_LOAD_PEEKED    /* the bytes are with who reads without making it resident */
};

struct vmemi_source_load {
	uint64_t page;
	uint64_t began_ns;
	uint64_t refused_ns; /* when the kernel last refused what the source has given; 0: never */
	enum vmemi_load_state state;
	bool calling;        /* read_source() has not returned */
	unsigned char *peek; /* where the bytes go instead; NULL: into the guest */
	int error;           /* of a peek that is over */
};

struct vmemi_source {
	struct vmemi_page_set wanted;
	_Atomic uint64_t *written;   /* bitmap: wanted for writing; atomic, a hint */
	_Atomic uint64_t *loading;   /* bitmap: who waits for it will be woken; atomic */
	_Atomic uint32_t any_wanted; /* atomic */
	_Atomic uint32_t under_way;  /* atomic; loads that are LOADING */
	_Atomic uint64_t stalled_ns; /* atomic; since when there is no frame; 0: there is */
	uint64_t hand;               /* page to look at next; the lock */
	uint64_t turn;               /* when it was last asked; the lock */
	struct { /* how long pages are wanted already: see source_late.c; the lock */
		uint64_t *wanted[2]; /* bitmaps: at the last time, at the last two */
		uint64_t count;      /* of times */
		uint64_t ended_ns;   /* the last one */
		uint64_t group;      /* that it goes on with; all: it is over */
		uint64_t turns;      /* host->source_turns then */
		bool served;         /* not all hang: nothing gets older by this time */
	} waiting;
	struct vmemi_source_load load[VMEMI_SOURCE_LOADS];
};

/* An entry that is not used, or NULL. The lock is held. */
struct vmemi_source_load *vmemi_source_free_entry(struct vmemi_source *s);
/* Its load is CLAIMING, and keeps the region. The lock is held. */
void vmemi_source_take_entry(struct vmemi_source_load *l, uint64_t page, unsigned char *peek);
/* Nothing comes of it. */
void vmemi_source_drop_entry(struct vmem_region *r, struct vmemi_source_load *l);
/* The page is claimed: asks for it. The answer of the caller's function, if it is one, goes where the load's
 * goes. Or it comes to nothing, and the page is wanted again. */
void vmemi_source_call(struct vmem_region *r, struct vmemi_source_load *l, unsigned char *buffer);
/* Gives up loads that took too long. */
void vmemi_source_give_up_loads(struct vmemi_host *host);
/* A claimed page is lost. 0, -VMEM_EAGAIN: not now; the claim stays. */
int vmemi_source_lose(struct vmem_region *r, uint64_t page, int error);
/* Nothing comes of the claim on a page that was with its source: it is wanted again, and whoever waits for it waits
 * on. If its process has removed it meanwhile, it is absent. */
void vmemi_source_return(struct vmem_region *r, uint64_t page);

/* Claims a wanted page; with a frame, or to lose it with none. 0; -VMEM_EAGAIN: not now; -VMEM_ENOENT: its
 * bytes are not with the source. */
int vmemi_source_claim(struct vmem_region *r, uint64_t page, bool to_lose);
/* Who waits for a page that is not with the source tries again, and finds it as it is now. */
void vmemi_source_wake(struct vmem_region *r, uint64_t page);

/* Gives up wanted pages that have waited too long to be asked for. */
void vmemi_source_give_up_wanted(struct vmemi_host *host);
/* The pages @bits of a group are not wanted any more, for now. The lock is held. */
void vmemi_source_not_waiting(struct vmemi_source *s, uint64_t group, uint64_t bits);
/* Notes that a page is wanted, for who will look anyway. */
void vmemi_source_want_again(struct vmem_region *r, uint64_t page);

#endif
