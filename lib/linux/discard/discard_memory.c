/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory of a VM, and carrying out what a balloon hands out of it: see discard_memory.h. */
#include "linux/discard/discard_memory.h"
#include "base/mem.h"
#include "base/opts.h"
#include "linux/kernel/pagemap.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <vmem/balloon_host.h>

#define TAKEN 64 /* ranges at a time */
#define BLOCK_MAX (UINT64_C(1) << 30)
#define WORD_BYTES (64 * (uint64_t)VMEM_PAGE_SIZE) /* of which pages are pinned is said at once */
#define WORK_BYTES \
	((uint64_t)VMEM_BALLOON_WORK_PAGES * VMEM_PAGE_SIZE) /* of a call that tries again */

_Static_assert(WORK_BYTES >= BLOCK_MAX, "else a block could never be tried again");

/* --- Runs --- */

static void flush(vmem_discard *d)
{
	if (d->run_count && d->at->kind == VMEM_DISCARD_REGION)
		vmemi_discard_region(d);
	else if (d->run_count)
		vmemi_discard_plain(d);
	d->run_count = 0;
}

void vmemi_discard_region(vmem_discard *d)
{
	struct vmemi_discard_batch b = { .r = d->at->region,
					 .event = VMEMI_PAGE_DISCARD,
					 .hinted = d->hinted };

	for (size_t i = 0; i < d->run_count; i++)
		vmemi_discard_pages(&b, (uintptr_t)d->runs[i].iov_base / VMEM_PAGE_SIZE,
				    d->runs[i].iov_len / VMEM_PAGE_SIZE);
	vmemi_discard_batch_end(&b);
	d->counts->released += b.released;
	d->counts->pinned += b.pinned * VMEM_PAGE_SIZE;
	d->counts->failed += b.failed * VMEM_PAGE_SIZE;
	d->counts->written += b.written * VMEM_PAGE_SIZE;
}

/* [at, at + bytes) of the piece. */
static void add_run(vmem_discard *d, struct vmemi_piece *p, uint64_t at, uint64_t bytes)
{
	struct iovec *last = &d->runs[d->run_count ? d->run_count - 1 : 0];

	if (d->at != p || d->run_count == VMEMI_DISCARD_RUNS)
		flush(d);
	d->at = p;
	if (d->run_count && (uintptr_t)last->iov_base + last->iov_len == at)
		last->iov_len += bytes;
	else
		d->runs[d->run_count++] = (struct iovec){ (void *)(uintptr_t)at, bytes };
}

/* Cuts around what is pinned, which is asked for once a word of pages. A block with a pinned page in it stays. */
static void cut_pinned(vmem_discard *d, struct vmemi_piece *p, uint64_t at, uint64_t bytes)
{
	const uint64_t step = p->block_bytes;
	const uint64_t block =
		step < WORD_BYTES ? (UINT64_C(1) << step / VMEM_PAGE_SIZE) - 1 : UINT64_MAX;
	uint64_t word = UINT64_MAX, pinned = 0;

	for (uint64_t end = at + bytes; at < end; at += step) {
		uint64_t held = 0;

		for (uint64_t i = at; i < at + step && !held; i += WORD_BYTES) {
			if (word != i / WORD_BYTES) {
				word = i / WORD_BYTES;
				pinned = d->pinned(d->context, p->gpa + word * WORD_BYTES);
			}
			held = pinned >> i % WORD_BYTES / VMEM_PAGE_SIZE & block;
		}
		if (held)
			d->counts->pinned += step;
		else
			add_run(d, p, at, step);
	}
}

/* Cuts around what was written, and then around what is pinned. */
static void cut(vmem_discard *d, struct vmemi_piece *p, uint64_t at, uint64_t bytes)
{
	const uint64_t step = d->hinted && !p->region ? p->block_bytes : bytes;

	for (uint64_t end = at + bytes; at < end; at += step) {
		if (d->hinted && !p->region && !vmemi_discard_is_unwritten(d, p, at, step))
			d->counts->written += step;
		else if (d->pinned && !p->region)
			cut_pinned(d, p, at, step);
		else
			add_run(d, p, at, step);
	}
}

/* --- Ranges --- */

static uint64_t bytes_now(const struct vmemi_piece *p)
{
	return p->region ? vmemi_region_bytes(p->region) : p->bytes;
}

