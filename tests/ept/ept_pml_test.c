/* SPDX-License-Identifier: BSD-2-Clause */
/* Emptying a buffer of page-modification logging: where the index stands, and what lies outside. */
#include <criterion/criterion.h>
#include <string.h>
#include <vmem/ept_track.h>
#include "support/rng.h"

enum { PAGES = 1000, FIRST = 0x100000 };

static uint64_t buffer[VMEM_EPT_PML_ENTRIES], bitmap[PAGES / 64 + 2];

static uint32_t drain(uint16_t index, uint32_t *ret_outside)
{
	memset(bitmap, 0, sizeof(bitmap));
	return vmem_ept_pml_drain(buffer, index, (uint64_t)FIRST << 12, PAGES * 4096ull, bitmap,
				  ret_outside);
}

static int marked(uint64_t page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

static uint32_t all_marked(void)
{
	uint32_t count = 0;

	for (uint64_t page = 0; page < sizeof(bitmap) * 8; page++)
		count += (uint32_t)marked(page);
	return count;
}

Test(ept_pml, index)
{
	uint32_t outside;

	for (uint32_t i = 0; i < VMEM_EPT_PML_ENTRIES; i++)
		buffer[i] = (uint64_t)(FIRST + i) << 12;
	cr_assert_eq(drain(511, &outside), 0);
	cr_assert_eq(all_marked(), 0);
	cr_assert_eq(drain(510, &outside), 1);
	cr_assert(marked(511));
	cr_assert_eq(all_marked(), 1);
	cr_assert_eq(drain(0, &outside), 511);
	cr_assert(!marked(0) && marked(1));
	cr_assert_eq(all_marked(), 511);
	for (uint32_t full = 512; full < 0x10000; full += 0xfdff - 512) {
		cr_assert_eq(drain((uint16_t)full, &outside), 512);
		cr_assert_eq(all_marked(), 512);
	}
	cr_assert_eq(drain(0xffff, NULL), 512);
	cr_assert_eq(all_marked(), 512);
	cr_assert_eq(outside, 0);
}

Test(ept_pml, hostile)
{
	static const uint64_t bad[] = { 0,
					(FIRST - 1ull) << 12,
					(FIRST - 1ull) << 12 | 0xfff,
					(FIRST + PAGES + 0ull) << 12,
					UINT64_MAX,
					UINT64_C(1) << 63 | (uint64_t)FIRST << 12 };
	uint32_t outside;

	for (uint32_t i = 0; i < VMEM_EPT_PML_ENTRIES; i++)
		buffer[i] = bad[i % 6];
	cr_assert_eq(drain(0xffff, &outside), 512);
	cr_assert_eq(outside, 512);
	cr_assert_eq(all_marked(), 0);
	buffer[511] = (FIRST + PAGES - 1ull) << 12 | 0xfff;
	buffer[510] = (uint64_t)FIRST << 12;
	cr_assert_eq(drain(509, &outside), 2);
	cr_assert_eq(outside, 0);
	cr_assert(marked(0) && marked(PAGES - 1));
	cr_assert_eq(all_marked(), 2);
}

/* Ranges that end at the top, or would go round it. */
Test(ept_pml, around_the_end)
{
	uint32_t outside;

	for (uint32_t i = 0; i < VMEM_EPT_PML_ENTRIES; i++)
		buffer[i] = i & 1 ? (uint64_t)i << 12 : 0 - ((uint64_t)(i + 2) << 12);
	memset(bitmap, 0, sizeof(bitmap));
	cr_assert_eq(vmem_ept_pml_drain(buffer, 0xffff, 0 - UINT64_C(4096 * 64), 4096 * 64, bitmap,
					&outside),
		     512);
	cr_assert_eq(all_marked(), 32);
	cr_assert_eq(outside, 512 - 32);
}
