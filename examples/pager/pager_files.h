/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that a VMM has in files (memfd) and hands over with them: each range becomes a region over its file
 * here, which the VMM's process is a peer of. So its pages can leave, too. */
#ifndef PAGER_FILES_H
#define PAGER_FILES_H
#include <stdbool.h>
#include <vmem/foreign.h>
#include <vmem/peer.h>

#include "pager_hand_over.h"

struct pager_files {
	uint32_t count; /* 0: none */
	struct pager_files_range {
		void *memory; /* its mapping here, which nobody touches */
		uint64_t bytes;
		vmem_region *region;
		vmem_peer *peer; /* NULL: not added */
	} range[VMEM_FOREIGN_RANGES_MAX];
};

/* Serves what was handed over, the rest of it from @sources. NULL, or why not: then nothing of it is served. */
const char *pager_files_begin(struct pager_files *f, vmem_manager *manager,
			      const struct hand_over *h, struct vmem_source_file *sources);
/* Whether the process has ended, or was never served. */
bool pager_files_are_gone(const struct pager_files *f);
/* Ends it, by @how of <vmem/region.h>. 0, or an error: what is left is served still. */
int pager_files_end(struct pager_files *f, uint32_t how);

#endif
