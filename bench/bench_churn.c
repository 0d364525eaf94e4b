/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-density, the curve: what is lost beside the stored bytes while pages come and go. A random half of all
 * pages of all guests is stored; then one of these after the other comes back, is compared, and another leaves
 * in its place. churn=1.0: as many have as are stored.
 * ours   segments, less the objects in them, as a part of these; domain=vm. Background work has the time that
 *        the manager gives it while it is busy
 * peer   zram-lz4: mem_used_total beside compr_data_size, after page-out and swap-in of the same pages
 * limit  what we hold ourselves to */
#include "../examples/common/split_random.h"
#include "bench_density.h"
#include "guest_store.h"
#include "machine.h"
#include "zram_peer.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define POINTS 11 /* of the curve, and one behind it */
#define POINTS_PER_CHURN 5
#define COMPACTED POINTS
#define BAR 10.0
#define BAR_COMPACTED 2.0

/* What background work gets: what the manager gives it for two KVM guests at half their memory, which is a
 * call of 1 ms every 8 ms and 130 to 170 saves. */
#define ROUND_PAGES 160
#define WORK_NS UINT64_C(1000000)
#define ROUND_NS UINT64_C(8000000)

struct churn_bench {
	const struct guest_pages *guests;
	vmem_store_ref *refs;
	struct guest_store store;
	uint8_t *paged;  /* the peer's pages */
	uint32_t *order; /* the first half of them is stored */
	size_t stored;
	uint64_t random;
	uint64_t work_cpu_ns, all_cpu_ns;
	uint64_t metadata_most;
};

/* Both sides do the same: start, then each page that comes back and the one that leaves for it. */
struct churn_side {
	int (*leave)(struct churn_bench *churn, uint32_t number);
	int (*come_back)(struct churn_bench *churn, uint32_t number);
	void (*work)(struct churn_bench *churn); /* after each round */
	int (*lost)(struct churn_bench *churn, double *ret_percent);
};

static int begin(struct churn_bench *churn, const struct churn_side *side)
{
	int result = 0;

	machine_shuffle(churn->order, churn->guests->total, 1);
	churn->stored = churn->guests->total / 2;
	churn->random = 1;
	for (size_t i = 0; i < churn->stored && result == 0; i++)
		result = side->leave(churn, churn->order[i]);
	return result;
}

static int replace_one(struct churn_bench *churn, const struct churn_side *side)
{
	const size_t away = churn->guests->total - churn->stored;
	uint32_t *out = &churn->order[random_next(&churn->random) % churn->stored];
	uint32_t *in = &churn->order[churn->stored + random_next(&churn->random) % away];
	const uint32_t back = *out;
	int result = side->come_back(churn, back);

	*out = *in;
	*in = back;
	return result != 0 ? result : side->leave(churn, *out);
}

static int go_on(struct churn_bench *churn, const struct churn_side *side, double *values)
{
	const size_t pages = churn->stored / POINTS_PER_CHURN;
	int result = side->lost(churn, &values[0]);

	for (size_t point = 1; point < POINTS && result == 0; point++) {
		for (size_t i = 0; i < pages && result == 0; i++) {
			result = replace_one(churn, side);
			if (i % ROUND_PAGES == ROUND_PAGES - 1)
				side->work(churn);
		}
		if (result == 0)
			result = side->lost(churn, &values[point]);
	}
	return result;
}

/* All that is stored. */
static int end(struct churn_bench *churn, const struct churn_side *side)
{
	int result = 0;

	for (size_t i = 0; i < churn->stored && result == 0; i++)
		result = side->come_back(churn, churn->order[i]);
	return result;
}

/* --- Ours --- */

static int save(struct churn_bench *churn, uint32_t number)
{
	return vmem_store_save(churn->store.store, guest_store_vm(&churn->store, number), number,
			       guest_page(churn->guests, number), &churn->refs[number]);
}

static int load_and_drop(struct churn_bench *churn, uint32_t number)
{
	const uint32_t vm = guest_store_vm(&churn->store, number);
	const vmem_store_ref ref = churn->refs[number];
	uint8_t page[PAGE] __attribute__((aligned(64)));
	int result = vmem_store_load(churn->store.store, vm, number, ref, page, NULL);

	if (result == 0 && memcmp(page, guest_page(churn->guests, number), PAGE) != 0)
		result = -EBADMSG;
	return result != 0 ? result : vmem_store_drop(churn->store.store, vm, ref);
}

static void work(struct churn_bench *churn)
{
	const uint64_t start = machine_thread_cpu_ns();

	churn->store.now_ns += ROUND_NS;
	(void)vmem_store_work(churn->store.store, WORK_NS, churn->store.now_ns);
	churn->work_cpu_ns += machine_thread_cpu_ns() - start;
}

