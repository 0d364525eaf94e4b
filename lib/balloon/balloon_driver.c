/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon's driver. Pages that it holds are rows ("spans"), the last given the first to come back. At most one
 * buffer a queue is on its way, and one of pages, in or out: what is in it stands in the driver until it is returned.
 * Pages on their way out are the guest's again when the device has returned the buffer, or at once where it need not be
 * told first (VIRTIO 1.3, 5.5.6). `actual` is written when nothing more is to be moved, and before that when it is
 * BEHIND_MOST pages behind: 5.5.6.1 has it once after many buffers, and each write is an exit from a guest. Guard: the
 * caller, one call at a time. */
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_F_RANGES */
#include <stdbool.h>
#include <vmem/balloon_driver.h>
#include "base/alloc.h"
#include "base/mem.h"
#include "base/opts.h"

#define STATS 32u
#define BEHIND_MOST 4096u

struct span {
	uint32_t first, pages;
};

/* Page numbers on their way, in or out. */
struct carried {
	struct span *spans;
	uint64_t *bytes;     /* as the device reads them */
	uint32_t most;       /* spans, and entries of `bytes` */
	uint32_t span_count; /* those that are used */
	uint32_t entries;
	uint64_t pages;
};

enum hint_stage { HINT_IDLE, HINT_BEGIN, HINT_PAGES, HINT_END };

struct vmem_balloon_driver {
	struct vmem_allocator allocator;
	struct vmem_balloon_guest_memory memory;
	uint64_t wanted, features, max_spans;
	uint32_t poison;
	bool started;

	struct span *held;
	uint64_t held_count; /* spans */
	uint64_t pages;      /* given, those on their way included */
	uint64_t target, oom, starved;
	bool waits;                     /* there were no pages; until the next try */
	uint32_t actual;                /* as last written */
	bool away[VMEM_BALLOON_QUEUES]; /* a buffer is on its way */
	struct carried moving;

	bool stats_due;
	uint8_t stats[STATS * VMEM_BALLOON_STAT_BYTES];

	enum hint_stage hint_stage;
	uint32_t hint_id, hint_sent; /* the device's command; bytes of a buffer */
	bool hint_isolated;          /* some ranges are */
	struct vmem_balloon_piece hint;

	bool report_due;
	uint32_t report_count;
	struct vmem_balloon_piece report[VMEM_BALLOON_DRIVER_PIECES];
};

/* --- Pages --- */

static bool has(const vmem_balloon_driver *d, uint64_t feature)
{
	return d->features & feature;
}

static bool tells_first(const vmem_balloon_driver *d)
{
	return has(d, VMEM_BALLOON_F_MUST_TELL_HOST);
}

/* How many pages of a row still fit into the buffer. */
static uint64_t room(const vmem_balloon_driver *d)
{
	const struct carried *c = &d->moving;

	if (c->span_count == c->most || c->entries == c->most)
		return 0;
	return has(d, VMEM_BALLOON_F_RANGES) ? VMEM_BALLOON_RANGE_PAGES : c->most - c->entries;
}

static void carry(vmem_balloon_driver *d, uint32_t first, uint32_t pages)
{
	struct carried *c = &d->moving;

	c->spans[c->span_count++] = (struct span){ first, pages };
	c->pages += pages;
	if (has(d, VMEM_BALLOON_F_RANGES)) {
		c->bytes[c->entries++] = VMEM_BALLOON_RANGE(first, pages);
		return;
	}
	for (uint32_t i = 0; i < pages; i++, c->entries++) {
		uint32_t gfn = first + i;

		memcpy((uint8_t *)c->bytes + c->entries * sizeof(gfn), &gfn, sizeof(gfn));
	}
}

static void carry_nothing(vmem_balloon_driver *d)
{
	d->moving.span_count = d->moving.entries = 0;
	d->moving.pages = 0;
}

static void give_back(const vmem_balloon_driver *d)
{
	const struct carried *c = &d->moving;

	for (uint32_t i = 0; i < c->span_count; i++)
		d->memory.give(d->memory.context, c->spans[i].first, c->spans[i].pages);
}

