/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver and the device together: driver_pair.h. */
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_F_RANGES */
#include "balloon/driver_pair.h"

#define ROUNDS 120u

Test(balloon_driver, in_and_out)
{
	struct pair p = { .guest.row = 37 };

	make_pair(&p, ALL_FEATURES | MODERN, ALL_FEATURES | MODERN, 0);
	start_pair(&p);
	set_target(&p, 1000);
	agree(&p);
	cr_assert_eq(held(&p), 1000);
	cr_assert_eq(p.discarded, 1000);
	set_target(&p, 400);
	agree(&p);
	cr_assert_eq(held(&p), 400);
	set_target(&p, 0);
	agree(&p);
	cr_assert_eq(held(&p), 0);
	end_pair(&p);
}

/* 5.5.6.1: `actual` is told once after all buffers of a change, also when there are no more pages to give, and when
 * memory is short. */
Test(balloon_driver, actual_when_all_is_moved)
{
	struct pair p = { 0 };

	make_pair(&p, ALL_FEATURES | MODERN, ALL_FEATURES | MODERN, 0);
	start_pair(&p);
	set_target(&p, 1000);
	agree(&p);
	cr_assert_eq(vmemt_counters(&p.device).inflated, 1000);
	cr_assert_eq(p.told, 1);
	set_target(&p, 100);
	agree(&p);
	cr_assert_eq(p.told, 2);
	set_target(&p, 100);
	cr_assert_eq(p.told, 2);
	memset(p.guest.use + 2000, USED, GUEST_PAGES - 2000);
	set_target(&p, 2048); /* it stops short of it */
	agree(&p);
	cr_assert_eq(held(&p), 2000);
	cr_assert_eq(p.told, 3);
	cr_assert_eq(vmem_balloon_driver_oom(p.driver, 1000), 1000);
	run(&p);
	agree(&p);
	cr_assert_eq(p.told, 4);
	end_pair(&p);
}

static uint64_t take_next(void *context, uint64_t most, uint64_t *ret_gfn)
{
	uint64_t *next = context;

	*ret_gfn = *next;
	*next += most;
	return most;
}

static void give_nothing(void *context, uint64_t gfn, uint64_t pages)
{
	(void)context;
	(void)gfn;
	(void)pages;
}

/* On a long way it is told from time to time, and never more than was acknowledged. */
Test(balloon_driver, actual_on_a_long_way)
{
	const uint32_t pages = 20000, step = 4096, entries = VMEM_BALLOON_DRIVER_ENTRIES;
	uint32_t moved = 0, told = 0, times = 0, config[2] = { pages };
	struct vmem_balloon_out out = { .size = sizeof(out) };
	uint64_t next = 0;
	struct vmem_balloon_guest_memory m = {
		.size = sizeof(m), .context = &next, .take = take_next, .give = give_nothing
	};
	struct vmem_balloon_driver_opts o = { .size = sizeof(o), .memory = &m, .max_spans = 1000 };
	vmem_balloon_driver *d;

	cr_assert_eq(vmem_balloon_driver_new(&d, &o), 0);
	(void)vmem_balloon_driver_negotiate(d, MODERN);
	vmem_balloon_driver_start(d);
	vmem_balloon_driver_config(d, config, sizeof(config));
	while (vmem_balloon_driver_next(d, &out)) {
		if (out.queue == VMEM_BALLOON_NO_QUEUE) {
			cr_assert_eq(out.value, moved);
			told = out.value;
			times++;
			continue;
		}
		cr_assert_eq(vmem_balloon_driver_next(d, &out), 0); /* it waits for the buffer */
		moved += out.count / 4;
		cr_assert_eq(vmem_balloon_driver_returned(d, VMEM_BALLOON_INFLATE), 0);
		cr_assert_lt(moved - told, step + entries);
	}
	cr_assert_eq(told, pages);
	cr_assert_eq(times, pages / step + 1);
	vmem_balloon_driver_free(d);
}

/* As many page numbers as are wanted, or ranges, are in a buffer. */
Test(balloon_driver, entries)
{
	static const uint32_t entries[] = { 0, 1, 3, 1000, VMEM_BALLOON_DRIVER_ENTRIES_MOST };

	for (int ranges = 0; ranges < 2; ranges++)
		for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++) {
			uint64_t each = entries[i] ? entries[i] : VMEM_BALLOON_DRIVER_ENTRIES;
			struct pair p = { .guest.row = 2, .entries = entries[i] };
			uint64_t features = MODERN | (ranges ? VMEM_BALLOON_F_RANGES : 0);

			if (ranges)
				each *= p.guest.row;
			make_pair(&p, features, features, 0);
			start_pair(&p);
			set_target(&p, 2500);
			agree(&p);
			cr_assert_eq(vmemt_counters(&p.device).buffers, (2500 + each - 1) / each);
			set_target(&p, 0);
			agree(&p);
			end_pair(&p);
		}
}

