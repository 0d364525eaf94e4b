/* SPDX-License-Identifier: BSD-2-Clause */
/* Warm windows, and what lies in them.
 *
 * A window that has been read, and whose load is over, is idle, but the blocks in its buffer stay of use until it is
 * needed for another read: pages that lie in them are offered to their VM, and a load of one is served at once. What
 * a window has is told by a word for each piece: how many blocks, << 48, and the slot of the first; 0: nothing.
 *
 * Nobody is kept from giving the slots away. Who does so cools the windows that have blocks of theirs, before others
 * can take the slots; and a window becomes warm while its read holds the copy. A load holds the copy that it
 * wants, too: so what it finds under the slot of that is this copy, and no earlier one.
 *
 * What lies on a device that is mapped needs no window: it is decoded where it is, and nothing of it is copied. It costs
 * what it would in memory, so it is no reason to come home, and its neighbours cost as much whenever they are loaded. */
#include "store/out_window.h"
#include "pool/pool_of.h"
#include "store/store_internal.h"

#define WARM_BLOCKS_SHIFT 48u

static uint64_t warm_slot(uint64_t warm)
{
	return warm & ((UINT64_C(1) << WARM_BLOCKS_SHIFT) - 1);
}

static uint64_t warm_end(uint64_t warm)
{
	return warm_slot(warm) + (warm >> WARM_BLOCKS_SHIFT);
}

static uint64_t word_of(const struct vmemi_out *out, uint32_t window, uint32_t piece)
{
	return atomic_load_explicit(&out->warm[window][piece], memory_order_relaxed);
}

static void set_word(struct vmemi_out *out, uint32_t window, uint32_t piece, uint64_t warm)
{
	atomic_store_explicit(&out->warm[window][piece], warm, memory_order_relaxed);
}

/* --- Windows --- */

/* Of these, a cold one, or the one that has been warm for longest. */
static uint32_t coldest(const struct vmemi_out *out, uint32_t idle)
{
	uint32_t now = atomic_load_explicit(&out->warm_clock, memory_order_relaxed);
	uint32_t best = 0, best_age = 0;
	bool found = false;

	for (; idle; idle &= idle - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(idle);
		uint32_t age =
			now - atomic_load_explicit(&out->warm_stamp[i], memory_order_relaxed);

		if (!word_of(out, i, 0) && !word_of(out, i, 1))
			return i;
		if (!found || age > best_age) {
			best = i;
			best_age = age;
			found = true;
		}
	}
	return best;
}

_Static_assert(VMEMI_PIECES == 2, "coldest() looks at two");

/* Takes this one, if it is idle. */
static bool take(struct vmemi_out *out, uint32_t window)
{
	uint32_t bit = UINT32_C(1) << window;

	return atomic_fetch_and_explicit(&out->idle, ~bit, memory_order_acquire) & bit;
}

static void cool_all(struct vmemi_out *out, uint32_t window)
{
	for (uint32_t piece = 0; piece < VMEMI_PIECES; piece++)
		set_word(out, window, piece, 0);
}

struct vmemi_window *vmemi_window_take(struct vmemi_out *out)
{
	uint32_t idle;

	while ((idle = atomic_load_explicit(&out->idle, memory_order_relaxed)) != 0) {
		uint32_t window = coldest(out, idle);

		if (take(out, window)) {
			cool_all(out, window);
			return &out->window[window];
		}
	}
	return NULL;
}

void vmemi_window_give(struct vmemi_out *out, struct vmemi_window *w)
{
	atomic_fetch_or_explicit(&out->idle, UINT32_C(1) << (w - out->window),
				 memory_order_release);
}

void vmemi_window_warm(struct vmemi_out *out, const struct vmemi_window *w)
{
	uint32_t window = (uint32_t)(w - out->window);

	atomic_store_explicit(&out->warm_stamp[window],
			      atomic_fetch_add_explicit(&out->warm_clock, 1, memory_order_relaxed),
			      memory_order_relaxed);
	/* Whoever gives the slots away sees it: after the copies were let go. */
	for (uint32_t i = 0; i < w->count; i++)
		set_word(out, window, i,
			 (uint64_t)w->piece[i].blocks << WARM_BLOCKS_SHIFT |
				 (w->piece[i].at.place + w->piece[i].first));
}

void vmemi_window_cool(struct vmemi_out *out, uint64_t place, uint32_t blocks)
{
	for (uint32_t i = 0; i < VMEMI_WINDOWS; i++)
		for (uint32_t piece = 0; piece < VMEMI_PIECES; piece++) {
			uint64_t warm = word_of(out, i, piece);

			if (warm && warm_slot(warm) < place + blocks && warm_end(warm) > place)
				(void)atomic_compare_exchange_strong(&out->warm[i][piece], &warm,
								     0);
		}
}

/* --- Loads --- */

/* An object of a load, in a window. */
struct found {
	struct vmemi_located at;
	struct vmemi_window *window; /* the caller's; NULL: it is read where it lies */
	const unsigned char *object;
};

/* Where it lies, if its device is mapped. Its copy is held, and so the device: its slots are taken. */
static bool find_mapped(struct vmemi_out *out, struct found *f)
{
	const struct vmem_device *device = out->device[VMEM_SLOT_DEVICE(f->at.place)].device;

	if (!(device->flags & VMEM_DEVICE_MAPPED))
		return false;
	f->window = NULL;
	f->object = device->ops->map(device->context,
				     VMEM_SLOT_NUMBER(f->at.place) * VMEMI_OUT_BLOCK + f->at.offset,
				     f->at.bytes);
	return f->object != NULL;
}

