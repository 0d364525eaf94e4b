/* SPDX-License-Identifier: BSD-2-Clause */
/* Serving one fault: the same code for the handler thread, SIGBUS, and calls of the VMM.
 * Allocates nothing, logs nothing, and takes no lock but a short one of the store for a slow load. */
#ifndef VMEMI_SERVE_H
#define VMEMI_SERVE_H
#include "linux/region/table.h"

enum vmemi_served {
	VMEMI_SERVED,   /* the page is there, and who waited was woken */
	VMEMI_PUT_OFF,  /* another thread is at it; ask again soon, or be woken by it */
	VMEMI_NO_FRAME, /* the budget's reserve is empty; ask again when frames were freed */
	VMEMI_LOADING,  /* a slow load was begun: see token */
	VMEMI_SLOW,     /* it would be a slow load, and the caller takes none */
	VMEMI_ASKED,    /* its bytes are with the caller, who is asked; who waits will be woken */
	VMEMI_POISONED  /* the page's bytes are gone */
};

enum vmemi_fault_kind {
	VMEMI_FAULT_MISSING,
	VMEMI_FAULT_PROTECTED /* a write to a write-protected page */
};

struct vmemi_fault {
	const struct vmemi_at *at; /* the peer's mapping that faults; NULL: the region's own */
	uint64_t page;
	enum vmemi_fault_kind kind;
	bool write;
	bool demand;    /* somebody waits for it: it counts as an access */
	bool force;     /* take a frame even if the budget has none */
	bool own_frame; /* others wait for frames: take none but its own, from staging */
	bool may_reclaim; /* the caller may do the library's work where no thread does (not in a signal) */
	bool take_slow; /* the caller can wait for a slow load: then these are set: */
	/* holds the page when the load is over; give it to vmemi_serve_loaded() */
	unsigned char *buffer;
	vmem_store_token token;
	vmem_store_ref late_ref; /* given up: to be dropped when the load is over */
	uint64_t waited_ns;      /* by vmemi_serve_wait(), and counted by it */
};

enum vmemi_served vmemi_serve(struct vmem_region *r, struct vmemi_fault *fault);

/* The end of a slow load: installs the page, or poisons it if @error is not 0. */
enum vmemi_served vmemi_serve_loaded(struct vmem_region *r, struct vmemi_fault *fault, int error);

/* Gives up a slow load that took too long: the page is poisoned now. Buffer and ref stay the store's
 * until the load is over, and vmemi_serve_loaded() is called for it all the same. False: not now. */
bool vmemi_serve_give_up(struct vmem_region *r, struct vmemi_fault *fault, int error);

/* Poisons an absent page whose bytes are gone, and tells the VMM. VMEMI_POISONED, VMEMI_PUT_OFF. */
enum vmemi_served vmemi_serve_lose(struct vmem_region *r, uint64_t page, int error);

/* For callers that can do nothing but wait (SIGBUS, resolve, pin): serves until the page is there.
 * VMEMI_SERVED, VMEMI_POISONED, or, to who may reclaim, VMEMI_NO_FRAME: there is none to be had. */
enum vmemi_served vmemi_serve_wait(struct vmem_region *r, struct vmemi_fault *fault);

/* Of who waits for the frame of one page; zeros to begin with. */
struct vmemi_hope {
	uint64_t stuck_since_ns;  /* 0: reclaim was not stuck when last seen */
	uint32_t rounds, unstuck; /* of the host, then */
};

/* Waits for a frame, which was not to be had since @sequence of host->frames was read. False: reclaim
 * has been stuck for a second, and has looked meanwhile. */
bool vmemi_serve_wait_for_frame(struct vmemi_host *host, uint32_t sequence,
				struct vmemi_hope *hope);

/* Asks the handler for a page whose load is slow. */
void vmemi_serve_want(struct vmem_region *r, uint64_t page);

/* Parts of serving a page that is claimed, for loads from the caller (source.h). */

/* Makes the page an error to touch; from when the claim has ended a discard may heal it. Where the kernel
 * cannot do that, whoever touches it waits for good: never zeros. False: not now. */
bool vmemi_serve_poison(struct vmem_region *r, uint64_t page);
/* Tells the VMM that it is lost; then its claim is ended by LOSE. */
void vmemi_serve_tell_lost(struct vmem_region *r, uint64_t page, int error);
/* Counts an arrival from where it was. */
void vmemi_serve_count(struct vmem_region *r, struct vmemi_fault *f, enum vmem_page_state from);

/* Neighbours of a page that was just served, to be brought back in pieces: see around.c. */
struct vmemi_around {
	struct vmem_region *region;
	uint64_t page; /* that was served */
	uint64_t done; /* pages of the plan */
	bool write;    /* for writing */
	struct vmemi_neighbours_plan plan;
};

/* False: none have paid so far. */
bool vmemi_around_begin(struct vmemi_around *a, struct vmem_region *r, uint64_t page, bool write);
/* Brings a few of them. False: that was all. */
bool vmemi_around_some(struct vmemi_around *a);

#endif
