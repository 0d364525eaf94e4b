/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments that move from a device that leaves: see out.h. Each is read whole, and written as it is to another device
 * if one has room and takes it; else it comes home if the budget has. Its digest and its objects stay as they are; its place
 * changes when it is written, and the old copy is given back once no load reads it.
 *
 * And segments that come home because they are read often: when the blocks that loads have read of one, half of them
 * forgotten each HALF_LIFE_NS, are as many as it costs to read it whole and to write another one in its place. To
 * stay is what costs more from then on if loads go on as before; and if they do not, no more than twice of what was
 * best was spent (the rule of ski rental: Karlin, Manasse, Rudolph, Sleator, 1988).
 *
 * What was read is written elsewhere as it is, without being looked at: wrong bytes of a device are found by the load
 * that asks for the page, whose checksum stays in memory, and by then the old copy is gone.
 *
 * Segments are found by the owners of the device's slots. One that cannot be read, or has no room, is marked there with
 * the round, and passed by until the next one, RETRY_NS later. All here is the section's. */
#include "store/out_ways.h"
#include "store/store_internal.h"

#define MOVES 4u    /* at a time, of VMEMI_WRITES */
#define LOOKS 1024u /* at slots, in one call */
#define TRIES 3u    /* of a read */
#define RETRY_NS UINT64_C(1000000000)
#define HALF_LIFE_NS UINT64_C(32000000000)
#define HOME_COST 2u /* times the blocks of its copy: it is read, and another one written */

/* --- Finding --- */

/* An owner: the segment's number, and the round in which it was tried. */
static uint64_t mark_of(const struct vmemi_out_device *d, uint32_t number)
{
	return (uint64_t)d->round << 32 | number;
}

/* It stays where it is for now. */
static void pass_by(struct vmemi_out *out, const struct vmemi_moving *m)
{
	(void)vmem_slots_set_owner(out->slots, m->place,
				   mark_of(&out->device[VMEM_SLOT_DEVICE(m->place)], m->number));
}

static bool is_moving(const struct vmemi_out *out, uint32_t number)
{
	for (uint32_t i = 0; i < VMEMI_WRITES; i++) {
		const struct vmemi_write *w = &out->write[i];

		if (atomic_load_explicit(&w->state, memory_order_acquire) != VMEMI_WRITE_IDLE &&
		    w->way != VMEMI_WAY_OUT && w->leaving.number == number)
			return true;
	}
	return false;
}

/* The next segment of a device, pinned. False: there is none; then, the hand is at the beginning. */
static bool find(vmem_store *store, uint32_t device, struct vmemi_moving *m)
{
	struct vmemi_out *out = store->out;
	struct vmemi_out_device *d = &out->device[device];

	for (uint32_t looks = 0; looks < LOOKS; looks++) {
		uint64_t slot, owner;

		if (vmem_slots_next(out->slots, d->hand, &slot, &owner) ||
		    VMEM_SLOT_DEVICE(slot) != device) {
			d->hand = VMEM_SLOT(device, 0);
			return false;
		}
		d->hand = slot + 1;
		/* Round 0 is never one: it is that of all that was not tried. */
		if (owner >> 32 == d->round || is_moving(out, (uint32_t)owner) ||
		    vmemi_pool_move_begin(store->pool, (uint32_t)owner, slot, m))
			continue;
		d->hand = slot + m->bytes / VMEMI_OUT_BLOCK;
		return true;
	}
	return false;
}

/* After a while, what could not be moved is tried again. */
static void renew(struct vmemi_out_device *d, uint64_t now_ns)
{
	if (!d->round)
		d->round = 1;
	if (!d->round_ns)
		d->round_ns = now_ns;
	if (!now_ns || now_ns - d->round_ns < RETRY_NS)
		return;
	d->round_ns = now_ns;
	d->round = d->round < UINT32_MAX ? d->round + 1 : 1;
	atomic_store(&d->unreadable_bytes, d->round_bytes);
	d->round_bytes = 0;
}

/* --- Reading --- */