/* Pages that the guest can spare, up to the target. false: there are none. */
static bool fill_in(vmem_balloon_driver *d)
{
	uint64_t most, got, gfn;

	carry_nothing(d);
	while (d->pages < d->target && d->held_count + d->moving.span_count < d->max_spans &&
	       (most = room(d)) != 0) {
		most = most < d->target - d->pages ? most : d->target - d->pages;
		got = d->memory.take(d->memory.context, most, &gfn);
		if (!got || got > most)
			break;
		if (gfn > UINT32_MAX ||
		    got > (UINT64_C(1) << 32) - gfn) { /* has no number for the device */
			d->memory.give(d->memory.context, gfn, got);
			break;
		}
		carry(d, (uint32_t)gfn, (uint32_t)got);
		d->pages += got;
	}
	d->waits = d->pages < d->target && room(d);
	d->starved += !d->moving.span_count;
	return d->moving.span_count;
}

/* Pages that go back, down to the target, or beyond it when memory is short. false: there are none. */
static bool fill_out(vmem_balloon_driver *d)
{
	uint64_t left = d->pages > d->target ? d->pages - d->target : 0, most;

	if (left < d->oom)
		left = d->oom;
	carry_nothing(d);
	while (left && d->held_count && (most = room(d)) != 0) {
		struct span *span = &d->held[d->held_count - 1];
		uint32_t pages = span->pages;

		most = most < left ? most : left;
		pages = pages < most ? pages : (uint32_t)most;
		span->pages -= pages;
		carry(d, span->first + span->pages, pages);
		d->held_count -= !span->pages;
		left -= pages;
	}
	d->oom -= d->oom < d->moving.pages ? d->oom : d->moving.pages;
	if (!d->held_count)
		d->oom = 0;
	if (!tells_first(d))
		give_back(d);
	return d->moving.span_count;
}

/* --- What goes out --- */

static int send(vmem_balloon_driver *d, struct vmem_balloon_out *out, uint32_t queue,
		const void *bytes, uint32_t count)
{
	d->away[queue] = true;
	*out = (struct vmem_balloon_out){ .queue = queue, .bytes = bytes, .count = count };
	return 1;
}

static int send_pages(vmem_balloon_driver *d, struct vmem_balloon_out *out, uint32_t queue)
{
	uint32_t entry_bytes = has(d, VMEM_BALLOON_F_RANGES) ? sizeof(uint64_t) : sizeof(uint32_t);

	return send(d, out, queue, d->moving.bytes, d->moving.entries * entry_bytes);
}

/* How many pages the device does not know of by `actual`. */
static uint64_t behind(const vmem_balloon_driver *d)
{
	return d->pages > d->actual ? d->pages - d->actual : d->actual - d->pages;
}

static int tell_actual(vmem_balloon_driver *d, struct vmem_balloon_out *out)
{
	d->actual = (uint32_t)d->pages;
	*out = (struct vmem_balloon_out){ .queue = VMEM_BALLOON_NO_QUEUE,
					  .offset = VMEM_BALLOON_CONFIG_ACTUAL,
					  .value = d->actual };
	return 1;
}

static int next_pages(vmem_balloon_driver *d, struct vmem_balloon_out *out)
{
	/* In and out in turn, so that `actual` is what the device has seen. */
	if (d->away[VMEM_BALLOON_INFLATE] || d->away[VMEM_BALLOON_DEFLATE])
		return 0;
	if (behind(d) >= BEHIND_MOST)
		return tell_actual(d, out);
	if ((d->pages > d->target || d->oom) && fill_out(d))
		return send_pages(d, out, VMEM_BALLOON_DEFLATE);
	if (d->pages < d->target && !d->waits && fill_in(d))
		return send_pages(d, out, VMEM_BALLOON_INFLATE);
	return behind(d) ? tell_actual(d, out) : 0;
}

