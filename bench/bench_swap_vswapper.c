/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-swap: two of the things that VSwapper (Amit, Tsafrir, Schuster: ASPLOS 2014) found wrong with the swapping of
 * guests, where they can be measured.
 * device_reads_per_page  decayed sequentiality: pages leave in some order, are written out, and are read back in order
 *                        of their addresses, one at a time; a load that is no delta is one read
 * ours   whatever is offered with a page (VMEM_STORE_OFFER) is loaded at once; or, as a case, nothing of it
 * silent_writes_share    silent swap writes: an image is read once, in order, through memory of 5/16 of its size
 *                        and a budget of a quarter; pages that were saved although the image has them, of all
 * ours   the VMM maps what is read (vmem_region_give_to_source), or reads it and says so (vmem_region_same_as_source)
 * peer   the same VMM, which copies it into its guest and says nothing */
#include "bench_swap.h"
#include "machine.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/source.h>

#define READ_PAGES 16384u /* at most */
#define EVENTS 64u
#define WAIT_NS 1000000000u
#define IMAGE_PAGES 32768u /* at most */
#define REQUEST_PAGES 64u
#define BUDGET_LEAST ((uint64_t)24 << 20) /* for less the library's own memory is too much */

/* --- Reads a page --- */

struct order_case {
	struct swap_bench *swap;
	uint32_t *page;  /* those that are not the same throughout */
	uint32_t *order; /* of them, as they leave */
	size_t count;
	uint8_t *have; /* by number of the page */
	uint8_t *buffer;
	int mixed, take;
};

/* Those that are there already are not loaded again. */
static int load_now(struct order_case *c, uint64_t number)
{
	struct swap_bench *s = c->swap;
	vmem_store *store = s->store.store;

	if (c->have[number])
		return 0;
	if (vmem_store_load(store, guest_store_vm(&s->store, number), number, s->refs[number],
			    c->buffer, NULL) != 0)
		return 0; /* not in memory any more: an offer is a hint */
	c->have[number] = 1;
	return memcmp(c->buffer, guest_page(&s->guests, number), PAGE) ? -EBADMSG : 0;
}

static int end_load(struct order_case *c)
{
	struct vmem_store_event events[EVENTS];
	vmem_store *store = c->swap->store.store;
	uint64_t offered[EVENTS];
	uint32_t n, offers = 0;
	int result = 0, over = 0;

	while (!over && result == 0) {
		n = vmem_store_poll(store, events, EVENTS);
		for (uint32_t i = 0; i < n; i++) {
			over |= events[i].type == VMEM_STORE_LOADED;
			if (events[i].type == VMEM_STORE_LOADED)
				result = events[i].result;
			else if (events[i].type == VMEM_STORE_OFFER && offers < EVENTS)
				offered[offers++] = events[i].key;
		}
		if (n == 0)
			vmem_store_wait(store, WAIT_NS);
	}
	for (uint32_t i = 0; c->take && i < offers && result == 0; i++)
		result = load_now(c, offered[i]);
	return result;
}

static int load(struct order_case *c, uint32_t number)
{
	struct swap_bench *s = c->swap;
	vmem_store_token token;
	uint8_t *page = c->buffer + PAGE; /* what is offered is put beside */
	int result = vmem_store_load(s->store.store, guest_store_vm(&s->store, number), number,
				     s->refs[number], page, &token);

	c->have[number] = 1;
	if (result == -VMEM_EINPROGRESS)
		result = end_load(c);
	if (result == 0 && memcmp(page, guest_page(&s->guests, number), PAGE) != 0)
		result = -EBADMSG;
	return result;
}

static void choose_pages(struct order_case *c)
{
	const struct guest_pages *guests = &c->swap->guests;

	c->count = 0;
	for (size_t i = 0; i < guests->total && c->count < READ_PAGES; i++) {
		c->order[c->count] = (uint32_t)c->count;
		if (!swap_is_same(guest_page(guests, i)))
			c->page[c->count++] = (uint32_t)i;
	}
	if (c->mixed)
		machine_shuffle(c->order, c->count, 1);
	memset(c->have, 0, guests->total);
}

