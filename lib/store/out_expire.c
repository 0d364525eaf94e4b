/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that a device does not answer. After the device's time, by the clock of vmem_store_work(), they are over
 * for those who wait: a load is -VMEM_EIO, a segment stays where it was, slots to be discarded are free. The memory of
 * the request is the device's until it does answer or is closed: it is kept in a table, by the request's tag, and
 * whoever sent it gets other memory. Time begins when a request is seen here first, so that a caller who has not
 * worked for long finds what was answered meanwhile, and not that all is late.
 *
 * Who takes a request's number out of `flight`, has it: that is whoever reaps its completion, or the sweep here. One
 * that is FLYING without a number is being reaped. */
#include "store/out_ways.h"
#include "store/out_window.h"
#include "base/alloc.h"
#include "store/store_internal.h"

/* --- Memory that is the device's --- */

/* NULL: the table is full. */
static struct vmemi_stuck *stuck_new(struct vmemi_out *out, uint32_t device, uint64_t tag)
{
	for (uint32_t i = 0; i < VMEMI_STUCK; i++) {
		struct vmemi_stuck *k = &out->stuck[i];

		if (atomic_load_explicit(&k->tag, memory_order_acquire))
			continue;
		atomic_store_explicit(&k->device, device, memory_order_relaxed);
		k->memory = NULL;
		k->home = NULL;
		k->bytes = k->segment = 0;
		atomic_store_explicit(&k->done, false, memory_order_relaxed);
		atomic_store_explicit(&k->tag, tag, memory_order_release);
		return k;
	}
	return NULL;
}

static void stuck_free(struct vmemi_stuck *k)
{
	atomic_store_explicit(&k->tag, 0, memory_order_release);
}

/* The request has been taken by who reaps it. */
static bool take(_Atomic uint32_t *flight, uint32_t use)
{
	return atomic_compare_exchange_strong_explicit(flight, &use, 0, memory_order_acq_rel,
						       memory_order_relaxed);
}

static void is_silent(struct vmemi_out *out, uint32_t device, bool silent)
{
	atomic_store(&out->device[device].silent, silent);
}

/* As take(), of a read. That the device is silent is said first: it is not true any more once the read is answered,
 * before or after. */
static bool take_read(struct vmemi_out *out, uint32_t device, _Atomic uint32_t *flight,
		      uint32_t use)
{
	bool taken;

	is_silent(out, device, true);
	taken = take(flight, use);
	if (!taken)
		is_silent(out, device, false);
	return taken;
}

void vmemi_out_is_late(struct vmemi_out *out, uint64_t tag)
{
	for (uint32_t i = 0; i < VMEMI_STUCK; i++) {
		struct vmemi_stuck *k = &out->stuck[i];

		if (atomic_load_explicit(&k->tag, memory_order_acquire) != tag)
			continue;
		/* Its time may have been over after the reaper said so of the device. */
		is_silent(out, atomic_load_explicit(&k->device, memory_order_relaxed), false);
		atomic_store_explicit(&k->done, true, memory_order_release);
	}
}

/* Reads have their first buffers in one piece of memory. */
static bool is_first_buffer(const struct vmemi_out *out, const unsigned char *memory)
{
	return memory >= out->buffers &&
	       memory < out->buffers + (size_t)VMEMI_WINDOWS * VMEMI_WINDOW_BYTES;
}

static void let_go(vmem_store *store, struct vmemi_stuck *k)
{
	bool is_scratch = k->bytes == VMEM_POOL_SEGMENT_BYTES;

	if (k->memory && !is_first_buffer(store->out, k->memory))
		vmemi_free(is_scratch ? &store->segments : &store->allocator, k->memory, k->bytes,
			   VMEM_PAGE_SIZE);
	if (is_scratch)
		vmemi_count(&store->out->scratches, -1);
	if (k->home)
		vmemi_pool_home_recycle(store->pool, k->home);
	if (k->segment)
		vmemi_pool_leave_unpin(store->pool, k->segment);
	stuck_free(k);
}

void vmemi_out_collect(vmem_store *store, bool all)
{
	for (uint32_t i = 0; i < VMEMI_STUCK; i++) {
		struct vmemi_stuck *k = &store->out->stuck[i];

		if (atomic_load_explicit(&k->tag, memory_order_acquire) &&
		    (all || atomic_load_explicit(&k->done, memory_order_acquire)))
			let_go(store, k);
	}
}

static bool is_stuck_at(const struct vmemi_stuck *k, uint32_t device)
{
	return atomic_load_explicit(&k->tag, memory_order_acquire) &&
	       atomic_load_explicit(&k->device, memory_order_relaxed) == device &&
	       !atomic_load_explicit(&k->done, memory_order_acquire);
}

uint32_t vmemi_out_stuck_at(const struct vmemi_out *out, uint32_t device)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < VMEMI_STUCK; i++)
		count += is_stuck_at(&out->stuck[i], device);
	return count;
}

