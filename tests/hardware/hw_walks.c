/* SPDX-License-Identifier: BSD-2-Clause */
/* Accesses of all kinds through leaves of all sizes with all rights; and then with each bit of each entry on the way
 * turned over, one at a time: the processor does what the software walker has said. */
#include "hw.h"

static const uint32_t kinds[] = {
	VMEM_EPT_ACCESS_READ,
	VMEM_EPT_ACCESS_WRITE,
	VMEM_EPT_ACCESS_FETCH,
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* Where a leaf of each level is, what it leads to, and the page in it that is looked at. */
static const struct place {
	uint64_t gpa, hpa, bytes, offset;
} places[] = {
	{ HW_GUEST_BASE + 5 * HW_MIB + 0x3000, HW_DATA + 0x7000, 4096, 0 },
	{ HW_GUEST_BASE + 6 * HW_MIB, HW_DATA + 4 * HW_MIB, 2 * HW_MIB, 0x155000 },
	{ HW_GUEST_BASE + 7 * HW_GIB, 0, HW_GIB, HW_DATA + 5 * HW_MIB + 0x9000 },
};

static int has_level(unsigned level)
{
	uint64_t caps = hw_world.capabilities.caps;

	return level == 1 || (caps & (level == 2 ? VMEM_EPT_CAP_2M : VMEM_EPT_CAP_1G));
}

static int has_rights(uint32_t rights)
{
	uint64_t caps = hw_world.capabilities.caps;

	if (rights & VMEM_EPT_WRITE && !(rights & VMEM_EPT_READ))
		return 0;
	return rights & VMEM_EPT_READ || (rights && caps & VMEM_EPT_CAP_EXEC_ONLY);
}

/* The same access twice: the second finds accessed and dirty set, and the translation in the TLB. */
static void each_right(uint64_t flags)
{
	for (unsigned level = 1; level <= 3; level++) {
		const struct place *place = &places[level - 1];

		for (uint32_t rights = 0; rights < 8 && has_level(level); rights++)
			for (unsigned k = 0; k < KINDS && has_rights(rights); k++) {
				hw_case_begin("level %u, rights %u, access %u, flags %lx", level,
					      rights, kinds[k], flags);
				hw_world_open(flags);
				hw_map(place->gpa, place->hpa, place->bytes, rights, level);
				HW_CHECK(hw_access(kinds[k], place->gpa + place->offset));
				HW_CHECK(hw_access(kinds[k], place->gpa + place->offset));
				hw_world_close();
				hw_case_end();
			}
	}
}

/* What is not there, by all ways of not being there. */
static void absent(uint64_t flags)
{
	struct vmem_ept_change change = { .size = sizeof(change) };
	const uint64_t gpa = places[0].gpa;

	for (unsigned k = 0; k < KINDS; k++) {
		hw_case_begin("absent, access %u, flags %lx", kinds[k], flags);
		hw_world_open(flags);
		HW_CHECK(hw_access(kinds[k], gpa));
		hw_map(gpa + 4096, HW_DATA, 4096, VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC,
		       0);
		HW_CHECK(hw_access(kinds[k], gpa));
		hw_settle(vmem_ept_set_payload(hw_world.ept, gpa, 4096,
					       (UINT64_C(1) << VMEM_EPT_PAYLOAD_BITS) - 1, 0, 0,
					       &change),
			  &change);
		HW_CHECK(hw_access(kinds[k], gpa));
		hw_settle(vmem_ept_protect(hw_world.ept, gpa + 4096, 4096, 7, 0, &change), &change);
		HW_CHECK(hw_access(kinds[k], gpa + 4096));
		hw_settle(vmem_ept_unmap(hw_world.ept, gpa + 4096, 4096, &change), &change);
		HW_CHECK(hw_access(kinds[k], gpa + 4096));
		hw_world_close();
		hw_case_end();
	}
}

/* The entry has a bit that this processor is known to ignore, and should not. */
static int is_misjudged(unsigned level, uint64_t entry)
{
	int large = (level == 2 || level == 3) && entry & VMEM_EPT_INTEL_LARGE;

	if (hw_world.quirks & HW_QUIRK_BIT_12 && large && entry & 1u << 12)
		return 1;
	return hw_world.quirks & HW_QUIRK_BIT_8 && level >= 3 && !large && entry & 1u << 8;
}

/* What an access by the program itself comes to, by all tables as they are. */
static int stops(uint32_t kind, uint64_t gpa, struct vmem_ept_walked *ret_walked)
{
	hw_walk(&hw_live, kind, gpa, ret_walked);
	return ret_walked->outcome != VMEM_EPT_WALK_OK;
}

/* The root of five levels has one entry for all that the guest has, the program too: what it stops first are the walk of
 * the guest's own tables and the first fetch. */
static int access_by_root(uint64_t turned, uint64_t entry, uint32_t kind, uint64_t gpa)
{
	struct vmem_ept_walked walked;
	struct hw_exit exit;
	uint64_t at;

	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), hw_guest_read, gpa, 0, 0);
	at = hw_world.guest.cr3;
	if (!stops(VMEM_EPT_ACCESS_GUEST_TABLE, at, &walked)) {
		at = hw_world.guest.rip;
		if (!stops(VMEM_EPT_ACCESS_FETCH, at, &walked))
			return hw_access(kind, gpa);
	}
	/* Another table, or what is none. */
	if ((turned ^ entry) & VMEM_EPT_ADDRESS && walked.outcome != VMEM_EPT_WALK_MISCONFIG)
		return 0;
	hw_world.processor->enter(&hw_world.guest, &exit);
	hw_judge_exit(&exit, &walked, at, at);
	return 1;
}

