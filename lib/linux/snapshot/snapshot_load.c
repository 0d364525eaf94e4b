/* SPDX-License-Identifier: BSD-2-Clause */
/* A region from a stream: see <vmem/snapshot.h>. The stream is not trusted: each part is checked before it
 * is used, and what it asks for is bounded by the region. A page that was in place comes into place while
 * that leaves the reserve free; any other goes into the store from the buffer, without a frame of its own.
 * What the store does not take comes into place too, as room is made for it. */
#include <vmem/snapshot.h>
#include "base/mem.h"
#include "base/opts.h"
#include "linux/fault/content.h"
#include "linux/fault/serve.h"
#include "linux/snapshot/snapshot_frame.h"

#define PROGRESS_EVERY 1024 /* pages */

struct load {
	struct vmem_region *r;
	struct vmem_snapshot_load_opts opts;
	struct vmemi_snapshot_buffer *b;
	uint64_t all;   /* pages of the region when it began */
	uint64_t next;  /* page; where the frame before has ended */
	uint64_t pages; /* of all frames */
	uint64_t frames;
	uint64_t told; /* pages; of progress */
	struct vmemi_hope hope;
	struct vmem_snapshot_stats stats;
};

static int get_bytes(struct load *l, void *bytes, size_t count)
{
	int got;

	if (!count)
		return 0;
	got = l->opts.read(l->opts.context, bytes, count);
	if (got != 1)
		return got < 0 ? got : -VMEM_EBADMSG;
	l->stats.stream_bytes += count;
	return 0;
}

static int get_frame(struct load *l, struct vmemi_snapshot_frame *f)
{
	struct vmemi_snapshot_buffer *b = l->b;
	int error = get_bytes(l, b->head.bytes, VMEMI_SNAPSHOT_HEAD);

	if (error)
		return error;
	if (!vmemi_snapshot_get_head(&b->head, l->next, l->all, f))
		return -VMEM_EBADMSG;
	error = get_bytes(l, b->head.bytes + VMEMI_SNAPSHOT_HEAD, vmemi_snapshot_sum_bytes(f));
	if (!error && !vmemi_snapshot_check_head(&b->head, f))
		error = -VMEM_EBADMSG;
	if (error || f->kind != VMEMI_SNAPSHOT_BYTES)
		return error;
	error = get_bytes(l, b->pages, (size_t)f->pages * VMEM_PAGE_SIZE);
	if (!error && !vmemi_snapshot_check_pages(b, f))
		error = -VMEM_EBADMSG;
	return error;
}

/* Puts one page where it fits. */
static int put_anywhere(struct load *l, uint64_t page, const void *bytes)
{
	struct vmemi_host *host = l->r->host;
	int error, fill_error;

	for (;;) {
		uint32_t sequence = atomic_load(&host->frames.sequence);

		error = vmemi_content_store(l->r, page, bytes);
		if (!error || error == -VMEM_EEXIST)
			return error;
		if (error == -VMEM_EAGAIN) {
			vmemi_host_wait(host);
			continue;
		}
		if (vmemi_content_fill(l->r, page, 1, bytes, atomic_load(&host->frames.floor_bytes),
				       &fill_error)) {
			l->stats.pages_in_place++;
			l->hope = (struct vmemi_hope){ 0 };
			return 0;
		}
		if (fill_error)
			return fill_error;
		vmemi_host_kick_reclaim(host);
		if (!vmemi_serve_wait_for_frame(host, sequence, &l->hope))
			return -VMEM_ENOSPC;
	}
}

/* Puts @count pages, whose bytes are in the buffer. */
static int put_pages(struct load *l, const struct vmemi_snapshot_frame *f, uint64_t first,
		     uint64_t count)
{
	const struct vmemi_frames *frames = &l->r->host->frames;
	int error = 0;

	for (uint64_t i = 0; i < count && !error;) {
		unsigned n = 0;

		if (f->state == VMEM_PAGE_RESIDENT)
			n = vmemi_content_fill(l->r, first + i, count - i, l->b->pages[i],
					       atomic_load(&frames->reserve_bytes), &error);
		l->stats.pages_in_place += n;
		if (!n && !error) {
			error = put_anywhere(l, first + i, l->b->pages[i]);
			n = 1;
		}
		i += n;
	}
	return error;
}