void vmemi_out_stuck_move(struct vmemi_out *out, uint32_t device, uint32_t to)
{
	for (uint32_t i = 0; i < VMEMI_STUCK; i++)
		if (is_stuck_at(&out->stuck[i], device))
			atomic_store_explicit(&out->stuck[i].device, to, memory_order_relaxed);
}

void vmemi_out_stuck_closed(struct vmemi_out *out, uint32_t device)
{
	for (uint32_t i = 0; i < VMEMI_STUCK; i++)
		if (is_stuck_at(&out->stuck[i], device))
			atomic_store_explicit(&out->stuck[i].done, true, memory_order_release);
}

/* --- Segments on their way --- */

static uint32_t device_of(const struct vmemi_write *w, uint32_t state)
{
	return state == VMEMI_READ_FLYING || state == VMEMI_READ_QUEUED ? w->from
									: VMEM_SLOT_DEVICE(w->slot);
}

/* The scratch is the device's. */
static void lose_scratch(struct vmemi_write *w, struct vmemi_stuck *k)
{
	k->memory = w->scratch;
	k->bytes = VMEM_POOL_SEGMENT_BYTES;
	w->scratch = NULL;
}

static void write_expired(vmem_store *store, struct vmemi_write *w, struct vmemi_stuck *k)
{
	struct vmemi_out *out = store->out;

	if (w->leaving.data == w->scratch)
		lose_scratch(w, k);
	vmemi_out_give(out, w->slot, w->leaving.bytes / VMEMI_OUT_BLOCK);
	if (w->way == VMEMI_WAY_OUT) {
		k->segment = w->leaving.number;
		vmemi_pool_leave_expire(store->pool, &w->leaving);
	} else {
		vmemi_pool_move_cancel(store->pool, &w->moving);
	}
	vmemi_write_end(out, w);
}

static void read_expired(vmem_store *store, struct vmemi_write *w, struct vmemi_stuck *k)
{
	w->error = -VMEM_EIO;
	w->tries = UINT32_MAX - 1; /* there is no other try */
	vmemi_out_set(w, VMEMI_READ_OVER);
	if (w->way == VMEMI_WAY_ALONG) {
		lose_scratch(w, k);
		return;
	}
	k->home = w->homing.memory;
	w->way = VMEMI_WAY_ALONG; /* without a way home, and perhaps to be given up */
	w->slot = VMEM_SLOTS_NONE;
	if (vmemi_pool_move_begin(store->pool, w->moving.number, w->moving.place, &w->moving)) {
		w->way = VMEMI_WAY_HOME; /* it was dropped: what is left of it ends here */
		vmemi_write_end(store->out, w);
	}
	vmemi_pool_home_expire(store->pool, &w->homing);
}

static void expire_write(vmem_store *store, struct vmemi_write *w, uint32_t state)
{
	struct vmemi_out *out = store->out;
	uint32_t device = device_of(w, state), number = (uint32_t)(w - out->write);
	bool reads = state == VMEMI_READ_FLYING || state == VMEMI_READ_QUEUED;
	uint32_t use = atomic_load_explicit(&w->flight, memory_order_relaxed);
	struct vmemi_stuck *k = NULL;

	/* The state was read before: who reaps it has it, and is about to say so. */
	if (!use && (state == VMEMI_WRITE_FLYING || state == VMEMI_READ_FLYING))
		return;
	if (use) {
		k = stuck_new(out, device, vmemi_out_tag(VMEMI_TAG_WRITE, number, use));
		if (!k)
			return;
		if (reads ? !take_read(out, device, &w->flight, use) : !take(&w->flight, use)) {
			stuck_free(k);
			return;
		}
	}
	w->since_ns = 0;
	if (!reads)
		vmemi_out_is_bad(out, device);
	if (!k) { /* the device was full */
		if (reads)
			is_silent(out, device, true);
		w->error = -VMEM_EIO;
		w->tries = reads ? UINT32_MAX - 1 : w->tries;
		vmemi_out_set(w, reads ? VMEMI_READ_OVER : VMEMI_WRITE_OVER);
	} else if (reads) {
		read_expired(store, w, k);
	} else {
		vmemi_count(&out->device[device].write_errors, 1);
		write_expired(store, w, k);
	}
}

/* Whether its time is over; it begins now if it has not. */
static bool is_over(const struct vmemi_out_device *d, uint64_t *since_ns, uint64_t now_ns)
{
	if (!*since_ns)
		*since_ns = now_ns;
	return now_ns - *since_ns >= d->timeout_ns;
}

static void sweep_writes(vmem_store *store, uint64_t now_ns)
{
	struct vmemi_out *out = store->out;

	for (uint32_t i = 0; i < VMEMI_WRITES; i++) {
		struct vmemi_write *w = &out->write[i];
		uint32_t state = atomic_load_explicit(&w->state, memory_order_acquire);

		if ((state == VMEMI_WRITE_FLYING || state == VMEMI_READ_FLYING ||
		     state == VMEMI_WRITE_QUEUED || state == VMEMI_READ_QUEUED) &&
		    is_over(&out->device[device_of(w, state)], &w->since_ns, now_ns))
			expire_write(store, w, state);
	}
}

