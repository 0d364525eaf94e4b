/* SPDX-License-Identifier: BSD-2-Clause */
/* Serving one fault: see serve.h. A fault first claims its page (ARRIVING), then changes the mapping,
 * then ends the claim; whoever loses the race for the claim is told to come again. */
#include "linux/fault/serve.h"
#include "linux/region/dirty.h"
#include "linux/fault/source.h"
#include "linux/backing/peers.h"
#include "linux/backing/backing.h"
#include "linux/foreign/foreign_events.h"

/* A page that is in place and still faults this often in a row has lost its mapping behind our back. */
#define REDUNDANT_LIMIT 64
#define WAIT_NS 10000000
#define GIVE_UP_NS 1000000000

static const struct vmemi_at *at_of(const struct vmem_region *r, const struct vmemi_fault *f)
{
	return f->at ? f->at : &r->own;
}

static void wake(const struct vmem_region *r, const struct vmemi_fault *f)
{
	const struct vmemi_at *at = at_of(r, f);

	vmemi_uffd_wake(at->uffd, vmemi_address(at, f->page), VMEM_PAGE_SIZE);
}

static int unlock(const struct vmemi_at *at, uint64_t page)
{
	return vmemi_uffd_protect(at->uffd, vmemi_address(at, page), VMEM_PAGE_SIZE, false);
}

/* Somebody waits for this page: the one sample of accesses that costs nothing. Said before the change
 * of state that comes of it: see ages.h. */
static void note_access(struct vmem_region *r, const struct vmemi_fault *f)
{
	if (f->demand)
		vmemi_page_set_add(&r->ages.accessed, f->page);
}

void vmemi_serve_count(struct vmem_region *r, struct vmemi_fault *f, enum vmem_page_state from)
{
	struct vmemi_region_counters *c = &r->counters;

	if (!f->demand) {
		vmemi_tally(&c->prefetched, 1);
		vmemi_touched(&r->touches, f->page); /* it is going to be, without a fault */
		return;
	}
	if (from == VMEM_PAGE_ABSENT)
		vmemi_tally(&c->faults_zero, 1);
	else if (from == VMEM_PAGE_STORED)
		vmemi_tally(&c->faults_stored, 1);
	else if (from == VMEM_PAGE_SOURCE)
		vmemi_tally(&c->faults_source, 1);
	else
		vmemi_tally(&c->faults_staged, 1);
}

/* Puts an error in the place of a page that is not mapped. 0, -VMEM_EEXIST: it is; or why not. */
static int put_mark(const struct vmem_region *r, const struct vmemi_at *at, uint64_t page)
{
	int error = vmemi_uffd_poison(at->uffd, vmemi_address(at, page), VMEM_PAGE_SIZE);

	/* What was protected in a file, and left, has another mark there instead of nothing. */
	if (error == -VMEM_EEXIST && r->backing->one_frame && !unlock(at, page))
		error = vmemi_uffd_poison(at->uffd, vmemi_address(at, page), VMEM_PAGE_SIZE);
	return error;
}

bool vmemi_serve_poison(struct vmem_region *r, uint64_t page)
{
	int error;

	if (!(r->host->features & VMEM_KERNEL_POISON))
		return true;
	error = put_mark(r, &r->own, page);
	return error != -VMEM_EAGAIN && error != -VMEM_ENOMEM;
}

/* A page is poisoned, and who has nothing there waits, or has not been woken: each mapping has an error of its own,
 * and a peer gets one when it asks. Repeated, the access fails. */
static void meet_poison(struct vmem_region *r, const struct vmemi_fault *f)
{
	int error = 0;

	if (!(r->host->features & VMEM_KERNEL_POISON))
		return;
	if (r->backing->one_frame)
		error = put_mark(r, at_of(r, f), f->page);
	if (f->at && error && error != -VMEM_EEXIST)
		vmemi_peer_failed(r->host, (struct vmem_peer *)(uintptr_t)f->at, error);
	wake(r, f);
}

