/* SPDX-License-Identifier: BSD-2-Clause */
/* Growing and shrinking, one group at a time: dedup_internal.h says how it works.
 *
 * A step moves a group from `small` to `large`, which has one line more, or from large to small. At the
 * end of a row of steps all groups of one kind are gone, and with them their chunks. */
#include "base/mem.h"
#include "dedup/dedup_internal.h"

#define SPILL_LEAST 4u
#define FEW 512u /* entries: so many are kept without lines */
#define STEPS_AT_ONCE 2u

struct step {
	struct vmemi_dedup_where small;
	struct vmemi_dedup_where large[2]; /* two if it is split */
	uint32_t large_count;
};

/* Some groups, of one kind. */
struct side {
	const struct vmemi_dedup_where *where;
	uint32_t count;
};

static vmemi_dedup_geometry geometry_of(uint32_t level, uint32_t lines, uint32_t moved)
{
	return (uint64_t)moved << 32 | lines << 8 | level;
}

static struct step step_of(uint32_t level, uint32_t lines, uint32_t number)
{
	struct step s = { .small = { level, lines, number },
			  .large = { { level, lines + 1, number } },
			  .large_count = 1 };

	if (lines + 1 == VMEMI_DEDUP_LINES_SPLIT) {
		s.large_count = 2;
		for (uint32_t i = 0; i < 2; i++)
			s.large[i] =
				(struct vmemi_dedup_where){ level + 1, VMEMI_DEDUP_LINES_SPLIT / 2,
							    number + (i << level) };
	}
	return s;
}

/* Entries for which there is room. */
static uint64_t slots(const struct vmem_dedup *d)
{
	vmemi_dedup_geometry g = atomic_load_explicit(&d->geometry, memory_order_relaxed);

	return (((uint64_t)vmemi_dedup_lines(g) << vmemi_dedup_level(g)) + vmemi_dedup_moved(g)) *
	       VMEMI_DEDUP_LINE_ENTRIES;
}

/* Whether it has no lines, or is getting its first ones. */
static bool is_small(const struct vmem_dedup *d)
{
	return slots(d) <= (uint64_t)VMEMI_DEDUP_LINE_ENTRIES << VMEMI_DEDUP_LEVEL_FIRST;
}

/* Above a load of 0.857. */
bool vmemi_dedup_too_full(const struct vmem_dedup *d)
{
	uint64_t entries = atomic_load_explicit(&d->entries, memory_order_relaxed);

	return entries > FEW && entries * 7 > slots(d) * 6;
}

/* Below a load of 0.8. */
static bool too_empty(const struct vmem_dedup *d)
{
	uint64_t entries = atomic_load_explicit(&d->entries, memory_order_relaxed);

	return is_small(d) ? entries < FEW / 2 && slots(d) : entries * 5 < slots(d) * 4;
}

/* --- Chunks --- */

static size_t chunk_bytes(struct vmemi_dedup_where w)
{
	return (size_t)w.lines * VMEMI_DEDUP_LINE_BYTES << vmemi_dedup_chunk_shift(w.level);
}

static size_t array_bytes(uint32_t level)
{
	return sizeof(vmemi_dedup_chunk) << (level - vmemi_dedup_chunk_shift(level));
}

/* 1 if it was made, 0 if it was there, -VMEM_ENOMEM. */
static int make_chunk(struct vmem_dedup *d, struct vmemi_dedup_where w)
{
	_Atomic(vmemi_dedup_chunk *) *array =
		&d->chunks[w.level - VMEMI_DEDUP_LEVEL_FIRST][w.lines & 1];
	void *fresh;

	if (!w.lines)
		return 0;
	if (!atomic_load_explicit(array, memory_order_relaxed)) {
		fresh = vmemi_zalloc(&d->memory.allocator, array_bytes(w.level),
				     VMEMI_DEDUP_LINE_BYTES);
		if (!fresh)
			return -VMEM_ENOMEM;
		atomic_store_explicit(array, fresh, memory_order_release);
	}
	if (atomic_load_explicit(vmemi_dedup_chunk_at(d, w), memory_order_relaxed))
		return 0;
	fresh = vmemi_zalloc(&d->memory.allocator, chunk_bytes(w), VMEMI_DEDUP_LINE_BYTES);
	if (!fresh)
		return -VMEM_ENOMEM;
	atomic_store_explicit(vmemi_dedup_chunk_at(d, w), fresh, memory_order_relaxed);
	return 1;
}

