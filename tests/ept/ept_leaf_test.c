/* SPDX-License-Identifier: BSD-2-Clause */
/* Every right, memory type and flag of a leaf: the bits of its entry in each format, and what is refused; what new objects
 * ask of a processor; the values to load. */
#include "ept/ept_fixture.h"

#define HPA UINT64_C(0x3fc0000000)
#define OURS (UINT64_C(1) << 53) /* a bit that all formats ignore */

/* The entry of a leaf at GIB. */
static uint64_t raw(uint32_t level)
{
	uint64_t *table = vmemt_ept_page(&pool, VMEMT_EPT_BASE);

	for (uint32_t l = 4; l > level; l--)
		table = vmemt_ept_page(&pool, table[GIB >> (3 + 9 * l) & 511] & VMEM_EPT_ADDRESS);
	return table[GIB >> (3 + 9 * level) & 511];
}

/* Maps it in each size, looks at the bits besides the address, and reads it back. */
static void expect_bits(struct vmem_ept_leaf leaf, uint64_t small, uint64_t large)
{
	static const uint64_t bytes[] = { 0, 4096, MIB2, GIB };

	leaf.hpa = HPA;
	for (uint32_t level = 1; level <= 3; level++) {
		struct vmem_ept_leaf found;

		if (level > 1 && (leaf.flags & VMEM_EPT_LEAF_SUBPAGE))
			break;
		leaf.level = level;
		cr_assert_eq(vmem_ept_map(ept, GIB, bytes[level], &leaf, 0, &change), 0);
		cr_assert_eq(raw(level), HPA | OURS | (level > 1 ? large : small), "%lx",
			     (unsigned long)raw(level));
		cr_assert_eq(vmem_ept_translate(ept, GIB + 5, &found, NULL), 0);
		cr_assert_eq(found.hpa, HPA + 5);
		cr_assert_eq(found.rights, leaf.rights);
		cr_assert_eq(found.type, leaf.type);
		cr_assert_eq(found.flags, leaf.flags, "%x %x", found.flags, leaf.flags);
		cr_assert_eq(found.level, level);
		cr_assert_eq(vmem_ept_unmap(ept, GIB, GIB, &change), 0);
		vmem_ept_flushed(ept, change.epoch);
	}
}

static void expect_refused(struct vmem_ept_leaf leaf, int error, uint32_t reason)
{
	cr_assert_eq(vmem_ept_map(ept, GIB, 4096, &leaf, 0, &change), error);
	cr_assert_eq(change.reason, reason);
	cr_assert_eq(change.at, GIB);
	cr_assert_eq(pool.out, 1);
}

Test(ept_leaf, rights_of_intel)
{
	for (int mbec = 0; mbec < 2; mbec++)
		for (int only = 0; only < 2; only++) {
			struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);

			caps.caps &= ~((mbec ? 0 : VMEM_EPT_CAP_MBEC) |
				       (only ? 0 : VMEM_EPT_CAP_EXEC_ONLY));
			open_ept(64, &caps, 0, 4, 0);
			for (uint32_t rights = 0; rights < 32; rights++) {
				struct vmem_ept_leaf leaf = { .rights = rights,
							      .type = VMEM_EPT_WB };
				uint64_t bits = (rights & 7) | (rights & 8) << 7 | 6 << 3;
				uint32_t exec = rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER);

				if (!rights || rights > 15 || (rights & 3) == 2)
					expect_refused(leaf, -VMEM_EINVAL, VMEM_EPT_BAD_RIGHTS);
				else if ((!mbec && (rights & 8)) ||
					 (!only && exec && !(rights & 1)))
					expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_RIGHTS);
				else
					expect_bits(leaf, bits, bits | 0x80);
			}
			close_ept();
		}
}

Test(ept_leaf, rights_of_amd_and_vtd)
{
	for (uint32_t format = VMEM_EPT_AMD; format <= VMEM_EPT_VTD; format++)
		for (int nx = 0; nx < 2; nx++) {
			struct vmem_ept_capabilities caps = vmemt_ept_caps(format);
			int amd = format == VMEM_EPT_AMD;

			caps.caps &= ~(nx ? 0 : VMEM_EPT_CAP_NO_EXEC);
			open_ept(64, &caps, 0, 4, 0);
			for (uint32_t rights = 1; rights < 16; rights++) {
				struct vmem_ept_leaf leaf = { .rights = rights,
							      .type = VMEM_EPT_WB };
				uint64_t bits = rights & 3;

				if (amd)
					bits |= 4 | (rights & 4 ? 0 : UINT64_C(1) << 63);
				if ((rights & 3) == 2)
					expect_refused(leaf, -VMEM_EINVAL, VMEM_EPT_BAD_RIGHTS);
				else if (!(rights & 1) || (rights & (amd ? 8 : 12)) ||
					 (amd && !nx && !(rights & 4)))
					expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_RIGHTS);
				else
					expect_bits(leaf, bits, bits | 0x80);
			}
			close_ept();
		}
}

