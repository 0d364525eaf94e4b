/* SPDX-License-Identifier: BSD-2-Clause */
/* Mapping ranges and reading them back: sizes of leaves, tables that come and go, what is refused. */
#include "ept/ept_fixture.h"
#include "support/rng.h"

static void begin(uint32_t format, uint32_t levels)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps_of(format, levels);

	open_ept(2048, &caps, 0, levels, 0);
}

static void expect(uint64_t gpa, uint64_t hpa, uint32_t level)
{
	struct vmem_ept_leaf leaf;

	cr_assert_eq(vmem_ept_translate(ept, gpa, &leaf, NULL), 0, "%lx", (unsigned long)gpa);
	cr_assert_eq(leaf.hpa, hpa, "%lx: %lx", (unsigned long)gpa, (unsigned long)leaf.hpa);
	cr_assert_eq(leaf.level, level);
}

static void expect_hole(uint64_t gpa)
{
	struct vmem_ept_leaf leaf;
	uint64_t payload = 1;

	cr_assert_eq(vmem_ept_translate(ept, gpa, &leaf, &payload), -VMEM_ENOENT);
	cr_assert_eq(payload, UINT64_MAX);
}

static uint64_t tables(void)
{
	struct vmem_ept_stats s = { 0 };

	return expect_counted(&s);
}

Test(ept_map, each_size_in_each_format)
{
	static const struct {
		uint32_t format, levels;
	} kinds[] = { { VMEM_EPT_INTEL, 4 }, { VMEM_EPT_INTEL, 5 }, { VMEM_EPT_AMD, 4 },
		      { VMEM_EPT_AMD, 5 },   { VMEM_EPT_VTD, 3 },   { VMEM_EPT_VTD, 4 },
		      { VMEM_EPT_VTD, 5 } };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		uint64_t last = (UINT64_C(1) << (12 + 9 * kinds[i].levels)) - GIB;

		begin(kinds[i].format, kinds[i].levels);
		cr_assert_eq(map_at(GIB, 4096, 0x5000, 0, 0), 0);
		cr_assert_eq(map_at(last, GIB, 4 * GIB, 0, 0), 0);
		cr_assert_eq(map_at(2 * GIB, MIB2, 6 * MIB2, 0, 0), 0);
		cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
		cr_assert_eq(change.leaves, 1);
		expect(GIB, 0x5000, 1);
		expect(GIB + 0xfff, 0x5fff, 1);
		expect_hole(GIB + 4096);
		expect(last + GIB - 1, 5 * GIB - 1, 3);
		expect(2 * GIB + 5, 6 * MIB2 + 5, 2);
		expect_hole(2 * GIB + MIB2);
		close_ept();
	}
}

Test(ept_map, largest_leaves_that_alignment_allows)
{
	begin(VMEM_EPT_INTEL, 4);
	/* 4 KiB before 1 GiB, to 4 KiB and 2 MiB after 2 GiB. */
	cr_assert_eq(map_at(GIB - 4096, GIB + 4096 + MIB2 + 4096, 3 * GIB - 4096, 0, 0), 0);
	cr_assert_eq(change.leaves, 4);
	expect(GIB - 1, 3 * GIB - 1, 1);
	expect(GIB, 3 * GIB, 3);
	expect(2 * GIB, 4 * GIB, 2);
	expect(2 * GIB + MIB2 + 7, 4 * GIB + MIB2 + 7, 1);
	expect_hole(GIB - 4097);
	expect_hole(2 * GIB + MIB2 + 4096);
	cr_assert_eq(tables(), 1 + 1 + 2 + 2);
	close_ept();
	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(0, 2 * GIB, GIB + MIB2, 0, 0), 0);
	cr_assert_eq(change.leaves, 1024, "leaves of 2 MiB");
	close_ept();
	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(0, 4 * MIB2, 4096, 0, 0), 0);
	cr_assert_eq(change.leaves, 2048, "leaves of 4 KiB");
	expect(3 * MIB2 + 12345, 3 * MIB2 + 12345 + 4096, 1);
	close_ept();
	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(0, GIB, 0, 2, 0), 0);
	cr_assert_eq(change.leaves, 512, "no larger than asked");
	close_ept();
}