/* A part of a range that is of one piece. */
static void discard_part(vmem_discard *d, struct vmemi_piece *p, uint64_t at, uint64_t bytes)
{
	uint64_t first = (at + p->block_bytes - 1) / p->block_bytes * p->block_bytes;
	uint64_t end = (at + bytes) / p->block_bytes * p->block_bytes;

	/* Without our guard nobody keeps the guest from writing to it at this moment. */
	if (d->hinted && !d->guards) {
		d->counts->written += bytes;
		return;
	}
	if (first >= end) {
		d->counts->cut += bytes;
		return;
	}
	d->counts->cut += bytes - (end - first);
	cut(d, p, first, end - first);
}

static uint64_t end_of(const struct vmem_balloon_range *r)
{
	return r->bytes > UINT64_MAX - r->gpa ? UINT64_MAX : r->gpa + r->bytes;
}

static void discard_range(vmem_discard *d, const struct vmem_balloon_range *r)
{
	uint64_t gpa = r->gpa, end = end_of(r);

	d->counts->asked += end - gpa;
	for (uint32_t i = 0; i < d->pieces && gpa < end; i++) {
		struct vmemi_piece *p = &d->piece[i];
		uint64_t stop = p->gpa + bytes_now(p);

		if (stop <= gpa)
			continue;
		if (p->gpa >= end)
			break;
		if (p->gpa > gpa) {
			d->counts->outside += p->gpa - gpa;
			gpa = p->gpa;
		}
		stop = stop < end ? stop : end;
		discard_part(d, p, gpa - p->gpa, stop - gpa);
		gpa = stop;
	}
	d->counts->outside += end - gpa;
}

static struct vmem_discard_counts *counts_of(vmem_discard *d, uint32_t operation)
{
	switch (operation) {
	case VMEM_BALLOON_DISCARD: return &d->metrics.inflated;
	case VMEM_BALLOON_DISCARD_REPORTED: return &d->metrics.reported;
	case VMEM_BALLOON_DISCARD_HINTED: return &d->metrics.hinted;
	default: return NULL;
	}
}

static void widen(struct vmemi_left *left, uint64_t low, uint64_t high)
{
	if (left->low == left->high) {
		*left = (struct vmemi_left){ low, high };
		return;
	}
	left->low = low < left->low ? low : left->low;
	left->high = high > left->high ? high : left->high;
}

static bool were_left(const struct vmem_discard_counts *before,
		      const struct vmem_discard_counts *after)
{
	return after->pinned > before->pinned || after->failed > before->failed;
}

static int rank(int error)
{
	return error == -VMEM_ERANGE ? 3 : error == -VMEM_EIO ? 2 : error ? 1 : 0;
}

static int worse(int a, int b)
{
	return rank(a) > rank(b) ? a : b;
}

/* What a row of ranges of one operation, in rising order, is to be counted as; and what came of it. */
static int discard_as(vmem_discard *d, struct vmem_discard_counts *c,
		      const struct vmem_balloon_range *ranges, size_t count)
{
	const struct vmem_discard_counts before = *c;

	d->counts = c;
	d->hinted = ranges->operation == VMEM_BALLOON_DISCARD_HINTED;
	d->at = NULL;
	for (size_t i = 0; i < count; i++)
		discard_range(d, &ranges[i]);
	flush(d);
	if (ranges->operation == VMEM_BALLOON_DISCARD && were_left(&before, c))
		for (size_t i = 0; i < count; i++) {
			widen(&d->left, ranges[i].gpa, end_of(&ranges[i]));
			if (d->passes)
				widen(&d->left_again, ranges[i].gpa, end_of(&ranges[i]));
		}
	if (c->outside > before.outside)
		return -VMEM_ERANGE;
	if (c->failed > before.failed)
		return -VMEM_EIO;
	return c->pinned > before.pinned ? -VMEM_EBUSY : 0;
}

/* A row of ranges of one operation. */
static int discard_row(vmem_discard *d, const struct vmem_balloon_range *ranges, size_t count,
		       uint64_t *bytes)
{
	struct vmem_discard_counts *c = counts_of(d, ranges->operation);
	uint64_t before;
	int error;

	if (!c) {
		for (size_t i = 0; i < count; i++)
			d->metrics.returned += ranges[i].bytes;
		return 0;
	}
	before = c->released;
	error = discard_as(d, c, ranges, count);
	*bytes += c->released - before;
	return error;
}