static void free_chunk(struct vmem_dedup *d, struct vmemi_dedup_where w)
{
	vmemi_dedup_chunk *place = vmemi_dedup_chunk_at(d, w);
	void *chunk;

	if (!place)
		return;
	chunk = atomic_load_explicit(place, memory_order_relaxed);
	atomic_store_explicit(place, NULL, memory_order_relaxed);
	vmemi_free(&d->memory.allocator, chunk, chunk_bytes(w), VMEMI_DEDUP_LINE_BYTES);
}

/* Chunks for all groups, or none more than before. */
static int make_chunks(struct vmem_dedup *d, struct side to, bool made[2])
{
	for (uint32_t i = 0; i < to.count; i++) {
		int err = make_chunk(d, to.where[i]);

		if (err < 0) {
			if (i && made[0])
				free_chunk(d, to.where[0]);
			return err;
		}
		made[i] = err;
	}
	return 0;
}

/* --- The spill --- */

/* Gives a stripe's spill another capacity, if what is in it and @more fit then. 0, -VMEM_ENOMEM. */
static int spill_resize(struct vmem_dedup *d, struct vmemi_dedup_stripe *s, uint32_t capacity,
			uint32_t more)
{
	struct vmemi_dedup_spill fresh = { .capacity = capacity }, old;
	size_t bytes = capacity * sizeof(*fresh.entries);

	if (capacity) {
		fresh.entries = vmemi_zalloc(&d->memory.allocator, bytes, VMEMI_DEDUP_LINE_BYTES);
		if (!fresh.entries)
			return -VMEM_ENOMEM;
	}
	vmemi_lock(&s->lock);
	old = fresh;
	if (vmemi_dedup_spill_room(&fresh) >= s->spill.used + more) {
		old = s->spill;
		for (uint32_t i = 0; i < old.capacity; i++)
			if (old.entries[i].kind)
				vmemi_dedup_spill_put(&fresh, old.entries[i]);
		s->spill = fresh;
	}
	vmemi_unlock(&s->lock);
	vmemi_free(&d->memory.allocator, old.entries, old.capacity * sizeof(*old.entries),
		   VMEMI_DEDUP_LINE_BYTES);
	return 0;
}

int vmemi_dedup_spill_grow(struct vmem_dedup *d, struct vmemi_dedup_stripe *s, uint32_t more)
{
	for (;;) {
		uint32_t capacity = SPILL_LEAST, used, room;
		int err;

		vmemi_lock(&s->lock);
		used = s->spill.used;
		room = vmemi_dedup_spill_room(&s->spill);
		vmemi_unlock(&s->lock);
		if (room >= more)
			return 0;
		while (vmemi_dedup_spill_holds(capacity) < used + more)
			capacity *= 2;
		err = spill_resize(d, s, capacity, more);
		if (err)
			return err;
	}
}

/* Gives up most of a spill that is nearly empty. */
static void spill_shrink(struct vmem_dedup *d, struct vmemi_dedup_stripe *s)
{
	uint32_t capacity, used;

	vmemi_lock(&s->lock);
	capacity = s->spill.capacity;
	used = s->spill.used;
	vmemi_unlock(&s->lock);
	if (!used && capacity)
		spill_resize(d, s, 0, 0);
	else if (capacity > SPILL_LEAST && used < capacity / 8)
		spill_resize(d, s, capacity / 4, 0);
}

/* --- Moving groups --- */

struct leftovers {
	uint32_t count;
	vmemi_dedup_entry entry[VMEMI_DEDUP_LINES_SPLIT * VMEMI_DEDUP_LINE_ENTRIES];
};

/* Copies the entries of some groups to others, whose memory is used for nothing yet. */
static void copy_entries(const struct vmem_dedup *d, struct side from, struct side to,
			 struct leftovers *left)
{
	struct vmemi_dedup_group target[2];
	uint8_t filled[2][VMEMI_DEDUP_LINES_SPLIT] = { { 0 } };

