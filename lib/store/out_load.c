/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads of pages that are out.
 *
 * A load has a window: it is tried with what there is; if the pool says that an object is missing, its blocks are
 * read, and it is tried again. Of a delta the reference is read at the same time, so that one such turn is enough,
 * unless something moves meanwhile. Whoever ends the last read of a turn goes on. A read that fails, or brings what was
 * not written, is made again, twice, if the device is still there; one that lacks memory says nothing of the page, and
 * is made again until the device's time is over.
 * Nothing is allocated, and the load's page is touched only when all is there: a device that answers late or never
 * holds a window, not the caller's memory. */
#include "store/out_ways.h"
#include "store/out_window.h"
#include "pool/pool_of.h"
#include "store/store_internal.h"

#define TRIES 3u

_Static_assert(VMEMI_READS <= 64 && VMEMI_READS <= VMEMI_TAG_DISCARD, "numbers of reads");

static struct vmemi_out_device *device_of(struct vmemi_out *out, const struct vmemi_located *at)
{
	return &out->device[VMEM_SLOT_DEVICE(at->place)];
}

static void let_go(vmem_store *store, struct vmemi_window *w)
{
	while (w->count)
		vmemi_pool_located_end(store->pool, &w->piece[--w->count].at);
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
			vmemi_out_doubt(device_of(out, &w->piece[i].at));
	}
	vmemi_count(&out->loads, 1);
	vmemi_count(&out->lost, result == -VMEM_EIO);
	if (!result) {
		for (uint32_t i = 0; i < w->count; i++) {
			const struct vmemi_read *r = &w->piece[i];

			vmemi_out_trust(device_of(out, &r->at));
			if (!w->load.peek)
				vmemi_out_heat(out, &r->at, r->blocks);
		}
		vmemi_window_offers(store, w, &offers);
		vmemi_window_warm(out, w);
	}
	let_go(store, w);
	vmemi_window_give(out, w);
	/* Last: an offer may be taken up at once. */
	vmemi_store_load_over(store, token, result, &offers);
}

/* A read is over, with an error for good or none. True: it was the last one, and the window is the caller's. */
static bool end_read(struct vmemi_window *w, uint32_t piece, int error)
{
	w->piece[piece].error = error;
	return atomic_fetch_sub_explicit(&w->reads, 1, memory_order_acq_rel) == 1;
}

static void fail_read(vmem_store *store, struct vmemi_window *w, uint32_t piece)
{
	if (end_read(w, piece, -VMEM_EIO))
		finish(store, w, -VMEM_EIO);
}

/* By who polls next. It may be another thread's from then on. */
static void read_later(struct vmemi_out *out, const struct vmemi_window *w, uint32_t piece)
{
	atomic_fetch_or_explicit(&out->waiting, UINT64_C(1) << vmemi_read_number(out, w, piece),
				 memory_order_release);
}

static void time_begins(struct vmemi_read *r)
{
	atomic_store_explicit(&r->since_ns, 0, memory_order_relaxed);
}

/* False: it cannot be read. Else it may be another thread's by now. */
static bool submit_read(vmem_store *store, struct vmemi_window *w, uint32_t piece)
{
	struct vmemi_read *r = &w->piece[piece];
	struct vmemi_out *out = store->out;
	uint32_t device = VMEM_SLOT_DEVICE(r->at.place);
	uint32_t use = vmemi_out_next_use(&r->use);
	uint64_t tag = vmemi_out_tag(0, vmemi_read_number(out, w, piece), use);
	int rc;

	if (vmemi_out_is_silent(&out->device[device])) {
		vmemi_count(&out->device[device].read_errors, 1);
		return false;
	}
	atomic_store_explicit(&r->device, device, memory_order_relaxed);
	atomic_store_explicit(&r->flight, use, memory_order_release);
	rc = vmemi_out_submit(out, device, VMEM_DEVICE_READ,
			      (VMEM_SLOT_NUMBER(r->at.place) + r->first) * VMEMI_OUT_BLOCK,
			      (uint64_t)r->blocks * VMEMI_OUT_BLOCK, r->buffer, tag);
	if (rc <= 0 && !vmemi_out_landed(&r->flight, tag)) {
		vmemi_out_is_late(out, tag); /* its time was over meanwhile */
		return true;
	}
	if (rc < 0)
		vmemi_count(&out->device[device].read_errors, 1);
	if (rc < 0 && rc != -VMEM_ENOMEM)
		vmemi_out_doubt(&out->device[device]);
	if (rc && rc != -VMEM_ENOMEM)
		return rc > 0;
	read_later(out, w, piece);
	return true;
}

/* Reads the pieces from @begin on. The window may be another thread's then. */
static void read_pieces(vmem_store *store, struct vmemi_window *w, uint32_t begin)
{
	uint32_t end = w->count;

	/* All of them first: whoever ends one must know of the others. */
	atomic_store_explicit(&w->reads, end - begin, memory_order_relaxed);
	for (uint32_t i = begin; i < end; i++) {
		struct vmemi_read *r = &w->piece[i];

		r->first = vmemi_out_first(&r->at);
		r->blocks = vmemi_out_end(&r->at) - r->first;
		time_begins(r);
		if (!submit_read(store, w, i))
			fail_read(store, w, i);
	}
}