Test(ept_leaf, memory_types)
{
	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		struct vmem_ept_capabilities caps = vmemt_ept_caps(format);

		open_ept(64, &caps, 0, 4, 0);
		for (uint32_t type = 0; type < 10; type++) {
			struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ | VMEM_EPT_WRITE,
						      .type = type };
			int exists = type < 2 || (type > 3 && type < 7);

			if (!exists)
				expect_refused(leaf, -VMEM_EINVAL, VMEM_EPT_BAD_TYPE);
			else if (format == VMEM_EPT_INTEL)
				expect_bits(leaf, 3 | type << 3, 0x83 | type << 3);
			else if (format == VMEM_EPT_VTD ? type != 6 : type == 1 || type == 5)
				expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_BAD_TYPE);
			else if (format == VMEM_EPT_VTD)
				expect_bits(leaf, 3, 0x83);
			else
				expect_bits(leaf,
					    UINT64_C(1) << 63 | 7 |
						    (type == 0   ? 0x18
						     : type == 4 ? 8
								 : 0),
					    UINT64_C(1) << 63 | 0x87 |
						    (type == 0   ? 0x18
						     : type == 4 ? 8
								 : 0));
		}
		close_ept();
	}
}

static const struct {
	uint32_t flag;
	uint32_t bit;
	uint64_t cap;   /* without which it is refused */
	uint64_t needs; /* of the object */
} intel_flags[] = {
	{ VMEM_EPT_LEAF_IGNORE_PAT, 6, 0, 0 },
	{ VMEM_EPT_LEAF_ACCESSED, 8, VMEM_EPT_CAP_AD, 0 },
	{ VMEM_EPT_LEAF_DIRTY, 9, VMEM_EPT_CAP_AD, 0 },
	{ VMEM_EPT_LEAF_VERIFY, 57, VMEM_EPT_CAP_VERIFY, 0 },
	{ VMEM_EPT_LEAF_PAGING_WRITE, 58, VMEM_EPT_CAP_PAGING_WRITE, 0 },
	{ VMEM_EPT_LEAF_SHADOW_STACK, 60, VMEM_EPT_CAP_SHADOW_STACK, VMEM_EPT_SHADOW_STACK },
	{ VMEM_EPT_LEAF_SUBPAGE, 61, VMEM_EPT_CAP_SUBPAGE, 0 },
};

Test(ept_leaf, flags_of_intel)
{
	for (size_t i = 0; i < sizeof(intel_flags) / sizeof(*intel_flags); i++) {
		struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
		struct vmem_ept_leaf leaf = { .rights = 1,
					      .type = VMEM_EPT_WB,
					      .flags = intel_flags[i].flag };
		uint64_t bits = 0x31 | UINT64_C(1) << intel_flags[i].bit;

		open_ept(64, &caps, VMEM_EPT_AD | intel_flags[i].needs, 4, 0);
		expect_bits(leaf, bits, bits | 0x80);
		leaf.flags = VMEM_EPT_LEAF_SNOOP;
		expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY);
		leaf.flags = VMEM_EPT_LEAF_SNOOP << 1;
		expect_refused(leaf, -VMEM_EINVAL, VMEM_EPT_BAD_CALL);
		close_ept();
		leaf.flags = intel_flags[i].flag;
		if (intel_flags[i].needs) {
			open_ept(64, &caps, VMEM_EPT_AD, 4, 0);
			expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY);
			close_ept();
		}
		caps.caps &= ~intel_flags[i].cap;
		open_ept(64, &caps, 0, 4, 0);
		if (intel_flags[i].cap)
			expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY);
		close_ept();
	}
}

