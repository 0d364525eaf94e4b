/* SPDX-License-Identifier: BSD-2-Clause */
/* Room on devices that are full: see out.h and out_ways.h. What is dropped leaves holes in copies of segments. Where
 * something should leave and no device has room for it, the copy of which most is dead is read whole into the scratch,
 * what is live of it is packed there and written to fewer slots, and those that it had are free once no load reads them.
 * The old copy stays what it is until the new one is written: an error on the way changes nothing. The greatest
 * holes first, as they cost least for what is won (Rosenblum and Ousterhout, SOSP 1991, section 3.5).
 *
 * The new copy goes to a gap that it fits into. For when there is none, as many slots as a whole segment has are kept free
 * on one of the devices once half of all is taken, but not where all are few; then those of the old copy are kept in
 * their stead. So it goes on as long as there are copies of which a quarter is dead, and comes to an end, because what
 * is dead gets less with each.
 *
 * If there are none, what is free may be in gaps. Then a copy that lies between two moves to another one.
 *
 * What was read is believed if the headers of what lives say so; a page that is damaged is found by the load that asks
 * for it. All here is the section's. */
#include "store/out_ways.h"
#include "slots/slots_unused.h"
#include "store/store_internal.h"

#define LOOKS 1024u                      /* at slots, in one call */
#define SMALL (VMEMI_OUT_BLOCKS / 4 * 3) /* blocks: what has more is not worth to be moved aside */
#define WHOLE 1024                       /* gain where a whole segment has room then */
#define GAPS 8u                          /* that are tried for it */
#define SEGMENTS 64u                     /* at segments */
#define PAUSE_NS UINT64_C(10000000)      /* after nothing was found, or something failed */
#define DOUBLINGS 5u                     /* of that, with failures in a row */
#define ROUND_NS UINT64_C(1000000000)    /* until what failed is tried again */
#define SPARE_FROM (16u * VMEMI_OUT_BLOCKS) /* slots of devices: less have none to spare */

/* --- What is kept free --- */

/* Whether room there is of use. */
static bool is_of_use(const struct vmemi_out_device *d)
{
	return atomic_load(&d->open) && !atomic_load(&d->bad) && !atomic_load(&d->worn) &&
	       !atomic_load(&d->leaving) && !vmemi_out_is_silent(d);
}

/* Whether the slot's device can be written to now. */
static bool can_take(const struct vmemi_out *out, uint64_t slot)
{
	const struct vmemi_out_device *d = &out->device[VMEM_SLOT_DEVICE(slot)];

	return is_of_use(d) && !atomic_load(&d->full);
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

	if (spare != VMEM_SLOTS_NONE && (!can_take(out, spare) || taken < slots / 4)) {
		set_spare(out, VMEM_SLOTS_NONE);
		vmemi_out_give_unused(out, spare, VMEMI_OUT_BLOCKS);
	}
	/* Where there was none, there is none before something is given back. */
	if (spare_of(out) != VMEM_SLOTS_NONE || room == out->spare_room || slots < SPARE_FROM ||
	    taken < slots / 2)
		return;
	if (vmem_slots_take_except(out->slots, &out->cursor, vmemi_out_full_ones(out),
				   VMEMI_OUT_BLOCKS, 0, &spare)) {
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
		(void)vmemi_slots_give_unused(out->slots, spare + blocks,
					      VMEMI_OUT_BLOCKS - blocks);
		vmemi_out_has_taken(out, (int)blocks - (int)VMEMI_OUT_BLOCKS);
	}
	return true;
}

/* --- Packing --- */

/* A copy that may be written anew. */
struct copy {
	uint64_t place; /* VMEM_SLOTS_NONE: none was found */
	uint32_t number, live;
	uint32_t dead;             /* blocks, as live */
	uint64_t row_from, row_to; /* slots of its cluster that would be free in a row without it */
	int gain;                  /* of that: the more the better */
};

/* What was found among some. */
struct found {
	struct copy sparse; /* of which most is dead, and a quarter at least */
	struct copy least;  /* likewise, of which least is live */
	struct copy small;  /* that lies between gaps, and is moved with the greatest gain */
};