/* Rows go as ranges where both know them: far fewer buffers. */
Test(balloon_driver, spans)
{
	struct pair p = { .guest.row = GUEST_PAGES };

	make_pair(&p, VMEM_BALLOON_F_RANGES | MODERN, VMEM_BALLOON_F_RANGES | MODERN, 0);
	start_pair(&p);
	set_target(&p, 4000);
	agree(&p);
	cr_assert_eq(vmemt_counters(&p.device).buffers, 1);
	set_target(&p, 7);
	agree(&p);
	cr_assert_eq(vmemt_counters(&p.device).buffers, 2);
	end_pair(&p);
}

/* A guest without pages to give waits until it is told to try again. */
Test(balloon_driver, starved)
{
	struct vmem_balloon_out out = { .size = sizeof(out) };
	struct pair p = { 0 };

	make_pair(&p, MODERN, MODERN, 0);
	start_pair(&p);
	memset(p.guest.use, USED, sizeof(p.guest.use));
	memset(p.guest.use, FREE, 10);
	set_target(&p, 100);
	agree(&p);
	cr_assert_eq(held(&p), 10);
	cr_assert_eq(vmem_balloon_driver_next(p.driver, &out), 0);
	memset(p.guest.use + 10, FREE, 200);
	cr_assert_eq(vmem_balloon_driver_next(p.driver, &out), 0);
	vmem_balloon_driver_retry(p.driver);
	run(&p);
	agree(&p);
	cr_assert_eq(held(&p), 100);
	/* A page without a number is not given, and not lost. */
	p.guest.far = UINT64_C(1) << 32;
	set_target(&p, 200);
	cr_assert_eq(held(&p), 100);
	cr_assert_geq(p.guest.far_back, 1);
	end_pair(&p);
}

/* Without memory it takes pages back, but only where that was agreed; not to give them again at once. */
Test(balloon_driver, out_of_memory)
{
	for (int agreed = 0; agreed < 2; agreed++) {
		uint64_t features = MODERN | (agreed ? VMEM_BALLOON_F_DEFLATE_ON_OOM : 0);
		struct pair p = { 0 };

		make_pair(&p, ALL_FEATURES | MODERN, features, 0);
		start_pair(&p);
		set_target(&p, 300);
		cr_assert_eq(vmem_balloon_driver_oom(p.driver, 200), agreed ? 200 : 0);
		cr_assert_eq(vmem_balloon_driver_oom(p.driver, 56), agreed ? 56 : 0);
		run(&p);
		agree(&p);
		cr_assert_eq(held(&p), agreed ? 44 : 300);
		cr_assert_eq(vmem_balloon_driver_oom(p.driver, 256), agreed ? 44 : 0);
		run(&p);
		agree(&p);
		vmem_balloon_driver_retry(p.driver);
		run(&p);
		cr_assert_eq(held(&p), 300);
		end_pair(&p);
	}
}

/* B13, and MUST_TELL_HOST: pages are used again only when the device has returned the buffer. */
Test(balloon_driver, b13_used_when_acknowledged)
{
	for (int tell = 0; tell < 2; tell++) {
		uint64_t features = MODERN | (tell ? VMEM_BALLOON_F_MUST_TELL_HOST : 0);
		struct vmem_balloon_out out = { .size = sizeof(out) };
		struct pair p = { 0 };

		make_pair(&p, ALL_FEATURES | MODERN, features | VMEM_BALLOON_F_PAGE_REPORTING, 0);
		start_pair(&p);
		set_target(&p, 100);
		cr_assert_eq(vmem_balloon_set_target(p.device.b, 40, 0, p.device.now), 0);
		read_config(&p);
		cr_assert_eq(vmem_balloon_driver_next(p.driver, &out), 1);
		cr_assert_eq(out.queue, VMEM_BALLOON_DEFLATE);
		cr_assert_eq(held(&p), tell ? 100 : 40);
		cr_assert_eq(vmem_balloon_driver_returned(p.driver, VMEM_BALLOON_INFLATE),
			     -VMEM_ENOENT);
		one_out(&p, &out);
		device_works(&p);
		cr_assert_eq(held(&p), 40);
		run(&p);
		agree(&p);
		vmem_balloon_driver_retry(p.driver);
		cr_assert_eq(vmem_balloon_driver_next(p.driver, &out), 1);
		cr_assert_eq(out.queue, VMEM_BALLOON_REPORT);
		for (uint32_t i = 0; i < out.piece_count; i++)
			cr_assert_eq(p.guest.use[out.pieces[i].gpa / PAGE], ISOLATED);
		one_out(&p, &out);
		device_works(&p);
		run(&p);
		for (uint64_t i = 0; i < GUEST_PAGES; i++)
			cr_assert_neq(p.guest.use[i], ISOLATED);
		cr_assert_eq(vmemt_counters(&p.device).reported, GUEST_PAGES - 40);
		end_pair(&p);
	}
}

