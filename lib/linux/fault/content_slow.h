/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading what is on a device: for content.c alone. */
#ifndef VMEMI_CONTENT_SLOW_H
#define VMEMI_CONTENT_SLOW_H
#include "linux/region/table.h"

#define VMEMI_CONTENT_LOST 1 /* it took too long: the page is lost, and the claim has ended */

/* Reads a stored page that the caller has claimed; @old: its word before. 0, -VMEM_EIO, -VMEM_EBADMSG, -VMEM_EAGAIN (not
 * now), or VMEMI_CONTENT_LOST. @lent: @data is a buffer of the host, which it takes then, with all that is under way. */
int vmemi_content_peek_slow(struct vmem_region *r, uint64_t page, uint64_t old, void *data,
			    bool lent);

#endif