Test(ept_leaf, virtualization_exceptions)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	struct vmem_ept_leaf leaf = { .rights = 1, .type = VMEM_EPT_WB };
	const uint64_t suppress = UINT64_C(1) << 63;

	open_ept(64, &caps, VMEM_EPT_SUPPRESS_ALL_VE, 4, 0);
	expect_bits(leaf, suppress | 0x31, suppress | 0xb1);
	leaf.flags = VMEM_EPT_LEAF_VE;
	expect_bits(leaf, 0x31, 0xb1);
	cr_assert_eq(vmem_ept_map(ept, GIB, 4096, &leaf, 0, &change), 0);
	cr_assert_eq(vmem_ept_set_payload(ept, GIB, 4096, 3, 0, VMEM_EPT_REPLACE, &change), 0);
	for (uint64_t i = 0; i < pool.count; i++)
		for (uint32_t j = 0; j < 512; j++)
			if (pool.used[i])
				cr_assert(vmemt_ept_page(&pool, VMEMT_EPT_BASE + 4096 * i)[j] &
					  suppress);
	close_ept();
	open_ept(64, &caps, 0, 4, 0);
	expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY);
	close_ept();
}

Test(ept_leaf, flags_of_amd_and_vtd)
{
	const uint32_t ad = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
	struct vmem_ept_leaf leaf = { .rights = 1, .type = VMEM_EPT_WB, .flags = ad };
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_AMD);

	open_ept(64, &caps, 0, 4, 0);
	expect_bits(leaf, UINT64_C(1) << 63 | 0x65, UINT64_C(1) << 63 | 0xe5);
	for (uint32_t flag = 1; flag <= VMEM_EPT_LEAF_SNOOP; flag <<= 1)
		if (!(flag & ad)) {
			leaf.flags = flag;
			expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY);
		}
	close_ept();
	caps = vmemt_ept_caps(VMEM_EPT_VTD);
	open_ept(64, &caps, VMEM_EPT_AD, 4, 0);
	leaf.flags = ad | VMEM_EPT_LEAF_SNOOP;
	expect_bits(leaf, 0xb01, 0xb81);
	close_ept();
	caps.caps &= ~VMEM_EPT_CAP_SNOOP;
	open_ept(64, &caps, VMEM_EPT_AD, 4, 0);
	expect_refused(leaf, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY);
	close_ept();
}

static int make(const struct vmem_ept_capabilities *caps, uint32_t levels, uint64_t flags,
		uint64_t *ret_pointer)
{
	const struct vmem_ept_memory memory = {
		.size = sizeof(memory),
		.context = &pool,
		.allocate = vmemt_ept_allocate,
		.free = vmemt_ept_give_back,
		.offset = (uint64_t)(uintptr_t)pool.pages - VMEMT_EPT_BASE,
	};
	const struct vmem_ept_opts opts = { .size = sizeof(opts),
					    .flags = flags,
					    .capabilities = caps,
					    .memory = &memory,
					    .levels = levels };
	vmem_ept *made = NULL;
	int error = vmem_ept_new(&made, &opts);

	if (!error)
		*ret_pointer = vmem_ept_pointer(made) - VMEMT_EPT_BASE;
	vmem_ept_free(made);
	cr_assert_eq(pool.out, 0);
	return error;
}

Test(ept_leaf, pointers)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	uint64_t pointer;

	vmemt_ept_pool_init(&pool, 8);
	cr_assert_eq(make(&caps, 0, 0, &pointer), 0);
	cr_assert_eq(pointer, 6 | 3 << 3);
	cr_assert_eq(make(&caps, 5, VMEM_EPT_AD, &pointer), 0);
	cr_assert_eq(pointer, 6 | 4 << 3 | 1 << 6);
	caps.caps &= ~VMEM_EPT_CAP_TABLES_WB;
	cr_assert_eq(make(&caps, 4, 0, &pointer), 0);
	cr_assert_eq(pointer, 3 << 3);
	caps.caps &= ~VMEM_EPT_CAP_TABLES_UC;
	cr_assert_eq(make(&caps, 4, 0, &pointer), -VMEM_ENOTSUP);
	for (uint32_t levels = 4; levels <= 5; levels++) {
		caps = vmemt_ept_caps_of(VMEM_EPT_AMD, levels);
		cr_assert_eq(make(&caps, 0, 0, &pointer), 0);
		cr_assert_eq(pointer, 0);
		cr_assert_eq(make(&caps, levels, 0, &pointer), 0);
		cr_assert_eq(make(&caps, 9 - levels, 0, &pointer), -VMEM_ENOTSUP, "other mode");
	}
	caps.caps |= VMEM_EPT_CAP_4_LEVELS;
	cr_assert_eq(make(&caps, 0, 0, &pointer), -VMEM_EINVAL, "which mode is not told");
	cr_assert_eq(make(&caps, 4, 0, &pointer), 0);
	caps = vmemt_ept_caps(VMEM_EPT_VTD);
	for (uint32_t levels = 3; levels <= 5; levels++) {
		cr_assert_eq(make(&caps, levels, 0, &pointer), 0);
		cr_assert_eq(pointer, levels - 2);
	}
	vmemt_ept_pool_destroy(&pool);
}

