/* SPDX-License-Identifier: BSD-2-Clause */
/* Target, rate, progress, stall, and a guest that swaps. */
#include "balloon/balloon_tools.h"

#define MS UINT64_C(1000000)

Test(balloon_target, at_once)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, MODERN);
	(void)vmemt_event(&t, 0);
	cr_assert_eq(vmem_balloon_set_target(t.b, 4097, 0, t.now), -VMEM_ERANGE);
	cr_assert_eq(vmem_balloon_set_target(t.b, 512, 0, t.now), 0);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), 512);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_CONFIG));
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 512);
	vmem_balloon_tick(t.b, t.now += MS);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_REACHED));
	vmem_balloon_tick(t.b, t.now += MS);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_REACHED));
	cr_assert_eq(vmemt_progress(&t).eta_ns, 0);
	vmemt_balloon_end(&t);
}

/* The driver is told no more than the rate allows, up and down, and all of it in the end. */
Test(balloon_target, rate)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 4000, 1000, t.now), 0);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), 0);
	for (uint64_t i = 1; i <= 3000; i++) {
		vmem_balloon_tick(t.b, t.now += MS);
		cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), i);
	}
	vmem_balloon_tick(t.b, t.now += 600 * MS);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), 3600);
	vmem_balloon_tick(t.b, t.now += 60000 * MS);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), 4000);
	cr_assert_eq(vmem_balloon_set_target(t.b, 0, 500, t.now), 0);
	vmem_balloon_tick(t.b, t.now += 3500 * MS);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), 4000 - 1750);
	cr_assert_eq(vmem_balloon_set_target(t.b, 4096, UINT64_MAX, t.now), 0);
	vmem_balloon_tick(t.b, UINT64_MAX);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), 4096);
	vmemt_balloon_end(&t);
}

Test(balloon_target, speed_and_eta)
{
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_progress p;

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 2000, 0, t.now), 0);
	cr_assert_eq(vmemt_progress(&t).eta_ns, UINT64_MAX);
	for (uint32_t i = 0; i < 10; i++) {
		vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, i * 100, 100);
		vmem_balloon_tick(t.b, t.now += 100 * MS);
	}
	p = vmemt_progress(&t);
	cr_assert_eq(p.pages, 1000);
	cr_assert(p.pages_per_s > 900 && p.pages_per_s <= 1000);
	cr_assert(p.eta_ns >= 1000 * MS && p.eta_ns < 1200 * MS);
	/* A guest that takes its pages back has no time left to the target; to one below it has. */
	for (uint32_t i = 0; i < 5; i++) {
		vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, i * 100, 100);
		vmem_balloon_tick(t.b, t.now += 100 * MS);
	}
	p = vmemt_progress(&t);
	cr_assert_gt(p.pages_per_s, 0);
	cr_assert_eq(p.eta_ns, UINT64_MAX);
	cr_assert_eq(vmem_balloon_set_target(t.b, 100, 0, t.now), 0);
	p = vmemt_progress(&t);
	cr_assert_eq(p.eta_ns, 400 * 1000 * MS / p.pages_per_s);
	vmemt_balloon_end(&t);
}

Test(balloon_target, stall)
{
	struct vmemt_balloon t = { .opts.stall_ns = 1000 * MS };

	vmemt_balloon_make(&t, MODERN, PAGE);
	cr_assert_eq(vmem_balloon_set_target(t.b, 1000, 0, t.now), 0);
	vmem_balloon_tick(t.b, t.now += 5000 * MS);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED)); /* there is no driver */
	vmemt_balloon_start(&t, MODERN);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 300);
	vmem_balloon_tick(t.b, t.now += 10 * MS);
	vmem_balloon_tick(t.b, t.now += 999 * MS);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	/* Out and in again is no progress. */
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 0, 10);
	vmem_balloon_tick(t.b, t.now);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 10);
	vmem_balloon_tick(t.b, t.now += MS);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	cr_assert_eq(vmemt_progress(&t).proposed, 300);
	cr_assert_eq(vmemt_progress(&t).stalled_ns, 1000 * MS);
	vmem_balloon_tick(t.b, t.now += 1000 * MS);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED)); /* told once */
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 500, 1);
	vmem_balloon_tick(t.b, t.now += MS);
	cr_assert_eq(vmemt_progress(&t).stalled_ns, 0);
	vmem_balloon_tick(t.b, t.now += 1000 * MS);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	/* What was proposed is reached. */
	cr_assert_eq(vmem_balloon_set_target(t.b, 301, 0, t.now), 0);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_REACHED));
	/* Long after that the guest takes some back: the time between was no stall, nor is the way back one. */
	t.now += 1000000 * MS;
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 0, 50);
	for (uint32_t i = 0; i < 5; i++) {
		vmem_balloon_tick(t.b, t.now += 600 * MS);
		cr_assert_eq(vmemt_progress(&t).stalled_ns, 0);
		cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
		vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, i, 1);
	}
	vmemt_balloon_end(&t);
}

