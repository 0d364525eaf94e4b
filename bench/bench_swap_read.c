/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-swap, reading pages back: random ones that are out, each with a token, from vmem_store_load() until
 * vmem_store_poll() tells that the page is there.
 * ours   a store with all pages, written out
 * peer   bare io_uring, 4 KiB from random places of the same part of the file, from submitting until it is seen
 * limit  1.2 times the peer, and what decoding takes from memory
 * The two take turns every PIECE pages. Who has nothing to do sleeps at once, on both sides. */
#include "bench_swap.h"
#include "machine.h"
#include "../examples/common/split_random.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECE SWAP_READ_PAGES
#define ROUND_PAGES 8192u
#define DECODED_PAGES 4096u
#define SLACK 1.2
#define WAIT_NS 1000000000u

/* What one side took, in this round. */
struct read_times {
	uint32_t *ns;
	size_t count;
	uint64_t cpu_ns;
};

struct read_case {
	struct swap_bench *swap;
	uint32_t depth;
	size_t round_pages;
	uint32_t *order; /* of pages that are not the same throughout */
	size_t count, at;
	uint64_t used_bytes; /* of the device */
	uint64_t seed;
	uint8_t *buffer; /* PIECE pages */
	uint32_t page[PIECE];
	uint64_t begun_ns[PIECE];
	struct read_times ours, bare;
	double bare_values[3], decode[2];
};

static void take_time(struct read_times *t, uint64_t begun_ns)
{
	const uint64_t ns = machine_now_ns() - begun_ns;

	t->ns[t->count++] = (uint32_t)(ns < UINT32_MAX ? ns : UINT32_MAX);
}

static void give(struct read_times *t, double *values)
{
	values[2] = (double)t->cpu_ns / 1e3 / (double)t->count;
	values[0] = bench_percentile(t->ns, t->count, 500);
	values[1] = bench_percentile(t->ns, t->count, 990);
}

/* --- Ours --- */

static int load(struct read_case *c, uint32_t i)
{
	struct swap_bench *s = c->swap;
	vmem_store_token token;

	c->page[i] = c->order[c->at++ % c->count];
	c->begun_ns[i] = machine_now_ns();
	return vmem_store_load(s->store.store, guest_store_vm(&s->store, c->page[i]), i,
			       s->refs[c->page[i]], c->buffer + i * PAGE, &token);
}

/* Begins load number @i, of a page that is out. */
static int begin_load(struct read_case *c, uint32_t i)
{
	int result = 0;

	/* Some are in segments that were not full. */
	for (size_t tries = 0; result == 0 && tries < c->count; tries++)
		result = load(c, i);
	return result == -VMEM_EINPROGRESS ? 0 : result == 0 ? -ENODATA : result;
}

static int end_loads(struct read_case *c, uint32_t *flying)
{
	vmem_store *store = c->swap->store.store;
	struct vmem_store_event events[BARE_RING_DEPTH];
	const uint32_t n = vmem_store_poll(store, events, BARE_RING_DEPTH);

	for (uint32_t i = 0; i < n; i++) {
		if (events[i].type != VMEM_STORE_LOADED)
			continue;
		if (events[i].result != 0)
			return events[i].result;
		take_time(&c->ours, c->begun_ns[events[i].key]);
		--*flying;
	}
	if (n == 0)
		vmem_store_wait(store, WAIT_NS);
	return 0;
}

static int are_right(const struct read_case *c)
{
	for (uint32_t i = 0; i < PIECE; i++)
		if (memcmp(c->buffer + i * PAGE, guest_page(&c->swap->guests, c->page[i]), PAGE))
			return 0;
	return 1;
}

static int read_ours(struct read_case *c)
{
	const uint64_t cpu_ns = swap_cpu_ns();
	uint32_t flying = 0;
	int result = 0;

	for (uint32_t begun = 0; (begun < PIECE || flying) && result == 0;) {
		for (; begun < PIECE && flying < c->depth && result == 0; flying++)
			result = begin_load(c, begun++);
		if (result == 0)
			result = end_loads(c, &flying);
	}
	c->ours.cpu_ns += swap_cpu_ns() - cpu_ns;
	return result != 0 ? result : are_right(c) ? 0 : -EBADMSG;
}

/* --- Bare reads --- */

static void begin_bare(struct read_case *c, uint32_t i)
{
	const uint64_t block = random_below(&c->seed, c->used_bytes / PAGE);

	c->begun_ns[i] = machine_now_ns();
	bare_ring_read(&c->swap->ring, c->swap->read_block + i * PAGE, PAGE, block * PAGE, i);
}

static int read_bare(struct read_case *c)
{
	const uint64_t cpu_ns = swap_cpu_ns();
	uint32_t flying = 0, number;
	int32_t got;
	int result = 0;

	for (uint32_t begun = 0; (begun < PIECE || flying) && result == 0;) {
		for (; begun < PIECE && flying < c->depth; flying++)
			begin_bare(c, begun++);
		result = bare_ring_enter(&c->swap->ring, 1);
		for (; bare_ring_pop(&c->swap->ring, &number, &got); flying--) {
			take_time(&c->bare, c->begun_ns[number]);
			if (got != (int32_t)PAGE)
				result = got < 0 ? got : -EIO;
		}
	}
	c->bare.cpu_ns += swap_cpu_ns() - cpu_ns;
	return result;
}

