/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of segments: the budget, the reserve, and segments that drain.
 *
 * Segments outside the reserve are counted in in_use from the moment that their memory is asked for,
 * so that in_use + reserve_count never exceeds the budget. Lists are linked by segment::next under the
 * pool's lock; the allocator is called without it. */
#include "pool/pool_internal.h"

#define AHEAD_FRACTION 16u /* of the budget is kept free by what leaves */
#define NUMBER_MAX ((1u << VMEMI_SEGMENT_BITS) - 1)

/* A number that is in use: there is a segment. */
static struct vmemi_segment *made(const struct vmem_pool *p, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	if (!seg)
		__builtin_unreachable();
	return seg;
}

/* Segments that the budget allows. Pool locked. */
static uint64_t budget_segments(const struct vmem_pool *p)
{
	return p->budget_bytes ? p->budget_bytes / VMEM_POOL_SEGMENT_BYTES : UINT64_MAX;
}

/* How many may be in use. Pool locked. */
static uint64_t most_in_use(const struct vmem_pool *p, enum vmemi_segment_purpose purpose)
{
	uint64_t most = budget_segments(p);

	if (most < VMEMI_HOLD_BACK_FROM)
		return most;
	if (purpose == VMEMI_FOR_SAVE)
		return most - 1 - p->replaces;
	return most - (purpose == VMEMI_FOR_REPLACEMENT);
}

static void push(struct vmem_pool *p, uint32_t *list, uint32_t number)
{
	vmemi_segment_at(p, number)->next = *list;
	*list = number;
}

static uint32_t pop(struct vmem_pool *p, uint32_t *list)
{
	uint32_t number = *list;

	if (number)
		*list = vmemi_segment_at(p, number)->next;
	return number;
}

static void to_reserve(struct vmem_pool *p, uint32_t number)
{
	vmemi_segment_at(p, number)->state = VMEMI_SEGMENT_SPARE;
	push(p, &p->reserve_first, number);
	p->reserve_count++;
	p->in_use--;
}

/* One without objects and pins: with memory to the reserve; one that was out waits for vmemi_segment_maintain(),
 * as its owner is told. Pool locked. */
static void put_away(struct vmem_pool *p, uint32_t number)
{
	if (made(p, number)->memory)
		to_reserve(p, number);
	else
		push(p, &p->vacated_first, number);
}

/* Puts away what no reader is in any more. Pool locked. */
static void reap(struct vmem_pool *p)
{
	uint32_t number = p->draining_first;

	p->draining_first = 0;
	while (number) {
		struct vmemi_segment *seg = vmemi_segment_at(p, number);
		uint32_t next = seg->next;

		if (atomic_load(&seg->pins))
			push(p, &p->draining_first, number);
		else
			put_away(p, number);
		number = next;
	}
}

void vmemi_segment_trim(struct vmem_pool *p)
{
	for (;;) {
		unsigned char *memory = NULL;

		vmemi_lock(&p->lock);
		if (p->reserve_count > p->reserve_target ||
		    (p->reserve_count && p->in_use + p->reserve_count > budget_segments(p))) {
			uint32_t number = pop(p, &p->reserve_first);
			struct vmemi_segment *seg = made(p, number);

			p->reserve_count--;
			memory = seg->memory;
			seg->memory = NULL;
			seg->state = VMEMI_SEGMENT_NONE;
			push(p, &p->number_first, number);
		}
		vmemi_unlock(&p->lock);
		if (!memory)
			return;
		vmemi_free(&p->segment_allocator, memory, VMEM_POOL_SEGMENT_BYTES, VMEM_PAGE_SIZE);
	}
}

/* A number without memory. 0, -VMEM_ENOSPC, -VMEM_ENOMEM. */
static int take_number(struct vmem_pool *p, uint32_t *ret_number)
{
	for (;;) {
		uint32_t number, fresh;
		int grown;

		vmemi_lock(&p->lock);
		number = pop(p, &p->number_first);
		fresh = p->number_count + 1;
		if (!number && fresh <= NUMBER_MAX && vmemi_segment_at(p, fresh))
			number = p->number_count = fresh;
		vmemi_unlock(&p->lock);
		if (number) {
			*ret_number = number;
			return 0;
		}
		if (fresh > NUMBER_MAX)
			return -VMEM_ENOSPC;
		grown = vmemi_table_grow(&p->segments, fresh);
		if (grown < 0)
			return grown;
	}
}

/* A segment with new memory. It is counted in in_use, unless this fails. */
static int allocate(struct vmem_pool *p, uint32_t *ret_number)
{
	unsigned char *memory = NULL;
	int err = take_number(p, ret_number);

	if (!err) {
		memory =
			vmemi_alloc(&p->segment_allocator, VMEM_POOL_SEGMENT_BYTES, VMEM_PAGE_SIZE);
		err = memory ? 0 : -VMEM_ENOMEM;
	}
	vmemi_lock(&p->lock);
	if (memory) {
		struct vmemi_segment *seg = made(p, *ret_number);

		seg->memory = memory;
		seg->state = VMEMI_SEGMENT_SPARE;
	} else {
		if (*ret_number)
			push(p, &p->number_first, *ret_number);
		*ret_number = 0;
		p->in_use--;
	}
	vmemi_unlock(&p->lock);
	return err;
}

