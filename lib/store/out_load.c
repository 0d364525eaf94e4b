/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads of pages that are out.
 *
 * A load has a window: it is tried with what there is; if the pool says that an object is missing, its blocks are
 * read, and it is tried again. A delta and its reference are two such turns at the most, unless something moves
 * meanwhile. A read that fails, or brings what was not written, is made again, twice, if the device is still there; one
 * that lacks memory says nothing of the page, and is made again until the device's time is over.
 * Nothing is allocated, and the load's page is touched only when all is there: a device that answers late or never
 * holds a window, not the caller's memory. */
#include "store/out_ways.h"
#include "store/out_window.h"
#include "pool/pool_of.h"
#include "store/store_internal.h"

#define TRIES 3u

static uint32_t number_of(const struct vmemi_out *out, const struct vmemi_window *w)
{
	return (uint32_t)(w - out->window);
}

static struct vmemi_out_device *device_of(struct vmemi_out *out, const struct vmemi_located *at)
{
	return &out->device[VMEM_SLOT_DEVICE(at->place)];
}

static void let_go(vmem_store *store, struct vmemi_window *w)
{
	while (w->count)
		vmemi_pool_located_end(store->pool, &w->at[--w->count]);
}

static void finish(vmem_store *store, struct vmemi_window *w, int result)
{
	struct vmemi_out *out = store->out;
	struct vmemi_offers offers = { 0 };
	vmem_store_token token = w->token;

	if (result == -VMEM_EBADMSG) {
		struct vmemi_vm *vm = vmemi_store_vm(store, w->load.vm);

		vmemi_pool_corrupt_of(store->pool, vm->domain->stream,
				      vmemi_ref_payload(w->load.ref));
		result = w->count ? -VMEM_EIO : result;
		for (uint32_t i = 0; i < w->count; i++)
			vmemi_out_doubt(device_of(out, &w->at[i]));
	}
	vmemi_count(&out->loads, 1);
	vmemi_count(&out->lost, result == -VMEM_EIO);
	if (!result) {
		for (uint32_t i = 0; i < w->count; i++) {
			vmemi_out_trust(device_of(out, &w->at[i]));
			if (!w->load.peek)
				vmemi_out_heat(out, &w->at[i], w->blocks[i]);
		}
		vmemi_window_offers(store, w, &offers);
		vmemi_window_warm(out, w);
	}
	let_go(store, w);
	vmemi_window_give(out, w);
	/* Last: an offer may be taken up at once. */
	vmemi_store_load_over(store, token, result, &offers);
}

/* By who polls next. The window may be another thread's from then on. */
static void read_later(struct vmemi_out *out, struct vmemi_window *w)
{
	atomic_fetch_or_explicit(&out->waiting, UINT32_C(1) << number_of(out, w),
				 memory_order_release);
}

static void time_begins(struct vmemi_window *w)
{
	atomic_store_explicit(&w->since_ns, 0, memory_order_relaxed);
}

/* Reads the next piece. False: it cannot. Else the window may be another thread's by now. */
static bool read_next(vmem_store *store, struct vmemi_window *w)
{
	uint32_t piece = w->count;
	const struct vmemi_located *at = &w->at[piece];
	struct vmemi_out *out = store->out;
	uint32_t number = number_of(out, w), device = VMEM_SLOT_DEVICE(at->place);
	uint32_t first = vmemi_out_first(at), blocks = vmemi_out_end(at) - first;
	uint32_t use = vmemi_out_next_use(&w->use);
	uint64_t tag = vmemi_out_tag(0, number, use);
	int rc;

	w->first[piece] = first;
	w->blocks[piece] = blocks;
	if (vmemi_out_is_silent(&out->device[device])) {
		vmemi_count(&out->device[device].read_errors, 1);
		return false;
	}
	atomic_store_explicit(&w->device, device, memory_order_relaxed);
	atomic_store_explicit(&w->flight, use, memory_order_release);
	rc = vmemi_out_submit(out, device, VMEM_DEVICE_READ,
			      (VMEM_SLOT_NUMBER(at->place) + first) * VMEMI_OUT_BLOCK,
			      (uint64_t)blocks * VMEMI_OUT_BLOCK, vmemi_window_buffer(w, piece),
			      tag);
	if (rc <= 0 && !vmemi_out_landed(&w->flight, tag)) {
		vmemi_out_is_late(out, tag); /* its time was over meanwhile */
		return true;
	}
	if (rc < 0)
		vmemi_count(&out->device[device].read_errors, 1);
	if (rc < 0 && rc != -VMEM_ENOMEM)
		vmemi_out_doubt(&out->device[device]);
	if (rc && rc != -VMEM_ENOMEM)
		return rc > 0;
	read_later(out, w);
	return true;
}

