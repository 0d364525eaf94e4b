/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables are changed while a guest is on them. The functions of lib/ept are called by the guest itself, which reaches
 * the tables as the host does: for its processor that is what a change by another processor is, without a VM exit
 * that might empty the TLB. So what a processor remembers can be seen, and that an invalidation that is owed is needed. */
#include "hw.h"

#define PLACE (HW_GUEST_BASE + 64 * HW_MIB)
#define OLD (HW_DATA + 2 * HW_MIB)
#define NEW (HW_DATA + 6 * HW_MIB)
#define LARGE (2 * HW_MIB)
#define PAGE (PLACE + place) /* the one that is looked at */
#define ALL (VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC)
#define MARK UINT64_C(0x6d61726b)

static struct vmem_ept_change change;
static int error;
static uint64_t place;

/* --- What is taken away is still there until it is invalidated --- */

static int unmap(void)
{
	return vmem_ept_unmap(hw_world.ept, PAGE, 4096, &change);
}

static int take_write(void)
{
	return vmem_ept_protect(hw_world.ept, PAGE, 4096, VMEM_EPT_WRITE, 0, &change);
}

static int take_exec(void)
{
	return vmem_ept_protect(hw_world.ept, PAGE, 4096, VMEM_EPT_EXEC, 0, &change);
}

static int take_all(void)
{
	return vmem_ept_protect(hw_world.ept, PAGE, 4096, ALL, 0, &change);
}

static int note(void)
{
	return vmem_ept_set_payload(hw_world.ept, PAGE, 4096, 12345, 0, VMEM_EPT_REPLACE, &change);
}

static int log_writes(void)
{
	return vmem_ept_log_start(hw_world.ept, PAGE, 4096, 1, &change);
}

/* The write that gets the right back counts as one before the collection, which takes it again. */
static int collect(void)
{
	uint64_t bitmap = 0;

	if (vmem_ept_log_start(hw_world.ept, PAGE, 4096, 1, &change) ||
	    vmem_ept_log_write(hw_world.ept, PAGE))
		return -1;
	return vmem_ept_log_collect(hw_world.ept, PAGE, 4096, &bitmap, &change) || bitmap != 1;
}

static int replace(void)
{
	const struct vmem_ept_leaf leaf = {
		.hpa = NEW + place,
		.rights = ALL,
		.type = VMEM_EPT_WB,
	};

	return vmem_ept_map(hw_world.ept, PAGE, 4096, &leaf, VMEM_EPT_REPLACE, &change);
}

static const struct taking {
	const char *name;
	int (*take)(void);
	uint32_t kind; /* of access that it is seen by */
} takings[] = {
	{ "unmap", unmap, VMEM_EPT_ACCESS_READ },
	{ "unmap", unmap, VMEM_EPT_ACCESS_WRITE },
	{ "unmap", unmap, VMEM_EPT_ACCESS_FETCH },
	{ "take write", take_write, VMEM_EPT_ACCESS_WRITE },
	{ "take execute", take_exec, VMEM_EPT_ACCESS_FETCH },
	{ "take all", take_all, VMEM_EPT_ACCESS_READ },
	{ "log writes", log_writes, VMEM_EPT_ACCESS_WRITE },
	{ "collect the log", collect, VMEM_EPT_ACCESS_WRITE },
	{ "payload", note, VMEM_EPT_ACCESS_READ },
	{ "replace", replace, VMEM_EPT_ACCESS_READ },
	{ "replace", replace, VMEM_EPT_ACCESS_WRITE },
	{ "replace", replace, VMEM_EPT_ACCESS_FETCH },
};
#define TAKINGS (sizeof(takings) / sizeof(takings[0]))

static uint64_t touch(uint32_t kind, uint64_t value)
{
	switch (kind) {
	case VMEM_EPT_ACCESS_READ: return *hw_word(PAGE);
	case VMEM_EPT_ACCESS_WRITE: return *hw_word(PAGE + HW_FRAME_WRITTEN) = value;
	default: return ((uint64_t(*)(void))(uintptr_t)(PAGE + HW_FRAME_CODE))();
	}
}

