/* SPDX-License-Identifier: BSD-2-Clause */
/* What second-stage tables must say, kept as a sorted list of plain extents, and operations on both at a time. Numbers
 * come from a generator, or from the bytes of a fuzzer. A pretend processor (ept_processor.c) may look on. Whatever
 * does not hold ends the program with a line that says where. */
#ifndef VMEMT_EPT_MODEL_H
#define VMEMT_EPT_MODEL_H
#include <stdio.h>
#include <stdlib.h>
#include <vmem/ept_track.h>
#include "support/fail_alloc.h"
#include "support/rng.h"

#define VMEMT_HOLDS(condition)                                                            \
	do {                                                                              \
		if (!(condition)) {                                                       \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, \
				#condition);                                              \
			abort();                                                          \
		}                                                                         \
	} while (0)

#define VMEMT_EPT_BASE UINT64_C(0x40000000) /* physical address of the first page for tables */
enum {
	VMEMT_EPT_EXTENTS = 4096,
	VMEMT_EPT_BUCKETS = 1024,
	VMEMT_EPT_PENDING = 48,
	VMEMT_EPT_TABLES = 2048,
	VMEMT_EPT_BITMAP = 2048, /* pages */
};

/* Pages for tables, of which each state is known. */
struct vmemt_ept_memory {
	struct vmem_ept_memory memory;
	uint8_t *pages, *copy, *used, *used_copy;
	uint32_t count, cursor;
	uint32_t live;
	long fail_after; /* this many succeed and the next fails; -1: none */
	long failed;
};

/* Leaves in a row of one level and alike, or payloads. */
struct vmemt_ept_extent {
	uint64_t gpa, bytes;
	uint64_t value; /* hpa, or payload */
	uint64_t step;  /* payloads: for each page */
	uint32_t level; /* 0: payloads */
	uint32_t rights, type, flags;
	uint32_t logged; /* the right to write comes and goes with the log */
};

/* What a processor may remember: a translation, an entry above one, or that there is none. */
enum vmemt_ept_kind { VMEMT_EPT_TRANSLATION, VMEMT_EPT_UPPER, VMEMT_EPT_ABSENCE };
struct vmemt_ept_cached {
	enum vmemt_ept_kind kind;
	uint32_t rights, type;
	uint32_t level; /* of the entry that it was read from */
	uint32_t bits;  /* VMEM_EPT_LEAF_ACCESSED, _DIRTY: it need not set them again */
	uint32_t next;  /* of its bucket, or of those that are free; one more than its number */
	uint64_t gpa, bytes;
	uint64_t hpa;   /* of the page, or of the table below */
	uint64_t until; /* it may be wrong until this change has been told; 0: it may not */
};

/* A change of which processors were not told yet, or, if told, of which tables wait. */
struct vmemt_ept_pending {
	struct vmem_ept_change change;
	uint64_t number;
	uint32_t told;
};

/* An upper entry, and the table that it points to. */
struct vmemt_ept_upper {
	uint64_t gpa, hpa;
	uint32_t level;
};

/* A table that became a leaf, and the bits that are in it. */
struct vmemt_ept_merged {
	uint64_t gpa, bytes, hpa, epoch;
	uint32_t bits;
};

struct vmemt_ept_world {
	vmem_ept *ept;
	struct vmem_ept_capabilities caps;
	struct vmem_ept_opts opts;
	struct vmemt_fail_alloc allocator;
	struct vmemt_ept_memory memory;
	uint64_t rng;
	const uint8_t *data; /* NULL: numbers are drawn from rng */
	size_t left;
	uint64_t top;       /* first address that is out of reach */
	uint32_t failing;   /* each operation is tried with each of its allocations failing */
	uint32_t quota;     /* each is tried with a quota that may be too small */
	uint32_t ranges;    /* enum vmemt_ept_ranges */
	uint32_t processor; /* the pretend processor looks on */
	struct vmem_ept_change change; /* of the last operation */
	uint32_t extents;
	struct vmemt_ept_extent extent[VMEMT_EPT_EXTENTS];
	uint64_t changes; /* numbers given to changes */
	uint32_t pending_count;
	struct vmemt_ept_pending pending[VMEMT_EPT_PENDING]; /* oldest first */
	uint32_t merged_count, before_count, unused_count;
	struct vmemt_ept_merged merged[VMEMT_EPT_TABLES]; /* they wait for vmem_ept_flushed() */
	struct vmemt_ept_upper before[VMEMT_EPT_TABLES];  /* a merge; those in its range */
	struct vmemt_ept_upper unused[VMEMT_EPT_TABLES];  /* their accessed bit was cleared */
	uint32_t cached, cache_room, cache_free;
	struct vmemt_ept_cached *cache;
	uint32_t bucket[VMEMT_EPT_BUCKETS];               /* by place */
	uint64_t logged[VMEM_EPT_PML_ENTRIES], log_count; /* pages of pml, in order */
	uint64_t pml[VMEM_EPT_PML_ENTRIES];
	uint16_t pml_index;
};

/* Which ranges operations have: any, a few pages, or a few pages and whole large ones of 2 MiB. */
enum vmemt_ept_ranges { VMEMT_EPT_ANY, VMEMT_EPT_SMALL, VMEMT_EPT_MIDDLE };

/* A number below @limit. */
uint64_t vmemt_ept_draw(struct vmemt_ept_world *w, uint64_t limit);