Test(ept_map, whole_gibibyte_of_small_leaves)
{
	begin(VMEM_EPT_AMD, 4);
	cr_assert_eq(map_at(0, GIB, GIB, 1, 0), 0);
	cr_assert_eq(change.leaves, 1u << 18);
	cr_assert_eq(tables(), 3 + 512);
	for (uint64_t gpa = 0; gpa < GIB; gpa += 4096)
		expect(gpa, GIB + gpa, 1);
	close_ept();
}

Test(ept_map, refused_where_something_is)
{
	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(GIB, 4096, 0, 0, 0), 0);
	cr_assert_eq(map_at(GIB, 4096, 0, 0, 0), -VMEM_EEXIST, "also the same");
	cr_assert_eq(change.reason, VMEM_EPT_MAPPED);
	cr_assert_eq(change.at, GIB);
	cr_assert_eq(map_at(GIB - 8192, 5 * 4096, 0, 0, 0), -VMEM_EEXIST);
	cr_assert_eq(change.at, GIB);
	expect_hole(GIB - 4096);
	expect_hole(GIB + 4096);
	cr_assert_eq(map_at(0, 2 * GIB, 0, 0, 0), -VMEM_EEXIST,
		     "a table with a leaf, under large ones");
	expect_hole(0);
	cr_assert_eq(tables(), 4, "none was taken");
	cr_assert_eq(map_at(4 * GIB, GIB, 0, 0, 0), 0);
	cr_assert_eq(map_at(4 * GIB + 3 * MIB2, 4096, 0, 0, 0), -VMEM_EEXIST,
		     "inside a large leaf");
	cr_assert_eq(change.at, 4 * GIB + 3 * MIB2);
	close_ept();
}

Test(ept_map, replaced)
{
	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(GIB, GIB, 0, 0, 0), 0);
	cr_assert_eq(map_at(GIB + 5 * 4096, 2 * 4096, 9 * GIB, 0, VMEM_EPT_REPLACE), 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_RANGES);
	cr_assert_eq(change.range_count, 1);
	cr_assert_eq(change.ranges[0].gpa, GIB + 5 * 4096);
	cr_assert_eq(change.ranges[0].bytes, 2 * 4096);
	expect(GIB + 4 * 4096, 4 * 4096, 1);
	expect(GIB + 5 * 4096, 9 * GIB, 1);
	expect(GIB + 7 * 4096, 7 * 4096, 1);
	expect(GIB + MIB2, MIB2, 2);
	cr_assert_eq(tables(), 4);
	/* A large leaf where tables are: they wait. */
	cr_assert_eq(map_at(GIB, GIB, 2 * GIB, 0, VMEM_EPT_REPLACE), 0);
	cr_assert_neq(change.epoch, 0);
	cr_assert_eq(change.ranges[0].gpa, GIB);
	cr_assert_eq(change.ranges[0].bytes, GIB);
	expect(GIB + 5 * 4096, 2 * GIB + 5 * 4096, 3);
	cr_assert_eq(tables(), 2);
	cr_assert_eq(pool.out, 4);
	vmem_ept_flushed(ept, change.epoch - 1);
	cr_assert_eq(pool.out, 4, "not yet");
	vmem_ept_flushed(ept, change.epoch);
	cr_assert_eq(pool.out, 2);
	close_ept();
}

