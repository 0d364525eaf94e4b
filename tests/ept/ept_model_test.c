/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on tables of all formats beside a list of plain extents; with each allocation failing in turn; and
 * with a processor that remembers all that it was not told to forget. */
#include <criterion/criterion.h>
#include "ept/ept_model.h"
#include "support/slow.h"

enum { WORLDS = 24 };

struct kind {
	const char *name;
	uint32_t steps, failing, quota, processor;
	enum vmemt_ept_ranges ranges;
};

static void run(const struct kind *kind)
{
	uint64_t seed = vmemt_seed(kind->name);

	for (uint32_t n = 0; n < WORLDS; n++) {
		struct vmemt_ept_world *w = vmemt_ept_world_new(seed + n, NULL, 0, 2048);

		w->failing = kind->failing;
		w->quota = kind->quota;
		w->ranges = kind->ranges;
		w->processor = kind->processor;
		for (uint32_t i = 0; i < kind->steps / (VMEMT_SLOW ? 20 : 1); i++) {
			vmemt_ept_step(w);
			if (i % 512 == 0)
				vmemt_ept_compare_all(w);
		}
		vmemt_ept_world_free(w);
	}
}

Test(ept_model, all_sizes)
{
	run(&(struct kind){ .name = "ept_model_all_sizes", .steps = 1200 });
}

Test(ept_model, small_ranges)
{
	run(&(struct kind){
		.name = "ept_model_small_ranges", .steps = 58000, .ranges = VMEMT_EPT_SMALL });
}

Test(ept_model, failing)
{
	run(&(struct kind){ .name = "ept_model_failing", .steps = 1600, .failing = 1, .quota = 1 });
}

Test(ept_model, quota)
{
	run(&(struct kind){
		.name = "ept_model_quota", .steps = 6000, .quota = 1, .ranges = VMEMT_EPT_SMALL });
}

Test(ept_model, processor)
{
	run(&(struct kind){ .name = "ept_model_processor", .steps = 1200, .processor = 1 });
}

Test(ept_model, processor_large_pages)
{
	run(&(struct kind){ .name = "ept_model_processor_large_pages",
			    .steps = 4000,
			    .processor = 1,
			    .ranges = VMEMT_EPT_MIDDLE });
}

Test(ept_model, processor_small_ranges)
{
	run(&(struct kind){ .name = "ept_model_processor_small_ranges",
			    .steps = 13000,
			    .processor = 1,
			    .ranges = VMEMT_EPT_SMALL });
}
