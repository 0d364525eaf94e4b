/* SPDX-License-Identifier: BSD-2-Clause */
/* What VIRTIO 1.3, 5.5.6 asks of the device, rule by rule. B13 and the second half of B14 are the driver's
 * (balloon_driver_test.c). */
#include "balloon/balloon_tools.h"

/* B1: a driver that does not take MUST_TELL_HOST may be refused, a legacy one not. */
Test(balloon_rules, b1_must_tell_host)
{
	struct vmemt_balloon t = { .opts.flags = VMEM_BALLOON_REQUIRE_TELL };
	uint32_t status;

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	status = vmemt_balloon_start(&t, VMEM_BALLOON_F_STATS_VQ | MODERN);
	cr_assert_eq(status, 3u);
	cr_assert_eq(vmemt_progress(&t).features, 0);
	vmem_balloon_set_status(t.b, 0, NULL);
	cr_assert(vmemt_balloon_start(&t, VMEM_BALLOON_F_MUST_TELL_HOST | MODERN) &
		  VMEM_VIRTIO_FEATURES_OK);
	vmem_balloon_set_status(t.b, 0, NULL);
	cr_assert(vmemt_balloon_start(&t, VMEM_BALLOON_F_STATS_VQ) & VMEM_VIRTIO_DRIVER_OK);
	/* It may use pages before it tells: they are still in the balloon here, until it does. */
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 7, 1);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 7, 1);
	cr_assert_eq(vmemt_counters(&t).not_inflated, 0);
	vmemt_balloon_end(&t);
}

/* B1: features that were refused are not agreed on, and who has not written any yet is no legacy driver. */
Test(balloon_rules, b1_buffers_before_features)
{
	struct vmemt_balloon t = { .opts.flags = VMEM_BALLOON_REQUIRE_TELL };
	const uint32_t gfn = 7;
	uint32_t status;

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	vmem_balloon_set_status(t.b, 3, NULL);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, sizeof(gfn)), -VMEM_EPERM);
	cr_assert_eq(vmem_balloon_queue_of(t.b, 0, &(enum vmem_balloon_queue){ 0 }), -VMEM_ENOENT);
	cr_assert_eq(vmemt_balloon_start(&t, MODERN), 3u);
	vmem_balloon_set_status(t.b, 0, NULL);
	/* One that begins as a legacy driver does not become another. */
	vmem_balloon_set_status(t.b, 3, NULL);
	cr_assert_eq(vmem_balloon_set_features(t.b, VMEM_BALLOON_F_STATS_VQ), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 7, 1);
	cr_assert_eq(vmem_balloon_set_features(t.b, MODERN), -VMEM_EBUSY);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, &status);
	cr_assert_eq(status, 3u);
	cr_assert_eq(vmem_balloon_set_features(t.b, VMEM_BALLOON_F_STATS_VQ), 0);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, &status);
	cr_assert_eq(status, 3 | VMEM_VIRTIO_FEATURES_OK);
	cr_assert_eq(vmemt_progress(&t).features, VMEM_BALLOON_F_STATS_VQ);
	vmemt_balloon_end(&t);
}

/* Where there is only the legacy interface, nothing needs to be written before. */
Test(balloon_rules, b1_only_legacy)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_make(&t, ALL_FEATURES, PAGE);
	vmem_balloon_set_status(t.b, 3, NULL);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 7, 1);
	vmemt_balloon_end(&t);
}

/* B2: pages are changed only before the inflate buffer is returned; taken back, they are the guest's again only when
 * the deflate buffer is. */
