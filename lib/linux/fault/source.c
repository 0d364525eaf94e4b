/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages whose bytes are with the caller: see source.h; and their loads: see source_load.h. What is wanted is
 * asked for in source_ask.c, or given up in source_late.c. */
#include "linux/backing/backing.h"
#include "linux/backing/peers.h"
#include "base/mem.h"
#include "linux/fault/source_load.h"
#include "linux/fault/serve.h"
#include "linux/foreign/foreign_events.h"
#include "linux/region/dirty.h"
#include <limits.h>
#include <vmem/source.h>

#define HOLD_NS 1000000 /* for which a page that is refused may keep the thread that installs it */

int vmemi_source_new(struct vmem_region *r)
{
	const struct vmem_allocator *a = &r->host->metadata.allocator;
	struct vmemi_source *s = vmemi_zalloc(a, sizeof(*s), 64);

	if (!s)
		return -VMEM_ENOMEM;
	r->source = s;
	s->written = vmemi_bitmap_new(&r->arrays);
	s->loading = vmemi_bitmap_new(&r->arrays);
	for (unsigned i = 0; i < 2; i++)
		s->waiting.wanted[i] = vmemi_bitmap_new(&r->arrays);
	if (s->written && s->loading && s->waiting.wanted[0] && s->waiting.wanted[1] &&
	    !vmemi_page_set_init(&s->wanted, &r->arrays, r->pages)) {
		s->waiting.group = s->wanted.count;
		return 0;
	}
	vmemi_source_free(r);
	return -VMEM_ENOMEM;
}

void vmemi_source_free(struct vmem_region *r)
{
	const struct vmem_allocator *a = &r->host->metadata.allocator;
	struct vmemi_source *s = r->source;

	if (!s)
		return;
	vmemi_page_set_destroy(&s->wanted, &r->arrays);
	vmemi_bitmap_free(&r->arrays, s->written);
	vmemi_bitmap_free(&r->arrays, s->loading);
	for (unsigned i = 0; i < 2; i++)
		vmemi_bitmap_free(&r->arrays, s->waiting.wanted[i]);
	vmemi_free(a, s, sizeof(*s), 64);
	r->source = NULL;
}

