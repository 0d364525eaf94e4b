/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest of several times the budget of its manager, on devices that fail: a page that is touched is what the guest has
 * written there, or the touch is an error, which the VMM was told of by on_lost; and an error only where its bytes are
 * gone. One at a time. */
#ifndef VMEMT_SWAP_GUEST_H
#define VMEMT_SWAP_GUEST_H
#include "linux/guest.h"
#include <vmem/manager_device.h>

#define VMEMT_SWAP_PAGES 5120u
#define VMEMT_MIB (UINT64_C(1) << 20)

struct vmemt_swap_guest {
	vmem_manager *manager;
	vmem_region *region;
	unsigned char *base;
	struct vmemt_cpu cpu;
	_Atomic int told[VMEMT_SWAP_PAGES]; /* atomic; the error of on_lost, 0: none */
	_Atomic uint32_t told_count;        /* atomic */
};

/* The processor is started once, and the manager has threads. @fault_deadline_ms 0: the default. */
void vmemt_swap_begin(struct vmemt_swap_guest *g, uint64_t budget_bytes,
		      uint64_t fault_deadline_ms);
void vmemt_swap_end(struct vmemt_swap_guest *g);
/* Its number. */
uint32_t vmemt_swap_add(struct vmemt_swap_guest *g, struct vmem_device *device, int32_t priority);
/* A file without a name. */
uint32_t vmemt_swap_add_file(struct vmemt_swap_guest *g, int32_t priority);

struct vmem_store_out_stats vmemt_swap_out(struct vmemt_swap_guest *g);
struct vmem_store_device_stats vmemt_swap_device(struct vmemt_swap_guest *g, uint32_t number);

/* The guest writes all pages. A device that pauses holds it up for so long. */
void vmemt_swap_fill(struct vmemt_swap_guest *g, uint64_t version);
/* The same; where nothing more can be taken out of it, the VMM is told, and adds a file. True: that was so. */
bool vmemt_swap_fill_helped(struct vmemt_swap_guest *g, uint64_t version);
/* Until no segment is being written: on a device that has begun to fail before, none arrives from then on. */
void vmemt_swap_settle(struct vmemt_swap_guest *g);

/* Whether some of a page is on device 0. */
bool vmemt_swap_is_out(struct vmemt_swap_guest *g, uint64_t page);

/* The guest reads all pages (under ThreadSanitizer, some), and of those that are lost many. They are right, or errors
 * that were told of, but none of those which have no bytes on device 0 at or behind @from. Returns how many are lost. */
uint32_t vmemt_swap_check(struct vmemt_swap_guest *g, uint64_t version, uint64_t from);
/* The guest gives away what may be lost so, writes it anew, and all pages are right again. */
void vmemt_swap_heal(struct vmemt_swap_guest *g, uint64_t version, uint64_t from);

#endif
