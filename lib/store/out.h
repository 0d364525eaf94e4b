/* SPDX-License-Identifier: BSD-2-Clause */
/* What of a store is on devices: the devices, writes and reads in flight.
 *
 * Segments are written from a section that one thread is in at a time (others go on without waiting); reads belong
 * to windows, one for each load in progress, in memory that is there from the beginning. Whoever reaps a
 * completion goes on with its window or notes the end of its write. No lock is held over a call of a device. */
#ifndef VMEMI_OUT_H
#define VMEMI_OUT_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/slots.h>
#include <vmem/store_device.h>
#include "base/lock.h"
#include "pool/pool_out.h"
#include "store/inflight.h"

#define VMEMI_WINDOWS 32u /* a bit each in a word */
#define VMEMI_WRITES 8u
#define VMEMI_PIECE_BYTES (VMEMI_OUT_OBJECT_BLOCKS * VMEMI_OUT_BLOCK)
#define VMEMI_WINDOW_BYTES (VMEMI_PIECES * VMEMI_PIECE_BYTES)

struct vmemi_out_device {
	struct vmem_device *device; /* constant */
	uint64_t slots;             /* constant */
	uint64_t wear_bytes;        /* constant; a day, 0: no limit */
	_Atomic uint64_t day_bytes; /* atomic, written in the section; written today */
	uint32_t failures;          /* section; writes in a row that say that it is bad */
	_Atomic bool bad, worn;     /* atomic, written in the section */
	_Atomic uint32_t flying;    /* atomic; requests in flight */
	_Atomic uint64_t written_bytes, read_bytes, write_errors, read_errors; /* atomic */
};

/* A load on its way. Of one thread at a time: who began it, then who reaps its read. */
struct vmemi_window {
	struct vmemi_load load;
	vmem_store_token token;
	struct vmemi_located at[VMEMI_PIECES];
	uint32_t first[VMEMI_PIECES];  /* blocks of the copy, which are read */
	uint32_t blocks[VMEMI_PIECES]; /* from it on */
	uint32_t count;                /* of them, those that are read */
	_Atomic uint32_t use;          /* atomic; grows with each read; in its tag */
	unsigned char *buffer;
};

enum vmemi_write_state {
	VMEMI_WRITE_IDLE,
	VMEMI_WRITE_QUEUED,  /* the device was full */
	VMEMI_WRITE_FLYING,  /* submitted */
	VMEMI_WRITE_OVER,    /* with an error or none */
	VMEMI_WRITE_PARTING, /* it is out, a reader is in its memory */
};

/* A segment on its way. The section's, but while FLYING of who reaps it. */
struct vmemi_write {
	_Atomic uint32_t state; /* atomic */
	int32_t error;
	uint32_t tries;
	_Atomic uint32_t use; /* atomic; grows with each write; in its tag */
	uint64_t slot;
	struct vmemi_leaving leaving;
	unsigned char *scratch; /* NULL until it is needed first */
};

struct vmemi_out {
	vmem_slots *slots;
	struct vmem_slots_cursor cursor; /* section */
	struct vmemi_out_device device[VMEM_STORE_DEVICES];
	_Atomic uint32_t devices; /* atomic; publishes them */

	_Atomic uint32_t idle;    /* atomic; windows, a bit each */
	_Atomic uint32_t waiting; /* atomic; windows whose device was full */
	struct vmemi_window window[VMEMI_WINDOWS];
	/* atomic, changed by who has the window; but anybody cools. What is in its buffer still: see out_warm.c */
	_Atomic uint64_t warm[VMEMI_WINDOWS][VMEMI_PIECES];
	_Atomic uint32_t
		warm_stamp[VMEMI_WINDOWS]; /* atomic; the least has been warm for longest */
	_Atomic uint32_t warm_clock;       /* atomic */
	unsigned char *buffers;

