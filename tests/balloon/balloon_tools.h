/* SPDX-License-Identifier: BSD-2-Clause */
/* Balloons whose memory is counted, and the driver's side in a few calls. */
#ifndef VMEMT_BALLOON_TOOLS_H
#define VMEMT_BALLOON_TOOLS_H
#include <criterion/criterion.h>
#include <string.h>
#include "balloon/balloon_internal.h"
#include "support/fail_alloc.h"
#include "support/rng.h"

#define PAGE ((uint64_t)VMEM_PAGE_SIZE)
#define ALL_FEATURES UINT64_C(0x3f)
#define MODERN VMEM_VIRTIO_F_VERSION_1

/* A guard that says of each page what the test wants. */
struct vmemt_guard {
	uint64_t written[64]; /* bit i of word j: page 64 j + i was */
	int begun, ended;
	int fail; /* begin returns this */
};

static inline int vmemt_guard_begin(void *context)
{
	struct vmemt_guard *g = context;

	if (!g->fail)
		g->begun++;
	return g->fail;
}

static inline uint64_t vmemt_guard_unwritten(void *context, uint64_t first)
{
	struct vmemt_guard *g = context;

	cr_assert_eq(first % 64, 0);
	return first / 64 < 64 ? ~g->written[first / 64] : ~UINT64_C(0);
}

static inline void vmemt_guard_end(void *context)
{
	((struct vmemt_guard *)context)->ended++;
}

/* A device with 16 MiB of RAM at 0, its driver not there yet. @changes may be NULL. */
struct vmemt_balloon {
	struct vmemt_fail_alloc memory;
	struct vmemt_guard watch;
	struct vmem_balloon_guard guard;
	struct vmem_balloon_opts opts;
	vmem_balloon *b;
	uint64_t tokens; /* given so far */
	uint64_t now;
};

static inline void vmemt_balloon_make(struct vmemt_balloon *t, uint64_t features, uint64_t block)
{
	const struct vmem_balloon_opts given = t->opts;

	vmemt_fail_alloc_init(&t->memory);
	t->guard = (struct vmem_balloon_guard){ .size = sizeof(t->guard),
						.context = &t->watch,
						.begin = vmemt_guard_begin,
						.unwritten = vmemt_guard_unwritten,
						.end = vmemt_guard_end };
	t->opts = given;
	t->opts.size = sizeof(t->opts);
	t->opts.allocator = &t->memory.allocator;
	t->opts.features = features;
	t->opts.guard = &t->guard;
	t->now = 1000000000;
	cr_assert_eq(vmem_balloon_new(&t->b, &t->opts), 0);
	cr_assert_eq(vmem_balloon_add_ram(t->b, 0, 4096 * PAGE, block), 0);
}

/* The driver takes @features. The status that it ends with. */
static inline uint32_t vmemt_balloon_start(struct vmemt_balloon *t, uint64_t features)
{
	uint32_t status;

	vmem_balloon_set_status(t->b, 1, NULL);
	vmem_balloon_set_status(t->b, 3, NULL);
	cr_assert_eq(vmem_balloon_set_features(t->b, features), 0);
	vmem_balloon_set_status(t->b, 3 | VMEM_VIRTIO_FEATURES_OK, NULL);
	vmem_balloon_set_status(t->b, 3 | VMEM_VIRTIO_FEATURES_OK | VMEM_VIRTIO_DRIVER_OK, &status);
	return status;
}

static inline void vmemt_balloon_new(struct vmemt_balloon *t, uint64_t features)
{
	vmemt_balloon_make(t, features, PAGE);
	cr_assert(vmemt_balloon_start(t, features) & VMEM_VIRTIO_DRIVER_OK);
}

static inline void vmemt_balloon_sound(const vmem_balloon *b)
{
	const char *wrong = vmemi_balloon_check(b);

	cr_assert(!wrong, "%s", wrong ? wrong : "");
}

