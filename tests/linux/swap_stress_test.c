/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests of ten times their budget with a swap file: writers that choose pages by Zipf's law check every byte that they
 * find, for some seconds; the budget holds, and nothing is lost. */
#include "linux/guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <vmem/device_file.h>
#include <vmem/manager_device.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define REGIONS 2
#define PAGES 16384 /* of each */
#define RUN_MS 4000
#define BUDGET (REGIONS * PAGES * PAGE / 10)
#define TABLE 4096 /* pages that are drawn from, spread over the region */

struct writer {
	pthread_t thread;
	vmem_region *region;
	uint64_t seed;
	_Atomic uint64_t done; /* atomic; operations */
	uint8_t version[PAGES];
};

static struct writer writers[REGIONS];
static double weights[TABLE]; /* summed up; constant */
static _Atomic int quit;      /* atomic */

/* A third of it does not compress. */
static void make_page(uint64_t *words, uint64_t page, uint64_t version)
{
	uint64_t state = page << 20 ^ version;

	for (unsigned i = 0; i < PAGE / 8; i++)
		words[i] = !version ? 0 : i % 3 ? version : vmemt_rand(&state);
}

static uint64_t draw(uint64_t *rng)
{
	double at =
		(double)(vmemt_rand(rng) >> 11) / (double)(UINT64_C(1) << 53) * weights[TABLE - 1];
	unsigned low = 0, high = TABLE - 1;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (weights[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	/* Runs of four, all over the region; and now and then any page. */
	return vmemt_rand(rng) % 16 ? (uint64_t)(low / 4 * 2654435761u % (PAGES / 4) * 4 + low % 4)
				    : vmemt_rand(rng) % PAGES;
}

static void *write_and_check(void *argument)
{
	struct writer *w = argument;
	unsigned char *base = vmem_region_hva(w->region);
	uint64_t words[PAGE / 8], rng = w->seed;

	while (!atomic_load(&quit)) {
		uint64_t page = draw(&rng);
		uint64_t *memory = (uint64_t *)(void *)(base + page * PAGE);

		make_page(words, page, w->version[page]);
		for (unsigned i = 0; i < PAGE / 8; i++)
			assert(memory[i] == words[i]);
		if (vmemt_rand(&rng) % 3 == 0) {
			w->version[page] = (uint8_t)(w->version[page] % 255 + 1);
			make_page(words, page, w->version[page]);
			memcpy(memory, words, PAGE);
		}
		atomic_fetch_add(&w->done, 1);
	}
	return NULL;
}

/* Everything is there, and has been written once. */
static void fill(struct writer *w)
{
	uint64_t words[PAGE / 8];

	for (uint64_t i = 0; i < PAGES; i++) {
		w->version[i] = 1;
		make_page(words, i, 1);
		assert(!vmem_region_write(w->region, i * PAGE, words, PAGE));
	}
}

static void check_all(const struct writer *w)
{
	uint64_t words[PAGE / 8], got[PAGE / 8];

	for (uint64_t i = 0; i < PAGES; i++) {
		make_page(words, i, w->version[i]);
		assert(!vmem_region_read(w->region, i * PAGE, got, PAGE));
		assert(!memcmp(words, got, PAGE));
	}
}

/* No operation for long fails. */
static void watch(vmem_manager *m)
{
	uint64_t end = vmemt_now_ms() + RUN_MS, deadline = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	uint64_t last = 0, most = 0;

	while (vmemt_now_ms() < end) {
		uint64_t done = 0, used = vmemt_manager_metrics(m).used_bytes;

		most = used > most ? used : most;
		for (unsigned i = 0; i < REGIONS; i++)
			done += atomic_load(&writers[i].done);
		if (done != last)
			deadline = vmemt_now_ms() + VMEMT_DEADLINE_MS;
		VMEMT_NOT_AFTER(deadline, "writers go on");
		last = done;
		sched_yield();
	}
	fprintf(stderr, "budget %llu KiB: at most used %llu KiB, %llu operations\n",
		(unsigned long long)BUDGET / 1024, (unsigned long long)most / 1024,
		(unsigned long long)last);
	assert(most <= BUDGET + 16 * PAGE);
}

static void expect_swapped(vmem_manager *m)
{
	struct vmem_store_out_stats s = { .size = sizeof(s) };
	struct vmem_store_device_stats d = { .size = sizeof(d) };

	assert(!vmem_manager_get_out_stats(m, &s));
	assert(!vmem_manager_get_device_stats(m, 0, &d));
	fprintf(stderr, "%llu loads, %llu warm, written %llu KiB, saves waited %llu\n",
		(unsigned long long)s.loads, (unsigned long long)s.warm_loads,
		(unsigned long long)d.written_bytes / 1024, (unsigned long long)s.saves_waited);
	assert(s.segments && s.loads && !s.lost && d.written_bytes > BUDGET);
	assert(!d.write_errors && !d.read_errors);
	VMEMT_UNTIL(!atomic_load(&m->host.stuck)); /* a disk may pause */
}

static vmem_manager *make(uint64_t seed)
{
	const struct vmem_manager_opts o = { .size = sizeof(o),
					     .budget_bytes = BUDGET,
					     .fault_threads = 2 };
	const struct vmem_device_file_opts f = { .size = sizeof(f), .size_bytes = 256 * MIB };
	const char *folder = getenv("TMPDIR");
	vmem_manager *m = vmemt_manager_of(&o);
	struct vmem_device *device;

	assert(!vmem_device_file_open(&device, folder ? folder : "/tmp", &f));
	assert(!vmem_manager_add_device(m, device, NULL, NULL));
	assert(!vmem_manager_thread_start(m));
	for (unsigned i = 0; i < TABLE; i++)
		weights[i] = (i ? weights[i - 1] : 0) + 1 / (double)(i + 1);
	for (unsigned i = 0; i < REGIONS; i++) {
		writers[i].region = vmemt_region(m, 0, PAGES, VMEM_REGION_DMA_PINNED);
		writers[i].seed = seed + i;
		fill(&writers[i]);
	}
	return m;
}

int main(void)
{
	uint64_t seed = vmemt_seed("swap_stress");
	vmem_manager *m;

	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	m = make(seed);
	for (unsigned i = 0; i < REGIONS; i++)
		assert(!pthread_create(&writers[i].thread, NULL, write_and_check, &writers[i]));
	watch(m);
	atomic_store(&quit, 1);
	for (unsigned i = 0; i < REGIONS; i++)
		assert(!pthread_join(writers[i].thread, NULL));
	for (unsigned i = 0; i < REGIONS; i++)
		check_all(&writers[i]);
	expect_swapped(m);
	for (unsigned i = 0; i < REGIONS; i++)
		assert(!vmem_region_detach(writers[i].region, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(m));
	return 0;
}