	_Atomic bool section;     /* atomic; a thread is in it */
	_Atomic uint32_t writing; /* atomic; writes that are not idle */
	struct vmemi_write write[VMEMI_WRITES];
	uint32_t hand;              /* section */
	uint64_t day_ns;            /* section; when it began, 0: not told yet */
	_Atomic uint64_t scratches; /* atomic; made */
	_Atomic bool full;          /* atomic; no device has room, and none was given back since */
	_Atomic uint32_t requested; /* atomic; segments, by vmem_store_write_out() */
	_Atomic uint64_t loads, lost; /* atomic; since the start, as these */
	_Atomic uint64_t warm_loads, offers;
	_Atomic uint64_t saves_waited, no_room;
};

/* out.c. With it all in flight ends. */
void vmemi_out_free(vmem_store *store);
uint64_t vmemi_out_bytes(vmem_store *store); /* of memory */

/* Takes completions of all devices and goes on with what waits. Any thread. */
void vmemi_out_poll(vmem_store *store);

/* Submits one request. As submit() of the device. */
int vmemi_out_submit(struct vmemi_out *out, uint32_t device, uint32_t op, uint64_t offset,
		     uint64_t bytes, void *data, uint64_t tag);

/* out_load.c: a load of what is out. As vmem_store_load(), but it does not count what is done at once. Any thread. */
int vmemi_out_load(vmem_store *store, const struct vmemi_load *load, vmem_store_token *ret_token);
/* Its read has ended. */
void vmemi_out_has_read(vmem_store *store, uint64_t tag, int error);
/* Reads that found their device full are tried again. */
void vmemi_out_retry_reads(vmem_store *store);

/* out_warm.c: a window of the caller's, cold. NULL: none is idle. Any thread, as the next ones. */
struct vmemi_window *vmemi_window_take(struct vmemi_out *out);
void vmemi_window_give(struct vmemi_out *out, struct vmemi_window *w);
/* What it has read stays of use. The copies that it was read from are held. */
void vmemi_window_warm(struct vmemi_out *out, const struct vmemi_window *w);
/* These blocks are no copy any more. */
void vmemi_window_cool(struct vmemi_out *out, uint64_t place, uint32_t blocks);
/* A load from what was read before. 0, -VMEM_EAGAIN: it is not there. */
int vmemi_warm_load(vmem_store *store, const struct vmemi_load *load);
/* Pages of the same VM that can be loaded from a window that has been read. */
void vmemi_window_offers(vmem_store *store, const struct vmemi_window *w,
			 struct vmemi_offers *ret_offers);

static inline unsigned char *vmemi_window_buffer(const struct vmemi_window *w, uint32_t piece)
{
	return w->buffer + piece * VMEMI_PIECE_BYTES;
}

/* out_write.c: slots of a device from then on, filled in and not published yet; publishes it. As vmem_slots_add(). */
int vmemi_out_join(vmem_store *store, uint32_t number, const struct vmem_slots_device *slots);
/* Slots are free again. Any thread. */
void vmemi_out_give(struct vmemi_out *out, uint64_t place, uint32_t blocks);
/* A write has ended. */
void vmemi_out_has_written(struct vmemi_out *out, uint64_t tag, int error);
/* What is written goes out. True: memory has become free. Any thread. */
bool vmemi_out_settle(vmem_store *store);
/* Begins what is to be written. True: some of it, and there is more; false where devices are what is waited for. Any
 * thread; @now_ns 0: not told. */
bool vmemi_out_write(vmem_store *store, uint64_t now_ns);
/* A save found no room. True: it may try again. */
bool vmemi_out_relieve(vmem_store *store);

/* Blocks of a copy that an object is in. */
static inline uint32_t vmemi_out_first(const struct vmemi_located *at)
{
	return at->offset / VMEMI_OUT_BLOCK;
}

static inline uint32_t vmemi_out_end(const struct vmemi_located *at)
{
	return (at->offset + at->bytes + VMEMI_OUT_BLOCK - 1) / VMEMI_OUT_BLOCK;
}

/* In tags: the rest is the window's or write's number and use. */
#define VMEMI_TAG_WRITE UINT64_C(0x80)

static inline uint64_t vmemi_out_tag(uint64_t kind, uint32_t number, uint32_t use)
{
	return (uint64_t)use << 32 | kind | number;
}

#endif