Test(balloon_rules, b2_changed_before_the_buffer_is_returned)
{
	const uint32_t gfns[] = { 5, 6, 9 };
	struct vmem_balloon_range r[1];
	struct vmem_balloon_done done;
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, MODERN);
	for (uint32_t queue = VMEM_BALLOON_INFLATE; queue <= VMEM_BALLOON_DEFLATE; queue++) {
		cr_assert_eq(vmemt_give(&t, queue, gfns, sizeof(gfns)), 0);
		cr_assert_eq(vmem_balloon_take_done(t.b, &done), 0);
		cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 1), 1);
		cr_assert_eq(r->bytes, 2 * PAGE);
		cr_assert_eq(vmem_balloon_take_done(t.b, &done), 0);
		cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 1), 1);
		cr_assert_eq(r->gpa, 9 * PAGE);
		vmemt_one_done(&t, queue);
		vmemt_no_range(&t);
	}
	vmemt_balloon_end(&t);
}

/* B2, where a block is more than a page: one that is remembered may be in use again, unless the driver must tell. */
Test(balloon_rules, b2_blocks_of_who_need_not_tell)
{
	for (uint64_t pages = 2; pages <= 512; pages *= 256) {
		struct vmemt_balloon t = { 0 };

		vmemt_balloon_make(&t, ALL_FEATURES | MODERN, pages * PAGE);
		vmemt_balloon_start(&t, MODERN);
		vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 1);
		for (uint32_t i = 1; i < pages; i++) {
			cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &i, sizeof(i)), 0);
			vmemt_no_range(&t);
			vmemt_one_done(&t, VMEM_BALLOON_INFLATE);
		}
		cr_assert_eq(vmemt_progress(&t).partial, pages);
		vmemt_balloon_sound(t.b);
		vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 0, 1);
		vmemt_balloon_end(&t);
	}
}

static size_t put_stat(uint8_t *bytes, uint16_t tag, uint64_t value)
{
	memcpy(bytes, &tag, sizeof(tag));
	memcpy(bytes + 2, &value, sizeof(value));
	return VMEM_BALLOON_STAT_BYTES;
}

static struct vmem_balloon_guest guest_of(const struct vmemt_balloon *t)
{
	struct vmem_balloon_guest g = { .size = sizeof(g) };

	cr_assert_eq(vmem_balloon_get_guest(t->b, &g), 0);
	return g;
}

/* B3: unknown tags, any order, one buffer that stays here until it is asked for. */
Test(balloon_rules, b3_statistics)
{
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_done done;
	struct vmem_balloon_guest g = { .size = sizeof(g) };
	uint8_t bytes[40];
	size_t n = 0;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmem_balloon_ask_stats(t.b), -VMEM_EAGAIN);
	cr_assert_eq(vmem_balloon_get_guest(t.b, &g), -VMEM_ENOENT);
	n += put_stat(bytes + n, 65534, 11);
	n += put_stat(bytes + n, VMEM_BALLOON_CACHES, 12);
	n += put_stat(bytes + n, VMEM_BALLOON_FREE, 13);
	n += put_stat(bytes + n, VMEM_BALLOON_CACHES, 14);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, bytes, n), 0);
	cr_assert_eq(vmem_balloon_take_done(t.b, &done), 0);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_STATS));
	g = guest_of(&t);
	cr_assert_eq(g.known, 1u << VMEM_BALLOON_CACHES | 1u << VMEM_BALLOON_FREE);
	cr_assert_eq(g.values[VMEM_BALLOON_CACHES], 14);
	cr_assert_eq(g.values[VMEM_BALLOON_FREE], 13);
	cr_assert_eq(g.other_count, 1);
	cr_assert_eq(g.other_tags[0], 65534);
	cr_assert_eq(g.other_values[0], 11);
	cr_assert_eq(vmem_balloon_ask_stats(t.b), 0);
	vmemt_one_done(&t, VMEM_BALLOON_STATS);
	cr_assert_eq(vmem_balloon_ask_stats(t.b), -VMEM_EAGAIN);
	/* A second buffer while one is here: the first goes back. */
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, bytes, n), 0);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, bytes, n), 0);
	cr_assert_eq(vmemt_counters(&t).unexpected, 1);
	cr_assert_eq(vmem_balloon_take_done(t.b, &done), 1);
	cr_assert_eq(done.token, t.tokens - 1);
	vmemt_balloon_end(&t);
}

