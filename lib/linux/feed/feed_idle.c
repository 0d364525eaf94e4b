/* SPDX-License-Identifier: BSD-2-Clause */
/* Idle bits: a bitmap of the kernel with a bit for each frame (CONFIG_IDLE_PAGE_TRACKING). Who sets one marks the frame
 * idle; an access clears it, by whomever and through whichever mapping, a guest's too. In which frame a page is stands in
 * /proc/self/pagemap, for those who may know it.
 *
 * A page is taken as not used only if it was marked, in the frame in which it is now, and the bit is still there. Any
 * other that has a frame of its own is told of as used, and marked: one that has just come or was moved is so once. Of
 * what has no bit nothing is told: the page of zeros, and frames beyond the end of the bitmap.
 *
 * Marking a frame, or reading a mark, walks all mappings of it, which is what this costs: a frame that is still idle is
 * walked once, one that was used twice, and what is not ours not at all, unless others mark it. Pages are sorted by frame, so
 * that neighbours in frames share a call. */
#include "base/mem.h"
#include "linux/kernel/pagemap.h"
#include "linux/region/table.h"
#include <fcntl.h>
#include <vmem/feed.h>

#define BITMAP "/sys/kernel/mm/page_idle/bitmap"
#define PAGEMAP "/proc/self/pagemap"
#define PIECE 4096u               /* pages: some milliseconds */
#define ASK_NS UINT64_C(20000000) /* no further piece is begun after that */
#define WORDS 512u                /* sysfs gives and takes no more in a call */
#define GAP 2u                    /* words that nobody asked for are cheaper than one more call */

/* A word of pagemap. */
#define PRESENT (UINT64_C(1) << 63)
#define OF_FILE (UINT64_C(1) << 61)
#define EXCLUSIVE (UINT64_C(1) << 56)
#define FRAME ((UINT64_C(1) << 55) - 1)
#define FRAMES_MAX (UINT64_C(1) << 48) /* more have no address on this architecture */

/* What is asked: a frame, and the page that is in it, by its number in the piece. */
#define ONE_HUGE 4096u /* and all others of its huge page */
#define ASKED(frame, page) ((frame) << 13 | (page))
#define FRAME_OF(asked) ((asked) >> 13)
#define PAGE_OF(asked) ((asked)&4095)
#define WORD_OF(asked) (FRAME_OF(asked) / 64)

/* Of the piece at hand. Guard: the lock of reclaim. */
struct vmemi_idle {
	uint64_t asked[PIECE]; /* the words of pagemap; then what is asked, sorted */
	uint64_t bits[WORDS];
	uint64_t marks[WORDS];
	uint64_t used[PIECE / 64 + 1]; /* bitmap, from the last multiple of 64 on */
	uint64_t first;                /* page */
	uint32_t pages, asks;
};

static int can_idle(const struct vmem_region *r)
{
	return r->feed.can_idle ? 0 : -VMEM_ENOTSUP;
}

/* --- Files --- */

/* Whole words, up to the end of what there is. How many, or a negative error number. */
static int64_t read_words(const struct vmemi_kernel *k, int fd, uint64_t *words, uint64_t first,
			  uint64_t count)
{
	uint64_t done = 0;

	while (done < count) {
		ssize_t bytes = k->pread(fd, words + done, (size_t)(count - done) * 8,
					 (off_t)(first + done) * 8);

		if (bytes < 0)
			return bytes;
		if (bytes < 8)
			break;
		done += (uint64_t)bytes / 8;
	}
	return (int64_t)done;
}

static int64_t write_words(const struct vmemi_kernel *k, int fd, const uint64_t *words,
			   uint64_t first, uint64_t count)
{
	uint64_t done = 0;

	while (done < count) {
		ssize_t bytes = k->pwrite(fd, words + done, (size_t)(count - done) * 8,
					  (off_t)(first + done) * 8);

		if (bytes < 0)
			return done ? (int64_t)done : bytes;
		if (bytes < 8)
			break;
		done += (uint64_t)bytes / 8;
	}
	return (int64_t)done;
}

