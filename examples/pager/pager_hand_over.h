/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VMM sends when it hands its memory over, in Firecracker's form: one message of a JSON array of
 * {"base_host_virt_addr", "size", "offset", "page_size"} (bytes; older: "page_size_kib", bytes too), with
 * the userfaultfd in SCM_RIGHTS. Ours beside it: memory that is in files in memory has "memfd" and
 * "memfd_offset" as well, and the files follow the userfaultfd, the first as 1. Whatever else comes is
 * refused, and said why. */
#ifndef PAGER_HAND_OVER_H
#define PAGER_HAND_OVER_H
#include <stddef.h>
#include <stdint.h>
#include <vmem/foreign.h>

#define HAND_OVER_BYTES 65536 /* most of a message */
#define HAND_OVER_FILES_MAX 8u

struct hand_over {
	int uffd;
	int file[HAND_OVER_FILES_MAX];
	uint32_t files; /* 0: private memory; else every range is in one of them */
	uint32_t count;
	struct hand_over_range {
		uint64_t base, bytes;
		uint64_t offset;      /* in the memory file */
		uint32_t file;        /* that it is in, if there are any */
		uint64_t file_offset; /* there */
	} range[VMEM_FOREIGN_RANGES_MAX];
};

/* The list of ranges, all of which lie within @memory_bytes, and how many files they are in. NULL, or why not. */
const char *hand_over_parse(struct hand_over *ret, const char *text, size_t bytes,
			    uint64_t memory_bytes);

/* Receives one from a connected socket, within @timeout_ms. NULL and ret->uffd and the files, which are the
 * caller's, to be closed by hand_over_close(); or why not, and no descriptor is left. */
const char *hand_over_receive(struct hand_over *ret, int socket, uint64_t memory_bytes,
			      int timeout_ms);
void hand_over_close(struct hand_over *h);

#endif
