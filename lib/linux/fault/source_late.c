/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that wait to be asked for while all that could ask hang in the caller's function.
 *
 * Every half of the deadline it is noted which pages are wanted. One that is for the third time has waited for
 * the deadline, and for less than half as much again: it is lost. So who notes that a page is wanted need not look at
 * the clock. A time does not count if since the last one somebody who asks came back, with an answer or because there
 * was no frame: however slow that goes, what is wanted will be asked for. The threads ask for all regions.
 * Guard: host->source_lock. */
#include "linux/fault/source_load.h"

#define HALF_NS_MIN 50000000 /* those who wait for a frame try more often */

void vmemi_source_not_waiting(struct vmemi_source *s, uint64_t group, uint64_t bits)
{
	s->waiting.wanted[0][group] &= ~bits;
	s->waiting.wanted[1][group] &= ~bits;
}

/* Notes what is wanted of a group, and takes what has been for too long. */
static uint64_t note(struct vmemi_source *s, uint64_t group)
{
	uint64_t wanted = atomic_load(&s->wanted.pages[group]);
	uint64_t before = s->waiting.served ? 0 : s->waiting.wanted[0][group] & wanted;
	uint64_t late = s->waiting.served ? 0 : s->waiting.wanted[1][group] & wanted;

	s->waiting.wanted[0][group] = wanted;
	s->waiting.wanted[1][group] = before;
	atomic_fetch_and(&s->wanted.pages[group], ~late);
	vmemi_source_not_waiting(s, group, late);
	return late;
}

/* Goes on until something is late. The lock is held. */
static uint64_t find_late(struct vmem_region *r, uint64_t now, uint64_t *ret_group)
{
	struct vmemi_source *s = r->source;
	uint64_t half = r->opts.fault_deadline_ms * 1000000 / 2, late = 0, turns;

	if (s->waiting.group == s->wanted.count &&
	    now - s->waiting.ended_ns >= (half < HALF_NS_MIN ? HALF_NS_MIN : half)) {
		turns = atomic_load(&r->host->source_turns);
		s->waiting.served = turns != s->waiting.turns;
		s->waiting.turns = turns;
		s->waiting.group = 0;
	}
	while (!late && s->waiting.group < s->wanted.count) {
		*ret_group = vmemi_page_set_next(&s->wanted, s->waiting.group, s->wanted.count);
		if (*ret_group < s->wanted.count)
			late = note(s, *ret_group);
		s->waiting.group = *ret_group + (*ret_group < s->wanted.count);
		if (s->waiting.group == s->wanted.count) {
			s->waiting.ended_ns = now;
			s->waiting.count++;
		}
	}
	return late;
}

void vmemi_source_give_up_page(struct vmem_region *r, uint64_t page)
{
	int error = vmemi_source_claim(r, page, true);

	if (!error && vmemi_source_lose(r, page, -VMEM_EIO))
		vmemi_source_return(r, page);
	else if (error == -VMEM_EAGAIN)
		vmemi_source_want_again(r, page);
	else if (error)
		vmemi_source_wake(r, page);
}

/* Some that are late, of one region. An entry keeps that meanwhile. */
static bool give_up_some(struct vmemi_host *host, uint32_t slot)
{
	struct vmemi_source_load *l = NULL;
	uint64_t late = 0, group;
	struct vmem_region *r;

	vmemi_lock(&host->source_lock);
	r = atomic_load(&host->regions[slot]);
	if (r && r->source && atomic_load(&r->source->any_wanted))
		l = vmemi_source_free_entry(r->source);
	if (l)
		late = find_late(r, host->k->clock_ns(), &group);
	if (late)
		vmemi_source_take_entry(l, group * 64, NULL);
	vmemi_unlock(&host->source_lock);
	if (!late)
		return false;
	for (uint64_t bits = late; bits; bits &= bits - 1)
		vmemi_source_give_up_page(r, group * 64 + (uint64_t)__builtin_ctzll(bits));
	vmemi_source_drop_entry(r, l);
	return true;
}

void vmemi_source_give_up_wanted(struct vmemi_host *host)
{
	uint32_t slots = atomic_load(&host->region_slots);

	for (uint32_t i = 0; i < slots; i++)
		while (give_up_some(host, i))
			;
}