/* A reset gives the guest all pages back, each once, also those on their way in or out. */
Test(balloon_driver, reset_while_pages_move)
{
	for (int way = 0; way < 3; way++) {
		uint64_t features = MODERN | (way == 2 ? VMEM_BALLOON_F_MUST_TELL_HOST : 0);
		struct vmem_balloon_out out = { .size = sizeof(out) };
		struct pair p = { 0 };

		make_pair(&p, ALL_FEATURES | MODERN, features, 0);
		start_pair(&p);
		set_target(&p, 300);
		cr_assert_eq(vmem_balloon_set_target(p.device.b, way ? 200 : 400, 0, p.device.now),
			     0);
		read_config(&p);
		cr_assert_eq(vmem_balloon_driver_next(p.driver, &out), 1);
		cr_assert_eq(out.queue, way ? VMEM_BALLOON_DEFLATE : VMEM_BALLOON_INFLATE);
		(void)vmem_balloon_driver_negotiate(p.driver, features);
		cr_assert_eq(held(&p), 0);
		end_pair(&p);
	}
}

/* B14, the driver's half: without DEFLATE_ON_OOM pages that the target asks for stay in the balloon, whatever the guest
 * is short of; those above it are taken. */
Test(balloon_driver, b14_keeps_what_the_target_asks_for)
{
	const uint64_t features = ALL_FEATURES & ~VMEM_BALLOON_F_DEFLATE_ON_OOM;
	struct pair p = { 0 };

	make_pair(&p, ALL_FEATURES | MODERN, features | MODERN, 0);
	start_pair(&p);
	for (uint64_t target = 300; target; target -= 100) {
		set_target(&p, target);
		cr_assert_eq(held(&p), target);
		cr_assert_eq(vmem_balloon_driver_oom(p.driver, 50), 0);
		vmem_balloon_driver_retry(p.driver);
		run(&p);
		agree(&p);
		cr_assert_eq(held(&p), target);
	}
	cr_assert_not(vmemt_event(&p.device, VMEM_BALLOON_EVENT_LEAK));
	end_pair(&p);
}

/* All free pages are hinted once, and the guest has them back when the device is done. */
Test(balloon_driver, hints)
{
	struct pair p = { 0 };

	make_pair(&p, ALL_FEATURES | MODERN, ALL_FEATURES | MODERN, 0);
	start_pair(&p);
	set_target(&p, 96);
	memset(p.guest.use + 1000, USED, 500);
	p.device.watch.written[2000 / 64] = UINT64_C(0xff);
	for (int i = 0; i < 2; i++) {
		uint64_t before = vmemt_counters(&p.device).hinted;

		cr_assert_eq(vmem_balloon_hint_start(p.device.b), 0);
		read_config(&p);
		run(&p);
		cr_assert_eq(vmemt_counters(&p.device).hinted - before, GUEST_PAGES - 96 - 500 - 8);
		cr_assert_eq(vmemt_config(&p.device, VMEM_BALLOON_CONFIG_HINT_ID),
			     VMEM_BALLOON_HINT_DONE);
		for (uint64_t k = 0; k < GUEST_PAGES; k++)
			cr_assert_neq(p.guest.use[k], ISOLATED);
	}
	agree(&p);
	end_pair(&p);
}

/* A report that is on its way keeps its pages, whatever the device asks for meanwhile. */
Test(balloon_driver, hints_wait_for_reports)
{
	const uint64_t features = ALL_FEATURES | MODERN;
	uint8_t space[VMEM_BALLOON_CONFIG_BYTES] = { [VMEM_BALLOON_CONFIG_HINT_ID] = 7 };
	struct vmem_balloon_out out = { .size = sizeof(out) };
	uint64_t page;
	struct pair p = { 0 };

	make_pair(&p, features, features, 0);
	start_pair(&p);
	run(&p);
	vmem_balloon_driver_retry(p.driver);
	cr_assert_eq(vmem_balloon_driver_next(p.driver, &out), 1);
	cr_assert_eq(out.queue, VMEM_BALLOON_REPORT);
	page = out.pieces[0].gpa / PAGE;
	vmem_balloon_driver_config(p.driver, space, sizeof(space));
	cr_assert_eq(vmem_balloon_driver_next(p.driver, &out), 0);
	space[VMEM_BALLOON_CONFIG_HINT_ID] = VMEM_BALLOON_HINT_DONE;
	vmem_balloon_driver_config(p.driver, space, sizeof(space));
	cr_assert_eq(p.guest.use[page], ISOLATED);
	cr_assert_eq(vmem_balloon_driver_returned(p.driver, VMEM_BALLOON_REPORT), 0);
	cr_assert_eq(p.guest.use[page], FREE);
	end_pair(&p);
}

