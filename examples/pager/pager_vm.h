/* SPDX-License-Identifier: BSD-2-Clause */
/* One VMM that is served. */
#ifndef PAGER_VM_H
#define PAGER_VM_H
#include <stdbool.h>
#include <sys/types.h>

#include "common/json_file.h"
#include "pager_files.h"
#include "pager_hand_over.h"

struct pager_file {
	int fd;
	uint64_t bytes;
};

struct pager_vm {
	int socket; /* -1: there is none any more */
	pid_t pid;
	uint32_t ranges;
	bool reported;
	/* One of them; neither: this place is free. */
	vmem_foreign *foreign;
	struct pager_files files;
	struct vmem_source_file source[VMEM_FOREIGN_RANGES_MAX];
};

bool pager_vm_is_there(const struct pager_vm *vm);
/* Whether its process has ended. */
bool pager_vm_is_gone(struct pager_vm *vm);
/* Takes over who has connected, and the socket; says why not, and closes it. 0, or -1. */
int pager_vm_begin(struct pager_vm *vm, vmem_manager *manager, const struct pager_file *memory,
		   int socket);
/* Ends it, by @how of <vmem/region.h>, and says what was served, once; @list: that too, may be NULL. 0, or -1: it is
 * served still, and why was said. */
int pager_vm_end(struct pager_vm *vm, uint32_t how, cJSON *list);

#endif