	left->count = 0;
	for (uint32_t i = 0; i < to.count; i++) {
		target[i] = vmemi_dedup_group_at(d, to.where[i]);
		if (target[i].lines)
			memset(target[i].entries, 0,
			       (size_t)target[i].lines * VMEMI_DEDUP_LINE_BYTES);
	}
	for (uint32_t i = 0; i < from.count; i++) {
		struct vmemi_dedup_group source = vmemi_dedup_group_at(d, from.where[i]);

		for (uint32_t n = 0; n < source.lines * VMEMI_DEDUP_LINE_ENTRIES; n++) {
			vmemi_dedup_entry entry = source.entries[n];
			uint32_t mix = vmemi_dedup_entry_mix(entry, from.where[i].number);
			uint32_t half = to.count == 2 ? mix >> from.where[i].level & 1 : 0;
			uint32_t line = vmemi_dedup_home(mix, target[half].lines);
			uint32_t tries = target[half].lines;

			if (!entry)
				continue;
			for (; filled[half][line] == VMEMI_DEDUP_LINE_ENTRIES && --tries;)
				line = vmemi_dedup_line_after(line, target[half].lines);
			if (tries)
				target[half].entries[line * VMEMI_DEDUP_LINE_ENTRIES +
						     filled[half][line]++] = entry;
			else
				left->entry[left->count++] = entry;
		}
	}
}

/* What was left over is spilled. Locked; there is room. */
static void spill_leftovers(struct vmemi_dedup_spill *spill, uint32_t low,
			    const struct leftovers *left)
{
	for (uint32_t i = 0; i < left->count; i++) {
		uint32_t mix = vmemi_dedup_entry_mix(left->entry[i], low);
		uint32_t id = vmemi_dedup_entry_id(left->entry[i]);
		uint32_t count = vmemi_dedup_entry_count(left->entry[i]);

		if (count == VMEMI_DEDUP_COUNT_SPILLED)
			vmemi_dedup_spill_all_of(spill, vmemi_dedup_spill_count(spill, mix, id));
		else
			vmemi_dedup_spill_put(spill, (struct vmemi_dedup_spilled){
							     mix, id, count, VMEMI_DEDUP_WHOLE });
	}
}

/* 0, -VMEM_ENOMEM: then nothing has changed. */
static int move_group(struct vmem_dedup *d, struct side from, struct side to,
		      vmemi_dedup_geometry then)
{
	uint32_t low = from.where[0].number;
	struct vmemi_dedup_stripe *s = vmemi_dedup_stripe_of(d, low);
	struct leftovers left;
	bool fits;

	do {
		vmemi_lock(&s->lock);
		copy_entries(d, from, to, &left);
		fits = left.count <= vmemi_dedup_spill_room(&s->spill);
		if (fits) {
			spill_leftovers(&s->spill, low, &left);
			atomic_store_explicit(&d->geometry, then, memory_order_release);
			for (uint32_t i = 0; i < to.count; i++)
				vmemi_dedup_refill(s, vmemi_dedup_group_at(d, to.where[i]),
						   to.where[i]);
		}
		vmemi_unlock(&s->lock);
	} while (!fits && !vmemi_dedup_spill_grow(d, s, left.count));
	return fits ? 0 : -VMEM_ENOMEM;
}

static int do_step(struct vmem_dedup *d, struct side from, struct side to,
		   vmemi_dedup_geometry then)
{
	bool made[2] = { false, false };
	int err = make_chunks(d, to, made);

	if (err)
		return err;
	err = move_group(d, from, to, then);
	for (uint32_t i = 0; err && i < to.count; i++)
		if (made[i])
			free_chunk(d, to.where[i]);
	return err;
}

/* Whether it is the first or last group in its chunk. */
static bool at_edge(struct vmemi_dedup_where w, bool last)
{
	uint32_t mask = (1u << vmemi_dedup_chunk_shift(w.level)) - 1;

	return (w.number & mask) == (last ? mask : 0);
}

/* Gives one group a line more. 0, -VMEM_ENOMEM, -VMEM_ENOSPC (as large as it can be). */
static int step_up(struct vmem_dedup *d)
{
	vmemi_dedup_geometry g = atomic_load_explicit(&d->geometry, memory_order_relaxed);
	uint32_t level = vmemi_dedup_level(g), lines = vmemi_dedup_lines(g);
	uint32_t moved = vmemi_dedup_moved(g);
	struct step s;
	int err;

	if (moved == 1u << level) {
		struct vmemi_dedup_where next = step_of(level, lines, 0).large[0];

		level = next.level;
		lines = next.lines;
		moved = 0;
	}
	s = step_of(level, lines, moved);
	if (s.large[0].level > VMEMI_DEDUP_LEVEL_LAST)
		return -VMEM_ENOSPC;
	err = do_step(d, (struct side){ &s.small, 1 }, (struct side){ s.large, s.large_count },
		      geometry_of(level, lines, moved + 1));
	if (!err && at_edge(s.small, true))
		free_chunk(d, s.small);
	return err;
}