/* Of tags that are not known here so many are kept as there is room for, each as it was told last. */
Test(balloon_rules, b3_many_unknown_tags)
{
	uint8_t bytes[(VMEM_BALLOON_OTHER_TAGS + 6) * VMEM_BALLOON_STAT_BYTES];
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_guest g;
	size_t n = 0;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	for (uint16_t i = 0; i < VMEM_BALLOON_OTHER_TAGS + 4; i++)
		n += put_stat(bytes + n, (uint16_t)(VMEM_BALLOON_TAGS + i), i);
	n += put_stat(bytes + n, VMEM_BALLOON_TAGS + 3, 77);
	n += put_stat(bytes + n, VMEM_BALLOON_FREE, 78);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, bytes, n), 0);
	g = guest_of(&t);
	cr_assert_eq(g.other_count, VMEM_BALLOON_OTHER_TAGS);
	for (uint16_t i = 0; i < VMEM_BALLOON_OTHER_TAGS; i++) {
		cr_assert_eq(g.other_tags[i], VMEM_BALLOON_TAGS + i);
		cr_assert_eq(g.other_values[i], i == 3 ? 77 : i);
	}
	cr_assert_eq(g.values[VMEM_BALLOON_FREE], 78);
	vmemt_balloon_end(&t);
}

/* B4: the first buffer of a legacy driver says nothing, and its numbers have the guest's order; the configuration is
 * little-endian for it too. */
Test(balloon_rules, b4_legacy_statistics)
{
	const uint8_t big[] = { 0, VMEM_BALLOON_FREE, 0, 0, 0, 0, 0, 0, 0x12, 0x34 };
	struct vmemt_balloon t = { .opts.flags = VMEM_BALLOON_LEGACY_BIG_ENDIAN };
	struct vmem_balloon_guest g = { .size = sizeof(g) };
	const uint8_t actual[] = { 1, 2, 0, 0 };
	uint32_t gfn = __builtin_bswap32(0x123);

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	cr_assert(vmemt_balloon_start(&t, ALL_FEATURES) & VMEM_VIRTIO_DRIVER_OK);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, big, sizeof(big)), 0);
	cr_assert_eq(vmem_balloon_get_guest(t.b, &g), -VMEM_ENOENT);
	cr_assert_eq(vmem_balloon_ask_stats(t.b), 0);
	vmemt_one_done(&t, VMEM_BALLOON_STATS);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, big, sizeof(big)), 0);
	cr_assert_eq(guest_of(&t).values[VMEM_BALLOON_FREE], 0x1234);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, sizeof(gfn)), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 0x123, 1);
	vmemt_one_done(&t, VMEM_BALLOON_INFLATE);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_ACTUAL, actual, 4), 0);
	cr_assert_eq(vmemt_progress(&t).actual, 0x201);
	/* The same bytes of a modern driver are little-endian. */
	vmem_balloon_set_status(t.b, 0, NULL);
	vmemt_balloon_start(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, big, sizeof(big)), 0);
	cr_assert_eq(guest_of(&t).known, 0);
	cr_assert_eq(guest_of(&t).other_tags[0], VMEM_BALLOON_FREE << 8);
	vmemt_balloon_end(&t);
}

/* B5: `actual` counts when its last byte is written. */
Test(balloon_rules, b5_actual_counts_when_whole)
{
	const uint8_t bytes[] = { 0x11, 0x22, 0, 0 };
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_make(&t, MODERN, PAGE);
	vmemt_balloon_start(&t, 0);
	for (uint32_t i = 0; i < 4; i++) {
		cr_assert_eq(vmemt_progress(&t).actual, 0);
		cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_ACTUAL));
		cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_ACTUAL + i,
						       bytes + i, 1),
			     0);
	}
	cr_assert_eq(vmemt_progress(&t).actual, 0x2211);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_ACTUAL), 0x2211);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_ACTUAL)); /* it gave none */
	vmemt_balloon_end(&t);
}

