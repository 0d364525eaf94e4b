/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices of a store: see out.h. What is shared is made with the first device and goes with the store. */
#include "store/out.h"
#include "base/alloc.h"
#include "base/opts.h"
#include "store/store_internal.h"

#define REAP 16u
#define WAIT_SLICE_NS 1000000u /* where there are more devices than one */

static void vacate(void *context, uint64_t place, uint32_t blocks)
{
	vmemi_out_give(context, place, blocks);
}

/* --- Making --- */

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
	for (uint32_t i = 0; i < VMEMI_WINDOWS; i++)
		out->window[i].buffer = out->buffers + i * VMEMI_WINDOW_BYTES;
	atomic_init(&out->idle, UINT32_MAX);
	vmemi_pool_set_devices(store->pool, &(struct vmemi_pool_devices){ vacate, out });
	store->out = out;
	return 0;
}

/* 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_EPERM, -VMEM_ENOSPC. */
static int check(const vmem_store *store, const struct vmem_device *device,
		 const struct vmem_store_device_opts *o)
{
	int rc = vmem_device_check(device);

	if (rc)
		return rc;
	if (o->flags & ~VMEM_STORE_DEVICE_PLAIN || o->reserved ||
	    device->size_bytes / VMEM_SLOT_BYTES < VMEM_SLOTS_CLUSTER)
		return -VMEM_EINVAL;
	if ((device->flags & (VMEM_DEVICE_OUTLIVES | VMEM_DEVICE_ENCRYPTED)) ==
		    VMEM_DEVICE_OUTLIVES &&
	    !(o->flags & VMEM_STORE_DEVICE_PLAIN))
		return -VMEM_EPERM;
	return store->out && atomic_load(&store->out->devices) == VMEM_STORE_DEVICES ? -VMEM_ENOSPC
										     : 0;
}

int vmem_store_add_device(vmem_store *store, struct vmem_device *device,
			  const struct vmem_store_device_opts *opts, uint32_t *ret_device)
{
	struct vmem_store_device_opts o;
	struct vmem_slots_device slots = { .size = sizeof(slots) };
	struct vmemi_out_device *d;
	uint32_t number;
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
	/* Filled in first: slots of it may be taken as soon as they are there. */
	number = atomic_load_explicit(&store->out->devices, memory_order_relaxed);
	d = &store->out->device[number];
	d->device = device;
	d->slots = slots.count;
	d->wear_bytes = o.wear_bytes_per_day;
	rc = vmemi_out_join(store, number, &slots);
	if (!rc && ret_device)
		*ret_device = number;
	return rc;
}

/* No call runs: what is in flight ends with its device, and no data is touched from then on. */
void vmemi_out_free(vmem_store *store)
{
	struct vmemi_out *out = store->out;

	if (!out)
		return;
	for (uint32_t i = 0; i < atomic_load(&out->devices); i++)
		vmem_device_close(out->device[i].device);
	for (uint32_t i = 0; i < VMEMI_WRITES; i++) {
		struct vmemi_write *w = &out->write[i];
		uint32_t state = atomic_load(&w->state);

		if (state == VMEMI_WRITE_PARTING)
			(void)vmemi_pool_leave_freed(store->pool, &w->leaving);
		else if (state != VMEMI_WRITE_IDLE)
			vmemi_pool_leave_cancel(store->pool, &w->leaving);
		vmemi_free(&store->allocator, w->scratch, VMEM_POOL_SEGMENT_BYTES, VMEM_PAGE_SIZE);
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

	atomic_fetch_add_explicit(&d->flying, 1, memory_order_relaxed);
	rc = d->device->ops->submit(d->device->context, &r, 1);
	if (rc <= 0)
		atomic_fetch_sub_explicit(&d->flying, 1, memory_order_relaxed);
	return rc;
}

static bool reap(vmem_store *store, struct vmemi_out_device *d)
{
	struct vmem_device_completion c[REAP];
	int n;

	if (!atomic_load_explicit(&d->flying, memory_order_relaxed))
		return false;
	n = d->device->ops->complete(d->device->context, c, REAP);
	for (int i = 0; i < n; i++) {
		atomic_fetch_sub_explicit(&d->flying, 1, memory_order_relaxed);
		if (c[i].tag & VMEMI_TAG_WRITE)
			vmemi_out_has_written(store->out, c[i].tag, c[i].error);
		else
			vmemi_out_has_read(store, c[i].tag, c[i].error);
	}
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
	for (uint32_t i = 0; i < devices; i++) {
		const struct vmem_device *d = out->device[i].device;

		if (!atomic_load_explicit(&out->device[i].flying, memory_order_relaxed))
			continue;
		if (d->ops->wait)
			(void)d->ops->wait(d->context, timeout_ns);
		else
			vmemi_relax(&store->env);
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

uint64_t vmemi_out_bytes(vmem_store *store)
{
	struct vmem_slots_stats slots = { .size = sizeof(slots) };

	if (!store->out)
		return 0;
	(void)vmem_slots_get_stats(store->out->slots, 0, &slots);
	return sizeof(*store->out) + VMEMI_WINDOWS * VMEMI_WINDOW_BYTES + slots.bytes +
	       vmemi_counter(&store->out->scratches) * VMEM_POOL_SEGMENT_BYTES;
}

int vmem_store_get_device_stats(vmem_store *store, uint32_t device,
				struct vmem_store_device_stats *ret_stats)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };
	struct vmem_slots_stats slots = { .size = sizeof(slots) };
	struct vmemi_out *out = store->out;
	struct vmemi_out_device *d;

	if (!out || device >= atomic_load_explicit(&out->devices, memory_order_acquire))
		return -VMEM_ENOENT;
	d = &out->device[device];
	(void)vmem_slots_get_stats(out->slots, device, &slots);
	stats.size_bytes = d->slots * VMEM_SLOT_BYTES;
	stats.taken_bytes = slots.taken * VMEM_SLOT_BYTES;
	stats.written_bytes = vmemi_counter(&d->written_bytes);
	stats.read_bytes = vmemi_counter(&d->read_bytes);
	stats.write_errors = vmemi_counter(&d->write_errors);
	stats.read_errors = vmemi_counter(&d->read_errors);
	stats.is_bad = atomic_load(&d->bad);
	stats.is_worn = atomic_load(&d->worn);
	stats.wear_left_bytes = UINT64_MAX;
	if (d->wear_bytes) {
		uint64_t today = vmemi_counter(&d->day_bytes);

		stats.wear_left_bytes = d->wear_bytes > today ? d->wear_bytes - today : 0;
	}
	return vmemi_opts_give(ret_stats, &stats, sizeof(stats));
}

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
	}
	return vmemi_opts_give(ret_stats, &stats, sizeof(stats));
}
