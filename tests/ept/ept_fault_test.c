/* SPDX-License-Identifier: BSD-2-Clause */
/* Each page for a table fails once in turn: the call says so, and the tables are, byte for byte, what they were. */
#include "ept/ept_fixture.h"
#include "support/fail_alloc.h"

enum step {
	MAP_SMALL,
	MAP_MIXED,
	REPLACE,
	PAYLOADS,
	UNMAP,
	PROTECT,
	EXECUTABLE,
	TYPE,
	SPLIT,
	STEPS
};

static int step(enum step which)
{
	const struct vmem_ept_leaf leaf = { .rights = 1, .type = VMEM_EPT_WB, .level = 1 };
	const struct vmem_ept_leaf any = { .rights = 1, .type = VMEM_EPT_WB, .hpa = MIB2 + 4096 };

	switch (which) {
	case MAP_SMALL: return vmem_ept_map(ept, 3 * GIB - 4096, 8192, &leaf, 0, &change);
	case MAP_MIXED: return vmem_ept_map(ept, 5 * GIB + 4096, GIB + 3 * MIB2, &any, 0, &change);
	case REPLACE:
		return vmem_ept_map(ept, GIB + 4096, 2 * MIB2, &leaf, VMEM_EPT_REPLACE, &change);
	case PAYLOADS: return vmem_ept_set_payload(ept, 600 * GIB, 5 * MIB2, 1, 1, 0, &change);
	case UNMAP: return vmem_ept_unmap(ept, GIB + 4096, GIB - 8192, &change);
	case PROTECT: return vmem_ept_protect(ept, GIB + MIB2 + 4096, MIB2, 1, 0, &change);
	case EXECUTABLE:
		return vmem_ept_protect(ept, GIB + 9 * MIB2, 5 * MIB2, 0, VMEM_EPT_EXEC, &change);
	case TYPE: return vmem_ept_set_type(ept, GIB - 4096, 8192, VMEM_EPT_UC, 0, &change);
	default: return vmem_ept_split(ept, 0, 3 * GIB, 2, &change);
	}
}

static void begin(void)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	const struct vmem_ept_leaf leaf = { .rights = 1, .type = VMEM_EPT_WB };

	open_ept(256, &caps, VMEM_EPT_NO_EXEC_LARGE, 4, 0);
	cr_assert_eq(vmem_ept_map(ept, GIB, GIB, &leaf, 0, &change), 0);
	cr_assert_eq(vmem_ept_set_payload(ept, 0, GIB, 9, 0, 0, &change), 0);
}

Test(ept_fault, each_table)
{
	uint8_t *copy = malloc(4096 * 256);

	cr_assert_not_null(copy);
	for (enum step s = 0; s < STEPS; s++) {
		uint64_t out, fails = 0;
		int error;

		begin();
		memcpy(copy, pool.pages, 4096 * 256);
		out = pool.out;
		for (pool.left = 0; (error = step(s)) != 0; pool.left = ++fails) {
			cr_assert_eq(error, -VMEM_ENOMEM);
			cr_assert_eq(change.reason, VMEM_EPT_NO_MEMORY);
			cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
			cr_assert_eq(change.epoch, 0);
			cr_assert_eq(pool.out, out);
			for (uint64_t i = 0; i < 256; i++)
				cr_assert(!pool.used[i] ||
					  !memcmp(copy + 4096 * i, pool.pages + 4096 * i, 4096));
		}
		cr_assert_geq(fails, 1, "step %d takes no table", (int)s);
		cr_assert_eq(pool.left, 0, "it took what it needs, and no more");
		close_ept();
	}
	free(copy);
}

Test(ept_fault, the_object)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	struct vmem_ept_memory memory = { .size = sizeof(memory),
					  .context = &pool,
					  .allocate = vmemt_ept_allocate,
					  .free = vmemt_ept_give_back };
	struct vmemt_fail_alloc failing;
	const struct vmem_ept_opts opts = { .size = sizeof(opts),
					    .allocator = &failing.allocator,
					    .capabilities = &caps,
					    .memory = &memory };

	vmemt_fail_alloc_init(&failing);
	vmemt_ept_pool_init(&pool, 4);
	memory.offset = (uint64_t)(uintptr_t)pool.pages - VMEMT_EPT_BASE;
	ept = NULL;
	failing.fail_after = 0;
	cr_assert_eq(vmem_ept_new(&ept, &opts), -VMEM_ENOMEM);
	cr_assert_eq(pool.out, 0);
	failing.fail_after = -1;
	pool.left = 0;
	cr_assert_eq(vmem_ept_new(&ept, &opts), -VMEM_ENOMEM);
	cr_assert_null(ept);
	pool.left = 1;
	cr_assert_eq(vmem_ept_new(&ept, &opts), 0);
	vmem_ept_free(ept);
	cr_assert_eq(failing.live_bytes, 0);
	vmemt_ept_pool_destroy(&pool);
}
