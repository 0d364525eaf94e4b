/* SPDX-License-Identifier: BSD-2-Clause */
/* See snapshot_tape.h. */
#include "linux/snapshot_tape.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "linux/region/table.h"

#define HEADER 64
#define HEAD 40

void vmemt_tape_init(struct vmemt_tape *t)
{
	memset(t, 0, sizeof(*t));
	t->fail_after = -1;
}

void vmemt_tape_free(struct vmemt_tape *t)
{
	free(t->bytes);
	vmemt_tape_init(t);
}

static int begin_call(struct vmemt_tape *t)
{
	if (t->each)
		t->each(t->context);
	if (t->fail_after >= 0 && t->calls++ >= t->fail_after)
		return t->error;
	return 1;
}

int vmemt_tape_write(void *tape, const void *bytes, size_t count)
{
	struct vmemt_tape *t = tape;
	int result = begin_call(t);

	if (result != 1)
		return result;
	assert(count && count <= 65536);
	if (t->at + count > t->capacity) {
		t->capacity = (t->at + count) * 2;
		t->bytes = realloc(t->bytes, t->capacity);
		assert(t->bytes);
	}
	memcpy(t->bytes + t->at, bytes, count);
	t->at += count;
	t->size = t->at;
	return 0;
}

int vmemt_tape_read(void *tape, void *bytes, size_t count)
{
	struct vmemt_tape *t = tape;
	int result = begin_call(t);

	if (result != 1)
		return result;
	assert(count && count <= 65536);
	if (count > t->size - t->at)
		return 0;
	memcpy(bytes, t->bytes + t->at, count);
	t->at += count;
	return 1;
}

int vmemt_tape_read_at(void *tape, uint64_t offset, void *bytes, size_t count)
{
	struct vmemt_tape *t = tape;
	int result = begin_call(t);

	if (result != 1)
		return result;
	assert(count && count <= VMEM_PAGE_SIZE);
	if (offset > t->size || count > t->size - offset)
		return 0;
	memcpy(bytes, t->bytes + offset, count);
	return 1;
}

int vmemt_tape_open(struct vmemt_tape *t, vmem_snapshot **ret_snapshot)
{
	struct vmem_snapshot_open_opts o = { .size = sizeof(o),
					     .read_at = vmemt_tape_read_at,
					     .context = t };

	t->calls = 0;
	return vmem_snapshot_open(ret_snapshot, &o);
}

int vmemt_tape_save(struct vmemt_tape *t, vmem_region *r, uint64_t flags,
		    struct vmem_snapshot_stats *stats)
{
	struct vmem_snapshot_save_opts o = {
		.size = sizeof(o), .flags = flags, .write = vmemt_tape_write, .context = t
	};

	t->at = t->size = 0;
	t->calls = 0;
	return vmem_snapshot_save(r, &o, stats);
}

int vmemt_tape_load(struct vmemt_tape *t, vmem_region *r, struct vmem_snapshot_stats *stats)
{
	struct vmem_snapshot_load_opts o = { .size = sizeof(o),
					     .read = vmemt_tape_read,
					     .context = t };

	t->at = 0;
	t->calls = 0;
	return vmem_snapshot_load(r, &o, stats);
}

void vmemt_tape_mend(unsigned char *bytes, size_t size)
{
	uint64_t sum, first, pages;
	size_t at = HEADER, sums;

	if (size < HEADER)
		return;
	sum = vmemi_hash_scalar(bytes, HEADER - 8, 0);
	memcpy(bytes + HEADER - 8, &sum, 8);
	while (size - at >= HEAD) {
		unsigned char *head = bytes + at;

		memcpy(&first, head + 8, 8);
		memcpy(&pages, head + 16, 8);
		sums = head[0] == 'P' ? (pages <= 16 ? (size_t)pages * 8 : 16 * 8) : 0;
		if (size - at - HEAD < sums + sums / 8 * VMEM_PAGE_SIZE)
			return;
		at += HEAD + sums;
		for (size_t i = 0; i < sums / 8; i++, at += VMEM_PAGE_SIZE) {
			uint64_t page_sum =
				vmemi_hash_scalar(bytes + at, VMEM_PAGE_SIZE, first + i);

			memcpy(head + HEAD + i * 8, &page_sum, 8);
		}
		sum = vmemi_hash_scalar(head, HEAD - 8, sum);
		sum = vmemi_hash_scalar(head + HEAD, sums, sum);
		memcpy(head + HEAD - 8, &sum, 8);
	}
}

/* --- A region with some of everything --- */

enum { KINDS = 10 };

enum vmemt_page_kind vmemt_some_kind(uint64_t page)
{
	switch (page / 3 % KINDS) {
	case 1: return VMEMT_PAGE_SAME;
	case 2: return VMEMT_PAGE_WORD;
	case 3:
	case 4:
	case 5: return VMEMT_PAGE_TEXT;
	case 6: return VMEMT_PAGE_NOISE;
	default: return VMEMT_PAGE_ZERO;
	}
}

void vmemt_some_make(struct vmemt_page *p, uint64_t page, uint64_t seed)
{
	/* One value for all pages of one word, so that they make runs. */
	vmemt_page_make(p, vmemt_some_kind(page),
			vmemt_some_kind(page) < VMEMT_PAGE_TEXT ? seed : seed + page);
}

static bool vmemt_some_touched(uint64_t page)
{
	return page / 3 % KINDS != 0;
}

void vmemt_some_fill(vmem_region *r, uint64_t pages, uint64_t seed)
{
	struct vmemt_page p;

	for (uint64_t page = 0; page < pages; page++) {
		vmemt_some_make(&p, page, seed);
		if (vmemt_some_touched(page))
			assert(!vmem_region_write(r, vmemi_region_gpa(r, page), &p,
						  VMEM_PAGE_SIZE));
	}
}

void vmemt_some_compare(vmem_region *r, uint64_t pages, uint64_t seed)
{
	struct vmemt_page got, want;

	for (uint64_t page = 0; page < pages; page++) {
		vmemt_some_make(&want, page, seed);
		assert(!vmem_region_read(r, vmemi_region_gpa(r, page), &got, VMEM_PAGE_SIZE));
		assert(!memcmp(&got, &want, VMEM_PAGE_SIZE));
	}
}
