/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices of a store come and go: see out.h. One that goes is not written to from the first call on; what lies there
 * is moved (out_move.c). Once nothing is there, it is closed when nobody holds it. */
#include "store/out_ways.h"
#include "store/out_window.h"
#include "base/alloc.h"
#include "base/opts.h"
#include "slots/slots_unused.h"
#include "store/store_internal.h"

#define TIMEOUT_MS 30000u

/* --- Places --- */

void vmemi_out_enable(struct vmemi_out *out, uint32_t device, bool enabled)
{
	vmem_slots_cursor_end(out->slots, &out->cursor);
	if (enabled)
		vmemi_out_has_room(out);
	/* -VMEM_EBUSY: something is there still, and nothing more comes. */
	(void)vmem_slots_resize(out->slots, device, enabled ? out->device[device].slots : 0, NULL);
}

/* Slots of it are free. One that has no space gets some when vmemi_out_write() sees it. */
static void note_room(struct vmemi_out *out, struct vmemi_out_device *d)
{
	if (!atomic_load(&d->leaving) && !atomic_load(&d->full))
		vmemi_out_has_room(out);
}

enum use { UNUSED, FAILED, WRITTEN }; /* what was written there: nothing, in vain, something */

static void give(struct vmemi_out *out, uint64_t place, uint32_t blocks, enum use use)
{
	struct vmemi_out_device *d;

	if (place == VMEMI_PLACE_LOST)
		return;
	d = &out->device[VMEM_SLOT_DEVICE(place)];
	/* It is there, as the slots are taken; held, it stays to the end of this. */
	if (!vmemi_out_hold(d))
		return;
	vmemi_window_cool(out, place, blocks); /* before they may be written anew */
	if (use == UNUSED)
		vmemi_slots_give_unused(out->slots, place, blocks);
	else
		vmem_slots_give(out->slots, place, blocks);
	vmemi_out_has_taken(out, -(int)blocks);
	if (use == WRITTEN) /* now: if they are to be discarded first, that is seen */
		atomic_store(&d->given, true);
	note_room(out, d);
	vmemi_out_release(d);
}

void vmemi_out_give(struct vmemi_out *out, uint64_t place, uint32_t blocks)
{
	give(out, place, blocks, WRITTEN);
}

void vmemi_out_give_unused(struct vmemi_out *out, uint64_t place, uint32_t blocks)
{
	give(out, place, blocks, UNUSED);
}

void vmemi_out_give_failed(struct vmemi_out *out, uint64_t place, uint32_t blocks)
{
	give(out, place, blocks, FAILED);
}

void vmemi_out_discarded(struct vmemi_out *out, uint64_t place, uint32_t blocks)
{
	struct vmemi_out_device *d = &out->device[VMEM_SLOT_DEVICE(place)];

	if (!vmemi_out_hold(d)) /* as above */
		return;
	vmem_slots_discarded(out->slots, place, blocks);
	note_room(out, d);
	vmemi_out_release(d);
}

static void vacate(void *context, uint64_t place, uint32_t blocks)
{
	vmemi_out_give(context, place, blocks);
}

/* --- Coming --- */

static int make(vmem_store *store)
{
	const struct vmem_slots_opts opts = { .size = sizeof(opts),
					      .allocator = &store->allocator,
					      .env = &store->env };
	struct vmemi_out *out = vmemi_zalloc(&store->allocator, sizeof(*out), 64);
	int rc = out ? vmem_slots_new(&out->slots, &opts) : -VMEM_ENOMEM;

	if (!rc) {
		out->buffers = vmemi_alloc(&store->allocator, VMEMI_WINDOWS * VMEMI_WINDOW_BYTES,
					   VMEM_PAGE_SIZE);
		rc = out->buffers ? 0 : -VMEM_ENOMEM;
	}
	if (rc) {
		if (out)
			vmem_slots_free(out->slots);
		vmemi_free(&store->allocator, out, sizeof(*out), 64);
		return rc;
	}
	for (uint32_t i = 0; i < VMEMI_READS; i++)
		out->window[i / VMEMI_PIECES].piece[i % VMEMI_PIECES].buffer =
			out->buffers + i * VMEMI_PIECE_BYTES;
	atomic_init(&out->idle, UINT32_MAX);
	atomic_init(&out->spare, VMEM_SLOTS_NONE);
	vmemi_pool_set_devices(store->pool, &(struct vmemi_pool_devices){ vacate, out });
	store->out = out;
	return 0;
}

