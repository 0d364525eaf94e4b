/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading and writing guest memory without faults. A page is claimed (ARRIVING) while its bytes are
 * looked at, so it neither leaves nor comes; it is never read through a mapping that could fault. */
#include "linux/fault/content.h"
#include "linux/fault/content_slow.h"
#include "base/mem.h"
#include "linux/backing/backing.h"
#include "linux/fault/serve.h"
#include "linux/fault/source.h"
#include "linux/region/dirty.h"

#define RUN 64

/* Claims a page wherever it is. 0 with its old word, -VMEM_EIO (poisoned), -VMEM_EAGAIN (busy). A page
 * that is away has a frame counted for it meanwhile. */
static int claim(struct vmem_region *r, uint64_t page, uint64_t *ret_old)
{
	if (vmemi_page_state(vmemi_region_word(r, page)) == VMEM_PAGE_POISONED)
		return -VMEM_EIO;
	if (vmemi_region_step(r, page, VMEMI_PAGE_CLAIM, 0, ret_old))
		return 0;
	vmemi_frames_force(&r->host->frames, 1);
	if (vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, ret_old))
		return 0;
	vmemi_frames_untake(&r->host->frames, 1);
	return -VMEM_EAGAIN;
}

/* One page as it is at this moment. @lent: @data is a buffer of the host. -VMEM_EAGAIN: it was busy, or as many loads are
 * under way as can be. VMEMI_CONTENT_LOST: it took too long, and a buffer that was lent is not the caller's any more. */
static int read_page(struct vmem_region *r, uint64_t page, void *data, bool lent,
		     enum vmem_page_state *ret_was)
{
	uint64_t old;
	int error = claim(r, page, &old);

	if (error)
		return error;
	*ret_was = vmemi_page_state(old);
	switch (vmemi_page_state(old)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED:
	case VMEM_PAGE_STAGED:
	case VMEM_PAGE_STORING:
		error = r->backing->read(r, page, vmemi_page_state(old), data);
		break;
	case VMEM_PAGE_ABSENT: memset(data, 0, VMEM_PAGE_SIZE); break;
	case VMEM_PAGE_STORED:
		/* The caller's buffer may be guest memory of somebody: only a copy goes there. */
		error = vmem_store_peek(r->host->store, r->vm, vmemi_region_key(r, page),
					vmemi_page_ref(old), data, NULL);
		if (error == -VMEM_EAGAIN)
			error = vmemi_content_peek_slow(r, page, old, data, lent);
		if (error == VMEMI_CONTENT_LOST)
			return error;
		break;
	case VMEM_PAGE_SOURCE: return vmemi_source_peek(r, page, data); /* the claim, too */
	default: error = -VMEM_EIO; break;
	}
	vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
	return error == -VMEM_EBADMSG ? -VMEM_EIO : error;
}

int vmemi_content_read(struct vmem_region *r, uint64_t page, void *buffer,
		       enum vmem_page_state *ret_was)
{
	int error;

	while ((error = read_page(r, page, buffer, false, ret_was)) == -VMEM_EAGAIN)
		vmemi_host_wait(r->host);
	return error == VMEMI_CONTENT_LOST ? -VMEM_EIO : error;
}

/* By way of a buffer of the host. There are few: none is held while another one is needed, or while the page is busy. */
static int read_copy(struct vmem_region *r, uint64_t page, unsigned char *data)
{
	enum vmem_page_state was;
	int error;

	do {
		unsigned char *buffer = vmemi_host_buffer(r->host);

		error = buffer ? read_page(r, page, buffer, true, &was) : -VMEM_EAGAIN;
		if (error == VMEMI_CONTENT_LOST)
			return -VMEM_EIO;
		if (!error)
			memcpy(data, buffer, VMEM_PAGE_SIZE);
		if (buffer)
			vmemi_host_buffer_return(r->host, buffer);
		if (error == -VMEM_EAGAIN)
			vmemi_host_wait(r->host);
	} while (error == -VMEM_EAGAIN);
	return error;
}

int vmem_region_read(vmem_region *region, uint64_t gpa, void *data, uint64_t bytes)
{
	uint64_t first, count;
	int error = 0;

	if ((gpa | bytes) % VMEM_PAGE_SIZE)
		return -VMEM_EINVAL;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	error = vmemi_region_span(region, gpa, bytes, false, &first, &count);
	if (error)
		return error;
	for (uint64_t i = 0; i < count && !error; i++)
		error = read_copy(region, first + i, (unsigned char *)data + i * VMEM_PAGE_SIZE);
	return error;
}

/* Whether a page is overwritten without looking at what it was. */
static bool is_away(uint64_t word)
{
	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_ABSENT:
	case VMEM_PAGE_SOURCE:
	case VMEM_PAGE_STORED: return !(word & VMEMI_PAGE_LEAVING);
	default: return false;
	}
}

