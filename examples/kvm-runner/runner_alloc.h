/* SPDX-License-Identifier: BSD-2-Clause */
/* All memory of the runner and of the library it runs on, from libc, through one counter: so that a
 * test can let any one allocation fail. */
#ifndef RUNNER_ALLOC_H
#define RUNNER_ALLOC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmem/allocator.h>

/* The n-th allocation from now on fails, 1 being the next; 0: none. Before threads start. */
void alloc_fail_at(uint64_t n);

/* Whether that is still to come. */
bool alloc_failure_waits(void);

/* Zeroed memory, or NULL. Free it with alloc_free(); NULL is fine there. */
void *alloc_new(size_t bytes);
void alloc_free(void *memory);

/* As alloc_new() with `bytes` of it from `memory`, which it frees; NULL leaves `memory` as it is. */
void *alloc_grow(void *memory, size_t bytes, size_t new_bytes);

/* Aligned to a page, not zeroed. Free it with alloc_free(). */
void *alloc_pages(size_t bytes);

/* The same memory for the library's objects. */
const struct vmem_allocator *alloc_for_library(void);

#endif