/* In the table; the least, as its number is that of slots, too. NULL: there is none. */
static struct vmemi_out_device *place_for(struct vmemi_out *out)
{
	for (uint32_t i = 0; i < VMEM_STORE_DEVICES; i++)
		if (!out->device[i].device)
			return &out->device[i];
	return NULL;
}

/* 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_EPERM, -VMEM_ENOSPC. */
static int check(const vmem_store *store, const struct vmem_device *device,
		 const struct vmem_store_device_opts *o)
{
	int rc = vmem_device_check(device);

	if (rc)
		return rc;
	if (o->flags & ~VMEM_STORE_DEVICE_PLAIN || o->reserved || o->reserved2 ||
	    device->size_bytes / VMEM_SLOT_BYTES < VMEM_SLOTS_CLUSTER)
		return -VMEM_EINVAL;
	if ((device->flags & (VMEM_DEVICE_OUTLIVES | VMEM_DEVICE_ENCRYPTED)) ==
		    VMEM_DEVICE_OUTLIVES &&
	    !(o->flags & VMEM_STORE_DEVICE_PLAIN))
		return -VMEM_EPERM;
	return store->out && !place_for(store->out) ? -VMEM_ENOSPC : 0;
}

/* Nothing is submitted to it before the end. */
static int join(vmem_store *store, struct vmemi_out_device *d,
		const struct vmem_slots_device *slots)
{
	struct vmemi_out *out = store->out;
	uint32_t place = (uint32_t)(d - out->device);
	int rc;

	while (!vmemi_out_enter(out))
		vmemi_relax(&store->env);
	rc = vmem_slots_add(out->slots, slots, &place); /* the same: both the least */
	if (!rc) {
		if (d->device->ops->register_buffers) /* a hint */
			(void)d->device->ops->register_buffers(d->device->context, out->buffers,
							       VMEMI_WINDOWS * VMEMI_WINDOW_BYTES);
		vmemi_out_wear(out, place, 0); /* the limit may be less than a segment */
		if (place >= atomic_load(&out->devices))
			atomic_store_explicit(&out->devices, place + 1, memory_order_release);
		atomic_store(&d->open, true);
		vmemi_out_has_room(out);
	} else {
		d->device = NULL;
	}
	vmemi_out_leave(out);
	return rc;
}

int vmem_store_add_device(vmem_store *store, struct vmem_device *device,
			  const struct vmem_store_device_opts *opts, uint32_t *ret_device)
{
	struct vmem_store_device_opts o;
	struct vmem_slots_device slots = { .size = sizeof(slots) };
	struct vmemi_out_device *d;
	int rc = vmemi_opts_take(&o, sizeof(o), opts);

	if (!rc)
		rc = check(store, device, &o);
	if (!rc && !store->out)
		rc = make(store);
	if (rc)
		return rc;
	slots.count =
		device->size_bytes / VMEM_SLOT_BYTES / VMEM_SLOTS_CLUSTER * VMEM_SLOTS_CLUSTER;
	slots.count = slots.count >> VMEM_SLOTS_NUMBER_BITS ? UINT64_C(1) << VMEM_SLOTS_NUMBER_BITS
							    : slots.count;
	slots.priority = o.priority;
	slots.discard_least = (device->flags & VMEM_DEVICE_CAN_DISCARD) != 0;
	/* Filled in first: slots of it may be taken as soon as they are there. */
	d = place_for(store->out);
	d->device = device;
	d->number = store->out->numbers;
	d->slots = slots.count;
	d->wear_bytes = o.wear_bytes_per_day;
	d->timeout_ns = (o.timeout_ms ? o.timeout_ms : TIMEOUT_MS) * UINT64_C(1000000);
	rc = join(store, d, &slots);
	if (rc)
		return rc;
	store->out->numbers++;
	if (ret_device)
		*ret_device = d->number;
	return 0;
}