static uint64_t guest_taking(uint64_t index, uint64_t unused, uint64_t unused2)
{
	const struct taking *taking = &takings[index];

	(void)unused;
	(void)unused2;
	touch(taking->kind, 1); /* the TLB has it now */
	error = taking->take();
	hw_guest_pause(touch(taking->kind, 2));
	return touch(taking->kind, 3);
}

/* An access of this kind has reached the frame: it gave this value. */
static int reached(uint32_t kind, uint64_t hpa, uint64_t value)
{
	switch (kind) {
	case VMEM_EPT_ACCESS_READ: return value == hw_frame_word(hpa);
	case VMEM_EPT_ACCESS_WRITE: return value == *hw_word(hpa + HW_FRAME_WRITTEN);
	default: return value == hw_frame_result(hpa);
	}
}

static void enter(struct hw_exit *ret_exit)
{
	hw_world.processor->enter(&hw_world.guest, ret_exit);
}

/* All of a place must be invalidated after a call. */
static int is_owed(const struct vmem_ept_change *made, uint64_t gpa, uint64_t bytes)
{
	for (unsigned i = 0; made->flush == VMEM_EPT_FLUSH_RANGES && i < made->range_count; i++) {
		uint64_t inside = gpa - made->ranges[i].gpa, all = made->ranges[i].bytes;

		if (inside < all && bytes <= all - inside)
			return 1;
	}
	return 0;
}

/* The guest has touched the page, and made the change, and touched the page again. 0: it had to leave for that. */
static int begin_taking(unsigned index, uint32_t level, struct hw_exit *ret_exit)
{
	hw_frames_fill();
	hw_world_open(VMEM_EPT_AD);
	hw_map(PLACE, OLD, LARGE, ALL, level);
	change = (struct vmem_ept_change){ .size = sizeof(change) };
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_taking, index, 0, 0);
	enter(ret_exit);
	if (ret_exit->kind == HW_EXIT_PAUSE &&
	    reached(takings[index].kind, OLD + place, ret_exit->value))
		return 1;
	hw_settle(error, &change);
	hw_world_close();
	return 0;
}

/* A TLB may have dropped the page before the change, for another whose place it shares: of several pages, one has to show
 * that what was taken away was still in reach. After the invalidation it must not be. (The emulators also empty the TLB at
 * each VM entry: that the invalidation alone is enough is not seen here.) */
static unsigned run_taking(unsigned index, uint32_t level)
{
	static const uint64_t offset[] = { 0, HW_FRAME_WRITTEN, HW_FRAME_CODE };
	const struct taking *taking = &takings[index];
	const uint64_t at = offset[taking->kind];
	struct vmem_ept_walked walked;
	struct hw_exit exit;

	hw_case_begin("%s, access %u, level %u", taking->name, taking->kind, level);
	for (place = 0x1a5000; place < LARGE && !begin_taking(index, level, &exit); place += 0x9000)
		;
	if (!HW_CHECK(place < LARGE)) {
		hw_case_end();
		return 0;
	}
	HW_CHECK(is_owed(&change, PAGE, 4096));
	hw_predict(taking->kind, PAGE + at, &walked);
	hw_settle(error, &change);
	enter(&exit);
	if (walked.outcome != VMEM_EPT_WALK_OK)
		hw_judge_exit(&exit, &walked, PAGE + at, PAGE + at);
	else
		HW_CHECK(exit.kind == HW_EXIT_DONE &&
			 reached(taking->kind, NEW + place, exit.value));
	hw_world_close();
	hw_case_end();
	return 1;
}

static void takings_all(void)
{
	unsigned in_reach = 0;

	for (unsigned i = 0; i < TAKINGS; i++)
		for (uint32_t level = 1; level <= 2; level++)
			in_reach += run_taking(i, level);
	hw_printf("before the invalidation, what was taken away was in reach: %u times of %u\n",
		  in_reach, 2 * (unsigned)TAKINGS);
}

/* --- What is given owes nothing: the guest itself goes on --- */

