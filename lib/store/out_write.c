/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing segments out.
 *
 * How much is to leave is asked of the pool: ahead of need, a sixteenth of the budget is kept free. Several writes are
 * in flight. A write that fails is tried twice more on another place, of another device if this one has gone bad or
 * has no room or memory for it now, and then the segment stays in memory. A device that says that it has no space
 * gets nothing more for a while, or until something is given back there: else the same would be written in vain as
 * fast as it answers. One thread at a time is in here: it enters the section or goes on without. */
#include "store/out_ways.h"
#include "base/alloc.h"
#include "store/store_internal.h"

#define TRIES 3u
#define WAITING_MOST 4u /* segments in transit that are not being written yet */
#define FAILURES 4u     /* in a row: the device is bad */
#define DAY_NS UINT64_C(86400000000000)
#define FULL_NS UINT64_C(1000000000) /* before a device that had no space is tried again */

bool vmemi_out_enter(struct vmemi_out *out)
{
	return !atomic_exchange_explicit(&out->section, true, memory_order_acquire);
}

void vmemi_out_leave(struct vmemi_out *out)
{
	atomic_store_explicit(&out->section, false, memory_order_release);
}

/* --- Devices --- */

/* Whether it says that the device is bad, and not that it has no room or memory now. */
static bool is_lasting(int error)
{
	return error == -VMEM_EIO || error == -VMEM_EPERM || error == -VMEM_ENODEV;
}

void vmemi_out_is_bad(struct vmemi_out *out, uint32_t device)
{
	if (!atomic_exchange(&out->device[device].bad, true))
		vmemi_out_enable(out, device, false);
}

/* Nothing more is written there until something is given back, or for a while. */
static void shut(struct vmemi_out_device *d)
{
	if (atomic_load(&d->full)) /* another one, from before */
		return;
	d->full_ns = 0;
	atomic_store(&d->full, true);
}

static void count_write(struct vmemi_out *out, uint32_t device, int error)
{
	struct vmemi_out_device *d = &out->device[device];

	if (!error) {
		d->failures = 0;
		return;
	}
	vmemi_count(&d->write_errors, 1);
	if (error == -VMEM_ENOSPC)
		shut(d);
	if (!is_lasting(error))
		return;
	if (++d->failures < FAILURES && error != -VMEM_ENODEV)
		return;
	vmemi_out_is_bad(out, device);
}

/* What was given back has been discarded by now, or need not be. */
static bool has_got_space(struct vmemi_out *out, uint32_t device)
{
	struct vmemi_out_device *d = &out->device[device];

	if (!atomic_exchange(&d->given, false))
		return false;
	if (!vmemi_out_is_discarding(out, device))
		return true;
	atomic_store(&d->given, true);
	return false;
}

/* That is over. @now_ns 0: not told. */
static void reopen(struct vmemi_out *out, uint64_t now_ns)
{
	uint32_t devices = atomic_load_explicit(&out->devices, memory_order_acquire);

	for (uint32_t i = 0; i < devices; i++) {
		struct vmemi_out_device *d = &out->device[i];
		bool space = has_got_space(out, i);

		if (!atomic_load(&d->full))
			continue;
		if (!d->full_ns)
			d->full_ns = now_ns;
		if (!space && (!now_ns || now_ns - d->full_ns < FULL_NS))
			continue;
		atomic_store(&d->full, false);
		/* The next one begins with the greatest priority again. */
		vmem_slots_cursor_end(out->slots, &out->cursor);
		if (!atomic_load(&d->leaving))
			vmemi_out_has_room(out);
	}
}

uint32_t vmemi_out_full_ones(const struct vmemi_out *out)
{
	uint32_t devices = atomic_load_explicit(&out->devices, memory_order_acquire), bits = 0;

	for (uint32_t i = 0; i < devices; i++)
		bits |= (uint32_t)atomic_load(&out->device[i].full) << i;
	return bits;
}

