/* SPDX-License-Identifier: BSD-2-Clause */
/* A pool beside a list of what should be in it. A step is an operation and its argument; after it both
 * agree, or the program ends. For random tests and for fuzzing. */
#ifndef VMEMT_POOL_MODEL_H
#define VMEMT_POOL_MODEL_H
#include <vmem/pool.h>
#include "support/pages.h"
#include "support/fail_alloc.h"

#define VMEMT_MODEL_OBJECTS 4096u
#define VMEMT_MODEL_STREAMS 8u

struct vmemt_pool_object {
	vmem_pool_handle handle; /* 0: not there */
	uint32_t stream;         /* in the model's table */
	uint32_t bytes;          /* as saved; 0: a page */
	enum vmemt_page_kind kind;
	uint64_t seed;
};

struct vmemt_pool_model {
	vmem_pool *pool;
	struct vmemt_fail_alloc tables, segments;
	struct {
		uint32_t id;
		int exists;
	} stream[VMEMT_MODEL_STREAMS];
	struct vmemt_pool_object object[VMEMT_MODEL_OBJECTS];
	uint64_t budget_segments; /* 0: none */
	uint64_t most_segments;   /* the budget, or what was in use when it was lowered */
	uint64_t objects, refused;
};

void vmemt_pool_model_init(struct vmemt_pool_model *m, uint64_t budget_segments);
void vmemt_pool_model_step(struct vmemt_pool_model *m, uint8_t operation, uint64_t arg);
/* Everything: each object's content, all counters, the pool's own invariants. */
void vmemt_pool_model_check(struct vmemt_pool_model *m);
void vmemt_pool_model_destroy(struct vmemt_pool_model *m);

#endif