/* Claims a run of such pages, from @page on, with frames for them that leave @floor bytes free. */
static unsigned claim_away(struct vmem_region *r, uint64_t page, uint64_t end, uint64_t floor,
			   uint64_t *old)
{
	struct vmemi_frames *f = &r->host->frames;
	unsigned n = 0;

	while (n < RUN && page + n < end && is_away(vmemi_region_word(r, page + n)) &&
	       vmemi_frames_take(f, 1, floor)) {
		if (!vmemi_region_step(r, page + n, VMEMI_PAGE_FETCH, 0, &old[n])) {
			vmemi_frames_untake(f, 1);
			break;
		}
		if (!is_away(old[n])) { /* touched, and taken, meanwhile */
			vmemi_region_end(r, page + n, VMEMI_PAGE_RETURN, old[n]);
			break;
		}
		n++;
	}
	return n;
}

/* Installs a run that is claimed. What the store has of it is dropped in time. The number of pages that are
 * done is in @ret_done; the others are as before. */
static int write_away(struct vmem_region *r, uint64_t page, unsigned n, const void *data,
		      const uint64_t *old, unsigned *ret_done)
{
	bool wp = false;
	size_t bytes;
	int error;

	for (unsigned i = 0; i < n; i++)
		vmemi_dirty_mark(r, page + i);
	error = r->backing->fill(r, &r->own, page, n, data, &wp, &bytes);

	*ret_done = (unsigned)(bytes / VMEM_PAGE_SIZE);
	for (unsigned i = 0; i < n; i++) {
		if (i < *ret_done)
			vmemi_region_end(r, page + i, VMEMI_PAGE_ARRIVE, 0);
		else
			vmemi_region_end(r, page + i, VMEMI_PAGE_RETURN, old[i]);
	}
	return error && error != -VMEM_EAGAIN && error != -VMEM_ENOMEM ? -VMEM_EIO : 0;
}

unsigned vmemi_content_fill(struct vmem_region *r, uint64_t page, uint64_t count, const void *data,
			    uint64_t floor, int *ret_error)
{
	uint64_t old[RUN];
	unsigned done = 0, n = claim_away(r, page, page + count, floor, old);

	*ret_error = n ? write_away(r, page, n, data, old, &done) : 0;
	return done;
}

int vmemi_content_store(struct vmem_region *r, uint64_t page, const void *data)
{
	vmem_store *store = r->host->store;
	vmem_store_ref ref;
	uint64_t old;
	int error;

	if (vmemi_page_state(vmemi_region_word(r, page)) != VMEM_PAGE_ABSENT)
		return -VMEM_EEXIST;
	error = vmem_store_save(store, r->vm, vmemi_region_key(r, page), data, &ref);
	if (error)
		return error;
	vmemi_frames_force(&r->host->frames, 1); /* until it is stored */
	if (!vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, &old)) {
		vmemi_frames_untake(&r->host->frames, 1);
		error = -VMEM_EAGAIN;
	} else if (vmemi_page_state(old) != VMEM_PAGE_ABSENT) {
		vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
		error = -VMEM_EEXIST;
	} else {
		/* As long as it is claimed: stored, and seen as not written, it could be discarded by a hint. */
		vmemi_dirty_mark(r, page);
		if (!vmemi_region_step(r, page, VMEMI_PAGE_IMPORT, ref, &old)) {
			vmemi_region_end(r, page, VMEMI_PAGE_RETURN,
					 old); /* a worker is at its place */
			error = -VMEM_EAGAIN;
		}
	}
	if (error)
		vmem_store_drop(store, r->vm, ref);
	return error;
}

/* A page that has contents: it is brought in place, held there, and overwritten. */
static int write_present(struct vmem_region *r, uint64_t page, const void *data)
{
	int error = vmem_region_pin(r, vmemi_region_gpa(r, page), VMEM_PAGE_SIZE);

	if (error)
		return error;
	error = r->backing->write(r, page, data);
	vmem_region_unpin(r, vmemi_region_gpa(r, page), VMEM_PAGE_SIZE);
	return error;
}

int vmem_region_write(vmem_region *region, uint64_t gpa, const void *data, uint64_t bytes)
{
	const unsigned char *from = data;
	uint64_t first, count, page;
	struct vmemi_hope hope = { 0 };
	struct vmemi_host *host = region->host;
	int error;

	if ((gpa | bytes) % VMEM_PAGE_SIZE)
		return -VMEM_EINVAL;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	error = vmemi_region_span(region, gpa, bytes, false, &first, &count);
	if (error)
		return error;
	for (page = first; page < first + count && !error;) {
		uint32_t sequence = atomic_load(&host->frames.sequence);
		const unsigned char *src = from + (page - first) * VMEM_PAGE_SIZE;
		unsigned n = vmemi_content_fill(region, page, first + count - page, src,
						atomic_load(&host->frames.floor_bytes), &error);

		if (n || error) {
			page += n; /* what did not go comes again */
			hope = (struct vmemi_hope){ 0 };
		} else if (is_away(vmemi_region_word(region, page))) {
			vmemi_host_kick_reclaim(host);
			if (!vmemi_serve_wait_for_frame(host, sequence, &hope))
				error = -VMEM_ENOSPC;
		} else {
			error = write_present(region, page, src);
			page++;
		}
	}
	return error;
}
