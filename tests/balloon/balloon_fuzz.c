/* SPDX-License-Identifier: BSD-2-Clause */
/* A driver that does anything: each input is a sequence of configuration accesses, features, status, buffers of any
 * length with any bytes, and what the host does meanwhile. Whatever it does, the device is sound after each step, the
 * ranges are RAM and come to an end, each buffer taken is returned once, what is saved comes back, and restoring any
 * bytes is safe. */
#include <stdlib.h>
#include <string.h>
#include <vmem/allocator.h>
#include "balloon/balloon_internal.h"
#include "support/fuzz_input.h"
#include "support/mended_stream.h"

enum { PIECES = 8, TOKENS = 1 << 14, SAVED = 1 << 14, CHANGES = 8 };

static const struct {
	uint64_t first, pages, block;
} rams[] = { { 0, 700, 1 }, { 1024, 1024, 512 }, { 4096, 64, 8 } };

/* The device, and which of the buffers that it took are not back yet. */
static struct {
	vmem_balloon *b;
	uint64_t given;
	bool away[TOKENS];
} run;

struct saved {
	uint8_t bytes[SAVED];
	size_t count;
};

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

static bool is_ram(uint64_t first, uint64_t behind)
{
	for (size_t i = 0; i < sizeof(rams) / sizeof(*rams); i++)
		if (first >= rams[i].first && behind <= rams[i].first + rams[i].pages)
			return true;
	return false;
}

static void drain(void)
{
	struct vmem_balloon_range ranges[5];
	struct vmem_balloon_done done;
	uint64_t last = 0;
	size_t n;

	while ((n = vmem_balloon_take_ranges(run.b, ranges, 5)) != 0)
		for (size_t i = 0; i < n; i++) {
			uint64_t first = ranges[i].gpa / VMEM_PAGE_SIZE;
			uint64_t behind = first + ranges[i].bytes / VMEM_PAGE_SIZE;

			require(ranges[i].bytes != 0 && first >= last);
			require(ranges[i].operation != VMEM_BALLOON_DISCARD_HINTED ||
				run.b->hint_running);
			require(is_ram(first, behind));
			last = behind;
		}
	while (vmem_balloon_take_done(run.b, &done)) {
		require(done.token < run.given && run.away[done.token]);
		run.away[done.token] = false;
	}
}

static void give(struct input *in)
{
	struct vmem_balloon_piece pieces[PIECES];
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = (uint32_t)take(in, 1) % VMEM_BALLOON_QUEUES,
					      .token = run.given,
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
	for (int i = 0; (err = vmem_balloon_give(run.b, &buffer)) == -VMEM_EAGAIN; i++) {
		require(i < 100000);
		drain();
	}
	require(!err || err == -VMEM_EPERM);
	if (!err)
		run.away[run.given++] = true;
	in->data += buffer.count;
	in->left -= buffer.count;
}

/* After a reset no buffer comes back. */
static void forget(void)
{
	run.given = 0;
	memset(run.away, 0, sizeof(run.away));
}

static void one_step(vmem_balloon *b, struct input *in)
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
			forget();
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
	default: give(in); break;
	}
}

static vmem_balloon *new_device(const struct vmem_balloon_opts *opts)
{
	vmem_balloon *b;

	require(vmem_balloon_new(&b, opts) == 0);
	for (size_t i = 0; i < sizeof(rams) / sizeof(*rams); i++)
		require(vmem_balloon_add_ram(b, rams[i].first * VMEM_PAGE_SIZE,
					     rams[i].pages * VMEM_PAGE_SIZE,
					     rams[i].block * VMEM_PAGE_SIZE) == 0);
	return b;
}

/* A new device of these bytes; one that refuses them is as new. */
static vmem_balloon *restore(const struct vmem_balloon_opts *opts, const uint8_t *data,
			     size_t count, int mend, int *ret_err)
{
	struct vmemt_mended source = { .data = data, .left = count, .mend = mend };
	vmem_balloon *b = new_device(opts);

	*ret_err = vmem_balloon_restore(b, vmemt_mended_read, &source);
	require(!vmemi_balloon_check(b));
	require(!*ret_err || (!b->owned && !b->status && !b->negotiated && !b->target));
	return b;
}

static int write_bytes(void *context, const void *bytes, size_t count)
{
	struct saved *s = context;

	require(count <= SAVED - s->count);
	memcpy(s->bytes + s->count, bytes, count);
	s->count += count;
	return 0;
}

static void same(const vmem_balloon *a, const vmem_balloon *b)
{
	struct vmem_balloon_range x, y;
	int err;

	require(a->owned == b->owned && a->released == b->released && a->told == b->told);
	for (uint64_t gpa = 0;; gpa = x.gpa + x.bytes) {
		err = vmem_balloon_next(a, gpa, &x);
		require(err == vmem_balloon_next(b, gpa, &y));
		if (err)
			break;
		require(x.gpa == y.gpa && x.bytes == y.bytes);
	}
}

/* What is saved comes back, and with a byte changed, the checksums made right, does no harm. */
static void save_and_restore(const struct vmem_balloon_opts *opts, uint64_t change)
{
	static struct saved s;
	vmem_balloon *b;
	uint64_t at;
	int err;

	s.count = 0;
	require(vmem_balloon_save(run.b, write_bytes, &s) == 0);
	b = restore(opts, s.bytes, s.count, 0, &err);
	require(!err);
	same(run.b, b);
	vmem_balloon_free(b);
	for (uint64_t i = 1; i <= CHANGES; i++) {
		change = (change + i) * UINT64_C(0x9e3779b97f4a7c15);
		at = (change >> 32) % s.count;
		s.bytes[at] ^= (uint8_t)(change >> 24);
		vmem_balloon_free(restore(opts, s.bytes, s.count, 1, &err));
		s.bytes[at] ^= (uint8_t)(change >> 24);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct vmem_balloon_guard guard = {
		.size = sizeof(guard), .begin = begin, .unwritten = unwritten, .end = end
	};
	struct input in = { .data = data, .left = bytes };
	struct vmem_balloon_opts opts = { .size = sizeof(opts), .guard = &guard };
	int err;

	opts.flags = take(&in, 1) & (VMEM_BALLOON_REQUIRE_TELL | VMEM_BALLOON_LEGACY_BIG_ENDIAN);
	opts.features = take(&in, 1) & 0x3f;
	opts.features |= VMEM_VIRTIO_F_VERSION_1 | (take(&in, 1) & 1 ? VMEM_BALLOON_F_RANGES : 0);
	opts.map = (uint32_t)take(&in, 1) % VMEM_BALLOON_MAP_GIVEN;
	for (int mend = 0; mend < 2; mend++)
		vmem_balloon_free(restore(&opts, in.data, in.left, mend, &err));
	run.b = new_device(&opts);
	forget();
	while (in.left && run.given < TOKENS) {
		one_step(run.b, &in);
		require(!vmemi_balloon_check(run.b));
	}
	drain();
	/* All are back but the one for statistics that stays. */
	for (uint64_t i = 0; i < run.given; i++)
		require(run.away[i] == (run.b->stats_held && run.b->stats_token == i));
	require(!vmemi_balloon_check(run.b));
	save_and_restore(&opts, bytes ? data[bytes - 1] : 0);
	vmem_balloon_free(run.b);
	return 0;
}
