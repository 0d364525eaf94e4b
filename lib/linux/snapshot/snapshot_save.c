/* SPDX-License-Identifier: BSD-2-Clause */
/* A region as a stream: see <vmem/snapshot.h>. Pages are read one by one, each where it is, into a buffer
 * that is counted as metadata; nothing is locked while the caller writes. */
#include <vmem/snapshot.h>
#include "base/mem.h"
#include "base/opts.h"
#include "linux/fault/content.h"
#include "linux/snapshot/snapshot_frame.h"

#define PROGRESS_EVERY 1024 /* pages */

struct save {
	struct vmem_region *r;
	struct vmem_snapshot_save_opts opts;
	struct vmemi_snapshot_buffer *b;
	struct vmemi_snapshot_frame f; /* being filled; without pages: none */
	uint64_t all;                  /* pages of the region when it began */
	uint64_t frames;
	struct vmem_snapshot_stats stats;
};

static int put_bytes(struct save *s, const void *bytes, size_t count)
{
	s->stats.stream_bytes += count;
	return s->opts.write(s->opts.context, bytes, count);
}

static int flush(struct save *s)
{
	size_t head;
	int error;

	if (!s->f.pages && s->f.kind != VMEMI_SNAPSHOT_END)
		return 0;
	head = vmemi_snapshot_put_head(s->b, &s->f);
	s->frames++;
	error = put_bytes(s, s->b->head.bytes, head);
	if (!error && s->f.kind == VMEMI_SNAPSHOT_BYTES)
		error = put_bytes(s, s->b->pages, (size_t)s->f.pages * VMEM_PAGE_SIZE);
	s->f.pages = 0;
	return error;
}

/* Where a page shall be again. */
static uint32_t place_of(enum vmem_page_state state)
{
	if (state == VMEM_PAGE_STAGED || state == VMEM_PAGE_STORING)
		return VMEM_PAGE_STAGED;
	return state == VMEM_PAGE_STORED || state == VMEM_PAGE_SOURCE ? VMEM_PAGE_STORED
								      : VMEM_PAGE_RESIDENT;
}

/* Adds a page to the frame, or begins another with it. The bytes of one with contents are in the buffer, behind
 * those of the frame. */
static int add(struct save *s, const struct vmemi_snapshot_frame *page)
{
	struct vmemi_snapshot_frame *f = &s->f;
	bool bytes = page->kind == VMEMI_SNAPSHOT_BYTES;
	uint64_t slot = f->kind == VMEMI_SNAPSHOT_BYTES ? f->pages : 0;
	int error = 0;

	if (f->pages && f->kind == page->kind && f->state == page->state && f->word == page->word &&
	    f->first + f->pages == page->first) {
		f->pages++;
	} else {
		error = flush(s);
		if (bytes && slot)
			memcpy(s->b->pages[0], s->b->pages[slot], VMEM_PAGE_SIZE);
		*f = *page;
	}
	if (!error && bytes && f->pages == VMEMI_SNAPSHOT_PAGES)
		error = flush(s);
	return error;
}

static bool is_one_word(const unsigned char *bytes, uint64_t *ret_word)
{
	memcpy(ret_word, bytes, sizeof(*ret_word));
	return !memcmp(bytes, bytes + sizeof(*ret_word), VMEM_PAGE_SIZE - sizeof(*ret_word));
}

static int save_lost(struct save *s, struct vmemi_snapshot_frame *page)
{
	if (!(s->opts.flags & VMEM_SNAPSHOT_LOST_TOO))
		return -VMEM_EIO;
	page->kind = VMEMI_SNAPSHOT_LOST;
	page->state = VMEM_PAGE_POISONED;
	s->stats.pages_lost++;
	return add(s, page);
}

static int save_page(struct save *s, uint64_t number)
{
	struct vmemi_snapshot_frame page = { .first = number, .pages = 1 };
	uint64_t slot = s->f.kind == VMEMI_SNAPSHOT_BYTES ? s->f.pages : 0;
	unsigned char *bytes = s->b->pages[slot];
	enum vmem_page_state was;
	int error = vmemi_content_read(s->r, number, bytes, &was);

	/* An error of the page's source, or of a device, may pass: only what is poisoned is lost. */
	if (error == -VMEM_EIO &&
	    vmemi_page_state(vmemi_region_word(s->r, number)) == VMEM_PAGE_POISONED)
		return save_lost(s, &page);
	if (error)
		return error;
	page.kind = VMEMI_SNAPSHOT_BYTES;
	page.state = place_of(was);
	if (is_one_word(bytes, &page.word)) {
		if (!page.word) /* reads as zero if nothing is said about it */
			return 0;
		page.kind = VMEMI_SNAPSHOT_WORD;
		s->stats.pages_same++;
	} else {
		page.word = 0;
		s->stats.pages++;
	}
	s->stats.pages_in_place += page.state == VMEM_PAGE_RESIDENT;
	return add(s, &page);
}

static int progress(struct save *s, uint64_t page)
{
	if (!s->opts.progress || (page % PROGRESS_EVERY && page != s->all))
		return 0;
	return s->opts.progress(s->opts.context, page * VMEM_PAGE_SIZE, s->all * VMEM_PAGE_SIZE);
}

static int save(struct save *s)
{
	struct vmem_region *r = s->r;
	int error;

	vmemi_snapshot_put_header(&s->b->head, r->opts.gpa, s->all * VMEM_PAGE_SIZE);
	error = put_bytes(s, s->b->head.bytes, VMEMI_SNAPSHOT_HEADER);
	for (uint64_t page = 0; page < s->all && !error;) {
		if (vmemi_page_state(vmemi_region_word(r, page)) != VMEM_PAGE_ABSENT)
			error = save_page(s, page);
		page++;
		if (!error)
			error = progress(s, page);
	}
	if (!error)
		error = flush(s);
	if (error)
		return error;
	s->f = (struct vmemi_snapshot_frame){
		.kind = VMEMI_SNAPSHOT_END,
		.first = s->all,
		.pages = s->stats.pages + s->stats.pages_same + s->stats.pages_lost,
		.word = s->frames,
	};
	return flush(s);
}

int vmem_snapshot_save(vmem_region *region, const struct vmem_snapshot_save_opts *opts,
		       struct vmem_snapshot_stats *stats)
{
	const struct vmem_allocator *a;
	struct save s = { .r = region, .stats = { .size = sizeof(s.stats) } };
	int error;

	if (!region || !opts)
		return -VMEM_EINVAL;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	s.all = region->pages;
	error = vmemi_callbacks_take(&s.opts, sizeof(s.opts),
				     VMEMI_BYTES_TO(struct vmem_snapshot_save_opts, context), opts);
	if (error)
		return error;
	if (!s.opts.write || s.opts.flags & ~VMEM_SNAPSHOT_LOST_TOO)
		return -VMEM_EINVAL;
	a = &region->host->metadata.allocator;
	s.b = vmemi_zalloc(a, sizeof(*s.b), _Alignof(struct vmemi_snapshot_buffer));
	if (!s.b)
		return -VMEM_ENOMEM;
	s.b->head.hash = vmemi_hash_choose(vmem_cpu_detect());
	error = save(&s);
	vmemi_free(a, s.b, sizeof(*s.b), _Alignof(struct vmemi_snapshot_buffer));
	if (!error && stats)
		error = vmemi_opts_give(stats, &s.stats, sizeof(s.stats));
	return error;
}