/* Of a leaf, as the processor can have it; rare: no flag, or one that few leaves have. */
uint32_t vmemt_ept_draw_rights(struct vmemt_ept_world *w);
uint32_t vmemt_ept_draw_type(struct vmemt_ept_world *w);
uint32_t vmemt_ept_draw_rare(struct vmemt_ept_world *w);

/* One of @n times. */
static inline int one_of(struct vmemt_ept_world *w, uint32_t n)
{
	return vmemt_ept_draw(w, n) == 0;
}

/* A world with random properties, and what happens in it. */
struct vmemt_ept_world *vmemt_ept_world_new(uint64_t seed, const uint8_t *data, size_t bytes,
					    uint32_t pages);
void vmemt_ept_world_free(struct vmemt_ept_world *w);
/* One random operation on both, then compares. */
void vmemt_ept_step(struct vmemt_ept_world *w);

/* Memory for tables. */
void vmemt_ept_memory_init(struct vmemt_ept_memory *m, uint32_t pages, int by_callback);
void vmemt_ept_memory_done(struct vmemt_ept_memory *m);
void vmemt_ept_memory_save(struct vmemt_ept_memory *m);
int vmemt_ept_memory_same(const struct vmemt_ept_memory *m);
uint64_t *vmemt_ept_table(const struct vmemt_ept_memory *m, uint64_t hpa);

/* The list. first(): the first extent that ends behind gpa, or the number of extents. cut(): no leaf crosses gpa;
 * cut_at_leaves(): extents end where the leaf does that crosses it. */
uint32_t vmemt_ept_first(const struct vmemt_ept_world *w, uint64_t gpa);
int vmemt_ept_overlaps(const struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes,
		       uint32_t mapped_only);
void vmemt_ept_cut(struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_cut_at_leaves(struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_punch(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
void vmemt_ept_put(struct vmemt_ept_world *w, const struct vmemt_ept_extent *e);
void vmemt_ept_join(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
void vmemt_ept_lower(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes, uint32_t level);
void vmemt_ept_put_leaves(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes,
			  const struct vmemt_ept_extent *like, uint32_t most);
uint64_t vmemt_ept_merge_tables(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes,
				uint32_t level);

/* Tables against list. */
void vmemt_ept_compare(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
void vmemt_ept_compare_all(struct vmemt_ept_world *w);

/* The same by those who know nothing of the builder. */
void vmemt_ept_judge(struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_judge_all(struct vmemt_ept_world *w, const struct vmem_ept_stats *stats);

/* Entries as a processor reads them. slot(): of the tables as they are, NULL: the way ends above. */
int vmemt_ept_present(const struct vmemt_ept_world *w, uint64_t entry);
int vmemt_ept_is_table(const struct vmemt_ept_world *w, uint64_t entry, uint32_t level);
uint32_t vmemt_ept_rights(const struct vmemt_ept_world *w, uint64_t entry);
uint64_t vmemt_ept_address(uint64_t entry, uint32_t level);
uint64_t *vmemt_ept_entry(const struct vmemt_ept_world *w, uint64_t table, uint64_t gpa,
			  uint32_t level);
uint64_t *vmemt_ept_slot(const struct vmemt_ept_world *w, uint64_t gpa, uint32_t level);
uint64_t vmemt_ept_bits(const struct vmemt_ept_world *w, uint32_t leaf_flags);

/* Upper entries whose accessed bit a harvest has cleared: all others have it. used(): those of which something that is
 * mapped in a range was used; walked(): one that a processor has read; clear(): by a harvest of a range, as far as @last. */
void vmemt_ept_uppers_used(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
void vmemt_ept_upper_walked(struct vmemt_ept_world *w, uint64_t gpa, uint32_t level);
void vmemt_ept_uppers_clear(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes, uint64_t last);
int vmemt_ept_upper_unused(const struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_uppers_compare(struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_uppers_compare_all(struct vmemt_ept_world *w);

/* What is owed. owe(): the last change, from now on; tell(): processors, of the first @count changes, and with @flushed the
 * builder, that it is done. before_merge(), merged(): tables that a merge leaves out; marked(): a processor has set bits in
 * one of them. */
void vmemt_ept_owe(struct vmemt_ept_world *w);
void vmemt_ept_tell(struct vmemt_ept_world *w, uint32_t count, int flushed);
void vmemt_ept_tell_some(struct vmemt_ept_world *w);
void vmemt_ept_before_merge(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
void vmemt_ept_merged(struct vmemt_ept_world *w, uint64_t gpa, uint32_t level, uint32_t bits);
void vmemt_ept_marked(struct vmemt_ept_world *w, uint64_t table, uint32_t bits);

/* The pretend processor (many of them: each remembers something else): it keeps what it has ever read until it is told to
 * forget. excuse(): what it remembers of a range may be wrong from now on, if it is, until the last change is told; check():
 * all else is right. */
void vmemt_ept_access(struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_forget(struct vmemt_ept_world *w, const struct vmem_ept_range *range);
void vmemt_ept_excuse(struct vmemt_ept_world *w, const struct vmem_ept_range *range);
void vmemt_ept_stale_fine(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
void vmemt_ept_cached_check(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
/* Empties its buffer of page-modification logging. */
void vmemt_ept_drain(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
#endif
