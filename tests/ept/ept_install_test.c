/* SPDX-License-Identifier: BSD-2-Clause */
/* Installing a leaf, and the log of writes, one at a time: what is refused, and what is left behind. Races: ept_races_test.c. */
#include <string.h>
#include <vmem/ept_track.h>
#include "ept/ept_track_fixture.h"

static void start(uint64_t max_tables)
{
	open_ept(&(struct wanted){ .flags = VMEM_EPT_AD | VMEM_EPT_NO_EXEC_LARGE,
				   .max_tables = max_tables });
}

static int install(uint64_t gpa, uint64_t hpa, uint32_t level, const uint64_t *expected)
{
	return vmem_ept_install(ept, gpa, &LEAF(hpa, level), expected);
}

static struct vmem_ept_stats stats(void)
{
	struct vmem_ept_stats s = { .size = sizeof(s) };

	cr_assert_eq(vmem_ept_get_stats(ept, &s), 0);
	return s;
}

Test(ept_install, refused)
{
	struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_WRITE, .type = VMEM_EPT_WB };

	start(0);
	cr_assert_eq(install(1, 0, 1, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(0, 1, 1, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(PAGE, 0, 2, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(0, PAGE, 2, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(0, 0, 4, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(UINT64_C(1) << 48, 0, 1, NULL), -VMEM_ERANGE);
	cr_assert_eq(install(0 - PAGE, 0, 1, NULL), -VMEM_ERANGE);
	cr_assert_eq(install(0, UINT64_C(1) << 40, 1, NULL), -VMEM_ERANGE);
	cr_assert_eq(install(0, 0, 3, NULL), -VMEM_ENOTSUP);
	cr_assert_eq(vmem_ept_install(ept, 0, &leaf, NULL), -VMEM_EINVAL);
	leaf.rights = VMEM_EPT_EXEC;
	cr_assert_eq(vmem_ept_install(ept, 0, &leaf, NULL), -VMEM_ENOTSUP);
	leaf.rights = VMEM_EPT_EXEC | VMEM_EPT_READ;
	leaf.level = 2;
	cr_assert_eq(vmem_ept_install(ept, 0, &leaf, NULL), -VMEM_ENOTSUP);
	leaf.level = 0;
	leaf.type = 3;
	cr_assert_eq(vmem_ept_install(ept, 0, &leaf, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_install(ept, 0, NULL, NULL), -VMEM_EINVAL);
	cr_assert_eq(memory.live, 1);
	close_ept();
}

/* Where the tables are there, too: nothing of what is refused comes into the entry. */
Test(ept_install, refused_beside_another)
{
	struct vmem_ept_leaf leaf = LEAF(0, 1);
	uint64_t payload;

	start(0);
	cr_assert_eq(install(0, PAGE, 1, NULL), 0);
	cr_assert_eq(install(PAGE + 1, 0, 1, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(PAGE, 6, 1, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(PAGE, UINT64_C(1) << 40, 1, NULL), -VMEM_ERANGE);
	cr_assert_eq(install(PAGE, 0 - PAGE, 1, NULL), -VMEM_ERANGE);
	leaf.rights = VMEM_EPT_WRITE;
	cr_assert_eq(vmem_ept_install(ept, PAGE, &leaf, NULL), -VMEM_EINVAL);
	leaf = LEAF(0, 1);
	leaf.type = 3;
	cr_assert_eq(vmem_ept_install(ept, PAGE, &leaf, NULL), -VMEM_EINVAL);
	cr_assert_eq(install(0, 0, 1, NULL), -VMEM_EEXIST);
	cr_assert_eq(vmem_ept_translate(ept, PAGE, &leaf, &payload), -VMEM_ENOENT);
	cr_assert_eq(payload, UINT64_MAX);
	cr_assert_eq(stats().leaves[0], 1);
	close_ept();
}

Test(ept_install, expected)
{
	const uint64_t nothing = UINT64_MAX, seven = 7, eight = 8;

	start(0);
	cr_assert_eq(vmem_ept_set_payload(ept, 0, 4 * PAGE, 7, 0, 0, &change), 0);
	cr_assert_eq(install(0, 0, 1, &eight), -VMEM_EAGAIN);
	cr_assert_eq(install(0, 0, 1, &nothing), -VMEM_EAGAIN);
	cr_assert_eq(install(4 * PAGE, 0, 1, &seven), -VMEM_EAGAIN);
	cr_assert_eq(install(M2, 0, 1, &seven), -VMEM_EAGAIN);
	cr_assert_eq(stats().payloads, 4);
	cr_assert_eq(install(0, 0, 1, &seven), 0);
	cr_assert_eq(install(PAGE, 0, 1, NULL), 0);
	cr_assert_eq(install(4 * PAGE, 0, 1, &nothing), 0);
	cr_assert_eq(install(M2, 0, 2, &nothing), 0);
	cr_assert_eq(stats().payloads, 2);
	cr_assert_eq(stats().leaves[0], 3);
	cr_assert_eq(stats().leaves[1], 1);
	cr_assert_eq(install(0, 0, 1, &seven), -VMEM_EEXIST);
	cr_assert_eq(install(M2 + PAGE, 0, 1, NULL), -VMEM_EEXIST);
	cr_assert_eq(install(0, 0, 2, NULL), -VMEM_EEXIST);
	cr_assert_eq(stats().installs_lost, 3);
	close_ept();
}

/* A note that stands for 1 GiB is a table of notes around the leaf. */
Test(ept_install, below_a_large_note)
{
	struct vmem_ept_leaf leaf;
	uint64_t payload;

	start(0);
	cr_assert_eq(vmem_ept_set_payload(ept, 0, G1, 9, 0, 0, &change), 0);
	cr_assert_eq(install(5 * M2 + PAGE, 0, 1, NULL), 0);
	cr_assert_eq(stats().payloads, 512 * 512 - 1);
	cr_assert_eq(vmem_ept_translate(ept, 5 * M2, &leaf, &payload), -VMEM_ENOENT);
	cr_assert_eq(payload, 9);
	cr_assert_eq(vmem_ept_translate(ept, 6 * M2, &leaf, &payload), -VMEM_ENOENT);
	cr_assert_eq(payload, 9);
	cr_assert_eq(vmem_ept_translate(ept, 5 * M2 + PAGE, &leaf, &payload), 0);
	close_ept();
}

/* Each allocation fails once; nothing of those that did not is left. */
Test(ept_install, no_memory)
{
	start(0);
	for (long n = 0; n < 3; n++) {
		memory.fail_after = n;
		cr_assert_eq(install(0, 0, 1, NULL), -VMEM_ENOMEM);
		cr_assert_eq(memory.live, 1);
		cr_assert_eq(stats().tables[0] + stats().tables[1] + stats().tables[2], 0);
	}
	memory.fail_after = -1;
	cr_assert_eq(install(0, 0, 1, NULL), 0);
	cr_assert_eq(memory.live, 4);
	close_ept();
	start(3);
	cr_assert_eq(install(0, 0, 1, NULL), -VMEM_ENOSPC);
	cr_assert_eq(memory.live, 1);
	cr_assert_eq(install(0, 0, 2, NULL), 0);
	cr_assert_eq(memory.live, 3);
	close_ept();
}

/* What is mapped after an install is checked as ever: nothing is like the last leaf of a map when there was none. */
Test(ept_install, then_map_without_rights)
{
	const struct vmem_ept_leaf nothing = { .rights = 0 };

	start(0);
	cr_assert_eq(install(0, 0, 1, NULL), 0);
	cr_assert_eq(vmem_ept_map(ept, PAGE, PAGE, &nothing, 0, &change), -VMEM_EINVAL);
	cr_assert_eq(change.reason, VMEM_EPT_BAD_RIGHTS);
	cr_assert_eq(stats().leaves[0], 1);
	close_ept();
}

/* --- The log --- */

static int collect(uint64_t bytes, uint64_t *ret_bits)
{
	uint64_t bitmap[16] = { 0 };
	int err = vmem_ept_log_collect(ept, 0, bytes, bitmap, &change);

	*ret_bits = bitmap[0];
	return err;
}

static void rights(uint64_t gpa, uint32_t want)
{
	struct vmem_ept_leaf leaf;

	cr_assert_eq(vmem_ept_translate(ept, gpa, &leaf, NULL), 0);
	cr_assert_eq(leaf.rights, want);
}

Test(ept_log, life)
{
	const uint32_t rw = VMEM_EPT_READ | VMEM_EPT_WRITE;
	uint64_t bits;

	start(0);
	for (uint64_t page = 0; page < 10; page++)
		cr_assert_eq(install(page * PAGE, page * PAGE, 1, NULL), 0);
	cr_assert_eq(vmem_ept_protect(ept, 0, PAGE, VMEM_EPT_WRITE, 0, &change), 0);
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2, 1, &change), 0);
	cr_assert_eq(change.leaves, 9);
	cr_assert_eq(change.ranges[0].gpa, PAGE);
	cr_assert_eq(change.ranges[0].bytes, 9 * PAGE);
	rights(PAGE, VMEM_EPT_READ);
	cr_assert_eq(vmem_ept_log_write(ept, 0), -VMEM_ENOENT); /* it had none */
	cr_assert_eq(vmem_ept_log_write(ept, 10 * PAGE), -VMEM_ENOENT);
	cr_assert_eq(vmem_ept_log_write(ept, UINT64_C(1) << 48), -VMEM_ERANGE);
	cr_assert_eq(vmem_ept_log_write(ept, 3 * PAGE + 123), 0);
	cr_assert_eq(vmem_ept_log_write(ept, 3 * PAGE), 0);
	cr_assert_eq(vmem_ept_log_write(ept, 5 * PAGE), 0);
	rights(3 * PAGE, rw);
	/* Once more does not forget what was written. */
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2, 1, &change), 0);
	cr_assert_eq(change.leaves, 0);
	cr_assert_eq(collect(64 * PAGE, &bits), 0);
	cr_assert_eq(bits, 1u << 3 | 1u << 5);
	cr_assert_eq(change.leaves, 2);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_RANGES);
	rights(3 * PAGE, VMEM_EPT_READ);
	cr_assert_eq(collect(64 * PAGE, &bits), 0);
	cr_assert_eq(bits, 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(vmem_ept_log_stop(ept, 0, M2, &change), 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	rights(0, VMEM_EPT_READ);
	for (uint64_t page = 1; page < 10; page++)
		rights(page * PAGE, rw);
	cr_assert_eq(vmem_ept_log_write(ept, 3 * PAGE), -VMEM_ENOENT);
	close_ept();
}

/* What another call takes does not come back by the log. */
Test(ept_log, taken)
{
	start(0);
	for (uint64_t page = 0; page < 3; page++)
		cr_assert_eq(install(page * PAGE, page * PAGE, 1, NULL), 0);
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2, 1, &change), 0);
	cr_assert_eq(vmem_ept_log_write(ept, PAGE), 0);
	cr_assert_eq(vmem_ept_protect(ept, 0, 2 * PAGE, VMEM_EPT_WRITE, 0, &change), 0);
	cr_assert_eq(vmem_ept_log_write(ept, 0), -VMEM_ENOENT);
	cr_assert_eq(vmem_ept_log_write(ept, PAGE), -VMEM_ENOENT);
	cr_assert_eq(vmem_ept_log_stop(ept, 0, M2, &change), 0);
	rights(0, VMEM_EPT_READ);
	rights(PAGE, VMEM_EPT_READ);
	rights(2 * PAGE, VMEM_EPT_READ | VMEM_EPT_WRITE);
	close_ept();
}

/* Nor is what another call gives logged any more: nobody wrote, and it keeps the right. */
Test(ept_log, given)
{
	const uint32_t rw = VMEM_EPT_READ | VMEM_EPT_WRITE;
	uint64_t bits;

	start(0);
	for (uint64_t page = 0; page < 24; page++)
		cr_assert_eq(install(page * PAGE, page * PAGE, 1, NULL), 0);
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2, 1, &change), 0);
	cr_assert_eq(vmem_ept_log_write(ept, 22 * PAGE), 0);
	cr_assert_eq(vmem_ept_protect(ept, 0, 20 * PAGE, 0, VMEM_EPT_WRITE, &change), 0);
	cr_assert_eq(vmem_ept_protect(ept, 20 * PAGE, 4 * PAGE, 0, VMEM_EPT_EXEC, &change), 0);
	rights(0, rw);
	cr_assert_eq(collect(64 * PAGE, &bits), 0);
	cr_assert_eq(bits, 1u << 22);
	for (uint64_t page = 0; page < 20; page++) {
		rights(page * PAGE, rw);
		cr_assert_eq(vmem_ept_log_write(ept, page * PAGE), -VMEM_ENOENT);
	}
	cr_assert_eq(vmem_ept_log_write(ept, 20 * PAGE), 0); /* execute is another matter */
	close_ept();
}

Test(ept_log, large)
{
	uint64_t bits;

	start(0);
	cr_assert_eq(install(0, 0, 2, NULL), 0);
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2, 3, &change), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2, 0, &change), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2 / 2, 2, &change), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_log_start(ept, 0, M2, 2, &change), 0);
	cr_assert_eq(vmem_ept_log_write(ept, 7 * PAGE), 0);
	cr_assert_eq(collect(16 * PAGE, &bits), 0); /* sticks out: reported, not cleared */
	cr_assert_eq(bits, 0xffff);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(vmem_ept_log_collect(ept, 0, M2, NULL, &change), -VMEM_EINVAL);
	cr_assert_eq(collect(M2, &bits), 0);
	cr_assert_eq(bits, UINT64_MAX);
	cr_assert_eq(collect(M2, &bits), 0);
	cr_assert_eq(bits, 0);
	cr_assert_eq(vmem_ept_log_stop(ept, 0, PAGE, &change), 0);
	rights(0, VMEM_EPT_READ);
	cr_assert_eq(vmem_ept_log_stop(ept, 0, M2, &change), 0);
	rights(0, VMEM_EPT_READ | VMEM_EPT_WRITE);
	close_ept();
}
