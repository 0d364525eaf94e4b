/* SPDX-License-Identifier: BSD-2-Clause */
/* What holds at rest, for tests: see slots_internal.h. */
#include "slots/slots_internal.h"
#include "base/check.h"

static uint32_t longest_of(const struct vmemi_slots_table *t)
{
	uint32_t longest = 0, run = 0;

	for (uint32_t i = 0; i < VMEM_SLOTS_CLUSTER; i++) {
		run = vmemi_slots_free(t, i / 64) >> i % 64 & 1 ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	return longest;
}

static const char *check_table(const struct vmemi_slots_table *t, uint64_t *discards, bool *ret_all)
{
	*ret_all = true;
	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++) {
		uint64_t free = ~atomic_load(&t->used[word]), cut = atomic_load(&t->cut[word]);
		uint64_t discard = atomic_load(&t->discard[word]);
		uint64_t held = vmemi_slots_held(t, word);

		VMEMI_REQUIRE(!(free & cut) && !(free & discard) && !(cut & discard));
		*discards += vmemi_bits_set(discard);
		VMEMI_REQUIRE(!(held & (free | cut | discard)));
		*ret_all &= (free | cut) == ~UINT64_C(0);
	}
	return NULL;
}

static bool nothing_held(const struct vmemi_slots_table *t)
{
	uint64_t held = atomic_load(&t->stop);

	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++)
		held |= atomic_load(&t->held[word]);
	return !held;
}

static const char *check_cluster(const struct vmemi_slots_device *d, uint64_t number,
				 uint64_t *tables, uint64_t *discards)
{
	const struct vmemi_slots_chunk *chunk = atomic_load(&d->chunk[number / VMEMI_SLOTS_CHUNK]);
	const struct vmemi_slots_cluster *c = &chunk->cluster[number % VMEMI_SLOTS_CHUNK];
	const struct vmemi_slots_table *t = atomic_load(&c->table);
	bool cut = number >= atomic_load(&d->clusters), all = false;
	bool room = chunk->room >> number % VMEMI_SLOTS_CHUNK & 1;
	bool tell = vmemi_slots_has(c, VMEMI_SLOTS_TELL);
	bool cursor = vmemi_slots_has(c, VMEMI_SLOTS_CURSOR);
	bool empty = chunk->empty >> number % VMEMI_SLOTS_CHUNK & 1;
	const char *wrong;

	VMEMI_REQUIRE(empty == (!t && !cut));
	VMEMI_REQUIRE(t || (!cursor && !room));
	if (!t)
		return NULL;
	++*tables;
	wrong = check_table(t, discards, &all);
	if (wrong)
		return wrong;
	VMEMI_REQUIRE(!all || cursor);
	VMEMI_REQUIRE(cursor || nothing_held(t));
	VMEMI_REQUIRE(tell || (room && !cut && c->longest == VMEMI_SLOTS_LONGEST_UNKNOWN));
	VMEMI_REQUIRE(longest_of(t) <= c->longest || cut);
	VMEMI_REQUIRE(vmemi_slots_any_discards(t) == vmemi_slots_has(c, VMEMI_SLOTS_DISCARDS));
	VMEMI_REQUIRE(!longest_of(t) || room || cut);
	VMEMI_REQUIRE(!longest_of(t) || !d->full || cut);
	return NULL;
}

static const char *check_device(const struct vmemi_slots_device *d)
{
	uint64_t tables = 0, discards = 0;
	const char *wrong;

	for (uint64_t i = 0; i < d->most; i++) {
		if (!atomic_load(&d->chunk[i / VMEMI_SLOTS_CHUNK]))
			continue;
		wrong = check_cluster(d, i, &tables, &discards);
		if (wrong)
			return wrong;
	}
	VMEMI_REQUIRE(tables == d->tables);
	VMEMI_REQUIRE(discards == d->discards);
	return NULL;
}

const char *vmemi_slots_check(const vmem_slots *s)
{
	uint32_t devices = 0;
	const char *wrong;

	for (uint32_t i = 0; i < VMEM_SLOTS_DEVICES; i++) {
		const struct vmemi_slots_device *d = atomic_load(&s->device[i]);

		devices += d != NULL;
		wrong = d ? check_device(d) : NULL;
		if (wrong)
			return wrong;
	}
	VMEMI_REQUIRE(devices == s->devices);
	for (uint32_t i = 0; i + 1 < devices; i++)
		VMEMI_REQUIRE(atomic_load(&s->device[s->order[i]])->priority >=
			      atomic_load(&s->device[s->order[i + 1]])->priority);
	return NULL;
}
