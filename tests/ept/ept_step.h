/* SPDX-License-Identifier: BSD-2-Clause */
/* One random operation: what is asked for, what must come of it, and the same on the list. ept_step.c does those that
 * change ranges, ept_step_track.c those that follow what is used and written. */
#ifndef VMEMT_EPT_STEP_H
#define VMEMT_EPT_STEP_H
#include "ept/ept_model.h"

enum vmemt_ept_operation {
	VMEMT_EPT_MAP,
	VMEMT_EPT_UNMAP,
	VMEMT_EPT_PROTECT,
	VMEMT_EPT_SET_TYPE,
	VMEMT_EPT_SPLIT,
	VMEMT_EPT_MERGE,
	VMEMT_EPT_PAYLOAD,
	VMEMT_EPT_INSTALL,
	VMEMT_EPT_HARVEST, /* from here on: ept_step_track.c */
	VMEMT_EPT_LOG_START,
	VMEMT_EPT_LOG_WRITE,
	VMEMT_EPT_LOG_COLLECT,
	VMEMT_EPT_LOG_STOP,
	VMEMT_EPT_DRAIN,
	VMEMT_EPT_OPERATIONS
};

/* How a harvest tells. */
enum vmemt_ept_harvest {
	VMEMT_EPT_BITMAPS,
	VMEMT_EPT_BITMAP_ONE,
	VMEMT_EPT_LEAVES,
	VMEMT_EPT_COUNTS
};

/* What a harvest says, or must. */
struct vmemt_ept_told {
	uint64_t accessed[VMEMT_EPT_BITMAP / 64], dirty[VMEMT_EPT_BITMAP / 64];
	uint64_t accessed_pages, dirty_pages;
	uint64_t cleared;      /* leaves */
	uint64_t leaves, hash; /* calls, and their arguments */
	uint64_t last;         /* leaf */
};

struct vmemt_ept_call {
	enum vmemt_ept_operation operation;
	uint64_t gpa, bytes;
	struct vmem_ept_leaf leaf;
	uint32_t flags, clear, set, level;
	uint64_t payload, step;
	const uint64_t *expected; /* of install */
	enum vmemt_ept_harvest how;
	uint64_t stop_after; /* leaves */
	struct vmemt_ept_told got, want;
};

/* Leaves that stick out of the range at the level or above it become smaller. */
void vmemt_ept_split_leaves(struct vmemt_ept_world *w, const struct vmemt_ept_call *c,
			    uint32_t level);

void vmemt_ept_track_draw(struct vmemt_ept_world *w, struct vmemt_ept_call *c);
int vmemt_ept_track_expect(const struct vmemt_ept_world *w, const struct vmemt_ept_call *c);
int vmemt_ept_track_call(struct vmemt_ept_world *w, struct vmemt_ept_call *c);
void vmemt_ept_track_apply(struct vmemt_ept_world *w, struct vmemt_ept_call *c);
#endif