Test(ept_map, payloads)
{
	const uint64_t most = (UINT64_C(1) << VMEM_EPT_PAYLOAD_BITS) - 1;
	struct vmem_ept_leaf leaf;
	uint64_t payload;

	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, 4);
		for (uint32_t bit = 0; bit < VMEM_EPT_PAYLOAD_BITS; bit++)
			cr_assert_eq(vmem_ept_set_payload(ept, 4096 * bit, 4096, UINT64_C(1) << bit,
							  0, 0, &change),
				     0);
		for (uint32_t bit = 0; bit < VMEM_EPT_PAYLOAD_BITS; bit++) {
			cr_assert_eq(vmem_ept_translate(ept, 4096 * bit, &leaf, &payload),
				     -VMEM_ENOENT);
			cr_assert_eq(payload, UINT64_C(1) << bit);
		}
		cr_assert_eq(vmem_ept_set_payload(ept, GIB, MIB2, most - 511, 1, 0, &change), 0);
		for (uint64_t i = 0; i < 512; i++) {
			vmem_ept_translate(ept, GIB + 4096 * i, &leaf, &payload);
			cr_assert_eq(payload, most - 511 + i);
		}
		cr_assert_eq(vmem_ept_set_payload(ept, GIB, MIB2, most - 510, 1, 0, &change),
			     -VMEM_EINVAL);
		cr_assert_eq(vmem_ept_set_payload(ept, GIB, 4096, most + 1, 0, 0, &change),
			     -VMEM_EINVAL);
		/* One for a large range, of which a part is mapped later. */
		cr_assert_eq(vmem_ept_set_payload(ept, 2 * GIB, GIB, 77, 0, 0, &change), 0);
		cr_assert_eq(change.leaves, 1);
		cr_assert_eq(map_at(2 * GIB + 4096, 4096, 0, 0, 0), 0);
		cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
		expect(2 * GIB + 4096, 0, 1);
		for (uint64_t gpa = 2 * GIB; gpa < 3 * GIB; gpa += 33 * 4096) {
			vmem_ept_translate(ept, gpa, &leaf, &payload);
			cr_assert_eq(payload, 77);
		}
		cr_assert_eq(vmem_ept_set_payload(ept, 2 * GIB, 8192, 7, 1, 0, &change),
			     -VMEM_EEXIST);
		cr_assert_eq(change.at, 2 * GIB + 4096);
		close_ept();
	}
}

/* The entry of level 1, as it is in memory. */
static uint64_t entry_at(uint64_t gpa)
{
	uint64_t table = vmem_ept_pointer(ept) & VMEM_EPT_ADDRESS, entry = 0;

	for (uint32_t level = 4; level; level--) {
		entry = vmemt_ept_page(&pool, table)[gpa >> (3 + 9 * level) & 511];
		table = entry & VMEM_EPT_ADDRESS;
	}
	return entry;
}

/* What a payload is in an entry: bits 9:3 and 61:11, those of the address inverted if that is asked for. */
static void payload_bits(uint64_t flip)
{
	const uint64_t gpa = GIB + 4096;
	struct vmem_ept_leaf leaf;
	uint64_t payload;

	for (uint32_t bit = 0; bit < VMEM_EPT_PAYLOAD_BITS; bit++) {
		cr_assert_eq(
			vmem_ept_set_payload(ept, gpa, 4096, UINT64_C(1) << bit, 0, 0, &change), 0);
		cr_assert_eq(entry_at(gpa) ^ flip,
			     UINT64_C(1) << 62 | UINT64_C(1) << (bit < 7 ? bit + 3 : bit + 4));
		vmem_ept_translate(ept, gpa, &leaf, &payload);
		cr_assert_eq(payload, UINT64_C(1) << bit);
	}
	/* In a row, in one entry for many, and as what an install expects. */
	cr_assert_eq(vmem_ept_set_payload(ept, GIB, MIB2, 250, 1, 0, &change), 0);
	cr_assert_eq(vmem_ept_set_payload(ept, 2 * GIB, GIB, 9, 0, 0, &change), 0);
	for (uint64_t i = 0; i < 512; i++) {
		cr_assert_eq((entry_at(GIB + 4096 * i) ^ flip) & VMEM_EPT_ADDRESS,
			     (250 + i) >> 8 << 12);
		vmem_ept_translate(ept, GIB + 4096 * i, &leaf, &payload);
		cr_assert_eq(payload, 250 + i);
	}
	payload = 10;
	leaf = VMEMT_EPT_LEAF(.hpa = GIB);
	cr_assert_eq(vmem_ept_install(ept, 2 * GIB, &leaf, &payload), -VMEM_EAGAIN);
	payload = 9;
	cr_assert_eq(vmem_ept_install(ept, 2 * GIB, &leaf, &payload), 0);
	vmem_ept_translate(ept, 2 * GIB + 4096, &leaf, &payload);
	cr_assert_eq(payload, 9);
}

