/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver and the device over queues in memory, with a guest whose pages are looked after: none is ever in two
 * places, and the device knows of just those that the driver has given. */
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_F_RANGES */
#include <vmem/balloon_driver.h>
#include "balloon/balloon_tools.h"

#define GUEST_PAGES 4096u
#define ROUNDS 120u

enum use { FREE, USED, HELD, ISOLATED };

struct guest {
	uint8_t use[GUEST_PAGES];
	uint64_t cursor; /* of free ranges */
	uint64_t row;    /* most pages that take() gives at once */
	uint64_t far;    /* take() gives this page, which the device has no number for; 0: no */
	uint64_t far_back;
	uint32_t asked;
};

static uint64_t take(void *context, uint64_t most, uint64_t *ret_gfn)
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

static void give(void *context, uint64_t gfn, uint64_t pages)
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

static uint32_t stats(void *context, struct vmem_balloon_stat *s, uint32_t most)
{
	struct guest *g = context;

	cr_assert_geq(most, 2);
	s[0] = (struct vmem_balloon_stat){ VMEM_BALLOON_TOTAL, GUEST_PAGES * PAGE };
	s[1] = (struct vmem_balloon_stat){ VMEM_BALLOON_MINOR_FAULTS, ++g->asked };
	return 2;
}

static int isolate(void *context, struct vmem_balloon_piece *piece)
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

static void begin_free(void *context)
{
	((struct guest *)context)->cursor = 0;
}

static void release(void *context, const struct vmem_balloon_piece *piece)
{
	struct guest *g = context;

	for (uint64_t i = piece->gpa / PAGE; i < (piece->gpa + piece->bytes) / PAGE; i++) {
		cr_assert_eq(g->use[i], ISOLATED);
		g->use[i] = FREE;
	}
}

static void release_all(void *context)
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
	uint64_t discarded; /* pages, of all kinds */
};

static void make_pair(struct pair *p, uint64_t offered, uint64_t wanted, uint32_t map)
{
	struct vmem_balloon_driver_opts o = { .size = sizeof(o),
					      .allocator = &p->driver_memory.allocator,
					      .memory = &p->memory,
					      .features = wanted,
					      .max_spans = GUEST_PAGES };

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

static void read_config(struct pair *p)
{
	uint8_t space[VMEM_BALLOON_CONFIG_BYTES];
	uint32_t count = vmem_balloon_config_bytes(p->device.b);

	cr_assert_eq(vmem_balloon_config_read(p->device.b, 0, space, count), 0);
	vmem_balloon_driver_config(p->driver, space, count);
}

static void start_pair(struct pair *p)
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

static void end_pair(struct pair *p)
{
	vmem_balloon_driver_free(p->driver);
	cr_assert_eq(p->driver_memory.live_bytes, 0);
	vmemt_balloon_end(&p->device);
}

/* What the device does for one notification. A page that it discards is not in use. */
static void device_works(struct pair *p)
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

static void one_out(struct pair *p, const struct vmem_balloon_out *out)
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
static void run(struct pair *p)
{
	struct vmem_balloon_out out = { .size = sizeof(out) };
	int event;

	for (uint32_t i = 0; vmem_balloon_driver_next(p->driver, &out); i++) {
		cr_assert_lt(i, 100000);
		one_out(p, &out);
		device_works(p);
		while ((event = vmem_balloon_next_event(p->device.b)) != 0)
			if (event == VMEM_BALLOON_EVENT_CONFIG)
				read_config(p);
	}
}

static uint64_t held(const struct pair *p)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < GUEST_PAGES; i++)
		n += p->guest.use[i] == HELD;
	return n;
}

static void set_target(struct pair *p, uint64_t pages)
{
	cr_assert_eq(vmem_balloon_set_target(p->device.b, pages, 0, p->device.now), 0);
	read_config(p);
	run(p);
}

static struct vmem_balloon_driver_state state_of(const struct pair *p)
{
	struct vmem_balloon_driver_state s = { .size = sizeof(s) };

	cr_assert_eq(vmem_balloon_driver_get_state(p->driver, &s), 0);
	return s;
}

/* Both know of the same pages, and nobody has lost one. */
static void agree(const struct pair *p)
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
