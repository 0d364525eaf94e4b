/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages the guest has used and written, as lib/ept tells: accessed and dirty bits that the processor has set,
 * rights to write that were taken, and Intel's page-modification log. */
#include "hw.h"

#define PLACE (HW_GUEST_BASE + 128 * HW_MIB)
#define FRAMES (HW_DATA + 4 * HW_MIB)
#define PAGES 1024u
#define BYTES (PAGES * UINT64_C(4096))
#define ALL (VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC)
#define WORDS (PAGES / 64)

static uint64_t used[WORDS], written[WORDS];
static uint64_t log_page[VMEM_EPT_PML_ENTRIES] __attribute__((aligned(4096)));
static struct vmem_ept_change change;

/* What the guest does with a page, by its number and a seed: 0 nothing, 1 reads, 2 writes. With writes = 1 it writes for 1, too. */
static unsigned deed(uint64_t page, uint64_t seed)
{
	uint64_t mixed = (page + 1) * (2 * seed + 1) * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned)(mixed >> 40) % 3;
}

static uint64_t guest_deeds(uint64_t seed, uint64_t writes, uint64_t unused)
{
	(void)unused;
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t address = PLACE + page * 4096;

		if (deed(page, seed) >= writes)
			*hw_word(address + HW_FRAME_WRITTEN) = seed;
		else if (deed(page, seed))
			(void)*hw_word(address);
	}
	return seed;
}

/* The bitmaps say what the guest has done, or of leaves of 2 MiB, all their pages. */
static int told(const uint64_t *bitmap, unsigned least, uint64_t seed, int large)
{
	unsigned wrong = 0;

	for (unsigned page = 0; page < PAGES; page++) {
		unsigned bit = bitmap[page / 64] >> page % 64 & 1;

		wrong += bit != (large || deed(page, seed) >= least);
	}
	return !wrong;
}

static void clear_bitmaps(void)
{
	for (unsigned i = 0; i < WORDS; i++)
		used[i] = written[i] = 0;
}

static void run(uint64_t seed)
{
	struct hw_exit exit;

	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_deeds, seed, 2, 0);
	hw_world.processor->enter(&hw_world.guest, &exit);
	HW_CHECK(exit.kind == HW_EXIT_DONE && exit.value == seed);
}

static void harvest_once(uint32_t flags, uint64_t *accessed, uint64_t *dirty)
{
	struct vmem_ept_harvest bits = {
		.size = sizeof(bits),
		.accessed = accessed,
		.dirty = dirty,
	};

	change = (struct vmem_ept_change){ .size = sizeof(change) };
	hw_settle(vmem_ept_harvest(hw_world.ept, PLACE, BYTES, flags, &bits, &change), &change);
}

/* Both bits at once, or accessed bits first, below upper entries that are accessed. */
static void harvest(uint32_t level)
{
	hw_case_begin("harvest, level %u", level);
	hw_world_open(VMEM_EPT_AD);
	hw_map(PLACE, FRAMES, BYTES, ALL, level);
	for (uint64_t seed = 1; seed <= 4; seed++) {
		run(seed);
		clear_bitmaps();
		if (seed & 1) {
			harvest_once(VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_PRUNE, used, NULL);
			harvest_once(VMEM_EPT_CLEAR_DIRTY, NULL, written);
		} else {
			harvest_once(VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_CLEAR_DIRTY, used, written);
		}
		HW_CHECK(told(used, 1, seed, level > 1));
		HW_CHECK(told(written, 2, seed, level > 1));
	}
	clear_bitmaps();
	harvest_once(0, used, written);
	for (unsigned i = 0; i < WORDS; i++)
		HW_CHECK(!used[i] && !written[i]);
	hw_world_close();
	hw_case_end();
}

/* Dirty bits are cleared by the guest itself: until that is invalidated, writes are missed. */
static uint64_t guest_missed(uint64_t unused, uint64_t unused2, uint64_t unused3)
{
	struct vmem_ept_harvest bits = { .size = sizeof(bits), .dirty = written };

	(void)unused;
	(void)unused2;
	(void)unused3;
	*hw_word(PLACE) = 1;
	if (vmem_ept_harvest(hw_world.ept, PLACE, BYTES, VMEM_EPT_CLEAR_DIRTY, &bits, &change))
		return 0;
	*hw_word(PLACE) = 2;
	hw_guest_pause(1);
	*hw_word(PLACE) = 3;
	return 1;
}

static unsigned dirty_now(void)
{
	struct vmem_ept_walked walked;

	hw_predict(VMEM_EPT_ACCESS_READ, PLACE, &walked);
	return !!(walked.entries[0] & (hw_is_amd ? VMEM_EPT_AMD_DIRTY : VMEM_EPT_INTEL_DIRTY));
}

