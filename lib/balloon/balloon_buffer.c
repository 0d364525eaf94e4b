/* SPDX-License-Identifier: BSD-2-Clause */
/* Buffers of the driver in; ranges and completions out. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"
#include "base/opts.h"

#define CHUNK 256u /* page numbers that are copied at a time */

void vmemi_balloon_done(vmem_balloon *b, uint32_t queue, uint64_t token)
{
	b->done[(b->done_first + b->done_count++) % VMEM_BALLOON_BATCH] =
		(struct vmem_balloon_done){ .token = token, .queue = queue };
}

static uint32_t operation_of(uint32_t queue)
{
	static const uint8_t operations[VMEM_BALLOON_QUEUES] = {
		[VMEM_BALLOON_INFLATE] = VMEM_BALLOON_DISCARD,
		[VMEM_BALLOON_DEFLATE] = VMEM_BALLOON_RETURN,
		[VMEM_BALLOON_HINT] = VMEM_BALLOON_DISCARD_HINTED,
		[VMEM_BALLOON_REPORT] = VMEM_BALLOON_DISCARD_REPORTED,
	};

	return operations[queue];
}

/* Page numbers of 4 bytes. true: all of them are done. */
static bool take_numbers(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	uint64_t left = VMEM_BALLOON_WORK_ENTRIES, n, done;
	bool swap = vmemi_balloon_big_endian(b);
	uint32_t gfns[CHUNK];

	while ((n = (buffer->count - b->part.at) / sizeof(*gfns)) != 0) {
		if (!left)
			return false;
		n = n < CHUNK ? n : CHUNK;
		memcpy(gfns, (const uint8_t *)buffer->bytes + b->part.at, n * sizeof(*gfns));
		for (uint64_t i = 0; swap && i < n; i++)
			gfns[i] = __builtin_bswap32(gfns[i]);
		done = vmemi_balloon_mark_list(b, b->due_operation, gfns, n);
		b->part.at += done * sizeof(*gfns);
		if (done < n)
			return false;
		left -= n;
	}
	return true;
}

static uint64_t entry_at(const uint8_t *bytes, uint64_t i, uint64_t *ret_pages)
{
	uint64_t entry;

	memcpy(&entry, bytes + i * sizeof(entry), sizeof(entry));
	*ret_pages = entry >> 40;
	return entry & ((UINT64_C(1) << 40) - 1);
}

/* Of @count entries those that go on where the one before ends, of @most pages at most. How many; adds their pages. */
static uint64_t following(const uint8_t *bytes, uint64_t count, uint64_t first, uint64_t most,
			  uint64_t *pages)
{
	uint64_t i, more;

	for (i = 0; i < count; i++) {
		if (entry_at(bytes, i, &more) != first + *pages || *pages + more > most)
			break;
		*pages += more;
	}
	return i;
}

/* Entries of 8 bytes, VMEM_BALLOON_RANGE(). true: all of them are done. */
static bool take_spans(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	uint64_t pages_left = VMEM_BALLOON_WORK_PAGES, left = VMEM_BALLOON_WORK_ENTRIES;
	uint64_t first, pages, n;

	for (; (n = (buffer->count - b->part.at) / 8) != 0; b->part.at += n * 8) {
		const uint8_t *bytes = (const uint8_t *)buffer->bytes + b->part.at;

		if (!left || !pages_left || b->block_pages >= VMEM_BALLOON_WORK_PAGES)
			return false;
		first = entry_at(bytes, 0, &pages);
		/* The guest may have changed the entry since its first part. */
		if (b->part.pages > pages)
			b->part.pages = pages;
		n = 1 + following(bytes + 8, (n < left ? n : left) - 1, first,
				  b->part.pages + pages_left, &pages);
		left -= n;
		b->part.pages += vmemi_balloon_mark(b, b->due_operation, first + b->part.pages,
						    pages - b->part.pages, &pages_left);
		if (b->part.pages < pages) /* the first alone was too much, n is 1 */
			return false;
		b->part.pages = 0;
	}
	return true;
}

/* The pages that lie wholly in a piece, first .. last - 1, if any. How many it has a part of. */
static uint64_t pages_of(const struct vmem_balloon_piece *piece, uint64_t *ret_first,
			 uint64_t *ret_last)
{
	const uint64_t end = piece->gpa + piece->bytes;

	*ret_first = piece->gpa / VMEM_PAGE_SIZE + (piece->gpa % VMEM_PAGE_SIZE != 0);
	*ret_last = end / VMEM_PAGE_SIZE;
	return (end - 1) / VMEM_PAGE_SIZE + 1 - piece->gpa / VMEM_PAGE_SIZE;
}

