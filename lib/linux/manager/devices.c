/* SPDX-License-Identifier: BSD-2-Clause */
/* Swap devices of a manager: see <vmem/manager_device.h>.
 *
 * Their descriptors are in one epoll: a handler of faults that has loads under way sleeps on it, reclaim does while
 * segments are being written, and it is part of the manager's own. Completions come to whoever polls the store
 * first; who takes those of others tells them (fault/loads.c).
 *
 * While devices take segments the store has a budget, a share of ours, so that it works ahead of need: see
 * vmem_store_work(). When it is used up, saves wait for writes. When nothing is being written then - every device is
 * full or bad, or has not completed a write for a while, or no segment can leave - the share is lifted, and what is
 * stored takes what there is, as without devices; every now and then it is tried again. */
#include "linux/fault/loads.h"
#include "linux/manager/manager.h"
#include "store/store_internal.h"
#include <vmem/manager_device.h>
#include <vmem/pool.h>

#define SHARE_DIVISOR 4 /* of the budget */
#define SHARE_LEAST (8 * (uint64_t)VMEM_POOL_SEGMENT_BYTES)
#define ROOM_LEAST (4 * (uint64_t)VMEM_POOL_SEGMENT_BYTES) /* above the floor */
#define HUNG_NS 1000000000
#define WAIT_NS 1000000
#define TRY_AGAIN_NS 1000000000

/* 0: no limit. */
static uint64_t share_of(const struct vmem_manager *m)
{
	uint64_t budget = atomic_load(&m->host.frames.budget_bytes);
	uint64_t share = m->opts.store_bytes;

	if (!share)
		share = budget == UINT64_MAX ? 0 : budget / SHARE_DIVISOR;
	if (share && share < SHARE_LEAST)
		share = SHARE_LEAST;
	return share < budget ? share : budget;
}

void vmemi_devices_set_share(struct vmem_manager *m)
{
	struct vmemi_device_share *s = &m->share;

	bool devices = atomic_load(&m->host.devices.count);

	if (m->host.store)
		vmem_store_set_budget(m->host.store, devices && !s->lifted ? share_of(m) : 0);
}

static void lift(struct vmem_manager *m, bool lifted, uint64_t now)
{
	m->share.lifted = lifted;
	m->share.lifted_ns = now;
	vmemi_devices_set_share(m);
}

/* Bytes that devices have taken; changes with each write that has gone well. */
static uint64_t bytes_moved(struct vmem_manager *m)
{
	struct vmemi_out *out = m->host.store->out;
	uint32_t devices = out ? atomic_load(&out->devices) : 0;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < devices; i++)
		sum += atomic_load(&out->device[i].written_bytes);
	return sum;
}

bool vmemi_devices_are_taking(struct vmem_manager *m)
{
	struct vmemi_device_share *s = &m->share;
	bool writing = vmemi_host_is_writing(&m->host);
	uint64_t now = m->host.k->clock_ns(), moved = bytes_moved(m);

	if (moved != s->moved || (writing && !s->moved_ns)) {
		s->moved = moved;
		s->moved_ns = now;
		return true;
	}
	if (!writing)
		s->moved_ns = 0;
	return writing && now - s->moved_ns < HUNG_NS;
}

bool vmemi_devices_adapt(struct vmem_manager *m)
{
	uint64_t now;

	if (!atomic_load(&m->host.devices.count) || !share_of(m))
		return false;
	now = m->host.k->clock_ns();
	if (m->share.lifted) {
		if (now - m->share.lifted_ns >= TRY_AGAIN_NS)
			lift(m, false, now);
		return false;
	}
	if (!m->reclaim->store_is_full || vmemi_devices_are_taking(m))
		return false;
	lift(m, true, now);
	return true;
}

bool vmemi_devices_make_room(struct vmem_manager *m)
{
	struct vmemi_host *host = &m->host;
	bool lifted, taking;

	if (!atomic_load(&host->devices.count))
		return false;
	vmemi_reclaim_enter(m->reclaim);
	m->reclaim->store_is_full = true;
	vmem_store_write_out(host->store, VMEM_POOL_SEGMENT_BYTES);
	vmem_store_work(host->store, 0, host->k->clock_ns());
	lifted = vmemi_devices_adapt(m);
	taking = vmemi_devices_are_taking(m);
	vmemi_reclaim_leave(m->reclaim);
	vmemi_loads_tell(host);
	if (!lifted && taking)
		vmem_store_wait(host->store, WAIT_NS);
	return lifted || taking;
}

/* Its descriptor, or a negative number: it can only be asked. */
static int descriptor_of(const struct vmem_device *device)
{
	return device->ops->fd ? device->ops->fd(device->context) : -VMEM_ENOTSUP;
}

