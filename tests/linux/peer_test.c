/* SPDX-License-Identifier: BSD-2-Clause */
/* Other processes that map a region's file, and a second mapping in this one: each reads what the others wrote,
 * wherever a page is; and between each two steps of a page on its way out one of them writes, or dies. */
#define _GNU_SOURCE
#include "linux/failing_kernel.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/peer_process.h"
#include "support/rng.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64
#define BYTES (PAGES * PAGE)
#define FLAGS (VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED)

static struct vmemt_cpu cpu, second_cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base, *second; /* a second mapping here */
static struct vmemt_second second_mapping;
static struct vmemt_peer peer;

static void make(uint64_t budget, uint64_t pages)
{
	const char *threads = getenv("VMEM_TEST_FAULT_THREADS");
	struct vmem_manager_opts o = { .size = sizeof(o),
				       .budget_bytes = budget,
				       .fault_threads = threads ? (uint32_t)atoi(threads) : 0 };

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, &o, &vmemt_kernel_table));
	cpu.region = region = vmemt_region(manager, 16 * PAGE, pages, FLAGS);
	base = vmem_region_hva(region);
}

static void add_second(void)
{
	vmemt_second_join(&second_mapping, region);
	second = second_mapping.memory;
}

static void remove_second(void)
{
	vmemt_second_leave(&second_mapping);
}

/* All three, served by threads. */
static void make_all(void)
{
	make(0, PAGES);
	vmemt_peer_join(&peer, region);
	add_second();
	assert(!vmem_manager_thread_start(manager));
	assert(vmemt_metrics(region).peers == 2);
}

static void end(void)
{
	vmemt_check(manager, region);
	assert(!vmemt_metrics(region).peers);
	assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(manager));
}

static void end_all(void)
{
	vmemt_peer_leave(&peer);
	remove_second();
	end();
}

static uint64_t blocks(void)
{
	struct stat s;

	assert(!fstat(vmem_region_file(region), &s));
	return (uint64_t)s.st_blocks / (PAGE / 512);
}

/* The kernel wakes who waits a moment before the library has booked it. */
static void booked(uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++)
		VMEMT_UNTIL(vmemt_state(region, i) != VMEM_PAGE_ARRIVING);
}

/* A page is taken to a state, and then touched from each side. */
static void each_state(void)
{
	enum { IN_PLACE, STAGED, STORED, CLEAN, ABSENT, STATES };
	uint64_t version = 1;

	make_all();
	for (unsigned state = 0; state < STATES; state++) {
		for (unsigned side = 0; side < 6; side++, version += 2) {
			uint64_t page = (state * 6 + side) % PAGES;

			if (state != ABSENT) {
				vmemt_put(&cpu, base, page, version);
				assert(vmemt_peer_is(&peer, page, version));
				assert(vmemt_is(&second_cpu, second, page, version));
				vmemt_peer_put(&peer, page, version);
				vmemt_put(&second_cpu, second, page, version);
			}
			booked(page, 1);
			if (state == STAGED)
				vmemt_stage(region, page, 1);
			if (state == STORED || state == CLEAN)
				vmemt_store(region, page, 1);
			if (state == CLEAN)
				assert(vmemt_peer_is(&peer, page, version));
			switch (side) {
			case 0: vmemt_put(&cpu, base, page, version + 1); break;
			case 1: vmemt_put(&second_cpu, second, page, version + 1); break;
			case 2: vmemt_peer_put(&peer, page, version + 1); break;
			default: break;
			}
			if (side < 3)
				version++;
			else if (state == ABSENT)
				version = 0;
			assert(side == 3 || vmemt_is(&cpu, base, page, version));
			assert(side == 4 || vmemt_is(&second_cpu, second, page, version));
			assert(side == 5 || vmemt_peer_is(&peer, page, version));
			assert(vmemt_is(&cpu, base, page, version));
			assert(vmemt_is(&second_cpu, second, page, version));
			assert(vmemt_peer_is(&peer, page, version));
			version += !version;
		}
	}
	assert(vmemt_metrics(region).faults_peer && !vmemt_metrics(region).lost);
	VMEMT_UNTIL(!vmemt_metrics(region).staging_copies);
	assert(blocks() * PAGE == vmemt_manager_metrics(manager).resident_bytes);
	end_all();
}