/* A guest that does nothing stalls while the driver is still being told more, and when it is told the same again. */
Test(balloon_target, stall_on_the_way)
{
	struct vmemt_balloon t = { .opts.stall_ns = 1000 * MS };

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 4000, 100, t.now), 0);
	vmem_balloon_tick(t.b, t.now += 10 * MS); /* a page */
	for (uint32_t i = 0; i < 9; i++) {
		vmem_balloon_tick(t.b, t.now += 100 * MS);
		cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	}
	vmem_balloon_tick(t.b, t.now += 100 * MS);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	cr_assert_eq(vmemt_progress(&t).told, 101);
	/* A page more is progress, although the driver has been told more meanwhile. */
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 1);
	vmem_balloon_tick(t.b, t.now += 100 * MS);
	cr_assert_eq(vmemt_progress(&t).stalled_ns, 0);
	for (uint32_t i = 0; i < 9; i++) {
		cr_assert_eq(vmem_balloon_set_target(t.b, 4000, 0, t.now += 100 * MS), 0);
		cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	}
	cr_assert_eq(vmem_balloon_set_target(t.b, 4000, 0, t.now += 100 * MS), 0);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	/* Another way begins anew. */
	cr_assert_eq(vmem_balloon_set_target(t.b, 0, 0, t.now), 0);
	cr_assert_eq(vmemt_progress(&t).stalled_ns, 0);
	vmem_balloon_tick(t.b, t.now += 1000 * MS);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	vmemt_balloon_end(&t);
}

/* A driver that is still told more than the target, or less, stalls neither when the target is met nor beyond it; a stall
 * before that has ended. */
Test(balloon_target, no_stall_where_the_target_turned)
{
	static const uint32_t given[] = { 0, 1000, 2000, 3000, 3500 };
	struct vmemt_balloon t = { .opts.stall_ns = 1000 * MS };

	for (size_t i = 0; i < sizeof(given) / sizeof(*given); i++) {
		vmemt_balloon_new(&t, MODERN);
		cr_assert_eq(vmem_balloon_set_target(t.b, 4000, 0, t.now), 0);
		if (given[i])
			vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, given[i]);
		vmem_balloon_tick(t.b, t.now += MS);
		vmem_balloon_tick(t.b, t.now += 1000 * MS);
		cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
		cr_assert_eq(vmem_balloon_set_target(t.b, given[i] / 2, 100, t.now), 0);
		cr_assert_eq(vmemt_progress(&t).stalled_ns, 0);
		for (uint64_t told = 3990; told > given[i]; told -= 10) {
			vmem_balloon_tick(t.b, t.now += 100 * MS);
			cr_assert_eq(vmemt_progress(&t).told, told);
			cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
		}
		/* Now pages are wanted back; or, if there are none, this is the target. */
		vmem_balloon_tick(t.b, t.now += 200 * MS);
		cr_assert_eq(vmemt_event(&t, VMEM_BALLOON_EVENT_REACHED), !given[i]);
		vmem_balloon_tick(t.b, t.now += 1000 * MS);
		cr_assert_eq(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED), !!given[i]);
		/* Up again, to less than it has: nothing is wanted before that is told. */
		if (given[i] == 3500) {
			uint64_t told = vmemt_progress(&t).told;

			cr_assert_eq(vmem_balloon_set_target(t.b, given[i], 10, t.now), 0);
			cr_assert_eq(vmemt_progress(&t).stalled_ns, 0);
			vmem_balloon_tick(t.b, t.now += 1000 * MS);
			vmem_balloon_tick(t.b, t.now += 1000 * MS);
			cr_assert_eq(vmemt_progress(&t).told, told + 20);
			cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
		}
		vmemt_balloon_end(&t);
	}
}

/* What asks for pages the same way, if for fewer, does not end a stall. */
Test(balloon_target, stall_with_a_lower_target)
{
	struct vmemt_balloon t = { .opts.stall_ns = 1000 * MS };

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 4000, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 100);
	vmem_balloon_tick(t.b, t.now += MS);
	vmem_balloon_tick(t.b, t.now += 1000 * MS);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STALLED));
	cr_assert_eq(vmem_balloon_set_target(t.b, 101, 1, t.now), 0);
	cr_assert_eq(vmemt_progress(&t).stalled_ns, 1000 * MS);
	cr_assert_eq(vmem_balloon_set_target(t.b, 100, 1, t.now), 0);
	cr_assert_eq(vmemt_progress(&t).stalled_ns, 0);
	vmemt_balloon_end(&t);
}