static void pause_room(struct vmemi_out *out, uint64_t pause_ns)
{
	uint64_t now_ns = vmemi_counter(&out->now_ns);

	out->room_ns = now_ns ? now_ns + pause_ns : 0; /* not told: each call is one more time */
}

/* An owner: the segment's number, and that it has failed in this round; no device that leaves has such a one. */
static uint64_t mark_of(const struct vmemi_out *out, uint32_t number)
{
	return (UINT64_C(1) << 31 | out->room_round) << 32 | number;
}

static void mark(struct vmemi_out *out, uint64_t place, uint32_t number)
{
	(void)vmem_slots_set_owner(out->slots, place, mark_of(out, number));
}

/* The pause is twice as long each time: who waits for room shall see that none is made, and not that something is
 * under way again and again. */
void vmemi_out_shun(struct vmemi_out *out, const struct vmemi_write *w)
{
	mark(out, w->moving.place, w->moving.number);
	pause_room(out, PAUSE_NS << out->room_failures);
	if (out->room_failures < DOUBLINGS)
		out->room_failures++;
}

/* All have been looked at. What has failed is tried again after a while, and not before all others were. */
static void begin_again(struct vmemi_out *out)
{
	uint64_t now_ns = vmemi_counter(&out->now_ns);

	out->room_hand = 0;
	pause_room(out, PAUSE_NS); /* unless something was found */
	if (now_ns && (out->room_began || now_ns - out->round_ns < ROUND_NS)) {
		out->room_began = false;
		return;
	}
	out->round_ns = now_ns;
	out->room_round = (out->room_round + 1) % (UINT32_C(1) << 31);
}

/* With the next device. False: there is none. */
static bool go_on(struct vmemi_out *out)
{
	uint32_t next = VMEM_SLOT_DEVICE(out->room_hand) + 1;

	if (next >= atomic_load_explicit(&out->devices, memory_order_acquire))
		return false;
	out->room_hand = VMEM_SLOT(next, 0);
	return true;
}

/* Where the next slot of its cluster is taken after the first @blocks. */
static uint64_t end_of_gap(const struct vmemi_out *out, uint64_t slot, uint32_t blocks)
{
	uint64_t end = slot - slot % VMEM_SLOTS_CLUSTER + VMEM_SLOTS_CLUSTER, next, owner;

	if (!vmem_slots_next(out->slots, slot + blocks, &next, &owner) && next < end)
		end = next;
	return end;
}

/* What is free around it; all from @from on is. Without it, a whole segment has room, or what is free is in less gaps. */
static void look_around(const struct vmemi_out *out, struct copy *c, uint64_t from, uint32_t blocks)
{
	uint64_t cluster = c->place - c->place % VMEM_SLOTS_CLUSTER;
	int row;

	c->row_from = from > cluster ? from : cluster;
	c->row_to = end_of_gap(out, c->place, blocks);
	row = (int)(c->row_to - c->row_from);
	c->gain = (row < (int)VMEMI_OUT_BLOCKS ? row - (int)blocks : WHOLE) - (int)c->live;
}

static void note(const struct vmemi_out *out, struct found *f, const struct copy *c,
		 uint32_t blocks)
{
	if (c->dead >= (blocks + 3) / 4) {
		f->sparse = c->dead > f->sparse.dead ? *c : f->sparse;
		f->least = c->live < f->least.live ? *c : f->least;
	}
	if (c->gain > f->small.gain && c->live <= SMALL && c->row_to - c->row_from > blocks &&
	    !atomic_load(&out->device[VMEM_SLOT_DEVICE(c->place)].full))
		f->small = *c;
}

/* Among the next segments. */
static void look(vmem_store *store, struct found *f)
{
	struct vmemi_out *out = store->out;

	*f = (struct found){ .sparse.place = VMEM_SLOTS_NONE,
			     .least = { .place = VMEM_SLOTS_NONE, .live = UINT32_MAX },
			     .small = { .place = VMEM_SLOTS_NONE, .gain = -WHOLE } };
	for (uint32_t looks = 0, found = 0; looks < LOOKS && found < SEGMENTS; looks++) {
		uint64_t owner, from = out->room_hand;
		uint32_t blocks;
		struct copy c;

		if (vmem_slots_next(out->slots, from, &c.place, &owner)) {
			if (go_on(out))
				continue;
			begin_again(out);
			return;
		}
		c.number = (uint32_t)owner;
		out->room_hand = c.place + 1;
		if (!vmemi_pool_copy_blocks(store->pool, c.number, c.place, &blocks, &c.live))
			continue;
		found++;
		out->room_hand = c.place + blocks;
		c.dead = blocks > c.live ? blocks - c.live : 0;
		if (owner == mark_of(out, c.number) ||
		    !is_of_use(&out->device[VMEM_SLOT_DEVICE(c.place)]))
			continue;
		look_around(out, &c, from, blocks);
		note(out, f, &c, blocks);
	}
}

