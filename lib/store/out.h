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
#define VMEMI_HOT 8u
#define VMEMI_DISCARDS 8u
#define VMEMI_STUCK 256u
#define VMEMI_PIECE_BYTES (VMEMI_OUT_OBJECT_BLOCKS * VMEMI_OUT_BLOCK)
#define VMEMI_WINDOW_BYTES (VMEMI_PIECES * VMEMI_PIECE_BYTES)
#define VMEMI_READS (VMEMI_WINDOWS * VMEMI_PIECES) /* a bit each in a word; numbers in tags */

/* Its place in the table is the device's number in slots, and may be another's later on; who calls its functions, or
 * those of slots for what lies there, holds it: vmemi_out_hold(). */
struct vmemi_out_device {
	struct vmem_device *device; /* while there is one, as these; NULL: there is none */
	uint32_t number;            /* the caller's name of it */
	uint64_t slots;
	uint64_t wear_bytes; /* a day, 0: no limit */
	uint64_t timeout_ns;
	_Atomic bool silent; /* atomic; a read was not answered in time, nor anything since */
	_Atomic uint32_t
		doubt; /* atomic; loads that must succeed until it is thought to be readable */
	/* Both atomic, sequentially consistent: who closes it clears `open`, then looks for holders. */
	_Atomic bool open;
	_Atomic uint32_t holders;
	_Atomic bool leaving; /* atomic, written in the section */
	_Atomic bool
		gives_up;  /* atomic, written in the section; what cannot be read there is lost */
	uint32_t round;    /* section; grows when those that could not be moved are tried again */
	uint64_t round_ns; /* section; when it began */
	uint64_t hand;     /* section; where to look for the next segment that moves */
	uint64_t round_bytes;              /* section; that could not be read in this round */
	_Atomic uint64_t unreadable_bytes; /* atomic; and in the one before, if that was more */
	_Atomic uint64_t day_bytes;        /* atomic, written in the section; written today */
	uint32_t failures;                 /* section; writes in a row that say that it is bad */
	_Atomic bool bad, worn;            /* atomic, written in the section */
	_Atomic bool full;                 /* likewise; a write found no space */
	uint64_t full_ns;                  /* section; since when; 0: not told yet */
	_Atomic bool given;      /* atomic; slots of what was written there were given back */
	_Atomic uint32_t flying; /* atomic; requests in flight */
	_Atomic uint64_t written_bytes, read_bytes, write_errors, read_errors; /* atomic */
};

/* An object of a load, and the read of its blocks. Its window's, but in flight of who takes that out of `flight`, and
 * while it waits of who takes its bit. */
struct vmemi_read {
	struct vmemi_located at;
	uint32_t first;  /* blocks of the copy, which are read */
	uint32_t blocks; /* from it on */
	int32_t error;   /* when it is over */
	uint32_t tries;  /* of this load: reads that have failed, or brought something else */
	uint32_t use;    /* grows with each read; in its tag */
	_Atomic uint32_t flight;   /* atomic; the use of the read in flight, or 0: out_expire.c */
	_Atomic uint32_t device;   /* atomic; of it */
	_Atomic uint64_t since_ns; /* atomic; 0: not told yet */
	unsigned char *buffer;
};

/* A load on its way. Of one thread at a time: who began it, then who ends the last one of its reads. */
struct vmemi_window {
	struct vmemi_load load;
	vmem_store_token token;
	uint32_t count;         /* of pieces that are read, or being read */
	_Atomic uint32_t reads; /* atomic; of them, those that are not over */
	struct vmemi_read piece[VMEMI_PIECES];
};

enum vmemi_write_state {
	VMEMI_WRITE_IDLE,
	VMEMI_WRITE_QUEUED,  /* the device was full */
	VMEMI_WRITE_FLYING,  /* submitted */
	VMEMI_WRITE_OVER,    /* with an error or none */
	VMEMI_WRITE_PARTING, /* it is where it shall be, and a reader is where it was */
	/* Before these, of what comes from a device: */
	VMEMI_READ_QUEUED,
	VMEMI_READ_FLYING,
	VMEMI_READ_OVER,
};

enum vmemi_write_way {
	VMEMI_WAY_OUT,   /* from memory */
	VMEMI_WAY_ALONG, /* from one device to another */
	VMEMI_WAY_HOME,  /* into memory */
};

