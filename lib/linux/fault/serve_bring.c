/* SPDX-License-Identifier: BSD-2-Clause */
/* A page that is away comes back: from staging, the store, or as zeros. See serve.c. */
#include "linux/backing/backing.h"
#include "linux/backing/peers.h"
#include "linux/fault/serve_parts.h"
#include "linux/region/dirty.h"

/* Installs a page that was away from @src. A read of a stored page leaves it clean: protected, its ref
 * kept, so that it can leave again for nothing. */
static enum vmemi_served install(struct vmem_region *r, struct vmemi_fault *f, uint64_t old,
				 const void *src)
{
	bool clean = vmemi_page_ref(old) && !f->write && r->can_write_protect &&
		     !atomic_load(&r->batching) && vmemi_region_prefers_clean(r);
	bool wp = vmemi_dirty_protects(r, f->page, f->write) || clean;
	size_t done;
	int error;

	/* What the kernel maps as zeros cannot be protected so that it asks. */
	if (!src && wp && !r->async_wp)
		src = r->host->zero_page;
	error = r->backing->fill(r, &r->own, f->page, 1, src, &wp, &done);
	if (error == -VMEM_EEXIST) {
		/* The guest has a page there: it counts, and who waits is woken. */
		vmemi_dirty_mark(r, f->page);
		vmemi_region_end(r, f->page, VMEMI_PAGE_ARRIVE, 0);
		vmemi_serve_wake(r, f);
		vmemi_tally(&r->counters.faults_redundant, f->demand);
		return VMEMI_SERVED;
	}
	if (error)
		return vmemi_serve_failed(r, f, old, error);
	if (f->at)
		wp &= vmemi_peer_map(r, f->at, f->page, wp);
	if (!wp)
		vmemi_dirty_mark(r, f->page);
	clean &= wp;
	vmemi_serve_note(r, f);
	vmemi_region_end(r, f->page, clean ? VMEMI_PAGE_ARRIVE_CLEAN : VMEMI_PAGE_ARRIVE, 0);
	vmemi_serve_count(r, f, vmemi_page_state(old));
	return VMEMI_SERVED;
}

static enum vmemi_served bring_stored(struct vmem_region *r, struct vmemi_fault *f, uint64_t old)
{
	unsigned char *buffer = vmemi_host_buffer(r->host);
	enum vmemi_served served;
	int error;

	if (!buffer) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	}
	error = vmem_store_load(r->host->store, r->vm, vmemi_region_key(r, f->page),
				vmemi_page_ref(old), buffer, f->take_slow ? &f->token : NULL);
	if (error == -VMEM_EINPROGRESS) {
		f->buffer = buffer;
		return VMEMI_LOADING;
	}
	if (!error) {
		served = install(r, f, old, buffer);
	} else if (error == -VMEM_EAGAIN) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		served = f->take_slow ? VMEMI_PUT_OFF : VMEMI_SLOW;
	} else {
		served = vmemi_serve_lose_claimed(r, f, old, error);
	}
	vmemi_host_buffer_return(r->host, buffer);
	return served;
}

/* Brings back a claimed page by giving it its old frame: slower, but it needs no other. */
static enum vmemi_served move_back(struct vmem_region *r, struct vmemi_fault *f, uint64_t old)
{
	int error;

	vmemi_dirty_mark(r, f->page); /* it comes writable */
	error = vmemi_private_move_back(r, f->page);
	if (error < 0) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_NO_FRAME;
	}
	vmemi_serve_note(r, f);
	if (error)
		vmemi_serve_wake(r, f);
	vmemi_region_end(r, f->page, error ? VMEMI_PAGE_ARRIVE : VMEMI_PAGE_ARRIVE_MOVED, 0);
	vmemi_serve_count(r, f, VMEM_PAGE_STAGED);
	return VMEMI_SERVED;
}

static bool can_move_back(const struct vmem_region *r, uint64_t word)
{
	return (r->host->features & VMEM_KERNEL_MOVE) &&
	       vmemi_page_state(word) == VMEM_PAGE_STAGED && !(word & VMEMI_PAGE_READING);
}

