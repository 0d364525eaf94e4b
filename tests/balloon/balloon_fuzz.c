/* SPDX-License-Identifier: BSD-2-Clause */
/* A driver that does anything: each input is a sequence of configuration accesses, features, status, buffers of any
 * length with any bytes, and what the host does meanwhile. Whatever it does, the device is sound after each step, the
 * ranges are RAM and come to an end, each buffer taken is returned once, and restoring any bytes is safe. */
#include <stdlib.h>
#include <string.h>
#include <vmem/allocator.h>
#include "balloon/balloon_internal.h"
#include "support/fuzz_input.h"
#include "support/mended_stream.h"

enum { RAM_PAGES = 700, SECOND_FIRST = 1024, SECOND_PAGES = 1024, PIECES = 8 };

static int begin(void *context)
{
	(void)context;
	return 0;
}

static uint64_t unwritten(void *context, uint64_t first)
{
	(void)context;
	return first * UINT64_C(0x9e3779b97f4a7c15);
}

static void end(void *context)
{
	(void)context;
}

static void drain(vmem_balloon *b, uint64_t *returned)
{
	struct vmem_balloon_range ranges[5];
	struct vmem_balloon_done done;
	uint64_t last = 0;
	size_t n;

	while ((n = vmem_balloon_take_ranges(b, ranges, 5)) != 0)
		for (size_t i = 0; i < n; i++) {
			uint64_t first = ranges[i].gpa / VMEM_PAGE_SIZE;
			uint64_t behind = first + ranges[i].bytes / VMEM_PAGE_SIZE;

			require(ranges[i].bytes != 0 && first >= last);
			require(ranges[i].operation != VMEM_BALLOON_DISCARD_HINTED ||
				b->hint_running);
			require(behind <= RAM_PAGES ||
				(first >= SECOND_FIRST && behind <= SECOND_FIRST + SECOND_PAGES));
			last = behind;
		}
	while (vmem_balloon_take_done(b, &done))
		*returned += 1;
}

static void give(vmem_balloon *b, struct input *in, uint64_t *given, uint64_t *returned)
{
	struct vmem_balloon_piece pieces[PIECES];
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = (uint32_t)take(in, 1) % VMEM_BALLOON_QUEUES,
					      .token = *given,
					      .now_ns = take(in, 4) };
	uint64_t value;
	int err;

	buffer.piece_count = take(in, 1) % (PIECES + 1);
	for (size_t i = 0; i < buffer.piece_count; i++) {
		pieces[i].gpa = take(in, 1) & 1 ? take(in, 8) : take(in, 3);
		pieces[i].bytes = take(in, 1) & 1 ? take(in, 8) : take(in, 3);
	}
	buffer.pieces = pieces;
	value = take(in, 2);
	buffer.count = value % (in->left + 1);
	buffer.bytes = in->data;
	for (int i = 0; (err = vmem_balloon_give(b, &buffer)) == -VMEM_EAGAIN; i++) {
		require(i < 100000);
		drain(b, returned);
	}
	require(!err || err == -VMEM_EPERM);
	*given += !err;
	in->data += buffer.count;
	in->left -= buffer.count;
}

static void one_step(vmem_balloon *b, struct input *in, uint64_t *given, uint64_t *returned)
{
	uint64_t value;
	uint32_t offset;
	uint8_t bytes[32];

	switch (take(in, 1) % 12) {
	case 0:
		(void)vmem_balloon_set_features(b, take(in, 1) & 1 ? take(in, 8)
								   : b->offered & take(in, 1));
		break;
	case 1:
		value = take(in, 1);
		vmem_balloon_set_status(b, (uint32_t)value, NULL);
		if (!value)
			*given = *returned = 0;
		break;
	case 2:
		offset = (uint32_t)take(in, 1);
		value = take(in, 8);
		(void)vmem_balloon_config_write(b, offset, &value, (uint32_t)take(in, 1) % 9);
		break;
	case 3:
		(void)vmem_balloon_config_read(b, (uint32_t)take(in, 4), bytes, sizeof(bytes));
		break;
	case 4: (void)vmem_balloon_set_target(b, take(in, 2), take(in, 2), take(in, 4)); break;
	case 5: vmem_balloon_tick(b, take(in, 8)); break;
	case 6: (void)vmem_balloon_hint_start(b); break;
	case 7: vmem_balloon_hint_stop(b); break;
	case 8: (void)vmem_balloon_ask_stats(b); break;
	default: give(b, in, given, returned); break;
	}
}

static void restore(const struct vmem_balloon_opts *opts, struct input in)
{
	for (int mend = 0; mend < 2; mend++) {
		struct vmemt_mended source = { .data = in.data, .left = in.left, .mend = mend };
		vmem_balloon *b;

		require(vmem_balloon_new(&b, opts) == 0);
		require(vmem_balloon_add_ram(b, 0, RAM_PAGES * 4096, 4096) == 0);
		(void)vmem_balloon_restore(b, vmemt_mended_read, &source);
		require(!vmemi_balloon_check(b));
		vmem_balloon_free(b);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct vmem_balloon_guard guard = {
		.size = sizeof(guard), .begin = begin, .unwritten = unwritten, .end = end
	};
	struct input in = { .data = data, .left = bytes };
	struct vmem_balloon_opts opts = { .size = sizeof(opts), .guard = &guard };
	uint64_t given = 0, returned = 0;
	vmem_balloon *b;

	opts.flags = take(&in, 1) & (VMEM_BALLOON_REQUIRE_TELL | VMEM_BALLOON_LEGACY_BIG_ENDIAN);
	opts.features = take(&in, 1) & 0x3f;
	opts.features |= VMEM_VIRTIO_F_VERSION_1 | (take(&in, 1) & 1 ? VMEM_BALLOON_F_RANGES : 0);
	opts.map = (uint32_t)take(&in, 1) % VMEM_BALLOON_MAP_GIVEN;
	restore(&opts, in);
	require(vmem_balloon_new(&b, &opts) == 0);
	require(vmem_balloon_add_ram(b, 0, RAM_PAGES * 4096, 4096) == 0);
	require(vmem_balloon_add_ram(b, SECOND_FIRST * 4096, SECOND_PAGES * 4096, 512 * 4096) == 0);
	while (in.left) {
		one_step(b, &in, &given, &returned);
		require(!vmemi_balloon_check(b));
	}
	drain(b, &returned);
	/* All but the one for statistics that stays. */
	require(given == returned + b->stats_held);
	require(!vmemi_balloon_check(b));
	vmem_balloon_free(b);
	return 0;
}
