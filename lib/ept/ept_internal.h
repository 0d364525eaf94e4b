/* SPDX-License-Identifier: BSD-2-Clause */
/* Second-stage tables: the object, its entries, and what all of its calls are made of.
 *
 * In all three formats bit 0 of an entry lets read, bit 1 lets write, and bit 7 is set in large leaves; the rest that
 * differs are masks in the object, so that the loops over entries are the same code for all, with the masks in
 * registers. Bits of our own are among those that every format ignores:
 *   LEAF   in each leaf, with rights or without: it has an address
 *   MARK   in a payload, never in a present entry; bits 9:3 and 61:11 are its 58 bits
 *   what is neither, and no table, is empty: 0, or bit 63 alone with VMEM_EPT_SUPPRESS_ALL_VE.
 *
 * A range call looks first (does it fit, is it allowed, how many tables will it need), takes all tables from the
 * caller into the reserve, and then changes entries, which cannot fail. Tables that it leaves out are retired: on a
 * list until the caller has flushed, with their old contents, because processors may still read them. The list is in
 * the ignored bits of their entries (ept_retire.c), so that taking away never needs memory.
 * Guard: calls that change ranges are serial. What vmem_ept_install() changes too is accessed atomically there. */
#ifndef VMEMI_EPT_INTERNAL_H
#define VMEMI_EPT_INTERNAL_H
#include <stdbool.h>
#include <vmem/ept.h>
#include "base/alloc.h"

#define VMEMI_EPT_PRESENT_BIT UINT64_C(1) /* of tables, and of what may be read */
#define VMEMI_EPT_WRITE_BIT UINT64_C(2)
#define VMEMI_EPT_LARGE_BIT UINT64_C(0x80)
#define VMEMI_EPT_LOGGED (UINT64_C(1) << 52) /* the right to write was taken for the log */
#define VMEMI_EPT_LEAF (UINT64_C(1) << 53)
#define VMEMI_EPT_MARK (UINT64_C(1) << 62)
#define VMEMI_EPT_NO_VE (UINT64_C(1) << 63)
#define VMEMI_EPT_NO_PAYLOAD UINT64_MAX

/* Pages taken from the caller, on their way to become tables: a page holds the addresses of others, its first word
 * that of the page before it. Guard: the call. */
struct vmemi_ept_reserve {
	uint64_t *page; /* NULL: empty */
	uint64_t page_hpa;
	uint32_t count; /* addresses in page[1 ...] */
	uint64_t total; /* pages in all */
};

/* What vmem_ept_install() counts, on top of what the object has: by place, so that threads do not share lines. Modulo
 * 2^64. Atomic; read by serial calls. */
#define VMEMI_EPT_STRIPE_BITS 4u
struct vmemi_ept_stripe {
	_Alignas(64) uint64_t leaves[VMEM_EPT_LEVELS];
	uint64_t payload_pages;
	uint64_t installs_lost;
};

struct vmem_ept {
	struct vmem_allocator allocator;
	struct vmem_ept_memory memory;
	uint64_t *root;
	uint64_t root_hpa;
	uint64_t guest_end; /* first gpa beyond */
	uint64_t host_end;  /* first hpa beyond */
	uint64_t flags;
	uint64_t caps;
	uint32_t format;
	uint32_t levels;
	uint64_t absent;     /* an entry with nothing */
	uint64_t present;    /* an entry with one of these bits is present */
	uint64_t table_bits; /* of an entry that points to a table */
	uint64_t accessed;   /* 0 if they are off */
	uint64_t dirty;
	uint32_t rights_able;                             /* bit r: leaves may have the rights r */
	uint32_t types_able;                              /* bit t: the memory type t */
	uint32_t leaf_flags_able;                         /* VMEM_EPT_LEAF_* */
	uint32_t largest;                                 /* level of the largest leaves */
	uint64_t max_tables;                              /* UINT64_MAX: no quota */
	void (*write_back)(const void *at, size_t bytes); /* NULL: caches are coherent */
	struct vmemi_ept_reserve reserve;
	uint64_t pages; /* from the caller: root, tables, those that wait; atomic in install */
	uint64_t retired_first, retired_last; /* hpa of tables that wait; first to free first */
	uint64_t epoch;                       /* of the last call that retired tables */
	uint64_t payload_pages;
	uint64_t waiting;
	uint64_t tables[VMEM_EPT_LEVELS]; /* atomic in install */
	uint64_t leaves[VMEM_EPT_LEVELS];
	struct vmemi_ept_stripe stripes[1u << VMEMI_EPT_STRIPE_BITS];
};