/* What is clean stays so while it is only read, from wherever, and leaves for nothing; one write ends that. */
static void clean_everywhere(void)
{
	make_all();
	for (uint64_t i = 0; i < 8; i++)
		vmemt_peer_put(&peer, i, 1);
	booked(0, 8);
	vmemt_store(region, 0, 8);
	for (uint64_t i = 0; i < 8; i++) {
		assert(vmemt_peer_is(&peer, i, 1) && vmemt_is(&cpu, base, i, 1));
		assert(vmemt_is(&second_cpu, second, i, 1));
	}
	booked(0, 8);
	for (uint64_t i = 0; i < 8; i++)
		if (vmemt_state(region, i) == VMEM_PAGE_CLEAN) {
			vmemt_peer_put(&peer, i, 2);
			VMEMT_UNTIL(vmemt_state(region, i) == VMEM_PAGE_RESIDENT);
		} else {
			vmemt_put(&cpu, base, i, 2);
		}
	vmemt_store(region, 0, 8);
	for (uint64_t i = 0; i < 8; i++)
		assert(vmemt_is(&second_cpu, second, i, 2));
	end_all();
}

/* --- Between any two steps --- */

static struct {
	long at;       /* before this call; -1: never */
	long calls;    /* so far */
	bool fired;    /* it has happened */
	bool is_death; /* of the peer, which else writes */
	bool by_second;
	uint64_t page, version;
	struct vmemt_page data;
} strike;

/* In a library that has no threads of its own: whoever writes has done it, or has met a fault that nobody reads. */
static void strike_at(enum vmemt_call call)
{
	(void)call;
	if (strike.at < 0 || strike.calls++ != strike.at)
		return;
	strike.fired = true;
	if (strike.is_death) {
		vmemt_peer_kill(&peer);
	} else if (strike.by_second) {
		vmemt_make(&strike.data, strike.page, strike.version);
		vmemt_touch_begin(&second_cpu, VMEMT_WRITE, second + strike.page * PAGE,
				  &strike.data, PAGE);
		VMEMT_UNTIL(vmemt_touch_over(&second_cpu) || vmemt_second_pending(&second_mapping));
	} else {
		vmemt_peer_begin(&peer, VMEMT_WRITE, strike.page, strike.version);
		VMEMT_UNTIL(vmemt_peer_over(&peer) || vmemt_peer_pending(&peer));
	}
}

static void put_step(uint64_t page, uint64_t version)
{
	struct vmemt_page p;

	vmemt_make(&p, page, version);
	assert(!vmemt_touch_step(&cpu, VMEMT_WRITE, base + page * PAGE, &p, PAGE, manager));
}

static bool is_step(struct vmemt_cpu *c, unsigned char *memory, uint64_t page, uint64_t version)
{
	struct vmemt_page p, want;

	vmemt_make(&want, page, version);
	assert(!vmemt_touch_step(c, VMEMT_READ, memory + page * PAGE, &p, PAGE, manager));
	return !memcmp(&p, &want, PAGE);
}

static void peer_put_step(uint64_t page, uint64_t version)
{
	vmemt_peer_begin(&peer, VMEMT_WRITE, page, version);
	VMEMT_STEP_UNTIL(manager, vmemt_peer_over(&peer));
	assert(!vmemt_peer_finish(&peer, NULL));
}

static bool peer_is_step(uint64_t page, uint64_t version)
{
	struct vmemt_page got, want;

	vmemt_make(&want, page, version);
	vmemt_peer_begin(&peer, VMEMT_READ, page, 0);
	VMEMT_STEP_UNTIL(manager, vmemt_peer_over(&peer));
	assert(!vmemt_peer_finish(&peer, &got));
	return !memcmp(&got, &want, PAGE);
}

enum way { OUT, OUT_AND_BACK, GIVEN_UP, CLEAN_OUT, WAYS };

/* A page goes its way, and the strike happens before one of its calls. False: there are no more. */
static bool walk(enum way way, uint64_t page, uint64_t version, bool in_peer)
{
	uint64_t gpa = (16 + page) * PAGE;
	bool discarded = way == GIVEN_UP;

	put_step(page, version);
	if (in_peer)
		peer_put_step(page, version);
	if (way == CLEAN_OUT) {
		assert(!vmem_region_stage(region, gpa, PAGE, NULL));
		assert(!vmem_region_store(region, gpa, PAGE, NULL));
		assert(is_step(&cpu, base, page, version));
		if (in_peer)
			assert(peer_is_step(page, version));
	}
	strike.page = page;
	strike.version = version + 1;
	strike.calls = 0;
	strike.fired = false;
	vmemt_kernel.at_call = strike_at;
	assert(!vmem_region_stage(region, gpa, PAGE, NULL));
	assert(!vmem_region_store(region, gpa, PAGE, NULL));
	if (way == OUT_AND_BACK)
		assert(!vmem_region_fetch(region, gpa, PAGE, NULL));
	if (way == GIVEN_UP)
		assert(!vmem_region_discard(region, gpa, PAGE, NULL));
	vmemt_kernel.at_call = NULL;
	if (strike.fired && !strike.is_death) {
		if (strike.by_second) {
			VMEMT_STEP_UNTIL(manager, vmemt_touch_over(&second_cpu));
			assert(!vmemt_touch_end(&second_cpu));
		} else {
			VMEMT_STEP_UNTIL(manager, vmemt_peer_over(&peer));
			assert(!vmemt_peer_finish(&peer, NULL));
		}
	}
	if (strike.is_death && way == OUT)
		assert(vmemt_state(region, page) == VMEM_PAGE_STORED);
	if (!discarded) {
		version += strike.fired && !strike.is_death;
		assert(is_step(&cpu, base, page, version));
		assert(is_step(&second_cpu, second, page, version));
		if (peer.pid)
			assert(peer_is_step(page, version));
	}
	return strike.fired;
}

