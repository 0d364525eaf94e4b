/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that have stayed: encoded anew, so that they take less. */
#ifndef VMEMI_COLD_H
#define VMEMI_COLD_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/codec.h>
#include <vmem/store.h>
#include "base/lock.h"

struct vmemi_cold {
	/* Held while one object is worked on: the domain that it is of does not go away meanwhile, and its
	 * index of similar pages does not change. */
	struct vmemi_lock lock;
	_Atomic uint32_t working;     /* atomic; a piece is being done */
	_Atomic uint32_t interrupted; /* atomic; a save or a load has come since it began */

	/* Constant. */
	bool enabled;
	bool deltas;
	uint64_t after_ns;
	uint64_t pages_per_second; /* 0: no limit */
	uint64_t bytes;            /* of memory */

	/* vmem_store_work(), which is serial. */
	uint32_t hand; /* next handle, 0: between two passes */
	bool started;
	uint64_t pass_ns;         /* when the pass began, or the last one */
	uint64_t spent_ns, spent; /* pages since then, for the limit */
	unsigned char *pages;     /* COLD_PAGES of them: see cold.c */
};

enum vmemi_cold_result {
	VMEMI_COLD_DONE,    /* nothing more to do now */
	VMEMI_COLD_MORE,    /* go on */
	VMEMI_COLD_STOPPED, /* there is more, but somebody needs the processor */
};

/* 0, -VMEM_ENOMEM. */
int vmemi_cold_init(vmem_store *store, const struct vmem_store_opts *opts);
void vmemi_cold_destroy(vmem_store *store);

/* A piece of about 50 us. */
enum vmemi_cold_result vmemi_cold_work(vmem_store *store, uint64_t now_ns);

/* By saves and loads: background work, if there is any, stops after the page that it is at. */
static inline void vmemi_cold_interrupt(struct vmemi_cold *c)
{
	if (atomic_load_explicit(&c->working, memory_order_relaxed))
		atomic_store_explicit(&c->interrupted, 1, memory_order_relaxed);
}

#endif
