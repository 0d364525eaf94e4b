/* SPDX-License-Identifier: BSD-2-Clause */
/* What it costs to know that a page in place is in use, by each feed that a region can have (vmem/feed.h):
 * faults, minor faults   every eighth page is taken out and touched: both together, by the page
 * async-wp               every eighth page is written where it is, which is a fault in the kernel; and the region is
 *                        asked which were: both together, by the page found
 * and of the pages that were used, which share was found. */
#include "bench_track.h"
#include "machine.h"
#include <errno.h>
#include <math.h>
#include <vmem/feed.h>

#define FEED_PAGES 16384u
#define APART 8u
#define USED (FEED_PAGES / APART)
#define ASK_MS 30000u /* it is asked within about two seconds */

enum { SAMPLE_NS, FOUND_SHARE, FEED_METRICS };

struct feed_bench {
	vmem_manager *manager;
	vmem_region *region;
	volatile uint8_t *memory;
	int feed; /* enum vmem_feed */
	uint64_t gpas[USED];
};

/* Writes every eighth page. @return ns */
static uint64_t use(const struct feed_bench *b)
{
	uint64_t start = machine_now_ns();

	for (size_t i = 0; i < USED; i++)
		b->memory[i * APART * PAGE]++;
	return machine_now_ns() - start;
}

static uint64_t told(const struct feed_bench *b, uint64_t *ret_ns, uint64_t *ret_asked)
{
	struct vmem_feed_info info = { .size = sizeof(info) };

	vmem_region_feed_info(b->region, b->feed, &info);
	*ret_ns = info.ns;
	*ret_asked = info.asked;
	return info.pages;
}

/* Steps until the region has asked @times more. */
static int until_asked(const struct feed_bench *b, unsigned times)
{
	uint64_t ns, asked, first, end = machine_now_ns() + ASK_MS * UINT64_C(1000000);

	told(b, &ns, &first);
	do {
		if (machine_now_ns() > end)
			return -ETIMEDOUT;
		vmem_manager_step(b->manager, 1000, NULL);
		machine_sleep_ms(5);
		told(b, &ns, &asked);
	} while (asked < first + times);
	return 0;
}

static int measure_asked(struct feed_bench *b, uint64_t *ret_ns, uint64_t *ret_pages)
{
	uint64_t ns, before_ns, asked, before;
	int result = until_asked(b, 1); /* what was written before counts no more */

	before = told(b, &before_ns, &asked);
	*ret_ns = use(b);
	if (result == 0)
		result = until_asked(b, 1);
	*ret_pages = told(b, &ns, &asked) - before;
	*ret_ns += ns - before_ns;
	return result;
}

static int measure_faults(struct feed_bench *b, uint64_t *ret_ns, uint64_t *ret_pages)
{
	uint64_t ns, asked, before = told(b, &ns, &asked), start = machine_now_ns(), taken = 0;
	int result = vmem_region_stage_pages(b->region, b->gpas, USED, &taken);

	*ret_ns = machine_now_ns() - start + use(b);
	*ret_pages = told(b, &ns, &asked) - before;
	return result ? result : taken ? 0 : -EAGAIN;
}

static int measure(void *context, double *values)
{
	struct feed_bench *b = context;
	uint64_t ns, pages;
	int result =
		(b->feed == VMEM_FEED_ASYNC_WP ? measure_asked : measure_faults)(b, &ns, &pages);

	values[SAMPLE_NS] = pages ? (double)ns / (double)pages : NAN;
	values[FOUND_SHARE] = (double)pages / USED;
	return result;
}

static int start(struct feed_bench *b, uint64_t manager_flags, uint64_t region_flags)
{
	const struct vmem_manager_opts mo = { .size = sizeof(mo), .flags = manager_flags };
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .flags = region_flags,
					    .bytes = FEED_PAGES * PAGE,
					    .fault_around_pages = 1 };
	int result = vmem_manager_new(&b->manager, &mo);

	if (result)
		return result;
	result = vmem_region_alloc(&b->region, b->manager, &o);
	if (result) {
		vmem_manager_free(b->manager);
		return result;
	}
	for (size_t i = 0; i < USED; i++)
		b->gpas[i] = i * APART * PAGE;
	b->memory = vmem_region_hva(b->region);
	for (size_t i = 0; i < FEED_PAGES && result == 0; i++)
		result = vmem_region_resolve(b->region, i * PAGE, 1);
	if (result == 0 && !manager_flags)
		result = vmem_manager_thread_start(b->manager);
	return result;
}

int bench_track_feeds(struct bench *bench)
{
	static const struct {
		const char *name;
		int feed;
		uint64_t manager_flags, region_flags;
	} cases[] = {
		{ "faults", VMEM_FEED_FAULTS, 0, 0 },
		{ "minor-faults", VMEM_FEED_MINOR_FAULTS, 0,
		  VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED },
		{ "async-wp", VMEM_FEED_ASYNC_WP, VMEM_MANAGER_ASYNC_WP, 0 },
	};
	static struct feed_bench state;
	int result = 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) && result == 0; i++) {
		const struct bench_metric metrics[FEED_METRICS] = {
			[SAMPLE_NS] = { "feed_sample_ns", "ns", cases[i].name, 0 },
			[FOUND_SHARE] = { "feed_found_share", "", cases[i].name, 1 },
		};
		const struct bench_comparison comparison = {
			.metrics = metrics,
			.metric_count = FEED_METRICS,
			.context = &state,
			.rounds = bench_quick(bench) ? 3 : 5,
			.ours = { "libvmem", measure, NULL },
		};

		state = (struct feed_bench){ .feed = cases[i].feed };
		result = start(&state, cases[i].manager_flags, cases[i].region_flags);
		if (result == -VMEM_ENOTSUP || result == -VMEM_ENODEV || result == -VMEM_EPERM) {
			bench_note(bench, "feed %s: not on this machine", cases[i].name);
			result = 0;
			continue;
		}
		if (result == 0 && vmem_region_feed(state.region) == cases[i].feed)
			result = bench_compare(bench, &comparison);
		else if (result == 0)
			bench_note(bench, "feed %s: not on this machine", cases[i].name);
		if (state.region && vmem_region_detach(state.region, VMEM_DETACH_DISCARD) == 0)
			vmem_manager_free(state.manager);
	}
	return result;
}