/* --- Rows --- */

static int measure_ours(void *context, double *values)
{
	struct read_case *c = context;
	int result = 0;

	c->ours.count = c->bare.count = 0;
	c->ours.cpu_ns = c->bare.cpu_ns = 0;
	while (c->ours.count < c->round_pages && result == 0) {
		result = read_ours(c);
		if (result == 0)
			result = read_bare(c);
	}
	if (result != 0)
		return result;
	give(&c->ours, values);
	give(&c->bare, c->bare_values);
	return 0;
}

static int measure_bare(void *context, double *values)
{
	const struct read_case *c = context;

	memcpy(values, c->bare_values, sizeof(c->bare_values));
	return 0;
}

static int measure_limit(void *context, double *values)
{
	const struct read_case *c = context;

	for (int i = 0; i < 2; i++)
		values[i] = SLACK * c->bare_values[i] + c->decode[i];
	return 0;
}

static int compare(struct read_case *c, const char *condition, uint32_t depth)
{
	const struct bench_metric metrics[] = {
		{ "read_p50_ns", "ns", condition, 0 },
		{ "read_p99_ns", "ns", condition, 0 },
		{ "read_cpu_us", "us", condition, 0 },
	};
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 3,
		.context = c,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "bare-read-4k", measure_bare, NULL },
		.limit = { "1.2 x bare + decode", measure_limit, NULL },
	};

	c->depth = depth;
	return bench_compare(c->swap->bench, &comparison);
}

/* Before they are written out. */
static int measure_decode(void *context, double *values)
{
	struct read_case *c = context;
	int result = 0;

	c->ours.count = 0;
	while (c->ours.count < DECODED_PAGES && result == 0) {
		result = load(c, 0);
		take_time(&c->ours, c->begun_ns[0]);
	}
	c->decode[0] = values[0] = bench_percentile(c->ours.ns, c->ours.count, 500);
	c->decode[1] = values[1] = bench_percentile(c->ours.ns, c->ours.count, 990);
	return result;
}

static int compare_decode(struct read_case *c, const char *condition)
{
	const struct bench_metric metrics[] = {
		{ "decode_p50_ns", "ns", condition, 0 },
		{ "decode_p99_ns", "ns", condition, 0 },
	};
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.context = c,
		.ours = { "libvmem", measure_decode, NULL },
	};

	return bench_compare(c->swap->bench, &comparison);
}

/* All pages, stored in a form and written out; the device's part that is used is known then. */
static int write_out(struct read_case *c)
{
	struct vmem_store_device_stats stats;
	struct swap_cost cost = { .bytes = 0 };
	int result = swap_write_out(c->swap, UINT32_MAX, &cost);

	if (result == 0)
		result = swap_device_stats(c->swap, &stats);
	if (result == 0)
		c->used_bytes = stats.taken_bytes;
	return result;
}

static int compare_as_saved(struct read_case *c)
{
	const struct swap_form form = { VMEM_STORE_AS_SAVED, VMEM_STORE_SHARE_VM, 0 };
	int result = swap_fill(c->swap, &form);

	if (result != 0 || (result = compare_decode(c, "lz4")) != 0 ||
	    (result = write_out(c)) != 0 || (result = compare(c, "lz4 depth=1", 1)) != 0)
		return result;
	return compare(c, "lz4 depth=8", BARE_RING_DEPTH);
}

/* With pages by zstd, and deltas, of which two objects are read. */
static int compare_recompressed(struct read_case *c)
{
	const struct swap_form form = { 0, VMEM_STORE_SHARE_VM, 1 };
	int result = swap_fill(c->swap, &form);

	if (result != 0 || (result = compare_decode(c, "recompressed")) != 0 ||
	    (result = write_out(c)) != 0)
		return result;
	return compare(c, "recompressed depth=1", 1);
}

static void choose_pages(struct read_case *c)
{
	const struct guest_pages *guests = &c->swap->guests;

	machine_shuffle(c->order, guests->total, 5);
	for (size_t i = 0; i < guests->total; i++)
		if (!swap_is_same(guest_page(guests, c->order[i])))
			c->order[c->count++] = c->order[i];
}

int swap_compare_read(struct swap_bench *s)
{
	struct read_case c = {
		.swap = s,
		.round_pages = bench_quick(s->bench) ? ROUND_PAGES / 4 : ROUND_PAGES,
		.order = malloc(s->guests.total * sizeof(*c.order)),
		.buffer = machine_map(PIECE * PAGE),
		.ours.ns = malloc((ROUND_PAGES + PIECE) * sizeof(*c.ours.ns)),
		.bare.ns = malloc((ROUND_PAGES + PIECE) * sizeof(*c.bare.ns)),
		.seed = 3,
	};
	int result = -ENOMEM;

	if (c.order && c.buffer && c.ours.ns && c.bare.ns) {
		choose_pages(&c);
		result = c.count ? compare_as_saved(&c) : -ENODATA;
		result = result == 0 ? compare_recompressed(&c) : result;
	}
	free(c.order);
	machine_unmap(c.buffer, PIECE * PAGE);
	free(c.ours.ns);
	free(c.bare.ns);
	return result;
}
