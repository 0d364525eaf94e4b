/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages of a snapshot when they are asked for: see <vmem/snapshot_source.h>. An index with an entry for each frame,
 * by page, says where its head is, and what sum that has: it is read and checked again for each page, because it has
 * the sum of that page. Nothing changes after vmem_snapshot_open(), so nothing is locked. */
#include <vmem/snapshot_source.h>
#include "base/alloc.h"
#include "base/mem.h"
#include "base/opts.h"
#include "linux/region/table.h"
#include "linux/snapshot/snapshot_frame.h"
#include <vmem/source.h>

#define BYTES_MAX (UINT64_C(16) << 40) /* of a region */
#define FRAMES_MIN 64
#define OFFSET_BITS 56
#define OFFSET_MASK ((UINT64_C(1) << OFFSET_BITS) - 1)

struct entry {
	uint64_t at;  /* offset of its head; above that, its kind */
	uint64_t sum; /* of its head, which the next one's follows */
	uint32_t first;
	uint32_t pages_less_one;
};

struct vmem_snapshot {
	struct vmem_snapshot_open_opts opts;
	struct vmem_allocator allocator;
	vmemi_hash_fn hash;
	uint64_t header_sum;
	uint64_t pages; /* of the region */
	struct vmem_snapshot_info info;
	size_t room; /* for entries */
	struct entry *entries;
};

static uint32_t kind_of(const struct entry *e)
{
	return (uint32_t)(e->at >> OFFSET_BITS);
}

static uint64_t pages_of(const struct entry *e)
{
	return (uint64_t)e->pages_less_one + 1;
}

static int get_bytes(const struct vmem_snapshot *s, uint64_t offset, void *bytes, size_t count)
{
	int got = s->opts.read_at(s->opts.context, offset, bytes, count);

	if (got == 1)
		return 0;
	return got < 0 ? got : -VMEM_EBADMSG;
}

/* --- The index --- */

static int more_room(struct vmem_snapshot *s)
{
	size_t room = s->room ? s->room * 2 : FRAMES_MIN;
	struct entry *entries = vmemi_alloc(&s->allocator, room * sizeof(*entries), 64);

	if (!entries)
		return -VMEM_ENOMEM;
	if (s->room)
		memcpy(entries, s->entries, s->room * sizeof(*entries));
	vmemi_free(&s->allocator, s->entries, s->room * sizeof(*entries), 64);
	s->entries = entries;
	s->room = room;
	return 0;
}

static int add(struct vmem_snapshot *s, const struct vmemi_snapshot_frame *f, uint64_t offset,
	       uint64_t sum)
{
	int error = s->info.frames == s->room ? more_room(s) : 0;

	if (error)
		return error;
	s->entries[s->info.frames++] = (struct entry){
		.at = (uint64_t)f->kind << OFFSET_BITS | offset,
		.sum = sum,
		.first = (uint32_t)f->first,
		.pages_less_one = (uint32_t)(f->pages - 1),
	};
	switch (f->kind) {
	case VMEMI_SNAPSHOT_BYTES: s->info.pages += f->pages; break;
	case VMEMI_SNAPSHOT_WORD: s->info.pages_same += f->pages; break;
	default: s->info.pages_lost += f->pages;
	}
	return 0;
}

static int get_header(struct vmem_snapshot *s, struct vmemi_snapshot_head *h)
{
	uint64_t gpa, bytes;
	int error = get_bytes(s, 0, h->bytes, VMEMI_SNAPSHOT_HEADER);

	if (!error)
		error = vmemi_snapshot_get_header(h, &gpa, &bytes);
	if (error)
		return error;
	if ((gpa | bytes) % VMEM_PAGE_SIZE || !bytes || bytes > BYTES_MAX ||
	    gpa > UINT64_MAX - bytes)
		return -VMEM_EBADMSG;
	s->info.gpa = gpa;
	s->info.bytes = bytes;
	s->pages = bytes / VMEM_PAGE_SIZE;
	s->header_sum = h->sum;
	return 0;
}