/* Frames are hidden from who may not know them, as 0. The bitmap must have the frame of a page of ours, and take
 * a word that marks nothing. */
static bool works(const struct vmemi_kernel *k, const struct vmemi_feed *feed)
{
	uint64_t word = 0, frame;

	if (read_words(k, feed->pagemap, &word, (uintptr_t)&word / VMEM_PAGE_SIZE, 1) != 1)
		return false;
	frame = word & FRAME;
	if (!(word & PRESENT) || !frame || frame >= FRAMES_MAX ||
	    read_words(k, feed->idle_bits, &word, frame / 64, 1) != 1)
		return false;
	word = 0;
	return write_words(k, feed->idle_bits, &word, frame / 64, 1) == 1;
}

void vmemi_feed_find_idle(struct vmem_region *r)
{
	const struct vmemi_kernel *k = r->host->k;
	struct vmemi_feed *feed = &r->feed;

	feed->pagemap = feed->idle_bits = -1;
	if (r->foreign)
		return;
	feed->idle_bits = k->open(BITMAP, O_RDWR | O_CLOEXEC);
	if (feed->idle_bits >= 0)
		feed->pagemap = k->open(PAGEMAP, O_RDONLY | O_CLOEXEC);
	feed->can_idle = feed->pagemap >= 0 && works(k, feed);
}

void vmemi_feed_leave_idle(struct vmem_region *r)
{
	if (r->feed.idle_bits >= 0)
		r->host->k->close(r->feed.idle_bits);
	if (r->feed.pagemap >= 0)
		r->host->k->close(r->feed.pagemap);
	r->feed.pagemap = r->feed.idle_bits = -1;
}

static void close_idle(struct vmem_region *r)
{
	vmemi_feed_leave_idle(r);
	vmemi_array_free(&r->arrays, r->feed.marked_in, 1, sizeof(*r->feed.marked_in));
	vmemi_free(&r->host->metadata.allocator, r->feed.idle, sizeof(*r->feed.idle), 64);
	r->feed.marked_in = NULL;
	r->feed.idle = NULL;
}

static int open_idle(struct vmem_region *r)
{
	r->feed.idle = vmemi_zalloc(&r->host->metadata.allocator, sizeof(*r->feed.idle), 64);
	r->feed.marked_in = vmemi_array_new(&r->arrays, 1, sizeof(*r->feed.marked_in));
	if (r->feed.idle && r->feed.marked_in)
		return 0;
	close_idle(r);
	return -VMEM_ENOMEM;
}

/* --- Which frames --- */

/* What is kept of a frame. Two that are alike do no harm unless a page goes from one to the other and the kernel calls
 * that one idle too. */
static uint16_t trace_of(uint64_t frame)
{
	uint16_t trace = (uint16_t)(frame ^ frame >> 16 ^ frame >> 32);

	return trace ? trace : 1;
}

/* A page in a frame of its own, or of a file; not the page of zeros. */
static bool has_frame(uint64_t word)
{
	return (word & PRESENT) && (word & (EXCLUSIVE | OF_FILE)) && (word & FRAME) &&
	       (word & FRAME) < FRAMES_MAX;
}

/* Pages of @count from @page on that are in one aligned piece of 2 MiB of addresses. */
static uint32_t in_block(const struct vmem_region *r, uint64_t page, uint32_t count)
{
	uint64_t address = (uintptr_t)vmemi_region_page(r, page);
	uint64_t rest = VMEMI_HUGE_PAGES - address / VMEM_PAGE_SIZE % VMEMI_HUGE_PAGES;

	return rest < count ? (uint32_t)rest : count;
}

/* Whether @count pages, which are those of the region in an aligned piece, are a huge page or the part of one. The
 * kernel is asked only where their frames say that it may be. */
