/* SPDX-License-Identifier: BSD-2-Clause */
/* The threads that ask callers for the bytes of pages: see fault/source.h. */
#include "linux/fault/source.h"
#include "linux/kernel/thread.h"
#include "linux/manager/manager.h"
#include <limits.h>

#define SLEEP_NS 1000000000
#define STARVED_NS 10000000

static void *source_loop(void *context)
{
	struct vmem_manager *m = context;
	struct vmemi_host *host = &m->host;

	while (!atomic_load(&m->stop_sources)) {
		uint32_t work = atomic_load(&host->source_work);
		uint32_t freed = atomic_load(&host->frames.sequence);

		switch (vmemi_source_turn(host)) {
		case VMEMI_SOURCE_TURNED: break;
		case VMEMI_SOURCE_STARVED:
			vmemi_frames_wait(&host->frames, freed, STARVED_NS);
			break;
		case VMEMI_SOURCE_REFUSED:
			host->k->futex_wait(&host->source_work, work, VMEMI_SOURCE_PACE_NS);
			break;
		default: host->k->futex_wait(&host->source_work, work, SLEEP_NS);
		}
	}
	return NULL;
}

bool vmemi_manager_has_source(const struct vmem_manager *m)
{
	for (uint32_t i = 0; i < VMEMI_REGIONS_MAX; i++) {
		struct vmem_region *r = atomic_load(&m->host.regions[i]);

		if (r && r->source)
			return true;
	}
	return false;
}

int vmemi_manager_start_sources(struct vmem_manager *m)
{
	atomic_store(&m->stop_sources, 0);
	while (m->source_threads < m->opts.source_threads) {
		if (vmemi_thread_start(&m->source_thread[m->source_threads], source_loop, m))
			return -VMEM_ENOMEM;
		m->source_threads++;
	}
	return 0;
}

void vmemi_manager_stop_sources(struct vmem_manager *m)
{
	atomic_store(&m->stop_sources, 1);
	atomic_fetch_add(&m->host.source_work, 1);
	m->host.k->futex_wake(&m->host.source_work, INT_MAX);
	while (m->source_threads)
		pthread_join(m->source_thread[--m->source_threads], NULL);
}