static int put_word(struct load *l, const struct vmemi_snapshot_frame *f)
{
	uint64_t most = f->pages < VMEMI_SNAPSHOT_PAGES ? f->pages : VMEMI_SNAPSHOT_PAGES, n;
	int error = 0;

	for (uint64_t i = 0; i < most; i++)
		vmemi_snapshot_fill(l->b->pages[i], f->word);
	for (uint64_t done = 0; done < f->pages && !error; done += n) {
		n = f->pages - done < most ? f->pages - done : most;
		error = put_pages(l, f, f->first + done, n);
	}
	return error;
}

int vmemi_snapshot_put_lost(struct vmem_region *r, uint64_t first, uint64_t pages)
{
	for (uint64_t page = first; page < first + pages; page++) {
		while (vmemi_serve_lose(r, page, -VMEM_EIO) != VMEMI_POISONED) {
			if (vmemi_page_state(vmemi_region_word(r, page)) != VMEM_PAGE_ABSENT)
				return -VMEM_EEXIST;
			vmemi_host_wait(r->host);
		}
	}
	return 0;
}

static int put_frame(struct load *l, const struct vmemi_snapshot_frame *f)
{
	switch (f->kind) {
	case VMEMI_SNAPSHOT_BYTES:
		l->stats.pages += f->pages;
		return put_pages(l, f, f->first, f->pages);
	case VMEMI_SNAPSHOT_WORD: l->stats.pages_same += f->pages; return put_word(l, f);
	default:
		l->stats.pages_lost += f->pages;
		return vmemi_snapshot_put_lost(l->r, f->first, f->pages);
	}
}

static int progress(struct load *l)
{
	uint64_t told = l->next / PROGRESS_EVERY;

	if (!l->opts.progress || (told == l->told && l->next != l->all))
		return 0;
	l->told = told;
	return l->opts.progress(l->opts.context, l->next * VMEM_PAGE_SIZE, l->all * VMEM_PAGE_SIZE);
}

static int load(struct load *l)
{
	struct vmemi_snapshot_frame f;
	uint64_t gpa, bytes;
	int error = get_bytes(l, l->b->head.bytes, VMEMI_SNAPSHOT_HEADER);

	if (!error)
		error = vmemi_snapshot_get_header(&l->b->head, &gpa, &bytes);
	if (error)
		return error;
	if (gpa != l->r->opts.gpa || bytes != l->all * VMEM_PAGE_SIZE)
		return -VMEM_ERANGE;
	for (;;) {
		error = get_frame(l, &f);
		if (error)
			return error;
		if (f.kind == VMEMI_SNAPSHOT_END)
			break;
		error = put_frame(l, &f);
		l->frames++;
		l->pages += f.pages;
		l->next = f.first + f.pages;
		if (!error)
			error = progress(l);
		if (error)
			return error;
	}
	if (f.pages != l->pages || f.word != l->frames)
		return -VMEM_EBADMSG;
	if (l->next == l->all)
		return 0;
	l->next = l->all;
	return progress(l);
}

int vmem_snapshot_load(vmem_region *region, const struct vmem_snapshot_load_opts *opts,
		       struct vmem_snapshot_stats *stats)
{
	const struct vmem_allocator *a;
	struct load l = { .r = region, .stats = { .size = sizeof(l.stats) } };
	int error;

	if (!region || !opts)
		return -VMEM_EINVAL;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	l.all = region->pages;
	error = vmemi_callbacks_take(&l.opts, sizeof(l.opts),
				     VMEMI_BYTES_TO(struct vmem_snapshot_load_opts, context), opts);
	if (error)
		return error;
	if (!l.opts.read || l.opts.flags)
		return -VMEM_EINVAL;
	if (vmemi_region_count(region, VMEM_PAGE_ABSENT) != l.all)
		return -VMEM_EEXIST;
	a = &region->host->metadata.allocator;
	l.b = vmemi_zalloc(a, sizeof(*l.b), _Alignof(struct vmemi_snapshot_buffer));
	if (!l.b)
		return -VMEM_ENOMEM;
	l.b->head.hash = vmemi_hash_choose(vmem_cpu_detect());
	error = load(&l);
	vmemi_free(a, l.b, sizeof(*l.b), _Alignof(struct vmemi_snapshot_buffer));
	if (!error && stats)
		error = vmemi_opts_give(stats, &l.stats, sizeof(l.stats));
	return error;
}
