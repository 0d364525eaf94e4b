/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages whose bytes are with the caller: see source.h.
 *
 * A load has an entry in its region's table from before the page is claimed until that claim is ended. Who
 * turns an entry from LOADING to ENDING ends the load: the thread whose call of read_source() has returned,
 * vmem_region_source_done(), or whoever finds that its time is up; the others find it gone. An entry is
 * used again only when the call has returned, too. Guard: host->source_lock, never held while the caller's
 * functions run or bytes are copied. */
#include "linux/backing/backing.h"
#include "linux/fault/source.h"
#include "base/mem.h"
#include "linux/fault/serve.h"
#include "linux/region/dirty.h"
#include <limits.h>
#include <vmem/source.h>

enum load_state {
	LOAD_IDLE,
	LOAD_CLAIMING, /* its page is not ours yet */
	LOAD_LOADING,  /* the caller has been asked */
	LOAD_ENDING,   /* somebody is at it */
	LOAD_PEEKED    /* the bytes are with who reads without making it resident */
};

struct load {
	uint64_t page;
	uint64_t began_ns;
	enum load_state state;
	bool calling;        /* read_source() has not returned */
	unsigned char *peek; /* where the bytes go instead; NULL: into the guest */
	int error;           /* of a peek that is over */
};

struct vmemi_source {
	struct vmemi_page_set wanted;
	_Atomic uint64_t *written;   /* bitmap: wanted for writing; atomic, a hint */
	_Atomic uint64_t *loading;   /* bitmap: who waits for it will be woken; atomic */
	_Atomic uint32_t any_wanted; /* atomic */
	_Atomic uint32_t under_way;  /* atomic; loads that are LOADING */
	_Atomic uint64_t stalled_ns; /* atomic; since when there is no frame; 0: there is */
	uint64_t hand;               /* group of pages to look at next; the lock */
	struct load load[VMEMI_SOURCE_LOADS];
};

static size_t bitmap_bytes(const struct vmem_region *r)
{
	return (size_t)(r->pages + 63) / 64 * sizeof(uint64_t);
}

int vmemi_source_new(struct vmem_region *r)
{
	const struct vmem_allocator *a = &r->host->metadata.allocator;
	struct vmemi_source *s = vmemi_zalloc(a, sizeof(*s), 64);

	if (!s)
		return -VMEM_ENOMEM;
	r->source = s;
	s->written = vmemi_zalloc(a, bitmap_bytes(r), 64);
	s->loading = vmemi_zalloc(a, bitmap_bytes(r), 64);
	if (s->written && s->loading && !vmemi_page_set_init(&s->wanted, a, r->pages))
		return 0;
	vmemi_source_free(r);
	return -VMEM_ENOMEM;
}

void vmemi_source_free(struct vmem_region *r)
{
	const struct vmem_allocator *a = &r->host->metadata.allocator;
	struct vmemi_source *s = r->source;

	if (!s)
		return;
	vmemi_page_set_destroy(&s->wanted, a);
	vmemi_free(a, s->written, bitmap_bytes(r), 64);
	vmemi_free(a, s->loading, bitmap_bytes(r), 64);
	vmemi_free(a, s, sizeof(*s), 64);
	r->source = NULL;
}

static void set_bit(_Atomic uint64_t *bitmap, uint64_t page)
{
	atomic_fetch_or(&bitmap[page / 64], UINT64_C(1) << page % 64);
}

/* Returns whether it was set. */
static bool clear_bit(_Atomic uint64_t *bitmap, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << page % 64;

	return atomic_fetch_and(&bitmap[page / 64], ~bit) & bit;
}

static void kick(struct vmemi_host *host)
{
	atomic_fetch_add(&host->source_work, 1);
	if (atomic_load(&host->serve_faults)) /* no thread: who steps is told */
		vmemi_host_kick_faults(host);
	else
		host->k->futex_wake(&host->source_work, INT_MAX);
}

static void want_again(struct vmem_region *r, uint64_t page)
{
	vmemi_page_set_add(&r->source->wanted, page);
	atomic_store(&r->source->any_wanted, 1);
}