/* The window that has these blocks, which are of a copy that is held; @mine: one that is the caller's. */
static bool find(struct vmemi_out *out, struct found *f, const struct vmemi_window *mine)
{
	uint64_t slot = f->at.place + vmemi_out_first(&f->at);
	uint64_t end = f->at.place + vmemi_out_end(&f->at);

	for (uint32_t i = 0; i < VMEMI_WINDOWS; i++)
		for (uint32_t piece = 0; piece < VMEMI_PIECES; piece++) {
			uint64_t warm = word_of(out, i, piece);
			bool is_mine = &out->window[i] == mine;

			if (!warm || slot < warm_slot(warm) || end > warm_end(warm) ||
			    (!is_mine && !take(out, i)))
				continue;
			f->window = &out->window[i];
			f->object = vmemi_read_object(&f->window->piece[piece], &f->at);
			if (word_of(out, i, piece) == warm)
				return true;
			if (!is_mine)
				vmemi_window_give(out, f->window);
		}
	return false;
}

/* Finds an object. False: it is nowhere. */
static bool hold(vmem_store *store, uint32_t stream, uint32_t handle, struct found *f,
		 const struct vmemi_window *mine)
{
	if (vmemi_pool_locate(store->pool, stream, handle, &f->at))
		return false;
	if (find_mapped(store->out, f) || find(store->out, f, mine))
		return true;
	vmemi_pool_located_end(store->pool, &f->at);
	return false;
}

static struct vmemi_piece piece_of(const struct found *f)
{
	return (struct vmemi_piece){
		.handle = f->at.handle,
		.checksum = f->at.checksum,
		.entry = f->at.entry,
		.object = f->object,
	};
}

/* @rc: what became of the load. */
static void let_go(vmem_store *store, const struct found *f, uint32_t count, int rc)
{
	struct vmemi_out *out = store->out;
	bool is_read = false;

	for (uint32_t i = 0; i < count; i++) {
		struct vmemi_out_device *d = &out->device[VMEM_SLOT_DEVICE(f[i].at.place)];
		struct vmemi_window *w = f[i].window;

		if (!w)
			atomic_fetch_add_explicit(&d->read_bytes, f[i].at.bytes,
						  memory_order_relaxed);
		if (!w && !rc)
			vmemi_out_trust(d);
		is_read |= !w;
		/* What is wrong may be wrong in the buffer alone: the device is asked. */
		if (w && rc == -VMEM_EBADMSG)
			cool_all(out, (uint32_t)(w - out->window));
		vmemi_pool_located_end(store->pool, &f[i].at);
		if (w && (!i || w != f[0].window))
			vmemi_window_give(out, w);
	}
	vmemi_count(is_read ? &out->loads : &out->warm_loads, !rc && count);
}

/* As step() of a load from a device, with what is there. */
static int load_warm(vmem_store *store, const struct vmemi_load *load)
{
	uint32_t stream = vmemi_store_vm(store, load->vm)->domain->stream, count = 0, missing = 0;
	struct vmemi_piece pieces[VMEMI_PIECES] = { { 0 } };
	struct found f[VMEMI_PIECES];
	bool more;
	int rc;

	do {
		rc = vmemi_pool_load_pieces(store->pool, stream, vmemi_ref_payload(load->ref),
					    load->page, pieces, &missing);
		more = rc == -VMEM_EAGAIN && count < VMEMI_PIECES &&
		       hold(store, stream, missing, &f[count], count ? f[0].window : NULL);
		if (more) {
			pieces[count] = piece_of(&f[count]);
			count++;
		}
	} while (more);
	let_go(store, f, count, rc);
	return rc ? -VMEM_EAGAIN : 0;
}

/* More at once than there are windows cannot find any. So the pool's count of who reads a copy has an end. */
int vmemi_warm_load(vmem_store *store, const struct vmemi_load *load)
{
	struct vmemi_out *out = store->out;
	int rc = -VMEM_EAGAIN;

	if (atomic_fetch_add_explicit(&out->warming, 1, memory_order_relaxed) < VMEMI_WINDOWS)
		rc = load_warm(store, load);
	atomic_fetch_sub_explicit(&out->warming, 1, memory_order_relaxed);
	return rc;
}

/* --- Offers --- */

void vmemi_window_offers(vmem_store *store, const struct vmemi_window *w,
			 struct vmemi_offers *offers)
{
	const struct vmemi_vm *vm = vmemi_store_vm(store, w->load.vm);

	for (uint32_t i = 0; i < w->count && !w->load.peek; i++) {
		struct vmemi_neighbour near[VMEMI_OFFERS];
		const struct vmemi_read *r = &w->piece[i];
		const struct vmemi_stretch read = { .offset = r->first * VMEMI_OUT_BLOCK,
						    .bytes = r->blocks * VMEMI_OUT_BLOCK,
						    .data = r->buffer };
		uint32_t count = vmemi_pool_neighbours(store->pool, &r->at, &read, near,
						       VMEMI_OFFERS - offers->count);

		for (uint32_t n = 0; n < count; n++) {
			bool is_its = near[n].vm == vm->number ||
				      (near[n].vm == VMEMI_NO_VM && !vm->domain->is_group);

			if (is_its && near[n].handle != vmemi_ref_payload(w->load.ref) &&
			    vmemi_vm_owns(vm, near[n].handle))
				offers->key[offers->count++] = near[n].key;
		}
	}
	atomic_fetch_add_explicit(&store->out->offers, offers->count, memory_order_relaxed);
}