/* One entry on the way to a page, each bit of it. */
static void turn_bits(uint64_t entry_hpa, unsigned leaf, unsigned level, uint32_t rights)
{
	const uint64_t gpa = places[leaf - 1].gpa + places[leaf - 1].offset;
	uint64_t entry = *hw_word(entry_hpa);
	unsigned tried = 0;

	for (unsigned bit = 0; bit < 64; bit++)
		for (unsigned k = 0; k < KINDS; k++) {
			uint64_t turned = entry ^ UINT64_C(1) << bit;

			if (is_misjudged(level, turned))
				continue;
			hw_case_begin(
				"leaf %u, rights %u, entry %lx of level %u, bit %u, access %u",
				leaf, rights, entry, level, bit, kinds[k]);
			*hw_word(entry_hpa) = turned;
			hw_world.processor->invalidate(vmem_ept_pointer(hw_world.ept));
			tried +=
				(unsigned)(level == 5 ? access_by_root(turned, entry, kinds[k], gpa)
						      : hw_access(kinds[k], gpa));
			hw_case_end();
		}
	*hw_word(entry_hpa) = entry;
	hw_world.processor->invalidate(vmem_ept_pointer(hw_world.ept));
	HW_CHECK(tried > 64);
}

static void each_bit(uint64_t flags, uint32_t rights, unsigned largest)
{
	for (unsigned leaf = 1; leaf <= largest; leaf++) {
		const struct place *place = &places[leaf - 1];
		struct vmem_ept_walked walked;

		if (!has_level(leaf) || !has_rights(rights))
			continue;
		hw_world_open(flags);
		hw_map(place->gpa, place->hpa, place->bytes, rights, leaf);
		hw_predict(VMEM_EPT_ACCESS_READ, place->gpa + place->offset, &walked);
		for (unsigned level = leaf; level <= hw_world.levels; level++)
			turn_bits(walked.entry_hpa[level - 1], leaf, level, rights);
		hw_world_close();
	}
}

/* The guest's own tables, in a page with these rights: its first fetch goes through them. */
static void guest_table(uint64_t flags, uint32_t rights)
{
	const struct place *place = &places[0];
	struct vmem_ept_walked walked;
	struct hw_exit exit;

	hw_case_begin("guest's tables, rights %u, flags %lx", rights, flags);
	hw_world_open(flags);
	hw_map(place->gpa + 4096, HW_DATA, 4096, VMEM_EPT_READ, 0);
	if (rights)
		hw_map(place->gpa, hw_guest_tables(), 4096, rights, 0);
	hw_predict(VMEM_EPT_ACCESS_GUEST_TABLE, place->gpa, &walked);
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), hw_guest_read, HW_DATA, 0,
		       0);
	hw_world.guest.cr3 = place->gpa;
	hw_world.processor->enter(&hw_world.guest, &exit);
	if (walked.outcome == VMEM_EPT_WALK_OK) {
		HW_CHECK(exit.kind == HW_EXIT_DONE && exit.value == hw_frame_word(HW_DATA));
		HW_CHECK(hw_shadow_compare(0));
	} else {
		hw_judge_exit(&exit, &walked, place->gpa, hw_world.guest.rip);
	}
	hw_world_close();
	hw_case_end();
}