/* Brings back a claimed page that never lost its frame. */
static enum vmemi_served come_back(struct vmem_region *r, struct vmemi_fault *f, uint64_t old)
{
	bool wp = vmemi_dirty_protects(r, f->page, f->write);
	size_t done;
	int error;

	error = r->backing->unstage(r, &r->own, f->page, 1, wp, &done);
	if (error == -VMEM_EEXIST) { /* it is mapped, perhaps protected */
		vmemi_dirty_mark(r, f->page);
		error = vmemi_serve_unlock(&r->own, f->page);
	}
	if (error == -VMEM_EFAULT && vmemi_page_state(old) == VMEM_PAGE_STORED) {
		/* The file has lost it, the store has it: reclaim will see that its frame is gone. */
		vmemi_host_kick_reclaim(r->host);
		error = -VMEM_EAGAIN;
	}
	if (error)
		return vmemi_serve_failed(r, f, old, error);
	if (f->at && !vmemi_peer_map(r, f->at, f->page, wp))
		vmemi_dirty_mark(r, f->page);
	vmemi_serve_note(r, f);
	vmemi_backing_returned(r, f->page, old);
	vmemi_serve_count(r, f, VMEM_PAGE_STAGED);
	return VMEMI_SERVED;
}

/* Claims a page that is away and brings it back. */
enum vmemi_served vmemi_serve_bring(struct vmem_region *r, struct vmemi_fault *f, uint64_t word)
{
	struct vmemi_frames *frames = &r->host->frames;
	uint64_t old,
		floor = atomic_load(f->demand ? &frames->floor_bytes : &frames->reserve_bytes);
	bool move = false, has_frame = vmemi_backing_has_frame(r, word);

	if (has_frame) {
		vmemi_frames_force(frames, 1);
	} else if (f->own_frame || !vmemi_frames_take(frames, 1,
						      f->force    ? 0
						      : f->demand ? floor
								  : floor / 2)) {
		if (f->force || (f->demand && can_move_back(r, word))) {
			move = !f->force;
			vmemi_frames_force(frames, 1);
		} else {
			/* Who waits already has done it; and what is stuck looks by itself. */
			if (!f->own_frame && !atomic_load(&r->host->stuck))
				vmemi_host_kick_reclaim(r->host);
			return VMEMI_NO_FRAME;
		}
	}
	if (vmemi_frames_free(frames) < atomic_load(&frames->reserve_bytes))
		vmemi_host_kick_reclaim(r->host);
	if (!vmemi_region_step(r, f->page, VMEMI_PAGE_FETCH, 0, &old)) {
		vmemi_frames_untake(frames, 1);
		return VMEMI_PUT_OFF;
	}
	if (vmemi_backing_has_frame(r, old))
		return come_back(r, f, old);
	if (move && can_move_back(r, old))
		return move_back(r, f, old);
	switch (vmemi_page_state(old)) {
	case VMEM_PAGE_ABSENT:
		return install(r, f, old,
			       f->write && !r->backing->one_frame ? r->host->zero_page : NULL);
	case VMEM_PAGE_STAGED:
	case VMEM_PAGE_STORING: return install(r, f, old, vmemi_region_place(r, f->page));
	case VMEM_PAGE_STORED: return bring_stored(r, f, old);
	case VMEM_PAGE_SOURCE: /* it was absent a moment ago */
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	default: return vmemi_serve_lose_claimed(r, f, old, -VMEM_EIO);
	}
}

enum vmemi_served vmemi_serve_loaded(struct vmem_region *r, struct vmemi_fault *f, int error)
{
	enum vmemi_served served;
	uint64_t ref = vmemi_page_ref(vmemi_region_word(r, f->page));
	uint64_t old = vmemi_page_word(VMEM_PAGE_STORED, 0, ref);

	if (f->late_ref) {
		vmem_store_drop(r->host->store, r->vm, f->late_ref);
		served = VMEMI_POISONED;
	} else if (error) {
		served = vmemi_serve_lose_claimed(r, f, old, error);
	} else {
		served = install(r, f, old, f->buffer);
	}
	vmemi_host_buffer_return(r->host, f->buffer);
	f->buffer = NULL;
	return served;
}
