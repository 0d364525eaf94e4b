/* SPDX-License-Identifier: BSD-2-Clause */
/* What LZ4 and Zstandard each make of a page. */
#ifndef ESTIMATE_PROBE_H
#define ESTIMATE_PROBE_H
#include "estimate.h"

struct prober {
	void *lz4; /* contexts */
	void *zstd;
	uint64_t pages; /* that have come */
};

/* 0, or a negative VMEM error. */
int prober_init(struct prober *p);
void prober_end(struct prober *p);

/* Of the pages that come here one in 8 is tried. */
void prober_try(struct prober *p, struct probe *probe, const void *page);

#endif