static void note_device(struct vmem_manager *m, uint32_t number, bool blind)
{
	struct vmemi_devices *d = &m->host.devices;
	uint32_t count = atomic_load(&d->count);

	m->share.device[count] = (struct vmemi_device_note){ number, blind };
	atomic_fetch_add(&d->blind, blind);
	atomic_store(&d->count, count + 1);
}

/* The store has it no more. Its descriptor is watched no more, either, before it is closed. */
static void forget_device(struct vmem_manager *m, uint32_t number, const struct vmem_device *device)
{
	struct vmemi_devices *d = &m->host.devices;
	uint32_t last = atomic_load(&d->count) - 1, i = 0;

	while (i < last && m->share.device[i].number != number)
		i++;
	if (!m->share.device[i].blind)
		m->host.k->epoll_watch(d->epoll, descriptor_of(device), false);
	atomic_fetch_sub(&d->blind, m->share.device[i].blind);
	m->share.device[i] = m->share.device[last];
	atomic_store(&d->count, last);
}

/* Whether the budget holds what the first one needs, with all that never leaves and a few segments besides. What is stored or
 * in place does not count: room is what devices are for. */
static bool is_budget_enough(const struct vmem_manager *m)
{
	const struct vmemi_frames *f = &m->host.frames;
	uint64_t fixed = atomic_load(&m->host.metadata.bytes) + atomic_load(&f->other_bytes);
	uint64_t first = sizeof(struct vmemi_out) + VMEMI_WINDOWS * VMEMI_WINDOW_BYTES;

	return m->host.store->out ||
	       fixed + first + m->floor_bytes + ROOM_LEAST <= atomic_load(&f->budget_bytes);
}

int vmem_manager_add_device(vmem_manager *manager, struct vmem_device *device,
			    const struct vmem_store_device_opts *opts, uint32_t *ret_device)
{
	struct vmemi_host *host;
	uint32_t number;
	int fd, error;

	error = manager ? vmem_device_check(device) : -VMEM_EINVAL;
	if (error)
		return error;
	host = &manager->host;
	vmemi_reclaim_enter(manager->reclaim);
	fd = descriptor_of(device);
	if (fd >= 0 && host->k->epoll_watch(host->devices.epoll, fd, true))
		fd = -VMEM_ENOTSUP;
	error = is_budget_enough(manager)
			? vmem_store_add_device(host->store, device, opts, &number)
			: -VMEM_ENOSPC;
	if (error && fd >= 0)
		host->k->epoll_watch(host->devices.epoll, fd, false);
	if (!error) {
		note_device(manager, number, fd < 0);
		lift(manager, false, 0); /* it may have room */
		vmemi_manager_set_stuck(manager, false);
	}
	vmemi_reclaim_leave(manager->reclaim);
	if (error)
		return error;
	vmemi_host_kick_reclaim(host);
	if (ret_device)
		*ret_device = number;
	return 0;
}

/* Closing waits for what the device has not answered: others go on meanwhile. */
static int take_away(struct vmem_manager *m, uint32_t device, bool gives_up)
{
	struct vmem_device *gone;
	int error;

	if (!m)
		return -VMEM_EINVAL;
	vmemi_reclaim_enter(m->reclaim);
	error = vmemi_out_remove(m->host.store, device, gives_up, &gone);
	if (!error) {
		forget_device(m, device, gone);
		vmemi_devices_set_share(m);
	} else if (error == -VMEM_EBUSY) { /* who waits for it need not step */
		vmem_store_work(m->host.store, 0, m->host.k->clock_ns());
	}
	vmemi_reclaim_leave(m->reclaim);
	vmemi_loads_tell(&m->host);
	vmemi_host_freed(&m->host);
	if (!error)
		vmemi_out_close(m->host.store, device, gone);
	return error;
}

int vmem_manager_remove_device(vmem_manager *manager, uint32_t device)
{
	return take_away(manager, device, false);
}

int vmem_manager_abandon_device(vmem_manager *manager, uint32_t device)
{
	return take_away(manager, device, true);
}

int vmem_manager_get_device_stats(vmem_manager *manager, uint32_t device,
				  struct vmem_store_device_stats *stats)
{
	return manager ? vmem_store_get_device_stats(manager->host.store, device, stats)
		       : -VMEM_EINVAL;
}

int vmem_manager_get_out_stats(vmem_manager *manager, struct vmem_store_out_stats *stats)
{
	return manager ? vmem_store_get_out_stats(manager->host.store, stats) : -VMEM_EINVAL;
}