/* One of them writes between any two calls that a page's way takes; the write is never lost. */
static void write_at_each_step(bool by_second)
{
	make(0, PAGES);
	vmemt_peer_join(&peer, region);
	add_second();
	strike.is_death = false;
	strike.by_second = by_second;
	for (unsigned way = 0; way < WAYS; way++) {
		for (unsigned in_peer = 0; in_peer < 2; in_peer++) {
			long at = 0;

			for (strike.at = 0;
			     walk(way, (uint64_t)at % PAGES, 10 * (uint64_t)at + 1, in_peer);
			     strike.at++)
				at++;
			assert(at > 0);
		}
	}
	end_all();
}

/* It is killed there instead: nobody else notices. */
static void die_at_each_step(void)
{
	make(0, PAGES);
	add_second();
	strike.is_death = true;
	for (unsigned way = 0; way < WAYS; way++) {
		for (strike.at = 0;; strike.at++) {
			bool fired;

			vmemt_peer_join(&peer, region);
			fired = walk(way, (uint64_t)strike.at % PAGES, 2, true);
			if (fired)
				assert(vmemt_metrics(region).peers == 2);
			vmemt_peer_leave(&peer);
			if (!fired)
				break;
		}
	}
	remove_second();
	end();
}

/* --- At once --- */

struct counting {
	pthread_t thread;
	struct vmemt_count count;
	unsigned char *memory;
	uint64_t pages, wrong;
};

static void *count_up(void *argument)
{
	struct counting *c = argument;

	c->wrong = vmemt_count_up(&c->count, c->memory, c->pages);
	return NULL;
}

/* All of them write at once, with room for a part of it. */
static void count_at_once(void)
{
	const uint64_t pages = 3072, rounds = VMEMT_SANITIZED ? 6000 : 30000;
	struct counting c[2];
	uint64_t seed = vmemt_seed("peer");
	struct vmemt_count of_peer = { .seed = vmemt_rand(&seed), .rounds = rounds, .word = 7 };
	struct vmem_manager_metrics m;

	make(8 << 20, pages);
	vmemt_peer_join(&peer, region);
	add_second();
	assert(!vmem_manager_thread_start(manager));
	for (unsigned i = 0; i < 2; i++) {
		c[i] = (struct counting){ .memory = i ? second : base, .pages = pages };
		c[i].count = (struct vmemt_count){ vmemt_rand(&seed), rounds, 100 + i };
		assert(!pthread_create(&c[i].thread, NULL, count_up, &c[i]));
	}
	vmemt_peer_count_begin(&peer, &of_peer);
	for (unsigned i = 0; i < 2; i++) {
		assert(!pthread_join(c[i].thread, NULL));
		assert(!c[i].wrong);
	}
	assert(!vmemt_peer_count_end(&peer));
	m = vmemt_manager_metrics(manager);
	assert(m.used_bytes <= m.budget_bytes);
	assert(vmemt_metrics(region).saved > 0);
	vmem_manager_thread_stop(manager);
	/* A page that is back in its frame counts twice until that is booked, which staging begins with. */
	for (unsigned i = 0; i < 2; i++)
		assert(!vmem_region_stage(region, region->opts.gpa, pages * PAGE, NULL));
	m = vmemt_manager_metrics(manager);
	assert(blocks() * PAGE == m.resident_bytes + m.staging_bytes);
	end_all();
}

int main(void)
{
	vmemt_peers_prepare();
	vmemt_need(VMEM_KERNEL_FILES | VMEM_KERNEL_POISON | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	vmemt_cpu_start(&second_cpu);
	each_state();
	clean_everywhere();
	write_at_each_step(false);
	write_at_each_step(true);
	die_at_each_step();
	count_at_once();
	vmemt_cpu_stop(&cpu);
	vmemt_cpu_stop(&second_cpu);
	vmemt_peers_end();
	return 0;
}