void vmemi_source_grow(struct vmem_region *r, uint64_t pages)
{
	struct vmemi_source *s = r->source;
	bool ended;

	if (!s)
		return;
	vmemi_lock(&r->host->source_lock);
	ended = s->waiting.group == s->wanted.count;
	vmemi_page_set_grow(&s->wanted, pages);
	if (ended)
		s->waiting.group = s->wanted.count;
	vmemi_unlock(&r->host->source_lock);
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

void vmemi_source_want_again(struct vmem_region *r, uint64_t page)
{
	vmemi_page_set_add(&r->source->wanted, page);
	atomic_store(&r->source->any_wanted, 1);
}

void vmemi_source_want(struct vmem_region *r, uint64_t page, bool write)
{
	if (write)
		set_bit(r->source->written, page);
	vmemi_source_want_again(r, page);
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

/* Ends the claim. Who waits here was woken by the change of the mapping; peers fault again. */
static void end(struct vmem_region *r, uint64_t page, enum vmemi_page_event event)
{
	vmemi_region_end(r, page, event, 0);
	vmemi_peers_wake(r, page);
}

int vmemi_source_lose(struct vmem_region *r, uint64_t page, int error)
{
	if (r->foreign)
		return vmemi_foreign_lose(r, page, error) == VMEMI_PUT_OFF ? -VMEM_EAGAIN : 0;
	if (!vmemi_serve_poison(r, page))
		return -VMEM_EAGAIN;
	vmemi_serve_tell_lost(r, page, error);
	end(r, page, VMEMI_PAGE_LOSE);
	return 0;
}

void vmemi_source_return(struct vmem_region *r, uint64_t page)
{
	if (!r->foreign)
		vmemi_region_end(r, page, VMEMI_PAGE_RETURN,
				 vmemi_page_word(VMEM_PAGE_SOURCE, 0, 0));
	else if (vmemi_foreign_return(r, page))
		return vmemi_source_wake(r, page);
	vmemi_source_want(r, page, false);
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
		return vmemi_source_lose(r, page, error);
	clean = stays_clean(r, page);
	error = r->backing->fill(r, &r->own, page, 1, data, &clean, &done);
	if (error == -VMEM_EEXIST || !clean)
		vmemi_dirty_mark(r, page); /* what is there may be writable */
	if (error == -VMEM_EEXIST) {
		end(r, page, VMEMI_PAGE_ARRIVE);
		vmemi_uffd_wake(r->uffd, dst, VMEM_PAGE_SIZE);
		vmemi_tally(&r->counters.faults_redundant, 1);
		return 0;
	}
	if (passes(error))
		return -VMEM_EAGAIN;
	if (error)
		return vmemi_source_lose(r, page, error);
	vmemi_page_set_add(&r->ages.accessed, page);
	end(r, page, clean ? VMEMI_PAGE_ARRIVE_CLEAN : VMEMI_PAGE_ARRIVE);
	vmemi_serve_count(r, &f, VMEM_PAGE_SOURCE);
	return 0;
}

void vmemi_source_wake(struct vmem_region *r, uint64_t page)
{
	vmemi_uffd_wake(r->uffd, vmemi_region_page(r, page), VMEM_PAGE_SIZE);
	vmemi_peers_wake(r, page);
}

/* A page that was read without making it resident is with its source still. Who touched it meanwhile was told to
 * wait. */
static void give_back(struct vmem_region *r, uint64_t page)
{
	clear_bit(r->source->loading, page);
	vmemi_region_end(r, page, VMEMI_PAGE_RETURN, vmemi_page_word(VMEM_PAGE_SOURCE, 0, 0));
	vmemi_source_wake(r, page);
}

/* The caller has made @l ENDING. Its entry goes on as @state. */
static void leave(struct vmem_region *r, struct vmemi_source_load *l, enum vmemi_load_state state)
{
	vmemi_lock(&r->host->source_lock);
	l->state = state;
	if (state == VMEMI_LOAD_LOADING)
		atomic_fetch_add(&r->source->under_way, 1);
	else if (r->foreign)
		r->foreign->refused_until_ns = 0;
	vmemi_unlock(&r->host->source_lock);
}

/* Makes a LOADING entry the caller's to end. The lock is held. */
static void enter(struct vmem_region *r, struct vmemi_source_load *l)
{
	l->state = VMEMI_LOAD_ENDING;
	atomic_fetch_sub(&r->source->under_way, 1);
}

/* The end of @l, which is ENDING. 0, -VMEM_EAGAIN (it is LOADING as before). */
static int end_load(struct vmem_region *r, struct vmemi_source_load *l, const void *data, int error)
{
	uint64_t began_ns = l->began_ns;

	if (l->peek) {
		if (!error && data != l->peek)
			memcpy(l->peek, data, VMEM_PAGE_SIZE);
		l->error = error;
		give_back(r, l->page); /* also if the reader's call does not return */
		leave(r, l, VMEMI_LOAD_PEEKED);
		return 0;
	}
	if (install(r, l->page, data, error)) {
		l->refused_ns = error ? l->refused_ns : r->host->k->clock_ns();
		leave(r, l, VMEMI_LOAD_LOADING);
		return -VMEM_EAGAIN;
	}
	vmemi_latency_add(&r->latency, r->host->k->clock_ns() - began_ns);
	leave(r, l, VMEMI_LOAD_IDLE);
	return 0;
}

static bool too_late(const struct vmem_region *r, const struct vmemi_source_load *l, uint64_t now)
{
	/* That another process has it refused is not the source's fault. */
	uint64_t since = r->foreign && l->refused_ns > l->began_ns ? l->refused_ns : l->began_ns;

	return now > since && now - since >= r->opts.fault_deadline_ms * 1000000;
}

/* Finds a load of @r by what @now says is too late. */
static struct vmemi_source_load *find_late(struct vmem_region *r, uint64_t now)
{
	for (unsigned i = 0; i < VMEMI_SOURCE_LOADS; i++)
		if (r->source->load[i].state == VMEMI_LOAD_LOADING &&
		    too_late(r, &r->source->load[i], now))
			return &r->source->load[i];
	return NULL;
}

void vmemi_source_give_up_loads(struct vmemi_host *host)
{
	uint32_t slots = atomic_load(&host->region_slots);
	uint64_t now = 0;

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r;
		struct vmemi_source_load *l = NULL;

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
	struct vmemi_source_load *l = NULL;

	if (!region->source || gpa % VMEM_PAGE_SIZE || error > 0 || (!error && !data))
		return -VMEM_EINVAL;
	if (vmemi_region_span(region, gpa, VMEM_PAGE_SIZE, false, &page, &count))
		return -VMEM_ERANGE;
	vmemi_lock(&region->host->source_lock);
	for (unsigned i = 0; i < VMEMI_SOURCE_LOADS && !l; i++)
		if (region->source->load[i].state == VMEMI_LOAD_LOADING &&
		    region->source->load[i].page == page)
			l = &region->source->load[i];
	if (l)
		enter(region, l);
	vmemi_unlock(&region->host->source_lock);
	return l ? end_load(region, l, data, error) : -VMEM_ENOENT;
}

/* --- Entries --- */

struct vmemi_source_load *vmemi_source_free_entry(struct vmemi_source *s)
{
	for (unsigned i = 0; i < VMEMI_SOURCE_LOADS; i++)
		if (s->load[i].state == VMEMI_LOAD_IDLE && !s->load[i].calling)
			return &s->load[i];
	return NULL;
}

void vmemi_source_take_entry(struct vmemi_source_load *l, uint64_t page, unsigned char *peek)
{
	*l = (struct vmemi_source_load){
		.page = page, .peek = peek, .state = VMEMI_LOAD_CLAIMING, .calling = true
	};
}

/* The end of @l, which is ENDING: nothing comes of it this time, nor of others of its process for a while. */
static void put_back(struct vmem_region *r, struct vmemi_source_load *l)
{
	vmemi_source_return(r, l->page);
	leave(r, l, VMEMI_LOAD_IDLE);
	vmemi_lock(&r->host->source_lock);
	r->foreign->refused_until_ns = r->host->k->clock_ns() + VMEMI_SOURCE_REFUSED_NS;
	vmemi_unlock(&r->host->source_lock);
}

/* Another process can have the kernel refuse its pages for as long as it likes, and others are not to wait for that. Own
 * memory is refused where the kernel is short of it; its source was promised to be asked once. */
static bool held_too_long(const struct vmem_region *r, uint64_t *since_ns)
{
	uint64_t now = r->host->k->clock_ns();

	if (!*since_ns)
		*since_ns = now;
	return r->foreign && now - *since_ns >= HOLD_NS;
}

void vmemi_source_call(struct vmem_region *r, struct vmemi_source_load *l, unsigned char *buffer)
{
	struct vmemi_host *host = r->host;
	uint64_t since_ns = 0;
	bool mine, too_long = false;
	int error;

	set_bit(r->source->loading, l->page);
	vmemi_lock(&host->source_lock);
	l->began_ns = host->k->clock_ns();
	l->state = VMEMI_LOAD_LOADING;
	atomic_fetch_add(&r->source->under_way, 1);
	vmemi_unlock(&host->source_lock);
	error = r->opts.read_source(r->opts.context, vmemi_region_gpa(r, l->page), buffer);
	for (;;) {
		vmemi_lock(&host->source_lock);
		/* Otherwise it was ended meanwhile, or is being. */
		mine = l->state == VMEMI_LOAD_LOADING && error != -VMEM_EINPROGRESS;
		if (mine)
			enter(r, l);
		else
			l->calling = false;
		vmemi_unlock(&host->source_lock);
		if (!mine)
			return;
		if (too_long) {
			put_back(r, l);
		} else if (end_load(r, l, buffer, error > 0 ? -VMEM_EIO : error)) {
			too_long = held_too_long(r, &since_ns);
			vmemi_relax(host->env); /* the kernel has no memory: once more */
		}
	}
}

void vmemi_source_drop_entry(struct vmem_region *r, struct vmemi_source_load *l)
{
	vmemi_lock(&r->host->source_lock);
	l->state = VMEMI_LOAD_IDLE;
	l->calling = false;
	vmemi_unlock(&r->host->source_lock);
}

/* --- Reading without making resident --- */

/* Waits until a peek is over, and lets go of its entry. */
static int wait_for(struct vmem_region *r, struct vmemi_source_load *l)
{
	struct vmemi_host *host = r->host;
	bool over;
	int error;

	for (;;) {
		vmemi_lock(&host->source_lock);
		over = l->state == VMEMI_LOAD_PEEKED;
		error = l->error;
		if (over)
			l->state = VMEMI_LOAD_IDLE;
		vmemi_unlock(&host->source_lock);
		if (over)
			return error;
		vmemi_host_wait(host);
	}
}

int vmemi_source_peek(struct vmem_region *r, uint64_t page, void *data)
{
	struct vmemi_source_load *l;
	int error;

	vmemi_lock(&r->host->source_lock);
	l = vmemi_source_free_entry(r->source);
	if (l)
		vmemi_source_take_entry(l, page, data);
	vmemi_unlock(&r->host->source_lock);
	if (!l) {
		give_back(r, page);
		return -VMEM_EAGAIN;
	}
	vmemi_source_call(r, l, data);
	error = wait_for(r, l);
	return error ? -VMEM_EIO : 0;
}

/* --- The VMM's part --- */

/* Whether a page that cannot be given to the source may be absent when what is done to it is over: it is being
 * discarded, or somebody reads it. */
static bool may_be_absent(const struct vmem_region *r, uint64_t page)
{
	switch (vmemi_page_state(vmemi_region_word(r, page))) {
	case VMEM_PAGE_ABSENT: return true;
	case VMEM_PAGE_ARRIVING:
		return !(atomic_load(&r->source->loading[page / 64]) >> page % 64 & 1);
	default: return false;
	}
}

int vmem_region_set_source(vmem_region *region, uint64_t gpa, uint64_t bytes)
{
	uint64_t first, count, old;
	int error = vmemi_region_span(region, gpa, bytes, false, &first, &count);

	if (error)
		return error;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	if (!region->source)
		return -VMEM_EINVAL;
	for (uint64_t page = first; page < first + count; page++) {
		while (!vmemi_region_step(region, page, VMEMI_PAGE_SET_SOURCE, 0, &old) &&
		       may_be_absent(region, page))
			vmemi_host_wait(region->host);
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
			struct vmemi_source_load *l = &r->source->load[i];

			if (l->state == VMEMI_LOAD_LOADING && !l->calling)
				l->state = VMEMI_LOAD_IDLE;
			busy |= l->calling || l->state != VMEMI_LOAD_IDLE;
		}
		vmemi_unlock(&r->host->source_lock);
		if (busy)
			vmemi_relax(r->host->env);
	}
}