static int save_all(struct order_case *c)
{
	struct swap_bench *s = c->swap;
	int result = 0;

	for (size_t i = 0; i < c->count && result == 0; i++) {
		const uint32_t number = c->page[c->order[i]];

		result = vmem_store_save(s->store.store, guest_store_vm(&s->store, number), number,
					 guest_page(&s->guests, number), &s->refs[number]);
	}
	return result;
}

static int measure_reads(void *context, double *values)
{
	struct order_case *c = context;
	struct swap_bench *s = c->swap;
	struct vmem_store_out_stats before = { .size = sizeof(before) }, after = before;
	struct swap_cost cost = { .bytes = 0 };
	int result;

	swap_empty(s);
	result = guest_store_new(&s->store, &s->guests, s->refs, VMEM_STORE_AS_SAVED,
				 VMEM_STORE_SHARE_VM);
	if (result == 0)
		result = swap_add_device(s); /* before the saves: what is stored then has its key */
	choose_pages(c);
	if (result == 0)
		result = save_all(c);
	if (result == 0)
		result = swap_write_out(s, UINT32_MAX, &cost);
	if (result == 0)
		result = vmem_store_get_out_stats(s->store.store, &before);
	for (size_t i = 0; i < c->count && result == 0; i++)
		if (!c->have[c->page[i]])
			result = load(c, c->page[i]);
	if (result == 0)
		result = vmem_store_get_out_stats(s->store.store, &after);
	if (result == 0)
		values[0] = (double)(after.loads - before.loads) / (double)c->count;
	return result;
}

static int compare_reads(struct swap_bench *s)
{
	static const struct {
		const char *condition;
		int mixed, take;
	} rows[] = {
		{ "left=in-order", 0, 1 },
		{ "left=mixed", 1, 1 },
		{ "left=mixed offers=refused", 1, 0 },
	};
	struct order_case c = { .swap = s };
	int result = 0;

	c.page = malloc(READ_PAGES * sizeof(*c.page));
	c.order = malloc(READ_PAGES * sizeof(*c.order));
	c.have = malloc(s->guests.total);
	c.buffer = machine_map(2 * PAGE);
	if (!c.page || !c.order || !c.have || !c.buffer)
		result = -ENOMEM;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && result == 0; i++) {
		const struct bench_metric metric = { "device_reads_per_page", "", rows[i].condition,
						     0 };
		const struct bench_comparison comparison = {
			.metrics = &metric,
			.metric_count = 1,
			.rounds = 1, /* it does not depend on the time */
			.context = &c,
			.ours = { "libvmem", measure_reads, NULL },
			.peer = { "kernel-swap", NULL,
				  "the reads that its readahead makes of a disk are not counted apart" },
		};

		c.mixed = rows[i].mixed;
		c.take = rows[i].take;
		result = bench_compare(s->bench, &comparison);
	}
	swap_empty(s);
	if (c.buffer)
		machine_unmap(c.buffer, 2 * PAGE);
	free(c.have);
	free(c.order);
	free(c.page);
	return result;
}

/* --- What a disk has too --- */

enum read_way { MAPPED, SAID, SILENT };

struct stream_case {
	struct swap_bench *swap;
	const uint8_t **block; /* of the image: pages that are not the same throughout */
	size_t blocks, pages;  /* pages: of the guest */
	const uint8_t **shown; /* by page of the guest */
	vmem_manager *manager;
	vmem_region *region;
	enum read_way way; /* of ours */
};

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	const struct stream_case *c = context;

	memcpy(buffer, c->shown[gpa / PAGE], PAGE);
	return 0;
}

static int start(struct stream_case *c)
{
	const struct vmem_manager_opts opts = {
		.size = sizeof(opts),
		.budget_bytes = c->blocks * PAGE / 4,
	};
	const struct vmem_region_opts region = {
		.size = sizeof(region),
		.flags = VMEM_REGION_SOURCE_STAYS,
		.bytes = c->pages * PAGE,
		.context = c,
		.read_source = read_source,
	};
	int result = vmem_manager_new(&c->manager, &opts);

	if (result == 0)
		result = vmem_region_alloc(&c->region, c->manager, &region);
	if (result == 0)
		result = vmem_manager_thread_start(c->manager);
	return result;
}

static void stop(struct stream_case *c)
{
	if (c->manager)
		vmem_manager_thread_stop(c->manager);
	if (c->region)
		vmem_region_detach(c->region, VMEM_DETACH_DISCARD);
	vmem_manager_free(c->manager);
	c->region = NULL;
	c->manager = NULL;
}

