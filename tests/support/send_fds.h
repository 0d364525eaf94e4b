/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages that bring descriptors. */
#ifndef VMEMT_SEND_FDS_H
#define VMEMT_SEND_FDS_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { VMEMT_FDS_MAX = 253 }; /* most that the kernel passes at once */

/* One message with so many descriptors; as sendmsg() with @flags. */
ssize_t vmemt_send_fds(int socket, const void *bytes, size_t count, const int *fds,
		       uint32_t fd_count, int flags);

#endif