/* One call: where its results go. Guard: the call. */
struct vmemi_ept_call {
	vmem_ept *ept;
	struct vmem_ept_change
		*change; /* the caller's, or ours below if that is shorter or longer */
	struct vmem_ept_change *given;
	struct vmem_ept_change ours;
};

/* Where a walk came to: slots[level ... levels] are the entries on the way. */
struct vmemi_ept_path {
	uint64_t *slots[VMEM_EPT_LEVELS + 1];
	uint64_t entry;
	uint32_t level;
};

static inline uint64_t *vmemi_ept_at(const vmem_ept *ept, uint64_t hpa)
{
	if (ept->memory.map)
		return ept->memory.map(ept->memory.context, hpa);
	return (uint64_t *)(uintptr_t)(hpa + ept->memory.offset);
}

static inline uint64_t vmemi_ept_load(const uint64_t *slot)
{
	return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

static inline void vmemi_ept_store(uint64_t *slot, uint64_t entry)
{
	__atomic_store_n(slot, entry, __ATOMIC_RELAXED);
}

/* The table behind the new entry is whole. */
static inline void vmemi_ept_link(uint64_t *slot, uint64_t entry)
{
	__atomic_store_n(slot, entry, __ATOMIC_RELEASE);
}

static inline uint32_t vmemi_ept_shift(uint32_t level)
{
	return 3 + 9 * level;
}

static inline uint64_t vmemi_ept_bytes(uint32_t level)
{
	return UINT64_C(1) << vmemi_ept_shift(level);
}

static inline uint32_t vmemi_ept_index(uint64_t gpa, uint32_t level)
{
	return (uint32_t)(gpa >> vmemi_ept_shift(level)) & (VMEM_EPT_ENTRIES - 1);
}

/* Of a level above 1. */
static inline bool vmemi_ept_is_table(uint64_t entry)
{
	return (entry & (VMEMI_EPT_PRESENT_BIT | VMEMI_EPT_LARGE_BIT | VMEMI_EPT_LEAF)) ==
	       VMEMI_EPT_PRESENT_BIT;
}

/* A leaf, with rights or without. */
static inline bool vmemi_ept_is_leaf(uint64_t entry)
{
	return (entry & (VMEMI_EPT_LEAF | VMEMI_EPT_MARK)) == VMEMI_EPT_LEAF;
}

static inline bool vmemi_ept_is_payload(uint64_t entry)
{
	return (entry & VMEMI_EPT_MARK) != 0;
}

static inline bool vmemi_ept_is_empty(uint64_t entry)
{
	return !(entry & ~VMEMI_EPT_NO_VE);
}

static inline uint64_t vmemi_ept_payload_entry(const vmem_ept *ept, uint64_t payload)
{
	return VMEMI_EPT_MARK | (payload & 0x7f) << 3 | payload >> 7 << 11 | ept->absent;
}

static inline uint64_t vmemi_ept_payload(uint64_t entry)
{
	return (entry >> 3 & 0x7f) | (entry & ~(VMEMI_EPT_MARK | VMEMI_EPT_NO_VE)) >> 11 << 7;
}

/* The processor may still set bits in it: then a change must be a compare and exchange. */
static inline bool vmemi_ept_is_restless(const vmem_ept *ept, uint64_t entry)
{
	return (~entry & ept->accessed) || ((~entry & ept->dirty) && (entry & VMEMI_EPT_WRITE_BIT));
}

/* Changes an entry so that no bit that a processor sets meanwhile is lost; returns what it was. */
static inline uint64_t vmemi_ept_change(const vmem_ept *ept, uint64_t *slot, uint64_t and,
					uint64_t or)
{
	uint64_t entry = vmemi_ept_load(slot);

	if (!(entry & ept->present) || !vmemi_ept_is_restless(ept, entry)) {
		vmemi_ept_store(slot, (entry & and) | or);
		return entry;
	}
	while (!__atomic_compare_exchange_n(slot, &entry, (entry & and) | or, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return entry;
}

/* After entries were written, before the next that relies on them. */
static inline void vmemi_ept_written(const vmem_ept *ept, const void *at, uint64_t entries)
{
	if (ept->write_back)
		ept->write_back(at, (size_t)(8 * entries));
}

/* Goes down to @stop, or to the first entry above it that is no table. */
static inline void vmemi_ept_descend(const vmem_ept *ept, uint64_t gpa, uint32_t stop,
				     struct vmemi_ept_path *path)
{
	uint32_t level = ept->levels;
	uint64_t *table = ept->root;
	uint64_t entry;

	for (;;) {
		path->slots[level] = table + vmemi_ept_index(gpa, level);
		entry = vmemi_ept_load(path->slots[level]);
		if (level <= stop || !vmemi_ept_is_table(entry))
			break;
		table = vmemi_ept_at(ept, entry & VMEM_EPT_ADDRESS);
		level--;
	}
	path->entry = entry;
	path->level = level;
}

/* ept_call.c: begins a range call: sizes, alignment, width. 0, -VMEM_EINVAL, -VMEM_ERANGE. */
int vmemi_ept_begin(struct vmemi_ept_call *c, vmem_ept *ept, uint64_t gpa, uint64_t bytes,
		    struct vmem_ept_change *change);
/* Ends it: gives the rest of the reserve back, hands the results over. Returns @err. */
int vmemi_ept_end(struct vmemi_ept_call *c, int err);
/* An error, with its reason and place; returns @err. */
int vmemi_ept_fail(struct vmemi_ept_call *c, int err, uint32_t reason, uint64_t at);
/* The range must be invalidated. */
void vmemi_ept_owe(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes);

/* ept_reserve.c: takes @tables from the caller. 0, or an error: then none was taken. */
int vmemi_ept_take(struct vmemi_ept_call *c, uint64_t tables, uint64_t at);
/* One of those taken, for a table of @level. */
uint64_t *vmemi_ept_table_new(vmem_ept *ept, uint32_t level, uint64_t *ret_hpa);
void vmemi_ept_give_back(vmem_ept *ept);
/* The entry for a table. */
static inline uint64_t vmemi_ept_table_entry(const vmem_ept *ept, uint64_t hpa)
{
	return hpa | ept->table_bits;
}

/* ept_retire.c: the table of @level, that the caller has unlinked, waits for the flush. */
void vmemi_ept_retire(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level);
/* As it is merged into the leaf at @gpa: bits that a processor sets in it until the flush go there. */
void vmemi_ept_retire_merged(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level,
			     uint64_t gpa);
/* Retires the table and all below it, with what is mapped there. @gpa: where it begins. */
void vmemi_ept_retire_tree(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level,
			   uint64_t gpa);

/* ept_split.c: makes a table of what is at @path->entry (leaf, payload or nothing) and goes down into it, towards
 * @gpa. One table of the reserve. */
void vmemi_ept_push_down(struct vmemi_ept_call *c, uint64_t gpa, struct vmemi_ept_path *path);
/* Splits what is mapped in a range by leaves of a level above @level: all of it, or an error and nothing. */
int vmemi_ept_split_range(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes, uint32_t level);
/* Splits leaves (and payloads that stand for more than a page, if so told) that stick out of a range. Likewise. */
int vmemi_ept_cut(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes, bool payloads);

/* Fills entries: first, first + step ... */
static inline void vmemi_ept_fill(uint64_t *slot, uint64_t count, uint64_t entry, uint64_t step)
{
	uint64_t *end = slot + count;

	for (; end - slot >= 4; slot += 4) {
		vmemi_ept_store(slot, entry);
		vmemi_ept_store(slot + 1, entry + step);
		vmemi_ept_store(slot + 2, entry + 2 * step);
		vmemi_ept_store(slot + 3, entry + 3 * step);
		entry += 4 * step;
	}
	for (; slot < end; slot++, entry += step)
		vmemi_ept_store(slot, entry);
}

#endif
