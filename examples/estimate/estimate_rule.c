/* SPDX-License-Identifier: BSD-2-Clause */
/* What follows from the counts. Pure functions. */
#include "estimate.h"

const char *const kind_names[KINDS] = {
	[KIND_ZERO] = "zero",          [KIND_SAME] = "same_filled", [KIND_EQUAL] = "equal",
	[KIND_ALIKE] = "alike",        [KIND_ZSTD] = "zstd",        [KIND_LZ4] = "lz4",
	[KIND_RAW] = "incompressible",
};

double tally_stored_share(const struct tally *t)
{
	if (t->pages == 0)
		return 0;
	return (double)(t->stored_bytes + t->metadata_bytes) / ((double)t->pages * VMEM_PAGE_SIZE);
}

double tally_need(const struct tally *t, const struct options *o)
{
	double resident = o->resident_percent / 100.0;
	double need =
		resident + (1 - resident) * tally_stored_share(t) + ESTIMATE_CHANGE_PERCENT / 100.0;

	return need < 1 ? need : 1;
}

uint64_t estimate_equal_across(const struct estimate *e)
{
	return e->shared.kind[KIND_EQUAL] - e->total.kind[KIND_EQUAL];
}
