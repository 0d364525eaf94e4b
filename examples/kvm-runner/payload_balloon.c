/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. What it gives are pages of the workload, from the top of memory down, whoever owns them: their
 * owners leave them out until they are back (enum guest_holder), and then take them for empty. */
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_F_RANGES */
#include "payload_balloon.h"

#include <stddef.h>

#include <vmem/balloon_driver.h>

#include "payload_abuse.h"
#include "payload_ports.h"
#include "virtio_registers.h"
#include "common/split_ring_driver.h"

#define RING_SIZE VMEM_BALLOON_DRIVER_PIECES
#define ROUNDS 512u      /* most that are done at a time: a buffer each */
#define POLLS_A_TRY 16u  /* how often no pages could be given before it tries again */
#define LOOKS 65536u     /* pages that are looked at in search of some to give */
#define BAD_ROWS 60u     /* that a bad driver gives */
#define KEPT_PAGES 64u   /* of each vCPU: the idle workload has these */
#define FREED_PAGES 512u /* that are freed at a time */
#define FREE_SHARE 8u    /* no more than one in so many are free then */
#define REPORT_PAGES 16u /* least of a free range that is reported */
#define SHORT_PAGES 256u /* that are taken back when some are missed; Linux does so, too */

struct queue {
	bool ready;
	struct split_ring_driver ring;
	struct split_ring_slot slots[RING_SIZE];
	_Alignas(16) uint8_t descriptors[SPLIT_RING_DESCRIPTORS_BYTES(RING_SIZE)];
	_Alignas(4) uint8_t available[SPLIT_RING_AVAILABLE_BYTES(RING_SIZE)];
	_Alignas(4) uint8_t used[SPLIT_RING_USED_BYTES(RING_SIZE)];
};

struct payload_balloon {
	struct guest_params *params;
	struct guest_truth *truth;
	vmem_balloon_driver *driver;
	uint64_t first;  /* page that may be given */
	uint64_t cursor; /* the pages below it are looked at next */
	uint64_t next_freed;
	uint64_t next_free;  /* in search of what may be reported */
	uint32_t looks_left; /* of that search */
	uint64_t taken;
	uint64_t missed; /* guest_params.missed, as it was at the last look */
	uint32_t polls;
	uint32_t bad_rows;   /* that a bad driver has given */
	uint64_t used_bytes; /* of its memory */
	struct vmem_allocator allocator;
	struct queue queues[VMEM_BALLOON_QUEUES]; /* numbered as there (5.5.2) */
};

/* --- Memory --- */

static void *allocate(void *context, size_t bytes, size_t align)
{
	struct payload_balloon *b = context;
	uint64_t at = (b->used_bytes + align - 1) & ~(uint64_t)(align - 1);

	if (bytes > b->params->balloon_bytes || at > b->params->balloon_bytes - bytes)
		return NULL;
	b->used_bytes = at + bytes;
	return (uint8_t *)b + at;
}

static void free_nothing(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context;
	(void)memory;
	(void)bytes;
	(void)align;
}