void vmemi_source_want(struct vmem_region *r, uint64_t page, bool write)
{
	if (write)
		set_bit(r->source->written, page);
	want_again(r, page);
	kick(r->host);
}

bool vmemi_source_joins(struct vmem_region *r, uint64_t page, bool write)
{
	struct vmemi_source *s = r->source;

	if (!s || !(atomic_load(&s->loading[page / 64]) >> page % 64 & 1))
		return false;
	if (write)
		set_bit(s->written, page);
	return true;
}

/* --- The end of a load --- */

static bool passes(int error)
{
	return error == -VMEM_EAGAIN || error == -VMEM_ENOMEM;
}

static int lose(struct vmem_region *r, uint64_t page, int error)
{
	if (!vmemi_serve_poison(r, page))
		return -VMEM_EAGAIN;
	vmemi_serve_tell_lost(r, page, error);
	vmemi_region_end(r, page, VMEMI_PAGE_LOSE, 0);
	return 0;
}

/* A page that was only read may be dropped and asked for again, if its source has promised that. */
static bool stays_clean(struct vmem_region *r, uint64_t page)
{
	bool write = clear_bit(r->source->written, page);

	return (r->opts.flags & VMEM_REGION_SOURCE_STAYS) && !write && r->can_write_protect &&
	       !atomic_load(&r->batching);
}

/* Ends the claim on a page with its bytes or an error. -VMEM_EAGAIN: not now; the claim stays. */
static int install(struct vmem_region *r, uint64_t page, const void *data, int error)
{
	struct vmemi_fault f = { .page = page, .demand = true };
	unsigned char *dst = vmemi_region_page(r, page);
	bool clean;
	size_t done;

	/* From here on it is not said any more that a wake-up is to come: this is it. */
	clear_bit(r->source->loading, page);
	if (error)
		return lose(r, page, error);
	clean = stays_clean(r, page);
	if (!clean)
		vmemi_dirty_mark(r, page);
	error = r->backing->fill(r, &r->own, page, 1, data, &clean, &done);
	if (error == -VMEM_EEXIST) {
		vmemi_dirty_mark(r, page); /* what is there may be writable */
		vmemi_region_end(r, page, VMEMI_PAGE_ARRIVE, 0);
		vmemi_uffd_wake(r->uffd, dst, VMEM_PAGE_SIZE);
		vmemi_tally(&r->counters.faults_redundant, 1);
		return 0;
	}
	if (passes(error))
		return -VMEM_EAGAIN;
	if (error)
		return lose(r, page, error);
	vmemi_page_set_add(&r->ages.accessed, page);
	vmemi_region_end(r, page, clean ? VMEMI_PAGE_ARRIVE_CLEAN : VMEMI_PAGE_ARRIVE, 0);
	vmemi_serve_count(r, &f, VMEM_PAGE_SOURCE);
	return 0;
}

/* The caller has made @l ENDING. Its entry goes on as @state. */
static void leave(struct vmem_region *r, struct load *l, enum load_state state)
{
	vmemi_lock(&r->host->source_lock);
	l->state = state;
	if (state == LOAD_LOADING)
		atomic_fetch_add(&r->source->under_way, 1);
	vmemi_unlock(&r->host->source_lock);
}

/* Makes a LOADING entry the caller's to end. The lock is held. */
static void enter(struct vmem_region *r, struct load *l)
{
	l->state = LOAD_ENDING;
	atomic_fetch_sub(&r->source->under_way, 1);
}

/* The end of @l, which is ENDING. 0, -VMEM_EAGAIN (it is LOADING as before). */
static int end_load(struct vmem_region *r, struct load *l, const void *data, int error)
{
	uint64_t began_ns = l->began_ns;

	if (l->peek) {
		if (!error && data != l->peek)
			memcpy(l->peek, data, VMEM_PAGE_SIZE);
		l->error = error;
		leave(r, l, LOAD_PEEKED);
		return 0;
	}
	if (install(r, l->page, data, error)) {
		leave(r, l, LOAD_LOADING);
		return -VMEM_EAGAIN;
	}
	vmemi_latency_add(&r->latency, r->host->k->clock_ns() - began_ns);
	leave(r, l, LOAD_IDLE);
	return 0;
}