static void send_id(struct vmemt_balloon *t, uint32_t id)
{
	cr_assert_eq(vmemt_give(t, VMEM_BALLOON_HINT, &id, sizeof(id)), 0);
}

static void all_done(struct vmemt_balloon *t)
{
	struct vmem_balloon_done done;

	vmemt_no_range(t);
	while (vmem_balloon_take_done(t->b, &done))
		;
}

/* B6: each run has an id of its own, which is neither STOP nor DONE, also after 2^32 of them. */
Test(balloon_rules, b6_ids_of_hints)
{
	struct vmemt_balloon t = { 0 };
	uint32_t id;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_STOP);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	id = vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID);
	cr_assert_geq(id, VMEM_BALLOON_HINT_FIRST);
	cr_assert_eq(vmem_balloon_hint_start(t.b), -VMEM_EBUSY);
	vmem_balloon_hint_stop(t.b);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_STOP);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	cr_assert_neq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), id);
	vmem_balloon_hint_stop(t.b);
	t.b->hint_last = UINT32_MAX;
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_FIRST);
	vmemt_balloon_end(&t);
}

/* B7: what comes under another id is left alone. */
Test(balloon_rules, b7_pages_of_another_id)
{
	struct vmemt_balloon t = { 0 };
	uint32_t id;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, PAGE), 0); /* nobody asked */
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	id = vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, PAGE), 0); /* before the id */
	send_id(&t, id - 1);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, 2 * PAGE), 0);
	vmemt_no_range(&t);
	cr_assert_eq(vmemt_counters(&t).hints_late, 4); /* pages */
	send_id(&t, id);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 8 * PAGE, 2 * PAGE), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD_HINTED, 8, 2);
	/* What was told and not taken yet is left alone, too. */
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 8 * PAGE, 2 * PAGE), 0);
	vmem_balloon_hint_stop(t.b);
	vmemt_no_range(&t);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 8 * PAGE, 2 * PAGE), 0);
	vmemt_no_range(&t);
	vmemt_balloon_end(&t);
}

/* B8: not what was written since, and nothing when it is over. */
Test(balloon_rules, b8_written_since)
{
	struct vmemt_balloon t = { .watch.written = { [1] = 0x2 } };
	uint32_t id;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	t.watch.fail = -VMEM_EIO;
	cr_assert_eq(vmem_balloon_hint_start(t.b), -VMEM_EIO);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_STOP);
	t.watch.fail = 0;
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	cr_assert_eq(t.watch.begun, 1);
	id = vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID);
	send_id(&t, id);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 65 * PAGE, 4 * PAGE), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD_HINTED, 66, 3);
	cr_assert_eq(vmemt_counters(&t).hints_written, 1);
	send_id(&t, VMEM_BALLOON_HINT_STOP);
	all_done(&t);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_DONE);
	send_id(&t, id);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 65 * PAGE, 4 * PAGE), 0);
	vmemt_no_range(&t);
	vmemt_balloon_end(&t);
}

/* B9: DONE when the pages are no longer needed, which is when the last range has been taken. */
Test(balloon_rules, b9_done)
{
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r;
	struct vmem_balloon_done done;
	uint32_t id;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_CONFIG));
	id = vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID);
	send_id(&t, id);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, PAGE), 0);
	send_id(&t, VMEM_BALLOON_HINT_STOP);
	cr_assert_eq(vmem_balloon_take_done(t.b, &done), 0);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), id);
	cr_assert_eq(t.watch.ended, 0);
	cr_assert_eq(vmem_balloon_take_ranges(t.b, &r, 1), 1);
	cr_assert_eq(vmem_balloon_take_done(t.b, &done), 1);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_DONE);
	cr_assert_eq(t.watch.ended, 1);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_HINTED));
	vmemt_balloon_end(&t);
}

