/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of a snapshot's stream: see snapshot_frame.h. What is read is not trusted: a frame that was
 * taken apart lies within the region and after the one before. */
#include "linux/snapshot/snapshot_frame.h"
#include "base/mem.h"

#define VERSION 1u
#define SUM_AT 32                                 /* in a head */
#define HEADER_SUM_AT (VMEMI_SNAPSHOT_HEADER - 8) /* in the header */

static const unsigned char magic[8] = { 'V', 'M', 'E', 'M', 'S', 'N', 'A', 'P' };

static void put(unsigned char *to, uint64_t number, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (unsigned char)(number >> 8 * i);
}

static uint64_t get(const unsigned char *from, unsigned bytes)
{
	uint64_t number = 0;

	for (unsigned i = 0; i < bytes; i++)
		number |= (uint64_t)from[i] << 8 * i;
	return number;
}

void vmemi_snapshot_put_header(struct vmemi_snapshot_buffer *b, uint64_t gpa, uint64_t bytes)
{
	memset(b->head, 0, VMEMI_SNAPSHOT_HEADER);
	memcpy(b->head, magic, sizeof(magic));
	put(b->head + 8, VERSION, 4);
	put(b->head + 12, VMEM_PAGE_SIZE, 4);
	put(b->head + 16, gpa, 8);
	put(b->head + 24, bytes, 8);
	b->sum = b->hash(b->head, HEADER_SUM_AT, 0);
	put(b->head + HEADER_SUM_AT, b->sum, 8);
}

int vmemi_snapshot_get_header(struct vmemi_snapshot_buffer *b, uint64_t *ret_gpa,
			      uint64_t *ret_bytes)
{
	b->sum = b->hash(b->head, HEADER_SUM_AT, 0);
	if (memcmp(b->head, magic, sizeof(magic)) || get(b->head + HEADER_SUM_AT, 8) != b->sum)
		return -VMEM_EBADMSG;
	if (get(b->head + 8, 4) != VERSION || get(b->head + 12, 4) != VMEM_PAGE_SIZE)
		return -VMEM_ENOTSUP;
	for (unsigned i = 32; i < HEADER_SUM_AT; i += 8)
		if (get(b->head + i, 8))
			return -VMEM_ENOTSUP;
	*ret_gpa = get(b->head + 16, 8);
	*ret_bytes = get(b->head + 24, 8);
	return 0;
}

uint64_t vmemi_snapshot_page_sum(const struct vmemi_snapshot_buffer *b, const void *bytes,
				 uint64_t page)
{
	return b->hash(bytes, VMEM_PAGE_SIZE, page);
}

size_t vmemi_snapshot_sum_bytes(const struct vmemi_snapshot_frame *f)
{
	return f->kind == VMEMI_SNAPSHOT_BYTES ? (size_t)f->pages * 8 : 0;
}

/* Of the head and the sums behind it, as if its own had not been there. */
static uint64_t head_sum(const struct vmemi_snapshot_buffer *b,
			 const struct vmemi_snapshot_frame *f)
{
	uint64_t sum = b->hash(b->head, SUM_AT, b->sum);

	return b->hash(b->head + VMEMI_SNAPSHOT_HEAD, vmemi_snapshot_sum_bytes(f), sum);
}

size_t vmemi_snapshot_put_head(struct vmemi_snapshot_buffer *b,
			       const struct vmemi_snapshot_frame *f)
{
	size_t sums = vmemi_snapshot_sum_bytes(f);

	put(b->head, f->kind, 4);
	put(b->head + 4, f->state, 4);
	put(b->head + 8, f->first, 8);
	put(b->head + 16, f->pages, 8);
	put(b->head + 24, f->word, 8);
	for (size_t i = 0; i < sums / 8; i++)
		put(b->head + VMEMI_SNAPSHOT_HEAD + i * 8,
		    vmemi_snapshot_page_sum(b, b->pages[i], f->first + i), 8);
	b->sum = head_sum(b, f);
	put(b->head + SUM_AT, b->sum, 8);
	return VMEMI_SNAPSHOT_HEAD + sums;
}

static bool is_place(uint32_t state)
{
	return state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_STAGED ||
	       state == VMEM_PAGE_STORED;
}

bool vmemi_snapshot_get_head(const struct vmemi_snapshot_buffer *b, uint64_t next, uint64_t pages,
			     struct vmemi_snapshot_frame *ret_frame)
{
	struct vmemi_snapshot_frame f = {
		.kind = (uint32_t)get(b->head, 4),
		.state = (uint32_t)get(b->head + 4, 4),
		.first = get(b->head + 8, 8),
		.pages = get(b->head + 16, 8),
		.word = get(b->head + 24, 8),
	};

	*ret_frame = f;
	if (f.kind == VMEMI_SNAPSHOT_END)
		return f.first == pages && !f.state;
	if (f.first < next || f.first >= pages || !f.pages || f.pages > pages - f.first)
		return false;
	switch (f.kind) {
	case VMEMI_SNAPSHOT_BYTES:
		return is_place(f.state) && f.pages <= VMEMI_SNAPSHOT_PAGES && !f.word;
	case VMEMI_SNAPSHOT_WORD: return is_place(f.state) && f.word;
	case VMEMI_SNAPSHOT_LOST: return f.state == VMEM_PAGE_POISONED && !f.word;
	default: return false;
	}
}

bool vmemi_snapshot_check_head(struct vmemi_snapshot_buffer *b,
			       const struct vmemi_snapshot_frame *f)
{
	b->sum = head_sum(b, f);
	return get(b->head + SUM_AT, 8) == b->sum;
}

bool vmemi_snapshot_check_pages(const struct vmemi_snapshot_buffer *b,
				const struct vmemi_snapshot_frame *f)
{
	for (uint64_t i = 0; i < f->pages; i++)
		if (get(b->head + VMEMI_SNAPSHOT_HEAD + i * 8, 8) !=
		    vmemi_snapshot_page_sum(b, b->pages[i], f->first + i))
			return false;
	return true;
}
