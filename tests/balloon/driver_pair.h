/* SPDX-License-Identifier: BSD-2-Clause */
/* A driver and a device over queues in memory, with a guest whose pages are looked after: none is ever in two places,
 * and the device knows of just those that the driver has given. */
#ifndef VMEMT_DRIVER_PAIR_H
#define VMEMT_DRIVER_PAIR_H
#include <vmem/balloon_driver.h>
#include "balloon/balloon_tools.h"

#define GUEST_PAGES 4096u

enum use { FREE, USED, HELD, ISOLATED };

struct guest {
	uint8_t use[GUEST_PAGES];
	uint64_t cursor; /* of free ranges */
	uint64_t row;    /* most pages that take() gives at once */
	uint64_t far;    /* take() gives this page, which the device has no number for; 0: no */
	uint64_t far_back;
	uint32_t asked;
};

static inline uint64_t take(void *context, uint64_t most, uint64_t *ret_gfn)
{
	struct guest *g = context;
	uint64_t first = 0, pages = 0;

	if (g->far) {
		*ret_gfn = g->far;
		return 1;
	}
	while (first < GUEST_PAGES && g->use[first] != FREE)
		first++;
	while (first + pages < GUEST_PAGES && g->use[first + pages] == FREE && pages < most &&
	       pages < g->row)
		g->use[first + pages++] = HELD;
	*ret_gfn = first;
	return pages;
}

static inline void give(void *context, uint64_t gfn, uint64_t pages)
{
	struct guest *g = context;

	if (gfn == g->far && gfn) {
		g->far_back += pages;
		return;
	}
	for (uint64_t i = gfn; i < gfn + pages; i++) {
		cr_assert_lt(i, GUEST_PAGES);
		cr_assert_eq(g->use[i], HELD);
		g->use[i] = FREE;
	}
}

static inline uint32_t stats(void *context, struct vmem_balloon_stat *s, uint32_t most)
{
	struct guest *g = context;

	cr_assert_geq(most, 2);
	s[0] = (struct vmem_balloon_stat){ VMEM_BALLOON_TOTAL, GUEST_PAGES * PAGE };
	s[1] = (struct vmem_balloon_stat){ VMEM_BALLOON_MINOR_FAULTS, ++g->asked };
	return 2;
}

static inline int isolate(void *context, struct vmem_balloon_piece *piece)
{
	struct guest *g = context;
	uint64_t first, pages = 0;

	while (g->cursor < GUEST_PAGES && g->use[g->cursor] != FREE)
		g->cursor++;
	first = g->cursor;
	while (first + pages < GUEST_PAGES && g->use[first + pages] == FREE && pages < 64)
		g->use[first + pages++] = ISOLATED;
	g->cursor += pages;
	*piece = (struct vmem_balloon_piece){ first * PAGE, pages * PAGE };
	return pages != 0;
}

static inline void begin_free(void *context)
{
	((struct guest *)context)->cursor = 0;
}

static inline void release(void *context, const struct vmem_balloon_piece *piece)
{
	struct guest *g = context;

	for (uint64_t i = piece->gpa / PAGE; i < (piece->gpa + piece->bytes) / PAGE; i++) {
		cr_assert_eq(g->use[i], ISOLATED);
		g->use[i] = FREE;
	}
}

static inline void release_all(void *context)
{
	struct guest *g = context;

	for (uint64_t i = 0; i < GUEST_PAGES; i++)
		if (g->use[i] == ISOLATED)
			g->use[i] = FREE;
}

struct pair {
	struct vmemt_balloon device;
	struct guest guest;
	struct vmem_balloon_guest_memory memory;
	vmem_balloon_driver *driver;
	struct vmemt_fail_alloc driver_memory;
	uint32_t entries;   /* of its buffers */
	uint64_t discarded; /* pages, of all kinds */
	uint32_t told;      /* how often `actual` was */
};

static inline void make_pair(struct pair *p, uint64_t offered, uint64_t wanted, uint32_t map)
{
	struct vmem_balloon_driver_opts o = { .size = sizeof(o),
					      .allocator = &p->driver_memory.allocator,
					      .memory = &p->memory,
					      .features = wanted,
					      .max_spans = GUEST_PAGES,
					      .entries = p->entries };

	p->guest.row = p->guest.row ? p->guest.row : 5;
	p->memory = (struct vmem_balloon_guest_memory){ .size = sizeof(p->memory),
							.context = &p->guest,
							.take = take,
							.give = give,
							.stats = stats,
							.isolate = isolate,
							.begin_free = begin_free,
							.release = release,
							.release_all = release_all };
	vmemt_fail_alloc_init(&p->driver_memory);
	p->device.opts.map = map;
	vmemt_balloon_make(&p->device, offered, PAGE);
	cr_assert_eq(vmem_balloon_driver_new(&p->driver, &o), 0);
}

static inline void read_config(struct pair *p)
{
	uint8_t space[VMEM_BALLOON_CONFIG_BYTES];
	uint32_t count = vmem_balloon_config_bytes(p->device.b);

	cr_assert_eq(vmem_balloon_config_read(p->device.b, 0, space, count), 0);
	vmem_balloon_driver_config(p->driver, space, count);
}

