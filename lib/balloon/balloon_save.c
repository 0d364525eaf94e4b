/* SPDX-License-Identifier: BSD-2-Clause */
/* The state of the protocol as numbers (base/stream.h): a version; what it is of (features offered, RAM); what the
 * driver said; the target; the buffer for statistics; the pages in the balloon as distances and lengths of runs, from
 * the RAM's first page on, a length of 0 at the end of each RAM; a checksum. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"
#include "base/stream.h"

#define VERSION 1u

/* What is known of the features, as bits. */
enum { WRITTEN = 1, NEGOTIATED = 2, REFUSED = 4 };

static void put_state(struct vmemi_stream *s, const vmem_balloon *b)
{
	const uint64_t known = (b->written ? WRITTEN : 0u) | (b->negotiated ? NEGOTIATED : 0u) |
			       (b->refused ? REFUSED : 0u);
	const uint64_t numbers[] = {
		VERSION,       b->offered,    b->rams,
		b->features,   known,         b->status,
		b->actual,     b->poison,     b->hint_last,
		b->target,     b->rate,       b->told,
		b->stats_seen, b->stats_held, b->stats_held ? b->stats_token : 0,
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		vmemi_stream_put(s, numbers[i]);
	for (size_t i = 0; i < sizeof(b->actual_bytes); i++)
		vmemi_stream_put(s, b->actual_bytes[i]);
}

static void put_ram(struct vmemi_stream *s, const struct vmemi_balloon_ram *ram)
{
	uint64_t at = ram->first - ram->base, found, count;

	vmemi_stream_put(s, ram->first);
	vmemi_stream_put(s, ram->pages);
	vmemi_stream_put(s, ram->block_shift);
	while ((found = vmemi_balloon_owned_from(ram, at, &count)) != VMEMI_BALLOON_NO_FIRST) {
		vmemi_stream_put(s, count);
		vmemi_stream_put(s, found - at);
		at = found + count;
	}
	vmemi_stream_put(s, 0);
}

int vmem_balloon_save(const vmem_balloon *b,
		      int (*write)(void *context, const void *bytes, size_t count), void *context)
{
	struct vmemi_stream s;

	if (b->due || b->done_count || b->part.busy)
		return -VMEM_EBUSY;
	vmemi_stream_write(&s, write, context);
	put_state(&s, b);
	for (uint32_t i = 0; i < b->rams; i++)
		put_ram(&s, &b->ram[i]);
	vmemi_stream_put_end(&s);
	return s.err;
}

/* A number that may not be more than @most. */
static uint64_t get(struct vmemi_stream *s, uint64_t most)
{
	uint64_t number = vmemi_stream_get(s);

	if (!s->err && number > most)
		s->err = -VMEM_EBADMSG;
	return s->err ? 0 : number;
}

static void get_same(struct vmemi_stream *s, uint64_t expected)
{
	if (vmemi_stream_get(s) != expected && !s->err)
		s->err = -VMEM_EBADMSG;
}

static void get_state(struct vmemi_stream *s, vmem_balloon *b)
{
	uint64_t known;

	get_same(s, VERSION);
	get_same(s, b->offered);
	get_same(s, b->rams);
	b->features = vmemi_stream_get(s);
	known = get(s, WRITTEN | NEGOTIATED | REFUSED);
	b->written = known & WRITTEN;
	b->negotiated = known & NEGOTIATED;
	b->refused = known & REFUSED;
	b->status = (uint32_t)get(s, UINT32_MAX);
	b->actual = (uint32_t)get(s, UINT32_MAX);
	b->poison = (uint32_t)get(s, UINT32_MAX);
	b->hint_last = (uint32_t)get(s, UINT32_MAX);
	b->target = get(s, b->ram_pages);
	b->rate = vmemi_stream_get(s);
	b->told = get(s, b->ram_pages);
	b->stats_seen = get(s, 1);
	b->stats_held = get(s, 1);
	b->stats_token = vmemi_stream_get(s);
	for (size_t i = 0; i < sizeof(b->actual_bytes); i++)
		b->actual_bytes[i] = (uint8_t)get(s, UINT8_MAX);
	if (!s->err && ((b->negotiated && (b->features & ~b->offered)) ||
			(!b->negotiated && (b->status & VMEM_VIRTIO_DRIVER_OK)) || !b->hint_last))
		s->err = -VMEM_EBADMSG;
}

static void get_ram(struct vmemi_stream *s, vmem_balloon *b, struct vmemi_balloon_ram *ram)
{
	uint64_t at = 0, count, budget;

	get_same(s, ram->first);
	get_same(s, ram->pages);
	get_same(s, ram->block_shift);
	while ((count = get(s, ram->pages - at)) != 0) {
		at += get(s, ram->pages - at - count);
		if (s->err)
			return;
		budget = count;
		(void)vmemi_balloon_mark(b, VMEM_BALLOON_DISCARD, ram->first + at, count, &budget);
		at += count;
	}
}

/* As a device that nothing was done with, but for its RAM. */
static void renew(vmem_balloon *b)
{
	vmemi_balloon_empty(b);
	b->features = b->target = b->rate = b->told = 0;
	b->written = b->negotiated = b->refused = b->stats_seen = b->stats_held = false;
	b->status = b->actual = b->poison = 0;
	b->hint_last = VMEM_BALLOON_HINT_FIRST - 1;
	memset(b->actual_bytes, 0, sizeof(b->actual_bytes));
}

int vmem_balloon_restore(vmem_balloon *b, int (*read)(void *context, void *bytes, size_t count),
			 void *context)
{
	const struct vmem_balloon_counters counters = b->counters;
	struct vmem_balloon_range range;
	struct vmemi_stream s;

	if (b->status || b->negotiated || b->owned || b->target || b->tick_ns)
		return -VMEM_EBUSY;
	vmemi_stream_read(&s, read, context);
	get_state(&s, b);
	for (uint32_t i = 0; i < b->rams && !s.err; i++)
		get_ram(&s, b, &b->ram[i]);
	vmemi_stream_get_end(&s);
	b->counters = counters;
	if (s.err) {
		renew(b);
		return s.err;
	}
	while (vmemi_balloon_pop(b, &range, 1)) /* they were discarded before it was saved */
		;
	if (b->negotiated)
		(void)vmem_balloon_number_queues(b->map, b->offered, b->features, b->given,
						 b->numbers);
	b->reached = false;
	b->seen_pages = b->owned;
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_CONFIG); /* hinting has stopped */
	return 0;
}
