/* SPDX-License-Identifier: BSD-2-Clause */
/* A working set as a file: <vmem/working_set.h> has the format. What is read is not trusted: each number is
 * checked before use, and memory grows with what was read, not with what is announced. */
#include "linux/working_set/working_set.h"
#include "base/mem.h"

#define VERSION 1u

static const uint8_t magic[8] = { 'V', 'M', 'E', 'M', 'W', 'S', 'E', 'T' };

void vmemi_working_set_put(const struct vmem_working_set *set, struct vmemi_stream *s)
{
	uint64_t at = 0;

	vmemi_stream_put_bytes(s, magic, sizeof(magic));
	vmemi_stream_put(s, VERSION);
	vmemi_stream_put(s, VMEM_PAGE_SIZE);
	vmemi_stream_put(s, set->gpa / VMEM_PAGE_SIZE);
	vmemi_stream_put(s, set->region_pages);
	vmemi_stream_put(s, set->missed);
	for (uint64_t i = 0; i < set->count && !s->err; i++) {
		uint64_t first = set->runs[i].first;

		vmemi_stream_put(s, set->runs[i].pages);
		vmemi_stream_put(s, first >= at ? (first - at) * 2 : (at - first) * 2 - 1);
		at = first + set->runs[i].pages;
	}
	vmemi_stream_put(s, 0);
	vmemi_stream_put_end(s);
}

static void fail(struct vmemi_stream *s, int error)
{
	if (!s->err)
		s->err = error;
}

/* What comes before the runs. */
static void get_head(struct vmem_working_set *set, struct vmemi_stream *s)
{
	uint8_t start[sizeof(magic)];
	uint64_t gfn;

	vmemi_stream_get_bytes(s, start, sizeof(start));
	if (memcmp(start, magic, sizeof(magic)) != 0)
		fail(s, -VMEM_EBADMSG);
	if (vmemi_stream_get(s) != VERSION || vmemi_stream_get(s) != VMEM_PAGE_SIZE)
		fail(s, -VMEM_ENOTSUP);
	gfn = vmemi_stream_get(s);
	set->region_pages = vmemi_stream_get(s);
	set->missed = vmemi_stream_get(s);
	if (!set->region_pages || set->region_pages > VMEMI_WORKING_SET_PAGES_MAX ||
	    gfn > UINT64_MAX / VMEM_PAGE_SIZE - set->region_pages)
		fail(s, -VMEM_EBADMSG);
	else
		set->gpa = gfn * VMEM_PAGE_SIZE;
}

/* Where a run of @pages is whose distance from @at was read. False: outside of the region. */
static bool locate(const struct vmem_working_set *set, uint64_t at, uint64_t distance,
		   uint64_t pages, uint64_t *ret_first)
{
	uint64_t by = distance / 2 + distance % 2;

	if (distance % 2 ? by > at : by > set->region_pages - at)
		return false;
	*ret_first = distance % 2 ? at - by : at + by;
	return pages <= set->region_pages - *ret_first;
}

void vmemi_working_set_get(struct vmem_working_set *set, uint64_t max_pages, struct vmemi_stream *s)
{
	uint64_t at = 0, first, pages;

	get_head(set, s);
	while (!s->err && (pages = vmemi_stream_get(s)) != 0) {
		uint64_t distance = vmemi_stream_get(s);

		/* A page that is in twice does no harm; but no more than there are, so that replaying ends. */
		if (s->err || pages > set->region_pages - set->pages ||
		    !locate(set, at, distance, pages, &first)) {
			fail(s, -VMEM_EBADMSG);
			return;
		}
		if (pages > max_pages - set->pages) {
			s->err = -VMEM_ERANGE;
			return;
		}
		s->err = vmemi_working_set_add(set, (uint32_t)first, (uint32_t)pages);
		at = first + pages;
	}
	vmemi_stream_get_end(s);
}
