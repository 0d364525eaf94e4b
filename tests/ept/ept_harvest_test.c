/* SPDX-License-Identifier: BSD-2-Clause */
/* Harvests by hand: what is seen, what is cleared and owed, what pruning passes over, and where a callback ends it. Bits are set
 * as a processor does it: upper entries first. */
#include <string.h>
#include <vmem/ept_track.h>
#include "ept/ept_internal.h"
#include "ept/ept_track_fixture.h"

static uint64_t accessed[4096 / 64], dirty[4096 / 64];

static void start(uint32_t format, uint64_t flags)
{
	open_ept(&(struct wanted){
		.format = format, .by_callback = 1, .caps = VMEM_EPT_CAP_1G, .flags = flags });
}

static void map(uint64_t gpa, uint64_t bytes, uint32_t level)
{
	cr_assert_eq(vmem_ept_map(ept, gpa, bytes, &LEAF(gpa, level), 0, &change), 0);
}

/* As a processor does. */
static void use(uint64_t gpa, int write)
{
	struct vmemi_ept_path path;

	vmemi_ept_descend(ept, gpa, 1, &path);
	for (uint32_t level = ept->levels; level >= path.level; level--)
		*path.slots[level] |= ept->accessed;
	if (write)
		*path.slots[path.level] |= ept->dirty;
}

static int harvest(uint64_t gpa, uint64_t bytes, uint32_t flags, int with_dirty)
{
	struct vmem_ept_harvest h = { .size = sizeof(h),
				      .accessed = accessed,
				      .dirty = with_dirty ? dirty : NULL };
	uint64_t counted = 0, counted_dirty = 0;
	int err;

	memset(accessed, 0, sizeof(accessed));
	memset(dirty, 0, sizeof(dirty));
	err = vmem_ept_harvest(ept, gpa, bytes, flags, &h, &change);
	for (uint32_t i = 0; i < 4096 / 64; i++) {
		counted += (uint64_t)__builtin_popcountll(accessed[i]);
		counted_dirty += (uint64_t)__builtin_popcountll(dirty[i]);
	}
	cr_assert(err || h.accessed_pages == counted);
	cr_assert(err || !with_dirty || h.dirty_pages == counted_dirty);
	return err;
}