/* Looks for what is missing. 0: it is read next, -VMEM_EAGAIN: it has come home, try again; else the end. */
static int look_for(vmem_store *store, struct vmemi_window *w, uint32_t stream, uint32_t missing)
{
	int rc;

	if (w->count == VMEMI_PIECES) /* one of them has become another */
		let_go(store, w);
	rc = vmemi_pool_locate(store->pool, stream, missing, &w->at[w->count]);
	/* A reference that has gone: the delta was replaced, and is read anew. */
	if (rc == -VMEM_ENOENT && missing != vmemi_ref_payload(w->load.ref))
		return -VMEM_EAGAIN;
	if (rc)
		return rc;
	time_begins(w);
	if (read_next(store, w))
		return 0;
	vmemi_pool_located_end(store->pool, &w->at[w->count]);
	return -VMEM_EIO;
}

/* Wrong bytes may have become so on their way: all pieces are read again. False: often enough, or none was read. */
static bool read_again(vmem_store *store, struct vmemi_window *w)
{
	if (!w->count || ++w->tries >= TRIES)
		return false;
	while (--w->count)
		vmemi_pool_located_end(store->pool, &w->at[w->count]);
	atomic_store_explicit(&w->device, VMEM_SLOT_DEVICE(w->at[0].place), memory_order_relaxed);
	time_begins(w);
	read_later(store->out, w);
	return true;
}

static void step(vmem_store *store, struct vmemi_window *w)
{
	uint32_t stream = vmemi_store_vm(store, w->load.vm)->domain->stream, missing = 0;
	int rc;

	do {
		struct vmemi_piece pieces[VMEMI_PIECES] = { { 0 } };

		for (uint32_t i = 0; i < w->count; i++)
			pieces[i] = (struct vmemi_piece){
				.handle = w->at[i].handle,
				.checksum = w->at[i].checksum,
				.entry = w->at[i].entry,
				.object = vmemi_window_buffer(w, i) + w->at[i].offset -
					  w->first[i] * VMEMI_OUT_BLOCK,
			};
		rc = vmemi_pool_load_pieces(store->pool, stream, vmemi_ref_payload(w->load.ref),
					    w->load.page, pieces, &missing);
		if (rc == -VMEM_EAGAIN) {
			rc = look_for(store, w, stream, missing);
			if (!rc)
				return;
		}
	} while (rc == -VMEM_EAGAIN);
	if (rc != -VMEM_EBADMSG || !read_again(store, w))
		finish(store, w, rc);
}

int vmemi_out_load(vmem_store *store, const struct vmemi_load *load, vmem_store_token *ret_token)
{
	struct vmemi_out *out = store->out;
	struct vmemi_window *w;
	int rc;

	if (!out)
		return -VMEM_EAGAIN;
	rc = vmemi_warm_load(store, load);
	if (!rc)
		return 0;
	w = ret_token ? vmemi_window_take(out) : NULL;
	if (!w)
		return -VMEM_EAGAIN;
	rc = vmemi_inflight_begin(&store->inflight, load, &w->token);
	if (rc) {
		vmemi_window_give(out, w);
		return rc;
	}
	w->load = *load;
	w->count = 0;
	w->tries = 0;
	/* First: whoever polls may know of the token's end before this returns. */
	*ret_token = w->token;
	step(store, w);
	return -VMEM_EINPROGRESS;
}

void vmemi_window_expired(vmem_store *store, struct vmemi_window *w)
{
	vmemi_count(&store->out->device[VMEM_SLOT_DEVICE(w->at[w->count].place)].read_errors, 1);
	w->count++; /* its place, which finish() lets go of */
	finish(store, w, -VMEM_EIO);
}

void vmemi_out_has_read(vmem_store *store, uint64_t tag, int error)
{
	struct vmemi_out *out = store->out;
	struct vmemi_window *w;
	struct vmemi_out_device *d;

	w = &out->window[tag % VMEMI_WINDOWS];
	if (!vmemi_out_landed(&w->flight, tag)) {
		vmemi_out_is_late(out, tag); /* or nobody has asked for it */
		return;
	}
	d = device_of(out, &w->at[w->count]);
	vmemi_count(&d->read_errors, error != 0);
	if (error == -VMEM_ENOMEM || (error && error != -VMEM_ENODEV && ++w->tries < TRIES)) {
		if (error != -VMEM_ENOMEM) /* of that there is one time for all tries */
			time_begins(w);
		read_later(out, w);
		return;
	}
	w->count++;
	if (error) {
		vmemi_out_doubt(d);
		finish(store, w, -VMEM_EIO);
		return;
	}
	atomic_fetch_add_explicit(&d->read_bytes, w->at[w->count - 1].bytes, memory_order_relaxed);
	step(store, w);
}

void vmemi_out_retry_reads(vmem_store *store)
{
	struct vmemi_out *out = store->out;
	uint32_t waiting = 0;

	if (atomic_load_explicit(&out->waiting, memory_order_relaxed))
		waiting = atomic_exchange_explicit(&out->waiting, 0, memory_order_acquire);
	for (; waiting; waiting &= waiting - 1) {
		struct vmemi_window *w = &out->window[__builtin_ctz(waiting)];

		if (!read_next(store, w)) {
			w->count++; /* its place, which finish() lets go of */
			finish(store, w, -VMEM_EIO);
		}
	}
}