/* Failed writes count: the device may have written. */
void vmemi_out_wear(struct vmemi_out *out, uint32_t device, uint32_t bytes)
{
	struct vmemi_out_device *d = &out->device[device];

	d->day_bytes += bytes;
	if (d->wear_bytes && d->day_bytes + VMEM_POOL_SEGMENT_BYTES > d->wear_bytes &&
	    !atomic_exchange(&d->worn, true))
		vmemi_out_enable(out, device, false);
}

/* A new day. */
static void renew(struct vmemi_out *out, uint64_t now_ns)
{
	uint32_t devices = atomic_load_explicit(&out->devices, memory_order_acquire);

	if (!out->day_ns)
		out->day_ns = now_ns; /* the first day; what was written before is of it */
	if (now_ns)
		atomic_store_explicit(&out->now_ns, now_ns, memory_order_relaxed);
	if (!now_ns || now_ns - out->day_ns < DAY_NS)
		return;
	out->day_ns = now_ns;
	for (uint32_t i = 0; i < devices; i++) {
		struct vmemi_out_device *d = &out->device[i];

		d->day_bytes = 0;
		if (d->wear_bytes >= VMEM_POOL_SEGMENT_BYTES && atomic_exchange(&d->worn, false) &&
		    !atomic_load(&d->bad) && !atomic_load(&d->leaving))
			vmemi_out_enable(out, i, true);
	}
}

/* --- One write --- */

void vmemi_out_set(struct vmemi_write *w, enum vmemi_write_state state)
{
	atomic_store_explicit(&w->state, state, memory_order_release);
}

void vmemi_write_end(struct vmemi_out *out, struct vmemi_write *w)
{
	out->moving -= w->way != VMEMI_WAY_OUT;
	w->packs = false;
	vmemi_out_set(w, VMEMI_WRITE_IDLE);
	atomic_fetch_sub_explicit(&out->writing, 1, memory_order_relaxed);
}

static void submit(struct vmemi_out *out, struct vmemi_write *w)
{
	uint32_t number = (uint32_t)(w - out->write);
	uint32_t use = vmemi_out_next_use(&w->use);
	int rc;

	vmemi_out_set(w, VMEMI_WRITE_FLYING); /* first: it may be over before this returns */
	atomic_store_explicit(&w->flight, use, memory_order_release);
	/* The bytes are only read; requests have one kind of pointer. */
	rc = vmemi_out_submit(out, VMEM_SLOT_DEVICE(w->slot), VMEM_DEVICE_WRITE,
			      VMEM_SLOT_NUMBER(w->slot) * VMEMI_OUT_BLOCK, w->leaving.bytes,
			      (void *)(uintptr_t)w->leaving.data,
			      vmemi_out_tag(VMEMI_TAG_WRITE, number, use));
	if (rc <= 0)
		atomic_store_explicit(&w->flight, 0, memory_order_relaxed);
	if (rc < 0) {
		w->error = rc;
		vmemi_out_set(w, VMEMI_WRITE_OVER);
	} else if (!rc) {
		vmemi_out_set(w, VMEMI_WRITE_QUEUED);
	}
}

/* As vmemi_out_take(), and not on these devices, a bit each. */
static bool take_except(struct vmemi_out *out, struct vmemi_write *w, uint32_t devices)
{
	uint32_t room = atomic_load(&out->room);
	int rc;

	rc = vmem_slots_take_except(out->slots, &out->cursor, devices | vmemi_out_full_ones(out),
				    w->leaving.bytes / VMEMI_OUT_BLOCK, w->leaving.number,
				    &w->slot);
	if (!rc)
		vmemi_out_has_taken(out, (int)(w->leaving.bytes / VMEMI_OUT_BLOCK));
	/* What was given back meanwhile says that there is room again: before this, or after. */
	atomic_store(&out->full, rc == -VMEM_ENOSPC);
	if (rc == -VMEM_ENOSPC && atomic_load(&out->room) != room)
		atomic_store(&out->full, false);
	return !rc;
}

