/* SPDX-License-Identifier: BSD-2-Clause */
/* Room on devices that are full: see out.h and out_ways.h. What is dropped leaves holes in copies of segments. Where
 * something should leave and no device has room for it, the copy of which most is dead is read whole into the scratch,
 * what is live of it is packed there and written to fewer slots, and those that it had are free once no load reads them.
 * The old copy stays what it is until the new one is written: an error on the way changes nothing. The greatest
 * holes first, as they cost least for what is won (Rosenblum and Ousterhout, SOSP 1991, section 3.5).
 *
 * The new copy goes to a gap that it fits into. For when there is none, as many slots as a whole segment has are kept free
 * on one of the devices once half of all is taken, but not where all are few; then those of the old copy are kept in
 * their stead. So
 * it goes on as long as there are copies of which a quarter is dead, and comes to an end, because what is dead gets less
 * with each.
 *
 * What was read is believed if the headers of what lives say so; a page that is damaged is found by the load that asks
 * for it. All here is the section's. */
#include "store/out_ways.h"
#include "store/store_internal.h"

#define LOOKS 1024u                         /* at slots, in one call */
#define SEGMENTS 64u                        /* at segments */
#define PAUSE_NS UINT64_C(10000000)         /* after nothing was found, or something failed */
#define ROUND_NS UINT64_C(1000000000)       /* until what failed is tried again */
#define SPARE_FROM (16u * VMEMI_OUT_BLOCKS) /* slots of devices: less have none to spare */

/* --- What is kept free --- */

/* Whether room there is of use. */
static bool is_of_use(const struct vmemi_out_device *d)
{
	return atomic_load(&d->open) && !atomic_load(&d->bad) && !atomic_load(&d->worn) &&
	       !atomic_load(&d->leaving) && !vmemi_out_is_silent(d);
}

/* Slots of the devices that may be written. */
static uint64_t slots_of_use(const struct vmemi_out *out)
{
	uint32_t devices = atomic_load_explicit(&out->devices, memory_order_acquire);
	uint64_t slots = 0;

	for (uint32_t i = 0; i < devices; i++)
		slots += is_of_use(&out->device[i]) ? out->device[i].slots : 0;
	return slots;
}

static uint64_t spare_of(const struct vmemi_out *out)
{
	return atomic_load_explicit(&out->spare, memory_order_relaxed);
}

static void set_spare(struct vmemi_out *out, uint64_t place)
{
	atomic_store_explicit(&out->spare, place, memory_order_relaxed);
}

void vmemi_out_keep_spare(struct vmemi_out *out)
{
	uint64_t spare = spare_of(out);
	uint64_t taken = atomic_load_explicit(&out->taken, memory_order_relaxed);
	uint64_t slots = slots_of_use(out);
	uint32_t room = atomic_load(&out->room);

	if (spare != VMEM_SLOTS_NONE &&
	    (!is_of_use(&out->device[VMEM_SLOT_DEVICE(spare)]) || taken < slots / 4)) {
		set_spare(out, VMEM_SLOTS_NONE);
		vmemi_out_give_unused(out, spare, VMEMI_OUT_BLOCKS);
	}
	/* Where there was none, there is none before something is given back. */
	if (spare_of(out) != VMEM_SLOTS_NONE || room == out->spare_room || slots < SPARE_FROM ||
	    taken < slots / 2)
		return;
	if (vmem_slots_take(out->slots, &out->cursor, VMEMI_OUT_BLOCKS, 0, &spare)) {
		out->spare_room = room;
		return;
	}
	vmemi_out_has_taken(out, VMEMI_OUT_BLOCKS);
	set_spare(out, spare);
}

/* Its first slots are the segment's, the others free. */
static bool take_spare(struct vmemi_out *out, struct vmemi_write *w)
{
	uint32_t blocks = w->leaving.bytes / VMEMI_OUT_BLOCK;
	uint64_t spare = spare_of(out);

	if (spare == VMEM_SLOTS_NONE || atomic_load(&out->device[VMEM_SLOT_DEVICE(spare)].full))
		return false;
	for (uint32_t i = 0; i < blocks; i++)
		(void)vmem_slots_set_owner(out->slots, spare + i, w->leaving.number);
	set_spare(out, VMEM_SLOTS_NONE);
	w->slot = spare;
	if (blocks < VMEMI_OUT_BLOCKS) { /* nobody waits for so few */
		(void)vmem_slots_give(out->slots, spare + blocks, VMEMI_OUT_BLOCKS - blocks);
		vmemi_out_has_taken(out, (int)blocks - (int)VMEMI_OUT_BLOCKS);
	}
	return true;
}

/* --- Packing --- */

/* A copy of which something is dead. */
struct sparse {
	uint64_t place; /* VMEM_SLOTS_NONE: none was found */
	uint32_t number, live;
	uint32_t dead; /* blocks, as live */
};