static int next_stats(vmem_balloon_driver *d, struct vmem_balloon_out *out)
{
	struct vmem_balloon_stat stats[STATS];
	uint32_t count;

	if (!d->stats_due || d->away[VMEM_BALLOON_STATS])
		return 0;
	d->stats_due = false;
	count = d->memory.stats(d->memory.context, stats, STATS);
	count = count < STATS ? count : STATS;
	for (uint32_t i = 0; i < count; i++) {
		memcpy(d->stats + i * VMEM_BALLOON_STAT_BYTES, &stats[i].tag, 2);
		memcpy(d->stats + i * VMEM_BALLOON_STAT_BYTES + 2, &stats[i].value, 8);
	}
	return send(d, out, VMEM_BALLOON_STATS, d->stats, count * VMEM_BALLOON_STAT_BYTES);
}

static int send_id(vmem_balloon_driver *d, struct vmem_balloon_out *out, uint32_t id)
{
	d->hint_sent = id;
	return send(d, out, VMEM_BALLOON_HINT, &d->hint_sent, sizeof(d->hint_sent));
}

static int next_hint(vmem_balloon_driver *d, struct vmem_balloon_out *out)
{
	if (d->hint_stage == HINT_IDLE || d->away[VMEM_BALLOON_HINT])
		return 0;
	if (d->hint_stage == HINT_BEGIN) {
		/* One of the two has the free ranges. */
		if (d->away[VMEM_BALLOON_REPORT])
			return 0;
		d->hint_stage = HINT_PAGES;
		d->memory.begin_free(d->memory.context);
		return send_id(d, out, d->hint_id);
	}
	if (d->hint_stage == HINT_PAGES && d->memory.isolate(d->memory.context, &d->hint)) {
		d->hint_isolated = true;
		send(d, out, VMEM_BALLOON_HINT, NULL, 0);
		out->pieces = &d->hint;
		out->piece_count = 1;
		return 1;
	}
	d->hint_stage = HINT_IDLE;
	return send_id(d, out, VMEM_BALLOON_HINT_STOP);
}

static int next_report(vmem_balloon_driver *d, struct vmem_balloon_out *out)
{
	if (!d->report_due || d->away[VMEM_BALLOON_REPORT] || d->hint_stage != HINT_IDLE ||
	    d->hint_isolated)
		return 0;
	d->report_count = 0;
	while (d->report_count < VMEM_BALLOON_DRIVER_PIECES &&
	       d->memory.isolate(d->memory.context, &d->report[d->report_count]))
		d->report_count++;
	if (d->report_count < VMEM_BALLOON_DRIVER_PIECES)
		d->report_due = false;
	if (!d->report_count)
		return 0;
	send(d, out, VMEM_BALLOON_REPORT, NULL, 0);
	out->pieces = d->report;
	out->piece_count = d->report_count;
	return 1;
}

int vmem_balloon_driver_next(vmem_balloon_driver *d, struct vmem_balloon_out *out)
{
	struct vmem_balloon_out o = { 0 };

	if (out->size < sizeof(out->size) || !d->started ||
	    !(next_pages(d, &o) || next_stats(d, &o) || next_hint(d, &o) || next_report(d, &o)))
		return 0;
	return vmemi_opts_give(out, &o, sizeof(o)) == 0;
}

/* --- What comes in --- */

static void inflated(vmem_balloon_driver *d)
{
	for (uint32_t i = 0; i < d->moving.span_count; i++)
		d->held[d->held_count++] = d->moving.spans[i]; /* fill_in() has left room */
	carry_nothing(d);
}

static void deflated(vmem_balloon_driver *d)
{
	d->pages -= d->moving.pages;
	if (tells_first(d))
		give_back(d);
	carry_nothing(d);
}

static void reported(vmem_balloon_driver *d)
{
	for (uint32_t i = 0; i < d->report_count; i++)
		d->memory.release(d->memory.context, &d->report[i]);
	d->report_count = 0;
}

