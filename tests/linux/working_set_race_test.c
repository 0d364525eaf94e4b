/* SPDX-License-Identifier: BSD-2-Clause */
/* A replay claims pages which two processors fault on, and which are taken and saved: no write is lost, and no page is
 * brought from where it was before. */
#include "linux/guest.h"
#include "linux/peer_process.h"
#include "support/rng.h"
#include "support/slow.h"
#include <stdio.h>
#include <vmem/working_set.h>

#define PAGE VMEM_PAGE_SIZE
#define GPA (UINT64_C(5) << 32)
#define PAGES 2048
#define TAKEN 512 /* pages in a call, of which half are saved */
#define COUNTS (VMEMT_SLOW ? 100000 : 1000000)
#define CPUS 2

static vmem_manager *manager;
static vmem_region *region;
static _Atomic uint32_t counted; /* atomic; processors that are done */

struct counter {
	pthread_t thread;
	struct vmemt_count count;
	uint64_t wrong;
};

static void *count_up(void *argument)
{
	struct counter *c = argument;

	c->wrong = vmemt_count_up(&c->count, vmem_region_hva(region), PAGES);
	atomic_fetch_add(&counted, 1);
	return NULL;
}

struct replayer {
	pthread_t thread;
	vmem_working_set *set; /* all pages */
	uint64_t brought;
};

/* One more when something has left or has come: replays without a pause would keep others from a core. */
static void *replay_on(void *argument)
{
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	struct replayer *p = argument;

	while (atomic_load(&counted) < CPUS) {
		struct vmem_region_metrics before = vmemt_metrics(region);

		assert(!vmem_working_set_replay(region, p->set, NULL, &stats));
		p->brought += stats.brought;
		VMEMT_UNTIL(vmemt_metrics(region).taken_run > before.taken_run ||
			    vmemt_metrics(region).faults > before.faults ||
			    atomic_load(&counted) == CPUS);
	}
	return NULL;
}

static vmem_working_set *set_of_all(void)
{
	vmem_working_set *set = NULL;

	assert(!vmem_working_set_record_start(region, NULL));
	for (uint64_t page = 0; page < PAGES; page++)
		assert(!vmem_region_resolve(region, GPA + page * PAGE, 1));
	assert(!vmem_working_set_record_stop(region, &set));
	return set;
}

static void take_some(uint64_t *seed)
{
	uint64_t first = vmemt_rand(seed) % (PAGES - TAKEN);

	assert(!vmem_region_stage(region, GPA + first * PAGE, TAKEN * PAGE, NULL));
	assert(!vmem_region_store(region, GPA + first * PAGE, TAKEN / 2 * PAGE, NULL));
}

int main(void)
{
	uint64_t seed = vmemt_seed("working_set_race");
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	struct replayer replayer = { .brought = 0 };
	struct counter c[CPUS];

	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	manager = vmemt_manager(0);
	region = vmemt_region(manager, GPA, PAGES, 0);
	assert(!vmem_manager_thread_start(manager));
	replayer.set = set_of_all();
	for (unsigned i = 0; i < CPUS; i++) {
		c[i].count = (struct vmemt_count){ vmemt_rand(&seed), COUNTS, i };
		assert(!pthread_create(&c[i].thread, NULL, count_up, &c[i]));
	}
	assert(!pthread_create(&replayer.thread, NULL, replay_on, &replayer));
	while (atomic_load(&counted) < CPUS)
		take_some(&seed);
	assert(!pthread_join(replayer.thread, NULL));
	for (unsigned i = 0; i < CPUS; i++)
		assert(!pthread_join(c[i].thread, NULL) && !c[i].wrong);
	printf("working_set_race: %llu pages were brought meanwhile\n",
	       (unsigned long long)replayer.brought);
	/* That is a matter of luck; but not where nobody is met. */
	take_some(&seed);
	assert(!vmem_working_set_replay(region, replayer.set, NULL, &stats) && stats.brought);
	vmem_working_set_free(replayer.set);
	vmemt_end(manager, region);
	return 0;
}