static struct vmemi_out_device *look_for(struct vmemi_out *out, uint32_t number)
{
	uint32_t devices = atomic_load_explicit(&out->devices, memory_order_acquire);

	for (uint32_t i = 0; i < devices; i++) {
		struct vmemi_out_device *d = &out->device[i];

		if (!vmemi_out_hold(d))
			continue;
		if (d->number == number)
			return d;
		vmemi_out_release(d);
	}
	return NULL;
}

/* The device of that name, held. NULL: there is none. */
static struct vmemi_out_device *hold_number(vmem_store *store, uint32_t number)
{
	struct vmemi_out *out = store->out;
	struct vmemi_out_device *d = NULL;
	uint32_t before;

	while (out) {
		before = atomic_load(&out->parting);
		d = look_for(out, number);
		if (d || (before % 2 == 0 && before == atomic_load(&out->parting)))
			break;
		/* One may not be open for this moment, and stay after all. */
		vmemi_relax(&store->env);
	}
	return d;
}

/* --- Going --- */

/* The first time, and whenever what cannot be read is given up from now on. Section. */
static void begin_to_leave(struct vmemi_out *out, struct vmemi_out_device *d, bool gives_up)
{
	uint32_t place = (uint32_t)(d - out->device);

	if (!atomic_load(&d->leaving)) {
		atomic_store(&d->leaving, true);
		vmemi_out_enable(out, place, false);
		d->hand = VMEM_SLOT(place, 0);
	}
	if (gives_up && !d->gives_up) {
		d->gives_up = true;
		d->round++; /* what could not be read is tried once more */
	}
}

/* Takes it from all, if nothing is there. Section. */
static bool part(struct vmemi_out *out, struct vmemi_out_device *d)
{
	uint32_t place = (uint32_t)(d - out->device);

	if (vmem_slots_resize(out->slots, place, 0, NULL))
		return false;
	/* As nothing is taken there, only those can hold it who look, or have just finished. What is in flight still has
	 * not been answered in time. */
	atomic_store(&d->open, false);
	if (atomic_load(&d->holders) || atomic_load(&d->flying) != vmemi_out_stuck_at(out, place) ||
	    vmem_slots_remove(out->slots, place)) {
		atomic_store(&d->open, true);
		return false;
	}
	return true;
}

/* By which what it has not answered is known once it has no place in the table. */
static uint32_t name_of(uint32_t number)
{
	return VMEM_STORE_DEVICES + number;
}

/* Nothing is known of it any more, so that nobody in the section looks for what is there, and its place in the table
 * is free. Section. */
static struct vmem_device *forget(struct vmemi_out *out, struct vmemi_out_device *d)
{
	struct vmem_device *device = d->device;

	vmemi_out_stuck_move(out, (uint32_t)(d - out->device), name_of(d->number));
	atomic_store(&d->flying, 0);
	atomic_store(&d->silent, false);
	atomic_store(&d->leaving, false);
	atomic_store(&d->bad, false);
	atomic_store(&d->worn, false);
	atomic_store(&d->full, false);
	atomic_store(&d->given, false);
	atomic_store(&d->day_bytes, 0);
	atomic_store(&d->written_bytes, 0);
	atomic_store(&d->read_bytes, 0);
	atomic_store(&d->write_errors, 0);
	atomic_store(&d->read_errors, 0);
	atomic_store(&d->unreadable_bytes, 0);
	d->gives_up = false;
	d->failures = 0;
	atomic_store(&d->doubt, 0);
	d->round_bytes = d->round_ns = 0;
	d->device = NULL;
	return device;
}

int vmemi_out_remove(vmem_store *store, uint32_t number, bool gives_up,
		     struct vmem_device **ret_device)
{
	struct vmemi_out *out = store->out;
	struct vmemi_out_device *d = hold_number(store, number);
	bool parted;