static uint64_t guest_giving(uint64_t unused, uint64_t unused2, uint64_t unused3)
{
	(void)unused;
	(void)unused2;
	(void)unused3;
	(void)touch(VMEM_EPT_ACCESS_READ, 0);
	error = vmem_ept_protect(hw_world.ept, PAGE, 4096, 0, VMEM_EPT_WRITE, &change);
	return touch(VMEM_EPT_ACCESS_WRITE, MARK);
}

/* A right more: at worst one violation comes too late, and entering the guest again is all it needs. */
static void giving(void)
{
	struct hw_exit exit;
	unsigned late = 0;

	hw_case_begin("give write");
	place = 0x1a5000;
	hw_world_open(VMEM_EPT_AD);
	hw_map(PLACE, OLD, LARGE, VMEM_EPT_READ, 1);
	change = (struct vmem_ept_change){ .size = sizeof(change) };
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_giving, 0, 0, 0);
	enter(&exit);
	if (exit.kind == HW_EXIT_VIOLATION) {
		late = 1;
		enter(&exit);
	}
	HW_CHECK(exit.kind == HW_EXIT_DONE && !error);
	HW_CHECK(change.flush == VMEM_EPT_FLUSH_NONE);
	HW_CHECK(*hw_word(OLD + place + HW_FRAME_WRITTEN) == MARK);
	hw_printf("a right given without invalidation: %u violations too late\n", late);
	hw_world_close();
	hw_case_end();
}

/* A guest that sums up pages of which none is there: each violation installs one, and nothing is invalidated. */
static uint64_t guest_sum(uint64_t address, uint64_t pages, uint64_t unused)
{
	uint64_t sum = 0;

	(void)unused;
	for (uint64_t i = 0; i < pages; i++)
		sum += *hw_word(address + i * 4096);
	return sum;
}

static void installing(void)
{
	const uint64_t pages = 300;
	struct hw_exit exit;
	uint64_t sum = 0, violations = 0;

	hw_case_begin("install on violation");
	hw_world_open(VMEM_EPT_AD);
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_sum, PLACE, pages, 0);
	for (enter(&exit); exit.kind == HW_EXIT_VIOLATION && violations <= pages; enter(&exit)) {
		uint64_t gpa = exit.gpa & ~UINT64_C(4095);
		struct vmem_ept_walked walked;
		struct vmem_ept_leaf leaf = {
			.hpa = OLD + (gpa - PLACE) * 3 % LARGE,
			.rights = VMEM_EPT_READ,
			.type = VMEM_EPT_WB,
		};

		hw_predict(VMEM_EPT_ACCESS_READ, exit.gpa, &walked);
		hw_judge_exit(&exit, &walked, exit.gpa, exit.gpa);
		HW_CHECK(!vmem_ept_install(hw_world.ept, gpa, &leaf, NULL));
		hw_predict(VMEM_EPT_ACCESS_READ, gpa, &walked);
		HW_CHECK(walked.outcome == VMEM_EPT_WALK_OK && walked.hpa == leaf.hpa);
		sum += hw_frame_word(leaf.hpa);
		violations++;
	}
	HW_CHECK(exit.kind == HW_EXIT_DONE && exit.value == sum);
	HW_CHECK(violations == pages);
	hw_world_close();
	hw_case_end();
}

/* --- A guest at work on 4 MiB, of which parts are split, merged, protected and taken away --- */

#define PARTS 2u
#define WORK_BYTES (PARTS * LARGE)
#define WORK_PAGES (WORK_BYTES / 4096)
#define ROUNDS 30u
#define CHANGES 4u /* about, in a round */
#define SEEDS 4u

static uint64_t state; /* of a generator: xorshift */
static unsigned merged, tables_gone;
static uint8_t rights[WORK_PAGES]; /* what each page is to have */
static uint8_t had[WORK_PAGES];    /* and had before the last change */

static uint64_t next_random(uint64_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % bound;
}

static void set_rights(uint64_t page, uint64_t pages, uint32_t clear, uint32_t set)
{
	for (uint64_t i = page; i < page + pages; i++)
		rights[i] = (uint8_t)((rights[i] & ~clear) | (rights[i] ? set : 0));
}

