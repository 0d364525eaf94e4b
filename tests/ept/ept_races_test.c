/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that install pages over each other, while others translate and give write rights back: afterwards the tables say
 * what was installed, each place once, and no table of one who came second is left; of a quota all is given, and never
 * more. For ThreadSanitizer, too. */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <vmem/ept_track.h>
#include "support/rng.h"
#include "support/slow.h"

enum { INSTALLERS = 4, READERS = 2, TABLES = 24, PLACES = 512, ROUNDS = 40, EDGE = 300 };
#define AREA VMEM_EPT_LEVEL_BYTES(3) /* places are one of AREA apart, by 2 MiB there, by 4 KiB */

static vmem_ept *ept;
static _Atomic long live;
static long most; /* tables that there may be at any time; 0: any number */
static _Atomic int done;
static _Atomic uint64_t installed, refused;
static pthread_barrier_t barrier;
static uint64_t seed;

static int allocate(void *context, uint64_t *ret_hpa)
{
	void *page = aligned_alloc(4096, 4096);

	(void)context;
	if (!page)
		return -VMEM_ENOMEM;
	assert(atomic_fetch_add(&live, 1) < most || !most);
	*ret_hpa = (uint64_t)(uintptr_t)page;
	return 0;
}

static void give_back(void *context, uint64_t hpa)
{
	(void)context;
	atomic_fetch_sub(&live, 1);
	free((void *)(uintptr_t)hpa);
}

static uint64_t place(uint64_t number)
{
	return (number / PLACES % 3) * AREA + (number / PLACES / 3) * VMEM_EPT_LEVEL_BYTES(2) +
	       number % PLACES * 4096;
}

/* Who installs there is told by the address: all know where, nobody knows whose. */
static uint64_t address(uint64_t gpa, uint64_t who)
{
	return ((who + 1) << 40 | gpa) & ~UINT64_C(4095);
}

static void *install(void *argument)
{
	uint64_t who = (uint64_t)(uintptr_t)argument, count = (uint64_t)TABLES * PLACES;
	uint64_t rng = seed + who, start = vmemt_rand(&rng) % count;
	struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ | VMEM_EPT_WRITE,
				      .type = VMEM_EPT_WB };

	pthread_barrier_wait(&barrier);
	/* Half begin at the same place, so that they meet; the others anywhere. */
	for (uint64_t i = 0; i < count; i++) {
		uint64_t gpa = place((who % 2 ? start + i : i) % count);
		int err;

		leaf.hpa = address(gpa, who);
		err = vmem_ept_install(ept, gpa, &leaf, NULL);
		assert(!err || err == -VMEM_EEXIST);
		if (err)
			atomic_fetch_add(&refused, 1);
		else
			atomic_fetch_add(&installed, 1);
	}
	return NULL;
}

static void check_place(uint64_t gpa, int must)
{
	struct vmem_ept_leaf leaf = { 0 };
	uint64_t payload = 0;
	int err = vmem_ept_translate(ept, gpa, &leaf, &payload);

	assert(!err || (err == -VMEM_ENOENT && !must));
	if (err)
		return;
	assert(leaf.level == 1 && leaf.type == VMEM_EPT_WB);
	assert(leaf.hpa >> 40 >= 1 && leaf.hpa >> 40 <= INSTALLERS);
	assert((leaf.hpa & ((UINT64_C(1) << 40) - 1)) == gpa);
}

static void *look(void *argument)
{
	uint64_t rng = seed + 100 + (uint64_t)(uintptr_t)argument;
	struct vmem_ept_run run = { .size = sizeof(run) };

	pthread_barrier_wait(&barrier);
	while (!atomic_load(&done)) {
		uint64_t gpa = place(vmemt_rand(&rng) % ((uint64_t)TABLES * PLACES));

		check_place(gpa, 0);
		if (vmem_ept_next(ept, gpa, &run) == 0)
			assert(run.gpa >= gpa && run.bytes);
		(void)vmem_ept_log_write(ept, gpa);
	}
	return NULL;
}

static void start(const struct vmem_ept_capabilities *caps, uint64_t quota)
{
	struct vmem_ept_memory memory = { .size = sizeof(memory),
					  .allocate = allocate,
					  .free = give_back };
	struct vmem_ept_opts opts = { .size = sizeof(opts),
				      .flags = VMEM_EPT_AD,
				      .capabilities = caps,
				      .memory = &memory,
				      .levels = 4,
				      .max_tables = quota };

	most = (long)quota;
	assert(vmem_ept_new(&ept, &opts) == 0);
	atomic_store(&done, 0);
	atomic_store(&installed, 0);
	atomic_store(&refused, 0);
}

/* All of it is there, and was counted. */
static void finish(void)
{
	struct vmem_ept_stats stats = { .size = sizeof(stats) };
	uint64_t count = (uint64_t)TABLES * PLACES, tables = 0;

	for (uint64_t i = 0; i < count; i++)
		check_place(place(i), 1);
	assert(atomic_load(&installed) == count);
	assert(atomic_load(&refused) == (INSTALLERS - 1) * count);
	assert(vmem_ept_get_stats(ept, &stats) == 0);
	assert(stats.leaves[0] == count && stats.payloads == 0);
	for (uint32_t i = 0; i < VMEM_EPT_LEVELS; i++)
		tables += stats.tables[i];
	assert(tables == 1 + 1 + 3 + TABLES);
	assert(atomic_load(&live) == (long)tables);
	vmem_ept_free(ept);
	assert(atomic_load(&live) == 0);
}