	if (!d)
		return -VMEM_ENOENT;
	vmemi_out_release(d); /* nobody else removes it */
	while (!vmemi_out_enter(out))
		vmemi_relax(&store->env);
	begin_to_leave(out, d, gives_up);
	atomic_fetch_add(&out->parting, 1);
	parted = part(out, d);
	if (parted)
		*ret_device = forget(out, d);
	atomic_fetch_add(&out->parting, 1);
	vmemi_out_leave(out);
	return parted ? 0 : -VMEM_EBUSY;
}

void vmemi_out_close(vmem_store *store, uint32_t number, struct vmem_device *device)
{
	vmem_device_close(device);
	vmemi_out_stuck_closed(store->out, name_of(number));
}

static int remove_device(vmem_store *store, uint32_t number, bool gives_up)
{
	struct vmem_device *device;
	int rc = vmemi_out_remove(store, number, gives_up, &device);

	if (!rc)
		vmemi_out_close(store, number, device);
	return rc;
}

int vmem_store_remove_device(vmem_store *store, uint32_t device)
{
	return remove_device(store, device, false);
}

int vmem_store_abandon_device(vmem_store *store, uint32_t device)
{
	return remove_device(store, device, true);
}

/* --- Counters --- */

uint64_t vmemi_out_bytes(vmem_store *store)
{
	struct vmem_slots_stats slots = { .size = sizeof(slots) };
	struct vmemi_out *out = store->out;
	uint32_t devices = out ? atomic_load_explicit(&out->devices, memory_order_acquire) : 0;

	if (!out)
		return 0;
	for (uint32_t i = 0; i < devices && !slots.bytes; i++) { /* any of them tells of all */
		if (!vmemi_out_hold(&out->device[i]))
			continue;
		(void)vmem_slots_get_stats(out->slots, i, &slots);
		vmemi_out_release(&out->device[i]);
	}
	return sizeof(*out) + VMEMI_WINDOWS * VMEMI_WINDOW_BYTES + slots.bytes +
	       vmemi_counter(&out->scratches) * VMEM_POOL_SEGMENT_BYTES;
}

int vmem_store_get_device_stats(vmem_store *store, uint32_t device,
				struct vmem_store_device_stats *ret_stats)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };
	struct vmem_slots_stats slots = { .size = sizeof(slots) };
	struct vmemi_out *out = store->out;
	struct vmemi_out_device *d = hold_number(store, device);
	uint64_t spare;

	if (!d)
		return -VMEM_ENOENT;
	spare = atomic_load_explicit(&out->spare, memory_order_relaxed);
	(void)vmem_slots_get_stats(out->slots, (uint32_t)(d - out->device), &slots);
	stats.size_bytes = d->slots * VMEM_SLOT_BYTES;
	stats.taken_bytes = (slots.taken - slots.discards) * VMEM_SLOT_BYTES;
	/* Both change; what is kept free is not taken. */
	if (spare != VMEM_SLOTS_NONE && VMEM_SLOT_DEVICE(spare) == (uint32_t)(d - out->device) &&
	    stats.taken_bytes >= VMEM_POOL_SEGMENT_BYTES)
		stats.taken_bytes -= VMEM_POOL_SEGMENT_BYTES;
	stats.written_bytes = vmemi_counter(&d->written_bytes);
	stats.read_bytes = vmemi_counter(&d->read_bytes);
	stats.write_errors = vmemi_counter(&d->write_errors);
	stats.read_errors = vmemi_counter(&d->read_errors);
	stats.is_bad = atomic_load(&d->bad);
	stats.is_worn = atomic_load(&d->worn);
	stats.is_leaving = atomic_load(&d->leaving);
	stats.is_full = atomic_load(&d->full);
	stats.unreadable_bytes = vmemi_counter(&d->unreadable_bytes);
	stats.wear_left_bytes = UINT64_MAX;
	if (d->wear_bytes) {
		uint64_t today = vmemi_counter(&d->day_bytes);

		stats.wear_left_bytes = d->wear_bytes > today ? d->wear_bytes - today : 0;
	}
	vmemi_out_release(d);
	return vmemi_opts_give(ret_stats, &stats, sizeof(stats));
}