/* A segment on its way. The section's, but while FLYING of who reaps it. */
struct vmemi_write {
	enum vmemi_write_way way;
	_Atomic uint32_t state; /* atomic */
	int32_t error;
	uint32_t tries;
	uint32_t use;                 /* grows with each write; in its tag */
	_Atomic uint32_t flight;      /* atomic; as of a window */
	uint64_t since_ns;            /* likewise */
	uint64_t slot;                /* where it goes; VMEM_SLOTS_NONE: not known yet */
	struct vmemi_leaving leaving; /* of all ways: number, data and bytes of what is written */
	struct vmemi_moving moving;   /* ALONG, HOME */
	bool packs;                   /* ALONG: to make room, see out_room.c; else false */
	struct vmemi_homing homing;   /* HOME */
	uint32_t from;                /* ALONG, HOME: the device */
	unsigned char *scratch;       /* NULL: it has none; section */
};

enum vmemi_discard_state { VMEMI_DISCARD_IDLE, VMEMI_DISCARD_QUEUED, VMEMI_DISCARD_FLYING };

/* Slots that are being discarded. As a write. */
struct vmemi_discard {
	_Atomic uint32_t state;  /* atomic */
	uint32_t use;            /* grows with each; in its tag */
	_Atomic uint32_t flight; /* atomic; as of a window */
	uint64_t since_ns;       /* likewise */
	uint32_t count;
	uint64_t slot;
};

/* What a request that is over by time still has. */
struct vmemi_stuck {
	_Atomic uint64_t tag;    /* atomic; 0: none */
	_Atomic bool done;       /* atomic; it has been answered */
	_Atomic uint32_t device; /* atomic */
	unsigned char *memory,
		*home;    /* section, as the next ones; NULL: none; of the store, of the pool */
	size_t bytes;     /* of memory */
	uint32_t segment; /* 0: none */
};

struct vmemi_out {
	vmem_slots *slots;
	struct vmem_slots_cursor cursor; /* section */
	_Atomic uint64_t taken;          /* atomic; slots */
	struct vmemi_out_device device[VMEM_STORE_DEVICES];
	_Atomic uint32_t devices; /* atomic; places of the table that were ever used */
	uint32_t numbers;         /* of the caller's, ever; vmem_store_add_device() */
	_Atomic uint32_t parting; /* atomic; odd while a device may be on the point of going */

	_Atomic uint32_t idle;    /* atomic; windows, a bit each */
	_Atomic uint64_t waiting; /* atomic; reads whose device was full, by their number */
	struct vmemi_window window[VMEMI_WINDOWS];
	/* atomic, changed by who has the window; but anybody cools. What is in its buffer still: see out_warm.c */
	_Atomic uint64_t warm[VMEMI_WINDOWS][VMEMI_PIECES];
	_Atomic uint32_t
		warm_stamp[VMEMI_WINDOWS]; /* atomic; the least has been warm for longest */
	_Atomic uint32_t warm_clock;       /* atomic */
	_Atomic uint32_t warming;          /* atomic; loads that look whether a window has theirs */
	unsigned char *buffers;

	_Atomic bool section;     /* atomic; a thread is in it */
	_Atomic uint32_t writing; /* atomic; writes that are not idle */
	uint32_t moving;          /* section; of them, those that come from a device */
	struct vmemi_write write[VMEMI_WRITES];
	struct vmemi_discard discard[VMEMI_DISCARDS];
	struct vmemi_stuck stuck[VMEMI_STUCK];
	uint32_t hand;              /* section */
	uint64_t day_ns;            /* section; when it began, 0: not told yet */
	_Atomic uint64_t scratches; /* atomic; made */
	_Atomic bool full;          /* atomic; no device has room, and none has had since */
	_Atomic uint32_t room; /* atomic; grows when there is room again: vmemi_out_has_room() */
	_Atomic uint32_t requested;   /* atomic; segments, by vmem_store_write_out() */
	_Atomic uint64_t loads, lost; /* atomic; since the start, as these */
	_Atomic uint64_t warm_loads, offers, passed;
	_Atomic uint64_t now_ns; /* atomic; of vmem_store_work() */
	_Atomic uint64_t
		hot[VMEMI_HOT];    /* atomic; places of segments that shall come home; 0: none */
	_Atomic uint32_t hot_hand; /* atomic; the next one's */
	/* out_room.c: the first of VMEMI_OUT_BLOCKS free slots that are kept; VMEM_SLOTS_NONE: there are none. Atomic,
	 * written in the section, as the next ones are. */
	_Atomic uint64_t spare;
	uint32_t spare_room;    /* `room` when there was none */
	uint64_t room_hand;     /* a slot: where the next segment is looked for */
	uint64_t room_ns;       /* nothing is looked for before */
	uint32_t room_failures; /* in a row */
	bool room_began;        /* something, since all were looked at the last time */
	uint32_t room_round;    /* by which those are marked that failed */
	uint64_t round_ns;      /* when it began */
	_Atomic uint64_t saves_waited, no_room;
	_Atomic uint64_t moved, came_home, given_up, packed;
};

/* out.c. With it all in flight ends. */
void vmemi_out_free(vmem_store *store);
uint64_t vmemi_out_bytes(vmem_store *store); /* of memory */

