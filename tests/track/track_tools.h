/* SPDX-License-Identifier: BSD-2-Clause */
/* Trackers whose memory is counted. */
#ifndef VMEMT_TRACK_TOOLS_H
#define VMEMT_TRACK_TOOLS_H
#include <criterion/criterion.h>
#include <vmem/track.h>
#include "support/fail_alloc.h"
#include "support/rng.h"
#include "track/track_internal.h"

static inline vmem_track *vmemt_track_new(struct vmemt_fail_alloc *a, uint64_t pages, uint32_t cpu)
{
	struct vmem_track_opts opts = {
		.size = sizeof(opts), .allocator = &a->allocator, .pages = pages, .cpu = cpu
	};
	vmem_track *t = NULL;

	vmemt_fail_alloc_init(a);
	cr_assert_eq(vmem_track_new(&t, &opts), 0);
	return t;
}

/* All pages of it present. */
static inline vmem_track *vmemt_track_full(struct vmemt_fail_alloc *a, uint64_t pages, uint32_t cpu)
{
	vmem_track *t = vmemt_track_new(a, pages, cpu);

	cr_assert_eq(vmem_track_mark(t, 0, pages, VMEM_TRACK_ABSENT, 0), 0);
	return t;
}

static inline void vmemt_track_done(vmem_track *t, const struct vmemt_fail_alloc *a)
{
	const char *wrong = vmemi_track_check(t);

	cr_assert(!wrong, "%s", wrong ? wrong : "");
	vmem_track_free(t);
	cr_assert_eq(a->live_bytes, 0);
}

static inline uint32_t vmemt_age(const vmem_track *t, uint64_t page)
{
	uint32_t age, state;

	cr_assert_eq(vmem_track_page(t, page, &age, &state), 0);
	return age;
}

static inline uint32_t vmemt_state(const vmem_track *t, uint64_t page)
{
	uint32_t age, state;

	cr_assert_eq(vmem_track_page(t, page, &age, &state), 0);
	return state;
}

static inline struct vmem_track_stats vmemt_track_stats(const vmem_track *t)
{
	struct vmem_track_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_track_get_stats(t, &stats), 0);
	return stats;
}

#endif
