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
	static struct vmemi_snapshot_head h;
	struct vmemi_snapshot_frame f;

	if (bytes < VMEMI_SNAPSHOT_HEAD)
		return;
	memcpy(h.bytes, data, VMEMI_SNAPSHOT_HEAD);
	if (!vmemi_snapshot_get_head(&h, 7, PAGES, &f) || f.kind == VMEMI_SNAPSHOT_END)
		return;
	require(f.first >= 7 && f.pages && f.first + f.pages > f.first &&
		f.first + f.pages <= PAGES);
	require(vmemi_snapshot_sum_bytes(&f) <= (size_t)VMEMI_SNAPSHOT_PAGES * 8);
}

/* Read page by page it is what the load of it was: there is no second opinion of a stream. */
static void read_pages(struct vmemt_tape *tape, vmem_region *loaded)
{
	static unsigned char want[VMEM_PAGE_SIZE], got[VMEM_PAGE_SIZE];
	struct vmem_snapshot_info info = { .size = sizeof(info) };
	vmem_snapshot *s;
	int error = vmemt_tape_open(tape, &s);

	require(error <= 0 && (!error || !loaded));
	if (error)
		return;
	require(!vmem_snapshot_get_info(s, &info) && info.bytes && info.frames <= tape->size / 40);
	for (uint64_t page = 0; page < PAGES && page < info.bytes / VMEM_PAGE_SIZE; page++) {
		error = vmem_snapshot_read_page(s, info.gpa + page * VMEM_PAGE_SIZE, got);
		require(error <= 0);
		if (!loaded)
			continue;
		if (vmem_region_read(loaded, GPA + page * VMEM_PAGE_SIZE, want, VMEM_PAGE_SIZE))
			require(error == -VMEM_EIO);
		else
			require(!error && !memcmp(got, want, VMEM_PAGE_SIZE));
	}
	vmem_snapshot_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	vmem_region *r = small_region();
	uint8_t *copy = malloc(bytes + 1);

	require(copy != NULL);
	memcpy(copy, data, bytes);
	take_apart(data, bytes);
	for (int mend = 0; mend < 2; mend++) {
		struct vmemt_tape tape = { .bytes = copy, .size = bytes, .fail_after = -1 };
		int error;

		if (mend)
			vmemt_tape_mend(copy, bytes);
		if (!r) {
			read_pages(&tape, NULL);
			continue;
		}
		error = vmemt_tape_load(&tape, r, NULL);
		require(error <= 0);
		require(!vmemi_region_check(r));
		read_pages(&tape, error ? NULL : r);
		require(!vmem_region_discard(r, GPA, (uint64_t)PAGES * VMEM_PAGE_SIZE, NULL));
		require(vmemi_region_count(r, VMEM_PAGE_ABSENT) == PAGES);
	}
	free(copy);
	return 0;
}
