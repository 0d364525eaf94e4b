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
enum { VMEMT_EPT_EXTENTS = 4096, VMEMT_EPT_CACHED = 2048, VMEMT_EPT_OWED = 64 };

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
	uint64_t gpa, bytes;
	uint64_t hpa; /* of the page, or of the table below */
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
	uint64_t epoch;     /* that waits for vmem_ept_flushed() */
	uint32_t failing;   /* each operation is tried with each of its allocations failing */
	uint32_t narrow;    /* small ranges only */
	uint32_t processor; /* the pretend processor looks on */
	struct vmem_ept_change change; /* of the last operation */
	uint32_t extents;
	struct vmemt_ept_extent extent[VMEMT_EPT_EXTENTS];
	struct vmem_ept_range owed[VMEMT_EPT_OWED]; /* what the processor was not told yet */
	uint32_t owed_count;
	uint32_t cached;
	struct vmemt_ept_cached cache[VMEMT_EPT_CACHED];
};

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

/* The list. first(): the first extent that ends behind gpa, or the number of extents. */
uint32_t vmemt_ept_first(const struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_cut(struct vmemt_ept_world *w, uint64_t gpa);
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

/* The pretend processor: remembers what it has ever read until it is told to forget. owe() keeps what a change owes for
 * invalidate(); what is owed may be wrong until then. cached_right(): what touches a range. */
void vmemt_ept_access(struct vmemt_ept_world *w, uint64_t gpa);
void vmemt_ept_owe(struct vmemt_ept_world *w, const struct vmem_ept_change *change);
void vmemt_ept_invalidate(struct vmemt_ept_world *w);
void vmemt_ept_cached_right(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes);
#endif