static bool take_page(struct payload_balloon *b, uint64_t gfn, enum guest_holder holder)
{
	uint16_t nobody = GUEST_HELD_BY_NOBODY;

	if (!__atomic_compare_exchange_n(&b->truth[gfn].holder, &nobody, (uint16_t)holder, 0,
					 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return false;
	if (guest_is_free(&b->truth[gfn]))
		(void)__atomic_sub_fetch(&b->params->unused, 1, __ATOMIC_RELAXED);
	return true;
}

static bool is_bad(const struct payload_balloon *b)
{
	return b->params->driver == GUEST_DRIVER_BAD;
}

/* It is anybody's again. */
static void put_page(struct payload_balloon *b, uint64_t gfn, uint16_t content)
{
	b->truth[gfn].content = content;
	if (guest_is_free(&b->truth[gfn]))
		(void)__atomic_add_fetch(&b->params->unused, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&b->truth[gfn].holder, GUEST_HELD_BY_NOBODY, __ATOMIC_RELEASE);
}

/* Pages that hold the payload itself, pages that are not there, and one page again and again. */
static uint64_t take_badly(struct payload_balloon *b, uint64_t *ret_gfn)
{
	const uint64_t rows[] = { b->params->pages - 1, b->params->pages - 1,
				  GUEST_PAYLOAD_GPA >> GUEST_PAGE_SHIFT, b->params->pages,
				  UINT32_MAX - 4 };

	if (b->bad_rows == 0 && !take_page(b, b->params->pages - 1, GUEST_HELD_BY_BALLOON))
		return 0;
	*ret_gfn = rows[b->bad_rows++ % (sizeof(rows) / sizeof(*rows))];
	return *ret_gfn == b->params->pages - 1 ? 1 : 4;
}

static uint64_t take(void *context, uint64_t most, uint64_t *ret_gfn)
{
	struct payload_balloon *b = context;
	uint64_t gfn = b->cursor, got = 0;

	if (is_bad(b) && b->bad_rows < BAD_ROWS && most >= 4)
		return take_badly(b, ret_gfn);
	if (gfn <= b->first)
		gfn = b->params->pages; /* begins anew */
	for (uint32_t looks = 0; looks < LOOKS && gfn > b->first && got < most; looks++) {
		if (take_page(b, gfn - 1, GUEST_HELD_BY_BALLOON))
			*ret_gfn = gfn - 1, got++;
		else if (got)
			break;
		gfn--;
	}
	b->cursor = gfn;
	b->taken += got;
	return got;
}

/* What a bad driver gets back that it never had. */
static bool is_not_ours(const struct payload_balloon *b, uint64_t gfn)
{
	return is_bad(b) && (gfn < b->first || gfn >= b->params->pages ||
			     b->truth[gfn].holder != GUEST_HELD_BY_BALLOON);
}

static void give(void *context, uint64_t gfn, uint64_t pages)
{
	struct payload_balloon *b = context;

	if (is_not_ours(b, gfn))
		return;
	for (uint64_t i = gfn; i < gfn + pages; i++)
		put_page(b, i, GUEST_CONTENT_ANYTHING);
	b->taken -= pages;
}

/* --- Free memory --- */

/* A program ends, so to say: pages that anybody may have had are free. */
static void free_some(struct payload_balloon *b)
{
	if (__atomic_load_n(&b->params->unused, __ATOMIC_RELAXED) >= b->params->pages / FREE_SHARE)
		return;
	for (uint32_t i = 0; i < FREED_PAGES; i++) {
		uint64_t gfn = b->next_freed++;

		if (b->next_freed >= b->params->pages)
			b->next_freed = b->first;
		if (!guest_is_free(&b->truth[gfn]) && take_page(b, gfn, GUEST_HELD_AS_FREE))
			put_page(b, gfn, GUEST_CONTENT_ANYTHING);
	}
}

static void begin_free(void *context)
{
	struct payload_balloon *b = context;
	uint64_t pages = b->params->pages - b->first;

	b->looks_left = pages < LOOKS ? (uint32_t)pages : LOOKS;
}

/* A page that is free, and not reported since it is. */
static bool take_free(struct payload_balloon *b, uint64_t gfn)
{
	const uint16_t *content = &b->truth[gfn].content;

	/* Its owner does without it meanwhile: first a look. */
	if (__atomic_load_n(content, __ATOMIC_RELAXED) != GUEST_CONTENT_ANYTHING ||
	    !take_page(b, gfn, GUEST_HELD_AS_FREE))
		return false;
	if (*content == GUEST_CONTENT_ANYTHING)
		return true;
	put_page(b, gfn, b->truth[gfn].content);
	return false;
}

static void put_range(struct payload_balloon *b, uint64_t first, uint64_t pages, uint16_t content)
{
	for (uint64_t gfn = first; gfn < first + pages; gfn++)
		put_page(b, gfn, content);
}

/* The next row; 0: there is none before the end of memory, or of the search. */
static uint64_t take_free_row(struct payload_balloon *b, uint64_t *ret_first)
{
	uint64_t pages = 0;

	for (; b->looks_left; b->looks_left--) {
		if (b->next_free >= b->params->pages) {
			b->next_free = b->first;
			if (pages)
				break;
		}
		if (take_free(b, b->next_free))
			*ret_first = b->next_free - pages++;
		else if (pages)
			break;
		b->next_free++;
	}
	return pages;
}

static int isolate(void *context, struct vmem_balloon_piece *piece)
{
	struct payload_balloon *b = context;
	uint64_t first = 0, pages;

	while ((pages = take_free_row(b, &first)) != 0) {
		if (pages >= REPORT_PAGES) {
			*piece = (struct vmem_balloon_piece){ first * GUEST_PAGE_SIZE,
							      pages * GUEST_PAGE_SIZE };
			return 1;
		}
		put_range(b, first, pages, GUEST_CONTENT_ANYTHING);
	}
	return 0;
}

static void release(void *context, const struct vmem_balloon_piece *piece)
{
	put_range(context, piece->gpa >> GUEST_PAGE_SHIFT, piece->bytes >> GUEST_PAGE_SHIFT,
		  GUEST_CONTENT_REPORTED);
}

/* For hints, which it does not take. */
static void release_all(void *context)
{
	(void)context;
}

static uint32_t statistics(void *context, struct vmem_balloon_stat *stats, uint32_t most)
{
	const struct payload_balloon *b = context;
	uint64_t unused = __atomic_load_n(&b->params->unused, __ATOMIC_RELAXED);

	if (most < 3)
		return 0;
	stats[0] = (struct vmem_balloon_stat){ VMEM_BALLOON_FREE, unused * GUEST_PAGE_SIZE };
	stats[1] = (struct vmem_balloon_stat){ VMEM_BALLOON_TOTAL,
					       b->params->pages * GUEST_PAGE_SIZE };
	stats[2] = (struct vmem_balloon_stat){
		VMEM_BALLOON_AVAILABLE, (b->params->pages - b->first - b->taken) * GUEST_PAGE_SIZE
	};
	return 3;
}

/* --- The device --- */

static uint32_t get(uint32_t offset)
{
	return guest_in(GUEST_PORT_VIRTIO + offset);
}

static void set(uint32_t offset, uint32_t value)
{
	guest_out(GUEST_PORT_VIRTIO + offset, value);
}

static uint64_t gpa_of(const struct payload_balloon *b, const void *memory)
{
	return (uint64_t)(uintptr_t)memory - b->params->base;
}

static void set_address(uint32_t offset, uint64_t gpa)
{
	set(offset, (uint32_t)gpa);
	set(offset + 4, (uint32_t)(gpa >> 32));
}

static bool start_queue(struct payload_balloon *b, uint32_t number)
{
	struct queue *q = &b->queues[number];
	const struct split_ring_parts parts = { .descriptors = q->descriptors,
						.available = q->available,
						.used = q->used,
						.size = RING_SIZE };

	set(VIRTIO_QUEUE_SELECT, number);
	if (get(VIRTIO_QUEUE_SIZE_MOST) < RING_SIZE ||
	    split_ring_driver_start(&q->ring, &parts, q->slots, 0) != 0)
		return false;
	set(VIRTIO_QUEUE_SIZE, RING_SIZE);
	set_address(VIRTIO_QUEUE_DESCRIPTORS, gpa_of(b, q->descriptors));
	set_address(VIRTIO_QUEUE_AVAILABLE, gpa_of(b, q->available));
	set_address(VIRTIO_QUEUE_USED, gpa_of(b, q->used));
	set(VIRTIO_QUEUE_READY, 1);
	q->ready = get(VIRTIO_QUEUE_READY) == 1;
	return q->ready;
}

static uint64_t features_offered(void)
{
	uint64_t offered;

	set(VIRTIO_DEVICE_FEATURES_SELECT, 1);
	offered = (uint64_t)get(VIRTIO_DEVICE_FEATURES) << 32;
	set(VIRTIO_DEVICE_FEATURES_SELECT, 0);
	return offered | get(VIRTIO_DEVICE_FEATURES);
}

static void accept_features(uint64_t features)
{
	for (uint32_t half = 0; half < 2; half++) {
		set(VIRTIO_DRIVER_FEATURES_SELECT, half);
		set(VIRTIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * half));
	}
}

static void read_config(struct payload_balloon *b)
{
	uint32_t config[2], generation;

	do {
		generation = get(VIRTIO_GENERATION);
		config[0] = get(VIRTIO_CONFIG + VMEM_BALLOON_CONFIG_TARGET);
		config[1] = get(VIRTIO_CONFIG + VMEM_BALLOON_CONFIG_ACTUAL);
	} while (get(VIRTIO_GENERATION) != generation);
	vmem_balloon_driver_config(b->driver, config, sizeof(config));
}

/* Two are always there, the others with their features. */
static bool start_queues(struct payload_balloon *b, uint64_t features)
{
	return start_queue(b, VMEM_BALLOON_INFLATE) && start_queue(b, VMEM_BALLOON_DEFLATE) &&
	       (!(features & VMEM_BALLOON_F_STATS_VQ) || start_queue(b, VMEM_BALLOON_STATS)) &&
	       (!(features & VMEM_BALLOON_F_PAGE_REPORTING) || start_queue(b, VMEM_BALLOON_REPORT));
}

/* 3.1.1 */
static bool start_device(struct payload_balloon *b)
{
	uint32_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
	uint64_t features;

	if (get(VIRTIO_MAGIC) != VIRTIO_MAGIC_VALUE || get(VIRTIO_VERSION) != 2 ||
	    get(VIRTIO_DEVICE) != VIRTIO_DEVICE_BALLOON)
		return false;
	set(VIRTIO_STATUS, 0);
	set(VIRTIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE);
	set(VIRTIO_STATUS, status);
	features = vmem_balloon_driver_negotiate(b->driver, features_offered());
	accept_features(features);
	status |= VMEM_VIRTIO_FEATURES_OK;
	set(VIRTIO_STATUS, status);
	if (!(get(VIRTIO_STATUS) & VMEM_VIRTIO_FEATURES_OK))
		return false;
	if (!start_queues(b, features))
		return false;
	set(VIRTIO_STATUS, status | VMEM_VIRTIO_DRIVER_OK);
	vmem_balloon_driver_start(b->driver);
	read_config(b);
	return true;
}

struct payload_balloon *payload_balloon_start(struct guest_params *params)
{
	struct payload_balloon *b =
		(struct payload_balloon *)(uintptr_t)(params->base + params->balloon_gpa);
	const struct vmem_balloon_guest_memory memory = { .size = sizeof(memory),
							  .context = b,
							  .take = take,
							  .give = give,
							  .stats = statistics,
							  .isolate = isolate,
							  .begin_free = begin_free,
							  .release = release,
							  .release_all = release_all };
	struct vmem_balloon_driver_opts opts = {
		.size = sizeof(opts),
		.allocator = &b->allocator,
		.memory = &memory,
		.features = VMEM_BALLOON_F_MUST_TELL_HOST | VMEM_BALLOON_F_STATS_VQ |
			    VMEM_BALLOON_F_DEFLATE_ON_OOM | VMEM_BALLOON_F_PAGE_REPORTING |
			    VMEM_BALLOON_F_RANGES | VMEM_VIRTIO_F_VERSION_1,
		.max_spans = PAYLOAD_BALLOON_SPANS(params->pages),
		.entries = PAYLOAD_BALLOON_ENTRIES,
	};

	if (params->driver == GUEST_DRIVER_BAD && !payload_abuse(params))
		return NULL;
	if (params->driver == GUEST_DRIVER_FLOOD) {
		payload_flood(params);
		return NULL;
	}
	*b = (struct payload_balloon){ .params = params };
	b->truth = (struct guest_truth *)(uintptr_t)(params->base + params->truth_gpa);
	b->first = params->vcpu[0].first + (uint64_t)KEPT_PAGES * params->vcpus;
	b->next_freed = b->next_free = b->first;
	b->used_bytes = sizeof(*b);
	b->allocator = (struct vmem_allocator){ sizeof(b->allocator), b, allocate, free_nothing };
	if (b->first >= params->pages || vmem_balloon_driver_new(&b->driver, &opts) != 0)
		return NULL;
	return start_device(b) ? b : NULL;
}

/* --- What happens --- */

static void collect(struct payload_balloon *b)
{
	uint32_t token, written;

	for (uint32_t i = 0; i < VMEM_BALLOON_QUEUES; i++)
		while (b->queues[i].ready &&
		       split_ring_driver_take(&b->queues[i].ring, &token, &written) == 1)
			(void)vmem_balloon_driver_returned(b->driver, (enum vmem_balloon_queue)i);
}

static void send(struct payload_balloon *b, const struct vmem_balloon_out *out)
{
	struct vmem_balloon_piece piece = { gpa_of(b, out->bytes), out->count };
	const struct vmem_balloon_piece *pieces = out->piece_count ? out->pieces : &piece;

	if (out->queue == VMEM_BALLOON_NO_QUEUE) {
		set(VIRTIO_CONFIG + out->offset, out->value);
		return;
	}
	if (split_ring_driver_add(&b->queues[out->queue].ring, pieces, !out->piece_count,
				  out->piece_count, 0) == 0 &&
	    split_ring_driver_must_kick(&b->queues[out->queue].ring))
		set(VIRTIO_QUEUE_NOTIFY, out->queue);
}

/* When pages are missed the guest takes some back, if that was agreed on, and gives none again at once. */
static void try_again(struct payload_balloon *b)
{
	uint64_t missed = __atomic_load_n(&b->params->missed, __ATOMIC_RELAXED);

	if (missed != b->missed && vmem_balloon_driver_oom(b->driver, SHORT_PAGES))
		b->polls = 0;
	b->missed = missed;
	if (++b->polls % POLLS_A_TRY != 0)
		return;
	if (b->params->frees)
		free_some(b);
	vmem_balloon_driver_retry(b->driver);
}

void payload_balloon_poll(struct payload_balloon *b)
{
	struct vmem_balloon_out out = { .size = sizeof(out) };
	uint32_t why = get(VIRTIO_INTERRUPT_STATUS);

	if (why)
		set(VIRTIO_INTERRUPT_ACK, why);
	if (why & VIRTIO_INTERRUPT_CONFIG)
		read_config(b);
	try_again(b);
	collect(b);
	for (uint32_t i = 0; i < ROUNDS && vmem_balloon_driver_next(b->driver, &out); i++) {
		send(b, &out);
		collect(b);
	}
}
