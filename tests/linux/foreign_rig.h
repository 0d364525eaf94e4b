/* SPDX-License-Identifier: BSD-2-Clause */
/* A client, and a manager that serves its memory from a source that gives each page its version 1. */
#ifndef VMEMT_FOREIGN_RIG_H
#define VMEMT_FOREIGN_RIG_H
#include "linux/foreign_client.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include <vmem/foreign.h>

#define VMEMT_FOREIGN_GPA (UINT64_C(1) << 32)
#define VMEMT_FOREIGN_PAGES 512
#define VMEMT_FOREIGN_EVENTS (UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

struct vmemt_foreign_rig {
	struct vmemt_client client;
	vmem_manager *manager;
	vmem_foreign *foreign;
	vmem_region *region;
	_Atomic uint32_t hold;        /* atomic; the source does not return while it is set */
	_Atomic uint32_t held, asked; /* atomic; calls that do not return; all calls */
	_Atomic uint32_t lost;        /* atomic; times that on_lost was called */
	_Atomic int answer;           /* atomic; of the source */
	_Atomic uint64_t bad_first, bad_end; /* atomic; of these pages it says -VMEM_EIO */
	int stopped; /* where the source says that it hangs from page 10 on, -1: it does not; set before any thread */
};

extern struct vmemt_foreign_rig vmemt_foreign;

/* A client of so many pages, with a userfaultfd of these features, and nothing served yet by @m, which may come
 * later. */
void vmemt_foreign_begin(vmem_manager *m, uint64_t pages, uint64_t features);
/* All of its memory, which is with its source, by threads of the manager. */
void vmemt_foreign_serve(void);
int vmemt_foreign_read(void *context, uint64_t gpa, void *buffer);
struct vmem_region_opts vmemt_foreign_range(const struct vmemt_client *c, uint64_t first,
					    uint64_t count, uint64_t flags);
int vmemt_foreign_attach(const struct vmemt_client *c, const struct vmem_region_opts *ranges,
			 uint32_t count);
/* All of its memory, which is with its source. */
int vmemt_foreign_whole(const struct vmemt_client *c);
/* Both, with a client of VMEMT_FOREIGN_PAGES. */
void vmemt_foreign_make(uint64_t budget);
void vmemt_foreign_end(void);
struct vmem_foreign_metrics vmemt_foreign_metrics(void);
/* Pages of a process that its kernel does not fill or make errors, as if it removed others without pause: for
 * vmemi_kernel.ioctl. */
struct vmemt_refused {
	_Atomic uint64_t address, end; /* atomic; end 0: there are none */
	_Atomic uint64_t count;        /* atomic; of refusals */
	_Atomic int fd;                /* atomic; of this userfaultfd alone; -1: of any */
};
extern struct vmemt_refused vmemt_refused;
int vmemt_refuse_ioctl(int fd, unsigned long request, void *argument);
void vmemt_refuse(const struct vmemt_client *c, uint64_t page, uint64_t count);
/* An order that must be right for each page. */
void vmemt_foreign_expect(enum vmemt_order order, uint64_t first, uint64_t count, uint64_t version);

#endif
