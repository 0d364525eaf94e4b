/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors through a Unix socket, for tests with several processes. */
#ifndef VMEMT_HAND_OVER_H
#define VMEMT_HAND_OVER_H

/* Both must work. */
void vmemt_send_fd(int socket, int fd);
/* The descriptor, or -1 if the other side is gone. */
int vmemt_receive_fd(int socket);

#endif
