/* SPDX-License-Identifier: BSD-2-Clause */
/* Ranges of pages: the array by key, the blocks by index. Serial with the scan; the lock is for breaks. */
#include "base/mem.h"
#include "share/share_internal.h"

#define BLOCK_PAGES (UINT64_C(1) << VMEMI_SHARE_BLOCK_SHIFT)
#define FIRST_CAPACITY 8u

static uint32_t blocks_of(uint64_t pages)
{
	return (uint32_t)((pages + BLOCK_PAGES - 1) >> VMEMI_SHARE_BLOCK_SHIFT);
}

uint32_t vmemi_share_range_from(const struct vmem_share *s, uint64_t key)
{
	uint32_t low = 0, high = s->range_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct vmemi_share_range *r = s->ranges[middle];

		if (r->first + (r->pages - 1) < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct vmemi_share_page vmemi_share_page_at(const struct vmem_share *s, uint32_t index)
{
	struct vmemi_share_page page = { .range = NULL };
	uint32_t block = (index - 1) >> VMEMI_SHARE_BLOCK_SHIFT;

	if (block >= s->block_capacity || !s->blocks[block])
		return page;
	page.range = s->blocks[block];
	page.offset = index - 1 - ((uint64_t)page.range->block << VMEMI_SHARE_BLOCK_SHIFT);
	if (page.offset >= page.range->pages)
		page.range = NULL;
	return page;
}

/* --- Adding --- */

/* Makes an array of pointers at least as large as @want. *@ret_old: what it was, to be freed with
 * *@ret_old_capacity, or NULL. 0, -VMEM_ENOMEM. */
static int larger(struct vmem_share *s, struct vmemi_share_range **old, uint32_t old_capacity,
		  uint32_t want, struct vmemi_share_range ***ret, uint32_t *ret_capacity)
{
	uint32_t capacity = old_capacity ? old_capacity : FIRST_CAPACITY;

	*ret = old;
	*ret_capacity = old_capacity;
	if (want <= old_capacity)
		return 0;
	while (capacity < want)
		capacity *= 2;
	*ret = vmemi_zalloc(&s->memory.allocator, capacity * sizeof(**ret), sizeof(**ret));
	if (!*ret)
		return -VMEM_ENOMEM;
	if (old)
		memcpy(*ret, old, old_capacity * sizeof(*old));
	*ret_capacity = capacity;
	return 0;
}

static void free_pointers(struct vmem_share *s, struct vmemi_share_range **array, uint32_t capacity)
{
	vmemi_free(&s->memory.allocator, array, capacity * sizeof(*array), sizeof(*array));
}

/* The first @count free blocks in a row. 0, -VMEM_ENOSPC, -VMEM_ENOMEM. */
static int find_blocks(struct vmem_share *s, uint32_t count, uint32_t *ret_block)
{
	struct vmemi_share_range **blocks;
	uint32_t first = 0, capacity;
	int err;

	for (uint32_t n = 0; n < s->block_capacity && n - first < count; n++)
		if (s->blocks[n])
			first = n + 1;
	if (count > VMEMI_SHARE_BLOCKS_MAX - first)
		return -VMEM_ENOSPC;
	err = larger(s, s->blocks, s->block_capacity, first + count, &blocks, &capacity);
	if (err)
		return err;
	if (blocks != s->blocks)
		free_pointers(s, s->blocks, s->block_capacity);
	s->blocks = blocks;
	s->block_capacity = capacity;
	*ret_block = first;
	return 0;
}

static void free_range(struct vmem_share *s, struct vmemi_share_range *r)
{
	if (!r)
		return;
	vmemi_free(&s->memory.allocator, r->state, r->pages * sizeof(*r->state), 1);
	vmemi_free(&s->memory.allocator, r->check, r->pages * sizeof(*r->check), sizeof(*r->check));
	vmemi_free(&s->memory.allocator, r, sizeof(*r), _Alignof(struct vmemi_share_range));
}

static struct vmemi_share_range *make_range(struct vmem_share *s, uint64_t first, uint64_t pages,
					    uint32_t domain)
{
	struct vmemi_share_range *r =
		vmemi_zalloc(&s->memory.allocator, sizeof(*r), _Alignof(struct vmemi_share_range));

	if (!r)
		return NULL;
	*r = (struct vmemi_share_range){
		.first = first, .pages = pages, .domain = domain, .on = true
	};
	r->state = vmemi_zalloc(&s->memory.allocator, pages * sizeof(*r->state), 1);
	r->check = vmemi_alloc(&s->memory.allocator, pages * sizeof(*r->check), sizeof(*r->check));
	if (r->state && r->check)
		return r;
	free_range(s, r);
	return NULL;
}

/* Puts it into the array, in its place. 0, -VMEM_ENOMEM. */
static int insert(struct vmem_share *s, struct vmemi_share_range *r)
{
	uint32_t at = vmemi_share_range_from(s, r->first), capacity;
	struct vmemi_share_range **old = s->ranges, **ranges;
	uint32_t old_capacity = s->range_capacity;
	int err = larger(s, old, old_capacity, s->range_count + 1, &ranges, &capacity);

	if (err)
		return err;
	vmemi_lock(&s->lock);
	memmove(ranges + at + 1, ranges + at, (s->range_count - at) * sizeof(*ranges));
	ranges[at] = r;
	s->ranges = ranges;
	s->range_capacity = capacity;
	s->range_count++;
	vmemi_unlock(&s->lock);
	if (old != ranges)
		free_pointers(s, old, old_capacity);
	return 0;
}

int vmem_share_add_range(vmem_share *s, uint64_t first, uint64_t pages, uint32_t domain)
{
	struct vmemi_share_range *r;
	uint32_t at;
	int err;

	if (!pages || !domain || pages - 1 > UINT64_MAX - first)
		return -VMEM_EINVAL;
	if (pages > (uint64_t)VMEMI_SHARE_BLOCKS_MAX << VMEMI_SHARE_BLOCK_SHIFT)
		return -VMEM_ENOSPC;
	at = vmemi_share_range_from(s, first);
	if (at < s->range_count && s->ranges[at]->first <= first + (pages - 1))
		return -VMEM_EEXIST;
	r = make_range(s, first, pages, domain);
	if (!r)
		return -VMEM_ENOMEM;
	err = find_blocks(s, blocks_of(pages), &r->block);
	if (!err)
		err = insert(s, r);
	if (err) {
		free_range(s, r);
		return err;
	}
	for (uint32_t n = 0; n < blocks_of(pages); n++)
		s->blocks[r->block + n] = r;
	s->pages += pages;
	return 0;
}

/* --- Removing and switching --- */

/* The number of the range that begins at @first, or range_count. */
static uint32_t number_of(const struct vmem_share *s, uint64_t first)
{
	uint32_t at = vmemi_share_range_from(s, first);

	return at < s->range_count && s->ranges[at]->first == first ? at : s->range_count;
}

int vmem_share_remove_range(vmem_share *s, uint64_t first)
{
	struct vmemi_share_range *r;
	uint32_t at = number_of(s, first);

	if (at == s->range_count)
		return -VMEM_ENOENT;
	r = s->ranges[at];
	vmemi_lock(&s->lock);
	if (atomic_load_explicit(&r->merged, memory_order_relaxed)) {
		vmemi_unlock(&s->lock);
		return -VMEM_EBUSY;
	}
	s->range_count--;
	memmove(s->ranges + at, s->ranges + at + 1, (s->range_count - at) * sizeof(*s->ranges));
	vmemi_unlock(&s->lock);
	for (uint32_t n = 0; n < blocks_of(r->pages); n++)
		s->blocks[r->block + n] = NULL;
	s->orphans += r->hinted;
	s->pages -= r->pages;
	free_range(s, r);
	return 0;
}

int vmem_share_switch_range(vmem_share *s, uint64_t first, int on)
{
	uint32_t at = number_of(s, first);

	if (on != 0 && on != 1)
		return -VMEM_EINVAL;
	if (at == s->range_count)
		return -VMEM_ENOENT;
	s->ranges[at]->on = on;
	return 0;
}

void vmemi_share_ranges_free(struct vmem_share *s)
{
	for (uint32_t n = 0; n < s->range_count; n++)
		free_range(s, s->ranges[n]);
	free_pointers(s, s->ranges, s->range_capacity);
	free_pointers(s, s->blocks, s->block_capacity);
}
