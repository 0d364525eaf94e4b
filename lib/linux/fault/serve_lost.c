/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages whose bytes are gone: a touch is an error, never zeros, and the VMM is told. See serve.c. */
#include "linux/backing/backing.h"
#include "linux/backing/peers.h"
#include "linux/fault/serve_parts.h"
#include "linux/foreign/foreign_events.h"

/* Puts an error in the place of a page that is not mapped. 0, -VMEM_EEXIST: it is; or why not. */
int vmemi_serve_put_mark(const struct vmem_region *r, const struct vmemi_at *at, uint64_t page)
{
	int error = vmemi_uffd_poison(at->uffd, vmemi_address(at, page), VMEM_PAGE_SIZE);

	/* What was protected in a file, and left, has another mark there instead of nothing. */
	if (error == -VMEM_EEXIST && r->backing->one_frame && !vmemi_serve_unlock(at, page))
		error = vmemi_uffd_poison(at->uffd, vmemi_address(at, page), VMEM_PAGE_SIZE);
	return error;
}

bool vmemi_serve_poison(struct vmem_region *r, uint64_t page)
{
	int error;

	if (!(r->host->features & VMEM_KERNEL_POISON))
		return true;
	error = vmemi_serve_put_mark(r, &r->own, page);
	return error != -VMEM_EAGAIN && error != -VMEM_ENOMEM;
}

/* A page is poisoned, and who has nothing there waits, or has not been woken: each mapping has an error of its own,
 * and a peer gets one when it asks. Repeated, the access fails. */
void vmemi_serve_meet_poison(struct vmem_region *r, const struct vmemi_fault *f)
{
	int error = 0;

	if (!(r->host->features & VMEM_KERNEL_POISON))
		return;
	if (r->foreign)
		vmemi_foreign_mark(r, f->page);
	else if (r->backing->one_frame)
		error = vmemi_serve_put_mark(r, vmemi_serve_at(r, f), f->page);
	if (f->at && error && error != -VMEM_EEXIST)
		vmemi_peer_failed(r->host, (struct vmem_peer *)(uintptr_t)f->at, error);
	vmemi_serve_wake(r, f);
}

void vmemi_serve_tell_lost(struct vmem_region *r, uint64_t page, int error)
{
	vmemi_tally(&r->counters.lost, 1);
	if (r->opts.on_lost)
		r->opts.on_lost(r->opts.context, vmemi_region_gpa(r, page), error);
}

/* The claimed page's bytes are gone; @old is its word before the claim. */
enum vmemi_served vmemi_serve_lose_claimed(struct vmem_region *r, struct vmemi_fault *f,
					   uint64_t old, int error)
{
	if (r->foreign) {
		enum vmemi_served served = vmemi_foreign_lose(r, f->page, error);

		if (served == VMEMI_PUT_OFF)
			vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return served;
	}
	if (!vmemi_serve_poison(r, f->page)) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	}
	vmemi_serve_tell_lost(r, f->page, error);
	if (f->at)
		vmemi_serve_meet_poison(r, f);
	vmemi_region_end(r, f->page, VMEMI_PAGE_LOSE, 0);
	return VMEMI_POISONED;
}

/* Ends the claim on a page that @error kept from arriving; @old is its word before the claim. */
enum vmemi_served vmemi_serve_failed(struct vmem_region *r, struct vmemi_fault *f, uint64_t old,
				     int error)
{
	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	}
	return vmemi_serve_lose_claimed(r, f, old, error);
}

bool vmemi_serve_give_up(struct vmem_region *r, struct vmemi_fault *f, int error)
{
	uint64_t old;

	if (!vmemi_serve_poison(r, f->page))
		return false;
	vmemi_serve_tell_lost(r, f->page, error);
	if (vmemi_region_step(r, f->page, VMEMI_PAGE_LOSE_LATE, 0, &old))
		f->late_ref = vmemi_page_ref(old);
	return true;
}

enum vmemi_served vmemi_serve_lose(struct vmem_region *r, uint64_t page, int error)
{
	struct vmemi_fault f = { .page = page };
	uint64_t old;

	vmemi_frames_force(&r->host->frames, 1); /* until it is known to hold none */
	if (!vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, &old)) {
		vmemi_frames_untake(&r->host->frames, 1);
		return VMEMI_PUT_OFF;
	}
	if (vmemi_page_state(old) == VMEM_PAGE_ABSENT)
		return vmemi_serve_lose_claimed(r, &f, old, error);
	vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
	return VMEMI_PUT_OFF;
}