int vmem_balloon_driver_returned(vmem_balloon_driver *d, enum vmem_balloon_queue queue)
{
	if ((uint32_t)queue >= VMEM_BALLOON_QUEUES || !d->away[queue])
		return -VMEM_ENOENT;
	d->away[queue] = false;
	switch (queue) {
	case VMEM_BALLOON_INFLATE: inflated(d); break;
	case VMEM_BALLOON_DEFLATE: deflated(d); break;
	case VMEM_BALLOON_STATS: d->stats_due = true; break;
	case VMEM_BALLOON_REPORT: reported(d); break;
	default: break;
	}
	return 0;
}

static void release_hints(vmem_balloon_driver *d)
{
	if (d->hint_isolated)
		d->memory.release_all(d->memory.context);
	d->hint_isolated = false;
}

static void take_command(vmem_balloon_driver *d, uint32_t id)
{
	if (!has(d, VMEM_BALLOON_F_FREE_PAGE_HINT) || id == d->hint_id)
		return;
	d->hint_id = id;
	if (id < VMEM_BALLOON_HINT_FIRST) {
		/* A range on its way is still the device's; it is returned before the end of all. */
		if (d->hint_stage != HINT_IDLE)
			d->hint_stage = HINT_END;
		release_hints(d);
	} else {
		release_hints(d);
		d->hint_stage = HINT_BEGIN;
	}
}

static uint32_t le32(const uint8_t *bytes)
{
	return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
	       (uint32_t)bytes[3] << 24;
}

void vmem_balloon_driver_config(vmem_balloon_driver *d, const void *bytes, uint32_t count)
{
	const uint8_t *space = bytes;

	if (count >= VMEM_BALLOON_CONFIG_TARGET + 4) {
		d->target = le32(space + VMEM_BALLOON_CONFIG_TARGET);
		d->waits = false;
	}
	if (count >= VMEM_BALLOON_CONFIG_HINT_ID + 4)
		take_command(d, le32(space + VMEM_BALLOON_CONFIG_HINT_ID));
}

void vmem_balloon_driver_retry(vmem_balloon_driver *d)
{
	d->waits = false;
	if (!has(d, VMEM_BALLOON_F_PAGE_REPORTING) || d->report_due)
		return;
	d->report_due = true;
	if (!d->away[VMEM_BALLOON_REPORT] && d->hint_stage == HINT_IDLE)
		d->memory.begin_free(d->memory.context);
}

uint64_t vmem_balloon_driver_oom(vmem_balloon_driver *d, uint64_t pages)
{
	uint64_t held = d->pages - d->moving.pages;

	if (!has(d, VMEM_BALLOON_F_DEFLATE_ON_OOM))
		return 0;
	held -= d->oom < held ? d->oom : held;
	pages = pages < held ? pages : held;
	d->oom += pages;
	d->waits = true; /* not to be taken again at once */
	return pages;
}

int vmem_balloon_driver_get_state(const vmem_balloon_driver *d,
				  struct vmem_balloon_driver_state *state)
{
	const struct vmem_balloon_driver_state s = { .features = d->features,
						     .target = d->target,
						     .pages = d->pages,
						     .starved = d->starved };

	return vmemi_opts_give(state, &s, sizeof(s));
}

/* --- Begin and end --- */

static void begin_anew(vmem_balloon_driver *d)
{
	if (!d->away[VMEM_BALLOON_DEFLATE] || tells_first(d)) /* else they have been given back */
		give_back(d);
	for (uint64_t i = 0; i < d->held_count; i++)
		d->memory.give(d->memory.context, d->held[i].first, d->held[i].pages);
	carry_nothing(d);
	reported(d);
	release_hints(d);
	memset(d->away, 0, sizeof(d->away));
	d->held_count = d->pages = d->target = d->oom = 0;
	d->actual = d->hint_id = 0;
	d->hint_stage = HINT_IDLE;
	d->waits = d->stats_due = d->report_due = d->started = false;
}