/* One change of a part. */
static int change_part(struct vmem_ept_change *made)
{
	uint64_t page = next_random(WORK_PAGES), most = WORK_PAGES - page;
	uint64_t pages = 1 + next_random(most > 32 && next_random(2) ? 32 : most);
	uint64_t gpa = PLACE + page * 4096, bytes = pages * 4096;
	uint32_t taken = next_random(2) ? VMEM_EPT_WRITE : VMEM_EPT_EXEC;
	int result;

	switch (next_random(6)) {
	case 0: return vmem_ept_split(hw_world.ept, gpa, bytes, 1, made);
	case 1:
	case 2:
		result = vmem_ept_merge(hw_world.ept, PLACE, WORK_BYTES, 2, made);
		merged += (unsigned)made->leaves;
		return result;
	case 3:
		set_rights(page, pages, taken, 0);
		return vmem_ept_protect(hw_world.ept, gpa, bytes, taken, 0, made);
	case 4:
		set_rights(0, WORK_PAGES, 0, ALL);
		return vmem_ept_protect(hw_world.ept, PLACE, WORK_BYTES, 0, ALL, made);
	default:
		if (!next_random(4)) { /* a large page: its table goes */
			page &= ~(LARGE / 4096 - 1);
			pages = LARGE / 4096;
			gpa = PLACE + page * 4096;
			bytes = LARGE;
		}
		set_rights(page, pages, ALL, 0);
		return vmem_ept_unmap(hw_world.ept, gpa, bytes, made);
	}
}

/* The level of the entry that a walk to a large page of the work ends at. */
static uint32_t depth(unsigned part)
{
	const struct vmem_ept_access access = {
		.size = sizeof(access),
		.gpa = PLACE + part * LARGE,
		.context = hw_world.context,
		.pointer = vmem_ept_pointer(hw_world.ept),
	};
	struct vmem_ept_walked walked = { .size = sizeof(walked) };

	HW_CHECK(!vmem_ept_walk(&hw_world.capabilities, &hw_live, &access, &walked));
	return walked.level;
}

/* A change owes what it took: rights, and all that tables translated which are gone; and nothing where nothing went. */
static void judge(const struct vmem_ept_change *made, const uint32_t *depths)
{
	unsigned taken = 0, gone = 0;

	for (unsigned i = 0; i < WORK_PAGES; i++)
		if (had[i] & ~rights[i]) {
			HW_CHECK(is_owed(made, PLACE + i * UINT64_C(4096), 4096));
			taken++;
		}
	for (unsigned part = 0; part < PARTS; part++) {
		uint64_t bytes = VMEM_EPT_LEVEL_BYTES(depth(part));

		if (depth(part) <= depths[part])
			continue;
		HW_CHECK(is_owed(made, (PLACE + part * LARGE) & ~(bytes - 1), bytes));
		gone++;
	}
	HW_CHECK(!gone == !made->epoch);
	HW_CHECK(taken || gone || made->flush == VMEM_EPT_FLUSH_NONE);
	tables_gone += gone;
}

/* What changes owe is invalidated at the next pause, for all of them. */
static void change_and_owe(void)
{
	struct vmem_ept_change made = { .size = sizeof(made) };
	uint32_t depths[PARTS];

	for (unsigned part = 0; part < PARTS; part++)
		depths[part] = depth(part);
	for (unsigned i = 0; i < WORK_PAGES; i++)
		had[i] = rights[i];
	error |= change_part(&made);
	judge(&made, depths);
	if (made.flush != VMEM_EPT_FLUSH_NONE)
		change.flush = VMEM_EPT_FLUSH_ALL;
	if (made.epoch)
		change.epoch = made.epoch;
}