/* What has been reached is told once, however often it is set. */
Test(balloon_target, set_again)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 10, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 10);
	cr_assert_eq(vmem_balloon_set_target(t.b, 10, 0, t.now += MS), 0);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_REACHED));
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_eq(vmem_balloon_set_target(t.b, 10, i, t.now += MS), 0);
		cr_assert_eq(vmem_balloon_next_event(t.b), 0);
	}
	vmemt_balloon_end(&t);
}

static bool doubted_after(struct vmemt_balloon *t, uint64_t ns)
{
	vmem_balloon_tick(t->b, t->now += ns);
	return vmemt_event(t, VMEM_BALLOON_EVENT_ACTUAL);
}

/* B5: what is written while pages are on their way, or never, is looked at when none has moved for long; once. */
Test(balloon_target, actual_at_rest)
{
	struct vmemt_balloon t = { .opts.stall_ns = 1000 };
	const uint32_t gfn = 5, none = 0, one = 1;
	struct vmem_balloon_range r;

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, sizeof(gfn)), 0);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_ACTUAL, &none, 4), 0);
	cr_assert_not(doubted_after(&t, 0));
	cr_assert_not(doubted_after(&t, 5000)); /* the page is still to be taken */
	cr_assert_eq(vmem_balloon_take_ranges(t.b, &r, 1), 1);
	cr_assert_not(doubted_after(&t, 999));
	cr_assert(doubted_after(&t, 1));
	cr_assert_not(doubted_after(&t, 5000));
	vmemt_one_done(&t, VMEM_BALLOON_INFLATE);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_ACTUAL, &one, 4), 0);
	cr_assert_not(doubted_after(&t, 5000));
	/* Buffers one after the other, and its word when all have gone: nothing to doubt. */
	for (uint32_t i = 0; i < 10; i++) {
		vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 10 + i, 1);
		cr_assert_not(doubted_after(&t, 999));
	}
	cr_assert_not(doubted_after(&t, 999));
	cr_assert(doubted_after(&t, 1)); /* no word */
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 30, 1);
	cr_assert_not(doubted_after(&t, 0));
	cr_assert(doubted_after(&t, 1000));
	vmem_balloon_set_status(t.b, 0, NULL);
	cr_assert_not(doubted_after(&t, 5000));
	vmemt_balloon_end(&t);
}

static void tell(struct vmemt_balloon *t, uint64_t in, uint64_t out, uint64_t faults)
{
	const uint64_t values[] = { in, out, faults };
	uint8_t bytes[30];

	for (uint16_t tag = 0; tag < 3; tag++) {
		memcpy(bytes + tag * 10, &tag, 2);
		memcpy(bytes + tag * 10 + 2, &values[tag], 8);
	}
	(void)vmem_balloon_ask_stats(t->b);
	(void)vmem_balloon_take_done(t->b, &(struct vmem_balloon_done){ 0 });
	cr_assert_eq(vmemt_give(t, VMEM_BALLOON_STATS, bytes, sizeof(bytes)), 0);
}

/* A guest that swaps is an event, but only if the balloon has some of its pages. */
Test(balloon_target, guest_swaps)
{
	struct vmem_balloon_guest g = { .size = sizeof(g) };
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	tell(&t, 1000, 2000, 5);
	t.now += 2000 * MS;
	tell(&t, 1000 + (2 << 20), 2000 + (4 << 20), 105);
	cr_assert_eq(vmem_balloon_get_guest(t.b, &g), 0);
	cr_assert_eq(g.swap_in_per_s, 1 << 20);
	cr_assert_eq(g.swap_out_per_s, 2 << 20);
	cr_assert_eq(g.major_faults_per_s, 50);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_SWAPS));
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 1);
	t.now += 1000 * MS;
	tell(&t, 1000 + (2 << 20), 2000 + (4 << 20), 105);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_SWAPS));
	t.now += 1000 * MS;
	tell(&t, 1000 + (2 << 20), 2000 + (5 << 20), 105);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_SWAPS));
	/* Counts that begin anew, and those that leap, are no rates that overflow. */
	t.now += 1000 * MS;
	tell(&t, 0, 0, 0);
	cr_assert_eq(vmem_balloon_get_guest(t.b, &g), 0);
	cr_assert_eq(g.swap_out_per_s, 0);
	t.now += 1;
	tell(&t, UINT64_MAX, UINT64_MAX, UINT64_MAX);
	cr_assert_eq(vmem_balloon_get_guest(t.b, &g), 0);
	cr_assert_eq(g.swap_in_per_s, UINT64_MAX);
	vmemt_balloon_end(&t);
}
