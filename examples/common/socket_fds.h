/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors that come with messages. */
#ifndef SOCKET_FDS_H
#define SOCKET_FDS_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Adds those that came with @message to the *@count in @fd, where @most have room; others are closed. False: there were
 * others, or more than the message had room for. */
bool socket_fds_keep(struct msghdr *message, int *fd, uint32_t *count, uint32_t most);

#endif