/* A driver whose free pages must keep what they hold says so, or has no part in reports and hints. */
Test(balloon_driver, poison)
{
	const uint64_t all = ALL_FEATURES | MODERN;
	struct pair p = { 0 };
	struct vmem_balloon_driver_opts o = { .size = sizeof(o),
					      .memory = &p.memory,
					      .features = all,
					      .max_spans = 1,
					      .poison = 0xaa };
	vmem_balloon_driver *d;
	uint32_t value = 0;

	make_pair(&p, all, all, 0);
	cr_assert_eq(vmem_balloon_driver_new(&d, &o), 0);
	cr_assert_eq(vmem_balloon_driver_negotiate(d, all), all);
	cr_assert_eq(vmem_balloon_driver_poison(d, &value), 1);
	cr_assert_eq(value, 0xaa);
	cr_assert_eq(vmem_balloon_driver_negotiate(d, all & ~VMEM_BALLOON_F_PAGE_POISON) &
			     (VMEM_BALLOON_F_FREE_PAGE_HINT | VMEM_BALLOON_F_PAGE_REPORTING),
		     0);
	cr_assert_eq(vmem_balloon_driver_poison(d, &value), 0);
	vmem_balloon_driver_free(d);
	end_pair(&p);
}

Test(balloon_driver, options)
{
	struct vmem_balloon_guest_memory m = { .size = sizeof(m), .take = take };
	struct vmem_balloon_driver_opts o = { .size = sizeof(o), .memory = &m, .max_spans = 1 };
	vmem_balloon_driver *d = NULL;

	cr_assert_eq(vmem_balloon_driver_new(&d, &o), -VMEM_EINVAL);
	m.give = give;
	m.isolate = isolate;
	cr_assert_eq(vmem_balloon_driver_new(&d, &o), -VMEM_EINVAL);
	m.isolate = NULL;
	o.max_spans = 0;
	cr_assert_eq(vmem_balloon_driver_new(&d, &o), -VMEM_EINVAL);
	o.max_spans = 1;
	o.entries = VMEM_BALLOON_DRIVER_ENTRIES_MOST + 1;
	cr_assert_eq(vmem_balloon_driver_new(&d, &o), -VMEM_EINVAL);
	o.entries = 0;
	o.memory = NULL;
	cr_assert_eq(vmem_balloon_driver_new(&d, &o), -VMEM_EINVAL);
	o.memory = &m;
	cr_assert_eq(vmem_balloon_driver_new(&d, &o), 0);
	cr_assert_eq(vmem_balloon_driver_negotiate(d, ALL_FEATURES | MODERN), 0); /* none wanted */
	vmem_balloon_driver_free(d);
	vmem_balloon_driver_free(NULL);
}

static void random_step(struct pair *p, uint64_t *rng)
{
	uint64_t first = vmemt_rand(rng) % GUEST_PAGES, pages = vmemt_rand(rng) % 300;

	switch (vmemt_rand(rng) % 8) {
	case 0:
	case 1: set_target(p, vmemt_rand(rng) % (GUEST_PAGES + 1)); break;
	case 2: vmem_balloon_driver_oom(p->driver, pages); break;
	case 3: vmem_balloon_driver_retry(p->driver); break;
	case 4:
		if (vmem_balloon_hint_start(p->device.b) == 0)
			read_config(p);
		break;
	case 5: (void)vmem_balloon_ask_stats(p->device.b); break;
	default: /* the guest uses memory, or frees it */
		for (uint64_t i = first; i < first + pages && i < GUEST_PAGES; i++)
			if (p->guest.use[i] <= USED)
				p->guest.use[i] = vmemt_rand(rng) % 4 ? USED : FREE;
	}
	device_works(p);
	run(p);
}

/* Each feature set with each way of numbering queues. */
Test(balloon_driver, all_features_and_maps)
{
	uint64_t rng = vmemt_seed("balloon_driver");

	for (uint64_t set = 0; set < 128; set++)
		for (uint32_t map = 0; map < VMEM_BALLOON_MAP_GIVEN; map++) {
			uint64_t ranges = set & 64 ? VMEM_BALLOON_F_RANGES : 0;
			struct pair p = { .guest.row = 1 + vmemt_rand(&rng) % 100 };

			make_pair(&p, ALL_FEATURES | VMEM_BALLOON_F_RANGES | MODERN,
				  (set & ALL_FEATURES) | ranges | MODERN, map);
			start_pair(&p);
			run(&p);
			for (uint32_t i = 0; i < ROUNDS / 8; i++) {
				random_step(&p, &rng);
				agree(&p);
				if (vmemt_rand(&rng) % 8 == 0)
					start_pair(&p); /* a reset */
			}
			end_pair(&p);
		}
}
