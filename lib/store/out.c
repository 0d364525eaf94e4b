/* SPDX-License-Identifier: BSD-2-Clause */
/* What goes to devices of a store and comes from them: see out.h. */
#include "store/out_ways.h"
#include "store/out_window.h"
#include "base/alloc.h"
#include "base/opts.h"
#include "store/store_internal.h"

#define REAP 16u
#define WAIT_SLICE_NS 1000000u /* where there are more devices than one */

/* A segment on its way stays where it is. */
static void let_go(vmem_store *store, struct vmemi_write *w)
{
	uint32_t state = atomic_load(&w->state);

	if (state == VMEMI_WRITE_IDLE)
		return;
	if (state == VMEMI_WRITE_PARTING) {
		if (w->way == VMEMI_WAY_OUT)
			(void)vmemi_pool_leave_freed(store->pool, &w->leaving);
		return;
	}
	switch (w->way) {
	case VMEMI_WAY_OUT: vmemi_pool_leave_cancel(store->pool, &w->leaving); break;
	case VMEMI_WAY_ALONG: vmemi_pool_move_cancel(store->pool, &w->moving); break;
	case VMEMI_WAY_HOME: vmemi_pool_home_cancel(store->pool, &w->homing); break;
	}
}

/* No call runs: what is in flight ends with its device, and no data is touched from then on. */
void vmemi_out_free(vmem_store *store)
{
	struct vmemi_out *out = store->out;

	if (!out)
		return;
	for (uint32_t i = 0; i < atomic_load(&out->devices); i++)
		vmem_device_close(out->device[i].device); /* NULL is fine */
	vmemi_out_collect(store, true);
	for (uint32_t i = 0; i < VMEMI_READS; i++) {
		unsigned char *buffer =
			out->window[i / VMEMI_PIECES].piece[i % VMEMI_PIECES].buffer;

		if (buffer != out->buffers + i * VMEMI_PIECE_BYTES)
			vmemi_free(&store->allocator, buffer, VMEMI_PIECE_BYTES, VMEM_PAGE_SIZE);
	}
	for (uint32_t i = 0; i < VMEMI_WRITES; i++) {
		struct vmemi_write *w = &out->write[i];

		let_go(store, w);
		vmemi_free(&store->segments, w->scratch, VMEM_POOL_SEGMENT_BYTES, VMEM_PAGE_SIZE);
	}
	vmem_slots_cursor_end(out->slots, &out->cursor);
	vmem_slots_free(out->slots);
	vmemi_free(&store->allocator, out->buffers, VMEMI_WINDOWS * VMEMI_WINDOW_BYTES,
		   VMEM_PAGE_SIZE);
	vmemi_free(&store->allocator, out, sizeof(*out), 64);
	store->out = NULL;
}

/* --- Requests --- */

int vmemi_out_submit(struct vmemi_out *out, uint32_t device, uint32_t op, uint64_t offset,
		     uint64_t bytes, void *data, uint64_t tag)
{
	struct vmemi_out_device *d = &out->device[device];
	const struct vmem_device_request r = {
		.op = op, .offset = offset, .bytes = bytes, .data = data, .tag = tag
	};
	int rc;

	/* It may be over, and nothing there any more, before submit() returns. */
	if (!vmemi_out_hold(d))
		return -VMEM_ENODEV;
	atomic_fetch_add_explicit(&d->flying, 1, memory_order_relaxed);
	rc = d->device->ops->submit(d->device->context, &r, 1);
	if (rc <= 0)
		atomic_fetch_sub_explicit(&d->flying, 1, memory_order_relaxed);
	if (rc == -VMEM_ENODEV)
		vmemi_out_doubt(d);
	vmemi_out_release(d);
	return rc;
}