/* Pieces: free pages. @left_alone: NULL, or all are, and counted here. true: all of them are done. */
static bool take_pieces(vmem_balloon *b, const struct vmem_balloon_buffer *buffer,
			uint64_t *left_alone)
{
	uint64_t pages_left = VMEM_BALLOON_WORK_PAGES, first, last, touched, whole;
	uint32_t left = VMEM_BALLOON_WORK_ENTRIES;

	for (; b->part.at < buffer->piece_count; b->part.at++, b->part.pages = 0) {
		const struct vmem_balloon_piece piece = buffer->pieces[b->part.at];

		if (!left-- || !pages_left)
			return false;
		if (!piece.bytes || piece.bytes > UINT64_MAX - piece.gpa) {
			b->counters.malformed++;
			continue;
		}
		touched = pages_of(&piece, &first, &last);
		whole = first < last ? last - first : 0;
		if (left_alone) {
			*left_alone += touched;
			continue;
		}
		if (b->part.pages > whole) /* it has been changed since, as above */
			b->part.pages = whole;
		b->part.pages += vmemi_balloon_mark(b, b->due_operation, first + b->part.pages,
						    whole - b->part.pages, &pages_left);
		if (b->part.pages < whole)
			return false;
		b->counters.unaligned += touched - whole;
	}
	return true;
}

static bool take_pages(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	uint64_t before = b->owned;
	bool whole;

	if (vmemi_balloon_has(b, VMEM_BALLOON_F_RANGES))
		whole = take_spans(b, buffer);
	else
		whole = take_numbers(b, buffer);
	vmemi_balloon_taken_back(b, before);
	if (whole)
		b->counters.malformed += b->part.at != buffer->count || !buffer->count;
	return whole;
}

static bool take_free(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	return take_pieces(b, buffer, vmemi_balloon_poisons(b) ? &b->counters.poisoned : NULL);
}

static bool take_hint(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	if (!b->part.at && !b->part.pages && buffer->count)
		vmemi_balloon_hint_command(b, buffer);
	if (!b->hint_running || !b->hint_open)
		return take_pieces(b, buffer, &b->counters.hints_late);
	return take_free(b, buffer);
}

/* true: the whole buffer is done with. */
static bool take_buffer(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	switch (buffer->queue) {
	case VMEM_BALLOON_INFLATE:
	case VMEM_BALLOON_DEFLATE: return take_pages(b, buffer);
	case VMEM_BALLOON_REPORT: return take_free(b, buffer);
	case VMEM_BALLOON_HINT: return take_hint(b, buffer);
	default: vmemi_balloon_take_stats(b, buffer); return true;
	}
}

int vmem_balloon_give(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	struct vmem_balloon_buffer in;
	int err = buffer ? vmemi_opts_take(&in, sizeof(in), buffer) : -VMEM_EINVAL;

	if (err)
		return err;
	if (in.queue >= VMEM_BALLOON_QUEUES || (in.count && !in.bytes) ||
	    (in.piece_count && !in.pieces) ||
	    (b->part.busy && (b->part.queue != in.queue || b->part.token != in.token ||
			      b->part.count != in.count || b->part.piece_count != in.piece_count)))
		return -VMEM_EINVAL;
	if (!vmemi_balloon_ready(b, in.queue)) {
		b->counters.unexpected++;
		return -VMEM_EPERM;
	}
	if (b->done_count == VMEM_BALLOON_BATCH ||
	    (b->due && b->due_operation != operation_of(in.queue)))
		return -VMEM_EAGAIN;
	if (!b->part.busy) {
		b->part = (struct vmemi_balloon_part){ .queue = in.queue,
						       .token = in.token,
						       .count = in.count,
						       .piece_count = in.piece_count };
		b->counters.buffers++;
	}
	b->due_operation = operation_of(in.queue);
	b->block_pages = 0;
	b->part.busy = !take_buffer(b, &in);
	if (b->part.busy)
		return -VMEM_EAGAIN;
	if (in.queue != VMEM_BALLOON_STATS)
		vmemi_balloon_done(b, in.queue, in.token);
	return 0;
}

size_t vmem_balloon_take_ranges(vmem_balloon *b, struct vmem_balloon_range *ranges, size_t count)
{
	return vmemi_balloon_pop(b, ranges, count);
}

int vmem_balloon_take_done(vmem_balloon *b, struct vmem_balloon_done *ret_done)
{
	if (b->due)
		return 0;
	vmemi_balloon_hint_settle(b);
	if (!b->done_count)
		return 0;
	*ret_done = b->done[b->done_first];
	b->done_first = (b->done_first + 1) % VMEM_BALLOON_BATCH;
	b->done_count--;
	return 1;
}
