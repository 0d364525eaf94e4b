/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-reclaim: into the store, while a guest runs on the other half of its memory.
 * ours   vmem_region_stage() and vmem_region_store(); the second alone (staged)
 * peer   page-out to zram-lz4
 * limit  LZ4_compress_fast() of the same pages by one thread, results thrown away */
#include "bench_reclaim.h"
#include "paged_memory.h"
#include "zram_peer.h"
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#define PAGES ((size_t)32768)
#define GUEST_PAGES ((size_t)8192) /* the guest's part, at the start */
#define CHUNK ((size_t)1 << 20)

struct store_bench {
	size_t first, bytes; /* what is stored: an offset and a length */
	uint8_t *contents;   /* of all pages */
	uint32_t *order;
	struct paged_memory paged;
	uint8_t *peer_memory;
	struct kvm_guest *our_guest, *peer_guest;
};

static int make(struct store_bench *state, const struct real_pages *pages, int quick)
{
	int result;

	state->first = GUEST_PAGES * PAGE;
	state->bytes = (quick ? PAGES / 3 : PAGES - GUEST_PAGES) * PAGE / CHUNK * CHUNK;
	state->contents = machine_map(PAGES * PAGE);
	state->peer_memory = machine_map(PAGES * PAGE);
	state->order = calloc(GUEST_PAGES, sizeof(*state->order));
	if (!state->contents || !state->peer_memory || !state->order)
		return -ENOMEM;
	real_pages_pick(pages, PAGE_COMPRESSIBLE, state->contents, PAGES);
	memcpy(state->peer_memory, state->contents, PAGES * PAGE);
	machine_shuffle(state->order, GUEST_PAGES, 6);
	state->paged = (struct paged_memory){ .bytes = PAGES * PAGE,
					      .fault_way = VMEM_FAULT_THREAD,
					      .cpu = RECLAIM_CPU };
	if ((result = paged_memory_new(&state->paged)) != 0 ||
	    (result = vmem_region_write(state->paged.region, 0, state->contents, PAGES * PAGE)) !=
		    0 ||
	    (result = reclaim_guest_new(&state->our_guest, state->paged.memory, PAGES * PAGE)) !=
		    0 ||
	    (result = reclaim_guest_new(&state->peer_guest, state->peer_memory, PAGES * PAGE)) != 0)
		return result;
	kvm_guest_set_order(state->our_guest, state->order, GUEST_PAGES);
	kvm_guest_set_order(state->peer_guest, state->order, GUEST_PAGES);
	return 0;
}

static void unmake(struct store_bench *state)
{
	if (state->our_guest)
		kvm_guest_free(state->our_guest);
	if (state->peer_guest)
		kvm_guest_free(state->peer_guest);
	paged_memory_free(&state->paged);
	machine_unmap(state->contents, PAGES * PAGE);
	machine_unmap(state->peer_memory, PAGES * PAGE);
	free(state->order);
}

/* CHUNK by CHUNK. @return 0, -EBUSY: not all of them went */
static int take_ours(struct store_bench *state,
		     int (*take)(vmem_region *, uint64_t, uint64_t, uint64_t *))
{
	uint64_t pages, all = 0;
	int result = 0;

	for (size_t at = 0; at < state->bytes && result == 0; at += CHUNK, all += pages) {
		pages = 0;
		result = take(state->paged.region, state->first + at, CHUNK, &pages);
	}
	return result == 0 && all != state->bytes / PAGE ? -EBUSY : result;
}

static int stage_ours(struct store_bench *state)
{
	return take_ours(state, vmem_region_stage);
}

static int store_ours(struct store_bench *state)
{
	return take_ours(state, vmem_region_store);
}

static int stage_and_store_ours(struct store_bench *state)
{
	int result = stage_ours(state);

	return result != 0 ? result : store_ours(state);
}

static int store_zram(struct store_bench *state)
{
	return zram_page_out(state->peer_memory + state->first, state->bytes);
}