/* The VMM's part of a read of the disk. */
static int read_disk(struct stream_case *c, enum read_way way, size_t page, size_t block, size_t n)
{
	uint8_t *to = (uint8_t *)vmem_region_hva(c->region) + page * PAGE;
	int result = 0;

	if (way == SAID)
		result = vmem_region_will_overwrite(c->region, page * PAGE, n * PAGE, NULL);
	for (size_t i = 0; i < n; i++) {
		if (way == MAPPED)
			c->shown[page + i] = c->block[block + i];
		else
			memcpy(to + i * PAGE, c->block[block + i], PAGE);
	}
	if (way == MAPPED)
		return vmem_region_give_to_source(c->region, page * PAGE, n * PAGE);
	for (size_t i = 0; i < n; i++)
		c->shown[page + i] = c->block[block + i];
	return result == 0 && way == SAID
		       ? vmem_region_same_as_source(c->region, page * PAGE, n * PAGE, NULL)
		       : result;
}

/* The guest's: it reads all of them. */
static int are_there(const struct stream_case *c, size_t page, size_t n)
{
	const uint8_t *at = (const uint8_t *)vmem_region_hva(c->region) + page * PAGE;

	for (size_t i = 0; i < n; i++)
		if (memcmp(at + i * PAGE, c->shown[page + i], PAGE) != 0)
			return 0;
	return 1;
}

static int stream(struct stream_case *c, enum read_way way, double *values)
{
	struct vmem_region_metrics m = { .size = sizeof(m) };
	int result = start(c);

	for (size_t block = 0; block < c->blocks && result == 0; block += REQUEST_PAGES) {
		const size_t page = block % c->pages;

		result = read_disk(c, way, page, block, REQUEST_PAGES);
		if (result == 0 && !are_there(c, page, REQUEST_PAGES))
			result = -EBADMSG;
	}
	if (result == 0)
		result = vmem_region_get_metrics(c->region, &m);
	stop(c);
	values[0] = (double)m.saved / (double)c->blocks;
	return result;
}

static int measure_told(void *context, double *values)
{
	struct stream_case *c = context;

	return stream(c, c->way, values);
}

static int measure_silent(void *context, double *values)
{
	return stream(context, SILENT, values);
}

static void choose_blocks(struct stream_case *c)
{
	const struct guest_pages *guests = &c->swap->guests;

	for (size_t i = 0; i < guests->total && c->blocks < IMAGE_PAGES; i++)
		if (!swap_is_same(guest_page(guests, i)))
			c->block[c->blocks++] = guest_page(guests, i);
	c->blocks -= c->blocks % (16 * REQUEST_PAGES);
	c->pages = c->blocks / 16 * 5;
}

static int compare_stream(struct swap_bench *s)
{
	static const char *const conditions[] = { [MAPPED] = "way=mapped", [SAID] = "way=read" };
	struct stream_case c = { .swap = s };
	int result = 0;

	c.block = calloc(IMAGE_PAGES, sizeof(*c.block));
	c.shown = calloc(IMAGE_PAGES, sizeof(*c.shown));
	if (!c.block || !c.shown)
		result = -ENOMEM;
	else
		choose_blocks(&c);
	if (result == 0 && c.blocks * PAGE / 4 < BUDGET_LEAST)
		bench_note(s->bench, "no silent_writes_share: the guests have too few pages");
	for (c.way = MAPPED; c.way <= SAID && result == 0 && c.blocks * PAGE / 4 >= BUDGET_LEAST;
	     c.way++) {
		const struct bench_metric metric = { "silent_writes_share", "", conditions[c.way],
						     0 };
		const struct bench_comparison comparison = {
			.metrics = &metric,
			.metric_count = 1,
			.rounds = 1, /* it hardly depends on the time */
			.context = &c,
			.ours = { "libvmem", measure_told, NULL },
			.peer = { "nothing-said", measure_silent, NULL },
		};

		result = bench_compare(s->bench, &comparison);
	}
	free(c.shown);
	free(c.block);
	return result;
}

int swap_compare_vswapper(struct swap_bench *s)
{
	int result = compare_reads(s);

	return result == 0 ? compare_stream(s) : result;
}
