/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside the store: the store itself, its VMs, and how a tier that takes time plugs in. */
#ifndef VMEMI_STORE_INTERNAL_H
#define VMEMI_STORE_INTERNAL_H
#include <stdatomic.h>
#include <vmem/pool.h>
#include <vmem/store.h>
#include "base/alloc.h"
#include "base/lock.h"
#include "store/cold.h"
#include "store/cpu_time.h"
#include "store/domain.h"
#include "store/holds.h"
#include "store/inflight.h"
#include "store/out.h"
#include "store/ref.h"

#define VMEMI_STORE_VMS 65535u
#define VMEMI_VM_CHUNK 64u /* VMs whose blocks are allocated together */
#define VMEMI_VM_CHUNKS ((VMEMI_STORE_VMS + VMEMI_VM_CHUNK - 1) / VMEMI_VM_CHUNK)

/* A VM. The first cache line changes with the VM only, the others with every page. Its number is that of
 * a stream in the pool: that of its domain, or, in a group, one without objects. */
struct vmemi_vm {
	_Alignas(64) _Atomic uint32_t live; /* atomic; publishes the rest of this line */
	uint32_t number;
	uint64_t bytes;
	_Atomic uint64_t cap_bytes; /* atomic; UINT64_MAX: none */
	struct vmemi_domain *domain;
	struct vmemi_holds holds; /* if the domain shares */

	_Alignas(64) _Atomic uint64_t same; /* atomic; pages in their references */
	_Atomic uint64_t in_pool;           /* atomic; all others */
	_Atomic uint64_t saves;             /* atomic; since the start */
	_Atomic uint64_t loads;             /* atomic; since the start */
	_Atomic uint64_t rejects;           /* atomic; since the start */
	_Atomic uint64_t corrupt;           /* atomic; since the start */
	struct vmemi_cpu_time saving;       /* of pages in the pool */
	struct vmemi_cpu_time loading;      /* of pages in the pool */
	_Atomic bool loose;                 /* atomic; see shrink.c */
};

/* A tier in which a load may take time: a device. */
struct vmemi_store_tier {
	void *context;
	/* Whether the load of this page takes time. Called by every load of a page in the pool. */
	int (*slow)(void *context, uint64_t key, vmem_store_ref ref);
	/* Begins it. vmemi_store_finish_load(store, token, ...) must follow once, from any thread, in
	 * here too. */
	void (*begin)(void *context, vmem_store_token token);
	/* Called by vmem_store_poll() first, to complete what is ready. May be NULL. */
	void (*poll)(void *context);
};

struct vmem_store {
	struct vmem_allocator allocator; /* the caller's */
	struct vmem_allocator segments;  /* the caller's, of what is as large as segments */
	struct vmem_env env;             /* the caller's */
	struct vmem_env pool_env;        /* as the pool sees it: store_log.c */
	struct vmemi_cpu_clock clock;
	vmem_pool *pool;
	uint32_t max_object_bytes;
	uint32_t cpu;                                /* VMEM_CPU_* */
	uint32_t seed;                               /* of the tables by content */
	const struct vmemi_store_tier *_Atomic tier; /* atomic; NULL: no load takes time */

	/* VMs by number, in chunks that never move: a call finds its VM without a lock. */
	struct vmemi_lock vm_lock;      /* taken to add, drop and sum up VMs, not by other calls */
	uint32_t vm_high;               /* vm_lock; numbers from here on were never used */
	struct vmemi_domain *groups;    /* vm_lock */
	struct vmem_store_account gone; /* vm_lock; counters of VMs that were dropped */
	struct vmemi_vm *_Atomic chunk[VMEMI_VM_CHUNKS]; /* atomic; written once, under vm_lock */

	struct vmemi_out *_Atomic out;  /* atomic; devices; NULL: none. Stays once it is there */
	struct vmemi_inflight inflight; /* has its own lock */
	struct vmemi_cold cold;         /* has its own lock */