static void *memory_of(const struct vmemi_write *w)
{
	return w->way == VMEMI_WAY_HOME ? w->homing.memory : w->scratch;
}

static void submit(struct vmemi_out *out, struct vmemi_write *w)
{
	uint32_t number = (uint32_t)(w - out->write);
	uint32_t use = vmemi_out_next_use(&w->use);
	int rc;

	if (vmemi_out_is_silent(&out->device[w->from])) { /* each would have its memory for good */
		w->error = -VMEM_ENODEV;
		vmemi_out_set(w, VMEMI_READ_OVER);
		return;
	}
	vmemi_out_set(w, VMEMI_READ_FLYING); /* first: it may be over before this returns */
	atomic_store_explicit(&w->flight, use, memory_order_release);
	rc = vmemi_out_submit(out, w->from, VMEM_DEVICE_READ,
			      VMEM_SLOT_NUMBER(w->moving.place) * VMEMI_OUT_BLOCK, w->moving.bytes,
			      memory_of(w), vmemi_out_tag(VMEMI_TAG_WRITE, number, use));
	if (rc <= 0)
		atomic_store_explicit(&w->flight, 0, memory_order_relaxed);
	if (rc < 0) {
		w->error = rc;
		vmemi_out_set(w, VMEMI_READ_OVER);
	} else if (!rc) {
		vmemi_out_set(w, VMEMI_READ_QUEUED);
	}
}

/* Where it goes. False: nowhere, and it need not be read. */
static bool choose_way(vmem_store *store, struct vmemi_write *w, uint32_t device)
{
	bool scratch = vmemi_out_scratch(store, w) != NULL;

	w->way = VMEMI_WAY_ALONG;
	w->leaving = (struct vmemi_leaving){ .number = w->moving.number,
					     .data = w->scratch,
					     .bytes = w->moving.bytes };
	if (scratch && vmemi_out_take(store->out, w))
		return true;
	w->slot = VMEM_SLOTS_NONE;
	if (!vmemi_pool_home_begin(store->pool, w->moving.number, &w->homing)) {
		vmemi_pool_move_cancel(store->pool, &w->moving); /* its pins are the homing's now */
		w->way = VMEMI_WAY_HOME;
		return true;
	}
	/* To see whether it is lost. */
	return scratch && store->out->device[device].gives_up;
}

void vmemi_out_start_reading(struct vmemi_out *out, struct vmemi_write *w, uint32_t device)
{
	w->from = device;
	w->tries = 0;
	w->since_ns = 0;
	atomic_fetch_add_explicit(&out->writing, 1, memory_order_relaxed);
	out->moving++;
	submit(out, w);
}

static bool begin(vmem_store *store, struct vmemi_write *w, uint32_t device)
{
	struct vmemi_out *out = store->out;

	if (!choose_way(store, w, device)) {
		vmemi_count(&out->no_room, 1);
		pass_by(out, &w->moving);
		vmemi_pool_move_cancel(store->pool, &w->moving);
		return false;
	}
	vmemi_out_start_reading(out, w, device);
	return true;
}

bool vmemi_out_move(vmem_store *store, struct vmemi_write *w, uint64_t now_ns)
{
	struct vmemi_out *out = store->out;
	uint32_t devices = atomic_load_explicit(&out->devices, memory_order_acquire);

	for (uint32_t i = 0; i < devices && out->moving < MOVES; i++) {
		struct vmemi_out_device *d = &out->device[i];

		if (!atomic_load(&d->leaving))
			continue;
		renew(d, now_ns);
		if (find(store, i, &w->moving) && begin(store, w, i))
			return true;
	}
	return false;
}

/* --- Home --- */

void vmemi_out_heat(struct vmemi_out *out, const struct vmemi_located *located, uint32_t blocks)
{
	uint64_t now_ns = atomic_load_explicit(&out->now_ns, memory_order_relaxed);
	uint32_t heat = vmemi_pool_heat(located, blocks, (uint16_t)(now_ns / HALF_LIFE_NS));
	uint32_t hand;

	if (heat < HOME_COST * located->copy_blocks)
		return;
	/* The last ones are remembered; who is not comes with the next load. */
	hand = atomic_fetch_add_explicit(&out->hot_hand, 1, memory_order_relaxed) % VMEMI_HOT;
	atomic_store_explicit(&out->hot[hand], located->place + 1, memory_order_relaxed);
}