static int lost_ours(struct churn_bench *churn, double *ret_percent)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	int result = vmem_store_total_account(churn->store.store, &a);

	if (result != 0 || a.pages != churn->stored)
		return result != 0 ? result : -EBADMSG;
	*ret_percent =
		100.0 * (double)(a.segment_bytes - a.physical_bytes) / (double)a.physical_bytes;
	if (a.metadata_bytes > churn->metadata_most)
		churn->metadata_most = a.metadata_bytes;
	return 0;
}

static int measure_ours(void *context, double *values)
{
	static const struct churn_side side = { save, load_and_drop, work, lost_ours };
	struct churn_bench *churn = context;
	uint64_t start;
	int result =
		guest_store_new(&churn->store, churn->guests, churn->refs, 0, VMEM_STORE_SHARE_VM);

	if (result == 0)
		result = begin(churn, &side);
	if (result == 0) {
		guest_store_work(&churn->store);
		start = machine_thread_cpu_ns();
		result = go_on(churn, &side, values);
		churn->all_cpu_ns = machine_thread_cpu_ns() - start;
	}
	if (result == 0) {
		guest_store_work(&churn->store);
		result = lost_ours(churn, &values[COMPACTED]);
	}
	if (result == 0)
		result = end(churn, &side);
	guest_store_free(&churn->store);
	return result;
}

/* --- The peer --- */

static int page_out(struct churn_bench *churn, uint32_t number)
{
	return zram_page_out(churn->paged + number * PAGE, PAGE);
}

/* Written, so that its slot is free. */
static int swap_in(struct churn_bench *churn, uint32_t number)
{
	volatile uint8_t *page = churn->paged + number * PAGE;

	*page = *page;
	return memcmp((const uint8_t *)page, guest_page(churn->guests, number), PAGE) == 0
		       ? 0
		       : -EBADMSG;
}

static void no_work(struct churn_bench *churn)
{
	(void)churn;
}

/* The kernel keeps zero pages without zram. -EBUSY: pages are there, or away, that should not be. */
static int lost_zram(struct churn_bench *churn, double *ret_percent)
{
	const size_t bytes = churn->guests->total * PAGE;
	struct zram_memory memory;
	int result = zram_memory(&memory);

	if (result == 0 && (machine_swapped_pages(churn->paged, bytes) != churn->stored ||
			    memory.pages > churn->stored))
		result = -EBUSY;
	if (result == 0)
		*ret_percent =
			100.0 * ((double)memory.used_bytes / (double)memory.packed_bytes - 1);
	return result;
}

static int measure_zram(void *context, double *values)
{
	static const struct churn_side side = { page_out, swap_in, no_work, lost_zram };
	struct churn_bench *churn = context;
	int result = 0;

	churn->paged = machine_map(churn->guests->total * PAGE);
	if (!churn->paged)
		return -ENOMEM;
	guest_pages_copy(churn->guests, churn->paged);
	result = begin(churn, &side);
	if (result == 0)
		result = go_on(churn, &side, values);
	if (result == 0)
		result = zram_compact();
	if (result == 0)
		result = lost_zram(churn, &values[COMPACTED]);
	if (result == 0)
		result = end(churn, &side);
	machine_unmap(churn->paged, churn->guests->total * PAGE);
	return result;
}

/* --- Rows --- */

static int measure_bar(void *context, double *values)
{
	(void)context;
	for (size_t point = 0; point < POINTS; point++)
		values[point] = BAR;
	values[COMPACTED] = BAR_COMPACTED;
	return 0;
}

int density_compare_churn(struct bench *bench, const struct guest_pages *guests,
			  vmem_store_ref *refs, const char *zram_reason)
{
	static const char *const conditions[POINTS + 1] = {
		"churn=0.0", "churn=0.2", "churn=0.4", "churn=0.6", "churn=0.8", "churn=1.0",
		"churn=1.2", "churn=1.4", "churn=1.6", "churn=1.8", "churn=2.0", "after compaction"
	};
	struct churn_bench churn = { .guests = guests, .refs = refs };
	struct bench_metric metrics[POINTS + 1];
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = POINTS + 1,
		.rounds = 1, /* it does not depend on the time */
		.context = &churn,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "zram-lz4", measure_zram, zram_reason },
		.limit = { "bar", measure_bar, NULL },
	};
	int result;

	for (size_t i = 0; i <= POINTS; i++)
		metrics[i] = (struct bench_metric){ "overhead_percent", "%", conditions[i], 0 };
	churn.order = calloc(guests->total, sizeof(*churn.order));
	if (!churn.order)
		return -ENOMEM;
	result = bench_compare(bench, &comparison);
	if (result == 0)
		bench_note(bench,
			   "churn: background work took %.0f %% of the time; metadata, apart, at "
			   "most %.1f B a page",
			   100.0 * (double)churn.work_cpu_ns / (double)churn.all_cpu_ns,
			   (double)churn.metadata_most / (double)churn.stored);
	free(churn.order);
	return result;
}
