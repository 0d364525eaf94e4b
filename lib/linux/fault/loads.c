/* SPDX-License-Identifier: BSD-2-Clause */
/* Slow loads of all handlers: see loads.h. A handler may be told of a load whose token another has not yet
 * noted: so ends are kept until they are asked for. */
#include "linux/fault/loads.h"

#define EVENTS 16

void vmemi_loads_release(struct vmemi_host *host)
{
	atomic_fetch_sub(&host->loads.under_way, 1);
}

bool vmemi_loads_reserve(struct vmemi_host *host, uint32_t most)
{
	if (atomic_fetch_add(&host->loads.under_way, 1) < most)
		return true;
	vmemi_loads_release(host);
	return false;
}

void vmemi_loads_tell(struct vmemi_host *host)
{
	if (!atomic_load(&host->loads.under_way))
		return;
	for (uint32_t i = 0; i < host->handlers; i++)
		if (atomic_load(&host->handler[i].loading))
			vmemi_host_kick_handler(host, i);
}

/* Takes what the store tells. True: loads are over. */
static bool poll_store(struct vmemi_host *host)
{
	struct vmem_store_event events[EVENTS];
	struct vmemi_loads *l = &host->loads;
	uint32_t n, count, before;

	vmemi_lock(&l->lock);
	count = before = atomic_load(&l->count);
	do {
		uint32_t room = VMEMI_BUFFERS - count;

		n = vmem_store_poll(host->store, events, room < EVENTS ? room : EVENTS);
		for (uint32_t i = 0; i < n; i++)
			if (events[i].type == VMEM_STORE_LOADED)
				l->over[count++] = (struct vmemi_load_end){ events[i].token,
									    events[i].result };
	} while (n == EVENTS);
	atomic_store(&l->count, count);
	vmemi_unlock(&l->lock);
	return count > before;
}

bool vmemi_loads_poll(struct vmemi_host *host)
{
	uint64_t before = atomic_load(&host->frames.segment_bytes);
	uint64_t writing = vmemi_host_writing(host);
	bool over = poll_store(host);

	/* Which handler's they are is not looked at: those that are asleep are woken. */
	if (over && host->handlers > 1)
		vmemi_loads_tell(host);
	if (!writing)
		return over;
	if (atomic_load(&host->frames.segment_bytes) < before)
		vmemi_host_freed(host);
	if (vmemi_host_writing(host) < writing) /* reclaim may begin others */
		vmemi_host_kick_reclaim(host);
	return over;
}

bool vmemi_loads_take(struct vmemi_host *host, vmem_store_token token, int *ret_result)
{
	struct vmemi_loads *l = &host->loads;
	uint32_t count;
	bool found = false;

	if (!atomic_load(&l->count))
		return false;
	vmemi_lock(&l->lock);
	count = atomic_load(&l->count);
	for (uint32_t i = 0; i < count && !found; i++) {
		if (l->over[i].token != token)
			continue;
		*ret_result = l->over[i].result;
		l->over[i] = l->over[count - 1];
		atomic_store(&l->count, count - 1);
		found = true;
	}
	vmemi_unlock(&l->lock);
	return found;
}