static bool too_late(const struct vmem_region *r, const struct load *l, uint64_t now)
{
	return now - l->began_ns >= r->opts.fault_deadline_ms * 1000000;
}

/* Finds a load of @r by what @now says is too late. */
static struct load *find_late(struct vmem_region *r, uint64_t now)
{
	for (unsigned i = 0; i < VMEMI_SOURCE_LOADS; i++)
		if (r->source->load[i].state == LOAD_LOADING &&
		    too_late(r, &r->source->load[i], now))
			return &r->source->load[i];
	return NULL;
}

void vmemi_source_give_up(struct vmemi_host *host)
{
	uint32_t slots = atomic_load(&host->region_slots);
	uint64_t now = 0;

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r;
		struct load *l = NULL;

		vmemi_lock(&host->source_lock);
		r = atomic_load(&host->regions[i]);
		if (r && r->source && atomic_load(&r->source->under_way)) {
			now = now ? now : host->k->clock_ns();
			l = find_late(r, now);
			if (l)
				enter(r, l);
		}
		vmemi_unlock(&host->source_lock);
		if (l && !end_load(r, l, NULL, -VMEM_EIO))
			i--; /* perhaps there are more */
	}
}

int vmem_region_source_done(vmem_region *region, uint64_t gpa, const void *data, int error)
{
	uint64_t page, count;
	struct load *l = NULL;

	if (!region->source || gpa % VMEM_PAGE_SIZE || error > 0 || (!error && !data))
		return -VMEM_EINVAL;
	if (vmemi_region_span(region, gpa, VMEM_PAGE_SIZE, false, &page, &count))
		return -VMEM_ERANGE;
	vmemi_lock(&region->host->source_lock);
	for (unsigned i = 0; i < VMEMI_SOURCE_LOADS && !l; i++)
		if (region->source->load[i].state == LOAD_LOADING &&
		    region->source->load[i].page == page)
			l = &region->source->load[i];
	if (l)
		enter(region, l);
	vmemi_unlock(&region->host->source_lock);
	return l ? end_load(region, l, data, error) : -VMEM_ENOENT;
}

/* --- Asking --- */

/* The lock is held. */
static struct load *free_entry(struct vmemi_source *s)
{
	for (unsigned i = 0; i < VMEMI_SOURCE_LOADS; i++)
		if (s->load[i].state == LOAD_IDLE && !s->load[i].calling)
			return &s->load[i];
	return NULL;
}

static void take_entry(struct load *l, uint64_t page, unsigned char *peek)
{
	*l = (struct load){ .page = page, .peek = peek, .state = LOAD_CLAIMING, .calling = true };
}

/* Calls the caller's function, whose answer, if it is one, goes where the load's goes. */
static void call(struct vmem_region *r, struct load *l, unsigned char *buffer)
{
	struct vmemi_host *host = r->host;
	int error;
	bool mine;

	vmemi_lock(&host->source_lock);
	l->began_ns = host->k->clock_ns();
	l->state = LOAD_LOADING;
	atomic_fetch_add(&r->source->under_way, 1);
	vmemi_unlock(&host->source_lock);
	error = r->opts.read_source(r->opts.context, vmemi_region_gpa(r, l->page), buffer);
	for (;;) {
		vmemi_lock(&host->source_lock);
		/* Otherwise it was ended meanwhile, or is being. */
		mine = l->state == LOAD_LOADING && error != -VMEM_EINPROGRESS;
		if (mine)
			enter(r, l);
		else
			l->calling = false;
		vmemi_unlock(&host->source_lock);
		if (!mine)
			return;
		if (end_load(r, l, buffer, error > 0 ? -VMEM_EIO : error))
			vmemi_relax(host->env); /* the kernel has no memory: once more */
	}
}

static void drop_entry(struct vmem_region *r, struct load *l)
{
	vmemi_lock(&r->host->source_lock);
	l->state = LOAD_IDLE;
	l->calling = false;
	vmemi_unlock(&r->host->source_lock);
}