/* --- Loads --- */

/* One that flies. */
static void expire_flying(vmem_store *store, struct vmemi_window *w, uint32_t piece, uint32_t use)
{
	struct vmemi_out *out = store->out;
	struct vmemi_read *r = &w->piece[piece];
	uint32_t device = atomic_load_explicit(&r->device, memory_order_relaxed);
	uint64_t tag = vmemi_out_tag(0, vmemi_read_number(out, w, piece), use);
	unsigned char *buffer = vmemi_alloc(&store->allocator, VMEMI_PIECE_BYTES, VMEM_PAGE_SIZE);
	struct vmemi_stuck *k = buffer ? stuck_new(out, device, tag) : NULL;

	if (!k || !take_read(out, device, &r->flight, use)) {
		if (k)
			stuck_free(k);
		vmemi_free(&store->allocator, buffer, VMEMI_PIECE_BYTES, VMEM_PAGE_SIZE);
		return;
	}
	k->memory = r->buffer;
	k->bytes = VMEMI_PIECE_BYTES;
	r->buffer = buffer;
	vmemi_window_expired(store, w, piece);
}

/* One whose device was full. */
static void expire_waiting(vmem_store *store, struct vmemi_window *w, uint32_t piece,
			   uint64_t now_ns)
{
	struct vmemi_out *out = store->out;
	const struct vmemi_read *r = &w->piece[piece];
	uint64_t bit = UINT64_C(1) << vmemi_read_number(out, w, piece), since_ns;
	uint32_t device;

	if (!(atomic_fetch_and_explicit(&out->waiting, ~bit, memory_order_acquire) & bit))
		return;
	/* Now it is nobody else's: it may have become another load's before. */
	since_ns = atomic_load_explicit(&r->since_ns, memory_order_relaxed);
	device = atomic_load_explicit(&r->device, memory_order_relaxed);
	if (!since_ns || now_ns - since_ns < out->device[device].timeout_ns) {
		atomic_fetch_or_explicit(&out->waiting, bit, memory_order_release);
		return;
	}
	is_silent(out, device, true);
	vmemi_window_expired(store, w, piece);
}

static void sweep_read(vmem_store *store, uint32_t number, uint64_t now_ns)
{
	struct vmemi_out *out = store->out;
	struct vmemi_window *w = &out->window[number / VMEMI_PIECES];
	uint32_t piece = number % VMEMI_PIECES;
	struct vmemi_read *r = &w->piece[piece];
	uint32_t use = atomic_load_explicit(&r->flight, memory_order_acquire);
	uint32_t device = atomic_load_explicit(&r->device, memory_order_relaxed);
	uint64_t since_ns = atomic_load_explicit(&r->since_ns, memory_order_relaxed);
	uint64_t waiting = atomic_load_explicit(&out->waiting, memory_order_relaxed);

	if (!use && !(waiting >> number & 1))
		return;
	if (!since_ns)
		atomic_store_explicit(&r->since_ns, now_ns, memory_order_relaxed);
	else if (now_ns - since_ns < out->device[device].timeout_ns)
		return;
	else if (use)
		expire_flying(store, w, piece, use);
	else
		expire_waiting(store, w, piece, now_ns);
}

/* --- Discards --- */

static void sweep_discards(struct vmemi_out *out, uint64_t now_ns)
{
	for (uint32_t i = 0; i < VMEMI_DISCARDS; i++) {
		struct vmemi_discard *x = &out->discard[i];
		uint32_t state = atomic_load_explicit(&x->state, memory_order_acquire);
		uint32_t use = atomic_load_explicit(&x->flight, memory_order_relaxed);
		uint32_t device = VMEM_SLOT_DEVICE(x->slot);
		struct vmemi_stuck *k;

		if (state == VMEMI_DISCARD_IDLE || (state == VMEMI_DISCARD_FLYING && !use) ||
		    !is_over(&out->device[device], &x->since_ns, now_ns))
			continue;
		k = use ? stuck_new(out, device, vmemi_out_tag(VMEMI_TAG_DISCARD, i, use)) : NULL;
		if (use && (!k || !take(&x->flight, use))) {
			if (k)
				stuck_free(k);
			continue;
		}
		vmemi_out_is_bad(out,
				 device); /* it may still discard what would be written there */
		vmemi_discard_end(out, x);
	}
}

void vmemi_out_expire(vmem_store *store, uint64_t now_ns)
{
	vmemi_out_collect(store, false);
	if (!now_ns)
		return;
	sweep_writes(store, now_ns);
	for (uint32_t i = 0; i < VMEMI_READS; i++)
		sweep_read(store, i, now_ns);
	sweep_discards(store->out, now_ns);
}
