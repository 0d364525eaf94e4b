/* SPDX-License-Identifier: BSD-2-Clause */
/* See swap_guest.h. */
#define _GNU_SOURCE
#include "linux/swap_guest.h"
#include "linux/stored.h"
#include "support/slow.h"
#include <signal.h>
#include <stdlib.h>
#include <vmem/device_file.h>
#include <vmem/fault.h>

#define PAGE VMEM_PAGE_SIZE
#define STORE_BYTES (2 * VMEMT_MIB)
/* Lost pages: of the others some are looked at, as each takes its time. */
#define MANY (VMEMT_RACES_ONLY ? 100u : 200u)
#define DEVICE_BYTES (64 * VMEMT_MIB)

static void on_lost(void *context, uint64_t gpa, int error)
{
	struct vmemt_swap_guest *g = context;
	int before;

	assert(gpa % PAGE == 0 && gpa / PAGE < VMEMT_SWAP_PAGES && error < 0);
	before = atomic_exchange(&g->told[gpa / PAGE], error);
	assert(!before);
	atomic_fetch_add(&g->told_count, 1);
}

void vmemt_swap_begin(struct vmemt_swap_guest *g, uint64_t budget_bytes, uint64_t fault_deadline_ms)
{
	const struct vmem_manager_opts o = { .size = sizeof(o),
					     .budget_bytes = budget_bytes,
					     .store_bytes = STORE_BYTES };
	const struct vmem_region_opts r = { .size = sizeof(r),
					    .flags = VMEM_REGION_DMA_PINNED,
					    .bytes = VMEMT_SWAP_PAGES * (uint64_t)PAGE,
					    .fault_deadline_ms = fault_deadline_ms,
					    .on_lost = on_lost,
					    .context = g };

	for (uint32_t i = 0; i < VMEMT_SWAP_PAGES; i++)
		atomic_store(&g->told[i], 0);
	atomic_store(&g->told_count, 0);
	g->manager = vmemt_manager_of(&o);
	vmemt_catch_signals(g->manager);
	assert(!vmem_manager_thread_start(g->manager));
	assert(!vmemt_alloc(&g->region, g->manager, &r));
	g->cpu.region = g->region;
	g->base = vmem_region_hva(g->region);
}

void vmemt_swap_end(struct vmemt_swap_guest *g)
{
	vmemt_check(g->manager, g->region);
	vmemt_end(g->manager, g->region);
	vmemt_catch_signals(NULL);
	g->cpu.region = NULL;
}

uint32_t vmemt_swap_add(struct vmemt_swap_guest *g, struct vmem_device *device, int32_t priority)
{
	const struct vmem_store_device_opts o = { .size = sizeof(o),
						  .flags = VMEM_STORE_DEVICE_PLAIN,
						  .priority = priority };
	uint32_t number;

	assert(!vmem_manager_add_device(g->manager, device, &o, &number));
	return number;
}

uint32_t vmemt_swap_add_file(struct vmemt_swap_guest *g, int32_t priority)
{
	const struct vmem_device_file_opts o = { .size = sizeof(o), .size_bytes = DEVICE_BYTES };
	const char *folder = getenv("TMPDIR");
	struct vmem_device *device;

	assert(!vmem_device_file_open(&device, folder ? folder : "/tmp", &o));
	return vmemt_swap_add(g, device, priority);
}

struct vmem_store_out_stats vmemt_swap_out(struct vmemt_swap_guest *g)
{
	struct vmem_store_out_stats stats = { .size = sizeof(stats) };

	assert(!vmem_manager_get_out_stats(g->manager, &stats));
	return stats;
}

struct vmem_store_device_stats vmemt_swap_device(struct vmemt_swap_guest *g, uint32_t number)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };

	assert(!vmem_manager_get_device_stats(g->manager, number, &stats));
	return stats;
}

static bool is_stuck(struct vmemt_swap_guest *g)
{
	return atomic_load(&g->manager->host.stuck) != 0;
}