/* As for a fault by somebody who waits. */
static bool take_frame(struct vmem_region *r)
{
	struct vmemi_frames *f = &r->host->frames;
	bool taken = true;

	if (atomic_load(&r->restoring))
		vmemi_frames_force(f, 1);
	else
		taken = vmemi_frames_take(f, 1, atomic_load(&f->floor_bytes));
	if (!taken || vmemi_frames_free(f) < atomic_load(&f->reserve_bytes))
		vmemi_host_kick_reclaim(r->host);
	return taken;
}

/* All that is wanted of a region waits together: that is one stall. */
static void note_stall(struct vmem_region *r, bool stalled)
{
	uint64_t now = r->host->k->clock_ns(), since = 0;

	if (stalled) {
		if (atomic_compare_exchange_strong(&r->source->stalled_ns, &since, now)) {
			vmemi_tally(&r->counters.stalls, 1);
			vmemi_tally(&r->host->stalls, 1);
		}
		return;
	}
	since = atomic_exchange(&r->source->stalled_ns, 0);
	if (since && now > since) {
		vmemi_tally(&r->counters.stall_ns, now - since);
		vmemi_tally(&r->host->stall_ns, now - since);
	}
}

/* Claims a wanted page, with a frame. 0; -VMEM_EAGAIN: not now; -VMEM_ENOENT: its bytes are not with the
 * source. */
static int claim(struct vmem_region *r, uint64_t page)
{
	uint64_t word = vmemi_region_word(r, page), old;
	bool frame;

	if (vmemi_page_state(word) != VMEM_PAGE_SOURCE)
		return -VMEM_ENOENT;
	if (word & VMEMI_PAGE_LEAVING)
		return -VMEM_EAGAIN;
	frame = take_frame(r);
	if (!frame || atomic_load(&r->source->stalled_ns))
		note_stall(r, !frame);
	if (!frame)
		return -VMEM_EAGAIN;
	if (!vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, &old)) {
		vmemi_frames_untake(&r->host->frames, 1);
		return -VMEM_ENOENT;
	}
	if (vmemi_page_state(old) == VMEM_PAGE_SOURCE)
		return 0;
	vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
	return -VMEM_ENOENT;
}

/* Takes one wanted page; the others stay. The lock is held. */
static bool take_wanted(struct vmemi_source *s, uint64_t *ret_page)
{
	uint64_t group = s->hand, bits = vmemi_page_set_take(&s->wanted, &group, s->wanted.count);

	if (!bits) {
		group = 0;
		bits = vmemi_page_set_take(&s->wanted, &group, s->wanted.count);
	}
	s->hand = group;
	if (!bits)
		return false;
	*ret_page = group * 64 + (uint64_t)__builtin_ctzll(bits);
	for (bits &= bits - 1; bits; bits &= bits - 1)
		vmemi_page_set_add(&s->wanted, group * 64 + (uint64_t)__builtin_ctzll(bits));
	return true;
}

/* A wanted page of any region, and an entry for it, which keeps the region. */
static struct vmem_region *next(struct vmemi_host *host, struct load **ret_load, bool *ret_full)
{
	uint32_t slots = atomic_load(&host->region_slots);
	struct vmem_region *found = NULL;
	uint64_t page;

	vmemi_lock(&host->source_lock);
	for (uint32_t i = 0; i < slots && !found; i++) {
		struct vmem_region *r =
			atomic_load(&host->regions[(host->source_hand + i) % slots]);

		if (!r || !r->source || !atomic_load(&r->source->any_wanted))
			continue;
		*ret_load = free_entry(r->source);
		*ret_full |= !*ret_load;
		if (!*ret_load)
			continue;
		atomic_store(&r->source->any_wanted, 0);
		if (!take_wanted(r->source, &page))
			continue;
		atomic_store(&r->source->any_wanted, 1); /* perhaps */
		take_entry(*ret_load, page, NULL);
		found = r;
	}
	host->source_hand++;
	vmemi_unlock(&host->source_lock);
	return found;
}