void vmemi_serve_tell_lost(struct vmem_region *r, uint64_t page, int error)
{
	vmemi_tally(&r->counters.lost, 1);
	if (r->opts.on_lost)
		r->opts.on_lost(r->opts.context, vmemi_region_gpa(r, page), error);
}

/* The claimed page's bytes are gone; @old is its word before the claim. */
static enum vmemi_served lose(struct vmem_region *r, struct vmemi_fault *f, uint64_t old, int error)
{
	if (!vmemi_serve_poison(r, f->page)) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	}
	vmemi_serve_tell_lost(r, f->page, error);
	if (f->at)
		meet_poison(r, f);
	vmemi_region_end(r, f->page, VMEMI_PAGE_LOSE, 0);
	return VMEMI_POISONED;
}

/* Ends the claim on a page that @error kept from arriving; @old is its word before the claim. */
static enum vmemi_served failed(struct vmem_region *r, struct vmemi_fault *f, uint64_t old,
				int error)
{
	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	}
	return lose(r, f, old, error);
}

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
	clean &= wp;
	if (error == -VMEM_EEXIST) {
		/* The guest has a page there: it counts, and who waits is woken. */
		vmemi_dirty_mark(r, f->page);
		vmemi_region_end(r, f->page, VMEMI_PAGE_ARRIVE, 0);
		wake(r, f);
		vmemi_tally(&r->counters.faults_redundant, f->demand);
		return VMEMI_SERVED;
	}
	if (error)
		return failed(r, f, old, error);
	if (f->at)
		clean &= vmemi_peer_map(r, f->at, f->page, clean);
	note_access(r, f);
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
		served = lose(r, f, old, error);
	}
	vmemi_host_buffer_return(r->host, buffer);
	return served;
}

/* Brings back a claimed page by giving it its old frame: slower, but it needs no other. */
static enum vmemi_served move_back(struct vmem_region *r, struct vmemi_fault *f, uint64_t old)
{
	size_t done;
	int error;

	vmemi_dirty_mark(r, f->page); /* it comes writable */
	error = vmemi_uffd_move(r->uffd, vmemi_region_page(r, f->page),
				vmemi_region_place(r, f->page), VMEM_PAGE_SIZE, &done);
	if (error) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_NO_FRAME;
	}
	note_access(r, f);
	vmemi_region_end(r, f->page, VMEMI_PAGE_ARRIVE_MOVED, 0);
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
	size_t done;
	int error;

	error = r->backing->unstage(r, &r->own, f->page, 1, &done);
	if (error == -VMEM_EEXIST) /* it is mapped, perhaps protected */
		error = unlock(&r->own, f->page);
	if (error == -VMEM_EFAULT && vmemi_page_state(old) == VMEM_PAGE_STORED) {
		/* The file has lost it, the store has it: reclaim will see that its frame is gone. */
		vmemi_host_kick_reclaim(r->host);
		error = -VMEM_EAGAIN;
	}
	if (error)
		return failed(r, f, old, error);
	if (f->at)
		vmemi_peer_map(r, f->at, f->page, false);
	note_access(r, f);
	vmemi_backing_returned(r, f->page, old);
	vmemi_serve_count(r, f, VMEM_PAGE_STAGED);
	return VMEMI_SERVED;
}

/* Claims a page that is away and brings it back. */
static enum vmemi_served bring(struct vmem_region *r, struct vmemi_fault *f, uint64_t word)
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
	default: return lose(r, f, old, -VMEM_EIO);
	}
}

/* A write to a protected page that is in place: it becomes writable, and its ref is stale. */
static enum vmemi_served unprotect(struct vmem_region *r, struct vmemi_fault *f)
{
	uint64_t old;
	int error = 0;