/* Goes over the heads of all frames. Each takes bytes of the snapshot, and the pages of the region are a bound. */
static int make_index(struct vmem_snapshot *s, struct vmemi_snapshot_head *h)
{
	uint64_t offset = VMEMI_SNAPSHOT_HEADER, next = 0, pages = 0;
	struct vmemi_snapshot_frame f;

	for (;;) {
		size_t sums;
		int error = get_bytes(s, offset, h->bytes, VMEMI_SNAPSHOT_HEAD);

		if (error)
			return error;
		if (!vmemi_snapshot_get_head(h, next, s->pages, &f))
			return -VMEM_EBADMSG;
		sums = vmemi_snapshot_sum_bytes(&f);
		if (sums)
			error = get_bytes(s, offset + VMEMI_SNAPSHOT_HEAD,
					  h->bytes + VMEMI_SNAPSHOT_HEAD, sums);
		if (!error && !vmemi_snapshot_check_head(h, &f))
			error = -VMEM_EBADMSG;
		if (error)
			return error;
		if (f.kind == VMEMI_SNAPSHOT_END)
			return f.pages == pages && f.word == s->info.frames ? 0 : -VMEM_EBADMSG;
		error = add(s, &f, offset, h->sum);
		if (error)
			return error;
		next = f.first + f.pages;
		pages += f.pages;
		offset += VMEMI_SNAPSHOT_HEAD + sums + sums / 8 * VMEM_PAGE_SIZE;
	}
}

int vmem_snapshot_open(vmem_snapshot **ret_snapshot, const struct vmem_snapshot_open_opts *opts)
{
	struct vmem_snapshot_open_opts o;
	struct vmemi_snapshot_head head;
	struct vmem_allocator a;
	struct vmem_snapshot *s;
	int error;

	if (!ret_snapshot || !opts)
		return -VMEM_EINVAL;
	error = vmemi_callbacks_take(
		&o, sizeof(o), VMEMI_BYTES_TO(struct vmem_snapshot_open_opts, allocator), opts);
	if (error)
		return error;
	if (!o.read_at || o.flags)
		return -VMEM_EINVAL;
	error = vmemi_alloc_take(&a, o.allocator);
	if (error)
		return error;
	s = vmemi_zalloc(&a, sizeof(*s), 64);
	if (!s)
		return -VMEM_ENOMEM;
	s->opts = o;
	s->allocator = a;
	s->info.size = sizeof(s->info);
	s->hash = head.hash = vmemi_hash_choose(vmem_cpu_detect());
	error = get_header(s, &head);
	if (!error)
		error = make_index(s, &head);
	if (error)
		vmem_snapshot_close(s);
	else
		*ret_snapshot = s;
	return error;
}

void vmem_snapshot_close(vmem_snapshot *snapshot)
{
	struct vmem_allocator a;

	if (!snapshot)
		return;
	a = snapshot->allocator;
	vmemi_free(&a, snapshot->entries, snapshot->room * sizeof(*snapshot->entries), 64);
	vmemi_free(&a, snapshot, sizeof(*snapshot), 64);
}

int vmem_snapshot_get_info(const vmem_snapshot *snapshot, struct vmem_snapshot_info *info)
{
	if (!snapshot || !info)
		return -VMEM_EINVAL;
	return vmemi_opts_give(info, &snapshot->info, sizeof(snapshot->info));
}

/* --- Pages --- */

/* The frame that page @page is in, or NULL. */
static const struct entry *find(const struct vmem_snapshot *s, uint64_t page)
{
	uint64_t low = 0, high = s->info.frames; /* those before low begin at it or before */

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (s->entries[middle].first <= page)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || page - s->entries[low - 1].first >= pages_of(&s->entries[low - 1]))
		return NULL;
	return &s->entries[low - 1];
}