/* Each page is read, and written to, in each round; meanwhile the guest makes changes, and does not wait. */
static uint64_t guest_work(uint64_t rounds, uint64_t unused, uint64_t unused2)
{
	uint64_t wrong = 0;

	(void)unused;
	(void)unused2;
	for (uint64_t round = 1; round <= rounds; round++) {
		change = (struct vmem_ept_change){ .size = sizeof(change) };
		for (uint64_t i = 0; i < WORK_PAGES; i++) {
			uint64_t address = PLACE + i * 4096;

			if (!next_random(WORK_PAGES / CHANGES))
				change_and_owe();
			wrong += *hw_word(address) != hw_frame_word(OLD + i * 4096);
			wrong += *hw_word(address + HW_FRAME_WRITTEN) != round - 1;
			*hw_word(address + HW_FRAME_WRITTEN) = round;
		}
		hw_guest_pause(round);
	}
	return wrong;
}

/* What is missing is mapped again, what may not be written may be: in pages of 4 KiB. */
static void mend(const struct hw_exit *exit)
{
	struct vmem_ept_change mending = { .size = sizeof(mending) };
	uint64_t gpa = exit->gpa & ~UINT64_C(4095);
	struct vmem_ept_leaf leaf = {
		.hpa = OLD + gpa - PLACE,
		.rights = ALL,
		.type = VMEM_EPT_WB,
	};
	struct vmem_ept_leaf is;

	if (vmem_ept_translate(hw_world.ept, gpa, &is, NULL))
		HW_CHECK(!vmem_ept_map(hw_world.ept, gpa, 4096, &leaf, 0, &mending));
	else
		HW_CHECK(!vmem_ept_protect(hw_world.ept, gpa, 4096, 0, ALL, &mending));
	rights[(gpa - PLACE) / 4096] = ALL;
	HW_CHECK(mending.flush == VMEM_EPT_FLUSH_NONE && !mending.epoch);
}

static void check_tree(void)
{
	struct vmem_ept_checked checked = { .size = sizeof(checked) };

	HW_CHECK(!vmem_ept_check(&hw_world.capabilities, &hw_live, vmem_ept_pointer(hw_world.ept),
				 hw_world.levels == 5 ? VMEM_EPT_CHECK_5_LEVELS : 0, NULL,
				 &checked));
	HW_CHECK(checked.defect == VMEM_EPT_SOUND);
	for (uint64_t i = 0; i < WORK_PAGES; i++) {
		struct vmem_ept_leaf leaf = { .rights = 0 };
		int absent = vmem_ept_translate(hw_world.ept, PLACE + i * 4096, &leaf, NULL);

		HW_CHECK(absent ? !rights[i] : leaf.rights == rights[i]);
	}
}

static void work(uint64_t seed)
{
	struct hw_exit exit;
	unsigned violations = 0, rounds = 0, owed = 0;

	state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	hw_frames_fill();
	hw_world_open(VMEM_EPT_AD);
	hw_map(PLACE, OLD, WORK_BYTES, ALL, 0);
	for (unsigned i = 0; i < WORK_PAGES; i++)
		rights[i] = ALL;
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), guest_work, ROUNDS, 0, 0);
	for (;;) {
		enter(&exit);
		if (exit.kind == HW_EXIT_VIOLATION && violations < 100000) {
			violations++;
			mend(&exit);
		} else if (exit.kind == HW_EXIT_PAUSE && exit.value == ++rounds) {
			owed += change.flush != VMEM_EPT_FLUSH_NONE;
			hw_settle(error, &change);
			check_tree();
		} else {
			break;
		}
	}
	HW_CHECK(exit.kind == HW_EXIT_DONE && exit.value == 0);
	HW_CHECK(rounds == ROUNDS);
	for (uint64_t i = 0; i < WORK_PAGES; i++)
		HW_CHECK(*hw_word(OLD + i * 4096 + HW_FRAME_WRITTEN) == ROUNDS);
	hw_world_close();
	hw_printf(
		"guest at work, seed %lu: %u rounds, %u invalidations, %u violations; so far merged: %u, left without tables: %u\n",
		seed, rounds, owed, violations, merged, tables_gone - merged);
}

void hw_change_cases(void)
{
	takings_all();
	giving();
	installing();
	hw_case_begin("guests at work");
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		work(seed);
	HW_CHECK(merged > 2 * SEEDS && tables_gone > merged);
	hw_case_end();
}