static inline void vmemt_balloon_end(struct vmemt_balloon *t)
{
	vmemt_balloon_sound(t->b);
	vmem_balloon_free(t->b);
	cr_assert_eq(t->memory.live_bytes, 0);
	cr_assert_eq(t->watch.begun, t->watch.ended);
}

static inline int vmemt_give(struct vmemt_balloon *t, uint32_t queue, const void *bytes,
			     size_t count)
{
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = queue,
					      .token = ++t->tokens,
					      .now_ns = t->now,
					      .bytes = bytes,
					      .count = count };

	return vmem_balloon_give(t->b, &buffer);
}

static inline int vmemt_give_piece(struct vmemt_balloon *t, uint32_t queue, uint64_t gpa,
				   uint64_t bytes)
{
	struct vmem_balloon_piece piece = { .gpa = gpa, .bytes = bytes };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = queue,
					      .token = ++t->tokens,
					      .now_ns = t->now,
					      .pieces = &piece,
					      .piece_count = 1 };

	return vmem_balloon_give(t->b, &buffer);
}

/* The only range that is due, in pages. */
static inline void vmemt_one_range(struct vmemt_balloon *t, uint32_t operation, uint64_t first,
				   uint64_t pages)
{
	struct vmem_balloon_range r[2];

	cr_assert_eq(vmem_balloon_take_ranges(t->b, r, 2), 1);
	cr_assert_eq(r[0].operation, operation);
	cr_assert_eq(r[0].gpa, first * PAGE);
	cr_assert_eq(r[0].bytes, pages * PAGE);
}

static inline void vmemt_no_range(struct vmemt_balloon *t)
{
	struct vmem_balloon_range r;

	cr_assert_eq(vmem_balloon_take_ranges(t->b, &r, 1), 0);
}

/* One buffer is done, the one last given. */
static inline void vmemt_one_done(struct vmemt_balloon *t, uint32_t queue)
{
	struct vmem_balloon_done done;

	cr_assert_eq(vmem_balloon_take_done(t->b, &done), 1);
	cr_assert_eq(done.queue, queue);
	cr_assert_eq(done.token, t->tokens);
	cr_assert_eq(done.used, 0);
	cr_assert_eq(vmem_balloon_take_done(t->b, &done), 0);
}

/* Inflates, or deflates, pages first .. and lets all be done. */
static inline void vmemt_move_pages(struct vmemt_balloon *t, uint32_t queue, uint32_t first,
				    uint32_t pages)
{
	struct vmem_balloon_range range;
	uint32_t gfns[4096];

	cr_assert_leq(pages, 4096);
	for (uint32_t i = 0; i < pages; i++)
		gfns[i] = first + i;
	cr_assert_eq(vmemt_give(t, queue, gfns, pages * sizeof(*gfns)), 0);
	while (vmem_balloon_take_ranges(t->b, &range, 1))
		;
	vmemt_one_done(t, queue);
}

static inline struct vmem_balloon_counters vmemt_counters(const struct vmemt_balloon *t)
{
	struct vmem_balloon_counters c = { .size = sizeof(c) };

	cr_assert_eq(vmem_balloon_get_counters(t->b, &c), 0);
	return c;
}

static inline struct vmem_balloon_progress vmemt_progress(const struct vmemt_balloon *t)
{
	struct vmem_balloon_progress p = { .size = sizeof(p) };

	cr_assert_eq(vmem_balloon_get_progress(t->b, &p), 0);
	return p;
}

/* Whether the event is there; forgets all that are. */
static inline int vmemt_event(struct vmemt_balloon *t, int event)
{
	int found = 0, next;

	while ((next = vmem_balloon_next_event(t->b)) != 0)
		found |= next == event;
	return found;
}

static inline uint32_t vmemt_config(const struct vmemt_balloon *t, uint32_t offset)
{
	uint32_t value;

	cr_assert_eq(vmem_balloon_config_read(t->b, offset, &value, sizeof(value)), 0);
	return value;
}

#endif