/* The first of so many free slots in a row, or VMEM_SLOTS_NONE. */
static uint64_t take_gap(struct vmemi_out *out, uint32_t number, uint32_t blocks)
{
	uint64_t slot;

	if (vmem_slots_take_except(out->slots, &out->cursor, vmemi_out_full_ones(out), blocks,
				   number, &slot))
		return VMEM_SLOTS_NONE;
	vmemi_out_has_taken(out, (int)blocks);
	return slot;
}

static void give_gap(struct vmemi_out *out, uint64_t slot, uint32_t blocks)
{
	(void)vmemi_slots_give_unused(out->slots, slot, blocks);
	vmemi_out_has_taken(out, -(int)blocks);
}

/* The same, where less is free in a row than will be where it was. So the sum of squares of what is free in a row grows
 * with each, and there is an end to it. Gaps that will not do are held until one will. */
static uint64_t take_aside(struct vmemi_out *out, const struct copy *c)
{
	uint64_t held[GAPS], slot = VMEM_SLOTS_NONE;
	uint32_t size[GAPS], count = 0;

	while (count < GAPS && slot == VMEM_SLOTS_NONE) {
		slot = take_gap(out, c->number, c->live);
		if (slot == VMEM_SLOTS_NONE)
			break;
		/* What is taken is the beginning of what is free. */
		size[count] = (uint32_t)(end_of_gap(out, slot, c->live) - slot);
		if (size[count] < c->row_to - c->row_from &&
		    (slot < c->row_from || slot >= c->row_to))
			break;
		give_gap(out, slot, c->live);
		held[count] = take_gap(out, c->number, size[count]);
		slot = VMEM_SLOTS_NONE;
		if (held[count] == VMEM_SLOTS_NONE)
			break;
		count++;
	}
	while (count--)
		give_gap(out, held[count], size[count]);
	return slot;
}

/* False: there is no place for it, or nothing of it any more. */
static bool begin(vmem_store *store, struct vmemi_write *w, const struct copy *c, bool aside)
{
	struct vmemi_out *out = store->out;

	if (c->place == VMEM_SLOTS_NONE || !c->live ||
	    vmemi_pool_move_begin(store->pool, c->number, c->place, &w->moving))
		return false;
	w->way = VMEMI_WAY_ALONG;
	w->leaving = (struct vmemi_leaving){ .number = c->number,
					     .data = w->scratch,
					     .bytes = c->live * VMEMI_OUT_BLOCK };
	w->slot = aside ? take_aside(out, c) : take_gap(out, c->number, c->live);
	if (w->slot == VMEM_SLOTS_NONE && (aside || !take_spare(out, w))) {
		if (aside) /* others may be */
			mark(out, c->place, c->number);
		vmemi_pool_move_cancel(store->pool, &w->moving);
		return false;
	}
	w->packs = true;
	out->room_ns = 0;
	out->room_began = true;
	vmemi_out_start_reading(out, w, VMEM_SLOT_DEVICE(c->place));
	return true;
}

void vmemi_out_make_room(vmem_store *store, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;
	struct found f;

	if (out->moving || vmemi_counter(&out->now_ns) < out->room_ns ||
	    (!vmemi_pool_wanted_out(store->pool) && !vmemi_pool_waiting(store->pool) &&
	     !atomic_load_explicit(&out->requested, memory_order_relaxed)) ||
	    !vmemi_out_scratch(store, w))
		return;
	look(store, &f);
	(void)(begin(store, w, &f.sparse, false) || begin(store, w, &f.least, false) ||
	       begin(store, w, &f.small, true));
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