static int is_set(const uint64_t *bitmap, uint64_t page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

/* Each entry of a group of 64 alone, then all but one, for both ways of reading and of clearing. */
Test(ept_harvest, each_entry)
{
	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	map(0, M2, 1);
	for (uint64_t page = 0; page < 512; page += 7) {
		use(page * PAGE, page % 2);
		cr_assert_eq(harvest(0, M2, 3, 1), 0);
		cr_assert(is_set(accessed, page));
		cr_assert_eq(is_set(dirty, page), page % 2);
		cr_assert_eq(change.leaves, 1);
		cr_assert_eq(change.flush, VMEM_EPT_FLUSH_RANGES);
		cr_assert_eq(change.range_count, 1);
		cr_assert_eq(change.ranges[0].gpa, page * PAGE);
		cr_assert_eq(change.ranges[0].bytes, PAGE);
		for (uint64_t other = 0; other < 512; other++)
			if (other != page)
				use(other * PAGE, 1);
		cr_assert_eq(harvest(0, M2, 3, 1), 0);
		cr_assert(!is_set(accessed, page) && !is_set(dirty, page));
		cr_assert_eq(change.leaves, 511);
	}
	cr_assert_eq(harvest(0, M2, 3, 1), 0);
	cr_assert_eq(change.leaves, 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	close_ept();
}

/* Of what is looked at only one kind is cleared, by stores and by atomic operations; nothing is owed if stale is fine. */
Test(ept_harvest, one_kind)
{
	start(VMEM_EPT_AMD, 0);
	map(0, M2, 1);
	for (uint64_t page = 0; page < 128; page++)
		use(page * PAGE, page < 64);
	cr_assert_eq(harvest(0, M2, VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_STALE_FINE, 1), 0);
	cr_assert(accessed[0] == UINT64_MAX && accessed[1] == UINT64_MAX && !accessed[2]);
	cr_assert(dirty[0] == UINT64_MAX && !dirty[1]);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(change.leaves, 128);
	cr_assert_eq(harvest(0, M2, VMEM_EPT_CLEAR_DIRTY, 1), 0);
	cr_assert(!accessed[0] && !accessed[1] && dirty[0] == UINT64_MAX && !dirty[1]);
	cr_assert_eq(change.ranges[0].bytes, 64 * PAGE);
	cr_assert_eq(harvest(0, M2, 0, 1), 0);
	cr_assert(!accessed[0] && !dirty[0]);
	close_ept();
}

/* Notes have the same bits set; so has what is mapped without rights, and that counts. */
Test(ept_harvest, not_present)
{
	start(VMEM_EPT_VTD, VMEM_EPT_AD);
	map(0, M2 / 2, 1);
	use(5 * PAGE, 1);
	cr_assert_eq(
		vmem_ept_set_payload(ept, M2 / 2, M2 / 2, (UINT64_C(1) << 58) - 1, 0, 0, &change),
		0);
	cr_assert_eq(vmem_ept_protect(ept, 0, M2 / 2, VMEM_EPT_READ | VMEM_EPT_WRITE, 0, &change),
		     0);
	cr_assert_eq(harvest(0, M2, 3, 1), 0);
	cr_assert_eq(change.leaves, 1);
	cr_assert(is_set(accessed, 5) && is_set(dirty, 5));
	cr_assert_eq(accessed[4], 0);
	cr_assert_eq(harvest(0, M2, 3, 1), 0);
	cr_assert_eq(change.leaves, 0);
	close_ept();
}

Test(ept_harvest, sticking_out)
{
	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	map(0, 2 * M2, 2);
	use(M2, 1);
	cr_assert_eq(harvest(64 * PAGE, M2, 3, 1), 0);
	cr_assert_eq(accessed[6], 0);
	cr_assert_eq(accessed[7],
		     UINT64_MAX); /* page 512, the first of the second leaf, is bit 448 */
	cr_assert_eq(change.leaves, 0);
	cr_assert_eq(harvest(0, 2 * M2, 3, 1), 0);
	cr_assert_eq(accessed[7], 0);
	cr_assert_eq(accessed[8], UINT64_MAX);
	cr_assert_eq(accessed[15], UINT64_MAX);
	cr_assert_eq(change.leaves, 1);
	cr_assert_eq(change.ranges[0].gpa, M2);
	cr_assert_eq(change.ranges[0].bytes, M2);
	cr_assert_eq(harvest(0, 2 * M2, 3, 1), 0);
	cr_assert_eq(accessed[8], 0);
	close_ept();
}

Test(ept_harvest, pruned)
{
	const uint32_t flags = VMEM_EPT_PRUNE | VMEM_EPT_CLEAR_ACCESSED;
	struct vmemi_ept_path path;

	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	map(0, 4 * M2, 1);
	use(3 * PAGE, 0);
	cr_assert_eq(harvest(0, 4 * M2, flags, 0), 0); /* tables are made accessed */
	cr_assert(is_set(accessed, 3));
	cr_assert_eq(change.ranges[0].gpa, 0);
	cr_assert_eq(change.ranges[0].bytes, 4 * M2); /* upper entries, too */
	/* Set while the upper entry was remembered from before: seen when something near is used. */
	vmemi_ept_descend(ept, M2 + 7 * PAGE, 1, &path);
	*path.slots[1] |= ept->accessed;
	cr_assert_eq(harvest(0, 4 * M2, flags, 0), 0);
	cr_assert_eq(change.leaves, 0);
	use(2 * M2, 0);
	cr_assert_eq(harvest(0, 4 * M2, flags, 0), 0);
	cr_assert_eq(change.leaves, 1);
	use(M2, 0);
	cr_assert_eq(harvest(0, 4 * M2, flags, 0), 0);
	cr_assert(is_set(accessed, 512) && is_set(accessed, 519));
	cr_assert_eq(change.leaves, 2);
	/* An upper entry that sticks out says also what is beside the range: it stays. */
	use(0, 0);
	cr_assert_eq(harvest(0, M2 / 2, flags, 0), 0);
	cr_assert_eq(change.leaves, 1);
	cr_assert(*path.slots[4] & ept->accessed);
	vmemi_ept_descend(ept, 0, 1, &path);
	cr_assert(*path.slots[2] & ept->accessed);
	close_ept();
}

/* What was used in a merged table until the flush is found below upper entries that were cleared meanwhile. */
Test(ept_harvest, merged_and_pruned)
{
	const uint32_t flags = VMEM_EPT_PRUNE | VMEM_EPT_CLEAR_ACCESSED;
	struct vmemi_ept_path path;
	uint64_t epoch;

	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	map(0, M2, 1);
	vmemi_ept_descend(ept, 7 * PAGE, 1, &path);
	cr_assert_eq(vmem_ept_merge(ept, 0, M2, 2, &change), 0);
	epoch = change.epoch;
	cr_assert_eq(harvest(0, 8 * M2, flags, 0), 0);
	for (uint32_t level = 2; level <= 4; level++)
		*path.slots[level] &= ~ept->accessed; /* as one of a larger range does */
	*path.slots[1] |= ept->accessed;              /* by a processor that has not flushed */
	vmem_ept_flushed(ept, epoch);
	cr_assert_eq(harvest(0, 8 * M2, flags, 0), 0);
	cr_assert(is_set(accessed, 0) && is_set(accessed, 511));
	close_ept();
}

static uint64_t calls, last;

static int stop_at_once(void *context, uint64_t gpa, uint64_t bytes, uint32_t bits)
{
	(void)context;
	cr_assert(bytes == PAGE && bits == VMEM_EPT_CLEAR_ACCESSED);
	last = gpa;
	return -1;
}

/* What a callback has ended is found by the next one, pruned as it is. */
Test(ept_harvest, pruned_and_ended)
{
	struct vmem_ept_harvest h = { .size = sizeof(h), .leaf = stop_at_once };
	const uint32_t flags = VMEM_EPT_PRUNE | VMEM_EPT_CLEAR_ACCESSED;

	start(VMEM_EPT_AMD, 0);
	map(0, M2, 1);
	map(G1, M2, 1);
	for (uint64_t page = 0; page < 3; page++)
		use(page * PAGE, 1);
	use(G1, 0);
	for (uint64_t page = 0; page < 3; page++) {
		cr_assert_eq(vmem_ept_harvest(ept, 0, G1 * 512, flags, &h, &change), -1);
		cr_assert_eq(last, page * PAGE);
	}
	cr_assert_eq(vmem_ept_harvest(ept, 0, G1 * 512, flags, &h, &change), -1);
	cr_assert_eq(last, G1);
	cr_assert_eq(vmem_ept_harvest(ept, 0, G1 * 512, flags, &h, &change), 0);
	close_ept();
}

static int third(void *context, uint64_t gpa, uint64_t bytes, uint32_t bits)
{
	cr_assert_eq(context, &calls);
	cr_assert_eq(bytes, gpa < M2 ? PAGE : M2);
	cr_assert_eq(bits, gpa == 2 * PAGE ? 3 : 1);
	cr_assert(!calls || gpa > last);
	last = gpa;
	return ++calls == 3 ? 77 : 0;
}

Test(ept_harvest, callback)
{
	struct vmem_ept_harvest h = { .size = sizeof(h), .leaf = third, .context = &calls };

	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	map(0, M2, 1);
	map(M2, 2 * M2, 2);
	use(PAGE, 0);
	use(2 * PAGE, 1);
	use(M2, 0);
	use(2 * M2, 0);
	cr_assert_eq(vmem_ept_harvest(ept, PAGE, 3 * M2 - PAGE, 3, &h, &change), 77);
	cr_assert_eq(change.at, M2);
	cr_assert_eq(change.leaves, 3);
	cr_assert_eq(change.ranges[0].gpa, PAGE);
	/* The last one has not been touched. */
	cr_assert_eq(harvest(0, 3 * M2, 3, 1), 0);
	cr_assert_eq(change.leaves, 1);
	cr_assert(is_set(accessed, 1024) && !is_set(accessed, 512));
	close_ept();
}

Test(ept_harvest, refused)
{
	struct vmem_ept_harvest h = { .size = sizeof(h), .accessed = accessed };

	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	cr_assert_eq(harvest(PAGE, M2, 0, 1), -VMEM_EINVAL);
	cr_assert_eq(harvest(0, M2 + 1, 0, 1), -VMEM_EINVAL);
	cr_assert_eq(harvest(0, 0, 0, 1), -VMEM_EINVAL);
	cr_assert_eq(harvest(0, M2, 16, 1), -VMEM_EINVAL);
	cr_assert_eq(harvest(0, M2, VMEM_EPT_STALE_FINE | VMEM_EPT_CLEAR_DIRTY, 1), -VMEM_EINVAL);
	cr_assert_eq(harvest(0, M2, VMEM_EPT_PRUNE, 1), -VMEM_EINVAL);
	cr_assert_eq(harvest(0, M2, VMEM_EPT_PRUNE | VMEM_EPT_CLEAR_DIRTY, 0), -VMEM_EINVAL);
	cr_assert_eq(harvest(UINT64_C(1) << 48, M2, 0, 1), -VMEM_ERANGE);
	close_ept();
	start(VMEM_EPT_INTEL, 0);
	cr_assert_eq(harvest(0, M2, 0, 1), -VMEM_ENOTSUP);
	cr_assert_eq(change.reason, VMEM_EPT_NO_CAPABILITY);
	close_ept();
}

/* Where it begins, and why it is not done. */
static void because(uint32_t reason, uint64_t at)
{
	cr_assert_eq(change.reason, reason, "%u", change.reason);
	cr_assert_eq(change.at, at);
	change.reason = VMEM_EPT_FINE;
}

Test(ept_reasons, of_bad_calls)
{
	struct vmem_ept_harvest h = { .size = 8 };
	struct vmem_ept_leaf leaf = LEAF(0, 1);
	uint64_t bitmap[8];

	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	cr_assert_eq(vmem_ept_harvest(ept, M2, M2, 0, &h, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(vmem_ept_harvest(ept, M2, M2, 0, NULL, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(harvest(M2, M2, 16, 1), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(harvest(M2, M2, VMEM_EPT_PRUNE, 1), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(harvest(PAGE, M2, 0, 1), -VMEM_EINVAL);
	because(VMEM_EPT_UNALIGNED, PAGE);
	cr_assert_eq(vmem_ept_log_start(ept, M2, M2, 3, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(vmem_ept_log_start(ept, M2, PAGE, 2, &change), -VMEM_EINVAL);
	because(VMEM_EPT_UNALIGNED, M2);
	cr_assert_eq(vmem_ept_log_collect(ept, M2, M2, NULL, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(vmem_ept_log_collect(ept, M2 + 1, M2, bitmap, &change), -VMEM_EINVAL);
	because(VMEM_EPT_UNALIGNED, M2 + 1);
	cr_assert_eq(vmem_ept_split(ept, M2, M2, 3, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(vmem_ept_merge(ept, M2, M2, 4, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	cr_assert_eq(vmem_ept_map(ept, M2, M2, NULL, 0, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	leaf.flags = 1u << 20;
	cr_assert_eq(vmem_ept_map(ept, M2, M2, &leaf, 0, &change), -VMEM_EINVAL);
	because(VMEM_EPT_BAD_CALL, M2);
	close_ept();
}

/* What a newer caller asks for is not left out without a word. */
Test(ept_harvest, newer_than_the_library)
{
	struct {
		struct vmem_ept_harvest known;
		uint64_t unknown;
	} h = { .known = { .size = sizeof(h), .accessed = accessed } };

	start(VMEM_EPT_INTEL, VMEM_EPT_AD);
	map(0, M2, 1);
	use(PAGE, 0);
	cr_assert_eq(vmem_ept_harvest(ept, 0, M2, 0, &h.known, &change), 0);
	cr_assert_eq(h.known.accessed_pages, 1);
	h.unknown = 1;
	h.known.accessed_pages = 77;
	cr_assert_eq(vmem_ept_harvest(ept, 0, M2, VMEM_EPT_CLEAR_ACCESSED, &h.known, &change),
		     -VMEM_E2BIG);
	because(VMEM_EPT_BAD_CALL, 0);
	cr_assert_eq(h.known.accessed_pages, 77);
	cr_assert_eq(harvest(0, M2, 0, 0), 0);
	cr_assert(is_set(accessed, 1));
	close_ept();
}
