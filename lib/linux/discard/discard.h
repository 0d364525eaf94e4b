/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving frames back to the kernel, and dropping the contents of guest pages wherever they are. */
#ifndef VMEMI_DISCARD_H
#define VMEMI_DISCARD_H
#include "linux/region/table.h"
#include <sys/uio.h>

/* Discards ranges of private anonymous memory of this process, by one call where the kernel can.
 * Returns the bytes discarded, from the first range on; less than all if the kernel refused one. */
size_t vmemi_discard_ranges(struct vmemi_host *host, const struct iovec *ranges, size_t count);

#endif