/* STOP in a buffer of more pieces than a call looks at: DONE when all of it is done with. */
Test(balloon_rules, b9_done_after_the_buffer)
{
	static struct vmem_balloon_piece pieces[VMEM_BALLOON_WORK_ENTRIES + 1];
	const uint32_t stop = VMEM_BALLOON_HINT_STOP;
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = VMEM_BALLOON_HINT,
					      .bytes = &stop,
					      .count = sizeof(stop),
					      .pieces = pieces,
					      .piece_count = VMEM_BALLOON_WORK_ENTRIES + 1 };
	struct vmemt_balloon t = { 0 };
	uint32_t id;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	id = vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID);
	send_id(&t, id);
	all_done(&t);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EAGAIN);
	all_done(&t);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), id);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	all_done(&t);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_DONE);
	vmemt_balloon_end(&t);
}

/* A reset ends it, too: the guard watches no more, and the host is told. */
Test(balloon_rules, b9_reset)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_HINTED));
	vmem_balloon_set_status(t.b, 0, NULL);
	cr_assert_eq(t.watch.ended, 1);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_HINTED));
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_STOP);
	vmemt_balloon_start(&t, ALL_FEATURES | MODERN);
	vmem_balloon_set_status(t.b, 0, NULL);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_HINTED)); /* none ran */
	vmemt_balloon_end(&t);
}

/* B10: an id has 4 bytes. */
Test(balloon_rules, b10_length_of_an_id)
{
	struct vmemt_balloon t = { 0 };
	uint64_t id;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	id = vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID);
	for (size_t n = 1; n <= 8; n++)
		if (n != 4)
			cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_HINT, &id, n), 0);
	cr_assert_eq(vmemt_counters(&t).malformed, 7);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, PAGE), 0);
	vmemt_no_range(&t);
	vmemt_balloon_end(&t);
}

/* An id of a legacy driver has the guest's order. */
Test(balloon_rules, b10_order_of_a_legacy_id)
{
	struct vmemt_balloon t = { .opts.flags = VMEM_BALLOON_LEGACY_BIG_ENDIAN };

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	vmemt_balloon_start(&t, ALL_FEATURES);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	send_id(&t, vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID));
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, PAGE), 0);
	vmemt_no_range(&t);
	send_id(&t, __builtin_bswap32(vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID)));
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, PAGE), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD_HINTED, 0, 1);
	vmemt_balloon_end(&t);
}

/* B11: what is reported is discarded, unless the guest wants its poison kept. */
Test(balloon_rules, b11_reports_and_poison)
{
	const uint32_t poison = 0xaaaaaaaa;
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, VMEM_BALLOON_F_PAGE_REPORTING | VMEM_BALLOON_F_PAGE_POISON | MODERN);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_REPORT, 512 * PAGE, 512 * PAGE), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD_REPORTED, 512, 512);
	vmemt_one_done(&t, VMEM_BALLOON_REPORT);
	vmem_balloon_set_status(t.b, 0, NULL);
	vmem_balloon_set_features(t.b, t.opts.features);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, NULL);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_POISON, &poison, 4), 0);
	vmem_balloon_set_status(t.b, 7 | VMEM_VIRTIO_FEATURES_OK, NULL);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_REPORT, 512 * PAGE, 512 * PAGE), 0);
	vmemt_no_range(&t);
	vmemt_one_done(&t, VMEM_BALLOON_REPORT);
	cr_assert_eq(vmemt_counters(&t).poisoned, 512);
	/* The next driver has a poison of its own, or none. */
	vmem_balloon_set_status(t.b, 0, NULL);
	vmemt_balloon_start(&t, t.opts.features);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_POISON), 0);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_REPORT, 512 * PAGE, 512 * PAGE), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD_REPORTED, 512, 512);
	vmemt_balloon_end(&t);
}

