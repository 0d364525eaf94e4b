/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables that nothing points to any more, but that processors may still read by what they remember of upper entries,
 * until the caller has flushed. Their entries stay as they are but for bits 56:52, which all formats ignore in all
 * entries: three numbers of 40 bits are in those of the first 24, 5 bits in each: the next table of the list, the
 * epoch, and for merged tables where they were.
 *
 * A processor that still uses a merged table sets accessed and dirty bits there: they are taken over into what maps
 * the place by then, when the flush is done. Guard: serial calls. */
#include "ept/ept_runs.h"
#include "ept/ept_tree.h"

#define PIECE_SHIFT 52u
#define PIECE UINT64_C(0x1f)
#define PIECES 8u /* of a number */
enum { NEXT, EPOCH, PLACE };
#define EPOCH_MASK ((UINT64_C(1) << 40) - 1)
#define PLACE_MERGED (UINT64_C(1) << 39)
#define PLACE_LARGE (UINT64_C(1) << 38) /* a table of level 2 */

static void put(const vmem_ept *ept, uint64_t *table, uint32_t which, uint64_t number)
{
	uint64_t *slot = table + which * PIECES;

	for (uint32_t i = 0; i < PIECES; i++, number >>= 5)
		vmemi_ept_change(ept, slot + i, ~(PIECE << PIECE_SHIFT),
				 (number & PIECE) << PIECE_SHIFT);
}

static uint64_t get(const uint64_t *table, uint32_t which)
{
	uint64_t number = 0;

	for (uint32_t i = PIECES; i-- > 0;)
		number = number << 5 |
			 (vmemi_ept_load(table + which * PIECES + i) >> PIECE_SHIFT & PIECE);
	return number;
}

static void wait_for_flush(struct vmemi_ept_call *c, uint64_t hpa, uint32_t level, uint64_t place)
{
	vmem_ept *ept = c->ept;
	uint64_t *table = vmemi_ept_at(ept, hpa);

	if (!c->change->epoch)
		c->change->epoch = ++ept->epoch;
	put(ept, table, EPOCH, ept->epoch & EPOCH_MASK);
	put(ept, table, PLACE, place);
	if (ept->waiting++)
		put(ept, vmemi_ept_at(ept, ept->retired_last), NEXT, hpa >> VMEM_PAGE_SHIFT);
	else
		ept->retired_first = hpa;
	ept->retired_last = hpa;
	ept->tables[level - 1]--;
}

void vmemi_ept_retire(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level)
{
	wait_for_flush(c, table_hpa, level, 0);
}

void vmemi_ept_retire_merged(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level,
			     uint64_t gpa)
{
	wait_for_flush(c, table_hpa, level,
		       PLACE_MERGED | (level == 2 ? PLACE_LARGE : 0) | gpa >> vmemi_ept_shift(2));
}

/* Takes what is in a table out of the counts. */
static void forget_entries(vmem_ept *ept, const uint64_t *table, uint32_t level)
{
	const uint64_t present = ept->present;
	uint64_t leaves = 0, payloads = 0;

	for (uint32_t i = 0; i < VMEM_EPT_ENTRIES; i++) {
		uint64_t entry = vmemi_ept_load(&table[i]);

		payloads += vmemi_ept_is_payload(entry);
		leaves += (entry & present) && (entry & VMEMI_EPT_LEAF);
	}
	ept->leaves[level - 1] -= leaves;
	ept->payload_pages -= payloads << (vmemi_ept_shift(level) - VMEM_PAGE_SHIFT);
}

void vmemi_ept_retire_tree(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level,
			   uint64_t gpa)
{
	struct vmemi_ept_tree tree;

	vmemi_ept_tree_begin(c->ept, &tree, table_hpa, level);
	while (vmemi_ept_tree_next(c->ept, &tree)) {
		forget_entries(c->ept, tree.table, tree.level);
		vmemi_ept_retire(c, tree.hpa, tree.level);
	}
	vmemi_ept_owe(c, gpa, vmemi_ept_bytes(level + 1));
}

static void set_bits(const vmem_ept *ept, uint64_t *slot, uint64_t bits)
{
	if (!(~vmemi_ept_load(slot) & bits))
		return;
	vmemi_ept_change(ept, slot, ~UINT64_C(0), bits);
	vmemi_ept_written(ept, slot, 1);
}

/* Upper entries too, for harvests that look only below those that are accessed. */
static void set_leaf(const vmem_ept *ept, const struct vmemi_ept_path *path, uint64_t bits)
{
	if (!vmemi_ept_is_leaf(path->entry))
		return;
	set_bits(ept, path->slots[path->level], bits);
	for (uint32_t level = path->level + 1; level <= ept->levels; level++)
		set_bits(ept, path->slots[level], bits & ept->accessed);
}

/* Into the leaf that the table became, or those that this was split into since. */
static void take_over(vmem_ept *ept, const uint64_t *table, uint64_t place)
{
	uint64_t gpa = (place & ~(PLACE_MERGED | PLACE_LARGE)) << vmemi_ept_shift(2);
	uint64_t end = gpa + vmemi_ept_bytes(place & PLACE_LARGE ? 3 : 2);
	uint64_t bits = vmemi_ept_any_of(table, VMEM_EPT_ENTRIES) & (ept->accessed | ept->dirty);
	struct vmemi_ept_path path;

	while (bits && gpa < end) {
		vmemi_ept_descend(ept, gpa, 1, &path);
		set_leaf(ept, &path, bits);
		gpa = (gpa | (vmemi_ept_bytes(path.level) - 1)) + 1;
	}
}

void vmem_ept_flushed(vmem_ept *ept, uint64_t epoch)
{
	while (ept->waiting) {
		uint64_t hpa = ept->retired_first, *table = vmemi_ept_at(ept, hpa), place;

		/* Epochs that wait are less than 2^39 apart. */
		if ((epoch - get(table, EPOCH)) & UINT64_C(1) << 39)
			break;
		place = get(table, PLACE);
		if ((place & PLACE_MERGED) && ept->accessed)
			take_over(ept, table, place);
		ept->retired_first = get(table, NEXT) << VMEM_PAGE_SHIFT;
		ept->waiting--;
		__atomic_fetch_sub(&ept->pages, 1, __ATOMIC_RELAXED);
		ept->memory.free(ept->memory.context, hpa);
	}
}