/* out_device.c: as vmem_store_remove_device(), or vmem_store_abandon_device() if @gives_up, and serial as they are; but
 * with 0 the device is the caller's, to be closed by the other one. */
int vmemi_out_remove(vmem_store *store, uint32_t number, bool gives_up,
		     struct vmem_device **ret_device);
/* That may take long, as it waits for what is in flight there. Any thread, while others use the store. */
void vmemi_out_close(vmem_store *store, uint32_t number, struct vmem_device *device);

/* Takes completions of all devices and goes on with what waits. Any thread. */
void vmemi_out_poll(vmem_store *store);

/* Submits one request to a device where something of the caller's is. As submit() of the device. */
int vmemi_out_submit(struct vmemi_out *out, uint32_t device, uint32_t op, uint64_t offset,
		     uint64_t bytes, void *data, uint64_t tag);

/* False: there is none any more. Any thread. */
static inline bool vmemi_out_hold(struct vmemi_out_device *d)
{
	atomic_fetch_add(&d->holders, 1);
	if (atomic_load(&d->open))
		return true;
	atomic_fetch_sub_explicit(&d->holders, 1, memory_order_release);
	return false;
}

static inline void vmemi_out_release(struct vmemi_out_device *d)
{
	atomic_fetch_sub_explicit(&d->holders, 1, memory_order_release);
}

/* out_trust.c: the device is gone, or could not read what is there. Any thread, as the next ones. */
void vmemi_out_doubt(struct vmemi_out_device *d);
/* It could. */
void vmemi_out_trust(struct vmemi_out_device *d);

/* Room was given back, or came. Any thread. */
static inline void vmemi_out_has_room(struct vmemi_out *out)
{
	atomic_fetch_add(&out->room, 1); /* first: see take_except() */
	atomic_store(&out->full, false);
}

/* out_device.c: slots are free again. Any thread. */
void vmemi_out_give(struct vmemi_out *out, uint64_t place, uint32_t blocks);
/* The same, of slots that nothing was written to: they need not be discarded. */
void vmemi_out_give_unused(struct vmemi_out *out, uint64_t place, uint32_t blocks);
/* The same, of slots that a write to has failed: no space has come of it. */
void vmemi_out_give_failed(struct vmemi_out *out, uint64_t place, uint32_t blocks);
/* They have been discarded after that. Any thread. */
void vmemi_out_discarded(struct vmemi_out *out, uint64_t place, uint32_t blocks);
/* Whether new segments may go there. What is there stays. Section. */
void vmemi_out_enable(struct vmemi_out *out, uint32_t device, bool enabled);

/* out_write.c: a write has ended. */
void vmemi_out_has_written(struct vmemi_out *out, uint64_t tag, int error);
/* What is written goes out. True: memory has become free. Any thread. */
bool vmemi_out_settle(vmem_store *store);
/* Begins what is to be written. True: some of it, and there is more; false where devices are what is waited for. Any
 * thread; @now_ns 0: not told. */
bool vmemi_out_write(vmem_store *store, uint64_t now_ns);
/* Whether pages that do not compress may pass through memory to a device: 0, -VMEM_EFBIG (no device has room),
 * -VMEM_ENOSPC (too many are on their way). Any thread. */
int vmemi_out_takes_raw(vmem_store *store);
/* Such a page was saved. Any thread. */
void vmemi_out_push(vmem_store *store);
/* A save found no room. True: it may try again. */
bool vmemi_out_relieve(vmem_store *store);

/* Whether it need not be asked. With nothing in flight it will never say anything: then it is asked again. */
static inline bool vmemi_out_is_silent(const struct vmemi_out_device *d)
{
	return atomic_load_explicit(&d->silent, memory_order_relaxed) &&
	       atomic_load_explicit(&d->flying, memory_order_relaxed);
}

/* Who takes it has the request that was in flight. */
static inline bool vmemi_out_landed(_Atomic uint32_t *flight, uint64_t tag)
{
	uint32_t use = (uint32_t)(tag >> 32);

	return use && atomic_compare_exchange_strong_explicit(flight, &use, 0, memory_order_acq_rel,
							      memory_order_acquire);
}

/* The next one's number, which is not 0. */
static inline uint32_t vmemi_out_next_use(uint32_t *use)
{
	*use += *use == UINT32_MAX ? 2 : 1;
	return *use;
}

/* In tags: the rest is the window's or write's number and use. */
#define VMEMI_TAG_WRITE UINT64_C(0x80)
#define VMEMI_TAG_DISCARD UINT64_C(0x40)

static inline uint64_t vmemi_out_tag(uint64_t kind, uint32_t number, uint32_t use)
{
	return (uint64_t)use << 32 | kind | number;
}

#endif