/* Every other round begins with notes, which installing takes away. */
static void note(void)
{
	struct vmem_ept_change change = { .size = sizeof(change) };

	for (uint64_t i = 0; i < TABLES; i++)
		assert(vmem_ept_set_payload(ept, place(i * PLACES), PLACES * 4096ull / 2, i, 1, 0,
					    &change) == 0);
}

/* A race of log_write: all that was taken is given back, whoever comes. */
static void *write_logged(void *argument)
{
	pthread_barrier_wait(&barrier);
	for (uint64_t i = 0; i < (uint64_t)TABLES * PLACES; i++)
		assert(vmem_ept_log_write(ept, place(i)) == 0);
	return argument;
}

static void run_threads(void *(*each)(void *))
{
	pthread_t threads[INSTALLERS];

	pthread_barrier_init(&barrier, NULL, INSTALLERS);
	for (uintptr_t i = 0; i < INSTALLERS; i++)
		assert(!pthread_create(&threads[i], NULL, each, (void *)i));
	for (uintptr_t i = 0; i < INSTALLERS; i++)
		assert(!pthread_join(threads[i], NULL));
	pthread_barrier_destroy(&barrier);
}

static void log_all(int vtd)
{
	struct vmem_ept_change change = { .size = sizeof(change) };
	static uint64_t bitmap[PLACES / 64];

	assert(vmem_ept_log_start(ept, 0, 3 * AREA, 1, &change) == 0);
	assert(change.leaves == (uint64_t)TABLES * PLACES);
	run_threads(write_logged);
	for (uint64_t i = 0; i < TABLES; i++) {
		for (uint32_t n = 0; n < PLACES / 64; n++)
			bitmap[n] = 0;
		assert(vmem_ept_log_collect(ept, place(i * PLACES), PLACES * 4096ull, bitmap,
					    &change) == 0);
		for (uint32_t n = 0; n < PLACES / 64; n++)
			assert(bitmap[n] == UINT64_MAX);
	}
	assert(vmem_ept_log_stop(ept, 0, 3 * AREA, &change) == 0);
	/* A DMA remapping unit may remember that they could not be written. */
	assert(change.flush == (vtd ? VMEM_EPT_FLUSH_RANGES : VMEM_EPT_FLUSH_NONE));
}

/* --- At the edge of a quota --- */

static int all_at_once; /* all threads install at all places, else each at its own */

/* Each place needs a table. */
static void *install_tables(void *argument)
{
	uint64_t who = (uint64_t)(uintptr_t)argument;

	pthread_barrier_wait(&barrier);
	for (uint64_t i = 1; i < VMEM_EPT_ENTRIES; i++) {
		struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ, .type = VMEM_EPT_WB };
		int err;

		if (!all_at_once && i % INSTALLERS != who)
			continue;
		leaf.hpa = address(i * VMEM_EPT_LEVEL_BYTES(2), who);
		err = vmem_ept_install(ept, i * VMEM_EPT_LEVEL_BYTES(2), &leaf, NULL);
		assert(!err || err == -VMEM_ENOSPC || err == -VMEM_EEXIST);
		atomic_fetch_add(err ? &refused : &installed, 1);
	}
	return NULL;
}

/* Who meets another holds a table for a while, and a third may be refused for that: then the rest can be had after. */
static void edge_of_quota(const struct vmem_ept_capabilities *caps)
{
	struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ, .type = VMEM_EPT_WB };
	struct vmem_ept_stats stats = { .size = sizeof(stats) };

	start(caps, 4 + EDGE);
	assert(vmem_ept_install(ept, 0, &leaf, NULL) == 0);
	run_threads(install_tables);
	if (!all_at_once)
		assert(atomic_load(&installed) == EDGE);
	pthread_barrier_init(&barrier, NULL, 1);
	for (uintptr_t i = 0; i < INSTALLERS; i++) /* one after the other */
		install_tables((void *)i);
	pthread_barrier_destroy(&barrier);
	assert(atomic_load(&installed) == EDGE);
	assert(vmem_ept_get_stats(ept, &stats) == 0 && stats.tables[0] == 1 + EDGE);
	assert(atomic_load(&live) == 4 + EDGE);
	vmem_ept_free(ept);
	assert(atomic_load(&live) == 0);
}

int main(void)
{
	struct vmem_ept_capabilities caps = { .size = sizeof(caps), .physical_bits = 48 };
	uint32_t rounds = VMEMT_SLOW ? ROUNDS / 10 : ROUNDS;

	seed = vmemt_seed("ept_races");
	caps.caps = VMEM_EPT_CAP_4_LEVELS | VMEM_EPT_CAP_TABLES_WB | VMEM_EPT_CAP_AD |
		    VMEM_EPT_CAP_2M | VMEM_EPT_CAP_NO_EXEC;
	for (uint32_t round = 0; round < rounds; round++) {
		pthread_t threads[INSTALLERS + READERS];

		caps.format = round % VMEM_EPT_FORMATS;
		start(&caps, 0);
		if (round % 2)
			note();
		pthread_barrier_init(&barrier, NULL, INSTALLERS + READERS);
		for (uintptr_t i = 0; i < INSTALLERS + READERS; i++)
			assert(!pthread_create(&threads[i], NULL, i < INSTALLERS ? install : look,
					       (void *)i));
		for (uintptr_t i = 0; i < INSTALLERS; i++)
			assert(!pthread_join(threads[i], NULL));
		atomic_store(&done, 1);
		for (uintptr_t i = INSTALLERS; i < INSTALLERS + READERS; i++)
			assert(!pthread_join(threads[i], NULL));
		pthread_barrier_destroy(&barrier);
		log_all(caps.format == VMEM_EPT_VTD);
		finish();
		for (all_at_once = 0; all_at_once < 2; all_at_once++)
			edge_of_quota(&caps);
		seed++;
	}
	return 0;
}
