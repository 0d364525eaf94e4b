/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of no region that is given back: what its tests share, with short names, as it is all that they are about. */
#ifndef VMEMT_BALLOON_RIG_H
#define VMEMT_BALLOON_RIG_H
#include "linux/guest.h"
#include <vmem/discard.h>

#define PAGE ((uint64_t)VMEM_PAGE_SIZE)
#define GPA (UINT64_C(1) << 32)
#define PAGES 256u

/* All of these must work. @k: NULL for the real one. */
vmem_discard *made(const struct vmemi_kernel *k);
void add(vmem_discard *d, const struct vmem_discard_piece *of);
struct vmem_discard_metrics metrics(const vmem_discard *d);
/* Discards pages [first, first + count) of the memory at GPA. What it returns; and bytes that were released. */
int discard(vmem_discard *d, uint64_t first, uint64_t count, uint64_t *released);

unsigned char *mapped(uint64_t pages, int flags, int fd, uint64_t offset);
/* Pages that the kernel has mapped there. */
uint64_t present(unsigned char *base, uint64_t pages);
/* Every @step-th page, with what is_filled() says of it. */
void fill(unsigned char *base, uint64_t pages, uint64_t step);
bool is_filled(const unsigned char *page, uint64_t i);
bool is_zero(const unsigned char *page);
/* A file in memory, and bytes that one takes. */
int file_of(uint64_t pages);
uint64_t blocks(int fd);

#endif