uint64_t vmem_balloon_driver_negotiate(vmem_balloon_driver *d, uint64_t offered)
{
	uint64_t possible = ~UINT64_C(0);

	begin_anew(d);
	if (!d->memory.stats)
		possible &= ~VMEM_BALLOON_F_STATS_VQ;
	if (!d->memory.isolate)
		possible &= ~(VMEM_BALLOON_F_FREE_PAGE_HINT | VMEM_BALLOON_F_PAGE_REPORTING);
	d->features = d->wanted & offered & possible;
	/* A device that is not told of it must not be let change free pages. */
	if (d->poison && !has(d, VMEM_BALLOON_F_PAGE_POISON))
		d->features &= ~(VMEM_BALLOON_F_FREE_PAGE_HINT | VMEM_BALLOON_F_PAGE_REPORTING);
	return d->features;
}

int vmem_balloon_driver_poison(const vmem_balloon_driver *d, uint32_t *ret_value)
{
	if (!has(d, VMEM_BALLOON_F_PAGE_POISON))
		return 0;
	*ret_value = d->poison;
	return 1;
}

void vmem_balloon_driver_start(vmem_balloon_driver *d)
{
	d->started = true;
	d->stats_due = has(d, VMEM_BALLOON_F_STATS_VQ);
}

static int take_memory(struct vmem_balloon_guest_memory *m,
		       const struct vmem_balloon_guest_memory *given)
{
	int err = vmemi_callbacks_take(
		m, sizeof(*m), VMEMI_BYTES_TO(struct vmem_balloon_guest_memory, release_all),
		given);

	if (err)
		return err;
	if (!m->take || !m->give ||
	    (m->isolate && (!m->begin_free || !m->release || !m->release_all)))
		return -VMEM_EINVAL;
	return 0;
}

static int make_arrays(vmem_balloon_driver *d)
{
	struct carried *c = &d->moving;

	d->held =
		vmemi_alloc(&d->allocator, d->max_spans * sizeof(*d->held), _Alignof(struct span));
	c->spans = vmemi_alloc(&d->allocator, c->most * sizeof(*c->spans), _Alignof(struct span));
	c->bytes = vmemi_alloc(&d->allocator, c->most * sizeof(*c->bytes), _Alignof(uint64_t));
	return d->held && c->spans && c->bytes ? 0 : -VMEM_ENOMEM;
}

int vmem_balloon_driver_new(vmem_balloon_driver **ret_driver,
			    const struct vmem_balloon_driver_opts *opts)
{
	struct vmem_balloon_guest_memory memory;
	struct vmem_balloon_driver_opts o;
	struct vmem_allocator allocator;
	vmem_balloon_driver *d;
	int err;

	if (!ret_driver)
		return -VMEM_EINVAL;
	if ((err = vmemi_opts_take(&o, sizeof(o), opts)) != 0 ||
	    (err = vmemi_alloc_take(&allocator, o.allocator)) != 0)
		return err;
	if (o.flags || !o.max_spans || o.max_spans > UINT32_MAX ||
	    o.entries > VMEM_BALLOON_DRIVER_ENTRIES_MOST)
		return -VMEM_EINVAL;
	err = take_memory(&memory, o.memory);
	if (err)
		return err;
	d = vmemi_zalloc(&allocator, sizeof(*d), _Alignof(vmem_balloon_driver));
	if (!d)
		return -VMEM_ENOMEM;
	d->allocator = allocator;
	d->memory = memory;
	d->wanted = o.features;
	d->max_spans = o.max_spans;
	d->poison = o.poison;
	d->moving.most = o.entries ? o.entries : VMEM_BALLOON_DRIVER_ENTRIES;
	err = make_arrays(d);
	if (err)
		vmem_balloon_driver_free(d);
	else
		*ret_driver = d;
	return err;
}

void vmem_balloon_driver_free(vmem_balloon_driver *d)
{
	struct vmem_allocator allocator;
	struct carried *c;

	if (!d)
		return;
	allocator = d->allocator;
	c = &d->moving;
	vmemi_free(&allocator, d->held, d->max_spans * sizeof(*d->held), _Alignof(struct span));
	vmemi_free(&allocator, c->spans, c->most * sizeof(*c->spans), _Alignof(struct span));
	vmemi_free(&allocator, c->bytes, c->most * sizeof(*c->bytes), _Alignof(uint64_t));
	vmemi_free(&allocator, d, sizeof(*d), _Alignof(vmem_balloon_driver));
}