static int store_bare(struct store_bench *state)
{
	char packed[LZ4_COMPRESSBOUND(4096)];

	for (size_t at = 0; at < state->bytes; at += PAGE)
		if (LZ4_compress_fast((const char *)state->contents + state->first + at, packed,
				      (int)PAGE, (int)sizeof(packed), 1) <= 0)
			return -EINVAL;
	return 0;
}

/* On RECLAIM_CPU, while the guest runs on the other. */
static int measure(struct store_bench *state, struct kvm_guest *guest,
		   int (*store)(struct store_bench *), double *values)
{
	int result = kvm_guest_start(guest, GUEST_CPU), guest_result;
	uint64_t start;

	if (result != 0)
		return result;
	start = machine_now_ns();
	result = store(state);
	values[0] = (double)state->bytes * 1e9 / (double)(machine_now_ns() - start);
	guest_result = kvm_guest_stop(guest);
	return result != 0 ? result : guest_result;
}

/* Written anew, so that no page has a copy in the store yet. */
static int fill_ours(struct store_bench *state)
{
	return vmem_region_write(state->paged.region, state->first, state->contents + state->first,
				 state->bytes);
}

static int check_ours(struct store_bench *state)
{
	uint8_t *const found = machine_map(state->bytes);
	int result =
		found ? vmem_region_read(state->paged.region, state->first, found, state->bytes)
		      : -ENOMEM;

	if (result == 0 && memcmp(found, state->contents + state->first, state->bytes) != 0)
		result = -EBADMSG;
	machine_unmap(found, state->bytes);
	return result;
}

static int measure_ours(void *context, double *values)
{
	struct store_bench *state = context;
	int result = fill_ours(state);

	if (result == 0)
		result = measure(state, state->our_guest, stage_and_store_ours, values);
	return result != 0 ? result : check_ours(state);
}

static int measure_ours_staged(void *context, double *values)
{
	struct store_bench *state = context;
	int result = fill_ours(state);

	if (result == 0)
		result = stage_ours(state);
	if (result == 0)
		result = measure(state, state->our_guest, store_ours, values);
	return result != 0 ? result : check_ours(state);
}

static int measure_zram(void *context, double *values)
{
	struct store_bench *state = context;
	uint8_t *const memory = state->peer_memory + state->first;
	const uint8_t *const contents = state->contents + state->first;
	size_t late = 0;
	int result;

	memcpy(memory, contents, state->bytes);
	result = measure(state, state->peer_guest, store_zram, values);
	if (result == 0)
		result = zram_page_out_rest(memory, state->bytes, &late);
	values[0] *= 1 - (double)late / (double)(state->bytes / PAGE);
	return result != 0 ? result : memcmp(memory, contents, state->bytes) == 0 ? 0 : -EBADMSG;
}

static int measure_bare(void *context, double *values)
{
	struct store_bench *state = context;

	return measure(state, state->peer_guest, store_bare, values);
}

int bench_reclaim_store(struct bench *bench, const struct real_pages *pages)
{
	static const struct bench_metric metrics[] = {
		{ "store_bytes_per_s", "B/s", "resident", 1 },
		{ "store_bytes_per_s", "B/s", "staged", 1 },
	};
	struct store_bench state = { .first = 0 };
	const struct bench_comparison comparisons[] = {
		{ .metrics = &metrics[0],
		  .metric_count = 1,
		  .context = &state,
		  .ours = { "libvmem", measure_ours, NULL },
		  .peer = { "zram-lz4", measure_zram, zram_missing() },
		  .limit = { "bare-lz4", measure_bare, NULL } },
		{ .metrics = &metrics[1],
		  .metric_count = 1,
		  .context = &state,
		  .ours = { "libvmem", measure_ours_staged, NULL },
		  .limit = { "bare-lz4", measure_bare, NULL } },
	};
	int result = make(&state, pages, bench_quick(bench));

	if (result == 0 && !zram_missing())
		result = zram_start();
	machine_pin(RECLAIM_CPU);
	for (int i = 0; i < 2 && result == 0; i++)
		result = bench_compare(bench, &comparisons[i]);
	machine_unpin();
	unmake(&state);
	return result;
}
