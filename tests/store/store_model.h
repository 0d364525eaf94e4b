/* SPDX-License-Identifier: BSD-2-Clause */
/* A store beside a naive model of it: each step does one operation on both and compares. The model
 * keeps, for each page that is stored, the seed that makes it again. Ends the program on a difference.
 * Driven by random numbers (store_model_test.c) and by a fuzzer's bytes (store_fuzz.c). */
#ifndef VMEMT_STORE_MODEL_H
#define VMEMT_STORE_MODEL_H
#include "store/slow_tier.h"
#include "support/pages.h"

#define VMEMT_MODEL_VMS 6u
#define VMEMT_MODEL_PAGES 2000u
#define VMEMT_MODEL_GONE 64u

struct vmemt_model_page {
	vmem_store_ref ref;
	uint64_t seed;
	enum vmemt_page_kind kind;
	uint32_t vm;      /* index in the model */
	uint32_t loading; /* loads of it in progress */
};

struct vmemt_model_vm {
	int live;
	uint32_t number;
	uint32_t domain;    /* VMs with the same number share; 0: it shares nothing */
	uint64_t cap_bytes; /* UINT64_MAX: none */
	uint64_t pages[VMEMT_PAGE_KINDS];
	uint64_t saves, loads, rejects, corrupt;
};

#define VMEMT_MODEL_VM_BYTES (400 * (uint64_t)VMEM_PAGE_SIZE)

static inline uint64_t vmemt_model_cap(uint32_t percent)
{
	return percent == VMEM_STORE_NO_CAP ? UINT64_MAX : VMEMT_MODEL_VM_BYTES / 100 * percent;
}

/* A ref into the pool whose page was dropped. */
struct vmemt_model_gone {
	vmem_store_ref ref; /* 0: none */
	uint32_t vm;        /* index in the model */
};

struct vmemt_model_load {
	vmem_store_token token; /* 0: the place is free */
	uint64_t key, seed;
	enum vmemt_page_kind kind;
	uint32_t vm, page;
	int peek, over, result;
};

struct vmemt_store_model {
	vmem_store *store;
	struct vmemt_slow_tier tier;
	uint32_t max_object_bytes;
	int deltas;           /* the store may make them */
	uint32_t hidden_bits; /* of 32, of each page's hash, so that they collide. Set after init */
	uint64_t budget_bytes;  /* 0: none; else saves may find no room */
	uint64_t segment_bytes; /* after the last step */
	uint64_t clock, key;
	uint32_t count;
	struct vmemt_model_page page[VMEMT_MODEL_PAGES];
	struct vmemt_model_vm vm[VMEMT_MODEL_VMS];
	struct vmemt_model_gone gone[VMEMT_MODEL_GONE]; /* the last ones */
	uint64_t gone_count;
	/* how often: no room, loads that took time, refs in gone[] with a handle that another VM has
	 * now, pages that were there already, those dropped while an equal one was being loaded */
	uint64_t refused, slow, reused, equal, dropped_beside;
	uint64_t deltas_seen; /* after background work */
	uint64_t collisions;  /* compares that found a difference, of all VMs at once, at most */
	uint64_t gone_saves, gone_loads, gone_rejects, gone_corrupt; /* of dropped VMs */
	struct vmemt_model_load load[VMEMI_INFLIGHT_ENTRIES];
	uint32_t events;                        /* in order[], oldest first */
	uint32_t order[VMEMI_INFLIGHT_ENTRIES]; /* indices of loads that are over */
	struct vmemt_page
		buffer[VMEMI_INFLIGHT_ENTRIES]; /* where load[i] goes; last, as not cleared */
};

/* @opts as for vmem_store_new(), may be NULL. */
void vmemt_store_model_init(struct vmemt_store_model *m, const struct vmem_store_opts *opts);
/* Finishes what is in progress, checks, and frees the store. */
void vmemt_store_model_destroy(struct vmemt_store_model *m);

/* One operation: all of @op and @arg may be anything. */
void vmemt_store_model_step(struct vmemt_store_model *m, uint32_t op, uint64_t arg);

/* What the store says, of a VM or of all. */
struct vmem_store_account vmemt_model_account(const struct vmemt_store_model *m, uint32_t v);
struct vmem_store_account vmemt_model_total(const struct vmemt_store_model *m);

/* Compares all accounts, and has the store check itself. */
void vmemt_store_model_check(struct vmemt_store_model *m);

#endif
