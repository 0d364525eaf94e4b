/* SPDX-License-Identifier: BSD-2-Clause */
/* One object of the builder in the memory of its model, what it allocates counted, for a file of Criterion tests. */
#ifndef VMEMT_EPT_TRACK_FIXTURE_H
#define VMEMT_EPT_TRACK_FIXTURE_H
#include <criterion/criterion.h>
#include "ept/ept_model.h"

#define PAGE UINT64_C(4096)
#define M2 VMEM_EPT_LEVEL_BYTES(2)
#define G1 VMEM_EPT_LEVEL_BYTES(3)
#define LEAF(at, of_level)                                                 \
	((struct vmem_ept_leaf){ .hpa = (at),                              \
				 .rights = VMEM_EPT_READ | VMEM_EPT_WRITE, \
				 .type = VMEM_EPT_WB,                      \
				 .level = (of_level) })

static struct vmemt_ept_memory memory;
static struct vmemt_fail_alloc allocator;
static struct vmem_ept_change change = { .size = sizeof(change) };
static vmem_ept *ept;

/* What the processor has besides what is common; and tables that are found by a call, or by adding a number. */
struct wanted {
	uint32_t format;
	int by_callback;
	uint64_t caps, flags, max_tables;
};

static inline void open_ept(const struct wanted *w)
{
	struct vmem_ept_capabilities caps = { .size = sizeof(caps),
					      .format = w->format,
					      .physical_bits = 40 };
	struct vmem_ept_opts opts = { .size = sizeof(opts),
				      .flags = w->flags,
				      .allocator = &allocator.allocator,
				      .capabilities = &caps,
				      .memory = &memory.memory,
				      .max_tables = w->max_tables };

	caps.caps = VMEM_EPT_CAP_4_LEVELS | VMEM_EPT_CAP_TABLES_WB | VMEM_EPT_CAP_AD |
		    VMEM_EPT_CAP_2M | VMEM_EPT_CAP_NO_EXEC | w->caps;
	vmemt_ept_memory_init(&memory, 64, w->by_callback);
	vmemt_fail_alloc_init(&allocator);
	allocator.fail_after = -1;
	cr_assert_eq(vmem_ept_new(&ept, &opts), 0);
}

static inline void close_ept(void)
{
	vmem_ept_free(ept);
	vmemt_ept_memory_done(&memory);
	cr_assert_eq(allocator.live_bytes, 0);
}

#endif
