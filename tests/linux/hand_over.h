/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests with several processes: those that die with the test, and descriptors through a Unix socket. */
#ifndef VMEMT_HAND_OVER_H
#define VMEMT_HAND_OVER_H
#include <sys/types.h>

/* fork(), which must work. The child is killed when the thread that called this ends, however it does: nothing is
 * left of a test that fails. */
pid_t vmemt_fork(void);
/* The status of a child that comes to its end. */
int vmemt_end_of(pid_t child);

/* Both must work. */
void vmemt_send_fd(int socket, int fd);
/* The descriptor, or -1 if the other side is gone. */
int vmemt_receive_fd(int socket);

#endif