Test(ept_leaf, what_a_processor_cannot)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL), with = caps;
	uint64_t pointer;

	vmemt_ept_pool_init(&pool, 8);
	cr_assert_eq(make(&caps, 3, 0, &pointer), -VMEM_ENOTSUP, "VT-d only");
	cr_assert_eq(make(&caps, 2, 0, &pointer), -VMEM_EINVAL);
	cr_assert_eq(make(&caps, 6, 0, &pointer), -VMEM_EINVAL);
	cr_assert_eq(make(&caps, 4, UINT64_C(1) << 40, &pointer), -VMEM_EINVAL);
	with.caps &= ~VMEM_EPT_CAP_5_LEVELS;
	cr_assert_eq(make(&with, 5, 0, &pointer), -VMEM_ENOTSUP);
	with.caps = caps.caps & ~VMEM_EPT_CAP_4_LEVELS;
	cr_assert_eq(make(&with, 4, 0, &pointer), -VMEM_ENOTSUP);
	cr_assert_eq(make(&with, 0, 0, &pointer), 0, "five are all it has");
	cr_assert_eq(pointer, 6 | 4 << 3);
	with.caps = caps.caps & ~VMEM_EPT_CAP_AD;
	cr_assert_eq(make(&with, 4, VMEM_EPT_AD, &pointer), -VMEM_ENOTSUP);
	with.caps = caps.caps & ~VMEM_EPT_CAP_SUPPRESS_VE;
	cr_assert_eq(make(&with, 4, VMEM_EPT_SUPPRESS_ALL_VE, &pointer), -VMEM_ENOTSUP);
	with = caps;
	with.physical_bits = 53;
	cr_assert_eq(make(&with, 4, 0, &pointer), -VMEM_EINVAL);
	with = caps;
	with.format = VMEM_EPT_FORMATS;
	cr_assert_eq(make(&with, 4, 0, &pointer), -VMEM_EINVAL);
	pool.left = 0;
	cr_assert_eq(make(&caps, 4, 0, &pointer), -VMEM_ENOMEM);
	vmemt_ept_pool_destroy(&pool);
}

/* A leaf of 1 GiB could not be split: one of 2 MiB in between would have reserved bits set. */
Test(ept_leaf, no_1g_without_2m)
{
	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		struct vmem_ept_capabilities caps = vmemt_ept_caps(format);

		caps.caps &= ~VMEM_EPT_CAP_2M;
		open_ept(600, &caps, 0, 4, 0);
		cr_assert_eq(vmem_ept_worst_case(ept, GIB, &VMEMT_EPT_LEAF(.level = 3)),
			     vmem_ept_worst_case(ept, GIB, &VMEMT_EPT_LEAF(.level = 1)));
		cr_assert_eq(map_at(0, GIB, 0, 0, 0), 0);
		cr_assert_eq(change.leaves, GIB / 4096);
		for (uint32_t level = 2; level <= 3; level++) {
			const struct vmem_ept_leaf leaf = VMEMT_EPT_LEAF(.level = level);

			cr_assert_eq(vmem_ept_install(ept, GIB, &leaf, NULL), -VMEM_ENOTSUP);
			cr_assert_eq(vmem_ept_merge(ept, 0, GIB, level, &change), -VMEM_ENOTSUP);
		}
		close_ept();
	}
}

/* Leaves of sizes that the processor has not are made of smaller ones. */
Test(ept_leaf, sizes_that_a_processor_has)
{
	for (int largest = 1; largest <= 3; largest++) {
		struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
		const struct vmem_ept_leaf leaf = { .rights = 1, .type = VMEM_EPT_WB };
		struct vmem_ept_leaf found;

		caps.caps &= ~((largest < 3 ? VMEM_EPT_CAP_1G : 0) |
			       (largest < 2 ? VMEM_EPT_CAP_2M : 0));
		open_ept(64, &caps, 0, 4, 0);
		cr_assert_eq(
			vmem_ept_map(ept, GIB, largest == 1 ? 2 * MIB2 : GIB, &leaf, 0, &change),
			0);
		cr_assert_eq(vmem_ept_translate(ept, GIB, &found, NULL), 0);
		cr_assert_eq(found.level, (uint32_t)largest);
		cr_assert_eq(vmem_ept_merge(ept, GIB, GIB, 3, &change),
			     largest < 3 ? -VMEM_ENOTSUP : 0);
		cr_assert_eq(change.reason, largest < 3 ? VMEM_EPT_NO_CAPABILITY : VMEM_EPT_FINE);
		close_ept();
	}
}
