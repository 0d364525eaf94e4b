/* SPDX-License-Identifier: BSD-2-Clause */
/* Second-stage tables: the object, and the bits of its entries that are ours.
 *
 * In all three formats bit 0 of an entry lets read, bit 1 lets write, and bit 7 is set in large leaves; the rest that
 * differs are masks in the object, so that the loops over entries are the same code for all, with the masks in
 * registers. Bits of our own are among those that every format ignores:
 *   LEAF   in each leaf, with rights or without: it has an address
 *   MARK   in a payload, never in a present entry; bits 9:3 and 61:11 are its 58 bits, 51:12 of them perhaps inverted
 *   what is neither, and no table, is empty: 0, or bit 63 alone with VMEM_EPT_SUPPRESS_ALL_VE.
 *
 * A range call looks first (does it fit, is it allowed, how many tables will it need), takes all tables from the
 * caller into the reserve, and then changes entries, which cannot fail. Tables that it leaves out are retired: on a
 * list until the caller has flushed, with their old contents, because processors may still read them. The list is in
 * the ignored bits of their entries (ept_retire.c), so that taking away never needs memory.
 * Guard: calls that change ranges are serial. What vmem_ept_install() changes too is accessed atomically there. */
#ifndef VMEMI_EPT_OBJECT_H
#define VMEMI_EPT_OBJECT_H
#include <stdbool.h>
#include <vmem/ept.h>
#include "base/alloc.h"

#define VMEMI_EPT_PRESENT_BIT UINT64_C(1) /* of tables, and of what may be read */
#define VMEMI_EPT_WRITE_BIT UINT64_C(2)
/* Intel: what lets processors write besides the right to: guest page walks, shadow stacks, parts of a page. */
#define VMEMI_EPT_WRITES_BESIDE \
	(VMEM_EPT_INTEL_PAGING_WRITE | VMEM_EPT_INTEL_SHADOW_STACK | VMEM_EPT_INTEL_SUBPAGE)
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

/* What vmem_ept_install() counts, on top of what the object has: by thread, so that they do not share lines, nor
 * pairs of lines that are fetched together. Modulo 2^64. Atomic; read by serial calls. */
#define VMEMI_EPT_STRIPE_BITS 4u
struct vmemi_ept_stripe {
	_Alignas(128) uint64_t leaves[VMEM_EPT_LEVELS];
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
	uint64_t absent;       /* an entry with nothing */
	uint64_t payload_flip; /* bits of payloads that are kept inverted */
	uint64_t present;      /* an entry with one of these bits is present */
	uint64_t table_bits;   /* of an entry that points to a table */
	uint64_t accessed;     /* 0 if they are off */
	uint64_t dirty;
	uint64_t writes;          /* an entry with one of these bits may be written through */
	uint32_t rights_able;     /* bit r: leaves may have the rights r */
	uint32_t types_able;      /* bit t: the memory type t */
	uint32_t leaf_flags_able; /* VMEM_EPT_LEAF_* */
	uint64_t common_mask;     /* vmem_ept_translate(): of these bits most leaves have */
	uint64_t common_bits;     /* exactly these */
	uint32_t common_flags;
	uint64_t quick_end; /* first gpa that takes more than four loads at a constant offset */
	uint64_t last_leaf
		[2]; /* vmem_ept_map(): rights and type, flags and level of the last small leaf */
	uint64_t last_bits;                               /* and its entry without the address */
	uint32_t largest;                                 /* level of the largest leaves */
	uint64_t max_tables;                              /* UINT64_MAX: no quota */
	void (*write_back)(const void *at, size_t bytes); /* NULL: caches are coherent */
	struct vmemi_ept_reserve reserve;
	uint64_t pages; /* from the caller: root, tables, those that wait; atomic */
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

#endif