/* @help: where nothing more can be taken out, a file is added. Whether that was so. */
static bool fill(struct vmemt_swap_guest *g, uint64_t version, bool help)
{
	bool added = false;

	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, version);
		vmemt_touch_begin(&g->cpu, VMEMT_WRITE, g->base + i * PAGE, &p, sizeof(p));
		VMEMT_UNTIL(vmemt_touch_over(&g->cpu) || (help && !added && is_stuck(g)));
		if (!vmemt_touch_over(&g->cpu)) {
			(void)vmemt_swap_add_file(g, -1);
			added = true;
		}
		assert(!vmemt_touch_end(&g->cpu));
	}
	return added;
}

void vmemt_swap_fill(struct vmemt_swap_guest *g, uint64_t version)
{
	(void)fill(g, version, false);
}

bool vmemt_swap_fill_helped(struct vmemt_swap_guest *g, uint64_t version)
{
	return fill(g, version, true);
}

void vmemt_swap_settle(struct vmemt_swap_guest *g)
{
	VMEMT_UNTIL(!vmemt_swap_out(g).writing);
}

/* Whether there are bytes of it that may be gone. Those that are fetched as neighbours are waited for. */
static bool may_be_gone(struct vmemt_swap_guest *g, uint64_t page, uint64_t from)
{
	uint64_t word;

	VMEMT_UNTIL(vmemi_page_state(word = vmemi_region_word(g->region, page)) !=
		    VMEM_PAGE_ARRIVING);
	return vmemi_page_state(word) == VMEM_PAGE_POISONED ||
	       (vmemi_page_state(word) == VMEM_PAGE_STORED &&
		vmemt_stored_behind(g->manager->host.store, vmemi_page_ref(word), from));
}

bool vmemt_swap_is_out(struct vmemt_swap_guest *g, uint64_t page)
{
	uint64_t word = vmemi_region_word(g->region, page);

	return vmemi_page_state(word) == VMEM_PAGE_STORED &&
	       vmemt_stored_behind(g->manager->host.store, vmemi_page_ref(word), 0);
}

static bool is_right(struct vmemt_swap_guest *g, uint64_t page, uint64_t version)
{
	struct vmemt_page p, want;
	int signal;

	memset(&p, 0x77, sizeof(p));
	signal = vmemt_touch(&g->cpu, VMEMT_READ, g->base + page * PAGE, &p, sizeof(p));
	vmemt_make(&want, page, version);
	if (!signal) {
		assert(!memcmp(&p, &want, sizeof(p)) && !atomic_load(&g->told[page]));
		return true;
	}
	assert(signal == SIGBUS && g->cpu.answer == -VMEM_EIO && g->cpu.gpa == page * PAGE);
	assert(atomic_load(&g->told[page]));
	assert(vmemt_state(g->region, page) == VMEM_PAGE_POISONED);
	return false;
}

uint32_t vmemt_swap_check(struct vmemt_swap_guest *g, uint64_t version, uint64_t from)
{
	uint32_t lost = 0;

	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++) {
		bool may_be = may_be_gone(g, i, from);

		if (may_be ? lost >= MANY && i % 8 : VMEMT_RACES_ONLY && i % 4)
			continue;
		if (is_right(g, i, version))
			continue;
		assert(may_be);
		lost++;
	}
	assert(atomic_load(&g->told_count) >= lost && vmemt_metrics(g->region).lost >= lost);
	return lost;
}

void vmemt_swap_heal(struct vmemt_swap_guest *g, uint64_t version, uint64_t from)
{
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++) {
		if (!may_be_gone(g, i, from))
			continue;
		assert(!vmem_region_discard(g->region, i * PAGE, PAGE, NULL));
		atomic_store(&g->told[i], 0);
		vmemt_put(&g->cpu, g->base, i, version);
	}
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i += VMEMT_RACES_ONLY ? 4 : 1)
		assert(is_right(g, i, version));
}