/* Whether the segment is to come home, and can. Then it is pinned. */
static bool take_hot(vmem_store *store, uint64_t place, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;
	uint64_t slot, owner;

	if (vmem_slots_next(out->slots, place, &slot, &owner) || slot != place ||
	    is_moving(out, (uint32_t)owner) ||
	    vmemi_pool_move_begin(store->pool, (uint32_t)owner, place, &w->moving))
		return false;
	if (!vmemi_pool_home_begin(store->pool, w->moving.number, &w->homing)) {
		w->homing.is_young = true;
		vmemi_pool_move_cancel(store->pool, &w->moving); /* its pins are the homing's now */
		return true;
	}
	vmemi_pool_move_cancel(store->pool, &w->moving);
	return false;
}

bool vmemi_out_come_home(vmem_store *store, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;

	/* Only into room that nothing is written out for; then one that is cold leaves, and the next may come. */
	if (atomic_load_explicit(&out->requested, memory_order_relaxed) || out->moving >= MOVES)
		return false;
	for (uint32_t i = 0; i < VMEMI_HOT && !vmemi_pool_wanted_out(store->pool); i++) {
		uint64_t hot = atomic_exchange_explicit(&out->hot[i], 0, memory_order_relaxed);

		if (!hot || !take_hot(store, hot - 1, w))
			continue;
		w->way = VMEMI_WAY_HOME;
		w->slot = VMEM_SLOTS_NONE;
		w->leaving = (struct vmemi_leaving){ .number = w->moving.number,
						     .bytes = w->moving.bytes };
		vmemi_out_start_reading(out, w, VMEM_SLOT_DEVICE(hot - 1));
		return true;
	}
	return false;
}

/* --- The end --- */

/* It stays where it is. */
static void cancel(vmem_store *store, struct vmemi_write *w)
{
	if (w->way == VMEMI_WAY_HOME)
		vmemi_pool_home_cancel(store->pool, &w->homing);
	else
		vmemi_pool_move_cancel(store->pool, &w->moving);
	vmemi_write_end(store->out, w);
}

static void give_up(vmem_store *store, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;

	if (w->way == VMEMI_WAY_HOME) {
		int rc = vmemi_pool_move_begin(store->pool, w->moving.number, w->moving.place,
					       &w->moving);

		vmemi_pool_home_cancel(store->pool, &w->homing);
		w->way = VMEMI_WAY_ALONG;
		if (rc) { /* it was dropped */
			vmemi_write_end(out, w);
			return;
		}
	}
	if (vmemi_pool_move_end(store->pool, &w->moving, VMEMI_PLACE_LOST)) {
		vmemi_count(&out->given_up, 1);
		vmemi_out_set(w, VMEMI_WRITE_PARTING);
	} else {
		vmemi_write_end(out, w);
	}
}

/* It was read, but a header of it is not what was written. The others are: it goes as it is if its device leaves, and
 * who loads the page finds out. */
static void could_not_pack(vmem_store *store, struct vmemi_write *w)
{
	if (!atomic_load(&store->out->device[w->from].leaving))
		vmemi_out_shun(store->out, w);
	cancel(store, w);
}

static void could_not_read(vmem_store *store, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;
	struct vmemi_out_device *d = &out->device[w->from];

	vmemi_count(&d->read_errors, 1);
	if (++w->tries < TRIES && w->error != -VMEM_ENODEV) {
		w->since_ns = 0;
		submit(out, w);
		return;
	}
	vmemi_out_give_unused(out, w->slot, w->leaving.bytes / VMEMI_OUT_BLOCK);
	if (w->packs && w->error == -VMEM_EBADMSG) {
		could_not_pack(store, w);
		return;
	}
	vmemi_out_doubt(d);
	if (d->gives_up) {
		give_up(store, w);
		return;
	}
	if (atomic_load(&d->leaving)) {
		d->round_bytes += w->moving.bytes;
		if (d->round_bytes > vmemi_counter(&d->unreadable_bytes))
			atomic_store(&d->unreadable_bytes, d->round_bytes);
		pass_by(out, &w->moving);
	} else if (w->packs) {
		vmemi_out_shun(out, w);
	}
	cancel(store, w);
}

