/* SPDX-License-Identifier: BSD-2-Clause */
/* Asking callers for the pages that are wanted: see source.h. */
#include "linux/fault/source_load.h"
#include "linux/fault/serve.h"
#include "linux/foreign/foreign_events.h"

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
	if (!taken || atomic_load(&r->source->stalled_ns))
		note_stall(r, !taken);
	return taken;
}

int vmemi_source_claim(struct vmem_region *r, uint64_t page, bool to_lose)
{
	uint64_t word = vmemi_region_word(r, page), old;

	if (vmemi_page_state(word) != VMEM_PAGE_SOURCE)
		return -VMEM_ENOENT;
	if (word & VMEMI_PAGE_LEAVING)
		return -VMEM_EAGAIN;
	if (to_lose)
		vmemi_frames_force(&r->host->frames, 1); /* until it is known to hold none */
	else if (!take_frame(r))
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

static void put_back(struct vmemi_source *s, uint64_t group, uint64_t bits)
{
	for (; bits; bits &= bits - 1)
		vmemi_page_set_add(&s->wanted, group * 64 + (uint64_t)__builtin_ctzll(bits));
}

/* Takes one wanted page; the others stay. All have their turn, whichever come to be wanted again. The lock is
 * held. */
static bool take_wanted(struct vmemi_source *s, uint64_t *ret_page)
{
	uint64_t group = s->hand / 64, bit;
	uint64_t bits = vmemi_page_set_take(&s->wanted, &group, s->wanted.count);
	uint64_t had_turn = group == s->hand / 64 ? (UINT64_C(1) << s->hand % 64) - 1 : 0;

	if (bits && !(bits & ~had_turn)) {
		put_back(s, group++, bits);
		bits = vmemi_page_set_take(&s->wanted, &group, s->wanted.count);
		had_turn = 0;
	}
	if (!bits) {
		group = had_turn = 0;
		bits = vmemi_page_set_take(&s->wanted, &group, s->wanted.count);
	}
	if (!bits)
		return false;
	bit = bits & ~had_turn;
	bit &= -bit;
	vmemi_source_not_waiting(s, group, bit);
	*ret_page = group * 64 + (uint64_t)__builtin_ctzll(bit);
	s->hand = *ret_page + 1;
	put_back(s, group, bits & ~bit);
	return true;
}

/* Whether the kernel has just refused to fill its process's pages, which removes some. One thread tries when the time
 * is over. */
static bool is_refused(const struct vmem_region *r)
{
	uint64_t until = r->foreign ? r->foreign->refused_until_ns : 0;

	return until && r->host->k->clock_ns() < until;
}

/* By turns of processes, then of the regions of each. */
static bool comes_before(const struct vmem_region *a, const struct vmem_region *b)
{
	uint64_t turn_a = a->foreign ? a->foreign->source_turn : a->source->turn;
	uint64_t turn_b = b->foreign ? b->foreign->source_turn : b->source->turn;

	return turn_a != turn_b ? turn_a < turn_b : a->source->turn < b->source->turn;
}

/* Whose turn it is of those that want something. The lock is held. */
static struct vmem_region *choose(struct vmemi_host *host, enum vmemi_source_turn *ret_why)
{
	uint32_t slots = atomic_load(&host->region_slots);
	struct vmem_region *chosen = NULL;

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&host->regions[i]);

		if (!r || !r->source || !atomic_load(&r->source->any_wanted))
			continue;
		if (is_refused(r)) {
			if (*ret_why == VMEMI_SOURCE_IDLE)
				*ret_why = VMEMI_SOURCE_REFUSED;
		} else if (!vmemi_source_free_entry(r->source)) {
			*ret_why = VMEMI_SOURCE_STARVED;
		} else if (!chosen || comes_before(r, chosen)) {
			chosen = r;
		}
	}
	return chosen;
}

/* The lock is held. */
static void note_turn(struct vmem_region *r)
{
	r->source->turn = ++r->host->source_turn;
	if (!r->foreign)
		return;
	r->foreign->source_turn = r->source->turn;
	if (r->foreign->refused_until_ns)
		r->foreign->refused_until_ns = r->host->k->clock_ns() + VMEMI_SOURCE_REFUSED_NS;
}

/* A wanted page of any region, and an entry for it, which keeps the region. NULL: *@ret_why. */
static struct vmem_region *next(struct vmemi_host *host, struct vmemi_source_load **ret_load,
				enum vmemi_source_turn *ret_why)
{
	struct vmem_region *r;
	uint64_t page;

	vmemi_lock(&host->source_lock);
	while ((r = choose(host, ret_why))) {
		atomic_store(&r->source->any_wanted, 0);
		if (!take_wanted(r->source, &page))
			continue;
		atomic_store(&r->source->any_wanted, 1); /* perhaps */
		note_turn(r);
		*ret_load = vmemi_source_free_entry(r->source);
		vmemi_source_take_entry(*ret_load, page, NULL);
		break;
	}
	vmemi_unlock(&host->source_lock);
	return r;
}

enum vmemi_source_turn vmemi_source_turn(struct vmemi_host *host)
{
	unsigned char *buffer = vmemi_host_buffer(host);
	enum vmemi_source_turn turn = buffer ? VMEMI_SOURCE_IDLE : VMEMI_SOURCE_STARVED;
	struct vmem_region *r = NULL;
	struct vmemi_source_load *l;

	if (buffer)
		r = next(host, &l, &turn);
	if (r) {
		turn = VMEMI_SOURCE_TURNED;
		switch (vmemi_source_claim(r, l->page, false)) {
		case 0: vmemi_source_call(r, l, buffer); break;
		case -VMEM_EAGAIN:
			vmemi_source_want_again(r, l->page);
			vmemi_source_drop_entry(r, l);
			turn = VMEMI_SOURCE_STARVED;
			break;
		default: vmemi_source_wake(r, l->page); vmemi_source_drop_entry(r, l);
		}
	}
	if (buffer) {
		vmemi_host_buffer_return(host, buffer);
		/* Without one nothing is said: readers whose source hangs may keep them all. */
		if (turn != VMEMI_SOURCE_IDLE)
			atomic_fetch_add(&host->source_turns, 1);
	}
	return turn;
}

void vmemi_source_give_up(struct vmemi_host *host)
{
	vmemi_source_give_up_loads(host);
	vmemi_source_give_up_wanted(host);
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
