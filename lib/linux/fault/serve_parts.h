/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that serve a fault share: for serve.c and serve_*.c alone. */
#ifndef VMEMI_SERVE_PARTS_H
#define VMEMI_SERVE_PARTS_H
#include "linux/fault/serve.h"

static inline const struct vmemi_at *vmemi_serve_at(const struct vmem_region *r,
						    const struct vmemi_fault *f)
{
	return f->at ? f->at : &r->own;
}

static inline void vmemi_serve_wake(const struct vmem_region *r, const struct vmemi_fault *f)
{
	const struct vmemi_at *at = vmemi_serve_at(r, f);

	vmemi_uffd_wake(at->uffd, vmemi_address(at, f->page), VMEM_PAGE_SIZE);
}

static inline int vmemi_serve_unlock(const struct vmemi_at *at, uint64_t page)
{
	return vmemi_uffd_protect(at->uffd, vmemi_address(at, page), VMEM_PAGE_SIZE, false);
}

/* Somebody waits for this page: the one sample of accesses that costs nothing. Said before the change
 * of state that comes of it: see ages.h. */
static inline void vmemi_serve_note(struct vmem_region *r, const struct vmemi_fault *f)
{
	if (f->demand)
		vmemi_page_set_add(&r->ages.accessed, f->page);
}

/* A page that is away comes back, if there is a frame: serve_bring.c. @word: what it was a moment ago. */
enum vmemi_served vmemi_serve_bring(struct vmem_region *r, struct vmemi_fault *f, uint64_t word);

/* The page is in place: serve_in_place.c. */
/* A write to it, where it is protected. */
enum vmemi_served vmemi_serve_protected(struct vmem_region *r, struct vmemi_fault *f);
/* Any other access. */
enum vmemi_served vmemi_serve_in_place(struct vmem_region *r, struct vmemi_fault *f);

/* Its bytes are gone: serve_lost.c. */
/* Puts an error in the place of a page that is not mapped. 0, -VMEM_EEXIST: it is; or why not. */
int vmemi_serve_put_mark(const struct vmem_region *r, const struct vmemi_at *at, uint64_t page);
/* The page is poisoned already. */
void vmemi_serve_meet_poison(struct vmem_region *r, const struct vmemi_fault *f);
/* Ends the claim on a page whose bytes are gone; @old: its word before the claim. */
enum vmemi_served vmemi_serve_lose_claimed(struct vmem_region *r, struct vmemi_fault *f,
					   uint64_t old, int error);
/* Ends the claim on a page that @error kept from arriving: for now, or for good. */
enum vmemi_served vmemi_serve_failed(struct vmem_region *r, struct vmemi_fault *f, uint64_t old,
				     int error);

#endif