int vmem_discard_ranges(vmem_discard *d, const struct vmem_balloon_range *ranges, size_t count,
			uint64_t *ret_bytes)
{
	uint64_t bytes = 0;
	size_t end;
	int result = 0;

	for (size_t i = 0; i < count; i++)
		if (ranges[i].operation != VMEM_BALLOON_RETURN &&
		    !counts_of(d, ranges[i].operation))
			return -VMEM_EINVAL;
	for (size_t i = 0; i < count; i = end) {
		for (end = i + 1; end < count && ranges[end].operation == ranges[i].operation;)
			end++;
		result = worse(result, discard_row(d, ranges + i, end - i, &bytes));
	}
	if (ret_bytes)
		*ret_bytes = bytes;
	return result;
}

int vmem_discard_drain(vmem_discard *d, vmem_balloon *balloon)
{
	struct vmem_balloon_range ranges[TAKEN];
	int result = 0;
	size_t count;

	while ((count = vmem_balloon_take_ranges(balloon, ranges, TAKEN)) != 0)
		result = worse(result, vmem_discard_ranges(d, ranges, count, NULL));
	return result;
}

/* --- What was left --- */

/* The next piece of what is in the balloon and was left. False: the pass is over. */
static bool next_left(const vmem_discard *d, const vmem_balloon *balloon,
		      struct vmem_balloon_range *r)
{
	uint64_t at = d->hand > d->left.low ? d->hand : d->left.low, end;

	if (at >= d->left.high || vmem_balloon_next(balloon, at, r) || r->gpa >= d->left.high)
		return false;
	end = r->gpa + r->bytes;
	if (r->gpa < at)
		r->gpa = at;
	end = end < d->left.high ? end : d->left.high;
	r->bytes = end - r->gpa;
	return true;
}

/* How far into its block, if it has one, an address is. */
static uint64_t into_block(const vmem_discard *d, uint64_t gpa)
{
	for (uint32_t i = 0; i < d->pieces; i++) {
		const struct vmemi_piece *p = &d->piece[i];

		if (gpa >= p->gpa && gpa - p->gpa < bytes_now(p))
			return (gpa - p->gpa) % p->block_bytes;
	}
	return 0;
}

/* What of a range may be looked at with @rest of the work left: whole blocks, because parts of them are left alone. 0:
 * none, but of the next call, which has work for the largest. */
static uint64_t work_of(const vmem_discard *d, const struct vmem_balloon_range *r, uint64_t rest)
{
	uint64_t end = r->gpa + rest;

	if (r->bytes <= rest)
		return r->bytes;
	end -= into_block(d, end);
	return end > r->gpa ? end - r->gpa : 0;
}

int vmem_discard_retry(vmem_discard *d, const vmem_balloon *balloon)
{
	struct vmem_balloon_progress p = { .size = sizeof(p) };
	uint64_t rest = WORK_BYTES;
	uint32_t entries = VMEM_BALLOON_WORK_ENTRIES;
	struct vmem_balloon_range r;
	int error = vmem_balloon_get_progress(balloon, &p);

	if (error)
		return error;
	if (!(p.features & VMEM_BALLOON_F_MUST_TELL_HOST))
		return -VMEM_EPERM;
	d->passes = true;
	while (rest && entries-- && next_left(d, balloon, &r)) {
		r.bytes = work_of(d, &r, rest);
		if (!r.bytes)
			break;
		discard_as(d, &d->metrics.retried, &r, 1);
		d->hand = r.gpa + r.bytes;
		rest -= r.bytes < rest ? r.bytes : rest;
	}
	if (!next_left(d, balloon, &r)) {
		d->left = d->left_again;
		d->left_again = (struct vmemi_left){ 0, 0 };
		d->hand = 0;
		d->passes = false;
	}
	return d->left.low < d->left.high ? -VMEM_EAGAIN : 0;
}

/* --- The object --- */

static void find_out(vmem_discard *d)
{
	int fd = vmemi_pagemap_open(d->k);

	d->scan = fd >= 0;
	if (fd < 0)
		fd = d->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	d->pagemap = fd < 0 ? -1 : fd;
	d->vector = d->k->madvise_vector(NULL, 0, MADV_DONTNEED) == 0;
}