bool vmemi_out_take(struct vmemi_out *out, struct vmemi_write *w)
{
	return take_except(out, w, 0);
}

void vmemi_out_begin(struct vmemi_out *out, struct vmemi_write *w)
{
	vmemi_out_wear(out, VMEM_SLOT_DEVICE(w->slot), w->leaving.bytes);
	w->since_ns = 0;
	submit(out, w);
}

/* Begins, if a place was taken. False: it was not. */
static bool place(struct vmemi_out *out, struct vmemi_write *w, bool taken)
{
	if (!taken) {
		vmemi_count(&out->no_room, 1);
		return false;
	}
	vmemi_out_begin(out, w);
	return true;
}

/* As place(), of a write that has failed: not where it was, and if the device is just short of something, best on
 * another one. */
static bool place_again(struct vmemi_out *out, struct vmemi_write *w)
{
	uint32_t device = VMEM_SLOT_DEVICE(w->slot);
	struct vmemi_out_device *d = &out->device[device];
	bool shun = !is_lasting(w->error) && !atomic_load(&d->bad) && !atomic_load(&d->worn) &&
		    !atomic_load(&d->leaving) && atomic_load(&out->devices) > 1;

	bool taken = shun && take_except(out, w, UINT32_C(1) << device);

	if (taken) /* the next one begins with the greatest priority again */
		vmem_slots_cursor_end(out->slots, &out->cursor);
	return place(out, w, taken || vmemi_out_take(out, w));
}

static void settle_out(vmem_store *store, struct vmemi_write *w, bool written)
{
	struct vmemi_out *out = store->out;

	if (!written) {
		vmemi_pool_leave_cancel(store->pool, &w->leaving);
		vmemi_write_end(out, w);
	} else if (vmemi_pool_leave_end(store->pool, &w->leaving, w->slot)) {
		vmemi_out_set(w, VMEMI_WRITE_PARTING);
	} else {
		vmemi_out_give(out, w->slot, w->leaving.bytes / VMEMI_OUT_BLOCK);
		vmemi_write_end(out, w);
	}
}

/* A segment has been written, or not. */
static void settle_over(vmem_store *store, struct vmemi_write *w)
{
	struct vmemi_out *out = store->out;
	uint32_t device = VMEM_SLOT_DEVICE(w->slot), blocks = w->leaving.bytes / VMEMI_OUT_BLOCK;
	uint64_t slot = w->slot;

	count_write(out, device, w->error);
	if (w->error) {
		bool again = ++w->tries < TRIES && place_again(out, w);

		/* Now: else it would have been taken again. */
		vmemi_out_give_failed(out, slot, blocks);
		if (again)
			return;
	} else {
		atomic_fetch_add_explicit(&out->device[device].written_bytes, w->leaving.bytes,
					  memory_order_relaxed);
	}
	if (w->way == VMEMI_WAY_OUT)
		settle_out(store, w, !w->error);
	else
		vmemi_out_moved(store, w, !w->error);
}

/* Whether nobody is where it was. */
static bool has_parted(vmem_store *store, struct vmemi_write *w)
{
	return w->way == VMEMI_WAY_OUT ? vmemi_pool_leave_freed(store->pool, &w->leaving)
				       : vmemi_out_parted(store, w);
}

static bool settle_one(vmem_store *store, struct vmemi_write *w)
{
	switch (atomic_load_explicit(&w->state, memory_order_acquire)) {
	case VMEMI_WRITE_QUEUED: submit(store->out, w); break;
	case VMEMI_WRITE_OVER: settle_over(store, w); break;
	case VMEMI_READ_QUEUED:
	case VMEMI_READ_OVER: vmemi_out_settle_read(store, w); break;
	default: break;
	}
	if (atomic_load_explicit(&w->state, memory_order_acquire) != VMEMI_WRITE_PARTING ||
	    !has_parted(store, w))
		return false;
	vmemi_write_end(store->out, w);
	return true;
}