/* Looks for what is missing. 0: it is read next, -VMEM_EAGAIN: it has come home, try again; else the end. */
static int look_for(vmem_store *store, struct vmemi_window *w, uint32_t stream, uint32_t missing)
{
	struct vmemi_located *at;
	uint32_t begin;
	int rc;

	if (w->count == VMEMI_PIECES) /* one of them has become another */
		let_go(store, w);
	begin = w->count;
	at = &w->piece[begin].at;
	rc = vmemi_pool_locate(store->pool, stream, missing, at);
	/* A reference that has gone: the delta was replaced, and is read anew. */
	if (rc == -VMEM_ENOENT && missing != vmemi_ref_payload(w->load.ref))
		return -VMEM_EAGAIN;
	if (rc)
		return rc;
	w->count++;
	/* It would be missing next, if it is out. */
	if (!begin && at->reference &&
	    !vmemi_pool_locate(store->pool, stream, at->reference, &w->piece[1].at))
		w->count++;
	read_pieces(store, w, begin);
	return 0;
}

/* Wrong bytes may have become so on their way: all pieces are looked for again. False: often enough, or none was read. */
static bool read_again(vmem_store *store, struct vmemi_window *w)
{
	if (!w->count || ++w->piece[0].tries >= TRIES)
		return false;
	let_go(store, w);
	return true;
}

static void step(vmem_store *store, struct vmemi_window *w)
{
	uint32_t stream = vmemi_store_vm(store, w->load.vm)->domain->stream, missing = 0;
	int rc;

	do {
		struct vmemi_piece pieces[VMEMI_PIECES] = { { 0 } };

		for (uint32_t i = 0; i < w->count; i++) {
			const struct vmemi_located *at = &w->piece[i].at;

			pieces[i] = (struct vmemi_piece){
				.handle = at->handle,
				.checksum = at->checksum,
				.entry = at->entry,
				.object = vmemi_read_object(&w->piece[i], at),
			};
		}
		rc = vmemi_pool_load_pieces(store->pool, stream, vmemi_ref_payload(w->load.ref),
					    w->load.page, pieces, &missing);
		if (rc == -VMEM_EAGAIN) {
			rc = look_for(store, w, stream, missing);
			if (!rc)
				return;
		} else if (rc == -VMEM_EBADMSG && read_again(store, w)) {
			rc = -VMEM_EAGAIN;
		}
	} while (rc == -VMEM_EAGAIN);
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
	for (uint32_t i = 0; i < VMEMI_PIECES; i++)
		w->piece[i].tries = 0;
	/* First: whoever polls may know of the token's end before this returns. */
	*ret_token = w->token;
	step(store, w);
	return -VMEM_EINPROGRESS;
}

void vmemi_window_expired(vmem_store *store, struct vmemi_window *w, uint32_t piece)
{
	vmemi_count(&device_of(store->out, &w->piece[piece].at)->read_errors, 1);
	fail_read(store, w, piece);
}

/* A read has brought its blocks. */
static void go_on(vmem_store *store, struct vmemi_window *w, uint32_t piece)
{
	bool failed = false;

	if (!end_read(w, piece, 0))
		return;
	for (uint32_t i = 0; i < w->count; i++)
		failed |= w->piece[i].error != 0;
	if (failed)
		finish(store, w, -VMEM_EIO);
	else
		step(store, w);
}

void vmemi_out_has_read(vmem_store *store, uint64_t tag, int error)
{
	struct vmemi_out *out = store->out;
	uint32_t number = tag % VMEMI_READS, piece = number % VMEMI_PIECES;
	struct vmemi_window *w = &out->window[number / VMEMI_PIECES];
	struct vmemi_read *r = &w->piece[piece];
	struct vmemi_out_device *d;

	if (!vmemi_out_landed(&r->flight, tag)) {
		vmemi_out_is_late(out, tag); /* or nobody has asked for it */
		return;
	}
	d = device_of(out, &r->at);
	vmemi_count(&d->read_errors, error != 0);
	if (error == -VMEM_ENOMEM || (error && error != -VMEM_ENODEV && ++r->tries < TRIES)) {
		if (error != -VMEM_ENOMEM) /* of that there is one time for all tries */
			time_begins(r);
		read_later(out, w, piece);
	} else if (error) {
		vmemi_out_doubt(d);
		fail_read(store, w, piece);
	} else {
		atomic_fetch_add_explicit(&d->read_bytes, r->at.bytes, memory_order_relaxed);
		go_on(store, w, piece);
	}
}

void vmemi_out_retry_reads(vmem_store *store)
{
	struct vmemi_out *out = store->out;
	uint64_t waiting = 0;

	if (atomic_load_explicit(&out->waiting, memory_order_relaxed))
		waiting = atomic_exchange_explicit(&out->waiting, 0, memory_order_acquire);
	for (; waiting; waiting &= waiting - 1) {
		uint32_t number = (uint32_t)__builtin_ctzll(waiting);
		struct vmemi_window *w = &out->window[number / VMEMI_PIECES];

		if (!submit_read(store, w, number % VMEMI_PIECES))
			fail_read(store, w, number % VMEMI_PIECES);
	}
}
