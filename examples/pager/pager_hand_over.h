/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VMM sends when it hands its memory over, in Firecracker's form: one message of a JSON array of
 * {"base_host_virt_addr", "size", "offset", "page_size"} (bytes; older: "page_size_kib", bytes too), with
 * the userfaultfd in SCM_RIGHTS. Whatever else comes is refused, and said why. */
#ifndef PAGER_HAND_OVER_H
#define PAGER_HAND_OVER_H
#include <stddef.h>
#include <stdint.h>
#include <vmem/foreign.h>

#define HAND_OVER_BYTES 65536 /* most of a message */

struct hand_over {
	int uffd;
	uint32_t count;
	struct hand_over_range {
		uint64_t base, bytes;
		uint64_t offset; /* in the memory file */
	} range[VMEM_FOREIGN_RANGES_MAX];
};

/* The list of ranges, all of which lie within @memory_bytes. NULL, or why not. */
const char *hand_over_parse(struct hand_over *ret, const char *text, size_t bytes,
			    uint64_t memory_bytes);

/* Receives one from a connected socket, within @timeout_ms. NULL and ret->uffd, which is the caller's; or why
 * not, and no descriptor is left. */
const char *hand_over_receive(struct hand_over *ret, int socket, uint64_t memory_bytes,
			      int timeout_ms);

#endif