/* B11: nor is what is hinted. */
Test(balloon_rules, b11_hints_and_poison)
{
	const uint32_t poison = 0xaaaaaaaa;
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	vmem_balloon_set_features(t.b, t.opts.features);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, NULL);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_POISON, &poison, 4), 0);
	vmemt_balloon_start(&t, t.opts.features);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	send_id(&t, vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID));
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, 0, 3 * PAGE), 0);
	vmemt_no_range(&t);
	cr_assert_eq(vmemt_counters(&t).poisoned, 3);
	vmemt_balloon_end(&t);
}

/* B12: poison_val is the driver's to write, before DRIVER_OK. */
Test(balloon_rules, b12_poison_is_written_once)
{
	uint32_t poison = 0x12345678;
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	cr_assert_eq(vmem_balloon_set_features(t.b, t.opts.features), 0);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, NULL);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_POISON, &poison, 4), 0);
	vmem_balloon_set_status(t.b, 7 | VMEM_VIRTIO_FEATURES_OK, NULL);
	poison = 0;
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_POISON, &poison, 4),
		     -VMEM_EPERM);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_POISON), 0x12345678);
	cr_assert_eq(vmemt_counters(&t).late_writes, 1);
	/* Nor is it to be written by who has not taken the feature. */
	vmem_balloon_set_status(t.b, 0, NULL);
	cr_assert_eq(vmem_balloon_set_features(t.b, t.opts.features & ~VMEM_BALLOON_F_PAGE_POISON),
		     0);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, NULL);
	poison = 0x12345678;
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_POISON, &poison, 4),
		     -VMEM_EPERM);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_POISON), 0);
	vmemt_balloon_end(&t);
}

/* B14: pages that the target asks for come back: the host is told, and the driver cannot be stopped. */
Test(balloon_rules, b14_taken_below_the_target)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, VMEM_BALLOON_F_DEFLATE_ON_OOM | MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 256, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 256);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 0, 10);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	cr_assert_eq(vmemt_progress(&t).pages, 246);
	cr_assert_eq(vmem_balloon_set_target(t.b, 100, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 10, 146);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	vmemt_balloon_end(&t);
}

/* B14: a page given for another that comes back then, which is how Linux moves them, is none taken back; nor is what
 * was taken back before. */
Test(balloon_rules, b14_pages_that_move)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, VMEM_BALLOON_F_DEFLATE_ON_OOM | MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 256, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 100);
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 3; i++) {
			vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 1000 + i, 1);
			vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 1000 + i, 1);
			cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
		}
		vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 10 * round, 1);
		vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 10 * round + 1, 9);
		cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	}
	/* When the target is reached each page counts; and down to a lower one none does. */
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 2000, 256 - 70);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 2000, 1);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	cr_assert_eq(vmem_balloon_set_target(t.b, 50, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 2001, 185);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 70, 20);
	cr_assert_eq(vmem_balloon_set_target(t.b, 256, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 1000, 1);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 1000, 1);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	vmemt_balloon_end(&t);
}

/* B14: pages that a lower target no longer asks for may go before the driver is told so; when they are wanted again, one
 * that moves is none taken back. */
Test(balloon_rules, b14_with_a_rate)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, VMEM_BALLOON_F_DEFLATE_ON_OOM | MODERN);
	cr_assert_eq(vmem_balloon_set_target(t.b, 256, 0, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 256);
	cr_assert_eq(vmem_balloon_set_target(t.b, 100, 1, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 0, 156);
	cr_assert_eq(vmemt_progress(&t).told, 256);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	cr_assert_eq(vmem_balloon_set_target(t.b, 256, 1, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 1);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 0, 1);
	cr_assert_not(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	cr_assert_eq(vmem_balloon_set_target(t.b, 100, 1, t.now), 0);
	vmemt_move_pages(&t, VMEM_BALLOON_DEFLATE, 200, 1);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_LEAK));
	vmemt_balloon_end(&t);
}