/* What is packed is not looked at again before it is written, as what moves as it is: see out_room.c. */
static bool has_packed(vmem_store *store, struct vmemi_write *w)
{
	int rc = vmemi_out_pack(store, w);

	if (rc == -VMEM_EBADMSG) {
		w->error = rc;
		could_not_read(store, w);
	} else if (rc) {
		vmemi_out_shun(store->out, w);
		vmemi_out_give_unused(store->out, w->slot, w->leaving.bytes / VMEMI_OUT_BLOCK);
		cancel(store, w);
	}
	return !rc;
}

static void has_read(vmem_store *store, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;

	atomic_fetch_add_explicit(&out->device[w->from].read_bytes, w->moving.bytes,
				  memory_order_relaxed);
	if (w->way == VMEMI_WAY_HOME) {
		if (vmemi_pool_home_end(store->pool, &w->homing)) {
			vmemi_count(&out->came_home, 1);
			vmemi_out_set(w, VMEMI_WRITE_PARTING);
		} else {
			vmemi_write_end(out, w);
		}
		return;
	}
	if (w->packs && !has_packed(store, w))
		return;
	w->tries = 0;
	if (w->slot != VMEM_SLOTS_NONE || vmemi_out_take(out, w)) {
		vmemi_out_begin(out, w);
		return;
	}
	pass_by(out, &w->moving);
	cancel(store, w);
}

void vmemi_out_settle_read(vmem_store *store, struct vmemi_write *w)
{
	if (atomic_load_explicit(&w->state, memory_order_acquire) == VMEMI_READ_QUEUED)
		submit(store->out, w);
	else if (w->error)
		could_not_read(store, w);
	else
		has_read(store, w);
}

/* No device took it; its slots have been given back. Home, if there is room. */
static void not_written(vmem_store *store, struct vmemi_write *w)
{
	w->slot = VMEM_SLOTS_NONE;
	if (w->packs) { /* it stays where it is: memory is short */
		vmemi_out_shun(store->out, w);
		cancel(store, w);
		return;
	}
	if (vmemi_pool_home_begin(store->pool, w->moving.number, &w->homing)) {
		pass_by(store->out, &w->moving);
		cancel(store, w);
		return;
	}
	vmemi_pool_move_cancel(store->pool, &w->moving); /* its pins are the homing's now */
	w->way = VMEMI_WAY_HOME;
	w->tries = 0;
	w->since_ns = 0;
	submit(store->out, w);
}

void vmemi_out_moved(vmem_store *store, struct vmemi_write *w, bool written)
{
	struct vmemi_out *out = store->out;

	if (!written) {
		not_written(store, w);
	} else if (vmemi_pool_move_end(store->pool, &w->moving, w->slot)) {
		vmemi_count(w->packs ? &out->packed : &out->moved, 1);
		if (w->packs)
			out->room_failures = 0;
		vmemi_out_set(w, VMEMI_WRITE_PARTING);
	} else {
		vmemi_out_give(out, w->slot, w->leaving.bytes / VMEMI_OUT_BLOCK);
		vmemi_write_end(out, w);
	}
}

bool vmemi_out_parted(vmem_store *store, struct vmemi_write *w)
{
	bool parted = w->way == VMEMI_WAY_HOME ? vmemi_pool_home_vacated(store->pool, &w->homing)
					       : vmemi_pool_move_vacated(store->pool, &w->moving);

	if (parted)
		vmemi_out_give(store->out, w->moving.place, w->moving.bytes / VMEMI_OUT_BLOCK);
	return parted;
}