static bool reap(vmem_store *store, struct vmemi_out_device *d)
{
	struct vmem_device_completion c[REAP];
	int n;

	if (!vmemi_out_hold(d))
		return false;
	/* One with a descriptor may have something without a request: the end of its connection. */
	if (!atomic_load_explicit(&d->flying, memory_order_relaxed) && !d->device->ops->fd) {
		vmemi_out_release(d);
		return false;
	}
	n = d->device->ops->complete(d->device->context, c, REAP);
	if (n > 0)
		atomic_store_explicit(&d->silent, false, memory_order_relaxed);
	for (int i = 0; i < n; i++) {
		atomic_fetch_sub_explicit(&d->flying, 1, memory_order_relaxed);
		if (c[i].error == -VMEM_ENODEV)
			vmemi_out_doubt(d);
		if (c[i].tag & VMEMI_TAG_WRITE)
			vmemi_out_has_written(store->out, c[i].tag, c[i].error);
		else if (c[i].tag & VMEMI_TAG_DISCARD)
			vmemi_out_has_discarded(store->out, c[i].tag);
		else
			vmemi_out_has_read(store, c[i].tag, c[i].error);
	}
	vmemi_out_release(d);
	return n == (int)REAP;
}

void vmemi_out_poll(vmem_store *store)
{
	struct vmemi_out *out = store->out;
	uint32_t devices = out ? atomic_load_explicit(&out->devices, memory_order_acquire) : 0;

	for (uint32_t i = 0; i < devices; i++)
		while (reap(store, &out->device[i]))
			;
	if (out)
		vmemi_out_retry_reads(store);
}

void vmem_store_wait(vmem_store *store, uint64_t timeout_ns)
{
	struct vmemi_out *out = store->out;
	uint32_t devices = out ? atomic_load_explicit(&out->devices, memory_order_acquire) : 0;

	/* Another may get something to do meanwhile. */
	if (devices > 1 && timeout_ns > WAIT_SLICE_NS)
		timeout_ns = WAIT_SLICE_NS;
	/* One of which all is late is waited for only where there is no other. */
	for (uint32_t i = 0; i < 2 * devices; i++) {
		struct vmemi_out_device *d = &out->device[i % devices];
		uint32_t flying = atomic_load_explicit(&d->flying, memory_order_relaxed);

		if (!flying ||
		    (i < devices && devices > 1 && flying == vmemi_out_stuck_at(out, i)) ||
		    !vmemi_out_hold(d))
			continue;
		if (d->device->ops->wait)
			(void)d->device->ops->wait(d->device->context, timeout_ns);
		else
			vmemi_relax(&store->env);
		vmemi_out_release(d);
		return; /* of several, who waits comes again */
	}
}

void vmem_store_write_out(vmem_store *store, uint64_t bytes)
{
	uint64_t segments =
		bytes / VMEM_POOL_SEGMENT_BYTES + (bytes % VMEM_POOL_SEGMENT_BYTES != 0);

	if (store->out)
		atomic_store_explicit(&store->out->requested,
				      segments < UINT32_MAX ? (uint32_t)segments : UINT32_MAX,
				      memory_order_relaxed);
}

/* --- Counters --- */

int vmem_store_get_out_stats(vmem_store *store, struct vmem_store_out_stats *ret_stats)
{
	struct vmem_store_out_stats stats = { .size = sizeof(stats) };
	struct vmemi_out *out = store->out;
	struct vmemi_out_stats pool;

	if (out) {
		vmemi_pool_out_stats(store->pool, &pool);
		stats.segments = pool.segments;
		stats.live_bytes = pool.live_bytes;
		stats.writing = atomic_load_explicit(&out->writing, memory_order_relaxed);
		stats.loads = vmemi_counter(&out->loads);
		stats.lost = vmemi_counter(&out->lost);
		stats.saves_waited = vmemi_counter(&out->saves_waited);
		stats.no_room = vmemi_counter(&out->no_room);
		stats.warm_loads = vmemi_counter(&out->warm_loads);
		stats.offers = vmemi_counter(&out->offers);
		stats.passed = vmemi_counter(&out->passed);
		stats.packed = vmemi_counter(&out->packed);
		stats.moved = vmemi_counter(&out->moved);
		stats.came_home = vmemi_counter(&out->came_home);
		stats.given_up = vmemi_counter(&out->given_up);
	}
	return vmemi_opts_give(ret_stats, &stats, sizeof(stats));
}