/* The head of a frame once more: as it was when the snapshot was opened. */
static int get_head(const struct vmem_snapshot *s, const struct entry *e,
		    struct vmemi_snapshot_head *h, struct vmemi_snapshot_frame *f)
{
	size_t bytes = VMEMI_SNAPSHOT_HEAD +
		       (kind_of(e) == VMEMI_SNAPSHOT_BYTES ? (size_t)pages_of(e) * 8 : 0);
	int error = get_bytes(s, e->at & OFFSET_MASK, h->bytes, bytes);

	if (error)
		return error;
	h->hash = s->hash;
	h->sum = e == s->entries ? s->header_sum : e[-1].sum;
	if (!vmemi_snapshot_get_head(h, e->first, s->pages, f) || f->kind != kind_of(e) ||
	    f->first != e->first || f->pages != pages_of(e) || !vmemi_snapshot_check_head(h, f) ||
	    h->sum != e->sum)
		return -VMEM_EBADMSG;
	return 0;
}

int vmem_snapshot_read_page(const vmem_snapshot *snapshot, uint64_t gpa, void *page)
{
	const struct entry *e;
	struct vmemi_snapshot_head head;
	struct vmemi_snapshot_frame f;
	uint64_t number;
	int error;

	if (!snapshot || !page || gpa % VMEM_PAGE_SIZE)
		return -VMEM_EINVAL;
	if (gpa < snapshot->info.gpa || gpa - snapshot->info.gpa >= snapshot->info.bytes)
		return -VMEM_ERANGE;
	number = (gpa - snapshot->info.gpa) / VMEM_PAGE_SIZE;
	e = find(snapshot, number);
	if (!e) {
		memset(page, 0, VMEM_PAGE_SIZE);
		return 0;
	}
	if (kind_of(e) == VMEMI_SNAPSHOT_LOST)
		return -VMEM_EIO;
	error = get_head(snapshot, e, &head, &f);
	if (error)
		return error;
	if (f.kind == VMEMI_SNAPSHOT_WORD) {
		vmemi_snapshot_fill(page, f.word);
		return 0;
	}
	number -= f.first;
	error = get_bytes(snapshot,
			  (e->at & OFFSET_MASK) + VMEMI_SNAPSHOT_HEAD +
				  vmemi_snapshot_sum_bytes(&f) + number * VMEM_PAGE_SIZE,
			  page, VMEM_PAGE_SIZE);
	if (!error && !vmemi_snapshot_check_page(&head, &f, number, page))
		error = -VMEM_EBADMSG;
	return error;
}

/* Frames from @e on that follow each other, and are all lost or all not. */
static const struct entry *end_of_run(const struct entry *e, const struct entry *end)
{
	bool lost = kind_of(e) == VMEMI_SNAPSHOT_LOST;

	for (e++; e < end; e++)
		if ((kind_of(e) == VMEMI_SNAPSHOT_LOST) != lost ||
		    e->first != e[-1].first + pages_of(&e[-1]))
			break;
	return e;
}

int vmem_snapshot_restore(const vmem_snapshot *snapshot, vmem_region *region)
{
	const struct entry *e, *next, *end;
	int error = 0;

	if (!snapshot || !region || !region->source)
		return -VMEM_EINVAL;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	if (snapshot->info.gpa != region->opts.gpa ||
	    snapshot->info.bytes != vmemi_region_bytes(region))
		return -VMEM_ERANGE;
	if (vmemi_region_count(region, VMEM_PAGE_ABSENT) != region->pages)
		return -VMEM_EEXIST;
	end = snapshot->entries + snapshot->info.frames;
	for (e = snapshot->entries; e < end && !error; e = next) {
		uint64_t pages;

		next = end_of_run(e, end);
		pages = next[-1].first + pages_of(&next[-1]) - e->first;
		if (kind_of(e) == VMEMI_SNAPSHOT_LOST)
			error = vmemi_snapshot_put_lost(region, e->first, pages);
		else
			error = vmem_region_set_source(region, vmemi_region_gpa(region, e->first),
						       pages * VMEM_PAGE_SIZE);
	}
	return error;
}
