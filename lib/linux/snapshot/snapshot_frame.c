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

void vmemi_snapshot_put_header(struct vmemi_snapshot_head *h, uint64_t gpa, uint64_t bytes)
{
	memset(h->bytes, 0, VMEMI_SNAPSHOT_HEADER);
	memcpy(h->bytes, magic, sizeof(magic));
	put(h->bytes + 8, VERSION, 4);
	put(h->bytes + 12, VMEM_PAGE_SIZE, 4);
	put(h->bytes + 16, gpa, 8);
	put(h->bytes + 24, bytes, 8);
	h->sum = h->hash(h->bytes, HEADER_SUM_AT, 0);
	put(h->bytes + HEADER_SUM_AT, h->sum, 8);
}

int vmemi_snapshot_get_header(struct vmemi_snapshot_head *h, uint64_t *ret_gpa, uint64_t *ret_bytes)
{
	h->sum = h->hash(h->bytes, HEADER_SUM_AT, 0);
	if (memcmp(h->bytes, magic, sizeof(magic)) || get(h->bytes + HEADER_SUM_AT, 8) != h->sum)
		return -VMEM_EBADMSG;
	if (get(h->bytes + 8, 4) != VERSION || get(h->bytes + 12, 4) != VMEM_PAGE_SIZE)
		return -VMEM_ENOTSUP;
	for (unsigned i = 32; i < HEADER_SUM_AT; i += 8)
		if (get(h->bytes + i, 8))
			return -VMEM_ENOTSUP;
	*ret_gpa = get(h->bytes + 16, 8);
	*ret_bytes = get(h->bytes + 24, 8);
	return 0;
}

uint64_t vmemi_snapshot_page_sum(const struct vmemi_snapshot_head *h, const void *bytes,
				 uint64_t page)
{
	return h->hash(bytes, VMEM_PAGE_SIZE, page);
}

size_t vmemi_snapshot_sum_bytes(const struct vmemi_snapshot_frame *f)
{
	return f->kind == VMEMI_SNAPSHOT_BYTES ? (size_t)f->pages * 8 : 0;
}

/* Of the head and the sums behind it, as if its own had not been there. */
static uint64_t head_sum(const struct vmemi_snapshot_head *h, const struct vmemi_snapshot_frame *f)
{
	uint64_t sum = h->hash(h->bytes, SUM_AT, h->sum);

	return h->hash(h->bytes + VMEMI_SNAPSHOT_HEAD, vmemi_snapshot_sum_bytes(f), sum);
}

size_t vmemi_snapshot_put_head(struct vmemi_snapshot_buffer *b,
			       const struct vmemi_snapshot_frame *f)
{
	struct vmemi_snapshot_head *h = &b->head;
	size_t sums = vmemi_snapshot_sum_bytes(f);

	put(h->bytes, f->kind, 4);
	put(h->bytes + 4, f->state, 4);
	put(h->bytes + 8, f->first, 8);
	put(h->bytes + 16, f->pages, 8);
	put(h->bytes + 24, f->word, 8);
	for (size_t i = 0; i < sums / 8; i++)
		put(h->bytes + VMEMI_SNAPSHOT_HEAD + i * 8,
		    vmemi_snapshot_page_sum(h, b->pages[i], f->first + i), 8);
	h->sum = head_sum(h, f);
	put(h->bytes + SUM_AT, h->sum, 8);
	return VMEMI_SNAPSHOT_HEAD + sums;
}

static bool is_place(uint32_t state)
{
	return state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_STAGED ||
	       state == VMEM_PAGE_STORED;
}

bool vmemi_snapshot_get_head(const struct vmemi_snapshot_head *h, uint64_t next, uint64_t pages,
			     struct vmemi_snapshot_frame *ret_frame)
{
	struct vmemi_snapshot_frame f = {
		.kind = (uint32_t)get(h->bytes, 4),
		.state = (uint32_t)get(h->bytes + 4, 4),
		.first = get(h->bytes + 8, 8),
		.pages = get(h->bytes + 16, 8),
		.word = get(h->bytes + 24, 8),
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

bool vmemi_snapshot_check_head(struct vmemi_snapshot_head *h, const struct vmemi_snapshot_frame *f)
{
	h->sum = head_sum(h, f);
	return get(h->bytes + SUM_AT, 8) == h->sum;
}

bool vmemi_snapshot_check_page(const struct vmemi_snapshot_head *h,
			       const struct vmemi_snapshot_frame *f, uint64_t i, const void *bytes)
{
	return get(h->bytes + VMEMI_SNAPSHOT_HEAD + i * 8, 8) ==
	       vmemi_snapshot_page_sum(h, bytes, f->first + i);
}

bool vmemi_snapshot_check_pages(const struct vmemi_snapshot_buffer *b,
				const struct vmemi_snapshot_frame *f)
{
	for (uint64_t i = 0; i < f->pages; i++)
		if (!vmemi_snapshot_check_page(&b->head, f, i, b->pages[i]))
			return false;
	return true;
}

void vmemi_snapshot_fill(void *page, uint64_t word)
{
	for (size_t at = 0; at < VMEM_PAGE_SIZE; at += sizeof(word))
		memcpy((unsigned char *)page + at, &word, sizeof(word));
}