void vmemi_out_has_written(struct vmemi_out *out, uint64_t tag, int error)
{
	struct vmemi_write *w = &out->write[tag % VMEMI_WRITES];

	uint32_t state = atomic_load_explicit(&w->state, memory_order_acquire);

	if (!vmemi_out_landed(&w->flight, tag)) {
		vmemi_out_is_late(out, tag); /* or nobody has asked for it */
		return;
	}
	w->error = error;
	vmemi_out_set(w, state == VMEMI_WRITE_FLYING ? VMEMI_WRITE_OVER : VMEMI_READ_OVER);
}

/* --- All writes --- */

static bool settle_all(vmem_store *store)
{
	bool freed = false;

	for (uint32_t i = 0; i < VMEMI_WRITES; i++)
		freed |= settle_one(store, &store->out->write[i]);
	return freed;
}

bool vmemi_out_settle(vmem_store *store)
{
	struct vmemi_out *out = store->out;
	bool freed;

	if (!atomic_load_explicit(&out->writing, memory_order_relaxed) || !vmemi_out_enter(out))
		return false;
	freed = settle_all(store);
	vmemi_out_leave(out);
	return freed;
}

/* Whether its scratch is not used before it begins anew: it is idle, or its segment goes as it is. */
static bool spares_scratch(const struct vmemi_write *w)
{
	switch (atomic_load_explicit(&w->state, memory_order_acquire)) {
	case VMEMI_WRITE_IDLE: return true;
	case VMEMI_WRITE_QUEUED:
	case VMEMI_WRITE_FLYING:
	case VMEMI_WRITE_OVER:
	case VMEMI_WRITE_PARTING: return w->way == VMEMI_WAY_OUT && w->leaving.data != w->scratch;
	default: return false;
	}
}

/* Made when all others are in use, as most stores have few sparse segments, by who knows whether there is room for a segment.
 * NULL: without it, they go as they are. */
unsigned char *vmemi_out_scratch(vmem_store *store, struct vmemi_write *w)
{
	for (uint32_t i = 0; i < VMEMI_WRITES && !w->scratch; i++) {
		struct vmemi_write *other = &store->out->write[i];

		if (other->scratch && spares_scratch(other)) {
			w->scratch = other->scratch;
			other->scratch = NULL;
		}
	}
	if (!w->scratch) {
		w->scratch = vmemi_alloc(&store->segments, VMEM_POOL_SEGMENT_BYTES, VMEM_PAGE_SIZE);
		vmemi_count(&store->out->scratches, w->scratch != NULL);
	}
	return w->scratch;
}

/* Begins a write; @waiting: of a segment in transit only. False: nothing can leave. */
static bool begin(vmem_store *store, struct vmemi_write *w, bool waiting)
{
	struct vmemi_out *out = store->out;
	unsigned char *scratch = vmemi_out_scratch(store, w);

	if (waiting ? !vmemi_pool_leave_waiting(store->pool, &out->hand, scratch, &w->leaving)
		    : !vmemi_pool_leave_begin(store->pool, &out->hand, scratch, &w->leaving))
		return false;
	atomic_fetch_add_explicit(&out->writing, 1, memory_order_relaxed);
	w->tries = 0;
	w->way = VMEMI_WAY_OUT;
	if (place(out, w, vmemi_out_take(out, w)))
		return true;
	vmemi_pool_leave_cancel(store->pool, &w->leaving);
	vmemi_write_end(out, w);
	return false;
}

/* Segments that are to leave besides those that do. */
static uint32_t wanted(vmem_store *store)
{
	struct vmemi_out *out = store->out;
	uint32_t count = vmemi_pool_wanted_out(store->pool);
	uint32_t requested = atomic_load_explicit(&out->requested, memory_order_relaxed);
	uint32_t writing = atomic_load_explicit(&out->writing, memory_order_relaxed);

	if (atomic_load_explicit(&out->full, memory_order_relaxed))
		return 0;
	writing -= out->moving;
	count = count > writing ? count - writing : 0;
	return count > requested ? count : requested;
}

