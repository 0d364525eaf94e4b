/* SPDX-License-Identifier: BSD-2-Clause */
/* Sharing domains: the pages of a domain may share objects, those of two never do. A VM is one by default;
 * VMs that name the same group are one together. A domain has a stream of the pool for its objects, and a
 * table of them by content, which counts the uses of each: by pages, and by deltas that were made against
 * it. With the last one the object is gone. */
#ifndef VMEMI_DOMAIN_H
#define VMEMI_DOMAIN_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/dedup.h>
#include <vmem/similar.h>
#include <vmem/store.h>
#include "pool/pool_of.h"

/* How an object is kept, for the accounts. */
enum vmemi_form {
	VMEMI_FORM_FILL, /* a 64-bit word */
	VMEMI_FORM_RAW,
	VMEMI_FORM_LZ4,
	VMEMI_FORM_ZSTD,
	VMEMI_FORM_DELTA,
	VMEMI_FORM_OTHER, /* a codec of the caller's */
	VMEMI_FORMS
};

enum vmemi_form vmemi_form_of(uint32_t codec);

struct vmemi_domain {
	/* Constant. */
	vmem_store *store;
	uint64_t group;    /* its name, if it is one */
	uint32_t stream;   /* of the pool */
	bool is_group;     /* else of one VM, whose number is the stream's */
	vmem_dedup *dedup; /* NULL: each page has an object of its own */

	vmem_similar *similar; /* cold.lock; objects that may be references; NULL: no deltas */

	uint32_t vms;              /* vm_lock of the store */
	struct vmemi_domain *next; /* vm_lock; of groups */
	uint64_t summed;           /* vm_lock; while VMs are summed up: pages of those before */

	_Alignas(64) _Atomic uint64_t objects[VMEMI_FORMS]; /* atomic */
	_Atomic uint64_t pages;                             /* atomic; that use them */
	_Atomic uint64_t similar_bytes;                     /* atomic; of the index */
	_Atomic uint64_t work_ns; /* atomic; CPU time of background work on its objects */
};

/* CPU time of background work, two times of vmemi_store_cpu_ns() apart. Any thread. */
static inline void vmemi_domain_charge_work(struct vmemi_domain *d, uint64_t ns)
{
	atomic_fetch_add_explicit(&d->work_ns, ns, memory_order_relaxed);
}

/* A domain with a stream of its own, or with @stream for one VM (@group NULL).
 * 0, -VMEM_ENOMEM, -VMEM_ENOSPC. */
int vmemi_domain_new(struct vmemi_domain **ret_domain, vmem_store *store, const uint64_t *group,
		     uint32_t stream, bool shares);
/* With all its objects and its stream. No call uses it any more. NULL is fine. */
void vmemi_domain_free(struct vmemi_domain *d);

/* An object with the bytes of @page, used once more by this. 1, 0: there is none. Any thread. */
int vmemi_domain_find(struct vmemi_domain *d, uint32_t checksum, const void *page,
		      uint32_t *ret_handle);
/* A new object, used once. As vmem_pool_save_page(). Any thread. */
int vmemi_domain_add(struct vmemi_domain *d, struct vmemi_page_save *page, uint32_t *ret_handle);
/* One use less. 0, -VMEM_ENOENT. Any thread. */
int vmemi_domain_drop(struct vmemi_domain *d, uint32_t handle);

/* For deltas: one use more of an object that is to be a reference. 0, or negative: it cannot be one. */
int vmemi_domain_use(struct vmemi_domain *d, uint32_t handle, uint32_t checksum);
/* And one less. */
void vmemi_domain_unuse(struct vmemi_domain *d, uint32_t handle);

/* An object that may be a reference, with its sketch. Cold locked. */
void vmemi_domain_learn(struct vmemi_domain *d, const struct vmem_similar_sketch *sketch,
			uint32_t handle);
/* One that was named for a page with this sketch, and may not. Cold locked. */
void vmemi_domain_unlearn(struct vmemi_domain *d, const struct vmem_similar_sketch *sketch,
			  uint32_t handle);

/* Gives memory of the tables of a domain that shares back when objects have gone, at most about @lines cache
 * lines. True: there is more. Cold locked. */
bool vmemi_domain_shrink(struct vmemi_domain *d, uint32_t lines);

/* Bytes of memory beside the pool's. */
uint64_t vmemi_domain_bytes(struct vmemi_domain *d);

#endif
