/* SPDX-License-Identifier: BSD-2-Clause */
/* A store with more pages than its budget, most of them on devices that fail: whatever happens, a page is what was
 * saved, or an error, and an error only where its bytes are gone. For plain programs, one thread. Ends the program
 * where that does not hold. */
#ifndef VMEMT_FAULT_STORE_H
#define VMEMT_FAULT_STORE_H
#include <vmem/device.h>
#include "pool/pool_of.h"
#include "store/model_pages.h"
#include "store/store_internal.h"

#define VMEMT_MIB (UINT64_C(1) << 20)
#define VMEMT_FAULT_PAGES 2400u /* of those every eighth compresses */
#define VMEMT_FAULT_BUDGET (3 * VMEMT_MIB)

struct vmemt_fault_store {
	vmem_store *store;
	uint32_t vm;
	uint64_t now_ns;                       /* of vmem_store_work() */
	vmem_store_ref ref[VMEMT_FAULT_PAGES]; /* 0: not saved */
};

void vmemt_fault_open(struct vmemt_fault_store *f);
/* Sound, and freed with its devices. */
void vmemt_fault_close(struct vmemt_fault_store *f);
/* Its number. */
uint32_t vmemt_fault_add(struct vmemt_fault_store *f, struct vmem_device *device, int32_t priority);

struct vmem_store_out_stats vmemt_fault_out(struct vmemt_fault_store *f);
struct vmem_store_device_stats vmemt_fault_device(struct vmemt_fault_store *f, uint32_t number);

/* One turn of the background, with a wait for what is in flight. */
void vmemt_fault_work(struct vmemt_fault_store *f);
/* Until no write is in flight; begins none. */
void vmemt_fault_settle(struct vmemt_fault_store *f);

/* Saves a page, with as much work as it takes. False: it is refused although nothing is in flight. */
bool vmemt_fault_save(struct vmemt_fault_store *f, uint32_t i);
/* Saves those that are not there, until one is refused. Returns how many are there. */
uint32_t vmemt_fault_fill(struct vmemt_fault_store *f);
void vmemt_fault_drop(struct vmemt_fault_store *f, uint32_t i);

/* Loads a page: 0, and it is right, or -VMEM_EIO or -VMEM_EBADMSG. */
int vmemt_fault_load(struct vmemt_fault_store *f, uint32_t i);
/* Where a page is on a device. */
struct vmemt_place {
	uint32_t device;
	bool is_text;        /* it compresses: other bytes may by chance mean the same */
	uint64_t begin, end; /* bytes, of those that it consists of */
	uint64_t block_end;  /* of the blocks that are read for it */
};
/* False: it is in memory. */
bool vmemt_fault_where(struct vmemt_fault_store *f, uint32_t i, struct vmemt_place *place);

enum vmemt_fate { VMEMT_THERE, VMEMT_LOST, VMEMT_EITHER };

/* Loads all pages: those that @fate_of says are lost are errors, the others are right. Returns how many were errors,
 * which the store has counted. */
uint32_t vmemt_fault_check(struct vmemt_fault_store *f,
			   enum vmemt_fate (*fate_of)(const struct vmemt_place *place,
						      void *context),
			   void *context);
/* All are right. */
void vmemt_fault_check_all(struct vmemt_fault_store *f);

#endif
