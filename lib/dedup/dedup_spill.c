/* SPDX-License-Identifier: BSD-2-Clause */
/* What has no room elsewhere: see dedup_spill.h. */
#include "dedup/dedup_spill.h"
#include <stddef.h>

static uint32_t home_of(const struct vmemi_dedup_spill *s, uint32_t mix)
{
	return mix >> VMEMI_DEDUP_STRIPE_BITS & (s->capacity - 1);
}

static uint32_t after(const struct vmemi_dedup_spill *s, uint32_t at)
{
	return (at + 1) & (s->capacity - 1);
}

static uint32_t index_of(const struct vmemi_dedup_spill *s, const struct vmemi_dedup_spilled *e)
{
	return (uint32_t)(e - s->entries);
}

struct vmemi_dedup_spilled *vmemi_dedup_spill_next(const struct vmemi_dedup_spill *s, uint32_t mix,
						   enum vmemi_dedup_spilled_kind kind,
						   const struct vmemi_dedup_spilled *previous)
{
	uint32_t at;

	if (!s->used)
		return NULL;
	at = previous ? after(s, index_of(s, previous)) : home_of(s, mix);
	for (; s->entries[at].kind; at = after(s, at))
		if (s->entries[at].mix == mix && s->entries[at].kind == kind)
			return &s->entries[at];
	return NULL;
}

struct vmemi_dedup_spilled *vmemi_dedup_spill_count(const struct vmemi_dedup_spill *s, uint32_t mix,
						    uint32_t id)
{
	struct vmemi_dedup_spilled *e = NULL;

	do {
		e = vmemi_dedup_spill_next(s, mix, VMEMI_DEDUP_COUNT, e);
	} while (e && e->id != id);
	return e;
}

/* If there are fewer homes than groups, all entries of a group have the same one; else they have every
 * so-manieth. Entries of other homes may stand between them. */
struct vmemi_dedup_spilled *vmemi_dedup_spill_of_group(const struct vmemi_dedup_spill *s,
						       uint32_t number, uint32_t groups,
						       const struct vmemi_dedup_spilled *previous)
{
	uint32_t home, at;

	if (!s->whole)
		return NULL;
	home = home_of(s, previous ? previous->mix : number);
	at = previous ? after(s, index_of(s, previous)) : home;
	for (;;) {
		for (; s->entries[at].kind; at = after(s, at)) {
			struct vmemi_dedup_spilled *e = &s->entries[at];

			if (e->kind == VMEMI_DEDUP_WHOLE && (e->mix & (groups - 1)) == number &&
			    home_of(s, e->mix) == home)
				return e;
		}
		home += groups >> VMEMI_DEDUP_STRIPE_BITS;
		if (home >= s->capacity)
			return NULL;
		at = home;
	}
}

void vmemi_dedup_spill_put(struct vmemi_dedup_spill *s, struct vmemi_dedup_spilled entry)
{
	uint32_t at = home_of(s, entry.mix);

	while (s->entries[at].kind)
		at = after(s, at);
	s->entries[at] = entry;
	s->used++;
	s->whole += entry.kind == VMEMI_DEDUP_WHOLE;
}

/* Entries further on that have passed by the hole move back into it (Knuth, TAOCP 3, 6.4, algorithm R). */
void vmemi_dedup_spill_remove(struct vmemi_dedup_spill *s, struct vmemi_dedup_spilled *entry)
{
	uint32_t hole = index_of(s, entry), mask = s->capacity - 1;

	s->used--;
	s->whole -= entry->kind == VMEMI_DEDUP_WHOLE;
	for (uint32_t at = after(s, hole); s->entries[at].kind; at = after(s, at)) {
		uint32_t home = home_of(s, s->entries[at].mix);

		if (((at - home) & mask) >= ((at - hole) & mask)) {
			s->entries[hole] = s->entries[at];
			hole = at;
		}
	}
	s->entries[hole].kind = VMEMI_DEDUP_NOTHING;
}