	if (!vmemi_region_step(r, f->page, VMEMI_PAGE_CLAIM, 0, &old))
		return VMEMI_PUT_OFF;
	vmemi_dirty_mark(r, f->page);
	if (f->at)
		vmemi_peer_map(r, f->at, f->page, false);
	else
		error = unlock(&r->own, f->page);
	if (error) {
		vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
		return VMEMI_PUT_OFF;
	}
	note_access(r, f);
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
		return failed(r, f, old, error);
	if (put_mark(r, &r->own, f->page) != -VMEM_EEXIST)
		return lose(r, f, old, -VMEM_EFAULT);
	vmemi_region_end(r, f->page, VMEMI_PAGE_ARRIVE, 0); /* it is writable now */
	wake(r, f);
	return VMEMI_SERVED;
}

/* The page is in place, but this mapping has not touched it since it came; or it has, meanwhile. */
static enum vmemi_served map_too(struct vmem_region *r, struct vmemi_fault *f)
{
	bool clean;
	uint64_t old;
	int error, unprotected = 0;

	if (!vmemi_region_step(r, f->page, VMEMI_PAGE_CLAIM, 0, &old))
		return VMEMI_PUT_OFF;
	clean = vmemi_page_state(old) == VMEM_PAGE_CLEAN && !f->write;
	error = vmemi_file_map(r, &r->own, f->page, &clean);
	if (error < 0)
		return not_mapped(r, f, old, error);
	if (f->at)
		clean &= vmemi_peer_map(r, f->at, f->page, clean);
	else if (error == 1 && f->write)
		unprotected = unlock(&r->own, f->page);
	else if (error == 1)
		wake(r, f);
	if (unprotected)
		return failed(r, f, old, unprotected);
	note_access(r, f);
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
static enum vmemi_served redundant(struct vmem_region *r, struct vmemi_fault *f)
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
		return lose(r, f, old, -VMEM_EFAULT);
	vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
	vmemi_uffd_wake(r->uffd, address, VMEM_PAGE_SIZE);
	return VMEMI_SERVED;
}

enum vmemi_served vmemi_serve(struct vmem_region *r, struct vmemi_fault *f)
{
	uint64_t word = vmemi_region_word(r, f->page);
	bool leaving = word & VMEMI_PAGE_LEAVING;

	if (f->demand)
		vmemi_touched(&r->touches, f->page);
	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED:
		return f->kind == VMEMI_FAULT_PROTECTED ? unprotect(r, f) : redundant(r, f);
	case VMEM_PAGE_ARRIVING:
		return vmemi_source_joins(r, f->page, f->write) ? VMEMI_ASKED : VMEMI_PUT_OFF;
	case VMEM_PAGE_POISONED:
		/* Who found nothing there before it was poisoned may have come to wait only after that. */
		meet_poison(r, f);
		return VMEMI_POISONED;
	default:
		if (leaving)
			return VMEMI_PUT_OFF;
		if (f->kind == VMEMI_FAULT_PROTECTED && !vmemi_backing_has_frame(r, word)) {
			/* It has left since. The access is repeated, and faults as missing. */
			wake(r, f);
			return VMEMI_SERVED;
		}
		if (vmemi_page_state(word) == VMEM_PAGE_SOURCE) {
			vmemi_source_want(r, f->page, f->write);
			return VMEMI_ASKED;
		}
		return bring(r, f, word);
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
		served = lose(r, f, old, error);
	} else {
		served = install(r, f, old, f->buffer);
	}
	vmemi_host_buffer_return(r->host, f->buffer);
	f->buffer = NULL;
	return served;
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
		return lose(r, &f, old, error);
	vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
	return VMEMI_PUT_OFF;
}

/* Whether reclaim has been stuck for a second. */
static bool is_hopeless(struct vmemi_host *host, uint64_t *stuck_since_ns)
{
	uint64_t now = host->k->clock_ns();

	if (!atomic_load(&host->stuck))
		*stuck_since_ns = 0;
	else if (!*stuck_since_ns)
		*stuck_since_ns = now;
	else
		return now - *stuck_since_ns >= GIVE_UP_NS;
	return false;
}