static bool is_huge(const struct vmem_region *r, uint64_t page, const uint64_t *words,
		    uint32_t count)
{
	uintptr_t address = (uintptr_t)vmemi_region_page(r, page);

	if (count < 2 ||
	    (words[0] & FRAME) % VMEMI_HUGE_PAGES != address / VMEM_PAGE_SIZE % VMEMI_HUGE_PAGES)
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (!has_frame(words[i]) || (words[i] & FRAME) != (words[0] & FRAME) + i)
			return false;
	return vmemi_pagemap_is_huge(r->host->k, r->feed.pagemap,
				     address & ~(uintptr_t)(VMEMI_HUGE_BYTES - 1));
}

/* Makes of the words of pagemap what is asked. Of a huge page that is the first frame alone. */
static void gather(struct vmem_region *r, struct vmemi_idle *idle)
{
	uint64_t *asked = idle->asked;
	uint32_t count;

	idle->asks = 0;
	for (uint32_t first = 0; first < idle->pages; first += count) {
		count = in_block(r, idle->first + first, idle->pages - first);
		if (is_huge(r, idle->first + first, asked + first, count)) {
			uint64_t head = asked[first] & FRAME & ~(uint64_t)(VMEMI_HUGE_PAGES - 1);

			asked[idle->asks++] = ASKED(head, ONE_HUGE | first);
			continue;
		}
		for (uint32_t i = first; i < first + count; i++)
			if (has_frame(asked[i]))
				asked[idle->asks++] = ASKED(asked[i] & FRAME, i);
			else
				r->feed.marked_in[idle->first + i] = 0;
	}
}

/* Shell's, with the gaps of Ciura (2001): in place, and fast where frames follow each other already. */
static void sort(uint64_t *asked, uint32_t count)
{
	static const uint32_t gaps[] = { 1750, 701, 301, 132, 57, 23, 10, 4, 1 };

	for (unsigned g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++)
		for (uint32_t i = gaps[g], at; i < count; i++) {
			uint64_t one = asked[i];

			for (at = i; at >= gaps[g] && asked[at - gaps[g]] > one; at -= gaps[g])
				asked[at] = asked[at - gaps[g]];
			asked[at] = one;
		}
}

/* --- Asking --- */

static void tell(const struct vmem_region *r, struct vmemi_idle *idle, uint64_t asked)
{
	uint32_t page = (uint32_t)PAGE_OF(asked), count = 1;

	if (asked & ONE_HUGE)
		count = in_block(r, idle->first + page, idle->pages - page);
	for (uint64_t bit = idle->first % 64 + page; count--; bit++)
		idle->used[bit / 64] |= UINT64_C(1) << bit % 64;
}

/* Looks at the bits of @count frames, of which those in the first @words were read, and notes which are to be marked. */
static bool look(struct vmem_region *r, struct vmemi_idle *idle, const uint64_t *asked,
		 uint32_t count, uint64_t words)
{
	uint16_t *marked_in = r->feed.marked_in + idle->first;
	bool any = false;

	memset(idle->marks, 0, (size_t)words * 8);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = WORD_OF(asked[i]) - WORD_OF(asked[0]);
		uint64_t bit = UINT64_C(1) << FRAME_OF(asked[i]) % 64;
		uint16_t *mark = &marked_in[PAGE_OF(asked[i])];

		if (word < words && (idle->bits[word] & bit) &&
		    *mark == trace_of(FRAME_OF(asked[i])))
			continue;
		*mark = 0;
		if (word >= words)
			continue;
		tell(r, idle, asked[i]);
		idle->marks[word] |= bit;
		any = true;
	}
	return any;
}