static void pause_room(struct vmemi_out *out)
{
	uint64_t now_ns = vmemi_counter(&out->now_ns);

	out->room_ns = now_ns ? now_ns + PAUSE_NS : 0; /* not told: each call is one more time */
}

/* An owner: the segment's number, and that it has failed in this round; no device that leaves has such a one. */
static uint64_t mark_of(const struct vmemi_out *out, uint32_t number)
{
	return (UINT64_C(1) << 31 | out->room_round) << 32 | number;
}

void vmemi_out_shun(struct vmemi_out *out, const struct vmemi_write *w)
{
	(void)vmem_slots_set_owner(out->slots, w->moving.place, mark_of(out, w->moving.number));
	pause_room(out);
}

/* All have been looked at. */
static void begin_again(struct vmemi_out *out)
{
	uint64_t now_ns = vmemi_counter(&out->now_ns);

	out->room_hand = 0;
	pause_room(out); /* unless something was found */
	if (now_ns && now_ns - out->round_ns < ROUND_NS)
		return;
	out->round_ns = now_ns;
	out->room_round = (out->room_round + 1) % (UINT32_C(1) << 31);
}

/* Among the next segments, the one of which most is dead, and the one of which least is live. */
static void look_for_sparse(vmem_store *store, struct sparse *most, struct sparse *least)
{
	struct vmemi_out *out = store->out;

	most->place = least->place = VMEM_SLOTS_NONE;
	most->dead = 0;
	least->live = UINT32_MAX;
	for (uint32_t looks = 0, found = 0; looks < LOOKS && found < SEGMENTS; looks++) {
		struct sparse s;
		uint64_t owner;
		uint32_t blocks;

		if (vmem_slots_next(out->slots, out->room_hand, &s.place, &owner)) {
			begin_again(out);
			return;
		}
		s.number = (uint32_t)owner;
		out->room_hand = s.place + 1;
		if (!vmemi_pool_copy_blocks(store->pool, s.number, s.place, &blocks, &s.live))
			continue;
		found++;
		out->room_hand = s.place + blocks;
		s.dead = blocks > s.live ? blocks - s.live : 0;
		if (s.dead < (blocks + 3) / 4 || owner == mark_of(out, s.number) ||
		    !is_of_use(&out->device[VMEM_SLOT_DEVICE(s.place)]))
			continue;
		*most = s.dead > most->dead ? s : *most;
		*least = s.live < least->live ? s : *least;
	}
}

/* A gap, or what is kept free. That there is room for it does not say that there is for a whole one. */
static bool take(struct vmemi_out *out, struct vmemi_write *w)
{
	uint32_t blocks = w->leaving.bytes / VMEMI_OUT_BLOCK;

	if (vmem_slots_take_except(out->slots, &out->cursor, vmemi_out_full_ones(out), blocks,
				   w->leaving.number, &w->slot))
		return take_spare(out, w);
	vmemi_out_has_taken(out, (int)blocks);
	return true;
}

/* False: there is no place for it, or nothing of it any more. */
static bool begin(vmem_store *store, struct vmemi_write *w, const struct sparse *s)
{
	struct vmemi_out *out = store->out;

	if (s->place == VMEM_SLOTS_NONE || !s->live ||
	    vmemi_pool_move_begin(store->pool, s->number, s->place, &w->moving))
		return false;
	w->way = VMEMI_WAY_ALONG;
	w->leaving = (struct vmemi_leaving){ .number = s->number,
					     .data = w->scratch,
					     .bytes = s->live * VMEMI_OUT_BLOCK };
	if (!take(out, w)) {
		vmemi_pool_move_cancel(store->pool, &w->moving);
		return false;
	}
	w->packs = true;
	out->room_ns = 0;
	vmemi_out_start_reading(out, w, VMEM_SLOT_DEVICE(s->place));
	return true;
}

void vmemi_out_make_room(vmem_store *store, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;
	struct sparse most, least;

	if (out->moving || vmemi_counter(&out->now_ns) < out->room_ns ||
	    (!vmemi_pool_wanted_out(store->pool) && !vmemi_pool_waiting(store->pool) &&
	     !atomic_load_explicit(&out->requested, memory_order_relaxed)) ||
	    !vmemi_out_scratch(store, w))
		return;
	look_for_sparse(store, &most, &least);
	if (!begin(store, w, &most))
		(void)begin(store, w, &least);
}

int vmemi_out_pack(vmem_store *store, struct vmemi_write *w)
{
	uint32_t taken = w->leaving.bytes / VMEMI_OUT_BLOCK, blocks, bytes;
	int rc = vmemi_pool_move_pack(store->pool, &w->moving, w->scratch, &bytes);

	if (rc)
		return rc;
	blocks = bytes / VMEMI_OUT_BLOCK;
	w->leaving.bytes = bytes;
	if (blocks < taken) /* some was dropped since they were taken */
		vmemi_out_give_unused(store->out, w->slot + blocks, taken - blocks);
	return 0;
}