	_Atomic bool loose;       /* atomic; a VM is */
	bool shrinking;           /* vmem_store_work(), which is serial; a pass is under way */
	uint32_t shrink_hand;     /* the same; where it is, a VM */
	_Atomic uint64_t work_ns; /* atomic; CPU time of vmem_store_work() */
};

/* The VM, or NULL. */
static inline struct vmemi_vm *vmemi_store_vm(vmem_store *store, uint32_t number)
{
	struct vmemi_vm *chunk, *vm;

	if (number >= VMEMI_STORE_VMS)
		return NULL;
	chunk = atomic_load_explicit(&store->chunk[number / VMEMI_VM_CHUNK], memory_order_acquire);
	if (!chunk)
		return NULL;
	vm = &chunk[number % VMEMI_VM_CHUNK];
	return atomic_load_explicit(&vm->live, memory_order_acquire) ? vm : NULL;
}

static inline uint64_t vmemi_counter(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Adds @by, which may be negative. A page is counted before its reference is known to anybody, so that
 * no count goes below 0. */
static inline void vmemi_count(_Atomic uint64_t *counter, int by)
{
	atomic_fetch_add_explicit(counter, (uint64_t)(int64_t)by, memory_order_relaxed);
}

/* CPU time of this thread so far, 0 without a clock: for vmemi_domain_charge_work(). Any thread. */
static inline uint64_t vmemi_store_cpu_ns(const vmem_store *store)
{
	return vmemi_cpu_ns(&store->env);
}

/* Whether an object of its domain is a page of the VM: it may be there for others of its group, or for deltas
 * alone. */
static inline bool vmemi_vm_owns(const struct vmemi_vm *vm, uint32_t handle)
{
	return !vm->domain->dedup || vmemi_holds_has(&vm->holds, handle);
}

/* Bytes of objects in the pool that are charged to the VM: those of its domain, or its part of them by the
 * number of pages. Any thread. */
uint64_t vmemi_vm_physical_bytes(const struct vmemi_vm *vm);

/* shrink.c: a VM has dropped pages, so that tables may be larger than they need be. Any thread. */
void vmemi_store_loosen(vmem_store *store, struct vmemi_vm *vm);
/* Makes such tables smaller, a piece of about 50 us. True: there is more to do. */
bool vmemi_store_shrink(vmem_store *store);

/* account.c: the table of VMs. Free is called with no VM in use. */
void vmemi_store_vms_free(vmem_store *store);

/* store_log.c: makes store->pool_env of store->env. */
void vmemi_store_pool_env(vmem_store *store);

/* For tiers: the bytes of the page can be loaded now (@result 0), or cannot (negative). Puts the page in
 * place and queues the event. 0, -VMEM_ENOENT (no such load, or finished already). */
int vmemi_store_finish_load(vmem_store *store, vmem_store_token token, int result);

/* A load is over: counts it, and queues the event, and offers to its VM. */
void vmemi_store_load_over(vmem_store *store, vmem_store_token token, int result,
			   const struct vmemi_offers *offers);

/* For tiers: an offer or a loss. 0, -VMEM_ENOENT (vm), -VMEM_EAGAIN (full: offers are then forgotten,
 * losses told again later). */
int vmemi_store_post(vmem_store *store, const struct vmem_store_event *event);

/* Gives the store a tier, or with NULL takes it away. Loads that @tier began before may still finish. */
void vmemi_store_set_tier(vmem_store *store, const struct vmemi_store_tier *tier);

/* Bytes of the pool that the page of a valid ref takes, as physical_bytes counts them. Any thread. */
uint64_t vmemi_store_ref_bytes(vmem_store *store, vmem_store_ref ref);

/* out_trust.c: whether the page of a valid ref can be loaded as far as is known: it is in memory, or on devices of
 * which nothing says otherwise. Any thread. */
bool vmemi_store_can_load(vmem_store *store, uint32_t vm, vmem_store_ref ref);

/* For tests: walks everything, the pool too. NULL, or what is wrong. The store must be at rest. */
const char *vmemi_store_check(vmem_store *store);

#endif