enum vmemi_source_turn vmemi_source_turn(struct vmemi_host *host)
{
	unsigned char *buffer = vmemi_host_buffer(host);
	enum vmemi_source_turn turn = VMEMI_SOURCE_TURNED;
	struct vmem_region *r = NULL;
	bool full = !buffer;
	struct load *l;

	if (buffer)
		r = next(host, &l, &full);
	if (!r) {
		turn = full ? VMEMI_SOURCE_STARVED : VMEMI_SOURCE_IDLE;
	} else {
		switch (claim(r, l->page)) {
		case 0:
			set_bit(r->source->loading, l->page);
			call(r, l, buffer);
			break;
		case -VMEM_EAGAIN:
			want_again(r, l->page);
			drop_entry(r, l);
			turn = VMEMI_SOURCE_STARVED;
			break;
		default: /* who waits for it tries again, and finds it as it is now */
			vmemi_uffd_wake(r->uffd, vmemi_region_page(r, l->page), VMEM_PAGE_SIZE);
			drop_entry(r, l);
		}
	}
	if (buffer)
		vmemi_host_buffer_return(host, buffer);
	return turn;
}

void vmemi_source_step(struct vmemi_host *host)
{
	bool (*make_room)(struct vmemi_host *) = atomic_load(&host->make_room);
	enum vmemi_source_turn turn;

	vmemi_source_give_up(host);
	do
		turn = vmemi_source_turn(host);
	while (turn == VMEMI_SOURCE_TURNED ||
	       (turn == VMEMI_SOURCE_STARVED && make_room && make_room(host)));
}

/* --- Reading without making resident --- */

/* Waits until a peek is over, and lets go of its entry. */
static int wait_for(struct vmem_region *r, struct load *l)
{
	struct vmemi_host *host = r->host;
	bool over;
	int error;

	for (;;) {
		vmemi_lock(&host->source_lock);
		over = l->state == LOAD_PEEKED;
		error = l->error;
		if (over)
			l->state = LOAD_IDLE;
		vmemi_unlock(&host->source_lock);
		if (over)
			return error;
		vmemi_host_wait(host);
	}
}

int vmemi_source_peek(struct vmem_region *r, uint64_t page, void *data)
{
	struct load *l;
	int error;

	vmemi_lock(&r->host->source_lock);
	l = free_entry(r->source);
	if (l)
		take_entry(l, page, data);
	vmemi_unlock(&r->host->source_lock);
	if (!l)
		return -VMEM_EAGAIN;
	set_bit(r->source->loading, page);
	call(r, l, data);
	error = wait_for(r, l);
	clear_bit(r->source->loading, page);
	return error ? -VMEM_EIO : 0;
}

/* --- The VMM's part --- */

int vmem_region_set_source(vmem_region *region, uint64_t gpa, uint64_t bytes)
{
	uint64_t first, count, old;
	int error = vmemi_region_span(region, gpa, bytes, false, &first, &count);

	if (error)
		return error;
	if (!region->source)
		return -VMEM_EINVAL;
	for (uint64_t page = first; page < first + count; page++) {
		while (!vmemi_region_step(region, page, VMEMI_PAGE_SET_SOURCE, 0, &old)) {
			uint64_t word = vmemi_region_word(region, page);

			if (vmemi_page_state(word) != VMEM_PAGE_ABSENT)
				break;
			vmemi_host_wait(region->host); /* it is being discarded */
		}
		vmemi_dirty_mark(region, page);
	}
	return 0;
}

void vmemi_source_end(struct vmem_region *r)
{
	bool busy = r->source != NULL;

	while (busy) {
		busy = false;
		vmemi_lock(&r->host->source_lock);
		for (unsigned i = 0; i < VMEMI_SOURCE_LOADS; i++) {
			struct load *l = &r->source->load[i];

			if (l->state == LOAD_LOADING && !l->calling)
				l->state = LOAD_IDLE;
			busy |= l->calling || l->state != LOAD_IDLE;
		}
		vmemi_unlock(&r->host->source_lock);
		if (busy)
			vmemi_relax(r->host->env);
	}
}
