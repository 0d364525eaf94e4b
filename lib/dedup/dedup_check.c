/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests: walks a table at rest and says what is wrong in it. Takes no lock. */
#include "base/check.h"
#include "dedup/dedup_internal.h"

/* What a stripe's entries add up to. */
struct sums {
	uint32_t hints;
	uint32_t shared;
	uint64_t references;
	uint32_t counts; /* that are in the spill */
	uint32_t whole;
};

static void add_entry(struct sums *sums, uint32_t count)
{
	sums->hints += !count;
	sums->shared += count != 0;
	sums->references += count;
}

/* Every line between an entry's home and itself is full, and no line has a gap. */
static const char *check_entry(const struct vmemi_dedup_group *group, uint32_t at, uint32_t mix)
{
	uint32_t line = at / VMEMI_DEDUP_LINE_ENTRIES;

	VMEMI_REQUIRE(at % VMEMI_DEDUP_LINE_ENTRIES == 0 || group->entries[at - 1]);
	VMEMI_REQUIRE(vmemi_dedup_entry_id(group->entries[at]));
	for (uint32_t n = vmemi_dedup_home(mix, group->lines); n != line;
	     n = vmemi_dedup_line_after(n, group->lines))
		VMEMI_REQUIRE(group->entries[(n + 1) * VMEMI_DEDUP_LINE_ENTRIES - 1]);
	return NULL;
}

static const char *check_group(const struct vmem_dedup *d, struct vmemi_dedup_where w,
			       const struct vmemi_dedup_stripe *s, struct sums *sums)
{
	struct vmemi_dedup_group group = vmemi_dedup_group_at(d, w);
	uint32_t room = 0;

	for (uint32_t i = 0; i < group.lines * VMEMI_DEDUP_LINE_ENTRIES; i++) {
		vmemi_dedup_entry e = group.entries[i];
		uint32_t mix = vmemi_dedup_entry_mix(e, w.number);
		uint32_t count = vmemi_dedup_entry_count(e);
		const char *wrong;

		room += !e;
		if (!e)
			continue;
		wrong = check_entry(&group, i, mix);
		if (wrong)
			return wrong;
		VMEMI_REQUIRE((mix & ((1u << w.level) - 1)) == w.number);
		if (count == VMEMI_DEDUP_COUNT_SPILLED) {
			const struct vmemi_dedup_spilled *spilled =
				vmemi_dedup_spill_count(&s->spill, mix, vmemi_dedup_entry_id(e));

			VMEMI_REQUIRE(spilled && spilled->count >= VMEMI_DEDUP_COUNT_SPILLED);
			count = spilled->count;
			sums->counts++;
		}
		add_entry(sums, count);
	}
	VMEMI_REQUIRE(!room ||
		      !vmemi_dedup_spill_of_group(&s->spill, w.number, 1u << w.level, NULL));
	return NULL;
}

static const char *check_spill(const struct vmem_dedup *d, uint32_t number, struct sums *sums)
{
	const struct vmemi_dedup_spill *spill = &d->stripe[number].spill;
	uint32_t used = 0;

	VMEMI_REQUIRE(!(spill->capacity & (spill->capacity - 1)));
	for (uint32_t i = 0; i < spill->capacity; i++) {
		struct vmemi_dedup_spilled *e = &spill->entries[i], *seen = NULL;
		struct vmemi_dedup_where w;

		if (!e->kind)
			continue;
		used++;
		VMEMI_REQUIRE(e->id && e->mix % VMEMI_DEDUP_STRIPES == number);
		do
			seen = vmemi_dedup_spill_next(spill, e->mix, e->kind, seen);
		while (seen && seen != e);
		VMEMI_REQUIRE(seen);
		if (e->kind != VMEMI_DEDUP_WHOLE)
			continue;
		w = vmemi_dedup_where(atomic_load(&d->geometry), e->mix);
		seen = NULL;
		do
			seen = vmemi_dedup_spill_of_group(spill, w.number, 1u << w.level, seen);
		while (seen && seen != e);
		VMEMI_REQUIRE(seen);
		sums->whole++;
		add_entry(sums, e->count);
	}
	VMEMI_REQUIRE(used == spill->used && sums->whole == spill->whole);
	VMEMI_REQUIRE(used == sums->whole + sums->counts);
	VMEMI_REQUIRE(used <= vmemi_dedup_spill_holds(spill->capacity));
	return NULL;
}

/* Each chunk of a kind of groups is there exactly if one of its groups is of that kind. */
static const char *check_chunks(const struct vmem_dedup *d, uint32_t level, uint32_t lines)
{
	vmemi_dedup_geometry g = atomic_load(&d->geometry);
	uint32_t in_chunk = 1u << vmemi_dedup_chunk_shift(level);

	if (!lines)
		return NULL;
	for (uint32_t first = 0; first < 1u << level; first += in_chunk) {
		struct vmemi_dedup_where w = { level, lines, first };
		bool used = false;

		for (uint32_t i = 0; i < in_chunk; i++) {
			struct vmemi_dedup_where real = vmemi_dedup_where(g, first + i);

			used |= real.level == level && real.lines == lines &&
				real.number == first + i;
		}
		VMEMI_REQUIRE(used == (vmemi_dedup_chunk_at(d, w) && *vmemi_dedup_chunk_at(d, w)));
	}
	return NULL;
}

const char *vmemi_dedup_check(struct vmem_dedup *d)
{
	vmemi_dedup_geometry g = atomic_load(&d->geometry);
	uint32_t level = vmemi_dedup_level(g), lines = vmemi_dedup_lines(g);
	bool splits = lines + 1 == VMEMI_DEDUP_LINES_SPLIT;
	uint64_t entries = 0;
	const char *wrong = check_chunks(d, level, lines);

	if (!wrong)
		wrong = splits ? check_chunks(d, level + 1, VMEMI_DEDUP_LINES_SPLIT / 2)
			       : check_chunks(d, level, lines + 1);
	for (uint32_t n = 0; !wrong && n < VMEMI_DEDUP_STRIPES; n++) {
		struct vmemi_dedup_stripe *s = &d->stripe[n];
		struct sums sums = { .hints = 0 };

		for (uint32_t i = n; !wrong && i < 1u << (level + splits);
		     i += VMEMI_DEDUP_STRIPES) {
			struct vmemi_dedup_where w = vmemi_dedup_where(g, i);

			if (w.number == i)
				wrong = check_group(d, w, s, &sums);
		}
		if (!wrong)
			wrong = check_spill(d, n, &sums);
		if (wrong)
			return wrong;
		VMEMI_REQUIRE(s->hints == sums.hints && s->shared == sums.shared);
		VMEMI_REQUIRE(s->references == sums.references);
		entries += sums.hints + sums.shared;
	}
	VMEMI_REQUIRE(wrong || atomic_load(&d->entries) == entries);
	VMEMI_REQUIRE(wrong || !atomic_load(&d->resizing));
	return wrong;
}
