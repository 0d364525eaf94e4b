/* SPDX-License-Identifier: BSD-2-Clause */
/* Of segments on their way, for those that send them: what is called in the section. */
#ifndef VMEMI_OUT_WAYS_H
#define VMEMI_OUT_WAYS_H
#include "store/out.h"

/* out_write.c: one thread at a time. False: another one is there. */
bool vmemi_out_enter(struct vmemi_out *out);
void vmemi_out_leave(struct vmemi_out *out);
/* Nothing more is written there. Section. */
void vmemi_out_is_bad(struct vmemi_out *out, uint32_t device);
/* So many bytes are or may be written to a device; failed writes count. Section. */
void vmemi_out_wear(struct vmemi_out *out, uint32_t device, uint32_t bytes);
/* Devices that have no space, a bit each. */
uint32_t vmemi_out_full_ones(const struct vmemi_out *out);
/* Slots were taken, or with a negative number given back. Any thread. */
static inline void vmemi_out_has_taken(struct vmemi_out *out, int slots)
{
	atomic_fetch_add_explicit(&out->taken, (uint64_t)(int64_t)slots, memory_order_relaxed);
}
/* A place for w->leaving. False: there is none. Section. */
bool vmemi_out_take(struct vmemi_out *out, struct vmemi_write *w);
/* Writes it to its place. Section. */
void vmemi_out_begin(struct vmemi_out *out, struct vmemi_write *w);
/* As the next state; the end of it all. Section. */
void vmemi_out_set(struct vmemi_write *w, enum vmemi_write_state state);
void vmemi_write_end(struct vmemi_out *out, struct vmemi_write *w);
/* Memory of a segment's size, an idle write's own until it has ended. NULL: there is none. Section. */
unsigned char *vmemi_out_scratch(vmem_store *store, struct vmemi_write *w);

/* out_move.c: begins to move one that lies on a device that leaves. False: there is none, or it cannot. Section. */
bool vmemi_out_move(vmem_store *store, struct vmemi_write *w, uint64_t now_ns);
/* As vmemi_out_move(), one that is read often comes home. */
bool vmemi_out_come_home(vmem_store *store, struct vmemi_write *w);
/* A load has read blocks of a copy that is held. Any thread. */
void vmemi_out_heat(struct vmemi_out *out, const struct vmemi_located *located, uint32_t blocks);
/* One that is READ_QUEUED or READ_OVER goes on. Section. */
void vmemi_out_settle_read(vmem_store *store, struct vmemi_write *w);
/* One that comes from a device has been written, or that has failed for good. Section. */
void vmemi_out_moved(vmem_store *store, struct vmemi_write *w, bool written);
/* Whether no reader is in its old copy, which is free then. Section. */
bool vmemi_out_parted(vmem_store *store, struct vmemi_write *w);

/* One that is pinned, way and leaving set, is read from its device. Section. */
void vmemi_out_start_reading(struct vmemi_out *out, struct vmemi_write *w, uint32_t device);

/* out_room.c: where something should leave and no device has room, some is made. Section. */
void vmemi_out_make_room(vmem_store *store, struct vmemi_write *w);
/* What was read is packed: w->leaving is what is to be written. 0, or as vmemi_pool_move_pack(). Section. */
int vmemi_out_pack(vmem_store *store, struct vmemi_write *w);
/* That has failed: not this one again soon, nor another one at once. It is pinned. Section. */
void vmemi_out_shun(struct vmemi_out *out, const struct vmemi_write *w);
/* Takes slots that are kept free for it, or lets go of them where they are not of use. Section. */
void vmemi_out_keep_spare(struct vmemi_out *out);

/* out_discard.c: begins what is to be discarded. Section. */
void vmemi_out_discard(struct vmemi_out *out);
/* Whether some of a device are on their way. Section. */
bool vmemi_out_is_discarding(const struct vmemi_out *out, uint32_t device);
/* One has ended; whichever way. */
void vmemi_out_has_discarded(struct vmemi_out *out, uint64_t tag);
void vmemi_discard_end(struct vmemi_out *out, struct vmemi_discard *x);

/* out_expire.c: what has not been answered in time is over. Section; @now_ns 0: not told. */
void vmemi_out_expire(vmem_store *store, uint64_t now_ns);
/* Such a request has been answered. Any thread. */
void vmemi_out_is_late(struct vmemi_out *out, uint64_t tag);
/* Gives back what was answered, or all. Section. */
void vmemi_out_collect(vmem_store *store, bool all);
/* How many requests of a device are over, but have not been answered. */
uint32_t vmemi_out_stuck_at(const struct vmemi_out *out, uint32_t device);
/* They go with the device, which has another name from now on. Section. */
void vmemi_out_stuck_move(struct vmemi_out *out, uint32_t device, uint32_t to);
/* It is closed: their memory is free. Any thread. */
void vmemi_out_stuck_closed(struct vmemi_out *out, uint32_t device);

#endif
