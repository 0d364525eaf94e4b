/* SPDX-License-Identifier: BSD-2-Clause */
/* Huge pages of our own memory, as the kernel tells of them. */
#ifndef VMEMT_HUGE_SEEN_H
#define VMEMT_HUGE_SEEN_H
#include <stdint.h>

/* Bytes of [start, start + bytes) in huge mappings, of whole mappings; as the kernel counts them. */
uint64_t vmemt_huge_mapped(const void *start, uint64_t bytes);

/* Pages of the 2 MiB at @block that are part of a huge frame, mapped as one or not; -1: we may not know. */
int vmemt_huge_frames(const unsigned char *block);

/* Skips the test where the kernel knows how to make huge pages, but makes no @blocks: memory may be in pieces, or huge
 * pages switched off for the process. */
void vmemt_huge_need(unsigned blocks);

#endif