static void missed(void)
{
	struct hw_exit exit;

	hw_case_begin("dirty bit cleared without invalidation");
	hw_world_open(VMEM_EPT_AD);
	hw_map(PLACE, FRAMES, BYTES, ALL, 1);
	clear_bitmaps();
	change = (struct vmem_ept_change){ .size = sizeof(change) };
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_missed, 0, 0, 0);
	hw_world.processor->enter(&hw_world.guest, &exit);
	HW_CHECK(exit.kind == HW_EXIT_PAUSE && written[0] == 1);
	HW_CHECK(change.flush != VMEM_EPT_FLUSH_NONE);
	HW_CHECK(!dirty_now());
	hw_settle(0, &change);
	hw_world.processor->enter(&hw_world.guest, &exit);
	HW_CHECK(exit.kind == HW_EXIT_DONE);
	HW_CHECK(dirty_now());
	hw_world_close();
	hw_case_end();
}

/* Rights to write are taken; each violation gives one back, with nothing to invalidate. */
static void write_log(uint32_t level)
{
	hw_case_begin("write log, level %u", level);
	hw_world_open(VMEM_EPT_AD);
	hw_map(PLACE, FRAMES, BYTES, ALL, level);
	change = (struct vmem_ept_change){ .size = sizeof(change) };
	hw_settle(vmem_ept_log_start(hw_world.ept, PLACE, BYTES, 1, &change), &change);
	for (uint64_t seed = 5; seed <= 7; seed++) {
		struct vmem_ept_walked walked;
		struct hw_exit exit;
		unsigned violations = 0;

		hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_deeds, seed,
			       2, 0);
		for (;;) {
			hw_world.processor->enter(&hw_world.guest, &exit);
			if (exit.kind != HW_EXIT_VIOLATION || violations++ > PAGES)
				break;
			if (violations < 8) {
				hw_predict(VMEM_EPT_ACCESS_WRITE, exit.gpa, &walked);
				hw_judge_exit(&exit, &walked, exit.gpa, exit.gpa);
			}
			HW_CHECK(!vmem_ept_log_write(hw_world.ept, exit.gpa));
		}
		HW_CHECK(exit.kind == HW_EXIT_DONE && violations > PAGES / 6);
		clear_bitmaps();
		change = (struct vmem_ept_change){ .size = sizeof(change) };
		hw_settle(vmem_ept_log_collect(hw_world.ept, PLACE, BYTES, written, &change),
			  &change);
		HW_CHECK(told(written, 2, seed, 0));
	}
	change = (struct vmem_ept_change){ .size = sizeof(change) };
	hw_settle(vmem_ept_log_stop(hw_world.ept, PLACE, BYTES, &change), &change);
	run(8);
	hw_world_close();
	hw_case_end();
}

/* --- Page-modification logging --- */

static uint32_t drain(void)
{
	uint32_t outside, count;

	count = vmem_ept_pml_drain(log_page, hw_world.guest.log_index, PLACE, BYTES, written,
				   &outside);
	hw_world.guest.log_index = VMEM_EPT_PML_ENTRIES - 1;
	return count - outside; /* the program's own pages */
}

static void modification_log(void)
{
	hw_case_begin("page-modification log");
	hw_world_open(VMEM_EPT_AD);
	hw_map(PLACE, FRAMES, BYTES, ALL, 1);
	for (uint64_t seed = 9; seed <= 12; seed++) {
		struct hw_exit exit;
		uint32_t logged = 0, expected = 0, full = 0;

		for (unsigned page = 0; page < PAGES; page++)
			expected += deed(page, seed) >= 1;
		clear_bitmaps();
		hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_deeds, seed,
			       1, 0);
		hw_world.guest.log = (uintptr_t)log_page;
		hw_world.guest.log_index = VMEM_EPT_PML_ENTRIES - 1;
		for (;;) {
			hw_world.processor->enter(&hw_world.guest, &exit);
			if (exit.kind != HW_EXIT_LOG_FULL || full++ > PAGES)
				break;
			HW_CHECK(hw_world.guest.log_index == UINT16_MAX);
			logged += drain();
		}
		logged += drain();
		HW_CHECK(exit.kind == HW_EXIT_DONE && full >= 1);
		HW_CHECK(logged == expected && told(written, 1, seed, 0));
		harvest_once(VMEM_EPT_CLEAR_DIRTY, NULL, used);
		HW_CHECK(told(used, 1, seed, 0));
	}
	hw_world_close();
	hw_case_end();
}

void hw_log_cases(void)
{
	for (uint32_t level = 1; level <= 2; level++) {
		harvest(level);
		write_log(level);
	}
	missed();
	if (hw_world.capabilities.caps & VMEM_EPT_CAP_PML)
		modification_log();
}
