/* SPDX-License-Identifier: BSD-2-Clause */
/* What all regions of a manager have in common: see host.h. */
#include "linux/region/host.h"
#include "base/lock.h"
#include "linux/region/table.h"

#define KICK_TRIES 4

static uint32_t enter(struct vmemi_host *host)
{
	uint32_t phase = atomic_load(&host->phase);

	atomic_fetch_add(&host->walkers[phase], 1);
	return phase;
}

struct vmem_region *vmemi_host_find(struct vmemi_host *host, const void *address)
{
	struct vmem_region *found = NULL;
	uint32_t phase = enter(host), slots;

	slots = atomic_load(&host->region_slots);
	for (uint32_t i = 0; i < slots && !found; i++) {
		struct vmem_region *r = atomic_load(&host->regions[i]);

		if (r && (uintptr_t)address - (uintptr_t)r->base < r->opts.bytes)
			found = r;
	}
	atomic_fetch_sub(&host->walkers[phase], 1);
	return found;
}

uint64_t vmemi_host_pinned(struct vmemi_host *host)
{
	uint64_t pinned = 0;
	uint32_t phase = enter(host), slots;

	slots = atomic_load(&host->region_slots);
	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&host->regions[i]);

		if (r)
			pinned += (uint64_t)atomic_load(&r->pinned);
	}
	atomic_fetch_sub(&host->walkers[phase], 1);
	return pinned;
}

void vmemi_host_remove(struct vmemi_host *host, uint32_t slot)
{
	atomic_store(&host->regions[slot], NULL);
	/* As in sleepable RCU (McKenney): newcomers count in the other phase, so that the old one drains
	 * however many come. Twice, for who had read the phase and not counted yet. */
	for (unsigned i = 0; i < 2; i++) {
		uint32_t old = atomic_fetch_xor(&host->phase, 1);

		while (atomic_load(&host->walkers[old]))
			vmemi_relax(host->env);
	}
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

/* Whoever sleeps on @fd wakes up. A kick must not be lost: the sleeper has no other. */
static void kick(struct vmemi_host *host, int fd)
{
	uint64_t one = 1;

	for (unsigned tries = 0; tries < KICK_TRIES; tries++)
		if (host->k->write(fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
			return;
}

void vmemi_host_kick_reclaim(struct vmemi_host *host)
{
	if (!atomic_exchange(&host->reclaim_kicked, 1))
		kick(host, host->reclaim_fd);
}

void vmemi_host_kick_faults(struct vmemi_host *host)
{
	kick(host, host->fault_fd);
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
	if (atomic_load(&host->put_off))
		vmemi_host_kick_faults(host);
}