static inline void start_pair(struct pair *p)
{
	uint64_t features = vmem_balloon_driver_negotiate(p->driver, p->device.opts.features);
	vmem_balloon *b = p->device.b;
	uint32_t poison, status;

	vmem_balloon_set_status(b, 0, NULL);
	vmem_balloon_set_status(b, 3, NULL);
	cr_assert_eq(vmem_balloon_set_features(b, features), 0);
	vmem_balloon_set_status(b, VMEM_VIRTIO_FEATURES_OK, NULL);
	if (vmem_balloon_driver_poison(p->driver, &poison))
		cr_assert_eq(vmem_balloon_config_write(b, VMEM_BALLOON_CONFIG_POISON, &poison, 4),
			     0);
	vmem_balloon_set_status(b, VMEM_VIRTIO_DRIVER_OK, &status);
	cr_assert(status & VMEM_VIRTIO_DRIVER_OK);
	vmem_balloon_driver_start(p->driver);
	read_config(p);
}

static inline void end_pair(struct pair *p)
{
	vmem_balloon_driver_free(p->driver);
	cr_assert_eq(p->driver_memory.live_bytes, 0);
	vmemt_balloon_end(&p->device);
}

/* What the device does for one notification. A page that it discards is not in use. */
static inline void device_works(struct pair *p)
{
	struct vmem_balloon_range r;
	struct vmem_balloon_done done;

	while (vmem_balloon_take_ranges(p->device.b, &r, 1))
		for (uint64_t i = r.gpa / PAGE; i < (r.gpa + r.bytes) / PAGE; i++) {
			if (r.operation == VMEM_BALLOON_RETURN)
				continue;
			cr_assert_eq(p->guest.use[i],
				     r.operation == VMEM_BALLOON_DISCARD ? HELD : ISOLATED);
			p->discarded++;
		}
	while (vmem_balloon_take_done(p->device.b, &done))
		cr_assert_eq(vmem_balloon_driver_returned(p->driver,
							  (enum vmem_balloon_queue)done.queue),
			     0);
}

static inline void one_out(struct pair *p, const struct vmem_balloon_out *out)
{
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = out->queue,
					      .token = ++p->device.tokens,
					      .now_ns = p->device.now,
					      .bytes = out->bytes,
					      .count = out->count,
					      .pieces = out->pieces,
					      .piece_count = out->piece_count };
	enum vmem_balloon_queue found;
	int err;

	if (out->queue == VMEM_BALLOON_NO_QUEUE) {
		cr_assert_eq(vmem_balloon_config_write(p->device.b, out->offset, &out->value, 4),
			     0);
		p->told++;
		return;
	}
	cr_assert_eq(vmem_balloon_queue_of(p->device.b, p->device.b->numbers[out->queue], &found),
		     0);
	cr_assert_eq(found, out->queue);
	while ((err = vmem_balloon_give(p->device.b, &buffer)) == -VMEM_EAGAIN)
		device_works(p);
	cr_assert_eq(err, 0);
}

/* Until neither has anything to do. */
static inline void run(struct pair *p)
{
	struct vmem_balloon_out out = { .size = sizeof(out) };
	int event;

	for (uint32_t i = 0; vmem_balloon_driver_next(p->driver, &out); i++) {
		cr_assert_lt(i, 100000);
		one_out(p, &out);
		device_works(p);
		while ((event = vmem_balloon_next_event(p->device.b)) != 0) {
			cr_assert_neq(event, VMEM_BALLOON_EVENT_ACTUAL); /* what it claims is so */
			if (event == VMEM_BALLOON_EVENT_CONFIG)
				read_config(p);
		}
	}
}

static inline uint64_t held(const struct pair *p)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < GUEST_PAGES; i++)
		n += p->guest.use[i] == HELD;
	return n;
}

static inline void set_target(struct pair *p, uint64_t pages)
{
	cr_assert_eq(vmem_balloon_set_target(p->device.b, pages, 0, p->device.now), 0);
	read_config(p);
	run(p);
}

static inline struct vmem_balloon_driver_state state_of(const struct pair *p)
{
	struct vmem_balloon_driver_state s = { .size = sizeof(s) };

	cr_assert_eq(vmem_balloon_driver_get_state(p->driver, &s), 0);
	return s;
}

/* Both know of the same pages, and nobody has lost one. */
static inline void agree(const struct pair *p)
{
	struct vmem_balloon_counters c = vmemt_counters(&p->device);

	for (uint64_t i = 0; i < GUEST_PAGES; i++)
		cr_assert_eq(vmem_balloon_has(p->device.b, i * PAGE), p->guest.use[i] == HELD);
	cr_assert_eq(vmemt_progress(&p->device).pages, held(p));
	cr_assert_eq(vmemt_progress(&p->device).actual, held(p));
	cr_assert_eq(state_of(p).pages, held(p));
	cr_assert_eq(c.outside + c.inflated_twice + c.not_inflated + c.free_inflated + c.malformed +
			     c.unexpected + c.late_writes,
		     0);
}

#endif