int vmemi_discard_new(vmem_discard **ret_discard, const struct vmem_discard_opts *opts,
		      const struct vmemi_kernel *k)
{
	struct vmem_balloon_guard guard = { 0 };
	struct vmem_allocator allocator;
	struct vmem_discard_opts o;
	vmem_discard *d;
	int error;

	if (!ret_discard)
		return -VMEM_EINVAL;
	if ((error = vmemi_opts_take(&o, sizeof(o), opts)) != 0 ||
	    (error = vmemi_alloc_take(&allocator, o.allocator)) != 0 ||
	    (error = vmemi_discard_guard_take(&guard, o.guard)) != 0)
		return error;
	if (o.flags)
		return -VMEM_EINVAL;
	if (k->page_size() != VMEM_PAGE_SIZE)
		return -VMEM_ENOTSUP;
	d = vmemi_zalloc(&allocator, sizeof(*d), _Alignof(vmem_discard));
	if (!d)
		return -VMEM_ENOMEM;
	d->allocator = allocator;
	d->k = k;
	d->pinned = o.pinned;
	d->context = o.context;
	d->guard = guard;
	find_out(d);
	*ret_discard = d;
	return 0;
}

int vmem_discard_new(vmem_discard **ret_discard, const struct vmem_discard_opts *opts)
{
	return vmemi_discard_new(ret_discard, opts, &vmemi_kernel_linux);
}

void vmem_discard_free(vmem_discard *d)
{
	struct vmem_allocator allocator;

	if (!d)
		return;
	vmemi_discard_guard_end(d);
	for (uint32_t i = 0; i < d->pieces; i++)
		vmemi_piece_close(d, &d->piece[i]);
	if (d->pagemap >= 0)
		d->k->close(d->pagemap);
	allocator = d->allocator;
	vmemi_free(&allocator, d, sizeof(*d), _Alignof(vmem_discard));
}

static bool is_aligned(const struct vmemi_piece *p)
{
	uint64_t block = p->block_bytes;

	return block >= VMEM_PAGE_SIZE && block <= BLOCK_MAX && !(block & (block - 1)) &&
	       !((p->gpa | p->bytes | p->offset | (uintptr_t)p->hva) % block);
}

/* What the caller says, without looking at the memory. 0, -VMEM_EINVAL, -VMEM_ENOTSUP. */
static int take_piece(struct vmemi_piece *p, const struct vmem_discard_piece *from)
{
	*p = (struct vmemi_piece){ .fd = -1, .block_bytes = VMEM_PAGE_SIZE };
	p->kind = (enum vmem_discard_kind)from->kind;
	if (p->kind == VMEM_DISCARD_REGION) {
		if (!from->region)
			return -VMEM_EINVAL;
		p->region = from->region;
		p->gpa = p->region->opts.gpa;
		p->bytes = vmemi_region_most_bytes(p->region);
		return p->region->foreign ? -VMEM_ENOTSUP : 0;
	}
	p->gpa = from->gpa;
	p->bytes = from->bytes;
	p->hva = from->hva;
	p->offset = p->kind == VMEM_DISCARD_FILE ? from->offset : 0;
	if (from->block_bytes)
		p->block_bytes = from->block_bytes;
	if (p->kind < VMEM_DISCARD_PRIVATE || p->kind > VMEM_DISCARD_IMAGE ||
	    (p->kind != VMEM_DISCARD_FILE && !p->hva) || !p->bytes || !is_aligned(p) ||
	    p->bytes > UINT64_MAX - p->gpa || p->bytes > UINT64_MAX - (uintptr_t)p->hva ||
	    (p->kind == VMEM_DISCARD_IMAGE && p->block_bytes != VMEM_PAGE_SIZE))
		return -VMEM_EINVAL;
	return 0;
}

int vmem_discard_add(vmem_discard *d, const struct vmem_discard_piece *piece)
{
	struct vmem_discard_piece from;
	struct vmemi_piece p;
	uint32_t at = 0;
	int error = piece ? vmemi_opts_take(&from, sizeof(from), piece) : -VMEM_EINVAL;

	if (error || (error = take_piece(&p, &from)) != 0)
		return error;
	if (d->guards)
		return -VMEM_EBUSY;
	while (at < d->pieces && d->piece[at].gpa + d->piece[at].bytes <= p.gpa)
		at++;
	if (at < d->pieces && d->piece[at].gpa < p.gpa + p.bytes)
		return -VMEM_EEXIST;
	if (d->pieces == VMEM_DISCARD_PIECES)
		return -VMEM_ENOSPC;
	error = p.region ? 0 : vmemi_piece_open(d, &p, &from);
	if (error) {
		vmemi_piece_close(d, &p);
		return error;
	}
	memmove(&d->piece[at + 1], &d->piece[at], (d->pieces - at) * sizeof(p));
	d->piece[at] = p;
	d->pieces++;
	return 0;
}

int vmem_discard_get_metrics(const vmem_discard *d, struct vmem_discard_metrics *metrics)
{
	return vmemi_opts_give(metrics, &d->metrics, sizeof(d->metrics));
}
