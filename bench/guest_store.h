/* SPDX-License-Identifier: BSD-2-Clause */
/* A store that has all pages of all guests, each guest a VM. */
#ifndef BENCH_GUEST_STORE_H
#define BENCH_GUEST_STORE_H
#include "guest_pages.h"
#include <vmem/jemalloc.h>
#include <vmem/store.h>

struct guest_store {
	const struct guest_pages *guests;
	vmem_store_ref *refs; /* of all pages in order; the caller's, as page tables would be */
	vmem_jemalloc *jemalloc;
	vmem_store *store;
	uint32_t vm[GUESTS_MAX];
	uint64_t now_ns;
};

/* Empty. @param flags  of the store @param sharing  enum vmem_store_sharing, of all guests */
int guest_store_new(struct guest_store *store, const struct guest_pages *guests,
		    vmem_store_ref *refs, uint64_t flags, uint32_t sharing);
/* All zero is fine. */
void guest_store_free(struct guest_store *store);

/* Save all pages in order, by one thread. */
int guest_store_save(struct guest_store *store);
/* Background work, while the clock moves, until nothing is left to do. */
void guest_store_work(struct guest_store *store);
/* Load all pages and compare them. @return 0, -EBADMSG */
int guest_store_check(struct guest_store *store);

/* The VM that has a page. */
uint32_t guest_store_vm(const struct guest_store *store, size_t number);

#endif
