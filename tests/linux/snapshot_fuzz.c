/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as a snapshot of a small region: first as they are; then with their sums made right, so that more
 * is reached. Whatever comes of it, the region is sound. Needs userfaultfd; without it only the parts of a
 * stream are tried. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "linux/region/table.h"
#include "linux/snapshot/snapshot_frame.h"
#include "linux/snapshot_tape.h"

enum { PAGES = 64 };
#define GPA (UINT64_C(1) << 32)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

static vmem_region *small_region(void)
{
	static vmem_manager *manager;
	static vmem_region *region;
	struct vmem_region_opts o = { .size = sizeof(o),
				      .gpa = GPA,
				      .bytes = (uint64_t)PAGES * VMEM_PAGE_SIZE };

	if (!manager) {
		int error = vmem_manager_new(&manager, NULL);

		if (error) {
			static int told;

			if (!told++)
				printf("no userfaultfd: %s\n", vmem_strerror(error));
			return NULL;
		}
		require(!vmem_region_alloc(&region, manager, &o));
	}
	return region;
}

/* A head that passes is within the region, and after what came before. */
static void take_apart(const uint8_t *data, size_t bytes)
{
	static struct vmemi_snapshot_buffer b;
	struct vmemi_snapshot_frame f;

	if (bytes < VMEMI_SNAPSHOT_HEAD)
		return;
	memcpy(b.head, data, VMEMI_SNAPSHOT_HEAD);
	if (!vmemi_snapshot_get_head(&b, 7, PAGES, &f) || f.kind == VMEMI_SNAPSHOT_END)
		return;
	require(f.first >= 7 && f.pages && f.first + f.pages > f.first &&
		f.first + f.pages <= PAGES);
	require(vmemi_snapshot_sum_bytes(&f) <= (size_t)VMEMI_SNAPSHOT_PAGES * 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	vmem_region *r = small_region();
	uint8_t *copy = malloc(bytes + 1);

	require(copy != NULL);
	memcpy(copy, data, bytes);
	take_apart(data, bytes);
	for (int mend = 0; r && mend < 2; mend++) {
		struct vmemt_tape tape = { .bytes = copy, .size = bytes, .fail_after = -1 };

		if (mend)
			vmemt_tape_mend(copy, bytes);
		require(vmemt_tape_load(&tape, r, NULL) <= 0);
		require(!vmemi_region_check(r));
		require(!vmem_region_discard(r, GPA, (uint64_t)PAGES * VMEM_PAGE_SIZE, NULL));
		require(vmemi_region_count(r, VMEM_PAGE_ABSENT) == PAGES);
	}
	free(copy);
	return 0;
}
