/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for regions that grow: a VMM's own, private or in a file, as the tests run. */
#ifndef VMEMT_GROWING_H
#define VMEMT_GROWING_H
#include <vmem/region.h>

#define VMEMT_GROWING_GPA (UINT64_C(5) << 30)

/* A region of @pages pages that may become @most; one page a fault. */
struct vmem_region_opts vmemt_growing_options(uint64_t pages, uint64_t most);
/* @pages pages of the VMM's, of which all even ones have contents: version 1. *@ret_fd: their file, or -1. */
unsigned char *vmemt_growing_map(uint64_t pages, int *ret_fd);
void vmemt_growing_unmap(unsigned char *memory, uint64_t pages, int fd);
/* Attaches the beginning of it. */
int vmemt_growing_attach(vmem_region **ret_region, vmem_manager *m, struct vmem_region_opts o,
			 unsigned char *memory, int fd);

#endif