bool vmemi_serve_wait_for_frame(struct vmemi_host *host, uint32_t sequence,
				uint64_t *stuck_since_ns)
{
	bool (*make_room)(struct vmemi_host *) = atomic_load(&host->make_room);

	if (is_hopeless(host, stuck_since_ns))
		return false;
	if (!make_room || !make_room(host))
		vmemi_frames_wait(&host->frames, sequence, WAIT_NS);
	return true;
}

/* The same for a fault, which is told to others. In a signal handler it can only wait for good. */
static bool stall(struct vmem_region *r, struct vmemi_fault *f, uint32_t sequence,
		  uint64_t *stuck_since_ns)
{
	struct vmemi_host *host = r->host;
	uint64_t start = host->k->clock_ns(), waited;
	bool go_on = true;

	if (f->may_reclaim)
		go_on = vmemi_serve_wait_for_frame(host, sequence, stuck_since_ns);
	else
		vmemi_frames_wait(&host->frames, sequence, WAIT_NS);
	waited = host->k->clock_ns() - start;
	vmemi_tally(&r->counters.stall_ns, waited);
	vmemi_tally(&host->stall_ns, waited);
	return go_on;
}

void vmemi_serve_want(struct vmem_region *r, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << page % 64;

	if (atomic_fetch_or(&r->wanted[page / 64], bit) & bit)
		return;
	atomic_store(&r->any_wanted, 1);
	vmemi_host_kick_faults(r->host);
}

/* In a signal handler only others may serve. */
static void wait_for_others(struct vmemi_host *host, const struct vmemi_fault *f)
{
	if (f->may_reclaim)
		vmemi_host_wait(host);
	else
		vmemi_relax(host->env);
}

static uint64_t block(struct vmem_region *r)
{
	uint64_t now = r->host->k->clock_ns();

	vmemi_pressure_begin(&r->pressure, now);
	return now;
}

/* Waits for what keeps a fault from being served. False: there is no frame to be had. */
static bool wait_for(struct vmem_region *r, struct vmemi_fault *f, enum vmemi_served why,
		     uint32_t sequence, uint64_t *stuck_since_ns)
{
	if (why == VMEMI_NO_FRAME)
		return stall(r, f, sequence, stuck_since_ns);
	if (why == VMEMI_ASKED && f->may_reclaim && is_hopeless(r->host, stuck_since_ns) &&
	    vmemi_page_state(vmemi_region_word(r, f->page)) == VMEM_PAGE_SOURCE)
		return false; /* that waits for a frame, too */
	if (why == VMEMI_SLOW)
		vmemi_serve_want(r, f->page);
	wait_for_others(r->host, f);
	return true;
}

enum vmemi_served vmemi_serve_wait(struct vmem_region *r, struct vmemi_fault *f)
{
	struct vmemi_host *host = r->host;
	/* Two looks at the clock are too much for a signal that does not wait. */
	uint64_t stuck_since_ns = 0, began_ns = f->may_reclaim ? block(r) : 0;
	enum vmemi_served served;
	bool stalled = false;
	uint32_t sequence;

	for (;;) {
		sequence = atomic_load(&host->frames.sequence);
		served = vmemi_serve(r, f);
		if (served == VMEMI_SERVED || served == VMEMI_POISONED)
			break;
		if (!began_ns)
			began_ns = block(r);
		if (served == VMEMI_NO_FRAME && !stalled) {
			vmemi_tally(&r->counters.stalls, 1);
			vmemi_tally(&host->stalls, 1);
			stalled = true;
		}
		if (!wait_for(r, f, served, sequence, &stuck_since_ns)) {
			served = VMEMI_NO_FRAME;
			break;
		}
	}
	if (began_ns) {
		uint64_t now = host->k->clock_ns();

		vmemi_pressure_end(&r->pressure, began_ns, now);
		f->waited_ns = now - began_ns;
	}
	return served;
}