/* Takes a line from the group that got one last. As step_up(); -VMEM_ENOSPC: as small as it can be. */
static int step_down(struct vmem_dedup *d)
{
	vmemi_dedup_geometry g = atomic_load_explicit(&d->geometry, memory_order_relaxed);
	uint32_t level = vmemi_dedup_level(g), lines = vmemi_dedup_lines(g);
	uint32_t moved = vmemi_dedup_moved(g);
	struct step s;
	int err;

	if (!moved) {
		if (level > VMEMI_DEDUP_LEVEL_FIRST && lines == VMEMI_DEDUP_LINES_SPLIT / 2) {
			level--;
			lines = VMEMI_DEDUP_LINES_SPLIT;
		}
		if (!lines--)
			return -VMEM_ENOSPC;
		moved = 1u << level;
	}
	s = step_of(level, lines, moved - 1);
	err = do_step(d, (struct side){ s.large, s.large_count }, (struct side){ &s.small, 1 },
		      geometry_of(level, lines, moved - 1));
	for (uint32_t i = 0; !err && i < s.large_count; i++)
		if (at_edge(s.large[i], false))
			free_chunk(d, s.large[i]);
	return err;
}

/* --- When --- */

static bool begin(struct vmem_dedup *d)
{
	return !atomic_exchange_explicit(&d->resizing, 1, memory_order_acquire);
}

static void end(struct vmem_dedup *d)
{
	atomic_store_explicit(&d->resizing, 0, memory_order_release);
}

void vmemi_dedup_grow(struct vmem_dedup *d)
{
	if (!vmemi_dedup_too_full(d) || !begin(d))
		return;
	for (uint32_t n = 0; n < STEPS_AT_ONCE && vmemi_dedup_too_full(d); n++)
		if (step_up(d))
			break;
	end(d);
}

int vmem_dedup_work(vmem_dedup *d, uint32_t max_lines)
{
	int err = 0;

	if (!begin(d))
		return 1;
	for (uint32_t n = 0; !err && n < max_lines && too_empty(d); n++)
		err = step_down(d);
	for (uint32_t n = 0; !err && n < max_lines && vmemi_dedup_too_full(d); n++)
		err = step_up(d);
	end(d);
	if (!err && (too_empty(d) || vmemi_dedup_too_full(d)))
		return 1;
	for (uint32_t i = 0; i < VMEMI_DEDUP_STRIPES; i++)
		spill_shrink(d, &d->stripe[i]);
	return 0;
}

void vmemi_dedup_resize_init(struct vmem_dedup *d)
{
	atomic_store(&d->geometry, geometry_of(VMEMI_DEDUP_LEVEL_FIRST, 0, 0));
}

/* Frees all chunks that groups of this kind have. */
static void free_chunks(struct vmem_dedup *d, struct vmemi_dedup_where w)
{
	if (w.level > VMEMI_DEDUP_LEVEL_LAST || !vmemi_dedup_chunk_at(d, w))
		return;
	for (; w.number < 1u << w.level; w.number += 1u << vmemi_dedup_chunk_shift(w.level))
		free_chunk(d, w);
}

void vmemi_dedup_resize_destroy(struct vmem_dedup *d)
{
	vmemi_dedup_geometry g = atomic_load(&d->geometry);
	struct step s = step_of(vmemi_dedup_level(g), vmemi_dedup_lines(g), 0);

	if (g) {
		free_chunks(d, s.small);
		free_chunks(d, s.large[0]);
	}
	for (uint32_t n = 0; n <= VMEMI_DEDUP_LEVEL_LAST - VMEMI_DEDUP_LEVEL_FIRST; n++)
		for (uint32_t odd = 0; odd < 2; odd++)
			vmemi_free(&d->memory.allocator, atomic_load(&d->chunks[n][odd]),
				   array_bytes(n + VMEMI_DEDUP_LEVEL_FIRST),
				   VMEMI_DEDUP_LINE_BYTES);
}