int vmemi_segment_get(struct vmem_pool *p, enum vmemi_segment_purpose purpose, uint32_t *ret_number)
{
	int err = 0;

	*ret_number = 0;
	vmemi_lock(&p->lock);
	if (!p->reserve_first || p->in_use >= most_in_use(p, purpose))
		reap(p);
	if (p->in_use >= most_in_use(p, purpose)) {
		err = -VMEM_ENOSPC;
	} else if (!p->reserve_first && purpose == VMEMI_FOR_SAVE) {
		err = -VMEM_EAGAIN;
	} else {
		p->in_use++;
		*ret_number = pop(p, &p->reserve_first);
		p->reserve_count -= *ret_number != 0;
	}
	vmemi_unlock(&p->lock);
	return err || *ret_number ? err : allocate(p, ret_number);
}

uint32_t vmemi_pool_wanted_out(struct vmem_pool *p)
{
	uint64_t most, ahead, wanted = 0;

	vmemi_lock(&p->lock);
	most = most_in_use(p, VMEMI_FOR_SAVE);
	ahead = 1 + most / AHEAD_FRACTION;
	if (p->budget_bytes && p->in_use + ahead > most)
		wanted = p->in_use + ahead - most;
	vmemi_unlock(&p->lock);
	return wanted < UINT32_MAX ? (uint32_t)wanted : UINT32_MAX;
}

uint64_t vmemi_pool_spare_bytes(vmem_pool *pool)
{
	uint64_t segments;

	vmemi_lock(&pool->lock);
	segments = pool->reserve_count;
	vmemi_unlock(&pool->lock);
	return segments * VMEM_POOL_SEGMENT_BYTES;
}

bool vmemi_segment_is_left(struct vmem_pool *p)
{
	bool left;

	vmemi_lock(&p->lock);
	left = p->in_use < budget_segments(p);
	vmemi_unlock(&p->lock);
	return left;
}

void vmemi_segment_put(struct vmem_pool *p, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	vmemi_lock(&p->lock);
	if (atomic_load(&seg->pins)) {
		if (seg->state != VMEMI_SEGMENT_DRAINING) /* else a stream may be looking at it */
			seg->state = VMEMI_SEGMENT_DRAINING;
		push(p, &p->draining_first, number);
	} else {
		put_away(p, number);
	}
	vmemi_unlock(&p->lock);
}

void vmemi_segment_recycle(struct vmem_pool *p, unsigned char *memory)
{
	uint32_t number;

	vmemi_lock(&p->lock);
	number = p->reserve_count < p->reserve_target ? pop(p, &p->number_first) : 0;
	if (number) {
		made(p, number)->memory = memory;
		to_reserve(p, number);
	} else {
		p->in_use--;
	}
	vmemi_unlock(&p->lock);
	if (!number)
		vmemi_free(&p->segment_allocator, memory, VMEM_POOL_SEGMENT_BYTES, VMEM_PAGE_SIZE);
}

unsigned char *vmemi_segment_take_memory(struct vmem_pool *p, uint32_t number)
{
	struct vmemi_segment *seg = made(p, number);
	unsigned char *memory = seg->memory;

	vmemi_lock(&p->lock);
	seg->memory = NULL;
	seg->state = VMEMI_SEGMENT_NONE;
	push(p, &p->number_first, number);
	vmemi_unlock(&p->lock);
	return memory;
}

/* Numbers of segments that were out, and their places, are free. No lock held. */
static void vacate(struct vmem_pool *p)
{
	for (;;) {
		struct vmemi_segment *seg;
		uint32_t number;

		vmemi_lock(&p->lock);
		number = pop(p, &p->vacated_first);
		vmemi_unlock(&p->lock);
		if (!number)
			return;
		seg = vmemi_segment_at(p, number);
		p->devices.vacate(p->devices.context, seg->place, seg->digest->blocks);
		vmemi_digest_free(p, seg->digest);
		seg->digest = NULL;
		vmemi_lock(&p->lock);
		seg->state = VMEMI_SEGMENT_NONE;
		push(p, &p->number_first, number);
		vmemi_unlock(&p->lock);
	}
}

int vmemi_segment_fill(struct vmem_pool *p, uint32_t least)
{
	int err = 0;

	while (!err) {
		uint32_t number = 0;
		bool full;

		vmemi_lock(&p->lock);
		full = p->reserve_count >= least;
		if (!full && p->in_use + p->reserve_count >= most_in_use(p, VMEMI_FOR_SAVE))
			err = -VMEM_ENOSPC;
		p->in_use += !full && !err;
		vmemi_unlock(&p->lock);
		if (full)
			return 0;
		if (!err)
			err = allocate(p, &number);
		if (!err)
			vmemi_segment_put(p, number);
	}
	return err;
}

void vmemi_segment_maintain(struct vmem_pool *p)
{
	vmemi_lock(&p->lock);
	reap(p);
	vmemi_unlock(&p->lock);
	vacate(p);
	vmemi_segment_trim(p);
	/* What cannot be had now, saves will ask for. */
	(void)vmemi_segment_fill(p, p->reserve_target);
	(void)vmemi_index_provide(p);
}
