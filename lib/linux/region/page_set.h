/* SPDX-License-Identifier: BSD-2-Clause */
/* A set of pages that any thread adds to, and that is emptied now and then: a bit a page, and above them
 * a bit for each 64 that may not be empty, so that a few pages of a large region are found fast. */
#ifndef VMEMI_PAGE_SET_H
#define VMEMI_PAGE_SET_H
#include "linux/region/arrays.h"
#include <stdatomic.h>
#include <stdbool.h>

struct vmemi_page_set {
	_Atomic uint64_t *pages;  /* atomic; a bit a page */
	_Atomic uint64_t *groups; /* atomic; a bit 64 pages: set after theirs, cleared before */
	_Atomic uint64_t count;   /* atomic; of groups; only grows */
};

/* A set of some of the first @pages pages. 0, -VMEM_ENOMEM. */
int vmemi_page_set_init(struct vmemi_page_set *s, struct vmemi_arrays *a, uint64_t pages);
void vmemi_page_set_destroy(struct vmemi_page_set *s, struct vmemi_arrays *a);
/* So many pages from now on. */
void vmemi_page_set_grow(struct vmemi_page_set *s, uint64_t pages);

/* Any thread, signal handlers too. */
void vmemi_page_set_add(struct vmemi_page_set *s, uint64_t page);
/* Pages of one group, by a bit each. */
void vmemi_page_set_add_group(struct vmemi_page_set *s, uint64_t group, uint64_t bits);

/* The first group from @group on and before @end that may have pages; @end: none has. Any thread. */
uint64_t vmemi_page_set_next(const struct vmemi_page_set *s, uint64_t group, uint64_t end);

/* Takes all pages out of the first group with any, from *@group on and before @end, and returns them as
 * bits. *@group is which; 0: there are none. Any thread. */
uint64_t vmemi_page_set_take(struct vmemi_page_set *s, uint64_t *group, uint64_t end);

/* Takes all pages out of one group. Any thread. */
static inline uint64_t vmemi_page_set_take_group(struct vmemi_page_set *s, uint64_t group)
{
	return atomic_exchange(&s->pages[group], 0); /* its bit above is left: no harm */
}

/* Whether it is in, and would be found. */
bool vmemi_page_set_has(const struct vmemi_page_set *s, uint64_t page);

#endif
