/* SPDX-License-Identifier: BSD-2-Clause */
/* A handler of faults and what it holds, for handler.c and handler_read.c alone. */
#ifndef VMEMI_HANDLER_HELD_H
#define VMEMI_HANDLER_HELD_H
#include "linux/fault/handler.h"

#define VMEMI_HANDLER_AROUND 32 /* faults whose neighbours are to be brought */

enum vmemi_held_for {
	VMEMI_HELD_BUSY,  /* another thread is at the page */
	VMEMI_HELD_FRAME, /* no frame */
	VMEMI_HELD_REFUSED, /* the kernel refuses it: its process, which is not this one, is removing pages */
	VMEMI_HELD_LOADING /* a slow load is under way */
};

struct vmemi_held {
	struct vmem_region *region;
	struct vmemi_fault fault;
	uint64_t arrived_ns;
	uint64_t load_began_ns; /* of a slow load */
	uint64_t refused_ns;    /* when it was */
	enum vmemi_held_for why;
	int error;    /* of a load that is over */
	bool blocks;  /* somebody is counted as blocked by it */
	bool over;    /* the load is over */
	bool gave_up; /* it took too long */
};

struct vmemi_handler {
	struct vmemi_host *host;
	struct vmemi_handler_sign *sign;
	uint32_t index;
	uint64_t spin_ns;
	_Atomic uint32_t busy, refused; /* atomic; held faults by what they wait for */
	_Atomic uint32_t unheeded;      /* atomic; there are removals to be seen to */
	struct vmemi_lock lock;         /* guards all below; held while serving */
	bool peers_called;              /* a poll was over because of peers */
	uint32_t count;
	uint32_t around_count;
	struct vmemi_around around[VMEMI_HANDLER_AROUND]; /* neighbours to be brought, in between */
	struct vmemi_held
		held[VMEMI_HANDLER_HELD]; /* sign->most faults, and loads that it has adopted */
};

/* A fault that comes in: served, or held back, or sent back. True if it was served. */
bool vmemi_handler_take_in(struct vmemi_handler *h, struct vmemi_held *e);

/* A page has come for who missed it: notes to bring what is around it. */
void vmemi_handler_note_around(struct vmemi_handler *h, const struct vmemi_held *e);

/* Reads messages once, and takes their faults in: of memory here and in other processes; of peers, which the first
 * handler alone does. True if something came in. */
bool vmemi_handler_read(struct vmemi_handler *h);
bool vmemi_handler_read_peers(struct vmemi_handler *h);

#endif