Test(ept_map, payloads_inverted)
{
	struct vmem_ept_run run = { .size = sizeof(run) };

	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++)
		for (int inverted = 0; inverted < 2; inverted++) {
			struct vmem_ept_capabilities caps = vmemt_ept_caps(format);

			open_ept(64, &caps, inverted ? VMEM_EPT_INVERT_PAYLOAD : 0, 4, 0);
			payload_bits(inverted ? UINT64_C(0xffffffffff000) : 0);
			cr_assert_eq(vmem_ept_next(ept, 0, &run), 0);
			cr_assert_eq(run.gpa, GIB);
			cr_assert_eq(run.bytes, MIB2);
			cr_assert_eq(run.payload, 250);
			cr_assert_eq(run.step, 1);
			cr_assert_eq(vmem_ept_unmap(ept, 0, 4 * GIB, &change), 0);
			expect_hole(GIB);
			expect_hole(3 * GIB - 4096);
			vmem_ept_flushed(ept, change.epoch);
			close_ept();
		}
}

/* What the documentation says of L1TF: the highest bit of the address is that of the payload, or its inverse. */
Test(ept_map, payloads_beyond_memory)
{
	static const uint64_t others[] = {
		0, 1, 0xff, 0x100, (UINT64_C(1) << 41) - 1, UINT64_C(0x3ff) << 48
	};
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	const uint64_t half = UINT64_C(1) << (caps.physical_bits - 1);

	for (int inverted = 0; inverted < 2; inverted++) {
		open_ept(16, &caps, inverted ? VMEM_EPT_INVERT_PAYLOAD : 0, 4, 0);
		for (size_t i = 0; i < 6; i++)
			for (uint64_t bit = 0; bit < 2; bit++) {
				cr_assert_eq(vmem_ept_set_payload(
						     ept, 0, 4096,
						     others[i] | bit << (caps.physical_bits - 5), 0,
						     0, &change),
					     0);
				cr_assert_eq((entry_at(0) & half) != 0, (int)bit != inverted);
			}
		close_ept();
	}
}

Test(ept_map, runs)
{
	struct vmem_ept_run run = { .size = sizeof(run) };

	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(vmem_ept_next(ept, 0, &run), -VMEM_ENOENT);
	cr_assert_eq(map_at(MIB2 - 8192, MIB2, GIB + MIB2 - 8192, 1, 0), 0);
	cr_assert_eq(map_at(GIB, 2 * GIB, GIB, 0, 0), 0);
	cr_assert_eq(vmem_ept_set_payload(ept, GIB - 8192, 8192, 5, 1, 0, &change), 0);
	cr_assert_eq(vmem_ept_next(ept, 0, &run), 0);
	cr_assert_eq(run.gpa, MIB2 - 8192);
	cr_assert_eq(run.bytes, MIB2, "over the end of a table");
	cr_assert_eq(run.leaf.hpa, GIB + MIB2 - 8192);
	cr_assert_eq(run.payload, UINT64_MAX);
	cr_assert_eq(vmem_ept_next(ept, MIB2, &run), 0);
	cr_assert_eq(run.gpa, MIB2, "cut");
	cr_assert_eq(run.bytes, MIB2 - 8192);
	cr_assert_eq(vmem_ept_next(ept, 2 * MIB2, &run), 0);
	cr_assert_eq(run.gpa, GIB - 8192);
	cr_assert_eq(run.bytes, 8192);
	cr_assert_eq(run.payload, 5);
	cr_assert_eq(run.step, 1);
	cr_assert_eq(run.leaf.rights, 0);
	cr_assert_eq(vmem_ept_next(ept, GIB, &run), 0);
	cr_assert_eq(run.bytes, 2 * GIB);
	cr_assert_eq(run.leaf.level, 3);
	cr_assert_eq(vmem_ept_next(ept, 3 * GIB, &run), -VMEM_ENOENT);
	cr_assert_eq(vmem_ept_next(ept, UINT64_C(1) << 48, &run), -VMEM_ERANGE);
	close_ept();
}

Test(ept_map, split)
{
	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(GIB, GIB, 5 * GIB, 0, 0), 0);
	cr_assert_eq(vmem_ept_split(ept, GIB + MIB2, 4096, 2, &change), 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	expect(GIB + 7 * MIB2 + 3, 5 * GIB + 7 * MIB2 + 3, 2);
	cr_assert_eq(vmem_ept_split(ept, GIB + MIB2, MIB2 + 4096, 1, &change), 0);
	expect(GIB + 3, 5 * GIB + 3, 2);
	expect(GIB + MIB2 + 4099, 5 * GIB + MIB2 + 4099, 1);
	expect(GIB + 2 * MIB2 + 4099, 5 * GIB + 2 * MIB2 + 4099, 1);
	expect(GIB + 3 * MIB2, 5 * GIB + 3 * MIB2, 2);
	cr_assert_eq(tables(), 2 + 1 + 2);
	close_ept();
}

