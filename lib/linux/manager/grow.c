/* SPDX-License-Identifier: BSD-2-Clause */
/* A region grows while its guest runs: see <vmem/grow.h>.
 *
 * All that is kept of its pages is in arrays that have room for the maximum (region/arrays.h), so nothing moves
 * under who reads it without a lock; only the tracker, which is reclaim's alone, is made anew. The new pages are
 * prepared beyond the end, where nobody looks: registered, their words set. Then, under the lock of
 * reclaim, where a quiesced region is left as it is, all sizes change, r->pages the last: from then on the pages are
 * there for everybody. A fault there before that finds no region, and comes again. */
#include "linux/fault/source.h"
#include "linux/manager/manager.h"
#include "linux/region/dirty.h"
#include <sys/mman.h>
#include <vmem/grow.h>

/* Whether the VMM has mapped memory of the right kind there. */
static int judge(struct vmem_region *r, uint64_t first, uint64_t count)
{
	const struct vmemi_kernel *k = r->host->k;
	uint64_t offset = first * VMEM_PAGE_SIZE;
	struct vmem_region_opts o = { .file_fd = r->file.fd,
				      .file_offset = r->file.offset + offset,
				      .bytes = count * VMEM_PAGE_SIZE };
	struct vmemi_file identity, *file = NULL;
	struct vmemi_memory_kind kind;
	int error;

	if (r->file.fd >= 0) {
		file = &identity;
		error = vmemi_attach_identify(k, &o, file);
		if (error)
			return error;
	}
	if (*vmemi_memory_why(k, r->base + offset, o.bytes, file, &kind))
		return kind.foreign ? -VMEM_EBUSY : kind.other_file ? -VMEM_EINVAL : -VMEM_ENOTSUP;
	r->was_kept_from_children |= kind.kept_from_children;
	return 0;
}

/* Reclaim hears of pages that are there already, and the rounds of a migration of those that are with the source, too. */
static void show(struct vmem_region *r, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		enum vmem_page_state state = vmemi_page_state(vmemi_region_word(r, page));

		if (state == VMEM_PAGE_RESIDENT)
			vmemi_page_set_add(&r->ages.moved, page);
		if (state != VMEM_PAGE_ABSENT)
			vmemi_dirty_mark(r, page);
	}
}

/* All that can fail, then all that cannot; a tracker that is longer than the region does no harm. The caller has
 * entered reclaim. */
static int publish(struct vmem_region *r, uint64_t first, uint64_t end, int64_t present)
{
	uint64_t bytes = (end - first) * VMEM_PAGE_SIZE;
	int error = vmemi_region_is_quiet(r) ? -VMEM_EBUSY : vmemi_ages_grow(&r->ages, end);

	if (!error && r->allocated &&
	    r->host->k->mprotect(vmemi_region_page(r, first), bytes, PROT_READ | PROT_WRITE))
		error = -VMEM_ENOMEM;
	if (error)
		return error;
	vmemi_page_set_grow(&r->waste, end);
	vmemi_source_grow(r, end);
	vmemi_neighbours_grow(&r->neighbours, end);
	vmemi_arrays_grow(&r->arrays, end);
	if (present || vmemi_dirty_on(r))
		show(r, first, end);
	vmemi_attach_count(r, end - first, present);
	atomic_store(&r->pages, end);
	return 0;
}

static int grow(struct vmem_manager *m, struct vmem_region *r, uint64_t end)
{
	bool was_kept = r->was_kept_from_children;
	uint64_t first = r->pages;
	int64_t present;
	int error;

	if (end < first)
		return -VMEM_EINVAL;
	if (end == first)
		return 0;
	error = r->allocated ? 0 : judge(r, first, end - first);
	if (error)
		return error;
	present = vmemi_attach_pages(r, first, end - first);
	if (present < 0) {
		error = (int)present;
	} else {
		vmemi_reclaim_enter(m->reclaim);
		error = publish(r, first, end, present);
		vmemi_reclaim_leave(m->reclaim);
		if (error)
			vmemi_attach_undo(r, first, end - first);
	}
	if (error)
		r->was_kept_from_children = was_kept;
	else
		vmemi_host_kick_reclaim(&m->host);
	return error;
}

int vmem_region_grow(vmem_region *region, uint64_t new_bytes)
{
	struct vmem_manager *m;
	int error;

	if (!region || new_bytes % VMEM_PAGE_SIZE)
		return -VMEM_EINVAL;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	if (new_bytes > vmemi_region_most_bytes(region))
		return -VMEM_ERANGE;
	m = (struct vmem_manager *)region->host;
	vmemi_lock(&m->attach_lock);
	error = grow(m, region, new_bytes / VMEM_PAGE_SIZE);
	vmemi_unlock(&m->attach_lock);
	return error;
}