/* Whether segments in transit can leave. */
static bool passes(vmem_store *store)
{
	return vmemi_pool_waiting(store->pool) &&
	       !atomic_load_explicit(&store->out->full, memory_order_relaxed);
}

static void count_requested(struct vmemi_out *out)
{
	uint32_t n = atomic_load_explicit(&out->requested, memory_order_relaxed);

	while (n && !atomic_compare_exchange_weak_explicit(
			    &out->requested, &n, n - 1, memory_order_relaxed, memory_order_relaxed))
		;
}

/* Empties devices that leave; brings home what is read often. */
static void move(vmem_store *store, uint64_t now_ns)
{
	struct vmemi_out *out = store->out;

	for (uint32_t i = 0; i < VMEMI_WRITES; i++)
		if (atomic_load_explicit(&out->write[i].state, memory_order_acquire) ==
			    VMEMI_WRITE_IDLE &&
		    !vmemi_out_move(store, &out->write[i], now_ns) &&
		    !vmemi_out_come_home(store, &out->write[i]))
			return;
}

static void make_room(vmem_store *store)
{
	struct vmemi_out *out = store->out;

	for (uint32_t i = 0; i < VMEMI_WRITES && atomic_load(&out->full); i++)
		if (atomic_load_explicit(&out->write[i].state, memory_order_acquire) ==
		    VMEMI_WRITE_IDLE) {
			vmemi_out_make_room(store, &out->write[i]);
			return;
		}
}

bool vmemi_out_write(vmem_store *store, uint64_t now_ns)
{
	struct vmemi_out *out = store->out;
	bool began = false;
	uint32_t count;

	if (!vmemi_out_enter(out))
		return false;
	renew(out, now_ns);
	vmemi_out_expire(store, now_ns);
	(void)settle_all(store);
	vmemi_out_discard(out);
	reopen(out, now_ns);
	move(store, now_ns);
	vmemi_out_keep_spare(out);
	count = wanted(store);
	for (uint32_t i = 0; i < VMEMI_WRITES && (count || passes(store)); i++) {
		struct vmemi_write *w = &out->write[i];

		if (atomic_load_explicit(&w->state, memory_order_acquire) != VMEMI_WRITE_IDLE)
			continue;
		if (!begin(store, w, !count)) {
			count = 0;
			break;
		}
		began = true;
		if (!count)
			continue;
		count_requested(out);
		count--;
	}
	make_room(store);
	vmemi_out_leave(out);
	return began && count;
}

int vmemi_out_takes_raw(vmem_store *store)
{
	struct vmemi_out *out = store->out;
	uint32_t devices = out ? atomic_load_explicit(&out->devices, memory_order_acquire) : 0;
	bool open = false;

	if (out && atomic_load_explicit(&out->full, memory_order_relaxed))
		return -VMEM_EFBIG;
	for (uint32_t i = 0; i < devices; i++) {
		const struct vmemi_out_device *d = &out->device[i];

		open |= atomic_load(&d->open) && !atomic_load(&d->bad) && !atomic_load(&d->worn) &&
			!atomic_load(&d->full) && !atomic_load(&d->leaving);
	}
	if (!open)
		return -VMEM_EFBIG;
	return vmemi_pool_waiting(store->pool) < WAITING_MOST ? 0 : -VMEM_ENOSPC;
}

void vmemi_out_push(vmem_store *store)
{
	vmemi_count(&store->out->passed, 1);
	if (vmemi_pool_waiting(store->pool))
		(void)vmemi_out_write(store, 0);
}

bool vmemi_out_relieve(vmem_store *store)
{
	struct vmemi_out *out = store->out;
	bool freed;

	if (!out)
		return false;
	vmemi_out_poll(store);
	freed = vmemi_out_settle(store);
	(void)vmemi_out_write(store, 0);
	if (!freed)
		vmemi_count(&out->saves_waited,
			    atomic_load_explicit(&out->writing, memory_order_relaxed) != 0);
	return freed;
}