/* The first @words are marked, all that were looked at. */
static void note_marks(struct vmem_region *r, const struct vmemi_idle *idle, const uint64_t *asked,
		       uint32_t count, uint64_t words)
{
	uint16_t *marked_in = r->feed.marked_in + idle->first;

	for (uint32_t i = 0; i < count && WORD_OF(asked[i]) - WORD_OF(asked[0]) < words; i++)
		marked_in[PAGE_OF(asked[i])] = trace_of(FRAME_OF(asked[i]));
}

/* Frames whose bits are in one stretch of the bitmap, by a read and a write. */
static int ask_stretch(struct vmem_region *r, struct vmemi_idle *idle, const uint64_t *asked,
		       uint32_t count)
{
	const struct vmemi_kernel *k = r->host->k;
	uint64_t first = WORD_OF(asked[0]), words = WORD_OF(asked[count - 1]) - first + 1;
	int64_t done = read_words(k, r->feed.idle_bits, idle->bits, first, words);

	if (done < 0)
		return (int)done;
	if (!look(r, idle, asked, count, (uint64_t)done))
		return 0;
	done = write_words(k, r->feed.idle_bits, idle->marks, first, (uint64_t)done);
	if (done < 0)
		return (int)done;
	note_marks(r, idle, asked, count, (uint64_t)done);
	return 0;
}

static uint32_t stretch(const uint64_t *asked, uint32_t count)
{
	uint32_t n = 1;

	while (n < count && WORD_OF(asked[n]) - WORD_OF(asked[0]) < WORDS &&
	       WORD_OF(asked[n]) - WORD_OF(asked[n - 1]) <= GAP + 1)
		n++;
	return n;
}

static int ask_piece(struct vmem_region *r, uint64_t first, uint32_t pages)
{
	struct vmemi_idle *idle = r->feed.idle;
	uint64_t at = (uintptr_t)vmemi_region_page(r, first) / VMEM_PAGE_SIZE, head = first % 64;
	int64_t words = read_words(r->host->k, r->feed.pagemap, idle->asked, at, pages);
	int error = 0;

	if (words != pages)
		return words < 0 ? (int)words : -VMEM_EIO;
	idle->first = first;
	idle->pages = pages;
	memset(idle->used, 0, sizeof(idle->used));
	gather(r, idle);
	sort(idle->asked, idle->asks);
	for (uint32_t i = 0, n; i < idle->asks && !error; i += n) {
		n = stretch(idle->asked + i, idle->asks - i);
		error = ask_stretch(r, idle, idle->asked + i, n);
	}
	/* What was told before it failed will not be told again. */
	vmemi_ages_saw(r, first - head, head + pages, idle->used);
	return error;
}

/* Pieces end where a huge page can, so that each huge page is in one: its bit is for all of it. */
static uint32_t piece_at(const struct vmem_region *r, uint64_t first, uint64_t pages)
{
	uint64_t address = (uintptr_t)vmemi_region_page(r, first) / VMEM_PAGE_SIZE;
	uint64_t count = PIECE - address % VMEMI_HUGE_PAGES;

	return (uint32_t)(count < pages - first ? count : pages - first);
}

static int ask_idle(struct vmem_region *r)
{
	const struct vmemi_kernel *k = r->host->k;
	uint64_t start = k->clock_ns(), pages = r->pages, done = 0;
	int error;

	do {
		uint64_t first = r->feed.hand;
		uint32_t count = piece_at(r, first, pages);

		error = ask_piece(r, first, count);
		r->feed.hand = first + count == pages ? 0 : first + count;
		done += count;
	} while (!error && done < pages && k->clock_ns() - start < ASK_NS);
	return error;
}

const struct vmemi_feed_kind vmemi_feed_idle = { .name = "idle bits",
						 .number = VMEM_FEED_IDLE_BITS,
						 .sees = VMEM_FEED_SEES_READS |
							 VMEM_FEED_SEES_WRITES |
							 VMEM_FEED_SEES_IN_PLACE,
						 .guest_ns = 100,
						 .can = can_idle,
						 .open = open_idle,
						 .close = close_idle,
						 .ask = ask_idle };
