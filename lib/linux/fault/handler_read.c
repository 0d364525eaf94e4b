/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of faults: of memory here, of other processes' memory, and of peers. See handler.h. */
#include "linux/backing/peers.h"
#include "linux/fault/handler_held.h"
#include "linux/foreign/foreign_events.h"
#include "linux/kernel/uffd_abi.h"

#define BATCH 32
#define BATCH_OF_SEVERAL 4 /* what one handler reads at a time where others could take the rest */
#define BATCH_OF_PEER 8    /* whoever floods keeps others waiting for so many faults */

static struct vmemi_held fault_of(struct vmem_region *r, uint64_t page, uint64_t flags,
				  uint64_t now)
{
	return (struct vmemi_held){
		.region = r,
		.arrived_ns = now,
		.blocks = true,
		.fault.page = page,
		.fault.kind = flags & UFFD_PAGEFAULT_FLAG_WP ? VMEMI_FAULT_PROTECTED
							     : VMEMI_FAULT_MISSING,
		.fault.write = flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE),
		.fault.demand = true,
	};
}

/* Takes a fault in, and notes to bring what is around it. */
static void arrive(struct vmemi_handler *h, struct vmem_region *r, uint64_t page, uint64_t flags,
		   uint64_t now)
{
	struct vmemi_held e = fault_of(r, page, flags, now);

	vmemi_pressure_begin(&r->pressure, now);
	if (vmemi_handler_take_in(h, &e))
		vmemi_handler_note_around(h, &e);
}

static bool read_messages(struct vmemi_handler *h)
{
	const struct vmemi_uffd *u = &h->host->uffd[VMEM_FAULT_THREAD];
	struct uffd_msg messages[BATCH];
	size_t most = sizeof(messages[0]) * (h->host->handlers > 1 ? BATCH_OF_SEVERAL : BATCH);
	uint64_t now;
	ssize_t bytes;

	if (u->fd < 0)
		return false;
	bytes = h->host->k->read(u->fd, messages, most);
	if (bytes <= 0)
		return false;
	if ((size_t)bytes == most) /* there may be more */
		vmemi_host_call_handler(h->host);
	atomic_fetch_add_explicit(&h->host->fault_reads, 1, memory_order_relaxed);
	now = h->host->k->clock_ns();
	for (size_t i = 0; i < (size_t)bytes / sizeof(messages[0]); i++) {
		const struct uffd_msg *m = &messages[i];
		void *address = (void *)(uintptr_t)m->arg.pagefault.address;
		struct vmem_region *r;

		if (m->event != UFFD_EVENT_PAGEFAULT)
			continue;
		r = vmemi_host_find(h->host, address);
		if (!r) { /* being attached, or detached: it comes again, or never */
			vmemi_uffd_wake(u, (void *)((uintptr_t)address & ~(VMEM_PAGE_SIZE - 1ul)),
					VMEM_PAGE_SIZE);
			continue;
		}
		arrive(h, r, (uint64_t)((unsigned char *)address - r->base) / VMEM_PAGE_SIZE,
		       m->arg.pagefault.flags, now);
	}
	return true;
}

/* Of other processes' memory. */
static bool read_foreign(struct vmemi_handler *h)
{
	struct vmemi_host *host = h->host;
	uint32_t slots = atomic_load(&host->foreign_slots);
	unsigned most = host->handlers > 1 ? BATCH_OF_SEVERAL : BATCH;
	struct vmemi_foreign_fault faults[BATCH];
	bool any = false, more = false;

	for (uint32_t s = 0; s < slots; s++) {
		struct vmem_foreign *f = atomic_load(&host->foreign[s].it);
		unsigned n = f ? vmemi_foreign_take(f, faults, most) : 0;
		uint64_t now;

		more |= f && vmemi_foreign_heed(f);
		if (!n)
			continue;
		any = true;
		if (n == most) /* there may be more */
			vmemi_host_call_handler(host);
		now = host->k->clock_ns();
		for (unsigned i = 0; i < n; i++)
			arrive(h, faults[i].region, faults[i].page, faults[i].flags, now);
	}
	if (any)
		atomic_fetch_add_explicit(&host->fault_reads, 1, memory_order_relaxed);
	atomic_store_explicit(&h->unheeded, more, memory_order_relaxed);
	return any || more;
}

bool vmemi_handler_read(struct vmemi_handler *h)
{
	bool any = read_messages(h);

	return read_foreign(h) || any;
}

/* A message of a peer. What is around it need not be brought: it would be mapped here only. */
static void take_in_of_peer(struct vmemi_handler *h, struct vmemi_process *process,
			    const struct uffd_msg *m, uint64_t now)
{
	uintptr_t address = (uintptr_t)m->arg.pagefault.address;
	struct vmem_peer *p;
	struct vmemi_held e;
	uint64_t page;

	if (m->event != UFFD_EVENT_PAGEFAULT)
		return;
	p = vmemi_peer_find(h->host, process, address, &page);
	if (!p) /* it waits: who adds or detaches wakes it, and removed ranges are not served */
		return;
	e = fault_of(p->region, page, m->arg.pagefault.flags, now);
	e.fault.at = &p->at;
	vmemi_tally(&p->region->counters.faults_peer, 1);
	vmemi_pressure_begin(&p->region->pressure, now);
	vmemi_handler_take_in(h, &e);
}

/* True if something came in. */
static bool read_peer(struct vmemi_handler *h, struct vmemi_process *process)
{
	struct uffd_msg messages[BATCH_OF_PEER];
	ssize_t bytes = vmemi_uffd_read(&process->uffd, messages, sizeof(messages));
	uint64_t now;

	if (bytes <= 0) {
		/* A poll that is over for nothing is not a fault, and must not go on. */
		if (h->peers_called && vmemi_uffd_mend(&process->uffd))
			vmemi_process_failed(h->host, process, -VMEM_EINVAL);
		return false;
	}
	now = h->host->k->clock_ns();
	for (size_t i = 0; i < (size_t)bytes / sizeof(messages[0]); i++)
		take_in_of_peer(h, process, &messages[i], now);
	return true;
}

bool vmemi_handler_read_peers(struct vmemi_handler *h)
{
	struct vmemi_host *host = h->host;
	uint32_t slots = h->index ? 0 : atomic_load(&host->peer_slots);
	_Atomic uint32_t *walkers;
	bool any = false;

	if (!slots)
		return false;
	walkers = vmemi_host_enter(host, NULL);
	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_peer *p = atomic_load(&host->peers[i]);

		if (p && !atomic_load(&p->process->dropped))
			any |= read_peer(h, p->process);
	}
	vmemi_host_leave(walkers);
	h->peers_called = false;
	return any;
}