/* The second of two that are alike goes a shorter way: it must be no other. */
Test(ept_map, once_more)
{
	struct vmem_ept_leaf leaf = VMEMT_EPT_LEAF(.level = 0);

	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(GIB, 4096, GIB, 0, 0), 0);
	for (uint64_t pages = 1; pages < 512; pages++) {
		uint64_t gpa = GIB + MIB2 - 4096 * pages;

		cr_assert_eq(map_at(gpa, 4096 * pages, gpa, 0, 0), 0);
		cr_assert_eq(change.leaves, pages);
		expect(gpa, gpa, 1);
		expect(GIB + MIB2 - 1, GIB + MIB2 - 1, 1);
		expect_hole(GIB + MIB2);
		cr_assert_eq(vmem_ept_unmap(ept, gpa, 4096 * pages, &change), 0);
	}
	close_ept();
	begin(VMEM_EPT_INTEL, 4);
	cr_assert_eq(map_at(GIB, 4096, GIB, 0, 0), 0);
	cr_assert_eq(map_at(GIB + MIB2, MIB2, 0, 0, 0), 0);
	cr_assert_eq(map_at(GIB, 2 * 4096, GIB, 0, 0), -VMEM_EEXIST);
	cr_assert_eq(change.at, GIB);
	cr_assert_eq(map_at(GIB + 4096, 4097, GIB, 0, 0), -VMEM_EINVAL);
	cr_assert_eq(map_at(GIB + 4096, 4096, GIB + 1, 0, 0), -VMEM_EINVAL);
	cr_assert_eq(map_at(GIB + 4096, 4096, UINT64_C(1) << 46, 0, 0), -VMEM_ERANGE);
	cr_assert_eq(map_at(GIB + 4096, 0, 0, 0, 0), -VMEM_EINVAL);
	leaf.rights = VMEM_EPT_READ;
	cr_assert_eq(vmem_ept_map(ept, GIB + 4096, 4096, &leaf, 0, &change), 0);
	cr_assert_eq(vmem_ept_translate(ept, GIB + 4096, &leaf, NULL), 0);
	cr_assert_eq(leaf.rights, VMEM_EPT_READ);
	close_ept();
}

/* Each answer is that of vmem_ept_translate(), however many there are in a call. */
Test(ept_map, translate_many)
{
	enum { MOST = 100 };
	struct vmem_ept_leaf leaves[MOST + 1], alone;
	uint64_t gpas[MOST], seed = vmemt_seed("ept_map translate_many");

	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, 4);
		cr_assert_eq(map_at(GIB, 40 * 4096, 0x5000, 0, 0), 0);
		cr_assert_eq(map_at(GIB + MIB2, MIB2, MIB2, 0, 0), 0);
		cr_assert_eq(vmem_ept_set_payload(ept, GIB + 2 * MIB2, MIB2, 5, 0, 0, &change), 0);
		for (size_t count = 0; count <= MOST; count++) {
			size_t mapped = 0;

			for (size_t i = 0; i < count; i++) {
				gpas[i] = GIB + vmemt_rand(&seed) % (4 * MIB2);
				if (vmemt_rand(&seed) % 8 == 0)
					gpas[i] = vmemt_rand(&seed);
			}
			memset(leaves, 0xa5, sizeof(leaves));
			alone = leaves[count];
			mapped = vmem_ept_translate_many(ept, gpas, count, leaves);
			cr_assert_arr_eq(&leaves[count], &alone, sizeof(alone));
			for (size_t i = 0; i < count; i++) {
				memset(&alone, 0, sizeof(alone));
				if (!vmem_ept_translate(ept, gpas[i], &alone, NULL))
					mapped--;
				cr_assert_arr_eq(&leaves[i], &alone, sizeof(alone));
			}
			cr_assert_eq(mapped, 0);
		}
		close_ept();
	}
}
