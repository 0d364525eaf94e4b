/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults on pages that are in place: a write to a protected one; one that this mapping has not touched since it came;
 * or none that is left to serve. See serve.c. */
#include "linux/backing/backing.h"
#include "linux/backing/peers.h"
#include "linux/fault/serve_parts.h"
#include "linux/foreign/foreign_events.h"
#include "linux/region/dirty.h"

/* A page that is in place and still faults this often in a row has lost its mapping behind our back. */
#define REDUNDANT_LIMIT 64

/* A write to a protected page that is in place: it becomes writable, and its ref is stale. */
enum vmemi_served vmemi_serve_protected(struct vmem_region *r, struct vmemi_fault *f)
{
	uint64_t old;
	int error = 0;

	if (!vmemi_region_step(r, f->page, VMEMI_PAGE_CLAIM, 0, &old))
		return VMEMI_PUT_OFF;
	vmemi_dirty_mark(r, f->page);
	if (f->at)
		vmemi_peer_map(r, f->at, f->page, false);
	else
		error = vmemi_serve_unlock(&r->own, f->page);
	if (error) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	}
	vmemi_serve_note(r, f);
	vmemi_region_end(r, f->page, VMEMI_PAGE_ARRIVE, 0);
	if (old & VMEMI_PAGE_LEAVING)
		vmemi_tally(&r->counters.taken_undone, 1);
	if (vmemi_page_state(old) == VMEM_PAGE_CLEAN && vmemi_page_ref(old))
		vmemi_region_note_clean(r, 1, 0);
	vmemi_tally(&r->counters.faults_write, 1);
	return VMEMI_SERVED;
}

/* A claimed page that was in place, and that the kernel cannot map: past us, the file has lost it; unless it is
 * mapped all the same, which a mark cannot be put over. */
static enum vmemi_served not_mapped(struct vmem_region *r, struct vmemi_fault *f, uint64_t old,
				    int error)
{
	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM)
		return vmemi_serve_failed(r, f, old, error);
	if (vmemi_serve_put_mark(r, &r->own, f->page) != -VMEM_EEXIST)
		return vmemi_serve_lose_claimed(r, f, old, -VMEM_EFAULT);
	vmemi_dirty_mark(r, f->page); /* it is writable now */
	vmemi_region_end(r, f->page, VMEMI_PAGE_ARRIVE, 0);
	vmemi_serve_wake(r, f);
	return VMEMI_SERVED;
}

/* The page is in place, but this mapping has not touched it since it came; or it has, meanwhile. */
static enum vmemi_served map_too(struct vmem_region *r, struct vmemi_fault *f)
{
	bool clean, wp;
	uint64_t old;
	int error, unprotected = 0;

	if (!vmemi_region_step(r, f->page, VMEMI_PAGE_CLAIM, 0, &old))
		return VMEMI_PUT_OFF;
	clean = vmemi_page_state(old) == VMEM_PAGE_CLEAN && !f->write;
	wp = vmemi_dirty_protects(r, f->page, f->write) || clean;
	error = vmemi_file_map(r, &r->own, f->page, &wp);
	if (error < 0)
		return not_mapped(r, f, old, error);
	if (f->at)
		wp &= vmemi_peer_map(r, f->at, f->page, wp);
	else if (error == 1 && f->write)
		unprotected = vmemi_serve_unlock(&r->own, f->page);
	else if (error == 1)
		vmemi_serve_wake(r, f);
	if (!wp)
		vmemi_dirty_mark(r, f->page);
	clean &= wp;
	if (unprotected)
		return vmemi_serve_failed(r, f, old, unprotected);
	vmemi_serve_note(r, f);
	vmemi_region_end(r, f->page, clean ? VMEMI_PAGE_RETURN : VMEMI_PAGE_ARRIVE, old);
	if (!clean && vmemi_page_state(old) == VMEM_PAGE_CLEAN)
		vmemi_region_note_clean(r, 1, 0);
	vmemi_tally(!error || f->at ? &r->counters.faults_mapped
		    : f->write      ? &r->counters.faults_write
				    : &r->counters.faults_redundant,
		    1);
	return VMEMI_SERVED;
}

/* The page is in place: the fault was answered meanwhile. If that goes on, the mapping was lost: only
 * a discard past vmem_region_discard() does that, and it ends in an error, not in silent zeros.
 * UFFDIO_POISON tells which, because it fails where a page is. */
enum vmemi_served vmemi_serve_in_place(struct vmem_region *r, struct vmemi_fault *f)
{
	unsigned char *address = vmemi_region_page(r, f->page);
	uint64_t old;

	if (r->backing->one_frame)
		return map_too(r, f);
	if (r->foreign && vmemi_foreign_removed(r, f->page))
		return vmemi_foreign_again(r, f);
	vmemi_tally(&r->counters.faults_redundant, 1);
	vmemi_uffd_wake(r->uffd, address, VMEM_PAGE_SIZE);
	if (atomic_exchange(&r->redundant_page, f->page) != f->page) {
		atomic_store(&r->redundant_streak, 0);
		return VMEMI_SERVED;
	}
	if (atomic_fetch_add(&r->redundant_streak, 1) < REDUNDANT_LIMIT ||
	    !(r->host->features & VMEM_KERNEL_POISON) ||
	    !vmemi_region_step(r, f->page, VMEMI_PAGE_CLAIM, 0, &old))
		return VMEMI_SERVED;
	atomic_store(&r->redundant_streak, 0);
	if (!vmemi_uffd_poison(r->uffd, address, VMEM_PAGE_SIZE))
		return vmemi_serve_lose_claimed(r, f, old, -VMEM_EFAULT);
	vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
	vmemi_uffd_wake(r->uffd, address, VMEM_PAGE_SIZE);
	return VMEMI_SERVED;
}