/* A read by a guest with this bit of an entry of this level set. 1: it succeeds */
static int read_with_bit(unsigned level, unsigned bit, struct hw_exit *ret_exit)
{
	const struct place *place = &places[1];
	struct vmem_ept_walked walked;

	hw_world_open(0);
	hw_map(place->gpa, place->hpa, place->bytes, VMEM_EPT_READ, 2);
	hw_predict(VMEM_EPT_ACCESS_READ, place->gpa, &walked);
	*hw_word(walked.entry_hpa[level - 1]) |= UINT64_C(1) << bit;
	hw_world.processor->invalidate(vmem_ept_pointer(hw_world.ept));
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), hw_guest_read, place->gpa,
		       0, 0);
	hw_world.processor->enter(&hw_world.guest, ret_exit);
	hw_world_close();
	return ret_exit->kind == HW_EXIT_DONE;
}

void hw_quirk(int found, unsigned bit, const char *text)
{
	if (!found)
		return;
	hw_world.quirks |= bit;
	hw_printf("not as in the manual: %s\n", text);
}

/* Does the processor do as its manual says where it is known that some do not? */
static void find_quirks(void)
{
	struct hw_exit exit;

	hw_case_begin("quirks");
	if (hw_is_amd) {
		hw_quirk(read_with_bit(4, 8, &exit), HW_QUIRK_BIT_8,
			 "bit 8 of upper entries is not checked");
		HW_CHECK(!read_with_bit(2, 20, &exit));
		hw_quirk(!(exit.qualification & VMEM_EPT_NPF_PRESENT), HW_QUIRK_RESERVED,
			 "reserved bits are reported as not present");
	} else {
		hw_quirk(read_with_bit(2, 12, &exit), HW_QUIRK_BIT_12,
			 "bit 12 of large leaves is not checked");
		hw_world_open(VMEM_EPT_AD);
		hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), hw_guest_read, 0, 0,
			       0);
		hw_world.guest.cr3 = HW_GUEST_BASE;
		hw_world.processor->enter(&hw_world.guest, &exit);
		HW_CHECK(exit.kind == HW_EXIT_VIOLATION);
		hw_quirk(!(exit.qualification & VMEM_EPT_QUAL_READ), HW_QUIRK_TABLE,
			 "access to a guest's table is a write, but no read");
		hw_world_close();
	}
	hw_case_end();
}

/* Violations that may become virtualization exceptions: not of entries that are made to suppress them. */
static void exceptions(void)
{
	const uint64_t flags = VMEM_EPT_AD | VMEM_EPT_SUPPRESS_ALL_VE;
	const struct place *place = &places[0];
	struct vmem_ept_change change = { .size = sizeof(change) };
	struct vmem_ept_leaf leaf = {
		.hpa = place->hpa,
		.rights = VMEM_EPT_READ,
		.type = VMEM_EPT_WB,
		.flags = VMEM_EPT_LEAF_VE,
	};

	hw_world.context |= VMEM_EPT_WALK_VE;
	absent(flags);
	each_right(flags);
	absent(VMEM_EPT_AD);
	hw_case_begin("leaf that does not suppress");
	hw_world_open(flags);
	hw_settle(vmem_ept_map(hw_world.ept, place->gpa, 4096, &leaf, 0, &change), &change);
	for (unsigned k = 0; k < KINDS; k++)
		HW_CHECK(hw_access(kinds[k], place->gpa));
	hw_world_close();
	hw_case_end();
	each_bit(flags, VMEM_EPT_READ, 2);
	hw_world.context &= ~VMEM_EPT_WALK_VE;
}

void hw_walk_cases(void)
{
	const uint64_t flags[] = { VMEM_EPT_AD, 0 };
	const uint32_t all = VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC;
	unsigned count = hw_is_amd ? 1 : 2; /* AMD has accessed and dirty bits always */

	find_quirks();
	for (unsigned f = 0; f < count; f++) {
		each_right(flags[f]);
		absent(flags[f]);
		for (uint32_t rights = 0; rights < 8; rights++)
			if (!rights || has_rights(rights))
				guest_table(flags[f], rights);
		each_bit(flags[f], f ? VMEM_EPT_READ : all, 3);
	}
	if (hw_world.capabilities.caps & VMEM_EPT_CAP_SUPPRESS_VE)
		exceptions();
}
