/* SPDX-License-Identifier: BSD-2-Clause */
/* What all regions of a manager have in common: see host.h. */
#include "linux/region/host.h"
#include "base/lock.h"
#include "linux/region/table.h"
#include "store/store_internal.h"

/* In a stripe by @address. */
_Atomic uint32_t *vmemi_host_enter(struct vmemi_host *host, const void *address)
{
	uint32_t stripe = (uintptr_t)address / VMEM_PAGE_SIZE / 64 % VMEMI_STRIPES;
	_Atomic uint32_t *count = &host->walkers[stripe].count[atomic_load(&host->phase)];

	atomic_fetch_add(count, 1);
	return count;
}

void vmemi_host_leave(_Atomic uint32_t *walkers)
{
	atomic_fetch_sub(walkers, 1);
}

struct vmem_region *vmemi_host_find(struct vmemi_host *host, const void *address)
{
	_Atomic uint32_t *walkers = vmemi_host_enter(host, address);
	struct vmem_region *found = NULL;
	uint32_t slots;

	slots = atomic_load(&host->region_slots);
	for (uint32_t i = 0; i < slots && !found; i++) {
		struct vmem_region *r = atomic_load(&host->regions[i]);

		if (r && !r->foreign &&
		    (uintptr_t)address - (uintptr_t)r->base < vmemi_region_bytes(r))
			found = r;
	}
	vmemi_host_leave(walkers);
	return found;
}

static uint64_t count_all(struct vmemi_host *host, uint64_t (*count)(const struct vmem_region *r))
{
	_Atomic uint32_t *walkers = vmemi_host_enter(host, NULL);
	uint64_t sum = 0;
	uint32_t slots;

	slots = atomic_load(&host->region_slots);
	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&host->regions[i]);

		if (r)
			sum += count(r);
	}
	vmemi_host_leave(walkers);
	return sum;
}

uint64_t vmemi_host_pinned(struct vmemi_host *host)
{
	return count_all(host, vmemi_region_pinned);
}

static uint64_t foreign_pages(const struct vmem_region *r)
{
	return r->foreign ? vmemi_region_count(r, VMEM_PAGE_RESIDENT) : 0;
}

uint64_t vmemi_host_foreign(struct vmemi_host *host)
{
	return count_all(host, foreign_pages);
}

void vmemi_host_drain(struct vmemi_host *host)
{
	/* As in sleepable RCU (McKenney): newcomers count in the other phase, so that the old one drains
	 * however many come. Twice, for who had read the phase and not counted yet. */
	for (unsigned i = 0; i < 2; i++) {
		uint32_t old = atomic_fetch_xor(&host->phase, 1);

		for (unsigned k = 0; k < VMEMI_STRIPES; k++)
			while (atomic_load(&host->walkers[k].count[old]))
				vmemi_relax(host->env);
	}
}

void vmemi_host_remove(struct vmemi_host *host, uint32_t slot)
{
	atomic_store(&host->regions[slot], NULL);
	/* Who looks for loads of sources that are late does so under this lock. */
	vmemi_lock(&host->source_lock);
	vmemi_unlock(&host->source_lock);
	vmemi_host_drain(host);
}

unsigned char *vmemi_host_buffer(struct vmemi_host *host)
{
	uint64_t busy = atomic_load(&host->buffer_busy);

	while (~busy) {
		unsigned i = (unsigned)__builtin_ctzll(~busy);

		if (atomic_compare_exchange_weak(&host->buffer_busy, &busy,
						 busy | UINT64_C(1) << i))
			return host->buffers + (size_t)i * VMEM_PAGE_SIZE;
	}
	return NULL;
}

void vmemi_host_buffer_return(struct vmemi_host *host, unsigned char *buffer)
{
	size_t i = (size_t)(buffer - host->buffers) / VMEM_PAGE_SIZE;

	atomic_fetch_and(&host->buffer_busy, ~(UINT64_C(1) << i));
}

/* Whoever sleeps on @fd wakes up: an eventfd refuses only what it is full of. */
static void kick(struct vmemi_host *host, int fd)
{
	uint64_t one = 1;

	host->k->write(fd, &one, sizeof(one));
}

void vmemi_host_kick_reclaim(struct vmemi_host *host)
{
	if (!atomic_load(&host->reclaim_kicked) && !atomic_exchange(&host->reclaim_kicked, 1))
		kick(host, host->reclaim_fd);
}

void vmemi_host_kick_faults(struct vmemi_host *host)
{
	kick(host, host->handler[0].fd);
}

void vmemi_host_kick_handlers(struct vmemi_host *host)
{
	for (uint32_t i = 0; i < host->handlers; i++)
		kick(host, host->handler[i].fd);
}

void vmemi_host_kick_handler(struct vmemi_host *host, uint32_t index)
{
	kick(host, host->handler[index].fd);
}

void vmemi_host_call_handler(struct vmemi_host *host)
{
	uint32_t idle = atomic_load(&host->idle_handlers);

	while (idle) {
		if (!atomic_compare_exchange_weak(&host->idle_handlers, &idle, idle & (idle - 1)))
			continue;
		kick(host, host->handler[__builtin_ctz(idle)].fd);
		return;
	}
}

uint32_t vmemi_host_put_off(struct vmemi_host *host)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < host->handlers; i++)
		sum += atomic_load(&host->handler[i].put_off);
	return sum;
}

uint32_t vmemi_host_starving(struct vmemi_host *host)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < host->handlers; i++)
		sum += atomic_load(&host->handler[i].starving);
	return sum;
}

uint64_t vmemi_host_writing(const struct vmemi_host *host)
{
	const struct vmemi_out *out = host->store->out;

	return out ? atomic_load(&out->writing) : 0;
}

bool vmemi_host_is_writing(const struct vmemi_host *host)
{
	return vmemi_host_writing(host) > 0;
}

void vmemi_host_wait(struct vmemi_host *host)
{
	bool (*serve_faults)(struct vmemi_host *) = atomic_load(&host->serve_faults);

	if (!serve_faults || !serve_faults(host))
		vmemi_relax(host->env);
}

void vmemi_host_freed(struct vmemi_host *host)
{
	vmemi_frames_wake(&host->frames);
	for (uint32_t i = 0; i < host->handlers; i++)
		if (atomic_load(&host->handler[i].put_off))
			kick(host, host->handler[i].fd);
}
